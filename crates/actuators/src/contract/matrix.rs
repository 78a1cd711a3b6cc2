//! Every action of the instruction set on every kind of target: what an actuator does not claim it refuses as
//! unsupported before anything is touched, also in a dry run.

use super::clauses::{Checked, Suite, expect, same};
use super::{Names, Sample};
use crate::actuator::{DryRun, Error};
use recovery::call::{self, State, Versions};
use recovery::isa::{
    Action, ActionKind, BreakerMode, DrainMode, Limited, Place, Rate, RestartStrategy, Restored, Revision, ScaleTo,
};

/// A time to live that plays no part.
const TTL_MS: u64 = 60_000;

impl Suite<'_> {
    pub(super) async fn matrix(&mut self, kind: ActionKind) -> Checked {
        for sample in variants(kind, &self.rig.names()) {
            let actuator = self.rig.open();
            if actuator.capabilities().of(&sample.action).is_none() {
                self.unsupported(sample).await?;
                continue;
            }
            let what = format!("{:?}", sample.action);
            let call = self.call_of(sample, Versions::new());
            let dry = actuator.dry_run(&call).await;
            let denied = dry == Ok(DryRun::Refused(Error::Unsupported));
            expect(!denied, || format!("claimed, and a dry run says unsupported: {what}"))?;
        }
        for sample in self.rig.unclaimed().into_iter().filter(|sample| sample.action.kind() == kind) {
            self.unsupported(sample).await?;
        }
        Ok(())
    }

    async fn unsupported(&mut self, sample: Sample) -> Checked {
        let what = format!("{:?}", sample.action);
        let call = self.call_of(sample, Versions::new());
        let actuator = self.rig.open();
        let before = self.everything().await?;
        let dry = actuator.dry_run(&call).await;
        let predicted = dry == Ok(DryRun::Refused(Error::Unsupported));
        expect(predicted, || format!("not claimed, and a dry run says {dry:?}: {what}"))?;
        let answer = actuator.perform(&call).await;
        expect(answer == Err(Error::Unsupported), || format!("not claimed, and answered {answer:?}: {what}"))?;
        let after = self.everything().await?;
        same("values after what is not supported", &after.state, &before.state)?;
        same("versions after what is not supported", &after.versions, &before.versions)
    }
}

/// The action on every kind of target that it can name.
fn variants(kind: ActionKind, names: &Names) -> Vec<Sample> {
    let service = &names.service;
    let weights: State = [(call::weight(service, 0), 0)].into();
    let one = |action: Action, field: String, value: i64| vec![Sample { action, desired: [(field, value)].into() }];
    let on_edge = || names.edge.clone();
    match kind {
        ActionKind::Restart => of_places(names, &[(call::generation(service, 0), 1_000)].into(), restart),
        ActionKind::Drain => of_places(names, &weights, drain),
        ActionKind::RestoreTraffic => {
            let mut all = of_places(names, &weights, |place| restore(Restored::Weights(vec![(place, 50)])));
            all.push(Sample { action: restore(Restored::AllOpen), desired: weights });
            all
        }
        ActionKind::CircuitBreak => {
            let (edge, mode) = (on_edge(), BreakerMode::Open);
            let action = Action::CircuitBreak { edge, mode, fallback: None, ttl_ms: TTL_MS };
            one(action, call::breaker(&names.edge), 1)
        }
        ActionKind::RateLimit => {
            let place = |place| limit(Limited::Place(place));
            let mut all = of_places(names, &[(call::service_limit(service), 9_000)].into(), place);
            all.extend(one(limit(Limited::Edge(on_edge())), call::edge_limit(&names.edge), 9_000));
            all
        }
        ActionKind::Scale => {
            let action = Action::Scale { service: service.clone(), to: ScaleTo::More(1), ttl_ms: TTL_MS };
            one(action, call::replicas(service), 3)
        }
        ActionKind::RollbackConfig => {
            let (kind, namespace, name) = &names.object;
            let mut all = Vec::new();
            for kind in [kind.as_str(), "role"] {
                let action = rollback(kind, namespace, name);
                all.extend(one(action, call::config(kind, namespace, name), 1));
            }
            all
        }
    }
}

fn of_places(names: &Names, desired: &State, action: impl Fn(Place) -> Action) -> Vec<Sample> {
    let service = || names.service.clone();
    let places = [
        Place::Service(service()),
        Place::Instances(service(), vec![0]),
        Place::Zone(service(), names.zone.clone()),
        Place::Shard(service(), "1".to_owned()),
    ];
    places.map(|place| Sample { action: action(place), desired: desired.clone() }).to_vec()
}

fn restart(place: Place) -> Action {
    let strategy = RestartStrategy::Rolling;
    Action::Restart { place, strategy, wave: 1, surge: 0, grace_ms: None, jitter_ms: None }
}

fn drain(place: Place) -> Action {
    Action::Drain { place, percent: 100, mode: DrainMode::New, timeout_ms: None, ttl_ms: TTL_MS }
}

fn restore(of: Restored) -> Action {
    Action::RestoreTraffic { of, ramp: vec![100], ramp_ms: None }
}

fn limit(what: Limited) -> Action {
    Action::RateLimit { what, rate: Rate::PerSecond(9), burst: None, priority: None, ttl_ms: TTL_MS }
}

fn rollback(kind: &str, namespace: &str, name: &str) -> Action {
    let (kind, namespace, name) = (kind.to_owned(), namespace.to_owned(), name.to_owned());
    Action::RollbackConfig { kind, namespace, name, to: Revision::LastGood }
}
