use proptest::prelude::*;

use super::*;
use crate::id::SecretKey;
use crate::topic::entry::Draft;
use crate::topic::entry::HEADS_MAX;
use crate::topic::id::TopicId;

const NOW: UnixTime = UnixTime::from_secs(1_790_000_000);

fn secret(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

fn topic() -> TopicId {
    TopicId::from_bytes([1; 32])
}

fn sign(author: u8, draft: Draft) -> Signed {
    let draft = Draft { time_ms: NOW.as_secs() * 1_000, ..draft };
    Signed::sign(&secret(author), "main", topic(), draft)
}

/// The log of an author, from its first entry on.
fn chain(author: u8, len: u64) -> Vec<Signed> {
    let mut chain: Vec<Signed> = Vec::new();
    for seq in 1..=len {
        let backlink = chain.last().map(Signed::id);
        let payload = vec![u8::try_from(seq % 256).unwrap(); 8].into();
        chain.push(sign(author, Draft { seq, backlink, payload, ..Draft::default() }));
    }
    chain
}

fn log(config: LogConfig) -> Log {
    Log::new(secret(99).id(), config)
}

fn seqs(applied: Applied) -> Vec<u64> {
    match applied {
        Applied::New(entries) => entries.into_iter().map(|entry| entry.seq).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_waits_is_applied_when_its_predecessors_come() {
    let [a, b, c]: [Signed; 3] = chain(1, 3).try_into().unwrap();
    let mut log = log(LogConfig::default());
    assert!(matches!(log.apply(NOW, c, false), Applied::Waits { from: 1, to: 2 }));
    assert!(matches!(log.apply(NOW, b.clone(), false), Applied::Waits { from: 1, to: 1 }));
    assert!(matches!(log.apply(NOW, b.clone(), false), Applied::Known));
    assert_eq!(seqs(log.apply(NOW, a, false)), [1, 2, 3]);
    assert!(matches!(log.apply(NOW, b, false), Applied::Known));
    assert!(log.take_fork().is_none());
}

#[test]
fn what_waits_is_bounded_and_not_for_ever() {
    let config = LogConfig { pending_per_author_max: 3, ..LogConfig::default() };
    let mut log = log(config);
    for entry in chain(1, 5).into_iter().skip(1).take(3) {
        assert!(matches!(log.apply(NOW, entry, false), Applied::Waits { .. }));
    }
    let late = chain(1, 6).pop().unwrap();
    let full = log.apply(NOW, late.clone(), false);
    assert!(matches!(full, Applied::Refused(Refusal::Pending)), "{full:?}");
    log.trim(NOW + Duration::from_secs(PENDING_S));
    assert!(matches!(log.apply(NOW, late, false), Applied::Waits { .. }));
}

#[test]
fn two_entries_with_one_number_are_a_fork() {
    let chain = chain(1, 2);
    let other = Draft { seq: 2, backlink: Some(chain[0].id()), ..Draft::default() };
    let other = sign(1, other);
    let mut log = log(LogConfig::default());
    chain.iter().for_each(|entry| drop(log.apply(NOW, entry.clone(), false)));
    assert!(log.is_new(secret(1).id(), 2, other.id()), "it is worth a look at its signature");
    let Applied::Forked(proof) = log.apply(NOW, other, false) else { panic!("no fork") };
    let (a, b) = proof.entries();
    let read = ForkProof::from_entries(b, a).unwrap();
    assert!(read.verify("main", topic()) && !read.verify("test", topic()));
    log.quarantine(&read);
    let next = Draft { seq: 3, backlink: Some(chain[1].id()), ..Draft::default() };
    let refused = log.apply(NOW, sign(1, next), false);
    assert!(matches!(refused, Applied::Refused(Refusal::Quarantined)), "{refused:?}");
    assert_eq!(log.proofs().count(), 1);
}

#[test]
fn an_entry_that_does_not_follow_is_a_fork_also_if_it_waited() {
    let chain = chain(1, 2);
    let torn = Draft { seq: 2, backlink: Some(EntryId::from_bytes([7; 32])), ..Draft::default() };
    let torn = sign(1, torn);
    let mut at_once = log(LogConfig::default());
    at_once.apply(NOW, chain[0].clone(), false);
    assert!(matches!(at_once.apply(NOW, torn.clone(), false), Applied::Forked(_)));
    let mut waited = log(LogConfig::default());
    waited.apply(NOW, torn, false);
    assert_eq!(seqs(waited.apply(NOW, chain[0].clone(), false)), [1]);
    let proof = waited.take_fork().expect("it is found");
    let (a, b) = proof.entries();
    ForkProof::from_entries(a, b).unwrap();
    let (a, b) = (chain[0].bytes().clone(), chain[1].bytes().clone());
    assert_eq!(ForkProof::from_entries(a, b), Err(ForkError::NoFork));
}

#[test]
fn history_is_trimmed_and_heads_stay() {
    let each = chain(1, 1)[0].bytes().len() + ENTRY_OVERHEAD;
    let config = LogConfig { bytes_max: 3 * each + each / 2, ..LogConfig::default() };
    let mut log = log(config);
    let chain = chain(1, 6);
    chain.iter().for_each(|entry| drop(log.apply(NOW, entry.clone(), false)));
    let dropped: Vec<_> = log.trim(NOW).into_iter().map(|entry| entry.seq).collect();
    assert_eq!(dropped.len() + log.len(), 6);
    assert!(log.bytes() <= 3 * each + each / 2);
    let id = secret(1).id();
    let span = log.head(id).unwrap();
    assert_eq!((span.first, span.head), (dropped.len() as u64 + 1, 6));
    assert!(!log.is_new(id, 1, chain[0].id()), "it is not fetched again");
    let all = log.trim(NOW + Duration::from_secs(31 * 24 * 3600));
    assert_eq!(all.len() + dropped.len(), 6);
    assert_eq!(log.head(id).map(|span| (span.first, span.head)), Some((7, 6)));
    let next = Draft { seq: 7, backlink: Some(chain[5].id()), ..Draft::default() };
    assert_eq!(seqs(log.apply(NOW, sign(1, next), false)), [7]);
}

#[test]
fn a_log_begins_late_where_nobody_has_what_was_before() {
    let chain = chain(1, 9);
    let mut new = log(LogConfig::default());
    assert_eq!(seqs(new.apply(NOW, chain[5].clone(), true)), [6]);
    assert_eq!(new.head(secret(1).id()).map(|span| span.first), Some(6));
    // Who has a part of it keeps that until the rest was asked of others for a while.
    let mut old = log(LogConfig::default());
    old.apply(NOW, chain[0].clone(), false);
    assert!(matches!(old.apply(NOW, chain[5].clone(), true), Applied::Waits { .. }));
    assert_eq!(old.head(secret(1).id()).map(|span| span.head), Some(1));
    let later = NOW + Duration::from_secs(GAP_S);
    assert_eq!(seqs(old.apply(later, chain[5].clone(), true)), [6]);
    assert_eq!(old.trim(later), [EntryRef { author: secret(1).id(), seq: 1 }]);
}

#[test]
fn entries_of_the_future_and_authors_beyond_the_limit_are_refused() {
    let mut log = log(LogConfig { authors_max: 1, ..LogConfig::default() });
    let early = UnixTime::from_secs(NOW.as_secs() - AHEAD_MS_MAX / 1_000 - 1);
    let refused = log.apply(early, chain(1, 1).remove(0), false);
    assert!(matches!(refused, Applied::Refused(Refusal::Future)), "{refused:?}");
    assert_eq!(seqs(log.apply(NOW, chain(1, 1).remove(0), false)), [1]);
    let refused = log.apply(NOW, chain(2, 1).remove(0), false);
    assert!(matches!(refused, Applied::Refused(Refusal::Authors)), "{refused:?}");
    log.set_quarantined(secret(3).id());
    assert!(!log.is_quarantined(secret(3).id()), "nor do forks of strangers take room");
}

#[test]
fn each_entry_of_others_is_named_once_and_what_it_covers_is_not() {
    let mut log = Log::new(secret(9).id(), LogConfig::default());
    let id = |n: u8| secret(n).id();
    log.apply(NOW, chain(1, 1).remove(0), false);
    let answer = Draft { seq: 1, heads: vec![(id(1), 1)], ..Draft::default() };
    log.apply(NOW, sign(2, answer), false);
    let (seq, backlink, heads) = log.next_draft_parts();
    assert_eq!((seq, backlink, &heads[..]), (1, None, &[(id(2), 1)][..]));
    let own = sign(9, Draft { seq, backlink, heads, ..Draft::default() });
    log.apply(NOW, own.clone(), false);
    assert_eq!(log.next_draft_parts(), (2, Some(own.id()), Vec::new()));
    // More than fit are named by the entries after.
    for author in 20..60 {
        log.apply(NOW, chain(author, 1).remove(0), false);
    }
    let (seq, backlink, heads) = log.next_draft_parts();
    assert_eq!(heads.len(), HEADS_MAX);
    log.apply(NOW, sign(9, Draft { seq, backlink, heads, ..Draft::default() }), false);
    assert_eq!(log.next_draft_parts().2.len(), 40 - HEADS_MAX);
}

#[test]
fn equal_words_are_different_messages() {
    let say = |seq, backlink| {
        let draft = Draft { seq, backlink, payload: "yes".into(), ..Draft::default() };
        sign(1, draft)
    };
    let first = say(1, None);
    let second = say(2, Some(first.id()));
    assert_ne!(first.id(), second.id());
    let mut log = log(LogConfig::default());
    log.apply(NOW, first, false);
    assert_eq!(seqs(log.apply(NOW, second, false)), [2]);
    assert_eq!(log.len(), 2);
}

#[test]
fn of_who_was_removed_the_same_counts_for_all_whatever_each_had_applied() {
    let chain = chain(1, 5);
    let having = |count: usize| {
        let mut log = log(LogConfig::default());
        chain[..count].iter().for_each(|entry| drop(log.apply(NOW, entry.clone(), false)));
        log.limit(secret(1).id(), 3);
        log
    };
    assert_eq!(having(3).digest(), having(5).digest());
    assert_ne!(having(2).digest(), having(5).digest());
    let counted: Vec<_> =
        having(5).compared(NodeId::from_bytes([0; 32]), None).map(|(_, span)| span.head).collect();
    assert_eq!(counted, [3]);
}

#[test]
fn a_restart_goes_on_where_the_disk_ends() {
    let (a, b) = (chain(1, 5), chain(2, 3));
    let mut torn: Vec<_> = a.iter().chain(&b).cloned().collect();
    torn.remove(1);
    torn.reverse();
    let last = b.last().unwrap();
    let heads = vec![
        (last.author(), last.seq(), last.id()),
        (secret(3).id(), 7, EntryId::from_bytes([7; 32])),
    ];
    let mut log = log(LogConfig::default());
    log.restore(torn, heads);
    let spans: Vec<_> = log.heads().map(|(id, span)| (id, span.first, span.head)).collect();
    let mut expect = vec![(secret(1).id(), 3, 5), (secret(2).id(), 1, 3), (secret(3).id(), 8, 7)];
    expect.sort_unstable();
    assert_eq!(spans, expect);
    assert_eq!(log.in_order().count(), 6);
}

proptest! {
    #[test]
    fn whatever_the_order_all_end_alike(
        order in Just((0..30).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        let all: Vec<_> = (1..=3).flat_map(|author| chain(author, 10)).collect();
        let mut one = log(LogConfig::default());
        for entry in &all {
            one.apply(NOW, entry.clone(), false);
        }
        let mut other = log(LogConfig::default());
        for at in order.iter().chain(&order) {
            other.apply(NOW, all[*at].clone(), false);
        }
        prop_assert_eq!(one.digest(), other.digest());
        prop_assert_eq!(other.len(), 30);
    }
}
