//! A client that talks: what is said goes to it, what it says goes out, at once.
//!
//! While a chat is open the node says so, with the name that its owner chose, in the status that
//! members see; when the last one of a topic ends it says that nobody looks any more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use baran::{Joined, NodeId, Received, Since, TopicId};
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::names::Names;
use super::protocol::{ChatAnswer, ChatAsk, TopicAnswer, read_line};
use super::server::Server;
use super::topics::{invite, members, view, write};
use crate::view::{Profile, Said};

/// Entries of before that are told, the last ones.
const BACKLOG_MAX: usize = 1_000;
/// Members that are told of, those first that are there.
const MEMBERS_MAX: usize = 500;
/// Answers that wait to be written.
const QUEUE: usize = 256;
/// How often members are told of at most, and at least.
const MEMBERS_MIN: Duration = Duration::from_millis(200);
const MEMBERS_POLL: Duration = Duration::from_secs(10);
/// How often it is looked whether this node still takes part.
const LEFT_POLL: Duration = Duration::from_secs(5);
/// Entries whose places are known.
const PLACES_MAX: usize = 65_536;

/// How many chats are open, by topic.
#[derive(Debug, Default)]
pub(super) struct Chats(Mutex<BTreeMap<TopicId, usize>>);

impl Chats {
    /// One more or one less; how many there are then.
    fn count(&self, topic: TopicId, is_open: bool) -> usize {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.remove(&topic).unwrap_or(0);
        let count = if is_open { count + 1 } else { count.saturating_sub(1) };
        if count > 0 {
            open.insert(topic, count);
        }
        count
    }
}

type Answers = mpsc::Sender<TopicAnswer>;

/// Serves a chat until the client ends it.
///
/// # Errors
///
/// If the node takes no part any more or is closed, or the client is gone.
pub(super) async fn run(
    server: &Server,
    joined: Joined,
    name: Option<String>,
    reader: &mut (impl AsyncBufRead + Send + Unpin),
    writer: &mut (impl AsyncWrite + Send + Unpin),
) -> Result<()> {
    let id = joined.id();
    if name.is_some() {
        server.labels.change(id, |label| label.name = name)?;
    }
    let read_ms = server.labels.load()?.remove(&id).and_then(|label| label.read_ms);
    write(writer, TopicAnswer::Joined(view(server, &joined).await?)).await?;
    server.chats.count(id, true);
    let newest = AtomicU64::new(0);
    let result = serve(server, &joined, (read_ms.unwrap_or(0), &newest), reader, writer).await;
    let newest = newest.into_inner();
    if newest > 0 {
        server.labels.change(id, |label| label.read_ms = label.read_ms.max(Some(newest)))?;
    }
    if server.chats.count(id, false) == 0 {
        profile(server, &joined, true).await?;
    }
    result
}

/// Says what the owner is called in every topic: what was said before is forgotten when the node
/// ends.
///
/// # Errors
///
/// If the names cannot be read, or the node is closed.
pub(crate) async fn say_names(server: &Server) -> Result<()> {
    for (id, label) in server.labels.load()? {
        // The label of a topic that was left some other way stays.
        if label.name.is_some()
            && let Ok(joined) = server.node.topic(id).await
        {
            profile(server, &joined, true).await?;
        }
    }
    Ok(())
}

/// What is read of the client and what is written to it go on beside each other; the first that
/// ends, ends all.
async fn serve(
    server: &Server,
    joined: &Joined,
    (read_ms, newest): (u64, &AtomicU64),
    reader: &mut (impl AsyncBufRead + Send + Unpin),
    writer: &mut (impl AsyncWrite + Send + Unpin),
) -> Result<()> {
    profile(server, joined, false).await?;
    let (answers, mut queue) = mpsc::channel(QUEUE);
    let writing = async {
        while let Some(answer) = queue.recv().await {
            write(writer, answer).await?;
        }
        Ok(())
    };
    tokio::select! {
        result = hear(server, joined, reader, &answers) => result,
        result = tell(server, joined, (read_ms, newest), &answers) => result,
        result = tell_members(server, joined.clone(), &answers) => result,
        result = writing => result,
    }
}

/// Says what this node's owner is called, and whether somebody looks.
async fn profile(server: &Server, joined: &Joined, away: bool) -> Result<()> {
    let label = server.labels.load()?.remove(&joined.id()).unwrap_or_default();
    Ok(joined.set_status(Profile { name: label.name, away }.write()).await?)
}

/// Does what the client asks for, one thing after the other.
async fn hear(
    server: &Server,
    joined: &Joined,
    reader: &mut (impl AsyncBufRead + Unpin),
    answers: &Answers,
) -> Result<()> {
    while let Some(ask) = read_line::<ChatAsk>(reader).await? {
        let refused = |id, why: String| ChatAnswer::Refused { id, why };
        let answer = match ask {
            ChatAsk::Say { id, text } => TopicAnswer::Chat(match joined.send(text).await {
                Ok(seq) => ChatAnswer::Written { id, seq },
                Err(error) => refused(Some(id), error.to_string()),
            }),
            ChatAsk::Invite => match invite(server, joined, None, None, None).await {
                Ok(invite) => TopicAnswer::Invite(invite),
                Err(error) => TopicAnswer::Chat(refused(None, format!("{error:#}"))),
            },
            ChatAsk::Name(name) => {
                server.labels.change(joined.id(), |label| label.name = Some(name))?;
                profile(server, joined, false).await?;
                continue;
            }
        };
        answers.send(answer).await?;
    }
    Ok(())
}

/// Tells the last of what was said, and then what comes.
async fn tell(
    server: &Server,
    joined: &Joined,
    (read_ms, newest): (u64, &AtomicU64),
    answers: &Answers,
) -> Result<()> {
    let me = server.node.id();
    let (mut names, mut places) = (Names::default(), Places::default());
    let mut messages = joined.messages(Since::Start);
    let mut backlog = VecDeque::new();
    while let Some(received) = messages.next_ready().await {
        let order = places.place(&received, unix_ms());
        backlog.push_back((received, order));
        if backlog.len() > BACKLOG_MAX {
            backlog.pop_front();
        }
    }
    let mut is_ready = false;
    loop {
        let next = match backlog.pop_front() {
            Some(next) => Some(next),
            None if !is_ready => {
                answers.send(TopicAnswer::Chat(ChatAnswer::Ready)).await?;
                is_ready = true;
                None
            }
            None => {
                let next = messages.next_within(LEFT_POLL).await;
                next.map(|received| {
                    let order = places.place(&received, unix_ms());
                    (received, order)
                })
            }
        };
        let Some((received, order)) = next else {
            if joined.stats().await.is_err() {
                bail!("this node has left the topic");
            }
            continue;
        };
        newest.fetch_max(order, Ordering::Relaxed);
        let is_new = order > read_ms && received.author != me;
        let said = Said::new(&received, names.of(received.author, joined).await);
        answers.send(TopicAnswer::Chat(ChatAnswer::Said { said, order, is_new })).await?;
    }
}

async fn tell_members(server: &Server, mut joined: Joined, answers: &Answers) -> Result<()> {
    loop {
        let mut members = members(server, &joined).await?;
        members.truncate(MEMBERS_MAX);
        answers.send(TopicAnswer::Chat(ChatAnswer::Members(members))).await?;
        sleep(MEMBERS_MIN).await;
        if let Ok(None) = timeout(MEMBERS_POLL, joined.members_changed()).await {
            bail!("the node is closed");
        }
    }
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Where entries stand among all: by their authors' clocks, but not after now, and not before what
/// their authors had seen. So an answer follows its question although its author's clock is late,
/// and no clock keeps an entry at the end.
#[derive(Debug, Default)]
struct Places {
    places: BTreeMap<(NodeId, u64), u64>,
    known: VecDeque<(NodeId, u64)>,
}

impl Places {
    fn place(&mut self, entry: &Received, now_ms: u64) -> u64 {
        let before = entry.seq.checked_sub(1).map(|seq| (entry.author, seq));
        let seen = entry.heads.iter().copied().chain(before);
        let earliest = seen.filter_map(|seen| self.places.get(&seen)).max();
        let place = entry.time_ms.min(now_ms).max(earliest.map_or(0, |place| place + 1));
        self.places.insert((entry.author, entry.seq), place);
        self.known.push_back((entry.author, entry.seq));
        if self.known.len() > PLACES_MAX
            && let Some(oldest) = self.known.pop_front()
        {
            self.places.remove(&oldest);
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(author: u8, seq: u64, time_ms: u64, heads: &[(u8, u64)]) -> Received {
        let id = |author| NodeId::from_bytes([author; 32]);
        let heads = heads.iter().map(|(author, seq)| (id(*author), *seq)).collect();
        let (author, kind, payload) = (id(author), baran::KIND_MESSAGE, None);
        Received {
            arrival: 0,
            author,
            seq,
            id: baran::EntryId::from_bytes([0; 32]),
            time_ms,
            heads,
            kind,
            payload,
        }
    }

    #[test]
    fn an_answer_follows_its_question_whatever_the_clocks_say() {
        let mut places = Places::default();
        let question = places.place(&entry(1, 1, 1_000, &[]), 5_000);
        let answer = places.place(&entry(2, 1, 10, &[(1, 1)]), 5_000);
        let more = places.place(&entry(2, 2, 20, &[]), 5_000);
        assert_eq!((question, answer, more), (1_000, 1_001, 1_002));
        assert_eq!(places.place(&entry(3, 1, u64::MAX, &[(9, 9)]), 5_000), 5_000);
    }

    #[test]
    fn places_are_bounded() {
        let mut places = Places::default();
        for seq in 1..=70_000 {
            places.place(&entry(1, seq, seq, &[]), 1 << 40);
        }
        assert_eq!((places.places.len(), places.known.len()), (PLACES_MAX, PLACES_MAX));
    }

    #[test]
    fn chats_are_counted_by_topic() {
        let chats = Chats::default();
        let [a, b] = [[1; 32], [2; 32]].map(TopicId::from_bytes);
        let changes = [(a, true), (a, true), (b, true), (a, false), (a, false), (a, false)];
        let counts = changes.map(|(topic, is_open)| chats.count(topic, is_open));
        assert_eq!(counts, [1, 2, 1, 1, 0, 0]);
    }
}
