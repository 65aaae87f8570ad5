//! Signatures of records, verified once for all nodes.
//!
//! Whether a signature holds is a pure function of three arguments, and some twenty nodes of a
//! world ask it about each record. Those that held are remembered, so the answer is what it would
//! be without and only the processor time of a run tells the difference: a seventh.

use std::cell::RefCell;

use baran_proto::id::{NodeId, SIGNATURE_LEN};

/// Signatures that are remembered: those of some minutes of the largest worlds.
const SLOTS: usize = 1 << 18;

/// A hash of author, message and signature.
type Digest = [u8; 32];

thread_local! {
    /// Each where its hash says, until another takes the place.
    static HOLDS: RefCell<Vec<Digest>> = RefCell::new(vec![[0; 32]; SLOTS]);
}

/// What [`NodeId::verify`] says.
pub(crate) fn verify(author: &NodeId, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
    let mut hasher = blake3::Hasher::new();
    hasher.update(author.as_bytes()).update(signature).update(message);
    let digest = *hasher.finalize().as_bytes();
    let [a, b, c, ..] = digest;
    let slot = u32::from_be_bytes([0, a, b, c]) as usize % SLOTS;
    HOLDS.with_borrow_mut(|holds| {
        let holds = &mut holds[slot];
        if *holds != digest && author.verify(message, signature) {
            *holds = digest;
        }
        *holds == digest
    })
}

#[cfg(test)]
mod tests {
    use baran_proto::id::SecretKey;

    use super::*;

    #[test]
    fn a_signature_holds_for_its_message_alone() {
        let (author, other) = (SecretKey::from_bytes([1; 32]), SecretKey::from_bytes([2; 32]));
        let signature = author.sign(b"one");
        for _ in 0..2 {
            assert!(verify(&author.id(), b"one", &signature));
            assert!(!verify(&author.id(), b"two", &signature));
            assert!(!verify(&other.id(), b"one", &signature));
            assert!(!verify(&author.id(), b"one", &other.sign(b"one")));
        }
    }
}
