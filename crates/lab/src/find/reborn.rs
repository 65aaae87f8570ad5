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
use crate::node::Node;
use crate::table::quantile;

const NODES: usize = 12;

/// All are killed and started again within this (issue 3).
const RESTART_MAX: Duration = Duration::from_secs(10);

/// From the last one's start to one network in which everybody reaches everybody (issue 3).
const REBORN_MAX: Duration = Duration::from_secs(30);

/// Between two starts of the round in which they come one after the other: the first has been
/// dialling for three seconds and more when the last one binds its port.
const STAGGER: Duration = Duration::from_millis(250);

pub(super) async fn play(dir: &Path, report: &mut Report) -> Result<()> {
    let mut fleet = Fleet::form(dir, &[NatKind::PortRestricted; NODES], |_| vec![], report).await?;
    fleet.introducer.kill().await?;
    for (what, stagger) in [("one after the other", STAGGER), ("all at once", Duration::ZERO)] {
        sleep(LONG_DEAD).await;
        let start = restart(what, &mut fleet.nodes, stagger, report).await?;
        all_joined(what, &mut fleet.nodes, start, report).await;
        all_reached(what, &fleet.nodes, start, report).await?;
    }
    Ok(())
}

/// Kills all, empties their NATs, and starts them again; the moment after the last one's start.
async fn restart(
    what: &str,
    nodes: &mut [Node],
    stagger: Duration,
    report: &mut Report,
) -> Result<Instant> {
    let ports: Vec<_> = nodes.iter().map(Node::port).collect();
    let death = Instant::now();
    for node in nodes.iter_mut() {
        node.kill().await?;
    }
    for node in nodes.iter() {
        node.host.forget_mappings().await?;
    }
    for node in nodes.iter_mut() {
        node.again().await?;
        sleep(stagger).await;
    }
    let start = Instant::now();
    let took = start - death;
    ensure!(took < RESTART_MAX, "the lab took {took:?} to restart {} nodes", nodes.len());
    report.figure(format!("{what}: all down and up again within"), took.as_secs_f64(), "s");
    for (node, port) in nodes.iter().zip(ports) {
        let found = node.port();
        report.check(found == port, || {
            format!("{what}: {} moved from port {port} to {found}", node.host.name())
        });
    }
    Ok(start)
}

/// Each says that it has joined.
async fn all_joined(what: &str, nodes: &mut [Node], start: Instant, report: &mut Report) {
    for node in nodes.iter_mut() {
        let left = (start + REBORN_MAX).saturating_duration_since(Instant::now());
        if let Err(error) = node.joined_within(left).await {
            report.check(false, || format!("{what}: {error:#}"));
        }
    }
    report.figure(format!("{what}: the last joined after"), start.elapsed().as_secs_f64(), "s");
}

/// Each reaches each by id. Who fails tries again until the time is over.
async fn all_reached(
    what: &str,
    nodes: &[Node],
    start: Instant,
    report: &mut Report,
) -> Result<()> {
    let deadline = start + REBORN_MAX;
    let mut left = pairs::all(nodes.len());
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
    let moments = reached.iter().filter_map(|attempt| attempt.reached);
    let after: Vec<_> = moments.map(|at| (at - start).as_secs_f64()).collect();
    for (name, q) in [("half of all pairs", 0.5), ("the last pair", 1.0)] {
        if let Some(s) = quantile(&after, q) {
            report.figure(format!("{what}: {name} reached after"), s, "s");
        }
    }
    reached.extend(failed.into_iter().map(|attempt| Attempt { reached: None, ..attempt }));
    pairs::tell(what, nodes, &reached, report);
    Ok(())
}
