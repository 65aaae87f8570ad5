//! Readers that are slow or never read: nothing is lost, nothing else waits, memory is bounded.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use baran::{Connection, RecvStream, SendStream};
use baran_proto::credit;
use support::{PROTOCOL, Pair, WIDE, builder, noise, pair, pair_of, within};

/// Both ends of a stream, the bytes `b` being its first.
async fn stream(pair: &Pair) -> ((SendStream, RecvStream), (SendStream, RecvStream)) {
    let (at_a, at_b) = tokio::join!(pair.at_a.open_bi(), pair.at_b.accept_bi());
    (at_a.unwrap(), at_b.unwrap())
}

/// Writes `bytes` in messages of `len`, letting others run after each so that they travel apart.
fn write_apart(
    mut send: SendStream,
    bytes: Arc<Vec<u8>>,
    len: usize,
) -> (Arc<AtomicU64>, tokio::task::JoinHandle<()>) {
    let written = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&written);
    let task = tokio::spawn(async move {
        for message in bytes.chunks(len) {
            send.write_all(message).await.unwrap();
            count.fetch_add(message.len() as u64, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
        send.finish().unwrap();
        send.acknowledged().await.unwrap();
    });
    (written, task)
}

/// Waits until writers, whose readers stall, make no more progress, and returns what they wrote.
async fn blocked(written: &[Arc<AtomicU64>]) -> u64 {
    within(async {
        let mut last = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let count = written.iter().map(|written| written.load(Ordering::Relaxed)).sum();
            if count > 0 && count == last {
                return count;
            }
            last = count;
        }
    })
    .await
}

async fn stall_then_read(messages: usize, len: usize) {
    let pair = pair().await;
    let ((send, _), (_, mut recv)) = within(stream(&pair)).await;
    let bytes = Arc::new(noise(messages * len));
    let (written, task) = write_apart(send, Arc::clone(&bytes), len);
    let written = [written];
    let held = blocked(&written).await;
    assert!(held <= credit::OPEN, "all that is held for a reader that stalls: {held}");
    // Again in the middle, where the window has grown.
    let mut read = Vec::new();
    while read.len() < bytes.len() / 3 {
        read.extend_from_slice(&within(recv.read_chunk(1000)).await.unwrap().unwrap());
    }
    blocked(&written).await;
    read.extend(within(recv.read_to_end(usize::MAX)).await.unwrap());
    assert!(read == *bytes, "{} bytes of {}", read.len(), bytes.len());
    within(task).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_messages_of_64_bytes_wait_for_their_reader() {
    stall_then_read(100_000, 64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_messages_of_one_byte_wait_for_their_reader() {
    stall_then_read(20_000, 1).await;
}

/// Why streams are drained at once: `noq` 1.4.0 gives up a connection whose reader lets about two
/// thousand small chunks wait. When this fails, the work-around has become unnecessary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bare_noq_kills_a_connection_that_is_read_slowly() {
    let (a, b) = (support::secret(1), support::secret(2));
    let (from, to) = (support::raw_endpoint(&a), support::raw_endpoint(&b));
    let addr = to.local_addr().unwrap();
    let peer = baran::PeerAddr { id: b.id(), addrs: vec![addr], homes: Vec::new() };
    let accept = async { to.accept().await.unwrap().await.unwrap() };
    let dial = support::raw_dial(&from, &a, &peer, "main", WIDE);
    let (at_a, at_b) = within(async { tokio::join!(dial, accept) }).await;
    let at_a = at_a.unwrap();
    let (mut send, _recv) = at_a.open_bi().await.unwrap();
    let mut sent = 0;
    let error = within(async {
        loop {
            let frames = at_a.stats().frame_tx.stream;
            if let Err(error) = send.write_all(&[7; 64]).await {
                return error;
            }
            sent += 1;
            assert!(sent < 5_000, "a reader may be slow: drop the work-around in `mux::recv`");
            while at_a.stats().frame_tx.stream == frames && at_a.close_reason().is_none() {
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
    assert!(sent > 1_000 && error.to_string().contains("connection lost"), "{sent}: {error}");
    let reason = at_b.close_reason().unwrap().to_string();
    assert!(reason.contains("too many gaps in stream buffer"), "{reason}");
}

/// Sends `rounds` bytes there and back.
async fn ping_pong(at_a: &Connection, at_b: &Connection, rounds: usize) {
    let answer = async {
        let (mut send, mut recv) = at_b.accept_bi().await.unwrap();
        while let Some(bytes) = recv.read_chunk(100).await.unwrap() {
            send.write_all(&bytes).await.unwrap();
        }
        send.finish().unwrap();
    };
    let ask = async {
        let (mut send, mut recv) = at_a.open_bi().await.unwrap();
        for round in 0..rounds {
            let byte = [u8::try_from(round % 256).unwrap()];
            send.write_all(&byte).await.unwrap();
            assert_eq!(recv.read_chunk(100).await.unwrap().unwrap()[..], byte);
        }
        send.finish().unwrap();
        assert_eq!(recv.read_chunk(1).await.unwrap(), None);
    };
    within(async { tokio::join!(ask, answer) }).await;
}

/// Stalls as many streams as the peer may have open but one, and uses all that is left.
async fn others_go_on_beside_stalled_streams(pair: Pair) {
    let (mut stalled, mut written) = (Vec::new(), Vec::new());
    for _ in 0..15 {
        let ((send, recv_at_a), (send_at_b, recv)) = within(stream(&pair)).await;
        let (count, task) = write_apart(send, Arc::new(noise(1_000_000)), 4096);
        written.push(count);
        stalled.push((task, recv, recv_at_a, send_at_b));
    }
    assert!(blocked(&written).await >= 15 * credit::INITIAL);
    // Another stream of the same session, and the control stream, which carries its credit.
    ping_pong(&pair.at_a, &pair.at_b, 200).await;
    ping_pong(&pair.at_b, &pair.at_a, 200).await;
    // Another session.
    let mut acceptor = pair.b.accept("other/1").unwrap();
    let at_a = within(pair.a.connect(pair.b.invite(), "other/1")).await.unwrap();
    let at_b = within(acceptor.next()).await.unwrap();
    ping_pong(&at_a, &at_b, 50).await;
    pair.at_a.send_datagram(b"hello").unwrap();
    assert_eq!(within(pair.at_b.read_datagram()).await.unwrap()[..], b"hello"[..]);
    // The stalled ones were only waiting.
    for (task, mut recv, ..) in stalled {
        let read = within(recv.read_to_end(usize::MAX)).await.unwrap();
        assert!(read == noise(1_000_000));
        within(task).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_streams_block_no_others() {
    others_go_on_beside_stalled_streams(pair().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_streams_block_no_others_when_the_memory_is_used_up() {
    let pair = pair_of(builder().budget_bytes(0), builder().budget_bytes(0)).await;
    others_go_on_beside_stalled_streams(pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_hears_that_its_stalled_reader_left() {
    let pair = pair().await;
    let ((mut send, _), (_, recv)) = within(stream(&pair)).await;
    let writer = tokio::spawn(async move {
        loop {
            if let Err(error) = send.write_all(&[7; 4096]).await {
                return error;
            }
        }
    });
    tokio::time::sleep(support::QUIET).await;
    drop(recv);
    let error = within(writer).await.unwrap();
    assert!(matches!(error, baran::SessionError::Stopped(_)), "{error}");
    ping_pong(&pair.at_a, &pair.at_b, 10).await;
}

/// Datagrams that nobody reads make room for later ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_datagrams_are_bounded_and_the_latest_are_kept() {
    let pair = pair().await;
    for n in 0..2_000_u32 {
        pair.at_a.send_datagram(&n.to_be_bytes()).unwrap();
        tokio::task::yield_now().await;
    }
    ping_pong(&pair.at_a, &pair.at_b, 10).await;
    let mut kept = Vec::new();
    let quiet = Duration::from_millis(500);
    while let Ok(read) = tokio::time::timeout(quiet, pair.at_b.read_datagram()).await {
        kept.push(u32::from_be_bytes(read.unwrap()[..].try_into().unwrap()));
    }
    assert!(!kept.is_empty() && kept.len() <= 256, "{}", kept.len());
    assert!(kept.is_sorted() && *kept.last().unwrap() > 1_000, "the latest: {kept:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_protocol_nobody_accepts_costs_no_streams() {
    let pair = pair().await;
    // More often than streams may be open at a time.
    for _ in 0..40 {
        let refused = within(pair.a.connect(pair.b.invite(), "nobody/1")).await.unwrap();
        if let Ok((mut send, mut recv)) = within(refused.open_bi()).await {
            drop(within(send.write_all(b"anybody?")).await);
            // An end or an error; but not silence.
            drop(within(recv.read_to_end(100)).await);
        }
        within(refused.closed()).await;
    }
    assert_eq!(pair.at_a.protocol(), PROTOCOL);
    ping_pong(&pair.at_a, &pair.at_b, 10).await;
}
