//! Calls to other services: timeout, retries, trace context.

use crate::profile::Call;
use crate::random::Random;
use crate::telemetry::{self, Telemetry};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry::Context;
use std::collections::BTreeMap;
use std::time::Duration;

/// Response header of a request that was turned away on purpose.
pub(crate) const SHED_HEADER: &str = "x-stanch-shed";
/// Response header of an answer that the proxy made itself.
const PROXY_HEADER: &str = "x-stanch-proxy";
/// Request header with the number of the attempt, from 1.
pub(crate) const ATTEMPT_HEADER: &str = "x-attempt";

/// A pooled client.
pub(crate) type Http = Client<HttpConnector, Full<Bytes>>;

/// Why a call gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Somebody turned it away on purpose: not retried, passed on.
    Shed,
    /// No attempt succeeded.
    Failed,
}

/// The calls of one process.
#[derive(Debug)]
pub(crate) struct Caller {
    http: Http,
    telemetry: Telemetry,
    /// Where calls to a callee go.
    edges: BTreeMap<String, String>,
    random: Random,
}

/// How one attempt ended.
enum Attempt {
    Answered(Bytes),
    Shed,
    Failed,
}

impl Caller {
    pub(crate) fn new(telemetry: Telemetry, edges: BTreeMap<String, String>, random: Random) -> Caller {
        Caller { http: client(), telemetry, edges, random }
    }

    /// Calls until an attempt succeeds, is turned away, or no attempts are left.
    pub(crate) async fn call(
        &self,
        parent: &Context,
        call: &Call,
        path: &'static str,
        body: &Bytes,
    ) -> Result<Bytes, Failure> {
        for attempt in 1..=call.attempts {
            if attempt > 1 {
                let longest_us = call.backoff_ms(attempt) * 1_000;
                tokio::time::sleep(self.random.time(longest_us / 2, longest_us)).await;
            }
            match self.attempt(parent, call, path, body.clone(), attempt).await {
                Attempt::Answered(answer) => return Ok(answer),
                Attempt::Shed => return Err(Failure::Shed),
                Attempt::Failed => {}
            }
        }
        Err(Failure::Failed)
    }

    /// One untraced exchange: what is polled is no part of any request.
    pub(crate) async fn poll(&self, call: &Call, path: &'static str, body: Bytes) -> Result<Bytes, Failure> {
        let request = self.request(call.callee, path, body).ok_or(Failure::Failed)?;
        let (status, _, answer) = exchange(&self.http, request, call.timeout()).await.ok_or(Failure::Failed)?;
        if status.is_success() { Ok(answer) } else { Err(Failure::Failed) }
    }

    async fn attempt(&self, parent: &Context, call: &Call, path: &'static str, body: Bytes, attempt: u32) -> Attempt {
        let Some(mut request) = self.request(call.callee, path, body) else { return Attempt::Failed };
        let context = self.telemetry.client(parent, call.callee, path, attempt);
        self.telemetry.inject(&context, request.headers_mut());
        request.headers_mut().insert(ATTEMPT_HEADER, HeaderValue::from(attempt));
        let Some((status, headers, answer)) = exchange(&self.http, request, call.timeout()).await else {
            telemetry::end_unanswered(&context);
            return Attempt::Failed;
        };
        let shed = headers.contains_key(SHED_HEADER);
        if shed && headers.contains_key(PROXY_HEADER) {
            telemetry::end_turned_away(&context);
        } else {
            telemetry::end(&context, status.as_u16());
        }
        if shed {
            Attempt::Shed
        } else if status.is_success() {
            Attempt::Answered(answer)
        } else {
            Attempt::Failed
        }
    }

    fn request(&self, callee: &str, path: &str, body: Bytes) -> Option<Request<Full<Bytes>>> {
        let uri = format!("http://{}{path}", self.edges.get(callee)?);
        let json = HeaderValue::from_static("application/json");
        Request::post(uri).header(CONTENT_TYPE, json).body(Full::new(body)).ok()
    }
}

/// A client with a pool of its own.
pub(crate) fn client() -> Http {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(20))
        .build(connector)
}

/// One exchange; `None` without an answer in time. Giving up closes the connection.
pub(crate) async fn exchange(
    http: &Http,
    request: Request<Full<Bytes>>,
    timeout: Duration,
) -> Option<(StatusCode, hyper::HeaderMap, Bytes)> {
    let answer = async {
        let response: Response<Incoming> = http.request(request).await.ok()?;
        let (parts, body) = response.into_parts();
        Some((parts.status, parts.headers, body.collect().await.ok()?.to_bytes()))
    };
    tokio::time::timeout(timeout, answer).await.ok().flatten()
}
