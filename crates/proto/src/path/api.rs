//! What goes into the path manager of a link and comes out of it.

use core::time::Duration;
use std::net::SocketAddr;

use crate::id::NodeId;

/// Which side of the QUIC connection we are. Only the client opens paths and starts rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Dialled.
    Client,
    /// Was dialled.
    Server,
}

/// A QUIC path number (draft-ietf-quic-multipath §2), unique within its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathId(pub u32);

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remote {
    /// Straight to the peer's address.
    Direct(SocketAddr),
    /// Through the node `via`.
    Relayed {
        /// The node that forwards; `None` if it is not known (yet), as when a peer reaches us
        /// through a relay whose announcement was overtaken by the first packet.
        via: Option<NodeId>,
    },
}

impl Remote {
    /// Whether no third node is in between.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        matches!(self, Self::Direct(_))
    }
}

/// What QUIC counts for a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Which path.
    pub path: PathId,
    /// Datagrams sent on it since it exists.
    pub tx: u64,
    /// Datagrams received on it since it exists.
    pub rx: u64,
    /// Smoothed round-trip time. Another one each time that something sent on the path was
    /// acknowledged, whatever path the acknowledgement came on.
    pub rtt: Duration,
}

/// What can happen to the paths of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A path is validated and may carry data.
    Opened {
        /// Its number.
        path: PathId,
        /// Where it leads.
        remote: Remote,
    },
    /// A path is gone, whoever closed it.
    Closed(PathId),
    /// The counters that [`Output::Sample`] asked for.
    Samples(Vec<Sample>),
    /// Our own candidate addresses, all of them.
    Candidates(Vec<SocketAddr>),
    /// The peer named more of its addresses (client only).
    PeerCandidates,
    /// A relayed path was asked for and could not be had (client only).
    RelayFailed,
    /// Another relay to the peer became known (client only).
    RelayKnown,
    /// Something was written or arrived after [`Output::Quiet`], or a keep-alive was not answered.
    Active,
}

/// What the path manager wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send data on this path (`true`) or only when no such path is left.
    SetAvailable(PathId, bool),
    /// Close the path.
    Close(PathId),
    /// Make the path transmit something that must be answered.
    Ping(PathId),
    /// Report the counters of all paths as [`Input::Samples`].
    Sample,
    /// Tell the peer that we may be reached here.
    AddCandidate(SocketAddr),
    /// Take that back.
    RemoveCandidate(SocketAddr),
    /// Probe all pairs of candidates.
    StartRound,
    /// Open a relayed path through a relay other than these.
    WantRelay {
        /// Relays in use.
        besides: Vec<NodeId>,
    },
    /// Nothing has been heard on any path for a while, although something was sent.
    Silent,
    /// Data flows on this path from now on.
    Selected(Selected),
    /// Nothing passes: no more samples are asked for until [`Input::Active`], which is to be
    /// reported once when something is written or arrives.
    Quiet,
}

/// The path in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selected {
    /// Its number.
    pub path: PathId,
    /// Where it leads.
    pub remote: Remote,
    /// Smoothed round-trip time, if it was measured.
    pub rtt: Option<Duration>,
}

/// Figures of the path manager.
#[derive(Debug, Clone)]
pub struct Config {
    /// Milliseconds of silence after which a path is dead, at the least; three round trips if that
    /// is more. 200 ms survives two lost probes at common round trips (measured: 5 % loss closes
    /// no path) and leaves the 500 ms of design §11 for the rest.
    pub silence_ms: u64,
    /// Milliseconds between samples while something is sent.
    pub sample_ms: u64,
    /// Milliseconds between samples while nothing is, of which there are two before the link is
    /// quiet.
    pub sample_idle_ms: u64,
    /// Relayed paths that the client wants in all.
    pub relayed_paths: usize,
    /// Direct paths beyond which the client closes the worst.
    pub direct_paths_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            silence_ms: 200,
            sample_ms: 40,
            sample_idle_ms: 500,
            relayed_paths: 2,
            direct_paths_max: 3,
        }
    }
}
