//! What is in memory of what the store holds: everything that may still change, and the newest of what has settled.
//!
//! A settled promise that nothing is connected to leaves memory when so many newer ones have settled, and comes back
//! when a request names it. What settled long ago and is referred to by nothing is forgotten, if so configured.

use crate::engine::core::{Core, Undo};
use crate::engine::shared::Shared;
use crate::engine::{Engine, SubmitError};
use base::{Millis, Timestamp};
use protocol::limits::SEARCH_ROWS_MAX;
use protocol::{PromiseSearch, Request, Response, Retention, Row, TaskSearch};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// LIMIT: settled promises kept in memory, unless the settings say otherwise.
pub const SETTLED_IN_MEMORY_MAX: usize = 50_000;
/// Rows looked at in one step of retention, between two of which requests are served.
const RETENTION_PAGE: usize = 500;
/// How often the whole store is searched for what may be forgotten.
pub(super) const RETENTION_EVERY: Millis = Millis(60_000);

/// What may leave memory, first come first gone.
#[derive(Debug)]
pub(super) struct Leaving {
    queue: VecDeque<String>,
    queued: HashSet<String>,
    pub(super) keep: usize,
}

impl Default for Leaving {
    fn default() -> Leaving {
        Leaving { queue: VecDeque::new(), queued: HashSet::new(), keep: SETTLED_IN_MEMORY_MAX }
    }
}

impl Leaving {
    pub(super) fn push(&mut self, id: &str) {
        if self.queued.insert(id.to_owned()) {
            self.queue.push_back(id.to_owned());
        }
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.queued.clear();
    }

    /// The next to leave, if there are more than may stay.
    fn next(&mut self) -> Option<String> {
        if self.queue.len() <= self.keep {
            return None;
        }
        let id = self.queue.pop_front()?;
        self.queued.remove(&id);
        Some(id)
    }
}

impl Core {
    /// Lets settled promises leave memory, beyond those that may stay.
    pub(super) fn let_go(&mut self) {
        while let Some(id) = self.leaving.next() {
            // What is not durable yet is touched again when it is, and asked again then.
            if !self.overlay.contains_key(&id) {
                self.memory.evict(&id);
            }
        }
    }

    /// Whether all of these are in memory or in no store.
    fn misses<'a>(&self, ids: impl Iterator<Item = &'a str>) -> Vec<(u64, &'a str)> {
        if self.places.len() == self.memory.len() {
            return Vec::new();
        }
        let absent = ids.filter(|id| !self.memory.contains(id) && !self.overlay.contains_key(*id));
        absent.filter_map(|id| self.places.get(id).map(|seq| (seq, id))).collect()
    }

    fn admit(&mut self, row: Row) {
        self.leaving.push(row.id());
        self.memory.admit(row);
    }

    /// Forgets a promise that lies at a place, if nothing refers to it.
    fn forget(&mut self, seq: u64, row: Row, retention: &Retention) -> bool {
        let id = row.id().to_owned();
        let is_there = self.places.get(&id) == Some(seq) && !self.overlay.contains_key(&id);
        if !is_there || !retention.may_forget(&self.memory, &row.promise) {
            return false;
        }
        self.memory.evict(&id);
        self.places.remove(&id, seq);
        self.open.batch.rows_gone.push(seq);
        self.open.undo.push(Undo::Forgotten(id.clone(), seq));
        // Until this is durable the promise is shown, and who asks for it waits.
        self.overlay.entry(id.clone()).or_default().push((self.epoch, Some(Arc::new(row))));
        self.open.touched.push((id, false));
        true
    }
}

impl Shared {
    /// Brings into memory what a request names and memory let go of.
    pub(super) fn warm<'a>(&self, core: &mut Core, ids: impl Iterator<Item = &'a str>) -> Result<(), SubmitError> {
        let missing = core.misses(ids);
        if !missing.is_empty() {
            core.let_go();
        }
        for (seq, id) in missing {
            let found = self.reader().row(seq).map_err(|error| {
                tracing::error!(error = &error as &dyn std::error::Error, seq, "a promise could not be read");
                SubmitError::Unavailable
            })?;
            // Another id may have the same hash; the same id may be named twice.
            let Some(row) = found.filter(|row| row.id() == id && !core.memory.contains(id)) else { continue };
            if !row.can_leave_memory() {
                tracing::error!(seq, "a promise is in the store as memory never had it");
                return Err(SubmitError::Unavailable);
            }
            core.admit(row);
        }
        Ok(())
    }

    /// Brings everything into memory, for who wants to see all of it.
    pub(super) fn warm_all(&self, core: &mut Core) -> Result<(), SubmitError> {
        if core.places.len() == core.memory.len() {
            return Ok(());
        }
        let places: Vec<u64> = core.places.all().collect();
        for seq in places {
            let found = self.reader().row(seq).map_err(|_| SubmitError::Unavailable)?;
            if let Some(row) = found.filter(|row| !core.memory.contains(row.id())) {
                core.admit(row);
            }
        }
        Ok(())
    }

    /// One pass over the store: forgets what settled before `before` and nothing refers to. Answers how many.
    pub(super) fn forget(&self, before: Timestamp) -> Result<usize, store::Error> {
        let (mut after, mut forgotten) = (None, 0);
        loop {
            let page = self.searcher().settled_before(before, after, RETENTION_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(forgotten) };
            after = Some(*last);
            let mut core = self.lock();
            if self.writable(&core).is_err() {
                return Ok(forgotten);
            }
            let retention = Retention::of(&core.memory, before).keeping(core.delivery.buried());
            for (seq, row) in page {
                forgotten += usize::from(core.forget(seq, row, &retention));
            }
            drop(core);
            self.wake();
        }
    }
}

impl Engine {
    /// Answers a search from the store, where memory does not hold everything.
    pub(super) async fn search(&self, request: &Request) -> Result<Response, SubmitError> {
        // What was accepted before is found.
        self.flush().await?;
        let (engine, request) = (self.clone(), request.clone());
        let searched = self.shared.env.compute(move || engine.search_store(&request)).await;
        match searched {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a search failed");
                Err(SubmitError::Unavailable)
            }
            Err(_) => Err(SubmitError::Unavailable),
        }
    }

    fn search_store(&self, request: &Request) -> Result<Response, store::Error> {
        let reader = self.shared.searcher();
        let (cursor, states) = match request {
            Request::PromiseSearch(PromiseSearch { cursor, state, .. }) => (cursor, (state.map(|s| s.name()), None)),
            Request::TaskSearch(TaskSearch { cursor, state, .. }) => (cursor, (None, state.map(|s| s.name()))),
            _ => return Ok(Response::refuse(400, "not a search")),
        };
        let after = cursor.as_deref().unwrap_or_default();
        let places = reader.by_id(after, states.0, states.1, SEARCH_ROWS_MAX)?;
        let is_end = places.len() < SEARCH_ROWS_MAX;
        let mut failed = None;
        let rows = places.into_iter().filter_map(|seq| match reader.row(seq) {
            Ok(row) => row.map(Arc::new),
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        let body = protocol::search_rows(request, rows, is_end);
        match failed {
            Some(error) => Err(error),
            None => Ok(body.map_or_else(|| Response::refuse(400, "not a search"), Response::ok)),
        }
    }

    /// Whether memory lacks promises that the store holds.
    pub(super) fn lacks(&self) -> bool {
        let core = self.shared.lock();
        core.places.len() != core.memory.len()
    }
}

/// Whether a body is a page of a search over promises or tasks.
pub(super) fn is_search(request: &Request) -> bool {
    matches!(request, Request::PromiseSearch(_) | Request::TaskSearch(_))
}
