//! A backup over HTTP: a running server copies its store and sends the copy.

use super::{BackupError, Held, Part, blocked, verify};
use crate::app::App;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::Sqlite;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The copy's name in the data directory, until it is open; a server that died left it, and the next copy replaces it.
const COPY_FILE: &str = "backup.copy";
/// Bytes sent at once.
const CHUNK_BYTES: usize = 256 << 10;
/// How long a server may be silent while it copies, or while it sends.
const SILENT_FOR: Duration = Duration::from_secs(300);

/// Why no backup came from a server.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server did not answer, or broke off.
    #[error("{url} did not send a backup: {why}")]
    Server {
        /// The server.
        url: String,
        /// What it said, or what happened.
        why: String,
    },
    /// What came cannot be kept, or is not to be relied on.
    #[error(transparent)]
    Backup(#[from] BackupError),
}

/// `GET /backup`
pub(crate) fn routes(app: App) -> Router {
    // LIMIT: one at a time; each needs as much disk as the store.
    let turn = Arc::new(Semaphore::new(1));
    Router::new().route("/backup", get(send)).with_state((app, turn))
}

async fn send(State((app, turn)): State<(App, Arc<Semaphore>)>) -> Response {
    let Ok(permit) = turn.try_acquire_owned() else {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "another backup is being sent");
    };
    let data = app.data.clone();
    let copied = app.env.compute(move || copy(&data)).await;
    match copied {
        Ok(Ok((file, bytes))) => {
            let frames = stream::unfold((tokio::fs::File::from_std(file), permit), next_chunk);
            let headers = [
                (header::CONTENT_TYPE, "application/vnd.sqlite3".to_owned()),
                (header::CONTENT_LENGTH, bytes.to_string()),
            ];
            (headers, Body::from_stream(frames)).into_response()
        }
        Ok(Err(error)) => refused(StatusCode::SERVICE_UNAVAILABLE, &base::causes(&error)),
        Err(stopped) => refused(StatusCode::INTERNAL_SERVER_ERROR, &stopped.to_string()),
    }
}

fn refused(status: StatusCode, why: &str) -> Response {
    (status, axum::Json(serde_json::json!({ "error": why }))).into_response()
}

/// A copy that is open and has no name any more: however this process ends, nothing of it is left.
fn copy(data: &Path) -> Result<(std::fs::File, u64), BackupError> {
    let path = data.join(COPY_FILE);
    let _ = std::fs::remove_file(&path);
    let copied = Sqlite::copy(data, &path, &[]);
    let opened = std::fs::File::open(&path);
    let _ = std::fs::remove_file(&path);
    copied?;
    let opened = opened.and_then(|file| Ok((file.metadata()?.len(), file)));
    let (bytes, file) = opened.map_err(|source| blocked(&path, source))?;
    Ok((file, bytes))
}

type Sending = (tokio::fs::File, OwnedSemaphorePermit);

async fn next_chunk((mut file, permit): Sending) -> Option<(std::io::Result<Bytes>, Sending)> {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    match file.read_buf(&mut chunk).await {
        Ok(0) => None,
        Ok(_) => Some((Ok(Bytes::from(chunk)), (file, permit))),
        Err(error) => Some((Err(error), (file, permit))),
    }
}

/// Fetches a backup from a running server into a new file; examines it, and only then gives it its name. Keys never
/// travel this way.
///
/// # Errors
/// As [`FetchError`] says; there is no file of that name then.
pub async fn fetch(url: &str, to: &Path) -> Result<Held, FetchError> {
    let part = Part::begin(to)?;
    let broken = |why: String| FetchError::Server { url: url.to_owned(), why };
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(Duration::from_secs(5)));
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let address = format!("{}/backup", url.trim_end_matches('/'));
    let address = address.parse().map_err(|_| broken("not an address of the form http://host:port".to_owned()))?;
    let answer = tokio::time::timeout(SILENT_FOR, client.get(address)).await;
    let answer = answer.map_err(|_| broken("it is silent".to_owned()))?;
    let answer = answer.map_err(|error| broken(base::causes(&error)))?;
    if !answer.status().is_success() {
        let status = answer.status();
        let said = answer.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        return Err(broken(format!("{status} {}", String::from_utf8_lossy(&said))));
    }
    let file = tokio::fs::OpenOptions::new().write(true).open(&part.path).await;
    let mut file = file.map_err(|source| blocked(&part.path, source))?;
    let mut body = answer.into_body();
    // The length in the head makes a body that breaks off an error.
    while let Some(frame) =
        tokio::time::timeout(SILENT_FOR, body.frame()).await.map_err(|_| broken("it fell silent".to_owned()))?
    {
        let frame = frame.map_err(|error| broken(base::causes(&error)))?;
        if let Some(bytes) = frame.data_ref() {
            file.write_all(bytes).await.map_err(|source| blocked(&part.path, source))?;
        }
    }
    file.flush().await.map_err(|source| blocked(&part.path, source))?;
    drop(file);
    let checked = tokio::task::spawn_blocking(move || {
        let held = verify(&part.path)?;
        part.finish()?;
        Ok::<_, BackupError>(held)
    });
    Ok(checked.await.map_err(|error| broken(error.to_string()))??)
}
