//! The world: hosts that run real nodes, and everything that happens to them.
//!
//! A host is a computer with an address, a NAT and a place; while it is on it runs a
//! [`Node`], the very machine of the real program. What the node wants
//! done is carried out here at the level of QUIC's outcomes: a dial becomes a link after a
//! handshake's time or fails after the driver's patience, a message arrives in order after the
//! path's latency. No datagram is simulated; that is what makes 100,000 nodes fit one core.
//!
//! What is left out, because no scenario needs it and each would cost memory or events: the egress
//! gate and the forwarder (what they would let pass, passes), keep-alives as events (their bytes
//! are computed), samples of a path once it is quiet, congestion on the way, and hosts
//! that share one NAT.
//!
//! Where [`Config::is_limited`] says so, a host answers handshakes and requests no faster than its
//! uplink carries; scenarios that flood nobody do without.

mod adversary;
mod carry;
mod dial;
mod disk;
mod elected;
mod host;
mod link;
mod paths;
mod relay;
mod seats;
mod service;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use baran_proto::id::NodeId;
use baran_proto::key::Key;
use baran_proto::machine::Machine;
use baran_proto::node::{DialId, Event, Input, Node, NodeConfig};
use baran_proto::path::PathId;
use baran_proto::time::{Instant, UnixTime};
use baran_proto::topic::repair::RepairMessage;
use baran_proto::wire::topic::TopicBody;

use self::elected::Elected;
pub use self::host::{Host, Profile};
use crate::cache::Former;
use crate::draw::Draw;
use crate::engine::{Deadlines, Queue};
use crate::net::account::Traffic;
use crate::net::addr::Addresses;
use crate::net::channel::Bridges;
use crate::net::conn::{ConnId, Conns};
use crate::net::keepalive::lost_after_sending;
use crate::net::kind::Kind;
use crate::policy::Policy;
use crate::trace::Trace;

/// The calendar when the world begins: some day in 2030.
pub const EPOCH: UnixTime = UnixTime::from_secs(1_900_000_000);

/// What a world is like.
#[derive(Debug, Clone)]
pub struct Config {
    /// Everything is drawn from it.
    pub seed: u64,
    /// Share of hosts with a public address.
    pub open: f64,
    /// Share of hosts with an address-dependent mapping.
    pub hard: f64,
    /// Share of packets that are lost.
    pub loss: f64,
    /// Share of nodes that say goodbye when they stop; the others vanish.
    pub goodbye: f64,
    /// By what rule nodes serve others.
    pub policy: Policy,
    /// Hosts answer no faster than their uplinks carry ([`capacity`](crate::net::capacity)).
    pub is_limited: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 1,
            open: 0.25,
            hard: 0.15,
            loss: 0.01,
            goodbye: 0.5,
            policy: Policy::Mandate,
            is_limited: false,
        }
    }
}

/// Something that a scenario wants to know.
#[derive(Debug)]
pub struct Note {
    /// When.
    pub at: Instant,
    /// Which host.
    pub host: u32,
    /// What its node told its owner.
    pub event: Event,
}

/// News of a link's paths, on its way to one end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum News {
    /// The other side named candidates.
    Candidates,
    /// A path is open.
    Opened(PathId),
    /// A path is gone.
    Closed(PathId),
    /// A relayed path could not be had.
    NoRelay,
}

/// What happens.
#[derive(Debug)]
pub(crate) enum What {
    /// The handshake of a dial is done at the client.
    Dialled { host: u32, run: u32, dial: DialId, to: u32, to_run: u32, via: Option<u32> },
    /// A dial came to nothing.
    DialFails { host: u32, run: u32, dial: DialId },
    /// The handshake is done at the server.
    Accepted(ConnId),
    /// A message arrives.
    Message { conn: ConnId, end: usize, kind: Kind, bytes: Box<[u8]> },
    /// A link's end learns something.
    Tell { conn: ConnId, end: usize, news: News },
    /// A path through a round of punching or a relay is validated.
    PathOpens { conn: ConnId, via: Option<u32> },
    /// An end learns that the connection is closed.
    Closed { conn: ConnId, end: usize },
    /// A connection that nothing passes through is given up at both ends.
    IdleOut(ConnId),
    /// A link that is not preferred is closed if that is still so.
    Retired { conn: ConnId, end: usize },
    /// A channel may have expired.
    ChannelEnds(u32),
    /// A host is switched on.
    Join(u32),
    /// A host is switched off, if it is still in this run.
    Leave { host: u32, run: u32 },
}

/// Figures of a run.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Events handled.
    pub events: u64,
    /// Deadlines of nodes handled.
    pub timeouts: u64,
    /// Dials begun.
    pub dials: u64,
    /// Dials that came to nothing.
    pub dials_failed: u64,
    /// Dials that became links.
    pub links: u64,
    /// Messages sent and their bytes, by their type's number.
    pub messages: BTreeMap<u8, (u64, u64)>,
    /// Of topics.
    pub topics: TopicTotals,
}

/// What was sent for topics.
#[derive(Debug, Clone, Copy, Default)]
pub struct TopicTotals {
    /// Messages, and their bytes.
    pub all: (u64, u64),
    /// Of these, entries pushed along the tree.
    pub pushed: (u64, u64),
    /// Of these, comparisons and what was fetched by them.
    pub repair: (u64, u64),
    /// Entries that were fetched by comparisons.
    pub fetched: u64,
}

impl TopicTotals {
    pub(crate) fn add(&mut self, body: &TopicBody, len: usize) {
        let add = |counter: &mut (u64, u64)| {
            counter.0 += 1;
            counter.1 += len as u64;
        };
        add(&mut self.all);
        match body {
            TopicBody::Push(_) => add(&mut self.pushed),
            TopicBody::Repair(message) => {
                add(&mut self.repair);
                if let RepairMessage::Entries { entries, .. } = message {
                    self.fetched += entries.len() as u64;
                }
            }
            _ => {}
        }
    }
}

/// The world. See the module's documentation.
#[derive(Debug)]
pub struct World {
    pub(crate) now: Instant,
    pub(crate) config: Config,
    /// Of all nodes, by what they lend: powers of two of bytes a second.
    node_configs: BTreeMap<u8, Arc<NodeConfig>>,
    pub(crate) draw: Draw,
    pub(crate) hosts: Vec<Host>,
    pub(crate) conns: Conns,
    pub(crate) notes: Vec<Note>,
    pub(crate) totals: Totals,
    queue: Queue<What>,
    deadlines: Deadlines,
    addresses: Addresses,
    by_id: BTreeMap<NodeId, u32>,
    bridges: Bridges,
    watched: BTreeSet<(u32, NodeId)>,
    /// Of all adversaries, in the order of their keys.
    adversaries: Vec<(Key, u32)>,
    is_cut: bool,
    online: usize,
    /// Microseconds that all hosts together were on, until `online` last changed.
    online_us: (u64, Instant),
    /// Requests of look-ups that owners want, not answered yet: who asked, and their number.
    lookups: BTreeSet<(u32, u32)>,
    trace: Trace,
    pub(crate) former: Option<Former>,
    elected: Elected,
    pub(crate) population: Option<crate::population::Churn>,
    /// Who is on by then has been on for long.
    pub(crate) settled_at: Instant,
}

impl World {
    /// A world without hosts.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let mut draw = Draw::new(config.seed, 0);
        Self {
            now: Instant::from_micros(1),
            addresses: Addresses::new(&mut draw),
            draw,
            node_configs: BTreeMap::new(),
            config,
            hosts: Vec::new(),
            conns: Conns::default(),
            notes: Vec::new(),
            totals: Totals::default(),
            queue: Queue::default(),
            deadlines: Deadlines::default(),
            by_id: BTreeMap::new(),
            bridges: Bridges::default(),
            watched: BTreeSet::new(),
            adversaries: Vec::new(),
            is_cut: false,
            online: 0,
            online_us: (0, Instant::ZERO),
            lookups: BTreeSet::new(),
            trace: Trace::default(),
            former: None,
            elected: Elected::default(),
            population: None,
            settled_at: Instant::ZERO,
        }
    }

    /// The moment.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The moment on every calendar.
    #[must_use]
    pub fn unix(&self) -> UnixTime {
        EPOCH + (self.now - Instant::ZERO)
    }

    /// Hosts that are on.
    #[must_use]
    pub fn online(&self) -> usize {
        self.online
    }

    /// The time that all hosts together were on.
    #[must_use]
    pub fn time_online(&self) -> Duration {
        let (until, since) = self.online_us;
        Duration::from_micros(until) + (self.now - since) * u32::try_from(self.online).unwrap_or(0)
    }

    /// A host was switched on or off.
    fn set_online(&mut self, online: usize) {
        let us = u64::try_from(self.time_online().as_micros()).unwrap_or(u64::MAX);
        (self.online_us, self.online) = ((us, self.now), online);
    }

    /// The nodes that have somebody to ask.
    #[must_use]
    pub fn joined(&self) -> usize {
        self.hosts.iter().filter_map(Host::node).filter(|node| node.is_joined()).count()
    }

    /// Copies of what is kept at a key by honest nodes that are on.
    #[must_use]
    pub fn honest_copies(&self, key: Key) -> usize {
        let honest = self.hosts.iter().filter(|host| host.is_on && !host.is_adversary);
        honest.filter(|host| host.disk.keeps(&key)).count()
    }

    /// The digest of everything that happened.
    #[must_use]
    pub fn trace(&self) -> Trace {
        self.trace
    }

    /// The host of an identity.
    #[must_use]
    pub fn host_of(&self, id: NodeId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// Figures of the run so far.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Connections that stand.
    #[must_use]
    pub fn conns_len(&self) -> usize {
        self.conns.len()
    }

    /// Events to come, for figures of cost.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.queue.len()
    }

    /// Means over the nodes that are on, for looking at a world.
    #[must_use]
    pub fn describe(&self) -> String {
        let on = || self.hosts.iter().filter_map(Host::node);
        let n = on().count().max(1) as f64;
        let mean = |of: &dyn Fn(&Node) -> f64| on().map(of).sum::<f64>() / n;
        format!(
            "joined {:.3} table {:.1} warm {:.2} records {:.1} homes {:.2} open {:.2} links {:.2} \
             nodes {:.0} asked {:.1} served {:.1} reservations {:.2} channels {:.2}",
            mean(&|node| f64::from(u8::from(node.is_joined()))),
            mean(&|node| node.index_stats().table as f64),
            mean(&|node| node.index_stats().warm as f64),
            mean(&|node| node.index_stats().records as f64),
            mean(&|node| node.our_homes().len() as f64),
            mean(&|node| f64::from(u8::from(node.is_open()))),
            self.conns.len() as f64 * 2.0 / n,
            mean(&|node| node.index_stats().nodes.unwrap_or_default()),
            mean(&|node| node.index_stats().requests_sent as f64),
            mean(&|node| node.index_stats().requests_served as f64),
            mean(&|node| node.reservations().count() as f64),
            mean(&|node| node.channels().count() as f64),
        )
    }

    /// What everybody sent, keep-alives of standing connections included.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let mut sum = Traffic::default();
        self.hosts.iter().for_each(|host| sum.add(&host.traffic));
        for (_, conn) in self.conns.iter() {
            for _ in conn.ends.iter().filter(|end| end.link.is_some()) {
                sum.keep_alive(self.now - conn.since);
            }
        }
        sum
    }

    pub(crate) fn push(&mut self, after: Duration, what: What) {
        self.queue.push(self.now + after, what);
    }

    pub(crate) fn push_at(&mut self, at: Instant, what: What) {
        self.queue.push(at.max(self.now), what);
    }

    /// Wants to know when `host` reaches `peer`.
    pub fn watch(&mut self, host: u32, peer: NodeId) {
        self.watched.insert((host, peer));
    }

    /// Wants to know that no more.
    pub fn unwatch(&mut self, host: u32, peer: NodeId) {
        self.watched.remove(&(host, peer));
    }

    /// Cuts the world in two halves, or heals it.
    pub fn set_cut(&mut self, is_cut: bool) {
        self.is_cut = is_cut;
        if !is_cut {
            return;
        }
        let halves = |ends: &[crate::net::conn::End; 2]| {
            self.hosts[ends[0].host as usize].half != self.hosts[ends[1].host as usize].half
        };
        let torn: Vec<_> =
            self.conns.iter().filter(|(_, conn)| halves(&conn.ends)).map(|(id, _)| id).collect();
        for conn in torn {
            let after = self.lost_after(conn);
            self.push(after, What::IdleOut(conn));
        }
    }

    /// Runs to a moment. What nodes told their owners is in its notes.
    pub fn run_until(&mut self, end: Instant) {
        loop {
            let event = self.queue.next();
            let timer = self.deadlines.first();
            let next = [event, timer.map(|(at, _)| at)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = next.max(self.now);
            if event == Some(next)
                && let Some((_, what)) = self.queue.pop()
            {
                self.totals.events += 1;
                self.happen(what);
            } else if let Some((_, host)) = timer {
                self.totals.timeouts += 1;
                self.fire(host);
            }
        }
        self.now = end.max(self.now);
    }

    /// The deadline of a node has come.
    fn fire(&mut self, host: u32) {
        self.trace.word(self.now.as_micros() << 20 ^ u64::from(host));
        self.with_node(host, |node, now| node.handle_timeout(now));
    }

    /// Gives a node an input, if its host is on, and carries out what it wants.
    pub(crate) fn input(&mut self, host: u32, input: Input) {
        self.with_node(host, |node, now| node.handle_input(now, input));
    }

    fn with_node(&mut self, host: u32, call: impl FnOnce(&mut Node, Instant)) {
        // Out of its place while it runs, because carrying out its wishes looks at other hosts.
        let Some(mut node) = self.hosts[host as usize].node.take() else { return };
        self.tell_allowance(host, &mut node);
        call(&mut node, self.now);
        while let Some(output) = node.poll_output() {
            self.carry_out(host, &mut node, output);
        }
        let deadline = node.poll_timeout();
        let state = &mut self.hosts[host as usize];
        self.deadlines.set(host, &mut state.deadline, deadline);
        state.node = Some(node);
    }

    fn happen(&mut self, what: What) {
        self.trace.word(self.now.as_micros());
        match what {
            What::Dialled { host, run, dial, to, to_run, via } => {
                self.trace.word(u64::from(host) << 32 | u64::from(to));
                self.dialled(host, run, dial, (to, to_run), via);
            }
            What::DialFails { host, run, dial } => self.dial_fails(host, run, dial),
            What::Accepted(conn) => self.accepted(conn),
            What::Message { conn, end, kind, bytes } => self.message(conn, end, kind, bytes),
            What::Tell { conn, end, news } => self.tell(conn, end, news),
            What::PathOpens { conn, via } => self.path_opens(conn, via),
            What::Closed { conn, end } => self.closed(conn, end),
            What::IdleOut(conn) => self.idle_out(conn),
            What::Retired { conn, end } => self.retired(conn, end),
            What::ChannelEnds(slot) => self.channel_ends(slot),
            What::Join(host) => self.join(host),
            What::Leave { host, run } => {
                if self.hosts[host as usize].run == run {
                    self.leave(host);
                }
            }
        }
    }

    /// Whether a packet may get from one host to another: both are on, and on one side of a cut.
    pub(crate) fn reaches(&self, a: u32, b: u32) -> bool {
        let (a, b) = (&self.hosts[a as usize], &self.hosts[b as usize]);
        a.is_on && b.is_on && !(self.is_cut && a.half != b.half)
    }

    /// One way between two hosts, as one packet takes it.
    pub(crate) fn latency(&mut self, a: u32, b: u32) -> Duration {
        let (from, to) = (&self.hosts[a as usize].place, &self.hosts[b as usize].place);
        from.one_way(to) + crate::net::geo::jitter(&mut self.draw)
    }

    /// The extra time of a message of which some packets are lost: a probe time-out of one and a
    /// half round trips each time (RFC 9002 §6.2), doubling.
    pub(crate) fn lost_time(&mut self, one_way: Duration) -> Duration {
        let mut extra = Duration::ZERO;
        let mut pause = one_way * 3 + Duration::from_millis(25);
        while self.draw.chance(self.config.loss) && extra < lost_after_sending() {
            extra += pause;
            pause *= 2;
        }
        extra
    }

    /// The address of a host as another sees it.
    pub(crate) fn outside(&self, host: u32, viewer: u32) -> SocketAddr {
        self.hosts[host as usize].outside(host, viewer)
    }
}

#[cfg(test)]
mod tests;
