//! What goes into a look-up and comes out of it.

use core::time::Duration;

use super::Seat;
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::key::{Distance, Key};
use crate::wire::index::RecordKind;

/// How a look-up is made.
#[derive(Debug, Clone, Copy)]
pub struct LookupConfig {
    /// Requests under way; half as many again go to stale peers.
    pub in_flight: usize,
    /// The same as long as seats are asked and do what they are for.
    pub in_flight_seats: usize,
    /// Disjoint paths, 1 to 8. S/Kademlia finds little gain beyond 4.
    pub paths: usize,
    /// How many of the nearest peers have to answer.
    pub k: usize,
    /// The radius within which all have to answer, from [`SizeEstimate::region`]. With
    /// [`Distance::MAX`], which says that it is unknown, the `k` nearest have to.
    ///
    /// [`SizeEstimate::region`]: crate::index::size::SizeEstimate::region
    pub region: Distance,
    /// With [`Purpose::Records`]: how many answers with records, of as many networks, end it.
    pub enough: usize,
    /// With [`Purpose::Nodes`]: whether those that this node is linked to, and those that its seats
    /// serve, need not be asked whether they are there.
    pub vouches: bool,
    /// With [`Purpose::Peer`]: how many have to name the peer, if none of them is linked to it.
    /// This node is one of them if it knew the peer.
    pub named: u8,
    /// Most peers that are known to one look-up.
    pub candidates_max: usize,
}

impl Default for LookupConfig {
    fn default() -> Self {
        Self {
            in_flight: 10,
            in_flight_seats: 4,
            paths: 3,
            k: 20,
            region: Distance::MAX,
            enough: usize::MAX,
            vouches: false,
            named: 2,
            candidates_max: 512,
        }
    }
}

/// What a look-up is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The nodes of the region around the key, all of them.
    Nodes,
    /// Where one node is reached. Itself it is never asked.
    Peer(NodeId),
    /// The records at the key.
    Records(RecordKind),
}

/// A peer to begin with.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Who, and where.
    pub peer: PeerAddr,
    /// Whether this node is linked to it.
    pub is_linked: bool,
    /// The best known round-trip time.
    pub rtt: Option<Duration>,
    /// Peers of this node that are linked to it and can signal for it.
    pub vias: Vec<NodeId>,
    /// Whether the last attempt to reach it failed.
    pub is_stale: bool,
    /// Which seat it holds, if this node knows that it does.
    pub seat: Option<Seat>,
}

/// A request to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Whom to ask. Its addresses are a hint: who it is must be proved.
    pub peer: PeerAddr,
    /// The key to ask it for. Mostly that of the look-up; with [`Purpose::Nodes`] the peers of the
    /// region are asked for points all over it, so that together they name everybody there.
    pub target: Key,
    /// Whether it was said to be linked.
    pub is_linked: bool,
    /// Peers that said they are linked to it, besides its homes.
    pub via: Vec<NodeId>,
    /// How long it is waited for, as far as is known: the first answers shorten it. A later answer
    /// still counts as long as the look-up goes on.
    pub timeout: Duration,
}
