//! From the file to the policy: defaults, shipped classes, and every rule that a loaded policy keeps.

use super::file::{ClassFile, InvariantFile, KernelFile, MutableFile, Percent, PolicyFile, Quantity, TierFile};
use super::windows::In;
use super::{
    Anchors, Approvals, Bypass, Class, Costs, EconomicsRules, EffectType, Envelope, Fidelity, KernelRules, Level,
    Limits, MutableRange, ObserverRule, OnNotEvaluable, ParamUnit, Policy, PreviewMode, Tier, TierKind, Uncalibrated,
    Windows, shipped,
};
use crate::Code;
use crate::invariants::{Compare, InvariantRule, NATIVE, Operand};
use base::{Millis, Ratio};
use recovery::isa::{EffectLevel, RollbackClass};
use std::collections::BTreeMap;

/// Something wrong with a policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The L-code.
    pub code: Code,
    /// The table and key, for example `tier.gold.uncalibrated`.
    pub at: String,
    /// What is wrong and what would be right.
    pub why: String,
}

/// A policy file that must not become active: everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct LoadError(pub Vec<Finding>);

/// Smallest ceiling that 500 model runs can resolve.
const CEILING_MIN: u32 = 6_000;

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.code, self.at, self.why)
    }
}

impl PolicyFile {
    /// Makes the policy: defaults filled, shipped classes overlaid, every rule checked.
    ///
    /// # Errors
    /// Every finding that forbids the policy. Warnings are in [`Policy::lint`].
    pub fn load(&self) -> Result<Policy, LoadError> {
        let mut findings = Findings::default();
        if self.schema != 1 {
            findings.add(Code::L001, "schema", "this program reads schema 1");
        }
        let mut windows = Windows::default();
        self.windows.apply(&mut windows);
        let base = self.uncalibrated.as_ref().map_or(Uncalibrated::Refuse, |In(word)| *word);
        let tiers = self.tier.iter().map(|(name, file)| (name.clone(), tier(file, &windows, base)));
        let mut classes = shipped();
        for (name, file) in &self.class {
            let class = classes.entry(name.clone()).or_insert_with(empty);
            overlay(class, file, &windows, name, &mut findings);
        }
        let policy = Policy {
            schema: self.schema,
            name: self.name.clone(),
            policy_signers: self.policy_signers.unwrap_or(1),
            order: self.tiers.clone(),
            trust_zones: self.trust_zones.clone(),
            tiers: tiers.collect(),
            classes,
            invariants: self.invariant.iter().map(|file| invariant(file, &mut findings)).collect(),
            windows,
        };
        self.weights(&mut findings);
        for crossing in &self.crossings {
            let at = format!("crossings.{}->{}", crossing.from, crossing.to);
            findings.add(
                Code::L003,
                &at,
                "crossings are not supported by this version; remove it, and the crossing is refused",
            );
        }
        policy.check(&mut findings);
        self.explicit(&policy, &mut findings);
        if findings.0.is_empty() { Ok(policy) } else { Err(LoadError(findings.0)) }
    }

    fn weights(&self, findings: &mut Findings) {
        let sum = |weights: &BTreeMap<String, In<Ratio>>| {
            weights.values().map(|In(weight)| u64::from(weight.ppm())).sum::<u64>()
        };
        if self.weights.as_ref().is_some_and(|weights| sum(weights) != 1_000_000) {
            findings.add(Code::L020, "weights", "weights sum to exactly 100%");
        }
    }

    /// Rules about what is written, not about what it amounts to.
    fn explicit(&self, policy: &Policy, findings: &mut Findings) {
        for (name, file) in &self.tier {
            let critical = file.kind.0 != TierKind::Other;
            if critical && file.envelope.a_ceiling.is_none() {
                let at = format!("tier.{name}.envelope.a_ceiling");
                findings.add(Code::L022, &at, "a tier of this kind states its own ceiling");
            }
            if file.services.iter().any(|service| service == "*") && policy.order.first() != Some(name) {
                findings.add(
                    Code::L025,
                    &format!("tier.{name}.services"),
                    "only the lowest tier may name all services",
                );
            }
        }
    }
}

impl Policy {
    /// What is allowed but doubtful: warnings.
    #[must_use]
    pub fn lint(&self) -> Vec<Finding> {
        let mut findings = Findings::default();
        let above = self.order.iter().any(|name| self.is_above_bronze(name));
        if above && self.policy_signers < 2 {
            findings.add(Code::L024, "policy_signers", "a tier above bronze wants two signers");
        }
        findings.0
    }

    /// Whether a tier stands above bronze; without a tier named bronze, the lowest is taken for it.
    fn is_above_bronze(&self, tier: &str) -> bool {
        let bronze = self.order.iter().position(|name| name == "bronze").unwrap_or(0);
        self.order.iter().position(|name| name == tier).is_none_or(|rank| rank > bronze)
    }

    fn check(&self, findings: &mut Findings) {
        let twice =
            self.order.iter().enumerate().any(|(at, name)| self.order.iter().skip(at + 1).any(|other| other == name));
        if twice || self.tiers.is_empty() || self.policy_signers == 0 {
            findings.add(
                Code::L003,
                "tiers",
                "needs at least one tier, each named once, and policy_signers of at least 1",
            );
        }
        for (name, tier) in &self.tiers {
            if !self.order.contains(name) {
                findings.add(Code::L002, &format!("tier.{name}"), "not in the list `tiers`");
            }
            self.check_tier(name, tier, findings);
        }
        for (name, class) in &self.classes {
            self.check_class(name, class, findings);
        }
    }

    fn check_tier(&self, name: &str, tier: &Tier, findings: &mut Findings) {
        let at = |key: &str| format!("tier.{name}.{key}");
        if tier.envelope.a_ceiling.ppm() < CEILING_MIN {
            findings.add(Code::L021, &at("envelope.a_ceiling"), "500 model runs resolve 0.6% at best");
        }
        let strict = self.is_above_bronze(name) || tier.kind != TierKind::Other;
        if strict && tier.uncalibrated == Uncalibrated::Allow {
            findings.add(
                Code::L023,
                &at("uncalibrated"),
                "\"allow\" is never accepted here: collect calibration data instead",
            );
        }
        if self.is_above_bronze(name) && tier.envelope.sources_min < 2 {
            findings.add(Code::L023, &at("envelope.sources_min"), "at least 2 above bronze");
        }
        if self.is_above_bronze(name) && tier.windows.graph.miss_max.ppm() > 10_000 {
            findings.add(Code::L023, &at("windows.graph.miss_max"), "at most 1% above bronze");
        }
        let observers = &tier.observers;
        if observers.k == 0 || observers.k > observers.n || tier.envelope.runs == 0 {
            findings.add(Code::L003, &at("observers"), "needs 1 <= k <= n, and envelope.runs of at least 1");
        }
        if tier.approvals.n == 0 || tier.approvals.of.is_empty() {
            findings.add(Code::L003, &at("approvals"), "at least one approval by someone named");
        }
        if tier.kernel.headroom_ppm < 1_000_000 {
            findings.add(Code::L003, &at("kernel.headroom"), "at least 100%");
        }
    }

    fn check_class(&self, name: &str, class: &Class, findings: &mut Findings) {
        let at = |key: &str| format!("class.{name}.{key}");
        if class.invariants.is_empty() {
            findings.add(Code::L010, &at("invariants"), "at least one");
        }
        for id in &class.invariants {
            if !NATIVE.contains(&id.as_str()) && !self.invariants.iter().any(|rule| &rule.id == id) {
                findings.add(Code::L002, &at("invariants"), &format!("no invariant `{id}`"));
            }
        }
        if class.owner.is_empty() || class.failure_assumptions.is_empty() || class.actions.is_empty() {
            findings.add(Code::L011, &at("owner"), "owner, failure_assumptions and actions are required");
        }
        for tier in class.level.keys().chain(class.fidelity.keys()) {
            if !self.tiers.contains_key(tier) {
                findings.add(Code::L002, &at("level"), &format!("no tier `{tier}`"));
            }
        }
        if class.bypass.as_ref().is_some_and(|bypass| bypass.reasons.is_empty() || bypass.humans == 0) {
            findings.add(Code::L012, &at("bypass"), "needs reasons, and at least one person");
        }
        let f1 = class.fidelity.values().any(|level| *level == Fidelity::F1);
        if f1 && class.preview == PreviewMode::Mandatory {
            findings.add(Code::L014, &at("preview.fidelity"), "F1 alone says nothing about load");
        }
        for (tier, level) in &class.level {
            let calibrated = self.tiers.get(tier).is_none_or(|tier| tier.uncalibrated == Uncalibrated::Refuse);
            if *level == Level::Auto && calibrated && class.drill_every.is_none() {
                findings.add(Code::L013, &at("drill_every"), &format!("level auto in {tier} needs drills"));
            }
        }
    }
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, code: Code, at: &str, why: &str) {
        self.0.push(Finding { code, at: at.to_owned(), why: why.to_owned() });
    }
}

fn ratio(written: Option<&In<Ratio>>, default_ppm: u64) -> Ratio {
    written.map_or(Ratio::clamped(default_ppm), |In(value)| *value)
}

fn millis(written: Option<&In<Millis>>, default_ms: u64) -> Millis {
    written.map_or(Millis(default_ms), |In(value)| *value)
}

fn tier(file: &TierFile, windows: &Windows, uncalibrated: Uncalibrated) -> Tier {
    let mut windows = windows.clone();
    file.windows.apply(&mut windows);
    let (limits, envelope) = (&file.limits, &file.envelope);
    Tier {
        kind: file.kind.0,
        services: file.services.clone(),
        uncalibrated: file.uncalibrated.as_ref().map_or(uncalibrated, |In(word)| *word),
        limits: Limits {
            t_budget: limits.t_budget.0,
            pilot_max: limits.pilot_max.0,
            max_delay: limits.max_delay.0,
            preview_ttl: limits.preview_ttl.0,
            wait_max: limits.wait_max.0,
            max_risk: limits.max_risk.0,
        },
        envelope: Envelope {
            a_ceiling: ratio(envelope.a_ceiling.as_ref(), 25_000),
            epsilon_max: ratio(envelope.epsilon_max.as_ref(), 100_000),
            interference_max: ratio(envelope.interference_max.as_ref(), 30_000),
            scope_ratio_max: envelope.scope_ratio_max.unwrap_or(4),
            runs: envelope.runs.unwrap_or(3),
            sources_min: envelope.sources_min.unwrap_or(2),
            g_rec_min: ratio(envelope.g_rec_min.as_ref(), 900_000),
        },
        approvals: Approvals { n: file.approvals.n, of: file.approvals.of.clone() },
        observers: ObserverRule {
            k: file.observers.k,
            n: file.observers.n,
            disagreement_max: file.observers.disagreement_max.0,
        },
        anchors: file.anchors.as_ref().map_or(
            Anchors { witnesses_min: 0, checkpoint_age_max: Millis(600_000) },
            |anchors| Anchors {
                witnesses_min: anchors.witnesses_min,
                checkpoint_age_max: anchors.checkpoint_age_max.0,
            },
        ),
        cost: file.cost.as_ref().map_or(Costs { base: 0, amplification: 0, misdiagnosis: 0, per_second: 0 }, |cost| {
            Costs {
                base: cost.base,
                amplification: cost.amplification,
                misdiagnosis: cost.misdiagnosis,
                per_second: cost.per_second,
            }
        }),
        kernel: kernel(&file.kernel),
        economics: EconomicsRules {
            retry_amplification_max_ppm: file
                .economics
                .retry_amplification_max
                .as_ref()
                .map_or(2_000_000, |In(Percent(ppm))| *ppm),
            drain_max: millis(file.economics.drain_max.as_ref(), 60_000),
            backlog_max: file.economics.backlog_max.unwrap_or(20_000),
            oscillations_max: file.economics.oscillations_max.unwrap_or(2),
        },
        level: file.level.as_ref().map(|In(level)| *level),
        fidelity: file.fidelity.as_ref().map(|In(level)| *level),
        auto_type: file.auto_type.as_ref().map(|In(effect)| *effect),
        windows,
    }
}

fn kernel(file: &KernelFile) -> KernelRules {
    let service = EffectType { level: EffectLevel::Service, class: RollbackClass::Restartable, ..EffectType::MAX };
    KernelRules {
        type_max: file.type_max.as_ref().map_or(service, |In(effect)| *effect),
        headroom_ppm: file.headroom.as_ref().map_or(1_200_000, |In(Percent(ppm))| *ppm),
        rate_floor: ratio(file.rate_floor.as_ref(), 100_000),
        cooldown: millis(file.cooldown.as_ref(), 300_000),
        services: file.services.unwrap_or(8),
        edges: file.edges.unwrap_or(64),
        actions_per_hour: file.actions_per_hour.unwrap_or(6),
        loss_max: file.loss_max.unwrap_or(500),
        removed_max: ratio(file.removed_max.as_ref(), 340_000),
        drain_inflight: file.drain_inflight.unwrap_or(1),
    }
}

/// A class of the file's own begins with nothing permitted.
fn empty() -> Class {
    Class {
        owner: String::new(),
        runbook: String::new(),
        failure_assumptions: Vec::new(),
        actions: Vec::new(),
        preview: PreviewMode::Mandatory,
        fidelity: BTreeMap::new(),
        invariants: Vec::new(),
        on_not_evaluable: OnNotEvaluable::Escalate,
        horizon: Vec::new(),
        variance: Vec::new(),
        auto_type: EffectType {
            level: EffectLevel::Instance,
            class: RollbackClass::Reversible,
            expiry: super::Expiry::Ttl,
        },
        converge: Vec::new(),
        converge_deadline: Millis(300_000),
        level: BTreeMap::new(),
        drill_every: None,
        mutable: BTreeMap::new(),
        disagreement_max: None,
        bypass: None,
        fallback: OnNotEvaluable::Escalate,
    }
}

fn overlay(class: &mut Class, file: &ClassFile, windows: &Windows, name: &str, findings: &mut Findings) {
    fn set<T: Clone>(to: &mut T, from: Option<&T>) {
        if let Some(value) = from {
            *to = value.clone();
        }
    }
    set(&mut class.owner, file.owner.as_ref());
    set(&mut class.runbook, file.runbook.as_ref());
    set(&mut class.failure_assumptions, file.failure_assumptions.as_ref());
    set(&mut class.invariants, file.invariants.as_ref());
    set(&mut class.horizon, file.horizon.as_ref());
    set(&mut class.variance, file.variance.as_ref());
    set(&mut class.on_not_evaluable, file.on_not_evaluable.as_ref().map(|In(word)| word));
    set(&mut class.auto_type, file.auto_type.as_ref().map(|In(effect)| effect));
    set(&mut class.fallback, file.fallback.as_ref().map(|In(word)| word));
    if let Some(actions) = &file.actions {
        class.actions = actions.iter().map(|In(action)| *action).collect();
    }
    if let Some(preview) = &file.preview {
        class.preview = preview.mode.0;
        class.fidelity = preview.fidelity.iter().map(|(tier, In(level))| (tier.clone(), *level)).collect();
    }
    if let Some(converge) = &file.converge {
        class.converge.clone_from(&converge.checks);
        class.converge_deadline = converge.deadline.0;
    }
    class.level.extend(file.level.iter().map(|(tier, In(level))| (tier.clone(), *level)));
    class.drill_every = file.drill_every.as_ref().map(|In(every)| *every).or(class.drill_every);
    class.disagreement_max = file.disagreement_max.as_ref().map(|In(share)| *share).or(class.disagreement_max);
    if let Some(bypass) = &file.bypass {
        class.bypass = Some(Bypass {
            reasons: bypass.reasons.clone(),
            humans: bypass.humans.unwrap_or(2),
            max: millis(bypass.max.as_ref(), windows.bypass.max.0),
            per_quarter: bypass.per_quarter.unwrap_or(1),
            review: millis(bypass.review.as_ref(), windows.bypass.review.0),
        });
    }
    for (parameter, written) in &file.mutable {
        match range(written) {
            Some(range) => drop(class.mutable.insert(parameter.clone(), range)),
            None => findings.add(
                Code::L015,
                &format!("class.{name}.mutable.{parameter}"),
                "needs min <= max and step >= 1 in one unit, and safer = \"up\" or \"down\"",
            ),
        }
    }
}

fn range(file: &MutableFile) -> Option<MutableRange> {
    let (unit, min, max, step) = match (file.min.0, file.max.0, file.step.0) {
        (Quantity::Count(min), Quantity::Count(max), Quantity::Count(step)) => (ParamUnit::Count, min, max, step),
        (Quantity::Percent(min), Quantity::Percent(max), Quantity::Percent(step)) => {
            (ParamUnit::Percent, min, max, step)
        }
        (Quantity::Time(min), Quantity::Time(max), Quantity::Time(step)) => (ParamUnit::Time, min, max, step),
        _ => return None,
    };
    let safer_up = match file.safer.as_deref() {
        Some("up") => true,
        Some("down") => false,
        _ => return None,
    };
    (min <= max && step >= 1).then_some(MutableRange { unit, min, max, step, safer_up })
}

fn invariant(file: &InvariantFile, findings: &mut Findings) -> InvariantRule {
    let at = format!("invariant.{}", file.id);
    let compare = Compare::parse(&file.holds.op).unwrap_or_else(|| {
        findings.add(Code::L001, &at, "holds.op is one of <=, <, >=, >, =");
        Compare::Equal
    });
    if NATIVE.contains(&file.id.as_str()) {
        findings.add(Code::L003, &at, "a native invariant has this name");
    }
    InvariantRule {
        id: file.id.clone(),
        signal: file.signal.name.clone(),
        unit: file.signal.unit.clone(),
        max_age: file.signal.max_age.0,
        sources_min: file.signal.sources_min,
        compare,
        bound: match &file.holds.bound {
            super::file::BoundFile::Number(number) => Operand { number: Some(*number), signal: None },
            super::file::BoundFile::Signal(name) => Operand { number: None, signal: Some(name.clone()) },
        },
    }
}
