//! Nodes in one process over loopback: reaching each other, directly and through a third.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

mod support;

use std::time::Duration;

use baran::{Node, PathKind, PeerAddr};
use support::{PROTOCOL, builder, echo, noise, serve_echo, shy, within};

/// A node's own address, without its homes: whoever knows those reaches them, too.
fn at(node: &Node) -> PeerAddr {
    PeerAddr { homes: Vec::new(), ..node.invite() }
}

#[tokio::test(flavor = "multi_thread")]
async fn echo_over_a_direct_path() {
    let (a, b) = (builder().spawn().await.unwrap(), builder().spawn().await.unwrap());
    serve_echo(&b);
    let connection = within(a.connect(b.invite(), PROTOCOL)).await.unwrap();
    assert_eq!(connection.peer(), b.id());
    assert_eq!(connection.path().unwrap().kind, PathKind::Direct);
    let bytes = noise(20_000_000);
    assert!(within(echo(&connection, &bytes)).await == bytes);
    within(connection.close(0, "done")).await;
    within(a.close()).await;
    within(b.close()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn echo_through_a_relay_by_bare_id() {
    let relay = builder().spawn().await.unwrap();
    let a = shy().peer(at(&relay)).spawn().await.unwrap();
    let b = shy().peer(at(&relay)).spawn().await.unwrap();
    serve_echo(&b);
    let connection = within(a.connect(PeerAddr::from(b.id()), PROTOCOL)).await.unwrap();
    let path = connection.path().unwrap();
    assert_eq!((path.kind, path.via), (PathKind::Relayed, Some(relay.id())), "{path:?}");
    let bytes = noise(2_000_000);
    assert!(within(echo(&connection, &bytes)).await == bytes);
    let status = relay.status().await.unwrap();
    // Either may have asked, or both: the index makes the two warm connections of each other.
    let channels = status.relay.channels;
    let is_theirs = |(one, other)| [(a.id(), b.id()), (b.id(), a.id())].contains(&(one, other));
    assert!(!channels.is_empty() && channels.iter().copied().all(is_theirs), "{channels:?}");
    assert!(status.relay.reservations.contains(&b.id()));
    assert!(status.relay.bytes > 4_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_from_the_relay_to_a_direct_path_under_traffic() {
    let relay = builder().spawn().await.unwrap();
    let a = builder().peer(at(&relay)).spawn().await.unwrap();
    let b = builder().peer(at(&relay)).spawn().await.unwrap();
    serve_echo(&b);
    let connection = within(a.connect(PeerAddr::from(b.id()), PROTOCOL)).await.unwrap();
    let mut changes = connection.path_changes();
    let direct = async {
        while connection.path().unwrap().kind != PathKind::Direct {
            changes.changed().await.unwrap();
        }
    };
    let bytes = noise(2_000_000);
    let (echoed, ()) = within(async { tokio::join!(echo(&connection, &bytes), direct) }).await;
    assert!(echoed == bytes);
    within(relay.close()).await;
    assert!(within(echo(&connection, &bytes)).await == bytes, "the relay is not needed any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_relay_carries_on_when_the_first_goes() {
    let relays = [builder().spawn().await.unwrap(), builder().spawn().await.unwrap()];
    let with_relays = || relays.iter().fold(shy(), |node, relay| node.peer(at(relay)));
    let (a, b) = (with_relays().spawn().await.unwrap(), with_relays().spawn().await.unwrap());
    serve_echo(&b);
    // B has to be a guest of both before it is asked for.
    while b.status().await.unwrap().homes.len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let connection = within(a.connect(PeerAddr::from(b.id()), PROTOCOL)).await.unwrap();
    let first = connection.path().unwrap().via.unwrap();
    let has_backup = async || {
        let status = a.status().await.unwrap();
        status.peers.iter().any(|peer| peer.id == b.id() && !peer.backups.is_empty())
    };
    while !within(has_backup()).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let used = relays.iter().find(|relay| relay.id() == first).unwrap();
    within(used.close()).await;
    let bytes = noise(100_000);
    assert!(within(echo(&connection, &bytes)).await == bytes);
    let path = connection.path().unwrap();
    assert_eq!(path.kind, PathKind::Relayed, "{path:?} {:?}", a.status().await);
    assert_ne!(path.via, Some(first));
}
