//! Effective configuration: defaults, then the data directory's `config.toml`, then the environment
//! (`STANCH__SECTION__KEY`), then flags; each value with its origin.

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
    /// The executor that the server keeps running.
    pub executor: ExecutorSettings,
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

/// `[executor]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutorSettings {
    /// Keep one executor running, and start another whenever it ends.
    pub start: bool,
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
    /// `--no-executor`
    pub no_executor: bool,
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

const DEFAULTS: &[(&str, &str)] = &[
    ("server.bind", "127.0.0.1"),
    ("server.port", "8001"),
    ("platform.topology", ""),
    ("platform.directory", ""),
    ("platform.policy", ""),
    ("executor.start", "true"),
];

/// Reads the effective settings and their origins.
///
/// # Errors
/// A file that does not parse, an unknown key, or a value of the wrong type; the message names it.
pub fn load(data: &Path, flags: &Flags) -> Result<(Settings, Vec<Shown>), config::ConfigError> {
    let mut builder = config::Config::builder();
    for (key, value) in DEFAULTS {
        builder = builder.set_default(*key, *value)?;
    }
    let file = data.join("config.toml");
    builder = builder.add_source(config::File::from(file).required(false).format(config::FileFormat::Toml));
    builder = builder.add_source(config::Environment::with_prefix("STANCH").prefix_separator("__").separator("__"));
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
    values.extend(flags.no_executor.then(|| ("executor.start", "false".to_owned())));
    values
}

fn shown(loaded: &config::Config, key: &str, flagged: &[(&str, String)]) -> Result<Shown, config::ConfigError> {
    let value = loaded.get::<config::Value>(key)?;
    let origin = match value.origin() {
        _ if flagged.iter().any(|(flag, _)| *flag == key) => "flag".to_owned(),
        Some(origin) => origin.to_owned(),
        None => "default".to_owned(),
    };
    Ok(Shown { key: key.to_owned(), value: value.into_string()?, origin })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.toml"), "[server]\nport = 9000\nbind = \"127.0.0.2\"\n").unwrap();
        let flags = Flags { port: Some(0), ..Flags::default() };
        let (settings, shown) = load(dir.path(), &flags).unwrap();
        assert_eq!((settings.server.port, settings.server.bind.as_str()), (0, "127.0.0.2"));
        let origin = |key: &str| shown.iter().find(|value| value.key == key).unwrap().origin.clone();
        assert_eq!(origin("server.port"), "flag");
        assert!(origin("server.bind").ends_with("config.toml"));
        assert_eq!(origin("executor.start"), "default");
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.toml"), "[server]\nprot = 9000\n").unwrap();
        let error = load(dir.path(), &Flags::default()).unwrap_err().to_string();
        assert!(error.contains("prot"), "{error}");
    }
}
