//! Everybody reaches everybody by id: pings each way for every pair.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Report;
use crate::node::{Node, Reply, Route};
use crate::process::JsonProcess;
use crate::table::quantile;

/// Faults that a report names one by one; the rest is a number.
const FAULTS_SHOWN: usize = 12;

/// Pings of an attempt, and the milliseconds between them: a connection from before a peer's death
/// is there until silence shows that it is none, and what was sent on it is lost.
const COUNT: &str = "8";
const INTERVAL_MS: &str = "1000";

/// One node's attempt to reach another, by their places in the list.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) from: usize,
    pub(super) to: usize,
    /// When the ping's first reply was there, if it came.
    pub(super) reached: Option<Instant>,
    /// From the command's start to that, in milliseconds.
    pub(super) first_reply_ms: Option<f64>,
    /// The way of the reply.
    pub(super) route: Option<Route>,
    /// What the command said if it failed.
    pub(super) error: String,
}

/// Every ordered pair of `count` nodes, so dealt that neighbours in the list differ in both places.
pub(super) fn all(count: usize) -> Vec<(usize, usize)> {
    let steps = 1..count.max(1);
    steps.flat_map(|step| (0..count).map(move |from| (from, (from + step) % count))).collect()
}

/// Pings along each of `pairs` until the first reply, at most `at_once` at a time, each for at most
/// `limit`.
pub(super) async fn ping(
    nodes: &[Node],
    pairs: &[(usize, usize)],
    at_once: usize,
    limit: Duration,
) -> Result<Vec<Attempt>> {
    let mut under_way = JoinSet::new();
    let mut attempts = Vec::new();
    let seconds = limit.as_secs().max(1).to_string();
    for (from, to) in pairs.iter().copied() {
        if under_way.len() >= at_once {
            attempts.extend(under_way.join_next().await.transpose()?);
        }
        let id = &nodes[to].id;
        let args = ["ping", id, "--count", COUNT, "--interval", INTERVAL_MS, "--timeout", &seconds];
        let begin = Instant::now();
        let command = nodes[from].spawn(&args)?;
        under_way.spawn(async move {
            let (reply, error) = match first_reply(command, limit).await {
                Ok(reply) => (Some(reply), String::new()),
                Err(error) => (None, format!("{error:#}")),
            };
            let reached = reply.as_ref().map(|_| Instant::now());
            let first_reply_ms = reached.map(|at| (at - begin).as_secs_f64() * 1e3);
            Attempt { from, to, reached, first_reply_ms, route: reply.map(|r| r.route), error }
        });
    }
    while let Some(attempt) = under_way.join_next().await {
        attempts.push(attempt.context("a ping's task")?);
    }
    Ok(attempts)
}

/// The first reply of a ping, which is ended then.
async fn first_reply(mut command: JsonProcess, limit: Duration) -> Result<Reply> {
    // The command gives up by itself, first on the connection and then on the reply.
    let patience = limit * 2 + Duration::from_secs(5);
    let is_reply = |line: &Value| Reply::parse(line).is_some();
    let line = command.until("a reply", patience, is_reply).await?;
    Reply::parse(&line).context("a reply")
}

/// Reports how many of `attempts` came through and how fast, and those that did not as faults.
pub(super) fn tell(what: &str, nodes: &[Node], attempts: &[Attempt], report: &mut Report) {
    let times: Vec<_> = attempts.iter().filter_map(|attempt| attempt.first_reply_ms).collect();
    report.figure(format!("{what}: reached"), format!("{} of {}", times.len(), attempts.len()), "");
    for (name, q) in [("p50", 0.5), ("p90", 0.9), ("longest", 1.0)] {
        if let Some(ms) = quantile(&times, q) {
            report.figure(format!("{what}: first reply, {name}"), ms, "ms");
        }
    }
    let relayed = attempts.iter().filter(|attempt| attempt.route == Some(Route::Relayed)).count();
    report.figure(format!("{what}: relayed"), relayed, "");
    let mut failed = attempts.iter().filter(|attempt| attempt.reached.is_none());
    for Attempt { from, to, error, .. } in failed.by_ref().take(FAULTS_SHOWN) {
        let name = |n: usize| nodes[n].host.name();
        report.check(false, || {
            format!("{what}: {} does not reach {}: {error}", name(*from), name(*to))
        });
    }
    let more = failed.count();
    report.check(more == 0, || format!("{what}: {more} more pairs did not"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ordered_pair_comes_once() {
        let mut pairs = all(4);
        assert_eq!(pairs.len(), 12);
        pairs.sort_unstable();
        pairs.dedup();
        assert_eq!(pairs.len(), 12);
        assert!(pairs.iter().all(|(from, to)| from != to && *to < 4));
        assert_eq!(all(0).len() + all(1).len(), 0);
    }
}
