//! Addresses that stand for "through this relay, on this channel".
//!
//! QUIC knows paths by socket address, so each relayed path gets one that exists nowhere else: a
//! unique local address (RFC 4193) `fd` + 40 random bits + 16 zero bits + a 64-bit counter, port
//! 1. A counter value is never used twice, so a late packet cannot be taken for another peer's.
//!
//! Invariants: the two directions of look-up always agree; the table never passes its limit; a
//! peer that talks through a relay without having been announced (it dialled us) takes one of the
//! few places of that relay, and pushes out only places of the same relay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use baran_proto::frame::Channel;

/// Port of every mapped address. Zero would be refused by QUIC as no address at all.
const MAPPED_PORT: u16 = 1;

/// The block of addresses that one socket's mappings are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix([u8; 8]);

impl Prefix {
    /// The block for the low 40 bits of `seed`.
    pub(super) fn from_seed(seed: u64) -> Self {
        let [_, _, _, a, b, c, d, e] = seed.to_be_bytes();
        Self([0xfd, a, b, c, d, e, 0, 0])
    }

    /// Whether `ip` is in the block.
    pub(super) fn contains(self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V6(ip) => ip.octets()[..8] == self.0,
            IpAddr::V4(_) => false,
        }
    }

    fn address(self, number: u64) -> SocketAddr {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&self.0);
        octets[8..].copy_from_slice(&number.to_be_bytes());
        SocketAddr::from((Ipv6Addr::from(octets), MAPPED_PORT))
    }

    fn number(self, addr: SocketAddr) -> Option<u64> {
        let IpAddr::V6(ip) = addr.ip() else { return None };
        let octets = ip.octets();
        let ([high, low], []) = octets.as_chunks::<8>() else { return None };
        (*high == self.0 && addr.port() == MAPPED_PORT).then(|| u64::from_be_bytes(*low))
    }
}

/// The table of relayed paths.
#[derive(Debug)]
pub(super) struct Mappings {
    prefix: Prefix,
    /// Number of the next mapping; also the clock of "least recently used".
    next: u64,
    by_number: BTreeMap<u64, Mapping>,
    by_frame: BTreeMap<(SocketAddr, Channel), u64>,
    /// Relays through which unannounced peers may reach us, with the mappings they caused.
    inbound: BTreeMap<SocketAddr, BTreeSet<u64>>,
    mappings_max: usize,
    inbound_max: usize,
}

#[derive(Debug)]
struct Mapping {
    relay: SocketAddr,
    channel: Channel,
    used: u64,
}

/// What [`Mappings::inbound`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inbound {
    /// The mapping of the frame; `replaced` tells that another one had to go.
    Mapped {
        /// The address QUIC shall see.
        addr: SocketAddr,
        /// Whether cached look-ups of others became stale.
        replaced: bool,
    },
    /// The relay may not make mappings, or has no place left.
    Refused,
}

impl Mappings {
    /// An empty table. `mappings_max` bounds all mappings, `inbound_max` those that peers behind
    /// one relay can cause.
    pub(super) fn new(prefix: Prefix, mappings_max: usize, inbound_max: usize) -> Self {
        Self {
            prefix,
            next: 1,
            by_number: BTreeMap::new(),
            by_frame: BTreeMap::new(),
            inbound: BTreeMap::new(),
            mappings_max: mappings_max.max(1),
            inbound_max: inbound_max.max(1),
        }
    }

    /// Number of mappings.
    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Maps `(relay, channel)`, or returns the mapping there is and makes it announced, so that
    /// the relay's unannounced peers cannot push it out.
    ///
    /// The second value tells whether another mapping had to go.
    pub(super) fn add(&mut self, relay: SocketAddr, channel: Channel) -> (SocketAddr, bool) {
        if let Some(&number) = self.by_frame.get(&(relay, channel)) {
            if let Some(caused) = self.inbound.get_mut(&relay) {
                caused.remove(&number);
            }
            self.touch(number);
            return (self.prefix.address(number), false);
        }
        let replaced = self.by_number.len() >= self.mappings_max;
        if replaced {
            let oldest = self.by_number.iter().min_by_key(|(_, m)| m.used).map(|(n, _)| *n);
            if let Some(oldest) = oldest {
                self.remove_number(oldest);
            }
        }
        (self.prefix.address(self.insert(relay, channel)), replaced)
    }

    /// Forgets a mapping; tells whether there was one.
    pub(super) fn remove(&mut self, mapped: SocketAddr) -> bool {
        self.prefix.number(mapped).is_some_and(|number| self.remove_number(number))
    }

    /// The relay and channel of a mapped address.
    pub(super) fn lookup(&self, mapped: SocketAddr) -> Option<(SocketAddr, Channel)> {
        let mapping = self.by_number.get(&self.prefix.number(mapped)?)?;
        Some((mapping.relay, mapping.channel))
    }

    /// The mapped address of a frame from `relay`, and notes that it is in use.
    pub(super) fn find(&mut self, relay: SocketAddr, channel: Channel) -> Option<SocketAddr> {
        let number = *self.by_frame.get(&(relay, channel))?;
        self.touch(number);
        Some(self.prefix.address(number))
    }

    /// Allows or forbids that unannounced peers reach us through `relay`. Tells whether mappings
    /// went.
    pub(super) fn set_inbound(&mut self, relay: SocketAddr, allowed: bool) -> bool {
        if allowed {
            self.inbound.entry(relay).or_default();
            return false;
        }
        let caused = self.inbound.remove(&relay).unwrap_or_default();
        for number in &caused {
            self.remove_number(*number);
        }
        !caused.is_empty()
    }

    /// Maps a frame of a peer that nobody announced, if `relay` is registered for such.
    pub(super) fn inbound(&mut self, relay: SocketAddr, channel: Channel) -> Inbound {
        let Some(caused) = self.inbound.get(&relay) else { return Inbound::Refused };
        let full = self.by_number.len() >= self.mappings_max;
        let replaced = full || caused.len() >= self.inbound_max;
        if replaced {
            let used = |number: &u64| self.by_number.get(number).map_or(0, |m| m.used);
            let Some(oldest) = caused.iter().copied().min_by_key(used) else {
                return Inbound::Refused;
            };
            self.remove_number(oldest);
        }
        let number = self.insert(relay, channel);
        self.inbound.entry(relay).or_default().insert(number);
        Inbound::Mapped { addr: self.prefix.address(number), replaced }
    }

    fn insert(&mut self, relay: SocketAddr, channel: Channel) -> u64 {
        let number = self.tick();
        self.by_number.insert(number, Mapping { relay, channel, used: number });
        self.by_frame.insert((relay, channel), number);
        number
    }

    fn remove_number(&mut self, number: u64) -> bool {
        let Some(mapping) = self.by_number.remove(&number) else { return false };
        self.by_frame.remove(&(mapping.relay, mapping.channel));
        if let Some(caused) = self.inbound.get_mut(&mapping.relay) {
            caused.remove(&number);
        }
        true
    }

    fn touch(&mut self, number: u64) {
        let used = self.tick();
        if let Some(mapping) = self.by_number.get_mut(&number) {
            mapping.used = used;
        }
    }

    fn tick(&mut self) -> u64 {
        let tick = self.next;
        // 64 bits outlast any node: at ten million frames a second, 58,000 years.
        self.next += 1;
        tick
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 4433))
    }

    fn table(mappings_max: usize, inbound_max: usize) -> Mappings {
        Mappings::new(Prefix::from_seed(0xab_cdef_0123), mappings_max, inbound_max)
    }

    fn mapped(found: &Inbound) -> SocketAddr {
        match found {
            Inbound::Mapped { addr, .. } => *addr,
            Inbound::Refused => panic!("refused"),
        }
    }

    #[test]
    fn both_directions_agree() {
        let mut table = table(4, 2);
        let (addr, _) = table.add(relay(1), Channel(7));
        assert!(addr.to_string().starts_with("[fdab:cdef:123:"), "{addr}");
        assert_eq!(table.lookup(addr), Some((relay(1), Channel(7))));
        assert_eq!(table.find(relay(1), Channel(7)), Some(addr));
        assert_eq!(table.add(relay(1), Channel(7)), (addr, false));
        assert!(table.remove(addr));
        assert_eq!((table.lookup(addr), table.find(relay(1), Channel(7))), (None, None));
        assert!(!table.remove(addr));
        assert_ne!(table.add(relay(1), Channel(7)).0, addr, "an address is never used twice");
    }

    #[test]
    fn a_full_table_replaces_the_least_recently_used() {
        let mut table = table(2, 2);
        let (first, _) = table.add(relay(1), Channel(1));
        let (second, _) = table.add(relay(1), Channel(2));
        assert!(table.find(relay(1), Channel(1)).is_some());
        assert!(table.add(relay(1), Channel(3)).1);
        assert_eq!(table.lookup(second), None);
        assert!(table.lookup(first).is_some());
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn unannounced_peers_need_a_registered_relay_and_share_its_places() {
        let mut table = table(100, 2);
        assert_eq!(table.inbound(relay(1), Channel(1)), Inbound::Refused);
        table.set_inbound(relay(1), true);
        let announced = table.add(relay(1), Channel(9)).0;
        let first = mapped(&table.inbound(relay(1), Channel(1)));
        let second = mapped(&table.inbound(relay(1), Channel(2)));
        let third = mapped(&table.inbound(relay(1), Channel(3)));
        assert_eq!(table.lookup(first), None);
        assert!(table.set_inbound(relay(1), false));
        assert_eq!((table.lookup(second), table.lookup(third)), (None, None));
        assert!(table.lookup(announced).is_some());
    }

    #[test]
    fn an_announced_mapping_is_out_of_reach_for_the_unannounced() {
        let mut table = table(2, 8);
        table.set_inbound(relay(1), true);
        let kept = mapped(&table.inbound(relay(1), Channel(1)));
        assert_eq!(table.add(relay(1), Channel(1)).0, kept);
        table.add(relay(2), Channel(1));
        assert_eq!(table.inbound(relay(1), Channel(2)), Inbound::Refused);
        assert!(!table.set_inbound(relay(1), false));
        assert!(table.lookup(kept).is_some());
    }

    #[test]
    fn foreign_addresses_are_not_mapped() {
        let mut table = table(2, 2);
        let (addr, _) = table.add(relay(1), Channel(1));
        let wrong_port = SocketAddr::new(addr.ip(), 2);
        assert_eq!(table.lookup(wrong_port), None);
        assert_eq!(table.lookup(relay(1)), None);
        assert!(Prefix::from_seed(0xab_cdef_0123).contains(addr.ip()));
        assert!(!Prefix::from_seed(1).contains(addr.ip()));
    }
}
