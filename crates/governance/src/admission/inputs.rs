//! Everything a decision reads, resolved beforehand. An absent value never counts as a good one.

use crate::invariants::Evaluation;
use crate::policy::{Effective, Fidelity, Level, MutableRange, OnNotEvaluable, PreviewMode, Uncalibrated};
use crate::record::{Claims, Divergence, PilotResult, Touched};
use base::{Digest, Millis, Ratio, Timestamp};
use recovery::isa::ActionKind;
use std::collections::BTreeMap;

body! {
    /// Every input of one decision; the blob that decisions name by digest.
    pub struct Inputs {
        /// Version of the decision function.
        1 pub semantics: u64,
        /// Now.
        2 pub now: Timestamp,
        /// What the policy says for this class and tier.
        3 pub rules: Option<Rules>,
        /// Whether a hold covers the scope; the absence of one is a value too.
        4 pub hold: Option<HoldFacts>,
        /// The intent.
        5 pub intent: Option<IntentFacts>,
        /// The plan.
        6 pub plan: Option<PlanFacts>,
        /// The kernel's verdict.
        7 pub check: Option<CheckFacts>,
        /// Previews of this plan.
        8 pub reports: Vec<ReportFacts>,
        /// What the plan would act on, as it is now.
        9 pub bound_now: Option<Digest>,
        /// Required invariants on live state.
        10 pub invariants: Vec<LiveInvariant>,
        /// Whether quorum intersection holds in every phase; absent counts as not.
        11 pub quorum_safe: Option<bool>,
        /// What the observers said.
        12 pub observers: Option<ObserverFacts>,
        /// Time spent.
        13 pub time: Option<TimeFacts>,
        /// What is known from earlier incidents.
        14 pub history: Option<HistoryFacts>,
        /// Mutations made so far.
        15 pub mutations: Option<u64>,
        /// A bypass or an acceptance that applies.
        16 pub exception: Option<ExceptionFacts>,
        /// Statements of the estimates used.
        17 pub estimates: Vec<Digest>,
    }
}

body! {
    /// What the policy says for one class in one tier.
    pub struct Rules {
        /// Digest of the policy.
        1 pub policy: Digest,
        /// The class.
        2 pub class: String,
        /// The tier.
        3 pub tier: String,
        /// What stanch may do.
        4 pub level: Level,
        /// Too little data: refuse or allow.
        5 pub uncalibrated: Uncalibrated,
        /// Whether a preview is mandatory.
        6 pub preview: PreviewMode,
        /// Minimum level of a preview.
        7 pub fidelity: Fidelity,
        /// Runs a preview needs at F0.
        8 pub model_runs: u64,
        /// Runs a preview needs above F0.
        9 pub runs: u64,
        /// Largest risk.
        10 pub max_risk: Ratio,
        /// Largest error of the preview.
        11 pub epsilon_max: Ratio,
        /// Largest probability of making it worse.
        12 pub a_ceiling: Ratio,
        /// Scope of the action over scope of the fault.
        13 pub scope_ratio_max: u64,
        /// Time for everything.
        14 pub t_budget: Millis,
        /// For the commit.
        15 pub max_delay: Millis,
        /// A preview is stale afterwards.
        16 pub preview_ttl: Millis,
        /// Kept free for a person.
        17 pub approval_allowance: Millis,
        /// For convergence.
        18 pub converge_deadline: Millis,
        /// Observers that must say impaired.
        19 pub votes_min: u64,
        /// Largest disagreement.
        20 pub disagreement_max: Ratio,
        /// What a not evaluable invariant leads to.
        21 pub on_not_evaluable: OnNotEvaluable,
        /// Approvals at level approve.
        22 pub approvals: u64,
        /// Own pairs that auto needs.
        23 pub pairs_min: u64,
        /// Actions the class may use.
        24 pub actions: Vec<ActionKind>,
        /// Whether owner and failure assumptions are declared.
        25 pub is_owned: bool,
        /// Attempts per logical request, in parts per million.
        26 pub retry_amplification_max_ppm: u64,
        /// Longest time to drain.
        27 pub drain_max: Millis,
        /// Largest backlog.
        28 pub backlog_max: u64,
        /// Swings of a controller.
        29 pub oscillations_max: u64,
        /// What a mutation may change.
        30 pub mutable: BTreeMap<String, MutableRange>,
    }
}

body! {
    /// The hold state.
    pub struct HoldFacts {
        /// Its version.
        1 pub version: u64,
        /// The hold that covers the scope.
        2 pub scope: Option<String>,
    }
}

body! {
    /// The intent as opened.
    pub struct IntentFacts {
        /// Its statement.
        1 pub digest: Digest,
        /// Signature, role, position, form.
        2 pub is_sound: bool,
        /// Whether its parent is the revision before.
        3 pub is_chained: bool,
        /// Its revision.
        4 pub revision: u64,
        /// Not usable afterwards.
        5 pub expires_at: Timestamp,
        /// Weighted share that is impaired, in parts per million.
        6 pub fault_ppm: u64,
        /// What the proposer claims.
        7 pub claims: Claims,
    }
}

body! {
    /// The plan.
    pub struct PlanFacts {
        /// Its digest.
        1 pub digest: Digest,
        /// Actions it uses.
        2 pub actions: Vec<ActionKind>,
        /// Weighted share that is acted on, in parts per million.
        3 pub action_ppm: u64,
        /// Trust zones it would cross into without permission.
        4 pub crossings: Vec<String>,
        /// Whether its effect type is above the class's auto_type.
        5 pub is_above_auto: bool,
        /// Whether an agent vetoed it.
        6 pub is_vetoed: bool,
    }
}

body! {
    /// The kernel's verdict as opened.
    pub struct CheckFacts {
        /// Its statement.
        1 pub digest: Digest,
        /// Signature, role, position, form.
        2 pub is_sound: bool,
        /// The plan it is about.
        3 pub plan: Digest,
        /// Whether the plan was accepted.
        4 pub has_passed: bool,
    }
}

body! {
    /// A changed parameter that keeps the exceeded bound.
    pub struct Fix {
        /// The parameter, as the policy names it.
        1 pub parameter: String,
        /// The step it belongs to.
        2 pub step: String,
        /// Value now.
        3 pub from: i64,
        /// Value that keeps the bound.
        4 pub to: i64,
    }
}

body! {
    /// A forecast, with the fix that was found if it is over its bound.
    pub struct Forecast {
        /// In the unit of its bound; [`super::NEVER`] never ends.
        1 pub value: u64,
        /// What would keep the bound.
        2 pub fix: Option<Fix>,
    }
}

body! {
    /// How often the model saw the fault grow.
    pub struct Growth {
        /// Runs in which it grew.
        1 pub k: u64,
        /// Runs that count.
        2 pub n: u64,
        /// One-sided upper 95% bound, in parts per million.
        3 pub upper_ppm: u64,
        /// What would keep the ceiling.
        4 pub fix: Option<Fix>,
    }
}

body! {
    /// A number that may be missing because there is too little data.
    #[derive(Default)]
    pub struct Measure {
        /// In parts per million; absent: unknown.
        1 pub ppm: Option<u64>,
        /// Whether it is unknown, or pessimistic, only because data are too few.
        2 pub is_short: bool,
        /// Cases behind it.
        3 pub cases: u64,
    }
}

body! {
    /// What a preview saw, as opened.
    pub struct ReportFacts {
        /// Its statement.
        1 pub digest: Digest,
        /// Signature, role, position, form.
        2 pub is_sound: bool,
        /// The plan it previewed.
        3 pub plan: Digest,
        /// The intent it was made for.
        4 pub intent: Digest,
        /// How it ended.
        5 pub result: PilotResult,
        /// When.
        6 pub taken_at: Timestamp,
        /// What it is true of.
        7 pub bound: Digest,
        /// The lowest level among its steps.
        8 pub fidelity: Option<Fidelity>,
        /// Runs that count.
        9 pub runs: u64,
        /// Effects that escaped, and objects left behind; absent where nothing was touched.
        10 pub escapes: Option<u64>,
        /// What the plan did not announce.
        11 pub divergences: Vec<Divergence>,
        /// Whether contention avoided the preview.
        12 pub is_pilot_shy: bool,
        /// Invariants during its runs.
        13 pub invariants: Vec<Evaluation>,
        /// Live work waiting for the plan's locks, in parts per million.
        14 pub contention_ppm: Option<u64>,
        /// How often the fault grew.
        15 pub growth: Option<Growth>,
        /// Error of the path; may lack pairs.
        16 pub epsilon_path: Option<Measure>,
        /// Error by interference, in parts per million; absent where nothing was touched.
        17 pub epsilon_interference_ppm: Option<u64>,
        /// Error of observation, in parts per million.
        18 pub epsilon_observe_ppm: Option<u64>,
        /// Attempts per logical request, in parts per million.
        19 pub retries: Option<Forecast>,
        /// Largest backlog.
        20 pub backlog: Option<Forecast>,
        /// Milliseconds to drain it.
        21 pub drain: Option<Forecast>,
        /// Swings of a controller.
        22 pub oscillations: Option<Forecast>,
        /// p95 of the commit in milliseconds.
        23 pub delay: Option<Forecast>,
        /// p95 of convergence in milliseconds.
        24 pub convergence: Option<Forecast>,
        /// What it worked on.
        25 pub touched: Touched,
    }
}

body! {
    /// A required invariant on live state.
    pub struct LiveInvariant {
        /// Which.
        1 pub id: String,
        /// Its evaluation; absent: not evaluable.
        2 pub live: Option<Evaluation>,
    }
}

body! {
    /// What the observers said.
    pub struct ObserverFacts {
        /// Failure domains that say impaired.
        1 pub impaired: u64,
        /// Failure domains asked.
        2 pub n: u64,
        /// One minus the larger camp's share, in parts per million.
        3 pub disagreement_ppm: u64,
        /// Whether a group is in mixed mode without an owner.
        4 pub is_mixed_unowned: bool,
    }
}

body! {
    /// Time spent.
    pub struct TimeFacts {
        /// Detection.
        1 pub detect: Millis,
        /// Preview.
        2 pub preview: Millis,
        /// Since the budget began.
        3 pub elapsed: Millis,
    }
}

body! {
    /// What is known from earlier incidents of this class and tier.
    pub struct HistoryFacts {
        /// Risk that a clean preview is followed by a bad outcome.
        1 pub pilot_risk: Measure,
        /// Upper bound of the share that made it worse, measured.
        2 pub amplification: Measure,
        /// Own pairs.
        3 pub pairs: u64,
        /// Whether the calibration is stale.
        4 pub is_stale: bool,
        /// Controls that are missing for reasons other than a short history.
        5 pub missing_controls: Vec<String>,
        /// Controls that are missing because the history is short.
        6 pub young_controls: Vec<String>,
        /// Exceptions whose review is overdue.
        7 pub overdue: u64,
    }
}

body! {
    /// A bypass or an acceptance, verified.
    pub struct ExceptionFacts {
        /// Its statement.
        1 pub digest: Digest,
        /// Whether it skips the preview rather than accepting named checks.
        2 pub is_bypass: bool,
        /// Signatures, people, scope, expiry and policy all permit it.
        3 pub is_valid: bool,
        /// G-codes it names.
        4 pub codes: Vec<String>,
    }
}

impl Growth {
    /// Whether the counts and the bound can belong together: no bound lies below the share that was seen.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        let seen = u128::from(self.k) * u128::from(Ratio::ONE.ppm());
        self.n > 0 && self.k <= self.n && u128::from(self.upper_ppm) * u128::from(self.n) >= seen
    }
}

impl Rules {
    /// The rules of a class in a tier.
    #[must_use]
    pub fn of(effective: &Effective) -> Rules {
        let Effective { tier, class, .. } = effective;
        Rules {
            policy: effective.policy,
            class: effective.class_name.clone(),
            tier: effective.tier_name.clone(),
            level: effective.level,
            uncalibrated: tier.uncalibrated,
            preview: class.preview,
            fidelity: effective.fidelity,
            model_runs: 450,
            runs: tier.envelope.runs,
            max_risk: tier.limits.max_risk,
            epsilon_max: tier.envelope.epsilon_max,
            a_ceiling: tier.envelope.a_ceiling,
            scope_ratio_max: tier.envelope.scope_ratio_max,
            t_budget: tier.limits.t_budget,
            max_delay: tier.limits.max_delay,
            preview_ttl: tier.limits.preview_ttl,
            approval_allowance: Millis(0),
            converge_deadline: class.converge_deadline,
            votes_min: tier.observers.k,
            disagreement_max: effective.disagreement_max,
            on_not_evaluable: class.on_not_evaluable,
            approvals: tier.approvals.n,
            pairs_min: tier.windows.auto.pairs_min,
            actions: class.actions.clone(),
            is_owned: !class.owner.is_empty() && !class.failure_assumptions.is_empty(),
            retry_amplification_max_ppm: tier.economics.retry_amplification_max_ppm,
            drain_max: tier.economics.drain_max,
            backlog_max: tier.economics.backlog_max,
            oscillations_max: tier.economics.oscillations_max,
            mutable: class.mutable.clone(),
        }
    }
}
