//! A server under mixed load for a while: what it holds stays bounded, nothing is refused that should not be, and the
//! store is sound afterwards.
//!
//! Twenty seconds unless `SOAK_SECONDS` says otherwise; `cargo xtask soak --minutes 10` is the long form.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up has failed")]
#![allow(clippy::print_stdout, reason = "counts and sizes are part of what this test is for")]

mod support;

use base::{Millis, Timestamp};
use client::{Client, Outcome, Worker};
use protocol::{
    BRANCH, Body, Callback, Create, EXTERNAL, FenceAction, ORIGIN, PromiseSearch, Request, Resolution, Response,
    ScheduleCreate, ScheduleSearch, Settle, TARGET, TIMER, TaskRef, TaskSearch, Value,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use support::{Random, Server, stanch, wait_for};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The short form.
const SECONDS: u64 = 20;
/// Clients of each kind.
const CLIENTS: u64 = 4;
/// Workers that hold a stream open, and lose it again and again.
const WORKERS: u64 = 4;
/// What one client does at most: one round in so much time. It is the time that is tested, not the rate.
const PACE: Duration = Duration::from_millis(20);
/// How often the process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Settled promises in memory; the others leave it.
const SETTLED: &str = "1000";
/// What the server may keep for each promise ever made, in bytes: its place, and what the allocator does not give back.
const PROMISE_BYTES_MAX: u64 = 512;
/// What it may grow by besides, in bytes: live promises, buffers, the database's cache, and what is owed to workers whose
/// streams never last: the messages of about half a minute, until their eighth frame is lost, and 1,000 dead letters.
const BESIDES_BYTES_MAX: u64 = 48 << 20;
/// Descriptors under load: what is open anyway, and a connection for each thing that clients and workers do at once.
const DESCRIPTORS_MAX: usize = 64 + 4 * client::JOBS_MAX;
/// Descriptors that may stay once nobody is connected, beyond those that were open before anybody was.
const DESCRIPTORS_LEFT_MAX: usize = 8;
/// Beyond the test.
const FAR: Timestamp = Timestamp(9_000_000_000_000);
const LEASE: Millis = Millis(60_000);

#[expect(clippy::disallowed_methods, reason = "the long form of a test is asked for by its environment")]
fn seconds() -> u64 {
    std::env::var("SOAK_SECONDS").map_or(SECONDS, |text| text.parse().unwrap())
}

/// What was done.
#[derive(Default)]
struct Done {
    promises: AtomicU64,
    requests: AtomicU64,
    jobs: AtomicU64,
    streams: AtomicU64,
}

/// One client and its own random choices.
struct Load {
    client: Client,
    name: String,
    made: u64,
    random: Random,
    done: Arc<Done>,
}

impl Load {
    /// One request; whatever is asked here is answered by the protocol.
    async fn ask(&mut self, request: Request) -> Response {
        let response = self.client.rpc(&request).await.unwrap();
        let expected = [200, 300, 404, 409, 422].contains(&response.status);
        assert!(expected, "{request:?} was answered {response:?}");
        self.done.requests.fetch_add(1, Ordering::Relaxed);
        response
    }

    fn id(&mut self) -> String {
        self.made += 1;
        format!("{}:{}", self.name, self.made)
    }

    async fn create(&mut self, id: &str, tags: &[(&str, &str)], timeout_at: Timestamp) {
        let tags = tags.iter().map(|(name, tag)| ((*name).to_owned(), (*tag).to_owned())).collect();
        let param = Value::text("aW4=".repeat(16));
        self.ask(Request::PromiseCreate(Create { id: id.to_owned(), timeout_at, param, tags })).await;
        self.done.promises.fetch_add(1, Ordering::Relaxed);
    }

    fn settle(&mut self, id: &str) -> Settle {
        let state = [Resolution::Resolved, Resolution::Rejected, Resolution::Canceled][self.random.index(3)];
        Settle { id: id.to_owned(), state, value: Value::text("b3V0") }
    }

    /// Promises that are listened to, read, settled, or left to their deadline.
    async fn promises(&mut self) {
        let id = self.id();
        let deadline = if self.made.is_multiple_of(3) { soon(300) } else { FAR };
        let timer = if self.made.is_multiple_of(2) { (TIMER, "true") } else { (EXTERNAL, "true") };
        self.create(&id, &[timer], deadline).await;
        let address = format!("poll://uni@soak/w{}", self.made % WORKERS);
        self.ask(Request::RegisterListener { awaited: id.clone(), address }).await;
        self.ask(Request::PromiseGet { id: id.clone() }).await;
        if deadline == FAR {
            let settle = self.settle(&id);
            self.ask(Request::PromiseSettle(settle)).await;
        }
        self.create(&format!("{id}.offered"), &[(TARGET, "poll://any@soak")], soon(60_000)).await;
    }

    /// A task through every state.
    async fn tasks(&mut self) {
        let id = self.id();
        let (pid, child) = (self.name.clone(), format!("{id}.1"));
        let tags = [(TARGET, "poll://any@nobody"), (ORIGIN, id.as_str()), (BRANCH, id.as_str())];
        self.create(&id, &tags, FAR).await;
        let acquire = |version| Request::TaskAcquire { id: id.clone(), version, pid: pid.clone(), ttl: LEASE };
        self.ask(acquire(0)).await;
        let held = |version| TaskRef { id: id.clone(), version };
        self.ask(Request::TaskHeartbeat { pid: pid.clone(), tasks: vec![held(1)] }).await;
        self.ask(Request::TaskRelease(held(1))).await;
        self.ask(acquire(2)).await;
        let tags = [(EXTERNAL, "true"), (ORIGIN, id.as_str()), (BRANCH, id.as_str())];
        let tags = tags.map(|(name, tag)| (name.to_owned(), tag.to_owned())).into();
        let create = Create { id: child.clone(), timeout_at: FAR, param: Value::default(), tags };
        self.ask(Request::TaskFence { id: id.clone(), version: 3, action: FenceAction::Create(create) }).await;
        self.done.promises.fetch_add(1, Ordering::Relaxed);
        let actions = vec![Callback { awaited: child.clone(), awaiter: id.clone() }];
        self.ask(Request::TaskSuspend { id: id.clone(), version: 3, actions }).await;
        self.ask(Request::TaskHalt { id: id.clone() }).await;
        self.ask(Request::TaskContinue { id: id.clone() }).await;
        let settle = self.settle(&child);
        self.ask(Request::PromiseSettle(settle)).await;
        self.ask(acquire(3)).await;
        self.ask(Request::TaskGet { id: id.clone() }).await;
        let action = self.settle(&id);
        let answer = self.ask(Request::TaskFulfill { id: id.clone(), version: 4, action }).await;
        assert!(matches!(&answer.body, Body::Promise(promise) if promise.is_settled()), "{answer:?}");
    }

    /// Searches, schedules that come and go, and bytes that are no request.
    async fn rest(&mut self, url: &str) {
        let cursor = Some(format!("{}:", self.name));
        self.ask(Request::PromiseSearch(PromiseSearch { limit: Some(5), cursor, ..Default::default() })).await;
        self.ask(Request::TaskSearch(TaskSearch { limit: Some(5), ..Default::default() })).await;
        self.ask(Request::ScheduleSearch(ScheduleSearch::default())).await;
        let id = format!("{}-again", self.name);
        let schedule = schedule(&id);
        self.ask(schedule).await;
        self.ask(Request::ScheduleGet { id: id.clone() }).await;
        self.ask(Request::ScheduleDelete { id }).await;
        let url = url.to_owned();
        let garbage = move || support::http(&url, "POST", "/", "{\"kind\":").0;
        assert_eq!(tokio::task::spawn_blocking(garbage).await.unwrap(), 400);
    }
}

/// One that fires each second.
fn schedule(id: &str) -> Request {
    Request::ScheduleCreate(ScheduleCreate {
        id: id.to_owned(),
        cron: "* * * * * *".to_owned(),
        promise_id: "{{.id}}.{{.timestamp}}".to_owned(),
        promise_timeout: Millis(2_000),
        promise_param: Value::default(),
        promise_tags: [(TARGET.to_owned(), "poll://any@soak".to_owned())].into(),
    })
}

#[expect(clippy::disallowed_methods, reason = "deadlines that the server's own clock reaches")]
fn soon(more: u64) -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_millis()).unwrap()).plus(Millis(more))
}

/// A worker that takes what it is offered, and whose stream drops again and again.
async fn work(client: Client, number: u64, done: Arc<Done>, over: CancellationToken) {
    let mut random = Random(number);
    while !over.is_cancelled() {
        let stop = over.child_token();
        let worker = Worker::new(client.clone(), "soak", format!("w{number}"), LEASE);
        let counted = Arc::clone(&done);
        let jobs = move |_job| {
            counted.jobs.fetch_add(1, Ordering::Relaxed);
            async { Outcome::Fulfill(Resolution::Resolved, Value::text("done")) }
        };
        let held = Duration::from_millis(100 + random.below(900));
        // Dropped in the middle of whatever it does: what it holds is offered to the others.
        let _ = tokio::time::timeout(held, worker.run(stop, jobs)).await;
        done.streams.fetch_add(1, Ordering::Relaxed);
    }
}

/// Rounds of one kind of load, at its pace, until it is over.
async fn rounds(mut load: Load, kind: u64, url: String, over: CancellationToken) {
    let mut pace = tokio::time::interval(PACE);
    while !over.is_cancelled() {
        pace.tick().await;
        match kind {
            0 => load.promises().await,
            1 => load.tasks().await,
            _ => load.rest(&url).await,
        }
    }
}

/// What the process holds: resident bytes and descriptors.
fn held(pid: u32) -> (u64, usize) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    (resident.unwrap().parse::<u64>().unwrap() * 1_024, descriptors)
}

/// Looks at the process from the end of the warm-up to the end; fails as soon as it holds too much.
async fn watch(pid: u32, done: &Done, seconds: u64) -> (u64, usize) {
    let looks = seconds * 1_000 / u64::try_from(LOOK_EVERY.as_millis()).unwrap();
    let mut every = tokio::time::interval(LOOK_EVERY);
    let (mut began, mut grown, mut descriptors_most) = (None, 0, 0);
    for look in 0..looks {
        every.tick().await;
        if look < looks / 5 {
            continue;
        }
        let promises = done.promises.load(Ordering::Relaxed);
        let (resident, descriptors) = held(pid);
        let (first, before) = *began.get_or_insert((resident, promises));
        grown = resident.saturating_sub(first);
        let bound = BESIDES_BYTES_MAX + (promises - before) * PROMISE_BYTES_MAX;
        assert!(grown <= bound, "{grown} bytes more after {} promises; the bound is {bound}", promises - before);
        descriptors_most = descriptors_most.max(descriptors);
        assert!(descriptors <= DESCRIPTORS_MAX, "{descriptors} descriptors; the bound is {DESCRIPTORS_MAX}");
    }
    println!("{} bytes resident after the warm-up, {grown} more at the end", began.unwrap().0);
    (grown, descriptors_most)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_under_load_holds_is_bounded_and_its_store_sound() {
    let (seconds, dir) = (seconds(), tempfile::tempdir().unwrap());
    let settings = [("STANCH__STORAGE__SETTLED_IN_MEMORY", SETTLED.into())];
    let mut server = Server::start_with(dir.path(), &["--no-executor"], &settings);
    let before = held(server.process.pid()).1;
    let (client, done, over) = (Client::new(&server.url).unwrap(), Arc::new(Done::default()), CancellationToken::new());
    for id in ["first", "second"] {
        assert!(client.rpc(&schedule(id)).await.unwrap().is_success());
    }
    let mut running = JoinSet::new();
    for number in 0..3 * CLIENTS {
        let name = format!("c{number}");
        let load = Load { client: client.clone(), name, made: 0, random: Random(number), done: Arc::clone(&done) };
        running.spawn(rounds(load, number % 3, server.url.clone(), over.clone()));
    }
    for number in 0..WORKERS {
        running.spawn(work(client.clone(), number, Arc::clone(&done), over.clone()));
    }
    let (grown, descriptors) = tokio::select! {
        held = watch(server.process.pid(), &done, seconds) => held,
        early = running.join_next() => panic!("a client ended early: {early:?}"),
    };
    over.cancel();
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
    assert!(!server.process.is_over(), "the server is still there");
    drop(client);
    let pid = server.process.pid();
    let left = tokio::task::spawn_blocking(move || {
        wait_for("the end of every connection", || {
            Some(held(pid).1).filter(|left| *left <= before + DESCRIPTORS_LEFT_MAX)
        })
    });
    let left = left.await.unwrap();
    let health = support::http(&server.url, "GET", "/ready", "").0;
    assert_eq!(health, 200);
    server.end();
    let doctor = stanch(&["doctor", "--data", dir.path().to_str().unwrap()]);
    assert_eq!(doctor.exit, 0, "{doctor:?}");
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    println!(
        "{seconds} s: {} requests, {} promises, {} jobs over {} streams; {grown} bytes more, at most {descriptors} descriptors, {before} before and {left} after; {}",
        count(&done.requests),
        count(&done.promises),
        count(&done.jobs),
        count(&done.streams),
        doctor.out.trim()
    );
    assert!(count(&done.jobs) > 0 && count(&done.streams) >= WORKERS && count(&done.requests) > seconds * 10);
}
