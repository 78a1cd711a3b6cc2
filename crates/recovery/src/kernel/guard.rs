//! When a step is done, and whether anything became worse.

use super::{Kernel, Look, Progress, Selector, Severity, fact_name};
use crate::check::CheckedStep;
use crate::isa::{Action, ActionKind};
use crate::plan::{Predicate, Signal};
use base::Timestamp;

/// A limit may be exceeded by a tenth: its bucket lets bursts through.
const LIMIT_SLACK_PERCENT: i64 = 110;
/// The value of an open breaker's field.
const OPEN: i64 = 1;

/// What has to be read to judge a step.
pub(super) fn selector(step: &CheckedStep, predicates: &[Predicate]) -> Selector {
    let mut facts: Vec<String> = step.desired.keys().filter_map(|field| fact_of_field(step, field)).collect();
    let measured = predicates.iter().filter(|p| !matches!(p.signal, Signal::Generation | Signal::NoRegression));
    facts.extend(measured.map(fact_name));
    if let Action::Scale { service, .. } = &step.action {
        facts.push(format!("ready({service})"));
    }
    facts.sort();
    facts.dedup();
    Selector { fields: step.desired.keys().cloned().collect(), facts }
}

/// The fact that belongs to a field of this action.
fn fact_of_field(step: &CheckedStep, field: &str) -> Option<String> {
    let (kind, subject) = field.split_once('/')?;
    match (step.action.kind(), kind) {
        (ActionKind::Restart, "generation") => Some(format!("ready/{subject}")),
        (ActionKind::Drain, "weight") => Some(format!("inflight/{subject}")),
        (ActionKind::RateLimit, "limit") | (ActionKind::CircuitBreak, "breaker") => Some(format!("passed/{subject}")),
        _ => None,
    }
}

/// Whether the step is done in this look: the fields are as they shall be and the action has its effect.
/// What is not in the look is not known, and what is not known is not done.
pub(super) fn is_done(step: &CheckedStep, progress: &Progress, look: &Look, now: Timestamp) -> bool {
    let state = &look.observation.state;
    let set = progress.desired.iter().all(|(field, wanted)| match state.get(field) {
        Some(value) if field.starts_with("generation/") => value >= wanted,
        Some(value) => value == wanted,
        None => false,
    });
    set && has_effect(step, progress, look, now)
}

fn has_effect(step: &CheckedStep, progress: &Progress, look: &Look, now: Timestamp) -> bool {
    // Every field with its wanted value and the fact that belongs to it.
    let each = |test: &dyn Fn(i64, i64) -> bool| {
        progress.desired.iter().all(|(field, wanted)| match fact_of_field(step, field) {
            Some(name) => look.facts.get(&name).is_some_and(|measured| test(*wanted, *measured)),
            None => true,
        })
    };
    match &step.action {
        Action::Restart { .. } => each(&|_, ready| ready == 1),
        // Requests in flight end, or the time for them does. Where a part of the traffic stays they never end.
        Action::Drain { timeout_ms, .. } => {
            let waited = now.since(progress.began).0 >= timeout_ms.unwrap_or(0);
            waited || each(&|weight, inflight| weight > 0 || inflight == 0)
        }
        Action::RateLimit { .. } => {
            each(&|limit, passed| passed.saturating_mul(100) <= limit.saturating_mul(LIMIT_SLACK_PERCENT))
        }
        Action::CircuitBreak { .. } => each(&|breaker, passed| breaker != OPEN || passed == 0),
        Action::Scale { service, .. } => {
            let wanted = progress.desired.get(&crate::call::replicas(service));
            wanted.is_some() && look.facts.get(&format!("ready({service})")) == wanted
        }
        Action::RestoreTraffic { .. } | Action::RollbackConfig { .. } => true,
    }
}

impl Kernel {
    /// Whether every condition holds; one that cannot be known does not.
    pub(super) fn do_hold(&self, predicates: &[Predicate], at: usize, look: &Look) -> bool {
        predicates.iter().all(|predicate| match predicate.signal {
            Signal::NoRegression => self.is_worse(false) == Some(false),
            Signal::Generation => {
                let saved = &self.steps[at].pre_image;
                let mut fields = saved.iter().filter(|(field, _)| field.starts_with("generation/"));
                fields.all(|(field, before)| look.observation.state.get(field).is_some_and(|value| value > before))
            }
            _ => {
                let measured = look.facts.get(&fact_name(predicate));
                measured.and_then(|value| predicate.holds(*value)) == Some(true)
            }
        })
    }

    /// Whether things are worse than when the plan was armed; `None` if nobody can say.
    pub(super) fn is_worse(&self, at_the_end: bool) -> Option<bool> {
        let (now, _) = self.severity.filter(|(_, at)| self.now.since(*at) <= self.config.severity_age_max)?;
        let before = &self.armed.severity;
        if now.impaired > before.impaired || now.objectives > before.objectives {
            return Some(true);
        }
        let long = |since: Timestamp| self.now.since(since) >= self.config.regression_for;
        // What our own steps shed is forgiven as long as they are open, and not beyond the end.
        let shed = at_the_end && exceeds(now.bad_ppm.saturating_add(now.shed_ppm), before);
        Some(shed || self.worse_since.is_some_and(long))
    }

    pub(super) fn on_severity(&mut self, severity: Severity) {
        self.severity = Some((severity, self.now));
        let worse = exceeds(severity.bad_ppm, &self.armed.severity);
        self.worse_since = if worse { self.worse_since.or(Some(self.now)) } else { None };
    }
}

/// More than a tenth and more than a tenth of a point above what was.
fn exceeds(bad_ppm: u64, before: &Severity) -> bool {
    let was = before.bad_ppm.saturating_add(before.shed_ppm);
    bad_ppm > was.saturating_add(was / 10) && bad_ppm > was.saturating_add(1_000)
}
