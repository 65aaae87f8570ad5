//! One index whose peers say whatever the test likes.

use super::*;
use crate::wire::index::{Find, Found, Lacking, Offer, RECORD_LEN_MAX, Store, Stored};

pub(super) struct Alone {
    pub(super) index: Index,
    pub(super) now: Instant,
    /// Peers that answer every request: finds nothing, keeps everything.
    pub(super) obliging: bool,
    /// Whether the disk takes what is written.
    pub(super) disk_works: bool,
}

impl Alone {
    /// The index of node 0.
    pub(super) fn new(config: IndexConfig) -> Self {
        let mut index = Index::new(secret(0), NETWORK.into(), config, [7; 32]);
        index.handle_clock(Instant::ZERO, START);
        Self { index, now: Instant::ZERO, obliging: false, disk_works: true }
    }

    fn drain(&mut self) -> Vec<Output> {
        let mut outputs = Vec::new();
        while let Some(output) = self.index.poll_output() {
            let (now, index) = (self.now, &mut self.index);
            match &output {
                Output::Disk(token, _) => index.disk_done(now, *token, self.disk_works),
                Output::Send(to, message) if self.obliging => {
                    if let Some(answer) = oblige(message) {
                        index.handle_message(now, *to, answer);
                    }
                }
                Output::Reach { peer, .. } if self.obliging => index.unreachable(now, peer.id),
                _ => {}
            }
            outputs.push(output);
        }
        outputs
    }

    /// Peer `n` is linked and takes part.
    pub(super) fn up(&mut self, n: usize) -> Vec<Output> {
        self.index.peer_up(self.now, &addr(n));
        self.index.peer_hello(self.now, id(n), true, START.as_secs());
        self.drain()
    }

    pub(super) fn say(&mut self, n: usize, message: IndexMessage) -> Vec<Output> {
        self.index.handle_message(self.now, id(n), message);
        self.drain()
    }

    pub(super) fn command(&mut self, command: Command) -> Vec<Output> {
        self.index.handle_command(self.now, command);
        self.drain()
    }

    pub(super) fn run(&mut self, for_time: Duration) -> Vec<Output> {
        let end = self.now + for_time;
        let mut outputs = Vec::new();
        while let Some(at) = self.index.poll_timeout().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.index.handle_timeout(self.now);
            outputs.extend(self.drain());
            assert!(self.index.poll_timeout().is_none_or(|at| at > self.now), "it spins");
        }
        self.now = end;
        outputs
    }

    /// What peer `n` is answered when it asks to keep these bytes.
    fn store(&mut self, n: usize, record: &Bytes) -> StoreOutcome {
        let store = Store { request: 7, record: record.clone() };
        let answers = stored(&self.say(n, IndexMessage::Store(store)));
        assert_eq!(answers.len(), 1, "one answer");
        answers[0]
    }

    /// What peer `n` finds at a key.
    fn find(&mut self, n: usize, key: Key, kind: RecordKind) -> Vec<Bytes> {
        let find = Find { request: 9, target: key, records: Some(kind), page: None };
        let outputs = self.say(n, IndexMessage::Find(find));
        let [Output::Send(to, IndexMessage::Found(found))] = &outputs[..] else {
            panic!("{outputs:?}")
        };
        assert_eq!((*to, found.request), (id(n), 9));
        found.records.clone()
    }
}

fn oblige(message: &IndexMessage) -> Option<IndexMessage> {
    let request = message.request();
    match message {
        IndexMessage::Find(_) => Some(IndexMessage::Found(Found {
            request,
            contacts: Vec::new(),
            linked: 0,
            records: Vec::new(),
            more: None,
            seats: 0,
        })),
        IndexMessage::Store(_) => {
            Some(IndexMessage::Stored(Stored { request, outcome: StoreOutcome::Kept }))
        }
        _ => None,
    }
}

fn stored(outputs: &[Output]) -> Vec<StoreOutcome> {
    let outcomes = outputs.iter().filter_map(|output| match output {
        Output::Send(_, IndexMessage::Stored(stored)) => Some(stored.outcome),
        _ => None,
    });
    outcomes.collect()
}

/// The records that the index asks others to keep.
fn stores(outputs: &[Output]) -> Vec<Record> {
    let stores = outputs.iter().filter_map(|output| match output {
        Output::Send(_, IndexMessage::Store(store)) => {
            Some(Record::decode(&store.record, NETWORK).unwrap())
        }
        _ => None,
    });
    stores.collect()
}

fn events(outputs: &[Output]) -> Vec<&Event> {
    let events = outputs.iter().filter_map(|output| match output {
        Output::Event(event) => Some(event),
        _ => None,
    });
    events.collect()
}

pub(super) fn value_of(
    secret: &SecretKey,
    network: &str,
    sequence: u64,
    expires: UnixTime,
) -> Record {
    let content = Content::Value { name: "name".into(), value: Bytes::from_static(b"value") };
    Record::sign(secret, network, None, sequence, expires, content).unwrap()
}

/// A value of node 5's that lasts another hour.
fn value(sequence: u64) -> Record {
    value_of(&secret(5), NETWORK, sequence, START + HOUR)
}

#[test]
fn records_are_judged_as_they_come() {
    let mut index = Alone::new(IndexConfig::default());
    index.up(1);
    let mut check = |record: &Bytes, outcome, why| {
        assert_eq!(index.store(1, record), outcome, "{why}");
    };
    let good = value(2);
    check(good.bytes(), StoreOutcome::Kept, "a good one");
    check(good.bytes(), StoreOutcome::Kept, "which is there already");
    check(value(1).bytes(), StoreOutcome::Stale, "an older one");
    check(value(3).bytes(), StoreOutcome::Kept, "a newer one");
    check(good.bytes(), StoreOutcome::Stale, "which is the older one now");

    let mut forged = value(9).bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    check(&forged.into(), StoreOutcome::Invalid, "a wrong signature");
    let content = value(9).content().clone();
    let unsigned = Record::unsigned(id(5), None, 9, START + HOUR, content);
    check(unsigned.bytes(), StoreOutcome::Invalid, "no signature");
    let foreign = value_of(&secret(5), "another", 9, START + HOUR);
    check(foreign.bytes(), StoreOutcome::Invalid, "another network's");
    for junk in [&b""[..], b"\x82", &[0xFF; RECORD_LEN_MAX]] {
        check(&Bytes::copy_from_slice(junk), StoreOutcome::Invalid, "junk");
    }
    let until = |expires| value_of(&secret(6), NETWORK, 1, expires);
    let long_ago = UnixTime::from_secs(START.as_secs() - CLOCK_SKEW.as_secs());
    check(until(long_ago).bytes(), StoreOutcome::Clock, "expired");
    let too_late = START + ttl_max(RecordKind::Value) + CLOCK_SKEW + Duration::from_secs(1);
    check(until(too_late).bytes(), StoreOutcome::Clock, "of the future");
    let just = START + ttl_max(RecordKind::Value) + CLOCK_SKEW;
    check(until(just).bytes(), StoreOutcome::Kept, "within the skew of clocks");

    let found = index.find(1, good.key(), RecordKind::Value);
    assert_eq!(found, [value(3).bytes().clone()], "only what was kept is found");
    assert_eq!(index.find(1, good.key(), RecordKind::Node), [] as [Bytes; 0]);
    assert_eq!(index.index.stats().records, 2);
}

#[test]
fn who_cannot_keep_says_so() {
    let good = value(1);
    let mut client = Alone::new(IndexConfig { serves: false, ..IndexConfig::default() });
    client.up(1);
    assert_eq!(client.store(1, good.bytes()), StoreOutcome::Unable);
    let mut clockless = Alone::new(IndexConfig::default());
    clockless.index.calendar = None;
    clockless.up(1);
    assert_eq!(clockless.store(1, good.bytes()), StoreOutcome::Unable);

    let mut broken = Alone::new(IndexConfig::default());
    broken.up(1);
    broken.disk_works = false;
    assert_eq!(broken.store(1, good.bytes()), StoreOutcome::Unable);
    assert_eq!(broken.find(1, good.key(), RecordKind::Value), [] as [Bytes; 0]);
    broken.disk_works = true;
    assert_eq!(broken.store(1, good.bytes()), StoreOutcome::Kept, "it may be asked again");
}

#[test]
fn a_record_has_effect_when_it_is_on_disk_and_not_before() {
    let mut alone = Alone::new(IndexConfig::default());
    alone.up(1);
    let (old, new) = (value(1), value(2));
    let mut tokens = Vec::new();
    for record in [&old, &new] {
        let store = Store { request: 1, record: record.bytes().clone() };
        alone.index.handle_message(alone.now, id(1), IndexMessage::Store(store));
        while let Some(output) = alone.index.poll_output() {
            let Output::Disk(token, DiskAction::Keep { slot, sequence, .. }) = output else {
                panic!("{output:?}")
            };
            assert_eq!((slot, sequence), (record.slot(), record.sequence()));
            tokens.push(token);
        }
    }
    assert_eq!(alone.find(1, old.key(), RecordKind::Value), [] as [Bytes; 0]);
    // The newer one is on disk first.
    for token in [tokens[1], tokens[0]] {
        alone.index.disk_done(alone.now, token, true);
        assert_eq!(stored(&alone.drain()).len(), 1);
    }
    assert_eq!(alone.find(1, old.key(), RecordKind::Value), [new.bytes().clone()]);
}

#[test]
fn a_flood_of_one_peer_is_limited_and_others_are_served() {
    let mut index = Alone::new(IndexConfig::default());
    index.up(1);
    index.up(2);
    let find = |request| {
        IndexMessage::Find(Find { request, target: START_KEY, records: None, page: None })
    };
    let flood = |index: &mut Alone| (0..1000).map(|n| index.say(1, find(n)).len()).sum::<usize>();
    assert_eq!(flood(&mut index), 200, "a burst");
    assert_eq!(index.say(2, find(0)).len(), 1);
    index.run(Duration::from_secs(1));
    assert_eq!(flood(&mut index), 50, "a second's worth");
    index.run(Duration::from_secs(60));
    let record = value(1).bytes().clone();
    let outcomes: Vec<_> = (0..500).map(|_| index.store(1, &record)).collect();
    let kept = outcomes.iter().filter(|outcome| **outcome == StoreOutcome::Kept).count();
    assert_eq!(kept, 200);
    assert!(outcomes[200..].iter().all(|outcome| *outcome == StoreOutcome::Full));
    assert_eq!(index.index.stats().requests_served, 250 + 1 + 200);
}

#[test]
fn what_nobody_asked_for_has_no_effect() {
    let mut index =
        Alone::new(IndexConfig { warm_near: 0, warm_random: 0, ..IndexConfig::default() });
    for n in [1, 2] {
        index.up(n);
    }
    index.run(Duration::from_secs(30));
    let asked = index.command(find_value(5));
    let request = asked.iter().find_map(|output| match output {
        Output::Send(to, message) if *to == id(1) => Some(message.request()),
        _ => None,
    });
    let found = |request, record: &Record| {
        let records = vec![record.bytes().clone()];
        IndexMessage::Found(Found {
            request,
            contacts: vec![addr(9)],
            linked: 0,
            records,
            more: Some(1),
            seats: 0,
        })
    };
    let request = request.expect("one that is asked");
    for (from, message) in [
        (2, found(request, &value(1))),
        (1, found(77_777, &value(1))),
        (1, IndexMessage::Stored(Stored { request, outcome: StoreOutcome::Kept })),
        (1, IndexMessage::Stored(Stored { request: 77_777, outcome: StoreOutcome::Kept })),
        (1, IndexMessage::Lacking(Lacking { request: 77_777, digests: vec![[1; 8]] })),
        (3, found(request, &value(1))),
        (3, IndexMessage::Offer(Offer { request: 1, digests: vec![[1; 8]] })),
    ] {
        let outputs = index.say(from, message.clone());
        assert_eq!(events(&outputs), [] as [&Event; 0], "{message:?}");
        assert!(outputs.iter().all(|o| !matches!(o, Output::Reach { .. })), "{message:?}");
    }
}

#[test]
fn answers_are_verified_by_who_asked() {
    let mut index = Alone::new(IndexConfig::default());
    index.up(1);
    index.run(Duration::from_secs(30));
    let asked = index.command(find_value(5));
    let Some(Output::Send(_, IndexMessage::Find(find))) = asked.last() else { panic!("{asked:?}") };
    let mut forged = value(9).bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let elsewhere = value_of(&secret(6), NETWORK, 9, START + HOUR);
    let expired = value_of(&secret(5), NETWORK, 9, UnixTime::from_secs(1));
    let records = vec![
        forged.into(),
        elsewhere.bytes().clone(),
        expired.bytes().clone(),
        value(1).bytes().clone(),
        value(2).bytes().clone(),
        value(1).bytes().clone(),
    ];
    let (request, contacts) = (find.request, Vec::new());
    let found = Found { request, contacts, linked: 0, records, more: None, seats: 0 };
    let outputs = index.say(1, IndexMessage::Found(found));
    let sequences = outputs.iter().filter_map(|output| match output {
        Output::Event(Event::Record { query: QUERY, record }) => Some(record.sequence()),
        _ => None,
    });
    assert_eq!(sequences.collect::<Vec<_>>(), [1, 2], "each author's newest so far");
}

#[test]
fn nobody_to_ask_is_said_at_once() {
    let mut index = Alone::new(IndexConfig::default());
    let not_joined = [Output::Event(Event::NotJoined(QUERY))];
    assert_eq!(index.command(find_value(5)), not_joined);
    let topic = Command::FindTopic { query: QUERY, secret: START_KEY, limit: 5 };
    assert_eq!(index.command(topic), not_joined);
    assert_eq!(index.command(Command::Announce { query: QUERY, secret: START_KEY }), not_joined);
    let outputs = index.command(publish("late"));
    assert!(matches!(outputs[0], Output::Disk(_, DiskAction::Own { .. })), "not lost");
    assert_eq!(outputs[1..], not_joined);
    // A peer that does not take part is nobody to ask.
    index.index.peer_up(index.now, &addr(1));
    index.index.peer_hello(index.now, id(1), false, 0);
    assert_eq!(index.command(find_value(5)), not_joined);
    // As soon as there is one, what waits is stored.
    index.obliging = true;
    index.up(2);
    let outputs = index.run(Duration::from_secs(5));
    let kept = |event: &&&Event| matches!(event, Event::Kept { query: QUERY, kept: 1, .. });
    assert_eq!(events(&outputs).iter().filter(kept).count(), 2, "value and announcement");
}

#[test]
fn a_value_that_cannot_be_written_is_not_published() {
    let mut index = Alone::new(IndexConfig::default());
    index.up(1);
    index.disk_works = false;
    let outputs = index.command(publish("x"));
    assert!(matches!(events(&outputs)[..], [Event::Failed { query: QUERY, .. }]));
    assert_eq!(stores(&index.run(Duration::from_secs(60))).len(), 0);
    let name = "n".repeat(65);
    let outputs = index.command(publish(&name));
    assert!(matches!(outputs[..], [Output::Event(Event::Failed { query: QUERY, .. })]));
    index.index.calendar = None;
    let outputs = index.command(publish("x"));
    assert!(matches!(outputs[..], [Output::Event(Event::Failed { query: QUERY, .. })]));
}

#[test]
fn own_values_are_stored_anew_and_signed_anew_before_they_expire() {
    let mut index = Alone::new(IndexConfig::default());
    index.obliging = true;
    index.up(1);
    index.command(publish("x"));
    index.command(publish("x"));
    assert_eq!(index.index.own.len(), 1, "one value of a name");
    let records = stores(&index.run(Duration::from_secs(7 * 24 * 3600)));
    let values: Vec<_> = records.iter().filter(|r| r.kind() == RecordKind::Value).collect();
    assert!((4..=30).contains(&values.len()), "{} in a week", values.len());
    let sequences: Vec<_> = values.iter().map(|record| record.sequence()).collect();
    assert!(sequences.is_sorted() && sequences.first() < sequences.last());
    let last = values.last().unwrap();
    assert!(last.expires() > START + Duration::from_secs(7 * 24 * 3600), "it never ends");
}

#[test]
fn values_of_earlier_runs_are_stored_and_their_sequences_never_go_back() {
    let mut index = Alone::new(IndexConfig::default());
    index.obliging = true;
    let sequence = START.as_secs() * 2000;
    let own = value_of(&secret(0), NETWORK, sequence, START + HOUR * 100);
    let other = value_of(&secret(3), NETWORK, sequence * 2, START + HOUR);
    let own_bytes = vec![own.bytes().clone(), other.bytes().clone(), Bytes::from_static(b"junk")];
    index.index.restore(index.now, Restored { own: own_bytes, ..Restored::default() });
    assert_eq!(index.index.own.len(), 1, "only what is ours");
    index.up(1);
    let outputs = index.run(Duration::from_secs(10));
    assert_eq!(stores(&outputs), [own]);
    assert_eq!(events(&outputs), [] as [&Event; 0], "nobody asked");
    // The clock is behind what it was then.
    let outputs = index.command(publish("name"));
    assert_eq!(stores(&outputs)[0].sequence(), sequence + 1);
}

#[test]
fn an_announcement_is_made_for_tomorrow_in_the_last_hour_and_no_storm_breaks() {
    let mut index = Alone::new(IndexConfig { serves: false, ..IndexConfig::default() });
    index.obliging = true;
    index.up(1);
    index.command(Command::Announce { query: QUERY, secret: START_KEY });
    let today = Key::topic_epoch(START);
    let midnight = TOPIC_EPOCH_S - START.as_secs() % TOPIC_EPOCH_S;
    let until_late = index.run(Duration::from_secs(midnight - 3600));
    let last_hour = index.run(Duration::from_secs(3600));
    let first_hours = index.run(Duration::from_secs(4 * 3600));
    let keys = |outputs: &[Output]| stores(outputs).iter().map(Record::key).collect::<Vec<_>>();
    let key = |day| Key::of_topic(&START_KEY, today + day);
    assert!(keys(&until_late).iter().all(|at| *at == key(0)));
    assert!(keys(&last_hour).contains(&key(0)) && keys(&last_hour).contains(&key(1)));
    assert!(keys(&last_hour).len() <= 6, "{} in the last hour", keys(&last_hour).len());
    assert!(keys(&first_hours).iter().all(|at| *at == key(1)));
    assert!((3..=10).contains(&keys(&first_hours).len()), "{}", keys(&first_hours).len());
    // At no moment is there no announcement that lives.
    let all = [stores(&until_late), stores(&last_hour), stores(&first_hours)].concat();
    let today_end = all.iter().filter(|r| r.key() == key(0)).map(Record::expires).max();
    assert!(today_end.unwrap() >= START + Duration::from_secs(midnight));
    let outputs = index.command(Command::Cancel(QUERY));
    assert_eq!(outputs, []);
    assert_eq!(stores(&index.run(HOUR * 48)).len(), 0, "nobody announces it any more");
}

#[test]
fn years_with_a_neighbour_that_never_answers_leave_nothing_behind() {
    let mut index = Alone::new(IndexConfig::default());
    index.up(1);
    for n in 0..50 {
        let (key, content) = (Some(START_KEY), Content::Announcement);
        let expires = START + HOUR * 24;
        let record = Record::sign(&secret(10 + n), NETWORK, key, 1, expires, content).unwrap();
        assert_eq!(index.store(1, record.bytes()), StoreOutcome::Kept);
    }
    index.run(HOUR * 23);
    let silent = index.index.requests.len();
    assert!(silent <= 2, "{silent} requests wait for an answer");
    assert!(index.index.jobs.len() <= 1 && index.index.waiting.is_empty());
    let sent = index.index.stats().requests_sent;
    assert!(sent < 200, "{sent} requests in a day");
    // The records expire, also from disk.
    let outputs = index.run(HOUR * 10);
    let dropped: usize = outputs
        .iter()
        .map(|output| match output {
            Output::Disk(_, DiskAction::Drop(slots)) => slots.len(),
            _ => 0,
        })
        .sum();
    assert_eq!((dropped, index.index.stats().records), (50, 0));
}

#[test]
fn only_so_many_lookups_are_made_at_a_time() {
    let mut index = Alone::new(IndexConfig { jobs_max: 3, ..IndexConfig::default() });
    index.up(1);
    let outputs: Vec<_> = (0..9).flat_map(|_| index.command(find_value(5))).collect();
    let failed = |event: &&&Event| matches!(event, Event::Failed { .. });
    assert!(events(&outputs).iter().filter(failed).count() >= 6);
    assert!(index.index.jobs.len() <= 3);
    index.command(Command::Cancel(QUERY));
    index.run(Duration::from_secs(30));
    assert_eq!(index.index.jobs.len(), 0);
    let mut few = Alone::new(IndexConfig { own_max: 2, ..IndexConfig::default() });
    for name in ["a", "b", "c", "a"] {
        few.command(publish(name));
    }
    few.command(Command::Announce { query: QUERY, secret: START_KEY });
    assert_eq!(few.index.own.len(), 2);
}
