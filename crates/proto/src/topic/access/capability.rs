//! What a key may do in a private topic, as a chain of signatures from the topic's root.
//!
//! ```text
//! chain  = [topic: bytes(32), [link, …]]                      CBOR (RFC 8949), shortest heads
//! link   = [subject: bytes(32), rank, expires | null, signature: bytes(64)]
//! signed = "baran 1 topic capability" | topic | hash of the link before | subject | rank
//!          | 0 or 1 | expires, 8 bytes BE
//! ```
//!
//! The root signs the first link, the subject of each link the next one: who holds a rank may pass
//! on at most that rank, for at most as long as it holds it. Since each link names the hash of the
//! one before, with its signature, it is worth nothing in another chain. The topic's name does not
//! depend on the network, and neither does a chain.
//!
//! Invariants of a decoded chain: it has 1 to [`LINKS_MAX`] links and one spelling. Whether they
//! are signed and what they grant is asked of [`Chain::verify`], which costs a verification of a
//! signature for each link.

use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};
use thiserror::Error;

use super::to_cbor;
use crate::id::{NodeId, SIGNATURE_LEN, SecretKey};
use crate::time::UnixTime;
use crate::topic::id::TopicId;
use crate::wire::addr::bounded_len;

/// Most links of a chain: some steps of passing on, each of which takes two links if it is by an
/// invite.
pub const LINKS_MAX: usize = 8;

/// Longest encoding in bytes: one of [`LINKS_MAX`] links has at most 924.
pub const CHAIN_LEN_MAX: usize = 1_024;

/// What everything that links sign begins with.
const DOMAIN: &[u8] = b"baran 1 topic capability";

/// Stands for the link before the first.
const NO_LINK: [u8; 32] = [0; 32];

/// What a member may do. Each rank may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Keep and pass on what others wrote, without being able to read it.
    Relay,
    /// Read.
    Read,
    /// Write.
    Write,
    /// Remove members.
    Manage,
}

impl Rank {
    /// All, in ascending order.
    pub const ALL: [Self; 4] = [Self::Relay, Self::Read, Self::Write, Self::Manage];

    const fn number(self) -> u8 {
        match self {
            Self::Relay => 0,
            Self::Read => 1,
            Self::Write => 2,
            Self::Manage => 3,
        }
    }
}

/// In CBOR a rank is its number, from 0.
impl<C> Encode<C> for Rank {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.u8(self.number())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Rank {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        let at = d.position();
        let rank = Self::ALL.get(usize::from(d.u8()?));
        rank.copied().ok_or_else(|| DecodeError::message("a rank that does not exist").at(at))
    }
}

/// What a chain grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// To whom.
    pub subject: NodeId,
    /// What it may do.
    pub rank: Rank,
    /// Since when it no longer may; `None` if it may for ever.
    pub expires: Option<UnixTime>,
}

impl Grant {
    /// What it is worth: the higher rank, then the later end.
    #[must_use]
    pub fn worth(&self) -> (Rank, u64) {
        (self.rank, self.expires.map_or(u64::MAX, UnixTime::as_secs))
    }

    /// Whether it holds at `now`.
    #[must_use]
    pub fn is_valid(&self, now: UnixTime) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// Whether who holds this may pass on `other`.
    fn allows(&self, other: &Self, link: usize) -> Result<(), CapabilityError> {
        if other.rank > self.rank {
            return Err(CapabilityError::Widened { link });
        }
        match (self.expires, other.expires) {
            (Some(own), Some(new)) if new <= own => Ok(()),
            (None, _) => Ok(()),
            (Some(_), _) => Err(CapabilityError::Prolonged { link }),
        }
    }
}

/// One step of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    grant: Grant,
    signature: [u8; SIGNATURE_LEN],
}

impl Link {
    fn sign(signer: &SecretKey, topic: TopicId, before: &[u8; 32], grant: Grant) -> Self {
        Self { grant, signature: signer.sign(&message(topic, before, &grant)) }
    }

    fn hash(&self, topic: TopicId, before: &[u8; 32]) -> [u8; 32] {
        let signed = [&message(topic, before, &self.grant)[..], &self.signature].concat();
        blake3::derive_key("baran 1 link of a topic capability", &signed)
    }
}

/// What the signature of a link covers. All parts are of fixed length.
fn message(topic: TopicId, before: &[u8; 32], grant: &Grant) -> Vec<u8> {
    let expires = grant.expires.map_or(0, UnixTime::as_secs).to_be_bytes();
    let numbers = [grant.rank.number(), u8::from(grant.expires.is_some())];
    let subject = grant.subject.as_bytes();
    [DOMAIN, topic.as_bytes(), before, subject, &numbers, &expires].concat()
}

/// A chain from the root of a topic to the key that it grants something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    topic: TopicId,
    /// Of all but the last.
    before: Vec<Link>,
    last: Link,
}

impl Chain {
    /// Starts a chain with the root key of a topic.
    #[must_use]
    pub fn root(root: &SecretKey, subject: NodeId, rank: Rank, expires: Option<UnixTime>) -> Self {
        let topic = TopicId::from_bytes(*root.id().as_bytes());
        let last = Link::sign(root, topic, &NO_LINK, Grant { subject, rank, expires });
        Self { topic, before: Vec::new(), last }
    }

    /// Passes on what the chain grants to `signer`, or a part of it.
    ///
    /// # Errors
    ///
    /// [`CapabilityError::NotTheSubject`] for another signer, [`CapabilityError::Widened`],
    /// [`CapabilityError::Prolonged`], and [`CapabilityError::TooLong`] if the chain has
    /// [`LINKS_MAX`] links.
    pub fn extend(
        &self,
        signer: &SecretKey,
        subject: NodeId,
        rank: Rank,
        expires: Option<UnixTime>,
    ) -> Result<Self, CapabilityError> {
        if signer.id() != self.subject() {
            return Err(CapabilityError::NotTheSubject);
        }
        if self.len() >= LINKS_MAX {
            return Err(CapabilityError::TooLong);
        }
        let grant = Grant { subject, rank, expires };
        self.last.grant.allows(&grant, self.len() + 1)?;
        let hash = self.links().fold(NO_LINK, |before, link| link.hash(self.topic, &before));
        let mut before = self.before.clone();
        before.push(self.last.clone());
        Ok(Self { topic: self.topic, before, last: Link::sign(signer, self.topic, &hash, grant) })
    }

    /// What the chain grants in `topic` at `now`.
    ///
    /// # Errors
    ///
    /// Those of [`Chain::check`], and [`CapabilityError::Expired`].
    pub fn verify(&self, topic: TopicId, now: UnixTime) -> Result<Grant, CapabilityError> {
        let grant = self.check(topic)?;
        if grant.is_valid(now) { Ok(grant) } else { Err(CapabilityError::Expired) }
    }

    /// What the chain grants in `topic` until it expires.
    ///
    /// # Errors
    ///
    /// [`CapabilityError::Topic`], [`CapabilityError::Widened`], [`CapabilityError::Prolonged`] and
    /// [`CapabilityError::Signature`].
    pub fn check(&self, topic: TopicId) -> Result<Grant, CapabilityError> {
        if topic != self.topic {
            return Err(CapabilityError::Topic);
        }
        // What costs little first.
        for (number, (issued, next)) in self.links().zip(self.links().skip(1)).enumerate() {
            issued.grant.allows(&next.grant, number + 2)?;
        }
        let mut before = NO_LINK;
        for (number, (link, issuer)) in self.links().zip(self.issuers()).enumerate() {
            if !issuer.verify(&message(topic, &before, &link.grant), &link.signature) {
                return Err(CapabilityError::Signature { link: number + 1 });
            }
            before = link.hash(topic, &before);
        }
        Ok(self.last.grant)
    }

    /// The topic that the chain says it is for.
    #[must_use]
    pub fn topic(&self) -> TopicId {
        self.topic
    }

    /// Whom the chain grants something.
    #[must_use]
    pub fn subject(&self) -> NodeId {
        self.last.grant.subject
    }

    /// What the chain says it grants, whether that is signed or not.
    #[must_use]
    pub fn last(&self) -> Grant {
        self.last.grant
    }

    /// How many links it has: 1 to [`LINKS_MAX`].
    #[expect(clippy::len_without_is_empty, reason = "a chain has at least one link")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.before.len() + 1
    }

    /// The keys that signed the links, in their order, the root first.
    pub fn issuers(&self) -> impl Iterator<Item = NodeId> {
        let root = NodeId::from_bytes(*self.topic.as_bytes());
        [root].into_iter().chain(self.before.iter().map(|link| link.grant.subject))
    }

    /// Whether a key issued one of the links or is the last one's subject: without that key the
    /// chain is worth nothing.
    #[must_use]
    pub fn passes_through(&self, id: NodeId) -> bool {
        self.subject() == id || self.issuers().any(|issuer| issuer == id)
    }

    /// The encoding, at most [`CHAIN_LEN_MAX`] bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_cbor(&Form(self))
    }

    /// Reads a chain. Whether it is signed is asked of [`Chain::verify`].
    ///
    /// # Errors
    ///
    /// [`CapabilityError::TooLarge`] and [`CapabilityError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CapabilityError> {
        if bytes.len() > CHAIN_LEN_MAX {
            return Err(CapabilityError::TooLarge { len: bytes.len() });
        }
        let malformed = |error: DecodeError| CapabilityError::Malformed(error.to_string());
        let chain = decode_form(&mut Decoder::new(bytes)).map_err(malformed)?;
        // Refuses bytes left over, too.
        if chain.encode() == bytes {
            Ok(chain)
        } else {
            Err(CapabilityError::Malformed("another spelling, or bytes left over".to_owned()))
        }
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        self.before.iter().chain([&self.last])
    }
}

/// What is wrong with a chain, or with what is asked of one. Links are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CapabilityError {
    /// More bytes than a chain may have.
    #[error("a capability of {len} bytes is too long: {CHAIN_LEN_MAX} are allowed")]
    TooLarge {
        /// Bytes.
        len: usize,
    },
    /// The bytes are no chain.
    #[error("malformed capability: {0}")]
    Malformed(String),
    /// The chain is for another topic.
    #[error("the capability is for another topic")]
    Topic,
    /// A link grants a higher rank than its issuer holds.
    #[error("link {link} of the capability grants more than its issuer holds")]
    Widened {
        /// Which one.
        link: usize,
    },
    /// A link expires later than what its issuer holds.
    #[error("link {link} of the capability lasts longer than what its issuer holds")]
    Prolonged {
        /// Which one.
        link: usize,
    },
    /// The issuer did not sign a link, or not in this place.
    #[error("the signature of link {link} of the capability is wrong")]
    Signature {
        /// Which one.
        link: usize,
    },
    /// Its time has passed.
    #[error("the capability has expired")]
    Expired,
    /// Only the subject of a chain can pass on what it grants.
    #[error("the capability was granted to another key")]
    NotTheSubject,
    /// The chain has as many links as one may have.
    #[error("the capability was passed on too often: {LINKS_MAX} links are allowed")]
    TooLong,
}

/// In CBOR within something else, a chain is a byte string that holds its encoding.
impl<C> Encode<C> for Chain {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.bytes(&Self::encode(self))?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Chain {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        let at = d.position();
        Self::decode(d.bytes()?).map_err(|error| DecodeError::message(error).at(at))
    }
}

/// A chain as it is encoded.
struct Form<'a>(&'a Chain);

impl<C> Encode<C> for Form<'_> {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.array(2)?.bytes(self.0.topic.as_bytes())?.array(self.0.len() as u64)?;
        for Link { grant, signature } in self.0.links() {
            e.array(4)?.encode_with(grant.subject, ctx)?.encode_with(grant.rank, ctx)?;
            e.encode_with(grant.expires.map(UnixTime::as_secs), ctx)?.bytes(signature)?;
        }
        Ok(())
    }
}

fn decode_form(d: &mut Decoder<'_>) -> Result<Chain, DecodeError> {
    let wrong = DecodeError::message;
    bounded_len(d, 2)?;
    let topic = d.decode()?;
    let mut links = Vec::new();
    for _ in 0..bounded_len(d, LINKS_MAX)? {
        bounded_len(d, 4)?;
        let (subject, rank, expires) = (d.decode()?, d.decode()?, d.decode::<Option<u64>>()?);
        let grant = Grant { subject, rank, expires: expires.map(UnixTime::from_secs) };
        let signature = d.bytes()?.try_into().map_err(|_| wrong("a signature has 64 bytes"))?;
        links.push(Link { grant, signature });
    }
    let last = links.pop().ok_or_else(|| wrong("a chain has at least one link"))?;
    Ok(Chain { topic, before: links, last })
}

#[cfg(test)]
mod tests;
