//! Bytes to requests, responses and messages.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Millis, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::records::{PromiseJson, ScheduleJson, TaskJson, ValueJson};
use super::{Answer, BadRequest, Incoming, Parsed, VERSION, WireError, names};
use crate::request::{
    Body, Callback, Create, Debug, FenceAction, FencedKind, PromiseSearch, Request, Resolution, Response,
    ScheduleCreate, ScheduleSearch, Settle, TaskRef, TaskSearch,
};
use crate::state::{Promise, PromiseState, TaskRecord, TaskState};

/// Reads a request.
///
/// Order: envelope, kind, data is an object, version, operation. An operation of the protocol that
/// this server lacks is read as [`Request::NotSupported`]; a kind the protocol lacks is refused.
///
/// # Errors
/// [`BadRequest`], to be answered with [`super::render_bad_request`].
pub fn parse_request(bytes: &[u8]) -> Result<Parsed, BadRequest> {
    let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(|error| salvage(bytes, &error))?;
    let Envelope { kind, head: Head { corr_id, version, auth, debug_time }, data } = envelope;
    let bad = |message: String| BadRequest { kind: kind.to_string(), corr_id: corr_id.to_string(), message };
    if kind.is_empty() {
        return Err(bad("kind must not be empty".to_owned()));
    }
    if !data.get().starts_with('{') {
        return Err(bad("data must be an object".to_owned()));
    }
    if version != VERSION {
        return Err(bad(format!("protocol version `{version}` is not supported; this server speaks `{VERSION}`")));
    }
    let request = parse_operation(&kind, data).map_err(bad)?;
    let debug_time = debug_time.and_then(|time| serde_json::from_str(time.get()).ok()).map(Timestamp);
    if let (Request::Debug(Debug::Tick(at)), Some(told)) = (&request, debug_time)
        && *at != told
    {
        return Err(bad("data.time and the head's resonate:debug_time differ".to_owned()));
    }
    // A token that is no text is none.
    let auth = auth.and_then(|auth| serde_json::from_str(auth.get()).ok());
    let (kind, corr_id, version) = (kind.into_owned(), corr_id.into_owned(), version.into_owned());
    Ok(Parsed { kind, corr_id, version, auth, debug_time, request })
}

/// Reads a response.
///
/// # Errors
/// Bytes that are no response of a known kind.
pub fn parse_response(bytes: &[u8]) -> Result<Answer, WireError> {
    let reply: Reply<'_> = serde_json::from_slice(bytes)?;
    let body = parse_body(&reply.kind, reply.head.status, reply.data)?;
    let response = Response { status: reply.head.status, body };
    Ok(Answer { kind: reply.kind, corr_id: reply.head.corr_id, response })
}

/// Reads a message that was sent to a worker or listener.
///
/// # Errors
/// Bytes that are neither an execute nor an unblock.
pub fn parse_message(bytes: &[u8]) -> Result<Incoming, WireError> {
    let message: MessageJson<'_> = serde_json::from_slice(bytes)?;
    match message.kind.as_str() {
        "execute" => {
            let data: ExecuteJson = serde_json::from_str(message.data.get())?;
            let server_url = message.head.get("serverUrl").and_then(|url| url.as_str()).map(str::to_owned);
            Ok(Incoming::Execute { task: TaskRef { id: data.task.id, version: data.task.version }, server_url })
        }
        "unblock" => {
            let data: PromiseData<'_> = serde_json::from_str(message.data.get())?;
            Ok(Incoming::Unblock { promise: data.promise.try_into()? })
        }
        _ => Err(WireError::Unknown { what: "message", name: message.kind }),
    }
}

/// Reads a promise record.
///
/// # Errors
/// Bytes that are no promise record.
pub fn parse_promise(bytes: &[u8]) -> Result<Promise, WireError> {
    let json: PromiseJson<'_> = serde_json::from_slice(bytes)?;
    json.try_into()
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    head: Head<'a>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    #[serde(borrow)]
    corr_id: Cow<'a, str>,
    #[serde(borrow)]
    version: Cow<'a, str>,
    #[serde(default, borrow)]
    auth: Option<&'a RawValue>,
    #[serde(default, borrow, rename = "resonate:debug_time")]
    debug_time: Option<&'a RawValue>,
}

/// An envelope inside another.
#[derive(Deserialize)]
struct Inner<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    head: Option<&'a RawValue>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct IdJson {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreateJson<'a> {
    id: String,
    timeout_at: i64,
    #[serde(default, borrow)]
    param: Option<ValueJson<'a>>,
    #[serde(default)]
    tags: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct SettleJson<'a> {
    id: String,
    #[serde(borrow)]
    state: Cow<'a, str>,
    #[serde(default, borrow)]
    value: Option<ValueJson<'a>>,
}

#[derive(Deserialize)]
struct CallbackJson {
    awaited: String,
    awaiter: String,
}

#[derive(Deserialize)]
struct ListenerJson {
    awaited: String,
    address: String,
}

#[derive(Deserialize)]
struct RefJson {
    id: String,
    version: i64,
}

#[derive(Deserialize)]
struct TaskCreateJson<'a> {
    pid: String,
    ttl: i64,
    #[serde(borrow)]
    action: Inner<'a>,
}

#[derive(Deserialize)]
struct AcquireJson {
    id: String,
    version: i64,
    pid: String,
    ttl: i64,
}

#[derive(Deserialize)]
struct ActionJson<'a> {
    id: String,
    version: i64,
    #[serde(borrow)]
    action: Inner<'a>,
}

#[derive(Deserialize)]
struct SuspendJson<'a> {
    id: String,
    version: i64,
    #[serde(borrow)]
    actions: Vec<Inner<'a>>,
}

#[derive(Deserialize)]
struct HeartbeatJson {
    pid: String,
    tasks: Vec<RefJson>,
}

#[derive(Deserialize)]
struct SearchJson {
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    tags: Option<BTreeMap<String, String>>,
    #[serde(default)]
    limit: Option<i64>,
    #[serde(default)]
    cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScheduleCreateJson<'a> {
    id: String,
    cron: String,
    promise_id: String,
    promise_timeout: i64,
    #[serde(default, borrow)]
    promise_param: Option<ValueJson<'a>>,
    #[serde(default)]
    promise_tags: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct TimeJson {
    time: i64,
}

type Read<T> = Result<T, String>;

fn parse_operation(kind: &str, raw: &RawValue) -> Read<Request> {
    Ok(match kind {
        names::PROMISE_GET => Request::PromiseGet { id: data::<IdJson>(raw)?.id },
        names::PROMISE_CREATE => Request::PromiseCreate(create(raw)?),
        names::PROMISE_SETTLE => Request::PromiseSettle(settle(raw)?),
        names::REGISTER_CALLBACK => Request::RegisterCallback(callback(raw)?),
        names::REGISTER_LISTENER => {
            let ListenerJson { awaited, address } = data(raw)?;
            Request::RegisterListener { awaited, address }
        }
        names::TASK_GET => Request::TaskGet { id: data::<IdJson>(raw)?.id },
        names::TASK_CREATE => {
            let json: TaskCreateJson<'_> = borrowed(raw)?;
            let action = create(with_head(&json.action)?)?;
            Request::TaskCreate { pid: json.pid, ttl: ttl(json.ttl)?, action }
        }
        names::TASK_ACQUIRE => {
            let json: AcquireJson = data(raw)?;
            Request::TaskAcquire { id: json.id, version: version(json.version)?, pid: json.pid, ttl: ttl(json.ttl)? }
        }
        names::TASK_RELEASE => Request::TaskRelease(task_ref(data(raw)?)?),
        names::TASK_FULFILL => {
            let json: ActionJson<'_> = borrowed(raw)?;
            let action = settle(with_head(&json.action)?)?;
            Request::TaskFulfill { id: json.id, version: version(json.version)?, action }
        }
        names::TASK_SUSPEND => {
            let json: SuspendJson<'_> = borrowed(raw)?;
            let actions = json.actions.iter().map(|inner| callback(with_head(inner)?)).collect::<Read<_>>()?;
            Request::TaskSuspend { id: json.id, version: version(json.version)?, actions }
        }
        names::TASK_FENCE => {
            let json: ActionJson<'_> = borrowed(raw)?;
            let action = fence_action(&json.action)?;
            Request::TaskFence { id: json.id, version: version(json.version)?, action }
        }
        names::TASK_HEARTBEAT => {
            let json: HeartbeatJson = data(raw)?;
            let tasks = json.tasks.into_iter().map(task_ref).collect::<Read<_>>()?;
            Request::TaskHeartbeat { pid: json.pid, tasks }
        }
        names::TASK_HALT => Request::TaskHalt { id: data::<IdJson>(raw)?.id },
        names::TASK_CONTINUE => Request::TaskContinue { id: data::<IdJson>(raw)?.id },
        names::PROMISE_SEARCH | names::TASK_SEARCH | names::SCHEDULE_SEARCH => search(kind, data(raw)?)?,
        names::SCHEDULE_GET => Request::ScheduleGet { id: data::<IdJson>(raw)?.id },
        names::SCHEDULE_CREATE => Request::ScheduleCreate(schedule_create(borrowed(raw)?)?),
        names::SCHEDULE_DELETE => Request::ScheduleDelete { id: data::<IdJson>(raw)?.id },
        names::DEBUG_START => Request::Debug(Debug::Start),
        names::DEBUG_STOP => Request::Debug(Debug::Stop),
        names::DEBUG_RESET => Request::Debug(Debug::Reset),
        names::DEBUG_TICK => Request::Debug(Debug::Tick(Timestamp(data::<TimeJson>(raw)?.time))),
        names::DEBUG_SNAP => Request::Debug(Debug::Snap),
        _ => return Err(format!("unknown kind `{kind}`")),
    })
}

fn data<T: DeserializeOwned>(raw: &RawValue) -> Read<T> {
    serde_json::from_str(raw.get()).map_err(|error| format!("data: {error}"))
}

fn borrowed<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Read<T> {
    serde_json::from_str(raw.get()).map_err(|error| format!("data: {error}"))
}

fn with_head<'a>(inner: &Inner<'a>) -> Read<&'a RawValue> {
    if inner.head.is_some() { Ok(inner.data) } else { Err("an action needs a head".to_owned()) }
}

fn create(raw: &RawValue) -> Read<Create> {
    let json: CreateJson<'_> = borrowed(raw)?;
    Ok(Create {
        id: json.id,
        timeout_at: Timestamp(json.timeout_at),
        param: json.param.map(Into::into).unwrap_or_default(),
        tags: json.tags.unwrap_or_default(),
    })
}

fn settle(raw: &RawValue) -> Read<Settle> {
    let json: SettleJson<'_> = borrowed(raw)?;
    let state =
        Resolution::from_name(&json.state).ok_or_else(|| format!("`{}` is not a state to settle to", json.state))?;
    Ok(Settle { id: json.id, state, value: json.value.map(Into::into).unwrap_or_default() })
}

fn search(kind: &str, json: SearchJson) -> Read<Request> {
    let SearchJson { state, tags, limit, cursor } = json;
    let tags = tags.unwrap_or_default();
    let limit = limit.map(|limit| u64::try_from(limit).map_err(|_| "limit must not be negative".to_owned()));
    let limit = limit.transpose()?;
    let unknown = |state: &str| format!("unknown state `{state}`");
    Ok(match kind {
        names::PROMISE_SEARCH => {
            let named = |state: String| PromiseState::from_name(&state).ok_or_else(|| unknown(&state));
            Request::PromiseSearch(PromiseSearch { state: state.map(named).transpose()?, tags, limit, cursor })
        }
        names::TASK_SEARCH => {
            let named = |state: String| TaskState::from_name(&state).ok_or_else(|| unknown(&state));
            Request::TaskSearch(TaskSearch { state: state.map(named).transpose()?, limit, cursor })
        }
        _ => Request::ScheduleSearch(ScheduleSearch { tags, limit, cursor }),
    })
}

fn schedule_create(json: ScheduleCreateJson<'_>) -> Read<ScheduleCreate> {
    let timeout = u64::try_from(json.promise_timeout).map_err(|_| "promiseTimeout must not be negative".to_owned())?;
    Ok(ScheduleCreate {
        id: json.id,
        cron: json.cron,
        promise_id: json.promise_id,
        promise_timeout: Millis(timeout),
        promise_param: json.promise_param.map(Into::into).unwrap_or_default(),
        promise_tags: json.promise_tags.unwrap_or_default(),
    })
}

fn callback(raw: &RawValue) -> Read<Callback> {
    let CallbackJson { awaited, awaiter } = data(raw)?;
    Ok(Callback { awaited, awaiter })
}

fn fence_action(inner: &Inner<'_>) -> Read<FenceAction> {
    match &*inner.kind {
        names::PROMISE_CREATE => create(inner.data).map(FenceAction::Create),
        names::PROMISE_SETTLE => settle(inner.data).map(FenceAction::Settle),
        kind => Err(format!("`{kind}` cannot be fenced")),
    }
}

fn task_ref(json: RefJson) -> Read<TaskRef> {
    Ok(TaskRef { id: json.id, version: version(json.version)? })
}

fn version(version: i64) -> Read<u64> {
    u64::try_from(version).map_err(|_| "version must not be negative".to_owned())
}

fn ttl(ttl: i64) -> Read<Millis> {
    u64::try_from(ttl).map(Millis).map_err(|_| "ttl must be at least 1".to_owned())
}

/// What can still be echoed of bytes that are no envelope.
fn salvage(bytes: &[u8], error: &serde_json::Error) -> BadRequest {
    let json: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let text = |value: Option<&serde_json::Value>, or: &str| {
        value.and_then(serde_json::Value::as_str).unwrap_or(or).to_owned()
    };
    BadRequest {
        kind: text(json.get("kind"), "unknown"),
        corr_id: text(json.get("head").and_then(|head| head.get("corrId")), "0"),
        message: format!("not a request envelope: {error}"),
    }
}

#[derive(Deserialize)]
struct Reply<'a> {
    kind: String,
    head: ReplyHead,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReplyHead {
    corr_id: String,
    status: u16,
}

#[derive(Deserialize)]
struct PromiseData<'a> {
    #[serde(borrow)]
    promise: PromiseJson<'a>,
}

#[derive(Deserialize)]
struct TaskData<'a> {
    #[serde(borrow)]
    task: TaskJson<'a>,
}

#[derive(Deserialize)]
struct AcquiredData<'a> {
    #[serde(borrow)]
    task: TaskJson<'a>,
    #[serde(borrow)]
    promise: PromiseJson<'a>,
    #[serde(default, borrow)]
    preload: Vec<PromiseJson<'a>>,
}

#[derive(Deserialize)]
struct PreloadData<'a> {
    #[serde(default, borrow)]
    preload: Vec<PromiseJson<'a>>,
}

#[derive(Deserialize)]
struct PromisesData<'a> {
    #[serde(borrow)]
    promises: Vec<PromiseJson<'a>>,
    #[serde(default)]
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct TasksData<'a> {
    #[serde(borrow)]
    tasks: Vec<TaskJson<'a>>,
    #[serde(default)]
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct ScheduleData<'a> {
    #[serde(borrow)]
    schedule: ScheduleJson<'a>,
}

#[derive(Deserialize)]
struct SchedulesData<'a> {
    #[serde(borrow)]
    schedules: Vec<ScheduleJson<'a>>,
    #[serde(default)]
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct FencedData<'a> {
    #[serde(borrow)]
    action: Reply<'a>,
    #[serde(default, borrow)]
    preload: Vec<PromiseJson<'a>>,
}

fn parse_body(kind: &str, status: u16, raw: &RawValue) -> Result<Body, WireError> {
    let text = raw.get();
    if status != 200 && status != 300 {
        return Ok(Body::Error(serde_json::from_str(text)?));
    }
    Ok(match kind {
        names::PROMISE_GET
        | names::PROMISE_CREATE
        | names::PROMISE_SETTLE
        | names::REGISTER_CALLBACK
        | names::REGISTER_LISTENER
        | names::TASK_FULFILL => Body::Promise(promise(serde_json::from_str::<PromiseData<'_>>(text)?.promise)?),
        names::TASK_GET => Body::Task(serde_json::from_str::<TaskData<'_>>(text)?.task.try_into()?),
        names::TASK_CREATE | names::TASK_ACQUIRE => {
            let data: AcquiredData<'_> = serde_json::from_str(text)?;
            let task: TaskRecord = data.task.try_into()?;
            Body::Acquired { task, promise: promise(data.promise)?, preload: preload(data.preload)? }
        }
        names::TASK_SUSPEND if status == 300 => {
            Body::Preload(preload(serde_json::from_str::<PreloadData<'_>>(text)?.preload)?)
        }
        names::TASK_RELEASE
        | names::TASK_SUSPEND
        | names::TASK_HEARTBEAT
        | names::TASK_HALT
        | names::TASK_CONTINUE
        | names::SCHEDULE_DELETE => Body::Empty,
        names::PROMISE_SEARCH => {
            let data: PromisesData<'_> = serde_json::from_str(text)?;
            Body::Promises { promises: preload(data.promises)?, cursor: data.cursor }
        }
        names::TASK_SEARCH => {
            let data: TasksData<'_> = serde_json::from_str(text)?;
            let tasks = data.tasks.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
            Body::Tasks { tasks, cursor: data.cursor }
        }
        names::SCHEDULE_GET | names::SCHEDULE_CREATE => {
            Body::Schedule(Arc::new(serde_json::from_str::<ScheduleData<'_>>(text)?.schedule.into()))
        }
        names::SCHEDULE_SEARCH => {
            let data: SchedulesData<'_> = serde_json::from_str(text)?;
            let schedules = data.schedules.into_iter().map(|json| Arc::new(json.into())).collect();
            Body::Schedules { schedules, cursor: data.cursor }
        }
        names::TASK_FENCE => {
            let data: FencedData<'_> = serde_json::from_str(text)?;
            let status = data.action.head.status;
            let body = parse_body(&data.action.kind, status, data.action.data)?;
            let kind = match data.action.kind.as_str() {
                names::PROMISE_CREATE => FencedKind::Create,
                names::PROMISE_SETTLE => FencedKind::Settle,
                _ => return Err(WireError::Unknown { what: "fenced operation", name: data.action.kind }),
            };
            Body::Fenced { kind, response: Box::new(Response { status, body }), preload: preload(data.preload)? }
        }
        _ => return Err(WireError::Unknown { what: "kind", name: kind.to_owned() }),
    })
}

fn promise(json: PromiseJson<'_>) -> Result<Arc<Promise>, WireError> {
    json.try_into().map(Arc::new)
}

fn preload(json: Vec<PromiseJson<'_>>) -> Result<Vec<Arc<Promise>>, WireError> {
    json.into_iter().map(promise).collect()
}

#[derive(Deserialize)]
struct MessageJson<'a> {
    kind: String,
    #[serde(default)]
    head: serde_json::Value,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct ExecuteJson {
    task: OfferJson,
}

#[derive(Deserialize)]
struct OfferJson {
    id: String,
    version: u64,
}
