//! What a node must not forget when it restarts: the records that it keeps for others, the highest
//! sequences it saw, what it publishes itself, what it is and did, and the logs of its topics.
//!
//! Seven tables of bytes in one file, a `redb` database. The store knows nothing of what the bytes
//! mean and bounds neither their number nor their sum: whoever fills it does (the node's shard has
//! quotas).
//!
//! What is written is acknowledged once it is on disk. A commit costs two `fsync`, so one thread
//! commits whatever came within [`GROUP_WAIT`] together. The commits are two-phase: what lies in
//! the database comes from strangers, and the checksums that a one-phase commit relies on after a
//! crash are no obstacle to somebody who picks the contents. It also tells a torn commit, which is
//! taken back in silence, from damage, which is reported.
//!
//! Invariants: what was acknowledged survives a crash of the process and of the machine; a batch
//! is there as a whole or not at all; batches of one caller, awaited one after the other, come in
//! that order; a file that is foreign, newer or damaged is never changed; at most
//! [`QUEUE_LEN_MAX`] bytes wait to be written.
//!
//! Deviation from `redb`: it refuses everything after the first failed write until it is opened
//! anew. The store opens it anew by itself, so that a disk that was full for a while costs the
//! writes of that while and no restart. Opening writes; as long as the disk refuses even that, what
//! is there is read through a layer in memory.

mod batch;
mod error;
mod file;
mod migrate;
mod offline;
pub mod private;
mod scratch;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;

use redb::{OwnedRange, StorageBackend};

pub use self::batch::Batch;
pub use self::error::StoreError;
use self::file::Raw;
pub use self::offline::{Compacted, Report, TableReport, check, compact, export};
use self::shared::{Access, Shared};
use self::writer::Writer;
pub use self::writer::{GROUP_OPERATIONS, GROUP_WAIT, QUEUE_LEN_MAX};

/// Longest key, in bytes. A slot of the index takes 65.
pub const KEY_LEN_MAX: usize = 1_024;

/// Longest value, in bytes. A record of the index takes less than 4 KiB.
pub const VALUE_LEN_MAX: usize = 1024 * 1024;

/// Longest batch, in bytes of [`Batch::len`]: more than one batch of that length can wait.
pub const BATCH_LEN_MAX: usize = 4 * 1024 * 1024;

/// What an operation counts for besides its key and value, in bytes: about what it takes in memory.
const OPERATION_LEN: usize = 64;

/// Where in the store something lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// The records that this node keeps for others, by slot.
    Records,
    /// The highest sequence seen, by slot, and until when it is to be remembered.
    Sequences,
    /// What this node publishes itself, and with which sequence.
    Own,
    /// Single values, by name: what the node is lent, what it served today.
    State,
    /// What this node holds of a topic (who may do what, its settings), by topic.
    Topics,
    /// Entries of logs, by topic (32 bytes), author (32) and sequence (8, big-endian).
    Entries,
    /// What is known of each author beside its entries (the end of its log, its capability, whether
    /// it is in quarantine), by topic (32 bytes) and author (32).
    Heads,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Records,
        Self::Sequences,
        Self::Own,
        Self::State,
        Self::Topics,
        Self::Entries,
        Self::Heads,
    ];

    /// Its name in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Sequences => "sequences",
            Self::Own => "own",
            Self::State => "state",
            Self::Topics => "topics",
            Self::Entries => "entries",
            Self::Heads => "heads",
        }
    }
}

/// The store. Clones share it; the last one that is dropped waits until everything that was handed
/// over is written, and closes the file unless a [`Scan`] is still using it.
#[derive(Debug, Clone)]
pub struct Store {
    // Dropped in this order: the writer uses the database until it ends.
    writer: Arc<Writer>,
    shared: Arc<Shared>,
}

impl Store {
    /// Opens the store at `path`, or makes an empty one, readable by its owner alone, if there is
    /// none. Reads all of it to see that it is whole, so it takes a while and blocks.
    ///
    /// A file of an older format is copied to `PATH.format-N.backup` before it is changed.
    ///
    /// Whoever calls it has the data directory for itself.
    ///
    /// # Errors
    ///
    /// If the file is not ours alone, is in use, foreign, damaged or of a newer program, or if the
    /// system refuses. What is foreign, damaged or newer is left as it is.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let db = file::open(path, migrate::STEPS)?;
        let own = path.to_owned();
        Self::start(Shared::new(path, db, move |access| match access {
            Access::Write => file::open_known(&own),
            Access::Read => file::open_over(file::backend(&own)?, &own),
        }))
    }

    /// A store that is gone when the process ends.
    ///
    /// # Panics
    ///
    /// If the system gives no thread.
    #[must_use]
    pub fn in_memory() -> Self {
        let name = Path::new("memory");
        let db = file::initialized(redb::backends::InMemoryBackend::new(), name);
        let shared =
            Shared::new(name, db.expect("memory has no errors"), |_| Err(StoreError::Closed));
        Self::start(shared).expect("the system gives a thread")
    }

    /// A store on a medium of the caller's making, for tests of what disks do: `backend` gives
    /// another handle of the same medium each time. An empty medium is initialized; errors call
    /// it `name`.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn with_backend<B: StorageBackend>(
        name: &Path,
        backend: impl Fn() -> B + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let db = match backend().len().map_err(StoreError::io("open", name))? {
            0 => file::initialized(backend(), name)?,
            _ => {
                file::inspect_over(backend(), name, migrate::FORMAT)?;
                file::open_backend(backend(), name)?
            }
        };
        let own = name.to_owned();
        Self::start(Shared::new(name, db, move |access| match access {
            Access::Write => file::open_backend(backend(), &own),
            Access::Read => file::open_over(backend(), &own),
        }))
    }

    fn start(shared: Shared) -> Result<Self, StoreError> {
        let shared = Arc::new(shared);
        Ok(Self { writer: Arc::new(Writer::start(&shared)?), shared })
    }

    /// Writes `batch`. When this returns `Ok`, it is on disk.
    ///
    /// Waits as long as [`QUEUE_LEN_MAX`] bytes are waiting already. If the future is dropped, the
    /// batch may be written or not.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`] changes nothing. After any other error the batch may be on disk
    /// or not, as a whole; writing it once more is right as soon as the cause is gone.
    pub async fn write(&self, batch: Batch) -> Result<(), StoreError> {
        batch.check()?;
        if batch.is_empty() {
            return Ok(());
        }
        self.writer.write(batch).await
    }

    /// What is at `key`. Blocks as long as the disk takes.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn read(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.shared.read(table, key)
    }

    /// Everything in `table` as it is at this moment, in the order of the keys. Blocks as long as
    /// the disk takes, here and with each step. Whatever is removed meanwhile takes room on disk
    /// until the scan is dropped.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn scan(&self, table: Table) -> Result<Scan, StoreError> {
        self.shared.scan(table, &[], None)
    }

    /// Everything in `table` whose key begins with `prefix`, as [`Store::scan`] has it.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn scan_prefix(&self, table: Table, prefix: &[u8]) -> Result<Scan, StoreError> {
        self.shared.scan(table, prefix, batch::after_prefix(prefix).as_deref())
    }

    /// Everything in `table` with a key from `start` on that comes before `end`, as
    /// [`Store::scan`] has it. Nothing if `end` is not after `start`.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn scan_range(&self, table: Table, start: &[u8], end: &[u8]) -> Result<Scan, StoreError> {
        self.shared.scan(table, start, Some(end))
    }

    /// How many times something was written to disk.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.shared.commits()
    }
}

/// A walk through a table: keys and values. Ends after the first error.
pub struct Scan {
    range: Option<OwnedRange<Raw, Raw>>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").finish_non_exhaustive()
    }
}

impl Iterator for Scan {
    type Item = Result<(Vec<u8>, Vec<u8>), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.range.as_mut().and_then(Iterator::next);
        if !matches!(next, Some(Ok(_))) {
            self.range = None;
        }
        Some(match next? {
            Ok((key, value)) => Ok((key.value().to_vec(), value.value().to_vec())),
            Err(error) => Err(StoreError::db("read", self.shared.path())(error)),
        })
    }
}
