//! Five behind NATs of all kinds talk in a private topic; one misses much, the network is cut in
//! two, the founder goes for good and somebody comes who has never met it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, sleep};

use super::Report;
use crate::nat::NatKind;
use crate::node::Node;
use crate::world::{World, cut, heal};

/// The five; the first founds the topic.
const KINDS: [NatKind; 5] = [
    NatKind::PortRestricted,
    NatKind::Symmetric,
    NatKind::AddressRestricted,
    NatKind::FullCone,
    NatKind::Cgnat,
];

/// Who is killed and misses what is said.
const ABSENT: usize = 4;

/// What it misses.
const MISSED: usize = 1_000;

/// How long the network is cut in two.
const CUT: Duration = Duration::from_secs(60);

/// For a command to end.
const LIMIT: Duration = Duration::from_secs(20);

/// For everybody to have everything, on a busy machine.
const CAUGHT_UP_MAX: Duration = Duration::from_secs(60);

/// Pause before a member is asked again.
const AGAIN: Duration = Duration::from_millis(100);

pub(super) async fn play(dir: &Path, report: &mut Report) -> Result<()> {
    let world = World::new().await?;
    let public = world.host("public", NatKind::Open).await?;
    let introducer = Node::up(&public, dir, &[], &[]).await?;
    let mut nodes = Vec::new();
    for (n, kind) in KINDS.into_iter().enumerate() {
        let host = world.host(&format!("n{n}"), kind).await?;
        nodes.push(Node::up(&host, dir, &[introducer.at()], &[]).await?);
    }
    for node in &mut nodes {
        node.joined().await?;
    }
    let created = nodes[0].run(&["topic", "create", "--title", "lab"], LIMIT).await?;
    ensure!(created.success, "no topic: {created}");
    let invite = created.text("invite").context("no invite was written")?.to_owned();
    for node in &nodes[1..] {
        let joined = node.run(&["topic", "join", &invite], LIMIT).await?;
        ensure!(joined.success, "it cannot join: {joined}");
    }
    let mut expect: BTreeSet<String> = ["hello".to_owned()].into();
    let begin = Instant::now();
    send(&nodes[0], "hello").await?;
    for node in &nodes {
        until_said(node, &expect, CAUGHT_UP_MAX).await?;
    }
    report.figure("all five have the first message after", begin.elapsed().as_secs_f64(), "s");

    nodes[ABSENT].kill().await?;
    let begin = Instant::now();
    for n in 0..MISSED {
        let text = format!("missed {n}");
        send(&nodes[n % ABSENT], &text).await?;
        expect.insert(text);
    }
    report.figure("messages said meanwhile", MISSED, "");
    report.figure("in", begin.elapsed().as_secs_f64(), "s");
    nodes[ABSENT].again().await?;
    let begin = Instant::now();
    until_said(&nodes[ABSENT], &expect, CAUGHT_UP_MAX).await?;
    report.figure("who missed them has them after", begin.elapsed().as_secs_f64(), "s");

    partition(&introducer, &nodes, &mut expect, report).await?;

    // Whoever comes is invited by one who was invited.
    let invited = nodes[2].run(&["topic", "invite", "lab"], LIMIT).await?;
    ensure!(invited.success, "no invite: {invited}");
    let invite = invited.text("invite").context("no invite was written")?.to_owned();
    nodes[0].kill().await?;
    let host = world.host("newcomer", NatKind::PortRestricted).await?;
    let mut newcomer = Node::up(&host, dir, &[introducer.at()], &[]).await?;
    newcomer.joined().await?;
    let begin = Instant::now();
    let joined = newcomer.run(&["topic", "join", &invite], LIMIT).await?;
    ensure!(joined.success, "a newcomer cannot join: {joined}");
    until_said(&newcomer, &expect, CAUGHT_UP_MAX).await?;
    report.figure("a newcomer has all of it after", begin.elapsed().as_secs_f64(), "s");
    send(&newcomer, "I am new").await?;
    expect.insert("I am new".to_owned());
    for node in &nodes[1..] {
        until_said(node, &expect, CAUGHT_UP_MAX).await?;
    }
    Ok(())
}

/// Two of the five are cut off from the rest, the public node included; both sides talk.
async fn partition(
    introducer: &Node,
    nodes: &[Node],
    expect: &mut BTreeSet<String>,
    report: &mut Report,
) -> Result<()> {
    let (far, near) = nodes.split_at(2);
    for a in far {
        for b in near.iter().chain([introducer]) {
            cut(&a.host, &b.host).await?;
        }
    }
    let begin = Instant::now();
    for (n, node) in nodes.iter().enumerate() {
        let text = format!("from one side, {n}");
        send(node, &text).await?;
        expect.insert(text);
    }
    sleep(CUT.saturating_sub(begin.elapsed())).await;
    let have = said(&far[0]).await?;
    report.check(have.len() < expect.len(), || "the network was not cut in two".into());
    for a in far {
        for b in near.iter().chain([introducer]) {
            heal(&a.host, &b.host).await?;
        }
    }
    let healed = Instant::now();
    for node in nodes {
        until_said(node, expect, CAUGHT_UP_MAX).await?;
    }
    report.figure("equal again after a cut of a minute", healed.elapsed().as_secs_f64(), "s");
    Ok(())
}

async fn send(node: &Node, text: &str) -> Result<()> {
    let sent = node.run(&["topic", "send", "lab", text], LIMIT).await?;
    ensure!(sent.success, "it cannot say {text}: {sent}");
    Ok(())
}

/// What a member has.
async fn said(node: &Node) -> Result<BTreeSet<String>> {
    let tail = node.run(&["topic", "tail", "lab", "--no-follow"], LIMIT).await?;
    ensure!(tail.success, "it cannot read: {tail}");
    let text = |line: &serde_json::Value| Some(line["text"].as_str()?.to_owned());
    Ok(tail.lines.iter().filter_map(text).collect())
}

async fn until_said(node: &Node, expect: &BTreeSet<String>, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let have = said(node).await?;
        if have == *expect {
            return Ok(());
        }
        let missing = expect.difference(&have).count();
        let late = || format!("{} lacks {missing} of {}", node.host.name(), expect.len());
        ensure!(Instant::now() < deadline, late());
        sleep(AGAIN).await;
    }
}
