use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use baran_proto::id::SecretKey;
use baran_proto::record::{Content, Record};
use baran_proto::time::UnixTime;
use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::slot::{self, PEERS_MAX, SLOTS, Seen};

const NET: &str = "our-club";
const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const SEQUENCE: i64 = 1_800_000_000;

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::from_seed([1; 32])
}

fn secret(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([20 + n, 0, 0, 7], 4433))
}

fn node(n: u8) -> Record {
    slot::own(&secret(n), NET, NOW, &[addr(n)]).expect("valid")
}

fn seen(sequence: i64, records: &[Record]) -> Seen {
    let mut seen = Seen::default();
    seen.take(NET, NOW, sequence, &value(records.iter().map(Record::bytes)));
    seen
}

fn value<'a>(records: impl IntoIterator<Item = &'a Bytes>) -> Vec<u8> {
    let mut value = vec![1];
    for bytes in records {
        value.extend(u16::try_from(bytes.len()).expect("short").to_be_bytes());
        value.extend_from_slice(bytes);
    }
    value
}

fn picked(seen: &Seen) -> BTreeSet<SocketAddr> {
    seen.pick(&[], &mut rng()).iter().map(|peer| peer.addrs[0]).collect()
}

#[test]
fn each_network_and_slot_has_a_key_of_its_own() {
    let keys: BTreeSet<_> = ["main", NET]
        .iter()
        .flat_map(|network| (0..SLOTS).map(|number| slot::key(network, number).to_bytes()))
        .collect();
    assert_eq!(keys.len(), 2 * usize::from(SLOTS));
}

#[test]
fn a_node_writes_itself_beside_what_is_there_as_far_as_it_fits() {
    let mut slot = Seen::default();
    let mut written = 0;
    for n in 0..20 {
        let own = node(n);
        written += usize::from(slot.has_room(&own));
        let (sequence, value) = slot.with(&own, NOW, &mut rng()).unwrap();
        assert!(value.len() < 996 && sequence >= SEQUENCE);
        let mut next = Seen::default();
        next.take(NET, NOW, sequence, &value);
        assert!(picked(&next).contains(&addr(n)), "the writer is listed");
        let others = slot.len().min(written - 1);
        assert!(next.len() > others, "{} stay beside it", next.len() - 1);
        slot = next;
    }
    assert!((4..=8).contains(&written), "{written} nodes in a slot");
}

#[test]
fn sequences_go_up_and_one_from_far_ahead_is_left_alone() {
    let own = node(1);
    let next = |sequence| seen(sequence, &[]).with(&own, NOW, &mut rng()).map(|(next, _)| next);
    assert_eq!(next(5), Some(SEQUENCE));
    assert_eq!(next(SEQUENCE), Some(SEQUENCE + 1));
    assert_eq!(next(i64::MIN), Some(SEQUENCE));
    assert_eq!(next(SEQUENCE + 700), None);
    assert_eq!(next(i64::MAX), None);
}

#[test]
fn a_full_slot_is_written_anew_when_it_is_about_to_be_forgotten() {
    let own = node(1);
    let mut full = Vec::new();
    while seen(SEQUENCE, &full).has_room(&own) {
        full.push(node(u8::try_from(full.len()).unwrap() + 2));
    }
    let until = |hours: u64| Some(NOW + Duration::from_secs(3600 * hours));
    assert!(!seen(SEQUENCE - 60, &full).wants(NOW, &own, None));
    assert!(seen(SEQUENCE - 2_000, &full).wants(NOW, &own, None));
    assert!(seen(SEQUENCE - 60, &full[..2]).wants(NOW, &own, None));
    assert!(seen(SEQUENCE - 60, &full[..2]).wants(NOW, &own, until(1)));
    assert!(!seen(SEQUENCE - 60, &full[..2]).wants(NOW, &own, until(3)));
    assert!(!seen(i64::MIN, &full).wants(NOW, &own, None));
}

#[test]
fn records_that_are_forged_foreign_expired_or_of_another_kind_are_dropped() {
    let good = node(1);
    let mut forged = node(2).bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let foreign = slot::own(&secret(3), "main", NOW, &[addr(3)]).unwrap();
    let past = UnixTime::from_secs(NOW.as_secs() - 4 * 3600);
    let expired = slot::own(&secret(4), NET, past, &[addr(4)]).unwrap();
    let future = NOW + Duration::from_secs(24 * 3600);
    let future = slot::own(&secret(5), NET, future, &[addr(5)]).unwrap();
    let content = Content::Value { name: "a".into(), value: Bytes::from_static(b"b") };
    let other = Record::sign(&secret(6), NET, None, 1, NOW + Duration::from_secs(60), content);
    let (forged, other) = (Bytes::from(forged), other.unwrap());
    for bad in [&forged, foreign.bytes(), expired.bytes(), future.bytes(), other.bytes()] {
        let mut slot = Seen::default();
        slot.take(NET, NOW, 1, &value([bad, good.bytes()]));
        assert_eq!(picked(&slot), BTreeSet::from([addr(1)]));
    }
    // Of two editions the newer record counts, whatever the sequence of the item.
    let later = NOW + Duration::from_secs(60);
    let moved = slot::own(&secret(1), NET, later, &[addr(9)]).unwrap();
    for order in [[9, 1], [1, 9]] {
        let mut slot = Seen::default();
        for n in order {
            let record = if n == 9 { &moved } else { &good };
            slot.take(NET, NOW, i64::from(n), &value([record.bytes()]));
        }
        assert_eq!(picked(&slot), BTreeSet::from([addr(9)]));
    }
}

#[test]
fn only_public_addresses_and_allowed_ones_are_dialled() {
    let addrs = ["192.168.1.1:4433", "20.0.0.1:53", "127.0.0.1:4433", "[::ffff:10.0.0.1]:4433"];
    let records: Vec<_> = (0..)
        .zip(addrs)
        .map(|(n, addr)| slot::own(&secret(n), NET, NOW, &[addr.parse().unwrap()]).unwrap())
        .collect();
    let seen = seen(1, &records);
    assert_eq!(seen.pick(&[], &mut rng()), []);
    let allowed = ["10.0.0.0/8".parse().unwrap()];
    let found = seen.pick(&allowed, &mut rng());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].addrs, ["10.0.0.1:4433".parse().unwrap()]);
}

#[test]
fn many_identities_of_one_network_leave_room_for_the_others() {
    let mut all = Seen::default();
    for n in 0..40 {
        let crowd = slot::own(&secret(n), NET, NOW, &[([45, 0, n, 1], 4433).into()]).unwrap();
        all.merge(&seen(1, &[crowd]));
    }
    for n in 100..105 {
        all.merge(&seen(1, &[node(n)]));
    }
    let found = picked(&all);
    assert_eq!(found.len(), PEERS_MAX);
    assert!((100..105).all(|n| found.contains(&addr(n))), "{found:?}");
}

#[test]
fn garbage_never_panics_and_finds_nobody() {
    let good = value([node(1).bytes()]);
    for len in 0..good.len() {
        let mut slot = Seen::default();
        slot.take(NET, NOW, i64::MAX, &good[..len]);
        assert_eq!(slot.len(), 0);
    }
    for byte in 0..good.len() {
        let mut bad = good.clone();
        bad[byte] ^= 0x55;
        let mut slot = Seen::default();
        slot.take(NET, NOW, i64::MIN, &bad);
        assert_eq!(slot.len(), 0);
    }
    let mut slot = Seen::default();
    slot.take(NET, NOW, 0, &[1; 5_000]);
    slot.take(NET, NOW, 0, &[]);
    assert_eq!(slot.len(), 0);
}
