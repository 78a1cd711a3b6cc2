//! A backup: one file that holds everything durable, examined as `stanch doctor` examines a store, and put back.

mod identity;
mod remote;

pub(crate) use remote::routes;
pub use remote::{FetchError, fetch};

use crate::evidence::altered_among;
use base::{Digest, Hashing};
use protocol::Memory;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use store::{Contents, Directory, DirectoryError, Obstacle, Sqlite, SqliteReader};

/// Bytes of a file read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Its length in bytes.
    pub bytes: u64,
    /// Promises, with their tasks.
    pub promises: u64,
    /// Messages that are still to be delivered.
    pub outbox: u64,
    /// Records in the evidence log.
    pub log_entries: u64,
    /// The version of the file's format.
    pub format: i64,
    /// Whether the server's keys and policy are in it.
    pub keys: bool,
    /// SHA-256 of the file, in hex.
    pub digest: String,
}

/// What was found in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// Broken invariants of the protocol, and records of the log that are not what was logged.
    pub violations: Vec<String>,
    /// Records in the evidence log.
    pub log_entries: u64,
    /// Whether a server used it meanwhile.
    pub is_in_use: bool,
}

/// Why there is no backup, or none that anybody should rely on.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store or the copy cannot be read or written.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// There is a file of that name.
    #[error("{} exists already; a backup replaces no file", .0.display())]
    Exists(PathBuf),
    /// There is no store.
    #[error("{} holds no store", .0.display())]
    Missing(PathBuf),
    /// Another one writes the same file.
    #[error("another process writes {} now", .0.display())]
    InUse(PathBuf),
    /// A file cannot be read or written.
    #[error("{obstacle}")]
    File {
        /// What stands in the way.
        obstacle: Obstacle,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// What it holds breaks an invariant of the protocol, or a record of the log is not what was logged.
    #[error("{} holds what a server would not start on: {}", path.display(), found.join("; "))]
    Unsound {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        found: Vec<String>,
    },
    /// The directory is not empty.
    #[error("{} is not empty: it holds `{name}`", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// One thing in it.
        name: String,
    },
    /// The keys cannot be read or written.
    #[error(transparent)]
    Keys(#[from] crate::keys::InitError),
}

/// A file under another name until it is whole: what dies meanwhile leaves nothing under its own.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    to: PathBuf,
    /// Held while the file is written, so that two never write the same.
    _lock: File,
}

/// Copies the store of a data directory, in use or not, into a new file, with the server's keys if they are asked for;
/// examines the copy, and only then gives it its name.
///
/// # Errors
/// As [`BackupError`] says; there is no file of that name then.
pub fn backup(data: &Path, to: &Path, with_keys: bool) -> Result<Held, BackupError> {
    if !Sqlite::file_of(data).exists() {
        return Err(BackupError::Missing(data.to_owned()));
    }
    let carried = if with_keys { identity::read(data)? } else { Vec::new() };
    let part = Part::begin(to)?;
    Sqlite::copy(data, &part.path, &carried)?;
    let held = verify(&part.path)?;
    part.finish()?;
    Ok(held)
}

/// Examines a backup: the file as a whole, every invariant of the protocol, every record of the log.
///
/// # Errors
/// It is damaged, foreign, newer than this program, or unsound.
pub fn verify(path: &Path) -> Result<Held, BackupError> {
    let copy = Sqlite::examine(path)?;
    let (promises, outbox) = (copy.contents.rows.len() as u64, copy.contents.outbox.len() as u64);
    let log_entries = copy.contents.entries.len() as u64;
    let found = violations(copy.contents, &copy.reader)?;
    if !found.is_empty() {
        return Err(BackupError::Unsound { path: path.to_owned(), found });
    }
    let (digest, bytes) = digest(path)?;
    let keys = !copy.carried.is_empty();
    Ok(Held { bytes, promises, outbox, log_entries, format: copy.format, keys, digest: digest.to_string() })
}

/// Puts a backup into an empty data directory, examined before and after it got there. Answers what it holds.
///
/// # Errors
/// The directory is not empty, or the backup is none; nothing is left in the directory then.
pub fn restore(file: &Path, data: &Path) -> Result<Held, BackupError> {
    verify(file)?;
    if let Some(name) = first_in(data)? {
        return Err(BackupError::NotEmpty { path: data.to_owned(), name });
    }
    let directory = Directory::take(data).map_err(store::Error::Directory)?;
    let restored = put(file, directory.path());
    if restored.is_err() {
        // What is half there would look like a store: it goes, and what cannot go is told by the error anyway.
        identity::remove(data);
        let _ = std::fs::remove_file(Sqlite::file_of(data));
        let _ = std::fs::remove_file(data.join("lock"));
    }
    restored
}

fn put(file: &Path, data: &Path) -> Result<Held, BackupError> {
    let part = Part::begin(&Sqlite::file_of(data))?;
    std::fs::copy(file, &part.path).map_err(|source| blocked(&part.path, source))?;
    // What was read twice may have been changed in between: what is here now is what counts.
    let held = verify(&part.path)?;
    let carried = Sqlite::unload(&part.path)?;
    identity::write(data, &carried)?;
    part.finish()?;
    Ok(held)
}

/// Looks at everything that a store holds, what no server keeps in memory too. Whoever can take the directory has
/// the store opened as a server would, which brings an older format up to date and empties the write-ahead log; beside
/// the one who has it the store is only read, as of one moment.
///
/// # Errors
/// The store cannot be opened or read.
pub fn examine(data: &Path) -> Result<Examined, store::Error> {
    let directory = match Directory::take(data) {
        Ok(directory) => directory,
        Err(DirectoryError::InUse { .. }) => return examined(Sqlite::inspect(data)?, &Sqlite::reader_of(data)?, true),
        Err(error) => return Err(error.into()),
    };
    let mut store = Sqlite::open(&directory)?;
    examined(store.load_all()?, &store.reader()?, false)
}

fn examined(contents: Contents, reader: &SqliteReader, is_in_use: bool) -> Result<Examined, store::Error> {
    let log_entries = contents.entries.len() as u64;
    Ok(Examined { violations: violations(contents, reader)?, log_entries, is_in_use })
}

fn violations(contents: Contents, reader: &SqliteReader) -> Result<Vec<String>, store::Error> {
    let leaves: Vec<Digest> = contents.entries.iter().map(|head| head.leaf).collect();
    let rows = contents.rows.into_iter().map(|(_, row)| row);
    let memory = Memory::load(rows, contents.outbox.into_iter().map(|(_, message)| message), contents.schedules);
    let mut found: Vec<String> = protocol::check(&memory).iter().map(ToString::to_string).collect();
    found.extend(altered_among(&leaves, |range| reader.entries(range))?);
    Ok(found)
}

impl Part {
    /// Begins a file that does not exist yet; what an earlier try left half done is overwritten.
    fn begin(to: &Path) -> Result<Part, BackupError> {
        if to.exists() {
            return Err(BackupError::Exists(to.to_owned()));
        }
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let path = to.with_file_name(name);
        let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = open.map_err(|source| blocked(&path, source))?;
        lock.try_lock().map_err(|_| BackupError::InUse(path.clone()))?;
        lock.set_len(0).map_err(|source| blocked(&path, source))?;
        Ok(Part { path, to: to.to_owned(), _lock: lock })
    }

    /// Gives it its name, durably.
    fn finish(self) -> Result<(), BackupError> {
        let folder = match self.to.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let synced = File::open(&self.path).and_then(|file| file.sync_all());
        let named = synced.and_then(|()| std::fs::rename(&self.path, &self.to));
        named.and_then(|()| File::open(folder)?.sync_all()).map_err(|source| blocked(&self.to, source))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Gone if it was finished.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The name of something in a directory; `None`: it is empty, or not there.
fn first_in(data: &Path) -> Result<Option<String>, BackupError> {
    match std::fs::read_dir(data) {
        Ok(mut entries) => {
            Ok(entries.find_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(blocked(data, source)),
    }
}

fn digest(path: &Path) -> Result<(Digest, u64), BackupError> {
    let mut hashing = Hashing::default();
    let mut read = || -> std::io::Result<u64> {
        let (mut file, mut bytes, mut total) = (File::open(path)?, vec![0; CHUNK_BYTES], 0);
        loop {
            let count = file.read(&mut bytes)?;
            if count == 0 {
                return Ok(total);
            }
            hashing.update(bytes.get(..count).unwrap_or_default());
            total += count as u64;
        }
    };
    let bytes = read().map_err(|source| blocked(path, source))?;
    Ok((hashing.digest(), bytes))
}

fn blocked(path: &Path, source: std::io::Error) -> BackupError {
    BackupError::File { obstacle: Obstacle::of(path, &source), source }
}

impl BackupError {
    /// Whether another process has the data directory that a backup is put into.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        matches!(self, BackupError::Store(store::Error::Directory(DirectoryError::InUse { .. })))
    }
}

#[cfg(test)]
mod tests;
