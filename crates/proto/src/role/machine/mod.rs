//! The machine of roles: stands for a seat, votes for others, holds a seat, and finds those that
//! serve this node.
//!
//! A part of the [node](crate::node), as the index is: the node reaches peers for it, carries its
//! messages, and looks up the nodes nearest to a key. A node whose puzzle is not solved answers
//! and does nothing of its own.
//!
//! - `apply`: standing for a seat, by vote of an epoch ahead or at once;
//! - `elect`: the ledger of an elector;
//! - `seat`: what a seat owes to its fellows, and who is one;
//! - `homes`: the seats that this node uses;
//! - `hints`: who is said to have a seat, and whom of them to ask;
//! - `balance`: loads that follow capacities;
//! - `disk`: what survives a restart;
//! - `alarm`: noticing that seats are gone;
//! - `reports`: removing one that does not serve;
//! - `linked`: the peers that all of these talk to.
//!
//! Invariants: every table is bounded; a seat is used only after its mandate was verified.

mod alarm;
mod api;
mod apply;
mod balance;
mod disk;
mod elect;
mod hints;
mod homes;
mod known;
mod linked;
mod reports;
mod seat;

use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

pub use self::api::*;
use self::apply::Candidacy;
pub use self::disk::encode_state;
use self::elect::{Poll, PollId};
use self::hints::Hint;
use self::homes::Move;
use self::known::Puzzles;
use self::linked::Linked;
use self::reports::Case;
use self::seat::Seat;
use super::mandate::{Context, Mandate, MandateError};
use super::report::{Charge, Removal};
use super::{Depth, Epochs, NetPrefix, Plan, Region};
use crate::flat::FlatMap;
use crate::id::{NodeId, SecretKey};
use crate::invite::PeerAddr;
use crate::key::Key;
use crate::machine;
use crate::time::{Instant, UnixTime};
use crate::timer::Timers;
use crate::wire::RoleMessage;

/// Searches for nodes near a key at a time.
const SEARCHES_MAX: usize = 16;

/// What waits for its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The next epoch of our region begins.
    Epoch,
    /// Stand for a seat of the next epoch.
    Apply,
    /// Look at those who applied.
    Poll(PollId),
    /// A peer that was asked to echo is too late.
    Echo(NodeId),
    /// Tell our fellows that we are there, and see whether they are.
    Beat,
    /// A seat that was asked whether it is there has not answered.
    Check(NodeId),
    /// Look after our homes.
    Homes,
    /// Stand for a seat at once.
    Acting,
    /// A mandate of ours begins or ends.
    Mandate,
}

/// What a search for nodes near a key is for.
#[derive(Debug)]
enum Search {
    /// Electors of what we stand for.
    Electors(Box<Candidacy>),
    /// Electors of our region, who know whom they elected.
    Witnesses,
}

/// Roles. See the module's documentation.
#[derive(Debug)]
pub(crate) struct Roles {
    id: NodeId,
    key: Key,
    secret: SecretKey,
    network: String,
    config: RoleConfig,
    epochs: Epochs,
    rng: ChaCha8Rng,
    calendar: Option<(Instant, UnixTime)>,
    up_since: Option<Instant>,
    nonce: Option<u64>,
    serves: bool,
    nodes: Option<f64>,
    depth: Depth,
    net: Option<NetPrefix>,
    load: u8,
    linked: FlatMap<NodeId, Box<Linked>>,
    /// Messages for peers that are being reached.
    waiting: FlatMap<NodeId, Vec<RoleMessage>>,
    searches: FlatMap<u64, Search>,
    next_search: u64,
    puzzles: Puzzles,
    /// What we stand for: at most one ordinary seat and one at once.
    candidacies: Vec<Candidacy>,
    /// Powers of two by which more nodes stand than are wanted, because too few seats are filled.
    eagerness: u32,
    /// Epochs in which we do not stand while seats are filled.
    rest: u32,
    /// Most seats that anybody named who should know, since we thought of standing last.
    seats_named: Option<usize>,
    /// What electors measured of us: no more is claimed.
    measured_log2: Option<u8>,
    polls: FlatMap<PollId, Poll>,
    next_poll: u64,
    votes_given: u64,
    /// Our mandates: the one in force and the next.
    mandates: Vec<Mandate>,
    /// Those of the last run, until they are verified.
    stored: Vec<Bytes>,
    /// A hash of what is on disk.
    persisted: u64,
    told_seat: Option<(Region, bool)>,
    told_seats: Vec<NodeId>,
    /// When the mandate ends that our fellows were shown.
    greeted: u64,
    /// Verified seats of our region.
    seats: FlatMap<NodeId, Box<Seat>>,
    /// Those of them that serve us.
    homes: BTreeSet<NodeId>,
    kept: BTreeSet<NodeId>,
    /// Who is said to have a seat.
    hints: FlatMap<NodeId, Hint>,
    /// When a seat was lost last: what was said before is doubtful.
    doubted: Instant,
    /// How many seats somebody who should know said there are, and when.
    said_living: Option<(Instant, usize)>,
    /// Pause before seats are asked for again, and when that is.
    ask_pause: Duration,
    ask_after: Instant,
    /// Times that seats were asked for, and too few were named.
    asked: u32,
    acting_tries: u32,
    /// The last home that wanted to serve fewer.
    moved: Option<Move>,
    /// When others were last told that a seat is lost.
    alarms: FlatMap<NodeId, Instant>,
    cases: FlatMap<Charge, Case>,
    removed: VecDeque<Removal>,
    /// Beats since we have a seat.
    beats: u32,
    timers: Timers<Timer>,
    outputs: VecDeque<Output>,
}

impl Roles {
    pub(crate) fn new(
        secret: SecretKey,
        network: String,
        config: RoleConfig,
        seed: [u8; 32],
    ) -> Self {
        let id = secret.id();
        Self {
            id,
            key: Key::of_node(id),
            secret,
            network,
            epochs: Epochs::new(config.epoch),
            rng: ChaCha8Rng::from_seed(seed),
            calendar: None,
            up_since: None,
            nonce: None,
            serves: config.serves,
            nodes: None,
            depth: Depth::default(),
            net: None,
            load: 0,
            linked: FlatMap::new(),
            waiting: FlatMap::new(),
            searches: FlatMap::new(),
            next_search: 0,
            puzzles: Puzzles::default(),
            candidacies: Vec::new(),
            eagerness: 0,
            rest: 0,
            seats_named: None,
            measured_log2: None,
            polls: FlatMap::new(),
            next_poll: 0,
            votes_given: 0,
            mandates: Vec::new(),
            stored: Vec::new(),
            persisted: 0,
            told_seat: None,
            told_seats: Vec::new(),
            greeted: 0,
            seats: FlatMap::new(),
            homes: BTreeSet::new(),
            kept: BTreeSet::new(),
            hints: FlatMap::new(),
            doubted: Instant::ZERO,
            said_living: None,
            ask_pause: config.ask,
            ask_after: Instant::ZERO,
            asked: 0,
            acting_tries: 0,
            moved: None,
            beats: 0,
            alarms: FlatMap::new(),
            cases: FlatMap::new(),
            removed: VecDeque::new(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
            config,
        }
    }

    /// The calendar was looked at.
    pub(crate) fn handle_clock(&mut self, now: Instant, unix: UnixTime) {
        let is_first = self.calendar.replace((now, unix)).is_none();
        self.up_since.get_or_insert(now);
        self.schedule_epoch(now);
        // A driver tells the calendar every few seconds.
        if is_first {
            self.begin(now);
        }
    }

    /// Our puzzle is solved.
    pub(crate) fn set_nonce(&mut self, now: Instant, nonce: u64) {
        self.nonce = Some(nonce);
        self.puzzles.learn(self.id, nonce);
        self.begin(now);
    }

    /// Whether the owner lends this node to others.
    pub(crate) fn set_serving(&mut self, now: Instant, serves: bool) {
        self.serves = serves;
        if !serves {
            self.candidacies.clear();
        }
        self.review(now);
    }

    /// How much of what the owner allows is taken.
    pub(crate) fn set_load(&mut self, load: u8) {
        self.load = load;
    }

    /// The network that we are in, if that is on the internet.
    pub(crate) fn set_net(&mut self, net: Option<NetPrefix>) {
        self.net = net;
    }

    /// How many nodes there are.
    pub(crate) fn set_size(&mut self, now: Instant, nodes: Option<f64>) {
        let Some(nodes) = nodes else { return };
        let is_first = self.nodes.replace(nodes).is_none();
        if self.depth.update(nodes) {
            self.schedule_epoch(now);
            self.review(now);
        }
        if is_first {
            self.begin(now);
        }
    }

    /// Takes regions as a peer has them, if that may be right and nothing depends on ours yet:
    /// whoever cuts the key space as its neighbours do is of use to them.
    fn follow(&mut self, now: Instant, named: Depth) {
        let is_free = self.homes.is_empty() && self.mandates.is_empty();
        let is_likely = self.nodes.is_none_or(|nodes| named.fits(nodes));
        if is_free && is_likely && named.bits() != self.depth.bits() {
            self.depth = named;
            self.schedule_epoch(now);
            self.review(now);
        }
    }

    /// Begins to take part as soon as everything is known that it takes.
    fn begin(&mut self, now: Instant) {
        if self.is_ready() {
            self.resume(now);
            self.timers.set_if_idle(Timer::Homes, now + self.config.ask);
            self.timers.set_if_idle(Timer::Apply, now + self.config.uptime_min);
        }
    }

    /// Whether this node takes part.
    fn is_ready(&self) -> bool {
        self.nonce.is_some() && self.calendar.is_some() && self.plan().is_some()
    }

    /// How many electors and seats there are; `None` where nobody is elected.
    fn plan(&self) -> Option<Plan> {
        self.nodes.and_then(Plan::of)
    }

    /// The region that our key is in.
    fn region(&self) -> Region {
        Region::of(&self.key, self.depth.bits())
    }

    fn unix(&self, now: Instant) -> Option<UnixTime> {
        self.calendar.map(|(at, unix)| unix + (now - at))
    }

    /// The moment at which the calendar shows `unix`, never before `now`.
    fn instant_of(&self, now: Instant, unix: UnixTime) -> Instant {
        let Some((at, then)) = self.calendar else { return now };
        (at + (unix - then)).max(now)
    }

    /// The epoch of our region.
    fn epoch(&self, now: Instant) -> Option<u64> {
        Some(self.epochs.at(self.region(), self.unix(now)?))
    }

    fn schedule_epoch(&mut self, now: Instant) {
        let Some(epoch) = self.epoch(now) else { return };
        let next = self.epochs.start(self.region(), epoch + 1);
        // A second is what the calendar is told in.
        let at = self.instant_of(now, next).max(now + Duration::from_secs(1));
        self.timers.set(Timer::Epoch, at);
    }

    /// An epoch of our region has begun.
    fn epoch_begins(&mut self, now: Instant) {
        self.schedule_epoch(now);
        self.take_office(now);
        self.drop_old_polls(now);
        self.review(now);
        self.ask_whether_to_stand(now);
        let pause = self.draw(self.config.applying);
        self.timers.set(Timer::Apply, now + pause);
        self.timers.set_no_later(Timer::Homes, now + pause);
    }

    /// The nodes nearest to a key.
    pub(crate) fn nearest(&mut self, now: Instant, tag: u64, nodes: &[PeerAddr]) {
        match self.searches.remove(&tag) {
            Some(Search::Electors(candidacy)) => self.ask_electors(now, *candidacy, nodes),
            Some(Search::Witnesses) => self.ask_witnesses(nodes),
            None => {}
        }
    }

    pub(crate) fn handle_message(&mut self, now: Instant, from: NodeId, message: RoleMessage) {
        let Some(linked) = self.linked.get_mut(&from) else { return };
        let is_costly = matches!(
            message,
            RoleMessage::Present(_)
                | RoleMessage::Apply(_)
                | RoleMessage::Report(_)
                | RoleMessage::Removal(_)
        );
        if is_costly && !linked.costly.try_take(now, 1) {
            return;
        }
        match message {
            RoleMessage::Ask(ask) => self.handle_ask(now, from, &ask),
            RoleMessage::Seats(seats) => self.handle_seats(now, from, seats),
            RoleMessage::Show(_) => self.handle_show(now, from),
            RoleMessage::Present(present) => self.handle_present(now, from, &present),
            RoleMessage::Apply(apply) => self.handle_apply(now, from, &apply),
            RoleMessage::Vote(ballot) => self.handle_vote(now, from, ballot),
            RoleMessage::Declined(declined) => self.handle_declined(now, from, &declined),
            RoleMessage::Beat(beat) => self.handle_beat(now, from, &beat),
            RoleMessage::Lost(lost) => self.handle_lost(now, lost.seat),
            RoleMessage::Report(report) => self.handle_report(now, from, &report),
            RoleMessage::Removal(removal) => self.handle_removal(now, &removal),
            RoleMessage::Echo(echo) => {
                self.outputs.push_back(Output::Send(from, RoleMessage::Echoed(echo)));
            }
            RoleMessage::Echoed(echo) => self.handle_echoed(now, from, &echo),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.expire(now) {
            match timer {
                Timer::Epoch => self.epoch_begins(now),
                Timer::Apply => self.apply(now),
                Timer::Poll(poll) => self.advance_poll(now, poll),
                Timer::Echo(peer) => self.echo_late(now, peer),
                Timer::Beat => self.beat(now),
                Timer::Check(seat) => self.check_late(now, seat),
                Timer::Homes => self.settle_homes(now),
                Timer::Acting => self.apply_acting(now),
                Timer::Mandate => self.review(now),
            }
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        machine::pop(&mut self.outputs)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether a link to this peer is to last for the sake of roles.
    pub(crate) fn is_kept(&self, id: NodeId) -> bool {
        self.kept.contains(&id)
    }

    /// Whether a peer showed a mandate for our region that holds.
    pub(crate) fn is_seat(&self, id: NodeId) -> bool {
        self.seats.contains_key(&id)
    }

    /// Our seat: of which region, and whether it serves.
    pub(crate) fn seat(&self) -> Option<(Region, bool)> {
        self.told_seat
    }

    pub(crate) fn stats(&self) -> RoleStats {
        let mandate = self.mandates.first().filter(|_| self.told_seat.is_some());
        let votes = mandate.map(Mandate::votes).unwrap_or_default();
        RoleStats {
            seat: self.told_seat,
            votes: votes.len(),
            measured_log2: votes.iter().filter_map(|vote| vote.measured_log2).collect(),
            expires_s: mandate.map_or(0, |mandate| mandate.term().expires_s),
            is_acting: mandate.is_some_and(|mandate| mandate.term().kind == super::Kind::Acting),
            rank: mandate.and_then(|_| self.rank()),
            homes: self.homes.iter().copied().collect(),
            seats_known: self.seats.values().filter(|seat| !seat.is_lost).count(),
            load: self.told_load(),
            bits: self.depth.bits(),
            votes_given: self.votes_given,
            is_solved: self.nonce.is_some(),
        }
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn search(&mut self, key: Key, count: usize, search: Search) {
        if self.searches.len() >= SEARCHES_MAX {
            return;
        }
        let tag = self.next_search;
        self.next_search += 1;
        self.searches.insert(tag, search);
        self.outputs.push_back(Output::Nearest { tag, key, count });
    }

    /// A duration from nothing up to `max`.
    fn draw(&mut self, max: Duration) -> Duration {
        max * (self.rng.next_u32() % 1024) / 1024
    }

    /// One of so many at random, of at least one.
    fn pick(&mut self, count: usize) -> usize {
        let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
        (self.rng.next_u32() % count) as usize
    }

    /// Verifies a mandate as anybody does.
    fn verify(&mut self, now: Instant, bytes: &Bytes) -> Result<Mandate, MandateError> {
        let (Some(unix), Some(nodes)) = (self.unix(now), self.nodes) else {
            return Err(MandateError::FromTheFuture);
        };
        let Self { puzzles, linked, network, config, .. } = self;
        let mut context = Context {
            network,
            now: unix,
            skew: config.skew,
            epochs: self.epochs,
            acting: config.acting,
            nodes,
            verify: config.verify,
            is_solved: &mut |id, nonce| puzzles.is_solved(network, config.is_solved, id, nonce),
            net_of: &|id| linked.get(&id).and_then(|linked| linked.net),
        };
        Mandate::verify(bytes, &mut context)
    }

    fn is_solved(&mut self, id: NodeId, nonce: u64) -> bool {
        self.puzzles.is_solved(&self.network, self.config.is_solved, id, nonce)
    }
}

#[cfg(test)]
mod tests;
