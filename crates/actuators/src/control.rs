//! Clients of the supervisor and of the traffic proxy, and the wire types they share with them.
//!
//! **Proxy**: HTTP/1.1 on the address in `<dir>/proxy.json` ([`ProxyFile`]).
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /state` | – | [`ProxyState`] |
//! | `PUT /settings` | [`Change`] | 200 [`Changed`] · 409 [`SeenFence`] · 412 [`SeenVersions`] |
//! | `GET /settings/{key, percent-encoded}` | – | 200 [`Changed`] · 404 |
//! | `PUT /fence` | [`Seal`] | 200 · 409 [`SeenFence`]: later changes of these fields under an older fence are refused, and of attempts given up |
//! | `PUT /targets` | [`Targets`], replaces the whole table | 200 |
//! | `GET /counters` | – | [`Counters`] |
//!
//! **Supervisor**: one JSON request and one JSON answer per line on the Unix socket
//! `<dir>/supervisor.sock` ([`Request`], [`Answer`]). **Registry** for whoever outlives the supervisor:
//! `<dir>/instances.json` ([`Instances`]).

mod http;
mod proxy;
mod supervisor;

pub use http::request as http_request;
pub use proxy::Proxy;
pub use supervisor::Supervisor;

use recovery::call::{Fence, State, Versions};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name of the proxy's address file in the data directory.
pub const PROXY_FILE: &str = "proxy.json";
/// Name of the supervisor's socket in the data directory.
pub const SUPERVISOR_SOCKET: &str = "supervisor.sock";
/// Name of the registry of running processes in the data directory.
pub const INSTANCES_FILE: &str = "instances.json";

/// `<dir>/proxy.json`: written atomically once every socket listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyFile {
    /// Address of the control interface, `127.0.0.1:port`.
    pub control: String,
    /// Address of the listening socket of each edge `caller->callee`.
    pub edges: BTreeMap<String, String>,
}

/// A change of settings: "be so".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Idempotency key: a known key changes nothing and gets its recorded answer.
    pub key: String,
    /// Which attempt under this key; those that a [`Seal`] gave up are refused.
    #[serde(default)]
    pub attempt: u64,
    /// Refused when lower than the highest seen for one of the fields.
    #[serde(with = "fence_json")]
    pub fence: Fence,
    /// The fields and their values. A set field loses the expiry it had.
    pub set: State,
    /// Versions the fields must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Versions>,
    /// When the proxy itself restores what was before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<i64>,
    /// The way there in steps, walked by the proxy after it has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ramp>,
}

/// A way back in steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ramp {
    /// Percentages of the way, ascending, ending at 100.
    pub steps: Vec<u32>,
    /// Time between steps.
    pub every_ms: u64,
}

/// The answer to a [`Change`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The fields before.
    pub before: State,
    /// The fields after; with a ramp, at its end.
    pub after: State,
    /// Their version counters after.
    pub versions: Versions,
}

/// Raises the fence of fields without changing them, and gives up attempts of one key: they can have no effect any more
/// if they had none yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The fence.
    #[serde(with = "fence_json")]
    pub fence: Fence,
    /// The fields.
    pub fields: Vec<String>,
    /// The key.
    pub key: String,
    /// Its last attempt that is given up.
    pub attempt: u64,
}

/// The body of a 409: the highest fence seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenFence {
    /// The fence.
    #[serde(with = "fence_json")]
    pub seen: Fence,
}

/// The body of a 412: the version counters as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenVersions {
    /// The counters.
    pub versions: Versions,
}

/// Where the instances of each service listen.
pub type Targets = BTreeMap<String, Vec<Target>>;

/// Where one instance listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its replica number.
    pub replica: u32,
    /// `host:port`.
    pub address: String,
}

/// Everything the proxy holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxyState {
    /// Weights, limits and breakers of every known edge, service and instance.
    pub settings: State,
    /// Their version counters.
    pub versions: Versions,
    /// The registered instances.
    pub targets: Targets,
    /// What passed.
    pub counters: Counters,
}

/// What passed through the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// When it was read.
    pub at_ms: i64,
    /// By edge, `caller->callee`.
    pub edges: BTreeMap<String, Series>,
    /// By instance, `service@n`, over all its callers.
    pub targets: BTreeMap<String, Series>,
}

/// Totals, and the last seconds one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Series {
    /// Since the proxy started.
    pub total: Counts,
    /// Up to 120 seconds, oldest first, seconds without traffic left out.
    pub seconds: Vec<Second>,
}

/// One second of a [`Series`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Second {
    /// The second's beginning.
    pub at_ms: i64,
    /// What passed in it.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Counts of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Requests that arrived.
    pub calls: u64,
    /// Answered without a server error.
    pub ok: u64,
    /// Answered with a server error, or not answered.
    pub failed: u64,
    /// Refused by a limit or a breaker.
    pub shed: u64,
    /// Given up by the caller before the answer.
    pub timeouts: u64,
    /// Being answered now.
    pub in_flight: u64,
    /// Arrived with `x-attempt` above 1.
    pub retries: u64,
}

/// A process by number and start time: the pair never names another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// `service@n` or the companion's name.
    pub name: String,
    /// Process number.
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat`.
    pub start_time: u64,
}

/// `<dir>/instances.json`: every process the supervisor started that may still run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instances {
    /// Services' instances and companions; not the proxy.
    pub processes: Vec<Process>,
}

/// What the supervisor can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Everything it knows. Answer: [`Answer::Status`].
    Status,
    /// Takes the turn on a service: waits for the running operation and voids every older ticket.
    /// Answer: [`Answer::Ticket`].
    Begin {
        /// Whose.
        service: String,
        /// Refused when lower than the highest seen for the service.
        #[serde(with = "fence_json")]
        fence: Fence,
    },
    /// Ends what runs as this instance and starts it anew. Answer: [`Answer::Done`] once it is started.
    Replace {
        /// Whose.
        service: String,
        /// Which.
        replica: u32,
        /// The new generation.
        generation: u64,
        /// Written into its environment.
        key: String,
        /// Time to end cleanly.
        grace_ms: u64,
        /// Version of `generation/S@n` it must have.
        expect: Option<u64>,
        /// From [`Request::Begin`].
        ticket: u64,
    },
    /// Sets the replica count. Answer: [`Answer::Done`] once the processes are started or ended.
    Scale {
        /// Whose.
        service: String,
        /// To how many.
        to: u32,
        /// Written into the environment of what it starts.
        key: String,
        /// When the supervisor itself returns to the count before.
        expires_at_ms: Option<i64>,
        /// Time to end cleanly.
        grace_ms: u64,
        /// Version of `replicas/S` it must have.
        expect: Option<u64>,
        /// From [`Request::Begin`].
        ticket: u64,
    },
    /// Ends everything. Answer: [`Answer::Done`] at once.
    Shutdown,
}

/// What the supervisor answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Begin`].
    Ticket(u64),
    /// It is so.
    Done,
    /// A lower fence than the highest seen.
    Fenced(SeenFence),
    /// A later [`Request::Begin`] took the turn.
    Superseded,
    /// Versions differ from the expected.
    Drifted(SeenVersions),
    /// It cannot be, and why. Nothing was done.
    Refused(String),
    /// It was begun and could not be finished, and why.
    Failed(String),
}

/// What the supervisor knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// When it was read.
    pub at_ms: i64,
    /// Desired replica counts.
    pub replicas: BTreeMap<String, u32>,
    /// The key under which each was last scaled; empty: never.
    #[serde(default)]
    pub scaled_by: BTreeMap<String, String>,
    /// Fewest and most replicas each may have.
    #[serde(default)]
    pub bounds: BTreeMap<String, (u32, u32)>,
    /// Version counters of `generation/…` and `replicas/…`.
    pub versions: Versions,
    /// Every instance of every service, sorted.
    pub instances: Vec<Instance>,
    /// The companions.
    pub companions: Vec<CompanionStatus>,
    /// The proxy's process number.
    pub proxy_pid: u32,
}

/// One instance of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its service.
    pub service: String,
    /// Its replica number.
    pub replica: u32,
    /// The generation last started.
    pub generation: u64,
    /// The key it was last started under.
    pub key: String,
    /// Its process number.
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat`.
    pub start_time: u64,
    /// When it was started.
    pub started_at_ms: i64,
    /// Where it listens.
    pub address: Option<String>,
    /// Its failure domain.
    pub zone: Option<String>,
    /// Whether the process exists.
    pub alive: bool,
    /// Memory it holds, in KiB; absent: not known.
    #[serde(default)]
    pub memory_kib: Option<u64>,
    /// Whether the last probes succeeded.
    pub ready: bool,
    /// Since when `ready` is as it is.
    pub ready_since_ms: i64,
    /// When it was last probed.
    pub probed_at_ms: i64,
}

/// One companion process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompanionStatus {
    /// Its name.
    pub name: String,
    /// Its process number.
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat`.
    pub start_time: u64,
    /// Whether the process exists.
    pub alive: bool,
}

/// Why a control call gave no result.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody answers; nothing is known about the effect.
    #[error("{whom} does not answer")]
    Unavailable {
        /// Which of the two.
        whom: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// No answer in time; nothing is known about the effect.
    #[error("{0} did not answer in time")]
    TimedOut(&'static str),
    /// Refused: a higher fence was seen. No effect.
    #[error("a higher fence was seen: epoch {}, version {}", seen.epoch, seen.version)]
    Fenced {
        /// It.
        seen: Fence,
    },
    /// Refused: changed since it was bound. No effect.
    #[error("the target changed since the call was bound")]
    Drifted {
        /// As it is now.
        versions: Versions,
    },
    /// Refused: a later call took the turn. No effect.
    #[error("a later call took the turn")]
    Superseded,
    /// Refused for another reason. No effect.
    #[error("refused: {0}")]
    Refused(String),
    /// Begun and not finished: a part of the effect is there.
    #[error("begun and not finished: {0}")]
    Failed(String),
    /// An answer that is not understood; nothing is known about the effect.
    #[error("an answer that is not understood: {0}")]
    Garbled(String),
}

impl Instance {
    /// `service@n`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}@{}", self.service, self.replica)
    }
}

impl Status {
    /// The instance, if it was ever started.
    #[must_use]
    pub fn instance(&self, service: &str, replica: u32) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.service == service && instance.replica == replica)
    }
}

/// A fence as `{"epoch": n, "version": n}`.
pub mod fence_json {
    use recovery::call::Fence;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Json {
        epoch: u64,
        version: u64,
    }

    /// Writes it.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(fence: &Fence, serializer: S) -> Result<S::Ok, S::Error> {
        Json { epoch: fence.epoch, version: fence.version }.serialize(serializer)
    }

    /// Reads it.
    ///
    /// # Errors
    /// Those of the deserializer.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fence, D::Error> {
        Json::deserialize(deserializer).map(|Json { epoch, version }| Fence { epoch, version })
    }
}
