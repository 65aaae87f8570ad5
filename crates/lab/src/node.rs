//! The binary `baran` on a host, driven by its commands and JSON lines.
//!
//! The only module that knows the command line and the fields of the output
//! (docs/cli.md is their reference).

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::harness;
use crate::process::{JsonProcess, Process};
use crate::world::{Host, PUBLIC_RANGES};

/// A start or a join takes milliseconds; only a hang takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// How packets go to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Route {
    /// Straight.
    Direct,
    /// Over a third peer that forwards.
    Relayed,
}

impl Route {
    fn parse(value: &Value) -> Result<Self> {
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

/// A running node: `baran up` on a host.
#[derive(Debug)]
pub struct Node {
    /// Where it runs.
    pub host: Host,
    /// Its id, as it told.
    pub id: String,
    /// Its invite, as it told.
    pub invite: String,
    /// The daemon, for its events and its end.
    pub daemon: JsonProcess,
    port: u16,
    program: PathBuf,
    data: PathBuf,
    logs: PathBuf,
}

impl Node {
    /// Starts a node on `host` that knows `peers` (ids, invites or
    /// `ID@address`), with its data and logs below `dir`.
    ///
    /// # Errors
    ///
    /// If there is no binary, or it does not say that it listens.
    pub async fn up(host: &Host, dir: &Path, peers: &[String], options: &[&str]) -> Result<Self> {
        let program = harness::binary()?;
        let data = dir.join(host.name());
        let mut args = vec!["up".to_owned(), "--json".to_owned()];
        args.extend(["--data".to_owned(), data.display().to_string()]);
        for range in PUBLIC_RANGES {
            args.extend(["--allow-net".to_owned(), range.to_owned()]);
        }
        for peer in peers {
            args.extend(["--peer".to_owned(), peer.clone()]);
        }
        args.extend(options.iter().map(|&option| option.to_owned()));
        let mut daemon = JsonProcess::start(host, host.name(), dir, &program, &args)?;
        let event = daemon.until("listening", PATIENCE, is_event("listening")).await?;
        let text = |key: &str| {
            let found = event[key].as_str().map(str::to_owned);
            found.with_context(|| format!("no `{key}` in {event}"))
        };
        Ok(Self {
            host: host.clone(),
            id: text("id")?,
            invite: text("invite")?,
            daemon,
            port: listening_port(&event)?,
            program,
            data,
            logs: dir.to_owned(),
        })
    }

    /// Waits until the node has a peer.
    ///
    /// # Errors
    ///
    /// If it does not say so in time.
    pub async fn joined(&mut self) -> Result<()> {
        self.daemon.until("joined", PATIENCE, is_event("joined")).await.map(drop)
    }

    /// `ID@address` of this node; good for whoever can send to its own address.
    #[must_use]
    pub fn at(&self) -> String {
        format!("{}@{}", self.id, self.host.socket(self.port))
    }

    /// Pings `peer` and reads every line.
    ///
    /// # Errors
    ///
    /// If the command fails other than by a missing reply.
    pub async fn ping(&self, peer: &str, count: u32, interval_ms: u32) -> Result<Pings> {
        let command = self.start_ping(peer, count, interval_ms)?;
        let limit = PATIENCE + Duration::from_millis(u64::from(count) * u64::from(interval_ms));
        let (lines, status) = command.finish(limit).await?;
        Pings::parse(&lines, status.success())
            .with_context(|| format!("ping by {} ({status})", self.host.name()))
    }

    /// Starts a ping whose lines the caller reads.
    ///
    /// # Errors
    ///
    /// If the command cannot be started.
    pub fn start_ping(&self, peer: &str, count: u32, interval_ms: u32) -> Result<JsonProcess> {
        let count = count.to_string();
        let interval = interval_ms.to_string();
        let args = ["ping", peer, "--count", &count, "--interval", &interval];
        self.json("ping", &args)
    }

    /// What the node says about itself.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub async fn status(&self) -> Result<Value> {
        let mut command = self.json("status", &["status"])?;
        let status = command.next(PATIENCE).await?;
        status.ok_or_else(|| command.blame("wrote nothing"))
    }

    /// What the node says about its way to `peer`: the route and the relay.
    ///
    /// # Errors
    ///
    /// If the command fails or its output lacks a field.
    pub async fn route_to(&self, peer: &str) -> Result<Option<(Route, Option<String>)>> {
        let status = self.status().await?;
        let peers = status["peers"].as_array().with_context(|| format!("no peers in {status}"))?;
        let Some(found) = peers.iter().find(|found| found["id"] == peer) else { return Ok(None) };
        // A peer that is known but not connected has no path.
        if found["path"].is_null() {
            return Ok(None);
        }
        Ok(Some((Route::parse(found)?, found["via"].as_str().map(str::to_owned))))
    }

    /// Waits until packets to `peer` take `route`, and tells by which relay.
    ///
    /// # Errors
    ///
    /// If they do not within `limit`.
    pub async fn until_route(
        &self,
        peer: &str,
        route: Route,
        limit: Duration,
    ) -> Result<Option<String>> {
        let deadline = Instant::now() + limit;
        loop {
            let found = self.route_to(peer).await?;
            match found {
                Some((there, via)) if there == route => return Ok(via),
                _ if Instant::now() > deadline => {
                    return Err(self.daemon.blame(&format!("is not {route} but {found:?}")));
                }
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Waits until the node says of itself what `is_it` wants.
    ///
    /// # Errors
    ///
    /// If it does not within `limit`.
    pub async fn until_status(
        &self,
        limit: Duration,
        is_it: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.status().await?;
            if is_it(&status) {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(self.daemon.blame(&format!("says of itself only {status}")));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts `baran pipe listen`.
    ///
    /// # Errors
    ///
    /// If the command cannot be started.
    pub fn pipe_listen(&self) -> Result<Process> {
        self.plain("pipe-listen", &["pipe", "listen"])
    }

    /// Starts `baran pipe connect`.
    ///
    /// # Errors
    ///
    /// If the command cannot be started.
    pub fn pipe_connect(&self, peer: &str) -> Result<Process> {
        self.plain("pipe-connect", &["pipe", "connect", peer])
    }

    fn json(&self, what: &str, args: &[&str]) -> Result<JsonProcess> {
        let mut args = self.with_data(args);
        args.push("--json".to_owned());
        let name = format!("{}-{what}", self.host.name());
        JsonProcess::start(&self.host, &name, &self.logs, &self.program, &args)
    }

    fn plain(&self, what: &str, args: &[&str]) -> Result<Process> {
        let name = format!("{}-{what}", self.host.name());
        Process::start(&self.host, &name, &self.logs, &self.program, &self.with_data(args))
    }

    fn with_data(&self, args: &[&str]) -> Vec<String> {
        let mut all: Vec<_> = args.iter().map(|&arg| arg.to_owned()).collect();
        all.extend(["--data".to_owned(), self.data.display().to_string()]);
        all
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

fn is_event(name: &'static str) -> impl Fn(&Value) -> bool {
    move |value| value["event"] == name
}

/// The port in the first of the addresses that a `listening` event names.
fn listening_port(event: &Value) -> Result<u16> {
    let address = event["addresses"][0].as_str();
    let address = address.with_context(|| format!("no address in {event}"))?;
    let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
    port.with_context(|| format!("no port in {address}"))
}
