//! A value outlives its author, and its holders one after the other.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Report;
use super::fleet::Fleet;
use crate::harness::SETTLE;
use crate::nat::NatKind;
use crate::node::Node;
use crate::table::quantile;

const KINDS: [NatKind; 9] = [
    NatKind::PortRestricted,
    NatKind::PortRestricted,
    NatKind::AddressRestricted,
    NatKind::PortRestricted,
    NatKind::FullCone,
    NatKind::Symmetric,
    NatKind::PortRestricted,
    NatKind::FullCone,
    NatKind::PortRestricted,
];

/// How many of them are alive at the end.
const SURVIVORS: usize = 2;

const LIMIT: Duration = Duration::from_secs(20);
/// Pause before somebody is looked for again.
const AGAIN: Duration = Duration::from_millis(200);

const NAME: &str = "greeting";
const VALUE: &str = "hello, whoever reads this";
const TOPIC: &str = "a topic of the lab";

pub(super) async fn play(dir: &Path, report: &mut Report) -> Result<()> {
    let mut fleet = Fleet::form(dir, &KINDS, |_| vec![], report).await?;
    let put = fleet.nodes[0].run(&["put", NAME, VALUE], LIMIT).await?;
    report.check(put.success, || format!("put: {put}"));
    let told = put.lines.last().context("put wrote nothing")?;
    report.figure("holders of the value", &told["kept"], "");
    report.figure("put took", put.took.as_secs_f64() * 1e3, "ms");
    topic(&fleet.nodes, report).await?;

    let mut author = fleet.nodes.remove(0);
    author.kill().await?;
    let mut times = Vec::new();
    for node in fleet.nodes.iter().chain([&fleet.introducer]) {
        get("the author dead", node, &author.id, &mut times, report).await?;
    }
    while fleet.nodes.len() > SURVIVORS {
        fleet.nodes.remove(0).kill().await?;
        let what = format!("{} members left", fleet.nodes.len());
        get(&what, &fleet.nodes[0], &author.id, &mut times, report).await?;
    }
    // Somebody who never held it, before and after the public node's death.
    let host = fleet.world.host("late", NatKind::PortRestricted).await?;
    let mut late = Node::up(&host, dir, &[fleet.introducer.at()], &[]).await?;
    late.joined().await?;
    get("a newcomer", &late, &author.id, &mut times, report).await?;
    fleet.introducer.kill().await?;
    get("the public node dead", &late, &author.id, &mut times, report).await?;
    report.figure("values read", times.len(), "");
    for (name, q) in [("p50", 0.5), ("longest", 1.0)] {
        if let Some(ms) = quantile(&times, q) {
            report.figure(format!("get, {name}"), ms, "ms");
        }
    }
    Ok(())
}

/// Reads the author's value at `node`.
async fn get(
    when: &str,
    node: &Node,
    author: &str,
    times: &mut Vec<f64>,
    report: &mut Report,
) -> Result<()> {
    let got = node.run(&["get", author, NAME], LIMIT).await?;
    if got.text("value") == Some(VALUE) {
        times.push(got.took.as_secs_f64() * 1e3);
    } else {
        report.check(false, || format!("{when}: get at {}: {got}", node.host.name()));
    }
    Ok(())
}

/// The first of `nodes` announces a topic, the last looks it up, and finds where it is.
async fn topic(nodes: &[Node], report: &mut Report) -> Result<()> {
    let (first, last) = nodes.first().zip(nodes.last()).context("a fleet has nodes")?;
    let mut announcing = first.spawn(&["announce", TOPIC])?;
    announcing.next(LIMIT).await?.context("announce wrote nothing")?;
    let found = last.run(&["lookup", TOPIC], LIMIT).await?;
    let lists = |lines: &[Value]| lines.iter().any(|line| line["id"] == *first.id);
    report.figure("lookup of a topic took", found.took.as_secs_f64() * 1e3, "ms");
    report.check(found.success && lists(&found.lines), || format!("lookup: {found}"));
    announcing.terminate().await?;

    // A node's own record follows some seconds after it found its homes.
    let begin = Instant::now();
    let resolved = loop {
        let resolved = last.run(&["resolve", &first.id], LIMIT).await?;
        if resolved.success || begin.elapsed() > SETTLE {
            break resolved;
        }
        sleep(AGAIN).await;
    };
    report.figure("node record found after", begin.elapsed().as_secs_f64(), "s");
    report.check(lists(&resolved.lines), || format!("resolve: {resolved}"));
    Ok(())
}
