//! A world of some nodes' topics: links that carry everything at once and in order, an index that
//! knows who announced, and a disk of each node that keeps, refuses or makes wait.

mod access;
mod group;
mod hostile;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::*;
use crate::index::LookupCost;
use crate::key::Key;
use crate::record::{Content, Record};
use crate::topic::access::capability::Rank;
use crate::topic::entry::{KIND_MESSAGE, Signed};
use crate::topic::repair::RepairMessage;
use crate::wire::topic::{TOPIC_LENGTH_LEN, TopicMessage};

const NETWORK: &str = "main";
const START: UnixTime = UnixTime::from_secs(1_790_000_000);

fn secret(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

fn id(n: u8) -> NodeId {
    secret(n).id()
}

fn topics(n: u8, config: TopicConfig) -> Topics {
    let mut topics = Topics::new(secret(n), NETWORK.to_owned(), config, [n; 32]);
    topics.handle_clock(Instant::ZERO, START);
    topics
}

fn public() -> Access {
    Access::public("a name").unwrap()
}

/// A private topic, founded by node 1 with the root key 200.
fn founded() -> Access {
    Access::found(&[7; 32], secret(200), id(1))
}

/// What node `n` holds that came by an invite of node 1's, of which the bearer's key is `n + 100`.
fn invited(access: &Access, n: u8, rank: Rank, expires: Option<UnixTime>) -> Access {
    let invite = access.invite(&secret(1), secret(n + 100), rank, expires, None, &[]).unwrap();
    invite.join(id(n)).unwrap()
}

/// What a disk does with what is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Keeps,
    Refuses,
    /// Keeps nothing and says nothing until it is told otherwise.
    Waits,
}

#[derive(Debug, Default)]
struct Kept {
    state: Bytes,
    entries: BTreeMap<(NodeId, u64), Bytes>,
    authors: BTreeMap<NodeId, Bytes>,
}

#[derive(Debug)]
struct Member {
    topics: Topics,
    mode: Mode,
    disk: BTreeMap<TopicId, Kept>,
    /// What the disk was not asked to do yet.
    held: Vec<(u64, DiskAction)>,
    links: BTreeSet<u8>,
    events: Vec<Event>,
    expelled: Vec<NodeId>,
}

impl Member {
    fn keep(&mut self, action: DiskAction) {
        match action {
            DiskAction::State(topic, state) => self.disk.entry(topic).or_default().state = state,
            DiskAction::Entries(topic, entries) => {
                let kept = self.disk.entry(topic).or_default();
                kept.entries.extend(entries.into_iter().map(|(id, seq, bytes)| ((id, seq), bytes)));
            }
            DiskAction::Trim { topic, entries } => {
                let kept = self.disk.entry(topic).or_default();
                kept.entries.retain(|place, _| !entries.contains(place));
            }
            DiskAction::Author(topic, author, bytes) => {
                self.disk.entry(topic).or_default().authors.insert(author, bytes);
            }
            DiskAction::Drop(topic) => drop(self.disk.remove(&topic)),
        }
    }

    fn has_on_disk(&self, entry: &Signed) -> bool {
        let place = (entry.author(), entry.seq());
        self.disk.values().any(|kept| kept.entries.get(&place) == Some(entry.bytes()))
    }

    fn restored(&self) -> Vec<RestoredTopic> {
        let restored = |(topic, kept): (&TopicId, &Kept)| RestoredTopic {
            topic: *topic,
            state: kept.state.clone(),
            entries: kept.entries.values().cloned().collect(),
            authors: kept.authors.iter().map(|(id, bytes)| (*id, bytes.clone())).collect(),
        };
        self.disk.iter().map(restored).collect()
    }
}

/// Something to be done next.
#[derive(Debug)]
enum Work {
    Up(u8, u8),
    Unreachable(u8, NodeId),
    Message(u8, u8, Vec<u8>),
    Disk(u8, u64, bool),
    Index(u8, index::Event),
}

#[derive(Debug)]
struct World {
    now: Instant,
    members: BTreeMap<u8, Member>,
    work: VecDeque<Work>,
    announced: BTreeMap<Key, BTreeSet<u8>>,
    /// Who is reached by nobody.
    cut: BTreeSet<u8>,
    /// A hash of everything that came out.
    trace: blake3::Hasher,
    /// Messages, by who sent them to whom.
    sent: BTreeMap<(u8, u8), Vec<Vec<u8>>>,
    request: u64,
}

impl World {
    fn new(count: u8) -> Self {
        Self::with(count, &TopicConfig::default())
    }

    fn with(count: u8, config: &TopicConfig) -> Self {
        let mut world = Self {
            now: Instant::ZERO,
            members: BTreeMap::new(),
            work: VecDeque::new(),
            announced: BTreeMap::new(),
            cut: BTreeSet::new(),
            trace: blake3::Hasher::new(),
            sent: BTreeMap::new(),
            request: 0,
        };
        (1..=count).for_each(|n| world.add(n, topics(n, config.clone()), BTreeMap::new()));
        world
    }

    fn add(&mut self, n: u8, topics: Topics, disk: BTreeMap<TopicId, Kept>) {
        let (held, links, events, expelled) = Default::default();
        let member = Member { topics, mode: Mode::Keeps, disk, held, links, events, expelled };
        self.members.insert(n, member);
    }

    /// Nodes in a topic that know of each other from the index alone.
    fn joined(count: u8, access: impl Fn(u8) -> Access) -> (Self, TopicId) {
        let mut world = Self::new(count);
        let topic = access(1).keys().id;
        (1..=count).for_each(|n| world.join(n, access(n)));
        world.run(30);
        (world, topic)
    }

    fn command(&mut self, n: u8, command: Command) {
        let now = self.now;
        self.member(n).topics.handle_command(now, command);
        self.settle();
    }

    fn join(&mut self, n: u8, access: Access) {
        let request = self.request();
        let (access, members) = (Box::new(access), Vec::new());
        self.command(n, Command::Join { request, access, members });
    }

    fn say(&mut self, n: u8, topic: TopicId, text: &str) -> RequestId {
        let request = self.request();
        let (kind, payload) = (KIND_MESSAGE, Bytes::copy_from_slice(text.as_bytes()));
        self.command(n, Command::Send { request, topic, kind, payload });
        request
    }

    fn remove(&mut self, n: u8, topic: TopicId, whom: u8) {
        let request = self.request();
        self.command(n, Command::Remove { request, topic, members: vec![id(whom)] });
        assert!(matches!(self.answer(n, request), Event::Sent { .. }));
    }

    fn request(&mut self) -> RequestId {
        self.request += 1;
        RequestId(self.request)
    }

    /// By which number node `from` spoke of a topic to node `to` last.
    fn number_for(&self, from: u8, to: u8) -> u32 {
        let said = self.sent[&(from, to)].iter().rev();
        let mut said = said.map(|bytes| TopicMessage::decode(&bytes[TOPIC_LENGTH_LEN..]).unwrap());
        said.find(|said| matches!(said.body, TopicBody::Join { .. })).unwrap().number
    }

    /// What was answered to a request.
    fn answer(&self, n: u8, wanted: RequestId) -> &Event {
        let is_it = |event: &&Event| match event {
            Event::Sent { request, .. } | Event::Failed { request, .. } => *request == wanted,
            _ => false,
        };
        self.members[&n].events.iter().find(is_it).expect("it is answered")
    }

    fn error(&self, n: u8, request: RequestId) -> TopicError {
        match self.answer(n, request) {
            Event::Failed { error, .. } => *error,
            other => panic!("{other:?}"),
        }
    }

    fn member(&mut self, n: u8) -> &mut Member {
        self.members.get_mut(&n).unwrap()
    }

    /// What of messages a node can read, in the order of their arrival; `None` if it lacks the key.
    fn texts(&self, n: u8, topic: TopicId) -> Vec<Option<String>> {
        let read = self.members[&n].topics.read(topic, 0, usize::MAX, usize::MAX).unwrap().0;
        let said = read.into_iter().filter(|entry| entry.kind == KIND_MESSAGE);
        let text = |payload: Bytes| String::from_utf8(payload.to_vec()).unwrap();
        said.map(|entry| entry.payload.map(text)).collect()
    }

    /// Whether a node has read this.
    fn has(&self, n: u8, topic: TopicId, text: &str) -> bool {
        self.texts(n, topic).iter().any(|read| read.as_deref() == Some(text))
    }

    fn seen_by(&self, n: u8, topic: TopicId, whom: u8) -> super::Member {
        let members = self.members[&n].topics.members(topic, self.now);
        members.into_iter().find(|member| member.id == id(whom)).expect("it is known")
    }

    fn is_in_step(&self, topic: TopicId, nodes: &[u8]) -> bool {
        let digests = nodes.iter().map(|n| self.members[n].topics.digest(topic).unwrap());
        digests.collect::<BTreeSet<_>>().len() == 1
    }

    /// Ends all links of a node, and lets nobody reach it.
    fn cut(&mut self, n: u8) {
        self.cut.insert(n);
        for other in core::mem::take(&mut self.member(n).links) {
            self.member(other).links.remove(&n);
            let now = self.now;
            self.member(n).topics.peer_down(now, id(other));
            self.member(other).topics.peer_down(now, id(n));
        }
        self.settle();
    }

    /// Starts a node anew, from what its disk holds.
    fn restart(&mut self, n: u8) {
        self.cut(n);
        let old = self.members.remove(&n).unwrap();
        let mut fresh = topics(n, old.topics.config.clone());
        fresh.restore(self.now, old.restored());
        self.add(n, fresh, old.disk);
        self.cut.remove(&n);
        self.settle();
    }

    fn set_disk(&mut self, n: u8, mode: Mode) {
        self.member(n).mode = mode;
        for (token, action) in core::mem::take(&mut self.member(n).held) {
            self.write(n, token, action);
        }
        self.settle();
    }

    fn run(&mut self, secs: u64) {
        let end = self.now + Duration::from_secs(secs);
        self.settle();
        loop {
            let due = self
                .members
                .iter()
                .filter_map(|(n, member)| Some((member.topics.poll_timeout()?, *n)));
            let Some((at, n)) = due.min().filter(|(at, _)| *at <= end) else { break };
            self.now = self.now.max(at);
            let now = self.now;
            self.member(n).topics.handle_timeout(now);
            let next = self.members[&n].topics.poll_timeout();
            assert!(next.is_none_or(|next| next > now), "a timer that is due for ever");
            self.settle();
        }
        self.now = end;
    }

    /// Carries everything where it belongs until nothing is left to be carried.
    fn settle(&mut self) {
        for steps in 0.. {
            assert!(steps < 1_000_000, "it never ends");
            let nodes: Vec<_> = self.members.keys().copied().collect();
            for n in nodes {
                while let Some(output) = self.member(n).topics.poll_output() {
                    self.trace.update(format!("{n} {output:?}").as_bytes());
                    self.carry(n, output);
                }
            }
            let Some(work) = self.work.pop_front() else { break };
            self.work_off(work);
        }
    }

    fn work_off(&mut self, work: Work) {
        let now = self.now;
        match work {
            Work::Up(n, other) => self.member(n).topics.peer_up(now, id(other)),
            Work::Unreachable(n, peer) => self.member(n).topics.unreachable(now, peer),
            Work::Disk(n, token, is_kept) => self.member(n).topics.disk_done(now, token, is_kept),
            Work::Index(n, event) => self.member(n).topics.handle_index(now, event),
            Work::Message(from, to, bytes) => {
                if self.members[&to].links.contains(&from) {
                    let message = TopicMessage::decode(&bytes[TOPIC_LENGTH_LEN..]).unwrap();
                    self.member(to).topics.handle_message(now, id(from), message);
                }
            }
        }
    }

    fn number_of(&self, peer: NodeId) -> Option<u8> {
        self.members.keys().copied().find(|n| id(*n) == peer)
    }

    fn carry(&mut self, n: u8, output: Output) {
        match output {
            Output::Send(peer, message) => {
                self.check_disk_first(n, &message.body);
                let to = self.number_of(peer).filter(|to| self.members[&n].links.contains(to));
                let to = to.expect("sent to who is linked");
                let bytes = message.encode();
                self.sent.entry((n, to)).or_default().push(bytes.clone());
                self.work.push_back(Work::Message(n, to, bytes));
            }
            Output::Reach(peer) => {
                let found = self.number_of(peer.id).filter(|to| *to != n);
                match found.filter(|to| !self.cut.contains(to) && !self.cut.contains(&n)) {
                    Some(to) => self.link(n, to),
                    None => self.work.push_back(Work::Unreachable(n, peer.id)),
                }
            }
            Output::Index(command) => self.ask_index(n, &command),
            Output::Disk(token, action) => self.write(n, token, action),
            Output::Expel(peer) => self.member(n).expelled.push(peer),
            Output::Event(event) => self.member(n).events.push(event),
            Output::Keep(..) => {}
        }
    }

    fn link(&mut self, a: u8, b: u8) {
        self.member(a).links.insert(b);
        self.member(b).links.insert(a);
        self.work.extend([Work::Up(a, b), Work::Up(b, a)]);
    }

    /// No entry of a node's own is heard of by anybody before its disk has it.
    fn check_disk_first(&self, n: u8, body: &TopicBody) {
        let entries = match body {
            TopicBody::Push(entry) => vec![entry.clone()],
            TopicBody::Repair(RepairMessage::Entries { entries, .. }) => entries.clone(),
            _ => Vec::new(),
        };
        for entry in entries.into_iter().map(|bytes| Signed::decode(bytes).unwrap()) {
            assert!(entry.author() != id(n) || self.members[&n].has_on_disk(&entry));
        }
    }

    fn write(&mut self, n: u8, token: u64, action: DiskAction) {
        match self.members[&n].mode {
            Mode::Waits => self.member(n).held.push((token, action)),
            Mode::Refuses => self.work.push_back(Work::Disk(n, token, false)),
            Mode::Keeps => {
                self.member(n).keep(action);
                self.work.push_back(Work::Disk(n, token, true));
            }
        }
    }

    fn ask_index(&mut self, n: u8, command: &index::Command) {
        match command {
            index::Command::Announce { secret, .. } => {
                self.announced.entry(*secret).or_default().insert(n);
            }
            &index::Command::FindTopic { query, secret: key, limit } => {
                let found = self.announced.get(&key).into_iter().flatten().take(limit);
                let sign = |n: &u8| {
                    let expires = START + Duration::from_secs(3_600);
                    let content = Content::Announcement;
                    Record::sign(&secret(*n), NETWORK, Some(key), 1, expires, content).unwrap()
                };
                let records = found.map(|n| index::Event::Record { query, record: sign(n) });
                let done = index::Event::Done { query, cost: LookupCost::default() };
                let events: Vec<_> = records.chain([done]).collect();
                self.work.extend(events.into_iter().map(|event| Work::Index(n, event)));
            }
            // Who left is still found for a while, as in the real one.
            _ => {}
        }
    }
}
