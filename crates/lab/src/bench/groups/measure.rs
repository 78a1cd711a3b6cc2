use super::super::{clock, process};
use super::GroupsOptions;
use super::baseline::Baseline;
use super::load::{Loaded, end, new_edge, toured};
use super::report::{Growth, Misses, Quantiles};
use anyhow::{Context as _, Result};
use base::Millis;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as OtlpSpan};
use prost::Message as _;
use recovery::graph::Snapshot;
use recovery::groups::{GroupPolicy, survey};
use recovery::import::{Options, otlp_protobuf};
use recovery::span::{Kind, Span};
use recovery::testkit::{Network, PAPER, Shape, Traces, Traffic};
use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::time::Duration;

/// Spans of one OTLP batch.
const BATCH: usize = 512;
/// Attributes of one OTLP span.
const ATTRIBUTES: usize = 12;

/// What was measured on one network; times in microseconds.
#[derive(Default)]
pub(super) struct Found {
    pub(super) rebuild: Vec<f64>,
    pub(super) query: Vec<f64>,
    pub(super) end_to_end: Vec<f64>,
    pub(super) baseline: Vec<f64>,
    pub(super) callers: Vec<f64>,
    pub(super) ordered: Vec<f64>,
    pub(super) drained: Vec<f64>,
    pub(super) misses: Misses,
    pub(super) baseline_misses: Misses,
}

/// Throughputs in spans per second of processor time, and of elapsed time.
pub(super) struct Throughput {
    pub(super) ingest: (f64, f64),
    pub(super) otlp: (f64, f64),
}

pub(super) fn all(loaded: &Loaded, options: &GroupsOptions) -> Found {
    let mut found = Found::default();
    let Loaded { network, graph, now } = loaded;
    let snapshot = graph.snapshot(*now);
    let policy = GroupPolicy::at(*now);
    let targets = targets(network, options);
    found.query = targets.iter().map(|(_, name)| timed(|| survey(&snapshot, &[name], &policy))).collect();
    let baseline = paper(network);
    found.baseline = targets.iter().map(|(service, _)| timed(|| baseline.answer(*service))).collect();
    for (service, _) in targets.iter().step_by(1 + targets.len() / 2_000) {
        let answer = baseline.answer(*service);
        found.ordered.push(answer.order.iter().map(Vec::len).sum::<usize>() as f64);
        found.drained.push(answer.drained as f64);
    }
    let sample = targets.iter().step_by(1 + targets.len() / 2_000);
    let callers = |name: &String| f64::from(snapshot.hard_callers(&[name], u32::MAX - 1).at_least());
    found.callers = sample.map(|(_, name)| callers(name)).collect();
    misses(network, &snapshot, &policy, &baseline, &mut found);
    found
}

/// Rebuilds, and answers after the last span of a window; the graph grows by an edge for each.
pub(super) fn rebuilds(loaded: &mut Loaded, options: &GroupsOptions, found: &mut Found) {
    let Loaded { network, graph, now } = loaded;
    let policy = GroupPolicy::at(*now);
    for number in 0..u64::from(options.rebuilds) {
        graph.observe(&new_edge(network, 2 * number, *now), *now);
        found.rebuild.push(timed(|| {
            let snapshot = graph.snapshot(*now);
            black_box(snapshot.start_order().waves());
        }));
        let last = new_edge(network, 2 * number + 1, *now);
        found.end_to_end.push(timed(|| {
            graph.observe(&last, *now);
            survey(&graph.snapshot(*now), &[&last.service], &policy)
        }));
    }
}

/// Every service once, or so many of them at equal distances, and those with the most callers more than once.
fn targets(network: &Network, options: &GroupsOptions) -> Vec<(u32, String)> {
    let step = usize::try_from((network.shape.services / options.queries.max(1)).max(1)).unwrap_or(1);
    let uniform = (0..network.shape.services).step_by(step);
    let weighted = network.edges.iter().step_by(4 * step).map(|edge| edge.callee);
    uniform.chain(weighted).map(|service| (service, Network::name(service))).collect()
}

fn paper(network: &Network) -> Baseline {
    let pairs: Vec<(u32, u32)> = network.edges.iter().map(|edge| (edge.caller, edge.callee)).collect();
    Baseline::new(network.shape.services, &pairs)
}

/// Asks both for every service that is coupled, and compares with the truth.
fn misses(network: &Network, snapshot: &Snapshot, policy: &GroupPolicy, baseline: &Baseline, found: &mut Found) {
    for truth in &network.coupled {
        for service in truth {
            let truth: BTreeSet<u32> = truth.iter().copied().collect();
            let ours = survey(snapshot, &[&Network::name(*service)], policy).ok().map(|group| {
                let number = |name: &String| name.get(1..).and_then(|number| number.parse().ok());
                group.members.iter().filter_map(number).collect()
            });
            found.misses.count(&truth, ours);
            found
                .baseline_misses
                .count(&truth, baseline.answer(*service).group.map(|group| group.into_iter().collect()));
        }
    }
}

/// The largest resident memory while 20,000 spans a second are joined on a graph of 100,000 edges, in MiB.
pub(super) fn memory(options: &GroupsOptions) -> Result<f64> {
    let shape = options.shape(Shape { name: "memory", services: 22_000, edges: 100_000 });
    let network = Network::new(shape, 1);
    let (mut graph, mut now) = toured(&network);
    let resident = || process::memory_of(std::process::id()).context("the process's memory");
    let (mut most, mut spans) = (resident()?, 0_usize);
    let windows = if options.quick { 10_000 } else { 1_300_000 };
    // About ten spans a trace.
    let traffic = Traffic { from: now, requests_per_s: 2_000, ..Traffic::default() };
    let mut rotated = now;
    for trace in Traces::new(&network, &traffic) {
        if spans >= windows {
            break;
        }
        for span in &trace {
            now = now.max(end(span));
            if now.since(rotated) >= Millis(30_000) {
                most = most.max(resident()?);
                graph.rotate(now);
                rotated = now;
            }
            graph.observe(span, now);
        }
        spans += trace.len();
    }
    let snapshots = [graph.snapshot(now), graph.snapshot(now)];
    black_box(&snapshots);
    Ok(most.max(resident()?) as f64 / f64::from(1 << 20))
}

/// Joins decoded spans, and decodes and joins batches of OTLP protobuf, on a graph that knows its network.
pub(super) fn throughput(options: &GroupsOptions) -> Result<Throughput> {
    let network = Network::new(options.shape(PAPER), 1);
    let (mut graph, from) = toured(&network);
    let traffic = Traffic { from, lost_ppm: 1_000, requests_per_s: 2_000, ..Traffic::default() };
    let mut traces = Traces::new(&network, &traffic).flatten();
    let spans: Vec<Span> = traces.by_ref().take(options.spans).collect();
    let mut now = from;
    let mut rotated = now;
    let ingest = rate(spans.len(), || {
        for span in &spans {
            now = now.max(end(span));
            if now.since(rotated) >= Millis(30_000) {
                graph.rotate(now);
                rotated = now;
            }
            graph.observe(span, now);
        }
        Ok(())
    })?;
    drop(spans);
    let spans: Vec<Span> = traces.take(options.spans / 2).collect();
    let batches: Vec<Vec<u8>> = spans.chunks(BATCH).map(otlp).collect();
    let otlp = rate(spans.len(), || {
        for batch in &batches {
            let (spans, _) = otlp_protobuf(batch, &Options { authenticated: true, dictionary: None })?;
            for span in &spans {
                now = now.max(end(span));
                if now.since(rotated) >= Millis(30_000) {
                    graph.rotate(now);
                    rotated = now;
                }
                graph.observe(span, now);
            }
        }
        Ok(())
    })?;
    black_box(graph.counts());
    Ok(Throughput { ingest, otlp })
}

/// Per second of processor time, and of elapsed time.
fn rate(spans: usize, work: impl FnOnce() -> Result<()>) -> Result<(f64, f64)> {
    let (began, cpu) = (clock(), process::own_cpu());
    work()?;
    let (took, cpu) = (clock().duration_since(began), process::own_cpu().saturating_sub(cpu));
    // The kernel counts processor time in ticks of 10 ms.
    let per = |time: Duration| spans as f64 / time.as_secs_f64().max(0.001);
    Ok((per(cpu.max(Duration::from_millis(10))), per(took)))
}

/// One export request of some spans, by service, each with a dozen attributes of which few are read.
fn otlp(spans: &[Span]) -> Vec<u8> {
    let text = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) }),
        ..KeyValue::default()
    };
    let mut services: BTreeMap<&str, Vec<OtlpSpan>> = BTreeMap::new();
    for span in spans {
        let peer = span.peer.as_ref().map(|peer| text("peer.service", &peer.name));
        let more = (0..).map(|number| text(&format!("app.attribute.{number}"), "a value of usual length"));
        let kind = match span.kind {
            Kind::Unknown => 0,
            Kind::Internal => 1,
            Kind::Server => 2,
            Kind::Client => 3,
            Kind::Producer => 4,
            Kind::Consumer => 5,
        };
        services.entry(&span.service).or_default().push(OtlpSpan {
            trace_id: span.trace.to_be_bytes().to_vec(),
            span_id: span.id.to_be_bytes().to_vec(),
            parent_span_id: span.parent.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
            name: span.name.clone(),
            kind,
            start_time_unix_nano: span.start_us * 1_000,
            end_time_unix_nano: span.end_us() * 1_000,
            attributes: peer.into_iter().chain(more).take(ATTRIBUTES).collect(),
            ..OtlpSpan::default()
        });
    }
    let resource_spans = services.into_iter().map(|(service, spans)| ResourceSpans {
        resource: Some(Resource {
            attributes: vec![
                text("service.name", service),
                text("service.version", "1"),
                text("service.instance.id", "i0"),
            ],
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            scope: Some(InstrumentationScope { name: "bench".into(), ..InstrumentationScope::default() }),
            spans,
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }.encode_to_vec()
}

/// One row of the table of growth.
pub(super) fn growth(services: u32, options: &GroupsOptions) -> Growth {
    let shape = Shape::sized(services);
    let mut loaded = Loaded::new(shape, 1, options);
    let mut found = Found::default();
    let few = GroupsOptions { rebuilds: options.rebuilds.min(50), queries: options.queries.min(2_000), ..*options };
    rebuilds(&mut loaded, &few, &mut found);
    let query = all(&loaded, &few);
    Growth {
        services: shape.services,
        edges: loaded.network.edges.len(),
        rebuild_us: Quantiles::of(found.rebuild),
        query_us: Quantiles::of(query.query),
        baseline_query_us: Quantiles::of(query.baseline),
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> f64 {
    let began = clock();
    let answer = work();
    let took = clock().duration_since(began);
    black_box(&answer);
    took.as_secs_f64() * 1e6
}
