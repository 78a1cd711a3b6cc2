//! The client's worker against this server: one heartbeat for all leases, their loss, suspension, fences.

use super::{FAR, Served, TTL, serve, target};
use base::Millis;
use bytes::Bytes;
use client::{AnswerBody, Answering, Cause, Children, Client, Exchange, Job, Lease, Outcome, Worker};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use protocol::{FenceAction, PromiseState, Resolution, SCOPE, Settle, TaskRef, TaskState, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A way to a server on which every request is seen, and which can be cut.
#[derive(Debug)]
struct Watched {
    url: String,
    pool: Pool<HttpConnector, Full<Bytes>>,
    seen: mpsc::UnboundedSender<(Instant, serde_json::Value)>,
    is_cut: AtomicBool,
}

impl Watched {
    fn to(served: &Served) -> (Arc<Watched>, mpsc::UnboundedReceiver<(Instant, serde_json::Value)>) {
        let (seen, requests) = mpsc::unbounded_channel();
        let pool = Pool::builder(TokioExecutor::new()).build_http();
        (Arc::new(Watched { url: served.url.clone(), pool, seen, is_cut: AtomicBool::new(false) }), requests)
    }

    async fn carry(&self, request: hyper::Request<Full<Bytes>>) -> Result<hyper::Response<AnswerBody>, Cause> {
        let fault = |error: &dyn std::fmt::Display| Cause(error.to_string());
        if self.is_cut.load(Ordering::Relaxed) {
            return Err(Cause("cut".to_owned()));
        }
        let (mut head, body) = request.into_parts();
        let body = body.collect().await.map_err(|error| fault(&error))?.to_bytes();
        if let Ok(request) = serde_json::from_slice(&body) {
            let _ = self.seen.send((Instant::now(), request));
        }
        head.uri = format!("{}{}", self.url, head.uri.path()).parse().map_err(|error| fault(&error))?;
        let answer = self.pool.request(hyper::Request::from_parts(head, Full::new(body))).await;
        let answer = answer.map_err(|error| fault(&error))?;
        Ok(answer.map(|body| body.map_err(|error| Cause(error.to_string())).boxed_unsync()))
    }
}

impl Exchange for Watched {
    fn exchange(&self, request: hyper::Request<Full<Bytes>>) -> Answering<'_> {
        Box::pin(self.carry(request))
    }
}

/// Runs a worker that hands out its leases and ends no job.
fn holding(client: Client, ttl: Millis) -> (tokio::task::JoinHandle<()>, mpsc::UnboundedReceiver<Lease>) {
    let (found, leases) = mpsc::unbounded_channel();
    let worker = Worker::new(client, "executor", "w1", ttl);
    let run = tokio::spawn(async move {
        let work = move |job: Job| {
            let found = found.clone();
            async move {
                let _ = found.send(job.lease.clone());
                job.lease.lost().await;
                Outcome::Settled
            }
        };
        worker.run(CancellationToken::new(), work).await;
    });
    (run, leases)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_heartbeat_names_everything_that_a_worker_holds_about_every_half_lease() {
    let served = serve().await;
    let (way, mut requests) = Watched::to(&served);
    let ttl = Millis(1_000);
    let (_worker, mut leases) = holding(Client::through(way), ttl);
    let client = Client::new(&served.url).unwrap();
    let ids = ["job-1", "job-2", "job-3"];
    let mut held = Vec::new();
    for id in ids {
        client.create(id, FAR, Value::default(), target("executor")).await.unwrap();
        held.push(leases.recv().await.unwrap());
    }
    let mut beats = Vec::new();
    while beats.len() < 3 {
        let (at, request) = requests.recv().await.unwrap();
        let tasks = request["data"]["tasks"].as_array().cloned().unwrap_or_default();
        let named: Vec<_> = tasks.iter().map(|task| task["id"].as_str().unwrap_or_default().to_owned()).collect();
        // The first one may have come before all three were taken.
        if request["kind"] == "task.heartbeat" && named.len() == ids.len() {
            assert_eq!((named.as_slice(), &request["data"]["pid"]), (&ids.map(str::to_owned)[..], &"w1".into()));
            beats.push(at);
        }
    }
    for pair in beats.windows(2) {
        // Later is a matter of the machine; sooner than the jitter allows is not.
        assert!(pair[1] - pair[0] >= Duration::from_millis(ttl.0) * 2 / 5, "{:?}", pair[1] - pair[0]);
    }
    assert!(held.iter().all(|lease| !lease.is_lost()));
    // One of them is taken away: the others stay.
    client.halt("job-2").await.unwrap();
    held[1].lost().await;
    assert!(!held[0].is_lost() && !held[2].is_lost());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_reaches_nobody_counts_its_leases_as_lost_when_they_have_lapsed() {
    let served = serve().await;
    let (way, _requests) = Watched::to(&served);
    let (_worker, mut leases) = holding(Client::through(way.clone()), TTL);
    let client = Client::new(&served.url).unwrap();
    let began = Instant::now();
    client.create("job", FAR, Value::default(), target("executor")).await.unwrap();
    let lease = leases.recv().await.unwrap();
    way.is_cut.store(true, Ordering::Relaxed);
    lease.lost().await;
    // Not before it has lapsed: it was acquired after the beginning.
    assert!(began.elapsed() >= Duration::from_millis(TTL.0), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_suspends_on_what_has_settled_runs_again_so_often_and_is_given_back() {
    let served = serve().await;
    let client = Client::new(&served.url).unwrap();
    let global = BTreeMap::from([(SCOPE.to_owned(), "global".to_owned())]);
    client.create("job:gate", FAR, Value::default(), global).await.unwrap();
    client.settle("job:gate", Resolution::Resolved, Value::default()).await.unwrap();
    client.create("job", FAR, Value::default(), target("executor")).await.unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let worker = Worker::new(client.clone(), "executor", "w1", Millis(60_000));
    let counted = Arc::clone(&runs);
    let work = move |job: Job| {
        let runs = counted.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            let text = |version: u64| Value::text(format!("{runs} {version}"));
            match runs > client::REPLAYS_MAX + 1 {
                true => Outcome::Fulfill(Resolution::Resolved, text(job.lease.task().version)),
                false => Outcome::Suspend(vec!["job:gate".to_owned()]),
            }
        }
    };
    let run = tokio::spawn(async move { worker.run(CancellationToken::new(), work).await });
    let done = client.await_promise("job").await.unwrap();
    // Acquired at 1, released at 2, acquired again at 3.
    assert_eq!(done.value, Value::text(format!("{} 3", client::REPLAYS_MAX + 2)));
    run.abort();
    assert_eq!(served.engine.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn every_operation_has_a_method_that_says_what_became_of_it() {
    let served = serve().await;
    let client = Client::new(&served.url).unwrap();
    let create = |id: &str| protocol::Create {
        id: id.to_owned(),
        timeout_at: FAR,
        param: Value::default(),
        tags: target("executor"),
    };
    let (task, _, _) = client.create_task("w1", TTL, create("job")).await.unwrap().unwrap();
    assert!(client.create_task("w2", TTL, create("job")).await.unwrap().is_none(), "it is held");
    let held = TaskRef { id: task.id, version: task.version };
    let stale = TaskRef { version: 7, ..held.clone() };
    let child = FenceAction::Create(create("job:1"));
    assert!(client.fence(&stale, child.clone()).await.unwrap().is_none());
    assert_eq!(client.fence(&held, child).await.unwrap().unwrap().state, PromiseState::Pending);
    let unknown = Settle { id: "job:9".to_owned(), state: Resolution::Resolved, value: Value::default() };
    let refused = client.fence(&held, FenceAction::Settle(unknown)).await;
    assert!(matches!(refused, Err(client::Error::Refused { status: 404, .. })), "{refused:?}");
    assert_eq!(client.register_callback("job:1", "job").await.unwrap().id, "job:1");
    assert_eq!(client.register_listener("job:1", "poll://uni@people/me").await.unwrap().id, "job:1");
    assert_eq!(client.suspend(&stale, &["job:1".to_owned()]).await.unwrap(), client::Suspended::Lost);
    assert_eq!(client.suspend(&held, &["job:1".to_owned()]).await.unwrap(), client::Suspended::Waiting);
    assert_eq!(client.task("job").await.unwrap().unwrap().state, TaskState::Suspended);
    client.halt("job").await.unwrap();
    client.continue_task("job").await.unwrap();
    let refused = client.continue_task("job").await.unwrap_err();
    assert!(matches!(refused, client::Error::Refused { status: 409, .. }) && !refused.may_have_acted(), "{refused:?}");
    let (tasks, is_all) = client.pages(protocol::TaskSearch::default()).up_to(1).await.unwrap();
    assert_eq!((tasks.len(), is_all), (1, false));
    let (tasks, is_all) = client.pages(protocol::TaskSearch::default()).up_to(2).await.unwrap();
    assert_eq!((tasks.len(), is_all), (2, true));
    assert!(client.schedule("none").await.unwrap().is_none() && !client.delete_schedule("none").await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_is_done_once_however_often_its_function_runs() {
    let served = serve().await;
    let client = Client::new(&served.url).unwrap();
    let done = Arc::new(AtomicU32::new(0));
    let (inside, counted) = (client.clone(), Arc::clone(&done));
    let work = move |job: Job| {
        let (client, done) = (inside.clone(), Arc::clone(&counted));
        async move {
            let mut children = Children::of(&client, &job);
            let step = children.step(async {
                done.fetch_add(1, Ordering::Relaxed);
                (Resolution::Resolved, Value::text("once"))
            });
            let Ok(step) = step.await else { return Outcome::Settled };
            // The first run gives up behind its step; another one goes on.
            match job.lease.task().version {
                1 => Outcome::Release,
                _ => Outcome::Fulfill(Resolution::Resolved, step.value.clone()),
            }
        }
    };
    let worker = Worker::new(client.clone(), "executor", "w1", Millis(60_000));
    let run = tokio::spawn(async move { worker.run(CancellationToken::new(), work).await });
    client.create("job", FAR, Value::default(), target("executor")).await.unwrap();
    assert_eq!(client.await_promise("job").await.unwrap().value, Value::text("once"));
    assert_eq!(done.load(Ordering::Relaxed), 1);
    run.abort();
}
