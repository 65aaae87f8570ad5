//! The keys of a topic, and sealing with them.
//!
//! ```text
//! private: secret S ─┬─ relay secret R ─┬─ discovery key
//!                    │                  └─ gossip key
//!                    └─ read key of epoch 0
//! public:  name ─── discovery key ─── gossip key
//! ```
//!
//! Every arrow is HKDF-SHA256 (RFC 5869) with an info string of its own, so that who has what is
//! on the right learns nothing of what is on the left or beside it: who relays a topic cannot read
//! it. The keys of later epochs are drawn at random ([`super::epoch`]).
//!
//! Payloads are sealed by XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03): its nonces are long
//! enough to be drawn at random by many authors under one key.

use core::fmt;

use blake3::Hasher;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::id::NodeId;
use crate::key::Key;
use crate::topic::id::TopicId;

/// Bytes of every secret and key.
pub const SECRET_LEN: usize = 32;

/// Bytes of a nonce of [`seal`].
pub const NONCE_LEN: usize = 24;

/// Bytes of the proof that nothing was changed (RFC 8439 §2.5).
pub(super) const MAC_LEN: usize = 16;

/// Bytes that [`seal`] adds to what it seals: the nonce and the proof.
pub const SEAL_LEN: usize = NONCE_LEN + MAC_LEN;

/// 32 bytes that are never shown and are wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(Zeroizing<[u8; SECRET_LEN]>);

impl Secret {
    pub(super) fn new(bytes: [u8; SECRET_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8; SECRET_LEN] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// In CBOR a secret is a byte string of exactly 32 bytes.
impl<C> minicbor::Encode<C> for Secret {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(self.bytes())?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Secret {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let at = d.position();
        let wrong = |_| minicbor::decode::Error::message("a secret has 32 bytes").at(at);
        d.bytes()?.try_into().map(Self::new).map_err(wrong)
    }
}

/// What every member of a topic knows, those that only relay it included.
#[derive(Clone, PartialEq, Eq)]
pub struct TopicKeys {
    /// Which topic.
    pub id: TopicId,
    /// The secret under which the index blinds announcements ([`Key::of_topic`]).
    pub discovery: Key,
    gossip: Secret,
    /// Of a private topic.
    relay: Option<Secret>,
}

impl TopicKeys {
    /// The keys of the private topic `id` with this relay secret ([`relay_secret`]).
    #[must_use]
    pub fn private(id: TopicId, relay: [u8; SECRET_LEN]) -> Self {
        let relay = Secret::new(relay);
        let discovery = derive(relay.bytes(), b"baran 1 topic discovery");
        let gossip = derive(relay.bytes(), b"baran 1 topic gossip");
        Self { id, discovery: Key::from_bytes(*discovery.bytes()), gossip, relay: Some(relay) }
    }

    /// The keys of a public topic, which follow from its name.
    #[must_use]
    pub fn public(name: &str) -> Self {
        let id = blake3::derive_key("baran 1 id of a public topic", name.as_bytes());
        let discovery = Key::topic_secret(name);
        let gossip = derive(discovery.as_bytes(), b"baran 1 public topic gossip");
        Self { id: TopicId::from_bytes(id), discovery, gossip, relay: None }
    }

    /// Whether everybody who knows the name may read and write.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.relay.is_none()
    }

    /// The relay secret of a private topic.
    #[must_use]
    pub fn relay(&self) -> Option<&[u8; SECRET_LEN]> {
        self.relay.as_ref().map(Secret::bytes)
    }

    /// The key that members have in common, whatever their rank.
    #[must_use]
    pub fn gossip(&self) -> &[u8; SECRET_LEN] {
        self.gossip.bytes()
    }

    /// What `from` shows to `to`, on a link on which both have proved who they are, to prove that
    /// it belongs to the topic. Of no use to anybody else: it is bound to both and a direction.
    #[must_use]
    pub fn tag(&self, from: NodeId, to: NodeId) -> [u8; SECRET_LEN] {
        *self.hash(from, to).as_bytes()
    }

    /// Whether `tag` is the one that `from` shows to `to`. Takes the same time for all wrong ones.
    #[must_use]
    pub fn is_tag(&self, from: NodeId, to: NodeId, tag: &[u8; SECRET_LEN]) -> bool {
        self.hash(from, to) == *tag
    }

    fn hash(&self, from: NodeId, to: NodeId) -> blake3::Hash {
        let mut hasher = Hasher::new_keyed(self.gossip.bytes());
        hasher.update(b"baran 1 topic membership");
        hasher.update(from.as_bytes()).update(to.as_bytes()).finalize()
    }
}

impl fmt::Debug for TopicKeys {
    /// Shows which topic and none of its secrets, of which the discovery key is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicKeys").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The relay secret of the private topic with the secret `secret`.
#[must_use]
pub fn relay_secret(secret: &[u8; SECRET_LEN]) -> [u8; SECRET_LEN] {
    *derive(secret, b"baran 1 topic relay").bytes()
}

/// The read key of epoch 0 of the private topic with the secret `secret`.
#[must_use]
pub fn first_read_key(secret: &[u8; SECRET_LEN]) -> [u8; SECRET_LEN] {
    *derive(secret, b"baran 1 topic read").bytes()
}

/// Seals a plaintext: returns the nonce, the ciphertext and a proof that covers it and `aad`,
/// together [`SEAL_LEN`] bytes more than the plaintext.
///
/// The caller draws the nonce at random: two plaintexts under one key and nonce reveal both.
///
/// # Panics
///
/// If the plaintext has more than 256 GiB.
#[must_use]
pub fn seal(
    key: &[u8; SECRET_LEN],
    nonce: [u8; NONCE_LEN],
    aad: &[u8],
    plaintext: &[u8],
) -> Vec<u8> {
    let cipher = XChaCha20Poly1305::new(key.into());
    let payload = Payload { msg: plaintext, aad };
    let sealed = cipher.encrypt(&nonce.into(), payload).expect("shorter than 256 GiB");
    [&nonce[..], &sealed].concat()
}

/// Opens what [`seal`] returned. `None` if it was sealed with another key or `aad`, or changed.
#[must_use]
pub fn open(key: &[u8; SECRET_LEN], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, msg) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let cipher = XChaCha20Poly1305::new(key.into());
    cipher.decrypt(nonce.into(), Payload { msg, aad }).ok()
}

/// HKDF-SHA256 without salt: what it is given is as good as random.
pub(super) fn derive(from: &[u8], info: &[u8]) -> Secret {
    let mut secret = Secret::new([0; SECRET_LEN]);
    let hkdf = Hkdf::<Sha256>::new(None, from);
    hkdf.expand(info, &mut *secret.0).expect("32 bytes are at most 255 hashes");
    secret
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    const S: [u8; SECRET_LEN] = [7; SECRET_LEN];

    fn private() -> TopicKeys {
        TopicKeys::private(TopicId::from_bytes([1; 32]), relay_secret(&S))
    }

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    #[test]
    fn every_key_is_another_one() {
        let (private, public) = (private(), TopicKeys::public("x"));
        let keys = [
            S,
            relay_secret(&S),
            first_read_key(&S),
            *private.discovery.as_bytes(),
            *private.gossip(),
            *public.id.as_bytes(),
            *public.discovery.as_bytes(),
            *public.gossip(),
        ];
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
        assert_ne!(TopicKeys::public("y").id, public.id);
        assert_eq!(public.discovery, Key::topic_secret("x"));
        assert_eq!(private.relay(), Some(&relay_secret(&S)));
        assert!(public.is_public() && !private.is_public());
    }

    /// By Python's hmac and hashlib.
    #[test]
    fn keys_are_those_of_rfc_5869() {
        let hex = |bytes: &[u8]| HEXLOWER.encode(bytes);
        assert_eq!(hex(&relay_secret(&S)), RELAY);
        assert_eq!(hex(&first_read_key(&S)), READ);
        assert_eq!(hex(private().discovery.as_bytes()), DISCOVERY);
        assert_eq!(hex(private().gossip()), GOSSIP);
    }

    const RELAY: &str = "99a516c04d35c2d918b7ce251710d57a7fef1805c09a9711eadaa84ad8b5d70c";
    const READ: &str = "502b1180f0d5f3c3fbd00c328a7b24b94d1d59cc12ea454ce0fce6e56fd30f6f";
    const DISCOVERY: &str = "9fcea430252749693db4c2a71e7fd59dc6fd4dff307dab98dade62f7e3b16ee8";
    const GOSSIP: &str = "ae876791ff5ff203ca37eb0be6fe717063255eeb9041d0de0a557041be811ba0";

    #[test]
    fn a_tag_is_bound_to_both_ends_and_the_topic() {
        let keys = private();
        let tag = keys.tag(node(1), node(2));
        assert!(keys.is_tag(node(1), node(2), &tag));
        assert!(!keys.is_tag(node(2), node(1), &tag));
        assert!(!keys.is_tag(node(1), node(3), &tag));
        assert!(!TopicKeys::public("x").is_tag(node(1), node(2), &tag));
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", private()), "TopicKeys { id: 0101010101, .. }");
        assert_eq!(format!("{:?}", Secret::new(S)), "..");
    }

    /// draft-irtf-cfrg-xchacha-03, A.3.1.
    #[test]
    fn the_draft_s_example_is_sealed_as_it_says() {
        let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip \
                     for the future, sunscreen would be it.";
        let key = core::array::from_fn(|at| 0x80 + u8::try_from(at).unwrap());
        let nonce = core::array::from_fn(|at| 0x40 + u8::try_from(at).unwrap());
        let aad = HEXLOWER.decode(b"50515253c0c1c2c3c4c5c6c7").unwrap();
        let sealed = seal(&key, nonce, &aad, text);
        let (start, mac) = (&sealed[NONCE_LEN..][..8], &sealed[sealed.len() - MAC_LEN..]);
        assert_eq!(HEXLOWER.encode(start), "bd6d179d3e83d43b");
        assert_eq!(HEXLOWER.encode(mac), "c0875924c1c7987947deafd8780acf49");
        assert_eq!(sealed.len(), text.len() + SEAL_LEN);
    }

    #[test]
    fn what_was_changed_cannot_be_opened() {
        let sealed = seal(&S, [3; NONCE_LEN], b"aad", b"text");
        assert_eq!(open(&S, b"aad", &sealed).as_deref(), Some(&b"text"[..]));
        assert_eq!(open(&S, b"add", &sealed), None);
        assert_eq!(open(&[8; SECRET_LEN], b"aad", &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open(&S, b"aad", &changed), None);
            assert_eq!(open(&S, b"aad", &sealed[..at]), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened(key: [u8; 32], nonce: [u8; 24], aad: Vec<u8>, text: Vec<u8>) {
            prop_assert_eq!(open(&key, &aad, &seal(&key, nonce, &aad, &text)), Some(text));
        }
    }
}
