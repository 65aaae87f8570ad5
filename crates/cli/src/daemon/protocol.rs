//! What commands and the node that works for them say to each other.
//!
//! Over a Unix socket, or in memory when the command brings its own node, the same: the client
//! writes one [`Request`], a line of JSON; the server answers with [`Message`]s, a line of JSON
//! each. The end of the client's writing means *stop*: a ping ends with its summary, a listener
//! goes. After [`Message::Open`] the connection carries [frames](super::frame) both ways.
//!
//! Client and server may be of different builds of the program: fields are only added.

use std::fmt;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::view::{
    Announced, Created, FoundPeer, InviteView, Kept, Left, MemberView, PairEvent, PingLost,
    PipeEvent, Pong, Removed, Roles, Said, Sent, Status, Summary, TopicInviteView, TopicStatus,
    TopicView, ValueView,
};

/// Protocol of pings between nodes: whatever is written on a stream comes back, to its end.
pub(crate) const PING: &str = "baran/ping/1";
/// Protocol of pipes between nodes: one stream of [frames](super::frame).
pub(crate) const PIPE: &str = "baran/pipe/1";

/// Longest line that is read. A status with 4,096 peers fits; a request with 32 invites does.
const LINE_LEN_MAX: u64 = 1024 * 1024;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// The network that the user named; the server refuses if it is on another one.
    #[serde(default)]
    pub(crate) network: Option<String>,
    /// Invites of peers to stay connected to as long as the command lasts.
    #[serde(default)]
    pub(crate) peers: Vec<String>,
    /// Whether an invite is worth waiting for a home: the user named peers that may become one.
    #[serde(default)]
    pub(crate) await_home: bool,
    /// What to do.
    #[serde(flatten)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub(crate) enum Command {
    /// Tell about the node.
    Status,
    /// Tell what the node does for others.
    Roles,
    /// Tell where the node is reachable.
    Invite,
    /// Ping a peer.
    Ping(PingRequest),
    /// Take one pipe that a peer connects.
    PipeListen {
        /// Ids of those that may; anybody if empty.
        #[serde(default)]
        from: Vec<String>,
    },
    /// Connect a pipe to a peer.
    PipeConnect {
        /// The peer's invite.
        to: String,
        /// Longest wait for the connection.
        timeout_ms: u64,
    },
    /// Publish a value.
    Put {
        /// Its name.
        name: String,
        /// The value in base64.
        value: String,
        /// How long after the node's start somebody must be connected; and for the answers.
        timeout_ms: u64,
    },
    /// Read a value.
    Get {
        /// Id of who published it.
        author: String,
        /// Its name.
        name: String,
        /// As above.
        timeout_ms: u64,
    },
    /// Announce a topic as long as the client is there.
    Announce {
        /// The topic.
        topic: String,
        /// As above.
        timeout_ms: u64,
    },
    /// Find the peers of a topic.
    Lookup {
        /// The topic.
        topic: String,
        /// Most peers.
        limit: u32,
        /// As above.
        timeout_ms: u64,
    },
    /// Find where a peer is.
    Resolve {
        /// Its id.
        id: String,
        /// As above.
        timeout_ms: u64,
    },
    /// Show a code of words and wait for the peer that has it.
    InviteWords,
    /// Pair with whoever shows a code.
    JoinWords {
        /// The code.
        code: String,
        /// How long to look for who shows it.
        timeout_ms: u64,
    },
    /// Something about topics.
    Topic(TopicRequest),
}

/// What to do with topics. `topic` is what the user calls one: its id or the beginning of it, its
/// name or its title.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(crate) enum TopicRequest {
    /// Found a private one.
    Create {
        /// What to call it.
        title: Option<String>,
    },
    /// Take part in one.
    Join {
        /// An invite, or the name of a public one.
        what: String,
    },
    /// Tell which there are.
    List,
    /// Make an invite.
    Invite {
        /// To which.
        topic: String,
        /// What it lets do; to write if nothing is said.
        may: Option<String>,
        /// Seconds that it lasts.
        expires_s: Option<u64>,
        /// What the invited are shown; the topic's title if nothing is said.
        title: Option<String>,
    },
    /// Tell who takes part.
    Members {
        /// In which.
        topic: String,
    },
    /// Remove members.
    Remove {
        /// From which.
        topic: String,
        /// Their ids or beginnings of them.
        members: Vec<String>,
    },
    /// Take part no longer.
    Leave {
        /// In which.
        topic: String,
    },
    /// Say something.
    Send {
        /// In which; a public one is joined if need be.
        topic: String,
        /// What, in base64.
        payload: String,
    },
    /// Tell what is and was said.
    Tail {
        /// In which; a public one is joined if need be.
        topic: String,
        /// From when on.
        since: SinceWhen,
        /// Whether to go on with what comes.
        follow: bool,
    },
    /// Tell figures.
    Status {
        /// Of which.
        topic: String,
    },
    /// Talk: [`ChatAsk`]s follow.
    Chat {
        /// In which; a public one is joined if need be.
        topic: String,
        /// What others are to see as our name; what they saw before if nothing is said.
        name: Option<String>,
    },
}

impl TopicRequest {
    /// Whether the answer holds an invite, which is better with a home.
    pub(crate) fn makes_invite(&self) -> bool {
        matches!(self, Self::Create { .. } | Self::Invite { .. })
    }
}

/// From when on what was said is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SinceWhen {
    /// All that there is.
    All,
    /// What comes.
    Now,
    /// So many milliseconds ago.
    Ago(u64),
}

/// What a chat asks for after its beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ChatAsk {
    /// Say something.
    Say {
        /// Named in the answer.
        id: u64,
        /// What.
        text: String,
    },
    /// Make an invite to write.
    Invite,
    /// Be called so.
    Name(String),
}

/// How to ping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PingRequest {
    /// The peer's invite.
    pub(crate) to: String,
    /// How many; 0 for no end.
    pub(crate) count: u64,
    /// From one to the next.
    pub(crate) interval_ms: u64,
    /// Longest wait for the connection, and for a reply.
    pub(crate) timeout_ms: u64,
    /// How long the command ran before it asked.
    pub(crate) elapsed_us: u64,
}

/// What the server answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Message {
    /// The command failed; nothing follows.
    Error(String),
    /// The node's state; nothing follows.
    Status(Box<Status>),
    /// What the node does for others; nothing follows.
    Roles(Box<Roles>),
    /// Where the node is reachable; nothing follows.
    Invite(InviteView),
    /// A ping was answered.
    Pong(Pong),
    /// The connection of the pings broke.
    PingLost(PingLost),
    /// The end of the pings; nothing follows.
    Summary(Summary),
    /// A pipe waits for a peer.
    Listening(PipeEvent),
    /// A pipe stands; frames follow.
    Open(PipeEvent),
    /// A value is published; nothing follows.
    Kept(Kept),
    /// The value, if there is one; nothing follows.
    Value(Option<ValueView>),
    /// A topic is announced.
    Announced(Announced),
    /// A peer of a topic.
    Found(FoundPeer),
    /// The end of what was looked up; nothing follows.
    End,
    /// Where a peer is, if anybody knows; nothing follows.
    Resolved(Option<InviteView>),
    /// A code is shown, or has paired a peer, after which nothing follows.
    Pair(PairEvent),
    /// Something about topics.
    Topic(TopicAnswer),
}

/// What is answered about topics. Nothing follows unless that is said.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TopicAnswer {
    /// One was founded.
    Created(Created),
    /// This node takes part in it. In a list, others follow and then [`Message::End`]; before what
    /// was said, the rest follows.
    Joined(TopicView),
    /// A public topic was joined by the way; the answer follows.
    JoinedPublic(String),
    /// An invite. In a chat, others follow.
    Invite(TopicInviteView),
    /// A member; others follow, and then [`Message::End`].
    Member(MemberView),
    /// Members were removed.
    Removed(Removed),
    /// It was left.
    Left(Left),
    /// Something was said.
    Sent(Sent),
    /// Something that was said; others follow.
    Said(Said),
    /// Figures.
    Status(TopicStatus),
    /// Of a chat; others follow.
    Chat(ChatAnswer),
}

/// What a chat is told. Others follow.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ChatAnswer {
    /// Something that was said.
    Said {
        /// What.
        said: Said,
        /// Its place among all: about when it was said, in milliseconds since 1970, and not before
        /// what its author had seen.
        order: u64,
        /// Whether it came since a chat was open here last.
        is_new: bool,
    },
    /// All that there was has been told.
    Ready,
    /// Who takes part.
    Members(Vec<MemberView>),
    /// What was to be said is on this node's disk.
    Written {
        /// Which.
        id: u64,
        /// Its number in this node's log.
        seq: u64,
    },
    /// Something was not done.
    Refused {
        /// What was to be said; null if it is about something else.
        id: Option<u64>,
        /// Why.
        why: String,
    },
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Status => "status",
            Self::Roles => "roles",
            Self::Invite => "invite",
            Self::Ping(_) => "ping",
            Self::PipeListen { .. } => "pipe listen",
            Self::PipeConnect { .. } => "pipe connect",
            Self::Put { .. } => "put",
            Self::Get { .. } => "get",
            Self::Announce { .. } => "announce",
            Self::Lookup { .. } => "lookup",
            Self::Resolve { .. } => "resolve",
            Self::InviteWords => "invite --words",
            Self::JoinWords { .. } => "join",
            Self::Topic(TopicRequest::Chat { .. }) => "chat",
            Self::Topic(_) => "topic",
        })
    }
}

/// Reads a line; `None` at the end. Not cancel-safe.
///
/// # Errors
///
/// If it is too long, incomplete, or no such object.
pub(crate) async fn read_line<T: DeserializeOwned>(
    reader: &mut (impl AsyncBufRead + Unpin),
) -> Result<Option<T>> {
    let mut line = Vec::new();
    reader.take(LINE_LEN_MAX).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        bail!("a line was cut short or has more than {LINE_LEN_MAX} bytes");
    }
    let object = serde_json::from_slice(&line)
        .context("not understood: if the daemon is of another version, start it anew")?;
    Ok(Some(object))
}

/// Writes a line.
///
/// # Errors
///
/// If the other end is gone.
pub(crate) async fn write_line<T: Serialize>(
    writer: &mut (impl AsyncWrite + Unpin),
    object: &T,
) -> Result<()> {
    let mut line = serde_json::to_vec(object)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    writer.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<Option<Request>> {
        read_line(&mut &bytes[..]).await
    }

    #[tokio::test]
    async fn requests_round_trip() {
        let ping = PingRequest {
            to: "x".to_owned(),
            count: 4,
            interval_ms: 1_000,
            timeout_ms: 10_000,
            elapsed_us: 7,
        };
        for command in [
            Command::Status,
            Command::Roles,
            Command::Invite,
            Command::Ping(ping),
            Command::PipeListen { from: vec!["y".to_owned()] },
            Command::PipeConnect { to: "z".to_owned(), timeout_ms: 1 },
            Command::Put { name: "n".to_owned(), value: "dg==".to_owned(), timeout_ms: 1 },
            Command::Get { author: "a".to_owned(), name: "n".to_owned(), timeout_ms: 1 },
            Command::Announce { topic: "t".to_owned(), timeout_ms: 1 },
            Command::Lookup { topic: "t".to_owned(), limit: 7, timeout_ms: 1 },
            Command::Resolve { id: "i".to_owned(), timeout_ms: 1 },
            Command::InviteWords,
            Command::JoinWords { code: "c".to_owned(), timeout_ms: 1 },
            Command::Topic(TopicRequest::List),
            Command::Topic(TopicRequest::Tail {
                topic: "t".to_owned(),
                since: SinceWhen::Ago(7),
                follow: true,
            }),
        ] {
            let peers = vec!["p".to_owned()];
            let request =
                Request { network: Some("n".to_owned()), peers, await_home: true, command };
            let mut line = Vec::new();
            write_line(&mut line, &request).await.unwrap();
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(read(&line).await.unwrap(), Some(request));
        }
    }

    #[tokio::test]
    async fn lines_are_bounded_and_checked() {
        assert!(read(b"").await.unwrap().is_none());
        assert!(read(b"{\"command\":\"status\"}\n").await.unwrap().is_some());
        for wrong in [
            &b"{\"command\":\"status\"}"[..],
            b"\n",
            b"\xff\xfe\n",
            b"[]\n",
            b"{\"command\":\"dance\"}\n",
            b"{\"command\":\"ping\",\"to\":7}\n",
        ] {
            assert!(read(wrong).await.is_err(), "{wrong:?}");
        }
        let long = vec![b' '; usize::try_from(LINE_LEN_MAX).unwrap() + 1];
        assert!(read(&long).await.is_err());
        let deep = [vec![b'['; 100_000], b"\n".to_vec()].concat();
        assert!(read(&deep).await.is_err());
    }
}
