use super::api::accept;
use super::*;
use crate::control::{Change, ControlError, Proxy, Ramp, Target, Targets, http_request};
use base::Timestamp;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use recovery::call::{Fence, State, Versions};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;
use tokio::task::JoinSet;

const EDGE: &str = "gate->till";
const FILE: &str = r#"
[service.gate]
run = ["gate", "--till", "{edge:till}"]
[service.till]
run = ["till"]
probe = { http = "/ready" }
"#;

struct Rig {
    dir: tempfile::TempDir,
    running: Option<Running>,
    proxy: Proxy,
    tills: JoinSet<()>,
    client: Client<HttpConnector, Empty<Bytes>>,
}

/// An instance that answers with its name; `/hang` never, `/fail` with 500, `/echo` with the trace context.
async fn till(name: &'static str, tills: &mut JoinSet<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address").to_string();
    tills.spawn(accept(listener, move |request: Request<Incoming>| async move {
        let mut response = Response::new(Full::new(Bytes::from_static(name.as_bytes())));
        match request.uri().path() {
            "/hang" => std::future::pending::<()>().await,
            "/fail" => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
            "/unready" | "/ready" if name == "sick" => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
            "/echo" => {
                let seen = request.headers().get("traceparent").map_or(b"".as_slice(), |value| value.as_bytes());
                *response.body_mut() = Full::new(Bytes::copy_from_slice(seen));
            }
            _ => {}
        }
        Ok::<_, Infallible>(response)
    }));
    address
}

async fn rig() -> Rig {
    rig_within(forward::Limits::default()).await
}

async fn rig_within(limits: forward::Limits) -> Rig {
    let dir = tempfile::tempdir().expect("dir");
    let running = Some(start_within(options(dir.path()), limits).await.expect("start"));
    let proxy = Proxy::new(dir.path());
    Rig { dir, running, proxy, tills: JoinSet::new(), client: Client::builder(TokioExecutor::new()).build_http() }
}

fn options(dir: &std::path::Path) -> Options {
    let topology = toml::from_str(FILE).expect("topology");
    Options { dir: dir.to_owned(), topology, lifeline: false }
}

fn change(key: &str, set: &[(&str, i64)]) -> Change {
    let set: State = set.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let fence = Fence { epoch: 1, version: 1 };
    Change { key: key.into(), attempt: 1, fence, set, bound: None, expires_at_ms: None, ramp: None }
}

impl Rig {
    async fn register(&self, addresses: &[&str]) {
        let targets = addresses
            .iter()
            .enumerate()
            .map(|(n, address)| Target { replica: u32::try_from(n).expect("small"), address: (*address).to_owned() });
        let targets = Targets::from([("till".to_owned(), targets.collect())]);
        self.proxy.set_targets(&targets).await.expect("targets");
    }

    async fn get(&self, path: &str) -> (u16, BTreeMap<String, String>, String) {
        let address = self.running.as_ref().expect("running").addresses().edges[EDGE].clone();
        let request = Request::get(format!("http://{address}{path}")).header("traceparent", "00-ab-cd-01");
        let response = self.client.request(request.body(Empty::new()).expect("request")).await.expect("answer");
        let headers = response.headers().iter();
        let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()));
        let (status, headers) = (response.status().as_u16(), headers.collect());
        let body = response.into_body().collect().await.expect("body").to_bytes();
        (status, headers, String::from_utf8(body.to_vec()).expect("text"))
    }

    async fn names(&self, count: usize) -> BTreeMap<String, usize> {
        let mut names = BTreeMap::new();
        for _ in 0..count {
            *names.entry(self.get("/").await.2).or_insert(0) += 1;
        }
        names
    }

    async fn restart(&mut self) {
        self.running.take().expect("running").stop().await;
        self.running = Some(start(options(self.dir.path())).await.expect("start again"));
    }

    /// Waits for a condition of the proxy's state, which the proxy reaches by itself.
    async fn until(&self, name: &str, value: i64) {
        let reached = async {
            while self.proxy.state().await.expect("state").settings[name] != value {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reached).await.expect("reached in time");
    }

    /// The audit, once the proxy has written this word to it.
    async fn audited(&self, word: &str) -> String {
        let written = async {
            loop {
                let audit = std::fs::read_to_string(self.dir.path().join("proxy-audit.jsonl")).unwrap_or_default();
                if audit.contains(word) {
                    return audit;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), written).await.expect("written in time")
    }
}

#[tokio::test]
async fn calls_follow_weights_and_carry_their_trace_context() {
    let mut rig = rig().await;
    let (a, b) = (till("a", &mut rig.tills).await, till("b", &mut rig.tills).await);
    rig.register(&[&a, &b]).await;
    assert_eq!(rig.names(20).await, BTreeMap::from([("a".into(), 10), ("b".into(), 10)]));
    rig.proxy.put(&change("p/s1", &[("weight/till@0", 50)])).await.expect("weight");
    assert_eq!(rig.names(30).await, BTreeMap::from([("a".into(), 10), ("b".into(), 20)]));
    rig.proxy.put(&change("p/s2", &[("weight/till@0", 0)])).await.expect("drain");
    assert_eq!(rig.names(10).await, BTreeMap::from([("b".into(), 10)]));
    let (status, headers, body) = rig.get("/echo").await;
    assert_eq!((status, headers[TARGET_HEADER].as_str(), body.as_str()), (200, "till@1", "00-ab-cd-01"));
}

#[tokio::test]
async fn a_limit_sheds_what_is_too_much_and_a_breaker_everything() {
    let mut rig = rig().await;
    let a = till("a", &mut rig.tills).await;
    rig.register(&[&a]).await;
    // One request in a thousand seconds: exactly the burst passes.
    rig.proxy.put(&change("p/s1", &[("limit/gate->till", 1)])).await.expect("limit");
    assert_eq!(rig.get("/").await.0, 200);
    let (status, headers, _) = rig.get("/").await;
    assert_eq!((status, headers[SHED_HEADER].as_str(), headers[PROXY_HEADER].as_str()), (429, "1", "shed"));
    rig.proxy.put(&change("p/s2", &[("limit/gate->till", -1), ("limit/till", 0)])).await.expect("limit");
    assert_eq!(rig.get("/").await.0, 429);
    rig.proxy.put(&change("p/s3", &[("limit/till", -1), ("breaker/gate->till", 1)])).await.expect("breaker");
    let (status, headers, _) = rig.get("/").await;
    assert_eq!((status, headers[SHED_HEADER].as_str(), headers[PROXY_HEADER].as_str()), (503, "1", "open"));
    rig.proxy.put(&change("p/s4", &[("breaker/gate->till", 2)])).await.expect("breaker");
    let mut passed = 0;
    for _ in 0..20 {
        passed += usize::from(rig.get("/").await.0 == 200);
    }
    assert_eq!(passed, 2, "half-open lets a tenth pass");
    let total = rig.proxy.counters().await.expect("counters").edges[EDGE].total;
    assert_eq!((total.calls, total.ok, total.shed, total.in_flight), (24, 3, 21, 0));
}

#[tokio::test]
async fn an_answer_is_counted_once_whatever_it_was() {
    let mut rig = rig().await;
    let a = till("a", &mut rig.tills).await;
    // Replica 1 was there and is gone: its port refuses.
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("listen").local_addr().expect("address").to_string();
    rig.register(&[&a, &gone]).await;
    assert_eq!(rig.get("/fail").await.0, 500);
    let (status, headers, _) = rig.get("/").await;
    assert_eq!((status, headers[PROXY_HEADER].as_str()), (502, "refused"));
    let given_up = tokio::time::timeout(Duration::from_millis(50), rig.get("/hang")).await;
    assert!(given_up.is_err());
    let counted = async { while rig.proxy.counters().await.expect("counters").edges[EDGE].total.timeouts != 1 {} };
    tokio::time::timeout(Duration::from_secs(20), counted).await.expect("the hang-up is noticed");
    let counters = rig.proxy.counters().await.expect("counters");
    let (edge, first) = (counters.edges[EDGE].total, counters.targets["till@0"].total);
    assert_eq!((edge.calls, edge.failed, edge.timeouts, edge.in_flight), (3, 2, 1, 0));
    assert_eq!((first.calls, first.failed, first.timeouts), (2, 1, 1));
    rig.register(&[]).await;
    let (status, headers, _) = rig.get("/").await;
    assert_eq!((status, headers[PROXY_HEADER].as_str()), (502, "no-target"));
}

#[tokio::test]
async fn keys_fences_versions_and_targets_survive_a_restart_on_the_same_ports() {
    let mut rig = rig().await;
    let a = till("a", &mut rig.tills).await;
    rig.register(&[&a]).await;
    let mut drain = change("0123456789abcdef/s1", &[("weight/till@0", 0)]);
    drain.fence = Fence { epoch: 7, version: 2 };
    let first = rig.proxy.put(&drain).await.expect("drain");
    let before = rig.running.as_ref().expect("running").addresses().clone();
    rig.restart().await;
    assert_eq!(rig.running.as_ref().expect("running").addresses(), &before);
    assert_eq!(rig.proxy.outcome(&drain.key).await.expect("outcome"), Some(first.clone()));
    assert_eq!(rig.proxy.put(&drain).await.expect("repeat"), first);
    assert_eq!(rig.proxy.outcome("0123456789abcdef/s1!undo").await.expect("outcome"), None);
    let state = rig.proxy.state().await.expect("state");
    assert_eq!((state.settings["weight/till@0"], state.versions["weight/till@0"]), (0, 1));
    assert_eq!(rig.get("/").await.0, 502, "still drained");
    let stale = change("fedcba9876543210/s1", &[("weight/till@0", 100)]);
    let refused = rig.proxy.put(&stale).await.expect_err("fenced");
    assert!(matches!(refused, ControlError::Fenced { seen } if seen == drain.fence));
    let mut drifted = stale.clone();
    drifted.fence = drain.fence;
    drifted.bound = Some(Versions::from([("weight/till@0".into(), 0)]));
    assert!(
        matches!(rig.proxy.put(&drifted).await, Err(ControlError::Drifted { versions }) if versions["weight/till@0"] == 1)
    );
    let unknown = change("fedcba9876543210/s2", &[("weight/nobody@0", 1)]);
    assert!(matches!(rig.proxy.put(&unknown).await, Err(ControlError::Refused(_))));
}

#[tokio::test]
async fn one_key_from_a_hundred_callers_at_once_is_one_change() {
    let rig = rig().await;
    let mut asks = JoinSet::new();
    for _ in 0..100 {
        let proxy = rig.proxy.clone();
        asks.spawn(async move { proxy.put(&change("p/s1", &[("limit/till", 5_000)])).await.expect("put") });
    }
    let answers = asks.join_all().await;
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(rig.proxy.state().await.expect("state").versions["limit/till"], 1);
}

#[tokio::test]
async fn expiry_is_enforced_without_anyone_else_also_after_a_restart() {
    let mut rig = rig().await;
    let (a, sick) = (till("a", &mut rig.tills).await, till("sick", &mut rig.tills).await);
    rig.register(&[&a, &sick]).await;
    let mut drain = change("p/s1", &[("weight/till@0", 0), ("weight/till@1", 0), ("limit/till", 1_000)]);
    drain.expires_at_ms = Some(crate::clock::now().plus(base::Millis(300)).0);
    rig.proxy.put(&drain).await.expect("drain");
    rig.restart().await;
    rig.until("limit/till", -1).await;
    rig.until("weight/till@0", 100).await;
    assert!(crate::clock::now() >= Timestamp(drain.expires_at_ms.expect("set")), "not before its time");
    // One setting after the other: the sick one is the last to be looked at.
    let audit = rig.audited("withheld").await;
    assert_eq!(audit.lines().count(), 3, "{audit}");
    let state = rig.proxy.state().await.expect("state");
    assert_eq!(state.settings["weight/till@1"], 0, "the sick one gets nothing back");
    assert_eq!(state.versions["weight/till@0"], 2);
    // A ready one takes its place: now it may.
    let b = till("b", &mut rig.tills).await;
    rig.register(&[&a, &b]).await;
    rig.until("weight/till@1", 100).await;
}

#[tokio::test]
async fn a_ramp_is_walked_to_its_end() {
    let rig = rig().await;
    rig.proxy.put(&change("p/s1", &[("limit/gate->till", 10_000)])).await.expect("limit");
    let mut back = change("p/s2", &[("limit/gate->till", -1)]);
    back.ramp = Some(Ramp { steps: vec![50, 100], every_ms: 20 });
    let changed = rig.proxy.put(&back).await.expect("ramp");
    assert_eq!(changed.after["limit/gate->till"], -1);
    rig.until("limit/gate->till", -1).await;
    assert_eq!(rig.proxy.state().await.expect("state").versions["limit/gate->till"], 2);
}

#[tokio::test]
async fn nonsense_is_answered_and_a_damaged_file_refused() {
    let rig = rig().await;
    let control = rig.running.as_ref().expect("running").addresses().control.clone();
    let ask = |method, path, body: &'static [u8]| {
        let control = control.clone();
        async move {
            let answer = http_request(&control, method, path, body.to_vec(), Duration::from_secs(5)).await;
            answer.expect("answer").0
        }
    };
    assert_eq!(ask(Method::PUT, "/settings", b"{").await, 400);
    assert_eq!(ask(Method::GET, "/nothing", b"").await, 404);
    assert_eq!(ask(Method::GET, "/settings/%zz", b"").await, 404);
    assert_eq!(ask(Method::DELETE, "/state", b"").await, 404);
    assert_eq!(ask(Method::PUT, "/targets", br#"{"nobody":[]}"#).await, 422);
    std::fs::write(rig.dir.path().join("proxy-settings.json"), b"half a bo").expect("write");
    assert!(matches!(start(options(rig.dir.path())).await, Err(Error::Damaged { .. })));
}

/// An address whose owner accepts nothing and whose queue is full: a connection to it is neither made nor refused.
async fn unreachable() -> (tokio::net::TcpListener, Vec<tokio::net::TcpStream>, String) {
    let socket = tokio::net::TcpSocket::new_v4().expect("socket");
    socket.bind("127.0.0.1:0".parse().expect("address")).expect("bind");
    let listener = socket.listen(1).expect("listen");
    let address = listener.local_addr().expect("address");
    let mut held = Vec::new();
    while let Ok(opened) =
        tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(address)).await
    {
        held.push(opened.expect("a connection"));
        assert!(held.len() < 100, "the queue of {address} is never full");
    }
    (listener, held, address.to_string())
}

#[tokio::test]
async fn connecting_and_answering_take_so_long_and_no_longer() {
    let default =
        forward::Limits { answer: forward::ANSWER_MAX, connect: forward::CONNECT_MAX, idle: forward::IDLE_MAX };
    assert_eq!(forward::Limits::default(), default);
    let short = Duration::from_millis(50);
    let mut rig = rig_within(forward::Limits { answer: short, ..default }).await;
    let slow = till("slow", &mut rig.tills).await;
    rig.register(&[&slow]).await;
    let (status, headers, _) = rig.get("/hang").await;
    assert_eq!((status, headers[PROXY_HEADER].as_str()), (504, "timeout"));
    let rig = rig_within(forward::Limits { connect: short, ..default }).await;
    let (_listener, _held, address) = unreachable().await;
    rig.register(&[&address]).await;
    let (status, headers, _) = rig.get("/").await;
    assert_eq!((status, headers[PROXY_HEADER].as_str()), (502, "refused"));
    // Where no probe says how to ask, a connection within PROBE_MAX does.
    assert!(api::PROBE_MAX < forward::CONNECT_MAX && !api::is_ready(&address, None).await);
    assert!(api::is_ready(&slow, None).await);
}

#[tokio::test]
async fn idle_connections_are_kept_up_to_their_limit() {
    let limits = forward::Limits { idle: 2, ..forward::Limits::default() };
    let mut rig = rig_within(limits).await;
    let together = Arc::new(tokio::sync::Barrier::new(6));
    let open = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address").to_string();
    let (barrier, counted) = (together.clone(), open.clone());
    rig.tills.spawn(async move {
        use std::sync::atomic::Ordering::SeqCst;
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        loop {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let (together, open) = (barrier.clone(), counted.clone());
            tokio::spawn(async move {
                open.fetch_add(1, SeqCst);
                let mut asked = [0; 4_096];
                while stream.read(&mut asked).await.is_ok_and(|length| length > 0) {
                    together.wait().await;
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
                open.fetch_sub(1, SeqCst);
            });
        }
    });
    rig.register(&[&address]).await;
    // Five calls at once need five connections; the test is the sixth that the answers wait for.
    let calls = async { tokio::join!(rig.get("/"), rig.get("/"), rig.get("/"), rig.get("/"), rig.get("/")) };
    let (answers, _) = tokio::join!(calls, together.wait());
    assert!([answers.0, answers.1, answers.2, answers.3, answers.4].iter().all(|(status, ..)| *status == 200));
    let closed = async {
        while open.load(std::sync::atomic::Ordering::SeqCst) > limits.idle {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), closed).await.expect("the others are closed");
    assert_eq!(open.load(std::sync::atomic::Ordering::SeqCst), limits.idle, "and these are kept");
}

#[tokio::test]
async fn a_control_request_is_read_up_to_its_limit() {
    let rig = rig().await;
    let control = rig.running.as_ref().expect("running").addresses().control.clone();
    for (length, status) in [(api::BODY_BYTES_MAX, 200), (api::BODY_BYTES_MAX + 1, 400)] {
        let mut body = serde_json::to_vec(&change(&format!("p/{status}"), &[("weight/till@0", 50)])).expect("json");
        body.resize(length, b' ');
        let asked = http_request(&control, Method::PUT, "/settings", body, Duration::from_secs(60)).await;
        assert_eq!(asked.map(|(status, _)| status).ok(), Some(status), "{length}");
    }
}
