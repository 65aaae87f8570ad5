//! Topics: groups that talk, whoever of them is there.

pub(crate) mod labels;

use std::collections::VecDeque;
use std::time::Duration;

use baran_proto::id::SecretKey;
use baran_proto::time::{Instant, UnixTime};
use baran_proto::topic::access::{Access, AccessError};
use baran_proto::topic::entry::{KIND_CONTROL, KIND_HERE, KIND_MESSAGE};
use baran_proto::topic::machine::{Command as TopicCommand, RequestId, Topics};
use baran_proto::topic::order::Causal;
use bytes::Bytes;
use thiserror::Error;
use tokio::sync::oneshot;

use crate::driver::Command;
use crate::driver::topics::{Ask, Look, Make, Watch};
use crate::persist::unix_now;
use crate::{
    Capability, Member, Node, NodeId, Received, Synced, TopicError, TopicId, TopicInvite,
    TopicStats,
};

/// Entries taken from the node at a time, and bytes of them.
const READ_MAX: usize = 256;
const READ_BYTES_MAX: usize = 1024 * 1024;

/// Which topic to take part in.
#[derive(Debug, Clone)]
pub enum Topic {
    /// One that everybody who knows its name may read and write.
    Public(String),
    /// A new private one, which this node founds.
    Create,
    /// The one that an invite leads to.
    Invite(Box<TopicInvite>),
    /// One that this node takes part in already.
    Known(TopicId),
}

impl Topic {
    /// The public topic of a name, of at most 1,024 bytes.
    #[must_use]
    pub fn public(name: impl Into<String>) -> Self {
        Self::Public(name.into())
    }

    /// A new private topic.
    #[must_use]
    pub fn create() -> Self {
        Self::Create
    }
}

impl From<TopicInvite> for Topic {
    fn from(invite: TopicInvite) -> Self {
        Self::Invite(Box::new(invite))
    }
}

impl From<TopicId> for Topic {
    fn from(id: TopicId) -> Self {
        Self::Known(id)
    }
}

/// Why something with a topic cannot be done.
#[derive(Debug, Clone, Error)]
pub enum TopicFailure {
    /// The topic itself says so.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// A name, an invite or a capability.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The system gives no randomness.
    #[error("the system gives no random numbers")]
    Randomness,
    /// The node is closed.
    #[error("the node is closed")]
    Closed,
}

/// A topic that a node takes part in. Cheap to clone; dropping it ends nothing: the node takes part
/// until [`Joined::leave`], in later runs too if it has a data directory.
#[derive(Debug, Clone)]
pub struct Joined {
    node: Node,
    id: TopicId,
    watch: Watch,
}

/// From where on entries are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Since {
    /// All that the node has.
    #[default]
    Start,
    /// What was said from this moment on by its author's clock, in milliseconds since 1970.
    Time(u64),
    /// What comes from now on.
    Now,
}

impl Node {
    /// Takes part in a topic: other members find this node and it finds them, and what any of them
    /// says reaches all.
    ///
    /// # Errors
    ///
    /// If the name or the invite is not valid, this node takes no part in the topic that is named
    /// by its id, it takes part in too many, or it is closed.
    pub async fn topic(&self, topic: impl Into<Topic>) -> Result<Joined, TopicFailure> {
        let (access, members) = match topic.into() {
            Topic::Known(id) => {
                let is_known = self.look(move |topics, _| topics.access(id).is_some()).await?;
                if !is_known {
                    return Err(TopicError::NotJoined.into());
                }
                return self.joined(id).await;
            }
            Topic::Public(name) => (Access::public(&name)?, Vec::new()),
            Topic::Create => (Access::found(&random()?, root()?, self.id()), Vec::new()),
            Topic::Invite(invite) => (invite.join(self.id())?, invite.peers().to_vec()),
        };
        let id = access.keys().id;
        let access = Box::new(access);
        self.request(move |request| TopicCommand::Join { request, access, members }).await?;
        self.joined(id).await
    }

    async fn joined(&self, id: TopicId) -> Result<Joined, TopicFailure> {
        let (reply, answer) = oneshot::channel();
        self.topic_ask(Ask::Watch(id, reply)).await?;
        let watch = answer.await.map_err(|_| TopicFailure::Closed)?;
        Ok(Joined { node: self.clone(), id, watch })
    }

    /// The topics that this node takes part in, each with its name if it is a public one.
    ///
    /// # Errors
    ///
    /// If the node is closed.
    pub async fn topics(&self) -> Result<Vec<(TopicId, Option<String>)>, TopicFailure> {
        self.look(|topics, _| {
            let name = |id| topics.access(id).and_then(|access| access.name().map(str::to_owned));
            topics.topics().map(|id| (id, name(id))).collect()
        })
        .await
    }

    async fn topic_ask(&self, ask: Ask) -> Result<(), TopicFailure> {
        self.command(Command::Topic(ask)).await.ok_or(TopicFailure::Closed)
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Topics, Instant) -> T + Send + 'static,
    ) -> Result<T, TopicFailure> {
        let (reply, answer) = oneshot::channel();
        let look = Look(Box::new(move |topics, now| drop(reply.send(look(topics, now)))));
        self.topic_ask(Ask::Look(look)).await?;
        answer.await.map_err(|_| TopicFailure::Closed)
    }

    async fn request(
        &self,
        make: impl FnOnce(RequestId) -> TopicCommand + Send + 'static,
    ) -> Result<u64, TopicFailure> {
        let (reply, answer) = oneshot::channel();
        self.topic_ask(Ask::Do(Make(Box::new(make)), reply)).await?;
        Ok(answer.await.map_err(|_| TopicFailure::Closed)??)
    }
}

impl Joined {
    /// Which topic.
    #[must_use]
    pub fn id(&self) -> TopicId {
        self.id
    }

    /// Says something, at most 32,728 bytes. Returns its number in this node's log of the topic
    /// once it is on this node's disk and on its way to the others; waits for slow neighbours.
    ///
    /// # Errors
    ///
    /// If this node may not write there, it is too large, too much waits, or the disk refuses it;
    /// nothing was said then.
    pub async fn send(&self, payload: impl Into<Bytes>) -> Result<u64, TopicFailure> {
        self.send_kind(KIND_MESSAGE, payload).await
    }

    /// The same with a kind of payload other than a message: 16 to 255 are an application's.
    ///
    /// # Errors
    ///
    /// As [`Joined::send`].
    pub async fn send_kind(
        &self,
        kind: u8,
        payload: impl Into<Bytes>,
    ) -> Result<u64, TopicFailure> {
        let (topic, payload) = (self.id, payload.into());
        let send = move |request| TopicCommand::Send { request, topic, kind, payload };
        self.node.request(send).await
    }

    /// What was said and will be, in the order in which this node comes to know it.
    #[must_use]
    pub fn messages(&self, since: Since) -> Messages {
        let cursor = match since {
            Since::Start | Since::Time(_) => Some(0),
            Since::Now => None,
        };
        Messages { topic: self.clone(), since, cursor, ready: VecDeque::new(), causal: None }
    }

    /// Makes an invite, which everybody who has its text can take up until it expires: to read, to
    /// write, and so on, no more than this node may itself. `title` is what the invited are shown.
    ///
    /// # Errors
    ///
    /// If this node may not pass that on.
    pub async fn invite(
        &self,
        capability: Capability,
        expires: Option<UnixTime>,
        title: Option<&str>,
    ) -> Result<TopicInvite, TopicFailure> {
        let access = self.access().await?;
        let peers = [self.node.invite()];
        let secret = self.node.secret();
        let signer = access.root().unwrap_or(secret);
        let bearer = SecretKey::from_bytes(random()?);
        Ok(access.invite(signer, bearer, capability, expires, title, &peers)?)
    }

    async fn access(&self) -> Result<Access, TopicFailure> {
        let id = self.id;
        let access = self.node.look(move |topics, _| topics.access(id).cloned()).await?;
        Ok(access.ok_or(TopicError::NotJoined)?)
    }

    /// What this node may do in the topic.
    ///
    /// # Errors
    ///
    /// If the node takes no part any more or is closed.
    pub async fn capability(&self) -> Result<Capability, TopicFailure> {
        let access = self.access().await?;
        Ok(match access.keys().is_public() {
            true => Capability::Write,
            false => access.rank(unix_now()),
        })
    }

    /// Who takes part, as far as this node knows: who said something, is there, or is linked.
    ///
    /// # Errors
    ///
    /// If the node is closed.
    pub async fn members(&self) -> Result<Vec<Member>, TopicFailure> {
        let id = self.id;
        self.node.look(move |topics, now| topics.members(id, now)).await
    }

    /// The members that are there at this moment.
    ///
    /// # Errors
    ///
    /// If the node is closed.
    pub async fn presence(&self) -> Result<Vec<Member>, TopicFailure> {
        let mut members = self.members().await?;
        members.retain(|member| member.is_online);
        Ok(members)
    }

    /// Says what others are shown of this node: a name, an application's state. At most 472 bytes.
    ///
    /// # Errors
    ///
    /// If the node is closed.
    pub async fn set_status(&self, status: impl Into<Bytes>) -> Result<(), TopicFailure> {
        let command = TopicCommand::Status { topic: self.id, status: status.into() };
        self.node.topic_ask(Ask::Tell(command)).await
    }

    /// With whom of its neighbours this node is in step, since when, and up to which entry of each
    /// author.
    ///
    /// # Errors
    ///
    /// If the node takes no part any more or is closed.
    pub async fn synced(&self) -> Result<(Vec<Synced>, Vec<(NodeId, u64)>), TopicFailure> {
        let stats = self.stats().await?;
        Ok((stats.synced, stats.heads))
    }

    /// Figures of the topic.
    ///
    /// # Errors
    ///
    /// If the node takes no part any more or is closed.
    pub async fn stats(&self) -> Result<TopicStats, TopicFailure> {
        let id = self.id;
        let stats = self.node.look(move |topics, _| topics.stats(id)).await?;
        Ok(stats.ok_or(TopicError::NotJoined)?)
    }

    /// A digest of all that this node has of the topic: equal for two nodes that have the same.
    ///
    /// # Errors
    ///
    /// If the node takes no part any more or is closed.
    pub async fn digest(&self) -> Result<[u8; 32], TopicFailure> {
        let id = self.id;
        let digest = self.node.look(move |topics, _| topics.digest(id)).await?;
        Ok(digest.ok_or(TopicError::NotJoined)?)
    }

    /// Removes members from a private topic: they read nothing that is said from then on, and what
    /// they say counts no more.
    ///
    /// # Errors
    ///
    /// If this node may not manage the topic.
    pub async fn remove(&self, members: Vec<NodeId>) -> Result<u64, TopicFailure> {
        let topic = self.id;
        self.node.request(move |request| TopicCommand::Remove { request, topic, members }).await
    }

    /// Takes part no longer, and drops what this node has of the topic.
    ///
    /// # Errors
    ///
    /// If the node is closed.
    pub async fn leave(&self) -> Result<(), TopicFailure> {
        self.node.topic_ask(Ask::Tell(TopicCommand::Leave(self.id))).await
    }

    /// Waits until members, their presence or what is in step with whom changes. Cancel-safe.
    pub async fn members_changed(&mut self) -> Option<()> {
        self.watch.members.changed().await.ok()
    }
}

/// What is said in a topic. Ends when the node takes part no longer or is closed.
#[derive(Debug)]
pub struct Messages {
    topic: Joined,
    since: Since,
    /// Where to read next; `None` until it is known what is new.
    cursor: Option<u64>,
    ready: VecDeque<Received>,
    causal: Option<Box<Causal<Received>>>,
}

impl Messages {
    /// Delivers nothing before what its author had seen when it said that. Must be called before
    /// the first is taken.
    #[must_use]
    pub fn causal(mut self) -> Self {
        self.causal = Some(Box::default());
        self
    }

    /// The next entry. Cancel-safe.
    pub async fn next(&mut self) -> Option<Received> {
        loop {
            if let Some(next) = self.ready.pop_front() {
                return Some(next);
            }
            // Seen before it is read, so that what comes meanwhile is not missed.
            self.topic.watch.news.mark_unchanged();
            if !self.read().await? && self.ready.is_empty() {
                self.topic.watch.news.changed().await.ok()?;
            }
        }
    }

    /// The next entry that this node has already; `None` when there is none. Cancel-safe.
    pub async fn next_ready(&mut self) -> Option<Received> {
        loop {
            if let Some(next) = self.ready.pop_front() {
                return Some(next);
            }
            if !self.read().await? && self.ready.is_empty() {
                return None;
            }
        }
    }

    /// The next entry, unless none comes within `wait`. Cancel-safe.
    pub async fn next_within(&mut self, wait: Duration) -> Option<Received> {
        tokio::time::timeout(wait, self.next()).await.ok().flatten()
    }

    /// Takes what there is. Whether there was anything.
    async fn read(&mut self) -> Option<bool> {
        let id = self.topic.id;
        let Some(from) = self.cursor else {
            let look = move |topics: &Topics, _| topics.read(id, u64::MAX, 0, 0);
            self.cursor = Some(self.topic.node.look(look).await.ok()??.1);
            if let Some(causal) = &mut self.causal {
                // What was said before is not waited for.
                for (author, seq) in self.topic.synced().await.ok()?.1 {
                    drop(causal.skip(author, seq));
                }
            }
            return Some(true);
        };
        let look = move |topics: &Topics, _| topics.read(id, from, READ_MAX, READ_BYTES_MAX);
        let (read, next) = self.topic.node.look(look).await.ok()??;
        self.cursor = Some(next);
        let oldest = match self.since {
            Since::Time(oldest) => oldest,
            Since::Start | Since::Now => 0,
        };
        let is_wanted = |entry: &Received| {
            let is_about_topic = matches!(entry.kind, KIND_CONTROL | KIND_HERE);
            entry.time_ms >= oldest && !is_about_topic
        };
        match &mut self.causal {
            None => self.ready.extend(read.into_iter().filter(is_wanted)),
            Some(causal) => {
                let dropped =
                    self.topic.node.look(move |topics, _| topics.trimmed(id)).await.ok()?;
                for (author, seq) in dropped {
                    self.ready.extend(causal.skip(author, seq).into_iter().filter(is_wanted));
                }
                for entry in read {
                    let (author, seq, heads) = (entry.author, entry.seq, entry.heads.clone());
                    let due = causal.push(author, seq, heads, entry);
                    self.ready.extend(due.into_iter().filter(is_wanted));
                }
            }
        }
        Some(next != from)
    }
}

fn random() -> Result<[u8; 32], TopicFailure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| TopicFailure::Randomness)?;
    Ok(bytes)
}

fn root() -> Result<SecretKey, TopicFailure> {
    Ok(SecretKey::from_bytes(random()?))
}
