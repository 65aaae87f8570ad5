//! A process that is killed in the middle of writing: nothing that it was told is on disk is lost.
//!
//! `cargo run --release -p baran-store --example crash_many` does it a thousand times.

mod support;

use std::process::Command;

use support::kills;

/// Set in the process that writes: where.
const PATH: &str = "BARAN_STORE_CRASH";

#[test]
fn a_killed_process_loses_nothing_that_was_acknowledged() {
    if let Some(path) = std::env::var_os(PATH) {
        return kills::write_on(path.as_ref());
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store.redb");
    let writer = || {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "a_killed_process_loses_nothing_that_was_acknowledged"]);
        command.args(["--nocapture", "--test-threads=1"]).env(PATH, &path);
        command
    };
    let outcome = kills::kill(40, 1, &path, writer, |_| {});
    assert!(outcome.acknowledged > 200, "{outcome:?}");
}
