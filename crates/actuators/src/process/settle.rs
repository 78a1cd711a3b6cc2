//! Waiting for what takes time after the effect: readiness, requests in flight, the end of a ramp.

use super::observe::instance;
use super::{ProcessActuator, Task};
use crate::actuator::Error;
use crate::clock;
use crate::control::{Counters, Status};
use crate::field::Field;
use base::{Millis, Timestamp};
use recovery::isa::{Action, ActionKind};
use std::time::Duration;

/// The pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Time for requests in flight where the call names none.
const DRAIN_TIMEOUT: Millis = Millis(30_000);

impl ProcessActuator {
    /// # Errors
    /// [`Error::TimedOut`] at the deadline: the effect is there, what follows from it is not.
    pub(super) async fn settle(&self, task: &Task<'_>) -> Result<(), Error> {
        match task.action {
            Some(Action::Restart { .. }) => self.wait_ready(task, None).await,
            Some(Action::Scale { .. }) => self.wait_count(task).await,
            Some(Action::Drain { timeout_ms, .. }) => {
                let limit = clock::now().plus(timeout_ms.map_or(DRAIN_TIMEOUT, Millis)).min(task.deadline);
                self.wait_empty(task, limit).await;
                Ok(())
            }
            Some(action) if action.kind() == ActionKind::RestoreTraffic => self.wait_settings(task).await,
            _ => Ok(()),
        }
    }

    /// Waits until every restarted instance, but for those still to come, is ready.
    pub(super) async fn wait_ready(&self, task: &Task<'_>, but: Option<&[u32]>) -> Result<(), Error> {
        let counts = |replica: u32| but.is_none_or(|but| !but.contains(&replica));
        let ready = |status: &Status| {
            let mut instances = task.fields.values().filter_map(instance).filter(|(_, replica)| counts(*replica));
            instances.all(|(service, replica)| {
                // Those of later waves still run under an older key.
                status.instance(service, replica).is_some_and(|it| it.key != task.key.0 || (it.alive && it.ready))
            })
        };
        self.wait_status(task.deadline, ready).await
    }

    async fn wait_count(&self, task: &Task<'_>) -> Result<(), Error> {
        let Some(Action::Scale { service, .. }) = task.action else { return Ok(()) };
        let ready = |status: &Status| {
            let own = status.instances.iter().filter(|instance| instance.service == *service);
            let wanted = status.replicas.get(service).copied().unwrap_or(0);
            let ready = own.filter(|instance| instance.alive && instance.ready).count();
            // Later calls may have set another count; theirs is what can be reached.
            u32::try_from(ready).is_ok_and(|ready| ready >= wanted)
        };
        self.wait_status(task.deadline, ready).await
    }

    async fn wait_status(&self, until: Timestamp, done: impl Fn(&Status) -> bool) -> Result<(), Error> {
        loop {
            if self.supervisor.status().await.is_ok_and(|status| done(&status)) {
                return Ok(());
            }
            pause(until).await?;
        }
    }

    /// Requests that do not end in time are left to end by themselves.
    async fn wait_empty(&self, task: &Task<'_>, until: Timestamp) {
        let drained = task.desired.iter().filter(|(_, weight)| **weight == 0);
        let names: Vec<String> = drained.filter_map(|(name, _)| weighted(name)).collect();
        let in_flight = |counters: &Counters| {
            names.iter().any(|name| counters.targets.get(name).is_some_and(|series| series.total.in_flight > 0))
        };
        while self.proxy.counters().await.map_or(true, |counters| in_flight(&counters)) {
            if pause(until).await.is_err() {
                tracing::info!(key = %task.key, "requests are still in flight after the drain");
                return;
            }
        }
    }

    async fn wait_settings(&self, task: &Task<'_>) -> Result<(), Error> {
        loop {
            let state = self.proxy.state().await;
            let reached = |name: &String, value: &i64| {
                state.as_ref().is_ok_and(|state| state.settings.get(name).is_none_or(|now| now == value))
            };
            if state.is_ok() && task.desired.iter().all(|(name, value)| reached(name, value)) {
                return Ok(());
            }
            pause(task.deadline).await?;
        }
    }
}

fn weighted(name: &str) -> Option<String> {
    match Field::parse(name)? {
        Field::Weight(service, replica) => Some(format!("{service}@{replica}")),
        _ => None,
    }
}

async fn pause(until: Timestamp) -> Result<(), Error> {
    if clock::now() >= until {
        return Err(Error::TimedOut);
    }
    tokio::time::sleep(LOOK_AGAIN).await;
    Ok(())
}
