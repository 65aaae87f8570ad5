//! Entries: what is said in a topic, signed and chained by its author.
//!
//! ```text
//! entry  = [author, seq, backlink or null, [[author, seq]], time_ms, epoch, kind,
//!           chain or null, payload, signature]                             CBOR (RFC 8949)
//! signed = "baran 1 entry" | "network" | topic | the fields before the signature
//! ```
//!
//! The entries of one author in one topic are its *log*: numbered from 1, each naming the one
//! before by its BLAKE3 hash, so that nobody can put another in its place unseen, its author
//! included.
//! `heads` are the entries of others that the author had seen and that none of its entries before
//! named: a frontier, from which follows what it knew. Network and topic are signed but do not
//! travel: who reads an entry knows both.

use bytes::Bytes;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decoder, Encoder};
use thiserror::Error;

use super::id::{EntryId, TopicId};
use crate::id::{NodeId, SIGNATURE_LEN, SecretKey};
use crate::signature;
use crate::wire::addr::bounded_len;

/// Longest payload in bytes, as it travels.
pub const PAYLOAD_LEN_MAX: usize = 32 * 1024;

/// Most heads that one entry names.
pub const HEADS_MAX: usize = 32;

/// Longest capability in an entry.
pub const CHAIN_LEN_MAX: usize = 1_024;

/// Longest entry: payload, capability, heads and 256 bytes for the rest.
pub const ENTRY_LEN_MAX: usize = PAYLOAD_LEN_MAX + CHAIN_LEN_MAX + HEADS_MAX * 48 + 256;

/// A message.
pub const KIND_MESSAGE: u8 = 0;
/// A change of the topic itself ([`EpochChange`](super::access::epoch::EpochChange)).
pub const KIND_CONTROL: u8 = 1;
/// That its author takes part; its payload is empty. It shows what the author may do.
pub const KIND_HERE: u8 = 2;
/// The first kind that belongs to applications.
pub const KIND_APPLICATION: u8 = 16;

/// Why bytes are no entry.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EntryError {
    /// Longer than [`ENTRY_LEN_MAX`], or a field is over its limit.
    #[error("an entry that is over its limits")]
    TooLarge,
    /// Not an entry's form.
    #[error("not an entry: {0}")]
    Malformed(String),
}

impl From<minicbor::decode::Error> for EntryError {
    fn from(error: minicbor::decode::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// An entry before it is signed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Draft {
    /// Its place in its author's log, from 1.
    pub seq: u64,
    /// The entry before; none for the first.
    pub backlink: Option<EntryId>,
    /// What of others its author had seen that its entries before did not name: in the order of
    /// the authors, each once.
    pub heads: Vec<(NodeId, u64)>,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// Of the key that sealed the payload; 0 in a public topic.
    pub epoch: u32,
    /// What the payload is.
    pub kind: u8,
    /// Its author's capability, in its first entry in a private topic.
    pub chain: Option<Bytes>,
    /// What is said.
    pub payload: Bytes,
}

/// A signed entry, with its encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    author: NodeId,
    draft: Draft,
    signature: [u8; SIGNATURE_LEN],
    id: EntryId,
    bytes: Bytes,
}

impl Signed {
    /// Signs an entry.
    ///
    /// # Panics
    ///
    /// If a field is over its limit.
    #[must_use]
    pub fn sign(secret: &SecretKey, network: &str, topic: TopicId, draft: Draft) -> Self {
        assert!(draft.is_within_limits(), "an entry over its limits");
        let author = secret.id();
        let signature = secret.sign(&draft.message(author, network, topic));
        let mut e = Encoder::new(Vec::with_capacity(draft.payload.len() + 192));
        let bytes: Bytes = e
            .array(10)
            .and_then(|e| draft.encode(author, e))
            .and_then(|()| e.bytes(&signature)?.ok())
            .map(|()| e.into_writer().into())
            .expect("writing to memory cannot fail");
        let id = EntryId::from_bytes(*blake3::hash(&bytes).as_bytes());
        Self { author, draft, signature, id, bytes }
    }

    /// Reads an entry; the signature is not looked at.
    ///
    /// # Errors
    ///
    /// If it is not an entry within the limits, spelled as [`Signed::sign`] does: one entry has one
    /// name.
    ///
    /// # Panics
    ///
    /// Never.
    pub fn decode(bytes: Bytes) -> Result<Self, EntryError> {
        if bytes.len() > ENTRY_LEN_MAX {
            return Err(EntryError::TooLarge);
        }
        let mut d = Decoder::new(&bytes);
        if d.array()? != Some(10) {
            return Err(EntryError::Malformed("ten fields are expected".to_owned()));
        }
        let author: NodeId = d.decode()?;
        let seq = d.u64()?;
        let backlink: Option<EntryId> = d.decode()?;
        let heads = (0..bounded_len(&mut d, HEADS_MAX)?)
            .map(|_| d.decode())
            .collect::<Result<Vec<(NodeId, u64)>, _>>()?;
        let (time_ms, epoch, kind) = (d.u64()?, d.u32()?, d.u8()?);
        let chain = match d.datatype()? {
            minicbor::data::Type::Null => d.null().map(|()| None)?,
            _ => Some(slice(&bytes, d.bytes()?)),
        };
        let payload = slice(&bytes, d.bytes()?);
        let signature = signature::decode(&mut d, &mut ())?;
        let end = d.position();
        let draft = Draft { seq, backlink, heads, time_ms, epoch, kind, chain, payload };
        if !draft.is_within_limits() {
            return Err(EntryError::TooLarge);
        }
        let mut e = Encoder::new(Vec::with_capacity(bytes.len()));
        let again = e.array(10).and_then(|e| draft.encode(author, e));
        again.and_then(|()| e.bytes(&signature)?.ok()).expect("writing to memory cannot fail");
        if end != bytes.len() || e.into_writer() != bytes {
            return Err(EntryError::Malformed("spelled in another way".to_owned()));
        }
        let id = EntryId::from_bytes(*blake3::hash(&bytes).as_bytes());
        Ok(Self { author, draft, signature, id, bytes })
    }

    /// Whether its author signed it for this topic.
    #[must_use]
    pub fn verify(&self, network: &str, topic: TopicId) -> bool {
        let message = self.draft.message(self.author, network, topic);
        self.author.verify(&message, &self.signature)
    }

    /// Who said it.
    #[must_use]
    pub fn author(&self) -> NodeId {
        self.author
    }

    /// Its place in its author's log, from 1.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.draft.seq
    }

    /// The entry before it in its author's log.
    #[must_use]
    pub fn backlink(&self) -> Option<EntryId> {
        self.draft.backlink
    }

    /// What of others its author had seen.
    #[must_use]
    pub fn heads(&self) -> &[(NodeId, u64)] {
        &self.draft.heads
    }

    /// When, in milliseconds since 1970 by its author's clock.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        self.draft.time_ms
    }

    /// Of the key that sealed the payload.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.draft.epoch
    }

    /// What the payload is.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.draft.kind
    }

    /// Its author's capability, if it is here.
    #[must_use]
    pub fn chain(&self) -> Option<&Bytes> {
        self.draft.chain.as_ref()
    }

    /// What is said, as it travels.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.draft.payload
    }

    /// Its name: the BLAKE3 hash of its encoding.
    #[must_use]
    pub fn id(&self) -> EntryId {
        self.id
    }

    /// As it travels.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Draft {
    fn is_within_limits(&self) -> bool {
        self.seq > 0
            && self.seq < u64::MAX
            && (self.seq == 1) == self.backlink.is_none()
            && self.heads.len() <= HEADS_MAX
            && self.heads.is_sorted_by(|(a, _), (b, _)| a < b)
            && self.payload.len() <= PAYLOAD_LEN_MAX
            && self.chain.as_ref().is_none_or(|chain| chain.len() <= CHAIN_LEN_MAX)
    }

    fn message(&self, author: NodeId, network: &str, topic: TopicId) -> Vec<u8> {
        signature::message("baran 1 entry", network, |e| {
            e.encode(topic)?;
            self.encode(author, e)
        })
    }

    fn encode<W: Write>(
        &self,
        author: NodeId,
        e: &mut Encoder<W>,
    ) -> Result<(), EncodeError<W::Error>> {
        e.encode(author)?.u64(self.seq)?.encode(self.backlink)?;
        e.array(self.heads.len() as u64)?;
        for (author, seq) in &self.heads {
            e.array(2)?.encode(author)?.u64(*seq)?;
        }
        e.u64(self.time_ms)?.u32(self.epoch)?.u8(self.kind)?;
        match &self.chain {
            Some(chain) => e.bytes(chain)?,
            None => e.null()?,
        };
        e.bytes(&self.payload)?.ok()
    }
}

/// A part of `all` without a copy.
fn slice(all: &Bytes, part: &[u8]) -> Bytes {
    if part.is_empty() { Bytes::new() } else { all.slice_ref(part) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret() -> SecretKey {
        SecretKey::from_bytes([7; 32])
    }

    fn topic(n: u8) -> TopicId {
        TopicId::from_bytes([n; 32])
    }

    fn entry(draft: Draft) -> Signed {
        Signed::sign(&secret(), "main", topic(1), draft)
    }

    fn second(payload: Vec<u8>) -> Draft {
        let head = (NodeId::from_bytes([3; 32]), 40);
        let backlink = Some(EntryId::from_bytes([9; 32]));
        let time_ms = 1_790_000_000_000;
        let payload = payload.into();
        Draft { seq: 2, backlink, heads: vec![head], time_ms, payload, ..Draft::default() }
    }

    #[test]
    fn an_entry_counts_in_its_topic_and_network_alone() {
        let signed = entry(second(b"hello".to_vec()));
        let read = Signed::decode(signed.bytes().clone()).unwrap();
        assert_eq!(read, signed);
        assert!(read.verify("main", topic(1)));
        assert!(!read.verify("main", topic(2)));
        assert!(!read.verify("test", topic(1)));
    }

    #[test]
    fn little_travels_beside_the_payload() {
        let signed = entry(second(vec![0; 1_024]));
        assert!(signed.bytes().len() <= 1_024 + 190, "{}", signed.bytes().len());
    }

    #[test]
    fn the_largest_entry_is_read_and_a_larger_one_is_not() {
        let heads = (0..32).map(|n| (NodeId::from_bytes([n; 32]), u64::MAX)).collect();
        let chain = Some(Bytes::from(vec![1; CHAIN_LEN_MAX]));
        let full = second(vec![2; PAYLOAD_LEN_MAX]);
        let signed = entry(Draft { heads, chain, epoch: u32::MAX, kind: 255, ..full });
        assert!(signed.bytes().len() <= ENTRY_LEN_MAX);
        Signed::decode(signed.bytes().clone()).unwrap();
        Signed::decode(vec![0; ENTRY_LEN_MAX + 1].into()).unwrap_err();
    }

    #[test]
    fn a_first_entry_has_nothing_before_it_and_others_have() {
        let mut bytes = entry(second(Vec::new())).bytes().to_vec();
        let at = 1 + 34;
        assert_eq!(bytes[at], 2);
        bytes[at] = 1;
        Signed::decode(bytes.into()).unwrap_err();
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_seen(at in 0_usize..200, by in 1_u8..) {
            let signed = entry(second(b"hello".to_vec()));
            let mut bytes = signed.bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= by;
            if let Ok(read) = Signed::decode(bytes.into()) {
                prop_assert!(!read.verify("main", topic(1)));
                prop_assert_ne!(read.id(), signed.id());
            }
        }

        #[test]
        fn garbage_is_no_entry(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(Signed::decode(bytes.into()));
        }
    }
}
