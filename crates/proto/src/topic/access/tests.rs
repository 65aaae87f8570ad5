use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::epoch::EpochChange;
use super::*;

const NOW: UnixTime = UnixTime::from_secs(1_000);
const S: [u8; SECRET_LEN] = [7; SECRET_LEN];

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes([byte; 32])
}

fn id(byte: u8) -> NodeId {
    key(byte).id()
}

/// Founded by node 1 with the root key 0.
fn founded() -> Access {
    Access::found(&S, key(0), id(1))
}

/// Node `joiner` joins by an invite of `access`, whose node is `signer`. The bearer's key is
/// `joiner + 100`.
fn join(access: &Access, signer: u8, joiner: u8, rank: Rank) -> Access {
    let invite = invite(access, signer, joiner + 100, rank, None).unwrap();
    invite.to_text().parse::<TopicInvite>().unwrap().join(id(joiner)).unwrap()
}

fn invite(
    access: &Access,
    signer: u8,
    bearer: u8,
    rank: Rank,
    expires: Option<UnixTime>,
) -> Result<TopicInvite, AccessError> {
    access.invite(&key(signer), key(bearer), rank, expires, None, &[])
}

fn refused(bytes: &[u8]) {
    assert!(matches!(Access::decode(bytes), Err(AccessError::Malformed(_))));
}

/// The same access on the disk with something changed.
fn changed(access: &Access, change: fn(&mut Form)) -> Result<Access, AccessError> {
    let mut form = minicbor::decode(&access.encode()).unwrap();
    change(&mut form);
    Access::decode(&minicbor::to_vec(form).unwrap())
}

#[test]
fn the_founder_may_manage_for_ever() {
    let access = founded();
    assert_eq!(access.rank(UnixTime::from_secs(u64::MAX)), Rank::Manage);
    assert_eq!(access.chain().unwrap().verify(access.keys().id, NOW), Ok(access.grant().unwrap()));
    assert_eq!(access.keys().id.as_bytes(), id(0).as_bytes());
    assert_eq!(access.newest_read_key(), Some((0, &first_read_key(&S))));
    assert_eq!(access.root().unwrap().id(), id(0));
}

#[test]
fn everybody_may_write_in_a_public_topic() {
    let mut access = Access::public("cats").unwrap();
    assert_eq!(access.rank(NOW), Rank::Write);
    assert_eq!((access.name(), access.chain()), (Some("cats"), None));
    assert!(!access.learn(0, S) && access.newest_read_key().is_none());
    let joined = join(&access, 1, 2, Rank::Manage);
    assert_eq!(joined.encode(), access.encode());
    assert_eq!(joined.rank(NOW), Rank::Write);
}

#[test]
fn names_are_bounded() {
    let longest = "x".repeat(NAME_LEN_MAX);
    assert!(Access::public(&longest).is_ok());
    let error = |name: &str| Access::public(name).unwrap_err();
    assert_eq!(error(&format!("{longest}x")), AccessError::Name { len: NAME_LEN_MAX + 1 });
    assert_eq!(error(""), AccessError::Name { len: 0 });
}

#[test]
fn who_joins_has_the_rank_of_the_invite_and_the_same_keys() {
    let founded = founded();
    for rank in Rank::ALL {
        let joined = join(&founded, 1, 2, rank);
        assert_eq!(joined.rank(NOW), rank);
        assert_eq!(*joined.keys(), *founded.keys());
        assert_eq!(joined.read_key(0).is_some(), rank >= Rank::Read);
        assert!(joined.root().is_none());
        let chain = joined.chain().unwrap();
        let grant = Grant { subject: id(2), rank, expires: None };
        assert_eq!(chain.verify(founded.keys().id, NOW), Ok(grant));
        assert!(chain.passes_through(id(102)) && chain.passes_through(id(1)));
    }
}

#[test]
fn an_invite_serves_many_each_with_a_chain_of_its_own() {
    let invite = invite(&founded(), 1, 100, Rank::Write, None).unwrap();
    let joined = [2, 3].map(|node| invite.join(id(node)).unwrap());
    assert_eq!(joined.each_ref().map(|access| access.grant().unwrap().subject), [id(2), id(3)]);
}

#[test]
fn a_rank_expires_and_the_keys_remain() {
    let expires = Some(NOW);
    let invite = invite(&founded(), 1, 100, Rank::Write, expires).unwrap();
    let joined = invite.join(id(2)).unwrap();
    assert_eq!(joined.rank(UnixTime::from_secs(999)), Rank::Write);
    assert_eq!(joined.rank(NOW), Rank::Relay);
    assert_eq!(joined.grant().unwrap().expires, expires);
    assert!(joined.read_key(0).is_some());
}

#[test]
fn members_pass_on_what_they_hold_and_no_more() {
    let founded = founded();
    let reader = join(&founded, 1, 2, Rank::Read);
    assert_eq!(join(&reader, 2, 3, Rank::Read).rank(NOW), Rank::Read);
    let widened = CapabilityError::Widened { link: 4 };
    let error = invite(&reader, 2, 103, Rank::Write, None).unwrap_err();
    assert_eq!(error, AccessError::Capability(widened));
    let error = invite(&reader, 9, 103, Rank::Read, None).unwrap_err();
    assert_eq!(error, AccessError::Capability(CapabilityError::NotTheSubject));
    // The root key signs itself, wherever it is.
    assert_eq!(join(&founded, 0, 4, Rank::Manage).chain().unwrap().len(), 2);
}

#[test]
fn an_invite_that_nobody_could_join_by_is_not_made() {
    let mut access = founded();
    for node in 1..=3 {
        access = join(&access, node, node + 1, Rank::Read);
    }
    assert_eq!(access.chain().unwrap().len(), 7);
    let error = invite(&access, 4, 105, Rank::Read, None).unwrap_err();
    assert_eq!(error, AccessError::Capability(CapabilityError::TooLong));
}

#[test]
fn who_has_no_key_or_capability_cannot_give_it() {
    let blind = changed(&founded(), |form| form.reads.clear()).unwrap();
    assert_eq!(invite(&blind, 1, 100, Rank::Read, None).unwrap_err(), AccessError::NoReadKey);
    assert!(invite(&blind, 1, 100, Rank::Relay, None).is_ok());
    let bare = changed(&founded(), |form| (form.chain, form.root) = (None, None)).unwrap();
    assert_eq!(invite(&bare, 1, 100, Rank::Relay, None).unwrap_err(), AccessError::NoCapability);
    assert_eq!((bare.rank(NOW), bare.grant()), (Rank::Relay, None));
}

/// The whole way: a member is removed, one that remains reads on, and one that joins later reads
/// what was before it.
#[test]
fn a_member_that_was_removed_does_not_read_on() {
    let mut founded = founded();
    let mut stays = join(&founded, 1, 2, Rank::Write);
    let goes = key(3);
    let old = *founded.read_key(0).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let change =
        EpochChange::new(1, &[(goes.id(), 5)], &[id(1), id(2)], &[9; 32], &old, &mut rng).unwrap();
    assert_eq!(change.open_for(&goes), None);
    for (access, node) in [(&mut founded, 1), (&mut stays, 2)] {
        assert!(access.learn(change.epoch(), change.open_for(&key(node)).unwrap()));
    }
    let mut late = join(&stays, 2, 4, Rank::Read);
    assert_eq!((late.newest_read_key(), late.read_key(0)), (Some((1, &[9; 32])), None));
    assert!(late.learn(0, change.previous_with(late.read_key(1).unwrap()).unwrap()));
    assert_eq!(late.read_key(0), Some(&old));
}

#[test]
fn a_key_is_learned_once_and_replaced_by_another() {
    let mut access = founded();
    assert!(access.learn(1, [1; 32]));
    assert!(!access.learn(1, [1; 32]));
    assert!(access.learn(1, [2; 32]));
    assert_eq!(access.read_key(1), Some(&[2; 32]));
}

#[test]
fn the_earliest_keys_are_forgotten() {
    let mut access = founded();
    for epoch in 0..1_024 {
        access.learn(u32::MAX - epoch, [1; 32]);
    }
    assert_eq!(access.read_key(0), None);
    assert!(access.read_key(u32::MAX - 1_023).is_some());
    assert!(!access.learn(0, [1; 32]) && access.read_key(0).is_none());
    assert!(access.encode().len() <= ACCESS_LEN_MAX);
    assert!(Access::decode(&access.encode()).is_ok());
}

#[test]
fn the_disk_gives_back_what_it_was_given() {
    let public = Access::public("cats").unwrap();
    let mut joined = join(&founded(), 1, 2, Rank::Write);
    joined.learn(7, [1; 32]);
    for access in [founded(), public, joined] {
        let read = Access::decode(&access.encode()).unwrap();
        assert_eq!(read.encode(), access.encode());
        assert_eq!(*read.keys(), *access.keys());
        assert_eq!((read.grant(), read.rank(NOW)), (access.grant(), access.rank(NOW)));
    }
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let error = |change| changed(&founded(), change).unwrap_err();
    assert_eq!(error(|form| form.root = Some(Secret::new([5; 32]))), AccessError::NotTheRoot);
    let foreign =
        |form: &mut Form| form.chain = Some(Chain::root(&key(5), id(1), Rank::Read, None));
    assert_eq!(error(foreign), AccessError::Capability(CapabilityError::Topic));
    let malformed = |change| assert!(matches!(error(change), AccessError::Malformed(_)));
    malformed(|form| form.relay = None);
    malformed(|form| form.id = None);
    malformed(|form| form.name = Some("cats".to_owned()));
    malformed(|form| form.reads = (0..1_025).map(|at| (at, Secret::new(S))).collect());
}

#[test]
fn an_access_has_one_spelling() {
    let good = founded().encode();
    refused(&[&good[..], &[0]].concat());
    refused(&good[..good.len() - 1]);
    refused(&[]);
    refused(&[&[good[0] + 1], &good[1..], &[9, 0]].concat());
    let long = vec![0; ACCESS_LEN_MAX + 1];
    assert_eq!(Access::decode(&long).unwrap_err(), AccessError::TooLarge { len: long.len() });
}

#[test]
fn debug_shows_no_secret() {
    let invite = invite(&founded(), 1, 100, Rank::Write, None).unwrap();
    let shown = format!("{:?} {invite:?}", founded());
    let relay = relay_secret(&S);
    for secret in [relay, first_read_key(&S), [100; 32], [0; 32], *founded().keys().gossip()] {
        assert!(!shown.contains(&format!("{secret:?}")), "{shown}");
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes: Vec<u8>) {
        let _ = Access::decode(&bytes);
    }

    #[test]
    fn a_damaged_access_never_panics(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = join(&founded(), 1, 2, Rank::Write).encode();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(access) = Access::decode(&bytes) {
            prop_assert_eq!(access.encode(), bytes);
        }
    }
}
