//! A network of indices that reach each other at once: no NATs, no gates, no relays.
//!
//! One queue of events ordered by (time, sequence). A message takes [`LATENCY`], a handshake three
//! of these; links are closed when the test
//! says so.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash};

use super::disk::Disk;
use super::*;
use crate::role::Region;
use crate::wire::index::{Store, StoreOutcome};
use crate::wire::{Message, NodeMessage};

const LATENCY: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(3);
/// Named in what the test itself asks to keep.
const BY_HAND: u32 = u32::MAX;

/// An index and what belongs to it.
pub(super) struct Peer {
    pub(super) index: Index,
    pub(super) is_alive: bool,
    pub(super) disk: Disk,
    pub(super) log: Vec<Event>,
    pub(super) located: Vec<(PeerAddr, Vec<NodeId>)>,
    pub(super) searched: Vec<NodeId>,
    pub(super) omissions: Vec<(NodeId, Key)>,
    by_hand: Option<StoreOutcome>,
}

impl Peer {
    /// What the last round of storing came to.
    pub(super) fn kept(&self) -> Option<(usize, usize)> {
        self.log.iter().rev().find_map(|event| match event {
            Event::Kept { kept, wanted, .. } => Some((*kept, *wanted)),
            _ => None,
        })
    }
}

enum What {
    Up(usize, usize),
    Hello(usize, usize),
    Message(usize, usize, IndexMessage),
    Unreachable(usize, NodeId),
    DiskDone(usize, u64, bool),
}

/// The network. See the module's documentation.
pub(super) struct Net {
    now: Instant,
    sequence: u64,
    queue: BTreeMap<(Instant, u64), What>,
    pub(super) peers: Vec<Peer>,
    numbers: BTreeMap<NodeId, usize>,
    links: BTreeSet<(usize, usize)>,
    /// Of those who are alive.
    deadlines: BTreeMap<usize, Instant>,
    /// Bytes of all messages sent.
    pub(super) bytes: usize,
    /// Of the last look-up.
    pub(super) cost: LookupCost,
    /// A digest of all outputs of all nodes and their times, if one is wanted.
    pub(super) trace: Option<DefaultHasher>,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

fn index(n: usize, config: IndexConfig, generation: u8) -> Index {
    let mut seed = [generation; 32];
    seed[0] = u8::try_from(n).unwrap();
    Index::new(secret(n), NETWORK.into(), config, seed)
}

impl Net {
    /// So many nodes, all linked to node 0.
    pub(super) fn new(size: usize, config: &IndexConfig) -> Self {
        let mut net = Self {
            now: Instant::ZERO,
            sequence: 0,
            queue: BTreeMap::new(),
            peers: Vec::new(),
            numbers: BTreeMap::new(),
            links: BTreeSet::new(),
            deadlines: BTreeMap::new(),
            bytes: 0,
            cost: LookupCost::default(),
            trace: None,
        };
        for n in 0..size {
            net.add(config.clone());
            if n > 0 {
                net.link(n, 0);
            }
        }
        net
    }

    pub(super) fn add(&mut self, config: IndexConfig) -> usize {
        let n = self.peers.len();
        self.peers.push(Peer {
            index: index(n, config, 0),
            is_alive: true,
            disk: Disk::default(),
            log: Vec::new(),
            located: Vec::new(),
            searched: Vec::new(),
            omissions: Vec::new(),
            by_hand: None,
        });
        self.numbers.insert(id(n), n);
        let unix = self.unix();
        self.peers[n].index.handle_clock(self.now, unix);
        n
    }

    fn unix(&self) -> UnixTime {
        START + (self.now - Instant::ZERO)
    }

    pub(super) fn number(&self, id: NodeId) -> Option<usize> {
        self.numbers.get(&id).copied()
    }

    pub(super) fn is_linked(&self, a: usize, b: usize) -> bool {
        self.links.contains(&pair(a, b))
    }

    /// Somebody who is alive.
    pub(super) fn alive(&self) -> usize {
        self.peers.iter().position(|peer| peer.is_alive).unwrap()
    }

    fn push(&mut self, after: Duration, what: What) {
        self.sequence += 1;
        self.queue.insert((self.now + after, self.sequence), what);
    }

    pub(super) fn link(&mut self, a: usize, b: usize) {
        self.push(LATENCY * 3, What::Up(a, b));
    }

    fn unlink_all(&mut self, n: usize) {
        self.unlink(|_, (a, b)| [a, b].contains(&n));
    }

    /// Closes the links that neither side keeps warm, nor as one to a seat of its region.
    pub(super) fn close_idle(&mut self) {
        let is_kept = |net: &Self, a: usize, b: usize| {
            let index = &net.peers[a].index;
            index.is_warm(id(b)) || index.seats.shared_with(id(b)).is_some()
        };
        self.unlink(|net, (a, b)| !is_kept(net, a, b) && !is_kept(net, b, a));
    }

    fn unlink(&mut self, is_over: impl Fn(&Self, (usize, usize)) -> bool) {
        let gone: Vec<_> =
            self.links.iter().filter(|link| is_over(self, **link)).copied().collect();
        for (a, b) in gone {
            self.links.remove(&(a, b));
            for (end, other) in [(a, b), (b, a)] {
                let now = self.now;
                self.peers[end].index.peer_down(now, id(other));
                self.drain(end);
            }
        }
    }

    pub(super) fn kill(&mut self, n: usize) {
        self.unlink_all(n);
        self.peers[n].is_alive = false;
        self.deadlines.remove(&n);
    }

    /// Ends a node and starts it with what its disk has; it is linked to nobody.
    pub(super) fn restart(&mut self, n: usize, config: IndexConfig) {
        self.unlink_all(n);
        let (now, unix, restored) = (self.now, self.unix(), self.peers[n].disk.restored());
        self.peers[n].index = index(n, config, 1);
        self.peers[n].index.handle_clock(now, unix);
        self.peers[n].index.restore(now, restored);
        self.drain(n);
        let other = (0..self.peers.len()).find(|m| *m != n && self.peers[*m].is_alive);
        self.link(n, other.expect("somebody"));
    }

    /// Makes nodes the only seats of a region, and tells everybody who is alive of it: three seats
    /// are homes of each of the others, and all are linked to each other.
    pub(super) fn elect(&mut self, region: Region, seats: &[usize]) {
        for n in 0..self.peers.len() {
            if !(self.peers[n].is_alive && region.contains(&Key::of_node(id(n)))) {
                continue;
            }
            let (now, is_seat) = (self.now, seats.contains(&n));
            let homes = (0..seats.len()).map(|at| seats[(n + at) % seats.len()]);
            let known = homes.filter(|seat| *seat != n).take(if is_seat { 12 } else { 3 });
            let known: Vec<_> = known.collect();
            let contacts: Vec<_> = known.iter().map(|seat| addr(*seat)).collect();
            self.peers[n].index.set_seats(now, region, &contacts);
            self.peers[n].index.set_seat(now, is_seat.then_some(region));
            self.drain(n);
            for seat in known {
                self.link(n, seat);
            }
        }
    }

    /// Time for everybody to fill its table.
    pub(super) fn settle(&mut self) {
        self.run(Duration::from_secs(30));
    }

    pub(super) fn command(&mut self, n: usize, command: Command) {
        self.peers[n].index.handle_command(self.now, command);
        self.drain(n);
    }

    /// How many keep it, and how many should.
    pub(super) fn publish(&mut self, n: usize, name: &str, value: &'static str) -> (usize, usize) {
        let (name, value) = (name.to_owned(), Bytes::from_static(value.as_bytes()));
        self.command(n, Command::Publish { query: QUERY, name, value });
        self.run(Duration::from_secs(10));
        self.peers[n].kept().expect("an answer")
    }

    fn query(&mut self, n: usize, command: Command) -> Vec<Record> {
        self.peers[n].log.clear();
        self.command(n, command);
        self.run(Duration::from_secs(10));
        let log = core::mem::take(&mut self.peers[n].log);
        let costs = log.iter().filter_map(|event| match event {
            Event::Done { query: QUERY, cost } => Some(*cost),
            _ => None,
        });
        let costs: Vec<_> = costs.collect();
        assert_eq!(costs.len(), 1, "it ends: {log:?}");
        self.cost = costs[0];
        let records = log.into_iter().filter_map(|event| match event {
            Event::Record { query: QUERY, record } => Some(record),
            _ => None,
        });
        records.collect()
    }

    /// The value that a node finds, the last one named.
    pub(super) fn get(&mut self, n: usize, author: usize, name: &str) -> Option<Bytes> {
        let key = Key::of_value(id(author), name);
        let find = Command::Find { query: QUERY, key, kind: RecordKind::Value, limit: 1 };
        match self.query(n, find).pop()?.content() {
            Content::Value { value, .. } => Some(value.clone()),
            _ => None,
        }
    }

    /// The announcers that a node finds.
    pub(super) fn lookup(&mut self, n: usize, limit: usize) -> BTreeSet<NodeId> {
        let find = Command::FindTopic { query: QUERY, secret: START_KEY, limit };
        let found = self.query(n, find);
        let authors: BTreeSet<_> = found.iter().map(Record::author).collect();
        assert_eq!(authors.len(), found.len(), "each once");
        authors
    }

    pub(super) fn search(&mut self, n: usize, wanted: usize) {
        self.peers[n].index.search(self.now, id(wanted), false);
        self.drain(n);
        self.run(Duration::from_secs(10));
    }

    /// Those who are alive and have a value on disk.
    pub(super) fn holders(&self, author: usize, name: &str) -> Vec<usize> {
        let key = Key::of_value(id(author), name);
        let holds = |peer: &Peer| peer.is_alive && peer.disk.records.keys().any(|s| s.key == key);
        (0..self.peers.len()).filter(|n| holds(&self.peers[*n])).collect()
    }

    /// What a node answers somebody linked to it who wants this record kept.
    pub(super) fn store_by_hand(&mut self, n: usize, record: &Bytes) -> Option<StoreOutcome> {
        let from = (0..self.peers.len()).find(|m| self.is_linked(n, *m))?;
        let store = IndexMessage::Store(Store { request: BY_HAND, record: record.clone() });
        self.push(LATENCY, What::Message(n, from, store));
        self.run(Duration::from_secs(1));
        self.peers[from].by_hand.take()
    }

    pub(super) fn run(&mut self, for_time: Duration) {
        let end = self.now + for_time;
        loop {
            let event = self.queue.first_key_value().map(|((at, _), _)| *at);
            let timer = self.deadlines.iter().map(|(n, at)| (*at, *n)).min();
            let next = [event, timer.map(|(at, _)| at)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = next.max(self.now);
            if event == Some(next)
                && let Some((_, what)) = self.queue.pop_first()
            {
                self.happen(what);
            } else if let Some((_, n)) = timer {
                self.peers[n].index.handle_timeout(self.now);
                self.drain(n);
                let at = self.peers[n].index.poll_timeout();
                assert!(at.is_none_or(|at| at > self.now), "{n} spins");
            }
        }
        self.now = end;
    }

    fn happen(&mut self, what: What) {
        let now = self.now;
        match what {
            What::Up(a, b) => {
                if !(self.peers[a].is_alive
                    && self.peers[b].is_alive
                    && self.links.insert(pair(a, b)))
                {
                    return;
                }
                for (end, other) in [(a, b), (b, a)] {
                    self.peers[end].index.peer_up(now, &addr(other));
                    self.drain(end);
                    self.push(LATENCY, What::Hello(end, other));
                }
            }
            What::Hello(to, from) if self.is_linked(to, from) => {
                let (serves, unix_s) =
                    (self.peers[from].index.config.serves, self.peers[from].index.unix_s(now));
                self.peers[to].index.peer_hello(now, id(from), serves, unix_s);
                self.peers[to].index.set_guest(id(from), true);
                self.drain(to);
            }
            What::Message(to, from, message) if self.is_linked(to, from) => {
                if let IndexMessage::Stored(stored) = &message
                    && stored.request == BY_HAND
                {
                    self.peers[to].by_hand = Some(stored.outcome);
                }
                self.peers[to].index.handle_message(now, id(from), message);
                self.drain(to);
            }
            What::Unreachable(n, peer) => {
                self.peers[n].index.unreachable(now, peer);
                self.drain(n);
            }
            What::DiskDone(n, token, is_kept) => {
                self.peers[n].index.disk_done(now, token, is_kept);
                self.drain(n);
            }
            What::Hello(..) | What::Message(..) => {}
        }
    }

    fn drain(&mut self, n: usize) {
        self.drain_outputs(n);
        match self.peers[n].index.poll_timeout().filter(|_| self.peers[n].is_alive) {
            Some(at) => drop(self.deadlines.insert(n, at)),
            None => drop(self.deadlines.remove(&n)),
        }
    }

    fn drain_outputs(&mut self, n: usize) {
        while let Some(output) = self.peers[n].index.poll_output() {
            if let Some(trace) = &mut self.trace {
                format!("{:?} {n} {output:?}", self.now).hash(trace);
            }
            match output {
                Output::Send(to, message) => {
                    self.bytes += Message::Node(NodeMessage::Index(message.clone())).encode().len();
                    let to = self.number(to).expect("only who is linked");
                    self.push(LATENCY, What::Message(to, n, message));
                }
                Output::Reach { peer, .. } => {
                    let to = self.number(peer.id).filter(|to| self.peers[*to].is_alive);
                    match to {
                        Some(to) => self.link(n, to),
                        None => self.push(PATIENCE, What::Unreachable(n, peer.id)),
                    }
                }
                Output::Disk(token, action) => {
                    let is_kept = self.peers[n].disk.write(action);
                    self.push(Duration::from_millis(2), What::DiskDone(n, token, is_kept));
                }
                Output::Event(event) => self.peers[n].log.push(event),
                Output::Located { peer, vias } => self.peers[n].located.push((peer, vias)),
                Output::Searched(peer) => self.peers[n].searched.push(peer),
                Output::Omission { seat, key } => self.peers[n].omissions.push((seat, key)),
                Output::Release(_) | Output::Warm(..) | Output::Nodes(..) => {}
            }
        }
    }
}
