//! `GET /inspect?id=ID`: everything that is durably kept under an id, for people and for `stanch task show`. Read-only.

use crate::engine::{Engine, Inspected};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use protocol::{Task, wire};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Asked {
    id: String,
}

/// `/inspect`
pub(crate) fn routes(engine: Engine) -> Router {
    Router::new().route("/inspect", get(show)).with_state(engine)
}

async fn show(State(engine): State<Engine>, Query(Asked { id }): Query<Asked>) -> Response {
    match engine.inspect(&id) {
        Some(found) => Json(rendered(&found)).into_response(),
        None => {
            let near = engine.near(&id);
            let nearest = crate::incidents::nearest(&id, near.iter().map(String::as_str));
            let answer = json!({ "error": format!("there is no promise `{id}`"), "nearest": nearest });
            (StatusCode::NOT_FOUND, Json(answer)).into_response()
        }
    }
}

/// Instants in milliseconds since the Unix epoch, as on the wire; what does not apply is left out.
fn rendered(found: &Inspected) -> Value {
    let row = &found.row;
    json!({
        "promise": wire::promise_json(&row.promise),
        "task": row.task.as_deref().map(|task| task_rendered(task, &found.awaits)),
        "callbacks": row.callbacks,
        "listeners": row.listeners,
    })
}

fn task_rendered(task: &Task, awaits: &[String]) -> Value {
    let mut shown = json!({
        "id": task.id, "state": task.state.name(), "version": task.version, "attempts": task.attempts,
        "resumes": task.resumes, "awaits": awaits,
    });
    if let Some(fields) = shown.as_object_mut() {
        let optional = [
            ("pid", task.pid.clone().map(Value::from)),
            ("ttl", task.ttl.map(|ttl| Value::from(ttl.0))),
            ("retryAt", task.retry_at.map(|at| Value::from(at.0))),
            ("leaseAt", task.lease_at.map(|at| Value::from(at.0))),
            ("reason", task.reason.clone().map(Value::from)),
        ];
        fields.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    }
    shown
}

#[cfg(test)]
mod tests;
