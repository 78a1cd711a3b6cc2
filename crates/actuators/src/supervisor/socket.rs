//! The supervisor's socket: one JSON request and one JSON answer per line.

use super::shared::Shared;
use super::{Error, io, operate};
use crate::control::{self, Answer, Request};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// LIMIT: bytes of one request.
const REQUEST_BYTES_MAX: u64 = 64 << 10;

/// Takes the socket, unless a living supervisor has it.
pub(super) async fn listen(dir: &Path) -> Result<UnixListener, Error> {
    let path = dir.join(control::SUPERVISOR_SOCKET);
    if UnixStream::connect(&path).await.is_ok() {
        return Err(Error::AlreadyRunning(dir.to_owned()));
    }
    super::remove(&path);
    let fail = |source| io(&format!("listen on {}", path.display()), source);
    let listener = UnixListener::bind(&path).map_err(fail)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
    Ok(listener)
}

pub(super) async fn serve(shared: Arc<Shared>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(Arc::clone(&shared), stream));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(shared: Arc<Shared>, stream: UnixStream) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = String::new();
        match (&mut read).take(REQUEST_BYTES_MAX).read_line(&mut line).await {
            Ok(length) if length > 0 => {}
            _ => return,
        }
        let answer = answer(&shared, &line).await;
        let mut text = serde_json::to_vec(&answer).unwrap_or_default();
        text.push(b'\n');
        if write.write_all(&text).await.is_err() {
            return;
        }
    }
}

async fn answer(shared: &Arc<Shared>, line: &str) -> Answer {
    match serde_json::from_str::<Request>(line) {
        Err(error) => Answer::Refused(format!("not a request: {error}")),
        Ok(Request::Status) => Answer::Status(shared.status()),
        Ok(Request::Shutdown) => {
            shared.request_stop();
            Answer::Done
        }
        Ok(request) => {
            // A task of its own: once begun, an operation ends whether or not anybody still listens.
            let operation = tokio::spawn(operate::operate(Arc::clone(shared), request));
            operation.await.unwrap_or_else(|error| Answer::Failed(error.to_string()))
        }
    }
}
