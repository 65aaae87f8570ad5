//! Regions of the key space, how many there are, and how many seats and electors each has.

use core::fmt;

use crate::id::NodeId;
use crate::key::{Distance, Key};

/// Most leading bits that a region may fix: with a thousand nodes in each there are more nodes than
/// the network will have.
pub const REGION_BITS_MAX: u8 = 32;

/// Nodes of a region above which it is split. Estimates of neighbours differ by a third, and nodes
/// that cut the key space differently are no help to each other, so this is half as much again as
/// would be wanted.
const SPLIT: f64 = 2304.0;

/// Nodes of a region below which it is merged with the other half of what was split. Much less than
/// half of [`SPLIT`], so that a region that was just split is not merged again.
const MERGE: f64 = 427.0;

/// Electors of a region, where there are so many nodes.
pub const ELECTORS: usize = 32;

/// Seats of a region that serve, where there are enough nodes.
pub const ACTIVE: usize = 8;

/// Seats of a region that wait to take the place of one that is lost.
pub const STANDBY: usize = 4;

/// Votes for a seat that is lent for a few minutes, of [`ELECTORS`].
const ACTING_VOTES: usize = 10;

/// Nodes below which nobody is elected: the floor does everything.
const NODES_MIN: f64 = 4.0;

/// All keys that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region {
    /// These bits, and zeros behind them.
    prefix: u32,
    bits: u8,
}

impl Region {
    /// The whole key space.
    pub const ALL: Self = Self { prefix: 0, bits: 0 };

    /// The region of `bits` leading bits that holds a key; of [`REGION_BITS_MAX`] if that is less.
    #[must_use]
    pub fn of(key: &Key, bits: u8) -> Self {
        let lead = key.as_bytes().iter().take(4).fold(0, |n, byte| n << 8 | u32::from(*byte));
        let bits = bits.min(REGION_BITS_MAX);
        Self { prefix: lead & mask(bits), bits }
    }

    /// The region of `bits` leading bits in which a node stands.
    #[must_use]
    pub fn of_node(id: NodeId, bits: u8) -> Self {
        Self::of(&Key::of_node(id), bits)
    }

    /// One that somebody named: `None` if it fixes too many bits, or if bits behind those are set.
    #[must_use]
    pub fn from_parts(prefix: u32, bits: u8) -> Option<Self> {
        (bits <= REGION_BITS_MAX && prefix & !mask(bits) == 0).then_some(Self { prefix, bits })
    }

    /// Its leading bits, and zeros behind them.
    #[must_use]
    pub fn prefix(self) -> u32 {
        self.prefix
    }

    /// How many leading bits it fixes.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// Whether a key is in it.
    #[must_use]
    pub fn contains(self, key: &Key) -> bool {
        Self::of(key, self.bits) == self
    }

    /// Whether every key of `other` is in it.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.bits <= other.bits && other.prefix & mask(self.bits) == self.prefix
    }

    /// Its share of the key space.
    #[must_use]
    pub fn share(self) -> f64 {
        2f64.powi(-i32::from(self.bits))
    }
}

impl fmt::Display for Region {
    /// Its bits, `*` for the whole space.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for bit in 0..self.bits {
            f.write_str(if self.prefix >> (31 - bit) & 1 == 1 { "1" } else { "0" })?;
        }
        f.write_str("*")
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn mask(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

/// How many bits regions have, as one node sees it: it follows the estimated size of the network,
/// with hysteresis, so that an estimate that wavers changes nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth(u8);

impl Depth {
    /// As others have it: what a newcomer begins with.
    #[must_use]
    pub fn new(bits: u8) -> Self {
        Self(bits.min(REGION_BITS_MAX))
    }

    /// How many bits.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether a network of so many nodes may have such regions.
    #[must_use]
    pub fn fits(mut self, nodes: f64) -> bool {
        !self.update(nodes)
    }

    /// The network is estimated to have so many nodes. Tells whether regions changed.
    pub fn update(&mut self, nodes: f64) -> bool {
        let before = *self;
        while nodes * 0.5f64.powi(self.0.into()) > SPLIT && self.0 < REGION_BITS_MAX {
            self.0 += 1;
        }
        while nodes * 0.5f64.powi(self.0.into()) < MERGE && self.0 > 0 {
            self.0 -= 1;
        }
        *self != before
    }
}

/// How many electors, votes and seats there are, by the size of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Who may vote.
    pub electors: usize,
    /// Seats that serve.
    pub active: usize,
    /// Seats that wait.
    pub standby: usize,
}

impl Plan {
    /// For a network of so many nodes, all together: of few nodes all but the candidate are
    /// electors, and an eighth are seats, three at least. `None` where nobody is elected.
    #[must_use]
    pub fn of(nodes: f64) -> Option<Self> {
        if nodes < NODES_MIN {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
        let nodes = nodes.round().min(1e6) as usize;
        let active = (nodes / 8).clamp(3, ACTIVE);
        Some(Self {
            electors: (nodes - 1).min(ELECTORS),
            active,
            standby: (active / 2).min(STANDBY),
        })
    }

    /// Votes that make a mandate, if so many electors were counted: a majority, two at least.
    #[must_use]
    pub fn quorum(electors: usize) -> usize {
        (electors / 2 + 1).max(2)
    }

    /// Votes that make one for a few minutes.
    #[must_use]
    pub fn acting_quorum(electors: usize) -> usize {
        (electors * ACTING_VOTES).div_ceil(ELECTORS).max(2)
    }
}

/// Radius around a point within which an elector of it is, if there are so many nodes: three times
/// that in which the electors are expected, as two nodes that count never agree quite. The whole
/// space where there are few.
#[must_use]
pub fn elector_radius(nodes: f64) -> Distance {
    Distance::of_fraction(3.0 * ELECTORS as f64 / nodes.max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_a_prefix() {
        let mut bytes = [0; 32];
        bytes[0] = 0b1011_0000;
        let key = Key::from_bytes(bytes);
        let region = Region::of(&key, 3);
        assert_eq!(region.to_string(), "101*");
        assert!(region.contains(&key) && Region::ALL.contains(&key));
        assert!(Region::of(&key, 2).covers(region) && !region.covers(Region::of(&key, 2)));
        assert_eq!(Region::from_parts(region.prefix(), 3), Some(region));
        assert_eq!(Region::from_parts(region.prefix(), 2), None);
        assert_eq!(Region::from_parts(0, REGION_BITS_MAX + 1), None);
        assert_eq!(Region::of(&key, 32).prefix(), 0xb000_0000);
        assert!((region.share() - 0.125).abs() < 1e-9);
    }

    #[test]
    fn regions_split_and_merge_with_hysteresis() {
        let mut depth = Depth::default();
        assert!(!depth.update(2300.0), "an estimate that is off by a half changes nothing");
        assert!(depth.update(2310.0) && depth.bits() == 1);
        assert!(!depth.update(1000.0), "it was split at more than that, but is not merged yet");
        assert!(depth.update(850.0) && depth.bits() == 0);
        assert!(depth.update(100_000.0) && depth.bits() == 6);
        assert!(Depth::new(0).fits(2000.0) && Depth::new(1).fits(2000.0));
        assert!(!Depth::new(2).fits(1700.0));
    }

    #[test]
    fn small_networks_have_fewer_seats() {
        assert_eq!(Plan::of(3.0), None);
        assert_eq!(Plan::of(4.0), Some(Plan { electors: 3, active: 3, standby: 1 }));
        assert_eq!(Plan::of(24.0), Some(Plan { electors: 23, active: 3, standby: 1 }));
        assert_eq!(Plan::of(1e5), Some(Plan { electors: 32, active: 8, standby: 4 }));
        assert_eq!([2, 3, 23, 32].map(Plan::quorum), [2, 2, 12, 17]);
        assert_eq!([3, 32].map(Plan::acting_quorum), [2, 10]);
    }
}
