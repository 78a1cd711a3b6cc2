//! Reading fields where they live: generations and counts at the supervisor, traffic at the proxy,
//! configuration in the file system.

use super::{ProcessActuator, Task, config};
use crate::actuator::{Error, Reason};
use crate::clock;
use crate::control::{ControlError, ProxyState, Status};
use crate::field::Field;
use recovery::call::{Observation, State, Versions};
use std::collections::BTreeMap;

impl ProcessActuator {
    pub(super) async fn read(&self, names: impl Iterator<Item = &String> + Send) -> Result<Observation, Error> {
        let mut fields = BTreeMap::new();
        for name in names {
            fields.insert(name.clone(), Field::parse(name).ok_or_else(|| unknown(name))?);
        }
        let status = match fields.values().any(|field| field.owner().is_some()) {
            true => Some(self.supervisor.status().await.map_err(unreachable)?),
            false => None,
        };
        let traffic = match fields.values().any(Field::is_traffic) {
            true => Some(self.proxy.state().await.map_err(unreachable)?),
            false => None,
        };
        let mut state = State::new();
        let mut versions = Versions::new();
        for (name, field) in &fields {
            let (value, version) = match (field, &status, &traffic) {
                (Field::Config { .. }, ..) => config::read(&self.dir, field).map_err(|_| unknown(name))?,
                (_, _, Some(traffic)) if field.is_traffic() => read_traffic(field, traffic, status.as_ref())?,
                (_, Some(status), _) => read_process(field, status)?,
                _ => return Err(unknown(name)),
            };
            state.insert(name.clone(), value);
            versions.insert(name.clone(), version);
        }
        Ok(Observation { at: clock::now(), state, versions })
    }

    /// What a call that took effect made of its fields. Of traffic the proxy's own answer is it: on a ramp the
    /// fields themselves are still on their way.
    pub(super) async fn reached(&self, task: &Task<'_>) -> Result<(State, Versions), Error> {
        if task.fields.values().any(Field::is_traffic) {
            let changed = self.proxy.outcome(&task.key.0).await.map_err(unreachable)?;
            return changed.map(|it| (it.after, it.versions)).ok_or(Error::TimedOut);
        }
        let seen = self.read(task.desired.keys()).await?;
        Ok((seen.state, seen.versions))
    }

    /// Numbers and start times of the processes a call started.
    pub(super) async fn native_id(&self, task: &Task<'_>) -> Option<String> {
        let replicas: Vec<(&str, u32)> = task.fields.values().filter_map(instance).collect();
        if replicas.is_empty() {
            return None;
        }
        let status = self.supervisor.status().await.ok()?;
        let ids = replicas.iter().filter_map(|(service, replica)| status.instance(service, *replica));
        Some(ids.map(|it| format!("{}:{}", it.pid, it.start_time)).collect::<Vec<_>>().join(","))
    }
}

/// The instance of a generation field.
pub(super) fn instance(field: &Field) -> Option<(&str, u32)> {
    match field {
        Field::Generation(service, replica) => Some((service, *replica)),
        _ => None,
    }
}

/// What a failed question means before anything was begun: nothing was done.
pub(super) fn unreachable(error: ControlError) -> Error {
    match error {
        ControlError::Fenced { seen } => Error::Fenced { seen },
        ControlError::Drifted { versions } => Error::Drifted { versions },
        ControlError::Refused(why) => Error::Refused { reason: Reason::Target(why) },
        ControlError::Superseded | ControlError::TimedOut(_) | ControlError::Failed(_) | ControlError::Garbled(_) => {
            Error::TimedOut
        }
        ControlError::Unavailable { .. } => Error::Unavailable,
    }
}

fn read_process(field: &Field, status: &Status) -> Result<(i64, u64), Error> {
    let name = field.to_string();
    let value = match field {
        Field::Generation(service, replica) if status.replicas.contains_key(service) => {
            let running = status.instance(service, *replica).filter(|instance| instance.alive);
            running.map_or(0, |instance| i64::try_from(instance.generation).unwrap_or(i64::MAX))
        }
        Field::Replicas(service) => i64::from(*status.replicas.get(service).ok_or_else(|| unknown(&name))?),
        _ => return Err(unknown(&name)),
    };
    Ok((value, status.versions.get(&name).copied().unwrap_or(0)))
}

fn read_traffic(field: &Field, traffic: &ProxyState, status: Option<&Status>) -> Result<(i64, u64), Error> {
    let name = field.to_string();
    let is_service = |service: &String| status.is_some_and(|status| status.replicas.contains_key(service));
    let value = match (traffic.settings.get(&name), field) {
        (Some(value), _) => *value,
        // An instance nobody weighted and that is not registered just now has its full weight.
        (None, Field::Weight(service, _)) if is_service(service) => 100,
        (None, _) => return Err(unknown(&name)),
    };
    Ok((value, traffic.versions.get(&name).copied().unwrap_or(0)))
}

fn unknown(name: &str) -> Error {
    Error::Refused { reason: Reason::UnknownTarget(name.to_owned()) }
}
