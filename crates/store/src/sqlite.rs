//! SQLite as the store: write-ahead log, full sync, one writer, a checkpointer and readers beside it.

mod backup;
mod rows;
mod schedules;
mod schema;
#[cfg(test)]
mod tests;

pub use backup::{Carried, Copy};

use crate::{Batch, Contents, Directory, EntryHead, Error, Obstacle, ScopeLease, Store, StoredEntry};
use base::Digest;
use rusqlite::{Connection, OpenFlags, Transaction, params};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// The name of the database in the data directory.
pub(crate) const FILE_NAME: &str = "stanch.db";
/// LIMIT: pages in the write-ahead log before the writer itself checkpoints.
const INLINE_CHECKPOINT_PAGES: u32 = 16_000;
/// How often the checkpointer looks at the write-ahead log.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(500);
/// How long a connection waits for another one's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// LIMIT: records read in one call of [`SqliteReader::entries`].
pub const READER_ENTRIES_MAX: u64 = 100_000;

/// The writer's connection to the database of a data directory.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    path: PathBuf,
    checkpointer: Option<Checkpointer>,
}

/// A connection of its own that reads what is durable: record bytes and blobs.
#[derive(Debug)]
pub struct SqliteReader {
    connection: Connection,
}

/// Moves pages from the log into the file, beside the writer; ends when dropped.
#[derive(Debug)]
struct Checkpointer {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Sqlite {
    /// Opens, or creates, the database of a data directory that this process has taken.
    ///
    /// # Errors
    /// A file of another program or of a newer version is refused and left as it is.
    pub fn open(directory: &Directory) -> Result<Sqlite, Error> {
        let path = directory.path().join(FILE_NAME);
        Sqlite::open_file(&path, BUSY_TIMEOUT).map_err(|error| explained(&path, error))
    }

    fn open_file(path: &Path, patience: Duration) -> Result<Sqlite, Error> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(patience)?;
        // Before anything is written: a file that is not ours must stay as it is.
        schema::examine(&connection, path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", INLINE_CHECKPOINT_PAGES)?;
        schema::prepare(&mut connection, path)?;
        empty_log(&connection, path)?;
        let checkpointer = Checkpointer::start(path)?;
        Ok(Sqlite { connection, path: path.to_owned(), checkpointer: Some(checkpointer) })
    }

    /// Reads everything without taking the directory: for inspection beside a running or a dead server.
    ///
    /// # Errors
    /// There is no database, or it cannot be read.
    pub fn inspect(directory: &Path) -> Result<Contents, Error> {
        let path = directory.join(FILE_NAME);
        let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        schema::examine_as_is(&connection, &path)?;
        read_contents(&connection, rows::Which::All)
    }

    /// Everything that was stored, what memory could do without too.
    ///
    /// # Errors
    /// The file cannot be read or holds a row that makes no sense.
    pub fn load_all(&mut self) -> Result<Contents, Error> {
        read_contents(&self.connection, rows::Which::All)
    }

    /// A reader of what a data directory holds, without taking it.
    ///
    /// # Errors
    /// There is no database, or it cannot be opened.
    pub fn reader_of(directory: &Path) -> Result<SqliteReader, Error> {
        let path = directory.join(FILE_NAME);
        let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(SqliteReader { connection })
    }

    /// A reader of what this store has committed.
    ///
    /// # Errors
    /// The file cannot be opened a second time.
    pub fn reader(&self) -> Result<SqliteReader, Error> {
        let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(SqliteReader { connection })
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        // The checkpointer's connection goes first, so that ours is the last and cleans the log up.
        self.checkpointer.take();
    }
}

impl Store for Sqlite {
    fn load(&mut self) -> Result<Contents, Error> {
        read_contents(&self.connection, rows::Which::Live)
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        write(&mut self.connection, batch).map_err(|error| explained(&self.path, error))
    }
}

impl SqliteReader {
    /// The promise of this sequence number with everything kept under its id.
    ///
    /// # Errors
    /// The file cannot be read, or the row makes no sense.
    pub fn row(&self, seq: u64) -> Result<Option<protocol::Row>, Error> {
        rows::read_one(&self.connection, seq)
    }

    /// The first `limit` promises with greater sequence numbers that settled before an instant, in order.
    ///
    /// # Errors
    /// The file cannot be read, or a row makes no sense.
    pub fn settled_before(
        &self,
        at: base::Timestamp,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, protocol::Row)>, Error> {
        rows::read_settled(&self.connection, at, after, limit)
    }

    /// The sequence numbers of the first `limit` promises with greater ids, in the order of ids, filtered by the
    /// name of the promise's state or of its task's. It reads the whole table: nothing that grows has an index on a
    /// text.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn by_id(
        &self,
        after: &str,
        promise_state: Option<&str>,
        task_state: Option<&str>,
        limit: usize,
    ) -> Result<Vec<u64>, Error> {
        rows::read_by_id(&self.connection, after, (promise_state, task_state), limit)
    }

    /// The bytes of the records with these indexes, in order; fewer if the log ends before.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn entries(&self, range: Range<u64>) -> Result<Vec<Vec<u8>>, Error> {
        let end = range.end.min(range.start.saturating_add(READER_ENTRIES_MAX));
        let mut statement =
            self.connection.prepare_cached("SELECT bytes FROM entries WHERE idx >= ?1 AND idx < ?2 ORDER BY idx")?;
        let found = statement.query_map(params![to_sql(range.start)?, to_sql(end)?], |row| row.get(0))?;
        found.collect::<Result<_, _>>().map_err(Error::Sqlite)
    }

    /// The content with this digest.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let mut statement = self.connection.prepare_cached("SELECT bytes FROM blobs WHERE digest = ?1")?;
        let mut found = statement.query(params![digest.0.as_slice()])?;
        found.next()?.map(|row| row.get(0)).transpose().map_err(Error::Sqlite)
    }
}

impl Checkpointer {
    fn start(path: &Path) -> Result<Checkpointer, Error> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let (stop, stopped) = mpsc::channel::<()>();
        let run = move || {
            while stopped.recv_timeout(CHECKPOINT_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                // A checkpoint that cannot run now runs the next time; the writer's own limit bounds the log.
                let _ = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()));
            }
        };
        let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(run);
        Ok(Checkpointer { stop: Some(stop), thread: thread.ok() })
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Brings everything that the write-ahead log holds into the file, synced, and empties the log.
///
/// WHY: after a kill, or a sync that failed, the log may hold what the kernel shows and the disk does not have. Whoever
/// opens it would show that as durable, and a later loss of power would cut the log off there, with all that was
/// appended and acknowledged since.
fn empty_log(connection: &Connection, path: &Path) -> Result<(), Error> {
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get(0))?;
    if busy == 0 { Ok(()) } else { Err(Error::Held(path.to_owned())) }
}

/// An error of SQLite that comes from the data directory, told by its cause there.
fn explained(path: &Path, error: Error) -> Error {
    let directory = path.parent().unwrap_or(path);
    match error {
        Error::Sqlite(source) => match Obstacle::of_database(directory, &source) {
            Some(obstacle) => Error::Blocked { obstacle, source },
            None => Error::Sqlite(source),
        },
        other => other,
    }
}

fn write(connection: &mut Connection, batch: &Batch) -> Result<(), Error> {
    let transaction = connection.transaction()?;
    rows::write(&transaction, batch)?;
    schedules::write(&transaction, batch)?;
    write_evidence(&transaction, batch)?;
    write_leases(&transaction, batch)?;
    transaction.commit()?;
    Ok(())
}

fn write_evidence(transaction: &Transaction<'_>, batch: &Batch) -> Result<(), Error> {
    if !batch.entries.is_empty() {
        let sql = "INSERT INTO entries (idx, incident, seq, leaf, bytes) VALUES (?1, ?2, ?3, ?4, ?5)";
        let mut statement = transaction.prepare_cached(sql)?;
        for StoredEntry { index, incident, seq, leaf, bytes } in &batch.entries {
            let seq = seq.map(to_sql).transpose()?;
            statement.execute(params![to_sql(*index)?, incident, seq, leaf.0.as_slice(), &bytes[..]])?;
        }
    }
    for (digest, bytes) in &batch.blobs {
        let mut statement =
            transaction.prepare_cached("INSERT OR IGNORE INTO blobs (digest, bytes) VALUES (?1, ?2)")?;
        statement.execute(params![digest.0.as_slice(), &bytes[..]])?;
    }
    for (key, value) in &batch.meta {
        let mut statement = transaction.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?;
        statement.execute(params![key, value])?;
    }
    Ok(())
}

fn write_leases(transaction: &Transaction<'_>, batch: &Batch) -> Result<(), Error> {
    for incident in &batch.leases_gone {
        transaction.prepare_cached("DELETE FROM leases WHERE incident = ?1")?.execute(params![incident])?;
    }
    for ScopeLease { incident, epoch, exclusive, shared } in &batch.leases {
        let sql = "INSERT OR REPLACE INTO leases (incident, epoch, exclusive, shared) VALUES (?1, ?2, ?3, ?4)";
        let (exclusive, shared) = (rows::json(exclusive), rows::json(shared));
        transaction.prepare_cached(sql)?.execute(params![incident, to_sql(*epoch)?, exclusive, shared])?;
    }
    Ok(())
}

fn read_contents(connection: &Connection, which: rows::Which) -> Result<Contents, Error> {
    // One read transaction, so that all tables are of the same moment.
    let snapshot = connection.unchecked_transaction()?;
    let rows::Found { rows: stored, cold, newest } = rows::read(&snapshot, which)?;
    let mut promises = rows::Promises::of(&snapshot, &stored, &cold);
    let outbox = rows::read_outbox(&snapshot, &mut promises)?;
    let dead = rows::read_dead(&snapshot, &mut promises)?;
    Ok(Contents {
        rows: stored,
        cold,
        newest,
        schedules: schedules::read(&snapshot)?,
        outbox,
        dead,
        entries: read_heads(&snapshot)?,
        leases: read_leases(&snapshot)?,
        meta: read_meta(&snapshot)?,
    })
}

fn read_heads(connection: &Connection) -> Result<Vec<EntryHead>, Error> {
    let mut statement = connection.prepare("SELECT idx, incident, seq, leaf FROM entries ORDER BY idx")?;
    let mut found = statement.query(())?;
    let mut heads = Vec::new();
    while let Some(row) = found.next()? {
        let index = from_sql(row.get(0)?, "entries", 0)?;
        let corrupt = |why: &str| Error::Corrupt { table: "entries", seq: index, why: why.to_owned() };
        if index != u64::try_from(heads.len()).unwrap_or(u64::MAX) {
            return Err(corrupt("the log has a gap before it"));
        }
        let leaf: Vec<u8> = row.get(3)?;
        let leaf = leaf.try_into().map(Digest).map_err(|_| corrupt("its leaf hash has the wrong length"))?;
        let seq = row.get::<_, Option<i64>>(2)?.map(|seq| from_sql(seq, "entries", index)).transpose()?;
        heads.push(EntryHead { incident: row.get(1)?, seq, leaf });
    }
    Ok(heads)
}

fn read_leases(connection: &Connection) -> Result<Vec<ScopeLease>, Error> {
    let mut statement =
        connection.prepare("SELECT incident, epoch, exclusive, shared FROM leases ORDER BY incident")?;
    let mut found = statement.query(())?;
    let mut leases = Vec::new();
    while let Some(row) = found.next()? {
        leases.push(ScopeLease {
            incident: row.get(0)?,
            epoch: from_sql(row.get(1)?, "leases", 0)?,
            exclusive: rows::from_json(&row.get::<_, String>(2)?, "leases", 0)?,
            shared: rows::from_json(&row.get::<_, String>(3)?, "leases", 0)?,
        });
    }
    Ok(leases)
}

fn read_meta(connection: &Connection) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut statement = connection.prepare("SELECT key, value FROM meta ORDER BY key")?;
    let found = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
    found.collect::<Result<_, _>>().map_err(Error::Sqlite)
}

fn to_sql(number: u64) -> Result<i64, Error> {
    i64::try_from(number).map_err(|_| Error::TooLarge)
}

fn from_sql(number: i64, table: &'static str, seq: u64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|_| Error::Corrupt { table, seq, why: "a negative number".to_owned() })
}
