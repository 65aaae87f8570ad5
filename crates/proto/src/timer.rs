//! A small table of timers keyed by an enum: set, stopped, expired in order.
//!
//! A timer is a field, never a scheduled effect, so nothing fires that was overtaken by events.
//! Every operation costs the logarithm of the number of timers.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Instant;

/// At most one deadline for each key.
#[derive(Debug, Clone)]
pub struct Timers<K> {
    by_key: BTreeMap<K, Instant>,
    by_time: BTreeSet<(Instant, K)>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), by_time: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Timers<K> {
    /// Sets or moves the timer `key`.
    pub fn set(&mut self, key: K, at: Instant) {
        if let Some(old) = self.by_key.insert(key, at) {
            self.by_time.remove(&(old, key));
        }
        self.by_time.insert((at, key));
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
        if let Some(at) = self.by_key.remove(&key) {
            self.by_time.remove(&(at, key));
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
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes one timer that is due at `now`, earliest first, ties in key order.
    pub fn expire(&mut self, now: Instant) -> Option<K> {
        let (at, key) = self.by_time.first().copied()?;
        (at <= now).then(|| {
            self.stop(key);
            key
        })
    }
}

#[cfg(test)]
mod tests {
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
}
