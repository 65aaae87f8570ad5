//! What `baran ping` tells, and the way that packets take.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::JsonProcess;

/// How packets go to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Route {
    /// Straight.
    Direct,
    /// Over a third peer that forwards.
    Relayed,
}

impl Route {
    pub(super) fn parse(value: &Value) -> Result<Self> {
        match value["path"].as_str() {
            Some("direct") => Ok(Self::Direct),
            Some("relayed") => Ok(Self::Relayed),
            _ => bail!("no `path` of direct or relayed in {value}"),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        })
    }
}

/// A reply to a ping.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Round-trip time in milliseconds.
    pub rtt_ms: f64,
    /// The way of the reply.
    pub route: Route,
    /// The relay's id, if relayed.
    pub via: Option<String>,
    /// The address that was sent to.
    pub remote: String,
}

impl Reply {
    /// Reads a reply's line; `None` if the line is something else.
    #[must_use]
    pub fn parse(line: &Value) -> Option<Self> {
        Some(Self {
            rtt_ms: line["rtt_ms"].as_f64()?,
            route: Route::parse(line).ok()?,
            via: line["via"].as_str().map(str::to_owned),
            remote: line["remote"].as_str().unwrap_or_default().to_owned(),
        })
    }
}

/// All that one `baran ping` told.
#[derive(Debug, Clone)]
pub struct Pings {
    /// In the order of arrival.
    pub replies: Vec<Reply>,
    /// Milliseconds from the command's start to its first reply.
    pub first_reply_ms: Option<f64>,
    /// Milliseconds from the command's start to the direct path, if any.
    pub direct_after_ms: Option<f64>,
    /// Whether every ping was answered, by the count and by the exit status.
    pub complete: bool,
}

impl Pings {
    /// Reads all that a ping writes.
    ///
    /// # Errors
    ///
    /// If it fails other than by a missing reply, or runs longer than `limit`.
    pub async fn of(command: JsonProcess, limit: Duration) -> Result<Self> {
        let name = command.process.name().to_owned();
        let log = command.process.log().to_owned();
        let (lines, status) = command.finish(limit).await?;
        Self::parse(&lines, status.success()).with_context(|| {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            format!("{name} ({status}): {}", said.trim())
        })
    }

    fn parse(lines: &[Value], success: bool) -> Result<Self> {
        let replies: Vec<_> = lines.iter().filter_map(Reply::parse).collect();
        let summary = lines.iter().rev().find(|line| !line["sent"].is_null());
        let summary = summary.with_context(|| format!("no summary in {lines:?}"))?;
        let received = summary["received"].as_u64().context("no `received`")?;
        if usize::try_from(received)? != replies.len() {
            bail!("{} replies, but the summary is {summary}", replies.len());
        }
        let all = summary["sent"] == summary["received"];
        if all != success {
            bail!("exit status and summary disagree: {summary}");
        }
        Ok(Self {
            replies,
            first_reply_ms: summary["first_reply_ms"].as_f64(),
            direct_after_ms: summary["direct_after_ms"].as_f64(),
            complete: all,
        })
    }

    /// The route of the last reply.
    #[must_use]
    pub fn last_route(&self) -> Option<Route> {
        self.replies.last().map(|reply| reply.route)
    }

    /// Median round-trip time of the replies that took `route`, in
    /// milliseconds.
    #[must_use]
    pub fn rtt_ms(&self, route: Route) -> Option<f64> {
        let taken = self.replies.iter().filter(|reply| reply.route == route);
        crate::table::quantile(&taken.map(|reply| reply.rtt_ms).collect::<Vec<_>>(), 0.5)
    }
}
