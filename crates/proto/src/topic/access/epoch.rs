//! Removing members: those that remain get a read key that those that were removed do not have.
//!
//! ```text
//! change   = {0: epoch, 1: [[removed, last], …], 2: ephemeral, 3: [[member, sealed], …],
//!             4: previous}
//! shared   = X25519(ephemeral, member)
//! sealing  = HKDF-SHA256(shared | ephemeral public | member public, "… epoch key" | epoch)
//! sealed   = XChaCha20-Poly1305(sealing, nonce 0, key of the epoch)     48 bytes
//! previous = XChaCha20-Poly1305(key of the epoch, drawn nonce, key of the epoch before)
//! ```
//!
//! The idea is that of libsodium's sealed boxes: an X25519 key that is used once, against the
//! member's Ed25519 key in Montgomery form (Thormarker, *On using the same key pair for Ed25519 and
//! an X25519 based KEM*, 2021). We deviate in using one ephemeral key for all members of a change,
//! so that the largest fits an entry; each member's sealing key is bound to its own public key.
//! A sealing key is used for one message, so its nonce may be zero.
//!
//! A change is believed because a member that may manage signed the entry that it is in. Nothing
//! here proves who made it.
//!
//! Invariants: members and removed are in ascending order, each named once and in one of the two
//! only; a change has one spelling.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use curve25519_dalek::MontgomeryPoint;
use ed25519_dalek::VerifyingKey;
use minicbor::bytes::ByteArray;
use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};
use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::Zeroizing;

use super::keys::{MAC_LEN, NONCE_LEN, SEAL_LEN, SECRET_LEN, Secret, derive, open, seal};
use super::to_cbor;
use crate::id::{NodeId, SecretKey};
use crate::wire::addr::bounded_len;

/// Most members that one change gives the new key: of a private topic, whose members know each
/// other.
pub const MEMBERS_MAX: usize = 256;

/// Most members that one change removes.
pub const REMOVED_MAX: usize = 64;

/// Longest encoding in bytes; the largest change has 24,700. Fits an entry's payload, sealed.
pub const CHANGE_LEN_MAX: usize = 25 * 1_024;

/// Bytes of a key that is sealed to a member.
const SEALED_LEN: usize = SECRET_LEN + MAC_LEN;

/// Bytes of the key of the epoch before, which has its nonce with it.
const PREVIOUS_LEN: usize = SECRET_LEN + SEAL_LEN;

/// What the key of the epoch before is sealed with, beside the new key.
const PREVIOUS: &[u8] = b"baran 1 topic key of the epoch before";

/// What a member's sealing key is derived with.
const SEALING: &[u8] = b"baran 1 topic epoch key";

/// A new epoch of a private topic.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct EpochChange {
    #[n(0)]
    epoch: u32,
    #[cbor(n(1), encode_with = "encode_pairs", decode_with = "decode_pairs::<REMOVED_MAX, _, _>")]
    removed: Vec<(NodeId, u64)>,
    /// The public half of the key that was used once.
    #[n(2)]
    ephemeral: ByteArray<SECRET_LEN>,
    #[cbor(n(3), encode_with = "encode_pairs", decode_with = "decode_pairs::<MEMBERS_MAX, _, _>")]
    sealed: Vec<(NodeId, ByteArray<SEALED_LEN>)>,
    #[n(4)]
    previous: ByteArray<PREVIOUS_LEN>,
}

impl EpochChange {
    /// Begins the epoch `epoch` with `key`, which the caller drew: seals it to each of `members`,
    /// the caller included, and the key of the epoch before, `previous`, under it. `removed` are
    /// those that get it no longer, each with the last sequence of its log that still counts.
    /// Both lists may be in any order.
    ///
    /// # Errors
    ///
    /// [`EpochError::First`] for epoch 0, [`EpochError::Members`] and [`EpochError::Removed`] for
    /// lists beyond their limits, [`EpochError::Twice`] and [`EpochError::NotAKey`].
    pub fn new(
        epoch: u32,
        removed: &[(NodeId, u64)],
        members: &[NodeId],
        key: &[u8; SECRET_LEN],
        previous: &[u8; SECRET_LEN],
        rng: &mut impl CryptoRng,
    ) -> Result<Self, EpochError> {
        if members.len() > MEMBERS_MAX {
            return Err(EpochError::Members { found: members.len() });
        }
        if removed.len() > REMOVED_MAX {
            return Err(EpochError::Removed { found: removed.len() });
        }
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        rng.fill_bytes(&mut *secret);
        let mut nonce = [0; NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        let ephemeral = MontgomeryPoint::mul_base_clamped(*secret).to_bytes();
        let mut sealed = Vec::with_capacity(members.len());
        for member in members {
            let theirs = montgomery(*member).ok_or(EpochError::NotAKey(*member))?;
            let shared = Secret::new(MontgomeryPoint(theirs).mul_clamped(*secret).to_bytes());
            let sealing = sealing_key(&shared, &ephemeral, &theirs, epoch);
            sealed.push((*member, seal_once(&sealing, key).into()));
        }
        sealed.sort_unstable_by_key(|(member, _)| *member);
        let mut removed = removed.to_vec();
        removed.sort_unstable();
        let previous = seal_previous(key, nonce, epoch, previous).into();
        let change = Self { epoch, removed, ephemeral: ephemeral.into(), sealed, previous };
        change.check()?;
        Ok(change)
    }

    /// The key of the epoch, if it was sealed to this member.
    #[must_use]
    pub fn open_for(&self, member: &SecretKey) -> Option<[u8; SECRET_LEN]> {
        let id = member.id();
        let at = self.sealed.binary_search_by_key(&id, |(member, _)| *member).ok()?;
        let (_, sealed) = self.sealed.get(at)?;
        let point = MontgomeryPoint(*self.ephemeral).mul_clamped(*member.to_x25519());
        let shared = Secret::new(point.to_bytes());
        // The ephemeral key is of small order: no secret is shared (RFC 7748 §6.1).
        if *shared.bytes() == [0; SECRET_LEN] {
            return None;
        }
        let sealing = sealing_key(&shared, &self.ephemeral, &montgomery(id)?, self.epoch);
        open_once(&sealing, sealed)
    }

    /// The key of the epoch before, for who has that of this one. `None` for another key.
    #[must_use]
    pub fn previous_with(&self, key: &[u8; SECRET_LEN]) -> Option<[u8; SECRET_LEN]> {
        let previous = open(key, &previous_aad(self.epoch), &*self.previous)?;
        Zeroizing::new(previous).as_slice().try_into().ok()
    }

    /// The epoch that begins; at least 1.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Who is removed, and the last sequence of its log that still counts; in ascending order.
    #[must_use]
    pub fn removed(&self) -> &[(NodeId, u64)] {
        &self.removed
    }

    /// Who gets the key, in ascending order.
    pub fn members(&self) -> impl ExactSizeIterator<Item = NodeId> {
        self.sealed.iter().map(|(member, _)| *member)
    }

    /// The encoding, at most [`CHANGE_LEN_MAX`] bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_cbor(self)
    }

    /// Reads a change.
    ///
    /// # Errors
    ///
    /// [`EpochError::TooLarge`], [`EpochError::Malformed`], and those of its fields: see
    /// [`EpochChange::new`].
    pub fn decode(bytes: &[u8]) -> Result<Self, EpochError> {
        if bytes.len() > CHANGE_LEN_MAX {
            return Err(EpochError::TooLarge { len: bytes.len() });
        }
        let change: Self =
            minicbor::decode(bytes).map_err(|error| EpochError::Malformed(error.to_string()))?;
        change.check()?;
        // Refuses bytes left over, too.
        if change.encode() != bytes {
            return Err(EpochError::Malformed("another spelling, or bytes left over".to_owned()));
        }
        Ok(change)
    }

    /// Whether the lists are as the invariants say. Their lengths were seen to.
    fn check(&self) -> Result<(), EpochError> {
        if self.epoch == 0 {
            return Err(EpochError::First);
        }
        if self.sealed.is_empty() {
            return Err(EpochError::Members { found: 0 });
        }
        let twice =
            self.sealed.windows(2).find(|pair| pair[0].0 >= pair[1].0).map(|pair| pair[1].0);
        let removed = self.removed.windows(2).find(|pair| pair[0].0 >= pair[1].0);
        let in_both = || {
            let is_member =
                |id| self.sealed.binary_search_by_key(&id, |(member, _)| *member).is_ok();
            self.removed.iter().map(|(id, _)| *id).find(|id| is_member(*id))
        };
        let wrong = twice.or_else(|| removed.map(|pair| pair[1].0)).or_else(in_both);
        wrong.map_or(Ok(()), |id| Err(EpochError::Twice(id)))
    }
}

/// What is wrong with a change of the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EpochError {
    /// More bytes than a change may have.
    #[error("a change of {len} bytes is too long: {CHANGE_LEN_MAX} are allowed")]
    TooLarge {
        /// Bytes.
        len: usize,
    },
    /// The bytes are no change.
    #[error("malformed change of the epoch: {0}")]
    Malformed(String),
    /// Nothing changed before epoch 0.
    #[error("epoch 0 begins with the topic")]
    First,
    /// Nobody remains, or too many do.
    #[error("{found} members remain: it must be 1 to {MEMBERS_MAX}")]
    Members {
        /// How many.
        found: usize,
    },
    /// Too many are removed at once.
    #[error("{found} members are removed: {REMOVED_MAX} are allowed at once")]
    Removed {
        /// How many.
        found: usize,
    },
    /// A member is named twice, or out of order.
    #[error("member {0} is named twice, or not in its place")]
    Twice(NodeId),
    /// Nothing can be sealed to this.
    #[error("member {0} is no valid key")]
    NotAKey(NodeId),
}

/// A member's key in Montgomery form. `None` for what is no point of the curve and for points of
/// small order, with which no secret can be shared.
fn montgomery(id: NodeId) -> Option<[u8; SECRET_LEN]> {
    let key = VerifyingKey::from_bytes(id.as_bytes()).ok().filter(|key| !key.is_weak())?;
    Some(key.to_montgomery().to_bytes())
}

/// With what the key of an epoch is sealed to one member.
fn sealing_key(shared: &Secret, ephemeral: &[u8; 32], member: &[u8; 32], epoch: u32) -> Secret {
    let mut from = Zeroizing::new([0; 3 * SECRET_LEN]);
    let parts = [shared.bytes(), ephemeral, member];
    for (slot, part) in from.chunks_exact_mut(SECRET_LEN).zip(parts) {
        slot.copy_from_slice(part);
    }
    derive(&*from, &[SEALING, &epoch.to_be_bytes()].concat())
}

fn seal_once(sealing: &Secret, key: &[u8; SECRET_LEN]) -> [u8; SEALED_LEN] {
    let cipher = XChaCha20Poly1305::new(sealing.bytes().into());
    let sealed = cipher.encrypt(&[0; NONCE_LEN].into(), Payload { msg: key, aad: SEALING });
    let sealed = sealed.expect("shorter than 256 GiB");
    sealed.try_into().expect("a sealed key has one length")
}

fn open_once(sealing: &Secret, sealed: &[u8; SEALED_LEN]) -> Option<[u8; SECRET_LEN]> {
    let cipher = XChaCha20Poly1305::new(sealing.bytes().into());
    let key =
        cipher.decrypt(&[0; NONCE_LEN].into(), Payload { msg: &sealed[..], aad: SEALING }).ok()?;
    Zeroizing::new(key).as_slice().try_into().ok()
}

fn seal_previous(
    key: &[u8; SECRET_LEN],
    nonce: [u8; NONCE_LEN],
    epoch: u32,
    previous: &[u8; SECRET_LEN],
) -> [u8; PREVIOUS_LEN] {
    let sealed = seal(key, nonce, &previous_aad(epoch), previous);
    sealed.try_into().expect("a sealed key has one length")
}

fn previous_aad(epoch: u32) -> Vec<u8> {
    [PREVIOUS, &epoch.to_be_bytes()].concat()
}

fn encode_pairs<T: Encode<C>, C, W: Write>(
    pairs: &[(NodeId, T)],
    e: &mut Encoder<W>,
    ctx: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    e.array(pairs.len() as u64)?;
    pairs.iter().try_for_each(|pair| e.encode_with(pair, ctx)?.ok())
}

fn decode_pairs<'b, const MAX: usize, T: Decode<'b, C>, C>(
    d: &mut Decoder<'b>,
    ctx: &mut C,
) -> Result<Vec<(NodeId, T)>, DecodeError> {
    let len = bounded_len(d, MAX)?;
    (0..len).map(|_| d.decode_with(ctx)).collect()
}

#[cfg(test)]
mod tests;
