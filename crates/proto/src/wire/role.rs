//! Messages about roles: who has seats, standing for one, voting, and watching over each other.
//!
//! A claim is a hint: whoever uses a seat asks it for its mandate, which proves itself.

use bytes::Bytes;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use super::DecodeError;
use super::addr::bounded_len;
use super::index::shorten;
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::key::Key;
use crate::role::mandate::MANDATE_LEN_MAX;
use crate::role::report::{Charge, Removal, Report};
use crate::role::term::{RANKS_MAX, TERM_LEN_MAX, Vote};

/// Most seats of one [`Seats`]: all of a region.
pub const SEATS_MAX: usize = RANKS_MAX;

/// Longest payload of an [`Echo`] in bytes.
pub const ECHO_LEN_MAX: usize = 4_000;

/// A digest of a term, by which a vote names it: BLAKE3, eight bytes.
pub type TermDigest = u64;

/// What nodes tell each other about roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleMessage {
    /// Asks who has seats of the region of a key (type 32).
    Ask(Ask),
    /// Names some (type 33).
    Seats(Seats),
    /// Asks for the receiver's mandate (type 34).
    Show(Show),
    /// Shows it (type 35).
    Present(Present),
    /// Asks an elector for its vote (type 36).
    Apply(Apply),
    /// Gives it (type 37).
    Vote(Ballot),
    /// Will not vote, or has no mandate to show (type 38).
    Declined(Declined),
    /// The sender's seat is in service (type 39).
    Beat(Beat),
    /// A seat is not heard (type 40).
    Lost(Lost),
    /// Says that a seat does not do what it is for (type 41).
    Report(Accusation),
    /// Enough of those (type 42).
    Removal(Removal),
    /// Asks for these bytes back, to measure how fast they come (type 43).
    Echo(Echo),
    /// Gives them back (type 44).
    Echoed(Echo),
}

/// Asks who has seats of the region of a key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ask {
    /// The key: mostly the sender's own.
    #[n(0)]
    pub key: Key,
}

/// Seats of the region that was asked for, as far as the sender knows.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Seats {
    /// How many bits fix a region, as the sender sees it.
    #[n(0)]
    pub bits: u8,
    /// At most [`SEATS_MAX`]; more are not written.
    #[cbor(n(1), encode_with = "encode_seats", decode_with = "decode_seats")]
    pub seats: Vec<SeatHint>,
    /// How many the sender knows, if it has a seat those that were elected and are there: a leaf is
    /// told of some.
    #[n(2)]
    pub known: u8,
}

/// Who is said to have a seat.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SeatHint {
    /// Who, and where it may be.
    #[n(0)]
    pub contact: PeerAddr,
    /// How much of what its owner allows is taken: 0 to 255.
    #[n(1)]
    pub load: u8,
    /// Whether its seat serves, by its rank; else it stands by.
    #[n(2)]
    pub is_active: bool,
    /// Bytes a second that its mandate says: a power of two.
    #[n(3)]
    pub capacity_log2: u8,
}

/// Asks for the receiver's mandate.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Show {}

/// Shows the sender's mandate.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Present {
    /// A [`Mandate`](crate::role::Mandate), at most [`MANDATE_LEN_MAX`] bytes.
    #[cbor(n(0), encode_with = "encode_bytes", decode_with = "decode_bytes::<MANDATE_LEN_MAX, _>")]
    pub mandate: Bytes,
    /// How much of what its owner allows is taken: 0 to 255.
    #[n(1)]
    pub load: u8,
}

/// Asks an elector for its vote.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Apply {
    /// The [`Term`](crate::role::Term) that is to be voted on, at most [`TERM_LEN_MAX`] bytes.
    #[cbor(n(0), encode_with = "encode_bytes", decode_with = "decode_bytes::<TERM_LEN_MAX, _>")]
    pub term: Bytes,
    /// The solution of the sender's puzzle.
    #[n(1)]
    pub nonce: u64,
    /// The sender's mandate of the epoch before, if the term claims one; else empty.
    #[cbor(
        n(2),
        encode_with = "encode_bytes",
        decode_with = "decode_bytes::<MANDATE_LEN_MAX, _>",
        skip_if = "Bytes::is_empty",
        default
    )]
    pub mandate: Bytes,
}

/// Gives a vote.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ballot {
    /// Which term it is for.
    #[n(0)]
    pub term: TermDigest,
    /// The vote.
    #[n(1)]
    pub vote: Vote,
}

/// Why nothing is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum DeclineReason {
    /// Who was asked has no seat.
    #[n(0)]
    NotMine,
    /// It is too late or too early, or the calendars differ.
    #[n(1)]
    Time,
    /// What was sent is not valid.
    #[n(2)]
    Invalid,
    /// A seat serves enough others; its guests may look for another.
    #[n(3)]
    Full,
    /// Who was asked is no elector there, or has no room for more candidates.
    #[n(4)]
    NoElector,
    /// The sender has enough seats, and is no guest of the receiver's.
    #[n(5)]
    NoGuest,
}

/// Will not vote, or has no mandate to show, or serves enough others.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Declined {
    /// Why.
    #[n(0)]
    pub reason: DeclineReason,
    /// Seconds after which to ask again, at most an hour; 0 never.
    #[n(1)]
    pub retry_after_s: u16,
}

/// Says that the sender's seat is in service.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Beat {
    /// How much of what its owner allows is taken: 0 to 255.
    #[n(0)]
    pub load: u8,
    /// Whether the receiver is to answer with its own.
    #[n(1)]
    pub asks: bool,
}

/// A seat is not heard by the sender.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Lost {
    /// Whose seat.
    #[n(0)]
    pub seat: NodeId,
}

/// A failure report, and what it is about.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Accusation {
    /// Which seat.
    #[n(0)]
    pub charge: Charge,
    /// The signed word.
    #[n(1)]
    pub report: Report,
}

/// Bytes to be sent back as they are.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Echo {
    /// Named in the answer.
    #[n(0)]
    pub number: u32,
    /// At most [`ECHO_LEN_MAX`].
    #[cbor(n(1), encode_with = "encode_bytes", decode_with = "decode_bytes::<ECHO_LEN_MAX, _>")]
    pub payload: Bytes,
}

fn encode_bytes<C, W: Write>(
    bytes: &Bytes,
    e: &mut Encoder<W>,
    _: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    e.bytes(bytes)?.ok()
}

fn decode_bytes<const MAX: usize, C>(
    d: &mut Decoder<'_>,
    _: &mut C,
) -> Result<Bytes, minicbor::decode::Error> {
    let at = d.position();
    let bytes = d.bytes()?;
    if bytes.len() > MAX {
        return Err(minicbor::decode::Error::message("too many bytes").at(at));
    }
    Ok(Bytes::copy_from_slice(bytes))
}

/// Encodes the first [`SEATS_MAX`] seats, each with its first addresses and homes.
fn encode_seats<C, W: Write>(
    seats: &[SeatHint],
    e: &mut Encoder<W>,
    ctx: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    let seats = &seats[..seats.len().min(SEATS_MAX)];
    e.array(seats.len() as u64)?;
    seats.iter().try_for_each(|seat| {
        let seat = SeatHint { contact: shorten(&seat.contact), ..*seat };
        e.encode_with(seat, ctx)?.ok()
    })
}

fn decode_seats<C>(
    d: &mut Decoder<'_>,
    ctx: &mut C,
) -> Result<Vec<SeatHint>, minicbor::decode::Error> {
    let len = bounded_len(d, SEATS_MAX)?;
    let mut seats = Vec::with_capacity(len);
    for _ in 0..len {
        let seat: SeatHint = d.decode_with(ctx)?;
        seats.push(SeatHint { contact: shorten(&seat.contact), ..seat });
    }
    Ok(seats)
}

impl RoleMessage {
    pub(super) fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
    ) -> Result<(), EncodeError<W::Error>> {
        match self {
            Self::Ask(body) => encoder.u8(32)?.encode(body)?,
            Self::Seats(body) => encoder.u8(33)?.encode(body)?,
            Self::Show(body) => encoder.u8(34)?.encode(body)?,
            Self::Present(body) => encoder.u8(35)?.encode(body)?,
            Self::Apply(body) => encoder.u8(36)?.encode(body)?,
            Self::Vote(body) => encoder.u8(37)?.encode(body)?,
            Self::Declined(body) => encoder.u8(38)?.encode(body)?,
            Self::Beat(body) => encoder.u8(39)?.encode(body)?,
            Self::Lost(body) => encoder.u8(40)?.encode(body)?,
            Self::Report(body) => encoder.u8(41)?.encode(body)?,
            Self::Removal(body) => encoder.u8(42)?.encode(body)?,
            Self::Echo(body) => encoder.u8(43)?.encode(body)?,
            Self::Echoed(body) => encoder.u8(44)?.encode(body)?,
        };
        Ok(())
    }

    pub(super) fn decode(
        number: u8,
        decoder: &mut Decoder<'_>,
    ) -> Result<Option<Self>, DecodeError> {
        Ok(Some(match number {
            32 => Self::Ask(decoder.decode()?),
            33 => Self::Seats(decoder.decode()?),
            34 => Self::Show(decoder.decode()?),
            35 => Self::Present(decoder.decode()?),
            36 => Self::Apply(decoder.decode()?),
            37 => Self::Vote(decoder.decode()?),
            38 => Self::Declined(decoder.decode()?),
            39 => Self::Beat(decoder.decode()?),
            40 => Self::Lost(decoder.decode()?),
            41 => Self::Report(decoder.decode()?),
            42 => Self::Removal(decoder.decode()?),
            43 => Self::Echo(decoder.decode()?),
            44 => Self::Echoed(decoder.decode()?),
            _ => return Ok(None),
        }))
    }
}
