//! Telling apart what arrives on the one UDP socket, and the header of a relayed frame.
//!
//! QUIC, STUN and relayed frames share one port. RFC 9443 (which updates RFC 7983) separates
//! protocols by the first byte; the same idea serves here with a smaller set:
//!
//! | first byte | datagram |
//! |---|---|
//! | 0–3, and the magic cookie of RFC 8489 §5 | STUN |
//! | 32 | relayed frame |
//! | 64–127, 192–255 (bit 0x40, the *fixed bit* of RFC 9000 §17) | QUIC |
//! | anything else | unknown, dropped |
//!
//! A relayed frame is `[kind 0x20][channel u32 BE][inner QUIC packet]`. Its kind byte keeps bit
//! 0x40 clear, which the TURN channel range (64–79, RFC 8656 §12) does not. The test on the fixed
//! bit is sound only while neither end greases it (RFC 9287).
//!
//! A long header of an unknown version in a datagram shorter than a first one of QUIC must be is
//! unknown too: it deserves no version negotiation (RFC 9000 §6.1), which would be larger.
//!
//! Invariants: `classify` reads at most [`STUN_HEADER_LEN`] bytes, never panics, and is a pure
//! function of the datagram; a well-formed header round-trips through [`write_header`].

use core::fmt;

/// First byte of a relayed frame.
pub const KIND: u8 = 0x20;

/// The only byte of a datagram that opens a way through the sender's NAT; nobody answers it.
pub const KNOCK: u8 = 0x21;

/// Bytes of a relayed frame before the inner packet: kind and channel.
pub const HEADER_LEN: usize = 5;

/// Smallest inner packet that a frame may carry, in bytes.
///
/// RFC 9000 §10.3: a packet with a short header below 21 bytes is never valid.
pub const INNER_LEN_MIN: usize = 21;

/// Bytes of a STUN header (RFC 8489 §5).
pub const STUN_HEADER_LEN: usize = 20;

/// The magic cookie, bytes 4 to 8 of a STUN message (RFC 8489 §5).
pub const STUN_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// The bit that every QUIC packet sets (RFC 9000 §17.2, §17.3).
const QUIC_FIXED_BIT: u8 = 0x40;

/// The two top bits of a long header (RFC 9000 §17.2).
const QUIC_LONG: u8 = 0xc0;

/// Versions whose packets may come in datagrams of any size: negotiation itself and version 1.
const QUIC_VERSIONS: [[u8; 4]; 2] = [[0, 0, 0, 0], [0, 0, 0, 1]];

/// Shortest datagram that may open a connection (RFC 9000 §14.1).
const QUIC_FIRST_LEN_MIN: usize = 1200;

/// Highest first byte of STUN: its two top bits are zero, and methods are small (RFC 9443).
const STUN_FIRST_MAX: u8 = 3;

/// Number of one direction of a relayed channel, chosen by the relay.
///
/// The upper half indexes the relay's table, the lower half is a random nonce that tells this
/// channel from earlier ones in the same slot. Endpoints treat it as opaque.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(pub u32);

impl Channel {
    /// Puts a channel number together from slot and nonce.
    #[must_use]
    pub const fn from_parts(slot: u16, nonce: u16) -> Self {
        Self(((slot as u32) << 16) | nonce as u32)
    }

    /// Returns the index into the relay's table.
    #[must_use]
    pub const fn slot(self) -> u16 {
        let [a, b, _, _] = self.0.to_be_bytes();
        u16::from_be_bytes([a, b])
    }

    /// Returns the random half.
    #[must_use]
    pub const fn nonce(self) -> u16 {
        let [_, _, c, d] = self.0.to_be_bytes();
        u16::from_be_bytes([c, d])
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// What a datagram is, told from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramKind {
    /// A QUIC packet, for the endpoint.
    Quic,
    /// A relayed frame with an inner packet of at least [`INNER_LEN_MIN`] bytes.
    Relay {
        /// The channel in the frame's header.
        channel: Channel,
    },
    /// A STUN message: at least its header, with the magic cookie.
    Stun,
    /// Nothing that this port serves.
    Unknown,
}

/// Tells what `datagram` is.
#[inline]
#[must_use]
pub fn classify(datagram: &[u8]) -> DatagramKind {
    match datagram {
        [first, a, b, c, d, ..]
            if first & QUIC_LONG == QUIC_LONG
                && datagram.len() < QUIC_FIRST_LEN_MIN
                && !QUIC_VERSIONS.contains(&[*a, *b, *c, *d]) =>
        {
            DatagramKind::Unknown
        }
        [first, ..] if first & QUIC_FIXED_BIT != 0 => DatagramKind::Quic,
        [KIND, a, b, c, d, inner @ ..] if inner.len() >= INNER_LEN_MIN => {
            DatagramKind::Relay { channel: Channel(u32::from_be_bytes([*a, *b, *c, *d])) }
        }
        [0..=STUN_FIRST_MAX, _, _, _, a, b, c, d, ..]
            if [*a, *b, *c, *d] == STUN_COOKIE && datagram.len() >= STUN_HEADER_LEN =>
        {
            DatagramKind::Stun
        }
        _ => DatagramKind::Unknown,
    }
}

/// Writes the header of a frame for `channel`.
#[inline]
pub fn write_header(header: &mut [u8; HEADER_LEN], channel: Channel) {
    let [a, b, c, d] = channel.0.to_be_bytes();
    *header = [KIND, a, b, c, d];
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stun(len: usize) -> Vec<u8> {
        let mut message = vec![0; len];
        message[1] = 1;
        message[4..8].copy_from_slice(&STUN_COOKIE);
        message
    }

    #[test]
    fn first_byte_decides_for_all_256_values() {
        for first in 0..=u8::MAX {
            let mut datagram = [0; 40];
            datagram[0] = first;
            let expect = match first {
                64..=127 | 192..=255 => DatagramKind::Quic,
                32 => DatagramKind::Relay { channel: Channel(0) },
                _ => DatagramKind::Unknown,
            };
            assert_eq!(classify(&datagram), expect, "first byte {first}");
        }
    }

    #[test]
    fn stun_needs_cookie_and_whole_header() {
        assert_eq!(classify(&stun(20)), DatagramKind::Stun);
        assert_eq!(classify(&stun(19)), DatagramKind::Unknown);
        let mut other = stun(28);
        other[7] ^= 1;
        assert_eq!(classify(&other), DatagramKind::Unknown);
        let mut fourth = stun(28);
        fourth[0] = 4;
        assert_eq!(classify(&fourth), DatagramKind::Unknown);
    }

    #[test]
    fn frame_needs_an_inner_packet_that_can_be_valid() {
        let mut datagram = [0; HEADER_LEN + INNER_LEN_MIN];
        datagram[0] = KIND;
        assert_eq!(classify(&datagram), DatagramKind::Relay { channel: Channel(0) });
        assert_eq!(classify(&datagram[..datagram.len() - 1]), DatagramKind::Unknown);
        assert_eq!(classify(&[]), DatagramKind::Unknown);
    }

    #[test]
    fn a_short_datagram_of_an_unknown_version_deserves_no_negotiation() {
        let long = |version: u32, len| {
            let mut datagram = vec![0; len];
            datagram[0] = 0xc3;
            datagram[1..5].copy_from_slice(&version.to_be_bytes());
            classify(&datagram)
        };
        assert_eq!(long(0x0a1a_2a3a, 1199), DatagramKind::Unknown);
        assert_eq!(long(0x0a1a_2a3a, 1200), DatagramKind::Quic);
        assert_eq!((long(1, 50), long(0, 50)), (DatagramKind::Quic, DatagramKind::Quic));
    }

    #[test]
    fn golden_header() {
        let mut header = [0; HEADER_LEN];
        write_header(&mut header, Channel::from_parts(0x0102, 0xa0b0));
        assert_eq!(header, [0x20, 0x01, 0x02, 0xa0, 0xb0]);
        assert_eq!(Channel::from_parts(0x0102, 0xa0b0).to_string(), "0102a0b0");
    }

    proptest! {
        #[test]
        fn header_round_trips(channel: u32, inner in prop::collection::vec(any::<u8>(), 21..99)) {
            let mut header = [0; HEADER_LEN];
            write_header(&mut header, Channel(channel));
            let frame = [&header[..], &inner].concat();
            prop_assert_eq!(
                classify(&frame),
                DatagramKind::Relay { channel: Channel(channel) }
            );
        }

        #[test]
        fn channel_parts_round_trip(slot: u16, nonce: u16) {
            let channel = Channel::from_parts(slot, nonce);
            prop_assert_eq!((channel.slot(), channel.nonce()), (slot, nonce));
        }

        #[test]
        fn garbage_never_panics(datagram in prop::collection::vec(any::<u8>(), 0..64)) {
            let kind = classify(&datagram);
            // Only the fixed bit makes QUIC; a long header of a strange version is too short here.
            let first = datagram.first().copied().unwrap_or(0);
            match first {
                0xC0.. => {
                    prop_assert!(matches!(kind, DatagramKind::Quic | DatagramKind::Unknown));
                }
                _ => prop_assert_eq!(kind == DatagramKind::Quic, first & 0x40 != 0),
            }
        }
    }
}
