//! Runs the real `baran` over loopback. No wait is unbounded and no process outlives its test.

#![allow(dead_code, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything here takes unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// After which no process here lives on.
const LIFE: Duration = Duration::from_secs(60);

/// A data directory that exists as long as this, and the options of a node on loopback.
pub(crate) struct Home {
    dir: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// `baran COMMAND... --data DIR`.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = baran();
        command.args(words).arg("--data").arg(self.data());
        command
    }

    /// The same with what a node needs to live on loopback.
    pub(crate) fn node(&self, words: &[&str]) -> Command {
        let mut command = self.command(words);
        command.args(["--bind", "127.0.0.1:0", "--allow-net", "127.0.0.0/8"]);
        command
    }

    /// Starts `baran up --json`.
    pub(crate) fn up(&self, words: &[&str]) -> Daemon {
        Daemon::start(&mut self.node(&[&["up", "--json"], words].concat()))
    }

    pub(crate) fn id(&self) -> String {
        let output = finish(self.command(&["id"]).spawn_piped());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }
}

pub(crate) fn baran() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baran"));
    command.env_remove("BARAN_DATA").env_remove("RUST_BACKTRACE");
    command
}

pub(crate) trait SpawnPiped {
    fn spawn_piped(&mut self) -> Guard {
        self.spawn_with(Stdio::piped(), Stdio::piped(), Stdio::piped())
    }

    fn spawn_with(
        &mut self,
        stdin: impl Into<Stdio>,
        stdout: impl Into<Stdio>,
        stderr: impl Into<Stdio>,
    ) -> Guard;
}

impl SpawnPiped for Command {
    fn spawn_with(
        &mut self,
        stdin: impl Into<Stdio>,
        stdout: impl Into<Stdio>,
        stderr: impl Into<Stdio>,
    ) -> Guard {
        Guard::new(self.stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap())
    }
}

/// A process that is killed when dropped, and after a minute whatever waits for it.
pub(crate) struct Guard(pub(crate) Child, Sender<()>);

impl Guard {
    fn new(child: Child) -> Self {
        let pid = child.id().to_string();
        let (sender, end) = channel();
        std::thread::spawn(move || {
            if end.recv_timeout(LIFE) == Err(RecvTimeoutError::Timeout) {
                eprintln!("process {pid} hangs");
                drop(Command::new("kill").args(["-s", "KILL", &pid]).status());
            }
        });
        Self(child, sender)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for the end; the exit code.
    pub(crate) fn wait(&mut self, limit: Duration) -> i32 {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < deadline, "still runs after {limit:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Reads in a thread to the end.
pub(crate) fn drain(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// Writes in a thread; the stream ends with it.
pub(crate) fn feed(mut to: ChildStdin, bytes: Vec<u8>) -> JoinHandle<()> {
    std::thread::spawn(move || drop(to.write_all(&bytes)))
}

/// Closes standard input and waits for the end and all output.
pub(crate) fn finish(mut process: Guard) -> Output {
    drop(process.0.stdin.take());
    let stdout = drain(process.0.stdout.take().unwrap());
    let stderr = drain(process.0.stderr.take().unwrap());
    process.wait(PATIENCE);
    let status = process.0.wait().unwrap();
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// Runs a command with `--json`: its exit code and its lines, each of which must be an object.
pub(crate) fn json(command: &mut Command) -> (i32, Vec<Value>) {
    let output = finish(command.arg("--json").spawn_piped());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| {
        let value: Value = serde_json::from_str(line).unwrap();
        assert!(value.is_object(), "{line}");
        value
    });
    (output.status.code().unwrap_or(-1), lines.collect())
}

/// Runs a command that must fail with this exit code: what it writes to standard error.
pub(crate) fn failure(command: &mut Command, code: i32) -> String {
    let output = finish(command.spawn_piped());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

/// A process that writes JSON lines.
pub(crate) struct Daemon {
    pub(crate) process: Guard,
    lines: Receiver<Value>,
    pub(crate) id: String,
    pub(crate) invite: String,
    pub(crate) address: String,
}

impl Daemon {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut this = Self::read(command.spawn_piped());
        let event = this.until(|event| event["event"] == "listening");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        this.id = text(&event["id"]);
        this.invite = text(&event["invite"]);
        this.address = text(&event["addresses"][0]);
        this
    }

    /// Reads what a process writes that says nothing of itself.
    pub(crate) fn read(mut process: Guard) -> Self {
        let stdout = BufReader::new(process.0.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).expect("a JSON line");
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        let empty = String::new;
        Self { process, lines, id: empty(), invite: empty(), address: empty() }
    }

    /// Skips to the first event for which `is_it` holds.
    pub(crate) fn until(&mut self, mut is_it: impl FnMut(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(event) if is_it(&event) => return event,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("the event did not come"),
                Err(RecvTimeoutError::Disconnected) => panic!("{}", self.stderr()),
            }
        }
    }

    fn stderr(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.process.0.stderr.take() {
            drop(stderr.read_to_string(&mut text));
        }
        text
    }

    pub(crate) fn at(&self) -> String {
        format!("{}@{}", self.id, self.address)
    }

    /// Ends it as a service manager does.
    pub(crate) fn terminate(mut self) {
        self.process.signal("TERM");
        assert_eq!(self.process.wait(Duration::from_secs(5)), 0);
    }
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
