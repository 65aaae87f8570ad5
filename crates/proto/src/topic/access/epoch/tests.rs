use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::*;

const NEW: [u8; SECRET_LEN] = [1; SECRET_LEN];
const OLD: [u8; SECRET_LEN] = [2; SECRET_LEN];

fn key(number: u16) -> SecretKey {
    let mut seed = [0; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_bytes(seed)
}

fn id(number: u16) -> NodeId {
    key(number).id()
}

fn make(
    epoch: u32,
    removed: &[(NodeId, u64)],
    members: &[NodeId],
) -> Result<EpochChange, EpochError> {
    EpochChange::new(epoch, removed, members, &NEW, &OLD, &mut ChaCha8Rng::seed_from_u64(1))
}

fn change() -> EpochChange {
    make(3, &[(id(9), 7), (id(8), 0)], &[id(1), id(2), id(3)]).unwrap()
}

fn refused(bytes: &[u8]) {
    assert!(matches!(EpochChange::decode(bytes), Err(EpochError::Malformed(_))));
}

#[test]
fn members_that_remain_get_the_key_and_nobody_else() {
    let change = EpochChange::decode(&change().encode()).unwrap();
    for member in 1..=3 {
        assert_eq!(change.open_for(&key(member)), Some(NEW));
    }
    for other in [8, 9, 10] {
        assert_eq!(change.open_for(&key(other)), None);
    }
    assert_eq!(change.epoch(), 3);
    assert_eq!(change.members().len(), 3);
    assert!(change.removed().contains(&(id(9), 7)) && change.removed().contains(&(id(8), 0)));
}

#[test]
fn who_has_the_new_key_reads_the_past() {
    assert_eq!(change().previous_with(&NEW), Some(OLD));
    assert_eq!(change().previous_with(&OLD), None);
}

/// What was sealed to one member opens for no other, and in no other epoch.
#[test]
fn a_sealed_key_is_bound_to_its_member_and_epoch() {
    let mut swapped = change();
    let (first, second) = (swapped.sealed[0].1, swapped.sealed[1].1);
    swapped.sealed[0].1 = second;
    swapped.sealed[1].1 = first;
    let opened = (1..=3).filter(|member| swapped.open_for(&key(*member)).is_some());
    assert_eq!(opened.count(), 1);

    let later = EpochChange { epoch: 4, ..change() };
    assert!((1..=3).all(|member| later.open_for(&key(member)).is_none()));
    assert_eq!(later.previous_with(&NEW), None);
}

#[test]
fn an_ephemeral_key_of_small_order_opens_nothing() {
    for point in [0, 1] {
        let mut bytes = [0; SECRET_LEN];
        bytes[0] = point;
        let mut change = change();
        change.ephemeral = bytes.into();
        // Sealed by anybody, since the shared secret is known.
        let shared = Secret::new([0; SECRET_LEN]);
        for (member, sealed) in &mut change.sealed {
            let sealing = sealing_key(&shared, &bytes, &montgomery(*member).unwrap(), 3);
            *sealed = seal_once(&sealing, &NEW).into();
        }
        assert_eq!(change.open_for(&key(1)), None);
    }
}

#[test]
fn each_change_is_sealed_afresh() {
    let other = EpochChange::new(
        3,
        change().removed(),
        &[id(1), id(2), id(3)],
        &NEW,
        &OLD,
        &mut ChaCha8Rng::seed_from_u64(2),
    );
    let (one, other) = (change(), other.unwrap());
    assert_ne!(one.ephemeral, other.ephemeral);
    assert_ne!(one.previous, other.previous);
    assert!(one.sealed.iter().zip(&other.sealed).all(|(one, other)| one.1 != other.1));
}

#[test]
fn lists_are_bounded_for_the_writer() {
    let members: Vec<_> = (0..256).map(id).collect();
    let removed: Vec<_> = (1_000..1_064).map(|number| (id(number), u64::MAX)).collect();
    let largest = make(u32::MAX, &removed, &members).unwrap();
    let bytes = largest.encode();
    assert_eq!(bytes.len(), 24_700);
    assert_eq!(EpochChange::decode(&bytes), Ok(largest));

    let more: Vec<_> = (0..257).map(id).collect();
    assert_eq!(make(1, &[], &more), Err(EpochError::Members { found: 257 }));
    assert_eq!(make(1, &[], &[]), Err(EpochError::Members { found: 0 }));
    let more: Vec<_> = (1_000..1_065).map(|number| (id(number), 0)).collect();
    assert_eq!(make(1, &more, &members), Err(EpochError::Removed { found: 65 }));
}

#[test]
fn lists_are_bounded_for_the_reader() {
    let good = change();
    let mut more = good.clone();
    more.removed = (0..65).map(|number| (id(1_000 + number), 0)).collect();
    refused(&more.encode());
    let mut more = good.clone();
    more.sealed = vec![good.sealed[0]; 257];
    refused(&more.encode());
    let long = vec![0; CHANGE_LEN_MAX + 1];
    assert_eq!(EpochChange::decode(&long), Err(EpochError::TooLarge { len: long.len() }));
}

#[test]
fn everybody_is_named_once_and_in_order() {
    assert_eq!(make(1, &[], &[id(1), id(1)]), Err(EpochError::Twice(id(1))));
    assert_eq!(make(1, &[(id(1), 1), (id(1), 2)], &[id(2)]), Err(EpochError::Twice(id(1))));
    assert_eq!(make(1, &[(id(1), 1)], &[id(1)]), Err(EpochError::Twice(id(1))));
    let mut unordered = change();
    unordered.sealed.swap(0, 1);
    assert!(matches!(EpochChange::decode(&unordered.encode()), Err(EpochError::Twice(_))));
}

#[test]
fn what_is_no_key_gets_nothing() {
    let mut neutral = [0; 32];
    neutral[0] = 1;
    for bytes in [neutral, [2; 32]] {
        let id = NodeId::from_bytes(bytes);
        assert_eq!(make(1, &[], &[id]), Err(EpochError::NotAKey(id)));
    }
    assert_eq!(make(0, &[], &[id(1)]), Err(EpochError::First));
}

#[test]
fn a_change_has_one_spelling() {
    let good = change().encode();
    refused(&[&good[..], &[0]].concat());
    refused(&good[..good.len() - 1]);
    refused(&[]);
    assert_eq!(good[0], 0xa5);
    refused(&[&[0xb8, 5], &good[1..]].concat());
    // An unknown field.
    refused(&[&[0xa6], &good[1..], &[9, 0]].concat());
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes: Vec<u8>) {
        let _ = EpochChange::decode(&bytes);
    }

    #[test]
    fn a_damaged_change_never_panics(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = change().encode();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(change) = EpochChange::decode(&bytes) {
            prop_assert_eq!(change.encode(), bytes);
            let opened = change.open_for(&key(1));
            prop_assert!(opened.is_none_or(|opened| opened == NEW));
            let _ = change.previous_with(&NEW);
        }
    }
}
