//! The database behind a store, opened anew when it broke.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use redb::{Database, ReadOnlyTable, ReadableDatabase};

use crate::error::StoreError;
use crate::file::{self, Raw};
use crate::{Batch, Scan, Table};

/// What the store and its writer share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Where the file is, or a name for the memory.
    path: PathBuf,
    can_reopen: bool,
    /// `None` from a failed write until somebody opens it anew.
    db: RwLock<Option<Database>>,
    commits: AtomicU64,
}

impl Shared {
    pub(crate) fn in_file(path: PathBuf, db: Database) -> Self {
        Self { path, can_reopen: true, db: RwLock::new(Some(db)), commits: AtomicU64::new(0) }
    }

    pub(crate) fn in_memory(db: Database) -> Self {
        Self { can_reopen: false, ..Self::in_file(PathBuf::from("memory"), db) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Runs `work` on the database. A panic of the database leaves nothing of ours half done, so
    /// a poisoned lock is as good as another.
    fn with_db<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if let Some(db) = self.db.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            return work(db);
        }
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        match db.as_ref() {
            // Somebody was as quick.
            Some(db) => work(db),
            None if self.can_reopen => work(db.insert(file::open_known(&self.path)?)),
            None => Err(StoreError::Closed),
        }
    }

    /// Writes `batches` in their order, all or none. On disk once it returns.
    pub(crate) fn commit(&self, batches: &[&Batch]) -> Result<(), StoreError> {
        let committed = self.with_db(|db| {
            commit(db, batches).map_err(StoreError::db("write", &self.path))?;
            self.commits.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        if let Err(error) = &committed {
            tracing::warn!(%error, "a write to the store failed");
            // Closes the file: the next one who comes opens it anew, and it goes back to the last
            // commit that is whole.
            drop(self.db.write().unwrap_or_else(PoisonError::into_inner).take());
        }
        committed
    }

    fn table(&self, table: Table) -> Result<ReadOnlyTable<Raw, Raw>, StoreError> {
        let open = |db: &Database| -> Result<_, redb::Error> {
            Ok(db.begin_read()?.open_table(table.definition())?)
        };
        self.with_db(|db| open(db).map_err(StoreError::db("read", &self.path)))
    }

    pub(crate) fn read(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.table(table)?.get(key).map_err(StoreError::db("read", &self.path))?;
        Ok(found.map(|value| value.value().to_vec()))
    }

    pub(crate) fn scan(self: &Arc<Self>, table: Table) -> Result<Scan, StoreError> {
        let range = self.table(table)?.range_owned::<Raw>(..);
        let range = range.map_err(StoreError::db("read", &self.path))?;
        Ok(Scan { range: Some(range), shared: Arc::clone(self) })
    }
}

fn commit(db: &Database, batches: &[&Batch]) -> Result<(), redb::Error> {
    let mut transaction = db.begin_write()?;
    transaction.set_two_phase_commit(true);
    for name in Table::ALL {
        let operations = batches.iter().flat_map(|batch| &batch.operations);
        let mut operations = operations.filter(|operation| operation.table == name).peekable();
        if operations.peek().is_none() {
            continue;
        }
        let mut table = transaction.open_table(name.definition())?;
        for operation in operations {
            let key = operation.key.as_slice();
            match &operation.value {
                Some(value) => drop(table.insert(key, value.as_slice())?),
                None => drop(table.remove(key)?),
            }
        }
    }
    Ok(transaction.commit()?)
}
