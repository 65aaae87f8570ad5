//! How an entry of the table keeps where a peer is reached: in a small part of the memory that a
//! [`PeerAddr`] takes, because a node keeps some 260 of them and a simulator 100,000 times as many.

use core::net::IpAddr;
use core::num::NonZeroU32;
use std::net::SocketAddr;

use minicbor::{Decoder, Encoder};

use crate::egress::{canonical_ip, class_of};
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::wire::addr::{decode_addrs, encode_addrs};
use crate::wire::index::{CONTACT_ADDRS_MAX, shorten};
use crate::wire::node::{decode_homes, encode_homes};

/// Addresses and homes of a contact, as two arrays of CBOR in the form of the messages: 9 bytes for
/// one IPv4 address, about a hundred with two homes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed(Box<[u8]>);

impl Packed {
    /// Packs what a contact tells of a peer.
    pub(crate) fn new(peer: &PeerAddr) -> Self {
        let contact = shorten(peer);
        let mut e = Encoder::new(Vec::with_capacity(128));
        encode_addrs::<CONTACT_ADDRS_MAX, _, _>(&contact.addrs, &mut e, &mut ())
            .and_then(|()| encode_homes(&contact.homes, &mut e, &mut ()))
            .expect("writing to memory does not fail");
        Self(e.into_writer().into_boxed_slice())
    }

    /// The contact of the peer `id`.
    pub(crate) fn contact(&self, id: NodeId) -> PeerAddr {
        let mut d = Decoder::new(&self.0);
        let addrs = decode_addrs::<CONTACT_ADDRS_MAX, _>(&mut d, &mut ());
        let homes = decode_homes(&mut d, &mut ());
        // What `new` writes is always read; a fault here would cost one contact its addresses.
        PeerAddr { id, addrs: addrs.unwrap_or_default(), homes: homes.unwrap_or_default() }
    }

    /// Whether there is any address or home in it.
    pub(crate) fn is_somewhere(&self) -> bool {
        // Two empty arrays are two bytes.
        self.0.len() > 2
    }

    /// Bytes on the heap.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A network that one party is likely to hold: a /24 of IPv4, a /48 of IPv6.
///
/// The prefixes of IPv6 are folded into 31 bits. Who wants to share a number with somebody else's
/// network needs one certain /48 out of two thousand million, and could have one entry refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet(NonZeroU32);

impl Subnet {
    /// Bits that tell the families apart: 24 bits of a prefix of IPv4 leave the first one clear.
    const V4: NonZeroU32 = NonZeroU32::new(1 << 30).expect("it is not zero");
    const V6: NonZeroU32 = NonZeroU32::new(1 << 31).expect("it is not zero");

    /// Where an address is, in any spelling of it.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        Self(match canonical_ip(ip) {
            IpAddr::V4(v4) => Self::V4 | (v4.to_bits() >> 8),
            IpAddr::V6(v6) => {
                // Fibonacci hashing: the upper bits of a product with 2^64 / φ are well mixed.
                let [.., a, b, c, d, e, f] = (v6.to_bits() >> 80).to_be_bytes();
                let prefix = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
                let [a, b, c, d, ..] = prefix.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
                Self::V6 | u32::from_be_bytes([a, b, c, d])
            }
        })
    }
}

/// The networks that a peer counts for, at most [`CONTACT_ADDRS_MAX`].
///
/// One that names no address of its own counts for those of its homes: it has to be somewhere, or
/// identities without addresses would be free. Addresses of no global network count only if
/// `count_private`.
pub(crate) fn subnets(peer: &PeerAddr, count_private: bool) -> [Option<Subnet>; CONTACT_ADDRS_MAX] {
    let counts = |addr: &&SocketAddr| count_private || class_of(addr.ip()).is_none();
    let mut found = [None; CONTACT_ADDRS_MAX];
    let mut add = |addr: &SocketAddr| {
        let subnet = Some(Subnet::of(addr.ip()));
        if !found.contains(&subnet)
            && let Some(free) = found.iter_mut().find(|slot| slot.is_none())
        {
            *free = subnet;
        }
    };
    if peer.addrs.is_empty() {
        peer.homes.iter().flat_map(|home| home.addrs.first()).filter(counts).for_each(&mut add);
    } else {
        peer.addrs.iter().take(CONTACT_ADDRS_MAX).filter(counts).for_each(&mut add);
    }
    found
}
