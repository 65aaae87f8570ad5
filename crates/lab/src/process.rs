//! Programs on hosts: started, listened to with time limits, always ended.
//!
//! Invariants: no program outlives its [`Process`] (killed on drop) nor the
//! thread that started it (parent-death signal by `setpriv`), so that a failed
//! test leaves nothing behind; no wait is unbounded; whatever fails shows the
//! end of the program's standard error.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::world::Host;

/// How many lines of standard error a failure shows.
const STDERR_LINES: usize = 25;

/// A program on a host.
pub struct Process {
    name: String,
    child: Child,
    stderr: PathBuf,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({}, {:?})", self.name, self.child.id())
    }
}

impl Process {
    /// Starts `program` with `args` on `host`; its standard error goes to
    /// `logs/NAME.stderr`, the other streams are pipes.
    ///
    /// # Errors
    ///
    /// If the program or its log cannot be opened.
    pub fn start(
        host: &Host,
        name: &str,
        logs: &Path,
        program: &Path,
        args: &[String],
    ) -> Result<Self> {
        let stderr = logs.join(format!("{name}.stderr"));
        let log = File::create(&stderr).with_context(|| stderr.display().to_string())?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(args)
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        let child = host.spawn(command).with_context(|| format!("start {name}"))?;
        Ok(Self { name: name.to_owned(), child, stderr })
    }

    /// The name it was started under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that holds its standard error.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.stderr
    }

    /// Takes the program's standard input; dropping it is the end of file.
    ///
    /// # Errors
    ///
    /// If it was taken before.
    pub fn take_stdin(&mut self) -> Result<ChildStdin> {
        self.child.stdin.take().context("standard input was taken")
    }

    /// Takes the program's standard output.
    ///
    /// # Errors
    ///
    /// If it was taken before.
    pub fn take_stdout(&mut self) -> Result<ChildStdout> {
        self.child.stdout.take().context("standard output was taken")
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// If the program has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.child.id().with_context(|| format!("{} has ended", self.name))?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// Waits for the end of the program.
    ///
    /// # Errors
    ///
    /// If it runs on; the message shows its standard error.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        match timeout(limit, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => Err(self.blame(&format!("still runs after {} s", limit.as_secs()))),
        }
    }

    /// Ends the program as `kill -9` does.
    ///
    /// # Errors
    ///
    /// If it has ended before.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("kill {}", self.name))
    }

    /// An error that says what the program did wrong, with the end of its
    /// standard error.
    #[must_use]
    pub fn blame(&self, what: &str) -> anyhow::Error {
        let text = std::fs::read_to_string(&self.stderr).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(STDERR_LINES)..].join("\n  ");
        anyhow!("{} {what}\n  {tail}", self.name)
    }
}

/// A program that writes one JSON object a line.
///
/// Standard output is drained all the time, so the program never blocks on it.
#[derive(Debug)]
pub struct JsonProcess {
    /// The program.
    pub process: Process,
    lines: mpsc::UnboundedReceiver<Result<Value, String>>,
    /// The last lines seen, for the message of a failure.
    seen: Vec<String>,
}

impl JsonProcess {
    /// As [`Process::start`]; standard input is closed at once.
    ///
    /// # Errors
    ///
    /// As [`Process::start`].
    pub fn start(
        host: &Host,
        name: &str,
        logs: &Path,
        program: &Path,
        args: &[String],
    ) -> Result<Self> {
        let mut process = Process::start(host, name, logs, program, args)?;
        drop(process.take_stdin()?);
        let mut reader = BufReader::new(process.take_stdout()?).lines();
        let (sender, lines) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = reader.next_line().await {
                let parsed = serde_json::from_str(&line).map_err(|_| line);
                if sender.send(parsed).is_err() {
                    break;
                }
            }
        });
        Ok(Self { process, lines, seen: Vec::new() })
    }

    /// The next object, or `None` at the end of the output.
    ///
    /// # Errors
    ///
    /// If none comes in time or a line is not JSON.
    pub async fn next(&mut self, limit: Duration) -> Result<Option<Value>> {
        match timeout(limit, self.lines.recv()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(value))) => {
                self.seen.push(value.to_string());
                if self.seen.len() > STDERR_LINES {
                    self.seen.remove(0);
                }
                Ok(Some(value))
            }
            Ok(Some(Err(line))) => {
                Err(self.blame(&format!("wrote a line that is not JSON: {line}")))
            }
            Err(_) => Err(self.blame(&format!("wrote nothing for {} s", limit.as_secs()))),
        }
    }

    /// Skips to the first object for which `is_it` holds.
    ///
    /// # Errors
    ///
    /// If it does not come in time, or the output ends.
    pub async fn until(
        &mut self,
        what: &str,
        limit: Duration,
        mut is_it: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next(left).await.with_context(|| format!("waiting for {what}"))? {
                Some(value) if is_it(&value) => return Ok(value),
                Some(_) => {}
                None => return Err(self.blame(&format!("ended before {what}"))),
            }
        }
    }

    /// Reads all that the program writes until it ends.
    ///
    /// # Errors
    ///
    /// If a line is not JSON or the program runs on.
    pub async fn finish(mut self, limit: Duration) -> Result<(Vec<Value>, ExitStatus)> {
        let deadline = Instant::now() + limit;
        let mut values = Vec::new();
        while let Some(value) =
            self.next(deadline.saturating_duration_since(Instant::now())).await?
        {
            values.push(value);
        }
        let status = self.process.wait(Duration::from_secs(10)).await?;
        Ok((values, status))
    }

    /// Ends the program as a user does who presses Ctrl-C or a service manager.
    ///
    /// # Errors
    ///
    /// If it takes longer than the 5 s that it may take, or ends with an error.
    pub async fn terminate(mut self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        let status = self.process.wait(Duration::from_secs(5)).await?;
        if !status.success() {
            bail!(self.blame(&format!("answered SIGTERM with {status}")));
        }
        Ok(())
    }

    /// As [`Process::blame`], with the last lines of output.
    #[must_use]
    pub fn blame(&self, what: &str) -> anyhow::Error {
        let seen = self.seen.join("\n  ");
        self.process.blame(&format!("{what}; its last output:\n  {seen}\n  standard error:"))
    }
}
