//! Files that the node rewrites as it runs: whole or as before, whenever the machine stops.
//!
//! Only the holder of the [`DataLock`](super::DataLock) writes them, one file at a time, so one
//! name for what is not finished is enough, and what a crash leaves under it is overwritten.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::sync::{Mutex, PoisonError};

use baran_proto::peers::{CACHE_LEN_MAX, CacheError, PeerCache};

use super::{DataDir, DataError, open_checked};
use crate::ServeLimits;

const PEERS: &str = "peers";
const PEERS_BAD: &str = "peers.bad";
const PORT: &str = "port";
const SERVE: &str = "serve";

/// Digits of a port, a line's end, and some room for who edits the file.
const PORT_LEN_MAX: usize = 32;

/// Bytes of the settings of what is served: ten times what this program writes, for who edits them.
const SERVE_LEN_MAX: usize = 1_024;

/// Held while a file is written: tasks of one process must not write the same new file.
static WRITING: Mutex<()> = Mutex::new(());

/// The peer cache as it was found.
#[derive(Debug)]
pub struct Peers {
    /// The cache; an empty one if there was none that can be used.
    pub cache: PeerCache,
    /// Why the one that lay there cannot be used. It lies in `peers.bad` from then on.
    pub lost: Option<CacheError>,
}

impl DataDir {
    /// Loads the peer cache of a network. One that is damaged, of another network or of a newer
    /// program is set aside.
    ///
    /// # Errors
    ///
    /// If the file is a symbolic link, is of another user, is open to others, or cannot be read or
    /// set aside; if the system has no random bytes for a new one.
    pub fn peers(&self, network: &str) -> Result<Peers, DataError> {
        let lost = match self.read(PEERS, CACHE_LEN_MAX)? {
            None => None,
            Some(bytes) => match PeerCache::decode(&bytes, network) {
                Ok(cache) => return Ok(Peers { cache, lost: None }),
                Err(error) => Some(error),
            },
        };
        if lost.is_some() {
            self.rename(PEERS, PEERS_BAD)?;
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| DataError::Io {
            what: "draw random bytes for",
            path: self.path.join(PEERS),
            error: error.into(),
        })?;
        Ok(Peers { cache: PeerCache::new(secret), lost })
    }

    /// Writes the peer cache of a network. Returns when it is on disk; blocks until then.
    ///
    /// # Errors
    ///
    /// If it cannot be written; what was there before stays.
    pub fn save_peers(&self, cache: &PeerCache, network: &str) -> Result<(), DataError> {
        self.replace(PEERS, &cache.encode(network))
    }

    /// The UDP port of last time, if it is known.
    ///
    /// # Errors
    ///
    /// If the file is a symbolic link, is of another user, is open to others, or cannot be read.
    pub fn port(&self) -> Result<Option<u16>, DataError> {
        let bytes = self.read(PORT, PORT_LEN_MAX)?.unwrap_or_default();
        let text = str::from_utf8(&bytes).unwrap_or_default();
        Ok(text.trim().parse().ok().filter(|port| *port != 0))
    }

    /// Writes the UDP port for next time. Returns when it is on disk; blocks until then.
    ///
    /// # Errors
    ///
    /// If it cannot be written; what was there before stays.
    pub fn save_port(&self, port: u16) -> Result<(), DataError> {
        self.replace(PORT, format!("{port}\n").as_bytes())
    }

    /// What the owner said last of what is to be served; if nothing, the default.
    ///
    /// # Errors
    ///
    /// If the file is a symbolic link, is of another user, is open to others, cannot be read, or
    /// says something else: what an owner limits is not guessed.
    pub fn serve_limits(&self) -> Result<ServeLimits, DataError> {
        let bytes = self.read(SERVE, SERVE_LEN_MAX)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let decoded = ServeLimits::decode(&text);
        decoded.map_err(|error| DataError::Setting { path: self.path.join(SERVE), error })
    }

    /// Writes what the owner says of it. Returns when it is on disk; blocks until then.
    ///
    /// # Errors
    ///
    /// If it cannot be written; what was there before stays.
    pub fn save_serve_limits(&self, limits: &ServeLimits) -> Result<(), DataError> {
        self.replace(SERVE, limits.encode().as_bytes())
    }

    /// The content of a file, if it is there: `len_max` bytes and one more, by which the caller
    /// sees that it is too long.
    pub(crate) fn read(&self, name: &str, len_max: usize) -> Result<Option<Vec<u8>>, DataError> {
        let path = self.path.join(name);
        let file = match open_checked(OpenOptions::new().read(true), &path) {
            Err(DataError::Io { error, .. }) if error.kind() == ErrorKind::NotFound => {
                return Ok(None);
            }
            opened => opened?,
        };
        let mut bytes = Vec::new();
        let read = file.take(len_max as u64 + 1).read_to_end(&mut bytes);
        read.map_err(DataError::io("read", &path))?;
        Ok(Some(bytes))
    }

    /// Reads a file of lines that a person may edit: at most `len_max` bytes, of which the first
    /// `lines_max` lines that `parse` understands count. Empty lines and those that begin with `#`
    /// are skipped, others that make no sense with a warning. No file is no lines.
    pub(crate) fn read_lines<T, C: FromIterator<T>>(
        &self,
        name: &'static str,
        len_max: usize,
        lines_max: usize,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<C, DataError> {
        let bytes = self.read(name, len_max)?.unwrap_or_default();
        if bytes.len() > len_max {
            return Err(self.misfit("read", name, format!("it has more than {len_max} bytes")));
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let parsed = lines.filter_map(|line| {
            let parsed = parse(line);
            if parsed.is_none() {
                tracing::warn!(file = name, line, "not understood");
            }
            parsed
        });
        Ok(parsed.take(lines_max).collect())
    }

    /// Why a file of lines cannot be used.
    pub(crate) fn misfit(&self, what: &'static str, name: &str, why: String) -> DataError {
        DataError::Io { what, path: self.path.join(name), error: std::io::Error::other(why) }
    }

    /// Puts a file with this content in the place of whatever has the name, at once and for good.
    pub(crate) fn replace(&self, name: &str, content: &[u8]) -> Result<(), DataError> {
        let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        let new = format!("{name}.new");
        let path = self.path.join(&new);
        let mut options = OpenOptions::new();
        let mut file = open_checked(options.write(true).create(true).truncate(true), &path)?;
        let written = file.write_all(content).and_then(|()| file.sync_all());
        if let Err(error) = written {
            drop(std::fs::remove_file(&path));
            return Err(DataError::io("write", &path)(error));
        }
        self.rename(&new, name)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DataError> {
        let to = self.path.join(to);
        std::fs::rename(self.path.join(from), &to).map_err(DataError::io("replace", &to))?;
        self.sync()
    }
}

#[cfg(test)]
mod tests;
