//! What is signed, and how a signature is written.

use core::convert::Infallible;

use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decoder, Encoder};

use crate::id::SIGNATURE_LEN;

/// What is signed: what it is for, the network, and fields, each of which ends where it says.
pub(crate) fn message(
    domain: &str,
    network: &str,
    fields: impl FnOnce(&mut Encoder<Vec<u8>>) -> Result<(), EncodeError<Infallible>>,
) -> Vec<u8> {
    let mut encoder = Encoder::new(domain.as_bytes().to_vec());
    encoder.str(network).and_then(fields).expect("writing to memory cannot fail");
    encoder.into_writer()
}

pub(crate) fn encode<C, W: Write>(
    signature: &[u8; SIGNATURE_LEN],
    e: &mut Encoder<W>,
    _: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    e.bytes(signature)?.ok()
}

pub(crate) fn decode<C>(
    d: &mut Decoder<'_>,
    _: &mut C,
) -> Result<[u8; SIGNATURE_LEN], minicbor::decode::Error> {
    let at = d.position();
    let wrong = |_| minicbor::decode::Error::message("a signature has 64 bytes").at(at);
    d.bytes()?.try_into().map_err(wrong)
}
