//! Messages of a link's multiplexer: sessions of application protocols, and stream credit.
//!
//! A session is one conversation of one application protocol over a link. Its number is chosen by
//! the opener: even numbers by the link's client, odd ones by its server, each used once. Streams
//! begin with the session's number as a QUIC variable-length integer (RFC 9000 §16); datagrams
//! too.

use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use super::DecodeError;
use super::addr::bounded_str;

/// Longest name of an application protocol in bytes: as an ALPN identifier (RFC 7301 §3.1).
pub const PROTOCOL_LEN_MAX: usize = 255;

/// Longest reason in bytes.
pub const REASON_LEN_MAX: usize = 255;

/// What the two multiplexers of a link tell each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MuxMessage {
    /// Opens a session (type 64).
    SessionOpen(SessionOpen),
    /// Ends a session; whoever gets it drops what is not yet read (type 65).
    SessionClose(SessionClose),
    /// Raises the limit of a stream (type 66).
    Credit(Credit),
}

/// Opens a session of an application protocol.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SessionOpen {
    /// The session's number.
    #[n(0)]
    pub session: u32,
    /// Name of the protocol, 1 to 255 bytes of UTF-8.
    #[cbor(n(1), decode_with = "decode_protocol")]
    pub protocol: String,
}

/// Ends a session, or refuses one that was opened.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SessionClose {
    /// The session's number.
    #[n(0)]
    pub session: u32,
    /// The application's code, or one of [`close_code`].
    #[n(1)]
    pub code: u32,
    /// For people; at most 255 bytes.
    #[cbor(n(2), decode_with = "decode_reason")]
    pub reason: String,
}

/// Codes of [`SessionClose`] that the multiplexer itself uses.
pub mod close_code {
    /// Nobody at this node accepts the protocol.
    pub const UNKNOWN_PROTOCOL: u32 = 0xFFFF_FF01;
    /// Too many sessions wait to be accepted.
    pub const BUSY: u32 = 0xFFFF_FF02;
    /// The application dropped the session without closing it.
    pub const DROPPED: u32 = 0xFFFF_FF03;
}

/// Raises how far the sender of a stream may go.
///
/// QUIC's own window only bounds what is in flight; this one bounds what the application has not
/// read, so that the receiver can always drain QUIC at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Credit {
    /// QUIC stream number.
    #[n(0)]
    pub stream: u64,
    /// Bytes after the stream's header that may be sent in all. Never falls.
    #[n(1)]
    pub limit: u64,
}

fn decode_protocol<C>(
    d: &mut Decoder<'_>,
    _ctx: &mut C,
) -> Result<String, minicbor::decode::Error> {
    let name = bounded_str(d, PROTOCOL_LEN_MAX)?;
    if name.is_empty() {
        return Err(minicbor::decode::Error::message("a protocol has a name"));
    }
    Ok(name.to_owned())
}

fn decode_reason<C>(d: &mut Decoder<'_>, _ctx: &mut C) -> Result<String, minicbor::decode::Error> {
    bounded_str(d, REASON_LEN_MAX).map(str::to_owned)
}

impl MuxMessage {
    pub(super) fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.array(2)?;
        match self {
            Self::SessionOpen(body) => encoder.u8(64)?.encode(body)?,
            Self::SessionClose(body) => encoder.u8(65)?.encode(body)?,
            Self::Credit(body) => encoder.u8(66)?.encode(body)?,
        };
        Ok(())
    }

    pub(super) fn decode(
        number: u8,
        decoder: &mut Decoder<'_>,
    ) -> Result<Option<Self>, DecodeError> {
        Ok(Some(match number {
            64 => Self::SessionOpen(decoder.decode()?),
            65 => Self::SessionClose(decoder.decode()?),
            66 => Self::Credit(decoder.decode()?),
            _ => return Ok(None),
        }))
    }
}

/// Longest head of a stream or datagram in bytes.
pub const HEAD_LEN_MAX: usize = 8;

/// Writes the number of a session as the head of a stream or datagram: a QUIC variable-length
/// integer (RFC 9000 §16), in its shortest form.
pub fn put_head(session: u32, buf: &mut impl bytes::BufMut) {
    match session {
        0..0x40 => buf.put_uint(session.into(), 1),
        0x40..0x4000 => buf.put_uint(u64::from(session) | 0x4000, 2),
        0x4000..0x4000_0000 => buf.put_uint(u64::from(session) | 0x8000_0000, 4),
        _ => buf.put_uint(u64::from(session) | 0xC000_0000_0000_0000, 8),
    }
}

/// Length of a head that starts with this byte: 1, 2, 4 or 8.
#[must_use]
pub fn head_len(first: u8) -> usize {
    1 << (first >> 6)
}

/// Reads a head. Returns the session and the length of the head; `None` if it is cut short or no
/// 32-bit number.
#[must_use]
pub fn parse_head(bytes: &[u8]) -> Option<(u32, usize)> {
    let (first, rest) = bytes.split_first()?;
    let len = head_len(*first);
    let value = rest
        .get(..len - 1)?
        .iter()
        .fold(u64::from(first & 0x3F), |value, byte| value << 8 | u64::from(*byte));
    Some((u32::try_from(value).ok()?, len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn head_round_trips(session: u32, tail: Vec<u8>) {
            let mut bytes = Vec::new();
            put_head(session, &mut bytes);
            let len = bytes.len();
            prop_assert_eq!(head_len(bytes[0]), len);
            bytes.extend(tail);
            prop_assert_eq!(parse_head(&bytes), Some((session, len)));
            prop_assert_eq!(parse_head(&bytes[..len - 1]), None);
        }

        #[test]
        fn garbage_heads_never_panic(bytes: Vec<u8>) {
            let _ = parse_head(&bytes);
        }
    }
}
