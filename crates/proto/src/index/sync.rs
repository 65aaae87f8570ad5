//! Reconciliation between neighbours: what one keeps and the other should.
//!
//! When two nodes near each other meet, and now and then afterwards, each offers the other short
//! names of the records in whose region the other stands; the other asks for what it lacks. So a
//! newcomer gets its shard from its neighbours, and a record whose holders leave one by one lives
//! on without being stored anew by anybody.

use core::time::Duration;

use super::ask::{Request, What};
use super::shard::Kept;
use super::{Index, Output, Timer};
use crate::id::NodeId;
use crate::key::Key;
use crate::time::Instant;
use crate::wire::IndexMessage;
use crate::wire::index::{Digest, Lacking, OFFER_MAX, Offer, Store};

/// Time for a newcomer to settle before records are offered to it.
pub(super) const SETTLE: Duration = Duration::from_secs(5);

/// Time after a neighbour's loss until its copies are replaced: it may only have restarted.
const REPAIR: Duration = Duration::from_secs(20);

/// Pause between offers to several neighbours.
const PAUSE: Duration = Duration::from_millis(200);

impl Index {
    /// Offers records to a neighbour that has not been offered any yet; after the last one, to all
    /// of them anew when some time has passed.
    pub(super) fn sync(&mut self, now: Instant) {
        let near = self.near();
        let next = self
            .linked
            .values()
            .filter(|linked| linked.serves && !linked.is_synced)
            .map(|linked| linked.peer.id)
            .find(|id| self.is_warm(*id) || near.contains(id));
        let Some(peer) = next else {
            for linked in self.linked.values_mut() {
                linked.is_synced = false;
            }
            let at = now + self.jitter(self.config.sync);
            self.timers.set(Timer::Sync, at);
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
        for id in self.near() {
            if let Some(linked) = self.linked.get_mut(&id) {
                linked.is_synced = false;
            }
        }
        let at = now + self.jitter(REPAIR);
        self.timers.set_no_later(Timer::Sync, at);
    }

    /// The records in whose region `peer` stands.
    fn records_for(&self, peer: NodeId) -> impl Iterator<Item = (Digest, &Kept)> {
        let (region, key) = (self.region(), Key::of_node(peer));
        self.shard
            .iter_from(None)
            .filter(move |(slot, _)| slot.key.distance(&key) <= region)
            .map(|(_, kept)| (kept.digest, kept))
    }

    fn offer(&mut self, now: Instant, peer: NodeId) {
        let digests: Vec<_> = self.records_for(peer).map(|(digest, _)| digest).collect();
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
        if digests.is_empty() {
            return;
        }
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
        let digests: Vec<_> =
            offer.digests.iter().filter(|digest| !self.shard.holds(digest)).copied().collect();
        if digests.is_empty() {
            return;
        }
        if let Some(linked) = self.linked.get_mut(&from) {
            linked.expected = digests.len();
        }
        let answer = Lacking { request: offer.request, digests };
        self.outputs.push_back(Output::Send(from, IndexMessage::Lacking(answer)));
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
