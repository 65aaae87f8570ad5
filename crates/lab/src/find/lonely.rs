//! A node alone says so, at once, and never that it has joined.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::Report;
use crate::nat::NatKind;
use crate::node::{Node, Ran};
use crate::world::World;

/// Longer than any command may wait for a node that is just starting.
const LIMIT: Duration = Duration::from_secs(30);

/// "At once" for a person, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(2);

/// What every command of the index says then (docs/cli.md).
const SAID: &str = "not connected to anybody";

pub(super) async fn play(dir: &Path, report: &mut Report) -> Result<()> {
    let world = World::new().await?;
    let mut node = Node::up(&world.host("alone", NatKind::Open).await?, dir, &[], &[]).await?;
    // An id of nobody who runs.
    let other = Node::up(&world.host("gone", NatKind::Open).await?, dir, &[], &[]).await?;
    let nobody = other.id.clone();
    drop(other);
    for (what, args) in [
        ("lookup", vec!["lookup", "a topic"]),
        ("get", vec!["get", &nobody, "a name"]),
        ("resolve", vec!["resolve", &nobody]),
    ] {
        let ran = node.run(&args, LIMIT).await?;
        report.figure(format!("{what} gave up after"), ran.took.as_secs_f64() * 1e3, "ms");
        report.check(says_so(&ran), || format!("{what}: {ran}"));
        // The first command may wait for a node that has just started.
        let is_at_once = what == "lookup" || ran.took < AT_ONCE;
        report.check(is_at_once, || format!("{what} took {:?}", ran.took));
    }
    let status = node.status().await?;
    report.check(status["index"]["table"] == 0, || format!("status of a node alone: {status}"));
    let how = &status["index"]["joined_by"];
    report.check(how.is_null(), || format!("a node alone joined by {how}"));
    while let Ok(Some(event)) = node.daemon.next(Duration::from_millis(200)).await {
        report.check(event["event"] != "joined", || format!("a node alone says {event}"));
    }

    // Without a daemon the command's own node has just started, and is given a little time.
    node.kill().await?;
    let ran = node.run(&["lookup", "a topic", "--timeout", "2"], LIMIT).await?;
    report.figure("lookup without a daemon gave up after", ran.took.as_secs_f64() * 1e3, "ms");
    report.check(says_so(&ran), || format!("lookup without a daemon: {ran}"));
    Ok(())
}

fn says_so(ran: &Ran) -> bool {
    !ran.success
        && ran.stderr.contains(SAID)
        && ran.text("error").is_some_and(|text| text.contains(SAID))
}
