//! Holds over HTTP: see them, place one, lift one.

use super::{HoldError, Posted, post, state};
use crate::app::App;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};

/// `/holds`
pub fn routes(app: App) -> Router {
    Router::new().route("/holds", get(list).post(place)).with_state(app)
}

async fn list(State(app): State<App>) -> Response {
    Json(state(&app)).into_response()
}

async fn place(State(app): State<App>, Json(posted): Json<Posted>) -> Response {
    match post(&app, &posted.record).await {
        Ok(holds) => Json(holds).into_response(),
        Err(error) => (status(&error), error.to_string()).into_response(),
    }
}

fn status(error: &HoldError) -> StatusCode {
    match error {
        HoldError::Unknown { .. } => StatusCode::NOT_FOUND,
        HoldError::Refused(_) => StatusCode::FORBIDDEN,
        HoldError::Stale(_) => StatusCode::PRECONDITION_FAILED,
        HoldError::Already(_) | HoldError::NotHeld(_) => StatusCode::CONFLICT,
        HoldError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
