//! Nodes that know nobody find each other through a public registry, over loopback: a small
//! Mainline DHT of the test's own.

#![cfg(feature = "mainline")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

mod support;

use std::net::Ipv4Addr;
use std::time::Duration;

use baran::{JoinedBy, MainlineConfig, Node};
use mainline::{Dht, MutableItem, SigningKey, Testnet};
use support::{builder, until, within};
use tokio::task::JoinSet;

/// The library's look-ups last at least as long as it waits for one node.
const TIMEOUT: Duration = Duration::from_millis(400);

/// The slots of the network `main`, as the registry derives them.
fn slots() -> impl Iterator<Item = SigningKey> {
    (0..16).map(|number| {
        let mut hasher = blake3::Hasher::new_derive_key("baran 1 slot of a public registry");
        hasher.update(&[number]).update(b"main");
        SigningKey::from_bytes(hasher.finalize().as_bytes())
    })
}

fn config(servers: &[String]) -> MainlineConfig {
    MainlineConfig {
        servers: servers.to_vec(),
        bind: Ipv4Addr::LOCALHOST,
        timeout: TIMEOUT,
        patience: Duration::from_millis(50),
        pause: (Duration::from_millis(200), Duration::from_secs(1)),
        refresh: Duration::from_millis(200),
    }
}

async fn node(servers: &[String]) -> Node {
    builder().registry(config(servers)).spawn().await.unwrap()
}

async fn are_joined(nodes: &[&Node]) {
    for node in nodes {
        until(async || !node.status().await.unwrap().peers.is_empty()).await;
    }
}

async fn testnet() -> Testnet {
    within(tokio::task::spawn_blocking(|| Testnet::builder(8).build())).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_know_nobody_find_each_other() {
    let testnet = testnet().await;
    let (a, b) = (node(&testnet.bootstrap).await, node(&testnet.bootstrap).await);
    are_joined(&[&a, &b]).await;
    let status = [a.status().await.unwrap(), b.status().await.unwrap()];
    assert!(
        status.iter().any(|status| status.index.joined_by == Some(JoinedBy::Registry)),
        "one of them dialled: {:?}",
        status.map(|status| status.index.joined_by),
    );
    // One that comes later is no worse off.
    let c = node(&testnet.bootstrap).await;
    are_joined(&[&c]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_in_the_slots_does_not_keep_them_apart() {
    let testnet = testnet().await;
    let vandal = Dht::builder()
        .bootstrap(&testnet.bootstrap)
        .bind_address(Ipv4Addr::LOCALHOST)
        .build()
        .unwrap()
        .as_async();
    let mut writing = JoinSet::new();
    for (number, key) in slots().enumerate() {
        let junk: &[u8] = match number % 4 {
            0 => &[1; 990],
            1 => &[1, 0xff, 0xff, 7],
            2 => b"d1:ai1ee",
            _ => &[],
        };
        // Three of four are kept from being written.
        let sequence = if number % 4 == 0 { 1 } else { i64::MAX };
        let item = MutableItem::new(key, junk, sequence, None);
        let vandal = vandal.clone();
        writing.spawn(async move {
            // What waits for its turn in a busy thread comes too late.
            while vandal.put_mutable(item.clone(), None).await.is_err() {}
        });
    }
    within(writing.join_all()).await;
    let (a, b) = (node(&testnet.bootstrap).await, node(&testnet.bootstrap).await);
    are_joined(&[&a, &b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_does_not_answer_costs_nothing_else() {
    let nobody = vec!["127.0.0.1:9".to_owned(), "no.such.host.invalid:1".to_owned()];
    let a = node(&nobody).await;
    let b = builder().peer(a.invite()).spawn().await.unwrap();
    are_joined(&[&a, &b]).await;
    within(a.close()).await;
}
