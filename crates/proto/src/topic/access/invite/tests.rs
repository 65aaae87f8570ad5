use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::id::NodeId;
use crate::time::UnixTime;
use crate::topic::access::Access;
use crate::topic::access::capability::CapabilityError;
use crate::wire::node::{HOME_ADDRS_MAX, HOMES_MAX, Home};

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes([byte; 32])
}

fn id(byte: u8) -> NodeId {
    key(byte).id()
}

fn founded() -> Access {
    Access::found(&[7; 32], key(0), id(1))
}

fn peer(byte: u8) -> PeerAddr {
    PeerAddr { addrs: vec!["192.0.2.7:4433".parse().unwrap()], ..id(byte).into() }
}

fn invite(rank: Rank) -> TopicInvite {
    founded().invite(&key(1), key(9), rank, None, Some("Cats"), &[peer(1), peer(2)]).unwrap()
}

fn parse(text: &str) -> Result<TopicInvite, TopicInviteError> {
    text.parse()
}

fn payload(change: impl FnOnce(&mut Form)) -> Vec<u8> {
    let mut form = invite(Rank::Write).to_form();
    change(&mut form);
    minicbor::to_vec(form).unwrap()
}

/// A payload that must be refused with these words.
fn check_malformed(payload: &[u8], words: &str) {
    match parse(&to_envelope(PREFIX, KIND_TOPIC, payload)) {
        Err(TopicInviteError::Envelope(InviteError::Malformed(why))) => {
            assert!(why.contains(words), "{why}");
        }
        other => panic!("expected '{words}', got {other:?}"),
    }
}

#[test]
fn a_private_invite_says_what_it_is_for() {
    let text = invite(Rank::Read).to_text();
    assert!(text.starts_with("barantopic1aea"), "{text}");
    for text in [format!(" {text}\n"), text.to_uppercase()] {
        let read = parse(&text).unwrap();
        assert_eq!((read.topic(), read.name()), (founded().keys().id, None));
        assert_eq!(read.title(), Some("Cats"));
        assert_eq!(read.peers(), [peer(1), peer(2)]);
        let promised = Grant { subject: id(9), rank: Rank::Read, expires: None };
        assert_eq!(read.promises(), Some(promised));
        assert_eq!(read.to_text(), text.trim().to_lowercase());
    }
}

/// Made by Python's zlib and base64.
#[test]
fn the_golden_invite_to_a_public_topic() {
    let invite = Access::public("cats").unwrap().invite(
        &key(1),
        key(9),
        Rank::Write,
        None,
        Some("Cats!"),
        &[],
    );
    assert_eq!(invite.unwrap().to_text(), GOLDEN);
    let read = parse(GOLDEN).unwrap();
    assert_eq!((read.name(), read.title()), (Some("cats"), Some("Cats!")));
    assert_eq!(read.topic(), TopicKeys::public("cats").id);
    assert!(read.promises().is_none() && read.peers().is_empty());
}

const GOLDEN: &str = "barantopic1aea2eademnqxi4yimvbwc5dtegdqmgxl";

#[test]
fn no_invite_without_the_read_key_lets_read() {
    let relay = invite(Rank::Relay).to_form();
    assert!(relay.read.is_none() && relay.epoch.is_none() && relay.chain.is_some());
    check_malformed(&payload(|form| (form.epoch, form.read) = (None, None)), "without a read key");
}

#[test]
fn titles_are_a_line_of_64_bytes() {
    let with = |title: &str| founded().invite(&key(1), key(9), Rank::Read, None, Some(title), &[]);
    assert!(with(&"x".repeat(64)).is_ok());
    for title in ["", &"x".repeat(65), "a\nb", "\u{1b}[2J"] {
        assert_eq!(with(title).unwrap_err(), AccessError::Title);
        check_malformed(&payload(|form| form.title = Some(title.to_owned())), "title");
    }
}

#[test]
fn peers_are_bounded() {
    let peers = [1, 2, 3, 4].map(peer);
    let invite = founded().invite(&key(1), key(9), Rank::Read, None, None, &peers).unwrap();
    assert_eq!(parse(&invite.to_text()).unwrap().peers(), &peers[..3]);
    check_malformed(&payload(|form| form.peers = peers.to_vec()), "too long");
}

/// The longest chain that can be taken up, and as many addresses as peers may have.
#[test]
fn what_does_not_fit_is_left_out() {
    let late = Some(UnixTime::from_secs(u64::MAX));
    let first = Chain::root(&key(0), id(1), Rank::Write, late);
    let chain = (1..7).fold(first, |chain, link| {
        chain.extend(&key(link), id(link + 1), Rank::Write, late).unwrap()
    });
    let addr: SocketAddr = "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap();
    let home = Home { id: id(5), addrs: vec![addr; HOME_ADDRS_MAX] };
    let peer = PeerAddr { id: id(5), addrs: vec![addr; 8], homes: vec![home; HOMES_MAX] };
    let private = Private {
        id: founded().keys().id,
        relay: Secret::new([255; 32]),
        read: Some((u32::MAX, Secret::new([255; 32]))),
        bearer: Some(Bearer { chain, key: key(7) }),
    };
    let topic = Invited::Private(Box::new(private));
    let title = "x".repeat(TITLE_LEN_MAX);
    let largest = TopicInvite::new(topic, Some(&title), &vec![peer.clone(); 3]).unwrap();
    let text = largest.to_text();
    assert!(text.len() <= TOPIC_TEXT_LEN_MAX, "{}", text.len());
    let read = parse(&text).unwrap();
    assert!(read.join(id(8)).is_ok());
    assert_eq!(read.peers(), vec![peer; 2]);
}

#[test]
fn errors_are_precise() {
    let error = |text: &str| parse(text).unwrap_err();
    let good = invite(Rank::Write).to_text();
    assert_eq!(error(""), TopicInviteError::NotAnInvite);
    assert_eq!(error(&peer(1).to_invite()), TopicInviteError::NotAnInvite);
    assert_eq!(error(&format!("{PREFIX}{}", "a".repeat(4_096))), TopicInviteError::TooLong);
    assert_eq!(error(PREFIX), InviteError::CutShort.into());
    assert_eq!(error(&good[..good.len() - 8]), InviteError::Checksum.into());
    let position = InviteError::Character { position: 14 };
    assert_eq!(error(&format!("{}!{}", &good[..13], &good[14..])), position.into());
    let foreign = to_envelope(PREFIX, 0, &payload(|_| {}));
    assert_eq!(error(&foreign), TopicInviteError::Kind { found: 0 });
}

#[test]
fn fields_that_do_not_belong_together_are_refused() {
    check_malformed(&[0xa0], "neither public nor private");
    check_malformed(&payload(|form| form.relay = None), "neither");
    check_malformed(&payload(|form| form.name = Some("cats".to_owned())), "neither");
    check_malformed(&payload(|form| form.epoch = None), "an epoch without");
    check_malformed(&payload(|form| form.bearer = None), "a chain without");
    check_malformed(&[&payload(|_| {})[..], &[0]].concat(), "left over");
    let public = |name: String| {
        let form = Form { name: Some(name), ..Form::default() };
        minicbor::to_vec(form).unwrap()
    };
    check_malformed(&public(String::new()), "1 to 1024");
    check_malformed(&public("x".repeat(1_025)), "1 to 1024");
    assert!(parse(&to_envelope(PREFIX, KIND_TOPIC, &public("x".repeat(1_024)))).is_ok());
}

#[test]
fn unknown_fields_are_skipped() {
    let mut payload = payload(|_| {});
    payload[0] += 1;
    payload.extend([0x18, 99, 0xf5]);
    let read = parse(&to_envelope(PREFIX, KIND_TOPIC, &payload)).unwrap();
    assert_eq!(read.to_text(), invite(Rank::Write).to_text());
}

#[test]
fn nobody_joins_by_a_forged_invite() {
    let join = |change: fn(&mut Form)| {
        let text = to_envelope(PREFIX, KIND_TOPIC, &payload(change));
        parse(&text).unwrap().join(id(2)).map(|access| access.grant())
    };
    let refused = |change, error: CapabilityError| {
        assert_eq!(join(change), Err(AccessError::Capability(error)));
    };
    refused(|form| form.bearer = Some(Secret::new([8; 32])), CapabilityError::NotTheSubject);
    refused(|form| form.id = Some(TopicId::from_bytes([8; 32])), CapabilityError::Topic);
    let forge = |form: &mut Form| {
        let chain = Chain::root(&key(5), id(9), Rank::Manage, None).encode();
        let forged = [&chain[..3], founded().keys().id.as_bytes(), &chain[35..]].concat();
        form.chain = Some(Chain::decode(&forged).unwrap());
    };
    refused(forge, CapabilityError::Signature { link: 1 });
    // Without a bearer there are keys and no rank.
    assert_eq!(join(|form| (form.chain, form.bearer) = (None, None)), Ok(None));
}

proptest! {
    #[test]
    fn invites_round_trip(
        rank in prop::sample::select(&Rank::ALL[..]),
        expires: Option<u64>,
        title in "[ -~]{1,64}",
        peers in 0..=3_u8,
        secret: [u8; 32],
    ) {
        let peers: Vec<_> = (0..peers).map(peer).collect();
        let access = Access::found(&secret, key(0), id(1));
        let expires = expires.map(UnixTime::from_secs);
        let invite = access.invite(&key(1), key(9), rank, expires, Some(&title), &peers).unwrap();
        let read = parse(&invite.to_text()).unwrap();
        prop_assert_eq!(read.to_text(), invite.to_text());
        let joined = read.join(id(2)).unwrap();
        prop_assert_eq!(joined.keys(), access.keys());
        prop_assert_eq!(joined.grant(), Some(Grant { subject: id(2), rank, expires }));
    }

    #[test]
    fn garbage_text_never_panics(text: String) {
        let _ = parse(&text);
        let _ = parse(&format!("{PREFIX}{text}"));
    }

    #[test]
    fn garbage_payloads_never_panic(payload: Vec<u8>) {
        let _ = parse(&to_envelope(PREFIX, KIND_TOPIC, &payload));
    }

    /// Valid payloads with some bytes replaced reach every corner of the decoder.
    #[test]
    fn damaged_payloads_never_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut payload = payload(|_| {});
        for (at, byte) in damage {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        if let Ok(read) = parse(&to_envelope(PREFIX, KIND_TOPIC, &payload)) {
            let _ = read.join(id(2));
            prop_assert_eq!(parse(&read.to_text()).unwrap().to_text(), read.to_text());
        }
    }
}
