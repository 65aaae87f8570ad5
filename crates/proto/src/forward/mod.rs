//! The relay role's data plane: which frame goes where, and how much of it.
//!
//! A relay forwards, for two peers that both hold an authenticated connection to it, UDP frames
//! (see [`crate::frame`]) without decrypting them. The idea is TURN's channel (RFC 8656 §12) with
//! peers in the place of addresses: a *channel* binds two (peer, source address) pairs, and each
//! side has a number of its own for it. Who may open one, and for how long, is for the node to
//! decide; this machine holds no reservations, but it enforces what was opened: the binding, the
//! expiry, and the owner's [`Allowance`], which is here because frames take the most of it.
//!
//! Invariants:
//!
//! - A frame is accepted only from exactly the address bound to the side that its number names,
//!   and goes only to the bound address of the other side: never to an address from a frame.
//! - Frames that are refused cost neither rate nor budget, so strangers cannot use them up.
//! - What is forwarded never exceeds the allowance.
//! - `open` and its kin may allocate; `forward`, asked once per received batch, does not.
//!
//! The 16-bit nonce of a number keeps stale frames out of a reused slot; it is no secret. Someone
//! who forges a bound source address can spend the channel's budget, but inner packets are
//! authenticated by QUIC, end to end.

#[cfg(test)]
mod tests;

use core::net::SocketAddr;
use std::collections::{BTreeSet, VecDeque};

use rand_chacha::ChaCha8Rng;
use rand_core::Rng;

use crate::allowance::{Allowance, Spent};
use crate::egress::{canonical, is_unicast};
use crate::frame::Channel;
use crate::id::NodeId;
use crate::time::Instant;

/// Largest number of channels at once: two of the 65,536 slots for each.
pub const CHANNELS_LIMIT: usize = 1 << 15;

/// Bytes of the largest batch that a socket hands over at once (a UDP datagram's limit, which
/// GRO keeps); a burst below it would starve full batches for good.
pub const BATCH_BYTES_MAX: u64 = 65_536;

/// What the owner lends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardConfig {
    /// Bytes a second over all channels; 0 means that the role is off.
    pub rate_bytes_per_s: u64,
    /// Bytes that may pass at once after a pause; raised to [`BATCH_BYTES_MAX`].
    pub burst_bytes: u64,
    /// Bytes in each 24 hours over all channels, counted once; `u64::MAX` for no limit.
    pub bytes_per_day: u64,
    /// Channels (pairs of peers) at once; lowered to [`CHANNELS_LIMIT`].
    pub channels_max: usize,
}

impl Default for ForwardConfig {
    /// The role is off: it is lent by decision only.
    fn default() -> Self {
        Self {
            rate_bytes_per_s: 0,
            burst_bytes: 4 * BATCH_BYTES_MAX,
            bytes_per_day: u64::MAX,
            channels_max: 1024,
        }
    }
}

/// One side of a channel: a peer and the address that its connection has here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The peer, authenticated by its connection.
    pub peer: NodeId,
    /// The remote address of that connection's path, as validated.
    pub addr: SocketAddr,
}

/// The two numbers of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelPair {
    /// The number that side `a` sends with and receives on.
    pub a: Channel,
    /// The number that side `b` sends with and receives on.
    pub b: Channel,
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The address bound to the other side, canonical: IPv4 is never mapped into IPv6.
    pub to: SocketAddr,
    /// The number that the other side knows the channel by, for the outgoing header.
    pub channel: Channel,
}

/// Why a channel was not opened. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The owner lends no relay.
    #[error("this node does not relay; ask another one")]
    Off,
    /// All channels are in use.
    #[error("all channels are in use; try later or another relay")]
    Full,
    /// Both sides are one peer.
    #[error("a channel joins two different peers")]
    SamePeer,
    /// A side's address is none that a datagram can go to, or both are the same.
    #[error("an address of the channel cannot be sent to")]
    Unroutable,
}

/// Why a frame is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Drop {
    /// No channel has this number.
    #[error("unknown channel")]
    Unknown,
    /// The frame comes from another address than the one bound to its side.
    #[error("foreign source address")]
    Foreign,
    /// The channel's time is over.
    #[error("channel expired")]
    Expired,
    /// The owner's rate is used up.
    #[error("rate exceeded")]
    Rate,
    /// The owner's bytes for this day are used up.
    #[error("daily budget exceeded")]
    DayBudget,
}

/// What was done so far. Counters saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardStats {
    /// Channels open at this moment, expired ones included until they are removed.
    pub channels: usize,
    /// Frames forwarded.
    pub frames: u64,
    /// Bytes forwarded, as the caller counts them.
    pub bytes: u64,
    /// Frames dropped for [`Drop::Unknown`].
    pub unknown: u64,
    /// Frames dropped for [`Drop::Foreign`].
    pub foreign: u64,
    /// Frames dropped for [`Drop::Expired`].
    pub expired: u64,
    /// Frames dropped for [`Drop::Rate`].
    pub rate: u64,
    /// Frames dropped for [`Drop::DayBudget`].
    pub day_budget: u64,
}

/// What `forward` reads: one direction of a channel, whole, so that it is one look-up.
#[derive(Clone, Debug)]
struct Side {
    /// The source that frames must come from.
    from: SocketAddr,
    /// `from` of the other side.
    to: SocketAddr,
    expires: Instant,
    bytes: u64,
    /// The other side's number.
    out: Channel,
    nonce: u16,
    live: bool,
}

/// The relay role's table of channels.
#[derive(Debug)]
pub struct Forwarder {
    channels_max: usize,
    rng: ChaCha8Rng,
    allowance: Allowance,
    /// Pair `i` has its sides at `2i` and `2i + 1`. Grows up to `2 · channels_max`.
    sides: Vec<Side>,
    /// The peers of pair `i`; stale when its sides are not live.
    peers: Vec<[NodeId; 2]>,
    /// Pairs that are not live, longest free first, so that numbers return late.
    free: VecDeque<u16>,
    by_peer: BTreeSet<(NodeId, u16)>,
    by_expiry: BTreeSet<(Instant, u16)>,
    stats: ForwardStats,
}

impl Forwarder {
    /// Creates a forwarder without channels; `rng` draws the nonces of their numbers.
    #[must_use]
    pub fn new(config: &ForwardConfig, rng: ChaCha8Rng) -> Self {
        let ForwardConfig { rate_bytes_per_s, burst_bytes, bytes_per_day, channels_max } = *config;
        Self {
            channels_max: channels_max.min(CHANNELS_LIMIT),
            rng,
            allowance: Allowance::new(
                rate_bytes_per_s,
                burst_bytes.max(BATCH_BYTES_MAX),
                bytes_per_day,
            ),
            sides: Vec::new(),
            peers: Vec::new(),
            free: VecDeque::new(),
            by_peer: BTreeSet::new(),
            by_expiry: BTreeSet::new(),
            stats: ForwardStats::default(),
        }
    }

    /// Tells whether the owner lends the role at all.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.allowance.is_on()
    }

    /// What the owner lets this node serve; whatever else than frames is served takes it here.
    pub fn allowance(&mut self) -> &mut Allowance {
        &mut self.allowance
    }

    /// Opens a channel between `a` and `b` that lasts until `expires`.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing changed. Expired channels take room until [`Self::handle_timeout`].
    pub fn open(
        &mut self,
        a: Endpoint,
        b: Endpoint,
        expires: Instant,
    ) -> Result<ChannelPair, OpenError> {
        if !self.is_on() {
            return Err(OpenError::Off);
        }
        if a.peer == b.peer {
            return Err(OpenError::SamePeer);
        }
        let (from_a, from_b) = (canonical(a.addr), canonical(b.addr));
        if !is_unicast(from_a) || !is_unicast(from_b) || from_a == from_b {
            return Err(OpenError::Unroutable);
        }
        let pair = self.vacant_pair(from_a).ok_or(OpenError::Full)?;
        let numbers =
            ChannelPair { a: self.draw_number(pair, false), b: self.draw_number(pair, true) };
        let side = |from, to, out: Channel, own: Channel| Side {
            from,
            to,
            expires,
            bytes: 0,
            out,
            nonce: own.nonce(),
            live: true,
        };
        self.sides[side_index(pair, false)] = side(from_a, from_b, numbers.b, numbers.a);
        self.sides[side_index(pair, true)] = side(from_b, from_a, numbers.a, numbers.b);
        self.peers[usize::from(pair)] = [a.peer, b.peer];
        self.by_peer.insert((a.peer, pair));
        self.by_peer.insert((b.peer, pair));
        self.by_expiry.insert((expires, pair));
        Ok(numbers)
    }

    /// Lets the channel of `channel` last until `expires` if that is later than it does.
    ///
    /// Returns false if there is no such channel.
    pub fn extend(&mut self, channel: Channel, expires: Instant) -> bool {
        let Some(pair) = self.live_pair(channel) else { return false };
        let old = self.sides[side_index(pair, false)].expires;
        if expires > old {
            self.by_expiry.remove(&(old, pair));
            self.by_expiry.insert((expires, pair));
            self.sides[side_index(pair, false)].expires = expires;
            self.sides[side_index(pair, true)].expires = expires;
        }
        true
    }

    /// Closes both directions of the channel that has the number `channel` on either side.
    ///
    /// Returns false if there is no such channel.
    pub fn close(&mut self, channel: Channel) -> bool {
        let Some(pair) = self.live_pair(channel) else { return false };
        self.remove(pair);
        true
    }

    /// Closes every channel that `peer` is a side of, and returns how many those were.
    pub fn close_peer(&mut self, peer: NodeId) -> usize {
        let pairs = self.pairs_of(peer);
        for &pair in &pairs {
            self.remove(pair);
        }
        pairs.len()
    }

    /// Binds the sides of `peer` to `new`: those bound to `old`, or all of them without `old`.
    ///
    /// For a peer whose connection moved to another address, once QUIC has validated it. Returns
    /// how many sides moved; none to an address that [`Self::open`] would refuse.
    pub fn rebind(&mut self, peer: NodeId, old: Option<SocketAddr>, new: SocketAddr) -> usize {
        let (old, new) = (old.map(canonical), canonical(new));
        if !is_unicast(new) {
            return 0;
        }
        let mut moved = 0;
        for pair in self.pairs_of(peer) {
            let is_b = self.peers[usize::from(pair)][1] == peer;
            let (own, other) = (side_index(pair, is_b), side_index(pair, !is_b));
            let bound = self.sides[own].from;
            if old.is_none_or(|old| old == bound) && self.sides[other].from != new {
                self.sides[own].from = new;
                self.sides[other].to = new;
                moved += 1;
            }
        }
        moved
    }

    /// Decides on a batch of `frames` frames, `bytes` long in all, that came from one address
    /// with one channel number; all of them go to the hop, or none does.
    ///
    /// # Errors
    ///
    /// [`Drop`]: the frames are counted as dropped; no rate or budget was spent.
    #[inline]
    pub fn forward(
        &mut self,
        now: Instant,
        from: SocketAddr,
        channel: Channel,
        bytes: usize,
        frames: usize,
    ) -> Result<Hop, Drop> {
        let outcome = self.admit(now, from, channel, bytes as u64);
        let counter = match outcome {
            Ok(_) => &mut self.stats.frames,
            Err(Drop::Unknown) => &mut self.stats.unknown,
            Err(Drop::Foreign) => &mut self.stats.foreign,
            Err(Drop::Expired) => &mut self.stats.expired,
            Err(Drop::Rate) => &mut self.stats.rate,
            Err(Drop::DayBudget) => &mut self.stats.day_budget,
        };
        *counter = counter.saturating_add(frames as u64);
        outcome
    }

    /// Returns the bytes forwarded *from* the side that has the number `channel`.
    #[must_use]
    pub fn bytes_from(&self, channel: Channel) -> Option<u64> {
        let side = self.sides.get(usize::from(channel.slot()))?;
        (side.live && side.nonce == channel.nonce()).then_some(side.bytes)
    }

    /// Returns the counters.
    #[must_use]
    pub fn stats(&self) -> ForwardStats {
        ForwardStats { channels: self.by_expiry.len(), ..self.stats }
    }

    /// Removes the channels expired by `now`, and returns the numbers of both their sides.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Channel> {
        let mut removed = Vec::new();
        while let Some(&(expires, pair)) = self.by_expiry.first()
            && expires <= now
        {
            removed.extend([false, true].map(|is_b| self.sides[side_index(pair, is_b)].out));
            self.remove(pair);
        }
        removed
    }

    /// Returns when the next channel expires.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.by_expiry.first().map(|&(expires, _)| expires)
    }

    #[inline]
    fn admit(
        &mut self,
        now: Instant,
        from: SocketAddr,
        channel: Channel,
        bytes: u64,
    ) -> Result<Hop, Drop> {
        let side = self.sides.get_mut(usize::from(channel.slot())).ok_or(Drop::Unknown)?;
        if side.nonce != channel.nonce() || !side.live {
            return Err(Drop::Unknown);
        }
        if side.from != canonical(from) {
            return Err(Drop::Foreign);
        }
        if now >= side.expires {
            return Err(Drop::Expired);
        }
        self.allowance.take_for_frames(now, bytes).map_err(|spent| match spent {
            Spent::Rate => Drop::Rate,
            Spent::Day => Drop::DayBudget,
        })?;
        side.bytes = side.bytes.saturating_add(bytes);
        self.stats.bytes = self.stats.bytes.saturating_add(bytes);
        Ok(Hop { to: side.to, channel: side.out })
    }

    /// Returns a pair that is not live: a new one while the table may grow, so that numbers
    /// repeat as late as they can, or the one that has been free for longest.
    fn vacant_pair(&mut self, filler: SocketAddr) -> Option<u16> {
        let len = self.peers.len();
        if len >= self.channels_max {
            return self.free.pop_front();
        }
        let pair = u16::try_from(len).ok()?;
        let side = Side {
            from: filler,
            to: filler,
            expires: Instant::default(),
            bytes: 0,
            out: Channel::default(),
            nonce: 0,
            live: false,
        };
        self.sides.extend([side.clone(), side]);
        self.peers.push([NodeId::from_bytes([0; 32]); 2]);
        Some(pair)
    }

    /// Draws a number for a side; its nonce differs from the one that the slot had before.
    fn draw_number(&mut self, pair: u16, is_b: bool) -> Channel {
        let slot = pair * 2 + u16::from(is_b);
        let last = self.sides[usize::from(slot)].nonce;
        let [a, b, c, d] = self.rng.next_u32().to_be_bytes();
        let (first, second) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let nonce = if first != last { first } else { last.wrapping_add(second.max(1)) };
        Channel::from_parts(slot, nonce)
    }

    fn live_pair(&self, channel: Channel) -> Option<u16> {
        let side = self.sides.get(usize::from(channel.slot()))?;
        (side.live && side.nonce == channel.nonce()).then_some(channel.slot() / 2)
    }

    fn pairs_of(&self, peer: NodeId) -> Vec<u16> {
        self.by_peer.range((peer, 0)..=(peer, u16::MAX)).map(|&(_, pair)| pair).collect()
    }

    fn remove(&mut self, pair: u16) {
        let expires = self.sides[side_index(pair, false)].expires;
        self.sides[side_index(pair, false)].live = false;
        self.sides[side_index(pair, true)].live = false;
        for peer in self.peers[usize::from(pair)] {
            self.by_peer.remove(&(peer, pair));
        }
        self.by_expiry.remove(&(expires, pair));
        self.free.push_back(pair);
    }
}

const fn side_index(pair: u16, is_b: bool) -> usize {
    pair as usize * 2 + is_b as usize
}
