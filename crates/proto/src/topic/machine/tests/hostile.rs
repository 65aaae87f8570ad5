//! One node, and peers that do what they like.

use super::*;
use crate::topic::entry::Draft;
use crate::topic::presence::Presence;
use crate::wire::topic::GossipMessage;

/// One node in one topic, whose disk keeps everything, and what it says to whom.
pub(super) struct Bench {
    pub(super) topics: Topics,
    topic: TopicId,
    now: Instant,
    said: Vec<(NodeId, TopicMessage)>,
    events: Vec<Event>,
    expelled: Vec<NodeId>,
}

impl Bench {
    pub(super) fn new(n: u8, access: Access) -> Self {
        Self::with(n, access, TopicConfig::default())
    }

    fn with(n: u8, access: Access, config: TopicConfig) -> Self {
        let topic = access.keys().id;
        let (said, events, expelled) = Default::default();
        let topics = topics(n, config);
        let mut bench = Self { topics, topic, now: Instant::ZERO, said, events, expelled };
        let request = RequestId(0);
        let (access, members) = (Box::new(access), Vec::new());
        bench.topics.handle_command(bench.now, Command::Join { request, access, members });
        bench.drain();
        bench
    }

    fn drain(&mut self) {
        while let Some(output) = self.topics.poll_output() {
            match output {
                Output::Send(peer, message) => self.said.push((peer, message)),
                Output::Disk(token, _) => self.topics.disk_done(self.now, token, true),
                Output::Event(event) => self.events.push(event),
                Output::Expel(peer) => self.expelled.push(peer),
                _ => {}
            }
        }
    }

    /// Node `n` shows the tag, and becomes a neighbour. It speaks of the topic as number 1.
    pub(super) fn join(&mut self, n: u8) {
        self.topics.peer_up(self.now, id(n));
        let keys = self.topics.access(self.topic).unwrap().keys();
        let tag = keys.tag(id(n), self.topics.me);
        self.says(n, TopicBody::Join { tag, is_asking: true });
        self.says(n, TopicBody::Gossip(GossipMessage::Neighbor { is_urgent: true }));
        assert!(self.is_neighbor(n));
    }

    pub(super) fn says(&mut self, n: u8, body: TopicBody) {
        self.topics.handle_message(self.now, id(n), TopicMessage { number: 1, body });
        self.drain();
    }

    fn pushes(&mut self, n: u8, entry: &Signed) {
        self.says(n, TopicBody::Push(entry.bytes().clone()));
    }

    fn is_neighbor(&self, n: u8) -> bool {
        self.topics.neighbors(self.topic).any(|neighbor| neighbor == id(n))
    }

    /// What it said to a node since this was last asked for.
    fn said_to(&mut self, n: u8) -> Vec<TopicBody> {
        let said = core::mem::take(&mut self.said).into_iter();
        said.filter(|(peer, _)| *peer == id(n)).map(|(_, message)| message.body).collect()
    }

    fn entries(&self) -> usize {
        self.topics.stats(self.topic).unwrap().entries
    }
}

fn draft(seq: u64, backlink: Option<&Signed>, payload: &'static str) -> Draft {
    let (time_ms, payload) = (START.as_secs() * 1_000, payload.into());
    Draft { seq, backlink: backlink.map(Signed::id), time_ms, payload, ..Draft::default() }
}

fn sign(n: u8, draft: Draft) -> Signed {
    Signed::sign(&secret(n), NETWORK, public().keys().id, draft)
}

/// A log of some entries in the public topic.
fn log_of(n: u8, len: u64) -> Vec<Signed> {
    let mut log: Vec<Signed> = Vec::new();
    (1..=len).for_each(|seq| log.push(sign(n, draft(seq, log.last(), "said"))));
    log
}

/// An entry whose signature is for another network.
fn forged(n: u8, seq: u64) -> Signed {
    let before = forged_before();
    let draft = draft(seq, (seq > 1).then_some(&before), "forged");
    Signed::sign(&secret(n), "another", public().keys().id, draft)
}

fn forged_before() -> Signed {
    sign(9, draft(1, None, "before"))
}

#[test]
fn one_forged_entry_costs_the_neighbourhood_and_more_the_conversation() {
    let mut bench = Bench::new(1, public());
    bench.join(2);
    bench.pushes(2, &forged(9, 1));
    assert!(!bench.is_neighbor(2) && bench.expelled.is_empty());
    for seq in 2..10 {
        bench.pushes(2, &forged(9, seq));
    }
    assert_eq!(bench.expelled, [id(2)], "once");
    assert_eq!(bench.entries(), 0);
    // From then on nothing of it is even looked at: what is good is not taken either.
    bench.pushes(2, &log_of(9, 1)[0]);
    bench.said.clear();
    let tag = public().keys().tag(id(2), id(1));
    bench.says(2, TopicBody::Join { tag, is_asking: true });
    assert_eq!(bench.entries(), 0);
    assert!(bench.said_to(2).is_empty(), "it is not answered");
    bench.now += BAN;
    bench.join(2);
    bench.pushes(2, &log_of(9, 1)[0]);
    assert_eq!(bench.entries(), 1, "a ban ends");
}

#[test]
fn what_is_no_entry_and_no_presence_costs_as_well() {
    let body = |kind: u8| match kind {
        0 => TopicBody::Push(Bytes::from_static(b"nothing")),
        1 => TopicBody::Presence(Bytes::from_static(b"nothing")),
        2 => TopicBody::Fork(Bytes::from_static(b"no"), Bytes::from_static(b"fork")),
        _ => {
            let presence = Presence::new(START.as_secs() * 1_000, 0, Bytes::new(), Vec::new());
            let other = presence.sign(&secret(3), "another", public().keys().id);
            TopicBody::Presence(other.encode())
        }
    };
    for kind in 0..4 {
        let mut bench = Bench::new(1, public());
        bench.join(2);
        (0..10).for_each(|_| bench.says(2, body(kind)));
        assert_eq!(bench.expelled, [id(2)], "kind {kind}");
    }
}

#[test]
fn two_entries_that_do_not_contradict_are_no_proof() {
    let mut bench = Bench::new(1, public());
    bench.join(2);
    let log = log_of(9, 2);
    bench.says(2, TopicBody::Fork(log[0].bytes().clone(), log[1].bytes().clone()));
    assert!(!bench.is_neighbor(2));
    assert!(!bench.events.contains(&Event::Forked { topic: bench.topic, author: id(9) }));
}

#[test]
fn entries_that_come_twice_or_in_another_order_count_once_and_in_order() {
    let mut bench = Bench::new(1, public());
    bench.join(2);
    let log = log_of(9, 6);
    for at in [3, 1, 5, 1, 0, 0, 4, 2, 3, 5] {
        bench.pushes(2, &log[at]);
    }
    let read = bench.topics.read(bench.topic, 0, 99, 9_999).unwrap().0;
    assert_eq!(read.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert!(bench.is_neighbor(2), "nobody is to blame for that");
}

#[test]
fn any_number_of_joins_of_unknown_topics_is_answered_by_a_bounded_one() {
    let mut bench = Bench::new(1, public());
    bench.topics.peer_up(bench.now, id(2));
    for number in 0..100_000_u32 {
        let mut tag = [0; 32];
        tag[..4].copy_from_slice(&number.to_be_bytes());
        let body = TopicBody::Join { tag, is_asking: true };
        bench.topics.handle_message(bench.now, id(2), TopicMessage { number, body });
        bench.drain();
    }
    let said = bench.said_to(2);
    assert!(said.len() <= 512 && said.iter().all(|body| *body == TopicBody::Unknown));
    assert_eq!(bench.topics.peers.len(), 1);
    bench.now += Duration::from_secs(60);
    bench.join(2);
}

#[test]
fn who_shows_no_tag_changes_nothing() {
    let mut bench = Bench::new(1, public());
    bench.topics.peer_up(bench.now, id(2));
    bench.pushes(2, &log_of(9, 1)[0]);
    bench.says(2, TopicBody::Gossip(GossipMessage::Neighbor { is_urgent: true }));
    bench.says(2, TopicBody::Leave);
    // Nor one that it heard from somebody else.
    let tag = public().keys().tag(id(3), id(1));
    bench.says(2, TopicBody::Join { tag, is_asking: true });
    bench.pushes(2, &log_of(9, 1)[0]);
    assert_eq!((bench.entries(), bench.is_neighbor(2)), (0, false));
    assert_eq!(bench.said_to(2), [TopicBody::Unknown]);
}

#[test]
fn topics_shared_with_one_peer_are_bounded_and_each_may_be_shown_again() {
    let config = TopicConfig { topics_per_peer_max: 1, ..TopicConfig::default() };
    let mut bench = Bench::with(1, public(), config);
    let other = Access::public("another").unwrap();
    let (request, keys) = (RequestId(1), other.keys().clone());
    let command = Command::Join { request, access: Box::new(other), members: Vec::new() };
    bench.topics.handle_command(bench.now, command);
    bench.join(2);
    bench.said.clear();
    let tag = keys.tag(id(2), id(1));
    let body = TopicBody::Join { tag, is_asking: true };
    bench.topics.handle_message(bench.now, id(2), TopicMessage { number: 2, body });
    bench.drain();
    assert_eq!(bench.said_to(2), [TopicBody::Unknown], "one too many");
    bench.join(2);
    let answers = bench.said_to(2);
    assert!(matches!(answers[0], TopicBody::Join { .. }), "{answers:?}");
}

#[test]
fn presences_are_bounded() {
    let config = TopicConfig { presences_max: 3, ..TopicConfig::default() };
    let mut bench = Bench::with(1, public(), config);
    bench.join(2);
    for n in 10..20 {
        let presence = Presence::new(START.as_secs() * 1_000, 0, Bytes::new(), Vec::new());
        let presence = presence.sign(&secret(n), NETWORK, bench.topic);
        bench.says(2, TopicBody::Presence(presence.encode()));
    }
    let members = bench.topics.members(bench.topic, bench.now);
    assert_eq!(members.iter().filter(|member| member.is_online).count(), 3 + 2);
}

#[test]
fn that_somebody_left_is_passed_on_once() {
    let mut bench = Bench::new(1, public());
    (2..=4).for_each(|n| bench.join(n));
    let mut presence = Presence::new(START.as_secs() * 1_000, 0, Bytes::new(), Vec::new());
    presence.is_leaving = true;
    let presence = presence.sign(&secret(9), NETWORK, bench.topic).encode();
    bench.said.clear();
    for _ in 0..5 {
        (2..=4).for_each(|n| bench.says(n, TopicBody::Presence(presence.clone())));
    }
    let all = bench.said.iter().filter(|(_, said)| matches!(said.body, TopicBody::Presence(_)));
    assert!(all.count() <= 2);
}

#[test]
fn who_forks_is_quarantined_everywhere_and_a_newcomer_hears_of_it() {
    let (mut world, topic) = World::joined(4, |_| public());
    let log = log_of(9, 1);
    let (one, other) =
        (sign(9, draft(2, Some(&log[0]), "yes")), sign(9, draft(2, Some(&log[0]), "no")));
    let is_forked =
        |world: &World, n: u8| world.members[&n].topics.rooms[&topic].log.is_quarantined(id(9));
    // Node 4 is taken over by the forger: it tells each of the others another story.
    let now = world.now;
    for (n, story) in [(1, &one), (2, &other)] {
        for entry in [&log[0], story] {
            let number = world.number_for(4, n);
            let message = TopicMessage { number, body: TopicBody::Push(entry.bytes().clone()) };
            world.member(n).topics.handle_message(now, id(4), message);
        }
    }
    world.run(60);
    for n in 1..=4 {
        let forked = Event::Forked { topic, author: id(9) };
        assert_eq!(world.members[&n].events.iter().filter(|event| **event == forked).count(), 1);
        assert!(is_forked(&world, n), "node {n}");
    }
    assert!(world.is_in_step(topic, &[1, 2, 3, 4]));
    world.add(5, topics(5, TopicConfig::default()), BTreeMap::new());
    world.join(5, public());
    world.run(60);
    assert!(is_forked(&world, 5));
    // Also by those that restarted since.
    (1..=5).for_each(|n| world.restart(n));
    world.add(6, topics(6, TopicConfig::default()), BTreeMap::new());
    world.join(6, public());
    world.run(60);
    assert!(is_forked(&world, 6));
    assert!(world.is_in_step(topic, &[1, 2, 3, 4, 5, 6]));
}

#[test]
fn a_fork_for_which_there_is_no_room_is_not_passed_on_for_ever() {
    let log = crate::topic::log::LogConfig { authors_max: 1, ..Default::default() };
    let config = TopicConfig { log, ..TopicConfig::default() };
    let mut bench = Bench::with(1, public(), config);
    (2..=3).for_each(|n| bench.join(n));
    bench.pushes(2, &log_of(8, 1)[0]);
    bench.said.clear();
    let (a, b) = (sign(9, draft(1, None, "yes")), sign(9, draft(1, None, "no")));
    for _ in 0..3 {
        bench.says(2, TopicBody::Fork(a.bytes().clone(), b.bytes().clone()));
    }
    assert_eq!(bench.said_to(3), []);
    assert!(bench.is_neighbor(2));
}
