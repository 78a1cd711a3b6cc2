//! K4xx, and the pre-image and capability rules: whether the world still is what the plan was made for,
//! and nobody else is at work there.

use super::context::Context;
use super::resolve::Resolved;
use super::scope::edge_of;
use super::{Code, Rejection};
use crate::call;
use crate::graph::Closure;
use crate::isa::{Action, Limited, Place, Restored};
use crate::plan::{Predicate, Signal, Subject};
use crate::world::{TargetKind, World};
use base::{Digest, Millis, Timestamp};
use std::collections::BTreeSet;

/// LIMIT: a reading may lie this far ahead of the clock.
pub(super) const FACT_SKEW_MAX: Millis = Millis(5_000);

/// K401: printed first, even before the form is judged.
pub(super) fn holds(world: &World, writes: &BTreeSet<String>) -> Vec<Rejection> {
    let covering =
        |hold: &&crate::world::HoldFacts| hold.scope.is_empty() || hold.scope.iter().any(|name| writes.contains(name));
    let one = |hold: &crate::world::HoldFacts| {
        let scope = if hold.scope.is_empty() { "everything".to_owned() } else { hold.scope.join(",") };
        Rejection::new(Code::K401, scope).found(format!("hold version {}", hold.version), "no hold")
    };
    world.holds.iter().filter(covering).map(one).collect()
}

/// K109, K113, K402 to K407 of a whole plan.
pub(super) fn check(context: &Context<'_>, out: &mut Vec<Rejection>) {
    let world = context.world;
    for step in &context.steps {
        pre_image(world, step, out);
        out.extend(capable(world, step));
        out.extend(controller(world, step));
    }
    let writes = context.writes();
    out.extend(leases(world, &writes, &context.hard_callers));
    out.extend(conflicts(world, &writes, &context.hard_callers));
    if let Some(first) = context.steps.first() {
        out.extend(preconditions(world, first.key(), &first.step.pre));
    }
    out.extend(unreconciled(world, &writes));
    binding(context, out);
    // Before the decision there is none to check; every step checks again, and then it must be there.
    if world.authority.is_some() {
        out.extend(authority(world, context.digest));
    }
}

/// K109: what a step replaces can be read now. A Restart has no inverse, and a restore gives back what was read.
fn pre_image(world: &World, step: &Resolved, out: &mut Vec<Rejection>) {
    if matches!(step.action, Action::Restart { .. } | Action::RestoreTraffic { of: Restored::Steps(_), .. }) {
        return;
    }
    // Names that the graph does not know have no value to save either: K201 and K211 say so.
    let edge = edge_of(&step.action).is_none_or(|edge| world.slice.edge(&edge.caller, &edge.callee).is_some());
    if !edge || step.touched.services.iter().any(|name| !world.slice.contains(name)) {
        return;
    }
    for field in step.desired.keys().filter(|field| !world.settings.state.contains_key(*field)) {
        out.push(
            Rejection::new(Code::K109, field.as_str()).at(step.key()).found("not read", "its value now").unknown(),
        );
    }
}

/// K113.
fn capable(world: &World, step: &Resolved) -> Option<Rejection> {
    let place = |place: &Place| match place {
        Place::Service(_) => TargetKind::Service,
        Place::Instances(..) => TargetKind::Instances,
        Place::Zone(..) => TargetKind::Zone,
        Place::Shard(..) => TargetKind::Shard,
    };
    let target = match &step.action {
        Action::Restart { place: target, .. } | Action::Drain { place: target, .. } => place(target),
        Action::RateLimit { what: Limited::Place(target), .. } => place(target),
        Action::RateLimit { what: Limited::Edge(_), .. } | Action::CircuitBreak { .. } => TargetKind::Edge,
        Action::Scale { .. } => TargetKind::Service,
        Action::RollbackConfig { .. } => TargetKind::Object,
        Action::RestoreTraffic { of: Restored::Weights(_), .. } => TargetKind::Instances,
        // Whoever opens can close.
        Action::RestoreTraffic { .. } => return None,
    };
    let action = step.action.kind();
    let offered =
        world.capabilities.iter().any(|capability| capability.action == action && capability.target == target);
    let refusal = || {
        Rejection::new(Code::K113, action.word())
            .at(step.key())
            .found(format!("not on {target}"), "an actuator that can")
    };
    (!offered).then(refusal)
}

/// K402.
pub(super) fn leases(world: &World, writes: &BTreeSet<String>, callers: &Closure) -> Vec<Rejection> {
    let shared: BTreeSet<&String> = callers.names().iter().collect();
    let others = world.leases.iter().filter(|lease| lease.incident != world.intent.incident);
    let blocked = |lease: &&crate::world::LeaseFacts| {
        let exclusive = lease.exclusive.iter().any(|row| writes.contains(row) || shared.contains(row));
        exclusive || lease.shared.iter().any(|row| writes.contains(row)) || matches!(callers, Closure::MoreThan(_))
    };
    let one = |lease: &crate::world::LeaseFacts| {
        Rejection::new(Code::K402, lease.incident.as_str()).found(format!("epoch {}", lease.epoch), "a free scope")
    };
    others.filter(blocked).map(one).collect()
}

/// K403.
pub(super) fn conflicts(world: &World, writes: &BTreeSet<String>, callers: &Closure) -> Vec<Rejection> {
    let others: Vec<_> = world.running.iter().filter(|plan| plan.incident != world.intent.incident).collect();
    let shared: BTreeSet<&String> = callers.names().iter().collect();
    let meets = |plan: &&&crate::world::RunningPlan| {
        let written = plan.writes.iter().any(|name| writes.contains(name) || shared.contains(name));
        let depended = plan.hard_callers.iter().any(|name| writes.contains(name));
        written || depended || plan.more || matches!(callers, Closure::MoreThan(_))
    };
    let mut out: Vec<Rejection> = others
        .iter()
        .filter(meets)
        .map(|plan| {
            Rejection::new(Code::K403, plan.incident.as_str()).found("its plan runs on the same services", "disjoint")
        })
        .collect();
    if others.len() >= world.policy.plans_max as usize {
        out.push(
            Rejection::new(Code::K403, "plans").found(others.len(), format!("fewer than {}", world.policy.plans_max)),
        );
    }
    out
}

/// K404.
pub(super) fn preconditions(world: &World, key: &str, list: &[Predicate]) -> Vec<Rejection> {
    let judge = |predicate: &Predicate| {
        let refusal = Rejection::new(Code::K404, predicate.to_string()).at(key);
        match holds_now(world, predicate) {
            Some((true, _)) => None,
            Some((false, measured)) => Some(refusal.found(measured, "the condition")),
            None => Some(refusal.found("not measured", "the condition").unknown()),
        }
    };
    list.iter().filter_map(judge).collect()
}

/// Whether a condition holds, and the measured value; `None` when it cannot be measured.
fn holds_now(world: &World, predicate: &Predicate) -> Option<(bool, i64)> {
    let measured = measured(world, predicate)?;
    Some((predicate.holds(measured)?, measured))
}

fn measured(world: &World, predicate: &Predicate) -> Option<i64> {
    let fresh = |at: Timestamp| is_fresh(world, at);
    let service = |name: &str| world.services.get(name).filter(|facts| fresh(facts.observed_at));
    let count = |number: usize| i64::try_from(number).ok();
    let chosen = |place: &Place, replica: u32, zone: Option<&String>| match place {
        Place::Service(_) => true,
        Place::Instances(_, numbers) => numbers.contains(&replica),
        Place::Zone(_, wanted) => zone == Some(wanted),
        Place::Shard(..) => false,
    };
    match (predicate.signal, predicate.subject.as_ref()) {
        (Signal::Ready | Signal::Quorum, Some(Subject::Place(place))) => {
            let facts = service(place.service())?;
            count(facts.ready().filter(|instance| chosen(place, instance.replica, instance.zone.as_ref())).count())
        }
        (Signal::InFlight, Some(Subject::Place(place))) => {
            let facts = service(place.service())?;
            let held =
                facts.instances.iter().filter(|instance| chosen(place, instance.replica, instance.zone.as_ref()));
            Some(held.map(|instance| i64::from(instance.in_flight)).sum())
        }
        (Signal::Weight, Some(Subject::Place(place))) => {
            let facts = service(place.service())?;
            let numbers =
                facts.instances.iter().filter(|instance| chosen(place, instance.replica, instance.zone.as_ref()));
            let weight = |replica: u32| world.settings.state.get(&call::weight(place.service(), replica)).copied();
            let weights: Option<BTreeSet<i64>> = numbers.map(|instance| weight(instance.replica)).collect();
            // Several places have one weight only when they agree.
            weights.filter(|set| set.len() == 1 && fresh(world.settings.at))?.into_iter().next()
        }
        (Signal::Revision, Some(Subject::Object(object))) => {
            let facts = world.objects.get(&object.to_string()).filter(|facts| fresh(facts.observed_at))?;
            i64::try_from(facts.current).ok()
        }
        // Relative to the step's or the plan's start: nothing to compare with before it.
        (Signal::Generation | Signal::NoRegression, _) => None,
        (signal, Some(subject)) => {
            let fact = world.signals.get(&format!("{signal}({subject})")).filter(|fact| fresh(fact.observed_at))?;
            Some(fact.value)
        }
        (_, None) => None,
    }
}

/// Whether a reading is young enough, and not from the future.
pub(super) fn is_fresh(world: &World, at: Timestamp) -> bool {
    world.now.since(at) <= world.policy.windows.fact_age_max && at <= world.now.plus(FACT_SKEW_MAX)
}

/// K405.
pub(super) fn controller(world: &World, step: &Resolved) -> Option<Rejection> {
    let owner = match &step.action {
        Action::Scale { service, .. } => world.services.get(service)?.controller.as_ref()?,
        Action::RollbackConfig { kind, namespace, name, .. } => {
            world.objects.get(&format!("{kind}/{namespace}/{name}"))?.controller.as_ref()?
        }
        _ => return None,
    };
    let refusal = || {
        Rejection::new(Code::K405, owner.name.as_str())
            .at(step.key())
            .found("cannot be held", "no one else, or one that can be held")
    };
    (!owner.holdable).then(refusal)
}

/// K406.
pub(super) fn unreconciled(world: &World, writes: &BTreeSet<String>) -> Vec<Rejection> {
    let open = world.unreconciled.iter().filter(|name| writes.contains(*name));
    open.map(|name| Rejection::new(Code::K406, name.as_str()).found("an unknown outcome", "reconciled by a person"))
        .collect()
}

/// K407: digests and versions as the preview bound them.
fn binding(context: &Context<'_>, out: &mut Vec<Rejection>) {
    let Some(binding) = &context.world.binding else { return };
    let mut refuse = |subject: &str, found: String, bound: String| {
        out.push(Rejection::new(Code::K407, subject).found(found, bound));
    };
    if binding.plan != context.digest {
        refuse("plan", context.digest.short(), binding.plan.short());
    }
    let topology: Digest = context.world.slice.digest();
    if binding.topology != topology {
        refuse("topology", topology.short(), binding.topology.short());
    }
    let set: BTreeSet<&String> = context.steps.iter().flat_map(|step| step.desired.keys()).collect();
    for (field, bound) in binding.versions.iter().filter(|(field, _)| set.contains(field)) {
        let now = context.world.settings.versions.get(field);
        if now != Some(bound) {
            refuse(field, now.map_or_else(|| "not read".to_owned(), u64::to_string), bound.to_string());
        }
    }
}

/// K408, K409.
pub(super) fn authority(world: &World, plan: Digest) -> Vec<Rejection> {
    let Some(authority) = &world.authority else {
        return vec![Rejection::new(Code::K408, "decision").found("absent", "a decision for this plan").unknown()];
    };
    let mut out = Vec::new();
    if !authority.granted || authority.plan != plan {
        let found =
            if authority.granted { format!("for {}", authority.plan.short()) } else { "not granted".to_owned() };
        out.push(Rejection::new(Code::K408, "decision").found(found, plan.short()));
    }
    if authority.expires_at <= world.now {
        out.push(Rejection::new(Code::K408, "decision").found("expired", "in force"));
    }
    if !authority.current {
        out.push(Rejection::new(Code::K409, "task").found("an older task version or lease epoch", "the current ones"));
    }
    out
}
