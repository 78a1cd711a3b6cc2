//! From spans of a healthy window to a model, and the check that the model behaves as the window did.

use super::compile::Compiled;
use super::draw::Draw;
use super::engine::{Mode, Run};
use super::{Bounds, Config, EdgeFit, Fit, Input, RootFit, SAMPLES_MAX, ServiceFit, Source};
use crate::span::{Kind, PeerKind, Span};
use crate::topology::{Edge, Service, Topology};
use base::{Digest, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Executions a service needs before its times mean anything.
const EXECUTIONS_MIN: usize = 20;
/// Start-up times where none was ever measured, microseconds.
const START_UP_ASSUMED_US: [u32; 5] = [300_000, 500_000, 700_000, 1_000_000, 1_500_000];
/// The worst relative error of the self-check, permille.
const ERROR_MAX_PERMILLE: u64 = 250;
/// Resamples of the window's own interval.
const RESAMPLES: usize = 200;
/// Replays the window is compared with.
const REPLAYS: u32 = 9;
/// Retries not declared: one attempt.
const ATTEMPTS_ASSUMED: u32 = 1;

/// The window a model is fitted to, and what is known from before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Start.
    pub from: Timestamp,
    /// End, exclusive; early enough that all spans of requests that began before it have arrived.
    pub to: Timestamp,
    /// Measured times from start to ready, milliseconds, by service.
    pub start_up_ms: BTreeMap<String, Vec<u64>>,
}

base::record! {
    /// One line of the self-check.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Fitted {
        /// The entry.
        1 pub root: String,
        /// `p50`, `p99` or `throughput`.
        2 pub what: String,
        /// In the window: microseconds, or milli-requests per second.
        3 pub observed: u64,
        /// In the replay.
        4 pub replayed: u64,
        /// Relative error beyond the window's own 95% interval, permille.
        5 pub error_permille: u64,
    }
}

/// Why there is no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// No request entered in the window.
    #[error("no request entered between the start and the end of the fit window")]
    NoRoots,
    /// Too few executions of a service.
    #[error("{service} was executed {executions} times in the fit window; at least {EXECUTIONS_MIN} are needed")]
    TooFew {
        /// The service.
        service: String,
        /// How often.
        executions: u64,
    },
    /// The replay does not look like the window.
    #[error("the replay differs: {} of {} is {} instead of {}", .0.what, .0.root, .0.replayed, .0.observed)]
    Mismatch(Fitted),
}

/// One request in one service.
struct Execution<'a> {
    span: &'a Span,
    /// What the service itself did: its time without its callees'.
    own_us: u64,
    queued: bool,
    calls: Vec<Call>,
    root: bool,
}

/// One call it made; retries are calls of their own here.
struct Call {
    callee: String,
    start_us: u64,
    failed: bool,
    asynchronous: bool,
}

/// Fits a model to the requests that began in the window. What the topology declares goes first.
///
/// # Errors
/// [`Unfit`]: the preview is then inconclusive.
pub fn fit(spans: &[Span], topology: &Topology, window: &Window) -> Result<(Fit, Vec<Fitted>), Unfit> {
    let executions = executions(spans, topology, window);
    let fit = Fit {
        services: services(&executions, topology, window)?,
        edges: edges(&executions, topology),
        roots: roots(&executions, topology, window)?,
    };
    let checks = self_check(&fit, &executions, window);
    match checks.iter().find(|check| check.error_permille > ERROR_MAX_PERMILLE) {
        Some(bad) => Err(Unfit::Mismatch(bad.clone())),
        None => Ok((fit, checks)),
    }
}

struct Index<'a> {
    spans: BTreeMap<(u128, u64), &'a Span>,
    children: BTreeMap<(u128, u64), Vec<&'a Span>>,
    /// Services that were entered at all.
    entered: BTreeSet<&'a str>,
    /// Services of which some execution has a caller in the data.
    called: BTreeSet<&'a str>,
}

impl<'a> Index<'a> {
    fn new(spans: &'a [Span]) -> Index<'a> {
        let mut index = Index {
            spans: spans.iter().map(|span| ((span.trace, span.id), span)).collect(),
            children: BTreeMap::new(),
            entered: BTreeSet::new(),
            called: BTreeSet::new(),
        };
        for span in spans {
            if let Some(parent) = span.parent {
                index.children.entry((span.trace, parent)).or_default().push(span);
            }
        }
        index.entered = spans.iter().filter(|span| index.enters(span)).map(|span| span.service.as_str()).collect();
        let called = spans.iter().filter(|span| {
            index.enters(span)
                && index.parent(span).is_some_and(|parent| index.entered.contains(parent.service.as_str()))
        });
        index.called = called.map(|span| span.service.as_str()).collect();
        index
    }

    fn parent(&self, span: &Span) -> Option<&'a Span> {
        self.spans.get(&(span.trace, span.parent?)).copied()
    }

    /// Whether the span is the work of one request in its service.
    fn enters(&self, span: &Span) -> bool {
        span.enters()
            || (!span.leaves() && self.parent(span).is_some_and(|parent| parent.service != span.service))
            || (!span.leaves() && span.parent.is_none())
    }

    /// Whether nobody in the data called it: its caller is the client.
    fn is_root(&self, span: &Span) -> bool {
        match (span.parent, self.parent(span)) {
            (None, _) => true,
            // The client's own span is not a service.
            (Some(_), Some(parent)) => !self.entered.contains(parent.service.as_str()),
            // The caller's span is lost, or the client sends a trace context and no spans.
            (Some(_), None) => !self.called.contains(span.service.as_str()),
        }
    }
}

fn executions<'a>(spans: &'a [Span], topology: &Topology, window: &Window) -> Vec<Execution<'a>> {
    let index = Index::new(spans);
    let micros = |at: Timestamp| u64::try_from(at.0).unwrap_or(0).saturating_mul(1_000);
    let (from, to) = (micros(window.from), micros(window.to));
    let inside = |span: &&Span| (from..to).contains(&span.start_us) && index.enters(span);
    let mut executions: Vec<Execution<'a>> = spans.iter().filter(inside).map(|span| execution(span, &index)).collect();
    executions.sort_by_key(|e| (e.span.start_us, e.span.trace, e.span.id));
    mark_queued(&mut executions, topology);
    executions
}

fn execution<'a>(span: &'a Span, index: &Index<'a>) -> Execution<'a> {
    let mut waits: Vec<(u64, u64)> = Vec::new();
    let mut calls = Vec::new();
    let mut open = vec![span];
    while let Some(current) = open.pop() {
        for child in index.children.get(&(current.trace, current.id)).into_iter().flatten() {
            if index.enters(child) {
                // Called without a client span of its own.
                let call = call_of(child, child);
                waits.extend(wait_of(&call, child));
                calls.push(call);
            } else if child.leaves() {
                let entered = index.children.get(&(child.trace, child.id)).into_iter().flatten();
                match entered.filter(|grand| index.enters(grand)).min_by_key(|grand| (grand.start_us, grand.id)) {
                    Some(grand) => {
                        let call = call_of(child, grand);
                        waits.extend(wait_of(&call, grand));
                        calls.push(call);
                    }
                    None => calls.extend(unanswered(child, index)),
                }
            } else {
                open.push(child);
            }
        }
    }
    calls.sort_by_key(|call| call.start_us);
    let waited = union(waits, span.start_us, span.end_us());
    let own_us = span.duration_us.saturating_sub(waited);
    Execution { span, own_us, queued: false, calls, root: index.is_root(span) }
}

fn call_of(call: &Span, callee: &Span) -> Call {
    Call {
        callee: callee.service.clone(),
        start_us: call.start_us,
        failed: call.is_error(),
        asynchronous: callee.kind == Kind::Consumer || call.kind == Kind::Producer,
    }
}

/// The time the caller waited: the callee's own span, so that the way between them stays the caller's.
fn wait_of(call: &Call, callee: &Span) -> Option<(u64, u64)> {
    (!call.asynchronous).then(|| (callee.start_us, callee.end_us()))
}

/// A call whose callee sent no span: refused, shed, or lost on the way. It counts if its service is known.
fn unanswered(call: &Span, index: &Index<'_>) -> Option<Call> {
    let peer = call.peer.as_ref().filter(|peer| peer.kind == PeerKind::Service)?;
    index.entered.contains(peer.name.as_str()).then(|| Call {
        callee: peer.name.clone(),
        start_us: call.start_us,
        failed: call.is_error(),
        asynchronous: call.kind == Kind::Producer,
    })
}

/// Length of the union of intervals within the given bounds.
fn union(mut intervals: Vec<(u64, u64)>, from: u64, to: u64) -> u64 {
    intervals.sort_unstable();
    let (mut total, mut reached) = (0, from);
    for (start, end) in intervals {
        let (start, end) = (start.max(reached), end.min(to));
        if end > start {
            total += end - start;
            reached = end;
        }
    }
    total
}

/// Marks executions that began while all declared workers of their instance were busy.
fn mark_queued(executions: &mut [Execution<'_>], topology: &Topology) {
    let mut running: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
    for execution in executions {
        let span = execution.span;
        let instance = span.instance.as_deref().unwrap_or("");
        let ends = running.entry((span.service.as_str(), instance)).or_default();
        ends.retain(|end| *end > span.start_us);
        let workers = topology.service.get(&span.service).and_then(|service| service.workers);
        execution.queued = workers.is_some_and(|workers| ends.len() >= workers as usize);
        ends.push(span.end_us());
    }
}

fn services(executions: &[Execution<'_>], topology: &Topology, window: &Window) -> Result<Vec<ServiceFit>, Unfit> {
    let mut by_service: BTreeMap<&str, Vec<&Execution<'_>>> = BTreeMap::new();
    for execution in executions {
        by_service.entry(&execution.span.service).or_default().push(execution);
    }
    let fits = by_service.into_iter().map(|(name, executions)| {
        if executions.len() < EXECUTIONS_MIN {
            let executions = executions.len() as u64;
            return Err(Unfit::TooFew { service: name.to_owned(), executions });
        }
        Ok(service(name, &executions, topology.service.get(name), window))
    });
    fits.collect()
}

fn service(name: &str, executions: &[&Execution<'_>], declared: Option<&Service>, window: &Window) -> ServiceFit {
    let unqueued: Vec<u64> = executions.iter().filter(|e| !e.queued).map(|e| e.own_us).collect();
    let all = || executions.iter().map(|e| e.own_us).collect();
    // All queued: better the longer times than none.
    let times = if unqueued.is_empty() { all() } else { unqueued };
    let instances: BTreeSet<Option<&str>> = executions.iter().map(|e| e.span.instance.as_deref()).collect();
    let start_up = window.start_up_ms.get(name).filter(|known| !known.is_empty());
    let workers = declared.and_then(|service| service.workers);
    let objective = declared.and_then(|service| service.objective);
    ServiceFit {
        name: name.to_owned(),
        replicas: declared.map_or(u32::try_from(instances.len()).unwrap_or(1), |service| service.replicas.start).max(1),
        workers: workers.unwrap_or_else(|| busiest(executions)),
        workers_from: if workers.is_some() { Source::Declared } else { Source::Measured },
        queue_max: declared.and_then(|service| service.queue_max),
        times_us: sample(times),
        start_up_us: start_up
            .map_or_else(|| START_UP_ASSUMED_US.to_vec(), |ms| sample(ms.iter().map(|ms| ms * 1_000).collect())),
        start_up_from: if start_up.is_some() { Source::Measured } else { Source::Assumed },
        p99_us: objective.and_then(|objective| objective.p99).map(|p99| p99.0.saturating_mul(1_000)),
        errors_ppm: objective.and_then(|objective| objective.errors).map(base::Ratio::ppm),
        min_available: declared.and_then(|service| service.min_available),
        quorum_of: declared.and_then(|service| service.quorum_of),
        capacity_mrps: declared.and_then(|service| service.capacity_rps).map(|rps| u64::from(rps) * 1_000),
    }
}

/// Largest number in flight in one instance.
fn busiest(executions: &[&Execution<'_>]) -> u32 {
    let mut running: BTreeMap<Option<&str>, Vec<u64>> = BTreeMap::new();
    let mut most = 1;
    for execution in executions {
        let ends = running.entry(execution.span.instance.as_deref()).or_default();
        ends.retain(|end| *end > execution.span.start_us);
        ends.push(execution.span.end_us());
        most = most.max(ends.len());
    }
    u32::try_from(most).unwrap_or(u32::MAX)
}

/// At most [`SAMPLES_MAX`] quantiles, ascending.
pub(super) fn sample(mut values: Vec<u64>) -> Vec<u32> {
    values.sort_unstable();
    let kept = values.len().min(SAMPLES_MAX);
    let at = |i: usize| values[(2 * i + 1) * values.len() / (2 * kept)];
    (0..kept).map(|i| u32::try_from(at(i)).unwrap_or(u32::MAX)).collect()
}

#[derive(Default)]
struct Seen {
    /// Calls without retries.
    calls: u64,
    /// Sum of the calls' offsets from the start of their execution, and how many.
    offset_us: u64,
    offsets: u64,
    asynchronous: bool,
}

fn edges(executions: &[Execution<'_>], topology: &Topology) -> Vec<EdgeFit> {
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    let mut seen: BTreeMap<(&str, &str), Seen> = BTreeMap::new();
    for execution in executions {
        let caller = execution.span.service.as_str();
        *totals.entry(caller).or_default() += 1;
        let mut pending: BTreeSet<&str> = BTreeSet::new();
        for call in execution.calls.iter().filter(|call| call.callee != caller) {
            let entry = seen.entry((caller, &call.callee)).or_default();
            // A call after a failed one to the same callee is its retry.
            if !pending.remove(call.callee.as_str()) {
                entry.calls += 1;
                entry.offset_us += call.start_us.saturating_sub(execution.span.start_us);
                entry.offsets += 1;
            }
            if call.failed {
                pending.insert(&call.callee);
            }
            entry.asynchronous |= call.asynchronous;
        }
    }
    let mut edges: Vec<(u64, EdgeFit)> = Vec::new();
    for ((caller, callee), seen) in &seen {
        let executions = totals.get(caller).copied().unwrap_or(1).max(1);
        let permille = u32::try_from(seen.calls * 1_000 / executions).unwrap_or(u32::MAX);
        let declared = topology.edge(caller, callee);
        let offset = seen.offset_us / seen.offsets.max(1);
        edges.push((offset, edge(caller, callee, permille, declared, seen.asynchronous)));
    }
    edges.sort_by(|(a_at, a), (b_at, b)| (&a.caller, a_at, &a.callee).cmp(&(&b.caller, b_at, &b.callee)));
    edges.into_iter().map(|(_, edge)| edge).collect()
}

fn edge(caller: &str, callee: &str, permille: u32, declared: Option<&Edge>, asynchronous: bool) -> EdgeFit {
    let retry = declared.and_then(|edge| edge.retry);
    let known = declared.is_some_and(|edge| edge.timeout.is_some() || edge.retry.is_some());
    EdgeFit {
        caller: caller.to_owned(),
        callee: callee.to_owned(),
        calls_permille: permille,
        timeout_us: declared.and_then(|edge| edge.timeout).map(|timeout| timeout.0.saturating_mul(1_000)),
        attempts: retry.map_or(ATTEMPTS_ASSUMED, |retry| retry.attempts),
        base_us: retry.map_or(0, |retry| retry.base.0.saturating_mul(1_000)),
        cap_us: retry.map_or(0, |retry| retry.cap.0.saturating_mul(1_000)),
        budget_ppm: retry.and_then(|retry| retry.budget).map(base::Ratio::ppm),
        asynchronous: asynchronous || declared.is_some_and(|edge| edge.kind.as_deref() == Some("async")),
        soft: declared.is_some_and(|edge| edge.hardness.as_deref() == Some("soft") || edge.fallback.is_some()),
        policy_from: if known { Source::Declared } else { Source::Assumed },
    }
}

fn roots(executions: &[Execution<'_>], topology: &Topology, window: &Window) -> Result<Vec<RootFit>, Unfit> {
    let start = u64::try_from(window.from.0).unwrap_or(0).saturating_mul(1_000);
    // A last, partial second would look like a lull.
    let seconds = usize::try_from(window.to.since(window.from).0 / 1_000).unwrap_or(0);
    let services: BTreeSet<&str> = executions.iter().map(|e| e.span.service.as_str()).collect();
    let mut counts: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for execution in executions.iter().filter(|execution| execution.root) {
        let second = usize::try_from(execution.span.start_us.saturating_sub(start) / 1_000_000).unwrap_or(usize::MAX);
        let entry = counts.entry(&execution.span.service).or_insert_with(|| vec![0; seconds]);
        if let Some(count) = entry.get_mut(second) {
            *count += 1;
        }
    }
    // Time from the client: declared on an edge from something that is no service.
    let timeout = |service: &str| {
        let into = topology.edge.iter().filter_map(|(name, edge)| Some((name.split_once("->")?, edge)));
        let clients = into.filter(|((caller, callee), _)| *callee == service && !services.contains(caller));
        clients.filter_map(|(_, edge)| edge.timeout).map(|timeout| timeout.0.saturating_mul(1_000)).max()
    };
    let evenly = |service: &str| {
        let mine = executions.iter().filter(|e| e.root && e.span.service == service);
        is_even(&mine.map(|e| e.span.start_us).collect::<Vec<u64>>())
    };
    let roots: Vec<RootFit> = counts
        .into_iter()
        .filter(|(_, counts)| counts.iter().any(|count| *count > 0))
        .map(|(service, per_second)| RootFit {
            service: service.to_owned(),
            per_second,
            timeout_us: timeout(service),
            periodic: evenly(service),
        })
        .collect();
    if roots.is_empty() { Err(Unfit::NoRoots) } else { Ok(roots) }
}

/// Whether ascending arrivals are more even than chance: the square of the variation of their distances is
/// 1 for independent arrivals and 0 for a clock.
fn is_even(arrivals: &[u64]) -> bool {
    let gaps = || arrivals.iter().zip(arrivals.iter().skip(1)).map(|(a, b)| u128::from(b - a));
    let count = gaps().count() as u128;
    let (sum, squares) = gaps().fold((0, 0), |(sum, squares), gap| (sum + gap, squares + gap * gap));
    // E[x²]/E[x]² − 1 below one half.
    count > 0 && 2 * squares * count < 3 * sum * sum
}

/// Replays the window and compares median, 99th percentile and throughput of each entry.
fn self_check(fit: &Fit, executions: &[Execution<'_>], window: &Window) -> Vec<Fitted> {
    let mut checks = Vec::new();
    let length_us = window.to.since(window.from).0.saturating_mul(1_000);
    for root in &fit.roots {
        let mine = executions.iter().filter(|e| e.root && e.span.service == root.service);
        let mut observed: Vec<u64> = mine.map(|e| e.span.duration_us).collect();
        observed.sort_unstable();
        let alone = Fit { roots: vec![root.clone()], ..fit.clone() };
        let many = fit.roots.len() > 1;
        let replayed = replay(if many { &alone } else { fit }, length_us);
        for (what, percent) in [("p50", 50), ("p99", 99)] {
            let interval = interval(&observed, percent);
            // One congestion moves a whole window's p99, so replays differ among themselves: they are a range too.
            let mut each: Vec<u64> = replayed.iter().map(|latencies| rank(latencies, percent)).collect();
            each.sort_unstable();
            checks.push(compare(root, what, rank(&observed, percent), &each, interval, 1_000));
        }
        let rate = root.rate_mrps();
        let seconds = (length_us / 1_000_000).max(1);
        let total: usize = replayed.iter().map(Vec::len).sum();
        let replayed_rate = total as u64 * 1_000 / seconds / u64::from(REPLAYS);
        // Counts of independent arrivals vary with their root; two of those are the 95% interval.
        let spread = (rate * seconds / 1_000).isqrt() * 2 * 1_000 / seconds;
        let interval = (rate.saturating_sub(spread), rate + spread);
        checks.push(compare(root, "throughput", rate, &[replayed_rate], interval, 1_000));
    }
    checks
}

/// The sorted latencies of each replay.
fn replay(fit: &Fit, length_us: u64) -> Vec<Vec<u64>> {
    let input = Input {
        fit: fit.clone(),
        plan: Digest::default(),
        steps: Vec::new(),
        impairments: Vec::new(),
        impaired: Vec::new(),
        settings: BTreeMap::new(),
        since_onset_ms: 0,
        config: Config { runs: REPLAYS, ..Config::default() },
        bounds: Bounds::default(),
    };
    let compiled = Compiled::new(&input);
    let one = |index| {
        let outcome = Run::new(&compiled, index, Mode::Healthy(length_us)).finish();
        let mut latencies: Vec<u64> = outcome.latencies.into_iter().map(u64::from).collect();
        latencies.sort_unstable();
        latencies
    };
    (0..REPLAYS).map(one).collect()
}

/// `replays` ascend; the middle one is shown.
fn compare(root: &RootFit, what: &str, observed: u64, replays: &[u64], (low, high): (u64, u64), floor: u64) -> Fitted {
    let at = |index: usize| replays.get(index).copied().unwrap_or(0);
    let (lowest, replayed, highest) = (at(0), at(replays.len() / 2), at(replays.len().saturating_sub(1)));
    // Between the nearer ends of the window's own interval and of the replays, and only what exceeds the floor.
    let apart = low.saturating_sub(highest).max(lowest.saturating_sub(high)).saturating_sub(floor);
    let error_permille = apart * 1_000 / observed.max(1);
    Fitted { root: root.service.clone(), what: what.to_owned(), observed, replayed, error_permille }
}

/// The 95% bootstrap interval of a percentile of sorted values.
fn interval(sorted: &[u64], percent: usize) -> (u64, u64) {
    let mut draw = Draw::new(0, 0, percent as u64);
    let mut resample = || {
        let one = |draw: &mut Draw| sorted.get(usize::try_from(draw.below(sorted.len() as u64)).unwrap_or(0));
        let mut values: Vec<u64> = (0..sorted.len()).filter_map(|_| one(&mut draw).copied()).collect();
        values.sort_unstable();
        rank(&values, percent)
    };
    let mut statistics: Vec<u64> = (0..RESAMPLES).map(|_| resample()).collect();
    statistics.sort_unstable();
    (statistics[RESAMPLES * 25 / 1_000], statistics[RESAMPLES * 975 / 1_000 - 1])
}

fn rank(sorted: &[u64], percent: usize) -> u64 {
    let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(at).copied().unwrap_or(0)
}
