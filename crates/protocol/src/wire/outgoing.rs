//! Requests, responses and messages to bytes.

use std::collections::BTreeMap;

use base::Timestamp;
use serde_json::{Map, Value as Json, json};

use super::answers::{self, Reply};
use super::records::{PromiseJson, ScheduleJson, TaskJson, ValueJson};
use super::{BadRequest, Parsed, VERSION, bytes, names};
use crate::request::{
    Body, Callback, Create, Debug, FenceAction, PromiseSearch, Request, Response, ScheduleSearch, Settle, TaskRef,
    TaskSearch,
};
use crate::schedule::Schedule;
use crate::snapshot::Snapshot;
use crate::state::{Message, Promise, PromiseState, TaskRecord, TaskState};

/// Renders the answer to a request; the transport's status is `response.status`.
#[must_use]
pub fn render_response(parsed: &Parsed, response: &Response) -> Vec<u8> {
    bytes(&Reply { kind: &parsed.kind, corr_id: &parsed.corr_id, response })
}

/// Renders the 400 for bytes that are no request.
#[must_use]
pub fn render_bad_request(bad: &BadRequest) -> Vec<u8> {
    let response = Response::refuse(400, bad.message.as_str());
    bytes(&Reply { kind: &bad.kind, corr_id: &bad.corr_id, response: &response })
}

/// Renders a message to a worker or listener.
#[must_use]
pub fn render_message(message: &Message, server_url: &str) -> Vec<u8> {
    answers::message(message, server_url)
}

fn message_json(message: &Message, server_url: &str) -> Json {
    match message {
        Message::Execute { task_id, version, .. } => json!({
            "kind": "execute",
            "head": { "serverUrl": server_url },
            "data": { "task": { "id": task_id, "version": version } },
        }),
        Message::Unblock { promise, .. } => {
            json!({ "kind": "unblock", "head": {}, "data": { "promise": promise_json(promise) } })
        }
    }
}

/// Renders a request.
#[must_use]
pub fn render_request(corr_id: &str, request: &Request) -> Vec<u8> {
    bytes(&envelope(names::kind_of(request), corr_id, request_data(request, corr_id)))
}

/// A promise record as JSON.
#[must_use]
pub fn promise_json(promise: &Promise) -> Json {
    serde_json::to_value(PromiseJson::from(promise)).unwrap_or_default()
}

/// A task record as JSON.
#[must_use]
pub fn task_json(task: &TaskRecord) -> Json {
    serde_json::to_value(TaskJson::from(task)).unwrap_or_default()
}

/// A schedule record as JSON.
#[must_use]
pub fn schedule_json(schedule: &Schedule) -> Json {
    serde_json::to_value(ScheduleJson::from(schedule)).unwrap_or_default()
}

/// What a search, a sweep or a snapshot answers; nothing for the rest, which is written directly.
pub(super) fn page_json(body: &Body) -> Json {
    match body {
        Body::Promises { promises, cursor } => {
            paged("promises", promises.iter().map(|promise| promise_json(promise)).collect::<Vec<_>>().into(), cursor)
        }
        Body::Tasks { tasks, cursor } => paged("tasks", tasks.iter().map(task_json).collect::<Vec<_>>().into(), cursor),
        Body::Schedules { schedules, cursor } => {
            paged("schedules", schedules.iter().map(|one| schedule_json(one)).collect::<Vec<_>>().into(), cursor)
        }
        Body::Swept => Json::Array(Vec::new()),
        Body::Snapshot(snapshot) => snapshot_json(snapshot),
        Body::Empty
        | Body::Promise(_)
        | Body::Task(_)
        | Body::Acquired { .. }
        | Body::Preload(_)
        | Body::Fenced { .. }
        | Body::Schedule(_)
        | Body::Error(_) => Json::Object(Map::new()),
    }
}

fn paged(name: &str, page: Json, cursor: &Option<String>) -> Json {
    let mut data = Map::new();
    data.insert(name.to_owned(), page);
    if let Some(cursor) = cursor {
        data.insert("cursor".to_owned(), Json::String(cursor.clone()));
    }
    Json::Object(data)
}

/// The whole store, each list in the order of ids; a task's timer is of type 0 (retry) or 1 (lease).
fn snapshot_json(snapshot: &Snapshot) -> Json {
    let timeouts = |timers: &[(String, Timestamp)]| -> Json {
        timers.iter().map(|(id, at)| json!({ "id": id, "timeout": at.0 })).collect::<Vec<_>>().into()
    };
    let task_timeout =
        |(id, lease, at): &(String, bool, Timestamp)| json!({ "id": id, "type": u8::from(*lease), "timeout": at.0 });
    let message = |message: &Message| json!({ "address": message.address(), "message": message_json(message, "") });
    json!({
        "promises": snapshot.promises.iter().map(|promise| promise_json(promise)).collect::<Vec<_>>(),
        "promiseTimeouts": timeouts(&snapshot.promise_timeouts),
        "callbacks": snapshot.callbacks.iter().map(callback_data).collect::<Vec<_>>(),
        "listeners": snapshot.listeners.iter()
            .map(|(id, address)| json!({ "id": id, "address": address })).collect::<Vec<_>>(),
        "tasks": snapshot.tasks.iter().map(task_json).collect::<Vec<_>>(),
        "taskTimeouts": snapshot.task_timeouts.iter().map(task_timeout).collect::<Vec<_>>(),
        "messages": snapshot.messages.iter().map(message).collect::<Vec<_>>(),
    })
}

fn envelope(kind: &str, corr_id: &str, data: Json) -> Json {
    json!({ "kind": kind, "head": { "corrId": corr_id, "version": VERSION }, "data": data })
}

fn request_data(request: &Request, corr_id: &str) -> Json {
    match request {
        Request::PromiseGet { id }
        | Request::TaskGet { id }
        | Request::TaskHalt { id }
        | Request::TaskContinue { id }
        | Request::ScheduleGet { id }
        | Request::ScheduleDelete { id } => json!({ "id": id }),
        Request::PromiseCreate(create) => create_data(create),
        Request::PromiseSettle(settle) => settle_data(settle),
        Request::RegisterCallback(callback) => callback_data(callback),
        Request::RegisterListener { awaited, address } => json!({ "awaited": awaited, "address": address }),
        Request::TaskCreate { pid, ttl, action } => {
            let action = envelope(names::PROMISE_CREATE, corr_id, create_data(action));
            json!({ "pid": pid, "ttl": ttl.0, "action": action })
        }
        Request::TaskAcquire { id, version, pid, ttl } => {
            json!({ "id": id, "version": version, "pid": pid, "ttl": ttl.0 })
        }
        Request::TaskRelease(task) => ref_data(task),
        Request::TaskFulfill { id, version, action } => {
            let action = envelope(names::PROMISE_SETTLE, corr_id, settle_data(action));
            json!({ "id": id, "version": version, "action": action })
        }
        Request::TaskSuspend { id, version, actions } => {
            let callback = |action| envelope(names::REGISTER_CALLBACK, corr_id, callback_data(action));
            json!({ "id": id, "version": version, "actions": actions.iter().map(callback).collect::<Vec<_>>() })
        }
        Request::TaskFence { id, version, action } => {
            let data = match action {
                FenceAction::Create(create) => create_data(create),
                FenceAction::Settle(settle) => settle_data(settle),
            };
            json!({ "id": id, "version": version, "action": envelope(action.kind().name(), corr_id, data) })
        }
        Request::TaskHeartbeat { pid, tasks } => {
            json!({ "pid": pid, "tasks": tasks.iter().map(ref_data).collect::<Vec<_>>() })
        }
        Request::PromiseSearch(PromiseSearch { state, tags, limit, cursor }) => {
            search_data(state.map(PromiseState::name), tags, *limit, cursor)
        }
        Request::TaskSearch(TaskSearch { state, limit, cursor }) => {
            search_data(state.map(TaskState::name), &BTreeMap::new(), *limit, cursor)
        }
        Request::ScheduleSearch(ScheduleSearch { tags, limit, cursor }) => search_data(None, tags, *limit, cursor),
        Request::ScheduleCreate(create) => json!({
            "id": create.id,
            "cron": create.cron,
            "promiseId": create.promise_id,
            "promiseTimeout": create.promise_timeout.0,
            "promiseParam": ValueJson::from(&create.promise_param),
            "promiseTags": create.promise_tags,
        }),
        Request::Debug(Debug::Tick(at)) => json!({ "time": at.0 }),
        Request::Debug(Debug::Start | Debug::Stop | Debug::Reset | Debug::Snap) => Json::Object(Map::new()),
    }
}

fn search_data(
    state: Option<&str>,
    tags: &BTreeMap<String, String>,
    limit: Option<u64>,
    cursor: &Option<String>,
) -> Json {
    let mut data = Map::new();
    let mut add = |name: &str, value: Option<Json>| value.map(|value| data.insert(name.to_owned(), value));
    add("state", state.map(Json::from));
    add("tags", (!tags.is_empty()).then(|| json!(tags)));
    add("limit", limit.map(Json::from));
    add("cursor", cursor.clone().map(Json::from));
    Json::Object(data)
}

fn create_data(create: &Create) -> Json {
    let param = ValueJson::from(&create.param);
    json!({ "id": create.id, "timeoutAt": create.timeout_at.0, "param": param, "tags": create.tags })
}

fn settle_data(settle: &Settle) -> Json {
    let value = ValueJson::from(&settle.value);
    json!({ "id": settle.id, "state": settle.state.state().name(), "value": value })
}

fn callback_data(callback: &Callback) -> Json {
    json!({ "awaited": callback.awaited, "awaiter": callback.awaiter })
}

fn ref_data(task: &TaskRef) -> Json {
    json!({ "id": task.id, "version": task.version })
}
