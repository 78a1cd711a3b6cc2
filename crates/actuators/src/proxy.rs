//! The local traffic proxy: one process, one listening socket per edge.
//!
//! Every call between registered services passes here, so here traffic is weighted, limited, broken off and
//! counted. The proxy balances and obeys; it never judges: no health checks, no ejection, no retries. What it
//! is told survives its death, and what it was told for a while it undoes by itself, whoever else is dead.
//! The control interface is described in [`crate::control`]. Read first: [`Options`], [`run`].

mod api;
mod balance;
mod counters;
mod forward;
mod lifeline;
mod settings;
mod store;
#[cfg(test)]
mod tests;

use crate::control::{PROXY_FILE, ProxyFile};
use crate::topology;
use recovery::isa::EdgeName;
use recovery::topology::Topology;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Response header of an answer that the proxy made itself: `shed`, `open`, `refused`, `broken`, `no-target` or
/// `timeout`.
pub const PROXY_HEADER: &str = "x-stanch-proxy";
/// Response header of a request that was turned away on purpose: `1`. Nobody retries it.
pub const SHED_HEADER: &str = "x-stanch-shed";
/// Response header with the instance that answered, `service@n`.
pub const TARGET_HEADER: &str = "x-stanch-target";
/// Request header with the number of the attempt, from 1.
pub const ATTEMPT_HEADER: &str = "x-attempt";

/// What a proxy needs to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its files are: addresses, settings, audit, and the supervisor's registry.
    pub dir: PathBuf,
    /// Services and edges.
    pub topology: Topology,
    /// Whether standard input is a lifeline: at its end the proxy kills what the supervisor left, and ends.
    pub lifeline: bool,
}

/// Why a proxy could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file is not what the proxy wrote.
    #[error("{path} is damaged: {why}")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How.
        why: String,
    },
    /// No socket to listen on.
    #[error("cannot listen")]
    Listen(#[source] io::Error),
}

/// A proxy whose sockets are open and which serves until it is dropped.
#[derive(Debug)]
pub struct Running {
    addresses: ProxyFile,
    tasks: tokio::task::JoinSet<()>,
}

/// Runs a proxy until it is asked to end by SIGTERM or SIGINT, or its lifeline ends.
///
/// # Errors
/// A proxy that cannot start.
pub async fn run(options: Options) -> Result<(), Error> {
    let (dir, lifeline) = (options.dir.clone(), options.lifeline);
    let mut running = start(options).await?;
    tokio::select! {
        () = lifeline::ended(lifeline) => {
            let killed = lifeline::kill_what_is_left(&dir);
            tracing::warn!(killed, "the supervisor is gone");
        }
        () = lifeline::asked_to_end() => {}
    }
    running.tasks.shutdown().await;
    Ok(())
}

/// Opens the sockets, writes their addresses to `proxy.json` and serves.
///
/// # Errors
/// A proxy that cannot start.
pub async fn start(options: Options) -> Result<Running, Error> {
    start_within(options, forward::Limits::default()).await
}

async fn start_within(options: Options, limits: forward::Limits) -> Result<Running, Error> {
    let edges: Vec<EdgeName> = topology::edges(&options.topology).into_iter().collect();
    let store = store::Store::open(&options.dir)?;
    let before = store::addresses(&options.dir);
    let services = options.topology.service.keys().cloned().collect();
    let shared = Arc::new(forward::Shared::new(settings::Known { services, edges: edges.clone() }, limits));
    let control = Arc::new(api::Control::new(&options.topology, shared.clone(), store.clone(), store.load()?));
    let mut addresses = ProxyFile::default();
    let mut tasks = tokio::task::JoinSet::new();
    for edge in &edges {
        let name = edge.to_string();
        let listener = listen(before.edges.get(&name).map(String::as_str)).await?;
        addresses.edges.insert(name, listener.local_addr().map_err(Error::Listen)?.to_string());
        tasks.spawn(forward::serve(listener, edge.clone(), shared.clone()));
    }
    let listener = listen(Some(before.control.as_str())).await?;
    addresses.control = listener.local_addr().map_err(Error::Listen)?.to_string();
    tasks.spawn(api::serve(listener, control.clone()));
    tasks.spawn(api::keep_time(control));
    store::write_json(&options.dir.join(PROXY_FILE), &addresses)?;
    Ok(Running { addresses, tasks })
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &ProxyFile {
        &self.addresses
    }

    /// Closes every socket and connection.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// The address it had before, so that callers that were told it find it again; else one from the kernel.
async fn listen(before: Option<&str>) -> Result<TcpListener, Error> {
    if let Some(address) = before.filter(|address| !address.is_empty())
        && let Ok(listener) = TcpListener::bind(address).await
    {
        return Ok(listener);
    }
    TcpListener::bind("127.0.0.1:0").await.map_err(Error::Listen)
}
