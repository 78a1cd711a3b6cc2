//! The outbox over HTTP, for people: what waits, what was sent, what was given up, and sending that again.

#[cfg(test)]
mod tests;

use crate::engine::{Engine, Owed, Resend, Stage, SubmitError};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use protocol::Message;
use serde::{Deserialize, Serialize};

/// LIMIT: bytes of a request to send again.
pub const RESEND_BYTES_MAX: usize = 4_096;

/// `GET /outbox`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbox {
    /// How many messages wait.
    pub waiting: u64,
    /// How many frames were taken by streams and posts begun since the server started.
    pub sent: u64,
    /// How many messages arrived since the server started.
    pub delivered: u64,
    /// How many are to be sent once more, or were, since the server started.
    pub retried: u64,
    /// How many were given up since the server started.
    pub dead: u64,
    /// How many dead letters newer ones have pushed out since the server started.
    pub forgotten: u64,
    /// How many workers are connected.
    pub connections: u64,
    /// The messages, those on their way first, the oldest first; of each kind only so many.
    pub messages: Vec<Letter>,
}

/// One message of the outbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Its number, by which it is sent again.
    pub id: u64,
    /// `waiting`, `sent` or `dead`.
    pub state: String,
    /// `execute` or `unblock`.
    pub kind: String,
    /// The task it offers, or the promise that has settled.
    pub promise: String,
    /// Where it goes.
    pub address: String,
    /// How often it was sent.
    pub attempts: u32,
    /// What the last attempt ended with, or why it was given up.
    pub error: Option<String>,
    /// When it was queued, in Unix milliseconds; for one older than the server's start, when the server started.
    pub since_ms: i64,
    /// When it was given up, in Unix milliseconds.
    pub dead_at_ms: Option<i64>,
}

/// `POST /outbox/retry`: one message, or every dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Retry {
    /// The message of this number.
    Id(u64),
    /// `{"all": true}`
    All(bool),
}

/// What was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retried {
    /// How many messages.
    pub retried: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    #[serde(default)]
    dead: bool,
}

/// `/outbox`, `/outbox/retry`
pub(crate) fn routes(engine: Engine) -> Router {
    let router = Router::new().route("/outbox", get(list)).route("/outbox/retry", post(retry));
    router.layer(DefaultBodyLimit::max(RESEND_BYTES_MAX)).with_state(engine)
}

async fn list(State(engine): State<Engine>, Query(filter): Query<Filter>) -> Json<Outbox> {
    let counts = engine.delivery_counts();
    let owed = engine.owed();
    let messages = owed.iter().filter(|owed| !filter.dead || owed.stage == Stage::Dead).map(letter).collect();
    Json(Outbox {
        waiting: counts.waiting,
        sent: counts.sent,
        delivered: counts.delivered,
        retried: counts.retried,
        dead: counts.dead,
        forgotten: counts.forgotten,
        connections: counts.connections,
        messages,
    })
}

fn letter(owed: &Owed) -> Letter {
    let (kind, promise) = match &*owed.message {
        Message::Execute { task_id, .. } => ("execute", task_id),
        Message::Unblock { promise, .. } => ("unblock", &promise.id),
    };
    let state = match owed.stage {
        Stage::Waiting => "waiting",
        Stage::Sent => "sent",
        Stage::Dead => "dead",
    };
    Letter {
        id: owed.number,
        state: state.to_owned(),
        kind: kind.to_owned(),
        promise: promise.clone(),
        address: owed.message.address().to_owned(),
        attempts: owed.attempts,
        error: owed.error.clone(),
        since_ms: owed.since.0,
        dead_at_ms: owed.dead_at.map(|at| at.0),
    }
}

async fn retry(State(engine): State<Engine>, body: Bytes) -> Response {
    let which = match serde_json::from_slice(&body) {
        Ok(Retry::Id(number)) => Resend::One(number),
        Ok(Retry::All(true)) => Resend::Dead,
        Ok(Retry::All(false)) => return (StatusCode::BAD_REQUEST, "`all` can only be true").into_response(),
        Err(error) => {
            let told = format!("say {{\"id\": NUMBER}} or {{\"all\": true}}: {error}");
            return (StatusCode::BAD_REQUEST, told).into_response();
        }
    };
    match (engine.resend(which).await, which) {
        (Ok(0), Resend::One(number)) => {
            let told = format!("message {number} is neither a dead letter nor waiting for another attempt");
            (StatusCode::NOT_FOUND, told).into_response()
        }
        (Ok(retried), _) => Json(Retried { retried }).into_response(),
        (Err(refused), _) => unavailable(&engine, &refused),
    }
}

fn unavailable(engine: &Engine, refused: &SubmitError) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, engine.trouble().unwrap_or_else(|| refused.to_string())).into_response()
}
