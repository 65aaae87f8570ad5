//! Death of a path, of a relay, of the introducer, under traffic.
//!
//! The traffic is a stream through `baran pipe`: numbered lines, one every
//! `LINE_PAUSE`. The reader checks every line against its number, so that a
//! byte lost, doubled or out of order ends the run. The figure is the longest
//! silence that the reader meets from the moment of the death on: it contains
//! the time to the next byte and whatever hiccup follows (oscillation).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::Scratch;
use crate::nat::NatKind;
use crate::node::{Node, Reply, Route};
use crate::process::Process;
use crate::world::{World, cut};

/// Between two lines of the stream; bounds the resolution of the figure.
const LINE_PAUSE: Duration = Duration::from_millis(2);

/// Time for a listener to register with its daemon before somebody connects.
const LISTEN_SETTLE: Duration = Duration::from_millis(400);

/// The stream runs on this long after the death, to meet late hiccups.
const AFTERMATH: Duration = Duration::from_secs(3);

/// The longest silence that counts as survival at all.
const GIVE_UP: Duration = Duration::from_secs(20);

/// How long a program whose output ended has to say why.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// UDP between A and B, whose path is direct; the relay remains.
    DirectPath,
    /// The relay of a pair that cannot be direct; a second one remains.
    Relay,
    /// The node that introduced a pair, after it went direct.
    Introducer,
}

impl Death {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::DirectPath, Self::Relay, Self::Introducer];

    /// The name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DirectPath => "direct path cut",
            Self::Relay => "relay killed, second relay there",
            Self::Introducer => "introducer killed after the direct path opened",
        }
    }

    /// Runs it once; the longest silence in milliseconds.
    ///
    /// # Errors
    ///
    /// If the stream does not survive, or not whole.
    pub async fn run(self) -> Result<f64> {
        let dir = Scratch::new(self.name())?;
        let silence = match self {
            Self::DirectPath | Self::Introducer => direct(self, dir.path()).await,
            Self::Relay => relayed(dir.path()).await,
        };
        silence.with_context(|| self.name())
    }
}

async fn direct(death: Death, dir: &Path) -> Result<f64> {
    let world = World::new().await?;
    let kind = NatKind::PortRestricted;
    let m = world.host("m", NatKind::Open).await?;
    let mut m = Node::up(&m, dir, &[], &[]).await?;
    let (mut a, mut b) = (
        Node::up(&world.host("a", kind).await?, dir, &[m.at()], &[]).await?,
        Node::up(&world.host("b", kind).await?, dir, &[m.at()], &[]).await?,
    );
    tokio::try_join!(a.joined(), b.joined())?;
    let mut traffic = Traffic::start(&a, &b).await?;
    a.until_route(&b.id, Route::Direct, GIVE_UP).await?;
    b.until_route(&a.id, Route::Direct, GIVE_UP).await?;
    traffic.flows().await?;
    let moment = traffic.mark();
    if death == Death::DirectPath {
        cut(&a.host, &b.host).await?;
    } else {
        m.daemon.process.kill().await?;
    }
    let silence = traffic.survives(moment).await?;
    let after = a.route_to(&b.id).await?.map(|(route, _)| route);
    let expected = if death == Death::DirectPath { Route::Relayed } else { Route::Direct };
    ensure!(after == Some(expected), "the stream goes on, but the route is {after:?}");
    Ok(silence)
}

async fn relayed(dir: &Path) -> Result<f64> {
    let world = World::new().await?;
    let mut relays = Vec::new();
    for name in ["r1", "r2"] {
        let host = world.host(name, NatKind::Open).await?;
        let known: Vec<_> = relays.iter().map(Node::at).collect();
        relays.push(Node::up(&host, dir, &known, &[]).await?);
    }
    let known: Vec<_> = relays.iter().map(Node::at).collect();
    let kind = NatKind::Symmetric;
    let mut a = Node::up(&world.host("a", kind).await?, dir, &known, &[]).await?;
    let mut b = Node::up(&world.host("b", kind).await?, dir, &known, &[]).await?;
    tokio::try_join!(a.joined(), b.joined())?;
    let mut traffic = Traffic::start(&a, &b).await?;
    // Both must know both relays before one may die.
    for (node, relay) in [(&a, 0), (&a, 1), (&b, 0), (&b, 1)] {
        node.until_route(&relays[relay].id, Route::Direct, GIVE_UP).await?;
    }
    traffic.flows().await?;
    sleep(AFTERMATH / 2).await;
    let via = a.until_route(&b.id, Route::Relayed, GIVE_UP).await?;
    let via = via.context("relayed, but `via` names nobody")?;
    let killed = relays.iter_mut().find(|relay| relay.id == via);
    let killed = killed.with_context(|| format!("relayed by {via}, which is no relay here"))?;
    let moment = traffic.mark();
    killed.daemon.process.kill().await?;
    let silence = traffic.survives(moment).await?;
    let after = a.until_route(&b.id, Route::Relayed, GIVE_UP).await?;
    ensure!(after.is_some_and(|after| after != via), "still relayed by the dead {via}");
    Ok(silence)
}

/// The introducer dies while A pings B: every ping is answered, directly.
///
/// # Errors
///
/// If one is not, or not directly.
pub async fn introducer_dies_under_pings() -> Result<()> {
    let dir = Scratch::new("introducer dies under pings")?;
    let dir = dir.path();
    let world = World::new().await?;
    let m = world.host("m", NatKind::Open).await?;
    let mut m = Node::up(&m, dir, &[], &[]).await?;
    let kind = NatKind::PortRestricted;
    let mut a = Node::up(&world.host("a", kind).await?, dir, &[m.at()], &[]).await?;
    let mut b = Node::up(&world.host("b", kind).await?, dir, &[m.at()], &[]).await?;
    tokio::try_join!(a.joined(), b.joined())?;
    a.ping(&b.id, 5, 50).await?;
    a.until_route(&b.id, Route::Direct, GIVE_UP).await?;
    let mut pings = a.start_ping(&b.id, 80, 50)?;
    for _ in 0..10 {
        pings.next(GIVE_UP).await?;
    }
    m.daemon.process.kill().await?;
    let (lines, status) = pings.finish(GIVE_UP).await?;
    let replies: Vec<_> = lines.iter().filter_map(Reply::parse).collect();
    ensure!(status.success() && replies.len() == 70, "a ping was not answered: {lines:?}");
    ensure!(replies.iter().all(|reply| reply.route == Route::Direct), "left the direct path");
    Ok(())
}

/// What the reading end has seen so far.
#[derive(Debug, Clone, Copy)]
struct Arrivals {
    lines: u64,
    last: Instant,
    /// The longest silence that ended after the mark.
    longest: Duration,
}

/// A checked stream from A to B, kept flowing by tasks.
struct Traffic {
    connect: Process,
    listen: Process,
    stop: watch::Sender<bool>,
    mark: watch::Sender<Option<Instant>>,
    arrivals: watch::Receiver<Arrivals>,
    writer: JoinHandle<Result<u64>>,
    reader: JoinHandle<Result<u64>>,
}

impl Traffic {
    async fn start(a: &Node, b: &Node) -> Result<Self> {
        let mut listen = b.pipe_listen()?;
        sleep(LISTEN_SETTLE).await;
        let mut connect = a.pipe_connect(&b.id)?;
        let (stop, stopped) = watch::channel(false);
        let (mark, marked) = watch::channel(None);
        let start = Arrivals { lines: 0, last: Instant::now(), longest: Duration::ZERO };
        let (report, arrivals) = watch::channel(start);
        let writer = tokio::spawn(write(connect.take_stdin()?, stopped));
        let reader = tokio::spawn(read(listen.take_stdout()?, marked, report));
        let mut traffic = Self { connect, listen, stop, mark, arrivals, writer, reader };
        traffic.flows().await?;
        Ok(traffic)
    }

    /// Waits for some lines more than have come.
    async fn flows(&mut self) -> Result<()> {
        let target = self.arrivals.borrow().lines + 50;
        let arrived = self.arrivals.wait_for(|arrivals| arrivals.lines >= target);
        let flows = matches!(timeout(GIVE_UP, arrived).await, Ok(Ok(_)));
        if flows { Ok(()) } else { Err(self.failure("the stream does not flow").await) }
    }

    /// Counts silences from this moment on, which is just before a death.
    fn mark(&self) -> Instant {
        let moment = Instant::now();
        self.mark.send_replace(Some(moment));
        moment
    }

    /// Lets the stream go on after a death at `moment`, ends it, checks that it
    /// was whole, and returns the longest silence in milliseconds.
    async fn survives(mut self, moment: Instant) -> Result<f64> {
        let deadline = Instant::now() + GIVE_UP;
        sleep(AFTERMATH).await;
        while self.arrivals.borrow().last < moment + AFTERMATH / 2 {
            if Instant::now() > deadline || self.reader.is_finished() {
                return Err(self.failure("the stream did not come back").await);
            }
            sleep(Duration::from_millis(50)).await;
        }
        self.flows().await?;
        self.stop.send_replace(true);
        let written = (&mut self.writer).await??;
        let read = match timeout(GIVE_UP, &mut self.reader).await {
            Ok(read) => read??,
            Err(_) => return Err(self.failure("the end of the stream did not arrive").await),
        };
        ensure!(read == written, "{written} lines were sent, {read} arrived");
        let Self { mut connect, mut listen, arrivals, .. } = self;
        // The far end has no more to say either.
        drop(listen.take_stdin()?);
        for process in [&mut connect, &mut listen] {
            let status = process.wait(GIVE_UP).await?;
            ensure!(status.success(), process.blame(&format!("ended with {status}")));
        }
        let longest = arrivals.borrow().longest;
        Ok(longest.as_secs_f64() * 1e3)
    }

    /// An error with all that the two ends can tell.
    async fn failure(&mut self, what: &str) -> anyhow::Error {
        let mut text = what.to_owned();
        if self.reader.is_finished() {
            text.push_str(&format!("; reader: {:?}", (&mut self.reader).await));
            // Whoever ended says why as the last thing.
            for process in [&mut self.connect, &mut self.listen] {
                drop(process.wait(LAST_WORDS).await);
            }
        }
        anyhow!("{text}\n{}\n{}", self.connect.blame("said"), self.listen.blame("said"))
    }
}

/// The line with number `n`: long enough that a packet holds few of them.
fn line(n: u64) -> String {
    format!("{n:010} {:x<100}\n", n.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

async fn write(mut to: ChildStdin, mut stop: watch::Receiver<bool>) -> Result<u64> {
    let mut n = 0;
    while !*stop.borrow_and_update() {
        to.write_all(line(n).as_bytes()).await.context("write to the pipe")?;
        n += 1;
        sleep(LINE_PAUSE).await;
    }
    to.shutdown().await?;
    Ok(n)
}

async fn read(
    from: ChildStdout,
    mark: watch::Receiver<Option<Instant>>,
    report: watch::Sender<Arrivals>,
) -> Result<u64> {
    let mut from = BufReader::new(from);
    let mut n = 0;
    let mut text = String::new();
    while from.read_line(&mut text).await? > 0 {
        if text != line(n) {
            bail!("line {n} arrived as {text:?}");
        }
        text.clear();
        n += 1;
        let now = Instant::now();
        let moment = *mark.borrow();
        report.send_modify(|seen| {
            if moment.is_some_and(|moment| now > moment) {
                seen.longest = seen.longest.max(now - seen.last);
            }
            seen.last = now;
            seen.lines = n;
        });
    }
    Ok(n)
}
