//! The policy: tiers, classes, windows, limits. Typed, without floats, and digested as a whole.

mod classes;
mod effect;
mod file;
mod load;
mod windows;

pub use classes::shipped;
pub use effect::{EffectType, Expiry};
pub use file::PolicyFile;
pub use load::{Finding, LoadError};
pub use windows::*;

use crate::invariants::InvariantRule;
use base::{Digest, Millis, Ratio};
use recovery::isa::ActionKind;
use std::collections::BTreeMap;

/// The policy written at first run: every class at `observe`.
pub const DEFAULT_TEXT: &str = include_str!("policy/default.toml");

words! {
    /// What stanch may do for a class in a tier.
    pub enum Level {
        /// Record what it would have decided.
        Observe = 1 "observe",
        /// Print plan and decision.
        Suggest = 2 "suggest",
        /// Act after a person's approval.
        Approve = 3 "approve",
        /// Act; a person can always hold.
        Auto = 4 "auto",
    }
}

words! {
    /// How real a preview is, least first.
    pub enum Fidelity {
        /// On a model.
        F0 = 1 "F0",
        /// Dry run of the control plane.
        F1 = 2 "F1",
        /// On a private clone.
        F2 = 3 "F2",
        /// On the live path with effects suppressed.
        F3 = 4 "F3",
    }
}

words! {
    /// What happens where a check could fire only because there is too little data.
    pub enum Uncalibrated {
        /// It fires.
        Refuse = 1 "refuse",
        /// It is recorded, and the decision goes on.
        Allow = 2 "allow",
    }
}

words! {
    /// What a tier's services do; decides how much may be loosened.
    pub enum TierKind {
        /// None of the others.
        Other = 1 "other",
        /// Money.
        Financial = 2 "financial",
        /// Who is who.
        Identity = 3 "identity",
        /// What runs everything else.
        InfrastructureControl = 4 "infrastructure-control",
    }
}

words! {
    /// Whether a plan of a class must be previewed.
    pub enum PreviewMode {
        /// Always.
        Mandatory = 1 "mandatory",
        /// On the model always, beyond it when worth it.
        Optional = 2 "optional",
    }
}

words! {
    /// What a not evaluable invariant leads to.
    pub enum OnNotEvaluable {
        /// A person decides.
        Escalate = 1 "escalate",
        /// The plan ends.
        Abort = 2 "abort",
    }
}

words! {
    /// Unit of a mutable parameter.
    pub enum ParamUnit {
        /// A plain number.
        Count = 1 "count",
        /// Whole percent.
        Percent = 2 "percent",
        /// Milliseconds.
        Time = 3 "ms",
    }
}

body! {
    /// A parameter that a mutation may change.
    pub struct MutableRange {
        /// In which unit the numbers are.
        1 pub unit: ParamUnit,
        /// Smallest.
        2 pub min: i64,
        /// Largest.
        3 pub max: i64,
        /// Distance.
        4 pub step: i64,
        /// Whether larger is safer.
        5 pub safer_up: bool,
    }
}

body! {
    /// Times and risks of a tier.
    pub struct Limits {
        /// For everything, from the alert on.
        1 pub t_budget: Millis,
        /// For one preview.
        2 pub pilot_max: Millis,
        /// For the commit.
        3 pub max_delay: Millis,
        /// A preview is stale afterwards.
        4 pub preview_ttl: Millis,
        /// Live work may wait so long for a lock of the plan's.
        5 pub wait_max: Millis,
        /// Largest risk.
        6 pub max_risk: Ratio,
    }
}

body! {
    /// The safety envelope of a tier.
    pub struct Envelope {
        /// Largest probability of making it worse.
        1 pub a_ceiling: Ratio,
        /// Largest error of the preview.
        2 pub epsilon_max: Ratio,
        /// Largest slow-down of live work by a preview.
        3 pub interference_max: Ratio,
        /// Scope of the action over scope of the fault.
        4 pub scope_ratio_max: u64,
        /// Runs of a preview above F0.
        5 pub runs: u64,
        /// Distinct failure domains a signal needs.
        6 pub sources_min: u64,
        /// Governance score for auto.
        7 pub g_rec_min: Ratio,
    }
}

body! {
    /// Who approves.
    pub struct Approvals {
        /// How many.
        1 pub n: u64,
        /// Of which principals or groups.
        2 pub of: Vec<String>,
    }
}

body! {
    /// Who votes.
    pub struct ObserverRule {
        /// So many must say impaired.
        1 pub k: u64,
        /// Of so many.
        2 pub n: u64,
        /// Largest disagreement.
        3 pub disagreement_max: Ratio,
    }
}

body! {
    /// What outside the server vouches for the log.
    pub struct Anchors {
        /// Cosignatures a checkpoint needs.
        1 pub witnesses_min: u64,
        /// Oldest checkpoint that counts.
        2 pub checkpoint_age_max: Millis,
    }
}

body! {
    /// What failures cost, in whole currency units.
    pub struct Costs {
        /// A fault.
        1 pub base: u64,
        /// Making it worse.
        2 pub amplification: u64,
        /// A wrong diagnosis.
        3 pub misdiagnosis: u64,
        /// A second of preview.
        4 pub per_second: u64,
    }
}

body! {
    /// Bounds of the kernel.
    pub struct KernelRules {
        /// Largest effect type of a plan.
        1 pub type_max: EffectType,
        /// Capacity over load, in parts per million above one million.
        2 pub headroom_ppm: u64,
        /// Lowest rate a limit may set.
        3 pub rate_floor: Ratio,
        /// Between two restarts of the same instance.
        4 pub cooldown: Millis,
        /// Largest slice.
        5 pub services: u64,
        /// Largest slice.
        6 pub edges: u64,
        /// Per scope.
        7 pub actions_per_hour: u64,
        /// Requests a plan may lose.
        8 pub loss_max: u64,
        /// Share of instances out at once.
        9 pub removed_max: Ratio,
        /// Requests still in flight when a drain counts as done.
        10 pub drain_inflight: u64,
    }
}

body! {
    /// Budgets of load, retries and backlog.
    pub struct EconomicsRules {
        /// Attempts per logical request, in parts per million (2 000 000 = 200%).
        1 pub retry_amplification_max_ppm: u64,
        /// Longest time to drain the backlog.
        2 pub drain_max: Millis,
        /// Largest backlog.
        3 pub backlog_max: u64,
        /// Swings of a controller.
        4 pub oscillations_max: u64,
    }
}

body! {
    /// One tier.
    pub struct Tier {
        /// What its services do.
        1 pub kind: TierKind,
        /// Its services; `*` is every one.
        2 pub services: Vec<String>,
        /// Too little data: refuse or allow.
        3 pub uncalibrated: Uncalibrated,
        /// Times and risks.
        4 pub limits: Limits,
        /// The safety envelope.
        5 pub envelope: Envelope,
        /// Who approves.
        6 pub approvals: Approvals,
        /// Who votes.
        7 pub observers: ObserverRule,
        /// What vouches for the log.
        8 pub anchors: Anchors,
        /// What failures cost.
        9 pub cost: Costs,
        /// Bounds of the kernel.
        10 pub kernel: KernelRules,
        /// Budgets.
        11 pub economics: EconomicsRules,
        /// For every class that does not name this tier.
        12 pub level: Option<Level>,
        /// For every class that does not name this tier.
        13 pub fidelity: Option<Fidelity>,
        /// For every class.
        14 pub auto_type: Option<EffectType>,
        /// Every window, overrides applied.
        15 pub windows: Windows,
    }
}

body! {
    /// When the preview may be skipped.
    pub struct Bypass {
        /// Named reasons.
        1 pub reasons: Vec<String>,
        /// How many people sign.
        2 pub humans: u64,
        /// Longest life.
        3 pub max: Millis,
        /// How often.
        4 pub per_quarter: u64,
        /// To be reviewed within.
        5 pub review: Millis,
    }
}

body! {
    /// One recovery class.
    pub struct Class {
        /// Who answers for it.
        1 pub owner: String,
        /// What people read.
        2 pub runbook: String,
        /// What it takes for granted.
        3 pub failure_assumptions: Vec<String>,
        /// Actions its plans may use.
        4 pub actions: Vec<ActionKind>,
        /// Whether it must be previewed.
        5 pub preview: PreviewMode,
        /// Minimum level, by tier.
        6 pub fidelity: BTreeMap<String, Fidelity>,
        /// Required invariants.
        7 pub invariants: Vec<String>,
        /// What a not evaluable one leads to.
        8 pub on_not_evaluable: OnNotEvaluable,
        /// What makes the preview's horizon.
        9 pub horizon: Vec<String>,
        /// Effects that may vary.
        10 pub variance: Vec<String>,
        /// Above: approval.
        11 pub auto_type: EffectType,
        /// Checks of convergence.
        12 pub converge: Vec<String>,
        /// Their deadline.
        13 pub converge_deadline: Millis,
        /// What stanch may do, by tier.
        14 pub level: BTreeMap<String, Level>,
        /// How often it is rehearsed.
        15 pub drill_every: Option<Millis>,
        /// What a mutation may change.
        16 pub mutable: BTreeMap<String, MutableRange>,
        /// Tightens the tier's.
        17 pub disagreement_max: Option<Ratio>,
        /// When the preview may be skipped.
        18 pub bypass: Option<Bypass>,
        /// What happens when no preview is possible.
        19 pub fallback: OnNotEvaluable,
    }
}

body! {
    /// The whole policy.
    pub struct Policy {
        /// Version of the format.
        1 pub schema: u64,
        /// Its name.
        2 pub name: String,
        /// People who sign the next change.
        3 pub policy_signers: u64,
        /// Tiers, lowest first.
        4 pub order: Vec<String>,
        /// Domains of authority and their services.
        5 pub trust_zones: BTreeMap<String, Vec<String>>,
        /// The tiers.
        6 pub tiers: BTreeMap<String, Tier>,
        /// The classes.
        7 pub classes: BTreeMap<String, Class>,
        /// Invariants of the file's own.
        8 pub invariants: Vec<InvariantRule>,
        /// Windows before any tier's overrides.
        9 pub windows: Windows,
    }
}

body! {
    /// Everything that holds for one class in one tier.
    pub struct Effective {
        /// Digest of the policy.
        1 pub policy: Digest,
        /// Its name.
        2 pub policy_name: String,
        /// The tier's name.
        3 pub tier_name: String,
        /// The tier.
        4 pub tier: Tier,
        /// The class's name.
        5 pub class_name: String,
        /// The class.
        6 pub class: Class,
        /// What stanch may do.
        7 pub level: Level,
        /// Minimum level of a preview.
        8 pub fidelity: Fidelity,
        /// Above: approval.
        9 pub auto_type: EffectType,
        /// The tighter of tier and class.
        10 pub disagreement_max: Ratio,
        /// The file's own invariants among the class's.
        11 pub rules: Vec<InvariantRule>,
    }
}

impl Policy {
    /// The digest by which decisions name it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_object("policy", self)
    }

    /// The canonical bytes behind [`Policy::digest`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        base::canon::object("policy", &base::canon::Canon::to_value(self))
    }

    /// Reads [`Policy::to_bytes`].
    ///
    /// # Errors
    /// Anything it would not have produced.
    pub fn from_bytes(bytes: &[u8]) -> Result<Policy, base::canon::Error> {
        base::canon::Canon::from_value(base::canon::parse_object("policy", bytes)?)
    }

    /// The tier of a service: the highest that names it.
    #[must_use]
    pub fn tier_of(&self, service: &str) -> Option<&str> {
        let names = |tier: &Tier| tier.services.iter().any(|name| name == service || name == "*");
        let of = |name: &&String| self.tiers.get(*name).is_some_and(names);
        self.order.iter().rev().find(of).map(String::as_str)
    }

    /// The highest tier among services; `None` when one of them has none.
    #[must_use]
    pub fn tier_of_all<'a>(&self, services: impl IntoIterator<Item = &'a str>) -> Option<&str> {
        let mut highest = None;
        for service in services {
            let tier = self.tier_of(service)?;
            let rank = self.order.iter().position(|name| name == tier)?;
            highest = highest.max(Some(rank));
        }
        self.order.get(highest?).map(String::as_str)
    }

    /// Everything that holds for a class in a tier; `None` when the policy does not know one of them.
    #[must_use]
    pub fn effective(&self, tier_name: &str, class_name: &str) -> Option<Effective> {
        let (tier, class) = (self.tiers.get(tier_name)?, self.classes.get(class_name)?);
        let rules = self.invariants.iter().filter(|rule| class.invariants.contains(&rule.id)).cloned().collect();
        let disagreement = tier.observers.disagreement_max;
        Some(Effective {
            policy: self.digest(),
            policy_name: self.name.clone(),
            tier_name: tier_name.to_owned(),
            level: class.level.get(tier_name).copied().or(tier.level).unwrap_or(Level::Observe),
            fidelity: class.fidelity.get(tier_name).copied().or(tier.fidelity).unwrap_or(Fidelity::F2),
            auto_type: tier.auto_type.unwrap_or(class.auto_type),
            disagreement_max: class.disagreement_max.map_or(disagreement, |own| own.min(disagreement)),
            tier: tier.clone(),
            class_name: class_name.to_owned(),
            class: class.clone(),
            rules,
        })
    }
}

#[cfg(test)]
mod tests;
