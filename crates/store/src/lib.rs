//! What a server remembers: promises with their tasks, the outbox, evidence, scope leases, in one transaction.
//!
//! A store writes whole batches and reads everything back at the start; memory decides in between. It knows no
//! rule of any machine. Read first: [`Store`], [`Batch`], [`Contents`]. Only this crate knows SQL.

mod directory;
mod obstacle;
mod sqlite;
#[cfg(feature = "testkit")]
pub mod testkit;

pub use directory::{Directory, DirectoryError, create as create_directory};
pub use obstacle::{Cause, Obstacle};
pub use sqlite::{Carried, Copy, READER_ENTRIES_MAX, Sqlite, SqliteReader};

use base::{Digest, Timestamp};
use std::path::PathBuf;
use std::sync::Arc;

/// Where batches go. One writer; a batch is stored as a whole or not at all.
pub trait Store: Send {
    /// Everything that memory needs to go on: of rows that can leave memory, only where they lie.
    ///
    /// # Errors
    /// The file cannot be read or holds a row that makes no sense.
    fn load(&mut self) -> Result<Contents, Error>;

    /// Writes one batch and returns once it is on stable storage.
    ///
    /// # Errors
    /// Nothing of the batch counts as written; whether it was is found out by opening the store anew.
    fn commit(&mut self, batch: &Batch) -> Result<(), Error>;
}

/// One transaction.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Promises with their tasks, by sequence number; replaces the row of that number.
    pub rows: Vec<(u64, Arc<protocol::Row>)>,
    /// Sequence numbers of promises that are gone with everything kept under their ids.
    pub rows_gone: Vec<u64>,
    /// Schedules that are new or changed.
    pub schedules: Vec<Arc<protocol::Schedule>>,
    /// Ids of schedules that are gone.
    pub schedules_gone: Vec<String>,
    /// Messages to be delivered, by sequence number.
    pub outbox: Vec<(u64, protocol::Message)>,
    /// Sequence numbers of messages that were delivered, replaced or given up.
    pub outbox_gone: Vec<u64>,
    /// Messages that are given up from now on, by the sequence number they had in the outbox.
    pub dead: Vec<(u64, DeadLetter)>,
    /// Sequence numbers of dead letters that are sent again or forgotten.
    pub dead_gone: Vec<u64>,
    /// Evidence, in log order.
    pub entries: Vec<StoredEntry>,
    /// Content by digest; storing the same content twice is not an error.
    pub blobs: Vec<(Digest, Arc<[u8]>)>,
    /// Scope leases taken or changed.
    pub leases: Vec<ScopeLease>,
    /// Incidents whose scope lease is gone.
    pub leases_gone: Vec<String>,
    /// Small facts by key.
    pub meta: Vec<(String, Vec<u8>)>,
}

/// A message that was given up, with what is known of why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The message.
    pub message: Arc<protocol::Message>,
    /// How often it was sent.
    pub attempts: u32,
    /// What the last attempt ended with, or why there was none.
    pub error: String,
    /// When it was queued.
    pub since: Timestamp,
    /// When it was given up.
    pub dead_at: Timestamp,
}

/// One record of the evidence log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its place in the log, from 0, gapless.
    pub index: u64,
    /// The incident it belongs to.
    pub incident: Option<String>,
    /// Its place in the incident, from 0.
    pub seq: Option<u64>,
    /// Its leaf hash.
    pub leaf: Digest,
    /// The record.
    pub bytes: Arc<[u8]>,
}

/// What is known of a record without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryHead {
    /// The incident it belongs to.
    pub incident: Option<String>,
    /// Its place in the incident, from 0.
    pub seq: Option<u64>,
    /// Its leaf hash.
    pub leaf: Digest,
}

/// The scopes one incident may act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeLease {
    /// The incident.
    pub incident: String,
    /// Rises with every lease ever given.
    pub epoch: u64,
    /// Scopes nobody else may hold.
    pub exclusive: Vec<String>,
    /// Scopes others may share.
    pub shared: Vec<String>,
}

/// Everything that was stored, as read at the start. Record bytes and blobs stay on disk.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Promises with their tasks, by sequence number.
    pub rows: Vec<(u64, protocol::Row)>,
    /// The ids of further promises, by sequence number: settled ones that nothing live is connected to.
    pub cold: Vec<(u64, String)>,
    /// The latest instant at which a promise was created or settled.
    pub newest: Option<base::Timestamp>,
    /// The schedules.
    pub schedules: Vec<protocol::Schedule>,
    /// Messages still to be delivered.
    pub outbox: Vec<(u64, protocol::Message)>,
    /// Messages that were given up, by the sequence number they had in the outbox. One whose promise is no longer
    /// stored is not among them: there is nothing left to send.
    pub dead: Vec<(u64, DeadLetter)>,
    /// The evidence log without its bytes, in order.
    pub entries: Vec<EntryHead>,
    /// Scope leases in force.
    pub leases: Vec<ScopeLease>,
    /// Small facts by key.
    pub meta: Vec<(String, Vec<u8>)>,
}

/// A store that cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be taken.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The file belongs to another program.
    #[error("{} is not a file of this program; it was left as it is", .0.display())]
    Foreign(PathBuf),
    /// A newer version of this program wrote the file.
    #[error("{} was written by a newer version (format {found}, this version knows {known}); it was left as it is", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: i64,
        /// The newest format this version knows.
        known: i64,
    },
    /// An older version of this program wrote the file, and it is only looked at here.
    #[error("{} was written by an older version (format {found}, this version writes {known}); start a server on it once", path.display())]
    Older {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: i64,
        /// The format this version writes.
        known: i64,
    },
    /// The file could not be brought up to date.
    #[error("{} could not be brought up to date", path.display())]
    Migration {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite_migration::Error,
    },
    /// The data directory does not take writes.
    #[error("{obstacle}")]
    Blocked {
        /// What stands in the way.
        obstacle: Obstacle,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The file cannot be read or written.
    #[error("{obstacle}")]
    File {
        /// What stands in the way.
        obstacle: Obstacle,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is damaged.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite found.
        why: String,
    },
    /// The file is a server's own, and what it logged beside it may be missing.
    #[error("{} is the file of a server and no backup: what stood in the log beside it is not in it", .0.display())]
    NoCopy(PathBuf),
    /// Another program reads the database and does not let go of it.
    #[error("another program holds {} open in a transaction; end it and start again", .0.display())]
    Held(PathBuf),
    /// A server started on the directory that was copied, and must not wait for the copy.
    #[error("a server started on {} while it was copied, and came first", .0.display())]
    GaveWay(PathBuf),
    /// SQLite refused or failed.
    #[error("the database failed")]
    Sqlite(#[from] rusqlite::Error),
    /// A stored row makes no sense.
    #[error("row {seq} of table {table} cannot be read: {why}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The row.
        seq: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A number does not fit the file format.
    #[error("a number is too large to be stored")]
    TooLarge,
    /// The write was refused on purpose, by a test's store.
    #[error("the write was refused: {0}")]
    Refused(&'static str),
}
