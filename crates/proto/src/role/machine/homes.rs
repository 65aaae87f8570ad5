//! The seats that this node uses: found by asking, chosen by capacity, load and diversity,
//! verified, kept.
//!
//! Whoever is linked is asked first. If nobody knows a seat, the electors of the running epoch do:
//! they know to whom they gave their votes. A seat that serves enough others says so and names
//! more. One home is never given up before another is there, and who has one is in no hurry.

use core::time::Duration;

use super::hints::FULL;
use super::{Event, Roles, Search, Timer};
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::key::Key;
use crate::role::epoch::elector_point;
use crate::role::{Depth, Plan};
use crate::time::Instant;
use crate::wire::RoleMessage;
use crate::wire::role::{Ask, DeclineReason, Declined, Seats, Show};

/// Linked peers that are asked at a time by who has no home, or too few fellows: others ask one.
const ASKED_MAX: usize = 2;

/// Electors that are asked at a time.
const WITNESSES: usize = 4;

/// Longest pause before seats are asked for again by who has none.
const ASK_MAX: Duration = Duration::from_secs(60);

/// Shortest and longest pause before they are asked for again by who has some.
const ASK_EASY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(1800));

/// How long a seat may take to show its mandate: it is reached first.
const SHOW_MAX: Duration = Duration::from_secs(10);

/// Pause between moves from one home to another.
const MOVE_PAUSE: Duration = Duration::from_secs(3600);

/// How long a home that wants to serve fewer is to be left for another, if one takes us in.
const MOVE_MAX: Duration = Duration::from_secs(60);

/// A home that wants to serve fewer, and when it said so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Move {
    from: NodeId,
    since: Instant,
}

impl Roles {
    /// Sees to it that there are enough homes, or fellows.
    pub(super) fn settle_homes(&mut self, now: Instant) {
        let Some(plan) = self.plan().filter(|_| self.is_ready()) else { return };
        let recheck = self.recheck(now);
        // Seats serve each other: those of the region are known to all of them.
        let has_seat = self.told_seat.is_some();
        let is_enough = if has_seat {
            self.living(now) >= plan.active + plan.standby
        } else {
            self.homes.len() >= self.config.homes
        };
        if is_enough {
            self.ask_pause = self.config.ask;
            self.asked = 0;
        }
        // Fellows that missed each other are named by others.
        let may_ask = has_seat || !is_enough;
        let is_tried = !has_seat && self.try_homes(now);
        let is_pressing = self.is_pressing(now, plan);
        if may_ask && now >= self.ask_after && (!is_tried || is_pressing) {
            self.look_around(now, is_pressing);
            self.consider_acting(now, plan);
            self.ask_later(now, plan, is_enough);
        }
        let next_hint = if has_seat || is_enough { None } else { self.next_hint(now) };
        let next_ask = (may_ask && (has_seat || self.ask_after > now)).then_some(self.ask_after);
        let next = [recheck, next_hint, next_ask].into_iter().flatten().min();
        let next = next.unwrap_or(now + ASK_EASY.1);
        self.timers.set(Timer::Homes, next.max(now + self.config.ask));
    }

    /// Whether nobody serves us, or we have a seat and too few fellows.
    fn is_pressing(&self, now: Instant, plan: Plan) -> bool {
        if self.told_seat.is_some() { self.are_too_few(now, plan) } else { self.homes.is_empty() }
    }

    /// Sets when seats are asked for again.
    fn ask_later(&mut self, now: Instant, plan: Plan, is_enough: bool) {
        let is_easy = !self.is_pressing(now, plan);
        if is_enough {
            self.ask_pause = ASK_EASY.1;
        } else if is_easy && !self.are_too_few(now, plan) {
            self.ask_pause = self.ask_pause.max(ASK_EASY.0);
        }
        let pause = self.ask_pause / 2 + self.draw(self.ask_pause);
        self.ask_after = now + pause;
        self.ask_pause = if is_easy {
            (self.ask_pause * 2).min(ASK_EASY.1)
        } else {
            (self.ask_pause * 3 / 2).min(ASK_MAX)
        };
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
            (self.ask_pause, self.ask_after) = (self.config.ask, now);
            self.settle_soon(now);
        }
    }

    fn settle_soon(&mut self, now: Instant) {
        let pause = self.draw(self.config.ask);
        self.timers.set_no_later(Timer::Homes, now + pause);
    }

    /// Asks as many seats to be our homes as are missing: each that is asked shows a mandate of
    /// some kilobytes. Whether that may be enough.
    fn try_homes(&mut self, now: Instant) -> bool {
        self.drop_late(now);
        let moving = usize::from(self.moving(now).is_some());
        let courted = self.hints.values().filter(|hint| hint.is_courted).count();
        let missing = (self.config.homes + moving).saturating_sub(self.homes.len() + courted);
        (0..missing).all(|_| self.try_home(now))
    }

    /// Asks one more seat to be our home, if there is one.
    fn try_home(&mut self, now: Instant) -> bool {
        let chosen = self.choose_seat(now);
        let Some(hint) = chosen.and_then(|chosen| self.hints.get_mut(&chosen)) else {
            return false;
        };
        (hint.not_before, hint.is_courted) = (now + SHOW_MAX, true);
        let contact = hint.contact.clone();
        self.tell(&contact, RoleMessage::Show(Show {}));
        true
    }

    /// Asks who has seats: those that we know, linked peers, and if they know none the electors.
    fn look_around(&mut self, now: Instant, is_pressing: bool) {
        let region = self.region();
        let linked = self.linked.keys().filter(|id| region.contains(&Key::of_node(**id)));
        let mut peers: Vec<_> = linked.map(|id| (!self.seats.contains_key(id), *id)).collect();
        let first = self.pick(peers.len());
        if !peers.is_empty() {
            peers.rotate_left(first);
        }
        peers.sort_by_key(|(is_other, _)| *is_other);
        let asked_max = if is_pressing { ASKED_MAX } else { 1 };
        let peers = peers.into_iter().take(asked_max);
        let peers: Vec<_> = peers.filter_map(|(_, id)| self.contact_of(id)).collect();
        self.ask_for_seats(&peers);
        self.asked += 1;
        let is_known = self.hints.values().any(|hint| self.is_fresh(now, hint));
        let is_lost = !is_known && self.homes.is_empty() && self.asked > 2;
        if let Some(epoch) = self.epoch(now).filter(|_| is_lost) {
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
            let known = usize::from(seats.known);
            self.seats_named = self.seats_named.max(Some(known));
            self.said_living = Some((now, known));
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

    /// A seat showed its mandate, which may have been found valid.
    pub(super) fn present_done(&mut self, now: Instant, id: NodeId) {
        let is_valid = self.seats.get(&id).is_some_and(|seat| !seat.is_lost);
        if !is_valid {
            return self.not_had(now, id, Duration::ZERO);
        }
        if let Some(hint) = self.hints.get_mut(&id) {
            hint.is_had(now);
        }
        if self.told_seat.is_some() || self.homes.contains(&id) {
            return;
        }
        let left = self.moving(now).filter(|_| self.homes.len() == self.config.homes);
        if self.homes.len() >= self.config.homes && left.is_none() || !self.is_ready() {
            // A leaf knows the seats that it uses, and no others: it would not notice their loss.
            return self.dismiss(now, id);
        }
        self.homes.insert(id);
        self.keep(id, true);
        self.event(Event::Home { peer: id, held: true });
        if let Some(left) = left {
            self.leave(now, left);
        }
        if self.homes.len() >= self.config.homes {
            self.acting_tries = 0;
        }
    }

    /// Somebody has no mandate to show, is full, or will not vote.
    pub(super) fn handle_declined(&mut self, now: Instant, from: NodeId, declined: &Declined) {
        if declined.reason == DeclineReason::NoGuest {
            if let Some(linked) = self.linked.get_mut(&from) {
                linked.is_guest = false;
            }
            return;
        }
        if declined.reason == DeclineReason::NotMine {
            if self.seats.contains_key(&from) {
                self.forget_seat(now, from);
                self.review(now);
            }
            if self.homes.is_empty() {
                // One that was voted for a moment ago may have its votes in the next.
                self.hints.remove(&from);
            } else if let Some(hint) = self.hints.get_mut(&from) {
                hint.is_gone();
                self.not_had(now, from, Duration::ZERO);
            }
            return self.settle_soon(now);
        }
        if let Some(hint) = self.hints.get_mut(&from) {
            hint.load = if declined.reason == DeclineReason::Full { FULL } else { hint.load };
        }
        let is_moved = self.moved.is_some_and(|last| now - last.since < MOVE_PAUSE);
        if self.homes.contains(&from) && declined.reason == DeclineReason::Full && !is_moved {
            self.moved = Some(Move { from, since: now });
        }
        let pause = Duration::from_secs(declined.retry_after_s.min(3600).into());
        self.not_had(now, from, pause);
    }

    /// The home that is to be left for another.
    fn moving(&self, now: Instant) -> Option<NodeId> {
        let moved = self.moved.filter(|moved| now - moved.since < MOVE_MAX);
        moved.map(|moved| moved.from).filter(|from| self.homes.contains(from))
    }

    /// Leaves a home for another that is there.
    fn leave(&mut self, now: Instant, id: NodeId) {
        self.homes.remove(&id);
        self.event(Event::Home { peer: id, held: false });
        self.dismiss(now, id);
    }

    /// Does not use a seat that showed its mandate.
    fn dismiss(&mut self, now: Instant, id: NodeId) {
        let declined = Declined { reason: DeclineReason::NoGuest, retry_after_s: 0 };
        self.send(id, RoleMessage::Declined(declined));
        self.forget_seat(now, id);
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
            hint.is_gone();
            self.not_had(now, id, Duration::ZERO);
            self.lose(now, id);
            if self.homes.is_empty() {
                self.look_for_seats(now);
            } else {
                self.settle_soon(now);
            }
        }
        self.seat_failed(now, id);
    }
}
