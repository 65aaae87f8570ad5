//! The loop that drives the node machine with the real network.
//!
//! One task owns the machine. It drains the machine's outputs and carries them out, then waits for
//! whatever comes first: the machine's deadline, a command of the owner, something that happened
//! on a link or at the endpoint, or the tick that looks after what nobody reports (addresses of
//! interfaces, channels that ran out, links that are no longer wanted).

mod actions;
mod index;
mod puzzle;
mod serve;
pub(crate) mod topics;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baran_net::endpoint::{Endpoint, EndpointEvent, NewLink};
use baran_net::link::{Link, LinkEvent, link_code};
use baran_net::mux::Session;
use baran_proto::allowance::Lease;
use baran_proto::candidate::covers;
use baran_proto::egress::canonical;
use baran_proto::machine::{Machine, check_deadline};
use baran_proto::node::{DialId, HostAddr, Input, LinkId, Node, RemoteAddr};
use baran_proto::path::PathId;
use baran_proto::time::Instant;
use baran_proto::wire::node::Home;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::AbortHandle;
use tracing::{debug, trace};

use self::index::{Lan, Queries, found};
use self::puzzle::Puzzle;
use self::serve::Serving;
use self::topics::{Heard, TopicLinks};
use crate::find::Question;
use crate::host::Circumstances;
use crate::persist::{Disk, unix_now};
use crate::registry::Registry;
use crate::{Event, JoinedBy, NodeId, PeerAddr, ServeLimits, Status};

/// Pause between ticks.
const TICK: Duration = Duration::from_millis(500);

/// Ticks between looks at the interfaces.
const TICKS_PER_LOOK: u32 = 10;

/// Ticks between looks at who is linked, for the peer cache: who is killed soon after it joined
/// must find back too.
const TICKS_PER_NOTE: u32 = 4;

/// Ticks between looks at the machine: battery, way out, hour.
const TICKS_PER_HOST: u32 = 120;

/// Ticks without a session after which a retired link is closed.
const RETIRED_TICKS: u32 = 4;

/// Candidates of an invite.
const OFFER_MAX: usize = 4;

/// What the owner asks of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    /// A link to a peer, whenever it stands. Given up when the receiver is dropped.
    Connect {
        /// Who.
        peer: PeerAddr,
        /// For the link.
        reply: oneshot::Sender<Link>,
    },
    /// The node at this moment.
    Status(oneshot::Sender<Status>),
    /// A question to the index. Withdrawn when the receiver is dropped.
    Ask {
        /// What.
        question: Question,
        /// For the answers.
        answers: mpsc::Sender<baran_proto::index::Event>,
    },
    /// A question about topics.
    Topic(topics::Ask),
    /// Something is on disk, or cannot be (from a task of the driver's own).
    DiskDone {
        /// As the machine named it.
        token: u64,
        /// Whether it is.
        is_kept: bool,
    },
    /// The end.
    Close(oneshot::Sender<()>),
    /// A relayed path could not be opened (from a task of the driver's own).
    RelayPathFailed(LinkId),
    /// A part of the day's bytes is on disk as served, or cannot be (likewise).
    Leased(Option<Lease>),
    /// The machine was looked at (likewise).
    Circumstances(Circumstances),
    /// This nonce solves the puzzle (likewise).
    PuzzleSolved(u64),
}

/// What the owner can read without asking.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) offered: Vec<SocketAddr>,
    pub(crate) homes: Vec<Home>,
}

/// What a driver is made of, besides the machine.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) endpoint: Endpoint,
    pub(crate) disk: Disk,
    pub(crate) limits: ServeLimits,
    pub(crate) network: String,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) registry: Registry,
    /// Sessions that peers open to talk of topics.
    pub(crate) topic_sessions: mpsc::Receiver<Session>,
}

/// Drives a node. See the module's documentation.
#[derive(Debug)]
pub(crate) struct Driver {
    node: Node,
    endpoint: Endpoint,
    disk: Disk,
    serving: Serving,
    puzzle: Puzzle,
    network: String,
    events: broadcast::Sender<Event>,
    registry: Registry,
    queries: Queries,
    topic_links: TopicLinks,
    topic_sessions: mpsc::Receiver<Session>,
    topics_heard: mpsc::Receiver<Heard>,
    joined_by: Option<JoinedBy>,
    snapshot: Arc<Mutex<Snapshot>>,
    links: BTreeMap<LinkId, Link>,
    dials: BTreeMap<DialId, AbortHandle>,
    waiting: BTreeMap<NodeId, Vec<oneshot::Sender<Link>>>,
    retired: BTreeMap<LinkId, u32>,
    own: mpsc::Sender<Command>,
    own_inputs: mpsc::Receiver<Command>,
    ticks: u32,
}

impl Driver {
    pub(crate) fn new(node: Node, parts: Parts) -> Self {
        let Parts { endpoint, disk, limits, network, events, registry, topic_sessions } = parts;
        let (topic_links, topics_heard) = TopicLinks::new();
        let (own, own_inputs) = mpsc::channel(64);
        let mut driver = Self {
            node,
            endpoint,
            disk,
            serving: Serving::new(limits),
            puzzle: Puzzle::default(),
            network,
            events,
            registry,
            queries: Queries::default(),
            topic_links,
            topic_sessions,
            topics_heard,
            joined_by: None,
            snapshot: Arc::default(),
            links: BTreeMap::new(),
            dials: BTreeMap::new(),
            waiting: BTreeMap::new(),
            retired: BTreeMap::new(),
            own,
            own_inputs,
            ticks: 0,
        };
        driver.look_at_interfaces();
        driver.refresh_snapshot();
        driver
    }

    pub(crate) fn snapshot(&self) -> Arc<Mutex<Snapshot>> {
        Arc::clone(&self.snapshot)
    }

    fn now(&self) -> Instant {
        self.endpoint.control().now()
    }

    /// Runs until the owner closes the node or drops every handle of it.
    pub(crate) async fn run(
        mut self,
        peers: Vec<PeerAddr>,
        mut lan: Option<Lan>,
        mut commands: mpsc::Receiver<Command>,
        mut endpoint_events: mpsc::Receiver<EndpointEvent>,
        mut link_events: mpsc::Receiver<(LinkId, LinkEvent)>,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for peer in peers {
            self.input(Input::Want { peer, keep: true });
        }
        let closing = loop {
            self.drain();
            let wait = self.node.poll_timeout().map(|at| at - self.now());
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Close(reply)) => break Some(reply),
                    Some(command) => self.handle_command(command),
                    None => break None,
                },
                Some(command) = self.own_inputs.recv() => self.handle_command(command),
                Some(event) = endpoint_events.recv() => self.handle_endpoint(event),
                Some((link, event)) = link_events.recv() => self.handle_link(link, event),
                Some(session) = self.topic_sessions.recv() => self.take_topic_session(session),
                Some(heard) = self.topics_heard.recv() => self.hear_topic(heard),
                Some(peer) = found(&mut lan) => self.input(Input::Lan(peer)),
                peers = self.registry.found() => self.input(Input::Registry(peers)),
                () = tokio::time::sleep(wait.unwrap_or(TICK)), if wait.is_some() => {
                    let now = self.now();
                    self.node.handle_timeout(now);
                    self.drain();
                    check_deadline(&self.node, now);
                }
                _ = tick.tick() => self.handle_tick(),
            }
        };
        self.endpoint.close().await;
        self.note_peers();
        self.save_day().await;
        if let Some(saving) = self.disk.save_cache() {
            drop(saving.await);
        }
        // Whoever waits for the end may use the data directory at once.
        drop(self);
        if let Some(reply) = closing {
            let _ = reply.send(());
        }
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        trace!(?input);
        self.node.handle_input(now, input);
        self.drain();
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Connect { peer, reply } => {
                let link = self.node.link_to(peer.id).and_then(|id| self.links.get(&id)).cloned();
                if let Some(link) = link {
                    self.input(Input::Used(link.id()));
                    drop(reply.send(link));
                } else {
                    self.waiting.entry(peer.id).or_default().push(reply);
                    self.input(Input::Want { peer, keep: false });
                }
            }
            Command::Ask { question, answers } => self.ask(question, answers),
            Command::Topic(ask) => self.ask_topic(ask),
            Command::DiskDone { token, is_kept } => self.input(Input::DiskDone { token, is_kept }),
            Command::Status(reply) => drop(reply.send(self.status())),
            Command::RelayPathFailed(link) => self.input(Input::RelayPathFailed(link)),
            Command::Leased(lease) => self.handle_leased(lease),
            Command::Circumstances(found) => self.handle_circumstances(found),
            Command::PuzzleSolved(nonce) => self.handle_puzzle_solved(nonce),
            Command::Close(reply) => drop(reply),
        }
    }

    fn handle_endpoint(&mut self, event: EndpointEvent) {
        match event {
            EndpointEvent::Up(NewLink { link, side, remote, dial, taken }) => {
                if let Some(dial) = dial {
                    self.dials.remove(&dial);
                }
                let (id, peer) = (link.id(), link.peer());
                if peer == self.node.id() {
                    link.close(link_code::UNWANTED, "this is the same node");
                    return;
                }
                self.pin_source(&link, PathId(0), remote);
                self.links.insert(id, link);
                self.input(Input::LinkUp { link: id, peer, side, path: PathId(0), remote, dial });
                // The link may be lost already; it says so itself.
                let _ = taken.send(());
                self.serve_waiting(peer);
            }
            EndpointEvent::DialFailed(dial, _) => {
                self.dials.remove(&dial);
                self.input(Input::DialFailed(dial));
            }
        }
    }

    fn serve_waiting(&mut self, peer: NodeId) {
        let Some(link) = self.node.link_to(peer).and_then(|id| self.links.get(&id)) else { return };
        for reply in self.waiting.remove(&peer).unwrap_or_default() {
            drop(reply.send(link.clone()));
        }
        self.input(Input::Unwant(peer));
    }

    fn handle_link(&mut self, link: LinkId, event: LinkEvent) {
        match event {
            LinkEvent::Message(message) => self.input(Input::Message { link, message }),
            LinkEvent::PathOpened(path, remote) => {
                if let Some(link) = self.links.get(&link) {
                    self.pin_source(link, path, remote);
                }
                self.input(Input::PathOpened { link, path, remote });
            }
            LinkEvent::PathClosed(path) => self.input(Input::PathClosed { link, path }),
            LinkEvent::Observed(addr) => self.input(Input::Observed { link, addr }),
            LinkEvent::PeerCandidates => self.input(Input::PeerCandidates(link)),
            LinkEvent::Active => self.input(Input::Active(link)),
            LinkEvent::Down(reason) => {
                if let Some(gone) = self.links.remove(&link) {
                    debug!(peer = %gone.peer().short(), reason, "link down");
                    self.retired.remove(&link);
                    self.end_topic_link(link);
                    self.input(Input::LinkDown(link));
                }
            }
        }
    }

    /// Frames to a peer leave from the local address that its connection has.
    fn pin_source(&self, link: &Link, path: PathId, remote: RemoteAddr) {
        if let RemoteAddr::Direct(addr) = remote {
            self.endpoint.control().pin_source(addr, link.local_ip(path));
        }
    }

    fn handle_tick(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(TICKS_PER_LOOK) {
            self.look_at_interfaces();
            self.input(Input::Clock(unix_now()));
        }
        if self.ticks.is_multiple_of(TICKS_PER_NOTE) {
            self.note_peers();
            drop(self.disk.save_cache());
        }
        if self.ticks.is_multiple_of(TICKS_PER_HOST) {
            self.look_at_host();
        }
        self.see_to_serving();
        self.withdraw_queries();
        self.tell_registry();
        let used: Vec<_> =
            self.links.values().filter(|link| link.sessions() > 0).map(Link::id).collect();
        for link in used {
            self.input(Input::Used(link));
        }
        let now = self.now();
        let expired = self.endpoint.control().with_forwarder(|relay| relay.handle_timeout(now));
        if !expired.is_empty() {
            self.input(Input::ChannelsExpired(expired));
        }
        let given_up: Vec<_> = self
            .waiting
            .iter_mut()
            .filter_map(|(peer, waiting)| {
                waiting.retain(|reply| !reply.is_closed());
                waiting.is_empty().then_some(*peer)
            })
            .collect();
        for peer in given_up {
            self.waiting.remove(&peer);
            self.input(Input::Unwant(peer));
        }
        for (id, ticks) in &mut self.retired {
            let Some(link) = self.links.get(id) else { continue };
            // What was preferred may be gone meanwhile.
            let preferred = self.node.link_to(link.peer());
            let is_spare = preferred.is_some_and(|preferred| preferred != *id);
            *ticks = if is_spare && link.sessions() == 0 { *ticks + 1 } else { 0 };
            if *ticks == RETIRED_TICKS {
                link.close(link_code::DUPLICATE, "another connection is preferred");
            }
        }
    }

    fn look_at_interfaces(&mut self) {
        let local = self.endpoint.control().local_addrs();
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        // Who binds to loopback itself is to be reached there.
        let is_bound = |ip| local.iter().any(|bound| canonical(*bound).ip() == ip);
        let addrs = interfaces
            .iter()
            .filter(|interface| {
                let is_loopback = interface.is_loopback() && !is_bound(interface.ip());
                !is_loopback && !interface.is_link_local()
            })
            .map(|interface| HostAddr { ip: interface.ip(), prefix: prefix_of(&interface.addr) })
            .filter(|host| local.iter().any(|bound| covers(*bound, host.ip)))
            .collect();
        self.input(Input::HostAddrs { addrs, bound: local });
    }

    fn refresh_snapshot(&self) {
        let mut addresses = self.node.candidates().host_addrs();
        if addresses.is_empty() {
            let loopback = |addr: &SocketAddr| match addr.ip() {
                ip if ip.is_unspecified() => SocketAddr::from(([127, 0, 0, 1], addr.port())),
                _ => *addr,
            };
            addresses = self.endpoint.control().local_addrs().iter().map(loopback).collect();
        }
        let snapshot = Snapshot {
            addresses,
            offered: self.node.candidates().offer(false, OFFER_MAX),
            homes: self.node.our_homes(),
        };
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }
}

fn prefix_of(addr: &if_addrs::IfAddr) -> u8 {
    match addr {
        if_addrs::IfAddr::V4(v4) => v4.prefixlen,
        if_addrs::IfAddr::V6(v6) => v6.prefixlen,
    }
}
