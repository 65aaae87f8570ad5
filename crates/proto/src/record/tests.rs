use proptest::prelude::*;

use super::*;
use crate::wire::node::HOMES_MAX;

const NET: &str = "test";
const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

fn secret(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

fn value(name: &str, value: &[u8]) -> Content {
    Content::Value { name: name.to_owned(), value: Bytes::copy_from_slice(value) }
}

fn node(addrs: u16, homes: u8, versions: u32) -> Content {
    let addr = |n: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 4_000 + n));
    let home = |n: u8| Home { id: secret(n).id(), addrs: (0..4).map(addr).collect() };
    Content::Node {
        addrs: (0..addrs).map(addr).collect(),
        homes: (0..homes).map(home).collect(),
        versions: (0..versions).map(|n| u32::MAX - n).collect(),
    }
}

fn topic() -> Key {
    Key::of_topic(&Key::topic_secret("cats"), 7)
}

fn sign(key: Option<Key>, content: Content) -> Result<Record, RecordError> {
    Record::sign(&secret(1), NET, key, 5, NOW + hours(1), content)
}

/// Signs a body made by hand.
fn sign_body(build: impl FnOnce(&mut Encoder<Vec<u8>>)) -> Bytes {
    let mut encoder = Encoder::new(Vec::new());
    build(&mut encoder);
    let body = encoder.into_writer();
    envelope(&body, &secret(1).sign(&message(NET, &body)))
}

fn one_of_each() -> [Record; 3] {
    [(None, node(2, 1, 1)), (Some(topic()), Content::Announcement), (None, value("a", b"b"))]
        .map(|(key, content)| sign(key, content).expect("valid"))
}

#[test]
fn records_are_read_as_they_were_signed() {
    let id = secret(1).id();
    let keys = [Key::of_node(id), topic(), Key::of_value(id, "a")];
    let kinds = [RecordKind::Node, RecordKind::Announcement, RecordKind::Value];
    for ((record, key), kind) in one_of_each().into_iter().zip(keys).zip(kinds) {
        assert_eq!(Record::decode(record.bytes(), NET).as_ref(), Ok(&record));
        assert_eq!(record.slot(), Slot { key, kind, author: id });
        assert_eq!((record.sequence(), record.expires()), (5, NOW + hours(1)));
    }
}

/// The bytes of one announcement, made by another implementation (Python, OpenSSL's Ed25519).
#[test]
fn golden_announcement() {
    let record = sign(Some(Key::from_bytes([0x11; 32])), Content::Announcement).expect("valid");
    let golden = "825851a50001015820\
                  8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c\
                  025820\
                  1111111111111111111111111111111111111111111111111111111111111111\
                  0305041a6b49e010\
                  5840\
                  fa7edf03e0361d3ec6ac802b87e8239cf380abe226fe6c3e06c9e4044abaac23\
                  e05c77241e45dbb9f26aa376cf8b356dd0e45f93c493e63f68cbee27326e0c02";
    assert_eq!(data_encoding::HEXLOWER.encode(record.bytes()), golden);
}

#[test]
fn the_largest_of_each_kind_fit() {
    let name = "n".repeat(NAME_LEN_MAX);
    let last = |key, content| {
        Record::sign(&secret(1), NET, key, u64::MAX, UnixTime::from_secs(u64::MAX), content)
            .expect("fits")
    };
    let lens = [
        last(None, node(99, 99, 99)),
        last(Some(topic()), Content::Announcement),
        last(None, value(&name, &[7; VALUE_LEN_MAX])),
    ]
    .map(|record| record.bytes().len());
    assert_eq!(lens, [670, 162, 1_225]);
}

#[test]
fn lists_are_cut_to_their_limits() {
    let record = sign(None, node(99, 99, 99)).expect("cut");
    let Content::Node { addrs, homes, versions } = record.content() else { panic!("a node") };
    assert_eq!((addrs.len(), homes.len()), (NODE_ADDRS_MAX, HOMES_MAX));
    assert_eq!(versions.len(), NODE_VERSIONS_MAX);
}

#[test]
fn arguments_beyond_their_limits_are_refused() {
    let long = "n".repeat(NAME_LEN_MAX + 1);
    assert_eq!(sign(None, value("", b"")), Err(RecordError::Name { len: 0 }));
    assert_eq!(sign(None, value(&long, b"")), Err(RecordError::Name { len: 65 }));
    let big = value("a", &[0; VALUE_LEN_MAX + 1]);
    assert_eq!(sign(None, big), Err(RecordError::ValueTooLarge { len: 1_025 }));
    assert_eq!(sign(None, Content::Announcement), Err(RecordError::Key));
    assert_eq!(sign(Some(topic()), value("a", b"")), Err(RecordError::Key));
    assert_eq!(sign(Some(topic()), node(1, 0, 1)), Err(RecordError::Key));
}

#[test]
fn a_record_belongs_to_its_author_and_network() {
    for record in one_of_each() {
        let wrong = Err(RecordError::Signature);
        assert_eq!(Record::decode(record.bytes(), "tes"), wrong);
        assert_eq!(Record::decode(record.bytes(), "tesu"), wrong);
        assert_eq!(Record::decode(record.bytes(), "test2"), wrong);
        // Somebody else's signature under the author's name.
        let (body, _) = open(record.bytes()).expect("well-formed");
        let forged = envelope(body, &secret(2).sign(&message(NET, body)));
        assert_eq!(Record::decode(&forged, NET), wrong);
        // The author's signature of something else than a record.
        let forged = envelope(body, &secret(1).sign(body));
        assert_eq!(Record::decode(&forged, NET), wrong);
    }
}

#[test]
fn no_bit_can_be_flipped_and_no_byte_cut_or_added() {
    for record in one_of_each() {
        let bytes = record.bytes();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(&flipped.into(), NET).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Record::decode(&bytes.slice(..len), NET).is_err());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(Record::decode(&longer.into(), NET).is_err());
    }
}

#[test]
fn strangers_cannot_spell_a_record_differently() {
    let record = sign(None, value("a", b"b")).expect("valid");
    let (body, signature) = open(record.bytes()).expect("well-formed");
    // The same array with a length of two bytes where one would do.
    let mut spelled = vec![0x82, 0x59];
    spelled.extend(u16::try_from(body.len()).expect("short").to_be_bytes());
    spelled.extend_from_slice(body);
    spelled.extend([0x58, 64]);
    spelled.extend(signature);
    let refused = Record::decode(&spelled.into(), NET);
    assert_eq!(refused, Err(RecordError::Malformed("not in its shortest form".to_owned())));
}

#[test]
fn bodies_that_break_the_rules_are_refused() {
    let id = secret(1).id();
    let head = |e: &mut Encoder<Vec<u8>>, len: u64, kind: u8| {
        e.map(len).and_then(|e| e.u8(0)?.u8(kind)?.u8(1)?.encode(id)).expect("memory");
        e.u8(3).and_then(|e| e.u8(9)?.u8(4)?.u64(NOW.as_secs())).expect("memory");
    };
    let decode = |bytes: Bytes| Record::decode(&bytes, NET);
    // A node record at a key of its author's choice.
    let placed = sign_body(|e| {
        head(e, 6, 0);
        e.u8(2).and_then(|e| e.encode(topic())).expect("memory");
        e.u8(5).and_then(|e| e.map(3)?.u8(0)?.array(0)?.u8(1)?.array(0)).expect("memory");
        e.u8(2).and_then(|e| e.array(0)).expect("memory");
    });
    assert_eq!(decode(placed), Err(RecordError::Key));
    // An announcement without a key, a node record without a node, a kind of the future.
    assert_eq!(decode(sign_body(|e| head(e, 4, 1))), Err(RecordError::Key));
    assert!(matches!(decode(sign_body(|e| head(e, 4, 0))), Err(RecordError::Malformed(_))));
    assert!(matches!(decode(sign_body(|e| head(e, 4, 3))), Err(RecordError::Malformed(_))));
    // More bytes than the body.
    let trailing = sign_body(|e| {
        head(e, 5, 1);
        e.u8(2).and_then(|e| e.encode(topic())?.u8(0)).expect("memory");
    });
    assert!(matches!(decode(trailing), Err(RecordError::Malformed(_))));
    // A name and a value over their limits, though the record is not.
    let named = |name: &str, len: usize| {
        sign_body(|e| {
            head(e, 5, 2);
            let value = vec![0; len];
            e.u8(6).and_then(|e| e.map(2)?.u8(0)?.str(name)?.u8(1)?.bytes(&value)).expect("memory");
        })
    };
    assert!(decode(named("a", VALUE_LEN_MAX)).is_ok());
    assert_eq!(decode(named("", 1)), Err(RecordError::Name { len: 0 }));
    assert_eq!(decode(named("a", 1_025)), Err(RecordError::ValueTooLarge { len: 1_025 }));
    assert!(matches!(decode(named("a", RECORD_LEN_MAX)), Err(RecordError::TooLarge { .. })));
}

#[test]
fn fields_of_the_future_are_kept_and_announcements_stay_small() {
    let padded = |len: usize| {
        let padding = vec![0; len];
        sign_body(|e| {
            e.map(6).and_then(|e| e.u8(0)?.u8(1)?.u8(1)?.encode(secret(1).id())).expect("memory");
            e.u8(2).and_then(|e| e.encode(topic())?.u8(3)?.u8(9)).expect("memory");
            e.u8(4).and_then(|e| e.u64(NOW.as_secs())?.u8(40)?.bytes(&padding)).expect("memory");
        })
    };
    let bytes = padded(50);
    let record = Record::decode(&bytes, NET).expect("an unknown field is skipped");
    assert_eq!((record.content(), record.bytes()), (&Content::Announcement, &bytes));
    let error = Record::decode(&padded(200), NET).expect_err("too long for its kind");
    assert!(matches!(error, RecordError::TooLarge { max: ANNOUNCEMENT_LEN_MAX, .. }));
}

#[test]
fn lifetimes_allow_for_wrong_clocks_and_no_more() {
    let second = Duration::from_secs(1);
    for (record, kind) in one_of_each().into_iter().map(|record| (record.clone(), record.kind())) {
        let end = record.expires() + CLOCK_SKEW;
        let earlier = |by: Duration| UnixTime::from_secs(end.as_secs() - by.as_secs());
        assert_eq!(record.lifetime(end), Err(RecordError::Expired));
        assert_eq!(record.lifetime(earlier(second)), Ok(second));
        let longest = ttl_max(kind) + CLOCK_SKEW * 2;
        assert_eq!(record.lifetime(earlier(longest)), Ok(longest));
        let ahead = record.lifetime(earlier(longest + second));
        assert_eq!(ahead, Err(RecordError::FromTheFuture));
        assert_eq!(ahead.map_err(|error| error.outcome()), Err(StoreOutcome::Clock));
    }
    let forever = |expires| {
        let expires = UnixTime::from_secs(expires);
        Record::sign(&secret(1), NET, None, 0, expires, value("a", b"")).expect("valid")
    };
    assert_eq!(forever(u64::MAX).lifetime(NOW), Err(RecordError::FromTheFuture));
    assert_eq!(forever(0).lifetime(NOW), Err(RecordError::Expired));
}

proptest! {
    #[test]
    fn garbage_never_verifies(garbage in prop::collection::vec(any::<u8>(), 0..1_400)) {
        prop_assert!(Record::decode(&garbage.into(), NET).is_err());
    }

    /// Garbage in a true envelope reaches the body's decoder; even the author's signature does
    /// not make it a record that panics.
    #[test]
    fn signed_garbage_never_panics(garbage in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = sign_body(|e| e.writer_mut().extend(garbage));
        let _ = Record::decode(&bytes, NET);
    }

    /// Mutations that the author signs are read as some valid record or refused.
    #[test]
    fn signed_mutations_never_panic(
        which in 0usize..3,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let record = &one_of_each()[which];
        let mut body = open(record.bytes()).expect("well-formed").0.to_vec();
        for (index, byte) in changes {
            let index = index.index(body.len());
            body[index] = byte;
        }
        let bytes = sign_body(|e| e.writer_mut().extend(body));
        if let Ok(record) = Record::decode(&bytes, NET) {
            prop_assert_eq!(record.bytes(), &bytes);
        }
    }
}
