//! What is voted on, and a vote.
//!
//! ```text
//! term = {0: region, 1: epoch, 2: holder, 3: kind, 4: roles, 5: capacity, 6: electors,
//!         7: since epoch, 8: expires}                                      CBOR (RFC 8949)
//! vote = [elector, nonce, net or null, measured or null, signature]
//! signed by an elector = "baran 1 vote" | ["network", term: bytes, nonce, net, measured]
//! ```
//!
//! The elector signs the bytes of the term as it received them, so what this version does not know
//! is voted on with the rest.

use std::net::IpAddr;

use bytes::Bytes;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use super::epoch::{TERM_EPOCHS, draw, name, term_number};
use super::{ACTIVE, ELECTORS, Plan, Region, STANDBY, capacity};
use crate::id::{NodeId, SIGNATURE_LEN, SecretKey};
use crate::record::Verify;
use crate::wire::role::TermDigest;

/// Longest term in bytes: one of this version has at most 90.
pub const TERM_LEN_MAX: usize = 128;

/// Seats of a region that anybody lists.
pub const RANKS_MAX: usize = ACTIVE + STANDBY;

/// Bit of [`Term::roles`]: keeps the region's records and answers for it.
pub const ROLE_INDEX: u8 = 1;
/// Bit of [`Term::roles`]: tells peers of each other.
pub const ROLE_SIGNAL: u8 = 2;
/// Bit of [`Term::roles`]: forwards frames.
pub const ROLE_RELAY: u8 = 4;

/// What a seat that was held in the epoch before is favoured by until its term is over.
const INCUMBENT: f64 = 1.5;

/// What it is held back by after that, until it is lost.
const SERVED: f64 = 0.5;

/// How a seat came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// By measuring and voting, an epoch ahead.
    #[n(0)]
    Ordinary,
    /// At once and for minutes, because too few seats are left.
    #[n(1)]
    Acting,
}

/// A seat of a region, for a time: what electors vote on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Term {
    /// Whose records are kept, and whose nodes are served. It holds the holder's own key.
    #[n(0)]
    pub region: Region,
    /// The epoch in which the term begins.
    #[n(1)]
    pub epoch: u64,
    /// Who is to have the seat.
    #[n(2)]
    pub holder: NodeId,
    /// How it comes about.
    #[n(3)]
    pub kind: Kind,
    /// What is lent: bits.
    #[n(4)]
    pub roles: u8,
    /// Bytes a second that the holder carries, within its owner's limit: a power of two.
    #[n(5)]
    pub capacity_log2: u8,
    /// How many electors the holder counted: the quorum follows from it.
    #[n(6)]
    pub electors: u8,
    /// The first epoch in which the holder had a seat, if it has had one ever since; else this one.
    #[n(7)]
    pub since_epoch: u64,
    /// When it ends, in seconds since 1970.
    #[n(8)]
    pub expires_s: u64,
}

impl Term {
    /// The bytes that electors sign.
    ///
    /// # Panics
    ///
    /// Never: writing to memory cannot fail.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        minicbor::to_vec(self).expect("writing to memory cannot fail").into()
    }

    /// Reads those.
    ///
    /// # Errors
    ///
    /// For what is no term, too long, or followed by more.
    pub fn decode(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        let mut decoder = Decoder::new(bytes);
        let term: Self = decoder.decode()?;
        if bytes.len() > TERM_LEN_MAX || decoder.position() != bytes.len() {
            return Err(minicbor::decode::Error::message("a term too long"));
        }
        Ok(term)
    }

    /// Votes that it needs.
    #[must_use]
    pub fn quorum(&self) -> usize {
        let electors = usize::from(self.electors).min(ELECTORS);
        match self.kind {
            Kind::Ordinary => Plan::quorum(electors),
            Kind::Acting => Plan::acting_quorum(electors),
        }
    }

    /// The place of the term among those of its region: the highest come first. Weighted rendezvous
    /// (Schindelhauer and Schomaker, *Weighted Distributed Hash Tables*, 2005): a node with twice
    /// the weight comes first twice as often, and nobody else's place depends on who else is there.
    #[must_use]
    pub fn score(&self) -> f64 {
        let number = term_number(self.holder, self.epoch);
        let parts: [&[u8]; 3] = [&name(self.region), self.holder.as_bytes(), &number.to_be_bytes()];
        let drawn = draw("baran 1 rank of a term", &parts);
        // Within (0, 1): 53 bits are what a float holds.
        let share = ((drawn >> 11) as f64 + 0.5) / 2f64.powi(53);
        -self.weight() / share.ln()
    }

    fn weight(&self) -> f64 {
        let by_service = match self.epoch.saturating_sub(self.since_epoch) {
            0 => 1.0,
            1..TERM_EPOCHS => INCUMBENT,
            _ => SERVED,
        };
        capacity::weight(self.capacity_log2) * by_service
    }
}

/// The name of a term in votes.
#[must_use]
pub fn digest(term: &[u8]) -> TermDigest {
    draw("baran 1 digest of a term", &[term])
}

/// The network that an address is of: the first 24 bits of an IPv4 address, 48 of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetPrefix(u64);

/// Bits of an IPv6 prefix.
const PREFIX_BITS_V6: u32 = 48;

impl NetPrefix {
    /// That of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            // Beyond all prefixes of IPv6.
            IpAddr::V4(ip) => Self(1 << PREFIX_BITS_V6 | u64::from(ip.to_bits() >> 8)),
            IpAddr::V6(ip) => {
                let [a, b, c, ..] = ip.segments().map(u64::from);
                Self(a << 32 | b << 16 | c)
            }
        }
    }
}

impl<C> Encode<C> for NetPrefix {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.u64(self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for NetPrefix {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let prefix = d.u64()?;
        if prefix >= 1 << PREFIX_BITS_V6 | 1 << 24 {
            return Err(minicbor::decode::Error::message("no prefix of a network"));
        }
        Ok(Self(prefix))
    }
}

/// An elector's word that the holder of a term was there and could be reached.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Vote {
    /// Who votes.
    #[n(0)]
    pub elector: NodeId,
    /// The solution of its puzzle.
    #[n(1)]
    pub nonce: u64,
    /// The network that it is in; absent if that is a private one.
    #[n(2)]
    pub net: Option<NetPrefix>,
    /// The holder's capacity, if the elector measured it: a power of two of bytes a second.
    #[n(3)]
    pub measured_log2: Option<u8>,
    /// Over all of that and the term.
    #[cbor(n(4), with = "crate::signature")]
    pub signature: [u8; SIGNATURE_LEN],
}

impl Vote {
    /// Votes for a term, as its bytes were received.
    #[must_use]
    pub fn sign(
        secret: &SecretKey,
        network: &str,
        term: &[u8],
        nonce: u64,
        net: Option<NetPrefix>,
        measured_log2: Option<u8>,
    ) -> Self {
        let elector = secret.id();
        let mut vote = Self { elector, nonce, net, measured_log2, signature: [0; SIGNATURE_LEN] };
        vote.signature = secret.sign(&vote.message(network, term));
        vote
    }

    /// Whether the elector signed it for this term in this network.
    #[must_use]
    pub fn is_signed(&self, network: &str, term: &[u8], verify: Verify) -> bool {
        verify(&self.elector, &self.message(network, term), &self.signature)
    }

    fn message(&self, network: &str, term: &[u8]) -> Vec<u8> {
        crate::signature::message("baran 1 vote", network, |e| {
            e.bytes(term)?.encode(self.nonce)?.encode(self.net)?.encode(self.measured_log2)?.ok()
        })
    }
}

impl<C> Encode<C> for Region {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.array(2)?.u8(self.bits())?.u32(self.prefix())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Region {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let at = d.position();
        let wrong = || minicbor::decode::Error::message("not a region").at(at);
        if d.array()? != Some(2) {
            return Err(wrong());
        }
        let (bits, prefix) = (d.u8()?, d.u32()?);
        Self::from_parts(prefix, bits).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn term(holder: u8, capacity_log2: u8, since_epoch: u64) -> Term {
        Term {
            region: Region::ALL,
            epoch: 1_000_000,
            holder: NodeId::from_bytes([holder; 32]),
            kind: Kind::Ordinary,
            roles: ROLE_INDEX,
            capacity_log2,
            electors: 32,
            since_epoch,
            expires_s: 0,
        }
    }

    #[test]
    fn a_term_is_read_back() {
        let term = Term { expires_s: u64::MAX, since_epoch: u64::MAX, ..term(3, 255, 0) };
        let bytes = term.encode();
        assert!(bytes.len() <= 90, "{}", bytes.len());
        assert_eq!(Term::decode(&bytes).unwrap(), term);
        assert!(Term::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn who_can_carry_little_comes_first_less_often() {
        let mut wins = BTreeMap::new();
        for epoch in 0..40_000 {
            let at = |holder, capacity_log2| Term {
                epoch: epoch * 12,
                ..term(holder, capacity_log2, 0)
            };
            let mut terms = [at(1, 10), at(2, 18), at(3, 14)]
                .map(|term| Term { since_epoch: term.epoch, ..term });
            terms.sort_by(|a, b| b.score().total_cmp(&a.score()));
            *wins.entry(terms[0].capacity_log2).or_insert(0u32) += 1;
        }
        assert!((15_400..16_600).contains(&wins[&18]), "2 of 5: {wins:?}");
        assert!((7_400..8_600).contains(&wins[&10]), "1 of 5: {wins:?}");
    }

    #[test]
    fn an_incumbent_is_favoured_until_its_term_is_over() {
        let weight = |since| term(1, 16, since).weight();
        let at = [0, 1, 5, 6, 400].map(|epochs| weight(1_000_000 - epochs));
        assert_eq!(at, [1.0, 1.5, 1.5, 0.5, 0.5]);
        assert_eq!(weight(1_000_007), 1.0);
    }

    #[test]
    fn prefixes_tell_networks_apart() {
        let of = |text: &str| NetPrefix::of(text.parse().unwrap());
        assert_eq!(of("203.0.113.1"), of("203.0.113.250"));
        assert_eq!(of("203.0.113.1"), of("::ffff:203.0.113.9"));
        assert_ne!(of("203.0.113.1"), of("203.0.112.1"));
        assert_eq!(of("2001:db8:1:2::3"), of("2001:db8:1:ffff::"));
        assert_ne!(of("2001:db8:1::"), of("2001:db8:2::"));
        for text in ["255.255.255.255", "ffff:ffff:ffff:ffff::", "::"] {
            let bytes = minicbor::to_vec(of(text)).unwrap();
            assert_eq!(minicbor::decode::<NetPrefix>(&bytes).unwrap(), of(text));
        }
        let beyond = minicbor::to_vec(1u64 << 48 | 1 << 24).unwrap();
        assert!(minicbor::decode::<NetPrefix>(&beyond).is_err());
    }
}
