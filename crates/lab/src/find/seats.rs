//! Two dozen behind all kinds of NATs vote seats in; all who hold one are killed at once.
//!
//! The daemons run the election of the program with an epoch of [`EPOCH_S`] in the place of an
//! hour; every other duration of it follows.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::fleet::Fleet;
use super::{Report, pairs};
use crate::nat::NatKind;
use crate::node::{Node, Reply, Route};
use crate::process::JsonProcess;
use crate::table::quantile;

/// Seconds of an epoch.
const EPOCH_S: &str = "90";

/// A candidate applies in one epoch and has its seat in the next; a newcomer misses the first, and
/// while the machine is busy too few may be reached in time in another.
const ELECTED_MAX: Duration = Duration::from_secs(480);

/// The targets after all are lost (design section 11).
const HEALED_MAX: Duration = Duration::from_secs(75);

/// Seats of a network of 24 that serve (design section 7).
const SEATS: usize = 3;

/// The twenty-three; one more introduces them and has no NAT.
const KINDS: [NatKind; 23] = [
    NatKind::Symmetric,
    NatKind::PortRestricted,
    NatKind::PortRestricted,
    NatKind::PortRestricted,
    NatKind::PortRestricted,
    NatKind::PortRestricted,
    NatKind::PortRestricted,
    NatKind::PortRestricted,
    NatKind::PortRestricted,
    NatKind::PortRestricted,
    NatKind::AddressRestricted,
    NatKind::AddressRestricted,
    NatKind::AddressRestricted,
    NatKind::AddressRestricted,
    NatKind::AddressRestricted,
    NatKind::FullCone,
    NatKind::FullCone,
    NatKind::FullCone,
    NatKind::FullCone,
    NatKind::FullCone,
    NatKind::Open,
    NatKind::Open,
    NatKind::Open,
];

/// Which of them can reach each other through a relay only.
const SYMMETRIC: usize = 0;

/// Values that are looked up afterwards.
const VALUES: usize = 6;

/// Pings of the connection that runs on, and the milliseconds between them: a minute and a half.
const STREAM_COUNT: u32 = 900;
const STREAM_MS: u32 = 100;

/// For that to end.
const STREAM_MAX: Duration = Duration::from_secs(120);

/// The longest silence of a relayed connection whose relay dies, while the machine is busy with
/// what is tried at the same time (design section 11: p99 below 2 s).
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// For a command to end.
const LIMIT: Duration = Duration::from_secs(10);

/// So few commands at a time that the machine's two cores do not make the figures.
const AT_ONCE: usize = 2;

pub(super) async fn play(dir: &Path, report: &mut Report) -> Result<()> {
    let begin = Instant::now();
    let fleet = Fleet::form(dir, &KINDS, options, report).await?;
    let Fleet { introducer, mut nodes, world: _world } = fleet;
    nodes.push(introducer);
    until_seats(&nodes, &BTreeSet::new(), Lent::AtAll, ELECTED_MAX).await?;
    report.figure("seats lent for minutes after", begin.elapsed().as_secs_f64(), "s");
    let seats = until_seats(&nodes, &BTreeSet::new(), Lent::ForATerm, ELECTED_MAX).await?;
    report.figure("seats elected after", begin.elapsed().as_secs_f64(), "s");
    report.figure("seats", seats.len(), "");
    let hidden = seats.iter().filter(|n| is_behind_nat(**n)).count();
    report.figure("of these behind NATs", hidden, "");
    report.check(hidden > 0, || "no seat is behind a NAT".into());

    // Whoever publishes and looks up holds no seat: all of them live on.
    let (rest, relayed) = survivors(&nodes, &seats)?;
    for n in &rest[..VALUES] {
        let ran = nodes[*n].run(&["put", "name", "value"], LIMIT).await?;
        ensure!(ran.success, "it cannot publish: {ran}");
    }
    let mut stream = nodes[SYMMETRIC].start_ping(&nodes[relayed].id, STREAM_COUNT, STREAM_MS)?;
    let is_reply = |line: &Value| Reply::parse(line).is_some();
    let first = stream.until("a reply", LIMIT, is_reply).await?;
    report.check(Reply::parse(&first).is_some_and(|reply| reply.route == Route::Relayed), || {
        format!("the connection to be watched is not relayed: {first}")
    });

    let death = Instant::now();
    for n in &seats {
        nodes[*n].kill().await?;
    }
    let watch = tokio::spawn(longest_silence(stream));
    look_up(&nodes, &rest, "just after all seats were killed", report).await?;
    let heirs = until_seats(&nodes, &seats, Lent::AtAll, HEALED_MAX).await?;
    report.figure("seats again after", death.elapsed().as_secs_f64(), "s");
    report.figure("seats then", heirs.len(), "");
    look_up(&nodes, &rest, "with new seats", report).await?;
    let living: Vec<_> = (0..nodes.len()).filter(|n| !seats.contains(n)).collect();
    let new = living.iter().zip(living.iter().cycle().skip(living.len() / 2));
    let pairs: Vec<_> = new.map(|(from, to)| (*from, *to)).collect();
    let attempts = pairs::ping(&nodes, &pairs, AT_ONCE, LIMIT).await?;
    pairs::tell("new connections", &nodes, &attempts, report);
    let silence = watch.await.context("the stream's task")??;
    report.figure("longest silence of a relayed connection", silence.as_secs_f64(), "s");
    report
        .check(silence < SILENCE_MAX, || format!("a relayed connection stood still: {silence:?}"));
    Ok(())
}

/// The symmetric one serves nobody: it is reached by enough electors to have a seat, and is to live
/// on to watch a connection of its own.
fn options(n: usize) -> Vec<&'static str> {
    let epoch = ["--epoch", EPOCH_S];
    if n == SYMMETRIC { [&epoch[..], &["--serve", "off"]].concat() } else { epoch.into() }
}

fn is_behind_nat(n: usize) -> bool {
    KINDS.get(n).is_some_and(|kind| *kind != NatKind::Open)
}

/// What kind of seat is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lent {
    /// Any, also one that is lent at once for minutes.
    AtAll,
    /// One whose holder was measured and voted in for an epoch.
    ForATerm,
}

/// Who holds an active seat, by its own word, once there are enough besides `but`.
async fn until_seats(
    nodes: &[Node],
    but: &BTreeSet<usize>,
    lent: Lent,
    limit: Duration,
) -> Result<BTreeSet<usize>> {
    let deadline = Instant::now() + limit;
    loop {
        let mut seats = BTreeSet::new();
        for (n, node) in nodes.iter().enumerate().filter(|(n, _)| !but.contains(n)) {
            let seat = node.roles().await?["seat"].take();
            if seat["active"] == true && (lent == Lent::AtAll || seat["acting"] == false) {
                seats.insert(n);
            }
        }
        if seats.len() >= SEATS {
            return Ok(seats);
        }
        ensure!(Instant::now() < deadline, "only {seats:?} hold seats after {limit:?}");
        sleep(Duration::from_secs(1)).await;
    }
}

/// Who holds no seat, and of these one that the symmetric node reaches through a relay only.
fn survivors(nodes: &[Node], seats: &BTreeSet<usize>) -> Result<(Vec<usize>, usize)> {
    let rest: Vec<_> = (0..nodes.len()).filter(|n| *n != SYMMETRIC && !seats.contains(n)).collect();
    ensure!(!seats.contains(&SYMMETRIC), "a node whose owner lends nothing holds a seat");
    let is_hard = |n: &usize| KINDS.get(*n) == Some(&NatKind::PortRestricted);
    let hard = rest.iter().copied().find(is_hard);
    Ok((rest, hard.context("all of the port-restricted hold seats")?))
}

/// Each value by each of a few nodes.
async fn look_up(nodes: &[Node], rest: &[usize], what: &str, report: &mut Report) -> Result<()> {
    let mut times = Vec::new();
    let mut all = 0;
    for (author, asker) in rest[..VALUES].iter().zip(rest.iter().rev()) {
        all += 1;
        let ran = nodes[*asker].run(&["get", &nodes[*author].id, "name"], LIMIT).await?;
        if ran.success && ran.text("value") == Some("value") {
            times.push(ran.took.as_secs_f64() * 1e3);
        } else {
            report.check(false, || format!("{what}: a value is not found: {ran}"));
        }
    }
    report.figure(format!("{what}: values found"), format!("{} of {all}", times.len()), "");
    if let Some(ms) = quantile(&times, 1.0) {
        report.figure(format!("{what}: the slowest look-up"), ms, "ms");
    }
    Ok(())
}

/// The longest time between two replies of a ping, until it ends.
async fn longest_silence(mut stream: JsonProcess) -> Result<Duration> {
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    while let Some(line) = stream.next(STREAM_MAX).await? {
        if Reply::parse(&line).is_some() {
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
    }
    Ok(longest)
}
