//! Whether a call may take effect now.

use super::ledger::{Books, Entry, Known};
use super::{ProcessActuator, Task, config};
use crate::actuator::{Error, Reason};
use crate::clock;
use crate::field::Field;
use recovery::call::{Observation, Versions};

/// How a call goes on.
pub(super) enum Admission {
    /// It took effect before.
    Known(Entry),
    /// It begins.
    Fresh(Observation),
    /// It began before and goes on.
    Resumed(Entry, Observation),
}

impl ProcessActuator {
    pub(super) async fn admit(&self, task: &Task<'_>, books: &Books) -> Result<Admission, Error> {
        let seen = books.fence();
        if task.fence < seen {
            return Err(Error::Fenced { seen });
        }
        let known = books.known(&task.key.0);
        if let Known::Applied(entry) | Known::Begun(entry) = &known
            && !is_same_call(task, entry)
        {
            return Err(Error::Refused { reason: Reason::KeyReused });
        }
        if let Known::Applied(entry) = known {
            return Ok(Admission::Known(entry));
        }
        if clock::now() > task.deadline {
            return Err(Error::Refused { reason: Reason::Deadline });
        }
        let observed = self.read(task.desired.keys()).await?;
        if let Known::Begun(entry) = known {
            return Ok(Admission::Resumed(entry, observed));
        }
        if let Some(drifted) = task.bound.and_then(|bound| drift(bound, &observed)) {
            return Err(Error::Drifted { versions: drifted });
        }
        self.check_values(task, &observed).await?;
        Ok(Admission::Fresh(observed))
    }

    /// Bounds that only the target knows.
    async fn check_values(&self, task: &Task<'_>, observed: &Observation) -> Result<(), Error> {
        let refuse = |reason| Err(Error::Refused { reason });
        for (name, field) in &task.fields {
            let wanted = task.desired.get(name).copied().unwrap_or(0);
            let now = observed.state.get(name).copied().unwrap_or(0);
            if !field.range().contains(&wanted) && wanted != now {
                return refuse(Reason::OutOfBounds(format!("{name} cannot be {wanted}")));
            }
            match field {
                Field::Generation(..) if wanted <= now => {
                    return refuse(Reason::OutOfBounds(format!("{name} is {now} and would be {wanted}")));
                }
                Field::Generation(..) | Field::Replicas(_) => self.check_process(field, wanted).await?,
                Field::Config { .. } if task.action.is_some() => config::check(&self.dir, field, wanted)
                    .map_err(|why| Error::Refused { reason: Reason::Revision(why) })?,
                Field::Config { .. }
                | Field::Weight(..)
                | Field::ServiceLimit(_)
                | Field::EdgeLimit(_)
                | Field::Breaker(_) => {}
            }
        }
        Ok(())
    }

    async fn check_process(&self, field: &Field, wanted: i64) -> Result<(), Error> {
        let refuse = |reason| Err(Error::Refused { reason });
        let status = self.supervisor.status().await.map_err(super::observe::unreachable)?;
        match field {
            Field::Generation(service, replica) if status.instance(service, *replica).is_none() => {
                refuse(Reason::UnknownTarget(format!("{service}@{replica}")))
            }
            Field::Replicas(service) => {
                let bounds = status.bounds.get(service).copied().unwrap_or((0, 0));
                let fits = u32::try_from(wanted).is_ok_and(|wanted| bounds.0 <= wanted && wanted <= bounds.1);
                let why = || format!("{service} has {} to {} replicas, not {wanted}", bounds.0, bounds.1);
                if fits { Ok(()) } else { refuse(Reason::OutOfBounds(why())) }
            }
            _ => Ok(()),
        }
    }
}

/// The key's fields and values are those it was first used with.
fn is_same_call(task: &Task<'_>, entry: &Entry) -> bool {
    let action = task.action.map_or(super::UNDO, |action| action.kind().word());
    entry.action == action && entry.wanted == *task.desired
}

fn drift(bound: &Versions, observed: &Observation) -> Option<Versions> {
    let differs = |(name, version): (&String, &u64)| observed.versions.get(name).is_some_and(|now| now != version);
    bound.iter().any(differs).then(|| observed.versions.clone())
}
