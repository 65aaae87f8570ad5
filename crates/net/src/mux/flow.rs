//! The window of a whole connection, which QUIC keeps and we tell it.
//!
//! `noq` 1.4.0 cannot take back what it granted: a window that is told smaller is a debt, paid by
//! granting nothing for as many bytes as arrive next, and a window told larger is granted at once
//! whatever the debt. Told in turns, a connection would be granted more and more. So the debt is
//! accounted for here, and nothing is granted that it still covers.
//!
//! The debt may be less than accounted for, because QUIC also pays it with what it drops of stopped
//! streams. The peer then waits for less than it could have, but never for nothing: what is told
//! is never less than the first window.

/// What QUIC was told of a connection's window. Each change returns the window to tell, if it is
/// to be told another.
#[derive(Debug)]
pub(super) struct Flow {
    window: u64,
    told: u64,
    debt: u64,
}

impl Flow {
    /// The window that QUIC is set up with.
    pub(super) fn new(window: u64) -> Self {
        Self { window, told: window, debt: 0 }
    }

    pub(super) fn widen(&mut self, bytes: u64) -> Option<u64> {
        self.window += bytes;
        self.grant()
    }

    /// Takes back what was widened.
    pub(super) fn narrow(&mut self, bytes: u64) -> Option<u64> {
        self.window -= bytes;
        let less = self.told.checked_sub(self.window).filter(|less| *less > 0)?;
        self.debt += less;
        self.told = self.window;
        Some(self.told)
    }

    /// Bytes were taken out of QUIC.
    pub(super) fn take(&mut self, bytes: u64) -> Option<u64> {
        if self.debt == 0 {
            return None;
        }
        self.debt = self.debt.saturating_sub(bytes);
        self.grant()
    }

    fn grant(&mut self) -> Option<u64> {
        let more = self.window.checked_sub(self.told + self.debt).filter(|more| *more > 0)?;
        self.told += more;
        Some(self.told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The other end of what is told, as `noq` keeps it.
    struct Quic {
        window: u64,
        debt: u64,
        granted: u64,
        taken: u64,
    }

    impl Quic {
        fn tell(&mut self, window: Option<u64>) {
            let Some(window) = window else { return };
            self.granted += window.saturating_sub(self.window);
            self.debt += self.window.saturating_sub(window);
            self.window = window;
        }

        /// The peer sends all that it may, and it is taken.
        fn take(&mut self, bytes: u64) {
            self.taken += bytes;
            let paid = self.debt.min(bytes);
            self.debt -= paid;
            self.granted += bytes - paid;
        }

        fn open(&self) -> u64 {
            self.granted - self.taken
        }
    }

    fn both() -> (Flow, Quic) {
        (Flow::new(100), Quic { window: 100, debt: 0, granted: 100, taken: 0 })
    }

    #[test]
    fn streams_that_come_and_go_unused_do_not_inflate_the_window() {
        let (mut flow, mut quic) = both();
        for _ in 0..1000 {
            quic.tell(flow.widen(50));
            quic.tell(flow.narrow(50));
            assert!(quic.open() <= 150);
        }
    }

    #[test]
    fn the_window_is_the_wanted_one_once_the_debt_is_paid() {
        let (mut flow, mut quic) = both();
        quic.tell(flow.widen(400));
        assert_eq!(quic.open(), 500);
        quic.tell(flow.narrow(400));
        assert_eq!(quic.open(), 500, "what is granted stays");
        quic.tell(flow.widen(200));
        for _ in 0..10 {
            quic.take(50);
            quic.tell(flow.take(50));
        }
        assert_eq!(quic.open(), 300);
    }

    #[test]
    fn debt_paid_behind_our_back_never_closes_the_window() {
        let (mut flow, mut quic) = both();
        quic.tell(flow.widen(1000));
        quic.tell(flow.narrow(1000));
        // Dropped by QUIC with a stopped stream.
        quic.take(1000);
        for _ in 0..100 {
            assert!(quic.open() >= 100);
            quic.take(20);
            quic.tell(flow.take(20));
        }
    }
}
