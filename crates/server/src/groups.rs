//! Recovery groups over HTTP: the live graph's answer.

use crate::app::App;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use recovery::groups::{Explanation, GroupPolicy, group};
use recovery::listing::Listing;

/// `/groups/{service}` and `/topology/graph`
pub(crate) fn routes(app: App) -> Router {
    Router::new().route("/groups/{service}", get(show)).route("/topology/graph", get(graph)).with_state(app)
}

/// The whole graph: every service with how sure the graph is of it, and every edge.
async fn graph(State(app): State<App>) -> Response {
    Json(Listing::of(&app.telemetry.snapshot(), app.env.now())).into_response()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, ask};
    use axum::body::Body;
    use axum::http::Request;

    #[tokio::test]
    async fn the_whole_graph_is_listed_with_what_is_declared() {
        let fixture = Fixture::new();
        let request = Request::get("/topology/graph").body(Body::empty()).unwrap();
        let (status, body) = ask(&routes(fixture.app.clone()), request).await;
        let listing: Listing = serde_json::from_slice(&body).unwrap();
        let names: Vec<&str> = listing.services.iter().map(|line| line.name.as_str()).collect();
        assert_eq!((status, names), (StatusCode::OK, vec!["checkout", "gateway", "payments"]));
        assert!(listing.edges.iter().all(|line| line.declared && line.calls == 0), "{listing:?}");
        assert_eq!(listing.edges.len(), 2);
        assert!(listing.services.iter().all(|line| line.permission == "refused"), "no spans have arrived");
    }
}
