//! What an owner lends is a limit: peers that push against it over real sockets get no more.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use baran::data::DataDir;
use baran::{Node, NodeId, Pause, PeerAddr, PuzzleStatus, SecretKey, ServeLimits, ServeStatus};
use baran_proto::key::Key;
use baran_proto::wire::index::{Find, RecordKind};
use baran_proto::wire::{IndexMessage, Message, NodeMessage};
use baran_store::{Store, StoreError};
use support::{PROTOCOL, RawLink, builder, hear, noise, secret, serve_echo, shy, until, within};
use tokio::task::JoinSet;

/// Peers that ask the index as fast as they can; each gets 50 answers a second.
const ASKERS: u32 = 4;

/// Longest burst of the rate, for frames and answers together.
const BURST: u64 = 65_536 + 16_384;

/// A node that keeps its count in `dir`.
async fn lender(dir: &Path, limits: ServeLimits) -> Node {
    let builder = builder().data(DataDir::open(dir).unwrap()).serve(limits);
    // What an earlier one still writes is on disk in a moment.
    let store = dir.join("store.redb");
    until(async || !matches!(Store::open(&store), Err(StoreError::InUse(_)))).await;
    builder.spawn().await.unwrap()
}

async fn serving(node: &Node) -> ServeStatus {
    node.status().await.unwrap().serve
}

/// Peers that push against what a node lends: frames through it, and questions to it.
struct Flood {
    /// They push until it is dropped.
    _tasks: JoinSet<()>,
    /// Bytes of the answers that came.
    answered: Arc<AtomicU64>,
}

impl Flood {
    async fn new(on: &Node) -> Self {
        let mut tasks = JoinSet::new();
        let answered = Arc::new(AtomicU64::new(0));
        for n in 0..ASKERS {
            tasks.spawn(ask_always(on.clone(), secret(900 + n), Arc::clone(&answered)));
        }
        // Neither may probe for the other, so all that they say goes through the node.
        let at = PeerAddr { homes: Vec::new(), ..on.invite() };
        let a = shy().peer(at.clone()).spawn().await.unwrap();
        let b = shy().peer(at).spawn().await.unwrap();
        serve_echo(&b);
        tasks.spawn(async move {
            let bytes = noise(100_000);
            loop {
                // A connection that is starved is left for another one.
                let pushed = push(&a, b.id(), &bytes);
                drop(tokio::time::timeout(Duration::from_secs(3), pushed).await);
            }
        });
        Self { _tasks: tasks, answered }
    }

    /// Bytes that the node was seen to serve.
    fn served(&self, by: &Node) -> u64 {
        by.socket_stats().bytes_forwarded + self.answered.load(Ordering::Relaxed)
    }
}

/// Has bytes echoed by a peer until the connection breaks.
async fn push(by: &Node, to: NodeId, bytes: &[u8]) {
    let Ok(connection) = by.connect(PeerAddr::from(to), PROTOCOL).await else { return };
    while let Ok((mut send, mut recv)) = connection.open_bi().await {
        let write = async { send.write_all(bytes).await.is_ok() && send.finish().is_ok() };
        let (wrote, read) = tokio::join!(write, recv.read_to_end(usize::MAX));
        if !wrote || read.is_err() {
            return;
        }
    }
}

/// Asks without end, and counts the bytes of the answers; anew when the node closes the link.
async fn ask_always(node: Node, secret: SecretKey, answered: Arc<AtomicU64>) {
    loop {
        let RawLink { conn: _conn, mut say, hear: mut control, .. } =
            RawLink::new(&node, &secret).await;
        let count = async {
            while let Some(message) = hear(&mut control).await {
                if let Message::Node(NodeMessage::Index(IndexMessage::Found(_))) = message {
                    answered.fetch_add(message.encode().len() as u64, Ordering::Relaxed);
                }
            }
        };
        let ask = async {
            for request in 0.. {
                let target = Key::from_bytes([7; 32]);
                let find = Find { request, target, records: Some(RecordKind::Value), page: None };
                let message = Message::Node(NodeMessage::Index(IndexMessage::Find(find)));
                if say.write_all(&message.encode()).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = count => {}
            () = ask => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_push_never_get_more_than_the_bytes_of_a_day() {
    const CAP: u64 = 3_000_000;
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("data");
    let rate_bytes_per_s = CAP / 4;
    let limits = ServeLimits { bytes_per_day: CAP, rate_bytes_per_s, ..ServeLimits::default() };
    let node = lender(&dir, limits.clone()).await;
    let flood = Flood::new(&node).await;
    let start = Instant::now();
    while serving(&node).await.pause != Some(Pause::DayUsed) {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", node.status().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (served, status) = (flood.served(&node), serving(&node).await);
    assert!(served <= CAP && status.bytes_today <= CAP, "{served} {status:?}");
    assert!(served > CAP / 2, "nothing was pushed: {served} {status:?}");
    assert!(flood.answered.load(Ordering::Relaxed) > 0, "frames silenced the index");
    let relay = node.status().await.unwrap().relay;
    assert!(relay.reservations.is_empty() && relay.channels.is_empty(), "{relay:?}");
    drop(flood);
    within(node.close()).await;
    // The day goes on in the next run.
    let node = lender(&dir, limits).await;
    let flood = Flood::new(&node).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (again, status) = (flood.served(&node), serving(&node).await);
    assert!(served + again <= CAP && status.bytes_today <= CAP, "{served} {again} {status:?}");
    assert_eq!(status.pause, Some(Pause::DayUsed), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_push_never_get_more_than_the_rate() {
    const RATE: u64 = 200_000;
    let limits = ServeLimits { rate_bytes_per_s: RATE, ..ServeLimits::default() };
    let start = Instant::now();
    let node = builder().serve(limits).spawn().await.unwrap();
    let flood = Flood::new(&node).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let served = flood.served(&node);
    let elapsed_ms = u64::try_from(start.elapsed().as_millis()).unwrap();
    assert!(served <= BURST + RATE * elapsed_ms / 1_000, "{served} in {elapsed_ms} ms");
    assert!(served > RATE, "nothing was pushed: {served}");
    assert!(flood.answered.load(Ordering::Relaxed) > 0, "frames silenced the index");
    assert_eq!(serving(&node).await.pause, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_who_lends_nothing_serves_nothing() {
    let node = builder().serve(ServeLimits::off()).spawn().await.unwrap();
    let flood = Flood::new(&node).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(flood.served(&node), 0);
    let status = node.status().await.unwrap();
    assert_eq!(status.serve.pause, Some(Pause::Off));
    assert_eq!(status.puzzle, PuzzleStatus::Unwanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_puzzle_is_solved_once() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("data");
    let solved = async |node: &Node| match node.status().await.unwrap().puzzle {
        PuzzleStatus::Solved { nonce } => Some(nonce),
        _ => None,
    };
    let node = lender(&dir, ServeLimits::default()).await;
    until(async || solved(&node).await.is_some()).await;
    let nonce = solved(&node).await;
    within(node.close()).await;
    let node = lender(&dir, ServeLimits::default()).await;
    until(async || solved(&node).await.is_some()).await;
    assert_eq!(solved(&node).await, nonce, "another search would have ended elsewhere");
}
