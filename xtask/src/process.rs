//! Starting other programs: what is run is shown, and a failure names it.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Where administrators' programs (`nft`, `ip`) live: on Debian a plain user's `PATH` lacks them.
const ADMIN_DIRS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Variables that `cargo run` sets for this program and that a cargo started by it must not see:
/// build scripts (ring's is one) watch some of them and would run again at every change of hands.
const CARGO_PRIVATE: [&str; 6] = [
    "CARGO_BIN_",
    "CARGO_CRATE_NAME",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PRIMARY_PACKAGE",
    "OUT_DIR",
];

/// Makes a command for `cargo`, the one that runs this program if one does, in `root`.
pub(crate) fn cargo(root: &Path, args: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root).args(args).env("PATH", search_path());
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        if CARGO_PRIVATE.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end with our own input and output.
///
/// # Errors
/// If it cannot be started or does not end with success; the text names the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = announce(command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Which of a program's outputs to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout,
    Stderr,
}

/// Runs a command, passes on all that it prints and keeps the lines of one output that `keep`
/// wants, without their colours.
///
/// # Errors
/// As [`run`]; the lines kept that tell of a failure are part of the text.
pub(crate) fn run_keeping(
    command: &mut Command,
    output: Output,
    keep: fn(&str) -> bool,
) -> Result<Vec<String>> {
    let line = announce(command);
    if std::io::stderr().is_terminal() && std::env::var_os("CARGO_TERM_COLOR").is_none() {
        // The program sees a pipe and would leave the colours away.
        command.env("CARGO_TERM_COLOR", "always");
    }
    match output {
        Output::Stdout => command.stdout(Stdio::piped()),
        Output::Stderr => command.stderr(Stdio::piped()),
    };
    let mut child = command.spawn().with_context(|| format!("cannot start `{line}`"))?;
    let kept = match output {
        Output::Stdout => pass_on(child.stdout.take(), &mut std::io::stdout(), keep),
        Output::Stderr => pass_on(child.stderr.take(), &mut std::io::stderr(), keep),
    };
    let status = child.wait().with_context(|| format!("cannot wait for `{line}`"))?;
    let kept = kept?;
    if !status.success() {
        // `cargo test` says a line for each test program: those that are well are of no interest.
        let bad: Vec<_> = kept.into_iter().filter(|line| !line.contains(" ok. ")).collect();
        let separator = if bad.is_empty() { "" } else { ": " };
        bail!("`{line}` failed ({status}){separator}{}", bad.join("; "));
    }
    Ok(kept)
}

/// Runs a command without showing it and returns its standard output.
///
/// # Errors
/// If it fails; the text ends with what it printed on standard error.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let line = describe(command);
    let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed ({}): {}", output.status, said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed no UTF-8"))
}

/// Finds a program in `PATH` and in the administrators' directories.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path()).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// `PATH` with the administrators' directories behind it.
pub(crate) fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for dir in ADMIN_DIRS.map(PathBuf::from) {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    std::env::join_paths(dirs).unwrap_or(path)
}

fn announce(command: &Command) -> String {
    let line = describe(command);
    println!("$ {line}");
    line
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| quote(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

fn quote(word: &str) -> String {
    if word.contains([' ', '(', '*', '\'']) { format!("'{word}'") } else { word.to_owned() }
}

fn pass_on(
    from: Option<impl std::io::Read>,
    to: &mut impl Write,
    keep: fn(&str) -> bool,
) -> Result<Vec<String>> {
    let mut from = BufReader::new(from.context("the program's output is not piped")?);
    let mut kept = Vec::new();
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        let text = without_colours(&String::from_utf8_lossy(&line));
        if keep(text.trim()) {
            kept.push(text.trim().to_owned());
        }
        line.clear();
    }
    Ok(kept)
}

/// Removes the escape sequences `ESC [ … letter`.
fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' && chars.next_if_eq(&'[').is_some() {
            let _ = chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_removed() {
        assert_eq!(without_colours("\u{1b}[32;1m Summary\u{1b}[0m [x] 3"), " Summary [x] 3");
    }

    #[test]
    fn lines_are_kept_from_the_chosen_output_and_a_failure_names_the_command() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let keep = |line: &str| line.starts_with("kept");
        let mut good = shell("echo nothing; echo 'kept: good'");
        let kept = run_keeping(&mut good, Output::Stdout, keep).unwrap();
        assert_eq!(kept, ["kept: good"]);

        let mut bad = shell("echo 'kept: bad' >&2; exit 3");
        let error = run_keeping(&mut bad, Output::Stderr, keep).unwrap_err().to_string();
        assert!(error.starts_with("`sh -c "), "{error}");
        assert!(error.ends_with("kept: bad"), "{error}");
    }

    #[test]
    fn a_program_is_found_by_name() {
        assert!(find("sh").is_some());
        assert!(find("a-program-that-nobody-has").is_none());
    }
}
