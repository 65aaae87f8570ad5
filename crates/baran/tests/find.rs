//! Finding through the index, over loopback: peers, values and topics, with no fixed node.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use std::time::Duration;

use baran::{FindError, Node, NodeBuilder, PeerAddr, PublishError};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(30);

fn builder() -> NodeBuilder {
    Node::builder().bind(([127, 0, 0, 1], 0).into()).allow_net("127.0.0.0/8".parse().unwrap())
}

async fn network(nodes: usize) -> Vec<Node> {
    let first = builder().spawn().await.unwrap();
    let mut all = vec![first.clone()];
    for _ in 1..nodes {
        let peer = PeerAddr { id: first.id(), addrs: first.addresses(), homes: Vec::new() };
        all.push(builder().peer(peer).spawn().await.unwrap());
    }
    for node in &all {
        let deadline = Instant::now() + PATIENCE;
        while node.status().await.unwrap().index.warm < (nodes - 1).min(8) {
            assert!(Instant::now() < deadline, "warm connections: {:?}", node.status().await);
            sleep(Duration::from_millis(50)).await;
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_found_when_its_author_is_gone() {
    let nodes = network(12).await;
    let (author, reader) = (&nodes[5], &nodes[9]);
    let receipt = author.publish("greeting", "hello").await.unwrap();
    assert!(receipt.is_enough(), "{receipt:?}");
    let again = author.publish("greeting", "hello again").await.unwrap();
    assert!(again.is_enough(), "{again:?}");
    author.close().await;
    nodes[0].close().await;
    let found = reader.get(author.id(), "greeting").await.unwrap().expect("it is kept");
    assert_eq!(&found.value[..], b"hello again");
    assert_eq!(reader.get(author.id(), "farewell").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_leads_to_its_peers() {
    let nodes = network(12).await;
    let mut announcements = Vec::new();
    for node in &nodes[1..8] {
        announcements.push(node.announce("birds").await.unwrap());
    }
    assert!(announcements.iter().all(|announced| announced.receipt().kept > 0));
    let mut lookup = nodes[10].lookup("birds");
    let mut found = std::collections::BTreeSet::new();
    while let Some(peer) = lookup.next().await {
        found.insert(peer.unwrap().id);
    }
    let announced: std::collections::BTreeSet<_> = nodes[1..8].iter().map(Node::id).collect();
    assert_eq!(found, announced);
    assert!(nodes[10].lookup("fish").next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_id_is_enough_to_connect() {
    let nodes = network(24).await;
    nodes[0].close().await;
    let acceptor = nodes[20].accept("test/1").unwrap();
    let dialling = nodes[3].connect(nodes[20].id(), "test/1");
    let connection = tokio::time::timeout(PATIENCE, dialling).await.expect("reached").unwrap();
    assert_eq!(connection.peer(), nodes[20].id());
    drop(acceptor);
}

#[tokio::test]
async fn alone_nothing_is_found_and_that_is_said_at_once() {
    let node = builder().spawn().await.unwrap();
    let other = Node::builder().bind(([127, 0, 0, 1], 0).into()).spawn().await.unwrap().id();
    assert_eq!(node.get(other, "x").await, Err(FindError::NotJoined));
    assert_eq!(node.lookup("birds").next().await, Some(Err(FindError::NotJoined)));
    assert_eq!(node.publish("x", "y").await, Err(PublishError::NotJoined));
    assert!(node.status().await.unwrap().index.joined_by.is_none());
}

#[tokio::test]
async fn what_is_too_large_is_not_published() {
    let node = builder().spawn().await.unwrap();
    assert_eq!(node.publish("x", vec![0; 1025]).await, Err(PublishError::TooLarge));
    assert_eq!(node.publish("", "y").await, Err(PublishError::Name));
}
