//! Effective configuration: defaults, then the data directory's `config.toml`, then the environment
//! (`STANCH__SECTION__KEY`), then flags; each value with its origin.

use actuators::input;
use base::Millis;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Everything `stanch serve` can be told.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the server listens.
    pub server: ServerSettings,
    /// What is recovered and where its supervisor keeps its files.
    pub platform: PlatformSettings,
    /// How the recovery protocol is spoken.
    pub protocol: ProtocolSettings,
    /// What is kept, and where.
    pub storage: StorageSettings,
    /// The executor that the server keeps running.
    pub executor: ExecutorSettings,
    /// What is logged, and how.
    #[serde(default)]
    pub log: LogSettings,
    /// What workers are granted.
    pub tasks: TaskSettings,
    /// How messages are posted to `http://` and `https://` addresses.
    pub push: PushSettings,
    /// Where spans are taken beside the server's own port.
    #[serde(default)]
    pub telemetry: TelemetrySettings,
    /// Agents asked before the built-in ones, in order.
    #[serde(default)]
    pub agent: Vec<AgentSettings>,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    /// Address to bind.
    pub bind: String,
    /// Port; 0 = chosen by the kernel and printed.
    pub port: u16,
    /// Bind an address that others can reach, although nobody has to say who they are.
    pub insecure: bool,
    /// Most open connections; one more is answered 503 and closed.
    pub connections_max: u32,
    /// Most requests that are answered at once; one more gets 503.
    pub requests_in_flight_max: u32,
    /// Requests a second of one client address; 0 = any number. More get 429.
    pub requests_per_second: u32,
    /// Requests that an address may make at once before that; 0 = those of a second.
    pub request_burst: u32,
    /// Time for the head of a request from its first byte, in milliseconds.
    pub head_timeout_ms: u64,
    /// Time for the body of a request, in milliseconds.
    pub body_timeout_ms: u64,
    /// Time without a request before a connection is closed, in milliseconds.
    pub idle_timeout_ms: u64,
    /// Time that a client may read nothing of an answer that waits for it, in milliseconds.
    pub write_timeout_ms: u64,
    /// Time for requests in flight once the server is told to end, in milliseconds.
    pub drain_ms: u64,
    /// Time before that in which `/ready` already says so and everything else is still served, in milliseconds.
    pub drain_notice_ms: u64,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// How much: `error`, `warn`, `info`, `debug`, `trace`, or a list of `target=level`.
    pub level: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Its name in files and flags.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings { level: "warn".to_owned(), format: LogFormat::Text }
    }
}

impl Default for ServerSettings {
    fn default() -> ServerSettings {
        ServerSettings {
            bind: "127.0.0.1".to_owned(),
            port: 8_001,
            insecure: false,
            connections_max: 4_096,
            requests_in_flight_max: 4_096,
            requests_per_second: 0,
            request_burst: 0,
            head_timeout_ms: 10_000,
            body_timeout_ms: 30_000,
            idle_timeout_ms: 120_000,
            write_timeout_ms: 30_000,
            drain_ms: 10_000,
            drain_notice_ms: 0,
        }
    }
}

/// `[platform]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PlatformSettings {
    /// The topology file; empty = none declared.
    pub topology: String,
    /// The supervisor's directory; empty = no supervised services.
    pub directory: String,
    /// The policy file; empty = `policy.toml` in the data directory.
    pub policy: String,
}

/// `[protocol]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ProtocolSettings {
    /// When the version of a task rises.
    pub profile: ProtocolProfile,
    /// Whether outside testers may stop the clockwork, turn it, and empty the store (`debug.*`).
    pub debug: bool,
    /// How long until a task that nobody took is offered again, in milliseconds.
    pub retry_ms: u64,
    /// How often a task may be acquired without getting anywhere before it is halted; 0 = for ever.
    pub attempts_max: u32,
}

/// `[storage]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StorageSettings {
    /// How many settled promises stay in memory; the others are read from the store when a request names them.
    pub settled_in_memory: usize,
    /// How long a settled promise is kept that nothing refers to, in hours; 0 = for ever.
    pub retention_hours: u64,
}

impl StorageSettings {
    /// How long a settled promise is kept that nothing refers to.
    #[must_use]
    pub fn retention(&self) -> Option<Millis> {
        (self.retention_hours > 0).then(|| Millis(self.retention_hours.saturating_mul(3_600_000)))
    }
}

impl Default for StorageSettings {
    fn default() -> StorageSettings {
        StorageSettings { settled_in_memory: crate::engine::SETTLED_IN_MEMORY_MAX, retention_hours: 0 }
    }
}

/// A reading of the protocol where its sources disagree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum ProtocolProfile {
    /// The version of a task rises with every change of ownership: acquire, release and lease expiry.
    #[default]
    #[serde(rename = "default")]
    Default,
    /// It rises on acquire only, as the public server of protocol version 2026-04-01 has it.
    #[serde(rename = "resonate-2026-04-01")]
    Resonate20260401,
}

impl ProtocolProfile {
    /// Its name in configuration files and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ProtocolProfile::Default => "default",
            ProtocolProfile::Resonate20260401 => "resonate-2026-04-01",
        }
    }
}

impl Default for ProtocolSettings {
    fn default() -> ProtocolSettings {
        let protocol::Config { retry_timeout, poison, .. } = protocol::Config::default();
        let profile = ProtocolProfile::Default;
        ProtocolSettings { profile, debug: false, retry_ms: retry_timeout.0, attempts_max: poison.attempts_max }
    }
}

impl ProtocolSettings {
    /// What the protocol's transitions are told.
    #[must_use]
    pub fn config(&self) -> protocol::Config {
        let poison = protocol::Poison { attempts_max: self.attempts_max, ..protocol::Poison::default() };
        protocol::Config { retry_timeout: Millis(self.retry_ms), profile: self.profile.into(), poison }
    }
}

impl From<ProtocolProfile> for protocol::Profile {
    fn from(profile: ProtocolProfile) -> Self {
        match profile {
            ProtocolProfile::Default => protocol::Profile::Stanch,
            ProtocolProfile::Resonate20260401 => protocol::Profile::Resonate20260401,
        }
    }
}

/// `[executor]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutorSettings {
    /// Keep one executor running, and start another whenever it ends.
    pub start: bool,
}

/// `[tasks]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSettings {
    /// How long a worker whose connection dropped may take to come back before its tasks are offered to others, in
    /// milliseconds. The policy's `lease.reconnect_grace` counts if it is shorter.
    pub reconnect_grace_ms: u64,
}

/// `[push]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PushSettings {
    /// Take such addresses; otherwise a request that names one is refused.
    pub enabled: bool,
    /// How long connecting may take, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How long a post may take, with its answer, in milliseconds.
    pub request_timeout_ms: u64,
    /// A PEM file of authorities to trust beside the system's; empty = none.
    pub ca_file: String,
}

/// `[telemetry]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetrySettings {
    /// Where OTLP over gRPC is taken: `HOST:PORT`; `auto` = 127.0.0.1:4317 unless somebody else has it; `off`.
    pub otlp_grpc: String,
    /// Where OTLP over HTTP is taken: `HOST:PORT`; `auto` = 127.0.0.1:4318 unless somebody else has it; `off`.
    pub otlp_http: String,
}

impl Default for TelemetrySettings {
    fn default() -> TelemetrySettings {
        TelemetrySettings { otlp_grpc: "auto".to_owned(), otlp_http: "auto".to_owned() }
    }
}

/// `[[agent]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSettings {
    /// Shown beside its proposals, for example `agent/acme`.
    pub name: String,
    /// `planning`; diagnosis and verification agents of others come later.
    pub role: String,
    /// Base URL; the server POSTs to `URL/propose`.
    pub url: String,
}

/// Values given on the command line.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--bind`
    pub bind: Option<String>,
    /// `--port`
    pub port: Option<u16>,
    /// `--topology`
    pub topology: Option<PathBuf>,
    /// `--platform`
    pub platform: Option<PathBuf>,
    /// `--policy`
    pub policy: Option<PathBuf>,
    /// `--protocol-profile`
    pub protocol_profile: Option<ProtocolProfile>,
    /// `--debug`
    pub debug: bool,
    /// `--no-executor`
    pub no_executor: bool,
    /// `--insecure`
    pub insecure: bool,
    /// `--log`
    pub log: Option<String>,
    /// `--log-format`
    pub log_format: Option<LogFormat>,
    /// `--otlp-grpc`
    pub otlp_grpc: Option<String>,
    /// `--otlp-http`
    pub otlp_http: Option<String>,
}

/// One value of the effective configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// `section.key`
    pub key: String,
    /// Its value as text.
    pub value: String,
    /// `default`, a file, `the environment`, or `flag`.
    pub origin: String,
}

/// LIMIT: bytes of `config.toml`.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
const DEFAULTS: &[(&str, &str)] = &[
    ("server.bind", "127.0.0.1"),
    ("server.port", "8001"),
    ("server.insecure", "false"),
    ("server.connections_max", "4096"),
    ("server.requests_in_flight_max", "4096"),
    ("server.requests_per_second", "0"),
    ("server.request_burst", "0"),
    ("server.head_timeout_ms", "10000"),
    ("server.body_timeout_ms", "30000"),
    ("server.idle_timeout_ms", "120000"),
    ("server.write_timeout_ms", "30000"),
    ("server.drain_ms", "10000"),
    ("server.drain_notice_ms", "0"),
    ("platform.topology", ""),
    ("platform.directory", ""),
    ("platform.policy", ""),
    ("protocol.profile", ProtocolProfile::Default.name()),
    ("protocol.debug", "false"),
    ("protocol.retry_ms", "30000"),
    ("protocol.attempts_max", "32"),
    ("storage.settled_in_memory", "50000"),
    ("storage.retention_hours", "0"),
    ("executor.start", "true"),
    ("log.level", "warn"),
    ("log.format", "text"),
    ("tasks.reconnect_grace_ms", "2000"),
    ("push.enabled", "true"),
    ("push.connect_timeout_ms", "10000"),
    ("push.request_timeout_ms", "180000"),
    ("push.ca_file", ""),
    ("telemetry.otlp_grpc", "auto"),
    ("telemetry.otlp_http", "auto"),
];

/// Reads the effective settings and their origins.
///
/// # Errors
/// A file that does not parse, an unknown key, or a value of the wrong type; the message names it.
pub fn load(data: &Path, flags: &Flags) -> Result<(Settings, Vec<Shown>), config::ConfigError> {
    load_from(data, flags, None)
}

/// As [`load`], with other variables in place of the environment's where some are given.
fn load_from(
    data: &Path,
    flags: &Flags,
    variables: Option<config::Map<String, String>>,
) -> Result<(Settings, Vec<Shown>), config::ConfigError> {
    let mut builder = config::Config::builder();
    for (key, value) in DEFAULTS {
        builder = builder.set_default(*key, *value)?;
    }
    let file = data.join("config.toml");
    if file.exists() {
        // WHY: the library below replaces what is not UTF-8, and reads without a limit.
        input::text(&file, CONFIG_BYTES_MAX).map_err(|error| config::ConfigError::Foreign(Box::new(error)))?;
    }
    builder = builder.add_source(config::File::from(file).required(false).format(config::FileFormat::Toml));
    let environment = config::Environment::with_prefix("STANCH").prefix_separator("__").separator("__");
    builder = builder.add_source(environment.source(variables));
    let flagged = flag_values(flags);
    for (key, value) in &flagged {
        builder = builder.set_override(*key, value.as_str())?;
    }
    let loaded = builder.build()?;
    let settings: Settings = loaded.clone().try_deserialize()?;
    let shown = DEFAULTS.iter().map(|(key, _)| shown(&loaded, key, &flagged)).collect::<Result<_, _>>()?;
    Ok((settings, shown))
}

fn flag_values(flags: &Flags) -> Vec<(&'static str, String)> {
    let path = |path: &PathBuf| path.display().to_string();
    let mut values = Vec::new();
    values.extend(flags.bind.clone().map(|bind| ("server.bind", bind)));
    values.extend(flags.port.map(|port| ("server.port", port.to_string())));
    values.extend(flags.topology.as_ref().map(path).map(|value| ("platform.topology", value)));
    values.extend(flags.platform.as_ref().map(path).map(|value| ("platform.directory", value)));
    values.extend(flags.policy.as_ref().map(path).map(|value| ("platform.policy", value)));
    values.extend(flags.protocol_profile.map(|profile| ("protocol.profile", profile.name().to_owned())));
    values.extend(flags.debug.then(|| ("protocol.debug", "true".to_owned())));
    values.extend(flags.no_executor.then(|| ("executor.start", "false".to_owned())));
    values.extend(flags.insecure.then(|| ("server.insecure", "true".to_owned())));
    values.extend(flags.log.clone().map(|level| ("log.level", level)));
    values.extend(flags.otlp_grpc.clone().map(|address| ("telemetry.otlp_grpc", address)));
    values.extend(flags.otlp_http.clone().map(|address| ("telemetry.otlp_http", address)));
    values.extend(flags.log_format.map(|format| ("log.format", format.name().to_owned())));
    values
}

fn shown(loaded: &config::Config, key: &str, flagged: &[(&str, String)]) -> Result<Shown, config::ConfigError> {
    // WHY: not `Config::get`, which reads the value into a new one that has forgotten its origin.
    let missing = || config::ConfigError::NotFound(key.to_owned());
    let below = |value: config::Value, part| value.into_table()?.remove(part).ok_or_else(missing);
    let value = key.split('.').try_fold(loaded.cache.clone(), below)?;
    let origin = match value.origin() {
        _ if flagged.iter().any(|(flag, _)| *flag == key) => "flag".to_owned(),
        Some(origin) => origin.to_owned(),
        None => "default".to_owned(),
    };
    Ok(Shown { key: key.to_owned(), value: value.into_string()?, origin })
}

impl Default for TaskSettings {
    fn default() -> TaskSettings {
        TaskSettings { reconnect_grace_ms: 2_000 }
    }
}

impl Default for PushSettings {
    fn default() -> PushSettings {
        let (connect_timeout_ms, request_timeout_ms) = (10_000, 180_000);
        PushSettings { enabled: true, connect_timeout_ms, request_timeout_ms, ca_file: String::new() }
    }
}

#[cfg(test)]
mod tests;
