//! What a lab test needs before it can start, said in one line if it lacks.
//!
//! Namespaces need root, real or of a user namespace. A process that is not
//! root runs itself again under `unshare --user --map-root-user`, because a
//! process with threads (every test program) cannot enter a user namespace.

use std::env;
use std::future::Future;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Set in the process that was started under `unshare`.
const UNSHARED: &str = "BARAN_LAB_UNSHARED";

/// No test of the lab takes this long unless it hangs.
const TEST_LIMIT: Duration = Duration::from_secs(180);

/// For what takes milliseconds on a quiet machine and must come on any.
pub const SETTLE: Duration = Duration::from_secs(15);

/// Runs the body of a test of the lab on a runtime of its own, for three minutes at most.
///
/// # Errors
///
/// What the body returns; or, in one line, what this machine lacks.
pub fn test<F>(body: F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    test_within(TEST_LIMIT, body)
}

/// The same for a test that takes longer.
///
/// # Errors
///
/// As [`fn@test`].
pub fn test_within<F>(limit: Duration, body: F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    if needs_user_namespace() {
        let thread = std::thread::current();
        let name = thread.name().filter(|name| *name != "main");
        let name = name.context("run the lab's tests as root, or without --test-threads=1")?;
        let mut command = unshared()?;
        command.args(["--exact", name, "--nocapture"]);
        let status = command.status().context(HOW_TO_UNSHARE)?;
        return if status.success() { Ok(()) } else { bail!("failed in the user namespace") };
    }
    run(async {
        tokio::time::timeout(limit, body)
            .await
            .with_context(|| format!("still running after {} s", limit.as_secs()))?
    })
}

const HOW_TO_UNSHARE: &str =
    "the lab needs root or user namespaces (sysctl kernel.unprivileged_userns_clone=1)";

/// Checks the machine, then runs `body` on a small runtime.
///
/// # Errors
///
/// As [`fn@test`].
pub fn run<T>(body: impl Future<Output = Result<T>>) -> Result<T> {
    check_programs()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(body)
}

/// Replaces a process that is not root by itself, as root of a user namespace.
/// Call it first in `main`.
///
/// # Errors
///
/// If the kernel allows no user namespace.
pub fn become_root() -> Result<()> {
    if !needs_user_namespace() {
        return Ok(());
    }
    let mut command = unshared()?;
    command.args(env::args_os().skip(1));
    Err(command.exec()).context(HOW_TO_UNSHARE)
}

fn needs_user_namespace() -> bool {
    !nix::unistd::geteuid().is_root() && env::var_os(UNSHARED).is_none()
}

fn unshared() -> Result<Command> {
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "--"])
        .arg(env::current_exe().context("find this program")?)
        .env(UNSHARED, "1");
    Ok(command)
}

/// The programs that the lab starts, and the Debian packages that bring them.
const PROGRAMS: [(&str, &str); 5] = [
    ("nft", "nftables"),
    ("bridge", "iproute2"),
    ("setpriv", "util-linux"),
    ("conntrack", "conntrack"),
    ("faketime", "faketime"),
];

fn check_programs() -> Result<()> {
    let mut lacking: Vec<_> = PROGRAMS
        .into_iter()
        .filter(|(program, _)| !is_installed(program))
        .map(|(_, package)| package)
        .collect();
    lacking.dedup();
    if !lacking.is_empty() {
        bail!("the lab needs programs: apt-get install {}", lacking.join(" "));
    }
    Ok(())
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(program).is_file())
        || Path::new("/usr/sbin").join(program).is_file()
}

/// What must stand before a program so that its calendar is wrong by `offset` (`+1d`), while its
/// monotonic clock and the dates of its files stay right.
///
/// # Errors
///
/// If libfaketime is not where distributions have it.
pub fn wrong_clock(offset: &str) -> Result<Vec<String>> {
    // The wrapper `faketime` would be the program's parent, and outlive its death by signal.
    let lib = Path::new("/usr/lib");
    let mut dirs = vec![lib.join("faketime"), Path::new("/usr/lib64").join("faketime")];
    let architectures = lib.read_dir().into_iter().flatten().flatten();
    dirs.extend(architectures.map(|entry| entry.path().join("faketime")));
    let mut libraries = dirs.iter().map(|dir| dir.join("libfaketimeMT.so.1"));
    let library = libraries.find(|path| path.is_file());
    let library = library.context("no libfaketimeMT.so.1: apt-get install faketime")?;
    Ok(vec![
        "env".to_owned(),
        format!("LD_PRELOAD={}", library.display()),
        format!("FAKETIME={offset}"),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        "NO_FAKE_STAT=1".to_owned(),
    ])
}

/// A directory for one run: temporary, or kept below `BARAN_LAB_KEEP`.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Scratch {
    /// Makes the directory.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let Some(keep) = env::var_os("BARAN_LAB_KEEP") else {
            let temporary = tempfile::tempdir().context("make a temporary directory")?;
            return Ok(Self { path: temporary.path().to_owned(), _temporary: Some(temporary) });
        };
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let path = Path::new(&keep).join(name.chars().map(plain).collect::<String>());
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path, _temporary: None })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The binary under test: `BARAN_BIN`, else `baran` beside this program.
///
/// # Errors
///
/// If there is none, saying how to make one.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("BARAN_BIN") {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("BARAN_BIN names {}, which is no file", path.display());
        }
        return Ok(path);
    }
    let this = env::current_exe().context("find this program")?;
    // Tests lie in target/debug/deps, programs in target/debug.
    let mut beside = this.ancestors().skip(1).take(2).map(|dir| dir.join("baran"));
    beside
        .find(|path| path.is_file())
        .context("no baran binary: run `cargo build -p baran-cli` first, or set BARAN_BIN")
}
