//! One bound UDP socket of the operating system, and the two lanes that packets take out of it.
//!
//! `noq-udp` turns segmentation offload (GSO) off for good when one `sendmsg` fails with `EINVAL`
//! or `EIO`, and marks of congestion with it. Both errors also happen for reasons that pass: the
//! source address of a path went away with its interface, or (on older kernels) a segment is
//! larger than the next link. A [`Lane`] therefore owns a row of [`UdpSocketState`]s and, after a
//! pause, tries offload again with the next one. Frames that this node forwards for others take a
//! lane of their own, so that nothing a stranger sends can slow this node's own connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use noq_udp::{Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::to_ipv6;

/// States a lane may use up: so many changes of network in the life of a socket cost no speed.
const LANE_STATES: usize = 64;

/// Pause before the first retry of segmentation offload; it doubles each time.
const OFFLOAD_RETRY: Duration = Duration::from_secs(1);

/// Doublings of the pause at most, hence a minute: where offload never works, each retry costs
/// one burst.
const RETRY_DOUBLINGS_MAX: u32 = 6;

/// Largest UDP payload of one send, also over IPv4: 65,535 − 20 − 8.
pub(super) const DATAGRAM_BYTES_MAX: usize = 65_507;

/// A UDP socket with its addresses and offload state.
#[derive(Debug)]
pub(super) struct Bound {
    io: UdpSocket,
    /// The address it is bound to, as the system reports it.
    pub(super) local: SocketAddr,
    /// Whether an IPv6 socket carries IPv4 as well.
    dual_stack: bool,
    /// What this node's own connections send through.
    pub(super) own: Lane,
    /// What frames forwarded for others, and STUN answers, are sent through.
    pub(super) lent: Lane,
    /// Receive buffer as the system reports it, in bytes.
    pub(super) recv_buffer_bytes: usize,
    /// Send buffer as the system reports it, in bytes.
    pub(super) send_buffer_bytes: usize,
}

impl Bound {
    /// Binds `addr`; the IPv6 wildcard takes IPv4 too, and becomes the IPv4 wildcard on a system
    /// without IPv6.
    pub(super) fn bind(addr: SocketAddr, buffer_bytes: usize) -> io::Result<Self> {
        let wildcard = addr.is_ipv6() && addr.ip().is_unspecified();
        match Self::bind_exact(addr, wildcard, buffer_bytes) {
            Err(e) if wildcard && !is_conflict(&e) => {
                let v4 = SocketAddr::from(([0, 0, 0, 0], addr.port()));
                Self::bind_exact(v4, false, buffer_bytes).map_err(|_| e)
            }
            other => other,
        }
        .map_err(|e| io::Error::new(e.kind(), format!("cannot bind UDP address {addr}: {e}")))
    }

    fn bind_exact(addr: SocketAddr, dual_stack: bool, buffer_bytes: usize) -> io::Result<Self> {
        let socket =
            socket2::Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(!dual_stack)?;
        }
        enlarge_buffers(&socket, buffer_bytes);
        socket.bind(&addr.into())?;
        let recv_buffer_bytes = socket.recv_buffer_size().unwrap_or(0);
        let send_buffer_bytes = socket.send_buffer_size().unwrap_or(0);
        let socket = std::net::UdpSocket::from(socket);
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        let own = Lane::new(&socket)?;
        let lent = Lane::new(&socket)?;
        let io = UdpSocket::from_std(socket)?;
        Ok(Self { io, local, dual_stack, own, lent, recv_buffer_bytes, send_buffer_bytes })
    }

    /// The operating system's socket.
    pub(super) fn io(&self) -> &UdpSocket {
        &self.io
    }

    /// Whether packets to `to` (canonical) can leave here.
    pub(super) fn carries(&self, to: IpAddr) -> bool {
        self.dual_stack || self.local.is_ipv4() == to.is_ipv4()
    }

    /// `to` in the family of this socket, which must carry it.
    pub(super) fn destination(&self, to: SocketAddr) -> SocketAddr {
        if self.local.is_ipv6() { to_ipv6(to) } else { to }
    }

    /// Whether it is bound to every address of its family.
    pub(super) fn is_wildcard(&self) -> bool {
        self.local.ip().is_unspecified()
    }

    /// Sends at once or fails with `WouldBlock`; one `sendmsg` whatever the number of segments.
    pub(super) fn try_send(&self, lane: &Lane, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self
            .io
            .try_io(Interest::WRITABLE, || lane.state().try_send((&self.io).into(), transmit));
        if lane.segments_max() < lane.offered {
            lane.recover(&self.io);
        }
        sent
    }

    /// Sends `contents` in as few calls as offload and datagram size allow.
    ///
    /// `stride` is the size of all datagrams in `contents` but the last.
    ///
    /// # Errors
    ///
    /// Returns the first failure, with the number of bytes that left before it.
    pub(super) fn send_run(
        &self,
        lane: &Lane,
        transmit: &Transmit<'_>,
        stride: usize,
    ) -> Result<(), (usize, io::Error)> {
        let stride = stride.max(1);
        let segments_max = lane.segments_max().min(DATAGRAM_BYTES_MAX / stride).max(1);
        let mut sent = 0;
        for part in transmit.contents.chunks(segments_max.saturating_mul(stride)) {
            let segment_size = (part.len() > stride).then_some(stride);
            let part = Transmit { contents: part, segment_size, ..transmit.clone() };
            self.try_send(lane, &part).map_err(|e| (sent, e))?;
            sent += part.contents.len();
        }
        Ok(())
    }
}

/// The offload state that one kind of traffic sends with.
#[derive(Debug)]
pub(super) struct Lane {
    states: Box<[OnceLock<UdpSocketState>]>,
    current: AtomicUsize,
    /// Segments per send that the system offered at bind time.
    offered: usize,
    born: Instant,
    /// When offload was found halted, in microseconds after `born`; zero while it works.
    halted_us: AtomicU64,
}

impl Lane {
    fn new(socket: &std::net::UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(socket.into())?;
        let offered = state.max_gso_segments().get();
        let states: Box<[_]> = (0..LANE_STATES).map(|_| OnceLock::new()).collect();
        let _ = states[0].set(state);
        let (current, halted_us) = (AtomicUsize::new(0), AtomicU64::new(0));
        Ok(Self { states, current, offered, born: Instant::now(), halted_us })
    }

    /// The state in use.
    pub(super) fn state(&self) -> &UdpSocketState {
        let current = self.current.load(Ordering::Acquire);
        self.states[current].get().expect("`current` is raised only after the state is set")
    }

    /// Datagrams that one send may carry at present.
    pub(super) fn segments_max(&self) -> usize {
        self.state().max_gso_segments().get()
    }

    /// Offload is halted: moves to a fresh state once the pause is over.
    fn recover(&self, io: &UdpSocket) {
        let current = self.current.load(Ordering::Acquire);
        let Some(next) = self.states.get(current + 1) else { return };
        let now_us = u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
        let halted_us = self.halted_us.load(Ordering::Relaxed);
        if halted_us == 0 {
            self.halted_us.store(now_us, Ordering::Relaxed);
            return;
        }
        let doublings = u32::try_from(current).unwrap_or(u32::MAX).min(RETRY_DOUBLINGS_MAX);
        let pause = OFFLOAD_RETRY * 2_u32.pow(doublings);
        if Duration::from_micros(now_us.saturating_sub(halted_us)) < pause {
            return;
        }
        // Only one of several tasks gets to set it, and only that one moves on.
        if let Ok(state) = UdpSocketState::new(io.into())
            && next.set(state).is_ok()
        {
            self.halted_us.store(0, Ordering::Relaxed);
            self.current.store(current + 1, Ordering::Release);
        }
    }
}

fn is_conflict(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

/// Asks for `bytes` in both directions; what was granted is read back by the caller.
fn enlarge_buffers(socket: &socket2::Socket, bytes: usize) {
    // The limits of net.core.{r,w}mem_max hold for the plain options; a privileged process may
    // pass them. Neither failing matters: the size granted is reported.
    #[cfg(target_os = "linux")]
    {
        use rustix::net::sockopt;
        let received = sockopt::set_socket_recv_buffer_size_force(socket, bytes);
        let sent = sockopt::set_socket_send_buffer_size_force(socket, bytes);
        if received.is_ok() && sent.is_ok() {
            return;
        }
    }
    let _ = socket.set_recv_buffer_size(bytes);
    let _ = socket.set_send_buffer_size(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_default_wildcard_carries_both_families() {
        let bound = Bound::bind("[::]:0".parse().unwrap(), 1 << 20).unwrap();
        assert!(bound.carries("192.0.2.1".parse().unwrap()));
        assert!(bound.is_wildcard());
        assert!(bound.recv_buffer_bytes >= 1 << 20);
    }

    #[tokio::test]
    async fn a_specific_address_carries_its_own_family() {
        let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), 1 << 16).unwrap();
        assert!(bound.carries("192.0.2.1".parse().unwrap()));
        assert!(!bound.carries("2001:db8::1".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_port_in_use_names_the_address() {
        let first = Bound::bind("127.0.0.1:0".parse().unwrap(), 1 << 16).unwrap();
        let error = Bound::bind(first.local, 1 << 16).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&first.local.to_string()), "{error}");
    }

    #[tokio::test]
    async fn a_run_larger_than_one_send_is_split() {
        let to = Bound::bind("127.0.0.1:0".parse().unwrap(), 1 << 20).unwrap();
        let from = Bound::bind("127.0.0.1:0".parse().unwrap(), 1 << 20).unwrap();
        let contents = vec![7; 100 * 1200 + 5];
        let transmit = Transmit {
            destination: to.local,
            ecn: None,
            contents: &contents,
            segment_size: Some(1200),
            src_ip: None,
        };
        from.io().writable().await.unwrap();
        from.send_run(&from.own, &transmit, 1200).unwrap();
        let mut buf = [0; 65_536];
        let mut received = 0;
        while received < contents.len() {
            to.io().readable().await.unwrap();
            // One read may return several datagrams merged by the kernel (GRO).
            received += to.io().try_recv(&mut buf).unwrap_or(0);
        }
        assert_eq!(received, contents.len());
    }

    #[tokio::test]
    async fn offload_comes_back_after_a_failure_that_passed() {
        let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), 1 << 16).unwrap();
        bound.io().writable().await.unwrap();
        let send = |lane: &Lane, segment_size| {
            let (destination, contents) = (bound.local, &[7_u8; 1_000][..]);
            let segment_size = Some(segment_size);
            let transmit =
                Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
            bound.try_send(lane, &transmit).is_ok()
        };
        assert!(send(&bound.own, 100));
        let offered = bound.own.segments_max();
        // A thousand segments are more than any kernel takes.
        assert!(!send(&bound.own, 1));
        assert_eq!(bound.own.segments_max(), 1);
        assert_eq!(bound.lent.segments_max(), offered, "each lane fares for itself");
        tokio::time::sleep(OFFLOAD_RETRY).await;
        send(&bound.own, 1_000);
        assert_eq!(bound.own.segments_max(), offered);
    }
}
