//! The handle by which the rest of the node steers its socket, and what the socket counts.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use baran_proto::egress::{Gate, canonical};
use baran_proto::forward::Forwarder;
use baran_proto::frame::{Channel, KNOCK};
use baran_proto::time::Instant;
use noq_udp::Transmit;

use super::{PINNED_MAX, Shared, lock};

/// Steers a [`Socket`](super::Socket) that an endpoint owns. Cheap to clone; it does not keep the
/// endpoint alive, only the socket's tables.
#[derive(Debug, Clone)]
pub struct SocketControl {
    shared: Arc<Shared>,
}

impl SocketControl {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The time as forwarder and gate see it.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.shared.now()
    }

    /// The addresses bound, in the order of the configuration, ports filled in.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.shared.bound.iter().map(|bound| bound.local).collect()
    }

    /// Maps `channel` at `relay` and returns the address by which QUIC reaches the other side.
    ///
    /// The relay is not asked of the gate, so name only one that the node holds an authenticated
    /// connection to. With the table full, the path used least recently is forgotten.
    #[must_use]
    pub fn add_relayed(&self, relay: SocketAddr, channel: Channel) -> SocketAddr {
        let (mapped, replaced) = lock(&self.shared.mappings).add(canonical(relay), channel);
        if replaced {
            self.shared.bump();
        }
        mapped
    }

    /// Forgets a relayed path: packets to it are dropped, frames of it are no longer ours.
    pub fn remove_relayed(&self, mapped: SocketAddr) {
        if lock(&self.shared.mappings).remove(mapped) {
            self.shared.bump();
        }
    }

    /// The relay and channel behind a mapped address.
    #[must_use]
    pub fn lookup_relayed(&self, mapped: SocketAddr) -> Option<(SocketAddr, Channel)> {
        lock(&self.shared.mappings).lookup(mapped)
    }

    /// Whether an address is in the block of mapped ones, and so exists only inside this node.
    #[must_use]
    pub fn is_mapped(&self, addr: SocketAddr) -> bool {
        self.shared.prefix.contains(addr.ip())
    }

    /// Allows or forbids that peers reach this node through `relay` on channels that were not
    /// announced by [`SocketControl::add_relayed`]. Forbidding forgets the paths so opened.
    pub fn set_inbound_relay(&self, relay: SocketAddr, allowed: bool) {
        if lock(&self.shared.mappings).set_inbound(canonical(relay), allowed) {
            self.shared.bump();
        }
    }

    /// Makes frames to `peer` (a relay of ours, or a side of a channel that we forward) leave
    /// from the local address `local`; `None` leaves the choice to the system.
    ///
    /// A frame is accepted only from the exact address that its connection has, and a host with
    /// several addresses (RFC 8981) may choose another for a fresh packet. At most 1,024 peers
    /// are remembered; beyond that the system chooses.
    pub fn pin_source(&self, peer: SocketAddr, local: Option<IpAddr>) {
        let peer = canonical(peer);
        {
            let mut pinned = lock(&self.shared.pinned);
            match local {
                Some(ip) if pinned.len() < PINNED_MAX || pinned.contains_key(&peer) => {
                    pinned.insert(peer, ip.to_canonical());
                }
                Some(_) => {}
                None => drop(pinned.remove(&peer)),
            }
        }
        self.shared.bump();
    }

    /// Runs `f` on the forwarder. Frames wait meanwhile: be brief.
    pub fn with_forwarder<R>(&self, f: impl FnOnce(&mut Forwarder) -> R) -> R {
        f(&mut lock(&self.shared.forwarder))
    }

    /// Runs `f` on the egress gate, after which cached decisions of it are taken anew.
    pub fn with_gate<R>(&self, f: impl FnOnce(&mut Gate) -> R) -> R {
        let result = f(&mut lock(&self.shared.gate));
        self.shared.bump();
        result
    }

    /// Trusts `addr`, once more if it is trusted already; false if that is refused, in which case
    /// it must not be taken back either (see [`Gate::trust`]).
    pub fn trust(&self, addr: SocketAddr) -> bool {
        self.with_gate(|gate| gate.trust(addr))
    }

    /// Takes one trust of `addr` back.
    pub fn untrust(&self, addr: SocketAddr) {
        self.with_gate(|gate| gate.untrust(addr));
    }

    /// Sends one byte that no receiver takes for anything ([`KNOCK`]), so that a NAT of ours lets
    /// in what comes back from `to`. Asks the gate like every sender.
    pub fn knock(&self, to: SocketAddr) {
        let (shared, to) = (&self.shared, canonical(to));
        let Some((socket, src_ip)) = shared.route(to.ip(), None) else {
            return shared.counters.send_unroutable.add(1);
        };
        if lock(&shared.gate).check(shared.now(), to, 1, 1).is_err() {
            return shared.counters.send_denied.add(1);
        }
        let bound = &shared.bound[socket];
        let destination = bound.destination(to);
        let contents = &[KNOCK];
        let transmit = Transmit { destination, ecn: None, contents, segment_size: None, src_ip };
        if bound.try_send(&bound.lent, &transmit).is_err() {
            shared.counters.send_dropped.add(1);
        }
    }

    /// What was counted since the bind.
    #[must_use]
    pub fn stats(&self) -> SocketStats {
        let mut stats = self.shared.counters.read();
        stats.mappings = lock(&self.shared.mappings).len();
        stats.bound = self
            .shared
            .bound
            .iter()
            .map(|bound| BoundStats {
                local: bound.local,
                recv_buffer_bytes: bound.recv_buffer_bytes,
                send_buffer_bytes: bound.send_buffer_bytes,
                segments_max: bound.own.segments_max(),
            })
            .collect();
        stats
    }
}

/// One of the system's sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundStats {
    /// Where it is bound.
    pub local: SocketAddr,
    /// Receive buffer granted, as the system reports it (Linux reports twice what was asked, for
    /// its own bookkeeping).
    pub recv_buffer_bytes: usize,
    /// Send buffer granted, likewise.
    pub send_buffer_bytes: usize,
    /// Datagrams that one send may carry; 1 without segmentation offload.
    pub segments_max: usize,
}

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// What a socket counted. Plain QUIC packets are counted per connection, by `noq`.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct SocketStats {
            $($(#[$doc])+ pub $name: u64,)+
            /// Relayed paths mapped at this moment.
            pub mappings: usize,
            /// The system's sockets.
            pub bound: Vec<BoundStats>,
        }

        /// The same as numbers that many tasks raise.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)+
        }

        impl Counters {
            fn read(&self) -> SocketStats {
                SocketStats { $($name: self.$name.get(),)+ ..SocketStats::default() }
            }
        }
    };
}

counters! {
    /// Datagrams of no kind that we know.
    unknown_dropped,
    /// Datagrams whose source claims to be one of our mapped addresses.
    spoofed_dropped,
    /// Datagrams for QUIC that found no room beside the others of their burst.
    overflow_dropped,
    /// Failed reads.
    recv_errors,
    /// Frames of our own relayed paths received.
    frames_received,
    /// Frames of our own relayed paths sent.
    frames_sent,
    /// Frames that were forwarded for others.
    frames_forwarded,
    /// Bytes of the frames forwarded, headers included.
    bytes_forwarded,
    /// Frames that belong to no path of ours and that the forwarder refused.
    frames_refused,
    /// Frames that the forwarder took but the system's send buffer did not.
    forward_dropped,
    /// STUN requests answered.
    stun_answered,
    /// STUN requests above the rate.
    stun_limited,
    /// STUN messages that deserve no answer.
    stun_ignored,
    /// Datagrams that the gate did not let out.
    send_denied,
    /// Datagrams to mapped addresses that stand for nothing.
    send_unmapped,
    /// Datagrams of a family that no socket carries.
    send_unroutable,
    /// Datagrams to unproved destinations, or at the end of a burst, that met a full send buffer.
    send_dropped,
    /// Failed sends; too large a path-MTU probe is one.
    send_errors,
}

/// A number that many tasks raise.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
