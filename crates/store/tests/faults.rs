//! Every write fails once, for each reason: nothing is acknowledged that is not there, what is
//! there can be read, and writing goes on as soon as the disk does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

mod support;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use baran_store::{Store, StoreError};
use support::disk::{Disk, Fault};
use support::work::{Model, batch};

/// Changes of the disk at which it fails, from the first on.
const CHANGES: u64 = 500;
/// Writers wait for others to come most of the time: so many at once.
const THREADS: usize = 24;
/// Batches within which there are as many changes.
const BATCHES: u64 = 200;

/// One run: the disk fails at its `at`th change.
fn run(fault: Fault) {
    let what = format!("{fault:?}");
    let disk = Disk::default();
    let handle = disk.clone();
    let store = Store::with_backend(Path::new("disk"), move || handle.clone()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let write = |number| runtime.block_on(store.write(batch(number)));
    let mut model = Model::default();
    let check = |model: &mut Model, least, most| {
        model.check(&store, least, most).unwrap_or_else(|error| panic!("{what}: {error}"));
    };
    disk.break_with(fault);
    let mut acknowledged = 0;
    let error = loop {
        match write(acknowledged + 1) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < BATCHES, "{what} did not come");
    };
    assert!(disk.has_failed(), "{what}: {error} out of nothing");
    let is_full = matches!(error, StoreError::Full(_));
    assert_eq!(is_full, fault.kind == ErrorKind::StorageFull, "{what}: {error}");
    // It can be read, as it is: with what failed or without it.
    check(&mut model, acknowledged, acknowledged + 1);
    if fault.lasts {
        assert!(write(acknowledged + 1).is_err(), "{what}: acknowledged by a broken disk");
        check(&mut model, acknowledged, acknowledged + 1);
    }
    disk.mend();
    for number in acknowledged + 1..=acknowledged + 3 {
        write(number).unwrap_or_else(|error| panic!("{what} is gone: {error}"));
    }
    drop(store);
    let store = Store::with_backend(Path::new("disk"), move || disk.clone()).unwrap();
    model.check(&store, acknowledged + 3, acknowledged + 3).unwrap();
}

/// Runs for each change, several at once.
fn at_each_change(kind: ErrorKind, lasts: bool) {
    let next = AtomicU64::new(1);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at > CHANGES {
                        break;
                    }
                    run(Fault { at, kind, lasts });
                }
            });
        }
    });
}

#[test]
fn a_single_error_at_any_of_500_changes_costs_one_batch() {
    at_each_change(ErrorKind::Other, false);
}

#[test]
fn a_disk_that_fails_for_a_while_at_any_of_500_changes_loses_nothing() {
    at_each_change(ErrorKind::Other, true);
}

#[test]
fn a_disk_that_is_full_at_any_of_500_changes_loses_nothing() {
    at_each_change(ErrorKind::StorageFull, true);
}

#[test]
fn a_disk_that_fails_while_the_store_comes_up_is_told() {
    for (kind, lasts) in
        [(ErrorKind::Other, false), (ErrorKind::Other, true), (ErrorKind::StorageFull, true)]
    {
        let mut refused = 0;
        for at in 1.. {
            let disk = Disk::default();
            disk.break_with(Fault { at, kind, lasts });
            let handle = disk.clone();
            let opened = Store::with_backend(Path::new("disk"), move || handle.clone());
            if !disk.has_failed() {
                break;
            }
            assert!(opened.is_err(), "{kind} at change {at}");
            refused += 1;
        }
        assert!(refused > 5, "{kind}: {refused}");
    }
}
