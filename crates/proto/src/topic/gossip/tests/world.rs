//! Many machines, virtual time, links with latencies, and a stand-in for the index.

use core::time::Duration;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::super::*;
use crate::machine::check_deadline;
use crate::topic::id::ShortId;

/// Time after which a link to somebody who is gone is known to be dead, or not to come about.
const DEAD_MS: u64 = 2_000;

/// What travels, or happens later.
#[derive(Debug)]
enum Event {
    Input(Input),
    /// The bytes of an entry.
    Pushed {
        from: NodeId,
        id: ShortId,
    },
    /// The target of a dial, at which the link comes about.
    Dialed {
        from: NodeId,
    },
    WantMembers,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) gossip: Gossip,
    pub(super) held: BTreeMap<ShortId, Instant>,
    pub(super) joined: Instant,
    /// What is in the queue of deadlines.
    deadline: Option<Instant>,
    /// Sends no entries whatever it promised.
    pub(super) is_silent: bool,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) members: BTreeMap<NodeId, Member>,
    pub(super) rng: ChaCha8Rng,
    pub(super) loss_percent: u64,
    /// The index knows members of one's own half only.
    pub(super) is_halved: bool,
    pub(super) lens: BTreeMap<ShortId, usize>,
    /// Copies of entries that arrived.
    pub(super) copies: u64,
    /// Everything that was put out, hashed.
    pub(super) trace: u64,
    pub(super) counts: BTreeMap<&'static str, u64>,
    links: BTreeSet<(NodeId, NodeId)>,
    events: BTreeMap<(Instant, u64), (NodeId, Event)>,
    deadlines: BinaryHeap<Reverse<(Instant, NodeId)>>,
    sequence: u64,
    seed: u64,
}

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl World {
    pub(super) fn new(seed: u64, members: usize) -> Self {
        let mut world = Self {
            now: Instant::ZERO,
            members: BTreeMap::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            loss_percent: 0,
            is_halved: false,
            lens: BTreeMap::new(),
            copies: 0,
            trace: 0,
            counts: BTreeMap::new(),
            links: BTreeSet::new(),
            events: BTreeMap::new(),
            deadlines: BinaryHeap::new(),
            sequence: 0,
            seed,
        };
        for _ in 0..members {
            world.join();
        }
        world
    }

    pub(super) fn join(&mut self) -> NodeId {
        let (mut id, mut seed) = ([0; 32], [0; 32]);
        self.rng.fill_bytes(&mut id);
        self.rng.fill_bytes(&mut seed);
        let id = NodeId::from_bytes(id);
        let gossip = Gossip::new(id, GossipConfig::default(), self.now, seed);
        let (held, joined) = (BTreeMap::new(), self.now);
        let member = Member { gossip, held, joined, deadline: None, is_silent: false };
        self.members.insert(id, member);
        self.drain(id);
        id
    }

    pub(super) fn leave(&mut self, id: NodeId) {
        self.members.remove(&id);
        let linked = |(a, b): &&(NodeId, NodeId)| *a == id || *b == id;
        for link in self.links.iter().filter(linked).copied().collect::<Vec<_>>() {
            self.links.remove(&link);
            let other = if link.0 == id { link.1 } else { link.0 };
            self.after(ms(DEAD_MS), other, Event::Input(Input::PeerDown(id)));
        }
    }

    pub(super) fn random(&mut self) -> NodeId {
        let at = pick(&mut self.rng, self.members.len()).unwrap();
        *self.members.keys().nth(at).unwrap()
    }

    /// Somebody says something.
    pub(super) fn publish(&mut self, from: NodeId, len: usize) -> ShortId {
        let mut id = [0; 16];
        self.rng.fill_bytes(&mut id);
        let id = ShortId::from_bytes(id);
        self.lens.insert(id, len);
        self.members.get_mut(&from).unwrap().held.insert(id, self.now);
        self.input(from, Input::Have { id, from: None, len });
        id
    }

    /// A peer that is no machine says something, without latency.
    pub(super) fn say(&mut self, from: NodeId, to: NodeId, message: GossipMessage) {
        self.input(to, Input::Message { peer: from, message });
    }

    pub(super) fn input(&mut self, to: NodeId, input: Input) {
        if let Some(member) = self.members.get_mut(&to) {
            member.gossip.handle_input(self.now, input);
            self.drain(to);
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let deadline = self.deadlines.peek().map(|Reverse((at, _))| *at);
            let Some(next) = event.into_iter().chain(deadline).min().filter(|at| *at <= until)
            else {
                break;
            };
            self.now = self.now.max(next);
            if event == Some(next) {
                let (_, (to, event)) = self.events.pop_first().unwrap();
                self.happen(to, event);
            } else if let Some(Reverse((at, id))) = self.deadlines.pop() {
                let Some(member) = self.members.get_mut(&id) else { continue };
                // What was set anew is in the queue again.
                if member.deadline == Some(at) {
                    member.deadline = None;
                    member.gossip.handle_timeout(self.now);
                    self.drain(id);
                    check_deadline(&self.members[&id].gossip, self.now);
                }
            }
        }
        self.now = until;
    }

    /// Whether everybody can be reached over neighbours that both sides take for such.
    pub(super) fn is_connected(&self) -> bool {
        let first = *self.members.keys().next().unwrap();
        let (mut reached, mut new) = (BTreeSet::from([first]), vec![first]);
        while let Some(id) = new.pop() {
            for (other, _) in self.members[&id].gossip.neighbors() {
                let is_mutual =
                    self.members.get(&other).is_some_and(|other| other.gossip.is_neighbor(id));
                if is_mutual && reached.insert(other) {
                    new.push(other);
                }
            }
        }
        reached.len() == self.members.len()
    }

    /// One way between two members: the same in every run of a seed, in both directions.
    fn latency(&self, a: NodeId, b: NodeId) -> Duration {
        let word = |id: NodeId| u64::from_be_bytes(*id.as_bytes().first_chunk().unwrap());
        let mixed = (word(a) ^ word(b) ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        ms(10 + mixed % 141)
    }

    fn after(&mut self, pause: Duration, to: NodeId, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + pause, self.sequence), (to, event));
    }

    fn happen(&mut self, to: NodeId, event: Event) {
        let Some(member) = self.members.get_mut(&to) else {
            if let Event::Dialed { from } = event {
                self.after(ms(DEAD_MS), from, Event::Input(Input::Unreachable(to)));
            }
            return;
        };
        match event {
            Event::Input(input) => self.input(to, input),
            Event::Pushed { from, id } => {
                self.copies += 1;
                let is_new = !member.held.contains_key(&id);
                member.held.entry(id).or_insert(self.now);
                let len = self.lens[&id];
                let input = match is_new {
                    true => Input::Have { id, from: Some(from), len },
                    false => Input::Duplicate { id, from, len },
                };
                self.input(to, input);
            }
            Event::Dialed { from } => {
                self.links.insert((from.min(to), from.max(to)));
                let latency = self.latency(from, to);
                self.after(latency, from, Event::Input(Input::PeerUp(to)));
                self.input(to, Input::PeerUp(from));
            }
            Event::WantMembers => {
                let half = |id: &NodeId| self.is_halved && id.as_bytes()[0] < 128;
                let drawn: Vec<_> = self.members.keys().copied().collect();
                let mut drawn: Vec<_> =
                    drawn.into_iter().filter(|id| half(id) == half(&to)).collect();
                let drawn = (0..20).filter_map(|_| {
                    Some(drawn.swap_remove(pick(&mut self.rng, drawn.len())?).into())
                });
                let found = drawn.collect();
                self.input(to, Input::Found(found));
            }
        }
    }

    fn drain(&mut self, id: NodeId) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let mut outputs = Vec::new();
        while let Some(output) = member.gossip.poll_output() {
            outputs.push(output);
        }
        let deadline = member.gossip.poll_timeout();
        if deadline != member.deadline {
            member.deadline = deadline;
            self.deadlines.extend(deadline.map(|at| Reverse((at, id))));
        }
        let is_silent = member.is_silent;
        for output in outputs {
            self.note(&output);
            if !is_silent || !matches!(output, Output::Push { .. }) {
                self.carry_out(id, output);
            }
        }
    }

    fn note(&mut self, output: &Output) {
        let (name, peer) = match output {
            Output::Connect(addr) => ("connect", Some(addr.id)),
            Output::Disconnect(peer) => ("disconnect", Some(*peer)),
            Output::Send { peer, message } => (kind(message), Some(*peer)),
            Output::Push { peer, .. } => ("push", Some(*peer)),
            Output::WantMembers => ("look", None),
            Output::Neighbor { peer, .. } => ("neighbor", Some(*peer)),
            Output::Ban(peer) => ("ban", Some(*peer)),
        };
        *self.counts.entry(name).or_default() += 1;
        let peer = peer.map_or(0, |peer| u64::from(peer.as_bytes()[7]));
        let name = name.bytes().fold(peer, |sum, byte| sum * 31 + u64::from(byte));
        let mixed = self.trace ^ name ^ self.now.as_micros() << 8;
        self.trace = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    fn carry_out(&mut self, id: NodeId, output: Output) {
        match output {
            Output::Connect(addr) => {
                let pause = self.latency(id, addr.id) * 3;
                self.after(pause, addr.id, Event::Dialed { from: id });
            }
            Output::Disconnect(peer) => {
                let pause = self.latency(id, peer);
                if self.links.remove(&(id.min(peer), id.max(peer))) {
                    self.after(pause, peer, Event::Input(Input::PeerDown(id)));
                }
            }
            Output::Send { peer, message } => {
                let input = Event::Input(Input::Message { peer: id, message });
                self.transmit(id, peer, input);
            }
            Output::Push { peer, id: entry } => {
                self.transmit(id, peer, Event::Pushed { from: id, id: entry });
            }
            Output::WantMembers => self.after(ms(300), id, Event::WantMembers),
            Output::Neighbor { .. } | Output::Ban(_) => {}
        }
    }

    fn transmit(&mut self, from: NodeId, to: NodeId, event: Event) {
        let is_lost = self.rng.next_u64() % 100 < self.loss_percent;
        if !is_lost && self.links.contains(&(from.min(to), from.max(to))) {
            let pause = self.latency(from, to);
            self.after(pause, to, event);
        }
    }
}

fn kind(message: &GossipMessage) -> &'static str {
    match message {
        GossipMessage::Neighbor { .. } => "ask",
        GossipMessage::Neighbored { .. } => "answer",
        GossipMessage::Parted => "parted",
        GossipMessage::Shuffle(_) => "shuffle",
        GossipMessage::Shuffled(_) => "shuffled",
        GossipMessage::Have(_) => "have",
        GossipMessage::Graft(_) => "graft",
        GossipMessage::Prune => "prune",
    }
}
