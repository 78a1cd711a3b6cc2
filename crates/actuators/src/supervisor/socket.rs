//! The supervisor's socket: one JSON request and one JSON answer per line.

use super::shared::Shared;
use super::{Error, io, operate};
use crate::control::{self, Answer, Request};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
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
        let (answer, ends) = match next_line(&mut read).await {
            Ok(Some(line)) => (answer(&shared, &line).await, false),
            Ok(None) => return,
            // Where the next request would begin is not known.
            Err(why) => (Answer::Refused(format!("not a request: {why}")), true),
        };
        let mut text = serde_json::to_vec(&answer).unwrap_or_default();
        text.push(b'\n');
        if write.write_all(&text).await.is_err() || ends {
            return;
        }
    }
}

/// What is no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum NoLine {
    #[error("longer than {REQUEST_BYTES_MAX} bytes")]
    TooLong,
    #[error("not text")]
    NotText,
}

/// The next line; `None` at the end.
async fn next_line(read: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<String>, NoLine> {
    let mut line = Vec::new();
    let length = read.take(REQUEST_BYTES_MAX + 1).read_until(b'\n', &mut line).await;
    match length {
        Ok(0) | Err(_) => Ok(None),
        Ok(length) if length as u64 > REQUEST_BYTES_MAX => Err(NoLine::TooLong),
        Ok(_) => String::from_utf8(line).map(Some).map_err(|_| NoLine::NotText),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_one_line_up_to_its_limit() {
        let length = usize::try_from(REQUEST_BYTES_MAX).unwrap();
        let line = |bytes: usize| [vec![b'x'; bytes - 1], b"\n".to_vec()].concat();
        let mut fits = [line(length), line(3)].concat();
        fits.extend(b"cut");
        let mut read = fits.as_slice();
        assert_eq!(next_line(&mut read).await.unwrap().map(|line| line.len()), Some(length));
        assert_eq!(next_line(&mut read).await, Ok(Some("xx\n".into())));
        assert_eq!(next_line(&mut read).await, Ok(Some("cut".into())));
        assert_eq!(next_line(&mut read).await, Ok(None));
        for (bad, why) in [
            (line(length + 1), NoLine::TooLong),
            (vec![b'x'; 10 * length], NoLine::TooLong),
            (b"\xff\n".to_vec(), NoLine::NotText),
        ] {
            assert_eq!(next_line(&mut bad.as_slice()).await, Err(why));
        }
    }
}
