use std::net::SocketAddr;

use proptest::prelude::*;

use super::mux::{Credit, SessionClose, SessionOpen};
use super::node::{Hello, Home, Homes, RefusalReason, Refused, RelayIncoming, RelayOpen};
use super::*;
use crate::egress::is_unicast;
use crate::frame::Channel;
use crate::id::NodeId;

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

fn message() -> impl Strategy<Value = Message> {
    let home = (id(), proptest::collection::vec(addr(), 0..=node::HOME_ADDRS_MAX))
        .prop_map(|(id, addrs)| Home { id, addrs });
    prop_oneof![
        any::<bool>().prop_map(|relays| Message::Node(NodeMessage::Hello(Hello { relays }))),
        (any::<u32>(), id()).prop_map(|(request, target)| Message::Node(NodeMessage::RelayOpen(
            RelayOpen { request, target }
        ))),
        any::<Option<u32>>().prop_map(|request| Message::Node(NodeMessage::Refused(Refused {
            request,
            reason: RefusalReason::Full
        }))),
        (any::<u32>(), id(), addr()).prop_map(|(channel, peer, peer_addr)| Message::Node(
            NodeMessage::RelayIncoming(RelayIncoming {
                channel: Channel(channel),
                peer,
                peer_addr
            })
        )),
        proptest::collection::vec(home, 0..=node::HOMES_MAX)
            .prop_map(|homes| Message::Node(NodeMessage::Homes(Homes { homes }))),
        (any::<u32>(), "[a-z/]{1,255}").prop_map(|(session, protocol)| Message::Mux(
            MuxMessage::SessionOpen(SessionOpen { session, protocol })
        )),
        (any::<u32>(), any::<u32>(), "[ -~]{0,255}").prop_map(|(session, code, reason)| {
            Message::Mux(MuxMessage::SessionClose(SessionClose { session, code, reason }))
        }),
        (any::<u64>(), any::<u64>())
            .prop_map(|(stream, limit)| Message::Mux(MuxMessage::Credit(Credit { stream, limit }))),
    ]
}

proptest! {
    #[test]
    fn round_trip(message in message()) {
        let bytes = message.encode();
        prop_assert_eq!(Message::decode(&bytes[LENGTH_LEN..]), Ok(message));
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
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
        Ok(Message::Node(NodeMessage::Hello(Hello { relays: true })))
    );
}

#[test]
fn limits_hold() {
    let addrs = |len: u8| (1..=len).map(|n| SocketAddr::from(([192, 0, 2, n], 4433))).collect();
    let homes = |len: u8, addrs_len| {
        let home = |n| Home { id: NodeId::from_bytes([n; 32]), addrs: addrs(addrs_len) };
        Message::Node(NodeMessage::Homes(Homes { homes: (0..len).map(home).collect() }))
    };
    // What is over the limits is not written,
    assert_eq!(homes(4, 5).encode(), homes(3, 4).encode());
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

/// The bytes on the wire, fixed: a change here is a change of the protocol.
#[test]
fn golden_vectors() {
    let hello = Message::Node(NodeMessage::Hello(Hello { relays: true }));
    assert_eq!(hello.encode(), [0, 5, 0x82, 0x00, 0xA1, 0x00, 0xF5]);
    let credit = Message::Mux(MuxMessage::Credit(Credit { stream: 4, limit: 1 << 20 }));
    assert_eq!(
        credit.encode(),
        [0, 12, 0x82, 0x18, 66, 0xA2, 0x00, 0x04, 0x01, 0x1A, 0x00, 0x10, 0x00, 0x00]
    );
    let refused = Message::Node(NodeMessage::Refused(Refused {
        request: Some(9),
        reason: RefusalReason::NoReservation,
    }));
    assert_eq!(refused.encode(), [0, 7, 0x82, 0x05, 0xA2, 0x00, 0x09, 0x01, 0x03]);
}
