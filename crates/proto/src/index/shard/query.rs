//! What a shard tells of its records.

use core::ops::Bound;

use bytes::Bytes;

use super::sample::Cursor;
use super::{Kept, Shard};
use crate::id::NodeId;
use crate::key::Key;
use crate::record::Slot;
use crate::time::Instant;
use crate::wire::index::{RECORDS_LEN_MAX, RECORDS_MAX, RecordKind};

impl Shard {
    /// The records of a kind at a key, as many as one answer holds, and where to go on if there are
    /// more. Announcements come in a random order, which `page` continues if it is of an earlier
    /// answer.
    pub fn find(
        &mut self,
        now: Instant,
        key: &Key,
        kind: RecordKind,
        page: Option<u64>,
    ) -> (Vec<Bytes>, Option<u64>) {
        if kind != RecordKind::Announcement {
            // Their key follows from their author, so there is one at most.
            let first = Slot { key: *key, kind, author: NodeId::from_bytes([0; 32]) };
            let at_key = |slot: &Slot| (slot.key, slot.kind) == (*key, kind);
            let found = self.slots.range(first..).take_while(|(slot, _)| at_key(slot)).next();
            let live = found.and_then(|(_, entry)| entry.live(now));
            return (live.map(|kept| kept.bytes.clone()).into_iter().collect(), None);
        }
        let [a, b, c, d, ..] = self.draw();
        let seed = u32::from_be_bytes([a, b, c, d]);
        let Some(group) = self.groups.get(key) else { return (Vec::new(), None) };
        let cursor = page.map_or_else(|| group.start(seed), Cursor::from_page);
        let (mut records, mut len) = (Vec::new(), 0);
        for (cursor, author) in group.walk(cursor) {
            let slot = Slot { key: *key, kind, author };
            let Some(kept) = self.slots.get(&slot).and_then(|entry| entry.live(now)) else {
                continue;
            };
            len += kept.bytes.len();
            if records.len() == RECORDS_MAX || len > RECORDS_LEN_MAX {
                return (records, Some(cursor.to_page()));
            }
            records.push(kept.bytes.clone());
        }
        (records, None)
    }

    /// All records in the order of their slots, and thereby of their keys, beyond `after`.
    pub fn iter_from(&self, after: Option<Slot>) -> impl Iterator<Item = (&Slot, &Kept)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let slots = self.slots.range((start, Bound::Unbounded));
        slots.filter_map(|(slot, entry)| Some((slot, entry.kept.as_ref()?)))
    }
}
