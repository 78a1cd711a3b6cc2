//! The effects themselves, and telling afterwards whether they happened.

use super::ledger::Entry;
use super::observe::{instance, unreachable};
use super::{ProcessActuator, Task, config};
use crate::actuator::{Error, Reason};
use crate::control::{Change, ControlError, Ramp, Request, Seal, Status};
use crate::field::Field;
use crate::{clock, procfs};
use base::Digest;
use recovery::call::{Observation, State, Versions};
use recovery::isa::Action;
use std::time::Duration;

/// Grace where the call names none.
const GRACE_MS: u64 = 30_000;
/// Turn on a service while reconciling: as long as an operation with a usual grace takes.
const TURN_WAIT: Duration = Duration::from_secs(40);

/// Why an effect failed, and whether it is certain that nothing happened.
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) untouched: bool,
}

/// What became of a begun call.
pub(super) enum Resolved {
    Applied,
    Absent,
    Unknown,
}

impl ProcessActuator {
    /// `resumed`: an earlier attempt may have done a part, so that no failure of this one is without effect.
    pub(super) async fn act(
        &self,
        task: &Task<'_>,
        before: &Observation,
        resumed: bool,
        attempt: u64,
    ) -> Result<(), Failure> {
        match task.fields.values().next() {
            None => Ok(()),
            Some(Field::Generation(service, _)) => self.restart(task, service, before, resumed).await,
            Some(Field::Replicas(service)) => self.scale(task, service, before, resumed).await,
            Some(field @ Field::Config { .. }) => self.switch(task, field),
            Some(_) => self.set_traffic(task, attempt).await,
        }
    }

    async fn restart(
        &self,
        task: &Task<'_>,
        service: &str,
        before: &Observation,
        resumed: bool,
    ) -> Result<(), Failure> {
        let Some(Action::Restart { wave, grace_ms, jitter_ms, .. }) = task.action else {
            return Err(untouched(Error::Unsupported));
        };
        let wait = clock::until(task.deadline);
        let ticket = self.supervisor.begin(service, task.fence, wait).await.map_err(|it| judge(it, !resumed))?;
        let status = self.supervisor.status().await.map_err(|it| judge(it, !resumed))?;
        let replicas = task.fields.values().filter_map(instance).map(|(_, replica)| replica);
        let missing: Vec<u32> = replicas.filter(|replica| !carries(&status, service, *replica, &task.key.0)).collect();
        let mut touched = resumed;
        for chunk in missing.chunks(usize::try_from((*wave).max(1)).unwrap_or(1)) {
            if clock::now() > task.deadline {
                return Err(Failure { error: Error::TimedOut, untouched: !touched });
            }
            if touched {
                // The wave before must serve before the next one goes.
                self.wait_ready(task, Some(chunk)).await.map_err(|error| Failure { error, untouched: false })?;
            }
            for replica in chunk {
                if touched {
                    tokio::time::sleep(jitter(&task.key.0, *replica, jitter_ms.unwrap_or(0))).await;
                }
                let name = recovery::call::generation(service, *replica);
                // One that an earlier attempt ended and could not start is no drift: it is to be started.
                let ended = resumed && status.instance(service, *replica).is_none_or(|it| !it.alive);
                let versions = if ended { &status.versions } else { &before.versions };
                let request = Request::Replace {
                    service: service.to_owned(),
                    replica: *replica,
                    generation: task.desired.get(&name).and_then(|wanted| u64::try_from(*wanted).ok()).unwrap_or(0),
                    key: task.key.0.clone(),
                    grace_ms: grace_ms.unwrap_or(GRACE_MS),
                    expect: versions.get(&name).copied(),
                    ticket,
                };
                self.supervisor.operate(&request).await.map_err(|error| judge(error, !touched))?;
                touched = true;
            }
        }
        Ok(())
    }

    async fn scale(&self, task: &Task<'_>, service: &str, before: &Observation, resumed: bool) -> Result<(), Failure> {
        let ticket = self.supervisor.begin(service, task.fence, clock::until(task.deadline)).await;
        let ticket = ticket.map_err(|error| judge(error, !resumed))?;
        let status = self.supervisor.status().await.map_err(|error| judge(error, !resumed))?;
        if status.scaled_by.get(service) == Some(&task.key.0) {
            return Ok(());
        }
        let field = recovery::call::replicas(service);
        let wanted = task.desired.get(&field).copied().unwrap_or(0);
        let request = Request::Scale {
            service: service.to_owned(),
            to: u32::try_from(wanted).unwrap_or(0),
            key: task.key.0.clone(),
            expires_at_ms: task.expires_at.map(|at| at.0),
            grace_ms: GRACE_MS,
            expect: before.versions.get(&field).copied(),
            ticket,
        };
        self.supervisor.operate(&request).await.map_err(|error| judge(error, !resumed))
    }

    fn switch(&self, task: &Task<'_>, field: &Field) -> Result<(), Failure> {
        let wanted = task.desired.get(&field.to_string()).copied().unwrap_or(0);
        let failed = |why| untouched(Error::Refused { reason: Reason::Revision(why) });
        config::check(&self.dir, field, wanted).map_err(failed)?;
        config::switch(&self.dir, field, wanted).map_err(|_| Failure { error: Error::Unavailable, untouched: false })
    }

    async fn set_traffic(&self, task: &Task<'_>, attempt: u64) -> Result<(), Failure> {
        let ramp = match task.action {
            Some(Action::RestoreTraffic { ramp, ramp_ms, .. }) if ramp.len() > 1 => {
                Some(Ramp { steps: ramp.clone(), every_ms: ramp_ms.unwrap_or(0) })
            }
            _ => None,
        };
        let of_set = |(name, _): &(&String, &u64)| task.desired.contains_key(*name);
        let bound = task.bound.map(|bound| bound.iter().filter(of_set).map(|(k, v)| (k.clone(), *v)).collect());
        let change = Change {
            key: task.key.0.clone(),
            attempt,
            fence: task.fence,
            set: task.desired.clone(),
            bound,
            expires_at_ms: task.expires_at.filter(|_| closes(task.desired)).map(|at| at.0),
            ramp,
        };
        self.proxy.put(&change).await.map(|_| ()).map_err(|error| judge(error, true))
    }

    /// Whether a call that was begun took effect. Voids everything older that is still on its way first.
    pub(super) async fn look(&self, task: &Task<'_>, begun: &Entry, attempt: u64) -> Resolved {
        match task.fields.values().next() {
            None => Resolved::Applied,
            Some(Field::Generation(service, _)) => self.look_at_instances(task, service, begun).await,
            Some(Field::Replicas(service)) => self.look_at_count(task, service, begun).await,
            Some(field @ Field::Config { .. }) => self.look_at_config(task, field, begun),
            Some(_) => self.look_at_traffic(task, attempt).await,
        }
    }

    async fn look_at_instances(&self, task: &Task<'_>, service: &str, begun: &Entry) -> Resolved {
        let Some(status) = self.status_after_turn(task, service).await else { return Resolved::Unknown };
        let replicas: Vec<u32> = task.fields.values().filter_map(instance).map(|(_, replica)| replica).collect();
        let carrying = replicas.iter().filter(|replica| carries(&status, service, **replica, &task.key.0)).count();
        match carrying {
            // One that was ended and could not be started anew is not untouched.
            0 if unmoved(&begun.versions, &status) => Resolved::Absent,
            all if all == replicas.len() => Resolved::Applied,
            // Half of a restart is neither; performing the same key again finishes it.
            _ => Resolved::Unknown,
        }
    }

    async fn look_at_count(&self, task: &Task<'_>, service: &str, begun: &Entry) -> Resolved {
        match self.status_after_turn(task, service).await {
            None => Resolved::Unknown,
            Some(status) if status.scaled_by.get(service) == Some(&task.key.0) => Resolved::Applied,
            Some(status) if unmoved(&begun.versions, &status) => Resolved::Absent,
            // Somebody else set another count since: this call's may have come and gone.
            Some(_) => Resolved::Unknown,
        }
    }

    fn look_at_config(&self, task: &Task<'_>, field: &Field, begun: &Entry) -> Resolved {
        let name = field.to_string();
        match config::read(&self.dir, field) {
            Err(_) => Resolved::Unknown,
            // Under the lock only this call could have moved it since.
            Ok((now, version))
                if begun.versions.get(&name) == Some(&version) && begun.before.get(&name) == Some(&now) =>
            {
                Resolved::Absent
            }
            Ok((now, _)) if task.desired.get(&name) == Some(&now) => Resolved::Applied,
            Ok(_) => Resolved::Unknown,
        }
    }

    async fn look_at_traffic(&self, task: &Task<'_>, attempt: u64) -> Resolved {
        // What is still on its way under this key comes to nothing, also when it carries the same fence.
        let (key, fields) = (task.key.0.clone(), task.desired.keys().cloned().collect());
        let seal = Seal { fence: task.fence, fields, key, attempt };
        if self.proxy.seal(&seal).await.is_err() {
            return Resolved::Unknown;
        }
        match self.proxy.outcome(&task.key.0).await {
            Ok(Some(_)) => Resolved::Applied,
            Ok(None) => Resolved::Absent,
            Err(_) => Resolved::Unknown,
        }
    }

    async fn status_after_turn(&self, task: &Task<'_>, service: &str) -> Option<Status> {
        self.supervisor.begin(service, task.fence, TURN_WAIT).await.ok()?;
        self.supervisor.status().await.ok()
    }
}

/// Whether the instance was last started under this key: by the environment of its process where there is
/// one, else by the supervisor's memory of it.
fn carries(status: &Status, service: &str, replica: u32, key: &str) -> bool {
    let Some(instance) = status.instance(service, replica) else { return false };
    if instance.alive
        && procfs::is_same(instance.pid, instance.start_time)
        && let Some(own) = procfs::variable(instance.pid, "STANCH_KEY")
    {
        return own == key;
    }
    instance.key == key
}

fn unmoved(before: &Versions, status: &Status) -> bool {
    before.iter().all(|(name, version)| status.versions.get(name).copied().unwrap_or(0) == *version)
}

/// Whether any of these values keeps requests away.
fn closes(set: &State) -> bool {
    set.iter().any(|(name, value)| match Field::parse(name) {
        Some(Field::Weight(..)) => *value < 100,
        Some(Field::ServiceLimit(_) | Field::EdgeLimit(_)) => *value >= 0,
        _ => *value != 0,
    })
}

/// A pause between 0 and `max_ms`, the same for the same call.
fn jitter(key: &str, replica: u32, max_ms: u64) -> Duration {
    let Digest(bytes) = Digest::of(format!("{key} {replica}").as_bytes());
    let drawn = bytes.iter().take(6).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    Duration::from_millis(drawn % (max_ms + 1))
}

/// What a failed operation means: a refusal is certain, silence is not.
fn judge(error: ControlError, nothing_before: bool) -> Failure {
    let certain = match &error {
        ControlError::Fenced { .. }
        | ControlError::Drifted { .. }
        | ControlError::Superseded
        | ControlError::Refused(_) => true,
        ControlError::Unavailable { .. }
        | ControlError::TimedOut(_)
        | ControlError::Failed(_)
        | ControlError::Garbled(_) => false,
    };
    let untouched = certain && nothing_before;
    // With a part done, even a certain refusal of the rest leaves the whole to be reconciled.
    let error = match unreachable(error) {
        fenced @ Error::Fenced { .. } => fenced,
        _ if certain && !nothing_before => Error::TimedOut,
        error => error,
    };
    Failure { error, untouched }
}

fn untouched(error: Error) -> Failure {
    Failure { error, untouched: true }
}
