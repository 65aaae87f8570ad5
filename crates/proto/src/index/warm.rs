//! Warm connections: to the nodes nearest to us and to some anywhere.
//!
//! They make the floor of the index: through them a node is found and signalled for by its
//! neighbours, behind whatever NAT, with no other role filled by anybody. The nearest ones change
//! as nodes come and go; the others stay until they are lost.

use core::time::Duration;
use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::job::Goal;
use super::table::Entry;
use super::{Index, Linked, Output, Timer};
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::key::Key;
use crate::time::Instant;

/// Time for changes that come together to be seen as one.
pub(super) const SETTLE: Duration = Duration::from_millis(500);

/// How long ago a peer of the table may have been heard from to be chosen as one of the nearest.
const RECENT: Duration = Duration::from_secs(1800);

/// Pause between looks at the choice while it is not complete.
const PAUSE: Duration = Duration::from_secs(10);

/// How long a peer that could not be reached is not tried again.
const COLD: Duration = Duration::from_secs(300);

/// How long a warm connection may take to be made.
const WARMING_MAX: Duration = Duration::from_secs(20);

/// Peers remembered as not to be reached.
const COLD_MAX: usize = 256;

/// Nodes around our own key by whose distance the size of the network is estimated. A table that no
/// look-up filled lacks some of those farther away, and an estimate by them is too low.
const SURROUNDINGS: usize = 8;

/// Warm connections being made at a time.
const WARMING_AT_A_TIME: usize = 4;

/// Look-ups at random keys that fill the table of a newcomer, besides the one at its own.
const FILL: u32 = 4;

/// Entries with which a table needs no filling.
const RICH: usize = 24;

/// Time for seats to be found before whoever knows many of the last run looks around: they name who
/// came near meanwhile.
const SURVEY_PAUSE: Duration = Duration::from_secs(5);

/// By how much rarer a table is looked after while seats know everybody.
const LEISURE: u32 = 4;

/// Pause between these. While the table is poor, it doubles after them.
const FILL_PAUSE: Duration = Duration::from_secs(3);

/// Most often: to hours.
const POOR_DOUBLINGS: u32 = 12;

impl Index {
    /// Whether the owner of this node is served by keeping the link to this peer.
    pub(crate) fn is_warm(&self, id: NodeId) -> bool {
        self.warm.contains(&id)
    }

    /// Whether a peer is one of the nearest to us that we know.
    pub(super) fn is_near(&self, now: Instant, id: NodeId) -> bool {
        let distance = Key::of_node(id).distance(&self.key);
        // Mostly as many are linked that are nearer.
        let is_nearer = |linked: &&Linked| {
            linked.serves
                && linked.key.distance(&self.key) < distance
                && !self.cold.contains_key(&linked.id)
        };
        let nearer = self.linked.values().map(|linked| &**linked).filter(is_nearer);
        if nearer.take(self.config.warm_near).count() == self.config.warm_near {
            return false;
        }
        let known = self.near_in_table(now);
        let farthest = known.last().map(|entry| entry.key().distance(&self.key));
        // Mostly the table knows enough that are nearer.
        let is_far = known.len() >= self.config.warm_near && farthest < Some(distance);
        !is_far && self.near(now).contains(&id)
    }

    /// The nearest of the table that were heard from lately. Of the others most are off: those of
    /// our neighbours that are there are linked, for they want us as we want them.
    fn near_in_table(&self, now: Instant) -> Vec<&Entry> {
        self.table.nearest_where(&self.key, self.config.warm_near, |entry| {
            self.is_heard(entry)
                && now - entry.seen() < RECENT
                && !self.cold.contains_key(&entry.id())
        })
    }

    /// Whether a peer was heard from in this run: of those of an earlier run most may be off.
    pub(super) fn is_heard(&self, entry: &Entry) -> bool {
        !entry.is_stale() && self.remembered.is_none_or(|at| entry.seen() > at)
    }

    /// The nearest peers that we know, linked or not, those that cannot be reached left out.
    pub(super) fn near(&self, now: Instant) -> BTreeSet<NodeId> {
        let wanted = self.config.warm_near;
        let mut near: Vec<_> = self
            .near_in_table(now)
            .into_iter()
            .map(|entry| (entry.key().distance(&self.key), entry.id()))
            .chain(
                self.linked
                    .values()
                    .filter(|linked| linked.serves)
                    .map(|linked| (linked.key.distance(&self.key), linked.id)),
            )
            .filter(|(_, id)| !self.cold.contains_key(id))
            .collect();
        near.sort_unstable();
        near.dedup();
        near.into_iter().take(wanted).map(|(_, id)| id).collect()
    }

    /// Estimates the size of the network from our own surroundings: from those that are there as
    /// soon as we looked around, before that from whom the last run knew, of whom some are off.
    fn observe_surroundings(&mut self, near: &BTreeSet<NodeId>) {
        let distance = |id: NodeId| Key::of_node(id).distance(&self.key);
        let mut distances: Vec<_> = if self.is_surveyed && near.len() == self.config.warm_near {
            near.iter().map(|id| distance(*id)).collect()
        } else {
            self.table.nearest(&self.key, SURROUNDINGS).iter().map(|it| distance(it.id())).collect()
        };
        distances.sort_unstable();
        self.size.observe(&self.key, &distances);
    }

    pub(super) fn choose_warm(&mut self, now: Instant) {
        self.cold.retain(|_, until| *until > now);
        let late: Vec<_> = self
            .warming
            .iter()
            .filter(|(_, since)| now - **since >= WARMING_MAX)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.warming.remove(&id);
            self.cool(now, id);
        }
        let mut chosen = self.near(now);
        self.observe_surroundings(&chosen);
        let wanted = chosen.len() + self.config.warm_random;
        // Homes are as good for half of the random ones.
        let is_home = |id: &NodeId| self.seats.shared_with(*id).is_some();
        let homes = self.linked.keys().copied().filter(is_home).collect();
        fill(&mut chosen, wanted - self.config.warm_random.div_ceil(2), homes);
        // Those that stand first: a warm connection is worth what it cost.
        let standing: Vec<_> =
            self.warm.iter().copied().filter(|id| self.linked.contains_key(id)).collect();
        fill(&mut chosen, wanted, standing);
        let mut linked: Vec<_> =
            self.linked.values().filter(|linked| linked.serves).map(|linked| linked.id).collect();
        shuffle(&mut self.rng, &mut linked);
        fill(&mut chosen, wanted, linked);
        let heard = self.draw_from_table(wanted, &chosen, true);
        fill(&mut chosen, wanted, heard);
        if self.is_surveyed && !self.is_looking_around() {
            let others = self.draw_from_table(wanted, &chosen, false);
            fill(&mut chosen, wanted, others);
        }
        self.apply_warm(now, chosen);
    }

    /// Random peers of the table besides those chosen.
    fn draw_from_table(
        &mut self,
        wanted: usize,
        chosen: &BTreeSet<NodeId>,
        is_heard: bool,
    ) -> Vec<NodeId> {
        let mut rng = ChaCha8Rng::from_rng(&mut self.rng);
        let missing = wanted.saturating_sub(chosen.len());
        let passes = |entry: &Entry| {
            let id = entry.id();
            let is_fit = !is_heard || self.is_heard(entry);
            is_fit && !self.cold.contains_key(&id) && !chosen.contains(&id)
        };
        self.table.random(&mut rng, missing, passes).into_iter().map(Entry::id).collect()
    }

    /// Whether those near us are being looked up: what they tell is better than what we remember.
    fn is_looking_around(&self) -> bool {
        self.jobs.values().any(|job| matches!(job.goal, Goal::Neighbours) && job.target == self.key)
    }

    fn apply_warm(&mut self, now: Instant, chosen: BTreeSet<NodeId>) {
        let old = core::mem::replace(&mut self.warm, chosen);
        for id in old.difference(&self.warm) {
            self.warming.remove(id);
            self.outputs.push_back(Output::Warm(*id, false));
        }
        for id in self.warm.difference(&old) {
            self.outputs.push_back(Output::Warm(*id, true));
        }
        let missing: Vec<PeerAddr> = self
            .warm
            .iter()
            .filter(|id| !self.linked.contains_key(id) && !self.warming.contains_key(id))
            .filter_map(|id| self.table.get(*id))
            .take(WARMING_AT_A_TIME.saturating_sub(self.warming.len()))
            .map(Entry::peer)
            .collect();
        for peer in missing {
            self.warming.insert(peer.id, now);
            self.outputs.push_back(Output::Reach { peer, vias: Vec::new() });
        }
        let is_complete = self.warm.iter().all(|id| self.linked.contains_key(id));
        if !is_complete && self.is_joined() {
            let at = now + self.jitter(PAUSE);
            self.timers.set_no_later(Timer::Warm, at);
        }
    }

    /// A peer could not be reached: others are chosen for a while.
    pub(super) fn cool(&mut self, now: Instant, id: NodeId) {
        if self.cold.len() < COLD_MAX {
            self.cold.insert(id, now + COLD);
        }
        self.timers.set_no_later(Timer::Warm, now + SETTLE);
    }

    /// How long after the first link the table is looked after.
    pub(super) fn survey_pause(&self) -> Duration {
        if self.table.len() >= RICH { SURVEY_PAUSE } else { Duration::ZERO }
    }

    /// Makes connections to the nearest that a look-up of our own key found and nobody had to ask:
    /// by them they become known, and warm.
    pub(super) fn greet_near(&mut self, now: Instant, found: Vec<PeerAddr>) {
        for peer in found.into_iter().take(self.config.warm_near) {
            let is_known = self.linked.contains_key(&peer.id) || self.cold.contains_key(&peer.id);
            if !is_known && !self.warming.contains_key(&peer.id) {
                self.warming.insert(peer.id, now);
                self.outputs.push_back(Output::Reach { peer, vias: Vec::new() });
            }
        }
    }

    /// Fills the table of a newcomer, then looks now and then at what nothing was heard of.
    pub(super) fn refresh(&mut self, now: Instant) {
        if !self.is_joined() {
            return;
        }
        let is_rich = self.table.len() >= RICH;
        if self.refreshes == 0 && is_rich {
            // A table of the last run serves, and is looked after in its time; but those nearest to
            // us keep records with us, and some of them have come since.
            self.refreshes = FILL + 1;
            self.begin(now, self.key, Goal::Neighbours);
            let at = now + self.jitter(self.config.refresh);
            self.timers.set(Timer::Refresh, at);
            return;
        }
        // In a small network everybody is looked for: who came back behind a NAT, and knows nobody
        // who is open, is found by those alone who dial it.
        let has_seats = is_rich && self.seats.are_enough(&self.key);
        if self.refreshes > 0 && has_seats {
            // Seats know everybody; who is met in the course of time fills the table.
            self.refreshes = self.refreshes.max(FILL + 1);
        }
        let is_first = self.refreshes == 0;
        self.refreshes = self.refreshes.saturating_add(1);
        // Who came before the others, and to whom nobody comes, knows whom it was introduced to.
        let is_poor = self.table.len() < self.config.warm_near + self.config.warm_random;
        let target = if is_first || is_poor { Some(self.key) } else { self.draw_target(now) };
        let is_filling = self.refreshes <= FILL + 1;
        if let Some(target) = target {
            let goal = if is_filling { Goal::Table } else { Goal::Neighbours };
            // Whoever comes near us finds us, and links itself to us.
            let is_known = !is_filling && target == self.key && self.has_near(now);
            if !is_known {
                self.begin(now, target, goal);
            }
        }
        let late = self.refreshes.saturating_sub(FILL).min(POOR_DOUBLINGS);
        let pause = match self.refreshes {
            ..=FILL => FILL_PAUSE,
            _ if is_poor => (FILL_PAUSE * 2u32.pow(late)).min(self.config.refresh),
            _ if has_seats => self.config.refresh * LEISURE,
            _ => self.config.refresh,
        };
        let at = now + self.jitter(pause);
        self.timers.set(Timer::Refresh, at);
    }

    /// Whether as many are linked as there shall be nearest ones.
    fn has_near(&self, now: Instant) -> bool {
        let near = self.near(now);
        near.len() >= self.config.warm_near && near.iter().all(|id| self.linked.contains_key(id))
    }

    fn draw_target(&mut self, now: Instant) -> Option<Key> {
        self.table.refresh_target(now, &mut self.rng)
    }
}

fn fill(chosen: &mut BTreeSet<NodeId>, wanted: usize, from: Vec<NodeId>) {
    for id in from {
        if chosen.len() >= wanted {
            return;
        }
        chosen.insert(id);
    }
}

/// Puts items into a random order (Fisher and Yates).
fn shuffle<T>(rng: &mut impl rand_core::Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        let other = rng.next_u64() % (last as u64 + 1);
        items.swap(last, usize::try_from(other).expect("an index"));
    }
}
