//! Ends: what was acknowledged is not lost, whoever waits is told, two links become one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

mod support;

use baran::SessionError;
use support::{PROTOCOL, builder, noise, pair, within};

/// Tries of what only goes wrong now and then.
const TRIES: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_was_finished_is_read_after_the_connection_is_closed() {
    let pair = pair().await;
    let bytes = noise(60_000);
    for _ in 0..10 {
        let (mut send, _recv) = within(pair.at_a.open_bi()).await.unwrap();
        within(send.write_all(&bytes)).await.unwrap();
        send.finish().unwrap();
    }
    within(pair.at_a.close(7, "done")).await;
    let end = within(pair.at_b.closed()).await;
    assert_eq!(end, SessionError::Closed { code: 7, reason: "done".into() });
    for _ in 0..10 {
        let (_send, mut recv) = within(pair.at_b.accept_bi()).await.unwrap();
        assert!(within(recv.read_to_end(usize::MAX)).await.unwrap() == bytes);
    }
    assert!(within(pair.at_b.accept_bi()).await.is_err());
}

/// The peer has not so much as looked at the connection when the node is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_was_acknowledged_is_read_after_the_node_is_closed() {
    let bytes = noise(3_000);
    for _ in 0..TRIES {
        let (a, b) = (builder().spawn().await.unwrap(), builder().spawn().await.unwrap());
        let mut acceptor = b.accept(PROTOCOL).unwrap();
        let at_a = within(a.connect(b.invite(), PROTOCOL)).await.unwrap();
        let mut streams = Vec::new();
        for _ in 0..10 {
            let (mut send, recv) = within(at_a.open_bi()).await.unwrap();
            within(send.write_all(&bytes)).await.unwrap();
            send.finish().unwrap();
            streams.push((send, recv));
        }
        for (send, _) in &mut streams {
            within(send.acknowledged()).await.unwrap();
        }
        within(a.close()).await;
        let at_b = within(acceptor.next()).await.unwrap();
        for _ in 0..10 {
            let (_send, mut recv) = within(at_b.accept_bi()).await.unwrap();
            assert!(within(recv.read_to_end(usize::MAX)).await.unwrap() == bytes);
        }
        within(b.close()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_dropped_unfinished_ends_where_it_was() {
    let pair = pair().await;
    let (mut send, _recv) = within(pair.at_a.open_bi()).await.unwrap();
    within(send.write_all(&noise(30_000))).await.unwrap();
    drop(send);
    let (_send, mut recv) = within(pair.at_b.accept_bi()).await.unwrap();
    assert!(within(recv.read_to_end(usize::MAX)).await.unwrap() == noise(30_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_stream_fails_at_its_reader() {
    let pair = pair().await;
    let (mut send, _recv) = within(pair.at_a.open_bi()).await.unwrap();
    within(send.write_all(b"never mind")).await.unwrap();
    // Its head would be lost with the rest.
    let (_send, mut recv) = within(pair.at_b.accept_bi()).await.unwrap();
    send.reset(42);
    assert_eq!(within(recv.read_to_end(100)).await, Err(SessionError::Reset(42)));
}

/// A node that goes leaves nobody waiting: not readers, not writers, not those without credit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_is_told_that_the_peer_is_gone() {
    let pair = pair().await;
    let (mut send, mut recv) = within(pair.at_a.open_bi()).await.unwrap();
    let _unread = {
        within(send.write_all(b"x")).await.unwrap();
        within(pair.at_b.accept_bi()).await.unwrap()
    };
    let writer = tokio::spawn(async move {
        loop {
            if let Err(error) = send.write_all(&[7; 4096]).await {
                return error;
            }
        }
    });
    let reader = tokio::spawn(async move { recv.read_to_end(100).await.unwrap_err() });
    tokio::time::sleep(support::QUIET).await;
    within(pair.b.close()).await;
    assert!(matches!(within(writer).await.unwrap(), SessionError::Lost(_)));
    assert!(matches!(within(reader).await.unwrap(), SessionError::Lost(_)));
    assert!(matches!(within(pair.at_a.accept_bi()).await, Err(SessionError::Lost(_))));
    assert!(matches!(within(pair.at_a.read_datagram()).await, Err(SessionError::Lost(_))));
    assert!(matches!(within(pair.at_a.closed()).await, SessionError::Lost(_)));
}

/// Both dial at once: two links for a moment. Conversations on either work, go on when one of the
/// links goes, and later ones find the peer at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_connect_to_each_other_at_once_both_succeed() {
    for _ in 0..5 {
        let (a, b) = (builder().spawn().await.unwrap(), builder().spawn().await.unwrap());
        let (mut accept_a, mut accept_b) =
            (a.accept(PROTOCOL).unwrap(), b.accept(PROTOCOL).unwrap());
        let both = async {
            tokio::join!(
                a.connect(b.invite(), PROTOCOL),
                b.connect(a.invite(), PROTOCOL),
                accept_a.next(),
                accept_b.next()
            )
        };
        let (from_a, from_b, at_a, at_b) = within(both).await;
        let ends = [(from_a.unwrap(), at_b.unwrap()), (from_b.unwrap(), at_a.unwrap())];
        for round in 0..3 {
            for (from, at) in &ends {
                let (mut send, _recv) = within(from.open_bi()).await.unwrap();
                within(send.write_all(&noise(10_000))).await.unwrap();
                send.finish().unwrap();
                let (_send, mut recv) = within(at.accept_bi()).await.unwrap();
                assert!(within(recv.read_to_end(usize::MAX)).await.unwrap() == noise(10_000));
            }
            let later = within(a.connect(b.id(), PROTOCOL)).await.unwrap();
            within(later.close(round, "")).await;
            drop(within(accept_b.next()).await.unwrap());
        }
        for node in [&a, &b] {
            assert_eq!(within(node.status()).await.unwrap().peers.len(), 1);
        }
    }
}
