//! SPAKE2 and the proofs that both sides have its key.

use rand_chacha::ChaCha20Rng;
use rand_core::Rng;
use spake2::{Ed25519Group, Identity, Password, Spake2};

use super::PairCode;
use super::message::{ELEMENT_LEN, Element, Proof, TAG_LEN};
use crate::id::NodeId;
use crate::invite::PeerAddr;

/// Contexts of the keys of either side's proof: a proof that is sent back proves nothing.
const INVITER_CONTEXT: &str = "baran 1 pairing, proof of the inviter";
const JOINER_CONTEXT: &str = "baran 1 pairing, proof of the joiner";

/// Which end of the exchange we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Shows the code.
    Inviter,
    /// Was told it.
    Joiner,
}

/// Who wants to pair with whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) inviter: NodeId,
    pub(super) joiner: NodeId,
}

/// An exchange that waits for the other side's element.
pub(super) struct Exchange {
    state: Spake2<Ed25519Group>,
    side: Side,
    ours: Element,
    ends: Ends,
    number: u16,
}

impl Exchange {
    /// Begins. The element goes to the other side.
    pub(super) fn start(
        side: Side,
        code: &PairCode,
        ends: Ends,
        rng: &mut ChaCha20Rng,
    ) -> (Self, Element) {
        let password = Password::new(format!("{} {}", super::PROTOCOL, code.password()));
        let inviter = Identity::new(ends.inviter.as_bytes());
        let joiner = Identity::new(ends.joiner.as_bytes());
        let draws = Draws(rng);
        let (state, element) = match side {
            Side::Inviter => Spake2::start_a_with_rng(&password, &inviter, &joiner, draws),
            Side::Joiner => Spake2::start_b_with_rng(&password, &inviter, &joiner, draws),
        };
        let ours: Element = element.try_into().expect("an element and its side have 33 bytes");
        (Self { state, side, ours, ends, number: code.number() }, ours)
    }

    /// Takes the other side's element. `None` if it is none: that is no guess.
    pub(super) fn finish(self, theirs: &Element) -> Option<Keys> {
        let shared = self.state.finish(theirs).ok()?;
        let (inviter, joiner) = match self.side {
            Side::Inviter => (&self.ours, theirs),
            Side::Joiner => (theirs, &self.ours),
        };
        let mut transcript = Vec::with_capacity(2 + 2 * 32 + 2 * ELEMENT_LEN);
        transcript.extend(self.number.to_be_bytes());
        transcript.extend(self.ends.inviter.as_bytes());
        transcript.extend(self.ends.joiner.as_bytes());
        transcript.extend(inviter);
        transcript.extend(joiner);
        let key = |context| blake3::derive_key(context, &shared);
        let (inviter, joiner) = (key(INVITER_CONTEXT), key(JOINER_CONTEXT));
        let (ours, theirs) = match self.side {
            Side::Inviter => (inviter, joiner),
            Side::Joiner => (joiner, inviter),
        };
        Some(Keys { ours, theirs, transcript })
    }
}

/// What both sides have in common if they were told the same words.
pub(super) struct Keys {
    ours: [u8; 32],
    theirs: [u8; 32],
    /// Number, ids and elements: all of fixed length.
    transcript: Vec<u8>,
}

impl Keys {
    /// Our proof, with where we can be reached.
    pub(super) fn prove(&self, own: &PeerAddr) -> Proof {
        let peer = minicbor::to_vec(own).expect("writing to memory does not fail");
        Proof { tag: *self.tag(&self.ours, &peer).as_bytes(), peer }
    }

    /// Whether the other side has the key.
    pub(super) fn check(&self, proof: &Proof) -> bool {
        // Compares in constant time.
        self.tag(&self.theirs, &proof.peer) == blake3::Hash::from_bytes(proof.tag)
    }

    fn tag(&self, key: &[u8; 32], peer: &[u8]) -> blake3::Hash {
        const _: () = assert!(TAG_LEN == blake3::OUT_LEN, "a tag is a whole hash");
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(&self.transcript).update(peer);
        hasher.finalize()
    }
}

/// Our generator in the form that `spake2` takes.
struct Draws<'a>(&'a mut ChaCha20Rng);

impl rand_core_06::CryptoRng for Draws<'_> {}

impl rand_core_06::RngCore for Draws<'_> {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        self.0.fill_bytes(dest);
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core_06::Error> {
        self.0.fill_bytes(dest);
        Ok(())
    }
}
