//! Hosts: what they are, and how they come and go.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use baran_proto::bootstrap::BootstrapConfig;
use baran_proto::id::{NodeId, SecretKey};
use baran_proto::index::IndexConfig;
use baran_proto::key::Key;
use baran_proto::node::{DialId, HostAddr, Input, Node, NodeConfig};
use baran_proto::path;
use baran_proto::role::RoleConfig;
use baran_proto::time::Instant;

use super::disk::Disk;
use super::{What, World};
use crate::cache::{HOMES, Known, NOBODY};
use crate::draw::Draw;
use crate::net::account::Traffic;
use crate::net::addr;
use crate::net::capacity::{self, Service};
use crate::net::conn::ConnId;
use crate::net::geo::Place;
use crate::net::nat::{Filter, Nat};
use crate::policy::Policy;

/// The port that every node binds, and binds again.
const PORT: u16 = 4_000;

/// What solves everybody's puzzle: everybody has paid for its identity.
pub(super) const PUZZLE: u64 = 0;

/// Pause between samples of a path in milliseconds; there are three of them.
const SAMPLE_MS: u64 = 2_000;

/// What a host is like, where it is not drawn.
#[derive(Debug, Clone, Copy, Default)]
pub struct Profile {
    /// Its NAT; drawn by the world's shares if absent.
    pub nat: Option<Nat>,
    /// Its address; drawn if absent.
    pub ip: Option<Ipv4Addr>,
    /// Works against the others.
    pub is_adversary: bool,
    /// Bytes a second of its uplink; drawn if absent.
    pub capacity: Option<u64>,
    /// Part of its secret.
    pub salt: u64,
}

/// A dial under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    pub(super) dial: DialId,
    /// Whom its packets get to; `None` if nobody has that address.
    pub(super) to: Option<u32>,
    pub(super) began: Instant,
    /// It will succeed.
    pub(super) is_answered: bool,
}

/// A computer. Its node is there while it is on.
#[derive(Debug)]
pub struct Host {
    /// Who its node is.
    pub id: NodeId,
    /// Where that stands in the key space.
    pub key: Key,
    /// What is between it and the rest.
    pub nat: Nat,
    /// Works against the others.
    pub is_adversary: bool,
    /// Passes nothing on in topics, and floods its neighbours there.
    pub is_flooder: bool,
    /// Never comes back.
    pub is_retired: bool,
    /// Whether it is on.
    pub is_on: bool,
    /// How often it was switched on.
    pub run: u32,
    /// Since when it is on, or off.
    pub since: Instant,
    /// What it sent.
    pub traffic: Traffic,
    /// What it gives to others.
    pub service: Service,
    pub(crate) node: Option<Box<Node>>,
    pub(super) ip: Ipv4Addr,
    /// Whom it knew when it was on last, the nearest first; `None` for what a former run before
    /// this world says.
    pub(crate) cache: Option<Box<[Known]>>,
    /// Through whom it could be reached when it was on last.
    pub(crate) homes: [u32; HOMES],
    pub(super) disk: Disk,
    pub(super) salt: u64,
    pub(super) half: bool,
    pub(super) place: Place,
    pub(super) deadline: Option<Instant>,
    pub(super) dials: Vec<Pending>,
    pub(super) filter: Filter,
    /// Relays whose frames of unknown channels it takes.
    pub(super) inbound: Vec<u32>,
    /// Channels that it forwards.
    pub(super) bridges: Vec<u32>,
    pub(crate) conns: Vec<ConnId>,
}

impl Host {
    /// The address of its socket in its own eyes.
    #[must_use]
    pub fn local(&self, host: u32) -> SocketAddr {
        match self.nat {
            Nat::Open => SocketAddr::from((self.ip, PORT)),
            Nat::Easy | Nat::Hard => SocketAddr::from((addr::private(host), PORT)),
        }
    }

    /// The address of its socket in the eyes of another.
    #[must_use]
    pub fn outside(&self, host: u32, viewer: u32) -> SocketAddr {
        let port = match self.nat {
            Nat::Open | Nat::Easy => PORT,
            // Some port for each viewer, never that of an endpoint-independent mapping.
            Nat::Hard => {
                let mixed = (u64::from(host) << 32 | u64::from(viewer)).wrapping_mul(0x9e37_79b9);
                10_000 + u16::try_from(mixed >> 16 & 0x7fff).unwrap_or_default()
            }
        };
        SocketAddr::from((self.ip, port))
    }

    /// What its owner lends: a power of two of bytes a second.
    #[must_use]
    pub fn lent_log2(&self) -> u8 {
        u8::try_from(self.service.lent().max(1).ilog2()).unwrap_or(u8::MAX)
    }

    /// Its node, while it is on.
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        self.node.as_deref()
    }
}

impl World {
    /// The secret of a host's node; `salt` tells those apart that are tried for one host.
    pub(super) fn secret(&self, host: u32, salt: u64) -> SecretKey {
        let mut bytes = Draw::new(self.config.seed, 1 << 32 | u64::from(host)).bytes();
        bytes[..8].copy_from_slice(&salt.to_le_bytes());
        SecretKey::from_bytes(bytes)
    }

    /// Adds a host whose point is nearer to `key` than that of any host so far, as an attacker
    /// finds it: by drawing keys, about as many as there are hosts.
    ///
    /// # Panics
    ///
    /// With more than 2³² hosts.
    pub fn add_host_near(&mut self, profile: &Profile, key: Key) -> u32 {
        let honest = self.hosts.iter().filter(|host| !host.is_adversary);
        let least = honest.map(|host| host.key.distance(&key)).min();
        let host = self.hosts.len();
        let host = u32::try_from(host).expect("fewer hosts than fit in memory");
        let is_near = |salt: &u64| {
            let at = Key::of_node(self.secret(host, *salt).id());
            least.is_none_or(|least| at.distance(&key) < least)
        };
        let salt = (0..).find(is_near).expect("some key of all is near");
        self.add_host(&Profile { salt, ..*profile })
    }

    /// Adds a host that is off, and returns its number.
    ///
    /// # Panics
    ///
    /// With more than 2³² hosts.
    pub fn add_host(&mut self, profile: &Profile) -> u32 {
        let host = u32::try_from(self.hosts.len()).expect("fewer hosts than fit in memory");
        let id = self.secret(host, profile.salt).id();
        // Everything of a host is drawn from a generator of its own, so that one more look-up or
        // lost packet elsewhere does not change who it is.
        let mut draw = Draw::new(self.config.seed, 2 << 32 | u64::from(host));
        let kind = draw.uniform();
        let drawn = if kind < self.config.open {
            Nat::Open
        } else if kind < self.config.open + self.config.hard {
            Nat::Hard
        } else {
            Nat::Easy
        };
        let ip = match profile.ip {
            Some(ip) if self.addresses.take_this(ip, host) => ip,
            _ => self.addresses.take(&mut draw, host),
        };
        let purpose = 7 << 32 | u64::from(host);
        let drawn_capacity = capacity::draw(&mut Draw::new(self.config.seed, purpose));
        let is_bound = self.config.is_limited && self.config.policy.has_floor();
        self.by_id.insert(id, host);
        self.hosts.push(Host {
            id,
            key: Key::of_node(id),
            nat: profile.nat.unwrap_or(drawn),
            is_adversary: profile.is_adversary,
            is_flooder: false,
            is_retired: false,
            is_on: false,
            salt: profile.salt,
            run: 0,
            since: self.now,
            traffic: Traffic::default(),
            service: Service::new(profile.capacity.unwrap_or(drawn_capacity), is_bound),
            node: None,
            ip,
            cache: None,
            homes: [NOBODY; HOMES],
            disk: Disk::default(),
            half: draw.chance(0.5),
            place: Place::draw(&mut draw),
            deadline: None,
            dials: Vec::new(),
            filter: Filter::default(),
            inbound: Vec::new(),
            bridges: Vec::new(),
            conns: Vec::new(),
        });
        host
    }

    /// Switches a host on at a moment.
    pub fn join_at(&mut self, at: Instant, host: u32) {
        self.push_at(at, What::Join(host));
    }

    /// Switches a host off at a moment, if it is then still in the run that it is in now.
    pub fn leave_at(&mut self, at: Instant, host: u32) {
        let run = self.hosts[host as usize].run;
        self.push_at(at, What::Leave { host, run });
    }

    /// Switches a host off for good.
    pub fn retire(&mut self, host: u32) {
        self.hosts[host as usize].is_retired = true;
        self.leave(host);
    }

    /// Switches a host on: its node starts with what the host kept.
    pub(crate) fn join(&mut self, host: u32) {
        let state = &self.hosts[host as usize];
        if state.is_on || state.is_retired {
            return;
        }
        let secret = self.secret(host, self.hosts[host as usize].salt);
        let state = &mut self.hosts[host as usize];
        state.is_on = true;
        state.run += 1;
        state.since = self.now;
        let purpose = u64::from(state.run) << 40 | 3 << 32 | u64::from(host);
        let seed = Draw::new(self.config.seed, purpose).bytes();
        let capacity_log2 = state.lent_log2();
        let policy = self.config.policy;
        let config = self
            .node_configs
            .entry(capacity_log2)
            .or_insert_with(|| Arc::new(node_config(policy, capacity_log2)));
        let node = Node::new(secret, config.clone(), seed);
        state.node = Some(Box::new(node));
        self.set_online(self.online + 1);
        let local = self.hosts[host as usize].local(host);
        let prefix = if local.ip() == IpAddr::from(self.hosts[host as usize].ip) { 32 } else { 24 };
        let addrs = vec![HostAddr { ip: local.ip(), prefix }];
        self.input(host, Input::HostAddrs { addrs, bound: vec![local] });
        self.start_node(host);
        self.plan_leave(host);
    }

    /// Switches a host off. Some say goodbye, the others are missed only after a while.
    pub(crate) fn leave(&mut self, host: u32) {
        if !self.hosts[host as usize].is_on {
            return;
        }
        let says_goodbye = self.draw.chance(self.config.goodbye);
        self.save_cache(host);
        let state = &mut self.hosts[host as usize];
        state.is_on = false;
        state.since = self.now;
        state.node = None;
        state.dials = Vec::new();
        state.inbound = Vec::new();
        let conns = core::mem::take(&mut state.conns);
        let bridges = core::mem::take(&mut state.bridges);
        self.deadlines.set(host, &mut state.deadline, None);
        self.set_online(self.online - 1);
        let asked: Vec<_> = self.lookups.range((host, 0)..=(host, u32::MAX)).copied().collect();
        for request in asked {
            self.lookups.remove(&request);
        }
        for conn in conns {
            self.drop_end(conn, host, says_goodbye);
        }
        for bridge in bridges {
            self.drop_bridge(bridge);
        }
        self.plan_return(host);
    }

    /// Feeds a node what it starts with, in the order of the driver.
    fn start_node(&mut self, host: u32) {
        let unix = self.unix();
        self.input(host, Input::Clock(unix));
        let mut restored = self.hosts[host as usize].disk.read(unix);
        if restored.role.is_empty() {
            restored.role = self.former_roles(host);
        }
        self.input(host, Input::Restore(restored));
        let cached = self.cached_peers(host);
        if self.config.policy == Policy::Mandate {
            self.input(host, Input::Puzzle(PUZZLE));
        }
        self.input(host, Input::Boot(cached));
    }
}

/// Cached peers that a node's bootstrap is told of.
const CACHED_MAX: usize = 20;

/// Connections that a node of a network without a floor keeps to those that serve: three, as
/// clients of Gnutella's did, of which two are nearest to it.
const CLIENT_WARM: (usize, usize) = (2, 1);

/// Clients that one of those takes at most: enough that none is turned away in a world of which it
/// is the only one left of four.
const CLIENTS_MAX: usize = 1024;

/// The config of a node in a network without a floor: it serves when its policy says so.
fn client_config(config: NodeConfig) -> NodeConfig {
    let (warm_near, warm_random) = CLIENT_WARM;
    let index = IndexConfig { serves: false, warm_near, warm_random, ..config.index };
    NodeConfig { relays: false, reservations_max: CLIENTS_MAX, index, ..config }
}

fn node_config(policy: Policy, capacity_log2: u8) -> NodeConfig {
    // No path dies here but with its host or its relay, so few samples are enough.
    let path =
        path::Config { sample_ms: SAMPLE_MS, sample_idle_ms: SAMPLE_MS, ..Default::default() };
    // The routing table takes all cached peers; the bootstrap needs a few of them, and a world has
    // no room for the others twice.
    let bootstrap = BootstrapConfig { cached_max: CACHED_MAX, ..Default::default() };
    let index = IndexConfig { verify: crate::verify::verify, ..Default::default() };
    let verify = crate::verify::verify;
    let is_solved = |_: &str, _, nonce| nonce == PUZZLE;
    let role = RoleConfig { capacity_log2, verify, is_solved, ..Default::default() };
    let config = NodeConfig {
        role,
        relay_rate_bytes_per_s: 1 << 20,
        path,
        bootstrap,
        index,
        ..Default::default()
    };
    if policy.has_floor() { config } else { client_config(config) }
}
