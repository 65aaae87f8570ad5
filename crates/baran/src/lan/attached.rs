//! The networks that this machine is attached to.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use baran_proto::candidate::covers;
use baran_proto::egress::Net;
use if_addrs::{IfAddr, Interface};
use mdns_sd::ScopedIp;

/// How old the knowledge of the interfaces may be: a burst of questions costs one look.
const AGE_MAX: Duration = Duration::from_secs(1);

/// The networks at a moment.
#[derive(Debug)]
pub(super) struct Attached {
    /// Those on which the node listens, without loopback and links of two hosts.
    interfaces: Vec<Interface>,
    /// Whether all of them have nothing but link-local addresses.
    is_link_local: bool,
    looked_at: Instant,
}

/// An address to be dialled, in the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    ip: IpAddr,
    scope: u32,
}

impl Place {
    pub(super) fn addr(self, port: u16) -> SocketAddr {
        match self.ip {
            IpAddr::V4(ip) => SocketAddr::from((ip, port)),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, self.scope).into(),
        }
    }
}

impl Attached {
    /// Looks at the interfaces of the machine; `local` is where the node listens.
    pub(super) fn look(local: &[SocketAddr]) -> Self {
        Self::of(if_addrs::get_if_addrs().unwrap_or_default(), local)
    }

    pub(super) fn of(interfaces: Vec<Interface>, local: &[SocketAddr]) -> Self {
        let mut interfaces = interfaces;
        interfaces.retain(|interface| {
            let has_room = prefix_of(&interface.addr) < bits_of(&interface.addr) - 1;
            let is_bound = local.iter().any(|local| covers(*local, interface.ip()));
            has_room && is_bound && !interface.is_loopback() && !interface.is_p2p()
        });
        let is_link_local = interfaces.iter().all(|interface| is_link_local(interface.ip()));
        Self { interfaces, is_link_local, looked_at: Instant::now() }
    }

    /// Looks again if that is long ago.
    pub(super) fn refresh(&mut self, local: &[SocketAddr]) {
        if self.looked_at.elapsed() > AGE_MAX {
            *self = Self::look(local);
        }
    }

    /// Whether the node is announced on this interface: one of a LAN. One with only public
    /// addresses of IPv4 leads elsewhere; one without IPv4 is taken for a LAN.
    pub(super) fn serves(&self, interface: &Interface) -> bool {
        let named = || self.interfaces.iter().filter(|other| other.name == interface.name);
        let mut v4 = named().filter_map(|other| match other.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        });
        let has_v4 = v4.clone().next().is_some();
        named().any(|other| other.ip() == interface.ip())
            && (!has_v4 || v4.any(|ip| ip.is_private() || ip.is_link_local()))
    }

    /// The address, if it is on a network of ours. Link-local ones are of use only where this
    /// machine has no others: they come first and lose their meaning elsewhere.
    pub(super) fn dialable(&self, ip: &ScopedIp) -> Option<Place> {
        let (ip, index) = match ip {
            ScopedIp::V4(v4) => (IpAddr::V4(*v4.addr()), None),
            ScopedIp::V6(v6) => (IpAddr::V6(*v6.addr()), Some(v6.scope_id().index)),
            _ => return None,
        };
        let is_link_local = is_link_local(ip);
        let is_near = self.interfaces.iter().any(|interface| {
            let net = Net::new(interface.ip(), prefix_of(&interface.addr));
            let is_here = !is_link_local || index.is_none() || index == interface.index;
            is_here && net.is_some_and(|net| net.contains(ip))
        });
        let scope = index.filter(|_| is_link_local).unwrap_or_default();
        (is_near && is_link_local == self.is_link_local).then_some(Place { ip, scope })
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn prefix_of(addr: &IfAddr) -> u8 {
    match addr {
        IfAddr::V4(v4) => v4.prefixlen,
        IfAddr::V6(v6) => v6.prefixlen,
    }
}

fn bits_of(addr: &IfAddr) -> u8 {
    match addr {
        IfAddr::V4(_) => 32,
        IfAddr::V6(_) => 128,
    }
}
