//! Whom a look-up asks next.
//!
//! A candidate is worth asking if it is within the region, or if fewer than `k` live ones are
//! nearer to the key. Both rules have an exception for a crowd of Sybils:
//!
//! - Nodes lie evenly, so up to a distance of `d` about `k · d / radius` are expected. Of those
//!   that
//!   are nearer than `d`, no more than twice as many and three are counted. Sybils crowded around
//!   the key therefore count as a handful, and honest peers behind them go on being asked, inside
//!   the region and outside.
//! - A region of more than `2k` is crowded. It is cut into slices of equal width, and whoever is of
//!   the slice of which fewest were asked goes first; of the whole region `4k` are asked at most.
//!
//! Of those worth asking, the nearest goes first; among those with about as many bits in common
//! with the key, those that cost least to reach.

use super::known::{Known, State};
use super::{Lookup, PATHS_MAX, Purpose};
use crate::key::{Distance, Key};

/// Slices of the region.
const SLICES: usize = 16;

/// A region is crowded beyond so many times `k`.
const CROWDED: usize = 2;

/// At most so many times `k` of a region are asked.
const REGION_ASKED: usize = 4;

/// The region as it is known.
struct Region {
    /// Asked in each slice, and outside of the region.
    asked: [usize; SLICES + 1],
    is_crowded: bool,
    is_exhausted: bool,
}

/// A candidate for a slot.
#[derive(Clone, Copy)]
struct Pick {
    distance: Distance,
    /// Bits that the nearest candidate of the path has in common with the target.
    bits: u32,
    load: usize,
    class: u8,
}

impl Lookup {
    /// The next to be asked of those worth it that pass a test: of the path whose turn it is, or
    /// else of the next that has any.
    pub(super) fn choose(&self, passes: impl Fn(&Known) -> bool) -> Option<Distance> {
        let region = self.region();
        let mut picks = [None; PATHS_MAX];
        let mut nearer = 0.0_f64;
        for (distance, known) in &self.known {
            let is_inside = self.is_in_region(distance);
            if !is_inside && nearer >= self.config.k as f64 {
                break;
            }
            if self.seeks(known.peer.id) {
                continue;
            }
            let is_worth = nearer < self.config.k as f64 || is_inside;
            let is_left = !is_inside || !region.is_exhausted;
            if known.state == State::Waiting && is_worth && is_left && passes(known) {
                let bits = distance.leading_zeros();
                let load = if region.is_crowded { region.asked[self.slice(distance)] } else { 0 };
                let pick = Pick { distance: *distance, bits, load, class: class(known) };
                let best = &mut picks[usize::from(known.path) % PATHS_MAX];
                *best = Some(best.map_or(pick, |best: Pick| best.or(pick)));
            }
            if known.is_live() {
                nearer = self.count(nearer, distance);
            }
        }
        let paths = self.config.paths;
        let turns = (0..paths).map(|turn| (usize::from(self.next_path) + turn) % paths);
        turns.filter_map(|path| picks[path]).map(|pick: Pick| pick.distance).next()
    }

    /// Makes room for one more candidate at `distance`, if it is worth more than another one.
    pub(super) fn make_room(&mut self, distance: &Distance) -> bool {
        let waiting = |(distance, known): &(&Distance, &Known)| {
            known.state == State::Waiting && !self.is_seat(distance)
        };
        let Some((farthest, _)) = self.known.iter().rev().find(waiting) else { return false };
        let mut victim = *farthest;
        if self.is_in_region(&victim) {
            // All are within the region: one of the fullest slice goes for one of another.
            let mut waits = [0; SLICES + 1];
            for (distance, _) in self.known.iter().filter(waiting) {
                waits[self.slice(distance)] += 1;
            }
            let fullest = (0..SLICES).max_by_key(|slice| waits[*slice]).unwrap_or_default();
            if !self.is_in_region(distance) || waits[self.slice(distance)] >= waits[fullest] {
                return false;
            }
            let of_it = |(distance, _): &(&Distance, &Known)| self.slice(distance) == fullest;
            let last = self.known.iter().rev().filter(waiting).find(of_it);
            victim = last.map_or(victim, |(distance, _)| *distance);
        } else if *distance >= victim {
            return false;
        }
        self.known.remove(&victim);
        true
    }

    /// The key to ask a peer for: the target, or, if it is in the region and all of the region is
    /// wanted, another point of the region for each (van der Corput's sequence: 0, 1/2, 1/4, 3/4,
    /// 1/8, …, each next one where there is most room).
    pub(super) fn point_for(&mut self, peer: &Distance) -> Key {
        let is_near = self.is_in_region(peer) || self.has_region() && self.is_seat(peer);
        if self.purpose != Purpose::Nodes || !is_near {
            return self.target;
        }
        let share = f64::from(self.points.reverse_bits()) / 2f64.powi(32);
        self.points = self.points.wrapping_add(1);
        let offset = share * self.config.region.fraction() * 2f64.powi(64);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        let offset = (offset as u64).to_be_bytes();
        let mut bytes = *self.target.as_bytes();
        bytes.iter_mut().zip(offset).for_each(|(byte, offset)| *byte ^= offset);
        Key::from_bytes(bytes)
    }

    pub(super) fn is_in_region(&self, distance: &Distance) -> bool {
        self.has_region() && *distance <= self.config.region
    }

    fn has_region(&self) -> bool {
        self.config.region != Distance::MAX
    }

    fn region(&self) -> Region {
        let mut region = Region { asked: [0; SLICES + 1], is_crowded: false, is_exhausted: false };
        let (mut live, mut asked) = (0, 0);
        for (_, known) in self.known.iter().take_while(|(distance, _)| self.is_in_region(distance))
        {
            live += usize::from(known.is_live());
            asked += usize::from(known.tries > 0);
        }
        region.is_exhausted = asked >= REGION_ASKED * self.config.k;
        region.is_crowded = live > CROWDED * self.config.k;
        if region.is_crowded {
            for (distance, _) in self.known.iter().filter(|(_, known)| known.tries > 0) {
                region.asked[self.slice(distance)] += 1;
            }
        }
        region
    }

    /// Which slice of the region a distance is in; [`SLICES`] outside.
    fn slice(&self, distance: &Distance) -> usize {
        let share = distance.fraction() / self.config.region.fraction().max(f64::MIN_POSITIVE);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bounded above"
        )]
        let slice = (share * SLICES as f64) as usize;
        match self.is_in_region(distance) {
            true => slice.min(SLICES - 1),
            false => SLICES,
        }
    }

    /// One more than `nearer` for a node at a distance, as far as so many are believed.
    pub(super) fn count(&self, nearer: f64, distance: &Distance) -> f64 {
        if !self.has_region() {
            return nearer + 1.0;
        }
        let share = distance.fraction() / self.config.region.fraction().max(f64::MIN_POSITIVE);
        (nearer + 1.0).min(2.0 * self.config.k as f64 * share + 3.0)
    }
}

impl Pick {
    /// The better one of this and one that is farther from the key, of the same path.
    fn or(self, farther: Self) -> Self {
        let is_about_as_near = farther.distance.leading_zeros() + 1 >= self.bits;
        let is_better = match farther.load.cmp(&self.load) {
            core::cmp::Ordering::Less => true,
            core::cmp::Ordering::Equal => is_about_as_near && farther.class < self.class,
            core::cmp::Ordering::Greater => false,
        };
        if is_better { Self { bits: self.bits, ..farther } } else { self }
    }
}

/// What it costs to reach a peer, least first.
fn class(known: &Known) -> u8 {
    match known {
        _ if known.is_linked => 0,
        _ if known.is_open() => 1,
        _ if !known.vias.is_empty() => 2,
        _ => 3,
    }
}
