//! The objects that commands write: their JSON fields, and their text for people.
//!
//! They travel from the node to the command as they are written, so each has one definition.
//! `docs/cli.md` is their reference. Texts of other nodes in them are escaped by
//! [`output`](crate::output), not here.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use baran::{NodeId, PathInfo, PeerAddr};
use serde::{Deserialize, Serialize};

use crate::rate;

/// A way to a peer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Path {
    /// `direct` or `relayed`; null if the peer is being lost.
    pub(crate) path: Option<String>,
    /// Id of the peer that relays.
    pub(crate) via: Option<String>,
    /// The peer's address, if direct.
    pub(crate) remote: Option<SocketAddr>,
}

impl From<Option<PathInfo>> for Path {
    fn from(info: Option<PathInfo>) -> Self {
        info.map_or_else(Self::default, |info| Self {
            path: Some(info.kind.as_str().to_owned()),
            via: info.via.map(|id| id.to_string()),
            remote: info.remote,
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path.as_deref().unwrap_or("no path"))?;
        if let Some(via) = &self.via {
            write!(f, " via {}", short(via))?;
        }
        if let Some(remote) = self.remote {
            write!(f, " at {remote}")?;
        }
        Ok(())
    }
}

/// A reply to a ping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pong {
    /// Number of the ping, from 1.
    pub(crate) seq: u64,
    /// Round-trip time in milliseconds, to the microsecond.
    pub(crate) rtt_ms: f64,
    /// The path in use when the reply came.
    #[serde(flatten)]
    pub(crate) path: Path,
}

impl fmt::Display for Pong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reply {}: {:.3} ms, {}", self.seq, self.rtt_ms, self.path)
    }
}

/// The connection of the pings broke, or could not be made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PingLost {
    /// Always `lost`.
    pub(crate) event: String,
    /// Why.
    pub(crate) reason: String,
}

impl fmt::Display for PingLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection, trying again: {}", self.reason)
    }
}

/// The end of the pings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Pings that were due.
    pub(crate) sent: u64,
    /// Replies.
    pub(crate) received: u64,
    /// Milliseconds from the command's start to the first reply.
    pub(crate) first_reply_ms: Option<f64>,
    /// Milliseconds from the first reply until the path was direct; 0 if it was by then; null if
    /// it never was.
    pub(crate) direct_after_ms: Option<f64>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sent, {} received", self.sent, self.received)?;
        if let Some(first) = self.first_reply_ms {
            write!(f, "; first reply after {first:.3} ms")?;
            match self.direct_after_ms {
                Some(0.0) => write!(f, ", direct by then")?,
                Some(after) => write!(f, ", direct {after:.3} ms later")?,
                None => write!(f, ", never direct")?,
            }
        }
        Ok(())
    }
}

/// This node's id.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct IdView {
    /// Its text form.
    pub(crate) id: String,
}

impl fmt::Display for IdView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

/// Where a node is reachable.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct InviteView {
    /// Its id.
    pub(crate) id: String,
    /// All of it in one word.
    pub(crate) invite: String,
    /// Its own addresses.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Ids of the peers that relay to it.
    pub(crate) homes: Vec<String>,
}

impl From<&PeerAddr> for InviteView {
    fn from(peer: &PeerAddr) -> Self {
        Self {
            id: peer.id.to_string(),
            invite: peer.to_invite(),
            addresses: peer.addrs.clone(),
            homes: peer.homes.iter().map(|home| home.id.to_string()).collect(),
        }
    }
}

impl fmt::Display for InviteView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.invite)
    }
}

/// What happens to a pipe. Written to standard error.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum PipeEvent {
    /// It waits for a peer.
    Listening {
        /// This node's id.
        id: String,
        /// This node's invite.
        invite: String,
    },
    /// It stands.
    Open {
        /// The peer's id.
        peer: String,
        /// The way to the peer at first.
        #[serde(flatten)]
        path: Path,
    },
    /// Everything was written out at both ends.
    Done {
        /// Bytes from our standard input.
        sent: u64,
        /// Bytes to our standard output.
        received: u64,
        /// From open to done.
        seconds: f64,
    },
}

impl fmt::Display for PipeEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening { invite, .. } => {
                write!(f, "waiting for a peer; there, run: baran pipe connect {invite}")
            }
            Self::Open { peer, path } => write!(f, "connected to {}, {path}", short(peer)),
            Self::Done { sent, received, seconds } => {
                let (sent, received) = (rate::human(*sent), rate::human(*received));
                write!(f, "{sent} sent, {received} received in {seconds:.1} s")
            }
        }
    }
}

/// The first 8 characters of an id, for people.
pub(crate) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// Milliseconds, to the microsecond.
pub(crate) fn ms(time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact below 285 years")]
    let us = time.as_micros() as f64;
    us / 1e3
}

/// The texts of `ids`.
pub(crate) fn texts<'a>(ids: impl IntoIterator<Item = &'a NodeId>) -> Vec<String> {
    ids.into_iter().map(ToString::to_string).collect()
}

/// Items with commas, or a dash.
fn list<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    if items.is_empty() {
        return "-".to_owned();
    }
    items.iter().map(text).collect::<Vec<_>>().join(", ")
}

pub(crate) use self::find::{Announced, FoundPeer, Kept, PairEvent, Resolved, ValueView};
pub(crate) use self::roles::Roles;
pub(crate) use self::status::Status;
pub(crate) use self::topic::{
    Created, Left, MemberView, NeighborView, Profile, Removed, Said, Sent, TopicInviteView,
    TopicStatus, TopicView,
};

mod find;
mod roles;
mod status;
pub(crate) mod topic;
