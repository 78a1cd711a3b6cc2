//! What can be asked, and what is answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Millis, Timestamp};

use crate::schedule::Schedule;
use crate::snapshot::Snapshot;
use crate::state::{Promise, PromiseState, TaskRecord, TaskState, Value};

/// One operation of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Reads a promise.
    PromiseGet {
        /// The promise.
        id: String,
    },
    /// Creates a promise, or returns the one of that id.
    PromiseCreate(Create),
    /// Settles a promise, or returns it as it settled before.
    PromiseSettle(Settle),
    /// Resumes a task when a promise settles.
    RegisterCallback(Callback),
    /// Notifies an address when a promise settles.
    RegisterListener {
        /// The promise.
        awaited: String,
        /// Who is notified.
        address: String,
    },
    /// Reads a task.
    TaskGet {
        /// The task.
        id: String,
    },
    /// Creates a promise with a target and acquires its task.
    TaskCreate {
        /// The worker.
        pid: String,
        /// The lease.
        ttl: Millis,
        /// The promise.
        action: Create,
    },
    /// Takes a pending task under a lease.
    TaskAcquire {
        /// The task.
        id: String,
        /// The version it was offered at.
        version: u64,
        /// The worker.
        pid: String,
        /// The lease.
        ttl: Millis,
    },
    /// Gives an acquired task back.
    TaskRelease(TaskRef),
    /// Settles the promise of an acquired task.
    TaskFulfill {
        /// The task.
        id: String,
        /// The version it is held at.
        version: u64,
        /// The settlement of its promise.
        action: Settle,
    },
    /// Waits for other promises and gives the task up meanwhile.
    TaskSuspend {
        /// The task.
        id: String,
        /// The version it is held at.
        version: u64,
        /// What it waits for.
        actions: Vec<Callback>,
    },
    /// Creates or settles another promise while the task is held.
    TaskFence {
        /// The task.
        id: String,
        /// The version it is held at.
        version: u64,
        /// What is done under the guard.
        action: FenceAction,
    },
    /// Extends the leases of a worker.
    TaskHeartbeat {
        /// The worker.
        pid: String,
        /// The tasks it holds.
        tasks: Vec<TaskRef>,
    },
    /// Stops a task until it is continued.
    TaskHalt {
        /// The task.
        id: String,
    },
    /// Offers a halted task again.
    TaskContinue {
        /// The task.
        id: String,
    },
    /// Lists promises.
    PromiseSearch(PromiseSearch),
    /// Lists tasks.
    TaskSearch(TaskSearch),
    /// Reads a schedule.
    ScheduleGet {
        /// The schedule.
        id: String,
    },
    /// Creates a schedule, or returns the one of that id.
    ScheduleCreate(ScheduleCreate),
    /// Ends a schedule; what it created stays.
    ScheduleDelete {
        /// The schedule.
        id: String,
    },
    /// Lists schedules.
    ScheduleSearch(ScheduleSearch),
    /// An operation for outside testers; performed only by a server that was started with debugging on.
    Debug(Debug),
}

impl Request {
    /// The promises and tasks that it names. Its answer rests on no others, but for a preload or a page, and it changes
    /// no others that have settled.
    #[must_use]
    pub fn ids(&self) -> Vec<&str> {
        match self {
            Request::PromiseGet { id }
            | Request::TaskGet { id }
            | Request::RegisterListener { awaited: id, .. }
            | Request::TaskAcquire { id, .. } => vec![id],
            Request::PromiseCreate(create) | Request::TaskCreate { action: create, .. } => vec![&create.id],
            Request::PromiseSettle(settle) => vec![&settle.id],
            Request::RegisterCallback(callback) => vec![&callback.awaited, &callback.awaiter],
            Request::TaskRelease(task) => vec![&task.id],
            Request::TaskFulfill { id, action, .. } => vec![id, &action.id],
            Request::TaskSuspend { id, actions, .. } => {
                std::iter::once(id).chain(actions.iter().map(|action| &action.awaited)).map(String::as_str).collect()
            }
            Request::TaskFence { id, action, .. } => vec![id, action.id()],
            Request::TaskHeartbeat { tasks, .. } => tasks.iter().map(|task| task.id.as_str()).collect(),
            Request::TaskHalt { id } | Request::TaskContinue { id } => vec![id],
            Request::PromiseSearch(_)
            | Request::TaskSearch(_)
            | Request::ScheduleGet { .. }
            | Request::ScheduleCreate(_)
            | Request::ScheduleDelete { .. }
            | Request::ScheduleSearch(_)
            | Request::Debug(_) => Vec::new(),
        }
    }
}

/// What an outside tester may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debug {
    /// Pauses what happens by itself.
    Start,
    /// Lets it go on.
    Stop,
    /// Empties the store.
    Reset,
    /// Applies everything that is due at an instant.
    Tick(Timestamp),
    /// Shows the whole store.
    Snap,
}

/// Which promises to list; filters are ANDed, and a page is in the order of ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromiseSearch {
    /// Only those in this state.
    pub state: Option<PromiseState>,
    /// Only those with all of these tags.
    pub tags: BTreeMap<String, String>,
    /// How many at most, from 1 to 1,000; 100 if absent.
    pub limit: Option<u64>,
    /// Only those with greater ids: the cursor of the page before.
    pub cursor: Option<String>,
}

/// Which tasks to list, as [`PromiseSearch`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskSearch {
    /// Only those in this state.
    pub state: Option<TaskState>,
    /// How many at most, from 1 to 1,000; 100 if absent.
    pub limit: Option<u64>,
    /// Only those with greater ids: the cursor of the page before.
    pub cursor: Option<String>,
}

/// Which schedules to list, as [`PromiseSearch`]; the tags are those of the promises to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScheduleSearch {
    /// Only those with all of these tags.
    pub tags: BTreeMap<String, String>,
    /// How many at most, from 1 to 1,000; 10 if absent.
    pub limit: Option<u64>,
    /// Only those with greater ids: the cursor of the page before.
    pub cursor: Option<String>,
}

/// The creation of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleCreate {
    /// The id.
    pub id: String,
    /// When it fires: five to seven fields, in UTC.
    pub cron: String,
    /// The id of each promise; `{{.id}}` and `{{.timestamp}}` are replaced.
    pub promise_id: String,
    /// How long after its firing a promise times out.
    pub promise_timeout: Millis,
    /// What each promise is passed.
    pub promise_param: Value,
    /// The tags of each promise.
    pub promise_tags: BTreeMap<String, String>,
}

/// The creation of a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// The id.
    pub id: String,
    /// When it settles by itself.
    pub timeout_at: Timestamp,
    /// What the creator passes.
    pub param: Value,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// The settlement of a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// The promise.
    pub id: String,
    /// How it settles.
    pub state: Resolution,
    /// What the settler passes.
    pub value: Value,
}

/// The ways a request may settle a promise; the deadline is not one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resolution {
    /// With success.
    Resolved,
    /// With failure.
    Rejected,
    /// By cancellation.
    Canceled,
}

impl Resolution {
    /// The state a promise ends in.
    #[must_use]
    pub fn state(self) -> PromiseState {
        match self {
            Resolution::Resolved => PromiseState::Resolved,
            Resolution::Rejected => PromiseState::Rejected,
            Resolution::Canceled => PromiseState::Canceled,
        }
    }
}

/// A wish to be resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// The promise that is waited for.
    pub awaited: String,
    /// The task that waits.
    pub awaiter: String,
}

/// A task at a version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskRef {
    /// The task.
    pub id: String,
    /// The version.
    pub version: u64,
}

/// What a fence may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FenceAction {
    /// Creates a promise.
    Create(Create),
    /// Settles a promise.
    Settle(Settle),
}

impl FenceAction {
    /// The promise it touches.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            FenceAction::Create(create) => &create.id,
            FenceAction::Settle(settle) => &settle.id,
        }
    }

    /// Which of the two it is.
    #[must_use]
    pub fn kind(&self) -> FencedKind {
        match self {
            FenceAction::Create(_) => FencedKind::Create,
            FenceAction::Settle(_) => FencedKind::Settle,
        }
    }
}

/// Which operation ran inside a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FencedKind {
    /// A creation.
    Create,
    /// A settlement.
    Settle,
}

/// An answer: a status of the protocol and what it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status; the transport's status is always the same.
    pub status: u16,
    /// What it carries.
    pub body: Body,
}

/// What an answer carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    Empty,
    /// A promise.
    Promise(Arc<Promise>),
    /// A task.
    Task(TaskRecord),
    /// A task, its promise and what the worker needs to go on.
    Acquired {
        /// The task.
        task: TaskRecord,
        /// Its promise.
        promise: Arc<Promise>,
        /// Promises of the same branch, bounded.
        preload: Vec<Arc<Promise>>,
    },
    /// Go on: an awaited promise has settled (status 300).
    Preload(Vec<Arc<Promise>>),
    /// The answer of the operation inside a fence.
    Fenced {
        /// Which operation it was.
        kind: FencedKind,
        /// Its answer.
        response: Box<Response>,
        /// Promises of the same branch; empty here.
        preload: Vec<Arc<Promise>>,
    },
    /// A page of promises.
    Promises {
        /// The page.
        promises: Vec<Arc<Promise>>,
        /// Where the next page begins, if there may be one.
        cursor: Option<String>,
    },
    /// A page of tasks.
    Tasks {
        /// The page.
        tasks: Vec<TaskRecord>,
        /// Where the next page begins, if there may be one.
        cursor: Option<String>,
    },
    /// A schedule.
    Schedule(Arc<Schedule>),
    /// A page of schedules.
    Schedules {
        /// The page.
        schedules: Vec<Arc<Schedule>>,
        /// Where the next page begins, if there may be one.
        cursor: Option<String>,
    },
    /// Actions that a sweep took; always shown as an empty list.
    Swept,
    /// The whole store.
    Snapshot(Box<Snapshot>),
    /// Why it was refused.
    Error(String),
}

impl Response {
    /// A success.
    #[must_use]
    pub fn ok(body: Body) -> Response {
        Response { status: 200, body }
    }

    /// A refusal.
    #[must_use]
    pub fn refuse(status: u16, message: impl Into<String>) -> Response {
        Response { status, body: Body::Error(message.into()) }
    }

    /// Whether the operation did what was asked (200), or says to go on (300).
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status == 200 || self.status == 300
    }
}
