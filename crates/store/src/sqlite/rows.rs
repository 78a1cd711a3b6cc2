//! Promises, tasks and the outbox as rows of columns.

use super::{from_sql, to_sql};
use crate::{Batch, DeadLetter, Error};
use base::{Millis, Timestamp};
use protocol::{Message, Promise, PromiseState, Row, Task, TaskState, Value};
use rusqlite::types::{FromSql, ValueRef};
use rusqlite::{Connection, Row as SqlRow, Statement, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

const EXECUTE: &str = "execute";
const UNBLOCK: &str = "unblock";

/// Columns are read in the order in which [`Fields`] are taken.
const READ: &str = "SELECT seq, id, state, param_headers, param_data, value_headers, value_data, tags,
  timeout_at, created_at, settled_at, callbacks, listeners,
  task_state, task_version, task_resumes, task_ttl, task_pid, task_retry_at, task_lease_at,
  task_attempts, task_reason
  FROM rows";
/// The place of `callbacks` in [`READ`].
const CALLBACKS: usize = 11;

/// Values are given in this order: to find each by its name would cost more than to bind it.
const PUT: &str = "INSERT OR REPLACE INTO rows (seq, id, state, timeout_at, created_at, settled_at,
  param_headers, param_data, value_headers, value_data, tags, callbacks, listeners,
  task_state, task_version, task_resumes, task_ttl, task_pid, task_retry_at, task_lease_at,
  task_attempts, task_reason)
  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)";

/// Writes the rows and the outbox of a batch.
pub(super) fn write(transaction: &Transaction<'_>, batch: &Batch) -> Result<(), Error> {
    if !batch.rows.is_empty() {
        let mut statement = transaction.prepare_cached(PUT)?;
        for (seq, row) in &batch.rows {
            put(&mut statement, *seq, row)?;
        }
    }
    for seq in &batch.rows_gone {
        transaction.prepare_cached("DELETE FROM rows WHERE seq = ?1")?.execute(params![to_sql(*seq)?])?;
    }
    for seq in &batch.outbox_gone {
        transaction.prepare_cached("DELETE FROM outbox WHERE seq = ?1")?.execute(params![to_sql(*seq)?])?;
    }
    for (seq, message) in &batch.outbox {
        let sql = "INSERT INTO outbox (seq, kind, id, address, version) VALUES (?1, ?2, ?3, ?4, ?5)";
        let (kind, id, version) = columns(message)?;
        transaction.prepare_cached(sql)?.execute(params![to_sql(*seq)?, kind, id, message.address(), version])?;
    }
    write_dead(transaction, batch)
}

fn write_dead(transaction: &Transaction<'_>, batch: &Batch) -> Result<(), Error> {
    for seq in &batch.dead_gone {
        transaction.prepare_cached("DELETE FROM dead_letters WHERE seq = ?1")?.execute(params![to_sql(*seq)?])?;
    }
    for (seq, DeadLetter { message, attempts, error, since, dead_at }) in &batch.dead {
        let sql = "INSERT INTO dead_letters (seq, kind, id, address, version, attempts, error, since, dead_at)
          VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let (kind, id, version) = columns(message)?;
        let address = message.address();
        let values = params![to_sql(*seq)?, kind, id, address, version, attempts, error, since.0, dead_at.0];
        transaction.prepare_cached(sql)?.execute(values)?;
    }
    Ok(())
}

/// The kind of a message, what it is about, and the version it offers.
fn columns(message: &Message) -> Result<(&'static str, &str, Option<i64>), Error> {
    Ok(match message {
        Message::Execute { task_id, version, .. } => (EXECUTE, task_id, Some(to_sql(*version)?)),
        Message::Unblock { promise, .. } => (UNBLOCK, &promise.id, None),
    })
}

fn put(statement: &mut Statement<'_>, seq: u64, row: &Row) -> Result<(), Error> {
    let Row { promise, task, callbacks, listeners } = row;
    let headers = |value: &Value| value.headers.as_ref().map(map);
    let task = task.as_deref();
    statement.execute(params![
        to_sql(seq)?,
        promise.id,
        promise.state.name(),
        promise.timeout_at.0,
        promise.created_at.0,
        promise.settled_at.map(|at| at.0),
        headers(&promise.param),
        promise.param.data,
        headers(&promise.value),
        promise.value.data,
        json(&promise.tags),
        set(callbacks),
        set(listeners),
        task.map(|task| task.state.name()),
        task.map(|task| to_sql(task.version)).transpose()?,
        task.map(|task| set(&task.resumes)),
        task.and_then(|task| task.ttl).map(|ttl| to_sql(ttl.0)).transpose()?,
        task.and_then(|task| task.pid.as_deref()),
        task.and_then(|task| task.retry_at).map(|at| at.0),
        task.and_then(|task| task.lease_at).map(|at| at.0),
        task.map(|task| task.attempts),
        task.and_then(|task| task.reason.as_deref()),
    ])?;
    Ok(())
}

/// The columns of one row, one after the other: finding each by its name would cost more than reading it.
struct Fields<'a, 'b> {
    row: &'a SqlRow<'b>,
    seq: u64,
    at: usize,
}

impl Fields<'_, '_> {
    fn next<T: FromSql>(&mut self) -> Result<T, Error> {
        let column = self.at;
        self.at += 1;
        Ok(self.row.get(column)?)
    }

    fn number(&mut self) -> Result<u64, Error> {
        from_sql(self.next()?, "rows", self.seq)
    }

    fn instant(&mut self) -> Result<Option<Timestamp>, Error> {
        Ok(self.next::<Option<i64>>()?.map(Timestamp))
    }

    fn texts<T: DeserializeOwned + Default>(&mut self) -> Result<T, Error> {
        let column = self.at;
        self.at += 1;
        match self.row.get_ref(column)?.as_str() {
            // Most are empty, and a start reads them all.
            Ok("[]" | "{}") => Ok(T::default()),
            Ok(text) => from_json(text, "rows", self.seq),
            Err(wrong) => Err(Error::Corrupt { table: "rows", seq: self.seq, why: wrong.to_string() }),
        }
    }

    fn value(&mut self) -> Result<Value, Error> {
        let headers: Option<String> = self.next()?;
        let headers = headers.map(|text| from_json(&text, "rows", self.seq)).transpose()?;
        Ok(Value { headers, data: self.next()? })
    }

    fn state<T>(&mut self, from_name: impl Fn(&str) -> Option<T>) -> Result<T, Error> {
        let name: String = self.next()?;
        let why = format!("unknown state `{name}`");
        from_name(&name).ok_or(Error::Corrupt { table: "rows", seq: self.seq, why })
    }
}

/// Which promises to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// All of them.
    All,
    /// Those that memory cannot do without; of the others only the ids.
    Live,
}

/// What was read.
pub(super) struct Found {
    pub(super) rows: Vec<(u64, Row)>,
    pub(super) cold: Vec<(u64, String)>,
    pub(super) newest: Option<Timestamp>,
}

/// Reads promises with their tasks, by sequence number.
pub(super) fn read(connection: &Connection, which: Which) -> Result<Found, Error> {
    let mut statement = connection.prepare(&format!("{READ} ORDER BY seq"))?;
    let mut found = statement.query(())?;
    let (mut rows, mut cold, mut newest) = (Vec::new(), Vec::new(), None);
    while let Some(row) = found.next()? {
        let seq = from_sql(row.get(0)?, "rows", 0)?;
        let instants: (i64, Option<i64>) = (row.get("created_at")?, row.get("settled_at")?);
        newest = newest.max(Some(Timestamp(instants.0.max(instants.1.unwrap_or(i64::MIN)))));
        match (which, cold_id(row)) {
            (Which::Live, Some(id)) => cold.push((seq, id.to_owned())),
            (Which::All | Which::Live, _) => rows.push((seq, read_row(Fields { row, seq, at: 1 })?)),
        }
    }
    Ok(Found { rows, cold, newest })
}

/// The id of a row that can leave memory: the same rule as [`Row::can_leave_memory`], without reading all of it.
fn cold_id<'a>(row: &'a SqlRow<'_>) -> Option<&'a str> {
    let text = |column: usize| row.get_ref(column).ok()?.as_str().ok();
    let id = text(1)?;
    let pending = text(2)? == PromiseState::Pending.name();
    let waited_for = text(CALLBACKS)? != "[]";
    (!pending && !waited_for && !protocol::is_reserved(id)).then_some(id)
}

/// Reads the promise of one sequence number.
pub(super) fn read_one(connection: &Connection, seq: u64) -> Result<Option<Row>, Error> {
    let mut statement = connection.prepare_cached(&format!("{READ} WHERE seq = ?1"))?;
    let mut found = statement.query(params![to_sql(seq)?])?;
    found.next()?.map(|row| read_row(Fields { row, seq, at: 1 })).transpose()
}

/// Reads a page of promises that settled before an instant.
pub(super) fn read_settled(
    connection: &Connection,
    before: Timestamp,
    after: Option<u64>,
    limit: usize,
) -> Result<Vec<(u64, Row)>, Error> {
    let sql = format!("{READ} WHERE seq > ?1 AND settled_at < ?2 AND state != 'pending' ORDER BY seq LIMIT ?3");
    let mut statement = connection.prepare_cached(&sql)?;
    let after = after.map(to_sql).transpose()?.unwrap_or(-1);
    let limit = i64::try_from(limit).map_err(|_| Error::TooLarge)?;
    let mut found = statement.query(params![after, before.0, limit])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let seq = from_sql(row.get(0)?, "rows", 0)?;
        rows.push((seq, read_row(Fields { row, seq, at: 1 })?));
    }
    Ok(rows)
}

/// Reads where the promises with greater ids lie.
pub(super) fn read_by_id(
    connection: &Connection,
    after: &str,
    (promise_state, task_state): (Option<&str>, Option<&str>),
    limit: usize,
) -> Result<Vec<u64>, Error> {
    let sql = "SELECT seq FROM rows WHERE id > ?1 AND (?2 IS NULL OR state = ?2) AND (?3 IS NULL OR task_state = ?3)
      ORDER BY id LIMIT ?4";
    let mut statement = connection.prepare_cached(sql)?;
    let limit = i64::try_from(limit).map_err(|_| Error::TooLarge)?;
    let mut found = statement.query(params![after, promise_state, task_state, limit])?;
    let mut numbers = Vec::new();
    while let Some(row) = found.next()? {
        numbers.push(from_sql(row.get(0)?, "rows", 0)?);
    }
    Ok(numbers)
}

fn read_row(mut fields: Fields<'_, '_>) -> Result<Row, Error> {
    let promise = Promise {
        id: fields.next()?,
        state: fields.state(PromiseState::from_name)?,
        param: fields.value()?,
        value: fields.value()?,
        tags: fields.texts()?,
        timeout_at: Timestamp(fields.next()?),
        created_at: Timestamp(fields.next()?),
        settled_at: fields.instant()?,
    };
    let (callbacks, listeners) = (fields.texts()?, fields.texts()?);
    let has_task = fields.row.get_ref(fields.at)? != ValueRef::Null;
    let task = if has_task { Some(Arc::new(read_task(fields, &promise.id)?)) } else { None };
    Ok(Row { promise: Arc::new(promise), task, callbacks, listeners })
}

fn read_task(mut fields: Fields<'_, '_>, id: &str) -> Result<Task, Error> {
    let (state, version, resumes) = (fields.state(TaskState::from_name)?, fields.number()?, fields.texts()?);
    let ttl: Option<i64> = fields.next()?;
    let ttl = ttl.map(|ttl| from_sql(ttl, "rows", fields.seq)).transpose()?.map(Millis);
    let pid = fields.next()?;
    let (retry_at, lease_at) = (fields.instant()?, fields.instant()?);
    // Absent in what an older version wrote.
    let attempts = fields.next::<Option<u32>>()?.unwrap_or(0);
    let reason = fields.next()?;
    Ok(Task { id: id.to_owned(), state, version, resumes, ttl, pid, retry_at, lease_at, attempts, reason })
}

/// What unblocks are about: each takes its promise from the rows, where it can no longer change.
pub(super) struct Promises<'a> {
    connection: &'a Connection,
    rows: &'a [(u64, Row)],
    cold: &'a [(u64, String)],
    by_id: Option<ById<'a>>,
}

/// Promises by their ids: those that were read, and where the others stand.
struct ById<'a> {
    live: HashMap<&'a str, &'a Arc<Promise>>,
    cold: HashMap<&'a str, u64>,
}

impl<'a> Promises<'a> {
    pub(super) fn of(connection: &'a Connection, rows: &'a [(u64, Row)], cold: &'a [(u64, String)]) -> Promises<'a> {
        Promises { connection, rows, cold, by_id: None }
    }

    fn get(&mut self, id: &str) -> Result<Option<Arc<Promise>>, Error> {
        // Most starts find no unblock at all.
        let ById { live, cold } = self.by_id.get_or_insert_with(|| ById {
            live: self.rows.iter().map(|(_, row)| (row.id(), &row.promise)).collect(),
            cold: self.cold.iter().map(|(seq, id)| (id.as_str(), *seq)).collect(),
        });
        match (live.get(id), cold.get(id)) {
            (Some(promise), _) => Ok(Some(Arc::clone(promise))),
            (None, Some(seq)) => Ok(read_one(self.connection, *seq)?.map(|row| row.promise)),
            (None, None) => Ok(None),
        }
    }
}

/// Reads the outbox.
pub(super) fn read_outbox(connection: &Connection, promises: &mut Promises<'_>) -> Result<Vec<(u64, Message)>, Error> {
    let mut statement = connection.prepare("SELECT seq, kind, id, address, version FROM outbox ORDER BY seq")?;
    let mut found = statement.query(())?;
    let mut messages = Vec::new();
    while let Some(row) = found.next()? {
        let seq = from_sql(row.get(0)?, "outbox", 0)?;
        let corrupt = || Error::Corrupt { table: "outbox", seq, why: "its promise does not exist".to_owned() };
        messages.push((seq, read_message(row, "outbox", seq, promises)?.ok_or_else(corrupt)?));
    }
    Ok(messages)
}

/// Reads the messages that were given up.
pub(super) fn read_dead(connection: &Connection, promises: &mut Promises<'_>) -> Result<Vec<(u64, DeadLetter)>, Error> {
    let sql = "SELECT seq, kind, id, address, version, attempts, error, since, dead_at FROM dead_letters ORDER BY seq";
    let mut statement = connection.prepare(sql)?;
    let mut found = statement.query(())?;
    let mut letters = Vec::new();
    while let Some(row) = found.next()? {
        let seq = from_sql(row.get(0)?, "dead_letters", 0)?;
        let Some(message) = read_message(row, "dead_letters", seq, promises)? else { continue };
        let (message, attempts, error) = (Arc::new(message), row.get(5)?, row.get(6)?);
        let (since, dead_at) = (Timestamp(row.get(7)?), Timestamp(row.get(8)?));
        letters.push((seq, DeadLetter { message, attempts, error, since, dead_at }));
    }
    Ok(letters)
}

/// The message in the columns after the first; `None` if its promise is not stored.
fn read_message(
    row: &SqlRow<'_>,
    table: &'static str,
    seq: u64,
    promises: &mut Promises<'_>,
) -> Result<Option<Message>, Error> {
    let (kind, id, address): (String, String, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
    match kind.as_str() {
        EXECUTE => Ok(Some(Message::Execute { task_id: id, version: from_sql(row.get(4)?, table, seq)?, address })),
        UNBLOCK => Ok(promises.get(&id)?.map(|promise| Message::Unblock { address, promise })),
        _ => Err(Error::Corrupt { table, seq, why: "an unknown kind of message".to_owned() }),
    }
}

/// Most sets are empty.
fn set(texts: &BTreeSet<String>) -> Cow<'static, str> {
    if texts.is_empty() { Cow::Borrowed("[]") } else { Cow::Owned(json(texts)) }
}

fn map(texts: &BTreeMap<String, String>) -> Cow<'static, str> {
    if texts.is_empty() { Cow::Borrowed("{}") } else { Cow::Owned(json(texts)) }
}

/// Renders lists and maps of texts, which cannot fail to render.
pub(super) fn json(texts: &impl Serialize) -> String {
    serde_json::to_string(texts).unwrap_or_default()
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str, table: &'static str, seq: u64) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|e| Error::Corrupt { table, seq, why: e.to_string() })
}
