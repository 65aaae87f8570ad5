//! Who has which address.
//!
//! Every host has one public IPv4 address of its own, spread as those of users are: a few provider
//! blocks (/16) hold many, most hold few (Zipf with exponent 0.7 over 12,000 blocks: of 100,000
//! hosts the largest block has about 1,800, and hosts that share a /24 are common there and rare
//! elsewhere). Inside its network a host behind a NAT has a private address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use baran_proto::egress::class_of;

use crate::draw::Draw;

/// Blocks of 65,536 addresses that have users.
const BLOCKS: usize = 12_000;

/// Exponent of the blocks' popularity.
const ZIPF: f64 = 0.7;

/// The addresses that are taken.
#[derive(Debug)]
pub struct Addresses {
    blocks: Vec<[u8; 2]>,
    owners: BTreeMap<Ipv4Addr, u32>,
}

impl Addresses {
    /// A world without hosts.
    pub fn new(draw: &mut Draw) -> Self {
        let is_public = |block: [u8; 2]| {
            let ip = |c, d| IpAddr::from([block[0], block[1], c, d]);
            // Some special blocks are smaller than a /16: their first and last /24 do not tell.
            class_of(ip(1, 1)).is_none() && class_of(ip(254, 1)).is_none()
        };
        let mut blocks = Vec::with_capacity(BLOCKS);
        while blocks.len() < BLOCKS {
            let [a, b, ..] = draw.bits().to_le_bytes();
            if is_public([a, b]) {
                blocks.push([a, b]);
            }
        }
        Self { blocks, owners: BTreeMap::new() }
    }

    /// Gives `host` an address that nobody has.
    pub fn take(&mut self, draw: &mut Draw, host: u32) -> Ipv4Addr {
        loop {
            // The inverse of the continuous Zipf law over 1..=BLOCKS.
            let most = (BLOCKS as f64).powf(1.0 - ZIPF);
            let rank = (1.0 + draw.uniform() * (most - 1.0)).powf(1.0 / (1.0 - ZIPF));
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
            let [a, b] = self.blocks[(rank as usize - 1).min(BLOCKS - 1)];
            let [c, d, ..] = draw.bits().to_le_bytes();
            if self.take_this(Ipv4Addr::new(a, b, c, d.clamp(1, 254)), host) {
                return Ipv4Addr::new(a, b, c, d.clamp(1, 254));
            }
        }
    }

    /// Gives `host` this address if it is public and nobody's.
    pub fn take_this(&mut self, ip: Ipv4Addr, host: u32) -> bool {
        let is_free = class_of(ip.into()).is_none() && !self.owners.contains_key(&ip);
        if is_free {
            self.owners.insert(ip, host);
        }
        is_free
    }

    /// Whose address this is.
    #[must_use]
    pub fn owner(&self, addr: SocketAddr) -> Option<u32> {
        match addr.ip() {
            IpAddr::V4(ip) => self.owners.get(&ip).copied(),
            IpAddr::V6(_) => None,
        }
    }
}

/// The address that a host behind a NAT has inside.
#[must_use]
pub fn private(host: u32) -> Ipv4Addr {
    let [_, _, c, d] = host.to_be_bytes();
    Ipv4Addr::new(192, 168, c, d.clamp(1, 254))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unique_public_and_clustered() {
        let mut draw = Draw::new(1, 1);
        let mut all = Addresses::new(&mut draw);
        let mut blocks: BTreeMap<[u8; 2], usize> = BTreeMap::new();
        for host in 0..50_000 {
            let ip = all.take(&mut draw, host);
            assert!(class_of(ip.into()).is_none(), "{ip}");
            assert_eq!(all.owner(SocketAddr::from((ip, 1))), Some(host));
            *blocks.entry([ip.octets()[0], ip.octets()[1]]).or_default() += 1;
        }
        let largest = blocks.values().max().unwrap();
        assert!((500..2000).contains(largest), "{largest}");
        assert!(blocks.len() > 8_000, "{}", blocks.len());
    }
}
