//! A thousand connections that nobody reads cost a bounded amount of memory.
//!
//! The node under test runs in a process of its own (this test program, started again), so that
//! its resident set is its own; the kernel tells its size and its peak.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]
#![allow(
    clippy::print_stdout,
    reason = "what was measured is worth knowing, and how the child talks"
)]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use baran::{Connection, PeerAddr};
use baran_proto::credit;
use baran_proto::wire::mux::Credit;
use baran_proto::wire::{Message, MuxMessage};
use support::{PROTOCOL, RawLink, WIDE, builder, hear, raw_endpoint, secret, within};
use tokio::sync::watch;

/// Names the part that a child process plays.
const ROLE: &str = "BARAN_TEST_ROLE";

const CONNECTIONS: u32 = 1000;

/// Streams that a peer may open.
const STREAMS: usize = 16;

/// Most that the process may take (issue 2).
const RSS_MAX_KIB: u64 = 256 * 1024;

/// A node in a process of its own.
struct Server {
    child: Child,
    invite: PeerAddr,
}

impl Server {
    fn start(role: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_process", "--nocapture"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let invite = lines
            .map_while(Result::ok)
            .find_map(|line| line.split_once("invite ")?.1.parse().ok())
            .expect("the child tells where it is");
        Self { child, invite }
    }

    /// A line of the kernel's account of the process, in KiB.
    fn memory_kib(&self, key: &str) -> u64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).expect("the child lives");
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The node under test. Does nothing unless started as a child.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let node = builder().spawn().await.unwrap();
    let mut acceptor = node.accept(PROTOCOL).unwrap();
    println!("\ninvite {}", node.invite().to_invite());
    std::io::stdout().flush().unwrap();
    let mut held = Vec::new();
    while let Some(connection) = acceptor.next().await {
        let connection = Arc::new(connection);
        if role == "writes" {
            for _ in 0..STREAMS {
                tokio::spawn(write_for_ever(Arc::clone(&connection)));
            }
        }
        held.push(connection);
    }
}

async fn write_for_ever(connection: Arc<Connection>) {
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    while send.write_all(&[7; 8192]).await.is_ok() {}
}

/// Connects a thousand raw peers, each with one open session.
async fn connect_all(server: &Server, window: u32) -> Vec<RawLink> {
    let endpoint = raw_endpoint(&secret(u32::MAX));
    let mut links = Vec::new();
    for n in 0..CONNECTIONS {
        let mut link = RawLink::on(&endpoint, &server.invite, &secret(n), window).await;
        link.open_session(0).await;
        links.push(link);
    }
    links
}

/// Waits until `counter` stands still.
async fn settled(counter: impl Fn() -> u64) {
    within(async {
        let (mut last, mut same) = (counter(), 0);
        while same < 8 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let next = counter();
            same = if next == last { same + 1 } else { 0 };
            last = next;
        }
    })
    .await;
}

fn assert_bounded(server: &Server, before: u64, what: &str) {
    let (rss, peak) = (server.memory_kib("VmRSS"), server.memory_kib("VmHWM"));
    let each = rss.saturating_sub(before) / u64::from(CONNECTIONS);
    println!("{what}: {before} KiB before, {rss} KiB, peak {peak} KiB, {each} KiB a connection");
    assert!(peak < RSS_MAX_KIB, "{peak} KiB");
}

type Limits = watch::Sender<BTreeMap<u64, u64>>;

/// Notes the credit that the node grants.
async fn note_credit(mut control: noq::RecvStream, limits: Arc<Limits>) {
    while let Some(message) = hear(&mut control).await {
        if let Message::Mux(MuxMessage::Credit(credit)) = message {
            limits.send_modify(|limits| {
                limits.insert(credit.stream, credit.limit);
            });
        }
    }
}

/// Writes as much as the node lets us; more would fail the stream and so hold nothing.
async fn push(mut send: noq::SendStream, limits: Arc<Limits>, written: Arc<AtomicU64>) {
    let mut limits = limits.subscribe();
    let (id, mut sent) = (u64::from(send.id()), 0);
    loop {
        let limit = limits.borrow_and_update().get(&id).copied().unwrap_or(credit::INITIAL);
        while sent < limit {
            let len = usize::try_from((limit - sent).min(8192)).unwrap();
            let count = send.write(&[7; 8192][..len]).await.unwrap() as u64;
            sent += count;
            written.fetch_add(count, Ordering::Relaxed);
        }
        limits.changed().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_peers_that_push_what_nobody_reads() {
    let server = Server::start("holds");
    let before = server.memory_kib("VmRSS");
    let links = connect_all(&server, WIDE).await;
    assert_bounded(&server, before, "idle");
    let written = Arc::new(AtomicU64::new(0));
    let (mut held, mut held_open) = (Vec::new(), Vec::new());
    for link in links {
        let limits = Arc::new(Limits::default());
        for _ in 0..STREAMS {
            let (send, recv) = link.open_stream(0).await;
            tokio::spawn(push(send, Arc::clone(&limits), Arc::clone(&written)));
            held.push(recv);
        }
        tokio::spawn(note_credit(link.hear, limits));
        held_open.push((link.conn, link.say));
    }
    settled(|| written.load(Ordering::Relaxed)).await;
    let written = written.load(Ordering::Relaxed);
    println!("{written} bytes taken");
    let least = credit::INITIAL * STREAMS as u64 * u64::from(CONNECTIONS);
    assert!(written >= least, "every peer is let do what needs no memory set aside");
    assert_bounded(&server, before, "pushed at");
}

/// The peers acknowledge next to nothing and grant all the credit in the world.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_peers_that_do_not_take_what_we_write() {
    let server = Server::start("writes");
    let before = server.memory_kib("VmRSS");
    // Room for what each stream may carry without credit, and little more.
    let room = STREAMS * usize::try_from(credit::INITIAL).unwrap() + 16_384;
    let mut links = connect_all(&server, u32::try_from(room).unwrap()).await;
    let mut held = Vec::new();
    for link in &mut links {
        for _ in 0..STREAMS {
            let (send, recv) = within(link.conn.accept_bi()).await.unwrap();
            let grant = Credit { stream: send.id().into(), limit: u64::MAX };
            link.say(Message::Mux(MuxMessage::Credit(grant))).await;
            held.push((send, recv));
        }
    }
    settled(|| server.memory_kib("VmRSS") / 64).await;
    assert!(links.iter().all(|link| link.conn.close_reason().is_none()));
    assert_bounded(&server, before, "writing");
}
