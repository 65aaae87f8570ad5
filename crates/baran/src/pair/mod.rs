//! Pairing by words: `4711-maple-river-stone`, told from one person to the other.
//!
//! [`invite_by_words`](crate::Node::invite_by_words) shows a [`PairCode`], and
//! [`join_by_words`](crate::Node::join_by_words) takes it to whoever shows it. They find each
//! other through what links them already, among them every node of the LAN, and through the index,
//! where the inviter announces itself under the code's number; the words never leave either
//! machine. How the proof works is in [`baran_proto::pair`]. Each side stores the other one
//! before it lets it know ([`PairedPeers`] is a file for that), so that nobody is told of a pair
//! which a crash made forgotten.

mod book;
mod invite;
mod join;

#[cfg(test)]
mod tests;

use std::time::Instant as StdInstant;

pub use baran_proto::pair::{CODE_LIFE, CodeError, Failure, PairCode};
use baran_proto::time::Instant;
use thiserror::Error;

pub use self::book::{PairedPeer, PairedPeers};
pub use self::invite::{Invitation, Pairing};
use crate::data::DataError;
use crate::{AcceptError, NodeId};

/// Bytes that are read at a time: a message.
const PIECE_LEN: usize = 1_024;

/// Why two nodes are not paired.
#[derive(Debug, Error)]
pub enum PairError {
    /// This node shows a code already.
    #[error("this node shows another code already: use it or end that command first")]
    Busy,
    /// The node is closed.
    #[error("the node is closed")]
    Closed,
    /// The system gave no randomness.
    #[error("the system gives no randomness: {0}")]
    Randomness(getrandom::Error),
    /// Somebody guessed, and was wrong.
    #[error(
        "{} tried other words, so the code is dead: show a new one, and tell it to nobody else",
        .0.short()
    )]
    WrongGuess(NodeId),
    /// Nobody used the code in time.
    #[error("nobody used the code within {} minutes: show a new one", CODE_LIFE.as_secs() / 60)]
    Expired,
    /// Nobody shows a code of the number.
    #[error(
        "nobody shows a code with the number {0}: is `baran invite --words` still waiting there, \
         in the same network?"
    )]
    NotFound(u16),
    /// There was nobody to ask.
    #[error(
        "not connected to anybody yet: be in the same LAN, or name a peer of the network by --peer"
    )]
    NotJoined,
    /// The one who shows the number has other words.
    #[error("the words are wrong, and the code is dead: ask for a new one and type it as it is")]
    WrongWords,
    /// The one who shows the number takes nobody any more.
    #[error("the code was used already or has expired: ask for a new one")]
    Over,
    /// The peer could not be stored.
    #[error("the peer cannot be stored: {0}")]
    Store(#[from] DataError),
}

impl From<AcceptError> for PairError {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::Taken(_) => Self::Busy,
            AcceptError::Name => unreachable!("our protocol has a name of fitting length"),
        }
    }
}

fn seed() -> Result<[u8; 32], PairError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(PairError::Randomness)?;
    Ok(seed)
}

/// The machines' clock.
#[derive(Debug, Clone, Copy)]
struct Clock(StdInstant);

impl Clock {
    fn start() -> Self {
        Self(StdInstant::now())
    }

    fn now(self) -> Instant {
        Instant::ZERO + self.0.elapsed()
    }

    /// Waits until a moment of the machine; for ever if there is none.
    async fn wait(self, until: Option<Instant>) {
        match until {
            Some(until) => tokio::time::sleep(until - self.now()).await,
            None => std::future::pending().await,
        }
    }
}
