//! `stanch serve`: everything of one server, wired together.

use crate::app::App;
use crate::config::{self, Flags, PushSettings, Settings};
use crate::engine::{self, Engine, Env};
use crate::incidents::{self, Registry};
use crate::keys::{self, InitError};
use crate::limits::Traffic;
use crate::misses::Misses;
use crate::platform::Platform;
use crate::telemetry::Telemetry;
use crate::{
    agents, backup, evidence, groups, holds, inspect, listen, metrics, misses, outbox, promises, remediation, telemetry,
};
use axum::Router;
use base::Millis;
use governance::policy::{Policy, Windows};
use recovery::topology::Topology;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Name of the file in the data directory that says where the server listens.
pub const SERVER_FILE: &str = "server.json";
/// Name of the file in the data directory with the executor's process number.
pub const EXECUTOR_FILE: &str = "executor.pid";
/// How long the last writes, for which nobody waits any more, may take when the server ends.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);
/// The pause before another executor is started.
const EXECUTOR_AGAIN: Duration = Duration::from_millis(50);

/// Where a server listens; also the first JSON line of `stanch serve --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// `http://host:port`
    pub url: String,
    /// Its port.
    pub port: u16,
    /// Its process number.
    pub pid: u32,
    /// Its data directory.
    pub data: String,
    /// Name of the active policy.
    pub policy: String,
    /// Where spans are taken over gRPC, as `host:port`; absent = nowhere.
    #[serde(default)]
    pub otlp_grpc: Option<String>,
    /// Where spans are taken over HTTP beside `url`, as `http://host:port`; absent = at `url` only.
    #[serde(default)]
    pub otlp_http: Option<String>,
}

/// Why a server does not start or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Configuration.
    #[error(transparent)]
    Config(#[from] ::config::ConfigError),
    /// Keys or policy.
    #[error(transparent)]
    Init(#[from] InitError),
    /// The topology file.
    #[error(transparent)]
    Topology(#[from] actuators::topology::LoadError),
    /// The store.
    #[error(transparent)]
    Engine(#[from] engine::OpenError),
    /// The file of further authorities.
    #[error(transparent)]
    Roots(#[from] engine::RootsError),
    /// Declarations.
    #[error(transparent)]
    Declare(#[from] telemetry::DeclareError),
    /// The policy could not be recorded.
    #[error(transparent)]
    Evidence(#[from] evidence::EvidenceError),
    /// The address cannot be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The address is one that others can reach.
    #[error(
        "{address} can be reached from other machines, and whoever reaches it may do everything: there is no \
         authentication yet; --insecure (or insecure = true under [server]) binds it all the same"
    )]
    Public {
        /// The address.
        address: String,
    },
    /// Serving failed.
    #[error("serving failed: {0}")]
    Serve(#[source] std::io::Error),
}

/// Serves until `stop` is cancelled. `on_ready` is called once requests are answered.
///
/// # Errors
/// As [`ServeError`] says; nothing is left half made.
pub async fn serve(
    data: &Path,
    flags: &Flags,
    stop: CancellationToken,
    on_ready: impl FnOnce(&Ready),
) -> Result<(), ServeError> {
    let settings = check_files(data, flags)?;
    let address = format!("{}:{}", settings.server.bind, settings.server.port);
    let listen = |source| ServeError::Listen { address: address.clone(), source };
    let addresses = resolve(&settings).await.map_err(listen)?;
    check_reach(&addresses, &settings)?;
    keys::init(data)?;
    let app = open(data, settings, Env::real())?;
    let listener = TcpListener::bind(addresses.as_slice()).await.map_err(listen)?;
    let local = listener.local_addr().map_err(listen)?;
    let ports = telemetry::Ports::bind(&app.settings).await?;
    let ready = Ready { otlp_grpc: ports.grpc(), otlp_http: ports.http(), ..ready(&app, local, data) };
    evidence::record_policy(&app).await?;
    let router = router(&app, &ready.url);
    // What works by itself goes on until the last request is answered: answers may wait for it.
    let ended = CancellationToken::new();
    let background = start_background(&app, &ready, ended.clone());
    write_ready(data, &ready).map_err(ServeError::Serve)?;
    on_ready(&ready);
    let spans = ports.serve(app.telemetry.clone(), app.env.clone(), app.settings.server.clone(), stop.clone());
    tokio::join!(listen::serve(listener, router, app.traffic.clone(), stop), spans);
    if tokio::time::timeout(FLUSH_WITHIN, app.engine.flush()).await.is_err() {
        tracing::warn!("what nobody was answered yet could not be written in time");
    }
    ended.cancel();
    background.await;
    let _ = std::fs::remove_file(data.join(SERVER_FILE));
    Ok(())
}

/// The addresses that the setting names.
async fn resolve(settings: &Settings) -> std::io::Result<Vec<SocketAddr>> {
    let (host, port) = (settings.server.bind.as_str(), settings.server.port);
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    if found.is_empty() { Err(std::io::ErrorKind::AddrNotAvailable.into()) } else { Ok(found) }
}

/// Refuses an address that others can reach, unless somebody took that upon them.
pub(crate) fn check_reach(addresses: &[SocketAddr], settings: &Settings) -> Result<(), ServeError> {
    let reachable = addresses.iter().find(|address| !address.ip().to_canonical().is_loopback());
    match reachable {
        Some(address) if !settings.server.insecure => Err(ServeError::Public { address: address.ip().to_string() }),
        Some(_) | None => Ok(()),
    }
}

/// Reads everything that people wrote, before anything is made or changed.
fn check_files(data: &Path, flags: &Flags) -> Result<Settings, ServeError> {
    let (settings, _) = config::load(data, flags)?;
    let policy = policy_path(data, &settings);
    // Without one, and without being told of one, a first policy is about to be written.
    if policy.exists() || !settings.platform.policy.is_empty() {
        keys::load_policy(&policy)?;
    }
    if !settings.platform.topology.is_empty() {
        actuators::topology::load(Path::new(&settings.platform.topology))?;
    }
    if !settings.push.ca_file.is_empty() {
        engine::roots(Path::new(&settings.push.ca_file))?;
    }
    Ok(settings)
}

/// Everything one server is made of, over an initialized data directory.
pub(crate) fn open(data: &Path, settings: Settings, env: Env) -> Result<App, ServeError> {
    let directory = data.to_owned();
    let open: Open = Box::new(move |config, env| Engine::open(&directory, config, env));
    let platform = match settings.platform.directory.as_str() {
        "" => None,
        directory => Some(PathBuf::from(directory)),
    };
    let platform: Option<See> =
        platform.map(|directory| -> See { Box::new(move |topology| Platform::new(&directory, topology)) });
    assemble(data, settings, env, Outside { open, platform, way: Arc::new(agents::Http) })
}

/// Opens the engine.
pub type Open = Box<dyn FnOnce(engine::Config, Env) -> Result<Engine, engine::OpenError> + Send>;
/// Looks at the platform of a topology.
pub type See = Box<dyn FnOnce(Arc<Topology>) -> Platform + Send>;

/// What lies outside a server's process and differs between a machine and a simulator.
pub struct Outside {
    /// The store.
    pub open: Open,
    /// What is recovered; absent = nothing is supervised.
    pub platform: Option<See>,
    /// The way to agents.
    pub way: Arc<dyn agents::Way>,
}

/// A server over an initialized data directory and what lies outside it.
///
/// # Errors
/// As [`ServeError`] says.
pub fn assemble(data: &Path, settings: Settings, env: Env, outside: Outside) -> Result<App, ServeError> {
    let keys = Arc::new(keys::load(data)?);
    let (policy, policy_text) = keys::load_policy(&policy_path(data, &settings))?;
    let topology = match settings.platform.topology.as_str() {
        "" => Topology::default(),
        file => actuators::topology::load(Path::new(file))?,
    };
    let topology = Arc::new(topology);
    let windows = windows(&policy, &topology);
    let config = engine_config(&settings, windows.lease.reconnect_grace);
    let engine = (outside.open)(config, env.clone())?;
    let telemetry = Telemetry::new(env.clone(), &graph_config(&windows), &topology)?;
    let misses = Misses::load(&engine);
    misses.facts().iter().for_each(|fact| telemetry.record(fact));
    let platform = outside.platform.map(|see| see(topology.clone()));
    let traffic = Traffic::new(env.clone(), settings.server.clone());
    Ok(App {
        env,
        engine,
        traffic,
        keys,
        policy: Arc::new(policy),
        policy_text: policy_text.into(),
        topology,
        telemetry,
        platform,
        way: outside.way,
        settings: Arc::new(settings),
        incidents: Registry::default(),
        misses,
        data: data.to_owned(),
    })
}

/// What the engine is told. The grace is the shorter of the policy's and the settings'.
fn engine_config(settings: &Settings, policy_grace: Millis) -> engine::Config {
    let PushSettings { enabled, connect_timeout_ms, request_timeout_ms, ca_file } = &settings.push;
    let push = engine::PushConfig {
        enabled: *enabled,
        connect_timeout: Millis(*connect_timeout_ms),
        request_timeout: Millis(*request_timeout_ms),
        ca_file: (!ca_file.is_empty()).then(|| PathBuf::from(ca_file)),
    };
    let grace = policy_grace.min(Millis(settings.tasks.reconnect_grace_ms));
    engine::Config {
        reconnect_grace: engine::Grace(grace),
        protocol: settings.protocol.config(),
        debug: settings.protocol.debug,
        settled_in_memory: engine::Keep(settings.storage.settled_in_memory),
        retention: settings.storage.retention(),
        push,
    }
}

fn policy_path(data: &Path, settings: &Settings) -> PathBuf {
    match settings.platform.policy.as_str() {
        "" => data.join("policy.toml"),
        file => PathBuf::from(file),
    }
}

/// The windows of the tier that the declared services are in: intake and graph are one for all of them.
fn windows(policy: &Policy, topology: &Topology) -> Windows {
    let tier = policy.tier_of_all(topology.service.keys().map(String::as_str));
    tier.and_then(|name| policy.tiers.get(name)).map_or_else(|| policy.windows.clone(), |tier| tier.windows.clone())
}

fn graph_config(windows: &Windows) -> recovery::graph::Config {
    recovery::graph::Config {
        baseline: windows.baseline,
        impaired_for: windows.impaired_for,
        fresh_after: windows.graph.fresh_after,
        miss_max: windows.graph.miss_max,
        snapshot_age_max: windows.graph.snapshot_age_max,
        coverage_window: windows.graph.coverage,
        metastable_for: windows.graph.metastable_for,
        edge_ttl: windows.graph.edge_ttl,
        half_life: windows.graph.half_life,
        join: windows.graph.join,
        ..recovery::graph::Config::default()
    }
}

/// All routes of a server that listens at `url`.
pub fn router(app: &App, url: &str) -> Router {
    promises::routes(app.engine.clone(), url)
        .merge(telemetry::routes(app.telemetry.clone()))
        .merge(incidents::routes(app.clone()))
        .merge(remediation::routes(app.clone()))
        .merge(groups::routes(app.clone()))
        .merge(holds::routes(app.clone()))
        .merge(misses::routes(app.clone()))
        .merge(metrics::routes(app))
        .merge(backup::routes(app.clone()))
        .merge(outbox::routes(app.engine.clone()))
        .merge(inspect::routes(app.engine.clone()))
}

fn ready(app: &App, local: SocketAddr, data: &Path) -> Ready {
    Ready {
        url: format!("http://{local}"),
        port: local.port(),
        pid: std::process::id(),
        data: data.display().to_string(),
        policy: app.policy.name.clone(),
        otlp_grpc: None,
        otlp_http: None,
    }
}

fn write_ready(data: &Path, ready: &Ready) -> std::io::Result<()> {
    let text = serde_json::to_string(ready).map_err(std::io::Error::other)?;
    let fresh = data.join(format!("{SERVER_FILE}.new"));
    std::fs::write(&fresh, text)?;
    std::fs::rename(fresh, data.join(SERVER_FILE))
}

/// Starts what works by itself: orchestrator and agents. It ends with the process's tasks.
pub fn start(app: &App) -> [tokio::task::JoinHandle<()>; 2] {
    let env = &app.env;
    [env.spawn(incidents::orchestrate(app.clone())), env.spawn(agents::work(app.clone()))]
}

/// Orchestrator, agents and the executor's keeper; the future ends when they have.
fn start_background(app: &App, ready: &Ready, stop: CancellationToken) -> impl Future<Output = ()> + use<> {
    let working = start(app);
    let watching = app.env.spawn(crate::platform::watch(app.clone()));
    let keeper = (app.settings.executor.start && app.platform.is_some())
        .then(|| tokio::spawn(keep_executor(app.clone(), ready.url.clone(), stop.clone())));
    let env = app.env.clone();
    async move {
        stop.cancelled().await;
        env.end();
        // A task that panicked has nothing left to wait for.
        for task in working.into_iter().chain([watching]).chain(keeper) {
            let _ = task.await;
        }
    }
}

/// Keeps one executor running, and starts another whenever it ends.
async fn keep_executor(app: App, url: String, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match spawn_executor(&app, &url) {
            Ok(mut child) => {
                // Waiting would close it, and its closing is the executor's end.
                let lifeline = child.stdin.take();
                let pid = child.id().unwrap_or_default();
                let _ = std::fs::write(app.data.join(EXECUTOR_FILE), pid.to_string());
                tokio::select! {
                    ended = child.wait() => tracing::warn!(pid, ?ended, "the executor ended; another one is started"),
                    () = stop.cancelled() => {
                        // It ends with its lifeline; what does not is killed when the handle is dropped.
                        drop(lifeline);
                        let _ = tokio::time::timeout(Duration::from_secs(1), child.wait()).await;
                    }
                }
            }
            Err(error) => tracing::error!(%error, "no executor could be started"),
        }
        tokio::time::sleep(EXECUTOR_AGAIN).await;
    }
    let _ = std::fs::remove_file(app.data.join(EXECUTOR_FILE));
}

#[expect(clippy::disallowed_methods, reason = "the server starts its executor, which is this same program")]
fn spawn_executor(app: &App, url: &str) -> std::io::Result<tokio::process::Child> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args(["executor", "--lifeline", "--server", url, "--data"]).arg(&app.data);
    command.arg("--platform").arg(&app.settings.platform.directory);
    command.arg("--topology").arg(&app.settings.platform.topology);
    let lease = windows(&app.policy, &app.topology).lease.step;
    command.args(["--lease-ms", &lease.0.to_string()]);
    let log = &app.settings.log;
    command.args(["--log", &log.level, "--log-format", log.format.name()]);
    tokio::process::Command::from(command).stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true).spawn()
}

#[cfg(test)]
mod tests;
