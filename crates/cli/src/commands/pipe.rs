//! `baran pipe`: standard input and output as frames.
//!
//! The command ends well only if each side has written out all that the other one sent, and both
//! know it (see [`frame`](crate::daemon::frame)).

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;

use super::Ending;
use crate::args::{Global, PipeCommand};
use crate::daemon::client::{Client, Reader, Writer, message};
use crate::daemon::frame::{DATA_LEN_MAX, Frame, FrameReader, HEAD_LEN, Kind, head};
use crate::daemon::protocol::{Command, Message};
use crate::output::Output;
use crate::rate;
use crate::view::PipeEvent;

/// How often the progress is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// Longest wait for the node to say why it takes no more.
const REASON_MAX: Duration = Duration::from_secs(5);

/// Joins standard input and output with the peer's.
///
/// # Errors
///
/// If no peer is reached, or not everything was delivered.
pub(crate) async fn run(global: &Global, args: &PipeCommand, output: Output) -> Result<()> {
    let mut ending = Ending::new()?;
    let (node, command) = match args {
        PipeCommand::Listen { from, node } => {
            (node, Command::PipeListen { from: crate::view::texts(from) })
        }
        PipeCommand::Connect { to, timeout, node } => {
            (node, Command::PipeConnect { to: to.to_invite(), timeout_ms: timeout * 1_000 })
        }
    };
    let mut client = tokio::select! {
        client = Client::open(global, node, output) => client?,
        () = ending.wait() => bail!("interrupted"),
    };
    let result = tokio::select! {
        result = pipe(&mut client, command, output) => result,
        () = ending.wait() => Err(anyhow::anyhow!("interrupted")),
    };
    client.close().await;
    result
}

async fn pipe(client: &mut Client, command: Command, output: Output) -> Result<()> {
    client.request(command).await?;
    loop {
        match message(&mut client.reader).await? {
            Message::Listening(event) => output.item(&event)?,
            Message::Open(event) => {
                output.item(&event)?;
                break;
            }
            other => bail!("the node gave an unexpected answer: {other:?}"),
        }
    }
    let start = Instant::now();
    let count = Arc::new(Count::default());
    let progress = Progress::new(output, &count);
    let result = exchange(&mut client.reader, &mut client.writer, &count).await;
    drop(progress);
    result?;
    let seconds = (start.elapsed().as_secs_f64() * 1e3).round() / 1e3;
    let (sent, received) = count.both();
    // Whoever runs the command without a terminal reads the exit code.
    if output.is_json() || io::stderr().is_terminal() {
        output.item(&PipeEvent::Done { sent, received, seconds })?;
    }
    Ok(())
}

/// Bytes so far.
#[derive(Debug, Default)]
struct Count {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Count {
    fn both(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }
}

async fn exchange(reader: &mut Reader, writer: &mut Writer, count: &Count) -> Result<()> {
    let mut frames = FrameReader::new(reader);
    let writer = Mutex::new(writer);
    let both = tokio::try_join!(send(&writer, count), receive(&mut frames, &writer, count));
    if let Err(error) = both {
        if let Some(failure) = error.downcast_ref::<Local>() {
            let frame = Frame::new(Kind::Failed, &failure.0);
            // The peer may not read; what matters is said here.
            let mut writer = writer.lock().await;
            let told = async {
                writer.write_all(&frame.bytes).await?;
                writer.shutdown().await
            };
            drop(tokio::time::timeout(Duration::from_secs(2), told).await);
        }
        return Err(error);
    }
    writer.lock().await.shutdown().await.context("the node is gone")?;
    // The end comes once the peer's side has acknowledged ours.
    match frames.next().await? {
        None => Ok(()),
        Some(frame) => bail!("the end was not confirmed: {}", frame.text()),
    }
}

/// A failure on this side, which the peer is told.
#[derive(Debug)]
struct Local(String);

impl std::error::Error for Local {}

impl std::fmt::Display for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Sends standard input to its end.
async fn send(writer: &Mutex<&mut Writer>, count: &Count) -> Result<()> {
    let stdin = io::stdin().as_fd().try_clone_to_owned();
    let stdin = stdin.map_err(|error| broken("standard input", &error))?;
    let mut stdin = File::from_std(stdin.into());
    let mut buffer = vec![0; HEAD_LEN + DATA_LEN_MAX];
    loop {
        let read = stdin.read(&mut buffer[HEAD_LEN..]).await;
        let len = read.map_err(|error| broken("standard input", &error))?;
        if len == 0 {
            break;
        }
        buffer[..HEAD_LEN].copy_from_slice(&head(Kind::Data, len));
        put(writer, &buffer[..HEAD_LEN + len]).await?;
        count.sent.fetch_add(len as u64, Ordering::Relaxed);
    }
    put(writer, &Frame::new(Kind::End, "").bytes).await
}

async fn put(writer: &Mutex<&mut Writer>, bytes: &[u8]) -> Result<()> {
    let written = writer.lock().await.write_all(bytes).await;
    if written.is_err() {
        // Why it does not read any more comes from it, if from anywhere.
        tokio::time::sleep(REASON_MAX).await;
    }
    written.context("the node is gone")
}

/// Writes out what comes, to its end, and waits for the word that the peer did the same.
async fn receive(
    frames: &mut FrameReader<&mut Reader>,
    writer: &Mutex<&mut Writer>,
    count: &Count,
) -> Result<()> {
    let mut stdout = Some(take_stdout().map_err(|error| broken("standard output", &error))?);
    let mut is_done = false;
    while stdout.is_some() || !is_done {
        let frame = frames.next().await.context("the node is gone")?;
        let frame = frame.context("the node ended before everything was delivered")?;
        match (frame.kind, &mut stdout) {
            (Kind::Data, Some(out)) => {
                let written = async {
                    out.write_all(frame.payload()).await?;
                    out.flush().await
                };
                written.await.map_err(|error| broken("standard output", &error))?;
                let len = frame.payload().len() as u64;
                count.received.fetch_add(len, Ordering::Relaxed);
            }
            (Kind::End, Some(_)) => {
                // Whoever reads our standard output sees its end, too.
                stdout = None;
                // If the node does not read it, what the node says next tells why.
                let done = Frame::new(Kind::Done, "");
                drop(writer.lock().await.write_all(&done.bytes).await);
            }
            (Kind::Done, _) if !is_done => is_done = true,
            (Kind::Failed, _) => bail!("the peer gave up: {}", frame.text()),
            (Kind::Lost, _) => bail!("the pipe broke: {}", frame.text()),
            (Kind::Data | Kind::End | Kind::Done, _) => {
                bail!("the peer sent frames in a wrong order")
            }
        }
    }
    Ok(())
}

/// Standard output as a file that can be closed; `/dev/null` takes its place.
fn take_stdout() -> io::Result<File> {
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(null)?;
    Ok(File::from_std(stdout.into()))
}

fn broken(what: &str, error: &io::Error) -> anyhow::Error {
    Local(format!("{what} failed: {error}")).into()
}

/// Draws the amounts and their rates while it lives, if there is a terminal for it alone.
struct Progress {
    bar: Option<ProgressBar>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Progress {
    fn new(output: Output, count: &Arc<Count>) -> Self {
        let is_chat = io::stdin().is_terminal() && io::stdout().is_terminal();
        if output.is_json() || is_chat || !io::stderr().is_terminal() {
            return Self { bar: None, task: None };
        }
        let style = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}");
        let bar = ProgressBar::new_spinner();
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        let task = tokio::spawn(draw(bar.clone(), Arc::clone(count)));
        Self { bar: Some(bar), task: Some(task) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

async fn draw(bar: ProgressBar, count: Arc<Count>) {
    let mut ticks = tokio::time::interval(DRAW_EVERY);
    let (mut before, mut at) = (count.both(), Instant::now());
    loop {
        ticks.tick().await;
        let (both, elapsed) = (count.both(), at.elapsed());
        let rate = |now: u64, before: u64| {
            let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
            rate::human((now - before).saturating_mul(1_000) / ms)
        };
        bar.set_message(format!(
            "sent {} ({}/s), received {} ({}/s)",
            rate::human(both.0),
            rate(both.0, before.0),
            rate::human(both.1),
            rate(both.1, before.1),
        ));
        bar.tick();
        (before, at) = (both, Instant::now());
    }
}
