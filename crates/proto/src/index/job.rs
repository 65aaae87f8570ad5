//! Jobs: look-ups, and what becomes of their outcome.

use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;

use super::ask::{Request, What};
use super::lookup::{Candidate, Lookup, LookupConfig, Purpose, Seat};
use super::store::Storing;
use super::table::Entry;
use super::{Event, Index, LookupCost, Output, QueryId, Timer};
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::key::Key;
use crate::record::Content;
use crate::role::Region;
use crate::time::Instant;
use crate::wire::index::{Found, RecordKind};

/// Requests for further pages of one look-up, for each record that is wanted. A page has eight.
const PAGES_PER_LIMIT: usize = 1;

/// How long a further page is waited for when the look-up itself has ended.
const PAGE_MAX: Duration = Duration::from_secs(2);

/// Answers with records that make a look-up of a value end: never the first one.
const ENOUGH: usize = 4;

/// Requests under way of a look-up that nobody waits for: each makes a link, and most of those that
/// are made at once would turn out not to be needed.
const UNHURRIED: usize = 2;

/// Seats of a region that we are linked to, from which on they are asked for the nodes of it, and
/// not those nodes: two see whom one leaves out.
const VOUCHING: usize = 2;

/// Records that one look-up may yield at most.
pub(super) const LIMIT_MAX: usize = 65_536;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct JobId(pub(super) u64);

/// What a look-up is for.
#[derive(Debug)]
pub(super) enum Goal {
    /// The owner looks for records.
    Find {
        query: QueryId,
        kind: RecordKind,
        limit: usize,
        /// The newest sequence of each author so far.
        found: BTreeMap<NodeId, u64>,
        pages: usize,
    },
    /// The owner wants this peer.
    Peer {
        id: NodeId,
        /// What an earlier search found was wrong: everybody near it is asked.
        is_again: bool,
    },
    /// A record of ours is to be stored.
    Store(Box<Storing>),
    /// The table is to be filled.
    Table,
    /// A few nodes near a key are to be known: whoever came near us while we were off, or some of a
    /// bucket of which nothing was heard.
    Neighbours,
    /// Who holds the seats of a region is to be known.
    Seats(Region),
    /// The roles ask for so many nodes near a key, under this number.
    Nodes { tag: u64, count: usize },
}

/// A look-up under way.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) target: Key,
    pub(super) lookup: Lookup,
    pub(super) goal: Goal,
    /// Until when further pages are waited for, once the look-up has ended.
    pub(super) pages_until: Option<Instant>,
}

impl Goal {
    /// Which records to ask for.
    fn records(&self) -> Option<RecordKind> {
        match self {
            Self::Find { kind, .. } => Some(*kind),
            Self::Peer { .. } => Some(RecordKind::Node),
            Self::Store(_)
            | Self::Table
            | Self::Neighbours
            | Self::Seats(_)
            | Self::Nodes { .. } => None,
        }
    }

    fn purpose(&self) -> Purpose {
        match self {
            Self::Find { kind, .. } => Purpose::Records(*kind),
            Self::Peer { id, .. } => Purpose::Peer(*id),
            Self::Store(_)
            | Self::Table
            | Self::Neighbours
            | Self::Seats(_)
            | Self::Nodes { .. } => Purpose::Nodes,
        }
    }
}

impl Index {
    /// Begins a look-up, if there is room for one more.
    pub(super) fn begin(&mut self, now: Instant, target: Key, goal: Goal) -> bool {
        if self.jobs.len() >= self.config.jobs_max {
            return false;
        }
        let id = JobId(self.next_job);
        self.next_job += 1;
        let enough = match &goal {
            Goal::Find { kind: RecordKind::Announcement, limit, .. } => (*limit).max(ENOUGH),
            _ => ENOUGH,
        };
        let replicas = match &goal {
            Goal::Store(storing) => storing.wanted,
            Goal::Neighbours => self.config.warm_near,
            // The first may not be there, or not know.
            Goal::Seats(_) => 2,
            Goal::Nodes { count, .. } => *count,
            // All near us are to be known, of others some.
            Goal::Table if target != self.key => self.config.node_replicas,
            _ => self.config.replicas,
        };
        // A peer's contact is proved when it is dialled, so fewer need to be asked for it.
        let (in_flight, paths) = match &goal {
            Goal::Table if target == self.key => (self.config.in_flight, self.config.paths),
            Goal::Peer { .. } | Goal::Table | Goal::Nodes { .. } => {
                (self.config.in_flight_peer, self.config.paths.min(2))
            }
            Goal::Neighbours => (UNHURRIED, 1),
            Goal::Seats(_) => (1, 1),
            _ => (self.config.in_flight, self.config.paths),
        };
        let mut start = self.start_candidates(now, &target, &goal);
        let is_seat = |one: &&Candidate| one.is_linked && one.seat == Some(Seat::Here);
        let seats = start.iter().filter(is_seat).count();
        let config = LookupConfig {
            vouches: matches!(goal, Goal::Nodes { .. } | Goal::Neighbours) && seats >= VOUCHING,
            in_flight,
            in_flight_seats: self.config.in_flight_seats,
            paths,
            k: replicas,
            region: self.size.region(replicas),
            enough,
            named: match &goal {
                Goal::Peer { is_again: true, .. } => u8::MAX,
                _ => LookupConfig::default().named,
            },
            ..LookupConfig::default()
        };
        match goal {
            Goal::Table => self.leave_own_side(&target, &mut start),
            // Its link is silent, else it were not sought: others are to say where it is.
            Goal::Peer { id, .. } => start.retain(|one| one.peer.id != id || !one.is_linked),
            Goal::Find { .. }
            | Goal::Store(_)
            | Goal::Neighbours
            | Goal::Seats(_)
            | Goal::Nodes { .. } => {}
        }
        self.table.looked_up(now, &target);
        let lookup = Lookup::new(target, self.id, goal.purpose(), config, start);
        self.jobs.insert(id, Job { target, lookup, goal, pages_until: None });
        self.spare(id);
        self.advance(now, id);
        true
    }

    /// Whom to begin a look-up of `target` with.
    fn start_candidates(&mut self, now: Instant, target: &Key, goal: &Goal) -> Vec<Candidate> {
        let seats = match goal {
            Goal::Find { .. } | Goal::Peer { .. } | Goal::Store(_) => self.start_seats(now, target),
            Goal::Table | Goal::Neighbours | Goal::Seats(_) | Goal::Nodes { .. } => Vec::new(),
        };
        let linked = self.linked.values().filter(|linked| linked.serves).map(|linked| Candidate {
            peer: linked.contact.contact(linked.id),
            is_linked: true,
            rtt: linked.rtt,
            vias: Vec::new(),
            is_stale: false,
            seat: self.seats.seat(linked.id, target),
        });
        // What is looked up for ourselves need not be had by trying who may long be off.
        let is_spared = matches!(goal, Goal::Neighbours | Goal::Seats(_)) && self.is_joined();
        let known = self
            .table
            .nearest_where(target, self.config.replicas, |entry| !is_spared || self.is_heard(entry))
            .into_iter()
            .filter(|entry| !self.linked.contains_key(&entry.id()))
            .map(Entry::candidate);
        linked.chain(seats).chain(known).collect()
    }

    /// Of those to begin with, keeps only who is not on our own side of the tree as seen from
    /// `target`, if there is anybody. Else a look-up into a bucket that is empty asks only our
    /// neighbours: of nodes that joined at the same time they may know each other and nobody else.
    fn leave_own_side(&self, target: &Key, start: &mut Vec<Candidate>) {
        let bits = self.key.common_bits(target);
        let is_other =
            |candidate: &Candidate| Key::of_node(candidate.peer.id).common_bits(&self.key) <= bits;
        if start.iter().any(is_other) {
            start.retain(is_other);
        }
    }

    /// The record of a job, if it stores one; nothing if there is no such job.
    pub(super) fn subject(&self, id: JobId) -> Option<Option<Bytes>> {
        let job = self.jobs.get(&id)?;
        let record = match &job.goal {
            Goal::Store(storing) => Some(storing.record.bytes().clone()),
            Goal::Find { .. }
            | Goal::Peer { .. }
            | Goal::Table
            | Goal::Neighbours
            | Goal::Seats(_)
            | Goal::Nodes { .. } => None,
        };
        Some(record)
    }

    /// Asks whoever is next, and ends the look-up when nobody is.
    pub(super) fn advance(&mut self, now: Instant, id: JobId) {
        loop {
            let Some(job) = self.jobs.get_mut(&id) else { return };
            if job.is_storing() {
                self.advance_storing(now, id);
                return;
            }
            if job.lookup.is_done() {
                if self.awaits_pages(now, id) {
                    break;
                }
                self.lookup_done(now, id);
                return;
            }
            let records = job.goal.records();
            match job.lookup.poll(now) {
                Some(ask) => self.ask(now, id, ask, records),
                None => break,
            }
        }
        self.schedule(id);
    }

    /// Whether an answer with more records is on its way.
    fn awaits_pages(&mut self, now: Instant, id: JobId) -> bool {
        let is_page = |what| matches!(what, What::Find { page: Some(_), .. });
        let is_asked = self.requests.values().any(|r| r.job == Some(id) && is_page(r.what));
        let Some(job) = self.jobs.get_mut(&id).filter(|_| is_asked) else { return false };
        *job.pages_until.get_or_insert(now + PAGE_MAX) > now
    }

    pub(super) fn schedule(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let at = match &job.goal {
            Goal::Store(storing) if storing.until.is_some() => storing.until,
            _ if job.lookup.is_done() => job.pages_until,
            _ => job.lookup.poll_timeout(),
        };
        match at {
            Some(at) => self.timers.set(Timer::Job(id), at),
            None => self.timers.stop(Timer::Job(id)),
        }
    }

    pub(super) fn job_timeout(&mut self, now: Instant, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.is_storing() {
            self.end_storing(now, id);
            return;
        }
        job.lookup.handle_timeout(now);
        self.advance(now, id);
    }

    pub(super) fn request_failed(&mut self, now: Instant, request: &Request) {
        let Some(id) = request.job else { return };
        let Some(job) = self.jobs.get_mut(&id) else { return };
        match (&mut job.goal, request.what) {
            (Goal::Store(storing), What::Store) => {
                storing.targets.remove(&request.peer);
            }
            (_, What::Find { page: None, .. }) => job.lookup.failed(now, request.peer),
            _ => {}
        }
        self.advance(now, id);
    }

    pub(super) fn handle_found(&mut self, now: Instant, from: NodeId, found: &Found) {
        let Some(request) = self.take_request(now, from, found.request) else { return };
        let Some(id) = request.job else { return };
        let has_records = self.take_records(now, id, &found.records);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if has_records {
            job.pages_until = None;
        }
        let mut next_page = None;
        if let Goal::Find { limit, found: so_far, pages, .. } = &mut job.goal
            && let Some(page) = found.more
            && so_far.len() < *limit
            && *pages < limit.saturating_mul(PAGES_PER_LIMIT)
        {
            *pages += 1;
            let (target, records) = (job.target, job.goal.records());
            next_page = Some(What::Find { target, records, page: Some(page) });
        }
        if let What::Find { page: None, .. } = request.what {
            let Some(job) = self.jobs.get_mut(&id) else { return };
            job.lookup.answered(now, from, &found.contacts, found.linked, has_records);
            self.locate(id);
            self.take_seats(now, id, found);
        }
        if let Some(what) = next_page {
            self.request(now, from, Some(id), what);
        }
        self.advance(now, id);
    }

    /// Verifies the records of an answer and reports those that are news.
    fn take_records(&mut self, now: Instant, id: JobId, records: &[Bytes]) -> bool {
        let Some(unix) = self.unix(now) else { return false };
        let mut has_records = false;
        for bytes in records {
            let Ok(record) = self.decode(bytes) else { continue };
            let Some(job) = self.jobs.get_mut(&id) else { break };
            let is_asked = Some(record.kind()) == job.goal.records();
            if !is_asked || record.key() != job.target || record.lifetime(unix).is_err() {
                continue;
            }
            has_records = true;
            match &mut job.goal {
                Goal::Find { query, found, limit, .. } => {
                    let newest = found.get(&record.author());
                    if newest.is_some_and(|newest| *newest >= record.sequence())
                        || newest.is_none() && found.len() >= *limit
                    {
                        continue;
                    }
                    found.insert(record.author(), record.sequence());
                    let query = *query;
                    self.event(Event::Record { query, record });
                }
                Goal::Peer { id: wanted, .. } if record.author() == *wanted => {
                    if let Content::Node { addrs, homes, .. } = record.content() {
                        let (addrs, homes) = (addrs.clone(), homes.clone());
                        let peer = PeerAddr { id: *wanted, addrs, homes };
                        self.outputs.push_back(Output::Located { peer, vias: Vec::new() });
                    }
                }
                Goal::Peer { .. }
                | Goal::Store(_)
                | Goal::Table
                | Goal::Neighbours
                | Goal::Seats(_)
                | Goal::Nodes { .. } => {}
            }
        }
        has_records
    }

    /// Reports where a wanted peer may be, as soon as anybody knows.
    fn locate(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let Goal::Peer { id: wanted, .. } = job.goal else { return };
        if let Some((peer, vias)) = job.lookup.contact(wanted) {
            self.outputs.push_back(Output::Located { peer, vias });
        }
    }

    /// The owner wants a peer of which we know no address, or none that works.
    pub(crate) fn search(&mut self, now: Instant, id: NodeId, is_again: bool) {
        if self.is_searching(id) {
            return;
        }
        if let Some(entry) = self.table.get(id) {
            let peer = entry.peer();
            self.outputs.push_back(Output::Located { peer, vias: Vec::new() });
        }
        let is_begun =
            self.is_joined() && self.begin(now, Key::of_node(id), Goal::Peer { id, is_again });
        if !is_begun {
            self.outputs.push_back(Output::Searched(id));
        }
    }

    /// Looks for the nodes nearest to a key, for the roles.
    pub(crate) fn find_nodes(&mut self, now: Instant, tag: u64, key: Key, count: usize) {
        if !self.is_joined() || !self.begin(now, key, Goal::Nodes { tag, count }) {
            self.outputs.push_back(Output::Nodes(tag, Vec::new()));
        }
    }

    /// A wanted peer is linked, or wanted no longer.
    pub(crate) fn end_search(&mut self, id: NodeId) {
        let of = |job: &Job| matches!(job.goal, Goal::Peer { id: wanted, .. } if wanted == id);
        let job = self.jobs.iter().find(|(_, job)| of(job)).map(|(job, _)| *job);
        if let Some(job) = job {
            self.end_job(job);
        }
    }

    /// Whether a wanted peer is being looked up.
    pub(crate) fn is_searching(&self, id: NodeId) -> bool {
        self.jobs
            .values()
            .any(|job| matches!(job.goal, Goal::Peer { id: wanted, .. } if wanted == id))
    }

    pub(super) fn end_job(&mut self, id: JobId) -> Option<Job> {
        self.timers.stop(Timer::Job(id));
        let job = self.jobs.remove(&id)?;
        self.drop_requests(id);
        Some(job)
    }

    fn lookup_done(&mut self, now: Instant, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        if let Goal::Store(_) | Goal::Table = job.goal {
            self.size.observe(&job.target, &job.lookup.distances());
        }
        if let Goal::Store(_) = job.goal {
            self.begin_storing(now, id);
            return;
        }
        self.report_omissions(now, id);
        let Some(job) = self.end_job(id) else { return };
        self.is_surveyed |= job.target == self.key;
        match job.goal {
            Goal::Find { query, .. } => {
                let cost = job.lookup.cost();
                self.event(Event::Done { query, cost });
            }
            Goal::Peer { id: wanted, .. } => self.outputs.push_back(Output::Searched(wanted)),
            Goal::Nodes { tag, count } => {
                let mut nodes = job.lookup.nearest_found();
                nodes.truncate(count);
                self.outputs.push_back(Output::Nodes(tag, nodes));
            }
            Goal::Neighbours if job.target == self.key => {
                self.greet_near(now, job.lookup.nearest_found());
            }
            Goal::Store(_) | Goal::Table | Goal::Neighbours | Goal::Seats(_) => {}
        }
        self.timers.set_no_later(Timer::Warm, now + super::warm::SETTLE);
    }
}

impl Job {
    fn is_storing(&self) -> bool {
        matches!(&self.goal, Goal::Store(storing) if storing.until.is_some())
    }
}

/// What a look-up of the owner's yields at most.
pub(super) fn clamp_limit(limit: usize) -> usize {
    limit.clamp(1, LIMIT_MAX)
}

impl Lookup {
    fn cost(&self) -> LookupCost {
        LookupCost {
            requests: self.asked(),
            rounds: self.rounds(),
            answered: self.nearest_found().len(),
        }
    }
}
