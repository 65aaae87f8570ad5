//! Classes of addresses that nobody may be made to send to on a stranger's word.
//!
//! From the IANA special-purpose registries (RFC 6890) for IPv4 and IPv6. For IPv6 the rule is
//! turned around: outside the global unicast block `2000::/3` (RFC 4291 §2.4) all is denied.
//!
//! One destination has several spellings. IPv4-mapped IPv6 is folded into IPv4 before anything is
//! compared ([`canonical`]); forms that a translator or a tunnel on the way would unfold (NAT64,
//! 6to4, Teredo, IPv4-compatible) are denied whole, whatever they embed. A NAT64 prefix that an
//! operator picked from global space (RFC 6052 §2.2) cannot be told from other addresses.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use core::str::FromStr;

use super::Denied;

/// Returns the one spelling of `ip` that tables are keyed by: IPv4-mapped IPv6 as IPv4.
#[inline]
#[must_use]
pub const fn canonical_ip(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// Returns the one spelling of `addr` that tables are keyed by.
///
/// IPv4-mapped IPv6 becomes IPv4, the flow label goes, and the scope stays only where it tells
/// addresses apart (link-local, RFC 4007 §6).
#[inline]
#[must_use]
pub const fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => SocketAddr::V4(SocketAddrV4::new(ip, v6.port())),
            None => {
                let scope = if v6.ip().is_unicast_link_local() { v6.scope_id() } else { 0 };
                SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, scope))
            }
        },
    }
}

/// Tells whether one host can be meant by `addr`: a port, and neither multicast, broadcast nor
/// the unspecified address.
#[must_use]
pub fn is_unicast(addr: SocketAddr) -> bool {
    let class = class_of(addr.ip());
    let group = [Denied::Multicast, Denied::Broadcast, Denied::Unspecified];
    addr.port() != 0 && !class.is_some_and(|class| group.contains(&class))
}

/// Returns the class for which `ip` is denied to those who have proved nothing, in any spelling,
/// or `None` for an ordinary global unicast address.
#[must_use]
pub fn class_of(ip: IpAddr) -> Option<Denied> {
    match canonical_ip(ip) {
        IpAddr::V4(v4) => class_of_v4(v4),
        IpAddr::V6(v6) => class_of_v6(v6),
    }
}

fn class_of_v4(ip: Ipv4Addr) -> Option<Denied> {
    Some(match ip.octets() {
        [0, 0, 0, 0] => Denied::Unspecified,
        [255, 255, 255, 255] => Denied::Broadcast,
        [127, ..] => Denied::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Denied::Private,
        [100, 64..=127, ..] => Denied::SharedAddressSpace,
        [169, 254, ..] => Denied::LinkLocal,
        [224..=239, ..] => Denied::Multicast,
        // "This network", and class E (RFC 1112 §4).
        [0, ..] | [240..=255, ..] => Denied::Reserved,
        // Protocol assignments, documentation (RFC 5737), benchmarks (RFC 2544).
        [192, 0, 0 | 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [198, 18 | 19, ..] => {
            Denied::Reserved
        }
        // The anycast address of 6to4 relays (RFC 7526).
        [192, 88, 99, _] => Denied::Translated,
        _ => return None,
    })
}

fn class_of_v6(ip: Ipv6Addr) -> Option<Denied> {
    Some(match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Denied::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Denied::Loopback,
        // IPv4-compatible (RFC 4291 §2.5.5.1) and IPv4-translated (RFC 2765 §2.1).
        [0, 0, 0, 0, 0, 0, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] => Denied::Translated,
        // NAT64: well-known (RFC 6052) and local (RFC 8215) prefix.
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] | [0x64, 0xff9b, 1, ..] => Denied::Translated,
        // Teredo (RFC 4380) and 6to4 (RFC 3056).
        [0x2001, 0, ..] | [0x2002, ..] => Denied::Translated,
        // Protocol assignments 2001::/23 (RFC 2928), documentation (RFC 3849, RFC 9637).
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Denied::Reserved,
        [0x2000..=0x3fff, ..] => return None,
        [0xfc00..=0xfdff, ..] => Denied::Private,
        [0xfe80..=0xfebf, ..] => Denied::LinkLocal,
        [0xff00..=0xffff, ..] => Denied::Multicast,
        // Discard-only (RFC 6666), site-local (RFC 3879), unallocated.
        _ => Denied::Reserved,
    })
}

/// A block of addresses, such as `10.0.0.0/8`.
///
/// A block of IPv6 never covers IPv4 addresses, in no spelling of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Net {
    addr: IpAddr,
    prefix: u8,
}

impl Net {
    /// Creates the block of `prefix` bits around `addr`; `None` if there are not so many bits.
    ///
    /// A block within `::ffff:0:0/96` is the block of IPv4 that it spells.
    #[must_use]
    pub fn new(addr: IpAddr, prefix: u8) -> Option<Self> {
        match (addr, canonical_ip(addr)) {
            (IpAddr::V6(_), addr @ IpAddr::V4(_)) if prefix >= 96 => Self::new(addr, prefix - 96),
            (IpAddr::V4(_), _) if prefix <= 32 => Some(Self { addr, prefix }),
            (IpAddr::V6(_), _) if prefix <= 128 => Some(Self { addr, prefix }),
            _ => None,
        }
    }

    /// Tells whether `ip`, in any spelling, lies in the block.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.addr, canonical_ip(ip)) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                (net.to_bits() ^ ip.to_bits()).leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                (net.to_bits() ^ ip.to_bits()).leading_zeros() >= u32::from(self.prefix)
            }
            _ => false,
        }
    }

    /// Tells whether `ip` is the broadcast address of the block, in its modern form (all ones,
    /// RFC 919) or its old one (all zeros, RFC 1122 §3.3.6).
    pub(super) fn is_broadcast(&self, ip: IpAddr) -> bool {
        let (IpAddr::V4(ip4), true) = (canonical_ip(ip), self.contains(ip)) else { return false };
        // Links of two hosts have no broadcast address (RFC 3021); a /0 is no subnet.
        if !(1..=30).contains(&self.prefix) {
            return false;
        }
        let host_mask = u32::MAX >> self.prefix;
        let host = ip4.to_bits() & host_mask;
        host == 0 || host == host_mask
    }
}

/// The text is not a block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a block of addresses; write it like 10.0.0.0/8 or fd00::/8")]
pub struct NotANet;

impl FromStr for Net {
    type Err = NotANet;

    /// Reads `address/prefix`; a bare address is a block of one.
    fn from_str(text: &str) -> Result<Self, NotANet> {
        let (addr, prefix) = match text.split_once('/') {
            Some((addr, prefix)) => (addr, prefix.parse().map_err(|_| NotANet)?),
            None => (text, if text.contains(':') { 128 } else { 32 }),
        };
        Self::new(addr.parse().map_err(|_| NotANet)?, prefix).ok_or(NotANet)
    }
}
