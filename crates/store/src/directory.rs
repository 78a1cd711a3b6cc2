use crate::Obstacle;
use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Locked by who has the directory; holds the number of the process that took it last.
const LOCK_FILE: &str = "lock";

/// The data directory of one server, held by an exclusive lock for as long as this value lives.
///
/// The kernel releases the lock when the process ends, however it ends; the file itself stays.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    _lock: File,
}

/// The data directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another live process holds it.
    #[error("the data directory {} is in use by process {pid}", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that wrote the lock file, or `unknown`.
        pid: String,
    },
    /// The directory or its lock file cannot be created, opened or written.
    #[error("{obstacle}")]
    Unusable {
        /// What stands in the way.
        obstacle: Obstacle,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
}

impl Directory {
    /// Creates the directory if it is missing and locks it.
    ///
    /// # Errors
    /// A second server on the same directory is refused with the process id of the first.
    pub fn take(path: &Path) -> Result<Directory, DirectoryError> {
        let unusable = |source| DirectoryError::Unusable { obstacle: Obstacle::of(path, &source), source };
        create(path).map_err(unusable)?;
        let mut lock = File::options()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(path.join(LOCK_FILE))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let read = lock.read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
                let pid = if read { pid.trim().to_owned() } else { "unknown".to_owned() };
                return Err(DirectoryError::InUse { path: path.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        lock.set_len(0).and_then(|()| lock.rewind()).map_err(unusable)?;
        writeln!(lock, "{}", std::process::id()).map_err(unusable)?;
        Ok(Directory { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Who has, or had last, a data directory: changes whenever somebody takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder(Option<(SystemTime, Vec<u8>)>);

impl Holder {
    /// As it is now.
    pub(crate) fn of(directory: &Path) -> Holder {
        let path = directory.join(LOCK_FILE);
        let read = std::fs::metadata(&path).and_then(|found| Ok((found.modified()?, std::fs::read(&path)?)));
        Holder(read.ok())
    }
}

/// Creates a directory with those above it, so that a loss of power does not take it back.
///
/// # Errors
/// It cannot be created or synced.
pub fn create(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = match path.parent() {
        Some(above) if above != Path::new("") => above,
        _ => Path::new("."),
    };
    create(above)?;
    match std::fs::create_dir(path) {
        // Somebody else was faster.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => {}
        other => other?,
    }
    File::open(above)?.sync_all()
}
