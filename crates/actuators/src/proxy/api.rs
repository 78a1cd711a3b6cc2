//! The control interface, and the proxy's own clockwork: ramps and expiries.

use super::forward::Shared;
use super::settings::{Asked, Book, Expiry, Refusal};
use super::store::{Audit, Store};
use crate::clock;
use crate::control::{self, Change, Changed, ProxyState, Seal, SeenFence, SeenVersions, Targets};
use base::Timestamp;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use recovery::topology::{Probe, Topology};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;

/// LIMIT: bytes of a request's body.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;
/// How often a target that was not ready for its traffic is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Time for a readiness answer where the topology file names no probe.
pub(super) const PROBE_MAX: Duration = Duration::from_millis(100);
/// Seconds over which the offered rate is taken.
const OFFERED_OVER: i64 = 10;

/// The book, its file, and the data plane it is put into force on.
pub(super) struct Control {
    shared: Arc<Shared>,
    store: Store,
    probes: BTreeMap<String, Option<Probe>>,
    book: Mutex<Book>,
    changed: Notify,
}

/// A refused request: a status and a JSON body.
struct Refused(StatusCode, Vec<u8>);

/// Answers every connection of a listener with `handle` until it is dropped; connections end with it.
pub(super) async fn accept<H, F, B>(listener: TcpListener, handle: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: callers that hang up will free some.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let handle = handle.clone();
        connections.spawn(async move {
            if stream.set_nodelay(true).is_ok() {
                let service = service_fn(handle);
                // A connection that breaks is its caller's affair.
                let _ = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        });
    }
}

/// Answers control requests until it is dropped.
pub(super) async fn serve(listener: TcpListener, control: Arc<Control>) {
    accept(listener, move |request| {
        let control = control.clone();
        async move { Ok::<_, Infallible>(handle(request, control).await) }
    })
    .await;
}

/// Walks ramps and ends settings when their time is over, until it is dropped.
pub(super) async fn keep_time(control: Arc<Control>) {
    loop {
        let now = clock::now();
        let (next, withholds) = {
            let book = control.book.lock().await;
            (book.next_ms(now.0), book.withholds())
        };
        let until = next.map(|at_ms| clock::until(Timestamp(at_ms))).into_iter();
        let wait = until.chain(withholds.then_some(ASK_AGAIN)).min();
        tokio::select! {
            () = control.changed.notified() => continue,
            () = sleep(wait) => {}
        }
        control.tick().await;
    }
}

impl Control {
    pub(super) fn new(topology: &Topology, shared: Arc<Shared>, store: Store, book: Book) -> Control {
        shared.apply(&book, clock::now().0);
        let probes = topology.service.iter().map(|(name, service)| (name.clone(), service.probe.clone())).collect();
        Control { shared, store, probes, book: Mutex::new(book), changed: Notify::new() }
    }

    async fn state(&self) -> ProxyState {
        let now = clock::now().0;
        let book = self.book.lock().await;
        let names = book.names(&self.shared.known);
        let settings = names.iter().map(|name| (name.clone(), book.value(name, now))).collect();
        let versions = names.iter().map(|name| (name.clone(), book.version(name))).collect();
        ProxyState { settings, versions, targets: book.targets.clone(), counters: self.shared.counters() }
    }

    async fn change(&self, change: Change) -> Result<Changed, Refused> {
        let counters = self.shared.counters();
        let mut book = self.book.lock().await;
        let mut next = book.clone();
        let asked = Asked {
            change: &change,
            known: &self.shared.known,
            offered: &|field| offered_mrps(&counters, field),
            now_ms: clock::now().0,
        };
        let changed = next.change(&asked)?;
        self.commit(&mut book, next).await?;
        Ok(changed)
    }

    async fn seal(&self, seal: Seal) -> Result<(), Refused> {
        let mut book = self.book.lock().await;
        let mut next = book.clone();
        next.seal(&seal, &self.shared.known)?;
        self.commit(&mut book, next).await
    }

    async fn set_targets(&self, targets: Targets) -> Result<(), Refused> {
        if let Some(unknown) = targets.keys().find(|name| !self.shared.known.services.contains(*name)) {
            return Err(Refusal::Refused(format!("no service `{unknown}` in this file")).into());
        }
        let mut book = self.book.lock().await;
        let mut next = book.clone();
        next.targets = targets;
        self.commit(&mut book, next).await
    }

    /// Makes the next book durable, then puts it into force. If it cannot be written nothing changes.
    async fn commit(&self, book: &mut Book, next: Book) -> Result<(), Refused> {
        let store = self.store.clone();
        let saved = tokio::task::spawn_blocking(move || store.save(&next).map(|()| next)).await;
        match saved {
            Ok(Ok(next)) => *book = next,
            Ok(Err(error)) => return Err(unavailable(&error)),
            Err(error) => return Err(unavailable(&error)),
        }
        self.shared.apply(book, clock::now().0);
        self.changed.notify_one();
        Ok(())
    }

    async fn tick(&self) {
        let now = clock::now().0;
        let due = {
            let book = self.book.lock().await;
            self.shared.apply(&book, now);
            book.due(now)
        };
        for (field, expiry) in due {
            let ready = self.may_return(&field, &expiry).await;
            if let Err(Refused(_, why)) = self.expire(&field, &expiry, ready).await {
                tracing::error!(field, why = %String::from_utf8_lossy(&why), "an expired setting stays: cannot save");
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }

    async fn expire(&self, field: &str, expiry: &Expiry, ready: bool) -> Result<(), Refused> {
        let mut book = self.book.lock().await;
        let mut next = book.clone();
        if !next.expire(field, &expiry.key, ready) {
            return Ok(());
        }
        self.commit(&mut book, next).await?;
        let what = if ready { "expired" } else { "withheld" };
        let audit = Audit { at_ms: clock::now().0, what, field, key: &expiry.key, restore: expiry.restore };
        self.store.note(&audit).map_err(|error| unavailable(&error))
    }

    /// Whether the target may have its traffic back: less of it always, more only if it is ready.
    async fn may_return(&self, field: &str, expiry: &Expiry) -> bool {
        let Some(instance) = field.strip_prefix("weight/") else { return true };
        let (address, now) = {
            let book = self.book.lock().await;
            let found = instance.split_once('@').and_then(|(service, replica)| {
                let number: u32 = replica.parse().ok()?;
                let target = book.targets.get(service)?.iter().find(|target| target.replica == number)?;
                Some((service.to_owned(), target.address.clone()))
            });
            (found, book.value(field, clock::now().0))
        };
        if expiry.restore <= now {
            return true;
        }
        let Some((service, address)) = address else { return false };
        is_ready(&address, self.probes.get(&service).and_then(Option::as_ref)).await
    }
}

async fn handle(request: Request<Incoming>, control: Arc<Control>) -> Response<Full<Bytes>> {
    // In a task of its own: what has begun is finished also when the asker hangs up.
    let answer = tokio::spawn(async move { route(request, &control).await });
    match answer.await {
        Ok(Ok(body)) => respond(StatusCode::OK, body),
        Ok(Err(Refused(status, body))) => respond(status, body),
        Err(_) => respond(StatusCode::INTERNAL_SERVER_ERROR, Vec::new()),
    }
}

async fn route(request: Request<Incoming>, control: &Control) -> Result<Vec<u8>, Refused> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    match (method, path.as_str()) {
        (Method::GET, "/state") => json(&control.state().await),
        (Method::GET, "/counters") => json(&control.shared.counters()),
        (Method::PUT, "/settings") => json(&control.change(body(request).await?).await?),
        (Method::PUT, "/fence") => json(&control.seal(body(request).await?).await?),
        (Method::PUT, "/targets") => json(&control.set_targets(body(request).await?).await?),
        (Method::GET, path) => match path.strip_prefix("/settings/").and_then(decode) {
            Some(key) => control.book.lock().await.answer(&key).map_or_else(|| Err(not_found()), json),
            None => Err(not_found()),
        },
        _ => Err(not_found()),
    }
}

async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Refused> {
    let bad = |why: String| Refused(StatusCode::BAD_REQUEST, error_body(&why));
    let bytes = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let bytes = bytes.map_err(|error| bad(error.to_string()))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, Refused> {
    serde_json::to_vec(value).map_err(|error| unavailable(&error))
}

fn respond(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn error_body(why: &str) -> Vec<u8> {
    serde_json::json!({ "error": why }).to_string().into_bytes()
}

fn not_found() -> Refused {
    Refused(StatusCode::NOT_FOUND, error_body("not found"))
}

fn unavailable(error: &dyn std::fmt::Display) -> Refused {
    Refused(StatusCode::SERVICE_UNAVAILABLE, error_body(&error.to_string()))
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        let (status, body) = match refusal {
            Refusal::Fenced(seen) => (StatusCode::CONFLICT, serde_json::to_vec(&SeenFence { seen })),
            Refusal::Drifted(versions) => {
                (StatusCode::PRECONDITION_FAILED, serde_json::to_vec(&SeenVersions { versions }))
            }
            Refusal::Refused(why) => (StatusCode::UNPROCESSABLE_ENTITY, Ok(error_body(&why))),
        };
        body.map_or_else(|error| unavailable(&error), |body| Refused(status, body))
    }
}

/// Milli-requests per second that arrive where a limit is, over the last whole seconds.
fn offered_mrps(counters: &control::Counters, field: &str) -> i64 {
    let place = field.strip_prefix("limit/").unwrap_or(field);
    let here = counters.at_ms - counters.at_ms.rem_euclid(1_000);
    let from = here - OFFERED_OVER * 1_000;
    let edges = counters
        .edges
        .iter()
        .filter(|(name, _)| name.as_str() == place || name.split_once("->").is_some_and(|(_, callee)| callee == place));
    let seconds = edges.flat_map(|(_, series)| &series.seconds);
    let calls: u64 =
        seconds.filter(|second| (from..here).contains(&second.at_ms)).map(|second| second.counts.calls).sum();
    i64::try_from(calls).unwrap_or(i64::MAX).saturating_mul(1_000) / OFFERED_OVER
}

pub(super) async fn is_ready(address: &str, probe: Option<&Probe>) -> bool {
    let timeout = probe.map_or(PROBE_MAX, |probe| clock::duration(probe.timeout));
    match probe.and_then(|probe| probe.http.as_deref()) {
        Some(path) => {
            let asked = control::http_request(address, Method::GET, path, Vec::new(), timeout).await;
            asked.is_ok_and(|(status, _)| (200..300).contains(&status))
        }
        None => tokio::time::timeout(timeout, TcpStream::connect(address)).await.is_ok_and(|opened| opened.is_ok()),
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// Undoes percent-encoding; `None` for what was never encoded.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}
