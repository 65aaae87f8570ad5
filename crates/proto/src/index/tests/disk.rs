//! What a host has on disk.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::index::{DiskAction, Restored};
use crate::record::Slot;
use crate::time::UnixTime;

/// A disk that is written at once, or not at all.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) records: BTreeMap<Slot, Bytes>,
    pub(crate) sequences: BTreeMap<Slot, (u64, UnixTime)>,
    pub(crate) own: BTreeMap<Slot, Bytes>,
    pub(crate) role: Vec<u8>,
    pub(crate) is_broken: bool,
}

impl Disk {
    /// Returns whether it is written.
    pub(crate) fn write(&mut self, action: DiskAction) -> bool {
        if self.is_broken {
            return false;
        }
        match action {
            DiskAction::Keep { slot, record, sequence, remember_until } => {
                self.records.insert(slot, record);
                self.sequences.insert(slot, (sequence, remember_until));
            }
            DiskAction::Drop(slots) => self.records.retain(|slot, _| !slots.contains(slot)),
            DiskAction::Forget(slots) => self.sequences.retain(|slot, _| !slots.contains(slot)),
            DiskAction::Own { slot, record } => {
                self.own.insert(slot, record);
            }
            DiskAction::Role(bytes) => self.role = bytes,
            DiskAction::Topic(_) => {}
        }
        true
    }

    /// What is found on it at the next start.
    pub(crate) fn restored(&self) -> Restored {
        let sequences = self.sequences.iter();
        Restored {
            records: self.records.values().cloned().collect(),
            sequences: sequences
                .map(|(slot, (sequence, until))| (*slot, *sequence, *until))
                .collect(),
            own: self.own.values().cloned().collect(),
            role: self.role.clone(),
            topics: Vec::new(),
        }
    }
}
