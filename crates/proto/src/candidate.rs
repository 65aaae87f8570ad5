//! Our own addresses: which we have, how others see us, and what that says about our NAT.
//!
//! A *candidate* is an address at which we might be reached (RFC 8445 §2.1): a *host* candidate is
//! an address of an interface, a *reflexive* one is what a peer saw as the source of our packets.
//! If peers at different addresses see one reflexive address, the NAT's mapping is
//! endpoint-independent (RFC 4787 §4.1) and that address can be punched; if each sees another, it
//! is address-dependent.
//!
//! A report is a claim. One peer has one voice, the latest it said; an address that two peers name
//! beats any that one names, so a minority cannot move us.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::egress::{Net, canonical};
use crate::flat::FlatMap;
use crate::id::NodeId;

/// Most reports kept; the first peers to report stay. 64 voices are plenty for a majority.
const REPORTS_MAX: usize = 64;

/// Most reflexive candidates of an address-dependent mapping: each costs the peer probes.
const DEPENDENT_MAX: usize = 2;

/// How our NAT maps our port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// No NAT: others see an address of one of our interfaces.
    None,
    /// One outside address whoever looks.
    EndpointIndependent,
    /// Another outside address for different peers.
    AddressDependent,
    /// Fewer than two peers have told.
    Unknown,
}

impl Mapping {
    /// The name in the output of commands.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::Unknown => "unknown",
        }
    }
}

/// An address of one of our interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostAddr {
    /// The address.
    pub ip: IpAddr,
    /// Length of its network's prefix in bits.
    pub prefix: u8,
}

impl HostAddr {
    /// Whether `ip` is on the network of this interface.
    #[must_use]
    pub fn is_on_link(&self, ip: IpAddr) -> bool {
        Net::new(self.ip, self.prefix).is_some_and(|net| net.contains(ip))
    }
}

/// Our addresses. See the module's documentation.
#[derive(Debug, Default)]
pub struct Candidates {
    host: Vec<HostAddr>,
    /// What our sockets are bound to.
    bound: Vec<SocketAddr>,
    reports: FlatMap<NodeId, SocketAddr>,
    /// What follows from all that, because it is asked for much more often than it changes.
    outlook: Outlook,
}

/// What others can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outlook {
    mapping: Mapping,
    /// For peers outside, the best first.
    public: Vec<SocketAddr>,
    /// For a neighbour.
    local: Vec<SocketAddr>,
}

impl Default for Outlook {
    fn default() -> Self {
        Self { mapping: Mapping::Unknown, public: Vec::new(), local: Vec::new() }
    }
}

impl Candidates {
    /// Replaces the addresses of our interfaces and those that our sockets are bound to. Returns
    /// whether anything changed.
    pub fn set_host(&mut self, mut host: Vec<HostAddr>, bound: Vec<SocketAddr>) -> bool {
        host.sort_unstable();
        host.dedup();
        let changed = (&self.host, &self.bound) != (&host, &bound);
        self.host = host;
        self.bound = bound;
        self.refresh();
        changed
    }

    fn refresh(&mut self) {
        let hosts = self.host_addrs();
        // Peers on our own network see us at a private address, which says nothing about the
        // outside and is nothing for those outside.
        let mut public = [self.reflexive(false, true), self.reflexive(true, true)].concat();
        let mut local =
            [&public[..], &self.reflexive(false, false), &self.reflexive(true, false)].concat();
        public.extend(hosts.iter().filter(|addr| is_public(addr.ip())));
        local.extend(hosts);
        dedup(&mut public);
        dedup(&mut local);
        self.outlook = Outlook { mapping: self.judge_mapping(), public, local };
    }

    /// Addresses of one kind as others see us: the one that most name, or else the first few.
    fn reflexive(&self, v4: bool, public: bool) -> Vec<SocketAddr> {
        let is_meant = |a: &SocketAddr| a.is_ipv4() == v4 && is_public(a.ip()) == public;
        let reports: Vec<_> = self.reports.values().copied().filter(is_meant).collect();
        match majority(&reports) {
            _ if reports.is_empty() => Vec::new(),
            Some(addr) => vec![addr],
            None => self.observed().into_iter().filter(is_meant).take(DEPENDENT_MAX).collect(),
        }
    }

    /// Takes the word of `peer` that it sees us at `addr`. Returns whether our mapping or what we
    /// offer is different now.
    pub fn report(&mut self, peer: NodeId, addr: SocketAddr) -> bool {
        let addr = canonical(addr);
        if self.reports.len() >= REPORTS_MAX && !self.reports.contains_key(&peer) {
            return false;
        }
        if self.reports.insert(peer, addr) == Some(addr) {
            return false;
        }
        let before = self.outlook.clone();
        self.refresh();
        self.outlook != before
    }

    /// Forgets what `peer` said.
    pub fn forget(&mut self, peer: NodeId) {
        if self.reports.remove(&peer).is_some() {
            self.refresh();
        }
    }

    /// Addresses as others see us, those with most voices first.
    #[must_use]
    pub fn observed(&self) -> Vec<SocketAddr> {
        let mut voices: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        for addr in self.reports.values() {
            *voices.entry(*addr).or_default() += 1;
        }
        let mut observed: Vec<_> = voices.into_iter().collect();
        observed.sort_by_key(|(addr, count)| (core::cmp::Reverse(*count), *addr));
        observed.into_iter().map(|(addr, _)| addr).collect()
    }

    /// The mapping of our NAT, judged by IPv4 if anybody sees us there, else by IPv6.
    #[must_use]
    pub fn mapping(&self) -> Mapping {
        self.outlook.mapping
    }

    fn judge_mapping(&self) -> Mapping {
        let of_family =
            |v4: bool| self.reports.values().filter(move |addr| addr.is_ipv4() == v4).copied();
        let reports: Vec<_> = if of_family(true).next().is_some() {
            of_family(true).collect()
        } else {
            of_family(false).collect()
        };
        match majority(&reports) {
            Some(addr) if self.is_host(addr) => return Mapping::None,
            _ => {}
        }
        // Peers on our own network see a host address; only the others see the NAT's.
        let outside: Vec<_> = reports.into_iter().filter(|addr| !self.is_host(*addr)).collect();
        match majority(&outside) {
            _ if outside.len() < 2 => Mapping::Unknown,
            Some(_) => Mapping::EndpointIndependent,
            None => Mapping::AddressDependent,
        }
    }

    fn is_host(&self, addr: SocketAddr) -> bool {
        let is_bound =
            |bound: &SocketAddr| bound.port() == addr.port() && covers(*bound, addr.ip());
        self.bound.iter().any(is_bound) && self.host.iter().any(|host| host.ip == addr.ip())
    }

    /// Whether `ip` lies on a network that one of our interfaces is on.
    #[must_use]
    pub fn is_on_link(&self, ip: IpAddr) -> bool {
        self.host.iter().any(|host| host.is_on_link(ip))
    }

    /// Whether most of those who see us see us at this very IP: whoever else is seen there sits
    /// behind our NAT. One voice among several must not make a stranger a neighbour.
    #[must_use]
    pub fn is_our_outside(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let is_comparable =
            |other: &IpAddr| other.is_ipv4() == ip.is_ipv4() && is_public(*other) == is_public(ip);
        let seen = || self.reports.values().map(SocketAddr::ip).filter(is_comparable);
        seen().filter(|other| *other == ip).count() * 2 > seen().count()
    }

    /// The networks of our interfaces.
    #[must_use]
    pub fn host_nets(&self) -> Vec<(IpAddr, u8)> {
        self.host.iter().map(|host| (host.ip, host.prefix)).collect()
    }

    /// Host addresses with the ports of the sockets that are reached there, best (public) first.
    #[must_use]
    pub fn host_addrs(&self) -> Vec<SocketAddr> {
        let bound_at = |host: &HostAddr| {
            let ip = host.ip;
            let here = self.bound.iter().filter(move |bound| covers(**bound, ip));
            here.map(move |bound| SocketAddr::new(ip, bound.port()))
        };
        let mut addrs: Vec<_> = self.host.iter().flat_map(bound_at).collect();
        addrs.sort_by_key(|addr| (!is_public(addr.ip()), *addr));
        addrs.dedup();
        addrs
    }

    /// What to offer a peer, at most `max`: reflexive addresses that a majority confirms (or a few
    /// of an address-dependent mapping) and public host addresses; with `local` also the private
    /// ones, for a peer behind the same NAT.
    #[must_use]
    pub fn offer(&self, local: bool, max: usize) -> Vec<SocketAddr> {
        let offer = if local { &self.outlook.local } else { &self.outlook.public };
        offer.iter().copied().take(max).collect()
    }
}

/// Leaves of equal addresses the first.
fn dedup(addrs: &mut Vec<SocketAddr>) {
    let mut seen = Vec::with_capacity(addrs.len());
    addrs.retain(|addr| {
        let is_new = !seen.contains(addr);
        seen.push(*addr);
        is_new
    });
}

/// Whether a socket bound to `bound` is reached at `ip`. One bound to all of IPv6 takes IPv4 too.
#[must_use]
pub fn covers(bound: SocketAddr, ip: IpAddr) -> bool {
    match bound.ip() {
        IpAddr::V6(any) if any.is_unspecified() => true,
        IpAddr::V4(any) if any.is_unspecified() => ip.is_ipv4(),
        bound => bound.to_canonical() == ip,
    }
}

/// The address that more than half of the reports name (Boyer and Moore, 1981).
fn majority(reports: &[SocketAddr]) -> Option<SocketAddr> {
    let mut leader: Option<(SocketAddr, usize)> = None;
    for addr in reports {
        leader = match leader {
            None | Some((_, 0)) => Some((*addr, 1)),
            Some((best, lead)) if best == *addr => Some((best, lead + 1)),
            Some((best, lead)) => Some((best, lead - 1)),
        };
    }
    let (addr, _) = leader?;
    let count = reports.iter().filter(|report| **report == addr).count();
    (count * 2 > reports.len()).then_some(addr)
}

/// Whether an interface's address can be meant for anybody outside its site.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xC0 == 64;
            !(ip.is_private() || ip.is_link_local() || ip.is_loopback() || shared)
        }
        IpAddr::V6(ip) => !(ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn candidates(host: &str, reports: &[&str]) -> Candidates {
        let mut candidates = Candidates::default();
        let host = HostAddr { ip: host.parse().unwrap(), prefix: 24 };
        candidates.set_host(vec![host], vec![addr("[::]:4000")]);
        for (n, report) in (1..).zip(reports) {
            candidates.report(peer(n), addr(report));
        }
        candidates
    }

    #[test]
    fn mapping_is_judged_by_two_peers() {
        let check = |host, reports: &[&str], expect| {
            assert_eq!(candidates(host, reports).mapping(), expect, "{reports:?}");
        };
        check("192.168.1.2", &[], Mapping::Unknown);
        check("192.168.1.2", &["9.9.9.9:4000"], Mapping::Unknown);
        check("9.9.9.9", &["9.9.9.9:4000"], Mapping::None);
        check("9.9.9.9", &["[::ffff:9.9.9.9]:4000", "9.9.9.9:4000"], Mapping::None);
        check("192.168.1.2", &["9.9.9.9:7", "9.9.9.9:7"], Mapping::EndpointIndependent);
        check("192.168.1.2", &["9.9.9.9:7", "9.9.9.9:8"], Mapping::AddressDependent);
        // A peer on our own network does not make a NAT look address-dependent.
        check("192.168.1.2", &["192.168.1.2:4000", "9.9.9.9:8"], Mapping::Unknown);
    }

    #[test]
    fn a_minority_of_liars_moves_nothing() {
        let honest = ["9.9.9.9:7", "9.9.9.9:7", "9.9.9.9:7"];
        for lies in [["6.6.6.6:1", "6.6.6.6:1"], ["6.6.6.6:1", "6.6.6.6:2"]] {
            let all = candidates("192.168.1.2", &[&honest[..], &lies[..]].concat());
            assert_eq!(all.mapping(), Mapping::EndpointIndependent);
            assert_eq!(all.offer(false, 8), [addr("9.9.9.9:7")]);
            assert!(!all.is_our_outside("6.6.6.6".parse().unwrap()));
        }
        // One peer that says something new each time still has one voice.
        let mut spoken = candidates("192.168.1.2", &honest[..2]);
        for port in 1..100 {
            spoken.report(peer(9), SocketAddr::from(([6, 6, 6, 6], port)));
        }
        assert_eq!(spoken.offer(false, 8), [addr("9.9.9.9:7")]);
    }

    #[test]
    fn an_interface_has_the_ports_of_the_sockets_bound_to_it() {
        let mut candidates = Candidates::default();
        let hosts = ["10.0.0.1", "127.0.0.1", "::1"];
        let hosts = hosts.map(|ip| HostAddr { ip: ip.parse().unwrap(), prefix: 24 });
        let offered = |candidates: &mut Candidates, bound: &[&str]| {
            candidates.set_host(hosts.to_vec(), bound.iter().map(|text| addr(text)).collect());
            candidates.host_addrs()
        };
        let each = offered(&mut candidates, &["127.0.0.1:1", "[::1]:2"]);
        assert_eq!(each, ["127.0.0.1:1", "[::1]:2"].map(addr));
        let all_v4 = offered(&mut candidates, &["0.0.0.0:3"]);
        assert_eq!(all_v4, ["10.0.0.1:3", "127.0.0.1:3"].map(addr));
        assert_eq!(offered(&mut candidates, &["[::]:4"]).len(), 3);
    }

    #[test]
    fn reports_are_bounded() {
        let mut all = Candidates::default();
        for n in 0..=255 {
            all.report(peer(n), SocketAddr::from(([9, 9, 9, n], 1)));
        }
        assert_eq!(all.reports.len(), REPORTS_MAX);
        assert!(all.offer(false, 8).len() <= 8);
    }

    #[test]
    fn private_addresses_are_offered_only_to_neighbours() {
        let home = candidates("192.168.1.2", &["9.9.9.9:7", "9.9.9.9:7"]);
        assert_eq!(home.offer(false, 8), [addr("9.9.9.9:7")]);
        assert_eq!(home.offer(true, 8), [addr("9.9.9.9:7"), addr("192.168.1.2:4000")]);
        assert!(home.is_our_outside("9.9.9.9".parse().unwrap()));
        // Peers on our own network are no voices about the outside.
        let lan = candidates("192.168.1.2", &["192.168.1.2:4000", "192.168.1.2:4000", "9.9.9.9:7"]);
        assert_eq!(lan.offer(false, 8), [addr("9.9.9.9:7")]);
        assert_eq!(lan.offer(true, 8), [addr("9.9.9.9:7"), addr("192.168.1.2:4000")]);
        assert!(lan.is_our_outside("9.9.9.9".parse().unwrap()));
        assert!(home.is_on_link("192.168.1.77".parse().unwrap()));
        assert!(!home.is_on_link("192.168.2.77".parse().unwrap()));
    }
}
