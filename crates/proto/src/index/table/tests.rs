use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::*;
use crate::key::{Distance, KEY_BITS};
use crate::wire::index::shorten;
use crate::wire::node::Home;

const OWN: NodeId = NodeId::from_bytes([0; 32]);

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn id(number: u32) -> NodeId {
    let mut bytes = [1; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    NodeId::from_bytes(bytes)
}

fn v4(number: u32, host: u32) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from_bits((20 << 24) + (number << 8) + host), 4433))
}

/// An open peer in a network of its own.
fn open(number: u32) -> PeerAddr {
    PeerAddr { id: id(number), addrs: vec![v4(number, 1)], homes: Vec::new() }
}

/// A peer that two others signal for.
fn closed(number: u32) -> PeerAddr {
    let home = |home: u32| Home { id: id(home), addrs: vec![v4(home, 1)] };
    PeerAddr { homes: vec![home(1_000_001), home(1_000_002)], ..open(number) }
}

fn table() -> Table {
    Table::new(OWN, TableConfig::default())
}

/// Numbers whose nodes are in the bucket of a table of [`OWN`].
fn of_bucket(bucket: u32) -> impl Iterator<Item = u32> {
    let own = Key::of_node(OWN);
    (0..).filter(move |number| Key::of_node(id(*number)).common_bits(&own) == bucket)
}

fn filled(peers: u32) -> Table {
    let mut table = table();
    for number in 0..peers {
        table.insert(at(0), &open(number), None);
    }
    table
}

#[test]
fn the_nearest_are_those_of_a_full_search() {
    let mut table = filled(2_000);
    for number in 0..300 {
        table.failed(id(number));
    }
    for target in (0..200).map(|number| Key::of_node(id(number * 31 + 7))) {
        let mut all: Vec<_> = table.iter().filter(|entry| !entry.is_stale()).collect();
        all.sort_by_key(|entry| entry.key().distance(&target));
        for n in [0, 1, 4, 12, 20, 10_000] {
            let ids = |entries: &[&Entry]| entries.iter().map(|e| e.id()).collect::<Vec<_>>();
            let expected = &all[..n.min(all.len())];
            assert_eq!(ids(&table.nearest(&target, n)), ids(expected));
        }
    }
}

#[test]
fn entries_are_small_and_give_their_contact_back() {
    let mut table = table();
    let mut seen = 0;
    for number in 0..20_000 {
        let peer = if number % 4 == 0 { open(number) } else { closed(number) };
        if table.insert(at(1), &peer, None) == (Inserted::New { replaced: None }) {
            assert_eq!(table.get(peer.id).unwrap().peer(), shorten(&peer));
            seen += 1;
        }
        if seen == 200 {
            break;
        }
    }
    // Each allocation costs up to 16 bytes more.
    let of = |is_open| table.iter().find(|entry| entry.is_open() == is_open).unwrap().memory() + 16;
    assert!(of(true) < 150 && of(false) < 240, "{} {}", of(true), of(false));
    let whole: usize = table.iter().map(|entry| entry.memory() + 16).sum();
    assert!(whole * 260 / 200 < 60_000, "{whole}");
    assert!(table.entries.capacity() < table.len() + GROWTH);
}

#[test]
fn a_full_bucket_makes_room_only_for_a_better_one() {
    let mut table = table();
    let mut numbers = of_bucket(0);
    let first: Vec<_> = numbers.by_ref().take(20).collect();
    for (age, number) in first.iter().enumerate() {
        let inserted = table.insert(at(age as u64), &closed(*number), None);
        assert_eq!(inserted, Inserted::New { replaced: None });
    }
    let mut next = || numbers.next().unwrap();
    let full = Inserted::Refused(Refusal::Full);
    assert_eq!(table.insert(at(30), &closed(next()), None), full);
    // One that can be dialled replaces the oldest that cannot, up to half of the bucket.
    for oldest in &first[..10] {
        let replaced = Some(id(*oldest));
        assert_eq!(table.insert(at(30), &open(next()), None), Inserted::New { replaced });
    }
    assert_eq!(table.insert(at(30), &open(next()), None), full);
    // One that failed makes room for any.
    let failed = id(first[15]);
    assert!(!table.failed(failed));
    let replaced = Some(failed);
    assert_eq!(table.insert(at(31), &closed(next()), None), Inserted::New { replaced });
    assert_eq!(table.len(), 20);
    // Another bucket has room.
    let other = of_bucket(3).next().unwrap();
    assert_eq!(table.insert(at(31), &closed(other), None), Inserted::New { replaced: None });
}

#[test]
fn a_network_has_two_entries_of_a_bucket_and_ten_of_the_table() {
    let mut table = table();
    let same = |number, host| PeerAddr { addrs: vec![v4(7, host)], ..open(number) };
    let refused = Inserted::Refused(Refusal::Subnet);
    for bucket in 0..6 {
        for (nth, number) in of_bucket(bucket).take(3).enumerate() {
            let inserted = table.insert(at(0), &same(number, number % 256), None);
            let fits = nth < 2 && bucket < 5;
            assert_eq!(inserted == refused, !fits, "bucket {bucket}, {nth}");
        }
    }
    assert_eq!(table.len(), 10);
    // One of it that failed makes room, wherever in the table it is.
    let stale = id(of_bucket(2).next().unwrap());
    table.failed(stale);
    let number = of_bucket(5).next().unwrap();
    let replaced = Some(stale);
    assert_eq!(table.insert(at(1), &same(number, 9), None), Inserted::New { replaced });
    assert_eq!(table.len(), 10);
}

#[test]
fn ten_thousand_identities_of_one_network_win_ten_entries() {
    let v6 = |number: u32| {
        let ip = Ipv6Addr::from_bits((0x2a01_04f8_0042 << 80) + u128::from(number));
        PeerAddr { addrs: vec![SocketAddr::from((ip, 1))], ..open(number) }
    };
    let v4 = |number: u32| PeerAddr { addrs: vec![v4(9, number % 256)], ..open(number) };
    let behind = |number: u32| PeerAddr { addrs: Vec::new(), ..closed(number) };
    let peers: [(&dyn Fn(u32) -> PeerAddr, usize); 3] = [(&v6, 10), (&v4, 10), (&behind, 10)];
    for (peer, most) in peers {
        let mut table = table();
        for number in 0..10_000 {
            table.insert(at(0), &peer(number), None);
        }
        assert!(table.len() <= most, "{}", table.len());
    }
}

#[test]
fn a_local_network_is_no_limit_unless_it_shall_be() {
    for (count_private, expected) in [(false, 20), (true, 2)] {
        let mut table = Table::new(OWN, TableConfig { count_private, ..TableConfig::default() });
        for number in of_bucket(0).take(20) {
            let addr = SocketAddr::from((Ipv4Addr::new(192, 168, 0, 1), 4433));
            table.insert(at(0), &PeerAddr { addrs: vec![addr], ..open(number) }, None);
        }
        assert_eq!(table.len(), expected);
    }
}

#[test]
fn who_cannot_be_an_entry_is_refused() {
    let mut table = table();
    let own = PeerAddr { id: OWN, ..open(1) };
    assert_eq!(table.insert(at(0), &own, None), Inserted::Refused(Refusal::Own));
    let nowhere = PeerAddr::from(id(1));
    assert_eq!(table.insert(at(0), &nowhere, None), Inserted::Refused(Refusal::Unreachable));
    table.insert(at(0), &open(1), None);
    assert_eq!(table.insert(at(0), &nowhere, None), Inserted::Refused(Refusal::Unreachable));
    assert!(table.is_empty());
}

#[test]
fn an_entry_that_is_heard_again_is_fresh_and_up_to_date() {
    let mut table = table();
    table.insert(at(1), &open(1), Some(Duration::from_millis(80)));
    table.failed(id(1));
    assert!(table.get(id(1)).unwrap().is_stale() && table.nearest(&table.own, 1).is_empty());
    assert_eq!(table.insert(at(2), &open(1), Some(Duration::from_millis(160))), Inserted::Known);
    let entry = table.get(id(1)).unwrap();
    assert_eq!((entry.seen(), entry.is_stale()), (at(2), false));
    assert_eq!(entry.rtt(), Some(Duration::from_millis(90)));
    // Another network, a way to be signalled: the entry is that of the same peer.
    let moved = PeerAddr { addrs: vec![v4(5_000, 1)], ..closed(1) };
    assert_eq!(table.insert(at(3), &moved, None), Inserted::Known);
    let entry = table.get(id(1)).unwrap();
    assert_eq!((entry.peer(), entry.is_open()), (moved, false));
    assert_eq!(entry.rtt(), Some(Duration::from_millis(90)));
    table.heard(at(4), id(1), None);
    assert_eq!(table.get(id(1)).unwrap().seen(), at(4));
    assert!(table.remove(id(1)) && !table.remove(id(1)) && table.is_empty());
}

#[test]
fn two_failures_remove_unless_nobody_was_heard_in_between() {
    let mut table = filled(50);
    let before = table.len();
    let known: Vec<_> = table.iter().map(|entry| entry.id()).collect();
    // Cut off: everybody fails, and is still there afterwards.
    for _ in 0..5 {
        known.iter().for_each(|id| assert!(!table.failed(*id)));
    }
    assert_eq!(table.len(), before);
    assert!(table.nearest(&table.own, 20).is_empty());
    assert_eq!(table.nearest_where(&table.own, 20, |_| true).len(), 20);
    table.heard(at(9), known[0], None);
    assert!(table.failed(known[1]) && table.get(known[1]).is_none());
    assert!(!table.failed(known[0]) && !table.failed(known[0]));
}

#[test]
fn each_bucket_is_looked_at_once_in_an_hour_if_it_is_quiet() {
    let mut table = filled(3_000);
    let own = Key::of_node(OWN);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut due = |table: &mut Table, now| {
        let targets = core::iter::from_fn(|| table.refresh_target(now, &mut rng));
        targets.map(|target| target.common_bits(&own)).collect::<Vec<_>>()
    };
    // The own key stands for all the near buckets; the far ones were heard from just now.
    let far = table.far_buckets();
    assert!((5..12).contains(&far), "{far}");
    assert_eq!(due(&mut table, at(0)), [KEY_BITS]);
    assert_eq!(due(&mut table, at(3_599)), []);
    let mut all = due(&mut table, at(3_600));
    all.sort_unstable();
    assert_eq!(all, (0..far).chain([KEY_BITS]).collect::<Vec<_>>());
    // Whatever is looked up for any other reason need not be.
    for number in 0..500 {
        table.looked_up(at(7_000), &Key::of_node(id(number)));
    }
    assert_eq!(due(&mut table, at(7_200)).iter().filter(|bucket| **bucket < 4).count(), 0);
}

#[test]
fn an_empty_table_asks_for_its_surroundings() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut table = table();
    assert_eq!(table.refresh_target(at(0), &mut rng), Some(Key::of_node(OWN)));
    assert_eq!(table.refresh_target(at(1), &mut rng), None);
}

#[test]
fn random_entries_are_drawn_evenly() {
    let table = filled(40);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut drawn = vec![0; 40];
    for _ in 0..2_000 {
        let sample = table.random(&mut rng, 4, |entry| entry.id() != id(0));
        let distinct: BTreeSet<_> = sample.iter().map(|entry| entry.id()).collect();
        assert_eq!(distinct.len(), 4);
        for (number, drawn) in drawn.iter_mut().enumerate() {
            *drawn += usize::from(distinct.contains(&id(number.try_into().unwrap())));
        }
    }
    let expected = 2_000 * 4 / (table.len() - 1);
    let others = table.len() - 1;
    assert_eq!(
        drawn.iter().filter(|n| (expected * 3 / 4..expected * 4 / 3).contains(*n)).count(),
        others
    );
    assert_eq!(table.random(&mut rng, 100, |_| true).len(), table.len());
}

#[test]
fn an_answer_names_the_nearest_and_some_of_those_behind() {
    let table = filled(3_000);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let target = Key::topic_secret("a");
    let near: Vec<_> = table.nearest(&target, 40).iter().map(|entry| entry.id()).collect();
    let mut named = BTreeSet::new();
    for _ in 0..100 {
        let answer: Vec<_> = table.answer(&target, 12, &mut rng).iter().map(|e| e.id()).collect();
        assert_eq!(answer[..6], near[..6]);
        let ranks: Vec<_> =
            answer.iter().map(|id| near.iter().position(|other| other == id).unwrap()).collect();
        assert!(ranks.is_sorted() && ranks.len() == 12);
        assert_eq!(ranks.iter().filter(|rank| **rank < 20).count(), 9);
        named.extend(answer);
    }
    assert_eq!(named.len(), 40);
    for peers in 0..30 {
        let table = filled(peers);
        assert_eq!(table.answer(&target, 12, &mut rng).len(), table.len().min(12));
    }
}

#[test]
fn networks_are_told_apart() {
    let of = |text: &str| Subnet::of(text.parse().unwrap());
    assert_eq!(of("20.1.2.3"), of("20.1.2.200"));
    assert_eq!(of("20.1.2.3"), of("::ffff:20.1.2.9"));
    assert_ne!(of("20.1.2.3"), of("20.1.3.3"));
    assert_eq!(of("2a01:4f8:1:2::1"), of("2a01:4f8:1:ffff::9"));
    assert_ne!(of("2a01:4f8:1::1"), of("2a01:4f8:2::1"));
    assert_ne!(of("0.0.0.0"), of("::"));
}

proptest! {
    /// Whatever is done, the entries are in order, different, and within the limits.
    #[test]
    fn limits_hold_whatever_comes(
        steps in prop::collection::vec((0u32..400, 0u32..40, 0u8..6, any::<bool>()), 1..200)
    ) {
        let config = TableConfig { k: 4, per_subnet_table: 5, ..TableConfig::default() };
        let mut table = Table::new(OWN, config);
        for (time, (number, network, step, is_open)) in steps.into_iter().enumerate() {
            let peer = if is_open { open(number) } else { closed(number) };
            let peer = PeerAddr { addrs: vec![v4(network, 1), v4(network / 2, 2)], ..peer };
            match step {
                0 => drop(table.failed(peer.id)),
                1 => drop(table.remove(peer.id)),
                _ => drop(table.insert(at(time as u64), &peer, None)),
            }
            if time % 8 != 0 {
                continue;
            }
            prop_assert!(table.heads.is_sorted_by(|a, b| a < b));
            prop_assert!(table.heads.iter().copied().eq(table.iter().map(|e| e.key().head())));
            for entry in table.iter() {
                let bucket = &table.entries[table.bucket(&entry.key())];
                prop_assert!(bucket.len() <= 4);
                for subnet in entry.subnets.into_iter().flatten() {
                    prop_assert!(bucket.iter().filter(|other| other.is_of(subnet)).count() <= 2);
                    prop_assert!(table.iter().filter(|other| other.is_of(subnet)).count() <= 5);
                }
            }
        }
    }

    /// Keys that share a prefix of any length are the run of that length.
    #[test]
    fn runs_are_what_shares_a_prefix(bits in 0u32..=256, bytes in any::<[u8; 32]>()) {
        let (key, rest) = (Key::from_bytes(bytes), [0x5a; KEY_LEN]);
        prop_assert!(splice(&key, bits, rest).common_bits(&key) >= bits);
        if bits < KEY_BITS {
            prop_assert_eq!(flip(&key, bits).common_bits(&key), bits);
        }
        prop_assert_eq!(key.distance(&key), Distance::of_fraction(0.0));
    }
}
