//! What this crate takes for granted about `noq` 1.4.0, so that a version that differs is noticed.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use common::Peer;
use noq::{Connection, PathError, PathStatus};
use tokio::net::UdpSocket;

/// Forwards between whoever speaks first and `to`, and collects the first bytes of all datagrams.
async fn tap(to: SocketAddr) -> (SocketAddr, Arc<Mutex<BTreeSet<u8>>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let bytes = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut buf = [0; 2048];
        let mut client = None;
        while let Ok((len, from)) = socket.recv_from(&mut buf).await {
            bytes.lock().unwrap().insert(buf[0]);
            let next = if from == to { client } else { Some(to) };
            if from != to {
                client = Some(from);
            }
            if let Some(next) = next {
                socket.send_to(&buf[..len], next).await.unwrap();
            }
        }
    });
    (addr, seen)
}

async fn connect(from: &Peer, to: &Peer, addr: SocketAddr) -> (Connection, Connection) {
    let connecting = from.endpoint.connect(addr, "test.invalid").unwrap();
    let incoming = async { to.endpoint.accept().await.unwrap().await.unwrap() };
    let (client, server) = tokio::join!(connecting, incoming);
    (client.unwrap(), server)
}

/// The demultiplexer knows QUIC by the fixed bit alone.
#[tokio::test(flavor = "multi_thread")]
async fn without_grease_quic_owns_the_bytes_with_the_fixed_bit_and_no_others() {
    let (a, b) = (Peer::new(), Peer::new());
    let (tap, seen) = tap(b.addr()).await;
    assert!(a.control.trust(tap) && b.control.trust(tap));
    // Many connections: the first byte of long headers and of greased packets varies.
    for _ in 0..20 {
        let (client, server) = connect(&a, &b, tap).await;
        let (mut send, _recv) = client.open_bi().await.unwrap();
        send.write_all(&[7; 100_000]).await.unwrap();
        send.finish().unwrap();
        let (_send, mut recv) = server.accept_bi().await.unwrap();
        assert_eq!(recv.read_to_end(100_000).await.unwrap().len(), 100_000);
        client.close(0u32.into(), b"");
        server.closed().await;
    }
    let seen = seen.lock().unwrap();
    assert!(seen.iter().any(|byte| *byte < 0x80) && seen.iter().any(|byte| *byte >= 0xC0));
    assert!(seen.iter().all(|byte| byte & 0x40 != 0), "{seen:?}");
}

/// The path manager asks only the client for paths.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_client_opens_paths() {
    let (a, b) = (Peer::new(), Peer::new());
    a.trusts(&b);
    b.trusts(&a);
    let (client, server) = connect(&a, &b, b.addr()).await;
    assert!(client.is_multipath_enabled(), "on by default in this test's settings");
    let refused = server.open_path(a.addr(), PathStatus::Backup).await.unwrap_err();
    assert_eq!(refused, PathError::ServerSideNotAllowed);
    // Needs the ids that the server gives out once the handshake is over.
    while let Err(error) = client.open_path(b.addr(), PathStatus::Backup).await {
        assert_eq!(error, PathError::RemoteCidsExhausted);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
