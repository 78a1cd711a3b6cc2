//! Arming: the record under which a commit acts. It is made when no hold stands, of what was read since.

use super::Shared;
use super::commit::{RECORD_FOR, blob};
use super::error::JobError;
use super::holds::HoldWatch;
use super::report::{Lost, Reporter};
use crate::platform::Reading;
use crate::remediation::wire::CommitParam;
use crate::remediation::{facts, measure};
use base::canon::Canon as _;
use base::{Digest, Envelope, Millis, Timestamp};
use client::Job;
use governance::record::{Arm, Bound, GuardMode};
use recovery::kernel::Severity;

/// A commit that nobody has begun.
pub(super) struct Arming<'a> {
    pub(super) shared: &'a Shared,
    pub(super) job: &'a Job,
    pub(super) param: &'a CommitParam,
    pub(super) plan: Digest,
    pub(super) writes: &'a [String],
    /// Until when the decision may be armed.
    pub(super) valid_until: Timestamp,
}

impl Arming<'_> {
    /// Arms, and says how bad things are then; nothing if the executor is to end while a hold stands.
    ///
    /// # Errors
    /// What was decided is not true any more, or nobody can say whether it is.
    pub(super) async fn arm(
        &self,
        holds: &mut HoldWatch,
        reporter: &mut Reporter,
    ) -> Result<Option<Severity>, JobError> {
        loop {
            // Before everything else: what was read before the end of a hold may have changed under it.
            if !holds.until_clear(self.job, &self.shared.stop).await? {
                return Ok(None);
            }
            let (reading, severity) = measured(self.shared, self.param).await?;
            let record = self.record(&reading, holds.version()).await?;
            if self.shared.env.now() > self.valid_until {
                return Err(JobError::Authority("the decision is no longer valid"));
            }
            match reporter.send(vec![record.into()]).await {
                Ok(()) => return Ok(Some(severity)),
                Err(Lost::Held) => holds.was_held(),
                Err(lost) => return Err(lost.into()),
            }
        }
    }

    /// What the preview was true of is read again; anything that changed refuses (K407).
    async fn record(&self, reading: &Reading, hold_version: u64) -> Result<Arm, JobError> {
        let (shared, param, task) = (self.shared, self.param, self.job.lease.task());
        let previewed = blob(shared, &param.bound).await?;
        let previewed = base::canon::parse_object("bound", &previewed).and_then(Bound::from_value);
        let previewed = previewed.map_err(JobError::Bound)?;
        let versions = facts::settings(reading).versions;
        for (field, version) in &previewed.versions {
            let now = versions.get(field).ok_or_else(|| JobError::Unread(field.clone()))?;
            if now != version {
                return Err(JobError::Drift(field.clone()));
            }
        }
        let programs = crate::provenance::of(&shared.env, shared.platform.topology(), self.writes).await;
        if programs != previewed.provenance {
            return Err(JobError::Drift("a program".to_owned()));
        }
        let decided = Envelope::from_json(&param.decision).map_err(JobError::Envelope)?;
        Ok(Arm {
            decision: Digest::of(&decided.payload),
            plan: self.plan,
            bound: previewed,
            hold_version,
            lease: param.incident.clone(),
            epoch: param.epoch,
            task: task.id.clone(),
            task_version: task.version,
            guard: GuardMode::Coarse,
        })
    }
}

/// What is seen now, and how bad it is.
pub(super) async fn measured(shared: &Shared, param: &CommitParam) -> Result<(Reading, Severity), JobError> {
    let now = shared.env.now();
    let reading = shared.platform.read(now, now.minus(RECORD_FOR)).await;
    let severity = measure::severity(&reading, Millis(param.regression_for_ms), Timestamp(param.onset_ms));
    Ok((reading, severity.ok_or(JobError::Blind)?))
}

#[cfg(test)]
mod tests;
