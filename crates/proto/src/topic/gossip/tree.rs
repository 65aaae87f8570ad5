//! The tree: to whom an entry is pushed, to whom it is announced, and who is asked for it.

use core::time::Duration;
use std::collections::BTreeMap;

use super::missing::{Announced, Noted, patience};
use rand_core::Rng;

use super::{Gossip, OVER_RATE, Output, Peer, Stage, Timer};
use crate::id::NodeId;
use crate::time::Instant;
use crate::topic::id::ShortId;
use crate::wire::topic::{GossipMessage, SHORTS_MAX};

/// Longest entry, in bytes, that is pushed to more than two neighbours.
pub const LARGE: usize = 4 << 10;

/// Eager neighbours that a large entry is pushed to.
const LARGE_PUSHES: usize = 2;

/// How long announcements are gathered.
const GATHER: Duration = Duration::from_millis(50);

/// How long an announced entry may take before it is asked for, or twice as long as entries used to
/// take if that is longer. Up to as much again is drawn, so that of a piece that the tree lost one
/// member asks, and not all.
pub const GRAFT_AFTER: Duration = Duration::from_millis(300);

/// The longest such time.
const GRAFT_AFTER_MAX: Duration = Duration::from_millis(1_000);

/// The same if a neighbour announced it that would have pushed it were it not large. In a tree it
/// is the only one who would, so waiting brings nothing but a choice among some at the beginning.
const GRAFT_LARGE_AFTER: Duration = Duration::from_millis(20);

/// An announcement so much ahead of the push makes its sender eager: had it pushed, the entry would
/// have been here that much earlier.
const AHEAD: Duration = Duration::from_millis(150);

/// Least time between two such edges, each of which costs duplicates until the slow one is pruned.
const FASTER_PAUSE: Duration = Duration::from_secs(10);

/// After a prune so much may be on its way.
const PRUNE_GRACE: Duration = Duration::from_secs(1);

/// How long an edge that brought something new is spared by most duplicates.
const USEFUL_FOR: Duration = Duration::from_secs(2);

/// Points for an entry that was new.
const USEFUL: i64 = 1;

/// Points for an entry that was announced, asked for and did not come in time.
const PROMISED: i64 = -1;

/// Points for a duplicate after a prune; large ones count up to four times.
const DUPLICATE: i64 = -1;

/// Points for announcing more than is waited for of one peer.
const HOARD: i64 = -2;

/// Bytes that an entry which is asked for counts beside its own.
const GRAFT_OVERHEAD: usize = 64;

impl Gossip {
    /// An entry is new: it goes on to the neighbours.
    pub(super) fn handle_have(
        &mut self,
        now: Instant,
        id: ShortId,
        from: Option<NodeId>,
        len: usize,
    ) {
        if !self.seen.insert(id, len) {
            return;
        }
        self.count_entry(now);
        let Announced { first, announcers } = self.missing.remove(id);
        if let Some(from) = from
            && let Some(peer) = self.active(from)
        {
            let is_answer = peer.arrived(now, id);
            peer.make_eager();
            peer.useful_at = Some(now);
            if let Some((first, since)) = first.filter(|_| !is_answer) {
                self.measure(now, from, first, now - since);
            }
            self.judge(now, from, USEFUL);
        }
        let others = self.neighbors().filter(|(peer, _)| {
            // Who announced it has it.
            Some(*peer) != from && !announcers.contains(peer)
        });
        let others: Vec<_> = others.collect();
        let mut pushes = if len > LARGE { LARGE_PUSHES } else { usize::MAX };
        for (peer, is_eager) in others {
            if is_eager && pushes > 0 {
                pushes -= 1;
                self.outputs.push_back(Output::Push { peer, id });
            } else {
                self.announce(now, peer, id, is_eager);
            }
        }
    }

    /// The tree brought what somebody had announced so long before.
    fn measure(&mut self, now: Instant, from: NodeId, first: NodeId, lead: Duration) {
        self.lag = (self.lag * 7 + lead.min(GRAFT_AFTER_MAX)) / 8;
        let may = self.faster_at.is_none_or(|at| at + FASTER_PAUSE <= now);
        if lead < AHEAD || first == from || !may {
            return;
        }
        // The slow edge goes by and by, when it brings nothing but duplicates.
        let Some(better) = self.active(first).filter(|peer| !peer.is_eager) else { return };
        better.make_eager();
        self.send(first, GossipMessage::Graft(Vec::new()));
        self.faster_at = Some(now);
    }

    fn count_entry(&mut self, now: Instant) {
        let pause = self.entry_at.map_or(Duration::MAX, |at| now - at);
        // Loses what it holds within a second, and gains one.
        let elapsed = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX).min(1_000);
        self.in_flight = self.in_flight * (1_000 - elapsed) / 1_000 + 16;
        self.entry_at = Some(now);
    }

    /// Whether a duplicate may prune an edge. Entries on their way at the same time would cut a
    /// cycle in several places if each might, so of an edge that brings new ones, too, only one
    /// in as many does.
    fn may_prune(&mut self, now: Instant, id: NodeId) -> bool {
        let is_useful = |peer: &Peer| peer.useful_at.is_some_and(|at| now < at + USEFUL_FOR);
        let is_useful = self.active(id).is_some_and(|peer| peer.is_eager && is_useful(peer));
        !is_useful || self.rng.next_u64().is_multiple_of((self.in_flight / 16).max(1))
    }

    fn prune(&mut self, now: Instant, id: NodeId) {
        let Some(peer) = self.active(id) else { return };
        peer.is_eager = false;
        peer.pruned_at.get_or_insert(now);
        if peer.prune_sent_at.is_none_or(|at| now >= at + PRUNE_GRACE) {
            peer.prune_sent_at = Some(now);
            self.send(id, GossipMessage::Prune);
        }
    }

    fn announce(&mut self, now: Instant, to: NodeId, id: ShortId, at_once: bool) {
        let Some(peer) = self.active(to) else { return };
        peer.queue.push(id);
        if at_once || peer.queue.len() >= SHORTS_MAX {
            let ids = core::mem::take(&mut peer.queue);
            self.send(to, GossipMessage::Have(ids));
        } else {
            self.timers.set_if_idle(Timer::Announce, now + GATHER);
        }
    }

    /// Sends the announcements that were gathered.
    pub(super) fn announce_all(&mut self) {
        let Self { peers, outputs, .. } = self;
        for (id, peer) in peers.iter_mut().filter(|(_, peer)| !peer.queue.is_empty()) {
            let message = GossipMessage::Have(core::mem::take(&mut peer.queue));
            outputs.push_back(Output::Send { peer: *id, message });
        }
    }

    pub(super) fn handle_announced(&mut self, now: Instant, from: NodeId, ids: &[ShortId]) {
        let usual = (self.lag * 2).clamp(GRAFT_AFTER, GRAFT_AFTER_MAX);
        let Some(peer) = self.active(from) else { return };
        peer.queue.retain(|id| !ids.contains(id));
        let first = if peer.is_eager { GRAFT_LARGE_AFTER } else { usual };
        let due = now + first + first * (self.rng.next_u32() % 256) / 256;
        for id in ids {
            if self.seen.contains(*id) {
                continue;
            }
            match self.missing.note(now, *id, from, due) {
                Noted::Waits => {}
                Noted::TooMany => return self.judge(now, from, HOARD),
                Noted::Full => return,
            }
        }
    }

    /// Asks for the entries that are due, of whoever announced them next.
    pub(super) fn fetch(&mut self, now: Instant) {
        let mut grafts: BTreeMap<NodeId, Vec<ShortId>> = BTreeMap::new();
        let mut broken = Vec::new();
        let Self { missing, peers, .. } = self;
        let is_active = |id| peers.get(&id).is_some_and(|peer| peer.is_active());
        while let Some(due) = missing.take_due(now, is_active) {
            broken.extend(due.failed);
            let Some(next) = due.next else { continue };
            let wait = peers.get(&next).map_or(GRAFT_AFTER, |peer| peer.wait());
            missing.asked(due.id, now + patience(wait, due.asks));
            grafts.entry(next).or_default().push(due.id);
        }
        for (to, ids) in grafts {
            if let Some(peer) = self.active(to) {
                peer.make_eager();
                peer.asked = ids.last().map(|id| (*id, now));
            }
            for ids in ids.chunks(SHORTS_MAX) {
                self.send(to, GossipMessage::Graft(ids.to_vec()));
            }
        }
        for peer in broken {
            self.judge(now, peer, PROMISED);
        }
    }

    pub(super) fn handle_graft(&mut self, now: Instant, from: NodeId, ids: &[ShortId]) {
        let Self { peers, seen, outputs, .. } = self;
        let Some(peer) = peers.get_mut(&from) else { return };
        peer.make_eager();
        for id in ids {
            let Some(len) = seen.len_of(*id) else { continue };
            let cost = (len.saturating_add(GRAFT_OVERHEAD) as u64).min(8 << 20);
            if !peer.rates.grafted.try_take(now, cost) {
                return self.judge(now, from, OVER_RATE);
            }
            outputs.push_back(Output::Push { peer: from, id: *id });
        }
    }

    /// A peer pushed what was here: its edge is not of the tree.
    pub(super) fn handle_duplicate(&mut self, now: Instant, id: ShortId, from: NodeId, len: usize) {
        self.seen.insert(id, len);
        self.missing.remove(id);
        let Some(peer) = self.active(from) else {
            return self.handle_stray_push(now, from);
        };
        let is_answer = peer.arrived(now, id);
        let is_flood = !peer.rates.duplicates.try_take(now, 1);
        let is_late = peer.pruned_at.is_some_and(|at| at + PRUNE_GRACE <= now);
        if self.may_prune(now, from) {
            self.prune(now, from);
        }
        if is_flood || is_late && !is_answer {
            let times = i64::try_from(len / LARGE).unwrap_or(i64::MAX).clamp(1, 4);
            self.judge(now, from, DUPLICATE * times);
        }
    }

    /// Who is no neighbour pushed. It may be one that has not heard yet that it is none.
    fn handle_stray_push(&mut self, now: Instant, from: NodeId) {
        let is_asked =
            self.peers.get(&from).is_some_and(|peer| matches!(peer.stage, Stage::Asked(_)));
        if from == self.own || is_asked || self.scores.is_banned(now, from) {
            return;
        }
        if self.strays.try_take(now, 1) {
            self.send(from, GossipMessage::Parted);
        } else {
            self.judge(now, from, OVER_RATE);
        }
    }
}
