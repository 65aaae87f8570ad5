//! The puzzle that an identity solves before it may vote or be elected: a price for each of many.
//!
//! A *nonce* solves it if Argon2id (RFC 9106) of network, identity and nonce begins with
//! [`DIFFICULTY`] zero bits. The hash fills 16 MiB, so hardware that is built for it gains little
//! over anybody's computer. One try takes about a hundredth of a second, and checking is one try:
//! who checks remembers the answer for each identity.
//!
//! The price is paid once, for as long as the identity lasts. What it does not do is decide where
//! in the key space a node stands; that is [`Key::of_node`](crate::key::Key::of_node) alone.

use argon2::{Algorithm, Argon2, Params, Version};

use crate::id::NodeId;

/// Zero bits that a solution begins with: 128 tries are expected. One takes 8 ms on a core of a
/// server, so all of them about a second.
pub const DIFFICULTY: u32 = 7;

/// KiB that a try fills: 16 MiB is beyond the cache that a core has for itself, and not missed on
/// the smallest computer that a node runs on.
const MEMORY_KIB: u32 = 16 * 1024;

/// Passes over the memory: the fewest, as memory is what is to be costly and not time.
const PASSES: u32 = 1;

/// Bytes of the hash: as many as are looked at.
const HASH_LEN: usize = 8;

/// How many zero bits the hash of a nonce begins with. Fills 16 MiB, in about 10 ms.
///
/// # Panics
/// Where there are no 16 MiB.
#[must_use]
pub fn work(network: &str, id: NodeId, nonce: u64) -> u32 {
    let mut seed = blake3::Hasher::new_derive_key("baran 1 puzzle of an identity");
    // What has no fixed length comes last.
    seed.update(id.as_bytes()).update(&nonce.to_be_bytes()).update(network.as_bytes());
    let params = Params::new(MEMORY_KIB, PASSES, 1, Some(HASH_LEN)).expect("within the bounds");
    let mut hash = [0; HASH_LEN];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(seed.finalize().as_bytes(), b"baran 1 puzzle", &mut hash)
        .expect("lengths are within the bounds, and there is memory");
    u64::from_be_bytes(hash).leading_zeros()
}

/// Whether a nonce solves an identity's puzzle.
#[must_use]
pub fn is_solved(network: &str, id: NodeId, nonce: u64) -> bool {
    work(network, id, nonce) >= DIFFICULTY
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SecretKey;

    #[test]
    fn the_first_solution_of_an_identity_stays_what_it_is() {
        let id = SecretKey::from_bytes([7; 32]).id();
        let first = (0..).find(|&nonce| is_solved("main", id, nonce));
        assert_eq!(first, Some(29));
        assert!(!is_solved("test", id, 29), "the network counts");
        let other = SecretKey::from_bytes([8; 32]).id();
        assert!(!is_solved("main", other, 29), "the identity counts");
    }
}
