//! The checks that need no state: what is malformed or beyond a limit is a 400.

use std::collections::{BTreeMap, BTreeSet};

use base::{Millis, Timestamp};

use crate::address::Address;
use crate::ids::lineage_fault;
use crate::limits::{
    CRON_BYTES_MAX, HEADERS_MAX, HEARTBEAT_TASKS_MAX, ID_BYTES_MAX, PID_BYTES_MAX, SEARCH_LIMIT_MAX,
    SUSPEND_ACTIONS_MAX, TAG_BYTES_MAX, TAGS_MAX, VALUE_BYTES_MAX,
};
use crate::request::{
    Callback, Create, FenceAction, PromiseSearch, Request, Response, ScheduleCreate, ScheduleSearch, Settle,
};
use crate::schedule::{firing_id, parse_cron};
use crate::state::Value;
use crate::tags::{DELAY, TARGET, parse_delay};

type Checked = Result<(), String>;

/// The 400 for a malformed request.
#[must_use]
pub fn validate(request: &Request) -> Option<Response> {
    check(request).err().map(|message| Response::refuse(400, message))
}

fn check(request: &Request) -> Checked {
    match request {
        Request::PromiseGet { id } | Request::TaskGet { id } => check_id("id", id),
        Request::PromiseCreate(create) => check_create(create),
        Request::PromiseSettle(settle) => check_settle(settle),
        Request::RegisterCallback(callback) => check_callback(callback),
        Request::RegisterListener { awaited, address } => {
            check_id("awaited", awaited)?;
            check_address("address", address)
        }
        Request::TaskCreate { pid, ttl, action } => {
            check_lease(pid, *ttl)?;
            check_create(action)?;
            need(action.tags.contains_key(TARGET), || format!("a task needs the tag `{TARGET}`"))?;
            need(!action.tags.contains_key(DELAY), || format!("a task acquired at once cannot carry `{DELAY}`"))
        }
        Request::TaskAcquire { id, pid, ttl, .. } => {
            check_id("id", id)?;
            check_lease(pid, *ttl)
        }
        Request::TaskRelease(task) => check_id("id", &task.id),
        Request::TaskFulfill { id, action, .. } => {
            check_id("id", id)?;
            check_settle(action)?;
            need(action.id == *id, || "action.id must be the id of the task".to_owned())
        }
        Request::TaskSuspend { id, actions, .. } => check_suspend(id, actions),
        Request::TaskFence { id, action, .. } => {
            check_id("id", id)?;
            match action {
                FenceAction::Create(create) => check_create(create)?,
                FenceAction::Settle(settle) => check_settle(settle)?,
            }
            need(action.id() != id, || "a fence cannot act on the promise of its own task".to_owned())
        }
        Request::TaskHeartbeat { pid, tasks } => {
            check_pid(pid)?;
            need(!tasks.is_empty(), || "tasks must not be empty".to_owned())?;
            need(tasks.len() <= HEARTBEAT_TASKS_MAX, || format!("at most {HEARTBEAT_TASKS_MAX} tasks"))?;
            tasks.iter().try_for_each(|task| check_id("tasks.id", &task.id))
        }
        Request::TaskHalt { id }
        | Request::TaskContinue { id }
        | Request::ScheduleGet { id }
        | Request::ScheduleDelete { id } => check_id("id", id),
        Request::PromiseSearch(PromiseSearch { limit, tags, .. })
        | Request::ScheduleSearch(ScheduleSearch { limit, tags, .. }) => {
            check_tags(tags)?;
            check_limit(*limit)
        }
        Request::TaskSearch(search) => check_limit(search.limit),
        Request::ScheduleCreate(create) => check_schedule(create),
        Request::Debug(_) => Ok(()),
    }
}

fn need(holds: bool, message: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(message()) }
}

fn check_id(name: &str, id: &str) -> Checked {
    need(!id.is_empty(), || format!("{name} must not be empty"))?;
    need(!id.contains('\0'), || format!("{name} must not contain NUL"))?;
    need(id.len() <= ID_BYTES_MAX, || format!("{name} must be at most {ID_BYTES_MAX} bytes"))
}

fn check_pid(pid: &str) -> Checked {
    need(!pid.is_empty(), || "pid must not be empty".to_owned())?;
    need(pid.len() <= PID_BYTES_MAX, || format!("pid must be at most {PID_BYTES_MAX} bytes"))
}

fn check_lease(pid: &str, ttl: Millis) -> Checked {
    check_pid(pid)?;
    need(ttl.0 >= 1, || "ttl must be at least 1".to_owned())
}

fn check_address(name: &str, address: &str) -> Checked {
    need(Address::parse(address).is_some(), || format!("{name} is not a routable address"))
}

fn check_create(create: &Create) -> Checked {
    check_id("id", &create.id)?;
    need(create.timeout_at >= Timestamp(0), || "timeoutAt must not be negative".to_owned())?;
    check_value("param", &create.param)?;
    check_tags(&create.tags)?;
    if let Some(fault) = lineage_fault(&create.id, &create.tags) {
        return Err(fault);
    }
    if let Some(target) = create.tags.get(TARGET) {
        check_address(TARGET, target)?;
    }
    match create.tags.get(DELAY) {
        Some(delay) => check_delay(delay, create),
        None => Ok(()),
    }
}

fn check_tags(tags: &BTreeMap<String, String>) -> Checked {
    need(tags.len() <= TAGS_MAX, || format!("at most {TAGS_MAX} tags"))?;
    let fits = tags.iter().all(|(key, value)| key.len() + value.len() <= TAG_BYTES_MAX);
    need(fits, || format!("a tag must be at most {TAG_BYTES_MAX} bytes"))
}

fn check_delay(delay: &str, create: &Create) -> Checked {
    let instant = parse_delay(delay).ok_or_else(|| format!("`{DELAY}` must be a non-negative integer"))?;
    need(instant < create.timeout_at, || format!("`{DELAY}` must be before timeoutAt"))?;
    need(create.tags.contains_key(TARGET), || format!("`{DELAY}` needs `{TARGET}`"))
}

fn check_settle(settle: &Settle) -> Checked {
    check_id("id", &settle.id)?;
    check_value("value", &settle.value)
}

fn check_value(name: &str, value: &Value) -> Checked {
    let headers = value.headers.as_ref().map_or(0, BTreeMap::len);
    need(headers <= HEADERS_MAX, || format!("{name} may have at most {HEADERS_MAX} headers"))?;
    need(value.bytes() <= VALUE_BYTES_MAX, || format!("{name} must be at most {VALUE_BYTES_MAX} bytes"))
}

fn check_limit(limit: Option<u64>) -> Checked {
    let fits = limit.is_none_or(|limit| (1..=SEARCH_LIMIT_MAX).contains(&limit));
    need(fits, || format!("limit must be from 1 to {SEARCH_LIMIT_MAX}"))
}

fn check_schedule(create: &ScheduleCreate) -> Checked {
    check_id("id", &create.id)?;
    // Both formats of ids are in use: refused is only what both would refuse.
    let separators = create.id.contains(':') && create.id.contains('.');
    need(!separators, || "the id of a schedule must not contain a separator".to_owned())?;
    check_id("promiseId", &create.promise_id)?;
    check_id("the promise's id", &firing_id(&create.promise_id, &create.id, Timestamp(i64::MAX)))?;
    check_value("promiseParam", &create.promise_param)?;
    check_tags(&create.promise_tags)?;
    let target = create.promise_tags.get(TARGET);
    let target = target.ok_or_else(|| format!("promiseTags must name a `{TARGET}`"))?;
    check_address(TARGET, target)?;
    need(!create.promise_tags.contains_key(DELAY), || format!("a scheduled promise cannot carry `{DELAY}`"))?;
    need(create.cron.len() <= CRON_BYTES_MAX, || format!("cron must be at most {CRON_BYTES_MAX} bytes"))?;
    parse_cron(&create.cron).map(drop)
}

fn check_callback(callback: &Callback) -> Checked {
    check_id("awaited", &callback.awaited)?;
    check_id("awaiter", &callback.awaiter)?;
    need(callback.awaited != callback.awaiter, || "a promise cannot await itself".to_owned())
}

fn check_suspend(id: &str, actions: &[Callback]) -> Checked {
    check_id("id", id)?;
    need(!actions.is_empty(), || "actions must not be empty".to_owned())?;
    need(actions.len() <= SUSPEND_ACTIONS_MAX, || format!("at most {SUSPEND_ACTIONS_MAX} actions"))?;
    actions.iter().try_for_each(check_callback)?;
    need(actions.iter().all(|action| action.awaiter == id), || "every awaiter must be the suspended task".to_owned())?;
    let distinct: BTreeSet<&str> = actions.iter().map(|action| action.awaited.as_str()).collect();
    need(distinct.len() == actions.len(), || "the same promise cannot be awaited twice in one suspension".to_owned())
}
