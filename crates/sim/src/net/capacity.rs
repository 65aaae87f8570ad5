//! What a host can give to others, what its owner lends of that, and what it gives.
//!
//! A host answers handshakes and requests one after another, as fast as its uplink carries the
//! answers. What comes while much is waiting comes too late for whoever asked: it is lost. That is
//! all there is of congestion, and what floods of log-ins break (Skype, August 2007).
//!
//! Uplinks are log-normal with a median of 1 Mbit/s, and a tenth of them has 20 Mbit/s or more: an
//! assumption, in the shape that all surveys of access lines have (Sundaresan et al., *Broadband
//! Internet Performance*, SIGCOMM 2011).

use core::time::Duration;

use baran_proto::allowance::{ANSWERS_BYTES, Allowance, answer_cost};
use baran_proto::bucket::DAY;
use baran_proto::forward::BATCH_BYTES_MAX;
use baran_proto::time::Instant;
use baran_proto::wire::{IndexMessage, NodeMessage};

use crate::draw::Draw;

/// Median of uplinks.
const MEDIAN_BYTES_PER_S: f64 = 125_000.0;

/// Deviation of the logarithm: ln 20 by the quantile of a tenth.
const SIGMA: f64 = 2.337;

/// Slowest and fastest uplinks: 128 kbit/s and 1 Gbit/s.
const BYTES_PER_S: (f64, f64) = (16_000.0, 125_000_000.0);

/// Of an uplink, owners lend this part.
const LENT: u64 = 4;

/// Of what that makes in a day, owners lend this part.
const DAY_PART: u64 = 4;

/// Most that a host is credited with in a second, of what its owner lends: 1 Mbit/s. Who lends more
/// is not elected more often and asked for no more, for a region needs no more of one seat.
const CREDITED_MAX: u64 = 1 << 17;

/// Pause between looks at how full the allowance is.
const TELL: Duration = Duration::from_secs(10);

/// What a server sends in a handshake, probes of the path's MTU included.
pub const HANDSHAKE: u32 = 7_390;

/// What is sent for a request: an answer that names contacts, in its packet.
const ANSWER: u32 = 1_400;

/// What would be answered later than this is lost: nobody waits for it.
const WAIT_MAX: Duration = Duration::from_secs(4);

/// Bytes a second of a host's uplink.
#[must_use]
pub fn draw(draw: &mut Draw) -> u64 {
    let bytes = draw.log_normal(MEDIAN_BYTES_PER_S, SIGMA);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
    let bytes = bytes.clamp(BYTES_PER_S.0, BYTES_PER_S.1) as u64;
    bytes
}

/// What the receiver of a message has to send for it.
#[must_use]
pub fn work_of(message: &NodeMessage) -> u32 {
    match message {
        NodeMessage::Reserve(_)
        | NodeMessage::RelayOpen(_)
        | NodeMessage::Index(
            IndexMessage::Find(_) | IndexMessage::Store(_) | IndexMessage::Offer(_),
        ) => ANSWER,
        _ => 0,
    }
}

/// What was given minute by minute.
#[derive(Debug, Clone, Copy, Default)]
struct Minutes {
    /// The minute that counts, what was given in it, and in the one before.
    minute: u64,
    given: [u64; 2],
    /// Given since the world began.
    total: u64,
    /// Of that, above what a minute may have.
    over: u64,
}

impl Minutes {
    fn count(&mut self, at: Instant, bytes: u64, most: u64) {
        self.turn(at, most);
        self.given[0] += bytes;
        self.total += bytes;
    }

    /// Turns to the minute of `at`, if that is a later one.
    fn turn(&mut self, at: Instant, most: u64) {
        let minute = (at - Instant::ZERO).as_secs() / 60;
        if minute <= self.minute {
            return;
        }
        self.over = self.over(most);
        let is_next = minute == self.minute + 1;
        self.given = [0, if is_next { self.given[0] } else { 0 }];
        self.minute = minute;
    }

    fn over(&self, most: u64) -> u64 {
        self.over + self.given[0].saturating_sub(most)
    }
}

/// A host's service to others.
#[derive(Debug, Clone)]
pub struct Service {
    /// Bytes a second that its uplink carries.
    pub capacity: u64,
    /// When everything is answered that has come.
    busy_until: Instant,
    /// All that its uplink carries for others.
    carried: Minutes,
    /// Messages that serve others, as its owner's limit counts them.
    served: Minutes,
    /// What its owner allows, if its node keeps to that.
    allowance: Option<Allowance>,
    /// When its node was last told how much of that is left.
    told: Instant,
}

impl Service {
    /// Of a host with such an uplink that has given nothing; with `is_bound` its node gives no more
    /// than its owner allows.
    #[must_use]
    pub fn new(capacity: u64, is_bound: bool) -> Self {
        let rate = capacity / LENT;
        let day = rate * DAY.as_secs() / DAY_PART;
        Self {
            capacity,
            busy_until: Instant::ZERO,
            carried: Minutes::default(),
            served: Minutes::default(),
            allowance: is_bound.then(|| Allowance::new(rate, burst(rate), day)),
            told: Instant::ZERO,
        }
    }

    /// Bytes a second that the owner lends.
    #[must_use]
    pub fn lent(&self) -> u64 {
        self.capacity / LENT
    }

    /// Bytes a second that it is credited with: what its load is measured by.
    #[must_use]
    pub fn credited(&self) -> u64 {
        self.lent().min(CREDITED_MAX)
    }

    /// Something comes at `at` that `bytes` have to be sent for: how long it waits, if it is not
    /// lost.
    pub fn take(&mut self, at: Instant, bytes: u32) -> Option<Duration> {
        let wait = self.busy_until - at;
        if wait > WAIT_MAX {
            return None;
        }
        self.carry(at, bytes);
        let time = Duration::from_micros(u64::from(bytes) * 1_000_000 / self.capacity);
        self.busy_until = at + wait + time;
        Some(wait)
    }

    /// Counts what the uplink carries.
    pub fn carry(&mut self, at: Instant, bytes: u32) {
        let most = 60 * self.lent();
        self.carried.count(at, bytes.into(), most);
    }

    /// Whether more was carried in the last whole minute, or in this one, than the owner lends.
    pub fn is_overloaded(&mut self, now: Instant) -> bool {
        let most = 60 * self.lent();
        self.carried.turn(now, most);
        self.carried.given.iter().any(|given| *given > most)
    }

    /// Whether a message of so many bytes that serves others may go out. It is counted if so.
    pub fn answer(&mut self, now: Instant, len: usize) -> bool {
        let (bytes, most) = (answer_cost(len), self.served_max());
        let is_granted = self
            .allowance
            .as_mut()
            .is_none_or(|allowance| allowance.take_for_answer(now, bytes).is_ok());
        if is_granted {
            self.served.count(now, bytes, most);
        }
        is_granted
    }

    /// Bytes of messages that served others.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.served.total
    }

    /// Of these, above the owner's limit in their minute.
    #[must_use]
    pub fn over(&self) -> u64 {
        self.served.over(self.served_max())
    }

    /// Most of them that a minute may have: what the owner lends, and a burst.
    fn served_max(&self) -> u64 {
        60 * self.lent() + burst(self.lent()) + ANSWERS_BYTES
    }

    /// If it is time for its node to be told: how much of the allowance is in use, and whether the
    /// day's is used up.
    pub fn news(&mut self, now: Instant) -> Option<(u8, bool)> {
        let allowance = self.allowance.as_mut().filter(|_| now - self.told >= TELL)?;
        self.told = now;
        Some((allowance.load(now), allowance.is_day_used(now)))
    }
}

/// Bytes of frames that an owner allows at once, as the driver has it.
fn burst(rate: u64) -> u64 {
    (rate / 4).max(BATCH_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(1_000 * ms)
    }

    #[test]
    fn a_tenth_of_the_uplinks_is_twenty_times_the_median() {
        let mut all: Vec<_> = (0..20_000).map(|n| draw(&mut Draw::new(n, 1))).collect();
        all.sort_unstable();
        let near = |found: u64, expected: f64| (found as f64 / expected - 1.0).abs() < 0.1;
        assert!(near(all[10_000], 125_000.0) && near(all[18_000], 2_500_000.0));
    }

    #[test]
    fn what_comes_waits_for_what_came_and_is_lost_behind_too_much() {
        let mut service = Service::new(1_000, false);
        assert_eq!(service.take(at(0), 2_000), Some(Duration::ZERO));
        assert_eq!(service.take(at(500), 3_000), Some(Duration::from_millis(1_500)));
        assert_eq!(service.take(at(900), 1_000), None);
        assert_eq!(service.take(at(1_000), 1_000), Some(Duration::from_secs(4)));
        assert_eq!(service.take(at(60_000), 1_000), Some(Duration::ZERO));
    }

    #[test]
    fn who_carries_more_than_is_lent_is_overloaded_for_a_minute() {
        let mut service = Service::new(400, false);
        service.carry(at(1_000), 60 * 100 + 7);
        assert!(service.is_overloaded(at(61_000)) && !service.is_overloaded(at(121_000)));
        assert_eq!((service.served(), service.over()), (0, 0), "handshakes serve nobody");
    }

    /// Gives a second of a host's whole uplink in answers, each second for ten minutes.
    fn give_all(is_bound: bool) -> Service {
        let mut service = Service::new(40_000, is_bound);
        for s in 0..600 {
            for _ in 0..40 {
                let _ = service.answer(at(1_000 * s), 904);
            }
        }
        service
    }

    #[test]
    fn the_owners_limit_is_by_the_minute() {
        let free = give_all(false);
        let most = 60 * 10_000 + BATCH_BYTES_MAX + ANSWERS_BYTES;
        assert_eq!((free.served(), free.over()), (24_000_000, 10 * (2_400_000 - most)));
        let bound = give_all(true);
        assert!(bound.served() > 5_900_000, "{}", bound.served());
        assert_eq!(bound.over(), 0);
    }

    #[test]
    fn a_node_is_told_how_full_its_allowance_is() {
        let mut service = give_all(true);
        assert_eq!(service.news(at(600_000)), Some((u8::MAX, false)));
        assert_eq!(service.news(at(605_000)), None, "too soon");
        assert_eq!(service.news(at(610_000)), Some((0, false)));
        assert_eq!(Service::new(40_000, false).news(at(60_000)), None);
    }
}
