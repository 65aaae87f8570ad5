//! The file of a store: how it comes up, and how it is looked at before anything touches it.
//!
//! Invariants: a file is whole or absent, whenever the machine stops, because it is made under
//! another name; one that is foreign, newer or damaged keeps every byte, because it is inspected
//! on a [`Scratch`].

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, StorageBackend, TableDefinition, TableError};
use rustix::fs::OFlags;

use crate::Table;
use crate::error::StoreError;
use crate::scratch::Scratch;

/// Format of the tables and of what lies in them. Raised by whatever an older program would
/// misread.
pub(crate) const FORMAT: u32 = 1;

/// What keys and values are to the database.
pub(crate) type Raw = &'static [u8];

/// The table by which a file is known as ours.
const ABOUT: TableDefinition<'static, &str, u32> = TableDefinition::new("baran");
const FORMAT_KEY: &str = "format";

/// Memory for pages of the database, in bytes. A node reads its store when it starts and keeps
/// what it needs in memory, so this serves the writer.
const CACHE_LEN: usize = 16 * 1024 * 1024;

/// Permissions that anybody but the owner could use.
const FOREIGN_BITS: u32 = 0o077;

/// Opens the file at `path`; makes it if there is none.
pub(crate) fn open(path: &Path) -> Result<Database, StoreError> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => create(path)?,
        _ => inspect(path)?,
    }
    let db = open_known(path)?;
    complete(&db).map_err(StoreError::db("open", path))?;
    Ok(db)
}

/// Opens a file that passed the inspection since this process started.
pub(crate) fn open_known(path: &Path) -> Result<Database, StoreError> {
    let file = open_checked(OpenOptions::new().read(true).write(true), path)?;
    database(file, path)
}

/// Makes an empty database in `backend`.
pub(crate) fn initialized(
    backend: impl StorageBackend,
    path: &Path,
) -> Result<Database, StoreError> {
    let db = builder().create_with_backend(backend).map_err(StoreError::db("create", path))?;
    initialize(&db).map_err(StoreError::db("create", path))?;
    Ok(db)
}

fn initialize(db: &Database) -> Result<(), redb::Error> {
    let mut transaction = db.begin_write()?;
    transaction.set_two_phase_commit(true);
    transaction.open_table(ABOUT)?.insert(FORMAT_KEY, FORMAT)?;
    for table in Table::ALL {
        transaction.open_table(table.definition())?;
    }
    Ok(transaction.commit()?)
}

/// Makes the tables that a file of an older program lacks.
fn complete(db: &Database) -> Result<(), redb::Error> {
    let transaction = db.begin_read()?;
    for table in Table::ALL {
        match transaction.open_table(table.definition()) {
            Ok(_) => {}
            Err(TableError::TableDoesNotExist(_)) => return initialize(db),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_LEN);
    builder
}

fn database(file: File, path: &Path) -> Result<Database, StoreError> {
    let opened = FileBackend::new(file).and_then(|file| builder().create_with_backend(file));
    opened.map_err(StoreError::db("open", path))
}

/// Makes the file beside its place and moves it there. Whoever calls has the data directory for
/// itself, so what lies beside the place is left over from a crash.
fn create(path: &Path) -> Result<(), StoreError> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let made = create_at(&new).and_then(|()| {
        std::fs::rename(&new, path).map_err(StoreError::io("create", path))?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or_else(|| Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(StoreError::io("save", dir))
    });
    if made.is_err() {
        drop(std::fs::remove_file(&new));
    }
    made
}

fn create_at(path: &Path) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    let file = open_checked(options.read(true).write(true).create(true).truncate(true), path)?;
    let file = FileBackend::new(file).map_err(StoreError::db("create", path))?;
    initialized(file, path)?.close().map_err(StoreError::db("create", path))
}

/// Opens a file, makes it with 0600 if `options` say so, and checks that what it got is ours
/// alone.
fn open_checked(options: &mut OpenOptions, path: &Path) -> Result<File, StoreError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).expect("open(2) takes an int");
    let opened = options.mode(0o600).custom_flags(flags).open(path);
    let file = opened.map_err(|error| {
        if path.is_symlink() || path.is_dir() {
            return StoreError::NotAFile(path.to_owned());
        }
        StoreError::io("open", path)(error)
    })?;
    let found = file.metadata().map_err(StoreError::io("read", path))?;
    if !found.is_file() {
        return Err(StoreError::NotAFile(path.to_owned()));
    }
    let (owner, user) = (found.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(StoreError::Owner { path: path.to_owned(), owner, user });
    }
    if found.mode() & FOREIGN_BITS != 0 {
        return Err(StoreError::Mode { path: path.to_owned(), mode: found.mode() & 0o7777 });
    }
    Ok(file)
}

/// Checks that the file is ours, of a known format and whole, and leaves it as it is.
fn inspect(path: &Path) -> Result<(), StoreError> {
    let file = open_checked(OpenOptions::new().read(true).write(true), path)?;
    let len = file.metadata().map_err(StoreError::io("read", path))?.len();
    let damaged = |reason: String| StoreError::Damaged { path: path.to_owned(), reason };
    if len == 0 {
        // The database would take it for a new one.
        return Err(damaged("it is empty".to_owned()));
    }
    // The database means to report whatever it finds, and panics where it forgot to: in a thread
    // of its own that is one more kind of damage.
    let inspected = thread::scope(|scope| scope.spawn(|| inspect_on_scratch(file, path)).join());
    inspected.unwrap_or_else(|_| Err(damaged("it contradicts itself".to_owned())))
}

fn inspect_on_scratch(file: File, path: &Path) -> Result<(), StoreError> {
    let foreign = || StoreError::Foreign(path.to_owned());
    if !is_database(&file).map_err(StoreError::io("read", path))? {
        return Err(foreign());
    }
    let scratch = Scratch::new(file).map_err(StoreError::db("read", path))?;
    // Reads all of it: a second for 64,000 records of 1 KB in a debug build.
    let opened = builder().set_check_integrity_on_open(true).create_with_backend(scratch);
    let db = opened.map_err(StoreError::db("read", path))?;
    let transaction = db.begin_read().map_err(StoreError::db("read", path))?;
    let format = match transaction.open_table(ABOUT) {
        Ok(about) => about.get(FORMAT_KEY).map_err(StoreError::db("read", path))?,
        Err(TableError::Storage(error)) => return Err(StoreError::db("read", path)(error)),
        Err(_) => return Err(foreign()),
    };
    match format.map(|format| format.value()) {
        None => Err(foreign()),
        Some(FORMAT) => Ok(()),
        Some(found) if found > FORMAT => {
            Err(StoreError::Newer { path: path.to_owned(), found, known: FORMAT })
        }
        Some(_) => Err(foreign()),
    }
}

/// The first bytes of every database of redb (its `docs/design.md`, "Database header").
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

fn is_database(file: &File) -> std::io::Result<bool> {
    use std::os::unix::fs::FileExt as _;
    let mut start = [0; MAGIC.len()];
    match file.read_exact_at(&mut start, 0) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| start == MAGIC),
    }
}

impl Table {
    /// The table's name and type in the database.
    pub(crate) fn definition(self) -> TableDefinition<'static, Raw, Raw> {
        TableDefinition::new(match self {
            Self::Records => "records",
            Self::Sequences => "sequences",
            Self::Own => "own",
            Self::State => "state",
        })
    }
}
