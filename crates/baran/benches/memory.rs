//! Memory of nodes and connections that do nothing.
//!
//! Starts nodes, connects each with each, waits until all is quiet, and divides what the allocator
//! holds: per node before any connection, and per connection end after. Then the same with bare
//! `noq` and the same settings. Sockets' buffers are the kernel's and not counted.
//!
//! Arguments: `nodes` or `bare` for one of the two alone.

#![allow(clippy::print_stdout, reason = "a program that prints a table")]

#[allow(dead_code, reason = "the other bench's, of which this one starts endpoints only")]
#[path = "throughput/bare.rs"]
mod bare;
#[allow(dead_code, reason = "the other bench's")]
#[path = "throughput/host.rs"]
mod host;

use std::alloc::System;
use std::time::Duration;

use baran::{Connection, Node, SecretKey};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use crate::bare::Bare;
use crate::host::{Outcome, process_cpu_ns};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Nodes, hence 210 connections.
const NODES: usize = 21;

const CONNECTIONS: usize = NODES * (NODES - 1) / 2;

/// Time after which what a handshake needed is given back and surplus connections are closed.
const QUIET: Duration = Duration::from_secs(8);

/// How long the processor time of idle nodes is watched.
const WATCHED: Duration = Duration::from_secs(10);

const PROTOCOL: &str = "bench/1";

#[tokio::main]
async fn main() -> Outcome<()> {
    println!("{NODES} endpoints, {CONNECTIONS} connections, {} ends", 2 * CONNECTIONS);
    println!("        KiB per endpoint  KiB per connection end");
    // Cargo passes `--bench`.
    let only: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    if wanted("nodes") {
        nodes().await?;
    }
    if wanted("bare") {
        bares().await?;
    }
    Ok(())
}

/// Bytes that are allocated at this moment.
fn allocated() -> f64 {
    let stats = ALLOCATOR.stats();
    (stats.bytes_allocated - stats.bytes_deallocated) as f64
}

/// Bytes of memory that the process occupies.
fn resident() -> Outcome<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
    Ok(kib.ok_or("the system does not tell")?.trim().parse::<f64>()? * 1024.0)
}

fn print(name: &str, endpoints: f64, ends: f64) {
    let endpoint = endpoints / NODES as f64 / 1024.0;
    let end = ends / (2 * CONNECTIONS) as f64 / 1024.0;
    println!("{name:8}{endpoint:16.1}{end:24.1}");
}

async fn nodes() -> Outcome<()> {
    let (empty, empty_resident) = (allocated(), resident()?);
    let mut nodes: Vec<Node> = Vec::new();
    for _ in 0..NODES {
        nodes.push(Node::builder().bind("127.0.0.1:0".parse()?).spawn().await?);
    }
    tokio::time::sleep(QUIET).await;
    let (started, started_resident) = (allocated(), resident()?);
    let mut connections: Vec<Connection> = Vec::new();
    for (i, listener) in nodes.iter().enumerate() {
        let mut acceptor = listener.accept(PROTOCOL)?;
        for dialler in &nodes[..i] {
            connections.push(dialler.connect(listener.invite(), PROTOCOL).await?);
            connections.push(acceptor.next().await.ok_or("the node is closed")?);
        }
    }
    tokio::time::sleep(QUIET).await;
    let (connected, connected_resident) = (allocated(), resident()?);
    print("nodes", started - empty, connected - started);
    print("  (RSS)", started_resident - empty_resident, connected_resident - started_resident);
    let before = process_cpu_ns();
    tokio::time::sleep(WATCHED).await;
    let cpu_s = (process_cpu_ns() - before) / 1e9;
    let percent = 100.0 * cpu_s / WATCHED.as_secs_f64();
    println!("        idle, all of them take {percent:.1} % of a core");
    drop(connections);
    for node in nodes {
        node.close().await;
    }
    Ok(())
}

async fn bares() -> Outcome<()> {
    tokio::time::sleep(QUIET).await;
    let empty = allocated();
    let mut endpoints = Vec::new();
    for seed in 0..NODES {
        endpoints.push(Bare::bind(&SecretKey::from_bytes([u8::try_from(seed)?; 32]))?);
    }
    tokio::time::sleep(QUIET).await;
    let started = allocated();
    let mut connections = Vec::new();
    for (i, listener) in endpoints.iter().enumerate() {
        for dialler in &endpoints[..i] {
            let (dialled, accepted) =
                tokio::join!(dialler.connect(listener.id, listener.addr()?), listener.accept());
            connections.extend([dialled?, accepted?]);
        }
    }
    tokio::time::sleep(QUIET).await;
    print("bare", started - empty, allocated() - started);
    Ok(())
}
