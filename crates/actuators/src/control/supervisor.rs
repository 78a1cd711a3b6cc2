use super::{Answer, ControlError, Request, Status};
use recovery::call::Fence;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

const WHOM: &str = "the supervisor";
const TIMEOUT: Duration = Duration::from_secs(2);
/// What an operation may take beyond the grace it grants.
const OPERATION_ALLOWANCE: Duration = Duration::from_secs(5);

/// A client of the supervisor. It connects anew for every call, so it outlives supervisors.
#[derive(Clone, Debug)]
pub struct Supervisor {
    socket: PathBuf,
}

impl Supervisor {
    /// A client of the supervisor of this data directory, running or not.
    #[must_use]
    pub fn new(dir: &Path) -> Supervisor {
        Supervisor { socket: dir.join(super::SUPERVISOR_SOCKET) }
    }

    /// Everything it knows.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    pub async fn status(&self) -> Result<Status, ControlError> {
        match self.ask(&Request::Status, TIMEOUT).await? {
            Answer::Status(status) => Ok(status),
            other => Err(garbled(&other)),
        }
    }

    /// Takes the turn on a service; waits up to `wait` for a running operation.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    pub async fn begin(&self, service: &str, fence: Fence, wait: Duration) -> Result<u64, ControlError> {
        match self.ask(&Request::Begin { service: service.to_owned(), fence }, wait.max(TIMEOUT)).await? {
            Answer::Ticket(ticket) => Ok(ticket),
            other => Err(garbled(&other)),
        }
    }

    /// A [`Request::Replace`] or [`Request::Scale`].
    ///
    /// # Errors
    /// As [`ControlError`] says.
    pub async fn operate(&self, request: &Request) -> Result<(), ControlError> {
        let grace_ms = match request {
            Request::Replace { grace_ms, .. } | Request::Scale { grace_ms, .. } => *grace_ms,
            Request::Status | Request::Begin { .. } | Request::Shutdown => 0,
        };
        match self.ask(request, Duration::from_millis(grace_ms) + OPERATION_ALLOWANCE).await? {
            Answer::Done => Ok(()),
            other => Err(garbled(&other)),
        }
    }

    /// Asks it to end everything.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    pub async fn shutdown(&self) -> Result<(), ControlError> {
        self.operate(&Request::Shutdown).await
    }

    async fn ask(&self, request: &Request, timeout: Duration) -> Result<Answer, ControlError> {
        let answer = tokio::time::timeout(timeout, self.exchange(request));
        match answer.await.map_err(|_| ControlError::TimedOut(WHOM))?? {
            Answer::Fenced(seen) => Err(ControlError::Fenced { seen: seen.seen }),
            Answer::Superseded => Err(ControlError::Superseded),
            Answer::Drifted(seen) => Err(ControlError::Drifted { versions: seen.versions }),
            Answer::Refused(why) => Err(ControlError::Refused(why)),
            Answer::Failed(why) => Err(ControlError::Failed(why)),
            answer @ (Answer::Status(_) | Answer::Ticket(_) | Answer::Done) => Ok(answer),
        }
    }

    async fn exchange(&self, request: &Request) -> Result<Answer, ControlError> {
        let unavailable = |source| ControlError::Unavailable { whom: WHOM, source };
        let garbled = |error: serde_json::Error| ControlError::Garbled(error.to_string());
        let mut stream = UnixStream::connect(&self.socket).await.map_err(unavailable)?;
        let mut line = serde_json::to_vec(request).map_err(garbled)?;
        line.push(b'\n');
        stream.write_all(&line).await.map_err(unavailable)?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await.map_err(unavailable)?;
        serde_json::from_str(&answer).map_err(garbled)
    }
}

fn garbled(answer: &Answer) -> ControlError {
    ControlError::Garbled(format!("{answer:?}"))
}
