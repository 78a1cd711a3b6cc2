use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Millis, Timestamp};

use crate::limits::{CALLBACKS_MAX, LISTENERS_MAX, PRELOAD_BYTES_MAX, PRELOAD_COUNT_MAX};
use crate::request::{Body, Callback, Create, FenceAction, Request, Resolution, Response, Settle, TaskRef};
use crate::state::{Message, Promise, PromiseState, Task, TaskState, Value};
use crate::view::{Config, Profile, View};
use crate::{Memory, apply, check, delivered, reclaim, tick};

const WORKER: (&str, &str) = ("resonate:target", "poll://any@g");

/// A machine with a clock that the test moves.
struct Bench {
    memory: Memory,
    now: Timestamp,
    config: Config,
}

impl Bench {
    fn new() -> Bench {
        Bench { memory: Memory::default(), now: Timestamp(1_000), config: Config::default() }
    }

    fn ask(&mut self, request: Request) -> Response {
        let applied = apply(&self.memory, &request, self.now, &self.config);
        let _undo = self.memory.commit(&applied.effects);
        assert_eq!(check(&self.memory), vec![], "after {request:?}");
        applied.response
    }

    fn ok(&mut self, request: Request) -> Body {
        let response = self.ask(request.clone());
        assert_eq!(response.status, 200, "{request:?}: {response:?}");
        response.body
    }

    fn status(&mut self, request: Request) -> u16 {
        self.ask(request).status
    }

    fn tick(&mut self, at: i64) {
        self.now = Timestamp(at);
        let effects = tick(&self.memory, self.now, 1_000, &self.config);
        let _undo = self.memory.commit(&effects);
        assert_eq!(check(&self.memory), vec![]);
    }

    fn create(&mut self, id: &str, timeout_at: i64, tags: &[(&str, &str)]) -> Arc<Promise> {
        match self.ok(Request::PromiseCreate(create(id, timeout_at, tags))) {
            Body::Promise(promise) => promise,
            body => panic!("{body:?}"),
        }
    }

    /// Acquires a pending task and returns the version it is held at.
    fn acquire(&mut self, id: &str, ttl: u64) -> u64 {
        let version = self.task(id).version;
        let acquire = Request::TaskAcquire { id: id.into(), version, pid: "p".into(), ttl: Millis(ttl) };
        self.ok(acquire);
        self.task(id).version
    }

    fn task(&self, id: &str) -> Arc<Task> {
        self.memory.task(id).expect("a task")
    }

    fn promise(&self, id: &str) -> Arc<Promise> {
        self.memory.promise(id).expect("a promise")
    }

    /// The executes in the outbox.
    fn offers(&self) -> Vec<(String, u64)> {
        let offer = |message| match message {
            Message::Execute { task_id, version, .. } => Some((task_id, version)),
            Message::Unblock { .. } => None,
        };
        self.memory.outbox().into_iter().filter_map(offer).collect()
    }

    fn deliver_all(&mut self) {
        for message in self.memory.outbox() {
            let effects = delivered(&self.memory, &message);
            let _undo = self.memory.commit(&effects);
        }
    }
}

fn create(id: &str, timeout_at: i64, tags: &[(&str, &str)]) -> Create {
    let tags: BTreeMap<String, String> = tags.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    Create { id: id.into(), timeout_at: Timestamp(timeout_at), param: Value::default(), tags }
}

fn settle(id: &str, data: &str) -> Settle {
    Settle { id: id.into(), state: Resolution::Resolved, value: Value::text(data) }
}

fn suspend(id: &str, version: u64, awaited: &[&str]) -> Request {
    let callback = |awaited: &&str| Callback { awaited: (*awaited).into(), awaiter: id.into() };
    Request::TaskSuspend { id: id.into(), version, actions: awaited.iter().map(callback).collect() }
}

fn at(id: &str, version: u64) -> TaskRef {
    TaskRef { id: id.into(), version }
}

#[test]
fn a_promise_is_created_once_and_settled_once() {
    let mut bench = Bench::new();
    let created = bench.create("a", 9_000, &[]);
    assert_eq!(
        (created.state, created.created_at, created.settled_at),
        (PromiseState::Pending, Timestamp(1_000), None)
    );
    assert_eq!(bench.create("a", 5, &[("other", "tag")]), created, "idempotent on the id alone");
    bench.ok(Request::PromiseSettle(settle("a", "first")));
    bench.ok(Request::PromiseSettle(settle("a", "second")));
    assert_eq!(bench.promise("a").value, Value::text("first"), "the first writer wins");
    assert_eq!(bench.status(Request::PromiseSettle(settle("b", ""))), 404);
    assert_eq!(bench.status(Request::PromiseGet { id: "b".into() }), 404);
}

#[test]
fn a_promise_created_after_its_deadline_is_born_settled() {
    let mut bench = Bench::new();
    let late = bench.create("late", 900, &[WORKER]);
    assert_eq!(
        (late.state, late.created_at, late.settled_at),
        (PromiseState::TimedOut, Timestamp(900), Some(Timestamp(900)))
    );
    assert_eq!((bench.task("late").state, bench.task("late").version), (TaskState::Fulfilled, 0));
    let timer = bench.create("timer", 1_000, &[("resonate:timer", "true")]);
    assert_eq!(timer.state, PromiseState::Resolved);
    assert!(bench.memory.outbox().is_empty() && bench.memory.next_due().is_none());
}

#[test]
fn time_always_wins_over_a_late_settle() {
    let mut bench = Bench::new();
    bench.create("a", 2_000, &[]);
    bench.now = Timestamp(2_000);
    let Body::Promise(promise) = bench.ok(Request::PromiseSettle(settle("a", "late"))) else { panic!() };
    assert_eq!((promise.state, promise.settled_at), (PromiseState::TimedOut, Some(Timestamp(2_000))));
    assert!(promise.value.is_empty());
    bench.create("w", 3_000, &[WORKER]);
    let version = bench.acquire("w", 60_000);
    bench.now = Timestamp(3_500);
    let action = settle("w", "late");
    assert_eq!(bench.status(Request::TaskFulfill { id: "w".into(), version, action }), 409);
    assert_eq!(bench.promise("w").settled_at, Some(Timestamp(3_000)), "settled at its deadline, not now");
}

#[test]
fn every_pending_promise_settles_by_itself() {
    let mut bench = Bench::new();
    bench.create("internal", 2_000, &[]);
    bench.create("timer", 2_500, &[("resonate:timer", "true")]);
    assert_eq!(bench.memory.next_due(), Some(Timestamp(2_000)));
    bench.tick(3_000);
    assert_eq!(bench.promise("internal").state, PromiseState::TimedOut);
    assert_eq!(bench.promise("timer").state, PromiseState::Resolved);
    assert_eq!(bench.memory.next_due(), None);
}

#[test]
fn a_version_rises_on_acquire_release_and_lapse() {
    for (profile, versions) in [(Profile::Stanch, [0, 1, 2, 3, 4]), (Profile::Resonate20260401, [0, 1, 1, 2, 2])] {
        let mut bench = Bench::new();
        bench.config.profile = profile;
        bench.create("w", 99_000, &[WORKER]);
        let mut seen = vec![bench.task("w").version];
        seen.push(bench.acquire("w", 100));
        assert!(bench.offers().is_empty(), "an acquired task is not offered");
        let held = at("w", bench.task("w").version);
        bench.ok(Request::TaskRelease(held.clone()));
        assert_eq!(bench.status(Request::TaskRelease(held)), 409);
        seen.push(bench.task("w").version);
        seen.push(bench.acquire("w", 100));
        bench.tick(1_099);
        assert_eq!(bench.task("w").state, TaskState::Acquired, "the lease still runs");
        bench.tick(1_100);
        seen.push(bench.task("w").version);
        assert_eq!(seen, versions);
        assert_eq!(bench.offers(), [("w".to_owned(), versions[4])]);
        assert_eq!((&bench.task("w").pid, bench.task("w").ttl), (&None, None));
    }
}

#[test]
fn a_fenced_out_worker_changes_nothing() {
    let mut bench = Bench::new();
    bench.create("w", 99_000, &[WORKER]);
    let old = bench.acquire("w", 100);
    bench.tick(1_200);
    let new = bench.acquire("w", 100);
    assert_eq!((old, new), (1, 3));
    let fence = |version| {
        let action = FenceAction::Create(create("w:1", 99_000, &[]));
        Request::TaskFence { id: "w".into(), version, action }
    };
    assert_eq!(bench.status(fence(old)), 409);
    assert_eq!(bench.status(Request::TaskFulfill { id: "w".into(), version: old, action: settle("w", "x") }), 409);
    assert_eq!(bench.status(suspend("w", old, &["w:9"])), 409);
    assert!(bench.memory.promise("w:1").is_none());
    bench.ok(fence(new));
    assert!(bench.memory.promise("w:1").is_some());
}

#[test]
fn a_task_is_acquired_at_the_version_it_was_offered_at() {
    let mut bench = Bench::new();
    bench.create("w", 99_000, &[WORKER]);
    bench.create("plain", 99_000, &[]);
    let acquire =
        |id: &str, version| Request::TaskAcquire { id: id.into(), version, pid: "p".into(), ttl: Millis(100) };
    assert_eq!(bench.status(acquire("w", 1)), 409, "a version it never had");
    bench.ok(acquire("w", 0));
    assert_eq!(bench.status(acquire("w", 1)), 409, "held");
    bench.ok(Request::TaskRelease(at("w", 1)));
    assert_eq!(bench.status(acquire("w", 0)), 409, "an offer from before");
    bench.ok(acquire("w", 2));
    assert_eq!(bench.status(acquire("plain", 0)), 404);
    assert_eq!(bench.status(acquire("missing", 0)), 404);
}

#[test]
fn a_pending_task_is_offered_again_until_it_is_taken() {
    let mut bench = Bench::new();
    bench.create("w", 99_000, &[WORKER]);
    assert_eq!(bench.offers(), [("w".to_owned(), 0)]);
    bench.deliver_all();
    bench.tick(30_999);
    assert!(bench.offers().is_empty());
    bench.tick(31_000);
    assert_eq!(bench.offers(), [("w".to_owned(), 0)]);
    bench.deliver_all();
    bench.tick(61_000);
    assert_eq!(bench.offers(), [("w".to_owned(), 0)]);
}

#[test]
fn a_suspended_task_is_woken_by_what_it_awaits() {
    let mut bench = Bench::new();
    bench.create("w", 99_000, &[WORKER]);
    bench.create("w:1", 99_000, &[WORKER]);
    bench.create("w:2", 99_000, &[("resonate:scope", "global")]);
    let version = bench.acquire("w", 100);
    assert_eq!(bench.ok(suspend("w", version, &["w:1", "w:2"])), Body::Empty);
    bench.tick(5_000);
    assert_eq!(bench.task("w").state, TaskState::Suspended, "no lease runs while it waits");
    bench.ok(Request::PromiseSettle(settle("w:2", "done")));
    assert_eq!((bench.task("w").state, bench.task("w").version), (TaskState::Pending, version));
    assert_eq!(bench.task("w").record().resumes, 1);
    assert!(bench.offers().contains(&("w".to_owned(), version)));
    let version = bench.acquire("w", 100);
    assert!(bench.task("w").resumes.is_empty());
    let go_on = bench.ask(suspend("w", version, &["w:1", "w:2"]));
    assert_eq!((go_on.status, go_on.body), (300, Body::Preload(Vec::new())));
    assert_eq!(bench.task("w").state, TaskState::Acquired, "300 leaves task, version and lease alone");
}

#[test]
fn whoever_dies_in_an_incident_is_succeeded_at_once_however_often() {
    for (id, is_exempt) in [("inc/1", true), ("inc/1:commit.1.s2", true), ("hold/global", true), ("inca/1", false)] {
        let mut bench = Bench::new();
        bench.create(id, 9_000_000, &[WORKER]);
        let mut lost = 0;
        for turn in 1..=40 {
            let version = bench.acquire(id, 10);
            bench.tick(1_000 + turn * 100);
            let is_offered = bench.offers().contains(&(id.to_owned(), version + 1));
            lost += u32::from(!is_offered);
            if !is_offered {
                break;
            }
        }
        assert_eq!(lost == 0, is_exempt, "{id}");
    }
}

#[test]
fn what_may_be_awaited() {
    let mut bench = Bench::new();
    bench.create("w", 99_000, &[WORKER]);
    let version = bench.acquire("w", 60_000);
    bench.create("w:internal", 99_000, &[]);
    bench.create("v", 99_000, &[WORKER]);
    bench.create("inc/1", 99_000, &[]);
    assert_eq!(bench.status(suspend("w", version, &["w:internal"])), 422);
    assert_eq!(bench.status(suspend("w", version, &["w:missing"])), 422);
    assert_eq!(bench.status(suspend("w", version, &["v"])), 400, "another tree");
    assert_eq!(bench.status(suspend("w", version, &["w"])), 400);
    assert_eq!(bench.status(suspend("w", version, &[])), 400);
    let listen =
        |awaited: &str| Request::RegisterListener { awaited: awaited.into(), address: "poll://uni@g/p".into() };
    assert_eq!(bench.status(listen("w:internal")), 422);
    assert_eq!(bench.status(listen("inc/1")), 200, "the server's own promises can be listened to");
    for tag in [("resonate:external", "true"), ("resonate:timer", "true"), ("resonate:scope", "global")] {
        bench.create(&format!("w:{}", tag.0), 99_000, &[tag]);
        bench.ok(listen(&format!("w:{}", tag.0)));
    }
    assert_eq!(bench.task("w").state, TaskState::Acquired);
}

#[test]
fn a_callback_on_a_settled_promise_wakes_and_counts() {
    let mut bench = Bench::new();
    bench.create("w", 99_000, &[WORKER]);
    bench.create("w:1", 99_000, &[WORKER]);
    bench.create("w:2", 99_000, &[WORKER]);
    bench.create("w:3", 99_000, &[]);
    let version = bench.acquire("w", 100);
    bench.ok(suspend("w", version, &["w:1"]));
    bench.ok(Request::PromiseSettle(settle("w:2", "")));
    let register = |awaited: &str, awaiter: &str| {
        Request::RegisterCallback(Callback { awaited: awaited.into(), awaiter: awaiter.into() })
    };
    bench.ok(register("w:2", "w"));
    assert_eq!((bench.task("w").state, bench.task("w").record().resumes), (TaskState::Pending, 1));
    assert_eq!(bench.status(register("w:9", "w")), 404);
    assert_eq!(bench.status(register("w:1", "w:9")), 422);
    assert_eq!(bench.status(register("w:1", "w:3")), 422, "the awaiter has no target");
    assert_eq!(bench.status(register("w:1", "w:1")), 400);
}

#[test]
fn an_awaiter_that_expires_in_the_same_instant_is_not_woken() {
    let mut bench = Bench::new();
    bench.create("w", 2_000, &[WORKER]);
    bench.create("w:1", 2_000, &[WORKER]);
    let version = bench.acquire("w", 100);
    bench.ok(suspend("w", version, &["w:1"]));
    bench.deliver_all();
    bench.tick(2_000);
    assert_eq!(bench.task("w").state, TaskState::Fulfilled);
    assert!(bench.offers().is_empty(), "nothing dead is dispatched");
}

#[test]
fn an_awaiter_past_its_deadline_is_not_woken_by_a_settle_before_the_sweep() {
    let mut bench = Bench::new();
    bench.create("w", 2_000, &[WORKER]);
    bench.create("w:1", 9_000, &[WORKER]);
    let version = bench.acquire("w", 100);
    bench.ok(suspend("w", version, &["w:1"]));
    bench.deliver_all();
    bench.now = Timestamp(2_500);
    bench.ok(Request::PromiseSettle(settle("w:1", "")));
    assert_eq!(bench.task("w").state, TaskState::Suspended);
    bench.tick(2_500);
    assert_eq!(bench.task("w").state, TaskState::Fulfilled);
    assert!(bench.memory.row("w:1").expect("a row").callbacks.is_empty());
    assert!(bench.offers().is_empty());
}

#[test]
fn a_lease_never_lapses_into_a_dead_dispatch() {
    let mut bench = Bench::new();
    bench.create("w", 2_000, &[WORKER]);
    bench.create("first", 1_900, &[]);
    bench.acquire("w", 500);
    // A budget of one timer per sweep: the promise's own deadline is not reached by its pass.
    let effects = tick(&bench.memory, Timestamp(2_000), 1, &bench.config);
    let _undo = bench.memory.commit(&effects);
    let held = [at("w", 1)];
    let effects = reclaim(&bench.memory, &held, Timestamp(2_000), &bench.config);
    let _undo = bench.memory.commit(&effects);
    assert_eq!(bench.task("w").state, TaskState::Fulfilled);
    assert!(bench.offers().is_empty());
}

#[test]
fn listeners_are_told_once_per_address() {
    let mut bench = Bench::new();
    bench.create("a", 9_000, &[("resonate:external", "true")]);
    let listen = Request::RegisterListener { awaited: "a".into(), address: "poll://uni@g/p".into() };
    bench.ok(listen.clone());
    bench.ok(listen.clone());
    bench.ok(Request::PromiseSettle(settle("a", "done")));
    let outbox = bench.memory.outbox();
    assert_eq!(outbox.len(), 1);
    assert_eq!(outbox[0].address(), "poll://uni@g/p");
    bench.deliver_all();
    let Body::Promise(promise) = bench.ok(listen) else { panic!() };
    assert!(promise.is_settled() && bench.memory.outbox().is_empty(), "a settled promise records no listener");
    let unroutable = Request::RegisterListener { awaited: "a".into(), address: "nowhere".into() };
    assert_eq!(bench.status(unroutable), 400);
}

#[test]
fn a_task_created_for_its_caller_is_born_acquired() {
    let mut bench = Bench::new();
    let ask = |id: &str, timeout_at, tags: &[(&str, &str)]| Request::TaskCreate {
        pid: "p".into(),
        ttl: Millis(100),
        action: create(id, timeout_at, tags),
    };
    let Body::Acquired { task, .. } = bench.ok(ask("w", 9_000, &[WORKER])) else { panic!() };
    assert_eq!((task.state, task.version, task.pid.as_deref()), (TaskState::Acquired, 1, Some("p")));
    assert!(bench.memory.outbox().is_empty());
    assert_eq!(bench.status(ask("w", 9_000, &[WORKER])), 409);
    bench.ok(Request::TaskRelease(at("w", 1)));
    let Body::Acquired { task, .. } = bench.ok(ask("w", 9_000, &[WORKER])) else { panic!() };
    assert_eq!((task.state, task.version), (TaskState::Acquired, 3));
    bench.create("plain", 9_000, &[]);
    assert_eq!(bench.status(ask("plain", 9_000, &[WORKER])), 422);
    assert_eq!(bench.status(ask("x", 9_000, &[])), 400, "a task needs a target");
    assert_eq!(bench.status(ask("x", 9_000, &[WORKER, ("resonate:delay", "5")])), 400);
    let Body::Acquired { task, promise, .. } = bench.ok(ask("late", 900, &[WORKER])) else { panic!() };
    assert_eq!((task.state, task.version, promise.state), (TaskState::Fulfilled, 0, PromiseState::TimedOut));
}

#[test]
fn a_heartbeat_extends_what_its_sender_holds_whatever_the_origin() {
    let mut bench = Bench::new();
    for id in ["a", "b", "c", "dead"] {
        bench.create(id, if id == "dead" { 1_050 } else { 99_000 }, &[WORKER]);
        bench.acquire(id, 100);
    }
    bench.now = Timestamp(1_050);
    let beat = |pid: &str, tasks| Request::TaskHeartbeat { pid: pid.into(), tasks };
    bench.ok(beat("p", vec![at("a", 1), at("b", 1), at("c", 7), at("dead", 1), at("missing", 1)]));
    bench.ok(beat("other", vec![at("c", 1)]));
    let lease = |id: &str| bench.task(id).lease_at;
    assert_eq!([lease("a"), lease("b"), lease("c")], [1_150, 1_150, 1_100].map(|at| Some(Timestamp(at))));
    assert_eq!(lease("dead"), Some(Timestamp(1_100)), "a heartbeat past the deadline has no effect");
    assert_eq!(bench.status(beat("p", vec![])), 400);
    assert_eq!(bench.status(beat("", vec![at("a", 1)])), 400);
}

#[test]
fn a_fence_answers_for_the_operation_inside_it() {
    let mut bench = Bench::new();
    bench.create("w", 99_000, &[WORKER]);
    let version = bench.acquire("w", 100);
    let fence = |action| Request::TaskFence { id: "w".into(), version, action };
    let Body::Fenced { response, preload, .. } = bench.ok(fence(FenceAction::Settle(settle("w:1", "x")))) else {
        panic!()
    };
    assert_eq!((response.status, preload.len()), (404, 0));
    bench.ok(fence(FenceAction::Create(create("w:1", 99_000, &[]))));
    bench.ok(fence(FenceAction::Settle(settle("w:1", "x"))));
    assert_eq!(bench.promise("w:1").value, Value::text("x"));
    assert_eq!(bench.status(fence(FenceAction::Settle(settle("w", "x")))), 400, "not its own promise");
}

#[test]
fn a_timer_with_a_target_is_never_dispatched() {
    let mut bench = Bench::new();
    bench.create("w", 999_000, &[WORKER]);
    bench.create("w:sleep", 90_000, &[WORKER, ("resonate:timer", "true")]);
    assert_eq!(bench.offers(), [("w".to_owned(), 0)]);
    let version = bench.acquire("w", 100);
    bench.ok(suspend("w", version, &["w:sleep"]));
    bench.tick(31_000);
    bench.tick(61_000);
    assert!(bench.offers().is_empty());
    bench.tick(90_000);
    assert_eq!(bench.promise("w:sleep").state, PromiseState::Resolved);
    assert_eq!(bench.offers(), [("w".to_owned(), version)]);
}

#[test]
fn a_delayed_task_is_offered_at_its_instant() {
    let mut bench = Bench::new();
    bench.create("w", 9_000, &[WORKER, ("resonate:delay", "3000")]);
    bench.create("v", 9_000, &[WORKER, ("resonate:delay", "900")]);
    assert_eq!(bench.offers(), [("v".to_owned(), 0)], "a delay that has passed is none");
    bench.deliver_all();
    bench.tick(2_999);
    assert!(bench.offers().is_empty());
    bench.tick(3_000);
    assert_eq!(bench.offers(), [("w".to_owned(), 0)]);
}

#[test]
fn reclaim_takes_only_what_is_still_held_at_that_version() {
    let mut bench = Bench::new();
    bench.create("a", 99_000, &[WORKER]);
    bench.create("b", 99_000, &[WORKER]);
    bench.acquire("a", 60_000);
    bench.acquire("b", 60_000);
    let held = bench.memory.held_by("p");
    assert_eq!(held, [at("a", 1), at("b", 1)]);
    bench.ok(Request::TaskRelease(at("b", 1)));
    bench.acquire("b", 60_000);
    let effects = reclaim(&bench.memory, &held, bench.now, &bench.config);
    let _undo = bench.memory.commit(&effects);
    assert_eq!((bench.task("a").state, bench.task("b").state), (TaskState::Pending, TaskState::Acquired));
    assert_eq!(bench.offers(), [("a".to_owned(), 2)]);
}

#[test]
fn preload_carries_the_branch_and_is_bounded() {
    let mut bench = Bench::new();
    let branch = [("resonate:branch", "w"), ("resonate:origin", "w")];
    bench.create("w", 99_000, &[WORKER, branch[0], branch[1]]);
    bench.create("w:2", 99_000, &branch);
    bench.create("w.1", 99_000, &branch);
    bench.create("w:own", 99_000, &[("resonate:branch", "w:own")]);
    let preload = |bench: &mut Bench| {
        let version = bench.task("w").version;
        let acquire = Request::TaskAcquire { id: "w".into(), version, pid: "p".into(), ttl: Millis(100) };
        let Body::Acquired { preload, .. } = bench.ok(acquire) else { panic!() };
        bench.ok(Request::TaskRelease(at("w", version + 1)));
        preload.iter().map(|promise| promise.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(preload(&mut bench), ["w.1", "w:2"]);
    for n in 0..PRELOAD_COUNT_MAX {
        bench.create_quietly(create(&format!("w:3.{n}"), 99_000, &branch));
    }
    assert_eq!(preload(&mut bench).len(), PRELOAD_COUNT_MAX);
    let mut large = create("w.0", 99_000, &branch);
    large.param = Value::text("x".repeat(PRELOAD_BYTES_MAX));
    bench.create_quietly(large);
    assert!(preload(&mut bench).is_empty());
}

#[test]
fn a_promise_takes_so_many_callbacks_and_listeners_and_one_more_is_429() {
    let mut bench = Bench::new();
    bench.create("w", 99_000, &[WORKER]);
    bench.create("w:full", 99_000, &[WORKER]);
    // The row as it is when the limit is reached; reaching it one by one says no more.
    let full = |number: usize| format!("w:{number}");
    let mut row = bench.memory.row("w").expect("a row").as_ref().clone();
    row.callbacks = (0..CALLBACKS_MAX - 1).map(full).collect();
    row.listeners = (0..LISTENERS_MAX - 1).map(|number| format!("http://h/{number}")).collect();
    let _undo = bench.memory.commit(&[crate::Effect::Put(Arc::new(row))]);
    let quiet = |bench: &mut Bench, request: Request| {
        let applied = apply(&bench.memory, &request, bench.now, &bench.config);
        let _undo = bench.memory.commit(&applied.effects);
        applied.response.status
    };
    for (name, expected) in [("w:full", 200), ("w:full", 200), ("w:over", 429)] {
        if name == "w:over" {
            bench.create_quietly(create("w:over", 99_000, &[WORKER]));
        }
        let callback = Callback { awaited: "w".into(), awaiter: name.into() };
        assert_eq!(quiet(&mut bench, Request::RegisterCallback(callback)), expected, "{name}");
        let listener = Request::RegisterListener { awaited: "w".into(), address: format!("http://h/{name}") };
        assert_eq!(quiet(&mut bench, listener), expected, "{name}");
    }
    let acquire = Request::TaskAcquire { id: "w:over".into(), version: 0, pid: "p".into(), ttl: Millis(1_000) };
    assert_eq!(quiet(&mut bench, acquire), 200);
    let version = bench.task("w:over").version;
    assert_eq!(quiet(&mut bench, suspend("w:over", version, &["w"])), 429);
}

impl Bench {
    /// Creates without checking the invariants of the whole state each time.
    fn create_quietly(&mut self, create: Create) {
        let applied = apply(&self.memory, &Request::PromiseCreate(create), self.now, &self.config);
        assert_eq!(applied.response.status, 200);
        let _undo = self.memory.commit(&applied.effects);
    }
}

#[test]
fn both_id_formats_work_side_by_side() {
    for (root, child) in [("job", "job:1.2"), ("job", "job.1.2"), ("my.app.job", "my.app.job:1")] {
        let mut bench = Bench::new();
        let tags = [WORKER, ("resonate:origin", root), ("resonate:parent", root)];
        bench.create(root, 99_000, &tags);
        bench.create(child, 99_000, &tags);
        let version = bench.acquire(root, 100);
        assert_eq!(bench.ask(suspend(root, version, &[child])).status, 200, "{child}");
    }
}

#[test]
fn the_next_sweep_goes_on_where_a_limit_stopped_it() {
    let mut bench = Bench::new();
    for n in 0..5 {
        bench.create(&format!("a{n}"), 2_000, &[]);
    }
    for left in [3, 1, 0] {
        let effects = tick(&bench.memory, Timestamp(2_000), 2, &bench.config);
        let _undo = bench.memory.commit(&effects);
        let pending = bench.memory.rows().iter().filter(|row| !row.promise.is_settled()).count();
        assert_eq!(pending, left);
    }
    assert!(tick(&bench.memory, Timestamp(2_000), 2, &bench.config).is_empty());
}
