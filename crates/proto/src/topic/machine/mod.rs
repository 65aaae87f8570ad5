//! The topics of a node as one state machine: who of its peers shares which, what comes from them
//! and goes to them, and what the owner reads and says.
//!
//! Each topic is a `Room`: an [`Access`](super::access), a [`Log`](super::log), the
//! [`Gossip`](super::gossip) that finds neighbours and pushes entries, and a comparison
//! ([`Repair`](super::repair)) with each neighbour. This machine routes between them and the node:
//!
//! - A peer is told of a topic only by a tag that members alone can make or check, and a topic is
//!   spoken of by a number from then on. A peer that does not know it learns nothing.
//! - Our own entries are on disk before anybody hears of them: who forgot one and gave its number
//!   to another would have forked its log. Entries of others are written while they are passed on;
//!   what a crash takes comes again from any member.
//! - An entry is verified before it is applied, and applied before it is passed on. What is not
//!   valid counts against the peer that sent it, up to a ban.
//!
//! Invariants: a message of a peer changes only topics that it proved to share; every queue, map
//! and list has a limit in [`TopicConfig`]; nothing that is said in a topic reaches a peer that has
//! not shown the topic's tag.

mod api;
mod apply;
mod members;
mod peer;
mod read;
mod room;
mod say;
#[cfg(test)]
mod tests;

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

pub use self::api::*;
use self::peer::Peer;
use self::room::{Room, RoomState};
use super::access::Access;
use super::gossip;
use super::id::{EntryId, TopicId};
use crate::flat::FlatMap;
use crate::id::{NodeId, SecretKey};
use crate::index::{self, QueryId};
use crate::invite::PeerAddr;
use crate::machine::{self, Machine};
use crate::time::{Instant, UnixTime};
use crate::timer::Timers;
use crate::wire::topic::TopicBody;

/// Numbers of queries and disk tokens of topics: those of the node's other parts lie below.
pub(crate) const NUMBERS_FROM: u64 = 1 << 63;

/// Members asked of the index at a time.
const SAMPLE: usize = 16;

/// Pause before members are asked for again when nobody could be asked.
const MEMBERS_AGAIN: Duration = Duration::from_secs(1);

/// How long a peer that was banned is not listened to.
const BAN: Duration = Duration::from_secs(600);

/// Topics remembered that we left.
const LEFT_MAX: usize = 4_096;

/// Bans remembered.
const BANS_MAX: usize = 1_024;

/// What waits for its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Of a topic's gossip.
    Gossip(TopicId),
    /// Ask the index for members, of which nobody could be asked.
    Members(TopicId),
    /// Compare with a neighbour.
    Repair(TopicId),
    /// Say that we are there.
    Presence(TopicId),
}

/// The topics of a node. See the module's documentation.
#[derive(Debug)]
pub struct Topics {
    secret: SecretKey,
    me: NodeId,
    network: String,
    config: TopicConfig,
    rng: ChaCha8Rng,
    rooms: FlatMap<TopicId, Box<Room>>,
    /// Linked peers. Most have nothing to do with any topic.
    linked: FlatMap<NodeId, ()>,
    peers: FlatMap<NodeId, Box<Peer>>,
    /// Who is not listened to, until when.
    bans: FlatMap<NodeId, Instant>,
    /// Topics that we left, and the last of our entries in each.
    left: BTreeMap<TopicId, (u64, EntryId)>,
    /// What the calendar said, and when.
    clock: (Instant, UnixTime),
    /// Announcements and look-ups under way, and for which topic.
    queries: FlatMap<QueryId, TopicId>,
    /// Members that look-ups under way have named: together they are one sample.
    samples: FlatMap<QueryId, Vec<PeerAddr>>,
    next_query: u64,
    /// Writes of our own entries, and of which topic.
    writes: FlatMap<u64, TopicId>,
    next_token: u64,
    /// Of topics, as we speak of them to peers.
    next_number: u32,
    timers: Timers<Timer>,
    outputs: VecDeque<Output>,
}

impl Topics {
    /// A node that takes part in no topic. `seed` feeds all its randomness.
    pub(crate) fn new(
        secret: SecretKey,
        network: String,
        config: TopicConfig,
        seed: [u8; 32],
    ) -> Self {
        Self {
            me: secret.id(),
            secret,
            network,
            config,
            rng: ChaCha8Rng::from_seed(seed),
            rooms: FlatMap::new(),
            linked: FlatMap::new(),
            peers: FlatMap::new(),
            bans: FlatMap::new(),
            left: BTreeMap::new(),
            clock: (Instant::ZERO, UnixTime::from_secs(0)),
            queries: FlatMap::new(),
            samples: FlatMap::new(),
            next_query: NUMBERS_FROM,
            writes: FlatMap::new(),
            next_token: NUMBERS_FROM,
            next_number: 0,
            timers: Timers::default(),
            outputs: VecDeque::new(),
        }
    }

    /// What the calendar says.
    pub(crate) fn handle_clock(&mut self, now: Instant, unix: UnixTime) {
        self.clock = (now, unix);
    }

    fn unix_ms(&self, now: Instant) -> u64 {
        let (at, unix) = self.clock;
        let since = u64::try_from((now - at).as_millis()).unwrap_or(u64::MAX);
        unix.as_secs().saturating_mul(1_000).saturating_add(since)
    }

    fn unix(&self, now: Instant) -> UnixTime {
        UnixTime::from_secs(self.unix_ms(now) / 1_000)
    }

    /// Takes part in the topics of the last run.
    pub(crate) fn restore(&mut self, now: Instant, topics: Vec<RestoredTopic>) {
        for restored in topics {
            let Ok(state) = RoomState::decode(&restored.state) else { continue };
            let topic = restored.topic;
            if state.access.is_empty() {
                let own = restored.authors.iter().find(|(author, _)| *author == self.me);
                let head = own.and_then(|(_, author)| Room::head_of(author));
                self.left.extend(head.map(|head| (topic, head)));
                continue;
            }
            let Ok(access) = Access::decode(&state.access) else { continue };
            if self.rooms.len() < self.config.topics_max && !self.rooms.contains_key(&topic) {
                self.open(now, access);
                if let Some(room) = self.rooms.get_mut(&topic) {
                    room.restore(state, restored);
                }
            }
        }
    }

    /// Does what the owner asks.
    pub(crate) fn handle_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Join { request, access, members } => {
                self.join(now, request, *access, members);
            }
            Command::Leave(topic) => self.leave(now, topic),
            Command::Send { request, topic, kind, payload } => {
                self.say(now, request, topic, kind, payload);
            }
            Command::Remove { request, topic, members } => {
                self.remove(now, request, topic, &members);
            }
            Command::Status { topic, status } => self.set_status(now, topic, status),
        }
    }

    fn join(&mut self, now: Instant, request: RequestId, access: Access, members: Vec<PeerAddr>) {
        let topic = access.keys().id;
        if let Some(room) = self.rooms.get_mut(&topic) {
            room.access.merge(access);
            room.open_past();
        } else if self.rooms.len() >= self.config.topics_max {
            let error = TopicError::TooManyTopics;
            return self.event(Event::Failed { request, error });
        } else {
            self.open(now, access);
        }
        self.persist_state(topic);
        self.feed(now, topic, gossip::Input::Found(members));
        self.event(Event::Joined { request, topic });
        self.say_here(now, topic);
    }

    /// Starts to take part: announces it, and looks for others.
    fn open(&mut self, now: Instant, access: Access) {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let (topic, secret) = (access.keys().id, access.keys().discovery);
        let announcement = self.query(topic);
        let mut room = Room::new(self.me, access, &self.config, announcement, now, seed);
        if let Some((seq, id)) = self.left.remove(&topic) {
            room.log.restore(Vec::new(), vec![(self.me, seq, id)]);
        }
        self.rooms.insert(topic, Box::new(room));
        self.outputs
            .push_back(Output::Index(index::Command::Announce { query: announcement, secret }));
        self.drain_room(now, topic);
        self.set_repair(now, topic);
        self.set_presence(now, topic, Duration::ZERO);
    }

    fn leave(&mut self, now: Instant, topic: TopicId) {
        if !self.rooms.contains_key(&topic) {
            return;
        }
        self.say_presence(now, topic, true);
        let Some(mut room) = self.rooms.remove(&topic) else { return };
        // Who waits for what is said finds that nothing more is.
        self.event(Event::News { topic, next: 0 });
        let timers = [Timer::Gossip, Timer::Members, Timer::Repair, Timer::Presence];
        timers.into_iter().for_each(|timer| self.timers.stop(timer(topic)));
        self.queries.retain(|_, of| *of != topic);
        self.samples.retain(|query, _| self.queries.contains_key(query));
        self.writes.retain(|_, of| *of != topic);
        self.outputs.push_back(Output::Index(index::Command::Cancel(room.announcement)));
        self.part_from_all(topic);
        self.write(DiskAction::Drop(topic));
        let writing = room.writing.drain(..).map(|(request, _)| request);
        let waiting = room.outbox.drain(..).map(|draft| draft.request);
        for request in writing.chain(waiting).flatten() {
            self.event(Event::Failed { request, error: TopicError::NotJoined });
        }
        // Who comes back goes on with its log: another first entry would be a fork.
        if let Some(span) = room.log.head(self.me) {
            self.write(DiskAction::State(topic, RoomState::left().encode()));
            self.write(room.author_action(self.me));
            if self.left.len() < LEFT_MAX {
                self.left.insert(topic, (span.head, span.head_id));
            }
        }
    }

    fn persist_state(&mut self, topic: TopicId) {
        let Some(room) = self.rooms.get(&topic) else { return };
        let action = DiskAction::State(topic, room.state().encode());
        let token = self.token();
        self.outputs.push_back(Output::Disk(token, action));
    }

    fn query(&mut self, topic: TopicId) -> QueryId {
        let query = QueryId(self.next_query);
        self.next_query = self.next_query.wrapping_add(1).max(NUMBERS_FROM);
        self.queries.insert(query, topic);
        query
    }

    fn token(&mut self) -> u64 {
        let token = self.next_token;
        self.next_token = self.next_token.wrapping_add(1).max(NUMBERS_FROM);
        token
    }

    /// The index answers a query of ours.
    pub(crate) fn handle_index(&mut self, now: Instant, event: index::Event) {
        match event {
            index::Event::Record { query, record } => {
                let Some(topic) = self.queries.get(&query).copied() else { return };
                let member = PeerAddr::from(record.author());
                if member.id == self.me {
                    return;
                }
                // Who has nobody does not wait for the rest.
                if self.rooms.get(&topic).is_some_and(|room| room.neighbors.is_empty()) {
                    self.feed(now, topic, gossip::Input::Found(vec![member.clone()]));
                }
                let sample = self.samples.or_default(query);
                if sample.len() < SAMPLE {
                    sample.push(member);
                }
            }
            index::Event::Done { query, .. } => {
                let sample = self.samples.remove(&query).unwrap_or_default();
                if let Some(topic) = self.queries.remove(&query) {
                    self.feed(now, topic, gossip::Input::Found(sample));
                }
            }
            index::Event::NotJoined(query) | index::Event::Failed { query, .. } => {
                let Some(topic) = self.queries.get(&query).copied() else { return };
                // The index itself announces us again.
                if self.rooms.get(&topic).is_none_or(|room| room.announcement != query) {
                    self.queries.remove(&query);
                    self.samples.remove(&query);
                    // Sooner than gossip would: a node that has just started is joined soon.
                    self.timers.set(Timer::Members(topic), now + MEMBERS_AGAIN);
                }
            }
            index::Event::Kept { .. } => {}
        }
    }

    /// Feeds the gossip of a topic, and carries out what it wants.
    fn feed(&mut self, now: Instant, topic: TopicId, input: gossip::Input) {
        if let Some(room) = self.rooms.get_mut(&topic) {
            room.gossip.handle_input(now, input);
            self.drain_room(now, topic);
        }
    }

    /// Turns what a topic's gossip wants into outputs of ours, until it wants nothing.
    fn drain_room(&mut self, now: Instant, topic: TopicId) {
        while let Some(output) =
            self.rooms.get_mut(&topic).and_then(|room| room.gossip.poll_output())
        {
            match output {
                gossip::Output::Connect(peer) => self.connect(now, topic, peer),
                gossip::Output::Disconnect(peer) => self.release(topic, peer),
                gossip::Output::Send { peer, message } => {
                    self.send(topic, peer, TopicBody::Gossip(message));
                }
                gossip::Output::Push { peer, id } => {
                    let entry = self.rooms.get(&topic).and_then(|room| room.log.by_short(id));
                    if let Some(entry) = entry.map(|entry| entry.bytes().clone()) {
                        self.send(topic, peer, TopicBody::Push(entry));
                    }
                }
                gossip::Output::WantMembers => self.look_for_members(topic),
                gossip::Output::Neighbor { peer, is_up } => {
                    self.neighbor_changed(now, topic, peer, is_up);
                }
                gossip::Output::Ban(peer) => self.ban(now, peer),
            }
        }
        match self.rooms.get(&topic).and_then(|room| room.gossip.poll_timeout()) {
            Some(at) => self.timers.set(Timer::Gossip(topic), at),
            None => self.timers.stop(Timer::Gossip(topic)),
        }
    }

    fn look_for_members(&mut self, topic: TopicId) {
        let Some(room) = self.rooms.get(&topic) else { return };
        let secret = room.access.keys().discovery;
        let is_asked =
            self.queries.iter().any(|(query, of)| *of == topic && *query != room.announcement);
        if !is_asked {
            let query = self.query(topic);
            let command = index::Command::FindTopic { query, secret, limit: SAMPLE };
            self.outputs.push_back(Output::Index(command));
        }
    }

    fn ban(&mut self, now: Instant, peer: NodeId) {
        self.bans.retain(|_, until| *until > now);
        if self.bans.len() < BANS_MAX {
            self.bans.insert(peer, now + BAN);
        }
        self.lose(now, peer);
        self.outputs.push_back(Output::Expel(peer));
    }

    fn is_banned(&self, now: Instant, peer: NodeId) -> bool {
        self.bans.get(&peer).is_some_and(|until| *until > now)
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.expire(now) {
            match timer {
                Timer::Gossip(topic) => {
                    if let Some(room) = self.rooms.get_mut(&topic) {
                        room.gossip.handle_timeout(now);
                        self.drain_room(now, topic);
                    }
                }
                Timer::Members(topic) => self.look_for_members(topic),
                Timer::Repair(topic) => self.compare(now, topic),
                Timer::Presence(topic) => self.say_presence(now, topic, false),
            }
        }
    }

    /// The next thing to be done.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        machine::pop(&mut self.outputs)
    }

    /// When [`Topics::handle_timeout`] is wanted next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }
}

/// A pause of half to one and a half of `mean`, so that members do not move in step.
fn jittered(rng: &mut ChaCha8Rng, mean: Duration) -> Duration {
    let mean = u64::try_from(mean.as_micros()).unwrap_or(u64::MAX);
    let span = mean.max(1);
    Duration::from_micros((mean / 2).saturating_add(rng.next_u64() % span))
}
