//! The peer cache as bytes, for a file.
//!
//! ```text
//! "baran peers\n" | version: 1 byte | length of the payload: 4 bytes, big-endian
//! payload: CBOR map {0: network, 1: secret, 2: [entry]}
//! BLAKE3 of all before: 32 bytes
//! ```
//!
//! with `entry = {0: peer, 1: first seen, 2: last seen, 3: tried, 4: failures, 5: score,
//! 6: bucket}`, the moments in seconds since 1970. The envelope is the same in every version, so
//! that a damaged file is told from a newer one; unknown keys are skipped. The checksum guards
//! against accidents: the file is its owner's alone. What is read passes the limits of the cache
//! all the same.

use minicbor::{Decode, Decoder, Encode};
use thiserror::Error;

use super::{BUCKETS, ENTRIES_MAX, Entry, PeerCache, prefixes, tidy};
use crate::invite::PeerAddr;
use crate::time::UnixTime;
use crate::wire::NETWORK_LEN_MAX;
use crate::wire::addr::{bounded_len, bounded_str};

/// Longest encoded cache in bytes: 256 peers of up to 600, rounded up.
pub const CACHE_LEN_MAX: usize = 256 * 1024;

const MAGIC: &[u8; 12] = b"baran peers\n";
const VERSION: u8 = 1;
const CHECKSUM_LEN: usize = blake3::OUT_LEN;
/// Magic, version and length.
const HEADER_LEN: usize = MAGIC.len() + 1 + 4;

/// Why bytes are not a peer cache of this network. The node starts with an empty one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CacheError {
    /// They are something else.
    #[error("it is no peer cache")]
    NotACache,
    /// The end is missing.
    #[error("the peer cache is cut short")]
    Truncated,
    /// The checksum does not fit, or there is more than there should be.
    #[error("the peer cache is damaged")]
    Damaged,
    /// A newer program wrote it.
    #[error("the peer cache has format {found} and this program reads format {VERSION}")]
    Version {
        /// The version found.
        found: u8,
    },
    /// It is of another network.
    #[error("the peer cache is of the network {found:?}")]
    OtherNetwork {
        /// That network's name.
        found: String,
    },
    /// The checksum fits and the payload is wrong: the fault is with the program that wrote it.
    #[error("the peer cache was written wrong: {0}")]
    Malformed(String),
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Payload {
    #[cbor(n(0), decode_with = "decode_network")]
    network: String,
    #[cbor(n(1), encode_with = "minicbor::bytes::encode", decode_with = "minicbor::bytes::decode")]
    secret: [u8; 32],
    #[cbor(n(2), decode_with = "decode_entries")]
    entries: Vec<EntryForm>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct EntryForm {
    #[n(0)]
    peer: PeerAddr,
    #[n(1)]
    first_seen_s: u64,
    #[n(2)]
    last_seen_s: u64,
    #[n(3)]
    is_tried: bool,
    #[n(4)]
    failures: u8,
    #[n(5)]
    score_s: u32,
    #[n(6)]
    bucket: u8,
}

impl PeerCache {
    /// Writes the cache of a network, at most [`CACHE_LEN_MAX`] bytes.
    ///
    /// # Panics
    ///
    /// Never for a name of at most [`NETWORK_LEN_MAX`] bytes, which a node checks when it starts.
    #[must_use]
    pub fn encode(&self, network: &str) -> Vec<u8> {
        let entries = self.entries.values().map(EntryForm::of).collect();
        let payload = Payload { network: network.to_owned(), secret: self.secret, entries };
        let payload = minicbor::to_vec(payload).expect("writing to memory does not fail");
        let len = u32::try_from(payload.len()).expect("a cache is bounded");
        let mut bytes = [&MAGIC[..], &[VERSION], &len.to_be_bytes(), &payload].concat();
        let checksum = blake3::hash(&bytes);
        bytes.extend(checksum.as_bytes());
        assert!(bytes.len() <= CACHE_LEN_MAX, "a cache over its limits");
        bytes
    }

    /// Reads what [`PeerCache::encode`] wrote.
    ///
    /// # Errors
    ///
    /// If it was damaged, is of another network, or was written by a newer program.
    pub fn decode(bytes: &[u8], network: &str) -> Result<Self, CacheError> {
        let (version, payload) = open(bytes)?;
        if version != VERSION {
            return Err(CacheError::Version { found: version });
        }
        let mut decoder = Decoder::new(payload);
        let payload: Payload =
            decoder.decode().map_err(|e| CacheError::Malformed(e.to_string()))?;
        if payload.network != network {
            return Err(CacheError::OtherNetwork { found: payload.network });
        }
        let mut cache = Self::new(payload.secret);
        for form in payload.entries {
            let entry = form.into_entry();
            if !cache.entries.contains_key(&entry.peer.id) {
                cache.place(entry.last_seen, entry);
            }
        }
        Ok(cache)
    }
}

/// Checks the envelope: the version, and the payload.
fn open(bytes: &[u8]) -> Result<(u8, &[u8]), CacheError> {
    let start = bytes.len().min(MAGIC.len());
    if bytes[..start] != MAGIC[..start] {
        return Err(CacheError::NotACache);
    }
    let (header, rest) = bytes.split_at_checked(HEADER_LEN).ok_or(CacheError::Truncated)?;
    let (front, len) = header.split_last_chunk().expect("the header is longer");
    let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| CacheError::Damaged)?;
    if bytes.len() > CACHE_LEN_MAX || rest.len() > len.saturating_add(CHECKSUM_LEN) {
        return Err(CacheError::Damaged);
    }
    if rest.len() < len.saturating_add(CHECKSUM_LEN) {
        return Err(CacheError::Truncated);
    }
    let (covered, checksum) = bytes.split_at(HEADER_LEN + len);
    if blake3::hash(covered).as_bytes() != checksum {
        return Err(CacheError::Damaged);
    }
    Ok((front[MAGIC.len()], &covered[HEADER_LEN..]))
}

impl EntryForm {
    fn of(entry: &Entry) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        let score_s = entry.score as u32;
        Self {
            peer: entry.peer.clone(),
            first_seen_s: entry.first_seen.as_secs(),
            last_seen_s: entry.last_seen.as_secs(),
            is_tried: entry.is_tried,
            failures: entry.failures,
            score_s,
            bucket: u8::try_from(entry.bucket).expect("there are 16 buckets"),
        }
    }

    fn into_entry(self) -> Entry {
        let peer = tidy(self.peer);
        Entry {
            prefixes: prefixes(&peer),
            peer,
            first_seen: UnixTime::from_secs(self.first_seen_s),
            last_seen: UnixTime::from_secs(self.last_seen_s),
            is_tried: self.is_tried,
            failures: self.failures,
            score: f64::from(self.score_s),
            bucket: usize::from(self.bucket) % BUCKETS,
        }
    }
}

fn decode_network<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<String, minicbor::decode::Error> {
    Ok(bounded_str(d, NETWORK_LEN_MAX)?.to_owned())
}

fn decode_entries<C>(
    d: &mut Decoder<'_>,
    ctx: &mut C,
) -> Result<Vec<EntryForm>, minicbor::decode::Error> {
    let len = bounded_len(d, ENTRIES_MAX)?;
    (0..len).map(|_| d.decode_with(ctx)).collect()
}
