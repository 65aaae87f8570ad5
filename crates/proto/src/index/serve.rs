//! Answering: what is near, what is kept here, and keeping more.

use core::time::Duration;

use super::shard::{Admission, memory};
use super::table::{Entry, spread};
use super::{DiskAction, Index, Output, QueryId, Timer};
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::key::Key;
use crate::record::Record;
use crate::time::Instant;
use crate::wire::IndexMessage;
use crate::wire::index::{CONTACTS_MAX, Find, Found, RecordKind, Store, StoreOutcome, Stored};

/// Records on their way to disk at a time.
const PERSISTING_MAX: usize = 1024;

/// Least pause between sweeps for records that expired.
const EXPIRE_PAUSE: Duration = Duration::from_secs(10);

/// What is on its way to disk.
#[derive(Debug)]
pub(super) enum Persisting {
    /// A record that a peer asked us to keep.
    Kept {
        from: NodeId,
        /// Of the Store to be answered; none of what we asked for.
        request: Option<u32>,
        record: Record,
        lifetime: Duration,
    },
    /// A value that the owner publishes.
    Own { query: QueryId, name: String, record: Record },
    /// One that was signed anew.
    Renewed,
}

impl Index {
    /// Whether a peer may ask once more.
    pub(super) fn is_allowed(&mut self, now: Instant, from: NodeId) -> bool {
        self.linked.get_mut(&from).is_some_and(|linked| linked.allowance.try_take(now, 1))
    }

    /// Whether we asked a peer for a record that it now sends, of the offer of this number.
    fn is_expected(&mut self, from: NodeId, offer: u32) -> bool {
        let Some(linked) = self.linked.get_mut(&from) else { return false };
        let expected = &mut linked.expected;
        let Some(at) = expected.iter().position(|(of, _)| *of == offer) else { return false };
        expected[at].1 -= 1;
        if expected[at].1 == 0 {
            expected.remove(at);
        }
        true
    }

    pub(super) fn handle_find(&mut self, now: Instant, from: NodeId, find: &Find) {
        if !self.is_allowed(now, from) {
            return;
        }
        self.requests_served += 1;
        let (contacts, linked, seats) = self.contacts_near(now, from, &find.target);
        let (records, more) = match find.records {
            Some(kind) if self.config.serves => self.shard.find(now, &find.target, kind, find.page),
            _ => (Vec::new(), None),
        };
        let answer = Found { request: find.request, contacts, linked, records, more, seats };
        self.outputs.push_back(Output::Send(from, IndexMessage::Found(answer)));
        self.learn_seats(now, &find.target);
    }

    /// Some seats of the region of `target`, then contacts near it, [spread] so that answers
    /// together name all who are around it; and as bits which of them we can signal for, and which
    /// are seats.
    fn contacts_near(
        &mut self,
        now: Instant,
        asker: NodeId,
        target: &Key,
    ) -> (Vec<PeerAddr>, u32, u32) {
        let named = self.draw_seats(now, target, asker);
        let mut near: Vec<_> = self
            .linked
            .values()
            // One that serves nothing is named to who looks for itself.
            .filter(|linked| linked.serves || linked.key == *target)
            .map(|linked| (linked.key.distance(target), linked.id))
            .collect();
        let k = self.config.replicas;
        let known = self.table.nearest(target, 2 * k);
        near.extend(
            known
                .into_iter()
                .filter(|entry| !self.linked.contains_key(&entry.id()))
                .map(|entry| (entry.key().distance(target), entry.id())),
        );
        near.retain(|(_, id)| *id != asker);
        near.sort_unstable();
        near.truncate(2 * k);
        let nearest = near.first().map(|(_, id)| *id);
        near.retain(|(_, id)| !named.contains(id));
        let near = spread(&near, CONTACTS_MAX - named.len(), k, &mut self.rng);
        let (mut contacts, mut guests, mut seats) = (Vec::with_capacity(CONTACTS_MAX), 0, 0);
        for id in named.iter().copied().chain(near.into_iter().map(|(_, id)| id)) {
            let (linked, at) = (self.linked.get(&id), contacts.len());
            let contact = linked
                .map(|linked| linked.contact.contact(id))
                .or_else(|| self.seats.contact(target, id).filter(|_| named.contains(&id)))
                .or_else(|| self.table.get(id).map(Entry::peer));
            let Some(mut contact) = contact else { continue };
            // Only the nearest one may be who is wanted itself; to ask the others one home will do.
            if nearest != Some(id) {
                contact.homes.truncate(1);
            }
            guests |= u32::from(linked.is_some_and(|linked| linked.is_guest)) << at;
            seats |= u32::from(named.contains(&id)) << at;
            contacts.push(contact);
        }
        (contacts, guests, seats)
    }

    pub(super) fn handle_store(&mut self, now: Instant, from: NodeId, store: &Store) {
        // Nobody waits for an answer to what we asked for.
        let request = (!self.is_expected(from, store.request)).then_some(store.request);
        let outcome = if request.is_none() || self.is_allowed(now, from) {
            self.keep(now, from, request, store)
        } else {
            Some(StoreOutcome::Full)
        };
        if let (Some(request), Some(outcome)) = (request, outcome) {
            self.answer_store(from, request, outcome);
        }
    }

    fn answer_store(&mut self, to: NodeId, request: u32, outcome: StoreOutcome) {
        let answer = Stored { request, outcome };
        self.outputs.push_back(Output::Send(to, IndexMessage::Stored(answer)));
    }

    /// Takes a record that a peer wants kept; the answer, unless it waits for the disk.
    fn keep(
        &mut self,
        now: Instant,
        from: NodeId,
        request: Option<u32>,
        store: &Store,
    ) -> Option<StoreOutcome> {
        let Some(unix) = self.unix(now).filter(|_| self.config.serves) else {
            return Some(StoreOutcome::Unable);
        };
        self.requests_served += 1;
        if self.persisting.len() >= PERSISTING_MAX {
            return Some(StoreOutcome::Full);
        }
        let Ok(record) = self.decode(&store.record) else {
            return Some(StoreOutcome::Invalid);
        };
        match self.shard.admit(now, unix, &record, self.ip_of(from)) {
            Err(outcome) => Some(outcome),
            Ok(Admission::Same) => Some(StoreOutcome::Kept),
            Ok(Admission::New { lifetime }) => {
                let token = self.draw_token();
                let action = DiskAction::Keep {
                    slot: record.slot(),
                    record: record.bytes().clone(),
                    sequence: record.sequence(),
                    remember_until: unix + lifetime + memory(record.kind()),
                };
                self.outputs.push_back(Output::Disk(token, action));
                let kept = Persisting::Kept { from, request, record, lifetime };
                self.persisting.insert(token, kept);
                None
            }
        }
    }

    /// The disk has taken something, or cannot.
    pub(crate) fn disk_done(&mut self, now: Instant, token: u64, is_kept: bool) {
        match self.persisting.remove(&token) {
            Some(Persisting::Kept { from, request, record, lifetime }) => {
                let ip = self.ip_of(from);
                let outcome = if is_kept {
                    let evicted = self.shard.commit(now, &record, lifetime, ip);
                    self.note_kept(now, from, &record);
                    self.drop_from_disk(evicted);
                    self.schedule_expiry(now);
                    StoreOutcome::Kept
                } else {
                    self.shard.cancel(&record.slot(), record.sequence());
                    StoreOutcome::Unable
                };
                if let Some(request) = request
                    && self.linked.contains_key(&from)
                {
                    self.answer_store(from, request, outcome);
                }
            }
            Some(Persisting::Own { query, name, record }) => {
                self.own_persisted(now, query, name, record, is_kept);
            }
            Some(Persisting::Renewed) | None => {}
        }
    }

    fn drop_from_disk(&mut self, slots: Vec<crate::record::Slot>) {
        if !slots.is_empty() {
            let token = self.draw_token();
            self.outputs.push_back(Output::Disk(token, DiskAction::Drop(slots)));
        }
    }

    fn schedule_expiry(&mut self, now: Instant) {
        if let Some(at) = self.shard.next_expiry() {
            self.timers.set_no_later(Timer::Expire, at.max(now + EXPIRE_PAUSE));
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        let expired = self.shard.expire(now);
        self.drop_from_disk(expired.records);
        if !expired.sequences.is_empty() {
            let token = self.draw_token();
            self.outputs.push_back(Output::Disk(token, DiskAction::Forget(expired.sequences)));
        }
        self.schedule_expiry(now);
    }

    /// What the disk held, at the start.
    pub(crate) fn restore(&mut self, now: Instant, restored: super::Restored) {
        let Some(unix) = self.unix(now) else { return };
        for (slot, sequence, until) in restored.sequences {
            self.shard.restore_sequence(now, slot, sequence, until - unix);
        }
        let mut lost = Vec::new();
        for bytes in restored.records {
            if let Ok(record) = self.decode(&bytes)
                && !self.shard.restore(now, unix, &record)
            {
                lost.push(record.slot());
            }
        }
        self.drop_from_disk(lost);
        for bytes in &restored.own {
            self.restore_own(bytes);
        }
        self.schedule_expiry(now);
    }

    /// Records at a key that we keep ourselves.
    pub(super) fn kept_here(&mut self, now: Instant, key: &Key, kind: RecordKind) -> Vec<Record> {
        let (records, _) = self.shard.find(now, key, kind, None);
        let decode = |bytes| self.decode(bytes).ok();
        records.iter().filter_map(decode).collect()
    }
}
