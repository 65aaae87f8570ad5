//! Messages between members of a topic.

use crate::invite::PeerAddr;
use crate::topic::id::ShortId;

/// Most members that one message names.
pub const MEMBERS_MAX: usize = 8;

/// Most entries that one [`GossipMessage::Have`] or [`GossipMessage::Graft`] names.
pub const SHORTS_MAX: usize = 64;

/// How members find and keep their neighbours, and tell each other what they have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GossipMessage {
    /// Asks to be a neighbour; `is_urgent` if the sender has none.
    Neighbor {
        /// Whether a neighbour is to be dropped for the sender if there is no room.
        is_urgent: bool,
    },
    /// The answer to [`GossipMessage::Neighbor`], with some members besides.
    Neighbored {
        /// Whether sender and receiver are neighbours.
        is_accepted: bool,
        /// At most [`MEMBERS_MAX`].
        members: Vec<PeerAddr>,
    },
    /// Sender and receiver are no longer neighbours.
    Parted,
    /// Some members that the sender knows; asks for as many.
    Shuffle(Vec<PeerAddr>),
    /// The answer.
    Shuffled(Vec<PeerAddr>),
    /// The sender has these entries and did not push them: at most [`SHORTS_MAX`].
    Have(Vec<ShortId>),
    /// Asks for these entries, and that what comes is pushed: at most [`SHORTS_MAX`].
    Graft(Vec<ShortId>),
    /// Asks to push nothing more: the sender has it from others.
    Prune,
}
