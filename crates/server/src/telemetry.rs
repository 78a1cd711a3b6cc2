//! Telemetry intake: spans arrive over OTLP/HTTP, feed the one dependency graph, and the last of them are kept
//! for fitting the model.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use base::{Millis, Timestamp};
use recovery::graph::{Config, Graph, Snapshot};
use recovery::import::{self, ImportError, Options};
use recovery::span::Span;
use recovery::topology::Topology;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::Env;
use crate::gzip::{self, GzipError};

/// LIMIT: bytes of one export request, before and after decompression.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// LIMIT: spans kept for the model.
const SPANS_KEPT_MAX: usize = 400_000;
/// How long a span is kept for the model.
const KEPT_FOR: Millis = Millis(90_000);

/// The intake of one server; cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    env: Env,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    graph: Graph,
    join: Millis,
    rotated_at: Timestamp,
    kept: VecDeque<Span>,
    kept_max: usize,
    dropped: u64,
}

/// What a graph cannot take from a topology file.
#[derive(Debug, thiserror::Error)]
#[error("the topology file contradicts itself: {0}")]
pub struct DeclareError(String);

impl Telemetry {
    /// An empty intake.
    ///
    /// # Errors
    /// Declarations that contradict themselves.
    pub fn new(env: Env, config: &Config, topology: &Topology) -> Result<Telemetry, DeclareError> {
        let mut graph = Graph::new(config);
        graph.declare(topology).map_err(|error| DeclareError(error.to_string()))?;
        let rotated_at = env.now();
        let kept = VecDeque::new();
        let inner = Inner { graph, join: config.join, rotated_at, kept, kept_max: SPANS_KEPT_MAX, dropped: 0 };
        Ok(Telemetry { env, inner: Arc::new(Mutex::new(inner)) })
    }

    /// Takes spans.
    pub fn observe(&self, spans: Vec<Span>) {
        let now = self.env.now();
        let mut inner = self.lock();
        inner.rotate(now);
        for span in spans {
            inner.graph.observe(&span, now);
            inner.kept.push_back(span);
        }
        inner.forget(now);
    }

    /// The graph as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let now = self.env.now();
        let mut inner = self.lock();
        inner.rotate(now);
        inner.graph.snapshot(now)
    }

    /// The kept spans that started in `[from, to)`.
    #[must_use]
    pub fn spans(&self, from: Timestamp, to: Timestamp) -> Vec<Span> {
        let us = |at: Timestamp| u64::try_from(at.0).unwrap_or(0).saturating_mul(1_000);
        let (from, to) = (us(from), us(to));
        self.lock().kept.iter().filter(|span| span.start_us >= from && span.start_us < to).cloned().collect()
    }

    /// Spans refused or not understood so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while observing leaves counts behind, never a broken invariant: go on with what there is.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn rotate(&mut self, now: Timestamp) {
        if now.since(self.rotated_at) >= self.join {
            self.graph.rotate(now);
            self.rotated_at = now;
        }
    }

    fn forget(&mut self, now: Timestamp) {
        let oldest = u64::try_from(now.minus(KEPT_FOR).0).unwrap_or(0).saturating_mul(1_000);
        while self.kept.len() > self.kept_max || self.kept.front().is_some_and(|span| span.start_us < oldest) {
            self.kept.pop_front();
        }
    }
}

/// `POST /v1/traces`: OTLP/HTTP, protobuf or JSON, gzip or not.
pub(crate) fn routes(telemetry: Telemetry) -> Router {
    Router::new().route("/v1/traces", post(export)).layer(DefaultBodyLimit::max(BATCH_BYTES_MAX)).with_state(telemetry)
}

async fn export(State(telemetry): State<Telemetry>, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let json = text(header::CONTENT_TYPE).starts_with("application/json");
    let body = match inflate(text(header::CONTENT_ENCODING), &body) {
        Ok(body) => body,
        Err(status) => return status.into_response(),
    };
    // The embedded server takes spans from its own host only: the source counts as authenticated.
    let options = Options { authenticated: true, dictionary: None };
    let read = if json { import::otlp_json(&body, &options) } else { import::otlp_protobuf(&body, &options) };
    match read {
        Ok((spans, report)) => {
            let refused = report.dropped_total();
            telemetry.lock().dropped += refused;
            telemetry.observe(spans);
            answer(json, refused)
        }
        Err(error @ ImportError::TooLarge { .. }) => (StatusCode::PAYLOAD_TOO_LARGE, error.to_string()).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

/// An export response; it says how many spans were refused.
fn answer(json: bool, refused: u64) -> Response {
    if json {
        let body = if refused == 0 {
            "{}".to_owned()
        } else {
            format!(r#"{{"partialSuccess":{{"rejectedSpans":"{refused}"}}}}"#)
        };
        return ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    }
    ([(header::CONTENT_TYPE, "application/x-protobuf")], partial_success(refused)).into_response()
}

/// `ExportTraceServiceResponse { partial_success (1) { rejected_spans (1) } }` in protobuf; empty when 0.
fn partial_success(refused: u64) -> Vec<u8> {
    if refused == 0 {
        return Vec::new();
    }
    let mut number = Vec::new();
    let mut rest = refused;
    while rest >= 0x80 {
        number.push(u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80);
        rest >>= 7;
    }
    number.push(u8::try_from(rest).unwrap_or(0));
    let inner = [&[0x08], number.as_slice()].concat();
    [&[0x0a, u8::try_from(inner.len()).unwrap_or(0)], inner.as_slice()].concat()
}

fn inflate(encoding: &str, body: &[u8]) -> Result<Vec<u8>, StatusCode> {
    match encoding {
        "" | "identity" => Ok(body.to_vec()),
        "gzip" => gzip::unpack(body, BATCH_BYTES_MAX as u64).map_err(|error| match error {
            GzipError::Damaged(_) => StatusCode::BAD_REQUEST,
            GzipError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        }),
        _ => Err(StatusCode::UNSUPPORTED_MEDIA_TYPE),
    }
}

#[cfg(test)]
mod tests;
