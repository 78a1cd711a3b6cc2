//! The protocol's invariants as one function over a whole state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::state::{Message, Promise, PromiseState, Row, Task, TaskState, TimerKind};
use crate::view::View;

/// A broken invariant: a bug, never a condition to repair at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub invariant: Invariant,
    /// The promise or task it is about.
    pub id: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: `{}`", self.invariant.name(), self.id)
    }
}

macro_rules! invariants {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What must hold in every state. The first thirteen are the protocol text's, by its names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Invariant { $($(#[$doc])* $variant,)* }

        impl Invariant {
            /// Every invariant.
            pub const ALL: &[Invariant] = &[$(Invariant::$variant,)*];

            /// Its name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Invariant::$variant => $name,)* }
            }
        }
    };
}

invariants! {
    /// A pending promise with a target has a task.
    OrphanInvokes = "orphan_invokes",
    /// A pending promise has a timer at its deadline.
    MissingPromiseTimeout = "missing_ptimeout",
    /// A promise with a timer is pending.
    StalePromiseTimeout = "stale_ptimeout",
    /// A promise that timed out settled at its deadline.
    TimedOutSettledAtMismatch = "timedout_settled_at_mismatch",
    /// A promise with listeners is pending.
    ListenerForSettledPromise = "listener_for_settled_promise",
    /// A task has a promise of its id.
    OrphanTasks = "orphan_tasks",
    /// A pending task has a retry timer.
    PendingTaskNoTimeout = "pending_task_no_ttimeout",
    /// An acquired task has a lease timer.
    AcquiredTaskNoLease = "acquired_task_no_lease",
    /// A suspended task has a callback to wait for.
    SuspendedNoCallback = "suspended_no_callback",
    /// A suspended task has no resume it did not see.
    SuspendedWithConsumedCallbacks = "suspended_with_consumed_callbacks",
    /// A suspended task has no timer.
    SuspendedTaskHasTimeout = "suspended_task_has_ttimeout",
    /// A fulfilled task has no timer.
    FulfilledTaskHasTimeout = "fulfilled_task_has_ttimeout",
    /// The awaiter of a callback has a target.
    CallbackAwaiterNoTarget = "callback_awaiter_no_target",
    /// A promise was created before it settled and settled by its deadline; settled exactly if it says when.
    PromiseTimes = "promise_times",
    /// A pending promise, and one settled by its deadline, has no value.
    UnexpectedValue = "unexpected_value",
    /// A timer never times out.
    TimerTimedOut = "timer_timedout",
    /// A promise is settled exactly if its task is fulfilled, and has a task only with a target.
    TaskDisagreesWithPromise = "task_disagrees_with_promise",
    /// Holder, lease and timers of a task are those of its state, and so are its entries in the timer index.
    TaskTimersDisagree = "task_timers_disagree",
    /// A held task has been acquired at least once.
    AcquiredAtVersionZero = "acquired_at_version_zero",
    /// No promise awaits itself, and only awaitable promises are awaited.
    BadCallback = "bad_callback",
    /// A queued execute names a pending task at its version and target, and a queued unblock a settled promise.
    StaleMessage = "stale_message",
}

/// Every violated invariant of a state; empty for a sound one.
#[must_use]
pub fn check(view: &dyn View) -> Vec<Violation> {
    let rows = view.rows();
    let mut checker = Checker::new(view, &rows);
    for row in &rows {
        checker.promise(row);
        if let Some(task) = &row.task {
            checker.task(row, task);
        }
        checker.callbacks(row);
    }
    checker.timers(view);
    checker.messages(view);
    checker.violations
}

struct Checker<'a> {
    rows: BTreeMap<&'a str, &'a Row>,
    timers: BTreeSet<(TimerKind, String, i64)>,
    awaiters: BTreeSet<&'a str>,
    violations: Vec<Violation>,
}

impl<'a> Checker<'a> {
    fn new(view: &dyn View, rows: &'a [Arc<Row>]) -> Checker<'a> {
        Checker {
            rows: rows.iter().map(|row| (row.id(), &**row)).collect(),
            timers: view.timers().into_iter().map(|timer| (timer.kind, timer.id, timer.at.0)).collect(),
            awaiters: rows.iter().flat_map(|row| row.callbacks.iter().map(String::as_str)).collect(),
            violations: Vec::new(),
        }
    }

    fn need(&mut self, holds: bool, invariant: Invariant, id: &str) {
        if !holds {
            self.violations.push(Violation { invariant, id: id.to_owned() });
        }
    }

    fn promise(&mut self, row: &Row) {
        let promise: &Promise = &row.promise;
        let id = promise.id.as_str();
        let settled = promise.is_settled();
        self.need(settled || promise.target().is_none() || row.task.is_some(), Invariant::OrphanInvokes, id);
        let entry = (TimerKind::Promise, id.to_owned(), promise.timeout_at.0);
        self.need(settled || self.timers.contains(&entry), Invariant::MissingPromiseTimeout, id);
        let by_deadline = promise.state == PromiseState::TimedOut;
        let at_deadline = promise.settled_at == Some(promise.timeout_at);
        self.need(!by_deadline || at_deadline, Invariant::TimedOutSettledAtMismatch, id);
        self.need(!settled || row.listeners.is_empty(), Invariant::ListenerForSettledPromise, id);
        let times = match promise.settled_at {
            Some(at) => settled && promise.created_at <= at && at <= promise.timeout_at,
            None => !settled && promise.created_at <= promise.timeout_at,
        };
        self.need(times, Invariant::PromiseTimes, id);
        self.need((settled && !by_deadline) || promise.value.is_empty(), Invariant::UnexpectedValue, id);
        self.need(!(promise.is_timer() && by_deadline), Invariant::TimerTimedOut, id);
        let agrees = match &row.task {
            Some(task) => promise.target().is_some() && settled == (task.state == TaskState::Fulfilled),
            None => promise.target().is_none(),
        };
        self.need(agrees, Invariant::TaskDisagreesWithPromise, id);
    }

    fn task(&mut self, row: &Row, task: &Task) {
        let id = task.id.as_str();
        self.need(id == row.id(), Invariant::OrphanTasks, id);
        let retry = task.retry_at.is_some_and(|at| self.timers.contains(&(TimerKind::Retry, id.to_owned(), at.0)));
        let lease = task.lease_at.is_some_and(|at| self.timers.contains(&(TimerKind::Lease, id.to_owned(), at.0)));
        let none = task.retry_at.is_none() && task.lease_at.is_none();
        let (pending, acquired) = (task.state == TaskState::Pending, task.state == TaskState::Acquired);
        self.need(!pending || retry, Invariant::PendingTaskNoTimeout, id);
        self.need(!acquired || lease, Invariant::AcquiredTaskNoLease, id);
        if task.state == TaskState::Suspended {
            self.need(self.awaiters.contains(id), Invariant::SuspendedNoCallback, id);
            self.need(task.resumes.is_empty(), Invariant::SuspendedWithConsumedCallbacks, id);
            self.need(none, Invariant::SuspendedTaskHasTimeout, id);
        }
        self.need(task.state != TaskState::Fulfilled || none, Invariant::FulfilledTaskHasTimeout, id);
        let held = [task.pid.is_some(), task.ttl.is_some(), task.lease_at.is_some()];
        let fits = held.iter().all(|held| *held == acquired) && task.retry_at.is_some() == pending;
        self.need(fits, Invariant::TaskTimersDisagree, id);
        self.need(!acquired || task.version >= 1, Invariant::AcquiredAtVersionZero, id);
    }

    fn callbacks(&mut self, row: &Row) {
        for awaiter in &row.callbacks {
            let targeted = self.rows.get(awaiter.as_str()).is_some_and(|row| row.promise.target().is_some());
            self.need(targeted, Invariant::CallbackAwaiterNoTarget, awaiter);
            self.need(awaiter != row.id() && row.promise.is_awaitable(), Invariant::BadCallback, row.id());
        }
    }

    /// Looks from the timer index back at the rows: an entry no row calls for is stale.
    fn timers(&mut self, view: &dyn View) {
        for timer in view.timers() {
            let row = self.rows.get(timer.id.as_str()).copied();
            let called_for = row.is_some_and(|row| row.timers().contains(&timer));
            let state = row.and_then(|row| row.task.as_ref()).map(|task| task.state);
            let invariant = match (timer.kind, state) {
                (TimerKind::Promise, _) => Invariant::StalePromiseTimeout,
                (_, Some(TaskState::Suspended)) => Invariant::SuspendedTaskHasTimeout,
                (_, Some(TaskState::Fulfilled)) => Invariant::FulfilledTaskHasTimeout,
                (_, _) => Invariant::TaskTimersDisagree,
            };
            self.need(called_for, invariant, &timer.id);
        }
    }

    fn messages(&mut self, view: &dyn View) {
        for message in view.outbox() {
            let (id, fresh) = match &message {
                Message::Execute { task_id, version, address } => {
                    let row = self.rows.get(task_id.as_str());
                    let fresh = row.is_some_and(|row| {
                        let offered = row
                            .task
                            .as_ref()
                            .is_some_and(|task| task.state == TaskState::Pending && task.version == *version);
                        offered && row.promise.target() == Some(address)
                    });
                    (task_id.as_str(), fresh)
                }
                Message::Unblock { promise, .. } => {
                    let stored = self.rows.get(promise.id.as_str());
                    (promise.id.as_str(), stored.is_some_and(|row| row.promise == *promise) && promise.is_settled())
                }
            };
            self.need(fresh, Invariant::StaleMessage, id);
        }
    }
}
