//! Which keys to look up so that the table stays good (Kademlia §2.3).

use rand_core::Rng;

use super::{Entry, Table, flip, splice};
use crate::key::{KEY_BITS, KEY_LEN, Key};
use crate::time::Instant;

impl Table {
    /// A key to look up so that the table stays good, if it is time for one; it counts as looked
    /// up.
    ///
    /// The surroundings of this node are looked at by its own key, once in
    /// [`refresh`](super::TableConfig::refresh); a bucket farther away by a random key of it, if in
    /// that time less than half of `k` entries of it were heard from.
    pub fn refresh_target(&mut self, now: Instant, rng: &mut impl Rng) -> Option<Key> {
        let far = self.far_buckets();
        let last = |bucket: &u32| match *bucket {
            bucket if bucket == far => self.own_refreshed,
            bucket => self.refreshed.get(bucket as usize).copied().flatten(),
        };
        let is_due = |bucket: &u32| {
            last(bucket).is_none_or(|at| now - at >= self.config.refresh)
                && (*bucket == far || self.is_quiet(now, *bucket))
        };
        // The own key first: what it finds fills the far buckets too.
        let bucket = (0..=far).rev().filter(is_due).min_by_key(last)?;
        let target = if bucket == far { self.own } else { self.random_in(bucket, rng) };
        self.looked_up(now, &target);
        Some(target)
    }

    /// Notes that a key is looked up, for whatever reason: its bucket needs no refreshing.
    pub fn looked_up(&mut self, now: Instant, target: &Key) {
        let bucket = self.own.common_bits(target);
        if bucket >= self.far_buckets() {
            self.own_refreshed = Some(now);
            return;
        }
        let bucket = bucket as usize;
        if self.refreshed.len() <= bucket {
            self.refreshed.resize(bucket + 1, None);
        }
        self.refreshed[bucket] = Some(now);
    }

    /// The number of buckets beyond the surroundings of this node, within which it knows `k` nodes.
    pub(super) fn far_buckets(&self) -> u32 {
        let surroundings = |bits| self.run(&self.own, bits).len();
        (0..KEY_BITS).find(|bucket| surroundings(bucket + 1) < self.config.k).unwrap_or(KEY_BITS)
    }

    fn is_quiet(&self, now: Instant, bucket: u32) -> bool {
        let run = self.run(&flip(&self.own, bucket), bucket + 1);
        let heard = |entry: &&Entry| !entry.is_stale() && now - entry.seen < self.config.refresh;
        self.entries[run].iter().filter(heard).count() < self.config.k / 2
    }

    fn random_in(&self, bucket: u32, rng: &mut impl Rng) -> Key {
        let mut bytes = [0; KEY_LEN];
        rng.fill_bytes(&mut bytes);
        splice(&flip(&self.own, bucket), bucket + 1, bytes)
    }
}
