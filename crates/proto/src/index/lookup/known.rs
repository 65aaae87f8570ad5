//! A peer that a look-up knows, and how long it is waited for.

use core::time::Duration;

use crate::id::NodeId;
use crate::invite::{ADDRS_MAX, PeerAddr};
use crate::time::Instant;
use crate::wire::node::HOMES_MAX;

/// Bounds of the time allowed for one round trip, whatever was measured.
const TIMEOUT_MIN: Duration = Duration::from_millis(200);
const TIMEOUT_MAX: Duration = Duration::from_millis(1_500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Waiting,
    /// In a slot.
    Asked {
        at: Instant,
    },
    /// Its slot is given away, but it is waited for before the look-up ends.
    Late {
        at: Instant,
    },
    /// A seat serves it, or we are linked to it: it is there, and is not asked.
    Vouched,
    /// An answer would count, but is not expected.
    Silent {
        at: Instant,
    },
    Answered {
        has_records: bool,
        /// Whether it had what is looked for: records, or where the wanted peer is.
        is_hit: bool,
    },
    Failed,
}

/// A peer that the look-up knows.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) peer: PeerAddr,
    pub(super) state: State,
    pub(super) vias: Vec<NodeId>,
    pub(super) rtt: Option<Duration>,
    /// Answers before it could be asked, by the shortest chain that led to it.
    pub(super) depth: u32,
    /// Of the request that was made: a link that comes up meanwhile changes nothing of it.
    pub(super) legs: u32,
    pub(super) path: u8,
    pub(super) tries: u8,
    /// Peers that named it; this node is one of them.
    pub(super) named: u8,
    pub(super) is_linked: bool,
    pub(super) is_stale: bool,
    /// Whether this node knew it before; others' word of its addresses is not needed.
    pub(super) is_ours: bool,
}

impl Known {
    /// Round trips before a request can be sent: to dial, or to have it signalled and to dial.
    pub(super) fn legs_to(&self) -> u32 {
        match (self.is_linked, self.is_open()) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.peer.homes.is_empty() && !self.peer.addrs.is_empty()
    }

    /// How long an answer is waited for: three times what it should take, which is a round trip,
    /// and one more for each that has to come first. `typical` is a round trip to anybody.
    pub(super) fn timeout(&self, typical: Option<Duration>) -> Duration {
        let trip = self.rtt.or(typical).map_or(TIMEOUT_MAX, |rtt| rtt.saturating_mul(3));
        trip.clamp(TIMEOUT_MIN, TIMEOUT_MAX) * (1 + self.legs)
    }

    /// When it is to be looked at again: after half of that time its slot is given away.
    pub(super) fn deadline(&self, typical: Option<Duration>) -> Option<Instant> {
        let timeout = self.timeout(typical);
        match self.state {
            State::Asked { at } => Some(at + (timeout / 2).max(TIMEOUT_MIN)),
            State::Late { at } => Some(at + timeout),
            State::Waiting
            | State::Vouched
            | State::Silent { .. }
            | State::Answered { .. }
            | State::Failed => None,
        }
    }

    /// Whether it may still answer or has.
    pub(super) fn is_live(&self) -> bool {
        match self.state {
            State::Waiting | State::Asked { .. } => !self.is_stale,
            State::Answered { .. } | State::Vouched => true,
            State::Late { .. } | State::Silent { .. } | State::Failed => false,
        }
    }

    /// Whether it is there: it answered, or who knows says so.
    pub(super) fn is_found(&self) -> bool {
        matches!(self.state, State::Answered { .. } | State::Vouched)
    }

    /// Adds what somebody else says of where it is. Returns whether that is news.
    pub(super) fn merge(&mut self, named: &PeerAddr) -> bool {
        let mut is_news = false;
        for addr in &named.addrs {
            if !self.peer.addrs.contains(addr) && self.peer.addrs.len() < ADDRS_MAX {
                self.peer.addrs.push(*addr);
                is_news = true;
            }
        }
        for home in &named.homes {
            let is_known = self.peer.homes.iter().any(|known| known.id == home.id);
            if !is_known && self.peer.homes.len() < HOMES_MAX {
                self.peer.homes.push(home.clone());
                is_news = true;
            }
        }
        is_news
    }
}
