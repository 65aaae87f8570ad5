//! What goes into the topics of a node and comes out of them.

use core::time::Duration;

use bytes::Bytes;

use crate::id::NodeId;
use crate::index;
use crate::invite::PeerAddr;
use crate::topic::access::Access;
use crate::topic::access::capability::Rank;
use crate::topic::id::{EntryId, TopicId};
use crate::topic::log::LogConfig;
use crate::wire::topic::TopicMessage;

/// Something that the owner asked of a topic, numbered by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Limits and periods of topics.
#[derive(Debug, Clone)]
pub struct TopicConfig {
    /// Topics that the owner takes part in at a time.
    pub topics_max: usize,
    /// Topics that one peer may share with us, and ask for, at a time.
    pub topics_per_peer_max: usize,
    /// Messages that wait to be signed and written, of each topic.
    pub outbox_max: usize,
    /// Of each topic's history.
    pub log: LogConfig,
    /// Of each topic's neighbours.
    pub gossip: crate::topic::gossip::GossipConfig,
    /// Mean pause between comparisons with a neighbour.
    pub repair: Duration,
    /// Pause between words that we are there, in a small topic.
    pub presence: Duration,
    /// Members of whose presence is kept.
    pub presences_max: usize,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            topics_max: 1_024,
            topics_per_peer_max: 256,
            outbox_max: 4_096,
            log: LogConfig::default(),
            gossip: crate::topic::gossip::GossipConfig::default(),
            repair: Duration::from_secs(10),
            presence: Duration::from_secs(20),
            presences_max: 16_384,
        }
    }
}

/// What the owner may ask of topics.
#[derive(Debug, Clone)]
pub enum Command {
    /// Take part in a topic; kept on disk. One that we take part in already is given what the
    /// access holds besides. Answered by [`Event::Joined`] or [`Event::Failed`].
    Join {
        /// Named in the answer.
        request: RequestId,
        /// What we hold of it.
        access: Box<Access>,
        /// Members that may be reached.
        members: Vec<PeerAddr>,
    },
    /// Take part no longer, and drop what is kept of it.
    Leave(TopicId),
    /// Say something. Answered by [`Event::Sent`] once it is on disk, or [`Event::Failed`].
    Send {
        /// Named in the answer.
        request: RequestId,
        /// In which topic.
        topic: TopicId,
        /// What kind of payload it is ([`entry`](crate::topic::entry)).
        kind: u8,
        /// What.
        payload: Bytes,
    },
    /// Remove members: they read nothing that is said from then on, and what they say counts no
    /// more. Answered as [`Command::Send`] is.
    Remove {
        /// Named in the answer.
        request: RequestId,
        /// From which topic.
        topic: TopicId,
        /// Whom.
        members: Vec<NodeId>,
    },
    /// What we say of ourselves in a topic: a name, an application's state.
    Status {
        /// In which topic.
        topic: TopicId,
        /// At most 472 bytes: [`STATUS_LEN_MAX`](crate::topic::presence::STATUS_LEN_MAX) less what
        /// sealing adds.
        status: Bytes,
    },
}

/// An entry as the owner reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Its place in the order in which this node came to know the topic's entries, from 0: a cursor
    /// for [`Topics::read`](super::Topics::read) in this run of the node.
    pub arrival: u64,
    /// Who said it.
    pub author: NodeId,
    /// Its place in its author's log, from 1.
    pub seq: u64,
    /// Its name.
    pub id: EntryId,
    /// When, in milliseconds since 1970, by its author's clock.
    pub time_ms: u64,
    /// What of others its author had seen that none of its entries before named.
    pub heads: Vec<(NodeId, u64)>,
    /// What kind of payload it is.
    pub kind: u8,
    /// What it says; `None` if we lack the key.
    pub payload: Option<Bytes>,
}

/// Why something that the owner asked cannot be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// We take no part in it.
    #[error("this node takes no part in that topic")]
    NotJoined,
    /// The limit of [`TopicConfig::topics_max`].
    #[error("too many topics")]
    TooManyTopics,
    /// We may not do that there.
    #[error("this node may not do that in the topic: it may only {0:?}")]
    NotAllowed(Rank),
    /// The payload.
    #[error("a message has at most {max} bytes")]
    TooLarge {
        /// What is allowed.
        max: usize,
    },
    /// The limit of [`TopicConfig::outbox_max`].
    #[error("too many messages wait to be sent")]
    TooMany,
    /// Kinds 1 to 15 belong to topics themselves.
    #[error("kinds of payload from 1 to 15 are not for applications")]
    Kind,
    /// The disk.
    #[error("it cannot be written to disk")]
    Disk,
    /// The key of the running epoch has not come yet, or we were removed.
    #[error("the topic's key is not known: this node was removed, or has not heard of the change")]
    NoKey,
    /// Two different entries of ours with one number exist: this identity ran in two places, or
    /// from an old copy of its data.
    #[error("this identity has forked its log in the topic and can say nothing more there")]
    Forked,
}

/// What the owner is told of topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// We take part.
    Joined {
        /// Of the command.
        request: RequestId,
        /// In what.
        topic: TopicId,
    },
    /// It is on disk, and on its way to the others.
    Sent {
        /// Of the command.
        request: RequestId,
        /// In which topic.
        topic: TopicId,
        /// Its number in our log.
        seq: u64,
    },
    /// Nothing has changed.
    Failed {
        /// Of the command.
        request: RequestId,
        /// Why.
        error: TopicError,
    },
    /// There is something new to be read ([`Topics::read`](super::Topics::read)).
    News {
        /// In which topic.
        topic: TopicId,
        /// The cursor behind it.
        next: u64,
    },
    /// Members, their presence or what is in step with whom has changed.
    Members(TopicId),
    /// An author has said two different things in one place: nothing more of it counts.
    Forked {
        /// In which topic.
        topic: TopicId,
        /// Who.
        author: NodeId,
    },
    /// The access has changed (a new key): what invites are made from.
    Access(TopicId),
}

/// A member of a topic as far as this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub id: NodeId,
    /// What it may do, if it has shown that; in a public topic everybody may write.
    pub rank: Option<Rank>,
    /// Whether it said so lately, or is linked to us.
    pub is_online: bool,
    /// Whether it is linked to us for this topic.
    pub is_neighbor: bool,
    /// Whether it forked its log.
    pub is_forked: bool,
    /// Whether it was removed.
    pub is_removed: bool,
    /// Its last entry that we have; 0 if none.
    pub seq: u64,
    /// Up to which entry of ours it has said to have everything; 0 if it has not said.
    pub has_ours: u64,
    /// What it says of itself.
    pub status: Option<Bytes>,
}

/// How far a neighbour's logs and ours agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// With whom.
    pub peer: NodeId,
    /// Since when what both have is equal; `None` if it is not, or not compared yet. In
    /// milliseconds since 1970.
    pub since_ms: Option<u64>,
}

/// A topic at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicStats {
    /// Which.
    pub topic: TopicId,
    /// Entries in memory.
    pub entries: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Authors whose logs are known.
    pub authors: usize,
    /// Neighbours, and how far each agrees with us.
    pub synced: Vec<Synced>,
    /// The last entry of each author that we have.
    pub heads: Vec<(NodeId, u64)>,
    /// The epoch of the key.
    pub epoch: u32,
    /// Payloads pushed to us that were new, and that we had.
    pub pushed: (u64, u64),
}

/// What topics want done.
#[derive(Debug, Clone)]
pub(crate) enum Output {
    /// Send to a peer that is linked.
    Send(NodeId, TopicMessage),
    /// Reach a peer; report `peer_up` or `unreachable`.
    Reach(PeerAddr),
    /// A link to this peer is to last (or no longer, for topics).
    Keep(NodeId, bool),
    /// Ask the index.
    Index(index::Command),
    /// Write to disk; report `disk_done`.
    Disk(u64, DiskAction),
    /// Take nothing more of this peer on the stream of topics.
    Expel(NodeId),
    /// For the owner.
    Event(Event),
}

/// Something of topics to be on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskAction {
    /// What we hold of a topic and who was removed, in the place of what was there.
    State(TopicId, Bytes),
    /// Entries that came or are ours, each with its author and number.
    Entries(TopicId, Vec<(NodeId, u64, Bytes)>),
    /// Entries that are dropped; their logs' heads stay.
    Trim {
        /// Of which topic.
        topic: TopicId,
        /// Which.
        entries: Vec<(NodeId, u64)>,
    },
    /// What is known of an author beside its entries, in the place of what was there.
    Author(TopicId, NodeId, Bytes),
    /// Everything about a topic.
    Drop(TopicId),
}

/// A topic as the disk held it when the node started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredTopic {
    /// Which.
    pub topic: TopicId,
    /// Of [`DiskAction::State`].
    pub state: Bytes,
    /// Of [`DiskAction::Entries`], in the order of authors and numbers.
    pub entries: Vec<Bytes>,
    /// Of [`DiskAction::Author`].
    pub authors: Vec<(NodeId, Bytes)>,
}
