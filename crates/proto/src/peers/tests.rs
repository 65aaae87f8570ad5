use proptest::prelude::*;
use rand_core::SeedableRng;

use super::*;

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn id(n: u32) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    NodeId::from_bytes(bytes)
}

fn at(n: u32, ip: [u8; 4]) -> PeerAddr {
    PeerAddr { addrs: vec![(ip, 4433).into()], ..id(n).into() }
}

/// A peer of the n-th public /16.
fn public(n: u32) -> PeerAddr {
    let [_, _, high, low] = n.to_be_bytes();
    at(n, [20 + high, low, 1, 1])
}

fn cache() -> PeerCache {
    PeerCache::new([7; 32])
}

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::from_seed([1; 32])
}

fn order(cache: &PeerCache, now: UnixTime) -> Vec<NodeId> {
    cache.order(now, &mut rng()).into_iter().map(|peer| peer.id).collect()
}

/// A link that stands for so many hours, looked at every half hour.
fn link(cache: &mut PeerCache, from: UnixTime, hours: u64, peer: &PeerAddr) -> UnixTime {
    for half in 0..=hours * 2 {
        cache.seen(from + HOUR / 2 * u32::try_from(half).unwrap(), peer.clone(), true);
    }
    from + HOUR * u32::try_from(hours).unwrap()
}

#[test]
fn anchors_come_first_then_tried_then_new() {
    let mut cache = cache();
    for n in 0..20 {
        cache.seen(NOW, public(n), false);
    }
    for n in 20..30 {
        cache.seen(NOW, public(n), true);
    }
    link(&mut cache, NOW, 30, &public(24));
    let now = link(&mut cache, NOW, 40, &public(27));
    let order = order(&cache, now);
    assert_eq!(order.len(), 30);
    assert_eq!(order[..2], [id(27), id(24)]);
    assert!(order[2..10].iter().all(|peer| *peer >= id(20)), "{order:?}");
}

#[test]
fn anchors_are_of_different_prefixes() {
    let mut cache = cache();
    for (n, hours) in [(1, 50), (2, 40), (3, 1)] {
        let third = if n == 3 { [31, 7, 0, 1] } else { [30, 9, 0, u8::try_from(n).unwrap()] };
        link(&mut cache, NOW, hours, &at(n, third));
    }
    assert_eq!(order(&cache, NOW + DAY * 2)[..2], [id(1), id(3)]);
}

#[test]
fn a_score_halves_in_seven_days_and_counts_only_link_time() {
    let mut cache = cache();
    let now = link(&mut cache, NOW, 10, &public(1));
    let score = |cache: &PeerCache, now| cache.entry(id(1)).unwrap().score(now);
    let fresh = score(&cache, now);
    assert!((35_000.0..36_100.0).contains(&fresh), "{fresh}");
    assert!((score(&cache, now + DAY * 7) * 2.0 - fresh).abs() < 1.0);
    // Seen again after a month: an hour at most is added.
    cache.seen(now + DAY * 28, public(1), true);
    assert!((score(&cache, now + DAY * 28) - fresh / 16.0 - 3600.0).abs() < 1.0);
}

#[test]
fn a_clock_that_jumps_forgets_nobody() {
    let mut cache = cache();
    for n in 0..50 {
        cache.seen(NOW, public(n), n % 2 == 0);
    }
    let known = cache.len();
    let far = NOW + DAY * 20_000;
    cache.seen(far, public(60), true);
    assert_eq!(order(&cache, far).len(), known + 1);
    cache.seen(NOW, public(60), true);
    assert_eq!(cache.entry(id(60)).unwrap().last_seen, NOW);
    assert_eq!(order(&cache, UnixTime::from_secs(0)).len(), known + 1);
}

#[test]
fn failures_cost_rank_and_nothing_else() {
    let mut cache = cache();
    for n in 0..8 {
        cache.seen(NOW, public(n), true);
    }
    for _ in 0..1000 {
        (0..7).for_each(|n| cache.failed(id(n)));
    }
    cache.failed(id(99));
    assert_eq!(cache.len(), 8);
    let order = order(&cache, NOW);
    assert!(order[..3].contains(&id(7)), "two anchors, then whoever answers: {order:?}");
    cache.seen(NOW, public(0), true);
    assert_eq!(cache.entry(id(0)).unwrap().failures, 0);
    cache.forget(id(0));
    assert_eq!((cache.len(), cache.entry(id(0))), (7, None));
}

#[test]
fn a_small_network_loses_nobody() {
    // All members of a LAN, and of an internet of distinct prefixes.
    for secret in 0..20 {
        let mut cache = PeerCache::new([secret; 32]);
        for n in 0..40 {
            cache.seen(NOW, at(n, [192, 168, 1, u8::try_from(n + 1).unwrap()]), true);
        }
        assert!(cache.len() >= 39, "{}", cache.len());
        let mut cache = PeerCache::new([secret; 32]);
        for n in 0..24 {
            cache.seen(NOW, public(n), true);
        }
        assert_eq!(cache.len(), 24);
    }
}

#[test]
fn a_prefix_has_twelve_peers_at_most_and_the_better_ones() {
    let mut cache = cache();
    let member = |n: u32| at(n, [30, 1, u8::try_from(n % 256).unwrap(), 1]);
    for n in 0..500 {
        cache.heard(NOW, member(n), Some([40, n.to_be_bytes()[3], 0, 1].into()));
    }
    assert!(cache.len() <= PER_PREFIX_MAX);
    for n in 500..600 {
        cache.seen(NOW, member(n), true);
    }
    assert_eq!(cache.len(), PER_PREFIX_MAX);
    assert!(cache.entries().all(|entry| entry.is_tried), "tried ones took the places of new ones");
    let six = |n: u32| PeerAddr {
        addrs: vec![format!("[2a00:1450:{n:x}::1]:4433").parse().unwrap()],
        ..id(1000 + n).into()
    };
    (0..50).for_each(|n| cache.seen(NOW, six(n), true));
    assert_eq!(cache.len(), 2 * PER_PREFIX_MAX);
}

#[test]
fn a_flood_fills_its_share_and_pushes_out_no_tried_peer() {
    let mut cache = cache();
    let honest: Vec<_> = (0..60).map(public).collect();
    for peer in &honest {
        cache.seen(NOW, peer.clone(), true);
    }
    let tried = cache.len();
    // 5,000 named peers of all prefixes, from one namer.
    let namer: IpAddr = [77, 7, 7, 7].into();
    for n in 0..5_000u32 {
        let [a, b, c, d] = n.wrapping_mul(2_654_435_761).to_be_bytes();
        cache.heard(NOW, at(1_000_000 + n, [a, b, c, d]), Some(namer));
    }
    let new = cache.len() - tried;
    assert!(new <= 4 * BUCKET_LEN, "{new} by one namer");
    // And linked ones from eight prefixes, better than the honest in nothing.
    for n in 0..5_000u32 {
        let [_, _, third, fourth] = (n / 8).to_be_bytes();
        let ip = [90, n.to_be_bytes()[3] % 8, third, fourth];
        cache.seen(NOW + DAY, at(2_000_000 + n, ip), true);
    }
    let is_kept = |peer: &&PeerAddr| cache.entry(peer.id).is_some_and(|entry| entry.is_tried);
    let kept = honest.iter().filter(is_kept).count();
    assert!(kept * 2 > tried, "{kept} of {tried}");
    assert!(cache.len() <= ENTRIES_MAX);
}

#[test]
fn what_others_say_of_a_tried_peer_changes_nothing() {
    let mut cache = cache();
    cache.seen(NOW, public(1), true);
    let before = cache.clone();
    cache.heard(NOW + HOUR, at(1, [66, 6, 6, 6]), None);
    assert_eq!(cache, before);
    // Nor does the second word about a new one, until it was tried in vain.
    cache.heard(NOW, public(2), None);
    cache.heard(NOW, at(2, [66, 6, 6, 6]), Some([77, 1, 1, 1].into()));
    assert_eq!(cache.entry(id(2)).unwrap().peer, public(2));
    cache.failed(id(2));
    cache.heard(NOW, at(2, [66, 6, 6, 6]), Some([77, 1, 1, 1].into()));
    assert_eq!(cache.entry(id(2)).unwrap().peer, at(2, [66, 6, 6, 6]));
    // Its own address of today comes first, the earlier one stays.
    cache.seen(NOW + HOUR, at(1, [31, 3, 3, 3]), true);
    let addrs = &cache.entry(id(1)).unwrap().peer.addrs;
    assert_eq!(addrs[..], [([31, 3, 3, 3], 4433).into(), public(1).addrs[0]]);
    // Nobody can be reached at nothing.
    cache.seen(NOW, id(3).into(), true);
    cache.seen(NOW, at(4, [224, 0, 0, 1]), true);
    assert_eq!(cache.len(), 2);
}

#[test]
fn written_and_read_again_it_is_the_same() {
    let mut cache = cache();
    for n in 0..2_000u32 {
        let mut peer = public(n % 3000);
        peer.addrs.extend((0..7u8).map(|k| SocketAddr::from(([10, 0, k, 1], 4433))));
        let home = |k| Home { id: id(k), addrs: vec![([9, 9, 9, 9], 1).into(); 4] };
        peer.homes = (0..3).map(home).collect();
        let now = NOW + HOUR * (n / 100);
        match n % 2 {
            0 => cache.seen(now, peer, true),
            _ => cache.heard(now, peer, Some(public(n).addrs[0].ip())),
        }
    }
    assert!(cache.len() > 240, "{}", cache.len());
    let bytes = cache.encode("main");
    assert!(bytes.len() <= CACHE_LEN_MAX, "{}", bytes.len());
    let read = PeerCache::decode(&bytes, "main").unwrap();
    assert_eq!(read.len(), cache.len());
    assert_eq!(order(&read, NOW), order(&cache, NOW));
    assert_eq!(
        read.encode("main"),
        PeerCache::decode(&read.encode("main"), "main").unwrap().encode("main")
    );
}

#[test]
fn every_damage_is_found_and_told_apart() {
    let mut cache = cache();
    (0..3).for_each(|n| cache.seen(NOW, public(n), true));
    let bytes = cache.encode("main");
    for len in 0..bytes.len() {
        assert_eq!(PeerCache::decode(&bytes[..len], "main"), Err(CacheError::Truncated));
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let expect: &[_] = match bit / 8 {
            byte if byte < 12 => &[CacheError::NotACache],
            byte if (13..17).contains(&byte) => &[CacheError::Truncated, CacheError::Damaged],
            _ => &[CacheError::Damaged],
        };
        let error = PeerCache::decode(&flipped, "main").unwrap_err();
        assert!(expect.contains(&error), "bit {bit}: {error}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(PeerCache::decode(&longer, "main"), Err(CacheError::Damaged));
    assert_eq!(PeerCache::decode(&[7; 100], "main"), Err(CacheError::NotACache));
    let other = CacheError::OtherNetwork { found: "main".into() };
    assert_eq!(PeerCache::decode(&bytes, "test"), Err(other));
    let mut newer = bytes.clone();
    newer[12] = 2;
    seal(&mut newer);
    assert_eq!(PeerCache::decode(&newer, "main"), Err(CacheError::Version { found: 2 }));
    let mut wrong = bytes.clone();
    wrong[17] = 0;
    seal(&mut wrong);
    assert!(matches!(PeerCache::decode(&wrong, "main"), Err(CacheError::Malformed(_))));
    assert!(PeerCache::decode(&bytes, "main").is_ok());
}

/// Makes the checksum fit again.
fn seal(bytes: &mut [u8]) {
    let covered = bytes.len() - 32;
    let checksum = blake3::hash(&bytes[..covered]);
    bytes[covered..].copy_from_slice(checksum.as_bytes());
}

proptest! {
    // Each case is a long run.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn garbage_with_a_good_checksum_never_panics(
        edits in proptest::collection::vec((17usize..400, any::<u8>()), 1..8),
    ) {
        let mut cache = cache();
        (0..5).for_each(|n| cache.seen(NOW, public(n), n > 2));
        let mut bytes = cache.encode("main");
        let end = bytes.len() - 32;
        for (i, byte) in edits {
            bytes[17 + (i - 17) % (end - 17)] = byte;
        }
        seal(&mut bytes);
        if let Ok(read) = PeerCache::decode(&bytes, "main") {
            prop_assert!(read.len() <= 5);
            prop_assert_eq!(read.order(NOW, &mut rng()).len(), read.len());
        }
    }

    #[test]
    fn the_limits_hold_whatever_comes(
        steps in proptest::collection::vec((0u32..400, any::<[u8; 2]>(), 0u8..4, 0u32..90), 0..600),
    ) {
        let mut cache = cache();
        for (n, [b, c], what, days) in steps {
            let now = NOW + DAY * days;
            let peer = at(n, [30 + b % 8, b % 4, c, 1]);
            match what {
                0 => cache.failed(id(n)),
                1 => cache.heard(now, peer, Some([b, c, 1, 1].into())),
                _ => cache.seen(now, peer, what == 2),
            }
        }
        for entry in cache.entries() {
            let prefix = entry.prefixes[0];
            let same = cache.entries().filter(|e| e.prefixes.contains(&prefix)).count();
            prop_assert!(same <= PER_PREFIX_MAX);
            let place = (entry.is_tried, entry.bucket);
            let together = cache.entries().filter(|e| (e.is_tried, e.bucket) == place).count();
            prop_assert!(together <= BUCKET_LEN);
        }
    }
}
