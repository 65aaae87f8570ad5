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

/// A host's service to others.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// Bytes a second that its uplink carries.
    pub capacity: u64,
    /// When everything is answered that has come.
    busy_until: Instant,
    /// The minute that counts, what was given in it, and in the one before.
    minute: u64,
    given: [u64; 2],
    /// Bytes given since the world began.
    pub total: u64,
    /// Of these, above the owner's limit in their minute.
    over: u64,
}

impl Service {
    /// Of a host with such an uplink that has given nothing.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self { capacity, busy_until: Instant::ZERO, minute: 0, given: [0; 2], total: 0, over: 0 }
    }

    /// Bytes a second that the owner lends.
    #[must_use]
    pub fn lent(&self) -> u64 {
        self.capacity / LENT
    }

    /// Something comes at `at` that `bytes` have to be sent for: how long it waits, if it is not
    /// lost.
    pub fn take(&mut self, at: Instant, bytes: u32) -> Option<Duration> {
        let wait = self.busy_until - at;
        if wait > WAIT_MAX {
            return None;
        }
        self.count(at, bytes);
        let time = Duration::from_micros(u64::from(bytes) * 1_000_000 / self.capacity);
        self.busy_until = at + wait + time;
        Some(wait)
    }

    /// Counts what is given.
    pub fn count(&mut self, at: Instant, bytes: u32) {
        self.turn(at);
        self.given[0] += u64::from(bytes);
        self.total += u64::from(bytes);
    }

    /// Turns to the minute of `at`, if that is a later one.
    fn turn(&mut self, at: Instant) {
        let minute = (at - Instant::ZERO).as_secs() / 60;
        if minute <= self.minute {
            return;
        }
        self.over += self.over_in_minute();
        let is_next = minute == self.minute + 1;
        self.given = [0, if is_next { self.given[0] } else { 0 }];
        self.minute = minute;
    }

    fn over_in_minute(&self) -> u64 {
        self.given[0].saturating_sub(60 * self.lent())
    }

    /// Bytes above the owner's limit in their minute.
    #[must_use]
    pub fn over(&self) -> u64 {
        self.over + self.over_in_minute()
    }

    /// Whether more was given in the last whole minute, or in this one, than the owner lends.
    pub fn is_overloaded(&mut self, now: Instant) -> bool {
        self.turn(now);
        self.given.iter().any(|given| *given > 60 * self.lent())
    }
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
        let mut service = Service::new(1_000);
        assert_eq!(service.take(at(0), 2_000), Some(Duration::ZERO));
        assert_eq!(service.take(at(500), 3_000), Some(Duration::from_millis(1_500)));
        assert_eq!(service.take(at(900), 1_000), None);
        assert_eq!(service.take(at(1_000), 1_000), Some(Duration::from_secs(4)));
        assert_eq!(service.take(at(60_000), 1_000), Some(Duration::ZERO));
        assert_eq!(service.total, 7_000);
    }

    #[test]
    fn the_owners_limit_is_by_the_minute() {
        let mut service = Service::new(400);
        service.count(at(1_000), 60 * 100 + 7);
        assert!(service.is_overloaded(at(61_000)) && !service.is_overloaded(at(121_000)));
        service.count(at(122_000), 60 * 100);
        assert_eq!(service.over(), 7);
    }
}
