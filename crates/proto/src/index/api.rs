//! What goes into the index and comes out of it.

use core::time::Duration;

use bytes::Bytes;

use super::shard::ShardConfig;
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::key::Key;
use crate::record::{Record, Slot, Verify};
use crate::time::UnixTime;
use crate::topic::machine::{self as topic, RestoredTopic};
use crate::wire::IndexMessage;
use crate::wire::index::RecordKind;

/// Something that the owner asked for, numbered by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueryId(pub u64);

/// Limits and periods of the index.
#[derive(Debug, Clone)]
pub struct IndexConfig {
    /// Whether to answer and keep records for others. Who does not may still ask.
    pub serves: bool,
    /// Nodes that keep a copy of a record, and entries of a bucket (Kademlia's k).
    pub replicas: usize,
    /// The same where enough seats keep one besides.
    pub replicas_with_seats: usize,
    /// Nodes that keep a copy of a node record: a few, for it is of use only while its author is
    /// there to store it anew.
    pub node_replicas: usize,
    /// Requests of one look-up under way at a time.
    pub in_flight: usize,
    /// The same as long as seats are asked and do what they are for.
    pub in_flight_seats: usize,
    /// The same of a look-up for a peer that is to be reached.
    pub in_flight_peer: usize,
    /// Disjoint paths of one look-up.
    pub paths: usize,
    /// Warm connections to the nodes nearest to us.
    pub warm_near: usize,
    /// Warm connections to nodes anywhere.
    pub warm_random: usize,
    /// Look-ups under way at a time, of the owner's and our own.
    pub jobs_max: usize,
    /// Values and announcements of the owner's.
    pub own_max: usize,
    /// How long a value lasts without its author.
    pub value_ttl: Duration,
    /// How long an announcement does.
    pub announcement_ttl: Duration,
    /// How long our node record does.
    pub node_ttl: Duration,
    /// Pause between looks at a bucket that nothing was heard of.
    pub refresh: Duration,
    /// Pause between reconciliations with the nodes nearest to us.
    pub sync: Duration,
    /// Requests that one peer may make in a second; four times that at once.
    pub requests_per_s: u64,
    /// Whether entries of private and loopback addresses count against the limits of a subnet.
    pub count_private: bool,
    /// Of the records kept for others.
    pub shard: ShardConfig,
    /// How signatures of records are verified.
    pub verify: Verify,
}

impl Default for IndexConfig {
    fn default() -> Self {
        Self {
            serves: true,
            replicas: 20,
            replicas_with_seats: 10,
            node_replicas: 8,
            in_flight: 10,
            in_flight_seats: 4,
            in_flight_peer: 4,
            paths: 3,
            warm_near: 4,
            warm_random: 4,
            jobs_max: 64,
            own_max: 1024,
            value_ttl: Duration::from_secs(48 * 3600),
            announcement_ttl: Duration::from_secs(2 * 3600),
            node_ttl: Duration::from_secs(6 * 3600),
            refresh: Duration::from_secs(4 * 3600),
            sync: Duration::from_secs(3600),
            requests_per_s: 50,
            count_private: false,
            shard: ShardConfig::default(),
            verify: NodeId::verify,
        }
    }
}

/// What the owner may ask of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Look for records. Answered by [`Event::Record`]s and one [`Event::Done`].
    Find {
        /// Named in the answers.
        query: QueryId,
        /// Where they are kept.
        key: Key,
        /// Which they are.
        kind: RecordKind,
        /// Distinct records at most.
        limit: usize,
    },
    /// Look for the announcements of a topic, as [`Command::Find`] does.
    FindTopic {
        /// Named in the answers.
        query: QueryId,
        /// The topic's secret.
        secret: Key,
        /// Distinct peers at most.
        limit: usize,
    },
    /// Sign a value, keep it on disk, store it at the nodes near its key, now and again for as long
    /// as this node runs. Answered by [`Event::Kept`] after each round of storing.
    Publish {
        /// Named in the answers.
        query: QueryId,
        /// Its name among the owner's values.
        name: String,
        /// At most 1 KiB.
        value: Bytes,
    },
    /// Say that this node takes part in a topic, until [`Command::Cancel`]. Answered as
    /// [`Command::Publish`] is.
    Announce {
        /// Named in the answers.
        query: QueryId,
        /// The topic's secret.
        secret: Key,
    },
    /// No more answers are wanted; an announcement is not repeated.
    Cancel(QueryId),
}

/// What the owner is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A record was found: its author's newest so far.
    Record {
        /// Of the command.
        query: QueryId,
        /// The record, verified.
        record: Record,
    },
    /// A look-up has ended.
    Done {
        /// Of the command.
        query: QueryId,
        /// What it took.
        cost: LookupCost,
    },
    /// A round of storing has ended.
    Kept {
        /// Of the command.
        query: QueryId,
        /// Nodes that have the record on disk.
        kept: usize,
        /// Nodes that should have it.
        wanted: usize,
        /// Nodes that refused it because their clock and ours differ.
        clocks: usize,
    },
    /// Nobody is there to be asked.
    NotJoined(QueryId),
    /// The record could not be made or written to disk; nothing was published.
    Failed {
        /// Of the command.
        query: QueryId,
        /// Why.
        reason: String,
    },
}

impl Event {
    /// The command that it answers.
    #[must_use]
    pub fn query(&self) -> QueryId {
        match self {
            Self::Record { query, .. }
            | Self::Done { query, .. }
            | Self::Kept { query, .. }
            | Self::NotJoined(query)
            | Self::Failed { query, .. } => *query,
        }
    }
}

/// What a look-up took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LookupCost {
    /// Requests sent.
    pub requests: usize,
    /// Longest chain of answers of which each led to the next request.
    pub rounds: u32,
    /// Nodes that answered.
    pub answered: usize,
}

/// What the index wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// Send to a peer that is linked.
    Send(NodeId, IndexMessage),
    /// Reach a peer once; report `peer_up` or `unreachable`.
    Reach {
        /// Who, and where others say that it is.
        peer: PeerAddr,
        /// Linked peers that are linked to it.
        vias: Vec<NodeId>,
    },
    /// Nobody waits for this peer.
    Release(NodeId),
    /// Where a peer that the owner wants may be.
    Located {
        /// Who and where.
        peer: PeerAddr,
        /// Linked peers that are linked to it.
        vias: Vec<NodeId>,
    },
    /// The search for a peer that the owner wants has ended.
    Searched(NodeId),
    /// The peer is to be a warm connection (or no longer).
    Warm(NodeId, bool),
    /// Write to disk; report `disk_done`.
    Disk(u64, DiskAction),
    /// What holds or is said to hold a seat did not have what is at a key, and others did.
    Omission {
        /// Who.
        seat: NodeId,
        /// The key.
        key: Key,
    },
    /// The nodes nearest to a key, of those that answered: for `find_nodes` of this number.
    Nodes(u64, Vec<PeerAddr>),
    /// For the owner.
    Event(Event),
}

/// Something to be on disk before it takes effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskAction {
    /// A record kept for others, in the place of an older one.
    Keep {
        /// Its place.
        slot: Slot,
        /// The signed record.
        record: Bytes,
        /// Its sequence, to be remembered
        sequence: u64,
        /// until this moment, when the record itself is gone.
        remember_until: UnixTime,
    },
    /// Records that are dropped; their sequences stay.
    Drop(Vec<Slot>),
    /// Sequences that need no longer be remembered.
    Forget(Vec<Slot>),
    /// A value of the owner's, in the place of an older one.
    Own {
        /// Its place.
        slot: Slot,
        /// The signed record.
        record: Bytes,
    },
    /// What the node is lent and whom it knows as seats, in the place of what was there: at most
    /// [`ROLE_LEN_MAX`](crate::role::ROLE_LEN_MAX) bytes.
    Role(Vec<u8>),
    /// Of topics.
    Topic(topic::DiskAction),
}

/// What the disk held when the node started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Records kept for others.
    pub records: Vec<Bytes>,
    /// Sequences to be remembered: place, sequence, until when.
    pub sequences: Vec<(Slot, u64, UnixTime)>,
    /// The owner's values.
    pub own: Vec<Bytes>,
    /// What [`DiskAction::Role`] wrote last; empty if there is nothing.
    pub role: Vec<u8>,
    /// The topics that the owner takes part in.
    pub topics: Vec<RestoredTopic>,
}

/// The index at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct IndexStats {
    /// Entries of the routing table.
    pub table: usize,
    /// Warm connections that stand.
    pub warm: usize,
    /// Records kept for others.
    pub records: usize,
    /// Their bytes.
    pub record_bytes: u64,
    /// Nodes of the network, estimated.
    pub nodes: Option<f64>,
    /// Seconds by which the peers' calendars are ahead of ours, the median; `None` without peers.
    pub clock_skew_s: Option<i64>,
    /// Requests sent since the start.
    pub requests_sent: u64,
    /// Requests answered since the start.
    pub requests_served: u64,
}
