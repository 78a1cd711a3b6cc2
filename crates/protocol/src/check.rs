//! The protocol's invariants as one function over a whole state.

use std::sync::Arc;

use base::Timestamp;

use crate::ids::same_origin;
use crate::schedule::{NEVER, Schedule};
use crate::state::{Message, Promise, PromiseState, Row, Task, TaskState, Timer, TimerKind};
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
        /// What must hold in every state, and between each state and the next. The first thirteen are the protocol
        /// text's, by its names.
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
    /// A task has a promise of its id, and so has one that is only offered any more.
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
    /// Awaiter and awaited belong to one call tree.
    CallbackCrossesOrigins = "callback_crosses_origins",
    /// A task says why it is halted exactly while it is.
    HaltedWithoutReason = "halted_without_reason",
    /// A schedule fired last before it fires next, and has a timer exactly then.
    ScheduleTimes = "schedule_times",
    /// A queued execute names a pending task at its version and target, and a queued unblock a settled promise.
    StaleMessage = "stale_message",
    /// Between two states: what a promise was created with stays, and it was not there before it was created.
    CreationChanged = "creation_changed",
    /// Between two states: a settled promise stays as it settled.
    SettledChanged = "settled_changed",
    /// Between two states: a task stays, and a fulfilled one stays fulfilled.
    TaskVanished = "task_vanished",
    /// Between two states: a version rises by one, when a task is acquired, given back or loses its lease.
    VersionMoved = "version_moved",
    /// Between two states: a task is acquired when it was pending, suspended when it was acquired, and leaves a halt
    /// by being offered again or fulfilled.
    TaskMoved = "task_moved",
    /// Between two states: a task is acquired with a lease that runs from then.
    LeaseNotFromNow = "lease_not_from_now",
    /// Between two states: no task is offered whose promise is past its deadline.
    DeadDispatch = "dead_dispatch",
    /// Between two states: who listens to a pending promise goes on to listen.
    WaiterLost = "waiter_lost",
}

/// Every violated invariant of a state; empty for a sound one.
#[must_use]
pub fn check(view: &dyn View) -> Vec<Violation> {
    let rows = view.rows();
    let timers = view.timers();
    let mut checker = Checker { view, violations: Vec::new(), is_index_sound: false };
    timers.iter().for_each(|timer| checker.timer(timer));
    let called_for: usize = rows.iter().map(|row| row.timer_count()).sum();
    let schedules = view.schedules_after("", usize::MAX);
    let fired = schedules.iter().filter(|schedule| schedule.timer().is_some()).count();
    // Each timer is called for and no one is there twice: if there are as many as are called for, none is missing.
    checker.is_index_sound = checker.violations.is_empty() && timers.len() == called_for + fired;
    rows.iter().for_each(|row| checker.row(row));
    view.outbox().iter().for_each(|message| checker.message(message));
    schedules.iter().for_each(|schedule| checker.schedule(schedule));
    checker.violations
}

/// As [`check`], of a state whose timers were derived from its rows this moment: they are not looked at.
#[must_use]
pub fn check_loaded(view: &dyn View) -> Vec<Violation> {
    let mut checker = Checker { view, violations: Vec::new(), is_index_sound: true };
    view.rows().iter().for_each(|row| checker.row(row));
    view.outbox().iter().for_each(|message| checker.message(message));
    view.schedules_after("", usize::MAX).iter().for_each(|schedule| checker.schedule(schedule));
    checker.violations
}

/// The violated invariants of one row, with what it is connected to; what a sample of a large state looks at.
#[must_use]
pub fn check_row(view: &dyn View, row: &Arc<Row>) -> Vec<Violation> {
    let mut checker = Checker { view, violations: Vec::new(), is_index_sound: false };
    checker.row(row);
    row.timers().iter().for_each(|timer| checker.timer(timer));
    checker.violations
}

/// The violated invariants between a row and what became of it at `now`; `None` if it is new.
#[must_use]
pub fn check_step(before: Option<&Row>, after: &Row, now: Timestamp) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut need = |holds: bool, invariant| {
        if !holds {
            found.push(Violation { invariant, id: after.id().to_owned() });
        }
    };
    if let Some(before) = before {
        let (old, new) = (&before.promise, &after.promise);
        let times = (old.timeout_at, old.created_at) == (new.timeout_at, new.created_at);
        let same =
            Arc::ptr_eq(old, new) || (times && old.id == new.id && old.param == new.param && old.tags == new.tags);
        need(same, Invariant::CreationChanged);
        need(!old.is_settled() || old == new, Invariant::SettledChanged);
        // An awaiter that settles takes its callbacks with it; a listener stays for as long as the promise pends.
        need(new.is_settled() || before.listeners.is_subset(&after.listeners), Invariant::WaiterLost);
        need(before.task.is_none() || after.task.is_some(), Invariant::TaskVanished);
    }
    let Some(task) = after.task.as_deref() else { return found };
    let old = before.and_then(|before| before.task.as_deref());
    let (from, version) = old.map_or((TaskState::Pending, 0), |old| (old.state, old.version));
    need(from != TaskState::Fulfilled || task.state == TaskState::Fulfilled, Invariant::TaskVanished);
    let moved = (from, task.state);
    let owned = moved == (TaskState::Pending, TaskState::Acquired);
    let lost = from == TaskState::Acquired && matches!(task.state, TaskState::Pending | TaskState::Halted);
    let by_one = version.checked_add(1) == Some(task.version) && (owned || lost);
    need((task.version == version && !owned) || by_one, Invariant::VersionMoved);
    let may = match task.state {
        TaskState::Acquired => matches!(from, TaskState::Acquired | TaskState::Pending),
        TaskState::Suspended => matches!(from, TaskState::Suspended | TaskState::Acquired),
        TaskState::Pending | TaskState::Halted | TaskState::Fulfilled => true,
    };
    need(may, Invariant::TaskMoved);
    let lease = task.ttl.map(|ttl| now.plus(ttl));
    need(!owned || task.lease_at == lease, Invariant::LeaseNotFromNow);
    let offered = task.state == TaskState::Pending && from != TaskState::Pending;
    need(!offered || after.promise.is_live(now), Invariant::DeadDispatch);
    found
}

struct Checker<'a> {
    view: &'a dyn View,
    violations: Vec<Violation>,
    /// Every timer that a row calls for is known to run.
    is_index_sound: bool,
}

impl Checker<'_> {
    fn need(&mut self, holds: bool, invariant: Invariant, id: &str) {
        if !holds {
            self.violations.push(Violation { invariant, id: id.to_owned() });
        }
    }

    fn row(&mut self, row: &Row) {
        self.promise(row);
        if let Some(task) = &row.task {
            self.task(row, task);
        }
        self.callbacks(row);
    }

    fn promise(&mut self, row: &Row) {
        let promise: &Promise = &row.promise;
        let id = promise.id.as_str();
        let settled = promise.is_settled();
        self.need(settled || promise.target().is_none() || row.task.is_some(), Invariant::OrphanInvokes, id);
        // A deadline before all time is none: whatever stands in the index for it fires at once.
        let dated = promise.timeout_at >= Timestamp(0);
        let armed = settled || (dated && self.is_armed(TimerKind::Promise, promise.timeout_at, id));
        self.need(armed, Invariant::MissingPromiseTimeout, id);
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
        let retry = task.retry_at.is_some_and(|at| self.is_armed(TimerKind::Retry, at, id));
        let lease = task.lease_at.is_some_and(|at| self.is_armed(TimerKind::Lease, at, id));
        let none = task.retry_at.is_none() && task.lease_at.is_none();
        let (pending, acquired) = (task.state == TaskState::Pending, task.state == TaskState::Acquired);
        self.need(!pending || retry, Invariant::PendingTaskNoTimeout, id);
        self.need(!acquired || lease, Invariant::AcquiredTaskNoLease, id);
        if task.state == TaskState::Suspended {
            let awaits = !self.view.awaited_by(id).is_empty();
            self.need(awaits, Invariant::SuspendedNoCallback, id);
            self.need(task.resumes.is_empty(), Invariant::SuspendedWithConsumedCallbacks, id);
            self.need(none, Invariant::SuspendedTaskHasTimeout, id);
        }
        self.need(task.state != TaskState::Fulfilled || none, Invariant::FulfilledTaskHasTimeout, id);
        let held = [task.pid.is_some(), task.ttl.is_some(), task.lease_at.is_some()];
        let fits = held.iter().all(|held| *held == acquired) && task.retry_at.is_some() == pending;
        self.need(fits, Invariant::TaskTimersDisagree, id);
        self.need(!acquired || task.version >= 1, Invariant::AcquiredAtVersionZero, id);
        let told = task.reason.is_some() == (task.state == TaskState::Halted);
        self.need(told, Invariant::HaltedWithoutReason, id);
    }

    fn callbacks(&mut self, row: &Row) {
        for awaiter in &row.callbacks {
            let waiting = self.view.row(awaiter);
            let targeted = waiting.as_ref().is_some_and(|row| row.promise.target().is_some());
            self.need(targeted, Invariant::CallbackAwaiterNoTarget, awaiter);
            self.need(awaiter != row.id() && row.promise.is_awaitable(), Invariant::BadCallback, row.id());
            let waiting = waiting.as_ref().map(|row| &*row.promise);
            let related = same_origin((awaiter, waiting), (row.id(), Some(&row.promise)));
            self.need(related, Invariant::CallbackCrossesOrigins, row.id());
        }
    }

    fn is_armed(&self, kind: TimerKind, at: Timestamp, id: &str) -> bool {
        self.is_index_sound || self.view.has_timer(&Timer { kind, at, id: id.to_owned() })
    }

    /// Looks from the timer index back at the rows: an entry no row calls for is stale.
    fn timer(&mut self, timer: &Timer) {
        if timer.kind == TimerKind::Schedule {
            let called_for = self.view.schedule(&timer.id).and_then(|schedule| schedule.timer());
            return self.need(called_for.as_ref() == Some(timer), Invariant::ScheduleTimes, &timer.id);
        }
        let row = self.view.row(&timer.id);
        let called_for = row.as_ref().is_some_and(|row| row.calls_for(timer));
        let state = row.as_ref().and_then(|row| row.task.as_ref()).map(|task| task.state);
        let invariant = match (timer.kind, state) {
            (TimerKind::Promise, _) => Invariant::StalePromiseTimeout,
            (_, Some(TaskState::Suspended)) => Invariant::SuspendedTaskHasTimeout,
            (_, Some(TaskState::Fulfilled)) => Invariant::FulfilledTaskHasTimeout,
            (_, _) => Invariant::TaskTimersDisagree,
        };
        self.need(called_for, invariant, &timer.id);
    }

    fn schedule(&mut self, schedule: &Schedule) {
        let ordered = schedule.last_run_at.is_none_or(|last| last < schedule.next_run_at);
        let armed = schedule.timer().is_none_or(|timer| self.view.has_timer(&timer));
        let sound = ordered && armed && schedule.next_run_at <= NEVER;
        self.need(sound, Invariant::ScheduleTimes, &schedule.id);
    }

    fn message(&mut self, message: &Message) {
        let (id, fresh) = match message {
            Message::Execute { task_id, version, address } => {
                // The task that is offered has to belong to a promise.
                let Some(row) = self.view.row(task_id) else {
                    return self.need(false, Invariant::OrphanTasks, task_id);
                };
                let is_offered = |task: &Arc<Task>| task.state == TaskState::Pending && task.version == *version;
                let fresh = row.task.as_ref().is_some_and(is_offered) && row.promise.target() == Some(address);
                (task_id.as_str(), fresh)
            }
            Message::Unblock { promise, .. } => {
                // A settled promise may have left the view.
                let agrees = self.view.row(&promise.id).is_none_or(|row| row.promise == *promise);
                (promise.id.as_str(), agrees && promise.is_settled())
            }
        };
        self.need(fresh, Invariant::StaleMessage, id);
    }
}
