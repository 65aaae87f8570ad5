//! The names of topics and of what is said in them.

use core::fmt;
use core::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::id::NodeId;

/// Length of the names of topics and entries in bytes.
pub const TOPIC_ID_LEN: usize = 32;

/// Bytes of an entry's name by which members speak of it.
pub const SHORT_LEN: usize = 16;

/// Which topic: the root's public key of a private one, a hash of the name of a public one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct TopicId(#[n(0)] ByteArray<TOPIC_ID_LEN>);

/// Which entry: the BLAKE3 hash of its encoding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct EntryId(#[n(0)] ByteArray<TOPIC_ID_LEN>);

/// The first [`SHORT_LEN`] bytes of an [`EntryId`]: enough to tell apart what one topic holds, and
/// of no use for proofs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct ShortId(#[n(0)] ByteArray<SHORT_LEN>);

impl TopicId {
    /// The topic of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; TOPIC_ID_LEN]) -> Self {
        Self(bytes.into())
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; TOPIC_ID_LEN] {
        &self.0
    }
}

impl EntryId {
    /// The entry of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; TOPIC_ID_LEN]) -> Self {
        Self(bytes.into())
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; TOPIC_ID_LEN] {
        &self.0
    }

    /// How members speak of it.
    ///
    /// # Panics
    ///
    /// Never.
    #[must_use]
    pub fn short(&self) -> ShortId {
        let short: [u8; SHORT_LEN] = *self.0.first_chunk().expect("32 bytes have 16");
        ShortId(short.into())
    }
}

impl ShortId {
    /// The name of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; SHORT_LEN]) -> Self {
        Self(bytes.into())
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; SHORT_LEN] {
        &self.0
    }
}

/// As the ids of nodes are written: 52 characters of base32.
impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        NodeId::from_bytes(*self.as_bytes()).fmt(f)
    }
}

impl FromStr for TopicId {
    type Err = TopicIdError;

    /// Reads base32 or 64 characters of hexadecimal, in any case.
    fn from_str(text: &str) -> Result<Self, TopicIdError> {
        let mut bytes = [0; TOPIC_ID_LEN];
        if text.len() == 2 * TOPIC_ID_LEN {
            let read = HEXLOWER_PERMISSIVE.decode_mut(text.as_bytes(), &mut bytes);
            return read.map(|_| Self::from_bytes(bytes)).map_err(|_| TopicIdError);
        }
        let id: NodeId = text.parse().map_err(|_| TopicIdError)?;
        Ok(Self::from_bytes(*id.as_bytes()))
    }
}

/// A text is no topic's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a topic's id has 52 characters of base32, or 64 of hexadecimal: copy it whole")]
pub struct TopicIdError;

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().take(5).try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, self.as_bytes())
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, self.as_bytes())
    }
}

impl fmt::Debug for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, self.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back_from_both_texts() {
        let id = TopicId::from_bytes([0xa7; TOPIC_ID_LEN]);
        let text = id.to_string();
        assert_eq!(text.len(), 52);
        for text in [&text, &text.to_uppercase(), &"a7".repeat(32), &"A7".repeat(32)] {
            assert_eq!(text.parse(), Ok(id), "{text}");
        }
        let cut = &text[1..];
        for wrong in ["", "birds", cut, &"g7".repeat(32), &"é".repeat(32), &"1".repeat(52)] {
            assert_eq!(wrong.parse::<TopicId>(), Err(TopicIdError), "{wrong}");
        }
    }
}
