//! Who is there, and what each says of itself and has seen.

use core::time::Duration;
use std::collections::BTreeSet;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;

use super::room::Room;
use super::{Event, Member, Timer, Topics, jittered};
use crate::id::NodeId;
use crate::time::Instant;
use crate::topic::id::TopicId;
use crate::topic::presence::{Presence, SEEN_MAX};
use crate::wire::topic::TopicBody;

/// Members up to which each says at once what it has seen; in a larger topic that would be most of
/// what is sent.
const SMALL: usize = 32;

/// How long news are gathered before a presence says that we have seen them: so long at least, and
/// so long for each member, so that all together say at most some three in a second.
const SEEN_PAUSE: Duration = Duration::from_millis(1_500);
const SEEN_PAUSE_EACH: Duration = Duration::from_millis(300);

/// Presences without a word after which a member is not counted as there.
const MISSED_MAX: u32 = 3;

/// Longest pause between presences, however large the topic.
const PAUSE_MAX: Duration = Duration::from_secs(6 * 3600);

/// How far the clock of who says that it is there may be ahead of ours, in milliseconds.
const AHEAD_MS_MAX: u64 = 600_000;

impl Topics {
    pub(super) fn set_presence(&mut self, now: Instant, topic: TopicId, within: Duration) {
        let pause = jittered(&mut self.rng, within);
        self.timers.set_no_later(Timer::Presence(topic), now + pause);
    }

    /// There is something new: whoever said it may want to know that we have it.
    pub(super) fn tell_seen_soon(&mut self, now: Instant, topic: TopicId) {
        let Some(room) = self.rooms.get(&topic) else { return };
        let size = room.size();
        if size <= SMALL {
            let each = SEEN_PAUSE_EACH * u32::try_from(size).unwrap_or(u32::MAX);
            self.set_presence(now, topic, SEEN_PAUSE.max(each));
        }
    }

    /// Says that we are there, or that we go.
    pub(super) fn say_presence(&mut self, now: Instant, topic: TopicId, is_leaving: bool) {
        let unix_ms = self.unix_ms(now);
        let Some(room) = self.rooms.get_mut(&topic) else { return };
        let pause = room.pause(self.config.presence);
        room.forget_absent(unix_ms, self.config.presence);
        room.said_ms = unix_ms.max(room.said_ms + 1);
        let (epoch, status) = room.sealed_status(&mut self.rng);
        let mut presence = Presence::new(room.said_ms, epoch, status, room.seen(self.me));
        presence.is_leaving = is_leaving;
        let presence = presence.sign(&self.secret, &self.network, topic).encode();
        room.our_presence = presence.clone();
        for peer in room.next_on_the_tree(None) {
            self.send(topic, peer, TopicBody::Presence(presence.clone()));
        }
        if !is_leaving {
            let pause = jittered(&mut self.rng, pause);
            self.timers.set(Timer::Presence(topic), now + pause);
        }
    }

    /// A new neighbour hears who is there.
    pub(super) fn greet(&mut self, now: Instant, topic: TopicId, peer: NodeId) {
        let Some(room) = self.rooms.get(&topic) else { return };
        let there = room.presences.values().filter(|heard| !heard.is_leaving);
        let known: Vec<_> = there.take(SMALL).map(Presence::encode).collect();
        let ours = room.our_presence.clone();
        if ours.is_empty() {
            self.set_presence(now, topic, Duration::from_millis(200));
        }
        for presence in known.into_iter().chain([ours]).filter(|presence| !presence.is_empty()) {
            self.send(topic, peer, TopicBody::Presence(presence));
        }
    }

    /// A member says that it is there; it is passed on to the other neighbours, once.
    pub(super) fn handle_presence(
        &mut self,
        now: Instant,
        topic: TopicId,
        from: NodeId,
        bytes: &Bytes,
    ) {
        let unix_ms = self.unix_ms(now);
        let Ok(presence) = Presence::decode(bytes) else {
            return self.bad(now, topic, from, super::apply::WEIGHT_MALFORMED);
        };
        let author = presence.author;
        let Some(room) = self.rooms.get_mut(&topic) else { return };
        let is_known =
            room.presences.get(&author).is_some_and(|known| known.time_ms >= presence.time_ms);
        let is_ahead = presence.time_ms > unix_ms.saturating_add(AHEAD_MS_MAX);
        let is_full = room.presences.len() >= self.config.presences_max
            && !room.presences.contains_key(&author);
        if author == self.me || is_known || is_ahead || is_full {
            return;
        }
        if room.removed.contains_key(&author) || room.log.is_quarantined(author) {
            return;
        }
        if !room.presence_rate.try_take(now, 1) {
            return;
        }
        if !presence.verify(&self.network, topic) {
            return self.bad(now, topic, from, super::apply::WEIGHT_FORGED);
        }
        let is_old =
            presence.time_ms.saturating_add(room.absence_ms(self.config.presence)) < unix_ms;
        // That it went is kept as well, or what is still on its way would be news for ever.
        if !is_old {
            room.presences.insert(author, presence);
            for peer in room.next_on_the_tree(Some(from)) {
                self.send(topic, peer, TopicBody::Presence(bytes.clone()));
            }
            self.event(Event::Members(topic));
        }
    }

    /// Who takes part in a topic, as far as we know; ourselves too.
    #[must_use]
    pub fn members(&self, topic: TopicId, now: Instant) -> Vec<Member> {
        let Some(room) = self.rooms.get(&topic) else { return Vec::new() };
        let (unix, unix_ms) = (self.unix(now), self.unix_ms(now));
        let absence = room.absence_ms(self.config.presence);
        let mut all: BTreeSet<NodeId> = room.log.heads().map(|(author, _)| author).collect();
        all.extend(room.presences.keys());
        all.extend(room.neighbors.keys());
        all.insert(self.me);
        let member = |id: NodeId| {
            let presence = room.presences.get(&id).filter(|heard| !heard.is_leaving);
            let is_me = id == self.me;
            let is_neighbor = room.neighbors.contains_key(&id);
            let is_heard =
                presence.is_some_and(|heard| heard.time_ms.saturating_add(absence) >= unix_ms);
            let has_ours = presence.into_iter().flat_map(|heard| &heard.seen);
            Member {
                id,
                rank: if is_me { Some(room.access.rank(unix)) } else { room.rank_of(id, unix) },
                is_online: is_me || is_neighbor || is_heard,
                is_neighbor,
                is_forked: room.log.is_quarantined(id),
                is_removed: room.removed.contains_key(&id),
                seq: room.log.head(id).map_or(0, |span| span.head),
                has_ours: has_ours.filter(|(of, _)| *of == self.me).map(|(_, seq)| *seq).sum(),
                status: match is_me {
                    true => Some(room.status.clone()).filter(|status| !status.is_empty()),
                    false => presence.and_then(|heard| room.open_status(heard)),
                },
            }
        };
        all.into_iter().map(member).collect()
    }
}

impl Room {
    /// Members that are there, about.
    fn size(&self) -> usize {
        self.presences.len().max(self.neighbors.len()) + 1
    }

    /// The pause between presences: everybody's together are as many in a large topic as in one of
    /// [`SMALL`].
    fn pause(&self, base: Duration) -> Duration {
        let times = u32::try_from(self.size().div_ceil(SMALL)).unwrap_or(u32::MAX);
        base.saturating_mul(times).min(PAUSE_MAX)
    }

    fn absence_ms(&self, base: Duration) -> u64 {
        let absence = self.pause(base).saturating_mul(MISSED_MAX);
        u64::try_from(absence.as_millis()).unwrap_or(u64::MAX)
    }

    fn forget_absent(&mut self, unix_ms: u64, base: Duration) {
        let absence = self.absence_ms(base);
        self.presences.retain(|_, heard| heard.time_ms.saturating_add(absence) >= unix_ms);
    }

    /// Up to where we have the logs that moved last; in a large topic nobody looks.
    fn seen(&self, me: NodeId) -> Vec<(NodeId, u64)> {
        if self.size() > SMALL {
            return Vec::new();
        }
        let mut authors = BTreeSet::new();
        let latest = self.arrivals.iter().rev().map(|entry| entry.author);
        // A few that talk fill the last arrivals; further back nobody waits.
        let authors: Vec<_> = latest
            .take(64 * SEEN_MAX)
            .filter(|author| *author != me && authors.insert(*author))
            .take(SEEN_MAX)
            .collect();
        let head = |author: NodeId| Some((author, self.log.head(author)?.head));
        authors.into_iter().filter_map(head).collect()
    }

    /// Neighbours to which entries are pushed: what is said to them reaches all members, about
    /// once. What is lost when the tree changes is said again before long.
    fn next_on_the_tree(&self, from: Option<NodeId>) -> Vec<NodeId> {
        let eager = self.gossip.neighbors().filter(|(_, is_eager)| *is_eager);
        eager.map(|(peer, _)| peer).filter(|peer| Some(*peer) != from).collect()
    }

    fn sealed_status(&self, rng: &mut ChaCha8Rng) -> (u32, Bytes) {
        let epoch = self.epoch();
        if self.access.keys().is_public() || self.status.is_empty() {
            return (epoch, self.status.clone());
        }
        (epoch, self.seal_with(epoch, &self.status, rng).unwrap_or_default())
    }

    fn open_status(&self, presence: &Presence) -> Option<Bytes> {
        if presence.status.is_empty() {
            return None;
        }
        match self.access.keys().is_public() {
            true => Some(presence.status.clone()),
            false => self.open(presence.epoch, &presence.status),
        }
    }
}
