//! What happens next: one queue of events, and one set of the nodes' deadlines.
//!
//! Events are ordered by (time, sequence), so that what was caused first happens first; deadlines
//! by (time, host). Events of the next moments lie in a heap that fits the processor's cache, later
//! ones unsorted by slots of time. Only a host that was touched is asked for its deadline again:
//! looking at all of them each time is fifty times slower with some thousand nodes.

use core::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use baran_proto::time::Instant;

/// Microseconds of a slot of time: some thousand events in the largest worlds.
const SLOT_US: u64 = 1 << 17;

/// When an event happens, its sequence, and where it lies.
type Entry = Reverse<(Instant, u64, u32)>;

/// The events to come. They lie still, and small entries are put in order.
#[derive(Debug)]
pub struct Queue<E> {
    /// Of the slot that has begun, and before. Never empty while there are later ones.
    heap: BinaryHeap<Entry>,
    /// The slot that has begun.
    slot: u64,
    /// Of later slots.
    later: BTreeMap<u64, Vec<Entry>>,
    events: Vec<Option<E>>,
    free: Vec<u32>,
    sequence: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        let (heap, later) = (BinaryHeap::new(), BTreeMap::new());
        Self { heap, slot: 0, later, events: Vec::new(), free: Vec::new(), sequence: 0 }
    }
}

impl<E> Queue<E> {
    /// Lets `event` happen at `at`, after everything that was pushed before for that moment.
    ///
    /// # Panics
    ///
    /// With more than 2³² events to come.
    pub fn push(&mut self, at: Instant, event: E) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            u32::try_from(self.events.len() - 1).expect("fewer events than fit in memory")
        });
        self.events[slot as usize] = Some(event);
        self.sequence += 1;
        let entry = Reverse((at, self.sequence, slot));
        let slot = at.as_micros() / SLOT_US;
        if slot <= self.slot {
            self.heap.push(entry);
        } else {
            self.later.entry(slot).or_default().push(entry);
            self.advance();
        }
    }

    /// Begins the next slot if this one is over.
    fn advance(&mut self) {
        if self.heap.is_empty()
            && let Some((slot, entries)) = self.later.pop_first()
        {
            self.slot = slot;
            self.heap = entries.into();
        }
    }

    /// When the next event happens.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Takes the next event.
    pub fn pop(&mut self) -> Option<(Instant, E)> {
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.advance();
        self.free.push(slot);
        let event = self.events[slot as usize].take()?;
        Some((at, event))
    }

    /// Events to come.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len() - self.free.len()
    }

    /// Whether nothing is to come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

/// When which host wants to be called. A host's current deadline is kept by the host itself.
#[derive(Debug, Default)]
pub struct Deadlines(BTreeSet<(Instant, u32)>);

impl Deadlines {
    /// Moves the deadline of `host`, which had `old`.
    pub fn set(&mut self, host: u32, old: &mut Option<Instant>, new: Option<Instant>) {
        if *old == new {
            return;
        }
        if let Some(old) = *old {
            self.0.remove(&(old, host));
        }
        if let Some(new) = new {
            self.0.insert((new, host));
        }
        *old = new;
    }

    /// The earliest.
    #[must_use]
    pub fn first(&self) -> Option<(Instant, u32)> {
        self.0.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_by_cause() {
        let at = Instant::from_micros;
        let mut queue = Queue::default();
        for (time, name) in [(5, 'c'), (1, 'a'), (5, 'd'), (3, 'b')] {
            queue.push(at(time), name);
        }
        let first = queue.pop();
        assert_eq!(first, Some((at(1), 'a')));
        queue.push(at(5), 'e');
        let rest: String = core::iter::from_fn(|| queue.pop().map(|(_, name)| name)).collect();
        assert_eq!(rest, "bcde");
        assert!(queue.is_empty());
    }

    #[test]
    fn a_deadline_moves_and_goes() {
        let at = Instant::from_micros;
        let mut deadlines = Deadlines::default();
        let (mut one, mut two) = (None, None);
        deadlines.set(1, &mut one, Some(at(9)));
        deadlines.set(2, &mut two, Some(at(5)));
        assert_eq!(deadlines.first(), Some((at(5), 2)));
        deadlines.set(2, &mut two, Some(at(11)));
        assert_eq!(deadlines.first(), Some((at(9), 1)));
        deadlines.set(1, &mut one, None);
        assert_eq!((deadlines.first(), one), (Some((at(11), 2)), None));
    }
}
