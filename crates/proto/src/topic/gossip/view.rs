//! The active view: how neighbours are found, asked, answered, replaced and let go.

use core::time::Duration;

use super::{Gossip, Output, Peer, Stage, Timer, pick};
use crate::bucket::TokenBucket;
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::time::Instant;
use crate::wire::topic::{GossipMessage, MEMBERS_MAX};

/// Time for a link to come about: longer than the parent's own time-outs.
const DIAL: Duration = Duration::from_secs(30);

/// Time for the answer to a request to be a neighbour.
const ANSWER: Duration = Duration::from_secs(3);

/// Requests to one candidate before it counts as failed.
const ASKS_MAX: u8 = 2;

/// How long a peer may be linked here and want nothing.
const IDLE: Duration = Duration::from_secs(20);

/// Most peers that are linked and no neighbours.
const LINKED_MAX: usize = 32;

/// Pause before a candidate that refused, parted, failed or was lost is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// Failures in a row that cost no pause, the pause after the next, doubled with each more, and the
/// longest.
const FAILURES_FREE: u32 = 4;
const FILL_PAUSE: Duration = Duration::from_millis(200);
const FILL_PAUSE_MAX: Duration = Duration::from_secs(15);

/// The same for looks into the index while members are missing.
const LOOK_PAUSE: Duration = Duration::from_secs(4);
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(120);

/// Failures after which a request is urgent with some neighbours, but less than the least, too.
const FAILURES_URGENT: u32 = 6;

/// Time without entries after which the tree is not spared: the next entry makes a new one.
const QUIET: Duration = Duration::from_secs(60);

/// Neighbours of a shuffle that are neighbours of the sender (`HyParView` §4.4: `k_a` = 3).
const SHUFFLED_ACTIVE: usize = 3;

/// Tokens of a displacement, of which one comes a second: one in five seconds, so that whoever asks
/// for it does not own the view within some seconds, and three at once.
const DISPLACEMENT: u64 = 5;

pub(super) fn displacements() -> TokenBucket {
    TokenBucket::new(1, 3 * DISPLACEMENT)
}

impl Gossip {
    pub(super) fn handle_found(&mut self, now: Instant, members: Vec<PeerAddr>) {
        self.passive.start_sample();
        for addr in members {
            self.learn(now, addr, true);
        }
        self.fill(now);
    }

    fn learn(&mut self, now: Instant, addr: PeerAddr, is_sampled: bool) {
        let is_known = addr.id == self.own || self.is_neighbor(addr.id);
        if !is_known && self.scores.is_fit(now, addr.id) {
            self.passive.insert(&mut self.rng, addr, now, is_sampled);
        }
    }

    /// Returns whether the peer is kept.
    pub(super) fn handle_up(&mut self, now: Instant, id: NodeId) -> bool {
        match self.peers.get(&id).map(|peer| peer.stage) {
            Some(Stage::Dialing) => {
                self.ask(now, id, 1);
                return true;
            }
            Some(_) => return true,
            None => {}
        }
        let linked = self.peers.values().filter(|peer| peer.stage == Stage::Linked).count();
        if id == self.own || linked >= LINKED_MAX || self.scores.is_banned(now, id) {
            self.outputs.push_back(Output::Disconnect(id));
            return false;
        }
        let addr = self.passive.get(id).cloned().unwrap_or_else(|| id.into());
        self.peers.insert(id, Box::new(Peer::new(addr, Stage::Linked)));
        self.timers.set(Timer::Peer(id), now + IDLE);
        true
    }

    pub(super) fn handle_down(&mut self, now: Instant, id: NodeId) {
        match self.peers.get(&id).map(|peer| peer.stage) {
            None => {}
            Some(Stage::Linked) => drop(self.forget(id)),
            Some(Stage::Dialing | Stage::Asked(_)) => self.failed(now, id),
            Some(Stage::Active) => {
                self.lose(now, id);
                self.fill(now);
            }
        }
    }

    /// A stage took too long.
    pub(super) fn end_stage(&mut self, now: Instant, id: NodeId) {
        match self.peers.get(&id).map(|peer| peer.stage) {
            Some(Stage::Asked(asks)) if asks < ASKS_MAX => self.ask(now, id, asks + 1),
            Some(Stage::Dialing | Stage::Asked(_)) => {
                self.outputs.push_back(Output::Disconnect(id));
                self.failed(now, id);
            }
            Some(Stage::Linked) => {
                self.outputs.push_back(Output::Disconnect(id));
                self.forget(id);
            }
            Some(Stage::Active) | None => {}
        }
    }

    /// An attempt came to nothing, and the link is gone.
    fn failed(&mut self, now: Instant, id: NodeId) {
        self.forget(id);
        let retry_at = now + self.jitter(RETRY);
        self.passive.failed(id, retry_at);
        self.count_failure(now);
        self.fill(now);
    }

    fn count_failure(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if let Some(more) = self.failures.checked_sub(FAILURES_FREE + 1) {
            let pause = FILL_PAUSE.saturating_mul(1 << more.min(16)).min(FILL_PAUSE_MAX);
            self.fill_not_before = now + self.jitter(pause);
        }
    }

    fn forget(&mut self, id: NodeId) -> Option<Box<Peer>> {
        self.timers.stop(Timer::Peer(id));
        self.peers.remove(&id)
    }

    /// Tries candidates until there are neighbours enough, or attempts.
    pub(super) fn fill(&mut self, now: Instant) {
        loop {
            let active = self.neighbors().count();
            let Some(lack) = self.config.active.checked_sub(active).filter(|lack| *lack > 0) else {
                self.timers.stop(Timer::Fill);
                return;
            };
            let is_short = active < self.config.active_min;
            let stages = self.peers.values().map(|peer| peer.stage);
            let tried = |stage: &Stage| matches!(stage, Stage::Dialing | Stage::Asked(_));
            let trying = stages.filter(tried).count();
            let limit = if is_short { self.config.parallel.min(lack + 1) } else { 1 };
            if trying >= limit {
                return;
            }
            if self.fill_not_before > now {
                self.timers.set(Timer::Fill, self.fill_not_before);
                return;
            }
            let Some(addr) = self.draw(now, false) else {
                self.want_members(now);
                if let Some(retry) = self.passive.next_retry(now) {
                    self.timers.set(Timer::Fill, retry);
                }
                return;
            };
            self.connect(now, addr, false);
        }
    }

    /// A candidate that is neither a neighbour nor tried.
    fn draw(&mut self, now: Instant, prefers_sampled: bool) -> Option<PeerAddr> {
        let Self { passive, peers, scores, rng, .. } = self;
        passive.draw(rng, now, prefers_sampled, |id| {
            peers.get(&id).is_none_or(|peer| peer.stage == Stage::Linked) && scores.is_fit(now, id)
        })
    }

    fn connect(&mut self, now: Instant, addr: PeerAddr, is_swap: bool) {
        let id = addr.id;
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.is_swap = is_swap;
            return self.ask(now, id, 1);
        }
        let mut peer = Peer::new(addr.clone(), Stage::Dialing);
        peer.is_swap = is_swap;
        self.peers.insert(id, Box::new(peer));
        self.timers.set(Timer::Peer(id), now + DIAL);
        self.outputs.push_back(Output::Connect(addr));
    }

    fn ask(&mut self, now: Instant, id: NodeId, asks: u8) {
        let active = self.neighbors().count();
        let is_few = active < self.config.active_min && self.failures >= FAILURES_URGENT;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.stage = Stage::Asked(asks);
        let until = now + self.jitter(ANSWER);
        self.timers.set(Timer::Peer(id), until);
        self.send(id, GossipMessage::Neighbor { is_urgent: active == 0 || is_few });
    }

    pub(super) fn handle_neighbor(&mut self, now: Instant, id: NodeId, is_urgent: bool) {
        let is_accepted = self.is_neighbor(id)
            || self.scores.is_fit(now, id) && (self.has_room() || is_urgent && self.displace(now));
        let members = self.some_members(id, 0);
        self.send(id, GossipMessage::Neighbored { is_accepted, members });
        if is_accepted && !self.is_neighbor(id) {
            self.welcome(now, id);
        }
    }

    fn has_room(&self) -> bool {
        self.neighbors().count() < self.config.active_max
    }

    /// Parts with a random neighbour, if that did not happen too often.
    fn displace(&mut self, now: Instant) -> bool {
        let active: Vec<_> = self.neighbors().map(|(id, _)| id).collect();
        let Some(at) = pick(&mut self.rng, active.len()) else { return false };
        let may = self.displaced.try_take(now, DISPLACEMENT);
        if may {
            self.part(now, active[at]);
        }
        may
    }

    /// Makes a linked peer a neighbour.
    fn welcome(&mut self, now: Instant, id: NodeId) {
        let known = self.passive.get(id).cloned();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(addr) = known {
            peer.addr = addr;
        }
        peer.stage = Stage::Active;
        peer.make_eager();
        let is_swap = core::mem::take(&mut peer.is_swap);
        self.timers.stop(Timer::Peer(id));
        self.passive.remove(id);
        self.failures = 0;
        self.fill_not_before = now;
        self.outputs.push_back(Output::Neighbor { peer: id, is_up: true });
        let active = self.neighbors().count();
        if active >= self.config.active_min {
            self.looks = 0;
        }
        if is_swap && active > self.config.active {
            let spare: Vec<_> = self.spare(now).filter(|other| *other != id).collect();
            if let Some(at) = pick(&mut self.rng, spare.len()) {
                self.part(now, spare[at]);
            }
        }
        self.fill(now);
    }

    pub(super) fn handle_neighbored(
        &mut self,
        now: Instant,
        id: NodeId,
        is_accepted: bool,
        members: Vec<PeerAddr>,
    ) {
        let Some(stage) = self.peers.get(&id).map(|peer| peer.stage) else { return };
        if matches!(stage, Stage::Asked(_)) {
            members.into_iter().for_each(|addr| self.learn(now, addr, false));
        }
        match stage {
            Stage::Asked(_) if is_accepted && self.has_room() => self.welcome(now, id),
            // Not asked, or no longer wanted.
            Stage::Asked(_) | Stage::Linked if is_accepted => {
                self.send(id, GossipMessage::Parted);
                self.outputs.push_back(Output::Disconnect(id));
                self.forget(id);
            }
            Stage::Asked(_) => self.refused(now, id),
            Stage::Active if !is_accepted => self.handle_parted(now, id),
            Stage::Active | Stage::Linked | Stage::Dialing => {}
        }
    }

    fn refused(&mut self, now: Instant, id: NodeId) {
        self.outputs.push_back(Output::Disconnect(id));
        self.forget(id);
        let retry_at = now + self.jitter(RETRY);
        self.passive.refused(id, retry_at);
        self.count_failure(now);
        self.fill(now);
    }

    pub(super) fn handle_parted(&mut self, now: Instant, id: NodeId) {
        match self.peers.get(&id).map(|peer| peer.stage) {
            Some(Stage::Active) => {
                self.outputs.push_back(Output::Disconnect(id));
                self.lose(now, id);
                self.fill(now);
            }
            Some(Stage::Asked(_)) => self.refused(now, id),
            Some(Stage::Linked | Stage::Dialing) | None => {}
        }
    }

    /// Ends a neighbourhood. Who calls fills the view afterwards.
    pub(super) fn part(&mut self, now: Instant, id: NodeId) {
        self.send(id, GossipMessage::Parted);
        self.outputs.push_back(Output::Disconnect(id));
        self.lose(now, id);
    }

    /// A neighbour is none any more, and becomes a candidate.
    fn lose(&mut self, now: Instant, id: NodeId) {
        let Some(peer) = self.forget(id) else { return };
        self.outputs.push_back(Output::Neighbor { peer: id, is_up: false });
        if self.scores.is_fit(now, id) {
            let retry_at = now + self.jitter(RETRY);
            self.passive.insert(&mut self.rng, peer.addr, retry_at, false);
        }
    }

    pub(super) fn ban(&mut self, now: Instant, id: NodeId) {
        let was_active = self.is_neighbor(id);
        if was_active {
            self.send(id, GossipMessage::Parted);
            self.outputs.push_back(Output::Neighbor { peer: id, is_up: false });
        }
        if self.forget(id).is_some() {
            self.outputs.push_back(Output::Disconnect(id));
        }
        self.passive.remove(id);
        self.outputs.push_back(Output::Ban(id));
        self.fill(now);
    }

    /// Members are missing: the index is looked into as soon as it may be.
    fn want_members(&mut self, now: Instant) {
        let pause = LOOK_PAUSE.saturating_mul(1 << self.looks.min(16)).min(LOOK_PAUSE_MAX);
        let pause = self.jitter(pause);
        let due = self.looked_at.map_or(now, |looked_at| (looked_at + pause).max(now));
        self.timers.set_no_later(Timer::Members, due);
    }

    pub(super) fn look(&mut self, now: Instant) {
        self.outputs.push_back(Output::WantMembers);
        self.looked_at = Some(now);
        let pause = self.jitter(self.config.members);
        self.timers.set(Timer::Members, now + pause);
        self.looks = self.looks.saturating_add(1);
        if self.neighbors().count() < self.config.active_min {
            // Nobody may answer.
            self.want_members(now);
        }
    }

    pub(super) fn shuffle(&mut self, now: Instant) {
        let pause = self.jitter(self.config.shuffle);
        self.timers.set(Timer::Shuffle, now + pause);
        let active: Vec<_> = self.neighbors().collect();
        let Some(at) = pick(&mut self.rng, active.len()) else { return };
        let (peer, _) = active[at];
        let members = self.some_members(peer, SHUFFLED_ACTIVE);
        self.shuffled = Some(peer);
        self.send(peer, GossipMessage::Shuffle(members));
    }

    pub(super) fn handle_shuffle(&mut self, now: Instant, id: NodeId, members: Vec<PeerAddr>) {
        let answer = self.some_members(id, 0);
        self.send(id, GossipMessage::Shuffled(answer));
        members.into_iter().for_each(|addr| self.learn(now, addr, false));
        self.fill(now);
    }

    pub(super) fn handle_shuffled(&mut self, now: Instant, id: NodeId, members: Vec<PeerAddr>) {
        if self.shuffled.take_if(|peer| *peer == id).is_some() {
            members.into_iter().for_each(|addr| self.learn(now, addr, false));
            self.fill(now);
        }
    }

    /// Random members to name to a peer: so many neighbours first, then whoever is known.
    fn some_members(&mut self, but: NodeId, active: usize) -> Vec<PeerAddr> {
        let mut pool: Vec<PeerAddr> = self.passive.iter().cloned().collect();
        let others = self.peers.iter().filter(|(id, peer)| **id != but && peer.is_active());
        let mut others: Vec<PeerAddr> = others.map(|(_, peer)| peer.addr.clone()).collect();
        let mut members = Vec::new();
        while members.len() < active
            && let Some(at) = pick(&mut self.rng, others.len())
        {
            members.push(others.swap_remove(at));
        }
        pool.append(&mut others);
        pool.retain(|addr| addr.id != but);
        while members.len() < MEMBERS_MAX
            && let Some(at) = pick(&mut self.rng, pool.len())
        {
            members.push(pool.swap_remove(at));
        }
        members
    }

    /// The neighbours that the tree does not need.
    fn spare(&self, now: Instant) -> impl Iterator<Item = NodeId> + '_ {
        let is_quiet = self.entry_at.is_none_or(|at| at + QUIET <= now);
        self.neighbors().filter(move |(_, is_eager)| is_quiet || !is_eager).map(|(id, _)| id)
    }

    /// Tries a random member for the place of a neighbour that can be spared.
    pub(super) fn swap(&mut self, now: Instant) {
        let pause = self.jitter(self.config.swap);
        self.timers.set(Timer::Swap, now + pause);
        let active = self.neighbors().count();
        if active < self.config.active || self.spare(now).next().is_none() {
            return;
        }
        if let Some(addr) = self.draw(now, true) {
            self.connect(now, addr, true);
        }
    }
}
