//! The convergence proof: every check holds several samples in a row before the deadline, or it does not.

use super::Shared;
use super::error::JobError;
use super::report::Reporter;
use crate::platform::{Reading, summarize};
use crate::remediation::wire::ConvergeParam;
use base::{Digest, Millis, Timestamp};
use client::Job;
use governance::record::{Converged, Convergence, ConvergenceOutcome};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Bad requests allowed, in parts per million of those sent: the client's objective.
const BAD_PPM_ALLOWED: i64 = 10_000;
/// Requests in flight beyond the usual that count as backlog.
const BACKLOG_SLACK: u64 = 20;

pub(super) async fn run(shared: &Arc<Shared>, job: &Job, param: &ConvergeParam) -> Result<(), JobError> {
    let plan = Digest::parse(&param.plan).ok_or(JobError::Parameter("the plan's digest"))?;
    let env = &shared.env;
    let began = env.now();
    let deadline = began.plus(Millis(param.deadline_ms));
    let onset = Timestamp(param.onset_ms);
    let (mut in_a_row, mut counted_ms) = (0, i64::MIN);
    let mut checks;
    loop {
        let now = env.now();
        let reading = shared.platform.read(now, onset.minus(Millis(param.baseline_ms))).await;
        let client = client_side(&reading, param, began);
        checks = judge(shared, &reading, param, client.as_ref());
        let met = checks.iter().all(|check| check.met);
        (in_a_row, counted_ms) = count(in_a_row, counted_ms, client.filter(|_| met).map(|client| client.second_ms));
        if in_a_row >= param.samples || now >= deadline || job.lease.is_lost() {
            break;
        }
        env.sleep_until(now.plus(Millis(param.every_ms))).await;
    }
    let converged = in_a_row >= param.samples;
    for check in &mut checks {
        check.samples = in_a_row;
    }
    let now = env.now();
    let reading = shared.platform.read(now, onset.minus(Millis(param.baseline_ms))).await;
    let record = Convergence {
        plan,
        checks,
        scope_after: reading.unavailable().into_iter().collect(),
        harm: harm(&reading, param),
        outcome: if converged { ConvergenceOutcome::Converged } else { ConvergenceOutcome::Not },
        took: env.now().since(began),
    };
    let mut reporter = Reporter::new(shared, job, &param.incident, None);
    Ok(reporter.send(vec![record.into()]).await?)
}

/// What the newest settled second of the client's record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ClientSide {
    /// The second's beginning.
    second_ms: i64,
    /// Bad requests, in parts per million of those sent.
    bad_ppm: i64,
    shed: i64,
    in_flight: i64,
    in_flight_max: i64,
}

/// The samples in a row and the last second that counted, after a sample that met every check by this second or met
/// not all. A second is one sample however often it is looked at.
fn count(in_a_row: u64, counted_ms: i64, met: Option<i64>) -> (u64, i64) {
    match met {
        None => (0, counted_ms),
        Some(second_ms) if second_ms <= counted_ms => (in_a_row, counted_ms),
        Some(second_ms) => (in_a_row + 1, second_ms),
    }
}

fn judge(shared: &Shared, reading: &Reading, param: &ConvergeParam, client: Option<&ClientSide>) -> Vec<Converged> {
    let at = reading.at;
    let check = |name: &str, value: i64, bound: i64, unit: &str| Converged {
        name: name.to_owned(),
        value,
        bound,
        unit: unit.to_owned(),
        samples: 0,
        at,
        met: value >= 0 && value <= bound,
    };
    // A missing reading is no good reading: -1 is never met.
    let (bad, shed, backlog, usual) =
        client.map_or((-1, -1, -1, 0), |client| (client.bad_ppm, client.shed, client.in_flight, client.in_flight_max));
    let unready = match &reading.status {
        Some(_) => i64::try_from(reading.unavailable().len()).unwrap_or(i64::MAX),
        None => -1,
    };
    vec![
        check("slo: bad requests", bad, BAD_PPM_ALLOWED, "ppm"),
        check("slo: shed requests", shed, 0, "requests"),
        check("backlog: in flight", backlog, usual, "requests"),
        check("services short of a replica", unready, 0, "services"),
        check("epochs: fences that fell", falls(shared, param), 0, "fences"),
    ]
}

/// The newest settled second since the proof began; `None` if there is none, nothing was sent in it, or the record
/// stopped.
fn client_side(reading: &Reading, param: &ConvergeParam, began: Timestamp) -> Option<ClientSide> {
    let record = reading.current_record()?;
    let onset = Timestamp(param.onset_ms);
    let usual = summarize(record, onset.minus(Millis(param.baseline_ms)), onset);
    // The newest second is filling up and requests of the one before may still be answered.
    let [.., second, last] = record else { return None };
    if second.second_ms < began.0 - 1_000 || second.sent == 0 {
        return None;
    }
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Some(ClientSide {
        second_ms: second.second_ms,
        bad_ppm: signed((second.failed + second.late).saturating_mul(1_000_000) / second.sent),
        shed: signed(second.shed),
        in_flight: signed(last.in_flight),
        in_flight_max: signed(usual.in_flight.saturating_mul(2).max(second.sent / 4) + BACKLOG_SLACK),
    })
}

/// Accepted writes whose fence is lower than one accepted before, over the ledgers of what the plan changed.
fn falls(shared: &Shared, param: &ConvergeParam) -> i64 {
    use actuators::process::ledger::{Outcome, owner};
    let mut count = 0;
    let owners: BTreeSet<&str> = param.writes.iter().map(|written| owner(written)).collect();
    for owner in owners {
        let Some(lines) = shared.platform.ledger(owner) else { return -1 };
        let applied = lines.iter().filter(|line| line.outcome == Outcome::Applied);
        let fences: Vec<_> = applied.map(|line| line.fence).collect();
        count += fences.iter().zip(fences.iter().skip(1)).filter(|(before, after)| after < before).count();
    }
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Requests that went wrong or were shed since the first step, beyond the share that was usual before the onset.
fn harm(reading: &Reading, param: &ConvergeParam) -> i64 {
    let Some(record) = reading.current_record() else { return i64::MAX };
    let onset = Timestamp(param.onset_ms);
    let usual = summarize(record, onset.minus(Millis(param.baseline_ms)), onset);
    let during = summarize(record, Timestamp(param.commit_began_ms), reading.at);
    let expected = (usual.bad.saturating_mul(during.sent)).checked_div(usual.sent).unwrap_or(0);
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    signed(during.bad + during.shed) - signed(expected)
}

#[cfg(test)]
mod tests;
