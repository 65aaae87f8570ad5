//! The routing table: which peers a node knows, many near to it and few far away (Maymounkov and
//! Mazières, *Kademlia*, 2002).
//!
//! Bucket `i` is the peers that share exactly `i` leading bits with this node; it holds at most
//! `k`. The buckets are not stored one by one: all entries lie in one list in the order of their
//! keys, in which every bucket, and every other subtree of the key space, is a run of neighbours.
//! The nearest entries to a key are found by walking subtrees, nearest first.
//!
//! What is ours:
//!
//! - Only peers whose key was proved enter (the caller's duty), and at most two of a /24 or an IPv6
//!   /48 to a bucket and ten to the table, so that many identities need many networks.
//! - A full bucket keeps those it has: it is the old ones that go on living. One that failed makes
//!   room, and so does one that can only be signalled, for a peer that can be dialled, as long as
//!   less than half of the bucket can be.
//! - A failure marks an entry stale, the second one removes it, but only if somebody was heard from
//!   in between: otherwise it is likely to be this node that is cut off.
//!
//! Of the keys only the first 64 bits are kept, apart from the entries: searching touches little
//! memory, and nobody finds two identities with the same 64 bits of a key that is not theirs to
//! choose. Those that had would share a bucket, and be equally near to everything.
//!
//! Invariants: entries are in the order of these bits and are different nodes; no bucket holds more
//! than `k`, so the table is bounded by `65 · k` (about `k · log2(nodes / k) + k` in fact).

mod contact;
mod entry;
mod near;
mod refresh;

use core::ops::Range;
use core::time::Duration;

use rand_core::Rng;

pub use self::contact::Subnet;
pub(crate) use self::contact::{Packed, subnets};
pub use self::entry::Entry;
use self::near::Walk;
pub(crate) use self::near::draw;
pub use self::near::spread;
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::key::{KEY_LEN, Key};
use crate::time::Instant;

/// Failures in a row that remove an entry.
const FAILURES_MAX: u8 = 2;

/// Entries by which the list grows: doubling would leave half of it empty.
const GROWTH: usize = 16;

/// Limits of a table.
#[derive(Debug, Clone, Copy)]
pub struct TableConfig {
    /// Most entries of a bucket. Kademlia §2.2: so many that they do not all go within an hour.
    pub k: usize,
    /// Most entries of one [`Subnet`] in a bucket. As in Ethereum's discv4 (2 of a /24).
    pub per_subnet_bucket: usize,
    /// Most entries of one [`Subnet`] in the table. As in Ethereum's discv4 (10 of a /24).
    pub per_subnet_table: usize,
    /// Whether addresses of no global network (private, loopback, …) count for these limits: a LAN
    /// and a test network are one subnet.
    pub count_private: bool,
    /// How long a bucket may hear nothing before it is looked at. Kademlia §2.3: an hour.
    pub refresh: Duration,
}

impl Default for TableConfig {
    fn default() -> Self {
        Self {
            k: 20,
            per_subnet_bucket: 2,
            per_subnet_table: 10,
            count_private: false,
            refresh: Duration::from_secs(3600),
        }
    }
}

/// What became of a peer that was to be inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It is in the table since this moment.
    New {
        /// Which one had to go for it.
        replaced: Option<NodeId>,
    },
    /// It was in the table and is up to date.
    Known,
    /// It is not in the table.
    Refused(Refusal),
}

/// Why a peer is not in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is this node.
    Own,
    /// It has neither addresses nor homes, so nobody could reach it by what the table tells.
    Unreachable,
    /// Its network has as many entries as one may have.
    Subnet,
    /// Its bucket is full of peers that are as good.
    Full,
}

/// The routing table.
#[derive(Debug, Clone)]
pub struct Table {
    own: Key,
    config: TableConfig,
    /// [`Key::head`] of each entry's key, in ascending order.
    heads: Vec<u64>,
    /// In the same order.
    entries: Vec<Entry>,
    /// Counts the times that somebody was heard from.
    heard: u32,
    /// When bucket `i` was last looked at.
    refreshed: Vec<Option<Instant>>,
    /// When the surroundings of this node were.
    own_refreshed: Option<Instant>,
}

impl Table {
    /// Creates an empty table of the node `own`.
    #[must_use]
    pub fn new(own: NodeId, config: TableConfig) -> Self {
        Self {
            own: Key::of_node(own),
            config,
            heads: Vec::new(),
            entries: Vec::new(),
            heard: 0,
            refreshed: Vec::new(),
            own_refreshed: None,
        }
    }

    /// Makes room for so many more peers.
    pub fn reserve(&mut self, more: usize) {
        self.heads.reserve_exact(more);
        self.entries.reserve_exact(more);
    }

    /// Gives back room that no entry takes.
    pub fn shrink(&mut self) {
        self.heads.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    /// Takes in a peer that proved its key on a link (or did when it was written down), or what it
    /// says of itself since.
    pub fn insert(&mut self, now: Instant, peer: &PeerAddr, rtt: Option<Duration>) -> Inserted {
        let mut new = Entry::new(now, peer, rtt, self.config.count_private);
        let key = new.key();
        if key == self.own {
            return Inserted::Refused(Refusal::Own);
        }
        self.heard = self.heard.wrapping_add(1);
        let place = self.position(peer.id, key.head());
        if let Some(at) = place {
            let old = &mut self.entries[at];
            if old.contact == new.contact {
                old.heard(now, rtt);
                return Inserted::Known;
            }
            if new.rtt_us == 0 {
                new.rtt_us = old.rtt_us;
            }
            if old.subnets == new.subnets && new.contact.is_somewhere() {
                *old = new;
                return Inserted::Known;
            }
            // It moved to another network, whose limits count.
            self.remove_at(at);
        }
        match self.admit(&key, new) {
            Inserted::New { replaced: None } if place.is_some() => Inserted::Known,
            other => other,
        }
    }

    /// Notes that a peer, if it is in the table, was heard from. Cheaper than [`Table::insert`].
    pub fn heard(&mut self, now: Instant, id: NodeId, rtt: Option<Duration>) {
        self.heard = self.heard.wrapping_add(1);
        if let Some(at) = self.find(id) {
            self.entries[at].heard(now, rtt);
        }
    }

    fn admit(&mut self, key: &Key, new: Entry) -> Inserted {
        if !new.contact.is_somewhere() {
            return Inserted::Refused(Refusal::Unreachable);
        }
        let mut replaced = None;
        for subnet in new.subnets.into_iter().flatten() {
            match self.crowded(key, subnet) {
                None => {}
                Some(Some(stale)) => replaced = Some(self.remove_at(stale)),
                Some(None) => return Inserted::Refused(Refusal::Subnet),
            }
        }
        let bucket = self.bucket(key);
        if bucket.len() >= self.config.k {
            let Some(victim) = self.victim(bucket, new.is_open) else {
                return Inserted::Refused(Refusal::Full);
            };
            replaced = Some(self.remove_at(victim));
        }
        if self.entries.len() == self.entries.capacity() {
            self.reserve(GROWTH);
        }
        let at = self.heads.partition_point(|head| *head < key.head());
        self.heads.insert(at, key.head());
        self.entries.insert(at, new);
        Inserted::New { replaced }
    }

    /// Whether a network has all the entries that it may have in the bucket of `key` or in the
    /// table, and if so, which stale one of them could go.
    fn crowded(&self, key: &Key, subnet: Subnet) -> Option<Option<usize>> {
        let bucket = self.bucket(key);
        let table = 0..self.entries.len();
        let limits = [self.config.per_subnet_bucket, self.config.per_subnet_table];
        [bucket, table].into_iter().zip(limits).find_map(|(scope, limit)| {
            let of_it = scope.filter(|at| self.entries[*at].is_of(subnet));
            (of_it.clone().count() >= limit).then(|| self.stalest(of_it))
        })
    }

    /// Who makes room in a full bucket.
    fn victim(&self, bucket: Range<usize>, for_open: bool) -> Option<usize> {
        self.stalest(bucket.clone()).or_else(|| {
            let open = self.entries[bucket.clone()].iter().filter(|entry| entry.is_open).count();
            let closed = bucket.filter(|at| !self.entries[*at].is_open);
            let oldest = closed.min_by_key(|at| self.entries[*at].seen);
            oldest.filter(|_| for_open && open < self.config.k / 2)
        })
    }

    /// Of some entries the one that failed, heard from longest ago.
    fn stalest(&self, entries: impl Iterator<Item = usize>) -> Option<usize> {
        entries.filter(|at| self.entries[*at].is_stale()).min_by_key(|at| self.entries[*at].seen)
    }

    /// An attempt to reach a peer, or a request to it, came to nothing. Returns whether this
    /// removed it.
    pub fn failed(&mut self, id: NodeId) -> bool {
        let Some(at) = self.find(id) else { return false };
        let entry = &mut self.entries[at];
        if entry.failures == 0 {
            entry.failed_at = self.heard;
        }
        entry.failures = entry.failures.saturating_add(1);
        let is_gone = entry.failures >= FAILURES_MAX && entry.failed_at != self.heard;
        if is_gone {
            self.remove_at(at);
        }
        is_gone
    }

    /// Removes a peer. Returns whether it was there.
    pub fn remove(&mut self, id: NodeId) -> bool {
        let place = self.find(id);
        place.is_some_and(|at| self.remove_at(at) == id)
    }

    /// The entry of a peer.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Entry> {
        Some(&self.entries[self.find(id)?])
    }

    /// How many entries there are, stale ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries, in the order of their keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The `n` entries nearest to a key that are not stale, nearest first.
    #[must_use]
    pub fn nearest(&self, target: &Key, n: usize) -> Vec<&Entry> {
        self.nearest_where(target, n, |entry| !entry.is_stale())
    }

    /// The `n` entries nearest to a key of those that pass a test, nearest first.
    #[must_use]
    pub fn nearest_where(
        &self,
        target: &Key,
        n: usize,
        passes: impl Fn(&Entry) -> bool,
    ) -> Vec<&Entry> {
        let target = target.head();
        let walk =
            Walk { heads: &self.heads, target, n, passes: |at: usize| passes(&self.entries[at]) };
        walk.nearest().into_iter().map(|at| &self.entries[at]).collect()
    }

    /// Up to `n` entries to name to somebody who looks for a key, nearest first: [`spread`] over
    /// the `2k` nearest.
    #[must_use]
    pub fn answer(&self, target: &Key, n: usize, rng: &mut impl Rng) -> Vec<&Entry> {
        let near = self.nearest(target, 2 * self.config.k);
        spread(&near, n, self.config.k, rng)
    }

    /// Up to `n` entries that pass a test, each as likely as any other, in no meaningful order.
    #[must_use]
    pub fn random(
        &self,
        rng: &mut impl Rng,
        n: usize,
        passes: impl Fn(&Entry) -> bool,
    ) -> Vec<&Entry> {
        if n == 0 {
            return Vec::new();
        }
        let mut sample: Vec<&Entry> = Vec::with_capacity(n.min(self.entries.len()));
        // Reservoir sampling (Vitter 1985, algorithm R).
        for (index, entry) in self.entries.iter().filter(|entry| passes(entry)).enumerate() {
            if sample.len() < n {
                sample.push(entry);
                continue;
            }
            let drawn = rng.next_u64() % (index as u64 + 1);
            if let Some(slot) = usize::try_from(drawn).ok().and_then(|at| sample.get_mut(at)) {
                *slot = entry;
            }
        }
        sample
    }

    fn find(&self, id: NodeId) -> Option<usize> {
        self.position(id, Key::of_node(id).head())
    }

    /// Where the entry of a peer is whose key begins with `head`.
    fn position(&self, id: NodeId, head: u64) -> Option<usize> {
        let first = self.heads.partition_point(|other| *other < head);
        let same = self.heads[first..].iter().take_while(|other| **other == head).count();
        (first..first + same).find(|at| self.entries[*at].id == id)
    }

    fn remove_at(&mut self, at: usize) -> NodeId {
        self.heads.remove(at);
        self.entries.remove(at).id
    }

    /// The entries of the bucket in which `key`, which is not this node's, is.
    fn bucket(&self, key: &Key) -> Range<usize> {
        self.run(key, self.own.common_bits(key) + 1)
    }

    /// The entries that share `bits` leading bits with `key`.
    fn run(&self, key: &Key, bits: u32) -> Range<usize> {
        let rest = u64::MAX.checked_shr(bits).unwrap_or(0);
        let (low, high) = (key.head() & !rest, key.head() | rest);
        let start = self.heads.partition_point(|head| *head < low);
        let len = self.heads[start..].partition_point(|head| *head <= high);
        start..start + len
    }
}

/// The first `bits` bits of `key`, then those of `rest`.
fn splice(key: &Key, bits: u32, mut rest: [u8; KEY_LEN]) -> Key {
    let (whole, part) = (bits as usize / 8, bits % 8);
    rest[..whole].copy_from_slice(&key.as_bytes()[..whole]);
    if part > 0 {
        let mask = !(0xff_u8 >> part);
        rest[whole] = key.as_bytes()[whole] & mask | rest[whole] & !mask;
    }
    Key::from_bytes(rest)
}

/// The key with one bit the other way round.
fn flip(key: &Key, bit: u32) -> Key {
    let mut bytes = *key.as_bytes();
    if let Some(byte) = bytes.get_mut(bit as usize / 8) {
        *byte ^= 0x80 >> (bit % 8);
    }
    Key::from_bytes(bytes)
}

#[cfg(test)]
mod tests;
