//! Messages between members of a topic.
//!
//! They travel on a stream of their own beside the control stream, each with its length as four
//! bytes before it, big-endian, so that a long history holds up nothing else. A message is a CBOR
//! array `[number, type, body]`: the number is the one under which its *sender* speaks of the topic
//! to this receiver, given by its [`TopicBody::Join`]; in [`TopicBody::Unknown`] it is the
//! receiver's. A type that the reader does not know is skipped; a known one with a malformed body
//! ends the stream.

use bytes::Bytes;
use minicbor::bytes::ByteArray;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decoder, Encoder};

use super::DecodeError;
use super::index::{decode_contacts, encode_contacts};
use crate::invite::PeerAddr;
use crate::topic::entry::ENTRY_LEN_MAX;
use crate::topic::id::ShortId;
use crate::topic::presence::PRESENCE_LEN_MAX;
use crate::topic::repair::RepairMessage;

/// Longest message of a topic in bytes: two of the longest entries, which prove a fork.
pub const TOPIC_MESSAGE_LEN_MAX: usize = 80 * 1024;

/// Bytes of the length before each message.
pub const TOPIC_LENGTH_LEN: usize = 4;

/// Most members that one message names.
pub const MEMBERS_MAX: usize = 8;

/// Most entries that one [`GossipMessage::Have`] or [`GossipMessage::Graft`] names.
pub const SHORTS_MAX: usize = 64;

/// A message of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMessage {
    /// The sender's number of the topic; in [`TopicBody::Unknown`] the receiver's.
    pub number: u32,
    /// What it says.
    pub body: TopicBody,
}

/// What members of a topic tell each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicBody {
    /// The sender takes part in a topic and speaks of it by this number (type 0).
    Join {
        /// What members alone can make of the two peers' identities.
        tag: [u8; 32],
        /// Whether a receiver that takes part too is to answer with a Join of its own, which asks
        /// for none. One that does not says [`TopicBody::Unknown`] in any case.
        is_asking: bool,
    },
    /// The sender takes no part in the topic that the *receiver* gave this number (type 1).
    Unknown,
    /// The sender no longer takes part (type 2).
    Leave,
    /// How neighbours are found and kept (types 3 to 10).
    Gossip(GossipMessage),
    /// An entry that is new to the sender (type 11).
    Push(Bytes),
    /// What each has (type 12).
    Repair(RepairMessage),
    /// That a member is there (type 13).
    Presence(Bytes),
    /// Two entries that prove a fork (type 14).
    Fork(Bytes, Bytes),
}

/// How members find and keep their neighbours, and tell each other what they have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GossipMessage {
    /// Asks to be a neighbour; `is_urgent` if the sender has none (type 3).
    Neighbor {
        /// Whether a neighbour is to be dropped for the sender if there is no room.
        is_urgent: bool,
    },
    /// The answer to [`GossipMessage::Neighbor`], with some members besides (type 4).
    Neighbored {
        /// Whether sender and receiver are neighbours.
        is_accepted: bool,
        /// At most [`MEMBERS_MAX`].
        members: Vec<PeerAddr>,
    },
    /// Sender and receiver are no longer neighbours (type 5).
    Parted,
    /// Some members that the sender knows; asks for as many (type 6).
    Shuffle(Vec<PeerAddr>),
    /// The answer (type 7).
    Shuffled(Vec<PeerAddr>),
    /// The sender has these entries and did not push them: at most [`SHORTS_MAX`] (type 8).
    Have(Vec<ShortId>),
    /// Asks for these entries, and that what comes is pushed: at most [`SHORTS_MAX`] (type 9).
    Graft(Vec<ShortId>),
    /// Asks to push nothing more: the sender has it from others (type 10).
    Prune,
}

impl TopicMessage {
    /// Encodes with the length in front.
    ///
    /// # Panics
    ///
    /// Never for messages within their documented limits: these fit in [`TOPIC_MESSAGE_LEN_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(vec![0; TOPIC_LENGTH_LEN]);
        self.encode_body(&mut encoder).expect("writing to memory cannot fail");
        let mut bytes = encoder.into_writer();
        let len = bytes.len() - TOPIC_LENGTH_LEN;
        assert!(len <= TOPIC_MESSAGE_LEN_MAX, "message over its limits");
        let prefix = u32::try_from(len).expect("checked just above").to_be_bytes();
        bytes[..TOPIC_LENGTH_LEN].copy_from_slice(&prefix);
        bytes
    }

    fn encode_body<W: Write>(&self, e: &mut Encoder<W>) -> Result<(), EncodeError<W::Error>> {
        e.array(3)?.u32(self.number)?;
        match &self.body {
            TopicBody::Join { tag, is_asking } => {
                e.u8(0)?.array(2)?.bytes(tag)?.bool(*is_asking)?
            }
            TopicBody::Unknown => e.u8(1)?.null()?,
            TopicBody::Leave => e.u8(2)?.null()?,
            TopicBody::Gossip(message) => return message.encode(e),
            TopicBody::Push(entry) => e.u8(11)?.bytes(entry)?,
            TopicBody::Repair(message) => e.u8(12)?.encode(message)?,
            TopicBody::Presence(presence) => e.u8(13)?.bytes(presence)?,
            TopicBody::Fork(a, b) => e.u8(14)?.array(2)?.bytes(a)?.bytes(b)?,
        };
        Ok(())
    }

    /// Decodes one message, without the length.
    ///
    /// # Errors
    ///
    /// [`DecodeError::UnknownType`] asks for skipping, [`DecodeError::Malformed`] for ending the
    /// conversation.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > TOPIC_MESSAGE_LEN_MAX {
            return Err(DecodeError::Malformed("message too long".into()));
        }
        let mut d = Decoder::new(bytes);
        if d.array()? != Some(3) {
            return Err(DecodeError::Malformed("a message is [number, type, body]".into()));
        }
        let number = d.u32()?;
        let kind = d.u8()?;
        let body = match kind {
            0 => {
                pair(&mut d)?;
                TopicBody::Join { tag: d.decode::<ByteArray<32>>()?.into(), is_asking: d.bool()? }
            }
            1 => d.null().map(|()| TopicBody::Unknown)?,
            2 => d.null().map(|()| TopicBody::Leave)?,
            3..=10 => TopicBody::Gossip(GossipMessage::decode(kind, &mut d)?),
            11 => TopicBody::Push(bounded(&mut d, ENTRY_LEN_MAX)?),
            12 => TopicBody::Repair(d.decode()?),
            13 => TopicBody::Presence(bounded(&mut d, PRESENCE_LEN_MAX)?),
            14 => {
                pair(&mut d)?;
                TopicBody::Fork(bounded(&mut d, ENTRY_LEN_MAX)?, bounded(&mut d, ENTRY_LEN_MAX)?)
            }
            _ => return Err(DecodeError::UnknownType(kind)),
        };
        if d.position() != bytes.len() {
            return Err(DecodeError::Malformed("bytes after the message".into()));
        }
        Ok(Self { number, body })
    }
}

/// Reads the head of an array of two.
fn pair(d: &mut Decoder<'_>) -> Result<(), DecodeError> {
    match d.array()? {
        Some(2) => Ok(()),
        _ => Err(DecodeError::Malformed("two parts are expected".into())),
    }
}

fn bounded(d: &mut Decoder<'_>, max: usize) -> Result<Bytes, DecodeError> {
    let bytes = d.bytes()?;
    if bytes.len() > max {
        return Err(DecodeError::Malformed(format!(
            "{} bytes where {max} are allowed",
            bytes.len()
        )));
    }
    Ok(Bytes::copy_from_slice(bytes))
}

impl GossipMessage {
    fn encode<W: Write>(&self, e: &mut Encoder<W>) -> Result<(), EncodeError<W::Error>> {
        match self {
            Self::Neighbor { is_urgent } => e.u8(3)?.bool(*is_urgent)?.ok(),
            Self::Neighbored { is_accepted, members } => {
                e.u8(4)?.array(2)?.bool(*is_accepted)?;
                encode_contacts::<MEMBERS_MAX, _, _>(members, e, &mut ())
            }
            Self::Parted => e.u8(5)?.null()?.ok(),
            Self::Shuffle(members) => {
                encode_contacts::<MEMBERS_MAX, _, _>(members, e.u8(6)?, &mut ())
            }
            Self::Shuffled(members) => {
                encode_contacts::<MEMBERS_MAX, _, _>(members, e.u8(7)?, &mut ())
            }
            Self::Have(ids) => encode_shorts(ids, e.u8(8)?),
            Self::Graft(ids) => encode_shorts(ids, e.u8(9)?),
            Self::Prune => e.u8(10)?.null()?.ok(),
        }
    }

    fn decode(kind: u8, d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(match kind {
            3 => Self::Neighbor { is_urgent: d.bool()? },
            4 => {
                pair(d)?;
                Self::Neighbored {
                    is_accepted: d.bool()?,
                    members: decode_contacts::<MEMBERS_MAX, _>(d, &mut ())?,
                }
            }
            5 => d.null().map(|()| Self::Parted)?,
            6 => Self::Shuffle(decode_contacts::<MEMBERS_MAX, _>(d, &mut ())?),
            7 => Self::Shuffled(decode_contacts::<MEMBERS_MAX, _>(d, &mut ())?),
            8 => Self::Have(decode_shorts(d)?),
            9 => Self::Graft(decode_shorts(d)?),
            10 => d.null().map(|()| Self::Prune)?,
            _ => return Err(DecodeError::UnknownType(kind)),
        })
    }
}

/// Encodes the first [`SHORTS_MAX`] names, one after the other in one byte string.
fn encode_shorts<W: Write>(
    ids: &[ShortId],
    e: &mut Encoder<W>,
) -> Result<(), EncodeError<W::Error>> {
    let ids = &ids[..ids.len().min(SHORTS_MAX)];
    e.bytes(&ids.iter().flat_map(|id| *id.as_bytes()).collect::<Vec<_>>())?.ok()
}

fn decode_shorts(d: &mut Decoder<'_>) -> Result<Vec<ShortId>, DecodeError> {
    let bytes = d.bytes()?;
    let (ids, rest) = bytes.as_chunks();
    if !rest.is_empty() || ids.len() > SHORTS_MAX {
        return Err(DecodeError::Malformed("names of entries".into()));
    }
    Ok(ids.iter().map(|id| ShortId::from_bytes(*id)).collect())
}
