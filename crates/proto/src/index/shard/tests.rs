use proptest::prelude::*;

use super::*;
use crate::record::{CLOCK_SKEW, Content, ttl_max};

const UNIX: UnixTime = UnixTime::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A shard, and clocks that the test moves.
struct World {
    shard: Shard,
    now: Instant,
    unix: UnixTime,
}

impl World {
    fn new(config: ShardConfig) -> Self {
        let shard = Shard::new(config, [9; 32]);
        Self { shard, now: Instant::from_micros(5), unix: UNIX }
    }

    fn admit(&mut self, record: &Record, from: Option<IpAddr>) -> Result<Admission, StoreOutcome> {
        self.shard.admit(self.now, self.unix, record, from)
    }

    /// Admits and commits; returns what that evicted.
    fn put(&mut self, record: &Record, from: Option<IpAddr>) -> Result<Vec<Slot>, StoreOutcome> {
        match self.admit(record, from)? {
            Admission::Same => Ok(Vec::new()),
            Admission::New { lifetime } => Ok(self.shard.commit(self.now, record, lifetime, from)),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.unix = self.unix + time;
    }

    fn holds(&mut self, record: &Record) -> bool {
        let slot = record.slot();
        let (found, _) = self.shard.find(self.now, &slot.key, slot.kind, None);
        found.contains(record.bytes())
    }
}

fn id(n: u32) -> NodeId {
    NodeId::from_bytes(*Key::topic_secret(&n.to_string()).as_bytes())
}

/// An address of network `net`.
fn ip(net: u32) -> Option<IpAddr> {
    let [_, _, a, b] = net.to_be_bytes();
    Some(IpAddr::from([10, a, b, 1]))
}

fn value(author: u32, name: &str, sequence: u64, expires: UnixTime) -> Record {
    let content = Content::Value { name: name.to_owned(), value: Bytes::from_static(b"value") };
    Record::unsigned(id(author), None, sequence, expires, content)
}

fn large(author: u32, name: &str) -> Record {
    let content = Content::Value { name: name.to_owned(), value: vec![7; 900].into() };
    Record::unsigned(id(author), None, 0, UNIX + DAY, content)
}

fn topic() -> Key {
    Key::topic_secret("a topic")
}

fn announcement(author: u32, sequence: u64) -> Record {
    let expires = UNIX + HOUR * 2;
    Record::unsigned(id(author), Some(topic()), sequence, expires, Content::Announcement)
}

/// All pages of the topic as one asker sees them.
fn all_pages(world: &mut World) -> Vec<Bytes> {
    let (mut seen, mut page) = (Vec::new(), None);
    loop {
        let (records, more) = world.shard.find(world.now, &topic(), RecordKind::Announcement, page);
        assert!(records.len() <= crate::wire::index::RECORDS_MAX);
        let len: usize = records.iter().map(Bytes::len).sum();
        assert!(len <= crate::wire::index::RECORDS_LEN_MAX);
        seen.extend(records);
        match more {
            Some(_) => page = more,
            None => return seen,
        }
    }
}

/// The books agree with what is there.
fn check(shard: &Shard) {
    let kept: Vec<_> = shard.iter_from(None).collect();
    let stats = shard.stats();
    assert_eq!(stats.records, kept.len());
    assert_eq!(stats.bytes, kept.iter().map(|(_, kept)| kept.bytes.len()).sum::<usize>());
    assert_eq!(stats.sequences, shard.deadlines.len());
    let announcements = kept.iter().filter(|(slot, _)| slot.kind == RecordKind::Announcement);
    let mut by_key: BTreeMap<Key, usize> = BTreeMap::new();
    announcements.for_each(|(slot, _)| *by_key.entry(slot.key).or_default() += 1);
    assert_eq!(by_key.values().sum::<usize>(), shard.announcements);
    assert!(by_key.keys().eq(shard.groups.keys()));
    for (slot, entry) in &shard.slots {
        assert!(shard.deadlines.contains(&(entry.deadline, *slot)));
        assert!(entry.kept.as_ref().is_none_or(|kept| kept.until == entry.deadline));
    }
}

#[test]
fn newer_replaces_and_older_is_refused() {
    let mut world = World::new(ShardConfig::default());
    let [old, new] = [3, 4].map(|sequence| value(1, "a", sequence, UNIX + HOUR));
    assert_eq!(world.put(&old, ip(1)), Ok(Vec::new()));
    assert_eq!(world.put(&new, ip(2)), Ok(Vec::new()));
    assert!(world.holds(&new) && !world.holds(&old));
    // An older one with a later expiry, and another one of the same sequence.
    assert_eq!(world.put(&value(1, "a", 3, UNIX + DAY), ip(1)), Err(StoreOutcome::Stale));
    assert_eq!(world.put(&value(1, "a", 4, UNIX + DAY), ip(1)), Err(StoreOutcome::Stale));
    assert_eq!(world.admit(&new, ip(3)), Ok(Admission::Same));
    assert_eq!(world.shard.stats().records, 1);
    check(&world.shard);
}

#[test]
fn nothing_takes_effect_before_it_is_committed() {
    let mut world = World::new(ShardConfig::default());
    let [first, second, third] = [1, 2, 3].map(|sequence| value(1, "a", sequence, UNIX + HOUR));
    let Ok(Admission::New { lifetime }) = world.admit(&second, ip(1)) else { panic!("new") };
    assert!(!world.holds(&second));
    assert_eq!(world.shard.stats(), ShardStats::default());
    // The same again is as good, an older one is not, a newer one goes ahead.
    assert_eq!(world.admit(&second, ip(2)), Ok(Admission::New { lifetime }));
    assert_eq!(world.admit(&first, ip(1)), Err(StoreOutcome::Stale));
    assert_eq!(world.admit(&third, ip(1)), Ok(Admission::New { lifetime }));
    assert!(world.shard.commit(world.now, &third, lifetime, ip(1)).is_empty());
    // What was overtaken on the way to disk has no effect.
    assert!(world.shard.commit(world.now, &second, lifetime, ip(1)).is_empty());
    assert!(world.holds(&third));
    check(&world.shard);
}

#[test]
fn what_cannot_be_written_leaves_no_trace() {
    let config = ShardConfig { pending_max: 1, ..ShardConfig::default() };
    let mut world = World::new(config);
    let record = value(1, "a", 9, UNIX + HOUR);
    assert!(world.admit(&record, ip(1)).is_ok());
    let other = value(2, "a", 9, UNIX + HOUR);
    assert_eq!(world.admit(&other, ip(1)), Err(StoreOutcome::Unable));
    world.shard.cancel(&record.slot(), record.sequence());
    assert_eq!(world.put(&other, ip(1)), Ok(Vec::new()));
    assert_eq!(world.put(&value(1, "a", 1, UNIX + HOUR), ip(1)), Ok(Vec::new()));
    check(&world.shard);
}

#[test]
fn sequences_outlive_their_records() {
    let mut world = World::new(ShardConfig::default());
    let record = value(1, "a", 5, UNIX + HOUR);
    let slot = record.slot();
    world.put(&record, ip(1)).expect("kept");
    world.pass(HOUR + CLOCK_SKEW);
    assert!(!world.holds(&record), "expired before it is swept");
    let gone = world.shard.expire(world.now);
    assert_eq!(gone, Gone { records: vec![slot], sequences: vec![] });
    assert_eq!(world.shard.stats().records, 0);
    world.pass(ttl_max(RecordKind::Value) + CLOCK_SKEW);
    assert_eq!(world.shard.expire(world.now), Gone::default());
    let later = world.unix + DAY;
    assert_eq!(world.put(&value(1, "a", 4, later), ip(1)), Err(StoreOutcome::Stale));
    assert_eq!(world.put(&value(1, "a", 5, later), ip(1)), Err(StoreOutcome::Stale));
    world.pass(CLOCK_SKEW);
    assert_eq!(world.shard.next_expiry(), Some(world.now));
    let gone = world.shard.expire(world.now);
    assert_eq!(gone, Gone { records: vec![], sequences: vec![slot] });
    assert_eq!(world.shard.next_expiry(), None);
    check(&world.shard);
}

#[test]
fn expired_and_future_records_are_a_matter_of_clocks() {
    let mut world = World::new(ShardConfig::default());
    let expired = value(1, "a", 1, UnixTime::from_secs(UNIX.as_secs() - 600));
    assert_eq!(world.put(&expired, ip(1)), Err(StoreOutcome::Clock));
    let future = UNIX + ttl_max(RecordKind::Value) + CLOCK_SKEW;
    assert!(world.put(&value(1, "a", 1, future), ip(1)).is_ok());
    let future = value(1, "a", 2, future + Duration::from_secs(1));
    assert_eq!(world.put(&future, ip(1)), Err(StoreOutcome::Clock));
}

#[test]
fn jumps_of_the_calendar_expire_nothing_and_keep_nothing() {
    let mut world = World::new(ShardConfig::default());
    let record = value(1, "a", 1, UNIX + HOUR);
    world.put(&record, ip(1)).expect("kept");
    world.unix = UNIX + DAY * 3_650;
    assert_eq!(world.shard.expire(world.now), Gone::default());
    assert!(world.holds(&record));
    assert_eq!(world.admit(&record, ip(1)), Ok(Admission::Same));
    // A day back: the record goes when its time has passed, and the replay of it stays out.
    world.unix = UnixTime::from_secs(UNIX.as_secs() - DAY.as_secs());
    world.now += HOUR + CLOCK_SKEW;
    assert_eq!(world.shard.expire(world.now).records, [record.slot()]);
    assert_eq!(world.put(&record, ip(1)), Err(StoreOutcome::Stale));
}

#[test]
fn a_restart_forgets_no_sequence() {
    for sequences_first in [true, false] {
        let mut world = World::new(ShardConfig::default());
        let kept = value(1, "a", 5, UNIX + HOUR);
        let expired = value(2, "b", 5, UNIX);
        let restore = |world: &mut World| {
            assert!(world.shard.restore(world.now, world.unix, &kept));
            assert!(!world.shard.restore(world.now, world.unix + HOUR, &expired));
        };
        if !sequences_first {
            restore(&mut world);
        }
        for record in [&kept, &expired] {
            let lifetime = memory(RecordKind::Value);
            world.shard.restore_sequence(world.now, record.slot(), 5, lifetime);
        }
        if sequences_first {
            restore(&mut world);
        }
        assert!(world.holds(&kept));
        for (author, name) in [(1, "a"), (2, "b")] {
            let older = value(author, name, 4, UNIX + DAY);
            assert_eq!(world.put(&older, ip(1)), Err(StoreOutcome::Stale));
            assert!(world.put(&value(author, name, 6, UNIX + DAY), ip(1)).is_ok());
        }
        check(&world.shard);
    }
}

#[test]
fn a_clock_that_is_not_set_yet_costs_no_record() {
    let mut world = World::new(ShardConfig::default());
    let record = value(1, "a", 5, UNIX + HOUR);
    assert!(world.shard.restore(world.now, UnixTime::from_secs(0), &record));
    assert!(world.holds(&record));
    world.now += memory(RecordKind::Value);
    assert_eq!(world.shard.expire(world.now).records, [record.slot()]);
}

#[test]
fn keys_of_one_peer_push_nobody_out() {
    let mut world = World::new(ShardConfig::default());
    let honest: Vec<_> = (0..100).map(|n| value(n, "mine", 1, UNIX + DAY)).collect();
    for (net, record) in (100..).zip(&honest) {
        world.put(record, ip(net)).expect("kept");
    }
    let before = world.shard.stats();
    // As one author, then with an identity for every key.
    let mut full = 0;
    for n in 0..100_000u32 {
        let author = if n < 10_000 { 1_000 } else { n };
        let key = Key::topic_secret(&format!("{n}"));
        let expires = UNIX + HOUR;
        let record = Record::unsigned(id(author), Some(key), 1, expires, Content::Announcement);
        match world.put(&record, ip(7)) {
            Ok(evicted) => assert_eq!(evicted, []),
            Err(outcome) => {
                assert_eq!(outcome, StoreOutcome::Full);
                full += 1;
            }
        }
        if n == 9_999 {
            assert_eq!(world.shard.stats().records - before.records, 64);
        }
    }
    let after = world.shard.stats();
    assert_eq!(after.records - before.records, 16 << 10, "the sequences of one network");
    assert_eq!(full, 100_000 - (16 << 10));
    assert!(after.bytes - before.bytes <= ShardConfig::default().bytes_per_prefix_max);
    assert!(honest.iter().all(|record| world.holds(record)));
    check(&world.shard);
}

#[test]
fn limits_of_bytes_bind() {
    let len = large(0, "a").bytes().len();
    let config = ShardConfig { bytes_per_prefix_max: 3 * len, ..ShardConfig::default() };
    let mut world = World::new(config);
    for n in 0..3 {
        world.put(&large(n, "a"), ip(1)).expect("kept");
    }
    assert_eq!(world.put(&large(3, "a"), ip(1)), Err(StoreOutcome::Full));
    assert!(world.put(&large(3, "a"), ip(2)).is_ok());
    // Replacing one's own needs no more room, and room is free again when records expire.
    let newer = Content::Value { name: "a".to_owned(), value: vec![8; 900].into() };
    let newer = Record::unsigned(id(0), None, 1, UNIX + HOUR, newer);
    assert!(world.put(&newer, ip(1)).is_ok());
    world.pass(HOUR + CLOCK_SKEW);
    assert_eq!(world.shard.expire(world.now).records, [newer.slot()]);
    assert!(world.put(&large(4, "a"), ip(1)).is_ok());
    check(&world.shard);
}

#[test]
fn records_under_way_count() {
    let config = ShardConfig { slots_per_author_max: 2, ..ShardConfig::default() };
    let mut world = World::new(config);
    assert!(world.admit(&large(1, "a"), ip(1)).is_ok());
    assert!(world.admit(&large(1, "b"), ip(1)).is_ok());
    assert_eq!(world.admit(&large(1, "c"), ip(1)), Err(StoreOutcome::Full));
    // A node record does not count against values and announcements.
    let content = Content::Node { addrs: vec![], homes: vec![], versions: vec![1] };
    let node = Record::unsigned(id(1), None, 1, UNIX + HOUR, content);
    assert!(world.put(&node, ip(1)).is_ok());
    check(&world.shard);
}

#[test]
fn a_full_shard_takes_from_who_uses_most() {
    let len = large(0, "a").bytes().len();
    let config = ShardConfig { bytes_max: 20 * len, ..ShardConfig::default() };
    let mut world = World::new(config);
    for n in 0..20 {
        let net = if n < 4 { 1 } else { 2 };
        world.put(&large(n, "a"), ip(net)).expect("kept");
    }
    let mut put = |author, net| {
        let evicted = world.put(&large(author, "b"), ip(net))?;
        Ok(evicted.iter().map(|slot| (4..20).any(|n| slot.author == id(n))).collect::<Vec<_>>())
    };
    assert_eq!(put(100, 2), Err(StoreOutcome::Full));
    assert_eq!(put(101, 1), Ok(vec![true]));
    assert_eq!(put(102, 3), Ok(vec![true]));
    // Until all use the same.
    let kept = (200..300).filter(|n| put(*n, 3).is_ok()).count();
    assert_eq!(kept, 6);
    assert_eq!(world.shard.stats().records, 20);
    // What was evicted may come back, if there is room, though it is not newer.
    let evicted = (4..20).find(|n| !world.holds(&large(*n, "a"))).expect("nine were");
    assert!(world.put(&large(evicted, "a"), ip(4)).is_ok());
    check(&world.shard);
}

#[test]
fn a_full_memory_of_sequences_forgets_none() {
    for config in [
        ShardConfig { sequences_max: 2, ..ShardConfig::default() },
        ShardConfig { sequences_per_author_max: 2, ..ShardConfig::default() },
        ShardConfig { sequences_per_prefix_max: 2, ..ShardConfig::default() },
    ] {
        let mut world = World::new(config);
        world.put(&value(1, "a", 5, UNIX + HOUR), ip(1)).expect("kept");
        world.put(&value(1, "b", 5, UNIX + HOUR), ip(1)).expect("kept");
        world.pass(HOUR + CLOCK_SKEW);
        assert_eq!(world.shard.expire(world.now).records.len(), 2);
        let new = |sequence, name: &str| value(1, name, sequence, UNIX + DAY);
        assert_eq!(world.put(&new(1, "c"), ip(1)), Err(StoreOutcome::Full));
        assert_eq!(world.put(&new(4, "a"), ip(1)), Err(StoreOutcome::Stale));
        assert!(world.put(&new(6, "a"), ip(1)).is_ok());
        check(&world.shard);
    }
}

/// How far counts are from being equal: about their number if they are (Pearson's chi-square).
fn unevenness(counts: &[u32]) -> f64 {
    let mean = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    counts.iter().map(|count| (f64::from(*count) - mean).powi(2) / mean).sum()
}

#[test]
fn ten_thousand_announcers_are_sampled_fairly() {
    let mut world = World::new(ShardConfig::default());
    let mut author_of = BTreeMap::new();
    for n in 0..10_000 {
        let record = announcement(n, 1);
        world.put(&record, ip(n)).expect("kept");
        author_of.insert(record.bytes().clone(), n);
    }
    let seen = all_pages(&mut world);
    assert_eq!(seen.len(), 10_000, "nobody twice");
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 10_000, "and everybody once");
    assert_eq!(world.shard.stats().keys, 1);
    // First pages: by author, in 100 classes; 148 is exceeded once in a thousand times.
    let mut counts = [0; 100];
    for _ in 0..4_000 {
        let (records, more) = world.shard.find(world.now, &topic(), RecordKind::Announcement, None);
        assert_eq!((records.len(), more.is_some()), (8, true));
        records.iter().for_each(|record| counts[author_of[record] as usize / 100] += 1);
    }
    let unevenness = unevenness(&counts);
    assert!(unevenness < 148.0, "{unevenness}");
}

#[test]
fn small_groups_are_sampled_fairly_too() {
    for members in [2, 3, 9, 20] {
        let mut world = World::new(ShardConfig::default());
        let records: Vec<_> = (0..members).map(|n| announcement(n, 1)).collect();
        for record in &records {
            world.put(record, ip(1)).expect("kept");
        }
        let mut counts = vec![0; members as usize];
        for _ in 0..2_000 {
            let (page, _) = world.shard.find(world.now, &topic(), RecordKind::Announcement, None);
            let first = records.iter().position(|record| *record.bytes() == page[0]);
            counts[first.expect("known")] += 1;
        }
        // 43.8 is exceeded once in a thousand times by 20 classes, and less often by fewer.
        assert!(unevenness(&counts) < 43.8, "{counts:?}");
    }
}

#[test]
fn a_crowded_topic_gives_no_privilege_to_the_early_or_the_insistent() {
    let config = ShardConfig { records_per_key_max: 1_000, ..ShardConfig::default() };
    let mut world = World::new(config);
    for n in 0..10_000 {
        let _ = world.put(&announcement(n, 1), ip(n));
    }
    // One tenth asks again and again.
    for again in 2..7 {
        for n in 0..1_000 {
            let _ = world.put(&announcement(n, again), ip(n));
        }
    }
    let position: BTreeMap<_, _> = (0..10_000).map(|n| (id(n), n)).collect();
    let mut counts = [0; 10];
    for (slot, _) in world.shard.iter_from(None) {
        counts[position[&slot.author] as usize / 1_000] += 1;
    }
    assert_eq!(counts.iter().sum::<u32>(), 1_000);
    assert!(unevenness(&counts) < 27.9, "{counts:?}");
    check(&world.shard);
}

#[test]
fn repair_walks_all_records_in_the_order_of_their_keys() {
    let mut world = World::new(ShardConfig::default());
    for n in 0..50 {
        world.put(&value(n, "a", 1, UNIX + HOUR), ip(1)).expect("kept");
    }
    let slots: Vec<_> = world.shard.iter_from(None).map(|(slot, _)| *slot).collect();
    assert!(slots.len() == 50 && slots.is_sorted());
    let rest: Vec<_> = world.shard.iter_from(Some(slots[20])).map(|(slot, _)| *slot).collect();
    assert_eq!(rest, slots[21..]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done in whatever order, the books agree and limits hold.
    #[test]
    fn the_books_always_agree(
        steps in prop::collection::vec((0u8..6, 0u32..6, 0u64..5, 0u32..3, 0u64..30), 1..120),
    ) {
        let config = ShardConfig {
            bytes_max: 1_500,
            records_max: 9,
            records_per_key_max: 4,
            slots_per_author_max: 3,
            bytes_per_prefix_max: 1_200,
            pending_max: 3,
            ..ShardConfig::default()
        };
        let mut world = World::new(config.clone());
        let mut waiting = Vec::new();
        for (step, author, sequence, net, wait) in steps {
            let record = match step {
                0 | 1 => announcement(author, sequence),
                _ => value(author, ["a", "b"][step as usize % 2], sequence, UNIX + HOUR),
            };
            if step < 5 {
                if let Ok(Admission::New { lifetime }) = world.admit(&record, ip(net)) {
                    waiting.push((record, lifetime, ip(net)));
                }
            } else {
                world.pass(Duration::from_secs(wait * 60));
                world.shard.expire(world.now);
            }
            if wait % 2 == 0 && let Some((record, lifetime, from)) = waiting.pop() {
                if wait % 10 == 0 {
                    world.shard.cancel(&record.slot(), record.sequence());
                } else {
                    let evicted = world.shard.commit(world.now, &record, lifetime, from);
                    let slots: Vec<_> = world.shard.iter_from(None).map(|(s, _)| *s).collect();
                    prop_assert!(evicted.iter().all(|slot| !slots.contains(slot)));
                }
            }
            check(&world.shard);
            let stats = world.shard.stats();
            prop_assert!(stats.records <= config.records_max + config.pending_max);
            prop_assert!(world.shard.groups.values().all(|group| !group.is_over(&config)));
        }
        for (record, ..) in waiting {
            world.shard.cancel(&record.slot(), record.sequence());
        }
        world.now += DAY * 30;
        world.shard.expire(world.now);
        prop_assert_eq!(world.shard.stats(), ShardStats::default());
        prop_assert_eq!(format!("{:?}", world.shard.ledger), format!("{:?}", Ledger::default()));
    }

    /// A page of anybody's making is answered with at most one page.
    #[test]
    fn foreign_pages_are_bounded(page: u64, members in 0u32..40) {
        let mut world = World::new(ShardConfig::default());
        for n in 0..members {
            world.put(&announcement(n, 1), ip(1)).expect("kept");
        }
        let kind = RecordKind::Announcement;
        let (records, _) = world.shard.find(world.now, &topic(), kind, Some(page));
        prop_assert!(records.len() <= crate::wire::index::RECORDS_MAX);
    }
}
