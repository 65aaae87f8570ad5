//! Seats: who keeps all records of a region of the key space ([`crate::role`]), as far as we know.
//!
//! The role machine tells which region we hold a seat of, and which seats it has verified: those of
//! our own region mostly, a leaf's homes among them. They are asked before others and named to who
//! asks ([`lookup`](super::lookup), `serve`), get what is stored (`store`), and are offered what
//! they should keep (`sync`). A seat that is asked for a key of a region of which it knows no seats
//! answers as anybody would, and asks a node of that region who they are.
//!
//! Where no seats are known none of this happens, and the floor does everything. Invariants: of one
//! key at most one region is known; what a peer says takes the place of nothing that was verified;
//! regions, seats of each, and requests for more are bounded.

use core::time::Duration;

use super::job::{Goal, JobId};
use super::lookup::{Candidate, Seat};
use super::table::{Entry, Packed, draw};
use super::{Index, Output, Timer, sync};
use crate::flat::FlatMap;
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::key::Key;
use crate::role::{ACTIVE, REGION_BITS_MAX, Region, STANDBY};
use crate::time::Instant;
use crate::wire::index::{Found, RecordKind, SEATS_NAMED_MAX};
use crate::wire::node::HOMES_MAX;

/// Regions of which seats are known: those of four million nodes.
const REGIONS_MAX: usize = 4096;

/// Seats known of a region: all that there are.
const SEATS_MAX: usize = ACTIVE + STANDBY;

/// How long a peer's word of a region's seats is passed on until another is asked for its. Most
/// seats are held for hours.
const HINT: Duration = Duration::from_secs(3600);

/// Pause between attempts to learn the seats of a region.
const LEARN_PAUSE: Duration = Duration::from_secs(60);

/// Regions whose seats are learned at a time.
const LEARNING_MAX: usize = 4;

/// Age from which a record is with all seats of its region, clocks that differ and offers that were
/// lost allowed for: younger ones are no seat's omission.
const SPREAD: Duration = Duration::from_secs(600);

/// What is known of a region.
#[derive(Debug)]
pub(super) struct Regional {
    seats: Vec<(NodeId, Packed)>,
    /// When a peer was asked for them; `None` if they were verified.
    hinted: Option<Instant>,
    used: Instant,
}

/// The seats that this node knows, and its own.
#[derive(Debug)]
pub(super) struct Seats {
    own: Key,
    held: Option<Region>,
    /// No two of them overlap.
    pub(super) regions: FlatMap<Region, Box<Regional>>,
}

impl Seats {
    pub(super) fn new(own: Key) -> Self {
        Self { own, held: None, regions: FlatMap::new() }
    }

    /// The region that we hold a seat of.
    pub(super) fn held(&self) -> Option<Region> {
        self.held
    }

    fn region_of(&self, key: &Key) -> Option<(Region, &Regional)> {
        // Whatever lies between would overlap it.
        let (region, known) = self.regions.last_until(&Region::of(key, REGION_BITS_MAX))?;
        region.contains(key).then_some((*region, known))
    }

    /// The known seats of the region of a key.
    fn of(&self, key: &Key) -> &[(NodeId, Packed)] {
        self.region_of(key).map_or(&[], |(_, known)| &known.seats)
    }

    /// Where a seat of the region of a key is.
    pub(super) fn contact(&self, key: &Key, id: NodeId) -> Option<PeerAddr> {
        let seat = self.of(key).iter().find(|(seat, _)| *seat == id);
        seat.map(|(id, contact)| contact.contact(*id))
    }

    /// Our own region, if a peer holds a seat of it as far as we know.
    pub(super) fn shared_with(&self, id: NodeId) -> Option<Region> {
        let (region, known) = self.region_of(&self.own)?;
        known.seats.iter().any(|(seat, _)| *seat == id).then_some(region)
    }

    /// Which seat a peer holds, seen from a key that is looked up.
    pub(super) fn seat(&self, id: NodeId, target: &Key) -> Option<Seat> {
        if self.of(target).iter().any(|(seat, _)| *seat == id) {
            return Some(Seat::Here);
        }
        self.shared_with(id).map(|_| Seat::Elsewhere)
    }

    /// Whether so many seats keep what is at a key that fewer others have to. What peers merely
    /// say does not count: adversaries who call each other seats would halve the copies of others.
    pub(super) fn are_enough(&self, key: &Key) -> bool {
        let verified = self.region_of(key).filter(|(_, known)| known.hinted.is_none());
        let ours = self.held.is_some_and(|held| held.contains(key));
        verified.map_or(0, |(_, known)| known.seats.len()) + usize::from(ours) >= HOMES_MAX
    }

    /// Takes in the seats of a region; none of it are known if the list is empty and verified.
    pub(super) fn set(
        &mut self,
        now: Instant,
        region: Region,
        seats: &[PeerAddr],
        hinted: Option<Instant>,
    ) {
        let overlaps = |other: &Region| other.covers(region) || region.covers(*other);
        if hinted.is_some() && self.has_verified(overlaps) {
            return;
        }
        self.regions.retain(|other, _| !overlaps(other));
        if seats.is_empty() && hinted.is_none() {
            return;
        }
        if self.regions.len() >= REGIONS_MAX {
            let worth = |known: &Regional| (known.hinted.is_none(), known.used);
            let least = self.regions.iter().min_by_key(|(_, known)| worth(known));
            if let Some(least) = least.map(|(region, _)| *region) {
                self.regions.remove(&least);
            }
        }
        let seats = seats.iter().take(SEATS_MAX).map(|peer| (peer.id, Packed::new(peer))).collect();
        self.regions.insert(region, Box::new(Regional { seats, hinted, used: now }));
    }

    fn has_verified(&self, is_meant: impl Fn(&Region) -> bool) -> bool {
        self.regions.iter().any(|(region, known)| is_meant(region) && known.hinted.is_none())
    }

    /// Whether it is time to ask who holds the seats of the region of a key.
    fn is_wanting(&self, now: Instant, key: &Key) -> bool {
        self.region_of(key).is_none_or(|(_, known)| {
            let pause = if known.seats.is_empty() { LEARN_PAUSE } else { HINT };
            known.hinted.is_some_and(|at| now - at >= pause)
        })
    }

    /// Notes that somebody is asked who holds the seats of a region; false if there is no place for
    /// what it says.
    fn asked(&mut self, now: Instant, region: Region) -> bool {
        if let Some(known) = self.regions.get_mut(&region) {
            known.hinted = Some(now);
        } else {
            self.set(now, region, &[], Some(now));
        }
        self.regions.contains_key(&region)
    }
}

impl Index {
    /// We hold a seat, active or standing by, of this region, or of none: then we keep all records
    /// of the region, as far as others offer them.
    pub(crate) fn set_seat(&mut self, now: Instant, region: Option<Region>) {
        if self.seats.held == region {
            return;
        }
        self.seats.held = region;
        // Fellow seats are offered what we have, which is little, and offer what they have.
        let fellows: Vec<_> =
            self.linked.keys().copied().filter(|id| self.is_fellow(*id)).collect();
        self.sync_anew(now, &fellows);
    }

    /// The verified seats of a region, without ourselves, in the place of those known before.
    pub(crate) fn set_seats(&mut self, now: Instant, region: Region, seats: &[PeerAddr]) {
        let is_known = |peer: &PeerAddr| self.seats.shared_with(peer.id) == Some(region);
        let ours = |id: &NodeId| sync::rank(&Key::of_node(*id), self.id);
        let mut new: Vec<_> =
            seats.iter().filter(|peer| !is_known(peer)).map(|peer| peer.id).collect();
        self.seats.set(now, region, seats, None);
        if !region.contains(&self.key) {
            return;
        }
        // Of the fellows of a new seat two offer it what the region has: to all of them it would
        // have to listen to the same a dozen times. A leaf offers a new home what it keeps.
        let offers = |id: &NodeId| {
            let others = seats.iter().map(|peer| peer.id).filter(|other| other != id);
            let nearer = others.filter(|other| sync::rank(&Key::of_node(*id), *other) < ours(id));
            self.seats.held.is_none() || nearer.count() < sync::FELLOWS
        };
        new.retain(offers);
        self.sync_anew(now, &new);
    }

    /// Offers records anew to those of some peers that are linked. The others are offered them when
    /// they come.
    fn sync_anew(&mut self, now: Instant, peers: &[NodeId]) {
        for id in peers {
            if let Some(linked) = self.linked.get_mut(id) {
                (linked.is_synced, linked.last_offer) = (false, 0);
                self.timers.set_no_later(Timer::Sync, now + sync::SETTLE);
            }
        }
    }
}

impl Index {
    /// Whether a peer and we hold seats of the same region.
    pub(super) fn is_fellow(&self, id: NodeId) -> bool {
        self.seats.held.is_some() && self.seats.shared_with(id) == self.seats.held
    }

    /// Some seats of the region of a key, to be named to who asks for it.
    pub(super) fn draw_seats(&mut self, now: Instant, target: &Key, but: NodeId) -> Vec<NodeId> {
        let seats = self.seats.of(target).iter().map(|(id, _)| *id);
        let seats: Vec<_> = seats.filter(|id| *id != but).collect();
        if let Some((region, _)) = self.seats.region_of(target)
            && let Some(known) = self.seats.regions.get_mut(&region)
        {
            known.used = now;
        }
        draw(&seats, SEATS_NAMED_MAX, &mut self.rng)
    }

    /// Some seats of the region of a key that are not linked, to begin a look-up with.
    pub(super) fn start_seats(&mut self, now: Instant, target: &Key) -> Vec<Candidate> {
        let drawn = self.draw_seats(now, target, self.id);
        let unlinked = drawn.into_iter().filter(|id| !self.linked.contains_key(id));
        let candidate = |id| {
            let entry = self.table.get(id);
            Some(Candidate {
                peer: self.seats.contact(target, id)?,
                is_linked: false,
                rtt: entry.and_then(Entry::rtt),
                vias: Vec::new(),
                is_stale: entry.is_some_and(Entry::is_stale),
                seat: Some(Seat::Here),
            })
        };
        unlinked.filter_map(candidate).collect()
    }

    /// Asks a node of the region of a key who holds its seats, if we hold a seat ourselves and do
    /// not know it.
    pub(super) fn learn_seats(&mut self, now: Instant, target: &Key) {
        let Some(held) = self.seats.held.filter(|held| !held.contains(target)) else { return };
        let learning = |goal: &Goal| matches!(goal, Goal::Seats(_));
        if !self.seats.is_wanting(now, target)
            || self.jobs.values().filter(|job| learning(&job.goal)).count() >= LEARNING_MAX
        {
            return;
        }
        let region = Region::of(target, held.bits());
        if self.seats.asked(now, region) {
            self.begin(now, *target, Goal::Seats(region));
        }
    }

    /// Takes in which contacts of an answer are seats, as who answered has it.
    pub(super) fn take_seats(&mut self, now: Instant, id: JobId, found: &Found) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        for (at, contact) in found.contacts.iter().enumerate() {
            if found.seats >> at & 1 == 1 {
                job.lookup.set_seat(contact.id);
            }
        }
        if let Goal::Seats(region) = job.goal {
            let mut seats = job.lookup.seats();
            // Who holds a seat of a region stands in it.
            seats.retain(|peer| region.contains(&Key::of_node(peer.id)));
            if !seats.is_empty() {
                self.end_job(id);
                self.seats.set(now, region, &seats, Some(now));
            }
        }
        self.spare(id);
    }

    /// Reports seats that did not have what others of them gave in a look-up that has ended. Not of
    /// records of nodes, which a seat gets when they are stored anew.
    pub(super) fn report_omissions(&mut self, now: Instant, id: JobId) {
        let (Some(unix), Some(job)) = (self.unix(now), self.jobs.get(&id)) else { return };
        let Goal::Find { found, kind, .. } = &job.goal else { return };
        if *kind == RecordKind::Node {
            return;
        }
        let is_spread = |ms: &u64| ms / 1000 + SPREAD.as_secs() <= unix.as_secs();
        if found.values().any(is_spread) {
            let key = job.target;
            let omissions = job.lookup.omitting().into_iter();
            self.outputs.extend(omissions.map(|seat| Output::Omission { seat, key }));
        }
    }
}
