//! Stage 6: the plan is tried on a model fitted to the live numbers of the time before the onset.

use super::detect::{Detected, Intended};
use super::propose::Revision;
use super::run::{Run, Stop, blob_of};
use super::view::PilotView;
use crate::platform::{Reading, suspect};
use base::canon::Canon as _;
use base::{Digest, Millis, Timestamp};
use governance::admission::{Fix, Forecast, Growth};
use governance::invariants::{Evaluation, Needs, Reading as SignalReading, Signal, Signals, WaveCapacity, evaluate};
use governance::policy::{Effective, Fidelity};
use governance::record::{Bound, Divergence, Pilot, PilotResult, TargetDigest, Touched};
use recovery::model::{
    Bounds, Config, FindingKind, Fit, Health, Impairment, Input, Mutable, Report, Step, Window, find_fix, fit, preview,
};
use recovery::span::Span;
use recovery::topology::Topology;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An instance that ended no request for so long is silent.
const LATELY: Millis = Millis(1_500);

/// What stage 6 found.
#[derive(Clone, Debug)]
pub(super) struct Preview {
    pub(super) statement: Digest,
    pub(super) result: PilotResult,
    pub(super) taken_at: Timestamp,
    pub(super) took: Millis,
    pub(super) bound: Digest,
    pub(super) report: Option<Report>,
    pub(super) fixes: BTreeMap<FindingKind, Fix>,
    pub(super) invariants: Vec<Evaluation>,
}

/// What the model's thread gives back.
struct Modeled {
    report: Report,
    fixes: BTreeMap<FindingKind, Fix>,
    fit: Fit,
}

/// Which of the signals that the model is fitted to were there.
struct Coverage {
    seen: Vec<String>,
    lacking: Vec<String>,
}

impl Coverage {
    fn of(spans: &[Span], reading: &Reading) -> Coverage {
        let signals = [
            ("spans", !spans.is_empty()),
            ("proxy", reading.proxy.is_some()),
            ("supervisor", reading.status.is_some()),
        ];
        let (seen, lacking): (Vec<_>, Vec<_>) = signals.into_iter().partition(|(_, is_there)| *is_there);
        let names = |of: Vec<(&str, bool)>| of.into_iter().map(|(name, _)| name.to_owned()).collect();
        Coverage { seen: names(seen), lacking: names(lacking) }
    }
}

/// What stage 6 settles with.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct PreviewValue {
    statement: String,
    completed: bool,
    taken_at_ms: i64,
    took_ms: u64,
    bound: String,
    report: Option<String>,
    fixes: BTreeMap<String, (String, String, i64, i64)>,
}

impl Run {
    /// Fits, runs and reports. A model that does not fit is an inconclusive preview, never a good one.
    pub(super) async fn preview(
        &mut self,
        effective: &Effective,
        detected: &Detected,
        intended: &Intended,
        revision: &Revision,
    ) -> Result<Preview, Stop> {
        let name = format!("pilot.{}", revision.number);
        if let Some(done) = self.recorded::<PreviewValue>(&name)
            && let Some(preview) = self.restored(&done, effective)
        {
            return Ok(preview);
        }
        let started = self.now();
        let onset = Timestamp(detected.onset_ms);
        let spans = self.app.telemetry.spans(onset.minus(effective.tier.windows.baseline), started);
        let signals = Coverage::of(&spans, &revision.reading);
        let ran = if signals.lacking.is_empty() {
            self.app.env.compute(self.model_work(effective, detected, revision, spans)).await
        } else {
            Ok(Err(format!("nothing is known from: {}", signals.lacking.join(", "))))
        };
        let (report, fixes, fit_blob, causes) = match ran {
            Ok(Ok(Modeled { report, fixes, fit })) => (Some(report), fixes, Some(blob_of("model", &fit).1), Vec::new()),
            Ok(Err(cause)) => (None, BTreeMap::new(), None, vec![cause]),
            Err(_) => (None, BTreeMap::new(), None, vec!["the model stopped".to_owned()]),
        };
        let taken_at = self.now();
        let took = taken_at.since(started);
        let bound = self.bound(revision).await;
        let bound_digest = Digest::of_object("bound", &bound);
        let invariants: Vec<Evaluation> =
            report.as_ref().map(|report| capacity_floor(report, effective)).into_iter().collect();
        let bound_blob = blob_of("bound", &bound).1;
        let (record, blob) =
            self.pilot_record(revision, intended, &report, causes.clone(), signals, &invariants, bound, taken_at, took);
        let mut batch = self.batch();
        batch.blob(bound_blob);
        fit_blob.map(|blob| batch.blob(blob));
        let report_digest = blob.map(|blob| batch.blob(blob));
        let result = record.result;
        let statement = batch.record(&self.app.keys.runner, record)?;
        let preview = Preview { statement, result, taken_at, took, bound: bound_digest, report, fixes, invariants };
        self.settle(&name, &preview.value(report_digest), batch).await?;
        self.say_preview(effective, revision, &preview, &causes);
        self.spent(6);
        Ok(preview)
    }

    fn restored(&self, done: &PreviewValue, effective: &Effective) -> Option<Preview> {
        let report = match &done.report {
            Some(digest) => {
                let bytes = self.app.engine.blob(&Digest::parse(digest)?).ok()??;
                Some(Report::from_value(base::canon::parse_object("report", &bytes).ok()?).ok()?)
            }
            None => None,
        };
        let fixes = done.fixes.iter().filter_map(|(kind, (parameter, step, from, to))| {
            let fix = Fix { parameter: parameter.clone(), step: step.clone(), from: *from, to: *to };
            Some((FindingKind::parse(kind)?, fix))
        });
        Some(Preview {
            statement: Digest::parse(&done.statement)?,
            result: if done.completed { PilotResult::Completed } else { PilotResult::Inconclusive },
            taken_at: Timestamp(done.taken_at_ms),
            took: Millis(done.took_ms),
            bound: Digest::parse(&done.bound)?,
            fixes: fixes.collect(),
            invariants: report.as_ref().map(|report| capacity_floor(report, effective)).into_iter().collect(),
            report,
        })
    }

    fn model_work(
        &self,
        effective: &Effective,
        detected: &Detected,
        revision: &Revision,
        spans: Vec<Span>,
    ) -> impl FnOnce() -> Result<Modeled, String> + use<> {
        let onset = Timestamp(detected.onset_ms);
        let topology = self.app.topology.clone();
        let window = Window {
            from: onset.minus(effective.tier.windows.baseline),
            to: onset,
            start_up_ms: start_ups(&revision.reading),
        };
        let since_onset_ms = self.now().since(onset).0;
        let steps = revision.checked.steps().iter().map(model_step).collect();
        let (plan, config, bounds) =
            (revision.checked.digest(), model_config(effective, &revision.checked.digest()), model_bounds(effective));
        let settings = revision.world.settings.state.clone();
        let reading = revision.reading.clone();
        let mutables = mutables(effective);
        let impaired = detected.impaired.clone();
        move || {
            let (fit, _) = fit(&spans, &topology, &window).map_err(|error| error.to_string())?;
            let impairments = impairments(&reading, &topology, onset, &fit, &spans);
            let input = Input { fit, plan, steps, impairments, impaired, settings, since_onset_ms, config, bounds };
            let report = preview(&input);
            let breaches: Vec<_> = report.breaches().cloned().collect();
            let fixes = breaches.iter().filter_map(|breach| {
                let change = find_fix(&input, breach, &mutables)?;
                let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
                let fix = Fix {
                    parameter: change.parameter,
                    step: change.step,
                    from: signed(change.from),
                    to: signed(change.to),
                };
                Some((breach.kind, fix))
            });
            let fixes = fixes.collect();
            Ok(Modeled { report, fixes, fit: input.fit })
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a record says everything the stage found")]
    fn pilot_record(
        &self,
        revision: &Revision,
        intended: &Intended,
        report: &Option<Report>,
        causes: Vec<String>,
        signals: Coverage,
        invariants: &[Evaluation],
        bound: Bound,
        taken_at: Timestamp,
        took: Millis,
    ) -> (Pilot, Option<Vec<u8>>) {
        let blob = report.as_ref().map(|report| blob_of("report", report));
        let steps = revision.checked.steps();
        let modeled = |key: &String| {
            report.as_ref().is_some_and(|report| report.steps.iter().any(|step| &step.key == key && step.modeled))
        };
        let levels = steps.iter().filter(|step| modeled(&step.key)).map(|step| (step.key.clone(), Fidelity::F0));
        let mut suppressed = BTreeMap::new();
        suppressed.insert("action".to_owned(), steps.len() as u64);
        let record = Pilot {
            result: if report.is_some() { PilotResult::Completed } else { PilotResult::Inconclusive },
            causes,
            intent: Digest::parse(&intended.statement).unwrap_or_default(),
            plan: revision.checked.digest(),
            levels: levels.collect(),
            tree: report.as_ref().map_or(Digest::default(), |report| report.path),
            path: report.as_ref().map_or(Digest::default(), |report| report.path),
            report: blob.as_ref().map_or(Digest::default(), |(digest, _)| *digest),
            suppressed,
            refusals: Vec::new(),
            escapes: None,
            divergences: divergences(report.as_ref()),
            invariants: invariants.to_vec(),
            signals_seen: signals.seen,
            signals_lacking: signals.lacking,
            quiet: None,
            residue: None,
            interference: None,
            runs: report.as_ref().map_or(0, |report| u64::from(report.runs)),
            seed: seed_of(&revision.checked.digest()),
            nonce: 1,
            not_modeled: report.as_ref().map(|report| report.not_modeled.clone()).unwrap_or_default(),
            bound,
            taken_at,
            took,
            touched: Touched::Nothing,
        };
        (record, blob.map(|(_, bytes)| bytes))
    }

    /// What records are true of: graph slice, binaries, configuration, versions; read now.
    pub(super) async fn bound(&self, revision: &Revision) -> Bound {
        let seeds: Vec<String> = revision.world.targets.clone();
        let names: Vec<&str> = seeds.iter().map(String::as_str).collect();
        let snapshot = self.app.telemetry.snapshot();
        let slice = snapshot.slice(&names);
        let fields: Vec<String> = revision.checked.steps().iter().flat_map(|step| step.bound.keys().cloned()).collect();
        let now = self.now();
        let reading = match &self.app.platform {
            Some(platform) => platform.read(now, now).await,
            None => Reading::default(),
        };
        let versions = crate::remediation::facts::settings(&reading).versions;
        let configured = TargetDigest {
            target: "topology".into(),
            digest: Digest::of(self.app.policy_text.as_bytes()),
            attestation: None,
        };
        Bound {
            config: vec![configured],
            topology: slice.digest(),
            provenance: crate::provenance::of(&self.app.env, &self.app.topology, revision.checked.writes()).await,
            topology_epoch: 0,
            versions: versions.into_iter().filter(|(field, _)| fields.contains(field)).collect(),
        }
    }

    fn say_preview(&self, effective: &Effective, revision: &Revision, preview: &Preview, causes: &[String]) {
        let n = revision.number;
        let limit = effective.tier.economics.retry_amplification_max_ppm / 1_000;
        let took = format!("{}.{}s", preview.took.0 / 1_000, preview.took.0 % 1_000 / 100);
        let mut shown = PilotView {
            revision: n,
            level: "F0".into(),
            result: preview.result.to_string(),
            ms: preview.took.0,
            retries_max_permille: limit,
            ..PilotView::default()
        };
        if let Some(report) = &preview.report {
            shown.runs = report.runs;
            shown.retries_permille = report.amplification_permille;
            shown.not_modeled.clone_from(&report.not_modeled);
            shown.findings = report.breaches().map(|finding| finding_text(finding, &preview.fixes)).collect();
            self.say(format!(
                "preview r{n}     on a model fitted to the live numbers, nothing touched, {took}, {} runs",
                report.runs
            ));
            for line in &shown.findings {
                self.say(format!("               ✗ {line}"));
            }
            if shown.findings.is_empty() {
                self.say(format!(
                    "               retries {} (limit {}) · queue drains in {} · no bound exceeded",
                    times(report.amplification_permille),
                    times(limit),
                    seconds(report.drain_p95_ms)
                ));
            }
        } else {
            self.say(format!("preview r{n}     inconclusive, {took}: {}", causes.join("; ")));
        }
        self.show(|view| view.pilots.push(shown));
    }
}

impl Preview {
    fn value(&self, report: Option<Digest>) -> PreviewValue {
        let fixes = self
            .fixes
            .iter()
            .map(|(kind, fix)| (kind.word().to_owned(), (fix.parameter.clone(), fix.step.clone(), fix.from, fix.to)));
        PreviewValue {
            statement: self.statement.to_string(),
            completed: self.report.is_some(),
            taken_at_ms: self.taken_at.0,
            took_ms: self.took.0,
            bound: self.bound.to_string(),
            report: report.map(|digest| digest.to_string()),
            fixes: fixes.collect(),
        }
    }

    /// A forecast with the fix that was found for it.
    pub(super) fn forecast(&self, kind: FindingKind, value: u64) -> Option<Forecast> {
        self.report.as_ref().map(|_| Forecast { value, fix: self.fixes.get(&kind).cloned() })
    }

    /// How often the fault grew.
    pub(super) fn growth(&self) -> Option<Growth> {
        let report = self.report.as_ref()?;
        let (k, n) = (u64::from(report.grown), u64::from(report.runs));
        let upper_ppm = u64::from(recovery::stats::cp_upper(k, n, 50_000).ppm());
        Some(Growth { k, n, upper_ppm, fix: self.fixes.get(&FindingKind::Growth).cloned() })
    }
}

/// The capacity floor over every wave of the plan, as the model sees it.
pub(super) fn capacity_floor(report: &Report, effective: &Effective) -> Evaluation {
    let mut signals = Signals::default();
    signals.insert("waves", waves_signal(report));
    evaluate("capacity-floor", &signals, &Needs::of(effective))
}

/// Capacity wave by wave as a signal.
pub(super) fn waves_signal(report: &Report) -> Signal {
    let waves = report.waves.iter().map(|wave| WaveCapacity {
        wave: format!("{} {} wave {}", wave.step, wave.service, wave.wave),
        capacity_mrps: wave.capacity_mrps,
        load_mrps: wave.load_mrps,
        members: u64::from(wave.ready),
        takes_out_serving: wave.taken > 0,
    });
    let reading = SignalReading::Waves(waves.collect());
    Signal { reading, unit: "waves".into(), age: Millis(0), sources: vec!["supervisor".into(), "spans".into()] }
}

/// Milliseconds as `12.5 s`.
fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

/// Permille as `1.6x`.
pub(super) fn times(permille: u64) -> String {
    format!("{}.{}x", permille / 1_000, permille % 1_000 / 100)
}

fn finding_text(finding: &recovery::model::Finding, fixes: &BTreeMap<FindingKind, Fix>) -> String {
    let value = |number: Option<u64>| match (finding.kind, number) {
        (_, None) => "beyond what was simulated".to_owned(),
        (FindingKind::Amplification, Some(permille)) => times(permille),
        (FindingKind::Drain | FindingKind::Delay | FindingKind::Convergence, Some(ms)) => seconds(ms),
        (FindingKind::Backlog | FindingKind::Growth, Some(count)) => count.to_string(),
    };
    let what = match finding.kind {
        FindingKind::Amplification => "retries would grow to",
        FindingKind::Backlog => "the backlog would reach",
        FindingKind::Drain => "draining would take",
        FindingKind::Delay => "the commit would take",
        FindingKind::Convergence => "recovery would take",
        FindingKind::Growth => "services impaired anew:",
    };
    let whom = if finding.kind == FindingKind::Growth { format!(", first {}", finding.subject) } else { String::new() };
    let at = finding.step.as_ref().map(|step| format!(" at step {step}")).unwrap_or_default();
    let fix = fixes.get(&finding.kind).map_or_else(
        || " → no fix within the policy's bounds".to_owned(),
        |fix| format!(" → change {} from {} to {}", fix.parameter, fix.from, fix.to),
    );
    format!("{what} {} (limit {}){whom}{at}{fix}", value(finding.value), value(Some(finding.bound)))
}

pub(super) fn divergences(report: Option<&Report>) -> Vec<Divergence> {
    let storm = report.is_some_and(|report| report.breaches().any(|f| f.kind == FindingKind::Amplification));
    if storm { vec![Divergence::ReplayStorm] } else { Vec::new() }
}

fn model_step(step: &recovery::check::CheckedStep) -> Step {
    Step {
        key: step.key.clone(),
        action: step.action.clone(),
        desired: step.desired.clone(),
        done_ms: step.done_ms,
        guard_ms: step.guard_ms,
        deadline_ms: step.deadline_ms,
    }
}

fn model_config(effective: &Effective, plan: &Digest) -> Config {
    Config {
        seed: seed_of(plan),
        impaired_for_ms: effective.tier.windows.impaired_for.0,
        t_budget_ms: effective.tier.limits.t_budget.0,
        ..Config::default()
    }
}

fn seed_of(plan: &Digest) -> u64 {
    plan.0.iter().take(8).fold(0, |seed, byte| (seed << 8) | u64::from(*byte))
}

fn model_bounds(effective: &Effective) -> Bounds {
    let economics = &effective.tier.economics;
    Bounds {
        amplification_permille: Some(economics.retry_amplification_max_ppm / 1_000),
        backlog: Some(economics.backlog_max),
        drain_ms: Some(economics.drain_max.0),
        delay_ms: Some(effective.tier.limits.max_delay.0),
        convergence_ms: Some(effective.class.converge_deadline.0),
    }
}

fn mutables(effective: &Effective) -> Vec<Mutable> {
    let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
    let ranges = effective.class.mutable.iter();
    let mutable = |(name, range): (&String, &governance::policy::MutableRange)| Mutable {
        parameter: name.clone(),
        min: unsigned(range.min),
        max: unsigned(range.max),
        step: unsigned(range.step),
        safer_down: !range.safer_up,
    };
    ranges.map(mutable).collect()
}

fn start_ups(reading: &Reading) -> BTreeMap<String, Vec<u64>> {
    let mut times: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let ready = reading.status.iter().flat_map(|status| &status.instances).filter(|instance| instance.ready);
    for instance in ready {
        let took = Timestamp(instance.ready_since_ms).since(Timestamp(instance.started_at_ms));
        times.entry(instance.service.clone()).or_default().push(took.0);
    }
    times
}

/// What is wrong with each instance that serves nobody: gone, silent, late, or answering errors; and the change of
/// configuration that is taken for its cause.
fn impairments(reading: &Reading, topology: &Topology, onset: Timestamp, fit: &Fit, spans: &[Span]) -> Vec<Impairment> {
    let all = reading.status.iter().flat_map(|status| &status.instances).filter(|instance| !reading.serves(instance));
    let known = all.filter(|instance| fit.service(&instance.service).is_some());
    known
        .map(|instance| {
            let health = match (instance.alive, instance.ready) {
                (false, _) => Health::Down,
                (true, true) => Health::Failing(until_error_us(&instance.name(), fit, spans, reading.at)),
                (true, false) => silent_or_slow(&instance.name(), fit, spans, reading.at),
            };
            let cause = suspect(reading, topology, &instance.service, onset).filter(|_| instance.ready);
            Impairment {
                service: instance.service.clone(),
                replica: instance.replica,
                health,
                caused_by: cause.map(|cause| cause.object),
            }
        })
        .collect()
}

/// An instance that answered lately is slow by what it took beyond the usual; one that did not is hung.
fn silent_or_slow(name: &str, fit: &Fit, spans: &[Span], now: Timestamp) -> Health {
    // What it refused at once says nothing of how long it takes.
    match (median_us(name, spans, now, false), usual_us(name, fit)) {
        (Some(median), Some(usual)) => Health::Slow(median.saturating_sub(usual)),
        _ => Health::Hung,
    }
}

/// A worker's time before an error: what errors took lately, at most what an answer takes usually, because waiting for a
/// worker is no work.
fn until_error_us(name: &str, fit: &Fit, spans: &[Span], now: Timestamp) -> u64 {
    let usual = usual_us(name, fit).unwrap_or(u64::MAX);
    median_us(name, spans, now, true).unwrap_or(0).min(usual)
}

/// The median time of what an instance answered lately, errors or the others.
fn median_us(name: &str, spans: &[Span], now: Timestamp, errors: bool) -> Option<u64> {
    let since_us = u64::try_from(now.minus(LATELY).0).unwrap_or(0).saturating_mul(1_000);
    let answered = |span: &&Span| span.enters() && span.is_error() == errors && span.instance.as_deref() == Some(name);
    let mine = spans.iter().filter(answered);
    let mut times: Vec<u64> = mine.filter(|span| span.end_us() >= since_us).map(|span| span.duration_us).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

fn usual_us(name: &str, fit: &Fit) -> Option<u64> {
    let service = fit.service(name.split('@').next().unwrap_or(name))?;
    service.times_us.get(service.times_us.len() / 2).map(|usual| u64::from(*usual))
}
