use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;
use crate::wire::node::{HOME_ADDRS_MAX, HOMES_MAX};

/// The public key of RFC 8032 §7.1, test 1.
const ID: &str = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena";
/// The public key of test 2.
const HOME_ID: &str = "hvabpq7iioevvevxbktu2g36xsojqlgpf3cjndgazvk7ckxumyga";

/// Made by hand and by Python's zlib and base64: [`ID`] at 192.0.2.7:4433 and
/// `[2001:db8::7]:4433`, at home with [`HOME_ID`] at 203.0.113.9:443.
const GOLDEN: &str = "baran1aeakgacyedlvvgabqkyqvn6vjp7nhslea45a5yls6pnkmizfv4bbu2hxa5iruamci3\
    aaaaqhcfiveiabbw4aaaaaaaaaaaaaaaaaabyrkebidiqalaqd2qaxypuehck2sk3qvj2ndn7lzheyfths5rewrtam2vp\
    rfl2gmdabqfdmwadrbea3xdnbmd3q";
/// [`ID`] and nothing else.
const GOLDEN_BARE: &str =
    "baran1aeakcacyedlvvgabqkyqvn6vjp7nhslea45a5yls6pnkmizfv4bbu2hxa5irupozp76a";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn golden() -> PeerAddr {
    PeerAddr {
        id: ID.parse().unwrap(),
        addrs: vec![addr("192.0.2.7:4433"), addr("[2001:db8::7]:4433")],
        homes: vec![Home { id: HOME_ID.parse().unwrap(), addrs: vec![addr("203.0.113.9:443")] }],
    }
}

/// The largest invite that is allowed.
fn largest() -> PeerAddr {
    let id = NodeId::from_bytes([0xff; 32]);
    let addrs = |len| vec![addr("[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535"); len];
    let home = Home { id, addrs: addrs(HOME_ADDRS_MAX) };
    PeerAddr { id, addrs: addrs(ADDRS_MAX), homes: vec![home; HOMES_MAX] }
}

/// An invite around any bytes, with a right checksum.
fn envelope(version: u8, kind: u8, payload: &[u8]) -> String {
    let mut bytes = [&[version, kind], payload].concat();
    bytes.extend(crc32(&bytes).to_le_bytes());
    format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_lowercase())
}

fn check(text: &str, expect: &Result<PeerAddr, InviteError>) {
    assert_eq!(text.parse::<PeerAddr>(), *expect, "{text}");
}

/// A payload, in hexadecimal, that must be refused with these words.
fn check_malformed(payload: &str, words: &str) {
    let payload = HEXLOWER.decode(payload.as_bytes()).unwrap();
    match envelope(VERSION, KIND_PEER, &payload).parse::<PeerAddr>() {
        Err(InviteError::Malformed(why)) => assert!(why.contains(words), "{why}"),
        other => panic!("expected '{words}', got {other:?}"),
    }
}

fn id_hex() -> String {
    HEXLOWER.encode(golden().id.as_bytes())
}

#[test]
fn golden_invites() {
    assert_eq!(golden().to_invite(), GOLDEN);
    check(GOLDEN, &Ok(golden()));
    let bare = PeerAddr::from(golden().id);
    assert_eq!(bare.to_invite(), GOLDEN_BARE);
    check(GOLDEN_BARE, &Ok(bare));
}

#[test]
fn three_forms_in_any_case_and_with_blanks_around() {
    check(&format!(" {}\n", GOLDEN.to_uppercase()), &Ok(golden()));
    check(&ID.to_uppercase(), &Ok(golden().id.into()));
    let with = |addrs| PeerAddr { addrs, ..golden().id.into() };
    check(&format!("{ID}@192.0.2.7:4433"), &Ok(with(vec![addr("192.0.2.7:4433")])));
    check(&format!("{ID}@[2001:db8::7]:1"), &Ok(with(vec![addr("[2001:db8::7]:1")])));
}

/// Every other printable character at every position, and a letter outside ASCII.
#[test]
fn any_wrong_character_is_refused() {
    for good in [GOLDEN, GOLDEN_BARE, &largest().to_invite()] {
        for (at, right) in good.char_indices() {
            for wrong in (' '..='~').chain(['\u{212a}']).filter(|c| !c.eq_ignore_ascii_case(&right))
            {
                let text = format!("{}{wrong}{}", &good[..at], &good[at + 1..]);
                assert!(text.parse::<PeerAddr>().is_err(), "{wrong} at {at}: {text}");
            }
        }
    }
}

#[test]
fn swapped_lost_and_doubled_characters_are_refused() {
    for at in 0..GOLDEN.len() {
        assert!(GOLDEN[..at].parse::<PeerAddr>().is_err());
        let lost = format!("{}{}", &GOLDEN[..at], &GOLDEN[at + 1..]);
        assert!(lost.parse::<PeerAddr>().is_err(), "{lost}");
        let doubled = format!("{}{}", &GOLDEN[..=at], &GOLDEN[at..]);
        assert!(doubled.parse::<PeerAddr>().is_err(), "{doubled}");
        let mut swapped = GOLDEN.to_owned().into_bytes();
        if at + 1 < swapped.len() && swapped[at] != swapped[at + 1] {
            swapped.swap(at, at + 1);
            let swapped = String::from_utf8(swapped).unwrap();
            assert!(swapped.parse::<PeerAddr>().is_err(), "{swapped}");
        }
    }
}

#[test]
fn errors_are_precise() {
    check("", &Err(InviteError::NotAnId(IdError::Length { found: 0 })));
    check("bob@example.org", &Err(InviteError::NotAnId(IdError::Length { found: 3 })));
    check("hello@192.0.2.7:1", &Err(InviteError::NotAnId(IdError::Length { found: 5 })));
    let at = |addr: &str| format!("{ID}@{addr}");
    for wrong in ["example.org:4433", "192.0.2.7", "", "2001:db8::7:4433", "192.0.2.7:99999"] {
        check(&at(wrong), &Err(InviteError::NotAnAddress(wrong.to_owned())));
    }
    for nobody in [
        "192.0.2.7:0",
        "0.0.0.0:1",
        "[::]:1",
        "224.0.0.1:1",
        "255.255.255.255:1",
        "[::ffff:0.0.0.0]:1",
    ] {
        check(&at(nobody), &Err(InviteError::Undialable(addr(nobody))));
    }
    check(&"a".repeat(TEXT_LEN_MAX + 1), &Err(InviteError::TooLong));
    check("baran1", &Err(InviteError::CutShort));
    check("baran1aaaaaaaa", &Err(InviteError::CutShort));
    check(&GOLDEN.replacen("aea", "ae!", 1), &Err(InviteError::Character { position: 9 }));
    check(&GOLDEN[..GOLDEN.len() - 8], &Err(InviteError::Checksum));
    check(&envelope(2, 0, &[]), &Err(InviteError::Version { found: 2 }));
    check(&envelope(1, 7, &[]), &Err(InviteError::Kind { found: 7 }));
}

#[test]
fn messages_say_what_to_do() {
    let message = |text: &str| text.parse::<PeerAddr>().unwrap_err().to_string();
    assert_eq!(
        message("bob"),
        "not a node id, an invite (baran1...) or ID@ip:port: \
         a node id has 52 characters, this has 3: copy it whole"
    );
    assert_eq!(
        message(&format!("{ID}@host:1")),
        "\"host:1\" is not ip:port: write it as 192.0.2.7:4433 or [2001:db8::7]:4433, not by name"
    );
}

#[test]
fn limits_hold_for_the_writer() {
    let largest = largest();
    let text = largest.to_invite();
    assert!(text.len() <= TEXT_LEN_MAX, "{}", text.len());
    check(&text, &Ok(largest.clone()));

    let mut larger = largest.clone();
    larger.addrs.insert(0, addr("192.0.2.7:0"));
    larger.addrs.push(addr("192.0.2.7:1"));
    larger.homes[0].addrs.push(addr("192.0.2.7:1"));
    larger.homes.push(Home { id: larger.id, addrs: Vec::new() });
    check(&larger.to_invite(), &Ok(largest));
}

#[test]
fn limits_hold_for_the_reader() {
    let id = id_hex();
    let addr = "46c00002071151";
    check_malformed(&format!("a2005820{id}0189{}", addr.repeat(9)), "too long");
    check_malformed(&format!("a2005820{id}019b7fffffffffffffff"), "too long");
    check_malformed(&format!("a2005820{id}019f{addr}ff"), "without end");
    check_malformed(&format!("a2005820{id}0284{}", format!("a2005820{id}0180").repeat(4)), "long");
    let home = format!("a2005820{id}0185{}", addr.repeat(5));
    check_malformed(&format!("a2005820{id}0281{home}"), "too long");
}

#[test]
fn malformed_payloads_are_refused() {
    let id = id_hex();
    check_malformed("", "end of input");
    check_malformed("a0", "missing value");
    check_malformed("a10041ff", "32 bytes");
    check_malformed(&format!("a1005820{id}00"), "left over");
    check_malformed(&format!("a2005820{id}018145c000020711"), "6 or 18");
    check_malformed(&format!("a2005820{id}018146c00002070000"), "nobody");
    check_malformed(&format!("a2005820{id}0281a1005820{id}"), "missing value");
}

#[test]
fn unknown_fields_are_skipped() {
    let payload = format!("a3005820{}0946c0000207115118639fa10102ff", id_hex());
    let payload = HEXLOWER.decode(payload.as_bytes()).unwrap();
    check(&envelope(VERSION, KIND_PEER, &payload), &Ok(golden().id.into()));
}

#[test]
fn addresses_are_written_in_canonical_form() {
    let mut peer = golden();
    peer.addrs[0] = addr("[::ffff:192.0.2.7]:4433");
    check(&peer.to_invite(), &Ok(golden()));
    let mapped = format!("5200000000000000000000ffff{}", "c00002071151");
    let payload = HEXLOWER.decode(format!("a2005820{}0181{mapped}", id_hex()).as_bytes()).unwrap();
    let read = envelope(VERSION, KIND_PEER, &payload).parse::<PeerAddr>().unwrap();
    assert_eq!(read.addrs, [addr("192.0.2.7:4433")]);
}

fn any_addr() -> impl Strategy<Value = SocketAddr> {
    any::<(core::net::IpAddr, u16)>()
        .prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
        .prop_filter("dialable", |addr| is_unicast(*addr))
}

fn any_peer() -> impl Strategy<Value = PeerAddr> {
    let id = || any::<[u8; 32]>().prop_map(NodeId::from_bytes);
    let addrs = |max| prop::collection::vec(any_addr(), 0..=max);
    let home = (id(), addrs(HOME_ADDRS_MAX)).prop_map(|(id, addrs)| Home { id, addrs });
    let homes = prop::collection::vec(home, 0..=HOMES_MAX);
    (id(), addrs(ADDRS_MAX), homes).prop_map(|(id, addrs, homes)| PeerAddr { id, addrs, homes })
}

proptest! {
    #[test]
    fn invites_round_trip(peer in any_peer()) {
        let text = peer.to_invite();
        prop_assert!(text.len() <= TEXT_LEN_MAX);
        prop_assert_eq!(text.parse(), Ok(peer));
    }

    #[test]
    fn id_and_address_round_trip(id: [u8; 32], addr in any_addr()) {
        let peer = PeerAddr { addrs: vec![addr], ..NodeId::from_bytes(id).into() };
        prop_assert_eq!(format!("{}@{addr}", peer.id).parse(), Ok(peer));
    }

    /// The guarantee of the CRC: four neighbouring characters, replaced by any others.
    #[test]
    fn errors_within_four_neighbours_are_found(
        peer in any_peer(),
        at: prop::sample::Index,
        wrong in "[a-z2-7]{4}",
    ) {
        let good = peer.to_invite();
        let at = PREFIX.len() + at.index(good.len() - PREFIX.len() - 3);
        prop_assume!(good[at..at + 4] != wrong);
        let text = format!("{}{wrong}{}", &good[..at], &good[at + 4..]);
        prop_assert_eq!(text.parse::<PeerAddr>(), Err(InviteError::Checksum));
    }

    #[test]
    fn garbage_text_never_panics(text: String) {
        let _ = text.parse::<PeerAddr>();
        let _ = format!("{PREFIX}{text}").parse::<PeerAddr>();
        let _ = format!("{ID}@{text}").parse::<PeerAddr>();
    }

    #[test]
    fn garbage_payloads_never_panic(payload: Vec<u8>) {
        let _ = envelope(VERSION, KIND_PEER, &payload).parse::<PeerAddr>();
    }

    /// Valid payloads with some bytes replaced reach every corner of the decoder.
    #[test]
    fn damaged_payloads_never_panic(
        peer in any_peer(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut payload = minicbor::to_vec(&peer).unwrap();
        for (at, byte) in damage {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        let text = envelope(VERSION, KIND_PEER, &payload);
        if let Ok(peer) = text.parse::<PeerAddr>() {
            prop_assert_eq!(peer.to_invite().parse(), Ok(peer));
        }
    }
}
