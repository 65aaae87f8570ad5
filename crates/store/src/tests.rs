use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use tokio::task::JoinSet;

use super::*;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap().block_on(future)
}

fn put(table: Table, key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(table, key.to_vec(), value.to_vec());
    batch
}

fn all(store: &Store, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    store.scan(table).unwrap().map(Result::unwrap).collect()
}

#[test]
fn operations_of_a_batch_take_effect_in_their_order() {
    let store = Store::in_memory();
    let mut batch = put(Table::Own, b"name", b"old");
    batch.remove(Table::Own, b"name".to_vec()).put(Table::Own, b"name".to_vec(), b"new".to_vec());
    batch.put(Table::Own, b"gone".to_vec(), Vec::new()).remove(Table::Own, b"gone".to_vec());
    batch.remove(Table::Records, b"never there".to_vec());
    run(store.write(batch)).unwrap();
    assert_eq!(store.read(Table::Own, b"name").unwrap().unwrap(), b"new");
    assert_eq!(store.read(Table::Own, b"gone").unwrap(), None);
    assert_eq!(store.read(Table::Records, b"name").unwrap(), None);
}

#[test]
fn a_scan_is_in_order_and_sees_the_moment_it_began() {
    let store = Store::in_memory();
    let mut batch = Batch::new();
    for key in [3u8, 1, 2] {
        batch.put(Table::Sequences, vec![key], vec![key; 3]);
    }
    run(store.write(batch)).unwrap();
    let scan = store.scan(Table::Sequences).unwrap();
    run(store.write(put(Table::Sequences, &[0], b""))).unwrap();
    let keys: Vec<_> = scan.map(|entry| entry.unwrap().0).collect();
    assert_eq!(keys, [[1], [2], [3]]);
    assert_eq!(all(&store, Table::Sequences).len(), 4);
    assert_eq!(all(&store, Table::Records), []);
}

#[test]
fn a_file_of_a_program_that_knew_fewer_tables_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = Store::open(&path).unwrap();
    run(store.write(put(Table::Own, b"name", b"value"))).unwrap();
    drop(store);
    let db = Database::open(&path).unwrap();
    let transaction = db.begin_write().unwrap();
    assert!(transaction.delete_table(Table::State.definition()).unwrap());
    transaction.commit().unwrap();
    drop(db);
    let store = Store::open(&path).unwrap();
    assert_eq!(all(&store, Table::State), []);
    assert_eq!(all(&store, Table::Own), [(b"name".to_vec(), b"value".to_vec())]);
}

#[test]
fn a_scan_outlives_the_store_without_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = Store::open(&path).unwrap();
    run(async {
        for key in 0..200u8 {
            store.write(put(Table::Records, &[key], &[key; 4_096])).await.unwrap();
        }
    });
    let mut scan = store.scan(Table::Records).unwrap();
    scan.next().unwrap().unwrap();
    drop(store);
    // The scan keeps the file open: whoever asks for it is told.
    assert!(matches!(Store::open(&path), Err(StoreError::InUse(_))));
    assert_eq!(scan.map(Result::unwrap).count(), 199);
    assert_eq!(all(&Store::open(&path).unwrap(), Table::Records).len(), 200);
}

#[test]
fn what_is_too_large_changes_nothing() {
    let store = Store::in_memory();
    let check = |batch: Batch, what: &str| {
        let refused = run(store.write(batch));
        assert!(matches!(refused, Err(StoreError::TooLarge { what: found, .. }) if found == what));
    };
    let mut batch = put(Table::Own, b"fits", b"");
    batch.put(Table::Own, vec![0; KEY_LEN_MAX + 1], Vec::new());
    check(batch, "key");
    check(put(Table::Own, b"key", &vec![0; VALUE_LEN_MAX + 1]), "value");
    let mut batch = Batch::new();
    for key in 0..=BATCH_LEN_MAX / OPERATION_LEN {
        batch.remove(Table::Own, key.to_be_bytes().to_vec());
    }
    check(batch, "batch");
    assert_eq!(all(&store, Table::Own), []);
    assert_eq!(store.commits(), 0);
    run(store.write(put(Table::Own, &[0; KEY_LEN_MAX], &vec![0; VALUE_LEN_MAX]))).unwrap();
}

#[test]
fn writers_at_once_share_commits() {
    let store = Store::in_memory();
    run(async {
        let mut tasks = JoinSet::new();
        for key in 0..1_000u32 {
            let store = store.clone();
            let batch = put(Table::Records, &key.to_be_bytes(), b"value");
            tasks.spawn(async move { store.write(batch).await });
        }
        while let Some(written) = tasks.join_next().await {
            written.unwrap().unwrap();
        }
    });
    assert_eq!(all(&store, Table::Records).len(), 1_000);
    let commits = store.commits();
    assert!((4..=200).contains(&commits), "{commits} commits for 1,000 writes of up to 256 each");
}

#[test]
fn more_than_the_queue_holds_waits_its_turn() {
    let store = Store::in_memory();
    run(async {
        let mut tasks = JoinSet::new();
        for key in 0..3 * QUEUE_LEN_MAX / VALUE_LEN_MAX {
            let store = store.clone();
            let batch = put(Table::Records, &key.to_be_bytes(), &vec![1; VALUE_LEN_MAX]);
            tasks.spawn(async move { store.write(batch).await });
        }
        while let Some(written) = tasks.join_next().await {
            written.unwrap().unwrap();
        }
    });
    assert_eq!(store.scan(Table::Records).unwrap().count(), 3 * QUEUE_LEN_MAX / VALUE_LEN_MAX);
}

/// A disk whose power fails: what was written since the last sync is on it in part.
#[derive(Debug)]
struct Disk {
    state: Arc<Mutex<DiskState>>,
    /// Highest number that a caller was told is on disk.
    acknowledged: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct DiskState {
    /// As the program sees it.
    seen: Vec<u8>,
    synced: Vec<u8>,
    /// Since the last sync: where, and what.
    pending: Vec<(usize, Vec<u8>)>,
    writes: u64,
    random: u64,
    /// What was left at some power failures, and what had been acknowledged before.
    failures: Vec<(Vec<u8>, u64)>,
    no_room: bool,
}

impl DiskState {
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// What is left if the power fails at this moment: of each sector of each pending write
    /// chance decides.
    fn fail(&mut self, acknowledged: u64) {
        const SECTOR: usize = 512;
        let mut left = self.synced.clone();
        left.resize(self.seen.len(), 0);
        let odds = self.random() % 5;
        for (offset, data) in self.pending.clone() {
            for (index, sector) in data.chunks(SECTOR).enumerate() {
                let start = offset + index * SECTOR;
                if self.random() % 4 < odds && start + sector.len() <= left.len() {
                    left[start..start + sector.len()].copy_from_slice(sector);
                }
            }
        }
        self.failures.push((left, acknowledged));
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.state.lock().unwrap().seen[start..start + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state.lock().unwrap().seen.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.synced = state.seen.clone();
        state.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let mut state = self.state.lock().unwrap();
        if state.no_room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let start = usize::try_from(offset).unwrap();
        state.seen[start..start + data.len()].copy_from_slice(data);
        state.pending.push((start, data.to_vec()));
        state.writes += 1;
        if state.writes.is_multiple_of(7) {
            state.fail(acknowledged);
        }
        Ok(())
    }
}

#[test]
fn what_was_acknowledged_survives_a_power_failure_at_any_write() {
    let state = Arc::new(Mutex::new(DiskState { random: 0x5eed, ..DiskState::default() }));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let disk = Disk { state: Arc::clone(&state), acknowledged: Arc::clone(&acknowledged) };
    let db = file::initialized(disk, Path::new("disk")).unwrap();
    state.lock().unwrap().failures.clear();
    let store = Store::in_database(db).unwrap();
    run(async {
        for number in 1..=60u64 {
            let mut batch = Batch::new();
            for table in Table::ALL {
                batch.put(table, number.to_be_bytes().to_vec(), vec![7; 3_000]);
                batch.remove(table, (number / 2).to_be_bytes().to_vec());
            }
            store.write(batch).await.unwrap();
            acknowledged.store(number, Ordering::SeqCst);
        }
    });
    drop(store);
    let failures = std::mem::take(&mut state.lock().unwrap().failures);
    assert!(failures.len() > 50, "{}", failures.len());
    for (left, acknowledged) in failures {
        let backend = InMemoryBackend::new();
        backend.set_len(left.len() as u64).unwrap();
        backend.write(0, &left).unwrap();
        let db = Database::builder()
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)
            .unwrap_or_else(|error| panic!("after {acknowledged}: {error}"));
        let store = Store::in_database(db).unwrap();
        let keys =
            |table| -> Vec<_> { all(&store, table).into_iter().map(|(key, _)| key).collect() };
        let found = keys(Table::Records);
        let last = found.last().map_or(0, |key| u64::from_be_bytes(key[..].try_into().unwrap()));
        // As a whole: the batch that was being written may be there or not.
        assert!(last == acknowledged || last == acknowledged + 1, "{last} of {acknowledged}");
        let expect: Vec<_> = (last / 2 + 1..=last).map(|key| key.to_be_bytes().to_vec()).collect();
        assert_eq!(found, expect);
        assert!(Table::ALL.into_iter().all(|table| keys(table) == expect));
    }
}

#[test]
fn a_write_that_finds_no_room_says_so() {
    let state = Arc::new(Mutex::new(DiskState { random: 1, ..DiskState::default() }));
    let disk = Disk { state: Arc::clone(&state), acknowledged: Arc::default() };
    let store = Store::in_database(file::initialized(disk, Path::new("disk")).unwrap()).unwrap();
    state.lock().unwrap().no_room = true;
    let refused = run(store.write(put(Table::Own, b"key", b"value")));
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
}

/// What a model of the store does with a batch.
fn apply(model: &mut BTreeMap<(Table, Vec<u8>), Vec<u8>>, batch: &Batch) {
    for Operation { table, key, value } in &batch.operations {
        match value {
            Some(value) => drop(model.insert((*table, key.clone()), value.clone())),
            None => drop(model.remove(&(*table, key.clone()))),
        }
    }
}

fn batch() -> impl Strategy<Value = Batch> {
    let table = prop::sample::select(Table::ALL.to_vec());
    let key = prop::collection::vec(0..3u8, 0..4);
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
    prop::collection::vec((table, key, value), 0..12).prop_map(|operations| {
        let mut batch = Batch::new();
        for (table, key, value) in operations {
            match value {
                Some(value) => batch.put(table, key, value),
                None => batch.remove(table, key),
            };
        }
        batch
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn it_does_what_a_map_does(batches in prop::collection::vec(batch(), 1..8)) {
        let store = Store::in_memory();
        let mut model = BTreeMap::new();
        run(async {
            for batch in batches {
                apply(&mut model, &batch);
                store.write(batch).await.unwrap();
            }
        });
        for table in Table::ALL {
            let found = all(&store, table);
            let expect = model.iter().filter(|((of, _), _)| *of == table);
            let expect: Vec<_> = expect.map(|((_, k), v)| (k.clone(), v.clone())).collect();
            prop_assert_eq!(&found, &expect);
            for (key, value) in expect {
                prop_assert_eq!(store.read(table, &key).unwrap(), Some(value));
            }
        }
    }
}
