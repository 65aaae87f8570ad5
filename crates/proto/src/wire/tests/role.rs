//! Messages about roles.

use proptest::array::uniform32;

use super::*;
use crate::id::SIGNATURE_LEN;
use crate::role::mandate::MANDATE_LEN_MAX;
use crate::role::report::{Charge, REPORTS_MIN, Reason, Removal, Report};
use crate::role::term::TERM_LEN_MAX;
use crate::role::{NetPrefix, Region, Vote};
use crate::wire::role::{
    Accusation, Apply, Ask, Ballot, Beat, DeclineReason, Declined, ECHO_LEN_MAX, Echo, Lost,
    Present, RoleMessage, SEATS_MAX, SeatHint, Seats, Show,
};

fn bytes(len_max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=len_max).prop_map(Bytes::from)
}

fn signature() -> impl Strategy<Value = [u8; SIGNATURE_LEN]> {
    (uniform32(any::<u8>()), uniform32(any::<u8>())).prop_map(|(r, s)| {
        let mut signature = [0; SIGNATURE_LEN];
        signature[..32].copy_from_slice(&r);
        signature[32..].copy_from_slice(&s);
        signature
    })
}

fn net() -> impl Strategy<Value = Option<NetPrefix>> {
    prop::option::of(addr().prop_map(|addr| NetPrefix::of(addr.ip())))
}

fn charge() -> impl Strategy<Value = Charge> {
    (id(), id(), 0..=32u8, any::<u64>()).prop_map(|(seat, within, bits, epoch)| {
        let region = Region::of(&Key::of_node(within), bits);
        Charge { seat, region, epoch }
    })
}

fn report() -> impl Strategy<Value = Report> {
    let reason = prop_oneof![Just(Reason::Dead), Just(Reason::Omission)];
    (id(), any::<u64>(), net(), reason, signature()).prop_map(
        |(reporter, nonce, net, reason, signature)| Report {
            reporter,
            nonce,
            net,
            reason,
            signature,
        },
    )
}

fn vote() -> impl Strategy<Value = Vote> {
    (id(), any::<u64>(), net(), any::<Option<u8>>(), signature()).prop_map(
        |(elector, nonce, net, measured_log2, signature)| Vote {
            elector,
            nonce,
            net,
            measured_log2,
            signature,
        },
    )
}

fn seat() -> impl Strategy<Value = SeatHint> {
    let rest = (any::<u8>(), any::<bool>(), any::<u8>());
    (contact(), rest).prop_map(|(contact, (load, is_active, capacity_log2))| SeatHint {
        contact,
        load,
        is_active,
        capacity_log2,
    })
}

fn reason() -> impl Strategy<Value = DeclineReason> {
    prop_oneof![
        Just(DeclineReason::NotMine),
        Just(DeclineReason::Time),
        Just(DeclineReason::Invalid),
        Just(DeclineReason::Full),
        Just(DeclineReason::NoElector),
        Just(DeclineReason::NoGuest),
    ]
}

/// Any message about roles within its limits.
pub(crate) fn role_message() -> impl Strategy<Value = RoleMessage> {
    let apply = (bytes(TERM_LEN_MAX), any::<u64>(), bytes(MANDATE_LEN_MAX));
    prop_oneof![
        any::<[u8; 32]>().prop_map(|key| RoleMessage::Ask(Ask { key: Key::from_bytes(key) })),
        (any::<u8>(), any::<u8>(), vec(seat(), 0..=SEATS_MAX))
            .prop_map(|(bits, known, seats)| RoleMessage::Seats(Seats { bits, seats, known })),
        Just(RoleMessage::Show(Show {})),
        (bytes(MANDATE_LEN_MAX), any::<u8>())
            .prop_map(|(mandate, load)| RoleMessage::Present(Present { mandate, load })),
        apply.prop_map(|(term, nonce, mandate)| RoleMessage::Apply(Apply { term, nonce, mandate })),
        (any::<u64>(), vote()).prop_map(|(term, vote)| RoleMessage::Vote(Ballot { term, vote })),
        (reason(), any::<u16>()).prop_map(|(reason, retry_after_s)| {
            RoleMessage::Declined(Declined { reason, retry_after_s })
        }),
        (any::<u8>(), any::<bool>())
            .prop_map(|(load, asks)| RoleMessage::Beat(Beat { load, asks })),
        id().prop_map(|seat| RoleMessage::Lost(Lost { seat })),
        (charge(), report())
            .prop_map(|(charge, report)| RoleMessage::Report(Accusation { charge, report })),
        (charge(), vec(report(), 0..=REPORTS_MIN))
            .prop_map(|(charge, reports)| RoleMessage::Removal(Removal { charge, reports })),
        (any::<u32>(), bytes(ECHO_LEN_MAX))
            .prop_map(|(number, payload)| RoleMessage::Echo(Echo { number, payload })),
        (any::<u32>(), bytes(ECHO_LEN_MAX))
            .prop_map(|(number, payload)| RoleMessage::Echoed(Echo { number, payload })),
    ]
}

fn encode_role(message: RoleMessage) -> Vec<u8> {
    encode(NodeMessage::Role(message))
}

#[test]
fn limits_of_role_messages_hold() {
    let fits = |message| Message::decode(&encode_role(message)[LENGTH_LEN..]).is_ok();
    let present = |len| RoleMessage::Present(Present { mandate: vec![7; len].into(), load: 0 });
    assert!(fits(present(MANDATE_LEN_MAX)) && !fits(present(MANDATE_LEN_MAX + 1)));
    let echo = |len| RoleMessage::Echo(Echo { number: u32::MAX, payload: vec![7; len].into() });
    assert!(fits(echo(ECHO_LEN_MAX)) && !fits(echo(ECHO_LEN_MAX + 1)));
    let apply = |len| {
        RoleMessage::Apply(Apply {
            term: vec![7; len].into(),
            nonce: u64::MAX,
            mandate: vec![7; MANDATE_LEN_MAX].into(),
        })
    };
    assert!(fits(apply(TERM_LEN_MAX)) && !fits(apply(TERM_LEN_MAX + 1)));

    // More seats than may be named are not written, and the most fit.
    let addr = SocketAddr::from(([0xfd; 16], u16::MAX));
    let id = NodeId::from_bytes([0xff; 32]);
    let home = Home { id, addrs: vec![addr; 4] };
    let contact = PeerAddr { id, addrs: vec![addr; 8], homes: vec![home; 3] };
    let seat = SeatHint { contact, load: 255, is_active: true, capacity_log2: 255 };
    let seats =
        RoleMessage::Seats(Seats { bits: 32, seats: vec![seat; SEATS_MAX + 9], known: 255 });
    let Message::Node(NodeMessage::Role(RoleMessage::Seats(read))) =
        Message::decode(&encode_role(seats)[LENGTH_LEN..]).expect("within the limits")
    else {
        panic!("another message");
    };
    assert_eq!(read.seats.len(), SEATS_MAX);
    assert_eq!(read.seats[0].contact.addrs.len(), index::CONTACT_ADDRS_MAX);
}

#[test]
fn golden_vectors_of_roles() {
    assert_eq!(encode_role(RoleMessage::Show(Show {})), hex("0004 82 1822 a0"));
    let beat = RoleMessage::Beat(Beat { load: 24, asks: true });
    assert_eq!(encode_role(beat), hex("0009 82 1827 a2 00 1818 01 f5"));
    let apply = Apply { term: vec![1, 2].into(), nonce: 3, mandate: Bytes::new() };
    assert_eq!(encode_role(RoleMessage::Apply(apply)), hex("000a 82 1824 a2 00 420102 01 03"));
    for (number, reason) in [
        (0, DeclineReason::NotMine),
        (1, DeclineReason::Time),
        (2, DeclineReason::Invalid),
        (3, DeclineReason::Full),
        (4, DeclineReason::NoElector),
        (5, DeclineReason::NoGuest),
    ] {
        let declined = RoleMessage::Declined(Declined { reason, retry_after_s: 0 });
        assert_eq!(encode_role(declined), hex(&format!("0008 82 1826 a2 00 0{number} 01 00")));
    }
}
