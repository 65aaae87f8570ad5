//! What two members tell each other when they compare.

use bytes::Bytes;
use minicbor::bytes::ByteArray;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::id::NodeId;
use crate::topic::entry::{CHAIN_LEN_MAX, ENTRY_LEN_MAX};
use crate::topic::id::ShortId;
use crate::wire::addr::bounded_len;

/// Ranges of one message.
pub const RANGES_MAX: usize = 64;

/// Heads of one message, of all its ranges.
pub const HEADS_MAX: usize = 512;

/// Spans of one [`RepairMessage::Ask`].
pub const SPANS_MAX: usize = 64;

/// Entries of one [`RepairMessage::Entries`], and capabilities beside them.
pub const ENTRIES_MAX: usize = 512;

/// A message of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum RepairMessage {
    /// The digest of all heads of the sender; with `is_asking` the receiver is to answer.
    #[n(0)]
    Digest {
        /// [`Log::digest`](crate::topic::log::Log::digest).
        #[n(0)]
        digest: ByteArray<32>,
        /// Whether an answer is wanted.
        #[n(1)]
        is_asking: bool,
    },
    /// What the sender has in ranges of the authors: at most [`RANGES_MAX`], with at most
    /// [`HEADS_MAX`] heads together.
    #[n(1)]
    Ranges(#[cbor(n(0), decode_with = "decode_ranges")] Vec<Range>),
    /// Asks for entries: at most [`SPANS_MAX`] spans.
    #[n(2)]
    Ask(#[cbor(n(0), decode_with = "decode_spans")] Vec<Asked>),
    /// Entries that were asked for, in the order of the spans.
    #[n(3)]
    Entries {
        /// Capabilities of authors whose first entry is not among them.
        #[cbor(n(0), encode_with = "encode_chains", decode_with = "decode_chains")]
        chains: Vec<(NodeId, Bytes)>,
        /// The entries.
        #[cbor(n(1), encode_with = "encode_entries", decode_with = "decode_entries")]
        entries: Vec<Bytes>,
    },
}

/// Authors from one on, before another.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Range {
    /// The first.
    #[n(0)]
    pub from: NodeId,
    /// The one after the last; all if absent.
    #[n(1)]
    pub to: Option<NodeId>,
    /// What the sender has there.
    #[n(2)]
    pub summary: Summary,
}

/// What somebody has in a range.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Summary {
    /// A digest of the heads.
    #[n(0)]
    Fingerprint(#[n(0)] ByteArray<32>),
    /// All heads.
    #[n(1)]
    Heads {
        /// In the order of the authors.
        #[cbor(n(0), decode_with = "decode_heads")]
        heads: Vec<Head>,
        /// Whether they answer the receiver's own of the same range.
        #[n(1)]
        is_answer: bool,
    },
}

/// An author's log, as somebody has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Head {
    /// Whose.
    #[n(0)]
    pub author: NodeId,
    /// The first entry that is kept.
    #[n(1)]
    pub first: u64,
    /// The last.
    #[n(2)]
    pub head: u64,
    /// Its name.
    #[n(3)]
    pub id: ShortId,
}

/// Entries of one log that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Asked {
    /// Whose.
    #[n(0)]
    pub author: NodeId,
    /// The first.
    #[n(1)]
    pub from: u64,
    /// The last.
    #[n(2)]
    pub to: u64,
}

impl RepairMessage {
    /// About the bytes that it takes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Digest { .. } => 40,
            Self::Ranges(ranges) => ranges.len() * 160,
            Self::Ask(spans) => spans.len() * 56,
            Self::Entries { chains, entries } => {
                chains.iter().map(|(_, chain)| chain.len() + 40).sum::<usize>()
                    + entries.iter().map(Bytes::len).sum::<usize>()
            }
        }
    }

    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn decode_ranges<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<Range>, minicbor::decode::Error> {
    let len = bounded_len(d, RANGES_MAX)?;
    (0..len).map(|_| d.decode()).collect()
}

fn decode_heads<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<Head>, minicbor::decode::Error> {
    let len = bounded_len(d, HEADS_MAX)?;
    (0..len).map(|_| d.decode()).collect()
}

fn decode_spans<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<Asked>, minicbor::decode::Error> {
    let len = bounded_len(d, SPANS_MAX)?;
    (0..len).map(|_| d.decode()).collect()
}

fn encode_chains<C, W: Write>(
    chains: &[(NodeId, Bytes)],
    e: &mut Encoder<W>,
    _: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    e.array(chains.len() as u64)?;
    chains.iter().try_for_each(|(author, chain)| e.array(2)?.encode(author)?.bytes(chain)?.ok())
}

fn decode_chains<C>(
    d: &mut Decoder<'_>,
    _: &mut C,
) -> Result<Vec<(NodeId, Bytes)>, minicbor::decode::Error> {
    let len = bounded_len(d, SPANS_MAX)?;
    let mut chains = Vec::new();
    for _ in 0..len {
        if d.array()? != Some(2) {
            return Err(minicbor::decode::Error::message("a capability and whose it is"));
        }
        chains.push((d.decode()?, bounded(d, CHAIN_LEN_MAX)?));
    }
    Ok(chains)
}

fn encode_entries<C, W: Write>(
    entries: &[Bytes],
    e: &mut Encoder<W>,
    _: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    e.array(entries.len() as u64)?;
    entries.iter().try_for_each(|entry| e.bytes(entry)?.ok())
}

fn decode_entries<C>(
    d: &mut Decoder<'_>,
    _: &mut C,
) -> Result<Vec<Bytes>, minicbor::decode::Error> {
    let len = bounded_len(d, ENTRIES_MAX)?;
    (0..len).map(|_| bounded(d, ENTRY_LEN_MAX)).collect()
}

fn bounded(d: &mut Decoder<'_>, max: usize) -> Result<Bytes, minicbor::decode::Error> {
    let bytes = d.bytes()?;
    match bytes.len() <= max {
        true => Ok(Bytes::copy_from_slice(bytes)),
        false => Err(minicbor::decode::Error::message("more bytes than are allowed")),
    }
}
