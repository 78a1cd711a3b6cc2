//! What another policy would have decided. Only the decision is made again: the check, the preview and the invariants
//! stand as recorded, so a policy under which one of those would have been another is refused here.

use super::Replay;
use crate::admission::{Decision, Forecast, Inputs, LiveInvariant, Reason, ReportFacts, Rules, decide, max_delay};
use crate::invariants::Needs;
use crate::policy::{AutoWindows, Effective, Policy, Windows};

/// One decision under another policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhatIf {
    /// Index of the recorded decision in the log.
    pub index: u64,
    /// What is on record.
    pub recorded: Decision,
    /// What it would have been.
    pub decided: Decision,
}

/// Why what is on record does not suffice to tell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// The inputs name no policy that the bundle holds.
    #[error("the decision {0} rests on no policy that the bundle holds")]
    Unknown(u64),
    /// The other policy does not have the class or the tier.
    #[error("the policy has no class {class} or no tier {tier}")]
    Absent {
        /// The class.
        class: String,
        /// The tier.
        tier: String,
    },
    /// Something that was recorded under the one policy would have been another under the other.
    #[error("{0}: what was recorded under the one policy cannot be used for the other")]
    Differs(Differing),
    /// An invariant that was not evaluated.
    #[error("the policy requires the invariant {0}, which was not evaluated")]
    Invariant(String),
}

base::word_enum! {
    /// In what two policies differ beyond the decision.
    pub enum Differing {
        /// The kernel would check by other limits.
        Kernel = 1 "they differ in the kernel's limits or times, or in the class's actions, mutable parameters or effect types",
        /// Invariants would be evaluated by other bounds.
        Invariants = 2 "they differ in how invariants are evaluated",
        /// The model would be fitted or run otherwise.
        Model = 3 "they differ in the windows that the model is fitted to and judges by",
        /// A bound is exceeded, and fixes were searched for another.
        Fixes = 4 "they differ in a bound that the preview exceeds, and fixes were only searched for the recorded one",
    }
}

impl Unsupported {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Unsupported::Unknown(_) => "ST-1501",
            Unsupported::Absent { .. } => "ST-1502",
            Unsupported::Differs(_) => "ST-1503",
            Unsupported::Invariant(_) => "ST-1504",
        }
    }
}

impl WhatIf {
    /// Whether the outcome or what binds would have been another.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        let essence = |decision: &Decision| {
            let binding = decision.binding.as_ref().map(|reason| reason.code);
            (decision.outcome, binding, decision.authority, decision.approvals_needed)
        };
        essence(&self.recorded) != essence(&self.decided)
    }

    /// Reasons that would not have been there.
    #[must_use]
    pub fn lost(&self) -> Vec<String> {
        sentences(&self.recorded, &self.decided)
    }

    /// Reasons that would have been added.
    #[must_use]
    pub fn gained(&self) -> Vec<String> {
        sentences(&self.decided, &self.recorded)
    }
}

fn sentences(of: &Decision, not_of: &Decision) -> Vec<String> {
    of.reasons.iter().filter(|reason| !not_of.reasons.contains(reason)).map(Reason::sentence).collect()
}

impl Replay {
    /// What each decision would have been under another policy, each one taken by itself.
    ///
    /// # Errors
    /// What is on record does not suffice to tell.
    pub fn under(&self, policy: &Policy) -> Result<Vec<WhatIf>, Unsupported> {
        let one = |(index, inputs, recorded): &(u64, Inputs, Decision)| {
            let decided = decide(&self.inputs_under(*index, inputs, policy)?);
            Ok(WhatIf { index: *index, recorded: recorded.clone(), decided })
        };
        self.decisions.iter().map(one).collect()
    }

    fn inputs_under(&self, index: u64, inputs: &Inputs, policy: &Policy) -> Result<Inputs, Unsupported> {
        let rules = inputs.rules.as_ref().ok_or(Unsupported::Unknown(index))?;
        let own = self.policies.iter().find(|own| own.digest() == rules.policy);
        let own = own.and_then(|own| own.effective(&rules.tier, &rules.class));
        let own = own.ok_or(Unsupported::Unknown(index))?;
        let absent = || Unsupported::Absent { class: rules.class.clone(), tier: rules.tier.clone() };
        let other = policy.effective(&rules.tier, &rules.class).ok_or_else(absent)?;
        if let Some(differing) = differing(&own, &other) {
            return Err(Unsupported::Differs(differing));
        }
        let evaluated = |id: &String| {
            let found = inputs.invariants.iter().find(|required| required.id == *id).cloned();
            found.ok_or_else(|| Unsupported::Invariant(id.clone()))
        };
        let invariants: Vec<LiveInvariant> =
            other.class.invariants.iter().map(evaluated).collect::<Result<_, Unsupported>>()?;
        let rules = Rules { approval_allowance: rules.approval_allowance, ..Rules::of(&other) };
        if is_unsearched(inputs, &Rules::of(&own), &rules) {
            return Err(Unsupported::Differs(Differing::Fixes));
        }
        Ok(Inputs { rules: Some(rules), invariants, ..inputs.clone() })
    }
}

fn differing(own: &Effective, other: &Effective) -> Option<Differing> {
    let model = |of: &Effective| (of.tier.windows.baseline, of.tier.windows.impaired_for, of.tier.limits.t_budget);
    if model(own) != model(other) {
        return Some(Differing::Model);
    }
    let checked = |of: &Effective| {
        let class = (of.class.actions.clone(), of.class.mutable.clone(), of.auto_type);
        (of.tier.kernel.clone(), of.tier.envelope.scope_ratio_max, recorded_windows(of), class)
    };
    if checked(own) != checked(other) {
        return Some(Differing::Kernel);
    }
    let shared = |id: &&String| other.class.invariants.contains(id);
    let rule = |of: &Effective, id: &String| of.rules.iter().find(|rule| rule.id == *id).cloned();
    let same_rule = |id: &String| rule(own, id) == rule(other, id);
    let same = Needs::of(own) == Needs::of(other) && own.class.invariants.iter().filter(shared).all(same_rule);
    (!same).then_some(Differing::Invariants)
}

/// The windows without those that only the decision itself reads: the kernel takes its times from the rest, and the
/// model's steps take theirs from the kernel.
fn recorded_windows(of: &Effective) -> Windows {
    Windows { auto: AutoWindows::default(), ..of.tier.windows.clone() }
}

/// Whether a forecast exceeds a bound that is not the recorded one: a preview under the other policy would have
/// searched for a change that keeps that bound, and nobody did.
fn is_unsearched(inputs: &Inputs, own: &Rules, other: &Rules) -> bool {
    let left = inputs.time.as_ref().map_or(0, |time| max_delay(other, time.elapsed.0));
    let exceeds = |report: &ReportFacts| {
        let over = |forecast: &Option<Forecast>, own: u64, bound: u64, limit: u64| {
            own != bound && forecast.as_ref().is_some_and(|forecast| forecast.value > limit)
        };
        let plain = |forecast: &Option<Forecast>, own: u64, bound: u64| over(forecast, own, bound, bound);
        plain(&report.retries, own.retry_amplification_max_ppm, other.retry_amplification_max_ppm)
            || plain(&report.backlog, own.backlog_max, other.backlog_max)
            || plain(&report.drain, own.drain_max.0, other.drain_max.0)
            || plain(&report.convergence, own.converge_deadline.0, other.converge_deadline.0)
            // The search is for the policy's time, the decision for what is left of it.
            || over(&report.delay, own.max_delay.0, other.max_delay.0, left)
    };
    inputs.reports.iter().any(exceeds)
}
