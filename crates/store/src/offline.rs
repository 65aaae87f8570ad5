//! What is done with the file of a node that does not run: looked at, compacted, written out.
//!
//! Invariant: [`check`] and [`export`] leave every byte of the file as it is.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableError};

use crate::error::StoreError;
use crate::file::{self, Raw};
use crate::{Table, migrate};

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its format.
    pub format: u32,
    /// Its length in bytes.
    pub file_len: u64,
    /// Of these, bytes that hold nothing, which [`compact`] may give back: about what pages that
    /// are not in use take, and what those in use have left.
    pub unused_len: u64,
    /// Its tables, in the order of [`Table::ALL`]; one that it lacks is absent.
    pub tables: Vec<TableReport>,
}

/// What a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableReport {
    /// Which.
    pub table: Table,
    /// Entries in it.
    pub entries: u64,
    /// Bytes of its keys.
    pub key_bytes: u64,
    /// Bytes of its values.
    pub value_bytes: u64,
}

/// What [`compact`] did: lengths of the file in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Before.
    pub before: u64,
    /// After it.
    pub after: u64,
}

/// Reads all of the file at `path`, checks every sum in it, and counts. Blocks; changes nothing.
///
/// # Errors
///
/// As [`Store::open`](crate::Store::open), and if there is no file.
pub fn check(path: &Path) -> Result<Report, StoreError> {
    export(path, |_, _, _| Ok(()))
}

/// Does the same, and hands every entry to `each`: table, key, value, in the order of the tables
/// and of the keys.
///
/// # Errors
///
/// The first error of `each`, and those of [`check`]. A damaged file is found out before the first
/// entry is handed over.
pub fn export<E: From<StoreError> + Send>(
    path: &Path,
    mut each: impl FnMut(Table, &[u8], &[u8]) -> Result<(), E> + Send,
) -> Result<Report, E> {
    file::on_scratch(path, migrate::FORMAT, |db, format| {
        let mut tables = Vec::new();
        for table in Table::ALL {
            tables.extend(walk(db, table, path, &mut each)?);
        }
        let file_len = len(path)?;
        let used = used(db).map_err(StoreError::db("read", path))?;
        Ok(Report { format, file_len, unused_len: file_len.saturating_sub(used), tables })
    })
}

fn walk<E: From<StoreError>>(
    db: &Database,
    table: Table,
    path: &Path,
    each: &mut impl FnMut(Table, &[u8], &[u8]) -> Result<(), E>,
) -> Result<Option<TableReport>, E> {
    let transaction = db.begin_read().map_err(StoreError::db("read", path))?;
    let opened = match transaction.open_table(file::definition(table)) {
        // A program that did not know it wrote the file.
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        opened => opened.map_err(StoreError::db("read", path))?,
    };
    let mut report = TableReport { table, entries: 0, key_bytes: 0, value_bytes: 0 };
    for entry in opened.range::<Raw>(..).map_err(StoreError::db("read", path))? {
        let (key, value) = entry.map_err(StoreError::db("read", path))?;
        report.entries += 1;
        report.key_bytes += key.value().len() as u64;
        report.value_bytes += value.value().len() as u64;
        each(table, key.value(), value.value())?;
    }
    Ok(Some(report))
}

/// Bytes that all tables take, their trees included.
fn used(db: &Database) -> Result<u64, redb::Error> {
    let transaction = db.begin_read()?;
    let mut used = 0;
    for table in transaction.list_tables()? {
        // Of another name or type than ours: counted as it is.
        let stats = transaction.open_untyped_table(table)?.stats()?;
        used += stats.stored_bytes() + stats.metadata_bytes();
    }
    Ok(used)
}

fn len(path: &Path) -> Result<u64, StoreError> {
    Ok(path.metadata().map_err(StoreError::io("read", path))?.len())
}

/// Gives the room back that the file at `path` takes and does not need. Blocks. Whenever the
/// machine stops, nothing is lost.
///
/// # Errors
///
/// As [`Store::open`](crate::Store::open), and if there is no file. It needs some room for a while.
pub fn compact(path: &Path) -> Result<Compacted, StoreError> {
    let before = len(path)?;
    let mut db = file::open(path, migrate::STEPS)?;
    // Each pass moves what the one before could not.
    while db.compact().map_err(StoreError::db("compact", path))? {}
    db.close().map_err(StoreError::db("compact", path))?;
    Ok(Compacted { before, after: len(path)? })
}

#[cfg(test)]
mod tests;
