mod workers;

use super::routes;
use crate::engine::{Config, Engine, Env, Grace};
use axum::body::Body;
use base::{Millis, Timestamp};
use client::{Client, Job, Lease, Outcome, Worker};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::TokioExecutor;
use protocol::{Create, PromiseState, Request, Resolution, TARGET, TaskState, Value};
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const START: Timestamp = Timestamp(1_000_000);
const FAR: Timestamp = Timestamp(9_000_000_000);
const TTL: Millis = Millis(2_000);

/// An engine behind real HTTP on a port of the kernel's choice.
struct Served {
    engine: Engine,
    url: String,
    _dir: tempfile::TempDir,
}

async fn serve() -> Served {
    let dir = tempfile::tempdir().unwrap();
    // A grace beyond every test, so that only leases move tasks here.
    let config = Config { reconnect_grace: Grace(Millis(3_600_000)), ..Config::default() };
    let engine = Engine::open(dir.path(), config, Env::manual(START)).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = routes(engine.clone(), url.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Served { engine, url, _dir: dir }
}

fn target(group: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(TARGET.to_owned(), format!("poll://any@{group}"))])
}

/// A worker whose jobs are handed to the test and end only when the test says so.
fn worker(served: &Served, pid: &str) -> (tokio::task::JoinHandle<()>, mpsc::UnboundedReceiver<Held>) {
    let (found, jobs) = mpsc::unbounded_channel();
    let worker = Worker::new(Client::new(&served.url).unwrap(), "executor", pid, TTL);
    let run = tokio::spawn(async move {
        let work = move |job: Job| {
            let found = found.clone();
            async move {
                let (end, ended) = tokio::sync::oneshot::channel();
                let _ = found.send(Held { lease: job.lease.clone(), end });
                ended.await.unwrap_or(Outcome::Settled)
            }
        };
        worker.run(CancellationToken::new(), work).await;
    });
    (run, jobs)
}

struct Held {
    lease: Lease,
    end: tokio::sync::oneshot::Sender<Outcome>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_is_succeeded_once_its_lease_has_lapsed() {
    let served = serve().await;
    let id = "inc/1:commit.1";
    let create = Create { id: id.to_owned(), timeout_at: FAR, param: Value::default(), tags: target("executor") };
    let request = Request::PromiseCreate(create);
    served.engine.submit(vec![request], Vec::new(), Vec::new(), Vec::new()).await.unwrap();

    let (first, mut firsts) = worker(&served, "w1");
    let held = firsts.recv().await.unwrap();
    assert_eq!((held.lease.task().id.as_str(), held.lease.task().version), (id, 1));
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());

    let (_second, mut seconds) = worker(&served, "w2");
    served.engine.env().advance(TTL);
    let taken = seconds.recv().await.unwrap();
    assert_eq!((taken.lease.task().id.as_str(), taken.lease.task().version), (id, 3), "lapsed and acquired again");
    assert_eq!(served.engine.task(id).unwrap().pid.as_deref(), Some("w2"));
    assert!(!taken.lease.is_lost());

    // A release goes over the wire; a fulfil of a reserved task does not.
    taken.end.send(Outcome::Release).unwrap();
    let again = seconds.recv().await.unwrap();
    assert_eq!(again.lease.task().version, 5);
    let client = Client::new(&served.url).unwrap();
    let refused = client.fulfill(again.lease.task(), Resolution::Resolved, Value::default()).await;
    assert!(matches!(refused, Err(client::Error::Refused { status: 403, .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_learns_that_its_lease_is_lost() {
    let served = serve().await;
    let client = Client::new(&served.url).unwrap();
    client.create("job", FAR, Value::default(), target("executor")).await.unwrap();
    let (_worker, mut jobs) = worker(&served, "w1");
    let held = jobs.recv().await.unwrap();
    // Somebody settles the promise under the worker's hands.
    client.settle("job", Resolution::Canceled, Value::default()).await.unwrap();
    held.lease.lost().await;
    assert!(held.lease.is_lost());
    drop(held.end);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_is_done_and_awaited_over_http() {
    let served = serve().await;
    let client = Client::new(&served.url).unwrap();
    let (_worker, mut jobs) = worker(&served, "w1");
    // Both formats of ids: a child continues its root with a colon or with a dot.
    for id in ["root", "root:child", "root.child", "root:child.grandchild"] {
        let mut tags = target("executor");
        tags.insert("resonate:origin".to_owned(), "root".to_owned());
        let created = client.create(id, FAR, Value::text("in"), tags).await.unwrap();
        assert_eq!(created.state, PromiseState::Pending);
        let awaited = tokio::spawn({
            let client = client.clone();
            async move { client.await_promise(id).await }
        });
        let held = jobs.recv().await.unwrap();
        assert_eq!(held.lease.task().id, id);
        held.end.send(Outcome::Fulfill(Resolution::Resolved, Value::text("out"))).unwrap();
        let promise = awaited.await.unwrap().unwrap();
        assert_eq!((promise.state, promise.value), (PromiseState::Resolved, Value::text("out")));
        assert_eq!(client.task(id).await.unwrap().unwrap().state, TaskState::Fulfilled);
    }
    assert!(client.get("none").await.unwrap().is_none());
    let missing = client.await_promise("none").await;
    assert!(matches!(missing, Err(client::Error::Refused { status: 404, .. })), "{missing:?}");
    assert_eq!(served.engine.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn other_routes_answer_as_the_protocol_says() {
    let served = serve().await;
    let pool = Pool::builder(TokioExecutor::new()).build_http::<Body>();
    let ask = async |method: &str, path: &str, body: &'static str| {
        let uri = format!("{}{path}", served.url);
        let request = hyper::Request::builder().method(method).uri(uri).body(Body::from(body)).unwrap();
        let answer = pool.request(request).await.unwrap();
        let status = answer.status().as_u16();
        (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    };
    assert_eq!(ask("GET", "/health", "").await, (200, String::new()));
    assert_eq!(ask("GET", "/ready", "").await.0, 200);
    for (method, path) in
        [("GET", "/promises"), ("POST", "/promises/a/b"), ("DELETE", "/tasks/x"), ("PUT", "/schedules")]
    {
        let (status, body) = ask(method, path, "").await;
        assert_eq!((status, body.contains("error")), (410, true), "{method} {path}");
    }
    let (status, body) = ask("POST", "/", "not json").await;
    assert_eq!(status, 400);
    assert!(body.contains("\"kind\":\"unknown\""), "{body}");
    let (status, _) =
        ask("POST", "/", r#"{"kind":"promise.fly","head":{"corrId":"7","version":"2026-04-01"},"data":{}}"#).await;
    assert_eq!(status, 400);
    let push = r#"{"kind":"promise.create","head":{"corrId":"7","version":"2026-04-01"},
        "data":{"id":"p","timeoutAt":9000000000,"tags":{"resonate:target":"gcps://project/topic"}}}"#;
    let (status, body) = ask("POST", "/", push).await;
    assert_eq!(
        (status, body.contains("not supported"), body.contains("\"corrId\":\"7\"")),
        (400, true, true),
        "{body}"
    );
    assert!(served.engine.promise("p").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_takes_so_many_jobs_at_once_and_leaves_the_rest() {
    let served = serve().await;
    let client = Client::new(&served.url).unwrap();
    for number in 0..=client::JOBS_MAX {
        client.create(&format!("job-{number}"), FAR, Value::default(), target("executor")).await.unwrap();
    }
    let (_worker, mut jobs) = worker(&served, "w1");
    let mut held = Vec::new();
    while held.len() < client::JOBS_MAX {
        held.push(jobs.recv().await.unwrap());
    }
    // Every offer was sent before the last of these was taken; what follows it has been passed over by now.
    for number in 0..=client::JOBS_MAX {
        client.get(&format!("job-{number}")).await.unwrap();
    }
    assert!(jobs.try_recv().is_err(), "one more than it may have");
    let taken = (0..=client::JOBS_MAX).filter(|number| {
        served.engine.task(&format!("job-{number}")).is_some_and(|task| task.state == TaskState::Acquired)
    });
    assert_eq!(taken.count(), client::JOBS_MAX);
}

#[tokio::test]
async fn a_request_is_read_up_to_its_limit() {
    let served = serve().await;
    let router = routes(served.engine.clone(), served.url.clone());
    for (length, status) in [(super::REQUEST_BYTES_MAX, 400), (super::REQUEST_BYTES_MAX + 1, 413)] {
        let request = axum::http::Request::post("/").body(Body::from(vec![b' '; length])).unwrap();
        assert_eq!(crate::fixture::ask(&router, request).await.0.as_u16(), status, "{length}");
    }
}

#[tokio::test]
async fn a_stream_carries_what_waits_in_one_write_and_one_worker_too_many_is_told_so() {
    let served = serve().await;
    let client = Client::new(&served.url).unwrap();
    for number in 0..10 {
        client.create(&format!("t{number}"), FAR, Value::default(), target("g")).await.unwrap();
    }
    let pool = Pool::builder(TokioExecutor::new()).build_http::<Body>();
    let ask = async |path: &str| {
        let request = hyper::Request::get(format!("{}{path}", served.url)).body(Body::empty()).unwrap();
        pool.request(request).await.unwrap()
    };
    let mut stream = ask("/poll/g/w").await.into_body();
    let first = stream.frame().await.unwrap().unwrap().into_data().unwrap();
    let text = String::from_utf8(first.to_vec()).unwrap();
    assert_eq!(text.matches("data: {").count(), 10, "{text}");
    assert!(text.ends_with("}\n\n") && text.contains(&served.url), "{text}");
    let _others: Vec<_> = (1..crate::engine::CONNECTIONS_MAX)
        .map(|number| served.engine.subscribe("g", &format!("w{number}")).unwrap())
        .collect();
    let refused = ask("/poll/g/over").await;
    assert_eq!(refused.status(), 503);
    let body = String::from_utf8(refused.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    assert!(body.contains("too many workers"), "{body}");
}

/// How fast a backlog reaches one worker over a real stream. The figure is for a release build and a quiet machine;
/// what is asserted is that none is lost and none comes twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_drains_to_one_worker_completely() {
    let count = if cfg!(debug_assertions) { 10_000 } else { 100_000 };
    let served = serve().await;
    for first in (0..count).step_by(50) {
        let create = |number| {
            let (id, tags) = (format!("t{number}"), target("g"));
            Request::PromiseCreate(Create { id, timeout_at: FAR, param: Value::default(), tags })
        };
        let requests = (first..first + 50).map(create).collect();
        served.engine.submit(requests, Vec::new(), Vec::new(), Vec::new()).await.unwrap();
    }
    served.engine.flush().await.unwrap();
    let pool = Pool::builder(TokioExecutor::new()).build_http::<Body>();
    let began = tokio::time::Instant::now();
    let request = hyper::Request::get(format!("{}/poll/g/w", served.url)).body(Body::empty()).unwrap();
    let mut stream = pool.request(request).await.unwrap().into_body();
    let mut text = Vec::new();
    let needle = b"data: {";
    let mut seen = 0;
    while seen < count {
        text.extend_from_slice(&stream.frame().await.unwrap().unwrap().into_data().unwrap());
        // Frames of the body are not frames of the protocol: what is cut is counted with the next one.
        seen += text.windows(needle.len()).filter(|window| window == needle).count();
        text.drain(..text.len().saturating_sub(needle.len() - 1));
    }
    let took = began.elapsed();
    println!("{count} executes in {took:?}: {}/s", count as u128 * 1_000_000 / took.as_micros().max(1));
    assert_eq!((seen, served.engine.delivery_counts().waiting), (count, 0));
}
