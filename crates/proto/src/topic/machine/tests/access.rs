//! Who may say, hear and read what in a private topic.

use super::*;
use crate::topic::access::capability::Chain;
use crate::topic::entry::{Draft, KIND_HERE};

/// Node 1 founded it, the others came by an invite each.
fn private(count: u8) -> (World, TopicId) {
    let access = founded();
    World::joined(count, |n| match n {
        1 => access.clone(),
        n => invited(&access, n, Rank::Write, None),
    })
}

#[test]
fn who_may_only_read_hears_and_cannot_say() {
    let access = founded();
    let (mut world, topic) = World::joined(2, |n| match n {
        1 => access.clone(),
        n => invited(&access, n, Rank::Read, None),
    });
    world.say(1, topic, "hello");
    world.run(5);
    assert!(world.has(2, topic, "hello"));
    assert_eq!(world.seen_by(1, topic, 2).rank, Some(Rank::Read));
    let request = world.say(2, topic, "mute");
    assert_eq!(world.error(2, request), TopicError::NotAllowed(Rank::Read));
}

/// One whose own node does not stop it: it signs and pushes what it may not say.
#[test]
fn what_was_said_without_a_capability_that_allows_it_is_not_taken() {
    let access = founded();
    let topic = access.keys().id;
    let now_ms = START.as_secs() * 1_000;
    let soon = START + Duration::from_secs(60);
    let read = Chain::root(&secret(200), id(2), Rank::Read, None);
    let write = Chain::root(&secret(200), id(2), Rank::Write, None);
    let short = Chain::root(&secret(200), id(2), Rank::Write, Some(soon));
    let others = Chain::root(&secret(200), id(3), Rank::Write, None);
    let forged = Chain::root(&secret(201), id(2), Rank::Write, None);
    let takes = |chain: Option<&Chain>, kind: u8, time_ms: u64| {
        let mut bench = hostile::Bench::new(1, access.clone());
        bench.join(2);
        let chain = chain.map(|chain| chain.encode().into());
        let draft = Draft { seq: 1, time_ms, kind, chain, ..Draft::default() };
        let entry = Signed::sign(&secret(2), NETWORK, topic, draft);
        bench.says(2, TopicBody::Push(entry.bytes().clone()));
        bench.topics.digest(topic) != hostile::Bench::new(1, access.clone()).topics.digest(topic)
    };
    assert!(takes(Some(&write), KIND_MESSAGE, now_ms));
    assert!(!takes(None, KIND_MESSAGE, now_ms), "nothing is shown");
    assert!(!takes(Some(&read), KIND_MESSAGE, now_ms) && takes(Some(&read), KIND_HERE, now_ms));
    assert!(!takes(Some(&write), 1, now_ms), "control is for managers");
    assert!(!takes(Some(&others), KIND_MESSAGE, now_ms), "another's");
    assert!(!takes(Some(&forged), KIND_MESSAGE, now_ms), "of another topic");
    assert!(takes(Some(&short), KIND_MESSAGE, now_ms), "while it is valid");
    assert!(!takes(Some(&short), KIND_MESSAGE, now_ms + 120_000), "when it has expired");
    assert!(!takes(Some(&write), KIND_MESSAGE, now_ms + 700_000), "of the future");
}

#[test]
fn a_capability_that_expires_ends_what_its_node_may_say() {
    let access = founded();
    let until = START + Duration::from_secs(120);
    let (mut world, topic) = World::joined(2, |n| match n {
        1 => access.clone(),
        n => invited(&access, n, Rank::Write, Some(until)),
    });
    world.say(2, topic, "in time");
    world.run(120);
    let request = world.say(2, topic, "late");
    assert_eq!(world.error(2, request), TopicError::NotAllowed(Rank::Relay));
    assert_eq!(world.texts(1, topic), [Some("in time".to_owned())]);
}

#[test]
fn who_is_removed_reads_nothing_after_and_is_heard_no_more() {
    let (mut world, topic) = private(4);
    world.say(3, topic, "before");
    world.run(5);
    // It does not hear of its removal, and goes on.
    world.cut(3);
    world.remove(1, topic, 3);
    world.say(3, topic, "after");
    world.say(1, topic, "among us");
    world.run(30);
    world.cut.clear();
    world.run(600);
    for n in [1, 2, 4] {
        assert!(world.has(n, topic, "before") && world.has(n, topic, "among us"), "node {n}");
        assert!(!world.has(n, topic, "after"), "node {n}");
        assert!(world.seen_by(n, topic, 3).is_removed);
    }
    assert!(!world.has(3, topic, "among us"));
    let request = world.say(3, topic, "still here");
    assert_eq!(world.error(3, request), TopicError::NoKey);
    world.say(4, topic, "nor this");
    world.run(10);
    assert!(world.has(2, topic, "nor this") && !world.has(3, topic, "nor this"));
}

#[test]
fn a_removal_outlives_a_restart() {
    let (mut world, topic) = private(3);
    world.cut(3);
    world.remove(1, topic, 3);
    world.run(5);
    world.restart(1);
    world.restart(2);
    world.say(3, topic, "after");
    world.cut.clear();
    world.run(300);
    assert!(!world.has(1, topic, "after") && !world.has(2, topic, "after"));
    world.say(2, topic, "among us");
    world.run(5);
    assert!(world.has(1, topic, "among us") && !world.has(3, topic, "among us"));
}

#[test]
fn a_newcomer_with_a_later_invite_reads_the_past() {
    let (mut world, topic) = private(4);
    world.say(2, topic, "first epoch");
    world.run(5);
    world.remove(1, topic, 3);
    world.say(2, topic, "second epoch");
    world.run(5);
    world.remove(1, topic, 4);
    world.say(2, topic, "third epoch");
    world.run(5);
    let access = world.members[&1].topics.access(topic).unwrap().clone();
    world.add(5, topics(5, TopicConfig::default()), BTreeMap::new());
    world.join(5, invited(&access, 5, Rank::Write, None));
    world.run(60);
    for text in ["first epoch", "second epoch", "third epoch"] {
        assert!(world.has(5, topic, text), "{text}: {:?}", world.texts(5, topic));
    }
    world.say(5, topic, "hello");
    world.run(5);
    assert!(world.has(2, topic, "hello") && !world.has(3, topic, "hello"));
}
