//! Recovery groups over HTTP: the live graph's answer.

use crate::app::App;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use recovery::groups::{Explanation, GroupPolicy, group};

/// `/groups/{service}`
pub(crate) fn routes(app: App) -> Router {
    Router::new().route("/groups/{service}", get(show)).with_state(app)
}

async fn show(State(app): State<App>, Path(service): Path<String>) -> Response {
    let snapshot = app.telemetry.snapshot();
    if !snapshot.contains(&service) {
        let near = crate::incidents::nearest(&service, snapshot.services());
        let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        return (StatusCode::NOT_FOUND, format!("no service `{service}` in the graph{hint}")).into_response();
    }
    let policy = GroupPolicy::at(app.env.now());
    let targets = [service.as_str()];
    match group(&snapshot, &targets, &policy) {
        Ok(group) => Json(Explanation::of(&snapshot, &targets, &group, &policy)).into_response(),
        Err(error) => (StatusCode::CONFLICT, error.to_string()).into_response(),
    }
}
