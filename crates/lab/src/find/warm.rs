//! The only public node dies; who is left goes on, and who restarts comes back.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::fleet::{Fleet, LONG_DEAD};
use super::{Report, pairs};
use crate::nat::NatKind;

/// The eleven: what a dozen homes have. One of each extreme, so that the two that cannot be punched
/// by each other (symmetric and port-restricted) meet too.
const KINDS: [NatKind; 11] = [
    NatKind::FullCone,
    NatKind::FullCone,
    NatKind::FullCone,
    NatKind::AddressRestricted,
    NatKind::AddressRestricted,
    NatKind::AddressRestricted,
    NatKind::PortRestricted,
    NatKind::PortRestricted,
    NatKind::PortRestricted,
    NatKind::PortRestricted,
    NatKind::Symmetric,
];

/// Which of them restarts: one that nobody reaches without its own sending first.
const RESTARTED: usize = 9;

/// So few at a time that the machine's two cores do not make the figures.
const AT_ONCE: usize = 2;

/// What `baran ping` grants a connection by default.
const LIMIT: Duration = Duration::from_secs(10);

pub(super) async fn play(dir: &Path, report: &mut Report) -> Result<()> {
    let mut fleet = Fleet::form(dir, &KINDS, |_| vec![], report).await?;
    fleet.introducer.kill().await?;
    let nodes = &fleet.nodes;
    let attempts = pairs::ping(nodes, &pairs::all(nodes.len()), AT_ONCE, LIMIT).await?;
    pairs::tell("after the public node's death", nodes, &attempts, report);

    sleep(LONG_DEAD).await;
    let restarted = &mut fleet.nodes[RESTARTED];
    restarted.kill().await?;
    let begin = Instant::now();
    restarted.again().await?;
    restarted.joined().await?;
    report.figure("restarted node joined after", begin.elapsed().as_secs_f64(), "s");
    let status = restarted.status().await?;
    let how = status["index"]["joined_by"].clone();
    report.check(how == "cache", || format!("it says that it joined by {how}"));
    let nodes = &fleet.nodes;
    let others = (0..nodes.len()).filter(|n| *n != RESTARTED);
    let to_and_fro = others.flat_map(|n| [(RESTARTED, n), (n, RESTARTED)]).collect::<Vec<_>>();
    let attempts = pairs::ping(nodes, &to_and_fro, AT_ONCE, LIMIT).await?;
    pairs::tell("to and from the restarted node", nodes, &attempts, report);
    Ok(())
}
