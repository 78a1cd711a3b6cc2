//! The ledger: what was asked of each service and what became of it, one append-only file per service with
//! its fence, under an exclusive lock that every process which acts on the service takes.

use super::files;
use crate::control::fence_json;
use crate::{Error, clock};
use base::Timestamp;
use recovery::call::{Fence, State, Versions};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The ledger that all configuration objects share.
pub const CONFIG_OWNER: &str = "_config";

/// The pause between two tries for a lock.
const LOCK_AGAIN: Duration = Duration::from_millis(3);

/// One line of `ledger/<service>/ledger.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// From 1, without gaps.
    pub seq: u64,
    /// When.
    pub at_ms: i64,
    /// Of the call.
    pub key: String,
    /// Of the call.
    #[serde(with = "fence_json")]
    pub fence: Fence,
    /// The action's name; `Undo` for a compensation.
    pub action: String,
    /// What this line says.
    pub outcome: Outcome,
    /// The fields before.
    pub before: State,
    /// The fields after, as observed; of a line `begun` or a refusal, as wanted.
    pub after: State,
    /// The fields as the call wants them.
    pub wanted: State,
    /// Version counters: of a line `begun` before, else after.
    pub versions: Versions,
    /// The platform's own names of what was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native_id: Option<String>,
    /// Milliseconds it took.
    pub took_ms: u64,
}

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// From here on it may have taken effect.
    Begun,
    /// It took effect.
    Applied,
    /// It certainly took no effect.
    Absent,
    /// Refused: fenced.
    Fenced,
    /// Refused: drifted.
    Drifted,
    /// Refused for another reason.
    Refused,
}

/// Reads the ledger of a service, oldest first; empty if it has none. A torn line, which a kill in the middle
/// of writing leaves, was never answered and is left out.
///
/// # Errors
/// A file that cannot be read.
pub fn read(dir: &Path, service: &str) -> io::Result<Vec<Entry>> {
    let text = match std::fs::read_to_string(ledger_dir(dir, service).join("ledger.jsonl")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// The ledger of what a plan writes: each service has one, configuration objects (`config/KIND/NS/NAME`) share one.
#[must_use]
pub fn owner(written: &str) -> &str {
    // No name of a service has a slash, and none begins with `_`.
    if written.contains('/') { CONFIG_OWNER } else { written }
}

/// What is known of a key.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// Nothing, or that it took no effect.
    No,
    /// It may have taken effect.
    Begun(Entry),
    /// It took effect.
    Applied(Entry),
}

/// The ledgers of every service a call touches, in order of name.
#[derive(Debug)]
pub(super) struct Books {
    ledgers: Vec<Ledger>,
}

#[derive(Debug)]
struct Ledger {
    dir: PathBuf,
    entries: Vec<Entry>,
    fence: Fence,
    /// Held for its lock; absent in books that only read.
    _lock: Option<File>,
}

impl Books {
    /// Takes the locks, one after the other in the order of names, so that nobody waits in a circle.
    pub(super) async fn lock(dir: &Path, owners: &BTreeSet<String>, until: Timestamp) -> Result<Books, Error> {
        let mut ledgers = Vec::new();
        for owner in owners {
            let own = ledger_dir(dir, owner);
            std::fs::create_dir_all(&own).map_err(|error| failed(&error))?;
            let lock = lock_file(&own.join("lock"), until).await?;
            ledgers.push(Ledger::open(dir, owner, Some(lock)).map_err(|error| failed(&error))?);
        }
        Ok(Books { ledgers })
    }

    /// Reads without a lock, for answers that change nothing.
    pub(super) fn read_only(dir: &Path, owners: &BTreeSet<String>) -> Result<Books, Error> {
        let ledgers = owners.iter().map(|owner| Ledger::open(dir, owner, None)).collect::<io::Result<_>>();
        Ok(Books { ledgers: ledgers.map_err(|error| failed(&error))? })
    }

    /// The highest fence seen.
    pub(super) fn fence(&self) -> Fence {
        self.ledgers.iter().map(|ledger| ledger.fence).max().unwrap_or_default()
    }

    /// Makes every lower fence refused from now on.
    pub(super) fn raise(&mut self, fence: Fence) -> Result<(), Error> {
        for ledger in self.ledgers.iter_mut().filter(|ledger| ledger.fence < fence) {
            let text = format!("{} {}\n", fence.epoch, fence.version);
            files::replace_synced(&ledger.dir.join("fence"), text.as_bytes()).map_err(|error| failed(&error))?;
            ledger.fence = fence;
        }
        Ok(())
    }

    /// What the first ledger says of a key: it is written first.
    pub(super) fn known(&self, key: &str) -> Known {
        let entries = self.ledgers.first().map_or([].as_slice(), |ledger| ledger.entries.as_slice());
        let mut known = Known::No;
        for entry in entries.iter().filter(|entry| entry.key == key) {
            known = match entry.outcome {
                Outcome::Begun => Known::Begun(entry.clone()),
                Outcome::Applied => return Known::Applied(entry.clone()),
                Outcome::Absent => Known::No,
                // A refused attempt says nothing about an earlier one.
                Outcome::Fenced | Outcome::Drifted | Outcome::Refused => known,
            };
        }
        known
    }

    /// How often a key was begun.
    pub(super) fn attempts(&self, key: &str) -> u64 {
        let entries = self.ledgers.first().map_or([].as_slice(), |ledger| ledger.entries.as_slice());
        entries.iter().filter(|entry| entry.key == key && entry.outcome == Outcome::Begun).count() as u64
    }

    /// Appends a line to every ledger; on return it is on disk.
    pub(super) fn note(&mut self, entry: &Entry) -> Result<(), Error> {
        self.ledgers.iter_mut().try_for_each(|ledger| ledger.append(entry)).map_err(|error| failed(&error))
    }
}

impl Ledger {
    fn open(dir: &Path, owner: &str, lock: Option<File>) -> io::Result<Ledger> {
        let own = ledger_dir(dir, owner);
        Ok(Ledger { entries: read(dir, owner)?, fence: read_fence(&own)?, dir: own, _lock: lock })
    }

    fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let seq = self.entries.last().map_or(1, |last| last.seq + 1);
        let entry = Entry { seq, at_ms: clock::now().0, ..entry.clone() };
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        let path = self.dir.join("ledger.jsonl");
        let is_new = !path.exists();
        let mut file = File::options().create(true).read(true).append(true).open(path)?;
        if is_torn(&mut file)? {
            line.insert(0, b'\n');
        }
        file.write_all(&line)?;
        file.sync_all()?;
        if is_new {
            File::open(&self.dir)?.sync_all()?;
        }
        self.entries.push(entry);
        Ok(())
    }
}

fn ledger_dir(dir: &Path, owner: &str) -> PathBuf {
    dir.join("ledger").join(owner)
}

/// A missing fence is the lowest; a damaged one is an error, for it may have been a high one.
fn read_fence(dir: &Path) -> io::Result<Fence> {
    let text = match std::fs::read_to_string(dir.join("fence")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Fence::default()),
        text => text?,
    };
    let fence = text
        .trim()
        .split_once(' ')
        .and_then(|(epoch, version)| Some(Fence { epoch: epoch.parse().ok()?, version: version.parse().ok()? }));
    fence.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a damaged fence"))
}

/// Whether the last line lacks its end.
fn is_torn(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0_u8];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// The lock belongs to the open file: it ends with the process, however that ends.
async fn lock_file(path: &Path, until: Timestamp) -> Result<File, Error> {
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(|error| failed(&error))?;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if clock::now() < until => tokio::time::sleep(LOCK_AGAIN).await,
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::TimedOut),
            Err(error) => return Err(failed(&error.into())),
        }
    }
}

/// A ledger that cannot be kept: nothing may be done, and nothing is known.
fn failed(error: &io::Error) -> Error {
    tracing::error!(%error, "the ledger cannot be read or written");
    Error::Unavailable
}

#[cfg(test)]
mod tests;
