//! The store: one row per paid order, in SQLite.

use rusqlite::Connection;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The payments made.
#[derive(Clone)]
pub(super) struct Ledger(Arc<Mutex<Connection>>);

impl Ledger {
    pub(super) fn open(file: &Path) -> anyhow::Result<Ledger> {
        let connection = open(file)?;
        connection.execute_batch("CREATE TABLE IF NOT EXISTS payment (id TEXT PRIMARY KEY) WITHOUT ROWID")?;
        Ok(Ledger(Arc::new(Mutex::new(connection))))
    }

    /// Records a payment; a second one for the same order changes nothing.
    pub(super) async fn append(&self, order: String) -> anyhow::Result<()> {
        let ledger = self.clone();
        tokio::task::spawn_blocking(move || {
            let connection = ledger.0.lock().unwrap_or_else(PoisonError::into_inner);
            connection.prepare("INSERT OR IGNORE INTO payment (id) VALUES (?1)")?.execute([order])?;
            Ok(())
        })
        .await?
    }

    #[cfg(test)]
    pub(super) fn count(file: &Path) -> i64 {
        let connection = open(file).expect("open");
        connection.query_row("SELECT count(*) FROM payment", [], |row| row.get(0)).expect("count")
    }
}

/// Opens a database that survives the death of its process, also while the one before is still ending.
pub(super) fn open(file: &Path) -> anyhow::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(Duration::from_secs(1))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(connection)
}
