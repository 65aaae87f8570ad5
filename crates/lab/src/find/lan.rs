//! A link that leads nowhere: nodes find each other by multicast, and two are paired by words.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::Instant;

use super::Report;
use crate::node::Node;
use crate::world::World;

/// For a command that waits for somebody.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn play(dir: &Path, report: &mut Report) -> Result<()> {
    let world = World::new().await?;
    let hosts = world.switch(&["a", "b", "c"]).await?;
    let mut nodes = Vec::new();
    let begin = Instant::now();
    for host in &hosts[..2] {
        nodes.push(Node::up(host, dir, &[], &[]).await?);
    }
    for node in &mut nodes {
        node.joined().await?;
    }
    report.figure("two met after", begin.elapsed().as_secs_f64(), "s");
    let begin = Instant::now();
    nodes.push(Node::up(&hosts[2], dir, &[], &[]).await?);
    nodes[2].joined().await?;
    report.figure("a newcomer joined after", begin.elapsed().as_secs_f64(), "s");
    for (from, to) in super::pairs::all(3) {
        let pings = nodes[from].ping(&nodes[to].id, 1, 100).await?;
        report.check(pings.complete, || format!("{from} does not reach {to} by id: {pings:?}"));
    }
    for node in &nodes {
        let how = node.status().await?["index"]["joined_by"].clone();
        // The first of two is found as often as it finds.
        report.check(how == "lan" || how == "incoming", || {
            format!("{} says that it joined by {how}", node.host.name())
        });
    }
    words(&nodes, report).await
}

/// A right code pairs two, a wrong guess kills the code.
async fn words(nodes: &[Node], report: &mut Report) -> Result<()> {
    let [a, b, c] = nodes else { bail!("three nodes") };
    let begin = Instant::now();
    let mut inviter = a.spawn(&["invite", "--words"])?;
    let code = code(&mut inviter).await?;
    let joined = b.run(&["join", &code], PATIENCE).await?;
    report.figure("paired by words after", begin.elapsed().as_secs_f64(), "s");
    report.check(joined.success, || format!("join by the right words: {joined}"));
    report.check(joined.to_string().contains(&a.id), || {
        format!("join does not name its peer: {joined}")
    });
    let (lines, status) = inviter.finish(PATIENCE).await?;
    report.check(status.success(), || format!("the inviter ended with {status}: {lines:?}"));
    report.check(format!("{lines:?}").contains(&b.id), || {
        format!("it does not name its peer: {lines:?}")
    });

    let mut inviter = a.spawn(&["invite", "--words"])?;
    let code = self::code(&mut inviter).await?;
    let guess = c.run(&["join", &wrong(&code)], PATIENCE).await?;
    report.check(!guess.success, || format!("joined by wrong words: {guess}"));
    let (lines, status) = inviter.finish(PATIENCE).await?;
    report.check(!status.success(), || format!("the inviter takes a wrong guess: {lines:?}"));
    let late = c.run(&["join", &code, "--timeout", "5"], PATIENCE).await?;
    report.check(!late.success, || format!("a code outlived a wrong guess: {late}"));
    Ok(())
}

/// The code that `baran invite --words` prints first.
async fn code(inviter: &mut crate::process::JsonProcess) -> Result<String> {
    let line = inviter.next(PATIENCE).await?;
    let line = line.ok_or_else(|| inviter.blame("printed no code"))?;
    let text = line["code"].as_str().map(str::to_owned);
    text.with_context(|| format!("no `code` in {line}"))
}

/// The same number with the words turned round, and so another word in the first place at least.
fn wrong(code: &str) -> String {
    let mut parts: Vec<_> = code.split('-').collect();
    if let Some(words) = parts.get_mut(1..) {
        words.rotate_left(1);
    }
    parts.join("-")
}
