//! That a member is there: what is said now and then, passed on along the tree, and never kept.
//!
//! ```text
//! presence = [author, time_ms, epoch, is_leaving, status, [[author, seq]], signature]   CBOR
//! signed   = "baran 1 presence" | "network" | topic | the fields before the signature
//! ```
//!
//! The newest of an author counts, by the time that it names. What it says of itself (a name, an
//! application's state) is sealed in a private topic as entries are; who it is and what it has seen
//! is not. It is a claim: it shows that somebody holds a key and the topic's tag, no more.

use bytes::Bytes;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use super::id::TopicId;
use crate::id::{NodeId, SIGNATURE_LEN, SecretKey};
use crate::signature;
use crate::wire::addr::bounded_len;

/// Longest presence, encoded.
pub const PRESENCE_LEN_MAX: usize = 2_048;

/// Longest status, as it travels: sealed, in a private topic.
pub const STATUS_LEN_MAX: usize = 512;

/// Most logs of which a presence tells how far they were seen.
pub const SEEN_MAX: usize = 24;

/// What a member says of itself at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Presence {
    /// Who.
    #[n(0)]
    pub author: NodeId,
    /// When, in milliseconds since 1970 by its clock; higher with each.
    #[n(1)]
    pub time_ms: u64,
    /// Of the key under which the status is sealed; 0 in a public topic.
    #[n(2)]
    pub epoch: u32,
    /// Whether it goes.
    #[n(3)]
    pub is_leaving: bool,
    /// An application's, at most [`STATUS_LEN_MAX`] bytes.
    #[cbor(n(4), encode_with = "encode_status", decode_with = "decode_status")]
    pub status: Bytes,
    /// Up to which entry it has the logs that moved last, at most [`SEEN_MAX`].
    #[cbor(n(5), encode_with = "encode_seen", decode_with = "decode_seen")]
    pub seen: Vec<(NodeId, u64)>,
    /// Over all of that, network and topic.
    #[cbor(n(6), with = "crate::signature")]
    signature: [u8; SIGNATURE_LEN],
}

impl Presence {
    /// Something to be signed.
    #[must_use]
    pub fn new(time_ms: u64, epoch: u32, status: Bytes, seen: Vec<(NodeId, u64)>) -> Self {
        let (author, signature) = (NodeId::from_bytes([0; 32]), [0; SIGNATURE_LEN]);
        Self { author, time_ms, epoch, is_leaving: false, status, seen, signature }
    }

    /// Signs it.
    #[must_use]
    pub fn sign(mut self, secret: &SecretKey, network: &str, topic: TopicId) -> Self {
        self.author = secret.id();
        self.signature = secret.sign(&self.message(network, topic));
        self
    }

    /// Whether its author signed it for this topic.
    #[must_use]
    pub fn verify(&self, network: &str, topic: TopicId) -> bool {
        self.author.verify(&self.message(network, topic), &self.signature)
    }

    fn message(&self, network: &str, topic: TopicId) -> Vec<u8> {
        signature::message("baran 1 presence", network, |e| {
            e.encode(topic)?.encode(self.author)?.u64(self.time_ms)?.u32(self.epoch)?;
            e.bool(self.is_leaving)?.bytes(&self.status)?;
            encode_seen(&self.seen, e, &mut ())
        })
    }

    /// As it travels: at most [`PRESENCE_LEN_MAX`] bytes within the limits of its fields.
    ///
    /// # Panics
    ///
    /// Never.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        minicbor::to_vec(self).expect("writing to memory cannot fail").into()
    }

    /// Reads one; the signature is not looked at.
    ///
    /// # Errors
    ///
    /// If it is longer than [`PRESENCE_LEN_MAX`], or not one.
    pub fn decode(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        if bytes.len() > PRESENCE_LEN_MAX {
            return Err(minicbor::decode::Error::message("a presence that is too long"));
        }
        let mut d = Decoder::new(bytes);
        let presence = d.decode()?;
        if d.position() != bytes.len() {
            return Err(minicbor::decode::Error::message("bytes after a presence"));
        }
        Ok(presence)
    }
}

fn encode_status<C, W: Write>(
    status: &Bytes,
    e: &mut Encoder<W>,
    _: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    e.bytes(status)?.ok()
}

fn decode_status<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Bytes, minicbor::decode::Error> {
    let at = d.position();
    let status = d.bytes()?;
    if status.len() > STATUS_LEN_MAX {
        return Err(minicbor::decode::Error::message("a status that is too long").at(at));
    }
    Ok(Bytes::copy_from_slice(status))
}

/// Encodes the first [`SEEN_MAX`].
fn encode_seen<C, W: Write>(
    seen: &[(NodeId, u64)],
    e: &mut Encoder<W>,
    _: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    let seen = &seen[..seen.len().min(SEEN_MAX)];
    e.array(seen.len() as u64)?;
    seen.iter().try_for_each(|(author, seq)| e.array(2)?.encode(author)?.u64(*seq)?.ok())
}

fn decode_seen<C>(
    d: &mut Decoder<'_>,
    _: &mut C,
) -> Result<Vec<(NodeId, u64)>, minicbor::decode::Error> {
    let len = bounded_len(d, SEEN_MAX)?;
    (0..len).map(|_| d.decode()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(n: u8) -> TopicId {
        TopicId::from_bytes([n; 32])
    }

    #[test]
    fn a_presence_counts_in_its_topic_and_network_alone() {
        let secret = SecretKey::from_bytes([1; 32]);
        let seen = vec![(NodeId::from_bytes([2; 32]), 7); SEEN_MAX];
        let status = Bytes::from(vec![0; STATUS_LEN_MAX]);
        let presence = Presence::new(5, 1, status, seen).sign(&secret, "main", topic(1));
        let bytes = presence.encode();
        assert!(bytes.len() <= PRESENCE_LEN_MAX, "{}", bytes.len());
        let read = Presence::decode(&bytes).unwrap();
        assert_eq!(read, presence);
        assert!(read.verify("main", topic(1)));
        assert!(!read.verify("main", topic(2)));
        assert!(!read.verify("test", topic(1)));
        let forged = Presence { time_ms: 6, ..read };
        assert!(!forged.verify("main", topic(1)));
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let secret = SecretKey::from_bytes([1; 32]);
        let long = Bytes::from(vec![0; STATUS_LEN_MAX + 1]);
        let presence = Presence::new(5, 0, long, Vec::new()).sign(&secret, "main", topic(1));
        Presence::decode(&presence.encode()).unwrap_err();
        Presence::decode(&[0; PRESENCE_LEN_MAX + 1]).unwrap_err();
    }
}
