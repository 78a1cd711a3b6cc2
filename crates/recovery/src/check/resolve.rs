//! Steps as they will be executed: targets enumerated, values and times resolved. Total: what cannot be
//! resolved is left out here and refused by its own check.

use super::CheckedStep;
use super::context::Touched;
use crate::call::{self, State};
use crate::isa::{Action, BreakerMode, Limited, Place, Rate, RestartStrategy, Restored, Revision, ScaleTo, level};
use crate::plan::{Plan, Step};
use crate::world::{ObjectFacts, RevisionFacts, ServiceFacts, Windows, World};
use base::Millis;
use std::collections::BTreeMap;

/// A step with everything that can be computed about it alone and from the steps before.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    pub(super) step: Step,
    pub(super) action: Action,
    pub(super) targets: Vec<(String, u32)>,
    pub(super) desired: State,
    pub(super) touched: Touched,
    /// For a restore: which earlier steps it closes, by position.
    pub(super) closes: Vec<usize>,
    /// For a Scale: whether it adds replicas.
    pub(super) grows: Option<bool>,
    pub(super) restarts: bool,
    pub(super) times: Times,
}

/// Durations in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    pub(super) done: u64,
    pub(super) guard: u64,
    pub(super) expected: u64,
    pub(super) deadline: u64,
}

pub(super) fn steps(plan: &Plan, world: &World) -> Vec<Resolved> {
    let mut fields = world.settings.state.clone();
    let mut before: Vec<State> = Vec::new();
    let mut out: Vec<Resolved> = Vec::new();
    for step in &plan.steps {
        let closes = closed_by(&step.action, &out);
        let action = filled(&step.action, &closes, &out, &world.policy.windows);
        let touched = touched(&action, &closes, &out, world);
        let targets = targets(&action, &touched, &closes, &out, world);
        let desired =
            desired(&action, &targets, &closes, &Earlier { steps: &out, before: &before, now: &fields }, world);
        before.push(fields.clone());
        fields.extend(desired.iter().map(|(field, value)| (field.clone(), *value)));
        out.push(Resolved {
            times: times(&action, &targets, world),
            restarts: matches!(action, Action::Restart { .. }),
            grows: grows(&action, world),
            step: step.clone(),
            action,
            targets,
            desired,
            touched,
            closes,
        });
    }
    out
}

impl Resolved {
    pub(super) fn key(&self) -> &str {
        &self.step.key
    }

    pub(super) fn checked(&self, world: &World) -> CheckedStep {
        let version = |field: &String| Some((field.clone(), *world.settings.versions.get(field)?));
        CheckedStep {
            key: self.step.key.clone(),
            action: self.action.clone(),
            class: self.action.kind().rollback_class(),
            level: level(&self.action),
            targets: self.targets.clone(),
            desired: self.desired.clone(),
            bound: self.desired.keys().filter_map(version).collect(),
            ttl_ms: self.action.ttl_ms(),
            deadline_ms: self.times.deadline,
            done_ms: self.times.done,
            guard_ms: self.times.guard,
            expected_ms: self.times.expected,
            pre: self.step.pre.clone(),
            post: self.step.post.clone(),
            on_fail: self.step.on_fail.clone(),
            touches_traffic: self.action.kind().touches_traffic(),
        }
    }
}

/// Whether the step opens something that a restore closes.
pub(super) fn opens(action: &Action) -> bool {
    matches!(action, Action::Drain { .. } | Action::CircuitBreak { .. } | Action::RateLimit { .. })
}

/// The current replica count of a service.
pub(super) fn replicas(service: &str, world: &World) -> Option<u32> {
    let set = world.settings.state.get(&call::replicas(service)).and_then(|value| u32::try_from(*value).ok());
    set.or_else(|| u32::try_from(world.services.get(service)?.instances.len()).ok())
}

/// The resolved replica count of a Scale; below 0 counts as 0.
pub(super) fn scale_to(service: &str, to: ScaleTo, world: &World) -> Option<u32> {
    match to {
        ScaleTo::Exactly(count) => Some(count),
        ScaleTo::More(by) => Some(replicas(service, world)?.saturating_add(by)),
        ScaleTo::Fewer(by) => Some(replicas(service, world)?.saturating_sub(by)),
    }
}

/// The revision a rollback means: a named one, or the newest older one that was healthy long enough.
pub(super) fn revision<'a>(object: &'a ObjectFacts, to: &Revision, windows: &Windows) -> Option<&'a RevisionFacts> {
    match to {
        Revision::Named(name) => object.revisions.iter().find(|revision| revision.name == *name),
        Revision::LastGood => {
            let good =
                |known: &&RevisionFacts| known.number < object.current && known.healthy_for >= windows.known_good_for;
            object.revisions.iter().filter(good).max_by_key(|revision| revision.number)
        }
    }
}

/// The limit of a RateLimit in milli-requests per second; `None` when its baseline is unknown.
pub(super) fn limit_mrps(what: &Limited, rate: Rate, world: &World) -> Option<u64> {
    match rate {
        Rate::PerSecond(count) => Some(u64::from(count) * 1_000),
        Rate::Percent(percent) => Some(baseline_mrps(what, world)?.saturating_mul(u64::from(percent)) / 100),
    }
}

/// The baseline rate of what a RateLimit limits.
pub(super) fn baseline_mrps(what: &Limited, world: &World) -> Option<u64> {
    match what {
        Limited::Place(place) => world.services.get(place.service())?.baseline_mrps,
        Limited::Edge(edge) => world.edges.get(&edge.to_string())?.baseline_mrps,
    }
}

/// The field a RateLimit sets.
pub(super) fn limit_field(what: &Limited) -> String {
    match what {
        Limited::Place(place) => call::service_limit(&place.to_string()),
        Limited::Edge(edge) => call::edge_limit(edge),
    }
}

fn closed_by(action: &Action, earlier: &[Resolved]) -> Vec<usize> {
    let closed: Vec<usize> = earlier.iter().flat_map(|step| step.closes.iter().copied()).collect();
    let open = earlier.iter().enumerate().filter(|(index, step)| opens(&step.action) && !closed.contains(index));
    match action {
        Action::RestoreTraffic { of: Restored::AllOpen, .. } => open.map(|(index, _)| index).collect(),
        Action::RestoreTraffic { of: Restored::Steps(keys), .. } => {
            open.filter(|(_, step)| keys.contains(&step.step.key)).map(|(index, _)| index).collect()
        }
        // Weights over the route of an open drain close it: they are now the setting.
        Action::RestoreTraffic { of: Restored::Weights(weights), .. } => {
            let service = weights.first().map(|(place, _)| place.service());
            let same = |step: &Resolved| matches!(&step.action, Action::Drain { place, .. } if Some(place.service()) == service);
            open.filter(|(_, step)| same(step)).map(|(index, _)| index).collect()
        }
        _ => Vec::new(),
    }
}

/// The action with the policy's defaults filled in.
fn filled(action: &Action, closes: &[usize], earlier: &[Resolved], windows: &Windows) -> Action {
    let mut action = action.clone();
    match &mut action {
        Action::Restart { grace_ms, jitter_ms, .. } => {
            grace_ms.get_or_insert(windows.grace.0);
            jitter_ms.get_or_insert(windows.jitter.0);
        }
        Action::Drain { timeout_ms, .. } => {
            timeout_ms.get_or_insert(windows.drain_timeout.0);
        }
        Action::RestoreTraffic { of, ramp_ms, .. } => {
            if *of == Restored::AllOpen {
                let keys = closes.iter().filter_map(|index| Some(earlier.get(*index)?.step.key.clone()));
                *of = Restored::Steps(keys.collect());
            }
            ramp_ms.get_or_insert(windows.ramp_step.0);
        }
        Action::CircuitBreak { .. }
        | Action::RateLimit { .. }
        | Action::Scale { .. }
        | Action::RollbackConfig { .. } => {}
    }
    action
}

fn touched(action: &Action, closes: &[usize], earlier: &[Resolved], world: &World) -> Touched {
    let mut touched = Touched::default();
    match action {
        Action::Restart { place, strategy: RestartStrategy::Group, .. } => {
            touched.services.extend(world.slice.coupled_closure(&[place.service()]));
        }
        Action::Restart { place, .. } | Action::Drain { place, .. } => {
            touched.services.insert(place.service().to_owned());
        }
        Action::RateLimit { what: Limited::Place(place), .. } => {
            touched.services.insert(place.service().to_owned());
        }
        Action::RateLimit { what: Limited::Edge(edge), .. } | Action::CircuitBreak { edge, .. } => {
            touched.services.insert(edge.callee.clone());
            touched.edges.insert(edge.clone());
        }
        Action::Scale { service, .. } => {
            touched.services.insert(service.clone());
        }
        Action::RestoreTraffic { of, .. } => {
            if let Restored::Weights(weights) = of {
                touched.services.extend(weights.iter().map(|(place, _)| place.service().to_owned()));
            }
            closes.iter().filter_map(|index| earlier.get(*index)).for_each(|step| touched.add(&step.touched));
        }
        Action::RollbackConfig { kind, namespace, name, .. } => {
            let object = format!("{kind}/{namespace}/{name}");
            let readers = world.objects.get(&object).map(|facts| facts.readers.clone()).unwrap_or_default();
            touched.services.extend(readers);
            touched.objects.insert(object);
        }
    }
    touched
}

fn targets(
    action: &Action,
    touched: &Touched,
    closes: &[usize],
    earlier: &[Resolved],
    world: &World,
) -> Vec<(String, u32)> {
    let of_service = |service: &String| {
        let instances = world.services.get(service).map(|facts| facts.instances.as_slice()).unwrap_or_default();
        instances.iter().map(|instance| (service.clone(), instance.replica)).collect::<Vec<_>>()
    };
    let mut targets = match action {
        Action::Restart { place, strategy: RestartStrategy::Rolling, .. } | Action::Drain { place, .. } => {
            place_targets(place, world)
        }
        Action::RestoreTraffic { of: Restored::Weights(weights), .. } => {
            weights.iter().flat_map(|(place, _)| place_targets(place, world)).collect()
        }
        Action::RestoreTraffic { .. } => {
            closes.iter().filter_map(|index| earlier.get(*index)).flat_map(|step| step.targets.clone()).collect()
        }
        _ => touched.services.iter().flat_map(of_service).collect(),
    };
    targets.sort();
    targets.dedup();
    targets
}

fn place_targets(place: &Place, world: &World) -> Vec<(String, u32)> {
    let service = place.service();
    let instances = world.services.get(service).map(|facts| facts.instances.as_slice()).unwrap_or_default();
    let chosen = instances.iter().filter(|instance| match place {
        Place::Service(_) => true,
        Place::Instances(_, numbers) => numbers.contains(&instance.replica),
        Place::Zone(_, zone) => instance.zone.as_ref() == Some(zone),
        Place::Shard(..) => false,
    });
    chosen.map(|instance| (service.to_owned(), instance.replica)).collect()
}

/// Fields as the steps before leave them.
struct Earlier<'a> {
    steps: &'a [Resolved],
    before: &'a [State],
    now: &'a State,
}

fn desired(
    action: &Action,
    targets: &[(String, u32)],
    closes: &[usize],
    earlier: &Earlier<'_>,
    world: &World,
) -> State {
    match action {
        Action::Restart { .. } => targets
            .iter()
            .filter_map(|(service, replica)| {
                let field = call::generation(service, *replica);
                let observed = world.services.get(service)?.instance(*replica)?.generation;
                let earlier = earlier.now.get(&field).copied().unwrap_or(0);
                Some((field, i64::try_from(observed).ok()?.max(earlier).saturating_add(1)))
            })
            .collect(),
        Action::Drain { percent, .. } => {
            let share = i64::from(100_u32.saturating_sub(*percent));
            let field = |(service, replica): &(String, u32)| call::weight(service, *replica);
            // Never gives traffic back to a place that has less already.
            let value = |field: &String| earlier.now.get(field).map_or(share, |now| share.min(*now));
            targets.iter().map(field).map(|field| (field.clone(), value(&field))).collect()
        }
        Action::RestoreTraffic { of: Restored::Weights(weights), .. } => weights
            .iter()
            .flat_map(|(place, weight)| {
                let numbers = place_targets(place, world);
                numbers.into_iter().map(|(service, replica)| (call::weight(&service, replica), i64::from(*weight)))
            })
            .collect(),
        Action::RestoreTraffic { .. } => restored(closes, earlier),
        Action::CircuitBreak { edge, mode, .. } => {
            let value = if *mode == BreakerMode::Open { 1 } else { 2 };
            BTreeMap::from([(call::breaker(edge), value)])
        }
        Action::RateLimit { what, rate, .. } => {
            let limit = limit_mrps(what, *rate, world).and_then(|limit| i64::try_from(limit).ok());
            limit.map(|limit| (limit_field(what), limit)).into_iter().collect()
        }
        Action::Scale { service, to, .. } => {
            let count = scale_to(service, *to, world);
            count.map(|count| (call::replicas(service), i64::from(count))).into_iter().collect()
        }
        Action::RollbackConfig { kind, namespace, name, to } => {
            let object = world.objects.get(&format!("{kind}/{namespace}/{name}"));
            let chosen = object.and_then(|object| revision(object, to, &world.policy.windows));
            let number = chosen.and_then(|revision| i64::try_from(revision.number).ok());
            number.map(|number| (call::config(kind, namespace, name), number)).into_iter().collect()
        }
    }
}

/// The values from before the closed steps; of several on one field, from before the first.
fn restored(closes: &[usize], earlier: &Earlier<'_>) -> State {
    let mut out = State::new();
    for index in closes {
        let (Some(step), Some(before)) = (earlier.steps.get(*index), earlier.before.get(*index)) else { continue };
        for field in step.desired.keys() {
            if let Some(value) = before.get(field) {
                out.entry(field.clone()).or_insert(*value);
            }
        }
    }
    out
}

fn grows(action: &Action, world: &World) -> Option<bool> {
    match action {
        Action::Scale { service, to, .. } => Some(scale_to(service, *to, world)? >= replicas(service, world)?),
        _ => None,
    }
}

fn startup(services: impl Iterator<Item = impl AsRef<str>>, world: &World) -> u64 {
    let one = |facts: Option<&ServiceFacts>| facts.and_then(|facts| facts.startup);
    services
        .map(|name| one(world.services.get(name.as_ref())).unwrap_or(world.policy.windows.startup).0)
        .max()
        .unwrap_or(world.policy.windows.startup.0)
}

fn times(action: &Action, targets: &[(String, u32)], world: &World) -> Times {
    let windows = &world.policy.windows;
    let guard = if action.kind().touches_traffic() { windows.guard_grace.0 + windows.guard_window.0 } else { 0 };
    let started = || startup(targets.iter().map(|(service, _)| service), world);
    // (done holds this long, the step's own times at most, the same as expected, parts of step_deadline_min)
    let (done, own, expected, allowance) = match action {
        Action::Restart { wave, grace_ms, jitter_ms, .. } => {
            let count = u64::try_from(targets.len()).unwrap_or(u64::MAX).max(1);
            let waves = count.div_ceil(u64::from((*wave).max(1)));
            let wave_ms = started().saturating_add(windows.ready_for.0).saturating_add(jitter_ms.unwrap_or(0));
            let longest = wave_ms.saturating_add(grace_ms.unwrap_or(0));
            (windows.ready_for.0, waves.saturating_mul(longest), waves.saturating_mul(wave_ms), 3)
        }
        Action::Drain { timeout_ms, place, .. } => {
            let timeout = timeout_ms.unwrap_or(0);
            let mean_us = world.slice.service(place.service()).map_or(0, |view| view.mean_us);
            // Requests in flight end within a few of their usual durations.
            let usual = (mean_us.saturating_mul(3) / 1_000).max(100);
            (0, timeout, timeout.min(usual), 1)
        }
        Action::RestoreTraffic { ramp, ramp_ms, .. } => {
            let pauses = u64::try_from(ramp.len()).unwrap_or(u64::MAX).saturating_sub(1);
            let own = pauses.saturating_mul(ramp_ms.unwrap_or(0));
            (0, own, own, 1)
        }
        Action::CircuitBreak { .. } => (windows.open_for.0, windows.open_for.0, windows.open_for.0, 1),
        Action::RateLimit { .. } => (windows.limited_for.0, windows.limited_for.0, windows.limited_for.0, 1),
        Action::Scale { .. } | Action::RollbackConfig { .. } => {
            let own = started().saturating_add(windows.ready_for.0);
            (windows.ready_for.0, own, own, 1)
        }
    };
    Times {
        done,
        guard,
        expected: expected.saturating_add(guard),
        deadline: own.saturating_add(windows.step_deadline_min.0.saturating_mul(allowance)),
    }
}

/// A duration of a policy as text.
pub(super) fn shown(ms: u64) -> String {
    Millis(ms).to_string()
}
