//! Reconciliation between neighbours: what one keeps and the other should.
//!
//! When two nodes near each other meet, and now and then afterwards, each offers the other short
//! names of the records in whose region the other stands; the other asks for what it lacks. So a
//! newcomer gets its shard from its neighbours, and a record whose holders leave one by one lives
//! on without being stored anew by anybody.
//!
//! A seat is offered all values and announcements of its region, by those whose home it is once,
//! when it becomes that, and by its fellows now and then. What anybody stores at a seat it offers
//! to its fellows within seconds, and records of nodes, of which there are many and which change
//! often, to a few of them within minutes.

use core::time::Duration;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::ask::{Request, What};
use super::shard::{Kept, digest};
use super::table::draw;
use super::{Index, Output, Timer};
use crate::id::NodeId;
use crate::key::Key;
use crate::record::Record;
use crate::time::Instant;
use crate::wire::IndexMessage;
use crate::wire::index::{Digest, Lacking, OFFER_MAX, Offer, RecordKind, Store};

/// Time for a newcomer to settle before records are offered to it.
pub(super) const SETTLE: Duration = Duration::from_secs(5);

/// Time after a neighbour's loss until its copies are replaced: it may only have restarted.
const REPAIR: Duration = Duration::from_secs(20);

/// Time for records that a neighbour was asked for to come and to be written.
const COMING: Duration = Duration::from_secs(3);

/// Records on their way at a time because we asked for them: a quarter of what may wait for our
/// disk, or for a link that is slow.
const COMING_MAX: usize = 256;

/// Pause between looks at offers of which something is still to be asked for.
const LOOK: Duration = Duration::from_secs(1);

/// Pause between offers to several neighbours.
const PAUSE: Duration = Duration::from_millis(200);

/// Time for records that came to a seat to gather before it offers them to its fellows.
const GATHER: Duration = Duration::from_secs(2);

/// The same for records of nodes, of which there are most: their authors are named by their
/// neighbours and by the seats that they use besides.
const GATHER_NODES: Duration = Duration::from_secs(240);

/// Fellow seats to which a record of a node is passed on, besides those at which it is stored: its
/// homes, which know where it is anyway. Of twelve seats half then know a node, and a look-up asks
/// four of them.
const NODE_FELLOWS: usize = 3;

/// Records that gather; of more, fellows learn when they reconcile.
const PASSING_MAX: usize = 16 * OFFER_MAX;

/// Fellow seats that a seat reconciles with each time: among twelve, all of them have what one has
/// after two or three times.
pub(super) const FELLOWS: usize = 2;

/// Messages of one offer to a seat; of more records a part is offered each time.
const PARTS_MAX: usize = 64;

/// How long a peer may ask for what it was offered.
const OFFER_LIFE: Duration = Duration::from_secs(60);

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
            .find(|id| {
                self.is_warm(*id) || near.contains(id) || self.seats.shared_with(*id).is_some()
            });
        let Some(peer) = next else {
            let due = self.sync_again.filter(|at| *at > now);
            let at = due.unwrap_or_else(|| now + self.jitter(self.config.sync));
            if due.is_none() && self.sync_again.is_some() {
                self.sync_all_anew();
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

    /// All neighbours are to be offered records anew, and some of the fellow seats. Homes have
    /// their fellows for that.
    fn sync_all_anew(&mut self) {
        let is_seat = |id: &NodeId| self.seats.shared_with(*id).is_some();
        let (seats, mut others): (Vec<_>, Vec<_>) = self.linked.keys().copied().partition(is_seat);
        let fellows: Vec<_> = seats.into_iter().filter(|id| self.is_fellow(*id)).collect();
        others.extend(draw(&fellows, FELLOWS, &mut self.rng));
        for id in others {
            if let Some(linked) = self.linked.get_mut(&id) {
                (linked.is_synced, linked.last_offer) = (false, 0);
            }
        }
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

    /// The records that `peer` may ask for: all of its region if it holds a seat of ours, and those
    /// in whose region it stands; those of nodes only if it is a fellow seat.
    fn records_for(&self, peer: NodeId) -> impl Iterator<Item = (RecordKind, &Kept)> {
        let (key, region) = (Key::of_node(peer), self.region(RecordKind::Value));
        let (seat, is_fellow) = (self.seats.shared_with(peer), self.is_fellow(peer));
        self.shard
            .iter_from(None)
            .filter(move |(slot, _)| is_fellow || slot.kind != RecordKind::Node)
            .filter(move |(slot, _)| {
                seat.is_some_and(|seat| seat.contains(&slot.key))
                    || slot.key.distance(&key) <= region
            })
            .map(|(slot, kept)| (slot.kind, kept))
    }

    /// Offers what a peer should keep. Records of nodes are not among it: while their authors are
    /// there, they store them and are named by their neighbours besides, and what others keep of
    /// them is often old.
    fn offer(&mut self, now: Instant, peer: NodeId) {
        let records = self.records_for(peer).filter(|(kind, _)| *kind != RecordKind::Node);
        let digests: Vec<_> = records.map(|(_, kept)| kept.digest).collect();
        // Who was offered the same has it, or could not take it; it is asked again in its time.
        let mut hasher = DefaultHasher::new();
        digests.hash(&mut hasher);
        let hash = hasher.finish();
        let Some(linked) = self.linked.get_mut(&peer) else { return };
        let last = core::mem::replace(&mut linked.last_offer, hash);
        let parts_max = if self.seats.shared_with(peer).is_some() { PARTS_MAX } else { 1 };
        let offered_max = parts_max * OFFER_MAX;
        if digests.is_empty() || last == hash && digests.len() <= offered_max {
            return;
        }
        // More than is offered: another part each time.
        let start = if digests.len() > offered_max {
            usize::try_from(rand_core::Rng::next_u32(&mut self.rng)).unwrap_or(0) % digests.len()
        } else {
            0
        };
        let offered = digests.len().min(offered_max);
        let offered: Vec<_> = digests.iter().cycle().skip(start).take(offered).copied().collect();
        self.send_offer(now, peer, &offered);
    }

    fn send_offer(&mut self, now: Instant, peer: NodeId, digests: &[Digest]) {
        // Who lacks nothing does not answer.
        self.requests.retain(|_, other| {
            let is_offer = other.peer == peer && matches!(other.what, What::Offer { .. });
            !is_offer || now - other.sent < OFFER_LIFE
        });
        for part in digests.chunks(OFFER_MAX) {
            let request = self.next_request;
            self.next_request = self.next_request.wrapping_add(1);
            let what = What::Offer { left: part.len() };
            self.requests.insert(request, Request { peer, job: None, what, sent: now });
            self.requests_sent += 1;
            let offer = Offer { request, digests: part.to_vec() };
            self.outputs.push_back(Output::Send(peer, IndexMessage::Offer(offer)));
        }
    }

    /// A record that `from` sent is kept: if we hold a seat of its region, our fellows are to be
    /// told, unless one of them was faster.
    pub(super) fn note_kept(&mut self, now: Instant, from: NodeId, record: &Record) {
        let is_ours = self.seats.held().is_some_and(|region| region.contains(&record.key()));
        if is_ours && !self.is_fellow(from) && self.passing.len() < PASSING_MAX {
            let name = digest(&record.slot(), record.sequence());
            let node = (record.kind() == RecordKind::Node).then(|| record.key());
            self.passing.insert(name, node);
            let pause = if record.kind() == RecordKind::Node { GATHER_NODES } else { GATHER };
            let at = now + self.jitter(pause);
            self.timers.set_no_later(Timer::Pass, at);
        }
    }

    /// Offers fellow seats what has come.
    pub(super) fn pass_on(&mut self, now: Instant) {
        let mut passing = core::mem::take(&mut self.passing);
        passing.retain(|name, _| self.shard.holds(name));
        let linked = self.linked.values().filter(|linked| linked.serves);
        let fellows: Vec<_> = linked.map(|one| one.id).filter(|id| self.is_fellow(*id)).collect();
        let mut offers = vec![Vec::new(); fellows.len()];
        for (name, node) in passing {
            let keepers = node.map_or(fellows.len(), |_| NODE_FELLOWS);
            let mut ranked: Vec<_> = (0..fellows.len()).collect();
            ranked.sort_by_key(|at| node.map(|node| rank(&node, fellows[*at])));
            ranked.into_iter().take(keepers).for_each(|at| offers[at].push(name));
        }
        for (fellow, names) in fellows.into_iter().zip(offers) {
            self.send_offer(now, fellow, &names);
        }
    }

    pub(super) fn handle_offer(&mut self, now: Instant, from: NodeId, offer: &Offer) {
        if !self.config.serves || !self.is_allowed(now, from) {
            return;
        }
        self.requests_served += 1;
        if self.is_fellow(from) {
            // It has told the others of them too, or was told by one who did.
            for digest in &offer.digests {
                self.passing.remove(digest);
            }
        }
        self.look_at_offer(now, from, offer.clone());
    }

    /// Asks for what is lacking of an offer. What somebody else was asked for a moment ago is most
    /// likely on its way: all neighbours of a newcomer offer it the same. That, and what is too
    /// much at a time, is looked at again when some of the rest may have come.
    fn look_at_offer(&mut self, now: Instant, from: NodeId, mut offer: Offer) {
        let is_coming =
            |digest: &Digest, at: Instant| now - at < COMING && !self.shard.holds(digest);
        self.asked_for.retain(|digest, at| is_coming(digest, *at));
        let Some(linked) = self.linked.get_mut(&from) else { return };
        offer.digests.retain(|digest| !self.shard.holds(digest));
        let mut digests = Vec::new();
        offer.digests.retain(|digest| {
            let is_later =
                self.asked_for.len() >= COMING_MAX || self.asked_for.contains_key(digest);
            if !is_later {
                self.asked_for.insert(*digest, now);
                digests.push(*digest);
            }
            is_later
        });
        let request = offer.request;
        if !offer.digests.is_empty() && linked.offered.len() < PARTS_MAX {
            linked.offered.push(offer);
            self.timers.set_if_idle(Timer::Offers, now + LOOK);
        }
        if !digests.is_empty() {
            expect(&mut linked.expected, request, digests.len());
            let answer = Lacking { request, digests };
            self.outputs.push_back(Output::Send(from, IndexMessage::Lacking(answer)));
        }
    }

    /// Looks at the offers that were put off, one after the other.
    pub(super) fn look_at_offers(&mut self, now: Instant) {
        let linked = self.linked.values_mut();
        let offers: Vec<_> =
            linked.map(|one| (one.id, core::mem::take(&mut one.offered))).collect();
        for (from, offers) in offers {
            for offer in offers {
                self.look_at_offer(now, from, offer);
            }
        }
    }

    pub(super) fn handle_lacking(&mut self, from: NodeId, lacking: &Lacking) {
        let number = lacking.request;
        let Some(request) = self.requests.get_mut(&number) else { return };
        let What::Offer { left } = &mut request.what else { return };
        if request.peer != from {
            return;
        }
        // In parts, but no more than was offered.
        let wanted: BTreeSet<_> = lacking.digests.iter().take(*left).collect();
        *left -= wanted.len();
        if *left == 0 {
            self.requests.remove(&number);
        }
        let records: Vec<_> = self
            .records_for(from)
            .filter(|(_, kept)| wanted.contains(&kept.digest))
            .map(|(_, kept)| kept.bytes.clone())
            .collect();
        for record in records {
            let store = Store { request: number, record };
            self.outputs.push_back(Output::Send(from, IndexMessage::Store(store)));
        }
    }
}

/// The place of a seat among those to which the record of a node is passed on: whichever of them
/// passes it on chooses the same ones, and of many records each seat has its share.
pub(super) fn rank(node: &Key, seat: NodeId) -> u64 {
    // Fibonacci hashing: neighbours in the key space are far from each other in it.
    (node.head() ^ Key::of_node(seat).head()).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Notes that records of an offer were asked for. Of too many offers the oldest are forgotten: what
/// comes of them is answered, which does no harm.
fn expect(expected: &mut Vec<(u32, usize)>, offer: u32, records: usize) {
    if let Some((_, left)) = expected.iter_mut().find(|(of, _)| *of == offer) {
        *left += records;
        return;
    }
    if expected.len() >= PARTS_MAX {
        expected.remove(0);
    }
    expected.push((offer, records));
}
