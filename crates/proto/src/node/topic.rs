//! Topics as a part of the node: the peers that they need reached, and the links that are kept for
//! them.

use super::dial::Word;
use super::find::SEEK_MAX;
use super::{Event, Node, Output, Timer};
use crate::id::NodeId;
use crate::index::DiskAction;
use crate::invite::PeerAddr;
use crate::time::Instant;
use crate::topic::machine::{self as topic, Topics};
use crate::wire::topic::TopicMessage;

impl Node {
    /// Carries out what topics want.
    pub(super) fn handle_topic(&mut self, now: Instant, output: topic::Output) {
        match output {
            topic::Output::Send(peer, message) => {
                if let Some(link) = self.link_to(peer) {
                    self.outputs.push_back(Output::SendTopic { link, message });
                }
            }
            topic::Output::Reach(peer) => self.seek_for_topic(now, &peer),
            topic::Output::Keep(peer, is_kept) => self.keep_for_topic(now, peer, is_kept),
            topic::Output::Index(command) => self.index.handle_command(now, command),
            topic::Output::Disk(token, action) => {
                let action = DiskAction::Topic(action);
                self.outputs.push_back(Output::Disk { token, action });
            }
            topic::Output::Expel(peer) => {
                self.outputs.push_back(Output::ExpelTopic(peer));
            }
            topic::Output::Event(event) => self.event(Event::Topic(event)),
        }
    }

    pub(super) fn handle_topic_message(
        &mut self,
        now: Instant,
        peer: NodeId,
        message: TopicMessage,
    ) {
        if self.link_to(peer).is_some() {
            self.topics.handle_message(now, peer, message);
        }
    }

    pub(super) fn handle_topic_broken(&mut self, now: Instant, peer: NodeId) {
        if self.link_to(peer).is_some() {
            self.topics.peer_broken(now, peer);
        }
    }

    /// Reaches a member for a topic, once: where it is said to be, or where the index finds it.
    fn seek_for_topic(&mut self, now: Instant, peer: &PeerAddr) {
        let id = peer.id;
        if self.link_to(id).is_some() {
            return self.topics.peer_up(now, id);
        }
        if id == self.id || !self.has_room_for(id) {
            return self.topics.unreachable(now, id);
        }
        let state = self.peers.or_default(id);
        state.for_topic = true;
        state.remember(Word::Peer, peer);
        let is_located = !(state.claimed_addrs.is_empty() && state.claimed_homes.is_empty());
        self.timers.set_if_idle(Timer::Seek(id), now + SEEK_MAX);
        self.attempt_signalled(now, id, &[]);
        if !is_located {
            self.index.search(now, id, false);
        }
        self.give_up_if_idle(now, id);
    }

    /// A link that a topic needs is kept, on our side and, as it needs it too, on the other.
    fn keep_for_topic(&mut self, now: Instant, peer: NodeId, is_kept: bool) {
        for link in self.links_to(peer) {
            match is_kept {
                true => self.timers.stop(Timer::Idle(link)),
                false => self.release_if_unkept(now, link),
            }
        }
    }

    /// The topics of this node.
    #[must_use]
    pub fn topics(&self) -> &Topics {
        &self.topics
    }
}
