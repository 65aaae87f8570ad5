//! A world of machines of roles alone: links come up at once, messages take a moment, and who
//! is nearest to a key is known.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use crate::id::{NodeId, SecretKey};
use crate::invite::PeerAddr;
use crate::key::Key;
use crate::role::machine::{Event, Output, PeerView, RoleConfig, Roles};
use crate::time::{Instant, UnixTime};
use crate::wire::{Message, NodeMessage, RoleMessage};

/// One way.
const LATENCY: Duration = Duration::from_millis(20);

/// After this long without use a link that nobody keeps is closed.
const IDLE: Duration = Duration::from_secs(30);

/// Until a dead peer is noticed.
const DEAD_AFTER: Duration = Duration::from_secs(3);

/// What is under way.
#[derive(Debug)]
enum Flight {
    Message(NodeId, RoleMessage),
    Reached(NodeId),
    Nearest(u64, Vec<PeerAddr>),
    Down(NodeId, bool),
    Probed(NodeId, bool),
}

pub(super) struct Host {
    pub(super) roles: Roles,
    pub(super) is_alive: bool,
    /// Nobody reaches it; it reaches others.
    pub(super) is_hidden: bool,
    pub(super) kept: BTreeSet<NodeId>,
    pub(super) events: Vec<(Instant, Event)>,
    pub(super) state: Vec<u8>,
    secret: SecretKey,
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) hosts: BTreeMap<NodeId, Host>,
    links: BTreeMap<(NodeId, NodeId), Instant>,
    flights: BTreeMap<(Instant, u64), (NodeId, Flight)>,
    sequence: u64,
    config: RoleConfig,
    /// What nodes lend, by the first two bits of their ids.
    capacities: [u8; 4],
    /// Bytes of messages sent, by type number.
    pub(super) bytes: BTreeMap<u8, u64>,
}

const START: UnixTime = UnixTime::from_secs(1_700_000_000);

fn contact(id: NodeId) -> PeerAddr {
    let [a, b, c, ..] = *id.as_bytes();
    let addr = ([80 + a % 100, b, c, 1], 4_000).into();
    PeerAddr { id, addrs: vec![addr], homes: Vec::new() }
}

impl World {
    pub(super) fn new(count: u16, config: RoleConfig) -> Self {
        let capacities = [config.capacity_log2; 4];
        Self::with_capacities(count, config, capacities)
    }

    pub(super) fn with_capacities(count: u16, config: RoleConfig, capacities: [u8; 4]) -> Self {
        let mut world = Self {
            now: Instant::ZERO,
            hosts: BTreeMap::new(),
            links: BTreeMap::new(),
            flights: BTreeMap::new(),
            sequence: 0,
            config,
            capacities,
            bytes: BTreeMap::new(),
        };
        for n in 0..count {
            let mut seed = [0xa5; 32];
            seed[..2].copy_from_slice(&n.to_be_bytes());
            world.boot(SecretKey::from_bytes(seed), Vec::new());
        }
        world.make_warm();
        world
    }

    /// Links everybody to its four nearest and some others, as the index does.
    fn make_warm(&mut self) {
        let ids: Vec<_> = self.alive().collect();
        for (at, id) in ids.iter().enumerate() {
            let near = self.nearest(&Key::of_node(*id), 5);
            let others = [at * 7 + 1, at * 31 + 3].map(|other| ids[other % ids.len()]);
            for peer in near.into_iter().map(|peer| peer.id).chain(others) {
                if peer != *id {
                    self.host(*id).kept.insert(peer);
                    self.link(*id, peer);
                }
            }
        }
        self.drain_all();
    }

    fn boot(&mut self, secret: SecretKey, state: Vec<u8>) {
        let id = secret.id();
        let mut seed = *id.as_bytes();
        seed[0] ^= 1;
        let config = RoleConfig { capacity_log2: self.capacity_log2(id), ..self.config.clone() };
        let roles = Roles::new(secret.clone(), "main".into(), config, seed);
        let host = Host {
            roles,
            is_alive: true,
            is_hidden: false,
            kept: BTreeSet::new(),
            events: Vec::new(),
            state,
            secret,
        };
        self.hosts.insert(id, host);
        let (now, unix) = (self.now, self.unix());
        let host = self.host(id);
        host.roles.restore(now, &host.state);
        host.roles.handle_clock(now, unix);
        host.roles.set_nonce(now, 1);
    }

    /// What the calendar says.
    pub(super) fn unix(&self) -> UnixTime {
        START + (self.now - Instant::ZERO)
    }

    pub(super) fn capacity_log2(&self, id: NodeId) -> u8 {
        self.capacities[usize::from(id.as_bytes()[0] >> 6)]
    }

    /// Kills a node and starts it again with what it had on disk.
    pub(super) fn restart(&mut self, id: NodeId) {
        self.kill(id);
        let (secret, state) = (self.hosts[&id].secret.clone(), self.hosts[&id].state.clone());
        self.boot(secret, state);
        self.set_sizes();
        for peer in self.nearest(&Key::of_node(id), 5) {
            if peer.id != id {
                self.host(id).kept.insert(peer.id);
                self.link(id, peer.id);
            }
        }
        self.drain_all();
    }

    pub(super) fn host(&mut self, id: NodeId) -> &mut Host {
        self.hosts.get_mut(&id).expect("known")
    }

    pub(super) fn alive(&self) -> impl Iterator<Item = NodeId> {
        self.hosts.iter().filter(|(_, host)| host.is_alive).map(|(id, _)| *id)
    }

    fn nearest(&self, key: &Key, count: usize) -> Vec<PeerAddr> {
        let mut all: Vec<_> = self.alive().collect();
        all.sort_by_key(|id| Key::of_node(*id).distance(key));
        all.into_iter().take(count).map(contact).collect()
    }

    fn set_sizes(&mut self) {
        let count = self.alive().count() as f64;
        let now = self.now;
        for host in self.hosts.values_mut() {
            host.roles.set_size(now, Some(count));
        }
    }

    fn link(&mut self, a: NodeId, b: NodeId) {
        let is_new = !self.links.contains_key(&(a, b));
        for (one, other) in [(a, b), (b, a)] {
            self.links.insert((one, other), self.now);
        }
        if is_new {
            let now = self.now;
            for (one, other) in [(a, b), (b, a)] {
                let contact = contact(other);
                let ip = Some(contact.addrs[0].ip());
                self.host(one).roles.peer_up(now, &PeerView { contact, ip });
            }
        }
    }

    fn fly(&mut self, after: Duration, to: NodeId, flight: Flight) {
        self.sequence += 1;
        self.flights.insert((self.now + after, self.sequence), (to, flight));
    }

    /// Nobody is told: the links break when silence is noticed.
    pub(super) fn kill(&mut self, id: NodeId) {
        self.host(id).is_alive = false;
        let peers: Vec<_> =
            self.links.keys().filter(|(one, _)| *one == id).map(|(_, other)| *other).collect();
        for peer in peers {
            self.links.remove(&(id, peer));
            self.links.remove(&(peer, id));
            self.fly(DEAD_AFTER, peer, Flight::Down(id, false));
        }
    }

    pub(super) fn drain_all(&mut self) {
        let ids: Vec<_> = self.alive().collect();
        for id in ids {
            self.drain(id);
        }
    }

    fn drain(&mut self, id: NodeId) {
        while let Some(output) = self.host(id).roles.poll_output() {
            match output {
                Output::Send(to, message) => self.carry(id, to, message),
                Output::Reach(peer) => self.fly(LATENCY * 3, id, Flight::Reached(peer.id)),
                Output::Probe(peer) => {
                    let is_reached = self
                        .hosts
                        .get(&peer.id)
                        .is_some_and(|host| host.is_alive && !host.is_hidden);
                    if is_reached {
                        self.link(id, peer.id);
                    }
                    self.fly(LATENCY * 3, id, Flight::Probed(peer.id, is_reached));
                }
                Output::Keep(peer, true) => {
                    self.host(id).kept.insert(peer);
                }
                Output::Keep(peer, false) => {
                    self.host(id).kept.remove(&peer);
                }
                Output::Nearest { tag, key, count } => {
                    let nearest = self.nearest(&key, count);
                    self.fly(LATENCY * 10, id, Flight::Nearest(tag, nearest));
                }
                Output::Persist(state) => self.host(id).state = state.to_vec(),
                Output::Event(event) => {
                    let now = self.now;
                    self.host(id).events.push((now, event));
                }
                Output::Seat(_) | Output::Seats(..) => {}
            }
        }
    }

    fn carry(&mut self, from: NodeId, to: NodeId, message: RoleMessage) {
        let bytes = Message::Node(NodeMessage::Role(message.clone())).encode();
        let number = if bytes[3] == 0x18 { bytes[4] } else { bytes[3] };
        *self.bytes.entry(number).or_default() += bytes.len() as u64;
        if self.links.contains_key(&(from, to)) {
            for pair in [(from, to), (to, from)] {
                self.links.insert(pair, self.now);
            }
            self.fly(LATENCY, to, Flight::Message(from, message));
        }
    }

    fn close_idle(&mut self) {
        let idle: Vec<_> = self
            .links
            .iter()
            .filter(|((a, b), used)| a < b && self.now - **used > IDLE)
            .map(|(pair, _)| *pair)
            .filter(|(a, b)| !self.hosts[a].kept.contains(b) && !self.hosts[b].kept.contains(a))
            .collect();
        for (a, b) in idle {
            for (one, other) in [(a, b), (b, a)] {
                self.links.remove(&(one, other));
                self.fly(Duration::ZERO, one, Flight::Down(other, true));
            }
        }
    }

    pub(super) fn run(&mut self, long: Duration) {
        let end = self.now + long;
        self.set_sizes();
        let mut tick = self.now;
        loop {
            let deadline = self
                .hosts
                .values()
                .filter(|host| host.is_alive)
                .filter_map(|host| host.roles.poll_timeout())
                .min();
            let flight = self.flights.keys().next().map(|(at, _)| *at);
            let next = [deadline, flight, Some(tick)].into_iter().flatten().min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            if self.now >= tick {
                tick = self.now + Duration::from_secs(5);
                self.close_idle();
            }
            while let Some(entry) = self.flights.first_entry().filter(|one| one.key().0 <= self.now)
            {
                let (to, flight) = entry.remove();
                self.land(to, flight);
            }
            let now = self.now;
            let due: Vec<_> = self
                .hosts
                .iter()
                .filter(|(_, host)| host.is_alive)
                .filter(|(_, host)| host.roles.poll_timeout().is_some_and(|at| at <= now))
                .map(|(id, _)| *id)
                .collect();
            for id in due {
                self.host(id).roles.handle_timeout(now);
                self.drain(id);
                assert!(self.host(id).roles.poll_timeout().is_none_or(|at| at > now));
            }
        }
        self.now = end;
    }

    fn land(&mut self, to: NodeId, flight: Flight) {
        let now = self.now;
        if !self.hosts[&to].is_alive {
            return;
        }
        match flight {
            Flight::Message(from, message) => {
                self.host(to).roles.handle_message(now, from, message);
            }
            Flight::Reached(peer) => {
                if self.hosts.get(&peer).is_some_and(|host| host.is_alive && !host.is_hidden) {
                    self.link(to, peer);
                    self.drain(peer);
                } else {
                    self.host(to).roles.unreachable(now, peer);
                }
            }
            Flight::Nearest(tag, nodes) => self.host(to).roles.nearest(now, tag, &nodes),
            Flight::Down(peer, is_polite) => {
                if !self.links.contains_key(&(to, peer)) {
                    self.host(to).roles.peer_down(now, peer, is_polite);
                }
            }
            Flight::Probed(peer, is_reached) => {
                self.drain(peer);
                self.host(to).roles.probed(now, peer, is_reached);
            }
        }
        self.drain(to);
    }

    /// Who has a seat: whether it serves, and whether it is lent for minutes.
    pub(super) fn seats(&self) -> BTreeMap<NodeId, (bool, bool)> {
        let alive = self.hosts.iter().filter(|(_, host)| host.is_alive);
        alive
            .filter_map(|(id, host)| {
                let stats = host.roles.stats();
                stats.seat.map(|(_, is_active)| (*id, (is_active, stats.is_acting)))
            })
            .collect()
    }

    /// How many serve, stand by, and are lent for minutes.
    pub(super) fn count(&self) -> (usize, usize, usize) {
        let seats = self.seats();
        let active = seats.values().filter(|(is_active, _)| *is_active).count();
        let acting = seats.values().filter(|(_, is_acting)| *is_acting).count();
        (active, seats.len() - active, acting)
    }

    /// How many nodes have so many living homes, or a seat.
    pub(super) fn served(&self, wanted: usize) -> usize {
        let seats = self.seats();
        let is_served = |host: &Host| {
            let homes = host.roles.stats().homes;
            homes.iter().filter(|home| seats.contains_key(home)).count() >= wanted
        };
        self.alive().filter(|id| seats.contains_key(id) || is_served(&self.hosts[id])).count()
    }
}
