//! Answering: what is near, what is kept here, and keeping more.

use core::time::Duration;

use super::shard::{Admission, memory};
use super::table::spread;
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

    /// Whether we asked a peer for a record that it now sends.
    fn is_expected(&mut self, from: NodeId) -> bool {
        let Some(linked) = self.linked.get_mut(&from) else { return false };
        let is_expected = linked.expected > 0;
        linked.expected = linked.expected.saturating_sub(1);
        is_expected
    }

    pub(super) fn handle_find(&mut self, now: Instant, from: NodeId, find: &Find) {
        if !self.is_allowed(now, from) {
            return;
        }
        self.requests_served += 1;
        let (contacts, linked) = self.contacts_near(from, &find.target);
        let (records, more) = match find.records {
            Some(kind) if self.config.serves => self.shard.find(now, &find.target, kind, find.page),
            _ => (Vec::new(), None),
        };
        let answer = Found { request: find.request, contacts, linked, records, more };
        self.outputs.push_back(Output::Send(from, IndexMessage::Found(answer)));
    }

    /// Contacts near `target`, [spread] so that answers together name the whole region; and as bits
    /// which of them we can signal for.
    fn contacts_near(&mut self, asker: NodeId, target: &Key) -> (Vec<PeerAddr>, u32) {
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
        let near = spread(&near, CONTACTS_MAX, k, &mut self.rng);
        let (mut contacts, mut bits) = (Vec::with_capacity(near.len()), 0);
        for (at, (_, id)) in near.into_iter().enumerate() {
            let mut contact = match (self.linked.get(&id), self.table.get(id)) {
                (Some(linked), _) => {
                    bits |= u32::from(linked.is_guest) << at;
                    linked.contact.contact(id)
                }
                (None, Some(entry)) => entry.peer(),
                (None, None) => continue,
            };
            // Only the nearest one may be who is wanted itself; to ask the others one home will do.
            if at > 0 {
                contact.homes.truncate(1);
            }
            contacts.push(contact);
        }
        (contacts, bits)
    }

    pub(super) fn handle_store(&mut self, now: Instant, from: NodeId, store: &Store) {
        // Nobody waits for an answer to what we asked for.
        let request = (!self.is_expected(from)).then_some(store.request);
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
