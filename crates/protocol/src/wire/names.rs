//! Operation and state names.

use crate::request::{Debug, FencedKind, Request, Resolution};
use crate::state::{PromiseState, TaskState};

pub(super) const PROMISE_GET: &str = "promise.get";
pub(super) const PROMISE_CREATE: &str = "promise.create";
pub(super) const PROMISE_SETTLE: &str = "promise.settle";
pub(super) const REGISTER_CALLBACK: &str = "promise.register_callback";
pub(super) const REGISTER_LISTENER: &str = "promise.register_listener";
pub(super) const TASK_GET: &str = "task.get";
pub(super) const TASK_CREATE: &str = "task.create";
pub(super) const TASK_ACQUIRE: &str = "task.acquire";
pub(super) const TASK_RELEASE: &str = "task.release";
pub(super) const TASK_FULFILL: &str = "task.fulfill";
pub(super) const TASK_SUSPEND: &str = "task.suspend";
pub(super) const TASK_FENCE: &str = "task.fence";
pub(super) const TASK_HEARTBEAT: &str = "task.heartbeat";
pub(super) const TASK_HALT: &str = "task.halt";
pub(super) const TASK_CONTINUE: &str = "task.continue";
pub(super) const PROMISE_SEARCH: &str = "promise.search";
pub(super) const TASK_SEARCH: &str = "task.search";
pub(super) const SCHEDULE_GET: &str = "schedule.get";
pub(super) const SCHEDULE_CREATE: &str = "schedule.create";
pub(super) const SCHEDULE_DELETE: &str = "schedule.delete";
pub(super) const SCHEDULE_SEARCH: &str = "schedule.search";
pub(super) const DEBUG_START: &str = "debug.start";
pub(super) const DEBUG_STOP: &str = "debug.stop";
pub(super) const DEBUG_RESET: &str = "debug.reset";
pub(super) const DEBUG_TICK: &str = "debug.tick";
pub(super) const DEBUG_SNAP: &str = "debug.snap";

pub(super) fn kind_of(request: &Request) -> &'static str {
    match request {
        Request::PromiseGet { .. } => PROMISE_GET,
        Request::PromiseCreate(_) => PROMISE_CREATE,
        Request::PromiseSettle(_) => PROMISE_SETTLE,
        Request::RegisterCallback(_) => REGISTER_CALLBACK,
        Request::RegisterListener { .. } => REGISTER_LISTENER,
        Request::TaskGet { .. } => TASK_GET,
        Request::TaskCreate { .. } => TASK_CREATE,
        Request::TaskAcquire { .. } => TASK_ACQUIRE,
        Request::TaskRelease(_) => TASK_RELEASE,
        Request::TaskFulfill { .. } => TASK_FULFILL,
        Request::TaskSuspend { .. } => TASK_SUSPEND,
        Request::TaskFence { .. } => TASK_FENCE,
        Request::TaskHeartbeat { .. } => TASK_HEARTBEAT,
        Request::TaskHalt { .. } => TASK_HALT,
        Request::TaskContinue { .. } => TASK_CONTINUE,
        Request::PromiseSearch(_) => PROMISE_SEARCH,
        Request::TaskSearch(_) => TASK_SEARCH,
        Request::ScheduleGet { .. } => SCHEDULE_GET,
        Request::ScheduleCreate(_) => SCHEDULE_CREATE,
        Request::ScheduleDelete { .. } => SCHEDULE_DELETE,
        Request::ScheduleSearch(_) => SCHEDULE_SEARCH,
        Request::Debug(debug) => match debug {
            Debug::Start => DEBUG_START,
            Debug::Stop => DEBUG_STOP,
            Debug::Reset => DEBUG_RESET,
            Debug::Tick(_) => DEBUG_TICK,
            Debug::Snap => DEBUG_SNAP,
        },
    }
}

impl FencedKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            FencedKind::Create => PROMISE_CREATE,
            FencedKind::Settle => PROMISE_SETTLE,
        }
    }
}

impl PromiseState {
    /// Its name on the wire and in stores.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            PromiseState::Pending => "pending",
            PromiseState::Resolved => "resolved",
            PromiseState::Rejected => "rejected",
            PromiseState::Canceled => "rejected_canceled",
            PromiseState::TimedOut => "rejected_timedout",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<PromiseState> {
        use PromiseState::{Canceled, Pending, Rejected, Resolved, TimedOut};
        [Pending, Resolved, Rejected, Canceled, TimedOut].into_iter().find(|state| state.name() == name)
    }
}

impl Resolution {
    /// The way of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Resolution> {
        let ways = [Resolution::Resolved, Resolution::Rejected, Resolution::Canceled];
        ways.into_iter().find(|way| way.state().name() == name)
    }
}

impl TaskState {
    /// Its name on the wire and in stores.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TaskState::Pending => "pending",
            TaskState::Acquired => "acquired",
            TaskState::Suspended => "suspended",
            TaskState::Halted => "halted",
            TaskState::Fulfilled => "fulfilled",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<TaskState> {
        use TaskState::{Acquired, Fulfilled, Halted, Pending, Suspended};
        [Pending, Acquired, Suspended, Halted, Fulfilled].into_iter().find(|state| state.name() == name)
    }
}
