use std::collections::BTreeMap;
use std::future::Future;

use proptest::prelude::*;
use redb::Database;
use tokio::task::JoinSet;

use super::*;
use crate::batch::{Change, Operation};

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
    assert!(transaction.delete_table(file::definition(Table::State)).unwrap());
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

/// What a model of the store does with a batch.
fn apply(model: &mut BTreeMap<(Table, Vec<u8>), Vec<u8>>, batch: &Batch) {
    for Operation { table, key, change } in &batch.operations {
        match change {
            Change::Put(value) => drop(model.insert((*table, key.clone()), value.clone())),
            Change::Remove => drop(model.remove(&(*table, key.clone()))),
            Change::RemoveTo(end) => model.retain(|(of, at), _| {
                of != table || at < key || end.as_ref().is_some_and(|end| at >= end)
            }),
        }
    }
}

fn batch() -> impl Strategy<Value = Batch> {
    let table = prop::sample::select(Table::ALL.to_vec());
    let key = || prop::collection::vec(prop::sample::select(vec![0u8, 1, 255]), 0..4);
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
    prop::collection::vec((table, key(), key(), value, 0..6u8), 0..12).prop_map(|operations| {
        let mut batch = Batch::new();
        for (table, key, end, value, kind) in operations {
            match (kind, value) {
                (0, _) => batch.remove_prefix(table, key),
                (1, _) => batch.remove_range(table, key, end),
                (_, Some(value)) => batch.put(table, key, value),
                (_, None) => batch.remove(table, key),
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
            for prefix in [&b""[..], &[0], &[255], &[255, 255], &[0, 1], &[1, 255]] {
                let found: Vec<_> =
                    store.scan_prefix(table, prefix).unwrap().map(Result::unwrap).collect();
                let expect = expect.iter().filter(|(key, _)| key.starts_with(prefix));
                prop_assert_eq!(found, expect.cloned().collect::<Vec<_>>());
                let range = store.scan_range(table, prefix, &[1, 0]).unwrap();
                let found: Vec<_> = range.map(|entry| entry.unwrap().0).collect();
                let is_within = |key: &[u8]| key >= prefix && key < &[1, 0][..];
                let within = |(key, _): &(Vec<u8>, _)| is_within(key).then(|| key.clone());
                let all = all(&store, table);
                prop_assert_eq!(found, all.iter().filter_map(within).collect::<Vec<_>>());
            }
            for (key, value) in expect {
                prop_assert_eq!(store.read(table, &key).unwrap(), Some(value));
            }
        }
    }
}
