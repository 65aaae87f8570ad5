//! Proof that an author told two stories.

use bytes::Bytes;
use thiserror::Error;

use crate::id::NodeId;
use crate::topic::entry::{EntryError, Signed};
use crate::topic::id::TopicId;

/// Two entries of one author of which only one can be true: they have one number, or one has the
/// number after the other's and names another entry as the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkProof {
    first: Signed,
    second: Signed,
}

/// Why two entries prove nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ForkError {
    /// One is not an entry.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// They do not contradict each other.
    #[error("these entries do not contradict each other")]
    NoFork,
}

impl ForkProof {
    pub(super) fn new(a: &Signed, b: &Signed) -> Self {
        let (first, second) = if a.seq() <= b.seq() { (a, b) } else { (b, a) };
        Self { first: first.clone(), second: second.clone() }
    }

    /// Reads what somebody shows; [`ForkProof::verify`] is still to be asked.
    ///
    /// # Errors
    ///
    /// If they are no entries, or do not contradict each other.
    pub fn from_entries(a: Bytes, b: Bytes) -> Result<Self, ForkError> {
        let proof = Self::new(&Signed::decode(a)?, &Signed::decode(b)?);
        let Self { first, second } = &proof;
        let is_double = first.seq() == second.seq() && first.id() != second.id();
        let is_torn = first.seq() + 1 == second.seq() && second.backlink() != Some(first.id());
        match first.author() == second.author() && (is_double || is_torn) {
            true => Ok(proof),
            false => Err(ForkError::NoFork),
        }
    }

    /// Whether the author signed both for this topic.
    #[must_use]
    pub fn verify(&self, network: &str, topic: TopicId) -> bool {
        self.first.verify(network, topic) && self.second.verify(network, topic)
    }

    /// Who.
    #[must_use]
    pub fn author(&self) -> NodeId {
        self.first.author()
    }

    /// The entries, as they travel.
    #[must_use]
    pub fn entries(&self) -> (Bytes, Bytes) {
        (self.first.bytes().clone(), self.second.bytes().clone())
    }
}
