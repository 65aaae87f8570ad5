//! Whether a link is quiet, and who notices that it no longer is.
//!
//! While the path manager samples a link, nobody needs to tell it that something is written: the
//! counters do. A quiet link is not sampled, so the first who writes on it, or takes what arrived,
//! says so, once. What is written after the last but one sample may have escaped the last, because
//! QUIC sends it from another task: a link on which that happened is not quiet, whatever the
//! counters said.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// Nothing was written or read between the last two samples.
const CALM: u8 = 0;
/// Something was, before the last sample.
const FADING: u8 = 1;
/// Something was, since.
const TOUCHED: u8 = 2;
/// Nobody samples.
const QUIET: u8 = 3;
/// Nobody samples, and something was written or read.
const STIRRED: u8 = 4;

/// What the watcher of a link has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nobody samples from here on.
    Quiet,
    /// Something was written or read, which the path manager must be told.
    Active,
}

/// The state of one link. Writers and readers touch it, samples let that fade.
#[derive(Debug, Default)]
pub(crate) struct Stir {
    state: AtomicU8,
    changed: Notify,
}

impl Stir {
    fn update(&self, next: impl Fn(u8) -> Option<u8>) -> Option<u8> {
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).ok()
    }

    /// Something is written, or was taken from QUIC.
    pub(crate) fn touch(&self) {
        let touched = self.update(|old| match old {
            TOUCHED | STIRRED => None,
            QUIET => Some(STIRRED),
            _ => Some(TOUCHED),
        });
        if touched == Some(QUIET) {
            self.changed.notify_one();
        }
    }

    /// The counters are read for the path manager.
    pub(crate) fn sampled(&self) {
        self.update(|old| match old {
            TOUCHED => Some(FADING),
            FADING => Some(CALM),
            _ => None,
        });
    }

    /// The path manager samples no more.
    pub(crate) fn be_quiet(&self) {
        self.update(|old| match old {
            TOUCHED | FADING => Some(STIRRED),
            CALM => Some(QUIET),
            _ => None,
        });
        self.changed.notify_one();
    }

    /// Waits for something that the watcher has to do. Cancel-safe.
    pub(crate) async fn changed(&self) -> Change {
        loop {
            self.changed.notified().await;
            let reported = self.update(|old| (old == STIRRED).then_some(TOUCHED));
            if reported.is_some() {
                return Change::Active;
            }
            if self.state.load(Ordering::Acquire) == QUIET {
                return Change::Quiet;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// What there is to do at this moment.
    fn change(stir: &Stir) -> Option<Change> {
        match pin!(stir.changed()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(change) => Some(change),
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_report_for_each_quiet_time() {
        let stir = Stir::default();
        for _ in 0..3 {
            stir.touch();
            stir.sampled();
            stir.sampled();
            assert_eq!(change(&stir), None, "sampled, so nobody needs to be told");
            stir.be_quiet();
            assert_eq!(change(&stir), Some(Change::Quiet));
            stir.touch();
            stir.touch();
            assert_eq!(change(&stir), Some(Change::Active));
            stir.touch();
            assert_eq!(change(&stir), None);
        }
    }

    #[test]
    fn what_is_written_around_the_last_sample_is_reported() {
        let stir = Stir::default();
        stir.touch();
        stir.sampled();
        stir.be_quiet();
        assert_eq!(change(&stir), Some(Change::Active), "one sample may have missed it");
        stir.sampled();
        stir.sampled();
        stir.touch();
        stir.be_quiet();
        assert_eq!(change(&stir), Some(Change::Active));
    }
}
