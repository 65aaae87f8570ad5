//! What control messages are about, for figures of what costs how much.

use baran_proto::wire::{IndexMessage, NodeMessage, RoleMessage};

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
    /// Apply, Vote, Declined, and what measures a candidate.
    Elections,
    /// Show and Present: mandates.
    Mandates,
    /// Ask and Seats.
    Seats,
    /// Beat, Lost, Report, Removal: whether seats serve.
    Beats,
    /// What nodes of a policy tell each other of who serves.
    Policy,
    /// Topics: what groups say and what it takes.
    Topics,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 17] = [
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
        Self::Elections,
        Self::Mandates,
        Self::Seats,
        Self::Beats,
        Self::Policy,
        Self::Topics,
    ];

    /// The kind of a message; one that answers a look-up is told apart by the caller.
    #[must_use]
    pub fn of(message: &NodeMessage) -> Self {
        match message {
            NodeMessage::Hello(_) | NodeMessage::Need(_) | NodeMessage::Retired(_) => Self::Hello,
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
            NodeMessage::Role(message) => match message {
                RoleMessage::Apply(_)
                | RoleMessage::Vote(_)
                | RoleMessage::Declined(_)
                | RoleMessage::Echo(_)
                | RoleMessage::Echoed(_) => Self::Elections,
                RoleMessage::Show(_) | RoleMessage::Present(_) => Self::Mandates,
                RoleMessage::Ask(_) | RoleMessage::Seats(_) => Self::Seats,
                RoleMessage::Beat(_)
                | RoleMessage::Lost(_)
                | RoleMessage::Report(_)
                | RoleMessage::Removal(_) => Self::Beats,
            },
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
            Self::Elections => ("elections_b_per_node_hour", "elections"),
            Self::Mandates => ("mandates_b_per_node_hour", "mandates"),
            Self::Seats => ("seats_b_per_node_hour", "who has seats"),
            Self::Beats => ("beats_b_per_node_hour", "beats"),
            Self::Policy => ("policy_b_per_node_hour", "what a policy's nodes say"),
            Self::Topics => ("topics_b_per_node_hour", "topics"),
        }
    }
}
