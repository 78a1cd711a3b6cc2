//! The nearest value of a mutable parameter that keeps an exceeded bound.

use super::compile::Compiled;
use super::engine::{Mode, Run};
use super::report::{Finding, verdicts};
use super::{Input, Step};
use crate::isa::{Action, Rate};

/// Values tried of one parameter.
pub(super) const CANDIDATES_MAX: u64 = 64;

/// A parameter that policy lets a preview change, with its bounds; `RateLimit.rate` in percent,
/// `Restart.wave` in instances, `RestoreTraffic.ramp_ms` in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutable {
    /// Action and parameter.
    pub parameter: String,
    /// Smallest value.
    pub min: u64,
    /// Largest value.
    pub max: u64,
    /// Distance between values.
    pub step: u64,
    /// The safe end is the small one.
    pub safer_down: bool,
}

base::record! {
    /// A change of one parameter of one step.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Change {
        /// The step.
        1 pub step: String,
        /// Action and parameter.
        2 pub parameter: String,
        /// The value in the plan.
        3 pub from: u64,
        /// The value that keeps the bound.
        4 pub to: u64,
    }
}

/// Searches the nearest value toward the safe end that keeps the bound on the first runs that exceeded
/// it. The new revision's own preview judges it in full.
#[must_use]
pub fn find_fix(input: &Input, breach: &Finding, mutables: &[Mutable]) -> Option<Change> {
    let places: Vec<(usize, &Mutable, u64)> = input
        .steps
        .iter()
        .enumerate()
        .flat_map(|(i, step)| mutables.iter().filter_map(move |m| Some((i, m, value_of(step, &m.parameter)?))))
        .collect();
    for distance in 1..=CANDIDATES_MAX {
        for (i, mutable, from) in &places {
            let Some(to) = mutable.toward_safety(*from, distance) else { continue };
            let mut changed = input.clone();
            set_value(&mut changed.steps[*i], *from, to);
            if keeps(&changed, breach) {
                let step = input.steps[*i].key.clone();
                return Some(Change { step, parameter: mutable.parameter.clone(), from: *from, to });
            }
        }
    }
    None
}

impl Mutable {
    fn toward_safety(&self, from: u64, distance: u64) -> Option<u64> {
        let far = self.step.checked_mul(distance)?;
        let to = if self.safer_down { from.checked_sub(far)? } else { from.checked_add(far)? };
        (self.step > 0 && (self.min..=self.max).contains(&to)).then_some(to)
    }
}

fn keeps(input: &Input, breach: &Finding) -> bool {
    let compiled = Compiled::new(input);
    breach.runs.iter().all(|index| {
        let outcome = Run::new(&compiled, *index, Mode::Plan).finish();
        verdicts(&compiled, &outcome).iter().all(|verdict| verdict.kind != breach.kind || !verdict.exceeds())
    })
}

fn value_of(step: &Step, parameter: &str) -> Option<u64> {
    match (&step.action, parameter) {
        (Action::RateLimit { rate: Rate::Percent(percent), .. }, "RateLimit.rate") => Some(u64::from(*percent)),
        (Action::Restart { wave, .. }, "Restart.wave") => Some(u64::from(*wave)),
        (Action::RestoreTraffic { ramp_ms, .. }, "RestoreTraffic.ramp_ms") => *ramp_ms,
        _ => None,
    }
}

fn set_value(step: &mut Step, from: u64, to: u64) {
    let small = u32::try_from(to).unwrap_or(u32::MAX);
    match &mut step.action {
        Action::RateLimit { rate, .. } => {
            *rate = Rate::Percent(small);
            for value in step.desired.values_mut() {
                // Percent of the same baseline: the absolute rate follows in proportion.
                let scaled = value.saturating_mul(i64::from(small)).checked_div(i64::try_from(from).unwrap_or(0));
                *value = scaled.unwrap_or(*value);
            }
        }
        Action::Restart { wave, .. } => *wave = small,
        Action::RestoreTraffic { ramp, ramp_ms, .. } => {
            let before = ramp_ms.unwrap_or(0);
            let steps = (ramp.len() as u64).saturating_sub(1);
            step.deadline_ms += to.saturating_sub(before) * steps;
            *ramp_ms = Some(to);
        }
        _ => {}
    }
}
