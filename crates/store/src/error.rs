//! What can go wrong with the store, told apart by what its user can do about it.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::private::{NotPrivate, OpenError};

/// Why the store cannot be opened, read or written.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// The file is not ours alone.
    #[error(transparent)]
    NotPrivate(#[from] NotPrivate),
    /// Another store has the file open, in this process or another.
    #[error("{} is in use by another process: stop it first", .0.display())]
    InUse(PathBuf),
    /// The file is something else. It was not touched.
    #[error("{} is not a store of baran: move it away or choose another --data", .0.display())]
    Foreign(PathBuf),
    /// A newer program wrote the file. It was not touched.
    #[error(
        "{} has format {found} and this program knows up to {known}: use the newer program, or \
         move the file away and put the backup of format {known} in its place, if there is one",
        .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this program knows.
        known: u32,
    },
    /// So many backups of an older format lie beside the file that no more are made. It was not
    /// touched.
    #[error(
        "{} is to be migrated from format {format}, and there are {max} backups of that: move \
         away those that you do not need", .path.display()
    )]
    Backups {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// Most backups of one format.
        max: u32,
    },
    /// The file is cut off or changed. If that came out when it was opened, it was not touched.
    #[error("{} is damaged ({reason}): move it away to start with an empty one", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// There is no room on the disk, or the user may not take more of it.
    #[error("no room on the disk for {}: make some, or choose another --data", .0.display())]
    Full(PathBuf),
    /// The system refused.
    #[error("{what} {}: {error}", .path.display())]
    Io {
        /// What was tried: `open`, `read`, ...
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        error: Arc<io::Error>,
    },
    /// The caller's mistake: more than the store takes. Nothing was changed.
    #[error("a {what} of {len} bytes is longer than {max}")]
    TooLarge {
        /// `key`, `value` or `batch`.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The longest that is taken, in bytes.
        max: usize,
    },
    /// The writer ended in the middle, or the file was opened anew while it was being read.
    #[error("the store was closed")]
    Closed,
}

impl StoreError {
    /// For `map_err` of calls to the system.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full(path.to_owned()),
            // No call of ours reads beyond the length that a whole file has.
            ErrorKind::UnexpectedEof => {
                Self::Damaged { path: path.to_owned(), reason: "it ends too soon".to_owned() }
            }
            _ => Self::Io { what, path: path.to_owned(), error: Arc::new(error) },
        }
    }

    /// For `map_err` of [`private::open`](crate::private::open).
    pub(crate) fn opening(path: &Path) -> impl FnOnce(OpenError) -> Self {
        move |error| match error {
            OpenError::NotPrivate(error) => error.into(),
            OpenError::Io(error) => Self::io("open", path)(error),
        }
    }

    /// For `map_err` of calls to the database.
    pub(crate) fn db<E: Into<redb::Error>>(
        what: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        move |error| match error.into() {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
                Self::InUse(path.to_owned())
            }
            redb::Error::DatabaseClosed => Self::Closed,
            redb::Error::Io(error) => Self::io(what, path)(error),
            // A read that comes between a failed write and the opening anew.
            error @ redb::Error::PreviousIo => Self::io(what, path)(io::Error::other(error)),
            redb::Error::Corrupted(reason) => Self::Damaged { path: path.to_owned(), reason },
            // Tables of other types, transactions of other programs: nothing that a file which
            // passed the inspection brings about.
            error => Self::Damaged { path: path.to_owned(), reason: error.to_string() },
        }
    }
}
