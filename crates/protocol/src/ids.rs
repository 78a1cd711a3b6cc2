//! The rules of ids: both formats, lineage, and the ids that belong to the server.

use std::collections::BTreeMap;

use base::Timestamp;

use crate::request::{Request, Response};
use crate::schedule::firing_id;
use crate::state::Promise;
use crate::tags::{BRANCH, ORIGIN, PARENT, PREFIX};
use crate::validate::validate;

/// Whether an id belongs to the server: its root is `inc` or `hold`.
#[must_use]
pub fn is_reserved(id: &str) -> bool {
    let root = id.split(['/', ':', '.']).next().unwrap_or("");
    root == "inc" || root == "hold"
}

/// The 403 for a request from the wire that would write a reserved id, for every token.
///
/// Reads, listeners and the moves of ownership (acquire, heartbeat, release) are open: they never
/// carry a result. A malformed request is left to [`crate::apply`], which answers 400.
#[must_use]
pub fn reserved_refusal(request: &Request) -> Option<Response> {
    let fired;
    let written: Vec<&str> = match request {
        Request::PromiseGet { .. }
        | Request::TaskGet { .. }
        | Request::RegisterListener { .. }
        | Request::TaskAcquire { .. }
        | Request::TaskRelease(_)
        | Request::TaskHeartbeat { .. }
        | Request::PromiseSearch(_)
        | Request::TaskSearch(_)
        | Request::ScheduleGet { .. }
        | Request::ScheduleDelete { .. }
        | Request::ScheduleSearch(_)
        | Request::Debug(_) => Vec::new(),
        Request::TaskHalt { id } | Request::TaskContinue { id } => vec![id],
        Request::ScheduleCreate(create) => {
            fired = firing_id(&create.promise_id, &create.id, Timestamp(0));
            vec![&create.id, &fired]
        }
        Request::PromiseCreate(create) | Request::TaskCreate { action: create, .. } => vec![&create.id],
        Request::PromiseSettle(settle) => vec![&settle.id],
        Request::RegisterCallback(callback) => vec![&callback.awaited, &callback.awaiter],
        Request::TaskFulfill { id, action, .. } => vec![id, &action.id],
        Request::TaskSuspend { id, actions, .. } => {
            let named = actions.iter().flat_map(|action| [action.awaited.as_str(), action.awaiter.as_str()]);
            std::iter::once(id.as_str()).chain(named).collect()
        }
        Request::TaskFence { id, action, .. } => vec![id, action.id()],
    };
    let reserved = written.into_iter().find(|id| is_reserved(id))?;
    match validate(request) {
        Some(_) => None,
        None => Some(Response::refuse(
            403,
            format!("`{reserved}` belongs to the server: ids under `inc` and `hold` are not written by clients"),
        )),
    }
}

/// What is wrong with the lineage tags of a new promise, if anything is.
///
/// Two formats are in use (`.` everywhere; `:` after the root and `.` below it). A promise is
/// refused only if both would refuse it.
pub(crate) fn lineage_fault(id: &str, tags: &BTreeMap<String, String>) -> Option<String> {
    for name in [ORIGIN, PREFIX] {
        if let Some(tag) = tags.get(name)
            && tag.contains(':')
            && tag.contains('.')
        {
            return Some(format!("tag `{name}` must not contain a separator"));
        }
    }
    for name in [ORIGIN, BRANCH, PARENT] {
        if let Some(ancestor) = tags.get(name)
            && !continues(id, ancestor)
        {
            return Some(format!("id `{id}` must equal the tag `{name}` or continue it after `:` or `.`"));
        }
    }
    None
}

/// Whether two promises belong to one call tree.
pub(crate) fn same_origin(a: (&str, Option<&Promise>), b: (&str, Option<&Promise>)) -> bool {
    let tag = |promise: Option<&Promise>| promise.and_then(|promise| promise.tag(ORIGIN)).map(str::to_owned);
    match (tag(a.1), tag(b.1)) {
        (Some(a), Some(b)) => a == b,
        (None, _) | (_, None) => root(a.0) == root(b.0),
    }
}

fn continues(id: &str, ancestor: &str) -> bool {
    id.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '.']))
}

/// The root of an id: cut at the first `:` if there is one, else at the first `.`.
pub(crate) fn root(id: &str) -> &str {
    let separator = if id.contains(':') { ':' } else { '.' };
    id.split(separator).next().unwrap_or(id)
}
