//! Who a node is: an Ed25519 key (RFC 8032), and its text form.
//!
//! A [`NodeId`] is the public key. Its text is 52 characters of lowercase base32 (RFC 4648 §6
//! alphabet) without padding. Upper case is read too, because people and QR codes write it; apart
//! from case every identity has exactly one text: characters outside the alphabet, another length
//! and non-zero trailing bits are refused, so two different texts never name one node.
//!
//! Any 32 bytes make a [`NodeId`]. Whether they are a point of the curve is found where it
//! matters, when TLS verifies the peer's signature: an identity that is no valid key can never be
//! proved by anybody.

use core::cmp::Ordering;
use core::fmt;
use core::str::FromStr;

use data_encoding::BASE32_NOPAD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use thiserror::Error;
use zeroize::Zeroizing;

/// Length of an identity in bytes (RFC 8032 §5.1.5).
pub const ID_LEN: usize = 32;

/// Length of an identity's text: 256 bits, five to a character, rounded up.
pub const ID_TEXT_LEN: usize = 52;

/// Length of a signature in bytes (RFC 8032 §5.1.6).
pub const SIGNATURE_LEN: usize = 64;

/// Characters of an identity that logs and screens show: 40 bits, enough to tell peers apart and
/// too few to reach one.
const SHORT_LEN: usize = 8;

/// The identity of a node: its Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId([u8; ID_LEN]);

/// In the order of the bytes.
impl Ord for NodeId {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for NodeId {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Compares two arrays as their bytes are ordered. Those of keys and hashes mostly differ in the
/// first eight, which are compared as one number, without a call.
#[inline]
pub(crate) fn compare(a: &[u8; 32], b: &[u8; 32]) -> Ordering {
    let head = |bytes: &[u8; 32]| bytes.first_chunk().copied().map(u64::from_be_bytes);
    head(a).cmp(&head(b)).then_with(|| a.cmp(b))
}

impl NodeId {
    /// Takes the 32 bytes of a public key as they are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; ID_LEN]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the public key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; ID_LEN] {
        &self.0
    }

    /// The first 8 characters of the text form, for logs and screens.
    #[must_use]
    pub fn short(&self) -> String {
        self.text().as_str()[..SHORT_LEN].to_owned()
    }

    /// Whether this node signed a message. Strict: points of small order, which sign anything, and
    /// second spellings of a signature are refused (Chalkias and others, *Taming the many
    /// `EdDSAs`*, 2020, §5), so all nodes agree on what is signed.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        VerifyingKey::from_bytes(&self.0)
            .and_then(|key| key.verify_strict(message, &Signature::from_bytes(signature)))
            .is_ok()
    }

    fn text(&self) -> Text {
        let mut text = [0; ID_TEXT_LEN];
        BASE32_NOPAD.encode_mut(&self.0, &mut text);
        text.make_ascii_lowercase();
        Text(text)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text().as_str())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text().as_str()[..SHORT_LEN])
    }
}

impl FromStr for NodeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() != ID_TEXT_LEN {
            return Err(IdError::Length { found: text.chars().count() });
        }
        // Only ASCII is folded: letters such as U+212A, which Unicode lowers to `k`, stay foreign.
        let upper = text.to_ascii_uppercase();
        let mut bytes = [0; ID_LEN];
        match BASE32_NOPAD.decode_mut(upper.as_bytes(), &mut bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(partial) => Err(match partial.error.kind {
                data_encoding::DecodeKind::Trailing => IdError::Trailing,
                data_encoding::DecodeKind::Symbol
                | data_encoding::DecodeKind::Length
                | data_encoding::DecodeKind::Padding => {
                    IdError::Character { position: partial.error.position + 1 }
                }
            }),
        }
    }
}

/// In CBOR an identity is a byte string of exactly 32 bytes.
impl<C> minicbor::Encode<C> for NodeId {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for NodeId {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let at = d.position();
        let bytes = d.bytes()?.try_into();
        let wrong = |_| minicbor::decode::Error::message("a node id has 32 bytes").at(at);
        bytes.map(Self).map_err(wrong)
    }
}

/// Why a text is not an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdError {
    /// The text has another length.
    #[error("a node id has {ID_TEXT_LEN} characters, this has {found}: copy it whole")]
    Length {
        /// Characters in the text.
        found: usize,
    },
    /// A character is not of the alphabet.
    #[error("character {position} is neither a letter nor a digit from 2 to 7: copy the id again")]
    Character {
        /// Position of the first foreign character (its first byte), counted from 1.
        position: usize,
    },
    /// The last character holds bits that no key fills: it was mistyped.
    #[error("the last character cannot end a node id: copy the id again")]
    Trailing,
}

/// A node's secret: the Ed25519 seed (RFC 8032 §5.1.5). Wiped from memory when dropped.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// Makes the key of a seed. The caller draws the 32 bytes from the system's generator.
    #[must_use]
    pub fn from_bytes(seed: [u8; ID_LEN]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The seed, for storing it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; ID_LEN] {
        self.0.to_bytes()
    }

    /// The public half: this node's identity.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId(self.0.verifying_key().to_bytes())
    }

    /// Signs a message (RFC 8032 §5.1.6). What is signed must say what it is for: a message of one
    /// protocol must never be one of another.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(message).to_bytes()
    }

    /// The secret as one of X25519 (RFC 7748 §5), whose public half is that of [`SecretKey::id`] in
    /// Montgomery form. Not clamped. For unsealing only: it is as secret as the seed.
    pub(crate) fn to_x25519(&self) -> Zeroizing<[u8; ID_LEN]> {
        Zeroizing::new(self.0.to_scalar_bytes())
    }
}

impl fmt::Debug for SecretKey {
    /// Shows whose secret it is and nothing of the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretKey").field(&self.id()).finish()
    }
}

/// The text of an identity on the stack.
struct Text([u8; ID_TEXT_LEN]);

impl Text {
    fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).expect("base32 is ASCII")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 8032 §7.1, test 1.
    const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    const TEXT: &str = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena";

    fn bytes(hex: &str) -> [u8; 32] {
        let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).expect("hex");
        bytes.try_into().expect("32 bytes")
    }

    #[test]
    fn the_rfc_8032_key_has_this_text() {
        let secret = SecretKey::from_bytes(bytes(SEED));
        let id = secret.id();
        assert_eq!(id.as_bytes(), &bytes(PUBLIC));
        assert_eq!(id.to_string(), TEXT);
        assert_eq!(id.short(), &TEXT[..8]);
        assert_eq!(format!("{id:?}"), &TEXT[..8]);
        assert_eq!(TEXT.parse(), Ok(id));
        assert_eq!(TEXT.to_uppercase().parse(), Ok(id));
        assert_eq!(secret.to_bytes(), bytes(SEED));
    }

    #[test]
    fn the_rfc_8032_key_signs_as_the_rfc_says() {
        let signature = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb88215\
                         90a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";
        let secret = SecretKey::from_bytes(bytes(SEED));
        let made = secret.sign(b"");
        assert_eq!(data_encoding::HEXLOWER.encode(&made), signature);
        assert!(secret.id().verify(b"", &made));
        assert!(!secret.id().verify(b"x", &made));
        assert!(!SecretKey::from_bytes([1; 32]).id().verify(b"", &made));
    }

    /// The neutral point verifies R = sB for every message if its order is not looked at.
    #[test]
    fn a_point_of_small_order_signs_nothing() {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; SIGNATURE_LEN];
        signature[0] = 1;
        assert!(!NodeId::from_bytes(neutral).verify(b"anything", &signature));
        // Nor does what is no point at all.
        assert!(!NodeId::from_bytes([2; 32]).verify(b"anything", &signature));
    }

    #[test]
    fn cbor_is_a_string_of_32_bytes() {
        let id = NodeId::from_bytes(bytes(PUBLIC));
        let cbor = minicbor::to_vec(id).expect("writing to memory");
        assert_eq!(cbor, [&[0x58, 32], &bytes(PUBLIC)[..]].concat());
        assert_eq!(minicbor::decode::<NodeId>(&cbor).expect("round trip"), id);
        assert!(minicbor::decode::<NodeId>(&[0x42, 1, 2]).is_err());
    }

    #[test]
    fn debug_of_a_secret_hides_it() {
        let shown = format!("{:?}", SecretKey::from_bytes(bytes(SEED)));
        assert_eq!(shown, format!("SecretKey({})", &TEXT[..8]));
    }

    #[test]
    fn every_other_last_character_is_refused() {
        // The last character carries one bit of the key and four that must be zero.
        let good = |c: char| "aq".contains(c);
        for last in "abcdefghijklmnopqrstuvwxyz234567".chars() {
            let text = format!("{}{last}", &TEXT[..51]);
            let parsed = text.parse::<NodeId>();
            if good(last) {
                assert_eq!(parsed.expect("canonical").to_string(), text);
            } else {
                assert_eq!(parsed, Err(IdError::Trailing));
            }
        }
    }

    #[test]
    fn errors_say_where() {
        assert_eq!("".parse::<NodeId>(), Err(IdError::Length { found: 0 }));
        assert_eq!(TEXT[..51].parse::<NodeId>(), Err(IdError::Length { found: 51 }));
        let foreign = TEXT.replacen('5', "1", 1);
        assert_eq!(foreign.parse::<NodeId>(), Err(IdError::Character { position: 2 }));
        // The Kelvin sign is three bytes long and its lower case is the letter k.
        let kelvin = format!("\u{212a}{}", &TEXT[3..]);
        assert_eq!(kelvin.parse::<NodeId>(), Err(IdError::Character { position: 1 }));
    }

    proptest! {
        #[test]
        fn text_round_trips(key: [u8; 32]) {
            let id = NodeId::from_bytes(key);
            let text = id.to_string();
            prop_assert_eq!(text.len(), ID_TEXT_LEN);
            prop_assert_eq!(text.parse(), Ok(id));
        }

        #[test]
        fn what_is_read_is_written_back(text in "[a-zA-Z2-7]{52}") {
            if let Ok(id) = text.parse::<NodeId>() {
                prop_assert_eq!(id.to_string(), text.to_ascii_lowercase());
            }
        }

        #[test]
        fn garbage_never_panics(text: String) {
            let _ = text.parse::<NodeId>();
        }
    }
}
