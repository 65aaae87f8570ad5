//! The steps of `cargo xtask test`.
//!
//! Cheap ones first, the lab last: it takes longest and needs the built binary. All cargo calls
//! name the whole workspace, because cargo chooses features per selection and another selection
//! would compile the dependencies a second time.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{self, Output, cargo};
use crate::runner::Step;
use crate::workspace::Workspace;
use crate::{deps, prepare, tidy};

/// All steps in the order in which they run.
pub(crate) const ALL: &[Step] = &[
    Step { name: "prepare", about: "what the checks need is here", run: |_| prepare::run() },
    Step { name: "fmt", about: "rustfmt would change nothing", run: fmt },
    Step { name: "tidy", about: "structure, words, wire hash", run: tidy::run },
    Step { name: "deps", about: "licences, sources, versions of dependencies", run: deps::run },
    Step { name: "clippy", about: "no warning in any target", run: clippy },
    Step { name: "build", about: "the binary baran", run: build },
    Step { name: "doc", about: "rustdoc without a warning", run: doc },
    Step { name: "doctest", about: "examples in the documentation", run: doctest },
    Step { name: "test", about: "unit, property and integration tests", run: test },
    Step { name: "lab", about: "the binary behind real NATs in network namespaces", run: lab },
];

/// The environment variable that tells the lab which binary to start.
const BINARY_VARIABLE: &str = "BARAN_BIN";

/// Runs the lab with a release build of the binary.
///
/// # Errors
/// If a build or the lab fails.
pub(crate) fn lab_release(workspace: &Workspace, args: &[String]) -> Result<()> {
    let root = &workspace.root;
    process::run(&mut cargo(root, &["build", "--release", "-p", "baran-cli", "--bin", "baran"]))?;
    let mut lab = cargo(root, &["run", "--release", "-p", "baran-lab", "--"]);
    lab.args(args).env(BINARY_VARIABLE, binary(workspace, "release")?);
    process::run(&mut lab)
}

fn fmt(workspace: &Workspace) -> Result<String> {
    run(workspace, &["fmt", "--all", "--", "--check"])
}

fn clippy(workspace: &Workspace) -> Result<String> {
    run(workspace, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

fn build(workspace: &Workspace) -> Result<String> {
    run(workspace, &["build", "--workspace", "--bin", "baran"])?;
    binary(workspace, "debug")?;
    Ok(String::new())
}

fn doc(workspace: &Workspace) -> Result<String> {
    // A library and a binary of one name write the same pages: the libraries come last and theirs
    // stay.
    for kind in [["--bin", "baran", "--bin", "xtask"].as_slice(), &["--lib"]] {
        let mut command = cargo(&workspace.root, &["doc", "--workspace", "--no-deps"]);
        process::run(command.args(kind).env("RUSTDOCFLAGS", "-D warnings"))?;
    }
    Ok(String::new())
}

fn doctest(workspace: &Workspace) -> Result<String> {
    libtest(&mut cargo(&workspace.root, &["test", "--workspace", "--doc"]))
}

fn test(workspace: &Workspace) -> Result<String> {
    let root = &workspace.root;
    let binary = dev_binary(workspace);
    if has_nextest(root) {
        let args = ["nextest", "run", "--workspace", "--no-fail-fast"];
        let mut command = cargo(root, &args);
        return nextest(
            command.args(["-E", "not package(baran-lab)"]).env(BINARY_VARIABLE, binary),
        );
    }
    let args = ["test", "--workspace", "--exclude", "baran-lab", "--no-fail-fast"];
    let mut command = cargo(root, &args);
    command.args(["--lib", "--bins", "--tests", "--examples"]).env(BINARY_VARIABLE, binary);
    libtest(&mut command)
}

fn lab(workspace: &Workspace) -> Result<String> {
    // Run alone, this step must not test yesterday's binary; after `build` this costs nothing.
    build(workspace)?;
    let root = &workspace.root;
    let binary = binary(workspace, "debug")?;
    // One at a time: the lab measures how long connections take.
    if has_nextest(root) {
        let args = ["nextest", "run", "--workspace", "--no-fail-fast", "--test-threads", "1"];
        let mut command = cargo(root, &args);
        return nextest(command.args(["-E", "package(baran-lab)"]).env(BINARY_VARIABLE, binary));
    }
    let args = ["test", "-p", "baran-lab", "--no-fail-fast", "--", "--test-threads", "1"];
    libtest(cargo(root, &args).env(BINARY_VARIABLE, binary))
}

fn run(workspace: &Workspace, args: &[&str]) -> Result<String> {
    process::run(&mut cargo(&workspace.root, args))?;
    Ok(String::new())
}

fn has_nextest(root: &Path) -> bool {
    process::read(&mut cargo(root, &["nextest", "--version"])).is_ok()
}

fn dev_binary(workspace: &Workspace) -> PathBuf {
    workspace.target.join("debug/baran")
}

/// The path of the built binary.
fn binary(workspace: &Workspace, profile: &str) -> Result<PathBuf> {
    let path = workspace.target.join(profile).join("baran");
    if !path.is_file() {
        bail!("the build ended well but left no {}", path.display());
    }
    Ok(path)
}

/// Runs nextest and returns its summary.
fn nextest(command: &mut Command) -> Result<String> {
    let is_summary = |line: &str| line.starts_with("Summary ");
    Ok(process::run_keeping(command, Output::Stderr, is_summary)?.join("; "))
}

/// Runs `cargo test` and returns the sum of its test programs' results.
fn libtest(command: &mut Command) -> Result<String> {
    let is_result = |line: &str| line.starts_with("test result: ");
    let lines = process::run_keeping(command, Output::Stdout, is_result)?;
    let [passed, failed, ignored] = ["passed", "failed", "ignored"].map(|word| sum(&lines, word));
    if ignored > 0 {
        bail!("{ignored} tests were ignored: a test that does not run proves nothing");
    }
    Ok(format!(
        "test result: ok. {passed} passed; {failed} failed; {ignored} ignored; {} test programs",
        lines.len()
    ))
}

/// Adds up the numbers before `word` in lines such as `test result: ok. 3 passed; 0 failed; …`.
fn sum(lines: &[String], word: &str) -> u64 {
    let number = |line: &String| {
        let before = line.split_once(word)?.0;
        before.split_whitespace().next_back()?.parse::<u64>().ok()
    };
    lines.iter().filter_map(number).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_test_programs_are_added_up() {
        let lines = [
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out".into(),
            "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered".into(),
        ];
        assert_eq!(sum(&lines, "passed"), 15);
        assert_eq!(sum(&lines, "failed;"), 1);
        assert_eq!(sum(&lines, "ignored"), 2);
    }

    #[test]
    fn the_lab_comes_last_and_names_are_unique() {
        let mut names: Vec<_> = ALL.iter().map(|step| step.name).collect();
        assert_eq!(names.last(), Some(&"lab"));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
