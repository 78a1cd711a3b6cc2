use super::*;
use crate::call::{ATTEMPT_HEADER, client, exchange};
use crate::fault::Fault;
use crate::profile::PROFILES;
use crate::rollout;
use axum::http::Request;
use http_body_util::Full;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use std::sync::Mutex;
use tokio::sync::mpsc;

/// Long enough for a busy machine; nothing waits that long unless it is broken.
const SOON: Duration = Duration::from_secs(20);

/// A stand-in for a callee: answers with the statuses in turn, the last one for ever; 0 never answers.
struct Double {
    address: String,
    seen: Seen,
}

/// Attempt number and body of each request.
type Seen = Arc<Mutex<Vec<(Option<String>, Bytes)>>>;

async fn double(statuses: &'static [u16]) -> Double {
    let seen = Seen::default();
    let record = seen.clone();
    let answer = move |headers: HeaderMap, body: Bytes| {
        let attempt = headers.get(ATTEMPT_HEADER).map(|value| value.to_str().expect("text").to_owned());
        let mut seen = record.lock().expect("lock");
        let status = statuses[seen.len().min(statuses.len() - 1)];
        seen.push((attempt, body));
        async move {
            if status == 0 {
                std::future::pending::<()>().await;
            }
            super::answer(StatusCode::from_u16(status).expect("status"))
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address").to_string();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    Double { address, seen }
}

impl Double {
    fn attempts(&self) -> Vec<Option<String>> {
        self.seen.lock().expect("lock").iter().map(|(attempt, _)| attempt.clone()).collect()
    }
}

fn options(name: &str, data: &tempfile::TempDir, edges: &[(&str, &str)]) -> ServiceOptions {
    ServiceOptions {
        name: name.into(),
        listen: "127.0.0.1:0".into(),
        data: data.path().to_owned(),
        edges: edges.iter().map(|(callee, address)| ((*callee).into(), (*address).into())).collect(),
        identity: Identity { generation: 3, key: "0123456789abcdef/s2".into() },
        ..ServiceOptions::default()
    }
}

async fn ask(address: &str, path: &str, body: &'static str) -> (u16, HeaderMap) {
    let request = Request::post(format!("http://{address}{path}")).header("content-type", "application/json");
    let request = request.body(Full::new(Bytes::from_static(body.as_bytes()))).expect("request");
    let (status, headers, _) = exchange(&client(), request, SOON).await.expect("answer");
    (status.as_u16(), headers)
}

async fn until(mut reached: impl FnMut() -> bool) {
    let waiting = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.expect("reached in time");
}

/// A checkout whose callees are all well but payments.
async fn checkout(data: &tempfile::TempDir, payments: &Double) -> Running {
    let well = double(&[200]).await;
    let names = ["catalog", "cart", "inventory", "orders"];
    let mut edges: Vec<(&str, &str)> = names.iter().map(|name| (*name, well.address.as_str())).collect();
    edges.push(("payments", &payments.address));
    start(options("checkout", data, &edges)).await.expect("start")
}

#[tokio::test]
async fn failures_are_retried_with_numbered_attempts() {
    let data = tempfile::tempdir().expect("dir");
    let payments = double(&[500, 503, 200]).await;
    let running = checkout(&data, &payments).await;
    assert_eq!(ask(&running.address, "/checkout", r#"{"order":"1"}"#).await.0, 200);
    assert_eq!(payments.attempts(), ["1", "2", "3"].map(|n| Some(n.to_owned())));
    running.stop().await;
}

#[tokio::test]
async fn no_more_attempts_than_declared() {
    let data = tempfile::tempdir().expect("dir");
    let payments = double(&[0]).await;
    let running = checkout(&data, &payments).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(ask(&running.address, "/checkout", r#"{"order":"1"}"#).await.0, 502);
    assert_eq!(payments.attempts().len(), 3);
    assert!(begun.elapsed() >= Duration::from_millis(3 * 400), "each attempt has its whole timeout");
    running.stop().await;
}

#[tokio::test]
async fn what_was_shed_is_passed_on_and_not_retried() {
    let data = tempfile::tempdir().expect("dir");
    let payments = double(&[429]).await;
    let running = checkout(&data, &payments).await;
    let (status, headers) = ask(&running.address, "/checkout", r#"{"order":"1"}"#).await;
    assert_eq!((status, headers.contains_key(SHED_HEADER)), (429, true));
    assert_eq!(payments.attempts().len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn workers_and_queue_are_bounded_and_work_outlives_its_caller() {
    let data = tempfile::tempdir().expect("dir");
    let ledger = double(&[0]).await;
    let running = start(options("payments", &data, &[("ledger", &ledger.address)])).await.expect("start");
    let places = usize::try_from(running.shop.profile.workers + running.shop.profile.queue_max).expect("small");
    let address = running.address.clone();
    let callers: Vec<_> = (0..places)
        .map(|_| {
            let address = address.clone();
            tokio::spawn(async move { ask(&address, "/pay", r#"{"order":"1"}"#).await })
        })
        .collect();
    until(|| running.shop.pool.inside() == places).await;
    assert_eq!(ask(&address, "/pay", r#"{"order":"1"}"#).await.0, 503);
    callers.iter().for_each(JoinHandle::abort);
    let workers = usize::try_from(running.shop.profile.workers).expect("small");
    // Nobody waits any more, and yet more than the first workers' requests are worked on.
    until(|| ledger.attempts().len() > workers).await;
    assert!(running.shop.pool.inside() > 0);
}

#[tokio::test]
async fn a_slow_replica_is_slow_to_its_probe_too() {
    let data = tempfile::tempdir().expect("dir");
    let running = start(options("cart", &data, &[])).await.expect("start");
    break_one(&data, "cart", Fault::Slow).await;
    let begun = tokio::time::Instant::now();
    let probe = Request::get(format!("http://{}/ready", running.address)).body(Full::default()).expect("request");
    let (status, _, _) = exchange(&client(), probe, SOON).await.expect("answer");
    assert_eq!(status, StatusCode::OK);
    assert!(begun.elapsed() >= Duration::from_millis(crate::SLOW_MS));
    running.stop().await;
}

async fn break_one(data: &tempfile::TempDir, service: &str, fault: Fault) -> crate::fault::Broken {
    crate::fault::inject(data.path(), service, fault, 1).await.expect("broken")
}

async fn is_ready(running: &Running) -> bool {
    let probe = Request::get(format!("http://{}/ready", running.address)).body(Full::default()).expect("request");
    exchange(&client(), probe, SOON).await.expect("answer").0.is_success()
}

#[tokio::test]
async fn a_replica_with_errors_answers_nothing_else_and_is_ready_all_the_same() {
    let data = tempfile::tempdir().expect("dir");
    let running = start(options("cart", &data, &[])).await.expect("start");
    assert_eq!(ask(&running.address, "/cart", r#"{"order":"1"}"#).await.0, 200);
    let broken = break_one(&data, "cart", Fault::Errors).await;
    assert_eq!((broken.service.as_str(), broken.replica, broken.config), ("cart", Some(0), None));
    for _ in 0..3 {
        assert_eq!(ask(&running.address, "/cart", r#"{"order":"1"}"#).await.0, 500);
    }
    assert!(is_ready(&running).await);
    running.stop().await;
}

/// Resident memory of this process, in bytes.
fn memory() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches("kB").trim().parse::<usize>().expect("a number") * 1_024
}

#[tokio::test]
async fn a_leaking_replica_grows_to_its_limit_and_then_refuses() {
    let data = tempfile::tempdir().expect("dir");
    let running = start(options("cart", &data, &[])).await.expect("start");
    let before = memory();
    break_one(&data, "cart", Fault::Leak).await;
    let kept = crate::LEAK_BYTES_MAX / crate::LEAK_BYTES;
    let mut statuses = Vec::new();
    // No more at once than the workers take: what waits in the queue of another test's machine is not this test's matter.
    for _ in 0..kept / 32 {
        let asked = (0..32).map(|_| {
            let address = running.address.clone();
            tokio::spawn(async move { ask(&address, "/cart", r#"{"order":"1"}"#).await.0 })
        });
        for one in asked.collect::<Vec<_>>() {
            statuses.push(one.await.expect("asked"));
        }
    }
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert!(memory() > before + crate::LEAK_BYTES_MAX / 2, "{} after {before}", memory());
    assert_eq!(ask(&running.address, "/cart", r#"{"order":"1"}"#).await.0, 503, "no more memory");
    assert!(is_ready(&running).await);
    running.stop().await;
}

#[tokio::test]
async fn a_bad_configuration_reaches_a_running_replica_and_so_does_its_rollback() {
    let data = tempfile::tempdir().expect("dir");
    let ledger = double(&[200]).await;
    let object = rollout::PAYMENTS;
    rollout::roll_out(data.path(), object, &rollout::payments(rollout::KEY)).expect("rolled out");
    let running = start(options("payments", &data, &[("ledger", &ledger.address)])).await.expect("start");
    let pay = || ask(&running.address, "/pay", r#"{"order":"1"}"#);
    assert_eq!(pay().await.0, 200);
    let broken = break_one(&data, "payments", Fault::BadConfig).await;
    let changed = broken.config.expect("changed");
    assert_eq!((broken.replica, changed.before, changed.now), (None, 1, 2));
    answers(&running.address, 500).await;
    assert!(is_ready(&running).await);
    // As the actuator does it: the link back to the revision before.
    let home = rollout::home(data.path(), object);
    std::os::unix::fs::symlink("rev-1", home.join("current.new")).expect("link");
    std::fs::rename(home.join("current.new"), home.join("current")).expect("moved");
    answers(&running.address, 200).await;
    assert!(crate::fault::inject(data.path(), "ledger", Fault::BadConfig, 1).await.is_err(), "it reads none");
    running.stop().await;
}

async fn answers(address: &str, status: u16) {
    let asked = async { while ask(address, "/pay", r#"{"order":"1"}"#).await.0 != status {} };
    tokio::time::timeout(SOON, asked).await.expect("the other revision was read in time");
}

#[tokio::test]
async fn a_replica_records_its_own_start_and_serves_without_an_intake() {
    let data = tempfile::tempdir().expect("dir");
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("listen").local_addr().expect("address");
    let mut options = options("ledger", &data, &[]);
    options.otlp = Some(format!("http://{nobody}"));
    let running = start(options).await.expect("start");
    let starts = starts::read(data.path(), "ledger").expect("starts");
    assert_eq!((starts.len(), starts[0].generation, starts[0].key.as_str()), (1, 3, "0123456789abcdef/s2"));
    assert_eq!((starts[0].pid, starts[0].address.as_str()), (std::process::id(), running.address.as_str()));
    for _ in 0..3 {
        assert_eq!(ask(&running.address, "/append", r#"{"order":"same"}"#).await.0, 200);
    }
    assert_eq!(ask(&running.address, "/append", "{}").await.0, 400);
    running.stop().await;
    assert_eq!(ledger::Ledger::count(&data.path().join("ledger.sqlite")), 1, "an order is paid once");
}

/// What arrived at a stand-in for the intake: service and span.
type Spans = mpsc::UnboundedReceiver<(String, Span)>;

async fn intake() -> (String, Spans) {
    let (send, receive) = mpsc::unbounded_channel();
    let take = move |body: Bytes| {
        let request = ExportTraceServiceRequest::decode(body).expect("protobuf");
        for resource in request.resource_spans {
            let attributes = resource.resource.expect("resource").attributes;
            let text = |key: &str| {
                let found = attributes.iter().find(|attribute| attribute.key == key).expect(key).value.clone();
                match found.and_then(|value| value.value) {
                    Some(Value::StringValue(text)) => text,
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(
                (text("service.version"), text("service.instance.id")),
                ("1".into(), format!("{}@0", text("service.name")))
            );
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let _ = send.send((text("service.name"), span));
            }
        }
        std::future::ready(StatusCode::OK)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address");
    let router = Router::new().route("/v1/traces", post(take));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}"), receive)
}

async fn next(spans: &mut Spans) -> (String, Span) {
    tokio::time::timeout(SOON, spans.recv()).await.expect("in time").expect("open")
}

#[tokio::test]
async fn one_order_is_one_trace_through_every_service() {
    let data = tempfile::tempdir().expect("dir");
    let (otlp, mut spans) = intake().await;
    let mut running: BTreeMap<&str, Running> = BTreeMap::new();
    for profile in &PROFILES {
        let edges: Vec<(&str, &str)> =
            profile.calls.iter().map(|call| (call.callee, running[call.callee].address.as_str())).collect();
        let mut options = options(profile.name, &data, &edges);
        options.otlp = Some(otlp.clone());
        running.insert(profile.name, start(options).await.expect("start"));
    }
    assert_eq!(ask(&running["gateway"].address, "/buy", r#"{"order":"1"}"#).await.0, 200);
    let mut trace: Vec<(String, Span)> = Vec::new();
    // Ten services: one entry span each, one client span for each of the eight calls, one producer span.
    while trace.len() < 10 + 8 + 1 {
        trace.push(next(&mut spans).await);
    }
    let root = trace.iter().find(|(_, span)| span.parent_span_id.is_empty()).expect("root");
    assert_eq!((root.0.as_str(), root.1.kind()), ("gateway", SpanKind::Server));
    assert!(trace.iter().all(|(_, span)| span.trace_id == root.1.trace_id));
    let parent = |span: &Span| trace.iter().find(|(_, other)| other.span_id == span.parent_span_id).expect("parent");
    for (service, span) in
        trace.iter().filter(|(_, span)| span.kind() == SpanKind::Server && !span.parent_span_id.is_empty())
    {
        let (caller, call) = parent(span);
        assert_eq!(call.kind(), SpanKind::Client, "{service}");
        let profile = profile::named(caller).expect("caller");
        assert!(profile.calls.iter().any(|call| call.callee == service), "{caller} calls {service}");
    }
    let (service, consumed) = trace.iter().find(|(_, span)| span.kind() == SpanKind::Consumer).expect("consumer");
    let (sender, sent) = parent(consumed);
    assert_eq!((service.as_str(), sender.as_str(), sent.kind()), ("fulfillment", "orders", SpanKind::Producer));
    for (_, running) in running {
        running.stop().await;
    }
}

#[tokio::test]
async fn an_attempt_that_was_turned_away_is_not_told_as_a_call() {
    let data = tempfile::tempdir().expect("dir");
    let (otlp, mut spans) = intake().await;
    let proxy = Router::new().fallback(|| async {
        let mut response = answer(StatusCode::TOO_MANY_REQUESTS);
        response.headers_mut().insert("x-stanch-proxy", HeaderValue::from_static("shed"));
        response
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address").to_string();
    tokio::spawn(async move { axum::serve(listener, proxy).await });
    let mut options = options("gateway", &data, &[("checkout", &address)]);
    options.otlp = Some(otlp);
    let running = start(options).await.expect("start");
    assert_eq!(ask(&running.address, "/buy", r#"{"order":"1"}"#).await.0, 429);
    let kinds = [next(&mut spans).await.1.kind(), next(&mut spans).await.1.kind()];
    assert!(kinds.contains(&SpanKind::Internal) && kinds.contains(&SpanKind::Server), "{kinds:?}");
    running.stop().await;
}
