//! Everybody restarts at once and there is no third party: mutual dialling alone.
//!
//! The hard case: between the death and the restart every NAT forgets all it knew (its sets are
//! emptied and `conntrack -F` deletes its flows), so no old mapping lets anybody in. What helps is
//! only that the routers keep ports, that a node binds the port it had, and that both sides dial.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use super::Report;
use super::fleet::{Fleet, LONG_DEAD};
use super::pairs::{self, Attempt};
use crate::nat::NatKind;
use crate::table::quantile;

const NODES: usize = 12;

/// All are killed and started again within this (issue 3).
const RESTART_MAX: Duration = Duration::from_secs(10);

/// From the last one's start to one network in which everybody reaches everybody (issue 3).
const REBORN_MAX: Duration = Duration::from_secs(30);

pub(super) async fn play(dir: &Path, report: &mut Report) -> Result<()> {
    let mut fleet = Fleet::form(dir, &[NatKind::PortRestricted; NODES], report).await?;
    fleet.introducer.kill().await?;
    sleep(LONG_DEAD).await;
    let nodes = &mut fleet.nodes;
    let ports: Vec<_> = nodes.iter().map(|node| node.port()).collect();

    let death = Instant::now();
    for node in nodes.iter_mut() {
        node.kill().await?;
    }
    for node in nodes.iter() {
        node.host.forget_mappings().await?;
    }
    for node in nodes.iter_mut() {
        node.again().await?;
    }
    let start = Instant::now();
    let took = start - death;
    ensure!(took < RESTART_MAX, "the lab took {took:?} to restart {NODES} nodes");
    report.figure("all killed and started again within", took.as_secs_f64(), "s");
    for (node, port) in nodes.iter().zip(ports) {
        let found = node.port();
        report.check(found == port, || {
            format!("{} moved from port {port} to {found}", node.host.name())
        });
    }

    let deadline = start + REBORN_MAX;
    let mut joined = Vec::new();
    for node in nodes.iter_mut() {
        match tokio::time::timeout_at(deadline, node.joined()).await {
            Ok(Ok(_)) => joined.push(start.elapsed().as_secs_f64()),
            Ok(Err(error)) => report.check(false, || format!("{error:#}")),
            Err(_) => report.check(false, || format!("{} has not joined", node.host.name())),
        }
    }
    report.figure("joined", format!("{} of {NODES}", joined.len()), "");
    if let Some(last) = quantile(&joined, 1.0) {
        report.figure("last joined after", last, "s");
    }

    let mut left = pairs::all(NODES);
    let mut reached: Vec<Attempt> = Vec::new();
    let mut failed = Vec::new();
    while !left.is_empty() && Instant::now() < deadline {
        let limit = deadline.saturating_duration_since(Instant::now());
        let attempts = pairs::ping(nodes, &left, left.len(), limit).await?;
        let (well, ill): (Vec<_>, Vec<_>) = attempts
            .into_iter()
            .partition(|attempt| attempt.reached.is_some_and(|at| at <= deadline));
        reached.extend(well);
        left = ill.iter().map(|attempt| (attempt.from, attempt.to)).collect();
        failed = ill;
    }
    let after: Vec<_> = reached
        .iter()
        .filter_map(|attempt| attempt.reached)
        .map(|at| (at - start).as_secs_f64())
        .collect();
    for (name, q) in [("half of all pairs", 0.5), ("the last pair", 1.0)] {
        if let Some(s) = quantile(&after, q) {
            report.figure(format!("{name} reached after"), s, "s");
        }
    }
    reached.extend(failed.into_iter().map(|attempt| Attempt { reached: None, ..attempt }));
    pairs::tell("all pairs", nodes, &reached, report);
    Ok(())
}
