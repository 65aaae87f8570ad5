//! A peer of the table.

use core::time::Duration;

use super::contact::{Packed, Subnet, subnets};
use crate::id::NodeId;
use crate::index::lookup::Candidate;
use crate::invite::PeerAddr;
use crate::key::Key;
use crate::time::Instant;
use crate::wire::index::CONTACT_ADDRS_MAX;

/// A peer of the table.
#[derive(Debug, Clone)]
pub struct Entry {
    pub(super) id: NodeId,
    pub(super) seen: Instant,
    pub(super) contact: Packed,
    pub(super) subnets: [Option<Subnet>; CONTACT_ADDRS_MAX],
    /// 0: unknown.
    pub(super) rtt_us: u32,
    /// [`Table::heard`] at the first failure.
    pub(super) failed_at: u32,
    pub(super) failures: u8,
    pub(super) is_open: bool,
}

impl Entry {
    pub(super) fn new(
        now: Instant,
        peer: &PeerAddr,
        rtt: Option<Duration>,
        count_private: bool,
    ) -> Self {
        let mut entry = Self {
            id: peer.id,
            seen: now,
            contact: Packed::new(peer),
            subnets: subnets(peer, count_private),
            rtt_us: 0,
            failed_at: 0,
            failures: 0,
            is_open: peer.homes.is_empty(),
        };
        entry.measured(rtt);
        entry
    }

    /// Who it is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Where it stands. Hashed by each call.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::of_node(self.id)
    }

    /// Where it is reached, shortened as contacts are. Unpacked by each call.
    #[must_use]
    pub fn peer(&self) -> PeerAddr {
        self.contact.contact(self.id)
    }

    /// Whether it claims to be reachable unsolicited: it has no homes.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// When it was last heard from.
    #[must_use]
    pub fn seen(&self) -> Instant {
        self.seen
    }

    /// Its smoothed round-trip time.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        (self.rtt_us > 0).then(|| Duration::from_micros(self.rtt_us.into()))
    }

    /// Whether the last attempt to reach it came to nothing.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.failures > 0
    }

    /// The entry as something to begin a look-up with; links are for the caller to fill in.
    #[must_use]
    pub fn candidate(&self) -> Candidate {
        Candidate {
            peer: self.peer(),
            is_linked: false,
            rtt: self.rtt(),
            vias: Vec::new(),
            is_stale: self.is_stale(),
            seat: None,
        }
    }

    /// Bytes that the entry takes, those of the allocator apart.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of::<u64>() + size_of::<Self>() + self.contact.len()
    }

    /// Smoothed as RFC 6298 §2.3 does.
    pub(super) fn measured(&mut self, rtt: Option<Duration>) {
        let Some(rtt) = rtt else { return };
        let sample = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX).max(1);
        let old = self.rtt_us;
        self.rtt_us = if old == 0 { sample } else { (old - old / 8).saturating_add(sample / 8) };
    }

    pub(super) fn heard(&mut self, now: Instant, rtt: Option<Duration>) {
        self.seen = now;
        self.failures = 0;
        self.measured(rtt);
    }

    pub(super) fn is_of(&self, subnet: Subnet) -> bool {
        self.subnets.contains(&Some(subnet))
    }
}
