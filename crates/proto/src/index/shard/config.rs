//! Limits of a shard, and what it answers.

use core::time::Duration;

use crate::record::{CLOCK_SKEW, Slot, ttl_max};
use crate::wire::index::RecordKind;

/// Limits of a shard.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// Bytes of all records: what a home computer does not notice (64 MiB).
    pub bytes_max: usize,
    /// Records in all, which bounds what their administration takes (about 300 bytes each).
    pub records_max: usize,
    /// Announcements under one key: a crowded topic is well sampled by fewer. Lowered to 2^24.
    pub records_per_key_max: usize,
    /// Bytes of the announcements under one key.
    pub bytes_per_key_max: usize,
    /// Values and announcements of one author.
    pub slots_per_author_max: usize,
    /// Bytes of the records that came from one network: a /24, in IPv6 a /48.
    pub bytes_per_prefix_max: usize,
    /// Slots whose sequence is remembered, those with a record included.
    pub sequences_max: usize,
    /// The same for one author.
    pub sequences_per_author_max: usize,
    /// The same for one network.
    pub sequences_per_prefix_max: usize,
    /// Records that wait for the disk.
    pub pending_max: usize,
}

impl Default for ShardConfig {
    fn default() -> Self {
        Self {
            bytes_max: 64 << 20,
            records_max: 128 << 10,
            records_per_key_max: 10_000,
            bytes_per_key_max: 2 << 20,
            slots_per_author_max: 64,
            bytes_per_prefix_max: 4 << 20,
            sequences_max: 256 << 10,
            sequences_per_author_max: 256,
            sequences_per_prefix_max: 16 << 10,
            pending_max: 1_024,
        }
    }
}

/// What is to be done with a record that may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Put it on disk together with its sequence, then [commit](super::Shard::commit) it.
    New {
        /// For how long it will be kept.
        lifetime: Duration,
    },
    /// These very bytes are kept already.
    Same,
}

/// What was dropped because its time came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gone {
    /// Slots whose records are to be removed from disk. Their sequences stay there.
    pub records: Vec<Slot>,
    /// Slots whose sequences are to be removed from disk.
    pub sequences: Vec<Slot>,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Records.
    pub records: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Under how many keys they stand.
    pub keys: usize,
    /// Slots whose sequence is remembered, those with a record included.
    pub sequences: usize,
}

/// How long the sequence of a slot is remembered after its record went: no older record of the
/// slot can outlast this, by any two clocks within the skew.
#[must_use]
pub const fn memory(kind: RecordKind) -> Duration {
    ttl_max(kind).saturating_add(CLOCK_SKEW).saturating_add(CLOCK_SKEW)
}
