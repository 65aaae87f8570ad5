//! What an owner lets a node serve others: bytes a second, and bytes a day, over all that it does.
//!
//! Relayed frames are by far the most of it, answers of the index and signalling the most useful:
//! whoever fills the rate with frames must not silence the rest. So frames leave the last
//! [`ANSWERS_BYTES`] of the rate's burst to answers, which take it whole.
//!
//! What counts is what serves others on their demand ([`serves`]), with what each message costs
//! besides itself ([`answer_cost`]). What cannot be granted is not sent, and whoever asked turns to
//! somebody else; so that they do in time, seats say how full they are ([`Allowance::load`]).
//!
//! The day goes on when the node restarts. Who keeps its count on disk says so by a [`Lease`]: no
//! more is granted than what the disk has as used, whichever way the process may end.
//!
//! Invariant: in any interval of `t` seconds at most `burst + ANSWERS_BYTES + rate · t` bytes are
//! granted, in each day at most the day's bytes, and what is refused costs nothing.

use core::time::Duration;

use crate::bucket::{DayBudget, TokenBucket};
use crate::time::Instant;
use crate::wire::node::{RefusalReason, Refused};
use crate::wire::{IndexMessage, MESSAGE_LEN_MAX, NodeMessage, RoleMessage};

/// Bytes of the rate's burst that only answers may take: four of the longest.
pub const ANSWERS_BYTES: u64 = 16 * 1024;

/// Bytes that a message costs besides itself: headers of QUIC, UDP and IP, and what acknowledges
/// it.
const OVERHEAD_LEN: u64 = 96;

/// The shortest time over which the load is a mean: long enough for bursts to even out, short
/// enough for the next to choose a seat to know.
const LOAD_MIN: Duration = Duration::from_secs(10);

/// What an answer of so many encoded bytes takes of the allowance.
#[must_use]
pub const fn answer_cost(len: usize) -> u64 {
    len as u64 + OVERHEAD_LEN
}

/// Whether a message serves whoever gets it, on their demand: what is refused, acknowledged or
/// wanted by ourselves does not.
#[must_use]
pub const fn serves(message: &NodeMessage) -> bool {
    match message {
        NodeMessage::Reserved(_)
        | NodeMessage::RelayOpened(_)
        | NodeMessage::RelayIncoming(_)
        | NodeMessage::Index(IndexMessage::Found(_))
        | NodeMessage::Role(
            RoleMessage::Seats(_) | RoleMessage::Present(_) | RoleMessage::Echoed(_),
        ) => true,
        NodeMessage::Hello(_)
        | NodeMessage::Reserve(_)
        | NodeMessage::RelayOpen(_)
        | NodeMessage::Refused(_)
        | NodeMessage::RelayRenew(_)
        | NodeMessage::RelayClosed(_)
        | NodeMessage::Homes(_)
        | NodeMessage::Release(_)
        | NodeMessage::Retired(_)
        | NodeMessage::Need(_)
        | NodeMessage::Index(
            IndexMessage::Find(_)
            | IndexMessage::Store(_)
            | IndexMessage::Stored(_)
            | IndexMessage::Offer(_)
            | IndexMessage::Lacking(_),
        )
        | NodeMessage::Role(_) => false,
    }
}

/// What is said in the place of an answer that the allowance has no bytes left for: who waits for a
/// channel would wait for the link's life, who waits for a reservation for half a minute.
#[must_use]
pub const fn refusal(message: &NodeMessage) -> Option<NodeMessage> {
    let request = match message {
        NodeMessage::RelayOpened(opened) => Some(opened.request),
        NodeMessage::Reserved(_) => None,
        _ => return None,
    };
    Some(NodeMessage::Refused(Refused { request, reason: RefusalReason::Budget }))
}

/// What is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// The rate, for a moment.
    Rate,
    /// The bytes of the day.
    Day,
}

/// What a day may be used up to, as long as it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Bytes of the day, those used before included.
    pub bytes: u64,
    /// When the day ends.
    pub ends: Instant,
}

/// What may be served. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Allowance {
    rate_bytes_per_s: u64,
    is_on: bool,
    rate: TokenBucket,
    day: DayBudget,
    /// `None`: nobody keeps the count.
    lease: Option<Lease>,
    load: Load,
}

/// How much of the rate is in use.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    /// Since when the mean is to be that counts next, and what was taken since.
    since: Instant,
    taken: u64,
    last: u8,
}

impl Allowance {
    /// Grants `rate_bytes_per_s` after a burst of `burst_bytes`, and `bytes_per_day` (`u64::MAX`:
    /// without limit) in each 24 hours. A rate or a day of 0 grants nothing.
    #[must_use]
    pub fn new(rate_bytes_per_s: u64, burst_bytes: u64, bytes_per_day: u64) -> Self {
        let burst = burst_bytes.saturating_add(ANSWERS_BYTES);
        Self {
            rate_bytes_per_s,
            is_on: rate_bytes_per_s > 0 && bytes_per_day > 0,
            rate: TokenBucket::new(rate_bytes_per_s, burst),
            day: DayBudget::new(bytes_per_day),
            lease: None,
            load: Load::default(),
        }
    }

    /// Whether the owner lets anything be served.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.is_on
    }

    /// Takes what relayed frames cost.
    ///
    /// # Errors
    ///
    /// What is used up; nothing was taken.
    #[inline]
    pub fn take_for_frames(&mut self, now: Instant, bytes: u64) -> Result<(), Spent> {
        self.take(now, bytes, ANSWERS_BYTES)
    }

    /// Takes what an answer costs, of the index or of a signaller.
    ///
    /// # Errors
    ///
    /// What is used up; nothing was taken.
    pub fn take_for_answer(&mut self, now: Instant, bytes: u64) -> Result<(), Spent> {
        self.take(now, bytes, 0)
    }

    #[inline]
    fn take(&mut self, now: Instant, bytes: u64, leave: u64) -> Result<(), Spent> {
        // The day first: it is only asked, so that a refusal by either takes nothing.
        if !self.is_on || !self.day.fits(now, bytes) || !self.is_leased(now, bytes) {
            return Err(Spent::Day);
        }
        if !self.rate.try_take_leaving(now, bytes, leave) {
            return Err(Spent::Rate);
        }
        self.day.charge(bytes);
        self.load.taken = self.load.taken.saturating_add(bytes);
        Ok(())
    }

    #[inline]
    fn is_leased(&mut self, now: Instant, bytes: u64) -> bool {
        let Some(lease) = self.lease else { return true };
        let used = self.day.used(now).saturating_add(bytes);
        used <= lease.bytes && lease.ends == self.day.ends(now)
    }

    /// From this moment on only so much is granted, and nothing of another day.
    pub fn lease(&mut self, lease: Lease) {
        self.lease = Some(lease);
    }

    /// An earlier run has used so much of a day of which so much is left.
    pub fn resume(&mut self, now: Instant, used: u64, left: Duration) {
        self.day.resume(now, used, left);
    }

    /// How much of the rate is in use, from 0 for nothing to 255 for all of it: the mean of the
    /// time since it was worked out last, which is ten seconds ago at least.
    pub fn load(&mut self, now: Instant) -> u8 {
        let Load { since, taken, .. } = self.load;
        let time = now - since;
        if time >= LOAD_MIN {
            let all = u128::from(self.rate_bytes_per_s) * time.as_micros();
            let share = u128::from(taken) * 1_000_000 * 256 / all.max(1);
            let last = u8::try_from(share).unwrap_or(u8::MAX);
            self.load = Load { since: now, taken: 0, last };
        }
        self.load.last
    }

    /// Whether what is left of the day serves nobody: it might not be enough for the next answer.
    pub fn is_day_used(&mut self, now: Instant) -> bool {
        !self.day.fits(now, MESSAGE_LEN_MAX as u64)
    }

    /// Bytes used of the day, and when that ends.
    pub fn today(&mut self, now: Instant) -> (u64, Instant) {
        (self.day.used(now), self.day.ends(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    #[test]
    fn frames_never_silence_answers() {
        let mut allowance = Allowance::new(1_000, 100_000, u64::MAX);
        assert_eq!(allowance.take_for_frames(at(1), 100_000), Ok(()));
        for s in 1..100 {
            while allowance.take_for_frames(at(s), 100).is_ok() {}
            assert_eq!(allowance.take_for_frames(at(s), 100), Err(Spent::Rate));
            assert_eq!(allowance.take_for_answer(at(s), 100), Ok(()), "after {s} s");
        }
        assert_eq!(allowance.take_for_answer(at(100), ANSWERS_BYTES + 1_001), Err(Spent::Rate));
    }

    #[test]
    fn the_load_is_a_mean_of_what_is_in_use() {
        let mut allowance = Allowance::new(1_000, 100_000, u64::MAX);
        assert_eq!(allowance.load(at(10)), 0);
        assert_eq!(allowance.take_for_answer(at(11), 2_500), Ok(()));
        assert_eq!(allowance.load(at(19)), 0, "too soon to say");
        assert_eq!(allowance.take_for_frames(at(19), 2_500), Ok(()));
        assert_eq!(allowance.load(at(20)), 128);
        assert_eq!(allowance.take_for_answer(at(21), 20_000), Ok(()));
        assert_eq!((allowance.load(at(40)), allowance.load(at(60))), (255, 0));
    }

    #[test]
    fn a_day_is_used_when_the_next_answer_might_not_fit() {
        let day = 3 * MESSAGE_LEN_MAX as u64;
        let mut allowance = Allowance::new(day, day, day);
        assert!(!allowance.is_day_used(at(1)));
        assert_eq!(allowance.take_for_frames(at(1), day - MESSAGE_LEN_MAX as u64 + 1), Ok(()));
        assert!(allowance.is_day_used(at(1)));
        let (_, ends) = allowance.today(at(1));
        assert!(!allowance.is_day_used(ends));
    }

    #[test]
    fn a_day_is_one_over_all_and_over_restarts() {
        let mut allowance = Allowance::new(1_000_000, 10_000, 1_000);
        allowance.resume(at(0), 400, Duration::from_secs(60));
        assert_eq!(allowance.take_for_answer(at(1), 500), Ok(()));
        assert_eq!(allowance.take_for_frames(at(2), 101), Err(Spent::Day));
        assert_eq!(allowance.today(at(2)), (900, at(60)));
        assert_eq!(allowance.take_for_frames(at(60), 1_000), Ok(()));
        assert_eq!(allowance.take_for_answer(at(61), 1), Err(Spent::Day));
    }

    #[test]
    fn nothing_is_granted_beyond_the_lease_nor_in_a_day_without_one() {
        let mut allowance = Allowance::new(1_000_000, 0, 1_000);
        let (_, ends) = allowance.today(at(1));
        allowance.lease(Lease { bytes: 300, ends });
        assert_eq!(allowance.take_for_answer(at(1), 300), Ok(()));
        assert_eq!(allowance.take_for_answer(at(2), 1), Err(Spent::Day));
        allowance.lease(Lease { bytes: 2_000, ends });
        assert_eq!(allowance.take_for_answer(at(3), 700), Ok(()));
        assert_eq!(allowance.take_for_answer(at(4), 1), Err(Spent::Day), "the day is the limit");
        assert_eq!(allowance.take_for_answer(ends, 1), Err(Spent::Day), "another day");
        let next = ends;
        let (used, ends) = allowance.today(next);
        allowance.lease(Lease { bytes: 1, ends });
        assert_eq!((used, allowance.take_for_answer(next, 1)), (0, Ok(())));
    }

    #[test]
    fn an_owner_who_lends_nothing_serves_nothing() {
        for (rate, day) in [(0, u64::MAX), (1_000, 0)] {
            let mut allowance = Allowance::new(rate, 1_000, day);
            assert!(!allowance.is_on());
            assert_eq!(allowance.take_for_answer(at(1), 1), Err(Spent::Day));
        }
    }
}
