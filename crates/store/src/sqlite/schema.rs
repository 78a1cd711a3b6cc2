//! Tables and their migrations. No SQL outside this folder, and no protocol rule in any of it.

use crate::Error;
use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};
use std::path::Path;

/// "STCH": written into the header of every file of ours, so that another program's file is never touched.
const APPLICATION_ID: i32 = 0x5354_4348;

/// Inserts are appends at the right edge: every table that grows is keyed by a number assigned in memory,
/// and nothing that grows has an index on a text.
const V1: &str = "
PRAGMA application_id = 1398031176;
CREATE TABLE rows (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL, state TEXT NOT NULL,
  timeout_at INTEGER NOT NULL, created_at INTEGER NOT NULL, settled_at INTEGER,
  param_headers TEXT, param_data TEXT, value_headers TEXT, value_data TEXT, tags TEXT NOT NULL,
  callbacks TEXT NOT NULL, listeners TEXT NOT NULL,
  task_state TEXT, task_version INTEGER, task_resumes TEXT, task_ttl INTEGER, task_pid TEXT,
  task_retry_at INTEGER, task_lease_at INTEGER
) STRICT;
CREATE TABLE outbox (
  seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL, address TEXT NOT NULL, version INTEGER
) STRICT;
CREATE TABLE entries (
  idx INTEGER PRIMARY KEY, incident TEXT, seq INTEGER, leaf BLOB NOT NULL, bytes BLOB NOT NULL
) STRICT;
CREATE TABLE blobs (digest BLOB PRIMARY KEY, bytes BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE leases (
  incident TEXT PRIMARY KEY, epoch INTEGER NOT NULL, exclusive TEXT NOT NULL, shared TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
";

/// Schedules, and what is known of a task that gets nowhere.
const V2: &str = "
CREATE TABLE schedules (
  id TEXT PRIMARY KEY, cron TEXT NOT NULL, promise_id TEXT NOT NULL, promise_timeout INTEGER NOT NULL,
  param_headers TEXT, param_data TEXT, tags TEXT NOT NULL,
  created_at INTEGER NOT NULL, next_run_at INTEGER NOT NULL, last_run_at INTEGER
) STRICT, WITHOUT ROWID;
ALTER TABLE rows ADD COLUMN task_attempts INTEGER;
ALTER TABLE rows ADD COLUMN task_reason TEXT;
UPDATE rows SET task_reason = 'halted by request' WHERE task_state = 'halted';
";

/// Messages that were given up, kept until somebody sends them again or newer ones push them out.
const DEAD_LETTERS: &str = "
CREATE TABLE dead_letters (
  seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL, address TEXT NOT NULL, version INTEGER,
  attempts INTEGER NOT NULL, error TEXT NOT NULL, since INTEGER NOT NULL, dead_at INTEGER NOT NULL
) STRICT;
";

/// Migrations from every version ever released, oldest first.
const STEPS: &[M<'static>] = &[M::up(V1), M::up(V2), M::up(DEAD_LETTERS)];

/// Refuses a file that is not ours or is newer than this program, and brings an older one up to date.
pub(super) fn prepare(connection: &mut Connection, path: &Path) -> Result<(), Error> {
    examine(connection, path)?;
    let migrations = Migrations::from_slice(STEPS);
    migrations.to_latest(connection).map_err(|source| Error::Migration { path: path.to_owned(), source })
}

/// Refuses a file that is not ours or is newer than this program.
pub(super) fn examine(connection: &Connection, path: &Path) -> Result<(), Error> {
    let foreign = || Error::Foreign(path.to_owned());
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))
        .map_err(|source| if is_not_a_database(&source) { foreign() } else { Error::Sqlite(source) })?;
    let application: i32 = connection.query_row("PRAGMA application_id", (), |row| row.get(0))?;
    let version: i64 = connection.query_row("PRAGMA user_version", (), |row| row.get(0))?;
    let blank = tables == 0 && application == 0 && version == 0;
    if !blank && application != APPLICATION_ID {
        return Err(foreign());
    }
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    if version > known {
        return Err(Error::Newer { path: path.to_owned(), found: version, known });
    }
    Ok(())
}

/// Refuses, too, a file that an older version wrote: for who only reads.
pub(super) fn examine_as_is(connection: &Connection, path: &Path) -> Result<(), Error> {
    examine(connection, path)?;
    let found: i64 = connection.query_row("PRAGMA user_version", (), |row| row.get(0))?;
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    if found < known { Err(Error::Older { path: path.to_owned(), found, known }) } else { Ok(()) }
}

#[cfg(test)]
pub(super) fn prepare_as_of(connection: &mut Connection, version: usize) -> Result<(), rusqlite_migration::Error> {
    Migrations::from_slice(STEPS).to_version(connection, version)
}

/// Refuses what [`examine`] refuses, and a file in which nothing of ours was ever made; answers its version.
pub(super) fn require(connection: &Connection, path: &Path) -> Result<i64, Error> {
    examine(connection, path)?;
    let version: i64 = connection.query_row("PRAGMA user_version", (), |row| row.get(0))?;
    if version == 0 {
        return Err(Error::Foreign(path.to_owned()));
    }
    examine_as_is(connection, path)?;
    Ok(version)
}

fn is_not_a_database(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase)
}
