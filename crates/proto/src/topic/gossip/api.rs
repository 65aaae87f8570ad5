//! What goes in and comes out of [`Gossip`](super::Gossip), and its limits.

use core::time::Duration;

use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::topic::id::ShortId;
use crate::wire::topic::GossipMessage;

/// Limits and paces of a topic's neighbourhood.
#[derive(Debug, Clone, Copy)]
pub struct GossipConfig {
    /// Below so many neighbours several candidates are tried at once.
    pub active_min: usize,
    /// So many neighbours are sought. `HyParView` §5: log(members) + 1, for some thousands.
    pub active: usize,
    /// Most neighbours: those beyond [`Self::active`] came by themselves.
    pub active_max: usize,
    /// Most candidates remembered. `HyParView` §5: some times the active view.
    pub passive_max: usize,
    /// Most candidates tried at once.
    pub parallel: usize,
    /// Pause between two shuffles.
    pub shuffle: Duration,
    /// Pause between two exchanges of a neighbour for a random member.
    pub swap: Duration,
    /// Pause between two looks into the index when nothing is missing.
    pub members: Duration,
}

impl Default for GossipConfig {
    fn default() -> Self {
        Self {
            active_min: 4,
            active: 5,
            active_max: 8,
            passive_max: 64,
            parallel: 3,
            shuffle: Duration::from_secs(30),
            swap: Duration::from_secs(120),
            members: Duration::from_secs(300),
        }
    }
}

/// What happens to the neighbourhood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Candidates from the index, an invite or the disk.
    Found(Vec<PeerAddr>),
    /// A link stands to a peer that has proved to be a member, whoever asked for it.
    PeerUp(NodeId),
    /// That link is gone.
    PeerDown(NodeId),
    /// [`Output::Connect`] came to nothing.
    Unreachable(NodeId),
    /// A member said something.
    Message {
        /// Who.
        peer: NodeId,
        /// What.
        message: GossipMessage,
    },
    /// An entry is held that was not held before.
    Have {
        /// Which.
        id: ShortId,
        /// Who sent it; nobody if it is our own.
        from: Option<NodeId>,
        /// Its length in bytes.
        len: usize,
    },
    /// A peer pushed an entry that was held already.
    Duplicate {
        /// Which.
        id: ShortId,
        /// Who.
        from: NodeId,
        /// Its length in bytes.
        len: usize,
    },
    /// A peer misbehaved where only the parent sees it.
    Bad {
        /// Who.
        peer: NodeId,
        /// How badly, in points: [`DROP_BELOW`](super::DROP_BELOW) and
        /// [`BAN_BELOW`](super::BAN_BELOW) say what they lead to.
        weight: u32,
    },
}

/// What the neighbourhood wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Link to this member, then [`Input::PeerUp`] or [`Input::Unreachable`].
    Connect(PeerAddr),
    /// A link, or an attempt at one, is no longer needed here. What was sent before is still to
    /// go out.
    Disconnect(NodeId),
    /// Say this to a linked peer.
    Send {
        /// To whom.
        peer: NodeId,
        /// What.
        message: GossipMessage,
    },
    /// Send the bytes of this entry to a linked peer, if they are still held.
    Push {
        /// To whom.
        peer: NodeId,
        /// Which.
        id: ShortId,
    },
    /// Draw members from the index: [`Input::Found`].
    WantMembers,
    /// The active view changed.
    Neighbor {
        /// Who came or went.
        peer: NodeId,
        /// Whether it came.
        is_up: bool,
    },
    /// A peer misbehaved badly, and is ignored for [`BAN`](super::BAN).
    Ban(NodeId),
}
