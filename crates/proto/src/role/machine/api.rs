//! What goes into the machine of roles and comes out of it.

use core::time::Duration;
use std::net::IpAddr;

use bytes::Bytes;

use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::key::Key;
use crate::record::Verify;
use crate::role::{MandateError, Region, puzzle};
use crate::wire::RoleMessage;

/// The owner's will, and how long everything takes.
#[derive(Debug, Clone)]
pub struct RoleConfig {
    /// Whether this node lends itself at the start.
    pub serves: bool,
    /// Bytes a second that it lends at most: a power of two.
    pub capacity_log2: u8,
    /// How long an epoch is: the same in the whole network.
    pub epoch: Duration,
    /// How far calendars may differ.
    pub skew: Duration,
    /// From the beginning of an epoch, the time in which candidates of the next apply.
    pub applying: Duration,
    /// The end of an epoch, in whose first half electors look at those who applied.
    pub probing: Duration,
    /// How long a node is up before it stands for an ordinary seat.
    pub uptime_min: Duration,
    /// How long a seat that is lent at once lasts: the same in the whole network.
    pub acting: Duration,
    /// How long electors of such a seat wait for others to apply.
    pub gather: Duration,
    /// Pause between beats of a seat.
    pub beat: Duration,
    /// First pause before seats are asked for again when none was named; it grows up to a minute.
    pub ask: Duration,
    /// Seats that a node keeps as homes.
    pub homes: usize,
    /// How signatures are verified.
    pub verify: Verify,
    /// Whether a nonce solves the puzzle of an identity in a network.
    pub is_solved: fn(&str, NodeId, u64) -> bool,
}

impl RoleConfig {
    /// The defaults with shorter epochs: all that follows from them is shortened with them, as far
    /// as what takes real time (to be reached, to punch) leaves room. Whoever has another epoch
    /// than the rest of its network neither votes with it nor believes its mandates.
    #[must_use]
    pub fn with_epoch(epoch: Duration) -> Self {
        let least = Duration::from_secs(30);
        let all = Self::default();
        Self {
            epoch,
            skew: all.skew.min(epoch / 3),
            applying: all.applying.min(epoch / 6),
            probing: all.probing.min((epoch / 5).max(least)).min(epoch / 2),
            uptime_min: all.uptime_min.min(epoch / 10),
            acting: all.acting.min((epoch / 6).max(least)),
            ..all
        }
    }
}

impl Default for RoleConfig {
    fn default() -> Self {
        Self {
            serves: true,
            // A megabit: what any home line carries upwards.
            capacity_log2: 17,
            epoch: Duration::from_secs(3600),
            skew: Duration::from_secs(600),
            applying: Duration::from_secs(300),
            probing: Duration::from_secs(360),
            uptime_min: Duration::from_secs(180),
            // Renewing it costs a look-up and votes, and leaves are shown the new mandate: at five
            // minutes that was a third of all control traffic of a network that is new.
            acting: Duration::from_secs(900),
            gather: Duration::from_secs(2),
            beat: Duration::from_secs(5),
            ask: Duration::from_secs(2),
            homes: 3,
            verify: NodeId::verify,
            is_solved: puzzle::is_solved,
        }
    }
}

/// A linked peer as the node sees it.
#[derive(Debug, Clone)]
pub(crate) struct PeerView {
    /// Who, and where others reach it.
    pub(crate) contact: PeerAddr,
    /// Where it is seen, if that is on the internet and nobody is between.
    pub(crate) ip: Option<IpAddr>,
}

/// What the owner is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// This node has a seat, or has none.
    Seat(Option<(Region, bool)>),
    /// A peer serves us as a seat of our region, or stopped to.
    Home {
        /// The peer.
        peer: NodeId,
        /// Whether it does.
        held: bool,
    },
    /// A peer showed a mandate that is not valid.
    Void {
        /// The peer.
        peer: NodeId,
        /// Why.
        why: MandateError,
    },
    /// A seat was removed by reports.
    Removed(NodeId),
}

/// What the machine wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// Send to a peer that is linked.
    Send(NodeId, RoleMessage),
    /// Reach a peer once; report `peer_up` or `unreachable`.
    Reach(PeerAddr),
    /// See whether a peer is reached directly as any other node would; report `probed`.
    Probe(PeerAddr),
    /// The link to a peer is to last, or need not.
    Keep(NodeId, bool),
    /// Find the nodes nearest to a key; report `nearest`.
    Nearest {
        /// Named in the report.
        tag: u64,
        /// The key.
        key: Key,
        /// How many.
        count: usize,
    },
    /// Our seat: of which region, and whether it serves.
    Seat(Option<(Region, bool)>),
    /// The verified seats of our region.
    Seats(Region, Vec<PeerAddr>),
    /// To be on disk for the next run, in the place of what was.
    Persist(Bytes),
    /// For the owner.
    Event(Event),
}

/// Roles at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RoleStats {
    /// Our seat: of which region, and whether it serves.
    pub seat: Option<(Region, bool)>,
    /// Votes of the mandate.
    pub votes: usize,
    /// Capacities that electors measured: powers of two of bytes a second.
    pub measured_log2: Vec<u8>,
    /// When the mandate ends, in seconds since 1970.
    pub expires_s: u64,
    /// Whether it is a seat for minutes.
    pub is_acting: bool,
    /// Our place among the seats of the region that we know, from 0.
    pub rank: Option<usize>,
    /// Seats that serve us.
    pub homes: Vec<NodeId>,
    /// Verified seats of our region that are there.
    pub seats_known: usize,
    /// How much of what the owner allows is taken, as it is told others: 0 to 255.
    pub load: u8,
    /// Bits that fix a region.
    pub bits: u8,
    /// Votes given since the start.
    pub votes_given: u64,
    /// Whether our puzzle is solved.
    pub is_solved: bool,
}
