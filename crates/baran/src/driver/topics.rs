//! The driver's part in topics: streams to and from the peers, questions of the owner.
//!
//! What is said on topics travels in sessions of a protocol of its own, one for each direction, so
//! that a long history holds up neither the control stream nor the other way. Each side writes to
//! the session that it opened and reads the one that the peer did. What a slow peer does not take
//! is dropped once its queue is full: members compare what they have, so it comes later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use baran_net::link::Link;
use baran_net::mux::{RecvStream, Session};
use baran_proto::id::NodeId;
use baran_proto::node::{Input, LinkId};
use baran_proto::time::Instant;
use baran_proto::topic::id::TopicId;
use baran_proto::topic::machine::{self as topic, RequestId, TopicError};
use baran_proto::wire::DecodeError;
use baran_proto::wire::topic::{TOPIC_LENGTH_LEN, TOPIC_MESSAGE_LEN_MAX, TopicBody, TopicMessage};
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tracing::debug;

use super::Driver;

/// The protocol of the sessions.
pub(crate) const PROTOCOL: &str = "baran/topic/1";

/// Messages that wait for one peer.
const QUEUE: usize = 4_096;

/// Bytes that wait for one peer before entries are dropped.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// Longest wait for the one stream of a session.
const STREAM_MAX: Duration = Duration::from_secs(10);

/// Messages of peers that wait for the driver.
pub(super) const INCOMING: usize = 256;

/// Longest time that a message of ours waits for slow neighbours before the next is taken.
const PACE_MAX: Duration = Duration::from_secs(2);

/// What a peer said, or that its session ended.
pub(crate) type Heard = (NodeId, Option<TopicMessage>);

/// A question of the owner about topics.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Something that is answered when it is done: [`topic::Event::Joined`], `Sent` or `Failed`.
    Do(Make, oneshot::Sender<Result<u64, TopicError>>),
    /// Something that is done at once.
    Tell(topic::Command),
    /// Something that is looked at.
    Look(Look),
    /// What changes of a topic: the number of news, and of changes among members.
    Watch(TopicId, oneshot::Sender<Watch>),
}

/// Makes a command that names the request.
pub(crate) struct Make(pub(crate) Box<dyn FnOnce(RequestId) -> topic::Command + Send>);

impl std::fmt::Debug for Make {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Make")
    }
}

/// Looks at the topics of a node, at a moment by its clock, and answers by its own way.
pub(crate) struct Look(pub(crate) Looking);

type Looking = Box<dyn FnOnce(&topic::Topics, Instant) + Send>;

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Look")
    }
}

/// What changes of a topic.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    pub(crate) news: watch::Receiver<u64>,
    pub(crate) members: watch::Receiver<u64>,
}

#[derive(Debug)]
struct Watched {
    news: watch::Sender<u64>,
    members: watch::Sender<u64>,
}

impl Default for Watched {
    fn default() -> Self {
        Self { news: watch::Sender::new(0), members: watch::Sender::new(0) }
    }
}

/// The way to one peer.
#[derive(Debug)]
struct Outgoing {
    queue: mpsc::Sender<TopicMessage>,
    waiting: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the driver keeps of topics.
#[derive(Debug)]
pub(super) struct TopicLinks {
    out: BTreeMap<LinkId, Outgoing>,
    readers: BTreeMap<NodeId, Vec<AbortHandle>>,
    heard: mpsc::Sender<Heard>,
    next_request: u64,
    requests: BTreeMap<RequestId, oneshot::Sender<Result<u64, TopicError>>>,
    watched: BTreeMap<TopicId, Watched>,
}

impl TopicLinks {
    pub(super) fn new() -> (Self, mpsc::Receiver<Heard>) {
        let (heard, hears) = mpsc::channel(INCOMING);
        let links = Self {
            out: BTreeMap::new(),
            readers: BTreeMap::new(),
            heard,
            next_request: 0,
            requests: BTreeMap::new(),
            watched: BTreeMap::new(),
        };
        (links, hears)
    }

    /// The most bytes that wait for any peer.
    fn backlog(&self) -> usize {
        self.out.values().map(|out| out.waiting.load(Ordering::Relaxed)).max().unwrap_or(0)
    }
}

impl Driver {
    /// A peer opened a session of topics.
    pub(super) fn take_topic_session(&mut self, session: Session) {
        let peer = session.peer();
        let readers = self.topic_links.readers.entry(peer).or_default();
        readers.retain(|reader| !reader.is_finished());
        // One for each link, of which there are two for a while at most; who opens more is served
        // the newest.
        if readers.len() >= 4 {
            readers.remove(0).abort();
        }
        let heard = self.topic_links.heard.clone();
        let task = tokio::spawn(async move {
            if let Err(reason) = read(&session, peer, &heard).await {
                debug!(peer = %peer.short(), reason, "a stream of topics ends");
            }
            drop(heard.send((peer, None)).await);
        });
        readers.push(task.abort_handle());
    }

    pub(super) fn hear_topic(&mut self, (peer, message): Heard) {
        match message {
            Some(message) => self.input(Input::TopicMessage { peer, message }),
            None => self.input(Input::TopicBroken(peer)),
        }
    }

    /// Sends, or drops what a slow peer has no room for.
    pub(super) fn send_topic(&mut self, id: LinkId, message: TopicMessage) {
        let Some(link) = self.links.get(&id) else { return };
        let links = &mut self.topic_links;
        if links.out.get(&id).is_some_and(|out| out.task.is_finished()) {
            links.out.remove(&id);
        }
        let out = links.out.entry(id).or_insert_with(|| start(link, links.heard.clone()));
        let is_data = matches!(
            message.body,
            TopicBody::Push(_) | TopicBody::Repair(_) | TopicBody::Presence(_)
        );
        let waiting = out.waiting.load(Ordering::Relaxed);
        let len = len_of(&message);
        if is_data && waiting.saturating_add(len) > QUEUE_BYTES {
            return;
        }
        if out.queue.try_send(message).is_ok() {
            out.waiting.fetch_add(len, Ordering::Relaxed);
        }
    }

    pub(super) fn expel_topic(&mut self, peer: NodeId) {
        for reader in self.topic_links.readers.remove(&peer).unwrap_or_default() {
            reader.abort();
        }
        let links: Vec<_> =
            self.links.values().filter(|link| link.peer() == peer).map(Link::id).collect();
        for link in links {
            self.topic_links.out.remove(&link);
        }
    }

    /// A link is gone, and with it the way that led over it.
    pub(super) fn end_topic_link(&mut self, link: LinkId) {
        self.topic_links.out.remove(&link);
    }

    pub(super) fn ask_topic(&mut self, ask: Ask) {
        match ask {
            Ask::Do(making, reply) => {
                let request = RequestId(self.topic_links.next_request);
                self.topic_links.next_request += 1;
                self.topic_links.requests.insert(request, reply);
                self.input(Input::Topic((making.0)(request)));
            }
            Ask::Tell(command) => self.input(Input::Topic(command)),
            Ask::Look(looking) => (looking.0)(self.node.topics(), self.now()),
            Ask::Watch(topic, reply) => {
                let watched = self.topic_links.watched.entry(topic).or_default();
                let (news, members) = (watched.news.subscribe(), watched.members.subscribe());
                drop(reply.send(Watch { news, members }));
            }
        }
    }

    pub(super) fn report_topic(&mut self, event: &topic::Event) {
        let bump = |sender: &watch::Sender<u64>| sender.send_modify(|n| *n = n.wrapping_add(1));
        let (request, result) = match *event {
            topic::Event::Joined { request, .. } => (request, Ok(0)),
            topic::Event::Sent { request, seq, .. } => (request, Ok(seq)),
            topic::Event::Failed { request, error } => (request, Err(error)),
            topic::Event::News { topic, .. } => {
                let watched = &mut self.topic_links.watched;
                if let Some(to) = watched.get(&topic) {
                    bump(&to.news);
                }
                if self.node.topics().access(topic).is_none() {
                    watched.remove(&topic);
                }
                return;
            }
            topic::Event::Members(topic)
            | topic::Event::Access(topic)
            | topic::Event::Forked { topic, .. } => {
                return self.topic_links.watched.get(&topic).map_or((), |to| bump(&to.members));
            }
        };
        let Some(reply) = self.topic_links.requests.remove(&request) else { return };
        // Who says more than its neighbours take waits for them a while.
        if result.is_ok() && self.topic_links.backlog() > QUEUE_BYTES / 2 {
            let waiting: Vec<_> =
                self.topic_links.out.values().map(|out| Arc::clone(&out.waiting)).collect();
            tokio::spawn(async move {
                let is_slow = || {
                    waiting.iter().any(|waiting| waiting.load(Ordering::Relaxed) > QUEUE_BYTES / 4)
                };
                let drained = async {
                    while is_slow() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                drop(tokio::time::timeout(PACE_MAX, drained).await);
                let _ = reply.send(result);
            });
            return;
        }
        let _ = reply.send(result);
    }
}

/// About what a message takes in memory.
fn len_of(message: &TopicMessage) -> usize {
    64 + match &message.body {
        TopicBody::Push(bytes) | TopicBody::Presence(bytes) => bytes.len(),
        TopicBody::Fork(a, b) => a.len() + b.len(),
        TopicBody::Repair(message) => message.len(),
        TopicBody::Gossip(_) => 256,
        TopicBody::Join { .. } | TopicBody::Unknown | TopicBody::Leave => 32,
    }
}

/// Starts to write to the peer of a link.
fn start(link: &Link, heard: mpsc::Sender<Heard>) -> Outgoing {
    let (queue, queued) = mpsc::channel(QUEUE);
    let waiting = Arc::new(AtomicUsize::new(0));
    let (link, counted) = (link.clone(), Arc::clone(&waiting));
    let task = tokio::spawn(async move {
        let peer = link.peer();
        if let Err(error) = write(&link, queued, &counted).await {
            debug!(peer = %peer.short(), error, "nothing more can be said of topics");
            drop(heard.send((peer, None)).await);
        }
    });
    Outgoing { queue, waiting, task: task.abort_handle() }
}

async fn write(
    link: &Link,
    mut queued: mpsc::Receiver<TopicMessage>,
    waiting: &AtomicUsize,
) -> Result<(), String> {
    let session = link.open(PROTOCOL).map_err(|error| error.to_string())?;
    let (mut send, _recv) = session.open_bi().await.map_err(|error| error.to_string())?;
    let mut batch = Vec::new();
    while queued.recv_many(&mut batch, 64).await > 0 {
        let len: usize = batch.iter().map(len_of).sum();
        let bytes: Vec<u8> = batch.drain(..).flat_map(|message| message.encode()).collect();
        let written = send.write_all(&bytes).await;
        waiting.fetch_sub(len, Ordering::Relaxed);
        written.map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn read(
    session: &Session,
    peer: NodeId,
    heard: &mpsc::Sender<Heard>,
) -> Result<(), &'static str> {
    let stream = tokio::time::timeout(STREAM_MAX, session.accept_bi()).await;
    let (_send, mut recv) = stream.map_err(|_| "no stream")?.map_err(|_| "the session is over")?;
    loop {
        let Some(body) = next(&mut recv).await? else { return Ok(()) };
        match TopicMessage::decode(&body) {
            Ok(message) => {
                heard.send((peer, Some(message))).await.map_err(|_| "the node is closed")?;
            }
            Err(DecodeError::UnknownType(_)) => {}
            Err(DecodeError::Malformed(_)) => return Err("a malformed message"),
        }
    }
}

/// The next message's bytes; `None` at the end.
async fn next(recv: &mut RecvStream) -> Result<Option<Vec<u8>>, &'static str> {
    let mut head = [0; TOPIC_LENGTH_LEN];
    if recv.read_exact(&mut head).await.is_err() {
        return Ok(None);
    }
    let len = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if len > TOPIC_MESSAGE_LEN_MAX {
        return Err("a message that is too long");
    }
    let mut body = vec![0; len];
    recv.read_exact(&mut body).await.map_err(|_| "a message that is cut off")?;
    Ok(Some(body))
}
