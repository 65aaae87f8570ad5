use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use redb::TableDefinition;
use tempfile::TempDir;

use super::*;
use crate::file::{self, definition};
use crate::{Batch, Store, Table, offline};

/// A format that exists in these tests alone: what this node publishes has a byte more.
fn lengthen(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    let mut own = transaction.open_table(definition(Table::Own))?;
    let mut value = own.remove(&b"name"[..])?.map(|value| value.value().to_vec()).unwrap();
    value.push(b'!');
    own.insert(&b"name"[..], &value[..])?;
    Ok(())
}

/// One more.
fn note(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(definition(Table::State))?.insert(&b"noted"[..], &b""[..])?;
    Ok(())
}

/// A step that changes something and fails.
fn fail(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    lengthen(transaction)?;
    Err(redb::Error::Io(io::Error::other("the disk fell off")))
}

const NEXT: &[Step] = &[lengthen];
const AFTER_NEXT: &[Step] = &[lengthen, note];

/// A file of format 1.
fn old() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = Store::open(&path).unwrap();
    let mut batch = Batch::new();
    batch.put(Table::Own, b"name".to_vec(), b"value".to_vec());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.write(batch)).unwrap();
    (dir, path)
}

fn read(db: &Database, table: Table, key: &[u8]) -> Option<Vec<u8>> {
    use redb::ReadableDatabase as _;
    let table = db.begin_read().unwrap().open_table(definition(table)).unwrap();
    table.get(key).unwrap().map(|value| value.value().to_vec())
}

/// The value in a file whose newest format is that of `steps`.
fn value(path: &Path, steps: &[Step]) -> Vec<u8> {
    let format = file::on_scratch(path, newest(steps), |_, format| Ok::<_, StoreError>(format));
    assert_eq!(format.unwrap(), newest(steps));
    read(&file::open(path, steps).unwrap(), Table::Own, b"name").unwrap()
}

fn names(dir: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(dir.path()).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_of_an_older_format_is_copied_and_migrated() {
    let (dir, path) = old();
    let before = fs::read(&path).unwrap();
    let db = file::open(&path, AFTER_NEXT).unwrap();
    assert_eq!(read(&db, Table::Own, b"name").unwrap(), b"value!");
    assert_eq!(read(&db, Table::State, b"noted").unwrap(), b"");
    drop(db);
    assert_eq!(names(&dir), ["store.redb", "store.redb.format-1.backup"]);
    let backup = dir.path().join("store.redb.format-1.backup");
    assert!(fs::read(&backup).unwrap() == before);
    assert_eq!(backup.metadata().unwrap().mode() & 0o7777, 0o600);
    // Once is enough, and the backup is a store.
    assert_eq!(value(&path, AFTER_NEXT), b"value!");
    assert_eq!(names(&dir).len(), 2);
    assert_eq!(value(&backup, STEPS), b"value");
}

#[test]
fn only_the_steps_that_are_missing_are_taken() {
    let (dir, path) = old();
    drop(file::open(&path, NEXT).unwrap());
    drop(file::open(&path, AFTER_NEXT).unwrap());
    assert_eq!(value(&path, AFTER_NEXT), b"value!");
    let backups = ["store.redb.format-1.backup", "store.redb.format-2.backup"];
    assert_eq!(names(&dir)[1..], backups);
    assert_eq!(value(&dir.path().join(backups[1]), NEXT), b"value!");
}

#[test]
fn a_step_that_fails_changes_nothing() {
    let (dir, path) = old();
    for _ in 0..2 {
        let failed = file::open(&path, &[fail]).unwrap_err();
        assert!(failed.to_string().contains("the disk fell off"), "{failed}");
    }
    assert_eq!(value(&path, STEPS), b"value");
    assert_eq!(value(&dir.path().join("store.redb.format-1.backup"), STEPS), b"value");
    drop(file::open(&path, NEXT).unwrap());
    assert_eq!(value(&path, NEXT), b"value!");
}

#[test]
fn no_backup_takes_the_place_of_another() {
    let (dir, path) = old();
    let other = dir.path().join("store.redb.format-1.backup");
    fs::write(&other, b"of last year").unwrap();
    // Left over from a machine that stopped.
    let new = dir.path().join("store.redb.backup.new");
    fs::write(&new, b"half").unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    let before = fs::read(&path).unwrap();
    let second = back_up(&path, 1).unwrap();
    assert_eq!(second, dir.path().join("store.redb.format-1.backup-2"));
    assert!(fs::read(&second).unwrap() == before);
    // Nothing was changed since: it will do.
    assert_eq!(back_up(&path, 1).unwrap(), second);
    assert_eq!(fs::read(&other).unwrap(), b"of last year");
    assert_eq!(names(&dir).len(), 3);
}

#[test]
fn without_a_backup_there_is_no_migration() {
    let (dir, path) = old();
    for number in 1..=BACKUPS_MAX {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        fs::write(dir.path().join(format!("store.redb.format-1.backup{suffix}")), b"x").unwrap();
    }
    let before = fs::read(&path).unwrap();
    let refused = file::open(&path, NEXT).unwrap_err();
    assert!(matches!(refused, StoreError::Backups { format: 1, max: 8, .. }), "{refused}");
    assert!(fs::read(&path).unwrap() == before);
    assert_eq!(names(&dir).len(), 9);
}

#[test]
fn a_newer_file_is_left_alone_by_all_that_look_at_it() {
    let (dir, path) = old();
    drop(file::open(&path, NEXT).unwrap());
    let before = fs::read(&path).unwrap();
    let is_newer = |error: StoreError| {
        assert!(matches!(error, StoreError::Newer { found: 2, known: 1, .. }), "{error}");
        assert!(error.to_string().contains("use the newer program"), "{error}");
    };
    is_newer(Store::open(&path).unwrap_err());
    is_newer(offline::check(&path).unwrap_err());
    is_newer(offline::compact(&path).unwrap_err());
    assert!(fs::read(&path).unwrap() == before);
    assert_eq!(names(&dir).len(), 2);
}

#[test]
fn a_file_of_format_0_is_nobodys() {
    const ABOUT: TableDefinition<'_, &str, u32> = TableDefinition::new("baran");
    let (_dir, path) = old();
    let db = Database::open(&path).unwrap();
    let transaction = db.begin_write().unwrap();
    transaction.open_table(ABOUT).unwrap().insert("format", 0).unwrap();
    transaction.commit().unwrap();
    drop(db);
    assert!(matches!(file::open(&path, NEXT), Err(StoreError::Foreign(_))));
}
