//! The egress gate: what may leave the socket for a destination that has proved nothing.
//!
//! Strangers make a node send: NAT traversal probes whatever addresses a peer names, and a QUIC
//! server answers whatever source a datagram claims. Without a gate below all senders a node is
//! an open reflector, and a way into networks that only it can see (RFC 9000 §21.5, request
//! forgery). In this order, a datagram passes to a destination that is
//!
//! 1. *trusted*: a validated path, an address that the user gave, one that is being dialled;
//! 2. *heard*: it sent us something lately and gets back at most three times those bytes, the
//!    limit of RFC 9000 §8.1, whatever its class;
//! 3. *probed*: of no denied class (or in a configured block, or private on an attached subnet
//!    while pairing), at a port from 1024 up, small, and within two budgets: datagrams per
//!    destination and datagrams node-wide.
//!
//! Invariants, for any sequence of calls:
//!
//! - Addresses are canonical before they are compared ([`canonical`]): spelling never matters.
//! - A destination gets at most `probes_per_dest` probes in any `probe_window`, because its count
//!   starts again only when a whole window has passed since the last one that left.
//! - In any `t` seconds at most `probes_per_s · (t + 1)` probes leave.
//! - Bytes let out as answers never exceed three times the bytes heard from that address.
//! - A denied datagram spends nothing. Every table is bounded.

mod class;
#[cfg(test)]
mod tests;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use crate::bucket::TokenBucket;
use crate::time::Instant;

pub use class::{Net, NotANet, canonical, canonical_ip, class_of, is_unicast};

/// Bytes that may be answered per byte heard from an unvalidated address (RFC 9000 §8.1).
const ANSWER_FACTOR: u64 = 3;

/// How long the right to answer lasts after the last datagram heard: as long as a handshake may
/// take in all.
const HEARD_FOR: Duration = Duration::from_secs(10);

/// Lowest port that an unproved destination may be probed at: system ports (RFC 6335 §6) belong
/// to services that answer strangers, DNS among them.
const PORT_MIN: u16 = 1024;

/// Most addresses trusted at once; far above the connections that a node admits.
pub const TRUSTED_MAX: usize = 65_536;

/// Most attached subnets and configured blocks that are looked at, each; the rest is ignored.
pub const NETS_MAX: usize = 256;

/// Limits of a [`Gate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateConfig {
    /// Blocks whose class does not matter; budgets hold for them. For tests and closed networks.
    pub allow_nets: Vec<Net>,
    /// Datagrams to one unproved destination in any `probe_window`.
    pub probes_per_dest: u32,
    /// The window of `probes_per_dest`.
    pub probe_window: Duration,
    /// Datagrams a second to all unproved destinations, and the burst after a pause.
    pub probes_per_s: u32,
    /// Bytes of UDP payload in one such datagram.
    pub probe_bytes_max: usize,
    /// Unproved destinations remembered, and as many heard sources.
    pub dests_max: usize,
}

impl Default for GateConfig {
    /// Nine probes are what three punching rounds of three need.
    fn default() -> Self {
        Self {
            allow_nets: Vec::new(),
            probes_per_dest: 9,
            probe_window: Duration::from_secs(10),
            probes_per_s: 50,
            probe_bytes_max: 1280,
            dests_max: 4096,
        }
    }
}

/// Why a datagram may not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Denied {
    /// The node itself: 127.0.0.0/8, `::1`.
    #[error("loopback address")]
    Loopback,
    /// RFC 1918, or unique local IPv6 (RFC 4193).
    #[error("private address")]
    Private,
    /// Carrier-grade NAT, 100.64.0.0/10 (RFC 6598).
    #[error("shared address space")]
    SharedAddressSpace,
    /// 169.254.0.0/16, `fe80::/10`.
    #[error("link-local address")]
    LinkLocal,
    /// 224.0.0.0/4, `ff00::/8`.
    #[error("multicast address")]
    Multicast,
    /// 255.255.255.255, or the broadcast address of an attached subnet.
    #[error("broadcast address")]
    Broadcast,
    /// 0.0.0.0, `::`.
    #[error("unspecified address")]
    Unspecified,
    /// Documentation, benchmarks, protocol assignments, and whatever is not allocated.
    #[error("reserved address")]
    Reserved,
    /// An IPv4 address in a form that a translator or tunnel unfolds.
    #[error("translated address")]
    Translated,
    /// A port below 1024.
    #[error("port below 1024")]
    LowPort,
    /// A datagram larger than a probe needs to be.
    #[error("datagram too large for an unproved destination")]
    TooLarge,
    /// The destination got its probes for this window.
    #[error("probes of this destination used up")]
    DestBudget,
    /// The node sent its probes for this second.
    #[error("probes of this node used up")]
    NodeBudget,
    /// Too many unproved destinations at once.
    #[error("too many unproved destinations")]
    TableFull,
}

impl Denied {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 14] = [
        Self::Loopback,
        Self::Private,
        Self::SharedAddressSpace,
        Self::LinkLocal,
        Self::Multicast,
        Self::Broadcast,
        Self::Unspecified,
        Self::Reserved,
        Self::Translated,
        Self::LowPort,
        Self::TooLarge,
        Self::DestBudget,
        Self::NodeBudget,
        Self::TableFull,
    ];
}

/// Decides for every datagram whether it may leave.
#[derive(Debug)]
pub struct Gate {
    config: GateConfig,
    local_subnets: Vec<Net>,
    paired_until: Instant,
    trusted: BTreeMap<SocketAddr, u32>,
    /// Bytes that each heard source may get.
    heard: Table<u64>,
    /// Probes that each destination got.
    probed: Table<u64>,
    node_budget: TokenBucket,
    denied: [u64; Denied::ALL.len()],
}

impl Gate {
    /// Creates a gate that trusts nobody.
    #[must_use]
    pub fn new(mut config: GateConfig) -> Self {
        config.allow_nets.truncate(NETS_MAX);
        let probes_per_s = u64::from(config.probes_per_s);
        let dests_max = config.dests_max;
        Self {
            config,
            local_subnets: Vec::new(),
            paired_until: Instant::default(),
            trusted: BTreeMap::new(),
            heard: Table::new(dests_max),
            probed: Table::new(dests_max),
            node_budget: TokenBucket::new(probes_per_s, probes_per_s),
            denied: [0; Denied::ALL.len()],
        }
    }

    /// Replaces what is known of the attached subnets: own address and prefix length of each.
    /// Entries that are no block are ignored.
    pub fn set_local_subnets(&mut self, subnets: &[(IpAddr, u8)]) {
        let nets = subnets.iter().filter_map(|&(addr, prefix)| Net::new(addr, prefix));
        self.local_subnets = nets.take(NETS_MAX).collect();
    }

    /// Lets everything pass to `addr` until [`Self::untrust`] was called as often as this.
    ///
    /// Returns false, and counts nothing, if `addr` is no unicast address with a port or if
    /// [`TRUSTED_MAX`] others are trusted: then it must not be untrusted either.
    pub fn trust(&mut self, addr: SocketAddr) -> bool {
        let addr = canonical(addr);
        let full = self.trusted.len() >= TRUSTED_MAX;
        if !is_unicast(addr) || full && !self.trusted.contains_key(&addr) {
            return false;
        }
        let holders = self.trusted.entry(addr).or_insert(0);
        *holders = holders.saturating_add(1);
        true
    }

    /// Takes back one [`Self::trust`]; does nothing where there is none.
    pub fn untrust(&mut self, addr: SocketAddr) {
        let addr = canonical(addr);
        if let Some(holders) = self.trusted.get_mut(&addr) {
            *holders = holders.saturating_sub(1);
            if *holders == 0 {
                self.trusted.remove(&addr);
            }
        }
    }

    /// Tells whether `addr` is trusted.
    #[must_use]
    pub fn is_trusted(&self, addr: SocketAddr) -> bool {
        self.trusted.contains_key(&canonical(addr))
    }

    /// Lets private destinations on an attached subnet pass the class check for `ttl`: a peer
    /// behind the same NAT was vouched for. Never shortens what was granted before.
    pub fn pair(&mut self, now: Instant, ttl: Duration) {
        self.paired_until = self.paired_until.max(now + ttl);
    }

    /// Notes that `bytes` came from `from`, so that it can be answered within bounds.
    ///
    /// With the table full, the source heard least recently is forgotten: a flood of forged
    /// sources shortens the time to answer, but does not lock out newcomers.
    pub fn heard(&mut self, now: Instant, from: SocketAddr, bytes: usize) {
        let from = canonical(from);
        if self.trusted.contains_key(&from) {
            return;
        }
        let credit = ANSWER_FACTOR.saturating_mul(bytes as u64);
        let held = self.heard.live(now, from).unwrap_or(0);
        if held > 0 || self.heard.make_room(now, from) || self.heard.evict_oldest() {
            self.heard.set(now + HEARD_FOR, from, held.saturating_add(credit));
        }
    }

    /// Decides on `datagrams` datagrams, `bytes` of UDP payload in all, to one destination.
    ///
    /// # Errors
    ///
    /// [`Denied`]: none of them may leave; they are counted as denied and spent nothing.
    pub fn check(
        &mut self,
        now: Instant,
        to: SocketAddr,
        bytes: usize,
        datagrams: usize,
    ) -> Result<(), Denied> {
        let to = canonical(to);
        if self.trusted.contains_key(&to) || self.take_credit(now, to, bytes as u64) {
            return Ok(());
        }
        let datagrams = datagrams.max(1);
        let outcome = self.check_unproved(now, to, bytes, datagrams);
        if let Err(kind) = outcome {
            let counter = &mut self.denied[kind as usize];
            *counter = counter.saturating_add(datagrams as u64);
        }
        outcome
    }

    /// Returns how many datagrams were denied for `kind`. Saturates.
    #[must_use]
    pub const fn denied_count(&self, kind: Denied) -> u64 {
        self.denied[kind as usize]
    }

    fn take_credit(&mut self, now: Instant, to: SocketAddr, bytes: u64) -> bool {
        let rest = self.heard.live(now, to).and_then(|credit| credit.checked_sub(bytes));
        if let Some(rest) = rest {
            self.heard.update(to, rest);
        }
        rest.is_some()
    }

    fn check_unproved(
        &mut self,
        now: Instant,
        to: SocketAddr,
        bytes: usize,
        datagrams: usize,
    ) -> Result<(), Denied> {
        self.check_class(now, to.ip())?;
        if to.port() < PORT_MIN {
            return Err(Denied::LowPort);
        }
        if bytes > self.config.probe_bytes_max.saturating_mul(datagrams) {
            return Err(Denied::TooLarge);
        }
        let probes = datagrams as u64;
        let sent = self.probed.live(now, to);
        let total = sent.unwrap_or(0).saturating_add(probes);
        if total > u64::from(self.config.probes_per_dest) {
            return Err(Denied::DestBudget);
        }
        if sent.is_none() && !self.probed.make_room(now, to) {
            return Err(Denied::TableFull);
        }
        if !self.node_budget.try_take(now, probes) {
            return Err(Denied::NodeBudget);
        }
        self.probed.set(now + self.config.probe_window, to, total);
        Ok(())
    }

    fn check_class(&self, now: Instant, ip: IpAddr) -> Result<(), Denied> {
        if self.config.allow_nets.iter().any(|net| net.contains(ip)) {
            return Ok(());
        }
        if self.local_subnets.iter().any(|net| net.is_broadcast(ip)) {
            return Err(Denied::Broadcast);
        }
        match class_of(ip) {
            None => Ok(()),
            Some(Denied::Private)
                if now < self.paired_until
                    && self.local_subnets.iter().any(|net| net.contains(ip)) =>
            {
                Ok(())
            }
            Some(kind) => Err(kind),
        }
    }
}

/// A bounded table of values that end.
#[derive(Debug)]
struct Table<T> {
    len_max: usize,
    entries: BTreeMap<SocketAddr, (Instant, T)>,
    by_end: BTreeSet<(Instant, SocketAddr)>,
}

impl<T: Copy> Table<T> {
    const fn new(len_max: usize) -> Self {
        Self { len_max, entries: BTreeMap::new(), by_end: BTreeSet::new() }
    }

    /// Returns the value of `addr` unless it has ended.
    fn live(&self, now: Instant, addr: SocketAddr) -> Option<T> {
        self.entries.get(&addr).filter(|(ends, _)| now < *ends).map(|&(_, value)| value)
    }

    /// Tells whether `addr` can be set, after dropping what has ended if need be.
    fn make_room(&mut self, now: Instant, addr: SocketAddr) -> bool {
        if self.entries.contains_key(&addr) {
            return true;
        }
        if self.entries.len() >= self.len_max {
            while self.by_end.first().is_some_and(|&(ends, _)| ends <= now) {
                self.evict_oldest();
            }
        }
        self.entries.len() < self.len_max
    }

    /// Drops the entry that ends first; false if there is none.
    fn evict_oldest(&mut self) -> bool {
        let oldest = self.by_end.pop_first();
        if let Some((_, addr)) = oldest {
            self.entries.remove(&addr);
        }
        oldest.is_some()
    }

    /// Sets the value of `addr`, which has an entry or room for one.
    fn set(&mut self, ends: Instant, addr: SocketAddr, value: T) {
        if let Some((old, _)) = self.entries.insert(addr, (ends, value)) {
            self.by_end.remove(&(old, addr));
        }
        self.by_end.insert((ends, addr));
    }

    /// Changes the value of an entry and leaves its end.
    fn update(&mut self, addr: SocketAddr, value: T) {
        if let Some(entry) = self.entries.get_mut(&addr) {
            entry.1 = value;
        }
    }
}
