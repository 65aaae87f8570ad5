//! Messages of the index: who is near a key, what is kept there, and to keep something.
//!
//! A request travels on the control stream of a connection, so both sides have proved who they are
//! and an answer never goes to an address that somebody forged. The asker numbers its requests.

use bytes::Bytes;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use super::DecodeError;
use super::addr::bounded_len;
use super::node::Home;
use crate::invite::PeerAddr;
use crate::key::Key;

/// Most contacts of one answer.
pub const CONTACTS_MAX: usize = 12;

/// Seats that are named before other contacts.
pub const SEATS_NAMED_MAX: usize = 4;

/// Most addresses of a contact: one of each family.
pub const CONTACT_ADDRS_MAX: usize = 2;

/// Most homes of a contact.
pub const CONTACT_HOMES_MAX: usize = 2;

/// Longest signed record in bytes: a value of 1 KiB and its envelope.
pub const RECORD_LEN_MAX: usize = 1_280;

/// Most bytes of records in one answer.
pub const RECORDS_LEN_MAX: usize = 1_400;

/// Most records of one answer.
pub const RECORDS_MAX: usize = 8;

/// What peers ask each other about the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexMessage {
    /// Asks for what is near and at a key (type 16).
    Find(Find),
    /// Answers that (type 17).
    Found(Found),
    /// Asks to keep a record (type 18).
    Store(Store),
    /// Answers that (type 19).
    Stored(Stored),
    /// Lists records that the receiver should keep too (type 20).
    Offer(Offer),
    /// Says which of them it lacks (type 21).
    Lacking(Lacking),
}

/// Asks for the contacts nearest to a key, and for the records there.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Find {
    /// Named in the answer.
    #[n(0)]
    pub request: u32,
    /// The key.
    #[n(1)]
    pub target: Key,
    /// Which records are wanted; absent if only contacts are.
    #[n(2)]
    pub records: Option<RecordKind>,
    /// Where to go on among many records: [`Found::more`] of the answer before.
    #[n(3)]
    pub page: Option<u64>,
}

/// The kinds of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum RecordKind {
    /// Where a node is.
    #[n(0)]
    Node,
    /// That a node takes part in a topic.
    #[n(1)]
    Announcement,
    /// Up to 1 KiB under a name of its author's.
    #[n(2)]
    Value,
}

/// The nearest contacts that the sender knows, and the records that it holds.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Found {
    /// Of the [`Find`] that this answers.
    #[n(0)]
    pub request: u32,
    /// At most [`CONTACTS_MAX`]; more are not written. First at most [`SEATS_NAMED_MAX`] seats, in
    /// no order, then those nearest to the key, nearest first.
    #[cbor(
        n(1),
        encode_with = "encode_contacts::<CONTACTS_MAX, _, _>",
        decode_with = "decode_contacts::<CONTACTS_MAX, _>"
    )]
    pub contacts: Vec<PeerAddr>,
    /// Bit i: the sender is connected to contact i and can signal for it.
    #[n(2)]
    pub linked: u32,
    /// Signed records; at most [`RECORDS_MAX`], together at most [`RECORDS_LEN_MAX`] bytes; more
    /// are not written.
    #[cbor(n(3), encode_with = "encode_records", decode_with = "decode_records")]
    pub records: Vec<Bytes>,
    /// There are more records: the [`Find::page`] to ask for.
    #[n(4)]
    pub more: Option<u64>,
    /// Bit i: the sender believes that contact i holds a seat of the region of the key. Absent if
    /// none does.
    #[cbor(n(5), skip_if = "no_seats")]
    pub seats: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as the encoder calls it")]
fn no_seats(seats: &u32) -> bool {
    *seats == 0
}

/// Asks to keep a record.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Store {
    /// Named in the answer.
    #[n(0)]
    pub request: u32,
    /// The signed record, at most [`RECORD_LEN_MAX`] bytes.
    #[cbor(n(1), encode_with = "encode_record", decode_with = "decode_record")]
    pub record: Bytes,
}

/// Says whether a record is kept.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Stored {
    /// Of the [`Store`] that this answers.
    #[n(0)]
    pub request: u32,
    /// How it went.
    #[n(1)]
    pub outcome: StoreOutcome,
}

/// What became of a record that a peer was asked to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum StoreOutcome {
    /// It is on disk, or was already.
    #[n(0)]
    Kept,
    /// A newer one of the same author is known.
    #[n(1)]
    Stale,
    /// It has expired, or expires later than any record may: one of the two clocks is wrong.
    #[n(2)]
    Clock,
    /// Key, author or node have all the space that they may have.
    #[n(3)]
    Full,
    /// It is malformed, or its signature is wrong.
    #[n(4)]
    Invalid,
    /// The receiver keeps nothing, or cannot write.
    #[n(5)]
    Unable,
}

/// Most records of one [`Offer`].
pub const OFFER_MAX: usize = 256;

/// A short name of one version of one record: enough to tell those of a shard apart, by BLAKE3.
pub type Digest = [u8; 8];

/// Lists records near the receiver, so that only what it lacks is sent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Offer {
    /// Named in the answer.
    #[n(0)]
    pub request: u32,
    /// At most [`OFFER_MAX`]; more are not written.
    #[cbor(n(1), encode_with = "encode_digests", decode_with = "decode_digests")]
    pub digests: Vec<Digest>,
}

/// Answers an [`Offer`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Lacking {
    /// Of the [`Offer`] that this answers.
    #[n(0)]
    pub request: u32,
    /// The digests of those that are lacking, at most [`OFFER_MAX`].
    #[cbor(n(1), encode_with = "encode_digests", decode_with = "decode_digests")]
    pub digests: Vec<Digest>,
}

/// Digests are one byte string, so that 256 of them fit a message.
fn encode_digests<C, W: Write>(
    digests: &[Digest],
    e: &mut Encoder<W>,
    _: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    let digests = &digests[..digests.len().min(OFFER_MAX)];
    e.bytes(digests.as_flattened())?.ok()
}

fn decode_digests<C>(
    d: &mut Decoder<'_>,
    _: &mut C,
) -> Result<Vec<Digest>, minicbor::decode::Error> {
    let at = d.position();
    let (digests, rest) = d.bytes()?.as_chunks();
    if digests.len() > OFFER_MAX || !rest.is_empty() {
        return Err(minicbor::decode::Error::message("not a list of digests").at(at));
    }
    Ok(digests.to_vec())
}

/// Encodes the first `MAX` contacts, each with its first addresses and homes.
pub(super) fn encode_contacts<const MAX: usize, C, W: Write>(
    contacts: &[PeerAddr],
    e: &mut Encoder<W>,
    ctx: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    let contacts = &contacts[..contacts.len().min(MAX)];
    e.array(contacts.len() as u64)?;
    contacts.iter().try_for_each(|contact| e.encode_with(shorten(contact), ctx)?.ok())
}

/// What a contact tells of a peer: a node is asked for the rest when it is reached.
#[must_use]
pub fn shorten(peer: &PeerAddr) -> PeerAddr {
    let first = |homes: &[Home]| {
        let short = |home: &Home| Home { id: home.id, addrs: take(&home.addrs, 1) };
        homes.iter().take(CONTACT_HOMES_MAX).map(short).collect()
    };
    PeerAddr { id: peer.id, addrs: take(&peer.addrs, CONTACT_ADDRS_MAX), homes: first(&peer.homes) }
}

fn take<T: Copy>(items: &[T], max: usize) -> Vec<T> {
    items.iter().copied().take(max).collect()
}

/// Decodes at most `MAX` contacts.
pub(super) fn decode_contacts<const MAX: usize, C>(
    d: &mut Decoder<'_>,
    ctx: &mut C,
) -> Result<Vec<PeerAddr>, minicbor::decode::Error> {
    let len = bounded_len(d, MAX)?;
    let mut contacts = Vec::with_capacity(len);
    for _ in 0..len {
        let contact: PeerAddr = d.decode_with(ctx)?;
        contacts.push(shorten(&contact));
    }
    Ok(contacts)
}

fn encode_record<C, W: Write>(
    record: &Bytes,
    e: &mut Encoder<W>,
    _: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    e.bytes(record)?.ok()
}

fn decode_record<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Bytes, minicbor::decode::Error> {
    let at = d.position();
    let bytes = d.bytes()?;
    if bytes.len() > RECORD_LEN_MAX {
        return Err(minicbor::decode::Error::message("record too long").at(at));
    }
    Ok(Bytes::copy_from_slice(bytes))
}

fn encode_records<C, W: Write>(
    records: &[Bytes],
    e: &mut Encoder<W>,
    ctx: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    let mut len = 0;
    let fits = |record: &&Bytes| {
        len += record.len();
        len <= RECORDS_LEN_MAX
    };
    let records: Vec<_> = records.iter().take(RECORDS_MAX).take_while(fits).collect();
    e.array(records.len() as u64)?;
    records.into_iter().try_for_each(|record| encode_record(record, e, ctx))
}

fn decode_records<C>(
    d: &mut Decoder<'_>,
    ctx: &mut C,
) -> Result<Vec<Bytes>, minicbor::decode::Error> {
    let len = bounded_len(d, RECORDS_MAX)?;
    (0..len).map(|_| decode_record(d, ctx)).collect()
}

impl IndexMessage {
    /// The number of the request that this makes or answers.
    #[must_use]
    pub fn request(&self) -> u32 {
        match self {
            Self::Find(find) => find.request,
            Self::Found(found) => found.request,
            Self::Store(store) => store.request,
            Self::Stored(stored) => stored.request,
            Self::Offer(offer) => offer.request,
            Self::Lacking(lacking) => lacking.request,
        }
    }

    pub(super) fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
    ) -> Result<(), EncodeError<W::Error>> {
        match self {
            Self::Find(body) => encoder.u8(16)?.encode(body)?,
            Self::Found(body) => encoder.u8(17)?.encode(body)?,
            Self::Store(body) => encoder.u8(18)?.encode(body)?,
            Self::Stored(body) => encoder.u8(19)?.encode(body)?,
            Self::Offer(body) => encoder.u8(20)?.encode(body)?,
            Self::Lacking(body) => encoder.u8(21)?.encode(body)?,
        };
        Ok(())
    }

    pub(super) fn decode(
        number: u8,
        decoder: &mut Decoder<'_>,
    ) -> Result<Option<Self>, DecodeError> {
        Ok(Some(match number {
            16 => Self::Find(decoder.decode()?),
            17 => Self::Found(decoder.decode()?),
            18 => Self::Store(decoder.decode()?),
            19 => Self::Stored(decoder.decode()?),
            20 => Self::Offer(decoder.decode()?),
            21 => Self::Lacking(decoder.decode()?),
            _ => return Ok(None),
        }))
    }
}
