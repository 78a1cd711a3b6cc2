//! The supervisor: starts the traffic proxy, the services and their companions of a topology file, watches
//! them, and ends or replaces them when asked on its socket. It restarts nothing by itself.
//!
//! It holds the write end of the *lifeline* pipe, whose read end every process it starts has as standard
//! input: when it ends, also by SIGKILL, they see the end of the pipe and end too.

mod children;
mod operate;
mod probe;
mod shared;
mod socket;

use crate::control;
use crate::topology::{self, LoadError};
pub use children::end_left_over;
use shared::Shared;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// What whoever holds a supervisor's lifeline writes to let it go.
pub const STAY: &[u8] = b"stay\n";

/// How a supervisor is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The topology file.
    pub topology_file: PathBuf,
    /// The data directory; one supervisor each.
    pub dir: PathBuf,
    /// What `{self}` stands for.
    pub exe: PathBuf,
    /// Argument list of the proxy; `{self}` and `{data}` may stand in it.
    pub proxy_command: Vec<String>,
    /// Whether to end when standard input ends, unless [`STAY`] was written to it before.
    pub parent_lifeline: bool,
}

/// Why a supervisor did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The topology file cannot be used.
    #[error(transparent)]
    Topology(#[from] LoadError),
    /// A file, socket, pipe or process could not be made.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Another supervisor answers in this data directory.
    #[error("a supervisor already runs in {}", .0.display())]
    AlreadyRunning(PathBuf),
    /// An argument list cannot be filled.
    #[error("{name}: nothing to put in place of `{{{placeholder}}}`")]
    Placeholder {
        /// The service or companion.
        name: String,
        /// The placeholder.
        placeholder: String,
    },
    /// An address in the topology file that is none.
    #[error("service.{service}.listen: `{address}` is not an address with room for every replica's port")]
    Address {
        /// The service.
        service: String,
        /// The address.
        address: String,
    },
    /// The proxy ended or did not become ready.
    #[error("the traffic proxy did not become ready; see {}", .0.display())]
    Proxy(PathBuf),
}

/// Runs until it is told to end: by [`control::Request::Shutdown`], SIGTERM, SIGINT, or the end of standard
/// input. Everything it started has ended when it returns.
///
/// # Errors
/// As [`Error`] says.
pub async fn run(options: Options) -> Result<(), Error> {
    let topology = topology::load(&options.topology_file)?;
    for sub in ["", "logs", "ledger", "config"] {
        let dir = options.dir.join(sub);
        std::fs::create_dir_all(&dir).map_err(|source| io(&format!("create {}", dir.display()), source))?;
    }
    let listener = socket::listen(&options.dir).await?;
    children::end_left_over(&options.dir);
    let mut end = Ends::new(options.parent_lifeline)?;
    let (lifeline, lifeline_held) = std::io::pipe().map_err(|source| io("create the lifeline pipe", source))?;
    let shared = Shared::new(options, topology, lifeline);
    let outcome = tokio::select! {
        () = end.any() => Ok(()),
        () = shared.stopped() => Ok(()),
        outcome = work(&shared, listener) => outcome,
    };
    children::end_all(&shared, lifeline_held).await;
    for file in [control::SUPERVISOR_SOCKET, control::PROXY_FILE, control::INSTANCES_FILE] {
        remove(&shared.options.dir.join(file));
    }
    outcome
}

async fn work(shared: &Arc<Shared>, listener: tokio::net::UnixListener) -> Result<(), Error> {
    children::start_proxy(shared).await?;
    let publisher = Arc::clone(shared);
    tokio::spawn(async move { publisher.publish_changes().await });
    let server = tokio::spawn(socket::serve(Arc::clone(shared), listener));
    children::start_all(shared).await?;
    // The socket is served until the process is told to end.
    server.await.map_err(|error| io("serve the socket", std::io::Error::other(error)))
}

/// Everything that ends a supervisor from outside.
struct Ends {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
    stdin: Option<oneshot::Receiver<()>>,
}

impl Ends {
    fn new(parent_lifeline: bool) -> Result<Ends, Error> {
        let handler = |kind| signal(kind).map_err(|source| io("install a signal handler", source));
        let stdin = parent_lifeline.then(|| {
            let (sender, receiver) = oneshot::channel();
            // WHY: a thread of its own; a read on the runtime's pool would keep the runtime from ending.
            std::thread::spawn(move || {
                let mut said = Vec::new();
                let read = std::io::stdin().take(STAY.len() as u64 + 1).read_to_end(&mut said);
                if read.is_err() || said != STAY {
                    let _ = sender.send(());
                }
            });
            receiver
        });
        Ok(Ends { term: handler(SignalKind::terminate())?, int: handler(SignalKind::interrupt())?, stdin })
    }

    async fn any(&mut self) {
        let stdin = async {
            let ended = match self.stdin.as_mut() {
                Some(ended) => ended.await.is_ok(),
                None => false,
            };
            if !ended {
                std::future::pending().await
            }
        };
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
            () = stdin => {}
        }
    }
}

fn io(what: &str, source: std::io::Error) -> Error {
    Error::Io { what: what.to_owned(), source }
}

fn remove(file: &Path) {
    if let Err(error) = std::fs::remove_file(file)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(file = %file.display(), %error, "cannot remove a file");
    }
}
