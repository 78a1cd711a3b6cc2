use super::checks::Facts;
use super::{Check, Inputs, NEVER, settle};
use crate::Code;
use crate::invariants::Evaluation;
use crate::policy::{Level, OnNotEvaluable};
use base::{Digest, Millis, Ratio, Timestamp};

words! {
    /// What a decision says, mildest first.
    pub enum Outcome {
        /// Go on.
        Commit = 1 "commit",
        /// Change the named parameters, and preview again.
        MutateParameters = 2 "mutate",
        /// A person decides.
        Escalate = 3 "escalate",
        /// This plan ends for good.
        Abort = 4 "abort",
    }
}

words! {
    /// Who may act on a Commit.
    pub enum Authority {
        /// Nobody: it is recorded only.
        Observe = 1 "observe",
        /// Nobody: it is shown.
        Suggest = 2 "suggest",
        /// stanch, after approvals.
        Approve = 3 "approve",
        /// stanch.
        Auto = 4 "auto",
    }
}

words! {
    /// Unit of a reason's numbers.
    pub enum Unit {
        /// None.
        Plain = 1 "count",
        /// Parts per million of one: a share.
        Share = 2 "share",
        /// Parts per million, may exceed one.
        Factor = 3 "factor",
        /// Milliseconds.
        Time = 4 "time",
    }
}

body! {
    /// One fired check.
    pub struct Reason {
        /// Which.
        1 pub check: Check,
        /// Its code.
        2 pub code: Code,
        /// What exactly.
        3 pub what: String,
        /// Measured.
        4 pub observed: Option<u64>,
        /// Allowed.
        5 pub bound: Option<u64>,
        /// Of both.
        6 pub unit: Unit,
    }
}

body! {
    /// A parameter to change.
    pub struct MutatedParam {
        /// As the policy names it.
        1 pub parameter: String,
        /// In which step.
        2 pub step: String,
        /// From.
        3 pub from: i64,
        /// To.
        4 pub to: i64,
        /// Why.
        5 pub check: Check,
    }
}

body! {
    /// The numbers a decision was made on.
    #[derive(Default)]
    pub struct Numbers {
        /// Whether every quorum keeps intersecting.
        1 pub is_quorum_safe: bool,
        /// In parts per million.
        2 pub pilot_risk_ppm: Option<u64>,
        /// In parts per million.
        3 pub contention_risk_ppm: Option<u64>,
        /// The worse of claim and forecast.
        4 pub estimated_delay_ms: Option<u64>,
        /// What time is left for.
        5 pub max_delay_ms: Option<u64>,
        /// Model runs in which it grew.
        6 pub growth_k: Option<u64>,
        /// Model runs that count.
        7 pub growth_n: Option<u64>,
        /// Upper bound of making it worse now, in parts per million.
        8 pub amplification_ppm: Option<u64>,
        /// Its ceiling.
        9 pub a_ceiling_ppm: Option<u64>,
        /// Upper bound of having made it worse, in parts per million.
        10 pub historic_ppm: Option<u64>,
        /// In parts per million.
        11 pub epsilon_path_ppm: Option<u64>,
        /// In parts per million.
        12 pub epsilon_interference_ppm: Option<u64>,
        /// In parts per million.
        13 pub epsilon_observe_ppm: Option<u64>,
        /// Their sum.
        14 pub epsilon_ppm: Option<u64>,
        /// Attempts per logical request, in parts per million.
        15 pub retries_ppm: Option<u64>,
        /// Largest backlog.
        16 pub backlog: Option<u64>,
        /// Time to drain it.
        17 pub drain_ms: Option<u64>,
        /// Swings of a controller.
        18 pub oscillations: Option<u64>,
        /// Time to convergence; absent or [`super::NEVER`]: none.
        19 pub convergence_ms: Option<u64>,
        /// Time for detection.
        20 pub detect_ms: Option<u64>,
        /// Time for previews.
        21 pub preview_ms: Option<u64>,
        /// Since the budget began.
        22 pub elapsed_ms: Option<u64>,
        /// The budget.
        23 pub t_budget_ms: Option<u64>,
        /// Own calibration pairs.
        24 pub pairs: Option<u64>,
    }
}

body! {
    /// The outcome for one plan, with everything it rests on.
    pub struct Decision {
        /// The intent's statement.
        1 pub intent: Option<Digest>,
        /// The plan.
        2 pub plan: Option<Digest>,
        /// The check's statement.
        3 pub check: Option<Digest>,
        /// Statements of the previews.
        4 pub pilots: Vec<Digest>,
        /// Statements of the estimates.
        5 pub estimates: Vec<Digest>,
        /// The policy.
        6 pub policy: Option<Digest>,
        /// Version of the decision function.
        7 pub semantics: u64,
        /// Blob of the inputs.
        8 pub inputs: Digest,
        /// Required invariants on live state.
        9 pub invariants: Vec<Evaluation>,
        /// The numbers.
        10 pub numbers: Numbers,
        /// What it says.
        11 pub outcome: Outcome,
        /// The one reason that binds.
        12 pub binding: Option<Reason>,
        /// All that fired.
        13 pub reasons: Vec<Reason>,
        /// Parameters to change.
        14 pub mutation: Vec<MutatedParam>,
        /// Who may act on a Commit.
        15 pub authority: Authority,
        /// Approvals it still needs.
        16 pub approvals_needed: u64,
        /// Checks passed only because the policy permits too little data.
        17 pub uncalibrated: Vec<Check>,
        /// Checks skipped or accepted by an exception.
        18 pub waived: Vec<Check>,
        /// Not usable afterwards.
        19 pub valid_until: Timestamp,
        /// Whether the time budget is spent.
        20 pub is_budget_spent: bool,
        /// The class.
        21 pub class: String,
        /// The tier.
        22 pub tier: String,
    }
}

/// Puts the decision together from what the checks found.
pub(super) fn conclude(inputs: &Inputs, facts: Facts) -> Decision {
    let rules = inputs.rules.as_ref();
    let aborts = rules.is_none_or(|rules| rules.on_not_evaluable == OnNotEvaluable::Abort);
    let severity = |check: Check| if check == Check::E4 && aborts { Outcome::Abort } else { check.outcome() };
    let settled = settle(facts.reasons.iter().map(|reason| reason.check), severity);
    let binding = facts.reasons.iter().find(|reason| Some(reason.check) == settled.binding).cloned();
    let authority = authority(inputs);
    let mutates = settled.outcome == Outcome::MutateParameters;
    Decision {
        intent: inputs.intent.as_ref().map(|intent| intent.digest),
        plan: inputs.plan.as_ref().map(|plan| plan.digest),
        check: inputs.check.as_ref().map(|check| check.digest),
        pilots: inputs.reports.iter().map(|report| report.digest).collect(),
        estimates: inputs.estimates.clone(),
        policy: rules.map(|rules| rules.policy),
        semantics: inputs.semantics,
        inputs: inputs.digest(),
        invariants: inputs.invariants.iter().map(live).collect(),
        numbers: facts.numbers,
        outcome: settled.outcome,
        binding,
        reasons: facts.reasons,
        mutation: if mutates { facts.mutation } else { Vec::new() },
        authority,
        approvals_needed: rules.filter(|_| authority == Authority::Approve).map_or(0, |rules| rules.approvals),
        uncalibrated: facts.uncalibrated,
        waived: facts.waived,
        valid_until: valid_until(inputs),
        is_budget_spent: facts.is_budget_spent,
        class: rules.map_or_else(String::new, |rules| rules.class.clone()),
        tier: rules.map_or_else(String::new, |rules| rules.tier.clone()),
    }
}

fn live(required: &super::LiveInvariant) -> Evaluation {
    let missing = || Evaluation::not_evaluable(&required.id, "it was not evaluated");
    required.live.clone().unwrap_or_else(missing)
}

pub(super) fn authority(inputs: &Inputs) -> Authority {
    let asks = inputs.plan.as_ref().is_none_or(|plan| plan.is_above_auto);
    match inputs.rules.as_ref().map(|rules| rules.level) {
        None | Some(Level::Observe) => Authority::Observe,
        Some(Level::Suggest) => Authority::Suggest,
        Some(Level::Auto) if !asks => Authority::Auto,
        Some(Level::Approve | Level::Auto) => Authority::Approve,
    }
}

fn valid_until(inputs: &Inputs) -> Timestamp {
    let intent = inputs.intent.as_ref().map(|intent| intent.expires_at);
    let ttl = inputs.rules.as_ref().map(|rules| rules.preview_ttl);
    let reports = inputs.reports.iter().filter_map(|report| Some(report.taken_at.plus(ttl?)));
    reports.chain(intent).min().unwrap_or(inputs.now)
}

impl Decision {
    /// The command line's exit code.
    #[must_use]
    pub fn exit(&self) -> i32 {
        let binds = |check| self.binding.as_ref().is_some_and(|reason| reason.check == check);
        match self.outcome {
            Outcome::Commit => 0,
            Outcome::MutateParameters => 10,
            Outcome::Escalate if binds(Check::E9) && self.is_budget_spent => 60,
            Outcome::Escalate => 20,
            Outcome::Abort if binds(Check::A1) => 70,
            Outcome::Abort => 30,
        }
    }

    /// One line for people.
    #[must_use]
    pub fn sentence(&self) -> String {
        let uncalibrated = if self.uncalibrated.is_empty() { "" } else { " · uncalibrated" };
        match &self.binding {
            Some(reason) => format!("{} {}{uncalibrated}", self.outcome, reason.sentence()),
            None => format!("{}: no check fired · {}{uncalibrated}", self.outcome, self.worse()),
        }
    }

    /// `could make it worse 0.8% (limit 2.5%)`.
    #[must_use]
    pub fn worse(&self) -> String {
        let Numbers { growth_k, growth_n, a_ceiling_ppm, .. } = &self.numbers;
        let point = growth_k.zip(*growth_n).and_then(|(k, n)| Ratio::up(k, n));
        match (point, a_ceiling_ppm) {
            (Some(point), Some(limit)) => format!("could make it worse {point} (limit {})", Ratio::clamped(*limit)),
            _ => "could make it worse: not measured".to_owned(),
        }
    }

    /// `time  detect 2.1 + preview 6.4 + decide 0.1 + commit ~38 = 46.6 of 120 s`.
    #[must_use]
    pub fn time_line(&self) -> String {
        let Numbers { detect_ms, preview_ms, elapsed_ms, estimated_delay_ms, t_budget_ms, .. } = self.numbers;
        let (Some(detect), Some(preview), Some(elapsed), Some(commit), Some(budget)) =
            (detect_ms, preview_ms, elapsed_ms, estimated_delay_ms, t_budget_ms)
        else {
            return "time  not measured".to_owned();
        };
        let decide = elapsed.saturating_sub(detect).saturating_sub(preview);
        let tenths = |ms: u64| format!("{}.{}", ms / 1_000, ms % 1_000 / 100);
        format!(
            "time  detect {} + preview {} + decide {} + commit ~{} = {} of {} s",
            tenths(detect),
            tenths(preview),
            tenths(decide),
            tenths(commit),
            tenths(elapsed.saturating_add(commit)),
            budget / 1_000
        )
    }
}

impl Reason {
    /// `G301 retries 380% (limit 200%): …`, for the command line.
    #[must_use]
    pub fn sentence(&self) -> String {
        let show = |value: u64| match self.unit {
            _ if value == NEVER => "never".to_owned(),
            Unit::Plain => value.to_string(),
            Unit::Share | Unit::Factor => percent(value),
            Unit::Time => Millis(value).to_string(),
        };
        match (self.observed, self.bound) {
            (Some(observed), Some(bound)) => {
                format!("{} {} {} (limit {})", self.code, self.what, show(observed), show(bound))
            }
            _ => format!("{} {}: {}", self.code, self.code.title(), self.what),
        }
    }
}

/// Parts per million as a percentage with at most one decimal, rounded up.
fn percent(ppm: u64) -> String {
    let tenths = ppm.div_ceil(1_000);
    if tenths.is_multiple_of(10) { format!("{}%", tenths / 10) } else { format!("{}.{}%", tenths / 10, tenths % 10) }
}
