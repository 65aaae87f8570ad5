//! The announcements under one key: which are kept when there are too many, and how askers are
//! given a fair sample of them.
//!
//! *Kept* are those of lowest rank, where a rank is a hash of key and author under this node's
//! secret (bottom-k sampling; Cohen and Kaplan, *Summarizing data using bottom-k sketches*, 2007).
//! That is a uniform sample of all that ever asked, whatever the order and however often they
//! asked, and each node keeps another one.
//!
//! *Given* is a random order of those kept, drawn anew for each asker and cut into pages. The
//! asker carries the state: a [`Cursor`] holds the seed of the order and the position in it.
//! Announcements that come or go in between may be missed or seen twice.

use std::collections::BTreeMap;

use super::ShardConfig;
use crate::id::NodeId;

/// Bits of a cursor that hold a position, and thereby the logarithm of most records of one key.
pub(super) const POSITION_BITS: u32 = 26;

/// Bits of a cursor that hold the width of the permutation.
const WIDTH_BITS: u32 = 6;

/// Rounds of the permutation. Each mixes half of the bits into the other half.
const ROUNDS: u64 = 4;

/// The announcers of one key.
#[derive(Debug, Default)]
pub(super) struct Group {
    members: Vec<NodeId>,
    /// Where in `members` each is, by rank.
    ranks: BTreeMap<(u64, NodeId), usize>,
    bytes: usize,
}

impl Group {
    /// Whether there is room for `len` bytes more, or somebody of higher rank gives way.
    pub(super) fn admits(&self, config: &ShardConfig, rank: (u64, NodeId), len: usize) -> bool {
        let has_room = self.members.len() < config.records_per_key_max
            && self.bytes + len <= config.bytes_per_key_max;
        has_room || self.ranks.contains_key(&rank) || self.worst().is_some_and(|last| rank < last)
    }

    /// Whether there are more than may be.
    pub(super) fn is_over(&self, config: &ShardConfig) -> bool {
        self.members.len() > config.records_per_key_max || self.bytes > config.bytes_per_key_max
    }

    /// Who gives way first.
    pub(super) fn worst(&self) -> Option<(u64, NodeId)> {
        self.ranks.last_key_value().map(|(rank, _)| *rank)
    }

    /// Adds a member with a record of `len` bytes.
    pub(super) fn insert(&mut self, rank: (u64, NodeId), len: usize) {
        self.bytes += len;
        self.ranks.insert(rank, self.members.len());
        self.members.push(rank.1);
    }

    /// Notes that a member's record has another length.
    pub(super) fn resize(&mut self, old_len: usize, new_len: usize) {
        self.bytes = self.bytes - old_len + new_len;
    }

    /// Removes a member with a record of `len` bytes. `rank_of` ranks whoever takes its place.
    pub(super) fn remove(
        &mut self,
        rank: (u64, NodeId),
        len: usize,
        rank_of: impl Fn(NodeId) -> (u64, NodeId),
    ) {
        let Some(index) = self.ranks.remove(&rank) else { return };
        self.bytes -= len;
        self.members.swap_remove(index);
        if let Some(moved) = self.members.get(index) {
            self.ranks.insert(rank_of(*moved), index);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Walks on from a cursor: members, and the cursor that begins with each of them.
    pub(super) fn walk(&self, cursor: Cursor) -> impl Iterator<Item = (Cursor, NodeId)> {
        // A width of the asker's choice must not make the walk long: at least one position in
        // four holds a member. The width an asker began with is kept while the group grows.
        let width = cursor.width.min(width_of(self.members.len()) + 1);
        let order = Order::new(cursor.seed, width);
        (cursor.position..1 << width).filter_map(move |position| {
            let member = self.members.get(order.index(position) as usize)?;
            Some((Cursor { position, width, ..cursor }, *member))
        })
    }

    /// Where a new asker begins.
    pub(super) fn start(&self, seed: u32) -> Cursor {
        Cursor { seed, width: width_of(self.members.len()), position: 0 }
    }
}

/// Bits that number so many things.
fn width_of(len: usize) -> u32 {
    len.next_power_of_two().trailing_zeros()
}

/// Where an asker is in the announcements of a key. The asker may write anything into it, which
/// harms itself alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    seed: u32,
    width: u32,
    position: u32,
}

#[expect(clippy::cast_possible_truncation, reason = "fields of a number are cut out")]
impl Cursor {
    pub(super) fn from_page(page: u64) -> Self {
        Self {
            seed: (page >> 32) as u32,
            width: (page as u32) >> POSITION_BITS,
            position: page as u32 & ((1 << POSITION_BITS) - 1),
        }
    }

    pub(super) fn to_page(self) -> u64 {
        debug_assert!(self.width < 1 << WIDTH_BITS && self.position < 1 << POSITION_BITS);
        u64::from(self.seed) << 32 | u64::from(self.width << POSITION_BITS | self.position)
    }
}

/// A pseudo-random permutation of the numbers of `width` bits: rounds of additions, odd factors and
/// shifts, each of which can be undone.
struct Order {
    seed: u64,
    width: u32,
}

impl Order {
    fn new(seed: u32, width: u32) -> Self {
        Self { seed: u64::from(seed), width }
    }

    #[expect(clippy::cast_possible_truncation, reason = "masked to fewer bits")]
    fn index(&self, position: u32) -> u32 {
        let mask = (1u64 << self.width) - 1;
        let mut x = u64::from(position);
        for round in 0..ROUNDS {
            let noise = mix(self.seed << 8 | round);
            x = x.wrapping_add(noise) & mask;
            x = x.wrapping_mul(noise >> 32 | 1) & mask;
            x ^= x >> (self.width / 2).max(1);
        }
        x as u32
    }
}

/// The finaliser of `SplitMix64` (Steele and others, *Fast splittable pseudorandom number
/// generators*, 2014).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn orders_are_permutations() {
        for width in 0..=11 {
            for seed in [0, 1, u32::MAX] {
                let order = Order::new(seed, width);
                let indexes: BTreeSet<_> = (0..1 << width).map(|at| order.index(at)).collect();
                assert_eq!(indexes.len(), 1 << width);
                assert_eq!(indexes.last(), Some(&((1 << width) - 1)));
            }
        }
    }

    #[test]
    fn cursors_are_read_back_and_foreign_ones_end() {
        let cursor = Cursor { seed: 0xdead_beef, width: 14, position: 12_345 };
        assert_eq!(Cursor::from_page(cursor.to_page()), cursor);
        let mut group = Group::default();
        for n in 0..5 {
            group.insert((u64::from(n), NodeId::from_bytes([n; 32])), 1);
        }
        for page in [u64::MAX, 0, 1 << 31, 63 << 26, 0xffff_ffff_0000_0000] {
            let walk: Vec<_> = group.walk(Cursor::from_page(page)).collect();
            assert!(walk.len() <= 5);
        }
    }
}
