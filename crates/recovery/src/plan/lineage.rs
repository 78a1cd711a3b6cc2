//! Revisions: how one follows from another, and what a mutation may change.

use super::{Cause, Change, Plan, Step};
use crate::isa::{Action, Rate};

/// A change that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MutateError {
    /// The path is not `KEY.PARAMETER` of a step of the plan.
    #[error("`{0}` names no parameter of a step: write KEY.PARAMETER, for example s1.rate")]
    NoSuchPath(String),
    /// The parameter has another value than the change says.
    #[error("`{path}` is {found}, not {expected}")]
    From {
        /// The path.
        path: String,
        /// Its value.
        found: String,
        /// What the change says it is.
        expected: String,
    },
    /// The new value is not of the parameter's form.
    #[error("`{value}` is not a value of `{path}`")]
    Value {
        /// The path.
        path: String,
        /// The text.
        value: String,
    },
}

/// The next revision with one parameter changed: cause *mutation*, parent and change filled in.
///
/// # Errors
/// When the change does not fit the plan.
pub fn mutate(plan: &Plan, change: &Change) -> Result<Plan, MutateError> {
    let mut next = plan.normalize();
    apply(&mut next, change)?;
    Ok(descend(plan, next, Cause::Mutation, vec![change.clone()]))
}

/// The next revision with other steps: for causes other than a mutation. Says that the steps changed.
#[must_use]
pub fn revise(plan: &Plan, cause: Cause, steps: Vec<Step>) -> Plan {
    let change = Change { path: "steps".into(), from: crate::text::steps(&plan.steps), to: crate::text::steps(&steps) };
    let next = Plan { steps, ..plan.clone() };
    descend(plan, next.normalize(), cause, vec![change])
}

/// Applies one change to the plan's steps.
///
/// # Errors
/// When the change does not fit.
pub fn apply(plan: &mut Plan, change: &Change) -> Result<(), MutateError> {
    let missing = || MutateError::NoSuchPath(change.path.clone());
    let (key, parameter) = change.path.split_once('.').ok_or_else(missing)?;
    let step = plan.steps.iter_mut().find(|step| step.key == key).ok_or_else(missing)?;
    let found = parameter_text(&step.action, parameter).ok_or_else(missing)?;
    if found != change.from {
        let (path, expected) = (change.path.clone(), change.from.clone());
        return Err(MutateError::From { path, found, expected });
    }
    let wrong = || MutateError::Value { path: change.path.clone(), value: change.to.clone() };
    let percent = change.to.strip_suffix('%');
    let number: u32 = percent.unwrap_or(&change.to).trim_end_matches("rps").parse().map_err(|_| wrong())?;
    set_parameter(&mut step.action, parameter, u64::from(number)).ok_or_else(wrong)?;
    // A rate keeps its unit, and `045%` is no value.
    if parameter_text(&step.action, parameter).as_deref() == Some(change.to.as_str()) { Ok(()) } else { Err(wrong()) }
}

/// The value of a mutable-form parameter in text form.
#[must_use]
pub fn parameter_text(action: &Action, parameter: &str) -> Option<String> {
    if let (Action::RateLimit { rate, .. }, "rate") = (action, parameter) {
        return Some(crate::text::rate(*rate));
    }
    parameter_number(action, parameter).map(|number| number.to_string())
}

/// The value of an integer parameter; a rate without its unit.
#[must_use]
pub fn parameter_number(action: &Action, parameter: &str) -> Option<u64> {
    match (action, parameter) {
        (Action::Restart { wave, .. }, "wave") => Some(u64::from(*wave)),
        (Action::Restart { surge, .. }, "surge") => Some(u64::from(*surge)),
        (Action::Restart { grace_ms, .. }, "grace_ms") => *grace_ms,
        (Action::Restart { jitter_ms, .. }, "jitter_ms") => *jitter_ms,
        (Action::Drain { percent, .. }, "percent") => Some(u64::from(*percent)),
        (Action::Drain { timeout_ms, .. }, "timeout_ms") => *timeout_ms,
        (Action::RestoreTraffic { ramp_ms, .. }, "ramp_ms") => *ramp_ms,
        (Action::RateLimit { rate: Rate::Percent(number) | Rate::PerSecond(number), .. }, "rate") => {
            Some(u64::from(*number))
        }
        (_, "ttl_ms") => action.ttl_ms(),
        _ => None,
    }
}

/// Sets an integer parameter; `None` when the action has none of that name or the number does not fit.
pub fn set_parameter(action: &mut Action, parameter: &str, to: u64) -> Option<()> {
    let small = u32::try_from(to).ok();
    match (action, parameter) {
        (Action::Restart { wave, .. }, "wave") => *wave = small?,
        (Action::Restart { surge, .. }, "surge") => *surge = small?,
        (Action::Restart { grace_ms, .. }, "grace_ms") => *grace_ms = Some(to),
        (Action::Restart { jitter_ms, .. }, "jitter_ms") => *jitter_ms = Some(to),
        (Action::Drain { percent, .. }, "percent") => *percent = small?,
        (Action::Drain { timeout_ms, .. }, "timeout_ms") => *timeout_ms = Some(to),
        (Action::RestoreTraffic { ramp_ms, .. }, "ramp_ms") => *ramp_ms = Some(to),
        (Action::RateLimit { rate: Rate::Percent(number) | Rate::PerSecond(number), .. }, "rate") => *number = small?,
        (Action::Scale { to: count, .. }, "to") => *count = crate::isa::ScaleTo::Exactly(small?),
        (
            Action::Drain { ttl_ms, .. }
            | Action::CircuitBreak { ttl_ms, .. }
            | Action::RateLimit { ttl_ms, .. }
            | Action::Scale { ttl_ms, .. },
            "ttl_ms",
        ) => *ttl_ms = to,
        _ => return None,
    }
    Some(())
}

fn descend(parent: &Plan, mut next: Plan, cause: Cause, changes: Vec<Change>) -> Plan {
    next.revision = parent.revision.saturating_add(1);
    next.parent = Some(parent.digest());
    next.cause = cause;
    next.changes = changes;
    next
}
