//! What a shard gets back from disk when the node starts.

use core::time::Duration;

use super::{Entry, Shard, claim, memory};
use crate::record::{CLOCK_SKEW, Record, Slot};
use crate::time::{Instant, UnixTime};

impl Shard {
    /// Puts back a record that was on disk when the node started, and tells whether it is kept; if
    /// not, it is to be removed from disk.
    ///
    /// It was admitted once, so one from the future is kept for as long as one of its kind may be:
    /// the machine's clock may not be set yet.
    pub fn restore(&mut self, now: Instant, unix: UnixTime, record: &Record) -> bool {
        let slot = record.slot();
        let longest = memory(slot.kind);
        let lifetime = (record.expires() + CLOCK_SKEW - unix).min(longest);
        let entry = self.slots.get(&slot);
        let is_older = entry.is_some_and(|entry| record.sequence() < entry.highest);
        let replaced = entry.and_then(|entry| entry.kept.as_ref()).map(|kept| kept.claim(&slot));
        let claim = claim(record, None);
        let fits = self.ledger.fits(&self.config, &claim, replaced.as_ref(), entry.is_none());
        if is_older || lifetime.is_zero() || !fits {
            self.restore_sequence(now, slot, record.sequence(), longest);
            return false;
        }
        self.insert(now, record, lifetime, None);
        !self.make_room(now, &slot).contains(&slot)
    }

    /// Remembers a sequence that was on disk: for `lifetime` from now, or beyond its record if one
    /// is restored too. The order of this and of [`Shard::restore`] does not matter.
    pub fn restore_sequence(
        &mut self,
        now: Instant,
        slot: Slot,
        sequence: u64,
        lifetime: Duration,
    ) {
        if let Some(entry) = self.slots.get_mut(&slot) {
            entry.highest = entry.highest.max(sequence);
            return;
        }
        let deadline = now + lifetime.min(memory(slot.kind) * 2);
        let entry =
            Entry { highest: sequence, kept: None, is_evicted: false, deadline, prefix: None };
        self.slots.insert(slot, Box::new(entry));
        self.deadlines.insert((deadline, slot));
        self.ledger.remember(slot.author, None);
    }
}
