//! The time as the state machines see it.
//!
//! A state machine never asks for the time: it is told. [`Instant`] therefore has no `now()`; the
//! driver counts from whatever moment it likes (usually its own start) and the simulator from
//! zero. Both give the same run for the same list of `(Instant, input)`.
//!
//! Invariants: arithmetic saturates and never panics, so a hostile duration read from a message
//! cannot stop a node. Resolution is one microsecond; what is finer is cut off.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};
use core::time::Duration;

/// A moment, in microseconds since an origin that the driver chose.
///
/// Instants of different drivers must not be compared: they share no origin.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The moment `micros` microseconds after the origin.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the origin.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Moves later by `rhs`; stops at the last representable moment.
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(micros_of(rhs)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// The time from `rhs` to `self`; zero if `rhs` is the later one.
    fn sub(self, rhs: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(rhs.0))
    }
}

/// A moment of the calendar: seconds since 1970 (POSIX). What the machine's clock says may be
/// wrong, so it is used only for what other machines must understand: the expiry of records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The moment so many seconds after 1970.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs)
    }

    /// Seconds since 1970.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0
    }
}

impl Add<Duration> for UnixTime {
    type Output = Self;

    /// Moves later by the whole seconds of `rhs`; stops at the last representable moment.
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(rhs.as_secs()))
    }
}

impl Sub for UnixTime {
    type Output = Duration;

    /// The time from `rhs` to `self`; zero if `rhs` is the later one.
    fn sub(self, rhs: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(rhs.0))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// Whole microseconds of a duration, as many as 64 bits hold.
fn micros_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let last = Instant::from_micros(u64::MAX);
        assert_eq!(last + Duration::from_micros(1), last);
        assert_eq!(Instant::ZERO + Duration::MAX, last);
        assert_eq!(Instant::ZERO - last, Duration::ZERO);
        assert_eq!(last - Instant::ZERO, Duration::from_micros(u64::MAX));
    }

    #[test]
    fn addition_and_subtraction_agree() {
        let start = Instant::from_micros(1_500_000);
        let mut later = start;
        later += Duration::from_millis(20);
        assert_eq!(later - start, Duration::from_millis(20));
        assert!(later > start);
        assert_eq!(format!("{later:?}"), "1.520000s");
    }

    #[test]
    fn below_a_microsecond_is_cut_off() {
        assert_eq!(Instant::ZERO + Duration::from_nanos(1_999), Instant::from_micros(1));
    }
}
