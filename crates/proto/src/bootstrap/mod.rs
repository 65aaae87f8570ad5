//! Getting into the network, and back into it: whom to dial when.
//!
//! Peers of the LAN are dialled at once, cached ones two at a time a quarter of a second apart
//! (design §6). *Mutual dialling*: as long as the node has few links it goes on dialling its
//! cached peers while they dial it. Behind a NAT that keeps ports, what one of two peers sends
//! opens its NAT for what the other sends within the life of the mapping (RFC 4787 §4.3: at least
//! two minutes, in practice 30 s), so two peers that have only their old addresses reach each
//! other with no third one. The pauses are drawn with decorrelated jitter (Brooker, *Exponential
//! Backoff and Jitter*, AWS 2015), so that nodes that restarted in step fall out of it.
//!
//! Only [`BootstrapConfig::active`] peers are dialled again and again; one that never answers
//! gives its turn to the next of the rest. As long as there is no link at all the rest is swept
//! too, one peer after the other. Links that strangers opened do not end the dialling: who sends
//! eight connections to a starting node must not keep it from those that it knows.
//!
//! Peers that a public registry names are dialled before the cached ones, which did not answer, and
//! with the same pauses. Anybody can be named there: at most [`BootstrapConfig::listed_max`] are
//! remembered, and the next answer of the registry takes the place of those that did not answer.
//!
//! Whatever happens, at most [`BootstrapConfig::in_flight_max`] dials are under way, and when
//! there are links enough nothing is waited for. All links lost starts everything again.

mod schedule;

use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use crate::cbor::Cbor;
use crate::flat::FlatMap;
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::machine::{self, Machine};
use crate::time::Instant;
use crate::timer::Timers;

/// Limits and pauses of the bootstrap. The defaults are the design's (§6) where it names one.
#[derive(Debug, Clone, Copy)]
pub struct BootstrapConfig {
    /// Links of our own choice that are enough: the index finds the other warm connections.
    pub wanted: usize,
    /// The same for who has few cached peers, and how many are few: of those behind NATs some may
    /// be dialled by nobody else.
    pub wanted_of_few: (usize, usize),
    /// Most dials under way; 1 at least.
    pub in_flight_max: usize,
    /// Most of them to peers of the LAN, whom anybody on the LAN may invent.
    pub lan_in_flight_max: usize,
    /// Cached peers that are dialled again and again.
    pub active: usize,
    /// Most cached peers that are taken.
    pub cached_max: usize,
    /// Most peers of the LAN that are remembered at a time.
    pub lan_max: usize,
    /// Most peers of a registry that are remembered at a time: so few that half of the active ones
    /// are of the cache.
    pub listed_max: usize,
    /// Cached peers that are dialled together, and the time until the next ones; not zero.
    pub pace: (usize, Duration),
    /// How long a dial may take. Four of 16 peers each, 12 at a time, then fit in 30 s.
    pub attempt: Duration,
    /// The first tries of each peer, and how long the pauses between them may be at most: mutual
    /// dialling mostly succeeds here.
    pub sure: (u32, Duration),
    /// Least and greatest pause between tries of one peer until `fast_for` after the start.
    pub fast: (Duration, Duration),
    /// How long the pauses are short.
    pub fast_for: Duration,
    /// The pauses afterwards, as long as there is no link.
    pub slow: (Duration, Duration),
    /// The pauses afterwards when there are links, but too few: the index finds others.
    pub slow_linked: (Duration, Duration),
    /// Pause between two of the rest: until `fast_for` after the start, and afterwards.
    pub sweep: (Duration, Duration),
    /// Tries after which an active peer gives its turn to one of the rest.
    pub tries_max: u32,
    /// Time without any link after which the owner is told.
    pub alone_after: Duration,
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            wanted: 3,
            wanted_of_few: (8, 24),
            in_flight_max: 12,
            lan_in_flight_max: 4,
            active: 16,
            cached_max: 256,
            lan_max: 64,
            listed_max: 8,
            pace: (2, Duration::from_millis(250)),
            attempt: s(4),
            sure: (4, s(3)),
            fast: (Duration::from_millis(500), s(20)),
            fast_for: s(120),
            slow: (s(60), s(600)),
            slow_linked: (s(300), s(3600)),
            sweep: (s(1), s(10)),
            tries_max: 8,
            alone_after: s(10),
        }
    }
}

/// What happens to the bootstrap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The node starts, or has better knowledge of whom to dial: in the order of dialling.
    /// Replaces the cached peers of before.
    Start {
        /// As [`PeerCache::order`](crate::peers::PeerCache::order) has them.
        cached: Vec<PeerAddr>,
    },
    /// A peer was found on the LAN.
    Lan(PeerAddr),
    /// A public registry names these, in the order of dialling. Replaces those that it named before
    /// and that are not linked.
    Listed(Vec<PeerAddr>),
    /// The owner named a peer (configured, invited), which the node dials by itself.
    Named(NodeId),
    /// The first link to a peer stands.
    PeerUp {
        /// Who.
        peer: NodeId,
        /// Whether we dialled it.
        is_ours: bool,
    },
    /// The last link to a peer is gone.
    PeerDown(NodeId),
    /// All that [`Output::Dial`] asked for came to nothing.
    DialFailed(NodeId),
}

/// What the bootstrap wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Dial this peer once, at all its addresses and through its homes. It ends with
    /// [`Input::PeerUp`], [`Input::DialFailed`] or [`Output::GiveUp`].
    Dial {
        /// Who, and where.
        peer: PeerAddr,
    },
    /// Stop dialling this peer, unless somebody else wants it.
    GiveUp(NodeId),
    /// For the owner.
    Event(Event),
}

/// News of the bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// There is a link, where there was none before.
    Joined {
        /// How the first peer was found.
        how: How,
        /// How many peers are linked.
        peers: usize,
    },
    /// Nobody answers. Said once between two losses of all links; dialling goes on.
    Alone,
}

/// How the first peer was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// On the LAN.
    Lan,
    /// In the peer cache.
    Cache,
    /// In a public registry.
    Registry,
    /// The owner named it.
    Configured,
    /// It found us.
    Incoming,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Say that nobody answers.
    Alone,
    /// The next cached peers may be dialled.
    Pace,
    /// Take the next of the rest.
    Sweep,
    /// A peer's pause is over.
    Due(NodeId),
    /// A dial takes too long.
    Attempt(NodeId),
}

/// Where a candidate is.
#[derive(Debug, Clone)]
enum Place {
    /// There are hundreds in a cache, of which few are dialled.
    Packed(Cbor<PeerAddr>),
    /// With the scope that an address of the LAN may have.
    Plain(Box<PeerAddr>),
}

impl Place {
    fn pack(peer: &PeerAddr) -> Self {
        Self::Packed(Cbor::new(peer))
    }

    fn peer(&self, id: NodeId) -> PeerAddr {
        match self {
            Self::Packed(peer) => peer.get().unwrap_or_else(|| id.into()),
            Self::Plain(peer) => (**peer).clone(),
        }
    }
}

/// A peer that may be dialled.
#[derive(Debug, Clone)]
struct Candidate {
    place: Place,
    is_lan: bool,
    /// Known from a registry alone.
    is_listed: bool,
    tries: u32,
    pause: Duration,
}

/// The bootstrap. See the module's documentation.
#[derive(Debug)]
pub struct Bootstrap {
    own: NodeId,
    config: BootstrapConfig,
    rng: ChaCha8Rng,
    candidates: FlatMap<NodeId, Candidate>,
    /// The cached peers; the first [`BootstrapConfig::active`] are dialled again and again.
    order: VecDeque<NodeId>,
    /// Those of the LAN and of the cache whose turn it is.
    lan_queue: VecDeque<NodeId>,
    queue: VecDeque<NodeId>,
    /// Dials under way, and whether each is of the LAN's share.
    dialling: FlatMap<NodeId, bool>,
    /// Linked peers, and whether each counts among the wanted ones. As many as the node has.
    up: FlatMap<NodeId, bool>,
    named: BTreeSet<NodeId>,
    /// When there was last no link and dialling began; `None` before the start.
    began: Option<Instant>,
    pace_left: usize,
    is_alone_said: bool,
    timers: Timers<Timer>,
    outputs: VecDeque<Output>,
}

impl Bootstrap {
    /// The bootstrap of the node `own`. Dials nobody but peers of the LAN before
    /// [`Input::Start`]. `seed` feeds its randomness.
    #[must_use]
    pub fn new(own: NodeId, config: BootstrapConfig, seed: [u8; 32]) -> Self {
        Self {
            own,
            config: BootstrapConfig {
                in_flight_max: config.in_flight_max.max(1),
                lan_in_flight_max: config.lan_in_flight_max.max(1),
                attempt: config.attempt.max(Duration::from_millis(1)),
                pace: (config.pace.0.max(1), config.pace.1.max(Duration::from_millis(1))),
                ..config
            },
            rng: ChaCha8Rng::from_seed(seed),
            candidates: FlatMap::new(),
            order: VecDeque::new(),
            lan_queue: VecDeque::new(),
            queue: VecDeque::new(),
            dialling: FlatMap::new(),
            up: FlatMap::new(),
            named: BTreeSet::new(),
            began: None,
            pace_left: 0,
            is_alone_said: false,
            timers: Timers::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Whether there is a link.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        !self.up.is_empty()
    }

    /// Whether more links of our own choice are wanted.
    #[must_use]
    pub fn wants_more(&self) -> bool {
        let (of_few, few) = self.config.wanted_of_few;
        let wanted = if self.order.len() <= few { of_few } else { self.config.wanted };
        self.up.values().filter(|counts| **counts).count() < wanted
    }

    fn handle_start(&mut self, now: Instant, cached: Vec<PeerAddr>) {
        let mut order = VecDeque::new();
        for peer in cached {
            let id = peer.id;
            if id == self.own || order.len() >= self.config.cached_max || order.contains(&id) {
                continue;
            }
            order.push_back(id);
            match self.candidates.get_mut(&id) {
                // What was seen on the LAN today is closer than what the cache remembers.
                Some(known) if known.is_lan => {}
                Some(known) => (known.place, known.is_listed) = (Place::pack(&peer), false),
                None => drop(self.candidates.insert(id, Candidate::new(Place::pack(&peer), false))),
            }
        }
        for id in core::mem::replace(&mut self.order, order) {
            if !self.order.contains(&id) && self.candidates.get(&id).is_some_and(|c| !c.is_lan) {
                self.drop_candidate(id);
            }
        }
        self.begin(now);
    }

    fn handle_listed(&mut self, now: Instant, peers: Vec<PeerAddr>) {
        let is_stale = |(id, candidate): (&NodeId, &Candidate)| {
            (candidate.is_listed && !self.up.contains_key(id)).then_some(*id)
        };
        let stale: Vec<_> = self.candidates.iter().filter_map(is_stale).collect();
        for id in stale {
            self.order.retain(|other| *other != id);
            match self.candidates.get_mut(&id) {
                Some(known) if known.is_lan => known.is_listed = false,
                _ => self.drop_candidate(id),
            }
        }
        let linked = self.candidates.values().filter(|candidate| candidate.is_listed).count();
        let room = self.config.listed_max.saturating_sub(linked);
        let (mut turn, mut new) = (Vec::new(), 0);
        for peer in peers.into_iter().filter(|peer| peer.id != self.own).take(room) {
            let id = peer.id;
            if let Some(known) = self.candidates.get_mut(&id) {
                // It moved: what was tried before says nothing.
                known.prefer(peer);
                known.restart();
            } else {
                let place = Place::Plain(Box::new(peer));
                let candidate = Candidate { is_listed: true, ..Candidate::new(place, false) };
                self.candidates.insert(id, candidate);
                self.order.insert(new, id);
                new += 1;
            }
            turn.push(id);
        }
        if !turn.is_empty() && !self.is_joined() && self.began.is_some() {
            // They may be dialling us as well: the pauses are short again.
            self.began = Some(now);
        }
        turn.into_iter().for_each(|id| self.enqueue(id));
    }

    fn handle_lan(&mut self, peer: PeerAddr) {
        let id = peer.id;
        if id == self.own {
            return;
        }
        let lan = self.candidates.values().filter(|candidate| candidate.is_lan).count();
        match self.candidates.get_mut(&id) {
            Some(known) if known.is_lan && known.place.peer(id).addrs == peer.addrs => return,
            Some(known) if known.is_lan => {
                // It restarted elsewhere: what was tried before says nothing.
                let moved = PeerAddr { addrs: peer.addrs, ..known.place.peer(id) };
                known.place = Place::Plain(Box::new(moved));
                known.restart();
            }
            _ if lan >= self.config.lan_max => return,
            Some(known) => {
                known.is_lan = true;
                known.prefer(peer);
            }
            None => {
                let place = Place::Plain(Box::new(peer));
                self.candidates.insert(id, Candidate::new(place, true));
            }
        }
        if !self.up.contains_key(&id) && !self.dialling.contains_key(&id) {
            self.stop(id);
            self.lan_queue.push_back(id);
        }
    }

    fn handle_peer_up(&mut self, now: Instant, peer: NodeId, is_ours: bool) {
        let candidate = self.candidates.get_mut(&peer);
        let how = match &candidate {
            _ if self.named.contains(&peer) => How::Configured,
            Some(candidate) if candidate.is_lan => How::Lan,
            Some(candidate) if candidate.is_listed => How::Registry,
            Some(_) => How::Cache,
            None => How::Incoming,
        };
        if let Some(candidate) = candidate {
            candidate.restart();
        }
        self.stop(peer);
        let is_first = self.up.is_empty();
        self.up.insert(peer, is_ours || how != How::Incoming);
        if is_first {
            self.is_alone_said = false;
            self.timers.stop(Timer::Alone);
            self.timers.stop(Timer::Sweep);
            self.event(Event::Joined { how, peers: self.up.len() });
        }
        if !self.wants_more() {
            self.rest();
        }
        self.serve(now);
    }

    fn handle_peer_down(&mut self, now: Instant, peer: NodeId) {
        if self.up.remove(&peer).is_none() {
            return;
        }
        let lan_only = !self.order.contains(&peer);
        if lan_only && self.candidates.get(&peer).is_some_and(|candidate| candidate.is_lan) {
            self.schedule(now, peer);
        }
        if !self.up.is_empty() {
            self.resume(now);
        } else if self.began.is_some_and(|began| now - began < self.config.fast_for) {
            // A link that comes and goes does not start everything again each time.
            self.resume(now);
            self.watch(now);
        } else if self.began.is_some() {
            self.begin(now);
        }
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}

impl Candidate {
    fn new(place: Place, is_lan: bool) -> Self {
        Self { place, is_lan, is_listed: false, tries: 0, pause: Duration::ZERO }
    }

    fn restart(&mut self) {
        self.tries = 0;
        self.pause = Duration::ZERO;
    }

    /// Puts the addresses of `better` in front of those that are known.
    fn prefer(&mut self, better: PeerAddr) {
        let mut peer = self.place.peer(better.id);
        let old = core::mem::replace(&mut peer.addrs, better.addrs);
        for addr in old {
            if peer.addrs.len() < crate::invite::ADDRS_MAX && !peer.addrs.contains(&addr) {
                peer.addrs.push(addr);
            }
        }
        self.place = Place::Plain(Box::new(peer));
    }
}

impl Machine for Bootstrap {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Start { cached } => self.handle_start(now, cached),
            Input::Lan(peer) => {
                self.handle_lan(peer);
                self.serve(now);
            }
            Input::Listed(peers) => {
                self.handle_listed(now, peers);
                self.serve(now);
            }
            Input::Named(peer) => {
                if self.named.len() < self.config.cached_max {
                    self.named.insert(peer);
                }
            }
            Input::PeerUp { peer, is_ours } => self.handle_peer_up(now, peer, is_ours),
            Input::PeerDown(peer) => self.handle_peer_down(now, peer),
            Input::DialFailed(peer) => {
                self.fail(now, peer);
                self.serve(now);
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.expire(now) {
            match timer {
                Timer::Alone => {
                    self.is_alone_said = true;
                    self.event(Event::Alone);
                }
                Timer::Pace => {}
                Timer::Sweep => self.sweep(now),
                Timer::Due(peer) => self.enqueue(peer),
                Timer::Attempt(peer) => {
                    self.outputs.push_back(Output::GiveUp(peer));
                    self.fail(now, peer);
                }
            }
        }
        self.serve(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        machine::pop(&mut self.outputs)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }
}

#[cfg(test)]
mod tests;
