//! What stands between a host and the rest, in the terms of RFC 4787.
//!
//! Every host has an outside address of its own. A NAT lets a packet in if its host sent to that
//! packet's source lately; the state is kept by pair of hosts, because a host has one socket and
//! one outside address. Two hosts with endpoint-independent mappings that dial each other at about
//! the same time thereby reach each other with nobody's help.

use core::time::Duration;

use baran_proto::time::Instant;

/// The kind of a NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nat {
    /// A public address, or a mapped port: whoever knows the address reaches it.
    Open,
    /// Endpoint-independent mapping that keeps the port, address-and-port-dependent filtering.
    Easy,
    /// Address-and-port-dependent mapping and filtering: another outside port for every peer, so
    /// nobody but an open host can be talked to without a relay.
    Hard,
}

/// How long a NAT remembers to whom its host sent: RFC 4787 REQ-5 asks for two minutes, many
/// devices keep less, hardly any less than 30 s.
pub const FILTER_TTL: Duration = Duration::from_secs(60);

/// Whom a host sent to lately.
#[derive(Debug, Default)]
pub struct Filter(Vec<(u32, Instant)>);

impl Filter {
    /// The host sends to `to`.
    pub fn open(&mut self, now: Instant, to: u32) {
        let until = now + FILTER_TTL;
        if let Some(entry) = self.0.iter_mut().find(|(host, _)| *host == to) {
            entry.1 = until;
            return;
        }
        if self.0.len() == self.0.capacity() {
            self.0.retain(|(_, until)| *until > now);
        }
        self.0.push((to, until));
    }

    /// Whether the host sent to `from` lately.
    #[must_use]
    pub fn lets_in(&self, now: Instant, from: u32) -> bool {
        self.0.iter().any(|(host, until)| *host == from && *until > now)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0 = Vec::new();
    }
}

/// Whether a packet that a host behind `from` sends out of the blue to the outside address of one
/// behind `to` gets there, given that the receiver sent to the sender's outside address lately.
#[must_use]
pub fn passes(from: Nat, to: Nat, is_expected: bool) -> bool {
    match to {
        Nat::Open => true,
        // A mapping that depends on the address comes from a port that was not sent to.
        Nat::Easy => is_expected && from != Nat::Hard,
        Nat::Hard => false,
    }
}

/// Whether two hosts that probe each other at the same time find a path.
#[must_use]
pub fn is_punchable(a: Nat, b: Nat) -> bool {
    match (a, b) {
        (Nat::Open, _) | (_, Nat::Open) | (Nat::Easy, Nat::Easy) => true,
        (Nat::Hard, _) | (_, Nat::Hard) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_lets_in_its_peer_for_its_time() {
        let at = |s: u64| Instant::from_micros(s * 1_000_000);
        let mut filter = Filter::default();
        filter.open(at(0), 7);
        assert!(filter.lets_in(at(59), 7));
        assert!(!filter.lets_in(at(59), 8));
        assert!(!filter.lets_in(at(61), 7));
        filter.open(at(61), 7);
        assert!(filter.lets_in(at(100), 7));
    }

    #[test]
    fn a_filter_forgets_what_expired() {
        let mut filter = Filter::default();
        for second in 0..10_000u64 {
            let now = Instant::from_micros(second * 1_000_000);
            filter.open(now, u32::try_from(second).unwrap());
        }
        assert!(filter.0.len() <= 256, "{}", filter.0.len());
    }

    #[test]
    fn only_an_expected_packet_passes_a_filter() {
        use Nat::{Easy, Hard, Open};
        for from in [Open, Easy, Hard] {
            assert!(passes(from, Open, false));
            assert!(!passes(from, Easy, false));
            assert!(!passes(from, Hard, true));
        }
        assert!(passes(Easy, Easy, true) && passes(Open, Easy, true));
        assert!(!passes(Hard, Easy, true));
        assert!(is_punchable(Easy, Easy) && is_punchable(Open, Hard));
        assert!(!is_punchable(Easy, Hard) && !is_punchable(Hard, Hard));
    }
}
