//! Entries by name: those seen recently, and those announced that have not come.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::flat::FlatMap;
use crate::id::NodeId;
use crate::time::Instant;
use crate::topic::id::ShortId;

/// Most entries remembered as seen; the oldest is forgotten first.
pub(super) const SEEN_MAX: usize = 8_192;

/// Most entries that are waited for.
pub(super) const MISSING_MAX: usize = 1_024;

/// Most of them that one peer was the first to announce, so that it does not take all the room.
pub(super) const MISSING_PER_PEER_MAX: usize = 192;

/// Most announcers remembered of an entry.
const ANNOUNCERS_MAX: usize = 4;

/// Most requests for an entry before it is left to repair.
const ASKS_MAX: u32 = 6;

/// The entries seen recently, with their lengths.
#[derive(Debug, Default)]
pub(super) struct Seen {
    lens: BTreeMap<ShortId, usize>,
    order: VecDeque<ShortId>,
}

impl Seen {
    /// Returns whether the entry is new.
    pub(super) fn insert(&mut self, id: ShortId, len: usize) -> bool {
        if self.lens.insert(id, len).is_some() {
            return false;
        }
        if self.order.len() >= SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.lens.remove(&oldest);
        }
        self.order.push_back(id);
        true
    }

    pub(super) fn contains(&self, id: ShortId) -> bool {
        self.lens.contains_key(&id)
    }

    /// The length of an entry that was seen.
    pub(super) fn len_of(&self, id: ShortId) -> Option<usize> {
        self.lens.get(&id).copied()
    }
}

#[derive(Debug)]
struct Wanted {
    /// When it was announced first.
    since: Instant,
    due: Instant,
    /// Who said it first, for the limit of each.
    first: NodeId,
    /// Those to ask, the next one first.
    announcers: VecDeque<NodeId>,
    asked: Option<NodeId>,
    asks: u32,
}

/// What became of an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    /// It is waited for, or there are announcers enough.
    Waits,
    /// There is no room for more of this peer.
    TooMany,
    /// There is no room.
    Full,
}

/// An entry of which somebody is to be asked, or that nobody brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) id: ShortId,
    /// Who was asked last, in vain.
    pub(super) failed: Option<NodeId>,
    /// Who is to be asked; nobody if it is given up.
    pub(super) next: Option<NodeId>,
    /// How many requests there were before this one.
    pub(super) asks: u32,
}

/// By whom an entry was announced.
#[derive(Debug, Default)]
pub(super) struct Announced {
    /// By whom first, and when.
    pub(super) first: Option<(NodeId, Instant)>,
    pub(super) announcers: VecDeque<NodeId>,
}

/// The entries that were announced and have not come.
#[derive(Debug, Default)]
pub(super) struct Missing {
    wanted: BTreeMap<ShortId, Wanted>,
    by_due: BTreeSet<(Instant, ShortId)>,
    by_first: FlatMap<NodeId, usize>,
}

impl Missing {
    /// Notes that a peer has an entry, which is to be asked for at `due` or a moment set before.
    pub(super) fn note(&mut self, now: Instant, id: ShortId, peer: NodeId, due: Instant) -> Noted {
        if let Some(wanted) = self.wanted.get_mut(&id) {
            if wanted.announcers.len() < ANNOUNCERS_MAX && !wanted.announcers.contains(&peer) {
                wanted.announcers.push_back(peer);
            }
            if wanted.asks == 0 && due < wanted.due {
                self.by_due.remove(&(wanted.due, id));
                wanted.due = due;
                self.by_due.insert((due, id));
            }
            return Noted::Waits;
        }
        if self.by_first.get(&peer).is_some_and(|count| *count >= MISSING_PER_PEER_MAX) {
            return Noted::TooMany;
        }
        if self.wanted.len() >= MISSING_MAX {
            return Noted::Full;
        }
        let announcers = VecDeque::from([peer]);
        let (first, since) = (peer, now);
        self.wanted.insert(id, Wanted { since, due, first, announcers, asked: None, asks: 0 });
        self.by_due.insert((due, id));
        *self.by_first.or_default(peer) += 1;
        Noted::Waits
    }

    /// An entry came, or is given up. Returns who announced it.
    pub(super) fn remove(&mut self, id: ShortId) -> Announced {
        let Some(wanted) = self.wanted.remove(&id) else { return Announced::default() };
        self.by_due.remove(&(wanted.due, id));
        if let Some(count) = self.by_first.get_mut(&wanted.first) {
            *count -= 1;
            if *count == 0 {
                self.by_first.remove(&wanted.first);
            }
        }
        Announced { first: Some((wanted.first, wanted.since)), announcers: wanted.announcers }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// Takes an entry that is due. The announcers are asked in turns, those that fail a test never.
    /// One with somebody to ask needs [`Self::asked`] before the next call.
    pub(super) fn take_due(
        &mut self,
        now: Instant,
        passes: impl Fn(NodeId) -> bool,
    ) -> Option<Due> {
        let (due, id) = *self.by_due.first()?;
        if due > now {
            return None;
        }
        let wanted = self.wanted.get_mut(&id)?;
        wanted.announcers.retain(|peer| passes(*peer));
        let failed = wanted.asked.take();
        let next = wanted.announcers.front().copied().filter(|_| wanted.asks < ASKS_MAX);
        let taken = Due { id, failed, next, asks: wanted.asks };
        if next.is_none() {
            self.remove(id);
        }
        Some(taken)
    }

    /// Somebody was asked for an entry, and has time until `due`.
    pub(super) fn asked(&mut self, id: ShortId, due: Instant) {
        let Some(wanted) = self.wanted.get_mut(&id) else { return };
        wanted.announcers.rotate_left(1);
        wanted.asked = wanted.announcers.back().copied();
        wanted.asks += 1;
        self.by_due.remove(&(wanted.due, id));
        wanted.due = due;
        self.by_due.insert((due, id));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.wanted.len()
    }
}

/// A growing wait: after all announcers were asked once, twice as long.
pub(super) fn patience(wait: Duration, asks: u32) -> Duration {
    wait * (1 << (asks / 2).min(3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u16) -> ShortId {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        ShortId::from_bytes(bytes)
    }

    fn peer(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    const fn at(us: u64) -> Instant {
        Instant::from_micros(us)
    }

    #[test]
    fn the_oldest_seen_is_forgotten_first() {
        let mut seen = Seen::default();
        for n in 0..=8_192 {
            assert!(seen.insert(id(n), usize::from(n)));
            assert!(!seen.insert(id(n), usize::from(n)));
        }
        assert_eq!((seen.order.len(), seen.lens.len()), (SEEN_MAX, SEEN_MAX));
        assert!(!seen.contains(id(0)));
        assert_eq!(seen.len_of(id(8_192)), Some(8_192));
    }

    #[test]
    fn announcers_are_asked_in_turns_until_it_is_given_up() {
        let mut missing = Missing::default();
        for n in 1..=5 {
            assert_eq!(missing.note(at(0), id(1), peer(n), at(10)), Noted::Waits);
        }
        assert_eq!(missing.take_due(at(9), |_| true), None);
        let mut asked = Vec::new();
        while let Some(due) = missing.take_due(at(20), |other| other != peer(2)) {
            assert_eq!(due.failed, asked.last().copied());
            let Some(next) = due.next else { break };
            asked.push(next);
            missing.asked(id(1), at(20));
        }
        // The fifth announcer is not remembered, the second not allowed.
        assert_eq!(asked, [1, 3, 4, 1, 3, 4].map(peer));
        assert_eq!((missing.len(), missing.next_due(), missing.by_first.len()), (0, None, 0));
    }

    #[test]
    fn no_peer_takes_all_the_room() {
        let mut missing = Missing::default();
        for n in 0..2_000 {
            let noted = missing.note(at(0), id(n), peer(1), at(10));
            assert_eq!(noted == Noted::Waits, usize::from(n) < MISSING_PER_PEER_MAX);
        }
        for n in 2_000..3_000 {
            let by = u8::try_from(n / 100).unwrap();
            missing.note(at(0), id(n), peer(by), at(10));
            assert!(missing.len() <= MISSING_MAX);
        }
        assert_eq!(missing.len(), MISSING_MAX);
        assert_eq!(missing.note(at(0), id(9_999), peer(99), at(10)), Noted::Full);
    }

    proptest! {
        #[test]
        fn the_indices_agree(
            steps in prop::collection::vec((0..4_u8, 0..9_u16, 0..4_u8, 1..30_u64), 0..80),
        ) {
            let mut missing = Missing::default();
            let mut now = 0;
            for (step, n, who, pause) in steps {
                match step {
                    0 | 1 => {
                        missing.note(at(now), id(n), peer(who), at(now + pause));
                    }
                    2 => {
                        missing.remove(id(n));
                    }
                    _ => {
                        now += pause;
                        while let Some(due) = missing.take_due(at(now), |other| other != peer(3)) {
                            if due.next.is_some() {
                                missing.asked(due.id, at(now + 1));
                            }
                        }
                        prop_assert!(missing.next_due().is_none_or(|due| due > at(now)));
                    }
                }
                let counted: usize = missing.by_first.values().sum();
                prop_assert_eq!(missing.wanted.len(), counted);
                prop_assert_eq!(missing.wanted.len(), missing.by_due.len());
                let dues = missing.wanted.iter().map(|(id, wanted)| (wanted.due, *id));
                prop_assert_eq!(dues.collect::<BTreeSet<_>>(), missing.by_due.clone());
            }
        }
    }
}
