//! The data directory: who the node is, and that only one process is it.
//!
//! What lies in it is worth the node's identity, so nobody else may read or replace any of it:
//! the directory is 0700 and what is in it 0600, all of the user who runs the program, and none
//! of it a symbolic link. What was found looser is refused rather than repaired, because the
//! secret may have been read already; the error says what to do.
//!
//! | file | holds |
//! |---|---|
//! | `key` | the Ed25519 seed (RFC 8032 §5.1.5), 32 bytes |
//! | `lock` | the process id of whoever runs the node; locked (`flock`) as long as it runs |
//! | `daemon.sock` | the socket of the daemon, made by the daemon |
//! | `peers` | the peer cache ([`baran_proto::peers`]) |
//! | `peers.bad` | the last peer cache that could not be used |
//! | `port` | the UDP port of last time, as text |
//! | `serve` | what the owner lends, as text ([`ServeLimits`](crate::ServeLimits)) |
//!
//! Invariants: a key is whole or absent, whenever the machine stops; two processes that create it
//! at once end with the same one; at most one [`DataLock`] of a directory exists, and a crash
//! leaves none behind.

mod files;

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use baran_proto::id::{ID_LEN, SecretKey};
use baran_store::private::{self, NotPrivate, OpenError};
use rustix::fs::Access;
use thiserror::Error;

pub use self::files::Peers;

const KEY: &str = "key";
const LOCK: &str = "lock";
const SOCKET: &str = "daemon.sock";

/// Permissions that the owner needs on the directory.
const OWNER_BITS: u32 = 0o700;

/// How often, and how long apart, the process id is looked for in a lock that is held: its holder
/// writes it just after it took the lock.
const PID_TRIES: u32 = 20;
const PID_PAUSE: Duration = Duration::from_millis(10);

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum DataError {
    /// The directory or one of its files is not ours alone.
    #[error(transparent)]
    NotPrivate(#[from] NotPrivate),
    /// Nothing can be written into the directory.
    #[error(
        "{} cannot be written to: give yourself the right to or choose another --data",
        .0.display()
    )]
    Unwritable(PathBuf),
    /// The key is not one.
    #[error(
        "{} has {len} bytes and a key has {ID_LEN}: put a copy of the right one there, or remove \
         it to become somebody else", .path.display()
    )]
    KeyLength {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
    },
    /// Another process runs this node.
    #[error(
        "{} is in use by {}: stop it first or choose another --data",
        .dir.display(), holder(*.pid)
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process, if it told.
        pid: Option<u32>,
    },
    /// A file of settings says what cannot be.
    #[error("{}: {error}: correct the line or remove the file", .path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: crate::SettingError,
    },
    /// The system refused.
    #[error("{what} {}: {error}", .path.display())]
    Io {
        /// What was tried: `create`, `read`, ...
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl DataError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { what, path: path.to_owned(), error }
    }
}

/// An opened, checked data directory.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
}

impl DataDir {
    /// Where the data lies unless the user says otherwise: `$BARAN_DATA`, else
    /// `$XDG_DATA_HOME/baran`, else `~/.local/share/baran` (XDG Base Directory Specification 0.8).
    #[must_use]
    pub fn default_path() -> PathBuf {
        let var = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        default_path(
            var("BARAN_DATA").map(PathBuf::from),
            var("XDG_DATA_HOME").map(PathBuf::from),
            std::env::home_dir(),
        )
    }

    /// Opens the directory; makes it, for its owner alone, if there is none.
    ///
    /// # Errors
    ///
    /// If it cannot be made, is a symbolic link, is of another user, is open to others, or cannot
    /// be written to.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        // Without a slash at the end, which would make the system follow a symbolic link.
        let path: PathBuf = path.components().collect();
        let found = match path.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                create_dir(&path)?;
                path.symlink_metadata()
            }
            found => found,
        };
        let found = found.map_err(DataError::io("open", &path))?;
        if found.is_symlink() {
            return Err(NotPrivate::Symlink(path).into());
        }
        if !found.is_dir() {
            return Err(NotPrivate::WrongType { path, expected: "directory" }.into());
        }
        private::check(&path, &found)?;
        // The superuser passes every check of access: a lack of rights is still meant.
        let writable = rustix::fs::access(&path, Access::WRITE_OK | Access::EXEC_OK).is_ok();
        if found.mode() & OWNER_BITS != OWNER_BITS || !writable {
            return Err(DataError::Unwritable(path));
        }
        Ok(Self { path })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Loads the key, or makes one if there is none.
    ///
    /// # Errors
    ///
    /// If the file is a symbolic link, is of another user, is open to others, has another length,
    /// or cannot be read or made.
    pub fn secret(&self) -> Result<SecretKey, DataError> {
        let path = self.path.join(KEY);
        match load(&path) {
            Err(DataError::Io { error, .. }) if error.kind() == ErrorKind::NotFound => {
                self.create_key(&path)?;
                load(&path)
            }
            loaded => loaded,
        }
    }

    /// Writes a new key beside its place and links it there, which fails if one came up meanwhile:
    /// whoever links first decides.
    fn create_key(&self, path: &Path) -> Result<(), DataError> {
        let mut random = [0; ID_LEN + 8];
        getrandom::fill(&mut random).map_err(|error| DataError::Io {
            what: "draw random bytes for",
            path: path.to_owned(),
            error: error.into(),
        })?;
        let (seed, suffix) = random.split_at(ID_LEN);
        let suffix = suffix.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        let new = self.path.join(format!("{KEY}.new-{suffix:016x}"));
        let written = write_new(&new, seed).map_err(DataError::io("write", &new));
        let linked = written.and_then(|()| match std::fs::hard_link(&new, path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(DataError::io("create", path)(error))
            }
            _ => Ok(()),
        });
        drop(std::fs::remove_file(&new));
        linked?;
        self.sync()
    }

    /// Makes what was linked, renamed or removed last.
    fn sync(&self) -> Result<(), DataError> {
        let dir = File::open(&self.path).and_then(|dir| dir.sync_all());
        dir.map_err(DataError::io("save", &self.path))
    }

    /// Takes the directory for this process, until the lock is dropped or the process ends.
    ///
    /// # Errors
    ///
    /// [`DataError::InUse`] with the process that has it; others if the file cannot be used.
    pub fn lock(&self) -> Result<DataLock, DataError> {
        let path = self.path.join(LOCK);
        let mut options = OpenOptions::new();
        let mut file = open_checked(options.read(true).write(true).create(true), &path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DataError::InUse { dir: self.path.clone(), pid: read_pid(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(DataError::io("lock", &path)(error)),
        }
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(DataError::io("write", &path))?;
        Ok(DataLock { _file: file })
    }

    /// Where the daemon of this directory listens.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.path.join(SOCKET)
    }
}

/// The right to be this node, held by at most one process.
#[derive(Debug)]
pub struct DataLock {
    /// Closing it releases the lock. The file stays: removing it would let a third process lock
    /// another file of the same name while a second one still holds this one.
    _file: File,
}

fn default_path(baran: Option<PathBuf>, xdg: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    // The specification ignores relative paths.
    let xdg = xdg.filter(|path| path.is_absolute());
    let share = || home.unwrap_or_default().join(".local/share");
    baran.unwrap_or_else(|| xdg.unwrap_or_else(share).join("baran"))
}

fn create_dir(path: &Path) -> Result<(), DataError> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(DataError::io("create", parent))?;
    }
    match DirBuilder::new().mode(OWNER_BITS).create(path) {
        // Another process was as quick; what it made is checked as any other.
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(DataError::io("create", path)(error))
        }
        _ => Ok(()),
    }
}

/// Opens a file of the directory ([`private::open`]).
fn open_checked(options: &mut OpenOptions, path: &Path) -> Result<File, DataError> {
    private::open(options, path).map_err(|error| match error {
        OpenError::NotPrivate(error) => error.into(),
        OpenError::Io(error) => DataError::io("open", path)(error),
    })
}

fn load(path: &Path) -> Result<SecretKey, DataError> {
    let mut file = open_checked(OpenOptions::new().read(true), path)?;
    let len = file.metadata().map_err(DataError::io("read", path))?.len();
    if len != ID_LEN as u64 {
        return Err(DataError::KeyLength { path: path.to_owned(), len });
    }
    let mut seed = [0; ID_LEN];
    file.read_exact(&mut seed).map_err(DataError::io("read", path))?;
    Ok(SecretKey::from_bytes(seed))
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn read_pid(file: &mut File) -> Option<u32> {
    for _ in 0..PID_TRIES {
        let mut text = String::new();
        if file.rewind().and_then(|()| file.take(16).read_to_string(&mut text)).is_ok()
            && let Some(pid) = text.strip_suffix('\n')
        {
            return pid.parse().ok();
        }
        std::thread::sleep(PID_PAUSE);
    }
    None
}

#[cfg(test)]
mod tests;
