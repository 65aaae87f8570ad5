//! A map of few entries, as a list in the order of the keys (Boost's `flat_map`).
//!
//! A node keeps many tables that mostly hold one to some dozens of entries. A B-tree takes room for
//! eleven entries as soon as there is one; this takes what the entries need and up to a quarter
//! more. Finding is a binary search. Inserting and removing move what lies behind, which costs less
//! than a B-tree up to some hundreds of entries and some microseconds with the few thousands that
//! the limits allow, if the values are small: box those of more than about 64 bytes.

use core::fmt;

/// A map that is a sorted list. The methods do what those of `BTreeMap` of the same name do.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct FlatMap<K, V>(Vec<(K, V)>);

impl<K, V> Default for FlatMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> FlatMap<K, V> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + Clone {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub(crate) fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (&K, &mut V)> {
        self.0.iter_mut().map(|(key, value)| (&*key, value))
    }

    pub(crate) fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + Clone {
        self.0.iter().map(|(key, _)| key)
    }

    pub(crate) fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone {
        self.0.iter().map(|(_, value)| value)
    }

    pub(crate) fn values_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    pub(crate) fn retain(&mut self, mut keeps: impl FnMut(&K, &mut V) -> bool) {
        self.0.retain_mut(|(key, value)| keeps(key, value));
        self.shrink();
    }

    /// Gives back room of which less than half is used.
    fn shrink(&mut self) {
        let len = self.0.len();
        if len < self.0.capacity() / 2 {
            self.0.shrink_to(len + len / 4);
        }
    }
}

impl<K: Ord, V> FlatMap<K, V> {
    fn position(&self, key: &K) -> Result<usize, usize> {
        // Most keys are numbers that grow.
        match self.0.last() {
            Some((last, _)) if last < key => Err(self.0.len()),
            _ => self.0.binary_search_by(|(other, _)| other.cmp(key)),
        }
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.position(key).is_ok()
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let at = self.position(key).ok()?;
        Some(&self.0[at].1)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.position(key).ok()?;
        Some(&mut self.0[at].1)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.position(&key) {
            Ok(at) => Some(core::mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                self.insert_at(at, key, value);
                None
            }
        }
    }

    /// The entry of a key or, if there is none, the one before.
    pub(crate) fn last_until(&self, key: &K) -> Option<(&K, &V)> {
        let at = match self.position(key) {
            Ok(at) => at,
            Err(at) => at.checked_sub(1)?,
        };
        self.0.get(at).map(|(key, value)| (key, value))
    }

    /// The value of a key, which is made and inserted if there is none.
    pub(crate) fn or_insert_with(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        let at = match self.position(&key) {
            Ok(at) => at,
            Err(at) => {
                self.insert_at(at, key, value());
                at
            }
        };
        &mut self.0[at].1
    }

    /// The value of a key, which is inserted by default.
    pub(crate) fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.or_insert_with(key, V::default)
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.position(key).ok()?;
        let (_, value) = self.0.remove(at);
        self.shrink();
        Some(value)
    }

    fn insert_at(&mut self, at: usize, key: K, value: V) {
        if self.0.len() == self.0.capacity() {
            self.0.reserve_exact((self.0.len() / 4).max(1));
        }
        self.0.insert(at, (key, value));
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for FlatMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord, V> core::ops::Index<&K> for FlatMap<K, V> {
    type Output = V;

    /// # Panics
    ///
    /// If there is no such key.
    fn index(&self, key: &K) -> &V {
        self.get(key).expect("the caller knows that the key is there")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn does_what_a_b_tree_does(steps in prop::collection::vec((0..5_u8, 0..20_u8), 0..200)) {
            let (mut flat, mut tree) = (FlatMap::new(), BTreeMap::new());
            for (value, (step, key)) in (0_u32..).zip(steps) {
                match step {
                    0 | 1 => prop_assert_eq!(flat.insert(key, value), tree.insert(key, value)),
                    2 => prop_assert_eq!(flat.remove(&key), tree.remove(&key)),
                    3 => {
                        *flat.or_default(key) += 1;
                        *tree.entry(key).or_default() += 1;
                    }
                    _ => {
                        flat.retain(|other, _| other % 7 != key % 7);
                        tree.retain(|other, _| other % 7 != key % 7);
                    }
                }
                prop_assert_eq!(flat.get(&key), tree.get(&key));
                prop_assert_eq!(flat.last_until(&key), tree.range(..=key).next_back());
                prop_assert!(flat.iter().eq(tree.iter()));
                prop_assert!(flat.0.capacity() <= (2 * flat.len() + 1).max(flat.len() * 5 / 4 + 1));
            }
        }
    }

    #[test]
    fn an_empty_map_takes_no_room() {
        let mut map = FlatMap::new();
        for n in 0..100 {
            map.insert(n, n);
        }
        assert!(map.0.capacity() <= 125);
        map.retain(|_, _| false);
        assert_eq!(map.0.capacity(), 0);
    }
}
