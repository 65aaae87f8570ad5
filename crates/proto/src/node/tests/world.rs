//! A small internet in memory that runs real nodes with their real gates and forwarders.
//!
//! One queue of events ordered by (time, sequence). A packet takes [`LATENCY`]; a handshake three
//! of these, a round of punching four. Nodes are numbered, their ids in that order.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::DefaultHasher;
use std::net::IpAddr;
use std::sync::LazyLock;

use super::super::*;
use crate::egress::{Gate, GateConfig};
use crate::forward::{ForwardConfig, Forwarder};
use crate::index::IndexConfig;
use crate::index::tests::disk::Disk;
use crate::invite::PeerAddr;
use crate::machine::check_deadline;
use crate::time::UnixTime;

/// From any node to any other.
pub(super) const LATENCY: Duration = Duration::from_millis(10);
/// How long a dial or a path that reaches nobody is tried.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// When QUIC gives up a link of which no path works.
pub(super) const IDLE: Duration = Duration::from_secs(15);

/// What stands between a host and the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nat {
    /// A public address.
    None,
    /// Endpoint-independent mapping, address-and-port-dependent filtering.
    Easy,
    /// Address-and-port-dependent mapping and filtering.
    Hard,
}

/// One computer.
pub(super) struct Host {
    pub(super) node: Node,
    pub(super) gate: Gate,
    pub(super) forwarder: Forwarder,
    pub(super) nat: Nat,
    /// Hosts of one site are behind one NAT, on one network.
    site: u8,
    pub(super) inbound: BTreeSet<SocketAddr>,
    pub(super) links: BTreeMap<LinkId, (usize, usize)>,
    next_link: u64,
    pub(super) dials: BTreeSet<DialId>,
    pub(super) trusted: BTreeMap<SocketAddr, u32>,
    /// Told to peers as what it sees of them.
    pub(super) lie: Option<SocketAddr>,
    pub(super) is_alive: bool,
    pub(super) log: Vec<(Instant, Output)>,
    /// Whom something was sent to, and when last: the NAT lets in answers.
    pub(super) holes: BTreeMap<SocketAddr, Instant>,
    pub(super) disk: Disk,
    /// How often its time-outs were handled.
    pub(super) fired: u64,
}

pub(super) struct Path {
    /// Where it leads from the client and from the server.
    pub(super) remotes: [RemoteAddr; 2],
    pub(super) tx: [u64; 2],
    pub(super) rx: [u64; 2],
}

/// A link: its client's end and its server's.
pub(super) struct Conn {
    pub(super) hosts: [usize; 2],
    links: [Option<LinkId>; 2],
    pub(super) paths: BTreeMap<PathId, Path>,
    next_path: u32,
    pub(super) candidates: [BTreeSet<SocketAddr>; 2],
    /// Ends that look at their paths no more until something passes.
    pub(super) is_quiet: [bool; 2],
}

pub(super) enum What {
    Input(usize, Input),
    /// For whatever number the link has at that end when it arrives.
    Tell(usize, usize, Box<dyn FnOnce(LinkId) -> Input>),
    /// The first packet of a dial is sent again, for the time that is named.
    Dial(usize, DialId, NodeId, RemoteAddr, u32),
    /// The handshake of a dial is done at the client.
    Dialled(usize, DialId, NodeId, [RemoteAddr; 2], usize),
    /// And at the server.
    Accepted(usize),
    PathOpens(usize, [RemoteAddr; 2]),
    /// A link that is not preferred is closed.
    Retire(usize, LinkId),
    CloseIfIdle(usize, LinkId),
    CloseDead,
}

/// The world. See the module's documentation.
pub(super) struct World {
    pub(super) now: Instant,
    sequence: u64,
    queue: BTreeMap<(Instant, u64), What>,
    pub(super) hosts: Vec<Host>,
    pub(super) conns: Vec<Conn>,
    /// Pairs of hosts between which nothing passes.
    pub(super) cut: BTreeSet<(usize, usize)>,
    /// Whether every path carries something all the time.
    pub(super) is_busy: bool,
    /// Whether every knock is lost.
    pub(super) loses_knocks: bool,
    /// Pairs of hosts that talk with each other, the lower number first.
    pub(super) sessions: BTreeSet<(usize, usize)>,
    /// A digest of all outputs of all nodes and their times, if one is wanted.
    pub(super) trace: Option<DefaultHasher>,
}

/// When the calendar of every host begins.
pub(super) const START_UNIX_S: u64 = 1_790_000_000;

fn forwarder(seed: [u8; 32]) -> Forwarder {
    let lent = ForwardConfig { rate_bytes_per_s: 1 << 30, ..ForwardConfig::default() };
    Forwarder::new(&lent, ChaCha8Rng::from_seed(seed))
}

/// The secrets of the nodes: their ids are in the order of their numbers.
static SECRETS: LazyLock<Vec<SecretKey>> = LazyLock::new(|| {
    let mut secrets: Vec<_> = (1..=64).map(|n| SecretKey::from_bytes([n; 32])).collect();
    secrets.sort_by_key(SecretKey::id);
    secrets
});

static IDS: LazyLock<Vec<NodeId>> = LazyLock::new(|| SECRETS.iter().map(SecretKey::id).collect());

pub(super) fn secret(n: usize) -> SecretKey {
    SECRETS[n].clone()
}

/// The id of a node; those of high numbers are never run.
pub(super) fn id(n: usize) -> NodeId {
    let idle = || NodeId::from_bytes([u8::try_from(n).unwrap(); 32]);
    IDS.get(n).copied().unwrap_or_else(idle)
}

/// The number of a node that runs.
pub(super) fn number(id: NodeId) -> usize {
    IDS.binary_search(&id).expect("one of ours")
}

/// Limits that let everybody relay.
pub(super) fn config() -> NodeConfig {
    // The index is off, as in a node that stays for a moment.
    let index =
        IndexConfig { serves: false, warm_near: 0, warm_random: 0, ..IndexConfig::default() };
    NodeConfig { relay_rate_bytes_per_s: 1 << 20, index, ..NodeConfig::default() }
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            now: Instant::from_micros(1),
            sequence: 0,
            queue: BTreeMap::new(),
            hosts: Vec::new(),
            conns: Vec::new(),
            cut: BTreeSet::new(),
            is_busy: true,
            loses_knocks: false,
            sessions: BTreeSet::new(),
            trace: None,
        }
    }

    /// Adds a host at a site of its own.
    pub(super) fn add(&mut self, nat: Nat) -> usize {
        let site = 100 + u8::try_from(self.hosts.len()).unwrap();
        self.add_with(nat, site, config())
    }

    pub(super) fn add_with(&mut self, nat: Nat, site: u8, config: NodeConfig) -> usize {
        let n = self.hosts.len();
        let seed = [u8::try_from(n).unwrap(); 32];
        self.hosts.push(Host {
            node: Node::new(secret(n), config, seed),
            gate: Gate::new(GateConfig::default()),
            forwarder: forwarder(seed),
            nat,
            site,
            inbound: BTreeSet::new(),
            links: BTreeMap::new(),
            next_link: 0,
            dials: BTreeSet::new(),
            trusted: BTreeMap::new(),
            lie: None,
            is_alive: true,
            log: Vec::new(),
            holes: BTreeMap::new(),
            disk: Disk::default(),
            fired: 0,
        });
        self.start(n);
        n
    }

    /// Ends the process of a host, which says goodbye, and starts it again with what its disk has.
    pub(super) fn restart(&mut self, n: usize, config: NodeConfig) {
        for conn in 0..self.conns.len() {
            if self.conns[conn].hosts.contains(&n) {
                self.close(conn);
            }
        }
        self.queue.retain(|_, what| match what {
            What::Input(to, _) | What::Dial(to, ..) | What::Dialled(to, ..) => *to != n,
            _ => true,
        });
        let seed = [u8::try_from(100 + n).unwrap(); 32];
        let host = &mut self.hosts[n];
        host.node = Node::new(secret(n), config, seed);
        (host.gate, host.forwarder) = (Gate::new(GateConfig::default()), forwarder(seed));
        host.inbound.clear();
        host.links.clear();
        host.dials.clear();
        host.trusted.clear();
        host.log.clear();
        host.is_alive = true;
        self.start(n);
        let restored = self.hosts[n].disk.restored();
        self.input(n, Input::Restore(restored));
    }

    fn start(&mut self, n: usize) {
        let unix = self.unix();
        self.input(n, Input::Clock(unix));
        let addrs = vec![HostAddr { ip: self.local(n).ip(), prefix: 24 }];
        self.input(n, Input::HostAddrs { addrs, bound: vec![SocketAddr::from(([0; 16], 4000))] });
    }

    /// What the calendar says.
    pub(super) fn unix(&self) -> UnixTime {
        UnixTime::from_secs(START_UNIX_S) + (self.now - Instant::ZERO)
    }

    /// The address of the host's interface.
    pub(super) fn local(&self, n: usize) -> SocketAddr {
        let last = u8::try_from(n + 1).unwrap();
        match self.hosts[n].nat {
            Nat::None => self.outside(n, n),
            Nat::Easy | Nat::Hard => SocketAddr::from(([192, 168, 1, last], 4000)),
        }
    }

    /// The address that the host has in the eyes of another.
    pub(super) fn outside(&self, n: usize, viewer: usize) -> SocketAddr {
        let number = u16::try_from(n).unwrap();
        let port = match self.hosts[n].nat {
            Nat::None => 4000,
            Nat::Easy => 5000 + number,
            Nat::Hard => 6000 + 100 * number + u16::try_from(viewer).unwrap(),
        };
        // A network of its own for each site.
        SocketAddr::from(([5, self.hosts[n].site, 0, 1], port))
    }

    pub(super) fn is_same_site(&self, a: usize, b: usize) -> bool {
        self.hosts[a].site == self.hosts[b].site
    }

    pub(super) fn passes(&self, a: usize, b: usize) -> bool {
        let alive = self.hosts[a].is_alive && self.hosts[b].is_alive;
        alive && !self.cut.contains(&(a.min(b), a.max(b)))
    }

    pub(super) fn push(&mut self, after: Duration, what: What) {
        self.sequence += 1;
        self.queue.insert((self.now + after, self.sequence), what);
    }

    pub(super) fn tell(
        &mut self,
        conn: usize,
        end: usize,
        after: Duration,
        input: impl FnOnce(LinkId) -> Input + 'static,
    ) {
        self.push(after, What::Tell(conn, end, Box::new(input)));
    }

    pub(super) fn input(&mut self, n: usize, input: Input) {
        if self.hosts[n].is_alive {
            self.hosts[n].node.handle_input(self.now, input);
            self.drain(n);
        }
    }

    /// Lets `a` want `b`, of which it knows the id and perhaps the public address.
    pub(super) fn want(&mut self, a: usize, b: usize, by_address: bool, keep: bool) {
        let addrs = if by_address { vec![self.outside(b, a)] } else { Vec::new() };
        let peer = PeerAddr { addrs, ..id(b).into() };
        self.input(a, Input::Want { peer, keep });
    }

    /// The host dies without a word.
    pub(super) fn kill(&mut self, n: usize) {
        self.hosts[n].is_alive = false;
        self.push(IDLE, What::CloseDead);
    }

    pub(super) fn run(&mut self, for_time: Duration) {
        let end = self.now + for_time;
        loop {
            let event = self.queue.first_key_value().map(|((at, _), _)| *at);
            let timer = self
                .hosts
                .iter()
                .enumerate()
                .filter(|(_, host)| host.is_alive)
                .filter_map(|(n, host)| Some((host.deadline()?, n)))
                .min();
            let next = [event, timer.map(|(at, _)| at)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = next.max(self.now);
            if event == Some(next)
                && let Some((_, what)) = self.queue.pop_first()
            {
                self.happen(what);
            } else if let Some((_, n)) = timer {
                self.fire(n);
            }
        }
        self.now = end;
    }

    fn fire(&mut self, n: usize) {
        self.hosts[n].fired += 1;
        let expired = self.hosts[n].forwarder.handle_timeout(self.now);
        if !expired.is_empty() {
            self.input(n, Input::ChannelsExpired(expired));
        }
        self.hosts[n].node.handle_timeout(self.now);
        self.drain(n);
        check_deadline(&self.hosts[n].node, self.now);
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Input(n, input) => {
                if let Input::LinkDown(link) = &input {
                    self.hosts[n].links.remove(link);
                }
                self.input(n, input);
            }
            What::Tell(conn, end, input) => {
                if let Some(link) = self.conns[conn].links[end] {
                    self.input(self.conns[conn].hosts[end], input(link));
                }
            }
            What::Dial(n, dial, peer, to, tries) => self.dial(n, dial, peer, to, tries),
            What::Dialled(n, dial, peer, remotes, to) => {
                if self.hosts[n].dials.remove(&dial) {
                    let conn = self.conns.len();
                    self.conns.push(Conn {
                        hosts: [n, to],
                        links: [None; 2],
                        paths: BTreeMap::from([(PathId(0), Path::new(remotes))]),
                        next_path: 1,
                        candidates: Default::default(),
                        is_quiet: [false; 2],
                    });
                    self.push(LATENCY, What::Accepted(conn));
                    self.link_up(conn, 0, peer, Some(dial));
                }
            }
            What::Accepted(conn) => {
                // Unless the client has closed it meanwhile.
                if self.conns[conn].links[0].is_some() {
                    let client = id(self.conns[conn].hosts[0]);
                    self.link_up(conn, 1, client, None);
                }
            }
            What::PathOpens(conn, remotes) => self.open_path(conn, remotes),
            What::CloseIfIdle(n, link) => {
                let Some((conn, _)) = self.hosts[n].links.get(&link).copied() else { return };
                let [a, b] = self.conns[conn].hosts;
                if !self.sessions.contains(&(a.min(b), a.max(b))) {
                    self.close(conn);
                }
            }
            What::Retire(n, link) => {
                let Some((conn, _)) = self.hosts[n].links.get(&link).copied() else { return };
                let peer = self.conns[conn].hosts[1];
                if self.hosts[n].node.link_to(id(peer)) != Some(link) {
                    self.close(conn);
                }
            }
            What::CloseDead => {
                for conn in 0..self.conns.len() {
                    let paths: Vec<_> = self.conns[conn].paths.keys().copied().collect();
                    if !paths.into_iter().any(|path| self.is_path_alive(conn, path)) {
                        self.close(conn);
                    }
                }
            }
        }
    }

    fn link_up(&mut self, conn: usize, end: usize, peer: NodeId, dial: Option<DialId>) {
        let n = self.conns[conn].hosts[end];
        let link = LinkId(self.hosts[n].next_link);
        self.hosts[n].next_link += 1;
        self.hosts[n].links.insert(link, (conn, end));
        self.conns[conn].links[end] = Some(link);
        let remote = self.conns[conn].paths[&PathId(0)].remotes[end];
        let side = [Side::Client, Side::Server][end];
        self.input(n, Input::LinkUp { link, peer, side, path: PathId(0), remote, dial });
        if end == 1 {
            self.tell_observed(conn, PathId(0));
        }
    }

    /// Each end of a direct path tells the other where it sees it.
    fn tell_observed(&mut self, conn: usize, path: PathId) {
        let Conn { hosts, paths, .. } = &self.conns[conn];
        let (hosts, remotes) = (*hosts, paths[&path].remotes);
        for end in [0, 1] {
            if let RemoteAddr::Direct(addr) = remotes[1 - end] {
                let addr = self.hosts[hosts[1 - end]].lie.unwrap_or(addr);
                self.tell(conn, end, LATENCY, move |link| Input::Observed { link, addr });
            }
        }
    }

    fn open_path(&mut self, conn: usize, remotes: [RemoteAddr; 2]) {
        let state = &mut self.conns[conn];
        if state.links.contains(&None) || state.paths.values().any(|path| path.remotes == remotes) {
            return;
        }
        let path = PathId(state.next_path);
        state.next_path += 1;
        state.paths.insert(path, Path::new(remotes));
        for (end, after) in [(0, Duration::ZERO), (1, LATENCY)] {
            let remote = remotes[end];
            self.tell(conn, end, after, move |link| Input::PathOpened { link, path, remote });
        }
        self.tell_observed(conn, path);
    }

    /// Ends a link at both ends.
    pub(super) fn close(&mut self, conn: usize) {
        self.conns[conn].paths.clear();
        for end in [0, 1] {
            if let Some(link) = self.conns[conn].links[end].take() {
                let n = self.conns[conn].hosts[end];
                self.push(Duration::ZERO, What::Input(n, Input::LinkDown(link)));
            }
        }
    }

    /// Ends all links between two hosts.
    pub(super) fn close_all(&mut self, a: usize, b: usize) {
        for conn in 0..self.conns.len() {
            if [[a, b], [b, a]].contains(&self.conns[conn].hosts) {
                self.close(conn);
            }
        }
    }

    pub(super) fn is_path_alive(&mut self, conn: usize, path: PathId) -> bool {
        let [a, b] = self.conns[conn].hosts;
        let Some(state) = self.conns[conn].paths.get(&path) else { return false };
        match state.remotes {
            [RemoteAddr::Relayed { relay, channel }, RemoteAddr::Relayed { channel: back, .. }] => {
                self.hop(a, relay, channel).is_some_and(|(to, _)| to == b)
                    && self.hop(b, relay, back).is_some_and(|(to, _)| to == a)
            }
            _ => self.passes(a, b),
        }
    }

    /// Sends a frame of host `n` through a relay; who gets it, on which channel.
    pub(super) fn hop(
        &mut self,
        n: usize,
        relay: SocketAddr,
        channel: Channel,
    ) -> Option<(usize, Channel)> {
        let by = (0..self.hosts.len()).find(|by| self.outside(*by, n) == relay)?;
        let from = self.outside(n, by);
        let hop = self.hosts[by].forwarder.forward(self.now, from, channel, 1200, 1).ok()?;
        let to = (0..self.hosts.len()).find(|to| self.outside(*to, by) == hop.to)?;
        let passes = self.passes(n, by) && self.passes(by, to);
        passes.then_some((to, hop.channel))
    }

    /// The path that carries the data of `a` to `b`, if they are linked.
    pub(super) fn selected(&self, a: usize, b: usize) -> Option<path::Remote> {
        self.hosts[a].events().rev().find_map(|(_, event)| match event {
            Event::PeerDown(peer) if *peer == id(b) => Some(None),
            Event::Path { peer, selected, .. } if *peer == id(b) => Some(Some(selected.remote)),
            _ => None,
        })?
    }

    /// Numbers of links that stand between two hosts, as seen by `a`.
    pub(super) fn links(&self, a: usize, b: usize) -> Vec<LinkId> {
        let links = self.hosts[a].links.iter();
        links
            .filter(|(_, (conn, _))| self.conns[*conn].hosts.contains(&b))
            .map(|(link, _)| *link)
            .collect()
    }

    /// Who dialled the preferred link of `a` to `b`.
    pub(super) fn client(&self, a: usize, b: usize) -> Option<usize> {
        let link = self.hosts[a].node.link_to(id(b))?;
        let (conn, _) = self.hosts[a].links[&link];
        Some(self.conns[conn].hosts[0])
    }

    /// The candidates that `a` told `b` last.
    pub(super) fn told(&self, a: usize, b: usize) -> Vec<IpAddr> {
        let link = self.hosts[a].node.link_to(id(b)).unwrap();
        let (conn, end) = self.hosts[a].links[&link];
        self.conns[conn].candidates[end].iter().map(SocketAddr::ip).collect()
    }
}

impl Path {
    fn new(remotes: [RemoteAddr; 2]) -> Self {
        Self { remotes, tx: [0; 2], rx: [0; 2] }
    }
}

impl Host {
    fn deadline(&self) -> Option<Instant> {
        [self.node.poll_timeout(), self.forwarder.poll_timeout()].into_iter().flatten().min()
    }

    /// Addresses that are trusted at the moment.
    pub(super) fn trusted(&self) -> Vec<SocketAddr> {
        self.trusted.iter().filter(|(_, held)| **held > 0).map(|(addr, _)| *addr).collect()
    }

    pub(super) fn events(&self) -> impl DoubleEndedIterator<Item = (Instant, &Event)> {
        self.log.iter().filter_map(|(at, output)| match output {
            Output::Event(event) => Some((*at, event)),
            _ => None,
        })
    }

    pub(super) fn has_seen(&self, event: &Event) -> bool {
        self.events().any(|(_, seen)| seen == event)
    }
}
