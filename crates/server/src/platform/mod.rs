//! What is recovered, as seen from outside it: the supervisor's status, the proxy's settings and counts, and
//! an outside client's record. Everything is read with its time; nothing here decides.

mod configs;
mod failing;
mod observers;
mod record;

pub use configs::{Configs, Suspect, suspect, watch};
pub use observers::{ObserverReading, Onset, observe, onset};
pub use record::{RecordSecond, RecordSummary, read_record, summarize};

use actuators::Fut;
use actuators::control::{ControlError, Proxy, ProxyState, Status, Supervisor};
use actuators::process::config::{Object, survey};
use actuators::process::ledger;
use base::{Millis, Timestamp};
use recovery::topology::Topology;
use recovery::world::Capability;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// LIMIT: how much older than the reading the record's last second may be. A record has a row for every second, also
/// of zeros; one that ends earlier says nothing of now, however good its last second was.
const RECORD_BEHIND_MAX: Millis = Millis(3_000);

/// The supervised platform of one topology file.
#[derive(Clone, Debug)]
pub struct Platform {
    topology: Arc<Topology>,
    source: Source,
    configs: Configs,
}

#[derive(Clone, Debug)]
enum Source {
    /// A supervisor and its proxy, by the files in the supervisor's directory.
    Processes { directory: PathBuf, supervisor: Supervisor },
    /// Another platform.
    Other(Arc<dyn Sight>),
}

/// What can be seen of a platform that is not made of supervised processes: a simulator's.
pub trait Sight: Send + Sync + std::fmt::Debug {
    /// Reads everything, `record_since` limiting the client's record.
    fn read(&self, now: Timestamp, record_since: Timestamp) -> Fut<'_, Reading>;
    /// The ledger of a service, oldest first; `None` if it cannot be read.
    fn ledger(&self, service: &str) -> Option<Vec<ledger::Entry>>;
    /// What can be done to it.
    fn capabilities(&self) -> Vec<Capability>;
}

/// One reading of the platform.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// When it was taken.
    pub at: Timestamp,
    /// The supervisor's answer; absent = it did not answer.
    pub status: Option<Status>,
    /// The proxy's answer; absent = it did not answer.
    pub proxy: Option<ProxyState>,
    /// The outside client's record, oldest first; absent = none declared, or it did not answer.
    pub record: Option<Vec<RecordSecond>>,
    /// The declared configuration objects by `KIND/NS/NAME`; one that could not be read is missing.
    pub objects: BTreeMap<String, Object>,
}

impl Platform {
    /// The platform whose supervisor keeps its files in `directory`.
    #[must_use]
    pub fn new(directory: &Path, topology: Arc<Topology>) -> Platform {
        let source = Source::Processes { directory: directory.to_owned(), supervisor: Supervisor::new(directory) };
        Platform { topology, source, configs: Configs::default() }
    }

    /// A platform of another kind.
    #[must_use]
    pub fn other(sight: Arc<dyn Sight>, topology: Arc<Topology>) -> Platform {
        Platform { topology, source: Source::Other(sight), configs: Configs::default() }
    }

    /// What was asked of a service and what became of it, oldest first; `None` if that cannot be read.
    #[must_use]
    pub fn ledger(&self, service: &str) -> Option<Vec<ledger::Entry>> {
        match &self.source {
            Source::Processes { directory, .. } => ledger::read(directory, service).ok(),
            Source::Other(sight) => sight.ledger(service),
        }
    }

    /// What its actuator offers, in the kernel's words.
    #[must_use]
    pub fn capabilities(&self) -> Vec<Capability> {
        match &self.source {
            Source::Processes { directory, .. } => crate::remediation::view_capabilities(directory),
            Source::Other(sight) => sight.capabilities(),
        }
    }

    /// What is declared.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// What was seen of each revision of the configuration while it was in use.
    #[must_use]
    pub fn configs(&self) -> &Configs {
        &self.configs
    }

    /// Reads everything, `record_since` limiting the client's record.
    pub async fn read(&self, now: Timestamp, record_since: Timestamp) -> Reading {
        let (directory, supervisor) = match &self.source {
            Source::Processes { directory, supervisor } => (directory, supervisor),
            Source::Other(sight) => return sight.read(now, record_since).await,
        };
        let record_url = self.record_url().map(str::to_owned);
        let record = async {
            match record_url {
                Some(url) => read_record(&url, record_since).await.ok(),
                None => None,
            }
        };
        let (status, proxy, record) = tokio::join!(supervisor.status(), proxy_state(directory), record);
        let objects = self.objects(directory);
        Reading { at: now, status: status.ok(), proxy: proxy.ok(), record, objects }
    }

    fn objects(&self, directory: &Path) -> BTreeMap<String, Object> {
        let declared: BTreeSet<&String> = self.topology.service.values().flat_map(|service| &service.config).collect();
        let read = |object: &String| {
            let field = actuators::field::Field::parse(&format!("config/{object}"))?;
            Some((object.clone(), survey(directory, &field).ok()?))
        };
        declared.into_iter().filter_map(read).collect()
    }

    /// Where the outside client's record is read.
    #[must_use]
    pub fn record_url(&self) -> Option<&str> {
        let observer = self.topology.observer.values().find(|observer| observer.source == "record")?;
        observer.url.as_deref()
    }
}

async fn proxy_state(directory: &Path) -> Result<ProxyState, ControlError> {
    Proxy::new(directory).state().await
}

impl Reading {
    /// The client's record if it reaches up to the reading: one that stopped is as good as none.
    #[must_use]
    pub fn current_record(&self) -> Option<&[RecordSecond]> {
        let record = self.record.as_deref()?;
        let stopped = record.last().is_some_and(|last| self.at.since(Timestamp(last.second_ms)) > RECORD_BEHIND_MAX);
        (!stopped).then_some(record)
    }

    /// Services with an instance that serves nobody: its probe fails, or it answers nothing but errors of its own.
    #[must_use]
    pub fn unavailable(&self) -> BTreeSet<String> {
        let instances = self.status.iter().flat_map(|status| &status.instances);
        instances.filter(|instance| !self.serves(instance)).map(|instance| instance.service.clone()).collect()
    }

    /// Requests of an edge or target series per second, in milli-requests, over `[from, to)`.
    #[must_use]
    pub fn edge_mrps(&self, edge: &str, from: Timestamp, to: Timestamp) -> Option<u64> {
        let series = self.proxy.as_ref()?.counters.edges.get(edge)?;
        Some(mrps(series, from, to))
    }

    /// Calls into a service over all its edges, in milli-requests per second over `[from, to)`.
    #[must_use]
    pub fn service_mrps(&self, service: &str, from: Timestamp, to: Timestamp) -> Option<u64> {
        let edges = &self.proxy.as_ref()?.counters.edges;
        let into = edges.iter().filter(|(edge, _)| edge.split_once("->").is_some_and(|(_, callee)| callee == service));
        Some(into.map(|(_, series)| mrps(series, from, to)).sum())
    }

    /// Requests in flight at each instance.
    #[must_use]
    pub fn in_flight(&self) -> BTreeMap<String, u64> {
        let targets = self.proxy.iter().flat_map(|proxy| &proxy.counters.targets);
        targets.map(|(name, series)| (name.clone(), series.total.in_flight)).collect()
    }
}

fn mrps(series: &actuators::control::Series, from: Timestamp, to: Timestamp) -> u64 {
    let within = series.seconds.iter().filter(|second| second.at_ms >= from.0 && second.at_ms < to.0);
    let calls: u64 = within.map(|second| second.counts.calls).sum();
    let span_ms = to.since(from).0.max(1);
    calls.saturating_mul(1_000_000) / span_ms
}
