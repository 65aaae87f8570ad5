pub(crate) mod role;
pub(crate) mod topic;

use std::net::SocketAddr;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::index::{Digest, Find, Found, Lacking, Offer, RecordKind, Store, StoreOutcome, Stored};
use super::mux::{Credit, SessionClose, SessionOpen};
use super::node::{
    Hello, Home, Homes, Need, RefusalReason, Refused, RelayIncoming, RelayOpen, Release, Retired,
};
use super::*;
use crate::egress::is_unicast;
use crate::frame::Channel;
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::key::Key;

fn addr() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from),
        (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| {
            let addr = SocketAddr::from((ip, port));
            SocketAddr::new(addr.ip().to_canonical(), port)
        }),
    ]
    .prop_filter("can be sent to", |addr| is_unicast(*addr))
}

fn id() -> impl Strategy<Value = NodeId> {
    any::<[u8; 32]>().prop_map(NodeId::from_bytes)
}

fn home(addrs_max: usize) -> impl Strategy<Value = Home> {
    (id(), vec(addr(), 0..=addrs_max)).prop_map(|(id, addrs)| Home { id, addrs })
}

fn kind() -> impl Strategy<Value = RecordKind> {
    prop_oneof![Just(RecordKind::Node), Just(RecordKind::Announcement), Just(RecordKind::Value),]
}

fn outcome() -> impl Strategy<Value = StoreOutcome> {
    prop_oneof![
        Just(StoreOutcome::Kept),
        Just(StoreOutcome::Stale),
        Just(StoreOutcome::Clock),
        Just(StoreOutcome::Full),
        Just(StoreOutcome::Invalid),
        Just(StoreOutcome::Unable),
    ]
}

/// A contact as a message may have it.
fn contact() -> impl Strategy<Value = PeerAddr> {
    let addrs = vec(addr(), 0..=index::CONTACT_ADDRS_MAX);
    let homes = vec(home(1), 0..=index::CONTACT_HOMES_MAX);
    (id(), addrs, homes).prop_map(|(id, addrs, homes)| PeerAddr { id, addrs, homes })
}

fn digests() -> impl Strategy<Value = Vec<Digest>> {
    vec(any::<Digest>(), 0..=index::OFFER_MAX)
}

fn index_message() -> impl Strategy<Value = IndexMessage> {
    let request = any::<u32>;
    let record = |len_max| vec(any::<u8>(), 0..=len_max).prop_map(Bytes::from);
    let records = vec(record(index::RECORDS_LEN_MAX / index::RECORDS_MAX), 0..=index::RECORDS_MAX);
    let contacts = vec(contact(), 0..=index::CONTACTS_MAX);
    let find = (request(), any::<[u8; 32]>(), prop::option::of(kind()), any::<Option<u64>>());
    let bits = (any::<u32>(), prop_oneof![Just(0), any::<u32>()]);
    let found = (request(), contacts, bits, records, any::<Option<u64>>());
    prop_oneof![
        find.prop_map(|(request, target, records, page)| {
            let target = Key::from_bytes(target);
            IndexMessage::Find(Find { request, target, records, page })
        }),
        found.prop_map(|(request, contacts, (linked, seats), records, more)| {
            IndexMessage::Found(Found { request, contacts, linked, records, more, seats })
        }),
        (request(), record(index::RECORD_LEN_MAX))
            .prop_map(|(request, record)| IndexMessage::Store(Store { request, record })),
        (request(), outcome())
            .prop_map(|(request, outcome)| IndexMessage::Stored(Stored { request, outcome })),
        (request(), digests())
            .prop_map(|(request, digests)| IndexMessage::Offer(Offer { request, digests })),
        (request(), digests())
            .prop_map(|(request, digests)| IndexMessage::Lacking(Lacking { request, digests })),
    ]
}

fn node_message() -> impl Strategy<Value = NodeMessage> {
    let homes = vec(home(node::HOME_ADDRS_MAX), 0..=node::HOMES_MAX);
    prop_oneof![
        (any::<bool>(), any::<bool>(), any::<u64>(), any::<u32>()).prop_map(
            |(relays, indexes, unix_s, nodes)| {
                NodeMessage::Hello(Hello { relays, indexes, unix_s, run: 0, nodes })
            }
        ),
        Just(NodeMessage::Release(Release {})),
        Just(NodeMessage::Retired(Retired {})),
        Just(NodeMessage::Need(Need {})),
        (any::<u32>(), id())
            .prop_map(|(request, target)| NodeMessage::RelayOpen(RelayOpen { request, target })),
        any::<Option<u32>>().prop_map(|request| NodeMessage::Refused(Refused {
            request,
            reason: RefusalReason::Full
        })),
        (any::<u32>(), id(), addr()).prop_map(|(channel, peer, peer_addr)| {
            NodeMessage::RelayIncoming(RelayIncoming { channel: Channel(channel), peer, peer_addr })
        }),
        (homes, vec(addr(), 0..=node::HOME_ADDRS_MAX), any::<bool>()).prop_map(
            |(homes, addrs, is_open)| NodeMessage::Homes(Homes { homes, addrs, is_open })
        ),
        index_message().prop_map(NodeMessage::Index),
        role::role_message().prop_map(NodeMessage::Role),
    ]
}

fn mux_message() -> impl Strategy<Value = MuxMessage> {
    prop_oneof![
        (any::<u32>(), "[a-z/]{1,255}").prop_map(|(session, protocol)| {
            MuxMessage::SessionOpen(SessionOpen { session, protocol })
        }),
        (any::<u32>(), any::<u32>(), "[ -~]{0,255}").prop_map(|(session, code, reason)| {
            MuxMessage::SessionClose(SessionClose { session, code, reason })
        }),
        (any::<u64>(), any::<u64>())
            .prop_map(|(stream, limit)| MuxMessage::Credit(Credit { stream, limit })),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        4 => node_message().prop_map(Message::Node),
        1 => mux_message().prop_map(Message::Mux),
    ]
}

fn encode(message: NodeMessage) -> Vec<u8> {
    Message::Node(message).encode()
}

fn encode_index(message: IndexMessage) -> Vec<u8> {
    encode(NodeMessage::Index(message))
}

/// The bytes of a hexadecimal text; blanks are for the reader.
fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap()
}

proptest! {
    #[test]
    fn round_trip(message in message()) {
        let bytes = message.encode();
        prop_assert_eq!(Message::decode(&bytes[LENGTH_LEN..]), Ok(message));
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Message::decode(&bytes);
    }

    #[test]
    fn mutations_never_panic(message in message(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = message.encode();
        let at = at.index(bytes.len() - LENGTH_LEN) + LENGTH_LEN;
        bytes[at] = byte;
        let _ = Message::decode(&bytes[LENGTH_LEN..]);
        let _ = Message::decode(&bytes[LENGTH_LEN..at]);
    }
}

#[test]
fn unknown_types_and_keys_are_skipped() {
    // [63, {}]: a type of the future.
    assert_eq!(Message::decode(&[0x82, 0x18, 63, 0xA0]), Err(DecodeError::UnknownType(63)));
    // [0, {0: true, 7: "x"}]: a key of the future in a Hello.
    assert_eq!(
        Message::decode(&[0x82, 0, 0xA2, 0, 0xF5, 7, 0x61, b'x']),
        Ok(Message::Node(NodeMessage::Hello(Hello { relays: true, ..Hello::default() })))
    );
}

#[test]
fn limits_of_node_and_mux_messages_hold() {
    let addrs = |len: u8| (1..=len).map(|n| SocketAddr::from(([192, 0, 2, n], 4433))).collect();
    let homes = |len: u8, addrs_len| {
        let home = |n| Home { id: NodeId::from_bytes([n; 32]), addrs: addrs(addrs_len) };
        let (homes, addrs) = ((0..len).map(home).collect(), addrs(addrs_len));
        encode(NodeMessage::Homes(Homes { homes, addrs, is_open: false }))
    };
    // What is over the limits is not written,
    assert_eq!(homes(4, 5), homes(3, 4));
    // and refused when it is read: four homes without addresses, one home with five.
    let home = |n, addrs: &[u8]| [&[0xA2, 0, 0x58, 32], &[n; 32][..], &[1], addrs].concat();
    let body = |homes: &[Vec<u8>]| {
        let len = 0x80 + u8::try_from(homes.len()).unwrap();
        [&[0x82, 9, 0xA1, 0, len], &homes.concat()[..]].concat()
    };
    assert!(Message::decode(&body(&[1, 2, 3].map(|n| home(n, &[0x80])))).is_ok());
    let malformed = |body: &[u8]| matches!(Message::decode(body), Err(DecodeError::Malformed(_)));
    assert!(malformed(&body(&[1, 2, 3, 4].map(|n| home(n, &[0x80])))));
    let five = [&[0x85][..], &[0x46, 192, 0, 2, 1, 0, 80].repeat(5)].concat();
    assert!(malformed(&body(&[home(1, &five)])));
    // Nor is an address read that nobody can have.
    assert!(malformed(&body(&[home(1, &[0x81, 0x46, 224, 0, 0, 1, 0, 80])])));

    let protocol = "p".repeat(mux::PROTOCOL_LEN_MAX + 1);
    let bytes =
        Message::Mux(MuxMessage::SessionOpen(SessionOpen { session: 0, protocol })).encode();
    assert!(matches!(Message::decode(&bytes[LENGTH_LEN..]), Err(DecodeError::Malformed(_))));
    // An array that claims four billion homes does not make us allocate for them.
    let claim = [0x82, 9, 0xA1, 0, 0x9A, 0xFF, 0xFF, 0xFF, 0xFF];
    assert!(matches!(Message::decode(&claim), Err(DecodeError::Malformed(_))));
}

#[test]
fn limits_of_index_messages_hold() {
    // What is over the limits is not written,
    let contact = |n: usize| {
        let addr = SocketAddr::from(([0x20; 16], 4433));
        let home = |n| Home { id: NodeId::from_bytes([n; 32]), addrs: vec![addr; 4] };
        let homes = [1, 2, 3].map(home).to_vec();
        PeerAddr {
            id: NodeId::from_bytes([u8::try_from(n).unwrap(); 32]),
            addrs: vec![addr; 8],
            homes,
        }
    };
    let found = |contacts, records: &[usize]| {
        let records = records.iter().map(|len| Bytes::from(vec![7; *len])).collect();
        let contacts = (0..contacts).map(contact).collect();
        let (request, linked, more, seats) = (u32::MAX, u32::MAX, Some(u64::MAX), u32::MAX);
        IndexMessage::Found(Found { request, contacts, linked, records, more, seats })
    };
    let bytes = encode_index(found(20, &[index::RECORD_LEN_MAX, 120, 1]));
    assert!(bytes.len() < 3_900, "the largest message: {}", bytes.len());
    let read = Message::decode(&bytes[LENGTH_LEN..]).unwrap();
    let Message::Node(NodeMessage::Index(IndexMessage::Found(read))) = read else {
        panic!("another message")
    };
    assert_eq!(read.contacts.len(), index::CONTACTS_MAX);
    assert_eq!(read.contacts[3], index::shorten(&contact(3)));
    assert_eq!((read.contacts[3].addrs.len(), read.contacts[3].homes.len()), (2, 2));
    assert_eq!(
        read.records.iter().map(Bytes::len).collect::<Vec<_>>(),
        [index::RECORD_LEN_MAX, 120]
    );
    assert_eq!(encode_index(found(1, &[9; 20])), encode_index(found(1, &[9; 8])));
    let offer = |len| IndexMessage::Offer(Offer { request: 1, digests: vec![[3; 8]; len] });
    assert_eq!(encode_index(offer(300)), encode_index(offer(index::OFFER_MAX)));

    // and refused when it is read.
    let malformed = |body: &[u8]| matches!(Message::decode(body), Err(DecodeError::Malformed(_)));
    let store =
        |len| encode_index(IndexMessage::Store(Store { request: 1, record: vec![7; len].into() }));
    assert!(Message::decode(&store(index::RECORD_LEN_MAX)[LENGTH_LEN..]).is_ok());
    assert!(malformed(&store(index::RECORD_LEN_MAX + 1)[LENGTH_LEN..]));
    let digests = |len: usize| {
        [
            &hex("82 14 a2 00 01 01 59")[..],
            &u16::try_from(len).unwrap().to_be_bytes(),
            &vec![3; len],
        ]
        .concat()
    };
    assert!(Message::decode(&digests(256 * 8)).is_ok());
    assert!(malformed(&digests(257 * 8)), "one digest too many");
    assert!(malformed(&digests(12)), "half a digest");
    let records = |len: u8| {
        let list = [vec![0x80 + len], vec![0x40; len.into()]].concat();
        [&hex("82 11 a5 00 01 01 80 02 00 03")[..], &list, &hex("04 f6")].concat()
    };
    assert!(Message::decode(&records(8)).is_ok());
    assert!(malformed(&records(9)));
    let contacts = |len: u8| {
        let one = [&hex("a1 00 58 20")[..], &[5; 32]].concat();
        let list = [vec![0x80 + len], one.repeat(len.into())].concat();
        [&hex("82 11 a5 00 01 01")[..], &list, &hex("02 00 03 80 04 f6")].concat()
    };
    assert!(Message::decode(&contacts(12)).is_ok());
    assert!(malformed(&contacts(13)));
    // Lists that claim four billion entries do not make us allocate for them.
    assert!(malformed(&hex("82 11 a5 00 01 01 9a ff ff ff ff")));
    assert!(malformed(&hex("82 11 a5 00 01 01 80 02 00 03 9a ff ff ff ff")));
    assert!(malformed(&hex("82 14 a2 00 01 01 5a ff ff ff ff")));
    // A kind of record or an outcome of the future cannot be guessed at.
    assert!(malformed(&[&hex("82 10 a3 00 01 01 58 20")[..], &[9; 32], &hex("02 03")].concat()));
    assert!(malformed(&hex("82 13 a2 00 01 01 06")));
}

/// The bytes on the wire, fixed: a change here is a change of the protocol.
#[test]
fn golden_vectors() {
    let hello = Hello { relays: true, indexes: true, unix_s: 1_790_000_000, run: 7, nodes: 1000 };
    assert_eq!(
        encode(NodeMessage::Hello(hello)),
        hex("0013 82 00 a5 00f5 01f5 02 1a6ab13b80 0307 04 1903e8")
    );
    // As a node of the first version, or one without a calendar, says it.
    assert_eq!(
        Message::decode(&hex("82 00 a1 00f5")),
        Ok(Message::Node(NodeMessage::Hello(Hello { relays: true, ..Hello::default() })))
    );
    let credit = Message::Mux(MuxMessage::Credit(Credit { stream: 4, limit: 1 << 20 }));
    assert_eq!(credit.encode(), hex("000c 82 1842 a2 0004 01 1a00100000"));
    let refused = Refused { request: Some(9), reason: RefusalReason::NoReservation };
    assert_eq!(encode(NodeMessage::Refused(refused)), hex("0007 82 05 a2 0009 0103"));
    assert_eq!(encode(NodeMessage::Release(Release {})), hex("0003 82 0a a0"));
    assert_eq!(encode(NodeMessage::Retired(Retired {})), hex("0003 82 0c a0"));
    assert_eq!(encode(NodeMessage::Need(Need {})), hex("0003 82 0b a0"));
    let addrs = vec!["192.0.2.1:4433".parse().unwrap()];
    let homes = vec![Home { id: NodeId::from_bytes([0xAB; 32]), addrs: addrs.clone() }];
    let homes = Homes { homes, addrs, is_open: true };
    let (ids, addr) = ("ab".repeat(32), "46 c0000201 1151");
    assert_eq!(
        encode(NodeMessage::Homes(homes)),
        hex(&format!("003d 82 09 a3 00 81 a2 00 5820 {ids} 01 81 {addr} 01 81 {addr} 02 f5"))
    );
}

/// The same of the index.
#[test]
fn golden_vectors_of_the_index() {
    let target = Key::from_bytes([0xCD; 32]);
    let key = "cd".repeat(32);
    let find = Find { request: 1, target, records: Some(RecordKind::Value), page: Some(5) };
    assert_eq!(
        encode_index(IndexMessage::Find(find)),
        hex(&format!("002c 82 10 a4 0001 01 5820 {key} 0202 0305"))
    );
    let find = Find { request: 1, target, records: None, page: None };
    assert_eq!(
        encode_index(IndexMessage::Find(find)),
        hex(&format!("0028 82 10 a2 0001 01 5820 {key}"))
    );
    let addr: SocketAddr = "192.0.2.1:4433".parse().unwrap();
    let homes = vec![Home { id: NodeId::from_bytes([0xEE; 32]), addrs: vec![addr] }];
    let contact = PeerAddr { id: NodeId::from_bytes([0xAB; 32]), addrs: vec![addr], homes };
    let records = vec![Bytes::from_static(b"rec")];
    let (contacts, linked, more) = (vec![contact], 1, Some(7));
    let found = Found { request: 1, contacts, linked, records, more, seats: 0 };
    let (ids, home, at) = ("ab".repeat(32), "ee".repeat(32), "46 c0000201 1151");
    let contact = format!("a3 00 5820 {ids} 01 81 {at} 02 81 a2 00 5820 {home} 01 81 {at}");
    assert_eq!(
        encode_index(IndexMessage::Found(found.clone())),
        hex(&format!("006d 82 11 a5 0001 01 81 {contact} 0201 03 81 43 726563 0407"))
    );
    assert_eq!(
        encode_index(IndexMessage::Found(Found { seats: 1, ..found })),
        hex(&format!("006f 82 11 a6 0001 01 81 {contact} 0201 03 81 43 726563 0407 0501"))
    );
    let store = Store { request: 1, record: Bytes::from_static(b"rec") };
    assert_eq!(encode_index(IndexMessage::Store(store)), hex("000a 82 12 a2 0001 01 43 726563"));
    for (number, outcome) in [
        StoreOutcome::Kept,
        StoreOutcome::Stale,
        StoreOutcome::Clock,
        StoreOutcome::Full,
        StoreOutcome::Invalid,
        StoreOutcome::Unable,
    ]
    .into_iter()
    .enumerate()
    {
        let stored = IndexMessage::Stored(Stored { request: 1, outcome });
        assert_eq!(encode_index(stored), hex(&format!("0007 82 13 a2 0001 01 0{number}")));
    }
    let digests = vec![[0x11; 8], [0x22; 8]];
    let both = "50 1111111111111111 2222222222222222";
    let offer = Offer { request: 1, digests: digests.clone() };
    assert_eq!(
        encode_index(IndexMessage::Offer(offer)),
        hex(&format!("0017 82 14 a2 0001 01 {both}"))
    );
    let lacking = Lacking { request: 1, digests };
    assert_eq!(
        encode_index(IndexMessage::Lacking(lacking)),
        hex(&format!("0017 82 15 a2 0001 01 {both}"))
    );
}
