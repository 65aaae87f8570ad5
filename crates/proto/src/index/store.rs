//! Storing a record of ours at the nodes that a look-up found.

use core::time::Duration;
use std::collections::BTreeSet;

use super::Index;
use super::ask::What;
use super::job::{Goal, Job, JobId};
use super::lookup::{Lookup, LookupConfig, Purpose};
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::key::Key;
use crate::record::Record;
use crate::time::Instant;
use crate::wire::index::{StoreOutcome, Stored};

/// How long storing waits for those that have not answered.
const STORE_MAX: Duration = Duration::from_secs(8);

/// Storing a record of ours.
#[derive(Debug)]
pub(super) struct Storing {
    pub(super) own: u64,
    pub(super) record: Record,
    pub(super) wanted: usize,
    pub(super) targets: BTreeSet<NodeId>,
    pub(super) kept: usize,
    pub(super) clocks: usize,
    /// When storing ends at the latest; `None` while the nodes are looked up.
    pub(super) until: Option<Instant>,
}

/// Seats that a record is stored at; they pass it on to the others.
const SEATS: usize = 3;

/// Seats of a region with which fewer other nodes keep a record.
const SEATS_ENOUGH: usize = 4;

impl Index {
    /// Where enough seats keep the record of a job, fewer other nodes have to, and are looked up.
    pub(super) fn spare(&mut self, id: JobId) {
        let few = self.config.replicas_with_seats;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let Goal::Store(storing) = &mut job.goal
            && self.seats.are_enough(&job.target)
            && storing.until.is_none()
            && storing.wanted > few
            && job.lookup.seats_believed() >= SEATS_ENOUGH
        {
            storing.wanted = few;
            job.lookup.narrow(few, self.size.region(few));
        }
    }

    /// The nodes near the record and some seats are known: asks all of them to keep it.
    pub(super) fn begin_storing(&mut self, now: Instant, id: JobId) {
        let region_max = self.config.replicas.saturating_mul(4);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Goal::Store(storing) = &mut job.goal else { return };
        let region = self.size.region(storing.wanted);
        let near = job.lookup.nearest_found();
        let is_chosen = |(at, peer): &(usize, PeerAddr)| {
            let is_within = Key::of_node(peer.id).distance(&job.target) <= region;
            *at < storing.wanted || is_within && *at < region_max
        };
        let mut chosen: Vec<_> =
            near.into_iter().enumerate().filter(is_chosen).map(|(_, peer)| peer).collect();
        let mut seats = job.lookup.seats();
        seats.retain(|seat| chosen.iter().all(|peer| peer.id != seat.id));
        seats.truncate(SEATS);
        storing.wanted = storing.wanted.min(chosen.len().max(1)) + seats.len();
        chosen.append(&mut seats);
        storing.targets = chosen.iter().map(|peer| peer.id).collect();
        storing.until = Some(now + STORE_MAX);
        for peer in chosen {
            if self.linked.contains_key(&peer.id) {
                self.request(now, peer.id, Some(id), What::Store);
            } else {
                self.reach(id, peer, Vec::new(), What::Store);
            }
        }
        self.advance_storing(now, id);
    }

    pub(super) fn handle_stored(&mut self, now: Instant, from: NodeId, stored: &Stored) {
        let Some(request) = self.take_request(now, from, stored.request) else { return };
        let Some(id) = request.job else { return };
        let Some(Job { goal: Goal::Store(storing), .. }) = self.jobs.get_mut(&id) else { return };
        if !storing.targets.remove(&from) {
            return;
        }
        match stored.outcome {
            StoreOutcome::Kept => storing.kept += 1,
            StoreOutcome::Clock => storing.clocks += 1,
            StoreOutcome::Stale
            | StoreOutcome::Full
            | StoreOutcome::Invalid
            | StoreOutcome::Unable => {}
        }
        self.advance_storing(now, id);
    }

    /// Stores a record at linked peers that are known already.
    pub(super) fn store_at(&mut self, now: Instant, mut storing: Storing) {
        storing.until = Some(now + STORE_MAX);
        let (target, targets) = (storing.record.key(), storing.targets.clone());
        let purpose = Purpose::Nodes;
        let lookup = Lookup::new(target, self.id, purpose, LookupConfig::default(), []);
        let id = JobId(self.next_job);
        self.next_job += 1;
        self.jobs.insert(
            id,
            Job { target, lookup, goal: Goal::Store(Box::new(storing)), pages_until: None },
        );
        for peer in targets {
            self.request(now, peer, Some(id), What::Store);
        }
        self.advance_storing(now, id);
    }

    pub(super) fn advance_storing(&mut self, now: Instant, id: JobId) {
        let Some(Job { goal: Goal::Store(storing), .. }) = self.jobs.get(&id) else { return };
        if storing.targets.is_empty() {
            self.end_storing(now, id);
        } else {
            self.schedule(id);
        }
    }

    pub(super) fn end_storing(&mut self, now: Instant, id: JobId) {
        let Some(job) = self.end_job(id) else { return };
        if let Goal::Store(storing) = job.goal {
            self.own_stored(now, &storing);
        }
    }
}
