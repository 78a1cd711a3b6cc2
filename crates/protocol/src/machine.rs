//! The transition function: what a request does, what time does.

use std::sync::Arc;

use base::{Millis, Timestamp};

use crate::draft::Draft;
use crate::ids::same_origin;
use crate::limits::{CALLBACKS_MAX, LISTENERS_MAX, SCHEDULES_MAX};
use crate::request::{Body, Callback, Create, FenceAction, Request, Response, ScheduleCreate, Settle, TaskRef};
use crate::schedule::Schedule;
use crate::settlement::deadline_state;
use crate::state::{Message, MessageKey, Promise, PromiseState, Row, Task, TaskState, TimerKind, Value};
use crate::tags::Tags;
use crate::validate::validate;
use crate::view::{Applied, Config, Effect, OwnerChange, View};

/// Decides one request. Pure: the same view, request and time give the same answer and effects.
#[must_use]
pub fn apply(view: &dyn View, request: &Request, now: Timestamp, config: &Config) -> Applied {
    if let Some(refusal) = validate(request) {
        return Applied { response: refusal, effects: Vec::new() };
    }
    let mut draft = Draft::new(view, now, config);
    let outcome = match request {
        Request::PromiseGet { id } => promise_get(&mut draft, id),
        Request::PromiseCreate(create) => Ok(promise_create(&mut draft, create)),
        Request::PromiseSettle(settle) => promise_settle(&mut draft, settle),
        Request::RegisterCallback(callback) => register_callback(&mut draft, callback),
        Request::RegisterListener { awaited, address } => register_listener(&mut draft, awaited, address),
        Request::TaskGet { id } => task_get(&mut draft, id),
        Request::TaskCreate { pid, ttl, action } => task_create(&mut draft, pid, *ttl, action),
        Request::TaskAcquire { id, version, pid, ttl } => task_acquire(&mut draft, id, *version, pid, *ttl),
        Request::TaskRelease(TaskRef { id, version }) => task_release(&mut draft, id, *version),
        Request::TaskFulfill { id, version, action } => task_fulfill(&mut draft, id, *version, action),
        Request::TaskSuspend { id, version, actions } => task_suspend(&mut draft, id, *version, actions),
        Request::TaskFence { id, version, action } => task_fence(&mut draft, id, *version, action),
        Request::TaskHeartbeat { pid, tasks } => Ok(task_heartbeat(&mut draft, pid, tasks)),
        Request::TaskHalt { id } => task_halt(&mut draft, id),
        Request::TaskContinue { id } => task_continue(&mut draft, id),
        Request::PromiseSearch(search) => Ok(search.answer(view)),
        Request::TaskSearch(search) => Ok(search.answer(view)),
        Request::ScheduleGet { id } => known_schedule(view, id).map(|schedule| Response::ok(Body::Schedule(schedule))),
        Request::ScheduleCreate(create) => schedule_create(&mut draft, create),
        Request::ScheduleDelete { id } => known_schedule(view, id).map(|_| {
            draft.drop_schedule(id);
            Response::ok(Body::Empty)
        }),
        Request::ScheduleSearch(search) => Ok(search.answer(view)),
        Request::Debug(_) => Err(refuse(403, "the server was started without --debug".to_owned())),
    };
    let response = outcome.unwrap_or_else(Response::from);
    Applied { response, effects: draft.finish() }
}

/// One sweep: applies at most `limit` due timers, promises first, then retries, leases and schedules.
///
/// A schedule fires once in a sweep; firings missed while nobody swept follow in the next ones.
///
/// The effects belong into one transaction; none means that nothing was due.
#[must_use]
pub fn tick(view: &dyn View, now: Timestamp, limit: u32, config: &Config) -> Vec<Effect> {
    let mut draft = Draft::new(view, now, config);
    let mut left = usize::try_from(limit).unwrap_or(usize::MAX);
    let expired = view.due(TimerKind::Promise, now, left);
    left = left.saturating_sub(expired.len());
    draft.touch(expired.iter().map(String::as_str));
    let retries = view.due(TimerKind::Retry, now, left);
    left = left.saturating_sub(retries.len());
    for id in &retries {
        retry(&mut draft, id);
    }
    let leases = view.due(TimerKind::Lease, now, left);
    left = left.saturating_sub(leases.len());
    for id in &leases {
        lapse(&mut draft, id, |task, now| task.lease_at.is_some_and(|at| at <= now));
    }
    for id in &view.due(TimerKind::Schedule, now, left) {
        fire(&mut draft, id);
    }
    draft.finish()
}

/// Ends the leases of the named tasks that are still held at the named version, as if they had lapsed:
/// for a worker whose connection dropped and did not return within its grace.
#[must_use]
pub fn reclaim(view: &dyn View, held: &[TaskRef], now: Timestamp, config: &Config) -> Vec<Effect> {
    let mut draft = Draft::new(view, now, config);
    for TaskRef { id, version } in held {
        lapse(&mut draft, id, |task, _| task.version == *version);
    }
    draft.finish()
}

/// The effects of a delivery: the outbox row goes, unless a newer message has taken its place.
#[must_use]
pub fn delivered(view: &dyn View, message: &Message) -> Vec<Effect> {
    let key = message.key();
    if view.queued(&key).as_ref() == Some(message) { vec![Effect::Retract(key)] } else { Vec::new() }
}

/// Why a task is halted that nobody but a request stopped.
const HALTED: &str = "halted by request";

type Outcome = Result<Response, Refusal>;

/// Why a request is not performed.
struct Refusal {
    status: u16,
    message: String,
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Response {
        Response::refuse(refusal.status, refusal.message)
    }
}

fn refuse(status: u16, message: String) -> Refusal {
    Refusal { status, message }
}

fn retry(draft: &mut Draft<'_>, id: &str) {
    draft.touch([id]);
    if draft.task(id).is_some_and(|task| task.state == TaskState::Pending) {
        draft.offer(id);
    }
}

fn lapse(draft: &mut Draft<'_>, id: &str, over: impl Fn(&Task, Timestamp) -> bool) {
    // WHY: a task is never put to pending when its promise is past its deadline.
    draft.touch([id]);
    let Some(task) = draft.task(id) else { return };
    if task.state == TaskState::Acquired && over(&task, draft.now) {
        draft.hand_back(id, OwnerChange::LeaseExpiry);
    }
}

fn promise_get(draft: &mut Draft<'_>, id: &str) -> Outcome {
    draft.touch([id]);
    Ok(Response::ok(Body::Promise(known_promise(draft, id)?)))
}

fn promise_create(draft: &mut Draft<'_>, create: &Create) -> Response {
    draft.touch([create.id.as_str()]);
    let promise = match draft.promise(&create.id) {
        Some(promise) => promise,
        None => {
            let row = new_row(draft, create);
            let promise = Arc::clone(&row.promise);
            draft.insert(row);
            if promise.is_live(draft.now) && promise.delayed_until(draft.now).is_none() {
                draft.dispatch(&create.id, &promise);
            }
            promise
        }
    };
    Response::ok(Body::Promise(promise))
}

/// The row of a promise that is created now; born settled if its deadline has passed.
fn new_row(draft: &Draft<'_>, create: &Create) -> Row {
    let mut promise = Promise {
        id: create.id.clone(),
        state: PromiseState::Pending,
        param: create.param.clone(),
        value: Value::default(),
        tags: Tags::from(&create.tags),
        timeout_at: create.timeout_at,
        created_at: draft.now,
        settled_at: None,
    };
    let live = draft.now < create.timeout_at;
    if !live {
        promise.state = deadline_state(&promise);
        promise.created_at = create.timeout_at;
        promise.settled_at = Some(create.timeout_at);
    }
    let task = promise.target().is_some().then(|| {
        let first_offer = promise.delayed_until(draft.now).filter(|_| promise.is_dispatchable());
        let retry_at = live.then(|| first_offer.unwrap_or_else(|| draft.retry_at(&promise)));
        let state = if live { TaskState::Pending } else { TaskState::Fulfilled };
        Arc::new(Task::new(&create.id, state, retry_at))
    });
    Row { promise: Arc::new(promise), task, callbacks: Default::default(), listeners: Default::default() }
}

fn promise_settle(draft: &mut Draft<'_>, settle: &Settle) -> Outcome {
    draft.touch([settle.id.as_str()]);
    if !known_promise(draft, &settle.id)?.is_settled() {
        draft.settle(&settle.id, settle.state.state(), settle.value.clone());
    }
    Ok(Response::ok(Body::Promise(known_promise(draft, &settle.id)?)))
}

fn register_callback(draft: &mut Draft<'_>, callback: &Callback) -> Outcome {
    let Callback { awaited, awaiter } = callback;
    need_same_origin(draft, awaiter, awaited)?;
    draft.touch([awaited.as_str(), awaiter.as_str()]);
    let promise = known_promise(draft, awaited)?;
    let Some(waiting) = draft.promise(awaiter) else {
        return Err(refuse(422, format!("awaiter `{awaiter}` does not exist")));
    };
    if waiting.target().is_none() {
        return Err(refuse(422, format!("awaiter `{awaiter}` has no target and could not be resumed")));
    }
    need_awaitable(&promise)?;
    if !waiting.is_settled() {
        if promise.is_settled() {
            draft.resume(awaiter, awaited);
        } else {
            add_callback(draft, awaited, awaiter)?;
        }
    }
    Ok(Response::ok(Body::Promise(promise)))
}

fn add_callback(draft: &mut Draft<'_>, awaited: &str, awaiter: &str) -> Result<(), Refusal> {
    let full =
        draft.row(awaited).is_some_and(|row| row.callbacks.len() >= CALLBACKS_MAX && !row.callbacks.contains(awaiter));
    if full {
        return Err(refuse(429, format!("promise `{awaited}` is awaited by {CALLBACKS_MAX} tasks already")));
    }
    draft.edit(awaited, |row| {
        row.callbacks.insert(awaiter.to_owned());
    });
    Ok(())
}

fn register_listener(draft: &mut Draft<'_>, awaited: &str, address: &str) -> Outcome {
    draft.touch([awaited]);
    let promise = known_promise(draft, awaited)?;
    need_awaitable(&promise)?;
    if !promise.is_settled() {
        let full = draft
            .row(awaited)
            .is_some_and(|row| row.listeners.len() >= LISTENERS_MAX && !row.listeners.contains(address));
        if full {
            return Err(refuse(429, format!("promise `{awaited}` has {LISTENERS_MAX} listeners already")));
        }
        draft.edit(awaited, |row| {
            row.listeners.insert(address.to_owned());
        });
    }
    Ok(Response::ok(Body::Promise(promise)))
}

fn task_get(draft: &mut Draft<'_>, id: &str) -> Outcome {
    draft.touch([id]);
    Ok(Response::ok(Body::Task(known_task(draft, id)?.record())))
}

fn task_create(draft: &mut Draft<'_>, pid: &str, ttl: Millis, create: &Create) -> Outcome {
    let id = create.id.as_str();
    draft.touch([id]);
    if draft.promise(id).is_none() {
        let row = new_row(draft, create);
        draft.insert(row);
    }
    let Some(task) = draft.task(id) else {
        return Err(refuse(422, format!("promise `{id}` exists and has no task")));
    };
    match task.state {
        TaskState::Pending => {
            take(draft, id, pid, ttl);
            let preload = draft.preload(id);
            acquired(draft, id, preload)
        }
        TaskState::Fulfilled => acquired(draft, id, Vec::new()),
        TaskState::Acquired | TaskState::Suspended | TaskState::Halted => {
            Err(refuse(409, format!("task `{id}` is not pending")))
        }
    }
}

fn task_acquire(draft: &mut Draft<'_>, id: &str, version: u64, pid: &str, ttl: Millis) -> Outcome {
    draft.touch([id]);
    let task = known_task(draft, id)?;
    if task.state != TaskState::Pending {
        return Err(refuse(409, format!("task `{id}` is not pending")));
    }
    if task.version != version {
        return Err(refuse(409, format!("task `{id}` is at version {}", task.version)));
    }
    take(draft, id, pid, ttl);
    let preload = draft.preload(id);
    acquired(draft, id, preload)
}

/// Gives a pending task to a worker.
fn take(draft: &mut Draft<'_>, id: &str, pid: &str, ttl: Millis) {
    let (profile, now) = (draft.config.profile, draft.now);
    draft.edit_task(id, |task| {
        task.state = TaskState::Acquired;
        task.version = profile.next_version(task.version, OwnerChange::Acquire);
        task.resumes.clear();
        task.attempts = task.attempts.saturating_add(1);
        task.ttl = Some(ttl);
        task.pid = Some(pid.to_owned());
        task.retry_at = None;
        task.lease_at = Some(now.plus(ttl));
    });
    draft.retract(MessageKey::Execute { task_id: id.to_owned() });
}

fn acquired(draft: &Draft<'_>, id: &str, preload: Vec<Arc<Promise>>) -> Outcome {
    let task = known_task(draft, id)?.record();
    Ok(Response::ok(Body::Acquired { task, promise: known_promise(draft, id)?, preload }))
}

fn task_release(draft: &mut Draft<'_>, id: &str, version: u64) -> Outcome {
    draft.touch([id]);
    need_held(draft, id, version)?;
    draft.hand_back(id, OwnerChange::Release);
    Ok(Response::ok(Body::Empty))
}

fn task_fulfill(draft: &mut Draft<'_>, id: &str, version: u64, settle: &Settle) -> Outcome {
    draft.touch([id]);
    need_held(draft, id, version)?;
    draft.settle(id, settle.state.state(), settle.value.clone());
    Ok(Response::ok(Body::Promise(known_promise(draft, id)?)))
}

fn task_suspend(draft: &mut Draft<'_>, id: &str, version: u64, actions: &[Callback]) -> Outcome {
    for action in actions {
        need_same_origin(draft, id, &action.awaited)?;
    }
    draft.touch(std::iter::once(id).chain(actions.iter().map(|action| action.awaited.as_str())));
    need_held(draft, id, version)?;
    let mut settled = false;
    for Callback { awaited, .. } in actions {
        let Some(row) = draft.row(awaited) else {
            return Err(refuse(422, format!("awaited promise `{awaited}` does not exist")));
        };
        need_awaitable(&row.promise)?;
        settled |= row.promise.is_settled();
        if row.callbacks.len() >= CALLBACKS_MAX && !row.callbacks.contains(id) {
            return Err(refuse(429, format!("promise `{awaited}` is awaited by {CALLBACKS_MAX} tasks already")));
        }
    }
    draft.edit_task(id, |task| {
        task.resumes.clear();
        task.attempts = 0;
    });
    if settled {
        return Ok(Response { status: 300, body: Body::Preload(draft.preload(id)) });
    }
    for Callback { awaited, .. } in actions {
        add_callback(draft, awaited, id)?;
    }
    draft.edit_task(id, |task| {
        task.state = TaskState::Suspended;
        crate::settlement::disown(task);
    });
    Ok(Response::ok(Body::Empty))
}

fn task_fence(draft: &mut Draft<'_>, id: &str, version: u64, action: &FenceAction) -> Outcome {
    draft.touch([id, action.id()]);
    need_held(draft, id, version)?;
    draft.edit_task(id, |task| task.attempts = 0);
    let inner = match action {
        FenceAction::Create(create) => promise_create(draft, create),
        FenceAction::Settle(settle) => promise_settle(draft, settle).unwrap_or_else(Response::from),
    };
    // WHY: no preload here. The answer itself is all that changed, and an empty one is legal.
    Ok(Response::ok(Body::Fenced { kind: action.kind(), response: Box::new(inner), preload: Vec::new() }))
}

fn task_heartbeat(draft: &mut Draft<'_>, pid: &str, tasks: &[TaskRef]) -> Response {
    let now = draft.now;
    for TaskRef { id, version } in tasks {
        let Some(row) = draft.row(id) else { continue };
        let Some(task) = &row.task else { continue };
        let held = task.state == TaskState::Acquired && task.version == *version && task.pid.as_deref() == Some(pid);
        if let (true, true, Some(ttl)) = (held, row.promise.is_live(now), task.ttl) {
            draft.edit_task(id, |task| task.lease_at = Some(now.plus(ttl)));
        }
    }
    Response::ok(Body::Empty)
}

fn task_halt(draft: &mut Draft<'_>, id: &str) -> Outcome {
    draft.touch([id]);
    match known_task(draft, id)?.state {
        TaskState::Fulfilled => return Err(refuse(409, format!("task `{id}` is fulfilled"))),
        TaskState::Halted => {}
        TaskState::Pending | TaskState::Acquired | TaskState::Suspended => draft.halt(id, HALTED.to_owned()),
    }
    Ok(Response::ok(Body::Empty))
}

fn task_continue(draft: &mut Draft<'_>, id: &str) -> Outcome {
    draft.touch([id]);
    if known_task(draft, id)?.state != TaskState::Halted {
        return Err(refuse(409, format!("task `{id}` is not halted")));
    }
    draft.edit_task(id, |task| {
        task.attempts = 0;
        task.reason = None;
    });
    draft.offer(id);
    Ok(Response::ok(Body::Empty))
}

fn schedule_create(draft: &mut Draft<'_>, create: &ScheduleCreate) -> Outcome {
    if let Some(schedule) = draft.view.schedule(&create.id) {
        return Ok(Response::ok(Body::Schedule(schedule)));
    }
    if draft.view.schedule_count() >= SCHEDULES_MAX {
        return Err(refuse(429, format!("there are {SCHEDULES_MAX} schedules already")));
    }
    let schedule = Schedule::new(create, draft.now).map_err(|message| refuse(400, message))?;
    Ok(Response::ok(Body::Schedule(draft.put_schedule(schedule))))
}

/// Creates the promise of one firing, as of that instant, and sets the next one.
fn fire(draft: &mut Draft<'_>, id: &str) {
    let Some(schedule) = draft.view.schedule(id).filter(|schedule| schedule.next_run_at <= draft.now) else { return };
    let create = schedule.firing();
    let at = schedule.next_run_at;
    if draft.promise(&create.id).is_none() {
        let born = Draft::new(draft.view, at, draft.config);
        let row = new_row(&born, &create);
        let promise = Arc::clone(&row.promise);
        draft.insert(row);
        draft.touch([create.id.as_str()]);
        if promise.is_live(draft.now) {
            draft.dispatch(&create.id, &promise);
        }
    }
    draft.put_schedule(schedule.fired());
}

fn known_schedule(view: &dyn View, id: &str) -> Result<Arc<Schedule>, Refusal> {
    view.schedule(id).ok_or_else(|| refuse(404, format!("schedule `{id}` does not exist")))
}

fn known_promise(draft: &Draft<'_>, id: &str) -> Result<Arc<Promise>, Refusal> {
    draft.promise(id).ok_or_else(|| refuse(404, format!("promise `{id}` does not exist")))
}

fn known_task(draft: &Draft<'_>, id: &str) -> Result<Arc<Task>, Refusal> {
    draft.task(id).ok_or_else(|| refuse(404, format!("task `{id}` does not exist")))
}

fn need_held(draft: &Draft<'_>, id: &str, version: u64) -> Result<(), Refusal> {
    let task = known_task(draft, id)?;
    if task.state == TaskState::Acquired && task.version == version {
        return Ok(());
    }
    Err(refuse(409, format!("task `{id}` is not acquired at version {version}")))
}

fn need_awaitable(promise: &Promise) -> Result<(), Refusal> {
    if promise.is_awaitable() {
        return Ok(());
    }
    Err(refuse(422, format!("promise `{}` is internal to its worker and cannot be awaited", promise.id)))
}

fn need_same_origin(draft: &Draft<'_>, a: &str, b: &str) -> Result<(), Refusal> {
    if same_origin((a, draft.promise(a).as_deref()), (b, draft.promise(b).as_deref())) {
        return Ok(());
    }
    Err(refuse(400, format!("`{a}` and `{b}` do not share an origin")))
}
