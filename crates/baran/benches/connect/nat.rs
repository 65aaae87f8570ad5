//! A port-preserving, port-restricted NAT before every second host (RFC 4787: endpoint-independent
//! mapping, address-and-port-dependent filtering), for packets in memory.
//!
//! Hosts are numbered. An open host `n` has a public address; one behind a NAT has a private one,
//! and its NAT a public one of its own. Each public address is of another /24, as those of
//! strangers are.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// How long a NAT lets in answers (RFC 4787 REQ-5 recommends five minutes or more).
const MAPPING: Duration = Duration::from_secs(300);

/// Second octets of the public addresses of open hosts and of NATs (RFC 2544, 198.18.0.0/15), and
/// the first two of private addresses.
const OPEN: [u8; 2] = [198, 18];
const OUTER: [u8; 2] = [198, 19];
const INNER: [u8; 2] = [10, 19];

const UDP: u8 = 17;

/// Offsets in an IPv4 header and, from its end, in a UDP header.
const PROTOCOL_AT: usize = 9;
const CHECKSUM_AT: usize = 10;
const SOURCE_AT: usize = 12;
const DESTINATION_AT: usize = 16;
const UDP_CHECKSUM_AT: usize = 6;
const UDP_LEN: usize = 8;

/// Where a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its own address.
    pub(crate) inner: Ipv4Addr,
    /// The address that others see.
    pub(crate) outer: Ipv4Addr,
}

impl Place {
    /// The place of host `n`.
    pub(crate) fn new(n: u8, is_natted: bool) -> Self {
        let of = |net: [u8; 2]| Ipv4Addr::new(net[0], net[1], n, 1);
        if is_natted {
            Self { inner: of(INNER), outer: of(OUTER) }
        } else {
            Self { inner: of(OPEN), outer: of(OPEN) }
        }
    }
}

fn is_in(addr: Ipv4Addr, net: [u8; 2]) -> bool {
    addr.octets()[..2] == net
}

fn moved(addr: Ipv4Addr, net: [u8; 2]) -> Ipv4Addr {
    let [_, _, c, d] = addr.octets();
    Ipv4Addr::new(net[0], net[1], c, d)
}

/// All NATs: who behind them has sent where, and when last.
#[derive(Debug, Default)]
pub(crate) struct Nats {
    sent: HashMap<(SocketAddrV4, SocketAddrV4), Instant>,
}

impl Nats {
    /// A packet leaves its host. Returns whether it goes on.
    pub(crate) fn out(&mut self, now: Instant, packet: &mut [u8]) -> bool {
        let Some((from, to)) = endpoints(packet) else { return false };
        // Private addresses lead nowhere, and a NAT does not turn packets round.
        if is_in(*to.ip(), INNER)
            || (is_in(*from.ip(), INNER) && moved(*to.ip(), INNER) == *from.ip())
        {
            return false;
        }
        if is_in(*from.ip(), INNER) {
            self.sent.insert((from, to), now);
            replace(packet, SOURCE_AT, moved(*from.ip(), OUTER));
        }
        true
    }

    /// A packet arrives at its destination's NAT, if that has one. Returns whether it is let in.
    pub(crate) fn back(&mut self, now: Instant, packet: &mut [u8]) -> bool {
        let Some((from, to)) = endpoints(packet) else { return false };
        if !is_in(*to.ip(), OUTER) {
            return true;
        }
        let inner = SocketAddrV4::new(moved(*to.ip(), INNER), to.port());
        let is_answer = self.sent.get(&(inner, from)).is_some_and(|at| now - *at < MAPPING);
        if is_answer {
            replace(packet, DESTINATION_AT, *inner.ip());
        }
        is_answer
    }
}

/// Source and destination of a UDP packet over IPv4 that is no later fragment.
fn endpoints(packet: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4)> {
    let header = header_len(packet)?;
    let addr = |at: usize| packet.get(at..at + 4)?.first_chunk::<4>().map(|b| Ipv4Addr::from(*b));
    let port = |at: usize| packet.get(at..at + 2)?.first_chunk().map(|b| u16::from_be_bytes(*b));
    let is_whole = packet[6] & 0x1f == 0 && packet[7] == 0;
    if packet[PROTOCOL_AT] != UDP || !is_whole || packet.len() < header + UDP_LEN {
        return None;
    }
    let from = SocketAddrV4::new(addr(SOURCE_AT)?, port(header)?);
    Some((from, SocketAddrV4::new(addr(DESTINATION_AT)?, port(header + 2)?)))
}

fn header_len(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let len = usize::from(first & 0x0f) * 4;
    (first >> 4 == 4 && len >= 20 && packet.len() >= len).then_some(len)
}

/// Writes another address, and corrects both checksums by the difference (RFC 1624).
fn replace(packet: &mut [u8], at: usize, addr: Ipv4Addr) {
    let Some(header) = header_len(packet) else { return };
    let new = addr.octets();
    for (i, pair) in new.chunks_exact(2).enumerate() {
        let place = at + 2 * i;
        let old = [packet[place], packet[place + 1]];
        packet[place..place + 2].copy_from_slice(pair);
        let pair = [pair[0], pair[1]];
        correct(packet, CHECKSUM_AT, old, pair);
        let udp = header + UDP_CHECKSUM_AT;
        // Zero is no checksum at all.
        if packet[udp..udp + 2] != [0, 0] {
            correct(packet, udp, old, pair);
        }
    }
}

fn correct(packet: &mut [u8], at: usize, old: [u8; 2], new: [u8; 2]) {
    let word = |bytes: [u8; 2]| u32::from(u16::from_be_bytes(bytes));
    let mut sum =
        (!word([packet[at], packet[at + 1]]) & 0xffff) + (!word(old) & 0xffff) + word(new);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [.., high, low] = (!sum).to_be_bytes();
    packet[at..at + 2].copy_from_slice(&[high, low]);
}
