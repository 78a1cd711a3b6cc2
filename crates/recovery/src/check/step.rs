//! The checks that run again before each step, on fresh facts.

use super::capacity::taking;
use super::context::Touched;
use super::resolve::{Resolved, Times};
use super::scope::metastable;
use super::state;
use super::walk::Walk;
use super::{CheckedStep, Code, Rejection};
use crate::call;
use crate::isa::{Action, Limited};
use crate::plan::Step;
use crate::world::World;
use base::Digest;
use std::collections::BTreeSet;

/// Checks one step of the plan with this digest again, just before it begins: K214, K301 to K303, K312 and
/// K401 to K409, on the facts of `world`. What earlier steps changed is in the world's settings; versions
/// that our own receipts moved are in [`World::own_versions`].
///
/// # Errors
/// Every reason against it, in the documented order.
pub fn recheck_step(plan: Digest, step: &CheckedStep, world: &World) -> Result<(), Vec<Rejection>> {
    let resolved = resolved(step, world);
    let services: Vec<&str> = resolved.touched.names();
    let callers = world.slice.hard_callers(&services, world.slice.config().closure_max);
    let targets: Vec<&str> = world.targets.iter().map(String::as_str).collect();
    let members = world.slice.coupled_closure(&targets);
    let writes = resolved.touched.writes();
    let walk = Walk::new(world);
    let mut out = state::holds(world, &writes);
    if resolved.restarts {
        out.extend(metastable(world, &step.key, &resolved.touched.services, |service| walk.is_shed(service)));
    }
    out.extend(fresh(world, step, &resolved.touched));
    out.extend(taking(world, &resolved, &walk, &members));
    out.extend(state::leases(world, &writes, &callers));
    out.extend(state::conflicts(world, &writes, &callers));
    out.extend(state::preconditions(world, &step.key, &step.pre));
    out.extend(not_ready(world, step));
    out.extend(state::controller(world, &resolved));
    out.extend(state::unreconciled(world, &writes));
    out.extend(drift(world, step));
    out.extend(state::authority(world, plan));
    out.sort_by_key(|rejection| rejection.code.rank());
    if out.is_empty() { Ok(()) } else { Err(out) }
}

fn resolved(step: &CheckedStep, world: &World) -> Resolved {
    let mut touched = Touched::default();
    touched.services.extend(step.targets.iter().map(|(service, _)| service.clone()));
    match &step.action {
        Action::RateLimit { what: Limited::Edge(edge), .. } | Action::CircuitBreak { edge, .. } => {
            touched.services.insert(edge.callee.clone());
            touched.edges.insert(edge.clone());
        }
        Action::RateLimit { what: Limited::Place(place), .. } => {
            touched.services.insert(place.service().to_owned());
        }
        Action::Scale { service, .. } => {
            touched.services.insert(service.clone());
        }
        Action::RollbackConfig { kind, namespace, name, .. } => {
            let object = format!("{kind}/{namespace}/{name}");
            let readers = world.objects.get(&object).map(|facts| facts.readers.clone()).unwrap_or_default();
            touched.services.extend(readers);
            touched.objects.insert(object);
        }
        Action::Restart { .. } | Action::Drain { .. } | Action::RestoreTraffic { .. } => {}
    }
    Resolved {
        step: Step {
            key: step.key.clone(),
            action: step.action.clone(),
            pre: step.pre.clone(),
            post: step.post.clone(),
            on_fail: step.on_fail.clone(),
        },
        action: step.action.clone(),
        targets: step.targets.clone(),
        desired: step.desired.clone(),
        touched,
        closes: Vec::new(),
        grows: None,
        restarts: matches!(step.action, Action::Restart { .. }),
        times: Times::default(),
    }
}

/// K404 for facts that are gone or too old: a check on stale facts is none.
fn fresh(world: &World, step: &CheckedStep, touched: &Touched) -> Vec<Rejection> {
    let stale = |service: &&String| {
        let at = world.services.get(*service).map(|facts| facts.observed_at);
        !at.is_some_and(|at| state::is_fresh(world, at))
    };
    let refuse = |subject: &str| {
        Rejection::new(Code::K404, subject).at(&step.key).found("no fresh facts", "facts young enough").unknown()
    };
    let mut out: Vec<Rejection> = touched.services.iter().filter(stale).map(|service| refuse(service)).collect();
    if !state::is_fresh(world, world.settings.at) {
        out.push(refuse("settings"));
    }
    out
}

/// K404 for traffic that would return to an instance that is not ready for long enough.
fn not_ready(world: &World, step: &CheckedStep) -> Vec<Rejection> {
    if !matches!(step.action, Action::RestoreTraffic { .. }) {
        return Vec::new();
    }
    let ready_for = world.policy.windows.ready_for;
    let receiving = |(service, replica): &&(String, u32)| {
        step.desired.get(&call::weight(service, *replica)).is_some_and(|weight| *weight > 0)
    };
    let cold = |(service, replica): &&(String, u32)| {
        let since = world.services.get(service).and_then(|facts| facts.instance(*replica)?.ready_since);
        since.is_none_or(|since| world.now.since(since) < ready_for)
    };
    let one = |(service, replica): &(String, u32)| {
        let refusal = Rejection::new(Code::K404, format!("{service}@{replica}")).at(&step.key);
        refusal.found("not ready for long enough", format!("ready for {ready_for}"))
    };
    step.targets.iter().filter(receiving).filter(cold).map(one).collect()
}

/// K407: fields have the versions they were bound at, or those our own receipts gave them; a restart finds
/// the generation it replaces, or its own.
fn drift(world: &World, step: &CheckedStep) -> Vec<Rejection> {
    let mut out = Vec::new();
    for (field, bound) in &step.bound {
        let expected = world.own_versions.get(field).unwrap_or(bound);
        let now = world.settings.versions.get(field);
        if now != Some(expected) {
            let found = now.map_or_else(|| "not read".to_owned(), u64::to_string);
            out.push(Rejection::new(Code::K407, field.as_str()).at(&step.key).found(found, expected));
        }
    }
    if !matches!(step.action, Action::Restart { .. }) {
        return out;
    }
    let known: BTreeSet<&String> = step.bound.keys().collect();
    for (service, replica) in &step.targets {
        let field = call::generation(service, *replica);
        let Some(wanted) = step.desired.get(&field).filter(|_| !known.contains(&field)) else { continue };
        let now = world.services.get(service).and_then(|facts| facts.instance(*replica));
        let now = now.and_then(|instance| i64::try_from(instance.generation).ok());
        // Its own generation means that it was applied already: the successor of a dead executor sees this.
        if now != Some(wanted - 1) && now != Some(*wanted) {
            let found = now.map_or_else(|| "not read".to_owned(), |now| now.to_string());
            out.push(Rejection::new(Code::K407, field).at(&step.key).found(found, wanted - 1));
        }
    }
    out
}
