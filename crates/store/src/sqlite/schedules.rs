//! Schedules as rows of columns; there are few, so they are kept by their ids.

use super::rows::{from_json, json};
use super::{from_sql, to_sql};
use crate::{Batch, Error};
use base::{Millis, Timestamp};
use protocol::{Schedule, Value};
use rusqlite::{Connection, Transaction, params};

const TABLE: &str = "schedules";

pub(super) fn write(transaction: &Transaction<'_>, batch: &Batch) -> Result<(), Error> {
    for id in &batch.schedules_gone {
        transaction.prepare_cached("DELETE FROM schedules WHERE id = ?1")?.execute(params![id])?;
    }
    for schedule in &batch.schedules {
        let sql = "INSERT OR REPLACE INTO schedules (id, cron, promise_id, promise_timeout, param_headers, param_data,
          tags, created_at, next_run_at, last_run_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        let Schedule { id, cron, promise_id, promise_timeout, promise_param, promise_tags, .. } = &**schedule;
        transaction.prepare_cached(sql)?.execute(params![
            id,
            cron,
            promise_id,
            to_sql(promise_timeout.0)?,
            promise_param.headers.as_ref().map(json),
            promise_param.data,
            json(promise_tags),
            schedule.created_at.0,
            schedule.next_run_at.0,
            schedule.last_run_at.map(|at| at.0),
        ])?;
    }
    Ok(())
}

pub(super) fn read(connection: &Connection) -> Result<Vec<Schedule>, Error> {
    let sql = "SELECT id, cron, promise_id, promise_timeout, param_headers, param_data, tags,
      created_at, next_run_at, last_run_at FROM schedules ORDER BY id";
    let mut statement = connection.prepare(sql)?;
    let mut found = statement.query(())?;
    let mut schedules = Vec::new();
    while let Some(row) = found.next()? {
        let headers: Option<String> = row.get(4)?;
        let headers = headers.map(|text| from_json(&text, TABLE, 0)).transpose()?;
        schedules.push(Schedule {
            id: row.get(0)?,
            cron: row.get(1)?,
            promise_id: row.get(2)?,
            promise_timeout: Millis(from_sql(row.get(3)?, TABLE, 0)?),
            promise_param: Value { headers, data: row.get(5)? },
            promise_tags: from_json(&row.get::<_, String>(6)?, TABLE, 0)?,
            created_at: Timestamp(row.get(7)?),
            next_run_at: Timestamp(row.get(8)?),
            last_run_at: row.get::<_, Option<i64>>(9)?.map(Timestamp),
        });
    }
    Ok(schedules)
}
