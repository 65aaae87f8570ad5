//! The database behind a store, opened anew when it broke.

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use redb::{Database, ReadOnlyTable, ReadableDatabase};

use crate::batch::{Change, Operation};
use crate::error::StoreError;
use crate::file::{self, Raw};
use crate::{Batch, Scan, Table};

/// For what a database is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// To write to it, which opening does already.
    Write,
    /// Without a write: whatever it would write stays in memory.
    Read,
}

/// Opens the database anew.
type Opener = Box<dyn Fn(Access) -> Result<Database, StoreError> + Send + Sync>;

/// What the store and its writer share.
pub(crate) struct Shared {
    /// Where the file is, or a name for what is none.
    path: PathBuf,
    opener: Opener,
    /// `None` from a failed write until somebody opens it anew.
    db: RwLock<Option<(Access, Database)>>,
    commits: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(
        path: &Path,
        db: Database,
        opener: impl Fn(Access) -> Result<Database, StoreError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            path: path.to_owned(),
            opener: Box::new(opener),
            db: RwLock::new(Some((Access::Write, db))),
            commits: AtomicU64::new(0),
        }
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
        access: Access,
        work: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let suffices = |opened| opened == Access::Write || opened == access;
        match self.db.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some((opened, db)) if suffices(*opened) => return work(db),
            _ => {}
        }
        let mut place = self.db.write().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have been as quick. What is open to read alone is closed first: it holds
        // the locks of the file.
        let opened = match place.take().filter(|(opened, _)| suffices(*opened)) {
            Some(opened) => opened,
            None => self.reopen(access)?,
        };
        work(&place.insert(opened).1)
    }

    fn reopen(&self, access: Access) -> Result<(Access, Database), StoreError> {
        match (self.opener)(Access::Write) {
            Err(error @ (StoreError::Full(_) | StoreError::Io { .. }))
                if access == Access::Read =>
            {
                tracing::debug!(%error, "the store can be read only");
                Ok((Access::Read, (self.opener)(Access::Read)?))
            }
            opened => Ok((Access::Write, opened?)),
        }
    }

    /// Writes `batches` in their order, all or none. On disk once it returns.
    pub(crate) fn commit(&self, batches: &[&Batch]) -> Result<(), StoreError> {
        let committed = self.with_db(Access::Write, |db| {
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
            Ok(db.begin_read()?.open_table(file::definition(table))?)
        };
        self.with_db(Access::Read, |db| open(db).map_err(StoreError::db("read", &self.path)))
    }

    pub(crate) fn read(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.table(table)?.get(key).map_err(StoreError::db("read", &self.path))?;
        Ok(found.map(|value| value.value().to_vec()))
    }

    /// The keys from `start` on that come before `end`; without an end, all that follow.
    pub(crate) fn scan(
        self: &Arc<Self>,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Result<Scan, StoreError> {
        let table = self.table(table)?;
        let range = range(start, end).map(|range| table.range_owned::<&[u8]>(range)).transpose();
        let range = range.map_err(StoreError::db("read", &self.path))?;
        Ok(Scan { range, shared: Arc::clone(self) })
    }
}

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// `None` if nothing can lie in it, which the database would take for a mistake.
fn range<'a>(start: &'a [u8], end: Option<&'a [u8]>) -> Option<Bounds<'a>> {
    match end {
        Some(end) => (start < end).then_some((Bound::Included(start), Bound::Excluded(end))),
        None => Some((Bound::Included(start), Bound::Unbounded)),
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
        let mut table = transaction.open_table(file::definition(name))?;
        for Operation { key, change, .. } in operations {
            let key = key.as_slice();
            match change {
                Change::Put(value) => drop(table.insert(key, value.as_slice())?),
                Change::Remove => drop(table.remove(key)?),
                Change::RemoveTo(end) => {
                    if let Some(range) = range(key, end.as_deref()) {
                        table.retain_in::<&[u8], _>(range, |_, _| false)?;
                    }
                }
            }
        }
    }
    Ok(transaction.commit()?)
}
