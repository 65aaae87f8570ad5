//! What the capacity of a seat counts for: how often it is elected, how many it serves.
//!
//! Capacities are powers of two of bytes a second within the owner's limit, as mandates say them.
//! How many nodes a seat is to serve follows its capacity; whether it is elected does so little, or
//! those with fast lines, which an attacker can rent, had most seats.

/// Least that a seat is credited with: a sixteenth of half a megabit a second.
const CREDITED_MIN: u8 = 12;

/// Most that one is credited with: a megabit. Nobody is to depend on a few fast ones.
const CREDITED_MAX: u8 = 17;

/// Who lends so much is elected as often as anybody, and half as often who lends less: a region is
/// too much for it. With weights from 1/16 to 2 a fifth of all nodes, with lines that an attacker
/// can rent, had nearly half of the seats in the simulator.
const ELECTED: u8 = 13;

/// Steps of load in which what a seat serves doubles: loads differ by ratios, in networks of any
/// size.
pub(super) const OCTAVE: u8 = 16;

/// Load that is told as long as the owner's limit is not reached.
const LOAD_MAX: u8 = u8::MAX - 1;

/// What a seat is credited with, as a power of two of bytes a second.
#[must_use]
pub fn credited_log2(capacity_log2: u8) -> u8 {
    capacity_log2.clamp(CREDITED_MIN, CREDITED_MAX)
}

/// The same in bytes a second.
#[must_use]
pub fn credited_bytes_per_s(capacity_log2: u8) -> u64 {
    1 << credited_log2(capacity_log2)
}

/// How often it is elected, where 1 is as often as most.
pub(super) fn weight(capacity_log2: u8) -> f64 {
    if capacity_log2 < ELECTED { 0.5 } else { 1.0 }
}

/// The load of a seat that serves so many nodes: [`OCTAVE`] times the binary logarithm of one more
/// than would be as much for the largest capacity, drawn straight between powers of two. Below
/// 255,
/// which says that the owner's limit is reached.
pub(super) fn load(guests: usize, capacity_log2: u8) -> u8 {
    let scaled = (guests as u64).saturating_mul(1 << (CREDITED_MAX - credited_log2(capacity_log2)));
    let scaled = scaled.saturating_add(1);
    let octave = u64::from(OCTAVE);
    let part = (u128::from(scaled) * u128::from(octave)) >> scaled.ilog2();
    let load = u64::from(scaled.ilog2()) * octave + u64::try_from(part).unwrap_or(0) - octave;
    u8::try_from(load).unwrap_or(u8::MAX).min(LOAD_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_counts_between_bounds() {
        let credited = [0, 12, 15, 17, 30, 255].map(credited_log2);
        assert_eq!(credited, [12, 12, 15, 17, 17, 17]);
        assert_eq!([0, 12, 13, 17, 255].map(weight), [0.5, 0.5, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn loads_compare_across_capacities() {
        assert_eq!((load(0, 17), load(16, 12), load(512, 17)), (0, 144, 144));
        assert_eq!((load(128, 14), load(256, 14), load(384, 14)), (160, 176, 184));
        assert_eq!(load(usize::MAX, 12), 254);
    }
}
