//! Tells a silent path from an idle one.
//!
//! Only the counters of datagrams sent and received are looked at. Sending without hearing is
//! suspicion; a ping that must be answered turns it into proof, because not everything that is
//! sent on a path obliges the peer to answer (acknowledgements, probes of other addresses). The
//! answer to a ping may come on another path, the one that the peer sends on. It shows in the
//! round-trip time, which is measured anew with each acknowledgement, to the nanosecond.

use core::time::Duration;

use crate::time::Instant;

/// What the counters say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Heard since, or nothing was sent.
    Alive,
    /// Sent without hearing: ping it. Said once for each silence.
    Suspect,
    /// Pinged, and still nothing.
    Dead,
}

/// The counters of one path as last seen.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    tx: u64,
    rx: u64,
    rtt: Duration,
    /// When the first datagram that was not followed by any reception was noticed.
    silent_since: Option<Instant>,
    heard_at: Option<Instant>,
    active: bool,
    is_dead: bool,
}

impl Watchdog {
    /// Whether anything was sent or received between the last two samples.
    pub(super) fn is_active(&self) -> bool {
        self.active
    }

    /// Whether the last verdict but [`Verdict::Alive`] was that it is dead, and nothing was heard
    /// since.
    pub(super) fn is_dead(&self) -> bool {
        self.is_dead
    }

    /// Since when nothing was heard although something was sent.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        self.silent_since
    }

    /// Whether something was heard after `since`.
    pub(super) fn was_heard_after(&self, since: Instant) -> bool {
        self.heard_at.is_some_and(|at| at > since)
    }

    /// Takes a sample. `silence` is the least time without an answer that means death; a path with
    /// a long round trip gets three of these.
    pub(super) fn observe(
        &mut self,
        now: Instant,
        tx: u64,
        rx: u64,
        silence: Duration,
        rtt: Duration,
    ) -> Verdict {
        let heard = rx != self.rx || rtt != self.rtt;
        let sent = tx != self.tx;
        (self.tx, self.rx, self.rtt) = (tx, rx, rtt);
        self.active = heard || sent;
        if heard {
            self.heard_at = Some(now);
            self.silent_since = None;
            self.is_dead = false;
            return Verdict::Alive;
        }
        match self.silent_since {
            None if sent => {
                self.silent_since = Some(now);
                Verdict::Suspect
            }
            None => Verdict::Alive,
            Some(since) if now - since >= silence.max(rtt * 3) => {
                self.is_dead = true;
                Verdict::Dead
            }
            Some(_) => {
                // A suspect is watched closely, whether or not more is sent.
                self.active = true;
                Verdict::Alive
            }
        }
    }
}
