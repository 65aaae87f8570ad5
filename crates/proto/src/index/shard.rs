//! The records that this node keeps for others, and how much room anybody has among them.
//!
//! Storing has two halves. [`Shard::admit`] checks a record against everything that is known here;
//! the caller puts it on disk and says so by [`Shard::commit`] (or [`Shard::cancel`], if that
//! failed), and only then is it found by anybody. The highest sequence of each slot is remembered
//! beyond the record, for as long as an older one could still be valid.
//!
//! Time is counted on the monotonic clock from the moment of receipt: when the calendar jumps,
//! nothing that is here expires and nothing lasts longer.
//!
//! Who fills a shard: identities are free, so limits per author restrain only the careless. The
//! room of a network prefix is limited too, and once the shard is full, the prefix that uses most
//! gives way to those that use less. Of the announcements of a crowded topic a fair sample is kept
//! (module `sample`). Sequences are never forgotten early: when their memory is full, new slots are
//! refused.
//!
//! Invariants: at most [`ShardConfig::bytes_max`] bytes and what is under way to disk are kept; no
//! record older than one that was committed is admitted while that is remembered; one deadline for
//! each slot.

mod config;
mod query;
mod quota;
mod restore;
mod sample;

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bytes::Bytes;

pub use self::config::{Admission, Gone, ShardConfig, ShardStats, memory};
use self::quota::{Claim, Ledger, Prefix};
use self::sample::{Group, POSITION_BITS};
use crate::id::NodeId;
use crate::key::Key;
use crate::record::{Record, Slot};
use crate::time::{Instant, UnixTime};
use crate::wire::index::{Digest, RecordKind, StoreOutcome};

/// A record that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The short name of this version of the record, for reconciliation.
    pub digest: Digest,
    /// As it travels.
    pub bytes: Bytes,
    /// Which edition of its slot it is.
    pub sequence: u64,
    /// Until when it is kept.
    pub until: Instant,
    prefix: Option<Prefix>,
}

/// What is known of a slot.
struct Entry {
    /// The highest sequence that was committed.
    highest: u64,
    kept: Option<Kept>,
    /// Whether the record left to make room: then it may come back, for nothing newer is known.
    is_evicted: bool,
    /// When the record expires or, if there is none, the slot is forgotten.
    deadline: Instant,
    /// Whose memory it takes.
    prefix: Option<Prefix>,
}

/// A record on its way to disk.
struct Pending {
    sequence: u64,
    bytes: Bytes,
    claim: Claim,
}

/// The short name of one version of a record.
pub(super) fn digest(slot: &Slot, sequence: u64) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("baran 1 version of a record");
    hasher.update(slot.key.as_bytes());
    hasher.update(&[match slot.kind {
        RecordKind::Node => 0,
        RecordKind::Announcement => 1,
        RecordKind::Value => 2,
    }]);
    hasher.update(slot.author.as_bytes());
    hasher.update(&sequence.to_be_bytes());
    *hasher.finalize().as_bytes().first_chunk().expect("32 bytes have 8")
}

/// The records kept for others.
pub struct Shard {
    config: ShardConfig,
    secret: [u8; 32],
    /// Random numbers drawn.
    drawn: u64,
    slots: BTreeMap<Slot, Box<Entry>>,
    /// The announcements by key.
    groups: BTreeMap<Key, Group>,
    pending: BTreeMap<Slot, Pending>,
    digests: BTreeSet<Digest>,
    deadlines: BTreeSet<(Instant, Slot)>,
    ledger: Ledger,
    announcements: usize,
}

impl Shard {
    /// Creates an empty shard. `seed` makes its random choices and must be secret: who knows it
    /// can choose identities that crowd others out of a topic.
    #[must_use]
    pub fn new(mut config: ShardConfig, seed: [u8; 32]) -> Self {
        // One bit stays for the width that an asker began with.
        config.records_per_key_max = config.records_per_key_max.min(1 << (POSITION_BITS - 2));
        Self {
            config,
            secret: seed,
            drawn: 0,
            slots: BTreeMap::new(),
            groups: BTreeMap::new(),
            pending: BTreeMap::new(),
            digests: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            ledger: Ledger::default(),
            announcements: 0,
        }
    }

    /// Decides whether a verified record may be kept. `from` is the address of the peer that sent
    /// it, `None` for our own.
    ///
    /// A record that is admitted holds its room until it is committed or cancelled. If a newer one
    /// of its slot is admitted meanwhile, that one holds it. The same one may be admitted again
    /// while it waits for the disk; to write and commit it twice does no harm.
    ///
    /// # Errors
    ///
    /// What to answer the sender. Nothing has changed.
    pub fn admit(
        &mut self,
        now: Instant,
        unix: UnixTime,
        record: &Record,
        from: Option<IpAddr>,
    ) -> Result<Admission, StoreOutcome> {
        let slot = record.slot();
        let entry = self.slots.get(&slot);
        let kept = entry.and_then(|entry| entry.kept.as_ref());
        if kept.is_some_and(|kept| kept.until > now && kept.bytes == record.bytes()) {
            return Ok(Admission::Same);
        }
        let lifetime = record.lifetime(unix).map_err(|error| error.outcome())?;
        if entry.is_some_and(|entry| !entry.accepts(record.sequence())) {
            return Err(StoreOutcome::Stale);
        }
        let replaced = kept.map(|kept| kept.claim(&slot));
        let is_new_slot = entry.is_none();
        let claim = claim(record, from.map(Prefix::of));
        if let Some(pending) = self.pending.get(&slot) {
            if pending.bytes == record.bytes() {
                return Ok(Admission::New { lifetime });
            }
            if record.sequence() <= pending.sequence {
                return Err(StoreOutcome::Stale);
            }
        } else if self.pending.len() >= self.config.pending_max {
            return Err(StoreOutcome::Unable);
        }
        self.reserve(record, claim, replaced.as_ref(), is_new_slot)?;
        Ok(Admission::New { lifetime })
    }

    /// Holds room for a record.
    fn reserve(
        &mut self,
        record: &Record,
        claim: Claim,
        replaced: Option<&Claim>,
        is_new_slot: bool,
    ) -> Result<(), StoreOutcome> {
        let slot = record.slot();
        let overtaken = self.pending.get(&slot).map(|pending| pending.claim);
        if let Some(overtaken) = &overtaken {
            self.ledger.remove(overtaken);
        }
        let rank = self.rank(slot.key, slot.author);
        let group = self.groups.get(&slot.key).filter(|_| slot.kind == RecordKind::Announcement);
        if !self.ledger.fits(&self.config, &claim, replaced, is_new_slot)
            || group.is_some_and(|group| !group.admits(&self.config, rank, claim.bytes))
        {
            if let Some(overtaken) = &overtaken {
                self.ledger.add(overtaken);
            }
            return Err(StoreOutcome::Full);
        }
        self.ledger.add(&claim);
        let pending = Pending { sequence: record.sequence(), bytes: record.bytes().clone(), claim };
        self.pending.insert(slot, pending);
        Ok(())
    }

    /// Keeps a record that is on disk, for `lifetime` from now ([`Admission::New`]). Returns the
    /// slots whose records made room and are to be removed from disk; `record` itself may be among
    /// them, if better ones came while it was written.
    pub fn commit(
        &mut self,
        now: Instant,
        record: &Record,
        lifetime: Duration,
        from: Option<IpAddr>,
    ) -> Vec<Slot> {
        let slot = record.slot();
        self.cancel(&slot, record.sequence());
        if self.slots.get(&slot).is_some_and(|entry| !entry.accepts(record.sequence())) {
            return Vec::new();
        }
        self.insert(now, record, lifetime, from.map(Prefix::of));
        self.make_room(now, &slot)
    }

    /// Gives up a record that was admitted and could not be written.
    pub fn cancel(&mut self, slot: &Slot, sequence: u64) {
        if self.pending.get(slot).is_some_and(|pending| pending.sequence == sequence)
            && let Some(pending) = self.pending.remove(slot)
        {
            self.ledger.remove(&pending.claim);
        }
    }

    /// Puts a record into its slot.
    fn insert(
        &mut self,
        now: Instant,
        record: &Record,
        lifetime: Duration,
        prefix: Option<Prefix>,
    ) {
        let slot = record.slot();
        let until = now + lifetime.min(memory(slot.kind));
        let (bytes, sequence) = (record.bytes().clone(), record.sequence());
        let digest = digest(&slot, sequence);
        let kept = Kept { digest, bytes, sequence, until, prefix };
        let claim = kept.claim(&slot);
        self.digests.insert(digest);
        let highest = sequence.max(self.slots.get(&slot).map_or(0, |entry| entry.highest));
        let entry = Entry { highest, kept: Some(kept), is_evicted: false, deadline: until, prefix };
        let mut old_len = None;
        if let Some(old) = self.slots.insert(slot, Box::new(entry)) {
            self.deadlines.remove(&(old.deadline, slot));
            self.ledger.forget(slot.author, old.prefix);
            if let Some(old) = old.kept {
                if old.digest != digest {
                    self.digests.remove(&old.digest);
                }
                self.ledger.remove(&old.claim(&slot));
                old_len = Some(old.bytes.len());
            }
        }
        self.deadlines.insert((until, slot));
        self.ledger.remember(slot.author, prefix);
        self.ledger.add(&claim);
        if slot.kind == RecordKind::Announcement {
            let rank = self.rank(slot.key, slot.author);
            let group = self.groups.entry(slot.key).or_default();
            if let Some(old_len) = old_len {
                group.resize(old_len, claim.bytes);
            } else {
                group.insert(rank, claim.bytes);
                self.announcements += 1;
            }
        }
    }

    /// Takes the record out of a slot and remembers its sequence from `at` on.
    fn vacate(&mut self, at: Instant, slot: &Slot, is_evicted: bool) {
        let Some(entry) = self.slots.get_mut(slot) else { return };
        let Some(kept) = entry.kept.take() else { return };
        entry.is_evicted = is_evicted;
        self.deadlines.remove(&(entry.deadline, *slot));
        entry.deadline = at + memory(slot.kind);
        self.deadlines.insert((entry.deadline, *slot));
        self.ledger.remove(&kept.claim(slot));
        self.digests.remove(&kept.digest);
        if slot.kind == RecordKind::Announcement {
            self.announcements -= 1;
            let rank_of = |author| rank(&self.secret, slot.key, author);
            if let Some(group) = self.groups.get_mut(&slot.key) {
                group.remove(rank_of(slot.author), kept.bytes.len(), rank_of);
                if group.is_empty() {
                    self.groups.remove(&slot.key);
                }
            }
        }
    }

    /// Evicts until what came into `slot` fits.
    fn make_room(&mut self, now: Instant, slot: &Slot) -> Vec<Slot> {
        let mut evicted = Vec::new();
        while slot.kind == RecordKind::Announcement
            && let Some(group) =
                self.groups.get(&slot.key).filter(|group| group.is_over(&self.config))
            && let Some((_, author)) = group.worst()
        {
            let victim = Slot { author, ..*slot };
            self.vacate(now, &victim, true);
            evicted.push(victim);
        }
        while self.ledger.is_over(&self.config)
            && let Some(victim) = self.victim()
        {
            self.vacate(now, &victim, true);
            evicted.push(victim);
        }
        evicted
    }

    /// Some record of the prefix that uses most. It holds the largest share of the records, so the
    /// walk from a random point is short unless its keys are crowded together.
    fn victim(&mut self) -> Option<Slot> {
        let prefix = self.ledger.heaviest()?;
        let random = self.draw();
        let point = Slot {
            key: Key::from_bytes(random),
            kind: RecordKind::Node,
            author: NodeId::from_bytes([0; 32]),
        };
        #[expect(clippy::borrowed_box, reason = "as the map has them")]
        let is_of_prefix = |(slot, entry): (&Slot, &Box<Entry>)| {
            entry.kept.as_ref().filter(|kept| kept.prefix == Some(prefix)).map(|_| *slot)
        };
        let mut above = self.slots.range(point..).filter_map(is_of_prefix);
        let mut below = self.slots.range(..point).filter_map(is_of_prefix);
        above.next().or_else(|| below.next())
    }

    /// Whether the version of a record that has this short name is kept.
    #[must_use]
    pub fn holds(&self, digest: &Digest) -> bool {
        self.digests.contains(digest)
    }

    /// Drops what has expired.
    pub fn expire(&mut self, now: Instant) -> Gone {
        let mut gone = Gone::default();
        while let Some((deadline, slot)) = self.deadlines.first().copied()
            && deadline <= now
        {
            if self.slots.get(&slot).is_some_and(|entry| entry.kept.is_some()) {
                self.vacate(deadline, &slot, false);
                gone.records.push(slot);
            } else {
                self.deadlines.pop_first();
                if let Some(entry) = self.slots.remove(&slot) {
                    self.ledger.forget(slot.author, entry.prefix);
                }
                gone.sequences.push(slot);
            }
        }
        gone
    }

    /// When [`Shard::expire`] is next to be called.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The highest sequence of every slot that is remembered.
    pub fn sequences(&self) -> impl Iterator<Item = (Slot, u64)> {
        self.slots.iter().map(|(slot, entry)| (*slot, entry.highest))
    }

    /// How much is kept.
    #[must_use]
    pub fn stats(&self) -> ShardStats {
        let waiting = self.pending.values().map(|pending| pending.claim.bytes);
        let records = self.ledger.records - self.pending.len();
        ShardStats {
            records,
            bytes: self.ledger.bytes - waiting.sum::<usize>(),
            keys: records - self.announcements + self.groups.len(),
            sequences: self.slots.len(),
        }
    }

    /// Draws a random number.
    fn draw(&mut self) -> [u8; 32] {
        self.drawn += 1;
        *blake3::keyed_hash(&self.secret, &self.drawn.to_be_bytes()).as_bytes()
    }

    fn rank(&self, key: Key, author: NodeId) -> (u64, NodeId) {
        rank(&self.secret, key, author)
    }
}

impl Entry {
    /// Whether a record may come into the slot.
    fn accepts(&self, sequence: u64) -> bool {
        sequence > self.highest || sequence == self.highest && self.is_evicted
    }

    fn live(&self, now: Instant) -> Option<&Kept> {
        self.kept.as_ref().filter(|kept| kept.until > now)
    }
}

impl Kept {
    fn claim(&self, slot: &Slot) -> Claim {
        let Slot { author, kind, .. } = *slot;
        Claim { author, kind, prefix: self.prefix, bytes: self.bytes.len() }
    }
}

impl fmt::Debug for Shard {
    /// Shows how much is kept and nothing of the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

fn claim(record: &Record, prefix: Option<Prefix>) -> Claim {
    Claim { author: record.author(), kind: record.kind(), prefix, bytes: record.bytes().len() }
}

/// The rank of an announcer among those of a key.
fn rank(secret: &[u8; 32], key: Key, author: NodeId) -> (u64, NodeId) {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(key.as_bytes()).update(author.as_bytes());
    let hash = hasher.finalize();
    let (first, _) = hash.as_bytes().split_first_chunk().expect("32 bytes have 8");
    (u64::from_be_bytes(*first), author)
}

#[cfg(test)]
mod tests;
