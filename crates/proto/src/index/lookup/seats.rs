//! Seats among those whom a look-up knows: they keep the records of a whole region.
//!
//! A seat is asked before others, however far from the key it stands: first those that this node
//! is linked to, wherever they hold their seats, for they name those of the key's region; then
//! these. While they do what they are for, few requests are under way. That a peer holds a seat is
//! only the word of who named it, so little is staked on it: of each path a few are asked, and as
//! soon as one of them is late, fails or does not have what is looked for, the look-up goes on with
//! all slots as if there were none.

use super::known::{Known, State};
use super::{Lookup, Purpose};
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::key::Distance;
use crate::wire::index::SEATS_NAMED_MAX;

/// Seats of one path at most: one that it begins with, and those of one answer.
const SEATS_PER_PATH: usize = 1 + SEATS_NAMED_MAX;

/// Peers by whose word a seat is believed to be one.
const BELIEVED: u8 = 2;

/// Seats that gave what another one does not have, for that to be an omission.
const WITNESSES: usize = 2;

/// Which seat a peer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// One of the region of the key: it keeps what is looked for.
    Here,
    /// One of another region: it knows who holds those.
    Elsewhere,
}

/// A peer that holds a seat, or is said to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seated {
    distance: Distance,
    seat: Seat,
    /// Peers that say so; enough of them to be believed if this node knows it.
    named: u8,
}

impl Seated {
    pub(super) fn ours(distance: Distance, seat: Seat) -> Self {
        Self { distance, seat, named: BELIEVED }
    }

    pub(super) fn distance(&self) -> &Distance {
        &self.distance
    }

    fn is_believed(&self) -> bool {
        self.seat == Seat::Here && self.named >= BELIEVED
    }
}

impl Lookup {
    /// Somebody who answered said that a peer, which it named, holds a seat of the key's region.
    pub fn set_seat(&mut self, id: NodeId) {
        let distance = self.distance(id);
        let Some(path) = self.known.get(&distance).map(|known| known.path) else { return };
        if let Some(seated) = self.seats.iter_mut().find(|seated| seated.distance == distance) {
            seated.seat = Seat::Here;
            seated.named = seated.named.saturating_add(1);
        } else if self.seated().filter(|(_, known)| known.path == path).count() < SEATS_PER_PATH {
            self.seats.push(Seated { distance, seat: Seat::Here, named: 1 });
        }
    }

    /// The seats of the key's region, first those that most peers named.
    #[must_use]
    pub fn seats(&self) -> Vec<PeerAddr> {
        let here = |(seated, _): &(&Seated, &Known)| seated.seat == Seat::Here;
        let mut seats: Vec<_> = self.seated().filter(here).collect();
        seats.sort_by_key(|(seated, _)| core::cmp::Reverse(seated.named));
        seats.into_iter().map(|(_, known)| known.peer.clone()).collect()
    }

    /// How many seats of the key's region are known to this node or were named by several peers.
    #[must_use]
    pub fn seats_believed(&self) -> usize {
        self.seats.iter().filter(|seated| seated.is_believed()).count()
    }

    /// Seats of the key's region that answered without the records which others of them gave.
    #[must_use]
    pub fn omitting(&self) -> Vec<NodeId> {
        let (mut with, mut without) = (0, Vec::new());
        for (_, known) in self.seated().filter(|(seated, _)| seated.is_believed()) {
            match known.state {
                State::Answered { has_records: true, .. } => with += 1,
                State::Answered { .. } => without.push(known.peer.id),
                _ => {}
            }
        }
        if with < WITNESSES {
            without.clear();
        }
        without
    }

    /// Whether a peer's word that it serves another one is as good as that one's answer.
    pub(super) fn vouches(&self, distance: &Distance) -> bool {
        let is_it = |seated: &&Seated| seated.distance == *distance;
        self.config.vouches && self.seats.iter().find(is_it).is_some_and(Seated::is_believed)
    }

    /// Somebody is there by the word of who knows.
    pub(super) fn vouch(&mut self, distance: &Distance) {
        if let Some(known) = self.known.get_mut(distance)
            && known.state == State::Waiting
            && self.seats.iter().all(|seated| seated.distance != *distance)
        {
            known.state = State::Vouched;
        }
    }

    /// Requests that may be under way: a few while seats do what they are for, and no more than
    /// there are answers missing.
    pub(super) fn slots(&self) -> usize {
        let all = self.config.in_flight;
        let (mut hits, mut awaited) = (0, 0);
        for (seated, known) in self.seated() {
            match (known.state, seated.seat) {
                (State::Waiting | State::Asked { .. }, _) => awaited += 1,
                (State::Answered { is_hit: true, .. }, _) => hits += 1,
                (State::Answered { .. }, Seat::Elsewhere) | (State::Vouched, _) => {}
                (State::Answered { .. }, Seat::Here)
                | (State::Late { .. } | State::Silent { .. } | State::Failed, _) => return all,
            }
        }
        let (few, missing) = (self.config.in_flight_seats, self.config.enough.saturating_sub(hits));
        // When no seat is left to be asked, what they gave has to be nearly enough.
        let is_served = awaited > 0 || hits > 0 && missing <= few;
        if self.purpose == Purpose::Nodes || !is_served {
            return all;
        }
        few.min(missing).clamp(1, all)
    }

    /// The next seat to be asked that passes a test: of the path whose turn it is, or else of the
    /// next that has any.
    pub(super) fn next_seat(&self, passes: impl Fn(&Known) -> bool) -> Option<Distance> {
        let is_far = |known: &Known| self.purpose == Purpose::Nodes && !known.is_linked;
        let is_next = |(_, known): &(&Seated, &Known)| {
            let is_left = known.state == State::Waiting && !self.seeks(known.peer.id);
            is_left && !is_far(known) && passes(known)
        };
        let paths = self.config.paths;
        let turn = |known: &Known| {
            (usize::from(known.path) + paths - usize::from(self.next_path) % paths) % paths
        };
        let next = self.seated().filter(is_next);
        let next = next.min_by_key(|(_, known)| (!known.is_linked, turn(known)));
        next.map(|(seated, _)| seated.distance)
    }

    pub(super) fn is_seat(&self, distance: &Distance) -> bool {
        self.seats.iter().any(|seated| seated.distance == *distance)
    }

    fn seated(&self) -> impl Iterator<Item = (&Seated, &Known)> {
        self.seats.iter().filter_map(|seated| Some((seated, self.known.get(&seated.distance)?)))
    }
}
