//! The reference model: the protocol once more, by full scans over flat sets, without views or effects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{Millis, Timestamp};

use crate::request::{Body, Callback, Create, FenceAction, Request, Response, Settle, TaskRef};
use crate::state::{Message, MessageKey, Promise, PromiseState, Task, TaskState, Timer, TimerKind, Value};
use crate::validate::validate;
use crate::view::{Config, Profile};

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
}

/// The model at an instant.
struct At<'a> {
    m: &'a mut Model,
    now: Timestamp,
    retry: Millis,
    every_change: bool,
}

type Outcome = Result<Body, u16>;

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
        for timer in due.iter().filter(|timer| timer.kind != TimerKind::Promise) {
            at.expire(&[&timer.id]);
            match (at.m.tasks[&timer.id].state, timer.kind) {
                (TaskState::Pending, TimerKind::Retry) => at.pend(&timer.id),
                (TaskState::Acquired, TimerKind::Lease) => at.lose(&timer.id),
                _ => {}
            }
        }
    }

    /// A worker is gone.
    pub(crate) fn reclaim(&mut self, held: &[TaskRef], now: Timestamp, config: &Config) {
        let mut at = self.at(now, config);
        for held in held {
            at.expire(&[&held.id]);
            if at.held(&held.id, held.version).is_ok() {
                at.lose(&held.id);
            }
        }
    }

    /// Every timer, in the order a sweep takes them.
    pub(crate) fn timers(&self) -> BTreeSet<Timer> {
        let promises = self.promises.values().filter(|promise| promise.state == PromiseState::Pending);
        let promises = promises.map(|promise| (TimerKind::Promise, Some(promise.timeout_at), &promise.id));
        let retries = self.tasks.values().map(|task| (TimerKind::Retry, task.retry_at, &task.id));
        let leases = self.tasks.values().map(|task| (TimerKind::Lease, task.lease_at, &task.id));
        let all = promises.chain(retries).chain(leases);
        all.filter_map(|(kind, at, id)| at.map(|at| Timer { kind, at, id: id.clone() })).collect()
    }

    fn at(&mut self, now: Timestamp, config: &Config) -> At<'_> {
        At { m: self, now, retry: config.retry_timeout, every_change: config.profile == Profile::Stanch }
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
                self.lose(id);
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
                let inner = match action {
                    FenceAction::Create(create) => Ok(self.create(create)),
                    FenceAction::Settle(settle) => self.settle(settle),
                };
                let response = Box::new(inner.map_or_else(|status| Response::refuse(status, ""), Response::ok));
                Ok(Body::Fenced { kind: action.kind(), response, preload: Vec::new() })
            }
            Request::TaskHeartbeat { pid, tasks } => {
                for TaskRef { id, version } in tasks {
                    let Ok(task) = self.held(id, *version) else { continue };
                    let alive = self.m.promises[id].timeout_at > self.now;
                    if alive && task.pid.as_ref() == Some(pid) {
                        self.change(id, |task, now| task.lease_at = task.ttl.map(|ttl| now.plus(ttl)));
                    }
                }
                Ok(Body::Empty)
            }
            Request::NotSupported { .. } => Err(501),
        }
    }

    fn create(&mut self, create: &Create) -> Body {
        self.expire(&[&create.id]);
        if let Ok(promise) = self.promise(&create.id) {
            return Body::Promise(promise);
        }
        let alive = create.timeout_at > self.now;
        let timer = is(&create.tags, "resonate:timer", "true");
        let state = [PromiseState::TimedOut, PromiseState::Resolved][usize::from(timer)];
        let state = if alive { PromiseState::Pending } else { state };
        let promise = Promise {
            id: create.id.clone(),
            state,
            param: create.param.clone(),
            value: Value::default(),
            tags: create.tags.clone(),
            timeout_at: create.timeout_at,
            created_at: if alive { self.now } else { create.timeout_at },
            settled_at: (!alive).then_some(create.timeout_at),
        };
        self.m.promises.insert(create.id.clone(), promise.clone());
        if create.tags.contains_key("resonate:target") {
            let (id, state, resumes) = (create.id.clone(), TaskState::Fulfilled, BTreeSet::new());
            let task = Task { id, state, version: 0, resumes, ttl: None, pid: None, retry_at: None, lease_at: None };
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
        if !waiting.tags.contains_key("resonate:target") {
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
        self.change(id, |task, _| task.resumes.clear());
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
            let (address, version) = (promise.tags["resonate:target"].clone(), self.m.tasks[id].version);
            let message = Message::Execute { task_id: id.to_owned(), version, address };
            self.m.messages.insert(message.key(), message);
        }
        self.change(id, |task, _| task.retry_at = Some(retry_at));
    }

    /// Back to pending by release or lapse.
    fn lose(&mut self, id: &str) {
        let by = u64::from(self.every_change);
        self.change(id, |task, _| task.version += by);
        self.pend(id);
    }

    /// A state without holder, timers and execute.
    fn rest(&mut self, id: &str, state: TaskState) {
        self.change(id, |task, _| {
            task.state = state;
            (task.pid, task.ttl, task.retry_at, task.lease_at) = (None, None, None, None);
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
        if tags.contains_key("resonate:target") || external || server { Ok(()) } else { Err(422) }
    }

    fn same_tree(&self, a: &str, b: &str) -> Result<(), u16> {
        let tag = |id: &str| self.m.promises.get(id).and_then(|promise| promise.tags.get("resonate:origin").cloned());
        let cut = |id: &str| id.find(':').or_else(|| id.find('.')).map_or(id.to_owned(), |at| id[..at].to_owned());
        let same = match (tag(a), tag(b)) {
            (Some(a), Some(b)) => a == b,
            _ => cut(a) == cut(b),
        };
        if same { Ok(()) } else { Err(400) }
    }
}

fn is(tags: &BTreeMap<String, String>, name: &str, value: &str) -> bool {
    tags.get(name).is_some_and(|tag| tag == value)
}
