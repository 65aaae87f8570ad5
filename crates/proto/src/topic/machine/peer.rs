//! Linked peers: which topics each has shown to share, and by which numbers we speak of them.

use std::collections::BTreeSet;

use super::room::Room;
use super::{Output, Topics};
use crate::bucket::TokenBucket;
use crate::flat::FlatMap;
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::time::Instant;
use crate::topic::gossip;
use crate::topic::id::TopicId;
use crate::wire::topic::{TopicBody, TopicMessage};

/// Joins that one peer may send in a second, and at once: each costs a hash for each of our topics.
const JOINS_PER_S: u64 = 16;
const JOINS_AT_ONCE: u64 = 512;

/// A peer that has to do with a topic, or asked whether it has.
#[derive(Debug)]
pub(super) struct Peer {
    /// Topics for which a link to it is to last.
    kept_for: BTreeSet<TopicId>,
    /// Topics that wait to hear whether it shares them.
    asked_for: BTreeSet<TopicId>,
    /// Our numbers of the topics that we spoke of to it.
    ours: FlatMap<TopicId, u32>,
    /// Its numbers of the topics that it showed to share.
    theirs: FlatMap<u32, TopicId>,
    joins: TokenBucket,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            kept_for: BTreeSet::new(),
            asked_for: BTreeSet::new(),
            ours: FlatMap::new(),
            theirs: FlatMap::new(),
            joins: TokenBucket::new(JOINS_PER_S, JOINS_AT_ONCE),
        }
    }
}

impl Peer {
    fn shares(&self, topic: TopicId) -> bool {
        self.theirs.values().any(|shared| *shared == topic)
    }
}

impl Topics {
    /// Whether a link to a peer is to last.
    #[must_use]
    pub fn is_kept(&self, peer: NodeId) -> bool {
        self.peers.get(&peer).is_some_and(|state| !state.kept_for.is_empty())
    }

    /// A link to a peer stands.
    pub(crate) fn peer_up(&mut self, now: Instant, peer: NodeId) {
        if self.is_banned(now, peer) {
            return;
        }
        self.linked.insert(peer, ());
        let asked_for = self.peers.get(&peer).map(|state| state.asked_for.clone());
        for topic in asked_for.unwrap_or_default() {
            self.say_join(topic, peer, true);
        }
    }

    /// The last link to a peer is gone, or what was on its way to it or from it.
    pub(crate) fn peer_down(&mut self, now: Instant, peer: NodeId) {
        self.lose(now, peer);
    }

    /// What was on its way to a peer or from it is lost; the link stands.
    pub(crate) fn peer_broken(&mut self, now: Instant, peer: NodeId) {
        self.lose(now, peer);
        self.peer_up(now, peer);
    }

    /// A peer that was to be reached is not.
    pub(crate) fn unreachable(&mut self, now: Instant, peer: NodeId) {
        if !self.linked.contains_key(&peer) {
            self.lose(now, peer);
        }
    }

    /// Forgets a peer and tells the topics that had to do with it.
    pub(super) fn lose(&mut self, now: Instant, peer: NodeId) {
        self.linked.remove(&peer);
        let Some(state) = self.peers.remove(&peer) else { return };
        let shared: BTreeSet<_> = state.theirs.values().copied().collect();
        if !state.kept_for.is_empty() {
            self.outputs.push_back(Output::Keep(peer, false));
        }
        for topic in state.asked_for {
            if !shared.contains(&topic) {
                self.feed(now, topic, gossip::Input::Unreachable(peer));
            }
        }
        for topic in shared {
            self.feed(now, topic, gossip::Input::PeerDown(peer));
        }
    }

    /// A topic wants to talk with a peer.
    pub(super) fn connect(&mut self, now: Instant, topic: TopicId, peer: PeerAddr) {
        let id = peer.id;
        if id == self.me || self.is_banned(now, id) {
            return self.feed(now, topic, gossip::Input::Unreachable(id));
        }
        let is_linked = self.linked.contains_key(&id);
        let state = self.peers.or_default(id);
        let is_shared = state.shares(topic);
        if state.kept_for.is_empty() {
            self.outputs.push_back(Output::Keep(id, true));
        }
        state.kept_for.insert(topic);
        if is_shared {
            self.feed(now, topic, gossip::Input::PeerUp(id));
        } else {
            state.asked_for.insert(topic);
            match is_linked {
                true => self.say_join(topic, id, true),
                false => self.outputs.push_back(Output::Reach(peer)),
            }
        }
    }

    /// A topic needs a link to a peer no longer.
    pub(super) fn release(&mut self, topic: TopicId, peer: NodeId) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.asked_for.remove(&topic);
        if state.kept_for.remove(&topic) && state.kept_for.is_empty() {
            self.outputs.push_back(Output::Keep(peer, false));
            if !self.linked.contains_key(&peer) {
                self.peers.remove(&peer);
            }
        }
    }

    /// A peer is a neighbour in a topic, whoever began it: the link is to last.
    pub(super) fn keep(&mut self, topic: TopicId, peer: NodeId) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        if state.kept_for.is_empty() {
            self.outputs.push_back(Output::Keep(peer, true));
        }
        state.kept_for.insert(topic);
    }

    /// We take part in a topic no longer.
    pub(super) fn part_from_all(&mut self, topic: TopicId) {
        let all: Vec<_> = self.peers.keys().copied().collect();
        for peer in all {
            let Some(state) = self.peers.get_mut(&peer) else { continue };
            state.theirs.retain(|_, shared| *shared != topic);
            if let Some(number) = state.ours.remove(&topic) {
                let message = TopicMessage { number, body: TopicBody::Leave };
                self.outputs.push_back(Output::Send(peer, message));
            }
            self.release(topic, peer);
        }
    }

    fn say_join(&mut self, topic: TopicId, peer: NodeId, is_asking: bool) {
        let Some(room) = self.rooms.get(&topic) else { return };
        let tag = room.access.keys().tag(self.me, peer);
        let state = self.peers.or_default(peer);
        let number = *state.ours.or_insert_with(topic, || {
            // Never one that was used before: what is still on its way would be misread.
            self.next_number = self.next_number.wrapping_add(1);
            self.next_number
        });
        let message = TopicMessage { number, body: TopicBody::Join { tag, is_asking } };
        self.outputs.push_back(Output::Send(peer, message));
    }

    /// Sends to a peer that was told our number of the topic.
    pub(super) fn send(&mut self, topic: TopicId, peer: NodeId, body: TopicBody) {
        let is_linked = self.linked.contains_key(&peer);
        let Some(state) = self.peers.get(&peer).filter(|_| is_linked) else { return };
        if let Some(number) = state.ours.get(&topic).copied() {
            self.outputs.push_back(Output::Send(peer, TopicMessage { number, body }));
        }
    }

    /// A peer says something on the stream of topics.
    pub(crate) fn handle_message(&mut self, now: Instant, peer: NodeId, message: TopicMessage) {
        if self.is_banned(now, peer) {
            return;
        }
        let TopicMessage { number, body } = message;
        match body {
            TopicBody::Join { tag, is_asking } => {
                return self.handle_join(now, peer, number, &tag, is_asking);
            }
            TopicBody::Unknown => return self.handle_unknown(now, peer, number),
            _ => {}
        }
        let shared = self.peers.get(&peer).and_then(|state| state.theirs.get(&number));
        let Some(topic) = shared.copied() else { return };
        match body {
            TopicBody::Leave => self.handle_leave(now, peer, number, topic),
            TopicBody::Gossip(message) => {
                self.feed(now, topic, gossip::Input::Message { peer, message });
            }
            TopicBody::Push(entry) => self.handle_push(now, topic, peer, entry),
            TopicBody::Repair(message) => self.handle_repair(now, topic, peer, message),
            TopicBody::Presence(presence) => self.handle_presence(now, topic, peer, &presence),
            TopicBody::Fork(a, b) => self.handle_fork(now, topic, peer, a, b),
            TopicBody::Join { .. } | TopicBody::Unknown => {}
        }
    }

    /// A peer shows that it takes part in a topic, if that is one of ours.
    fn handle_join(
        &mut self,
        now: Instant,
        peer: NodeId,
        number: u32,
        tag: &[u8; 32],
        is_asking: bool,
    ) {
        let shared_max = self.config.topics_per_peer_max;
        self.linked.insert(peer, ());
        let state = self.peers.or_default(peer);
        if !state.joins.try_take(now, 1) {
            return;
        }
        let me = self.me;
        let is_it = |room: &Room| room.access.keys().is_tag(peer, me, tag);
        let found = self.rooms.iter().find(|(_, room)| is_it(room)).map(|(topic, _)| *topic);
        // One that it shares already takes no more room.
        let is_full = state.theirs.len() >= shared_max;
        let Some(topic) = found.filter(|topic| !is_full || state.shares(*topic)) else {
            let message = TopicMessage { number, body: TopicBody::Unknown };
            return self.outputs.push_back(Output::Send(peer, message));
        };
        if is_asking {
            self.say_join(topic, peer, false);
        }
        let state = self.peers.or_default(peer);
        state.asked_for.remove(&topic);
        let is_new = !state.shares(topic);
        // It may have forgotten its number; the one that it says last counts.
        state.theirs.retain(|_, shared| *shared != topic);
        state.theirs.insert(number, topic);
        if is_new {
            self.feed(now, topic, gossip::Input::PeerUp(peer));
        }
    }

    /// A peer takes no part in the topic of which we spoke by this number.
    fn handle_unknown(&mut self, now: Instant, peer: NodeId, number: u32) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let found = state.ours.iter().find(|(_, ours)| **ours == number);
        let Some(topic) = found.map(|(topic, _)| *topic) else { return };
        state.ours.remove(&topic);
        if !state.shares(topic) {
            self.release(topic, peer);
            self.feed(now, topic, gossip::Input::Unreachable(peer));
        }
    }

    fn handle_leave(&mut self, now: Instant, peer: NodeId, number: u32, topic: TopicId) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.theirs.remove(&number);
            state.ours.remove(&topic);
        }
        self.release(topic, peer);
        self.feed(now, topic, gossip::Input::PeerDown(peer));
    }
}
