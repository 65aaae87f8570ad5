//! `baran store`: what is done with the store of a node that does not run.
//!
//! Each takes the lock of the data directory first, as a node does, so that none looks at a file
//! that changes below it.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use baran::data::{DataDir, DataError, DataLock};
use baran::store::{self, StoreError};
use data_encoding::{BASE64, HEXLOWER};
use serde::Serialize;

use crate::args::{Global, StoreCommand};
use crate::output::Output;
use crate::rate;

/// Name of the store in the data directory.
const STORE: &str = "store.redb";

/// `baran store COMMAND`.
///
/// # Errors
///
/// If there is no store, a node uses it, or it is damaged; nothing is changed then.
pub(crate) fn run(global: &Global, command: &StoreCommand, output: Output) -> Result<()> {
    let (path, _lock) = take(global)?;
    match command {
        StoreCommand::Check => check(&path, output),
        StoreCommand::Compact => compact(&path, output),
        StoreCommand::Export { file } => export(&path, file.as_deref(), output),
    }
}

/// The store's file, and the right to it as long as the lock is held. Makes neither.
fn take(global: &Global) -> Result<(PathBuf, DataLock)> {
    let dir = global.data.clone().unwrap_or_else(DataDir::default_path);
    let path = dir.join(STORE);
    if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        bail!("{} has no store yet: a node makes one when it first runs", dir.display());
    }
    let lock = DataDir::open(&dir)?.lock().map_err(|error| match error {
        error @ DataError::InUse { .. } => anyhow!(error)
            .context("`baran store` works on the store of a node that is stopped, and this runs"),
        error => error.into(),
    })?;
    Ok((path, lock))
}

fn check(path: &Path, output: Output) -> Result<()> {
    let report = store::check(path).map_err(|error| advise(error, path))?;
    let tables = report.tables.iter().map(|found| TableView {
        table: found.table.name(),
        entries: found.entries,
        key_bytes: found.key_bytes,
        value_bytes: found.value_bytes,
    });
    Ok(output.item(&CheckView {
        whole: true,
        format: report.format,
        file_bytes: report.file_len,
        unused_bytes: report.unused_len,
        tables: tables.collect(),
    })?)
}

fn compact(path: &Path, output: Output) -> Result<()> {
    let compacted = store::compact(path).map_err(|error| advise(error, path))?;
    Ok(output.item(&CompactView {
        before_bytes: compacted.before,
        after_bytes: compacted.after,
        freed_bytes: compacted.before.saturating_sub(compacted.after),
    })?)
}

fn export(path: &Path, file: Option<&Path>, output: Output) -> Result<()> {
    let Some(file) = file else {
        // What is there goes to the reader alone.
        return write_all(path, io::stdout()).context("export").map(|_| ());
    };
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(file);
    let opened = opened.with_context(|| format!("create {}", file.display()))?;
    let exported = write_all(path, &opened)
        .and_then(|entries| opened.sync_all().map(|()| entries).context("write"));
    if exported.is_err() {
        // A part of it is no export.
        drop(std::fs::remove_file(file));
    }
    let entries = exported.with_context(|| format!("export to {}", file.display()))?;
    let bytes = opened.metadata().as_ref().map_or(0, std::fs::Metadata::len);
    let file = file.display().to_string();
    Ok(output.item(&ExportView { file, entries, bytes })?)
}

/// Writes an object a line for every entry; how many there are.
fn write_all(path: &Path, to: impl Write + Send) -> Result<u64> {
    let mut to = BufWriter::new(to);
    let mut entries = 0;
    store::export(path, |table, key, value| -> Result<()> {
        let (key, value) = (HEXLOWER.encode(key), BASE64.encode(value));
        serde_json::to_writer(&mut to, &EntryView { table: table.name(), key, value })?;
        to.write_all(b"\n")?;
        entries += 1;
        Ok(())
    })
    .map_err(|error| match error.downcast::<StoreError>() {
        Ok(error) => advise(error, path),
        Err(error) => error,
    })?;
    to.flush()?;
    Ok(entries)
}

/// Adds to what is wrong with a store what its owner should know before moving it away.
fn advise(error: StoreError, path: &Path) -> anyhow::Error {
    if !matches!(error, StoreError::Damaged { .. }) {
        return error.into();
    }
    let backups = backups(path);
    let backup = if backups.is_empty() {
        String::new()
    } else {
        format!(", or put a backup in its place ({})", backups.join(", "))
    };
    anyhow!("{error}{backup}; the node's identity is not in it and stays")
}

/// Names of the backups beside the store.
fn backups(path: &Path) -> Vec<String> {
    let dir = path.parent().and_then(|dir| dir.read_dir().ok());
    let entries = dir.into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> =
        names.filter(|name| name.starts_with(&format!("{STORE}.format-"))).collect();
    names.sort();
    names
}

/// `baran store check`: what a whole store holds.
#[derive(Debug, Serialize)]
struct CheckView {
    whole: bool,
    format: u32,
    file_bytes: u64,
    unused_bytes: u64,
    tables: Vec<TableView>,
}

#[derive(Debug, Serialize)]
struct TableView {
    table: &'static str,
    entries: u64,
    key_bytes: u64,
    value_bytes: u64,
}

impl fmt::Display for CheckView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [file, unused] = [self.file_bytes, self.unused_bytes].map(rate::human);
        writeln!(f, "whole: {file}, {unused} of it unused, format {}", self.format)?;
        write!(f, "{:<12}{:>10}{:>14}", "table", "entries", "bytes")?;
        for TableView { table, entries, key_bytes, value_bytes } in &self.tables {
            write!(f, "\n{table:<12}{entries:>10}{:>14}", key_bytes + value_bytes)?;
        }
        Ok(())
    }
}

/// `baran store compact`.
#[derive(Debug, Serialize)]
struct CompactView {
    before_bytes: u64,
    after_bytes: u64,
    freed_bytes: u64,
}

impl fmt::Display for CompactView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes = [self.freed_bytes, self.before_bytes, self.after_bytes].map(rate::human);
        let [freed, before, after] = sizes;
        write!(f, "{freed} given back: {before} before, {after} after")
    }
}

/// `baran store export FILE`.
#[derive(Debug, Serialize)]
struct ExportView {
    file: String,
    entries: u64,
    bytes: u64,
}

impl fmt::Display for ExportView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries, {}, in {}", self.entries, rate::human(self.bytes), self.file)
    }
}

/// An entry in an export.
#[derive(Debug, Serialize)]
struct EntryView {
    table: &'static str,
    /// In hexadecimal.
    key: String,
    /// In base64.
    value: String,
}
