//! Kills a process that writes a thousand times: `crash_many [--kills N] [--seed S]`.
//!
//! It starts itself for the writer. The store lies in a directory of `TMPDIR`; a kill leaves what
//! was written in the system's cache, so the disk below it does not matter.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::process::Command;

const PATH: &str = "BARAN_STORE_CRASH";

fn main() {
    if let Some(path) = std::env::var_os(PATH) {
        return support::kills::write_on(path.as_ref());
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store.redb");
    let writer = || {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.env(PATH, &path);
        command
    };
    let (kills, seed) = (support::argument("--kills", 1_000), support::argument("--seed", 1));
    let outcome = support::kills::kill(kills, seed, &path, writer, |outcome| {
        if outcome.kills.is_multiple_of(100) {
            eprintln!("{outcome:?}");
        }
    });
    println!("nothing was lost: {outcome:?}");
}
