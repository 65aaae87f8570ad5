//! How a peer is named to a person: an identity, optionally with where it may be reached.
//!
//! A [`PeerAddr`] is read from three forms of text:
//!
//! - a bare identity, 52 characters: the network has to find its address;
//! - `ID@ip:port`: an identity and one address, easily typed;
//! - an invite, `baran1…`: an identity, its addresses, and its homes (the peers that relay to it),
//!   in one word to copy, to scan as a QR code, or to read aloud. Case does not matter.
//!
//! An invite is `baran1` and base32 (RFC 4648 §6, lowercase, unpadded) of
//!
//! ```text
//! version: 1 byte | kind: 1 byte | payload: CBOR map | CRC-32 of all before: 4 bytes, LE
//! ```
//!
//! The envelope (prefix, version first, checksum last) is the same in every version, so that a
//! mistyped invite is told from a newer one. The payload is `{0: id, ? 1: [addr], ? 2: [home]}`
//! with `home = {0: id, 1: [addr]}` and `addr` a byte string: an IP address of 4 or 16 bytes and
//! the port, big-endian. Unknown keys are skipped.
//!
//! The checksum guards against people, not against enemies: who can change an invite can as well
//! replace it, and the identity inside is proved by TLS. Hence a CRC, which no hash of this length
//! equals at the task: *every* error confined to four neighbouring characters is found (it spans
//! at most 32 bits), in particular any one wrong character and any two swapped neighbours. It is
//! appended least significant byte first, the order in which the reflected CRC shifts, so this
//! holds across the border between payload and checksum too.
//!
//! Invariants: no text panics; what is allocated is bounded by the text, which is bounded by
//! [`TEXT_LEN_MAX`]; whatever [`PeerAddr::to_invite`] writes is read back.

use core::str::FromStr;
use std::net::SocketAddr;

use data_encoding::{BASE32_NOPAD, DecodeKind};
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::egress::is_unicast;
use crate::id::{IdError, NodeId};
use crate::stun::crc32;
use crate::wire::addr::{decode_addrs, encode_addrs};
use crate::wire::node::{Home, decode_homes, encode_homes};

/// The longest text that is looked at, in bytes. Fits a QR code that a phone reads off a screen.
pub const TEXT_LEN_MAX: usize = 1_024;
/// Addresses of the peer itself: some interfaces, both families, a mapped port. With as many homes
/// as a node names, an invite has about 860 characters.
pub const ADDRS_MAX: usize = 8;

/// What every invite begins with.
const PREFIX: &str = "baran1";
/// The version of the payload that is written and read.
const VERSION: u8 = 1;
/// The kind of invite that names a peer.
const KIND_PEER: u8 = 0;
/// Version and kind.
const HEADER_LEN: usize = 2;
/// Length of the checksum.
const CHECKSUM_LEN: usize = 4;

/// A peer, and where it may be reached.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PeerAddr {
    /// Who it is.
    #[n(0)]
    pub id: NodeId,
    /// Its own addresses, the most promising first. CBOR holds the first [`ADDRS_MAX`] that can be
    /// dialled, in canonical form (an IPv4 address in IPv6 form as IPv4, no scope or flow).
    #[cbor(
        n(1),
        encode_with = "encode_addrs::<ADDRS_MAX, _, _>",
        decode_with = "decode_addrs::<ADDRS_MAX, _>",
        skip_if = "Vec::is_empty",
        default
    )]
    pub addrs: Vec<SocketAddr>,
    /// The peers that relay to it, as [`Homes`](crate::wire::node::Homes) holds them.
    #[cbor(
        n(2),
        encode_with = "encode_homes",
        decode_with = "decode_homes",
        skip_if = "Vec::is_empty",
        default
    )]
    pub homes: Vec<Home>,
}

impl PeerAddr {
    /// Writes the invite, at most [`TEXT_LEN_MAX`] characters. What exceeds the limits of the
    /// fields is left out from the end; addresses that could never be dialled are left out
    /// too.
    #[must_use]
    pub fn to_invite(&self) -> String {
        to_envelope(PREFIX, KIND_PEER, &self.to_payload())
    }

    fn to_payload(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory does not fail")
    }

    /// Reads what follows the prefix of an invite.
    fn from_invite_body(body: &str) -> Result<Self, InviteError> {
        let (kind, payload) = from_envelope(PREFIX, body)?;
        if kind != KIND_PEER {
            return Err(InviteError::Kind { found: kind });
        }
        let mut decoder = minicbor::Decoder::new(&payload);
        let peer = decoder.decode().map_err(|error| InviteError::Malformed(error.to_string()))?;
        if decoder.position() != payload.len() {
            return Err(InviteError::Malformed("bytes left over".to_owned()));
        }
        Ok(peer)
    }
}

impl From<NodeId> for PeerAddr {
    fn from(id: NodeId) -> Self {
        Self { id, addrs: Vec::new(), homes: Vec::new() }
    }
}

impl FromStr for PeerAddr {
    type Err = InviteError;

    /// Reads any of the three forms; blanks around it are ignored.
    fn from_str(text: &str) -> Result<Self, InviteError> {
        let text = text.trim();
        if text.len() > TEXT_LEN_MAX {
            return Err(InviteError::TooLong);
        }
        if let Some((id, addr)) = text.split_once('@') {
            let id: NodeId = id.parse()?;
            return Ok(Self { addrs: vec![parse_addr(addr)?], ..id.into() });
        }
        match text.split_at_checked(PREFIX.len()) {
            Some((prefix, body)) if prefix.eq_ignore_ascii_case(PREFIX) => {
                Self::from_invite_body(body)
            }
            _ => Ok(text.parse::<NodeId>()?.into()),
        }
    }
}

/// Why a text names no peer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InviteError {
    /// The text, or what precedes its `@`, is no identity.
    #[error("not a node id, an invite (baran1...) or ID@ip:port: {0}")]
    NotAnId(#[from] IdError),
    /// What follows the `@` is no address with a port.
    #[error("{0:?} is not ip:port: write it as 192.0.2.7:4433 or [2001:db8::7]:4433, not by name")]
    NotAnAddress(String),
    /// The address could never be dialled.
    #[error("nobody can be reached at {0}: give the peer's own address and port")]
    Undialable(SocketAddr),
    /// The text is longer than any form may be.
    #[error("more than {TEXT_LEN_MAX} characters: copy one invite and nothing else")]
    TooLong,
    /// A character of the invite is not of the alphabet.
    #[error("character {position} of the invite is wrong: copy the invite again")]
    Character {
        /// Position in the text, counted from 1 (the first byte of the character).
        position: usize,
    },
    /// The end of the invite is missing.
    #[error("the invite is cut short: copy it whole")]
    CutShort,
    /// The checksum does not fit: a character was mistyped, swapped, lost or added.
    #[error("the invite has a typing mistake or is incomplete: copy it again, whole")]
    Checksum,
    /// A newer program wrote the invite.
    #[error("the invite has format {found} and this program reads format {VERSION}: update baran")]
    Version {
        /// The version in the invite.
        found: u8,
    },
    /// The invite is for something else than a peer.
    #[error("the invite (kind {found}) does not name a peer: ask for a peer's invite")]
    Kind {
        /// The kind in the invite.
        found: u8,
    },
    /// The checksum fits and the payload is wrong: the fault is with the program that wrote it.
    #[error("the program that made the invite made it wrong ({0}): ask for another one")]
    Malformed(String),
}

/// Writes an invite of some kind: the text that [`from_envelope`] reads.
pub(crate) fn to_envelope(prefix: &str, kind: u8, payload: &[u8]) -> String {
    let mut bytes = [&[VERSION, kind], payload].concat();
    let checksum = crc32(&bytes);
    bytes.extend(checksum.to_le_bytes());
    let mut text = prefix.to_owned();
    BASE32_NOPAD.encode_append(&bytes, &mut text);
    text.make_ascii_lowercase();
    text
}

/// Reads what follows the prefix of an invite: its kind and its payload.
pub(crate) fn from_envelope(prefix: &str, body: &str) -> Result<(u8, Vec<u8>), InviteError> {
    let position = |in_body| prefix.len() + in_body + 1;
    let upper = body.to_ascii_uppercase();
    let mut bytes = BASE32_NOPAD.decode(upper.as_bytes()).map_err(|error| match error.kind {
        DecodeKind::Symbol => InviteError::Character { position: position(error.position) },
        DecodeKind::Length | DecodeKind::Padding => InviteError::CutShort,
        DecodeKind::Trailing => InviteError::Checksum,
    })?;
    if bytes.len() < HEADER_LEN + CHECKSUM_LEN {
        return Err(InviteError::CutShort);
    }
    let checksum = bytes.split_off(bytes.len() - CHECKSUM_LEN);
    if crc32(&bytes).to_le_bytes()[..] != checksum {
        return Err(InviteError::Checksum);
    }
    let payload = bytes.split_off(HEADER_LEN);
    if bytes[0] != VERSION {
        return Err(InviteError::Version { found: bytes[0] });
    }
    Ok((bytes[1], payload))
}

/// Reads `ip:port`.
fn parse_addr(text: &str) -> Result<SocketAddr, InviteError> {
    let addr = text.parse().map_err(|_| InviteError::NotAnAddress(text.to_owned()))?;
    if is_unicast(addr) { Ok(addr) } else { Err(InviteError::Undialable(addr)) }
}

#[cfg(test)]
mod tests;
