//! What a node tells about itself.

use std::net::SocketAddr;
use std::time::Duration;

use baran_proto::bootstrap::How;
use baran_proto::path::{Remote, Selected};
use baran_proto::role::{Region, RoleStats};

use crate::serve::ServeStatus;
use crate::{Mapping, NodeId};

/// Whether a path leads straight to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// Straight.
    Direct,
    /// Through another peer, which forwards what it cannot read.
    Relayed,
}

impl PathKind {
    /// The name in the output of commands.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        }
    }
}

/// The path that a connection uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathInfo {
    /// Whether it leads straight to the peer.
    pub kind: PathKind,
    /// The peer's address, if direct.
    pub remote: Option<SocketAddr>,
    /// The peer that relays, if relayed.
    pub via: Option<NodeId>,
    /// Round-trip time, smoothed.
    pub rtt: Option<Duration>,
}

impl From<Selected> for PathInfo {
    fn from(selected: Selected) -> Self {
        let rtt = selected.rtt;
        match selected.remote {
            Remote::Direct(addr) => {
                Self { kind: PathKind::Direct, remote: Some(addr), via: None, rtt }
            }
            Remote::Relayed { via } => Self { kind: PathKind::Relayed, remote: None, via, rtt },
        }
    }
}

/// Something that happened to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A peer is connected.
    PeerUp(NodeId),
    /// A peer is no longer connected.
    PeerDown(NodeId),
    /// Data to a peer flows on another path.
    Path {
        /// The peer.
        peer: NodeId,
        /// The path.
        path: PathInfo,
    },
    /// Others see us at these addresses.
    Observed(Vec<SocketAddr>),
    /// A peer relays and signals for us, or stopped to.
    Home {
        /// The peer.
        peer: NodeId,
        /// Whether it does.
        held: bool,
    },
    /// We relay and signal for a peer, or stopped to.
    Serving {
        /// The peer.
        peer: NodeId,
        /// Whether we do.
        granted: bool,
    },
    /// The network is joined: there is a peer where there was none.
    Joined {
        /// How the first one was found.
        by: JoinedBy,
        /// Peers that are connected.
        peers: usize,
    },
    /// No peer that this node knows answers. It goes on trying.
    Alone,
    /// A peer is wanted, and nobody that we know could be asked for it.
    Unreachable(NodeId),
    /// The network lent this node a seat of a region, or it has none any more.
    Seat(Option<Seat>),
}

/// A seat that a node holds for a term: it keeps the records of a region, and signals and relays
/// for its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// Of which region.
    pub region: Region,
    /// Whether it serves; else it waits to take the place of one that is lost.
    pub is_active: bool,
}

/// How a node found its first peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinedBy {
    /// On the local network.
    Lan,
    /// It knew it from an earlier run.
    Cache,
    /// In a public registry.
    Registry,
    /// Its owner named it.
    Configured,
    /// The peer found it.
    Incoming,
}

impl JoinedBy {
    /// The name in the output of commands.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Cache => "cache",
            Self::Registry => "registry",
            Self::Configured => "configured",
            Self::Incoming => "incoming",
        }
    }
}

impl From<How> for JoinedBy {
    fn from(how: How) -> Self {
        match how {
            How::Lan => Self::Lan,
            How::Cache => Self::Cache,
            How::Registry => Self::Registry,
            How::Configured => Self::Configured,
            How::Incoming => Self::Incoming,
        }
    }
}

/// What a node knows of the index and does for it.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexStatus {
    /// Peers in its routing table.
    pub table: usize,
    /// Warm connections: kept to the nearest nodes and to some others.
    pub warm: usize,
    /// Records that it keeps for others.
    pub records: usize,
    /// Their bytes.
    pub record_bytes: u64,
    /// Nodes of the network, estimated from the density of those that were asked.
    pub nodes_estimate: Option<f64>,
    /// How it joined; `None` while it is alone.
    pub joined_by: Option<JoinedBy>,
    /// Seconds by which its peers' calendars are ahead of its own, the median.
    pub clock_skew_s: Option<i64>,
    /// Requests that it made since its start.
    pub requests_sent: u64,
    /// Requests that it answered since its start.
    pub requests_served: u64,
}

/// A node at one moment.
#[derive(Debug, Clone)]
pub struct Status {
    /// Who it is.
    pub id: NodeId,
    /// Its network.
    pub network: String,
    /// Its own addresses, as its interfaces have them.
    pub addresses: Vec<SocketAddr>,
    /// Its addresses as others see them, those with most voices first.
    pub observed: Vec<SocketAddr>,
    /// How its NAT maps it.
    pub mapping: Mapping,
    /// What it may serve others, and how much of that it did.
    pub serve: ServeStatus,
    /// What it relays for others.
    pub relay: RelayStatus,
    /// How far the puzzle of its identity is.
    pub puzzle: PuzzleStatus,
    /// The roles that the network lends, as far as the node takes part.
    pub roles: RoleStats,
    /// The peers that relay and signal for it.
    pub homes: Vec<NodeId>,
    /// Its part in the index.
    pub index: IndexStatus,
    /// The peers that it is connected to.
    pub peers: Vec<PeerStatus>,
    /// Time since its start.
    pub uptime: Duration,
}

/// What a node relays for others.
#[derive(Debug, Clone)]
pub struct RelayStatus {
    /// Peers that may be reached through it.
    pub reservations: Vec<NodeId>,
    /// Pairs of peers that it forwards for, the one that asked first.
    pub channels: Vec<(NodeId, NodeId)>,
    /// Bytes forwarded since its start.
    pub bytes: u64,
}

/// How far the puzzle of an identity is, which it solves before it may vote or be elected
/// ([`baran_proto::role::puzzle`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PuzzleStatus {
    /// The node does not solve it: it serves nobody, or its identity ends with it.
    Unwanted,
    /// It is being solved.
    Solving {
        /// Tries that were made since the node's start.
        tries: u64,
        /// Tries that it takes on average.
        expected: u64,
    },
    /// It is solved.
    Solved {
        /// By this.
        nonce: u64,
    },
}

/// A peer that a node is connected to.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// Who.
    pub id: NodeId,
    /// The path in use.
    pub path: PathInfo,
    /// Paths that are open and take over if that one dies.
    pub backups: Vec<PathInfo>,
    /// Conversations that are open.
    pub sessions: usize,
}
