//! Nodes in one process over loopback: reaching each other, directly and through a third.

use std::time::Duration;

use baran::{Connection, Node, NodeBuilder, PathKind, PeerAddr};

const PROTOCOL: &str = "test/1";

fn builder() -> NodeBuilder {
    Node::builder()
        .bind("127.0.0.1:0".parse().unwrap())
        .allow_net("127.0.0.0/8".parse().unwrap())
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
    let a = builder().peer(relay.invite()).spawn().await.unwrap();
    let b = builder().peer(relay.invite()).spawn().await.unwrap();
    serve_echo(&b);
    let connection = within(a.connect(PeerAddr::from(b.id()), PROTOCOL)).await.unwrap();
    let path = connection.path().unwrap();
    assert_eq!((path.kind, path.via), (PathKind::Relayed, Some(relay.id())));
    let bytes = noise(2_000_000);
    assert!(within(echo(&connection, &bytes)).await == bytes);
    let status = relay.status().await.unwrap();
    assert_eq!(status.relay.channels, [(a.id(), b.id())]);
    assert!(status.relay.reservations.contains(&b.id()));
    assert!(status.relay.bytes > 4_000_000);
}
