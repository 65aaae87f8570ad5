use minicbor::bytes::ByteArray;

use super::*;
use crate::topic::entry::ENTRY_LEN_MAX;
use crate::topic::id::ShortId;
use crate::topic::presence::PRESENCE_LEN_MAX;
use crate::topic::repair::{Asked, Head, Range, RepairMessage, SPANS_MAX, Summary};
use crate::wire::topic::{
    GossipMessage, MEMBERS_MAX, SHORTS_MAX, TOPIC_LENGTH_LEN, TOPIC_MESSAGE_LEN_MAX, TopicBody,
    TopicMessage,
};

fn short() -> impl Strategy<Value = ShortId> {
    any::<[u8; 16]>().prop_map(ShortId::from_bytes)
}

fn some_bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..100).prop_map(Bytes::from)
}

fn head() -> impl Strategy<Value = Head> {
    (id(), any::<u64>(), any::<u64>(), short()).prop_map(|(author, first, head, id)| Head {
        author,
        first,
        head,
        id,
    })
}

fn summary() -> impl Strategy<Value = Summary> {
    prop_oneof![
        any::<[u8; 32]>().prop_map(|digest| Summary::Fingerprint(digest.into())),
        (vec(head(), 0..4), any::<bool>())
            .prop_map(|(heads, is_answer)| Summary::Heads { heads, is_answer }),
    ]
}

fn range() -> impl Strategy<Value = Range> {
    (id(), prop::option::of(id()), summary()).prop_map(|(from, to, summary)| Range {
        from,
        to,
        summary,
    })
}

pub(crate) fn repair_message() -> impl Strategy<Value = RepairMessage> {
    let asked = (id(), any::<u64>(), any::<u64>()).prop_map(|(author, from, to)| Asked {
        author,
        from,
        to,
    });
    prop_oneof![
        (any::<[u8; 32]>(), any::<bool>()).prop_map(|(digest, is_asking)| {
            RepairMessage::Digest { digest: digest.into(), is_asking }
        }),
        vec(range(), 0..6).prop_map(RepairMessage::Ranges),
        vec(asked, 0..=SPANS_MAX).prop_map(RepairMessage::Ask),
        (vec((id(), some_bytes()), 0..3), vec(some_bytes(), 0..4))
            .prop_map(|(chains, entries)| RepairMessage::Entries { chains, entries }),
    ]
}

fn gossip_message() -> impl Strategy<Value = GossipMessage> {
    let members = || vec(contact(), 0..=MEMBERS_MAX);
    let shorts = || vec(short(), 0..=SHORTS_MAX);
    prop_oneof![
        any::<bool>().prop_map(|is_urgent| GossipMessage::Neighbor { is_urgent }),
        (any::<bool>(), members()).prop_map(|(is_accepted, members)| {
            GossipMessage::Neighbored { is_accepted, members }
        }),
        Just(GossipMessage::Parted),
        members().prop_map(GossipMessage::Shuffle),
        members().prop_map(GossipMessage::Shuffled),
        shorts().prop_map(GossipMessage::Have),
        shorts().prop_map(GossipMessage::Graft),
        Just(GossipMessage::Prune),
    ]
}

fn message() -> impl Strategy<Value = TopicMessage> {
    let body = prop_oneof![
        (any::<[u8; 32]>(), any::<bool>())
            .prop_map(|(tag, is_asking)| TopicBody::Join { tag, is_asking }),
        Just(TopicBody::Unknown),
        Just(TopicBody::Leave),
        gossip_message().prop_map(TopicBody::Gossip),
        some_bytes().prop_map(TopicBody::Push),
        repair_message().prop_map(TopicBody::Repair),
        some_bytes().prop_map(TopicBody::Presence),
        (some_bytes(), some_bytes()).prop_map(|(a, b)| TopicBody::Fork(a, b)),
    ];
    (any::<u32>(), body).prop_map(|(number, body)| TopicMessage { number, body })
}

fn encode(body: TopicBody) -> Vec<u8> {
    TopicMessage { number: 7, body }.encode()
}

fn read(bytes: &[u8]) -> Result<TopicBody, DecodeError> {
    TopicMessage::decode(bytes).map(|message| message.body)
}

fn malformed(bytes: &[u8]) -> bool {
    matches!(read(bytes), Err(DecodeError::Malformed(_)))
}

proptest! {
    #[test]
    fn round_trip(message in message()) {
        let bytes = message.encode();
        let (len, body) = bytes.split_at(TOPIC_LENGTH_LEN);
        prop_assert_eq!(len, u32::try_from(body.len()).unwrap().to_be_bytes());
        prop_assert_eq!(TopicMessage::decode(body), Ok(message));
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..200), kind in 0_u8..16) {
        let _ = TopicMessage::decode(&bytes);
        // With a head that is read, so that the bodies are reached.
        let _ = TopicMessage::decode(&[&[0x83, 7, kind][..], &bytes].concat());
    }

    #[test]
    fn mutations_never_panic(message in message(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = message.encode().split_off(TOPIC_LENGTH_LEN);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = TopicMessage::decode(&bytes);
        let _ = TopicMessage::decode(&bytes[..at]);
    }
}

#[test]
fn types_of_the_future_are_skipped_and_bytes_after_a_message_are_not() {
    assert_eq!(read(&hex("83 07 0f f6")), Err(DecodeError::UnknownType(15)));
    assert_eq!(read(&hex("83 07 02 f6")), Ok(TopicBody::Leave));
    assert!(malformed(&hex("83 07 02 f6 00")));
    assert!(malformed(&hex("82 07 02")));
    assert!(malformed(&hex("83 07 02 a0")), "nothing is said with a Leave");
}

#[test]
fn limits_hold() {
    // What is over the limits of lists is not written.
    let shorts = |len| encode(TopicBody::Gossip(GossipMessage::Have(vec![short_of(1); len])));
    assert_eq!(shorts(SHORTS_MAX + 9), shorts(SHORTS_MAX));
    let contact = |n| PeerAddr::from(NodeId::from_bytes([n; 32]));
    let members = |len| {
        let members = (0..len).map(contact).collect();
        encode(TopicBody::Gossip(GossipMessage::Shuffle(members)))
    };
    assert_eq!(members(9), members(8));

    // What is over the limits is not read.
    let shorts = |len: usize| {
        let len_bytes = u16::try_from(len).unwrap().to_be_bytes();
        [&hex("83 07 08 59")[..], &len_bytes, &vec![3; len]].concat()
    };
    assert!(read(&shorts(64 * 16)).is_ok());
    assert!(malformed(&shorts(65 * 16)), "one name too many");
    assert!(malformed(&shorts(24)), "half a name");
    let mut nine = members(8).split_off(TOPIC_LENGTH_LEN);
    assert_eq!(nine[3], 0x88);
    nine[3] = 0x89;
    nine.extend_from_slice(&[&hex("a1 00 58 20")[..], &[5; 32]].concat());
    assert!(malformed(&nine));
    let of = |len| Bytes::from(vec![0; len]);
    let check = |max: usize, body: fn(Bytes) -> TopicBody| {
        assert!(read(&encode(body(of(max)))[TOPIC_LENGTH_LEN..]).is_ok());
        assert!(malformed(&encode(body(of(max + 1)))[TOPIC_LENGTH_LEN..]));
    };
    check(ENTRY_LEN_MAX, TopicBody::Push);
    check(PRESENCE_LEN_MAX, TopicBody::Presence);
    check(ENTRY_LEN_MAX, |entry| TopicBody::Fork(entry.clone(), entry));
    assert!(malformed(&vec![0; TOPIC_MESSAGE_LEN_MAX + 1]));
}

fn short_of(n: u8) -> ShortId {
    ShortId::from_bytes([n; 16])
}

#[test]
fn limits_of_comparisons_hold() {
    let repair = |message| encode(TopicBody::Repair(message)).split_off(TOPIC_LENGTH_LEN);
    let asked = Asked { author: NodeId::from_bytes([1; 32]), from: 1, to: 2 };
    assert!(read(&repair(RepairMessage::Ask(vec![asked; SPANS_MAX]))).is_ok());
    assert!(malformed(&repair(RepairMessage::Ask(vec![asked; SPANS_MAX + 1]))));
    let range = |summary| Range { from: NodeId::from_bytes([1; 32]), to: None, summary };
    let print = || Summary::Fingerprint(ByteArray::from([2; 32]));
    let ranges = |len| RepairMessage::Ranges((0..len).map(|_| range(print())).collect());
    assert!(read(&repair(ranges(64))).is_ok());
    assert!(malformed(&repair(ranges(65))));
    let head = Head { author: asked.author, first: 1, head: 2, id: short_of(3) };
    let heads = |len| {
        let summary = Summary::Heads { heads: vec![head; len], is_answer: true };
        RepairMessage::Ranges(vec![range(summary)])
    };
    assert!(read(&repair(heads(512))).is_ok());
    assert!(malformed(&repair(heads(513))));
    let entries = |chain: usize, entry: usize, len: usize| RepairMessage::Entries {
        chains: vec![(asked.author, vec![0; chain].into())],
        entries: vec![vec![0; entry].into(); len],
    };
    assert!(read(&repair(entries(1_024, ENTRY_LEN_MAX, 2))).is_ok());
    assert!(malformed(&repair(entries(1_025, 1, 1))));
    assert!(malformed(&repair(entries(1, ENTRY_LEN_MAX + 1, 1))));
    assert!(malformed(&repair(entries(1, 1, 513))));
    // Lists that claim four billion elements do not make us allocate for them.
    for kind in ["01 81", "02 81", "03 82 80"] {
        assert!(malformed(&hex(&format!("83 07 0c 82 {kind} 9a ffffffff"))));
    }
}

/// The bytes on the wire, fixed: a change here is a change of the protocol.
#[test]
fn golden_vectors() {
    let check = |body: TopicBody, expect: &str| {
        assert_eq!(encode(body.clone()), hex(expect), "{body:?}");
        assert_eq!(read(&hex(expect)[TOPIC_LENGTH_LEN..]), Ok(body));
    };
    let tag = "cd".repeat(32);
    let join = TopicBody::Join { tag: [0xCD; 32], is_asking: true };
    check(join, &format!("00000027 83 07 00 82 5820 {tag} f5"));
    check(TopicBody::Unknown, "00000004 83 07 01 f6");
    check(TopicBody::Leave, "00000004 83 07 02 f6");
    let gossip = |message, expect: &str| check(TopicBody::Gossip(message), expect);
    gossip(GossipMessage::Neighbor { is_urgent: true }, "00000004 83 07 03 f5");
    let (member, key) = (NodeId::from_bytes([0xAB; 32]), "ab".repeat(32));
    let members = vec![PeerAddr::from(member)];
    let neighbored = GossipMessage::Neighbored { is_accepted: false, members: members.clone() };
    gossip(neighbored, &format!("0000002a 83 07 04 82 f4 81 a1 00 5820 {key}"));
    gossip(GossipMessage::Parted, "00000004 83 07 05 f6");
    gossip(
        GossipMessage::Shuffle(members.clone()),
        &format!("00000028 83 07 06 81 a1 00 5820 {key}"),
    );
    gossip(GossipMessage::Shuffled(members), &format!("00000028 83 07 07 81 a1 00 5820 {key}"));
    let ids = format!("5820 {}{}", "01".repeat(16), "02".repeat(16));
    let shorts = || vec![short_of(1), short_of(2)];
    gossip(GossipMessage::Have(shorts()), &format!("00000025 83 07 08 {ids}"));
    gossip(GossipMessage::Graft(shorts()), &format!("00000025 83 07 09 {ids}"));
    gossip(GossipMessage::Prune, "00000004 83 07 0a f6");
    check(TopicBody::Push(Bytes::from_static(b"entry")), "00000009 83 07 0b 45 656e747279");
    check(TopicBody::Presence(Bytes::from_static(b"here")), "00000008 83 07 0d 44 68657265");
    let fork = TopicBody::Fork(Bytes::from_static(b"a"), Bytes::from_static(b"b"));
    check(fork, "00000008 83 07 0e 82 4161 4162");
}

/// The same of comparisons.
#[test]
fn golden_vectors_of_comparisons() {
    let check = |message: RepairMessage, expect: &str| {
        let bytes = TopicMessage { number: 7, body: TopicBody::Repair(message.clone()) }.encode();
        assert_eq!(bytes[TOPIC_LENGTH_LEN..], hex(expect), "{message:?}");
        assert_eq!(read(&hex(expect)), Ok(TopicBody::Repair(message)));
    };
    let (author, key) = (NodeId::from_bytes([0xAB; 32]), "ab".repeat(32));
    let (end, until) = (NodeId::from_bytes([0xEE; 32]), "ee".repeat(32));
    let (digest, print) = (ByteArray::from([0xCD; 32]), "cd".repeat(32));
    let message = RepairMessage::Digest { digest, is_asking: true };
    check(message, &format!("83 07 0c 82 00 82 5820 {print} f5"));
    let head = Head { author, first: 3, head: 9, id: short_of(1) };
    let heads = Summary::Heads { heads: vec![head], is_answer: true };
    let message = RepairMessage::Ranges(vec![
        Range { from: author, to: Some(end), summary: Summary::Fingerprint(digest) },
        Range { from: end, to: None, summary: heads },
    ]);
    let short = "01".repeat(16);
    check(
        message,
        &format!(
            "83 07 0c 82 01 81 82 83 5820 {key} 5820 {until} 82 00 81 5820 {print} \
             83 5820 {until} f6 82 01 82 81 84 5820 {key} 03 09 50 {short} f5"
        ),
    );
    let message = RepairMessage::Ask(vec![Asked { author, from: 3, to: 300 }]);
    check(message, &format!("83 07 0c 82 02 81 81 83 5820 {key} 03 19012c"));
    let chains = vec![(author, Bytes::from_static(b"chain"))];
    let message = RepairMessage::Entries { chains, entries: vec![Bytes::from_static(b"entry")] };
    check(message, &format!("83 07 0c 82 03 82 81 82 5820 {key} 45 636861696e 81 45 656e747279"));
}
