//! What an executor measures by itself: facts the kernel's looks need, and how bad things are.

use crate::platform::{Reading, summarize};
use base::{Millis, Timestamp};
use recovery::call::State;
use recovery::kernel::Severity;

/// The facts asked for, as far as the reading has them; what is missing is unknown.
#[must_use]
pub(crate) fn facts(names: &[String], reading: &Reading) -> State {
    names.iter().filter_map(|name| Some((name.clone(), fact(name, reading)?))).collect()
}

fn fact(name: &str, reading: &Reading) -> Option<i64> {
    if let Some(instance) = name.strip_prefix("ready/") {
        let (service, replica) = instance.split_once('@')?;
        let found = reading.status.as_ref()?.instance(service, replica.parse().ok()?)?;
        return Some(i64::from(found.ready));
    }
    if let Some(instance) = name.strip_prefix("inflight/") {
        let series = reading.proxy.as_ref()?.counters.targets.get(instance)?;
        return i64::try_from(series.total.in_flight).ok();
    }
    if let Some(subject) = name.strip_prefix("passed/") {
        return passed(subject, reading);
    }
    let service = name.strip_prefix("ready(")?.strip_suffix(')')?;
    let all =
        reading.status.as_ref()?.instances.iter().filter(|instance| instance.service == service && instance.ready);
    i64::try_from(all.count()).ok()
}

/// Milli-requests per second let through in the last whole second.
fn passed(subject: &str, reading: &Reading) -> Option<i64> {
    let counters = &reading.proxy.as_ref()?.counters;
    let second = reading.at.0 - reading.at.0.rem_euclid(1_000) - 1_000;
    let into = |edge: &str| edge == subject || edge.split_once("->").is_some_and(|(_, callee)| callee == subject);
    let series = counters.edges.iter().filter(|(edge, _)| into(edge));
    let counts = series.flat_map(|(_, series)| &series.seconds).filter(|at| at.at_ms == second);
    let passed: u64 = counts.map(|at| at.counts.calls.saturating_sub(at.counts.shed)).sum();
    i64::try_from(passed.saturating_mul(1_000)).ok()
}

/// How bad things are: services with an instance that is not ready, whether the client's objective is missed, and the
/// share of its requests that went wrong. `None` without supervisor, current record or requests: nobody can say.
#[must_use]
pub(crate) fn severity(reading: &Reading, window: Millis, onset: Timestamp) -> Option<Severity> {
    reading.status.as_ref()?;
    let record = reading.current_record()?;
    let to = Timestamp(record.last()?.second_ms);
    let from = to.minus(window).max(onset);
    let summary = summarize(record, from, to);
    let share = |count: u64| count.saturating_mul(1_000_000).checked_div(summary.sent);
    let bad_ppm = share(summary.bad)?;
    Some(Severity {
        impaired: reading.unavailable().len() as u64,
        objectives: u64::from(bad_ppm >= 10_000),
        bad_ppm,
        shed_ppm: share(summary.shed)?,
    })
}

#[cfg(test)]
mod tests;
