use std::collections::VecDeque;

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::*;
use crate::id::SecretKey;
use crate::time::UnixTime;
use crate::topic::entry::{Draft, PAYLOAD_LEN_MAX};
use crate::topic::id::{ShortId, TopicId};
use crate::topic::log::LogConfig;
use crate::wire::tests::topic::repair_message;
use crate::wire::topic::{TOPIC_MESSAGE_LEN_MAX, TopicBody, TopicMessage};

const NOW: UnixTime = UnixTime::from_secs(1_790_000_000);

fn sign(author: u16, draft: Draft) -> Signed {
    let mut seed = [0; 32];
    seed[..2].copy_from_slice(&author.to_be_bytes());
    let draft = Draft { time_ms: NOW.as_secs() * 1_000, ..draft };
    Signed::sign(&SecretKey::from_bytes(seed), "main", TopicId::from_bytes([1; 32]), draft)
}

fn chain(author: u16, len: u64, payload: usize) -> Vec<Signed> {
    let mut chain: Vec<Signed> = Vec::new();
    for seq in 1..=len {
        let backlink = chain.last().map(Signed::id);
        let payload = vec![0; payload].into();
        chain.push(sign(author, Draft { seq, backlink, payload, ..Draft::default() }));
    }
    chain
}

fn log() -> Log {
    Log::new(NodeId::from_bytes([0xee; 32]), LogConfig::default())
}

/// Two members and what is on its way between them.
struct Pair {
    logs: [Log; 2],
    repairs: [Repair; 2],
    messages: usize,
    bytes: usize,
}

impl Pair {
    fn new(logs: [Log; 2]) -> Self {
        Self { logs, repairs: Default::default(), messages: 0, bytes: 0 }
    }

    /// Lets the first begin, and both go on until nothing is said. Returns what was no message.
    fn run(&mut self) -> Vec<Reply> {
        let mut queue: VecDeque<(usize, RepairMessage)> = VecDeque::new();
        queue.push_back((1, self.repairs[0].start(&self.logs[0])));
        let mut others = Vec::new();
        while let Some((to, message)) = queue.pop_front() {
            self.messages += 1;
            assert!(self.messages < 20_000, "they never end");
            let wire = TopicMessage { number: 1, body: TopicBody::Repair(message) }.encode();
            assert!(wire.len() <= TOPIC_MESSAGE_LEN_MAX);
            self.bytes += wire.len();
            let TopicBody::Repair(message) = TopicMessage::decode(&wire[4..]).unwrap().body else {
                panic!("another message")
            };
            let replies = self.repairs[to].handle(&self.logs[to], &|_| None, message);
            for reply in replies {
                match reply {
                    Reply::Send(message) => queue.push_back((1 - to, message)),
                    Reply::Entry { entry, as_base } => {
                        drop(self.logs[to].apply(NOW, *entry, as_base));
                    }
                    other => others.push(other),
                }
            }
            if let Some(message) = self.repairs[to].next(&self.logs[to]) {
                queue.push_back((1 - to, message));
            }
        }
        others
    }

    fn is_equal(&self) -> bool {
        self.logs[0].digest() == self.logs[1].digest()
    }
}

/// Logs of so many authors, of which the two members have different parts.
fn differing(authors: u16, mut differs: impl FnMut(&mut ChaCha8Rng) -> bool) -> Pair {
    let mut rng = ChaCha8Rng::from_seed([5; 32]);
    let mut logs = [log(), log()];
    for author in 0..authors {
        let chain = chain(author, 3, 16);
        let less = usize::from(differs(&mut rng)) * (rng.next_u32() as usize % 4 + 1);
        let which = rng.next_u32() as usize % 2;
        for (n, log) in logs.iter_mut().enumerate() {
            let skipped = if n == which { less.min(3) } else { 0 };
            for entry in &chain[..3 - skipped] {
                log.apply(NOW, entry.clone(), false);
            }
        }
    }
    Pair::new(logs)
}

#[test]
fn two_members_end_with_the_same_however_many_authors() {
    for authors in [3, 100, 1_000] {
        let mut pair = differing(authors, |rng| rng.next_u32().is_multiple_of(2));
        pair.run();
        assert!(pair.is_equal(), "{authors} authors");
        let others = pair.run();
        assert_eq!(others, [Reply::Equal, Reply::Equal], "both know that they have the same");
    }
}

#[test]
fn the_cost_follows_the_differences() {
    let mut rng = 0;
    let mut pair = differing(1_500, |_| {
        rng += 1;
        rng == 400 || rng == 1_200
    });
    pair.run();
    assert!(pair.is_equal());
    assert!(pair.messages <= 16, "{} messages", pair.messages);
    assert!(pair.bytes <= 24 * 1024, "{} bytes", pair.bytes);
}

#[test]
fn much_comes_in_batches_and_each_is_asked_for() {
    let mut logs = [log(), log()];
    for entry in chain(1, 200, 1_024) {
        logs[1].apply(NOW, entry, false);
    }
    let mut pair = Pair::new(logs);
    pair.run();
    assert!(pair.is_equal());
    assert!((10..40).contains(&pair.messages), "{} messages", pair.messages);
}

#[test]
fn who_comes_late_begins_where_history_does() {
    let config = LogConfig { bytes_max: 20_000, ..LogConfig::default() };
    let mut old = Log::new(NodeId::from_bytes([0xee; 32]), config);
    for entry in chain(1, 100, 512) {
        old.apply(NOW, entry, false);
        old.trim(NOW);
    }
    let first = old.heads().next().unwrap().1.first;
    assert!(first > 50);
    let mut pair = Pair::new([log(), old]);
    pair.run();
    assert!(pair.is_equal());
    assert_eq!(pair.logs[0].heads().next().map(|(_, span)| span.first), Some(first));
}

#[test]
fn another_entry_in_the_same_place_is_fetched_as_proof() {
    let chain = chain(1, 2, 8);
    let other = Draft { seq: 2, backlink: Some(chain[0].id()), ..Draft::default() };
    let mut logs = [log(), log()];
    for log in &mut logs {
        log.apply(NOW, chain[0].clone(), false);
    }
    logs[0].apply(NOW, chain[1].clone(), false);
    logs[1].apply(NOW, sign(1, other), false);
    let mut repair = Repair::default();
    let heads = logs[1].compared(NodeId::from_bytes([0; 32]), None).map(head).collect();
    let summary = Summary::Heads { heads, is_answer: true };
    let range = Range { from: NodeId::from_bytes([0; 32]), to: None, summary };
    repair.handle(&logs[0], &|_| None, RepairMessage::Ranges(vec![range]));
    let Some(RepairMessage::Ask(asked)) = repair.next(&logs[0]) else { panic!("not asked for") };
    assert_eq!((asked[0].from, asked[0].to), (2, 2));
}

#[test]
fn who_does_not_have_what_it_said_is_not_asked_for_ever() {
    let logs = log();
    let mut repair = Repair::default();
    let author = NodeId::from_bytes([7; 32]);
    let claim = || {
        let id = ShortId::from_bytes([0; 16]);
        let heads = vec![Head { author, first: 1, head: 9, id }];
        let summary = Summary::Heads { heads, is_answer: true };
        RepairMessage::Ranges(vec![Range { from: NodeId::from_bytes([0; 32]), to: None, summary }])
    };
    repair.handle(&logs, &|_| None, claim());
    assert!(matches!(repair.next(&logs), Some(RepairMessage::Ask(_))));
    assert_eq!(repair.next(&logs), None, "one question at a time");
    let nothing = || RepairMessage::Entries { chains: Vec::new(), entries: Vec::new() };
    assert_eq!(repair.handle(&logs, &|_| None, nothing()), []);
    assert_eq!(repair.next(&logs), None);
    assert_eq!(repair.handle(&logs, &|_| None, nothing()), [Reply::Nonsense]);
}

#[test]
fn an_answer_is_welcome_however_often_the_comparison_began_anew() {
    let logs = log();
    let mut repair = Repair::default();
    let author = NodeId::from_bytes([7; 32]);
    let heads = vec![Head { author, first: 1, head: 9, id: ShortId::from_bytes([0; 16]) }];
    let summary = Summary::Heads { heads, is_answer: true };
    let range = Range { from: NodeId::from_bytes([0; 32]), to: None, summary };
    repair.handle(&logs, &|_| None, RepairMessage::Ranges(vec![range]));
    assert!(matches!(repair.next(&logs), Some(RepairMessage::Ask(_))));
    // As when several pushes come whose predecessors are missing.
    (0..3).for_each(|_| drop(repair.start(&logs)));
    let entries = vec![chain(1, 1, 8).remove(0).bytes().clone()];
    let answer = RepairMessage::Entries { chains: Vec::new(), entries };
    let replies = repair.handle(&logs, &|_| None, answer.clone());
    assert!(matches!(replies[..], [Reply::Entry { .. }]), "{replies:?}");
    assert_eq!(repair.handle(&logs, &|_| None, answer), [Reply::Nonsense], "once");
}

#[test]
fn ranges_that_overlap_or_are_out_of_order_are_nonsense() {
    let mut logs = log();
    (0..100).for_each(|author| drop(logs.apply(NOW, chain(author, 1, 8).remove(0), false)));
    let id = |n: u8| NodeId::from_bytes([n; 32]);
    let check = |ranges: &[(u8, Option<u8>)], is_sense: bool| {
        let range = |(from, to): &(u8, Option<u8>)| {
            let summary = Summary::Fingerprint([0; 32].into());
            Range { from: id(*from), to: to.map(id), summary }
        };
        let ranges = RepairMessage::Ranges(ranges.iter().map(range).collect());
        let replies = Repair::default().handle(&logs, &|_| None, ranges);
        assert_eq!(replies != [Reply::Nonsense], is_sense, "{replies:?}");
    };
    check(&[(0, Some(9)), (9, Some(20)), (40, None)], true);
    check(&[(0, Some(9)), (8, Some(20))], false);
    check(&[(9, Some(20)), (0, Some(9))], false);
    check(&[(0, None), (0, None)], false);
    check(&[(9, Some(9))], false);
}

#[test]
fn what_is_asked_for_is_served_within_a_message() {
    // Almost as much as one answer takes, and then the largest entry.
    let mut logs = log();
    let spans = (0..64_u16).map(|author| {
        let payload = if author < 19 { 16 } else { PAYLOAD_LEN_MAX };
        let chain = chain(author, 3, payload);
        chain.iter().for_each(|entry| drop(logs.apply(NOW, entry.clone(), false)));
        Asked { author: chain[0].author(), from: 2, to: u64::MAX }
    });
    let asked = RepairMessage::Ask(spans.collect());
    let chain_of = |_| Some(Bytes::from(vec![0; 1_024]));
    let replies = Repair::default().handle(&logs, &chain_of, asked);
    let [Reply::Send(message)] = &replies[..] else { panic!("{} replies", replies.len()) };
    let wire = TopicMessage { number: u32::MAX, body: TopicBody::Repair(message.clone()) }.encode();
    assert!(wire.len() > PAYLOAD_LEN_MAX + 20 * 1_024, "{} bytes", wire.len());
    assert!(TopicMessage::decode(&wire[4..]).is_ok());
}

proptest! {
    #[test]
    fn whatever_is_well_formed_is_answered_within_limits(
        messages in proptest::collection::vec(repair_message(), 1..8),
    ) {
        let mut logs = log();
        (0..60).for_each(|author| drop(logs.apply(NOW, chain(author, 1, 8).remove(0), false)));
        let mut repair = Repair::default();
        for message in messages {
            let replies = repair.handle(&logs, &|_| None, message);
            let sent = replies.into_iter().filter_map(|reply| match reply {
                Reply::Send(message) => Some(message),
                _ => None,
            });
            let sent: Vec<_> = sent.chain(repair.next(&logs)).collect();
            prop_assert!(sent.len() <= MESSAGES_MAX + 1);
            for message in sent {
                let wire = TopicMessage { number: 1, body: TopicBody::Repair(message) }.encode();
                prop_assert!(TopicMessage::decode(&wire[4..]).is_ok());
            }
        }
    }

    #[test]
    fn whatever_comes_is_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = minicbor::decode::<RepairMessage>(&bytes) {
            let mut repair = Repair::default();
            prop_assert!(repair.handle(&log(), &|_| None, message).len() <= MESSAGES_MAX + 1);
        }
    }
}
