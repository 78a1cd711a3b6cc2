//! The data plane: takes a call on an edge's socket, decides, forwards, counts.

use super::balance::{Bucket, Wheel};
use super::counters::{Counter, End};
use super::settings::{Book, Known};
use super::{ATTEMPT_HEADER, PROXY_HEADER, SHED_HEADER, TARGET_HEADER};
use crate::clock;
use crate::control::Counters;
use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use recovery::call;
use recovery::isa::EdgeName;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// LIMIT: how long an instance may take to begin its answer.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(60);
/// LIMIT: how long opening a connection may take.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(1);
/// LIMIT: idle connections kept per instance.
pub(super) const IDLE_MAX: usize = 256;
/// A half-open breaker lets one in so many pass.
const TRICKLE: u64 = 10;

/// What bounds the calls of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Time until the head of an answer.
    pub(super) answer: Duration,
    /// Time to open a connection.
    pub(super) connect: Duration,
    /// Idle connections kept per instance.
    pub(super) idle: usize,
}

/// What all edges share.
pub(super) struct Shared {
    /// What can have settings.
    pub(super) known: Known,
    live: Mutex<Live>,
    tallies: Mutex<Tallies>,
    client: Client<HttpConnector, Incoming>,
    answer_max: Duration,
    started: Instant,
}

/// What is in force, in the form a call needs.
#[derive(Default)]
struct Live {
    instances: BTreeMap<String, Vec<Instance>>,
    /// By field name, only where there is a limit.
    limits: BTreeMap<String, (i64, Bucket)>,
    gates: BTreeMap<String, Gate>,
}

#[derive(Clone, PartialEq)]
struct Instance {
    name: String,
    address: String,
    weight: i64,
}

/// The state of one edge.
#[derive(Default)]
struct Gate {
    breaker: i64,
    asked: u64,
    wheel: Wheel,
}

#[derive(Default)]
struct Tallies {
    edges: BTreeMap<String, Counter>,
    instances: BTreeMap<String, Counter>,
}

/// What becomes of a call.
enum Verdict {
    To(Instance),
    Shed,
    Open,
    NoTarget,
}

/// An answer's body; while it lives the call is in flight.
struct Counted {
    body: Either<Incoming, Full<Bytes>>,
    _call: Call,
}

/// A call that has begun; its end is counted when it is dropped.
struct Call {
    shared: Arc<Shared>,
    edge: String,
    instance: Option<String>,
    end: End,
}

/// Answers the calls of one edge until it is dropped.
pub(super) async fn serve(listener: TcpListener, edge: EdgeName, shared: Arc<Shared>) {
    let edge = Arc::new(edge);
    super::api::accept(listener, move |request| {
        let (edge, shared) = (edge.clone(), shared.clone());
        async move { Ok::<_, Infallible>(handle(request, &edge, shared).await) }
    })
    .await;
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { answer: ANSWER_MAX, connect: CONNECT_MAX, idle: IDLE_MAX }
    }
}

impl Shared {
    pub(super) fn new(known: Known, limits: Limits) -> Shared {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(limits.connect));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(limits.idle)
            .build(connector);
        let (live, tallies) = (Mutex::default(), Mutex::default());
        Shared { known, live, tallies, client, answer_max: limits.answer, started: Instant::now() }
    }

    /// Puts what the book says into force.
    pub(super) fn apply(&self, book: &Book, now_ms: i64) {
        let now_us = self.now_us();
        let mut live = lock(&self.live);
        let mut instances = BTreeMap::new();
        for (service, targets) in &book.targets {
            let list: Vec<Instance> = targets
                .iter()
                .map(|target| Instance {
                    name: format!("{service}@{}", target.replica),
                    address: target.address.clone(),
                    weight: book.value(&call::weight(service, target.replica), now_ms),
                })
                .collect();
            instances.insert(service.clone(), list);
        }
        let moved = instances != live.instances;
        live.instances = instances;
        for edge in &self.known.edges {
            let gate = live.gates.entry(edge.to_string()).or_default();
            gate.breaker = book.value(&call::breaker(edge), now_ms);
            if moved {
                gate.wheel.reset();
            }
        }
        let edges = self.known.edges.iter().map(call::edge_limit);
        for field in edges.chain(self.known.services.iter().map(|service| call::service_limit(service))) {
            let rate = book.value(&field, now_ms);
            if rate < 0 {
                live.limits.remove(&field);
            } else if live.limits.get(&field).is_none_or(|(before, _)| *before != rate) {
                live.limits.insert(field, (rate, Bucket::new(rate, now_us)));
            }
        }
    }

    /// What passed, by edge and instance.
    pub(super) fn counters(&self) -> Counters {
        let at_ms = clock::now().0;
        let tallies = lock(&self.tallies);
        let series = |(name, counter): (&String, &Counter)| (name.clone(), counter.series(at_ms));
        let mut edges: BTreeMap<_, _> =
            self.known.edges.iter().map(|edge| (edge.to_string(), Default::default())).collect();
        edges.extend(tallies.edges.iter().map(series));
        Counters { at_ms, edges, targets: tallies.instances.iter().map(series).collect() }
    }

    fn decide(&self, edge: &EdgeName) -> Verdict {
        let now_us = self.now_us();
        let mut live = lock(&self.live);
        let Live { instances, limits, gates } = &mut *live;
        let gate = gates.entry(edge.to_string()).or_default();
        gate.asked += 1;
        if gate.breaker == 1 || (gate.breaker == 2 && gate.asked % TRICKLE != 0) {
            return Verdict::Open;
        }
        for field in [call::edge_limit(edge), call::service_limit(&edge.callee)] {
            if limits.get_mut(&field).is_some_and(|(_, bucket)| !bucket.admit(now_us)) {
                return Verdict::Shed;
            }
        }
        let targets = instances.get(&edge.callee).map(Vec::as_slice).unwrap_or_default();
        let weights: Vec<i64> = targets.iter().map(|instance| instance.weight).collect();
        let next = gate.wheel.next(&weights).and_then(|index| targets.get(index));
        next.map_or(Verdict::NoTarget, |instance| Verdict::To(instance.clone()))
    }

    fn begin(self: &Arc<Self>, edge: &EdgeName, instance: Option<&str>, retry: bool) -> Call {
        let (edge, now_ms) = (edge.to_string(), clock::now().0);
        let mut tallies = lock(&self.tallies);
        tallies.edges.entry(edge.clone()).or_default().begin(retry, now_ms);
        if let Some(name) = instance {
            tallies.instances.entry(name.to_owned()).or_default().begin(retry, now_ms);
        }
        drop(tallies);
        Call { shared: self.clone(), edge, instance: instance.map(str::to_owned), end: End::Timeout }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let now_ms = clock::now().0;
        let mut tallies = lock(&self.shared.tallies);
        if let Some(counter) = tallies.edges.get_mut(&self.edge) {
            counter.end(self.end, now_ms);
        }
        if let Some(counter) = self.instance.as_ref().and_then(|name| tallies.instances.get_mut(name)) {
            counter.end(self.end, now_ms);
        }
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn handle(request: Request<Incoming>, edge: &EdgeName, shared: Arc<Shared>) -> Response<Counted> {
    let attempt = request.headers().get(ATTEMPT_HEADER).and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    let retry = attempt.is_some_and(|attempt| attempt > 1);
    let instance = match shared.decide(edge) {
        Verdict::To(instance) => instance,
        refused => return turn_away(&refused, shared.begin(edge, None, retry)),
    };
    let mut call = shared.begin(edge, Some(&instance.name), retry);
    let forwarded = match readdress(request, &instance.address) {
        Ok(forwarded) => forwarded,
        Err(_) => return own(StatusCode::BAD_REQUEST, "broken", End::Failed, call),
    };
    match tokio::time::timeout(shared.answer_max, shared.client.request(forwarded)).await {
        Ok(Ok(response)) => {
            let shed = response.headers().contains_key(SHED_HEADER);
            call.end = if shed || !response.status().is_server_error() { End::Ok } else { End::Failed };
            answer(response, &instance.name, call)
        }
        Ok(Err(error)) => own(StatusCode::BAD_GATEWAY, reason(&error), End::Failed, call),
        Err(_) => own(StatusCode::GATEWAY_TIMEOUT, "timeout", End::Failed, call),
    }
}

fn turn_away(verdict: &Verdict, call: Call) -> Response<Counted> {
    match verdict {
        Verdict::Shed => own(StatusCode::TOO_MANY_REQUESTS, "shed", End::Shed, call),
        Verdict::Open => own(StatusCode::SERVICE_UNAVAILABLE, "open", End::Shed, call),
        Verdict::NoTarget | Verdict::To(_) => own(StatusCode::BAD_GATEWAY, "no-target", End::Failed, call),
    }
}

/// An answer that no instance gave.
fn own(status: StatusCode, why: &'static str, end: End, mut call: Call) -> Response<Counted> {
    call.end = end;
    let mut response = Response::new(Counted { body: Either::Right(Full::default()), _call: call });
    *response.status_mut() = status;
    response.headers_mut().insert(PROXY_HEADER, HeaderValue::from_static(why));
    if end == End::Shed {
        response.headers_mut().insert(SHED_HEADER, HeaderValue::from_static("1"));
    }
    response
}

fn answer(response: Response<Incoming>, instance: &str, call: Call) -> Response<Counted> {
    let (mut parts, body) = response.into_parts();
    drop_hop_by_hop(&mut parts.headers);
    // Only the proxy itself may claim that an answer is its own.
    parts.headers.remove(PROXY_HEADER);
    if let Ok(value) = HeaderValue::from_str(instance) {
        parts.headers.insert(TARGET_HEADER, value);
    }
    parts.version = Version::HTTP_11;
    Response::from_parts(parts, Counted { body: Either::Left(body), _call: call })
}

/// The same request for another address. Trace context and every other end-to-end header stay as they are.
fn readdress(request: Request<Incoming>, address: &str) -> Result<Request<Incoming>, hyper::http::Error> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = Uri::builder().scheme("http").authority(address).path_and_query(path).build()?;
    parts.version = Version::HTTP_11;
    parts.headers.remove(header::HOST);
    drop_hop_by_hop(&mut parts.headers);
    Ok(Request::from_parts(parts, body))
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let fixed = [header::CONNECTION, header::TE, header::TRAILER, header::UPGRADE, header::PROXY_AUTHENTICATE];
    for name in named.into_iter().chain(fixed).chain([HeaderName::from_static("keep-alive")]) {
        headers.remove(name);
    }
}

fn reason(error: &ClientError) -> &'static str {
    if error.is_connect() { "refused" } else { "broken" }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves counts and settings whole: they are replaced, never half-written.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
