//! The key space of the index: 256-bit points, and the distance between them (Maymounkov and
//! Mazières, *Kademlia*, 2002: exclusive or).
//!
//! Every point is a BLAKE3 hash in a context of its own, so that no name of a topic or a value can
//! be chosen to be the point of a node. A topic's point changes with the day and is known only to
//! who knows the topic ([`Key::of_topic`]): who holds the announcements of a topic does not learn
//! which one it is.

use core::cmp::Ordering;
use core::fmt;
use std::sync::LazyLock;

use blake3::Hasher;
use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};

use crate::id::{NodeId, compare};
use crate::time::UnixTime;

/// Bytes of a key.
pub const KEY_LEN: usize = 32;

/// Bits of a key.
pub const KEY_BITS: u32 = 256;

/// How long a topic's announcements stand under one key.
pub const TOPIC_EPOCH_S: u64 = 24 * 3600;

/// What the context of [`Key::of_node`] hashes to, because that function is by far the most used:
/// half of its time otherwise.
static NODE_CONTEXT: LazyLock<ContextKey> =
    LazyLock::new(|| hash_derive_key_context("baran 1 position of a node"));

/// A point of the key space.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; KEY_LEN]);

/// In the order of the bytes.
impl Ord for Key {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for Key {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// How far two points are from each other: their exclusive or, as a big-endian number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Distance(Key);

impl Key {
    /// The point with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes of the point.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// Where a node stands.
    #[must_use]
    pub fn of_node(id: NodeId) -> Self {
        let mut hasher = Hasher::new_from_context_key(&NODE_CONTEXT);
        Self(*hasher.update(id.as_bytes()).finalize().as_bytes())
    }

    /// Where a node's value of some name is kept.
    #[must_use]
    pub fn of_value(author: NodeId, name: &str) -> Self {
        Self::hash("baran 1 position of a value", &[author.as_bytes(), name.as_bytes()])
    }

    /// The secret of a public topic, which is known by its name.
    #[must_use]
    pub fn topic_secret(name: &str) -> Self {
        Self::hash("baran 1 secret of a public topic", &[name.as_bytes()])
    }

    /// Where a topic with this secret is announced in an epoch (see [`Key::topic_epoch`]).
    #[must_use]
    pub fn of_topic(secret: &Self, epoch: u64) -> Self {
        Self::hash("baran 1 position of a topic", &[&secret.0, &epoch.to_be_bytes()])
    }

    /// The epoch at a moment.
    #[must_use]
    pub fn topic_epoch(at: UnixTime) -> u64 {
        at.as_secs() / TOPIC_EPOCH_S
    }

    fn hash(context: &str, parts: &[&[u8]]) -> Self {
        let mut hasher = Hasher::new_derive_key(context);
        for part in parts {
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The first 64 bits, in which points of different nodes differ.
    pub(crate) fn head(&self) -> u64 {
        u64::from_be_bytes(self.0.as_chunks().0[0])
    }

    /// The distance to another point.
    #[must_use]
    pub fn distance(&self, other: &Self) -> Distance {
        let mut bytes = self.0;
        for (byte, other) in bytes.iter_mut().zip(other.0) {
            *byte ^= other;
        }
        Distance(Self(bytes))
    }

    /// How many leading bits two points share; [`KEY_BITS`] if they are the same.
    #[must_use]
    pub fn common_bits(&self, other: &Self) -> u32 {
        self.distance(other).leading_zeros()
    }
}

impl Distance {
    /// The largest.
    pub const MAX: Self = Self(Key([0xff; KEY_LEN]));

    /// Leading bits that are zero; [`KEY_BITS`] for no distance at all.
    #[must_use]
    pub fn leading_zeros(&self) -> u32 {
        let mut zeros = 0;
        for word in self.0.0.as_chunks().0 {
            let word = u64::from_be_bytes(*word);
            zeros += word.leading_zeros();
            if word != 0 {
                break;
            }
        }
        zeros
    }

    /// The distance as a share of the key space, 0 to 1.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        self.0.0.iter().take(8).rev().fold(0.0, |rest, byte| (rest + f64::from(*byte)) / 256.0)
    }

    /// The distance that is this share of the key space; the largest for 1 and more.
    #[must_use]
    pub fn of_fraction(share: f64) -> Self {
        let scaled = share.clamp(0.0, 1.0) * 2f64.powi(64);
        if scaled >= 2f64.powi(64) {
            return Self::MAX;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
        let high = scaled as u64;
        let mut bytes = [0; KEY_LEN];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        Self(Key(bytes))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// In CBOR a key is a byte string of exactly 32 bytes.
impl<C> minicbor::Encode<C> for Key {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Key {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let at = d.position();
        let wrong = |_| minicbor::decode::Error::message("a key has 32 bytes").at(at);
        d.bytes()?.try_into().map(Self).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_symmetric_and_counts_bits() {
        let (a, b) = (Key::topic_secret("a"), Key::topic_secret("b"));
        assert_eq!(a.distance(&b), b.distance(&a));
        assert_eq!(a.common_bits(&a), KEY_BITS);
        let mut near = *a.as_bytes();
        near[2] ^= 0b0001_0000;
        assert_eq!(a.common_bits(&Key::from_bytes(near)), 19);
    }

    #[test]
    fn keys_are_in_the_order_of_their_bytes() {
        let mut all: Vec<[u8; KEY_LEN]> = vec![[0; KEY_LEN], [0xff; KEY_LEN]];
        for at in 0..KEY_LEN {
            all.extend([1, 0x80].map(|byte| {
                let mut key = [0x7f; KEY_LEN];
                key[at] = byte;
                key
            }));
        }
        let by_bytes = |a: &[u8; KEY_LEN], b: &[u8; KEY_LEN]| a.as_slice().cmp(b.as_slice());
        for (a, b) in all.iter().flat_map(|a| all.iter().map(move |b| (a, b))) {
            assert_eq!(Key::from_bytes(*a).cmp(&Key::from_bytes(*b)), by_bytes(a, b));
        }
    }

    #[test]
    fn fractions_go_there_and_back() {
        for share in [0.0, 1e-9, 0.25, 0.5, 0.999] {
            assert!((Distance::of_fraction(share).fraction() - share).abs() < 1e-12);
        }
        assert_eq!(Distance::of_fraction(1.0), Distance::MAX);
    }

    #[test]
    fn contexts_are_separate() {
        let id = NodeId::from_bytes([7; 32]);
        let secret = Key::topic_secret("x");
        let keys = [
            Key::of_node(id),
            Key::of_value(id, ""),
            secret,
            Key::of_topic(&secret, 0),
            Key::of_topic(&secret, 1),
        ];
        let in_full = Key::hash("baran 1 position of a node", &[id.as_bytes()]);
        assert_eq!(Key::of_node(id), in_full);
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }
}
