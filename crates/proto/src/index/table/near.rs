//! The entries nearest to a key, and which of them to name.

use rand_core::Rng;

use super::{Entry, is_set};
use crate::key::Key;

/// Runs that are sorted and not split further.
pub(super) const RUN_SORTED: usize = 8;

/// Collects the entries of `run`, which all share some leading bits, by their distance to `target`
/// until there are `n` or a few more.
pub(super) fn walk<'a>(
    run: &'a [Entry],
    target: &Key,
    n: usize,
    passes: &impl Fn(&Entry) -> bool,
    found: &mut Vec<&'a Entry>,
) {
    if found.len() >= n {
        return;
    }
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return };
    if run.len() <= RUN_SORTED {
        let before = found.len();
        found.extend(run.iter().filter(|entry| passes(entry)));
        found[before..].sort_unstable_by_key(|entry| entry.key.distance(target));
        return;
    }
    // The first bit in which any of them differ, as they are sorted: neither side is empty.
    let bit = first.key.common_bits(&last.key);
    let (zeros, ones) = run.split_at(run.partition_point(|entry| !is_set(&entry.key, bit)));
    let (near, far) = if is_set(target, bit) { (ones, zeros) } else { (zeros, ones) };
    walk(near, target, n, passes, found);
    walk(far, target, n, passes, found);
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
fn draw<T: Copy>(items: &[T], mut n: usize, rng: &mut impl Rng) -> Vec<T> {
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
