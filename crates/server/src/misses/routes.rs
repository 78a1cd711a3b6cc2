//! Missed dependencies over HTTP: see them with what to declare, and decide on one.

use super::{Missed, Verdict, WordError, judge};
use crate::app::App;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use recovery::topology::Topology;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The answer of `GET /misses`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Those that stand.
    pub misses: Vec<Line>,
    /// How many were ever recorded, dismissed ones too.
    pub recorded: u64,
}

/// One that stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What was seen.
    #[serde(flatten)]
    pub missed: Missed,
    /// The same in one sentence.
    pub sentence: String,
    /// A person accepted it, or the topology file couples the two: nothing is suspected any more.
    pub agreed: bool,
    /// Lines to add to `stanch.toml`.
    pub proposal: String,
}

/// The body of `POST /misses/accept` and `POST /misses/dismiss`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Word {
    /// What failed.
    pub caller: String,
    /// What was restarted.
    pub callee: String,
    /// Who says so.
    pub by: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// `/misses…`
pub fn routes(app: App) -> Router {
    Router::new()
        .route("/misses", get(list))
        .route("/misses/accept", post(accept))
        .route("/misses/dismiss", post(dismiss))
        .with_state(app)
}

async fn list(State(app): State<App>) -> Response {
    let line = |missed: Missed| Line {
        sentence: missed.sentence(),
        agreed: app.misses.is_accepted(&missed) || is_declared(&app.topology, &missed),
        proposal: proposal(&app.topology, &missed),
        missed,
    };
    let misses = app.misses.standing().into_iter().map(line).collect();
    Json(List { misses, recorded: app.misses.recorded() }).into_response()
}

async fn accept(State(app): State<App>, Json(word): Json<Word>) -> Response {
    answer(judge(&app, Verdict::Accepted, &word).await)
}

async fn dismiss(State(app): State<App>, Json(word): Json<Word>) -> Response {
    answer(judge(&app, Verdict::Dismissed, &word).await)
}

fn answer(judged: Result<(), WordError>) -> Response {
    match judged {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (status(&error), error.to_string()).into_response(),
    }
}

fn status(error: &WordError) -> StatusCode {
    match error {
        WordError::Unknown { .. } => StatusCode::NOT_FOUND,
        WordError::Refused(_) => StatusCode::BAD_REQUEST,
        WordError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn couples(topology: &Topology, service: &str) -> BTreeSet<String> {
    topology.service.get(service).map(|service| service.coupled.iter().cloned().collect()).unwrap_or_default()
}

fn is_declared(topology: &Topology, missed: &Missed) -> bool {
    couples(topology, &missed.callee).contains(&missed.caller)
        || couples(topology, &missed.caller).contains(&missed.callee)
}

/// What the topology file should say: the two restart together, and the one that was restarted comes up first.
pub(super) fn proposal(topology: &Topology, missed: &Missed) -> String {
    let mut coupled = couples(topology, &missed.callee);
    coupled.insert(missed.caller.clone());
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let list: Vec<String> = coupled.iter().map(|name| quoted(name)).collect();
    let edge = quoted(&format!("{}->{}", missed.caller, missed.callee));
    let key = |name: &str| {
        let is_bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if is_bare { name.to_owned() } else { quoted(name) }
    };
    let (callee, caller) = (key(&missed.callee), key(&missed.caller));
    // Only declared services can be coupled.
    let is_new = !topology.service.contains_key(&missed.caller);
    let caller = if is_new { format!("[service.{caller}]\n\n") } else { String::new() };
    let coupled = list.join(", ");
    format!("[service.{callee}]\ncoupled = [{coupled}]\n\n{caller}[edge.{edge}]\nhardness = \"hard\"\n")
}
