//! Reconciliation between neighbours: what one keeps and the other should.
//!
//! When two nodes near each other meet, and now and then afterwards, each offers the other short
//! names of the records in whose region the other stands; the other asks for what it lacks. So a
//! newcomer gets its shard from its neighbours, and a record whose holders leave one by one lives
//! on without being stored anew by anybody.

use core::time::Duration;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::ask::{Request, What};
use super::shard::Kept;
use super::{Index, Output, Timer};
use crate::id::NodeId;
use crate::key::Key;
use crate::time::Instant;
use crate::wire::IndexMessage;
use crate::wire::index::{Digest, Lacking, OFFER_MAX, Offer, RecordKind, Store};

/// Time for a newcomer to settle before records are offered to it.
pub(super) const SETTLE: Duration = Duration::from_secs(5);

/// Time after a neighbour's loss until its copies are replaced: it may only have restarted.
const REPAIR: Duration = Duration::from_secs(20);

/// Time for records that a neighbour was asked for to come and to be written.
const COMING: Duration = Duration::from_secs(3);

/// Records remembered as asked for: as many as sixteen offers hold.
const ASKED_FOR_MAX: usize = 16 * OFFER_MAX;

/// Pause between offers to several neighbours.
const PAUSE: Duration = Duration::from_millis(200);

impl Index {
    /// Offers records to a neighbour that has not been offered any yet; to all of them anew when
    /// some time has passed.
    pub(super) fn sync(&mut self, now: Instant) {
        let near = self.near(now);
        let next = self
            .linked
            .values()
            .filter(|linked| linked.serves && !linked.is_synced)
            .map(|linked| linked.id)
            .find(|id| self.is_warm(*id) || near.contains(id));
        let Some(peer) = next else {
            let due = self.sync_again.filter(|at| *at > now);
            let at = due.unwrap_or_else(|| now + self.jitter(self.config.sync));
            if due.is_none() && self.sync_again.is_some() {
                for linked in self.linked.values_mut() {
                    (linked.is_synced, linked.last_offer) = (false, 0);
                }
                self.timers.set(Timer::Sync, now + PAUSE);
            } else {
                self.timers.set(Timer::Sync, at);
            }
            self.sync_again = Some(at);
            return;
        };
        if let Some(linked) = self.linked.get_mut(&peer) {
            linked.is_synced = true;
        }
        self.offer(now, peer);
        self.timers.set(Timer::Sync, now + PAUSE);
    }

    /// A neighbour is gone, and with it copies of what we keep: the others are offered them anew.
    pub(super) fn neighbour_left(&mut self, now: Instant) {
        for id in self.near(now) {
            if let Some(linked) = self.linked.get_mut(&id) {
                linked.is_synced = false;
            }
        }
        let at = now + self.jitter(REPAIR);
        self.timers.set_no_later(Timer::Sync, at);
    }

    /// The records in whose region `peer` stands. Those of nodes are not among them: while their
    /// authors are there, they store them and are named by their neighbours besides.
    fn records_for(&self, peer: NodeId) -> impl Iterator<Item = (Digest, &Kept)> {
        let (key, region) = (Key::of_node(peer), self.region(RecordKind::Value));
        self.shard
            .iter_from(None)
            .filter(move |(slot, _)| {
                slot.kind != RecordKind::Node && slot.key.distance(&key) <= region
            })
            .map(|(_, kept)| (kept.digest, kept))
    }

    fn offer(&mut self, now: Instant, peer: NodeId) {
        let digests: Vec<_> = self.records_for(peer).map(|(digest, _)| digest).collect();
        // Who was offered the same has it, or could not take it; it is asked again in its time.
        let mut hasher = DefaultHasher::new();
        digests.hash(&mut hasher);
        let hash = hasher.finish();
        let Some(linked) = self.linked.get_mut(&peer) else { return };
        let last = core::mem::replace(&mut linked.last_offer, hash);
        if digests.is_empty() || last == hash && digests.len() <= OFFER_MAX {
            return;
        }
        // More than one message holds: another part each time.
        let start = if digests.len() > OFFER_MAX {
            usize::try_from(rand_core::Rng::next_u32(&mut self.rng)).unwrap_or(0) % digests.len()
        } else {
            0
        };
        let digests: Vec<_> = digests
            .iter()
            .cycle()
            .skip(start)
            .take(digests.len().min(OFFER_MAX))
            .copied()
            .collect();
        // Who lacks nothing does not answer.
        self.requests.retain(|_, other| other.what != What::Offer || other.peer != peer);
        let request = self.next_request;
        self.next_request = self.next_request.wrapping_add(1);
        self.requests.insert(request, Request { peer, job: None, what: What::Offer, sent: now });
        self.requests_sent += 1;
        let offer = Offer { request, digests };
        self.outputs.push_back(Output::Send(peer, IndexMessage::Offer(offer)));
    }

    pub(super) fn handle_offer(&mut self, now: Instant, from: NodeId, offer: &Offer) {
        if !self.config.serves || !self.is_allowed(now, from) {
            return;
        }
        self.requests_served += 1;
        self.look_at_offer(now, from, offer);
    }

    /// Asks for what is lacking of an offer. What somebody else was asked for a moment ago is most
    /// likely on its way: all neighbours of a newcomer offer it the same. Then the offer is looked
    /// at again when that should have come.
    fn look_at_offer(&mut self, now: Instant, from: NodeId, offer: &Offer) {
        let Some(linked) = self.linked.get_mut(&from) else { return };
        let digests: Vec<_> =
            offer.digests.iter().filter(|digest| !self.shard.holds(digest)).copied().collect();
        if digests.is_empty() {
            return;
        }
        self.asked_for.retain(|_, at| now - *at < COMING);
        if digests.iter().any(|digest| self.asked_for.contains_key(digest)) {
            linked.offered = Some(offer.clone());
            self.timers.set_if_idle(Timer::Offers, now + COMING);
            return;
        }
        linked.expected = digests.len();
        if self.asked_for.len() < ASKED_FOR_MAX {
            self.asked_for.extend(digests.iter().map(|digest| (*digest, now)));
        }
        let answer = Lacking { request: offer.request, digests };
        self.outputs.push_back(Output::Send(from, IndexMessage::Lacking(answer)));
    }

    /// Looks at the offers that were put off, one after the other: the first that is asked for a
    /// record puts the others off once more.
    pub(super) fn look_at_offers(&mut self, now: Instant) {
        let linked = self.linked.values_mut();
        let offers: Vec<_> = linked.filter_map(|one| Some((one.id, one.offered.take()?))).collect();
        for (from, offer) in offers {
            self.look_at_offer(now, from, &offer);
        }
    }

    pub(super) fn handle_lacking(&mut self, now: Instant, from: NodeId, lacking: &Lacking) {
        let Some(request) = self.take_request(now, from, lacking.request) else { return };
        if request.what != What::Offer {
            return;
        }
        let wanted: std::collections::BTreeSet<_> = lacking.digests.iter().collect();
        let records: Vec<_> = self
            .records_for(from)
            .filter(|(digest, _)| wanted.contains(digest))
            .map(|(_, kept)| kept.bytes.clone())
            .collect();
        for record in records {
            let request = self.next_request;
            self.next_request = self.next_request.wrapping_add(1);
            self.outputs
                .push_back(Output::Send(from, IndexMessage::Store(Store { request, record })));
        }
    }
}
