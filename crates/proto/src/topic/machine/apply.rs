//! What comes from members: entries pushed or asked for, comparisons, proofs of forks.

use bytes::Bytes;
use rand_core::Rng;

use super::room::{Neighbor, Room};
use super::{DiskAction, Event, Output, Timer, Topics, jittered};
use crate::id::NodeId;
use crate::time::{Instant, UnixTime};
use crate::topic::access::capability::{Chain, Rank};
use crate::topic::access::epoch::EpochChange;
use crate::topic::entry::{KIND_CONTROL, KIND_HERE, Signed};
use crate::topic::gossip;
use crate::topic::id::TopicId;
use crate::topic::log::{Applied, EntryRef, ForkProof, Refusal};
use crate::topic::repair::{RepairMessage, Reply};
use crate::wire::topic::TopicBody;

/// What misbehaviour weighs: what nobody sends by mistake, and what a race may explain.
pub(super) const WEIGHT_FORGED: u32 = 50;
pub(super) const WEIGHT_MALFORMED: u32 = 20;
const WEIGHT_UNWANTED: u32 = 1;

/// Proofs of forks that a new neighbour is shown: each has up to two entries.
const FORKS_SHOWN_MAX: usize = 16;

/// Capabilities of authors that are remembered: as many as there are authors.
const CHAINS_MAX: usize = 16_384;

/// What became of an entry.
enum Fate {
    /// New, with those that had waited for it.
    New(Vec<EntryRef>),
    /// We had it, or it counts no more.
    Known,
    /// What comes before it is missing.
    Waits,
    /// It proves a fork.
    Forked(Box<ForkProof>),
    /// It is not to be had.
    Bad(u32),
}

impl Topics {
    /// A neighbour pushes an entry.
    pub(super) fn handle_push(&mut self, now: Instant, topic: TopicId, from: NodeId, bytes: Bytes) {
        let len = bytes.len();
        let Ok(entry) = Signed::decode(bytes) else {
            return self.bad(now, topic, from, WEIGHT_MALFORMED);
        };
        let id = entry.id().short();
        let unix = self.unix(now);
        let Some(room) = self.rooms.get_mut(&topic) else { return };
        match room.take(&self.network, unix, entry, false) {
            Fate::New(entries) => {
                room.pushed.0 += 1;
                self.applied(now, topic, entries, Some(from));
            }
            Fate::Known => {
                room.pushed.1 += 1;
                self.feed(now, topic, gossip::Input::Duplicate { id, from, len });
            }
            // Whoever sent it has what comes before it.
            Fate::Waits => self.compare_with(topic, from),
            Fate::Forked(proof) => self.forked(now, topic, &proof, Some(from)),
            Fate::Bad(weight) => self.bad(now, topic, from, weight),
        }
    }

    /// Entries are applied: they go to disk, to the owner and to other members.
    pub(super) fn applied(
        &mut self,
        now: Instant,
        topic: TopicId,
        entries: Vec<EntryRef>,
        from: Option<NodeId>,
    ) {
        let Some(room) = self.rooms.get_mut(&topic) else { return };
        let (mut writes, mut news, mut authors) = (Vec::new(), Vec::new(), Vec::new());
        for entry in entries {
            let Some(signed) = room.log.entry(entry.author, entry.seq) else { continue };
            writes.push((entry.author, entry.seq, signed.bytes().clone()));
            news.push((signed.id().short(), signed.bytes().len()));
            if signed.chain().is_some() {
                authors.push(entry.author);
            }
            room.arrivals.push_back(entry);
        }
        let authors: Vec<_> =
            authors.into_iter().map(|author| room.author_action(author)).collect();
        let next = room.first_arrival + room.arrivals.len() as u64;
        // Our own are on disk before they are applied.
        if from.is_some() {
            self.write(DiskAction::Entries(topic, writes.clone()));
        }
        for action in authors {
            self.write(action);
        }
        for (author, seq, _) in &writes {
            self.obey(topic, *author, *seq);
        }
        for (id, len) in news {
            self.feed(now, topic, gossip::Input::Have { id, from, len });
        }
        let forks = self.rooms.get_mut(&topic).map(|room| core::mem::take(&mut room.forks));
        for proof in forks.unwrap_or_default() {
            self.forked(now, topic, &proof, from);
        }
        if !writes.is_empty() {
            self.event(Event::News { topic, next });
            self.tell_seen_soon(now, topic);
        }
    }

    pub(super) fn write(&mut self, action: DiskAction) -> u64 {
        let token = self.token();
        self.outputs.push_back(Output::Disk(token, action));
        token
    }

    pub(super) fn bad(&mut self, now: Instant, topic: TopicId, peer: NodeId, weight: u32) {
        self.feed(now, topic, gossip::Input::Bad { peer, weight });
    }

    /// Carries out an entry that is about the topic itself.
    fn obey(&mut self, topic: TopicId, author: NodeId, seq: u64) {
        let Some(room) = self.rooms.get_mut(&topic) else { return };
        let Some(entry) = room.log.entry(author, seq) else { return };
        if entry.kind() != KIND_CONTROL || room.access.keys().is_public() {
            return;
        }
        let Ok(change) = EpochChange::decode(entry.payload()) else { return };
        // By the time that it names, as when it was applied: all members obey the same.
        let at = UnixTime::from_secs(entry.time_ms() / 1_000);
        if room.rank_of(author, at).is_none_or(|rank| rank < Rank::Manage) {
            return;
        }
        room.obey(&change, &self.secret);
        self.persist_state(topic);
        self.event(Event::Access(topic));
        self.event(Event::Members(topic));
    }

    /// Another neighbour, or one less.
    pub(super) fn neighbor_changed(
        &mut self,
        now: Instant,
        topic: TopicId,
        peer: NodeId,
        is_up: bool,
    ) {
        let Some(room) = self.rooms.get_mut(&topic) else { return };
        if is_up {
            room.neighbors.insert(peer, Neighbor::default());
            self.keep(topic, peer);
            self.compare_with(topic, peer);
            self.show_forks(topic, peer);
            self.greet(now, topic, peer);
        } else {
            room.neighbors.remove(&peer);
            self.release(topic, peer);
        }
        self.event(Event::Members(topic));
    }

    pub(super) fn set_repair(&mut self, now: Instant, topic: TopicId) {
        let pause = jittered(&mut self.rng, self.config.repair);
        self.timers.set(Timer::Repair(topic), now + pause);
    }

    /// Compares with one neighbour, and lets go of what is too old.
    pub(super) fn compare(&mut self, now: Instant, topic: TopicId) {
        self.trim(now, topic);
        self.set_repair(now, topic);
        let Some(room) = self.rooms.get(&topic) else { return };
        let neighbors: Vec<_> = room.neighbors.keys().copied().collect();
        if !neighbors.is_empty() {
            let at = self.rng.next_u32() as usize % neighbors.len();
            self.compare_with(topic, neighbors[at]);
        }
    }

    fn compare_with(&mut self, topic: TopicId, peer: NodeId) {
        let Some(room) = self.rooms.get_mut(&topic) else { return };
        let Some(neighbor) = room.neighbors.get_mut(&peer) else { return };
        let message = neighbor.repair.start(&room.log);
        self.send(topic, peer, TopicBody::Repair(message));
    }

    /// A new neighbour is shown who is not to be believed, and why.
    fn show_forks(&mut self, topic: TopicId, peer: NodeId) {
        let Some(room) = self.rooms.get(&topic) else { return };
        let proofs: Vec<_> =
            room.log.proofs().take(FORKS_SHOWN_MAX).map(ForkProof::entries).collect();
        for (a, b) in proofs {
            self.send(topic, peer, TopicBody::Fork(a, b));
        }
    }

    /// A neighbour compares, asks or answers.
    pub(super) fn handle_repair(
        &mut self,
        now: Instant,
        topic: TopicId,
        from: NodeId,
        message: RepairMessage,
    ) {
        let unix = self.unix(now);
        let unix_ms = self.unix_ms(now);
        let Some(room) = self.rooms.get_mut(&topic) else { return };
        let Room { neighbors, log, chains, .. } = &mut **room;
        let Some(neighbor) = neighbors.get_mut(&from) else { return };
        let chain_of =
            |author: NodeId| chains.get(&author).map(|chain| Bytes::from(chain.encode()));
        let replies = neighbor.repair.handle(log, &chain_of, message);
        let mut weight = 0;
        for reply in replies {
            match reply {
                Reply::Send(message) => self.send(topic, from, TopicBody::Repair(message)),
                Reply::Chain(author, chain) => self.learn_chain(topic, unix, author, &chain),
                Reply::Entry { entry, as_base } => {
                    weight += self.apply_repaired(now, topic, from, *entry, as_base);
                }
                Reply::Equal => self.set_synced(topic, from, Some(unix_ms)),
                Reply::Differs => self.set_synced(topic, from, None),
                Reply::Nonsense => weight += WEIGHT_UNWANTED,
            }
        }
        // What came may be less than what is missing.
        let next = self.rooms.get_mut(&topic).and_then(|room| {
            let Room { neighbors, log, .. } = &mut **room;
            neighbors.get_mut(&from)?.repair.next(log)
        });
        if let Some(message) = next {
            self.send(topic, from, TopicBody::Repair(message));
        }
        if weight > 0 {
            self.bad(now, topic, from, weight);
        }
    }

    fn set_synced(&mut self, topic: TopicId, peer: NodeId, since_ms: Option<u64>) {
        let Some(room) = self.rooms.get_mut(&topic) else { return };
        let Some(neighbor) = room.neighbors.get_mut(&peer) else { return };
        let is_news = neighbor.synced_ms.is_some() != since_ms.is_some();
        if since_ms.is_none() || neighbor.synced_ms.is_none() {
            neighbor.synced_ms = since_ms;
        }
        if is_news {
            self.event(Event::Members(topic));
        }
    }

    fn learn_chain(&mut self, topic: TopicId, unix: UnixTime, author: NodeId, bytes: &[u8]) {
        let Some(room) = self.rooms.get_mut(&topic) else { return };
        if room.learn_chain(author, unix, bytes) {
            let action = room.author_action(author);
            self.write(action);
        }
    }

    /// Applies an entry that was asked for. Returns what it weighs against the sender.
    fn apply_repaired(
        &mut self,
        now: Instant,
        topic: TopicId,
        from: NodeId,
        entry: Signed,
        as_base: bool,
    ) -> u32 {
        let unix = self.unix(now);
        let Some(room) = self.rooms.get_mut(&topic) else { return 0 };
        match room.take(&self.network, unix, entry, as_base) {
            Fate::New(entries) => {
                self.applied(now, topic, entries, Some(from));
                0
            }
            Fate::Known | Fate::Waits => 0,
            Fate::Forked(proof) => {
                self.forked(now, topic, &proof, Some(from));
                0
            }
            Fate::Bad(weight) => weight,
        }
    }

    /// A neighbour shows that somebody said two things in one place.
    pub(super) fn handle_fork(
        &mut self,
        now: Instant,
        topic: TopicId,
        from: NodeId,
        a: Bytes,
        b: Bytes,
    ) {
        let Some(room) = self.rooms.get_mut(&topic) else { return };
        let is_public = room.access.keys().is_public();
        match ForkProof::from_entries(a, b) {
            Ok(proof) if room.log.is_quarantined(proof.author()) => {}
            // Who may say nothing here need not be told apart from itself, and takes no room.
            Ok(proof) if !is_public && !room.chains.contains_key(&proof.author()) => {}
            Ok(proof) if proof.verify(&self.network, topic) => {
                self.forked(now, topic, &proof, Some(from));
            }
            Ok(_) | Err(_) => self.bad(now, topic, from, WEIGHT_FORGED),
        }
    }

    /// An author is not to be believed any more: everybody is shown why.
    fn forked(&mut self, now: Instant, topic: TopicId, proof: &ForkProof, from: Option<NodeId>) {
        let author = proof.author();
        let Some(room) = self.rooms.get_mut(&topic) else { return };
        if !room.log.quarantine(proof) {
            // It would be news each time that it comes, and go round for ever.
            return;
        }
        let action = room.author_action(author);
        let (a, b) = proof.entries();
        let others: Vec<_> =
            room.neighbors.keys().copied().filter(|peer| Some(*peer) != from).collect();
        self.write(action);
        for peer in others {
            self.send(topic, peer, TopicBody::Fork(a.clone(), b.clone()));
        }
        if author == self.me {
            self.fail_outbox(now, topic);
        }
        self.event(Event::Forked { topic, author });
    }

    /// Drops what history does not keep.
    fn trim(&mut self, now: Instant, topic: TopicId) {
        let unix = self.unix(now);
        let Some(room) = self.rooms.get_mut(&topic) else { return };
        let dropped = room.log.trim(unix);
        if dropped.is_empty() {
            return;
        }
        let mut authors: Vec<_> = dropped.iter().map(|entry| entry.author).collect();
        authors.dedup();
        let heads: Vec<_> = authors.into_iter().map(|author| room.author_action(author)).collect();
        while let Some(first) = room.arrivals.front()
            && room.log.entry(first.author, first.seq).is_none()
        {
            room.arrivals.pop_front();
            room.first_arrival += 1;
        }
        // The heads first: without them a log would begin anew.
        for action in heads {
            self.write(action);
        }
        let entries = dropped.iter().map(|entry| (entry.author, entry.seq)).collect();
        self.write(DiskAction::Trim { topic, entries });
    }
}

impl Room {
    /// Checks an entry, cheapest question first, and applies it.
    fn take(&mut self, network: &str, unix: UnixTime, entry: Signed, as_base: bool) -> Fate {
        let (author, seq) = (entry.author(), entry.seq());
        if !self.log.is_new(author, seq, entry.id()) || self.log.is_quarantined(author) {
            return Fate::Known;
        }
        if self.removed.get(&author).is_some_and(|last| seq > *last) {
            // Who passes it on may not have heard of the removal.
            return Fate::Known;
        }
        // One signature before the up to eight of a capability.
        if !entry.verify(network, self.id()) {
            return Fate::Bad(WEIGHT_FORGED);
        }
        if !self.access.keys().is_public() {
            let at = UnixTime::from_secs(entry.time_ms() / 1_000);
            if let Some(chain) = entry.chain() {
                self.learn_chain(author, at, chain);
            }
            // By the time that the entry names: what was said while it was allowed stays said.
            let needed = match entry.kind() {
                KIND_HERE if entry.payload().is_empty() => Rank::Read,
                KIND_CONTROL => Rank::Manage,
                _ => Rank::Write,
            };
            if self.rank_of(author, at).is_none_or(|rank| rank < needed) {
                return Fate::Bad(WEIGHT_UNWANTED);
            }
        }
        let applied = self.log.apply(unix, entry, as_base);
        if let Some(proof) = self.log.take_fork() {
            self.forks.push(proof);
        }
        match applied {
            Applied::New(entries) => Fate::New(entries),
            Applied::Known => Fate::Known,
            Applied::Waits { .. } => Fate::Waits,
            Applied::Forked(proof) => Fate::Forked(proof),
            // A clock that differs, or more than we keep: nothing that is the sender's fault alone.
            Applied::Refused(Refusal::Quarantined) => Fate::Known,
            Applied::Refused(_) => Fate::Bad(WEIGHT_UNWANTED),
        }
    }

    /// Notes what an author may do, if it proves more than what is known. Whether that is news.
    fn learn_chain(&mut self, author: NodeId, at: UnixTime, bytes: &[u8]) -> bool {
        let Ok(chain) = Chain::decode(bytes) else { return false };
        let Ok(grant) = chain.verify(self.id(), at) else { return false };
        let known = self.chains.get(&author).filter(|_| self.rank_of(author, at).is_some());
        let is_more = known.is_none_or(|known| known.last().worth() < grant.worth());
        let is_full = self.chains.len() >= CHAINS_MAX && !self.chains.contains_key(&author);
        if grant.subject != author || !is_more || is_full {
            return false;
        }
        self.chains.insert(author, chain);
        true
    }
}
