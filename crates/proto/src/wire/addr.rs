//! Addresses and bounded lists in CBOR.
//!
//! An address is a byte string of 6 (IPv4) or 18 (IPv6) bytes: the IP and the port, big-endian.
//! IPv4-mapped IPv6 addresses are written as IPv4, so that an address has one spelling. What could
//! never be sent to (port 0, the unspecified, multicast and broadcast addresses) is refused by the
//! reader; lists are written without it.

use std::net::{IpAddr, SocketAddr};

use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decoder, Encoder};

use crate::egress::is_unicast;

pub(crate) fn encode_addr<C, W: Write>(
    addr: &SocketAddr,
    e: &mut Encoder<W>,
    _ctx: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    let port = addr.port().to_be_bytes();
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 6];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes[4..].copy_from_slice(&port);
            e.bytes(&bytes)?;
        }
        IpAddr::V6(ip) => {
            let mut bytes = [0; 18];
            bytes[..16].copy_from_slice(&ip.octets());
            bytes[16..].copy_from_slice(&port);
            e.bytes(&bytes)?;
        }
    }
    Ok(())
}

pub(crate) fn decode_addr<C>(d: &mut Decoder<'_>, _ctx: &mut C) -> Result<SocketAddr, DecodeError> {
    let at = d.position();
    let wrong = |why| DecodeError::message(why).at(at);
    let length = || wrong("an address has 6 or 18 bytes");
    let (ip, port) = d.bytes()?.split_last_chunk::<2>().ok_or_else(length)?;
    let ip = if let Ok(v4) = <[u8; 4]>::try_from(ip) {
        IpAddr::from(v4)
    } else {
        IpAddr::from(<[u8; 16]>::try_from(ip).map_err(|_| length())?).to_canonical()
    };
    let addr = SocketAddr::new(ip, u16::from_be_bytes(*port));
    if is_unicast(addr) { Ok(addr) } else { Err(wrong("an address that nobody can have")) }
}

/// Encodes the first `MAX` addresses that [`decode_addrs`] takes.
pub(crate) fn encode_addrs<const MAX: usize, C, W: Write>(
    addrs: &[SocketAddr],
    e: &mut Encoder<W>,
    ctx: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    let chosen = || addrs.iter().filter(|addr| is_unicast(**addr)).take(MAX);
    e.array(chosen().count() as u64)?;
    chosen().try_for_each(|addr| encode_addr(addr, e, ctx))
}

/// Decodes at most `MAX` addresses.
pub(crate) fn decode_addrs<const MAX: usize, C>(
    d: &mut Decoder<'_>,
    ctx: &mut C,
) -> Result<Vec<SocketAddr>, DecodeError> {
    let len = bounded_len(d, MAX)?;
    (0..len).map(|_| decode_addr(d, ctx)).collect()
}

/// Reads the head of a definite array of at most `max` items.
pub(crate) fn bounded_len(d: &mut Decoder<'_>, max: usize) -> Result<usize, DecodeError> {
    let at = d.position();
    d.array()?
        .and_then(|len| usize::try_from(len).ok())
        .filter(|len| *len <= max)
        .ok_or_else(|| DecodeError::message("a list without end or too long").at(at))
}

/// A byte string or text of at most `max` bytes.
pub(crate) fn bounded_str<'b>(d: &mut Decoder<'b>, max: usize) -> Result<&'b str, DecodeError> {
    let text = d.str()?;
    if text.len() > max { Err(DecodeError::message("text too long")) } else { Ok(text) }
}
