//! The index: every node keeps a small shard of it, and any peer, topic or value is found in it
//! with no fixed server (Maymounkov and Mazières, *Kademlia*, 2002).
//!
//! Nodes and records are points of one key space ([`crate::key`]). A node keeps a routing table of
//! peers whose keys it saw proved ([`table`]), asks step by step those nearer to a key
//! ([`lookup`]), and keeps the records near its own point ([`shard`]). What is ours:
//!
//! - Requests travel on connections between peers that proved who they are, so a peer behind a NAT
//!   is asked like any other: whoever named it signals for it.
//! - A record belongs to the *region* around its key in which as many nodes are expected as there
//!   shall be copies ([`size`]), not to the nearest ones: Sybils that crowd a key are in the region
//!   besides the honest nodes, not in their place (Sridhar et al., *Content Censorship in the
//!   `InterPlanetary` File System*, NDSS 2024).
//! - Neighbours reconcile what they keep when they meet and now and then (`sync`), so records
//!   outlive those who keep them without being stored anew.
//! - Each node keeps *warm* connections to the nodes nearest to it and to some anywhere (`warm`).
//! - Above that floor *seats* keep all records of a region of the key space (`seats`), so that one
//!   request to one that we know and one to one that it names find a record. What they do the floor
//!   does as well, slower.
//!
//! The index is a sub-machine of the [node](crate::node), which reaches peers for it and carries
//! its messages. Invariants: only peers whose key was proved enter the table; a record has effect
//! only when it is on disk; every table is bounded.

mod api;
mod ask;
mod job;
pub mod lookup;
mod own;
mod seats;
mod serve;
pub mod shard;
pub mod size;
mod store;
mod sync;
pub mod table;
mod warm;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

pub use self::api::*;
use self::ask::{Request, Waiting};
use self::job::{Job, JobId};
use self::own::Own;
pub(crate) use self::own::{Place, are_enough};
use self::seats::Seats;
use self::serve::Persisting;
use self::shard::Shard;
use self::size::SizeEstimate;
use self::table::{Packed, Table, TableConfig};
use crate::bucket::TokenBucket;
use crate::flat::FlatMap;
use crate::id::{NodeId, SecretKey};
use crate::invite::PeerAddr;
use crate::key::{Distance, Key};
use crate::machine;
use crate::record::{Record, RecordError};
use crate::time::{Instant, UnixTime};
use crate::timer::Timers;
use crate::wire::IndexMessage;
use crate::wire::index::{Digest, Offer, RecordKind};

/// Differences of calendars that are kept for the median.
const SKEWS_MAX: usize = 64;

/// A peer that is linked and takes part in the index.
#[derive(Debug)]
struct Linked {
    id: NodeId,
    key: Key,
    /// Where it is, for contacts.
    contact: Packed,
    rtt: Option<Duration>,
    /// Whether it answers requests; one that does not may still be found by others through us.
    serves: bool,
    /// Whether it holds a reservation here.
    is_guest: bool,
    /// Seconds by which its calendar is ahead of ours.
    skew_s: Option<i64>,
    /// What it may still ask.
    allowance: TokenBucket,
    /// Of which offers of its we asked for how many records that it has not sent.
    expected: Vec<(u32, usize)>,
    /// Where it is seen, if that is on the internet and nobody is between.
    ip: Option<IpAddr>,
    /// Whether the records near it were offered since it came.
    is_synced: bool,
    /// Hash of the records that it was offered last; 0 if they are to be offered anew.
    last_offer: u64,
    /// What of its offers is still to be asked for: somebody else was, or too much is coming.
    offered: Vec<Offer>,
}

/// What waits for its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A look-up has a slot to free or storing takes too long.
    Job(JobId),
    /// Choose warm connections.
    Warm,
    /// Look at a bucket that nothing was heard of.
    Refresh,
    /// Drop records.
    Expire,
    /// Store a record of ours anew.
    Own(u64),
    /// Offer records to the next neighbour.
    Sync,
    /// Look at offers that were put off.
    Offers,
    /// Offer what is new to fellow seats.
    Pass,
}

/// The index. See the module's documentation.
#[derive(Debug)]
pub(crate) struct Index {
    id: NodeId,
    key: Key,
    network: String,
    secret: SecretKey,
    config: IndexConfig,
    rng: ChaCha8Rng,
    calendar: Option<(Instant, UnixTime)>,
    table: Table,
    shard: Shard,
    size: SizeEstimate,
    seats: Seats,
    linked: FlatMap<NodeId, Box<Linked>>,
    jobs: FlatMap<JobId, Job>,
    next_job: u64,
    requests: FlatMap<u32, Request>,
    next_request: u32,
    waiting: FlatMap<NodeId, Waiting>,
    own: FlatMap<u64, Own>,
    place: Place,
    /// What our node record says of it.
    told_place: Option<Place>,
    next_own: u64,
    last_sequence: u64,
    persisting: FlatMap<u64, Persisting>,
    next_token: u64,
    /// When all neighbours are to be offered records anew.
    sync_again: Option<Instant>,
    /// Records that others were asked for a moment ago, and when.
    asked_for: BTreeMap<Digest, Instant>,
    /// Records that came since fellow seats were told of any, and of records of nodes their keys.
    passing: BTreeMap<Digest, Option<Key>>,
    warm: BTreeSet<NodeId>,
    /// Warm connections that are being made, and when that began.
    warming: FlatMap<NodeId, Instant>,
    /// Peers that could not be reached as warm connections, and until when that counts.
    cold: FlatMap<NodeId, Instant>,
    /// When peers of an earlier run were put into the table.
    remembered: Option<Instant>,
    /// Look-ups for the table made since the network was joined.
    refreshes: u32,
    /// Whether we looked who is near us since.
    is_surveyed: bool,
    timers: Timers<Timer>,
    outputs: VecDeque<Output>,
    requests_sent: u64,
    requests_served: u64,
}

impl Index {
    pub(crate) fn new(
        secret: SecretKey,
        network: String,
        config: IndexConfig,
        seed: [u8; 32],
    ) -> Self {
        let id = secret.id();
        let mut rng = ChaCha8Rng::from_seed(seed);
        let mut shard_seed = [0; 32];
        rng.fill_bytes(&mut shard_seed);
        let table = TableConfig {
            k: config.replicas,
            refresh: config.refresh,
            count_private: config.count_private,
            ..TableConfig::default()
        };
        Self {
            id,
            key: Key::of_node(id),
            network,
            secret,
            rng,
            calendar: None,
            table: Table::new(id, table),
            shard: Shard::new(config.shard.clone(), shard_seed),
            size: SizeEstimate::new(),
            seats: Seats::new(Key::of_node(id)),
            config,
            linked: FlatMap::new(),
            jobs: FlatMap::new(),
            next_job: 0,
            requests: FlatMap::new(),
            next_request: 0,
            waiting: FlatMap::new(),
            own: FlatMap::new(),
            place: Place::default(),
            told_place: None,
            next_own: 0,
            last_sequence: 0,
            persisting: FlatMap::new(),
            next_token: 0,
            sync_again: None,
            asked_for: BTreeMap::new(),
            passing: BTreeMap::new(),
            warm: BTreeSet::new(),
            warming: FlatMap::new(),
            cold: FlatMap::new(),
            remembered: None,
            refreshes: 0,
            is_surveyed: false,
            timers: Timers::default(),
            outputs: VecDeque::new(),
            requests_sent: 0,
            requests_served: 0,
        }
    }

    /// The calendar, as far as it was told.
    fn unix(&self, now: Instant) -> Option<UnixTime> {
        self.calendar.map(|(at, unix)| unix + (now - at))
    }

    /// The calendar in seconds, for Hello; 0 if unknown.
    pub(crate) fn unix_s(&self, now: Instant) -> u64 {
        self.unix(now).map_or(0, UnixTime::as_secs)
    }

    /// The calendar was looked at.
    pub(crate) fn handle_clock(&mut self, now: Instant, unix: UnixTime) {
        self.calendar = Some((now, unix));
    }

    /// Radius around a key in which as many nodes are expected as there shall be copies of a record
    /// of this kind.
    fn region(&self, kind: RecordKind) -> Distance {
        self.size.region(match kind {
            RecordKind::Node => self.config.node_replicas,
            RecordKind::Announcement | RecordKind::Value if self.seats.are_enough(&self.key) => {
                self.config.replicas.min(self.config.replicas_with_seats)
            }
            RecordKind::Announcement | RecordKind::Value => self.config.replicas,
        })
    }

    /// Reads a record and verifies it.
    fn decode(&self, bytes: &Bytes) -> Result<Record, RecordError> {
        Record::decode_with(bytes, &self.network, self.config.verify)
    }

    /// Peers of the last run, whose keys were proved then.
    pub(crate) fn remember(&mut self, now: Instant, peers: &[PeerAddr]) {
        self.table.reserve(peers.len());
        for peer in peers {
            self.table.insert(now, peer, None);
            self.remembered = Some(now);
        }
        self.table.shrink();
    }

    /// The first link to a peer stands: what waited for it is asked at once, before it said
    /// anything.
    pub(crate) fn peer_up(&mut self, now: Instant, peer: &PeerAddr) {
        let id = peer.id;
        let rate = self.config.requests_per_s;
        let linked = Linked {
            id,
            key: Key::of_node(id),
            contact: Packed::new(peer),
            rtt: None,
            serves: false,
            is_guest: false,
            skew_s: None,
            allowance: TokenBucket::new(rate, rate.saturating_mul(4)),
            expected: Vec::new(),
            ip: None,
            is_synced: false,
            last_offer: 0,
            offered: Vec::new(),
        };
        self.linked.insert(id, Box::new(linked));
        self.cold.remove(&id);
        self.warming.remove(&id);
        self.ask_waiting(now, id);
    }

    /// Whether we answer and keep records for others.
    pub(crate) fn is_serving(&self) -> bool {
        self.config.serves
    }

    /// We answer and keep records for others, or do not (any more). What is kept stays.
    pub(crate) fn set_serving(&mut self, now: Instant, is_on: bool) {
        self.config.serves = is_on;
        if is_on {
            self.moved(now);
        }
    }

    /// A peer has said what it offers. Tells whether it is the first that can be asked.
    pub(crate) fn peer_hello(
        &mut self,
        now: Instant,
        id: NodeId,
        serves: bool,
        unix_s: u64,
    ) -> bool {
        let ours = self.unix(now);
        let was_joined = self.is_joined();
        let Some(linked) = self.linked.get_mut(&id) else { return false };
        linked.serves = serves;
        linked.skew_s = ours
            .filter(|_| unix_s != 0)
            .map(|ours| unix_s.cast_signed().saturating_sub(ours.as_secs().cast_signed()));
        if !serves {
            // Whoever chose it for a warm connection chooses another one.
            self.table.remove(id);
            self.timers.set_no_later(Timer::Warm, now + warm::SETTLE);
            return false;
        }
        let peer = linked.contact.contact(id);
        self.table.insert(now, &peer, None);
        if !was_joined {
            self.joined(now);
        }
        self.timers.set_no_later(Timer::Warm, now + warm::SETTLE);
        if self.seats.shared_with(id).is_some() || self.is_near(now, id) {
            self.timers.set_no_later(Timer::Sync, now + sync::SETTLE);
        }
        !was_joined
    }

    /// Whether a peer holds a reservation here, so that we can signal for it.
    pub(crate) fn set_guest(&mut self, id: NodeId, is_guest: bool) {
        if let Some(linked) = self.linked.get_mut(&id) {
            linked.is_guest = is_guest;
        }
    }

    /// The peer told other addresses or homes, or its round trip was measured.
    pub(crate) fn peer_moved(
        &mut self,
        now: Instant,
        peer: &PeerAddr,
        rtt: Option<Duration>,
        ip: Option<IpAddr>,
    ) {
        let Some(linked) = self.linked.get_mut(&peer.id) else { return };
        linked.ip = ip;
        linked.rtt = rtt.or(linked.rtt);
        let contact = Packed::new(peer);
        if linked.contact == contact {
            return;
        }
        linked.contact = contact;
        if linked.serves {
            self.table.insert(now, peer, rtt);
        }
    }

    /// The last link to a peer is gone.
    pub(crate) fn peer_down(&mut self, now: Instant, id: NodeId) {
        let was_near = self.is_near(now, id);
        if self.linked.remove(&id).is_none() {
            return;
        }
        if was_near {
            self.neighbour_left(now);
        }
        let lost: Vec<_> = self
            .requests
            .iter()
            .filter(|(_, request)| request.peer == id)
            .map(|(number, _)| *number)
            .collect();
        for number in lost {
            if let Some(request) = self.requests.remove(&number) {
                self.request_failed(now, &request);
            }
        }
        self.timers.set_no_later(Timer::Warm, now + warm::SETTLE);
    }

    /// A peer that was to be reached could not be.
    pub(crate) fn unreachable(&mut self, now: Instant, id: NodeId) {
        if self.linked.contains_key(&id) {
            return;
        }
        self.table.failed(id);
        if self.warming.remove(&id).is_some() {
            self.cool(now, id);
        }
        if let Some(waiting) = self.waiting.remove(&id) {
            for request in waiting.for_requests(id, now) {
                self.request_failed(now, &request);
            }
        }
    }

    /// Somebody answers: fills the table.
    fn joined(&mut self, now: Instant) {
        (self.refreshes, self.is_surveyed) = (0, false);
        self.timers.set(Timer::Refresh, now + self.survey_pause());
        for own in self.own.keys().copied().collect::<Vec<_>>() {
            self.timers.set(Timer::Own(own), now + own::SETTLE);
        }
    }

    /// Whether a linked peer answers requests.
    pub(crate) fn is_served_by(&self, id: NodeId) -> bool {
        self.linked.get(&id).is_some_and(|linked| linked.serves)
    }

    /// Whether anybody is there to be asked.
    pub(crate) fn is_joined(&self) -> bool {
        self.linked.values().any(|linked| linked.serves)
    }

    pub(crate) fn handle_message(&mut self, now: Instant, from: NodeId, message: IndexMessage) {
        if !self.linked.contains_key(&from) {
            return;
        }
        match message {
            IndexMessage::Find(find) => self.handle_find(now, from, &find),
            IndexMessage::Found(found) => self.handle_found(now, from, &found),
            IndexMessage::Store(store) => self.handle_store(now, from, &store),
            IndexMessage::Stored(stored) => self.handle_stored(now, from, &stored),
            IndexMessage::Offer(offer) => self.handle_offer(now, from, &offer),
            IndexMessage::Lacking(lacking) => self.handle_lacking(from, &lacking),
        }
    }

    pub(crate) fn handle_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Find { query, key, kind, limit } => {
                self.find_records(now, query, key, kind, limit);
            }
            Command::FindTopic { query, secret, limit } => {
                self.find_topic(now, query, &secret, limit);
            }
            Command::Publish { query, name, value } => self.publish(now, query, name, value),
            Command::Announce { query, secret } => self.announce(now, query, secret),
            Command::Cancel(query) => self.cancel(query),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.expire(now) {
            match timer {
                Timer::Job(job) => self.job_timeout(now, job),
                Timer::Warm => self.choose_warm(now),
                Timer::Refresh => self.refresh(now),
                Timer::Expire => self.expire(now),
                Timer::Own(own) => self.renew_own(now, own),
                Timer::Sync => self.sync(now),
                Timer::Offers => self.look_at_offers(now),
                Timer::Pass => self.pass_on(now),
            }
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        machine::pop(&mut self.outputs)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn draw_token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// A duration between half and three halves of `mean`, so that nodes do not act in step.
    fn jitter(&mut self, mean: Duration) -> Duration {
        mean * (50 + self.rng.next_u32() % 101) / 100
    }

    /// How many nodes there are by what we observed ourselves, for Hello; 0 if unknown.
    pub(crate) fn nodes_observed(&self) -> u32 {
        self.size.own()
    }

    /// A peer said what it observed.
    pub(crate) fn hear_nodes(&mut self, from: NodeId, nodes: u32) {
        self.size.hear(from, nodes);
    }

    /// How many nodes there are, estimated.
    pub(crate) fn nodes(&self) -> Option<f64> {
        self.size.nodes()
    }

    pub(crate) fn stats(&self) -> IndexStats {
        let shard = self.shard.stats();
        let mut skews: Vec<_> =
            self.linked.values().filter_map(|linked| linked.skew_s).take(SKEWS_MAX).collect();
        skews.sort_unstable();
        IndexStats {
            table: self.table.len(),
            warm: self.warm.iter().filter(|id| self.linked.contains_key(id)).count(),
            records: shard.records,
            record_bytes: shard.bytes as u64,
            nodes: self.size.nodes(),
            clock_skew_s: skews.get(skews.len() / 2).copied(),
            requests_sent: self.requests_sent,
            requests_served: self.requests_served,
        }
    }

    /// Where a linked peer is seen, for quotas. Those of a private network share one prefix, so
    /// they are not told apart by it.
    fn ip_of(&self, id: NodeId) -> Option<IpAddr> {
        self.linked.get(&id)?.ip
    }
}

#[cfg(test)]
pub(crate) mod tests;
