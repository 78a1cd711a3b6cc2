//! `GET /metrics` and `GET /version`: what a server is, and what it has done, for machines.
//!
//! Names and units are Prometheus' own conventions, in its text format (OpenMetrics 1.0). `docs/reference/metrics.md`
//! explains each; a test compares that page with what is exposed.

use crate::app::App;
use crate::engine::{Engine, Meters, STATUSES};
use crate::limits::Traffic;
use crate::misses::Misses;
use crate::telemetry::Telemetry;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use protocol::Profile;
use serde::Serialize;
use std::sync::Arc;

/// What the answer of `/metrics` is written in.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The commit that this program was built from, where the build said so.
const COMMIT: Option<&str> = option_env!("STANCH_COMMIT");

/// Which server answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Version {
    /// `stanch`
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The version of the wire protocol.
    pub protocol: &'static str,
    /// The rule by which the versions of tasks rise.
    pub profile: &'static str,
    /// The commit it was built from, if the build said so (`STANCH_COMMIT`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<&'static str>,
}

/// `/metrics` and `/version`.
pub(crate) fn routes(app: &App) -> Router {
    let (engine, traffic, started) = (app.engine.clone(), app.traffic.clone(), app.env.now().0);
    let source = Source { engine, traffic, telemetry: app.telemetry.clone(), misses: app.misses.clone(), started };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(source));
    let about = version(app.engine.profile());
    Router::new()
        .route("/metrics", get(metrics))
        .route("/version", get(move || std::future::ready(Json(about))))
        .with_state(Arc::new(registry))
}

/// What this program says of itself under a profile.
#[must_use]
pub(crate) fn version(profile: Profile) -> Version {
    let profile = match profile {
        Profile::Stanch => "default",
        Profile::Resonate20260401 => "resonate-2026-04-01",
    };
    let version = env!("CARGO_PKG_VERSION");
    Version { name: "stanch", version, protocol: protocol::wire::VERSION, profile, commit: COMMIT }
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, TEXT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Where the numbers come from; they are read when they are asked for.
struct Source {
    engine: Engine,
    traffic: Traffic,
    telemetry: Telemetry,
    misses: Misses,
    /// When this server started, in milliseconds since 1970.
    started: i64,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("started", &self.started).finish_non_exhaustive()
    }
}

type Encoded = Result<(), std::fmt::Error>;

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let encoder = &mut encoder;
        let meters = self.engine.meters();
        requests(encoder, meters)?;
        commits(encoder, meters)?;
        self.state(encoder, meters)?;
        self.listener(encoder)?;
        self.spans(encoder)?;
        self.process(encoder)
    }
}

fn requests(encoder: &mut DescriptorEncoder<'_>, meters: &Meters) -> Encoded {
    let help = "Requests of the protocol that were answered";
    let mut family = encoder.encode_descriptor("stanch_requests", help, None, MetricType::Counter)?;
    for (kind, counts) in meters.kinds() {
        for (status, counter) in STATUSES.iter().zip(&counts.answered).filter(|(_, counter)| counter.get() > 0) {
            let status = status.to_string();
            counter.encode(family.encode_family(&[("kind", kind), ("status", status.as_str())])?)?;
        }
    }
    let help = "Time to answer a request, its commit included";
    let unit = Some(&Unit::Seconds);
    let mut family = encoder.encode_descriptor("stanch_request_duration", help, unit, MetricType::Histogram)?;
    for (kind, counts) in meters.kinds().filter(|(_, kind)| kind.answered.iter().any(|counter| counter.get() > 0)) {
        counts.seconds.encode(family.encode_family(&[("kind", kind)])?)?;
    }
    Ok(())
}

fn commits(encoder: &mut DescriptorEncoder<'_>, meters: &Meters) -> Encoded {
    let help = "Time of one commit with its sync of the disk";
    let unit = Some(&Unit::Seconds);
    let family = encoder.encode_descriptor("stanch_commit_duration", help, unit, MetricType::Histogram)?;
    meters.commit_seconds.encode(family)?;
    let help = "Answers that waited for one commit";
    let family = encoder.encode_descriptor("stanch_commit_group_size", help, None, MetricType::Histogram)?;
    meters.group_answers.encode(family)?;
    let help = "Commits that failed and were taken back";
    let family = encoder.encode_descriptor("stanch_commits_failed", help, None, MetricType::Counter)?;
    meters.commits_failed.encode(family)
}

impl Source {
    fn state(&self, encoder: &mut DescriptorEncoder<'_>, meters: &Meters) -> Encoded {
        let counts = self.engine.counts();
        labelled(encoder, "stanch_promises", "Durable promises by state", "state", counts.promises())?;
        labelled(encoder, "stanch_tasks", "Durable tasks by state", "state", counts.tasks())?;
        let outbox = i64::try_from(self.engine.outbox_len()).unwrap_or(i64::MAX);
        gauge(encoder, "stanch_outbox_messages", "Messages on their way, not yet counted as received", outbox)?;
        gauge(
            encoder,
            "stanch_streams",
            "Workers that are connected, by an event stream or in this process",
            meters.streams.get(),
        )?;
        let records = i64::try_from(self.engine.log_size()).unwrap_or(i64::MAX);
        gauge(encoder, "stanch_evidence_records", "Durable records in the evidence log", records)?;
        let help = "Services that failed after a restart although no answer had named them";
        let metric = encoder.encode_descriptor("stanch_missed_dependencies", help, None, MetricType::Counter)?;
        ConstCounter::new(self.misses.recorded()).encode(metric)?;
        let writable = i64::from(self.engine.is_writable());
        gauge(encoder, "stanch_writable", "1 while the store takes writes, else 0", writable)?;
        let help = "Messages to workers, by what became of them";
        counters(encoder, "stanch_deliveries", help, "result", self.engine.delivery_counts().results().into_iter())?;
        let help = "Broken invariants found while the server runs";
        counters(encoder, "stanch_invariant_violations", help, "invariant", meters.violations().map(read))
    }

    fn listener(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        gauge(encoder, "stanch_connections", "Open connections", self.traffic.connections().get())?;
        let in_flight = self.traffic.in_flight().get();
        gauge(encoder, "stanch_requests_in_flight", "Requests that are being answered", in_flight)?;
        let help = "Connections and requests that were not served, by the limit they met";
        counters(encoder, "stanch_refusals", help, "reason", self.traffic.refused().map(read))
    }

    fn spans(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let (intake, graph) = self.telemetry.counts();
        let spans = [
            ("received", intake.received),
            ("refused", intake.refused),
            ("late", intake.late),
            ("duplicate", graph.duplicates),
            ("dropped", graph.dropped),
            ("lost_parent", graph.lost_parents),
            ("unmatched", graph.unmatched),
            ("skewed", graph.skewed),
        ];
        let help = "Spans that came, and what kept some from being joined; one span may count more than once";
        counters(encoder, "stanch_spans", help, "result", spans.into_iter())?;
        let help = "Batches of spans that were told to come again later";
        let family = encoder.encode_descriptor("stanch_span_batches_busy", help, None, MetricType::Counter)?;
        ConstCounter::new(intake.busy).encode(family)?;
        let graph = self.telemetry.size();
        gauge(encoder, "stanch_graph_services", "Services in the dependency graph", graph.0)?;
        gauge(encoder, "stanch_graph_edges", "Edges between operations in the dependency graph", graph.1)
    }

    fn process(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let unit = Some(&Unit::Bytes);
        if let Some(bytes) = resident_bytes() {
            let help = "Memory of this process that is resident";
            let metric = encoder.encode_descriptor("stanch_process_resident_memory", help, unit, MetricType::Gauge)?;
            ConstGauge::new(bytes).encode(metric)?;
        }
        let unit = Some(&Unit::Seconds);
        let help = "Processor time this process has used";
        let metric = encoder.encode_descriptor("stanch_process_cpu", help, unit, MetricType::Counter)?;
        ConstCounter::new(cpu_seconds()).encode(metric)?;
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            let open = i64::try_from(open.count()).unwrap_or(i64::MAX);
            gauge(encoder, "stanch_process_open_fds", "Open file descriptors of this process", open)?;
        }
        let help = "When this server started, in seconds since 1970";
        let metric = encoder.encode_descriptor("stanch_process_start_time", help, unit, MetricType::Gauge)?;
        ConstGauge::new(seconds(self.started)).encode(metric)
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> Encoded {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value).encode(metric)
}

fn labelled(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: impl Iterator<Item = (&'static str, i64)>,
) -> Encoded {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (value, count) in values {
        ConstGauge::new(count).encode(family.encode_family(&[(label, value)])?)?;
    }
    Ok(())
}

fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: impl Iterator<Item = (&'static str, u64)>,
) -> Encoded {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value, count) in values {
        ConstCounter::new(count).encode(family.encode_family(&[(label, value)])?)?;
    }
    Ok(())
}

fn read<'a>((name, counter): (&'a str, &prometheus_client::metrics::counter::Counter)) -> (&'a str, u64) {
    (name, counter.get())
}

/// Resident memory, as the kernel counts it.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1_024)
}

fn cpu_seconds() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    std::time::Duration::try_from(used).unwrap_or_default().as_secs_f64()
}

fn seconds(millis: i64) -> f64 {
    let since = u64::try_from(millis).unwrap_or_default();
    std::time::Duration::from_millis(since).as_secs_f64()
}

#[cfg(test)]
mod tests;
