//! Loads of seats follow their capacities.
//!
//! Leaves choose homes by capacity and by load, so that losses alone would even loads out in hours.
//! A seat that serves clearly more than its fellows, each by its capacity, tells some of its guests
//! so and names others: each of these moves one home, when another has taken it in.

use super::Roles;
use crate::id::NodeId;
use crate::key::Key;
use crate::role::{capacity, credited_bytes_per_s};
use crate::time::Instant;
use crate::wire::RoleMessage;
use crate::wire::role::{DeclineReason, Declined};

/// Load above the mean that is borne: twice as many guests. Each that moves is shown a mandate.
const BORNE: u64 = capacity::OCTAVE as u64;

/// The share of the owner's limit from which on it counts as load, in parts of 255: guests are even
/// until there is no room for more.
const LIMIT_COUNTS: u8 = 128;

/// Of its guests a seat sends away one in so many a minute, one at least.
const SENT_AWAY: usize = 256;

/// When who was sent away may come again.
const RETRY_AFTER_S: u16 = 1800;

impl Roles {
    /// The load that others are told: what we serve of what our seat is credited with, or how near
    /// the owner's limit is, whichever is more.
    pub(super) fn told_load(&self) -> u8 {
        let own = self.mandates.first().filter(|_| self.told_seat.is_some());
        let guests =
            own.map_or(0, |own| capacity::load(self.guests().count(), own.term().capacity_log2));
        if self.load < LIMIT_COUNTS { guests } else { guests.max(self.load) }
    }

    /// Those that our seat serves, as far as we know.
    fn guests(&self) -> impl Iterator<Item = NodeId> {
        let guests = self.linked.iter().filter(|(_, linked)| linked.is_guest).map(|(id, _)| *id);
        guests.filter(|id| !self.seats.contains_key(id))
    }

    /// How often a seat is named to who looks for one.
    pub(super) fn naming_weight(load: u8, capacity_log2: u8) -> u64 {
        (credited_bytes_per_s(capacity_log2) >> (load / capacity::OCTAVE)).max(1)
    }

    /// Sends some guests to other seats if those serve clearly less; called once a minute.
    pub(super) fn even_out(&mut self, now: Instant) {
        let Some(own) = self.mandates.first() else { return };
        let own = (self.told_load(), credited_bytes_per_s(own.term().capacity_log2));
        let fellows = self.seats.values().filter(|seat| !seat.is_lost);
        let fellows = fellows
            .map(|seat| (seat.load, credited_bytes_per_s(seat.mandate.term().capacity_log2)));
        let (mut served, mut credited) = (0, 0);
        for (load, bytes) in fellows.chain([own]) {
            served += u64::from(load) * bytes;
            credited += bytes;
        }
        if u64::from(own.0) <= served / credited.max(1) + BORNE {
            return;
        }
        let guests: Vec<_> = self.guests().collect();
        for _ in 0..(guests.len() / SENT_AWAY).max(1).min(guests.len()) {
            let guest = guests[self.pick(guests.len())];
            let declined = Declined { reason: DeclineReason::Full, retry_after_s: RETRY_AFTER_S };
            self.send(guest, RoleMessage::Declined(declined));
            self.answer(now, guest, &Key::of_node(guest));
        }
    }
}
