//! The seats that this node uses: found by asking, chosen by load and diversity, verified, kept.
//!
//! Whoever is linked is asked first. If nobody knows a seat, the electors of the running epoch do:
//! they know to whom they gave their votes. A seat that serves enough others says so and names
//! more. One home is never given up before another is there.

use core::time::Duration;
use std::collections::BTreeSet;

use super::{Event, Roles, Search, Timer};
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::key::Key;
use crate::role::Depth;
use crate::role::NetPrefix;
use crate::role::epoch::elector_point;
use crate::time::Instant;
use crate::wire::RoleMessage;
use crate::wire::role::{Ask, DeclineReason, Declined, Seats, Show};

/// Seats said to be there that are remembered.
const HINTS_MAX: usize = 64;

/// Linked peers that are asked at a time by a seat, or by a leaf without any home: one that has
/// some asks one of them.
const ASKED_MAX: usize = 3;

/// Electors that are asked at a time.
const WITNESSES: usize = 4;

/// Longest pause before seats are asked for again if it presses, else [`LOOK`].
const ASK_MAX: Duration = Duration::from_secs(60);

/// How long a word about a seat is worth something.
const HINT_MAX: Duration = Duration::from_secs(600);

/// How long a seat that was not reached, or is full, is left alone at first.
const PAUSE: Duration = Duration::from_secs(30);

/// How long a seat may take to show its mandate: it is reached first.
const SHOW_MAX: Duration = Duration::from_secs(10);

/// Pause between looks at homes when there are enough.
const LOOK: Duration = Duration::from_secs(300);

/// Part of a load that a network of one's own outweighs: of seats that are as good, those in
/// different networks.
const CROWDED: u16 = 64;

/// Somebody who is said to have a seat.
#[derive(Debug)]
pub(super) struct Hint {
    pub(super) contact: PeerAddr,
    load: u8,
    said: Instant,
    /// Until when it is not asked: it is being asked, did not answer, or is full.
    not_before: Instant,
    /// It is being asked to be our home.
    is_courted: bool,
    is_dead: bool,
}

impl Hint {
    pub(super) fn new(now: Instant, contact: PeerAddr, load: u8) -> Self {
        Self { contact, load, said: now, not_before: now, is_courted: false, is_dead: false }
    }

    /// Whether it was said since a moment.
    pub(super) fn is_since(&self, moment: Instant) -> bool {
        self.said >= moment
    }

    /// Whether it may be there.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        !self.is_dead && now - self.said < HINT_MAX
    }
}

impl Roles {
    /// Sees to it that there are enough homes.
    pub(super) fn settle_homes(&mut self, now: Instant) {
        let Some(plan) = self.plan().filter(|_| self.is_ready()) else { return };
        // Seats serve each other: those of the region are known to all of them.
        let has_seat = self.told_seat.is_some();
        let recheck = self.recheck(now);
        let wanted = if has_seat { plan.active + plan.standby } else { self.config.homes };
        let have = if has_seat { self.living(now) } else { self.homes.len() };
        if have >= wanted {
            self.ask_pause = self.config.ask;
            if has_seat {
                // Fellows that missed each other are named by others.
                self.look_around(now);
            }
            self.asked = 0;
            let next = recheck.map_or(now + LOOK, |at| at.min(now + LOOK));
            return self.timers.set(Timer::Homes, next.max(now + self.config.ask));
        }
        let is_pressing =
            if has_seat { self.are_too_few(now, plan) } else { self.homes.is_empty() };
        if has_seat || !self.try_homes(now) || is_pressing {
            self.look_around(now);
            self.consider_acting(now, plan);
        }
        let next = self.ask_pause / 2 + self.draw(self.ask_pause);
        self.ask_pause = (self.ask_pause * 2).min(if is_pressing { ASK_MAX } else { LOOK });
        self.timers.set(Timer::Homes, now + next);
    }

    /// Looks again at the mandates of homes shortly before they are good no more. When the next one
    /// is to be looked at.
    fn recheck(&mut self, now: Instant) -> Option<Instant> {
        let unix = self.unix(now)?;
        let ahead = self.config.acting / 4;
        let ends = |id: &NodeId| Some((self.good_until(&self.seats.get(id)?.mandate), *id));
        let (old, good): (Vec<_>, Vec<_>) =
            self.homes.iter().filter_map(ends).partition(|(ends, _)| *ends <= unix + ahead);
        for (_, id) in old {
            self.send(id, RoleMessage::Show(Show {}));
        }
        let next = good.into_iter().map(|(ends, _)| self.instant_of(now, ends)).min()?;
        Some(Instant::ZERO + (next - Instant::ZERO).saturating_sub(ahead))
    }

    /// Seats are fewer than they were: looks for others soon.
    pub(super) fn look_for_seats(&mut self, now: Instant) {
        if self.is_ready() {
            self.ask_pause = self.config.ask;
            let pause = self.draw(self.config.ask);
            self.timers.set_no_later(Timer::Homes, now + pause);
        }
    }

    /// Asks as many seats to be our homes as are missing: each that is asked shows a mandate of
    /// some kilobytes. Whether that may be enough.
    fn try_homes(&mut self, now: Instant) -> bool {
        let is_courted = |hint: &&Hint| hint.is_courted && hint.not_before > now;
        let courted = self.hints.values().filter(is_courted).count();
        let missing = self.config.homes.saturating_sub(self.homes.len() + courted);
        (0..missing).all(|_| self.try_home(now))
    }

    /// Asks one more seat to be our home, if there is one: the better of two (Mitzenmacher, *The
    /// Power of Two Choices in Randomized Load Balancing*, 2001).
    fn try_home(&mut self, now: Instant) -> bool {
        let free: Vec<NodeId> = self
            .hints
            .iter()
            .filter(|(id, hint)| {
                hint.is_fresh(now) && hint.not_before <= now && !self.homes.contains(id)
            })
            .map(|(id, _)| *id)
            .collect();
        if free.is_empty() {
            return false;
        }
        let two = [free[self.pick(free.len())], free[self.pick(free.len())]];
        let nets: BTreeSet<_> =
            self.homes.iter().filter_map(|home| self.net_of_seat(*home)).collect();
        let cost = |id: &NodeId| {
            let load = self.hints.get(id).map_or(u8::MAX, |hint| hint.load);
            let is_crowded = self.net_of_seat(*id).is_some_and(|net| nets.contains(&net));
            u16::from(load) + if is_crowded { CROWDED } else { 0 }
        };
        let Some(chosen) = two.into_iter().min_by_key(cost) else { return false };
        let Some(hint) = self.hints.get_mut(&chosen) else { return false };
        (hint.not_before, hint.is_courted) = (now + SHOW_MAX, true);
        let contact = hint.contact.clone();
        self.tell(&contact, RoleMessage::Show(Show {}));
        true
    }

    fn net_of_seat(&self, id: NodeId) -> Option<NetPrefix> {
        if let Some(linked) = self.linked.get(&id) {
            return linked.net;
        }
        let contact = &self.hints.get(&id)?.contact;
        contact.addrs.first().map(|addr| NetPrefix::of(addr.ip()))
    }

    /// Asks who has seats: those that we know, linked peers, and if they know none the electors.
    fn look_around(&mut self, now: Instant) {
        let region = self.region();
        let linked = self.linked.keys().filter(|id| region.contains(&Key::of_node(**id)));
        let mut peers: Vec<_> = linked.map(|id| (!self.seats.contains_key(id), *id)).collect();
        let first = self.pick(peers.len());
        if !peers.is_empty() {
            peers.rotate_left(first);
        }
        peers.sort_by_key(|(is_other, _)| *is_other);
        let is_alone = self.told_seat.is_some() || self.homes.is_empty();
        let asked_max = if is_alone { ASKED_MAX } else { 1 };
        let peers = peers.into_iter().take(asked_max);
        let peers: Vec<_> = peers.filter_map(|(_, id)| self.contact_of(id)).collect();
        self.ask_for_seats(&peers);
        self.asked += 1;
        let is_known = self.hints.values().any(|hint| hint.is_fresh(now));
        if let Some(epoch) = self.epoch(now).filter(|_| !is_known && self.asked > 1) {
            self.search(elector_point(region, epoch), WITNESSES, Search::Witnesses);
        }
    }

    /// Asks peers which seats they know.
    pub(super) fn ask_for_seats(&mut self, peers: &[PeerAddr]) {
        for peer in peers {
            self.tell(peer, RoleMessage::Ask(Ask { key: self.key }));
        }
    }

    pub(super) fn ask_witnesses(&mut self, nodes: &[PeerAddr]) {
        self.ask_for_seats(&nodes[..nodes.len().min(WITNESSES)]);
    }

    pub(super) fn handle_seats(&mut self, now: Instant, from: NodeId, seats: Seats) {
        self.follow(now, Depth::new(seats.bits));
        // A leaf knows its homes, and a seat all of them.
        if self.seats.is_empty() || self.seats.contains_key(&from) {
            self.seats_named = self.seats_named.max(Some(seats.seats.len()));
        }
        let has_seat = self.told_seat.is_some();
        for seat in seats.seats {
            let contact = seat.contact.clone();
            let is_known = self.seats.get(&contact.id).is_some_and(|seat| !seat.is_lost);
            let is_asked = self.hints.get(&contact.id).is_some_and(|hint| hint.not_before > now);
            let is_news = !is_known && !is_asked;
            self.note_hint(now, seat);
            if has_seat && is_news && contact.id != self.id {
                self.not_had(now, contact.id, SHOW_MAX);
                self.show_to(&contact);
                self.tell(&contact, RoleMessage::Show(Show {}));
            }
        }
        if !has_seat {
            self.try_homes(now);
        }
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
    }

    /// A seat showed its mandate, which may have been found valid.
    pub(super) fn present_done(&mut self, now: Instant, id: NodeId) {
        let is_valid = self.seats.get(&id).is_some_and(|seat| !seat.is_lost);
        if !is_valid {
            return self.not_had(now, id, PAUSE);
        }
        if let Some(hint) = self.hints.get_mut(&id) {
            (hint.not_before, hint.is_courted) = (now, false);
        }
        if self.told_seat.is_some() || self.homes.contains(&id) {
            return;
        }
        if self.homes.len() >= self.config.homes || !self.is_ready() {
            // A leaf knows the seats that it uses, and no others: it would not notice their loss.
            return self.forget_seat(now, id);
        }
        self.homes.insert(id);
        self.keep(id, true);
        self.event(Event::Home { peer: id, held: true });
        if self.homes.len() >= self.config.homes {
            self.acting_tries = 0;
        }
    }

    /// Somebody has no mandate to show, is full, or will not vote.
    pub(super) fn handle_declined(&mut self, now: Instant, from: NodeId, declined: &Declined) {
        if declined.reason == DeclineReason::NotMine && self.seats.contains_key(&from) {
            self.forget_seat(now, from);
            self.hints.remove(&from);
            self.review(now);
        }
        let pause = Duration::from_secs(declined.retry_after_s.min(3600).into()).max(PAUSE);
        self.not_had(now, from, pause);
    }

    fn not_had(&mut self, now: Instant, id: NodeId, pause: Duration) {
        if let Some(hint) = self.hints.get_mut(&id) {
            (hint.not_before, hint.is_courted) = (now + pause, false);
        }
    }

    /// Gives up a home.
    pub(super) fn drop_home(&mut self, now: Instant, id: NodeId) {
        if self.homes.remove(&id) {
            self.keep(id, false);
            self.event(Event::Home { peer: id, held: false });
            self.look_for_seats(now);
        }
    }

    /// The link to a peer is gone.
    pub(super) fn seat_down(&mut self, now: Instant, id: NodeId, is_polite: bool) {
        if self.homes.contains(&id) && !is_polite {
            self.alarm(now, id);
        }
        if self.homes.contains(&id) || self.told_seat.is_some() {
            self.lose(now, id);
        }
    }

    /// A peer could not be reached.
    pub(super) fn seat_unreachable(&mut self, now: Instant, id: NodeId) {
        if let Some(hint) = self.hints.get_mut(&id) {
            (hint.is_dead, hint.not_before, hint.is_courted) = (true, now + PAUSE, false);
            self.lose(now, id);
            self.look_for_seats(now);
        }
        self.seat_failed(now, id);
    }
}
