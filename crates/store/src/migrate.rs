//! From the format of an older program to this one's.
//!
//! Invariants: before a file is changed, a copy of it lies beside it, whole, under a name that
//! nothing else had; all steps are one commit, so that a file is of one format or the other,
//! whenever the machine stops.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use redb::{Database, WriteTransaction};

use crate::error::StoreError;
use crate::file::{ABOUT, FORMAT_KEY, beside, open_checked, sync_dir};

/// Changes what lies in the tables from one format to the next.
pub(crate) type Step = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// The first format that there was.
pub(crate) const OLDEST: u32 = 1;

/// The steps from [`OLDEST`] on, each to the next format. Whatever an older program would misread
/// takes one; a table more does not.
pub(crate) const STEPS: &[Step] = &[];

/// Format of the tables and of what lies in them.
pub(crate) const FORMAT: u32 = newest(STEPS);

/// Most backups of one format: more than one comes about only if the machine stops, or the owner
/// goes back to an older program, again and again.
const BACKUPS_MAX: u32 = 8;

/// The format that `steps` lead to.
#[allow(clippy::cast_possible_truncation, reason = "there are not 2^32 steps, and it is const")]
pub(crate) const fn newest(steps: &[Step]) -> u32 {
    OLDEST + steps.len() as u32
}

/// Copies the file, which nobody has open, to `PATH.format-N.backup`, or with a number after it if
/// something else has that name. A copy that is there already, from a time when the machine
/// stopped before anything was changed, will do.
pub(crate) fn back_up(path: &Path, format: u32) -> Result<PathBuf, StoreError> {
    let new = beside(path, ".backup.new");
    let made = copy(path, &new).and_then(|()| place(path, &new, format));
    drop(std::fs::remove_file(&new));
    let made = made?;
    sync_dir(&made)?;
    Ok(made)
}

fn place(path: &Path, new: &Path, format: u32) -> Result<PathBuf, StoreError> {
    for number in 1..=BACKUPS_MAX {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let backup = beside(path, &format!(".format-{format}.backup{suffix}"));
        // Fails if there is something, whatever it is.
        match std::fs::hard_link(new, &backup) {
            Ok(()) => return Ok(backup),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if is_same(new, &backup) {
                    return Ok(backup);
                }
            }
            Err(error) => return Err(StoreError::io("create", &backup)(error)),
        }
    }
    Err(StoreError::Backups { path: path.to_owned(), format, max: BACKUPS_MAX })
}

fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let mut from_file = open_checked(OpenOptions::new().read(true), from)?;
    // What lies there is left over from a crash.
    let mut options = OpenOptions::new();
    let mut to_file = open_checked(options.write(true).create(true).truncate(true), to)?;
    let copied = io::copy(&mut from_file, &mut to_file).and_then(|_| to_file.sync_all());
    copied.map_err(StoreError::io("write", to))
}

/// Whether both are files with the same bytes; a file that cannot be read is another.
fn is_same(one: &Path, other: &Path) -> bool {
    let open = |path| -> io::Result<(File, u64)> {
        let file = open_checked(OpenOptions::new().read(true), path).map_err(io::Error::other)?;
        let len = file.metadata()?.len();
        Ok((file, len))
    };
    let compare = || -> io::Result<bool> {
        let ((mut one, len), (mut other, other_len)) = (open(one)?, open(other)?);
        if len != other_len {
            return Ok(false);
        }
        let (mut ours, mut theirs) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let mut left = len;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(ours.len());
            one.read_exact(&mut ours[..part])?;
            other.read_exact(&mut theirs[..part])?;
            if ours[..part] != theirs[..part] {
                return Ok(false);
            }
            left -= part as u64;
        }
        Ok(true)
    };
    compare().unwrap_or(false)
}

/// Takes the steps from `found` on, in one commit.
pub(crate) fn run(
    db: &Database,
    found: u32,
    steps: &[Step],
    path: &Path,
) -> Result<(), StoreError> {
    let taken = usize::try_from(found.saturating_sub(OLDEST)).unwrap_or(usize::MAX);
    let migrate = || -> Result<(), redb::Error> {
        let mut transaction = db.begin_write()?;
        transaction.set_two_phase_commit(true);
        for step in steps.iter().skip(taken) {
            step(&transaction)?;
        }
        transaction.open_table(ABOUT)?.insert(FORMAT_KEY, newest(steps))?;
        Ok(transaction.commit()?)
    };
    migrate().map_err(StoreError::db("migrate", path))?;
    tracing::info!(from = found, to = newest(steps), "migrated the store");
    Ok(())
}

#[cfg(test)]
mod tests;
