//! Tasks that executors give back: the reason is shown while another tries, and a commit that nobody could carry out
//! ends with it.

use super::wire::{GivenBack, TaskParam};
use crate::app::App;
use crate::engine::Guard;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use protocol::{Request, Resolution, Settle, Task, TaskState, Value};
use std::sync::Arc;

/// LIMIT: bytes of a reason.
const WHY_BYTES_MAX: usize = 2_048;

/// `/given-back`.
pub(super) fn routes(app: App) -> Router {
    Router::new().route("/given-back", post(given_back)).with_state(app)
}

async fn given_back(State(app): State<App>, Json(told): Json<GivenBack>) -> Response {
    if told.why.len() + told.code.len() > WHY_BYTES_MAX {
        let text = format!("a reason of at most {WHY_BYTES_MAX} bytes");
        return (StatusCode::PAYLOAD_TOO_LARGE, text).into_response();
    }
    let Some((incident, param)) = task(&app, &told.task) else {
        return (StatusCode::NOT_FOUND, "not an executor's task").into_response();
    };
    if told.is_final && is_untouched(&app, &told.task, &param) {
        return match refuse(&app, &told).await {
            true => StatusCode::OK.into_response(),
            false => (StatusCode::CONFLICT, "somebody else owns the task now").into_response(),
        };
    }
    if !is_held(&app, &told) {
        // Whoever holds it now may be at work: why another one is not is no reason for anything.
        return (StatusCode::CONFLICT, "somebody else owns the task now").into_response();
    }
    let reason = format!("{} {}", told.code, told.why);
    app.incidents.show(&incident, |view| {
        let line = format!("executor       cannot go on yet: {reason}");
        if view.lines.last() != Some(&line) {
            view.lines.push(line);
        }
        view.given_back = Some(reason);
    });
    StatusCode::ACCEPTED.into_response()
}

fn task(app: &App, id: &str) -> Option<(String, TaskParam)> {
    let incident = id.strip_prefix("inc/")?.split(':').next()?.to_owned();
    let param = serde_json::from_str(app.engine.promise(id)?.param.data.as_deref()?).ok()?;
    Some((incident, param))
}

/// Whether the teller holds the task.
fn is_held(app: &App, told: &GivenBack) -> bool {
    let held = |task: Arc<Task>| task.state == TaskState::Acquired && task.version == told.version;
    app.engine.task(&told.task).is_some_and(held)
}

/// Whether no step of this commit was announced, armed or not: then nothing of it was done. Of any other task nothing
/// is known.
fn is_untouched(app: &App, task: &str, param: &TaskParam) -> bool {
    matches!(param, TaskParam::Commit(_)) && app.engine.children(&format!("{task}.")).is_empty()
}

/// Ends a commit that was never begun, for the holder of its task.
async fn refuse(app: &App, told: &GivenBack) -> bool {
    let value = Value::text(format!("refused {} {}", told.code, told.why));
    let action = Settle { id: told.task.clone(), state: Resolution::Rejected, value };
    let fulfill = Request::TaskFulfill { id: told.task.clone(), version: told.version, action };
    let held = Guard::Task { id: told.task.clone(), version: told.version };
    app.engine.submit(vec![fulfill], Vec::new(), Vec::new(), vec![held]).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, ask};
    use axum::body::Body;
    use axum::http::Request as Http;

    #[tokio::test]
    async fn a_reason_is_taken_up_to_its_limit() {
        let fixture = Fixture::new();
        let router = routes(fixture.app.clone());
        let code = "X1";
        // One that fits is looked at: there is no such task.
        for (bytes, status) in [(WHY_BYTES_MAX, 404), (WHY_BYTES_MAX + 1, 413)] {
            let why = "w".repeat(bytes - code.len());
            let told =
                GivenBack { task: "inc/abc:commit.1".into(), version: 1, code: code.into(), why, is_final: true };
            let body = Body::from(serde_json::to_vec(&told).unwrap());
            let request = Http::post("/given-back").header("content-type", "application/json").body(body).unwrap();
            assert_eq!(ask(&router, request).await.0.as_u16(), status, "{bytes}");
        }
    }
}
