//! Files that are not as they should be: refused with the reason, and left as they are.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use baran_store::private::NotPrivate;
use baran_store::{Batch, Store, StoreError, Table};
use redb::{Database, TableDefinition};
use tempfile::TempDir;

const ENTRIES: u32 = 300;

fn scratch() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    (dir, path)
}

fn write(store: &Store, batch: Batch) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.write(batch)).unwrap();
}

fn value(key: u32) -> Vec<u8> {
    key.to_be_bytes().repeat(50)
}

/// A store with something in it, after several commits.
fn filled(path: &Path) -> Store {
    let store = Store::open(path).unwrap();
    for part in 0..3 {
        let mut batch = Batch::new();
        for key in (0..ENTRIES).filter(|key| key % 3 == part) {
            batch.put(Table::Records, key.to_be_bytes().to_vec(), value(key));
        }
        write(&store, batch);
    }
    store
}

/// Whether all is there, or the reason why it cannot be opened.
fn open_all(path: &Path) -> Result<(), StoreError> {
    let store = Store::open(path)?;
    let found: Vec<_> = store.scan(Table::Records)?.collect::<Result<_, _>>()?;
    let expect: Vec<_> = (0..ENTRIES).map(|key| (key.to_be_bytes().to_vec(), value(key))).collect();
    assert!(found == expect, "{} entries", found.len());
    Ok(())
}

/// Opens a file that must be refused and must not change.
fn refusal(path: &Path) -> NotPrivate {
    match Store::open(path) {
        Err(StoreError::NotPrivate(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn refused(path: &Path) -> StoreError {
    let before = fs::read(path).unwrap();
    let error = Store::open(path).unwrap_err();
    assert!(before == fs::read(path).unwrap(), "{error}: the file changed");
    let text = error.to_string();
    assert!(text.contains(&*path.to_string_lossy()), "{text}");
    error
}

/// What a process leaves that is killed: the file as it is while it is open.
fn unclean_copy(path: &Path, copy: &Path) {
    let store = filled(path);
    fs::copy(path, copy).unwrap();
    drop(store);
}

#[test]
fn it_comes_up_for_its_owner_alone_and_stays() {
    let (dir, path) = scratch();
    drop(filled(&path));
    assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    open_all(&path).unwrap();
    open_all(&path).unwrap();
}

#[test]
fn what_a_crash_left_while_it_came_up_is_in_nobodys_way() {
    let (dir, path) = scratch();
    let new = dir.path().join("store.redb.new");
    fs::write(&new, b"half of a store").unwrap();
    fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
    drop(filled(&path));
    open_all(&path).unwrap();
    assert!(!new.exists());
}

#[test]
fn a_second_one_is_told_that_it_is_in_use() {
    let (_dir, path) = scratch();
    let store = filled(&path);
    assert!(matches!(Store::open(&path), Err(StoreError::InUse(_))));
    drop(store.clone());
    assert!(matches!(Store::open(&path), Err(StoreError::InUse(_))));
    drop(store);
    open_all(&path).unwrap();
}

#[test]
fn a_changed_byte_is_found_or_harmless() {
    let (dir, path) = scratch();
    let unclean = dir.path().join("unclean.redb");
    unclean_copy(&path, &unclean);
    let mut found = 0;
    for path in [path, unclean] {
        let whole = fs::read(&path).unwrap();
        // Of the header, which is read field by field, and of the pages. Its flags, in byte 9, are
        // left out: nothing protects the one that tells the last commit from the one before.
        let header = (0..320).step_by(7);
        for at in header.chain((320..whole.len()).step_by(whole.len() / 20)) {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            fs::write(&path, &changed).unwrap();
            match open_all(&path) {
                Ok(()) => {}
                Err(StoreError::Damaged { .. } | StoreError::Foreign(_)) => {
                    assert!(changed == fs::read(&path).unwrap(), "byte {at}: the file changed");
                    found += 1;
                }
                Err(error) => panic!("byte {at}: {error}"),
            }
        }
    }
    assert!(found > 20, "{found}");
}

#[test]
fn a_file_that_is_cut_off_is_damaged() {
    let (dir, path) = scratch();
    let unclean = dir.path().join("unclean.redb");
    unclean_copy(&path, &unclean);
    for path in [path, unclean] {
        let whole = fs::read(&path).unwrap();
        for len in [0, 9, 64, 319, 512, 4_096, 8_192, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..len]).unwrap();
            let error = refused(&path);
            assert!(matches!(error, StoreError::Damaged { .. }), "{len}: {error}");
        }
        fs::write(&path, &whole[..5]).unwrap();
        assert!(matches!(refused(&path), StoreError::Foreign(_)));
    }
}

#[test]
fn what_somebody_else_wrote_is_foreign() {
    let (_dir, path) = scratch();
    let other = |format: Option<&[u8]>| {
        drop(fs::remove_file(&path));
        let database = Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("baran");
        if let Some(format) = format {
            transaction.open_table(ABOUT).unwrap().insert("format", format).unwrap();
        }
        transaction.commit().unwrap();
        drop(database);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(refused(&path), StoreError::Foreign(_)));
    };
    other(None);
    // A table of the same name and another type.
    other(Some(b"1"));
    fs::write(&path, "my diary\n".repeat(1_000)).unwrap();
    assert!(matches!(refused(&path), StoreError::Foreign(_)));
    // Full of zeros, as some file systems leave what was not written out.
    fs::write(&path, [0; 50_000]).unwrap();
    assert!(matches!(refused(&path), StoreError::Foreign(_)));
}

#[test]
fn a_newer_one_is_refused_even_after_a_crash() {
    const ABOUT: TableDefinition<'_, &str, u32> = TableDefinition::new("baran");
    let (dir, path) = scratch();
    drop(filled(&path));
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(ABOUT).unwrap().insert("format", 2).unwrap();
    transaction.commit().unwrap();
    let unclean = dir.path().join("unclean.redb");
    fs::copy(&path, &unclean).unwrap();
    drop(database);
    for path in [path, unclean] {
        let error = refused(&path);
        assert!(matches!(error, StoreError::Newer { found: 2, known: 1, .. }), "{error}");
    }
}

#[test]
fn what_is_not_a_file_of_ours_is_refused() {
    let (dir, path) = scratch();
    fs::create_dir(&path).unwrap();
    assert!(matches!(refusal(&path), NotPrivate::WrongType { expected: "file", .. }));
    fs::remove_dir(&path).unwrap();
    let target = dir.path().join("target");
    symlink(&target, &path).unwrap();
    assert!(matches!(refusal(&path), NotPrivate::Symlink(_)));
    assert!(!target.exists());
    fs::remove_file(&path).unwrap();
    drop(filled(&path));
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(refusal(&path), NotPrivate::Mode { mode: 0o640, .. }));
    let nowhere = dir.path().join("no/such/directory/store.redb");
    assert!(matches!(Store::open(&nowhere), Err(StoreError::Io { what: "open", .. })));
}

#[test]
fn what_is_removed_makes_room_for_what_comes() {
    let (_dir, path) = scratch();
    let store = filled(&path);
    let mut lens = Vec::new();
    for round in 0..60u32 {
        let mut batch = Batch::new();
        for key in 0..ENTRIES {
            batch.remove(Table::Own, [round.wrapping_sub(1), key].map(u32::to_be_bytes).concat());
            batch.put(Table::Own, [round, key].map(u32::to_be_bytes).concat(), value(key));
        }
        write(&store, batch);
        lens.push(File::open(&path).unwrap().metadata().unwrap().len());
    }
    assert!(lens[59] <= lens[20] * 2, "{lens:?}");
    let mut start = [0; 4];
    File::open(&path).unwrap().read_exact_at(&mut start, 0).unwrap();
    assert_eq!(&start, b"redb");
}
