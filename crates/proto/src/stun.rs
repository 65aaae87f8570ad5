//! The STUN server that every node is (RFC 8489): "which address do you see me at?"
//!
//! Anybody's software may ask a baran node for its own address as others see it. A binding
//! request is answered with XOR-MAPPED-ADDRESS and nothing else is done for anybody: no
//! authentication, no long-lived state, no other method.
//!
//! A reply goes to an address that proved nothing, so it is kept small: 32 bytes for IPv4 and 44
//! for IPv6, and 8 more with FINGERPRINT, which is sent to who sent one. A bare request has 20
//! bytes, hence a reply may be 2.2 times as large: the RFC demands the attribute, and the caller
//! limits the rate.
//!
//! Deviations from RFC 8489: the error 420 of §6.3.1 is sent only if it is no larger than the
//! request, without a reason phrase and naming at most 16 attributes; otherwise such a request is
//! dropped. The classic requests of RFC 3489, without the magic cookie, are dropped.
//!
//! Invariants: no input panics, nothing is allocated, and work is linear in the datagram's length.

use core::fmt;
use core::ops::Deref;
use std::net::{IpAddr, SocketAddr};

/// Length of the header: type, length, cookie and transaction (RFC 8489 §5).
const HEADER_LEN: usize = 20;
/// The magic cookie (RFC 8489 §5).
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Message types: class and method, interleaved (RFC 8489 §5 and §18.2).
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

/// Attribute types (RFC 8489 §18.3).
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const FINGERPRINT: u16 = 0x8028;

/// Comprehension-required attributes of RFC 8489 itself. They are known and mean nothing to a
/// server without authentication, so §6.3 lets it ignore them: MAPPED-ADDRESS, USERNAME,
/// MESSAGE-INTEGRITY, ERROR-CODE, UNKNOWN-ATTRIBUTES, REALM, NONCE, MESSAGE-INTEGRITY-SHA256,
/// PASSWORD-ALGORITHM, USERHASH and XOR-MAPPED-ADDRESS.
const KNOWN: [u16; 11] = [
    0x0001,
    0x0006,
    MESSAGE_INTEGRITY,
    ERROR_CODE,
    UNKNOWN_ATTRIBUTES,
    0x0014,
    0x0015,
    MESSAGE_INTEGRITY_SHA256,
    0x001d,
    0x001e,
    XOR_MAPPED_ADDRESS,
];

/// Attribute types from here on may be ignored by who does not know them (RFC 8489 §14).
const COMPREHENSION_OPTIONAL: u16 = 0x8000;

/// Turns a CRC into a fingerprint: the letters `STUN` (RFC 8489 §14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554e;

/// Unknown attributes that an error names. Our own choice: more help nobody and cost space.
const UNKNOWN_MAX: usize = 16;

/// The longest reply: an error that names all it may, with a fingerprint.
const REPLY_LEN_MAX: usize = HEADER_LEN + 8 + (4 + 2 * UNKNOWN_MAX) + 8;

/// Tells whether a datagram that begins with these bytes is STUN: 20 bytes or more of it are
/// needed. Types from 0x0400 on belong to other protocols on the same port (RFC 7983 §7).
#[must_use]
pub fn looks_like_stun(start: &[u8]) -> bool {
    start.len() >= HEADER_LEN && start[0] <= 3 && start[4..8] == COOKIE
}

/// Answers a binding request that came from `from`; `None` for whatever deserves no answer.
///
/// IPv4 addresses in IPv6 form are reported as IPv4.
#[must_use]
pub fn handle(datagram: &[u8], from: SocketAddr) -> Option<StunReply> {
    let request = Request::parse(datagram)?;
    let mut reply = if request.unknown_count == 0 {
        let mut reply = StunReply::new(BINDING_SUCCESS, datagram);
        reply.push_mapped_address(from);
        reply
    } else {
        let mut reply = StunReply::new(BINDING_ERROR, datagram);
        reply.push_error(&request.unknown[..request.unknown_count]);
        reply
    };
    if request.has_fingerprint {
        reply.push_fingerprint();
    }
    let is_affordable = request.unknown_count == 0 || reply.len <= datagram.len();
    is_affordable.then_some(reply)
}

/// A reply, ready to be sent. It lives on the stack and reads as a byte slice.
#[derive(Clone, PartialEq, Eq)]
pub struct StunReply {
    bytes: [u8; REPLY_LEN_MAX],
    len: usize,
}

impl StunReply {
    /// Begins a reply with the cookie and transaction of the request.
    fn new(kind: u16, request: &[u8]) -> Self {
        let mut reply = Self { bytes: [0; REPLY_LEN_MAX], len: 0 };
        reply.push(&kind.to_be_bytes());
        reply.push(&[0, 0]);
        reply.push(&request[4..HEADER_LEN]);
        reply
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Begins an attribute whose value has `len` bytes, and counts it and its padding in the
    /// message's length.
    fn push_attribute(&mut self, kind: u16, len: u16) {
        let total = u16::from_be_bytes([self.bytes[2], self.bytes[3]]);
        let total = total + 4 + len.next_multiple_of(4);
        self.bytes[2..4].copy_from_slice(&total.to_be_bytes());
        self.push(&kind.to_be_bytes());
        self.push(&len.to_be_bytes());
    }

    /// RFC 8489 §14.2: the port is hidden by the cookie, the address by cookie and transaction, so
    /// that no translator on the way rewrites them.
    fn push_mapped_address(&mut self, from: SocketAddr) {
        let key: [u8; 16] = self.bytes[4..HEADER_LEN].try_into().expect("16 bytes of header");
        let [high, low] = from.port().to_be_bytes();
        let port = [high ^ key[0], low ^ key[1]];
        match from.ip().to_canonical() {
            IpAddr::V4(ip) => {
                self.push_attribute(XOR_MAPPED_ADDRESS, 8);
                self.push(&[0, 1, port[0], port[1]]);
                let octets = ip.octets();
                self.push(&core::array::from_fn::<u8, 4, _>(|i| octets[i] ^ key[i]));
            }
            IpAddr::V6(ip) => {
                self.push_attribute(XOR_MAPPED_ADDRESS, 20);
                self.push(&[0, 2, port[0], port[1]]);
                let octets = ip.octets();
                self.push(&core::array::from_fn::<u8, 16, _>(|i| octets[i] ^ key[i]));
            }
        }
    }

    /// RFC 8489 §14.8 and §14.9: 420, and the attributes that were not understood.
    fn push_error(&mut self, unknown: &[u16]) {
        self.push_attribute(ERROR_CODE, 4);
        self.push(&[0, 0, 4, 20]);
        let len = u16::try_from(2 * unknown.len()).expect("at most 16 attributes are named");
        self.push_attribute(UNKNOWN_ATTRIBUTES, len);
        for kind in unknown {
            self.push(&kind.to_be_bytes());
        }
        if unknown.len() % 2 == 1 {
            self.push(&[0, 0]);
        }
    }

    /// RFC 8489 §14.7: the length in the header already counts the attribute.
    fn push_fingerprint(&mut self) {
        let end = self.len;
        self.push_attribute(FINGERPRINT, 4);
        let print = crc32(&self.bytes[..end]) ^ FINGERPRINT_XOR;
        self.push(&print.to_be_bytes());
    }
}

impl Deref for StunReply {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Debug for StunReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StunReply").field(&&self[..]).finish()
    }
}

/// What an answer needs to know of a request.
struct Request {
    unknown: [u16; UNKNOWN_MAX],
    unknown_count: usize,
    has_fingerprint: bool,
}

impl Request {
    /// Reads a binding request; `None` if RFC 8489 §6.3 has it discarded in silence.
    fn parse(datagram: &[u8]) -> Option<Self> {
        if !looks_like_stun(datagram) || u16_at(datagram, 0)? != BINDING_REQUEST {
            return None;
        }
        let len = usize::from(u16_at(datagram, 2)?);
        if len != datagram.len() - HEADER_LEN || !len.is_multiple_of(4) {
            return None;
        }
        let mut request =
            Self { unknown: [0; UNKNOWN_MAX], unknown_count: 0, has_fingerprint: false };
        let mut is_sealed = false;
        let mut at = HEADER_LEN;
        while at < datagram.len() {
            if request.has_fingerprint {
                return None; // §14.7: the fingerprint is the last attribute
            }
            let kind = u16_at(datagram, at)?;
            let len = usize::from(u16_at(datagram, at + 2)?);
            let value = datagram.get(at + 4..at + 4 + len)?;
            match kind {
                FINGERPRINT => {
                    let print = crc32(&datagram[..at]) ^ FINGERPRINT_XOR;
                    if value != print.to_be_bytes() {
                        return None;
                    }
                    request.has_fingerprint = true;
                }
                MESSAGE_INTEGRITY | MESSAGE_INTEGRITY_SHA256 => is_sealed = true,
                // §14.5: what follows the integrity is not covered by it and is ignored.
                _ if is_sealed => {}
                _ => request.note(kind),
            }
            at += 4 + len.next_multiple_of(4);
        }
        Some(request)
    }

    /// Remembers an attribute that a server must know in order to answer, and this one does not.
    fn note(&mut self, kind: u16) {
        let is_foreign = kind < COMPREHENSION_OPTIONAL && !KNOWN.contains(&kind);
        if is_foreign && self.unknown_count < UNKNOWN_MAX {
            self.unknown[self.unknown_count] = kind;
            self.unknown_count += 1;
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

/// The CRC-32 of ITU-T V.42 and Ethernet, reflected, that §14.7 asks for. Invites use it too.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let step =
        |crc: u32, byte: &u8| (crc >> 8) ^ CRC_TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)];
    !bytes.iter().fold(u32::MAX, step)
}

/// The CRC of every byte, by the polynomial 0x04C11DB7 with its bits reversed.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    let mut seed = 0_u32;
    while byte < table.len() {
        let mut crc = seed;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
        seed += 1;
    }
    table
};

#[cfg(test)]
mod tests;
