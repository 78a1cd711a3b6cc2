//! Incidents over HTTP: open one, follow it, fetch its evidence.

use super::{Brief, OpenError, open};
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
    let brief = Brief {
        target: ask.target,
        preview: ask.preview,
        lying_observer: ask.lying_observer,
        asked_at_ms: app.env.now().0,
    };
    match open(&app, brief).await {
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
