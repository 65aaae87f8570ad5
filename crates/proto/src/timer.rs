//! A small table of timers keyed by an enum: set, stopped, expired in order.
//!
//! A timer is a field, never a scheduled effect, so nothing fires that was overtaken by events.
//! The timers lie in the order of their keys and the earliest is found by looking at all of them
//! when the one before it has gone: right for the some dozens of timers that a machine has. What
//! there are thousands of and fires often belongs elsewhere.

use crate::flat::FlatMap;
use crate::time::Instant;

/// At most one deadline for each key.
#[derive(Debug, Clone)]
pub struct Timers<K> {
    by_key: FlatMap<K, Instant>,
    next: Option<Instant>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { by_key: FlatMap::new(), next: None }
    }
}

impl<K: Ord + Copy> Timers<K> {
    /// Sets or moves the timer `key`.
    pub fn set(&mut self, key: K, at: Instant) {
        let old = self.by_key.insert(key, at);
        if self.next.is_none_or(|next| at <= next) {
            self.next = Some(at);
        } else if old == self.next {
            self.find_next();
        }
    }

    /// Sets the timer `key` unless it runs already.
    pub fn set_if_idle(&mut self, key: K, at: Instant) {
        if !self.is_set(key) {
            self.set(key, at);
        }
    }

    /// Makes the timer `key` fire at `at` at the latest.
    pub fn set_no_later(&mut self, key: K, at: Instant) {
        if self.by_key.get(&key).is_none_or(|set| *set > at) {
            self.set(key, at);
        }
    }

    /// Stops the timer `key` if it runs.
    pub fn stop(&mut self, key: K) {
        let old = self.by_key.remove(&key);
        if old.is_some() && old == self.next {
            self.find_next();
        }
    }

    /// Whether the timer `key` runs.
    #[must_use]
    pub fn is_set(&self, key: K) -> bool {
        self.by_key.contains_key(&key)
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Takes one timer that is due at `now`, earliest first, ties in key order.
    pub fn expire(&mut self, now: Instant) -> Option<K> {
        let next = self.next.filter(|next| *next <= now)?;
        let (key, _) = self.by_key.iter().find(|(_, at)| **at == next)?;
        let key = *key;
        self.stop(key);
        Some(key)
    }

    fn find_next(&mut self) {
        self.next = self.by_key.values().min().copied();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn expires_in_order_and_only_when_due() {
        let at = Instant::from_micros;
        let mut timers = Timers::default();
        timers.set('b', at(20));
        timers.set('a', at(10));
        timers.set('c', at(30));
        timers.stop('c');
        timers.set_if_idle('a', at(99));
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.expire(at(9)), None);
        assert_eq!(timers.expire(at(25)), Some('a'));
        assert_eq!(timers.expire(at(25)), Some('b'));
        assert_eq!(timers.expire(at(25)), None);
        assert_eq!(timers.next(), None);
    }

    proptest! {
        #[test]
        fn the_next_is_the_earliest(
            steps in prop::collection::vec((0..4_u8, 0..6_u8, 0..20_u64), 0..99),
        ) {
            let (mut timers, mut all) = (Timers::default(), BTreeMap::new());
            for (step, key, time) in steps {
                let at = Instant::from_micros(time);
                match step {
                    0 => {
                        timers.stop(key);
                        all.remove(&key);
                    }
                    1 => {
                        let due = all.iter().map(|(key, at)| (*at, *key)).min();
                        let due = due.filter(|(due, _)| *due <= at).map(|(_, key)| key);
                        prop_assert_eq!(timers.expire(at), due);
                        due.map(|key| all.remove(&key));
                    }
                    _ => {
                        timers.set(key, at);
                        all.insert(key, at);
                    }
                }
                prop_assert_eq!(timers.next(), all.values().min().copied());
            }
        }
    }
}
