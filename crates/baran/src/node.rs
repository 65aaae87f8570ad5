//! The node as its owner holds it.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baran_net::endpoint::{Endpoint, EndpointConfig, EndpointError};
use baran_net::link::Link;
use baran_net::mux::SessionError;
use baran_net::socket::SocketConfig;
use baran_proto::egress::{Gate, GateConfig};
use baran_proto::forward::{ForwardConfig, Forwarder};
use baran_proto::index::{self, IndexConfig, QueryId};
use baran_proto::node::NodeConfig;
use baran_proto::role::RoleConfig;
use baran_proto::wire;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use thiserror::Error;
use tokio::sync::{broadcast, mpsc, oneshot};
use tracing::warn;

use crate::driver::{Command, Driver, Parts, Snapshot, topics};
use crate::find::{ANSWERS_BESIDES, Question};
use crate::persist::{Disk, DiskError};
#[cfg(feature = "mainline")]
use crate::registry::Identity;
use crate::registry::Registry;
use crate::{
    Acceptor, Connection, Event, NodeBuilder, NodeId, PeerAddr, SecretKey, ServeLimits, Status,
};

/// Connections that wait to be accepted, for each application protocol.
const ACCEPT_QUEUE: usize = 64;

/// Commands that wait for the driver.
const COMMAND_QUEUE: usize = 256;

/// Happenings on links that wait for the driver. Links wait when it is full.
const LINK_QUEUE: usize = 1024;

/// Events kept for a listener that is slow.
const EVENT_QUEUE: usize = 256;

/// Answers of the index that wait for whoever asked, whatever their limit.
const ANSWERS_MAX: usize = 65_536;

/// Longest wait for a clean end.
const CLOSE_MAX: Duration = Duration::from_secs(4);

/// Why a node could not be started.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The system gave no randomness.
    #[error("the system gives no randomness: {0}")]
    Randomness(getrandom::Error),
    /// Socket or TLS.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// What lies in the data directory.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The network's name.
    #[error("a network's name has 1 to {} bytes", wire::NETWORK_LEN_MAX)]
    NetworkName,
}

/// Why a peer could not be reached.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConnectError {
    /// The peer is this node.
    #[error("that is this node's own id")]
    Oneself,
    /// The node is closed.
    #[error("the node is closed")]
    Closed,
    /// The connection broke while it was opened.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Why a protocol cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AcceptError {
    /// Somebody accepts it already.
    #[error("somebody accepts the protocol {0:?} already")]
    Taken(String),
    /// Its name.
    #[error("a protocol's name has 1 to {} bytes", wire::mux::PROTOCOL_LEN_MAX)]
    Name,
}

/// A node of the network. Cheap to clone; it runs until [`Node::close`] or until the last clone
/// is dropped.
#[derive(Debug, Clone)]
pub struct Node {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    id: NodeId,
    secret: SecretKey,
    endpoint: Endpoint,
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<Event>,
    snapshot: Arc<Mutex<Snapshot>>,
}

/// The identity that the owner gives, or the data directory.
fn given_secret(builder: &NodeBuilder) -> Result<Option<SecretKey>, NodeError> {
    match (&builder.secret, &builder.data) {
        (Some(secret), _) => Ok(Some(secret.clone())),
        (None, Some(dir)) => Ok(Some(dir.secret().map_err(DiskError::from)?)),
        (None, None) => Ok(None),
    }
}

/// The machine's part of the settings.
fn machine_config(builder: &NodeBuilder) -> NodeConfig {
    let limits = &builder.serve;
    let serves = limits.allow_anything();
    NodeConfig {
        relays: serves,
        relay_rate_bytes_per_s: limits.rate_bytes_per_s,
        reservations_max: limits.reservations,
        network: builder.network.clone(),
        allow_nets: builder.allow_nets.clone(),
        index: IndexConfig { serves, ..builder.index.clone() },
        role: RoleConfig {
            serves,
            capacity_log2: capacity_log2(limits.rate_bytes_per_s),
            ..builder.role.clone()
        },
        ..NodeConfig::default()
    }
}

/// The forwarder's part of the owner's limits.
fn forwarding(limits: &ServeLimits) -> ForwardConfig {
    ForwardConfig {
        rate_bytes_per_s: if limits.is_on { limits.rate_bytes_per_s } else { 0 },
        burst_bytes: limits.rate_bytes_per_s / 4,
        bytes_per_day: limits.bytes_per_day,
        ..ForwardConfig::default()
    }
}

/// What a node offers to carry, as a power of two of bytes a second: what its owner allows. What
/// its line carries is for others to measure.
fn capacity_log2(rate_bytes_per_s: u64) -> u8 {
    u8::try_from(rate_bytes_per_s.max(1).ilog2()).unwrap_or(u8::MAX)
}

/// Whether a port can be bound, or else says what follows from that.
fn is_free(port: u16) -> bool {
    let wildcards = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), ([0, 0, 0, 0], port).into()];
    let is_free = UdpSocket::bind(&wildcards[..]).is_ok();
    if !is_free {
        warn!(port, "the port of last time is taken; peers may not find this node there");
    }
    is_free
}

/// The registry that the owner chose, if this build has it.
#[cfg(feature = "mainline")]
fn registry(builder: &NodeBuilder, secret: &SecretKey) -> Registry {
    let Some(config) = builder.registry.clone() else { return Registry::default() };
    let identity = Identity {
        secret: secret.clone(),
        network: builder.network.clone(),
        allow_nets: builder.allow_nets.clone(),
        is_lasting: builder.serve.allow_anything(),
    };
    Registry::start(config, identity)
}

/// None: this build has no registry.
#[cfg(not(feature = "mainline"))]
fn registry(_builder: &NodeBuilder, _secret: &SecretKey) -> Registry {
    Registry::default()
}

impl Node {
    /// Settings for a node.
    #[must_use]
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    pub(crate) fn start(builder: NodeBuilder) -> Result<Self, NodeError> {
        let alpn = wire::alpn(&builder.network).ok_or(NodeError::NetworkName)?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(NodeError::Randomness)?;
        let mut rng = ChaCha8Rng::from_seed(seed);
        let mut draw = || {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            seed
        };
        let secret = given_secret(&builder)?.unwrap_or_else(|| SecretKey::from_bytes(draw()));
        let id = secret.id();
        let disk = Disk::open(builder.data.clone(), &builder.network)?;
        let restored = disk.restore()?;
        let kept = disk.kept()?;
        let registry = registry(&builder, &secret);
        let config = machine_config(&builder);
        let limits = builder.serve;
        let forwarder = Forwarder::new(&forwarding(&limits), ChaCha8Rng::from_seed(draw()));
        let gate =
            Gate::new(GateConfig { allow_nets: builder.allow_nets, ..GateConfig::default() });
        let last = disk.port().filter(|port| builder.binds.is_empty() && is_free(*port));
        let socket = SocketConfig {
            // The port of last time: peers that knew us there find us there again.
            binds: last.map_or(builder.binds, |port| vec![(Ipv6Addr::UNSPECIFIED, port).into()]),
            seed: u64::from_le_bytes(*draw().first_chunk().expect("32 bytes have 8")),
            ..SocketConfig::default()
        };
        let (endpoint_events, endpoint_inputs) = mpsc::channel(LINK_QUEUE);
        let (link_events, link_inputs) = mpsc::channel(LINK_QUEUE);
        let budget = builder.budget_bytes;
        let endpoint_config = EndpointConfig { secret: secret.clone(), alpn, socket, budget };
        let endpoint = Endpoint::bind(
            &endpoint_config,
            forwarder,
            gate,
            std::time::Instant::now(),
            endpoint_events,
            link_events,
        )?;
        let topic_sessions = endpoint.acceptors().accept(topics::PROTOCOL, ACCEPT_QUEUE);
        let topic_sessions = topic_sessions.expect("nobody else accepts before the node is there");
        disk.save_port(&endpoint.control().local_addrs());
        let (commands, command_inputs) = mpsc::channel(COMMAND_QUEUE);
        let (events, _) = broadcast::channel(EVENT_QUEUE);
        let machine = baran_proto::node::Node::new(secret.clone(), config, draw());
        let lan = builder.is_lan_used.then(|| builder.network.clone());
        let parts = Parts {
            endpoint: endpoint.clone(),
            disk,
            limits,
            network: builder.network,
            events: events.clone(),
            registry,
            topic_sessions,
        };
        let mut driver = Driver::new(machine, parts);
        driver.boot(restored, kept, ChaCha8Rng::from_seed(draw()));
        let lan = lan.and_then(|network| driver.find_lan(&network));
        let snapshot = driver.snapshot();
        tokio::spawn(driver.run(builder.peers, lan, command_inputs, endpoint_inputs, link_inputs));
        Ok(Self { shared: Arc::new(Shared { id, secret, endpoint, commands, events, snapshot }) })
    }

    /// Who this node is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.shared.id
    }

    fn snapshot(&self) -> Snapshot {
        self.shared.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// This machine's addresses with our port, public ones first; loopback if there are no others.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.snapshot().addresses
    }

    /// Where this node is believed to be reachable, for others to connect to.
    #[must_use]
    pub fn invite(&self) -> PeerAddr {
        let Snapshot { addresses, offered, homes } = self.snapshot();
        let mut addrs = offered;
        addrs
            .extend(addresses.into_iter().filter(|addr| !addrs.contains(addr)).collect::<Vec<_>>());
        addrs.truncate(baran_proto::invite::ADDRS_MAX);
        PeerAddr { id: self.id(), addrs, homes }
    }

    /// Reaches a peer and opens a connection of an application protocol to it.
    ///
    /// Waits until the peer is reached, for as long as that takes: put a time-out around it. To
    /// drop the future is to give up.
    ///
    /// # Errors
    ///
    /// If the peer is ourselves, the node is closed or the connection breaks at once. That the
    /// peer does not know the protocol is found out on use.
    pub async fn connect(
        &self,
        peer: impl Into<PeerAddr>,
        protocol: &str,
    ) -> Result<Connection, ConnectError> {
        let peer = peer.into();
        if peer.id == self.id() {
            return Err(ConnectError::Oneself);
        }
        let link = self.link_to(peer).await?;
        Ok(Connection::new(link.open(protocol)?))
    }

    /// Hands a command to the driver; `None` once the node is closed.
    pub(crate) async fn command(&self, command: Command) -> Option<()> {
        self.shared.commands.send(command).await.ok()
    }

    /// The key of this node, for what it signs.
    pub(crate) fn secret(&self) -> &SecretKey {
        &self.shared.secret
    }

    async fn link_to(&self, peer: PeerAddr) -> Result<Link, ConnectError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Connect { peer, reply };
        self.shared.commands.send(command).await.map_err(|_| ConnectError::Closed)?;
        answer.await.map_err(|_| ConnectError::Closed)
    }

    /// Asks the index, and takes up to `limit` answers before the first is looked at. `None` once
    /// the node is closed.
    pub(crate) async fn ask_index(
        &self,
        limit: usize,
        question: impl FnOnce(QueryId) -> index::Command + Send + 'static,
    ) -> Option<mpsc::Receiver<index::Event>> {
        let room = limit.saturating_add(ANSWERS_BESIDES).min(ANSWERS_MAX);
        let (answers, receiver) = mpsc::channel(room);
        let question = Question(Box::new(question));
        self.shared.commands.send(Command::Ask { question, answers }).await.ok()?;
        Some(receiver)
    }

    /// Takes the connections that peers open for an application protocol from this moment on.
    ///
    /// # Errors
    ///
    /// If somebody accepts it already, or its name is empty or too long.
    pub fn accept(&self, protocol: &str) -> Result<Acceptor, AcceptError> {
        if protocol.is_empty() || protocol.len() > wire::mux::PROTOCOL_LEN_MAX {
            return Err(AcceptError::Name);
        }
        let sessions = self.shared.endpoint.acceptors().accept(protocol, ACCEPT_QUEUE);
        sessions.map(Acceptor::new).ok_or_else(|| AcceptError::Taken(protocol.to_owned()))
    }

    /// The node at this moment; `None` once it is closed.
    pub async fn status(&self) -> Option<Status> {
        let (reply, answer) = oneshot::channel();
        self.shared.commands.send(Command::Status(reply)).await.ok()?;
        answer.await.ok()
    }

    /// What happens to the node from this moment on. A listener that falls 256 events behind
    /// misses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// What the socket counted.
    #[must_use]
    pub fn socket_stats(&self) -> baran_net::socket::SocketStats {
        self.shared.endpoint.control().stats()
    }

    /// Closes the node: peers are told, and nothing that they acknowledged is lost.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.shared.commands.send(Command::Close(reply)).await.is_ok() {
            drop(tokio::time::timeout(CLOSE_MAX, answer).await);
        }
    }
}
