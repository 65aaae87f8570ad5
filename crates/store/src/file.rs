//! The file of a store: how it comes up, and how it is looked at before anything touches it.
//!
//! Invariants: a file is whole or absent, whenever the machine stops, because it is made under
//! another name; one that is foreign, newer or damaged keeps every byte, because it is inspected
//! on a [`Scratch`].

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, StorageBackend, TableDefinition, TableError};

use crate::Table;
use crate::error::StoreError;
use crate::migrate::{self, Step};
use crate::private;
use crate::scratch::Scratch;

/// What keys and values are to the database.
pub(crate) type Raw = &'static [u8];

/// The table by which a file is known as ours.
pub(crate) const ABOUT: TableDefinition<'static, &str, u32> = TableDefinition::new("baran");
pub(crate) const FORMAT_KEY: &str = "format";

/// Memory for pages of the database, in bytes. A node reads its store when it starts and keeps
/// what it needs in memory, so this serves the writer.
const CACHE_LEN: usize = 16 * 1024 * 1024;

/// Opens the file at `path`; makes it if there is none, and brings it to the format that `steps`
/// lead to.
pub(crate) fn open(path: &Path, steps: &[Step]) -> Result<Database, StoreError> {
    let newest = migrate::newest(steps);
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => create(path, newest)?,
        _ => {
            let found = inspect(path, newest)?;
            if found < newest {
                migrate::back_up(path, found)?;
                migrate::run(&open_known(path)?, found, steps, path)?;
            }
        }
    }
    let db = open_known(path)?;
    complete(&db, newest).map_err(StoreError::db("open", path))?;
    Ok(db)
}

/// The file at `path`, checked to be ours alone, as the database takes it.
pub(crate) fn backend(path: &Path) -> Result<FileBackend, StoreError> {
    let file = open_checked(OpenOptions::new().read(true).write(true), path)?;
    FileBackend::new(file).map_err(StoreError::db("open", path))
}

/// Opens a file that passed the inspection since this process started.
pub(crate) fn open_known(path: &Path) -> Result<Database, StoreError> {
    open_backend(backend(path)?, path)
}

/// The same for any medium.
pub(crate) fn open_backend(
    backend: impl StorageBackend,
    path: &Path,
) -> Result<Database, StoreError> {
    builder().create_with_backend(backend).map_err(StoreError::db("open", path))
}

/// The same without a write to it.
pub(crate) fn open_over(backend: impl StorageBackend, path: &Path) -> Result<Database, StoreError> {
    open_backend(Scratch::new(backend).map_err(StoreError::io("read", path))?, path)
}

/// Makes an empty database in `backend`.
pub(crate) fn initialized(
    backend: impl StorageBackend,
    path: &Path,
) -> Result<Database, StoreError> {
    initialized_as(backend, path, migrate::FORMAT)
}

fn initialized_as(
    backend: impl StorageBackend,
    path: &Path,
    format: u32,
) -> Result<Database, StoreError> {
    let db = builder().create_with_backend(backend).map_err(StoreError::db("create", path))?;
    initialize(&db, format).map_err(StoreError::db("create", path))?;
    Ok(db)
}

fn initialize(db: &Database, format: u32) -> Result<(), redb::Error> {
    let mut transaction = db.begin_write()?;
    transaction.set_two_phase_commit(true);
    transaction.open_table(ABOUT)?.insert(FORMAT_KEY, format)?;
    for table in Table::ALL {
        transaction.open_table(definition(table))?;
    }
    Ok(transaction.commit()?)
}

/// Makes the tables that a file of an older program lacks.
fn complete(db: &Database, format: u32) -> Result<(), redb::Error> {
    let transaction = db.begin_read()?;
    for table in Table::ALL {
        match transaction.open_table(definition(table)) {
            Ok(_) => {}
            Err(TableError::TableDoesNotExist(_)) => return initialize(db, format),
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

/// Makes the file beside its place and moves it there. Whoever calls has the data directory for
/// itself, so what lies beside the place is left over from a crash.
fn create(path: &Path, format: u32) -> Result<(), StoreError> {
    let new = beside(path, ".new");
    let made = create_at(&new, format).and_then(|()| {
        std::fs::rename(&new, path).map_err(StoreError::io("create", path))?;
        sync_dir(path)
    });
    if made.is_err() {
        drop(std::fs::remove_file(&new));
    }
    made
}

/// The path with something after its name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes it last that `path` was made or moved there.
pub(crate) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or_else(|| Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(StoreError::io("save", dir))
}

fn create_at(path: &Path, format: u32) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    let file = open_checked(options.read(true).write(true).create(true).truncate(true), path)?;
    let file = FileBackend::new(file).map_err(StoreError::db("create", path))?;
    initialized_as(file, path, format)?.close().map_err(StoreError::db("create", path))
}

/// Opens a file of ours alone ([`private::open`]).
pub(crate) fn open_checked(options: &mut OpenOptions, path: &Path) -> Result<File, StoreError> {
    private::open(options, path).map_err(StoreError::opening(path))
}

/// Checks that the file is ours, of a known format and whole, and leaves it as it is. Returns its
/// format.
fn inspect(path: &Path, newest: u32) -> Result<u32, StoreError> {
    on_scratch(path, newest, |_, format| Ok(format))
}

/// Runs `work` on a file that was found ours, of a known format (which is passed too) and whole,
/// and leaves it as it is.
pub(crate) fn on_scratch<T: Send, E: From<StoreError> + Send>(
    path: &Path,
    newest: u32,
    work: impl FnOnce(&Database, u32) -> Result<T, E> + Send,
) -> Result<T, E> {
    let file = open_checked(OpenOptions::new().read(true).write(true), path)?;
    let len = file.metadata().map_err(StoreError::io("read", path))?.len();
    let damaged = |reason: &str| {
        E::from(StoreError::Damaged { path: path.to_owned(), reason: reason.to_owned() })
    };
    if len == 0 {
        // The database would take it for a new one.
        return Err(damaged("it is empty"));
    }
    if !is_database(&file).map_err(StoreError::io("read", path))? {
        return Err(StoreError::Foreign(path.to_owned()).into());
    }
    let file = FileBackend::new(file).map_err(StoreError::db("read", path))?;
    // The database means to report whatever it finds, and panics where it forgot to: in a thread
    // of its own that is one more kind of damage.
    let worked = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (db, format) = inspect_over(file, path, newest)?;
            work(&db, format)
        });
        thread.join()
    });
    worked.unwrap_or_else(|_| Err(damaged("it contradicts itself")))
}

/// Opens a database over `base`, which stays as it is, and looks at all of it. Returns its format
/// too.
pub(crate) fn inspect_over(
    base: impl StorageBackend,
    path: &Path,
    newest: u32,
) -> Result<(Database, u32), StoreError> {
    let foreign = || StoreError::Foreign(path.to_owned());
    let scratch = Scratch::new(base).map_err(StoreError::io("read", path))?;
    // Reads all of it: a second for 64,000 records of 1 KB in a debug build.
    let opened = builder().set_check_integrity_on_open(true).create_with_backend(scratch);
    let db = opened.map_err(StoreError::db("read", path))?;
    let transaction = db.begin_read().map_err(StoreError::db("read", path))?;
    let format = match transaction.open_table(ABOUT) {
        Ok(about) => about.get(FORMAT_KEY).map_err(StoreError::db("read", path))?,
        Err(TableError::Storage(error)) => return Err(StoreError::db("read", path)(error)),
        Err(_) => return Err(foreign()),
    };
    drop(transaction);
    match format.map(|format| format.value()) {
        Some(found) if found > newest => {
            Err(StoreError::Newer { path: path.to_owned(), found, known: newest })
        }
        Some(found) if found >= migrate::OLDEST => Ok((db, found)),
        _ => Err(foreign()),
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

/// The table's name and type in the database.
pub(crate) fn definition(table: Table) -> TableDefinition<'static, Raw, Raw> {
    TableDefinition::new(table.name())
}
