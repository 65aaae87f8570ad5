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
//! Invariants: entries are in the order of their keys and are different nodes; no bucket holds more
//! than `k`, so the table is bounded by `256 · k` (about `k · log2(nodes / k) + k` in fact).

mod contact;

use core::ops::Range;
use core::time::Duration;

use rand_core::Rng;

use self::contact::Packed;
pub use self::contact::Subnet;
pub(crate) use self::contact::subnets;
use super::lookup::Candidate;
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::key::{KEY_BITS, KEY_LEN, Key};
use crate::time::Instant;
use crate::wire::index::CONTACT_ADDRS_MAX;

/// Failures in a row that remove an entry.
const FAILURES_MAX: u8 = 2;

/// Entries by which the list grows: doubling would leave half of it empty.
const GROWTH: usize = 16;

/// Runs that are sorted and not split further.
const RUN_SORTED: usize = 8;

/// Limits of a table.
#[derive(Debug, Clone, Copy)]
pub struct TableConfig {
    /// Most entries of a bucket. Kademlia §2.2: so many that they do not all go within an hour.
    pub k: usize,
    /// Most entries of one [`Subnet`] in a bucket. As in BEP 42 and Ethereum's discv4 (2 of a /24).
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

/// A peer of the table.
#[derive(Debug, Clone)]
pub struct Entry {
    id: NodeId,
    key: Key,
    seen: Instant,
    contact: Packed,
    subnets: [Option<Subnet>; CONTACT_ADDRS_MAX],
    /// 0: unknown.
    rtt_us: u32,
    /// [`Table::heard`] at the first failure.
    failed_at: u32,
    failures: u8,
    is_open: bool,
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
    /// In the order of the keys.
    entries: Vec<Entry>,
    /// Counts the times that somebody was heard from.
    heard: u32,
    /// When bucket `i` was last looked at.
    refreshed: Vec<Option<Instant>>,
    /// When the surroundings of this node were.
    own_refreshed: Option<Instant>,
}

impl Entry {
    fn new(now: Instant, peer: &PeerAddr, rtt: Option<Duration>, count_private: bool) -> Self {
        let mut entry = Self {
            id: peer.id,
            key: Key::of_node(peer.id),
            seen: now,
            contact: Packed::new(peer),
            subnets: subnets(peer, count_private),
            rtt_us: 0,
            failed_at: 0,
            failures: 0,
            is_open: peer.homes.is_empty(),
        };
        entry.measured(rtt);
        entry
    }

    /// Who it is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Where it stands.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Where it is reached, shortened as contacts are. Unpacked by each call.
    #[must_use]
    pub fn peer(&self) -> PeerAddr {
        self.contact.contact(self.id)
    }

    /// Whether it claims to be reachable unsolicited: it has no homes.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// When it was last heard from.
    #[must_use]
    pub fn seen(&self) -> Instant {
        self.seen
    }

    /// Its smoothed round-trip time.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        (self.rtt_us > 0).then(|| Duration::from_micros(self.rtt_us.into()))
    }

    /// Whether the last attempt to reach it came to nothing.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.failures > 0
    }

    /// The entry as something to begin a look-up with; links are for the caller to fill in.
    #[must_use]
    pub fn candidate(&self) -> Candidate {
        Candidate {
            peer: self.peer(),
            is_linked: false,
            rtt: self.rtt(),
            vias: Vec::new(),
            is_stale: self.is_stale(),
        }
    }

    /// Bytes that the entry takes, those of the allocator apart.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.contact.len()
    }

    /// Smoothed as RFC 6298 §2.3 does.
    fn measured(&mut self, rtt: Option<Duration>) {
        let Some(rtt) = rtt else { return };
        let sample = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX).max(1);
        let old = self.rtt_us;
        self.rtt_us = if old == 0 { sample } else { (old - old / 8).saturating_add(sample / 8) };
    }

    fn heard(&mut self, now: Instant, rtt: Option<Duration>) {
        self.seen = now;
        self.failures = 0;
        self.measured(rtt);
    }

    fn is_of(&self, subnet: Subnet) -> bool {
        self.subnets.contains(&Some(subnet))
    }
}

impl Table {
    /// Creates an empty table of the node `own`.
    #[must_use]
    pub fn new(own: NodeId, config: TableConfig) -> Self {
        Self {
            own: Key::of_node(own),
            config,
            entries: Vec::new(),
            heard: 0,
            refreshed: Vec::new(),
            own_refreshed: None,
        }
    }

    /// Takes in a peer that proved its key on a link (or did when it was written down), or what it
    /// says of itself since.
    pub fn insert(&mut self, now: Instant, peer: &PeerAddr, rtt: Option<Duration>) -> Inserted {
        let mut new = Entry::new(now, peer, rtt, self.config.count_private);
        if new.key == self.own {
            return Inserted::Refused(Refusal::Own);
        }
        self.heard = self.heard.wrapping_add(1);
        let place = self.position(&new.key);
        if let Ok(at) = place {
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
            self.entries.remove(at);
        }
        match self.admit(new) {
            Inserted::New { replaced: None } if place.is_ok() => Inserted::Known,
            other => other,
        }
    }

    /// Notes that a peer, if it is in the table, was heard from. Cheaper than [`Table::insert`].
    pub fn heard(&mut self, now: Instant, id: NodeId, rtt: Option<Duration>) {
        self.heard = self.heard.wrapping_add(1);
        if let Ok(at) = self.position(&Key::of_node(id)) {
            self.entries[at].heard(now, rtt);
        }
    }

    fn admit(&mut self, new: Entry) -> Inserted {
        if !new.contact.is_somewhere() {
            return Inserted::Refused(Refusal::Unreachable);
        }
        let mut replaced = None;
        for subnet in new.subnets.into_iter().flatten() {
            match self.crowded(&new.key, subnet) {
                None => {}
                Some(Some(stale)) => replaced = Some(self.entries.remove(stale).id),
                Some(None) => return Inserted::Refused(Refusal::Subnet),
            }
        }
        let bucket = self.bucket(&new.key);
        if bucket.len() >= self.config.k {
            let Some(victim) = self.victim(bucket, new.is_open) else {
                return Inserted::Refused(Refusal::Full);
            };
            replaced = Some(self.entries.remove(victim).id);
        }
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(GROWTH);
        }
        let at = self.entries.partition_point(|entry| entry.key < new.key);
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
        let Ok(at) = self.position(&Key::of_node(id)) else { return false };
        let entry = &mut self.entries[at];
        if entry.failures == 0 {
            entry.failed_at = self.heard;
        }
        entry.failures = entry.failures.saturating_add(1);
        let is_gone = entry.failures >= FAILURES_MAX && entry.failed_at != self.heard;
        if is_gone {
            self.entries.remove(at);
        }
        is_gone
    }

    /// Removes a peer. Returns whether it was there.
    pub fn remove(&mut self, id: NodeId) -> bool {
        let place = self.position(&Key::of_node(id));
        place.is_ok_and(|at| self.entries.remove(at).id == id)
    }

    /// The entry of a peer.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Entry> {
        Some(&self.entries[self.position(&Key::of_node(id)).ok()?])
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
        let mut found = Vec::with_capacity(n.min(self.entries.len()) + RUN_SORTED);
        walk(&self.entries, target, n, &passes, &mut found);
        found.truncate(n);
        found
    }

    /// Up to `n` contacts to name to somebody who looks for a key, nearest first.
    ///
    /// Half are the nearest, for the asker to come nearer; the others are drawn from those behind
    /// them, up to the `2k`-th, for the asker to learn of all who are around the key. If all named
    /// the nearest only, nobody would name those on the outside of a region; and if Sybils are the
    /// nearest, nobody honest.
    #[must_use]
    pub fn answer(&self, target: &Key, n: usize, rng: &mut impl Rng) -> Vec<&Entry> {
        let near = self.nearest(target, 2 * self.config.k);
        let (nearest, rest) = near.split_at(n.div_ceil(2).min(near.len()));
        let inner = self.config.k.saturating_sub(nearest.len()).min(rest.len());
        let (inner, outer) = rest.split_at(inner);
        let from_outer = (n / 4).min(outer.len());
        let from_inner = (n - nearest.len()).saturating_sub(from_outer);
        let mut contacts = nearest.to_vec();
        contacts.extend(draw(inner, from_inner, rng));
        contacts.extend(draw(outer, from_outer, rng));
        contacts
    }

    /// Up to `n` entries that pass a test, each as likely as any other, in no meaningful order.
    #[must_use]
    pub fn random(
        &self,
        rng: &mut impl Rng,
        n: usize,
        passes: impl Fn(&Entry) -> bool,
    ) -> Vec<&Entry> {
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

    /// A key to look up so that the table stays good, if it is time for one; it counts as looked
    /// up.
    ///
    /// The surroundings of this node are looked at by its own key, once in [`TableConfig::refresh`];
    /// a bucket farther away by a random key of it, if in that time less than half of `k` entries
    /// of it were heard from.
    pub fn refresh_target(&mut self, now: Instant, rng: &mut impl Rng) -> Option<Key> {
        let far = self.far_buckets();
        let last = |bucket: &u32| match *bucket {
            bucket if bucket == far => self.own_refreshed,
            bucket => self.refreshed.get(bucket as usize).copied().flatten(),
        };
        let is_due = |bucket: &u32| {
            last(bucket).is_none_or(|at| now - at >= self.config.refresh)
                && (*bucket == far || self.is_quiet(now, *bucket))
        };
        // The own key first: what it finds fills the far buckets too.
        let bucket = (0..=far).rev().filter(is_due).min_by_key(last)?;
        let target = if bucket == far { self.own } else { self.random_in(bucket, rng) };
        self.looked_up(now, &target);
        Some(target)
    }

    /// Notes that a key is looked up, for whatever reason: its bucket needs no refreshing.
    pub fn looked_up(&mut self, now: Instant, target: &Key) {
        let bucket = self.own.common_bits(target);
        if bucket >= self.far_buckets() {
            self.own_refreshed = Some(now);
            return;
        }
        let bucket = bucket as usize;
        if self.refreshed.len() <= bucket {
            self.refreshed.resize(bucket + 1, None);
        }
        self.refreshed[bucket] = Some(now);
    }

    /// The number of buckets beyond the surroundings of this node, within which it knows `k` nodes.
    fn far_buckets(&self) -> u32 {
        let surroundings = |bits| self.run(&self.own, bits).len();
        (0..KEY_BITS).find(|bucket| surroundings(bucket + 1) < self.config.k).unwrap_or(KEY_BITS)
    }

    fn is_quiet(&self, now: Instant, bucket: u32) -> bool {
        let run = self.run(&flip(&self.own, bucket), bucket + 1);
        let heard = |entry: &&Entry| !entry.is_stale() && now - entry.seen < self.config.refresh;
        self.entries[run].iter().filter(heard).count() < self.config.k / 2
    }

    fn random_in(&self, bucket: u32, rng: &mut impl Rng) -> Key {
        let mut bytes = [0; KEY_LEN];
        rng.fill_bytes(&mut bytes);
        splice(&flip(&self.own, bucket), bucket + 1, bytes)
    }

    fn position(&self, key: &Key) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.key.cmp(key))
    }

    /// The entries of the bucket in which `key`, which is not this node's, is.
    fn bucket(&self, key: &Key) -> Range<usize> {
        self.run(key, self.own.common_bits(key) + 1)
    }

    /// The entries that share `bits` leading bits with `key`.
    fn run(&self, key: &Key, bits: u32) -> Range<usize> {
        let low = splice(key, bits, [0; KEY_LEN]);
        let high = splice(key, bits, [0xff; KEY_LEN]);
        let start = self.entries.partition_point(|entry| entry.key < low);
        let len = self.entries[start..].partition_point(|entry| entry.key <= high);
        start..start + len
    }
}

/// Collects the entries of `run`, which all share some leading bits, by their distance to `target`
/// until there are `n` or a few more.
fn walk<'a>(
    run: &'a [Entry],
    target: &Key,
    n: usize,
    passes: &impl Fn(&Entry) -> bool,
    found: &mut Vec<&'a Entry>,
) {
    if found.len() >= n {
        return;
    }
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return };
    if run.len() <= RUN_SORTED {
        let before = found.len();
        found.extend(run.iter().filter(|entry| passes(entry)));
        found[before..].sort_unstable_by_key(|entry| entry.key.distance(target));
        return;
    }
    // The first bit in which any of them differ, as they are sorted: neither side is empty.
    let bit = first.key.common_bits(&last.key);
    let (zeros, ones) = run.split_at(run.partition_point(|entry| !is_set(&entry.key, bit)));
    let (near, far) = if is_set(target, bit) { (ones, zeros) } else { (zeros, ones) };
    walk(near, target, n, passes, found);
    walk(far, target, n, passes, found);
}

/// Draws `n` of some items, in their order (Knuth, *The Art of Computer Programming* 2, 3.4.2,
/// algorithm S).
fn draw<T: Copy>(items: &[T], mut n: usize, rng: &mut impl Rng) -> Vec<T> {
    let mut drawn = Vec::with_capacity(n.min(items.len()));
    for (index, item) in items.iter().enumerate() {
        let left = (items.len() - index) as u64;
        if rng.next_u64() % left < n as u64 {
            drawn.push(*item);
            n -= 1;
        }
    }
    drawn
}

/// Bit `bit` of a key, the most significant being 0; bits beyond the end are zero.
fn is_set(key: &Key, bit: u32) -> bool {
    let byte = key.as_bytes().get(bit as usize / 8).copied().unwrap_or_default();
    byte & (0x80 >> (bit % 8)) != 0
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
