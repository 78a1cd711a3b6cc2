//! A store's copy in one file: made beside a running server, examined before anybody relies on it, put back.

use super::{BUSY_TIMEOUT, FILE_NAME, Sqlite, SqliteReader, explained, read_contents, rows, schema};
use crate::directory::Holder;
use crate::{Contents, Error, Obstacle};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, params};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Pages copied in one step: between two steps a copy finds out whether it is in somebody's way.
const STEP_PAGES: i32 = 1_024;
/// The pause before a step that found the copy in use is tried again.
const BUSY_NAP: Duration = Duration::from_millis(10);
/// Where the header of a database says how it is read and written; 2 stands for a write-ahead log beside it.
const MODES: std::ops::Range<usize> = 18..20;

/// A file that a copy carries beside the rows: its name, and its content.
pub type Carried = (String, Vec<u8>);

/// A copy that was examined: whole, ours, and no newer than this program.
#[derive(Debug)]
pub struct Copy {
    /// Everything in it that memory would need.
    pub contents: Contents,
    /// Reads its records.
    pub reader: SqliteReader,
    /// The version of the file's format.
    pub format: i64,
    /// The names of the files that it carries.
    pub carried: Vec<String>,
}

impl Sqlite {
    /// Copies the database of a data directory into a new file, while a server uses it or not: everything that is
    /// durable when the copy begins is in it, nothing of what comes later, and it is synced. `carried` travels along.
    /// What dies in between leaves half a file under this name.
    ///
    /// A server that starts needs the write-ahead log for itself, and a copy keeps it: the copy gives way.
    ///
    /// # Errors
    /// There is no database, it is not ours, the copy cannot be written, or a server started meanwhile.
    pub fn copy(directory: &Path, to: &Path, carried: &[Carried]) -> Result<(), Error> {
        let (path, holder) = (directory.join(FILE_NAME), Holder::of(directory));
        let source = open_to_read(&path)?;
        schema::examine_as_is(&source, &path)?;
        let written =
            copy(&source, to, || goes_on(directory, &holder)).and_then(|mut target| carry(&mut target, carried));
        written.map_err(|error| explained(to, error))?;
        sync(to).map_err(|source| blocked(to, source))
    }

    /// Examines a copy as a whole.
    ///
    /// # Errors
    /// It is damaged, foreign, newer than this program, or no copy but the file of a server.
    pub fn examine(path: &Path) -> Result<Copy, Error> {
        let mut header = [0; 100];
        let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
        read.map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::Foreign(path.to_owned()),
            _ => blocked(path, source),
        })?;
        let connection = open_to_read(path)?;
        let format = schema::require(&connection, path)?;
        if header.get(MODES).is_some_and(|modes| modes.contains(&2)) {
            return Err(Error::NoCopy(path.to_owned()));
        }
        whole(&connection, path)?;
        let carried = if has_carried(&connection)? { names(&connection)? } else { Vec::new() };
        Ok(Copy {
            contents: read_contents(&connection, rows::Which::All)?,
            reader: SqliteReader { connection },
            format,
            carried,
        })
    }

    /// Takes the files that a copy carries out of it; it holds nothing of them afterwards.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn unload(path: &Path) -> Result<Vec<Carried>, Error> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        if !has_carried(&connection)? {
            return Ok(Vec::new());
        }
        let carried = {
            let mut statement = connection.prepare("SELECT name, bytes FROM carried ORDER BY name")?;
            let found = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
            found.collect::<Result<Vec<Carried>, _>>()?
        };
        connection.pragma_update(None, "secure_delete", "ON")?;
        connection.execute_batch("PRAGMA synchronous = FULL; DROP TABLE carried; VACUUM;")?;
        drop(connection);
        sync(path).map_err(|source| blocked(path, source))?;
        Ok(carried)
    }

    /// The name of the database in a data directory.
    #[must_use]
    pub fn file_of(directory: &Path) -> PathBuf {
        directory.join(FILE_NAME)
    }
}

fn open_to_read(path: &Path) -> Result<Connection, Error> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// Whether nobody took the directory since.
fn goes_on(directory: &Path, holder: &Holder) -> Result<(), Error> {
    if Holder::of(directory) == *holder { Ok(()) } else { Err(Error::GaveWay(directory.to_owned())) }
}

fn copy(source: &Connection, to: &Path, goes_on: impl Fn() -> Result<(), Error>) -> Result<Connection, Error> {
    // One read transaction holds the moment of the copy; writers go on beside it.
    let moment = source.unchecked_transaction()?;
    moment.query_row("SELECT count(*) FROM sqlite_schema", (), |_| Ok(()))?;
    let mut target = Connection::open(to)?;
    // Half a copy is worth nothing: it needs no journal, and is synced once when it is whole.
    target.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
    {
        let backup = Backup::new(source, &mut target)?;
        let mut patience = BUSY_TIMEOUT;
        loop {
            match backup.step(STEP_PAGES)? {
                StepResult::Done => break,
                StepResult::More => goes_on()?,
                // Somebody else has the target.
                _ if patience.is_zero() => return Err(Error::Held(to.to_owned())),
                _ => {
                    std::thread::sleep(BUSY_NAP);
                    patience = patience.saturating_sub(BUSY_NAP);
                }
            }
        }
    }
    // One file, with no log beside it.
    target.query_row("PRAGMA journal_mode = DELETE", (), |_| Ok(()))?;
    Ok(target)
}

fn carry(target: &mut Connection, carried: &[Carried]) -> Result<(), Error> {
    if carried.is_empty() {
        return Ok(());
    }
    let transaction = target.transaction()?;
    transaction.execute_batch("CREATE TABLE carried (name TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT;")?;
    for (name, bytes) in carried {
        transaction.execute("INSERT INTO carried (name, bytes) VALUES (?1, ?2)", params![name, bytes])?;
    }
    transaction.commit()?;
    Ok(())
}

fn has_carried(connection: &Connection) -> Result<bool, Error> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'carried'";
    Ok(connection.query_row(sql, (), |row| row.get::<_, i64>(0))? > 0)
}

fn names(connection: &Connection) -> Result<Vec<String>, Error> {
    let mut statement = connection.prepare("SELECT name FROM carried ORDER BY name")?;
    let found = statement.query_map((), |row| row.get(0))?;
    found.collect::<Result<_, _>>().map_err(Error::Sqlite)
}

/// Whether every page of a database is what it should be.
fn whole(connection: &Connection, path: &Path) -> Result<(), Error> {
    let mut statement = connection.prepare("PRAGMA integrity_check(1)")?;
    let mut found = statement.query(())?;
    let said: String = match found.next()? {
        Some(row) => row.get(0)?,
        None => "no answer".to_owned(),
    };
    if said == "ok" { Ok(()) } else { Err(Error::Damaged { path: path.to_owned(), why: said }) }
}

fn sync(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

fn blocked(path: &Path, source: std::io::Error) -> Error {
    Error::File { obstacle: Obstacle::of(path, &source), source }
}

#[cfg(test)]
mod tests;
