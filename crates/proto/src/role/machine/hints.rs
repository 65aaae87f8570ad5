//! Who is said to have a seat, and which of them to ask to be our home.

use core::time::Duration;
use std::collections::BTreeSet;

use super::Roles;
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::role::{NetPrefix, credited_bytes_per_s};
use crate::time::Instant;
use crate::wire::role::SeatHint;

/// Seats said to be there that are remembered.
const HINTS_MAX: usize = 64;

/// Epochs for which a word about a seat is worth something: as long as a mandate lasts.
pub(super) const HINT_EPOCHS: u32 = 2;

/// How long a seat that was not reached, or is full, is left alone at first.
const PAUSE: Duration = Duration::from_secs(30);

/// Doublings of that at most, by a node that has homes: half an hour.
const DOUBLINGS_MAX: u32 = 6;

/// The load of a seat that takes nobody in.
pub(super) const FULL: u8 = u8::MAX;

/// Part of a load that a network of one's own outweighs: of seats that are as good, those in
/// different networks.
const CROWDED: u16 = 64;

/// The capacity of a seat of which none is said: that of half of all lines.
const CAPACITY_UNSAID: u8 = 14;

/// Somebody who is said to have a seat.
#[derive(Debug)]
pub(super) struct Hint {
    pub(super) contact: PeerAddr,
    pub(super) load: u8,
    capacity_log2: u8,
    said: Instant,
    /// Until when it is not asked: it is being asked, did not answer, or is full.
    pub(super) not_before: Instant,
    /// It is being asked to be our home.
    pub(super) is_courted: bool,
    is_dead: bool,
    /// Times in a row that it was asked in vain.
    failures: u32,
}

impl Hint {
    fn new(now: Instant, contact: PeerAddr, load: u8, capacity_log2: u8) -> Self {
        Self {
            contact,
            load,
            capacity_log2,
            said: now,
            not_before: now,
            is_courted: false,
            is_dead: false,
            failures: 0,
        }
    }

    /// One of which nothing else is known.
    pub(super) fn unsaid(now: Instant, contact: PeerAddr) -> Self {
        Self::new(now, contact, 0, CAPACITY_UNSAID)
    }

    /// It is not asked before a moment, if others are named until then.
    pub(super) fn wait(mut self, moment: Instant) -> Self {
        self.not_before = moment;
        self
    }

    /// Whether it was said since a moment.
    pub(super) fn is_since(&self, moment: Instant) -> bool {
        self.said >= moment
    }

    /// It answered as a seat does.
    pub(super) fn is_had(&mut self, now: Instant) {
        (self.not_before, self.is_courted, self.failures) = (now, false, 0);
    }

    /// It could not be reached.
    pub(super) fn is_gone(&mut self) {
        self.is_dead = true;
    }
}

impl Roles {
    /// Whether a hint may be true.
    pub(super) fn is_fresh(&self, now: Instant, hint: &Hint) -> bool {
        !hint.is_dead && now - hint.said < self.epochs.len() * HINT_EPOCHS
    }

    pub(super) fn insert_hint(&mut self, now: Instant, id: NodeId, hint: Hint) {
        if self.hints.len() >= HINTS_MAX && !self.hints.contains_key(&id) {
            let oldest = self.hints.iter().min_by_key(|(_, hint)| hint.said).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.hints.remove(&oldest);
            }
        }
        let Some(known) = self.hints.get_mut(&id) else {
            self.hints.insert(id, hint);
            return;
        };
        // Who was just found to be gone is not there because somebody has not found out yet.
        if known.not_before <= now {
            known.is_dead = false;
        }
        (known.contact, known.load, known.said) = (hint.contact, hint.load, now);
        known.capacity_log2 = hint.capacity_log2;
    }

    /// Those to be shown, with what is said of them.
    pub(super) fn note_hint(&mut self, now: Instant, seat: SeatHint) {
        let id = seat.contact.id;
        let contact = self.contact_of(id).unwrap_or(seat.contact);
        if id != self.id {
            let hint = Hint::new(now, contact, seat.load, seat.capacity_log2);
            self.insert_hint(now, id, hint);
        }
    }

    /// A seat was asked in vain. Who has homes asks it less and less often.
    pub(super) fn not_had(&mut self, now: Instant, id: NodeId, pause: Duration) {
        let doublings = if self.homes.is_empty() { 0 } else { DOUBLINGS_MAX };
        if let Some(hint) = self.hints.get_mut(&id) {
            let pause = pause.max(PAUSE) * 2u32.pow(hint.failures.min(doublings));
            (hint.not_before, hint.is_courted) = (now + pause, false);
            hint.failures = hint.failures.saturating_add(1);
        }
    }

    /// Seats that were asked to be our homes and have not answered in time.
    pub(super) fn drop_late(&mut self, now: Instant) {
        let is_late = |hint: &Hint| hint.is_courted && hint.not_before <= now;
        let late: Vec<_> =
            self.hints.iter().filter(|(_, hint)| is_late(hint)).map(|(id, _)| *id).collect();
        for id in late {
            self.not_had(now, id, PAUSE);
        }
    }

    /// Whether a seat may be asked to be our home, sooner or later: a full one by who has none.
    fn is_wanted(&self, now: Instant, id: NodeId, hint: &Hint) -> bool {
        self.is_fresh(now, hint)
            && !self.homes.contains(&id)
            && (hint.load < FULL || self.homes.is_empty())
    }

    /// When the next seat may be asked to be our home.
    pub(super) fn next_hint(&self, now: Instant) -> Option<Instant> {
        let wanted = self.hints.iter().filter(|(id, hint)| self.is_wanted(now, **id, hint));
        wanted.map(|(_, hint)| hint.not_before).min()
    }

    /// The seat that is asked next to be our home: of two drawn by capacity the less loaded
    /// (Mitzenmacher, *The Power of Two Choices in Randomized Load Balancing*, 2001).
    pub(super) fn choose_seat(&mut self, now: Instant) -> Option<NodeId> {
        let free: Vec<_> = self
            .hints
            .iter()
            .filter(|(id, hint)| hint.not_before <= now && self.is_wanted(now, **id, hint))
            .map(|(id, hint)| (*id, credited_bytes_per_s(hint.capacity_log2)))
            .collect();
        let two = [self.draw_by(&free)?, self.draw_by(&free)?];
        let nets: BTreeSet<_> =
            self.homes.iter().filter_map(|home| self.net_of_seat(*home)).collect();
        let cost = |id: &NodeId| {
            let load = self.hints.get(id).map_or(u8::MAX, |hint| hint.load);
            let is_crowded = self.net_of_seat(*id).is_some_and(|net| nets.contains(&net));
            u16::from(load) + if is_crowded { CROWDED } else { 0 }
        };
        two.into_iter().min_by_key(cost)
    }

    /// One of several, each as often as its weight says.
    pub(super) fn draw_by(&mut self, weighted: &[(NodeId, u64)]) -> Option<NodeId> {
        let all: u64 = weighted.iter().map(|(_, weight)| weight).sum();
        let mut left = self.pick(usize::try_from(all).unwrap_or(usize::MAX)) as u64;
        for (id, weight) in weighted {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return Some(*id),
            }
        }
        None
    }

    fn net_of_seat(&self, id: NodeId) -> Option<NetPrefix> {
        if let Some(linked) = self.linked.get(&id) {
            return linked.net;
        }
        let contact = &self.hints.get(&id)?.contact;
        contact.addrs.first().map(|addr| NetPrefix::of(addr.ip()))
    }
}
