//! Stream credit: how much of a stream may be sent before its reader has read more.
//!
//! QUIC's own stream window is refilled when we take bytes from QUIC, and we must take them at
//! once: a QUIC stack may give up a connection whose reader lets too many small chunks pile up
//! (`noq-proto` 1.4.0 does above 1,024 that it cannot merge). What bounds a slow reader is
//! therefore this window above it. It starts at [`INITIAL`], which any stream has without asking;
//! rises to [`OPEN`] as soon as there is memory for it; and doubles whenever the reader used it up
//! within two round trips, as TCP's receive window does under auto-tuning.

use core::time::Duration;

use crate::time::Instant;

/// Bytes of a stream that may be sent without any credit from the reader. What strangers may leave
/// unread is this times the streams that they may open, so it is small.
pub const INITIAL: u64 = 4 * 1024;

/// Window of a stream that there is memory for: as TCP's first receive window (RFC 9293 §3.1).
pub const OPEN: u64 = 64 * 1024;

/// Largest window in bytes: 16 MiB carries 1.3 Gb/s over a round trip of 100 ms.
pub const WINDOW_MAX: u64 = 16 * 1024 * 1024;

/// The sender broke its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overrun;

/// The reader's side of a stream's credit.
#[derive(Debug)]
pub struct RecvCredit {
    window: u64,
    limit: u64,
    received: u64,
    consumed: u64,
    last_grant: Instant,
}

impl RecvCredit {
    /// A stream that starts at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { window: INITIAL, limit: INITIAL, received: 0, consumed: 0, last_grant: now }
    }

    /// Raises the window to [`OPEN`] and returns the limit to tell the sender. `reserve` is asked
    /// for the bytes by which the window would grow and answers whether they may be had; if not,
    /// nothing changes.
    pub fn open(&mut self, reserve: impl FnOnce(u64) -> bool) -> Option<u64> {
        let more = OPEN.checked_sub(self.window).filter(|more| *more > 0)?;
        if !reserve(more) {
            return None;
        }
        self.window = OPEN;
        self.limit = self.consumed.saturating_add(OPEN);
        Some(self.limit)
    }

    /// Takes note of `bytes` that arrived.
    ///
    /// # Errors
    ///
    /// [`Overrun`] if the sender went beyond its limit; nothing is noted then.
    pub fn receive(&mut self, bytes: u64) -> Result<(), Overrun> {
        let received = self.received.checked_add(bytes).ok_or(Overrun)?;
        if received > self.limit {
            return Err(Overrun);
        }
        self.received = received;
        Ok(())
    }

    /// Takes note of `bytes` that the application read, and returns the new limit to tell the
    /// sender when it is time. `reserve` is asked for the bytes by which the window would like to
    /// grow and answers whether they may be had.
    pub fn consume(
        &mut self,
        now: Instant,
        rtt: impl FnOnce() -> Duration,
        bytes: u64,
        reserve: impl FnOnce(u64) -> bool,
    ) -> Option<u64> {
        self.consumed = self.consumed.saturating_add(bytes).min(self.received);
        if self.limit - self.consumed > self.window / 2 {
            return None;
        }
        let grown = self.window * 2;
        if grown <= WINDOW_MAX && now - self.last_grant < rtt() * 2 && reserve(self.window) {
            self.window = grown;
        }
        self.last_grant = now;
        self.limit = self.limit.max(self.consumed.saturating_add(self.window));
        Some(self.limit)
    }

    /// Bytes by which the window has grown beyond [`INITIAL`]: to give back at the end.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.window - INITIAL
    }
}

/// The sender's side of a stream's credit.
#[derive(Debug, Clone, Copy)]
pub struct SendCredit {
    limit: u64,
    sent: u64,
}

impl Default for SendCredit {
    fn default() -> Self {
        Self { limit: INITIAL, sent: 0 }
    }
}

impl SendCredit {
    /// Bytes that may be sent at this moment.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.limit - self.sent
    }

    /// Takes note of `bytes` sent, at most [`SendCredit::available`].
    pub fn send(&mut self, bytes: u64) {
        self.sent = self.sent.saturating_add(bytes).min(self.limit);
    }

    /// Raises the limit; a lower one than before is ignored. Returns whether it rose.
    pub fn grant(&mut self, limit: u64) -> bool {
        let rose = limit > self.limit;
        self.limit = self.limit.max(limit);
        rose
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(10);

    fn ms(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    #[test]
    fn sender_and_reader_agree_without_end() {
        let (mut send, mut recv) = (SendCredit::default(), RecvCredit::new(ms(0)));
        let mut total = 0;
        for tick in 1..10_000 {
            let bytes = send.available().min(7_777);
            send.send(bytes);
            recv.receive(bytes).unwrap();
            total += bytes;
            if let Some(limit) = recv.consume(ms(tick), || RTT, bytes, |_| true) {
                assert!(send.grant(limit));
            }
        }
        assert!(total > 10_000 * 7_000, "never stalls: {total}");
    }

    #[test]
    fn the_window_grows_only_for_a_fast_reader_and_within_budget() {
        let grow = |pause_ms: u64, may: bool| {
            let mut recv = RecvCredit::new(ms(0));
            for tick in 1..40 {
                let open = recv.limit - recv.received;
                recv.receive(open).unwrap();
                recv.consume(ms(tick * pause_ms), || RTT, open, |_| may);
            }
            recv.window
        };
        assert_eq!(grow(1, true), WINDOW_MAX);
        assert_eq!(grow(100, true), INITIAL);
        assert_eq!(grow(1, false), INITIAL);
    }

    #[test]
    fn a_stream_opens_wide_once_if_there_is_memory() {
        let mut recv = RecvCredit::new(ms(0));
        assert_eq!(recv.open(|_| false), None);
        assert_eq!((recv.receive(INITIAL), recv.reserved()), (Ok(()), 0));
        assert_eq!(recv.open(|more| more == OPEN - INITIAL), Some(OPEN));
        assert_eq!(recv.open(|_| true), None);
        assert_eq!((recv.receive(OPEN - INITIAL), recv.receive(1)), (Ok(()), Err(Overrun)));
        assert_eq!(recv.reserved(), OPEN - INITIAL);
    }

    #[test]
    fn overrun_is_noticed_and_old_credit_ignored() {
        let mut recv = RecvCredit::new(ms(0));
        assert_eq!(recv.receive(INITIAL), Ok(()));
        assert_eq!(recv.receive(1), Err(Overrun));
        assert_eq!(recv.receive(u64::MAX), Err(Overrun));
        let mut send = SendCredit::default();
        assert!(!send.grant(5));
        assert_eq!(send.available(), INITIAL);
    }
}
