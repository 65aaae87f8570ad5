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
//! A node that comes back with a full table makes few look-ups of its own, so peers tell each other
//! what their own observations say (Hello), and these count in the median as well. Nodes whose
//! estimates differ by much do not believe each other's mandates ([`crate::role`]).
//!
//! Whoever looks up a key that Sybils crowd is linked to all of them afterwards, and they say what
//! they like. The key space is therefore cut into slices, and of each slice only the peer counts
//! that spoke last: who crowds one key has one voice.
//!
//! Invariants: at most [`OBSERVATIONS_MAX`] and [`HEARD_MAX`] estimates are kept; the answer is
//! finite.

use crate::id::NodeId;
use crate::key::{Distance, Key};

/// Estimates that the median is of. Each is off by a fifth or so (1/√20); the median of 32 by a
/// twentieth.
pub const OBSERVATIONS_MAX: usize = 32;

/// By how much a true estimate is above the lower one of two, on average: 0.56 deviations (the mean
/// of the least of two normal draws), which are 0.3 for eight to twenty nodes.
const LOWER_OF_TWO: f64 = 1.18;

/// Slices of the key space, in bits: a node's twenty links are of a dozen of them.
const SLICE_BITS: u32 = 5;

/// Estimates of others that are remembered, one of each slice.
pub const HEARD_MAX: usize = 1 << SLICE_BITS;

/// An estimate of the number of nodes.
#[derive(Debug, Clone, Default)]
pub struct SizeEstimate {
    /// Our own, by the first bytes of the key.
    observations: Ring<OBSERVATIONS_MAX>,
    /// Those of peers, by the slices that they are of.
    heard: Ring<HEARD_MAX>,
    /// What follows from both.
    nodes: Option<f64>,
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
        self.observations.put(target.head(), nodes);
        self.settle();
    }

    /// Takes in what a peer's own observations say; 0 says nothing.
    pub fn hear(&mut self, peer: NodeId, nodes: u32) {
        if nodes > 0 {
            let slice = Key::of_node(peer).head() >> (u64::BITS - SLICE_BITS);
            self.heard.put(slice, nodes.into());
            self.settle();
        }
    }

    /// What our own observations say, for others: never what they say themselves. 0 is nothing.
    #[must_use]
    pub fn own(&self) -> u32 {
        let own = middle(self.observations.values().collect());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
        own.map_or(0, |nodes| nodes.clamp(1.0, u32::MAX.into()) as u32)
    }

    /// The number of nodes, this one included; `None` before the first observation.
    #[must_use]
    pub fn nodes(&self) -> Option<f64> {
        self.nodes
    }

    fn settle(&mut self) {
        self.nodes = middle(self.observations.values().chain(self.heard.values()).collect());
    }

    /// The radius around a key within which `replicas` nodes are expected. It is the whole space,
    /// [`Distance::MAX`], before the first observation and where there are not so many nodes.
    #[must_use]
    pub fn region(&self, replicas: usize) -> Distance {
        self.nodes().map_or(Distance::MAX, |nodes| Distance::of_fraction(replicas as f64 / nodes))
    }
}

/// The newest estimates, one of each name, the oldest first.
#[derive(Debug, Clone, Default)]
struct Ring<const MAX: usize>(Vec<(u64, f32)>);

impl<const MAX: usize> Ring<MAX> {
    fn put(&mut self, name: u64, nodes: f64) {
        self.0.retain(|(other, _)| *other != name);
        if self.0.len() == MAX {
            self.0.remove(0);
        }
        self.0.reserve_exact(1);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "seven digits are more than it is worth"
        )]
        self.0.push((name, nodes as f32));
    }

    fn values(&self) -> impl Iterator<Item = f32> {
        self.0.iter().map(|(_, nodes)| *nodes)
    }
}

/// What several estimates say together.
fn middle(mut estimates: Vec<f32>) -> Option<f64> {
    estimates.sort_unstable_by(f32::total_cmp);
    match estimates[..] {
        [] => None,
        [lower, _] => Some(f64::from(lower) * LOWER_OF_TWO),
        _ => {
            let (left, right) =
                (estimates[(estimates.len() - 1) / 2], estimates[estimates.len() / 2]);
            Some((f64::from(left) * f64::from(right)).sqrt())
        }
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
    fn who_observed_little_takes_the_median_of_its_peers() {
        let mut estimate = SizeEstimate::new();
        estimate.observe(&Key::topic_secret("a"), &[Distance::of_fraction(1e-6); 4]);
        let own = estimate.own();
        assert!(own > 1_000_000);
        for n in 0..40u8 {
            // A third of them lie.
            let said = if n % 3 == 0 { u32::MAX } else { 900 + 10 * u32::from(n) };
            estimate.hear(NodeId::from_bytes([n; 32]), said);
            estimate.hear(NodeId::from_bytes([n; 32]), 0);
        }
        assert!((1_000.0..1_300.0).contains(&estimate.nodes().unwrap()), "{estimate:?}");
        assert_eq!(estimate.own(), own);
        assert!((16..=HEARD_MAX).contains(&estimate.heard.0.len()), "{estimate:?}");
    }

    #[test]
    fn those_who_crowd_one_key_have_one_voice() {
        let slice = |n: u16| {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&n.to_be_bytes());
            let id = NodeId::from_bytes(id);
            (Key::of_node(id).head() >> (u64::BITS - SLICE_BITS), id)
        };
        let (crowd, others): (Vec<_>, Vec<_>) =
            (0..3_000).map(slice).partition(|(slice, _)| *slice == 7);
        let mut estimate = SizeEstimate::new();
        others.iter().take(8).for_each(|(_, honest)| estimate.hear(*honest, 2_000));
        assert!(crowd.len() >= 45);
        crowd.iter().for_each(|(_, sybil)| estimate.hear(*sybil, 400_000));
        assert!((1_999.0..2_001.0).contains(&estimate.nodes().unwrap()), "{estimate:?}");
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
        assert_eq!(estimate.observations.0.len(), OBSERVATIONS_MAX);
        assert!((estimate.nodes().unwrap() - 9_667.7).abs() < 1.0);
    }
}
