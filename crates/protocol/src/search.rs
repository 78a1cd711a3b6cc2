//! Searches: pages of what there is, in the order of ids.
//!
//! A search applies no deadline. It looks at so many rows at most; a page may therefore be short, or empty, and
//! still carry a cursor.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::limits::{SCHEDULES_MAX, SEARCH_ROWS_MAX};
use crate::request::{Body, PromiseSearch, Request, Response, ScheduleSearch, TaskSearch};
use crate::state::Row;
use crate::view::View;

/// The size of a page that asks for none; of schedules, ten.
const PAGE: u64 = 100;
const SCHEDULES_PAGE: u64 = 10;
/// How many rows are read at a time.
const STRIDE: usize = 256;

/// Answers a search for promises or tasks over rows that come in the order of their ids, after the cursor; `None`
/// for every other request. `is_end` says whether more rows may follow the last.
#[must_use]
pub fn search_rows(request: &Request, rows: impl Iterator<Item = Arc<Row>>, is_end: bool) -> Option<Body> {
    match request {
        Request::PromiseSearch(search) => Some(search.page(rows, is_end)),
        Request::TaskSearch(search) => Some(search.page(rows, is_end)),
        _ => None,
    }
}

impl PromiseSearch {
    pub(crate) fn answer(&self, view: &dyn View) -> Response {
        let rows = Rows::after(view, self.cursor.as_deref());
        Response::ok(self.page(rows, true))
    }

    fn page(&self, rows: impl Iterator<Item = Arc<Row>>, is_end: bool) -> Body {
        let fits = |row: &Row| {
            self.state.is_none_or(|state| row.promise.state == state)
                && self.tags.iter().all(|(name, value)| row.promise.tag(name) == Some(value))
        };
        let (rows, cursor) = page(rows, is_end, self.limit, fits);
        Body::Promises { promises: rows.iter().map(|row| Arc::clone(&row.promise)).collect(), cursor }
    }
}

impl TaskSearch {
    pub(crate) fn answer(&self, view: &dyn View) -> Response {
        let rows = Rows::after(view, self.cursor.as_deref());
        Response::ok(self.page(rows, true))
    }

    fn page(&self, rows: impl Iterator<Item = Arc<Row>>, is_end: bool) -> Body {
        let fits = |row: &Row| row.task.as_ref().is_some_and(|task| self.state.is_none_or(|state| task.state == state));
        let (rows, cursor) = page(rows, is_end, self.limit, fits);
        Body::Tasks {
            tasks: rows.iter().filter_map(|row| row.task.as_ref().map(|task| task.record())).collect(),
            cursor,
        }
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

/// The rows of a view, in the order of their ids, read a few at a time.
struct Rows<'a> {
    view: &'a dyn View,
    last: String,
    read: std::vec::IntoIter<Arc<Row>>,
    is_end: bool,
}

impl<'a> Rows<'a> {
    fn after(view: &'a dyn View, cursor: Option<&str>) -> Rows<'a> {
        Rows { view, last: cursor.unwrap_or_default().to_owned(), read: Vec::new().into_iter(), is_end: false }
    }
}

impl Iterator for Rows<'_> {
    type Item = Arc<Row>;

    fn next(&mut self) -> Option<Arc<Row>> {
        if self.read.len() == 0 && !self.is_end {
            let rows = self.view.after(&self.last, STRIDE);
            self.is_end = rows.len() < STRIDE;
            if let Some(last) = rows.last() {
                last.id().clone_into(&mut self.last);
            }
            self.read = rows.into_iter();
        }
        self.read.next()
    }
}

/// The rows of a page and where the next one begins, if more rows may fit.
fn page(
    rows: impl Iterator<Item = Arc<Row>>,
    is_end: bool,
    limit: Option<u64>,
    fits: impl Fn(&Row) -> bool,
) -> (Vec<Arc<Row>>, Option<String>) {
    let limit = size(limit.unwrap_or(PAGE));
    let mut found: Vec<Arc<Row>> = Vec::new();
    let mut last = None;
    for (seen, row) in rows.enumerate() {
        if seen == SEARCH_ROWS_MAX {
            return (found, last);
        }
        if fits(&row) {
            if found.len() == limit {
                let cursor = found.last().map(|last| last.id().to_owned());
                return (found, cursor);
            }
            found.push(Arc::clone(&row));
        }
        last = Some(row.id().to_owned());
    }
    (found, last.filter(|_| !is_end))
}

fn carries(tags: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(name, value)| tags.get(name) == Some(value))
}

fn size(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}
