//! A disk without room: writes are refused with that reason, nothing that was acknowledged is
//! lost, and as soon as there is room again the store goes on by itself.
//!
//! The disk is a small tmpfs in a mount namespace of its own, for which the test runs itself
//! again under `unshare`. That takes root, real or of a user namespace.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

use std::fs;
use std::path::Path;
use std::process::Command;

use baran_store::{Batch, Store, StoreError, Table};

/// Set in the process with the small disk: where it is mounted.
const DISK: &str = "BARAN_STORE_DISK";

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    if let Some(disk) = std::env::var_os(DISK) {
        return on_small_disk(disk.as_ref());
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let status = command
        .args(["--mount", "--", "sh", "-ec"])
        .arg("mount -t tmpfs -o size=8m,mode=700 small \"$1\"; shift; exec \"$@\"")
        .arg("sh")
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_full_disk_refuses_and_loses_nothing", "--nocapture"])
        .env(DISK, dir.path())
        .status()
        .unwrap();
    assert!(status.success(), "{status}; this test needs root or user namespaces");
}

fn on_small_disk(disk: &Path) {
    let path = disk.join("store.redb");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let write = |store: &Store, key: u32, len: usize| {
        let mut batch = Batch::new();
        batch.put(Table::Records, key.to_be_bytes().to_vec(), vec![1; len]);
        runtime.block_on(store.write(batch))
    };
    let count = |store: &Store| store.scan(Table::Records).unwrap().map(Result::unwrap).count();

    // No room for a file at all.
    let ballast = disk.join("ballast");
    fill(&ballast);
    assert!(matches!(Store::open(&path), Err(StoreError::Full(_))));
    assert_eq!(fs::read_dir(disk).unwrap().count(), 1, "something was left behind");
    fs::remove_file(&ballast).unwrap();

    // Full while it runs.
    fs::write(&ballast, vec![0; 1_000_000]).unwrap();
    let store = Store::open(&path).unwrap();
    let mut written = 0;
    let error = loop {
        match write(&store, written, 100_000) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1_000, "the disk is not small");
    };
    assert!(matches!(error, StoreError::Full(_)), "{error}");
    assert!(error.to_string().contains("no room"), "{error}");
    assert!(written > 10, "{written}");
    let again = write(&store, written, 100_000);
    assert!(matches!(again, Err(StoreError::Full(_))), "{again:?}");
    assert_eq!(count(&store), usize::try_from(written).unwrap());

    // Room again.
    fs::remove_file(&ballast).unwrap();
    write(&store, written, 100_000).unwrap();
    for key in 0..written / 2 {
        let mut batch = Batch::new();
        batch.remove(Table::Records, key.to_be_bytes().to_vec());
        runtime.block_on(store.write(batch)).unwrap();
    }
    let expect = count(&store);
    assert_eq!(expect, usize::try_from(written - written / 2 + 1).unwrap());
    drop(store);

    // What is there can be opened and read on a disk that is full.
    fill(&ballast);
    let store = Store::open(&path).unwrap();
    assert_eq!(count(&store), expect);
    drop(store);
    fs::remove_file(&ballast).unwrap();
    assert_eq!(count(&Store::open(&path).unwrap()), expect);
}

/// Takes all the room that is left.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = fs::File::create(path).unwrap();
    while file.write_all(&[0; 4_096]).is_ok() {}
}
