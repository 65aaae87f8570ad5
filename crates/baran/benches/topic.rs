//! A topic of thirty members in one process: what a message costs on the wire, and how long it
//! takes.
//!
//! Every member says messages of 1 KiB in turn, at a steady rate; all read. Bytes are those of the
//! loopback interface while they talk, headers of IP and UDP, index, keep-alives and
//! acknowledgements included: nothing else may use it (`unshare -n`). A message to `members`
//! members is delivered to all but its author.
//!
//! Arguments: `--members N` (30), `--messages N` (600), `--rate N` a second (50), `--bytes N`
//! (1024).

#![allow(clippy::print_stdout, reason = "a program that prints a table")]

#[allow(dead_code, reason = "the other bench's")]
#[path = "throughput/host.rs"]
mod host;

use std::time::{Duration, Instant};

use baran::{Joined, Node, PeerAddr, Since, Topic};
use tokio::task::JoinSet;

use crate::host::{Outcome, process_cpu_ns};

/// What is measured.
#[derive(Debug, Clone, Copy)]
struct Args {
    members: usize,
    messages: usize,
    rate: u32,
    bytes: usize,
}

/// Time for the tree to form, with messages that are not counted.
const WARM_UP: usize = 60;

/// Longest wait for the last delivery.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Outcome<()> {
    let args = args()?;
    let (_nodes, rooms) = members(args.members).await?;
    talk(&rooms, Args { messages: WARM_UP, ..args }).await?;
    let (mut times, wire, cpu) = talk(&rooms, args).await?;
    times.sort_unstable();
    let deliveries = args.messages * (args.members - 1);
    let at = |share: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let at = (times.len().saturating_sub(1) as f64 * share) as usize;
        times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1_000.0)
    };
    println!("{args:?}");
    println!("delivered                 {} of {deliveries}", times.len());
    println!("wire bytes per byte       {:.2}", wire as f64 / (deliveries * args.bytes) as f64);
    println!("delivery p50 / p99        {:.1} / {:.1} ms", at(0.5), at(0.99));
    println!("processor per delivery    {:.1} us", cpu / deliveries as f64 / 1_000.0);
    let (mut new, mut double) = (0, 0);
    for room in &rooms {
        let pushed = room.stats().await?.pushed;
        (new, double) = (new + pushed.0, double + pushed.1);
    }
    println!("copies per delivery       {:.2}", (new + double) as f64 / new as f64);
    Ok(())
}

fn args() -> Outcome<Args> {
    let mut args = Args { members: 30, messages: 600, rate: 50, bytes: 1_024 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a number"));
        match word.as_str() {
            "--members" => args.members = value()?.parse()?,
            "--messages" => args.messages = value()?.parse()?,
            "--rate" => args.rate = value()?.parse()?,
            "--bytes" => args.bytes = value()?.parse()?,
            // Cargo passes `--bench`.
            _ => {}
        }
    }
    args.bytes = args.bytes.max(16);
    Ok(args)
}

async fn members(count: usize) -> Outcome<(Vec<Node>, Vec<Joined>)> {
    let builder = || {
        let loopback = "127.0.0.0/8".parse().expect("a network");
        Node::builder().bind(([127, 0, 0, 1], 0).into()).allow_net(loopback)
    };
    let first = builder().spawn().await?;
    let mut nodes = vec![first.clone()];
    for _ in 1..count {
        let peer = PeerAddr { id: first.id(), addrs: first.addresses(), homes: Vec::new() };
        nodes.push(builder().peer(peer).spawn().await?);
    }
    let mut rooms = Vec::new();
    for node in &nodes {
        rooms.push(node.topic(Topic::public("bench")).await?);
    }
    for room in &rooms {
        while room.synced().await?.0.len() < 3.min(count - 1) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    Ok((nodes, rooms))
}

/// Lets all say something in turn. Returns the time of each delivery, the bytes that all sockets
/// sent, and the processor time in nanoseconds.
async fn talk(rooms: &[Joined], args: Args) -> Outcome<(Vec<Duration>, u64, f64)> {
    let began = Instant::now();
    let mut readers = JoinSet::new();
    for (own, room) in rooms.iter().enumerate() {
        let mut messages = room.messages(Since::Now);
        let wanted = (0..args.messages).filter(|n| n % rooms.len() != own).count();
        // Asked for once, so that nothing that is said now is passed over.
        let _ = messages.next_within(Duration::from_millis(1)).await;
        readers.spawn(async move {
            let mut times = Vec::with_capacity(wanted);
            while times.len() < wanted {
                let next = tokio::time::timeout(PATIENCE, messages.next()).await;
                let Ok(Some(message)) = next else { break };
                let Some(payload) = message.payload else { continue };
                let Some((author, rest)) = payload.split_first_chunk::<8>() else { continue };
                let Some(at) = rest.first_chunk::<8>() else { continue };
                if u64::from_be_bytes(*author) != own as u64 {
                    let at = Duration::from_micros(u64::from_be_bytes(*at));
                    times.push(began.elapsed().saturating_sub(at));
                }
            }
            times
        });
    }
    let (wire, cpu) = (sent()?, process_cpu_ns());
    let mut tick = tokio::time::interval(Duration::from_secs(1) / args.rate);
    for n in 0..args.messages {
        tick.tick().await;
        let by = n % rooms.len();
        let mut payload = vec![0; args.bytes];
        payload[..8].copy_from_slice(&(by as u64).to_be_bytes());
        let at = u64::try_from(began.elapsed().as_micros())?;
        payload[8..16].copy_from_slice(&at.to_be_bytes());
        rooms[by].send(payload).await?;
    }
    let mut times = Vec::new();
    while let Some(read) = readers.join_next().await {
        times.extend(read?);
    }
    Ok((times, sent()? - wire, process_cpu_ns() - cpu))
}

/// Bytes that the loopback interface of this network namespace carried.
fn sent() -> Outcome<u64> {
    let table = std::fs::read_to_string("/proc/self/net/dev")?;
    let line = table.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    // Eight columns of what was received come first.
    let sent = line.and_then(|line| line.split_ascii_whitespace().nth(8));
    Ok(sent.ok_or("the system does not tell what loopback carries")?.parse()?)
}
