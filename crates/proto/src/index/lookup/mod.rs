//! One iterative look-up: asks peers nearer and nearer to a key until those around it have
//! answered (Maymounkov and Mazières, *Kademlia*, 2002, §2.3).
//!
//! Pure state: the caller says who answered what, and is told whom to ask next. Nothing is said
//! here of messages, links or records. What is ours:
//!
//! - *Ten in flight and no waiting.* Time-outs follow from round-trip times. A late peer frees its
//!   slot and the next is asked in its place; it is waited for only when nothing else is left to
//!   do, and its answer counts whenever it comes. Peers that failed the last time are asked besides
//!   the others, in slots of their own, and are not waited for.
//! - *Paths* (Baumgart and Mies, *S/Kademlia*, 2007): the peers to start with are dealt to a few
//!   paths, what a peer names belongs to its path, and slots go round among the paths. Who takes
//!   over one path has no more than its share of the slots.
//! - *Regions* (design §6): a look-up ends when the whole region around the key has answered, in
//!   which as many nodes are expected as there are copies of a record, not when the nearest have.
//!   Sybils that crowd the key are asked besides the honest nodes of the region, not in their
//!   place: see the module `choose`.
//! - *Seats* (design §6): who keeps a whole region is asked before others, and mostly nobody else
//!   has to be: see the module `seats`. Where nodes are looked up, only those are that this node is
//!   linked to, and whom they serve need not be asked whether it is there.
//! - *A peer's word is only a hint.* What is named twice with different addresses keeps both, so
//!   that the first liar does not decide where an honest node is looked for; a node to be reached
//!   must be named by two peers, or by one that is linked to it.
//!
//! Invariants: candidates, their names and slots are bounded; a peer is asked at most twice, the
//! second time only at another address; whatever is answered, a look-up ends.

mod api;
mod choose;
mod known;
mod seats;

use core::time::Duration;
use std::collections::BTreeMap;

pub use self::api::{Ask, Candidate, LookupConfig, Purpose};
use self::known::{Known, State};
pub use self::seats::Seat;
use self::seats::Seated;
use super::table::subnets;
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::key::{Distance, Key};
use crate::time::Instant;
use crate::wire::index::CONTACTS_MAX;

/// Paths of a look-up at most.
const PATHS_MAX: usize = 8;

/// Peers kept for each candidate that can signal for it.
const VIAS_MAX: usize = 4;

/// Requests to one peer.
const TRIES_MAX: u8 = 2;

/// An iterative look-up.
#[derive(Debug, Clone)]
pub struct Lookup {
    target: Key,
    own: NodeId,
    purpose: Purpose,
    config: LookupConfig,
    known: BTreeMap<Distance, Known>,
    /// Those that hold a seat or are said to, a few of each path.
    seats: Vec<Seated>,
    /// Round trips that were measured, sorted.
    trips: Vec<Duration>,
    next_path: u8,
    /// Points of the region that were asked for.
    points: u32,
    in_flight: usize,
    stale_in_flight: usize,
    asked: usize,
    answered: usize,
    steps: u32,
    is_enough: bool,
    /// Whether it began with any stale peer.
    has_stale: bool,
}

impl Lookup {
    /// Begins a look-up of `target` by the node `own` with the peers that it knows.
    #[must_use]
    pub fn new(
        target: Key,
        own: NodeId,
        purpose: Purpose,
        mut config: LookupConfig,
        start: impl IntoIterator<Item = Candidate>,
    ) -> Self {
        config.paths = config.paths.clamp(1, PATHS_MAX);
        config.in_flight = config.in_flight.max(1);
        let (mut known, mut seats) = (BTreeMap::new(), Vec::new());
        for mut candidate in start {
            let distance = Key::of_node(candidate.peer.id).distance(&target);
            if candidate.peer.id == own
                || known.len() >= config.candidates_max
                || known.contains_key(&distance)
            {
                continue;
            }
            candidate.vias.truncate(VIAS_MAX);
            seats.extend(candidate.seat.map(|seat| Seated::ours(distance, seat)));
            let is_there = config.vouches && candidate.is_linked && candidate.seat.is_none();
            let new = Known {
                peer: candidate.peer,
                state: if is_there { State::Vouched } else { State::Waiting },
                vias: candidate.vias,
                rtt: candidate.rtt,
                depth: 0,
                legs: 0,
                path: 0,
                tries: 0,
                named: 1,
                is_linked: candidate.is_linked,
                is_stale: candidate.is_stale && !candidate.is_linked,
                is_ours: true,
            };
            known.insert(distance, new);
        }
        for (path, known) in (0..).zip(known.values_mut()) {
            known.path = path_of(path, &config);
        }
        // Of the seats each path has its share.
        for (path, seated) in (0..).zip(&seats) {
            if let Some(known) = known.get_mut(seated.distance()) {
                known.path = path_of(path, &config);
            }
        }
        let has_stale = known.values().any(|known| known.is_stale);
        Self {
            target,
            own,
            purpose,
            config,
            known,
            seats,
            trips: Vec::new(),
            next_path: 0,
            points: 0,
            in_flight: 0,
            stale_in_flight: 0,
            asked: 0,
            answered: 0,
            steps: 0,
            is_enough: false,
            has_stale,
        }
    }

    /// The key that is looked up.
    #[must_use]
    pub fn target(&self) -> &Key {
        &self.target
    }

    /// What it is looked up for.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// The next peer to ask, until the slots are full.
    pub fn poll(&mut self, now: Instant) -> Option<Ask> {
        if self.is_satisfied() {
            return None;
        }
        let may_fresh = self.in_flight < self.slots();
        let may_stale = self.stale_in_flight < self.config.in_flight.div_ceil(2);
        if !(may_fresh || may_stale && self.has_stale) {
            return None;
        }
        let distance = self.next(|known| if known.is_stale { may_stale } else { may_fresh })?;
        let typical = self.typical_trip();
        let target = self.point_for(&distance);
        let known = self.known.get_mut(&distance)?;
        known.legs = known.legs_to();
        let timeout = known.timeout(typical);
        known.state = State::Asked { at: now };
        known.tries += 1;
        self.asked += 1;
        self.next_path = known.path + 1;
        if known.is_stale {
            self.stale_in_flight += 1;
        } else {
            self.in_flight += 1;
        }
        Some(Ask {
            peer: known.peer.clone(),
            target,
            is_linked: known.is_linked,
            via: known.vias.clone(),
            timeout,
        })
    }

    /// A peer answered with contacts, of which it is linked to those whose bit in `linked` is set.
    /// Returns those contacts that are new.
    ///
    /// An answer of a peer that was not asked, or that answered already, is ignored.
    pub fn answered(
        &mut self,
        now: Instant,
        from: NodeId,
        contacts: &[PeerAddr],
        linked: u32,
        has_records: bool,
    ) -> Vec<NodeId> {
        let distance = self.distance(from);
        let names_wanted = contacts.iter().take(CONTACTS_MAX).any(|contact| self.seeks(contact.id));
        let Some(known) = self.known.get_mut(&distance) else { return Vec::new() };
        if known.tries == 0 || matches!(known.state, State::Answered { .. }) {
            return Vec::new();
        }
        let trips = known.legs + 1;
        let (before, is_stale) = (known.state, known.is_stale);
        known.state = State::Answered { has_records, is_hit: has_records || names_wanted };
        let (path, depth) = (known.path, known.depth + 1);
        self.free(before, is_stale);
        if let State::Asked { at } | State::Late { at } | State::Silent { at } = before {
            let trip = (now - at) / trips;
            let place = self.trips.partition_point(|other| *other < trip);
            self.trips.insert(place, trip);
        }
        self.answered += 1;
        let vouches = self.vouches(&distance);
        let mut new = Vec::new();
        for (index, contact) in contacts.iter().take(CONTACTS_MAX).enumerate() {
            // An answer names a peer once.
            if contacts[..index].iter().any(|other| other.id == contact.id) {
                continue;
            }
            let via = (linked >> index & 1 == 1).then_some(from);
            if contact.id == from || contact.id == self.own {
                continue;
            }
            let at = self.distance(contact.id);
            if self.name(at, contact, via, path, depth) {
                new.push(contact.id);
                if at < distance {
                    self.steps = self.steps.max(depth);
                }
            }
            if vouches && via.is_some() {
                self.vouch(&at);
            }
        }
        self.is_enough = self.is_enough || has_records && self.has_enough();
        // What is a long time depends on the answers.
        self.handle_timeout(now);
        new
    }

    /// Takes in a contact at a distance, which a peer named. Returns whether it is new.
    fn name(
        &mut self,
        distance: Distance,
        contact: &PeerAddr,
        via: Option<NodeId>,
        path: u8,
        depth: u32,
    ) -> bool {
        if let Some(known) = self.known.get_mut(&distance) {
            known.named = known.named.saturating_add(1);
            if known.tries == 0 {
                known.depth = known.depth.min(depth);
            }
            let is_new_via = via.is_some_and(|via| !known.vias.contains(&via));
            if is_new_via && known.vias.len() < VIAS_MAX {
                known.vias.extend(via);
            }
            let is_news = !known.is_ours && known.merge(contact);
            if (is_news || is_new_via) && known.state == State::Failed && known.tries < TRIES_MAX {
                known.state = State::Waiting;
            }
            return false;
        }
        if self.known.len() >= self.config.candidates_max && !self.make_room(&distance) {
            return false;
        }
        let known = Known {
            peer: contact.clone(),
            state: State::Waiting,
            vias: via.into_iter().collect(),
            rtt: None,
            depth,
            legs: 0,
            path,
            tries: 0,
            named: 1,
            is_linked: false,
            is_stale: false,
            is_ours: false,
        };
        self.known.insert(distance, known);
        true
    }

    /// Goes on with fewer nodes to be found, and a smaller region.
    pub fn narrow(&mut self, k: usize, region: Distance) {
        (self.config.k, self.config.region) = (k, region);
    }

    /// Notes that this node is, or is not any more, linked to a peer. Worth saying of the new
    /// contacts of an answer: who is linked is asked first.
    pub fn set_linked(&mut self, id: NodeId, is_linked: bool, rtt: Option<Duration>) {
        let distance = self.distance(id);
        if let Some(known) = self.known.get_mut(&distance) {
            known.is_linked = is_linked;
            known.rtt = rtt.or(known.rtt);
        }
    }

    /// A peer that was asked could not be reached, or refused.
    pub fn failed(&mut self, _now: Instant, from: NodeId) {
        let distance = self.distance(from);
        let Some(known) = self.known.get_mut(&distance) else { return };
        let (before, is_stale) = (known.state, known.is_stale);
        if let State::Asked { .. } | State::Late { .. } | State::Silent { .. } = before {
            known.state = State::Failed;
            self.free(before, is_stale);
        }
    }

    /// Gives away the slots of those that are late, and gives up those that are silent.
    pub fn handle_timeout(&mut self, now: Instant) {
        let typical = self.typical_trip();
        let (mut fresh, mut stale) = (0, 0);
        for known in self.known.values_mut() {
            if let State::Asked { at } = known.state
                && known.deadline(typical).is_some_and(|deadline| deadline <= now)
            {
                known.state = State::Late { at };
                *(if known.is_stale { &mut stale } else { &mut fresh }) += 1;
            }
            if let State::Late { at } = known.state
                && known.deadline(typical).is_some_and(|deadline| deadline <= now)
            {
                known.state = State::Silent { at };
            }
        }
        self.in_flight -= fresh;
        self.stale_in_flight -= stale;
    }

    /// When [`Lookup::handle_timeout`] is next to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let typical = self.typical_trip();
        self.known.values().filter_map(|known| known.deadline(typical)).min()
    }

    /// The median of the round trips so far.
    fn typical_trip(&self) -> Option<Duration> {
        self.trips.get(self.trips.len() / 2).copied()
    }

    /// Whether nothing more is asked, and nobody waited for. Answers may still come.
    #[must_use]
    pub fn is_done(&self) -> bool {
        if self.is_satisfied() {
            return true;
        }
        // Stale peers are waited for only if there is nobody else.
        let is_alone = self.answered == 0;
        self.in_flight == 0
            && (!is_alone || self.stale_in_flight == 0)
            && self.next(|known| is_alone || !known.is_stale).is_none()
            && !self.is_awaited()
    }

    /// The next to be asked of those that pass a test.
    fn next(&self, passes: impl Fn(&Known) -> bool) -> Option<Distance> {
        self.next_seat(&passes).or_else(|| self.choose(passes))
    }

    /// Whether somebody is late whose answer would change the outcome.
    fn is_awaited(&self) -> bool {
        let mut nearer = 0.0;
        for (distance, known) in &self.known {
            match known.state {
                _ if nearer >= self.config.k as f64 && !self.is_in_region(distance) => break,
                State::Late { .. } if !known.is_stale || self.answered == 0 => return true,
                _ if known.is_found() => nearer = self.count(nearer, distance),
                _ => {}
            }
        }
        false
    }

    /// Those who are there of the region, and beyond it until there are `k` (of a crowd of Sybils
    /// only a few count, see the module `choose`); nearest first. They are who keeps what is stored
    /// at the key.
    #[must_use]
    pub fn nearest_found(&self) -> Vec<PeerAddr> {
        let mut nearer = 0.0;
        let mut found = Vec::new();
        for (distance, known) in self.known.iter().filter(|(_, known)| known.is_found()) {
            if nearer >= self.config.k as f64 && !self.is_in_region(distance) {
                break;
            }
            found.push(known.peer.clone());
            nearer = self.count(nearer, distance);
        }
        found
    }

    /// The distances of the `k` nearest that answered, nearest first: an observation for the
    /// estimate of the network's size. Empty if the look-up was cut short.
    #[must_use]
    pub fn distances(&self) -> Vec<Distance> {
        if self.is_satisfied() {
            return Vec::new();
        }
        self.answers().take(self.config.k).map(|(distance, _)| *distance).collect()
    }

    fn answers(&self) -> impl Iterator<Item = (&Distance, &Known)> {
        self.known.iter().filter(|(_, known)| matches!(known.state, State::Answered { .. }))
    }

    /// Requests made.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.asked
    }

    /// Answers received.
    #[must_use]
    pub fn answers_received(&self) -> usize {
        self.answered
    }

    /// The round trips that had to be made one after the other: the longest chain of answers, each
    /// of a peer that the one before named, up to those that had what was looked for. Of all
    /// answers, if none had it or if all nodes of a region were wanted.
    #[must_use]
    pub fn rounds(&self) -> u32 {
        let rounds = |(_, known): (&Distance, &Known)| known.depth + 1;
        let is_hit = |(_, known): &(&Distance, &Known)| {
            matches!(known.state, State::Answered { is_hit: true, .. })
        };
        let hits = self.answers().filter(is_hit).map(rounds).max();
        hits.or_else(|| self.answers().map(rounds).max()).unwrap_or_default()
    }

    /// The longest chain of all answers, without its end in which nobody new and nearer was named:
    /// after so many round trips all were known, the rest was for making sure.
    #[must_use]
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// Where a peer is, by what was named, and who can signal for it.
    #[must_use]
    pub fn contact(&self, id: NodeId) -> Option<(PeerAddr, Vec<NodeId>)> {
        let known = self.known.get(&self.distance(id))?;
        Some((known.peer.clone(), known.vias.clone()))
    }

    /// Whether what was looked for is there, before all have answered.
    fn is_satisfied(&self) -> bool {
        match self.purpose {
            Purpose::Nodes => false,
            Purpose::Records(_) => self.is_enough,
            Purpose::Peer(id) => self.known.get(&self.distance(id)).is_some_and(|known| {
                known.is_linked || !known.vias.is_empty() || known.named >= self.config.named
            }),
        }
    }

    /// Whether enough answers with records came, of different networks. Peers of no global network
    /// are told apart by who they are.
    fn has_enough(&self) -> bool {
        let mut networks = Vec::new();
        let mut others = 0;
        for (_, known) in self.answers() {
            if !matches!(known.state, State::Answered { has_records: true, .. }) {
                continue;
            }
            match subnets(&known.peer, false)[0] {
                None => others += 1,
                Some(network) if networks.contains(&network) => {}
                Some(network) => networks.push(network),
            }
        }
        networks.len() + others >= self.config.enough
    }

    fn free(&mut self, before: State, is_stale: bool) {
        if let State::Asked { .. } = before {
            let slots = if is_stale { &mut self.stale_in_flight } else { &mut self.in_flight };
            *slots -= 1;
        }
    }

    /// Whether this is the peer that is looked for.
    fn seeks(&self, id: NodeId) -> bool {
        self.purpose == Purpose::Peer(id)
    }

    fn distance(&self, id: NodeId) -> Distance {
        Key::of_node(id).distance(&self.target)
    }
}

/// The path of the peer of this number among those to begin with.
fn path_of(number: usize, config: &LookupConfig) -> u8 {
    u8::try_from(number % config.paths).unwrap_or_default()
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
