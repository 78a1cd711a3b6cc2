//! Incidents over HTTP: open one, follow it, fetch its evidence.

use super::{Brief, KEY_BYTES_MAX, OpenError, open};
use crate::app::App;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

/// `POST /incidents`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    target: String,
    #[serde(default)]
    preview: bool,
    #[serde(default)]
    lying_observer: Option<String>,
    /// Names this asking: the same one again, with the same key, answers the same incident.
    #[serde(default)]
    key: Option<String>,
}

#[derive(Debug, Serialize)]
struct Opened {
    incident: String,
}

#[derive(Debug, Deserialize)]
struct Services {
    services: String,
}

/// How sure the graph is about some services.
#[derive(Debug, Serialize)]
struct Sure {
    level: &'static str,
    miss_ppm: u32,
    coverage_ppm: u32,
    trials: u64,
    reasons: Vec<String>,
}

/// `/incidents…` and `/topology/permission`.
pub fn routes(app: App) -> Router {
    Router::new()
        .route("/incidents", post(ask).get(list))
        .route("/incidents/{id}", get(show))
        .route("/incidents/{id}/bundle", get(bundle))
        .route("/topology/permission", get(permission))
        .with_state(app)
}

async fn ask(State(app): State<App>, Json(ask): Json<Ask>) -> Response {
    if let Some(liar) = &ask.lying_observer
        && !app.topology.observer.contains_key(liar)
    {
        let names: Vec<&str> = app.topology.observer.keys().map(String::as_str).collect();
        let text = format!("no observer `{liar}`; there are: {}", names.join(", "));
        return (StatusCode::NOT_FOUND, text).into_response();
    }
    let is_usable = |key: &String| (1..=KEY_BYTES_MAX).contains(&key.len());
    if !ask.key.as_ref().is_none_or(is_usable) {
        return (StatusCode::BAD_REQUEST, format!("a key has 1 to {KEY_BYTES_MAX} bytes")).into_response();
    }
    let brief = Brief {
        target: ask.target,
        preview: ask.preview,
        lying_observer: ask.lying_observer,
        asked_at_ms: app.env.now().0,
    };
    match open(&app, brief, ask.key.as_deref()).await {
        Ok(incident) => (StatusCode::CREATED, Json(Opened { incident })).into_response(),
        Err(error @ OpenError::Unknown { .. }) => (StatusCode::NOT_FOUND, error.to_string()).into_response(),
        Err(error @ (OpenError::Store(_) | OpenError::Unsure { .. })) => {
            (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response()
        }
    }
}

async fn list(State(app): State<App>) -> Response {
    Json(super::ids(&app)).into_response()
}

async fn show(State(app): State<App>, Path(id): Path<String>) -> Response {
    match super::seen(&app, &id) {
        Some(view) => Json(view).into_response(),
        None => (StatusCode::NOT_FOUND, format!("no incident `{id}` here")).into_response(),
    }
}

async fn bundle(State(app): State<App>, Path(id): Path<String>) -> Response {
    match crate::evidence::bundle(&app, &id).await {
        Ok(bytes) => ([(header::CONTENT_TYPE, "application/x-tar")], bytes).into_response(),
        Err(error) => (StatusCode::NOT_FOUND, error.to_string()).into_response(),
    }
}

async fn permission(State(app): State<App>, Query(query): Query<Services>) -> Response {
    let names: Vec<&str> = query.services.split(',').filter(|name| !name.is_empty()).collect();
    let permission = app.telemetry.snapshot().permission(&names, app.env.now());
    Json(Sure {
        level: permission.level.word(),
        miss_ppm: permission.miss_ppm,
        coverage_ppm: permission.coverage_ppm,
        trials: permission.trials,
        reasons: permission.reasons.iter().map(ToString::to_string).collect(),
    })
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;
    use axum::body::to_bytes;

    async fn asked(app: &App, target: &str, key: Option<String>) -> (u16, String) {
        let ask_for = Ask { target: target.to_owned(), preview: false, lying_observer: None, key };
        let answer = ask(State(app.clone()), Json(ask_for)).await;
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn an_asking_that_is_repeated_with_its_key_opens_one_incident() {
        let fixture = Fixture::new();
        let app = &fixture.app;
        let first = asked(app, "checkout", Some("k".to_owned())).await;
        app.env.advance(base::Millis(5_000));
        assert_eq!(first.0, 201);
        assert_eq!(asked(app, "checkout", Some("k".to_owned())).await, first);
        let others = [("checkout", Some("l")), ("payments", Some("k")), ("checkout", None), ("checkout", None)];
        let mut all = vec![first];
        for (target, key) in others {
            all.push(asked(app, target, key.map(str::to_owned)).await);
        }
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!((distinct.len(), super::super::ids(app).len()), (5, 5), "{all:?}");
    }

    #[tokio::test]
    async fn a_key_that_is_empty_or_too_long_is_refused() {
        let fixture = Fixture::new();
        for (bytes, status) in [(0, 400), (1, 201), (KEY_BYTES_MAX, 201), (KEY_BYTES_MAX + 1, 400)] {
            assert_eq!(asked(&fixture.app, "checkout", Some("k".repeat(bytes))).await.0, status, "{bytes}");
        }
        assert_eq!(super::super::ids(&fixture.app).len(), 2);
    }
}
