//! Our own records: values and announcements of the owner's, and the record that says where we are.
//!
//! A value is on disk before it is stored anywhere, and is stored anew for as long as this node
//! runs, in later runs too. An announcement lasts as long as the owner wants it. A topic's key
//! changes every day; in the last hour of a day the next day's key is announced besides, so that
//! who looks with a clock that is fast finds us too.

use core::time::Duration;
use std::collections::BTreeSet;

use bytes::Bytes;

use super::job::{Goal, clamp_limit};
use super::serve::Persisting;
use super::store::Storing;
use super::{DiskAction, Event, Index, Output, QueryId, Timer};
use crate::key::{Key, TOPIC_EPOCH_S};
use crate::record::{Content, Record};
use crate::time::{Instant, UnixTime};
use crate::wire::index::RecordKind;
use crate::wire::node::{HOMES_MAX, Home};

/// Time for the table to fill before records of ours are stored.
pub(super) const SETTLE: Duration = Duration::from_secs(2);

/// The same before our node record is: for homes to be found, which it names.
const SETTLE_NODE: Duration = Duration::from_secs(5);

/// Neighbours that keep our node record where seats do: linked ones know where we are without it.
const NEAR_WITH_SEATS: usize = 2;

/// Pause before storing is tried again when nobody took the record.
const RETRY: Duration = Duration::from_secs(30);

/// How long before a topic's key changes the next one is announced.
const EPOCH_OVERLAP_S: u64 = 3600;

/// Least time between two versions of our node record.
const NODE_GAP: Duration = Duration::from_secs(300);

/// What a record of ours says.
#[derive(Debug)]
pub(super) enum What {
    Value { name: String, record: Record },
    Topic { secret: Key },
    Node,
}

/// A record of ours.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) what: What,
    /// Whom to tell; none for our node record and for values of earlier runs.
    pub(super) query: Option<QueryId>,
    /// When it was signed last; nothing if never in this run.
    signed: Option<Instant>,
    /// Rounds of storing of an overlap that are done: the next one is of the next day's key.
    rounds: u32,
}

impl Index {
    /// A sequence higher than any of ours before, even after a restart with a clock that was right.
    fn draw_sequence(&mut self, unix: UnixTime) -> u64 {
        let by_clock = unix.as_secs().saturating_mul(1000);
        self.last_sequence = by_clock.max(self.last_sequence.saturating_add(1));
        self.last_sequence
    }

    fn add_own(&mut self, what: What, query: Option<QueryId>) -> u64 {
        let number = self.next_own;
        self.next_own += 1;
        self.own.insert(number, Own { what, query, signed: None, rounds: 0 });
        number
    }

    fn sign(
        &mut self,
        unix: UnixTime,
        key: Option<Key>,
        ttl: Duration,
        content: Content,
    ) -> Result<Record, String> {
        let sequence = self.draw_sequence(unix);
        Record::sign(&self.secret, &self.network, key, sequence, unix + ttl, content)
            .map_err(|error| error.to_string())
    }

    pub(super) fn publish(&mut self, now: Instant, query: QueryId, name: String, value: Bytes) {
        let Some(unix) = self.unix(now) else {
            return self.fail(query, "the calendar is not known");
        };
        let is_same =
            |own: &Own| matches!(&own.what, What::Value { name: known, .. } if *known == name);
        let known = self.own.iter().find(|(_, own)| is_same(own)).map(|(number, _)| *number);
        if known.is_none() && self.own.len() >= self.config.own_max {
            return self.fail(query, "too many values and announcements");
        }
        let content = Content::Value { name: name.clone(), value };
        let record = match self.sign(unix, None, self.config.value_ttl, content) {
            Ok(record) => record,
            Err(reason) => return self.fail(query, &reason),
        };
        let token = self.draw_token();
        let (slot, bytes) = (record.slot(), record.bytes().clone());
        self.persisting.insert(token, Persisting::Own { query, name, record });
        let action = DiskAction::Own { slot, record: bytes };
        self.outputs.push_back(Output::Disk(token, action));
    }

    fn fail(&mut self, query: QueryId, reason: &str) {
        self.event(Event::Failed { query, reason: reason.to_owned() });
    }

    /// A value of ours is on disk, or is not.
    pub(super) fn own_persisted(
        &mut self,
        now: Instant,
        query: QueryId,
        name: String,
        record: Record,
        is_kept: bool,
    ) {
        if !is_kept {
            return self.fail(query, "it cannot be written to disk");
        }
        let is_same =
            |own: &Own| matches!(&own.what, What::Value { name: known, .. } if *known == name);
        let old: Vec<_> =
            self.own.iter().filter(|(_, own)| is_same(own)).map(|(number, _)| *number).collect();
        for number in old {
            self.drop_own(number);
        }
        let number = self.add_own(What::Value { name, record }, Some(query));
        if self.is_joined() {
            self.renew_own(now, number);
        } else {
            self.event(Event::NotJoined(query));
        }
    }

    /// Values of earlier runs.
    pub(super) fn restore_own(&mut self, bytes: &Bytes) {
        let Ok(record) = self.decode(bytes) else { return };
        if record.author() != self.id || self.own.len() >= self.config.own_max {
            return;
        }
        self.last_sequence = self.last_sequence.max(record.sequence());
        if let Content::Value { name, .. } = record.content() {
            let name = name.clone();
            self.add_own(What::Value { name, record }, None);
        }
    }

    pub(super) fn announce(&mut self, now: Instant, query: QueryId, secret: Key) {
        if self.own.len() >= self.config.own_max {
            return self.fail(query, "too many values and announcements");
        }
        let number = self.add_own(What::Topic { secret }, Some(query));
        if self.is_joined() {
            self.renew_own(now, number);
        } else {
            self.event(Event::NotJoined(query));
        }
    }

    pub(super) fn cancel(&mut self, query: QueryId) {
        let own = self.own.iter_mut().find(|(_, own)| own.query == Some(query));
        match own {
            Some((_, own @ Own { what: What::Value { .. }, .. })) => own.query = None,
            Some((number, _)) => {
                let number = *number;
                self.drop_own(number);
            }
            None => {}
        }
        let of = |goal: &Goal| matches!(goal, Goal::Find { query: of, .. } if *of == query);
        let jobs: Vec<_> =
            self.jobs.iter().filter(|(_, job)| of(&job.goal)).map(|(id, _)| *id).collect();
        for job in jobs {
            self.end_job(job);
        }
    }

    fn drop_own(&mut self, number: u64) {
        self.own.remove(&number);
        self.timers.stop(Timer::Own(number));
        let of = |goal: &Goal| matches!(goal, Goal::Store(storing) if storing.own == number);
        let jobs: Vec<_> =
            self.jobs.iter().filter(|(_, job)| of(&job.goal)).map(|(id, _)| *id).collect();
        for job in jobs {
            self.end_job(job);
        }
    }

    /// Our addresses or homes have changed, or are known for the first time.
    pub(crate) fn moved(&mut self, now: Instant) {
        if !self.config.serves {
            return;
        }
        let node = self.own.iter().find(|(_, own)| matches!(own.what, What::Node));
        let (number, signed) = match node {
            Some((number, own)) => (*number, own.signed),
            None => (self.add_own(What::Node, None), None),
        };
        let pause = signed.map_or(SETTLE_NODE, |at| NODE_GAP.saturating_sub(now - at).max(SETTLE));
        let at = now + self.jitter(pause);
        let is_sooner = !self.timers.is_set(Timer::Own(number)) || signed.is_some();
        if is_sooner {
            self.timers.set(Timer::Own(number), at);
        }
    }

    /// Where we are, for our node record; told by the node whenever it changes.
    pub(crate) fn set_place(&mut self, now: Instant, place: Place) {
        if self.place == place {
            return;
        }
        self.place = place;
        // Neighbours that are linked know it at once and name us; the record is for when they are
        // not asked, so it may be a little behind.
        let is_enough = self.told_place.as_ref().is_some_and(|told| {
            told.addrs == self.place.addrs && are_enough(&told.homes, &self.place.homes)
        });
        if !is_enough {
            self.moved(now);
        }
    }

    /// It is time to store a record of ours, for the first time or anew.
    pub(super) fn renew_own(&mut self, now: Instant, number: u64) {
        let Some(own) = self.own.get(&number) else { return };
        if !self.is_joined() {
            return; // `joined` brings us back.
        }
        let Some(unix) = self.unix(now) else { return };
        let made = match &own.what {
            What::Value { record, .. } => self.renew_value(now, unix, record.clone()),
            What::Topic { secret } => {
                let is_second = own.rounds == 1 && epoch_left(unix) < EPOCH_OVERLAP_S;
                let epoch = Key::topic_epoch(unix) + u64::from(is_second);
                let key = Key::of_topic(secret, epoch);
                let ttl = self.config.announcement_ttl;
                self.sign(unix, Some(key), ttl, Content::Announcement)
            }
            What::Node => {
                let Place { addrs, mut homes } = self.place.clone();
                if addrs.is_empty() && homes.is_empty() {
                    return;
                }
                homes.truncate(HOMES_MAX);
                self.told_place = Some(Place { addrs: addrs.clone(), homes: homes.clone() });
                let content = Content::Node { addrs, homes, versions: vec![1] };
                self.sign(unix, None, self.config.node_ttl, content)
            }
        };
        let query = self.own.get(&number).and_then(|own| own.query);
        match (made, query) {
            (Ok(record), _) => self.store_own(now, number, record),
            (Err(reason), Some(query)) => self.fail(query, &reason),
            (Err(_), None) => {}
        }
    }

    /// A value as it is while it lives long enough, else signed anew.
    fn renew_value(
        &mut self,
        now: Instant,
        unix: UnixTime,
        record: Record,
    ) -> Result<Record, String> {
        let left = record.lifetime(unix).unwrap_or_default();
        if left * 2 > self.config.value_ttl {
            return Ok(record);
        }
        let record = self.sign(unix, None, self.config.value_ttl, record.content().clone())?;
        let token = self.draw_token();
        let (slot, bytes) = (record.slot(), record.bytes().clone());
        self.persisting.insert(token, Persisting::Renewed);
        self.outputs.push_back(Output::Disk(token, DiskAction::Own { slot, record: bytes }));
        let _ = now;
        Ok(record)
    }

    fn store_own(&mut self, now: Instant, number: u64, record: Record) {
        let Some(own) = self.own.get_mut(&number) else { return };
        own.signed = Some(now);
        if let What::Value { record: known, .. } = &mut own.what {
            known.clone_from(&record);
        }
        if let What::Node = own.what {
            return self.store_nearby(now, number, record);
        }
        let wanted = self.config.replicas;
        let target = record.key();
        let storing = Storing {
            own: number,
            record,
            wanted,
            targets: BTreeSet::new(),
            kept: 0,
            clocks: 0,
            until: None,
        };
        if !self.begin(now, target, Goal::Store(Box::new(storing))) {
            let at = now + self.jitter(RETRY);
            self.timers.set(Timer::Own(number), at);
        }
    }

    /// Our node record goes to the nearest nodes and the seats of our region that are linked, no
    /// look-up is needed; without enough seats to everybody of its region who is linked.
    fn store_nearby(&mut self, now: Instant, number: u64, record: Record) {
        let (near, region) = (self.near(now), self.region(RecordKind::Node));
        let has_seats = self.seats.are_enough(&self.key);
        let targets: BTreeSet<_> = self
            .linked
            .values()
            .filter(|linked| linked.serves)
            .filter(|linked| {
                !has_seats
                    && (near.contains(&linked.id) || linked.key.distance(&self.key) <= region)
                    || self.seats.shared_with(linked.id).is_some()
                    || near.iter().take(NEAR_WITH_SEATS).any(|near| *near == linked.id)
            })
            .map(|linked| linked.id)
            .collect();
        let storing = Storing {
            own: number,
            wanted: targets.len(),
            record,
            targets,
            kept: 0,
            clocks: 0,
            until: None,
        };
        self.store_at(now, storing);
    }

    /// A round of storing has ended: says so, and sets the next.
    pub(super) fn own_stored(&mut self, now: Instant, storing: &Storing) {
        let epoch_left = self.unix(now).map_or(u64::MAX, epoch_left);
        let Some(own) = self.own.get_mut(&storing.own) else { return };
        let (ttl, is_topic) = match own.what {
            What::Value { .. } => (self.config.value_ttl, false),
            What::Topic { .. } => (self.config.announcement_ttl, true),
            What::Node => (self.config.node_ttl, false),
        };
        let is_overlap = is_topic && epoch_left < EPOCH_OVERLAP_S;
        let is_first_of_two = is_overlap && own.rounds == 0 && storing.kept > 0;
        own.rounds = u32::from(is_first_of_two);
        if storing.kept == 0 {
            // Nobody knows of it: whatever is news of it need not wait.
            own.signed = None;
        }
        let query = own.query;
        let mut pause = self.jitter(if storing.kept == 0 {
            RETRY
        } else if is_first_of_two {
            Duration::from_secs(1)
        } else {
            ttl / 2
        });
        if is_topic && !is_overlap {
            // Not beyond the hour in which the next key is to be announced.
            let before = self.jitter(Duration::from_secs(EPOCH_OVERLAP_S / 2));
            pause = pause.min(Duration::from_secs(epoch_left).saturating_sub(before));
        }
        let at = now + pause.max(Duration::from_secs(1));
        self.timers.set(Timer::Own(storing.own), at);
        if let Some(query) = query {
            self.event(Event::Kept {
                query,
                kept: storing.kept,
                wanted: storing.wanted,
                clocks: storing.clocks,
            });
        }
    }

    pub(super) fn find_records(
        &mut self,
        now: Instant,
        query: QueryId,
        key: Key,
        kind: RecordKind,
        limit: usize,
    ) {
        if !self.is_joined() {
            self.event(Event::NotJoined(query));
            return;
        }
        let kept = self.kept_here(now, &key, kind);
        let found = kept.iter().map(|record| (record.author(), record.sequence())).collect();
        for record in kept.into_iter().take(clamp_limit(limit)) {
            self.event(Event::Record { query, record });
        }
        let goal = Goal::Find { query, kind, limit: clamp_limit(limit), found, pages: 0 };
        if !self.begin(now, key, goal) {
            self.fail(query, "too many look-ups at a time");
        }
    }

    pub(super) fn find_topic(&mut self, now: Instant, query: QueryId, secret: &Key, limit: usize) {
        let Some(unix) = self.unix(now) else {
            return self.fail(query, "the calendar is not known");
        };
        let key = Key::of_topic(secret, Key::topic_epoch(unix));
        self.find_records(now, query, key, RecordKind::Announcement, limit);
    }
}

/// Seconds until the keys of topics change.
fn epoch_left(unix: UnixTime) -> u64 {
    TOPIC_EPOCH_S - unix.as_secs() % TOPIC_EPOCH_S
}

/// Whether homes that were told are enough to reach us, of those that `are`: two, if we have two.
pub(crate) fn are_enough<H: PartialEq>(told: &[H], are: &[H]) -> bool {
    told.iter().filter(|home| are.contains(home)).count() >= are.len().min(2)
}

/// Where we are: our node record without what every record has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) addrs: Vec<std::net::SocketAddr>,
    /// All that we have, the best first; the record names [`HOMES_MAX`].
    pub(crate) homes: Vec<Home>,
}
