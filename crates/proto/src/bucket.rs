//! Budgets over time: a token bucket and a budget per day.
//!
//! Both are exact and deterministic. A bucket counts in millionths of a token, so that a refill
//! is one multiplication of microseconds by tokens per second, with no division and no remainder
//! to lose; in any interval of `t` seconds it grants at most `burst + rate_per_s · t` tokens.
//! Time that runs backwards adds nothing.

use core::time::Duration;

use crate::time::Instant;

/// Parts of a token that a bucket counts in: one per microsecond and token per second.
const PARTS_PER_TOKEN: u64 = 1_000_000;

/// Largest burst of a [`TokenBucket`], in tokens; larger ones are lowered to it.
///
/// What fits 64 bits in millionths: 18 terabytes where a token is a byte.
pub const BURST_MAX: u64 = u64::MAX / PARTS_PER_TOKEN;

/// Length of one window of a [`DayBudget`].
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Grants tokens at a steady rate, and a burst after a pause.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    rate_per_s: u64,
    burst_parts: u64,
    level_parts: u64,
    filled_at: Instant,
}

impl TokenBucket {
    /// Creates a full bucket that gains `rate_per_s` tokens a second and holds up to `burst`.
    ///
    /// `burst` is lowered to [`BURST_MAX`]. With a rate of 0 the burst is all that it ever grants.
    #[must_use]
    pub fn new(rate_per_s: u64, burst: u64) -> Self {
        let burst_parts = burst.min(BURST_MAX) * PARTS_PER_TOKEN;
        Self { rate_per_s, burst_parts, level_parts: burst_parts, filled_at: Instant::default() }
    }

    /// Takes `n` tokens if that many are there; otherwise takes none and returns false.
    #[inline]
    pub fn try_take(&mut self, now: Instant, n: u64) -> bool {
        self.try_take_leaving(now, n, 0)
    }

    /// Takes `n` tokens if `leave` are there besides; otherwise takes none and returns false.
    #[inline]
    pub fn try_take_leaving(&mut self, now: Instant, n: u64, leave: u64) -> bool {
        self.refill(now);
        // A product that saturates exceeds every level, because of BURST_MAX.
        match self.level_parts.checked_sub(n.saturating_mul(PARTS_PER_TOKEN)) {
            Some(rest) if rest >= leave.saturating_mul(PARTS_PER_TOKEN) => {
                self.level_parts = rest;
                true
            }
            _ => false,
        }
    }

    /// Returns the whole tokens that are there at `now`.
    pub fn available(&mut self, now: Instant) -> u64 {
        self.refill(now);
        self.level_parts / PARTS_PER_TOKEN
    }

    #[inline]
    fn refill(&mut self, now: Instant) {
        let elapsed_us = now.as_micros().saturating_sub(self.filled_at.as_micros());
        if elapsed_us > 0 {
            let gained = elapsed_us.saturating_mul(self.rate_per_s);
            self.level_parts = self.level_parts.saturating_add(gained).min(self.burst_parts);
            self.filled_at = now;
        }
    }
}

/// Caps what is used in each window of 24 hours, counted from the first look.
#[derive(Clone, Debug)]
pub struct DayBudget {
    limit: u64,
    used: u64,
    ends: Option<Instant>,
}

impl DayBudget {
    /// Creates a budget of `limit` units a day; 0 grants nothing, `u64::MAX` never binds.
    #[must_use]
    pub const fn new(limit: u64) -> Self {
        Self { limit, used: 0, ends: None }
    }

    /// Tells whether `n` more units fit into the window of `now`.
    #[inline]
    pub fn fits(&mut self, now: Instant, n: u64) -> bool {
        self.roll(now);
        self.used.saturating_add(n) <= self.limit
    }

    /// Counts `n` units as used in the window of the last [`Self::fits`].
    #[inline]
    pub const fn charge(&mut self, n: u64) {
        self.used = self.used.saturating_add(n);
    }

    /// Goes on with a window that has `left` to go, a day at most, and `used` units used.
    pub fn resume(&mut self, now: Instant, used: u64, left: Duration) {
        self.used = used;
        self.ends = Some(now + left.min(DAY));
    }

    /// Returns the units used in the window of `now`.
    #[inline]
    pub fn used(&mut self, now: Instant) -> u64 {
        self.roll(now);
        self.used
    }

    /// Returns when the window of `now` ends.
    #[inline]
    pub fn ends(&mut self, now: Instant) -> Instant {
        self.roll(now)
    }

    #[inline]
    fn roll(&mut self, now: Instant) -> Instant {
        let ends = *self.ends.get_or_insert(now + DAY);
        if now < ends {
            return ends;
        }
        // Windows keep their phase, so that a budget cannot be had twice around one edge.
        let over_us = (now.as_micros() - ends.as_micros()) % DAY_US;
        self.used = 0;
        *self.ends.insert(now + Duration::from_micros(DAY_US - over_us))
    }
}

/// [`DAY`] in microseconds.
const DAY_US: u64 = DAY.as_secs() * 1_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(us: u64) -> Instant {
        Instant::from_micros(us)
    }

    #[test]
    fn starts_full_and_refills_to_the_part() {
        let mut bucket = TokenBucket::new(3, 5);
        assert!(bucket.try_take(at(0), 5));
        assert!(!bucket.try_take(at(333_333), 1));
        assert!(bucket.try_take(at(333_334), 1));
        // Nothing is lost to rounding: the second token is due at 666,666.67 µs.
        assert!(!bucket.try_take(at(666_666), 1));
        assert!(bucket.try_take(at(666_667), 1));
        assert_eq!(bucket.available(at(60_000_000)), 5);
    }

    #[test]
    fn refuses_without_taking() {
        let mut bucket = TokenBucket::new(0, 5);
        assert!(!bucket.try_take(at(9), 6));
        assert!(bucket.try_take(at(9), 5));
        assert!(bucket.try_take(at(9), 0));
        assert!(!bucket.try_take(at(u64::MAX), 1));
    }

    #[test]
    fn extremes_saturate() {
        let mut bucket = TokenBucket::new(u64::MAX, u64::MAX);
        assert!(!bucket.try_take(at(0), u64::MAX));
        assert!(bucket.try_take(at(0), BURST_MAX));
        assert!(bucket.try_take(at(u64::MAX), BURST_MAX));
        let mut empty = TokenBucket::new(u64::MAX, 0);
        assert!(!empty.try_take(at(u64::MAX), 1));
    }

    #[test]
    fn time_running_backwards_adds_nothing() {
        let mut bucket = TokenBucket::new(1, 1);
        assert!(bucket.try_take(at(5_000_000), 1));
        assert!(!bucket.try_take(at(1_000_000), 1));
        assert!(!bucket.try_take(at(5_999_999), 1));
        assert!(bucket.try_take(at(6_000_000), 1));
    }

    #[test]
    fn day_starts_with_the_first_use_and_keeps_its_phase() {
        let mut day = DayBudget::new(100);
        let first = 7_000_000;
        assert!(day.fits(at(first), 100));
        day.charge(100);
        assert!(!day.fits(at(first + DAY_US - 1), 1));
        assert!(day.fits(at(first + DAY_US), 100));
        day.charge(60);
        // Two idle days later the window still starts at the same time of day.
        let third = first + 3 * DAY_US;
        assert!(day.fits(at(third + DAY_US - 1), 100));
        day.charge(100);
        assert!(!day.fits(at(third + DAY_US - 1), 1));
        assert!(day.fits(at(third + DAY_US), 1));
    }

    #[test]
    fn a_day_goes_on_where_an_earlier_run_left_it() {
        let mut day = DayBudget::new(100);
        assert_eq!((day.used(at(5)), day.ends(at(5))), (0, at(5 + DAY_US)));
        day.resume(at(5), 70, Duration::from_secs(1));
        assert!(day.fits(at(1_000_004), 30) && !day.fits(at(1_000_004), 31));
        assert!(day.fits(at(1_000_005), 100));
        assert_eq!(day.ends(at(1_000_005)), at(1_000_005 + DAY_US));
        day.resume(at(0), 100, DAY * 2);
        assert!(!day.fits(at(DAY_US - 1), 1) && day.fits(at(DAY_US), 1));
    }

    #[test]
    fn day_limits_at_the_extremes() {
        let mut none = DayBudget::new(0);
        assert!(none.fits(at(0), 0) && !none.fits(at(0), 1));
        let mut all = DayBudget::new(u64::MAX);
        assert!(all.fits(at(0), u64::MAX));
        all.charge(u64::MAX);
        assert!(all.fits(at(0), 1));
    }

    proptest! {
        /// No interval of a sequence of requests gets more than burst + rate · time.
        #[test]
        fn every_interval_keeps_the_bound(
            rate in 0u64..2_000,
            burst in 0u64..2_000,
            asks in prop::collection::vec((0u64..400_000, 0u64..700), 1..40),
        ) {
            let mut bucket = TokenBucket::new(rate, burst);
            let mut now = 0;
            let mut granted = Vec::new();
            for (pause, n) in asks {
                now += pause;
                if bucket.try_take(at(now), n) {
                    granted.push((now, n));
                }
            }
            for (i, &(from, _)) in granted.iter().enumerate() {
                let mut sum = 0;
                for &(to, n) in &granted[i..] {
                    sum += n;
                    prop_assert!(sum * 1_000_000 <= burst * 1_000_000 + rate * (to - from));
                }
            }
        }
    }
}
