use proptest::prelude::*;

use super::*;

const NOW: UnixTime = UnixTime::from_secs(1_000);

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes([byte; 32])
}

fn at(secs: u64) -> Option<UnixTime> {
    Some(UnixTime::from_secs(secs))
}

fn topic(root: u8) -> TopicId {
    TopicId::from_bytes(*key(root).id().as_bytes())
}

/// From root 0 over 1, 2, … as far as is asked, all of the same rank and expiry.
fn chain(links: u8, rank: Rank, expires: Option<UnixTime>) -> Chain {
    let first = Chain::root(&key(0), key(1).id(), rank, expires);
    (1..links).fold(first, |chain, link| {
        chain.extend(&key(link), key(link + 1).id(), rank, expires).unwrap()
    })
}

/// The chain with a link that `extend` would not make, rightly signed.
fn forced(chain: &Chain, signer: &SecretKey, grant: Grant) -> Chain {
    let hash = chain.links().fold(NO_LINK, |before, link| link.hash(chain.topic, &before));
    let before = chain.links().cloned().collect();
    Chain { before, last: Link::sign(signer, chain.topic, &hash, grant), ..*chain }
}

fn check(chain: &Chain, expect: &Result<Grant, CapabilityError>) {
    assert_eq!(chain.verify(topic(0), NOW), *expect);
    // What is wrong does not depend on the journey.
    assert_eq!(Chain::decode(&chain.encode()).unwrap().verify(topic(0), NOW), *expect);
}

#[test]
fn a_chain_grants_what_its_last_link_says() {
    let whole = chain(2, Rank::Manage, None);
    check(&whole, &Ok(Grant { subject: key(2).id(), rank: Rank::Manage, expires: None }));
    let less = whole.extend(&key(2), key(3).id(), Rank::Read, at(1_001)).unwrap();
    check(&less, &Ok(Grant { subject: key(3).id(), rank: Rank::Read, expires: at(1_001) }));
    assert_eq!(less.issuers().collect::<Vec<_>>(), [0, 1, 2].map(|byte| key(byte).id()));
    assert!((0..4).all(|byte| less.passes_through(key(byte).id())));
    assert!(!less.passes_through(key(4).id()));
}

#[test]
fn an_expired_chain_grants_nothing() {
    let chain = chain(1, Rank::Write, at(1_000));
    check(&chain, &Err(CapabilityError::Expired));
    let before = UnixTime::from_secs(999);
    assert_eq!(chain.verify(topic(0), before).unwrap().expires, at(1_000));
}

#[test]
fn nobody_passes_on_more_than_it_holds() {
    let chain = chain(1, Rank::Read, at(2_000));
    let extend = |rank, expires| chain.extend(&key(1), key(2).id(), rank, expires);
    let widened = CapabilityError::Widened { link: 2 };
    let prolonged = CapabilityError::Prolonged { link: 2 };
    assert_eq!(extend(Rank::Write, at(2_000)), Err(widened.clone()));
    assert_eq!(extend(Rank::Read, at(2_001)), Err(prolonged.clone()));
    assert_eq!(extend(Rank::Read, None), Err(prolonged.clone()));
    assert!(extend(Rank::Read, at(2_000)).is_ok());
    let force =
        |rank, expires| forced(&chain, &key(1), Grant { subject: key(2).id(), rank, expires });
    check(&force(Rank::Manage, at(2_000)), &Err(widened));
    check(&force(Rank::Read, at(2_001)), &Err(prolonged.clone()));
    check(&force(Rank::Read, None), &Err(prolonged));
}

#[test]
fn only_the_subject_passes_on() {
    let chain = chain(1, Rank::Read, None);
    let extended = chain.extend(&key(2), key(2).id(), Rank::Read, None);
    assert_eq!(extended, Err(CapabilityError::NotTheSubject));
    let grant = Grant { subject: key(2).id(), rank: Rank::Read, expires: None };
    check(&forced(&chain, &key(2), grant), &Err(CapabilityError::Signature { link: 2 }));
}

#[test]
fn every_changed_field_breaks_a_signature() {
    let good = chain(3, Rank::Write, at(2_000));
    let changes: [fn(&mut Link); 5] = [
        |link| link.grant.subject = key(9).id(),
        |link| link.grant.rank = Rank::Read,
        |link| link.grant.expires = at(1_999),
        |link| link.signature[0] ^= 1,
        |link| link.signature = [0; SIGNATURE_LEN],
    ];
    for change in changes {
        let mut bad = good.clone();
        change(&mut bad.last);
        check(&bad, &Err(CapabilityError::Signature { link: 3 }));
    }
}

#[test]
fn no_expiry_is_not_an_expiry_of_zero() {
    let mut chain = chain(1, Rank::Write, None);
    chain.last.grant.expires = at(0);
    assert_eq!(chain.check(topic(0)), Err(CapabilityError::Signature { link: 1 }));
}

#[test]
fn a_chain_of_another_topic_grants_nothing() {
    let mut chain = chain(2, Rank::Write, None);
    assert_eq!(chain.verify(topic(5), NOW), Err(CapabilityError::Topic));
    chain.topic = topic(5);
    let forged = Err(CapabilityError::Signature { link: 1 });
    assert_eq!(chain.verify(topic(5), NOW), forged);
}

#[test]
fn links_hold_in_their_place_only() {
    let good = chain(3, Rank::Write, None);
    let mut swapped = good.clone();
    swapped.before.swap(0, 1);
    check(&swapped, &Err(CapabilityError::Signature { link: 1 }));
    let mut shortened = good.clone();
    shortened.before.remove(0);
    check(&shortened, &Err(CapabilityError::Signature { link: 1 }));
    // The same key holds two chains: what it signed in one does not follow the other.
    let mut other = Chain::root(&key(0), key(1).id(), Rank::Manage, None)
        .extend(&key(1), key(2).id(), Rank::Write, None)
        .unwrap();
    other.before.push(other.last);
    other.last = good.last;
    check(&other, &Err(CapabilityError::Signature { link: 3 }));
}

#[test]
fn the_longest_chain_fits_and_no_longer_one_is_made_or_read() {
    let late = at(u64::MAX);
    let longest = chain(8, Rank::Manage, late);
    assert_eq!(longest.len(), LINKS_MAX);
    assert_eq!(longest.encode().len(), 924);
    assert!(longest.verify(topic(0), NOW).is_ok());
    let longer = longest.extend(&key(8), key(9).id(), Rank::Manage, late);
    assert_eq!(longer, Err(CapabilityError::TooLong));
    let grant = Grant { subject: key(9).id(), rank: Rank::Manage, expires: late };
    let longer = forced(&longest, &key(8), grant).encode();
    assert!(matches!(Chain::decode(&longer), Err(CapabilityError::TooLarge { len: 1035 })));
    let grant = Grant { expires: None, ..longest.last.grant };
    let shorter = forced(&chain(8, Rank::Relay, None), &key(8), grant).encode();
    assert!(shorter.len() <= CHAIN_LEN_MAX, "{}", shorter.len());
    assert!(matches!(Chain::decode(&shorter), Err(CapabilityError::Malformed(_))));
}

#[test]
fn a_chain_has_one_spelling() {
    let good = chain(2, Rank::Write, at(2_000)).encode();
    let refused = |bytes: &[u8]| {
        assert!(matches!(Chain::decode(bytes), Err(CapabilityError::Malformed(_))));
    };
    refused(&[&good[..], &[0]].concat());
    refused(&good[..good.len() - 1]);
    refused(&[]);
    // A list in two bytes where one suffices, and without end.
    refused(&[&[0x98, 2], &good[1..]].concat());
    refused(&[&[0x9f], &good[1..], &[0xff]].concat());
    // No links.
    refused(&[&good[..35], &[0x80]].concat());
    // A rank that does not exist: behind the heads, the topic and the first subject.
    let mut bad = good;
    assert_eq!(bad[71], Rank::Write.number());
    bad[71] = 4;
    refused(&bad);
}

#[test]
fn cbor_holds_a_chain_as_bytes() {
    let chain = chain(2, Rank::Write, None);
    let nested = minicbor::to_vec(&chain).unwrap();
    assert_eq!(
        minicbor::decode::<&minicbor::bytes::ByteSlice>(&nested).unwrap().len(),
        nested.len() - 2
    );
    assert_eq!(minicbor::decode::<Chain>(&nested).unwrap(), chain);
}

proptest! {
    #[test]
    fn chains_round_trip(
        links in 1..=8_u8,
        rank in prop::sample::select(&Rank::ALL[..]),
        expires: Option<u64>,
    ) {
        let chain = chain(links, rank, expires.map(UnixTime::from_secs));
        prop_assert!(chain.encode().len() <= CHAIN_LEN_MAX);
        prop_assert_eq!(Chain::decode(&chain.encode()), Ok(chain));
    }

    #[test]
    fn garbage_never_panics(bytes: Vec<u8>) {
        let _ = Chain::decode(&bytes);
    }

    /// Whatever is read of a damaged chain, it is written back the same and grants nothing.
    #[test]
    fn a_damaged_chain_never_panics_and_grants_nothing(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let good = chain(3, Rank::Write, at(2_000)).encode();
        let mut bad = good.clone();
        for (at, byte) in damage {
            let at = at.index(bad.len());
            bad[at] = byte;
        }
        prop_assume!(bad != good);
        if let Ok(chain) = Chain::decode(&bad) {
            prop_assert_eq!(chain.encode(), bad);
            prop_assert!(chain.verify(topic(0), NOW).is_err());
        }
    }
}
