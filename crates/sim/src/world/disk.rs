//! A host's disk: what its node keeps from run to run.
//!
//! Writing succeeds at once. The records share their bytes with the node's own memory.

use bytes::Bytes;

use baran_proto::index::{DiskAction, Restored};
use baran_proto::key::Key;
use baran_proto::record::Slot;
use baran_proto::time::UnixTime;

/// What is on it, in the order of the places.
#[derive(Debug, Default)]
pub(super) struct Disk {
    records: Vec<(Slot, Bytes)>,
    sequences: Vec<(Slot, u64, UnixTime)>,
    own: Vec<(Slot, Bytes)>,
}

impl Disk {
    pub(super) fn write(&mut self, action: DiskAction) {
        match action {
            DiskAction::Keep { slot, record, sequence, remember_until } => {
                put(&mut self.records, slot, record);
                match self.sequences.binary_search_by_key(&slot, |(slot, ..)| *slot) {
                    Ok(at) => self.sequences[at] = (slot, sequence, remember_until),
                    Err(at) => self.sequences.insert(at, (slot, sequence, remember_until)),
                }
            }
            DiskAction::Drop(slots) => {
                self.records.retain(|(slot, _)| !slots.contains(slot));
            }
            DiskAction::Forget(slots) => {
                self.sequences.retain(|(slot, ..)| !slots.contains(slot));
            }
            DiskAction::Own { slot, record } => put(&mut self.own, slot, record),
        }
    }

    /// Whether there is a record of this key that is kept for others.
    pub(super) fn keeps(&self, key: &Key) -> bool {
        self.records.iter().any(|(slot, _)| slot.key == *key)
    }

    /// What a node finds that starts at this moment.
    pub(super) fn read(&mut self, now: UnixTime) -> Restored {
        self.sequences.retain(|(.., until)| *until > now);
        let bytes = |all: &[(Slot, Bytes)]| all.iter().map(|(_, bytes)| bytes.clone()).collect();
        Restored {
            records: bytes(&self.records),
            sequences: self.sequences.clone(),
            own: bytes(&self.own),
        }
    }
}

fn put(all: &mut Vec<(Slot, Bytes)>, slot: Slot, record: Bytes) {
    match all.binary_search_by_key(&slot, |(slot, _)| *slot) {
        Ok(at) => all[at].1 = record,
        Err(at) => all.insert(at, (slot, record)),
    }
}
