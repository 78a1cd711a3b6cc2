//! What keeps a data directory from taking writes, found out by trying, in words for whoever can remove it.

use std::fs::File;
use std::io::{self, ErrorKind, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// What a trial writes.
const TRIAL_BYTES: [u8; 4_096] = [0; 4_096];
/// The name of the trial's file in the data directory.
const TRIAL_FILE: &str = "trial";

/// A data directory, or a file in it, that does not take writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The directory, or the file.
    pub path: PathBuf,
    /// Why.
    pub cause: Cause,
}

/// Why a data directory does not take writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No space is left, or no quota.
    Full,
    /// The file system does not take writes.
    ReadOnly,
    /// A file would become larger than this process may make one.
    TooLong,
    /// This user may not write there.
    Forbidden,
    /// It is not there any more.
    Missing,
    /// Reading, writing or syncing failed for another reason.
    Broken,
}

impl Cause {
    /// What is wrong.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Cause::Full => "its file system is full",
            Cause::ReadOnly => "its file system is read-only",
            Cause::TooLong => "a file would exceed the size limit of this process",
            Cause::Forbidden => "this user may not write there",
            Cause::Missing => "it is not there any more",
            Cause::Broken => "the disk or its file system reports an I/O error",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn next(self) -> &'static str {
        match self {
            Cause::Full => "free space there (`df -h` shows how much is left)",
            Cause::ReadOnly => "see the kernel's log (`dmesg`) for the reason, then mount it read-write again",
            Cause::TooLong => "raise the limit on file sizes (`ulimit -f`, `LimitFSIZE=` of a service)",
            Cause::Forbidden => "give it to this user (`chown`, `chmod`)",
            Cause::Missing => "put it back where it was",
            Cause::Broken => "see the kernel's log (`dmesg`), and move the data to a sound disk if it goes on",
        }
    }

    fn of(error: &io::Error) -> Cause {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Cause::Full,
            ErrorKind::ReadOnlyFilesystem => Cause::ReadOnly,
            ErrorKind::FileTooLarge => Cause::TooLong,
            ErrorKind::PermissionDenied => Cause::Forbidden,
            ErrorKind::NotFound => Cause::Missing,
            _ => Cause::Broken,
        }
    }
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Obstacle { path, cause } = self;
        write!(f, "{} cannot be written: {}; {}", path.display(), cause.words(), cause.next())
    }
}

impl Obstacle {
    /// What stands in the way of an operation on this directory or file.
    #[must_use]
    pub fn of(path: &Path, error: &io::Error) -> Obstacle {
        Obstacle { path: path.to_owned(), cause: Cause::of(error) }
    }

    /// What stands in the way of the database in this directory. SQLite names few causes; the others are found out by
    /// a write of one page where the longest of its files ends.
    pub(crate) fn of_database(directory: &Path, error: &rusqlite::Error) -> Option<Obstacle> {
        use rusqlite::ErrorCode::{CannotOpen, DiskFull, PermissionDenied, ReadOnly, SystemIoFailure};
        let said = match error.sqlite_error_code()? {
            DiskFull => Cause::Full,
            ReadOnly => Cause::ReadOnly,
            PermissionDenied => Cause::Forbidden,
            CannotOpen | SystemIoFailure => Cause::Broken,
            _ => return None,
        };
        let cause = trial(directory).err().map_or(said, |error| Cause::of(&error));
        Some(Obstacle { path: directory.to_owned(), cause })
    }
}

fn trial(directory: &Path) -> io::Result<()> {
    let lengths = std::fs::read_dir(directory)?.flatten().filter_map(|file| file.metadata().ok());
    let end = lengths.filter(std::fs::Metadata::is_file).map(|file| file.len()).max().unwrap_or(0);
    let path = directory.join(TRIAL_FILE);
    let tried = File::create(&path).and_then(|mut file| {
        file.seek(SeekFrom::Start(end))?;
        file.write_all(&TRIAL_BYTES)?;
        file.sync_all()
    });
    // What was not made cannot be removed.
    let _ = std::fs::remove_file(&path);
    tried
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_apart_and_says_what_to_do() {
        let causes = [28, 122, 30, 27, 13, 2, 5].map(|number| Cause::of(&io::Error::from_raw_os_error(number)));
        use Cause::{Broken, Forbidden, Full, Missing, ReadOnly, TooLong};
        assert_eq!(causes, [Full, Full, ReadOnly, TooLong, Forbidden, Missing, Broken]);
        for cause in causes {
            let told = Obstacle { path: "/data".into(), cause }.to_string();
            assert!(told.contains("/data") && told.contains(cause.words()) && told.contains(cause.next()), "{told}");
        }
    }

    #[test]
    fn a_trial_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("long"), [1; 10_000]).unwrap();
        trial(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(Cause::of(&trial(&dir.path().join("none")).unwrap_err()), Cause::Missing);
    }
}
