//! A process that is killed in the middle of writing: nothing that it was told is on disk is lost.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use baran_store::{Batch, Store, Table};

/// Set in the process that writes: where.
const PATH: &str = "BARAN_STORE_CRASH";
/// Tells its lines from those of the test runner.
const MARK: &str = "on disk: ";

fn value(number: u64) -> Vec<u8> {
    number.to_be_bytes().repeat(1 + usize::try_from(number % 400).unwrap())
}

/// Writes one number after the other, with its value in one table and its successor in another,
/// and says so.
fn write_on(path: &Path) {
    let store = Store::open(path).unwrap();
    let first = store.scan(Table::Records).unwrap().count() as u64;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for number in first.. {
        let mut batch = Batch::new();
        batch.put(Table::Records, number.to_be_bytes().to_vec(), value(number));
        batch.put(Table::Own, b"next".to_vec(), (number + 1).to_be_bytes().to_vec());
        runtime.block_on(store.write(batch)).unwrap();
        let mut out = std::io::stdout();
        writeln!(out, "{MARK}{number}").and_then(|()| out.flush()).unwrap();
    }
}

#[test]
fn a_killed_process_loses_nothing_that_was_acknowledged() {
    if let Some(path) = std::env::var_os(PATH) {
        return write_on(path.as_ref());
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let mut acknowledged: Option<u64> = None;
    for round in 0..16 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_process_loses_nothing_that_was_acknowledged"])
            .args(["--nocapture", "--test-threads=1"])
            .env(PATH, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        // The runner may print the name of the test on the same line.
        let mut numbers = lines.filter_map(|line| line.split_once(MARK)?.1.parse().ok());
        if round % 2 == 0 {
            // Somewhere between its start and its first writes.
            std::thread::sleep(Duration::from_millis(round * 4));
        } else {
            for _ in 0..round * 4 {
                acknowledged = numbers.next();
                assert!(acknowledged.is_some(), "the writer ended in round {round}");
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died.
        acknowledged = numbers.last().or(acknowledged);

        let at_least = acknowledged.map_or(0, |number| number + 1);
        let store = Store::open(&path).unwrap();
        let found: Vec<_> = store.scan(Table::Records).unwrap().map(Result::unwrap).collect();
        let count = found.len() as u64;
        // One more may have been written and not yet acknowledged in each round.
        assert!((at_least..=at_least + 1 + round).contains(&count), "{at_least}, {count}");
        for (number, (key, found)) in (0..).zip(&found) {
            assert_eq!(key[..], u64::to_be_bytes(number));
            assert!(*found == value(number));
        }
        let next = store.read(Table::Own, b"next").unwrap();
        assert_eq!(next, (count > 0).then(|| count.to_be_bytes().to_vec()));
    }
}
