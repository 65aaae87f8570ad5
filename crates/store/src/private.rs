//! Files and directories that nobody but their owner may use.
//!
//! A node's secrets lie in them, so whatever is found looser is refused, not repaired: it may have
//! been read already. A symbolic link is never followed, or somebody else would choose the place.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use thiserror::Error;

/// Permissions that anybody but the owner could use.
const FOREIGN_BITS: u32 = 0o077;

/// Why something is not ours alone.
#[derive(Debug, Clone, Error)]
pub enum NotPrivate {
    /// A symbolic link stands in its place.
    #[error("{} is a symbolic link: give the place that it leads to", .0.display())]
    Symlink(PathBuf),
    /// Something else stands in its place.
    #[error("{} is not a {expected}: move it away or choose another --data", .path.display())]
    WrongType {
        /// What it is about.
        path: PathBuf,
        /// `directory` or `file`.
        expected: &'static str,
    },
    /// It belongs to another user.
    #[error(
        "{} belongs to user {owner} and this is user {user}: run as its owner or choose another \
         --data", .path.display()
    )]
    Owner {
        /// What it is about.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// Others may read or write it.
    #[error(
        "others may use {} (mode {mode:04o}): run `chmod {} {}` if nobody did", .path.display(),
        if *.is_dir { "700" } else { "600" }, .path.display()
    )]
    Mode {
        /// What it is about.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Whether it is a directory.
        is_dir: bool,
    },
}

/// Why a file was not opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It is not ours alone.
    #[error(transparent)]
    NotPrivate(#[from] NotPrivate),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Checks that what was found at `path` is ours alone.
///
/// # Errors
///
/// If it is of another user, or others may use it.
pub fn check(path: &Path, found: &Metadata) -> Result<(), NotPrivate> {
    let (owner, user) = (found.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(NotPrivate::Owner { path: path.to_owned(), owner, user });
    }
    if found.mode() & FOREIGN_BITS != 0 {
        let (path, is_dir) = (path.to_owned(), found.is_dir());
        return Err(NotPrivate::Mode { path, mode: found.mode() & 0o7777, is_dir });
    }
    Ok(())
}

/// Opens a file, makes it with 0600 if `options` say so, and checks that what it got is a file and
/// ours alone.
///
/// # Errors
///
/// If it is not, or the system refuses it.
///
/// # Panics
///
/// Never: the flags of open(2) fit its int.
pub fn open(options: &mut OpenOptions, path: &Path) -> Result<File, OpenError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).expect("open(2) takes an int");
    let wrong_type = || NotPrivate::WrongType { path: path.to_owned(), expected: "file" };
    let opened = options.mode(0o600).custom_flags(flags).open(path);
    let file = opened.map_err(|error| {
        if path.is_symlink() {
            return NotPrivate::Symlink(path.to_owned()).into();
        }
        if path.is_dir() {
            return wrong_type().into();
        }
        OpenError::Io(error)
    })?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(wrong_type().into());
    }
    check(path, &found)?;
    Ok(file)
}
