//! The topology file `stanch.toml`: what there is and how to run it. Every key is optional. The text is
//! parsed by the shell; these are its types, and [`Topology::validate`] its rules.

use base::{Millis, Ratio, parse_percent_ppm};
use serde::{Deserialize, Deserializer, de::Error as _};
use std::collections::BTreeMap;

/// LIMIT: replicas of one service.
pub const REPLICAS_MAX: u32 = 1_000;
/// LIMIT: attempts of one call.
pub const RETRY_ATTEMPTS_MAX: u32 = 100;
/// What an edge may be declared as.
pub const EDGE_KINDS: [&str; 3] = ["sync", "async", "store"];
/// How an edge may be declared.
pub const EDGE_HARDNESSES: [&str; 2] = ["hard", "soft"];
/// Where an observer may look.
pub const OBSERVER_SOURCES: [&str; 3] = ["spans", "probe", "record"];

/// A whole topology file. Services, edges and companion processes by name; edges are named `A->S`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topology {
    /// The services.
    pub service: BTreeMap<String, Service>,
    /// The edges.
    pub edge: BTreeMap<String, Edge>,
    /// Processes started with the services and ended with them, but never recovered and not behind the
    /// proxy: load, agents, the server.
    pub process: BTreeMap<String, Companion>,
    /// Who votes on whether a service is impaired.
    pub observer: BTreeMap<String, Observer>,
}

/// One service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Service {
    /// Objective of its entry operations; absent: judged by availability only.
    pub objective: Option<Objective>,
    /// Argument list for the process actuator, never a shell line. Placeholders, each anywhere in an
    /// argument: `{self}` this executable, `{listen}` the replica's address, `{replica}`, `{service}`,
    /// `{zone}`, `{data}` the data directory, `{edge:CALLEE}` the proxy's address for this caller's calls.
    pub run: Vec<String>,
    /// Address of replica 0; replica n gets port + n; port 0 = chosen by the kernel.
    pub listen: Option<String>,
    /// How readiness is asked.
    pub probe: Option<Probe>,
    /// How many.
    pub replicas: Replicas,
    /// Failure domain of every replica; or `zones`.
    pub zone: Option<String>,
    /// Failure domains by replica number, repeated.
    pub zones: Vec<String>,
    /// Domain of authority; must agree with the policy.
    pub trust_zone: Option<String>,
    /// Replicas that must stay ready.
    pub min_available: Option<u32>,
    /// Members of its quorum set.
    pub quorum_of: Option<u32>,
    /// Services it needs at start.
    pub start_needs: Vec<String>,
    /// Services that must restart with it.
    pub coupled: Vec<String>,
    /// Has callers that may not lose their last path to it.
    pub critical: bool,
    /// May be limited to 0.
    pub sheddable: bool,
    /// Capacity of one replica, requests per second.
    pub capacity_rps: Option<u32>,
    /// Requests one replica serves at once.
    pub workers: Option<u32>,
    /// Requests one replica lets wait.
    pub queue_max: Option<u32>,
    /// Its replica count is someone else's.
    pub autoscaled: bool,
    /// It is a store, a queue or a cache: edges into it are of that kind.
    pub store: bool,
    /// Versioned configuration that it reads, as `KIND/NS/NAME`; see `docs/topology.md`.
    pub config: Vec<String>,
}

/// What good service means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// 99th percentile of latency.
    #[serde(default, deserialize_with = "optional_millis")]
    pub p99: Option<Millis>,
    /// Share of failed requests.
    #[serde(default, deserialize_with = "optional_ratio")]
    pub errors: Option<Ratio>,
}

/// How readiness is asked: `{ http = "/ready", every = "200ms", timeout = "100ms" }` or `{ tcp = true }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// A path that answers 2xx when ready.
    pub http: Option<String>,
    /// An accepted connection is enough.
    #[serde(default)]
    pub tcp: bool,
    /// Time between questions; default 200 ms.
    #[serde(default = "probe_every", deserialize_with = "millis")]
    pub every: Millis,
    /// Time for an answer; default 100 ms.
    #[serde(default = "probe_timeout", deserialize_with = "millis")]
    pub timeout: Millis,
}

/// Replica counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Replicas {
    /// Never fewer.
    pub min: u32,
    /// At start.
    pub start: u32,
    /// Never more.
    pub max: u32,
}

/// What is declared of an edge.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Edge {
    /// `sync`, `async` or `store`.
    pub kind: Option<String>,
    /// The caller's timeout for one attempt.
    #[serde(deserialize_with = "optional_millis")]
    pub timeout: Option<Millis>,
    /// The caller's retry policy.
    pub retry: Option<Retry>,
    /// `hard` or `soft`.
    pub hardness: Option<String>,
    /// What the caller does without the callee.
    pub fallback: Option<String>,
}

/// A retry policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// Wait before the second attempt; doubles.
    #[serde(deserialize_with = "millis")]
    pub base: Millis,
    /// Longest wait.
    #[serde(deserialize_with = "millis")]
    pub cap: Millis,
    /// Share of requests that may be retried; absent: all.
    #[serde(default, deserialize_with = "optional_ratio")]
    pub budget: Option<Ratio>,
}

/// A process that is started with the services and not recovered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Companion {
    /// As [`Service::run`]; `{edge:CALLEE}` makes an edge from this process.
    pub run: Vec<String>,
}

/// Where an observer looks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observer {
    /// `spans` (the telemetry intake), `probe` (readiness), or `record` (an outside client's record).
    pub source: String,
    /// Its failure domain.
    pub zone: String,
    /// Of a `record` observer: where the record is read.
    pub url: Option<String>,
}

/// A topology that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {why}")]
pub struct TopologyError {
    /// The table and key, for example `service.payments.coupled`.
    pub at: String,
    /// What is wrong and what would be right.
    pub why: String,
}

impl Default for Replicas {
    fn default() -> Self {
        Replicas { min: 1, start: 1, max: 1 }
    }
}

impl Topology {
    /// Checks names and bounds.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn validate(&self) -> Result<(), TopologyError> {
        for (name, service) in &self.service {
            let fail = |key: &str, why: String| Err(TopologyError { at: format!("service.{name}.{key}"), why });
            if !is_name(name) {
                return fail("", "a name is lower-case letters, digits and '-', starting with a letter".into());
            }
            for (key, names) in [("coupled", &service.coupled), ("start_needs", &service.start_needs)] {
                if let Some(unknown) = names.iter().find(|other| !self.service.contains_key(*other)) {
                    return fail(key, format!("no service `{unknown}` in this file"));
                }
            }
            if let Some(object) = service.config.iter().find(|object| !is_object(object)) {
                return fail("config", format!("`{object}` is not KIND/NS/NAME"));
            }
            let Replicas { min, start, max } = service.replicas;
            if min == 0 || start < min || max < start {
                return fail("replicas", "needs 1 <= min <= start <= max".into());
            }
            if max > REPLICAS_MAX {
                return fail("replicas", format!("max is at most {REPLICAS_MAX}"));
            }
        }
        for (name, edge) in &self.edge {
            let fail = |why: String| Err(TopologyError { at: format!("edge.\"{name}\""), why });
            let Some((caller, callee)) = name.split_once("->") else {
                return fail("an edge is named \"caller->callee\"".into());
            };
            if caller.is_empty() || callee.is_empty() {
                return fail("an edge is named \"caller->callee\"".into());
            }
            if edge.retry.is_some_and(|retry| !(1..=RETRY_ATTEMPTS_MAX).contains(&retry.attempts)) {
                return fail(format!("retry.attempts counts the first attempt: 1 to {RETRY_ATTEMPTS_MAX}"));
            }
            for (key, word, known) in
                [("kind", &edge.kind, &EDGE_KINDS[..]), ("hardness", &edge.hardness, &EDGE_HARDNESSES[..])]
            {
                if let Some(word) = word.as_deref().filter(|word| !known.contains(word)) {
                    return fail(format!("{key} `{word}` is none of {}", known.join(", ")));
                }
            }
        }
        for (name, observer) in &self.observer {
            let fail = |key: &str, why: String| Err(TopologyError { at: format!("observer.{name}.{key}"), why });
            if !OBSERVER_SOURCES.contains(&observer.source.as_str()) {
                return fail("source", format!("`{}` is none of {}", observer.source, OBSERVER_SOURCES.join(", ")));
            }
            if observer.source == "record" && observer.url.is_none() {
                return fail("url", "a record is read somewhere: url = \"http://…\"".into());
            }
        }
        Ok(())
    }

    /// The declared edge, if there is one.
    #[must_use]
    pub fn edge(&self, caller: &str, callee: &str) -> Option<&Edge> {
        self.edge.get(&format!("{caller}->{callee}"))
    }
}

impl Service {
    /// The failure domain of a replica.
    #[must_use]
    pub fn zone_of(&self, replica: u32) -> Option<&str> {
        let count = u32::try_from(self.zones.len()).ok().filter(|count| *count > 0);
        let listed = count.and_then(|count| self.zones.get((replica % count) as usize));
        listed.or(self.zone.as_ref()).map(String::as_str)
    }
}

/// Whether `text` names a configuration object: three names joined by `/`.
#[must_use]
pub fn is_object(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    parts.len() == 3 && parts.iter().all(|part| is_name(part))
}

/// Whether `name` may name a service: lower-case letters, digits and `-`, starting with a letter.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn probe_every() -> Millis {
    Millis(200)
}

fn probe_timeout() -> Millis {
    Millis(100)
}

fn millis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Millis, D::Error> {
    Millis::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn optional_millis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Millis>, D::Error> {
    millis(deserializer).map(Some)
}

fn optional_ratio<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ratio>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let ppm = text.strip_suffix('%').and_then(parse_percent_ppm).and_then(|ppm| u32::try_from(ppm).ok());
    let ratio = ppm.and_then(Ratio::from_ppm);
    ratio.map(Some).ok_or_else(|| D::Error::custom(format!("`{text}` is not a share such as \"0.1%\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> Option<String> {
        serde_json::from_str::<Topology>(json).unwrap().validate().err().map(|error| error.to_string())
    }

    #[test]
    fn counts_have_limits() {
        let replicas = |max: u32| {
            refused(&format!(r#"{{"service": {{"a": {{"replicas": {{"min": 1, "start": 1, "max": {max}}}}}}}}}"#))
        };
        assert_eq!(replicas(REPLICAS_MAX), None);
        assert_eq!(replicas(REPLICAS_MAX + 1).as_deref(), Some("service.a.replicas: max is at most 1000"));
        let attempts = |count: u32| {
            let retry = format!(r#"{{"attempts": {count}, "base": "1ms", "cap": "1s"}}"#);
            refused(&format!(r#"{{"edge": {{"a->b": {{"retry": {retry}}}}}}}"#))
        };
        assert_eq!(attempts(RETRY_ATTEMPTS_MAX), None);
        for count in [0, RETRY_ATTEMPTS_MAX + 1, u32::MAX] {
            let why = attempts(count).unwrap();
            assert_eq!(why, "edge.\"a->b\": retry.attempts counts the first attempt: 1 to 100");
        }
    }
}
