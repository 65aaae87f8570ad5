//! Nodes in one process over loopback: reaching each other, directly and through a third.

use std::time::Duration;

use baran::{Connection, Node, NodeBuilder, PathKind, PeerAddr};

const PROTOCOL: &str = "test/1";

/// A node that cannot probe its peers' addresses: the gate lets nothing out to loopback but what
/// the owner named, so two such nodes reach each other through a third alone.
fn shy() -> NodeBuilder {
    Node::builder().bind("127.0.0.1:0".parse().unwrap())
}

fn builder() -> NodeBuilder {
    shy().allow_net("127.0.0.0/8".parse().unwrap())
}

/// A node's own address, without its homes: whoever knows those reaches them, too.
fn at(node: &Node) -> PeerAddr {
    PeerAddr { homes: Vec::new(), ..node.invite() }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

/// Sends `bytes` to the peer, which echoes them.
async fn echo(connection: &Connection, bytes: &[u8]) -> Vec<u8> {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let write = async {
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
    };
    let (read, ()) = tokio::join!(recv.read_to_end(usize::MAX), write);
    read.unwrap()
}

fn serve_echo(node: &Node) {
    let mut acceptor = node.accept(PROTOCOL).unwrap();
    tokio::spawn(async move {
        while let Some(connection) = acceptor.next().await {
            tokio::spawn(async move {
                while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                    tokio::spawn(async move {
                        tokio::io::copy(&mut recv, &mut send).await.unwrap();
                        send.finish().unwrap();
                    });
                }
            });
        }
    });
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(len)
    .collect()
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
    assert_eq!(status.relay.channels, [(a.id(), b.id())]);
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
