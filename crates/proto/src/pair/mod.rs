//! Pairing by words: two people who can talk to each other make their nodes know each other.
//!
//! One node shows a [`PairCode`], `4711-maple-river-stone`; the other one is told it. The number
//! is public: it only says where to look for the inviter. The three words (33 bits) are a secret
//! that neither side ever sends: SPAKE2 (Abdalla and Pointcheval, *Simple Password-Based Encrypted
//! Key Exchange Protocols*, 2005, in the crate `spake2`) makes a key of them that is the same at
//! both ends only if the words were. Both nodes' ids, as their TLS keys proved them, are part of
//! that key, so whoever stands in the middle with an id of his own has a wrong one. Then each side
//! proves that it has the key, and says with the same tag where it can be reached:
//!
//! ```text
//! joiner                                   inviter
//!   Hello { number, element }        ──►
//!                                    ◄──   Answer { element }
//!   Proof { tag, own address }       ──►   wrong: the code is dead
//!                                    ◄──   Proof { tag, own address }
//!   Paired                           ──►
//! ```
//!
//! The joiner proves first, so a guess of the words is seen by the inviter before it has told
//! anything that a guess could be checked with. **The first wrong proof ends the code**: an
//! attacker has one try in 2³³. What proves nothing (a wrong number, garbage, silence) is no guess
//! and ends only the attempt, so nobody ends a code by accident. A joiner tells whoever answers
//! under its number one thing to check *one* guess against; it tries few ([`GUESSES_MAX`]).
//!
//! | timer | length | what happens |
//! |---|---|---|
//! | code | [`CODE_LIFE`] | the code is dead |
//! | attempt, at either side | [`ATTEMPT_MAX`] | the attempt ends; the code stays |
//!
//! The machines are [`Inviter`], which serves one code to any number of callers, and [`Joiner`],
//! which is one attempt. They are fed the bytes of a stream and frame them by themselves (see
//! [`message`]).
//!
//! Invariants: at most one proof is looked at unless it is right; at most one peer is paired; no
//! input panics; memory is bounded by [`CALLERS_MAX`] attempts of one message each.

mod code;
mod exchange;
pub mod inviter;
pub mod joiner;
pub mod message;

#[cfg(test)]
mod tests;

use core::time::Duration;

pub use self::code::{CodeError, PairCode};
pub use self::inviter::Inviter;
pub use self::joiner::{Failure, Joiner};

/// Name of the application protocol.
pub const PROTOCOL: &str = "baran/pair/1";

/// How long a code may be used: as long as it takes to read it out, with a phone call before.
pub const CODE_LIFE: Duration = Duration::from_secs(600);

/// Longest attempt: a few round trips of a bad path, and three key operations.
pub const ATTEMPT_MAX: Duration = Duration::from_secs(10);

/// Attempts that an inviter has under way; one more ends the oldest, so that nobody who opens and
/// waits keeps others out.
pub const CALLERS_MAX: usize = 8;

/// Peers that a joiner proves itself to before it gives up. Each of them could check one guess.
pub const GUESSES_MAX: usize = 4;
