use std::sync::Arc;

use base::{Millis, Timestamp};

use crate::check::{Invariant, Violation};
use crate::request::{Create, Request, Resolution, Settle};
use crate::schedule::Schedule;
use crate::state::{Message, MessageKey, Promise, PromiseState, Row, Task, TaskState, Timer, TimerKind, Value};
use crate::tags::Tags;
use crate::testkit::snapshot;
use crate::view::{Config, Effect, View};
use crate::{Memory, apply, check, check_step, delivered};

fn create(memory: &mut Memory, id: &str) {
    let tags = [("resonate:target".to_owned(), "poll://any@g".to_owned())].into();
    let create = Create { id: id.into(), timeout_at: Timestamp(9_000), param: Value::default(), tags };
    ask(memory, &Request::PromiseCreate(create));
}

fn ask(memory: &mut Memory, request: &Request) {
    let applied = apply(memory, request, Timestamp(1), &Config::default());
    assert_eq!(applied.response.status, 200);
    let _undo = memory.commit(&applied.effects);
}

#[test]
fn look_ups_follow_the_rows() {
    let mut memory = Memory::default();
    for id in ["a:1", "a:2", "b", "a"] {
        create(&mut memory, id);
    }
    let children: Vec<&str> = memory.children("a:").map(|promise| promise.id.as_str()).collect();
    assert_eq!(children, ["a:1", "a:2"]);
    let queue: Vec<String> = memory.queue().map(|(_, message)| message.address().to_owned()).collect();
    assert_eq!((queue.len(), memory.len(), memory.is_empty()), (4, 4, false));
    let (third, _) = memory.queue().nth(2).expect("a third message");
    assert_eq!(memory.queue_from(third).count(), 2);
    assert_eq!(memory.next_due(), Some(Timestamp(9_000)));
    ask(&mut memory, &Request::TaskAcquire { id: "b".into(), version: 0, pid: "p".into(), ttl: Millis(50) });
    assert_eq!((memory.next_due(), memory.held_by("p").len()), (Some(Timestamp(51)), 1));
    ask(
        &mut memory,
        &Request::PromiseSettle(Settle { id: "b".into(), state: Resolution::Canceled, value: Value::default() }),
    );
    assert!(memory.held_by("p").is_empty());
}

#[test]
fn a_delivery_does_not_drop_a_newer_message() {
    let mut memory = Memory::default();
    create(&mut memory, "a");
    let stale = Message::Execute { task_id: "a".into(), version: 7, address: "poll://any@g".into() };
    assert!(delivered(&memory, &stale).is_empty());
    let queued = memory.outbox().remove(0);
    assert_eq!(delivered(&memory, &queued), [Effect::Retract(queued.key())]);
}

#[test]
fn commits_are_undone_newest_first() {
    let mut memory = Memory::default();
    create(&mut memory, "a");
    let before = snapshot(&memory);
    let mut undos = Vec::new();
    let settle = Settle { id: "a".into(), state: Resolution::Resolved, value: Value::text("x") };
    let requests = [
        Request::RegisterListener { awaited: "a".into(), address: "poll://uni@g/p".into() },
        Request::TaskAcquire { id: "a".into(), version: 0, pid: "p".into(), ttl: Millis(5) },
        Request::TaskFulfill { id: "a".into(), version: 1, action: settle },
    ];
    for request in &requests {
        let applied = apply(&memory, request, Timestamp(2), &Config::default());
        undos.push(memory.commit(&applied.effects));
    }
    assert_ne!(snapshot(&memory), before);
    while let Some(undo) = undos.pop() {
        memory.undo(undo);
    }
    assert_eq!(snapshot(&memory), before);
    assert!(memory.held_by("p").is_empty());
}

/// A state as a broken store could hand it over.
#[derive(Default)]
struct Broken {
    rows: Vec<Arc<Row>>,
    timers: Vec<Timer>,
    outbox: Vec<Message>,
    schedules: Vec<Arc<Schedule>>,
}

impl View for Broken {
    fn row(&self, id: &str) -> Option<Arc<Row>> {
        self.rows.iter().find(|row| row.id() == id).cloned()
    }
    fn awaited_by(&self, awaiter: &str) -> Vec<String> {
        let awaited = self.rows.iter().filter(|row| row.callbacks.contains(awaiter));
        awaited.map(|row| row.id().to_owned()).collect()
    }
    fn branch(&self, _: &str, _: usize) -> Vec<Arc<Promise>> {
        Vec::new()
    }
    fn due(&self, _: TimerKind, _: Timestamp, _: usize) -> Vec<String> {
        Vec::new()
    }
    fn queued(&self, _: &MessageKey) -> Option<Message> {
        None
    }
    fn after(&self, _: &str, _: usize) -> Vec<Arc<Row>> {
        Vec::new()
    }
    fn below(&self, _: &str, _: usize) -> Vec<Arc<Row>> {
        Vec::new()
    }
    fn is_told(&self, _: &str) -> bool {
        false
    }
    fn schedule(&self, id: &str) -> Option<Arc<Schedule>> {
        self.schedules.iter().find(|schedule| schedule.id == id).cloned()
    }
    fn schedules_after(&self, _: &str, _: usize) -> Vec<Arc<Schedule>> {
        self.schedules.clone()
    }
    fn schedule_count(&self) -> usize {
        self.schedules.len()
    }
    fn has_timer(&self, timer: &Timer) -> bool {
        self.timers.contains(timer)
    }
    fn rows(&self) -> Vec<Arc<Row>> {
        self.rows.clone()
    }
    fn timers(&self) -> Vec<Timer> {
        self.timers.clone()
    }
    fn outbox(&self) -> Vec<Message> {
        self.outbox.clone()
    }
}

fn with(promise: &Promise, name: &str, value: &str) -> Tags {
    let mut tags = promise.tags.to_map();
    tags.insert(name.to_owned(), value.to_owned());
    tags.into()
}

/// A sound state of a task in `state`, broken by `fault`.
fn violations(state: TaskState, fault: impl FnOnce(&mut Row, &mut Task, &mut Promise, &mut Broken)) -> Vec<Invariant> {
    let mut memory = Memory::default();
    for id in ["a", "a:1"] {
        create(&mut memory, id);
    }
    let schedule = crate::ScheduleCreate {
        id: "s".into(),
        cron: "* * * * *".into(),
        promise_id: "s.{{.timestamp}}".into(),
        promise_timeout: Millis(5),
        promise_param: Value::default(),
        promise_tags: [("resonate:target".to_owned(), "poll://any@g".to_owned())].into(),
    };
    ask(&mut memory, &Request::ScheduleCreate(schedule));
    let settle = Settle { id: "a".into(), state: Resolution::Resolved, value: Value::text("x") };
    let acquire = Request::TaskAcquire { id: "a".into(), version: 0, pid: "p".into(), ttl: Millis(5) };
    let callback = crate::Callback { awaited: "a:1".into(), awaiter: "a".into() };
    let steps: &[Request] = match state {
        TaskState::Pending | TaskState::Halted => &[],
        TaskState::Acquired => &[acquire],
        TaskState::Suspended => {
            &[acquire, Request::TaskSuspend { id: "a".into(), version: 1, actions: vec![callback] }]
        }
        TaskState::Fulfilled => &[acquire, Request::TaskFulfill { id: "a".into(), version: 1, action: settle }],
    };
    steps.iter().for_each(|request| ask(&mut memory, request));
    assert_eq!(check(&memory), vec![]);
    let mut broken = Broken {
        rows: memory.rows(),
        timers: memory.timers(),
        outbox: memory.outbox(),
        schedules: memory.schedules().cloned().collect(),
    };
    let mut row = Row::clone(&broken.rows.remove(0));
    let mut task = Task::clone(row.task.as_deref().expect("a task"));
    let mut promise = Promise::clone(&row.promise);
    fault(&mut row, &mut task, &mut promise, &mut broken);
    row.promise = Arc::new(promise);
    row.task = row.task.take().map(|_| Arc::new(task));
    broken.rows.push(Arc::new(row));
    let mut found: Vec<Invariant> = check(&broken).into_iter().map(|Violation { invariant, .. }| invariant).collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn every_invariant_is_noticed_when_it_breaks() {
    use Invariant as I;
    use TaskState::{Acquired, Fulfilled, Pending, Suspended};
    type Fault = fn(&mut Row, &mut Task, &mut Promise, &mut Broken);
    let cases: &[(Invariant, TaskState, Fault)] = &[
        (I::OrphanInvokes, Pending, |row, _, _, _| row.task = None),
        (I::MissingPromiseTimeout, Pending, |_, _, _, view| {
            view.timers.retain(|timer| timer.kind != TimerKind::Promise)
        }),
        (I::StalePromiseTimeout, Fulfilled, |_, _, promise, view| {
            view.timers.push(Timer { kind: TimerKind::Promise, at: promise.timeout_at, id: "a".into() });
        }),
        (I::TimedOutSettledAtMismatch, Fulfilled, |_, _, promise, _| promise.state = PromiseState::TimedOut),
        (I::ListenerForSettledPromise, Fulfilled, |row, _, _, _| {
            assert!(row.listeners.insert("poll://uni@g/p".into()))
        }),
        (I::OrphanTasks, Pending, |_, task, _, _| task.id = "other".into()),
        (I::PendingTaskNoTimeout, Pending, |_, _, _, view| view.timers.retain(|timer| timer.kind != TimerKind::Retry)),
        (I::AcquiredTaskNoLease, Acquired, |_, _, _, view| view.timers.retain(|timer| timer.kind != TimerKind::Lease)),
        (I::SuspendedNoCallback, Suspended, |_, _, _, view| {
            let mut other = Row::clone(&view.rows.remove(0));
            other.callbacks.clear();
            view.rows.push(Arc::new(other));
        }),
        (I::SuspendedWithConsumedCallbacks, Suspended, |_, task, _, _| assert!(task.resumes.insert("a:1".into()))),
        (I::SuspendedTaskHasTimeout, Suspended, |_, task, _, _| task.retry_at = Some(Timestamp(5))),
        (I::FulfilledTaskHasTimeout, Fulfilled, |_, task, _, _| task.lease_at = Some(Timestamp(5))),
        (I::CallbackAwaiterNoTarget, Pending, |row, _, _, _| assert!(row.callbacks.insert("missing".into()))),
        (I::PromiseTimes, Fulfilled, |_, _, promise, _| promise.settled_at = None),
        (I::UnexpectedValue, Pending, |_, _, promise, _| promise.value = Value::text("x")),
        (I::TimerTimedOut, Fulfilled, |_, _, promise, _| {
            promise.state = PromiseState::TimedOut;
            promise.tags = with(promise, "resonate:timer", "true");
        }),
        (I::TaskDisagreesWithPromise, Fulfilled, |_, task, _, _| task.state = TaskState::Halted),
        (I::TaskTimersDisagree, Pending, |_, task, _, _| task.pid = Some("p".into())),
        (I::AcquiredAtVersionZero, Acquired, |_, task, _, _| task.version = 0),
        (I::BadCallback, Pending, |row, _, _, _| assert!(row.callbacks.insert("a".into()))),
        (I::CallbackCrossesOrigins, Pending, |row, _, promise, _| {
            assert!(row.callbacks.insert("a:1".into()));
            promise.tags = with(promise, "resonate:origin", "elsewhere");
            promise.id = "elsewhere".into();
        }),
        (I::HaltedWithoutReason, Pending, |_, task, _, _| task.reason = Some("why".into())),
        (I::ScheduleTimes, Pending, |_, _, _, view| {
            view.timers.retain(|timer| timer.kind != TimerKind::Schedule);
        }),
        (I::StaleMessage, Acquired, |_, _, _, view| {
            view.outbox.push(Message::Execute { task_id: "a".into(), version: 1, address: "poll://any@g".into() });
        }),
    ];
    for (invariant, state, fault) in cases {
        let found = violations(*state, fault);
        assert!(found.contains(invariant), "{}: {found:?}", invariant.name());
    }
    let named: Vec<Invariant> = cases.iter().map(|(invariant, _, _)| *invariant).collect();
    let states = &Invariant::ALL[..Invariant::ALL.len() - STEPS];
    assert_eq!(named, states, "every invariant of a state has a case");
}

/// How many invariants are about two states.
const STEPS: usize = 8;

#[test]
fn every_invariant_of_a_step_is_noticed_when_it_breaks() {
    use Invariant as I;
    use TaskState::{Acquired, Fulfilled, Halted, Pending, Suspended};
    type Change = fn(&mut Row, &mut Promise, &mut Task);
    let now = Timestamp(2);
    let cases: &[(Invariant, TaskState, Change)] = &[
        (I::CreationChanged, Pending, |_, promise, _| promise.timeout_at = Timestamp(77)),
        (I::SettledChanged, Fulfilled, |_, promise, _| promise.value = Value::text("other")),
        (I::TaskVanished, Fulfilled, |_, _, task| task.state = Pending),
        (I::VersionMoved, Pending, |_, _, task| task.version = 1),
        (I::TaskMoved, Halted, |_, _, task| task.state = Acquired),
        (I::LeaseNotFromNow, Pending, |_, _, task| {
            (task.state, task.version, task.ttl) = (Acquired, 1, Some(Millis(5)));
            task.lease_at = Some(Timestamp(9));
        }),
        (I::DeadDispatch, Suspended, |_, promise, task| {
            promise.timeout_at = Timestamp(2);
            task.state = Pending;
        }),
        (I::WaiterLost, Pending, |row, _, _| row.listeners.clear()),
    ];
    for (invariant, state, change) in cases {
        let mut memory = Memory::default();
        create(&mut memory, "a");
        let mut before = Row::clone(&memory.rows()[0]);
        before.listeners.insert("poll://uni@g/p".into());
        let mut task = before.task.as_deref().cloned().unwrap();
        task.state = *state;
        let mut promise = Promise::clone(&before.promise);
        if *state == Fulfilled {
            promise.state = PromiseState::Resolved;
        }
        (before.task, before.promise) = (Some(Arc::new(task.clone())), Arc::new(promise.clone()));
        assert_eq!(check_step(Some(&before), &before, now), vec![], "nothing changed");
        let mut after = before.clone();
        change(&mut after, &mut promise, &mut task);
        (after.task, after.promise) = (Some(Arc::new(task)), Arc::new(promise));
        let found = check_step(Some(&before), &after, now);
        assert!(found.iter().any(|found| found.invariant == *invariant), "{}: {found:?}", invariant.name());
    }
    let named: Vec<Invariant> = cases.iter().map(|(invariant, _, _)| *invariant).collect();
    assert_eq!(named, Invariant::ALL[Invariant::ALL.len() - STEPS..], "every invariant of a step has a case");
}

#[test]
fn the_thirteen_invariants_have_the_names_of_the_text() {
    let names: Vec<&str> = Invariant::ALL.iter().take(13).map(|invariant| invariant.name()).collect();
    let text = "orphan_invokes missing_ptimeout stale_ptimeout timedout_settled_at_mismatch \
                listener_for_settled_promise orphan_tasks pending_task_no_ttimeout acquired_task_no_lease \
                suspended_no_callback suspended_with_consumed_callbacks suspended_task_has_ttimeout \
                fulfilled_task_has_ttimeout callback_awaiter_no_target";
    assert_eq!(names, text.split_whitespace().collect::<Vec<_>>());
}
