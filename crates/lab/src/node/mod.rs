//! The binary `baran` on a host, driven by its commands and JSON lines.
//!
//! The only module that knows the command line and the fields of the output
//! (docs/cli.md is their reference).

mod ping;

use std::env;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::time::{Instant, sleep};

pub use self::ping::{Pings, Reply, Route};
use crate::harness;
use crate::process::{JsonProcess, Process};
use crate::world::{Host, PUBLIC_RANGES};

/// A start or a join takes milliseconds; only a hang takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Options for every daemon, for who looks for a fault: `BARAN_LAB_LOG=-vv`.
const LOG_VARIABLE: &str = "BARAN_LAB_LOG";

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
    start: Start,
    /// Starts so far, and commands, so that each has a log of its own.
    count: AtomicU32,
}

/// How the daemon and the commands of a node are started.
#[derive(Debug, Clone)]
struct Start {
    /// The program and what must stand before it.
    line: Vec<String>,
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
        Self::launch(host, Start::new(host, dir, &[])?, peers, options).await
    }

    /// Starts a node as [`Node::up`] does, on a machine whose calendar is wrong by `offset`, as
    /// libfaketime writes it (`+1d`).
    ///
    /// # Errors
    ///
    /// As [`Node::up`], or if there is no libfaketime.
    pub async fn up_at(host: &Host, dir: &Path, peers: &[String], offset: &str) -> Result<Self> {
        let start = Start::new(host, dir, &harness::wrong_clock(offset)?)?;
        Self::launch(host, start, peers, &[]).await
    }

    async fn launch(host: &Host, start: Start, peers: &[String], options: &[&str]) -> Result<Self> {
        let mut daemon = start.daemon(host, host.name(), peers, options)?;
        let event = daemon.until("listening", PATIENCE, is_event("listening")).await?;
        Ok(Self {
            host: host.clone(),
            id: text(&event, "id")?,
            invite: text(&event, "invite")?,
            daemon,
            port: listening_port(&event)?,
            start,
            count: AtomicU32::new(0),
        })
    }

    /// Starts the node again after its end, with the same data directory and no peer named.
    ///
    /// # Errors
    ///
    /// As [`Node::up`], or if it has another identity than before.
    pub async fn again(&mut self) -> Result<()> {
        let name = format!("{}-again", self.log_name("up"));
        self.daemon = self.start.daemon(&self.host, &name, &[], &[])?;
        let event = self.daemon.until("listening", PATIENCE, is_event("listening")).await?;
        if text(&event, "id")? != self.id {
            return Err(self.daemon.blame("has lost its identity"));
        }
        self.invite = text(&event, "invite")?;
        self.port = listening_port(&event)?;
        Ok(())
    }

    /// Ends the daemon as `kill -9` does.
    ///
    /// # Errors
    ///
    /// If it has ended before.
    pub async fn kill(&mut self) -> Result<()> {
        self.daemon.process.kill().await
    }

    /// Waits until the node has a peer, and returns the event.
    ///
    /// # Errors
    ///
    /// If it does not say so in time.
    pub async fn joined(&mut self) -> Result<Value> {
        self.joined_within(PATIENCE).await
    }

    /// As [`Node::joined`], with a time of the caller's.
    ///
    /// # Errors
    ///
    /// If it does not say so in that time.
    pub async fn joined_within(&mut self, limit: Duration) -> Result<Value> {
        self.daemon.until("joined", limit, is_event("joined")).await
    }

    /// The port that the node listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
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
        Pings::of(command, limit).await
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
        self.tell("status").await
    }

    /// What the node says about the roles that it is lent, and those that it borrows.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub async fn roles(&self) -> Result<Value> {
        self.tell("roles").await
    }

    async fn tell(&self, what: &str) -> Result<Value> {
        let mut command = self.json(what, &[what])?;
        let line = command.next(PATIENCE).await?;
        line.ok_or_else(|| command.blame("wrote nothing"))
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

    /// Runs a command to its end.
    ///
    /// # Errors
    ///
    /// If it does not end within `limit` or writes something that is not JSON; that it fails is
    /// for the caller to judge.
    pub async fn run(&self, args: &[&str], limit: Duration) -> Result<Ran> {
        let begin = Instant::now();
        let command = self.spawn(args)?;
        Ran::of(command, begin, limit).await
    }

    /// Starts a command whose lines the caller reads.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn spawn(&self, args: &[&str]) -> Result<JsonProcess> {
        self.json(args.first().copied().unwrap_or_default(), args)
    }

    fn json(&self, what: &str, args: &[&str]) -> Result<JsonProcess> {
        let mut line = args.to_vec();
        line.push("--json");
        let (program, args) = self.start.split(&line)?;
        JsonProcess::start(&self.host, &self.log_name(what), &self.start.logs, &program, &args)
    }

    fn plain(&self, what: &str, args: &[&str]) -> Result<Process> {
        let (program, args) = self.start.split(args)?;
        Process::start(&self.host, &self.log_name(what), &self.start.logs, &program, &args)
    }

    fn log_name(&self, what: &str) -> String {
        let n = self.count.fetch_add(1, Ordering::Relaxed);
        format!("{}-{what}-{n}", self.host.name())
    }
}

impl Start {
    fn new(host: &Host, dir: &Path, wrapper: &[String]) -> Result<Self> {
        let mut line = wrapper.to_vec();
        line.push(harness::binary()?.display().to_string());
        Ok(Self { line, data: dir.join(host.name()), logs: dir.to_owned() })
    }

    /// The program and its arguments for a command of the node's data directory.
    fn split(&self, args: &[&str]) -> Result<(PathBuf, Vec<String>)> {
        let (program, wrapped) = self.line.split_first().context("no program")?;
        let mut all = wrapped.to_vec();
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        all.extend(["--data".to_owned(), self.data.display().to_string()]);
        Ok((PathBuf::from(program), all))
    }

    fn daemon(
        &self,
        host: &Host,
        log: &str,
        peers: &[String],
        options: &[&str],
    ) -> Result<JsonProcess> {
        let mut line = vec!["up", "--json"];
        line.extend(PUBLIC_RANGES.iter().flat_map(|range| ["--allow-net", *range]));
        line.extend(peers.iter().flat_map(|peer| ["--peer", peer.as_str()]));
        line.extend(options);
        let verbose = env::var(LOG_VARIABLE).unwrap_or_default();
        line.extend(verbose.split_whitespace());
        let (program, args) = self.split(&line)?;
        JsonProcess::start(host, log, &self.logs, &program, &args)
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// The objects that it wrote.
    pub lines: Vec<Value>,
    /// Whether it ended with 0.
    pub success: bool,
    /// What it wrote to standard error.
    pub stderr: String,
    /// From its start to its end.
    pub took: Duration,
}

impl Ran {
    async fn of(command: JsonProcess, begin: Instant, limit: Duration) -> Result<Self> {
        let log = command.process.log().to_owned();
        let (lines, status) = command.finish(limit).await?;
        let took = begin.elapsed();
        let stderr = std::fs::read_to_string(&log).with_context(|| log.display().to_string())?;
        Ok(Self { lines, success: status.success(), stderr, took })
    }

    /// The string `key` in the last line that has one.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.lines.iter().rev().find_map(|line| line[key].as_str())
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "success: {}, wrote ", self.success)?;
        f.debug_list().entries(self.lines.iter().map(Value::to_string)).finish()?;
        write!(f, ", said {:?}", self.stderr.trim())
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

fn text(event: &Value, key: &str) -> Result<String> {
    let found = event[key].as_str().map(str::to_owned);
    found.with_context(|| format!("no `{key}` in {event}"))
}
