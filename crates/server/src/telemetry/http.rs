//! OTLP/HTTP: `POST /v1/traces`, protobuf or JSON, gzip or not.

use super::intake::{Form, Refusal, partial_success};
use super::{BATCH_BYTES_MAX, Telemetry};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;

/// Seconds after which a batch may be sent again.
pub(super) const AGAIN_AFTER_S: u64 = 1;

/// `POST /v1/traces`
pub(crate) fn routes(telemetry: Telemetry) -> Router {
    Router::new().route("/v1/traces", post(export)).layer(DefaultBodyLimit::max(BATCH_BYTES_MAX)).with_state(telemetry)
}

async fn export(State(telemetry): State<Telemetry>, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let is_json = text(header::CONTENT_TYPE).starts_with("application/json");
    let form = if is_json { Form::Json } else { Form::Protobuf };
    let is_gzip = match text(header::CONTENT_ENCODING) {
        "" | "identity" => false,
        "gzip" => true,
        _ => return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response(),
    };
    match telemetry.take(body, form, is_gzip).await {
        Ok(refused) => answer(form, refused),
        Err(error) => refuse(&error),
    }
}

/// An export response; it says how many spans were refused.
fn answer(form: Form, refused: u64) -> Response {
    if form == Form::Protobuf {
        return ([(header::CONTENT_TYPE, "application/x-protobuf")], partial_success(refused)).into_response();
    }
    let body =
        if refused == 0 { "{}".to_owned() } else { format!(r#"{{"partialSuccess":{{"rejectedSpans":"{refused}"}}}}"#) };
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn refuse(error: &Refusal) -> Response {
    let text = error.to_string();
    match error {
        Refusal::Malformed(_) => (StatusCode::BAD_REQUEST, text).into_response(),
        Refusal::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, text).into_response(),
        Refusal::Busy => {
            let again = [(header::RETRY_AFTER, AGAIN_AFTER_S.to_string())];
            (StatusCode::SERVICE_UNAVAILABLE, again, text).into_response()
        }
    }
}
