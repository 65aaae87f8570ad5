//! How long datagrams to a peer may be, as far as this machine knows.
//!
//! QUIC searches the longest datagram that a path carries by halves (RFC 8899), and `noq` 1.4.0
//! sends a size that does not pass three times before it tries a smaller one, each while nothing
//! else waits to be sent. A search that reaches up to jumbo frames therefore keeps a busy
//! connection at 1,200 bytes for half a second where frames are of the common size, as they are on
//! the Internet. The system knows the first link of the route, so only where that one carries
//! jumbo frames are they searched for.

use std::net::SocketAddr;

use baran_proto::egress::canonical;

/// Longest packet of the common Ethernet in bytes.
const COMMON_MTU: u32 = 1_500;

/// Up to which size a path is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frames {
    /// At most what fits the common Ethernet.
    Common,
    /// More.
    Jumbo,
}

impl Frames {
    /// What the first link towards `to` carries; `Common` if the system does not tell. Sends
    /// nothing.
    #[must_use]
    pub fn towards(to: SocketAddr) -> Self {
        let mtu = route_mtu(canonical(to)).unwrap_or(COMMON_MTU);
        if mtu > COMMON_MTU { Self::Jumbo } else { Self::Common }
    }
}

/// Longest packet of the route in bytes.
#[cfg(target_os = "linux")]
fn route_mtu(to: SocketAddr) -> Option<u32> {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

    use rustix::net::sockopt;
    // Connecting a UDP socket looks up the route and nothing else.
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    let mtu = if to.is_ipv4() { sockopt::ip_mtu(&socket) } else { sockopt::ipv6_mtu(&socket) };
    mtu.ok()
}

/// Longest packet of the route in bytes.
#[cfg(not(target_os = "linux"))]
fn route_mtu(_to: SocketAddr) -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_route_is_common() {
        // Documentation (RFC 5737): routed by default if at all, so never to a jumbo link here.
        assert_eq!(Frames::towards("192.0.2.1:9".parse().unwrap()), Frames::Common);
        assert_eq!(Frames::towards("[ff02::1]:0".parse().unwrap()), Frames::Common);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn mapped_and_plain_addresses_are_one() {
        let of = |text: &str| Frames::towards(text.parse().unwrap());
        assert_eq!(of("127.0.0.1:9"), of("[::ffff:127.0.0.1]:9"));
    }
}
