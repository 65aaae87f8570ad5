//! The sending half: one [`Sender`] per connection, and one for the endpoint.
//!
//! A sender remembers where its last packet went. As long as nothing changed in trust, mappings
//! and pins (one counter tells), the next packet to the same destination takes no lock and no
//! look-up: a bulk transfer costs what it costs on a bare socket. Destinations that proved
//! nothing are never remembered: the gate counts every packet to them.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use baran_proto::egress::canonical;
use baran_proto::frame::{self, Channel, HEADER_LEN};
use noq::UdpSender;
use noq_udp::Transmit;

use super::{Shared, lock};

/// Datagrams that a new sender takes in one send. QUIC keeps a buffer for as many as it may send
/// for as long as the connection lives: 14 KiB for the ten that a bulk transfer wants, 3 for these.
const SEGMENTS_INITIAL: usize = 2;

/// Sends that used all that they might, after which a sender takes twice as many datagrams. A
/// handshake stays below; a bulk transfer is there within 200 datagrams.
const FULL_SENDS: u32 = 8;

/// Where the doubling ends: no system takes more in one send.
const SEGMENTS_MAX: usize = 64;

type Writable = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// Sends for one task.
pub(super) struct Sender {
    shared: Arc<Shared>,
    last: Option<Last>,
    /// Frames under construction.
    scratch: Vec<u8>,
    /// Datagrams that it takes in one send, at the most.
    segments_max: usize,
    /// Sends of so many since that was set.
    full_sends: u32,
    /// The socket whose buffer was full, and its becoming writable.
    blocked: Option<(usize, Writable)>,
}

/// The route of the last packet, and all that it was decided upon.
#[derive(Clone, Copy)]
struct Last {
    generation: u64,
    destination: SocketAddr,
    src_ip: Option<IpAddr>,
    route: Route,
}

/// How a packet leaves.
#[derive(Clone, Copy)]
struct Route {
    /// Index of the socket.
    socket: usize,
    /// Destination, in the form that the socket takes.
    to: SocketAddr,
    src_ip: Option<IpAddr>,
    /// The channel, if `to` is a relay.
    channel: Option<Channel>,
    /// Whether the destination is trusted; others are asked of the gate each time.
    trusted: bool,
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let segments_max = SEGMENTS_INITIAL;
        Self { shared, last: None, scratch: Vec::new(), segments_max, full_sends: 0, blocked: None }
    }

    /// Takes more in one send once there is enough to send.
    fn note_segments(&mut self, datagrams: usize) {
        if datagrams < self.segments_max || self.segments_max >= SEGMENTS_MAX {
            return;
        }
        self.full_sends += 1;
        if self.full_sends == FULL_SENDS {
            self.full_sends = 0;
            self.segments_max *= 2;
        }
    }

    /// The way of `transmit`, or `None` if it may not or cannot leave.
    fn route(&mut self, transmit: &Transmit<'_>) -> Option<Route> {
        let generation = self.shared.generation();
        let Transmit { destination, src_ip, .. } = *transmit;
        if let Some(last) = &self.last
            && last.generation == generation
            && last.destination == destination
            && last.src_ip == src_ip
        {
            return Some(last.route);
        }
        let route = if self.shared.prefix.contains(destination.ip()) {
            self.relayed(transmit)?
        } else {
            self.direct(transmit)?
        };
        if route.trusted {
            self.last = Some(Last { generation, destination, src_ip, route });
        }
        Some(route)
    }

    fn relayed(&self, transmit: &Transmit<'_>) -> Option<Route> {
        let shared = &self.shared;
        let mapping = lock(&shared.mappings).lookup(transmit.destination);
        let Some((relay, channel)) = mapping else {
            shared.counters.send_unmapped.add(datagrams(transmit));
            return None;
        };
        let Some((socket, src_ip)) = shared.route(relay.ip(), shared.pinned(relay)) else {
            shared.counters.send_unroutable.add(datagrams(transmit));
            return None;
        };
        let to = shared.bound[socket].destination(relay);
        Some(Route { socket, to, src_ip, channel: Some(channel), trusted: true })
    }

    fn direct(&self, transmit: &Transmit<'_>) -> Option<Route> {
        let shared = &self.shared;
        let (to, datagrams) = (canonical(transmit.destination), datagrams(transmit));
        let Some((socket, src_ip)) = shared.route(to.ip(), transmit.src_ip) else {
            shared.counters.send_unroutable.add(datagrams);
            return None;
        };
        let trusted = {
            let mut gate = lock(&shared.gate);
            let trusted = gate.is_trusted(to);
            let len = transmit.contents.len();
            if !trusted && gate.check(shared.now(), to, len, datagrams).is_err() {
                shared.counters.send_denied.add(datagrams);
                return None;
            }
            trusted
        };
        let to = shared.bound[socket].destination(to);
        Some(Route { socket, to, src_ip, channel: None, trusted })
    }

    /// Sends at once. An error of kind `WouldBlock` means that nothing left.
    fn try_send(&mut self, route: &Route, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut stride = stride(transmit);
        let mut out = Transmit {
            destination: route.to,
            src_ip: route.src_ip,
            segment_size: None,
            ..transmit.clone()
        };
        if let Some(channel) = route.channel {
            write_frames(&mut self.scratch, transmit.contents, stride, channel);
            out.contents = &self.scratch;
            stride += HEADER_LEN;
        }
        let bound = &self.shared.bound[route.socket];
        let (sent, result) = match bound.send_run(&bound.own, &out, stride) {
            Ok(()) => (out.contents.len(), Ok(())),
            Err((0, e)) => (0, Err(e)),
            Err((sent, e)) => {
                // The first part of the burst left, so it must not be sent again.
                let rest = (out.contents.len() - sent).div_ceil(stride);
                let counters = &self.shared.counters;
                let is_full = e.kind() == io::ErrorKind::WouldBlock;
                if is_full { &counters.send_dropped } else { &counters.send_errors }.add(rest);
                (sent, Ok(()))
            }
        };
        if route.channel.is_some() {
            self.shared.counters.frames_sent.add(sent.div_ceil(stride));
            if self.segments_max == SEGMENTS_INITIAL {
                // As long as there is little to send, the buffer is worth more than the allocation.
                self.scratch = Vec::new();
            }
        }
        result
    }
}

impl UdpSender for Sender {
    fn poll_send(
        self: Pin<&mut Self>,
        transmit: &Transmit<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.note_segments(datagrams(transmit));
        let Some(route) = this.route(transmit) else { return Poll::Ready(Ok(())) };
        loop {
            if let Some((socket, writable)) = &mut this.blocked
                && *socket == route.socket
            {
                match writable.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(result) => {
                        this.blocked = None;
                        if result.is_err() {
                            // The runtime shuts down: this packet is lost like any other.
                            this.shared.counters.send_errors.add(datagrams(transmit));
                            return Poll::Ready(Ok(()));
                        }
                    }
                }
            }
            match this.try_send(&route, transmit) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if route.trusted {
                        let (shared, socket) = (Arc::clone(&this.shared), route.socket);
                        let writable =
                            Box::pin(async move { shared.bound[socket].io().writable().await });
                        this.blocked = Some((socket, writable));
                        continue;
                    }
                    // Waiting would have the gate count it twice.
                    this.shared.counters.send_dropped.add(datagrams(transmit));
                }
                Err(_) => this.shared.counters.send_errors.add(datagrams(transmit)),
            }
            return Poll::Ready(Ok(()));
        }
    }

    fn max_transmit_segments(&self) -> NonZeroUsize {
        let segments = |bound: &super::Bound| bound.own.state().max_gso_segments();
        let offered = self.shared.bound.iter().map(segments).min().unwrap_or(NonZeroUsize::MIN);
        NonZeroUsize::new(self.segments_max).map_or(offered, |max| max.min(offered))
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("last", &self.last.map(|last| last.destination))
            .field("blocked", &self.blocked.is_some())
            .finish_non_exhaustive()
    }
}

/// Size of all datagrams of `transmit` but the last.
fn stride(transmit: &Transmit<'_>) -> usize {
    transmit.segment_size.unwrap_or(transmit.contents.len()).max(1)
}

fn datagrams(transmit: &Transmit<'_>) -> usize {
    transmit.contents.len().div_ceil(stride(transmit))
}

fn write_frames(frames: &mut Vec<u8>, contents: &[u8], stride: usize, channel: Channel) {
    let mut header = [0; HEADER_LEN];
    frame::write_header(&mut header, channel);
    frames.clear();
    frames.reserve(contents.len() + contents.len().div_ceil(stride) * HEADER_LEN);
    for datagram in contents.chunks(stride) {
        frames.extend_from_slice(&header);
        frames.extend_from_slice(datagram);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::testing::bind;

    fn sender(binds: &[&str]) -> (Sender, crate::socket::SocketControl) {
        let (socket, control) = bind(binds);
        (Sender::new(Arc::clone(&socket.shared)), control)
    }

    fn transmit(to: &str, contents: &'static [u8]) -> Transmit<'static> {
        let destination = crate::socket::to_ipv6(to.parse().unwrap());
        Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None }
    }

    #[tokio::test]
    async fn trust_taken_back_is_felt_by_a_sender_that_remembers() {
        let (mut sender, control) = sender(&["127.0.0.1:0"]);
        let packet = transmit("10.0.0.1:4433", &[0x40; 50]);
        assert!(sender.route(&packet).is_none());
        assert!(control.trust("10.0.0.1:4433".parse().unwrap()));
        assert!(sender.route(&packet).is_some_and(|route| route.trusted));
        assert!(sender.last.is_some_and(|last| last.destination == packet.destination));
        control.untrust("10.0.0.1:4433".parse().unwrap());
        assert!(sender.route(&packet).is_none());
        assert_eq!(control.stats().send_denied, 2);
    }

    #[tokio::test]
    async fn unproved_destinations_are_counted_each_time() {
        let (mut sender, control) = sender(&["127.0.0.1:0"]);
        let packet = transmit("11.22.33.44:4433", &[0x40; 50]);
        assert_eq!((0..20).filter(|_| sender.route(&packet).is_some()).count(), 9);
        assert_eq!(control.stats().send_denied, 11);
    }

    #[tokio::test]
    async fn a_removed_mapping_is_felt_by_a_sender_that_remembers() {
        let (mut sender, control) = sender(&["127.0.0.1:0"]);
        let mapped = control.add_relayed("127.0.0.9:9".parse().unwrap(), Channel(3));
        let packet = transmit(&mapped.to_string(), &[0x40; 50]);
        let route = sender.route(&packet).unwrap();
        assert_eq!((route.to, route.channel), ("127.0.0.9:9".parse().unwrap(), Some(Channel(3))));
        control.remove_relayed(mapped);
        assert!(sender.route(&packet).is_none());
        assert_eq!(control.stats().send_unmapped, 1);
    }

    #[tokio::test]
    async fn family_and_source_choose_the_socket() {
        let (mut sender, control) = sender(&["127.0.0.1:0", "127.0.0.2:0", "[::1]:0"]);
        for addr in ["127.0.0.9:9", "[::9]:9"] {
            assert!(control.trust(addr.parse().unwrap()));
        }
        let mut packet = transmit("127.0.0.9:9", &[0x40; 50]);
        assert_eq!(sender.route(&packet).map(|r| r.socket), Some(0));
        packet.src_ip = Some("::ffff:127.0.0.2".parse().unwrap());
        let route = sender.route(&packet).unwrap();
        assert_eq!((route.socket, route.src_ip, route.to.is_ipv4()), (1, None, true));
        assert_eq!(sender.route(&transmit("[::9]:9", &[])).map(|r| r.socket), Some(2));

        let relay = "127.0.0.9:9".parse().unwrap();
        let relayed = transmit(&control.add_relayed(relay, Channel(1)).to_string(), &[0x40]);
        assert_eq!(sender.route(&relayed).map(|r| r.socket), Some(0));
        control.pin_source(relay, Some("127.0.0.2".parse().unwrap()));
        assert_eq!(sender.route(&relayed).map(|r| r.socket), Some(1));
    }

    #[tokio::test]
    async fn only_who_sends_much_may_send_much_at_once() {
        let (mut sender, _control) = sender(&["127.0.0.1:0"]);
        let offered = sender.shared.bound[0].own.segments_max();
        let allowed = |sender: &Sender| sender.max_transmit_segments().get();
        for _ in 0..1_000 {
            sender.note_segments(1);
        }
        assert_eq!(allowed(&sender), SEGMENTS_INITIAL.min(offered));
        for _ in 0..FULL_SENDS * 3 {
            sender.note_segments(allowed(&sender).max(sender.segments_max));
        }
        assert_eq!(allowed(&sender), (SEGMENTS_INITIAL * 8).min(offered));
    }

    #[tokio::test]
    async fn without_the_family_nothing_leaves() {
        let (mut sender, control) = sender(&["127.0.0.1:0"]);
        assert!(sender.route(&transmit("[2001:4860::1]:4433", &[0x40])).is_none());
        assert_eq!(control.stats().send_unroutable, 1);
    }
}
