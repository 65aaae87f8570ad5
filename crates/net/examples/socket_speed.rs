//! Compares one QUIC stream over loopback (a) on plain sockets, (b) on ours, (c) through a relay,
//! in one process: throughput, processor time per byte, and what a relay forwards per core.
//!
//! Arguments: megabytes per run (300) and runs (7). The three kinds take turns, and the ratios are
//! medians over the turns, because the speed of a machine drifts. Each endpoint and the relay have
//! a thread of their own.

#![allow(clippy::print_stdout, reason = "a program that prints a table")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Instant;

use common::Peer;
use noq::{Endpoint, Runtime, TokioRuntime};
use tokio::runtime::Handle;

/// Whatever fails here is a broken set-up.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Bare,
    Direct,
    Relayed,
}

struct Sample {
    gbit_s: f64,
    /// All threads.
    cpu_ns_per_byte: f64,
    /// The relay's thread, zero without one.
    relay_gbit_s_per_core: f64,
}

fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>());
    let bytes = args.next().transpose()?.unwrap_or(300) * 1_000_000;
    let runs = args.next().transpose()?.unwrap_or(7);
    let kinds = [Kind::Bare, Kind::Direct, Kind::Relayed];
    let mut samples = kinds.map(|_| Vec::new());
    for run in 0..runs {
        for turn in 0..kinds.len() {
            let i = (run + turn) % kinds.len();
            samples[i].push(measure(kinds[i], bytes)?);
        }
    }
    let speed = samples.each_ref().map(|s| median(s, |s| s.gbit_s));
    let cpu = samples.each_ref().map(|s| median(s, |s| s.cpu_ns_per_byte));
    for (name, i) in [("bare", 0), ("direct", 1), ("relayed", 2)] {
        println!("{name:8} {:6.2} Gb/s  {:5.2} ns of processor per byte", speed[i], cpu[i]);
    }
    for (name, i) in [("direct/bare", 1), ("relayed/direct", 2)] {
        let ratio = |of: fn(&Sample) -> f64| {
            let pairs = samples[i].iter().zip(&samples[i - 1]);
            middle(pairs.map(|(this, base)| of(this) / of(base)).collect())
        };
        let (speed, cpu) = (ratio(|s| s.gbit_s), ratio(|s| s.cpu_ns_per_byte));
        println!("{name:15} {speed:.3} (processor {cpu:.3})");
    }
    let relay = median(&samples[2], |s| s.relay_gbit_s_per_core);
    println!("relay forwards  {relay:.1} Gb/s per core");
    Ok(())
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    middle(samples.iter().map(of).collect())
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measure(kind: Kind, bytes: usize) -> Outcome<Sample> {
    let (client, server, relay) = (Host::start()?, Host::start()?, Host::start()?);
    let (dialler, listener, to) = if kind == Kind::Bare {
        let dialler = client.run(async { bare() })??;
        let listener = server.run(async { bare() })??;
        let to = listener.local_addr()?;
        (dialler, listener, to)
    } else {
        let a = client.run(async { Peer::new() })?;
        let b = server.run(async { Peer::new() })?;
        a.trusts(&b);
        b.trusts(&a);
        let mut to = b.addr();
        if kind == Kind::Relayed {
            let middle = relay.run(async { Peer::new() })?;
            let (at_a, at_b) = middle.open(a.addr(), b.addr(), 600_000);
            to = a.control.add_relayed(middle.addr(), at_a);
            let _ = b.control.add_relayed(middle.addr(), at_b);
            relay.keep(middle.endpoint);
        }
        (a.endpoint, b.endpoint, to)
    };
    let done = server.begin(receive(listener, bytes));
    let stream = client.run(dial(dialler, to))??;

    let (start, cpu, relay_cpu) = (Instant::now(), cpu_ns()?, relay.cpu_ns()?);
    let sent = client.begin(send(stream, bytes));
    done.recv()??;
    let elapsed = start.elapsed().as_secs_f64();
    let cpu = cpu_ns()? - cpu;
    let relay_cpu = relay.cpu_ns()? - relay_cpu;
    sent.recv()??;
    let bits = bytes as f64 * 8.0;
    Ok(Sample {
        gbit_s: bits / elapsed / 1e9,
        cpu_ns_per_byte: cpu / bytes as f64,
        relay_gbit_s_per_core: if kind == Kind::Relayed { bits / relay_cpu } else { 0.0 },
    })
}

/// An endpoint on a plain socket, buffers as large as ours.
fn bare() -> Outcome<Endpoint> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let raw = socket2::SockRef::from(&socket);
    let size = 8 << 20;
    #[cfg(target_os = "linux")]
    {
        use rustix::net::sockopt;
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, size);
        let _ = sockopt::set_socket_send_buffer_size_force(&socket, size);
    }
    if raw.recv_buffer_size()? < size {
        raw.set_recv_buffer_size(size)?;
        raw.set_send_buffer_size(size)?;
    }
    Ok(common::endpoint(TokioRuntime.wrap_udp_socket(socket)?))
}

async fn dial(endpoint: Endpoint, to: SocketAddr) -> Outcome<Open> {
    let connection = endpoint.connect(to, "peer")?.await?;
    let mut stream = connection.open_uni().await?;
    stream.write_all(b"!").await?;
    Ok(Open { stream, connection, _endpoint: endpoint })
}

struct Open {
    stream: noq::SendStream,
    connection: noq::Connection,
    _endpoint: Endpoint,
}

async fn send(mut open: Open, bytes: usize) -> Outcome<()> {
    let chunk = vec![7; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let n = left.min(chunk.len());
        open.stream.write_all(&chunk[..n]).await?;
        left -= n;
    }
    open.stream.finish()?;
    open.stream.stopped().await?;
    open.connection.close(0_u32.into(), b"done");
    Ok(())
}

async fn receive(endpoint: Endpoint, bytes: usize) -> Outcome<()> {
    let incoming = endpoint.accept().await.ok_or("the endpoint closed")?;
    let connection = incoming.await?;
    let mut stream = connection.accept_uni().await?;
    let mut received = 0;
    while let Some(chunk) = stream.read_chunk(usize::MAX).await? {
        received += chunk.len();
    }
    if received == bytes + 1 { Ok(()) } else { Err("bytes are missing".into()) }
}

/// A thread with a runtime of its own.
struct Host {
    handle: Handle,
    /// Directory of the thread under `/proc`.
    thread: String,
    kept: std::cell::RefCell<Vec<Endpoint>>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Host {
    fn start() -> Outcome<Self> {
        let (tx, rx) = mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || -> Outcome<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = std::fs::read_link("/proc/thread-self")?;
            tx.send((runtime.handle().clone(), format!("/proc/{}", thread.display())))?;
            let _ = runtime.block_on(stopped);
            Ok(())
        });
        let (handle, thread) = rx.recv()?;
        Ok(Self { handle, thread, kept: Default::default(), _stop: stop })
    }

    fn begin<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> mpsc::Receiver<T> {
        let (tx, rx) = mpsc::channel();
        self.handle.spawn(async move { tx.send(work.await) });
        rx
    }

    fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Outcome<T> {
        Ok(self.begin(work).recv()?)
    }

    fn keep(&self, endpoint: Endpoint) {
        self.kept.borrow_mut().push(endpoint);
    }

    fn cpu_ns(&self) -> Outcome<f64> {
        let text = std::fs::read_to_string(format!("{}/schedstat", self.thread))?;
        Ok(text.split(' ').next().unwrap_or_default().parse()?)
    }
}

/// Processor time of all threads of this process, in nanoseconds.
fn cpu_ns() -> Outcome<f64> {
    let mut total = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        // A thread of the run before may end while this looks.
        let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
        total += text.split(' ').next().unwrap_or_default().parse::<f64>()?;
    }
    Ok(total)
}
