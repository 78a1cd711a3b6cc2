//! What exists: promises with their tasks, callbacks and listeners, and the messages they owe.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{Millis, Timestamp};

use crate::tags::Tags;

/// A payload: opaque text and headers, never decoded here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// Headers, if any were sent.
    pub headers: Option<BTreeMap<String, String>>,
    /// Opaque text, if any was sent.
    pub data: Option<String>,
}

impl Value {
    /// A value of plain text without headers.
    #[must_use]
    pub fn text(data: impl Into<String>) -> Value {
        Value { headers: None, data: Some(data.into()) }
    }

    /// Whether it carries nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.headers.is_none() && self.data.is_none()
    }

    /// The bytes it carries, headers and data together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let headers = self.headers.iter().flatten().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        headers + self.data.as_ref().map_or(0, String::len)
    }
}

/// The state of a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PromiseState {
    /// Not settled.
    Pending,
    /// Settled with success (or a timer that elapsed).
    Resolved,
    /// Settled with failure.
    Rejected,
    /// Settled by cancellation.
    Canceled,
    /// Settled by its deadline.
    TimedOut,
}

/// A durable promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Its id, unique for ever.
    pub id: String,
    /// Its state.
    pub state: PromiseState,
    /// What its creator passed.
    pub param: Value,
    /// What its settler passed; empty while pending and after a deadline.
    pub value: Value,
    /// Tags; those that begin with `resonate:` mean something.
    pub tags: Tags,
    /// When it settles by itself.
    pub timeout_at: Timestamp,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it settled.
    pub settled_at: Option<Timestamp>,
}

impl Promise {
    /// Whether it has settled.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.state != PromiseState::Pending
    }

    /// Whether it can still be settled at `now` by something other than its deadline.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        !self.is_settled() && now < self.timeout_at
    }
}

/// The state of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskState {
    /// Offered to workers.
    Pending,
    /// Held by one worker under a lease.
    Acquired,
    /// Waiting for a promise it awaits.
    Suspended,
    /// Stopped by an operator.
    Halted,
    /// Over: its promise settled.
    Fulfilled,
}

/// The work that settles a promise. Its id is its promise's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The id of its promise.
    pub id: String,
    /// Its state.
    pub state: TaskState,
    /// Rises on every change of ownership; fences late requests.
    pub version: u64,
    /// Awaited promises that settled since it was last acquired or suspended.
    pub resumes: BTreeSet<String>,
    /// The lease it was acquired with; present while acquired.
    pub ttl: Option<Millis>,
    /// The worker that holds it; present while acquired.
    pub pid: Option<String>,
    /// When it is offered again; present while pending.
    pub retry_at: Option<Timestamp>,
    /// When its lease lapses; present while acquired.
    pub lease_at: Option<Timestamp>,
    /// How often it was acquired since it last got anywhere: since a fence or a suspension.
    pub attempts: u32,
    /// Why it is halted, for people; present while halted.
    pub reason: Option<String>,
}

impl Task {
    /// A task of a promise that is created now, not yet offered to anybody.
    #[must_use]
    pub(crate) fn new(id: &str, state: TaskState, retry_at: Option<Timestamp>) -> Task {
        Task {
            id: id.to_owned(),
            state,
            version: 0,
            resumes: BTreeSet::new(),
            ttl: None,
            pid: None,
            retry_at,
            lease_at: None,
            attempts: 0,
            reason: None,
        }
    }

    /// The task as it is answered to clients.
    #[must_use]
    pub fn record(&self) -> TaskRecord {
        TaskRecord {
            id: self.id.clone(),
            state: self.state,
            version: self.version,
            resumes: self.resumes.len() as u64,
            ttl: self.ttl,
            pid: self.pid.clone(),
        }
    }
}

/// A task as clients see it: resumes are a count and timers stay inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    /// The id of its promise.
    pub id: String,
    /// Its state.
    pub state: TaskState,
    /// Its version.
    pub version: u64,
    /// How many awaited promises settled since it was last acquired or suspended.
    pub resumes: u64,
    /// Its lease, while acquired.
    pub ttl: Option<Millis>,
    /// Its holder, while acquired.
    pub pid: Option<String>,
}

/// Everything that is kept under one id, persisted as one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The promise.
    pub promise: Arc<Promise>,
    /// Its task; present exactly when the promise has a target.
    pub task: Option<Arc<Task>>,
    /// Awaiters to resume when the promise settles.
    pub callbacks: BTreeSet<String>,
    /// Addresses to notify when the promise settles.
    pub listeners: BTreeSet<String>,
}

impl Row {
    /// The id all of it is kept under.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.promise.id
    }

    /// How many timers this row calls for.
    pub(crate) fn timer_count(&self) -> usize {
        let task = self.task.as_deref();
        let instants = task.map_or([None, None], |task| [task.retry_at, task.lease_at]);
        usize::from(!self.promise.is_settled()) + instants.into_iter().flatten().count()
    }

    /// Whether this row calls for a timer.
    pub(crate) fn calls_for(&self, timer: &Timer) -> bool {
        let task = self.task.as_deref();
        let due = match timer.kind {
            TimerKind::Promise => Some(self.promise.timeout_at).filter(|_| !self.promise.is_settled()),
            TimerKind::Retry => task.and_then(|task| task.retry_at),
            TimerKind::Lease => task.and_then(|task| task.lease_at),
            TimerKind::Schedule => None,
        };
        due == Some(timer.at) && timer.id == self.id()
    }

    /// The timers this row calls for.
    #[must_use]
    pub fn timers(&self) -> Vec<Timer> {
        let timer =
            |(kind, at): (TimerKind, Option<Timestamp>)| Some(Timer { kind, at: at?, id: self.id().to_owned() });
        self.timer_instants().into_iter().filter_map(timer).collect()
    }

    /// When each kind of timer of this row is due, if it runs; always in this order.
    #[must_use]
    pub(crate) fn timer_instants(&self) -> [(TimerKind, Option<Timestamp>); 3] {
        let deadline = if self.promise.is_settled() { None } else { Some(self.promise.timeout_at) };
        let task = self.task.as_deref();
        [
            (TimerKind::Promise, deadline),
            (TimerKind::Retry, task.and_then(|task| task.retry_at)),
            (TimerKind::Lease, task.and_then(|task| task.lease_at)),
        ]
    }
}

/// What a timer is for, in the order a sweep looks at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerKind {
    /// A promise reaches its deadline.
    Promise,
    /// A pending task is offered again.
    Retry,
    /// A lease lapses.
    Lease,
    /// A schedule fires.
    Schedule,
}

/// One entry of the timer index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timer {
    /// What it is for.
    pub kind: TimerKind,
    /// When it is due.
    pub at: Timestamp,
    /// Whose it is.
    pub id: String,
}

/// A message owed to a worker or listener; an outbox row until it is delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A task is offered to its target.
    Execute {
        /// The task.
        task_id: String,
        /// The version to acquire it at.
        version: u64,
        /// The target.
        address: String,
    },
    /// A promise someone listens to has settled.
    Unblock {
        /// The listener.
        address: String,
        /// The settled promise.
        promise: Arc<Promise>,
    },
}

impl Message {
    /// The key it is queued under: a later message with the same key replaces it.
    #[must_use]
    pub fn key(&self) -> MessageKey {
        match self {
            Message::Execute { task_id, .. } => MessageKey::Execute { task_id: task_id.clone() },
            Message::Unblock { address, promise } => {
                MessageKey::Unblock { promise_id: promise.id.clone(), address: address.clone() }
            }
        }
    }

    /// Where it goes.
    #[must_use]
    pub fn address(&self) -> &str {
        match self {
            Message::Execute { address, .. } | Message::Unblock { address, .. } => address,
        }
    }
}

/// The identity of an outbox row: one execute per task, one unblock per promise and address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageKey {
    /// The execute of a task.
    Execute {
        /// The task.
        task_id: String,
    },
    /// The unblock of a listener.
    Unblock {
        /// The promise.
        promise_id: String,
        /// The listener.
        address: String,
    },
}
