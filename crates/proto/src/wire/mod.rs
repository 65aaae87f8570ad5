//! What two linked peers say to each other on the control stream.
//!
//! The client of a QUIC connection opens one bidirectional stream before all others; both sides
//! write messages on it, each a 16-bit big-endian length and that many bytes of CBOR (RFC 8949)
//! with integer keys. A message of a type that the reader does not know is skipped, so an old node
//! talks with a new one; a known type with a malformed body is a violation and ends the link.
//!
//! Everything is bounded before it is decoded: [`MESSAGE_LEN_MAX`] bytes a message, the limits of
//! each list in its field's documentation.

pub(crate) mod addr;
pub mod index;
pub mod mux;
pub mod node;
pub mod role;
pub mod topic;

use minicbor::{Decoder, Encoder};
use thiserror::Error;

pub use self::index::IndexMessage;
pub use self::mux::MuxMessage;
pub use self::node::NodeMessage;
pub use self::role::RoleMessage;

/// Longest message in bytes: the largest are an answer of the index with all its contacts and
/// records ([`index::Found`]), under 3,900, and a full [`role::Echo`].
pub const MESSAGE_LEN_MAX: usize = 4096;

/// Bytes of the length before each message.
pub const LENGTH_LEN: usize = 2;

/// Longest name of a network in bytes: with the prefix it must fit an ALPN identifier.
pub const NETWORK_LEN_MAX: usize = 64;

/// The application-layer protocol identifier (RFC 7301) of a network: the version of this
/// protocol, and the network's name. Two nodes of different networks or versions have none in
/// common, so their handshake fails. The name is readable to whoever sees the handshake.
#[must_use]
pub fn alpn(network: &str) -> Option<Vec<u8>> {
    let fits = (1..=NETWORK_LEN_MAX).contains(&network.len());
    fits.then(|| format!("baran/1/{network}").into_bytes())
}

/// A message of the control stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// For the node: roles, relaying, homes. Type numbers 0 to 63.
    Node(NodeMessage),
    /// For the link: sessions and stream credit. Type numbers 64 to 127.
    Mux(MuxMessage),
}

/// A message that cannot be understood. Nothing has changed by reading it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The type number is not known to this version: skip the message.
    #[error("message type {0} is not known")]
    UnknownType(u8),
    /// A known type with a body that breaks its rules.
    #[error("malformed message: {0}")]
    Malformed(String),
}

impl From<minicbor::decode::Error> for DecodeError {
    fn from(error: minicbor::decode::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl Message {
    /// Encodes with the length in front, ready for the control stream.
    ///
    /// # Panics
    ///
    /// Never for messages within their documented limits: these fit in [`MESSAGE_LEN_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(vec![0; LENGTH_LEN]);
        match self {
            Self::Node(message) => message.encode(&mut encoder),
            Self::Mux(message) => message.encode(&mut encoder),
        }
        .expect("writing to memory cannot fail");
        let mut bytes = encoder.into_writer();
        let len = bytes.len() - LENGTH_LEN;
        assert!(len <= MESSAGE_LEN_MAX, "message over its limits");
        let prefix = u16::try_from(len).expect("checked just above").to_be_bytes();
        bytes[..LENGTH_LEN].copy_from_slice(&prefix);
        bytes
    }

    /// Decodes one body, without the length.
    ///
    /// # Errors
    ///
    /// [`DecodeError::UnknownType`] asks for skipping, [`DecodeError::Malformed`] for ending the
    /// link.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        if body.len() > MESSAGE_LEN_MAX {
            return Err(DecodeError::Malformed("message too long".into()));
        }
        let mut decoder = Decoder::new(body);
        let len = decoder.array()?;
        if len != Some(2) {
            return Err(DecodeError::Malformed("a message is [type, body]".into()));
        }
        let number = decoder.u8()?;
        let message = match number {
            0..64 => NodeMessage::decode(number, &mut decoder)?.map(Self::Node),
            64..128 => MuxMessage::decode(number, &mut decoder)?.map(Self::Mux),
            _ => None,
        };
        let message = message.ok_or(DecodeError::UnknownType(number))?;
        if decoder.position() != body.len() {
            return Err(DecodeError::Malformed("bytes after the message".into()));
        }
        Ok(message)
    }
}

#[cfg(test)]
pub(crate) mod tests;
