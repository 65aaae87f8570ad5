//! A mandate: a term, the votes for it, and its holder's signature. Whoever has one can verify it
//! alone ([`Mandate::verify`]).
//!
//! ```text
//! mandate = [term: bytes, nonce, [vote], signature]                        CBOR (RFC 8949)
//! signed by the holder = "baran 1 mandate" | ["network", term: bytes, nonce]
//! ```
//!
//! Two mandates for one seat do no harm (design §7), so votes are approvals: no quorum has to
//! meet another. What is judged by numbers that two nodes never have quite alike, how many nodes
//! there are and which network somebody is in, makes a vote count for nothing; everything else that
//! is wrong makes the whole mandate void.

use core::time::Duration;

use bytes::Bytes;
use minicbor::{Decoder, Encoder};
use thiserror::Error;

use super::epoch::{Epochs, elector_point};
use super::term::{Kind, NetPrefix, Term, Vote};
use super::{ELECTORS, elector_radius};
use crate::id::{NodeId, SIGNATURE_LEN, SecretKey};
use crate::key::Key;
use crate::record::Verify;
use crate::time::UnixTime;
use crate::wire::addr::bounded_len;

/// Most votes of a mandate: a quorum of all electors, and some that others may not count.
pub const VOTES_MAX: usize = 24;

/// Votes beyond the quorum that a holder puts into its mandate, as some may count for nothing with
/// others. Each is a hundred bytes, and everybody whom it serves is shown the mandate.
const SPARE: usize = 2;

/// Longest mandate in bytes: one of this version has at most 3,100.
pub const MANDATE_LEN_MAX: usize = 3_200;

/// Epochs for which a mandate holds: the one that it is for and the next, in which its holder may
/// fail to be elected without leaving a hole.
const EPOCHS: u32 = 2;

/// Measures of which the median binds.
const MEASURES_MIN: usize = 2;

/// A mandate that was verified, or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mandate {
    bytes: Bytes,
    term: Term,
}

/// What a verifier knows.
pub struct Context<'a> {
    /// The network's name.
    pub network: &'a str,
    /// The calendar.
    pub now: UnixTime,
    /// How far calendars may differ.
    pub skew: Duration,
    /// How it is cut into epochs.
    pub epochs: Epochs,
    /// How long a seat that was lent at once may last.
    pub acting: Duration,
    /// Nodes of the network, estimated.
    pub nodes: f64,
    /// How signatures are verified.
    pub verify: Verify,
    /// Whether a nonce solves a node's puzzle.
    pub is_solved: &'a mut dyn FnMut(NodeId, u64) -> bool,
    /// The network that a node is known to be in.
    pub net_of: &'a dyn Fn(NodeId) -> Option<NetPrefix>,
}

impl core::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Context")
            .field("network", &self.network)
            .field("now", &self.now)
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a mandate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MandateError {
    /// The bytes are no mandate.
    #[error("malformed mandate: {0}")]
    Malformed(String),
    /// Its time has passed.
    #[error("the mandate has expired")]
    Expired,
    /// Its time has not come, or it lasts longer than any may.
    #[error("the mandate is from the future: one of the two clocks is wrong")]
    FromTheFuture,
    /// The holder is no member of the region.
    #[error("the holder does not stand in the region")]
    Region,
    /// Fewer electors were counted than there must be, or more than there can be.
    #[error("{claimed} electors were counted: there are at least {least}")]
    Electors {
        /// As the term says.
        claimed: usize,
        /// As the verifier's estimate says.
        least: usize,
    },
    /// An elector voted twice, or the holder for itself.
    #[error("{0:?} has no vote to give here")]
    Doubled(NodeId),
    /// Somebody did not sign this in this network.
    #[error("the signature of {0:?} is wrong")]
    Signature(NodeId),
    /// Somebody's puzzle is not solved.
    #[error("the puzzle of {0:?} is not solved")]
    Puzzle(NodeId),
    /// Not enough votes count.
    #[error("{counted} votes count, {quorum} are needed")]
    UnderVoted {
        /// Votes that count.
        counted: usize,
        /// Votes that are needed.
        quorum: usize,
    },
}

impl Mandate {
    /// Puts a mandate together. Of many more votes than the quorum the first ones are taken, those
    /// with a measure before the others.
    ///
    /// # Panics
    ///
    /// Never: writing to memory cannot fail.
    #[must_use]
    pub fn sign(
        secret: &SecretKey,
        network: &str,
        term: &Term,
        mut votes: Vec<Vote>,
        nonce: u64,
    ) -> Self {
        votes.sort_by_key(|vote| vote.measured_log2.is_none());
        votes.truncate((term.quorum() + SPARE).min(VOTES_MAX));
        let signed = term.encode();
        let signature = secret.sign(&message(network, &signed, nonce));
        let mut encoder = Encoder::new(Vec::new());
        encoder
            .array(4)
            .and_then(|e| e.bytes(&signed)?.u64(nonce)?.encode(&votes)?.bytes(&signature)?.ok())
            .expect("writing to memory cannot fail");
        Self { bytes: encoder.into_writer().into(), term: term.clone() }
    }

    /// Verifies a mandate: the one function by which everybody does. Of the capacity that is
    /// claimed it has what electors measured.
    ///
    /// # Errors
    ///
    /// What is wrong with it, cheap things first.
    pub fn verify(bytes: &Bytes, context: &mut Context<'_>) -> Result<Self, MandateError> {
        let parsed =
            Parsed::read(bytes).map_err(|error| MandateError::Malformed(error.to_string()))?;
        let mandate = &parsed.mandate;
        mandate.check_time(context)?;
        let term = &mandate.term;
        if !term.region.contains(&Key::of_node(term.holder)) {
            return Err(MandateError::Region);
        }
        let (claimed, least) = (usize::from(term.electors), electors_min(context.nodes));
        if !(least..=ELECTORS).contains(&claimed) {
            return Err(MandateError::Electors { claimed, least });
        }
        let counted = parsed.count(context)?;
        let measured = median(counted.iter().filter_map(|vote| vote.measured_log2));
        if !(context.is_solved)(term.holder, parsed.nonce) {
            return Err(MandateError::Puzzle(term.holder));
        }
        let signed = message(context.network, &parsed.term, parsed.nonce);
        if !(context.verify)(&term.holder, &signed, &parsed.signature) {
            return Err(MandateError::Signature(term.holder));
        }
        let mut mandate = parsed.mandate;
        let claimed = mandate.term.capacity_log2;
        mandate.term.capacity_log2 = measured.unwrap_or(u8::MAX).min(claimed);
        Ok(mandate)
    }

    /// Whether it is the time of the term, on a clock that is off by no more than the skew.
    fn check_time(&self, context: &Context<'_>) -> Result<(), MandateError> {
        let term = &self.term;
        let start = context.epochs.start(term.region, term.epoch);
        let expires = UnixTime::from_secs(term.expires_s);
        let (latest, from) = match term.kind {
            Kind::Ordinary => (start + context.epochs.len() * EPOCHS, start),
            // It begins within its epoch, and no earlier than its length before its end.
            Kind::Acting => (
                start + context.epochs.len() + context.acting,
                start.max(UnixTime::from_secs(
                    term.expires_s.saturating_sub(context.acting.as_secs()),
                )),
            ),
        };
        if expires + context.skew <= context.now {
            return Err(MandateError::Expired);
        }
        if expires > latest || from > context.now + context.skew || term.since_epoch > term.epoch {
            return Err(MandateError::FromTheFuture);
        }
        Ok(())
    }

    /// As it is sent.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What it lends.
    #[must_use]
    pub fn term(&self) -> &Term {
        &self.term
    }

    /// Who voted for it: decoded by each call, because mandates are kept by many and this is asked
    /// by few.
    #[must_use]
    pub fn votes(&self) -> Vec<Vote> {
        Parsed::read(&self.bytes).map(|parsed| parsed.votes).unwrap_or_default()
    }

    /// When it begins: at the start of its epoch, or at once.
    #[must_use]
    pub fn begins(&self, epochs: Epochs) -> UnixTime {
        epochs.start(self.term.region, self.term.epoch)
    }

    /// When it ends.
    #[must_use]
    pub fn expires(&self) -> UnixTime {
        UnixTime::from_secs(self.term.expires_s)
    }
}

/// When a term of an epoch ends.
#[must_use]
pub fn expiry(epochs: Epochs, region: super::Region, epoch: u64) -> UnixTime {
    epochs.start(region, epoch) + epochs.len() * EPOCHS
}

/// The lower median of measures, if there are enough: what an elector that lies alone cannot move.
pub(super) fn median(measures: impl Iterator<Item = u8>) -> Option<u8> {
    let mut measures: Vec<_> = measures.collect();
    measures.sort_unstable();
    (measures.len() >= MEASURES_MIN).then(|| measures[(measures.len() - 1) / 2])
}

/// Electors that must have been counted where there are so many nodes: half of them, as estimates
/// differ.
#[must_use]
pub fn electors_min(nodes: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
    let half = (nodes / 2.0 - 1.0).clamp(0.0, ELECTORS as f64) as usize;
    half.max(2)
}

fn message(network: &str, term: &[u8], nonce: u64) -> Vec<u8> {
    crate::signature::message("baran 1 mandate", network, |e| e.bytes(term)?.u64(nonce)?.ok())
}

/// A mandate whose form alone is right.
struct Parsed {
    mandate: Mandate,
    term: Bytes,
    votes: Vec<Vote>,
    nonce: u64,
    signature: [u8; SIGNATURE_LEN],
}

impl Parsed {
    fn read(bytes: &Bytes) -> Result<Self, minicbor::decode::Error> {
        let wrong = minicbor::decode::Error::message;
        if bytes.len() > MANDATE_LEN_MAX {
            return Err(wrong("too long"));
        }
        let d = &mut Decoder::new(bytes);
        if d.array()? != Some(4) {
            return Err(wrong("a mandate is [term, nonce, votes, signature]"));
        }
        let term = bytes.slice_ref(d.bytes()?);
        let nonce = d.u64()?;
        let len = bounded_len(d, VOTES_MAX)?;
        let votes = (0..len).map(|_| d.decode()).collect::<Result<_, _>>()?;
        let signature = crate::signature::decode(d, &mut ())?;
        if d.position() != bytes.len() {
            return Err(wrong("bytes after the mandate"));
        }
        let mandate = Mandate { bytes: bytes.clone(), term: Term::decode(&term)? };
        Ok(Self { mandate, term, votes, nonce, signature })
    }

    /// The votes that count, if there are enough.
    fn count(&self, context: &mut Context<'_>) -> Result<Vec<&Vote>, MandateError> {
        let term = &self.mandate.term;
        let quorum = term.quorum();
        let point = elector_point(term.region, term.epoch);
        let radius = elector_radius(context.nodes);
        let mut counted: Vec<&Vote> = Vec::with_capacity(self.votes.len());
        let mut nets = Vec::with_capacity(self.votes.len());
        for (at, vote) in self.votes.iter().enumerate() {
            let is_again = self.votes[..at].iter().any(|other| other.elector == vote.elector);
            if is_again || vote.elector == term.holder {
                return Err(MandateError::Doubled(vote.elector));
            }
            let is_elector = Key::of_node(vote.elector).distance(&point) <= radius;
            // What is seen counts for more than what is said.
            let net = (context.net_of)(vote.elector).or(vote.net);
            let is_crowded = net.is_some() && nets.contains(&net);
            if is_elector && !is_crowded {
                counted.push(vote);
                nets.push(net);
            }
        }
        if counted.len() < quorum {
            return Err(MandateError::UnderVoted { counted: counted.len(), quorum });
        }
        for vote in &counted {
            if !vote.is_signed(context.network, &self.term, context.verify) {
                return Err(MandateError::Signature(vote.elector));
            }
        }
        for vote in &counted {
            if !(context.is_solved)(vote.elector, vote.nonce) {
                return Err(MandateError::Puzzle(vote.elector));
            }
        }
        Ok(counted)
    }
}

#[cfg(test)]
mod tests;
