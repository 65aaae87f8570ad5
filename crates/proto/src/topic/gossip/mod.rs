//! The neighbourhood of a topic: which members a node holds connections to, and by which of them
//! an entry travels.
//!
//! The members form a random graph (Leitão, Pereira and Rodrigues, *`HyParView`*, 2007): each has
//! some neighbours, the active view, and knows some more members, the passive view, from which a
//! neighbour that is lost is replaced at once. Along the edges of the graph entries spread by a
//! tree (the same, *Epidemic Broadcast Trees*, 2007, Plumtree): a neighbour is *eager*, and new
//! entries are pushed to it, or *lazy*, and they are announced to it. Who gets one twice prunes the
//! edge that brought the second copy; who is told of one that does not come grafts the edge that
//! told of it. So each edge of the tree that breaks is replaced by one that works.
//!
//! What is ours:
//!
//! - No walks: `Join` and `ForwardJoin` draw random members, and so does the index of the network,
//!   more fairly. Its latest sample is not displaced by what peers say, and now and then a lazy
//!   neighbour makes room for one of it, so that no peer decides for long who the neighbours are.
//! - Entries are names here. The parent holds the bytes, checks them, and tells what came.
//! - An entry of more than [`LARGE`] bytes is pushed to two neighbours only and announced to the
//!   others at once: two copies too many cost more than a round trip.
//! - Peers have points, by which those who flood, promise and do not deliver, or break the limits
//!   are dropped and banned.
//! - The optimisation of Plumtree §3.8 goes by time, not by hops: an announcement that is well
//!   ahead of the push grafts its edge. And who finds the tree slow waits longer before it grafts.
//! - Not every duplicate prunes. Plumtree is stable for one entry at a time; of several under way
//!   each cuts a cycle at another edge, the pieces are grafted at several edges, and so on for
//!   ever. So an edge that has just brought something new is pruned by one duplicate in as many
//!   as there are entries under way.
//!
//! Delivery is not certain: who loses what was pushed and all announcements of it must compare
//! what it has with others, which is the parent's task.
//!
//! Invariants: at most `active_max` neighbours; never one that is banned; nothing is pushed to or
//! announced to others than neighbours; all lists are bounded by the constants of their files.

mod api;
mod missing;
mod passive;
mod peer;
mod score;
mod tree;
mod view;

use core::time::Duration;
use std::collections::VecDeque;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

pub use self::api::*;
use self::missing::{Missing, Seen};
use self::passive::Passive;
use self::peer::{Peer, Stage};
pub use self::score::{BAN, BAN_BELOW, DROP_BELOW};
use self::score::{Scores, Verdict};
pub use self::tree::{GRAFT_AFTER, LARGE};
use crate::bucket::TokenBucket;
use crate::flat::FlatMap;
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::machine::{self, Machine};
use crate::time::Instant;
use crate::timer::Timers;
use crate::wire::topic::{GossipMessage, MEMBERS_MAX, SHORTS_MAX};

/// Points for a message beyond a limit of the wire, which no honest node sends.
const OVER_LIMIT: i64 = -10;

/// Points for a message beyond the rates.
const OVER_RATE: i64 = -1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Tries another candidate.
    Fill,
    /// Draws members from the index.
    Members,
    Shuffle,
    Swap,
    /// Sends the announcements that were gathered.
    Announce,
    /// Ends a peer's stage.
    Peer(NodeId),
}

/// The neighbourhood of one topic. See the module's documentation.
#[derive(Debug)]
pub struct Gossip {
    own: NodeId,
    config: GossipConfig,
    rng: ChaCha8Rng,
    peers: FlatMap<NodeId, Box<Peer>>,
    passive: Passive,
    scores: Scores,
    seen: Seen,
    missing: Missing,
    /// Attempts in a row that brought no neighbour.
    failures: u32,
    /// No candidate is tried before.
    fill_not_before: Instant,
    /// Looks into the index since there were neighbours enough.
    looks: u32,
    looked_at: Option<Instant>,
    /// From the first announcement of an entry to its push, smoothed.
    lag: Duration,
    /// When the tree was given an edge that is faster.
    faster_at: Option<Instant>,
    /// Entries on their way at a time: those of about a second, in sixteenths.
    in_flight: u64,
    /// When the last entry came.
    entry_at: Option<Instant>,
    /// Whose answer to a shuffle is awaited.
    shuffled: Option<NodeId>,
    /// Neighbours that may be displaced by urgent requests.
    displaced: TokenBucket,
    /// Answers to those who take this node for a neighbour and are none.
    strays: TokenBucket,
    timers: Timers<Timer>,
    outputs: VecDeque<Output>,
}

impl Gossip {
    /// The neighbourhood of the node `own`, which knows nobody and looks into the index at once.
    #[must_use]
    pub fn new(own: NodeId, mut config: GossipConfig, now: Instant, seed: [u8; 32]) -> Self {
        config.active_max = config.active_max.max(1);
        config.active = config.active.clamp(1, config.active_max);
        config.active_min = config.active_min.min(config.active);
        config.parallel = config.parallel.max(1);
        // A pause of nothing would make a timer that is due for ever.
        for pause in [&mut config.shuffle, &mut config.swap, &mut config.members] {
            *pause = (*pause).max(Duration::from_secs(1));
        }
        let mut gossip = Self {
            own,
            config,
            rng: ChaCha8Rng::from_seed(seed),
            peers: FlatMap::new(),
            passive: Passive::new(config.passive_max),
            scores: Scores::default(),
            seen: Seen::default(),
            missing: Missing::default(),
            failures: 0,
            fill_not_before: Instant::ZERO,
            looks: 0,
            looked_at: None,
            lag: Duration::ZERO,
            faster_at: None,
            in_flight: 0,
            entry_at: None,
            shuffled: None,
            displaced: view::displacements(),
            strays: TokenBucket::new(5, 20),
            timers: Timers::default(),
            outputs: VecDeque::new(),
        };
        gossip.timers.set(Timer::Members, now);
        let shuffle = gossip.jitter(config.shuffle);
        gossip.timers.set(Timer::Shuffle, now + shuffle);
        let swap = gossip.jitter(config.swap);
        gossip.timers.set(Timer::Swap, now + swap);
        gossip
    }

    /// The neighbours, and whether entries are pushed to them.
    pub fn neighbors(&self) -> impl Iterator<Item = (NodeId, bool)> + '_ {
        let active = self.peers.iter().filter(|(_, peer)| peer.is_active());
        active.map(|(id, peer)| (*id, peer.is_eager))
    }

    /// Whether a peer is a neighbour.
    #[must_use]
    pub fn is_neighbor(&self, peer: NodeId) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.is_active())
    }

    /// Members to remember for the next start: the neighbours, then the candidates.
    pub fn members(&self) -> impl Iterator<Item = &PeerAddr> + '_ {
        let active = self.peers.values().filter(|peer| peer.is_active());
        active.map(|peer| &peer.addr).chain(self.passive.iter())
    }

    /// Whether a peer was banned for what it did in this topic.
    #[must_use]
    pub fn is_banned(&self, now: Instant, peer: NodeId) -> bool {
        self.scores.is_banned(now, peer)
    }

    fn active(&mut self, id: NodeId) -> Option<&mut Peer> {
        self.peers.get_mut(&id).map(|peer| &mut **peer).filter(|peer| peer.is_active())
    }

    fn send(&mut self, peer: NodeId, message: GossipMessage) {
        self.outputs.push_back(Output::Send { peer, message });
    }

    /// A duration within a quarter of this one.
    fn jitter(&mut self, duration: Duration) -> Duration {
        duration * (75 + self.rng.next_u32() % 51) / 100
    }

    /// Gives a peer points and does what they lead to.
    fn judge(&mut self, now: Instant, peer: NodeId, points: i64) {
        match self.scores.add(now, peer, points) {
            Verdict::Fine => {}
            Verdict::Drop => {
                if self.is_neighbor(peer) {
                    self.part(now, peer);
                    self.fill(now);
                }
            }
            Verdict::Ban => self.ban(now, peer),
        }
    }

    fn handle_message(&mut self, now: Instant, id: NodeId, message: GossipMessage) {
        if id == self.own || self.scores.is_banned(now, id) {
            return;
        }
        if !self.peers.contains_key(&id) {
            if !matches!(message, GossipMessage::Neighbor { .. }) {
                return self.answer_stray(now, id, &message);
            }
            // Its link stands for other reasons, or was ended here while it asked.
            if !self.handle_up(now, id) {
                return;
            }
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !peer.rates.allows(now, &message) {
            return self.judge(now, id, OVER_RATE);
        }
        if is_over_limit(&message) {
            return self.judge(now, id, OVER_LIMIT);
        }
        match message {
            GossipMessage::Neighbor { is_urgent } => self.handle_neighbor(now, id, is_urgent),
            GossipMessage::Neighbored { is_accepted, members } => {
                self.handle_neighbored(now, id, is_accepted, members);
            }
            GossipMessage::Parted => self.handle_parted(now, id),
            _ if peer.stage == Stage::Linked => self.answer_stray(now, id, &message),
            // Its answer is lost or on the way.
            _ if !peer.is_active() => {}
            GossipMessage::Shuffle(members) => self.handle_shuffle(now, id, members),
            GossipMessage::Shuffled(members) => self.handle_shuffled(now, id, members),
            GossipMessage::Have(ids) => self.handle_announced(now, id, &ids),
            GossipMessage::Graft(ids) => self.handle_graft(now, id, &ids),
            GossipMessage::Prune => peer.is_eager = false,
        }
    }

    /// Tells a peer which takes this node for a neighbour that it is none.
    fn answer_stray(&mut self, now: Instant, peer: NodeId, message: &GossipMessage) {
        let is_answer = matches!(message, GossipMessage::Parted | GossipMessage::Neighbored { .. });
        if !self.strays.try_take(now, 1) {
            self.judge(now, peer, OVER_RATE);
        } else if !is_answer {
            self.send(peer, GossipMessage::Parted);
        }
    }
}

impl Machine for Gossip {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Found(members) => self.handle_found(now, members),
            Input::PeerUp(peer) => {
                self.handle_up(now, peer);
            }
            Input::PeerDown(peer) | Input::Unreachable(peer) => self.handle_down(now, peer),
            Input::Message { peer, message } => self.handle_message(now, peer, message),
            Input::Have { id, from, len } => self.handle_have(now, id, from, len),
            Input::Duplicate { id, from, len } => self.handle_duplicate(now, id, from, len),
            Input::Bad { peer, weight } => self.judge(now, peer, -i64::from(weight)),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        // First, as it may set timers that are due at once.
        self.fetch(now);
        while let Some(timer) = self.timers.expire(now) {
            match timer {
                Timer::Fill => self.fill(now),
                Timer::Members => self.look(now),
                Timer::Shuffle => self.shuffle(now),
                Timer::Swap => self.swap(now),
                Timer::Announce => self.announce_all(),
                Timer::Peer(peer) => self.end_stage(now, peer),
            }
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        machine::pop(&mut self.outputs)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next().into_iter().chain(self.missing.next_due()).min()
    }
}

/// Whether a message says more than the wire allows. The codec refuses such, too.
fn is_over_limit(message: &GossipMessage) -> bool {
    match message {
        GossipMessage::Neighbored { members, .. }
        | GossipMessage::Shuffle(members)
        | GossipMessage::Shuffled(members) => members.len() > MEMBERS_MAX,
        GossipMessage::Have(ids) | GossipMessage::Graft(ids) => ids.len() > SHORTS_MAX,
        GossipMessage::Neighbor { .. } | GossipMessage::Parted | GossipMessage::Prune => false,
    }
}

/// One of `0..count` at random.
fn pick(rng: &mut ChaCha8Rng, count: usize) -> Option<usize> {
    let drawn = rng.next_u64().checked_rem(count as u64)?;
    usize::try_from(drawn).ok()
}

#[cfg(test)]
mod tests;
