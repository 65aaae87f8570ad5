use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::{Batch, Store};

const ENTRIES: u32 = 500;

fn write(store: &Store, batch: Batch) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.write(batch)).unwrap();
}

/// A closed file with entries of 4 and 2,000 bytes in one table and a single one in another.
fn filled() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = Store::open(&path).unwrap();
    let mut batch = Batch::new();
    for key in 0..ENTRIES {
        batch.put(Table::Entries, key.to_be_bytes().to_vec(), vec![1; 2_000]);
    }
    batch.put(Table::Heads, b"head".to_vec(), b"five!".to_vec());
    write(&store, batch);
    (dir, path)
}

#[test]
fn a_check_counts_and_changes_nothing() {
    let (_dir, path) = filled();
    let before = fs::read(&path).unwrap();
    let report = check(&path).unwrap();
    assert!(before == fs::read(&path).unwrap());
    assert_eq!((report.format, report.file_len), (migrate::FORMAT, before.len() as u64));
    assert!(report.unused_len < report.file_len, "{report:?}");
    assert_eq!(report.tables.len(), Table::ALL.len());
    for found in report.tables {
        let TableReport { table, entries, key_bytes, value_bytes } = found;
        let expect = match table {
            Table::Entries => (500, 2_000, 1_000_000),
            Table::Heads => (1, 4, 5),
            _ => (0, 0, 0),
        };
        assert_eq!((entries, key_bytes, value_bytes), expect, "{}", table.name());
    }
}

#[test]
fn an_export_hands_over_all_in_order_and_ends_at_an_error() {
    let (_dir, path) = filled();
    let mut found = Vec::new();
    let report = export::<StoreError>(&path, |table, key, value| {
        found.push((table, key.to_vec(), value.len()));
        Ok(())
    });
    assert_eq!(report.unwrap(), check(&path).unwrap());
    assert_eq!(found.len(), 501);
    assert!(found.is_sorted());
    assert_eq!(found[500], (Table::Heads, b"head".to_vec(), 5));
    let mut count = 0;
    let ended = export(&path, |_, _, _| {
        count += 1;
        Err(StoreError::Closed)
    });
    assert!(matches!(ended, Err(StoreError::Closed)));
    assert_eq!(count, 1);
}

#[test]
fn a_compaction_gives_room_back_and_keeps_what_is_there() {
    let (_dir, path) = filled();
    let store = Store::open(&path).unwrap();
    let mut batch = Batch::new();
    batch.remove_range(Table::Entries, 10u32.to_be_bytes().to_vec(), vec![255]);
    write(&store, batch);
    drop(store);
    let compacted = compact(&path).unwrap();
    assert!(compacted.after * 2 < compacted.before, "{compacted:?}");
    assert_eq!(compacted.after, path.metadata().unwrap().len());
    let report = check(&path).unwrap();
    assert_eq!((report.tables[5].entries, report.tables[6].entries), (10, 1));
    let store = Store::open(&path).unwrap();
    assert_eq!(store.scan_prefix(Table::Entries, &[0, 0, 0]).unwrap().count(), 10);
}

#[test]
fn what_is_damaged_in_use_or_absent_is_told() {
    let (dir, path) = filled();
    assert!(matches!(check(&dir.path().join("nothing")), Err(StoreError::Io { .. })));
    assert!(matches!(compact(&dir.path().join("nothing")), Err(StoreError::Io { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let store = Store::open(&path).unwrap();
    assert!(matches!(check(&path), Err(StoreError::InUse(_))));
    drop(store);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(2_000).position(|window| window == [1; 2_000]).unwrap();
    bytes[at] = 2;
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(check(&path), Err(StoreError::Damaged { .. })));
    assert!(matches!(compact(&path), Err(StoreError::Damaged { .. })));
    assert!(bytes == fs::read(&path).unwrap());
}
