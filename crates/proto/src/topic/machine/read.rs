//! What the owner reads: entries in the order of their arrival, members, figures.

use super::room::Room;
use super::{Received, Synced, TopicStats, Topics};
use crate::id::NodeId;
use crate::topic::access::Access;
use crate::topic::entry::{KIND_CONTROL, KIND_HERE, Signed};
use crate::topic::id::TopicId;

impl Topics {
    /// The topics that the owner takes part in.
    pub fn topics(&self) -> impl Iterator<Item = TopicId> {
        self.rooms.keys().copied()
    }

    /// What we hold of a topic.
    #[must_use]
    pub fn access(&self, topic: TopicId) -> Option<&Access> {
        self.rooms.get(&topic).map(|room| &room.access)
    }

    /// Entries from the cursor `from` on, at most `limit` of them and `bytes` of payload (one at
    /// least), and the cursor for what comes after them. `None` if we take no part.
    ///
    /// A cursor is an arrival's number ([`Received::arrival`]); it counts in this run of the node
    /// alone. Entries that history dropped are passed over; those about the topic itself are not.
    #[must_use]
    pub fn read(
        &self,
        topic: TopicId,
        from: u64,
        limit: usize,
        bytes: usize,
    ) -> Option<(Vec<Received>, u64)> {
        let room = self.rooms.get(&topic)?;
        let (mut read, mut len) = (Vec::new(), 0);
        let skipped = from.saturating_sub(room.first_arrival);
        let mut next = room.first_arrival + skipped.min(room.arrivals.len() as u64);
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        for entry in room.arrivals.iter().skip(skipped) {
            if read.len() >= limit || len >= bytes {
                break;
            }
            let arrival = next;
            next += 1;
            let Some(signed) = room.log.entry(entry.author, entry.seq) else { continue };
            let received = room.received(arrival, signed);
            len += received.payload.as_ref().map_or(0, bytes::Bytes::len);
            read.push(received);
        }
        Some((read, next))
    }

    /// Up to which entry of each author history dropped its log.
    #[must_use]
    pub fn trimmed(&self, topic: TopicId) -> Vec<(NodeId, u64)> {
        let heads = self.rooms.get(&topic).into_iter().flat_map(|room| room.log.heads());
        heads.filter(|(_, span)| span.first > 1).map(|(id, span)| (id, span.first - 1)).collect()
    }

    /// How many of our own entries of a topic wait to be written.
    #[must_use]
    pub fn waiting(&self, topic: TopicId) -> usize {
        self.rooms.get(&topic).map_or(0, |room| room.outbox.len() + room.writing.len())
    }

    /// A topic at this moment.
    #[must_use]
    pub fn stats(&self, topic: TopicId) -> Option<TopicStats> {
        let room = self.rooms.get(&topic)?;
        let synced = room.neighbors.iter();
        let heads: Vec<_> = room.log.heads().map(|(author, span)| (author, span.head)).collect();
        Some(TopicStats {
            topic,
            entries: room.log.len(),
            bytes: room.log.bytes(),
            authors: heads.len(),
            synced: synced
                .map(|(peer, neighbor)| Synced { peer: *peer, since_ms: neighbor.synced_ms })
                .collect(),
            heads,
            epoch: room.epoch(),
            pushed: room.pushed,
        })
    }

    /// The digest of what we have of a topic: equal for two that have the same.
    #[must_use]
    pub fn digest(&self, topic: TopicId) -> Option<[u8; 32]> {
        self.rooms.get(&topic).map(|room| room.log.digest())
    }

    /// Our neighbours in a topic.
    pub fn neighbors(&self, topic: TopicId) -> impl Iterator<Item = NodeId> {
        let room = self.rooms.get(&topic);
        room.into_iter().flat_map(|room| room.neighbors.keys().copied())
    }
}

impl Room {
    fn received(&self, arrival: u64, entry: &Signed) -> Received {
        let payload = match self.access.keys().is_public() {
            true => Some(entry.payload().clone()),
            false if matches!(entry.kind(), KIND_CONTROL | KIND_HERE) => {
                Some(entry.payload().clone())
            }
            false => self.open(entry.epoch(), entry.payload()),
        };
        Received {
            arrival,
            author: entry.author(),
            seq: entry.seq(),
            id: entry.id(),
            time_ms: entry.time_ms(),
            heads: entry.heads().to_vec(),
            kind: entry.kind(),
            payload,
        }
    }
}
