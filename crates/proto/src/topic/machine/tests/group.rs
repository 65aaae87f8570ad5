//! Members that behave: joining, saying, disks, restarts, presence.

use super::*;

fn all_in_public(count: u8) -> (World, TopicId) {
    World::joined(count, |_| public())
}

#[test]
fn members_find_each_other_and_all_read_what_each_says() {
    let (mut world, topic) = all_in_public(6);
    for n in 1..=6 {
        world.say(n, topic, &format!("from {n}"));
    }
    world.run(5);
    for n in 1..=6 {
        assert_eq!(world.texts(n, topic).len(), 6, "node {n}");
        (1..=6).for_each(|of| assert!(world.has(n, topic, &format!("from {of}"))));
    }
    assert!(world.is_in_step(topic, &[1, 2, 3, 4, 5, 6]));
}

#[test]
fn the_same_seed_gives_the_same_outputs() {
    let run = || {
        let (mut world, topic) = all_in_public(5);
        world.say(2, topic, "one");
        world.say(3, topic, "two");
        world.run(300);
        *world.trace.finalize().as_bytes()
    };
    assert_eq!(run(), run());
}

#[test]
fn a_peer_that_does_not_know_a_topic_learns_nothing_of_it() {
    let access = founded();
    let mut world = World::new(3);
    let topic = access.keys().id;
    // Node 1 believes that node 3 is a member, which takes part in another topic.
    world.join(3, public());
    let request = world.request();
    let members = vec![PeerAddr::from(id(3))];
    world.command(1, Command::Join { request, access: Box::new(access.clone()), members });
    world.join(2, invited(&access, 2, Rank::Write, None));
    world.say(1, topic, "secret");
    world.run(60);
    assert!(world.has(2, topic, "secret"));
    assert_eq!(world.members[&1].topics.neighbors(topic).collect::<Vec<_>>(), [id(2)]);
    let contains = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|at| at == part);
    let keys = access.keys();
    for bytes in world.sent.iter().filter(|((_, to), _)| *to == 3).flat_map(|(_, sent)| sent) {
        for part in [topic.as_bytes(), keys.discovery.as_bytes(), keys.gossip()] {
            assert!(!contains(bytes, part));
        }
        let body = TopicMessage::decode(&bytes[TOPIC_LENGTH_LEN..]).unwrap().body;
        assert!(matches!(body, TopicBody::Join { .. } | TopicBody::Unknown), "{body:?}");
    }
    // Nor is there anything that a tag for one of them is good for with another.
    assert!(!keys.is_tag(id(3), id(2), &keys.tag(id(1), id(3))));
}

#[test]
fn nothing_is_sent_before_it_is_on_disk_and_all_of_it_after() {
    let (mut world, topic) = all_in_public(3);
    world.set_disk(1, Mode::Waits);
    let requests: Vec<_> = (0..3).map(|n| world.say(1, topic, &format!("{n}"))).collect();
    world.run(60);
    assert_eq!(world.members[&1].topics.waiting(topic), 3);
    assert_eq!(world.texts(2, topic).len() + world.texts(1, topic).len(), 0);
    world.set_disk(1, Mode::Keeps);
    world.run(2);
    for (n, request) in requests.into_iter().enumerate() {
        let seq = n as u64 + 1;
        assert_eq!(*world.answer(1, request), Event::Sent { request, topic, seq });
        assert!(world.has(3, topic, &format!("{n}")));
    }
    assert_eq!(world.members[&1].topics.waiting(topic), 0);
}

#[test]
fn a_write_that_is_refused_is_told_and_its_number_is_used_again() {
    let (mut world, topic) = all_in_public(2);
    world.set_disk(1, Mode::Refuses);
    let lost = world.say(1, topic, "lost");
    assert_eq!(world.error(1, lost), TopicError::Disk);
    world.set_disk(1, Mode::Keeps);
    let request = world.say(1, topic, "kept");
    assert_eq!(*world.answer(1, request), Event::Sent { request, topic, seq: 1 });
    world.run(30);
    assert_eq!(world.texts(2, topic), [Some("kept".to_owned())]);
    assert!(!world.seen_by(2, topic, 1).is_forked);
}

#[test]
fn a_restart_goes_on_with_the_log_and_takes_nobody_for_a_forger() {
    let (mut world, topic) = all_in_public(3);
    world.say(1, topic, "one");
    world.say(2, topic, "two");
    world.run(5);
    world.restart(1);
    let request = world.say(1, topic, "three");
    assert_eq!(*world.answer(1, request), Event::Sent { request, topic, seq: 2 });
    world.run(60);
    assert!((1..=3).all(|n| world.texts(n, topic).len() == 3));
    assert!(world.is_in_step(topic, &[1, 2, 3]));
}

#[test]
fn who_was_away_gets_what_was_said_meanwhile() {
    let (mut world, topic) = all_in_public(4);
    world.cut(4);
    for n in 0..100 {
        world.say(1 + n % 3, topic, &format!("{n}"));
    }
    world.say(4, topic, "alone");
    world.run(120);
    assert_eq!(world.texts(4, topic).len(), 1);
    world.cut.clear();
    world.run(600);
    assert!(world.is_in_step(topic, &[1, 2, 3, 4]));
    assert_eq!(world.texts(4, topic).len(), 101);
    assert!(world.has(1, topic, "alone"));
}

#[test]
fn a_stream_that_broke_on_both_sides_heals() {
    let (mut world, topic) = all_in_public(2);
    for round in 0..3 {
        let now = world.now;
        world.member(1).topics.peer_broken(now, id(2));
        world.member(2).topics.peer_broken(now, id(1));
        world.say(1, topic, &format!("{round}"));
        world.run(60);
        assert!(world.has(2, topic, &format!("{round}")), "round {round}");
        assert!(world.seen_by(1, topic, 2).is_neighbor && world.seen_by(2, topic, 1).is_neighbor);
    }
}

#[test]
fn a_stream_that_broke_on_one_side_heals() {
    let (mut world, topic) = all_in_public(2);
    for n in [1, 2] {
        let now = world.now;
        world.member(n).topics.peer_broken(now, id(3 - n));
        world.run(60);
        world.say(1, topic, &format!("{n} to 2"));
        world.say(2, topic, &format!("{n} to 1"));
        world.run(60);
        assert!(world.has(2, topic, &format!("{n} to 2")), "broken at {n}");
        assert!(world.has(1, topic, &format!("{n} to 1")), "broken at {n}");
    }
}

#[test]
fn who_runs_from_an_old_copy_of_its_data_hears_that_it_forked() {
    let (mut world, topic) = all_in_public(3);
    world.say(1, topic, "one");
    world.run(5);
    let old = world.members[&1].restored();
    world.say(1, topic, "two");
    world.run(5);
    world.cut(1);
    let mut copy = topics(1, TopicConfig::default());
    copy.restore(world.now, old);
    world.add(1, copy, BTreeMap::new());
    world.say(1, topic, "another two");
    world.cut.clear();
    world.run(300);
    for n in 1..=3 {
        assert!(world.seen_by(n, topic, 1).is_forked, "node {n}");
        assert_eq!(world.texts(n, topic).len(), 2, "what was first stays");
    }
    let request = world.say(1, topic, "three");
    assert_eq!(world.error(1, request), TopicError::Forked);
}

#[test]
fn who_leaves_is_gone_and_comes_back_with_the_same_log() {
    let (mut world, topic) = all_in_public(3);
    world.say(3, topic, "one");
    world.run(5);
    assert!(world.seen_by(1, topic, 3).is_online);
    world.command(3, Command::Leave(topic));
    world.run(5);
    assert!(!world.seen_by(1, topic, 3).is_online);
    assert_eq!(world.members[&3].topics.read(topic, 0, 9, 9), None);
    let request = world.say(3, topic, "nobody hears");
    assert_eq!(world.error(3, request), TopicError::NotJoined);
    world.restart(3);
    world.join(3, public());
    let request = world.say(3, topic, "two");
    assert_eq!(*world.answer(3, request), Event::Sent { request, topic, seq: 2 });
    world.run(60);
    assert!(world.has(1, topic, "two") && !world.seen_by(1, topic, 3).is_forked);
}

#[test]
fn what_waits_when_its_topic_is_left_is_answered_and_is_not_taken_for_written() {
    let (mut world, topic) = all_in_public(2);
    world.set_disk(1, Mode::Waits);
    let lost = world.say(1, topic, "lost");
    world.command(1, Command::Leave(topic));
    world.join(1, public());
    world.say(1, topic, "again");
    world.set_disk(1, Mode::Keeps);
    world.run(30);
    assert_eq!(world.error(1, lost), TopicError::NotJoined);
    assert!(world.has(2, topic, "again") && !world.has(2, topic, "lost"));
}

#[test]
fn an_author_hears_who_has_what_it_said_and_what_others_say_of_themselves() {
    let access = founded();
    let (mut world, topic) = World::joined(3, |n| match n {
        1 => access.clone(),
        n => invited(&access, n, Rank::Write, None),
    });
    world.command(2, Command::Status { topic, status: Bytes::from_static(b"away") });
    let request = world.say(1, topic, "seen?");
    let Event::Sent { seq, .. } = *world.answer(1, request) else { panic!("not sent") };
    world.run(5);
    for n in 2..=3 {
        assert_eq!(world.seen_by(1, topic, n).has_ours, seq, "node {n}");
        assert!(world.seen_by(1, topic, n).is_online);
    }
    assert_eq!(world.seen_by(3, topic, 2).status.as_deref(), Some(&b"away"[..]));
    let too_long = Bytes::from(vec![0; 473]);
    world.command(2, Command::Status { topic, status: too_long });
    world.run(60);
    assert_eq!(world.seen_by(3, topic, 2).status.as_deref(), Some(&b"away"[..]));
    world.cut(2);
    world.run(120);
    assert!(!world.seen_by(1, topic, 2).is_online, "who says nothing is not there");
}

#[test]
fn what_the_owner_asks_for_is_bounded() {
    let config = TopicConfig { topics_max: 1, outbox_max: 2, ..TopicConfig::default() };
    let mut world = World::with(1, &config);
    world.join(1, public());
    let topic = public().keys().id;
    let request = world.request();
    let access = Box::new(Access::public("another").unwrap());
    world.command(1, Command::Join { request, access, members: Vec::new() });
    assert_eq!(world.error(1, request), TopicError::TooManyTopics);
    world.set_disk(1, Mode::Waits);
    let requests: Vec<_> = (0..4).map(|_| world.say(1, topic, "x")).collect();
    assert_eq!(world.error(1, requests[3]), TopicError::TooMany);
    let long = "x".repeat(32 * 1_024);
    let request = world.say(1, topic, &long);
    assert!(matches!(world.error(1, request), TopicError::TooLarge { .. }));
    let request = world.request();
    let (kind, payload) = (1, Bytes::new());
    world.command(1, Command::Send { request, topic, kind, payload });
    assert_eq!(world.error(1, request), TopicError::Kind, "control is not for applications");
}
