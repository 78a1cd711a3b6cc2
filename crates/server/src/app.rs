//! What one server is made of; shared by every route and every incident.

use crate::agents::Way;
use crate::config::Settings;
use crate::engine::{Engine, Env};
use crate::incidents::Registry;
use crate::keys::Keys;
use crate::limits::Traffic;
use crate::misses::Misses;
use crate::platform::Platform;
use crate::telemetry::Telemetry;
use governance::policy::Policy;
use recovery::topology::Topology;
use std::path::PathBuf;
use std::sync::Arc;

/// One server.
#[derive(Clone)]
pub struct App {
    /// Time and randomness.
    pub env: Env,
    /// Promises, tasks, evidence.
    pub engine: Engine,
    /// The keys this process holds.
    pub keys: Arc<Keys>,
    /// The active policy.
    pub policy: Arc<Policy>,
    /// Its text as written.
    pub policy_text: Arc<str>,
    /// What is declared.
    pub topology: Arc<Topology>,
    /// Telemetry intake and graph.
    pub telemetry: Telemetry,
    /// What is recovered; absent = nothing is supervised, so nothing can be acted on.
    pub platform: Option<Platform>,
    /// Configuration.
    pub settings: Arc<Settings>,
    /// The way to agents that are asked over HTTP.
    pub way: Arc<dyn Way>,
    /// The incidents this process runs or ran.
    pub incidents: Registry,
    /// Dependencies that answers had missed.
    pub misses: Misses,
    /// What goes through the listener.
    pub traffic: Traffic,
    /// The data directory.
    pub data: PathBuf,
}
