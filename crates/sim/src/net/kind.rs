//! What control messages are about, for figures of what costs how much.

use baran_proto::wire::{IndexMessage, NodeMessage};

/// What a control message is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// Hello.
    #[default]
    Hello,
    /// Where a node is reached: Homes.
    Homes,
    /// Reserve, Reserved, Release.
    Reservations,
    /// `RelayOpen` and what follows from it.
    Channels,
    /// Find of a node's own accord: to fill its table, or before it stores.
    Find,
    /// Found that answers it.
    Found,
    /// Store.
    Store,
    /// Stored.
    Stored,
    /// Offer.
    Offer,
    /// Lacking.
    Lacking,
    /// Find and Found of look-ups that the owner wants.
    Lookups,
    /// Who serves others: measuring, voting, beats; what a policy's nodes tell each other.
    Roles,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Hello,
        Self::Homes,
        Self::Reservations,
        Self::Channels,
        Self::Find,
        Self::Found,
        Self::Store,
        Self::Stored,
        Self::Offer,
        Self::Lacking,
        Self::Lookups,
        Self::Roles,
    ];

    /// The kind of a message; one that answers a look-up is told apart by the caller.
    #[must_use]
    pub fn of(message: &NodeMessage) -> Self {
        match message {
            NodeMessage::Hello(_) | NodeMessage::Need(_) => Self::Hello,
            NodeMessage::Homes(_) => Self::Homes,
            NodeMessage::Reserve(_) | NodeMessage::Reserved(_) | NodeMessage::Release(_) => {
                Self::Reservations
            }
            NodeMessage::RelayOpen(_)
            | NodeMessage::RelayOpened(_)
            | NodeMessage::Refused(_)
            | NodeMessage::RelayIncoming(_)
            | NodeMessage::RelayRenew(_)
            | NodeMessage::RelayClosed(_) => Self::Channels,
            NodeMessage::Role(_) => Self::Roles,
            NodeMessage::Index(message) => match message {
                // Only the owner is after records: the index itself is after nodes.
                IndexMessage::Find(find) if find.records.is_some() => Self::Lookups,
                IndexMessage::Find(_) => Self::Find,
                IndexMessage::Found(_) => Self::Found,
                IndexMessage::Store(_) => Self::Store,
                IndexMessage::Stored(_) => Self::Stored,
                IndexMessage::Offer(_) => Self::Offer,
                IndexMessage::Lacking(_) => Self::Lacking,
            },
        }
    }

    /// Its name among the figures, for programs and for people.
    #[must_use]
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Hello => ("hello_b_per_node_hour", "Hello"),
            Self::Homes => ("homes_b_per_node_hour", "Homes"),
            Self::Reservations => ("reservations_b_per_node_hour", "reservations"),
            Self::Channels => ("channels_b_per_node_hour", "channels"),
            Self::Find => ("find_b_per_node_hour", "Find"),
            Self::Found => ("found_b_per_node_hour", "Found"),
            Self::Store => ("store_b_per_node_hour", "Store"),
            Self::Stored => ("stored_b_per_node_hour", "Stored"),
            Self::Offer => ("offer_b_per_node_hour", "Offer"),
            Self::Lacking => ("lacking_b_per_node_hour", "Lacking"),
            Self::Lookups => ("lookups_b_per_node_hour", "look-ups of the owner's"),
            Self::Roles => ("roles_b_per_node_hour", "roles"),
        }
    }
}
