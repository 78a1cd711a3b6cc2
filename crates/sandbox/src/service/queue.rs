//! The queue: messages with their trace context, leased to a consumer until it says they are done.

use super::ledger;
use crate::clock;
use axum::http::HeaderMap;
use bytes::Bytes;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// LIMIT: messages in one batch.
const BATCH_MAX: u32 = 64;
/// How long a taken message stays with its consumer before another may have it.
const LEASE_MS: i64 = 3_000;
/// How long a consumer waits for a first message.
const WAIT: Duration = Duration::from_millis(200);

/// The messages.
#[derive(Clone)]
pub(super) struct Queue {
    connection: Arc<Mutex<Connection>>,
    arrived: Arc<Notify>,
}

/// What a consumer asks for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Wanted {
    /// How many at most.
    pub(super) max: u32,
    /// Messages that are done.
    pub(super) done: Vec<i64>,
}

/// What it gets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Batch {
    /// Oldest first.
    pub(super) messages: Vec<Message>,
}

/// One message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Message {
    /// Its number.
    pub(super) id: i64,
    /// What it says.
    pub(super) body: String,
    /// The trace context of its sender.
    pub(super) traceparent: String,
}

impl Queue {
    pub(super) fn open(file: &Path) -> anyhow::Result<Queue> {
        let connection = ledger::open(file)?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS message (
                id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL, traceparent TEXT NOT NULL,
                taken_until_ms INTEGER NOT NULL DEFAULT 0)",
        )?;
        Ok(Queue { connection: Arc::new(Mutex::new(connection)), arrived: Arc::default() })
    }

    /// Puts a message in.
    pub(super) async fn put(&self, body: Bytes, carried: &HeaderMap) -> anyhow::Result<()> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let traceparent = carried.get("traceparent").map(|value| text(value.as_bytes())).unwrap_or_default();
        let body = text(&body);
        self.on_connection(move |connection| {
            let mut insert = connection.prepare("INSERT INTO message (body, traceparent) VALUES (?1, ?2)")?;
            insert.execute(params![body, traceparent])?;
            Ok(())
        })
        .await?;
        self.arrived.notify_one();
        Ok(())
    }

    /// Forgets what is done and leases out the oldest of the rest; waits a little for a first one.
    pub(super) async fn take(&self, wanted: Wanted) -> anyhow::Result<Batch> {
        let max = wanted.max.min(BATCH_MAX);
        let batch = self.lease(max, wanted.done).await?;
        if !batch.messages.is_empty() || tokio::time::timeout(WAIT, self.arrived.notified()).await.is_err() {
            return Ok(batch);
        }
        self.lease(max, Vec::new()).await
    }

    async fn lease(&self, max: u32, done: Vec<i64>) -> anyhow::Result<Batch> {
        let now_ms = clock::now_ms();
        self.on_connection(move |connection| {
            let transaction = connection.unchecked_transaction()?;
            for id in done {
                transaction.prepare("DELETE FROM message WHERE id = ?1")?.execute([id])?;
            }
            let mut messages: Vec<Message> = transaction
                .prepare(
                    "UPDATE message SET taken_until_ms = ?1 WHERE id IN
                     (SELECT id FROM message WHERE taken_until_ms < ?2 ORDER BY id LIMIT ?3)
                     RETURNING id, body, traceparent",
                )?
                .query_map(params![now_ms + LEASE_MS, now_ms, max], |row| {
                    Ok(Message { id: row.get(0)?, body: row.get(1)?, traceparent: row.get(2)? })
                })?
                .collect::<Result<_, _>>()?;
            transaction.commit()?;
            messages.sort_by_key(|message| message.id);
            Ok(Batch { messages })
        })
        .await
    }

    async fn on_connection<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Connection) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let connection = self.connection.clone();
        let acting = move || act(&connection.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(acting).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_is_leased_once_and_survives_its_process() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("queue.sqlite");
        let queue = Queue::open(&file).expect("open");
        let mut carried = HeaderMap::new();
        carried.insert("traceparent", "00-1-2-01".parse().expect("header"));
        queue.put(Bytes::from_static(b"one"), &carried).await.expect("put");
        queue.put(Bytes::from_static(b"two"), &carried).await.expect("put");
        let first = queue.take(Wanted { max: 1, done: Vec::new() }).await.expect("take").messages;
        assert_eq!((first[0].body.as_str(), first[0].traceparent.as_str()), ("one", "00-1-2-01"));
        let second = queue.take(Wanted { max: 9, done: vec![first[0].id] }).await.expect("take").messages;
        assert_eq!(second.len(), 1, "the first is with its consumer, then done");
        drop(queue);
        let again = Queue::open(&file).expect("open");
        again
            .on_connection(|connection| Ok(connection.execute("UPDATE message SET taken_until_ms = 0", [])?))
            .await
            .expect("lease over");
        let left = again.take(Wanted { max: 9, done: Vec::new() }).await.expect("take").messages;
        assert_eq!(left.iter().map(|message| message.body.as_str()).collect::<Vec<_>>(), ["two"]);
    }

    #[tokio::test]
    async fn a_batch_has_so_many_messages_however_many_are_wanted() {
        let dir = tempfile::tempdir().expect("dir");
        let queue = Queue::open(&dir.path().join("queue.db")).expect("open");
        for number in 0..=BATCH_MAX {
            queue.put(Bytes::from(number.to_string()), &HeaderMap::new()).await.expect("put");
        }
        let wanted = Wanted { max: u32::MAX, done: Vec::new() };
        let batch = queue.take(wanted).await.expect("take").messages;
        assert_eq!(batch.len(), BATCH_MAX as usize);
        let done = batch.iter().map(|message| message.id).collect();
        let rest = queue.take(Wanted { max: BATCH_MAX, done }).await.expect("take").messages;
        assert_eq!((rest.len(), rest[0].body.as_str()), (1, BATCH_MAX.to_string().as_str()));
    }
}
