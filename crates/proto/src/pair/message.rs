//! The messages of a pairing, on one stream: a length of two bytes, big-endian, and a CBOR array
//! `[type, body]` of so many bytes. Bodies are maps with integer keys; unknown keys and types are
//! skipped.
//!
//! | type | name | sender | body |
//! |---|---|---|---|
//! | 0 | Hello | joiner | 0: number, 1: element (33 bytes) |
//! | 1 | Answer | inviter | 0: element (33 bytes) |
//! | 2 | Proof | both | 0: tag (32 bytes), 1: a [`PeerAddr`] in CBOR, as bytes |
//! | 3 | Paired | joiner | empty |
//! | 4 | Refused | inviter | 0: a [`Refusal`] |

use bytes::{Buf, BytesMut};
use minicbor::{Decode, Decoder, Encode, Encoder};
use thiserror::Error;

use crate::id::NodeId;
use crate::invite::PeerAddr;

/// Longest message without its length. A proof with the longest address has about 700 bytes.
pub const MESSAGE_LEN_MAX: usize = 1_024;
/// Length of an element: its side and a point of the curve (crate `spake2`).
pub const ELEMENT_LEN: usize = 33;
/// Length of a tag.
pub const TAG_LEN: usize = 32;

const LENGTH_LEN: usize = 2;

/// What a side of SPAKE2 tells the other one.
pub type Element = [u8; ELEMENT_LEN];

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Asks for the code of a number.
    Hello(Hello),
    /// Has that code.
    Answer(Answer),
    /// Knows the words.
    Proof(Proof),
    /// Has taken the inviter's proof: both are paired.
    Paired(Paired),
    /// Ends the attempt.
    Refused(Refused),
}

/// Asks for the code of a number.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// The number.
    #[n(0)]
    pub number: u16,
    /// The joiner's element.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub element: Element,
}

/// Has that code.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Answer {
    /// The inviter's element.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub element: Element,
}

/// Knows the words.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Proof {
    /// Keyed hash over the exchange and the address, with the sender's key.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub tag: [u8; TAG_LEN],
    /// Where the sender can be reached, as it was signed.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub peer: Vec<u8>,
}

impl Proof {
    /// The sender's address. Its id must be the one that its link proved.
    pub(super) fn peer_of(&self, id: NodeId) -> Option<PeerAddr> {
        let mut decoder = Decoder::new(&self.peer);
        let peer: PeerAddr = decoder.decode().ok()?;
        (decoder.position() == self.peer.len() && peer.id == id).then_some(peer)
    }
}

/// Has taken the inviter's proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Paired {}

/// Ends the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Refused {
    /// Why.
    #[n(0)]
    pub why: Refusal,
}

/// Why an inviter refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Refusal {
    /// Its code has another number.
    #[n(0)]
    Number,
    /// The proof was wrong; the code is dead.
    #[n(1)]
    Words,
    /// The code was used or has expired.
    #[n(2)]
    Over,
}

/// What came is no message. Nothing of it counts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("that is no message of a pairing: {0}")]
pub struct Malformed(String);

impl Message {
    /// Encodes with the length in front.
    ///
    /// # Panics
    ///
    /// Never for what this module's limits allow.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(vec![0; LENGTH_LEN]);
        encoder.array(2).expect("writing to memory does not fail");
        let written = match self {
            Self::Hello(body) => encoder.u8(0).and_then(|e| e.encode(body)),
            Self::Answer(body) => encoder.u8(1).and_then(|e| e.encode(body)),
            Self::Proof(body) => encoder.u8(2).and_then(|e| e.encode(body)),
            Self::Paired(body) => encoder.u8(3).and_then(|e| e.encode(body)),
            Self::Refused(body) => encoder.u8(4).and_then(|e| e.encode(body)),
        };
        written.expect("writing to memory does not fail");
        let mut bytes = encoder.into_writer();
        let len = bytes.len() - LENGTH_LEN;
        assert!(len <= MESSAGE_LEN_MAX, "a message over its limits");
        let len = u16::try_from(len).expect("checked just above");
        bytes[..LENGTH_LEN].copy_from_slice(&len.to_be_bytes());
        bytes
    }

    /// Decodes one without its length; `None` if its type is unknown.
    fn decode(body: &[u8]) -> Result<Option<Self>, Malformed> {
        let malformed = |error: minicbor::decode::Error| Malformed(error.to_string());
        let mut decoder = Decoder::new(body);
        if decoder.array().map_err(malformed)? != Some(2) {
            return Err(Malformed("not [type, body]".to_owned()));
        }
        let number = decoder.u8().map_err(malformed)?;
        let message = match number {
            0 => decoder.decode().map(Self::Hello),
            1 => decoder.decode().map(Self::Answer),
            2 => decoder.decode().map(Self::Proof),
            3 => decoder.decode().map(Self::Paired),
            4 => decoder.decode().map(Self::Refused),
            _ => return Ok(None),
        };
        let message = message.map_err(malformed)?;
        if decoder.position() != body.len() {
            return Err(Malformed("bytes left over".to_owned()));
        }
        Ok(Some(message))
    }
}

/// Cuts a stream into messages. Holds one message at most.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    buffer: BytesMut,
}

impl Inbox {
    /// Takes the beginning of `bytes`, as much as belongs to one message; returns the first message
    /// that is whole.
    pub(super) fn take(&mut self, bytes: &mut &[u8]) -> Result<Option<Message>, Malformed> {
        loop {
            let Some(len) = self.fill(bytes, LENGTH_LEN) else { return Ok(None) };
            let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
            if len > MESSAGE_LEN_MAX {
                return Err(Malformed(format!("{len} bytes")));
            }
            let Some(whole) = self.fill(bytes, LENGTH_LEN + len) else { return Ok(None) };
            let message = Message::decode(&whole[LENGTH_LEN..])?;
            self.buffer.clear();
            if message.is_some() {
                return Ok(message);
            }
        }
    }

    /// The first `len` bytes once they are here.
    fn fill(&mut self, bytes: &mut &[u8], len: usize) -> Option<&[u8]> {
        let more = len.saturating_sub(self.buffer.len()).min(bytes.len());
        self.buffer.extend_from_slice(&bytes[..more]);
        bytes.advance(more);
        self.buffer.get(..len)
    }
}
