//! Signed records: what the index keeps for nodes that may be gone.
//!
//! A record is made and signed by one node, its author, and is kept and passed on by strangers.
//! They can withhold it and nothing else: what they hand on is verified by whoever reads it.
//!
//! ```text
//! record = [body: bytes, signature: bytes(64)]                 CBOR (RFC 8949), shortest heads
//! body   = {0: kind, 1: author, ? 2: key, 3: sequence, 4: expires, ? 5: node, ? 6: value}
//! signed = "baran 1 signed record" | length of the network's name, 8 bytes BE | name | body
//! ```
//!
//! The signature covers the bytes of the body as they were received, so a field that this version
//! does not know is skipped, kept and handed on intact. The key of a node record or a value follows
//! from its author and name and is not written: nobody can place it elsewhere. An announcement
//! carries the blinded key of its topic ([`Key::of_topic`]), from which the topic cannot be told.
//!
//! Of one author's records for one purpose (a [`Slot`]) the highest sequence counts. An expiry is
//! a time of the calendar, which the reader's clock may have wrong by [`CLOCK_SKEW`].
//!
//! Invariants: every record has one spelling of its envelope, so nobody but the author can make a
//! second record of one; nothing decoded allocates more than its bytes justify; foreign bytes never
//! panic.

mod body;

use core::time::Duration;
use std::net::SocketAddr;

use bytes::Bytes;
use minicbor::{Decoder, Encoder};
use thiserror::Error;

use self::body::Body;
use crate::id::{NodeId, SIGNATURE_LEN, SecretKey};
use crate::key::Key;
use crate::time::UnixTime;
use crate::wire::index::{RECORD_LEN_MAX, RecordKind, StoreOutcome};
use crate::wire::node::Home;

/// Most addresses of a node record.
pub const NODE_ADDRS_MAX: usize = 8;

/// Most protocol versions of a node record.
pub const NODE_VERSIONS_MAX: usize = 8;

/// Longest name of a value in bytes.
pub const NAME_LEN_MAX: usize = 64;

/// Longest value in bytes: with its name and envelope it fits [`RECORD_LEN_MAX`].
pub const VALUE_LEN_MAX: usize = 1_024;

/// Longest announcement in bytes: one of this version has at most 162. A tighter limit than that
/// of all records, because thousands of them stand under one key.
pub const ANNOUNCEMENT_LEN_MAX: usize = 256;

/// How far a calendar clock may be off in either direction.
pub const CLOCK_SKEW: Duration = Duration::from_secs(10 * 60);

/// What everything that records sign begins with.
const DOMAIN: &[u8] = b"baran 1 signed record";

/// How long a record of a kind may be valid from the moment it is made. An announcement outlives
/// the epoch of its key by the two hours in which both keys are asked.
#[must_use]
pub const fn ttl_max(kind: RecordKind) -> Duration {
    let hours = match kind {
        RecordKind::Node => 6,
        RecordKind::Announcement => 26,
        RecordKind::Value => 7 * 24,
    };
    Duration::from_secs(hours * 3600)
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Where the author is.
    Node {
        /// Its own addresses, best first; at most [`NODE_ADDRS_MAX`], more are not written.
        addrs: Vec<SocketAddr>,
        /// Peers that signal and relay for it, best first; at most
        /// [`HOMES_MAX`](crate::wire::node::HOMES_MAX), more are not written.
        homes: Vec<Home>,
        /// Versions of the protocol that it speaks; at most [`NODE_VERSIONS_MAX`].
        versions: Vec<u32>,
    },
    /// The author takes part in the topic whose blinded key the record stands at.
    Announcement,
    /// Something that the author publishes under a name.
    Value {
        /// 1 to [`NAME_LEN_MAX`] bytes.
        name: String,
        /// At most [`VALUE_LEN_MAX`] bytes.
        value: Bytes,
    },
}

/// A record whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    bytes: Bytes,
    key: Key,
    author: NodeId,
    sequence: u64,
    expires: UnixTime,
    content: Content,
}

/// What a record is for: a newer one of a slot replaces an older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// Where it is kept.
    pub key: Key,
    /// Its kind.
    pub kind: RecordKind,
    /// Who signs it.
    pub author: NodeId,
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// More bytes than a record of its kind may have.
    #[error("a record of {len} bytes is too long: {max} are allowed")]
    TooLarge {
        /// Bytes of the record.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A value has too many bytes.
    #[error("a value of {len} bytes is too long: {VALUE_LEN_MAX} are allowed")]
    ValueTooLarge {
        /// Bytes of the value.
        len: usize,
    },
    /// A value's name is empty or too long.
    #[error("a name of {len} bytes: it must have 1 to {NAME_LEN_MAX}")]
    Name {
        /// Bytes of the name.
        len: usize,
    },
    /// An announcement without a key, or another record with one.
    #[error("announcements have a key of their own, and only they")]
    Key,
    /// The bytes are no record.
    #[error("malformed record: {0}")]
    Malformed(String),
    /// The author did not sign this in this network.
    #[error("the signature is wrong")]
    Signature,
    /// Its time has passed.
    #[error("the record has expired")]
    Expired,
    /// It expires later than a record of its kind may: the author's clock is ahead, or ours is
    /// behind.
    #[error("the record is from the future: one of the two clocks is wrong")]
    FromTheFuture,
}

/// Whether a node signed a message: [`NodeId::verify`], or what gives the same answer from memory,
/// as where thousands of nodes of one process verify the same record.
pub type Verify = fn(&NodeId, &[u8], &[u8; SIGNATURE_LEN]) -> bool;

impl Record {
    /// Makes and signs a record.
    ///
    /// `key` is the blinded key for announcements and `None` for everything else. `sequence` must
    /// be higher than that of every earlier record of the slot. `expires` is not checked here: see
    /// [`ttl_max`] for how far ahead it may be.
    ///
    /// # Errors
    ///
    /// [`RecordError::Key`], [`RecordError::Name`] or [`RecordError::ValueTooLarge`] for arguments
    /// beyond their limits.
    pub fn sign(
        secret: &SecretKey,
        network: &str,
        key: Option<Key>,
        sequence: u64,
        expires: UnixTime,
        content: Content,
    ) -> Result<Self, RecordError> {
        let body = Body::new(secret.id(), key, sequence, expires, content)?.encode();
        let signature = secret.sign(&message(network, &body));
        // Read back, so that author and readers see the same: lists cut to their limits, addresses
        // in canonical form.
        Self::parse(&envelope(&body, &signature)).map(|parsed| parsed.record)
    }

    /// Reads a record and verifies its signature. Whether it is still valid is asked separately,
    /// of [`Record::lifetime`].
    ///
    /// # Errors
    ///
    /// [`RecordError::TooLarge`], [`RecordError::Malformed`] and the errors of its fields, or
    /// [`RecordError::Signature`].
    pub fn decode(bytes: &Bytes, network: &str) -> Result<Self, RecordError> {
        Self::decode_with(bytes, network, NodeId::verify)
    }

    /// The same with another way to the answer of [`NodeId::verify`].
    ///
    /// # Errors
    ///
    /// As [`Record::decode`].
    pub fn decode_with(bytes: &Bytes, network: &str, verify: Verify) -> Result<Self, RecordError> {
        let parsed = Self::parse(bytes)?;
        let message = message(network, &parsed.body);
        if verify(&parsed.record.author, &message, &parsed.signature) {
            Ok(parsed.record)
        } else {
            Err(RecordError::Signature)
        }
    }

    /// A record that nobody signed, for tests that need many.
    #[cfg(test)]
    pub(crate) fn unsigned(
        author: NodeId,
        key: Option<Key>,
        sequence: u64,
        expires: UnixTime,
        content: Content,
    ) -> Self {
        let body = Body::new(author, key, sequence, expires, content).expect("within limits");
        let bytes = envelope(&body.encode(), &[0; SIGNATURE_LEN]);
        Self::parse(&bytes).expect("just written").record
    }

    /// Reads a record without looking whether the signature holds.
    fn parse(bytes: &Bytes) -> Result<Parsed, RecordError> {
        check_len(bytes, RECORD_LEN_MAX)?;
        let (body, signature) = open(bytes)?;
        let fields = body::decode(body)?;
        let Body { author, sequence, expires, .. } = fields;
        let (key, content) = fields.into_content()?;
        let record = Self { bytes: bytes.clone(), key, author, sequence, expires, content };
        if record.kind() == RecordKind::Announcement {
            check_len(bytes, ANNOUNCEMENT_LEN_MAX)?;
        }
        Ok(Parsed { record, body: bytes.slice_ref(body), signature })
    }

    /// For how long it is still to be kept at `now`, if all clocks are at most [`CLOCK_SKEW`] off:
    /// more than zero, at most [`ttl_max`] and twice the skew.
    ///
    /// # Errors
    ///
    /// [`RecordError::Expired`] and [`RecordError::FromTheFuture`].
    pub fn lifetime(&self, now: UnixTime) -> Result<Duration, RecordError> {
        let end = self.expires + CLOCK_SKEW;
        if end <= now {
            return Err(RecordError::Expired);
        }
        if self.expires > now + ttl_max(self.kind()) + CLOCK_SKEW {
            return Err(RecordError::FromTheFuture);
        }
        Ok(end - now)
    }

    /// The record as it travels, at most [`RECORD_LEN_MAX`] bytes.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Where it is kept.
    #[must_use]
    pub const fn key(&self) -> Key {
        self.key
    }

    /// Who signed it.
    #[must_use]
    pub const fn author(&self) -> NodeId {
        self.author
    }

    /// Of which kind it is.
    #[must_use]
    pub const fn kind(&self) -> RecordKind {
        match self.content {
            Content::Node { .. } => RecordKind::Node,
            Content::Announcement => RecordKind::Announcement,
            Content::Value { .. } => RecordKind::Value,
        }
    }

    /// Which edition of its slot it is.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// When it ends, by the author's clock.
    #[must_use]
    pub const fn expires(&self) -> UnixTime {
        self.expires
    }

    /// What it says.
    #[must_use]
    pub const fn content(&self) -> &Content {
        &self.content
    }

    /// What it is for.
    #[must_use]
    pub const fn slot(&self) -> Slot {
        Slot { key: self.key, kind: self.kind(), author: self.author }
    }
}

impl RecordError {
    /// What a node answers that was asked to keep such a record.
    #[must_use]
    pub const fn outcome(&self) -> StoreOutcome {
        match self {
            Self::Expired | Self::FromTheFuture => StoreOutcome::Clock,
            Self::TooLarge { .. }
            | Self::ValueTooLarge { .. }
            | Self::Name { .. }
            | Self::Key
            | Self::Malformed(_)
            | Self::Signature => StoreOutcome::Invalid,
        }
    }
}

impl From<minicbor::decode::Error> for RecordError {
    fn from(error: minicbor::decode::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// A record that may be forged.
struct Parsed {
    record: Record,
    body: Bytes,
    signature: [u8; SIGNATURE_LEN],
}

fn check_len(bytes: &Bytes, max: usize) -> Result<(), RecordError> {
    let len = bytes.len();
    if len > max { Err(RecordError::TooLarge { len, max }) } else { Ok(()) }
}

/// What is signed. The length before the name keeps name and body apart.
fn message(network: &str, body: &[u8]) -> Vec<u8> {
    let len = (network.len() as u64).to_be_bytes();
    [DOMAIN, &len, network.as_bytes(), body].concat()
}

/// Puts body and signature together.
fn envelope(body: &[u8], signature: &[u8; SIGNATURE_LEN]) -> Bytes {
    let mut encoder = Encoder::new(Vec::with_capacity(body.len() + SIGNATURE_LEN + 8));
    encoder
        .array(2)
        .and_then(|encoder| encoder.bytes(body))
        .and_then(|encoder| encoder.bytes(signature))
        .expect("writing to memory cannot fail");
    encoder.into_writer().into()
}

/// Takes body and signature apart.
fn open(bytes: &[u8]) -> Result<(&[u8], [u8; SIGNATURE_LEN]), RecordError> {
    let mut decoder = Decoder::new(bytes);
    let malformed = |why: &str| RecordError::Malformed(why.to_owned());
    if decoder.array()? != Some(2) {
        return Err(malformed("a record is [body, signature]"));
    }
    let body = decoder.bytes()?;
    let signature = decoder.bytes()?.try_into().map_err(|_| malformed("length of signature"))?;
    // CBOR has several spellings of a length. Only the one that is written here is read.
    if envelope(body, &signature) != bytes {
        return Err(malformed("not in its shortest form"));
    }
    Ok((body, signature))
}

#[cfg(test)]
mod tests;
