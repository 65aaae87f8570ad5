//! The one UDP socket: QUIC, relayed frames and STUN side by side.
//!
//! [`Socket`] gives `noq` its packets and takes `noq`'s packets; everything else that arrives is
//! dealt with below QUIC. The first byte of a datagram tells what it is (RFC 9443 is the model,
//! our table is in `baran_proto::frame`):
//!
//! * **QUIC** goes up as it is.
//! * **A relayed frame of a path of ours** goes up without its header, from an address that only
//!   this socket knows (`mapping`). What QUIC sends to such an address leaves as frames.
//! * **A relayed frame for others** gets the header of its next hop written in place, and a whole
//!   burst leaves in one system call. The `Forwarder` of `baran_proto` decides.
//! * **A STUN binding request** (RFC 8489) is answered, at a limited rate.
//! * Anything else is counted and dropped.
//!
//! Everything that QUIC sends to a real address passes the egress [`Gate`] first, because QUIC's
//! NAT traversal obeys whatever addresses a peer names.
//!
//! To `noq` every address is IPv6, IPv4 being mapped (RFC 4291 §2.5.5.2); to the gate, the
//! forwarder and the mappings every address is canonical, IPv4 being IPv4.
//!
//! Invariants: neither `poll_recv` nor `poll_send` ever returns an error, because `noq` ends the
//! endpoint or the connection on one; no datagram causes more than one datagram, and none larger
//! than itself (a STUN answer to a bare request excepted); work per poll is bounded; a burst of
//! plain QUIC from a trusted source, and one to the destination of the burst before, take no lock.

mod control;
mod lane;
mod mapping;
mod recv;
mod send;
mod sources;

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use baran_proto::bucket::TokenBucket;
use baran_proto::egress::Gate;
use baran_proto::forward::Forwarder;
use baran_proto::time::Instant;
use noq::{AsyncUdpSocket, UdpSender};
use noq_udp::RecvMeta;

use control::Counters;
pub use control::{BoundStats, SocketControl, SocketStats};
use lane::Bound;
use mapping::{Mappings, Prefix};
use recv::Receiver;
use send::Sender;

use crate::quic::UDP_PAYLOAD_MAX;

/// Longest run of datagrams that the system merges in one receive buffer.
const MERGED_BYTES_MAX: usize = 65_535;

/// Local addresses pinned per peer by [`SocketControl::pin_source`], at most.
const PINNED_MAX: usize = 1_024;

/// What a [`Socket`] is bound to and how much it may hold.
#[derive(Debug, Clone)]
pub struct SocketConfig {
    /// Addresses to bind, one system socket each; empty means `[::]:0` for both families. The
    /// IPv6 wildcard carries IPv4 too, and becomes the IPv4 wildcard on a system without IPv6.
    pub binds: Vec<SocketAddr>,
    /// Receive and send buffer to ask the system for, in bytes each.
    pub buffer_bytes: usize,
    /// Randomness for the mapped addresses; 40 bits are used.
    pub seed: u64,
    /// Relayed paths at most.
    pub mappings_max: usize,
    /// Relayed paths at most that peers behind one relay open without having been announced.
    pub inbound_per_relay_max: usize,
    /// STUN answers per second, all askers together; a burst may be twice that.
    pub stun_answers_per_s: u32,
}

impl Default for SocketConfig {
    fn default() -> Self {
        Self {
            binds: Vec::new(),
            // Half a second of 130 Mb/s: what a scheduler may keep a busy node waiting.
            buffer_bytes: 8 << 20,
            seed: 0,
            mappings_max: 4_096,
            inbound_per_relay_max: 64,
            // 44 bytes each: 35 kb/s in all, whatever sources are forged.
            stun_answers_per_s: 100,
        }
    }
}

/// The socket that `noq` runs on. Made together with its [`SocketControl`].
#[derive(Debug)]
pub struct Socket {
    shared: Arc<Shared>,
    receiver: Receiver,
}

impl Socket {
    /// Binds the sockets and takes over forwarder and gate, which stay reachable through the
    /// control. Their time is counted from `start`. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    ///
    /// Returns what the system says if an address cannot be bound, with the address in the text.
    pub fn bind(
        config: &SocketConfig,
        forwarder: Forwarder,
        gate: Gate,
        start: std::time::Instant,
    ) -> io::Result<(Self, SocketControl)> {
        let any = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))];
        let binds = if config.binds.is_empty() { &any[..] } else { &config.binds };
        let bound = binds
            .iter()
            .map(|addr| Bound::bind(*addr, config.buffer_bytes))
            .collect::<io::Result<Vec<_>>>()?;
        let prefix = Prefix::from_seed(config.seed);
        let mappings = Mappings::new(prefix, config.mappings_max, config.inbound_per_relay_max);
        let stun_rate = u64::from(config.stun_answers_per_s);
        let shared = Arc::new(Shared {
            bound,
            prefix,
            start,
            generation: AtomicU64::new(0),
            mappings: Mutex::new(mappings),
            forwarder: Mutex::new(forwarder),
            gate: Mutex::new(gate),
            pinned: Mutex::new(BTreeMap::new()),
            stun: Mutex::new(TokenBucket::new(stun_rate, stun_rate * 2)),
            counters: Counters::default(),
        });
        let control = SocketControl::new(Arc::clone(&shared));
        Ok((Self { receiver: Receiver::default(), shared }, control))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_sender(&self) -> Pin<Box<dyn UdpSender>> {
        Box::pin(Sender::new(Arc::clone(&self.shared)))
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.receiver.poll(&self.shared, cx, bufs, meta).map(Ok)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(to_ipv6(self.shared.bound[0].local))
    }

    /// Datagrams that a receive buffer of `noq` has room for, each as long as `quic::endpoint`
    /// allows. The system merges up to 64, but never more bytes than fit in so few.
    fn max_receive_segments(&self) -> NonZeroUsize {
        let segments = |bound: &Bound| bound.own.state().gro_segments();
        let offered = self.shared.bound.iter().map(segments).max().unwrap_or(NonZeroUsize::MIN);
        let room = MERGED_BYTES_MAX.div_ceil(usize::from(UDP_PAYLOAD_MAX));
        NonZeroUsize::new(room).map_or(offered, |room| room.min(offered))
    }

    fn may_fragment(&self) -> bool {
        self.shared.bound.iter().any(|bound| bound.own.state().may_fragment())
    }
}

/// What the receiving half, the senders and the controls share.
///
/// Each lock is held for one look-up or decision about a burst, never over a system call and
/// never together with another one.
#[derive(Debug)]
struct Shared {
    /// Never empty.
    bound: Vec<Bound>,
    prefix: Prefix,
    start: std::time::Instant,
    /// Counts changes of trust, mappings and pins. Raised after the change; whoever caches a
    /// decision reads it before deciding, so a stale decision is never kept.
    generation: AtomicU64,
    mappings: Mutex<Mappings>,
    forwarder: Mutex<Forwarder>,
    gate: Mutex<Gate>,
    /// Peer (canonical) to the local address that frames to it leave from.
    pinned: Mutex<BTreeMap<SocketAddr, IpAddr>>,
    stun: Mutex<TokenBucket>,
    counters: Counters,
}

impl Shared {
    fn now(&self) -> Instant {
        // 64 bits of microseconds last 584,000 years.
        Instant::from_micros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn bump(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// The socket and source address for packets to `to` (canonical) that should leave from
    /// `source`, if any socket carries that family.
    fn route(&self, to: IpAddr, source: Option<IpAddr>) -> Option<(usize, Option<IpAddr>)> {
        let source = source.map(|ip| ip.to_canonical());
        let rank = |bound: &Bound| {
            if source.is_some_and(|ip| bound.local.ip() == ip) {
                0
            } else if bound.is_wildcard() {
                1
            } else {
                2
            }
        };
        let carries = |(_, bound): &(usize, &Bound)| bound.carries(to);
        let (index, bound) =
            self.bound.iter().enumerate().filter(carries).min_by_key(|(_, b)| rank(b))?;
        // A socket bound to one address sends from it anyway, and refuses to send from another.
        let source = source.filter(|ip| bound.is_wildcard() && ip.is_ipv4() == to.is_ipv4());
        Some((index, source))
    }

    /// The local address that frames to `peer` (canonical) leave from.
    fn pinned(&self, peer: SocketAddr) -> Option<IpAddr> {
        lock(&self.pinned).get(&peer).copied()
    }
}

/// Locks, also after a panic under the lock: a node that stops sending and receiving for good is
/// worse than one whose table lacks the update that panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The form `noq` sees: IPv6, with IPv4 mapped.
pub(crate) fn to_ipv6(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
        SocketAddr::V6(_) => addr,
    }
}

#[cfg(test)]
mod testing {
    use baran_proto::egress::GateConfig;
    use baran_proto::forward::ForwardConfig;
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;

    use super::*;

    /// A socket on `binds` with the relay role off and nobody trusted.
    pub(super) fn bind(binds: &[&str]) -> (Socket, SocketControl) {
        let binds = binds.iter().map(|bind| bind.parse().unwrap()).collect();
        let config = SocketConfig { binds, seed: 0xab_cdef_0123, ..SocketConfig::default() };
        let forwarder = Forwarder::new(&ForwardConfig::default(), ChaCha8Rng::seed_from_u64(1));
        let gate = Gate::new(GateConfig::default());
        Socket::bind(&config, forwarder, gate, std::time::Instant::now()).unwrap()
    }
}
