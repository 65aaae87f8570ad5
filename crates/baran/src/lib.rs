//! Programs that reach each other directly, whatever NAT they sit behind, with no privileged node.
//!
//! A [`Node`] has an identity, one UDP port, and links to peers. [`Node::connect`] reaches a peer
//! by whatever works first, through another ordinary peer if need be, and moves to the best direct
//! path in place; [`Node::accept`] takes the conversations of an application protocol.
//!
//! ```no_run
#![doc = include_str!("../examples/echo.rs")]
//! ```
//!
//! The protocols are in `baran-proto`, the socket and QUIC in `baran-net`; this crate drives the
//! former with the latter.

mod config;
mod connection;
pub mod data;
mod driver;
mod find;
mod host;
#[cfg(feature = "lan")]
mod lan;
mod node;
pub mod pair;
mod persist;
mod registry;
mod serve;
mod status;
mod topic;

pub use baran_net::mux::{RecvStream, SendStream, SessionError};
pub use baran_proto::candidate::Mapping;
pub use baran_proto::egress::Net;
pub use baran_proto::id::{IdError, NodeId, SecretKey};
pub use baran_proto::invite::{InviteError, PeerAddr};
pub use baran_proto::role::{Region, RoleStats};
pub use baran_proto::time::UnixTime;
pub use baran_proto::topic::access::capability::Rank as Capability;
pub use baran_proto::topic::access::invite::{TopicInvite, TopicInviteError};
pub use baran_proto::topic::entry::KIND_MESSAGE;
pub use baran_proto::topic::id::{EntryId, TopicId, TopicIdError};
pub use baran_proto::topic::machine::{Member, Received, Synced, TopicError, TopicStats};
pub use baran_store as store;

pub use self::config::NodeBuilder;
pub use self::connection::{Acceptor, Connection, PathWatch};
pub use self::find::{Announcement, FindError, Lookup, PublishError, Receipt, Value};
pub use self::node::{AcceptError, ConnectError, Node, NodeError};
pub use self::persist::DiskError;
#[cfg(feature = "mainline")]
pub use self::registry::MainlineConfig;
pub use self::serve::{Hours, HoursError, Pause, ServeLimits, ServeStatus, SettingError};
pub use self::status::{
    Event, IndexStatus, JoinedBy, PathInfo, PathKind, PeerStatus, PuzzleStatus, RelayStatus, Seat,
    Status,
};
pub use self::topic::labels::{TopicLabel, TopicLabels};
pub use self::topic::{Joined, Messages, Since, Topic, TopicFailure};
