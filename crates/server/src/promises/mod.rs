//! The recovery protocol over HTTP: one route for every operation, one stream per worker.

#[cfg(test)]
mod tests;

use crate::engine::{Connection, Engine};
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use std::convert::Infallible;
use std::time::Duration;

/// LIMIT: the largest request body, in bytes.
pub const REQUEST_BYTES_MAX: usize = 16 << 20;
/// How often a silent stream carries a comment, so that a dead connection is noticed on both sides.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);
/// Made once: a header value from a text is checked and copied each time.
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The path prefixes of the protocol's old form.
const OLD_PATHS: [&str; 6] =
    ["/promises", "/promises/{*rest}", "/schedules", "/schedules/{*rest}", "/tasks", "/tasks/{*rest}"];

/// What a stream is made of: the connection, and the address that workers are told to answer to.
#[derive(Clone)]
struct Served {
    engine: Engine,
    url: String,
}

/// The protocol's routes. `url` is the server's own address, told to workers in every execute message.
pub fn routes(engine: Engine, url: impl Into<String>) -> Router {
    let url = url.into();
    engine.listens_at(&url);
    let mut router = Router::new()
        .route("/", post(rpc))
        .route("/poll/{group}/{id}", get(poll))
        .route("/health", get(health))
        .route("/ready", get(ready));
    for path in OLD_PATHS {
        router = router.route(path, any(gone));
    }
    router.layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX)).with_state(Served { engine, url })
}

async fn rpc(State(served): State<Served>, body: Bytes) -> Response {
    let (status, bytes) = served.engine.wire(&body).await;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, JSON)], bytes).into_response()
}

async fn poll(State(served): State<Served>, Path((group, id)): Path<(String, String)>) -> Response {
    match served.engine.subscribe(&group, &id) {
        Ok(connection) => {
            let frames = stream::unfold((connection, served.url), next_frame);
            let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
            (headers, Body::from_stream(frames)).into_response()
        }
        Err(refused) => refusal(StatusCode::SERVICE_UNAVAILABLE, &refused.to_string()),
    }
}

/// The next bytes of a stream: what waits for it, in one write, or a comment if none came for a while.
async fn next_frame(
    (mut connection, url): (Connection, String),
) -> Option<(Result<Bytes, Infallible>, (Connection, String))> {
    let frame = match tokio::time::timeout(KEEP_ALIVE_EVERY, connection.next_chunk()).await {
        Err(_) => Bytes::from_static(b": keep-alive\n\n"),
        Ok(None) => return None,
        Ok(Some(messages)) => {
            let mut chunk = BytesMut::new();
            for message in messages {
                chunk.extend_from_slice(b"data: ");
                chunk.extend_from_slice(&protocol::wire::render_message(&message, &url));
                chunk.extend_from_slice(b"\n\n");
            }
            chunk.freeze()
        }
    };
    Some((Ok(frame), (connection, url)))
}

async fn health() -> StatusCode {
    StatusCode::OK
}

async fn ready(State(served): State<Served>) -> Response {
    match served.engine.trouble() {
        None => StatusCode::OK.into_response(),
        Some(trouble) => refusal(StatusCode::SERVICE_UNAVAILABLE, &trouble),
    }
}

async fn gone() -> Response {
    refusal(StatusCode::GONE, "this path belongs to an older protocol; every operation is POST /")
}

fn refusal(status: StatusCode, message: &str) -> Response {
    (status, axum::Json(serde_json::json!({ "error": message }))).into_response()
}
