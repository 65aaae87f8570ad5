//! Groups that talk over topics, over loopback.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use std::collections::BTreeSet;
use std::time::Duration;

use baran::data::DataDir;
use baran::{
    Capability, Joined, Messages, Node, NodeBuilder, PeerAddr, Since, Topic, TopicError,
    TopicFailure, TopicInvite,
};
use tokio::time::{Instant, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(30);

fn builder() -> NodeBuilder {
    Node::builder().bind(([127, 0, 0, 1], 0).into()).allow_net("127.0.0.0/8".parse().unwrap())
}

fn peer(node: &Node) -> PeerAddr {
    PeerAddr { id: node.id(), addrs: node.addresses(), homes: Vec::new() }
}

async fn network(nodes: usize) -> Vec<Node> {
    let first = builder().spawn().await.unwrap();
    let mut all = vec![first.clone()];
    for _ in 1..nodes {
        all.push(builder().peer(peer(&first)).spawn().await.unwrap());
    }
    all
}

/// The texts that come next, in no order.
async fn texts(messages: &mut Messages, count: usize) -> BTreeSet<String> {
    let mut texts = BTreeSet::new();
    while texts.len() < count {
        let next = timeout(PATIENCE, messages.next()).await;
        let next = next.unwrap_or_else(|_| panic!("only {texts:?} of {count} came")).unwrap();
        texts.insert(String::from_utf8(next.payload.unwrap().to_vec()).unwrap());
    }
    texts
}

async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn until_neighbors(topic: &Joined, count: usize) {
    until("neighbours", || async { topic.synced().await.unwrap().0.len() >= count }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_says_reaches_all_who_know_the_name() {
    let nodes = network(6).await;
    let mut rooms = Vec::new();
    for node in &nodes {
        rooms.push(node.topic(Topic::public("birds")).await.unwrap());
    }
    let mut readers: Vec<_> = rooms.iter().map(|room| room.messages(Since::Start)).collect();
    for (n, room) in rooms.iter().enumerate() {
        room.send(format!("from {n}")).await.unwrap();
    }
    let expect: BTreeSet<_> = (0..6).map(|n| format!("from {n}")).collect();
    for reader in &mut readers {
        assert_eq!(texts(reader, 6).await, expect);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_late_reads_what_was_said_though_its_author_is_gone() {
    let nodes = network(4).await;
    let author = nodes[1].topic(Topic::public("late")).await.unwrap();
    let keeper = nodes[2].topic(Topic::public("late")).await.unwrap();
    until_neighbors(&author, 1).await;
    for n in 0..100 {
        author.send(format!("{n}")).await.unwrap();
    }
    texts(&mut keeper.messages(Since::Start), 100).await;
    nodes[1].close().await;
    let late = nodes[3].topic(Topic::public("late")).await.unwrap();
    assert_eq!(texts(&mut late.messages(Since::Start), 100).await.len(), 100);
    let equal = || async { late.digest().await.unwrap() == keeper.digest().await.unwrap() };
    until("equal logs", equal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_lets_in_and_a_removal_keeps_out() {
    let nodes = network(4).await;
    let founder = nodes[0].topic(Topic::create()).await.unwrap();
    let invite = founder.invite(Capability::Write, None, Some("a club")).await.unwrap();
    let invite: TopicInvite = invite.to_text().parse().unwrap();
    let guest = nodes[1].topic(invite.clone()).await.unwrap();
    let other = nodes[2].topic(invite).await.unwrap();
    let reading = founder.invite(Capability::Read, None, None).await.unwrap();
    let reader = nodes[3].topic(reading).await.unwrap();
    founder.send("welcome").await.unwrap();
    guest.send("thanks").await.unwrap();
    let refused = reader.send("me too").await;
    let is_refused =
        matches!(refused, Err(TopicFailure::Topic(TopicError::NotAllowed(Capability::Read))));
    assert!(is_refused, "{refused:?}");
    for room in [&founder, &guest, &other, &reader] {
        texts(&mut room.messages(Since::Start), 2).await;
    }
    let known = || async { founder.members().await.unwrap().iter().all(|one| one.seq > 0) };
    until("everybody has shown what it may", known).await;
    founder.remove(vec![nodes[1].id()]).await.unwrap();
    until("the removal is known", || async { other.stats().await.unwrap().epoch == 1 }).await;
    until("the removal is known", || async { reader.stats().await.unwrap().epoch == 1 }).await;
    founder.send("among us").await.unwrap();
    for room in [&other, &reader] {
        let texts = texts(&mut room.messages(Since::Start), 3).await;
        assert!(texts.contains("among us"), "{texts:?}");
    }
    // The one that was removed may get the bytes; it cannot read them, and says nothing more.
    until("it hears that it is removed", || async {
        matches!(guest.send("hello?").await, Err(TopicFailure::Topic(TopicError::NoKey)))
    })
    .await;
    let mut messages = guest.messages(Since::Start);
    while let Some(message) = messages.next_within(Duration::from_millis(300)).await {
        assert_ne!(message.payload.as_deref(), Some(&b"among us"[..]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_is_there_after_a_restart_and_catches_up() {
    let nodes = network(2).await;
    let place = tempfile::tempdir().unwrap();
    let start = |dir: DataDir| builder().data(dir).peer(peer(&nodes[0])).spawn();
    let open = || DataDir::open(&place.path().join("data")).unwrap();
    let node = start(open()).await.unwrap();
    let id = node.id();
    let room = node.topic(Topic::public("memory")).await.unwrap();
    let other = nodes[1].topic(Topic::public("memory")).await.unwrap();
    until_neighbors(&other, 1).await;
    room.send("before").await.unwrap();
    texts(&mut other.messages(Since::Start), 1).await;
    node.close().await;
    drop(room);
    drop(node);
    other.send("meanwhile").await.unwrap();
    let node = start(open()).await.unwrap();
    assert_eq!(node.id(), id);
    assert_eq!(node.topics().await.unwrap().len(), 1);
    let room = node.topic(other.id()).await.unwrap();
    assert_eq!(texts(&mut room.messages(Since::Start), 2).await.len(), 2);
    assert_eq!(room.send("after").await.unwrap(), 2, "the log goes on");
    assert_eq!(texts(&mut other.messages(Since::Start), 3).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_knows_no_topic_learns_nothing_of_it() {
    let nodes = network(3).await;
    let room = nodes[1].topic(Topic::public("quiet")).await.unwrap();
    let known = nodes[2].topic(room.id()).await;
    assert!(matches!(known, Err(TopicFailure::Topic(TopicError::NotJoined))), "{known:?}");
    let long = "x".repeat(2_000);
    assert!(matches!(nodes[2].topic(Topic::public(long)).await, Err(TopicFailure::Access(_))));
    let big = room.send(vec![0; 40_000]).await;
    assert!(matches!(big, Err(TopicFailure::Topic(TopicError::TooLarge { .. }))), "{big:?}");
    room.leave().await.unwrap();
    until("it has left", || async { nodes[1].topics().await.unwrap().is_empty() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_hears_the_end_and_who_comes_back_goes_on_with_its_log() {
    let nodes = network(2).await;
    let stays = nodes[0].topic(Topic::public("again")).await.unwrap();
    let goes = nodes[1].topic(Topic::public("again")).await.unwrap();
    until_neighbors(&stays, 1).await;
    assert_eq!(goes.send("one").await.unwrap(), 1);
    texts(&mut stays.messages(Since::Start), 1).await;
    let mut waiting = goes.messages(Since::Now);
    let heard = tokio::spawn(async move { waiting.next().await });
    sleep(Duration::from_millis(100)).await;
    goes.leave().await.unwrap();
    assert_eq!(timeout(PATIENCE, heard).await.expect("it ends").unwrap(), None);
    let back = nodes[1].topic(Topic::public("again")).await.unwrap();
    assert_eq!(back.send("two").await.unwrap(), 2, "another first entry would be a fork");
    assert_eq!(texts(&mut stays.messages(Since::Start), 2).await.len(), 2);
    let members = stays.members().await.unwrap();
    assert!(members.iter().all(|member| !member.is_forked), "{members:?}");
}
