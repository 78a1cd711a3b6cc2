//! All runs together: what a preview says.

use super::arithmetic::{self, QuorumPhase, Wave};
use super::compile::{CLIENT, Compiled, HOPS_MAX, Stage};
use super::engine::{Counts, FIRST_STEP, HEALTHY, IMPAIRED, Mode, Outcome, Run};
use super::{FIX_RUNS_MAX, Input, Step};
use crate::isa::ActionKind;
use base::Digest;

/// Calls a window needs before its ratio means anything.
const CALLS_MIN: u64 = 20;
/// What a preview at this level can never see.
const NEVER_MODELED: [&str; 6] = [
    "code paths, data and configuration of the services",
    "processor, memory, disk and network of the hosts",
    "caches and their warming",
    "autoscalers and other controllers",
    "leases and locks held by the services themselves",
    "coupling that no call shows",
];

base::word_enum! {
    /// What a run may exceed.
    pub enum FindingKind {
        /// Attempts per logical request along a path.
        Amplification = 1 "amplification",
        /// Requests waiting in one service.
        Backlog = 2 "backlog",
        /// Time until the backlog is normal.
        Drain = 3 "drain",
        /// Time to carry out the plan.
        Delay = 4 "delay",
        /// Time until everything is normal.
        Convergence = 5 "convergence",
        /// A service impaired that was not.
        Growth = 6 "growth",
    }
}

base::record! {
    /// Something that runs showed and a bound forbids.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Finding {
        /// What.
        1 pub kind: FindingKind,
        /// The step in which it was worst, in the first run that showed it.
        2 pub step: Option<String>,
        /// The edge or service, in the same run.
        3 pub subject: String,
        /// 95th percentile over the runs; absent: beyond what was simulated.
        4 pub value: Option<u64>,
        /// What is allowed.
        5 pub bound: u64,
        /// Runs that exceeded it.
        6 pub count: u32,
        /// The first of them; it can be replayed alone.
        7 pub first_run: u32,
        /// The first [`FIX_RUNS_MAX`] of them.
        8 pub runs: Vec<u32>,
        /// The 95th percentile exceeds the bound.
        9 pub breached: bool,
    }
}

base::record! {
    /// Attempts per logical call of one edge, permille.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct EdgeAttempts {
        /// The edge.
        1 pub edge: String,
        /// Over all runs.
        2 pub mean_permille: u64,
        /// 95th percentile of the runs.
        3 pub p95_permille: u64,
    }
}

base::record! {
    /// What one step looked like.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct StepReport {
        /// Its key.
        1 pub key: String,
        /// Its action.
        2 pub action: ActionKind,
        /// The model represents its effect.
        3 pub modeled: bool,
        /// Its attempts count for the bound.
        4 pub judged: bool,
        /// Edges that retry.
        5 pub edges: Vec<EdgeAttempts>,
        /// Along the worst path, 95th percentile of the runs.
        6 pub path_permille: u64,
        /// Good answers per request sent, over all runs.
        7 pub goodput_permille: u64,
    }
}

base::record! {
    /// How busy a service was during the plan.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Saturation {
        /// The service.
        1 pub service: String,
        /// Busy share of the workers that serve, 95th percentile of the runs.
        2 pub busy_permille: u64,
    }
}

base::record! {
    /// The result of a preview at level F0.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Report {
        /// Digest of the plan.
        1 pub plan: Digest,
        /// Digest of the fitted model.
        2 pub model: Digest,
        /// Runs, all valid.
        3 pub runs: u32,
        /// Hostile ones among them.
        4 pub hostile: u32,
        /// One simulated request stands for so many.
        5 pub thinning: u64,
        /// Events simulated.
        6 pub events: u64,
        /// The plan's steps.
        7 pub steps: Vec<StepReport>,
        /// Attempts per request along the worst path before the onset.
        8 pub healthy_permille: u64,
        /// The same between onset and plan.
        9 pub impaired_permille: u64,
        /// The same in the judged steps, 95th percentile of the runs.
        10 pub amplification_permille: u64,
        /// Runs in which a service became impaired that was not when the plan began.
        11 pub grown: u32,
        /// The first of them.
        12 pub grown_first: Option<u32>,
        /// The services.
        13 pub grown_services: Vec<String>,
        /// Largest backlog of one service, 95th percentile of the runs.
        14 pub backlog_peak: u64,
        /// Time until the backlog was normal, 95th percentile.
        15 pub drain_p95_ms: u64,
        /// Time to carry out the plan, median; absent: beyond the step deadlines.
        16 pub delay_p50_ms: Option<u64>,
        /// 95th percentile.
        17 pub delay_p95_ms: Option<u64>,
        /// Time until everything was normal, 95th percentile; absent: beyond what was simulated.
        18 pub convergence_p95_ms: Option<u64>,
        /// Runs that did not converge.
        19 pub unconverged: u32,
        /// The first of them stayed collapsed after its trigger was gone.
        20 pub never: bool,
        /// Good answers per request sent during the plan.
        21 pub goodput_permille: u64,
        /// Services above 80% busy.
        22 pub saturated: Vec<Saturation>,
        /// Services whose capacity now is below their load with every retry.
        23 pub vulnerable: Vec<String>,
        /// Hostile runs in which live work waited for something the plan's own work holds.
        24 pub contended: u32,
        /// What exceeded a bound.
        25 pub findings: Vec<Finding>,
        /// Capacity while each wave is out.
        26 pub waves: Vec<Wave>,
        /// Quorum sets in each phase.
        27 pub quorums: Vec<QuorumPhase>,
        /// 1.2 × the longest delay in the model; a run watches at least so long after its last step.
        28 pub horizon_ms: u64,
        /// The effect tree as lines.
        29 pub lines: Vec<String>,
        /// Digest of the lines.
        30 pub path: Digest,
        /// What this level does not represent.
        31 pub not_modeled: Vec<String>,
    }
}

/// What one run says about the bounds.
pub(super) struct Verdict {
    pub(super) kind: FindingKind,
    pub(super) step: Option<usize>,
    pub(super) subject: String,
    /// `None`: beyond what was simulated.
    pub(super) value: Option<u64>,
    pub(super) bound: Option<u64>,
}

/// Tries the plan on the model.
#[must_use]
pub fn preview(input: &Input) -> Report {
    let compiled = Compiled::new(input);
    let outcomes: Vec<Outcome> =
        (0..input.config.runs).map(|index| Run::new(&compiled, index, Mode::Plan).finish()).collect();
    let first_open = (0_u32..).zip(&outcomes).find(|(_, outcome)| outcome.converged_us.is_none());
    let never = first_open.is_some_and(|(index, _)| Run::new(&compiled, index, Mode::Metastable).finish().stays_down());
    let lines = path_lines(&input.steps);
    let horizon_ms = compiled.horizon_us() / 1_000;
    let values = |of: &dyn Fn(&Outcome) -> u64| quantile(outcomes.iter().map(of).collect(), 95).unwrap_or(0);
    let judged = judged_steps(&input.steps);
    let over = |windows: &[usize], outcome: &Outcome| worst_path(&compiled, outcome, windows).0;
    let judged_windows: Vec<usize> = judged.iter().map(|step| FIRST_STEP + step).collect();
    let grown: Vec<(u32, &Outcome)> = (0..).zip(&outcomes).filter(|(_, o)| !o.grown.is_empty()).collect();
    let plan_windows: Vec<usize> = (0..input.steps.len()).map(|step| FIRST_STEP + step).collect();
    let delays = |percent| within(outcomes.iter().map(|o| o.delay_us).collect(), percent);
    Report {
        plan: input.plan,
        model: input.fit.digest(),
        runs: input.config.runs,
        hostile: input.config.runs / 5,
        thinning: compiled.thinning,
        events: outcomes.iter().map(|outcome| outcome.events).sum(),
        steps: (0..input.steps.len()).map(|step| step_report(&compiled, &outcomes, step, &judged)).collect(),
        healthy_permille: values(&|o| over(&[HEALTHY], o)),
        impaired_permille: values(&|o| over(&[IMPAIRED], o)),
        amplification_permille: values(&|o| over(&judged_windows, o)),
        grown: count(grown.len()),
        grown_first: grown.first().map(|(index, _)| *index),
        grown_services: grown_services(&compiled, &outcomes),
        backlog_peak: values(&|o| o.backlog_peak),
        drain_p95_ms: values(&|o| o.drained_us) / 1_000,
        delay_p50_ms: delays(50),
        delay_p95_ms: delays(95),
        convergence_p95_ms: within(outcomes.iter().map(|o| o.converged_us).collect(), 95),
        unconverged: count(outcomes.iter().filter(|outcome| outcome.converged_us.is_none()).count()),
        never,
        goodput_permille: goodput(&outcomes, &plan_windows),
        saturated: saturated(&compiled, &outcomes),
        vulnerable: names(&compiled, &arithmetic::vulnerable(&compiled)),
        // Nothing the plan does here holds a lock, lease or slot that live work waits for.
        contended: 0,
        findings: findings(&compiled, &outcomes),
        waves: arithmetic::waves(&compiled),
        quorums: arithmetic::quorums(&compiled),
        horizon_ms,
        path: path_digest(&lines),
        lines,
        not_modeled: not_modeled(&compiled),
    }
}

impl Report {
    /// The findings whose 95th percentile exceeds the bound.
    pub fn breaches(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.breached)
    }

    /// The lowest state of all quorum phases: a plan that touches no set holds.
    #[must_use]
    pub fn is_quorum_safe(&self) -> bool {
        self.quorums.iter().all(|phase| phase.holds)
    }
}

impl Outcome {
    /// Whether the run ended without ever becoming normal.
    fn stays_down(&self) -> bool {
        self.converged_us.is_none()
    }
}

/// What one run shows, each kind with its bound if one is asked.
pub(super) fn verdicts(compiled: &Compiled<'_>, outcome: &Outcome) -> Vec<Verdict> {
    let bounds = &compiled.input.bounds;
    let windows: Vec<usize> = judged_steps(&compiled.input.steps).iter().map(|step| FIRST_STEP + step).collect();
    let (permille, window, edge) = worst_path(compiled, outcome, &windows);
    let step = window.checked_sub(FIRST_STEP);
    let last = compiled.steps.len().checked_sub(1);
    let service = |s: Option<usize>| s.map_or_else(String::new, |s| compiled.services[s].fit.name.clone());
    let verdict = |kind, step, subject, value, bound| Verdict { kind, step, subject, value, bound };
    let ms = |us: Option<u64>| us.map(|us| us / 1_000);
    let edge = edge.map_or_else(String::new, |e| compiled.edges[e].name.clone());
    let busiest = service((outcome.backlog_peak > 0).then_some(outcome.backlog_at));
    let failed = outcome.failed_step.or(last);
    vec![
        verdict(FindingKind::Amplification, step, edge, Some(permille), bounds.amplification_permille),
        verdict(FindingKind::Backlog, None, busiest.clone(), Some(outcome.backlog_peak), bounds.backlog),
        verdict(FindingKind::Drain, None, busiest, ms(Some(outcome.drained_us)), bounds.drain_ms),
        verdict(FindingKind::Delay, failed, String::new(), ms(outcome.delay_us), bounds.delay_ms),
        verdict(FindingKind::Convergence, None, String::new(), ms(outcome.converged_us), bounds.convergence_ms),
        verdict(
            FindingKind::Growth,
            None,
            service(outcome.grown.first().copied()),
            Some(outcome.grown.len() as u64),
            Some(0),
        ),
    ]
}

impl Verdict {
    pub(super) fn exceeds(&self) -> bool {
        self.bound.is_some_and(|bound| self.value.is_none_or(|value| value > bound))
    }
}

fn findings(compiled: &Compiled<'_>, outcomes: &[Outcome]) -> Vec<Finding> {
    let all: Vec<Vec<Verdict>> = outcomes.iter().map(|outcome| verdicts(compiled, outcome)).collect();
    let mut findings = Vec::new();
    for (k, kind) in FindingKind::ALL.iter().enumerate() {
        let over: Vec<u32> = (0..).zip(&all).filter(|(_, v)| v[k].exceeds()).map(|(index, _)| index).collect();
        let Some(first) = over.first().copied() else { continue };
        let witness = &all[first as usize][k];
        let mut values: Vec<u64> = all.iter().map(|verdicts| verdicts[k].value.unwrap_or(u64::MAX)).collect();
        values.sort_unstable();
        let p95 = quantile(values, 95).unwrap_or(u64::MAX);
        let bound = witness.bound.unwrap_or(0);
        findings.push(Finding {
            kind: *kind,
            step: witness.step.map(|step| compiled.steps[step].step.key.clone()),
            subject: witness.subject.clone(),
            value: (p95 < u64::MAX).then_some(p95),
            bound,
            count: count(over.len()),
            first_run: first,
            runs: over.into_iter().take(FIX_RUNS_MAX).collect(),
            breached: p95 > bound,
        });
    }
    findings
}

/// The steps whose attempts count: those after the first that takes load off, or all if none does.
fn judged_steps(steps: &[Step]) -> Vec<usize> {
    let first = steps.iter().position(Step::is_limiting);
    let from = first.map_or(0, |limiting| limiting + 1);
    // A plan that ends with its limit is judged in that very step.
    let from = from.min(steps.len().saturating_sub(1));
    (from..steps.len()).collect()
}

/// Attempts per request, multiplied along the worst path, the window of the worst, and its worst edge.
fn worst_path(compiled: &Compiled<'_>, outcome: &Outcome, windows: &[usize]) -> (u64, usize, Option<usize>) {
    let mut worst = (1_000, windows.first().copied().unwrap_or(0), None);
    for &window in windows {
        let ratios: Vec<u64> =
            outcome.counts.iter().map(|counts| ratio(counts[window], compiled.thinning).unwrap_or(1_000)).collect();
        let paths = worst_paths(compiled, &ratios);
        let product = compiled.roots.iter().map(|root| paths[root.edge]).max().unwrap_or(1_000);
        if product > worst.0 {
            let edge = (0..ratios.len()).max_by_key(|e| ratios[*e]);
            worst = (product, window, edge);
        }
    }
    worst
}

/// For each edge, the product of ratios along the worst path that begins with it. Paths are not listed: in a mesh
/// there are more of them than can be.
fn worst_paths(compiled: &Compiled<'_>, ratios: &[u64]) -> Vec<u64> {
    let mut worst = ratios.to_vec();
    for _ in 0..HOPS_MAX {
        let along = |(e, ratio): (usize, &u64)| {
            let callee = compiled.edges[e].callee;
            let calls = compiled.services[callee].calls.iter();
            // Below a service whose callees never retry there is nothing to multiply.
            let below = calls.filter(|next| compiled.edges[**next].callee != callee).map(|next| worst[*next]);
            ratio.saturating_mul(below.max().unwrap_or(1_000)) / 1_000
        };
        worst = ratios.iter().enumerate().map(along).collect();
    }
    worst
}

fn ratio(counts: Counts, thinning: u64) -> Option<u64> {
    (counts.calls * thinning >= CALLS_MIN).then(|| counts.attempts * 1_000 / counts.calls.max(1))
}

fn step_report(compiled: &Compiled<'_>, outcomes: &[Outcome], step: usize, judged: &[usize]) -> StepReport {
    let window = FIRST_STEP + step;
    let stage = &compiled.steps[step];
    let retrying = compiled.edges.iter().enumerate().filter(|(_, edge)| edge.caller != CLIENT && edge.attempts > 1);
    let edges = retrying.map(|(e, edge)| {
        let sum = outcomes.iter().fold(Counts::default(), |sum, o| sum.plus(o.counts[e][window]));
        let each = outcomes.iter().filter_map(|o| ratio(o.counts[e][window], compiled.thinning)).collect();
        EdgeAttempts {
            edge: edge.name.clone(),
            mean_permille: ratio(sum, compiled.thinning).unwrap_or(1_000),
            p95_permille: quantile(each, 95).unwrap_or(1_000),
        }
    });
    let paths = outcomes.iter().map(|outcome| worst_path(compiled, outcome, &[window]).0).collect();
    StepReport {
        key: stage.step.key.clone(),
        action: stage.kind,
        modeled: stage.kind != ActionKind::RollbackConfig && stage.ops.len() == stage.step.desired.len(),
        judged: judged.contains(&step),
        edges: edges.collect(),
        path_permille: quantile(paths, 95).unwrap_or(1_000),
        goodput_permille: goodput(outcomes, &[window]),
    }
}

impl Counts {
    fn plus(self, other: Counts) -> Counts {
        Counts { calls: self.calls + other.calls, attempts: self.attempts + other.attempts }
    }
}

fn goodput(outcomes: &[Outcome], windows: &[usize]) -> u64 {
    let roots = outcomes.iter().flat_map(|outcome| windows.iter().map(|window| outcome.roots[*window]));
    let (sent, good) = roots.fold((0, 0), |sum, roots| (sum.0 + roots.sent, sum.1 + roots.good));
    (good * 1_000_u64).checked_div(sent).unwrap_or(1_000).min(1_000)
}

fn saturated(compiled: &Compiled<'_>, outcomes: &[Outcome]) -> Vec<Saturation> {
    let mut saturated = Vec::new();
    for (s, service) in compiled.services.iter().enumerate().filter(|(_, service)| !service.calm) {
        let busy = quantile(outcomes.iter().map(|outcome| outcome.busy_permille[s]).collect(), 95).unwrap_or(0);
        if busy > 800 {
            saturated.push(Saturation { service: service.fit.name.clone(), busy_permille: busy });
        }
    }
    saturated
}

fn grown_services(compiled: &Compiled<'_>, outcomes: &[Outcome]) -> Vec<String> {
    let mut grown: Vec<usize> = outcomes.iter().flat_map(|outcome| outcome.grown.iter().copied()).collect();
    grown.sort_unstable();
    grown.dedup();
    names(compiled, &grown)
}

fn names(compiled: &Compiled<'_>, services: &[usize]) -> Vec<String> {
    services.iter().map(|s| compiled.services[*s].fit.name.clone()).collect()
}

fn not_modeled(compiled: &Compiled<'_>) -> Vec<String> {
    let mut sentences: Vec<String> = NEVER_MODELED.iter().map(|text| (*text).to_owned()).collect();
    for stage in compiled.steps.iter().filter(|stage| stage.kind == ActionKind::RollbackConfig) {
        sentences.push(assumption(compiled, stage));
    }
    sentences.extend(compiled.unknown.iter().cloned());
    let calm: Vec<String> =
        compiled.services.iter().filter(|service| service.calm).map(|service| service.fit.name.clone()).collect();
    if !calm.is_empty() {
        sentences.push(format!("queues of {}: far from their capacity even with every retry", calm.join(", ")));
    }
    sentences
}

/// What the model takes for granted of a rollback: it cannot see what a configuration does.
fn assumption(compiled: &Compiled<'_>, stage: &Stage<'_>) -> String {
    let key = &stage.step.key;
    let ended = compiled.cures.iter().filter(|(object, ..)| stage.rolls_back(object));
    let ended: Vec<String> =
        ended.map(|(_, s, replica)| format!("{}@{replica}", compiled.services[*s].fit.name)).collect();
    if ended.is_empty() {
        return format!("{key}: a RollbackConfig has no effect in this model");
    }
    format!("{key}: assumed, not previewed: the rollback ends what is wrong with {}", ended.join(", "))
}

/// The value below which `percent` of the values lie; values need not be sorted.
fn quantile(mut values: Vec<u64>, percent: usize) -> Option<u64> {
    values.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100).max(1) - 1;
    values.get(rank).copied()
}

/// The same of times, of which some may lie beyond what was simulated; in milliseconds.
fn within(values: Vec<Option<u64>>, percent: usize) -> Option<u64> {
    let values = values.into_iter().map(|value| value.unwrap_or(u64::MAX)).collect();
    quantile(values, percent).filter(|value| *value < u64::MAX).map(|us| us / 1_000)
}

fn count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

/// The effect tree of a plan as lines, one per field it sets, in the order of the steps.
#[must_use]
pub fn path_lines(steps: &[Step]) -> Vec<String> {
    let lines = |step: &Step| {
        let kind = step.action.kind();
        let lines = step.desired.iter().map(|(field, value)| path_line(&step.key, kind, field, *value));
        lines.collect::<Vec<String>>()
    };
    steps.iter().flat_map(lines).collect()
}

/// One line of the effect tree: what a pilot foresees and a receipt later confirms, in the same words.
#[must_use]
pub fn path_line(step: &str, action: ActionKind, field: &str, value: i64) -> String {
    format!("action {step} {action} {field}={value}")
}

fn path_digest(lines: &[String]) -> Digest {
    Digest::of_object("path", &lines.to_vec())
}
