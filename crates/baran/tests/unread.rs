//! A thousand connections that nobody reads cost a bounded amount of memory.
//!
//! The node under test runs in a process of its own (this test program, started again), so that
//! its resident set is its own; the kernel tells its size and its peak.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use baran::{Connection, PeerAddr};
use baran_proto::credit;
use support::{PROTOCOL, RawLink, builder, raw_endpoint, secret, within};

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
async fn connect_all(server: &Server) -> Vec<RawLink> {
    let (id, addr) = (server.invite.id, server.invite.addrs[0]);
    let endpoint = raw_endpoint(&secret(u32::MAX));
    let mut links = Vec::new();
    for n in 0..CONNECTIONS {
        let mut link = within(RawLink::on(endpoint.clone(), id, addr, &secret(n))).await;
        link.open_session(0).await;
        links.push(link);
    }
    links
}

/// Waits until `counter` stands still.
async fn settled(counter: impl Fn() -> u64) {
    within(async {
        let mut last = (counter(), 0);
        while last.1 < 8 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let next = counter();
            last = (next, if next == last.0 { last.1 + 1 } else { 0 });
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_peers_that_push_what_nobody_reads() {
    let server = Server::start("holds");
    let before = server.memory_kib("VmRSS");
    let links = connect_all(&server).await;
    assert_bounded(&server, before, "idle");
    let written = Arc::new(AtomicU64::new(0));
    let mut streams = tokio::task::JoinSet::new();
    let pause: u64 = std::env::var("PAUSE").map_or(0, |l| l.parse().unwrap());
    for link in links {
        if pause > 0 { tokio::time::sleep(Duration::from_millis(pause)).await; }
        let (link, written) = (Arc::new(link), Arc::clone(&written));
        for _ in 0..STREAMS {
            let (link, written) = (Arc::clone(&link), Arc::clone(&written));
            streams.spawn(async move {
                let (mut send, _recv) = link.open_stream(0).await;
                // More than the credit would fail the stream, and hold nothing.
                let mut left = std::env::var("LEFT")
                    .map_or(usize::try_from(credit::INITIAL).unwrap(), |l| l.parse().unwrap());
                while left > 0 {
                    let count = send.write(&[7; 8192][..left.min(8192)]).await.unwrap();
                    written.fetch_add(count as u64, Ordering::Relaxed);
                    left -= count;
                }
                std::future::pending::<()>().await;
            });
        }
    }
    settled(|| written.load(Ordering::Relaxed)).await;
    println!("{} bytes taken", written.load(Ordering::Relaxed));
    assert_bounded(&server, before, "pushed at");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_peers_that_do_not_read_what_we_write() {
    let server = Server::start("writes");
    let before = server.memory_kib("VmRSS");
    let links = connect_all(&server).await;
    settled(|| links.iter().map(|link| link.conn.stats().udp_rx.bytes / 4096).sum()).await;
    assert_bounded(&server, before, "writing");
}
