//! The entries nearest to a key, and which of them to name.

use core::ops::Range;

use rand_core::Rng;

/// Runs that are sorted and not split further.
const RUN_SORTED: usize = 8;

/// A search for the keys nearest to a target, by their first 64 bits.
pub(super) struct Walk<'a, P> {
    /// Of all keys, in ascending order.
    pub(super) heads: &'a [u64],
    /// Of the target.
    pub(super) target: u64,
    /// How many are wanted.
    pub(super) n: usize,
    /// Whether a key, by its place in the list, is to be found.
    pub(super) passes: P,
}

impl<P: Fn(usize) -> bool> Walk<'_, P> {
    /// The places of the keys, nearest first.
    pub(super) fn nearest(&self) -> Vec<usize> {
        let mut found = Vec::with_capacity(self.n.min(self.heads.len()) + RUN_SORTED);
        self.walk(0..self.heads.len(), &mut found);
        found.truncate(self.n);
        found
    }

    /// Collects the keys of `run`, which all share some leading bits, until there are `n` or a few
    /// more.
    fn walk(&self, run: Range<usize>, found: &mut Vec<usize>) {
        if found.len() >= self.n || run.is_empty() {
            return;
        }
        let heads = &self.heads[run.clone()];
        let differing = heads[0] ^ heads[heads.len() - 1];
        if run.len() <= RUN_SORTED || differing == 0 {
            let before = found.len();
            found.extend(run.filter(|at| (self.passes)(*at)));
            found[before..].sort_unstable_by_key(|at| self.heads[*at] ^ self.target);
            return;
        }
        // The first bit in which any of them differ, as they are sorted: neither side is empty.
        let bit = 1 << differing.ilog2();
        let middle = run.start + heads.partition_point(|head| head & bit == 0);
        let (zeros, ones) = (run.start..middle, middle..run.end);
        let (near, far) = if self.target & bit == 0 { (zeros, ones) } else { (ones, zeros) };
        self.walk(near, found);
        self.walk(far, found);
    }
}

/// Of `near`, which are nearest first, up to `n` to name to somebody who looks for the key, nearest
/// first.
///
/// Half of them are the nearest, for the asker to come nearer; the others are drawn, a quarter from
/// the rest of the first `k` and a quarter from those behind, for the asker to learn of all who are
/// around the key. If everybody named the nearest only, nobody would name those at the edge of a
/// region; and if Sybils are the nearest, nobody honest.
#[must_use]
pub fn spread<T: Copy>(near: &[T], n: usize, k: usize, rng: &mut impl Rng) -> Vec<T> {
    let (nearest, rest) = near.split_at(n.div_ceil(2).min(near.len()));
    let (inner, outer) = rest.split_at(k.saturating_sub(nearest.len()).min(rest.len()));
    let from_outer = (n / 4).min(outer.len());
    let from_inner = (n - nearest.len()).saturating_sub(from_outer);
    let mut chosen = nearest.to_vec();
    chosen.extend(draw(inner, from_inner, rng));
    chosen.extend(draw(outer, from_outer, rng));
    chosen
}

/// Draws `n` of some items, in their order (Knuth, *The Art of Computer Programming* 2, 3.4.2,
/// algorithm S).
pub(crate) fn draw<T: Copy>(items: &[T], mut n: usize, rng: &mut impl Rng) -> Vec<T> {
    let mut drawn = Vec::with_capacity(n.min(items.len()));
    for (index, item) in items.iter().enumerate() {
        let left = (items.len() - index) as u64;
        if rng.next_u64() % left < n as u64 {
            drawn.push(*item);
            n -= 1;
        }
    }
    drawn
}
