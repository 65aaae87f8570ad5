//! Which sources need no counting.
//!
//! The gate counts what an unproved source sent, because that is what it may be sent back (RFC
//! 9000 §8.1). Trusted sources, where nearly all bytes come from, are remembered here, so that a
//! burst of theirs takes no lock. Any change of trust empties the memory.

use std::net::SocketAddr;

use super::{Shared, lock};

/// Trusted sources remembered without asking the gate.
const TRUSTED_CACHE: usize = 8;

/// The last few sources that the gate trusts: their bytes need no counting.
#[derive(Debug, Default)]
pub(super) struct TrustedSources {
    generation: u64,
    /// The place used last, and the one before the place replaced next.
    last: usize,
    addrs: [Option<SocketAddr>; TRUSTED_CACHE],
}

impl TrustedSources {
    /// Notes that `bytes` for QUIC came from `addr`, so that the gate lets answers out.
    pub(super) fn note(&mut self, shared: &Shared, addr: SocketAddr, bytes: usize) {
        let generation = shared.generation();
        if self.generation != generation {
            *self = Self { generation, ..Self::default() };
        }
        if self.addrs[self.last] == Some(addr) {
            return;
        }
        if let Some(place) = self.addrs.iter().position(|known| *known == Some(addr)) {
            self.last = place;
            return;
        }
        let mut gate = lock(&shared.gate);
        if gate.is_trusted(addr) {
            self.last = (self.last + 1) % TRUSTED_CACHE;
            self.addrs[self.last] = Some(addr);
        } else {
            gate.heard(shared.now(), addr, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::testing::bind;

    #[tokio::test]
    async fn sources_without_trust_earn_answers_and_trusted_ones_are_remembered() {
        let (socket, control) = bind(&["127.0.0.1:0"]);
        let (shared, mut sources) = (&socket.shared, TrustedSources::default());
        let source = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let allowed =
            |bytes| lock(&shared.gate).check(control.now(), source(9_000), bytes, 1).is_ok();
        sources.note(shared, source(9_000), 100);
        assert!(allowed(300) && !allowed(1));
        assert_eq!(sources.addrs, [None; TRUSTED_CACHE]);

        assert!(control.trust(source(9_000)));
        for port in 9_000..9_008 {
            assert!(control.trust(source(port)));
        }
        for port in 9_000..9_009 {
            sources.note(shared, source(port), 100);
        }
        assert!((9_000..9_008).all(|port| sources.addrs.contains(&Some(source(port)))));

        control.untrust(source(9_000));
        control.untrust(source(9_000));
        sources.note(shared, source(9_000), 100);
        assert!(allowed(300), "what was remembered is asked anew");
    }
}
