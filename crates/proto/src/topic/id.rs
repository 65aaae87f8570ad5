//! The names of topics and of what is said in them.

use core::fmt;

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

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
