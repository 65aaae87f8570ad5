//! How many nodes there are, from the density of ids near keys that were looked up (Manku,
//! *Routing Networks for Distributed Hash Tables*, 2003; design §7).
//!
//! Keys of nodes are hashes, so they lie evenly in the key space: if the n-th nearest node to a
//! key is at the share `d` of the space, there are about `(n − ⅓) / d` nodes. The third makes the
//! *median* of such estimates right, and the median is what is reported, because Sybils that
//! crowd one key make one estimate as large as they like and leave the median where it is. A key
//! that is looked up again therefore replaces its estimate and does not add one. Of two estimates
//! the lower one counts for the same reason; it is too low by `LOWER_OF_TWO` on average, so it is
//! raised by that.
//!
//! Invariants: at most [`OBSERVATIONS_MAX`] estimates are kept; the answer is finite.

use crate::key::{Distance, Key};

/// Estimates that the median is of. Each is off by a fifth or so (1/√20); the median of 32 by a
/// twentieth.
pub const OBSERVATIONS_MAX: usize = 32;

/// By how much a true estimate is above the lower one of two, on average: 0.56 deviations (the mean
/// of the least of two normal draws), which are 0.3 for eight to twenty nodes.
const LOWER_OF_TWO: f64 = 1.18;

/// An estimate of the number of nodes.
#[derive(Debug, Clone, Default)]
pub struct SizeEstimate {
    /// Oldest first: the first bytes of the key, and the estimate.
    observations: Vec<(u64, f32)>,
}

impl SizeEstimate {
    /// Creates one that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in what a look-up of `target` found: the distances of the nearest nodes (twenty or
    /// so) that *really answered*, nearest first, this node not among them. An empty list says
    /// nothing.
    pub fn observe(&mut self, target: &Key, nearest: &[Distance]) {
        let Some(last) = nearest.last() else { return };
        let count = nearest.len() as f64;
        // A share of zero is less than the 64 bits that a share is counted in.
        let share = last.fraction().max(2f64.powi(-64));
        // This node is one more.
        let nodes = ((count - 1.0 / 3.0) / share).max(count) + 1.0;
        let name = target.as_bytes().iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b));
        self.observations.retain(|(other, _)| *other != name);
        if self.observations.len() == OBSERVATIONS_MAX {
            self.observations.remove(0);
        }
        self.observations.reserve_exact(1);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "seven digits are more than it is worth"
        )]
        self.observations.push((name, nodes as f32));
    }

    /// The number of nodes, this one included; `None` before the first observation.
    #[must_use]
    pub fn nodes(&self) -> Option<f64> {
        let mut sorted: Vec<f32> = self.observations.iter().map(|(_, nodes)| *nodes).collect();
        sorted.sort_unstable_by(f32::total_cmp);
        match sorted[..] {
            [] => None,
            [lower, _] => Some(f64::from(lower) * LOWER_OF_TWO),
            _ => {
                let (left, right) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
                Some((f64::from(left) * f64::from(right)).sqrt())
            }
        }
    }

    /// The radius around a key within which `replicas` nodes are expected. It is the whole space,
    /// [`Distance::MAX`], before the first observation and where there are not so many nodes.
    #[must_use]
    pub fn region(&self, replicas: usize) -> Distance {
        self.nodes().map_or(Distance::MAX, |nodes| Distance::of_fraction(replicas as f64 / nodes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_core::{Rng, SeedableRng};

    fn random_key(rng: &mut ChaCha8Rng) -> Key {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Key::from_bytes(bytes)
    }

    /// The distances of the `n` nearest of a world's keys to `target`.
    fn nearest(world: &[Key], target: &Key, n: usize) -> Vec<Distance> {
        let mut all: Vec<_> = world.iter().map(|key| key.distance(target)).collect();
        all.sort_unstable();
        all.truncate(n);
        all
    }

    #[test]
    fn the_median_is_near_the_truth_at_every_size() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for size in [1, 2, 5, 12, 100, 5_000] {
            let world: Vec<_> = (0..size).map(|_| random_key(&mut rng)).collect();
            let mut estimate = SizeEstimate::new();
            for _ in 0..OBSERVATIONS_MAX {
                let target = random_key(&mut rng);
                estimate.observe(&target, &nearest(&world, &target, 20));
            }
            let ratio = estimate.nodes().unwrap() / (size as f64 + 1.0);
            assert!((0.8..1.25).contains(&ratio), "{size} nodes: {ratio}");
            let around = estimate.region(20);
            let inside = nearest(&world, &random_key(&mut rng), size);
            let inside = inside.iter().filter(|distance| **distance <= around).count();
            assert!(
                inside <= 45 && inside + 11 >= size.min(20),
                "{size} nodes: {inside} in region"
            );
        }
    }

    #[test]
    fn sybils_around_some_keys_move_nothing() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let world: Vec<_> = (0..2_000).map(|_| random_key(&mut rng)).collect();
        let mut estimate = SizeEstimate::new();
        for _ in 0..20 {
            let target = random_key(&mut rng);
            estimate.observe(&target, &nearest(&world, &target, 20));
        }
        let crowd = vec![Distance::of_fraction(1e-15); 20];
        let crowded = random_key(&mut rng);
        for _ in 0..1_000 {
            estimate.observe(&crowded, &crowd);
        }
        for _ in 0..8 {
            estimate.observe(&random_key(&mut rng), &[Distance::of_fraction(0.0); 20]);
        }
        let nodes = estimate.nodes().unwrap();
        assert!((1_500.0..2_800.0).contains(&nodes), "{nodes}");
    }

    #[test]
    fn two_estimates_are_right_on_average_and_one_crowded_key_moves_them_little() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let world: Vec<_> = (0..1_000).map(|_| random_key(&mut rng)).collect();
        let mut two = || {
            let mut estimate = SizeEstimate::new();
            for count in [8, 20] {
                let target = random_key(&mut rng);
                estimate.observe(&target, &nearest(&world, &target, count));
            }
            estimate.nodes().unwrap()
        };
        let mean = (0..200).map(|_| two().ln()).sum::<f64>() / 200.0;
        assert!((900.0..1_100.0).contains(&mean.exp()), "{}", mean.exp());
        let mut estimate = SizeEstimate::new();
        let target = random_key(&mut rng);
        estimate.observe(&target, &nearest(&world, &target, 20));
        estimate.observe(&random_key(&mut rng), &[Distance::of_fraction(1e-15); 20]);
        assert!(estimate.nodes().unwrap() < 2_000.0);
    }

    #[test]
    fn nothing_is_known_before_the_first_and_old_ones_are_forgotten() {
        let mut estimate = SizeEstimate::new();
        estimate.observe(&Key::topic_secret("a"), &[]);
        assert_eq!((estimate.nodes(), estimate.region(20)), (None, Distance::MAX));
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for share in [0.5, 0.001] {
            for _ in 0..OBSERVATIONS_MAX {
                estimate.observe(&random_key(&mut rng), &[Distance::of_fraction(share); 10]);
            }
        }
        assert_eq!(estimate.observations.len(), OBSERVATIONS_MAX);
        assert!((estimate.nodes().unwrap() - 9_667.7).abs() < 1.0);
    }
}
