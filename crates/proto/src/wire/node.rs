//! Messages between nodes: what each offers, relaying, and homes.

use std::net::SocketAddr;

use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use super::addr::{bounded_len, decode_addr, decode_addrs, encode_addr, encode_addrs};
use super::{DecodeError, IndexMessage, RoleMessage};
use crate::frame::Channel;
use crate::id::NodeId;

/// Most homes that a node names: design §7 asks for three.
pub const HOMES_MAX: usize = 3;

/// Most addresses of one home.
pub const HOME_ADDRS_MAX: usize = 4;

/// What nodes tell each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeMessage {
    /// The first message of each side (type 0).
    Hello(Hello),
    /// Asks to be reachable through the receiver (type 1).
    Reserve(Reserve),
    /// Grants it (type 2).
    Reserved(Reserved),
    /// Asks for a channel to a node that holds a reservation (type 3).
    RelayOpen(RelayOpen),
    /// The channel is open (type 4).
    RelayOpened(RelayOpened),
    /// No reservation, or no channel (type 5).
    Refused(Refused),
    /// Tells the holder of a reservation that a channel to it was opened (type 6).
    RelayIncoming(RelayIncoming),
    /// Keeps a channel beyond its expiry (type 7).
    RelayRenew(RelayRenew),
    /// The channel is gone (type 8).
    RelayClosed(RelayClosed),
    /// Where the sender can be reached, and through which nodes (type 9).
    Homes(Homes),
    /// Gives a reservation back (type 10).
    Release(Release),
    /// The sender's owner uses the connection (type 11).
    Need(Need),
    /// The sender, the connection's client, prefers another one to the receiver (type 12).
    Retired(Retired),
    /// About the index (types 16 to 31).
    Index(IndexMessage),
    /// About roles (types 32 to 47).
    Role(RoleMessage),
}

/// Says what a node offers. The first message of each side, and again when that changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// Whether the sender relays and signals for its peers.
    #[n(0)]
    pub relays: bool,
    /// Whether the sender takes part in the index: answers and keeps what others ask.
    #[n(1)]
    #[cbor(default)]
    pub indexes: bool,
    /// The calendar as the sender has it, in seconds since 1970.
    #[n(2)]
    #[cbor(default)]
    pub unix_s: u64,
    /// Drawn at random when the sender's node starts: tells a node that was restarted from one
    /// that merely opened another connection. 0: unknown.
    #[n(3)]
    #[cbor(default)]
    pub run: u64,
    /// How many nodes the network has by what the sender itself observed. 0: unknown.
    #[n(4)]
    #[cbor(default)]
    pub nodes: u32,
}

/// Asks for a reservation, or for more time on the one held; and says that the connection is to
/// last, which [`Release`] takes back.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Reserve {}

/// Gives a reservation back: the sender does not mean to keep the connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Release {}

/// The sender's owner uses the connection: it is worth warm relayed paths, to which the client
/// sees, and for which each side names its homes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Need {}

/// The sender, which is the connection's client, prefers another one to the receiver. Of several
/// that one side opened at once each side may count another one as the newest.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Retired {}

/// Grants a reservation, with the limits that the relay's owner set.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Reserved {
    /// Seconds until it expires; 1 to 14,400.
    #[n(0)]
    pub ttl_s: u32,
    /// Bytes a second that the relay carries for everybody together.
    #[n(1)]
    pub rate_bytes_per_s: u64,
}

/// Asks for a channel to `target`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayOpen {
    /// Chosen by the sender, named in the answer.
    #[n(0)]
    pub request: u32,
    /// The node to reach. A node, never an address.
    #[n(1)]
    pub target: NodeId,
}

/// The channel that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayOpened {
    /// Of the [`RelayOpen`] that this answers.
    #[n(0)]
    pub request: u32,
    /// Put on frames to the relay.
    #[n(1)]
    pub channel: Channel,
    /// Where the relay sees the target.
    #[cbor(n(2), encode_with = "encode_addr", decode_with = "decode_addr")]
    pub target_addr: SocketAddr,
    /// Seconds until the channel expires.
    #[n(3)]
    pub ttl_s: u32,
}

/// Refuses a [`Reserve`] (`request` absent) or a [`RelayOpen`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Refused {
    /// Of the [`RelayOpen`] that this answers.
    #[n(0)]
    pub request: Option<u32>,
    /// Why.
    #[n(1)]
    pub reason: RefusalReason,
}

/// Why a relay says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum RefusalReason {
    /// The owner does not relay.
    #[n(0)]
    Off,
    /// Every reservation or channel that the owner allows is taken.
    #[n(1)]
    Full,
    /// The owner's bytes of the day are used up.
    #[n(2)]
    Budget,
    /// The target holds no reservation here.
    #[n(3)]
    NoReservation,
    /// Sender or target is not connected directly to the relay.
    #[n(4)]
    NotDirect,
    /// A node asked for a channel to itself or to the relay.
    #[n(5)]
    Pointless,
}

/// Announces a channel to the holder of a reservation.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayIncoming {
    /// On frames from the relay.
    #[n(0)]
    pub channel: Channel,
    /// Who asked for it.
    #[n(1)]
    pub peer: NodeId,
    /// Where the relay sees that peer.
    #[cbor(n(2), encode_with = "encode_addr", decode_with = "decode_addr")]
    pub peer_addr: SocketAddr,
}

/// How much longer than at first a channel lasts when it is renewed: one that is renewed is in use.
pub const RENEWED: u32 = 30;

/// Asks for more time on a channel.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayRenew {
    /// As the sender knows it.
    #[n(0)]
    pub channel: Channel,
}

/// Says that a channel is gone.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayClosed {
    /// As the receiver knows it.
    #[n(0)]
    pub channel: Channel,
}

/// Where the sender can be reached, best first.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Homes {
    /// The nodes through which. At most [`HOMES_MAX`]; more are not written.
    #[cbor(n(0), encode_with = "encode_homes", decode_with = "decode_homes")]
    pub homes: Vec<Home>,
    /// Its own addresses as others see them, at most [`HOME_ADDRS_MAX`]; more are not written.
    #[cbor(
        n(1),
        encode_with = "encode_addrs::<HOME_ADDRS_MAX, _, _>",
        decode_with = "decode_addrs::<HOME_ADDRS_MAX, _>",
        default
    )]
    pub addrs: Vec<SocketAddr>,
    /// Whether these can be dialled without anybody's help.
    #[n(2)]
    #[cbor(default)]
    pub is_open: bool,
}

/// A node that relays and signals for another.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Home {
    /// Which node.
    #[n(0)]
    pub id: NodeId,
    /// Where it is reached; at most [`HOME_ADDRS_MAX`], more are not written.
    #[cbor(
        n(1),
        encode_with = "encode_addrs::<HOME_ADDRS_MAX, _, _>",
        decode_with = "decode_addrs::<HOME_ADDRS_MAX, _>"
    )]
    pub addrs: Vec<SocketAddr>,
}

impl<C> Encode<C> for Channel {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        _ctx: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.u32(self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Channel {
    fn decode(d: &mut Decoder<'b>, _ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.u32().map(Self)
    }
}

/// Encodes the first [`HOMES_MAX`] homes.
pub(crate) fn encode_homes<C, W: Write>(
    homes: &[Home],
    e: &mut Encoder<W>,
    ctx: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    let homes = &homes[..homes.len().min(HOMES_MAX)];
    e.array(homes.len() as u64)?;
    homes.iter().try_for_each(|home| e.encode_with(home, ctx)?.ok())
}

/// Decodes at most [`HOMES_MAX`] homes.
pub(crate) fn decode_homes<C>(
    d: &mut Decoder<'_>,
    ctx: &mut C,
) -> Result<Vec<Home>, minicbor::decode::Error> {
    let len = bounded_len(d, HOMES_MAX)?;
    (0..len).map(|_| d.decode_with(ctx)).collect()
}

impl NodeMessage {
    pub(super) fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.array(2)?;
        match self {
            Self::Hello(body) => encoder.u8(0)?.encode(body)?,
            Self::Reserve(body) => encoder.u8(1)?.encode(body)?,
            Self::Reserved(body) => encoder.u8(2)?.encode(body)?,
            Self::RelayOpen(body) => encoder.u8(3)?.encode(body)?,
            Self::RelayOpened(body) => encoder.u8(4)?.encode(body)?,
            Self::Refused(body) => encoder.u8(5)?.encode(body)?,
            Self::RelayIncoming(body) => encoder.u8(6)?.encode(body)?,
            Self::RelayRenew(body) => encoder.u8(7)?.encode(body)?,
            Self::RelayClosed(body) => encoder.u8(8)?.encode(body)?,
            Self::Homes(body) => encoder.u8(9)?.encode(body)?,
            Self::Release(body) => encoder.u8(10)?.encode(body)?,
            Self::Need(body) => encoder.u8(11)?.encode(body)?,
            Self::Retired(body) => encoder.u8(12)?.encode(body)?,
            Self::Index(message) => return message.encode(encoder),
            Self::Role(message) => return message.encode(encoder),
        };
        Ok(())
    }

    pub(super) fn decode(
        number: u8,
        decoder: &mut Decoder<'_>,
    ) -> Result<Option<Self>, DecodeError> {
        Ok(Some(match number {
            0 => Self::Hello(decoder.decode()?),
            1 => Self::Reserve(decoder.decode()?),
            2 => Self::Reserved(decoder.decode()?),
            3 => Self::RelayOpen(decoder.decode()?),
            4 => Self::RelayOpened(decoder.decode()?),
            5 => Self::Refused(decoder.decode()?),
            6 => Self::RelayIncoming(decoder.decode()?),
            7 => Self::RelayRenew(decoder.decode()?),
            8 => Self::RelayClosed(decoder.decode()?),
            9 => Self::Homes(decoder.decode()?),
            10 => Self::Release(decoder.decode()?),
            11 => Self::Need(decoder.decode()?),
            12 => Self::Retired(decoder.decode()?),
            16..32 => return Ok(IndexMessage::decode(number, decoder)?.map(Self::Index)),
            32..48 => return Ok(RoleMessage::decode(number, decoder)?.map(Self::Role)),
            _ => return Ok(None),
        }))
    }
}
