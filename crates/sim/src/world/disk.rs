//! A host's disk: what its node keeps from run to run.
//!
//! Writing succeeds at once. The records share their bytes with the node's own memory.

use std::collections::BTreeMap;

use bytes::Bytes;

use baran_proto::id::NodeId;
use baran_proto::index::{DiskAction, Restored};
use baran_proto::key::Key;
use baran_proto::record::Slot;
use baran_proto::time::UnixTime;
use baran_proto::topic::id::TopicId;
use baran_proto::topic::machine::{self as topic, RestoredTopic};

/// What is on it, in the order of the places.
#[derive(Debug, Default)]
pub(super) struct Disk {
    kept: Vec<Kept>,
    own: Vec<(Slot, Bytes)>,
    role: Vec<u8>,
    topics: BTreeMap<TopicId, Topic>,
}

/// A topic, as its entries and authors lie on disk.
#[derive(Debug, Default)]
struct Topic {
    state: Bytes,
    entries: BTreeMap<(NodeId, u64), Bytes>,
    authors: BTreeMap<NodeId, Bytes>,
}

/// What is kept for others: a sequence, and the record while it is there.
#[derive(Debug)]
struct Kept {
    slot: Slot,
    sequence: u64,
    until: UnixTime,
    record: Option<Bytes>,
}

impl Topic {
    fn read(&self, topic: TopicId) -> RestoredTopic {
        RestoredTopic {
            topic,
            state: self.state.clone(),
            entries: self.entries.values().cloned().collect(),
            authors: self.authors.iter().map(|(id, state)| (*id, state.clone())).collect(),
        }
    }
}

impl Disk {
    pub(super) fn write(&mut self, action: DiskAction) {
        match action {
            DiskAction::Keep { slot, record, sequence, remember_until } => {
                let new = Kept { slot, sequence, until: remember_until, record: Some(record) };
                match self.kept.binary_search_by_key(&slot, |kept| kept.slot) {
                    Ok(at) => self.kept[at] = new,
                    Err(at) => {
                        // Doubling would leave a quarter of it empty, of all hosts together.
                        if self.kept.len() == self.kept.capacity() {
                            self.kept.reserve_exact(1 + self.kept.len() / 8);
                        }
                        self.kept.insert(at, new);
                    }
                }
            }
            DiskAction::Drop(slots) => {
                let dropped = self.kept.iter_mut().filter(|kept| slots.contains(&kept.slot));
                dropped.for_each(|kept| kept.record = None);
            }
            DiskAction::Forget(slots) => self.kept.retain(|kept| !slots.contains(&kept.slot)),
            DiskAction::Own { slot, record } => {
                match self.own.binary_search_by_key(&slot, |(slot, _)| *slot) {
                    Ok(at) => self.own[at].1 = record,
                    Err(at) => self.own.insert(at, (slot, record)),
                }
            }
            DiskAction::Role(bytes) => self.role = bytes,
            DiskAction::Topic(action) => self.write_topic(action),
        }
    }

    fn write_topic(&mut self, action: topic::DiskAction) {
        match action {
            topic::DiskAction::State(id, state) => {
                self.topics.entry(id).or_default().state = state;
            }
            topic::DiskAction::Entries(id, entries) => {
                let new = entries.into_iter().map(|(author, seq, entry)| ((author, seq), entry));
                self.topics.entry(id).or_default().entries.extend(new);
            }
            topic::DiskAction::Trim { topic: id, entries } => {
                let topic = self.topics.entry(id).or_default();
                entries.iter().for_each(|at| drop(topic.entries.remove(at)));
            }
            topic::DiskAction::Author(id, author, state) => {
                self.topics.entry(id).or_default().authors.insert(author, state);
            }
            topic::DiskAction::Drop(id) => drop(self.topics.remove(&id)),
        }
    }

    /// Whether there is a record of this key that is kept for others.
    pub(super) fn keeps(&self, key: &Key) -> bool {
        self.kept.iter().any(|kept| kept.slot.key == *key && kept.record.is_some())
    }

    /// What a node finds that starts at this moment.
    pub(super) fn read(&mut self, now: UnixTime) -> Restored {
        self.kept.retain(|kept| kept.record.is_some() || kept.until > now);
        let sequences = self.kept.iter().filter(|kept| kept.until > now);
        Restored {
            records: self.kept.iter().filter_map(|kept| kept.record.clone()).collect(),
            sequences: sequences.map(|kept| (kept.slot, kept.sequence, kept.until)).collect(),
            own: self.own.iter().map(|(_, record)| record.clone()).collect(),
            role: self.role.clone(),
            topics: self.topics.iter().map(|(id, topic)| topic.read(*id)).collect(),
        }
    }
}
