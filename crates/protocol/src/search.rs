//! Searches: pages of what there is, in the order of ids.
//!
//! A search applies no deadline. It looks at so many rows at most; a page may therefore be short, or empty, and
//! still carry a cursor.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::limits::{SCHEDULES_MAX, SEARCH_ROWS_MAX};
use crate::request::{Body, PromiseSearch, Response, ScheduleSearch, TaskSearch};
use crate::state::Row;
use crate::view::View;

/// The size of a page that asks for none; of schedules, ten.
const PAGE: u64 = 100;
const SCHEDULES_PAGE: u64 = 10;
/// How many rows are read at a time.
const STRIDE: usize = 256;

impl PromiseSearch {
    pub(crate) fn answer(&self, view: &dyn View) -> Response {
        let fits = |row: &Row| {
            self.state.is_none_or(|state| row.promise.state == state) && carries(&row.promise.tags, &self.tags)
        };
        let (rows, cursor) = page(view, self.cursor.as_deref(), self.limit, fits);
        let promises = rows.iter().map(|row| Arc::clone(&row.promise)).collect();
        Response::ok(Body::Promises { promises, cursor })
    }
}

impl TaskSearch {
    pub(crate) fn answer(&self, view: &dyn View) -> Response {
        let fits = |row: &Row| row.task.as_ref().is_some_and(|task| self.state.is_none_or(|state| task.state == state));
        let (rows, cursor) = page(view, self.cursor.as_deref(), self.limit, fits);
        let tasks = rows.iter().filter_map(|row| row.task.as_ref().map(|task| task.record())).collect();
        Response::ok(Body::Tasks { tasks, cursor })
    }
}

impl ScheduleSearch {
    pub(crate) fn answer(&self, view: &dyn View) -> Response {
        let limit = size(self.limit.unwrap_or(SCHEDULES_PAGE));
        let all = view.schedules_after(self.cursor.as_deref().unwrap_or_default(), SCHEDULES_MAX);
        let mut fitting = all.into_iter().filter(|schedule| carries(&schedule.promise_tags, &self.tags));
        let schedules: Vec<_> = fitting.by_ref().take(limit).collect();
        let more = fitting.next().is_some();
        let cursor = schedules.last().filter(|_| more).map(|last| last.id.clone());
        Response::ok(Body::Schedules { schedules, cursor })
    }
}

/// The rows of a page and where the next one begins, if more rows may fit.
fn page(
    view: &dyn View,
    cursor: Option<&str>,
    limit: Option<u64>,
    fits: impl Fn(&Row) -> bool,
) -> (Vec<Arc<Row>>, Option<String>) {
    let limit = size(limit.unwrap_or(PAGE));
    let mut found: Vec<Arc<Row>> = Vec::new();
    let mut last = cursor.unwrap_or_default().to_owned();
    let mut seen = 0;
    loop {
        let rows = view.after(&last, STRIDE);
        let is_end = rows.len() < STRIDE;
        for row in rows {
            if fits(&row) {
                if found.len() == limit {
                    let cursor = found.last().map(|last| last.id().to_owned());
                    return (found, cursor);
                }
                found.push(Arc::clone(&row));
            }
            seen += 1;
            row.id().clone_into(&mut last);
        }
        if is_end {
            return (found, None);
        }
        if seen >= SEARCH_ROWS_MAX {
            return (found, Some(last));
        }
    }
}

fn carries(tags: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(name, value)| tags.get(name) == Some(value))
}

fn size(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}
