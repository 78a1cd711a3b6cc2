//! The reference model: the protocol once more, by full scans over flat sets, without views or effects.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{Millis, Timestamp};

use crate::request::{Body, Callback, Create, FenceAction, Request, Response, ScheduleCreate, Settle, TaskRef};
use crate::schedule::{NEVER, Schedule, next_firing};
use crate::snapshot::Snapshot;
use crate::state::{Message, MessageKey, Promise, PromiseState, Task, TaskState, Timer, TimerKind, Value};
use crate::tags::Tags;
use crate::validate::validate;
use crate::view::{Config, Poison, Profile};

/// Everything that exists, flat.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model {
    pub(crate) promises: BTreeMap<String, Promise>,
    pub(crate) tasks: BTreeMap<String, Task>,
    /// (awaited, awaiter)
    pub(crate) callbacks: BTreeSet<(String, String)>,
    /// (promise, address)
    pub(crate) listeners: BTreeSet<(String, String)>,
    pub(crate) messages: BTreeMap<MessageKey, Message>,
    pub(crate) schedules: BTreeMap<String, Schedule>,
}

/// The model at an instant.
struct At<'a> {
    m: &'a mut Model,
    now: Timestamp,
    retry: Millis,
    every_change: bool,
    poison: Poison,
}

type Outcome = Result<Body, u16>;

const LAPSED: &str = "its lease lapsed";

impl Model {
    /// One request. A refusal's message is empty: wording is not compared.
    pub(crate) fn apply(&mut self, request: &Request, now: Timestamp, config: &Config) -> Response {
        if let Some(refusal) = validate(request) {
            return Response::refuse(refusal.status, "");
        }
        let outcome = self.at(now, config).operation(request);
        match outcome {
            Ok(body @ Body::Preload(_)) => Response { status: 300, body },
            outcome => outcome.map_or_else(|status| Response::refuse(status, ""), Response::ok),
        }
    }

    /// One sweep.
    pub(crate) fn tick(&mut self, now: Timestamp, limit: u32, config: &Config) {
        let due: Vec<Timer> = self.timers().into_iter().filter(|timer| timer.at <= now).take(limit as usize).collect();
        let mut at = self.at(now, config);
        let expired = due.iter().filter(|timer| timer.kind == TimerKind::Promise);
        let expired: Vec<&str> = expired.map(|timer| timer.id.as_str()).collect();
        at.expire(&expired);
        for timer in due.iter().filter(|timer| !matches!(timer.kind, TimerKind::Promise | TimerKind::Schedule)) {
            at.expire(&[&timer.id]);
            match (at.m.tasks[&timer.id].state, timer.kind) {
                (TaskState::Pending, TimerKind::Retry) => at.pend(&timer.id),
                (TaskState::Acquired, TimerKind::Lease) => at.lose(&timer.id, LAPSED),
                _ => {}
            }
        }
        for timer in due.iter().filter(|timer| timer.kind == TimerKind::Schedule) {
            at.fire(&timer.id);
        }
    }

    /// A worker is gone.
    pub(crate) fn reclaim(&mut self, held: &[TaskRef], now: Timestamp, config: &Config) {
        let mut at = self.at(now, config);
        for held in held {
            at.expire(&[&held.id]);
            if at.held(&held.id, held.version).is_ok() {
                at.lose(&held.id, LAPSED);
            }
        }
    }

    /// Every timer, in the order a sweep takes them.
    pub(crate) fn timers(&self) -> BTreeSet<Timer> {
        let promises = self.promises.values().filter(|promise| promise.state == PromiseState::Pending);
        let promises = promises.map(|promise| (TimerKind::Promise, Some(promise.timeout_at), &promise.id));
        let retries = self.tasks.values().map(|task| (TimerKind::Retry, task.retry_at, &task.id));
        let leases = self.tasks.values().map(|task| (TimerKind::Lease, task.lease_at, &task.id));
        let schedules = self.schedules.values().filter(|one| one.next_run_at < NEVER);
        let schedules = schedules.map(|one| (TimerKind::Schedule, Some(one.next_run_at), &one.id));
        let all = promises.chain(retries).chain(leases).chain(schedules);
        all.filter_map(|(kind, at, id)| at.map(|at| Timer { kind, at, id: id.clone() })).collect()
    }

    /// Everything but schedules, as an outside tester is shown it.
    pub(crate) fn shown(&self) -> Snapshot {
        let mut shown = Snapshot {
            promises: self.promises.values().cloned().map(Arc::new).collect(),
            tasks: self.tasks.values().map(Task::record).collect(),
            listeners: self.listeners.iter().cloned().collect(),
            messages: self.messages.values().cloned().collect(),
            ..Snapshot::default()
        };
        let callback =
            |(awaited, awaiter): &(String, String)| Callback { awaited: awaited.clone(), awaiter: awaiter.clone() };
        shown.callbacks = self.callbacks.iter().map(callback).collect();
        for Timer { kind, at, id } in self.timers() {
            match kind {
                TimerKind::Promise => shown.promise_timeouts.push((id, at)),
                TimerKind::Retry | TimerKind::Lease => shown.task_timeouts.push((id, kind == TimerKind::Lease, at)),
                TimerKind::Schedule => {}
            }
        }
        shown.promise_timeouts.sort();
        shown.task_timeouts.sort();
        shown
    }

    fn at(&mut self, now: Timestamp, config: &Config) -> At<'_> {
        let Config { retry_timeout: retry, profile, poison } = *config;
        At { m: self, now, retry, every_change: profile == Profile::Stanch, poison }
    }
}

impl At<'_> {
    fn operation(&mut self, request: &Request) -> Outcome {
        match request {
            Request::PromiseGet { id } => {
                self.expire(&[id]);
                self.promise(id).map(Body::Promise)
            }
            Request::PromiseCreate(create) => Ok(self.create(create)),
            Request::PromiseSettle(settle) => self.settle(settle),
            Request::RegisterCallback(callback) => self.callback(callback),
            Request::RegisterListener { awaited, address } => {
                self.expire(&[awaited]);
                let promise = self.promise(awaited)?;
                self.awaitable(awaited)?;
                if promise.state == PromiseState::Pending {
                    self.m.listeners.insert((awaited.clone(), address.clone()));
                }
                Ok(Body::Promise(promise))
            }
            Request::TaskGet { id } => {
                self.expire(&[id]);
                Ok(Body::Task(self.task(id)?.record()))
            }
            Request::TaskCreate { pid, ttl, action } => self.task_create(pid, *ttl, action),
            Request::TaskAcquire { id, version, pid, ttl } => {
                self.expire(&[id]);
                let task = self.task(id)?;
                if task.state != TaskState::Pending || task.version != *version {
                    return Err(409);
                }
                self.acquire(id, pid, *ttl)
            }
            Request::TaskRelease(TaskRef { id, version }) => {
                self.expire(&[id]);
                self.held(id, *version)?;
                self.lose(id, "it was given back");
                Ok(Body::Empty)
            }
            Request::TaskFulfill { id, version, action } => {
                self.expire(&[id]);
                self.held(id, *version)?;
                self.settle(action)
            }
            Request::TaskSuspend { id, version, actions } => self.suspend(id, *version, actions),
            Request::TaskFence { id, version, action } => {
                self.expire(&[id, action.id()]);
                self.held(id, *version)?;
                self.change(id, |task, _| task.attempts = 0);
                let inner = match action {
                    FenceAction::Create(create) => Ok(self.create(create)),
                    FenceAction::Settle(settle) => self.settle(settle),
                };
                let response = Box::new(inner.map_or_else(|status| Response::refuse(status, ""), Response::ok));
                Ok(Body::Fenced { kind: action.kind(), response, preload: Vec::new() })
            }
            Request::TaskHeartbeat { pid, tasks } => self.beat(pid, tasks),
            Request::TaskHalt { id } => self.stop(id),
            Request::TaskContinue { id } => self.go_on(id),
            Request::PromiseSearch(_)
            | Request::TaskSearch(_)
            | Request::ScheduleGet { .. }
            | Request::ScheduleCreate(_)
            | Request::ScheduleDelete { .. }
            | Request::ScheduleSearch(_)
            | Request::Debug(_) => self.outside(request),
        }
    }

    /// What no worker asks.
    fn outside(&mut self, request: &Request) -> Outcome {
        match request {
            Request::PromiseSearch(search) => {
                let has = |promise: &&Promise| search.tags.iter().all(|(key, value)| is(&promise.tags, key, value));
                let all = self.m.promises.values().filter(has);
                let all = all.filter(|promise| search.state.is_none_or(|state| promise.state == state));
                let all = all.map(|promise| (promise.id.clone(), Arc::new(promise.clone())));
                let (promises, cursor) = page(all.collect(), &search.cursor, search.limit.unwrap_or(100));
                Ok(Body::Promises { promises, cursor })
            }
            Request::TaskSearch(search) => {
                let all = self.m.tasks.values();
                let all = all.filter(|task| search.state.is_none_or(|state| task.state == state));
                let all = all.map(|task| (task.id.clone(), task.record())).collect();
                let (tasks, cursor) = page(all, &search.cursor, search.limit.unwrap_or(100));
                Ok(Body::Tasks { tasks, cursor })
            }
            Request::ScheduleGet { id } => {
                self.m.schedules.get(id).cloned().map(|one| Body::Schedule(Arc::new(one))).ok_or(404)
            }
            Request::ScheduleCreate(create) => self.schedule(create),
            Request::ScheduleDelete { id } => self.m.schedules.remove(id).map(|_| Body::Empty).ok_or(404),
            Request::ScheduleSearch(search) => {
                let has =
                    |one: &&Schedule| search.tags.iter().all(|(key, value)| one.promise_tags.get(key) == Some(value));
                let all = self.m.schedules.values().filter(has);
                let all = all.map(|one| (one.id.clone(), Arc::new(one.clone()))).collect();
                let (schedules, cursor) = page(all, &search.cursor, search.limit.unwrap_or(10));
                Ok(Body::Schedules { schedules, cursor })
            }
            _ => Err(403),
        }
    }

    fn stop(&mut self, id: &str) -> Outcome {
        self.expire(&[id]);
        match self.task(id)?.state {
            TaskState::Fulfilled => return Err(409),
            TaskState::Halted => {}
            _ => self.halt(id, "halted by request"),
        }
        Ok(Body::Empty)
    }

    fn go_on(&mut self, id: &str) -> Outcome {
        self.expire(&[id]);
        if self.task(id)?.state != TaskState::Halted {
            return Err(409);
        }
        self.change(id, |task, _| (task.attempts, task.reason) = (0, None));
        self.pend(id);
        Ok(Body::Empty)
    }

    fn beat(&mut self, pid: &str, tasks: &[TaskRef]) -> Outcome {
        for TaskRef { id, version } in tasks {
            let Ok(task) = self.held(id, *version) else { continue };
            let alive = self.m.promises[id].timeout_at > self.now;
            if alive && task.pid.as_deref() == Some(pid) {
                self.change(id, |task, now| task.lease_at = task.ttl.map(|ttl| now.plus(ttl)));
            }
        }
        Ok(Body::Empty)
    }

    fn schedule(&mut self, create: &ScheduleCreate) -> Outcome {
        let known = self.m.schedules.get(&create.id).cloned();
        let schedule = known.unwrap_or(Schedule {
            id: create.id.clone(),
            cron: create.cron.clone(),
            promise_id: create.promise_id.clone(),
            promise_timeout: create.promise_timeout,
            promise_param: create.promise_param.clone(),
            promise_tags: create.promise_tags.clone(),
            created_at: self.now,
            next_run_at: next_firing(&create.cron, self.now).map_err(|_| 400_u16)?,
            last_run_at: None,
        });
        if schedule.next_run_at == NEVER && !self.m.schedules.contains_key(&create.id) {
            return Err(400);
        }
        self.m.schedules.insert(create.id.clone(), schedule.clone());
        Ok(Body::Schedule(Arc::new(schedule)))
    }

    /// One firing: its promise is as old as the instant it belongs to.
    fn fire(&mut self, id: &str) {
        let Some(mut schedule) = self.m.schedules.get(id).cloned() else { return };
        let at = schedule.next_run_at;
        let promise_id = schedule.promise_id.replace("{{.timestamp}}", &at.0.to_string()).replace("{{.id}}", id);
        let mut tags = schedule.promise_tags.clone();
        for name in ["origin", "branch", "parent", "prefix"] {
            tags.insert(format!("resonate:{name}"), promise_id.clone());
        }
        tags.insert("resonate:schedule".to_owned(), id.to_owned());
        let timeout_at = at.plus(schedule.promise_timeout);
        let create = Create { id: promise_id.clone(), timeout_at, param: schedule.promise_param.clone(), tags };
        if !self.m.promises.contains_key(&promise_id) {
            let now = std::mem::replace(&mut self.now, at);
            self.create(&create);
            self.now = now;
            self.expire(&[&promise_id]);
        }
        (schedule.last_run_at, schedule.next_run_at) = (Some(at), next_firing(&schedule.cron, at).unwrap_or(NEVER));
        self.m.schedules.insert(id.to_owned(), schedule);
    }

    fn halt(&mut self, id: &str, reason: &str) {
        self.rest(id, TaskState::Halted);
        self.change(id, |task, _| task.reason = Some(reason.to_owned()));
    }

    fn create(&mut self, create: &Create) -> Body {
        self.expire(&[&create.id]);
        if let Ok(promise) = self.promise(&create.id) {
            return Body::Promise(promise);
        }
        let alive = create.timeout_at > self.now;
        let timer = is(&Tags::from(&create.tags), "resonate:timer", "true");
        let state = [PromiseState::TimedOut, PromiseState::Resolved][usize::from(timer)];
        let state = if alive { PromiseState::Pending } else { state };
        let promise = Promise {
            id: create.id.clone(),
            state,
            param: create.param.clone(),
            value: Value::default(),
            tags: Tags::from(&create.tags),
            timeout_at: create.timeout_at,
            created_at: if alive { self.now } else { create.timeout_at },
            settled_at: (!alive).then_some(create.timeout_at),
        };
        self.m.promises.insert(create.id.clone(), promise.clone());
        if create.tags.contains_key("resonate:target") {
            let task = Task::new(&create.id, TaskState::Fulfilled, None);
            self.m.tasks.insert(create.id.clone(), task);
            if alive {
                self.pend(&create.id);
                let delay = create.tags.get("resonate:delay").and_then(|delay| delay.parse().ok()).map(Timestamp);
                if let Some(delay) = delay.filter(|delay| *delay > self.now && !timer) {
                    self.change(&create.id, |task, _| task.retry_at = Some(delay));
                    self.m.messages.remove(&MessageKey::Execute { task_id: create.id.clone() });
                }
            }
        }
        Body::Promise(Arc::new(promise))
    }

    fn settle(&mut self, settle: &Settle) -> Outcome {
        self.expire(&[&settle.id]);
        if self.promise(&settle.id)?.state == PromiseState::Pending {
            self.close(&settle.id, settle.state.state(), settle.value.clone(), self.now);
            self.wake_awaiters(&settle.id);
        }
        self.promise(&settle.id).map(Body::Promise)
    }

    fn callback(&mut self, Callback { awaited, awaiter }: &Callback) -> Outcome {
        self.same_tree(awaited, awaiter)?;
        self.expire(&[awaited, awaiter]);
        let promise = self.promise(awaited)?;
        let waiting = self.promise(awaiter).map_err(|_| 422_u16)?;
        if waiting.tags.get("resonate:target").is_none() {
            return Err(422);
        }
        self.awaitable(awaited)?;
        let pending = |promise: &Promise| promise.state == PromiseState::Pending;
        if pending(&waiting) && pending(&promise) {
            self.m.callbacks.insert((awaited.clone(), awaiter.clone()));
        } else if pending(&waiting) {
            self.wake(awaiter, awaited);
        }
        Ok(Body::Promise(promise))
    }

    fn task_create(&mut self, pid: &str, ttl: Millis, create: &Create) -> Outcome {
        let id = &create.id;
        self.create(create);
        let state = self.m.tasks.get(id).map(|task| task.state).ok_or(422_u16)?;
        match state {
            TaskState::Pending => self.acquire(id, pid, ttl),
            TaskState::Fulfilled => self.acquired(id, Vec::new()),
            _ => Err(409),
        }
    }

    fn suspend(&mut self, id: &str, version: u64, actions: &[Callback]) -> Outcome {
        for action in actions {
            self.same_tree(id, &action.awaited)?;
        }
        let named: Vec<&str> = std::iter::once(id).chain(actions.iter().map(|action| &*action.awaited)).collect();
        self.expire(&named);
        self.held(id, version)?;
        for action in actions {
            self.promise(&action.awaited).map_err(|_| 422_u16)?;
            self.awaitable(&action.awaited)?;
        }
        self.change(id, |task, _| {
            task.resumes.clear();
            task.attempts = 0;
        });
        let promises = &self.m.promises;
        if actions.iter().any(|action| promises[&action.awaited].state != PromiseState::Pending) {
            return Ok(Body::Preload(self.preload(id)));
        }
        self.m.callbacks.extend(actions.iter().map(|action| (action.awaited.clone(), id.to_owned())));
        self.rest(id, TaskState::Suspended);
        Ok(Body::Empty)
    }

    fn acquire(&mut self, id: &str, pid: &str, ttl: Millis) -> Outcome {
        self.rest(id, TaskState::Acquired);
        self.change(id, |task, now| {
            task.version += 1;
            task.attempts += 1;
            task.resumes.clear();
            task.pid = Some(pid.to_owned());
            task.ttl = Some(ttl);
            task.lease_at = Some(now.plus(ttl));
        });
        self.acquired(id, self.preload(id))
    }

    fn acquired(&self, id: &str, preload: Vec<Arc<Promise>>) -> Outcome {
        Ok(Body::Acquired { task: self.task(id)?.record(), promise: self.promise(id)?, preload })
    }

    fn preload(&self, id: &str) -> Vec<Arc<Promise>> {
        let branch = self.m.promises[id].tags.get("resonate:branch");
        let same = |promise: &&Promise| promise.id != id && promise.tags.get("resonate:branch") == branch;
        self.m.promises.values().filter(|_| branch.is_some()).filter(same).cloned().map(Arc::new).collect()
    }

    /// Applies the deadlines of the named promises, all before anyone is woken.
    fn expire(&mut self, ids: &[&str]) {
        let (now, promises) = (self.now, &self.m.promises);
        let due = |promise: &Promise| promise.state == PromiseState::Pending && promise.timeout_at <= now;
        let late: BTreeSet<&str> = ids.iter().copied().filter(|id| promises.get(*id).is_some_and(due)).collect();
        for id in &late {
            let promise = &self.m.promises[*id];
            let timer = is(&promise.tags, "resonate:timer", "true");
            let state = [PromiseState::TimedOut, PromiseState::Resolved][usize::from(timer)];
            self.close(id, state, Value::default(), promise.timeout_at);
        }
        for id in late {
            self.wake_awaiters(id);
        }
    }

    fn close(&mut self, id: &str, state: PromiseState, value: Value, at: Timestamp) {
        if let Some(promise) = self.m.promises.get_mut(id) {
            (promise.state, promise.value, promise.settled_at) = (state, value, Some(at));
        }
        self.rest(id, TaskState::Fulfilled);
        self.change(id, |task, _| task.resumes.clear());
        self.m.callbacks.retain(|(_, awaiter)| awaiter != id);
        let promise = Arc::new(self.m.promises[id].clone());
        for (_, address) in self.m.listeners.extract_if(.., |(promise, _)| promise == id) {
            let message = Message::Unblock { address, promise: Arc::clone(&promise) };
            self.m.messages.insert(message.key(), message);
        }
    }

    fn wake_awaiters(&mut self, id: &str) {
        for (awaited, awaiter) in self.m.callbacks.clone() {
            // An awaiter past its deadline is not woken; its callback goes when it expires itself.
            if awaited == id && self.m.promises[&awaiter].timeout_at > self.now {
                self.m.callbacks.remove(&(awaited, awaiter.clone()));
                self.wake(&awaiter, id);
            }
        }
    }

    fn wake(&mut self, awaiter: &str, awaited: &str) {
        let suspended = self.m.tasks[awaiter].state == TaskState::Suspended;
        self.change(awaiter, |task, _| {
            task.resumes.insert(awaited.to_owned());
        });
        if suspended {
            self.pend(awaiter);
        }
    }

    /// Pending, with a retry timer and an execute; a timer's task waits for its deadline instead.
    fn pend(&mut self, id: &str) {
        self.rest(id, TaskState::Pending);
        let promise = &self.m.promises[id];
        let timer = is(&promise.tags, "resonate:timer", "true");
        let retry_at = if timer { promise.timeout_at } else { self.now.plus(self.retry) };
        if !timer {
            let (address, version) =
                (promise.tags.get("resonate:target").unwrap().to_owned(), self.m.tasks[id].version);
            let message = Message::Execute { task_id: id.to_owned(), version, address };
            self.m.messages.insert(message.key(), message);
        }
        self.change(id, |task, _| task.retry_at = Some(retry_at));
    }

    /// Back to pending by release or lapse.
    fn lose(&mut self, id: &str, how: &str) {
        let (by, poison) = (u64::from(self.every_change), self.poison);
        self.change(id, |task, _| task.version += by);
        let attempts = self.m.tasks[id].attempts;
        if let Some("inc" | "hold") = id.split(['/', ':', '.']).next() {
            return self.pend(id);
        }
        if poison.attempts_max > 0 && attempts >= poison.attempts_max {
            let times = format!("acquired {attempts} times without getting anywhere; the last time {how}");
            return self.halt(id, &times);
        }
        self.pend(id);
        if attempts > poison.free && !is(&self.m.promises[id].tags, "resonate:timer", "true") {
            let pause = poison.pause.0 * 2_u64.pow(attempts - poison.free - 1);
            let until = self.now.plus(Millis(pause.min(poison.pause_max.0)));
            self.change(id, |task, _| task.retry_at = Some(until));
            self.m.messages.remove(&MessageKey::Execute { task_id: id.to_owned() });
        }
    }

    /// A state without holder, timers and execute.
    fn rest(&mut self, id: &str, state: TaskState) {
        self.change(id, |task, _| {
            task.state = state;
            (task.pid, task.ttl, task.retry_at, task.lease_at) = (None, None, None, None);
            task.reason = None;
        });
        self.m.messages.remove(&MessageKey::Execute { task_id: id.to_owned() });
    }

    fn change(&mut self, id: &str, change: impl FnOnce(&mut Task, Timestamp)) {
        if let Some(task) = self.m.tasks.get_mut(id) {
            change(task, self.now);
        }
    }

    fn promise(&self, id: &str) -> Result<Arc<Promise>, u16> {
        self.m.promises.get(id).cloned().map(Arc::new).ok_or(404)
    }

    fn task(&self, id: &str) -> Result<Task, u16> {
        self.m.tasks.get(id).cloned().ok_or(404)
    }

    fn held(&self, id: &str, version: u64) -> Result<Task, u16> {
        let task = self.task(id)?;
        if task.state == TaskState::Acquired && task.version == version { Ok(task) } else { Err(409) }
    }

    fn awaitable(&self, id: &str) -> Result<(), u16> {
        let tags = &self.m.promises[id].tags;
        let [timer, external] = ["resonate:timer", "resonate:external"].map(|name| is(tags, name, "true"));
        let external = timer || external || is(tags, "resonate:scope", "global");
        let server = ["inc", "hold"].iter().any(|root| id == *root || id.starts_with(&format!("{root}/")));
        if tags.get("resonate:target").is_some() || external || server { Ok(()) } else { Err(422) }
    }

    fn same_tree(&self, a: &str, b: &str) -> Result<(), u16> {
        let tag = |id: &str| {
            self.m.promises.get(id).and_then(|promise| promise.tags.get("resonate:origin").map(str::to_owned))
        };
        let cut = |id: &str| id.find(':').or_else(|| id.find('.')).map_or(id.to_owned(), |at| id[..at].to_owned());
        let same = match (tag(a), tag(b)) {
            (Some(a), Some(b)) => a == b,
            _ => cut(a) == cut(b),
        };
        if same { Ok(()) } else { Err(400) }
    }
}

/// One page of what fits, and the id of its last if more follow.
fn page<T>(all: Vec<(String, T)>, cursor: &Option<String>, limit: u64) -> (Vec<T>, Option<String>) {
    let after: Vec<_> = all.into_iter().filter(|(id, _)| cursor.as_ref().is_none_or(|cursor| id > cursor)).collect();
    let limit = usize::try_from(limit).unwrap();
    let cursor = (after.len() > limit).then(|| after[limit - 1].0.clone());
    (after.into_iter().take(limit).map(|(_, one)| one).collect(), cursor)
}

fn is(tags: &Tags, name: &str, value: &str) -> bool {
    tags.get(name) == Some(value)
}
