//! A network of daemons behind NATs that one public node introduced.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::time::Instant;

use super::Report;
use crate::nat::NatKind;
use crate::node::Node;
use crate::world::World;

/// A node of a small network is at home in it once it knows so many peers by their keys...
const TABLE_FORMED: u64 = 8;

/// ...and is connected to so many (design section 6: 4 nearest and 4 random, which overlap).
const WARM_FORMED: u64 = 4;

/// For a network of a dozen to form on a busy machine.
const FORMING_MAX: Duration = Duration::from_secs(60);

/// From the introducer's death to a restart: what a node learned reaches its disk, and the silence
/// of the dead is noticed.
pub(super) const LONG_DEAD: Duration = Duration::from_secs(8);

/// Daemons that know each other only through one that introduced them.
#[derive(Debug)]
pub(super) struct Fleet {
    /// The only one with a public address.
    pub(super) introducer: Node,
    /// The others.
    pub(super) nodes: Vec<Node>,
    /// Where they live.
    pub(super) world: World,
}

impl Fleet {
    /// Starts an introducer and a node behind a NAT of each of `kinds`, each with the options of
    /// its number (the introducer's is the last), and waits until they are a network.
    pub(super) async fn form(
        dir: &Path,
        kinds: &[NatKind],
        options: impl Fn(usize) -> Vec<&'static str>,
        report: &mut Report,
    ) -> Result<Self> {
        let world = World::new().await?;
        let public = world.host("public", NatKind::Open).await?;
        let mut hosts = Vec::new();
        for (n, kind) in kinds.iter().enumerate() {
            hosts.push(world.host(&format!("n{n}"), *kind).await?);
        }
        let begin = Instant::now();
        let introducer = Node::up(&public, dir, &[], &options(kinds.len())).await?;
        let mut nodes = Vec::new();
        for (n, host) in hosts.iter().enumerate() {
            nodes.push(Node::up(host, dir, &[introducer.at()], &options(n)).await?);
        }
        for node in &mut nodes {
            node.joined().await?;
        }
        report.figure("nodes behind NATs", nodes.len(), "");
        report.figure("all joined after", begin.elapsed().as_secs_f64(), "s");
        for node in &nodes {
            let left = FORMING_MAX.saturating_sub(begin.elapsed());
            node.until_status(left, is_formed)
                .await
                .context("it does not find into the network")?;
        }
        report.figure("all formed after", begin.elapsed().as_secs_f64(), "s");
        Ok(Self { introducer, nodes, world })
    }
}

fn is_formed(status: &Value) -> bool {
    let at_least = |key: &str, least| status["index"][key].as_u64().is_some_and(|n| n >= least);
    at_least("table", TABLE_FORMED) && at_least("warm", WARM_FORMED)
}
