//! What is kept of a linked peer.

use core::time::Duration;

use crate::bucket::TokenBucket;
use crate::invite::PeerAddr;
use crate::time::Instant;
use crate::topic::id::ShortId;
use crate::wire::topic::GossipMessage;

/// First guess of the time from a request for an entry to its arrival.
const ANSWER_FIRST: Duration = Duration::from_millis(150);

/// Bounds of the wait for an entry that was asked for.
const WAIT_MIN: Duration = Duration::from_millis(150);
const WAIT_MAX: Duration = Duration::from_millis(1_500);

/// Tokens that a message of a rare kind costs: the rates of these are below one a second.
const RARE: u64 = 10;

/// How far it is with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Asked for a link.
    Dialing,
    /// It is linked, for its own reasons.
    Linked,
    /// Asked it to be a neighbour so many times.
    Asked(u8),
    /// It is a neighbour.
    Active,
}

/// A peer that is linked, or is to be.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) addr: PeerAddr,
    pub(super) stage: Stage,
    /// Whether it is to take the place of another neighbour.
    pub(super) is_swap: bool,
    /// Whether entries are pushed to it, or else announced.
    pub(super) is_eager: bool,
    /// When it pushed something new last.
    pub(super) useful_at: Option<Instant>,
    /// Since when it is to push nothing.
    pub(super) pruned_at: Option<Instant>,
    /// When it was told so last.
    pub(super) prune_sent_at: Option<Instant>,
    /// What is to be announced.
    pub(super) queue: Vec<ShortId>,
    /// The entry that it was asked for last, until it comes.
    pub(super) asked: Option<(ShortId, Instant)>,
    /// From a request to the arrival of the entry, smoothed.
    answer: Duration,
    pub(super) rates: Rates,
}

impl Peer {
    pub(super) fn new(addr: PeerAddr, stage: Stage) -> Self {
        Self {
            addr,
            stage,
            is_swap: false,
            is_eager: true,
            useful_at: None,
            pruned_at: None,
            prune_sent_at: None,
            queue: Vec::new(),
            asked: None,
            answer: ANSWER_FIRST,
            rates: Rates::default(),
        }
    }

    pub(super) fn is_active(&self) -> bool {
        self.stage == Stage::Active
    }

    /// Pushes to it, and expects that it pushes, from this moment on.
    pub(super) fn make_eager(&mut self) {
        self.is_eager = true;
        self.pruned_at = None;
        self.prune_sent_at = None;
    }

    /// How long to wait for an entry that it was asked for.
    pub(super) fn wait(&self) -> Duration {
        (self.answer * 3 / 2 + Duration::from_millis(50)).clamp(WAIT_MIN, WAIT_MAX)
    }

    /// An entry came from it. Returns whether it answers the last request.
    pub(super) fn arrived(&mut self, now: Instant, id: ShortId) -> bool {
        let Some((_, since)) = self.asked.take_if(|(asked, _)| *asked == id) else { return false };
        self.answer = (self.answer * 3 + (now - since).min(WAIT_MAX)) / 4;
        true
    }
}

/// How much a peer may say. An honest one announces twenty times a second at most, shuffles twice
/// a minute, and asks to be a neighbour a few times.
#[derive(Debug)]
pub(super) struct Rates {
    all: TokenBucket,
    neighbor: TokenBucket,
    shuffle: TokenBucket,
    prune: TokenBucket,
    ids: TokenBucket,
    /// Bytes that grafts make this node send.
    pub(super) grafted: TokenBucket,
    /// Duplicates.
    pub(super) duplicates: TokenBucket,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            all: TokenBucket::new(100, 300),
            neighbor: TokenBucket::new(4, 6 * RARE),
            shuffle: TokenBucket::new(1, 4 * RARE),
            prune: TokenBucket::new(10, 100),
            ids: TokenBucket::new(1_000, 2_000),
            grafted: TokenBucket::new(1 << 20, 8 << 20),
            duplicates: TokenBucket::new(50, 200),
        }
    }
}

impl Rates {
    /// Whether a message is within what the peer may say.
    pub(super) fn allows(&mut self, now: Instant, message: &GossipMessage) -> bool {
        let is_kind_allowed = match message {
            GossipMessage::Neighbor { .. }
            | GossipMessage::Neighbored { .. }
            | GossipMessage::Parted => self.neighbor.try_take(now, RARE),
            GossipMessage::Shuffle(_) | GossipMessage::Shuffled(_) => {
                self.shuffle.try_take(now, RARE)
            }
            GossipMessage::Have(ids) | GossipMessage::Graft(ids) => {
                self.ids.try_take(now, ids.len() as u64)
            }
            GossipMessage::Prune => self.prune.try_take(now, 1),
        };
        self.all.try_take(now, 1) && is_kind_allowed
    }
}
