//! Arbitrary inputs, possible and impossible ones, never make an index panic or spin.

use proptest::prelude::*;

use super::*;
use crate::wire::index::{Digest, Find, Found, Lacking, Offer, Store, StoreOutcome, Stored};
use crate::wire::{LENGTH_LEN, Message, NodeMessage};

#[derive(Debug, Clone)]
enum Input {
    Up(usize),
    Hello(usize, bool),
    Down(usize),
    Guest(usize, bool),
    Unreachable(usize),
    Say(usize, IndexMessage),
    Command(Command),
    Search(usize),
    EndSearch(usize),
    DiskDone(u64, bool),
    Clock(u64),
    Place(usize),
}

fn peer() -> impl Strategy<Value = usize> {
    1usize..6
}

fn key() -> impl Strategy<Value = Key> {
    prop_oneof![
        Just(START_KEY),
        peer().prop_map(|n| Key::of_value(id(n), "name")),
        peer().prop_map(|n| Key::of_node(id(n))),
    ]
}

fn kind() -> impl Strategy<Value = RecordKind> {
    prop_oneof![Just(RecordKind::Node), Just(RecordKind::Announcement), Just(RecordKind::Value),]
}

fn record() -> impl Strategy<Value = Bytes> {
    let signed =
        (peer(), 0u64..4, 0u64..100_000, any::<bool>()).prop_map(|(n, sequence, ttl, is_value)| {
            let expires = START + Duration::from_secs(ttl);
            let (key, content) = if is_value {
                (None, Content::Value { name: "name".into(), value: Bytes::new() })
            } else {
                (Some(START_KEY), Content::Announcement)
            };
            Record::sign(&secret(n), NETWORK, key, sequence, expires, content)
                .unwrap()
                .bytes()
                .clone()
        });
    let junk = prop::collection::vec(any::<u8>(), 0..60).prop_map(Bytes::from);
    prop_oneof![3 => signed, 1 => junk]
}

pub(crate) fn message() -> impl Strategy<Value = IndexMessage> {
    let request = || prop_oneof![4 => 0u32..12, 1 => any::<u32>()];
    let contacts = prop::collection::vec(peer().prop_map(addr), 0..5);
    let records = prop::collection::vec(record(), 0..3);
    let page = || prop::option::of(0u64..3);
    let digests = || prop::collection::vec(any::<Digest>(), 0..4);
    let outcome = prop_oneof![Just(StoreOutcome::Kept), Just(StoreOutcome::Clock)];
    prop_oneof![
        (request(), key(), prop::option::of(kind()), page()).prop_map(
            |(request, target, records, page)| {
                IndexMessage::Find(Find { request, target, records, page })
            }
        ),
        (request(), contacts, any::<[u32; 2]>(), records, page()).prop_map(
            |(request, contacts, [linked, seats], records, more)| {
                IndexMessage::Found(Found { request, contacts, linked, records, more, seats })
            }
        ),
        (request(), record())
            .prop_map(|(request, record)| IndexMessage::Store(Store { request, record })),
        (request(), outcome)
            .prop_map(|(request, outcome)| IndexMessage::Stored(Stored { request, outcome })),
        (request(), digests())
            .prop_map(|(request, digests)| IndexMessage::Offer(Offer { request, digests })),
        (request(), digests())
            .prop_map(|(request, digests)| IndexMessage::Lacking(Lacking { request, digests })),
    ]
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    let query = || (0u64..3).prop_map(QueryId);
    let limit = || prop_oneof![Just(0usize), Just(1), Just(9), Just(usize::MAX)];
    prop_oneof![
        (query(), key(), kind(), limit()).prop_map(|(query, key, kind, limit)| Command::Find {
            query,
            key,
            kind,
            limit
        }),
        (query(), limit()).prop_map(|(query, limit)| Command::FindTopic {
            query,
            secret: START_KEY,
            limit
        }),
        (query(), "[a-c]{0,2}", 0usize..1100).prop_map(|(query, name, len)| {
            Command::Publish { query, name, value: vec![7; len].into() }
        }),
        query().prop_map(|query| Command::Announce { query, secret: START_KEY }),
        query().prop_map(Command::Cancel),
    ]
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        3 => peer().prop_map(Input::Up),
        3 => (peer(), any::<bool>()).prop_map(|(n, serves)| Input::Hello(n, serves)),
        1 => peer().prop_map(Input::Down),
        1 => (peer(), any::<bool>()).prop_map(|(n, is_guest)| Input::Guest(n, is_guest)),
        1 => peer().prop_map(Input::Unreachable),
        8 => (peer(), message()).prop_map(|(n, message)| Input::Say(n, message)),
        4 => command().prop_map(Input::Command),
        1 => peer().prop_map(Input::Search),
        1 => peer().prop_map(Input::EndSearch),
        2 => (0u64..8, any::<bool>()).prop_map(|(token, is_kept)| Input::DiskDone(token, is_kept)),
        1 => prop_oneof![Just(0), Just(START.as_secs()), any::<u64>()].prop_map(Input::Clock),
        1 => peer().prop_map(Input::Place),
    ]
}

fn apply(index: &mut Index, now: Instant, input: Input) {
    match input {
        Input::Up(n) if !index.linked.contains_key(&id(n)) => index.peer_up(now, &addr(n)),
        Input::Up(n) => index.peer_moved(now, &addr(n + 1), None, None),
        Input::Hello(n, serves) => drop(index.peer_hello(now, id(n), serves, 1)),
        Input::Down(n) => index.peer_down(now, id(n)),
        Input::Guest(n, is_guest) => index.set_guest(id(n), is_guest),
        Input::Unreachable(n) => index.unreachable(now, id(n)),
        Input::Say(n, message) => index.handle_message(now, id(n), message),
        Input::Command(command) => index.handle_command(now, command),
        Input::Search(n) => index.search(now, id(n), false),
        Input::EndSearch(n) => index.end_search(id(n)),
        Input::DiskDone(token, is_kept) => index.disk_done(now, token, is_kept),
        Input::Clock(unix) => index.handle_clock(now, UnixTime::from_secs(unix)),
        Input::Place(n) => {
            index.set_place(now, Place { addrs: addr(n).addrs, homes: Vec::new() });
        }
    }
}

/// Drains the index and checks what must hold for whatever it says.
fn drain(index: &mut Index) {
    while let Some(output) = index.poll_output() {
        if let Output::Send(to, message) = output {
            assert!(index.linked.contains_key(&to), "only who is linked is sent to");
            let bytes = Message::Node(NodeMessage::Index(message)).encode();
            assert!(Message::decode(&bytes[LENGTH_LEN..]).is_ok(), "others can read it");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn arbitrary_inputs_never_panic_and_leave_no_deadline_behind(
        seed: [u8; 32],
        steps in prop::collection::vec((0u64..20_000, input()), 1..60),
    ) {
        let config = IndexConfig { jobs_max: 5, own_max: 4, ..small() };
        let mut index = Index::new(secret(0), NETWORK.into(), config, seed);
        index.handle_clock(Instant::ZERO, START);
        let mut now = Instant::from_micros(1);
        for (pause_ms, input) in steps {
            apply(&mut index, now, input);
            drain(&mut index);
            let end = now + Duration::from_millis(pause_ms);
            while let Some(at) = index.poll_timeout().filter(|at| *at <= end) {
                now = at.max(now);
                index.handle_timeout(now);
                drain(&mut index);
                prop_assert!(index.poll_timeout().is_none_or(|at| at > now), "it spins");
            }
            now = end;
            prop_assert!(index.jobs.len() <= 5);
            // The node record is one of ours besides the owner's.
            prop_assert!(index.own.len() <= 4 + 1);
            prop_assert!(index.requests.len() <= 300 && index.waiting.len() <= 20);
        }
    }
}
