//! Seats: which are known and what their ranks are, and what one owes to its fellows.
//!
//! Whoever verified a mandate knows its rank among those it knows; nobody hands ranks out. The
//! first ones serve and the next stand by, so a seat that is lost is replaced by everybody leaving
//! it out.

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;

use super::hints::{FULL, Hint};
use super::{Event, Output, Roles, Timer};
use crate::flat::FlatMap;
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::key::Key;
use crate::role::Region;
use crate::role::epoch::draw;
use crate::role::mandate::Mandate;
use crate::role::term::{Kind, RANKS_MAX, Term};
use crate::time::{Instant, UnixTime};
use crate::wire::RoleMessage;
use crate::wire::role::{Ask, Beat, DeclineReason, Declined, Lost, Present, SeatHint, Seats, Show};

/// Verified seats of a region that are remembered: two elections may overlap, and seats that are
/// lent at once stand beside them.
const SEATS_KNOWN_MAX: usize = 3 * RANKS_MAX;

/// Beats that may be missed.
const MISSED: u32 = 3;

/// Fellows that watch a seat.
const WATCHERS: usize = 1;

/// How long a seat may take to answer when it is asked whether it is there.
const CHECK: Duration = Duration::from_secs(2);

/// Epochs for which a leaf goes on using a home whose mandate has ended: with the two of the
/// mandate, a term.
const GRACE_EPOCHS: u32 = 4;

/// Beats, of five seconds each, after which all fellows are told the load.
const BEATS_TO_ALL: u32 = 24;

/// Beats after which it is looked at whether our load is above theirs: those of a minute.
const BEATS_TO_LOOK: u32 = 12;

/// Seats that are named to who is no seat: those of which it needs one or two.
const NAMED_MAX: usize = 4;

/// Pause between two answers of a seat to one peer that are the same.
const ANSWER_PAUSE: Duration = Duration::from_secs(30);

/// When who comes to a full seat may come again, and half as much again at random.
const RETRY_AFTER_S: u16 = 60;

/// What is kept of a mandate that was verified: most of its bytes are votes, and every node has
/// homes.
#[derive(Debug)]
pub(super) struct Verified {
    term: Term,
    /// Of the term: it takes two hashes, and ranks are looked at often.
    score: f64,
    /// Of the mandate's bytes.
    digest: u64,
}

impl Verified {
    fn new(mandate: &Mandate) -> Self {
        let (term, digest) = (mandate.term().clone(), name_of(mandate.bytes()));
        Self { score: term.score(), term, digest }
    }

    pub(super) fn term(&self) -> &Term {
        &self.term
    }

    fn is(&self, mandate: &Bytes) -> bool {
        self.digest == name_of(mandate)
    }
}

fn name_of(mandate: &Bytes) -> u64 {
    draw("baran 1 mandate that was verified", &[mandate])
}

/// A seat whose mandate was verified.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) mandate: Verified,
    pub(super) contact: PeerAddr,
    pub(super) load: u8,
    /// When it last said anything.
    heard: Instant,
    /// It is not there.
    pub(super) is_lost: bool,
    /// It was shown our mandate.
    knows_us: bool,
    /// Times in a row that it could not be had.
    pub(super) failures: u8,
}

impl Roles {
    /// Our mandate that is in force.
    pub(super) fn current(&self, now: Instant) -> Option<&Mandate> {
        let unix = self.unix(now)?;
        let in_force = self
            .mandates
            .iter()
            .filter(|own| own.begins(self.epochs) <= unix && own.expires() > unix);
        in_force.min_by_key(|own| (own.term().kind, Reverse(own.expires())))
    }

    /// The terms in force of our region in the order of their ranks, ours among them, those of
    /// seats that are lost left out.
    fn ranks(&self) -> Vec<&Term> {
        let ours = self.mandates.first().filter(|_| self.told_seat.is_some()).map(Mandate::term);
        let others = self.seats.values().filter(|seat| !seat.is_lost);
        let others = others.map(|seat| (seat.mandate.term(), seat.mandate.score));
        let mut terms: Vec<_> = others.chain(ours.map(|term| (term, term.score()))).collect();
        // Seats that are lent at once come after those that were elected.
        terms.sort_by(|(a, x), (b, y)| a.kind.cmp(&b.kind).then(y.total_cmp(x)));
        terms.into_iter().map(|(term, _)| term).collect()
    }

    /// Our place among them, from 0.
    pub(super) fn rank(&self) -> Option<usize> {
        self.ranks().iter().position(|term| term.holder == self.id)
    }

    /// Seats that are there or said to be, ours among them. What was said before a loss does not
    /// count: whoever said it may know no more than we did.
    pub(super) fn living(&self, now: Instant) -> usize {
        let is_there = |id: &NodeId| match self.told_seat {
            Some(_) => self.seats.get(id).is_some_and(|seat| !seat.is_lost),
            None => self.homes.contains(id),
        };
        let known = self.seats.keys().filter(|id| is_there(id)).count();
        let is_said = |hint: &Hint| self.is_fresh(now, hint) && hint.is_since(self.doubted);
        let said = self.hints.iter().filter(|(id, hint)| !is_there(id) && is_said(hint));
        let counted = known + said.count() + usize::from(self.told_seat.is_some());
        // A leaf is named some of those that there are.
        let told = self.said_living.filter(|(at, _)| {
            self.told_seat.is_none() && *at >= self.doubted && now - *at < self.epochs.len()
        });
        counted.max(told.map_or(0, |(_, known)| known))
    }

    /// Elected seats that are there, as one who has a seat knows them.
    pub(super) fn living_elected(&self) -> usize {
        self.ranks().iter().filter(|term| term.kind == Kind::Ordinary).count()
    }

    /// Looks again at everything that follows from the calendar and from who is there.
    pub(super) fn review(&mut self, now: Instant) {
        let Some(unix) = self.unix(now) else { return };
        let key = self.key;
        self.mandates.retain(|own| own.expires() > unix && own.term().region.contains(&key));
        let serves = self.serves;
        let in_force = self.current(now).filter(|_| serves).cloned();
        if let Some(current) = &in_force {
            // The one in force comes first, and what it replaces goes.
            self.mandates.retain(|own| own.begins(self.epochs) > unix);
            self.mandates.insert(0, current.clone());
        }
        let over: Vec<_> = self
            .seats
            .iter()
            .filter(|(_, seat)| {
                let mandate = &seat.mandate;
                self.good_until(mandate) <= unix || !mandate.term().region.contains(&key)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.forget_seat(now, id);
        }
        self.tell_seat(now, in_force.as_ref());
        self.tell_seats();
        self.persist(now);
        let ends = self.mandates.iter().map(Mandate::expires);
        let ends = ends.chain(self.seats.values().map(|seat| self.good_until(&seat.mandate))).min();
        if let Some(ends) = ends {
            let at = self.instant_of(now, ends).max(now + Duration::from_secs(1));
            self.timers.set(Timer::Mandate, at);
        }
        if in_force.is_some() {
            self.timers.set_if_idle(Timer::Beat, now + self.config.beat);
        }
        if in_force.as_ref().is_some_and(|own| own.term().kind == Kind::Acting) {
            // Renewed in time, if it is still needed.
            self.timers.set_if_idle(Timer::Acting, now + self.config.acting / 2);
        }
    }

    /// Until when a seat is good without another mandate. A home that serves was elected, and to
    /// look at its mandates as often as they are made costs more than all the rest; when it has
    /// none left it says so. A seat looks at those of its fellows, who show them.
    pub(super) fn good_until(&self, mandate: &Verified) -> UnixTime {
        let epochs = match mandate.term().kind {
            _ if self.told_seat.is_some() => 0,
            Kind::Ordinary => GRACE_EPOCHS,
            Kind::Acting => 1,
        };
        UnixTime::from_secs(mandate.term.expires_s) + self.epochs.len() * epochs
    }

    fn tell_seat(&mut self, now: Instant, in_force: Option<&Mandate>) {
        let (had, active) = (self.told_seat, self.plan().map_or(0, |plan| plan.active));
        // Ours is among the ranks as soon as we have one.
        self.told_seat = in_force.map(|own| (own.term().region, false));
        if let Some((region, _)) = self.told_seat {
            let is_active = self.rank().is_some_and(|rank| rank < active);
            self.told_seat = Some((region, is_active));
        }
        if self.told_seat != had {
            self.outputs.push_back(Output::Seat(self.told_seat));
            self.event(Event::Seat(self.told_seat));
        }
        if had.is_some() && self.told_seat.is_none() {
            let fellows: Vec<_> = self.seats.keys().copied().collect();
            for id in fellows {
                self.keep(id, self.homes.contains(&id));
            }
            self.step_down();
        }
        if had.is_some() != self.told_seat.is_some() {
            self.look_for_seats(now);
        }
        let ends = in_force.map_or(0, |own| own.term().expires_s);
        if core::mem::replace(&mut self.greeted, ends) != ends && ends > 0 {
            self.greet(now);
        }
    }

    fn tell_seats(&mut self) {
        let there = self.seats.iter().filter(|(_, seat)| !seat.is_lost);
        let ids: Vec<_> = there.clone().map(|(id, _)| *id).collect();
        if ids != self.told_seats {
            let contacts = there.map(|(_, seat)| seat.contact.clone()).take(RANKS_MAX).collect();
            self.told_seats = ids;
            self.outputs.push_back(Output::Seats(self.region(), contacts));
        }
    }

    /// Those whom we may have served are to look for others.
    fn step_down(&mut self) {
        let region = self.region();
        let guests: Vec<_> = self.linked.keys().copied().collect();
        for guest in guests.into_iter().filter(|id| region.contains(&Key::of_node(*id))) {
            let declined = Declined { reason: DeclineReason::NotMine, retry_after_s: 0 };
            self.send(guest, RoleMessage::Declined(declined));
        }
    }

    /// We have a mandate that our fellows are to know.
    fn greet(&mut self, now: Instant) {
        let known = self.seats.iter().map(|(id, seat)| (*id, seat.contact.clone()));
        let is_new = |hint: &Hint| self.is_fresh(now, hint) && hint.is_since(self.doubted);
        let said = self.hints.iter().filter(|(_, hint)| is_new(hint));
        let said = said.map(|(id, hint)| (*id, hint.contact.clone()));
        let fellows: BTreeMap<_, _> = said.chain(known).collect();
        for (id, contact) in &fellows {
            self.show_to(contact);
            if self.seats.contains_key(id) {
                self.keep(*id, true);
            }
        }
    }

    /// Shows our mandate to somebody who is to know that we are its fellow.
    pub(super) fn show_to(&mut self, peer: &PeerAddr) {
        let Some(own) = self.mandates.first().filter(|_| self.told_seat.is_some()) else { return };
        let present = Present { mandate: own.bytes().clone(), load: self.told_load() };
        if let Some(seat) = self.seats.get_mut(&peer.id) {
            seat.knows_us = true;
        }
        self.tell(peer, RoleMessage::Present(present));
    }

    pub(super) fn handle_show(&mut self, now: Instant, from: NodeId) {
        let Some(own) = self.current(now).filter(|_| self.told_seat.is_some()) else {
            let declined = Declined { reason: DeclineReason::NotMine, retry_after_s: 0 };
            return self.send(from, RoleMessage::Declined(declined));
        };
        let mandate = own.bytes().clone();
        if self.load == FULL && !self.seats.contains_key(&from) {
            let jitter = u16::try_from(self.pick(usize::from(RETRY_AFTER_S) / 2)).unwrap_or(0);
            let retry_after_s = RETRY_AFTER_S + jitter;
            let declined = Declined { reason: DeclineReason::Full, retry_after_s };
            self.send(from, RoleMessage::Declined(declined));
            // Whom else it may ask.
            return self.answer(now, from, &Key::of_node(from));
        }
        if let Some(linked) = self.linked.get_mut(&from) {
            linked.is_guest = true;
        }
        self.send(from, RoleMessage::Present(Present { mandate, load: self.told_load() }));
    }

    pub(super) fn handle_present(&mut self, now: Instant, from: NodeId, present: &Present) {
        let Some(contact) = self.contact_of(from) else { return };
        if let Some(seat) = self.seats.get_mut(&from)
            && seat.mandate.is(&present.mandate)
        {
            (seat.heard, seat.is_lost, seat.failures) = (now, false, 0);
            (seat.load, seat.contact) = (present.load, contact);
        } else {
            match self.verify(now, &present.mandate) {
                Ok(mandate) if self.is_ours(from, &mandate) => {
                    self.insert_seat(now, &mandate, contact, present.load);
                }
                Ok(_) => {}
                Err(why) => self.event(Event::Void { peer: from, why }),
            }
        }
        self.review(now);
        self.present_done(now, from);
        self.befriend(from);
    }

    /// One seat has seen another's mandate: it shows its own, and they watch over each other.
    fn befriend(&mut self, id: NodeId) {
        let Some(seat) = self.seats.get(&id).filter(|_| self.told_seat.is_some()) else { return };
        let (contact, knows_us) = (seat.contact.clone(), seat.knows_us);
        self.keep(id, true);
        if !knows_us {
            self.show_to(&contact);
        }
    }

    /// Whether a mandate is the sender's, for our region, and was not removed.
    fn is_ours(&self, from: NodeId, mandate: &Mandate) -> bool {
        let term = mandate.term();
        term.holder == from && term.region.contains(&self.key) && !self.is_removed(term)
    }

    fn insert_seat(&mut self, now: Instant, mandate: &Mandate, contact: PeerAddr, load: u8) {
        let id = contact.id;
        if self.seats.len() >= SEATS_KNOWN_MAX && !self.seats.contains_key(&id) {
            return;
        }
        let knows_us = self.seats.get(&id).is_some_and(|seat| seat.knows_us);
        let mandate = Verified::new(mandate);
        let (heard, is_lost, failures) = (now, false, 0);
        let seat = Seat { mandate, contact, load, heard, is_lost, knows_us, failures };
        self.seats.insert(id, Box::new(seat));
    }

    /// Forgets a seat.
    pub(super) fn forget_seat(&mut self, now: Instant, id: NodeId) {
        self.seats.remove(&id);
        self.timers.stop(Timer::Check(id));
        self.drop_home(now, id);
        self.keep(id, false);
    }

    pub(super) fn handle_ask(&mut self, now: Instant, from: NodeId, ask: &Ask) {
        self.answer(now, from, &ask.key);
    }

    /// Names seats of the region of a key: all to a seat, the highest ranks first, and some to
    /// others, those that have capacity left more often.
    pub(super) fn answer(&mut self, now: Instant, to: NodeId, key: &Key) {
        let region = Region::of(key, self.depth.bits());
        let active = self.plan().map_or(0, |plan| plan.active);
        let mut named: FlatMap<NodeId, (Term, PeerAddr, u8)> = FlatMap::new();
        for (contact, term) in self.elected(now, region) {
            named.insert(term.holder, (term, contact, 0));
        }
        if region == self.region() {
            for (id, seat) in self.seats.iter() {
                let term = seat.mandate.term().clone();
                named.insert(*id, (term, seat.contact.clone(), seat.load));
                if seat.is_lost {
                    named.remove(id);
                }
            }
            if let Some(own) = self.mandates.first().filter(|_| self.told_seat.is_some()) {
                // Who asks knows where we are.
                let contact = PeerAddr { id: self.id, addrs: Vec::new(), homes: Vec::new() };
                named.insert(self.id, (own.term().clone(), contact, self.told_load()));
            }
        }
        let is_seat = named.remove(&to).is_some();
        let digest = named.keys().fold(0u64, |sum, id| sum.wrapping_add(Key::of_node(*id).head()));
        // Others may name some that have their votes in a moment, and are asked again.
        let is_limited = self.told_seat.is_some();
        if let Some(linked) = self.linked.get_mut(&to).filter(|_| is_limited) {
            let is_told = |(at, told)| told == digest && now - at < ANSWER_PAUSE;
            if linked.answered.is_some_and(is_told) {
                return;
            }
            linked.answered = Some((now, digest));
        }
        let mut named: Vec<_> = named.values().collect();
        // Scores are above zero, so their bits are in the same order.
        named.sort_by_cached_key(|(term, ..)| (term.kind, Reverse(term.score().to_bits())));
        let hint = |(at, (term, contact, load)): (usize, &&(Term, PeerAddr, u8))| SeatHint {
            contact: contact.clone(),
            load: *load,
            is_active: at < active,
            capacity_log2: term.capacity_log2,
        };
        let mut seats: Vec<_> = named.iter().enumerate().map(hint).take(RANKS_MAX).collect();
        // Of those that we elected some may be gone; those lent at once stand in for others.
        let is_ours = self.told_seat.is_some() && region == self.region();
        let known = if is_ours { self.living_elected() } else { named.len() };
        let known = u8::try_from(known).unwrap_or(u8::MAX);
        if !is_seat {
            seats = self.draw_some(seats);
        }
        let removals = self.removals_of(region);
        for removal in removals {
            self.send(to, RoleMessage::Removal(removal));
        }
        self.send(to, RoleMessage::Seats(Seats { bits: self.depth.bits(), seats, known }));
    }

    /// Some of the seats that might be named.
    fn draw_some(&mut self, mut seats: Vec<SeatHint>) -> Vec<SeatHint> {
        let mut drawn = Vec::with_capacity(NAMED_MAX);
        while drawn.len() < NAMED_MAX {
            let weight = |seat: &SeatHint| Self::naming_weight(seat.load, seat.capacity_log2);
            let weighted: Vec<_> =
                seats.iter().map(|seat| (seat.contact.id, weight(seat))).collect();
            let chosen = self.draw_by(&weighted);
            let Some(at) = seats.iter().position(|seat| Some(seat.contact.id) == chosen) else {
                break;
            };
            drawn.push(seats.swap_remove(at));
        }
        drawn
    }

    /// Tells the fellows that watch us that we are there, and looks for those that we watch.
    pub(super) fn beat(&mut self, now: Instant) {
        if self.told_seat.is_none() {
            return;
        }
        self.timers.set(Timer::Beat, now + self.config.beat);
        self.beats = self.beats.wrapping_add(1);
        if self.beats.is_multiple_of(BEATS_TO_LOOK) {
            self.even_out(now);
        }
        let beat = Beat { load: self.told_load(), asks: false };
        let told = if self.beats.is_multiple_of(BEATS_TO_ALL) {
            self.seats.keys().copied().collect()
        } else {
            self.followers(self.id)
        };
        for fellow in told {
            self.send(fellow, RoleMessage::Beat(beat.clone()));
        }
        let silence = self.config.beat * MISSED;
        let there = self.seats.iter().filter(|(_, seat)| !seat.is_lost);
        let silent = there.filter(|(_, seat)| now - seat.heard > silence).map(|(id, _)| *id);
        let watched: Vec<_> = silent.filter(|seat| self.watches(*seat)).collect();
        for seat in watched {
            // It may count others than us among those that follow it.
            self.check(now, seat);
        }
    }

    /// Whether it falls to us to notice that a fellow is gone.
    fn watches(&self, seat: NodeId) -> bool {
        self.told_seat.is_some() && self.followers(seat).contains(&self.id)
    }

    /// A seat that was asked whether it is there has not answered.
    pub(super) fn check_late(&mut self, now: Instant, seat: NodeId) {
        let is_watched = self.watches(seat);
        self.lose(now, seat);
        if is_watched {
            let fellows: Vec<_> = self.seats.keys().copied().filter(|id| *id != seat).collect();
            for fellow in fellows {
                self.send(fellow, RoleMessage::Lost(Lost { seat }));
            }
        }
    }

    /// The seats that follow one in the order of ids: they watch it.
    fn followers(&self, id: NodeId) -> Vec<NodeId> {
        let there = self.seats.iter().filter(|(_, seat)| !seat.is_lost).map(|(id, _)| *id);
        let mut ids: Vec<_> = there.chain([self.id]).filter(|other| *other != id).collect();
        ids.sort_unstable_by_key(|other| (*other < id, *other));
        ids.truncate(WATCHERS);
        ids
    }

    pub(super) fn handle_beat(&mut self, now: Instant, from: NodeId, beat: &Beat) {
        if beat.asks && self.told_seat.is_some() {
            let beat = Beat { load: self.told_load(), asks: false };
            self.send(from, RoleMessage::Beat(beat));
        }
        self.heard(now, from, Some(beat.load));
    }

    /// A seat is there.
    fn heard(&mut self, now: Instant, id: NodeId, load: Option<u8>) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        (seat.heard, seat.failures) = (now, 0);
        seat.load = load.unwrap_or(seat.load);
        self.timers.stop(Timer::Check(id));
        if core::mem::take(&mut seat.is_lost) {
            self.review(now);
        }
    }

    /// Asks a seat that somebody does not hear whether it is there, on our own link.
    pub(super) fn check(&mut self, now: Instant, id: NodeId) {
        let is_doubted = self.seats.get(&id).is_some_and(|seat| !seat.is_lost);
        if is_doubted && !self.timers.is_set(Timer::Check(id)) {
            if self.linked.contains_key(&id) {
                self.send(id, RoleMessage::Beat(Beat { load: self.told_load(), asks: true }));
                self.timers.set(Timer::Check(id), now + CHECK);
            } else if self.told_seat.is_some() {
                self.check_late(now, id);
            }
        }
    }

    /// A seat is not there: those behind it move up.
    pub(super) fn lose(&mut self, now: Instant, id: NodeId) {
        if let Some(seat) = self.seats.get_mut(&id).filter(|seat| !seat.is_lost) {
            seat.is_lost = true;
            (self.doubted, self.seats_named) = (now, None);
            self.hints.remove(&id);
            self.drop_home(now, id);
            self.review(now);
            self.look_for_seats(now);
        }
    }

    /// A link to a seat stands.
    pub(super) fn seat_up(&mut self, now: Instant, id: NodeId) {
        if self.seats.get(&id).is_some_and(|seat| seat.is_lost) {
            // It may have come back with its mandate, or without.
            self.send(id, RoleMessage::Show(Show {}));
        }
        self.heard(now, id, None);
    }
}
