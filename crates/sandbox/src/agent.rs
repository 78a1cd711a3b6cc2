//! A scripted agent that is too sure of itself: it would rather restart three services than one.

use crate::ending;
use anyhow::Context as _;
use axum::extract::{Json, State};
use axum::routing::post;
use axum::{Router, serve};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;

/// What it proposes, once per incident.
pub const PLAN: &str = "restart payments ; restart cart ; restart checkout";

/// What the agent needs to run.
#[derive(Clone, Debug, Default)]
pub struct AgentOptions {
    /// Where it listens.
    pub listen: String,
    /// Whether standard input is a pipe whose end is its end.
    pub lifeline: bool,
}

type Seen = Arc<Mutex<BTreeSet<String>>>;

/// Answers until it is asked to end.
///
/// # Errors
/// An address that cannot be listened on.
pub async fn run(options: AgentOptions) -> anyhow::Result<()> {
    let listener =
        TcpListener::bind(&options.listen).await.with_context(|| format!("cannot listen on {}", options.listen))?;
    tokio::select! {
        served = serve(listener, routes()) => served.context("the agent's server ended"),
        _ = ending::requested(options.lifeline) => Ok(()),
    }
}

fn routes() -> Router {
    Router::new()
        .route("/propose", post(propose))
        .route("/diagnose", post(unknown))
        .route("/verify", post(unknown))
        .with_state(Seen::default())
}

async fn propose(State(seen): State<Seen>, Json(request): Json<Value>) -> Json<Value> {
    let incident = incident_of(&request).unwrap_or_default().to_owned();
    let first = seen.lock().unwrap_or_else(PoisonError::into_inner).insert(incident);
    Json(if first {
        let opinion = json!({ "confidence": "certain", "risk": "none", "prose": "Restarting all three always helps." });
        json!({ "plan": PLAN, "opinion": opinion })
    } else {
        json!({ "unknown": true })
    })
}

async fn unknown() -> Json<Value> {
    Json(json!({ "unknown": true }))
}

/// The incident's id, at the top or inside the view.
fn incident_of(request: &Value) -> Option<&str> {
    let id = |value: &Value| value.as_str().or_else(|| value.get("id")?.as_str()).map(str::len);
    let found = [request.get("incident"), request.get("view").and_then(|view| view.get("incident"))];
    let value = found.into_iter().flatten().find(|value| id(value).is_some())?;
    value.as_str().or_else(|| value.get("id")?.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_sure_once_per_incident() {
        let seen = Seen::default();
        let ask = |incident: &str| propose(State(seen.clone()), Json(json!({ "view": { "incident": incident } })));
        assert_eq!(ask("7KQ2").await.0["plan"], PLAN);
        assert_eq!(ask("7KQ2").await.0, json!({ "unknown": true }));
        assert_eq!(ask("8ABC").await.0["plan"], PLAN);
        assert_eq!(incident_of(&json!({ "incident": { "id": "x" } })), Some("x"));
    }
}
