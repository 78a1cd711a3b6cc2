//! K2xx: whether the plan stays where the fault is, takes whole groups in the right order, and leaves
//! callers a path.

use super::context::Context;
use super::resolve::Resolved;
use super::{Code, Edit, Rejection};
use crate::graph::Closure;
use crate::isa::{Action, ActionKind, BreakerMode, EdgeName, Limited, Place, Restored};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(context: &Context<'_>, out: &mut Vec<Rejection>) {
    for step in &context.steps {
        names(context, step, out);
        in_scope(context, step, out);
        zones(context, step, out);
        excess(context, step, out);
        breaker(context, step, out);
    }
    ratio(context, out);
    group(context, out);
    order(context, out);
    drains(context, out);
    footprint(context, out);
    last_path(context, out);
    shed_first(context, out);
}

/// The services a step names.
fn named(step: &Resolved) -> Vec<&str> {
    match &step.action {
        Action::Restart { place, .. } | Action::Drain { place, .. } => vec![place.service()],
        Action::RateLimit { what: Limited::Place(place), .. } => vec![place.service()],
        Action::RateLimit { what: Limited::Edge(edge), .. } | Action::CircuitBreak { edge, .. } => {
            vec![&edge.caller, &edge.callee]
        }
        Action::Scale { service, .. } => vec![service],
        Action::RestoreTraffic { of: Restored::Weights(weights), .. } => {
            weights.iter().map(|(place, _)| place.service()).collect()
        }
        Action::RestoreTraffic { .. } | Action::RollbackConfig { .. } => Vec::new(),
    }
}

/// The edge a step names.
pub(super) fn edge_of(action: &Action) -> Option<&EdgeName> {
    match action {
        Action::RateLimit { what: Limited::Edge(edge), .. } | Action::CircuitBreak { edge, .. } => Some(edge),
        _ => None,
    }
}

/// K201, K211.
fn names(context: &Context<'_>, step: &Resolved, out: &mut Vec<Rejection>) {
    let world = context.world;
    let mut refuse = |code: Code, subject: String, bound: &str| {
        out.push(Rejection::new(code, subject).at(step.key()).found("unknown", bound));
    };
    let mut unknown = false;
    let all: BTreeSet<&str> = named(step).into_iter().chain(step.touched.services.iter().map(String::as_str)).collect();
    for name in all.into_iter().filter(|name| !world.slice.contains(name)) {
        unknown = true;
        refuse(Code::K201, name.to_owned(), "a service of the graph slice");
    }
    for object in step.touched.objects.iter().filter(|object| !world.objects.contains_key(*object)) {
        if step.action.kind() == ActionKind::RollbackConfig {
            refuse(Code::K201, object.clone(), "an object with known revisions");
        }
    }
    if unknown {
        return;
    }
    if let Some(edge) = edge_of(&step.action).filter(|edge| world.slice.edge(&edge.caller, &edge.callee).is_none()) {
        refuse(Code::K211, edge.to_string(), "an edge of the graph slice");
    }
    let places: Vec<&Place> = match &step.action {
        Action::Restart { place, .. } | Action::Drain { place, .. } => vec![place],
        Action::RestoreTraffic { of: Restored::Weights(weights), .. } => {
            weights.iter().map(|(place, _)| place).collect()
        }
        _ => Vec::new(),
    };
    for place in places {
        // Without facts about the service the instance is not unknown but unread: that is K506.
        let Some(facts) = world.services.get(place.service()) else { continue };
        match place {
            Place::Instances(service, numbers) => {
                for number in numbers.iter().filter(|number| facts.instance(**number).is_none()) {
                    refuse(Code::K201, format!("{service}@{number}"), "an instance that was observed");
                }
            }
            Place::Zone(_, zone) if !facts.instances.iter().any(|instance| instance.zone.as_ref() == Some(zone)) => {
                refuse(Code::K201, place.to_string(), "a zone with instances");
            }
            Place::Service(_) | Place::Zone(..) | Place::Shard(..) => {}
        }
    }
}

/// K202: the group itself, or an edge into it. Restarts are judged by K207.
fn in_scope(context: &Context<'_>, step: &Resolved, out: &mut Vec<Rejection>) {
    let slice = &context.world.slice;
    let member = |name: &str| context.members.contains(name);
    let calls_member = |name: &str| slice.edges().iter().any(|edge| edge.caller == name && member(&edge.callee));
    let outside = match &step.action {
        Action::Restart { .. } => None,
        Action::RateLimit { what: Limited::Edge(edge), .. } | Action::CircuitBreak { edge, .. } => {
            (!member(&edge.callee)).then(|| edge.to_string())
        }
        Action::RollbackConfig { .. } => {
            let read = step.touched.services.iter().any(|reader| member(reader));
            (!read).then(|| step.touched.objects.iter().cloned().collect())
        }
        _ => named(step).into_iter().find(|name| !member(name) && !calls_member(name)).map(str::to_owned),
    };
    if let Some(subject) = outside {
        let refusal = Rejection::new(Code::K202, subject).at(step.key()).found("outside", braces(&context.members));
        out.push(refusal.repair(Edit::Drop { step: step.key().to_owned() }));
    }
}

/// K203: scope of the plan against scope of the fault, as weights.
fn ratio(context: &Context<'_>, out: &mut Vec<Rejection>) {
    let fault = &context.world.fault;
    let weight = |name: &String| fault.weights.get(name).copied();
    let sum =
        |names: &BTreeSet<&String>| names.iter().try_fold(0_u64, |sum, name| Some(sum.saturating_add(weight(name)?)));
    let bound = format!("{} times the fault's", context.world.policy.scope_ratio_max);
    let known = context.touched.services.iter().filter(|name| context.world.slice.contains(name));
    let plan = sum(&known.collect());
    let fault = sum(&fault.impaired.iter().collect()).filter(|sum| *sum > 0);
    let (Some(plan), Some(fault)) = (plan, fault) else {
        out.push(Rejection::new(Code::K203, "scope").found("no weights or no fault scope", bound).unknown());
        return;
    };
    if u128::from(plan) > u128::from(fault) * u128::from(context.world.policy.scope_ratio_max) {
        let mut refusal = Rejection::new(Code::K203, "scope").found(format!("{plan} of {fault}"), bound);
        let outside = |step: &&Resolved| step.touched.services.iter().any(|name| !context.members.contains(name));
        let far = context.steps.iter().rev().find(outside).or(context.steps.last());
        if let Some(step) = far {
            refusal = refusal.repair(Edit::Drop { step: step.key().to_owned() });
        }
        out.push(refusal);
    }
}

/// K204.
fn zones(context: &Context<'_>, step: &Resolved, out: &mut Vec<Rejection>) {
    let covered = &context.world.intent.trust_zones;
    for service in &step.touched.services {
        let zone = context.world.services.get(service).and_then(|facts| facts.trust_zone.as_ref());
        if let Some(zone) = zone.filter(|zone| !covered.contains(zone)) {
            out.push(Rejection::new(Code::K204, service.as_str()).at(step.key()).found(zone, covered.join(",")));
        }
    }
}

/// K205, K206.
fn group(context: &Context<'_>, out: &mut Vec<Rejection>) {
    let restarts: Vec<&str> = context.restarts.iter().map(String::as_str).collect();
    let last = context.steps.iter().rev().find(|step| step.restarts);
    for missing in context.world.slice.missing_members(&restarts) {
        let mut refusal = Rejection::new(Code::K205, missing.as_str()).found("not restarted", "every coupled service");
        if let Some(step) = last {
            refusal = refusal.at(step.key()).repair(Edit::AddMember { step: step.key().to_owned(), service: missing });
        }
        out.push(refusal);
    }
    let size = context.members.len().max(context.world.slice.coupled_closure(&restarts).len());
    let cap = context.world.policy.group_max;
    if size > cap as usize {
        out.push(Rejection::new(Code::K206, "group").found(size, cap));
    }
}

/// K207.
fn excess(context: &Context<'_>, step: &Resolved, out: &mut Vec<Rejection>) {
    if !step.restarts {
        return;
    }
    for service in step.touched.services.iter().filter(|service| !context.members.contains(*service)) {
        let refusal = Rejection::new(Code::K207, service.as_str()).at(step.key());
        let edit = Edit::Drop { step: step.key().to_owned() };
        out.push(refusal.found("outside", braces(&context.members)).repair(edit));
    }
}

/// K208: drains caller side first, restarts in wave order, restores last.
fn order(context: &Context<'_>, out: &mut Vec<Rejection>) {
    let refuse = |step: &Resolved, subject: &str, found: String, bound: &str| {
        Rejection::new(Code::K208, subject).at(step.key()).found(found, bound).repair(Edit::Reorder)
    };
    let waves = context.wave_of();
    for (index, step) in context.steps.iter().enumerate() {
        let before = || context.steps.iter().take(index);
        let after = || context.steps.iter().skip(index + 1);
        match step.action.kind() {
            ActionKind::Drain => {
                let calls = |caller: &Resolved| hard_call(context.world, caller, step);
                if let Some(caller) = after().find(|other| other.action.kind() == ActionKind::Drain && calls(other)) {
                    out.push(refuse(
                        step,
                        step.key(),
                        format!("before its caller's drain {}", caller.key()),
                        "callers first",
                    ));
                }
            }
            ActionKind::Restart => {
                let wave = |step: &Resolved| {
                    step.touched.services.iter().filter_map(|name| waves.get(name.as_str())).max().copied()
                };
                if let Some(late) = before().find(|other| other.restarts && wave(other) > wave(step)) {
                    out.push(refuse(step, step.key(), format!("after {}", late.key()), "what is needed first"));
                }
            }
            ActionKind::RestoreTraffic => {
                let same = |other: &&Resolved| {
                    let shared = other.targets.iter().any(|target| step.targets.contains(target));
                    other.action.kind() != ActionKind::RestoreTraffic && shared
                };
                if let Some(late) = after().find(same) {
                    out.push(refuse(
                        step,
                        step.key(),
                        format!("before {}", late.key()),
                        "after its target's last step",
                    ));
                }
            }
            _ => {}
        }
    }
}

/// Whether `caller`'s target calls `callee`'s over a hard edge. A missed dependency that is no call has no traffic to drain.
fn hard_call(world: &World, caller: &Resolved, callee: &Resolved) -> bool {
    let pairs = caller.touched.services.iter().flat_map(|a| callee.touched.services.iter().map(move |b| (a, b)));
    pairs.into_iter().any(|(a, b)| {
        a != b && world.slice.edge(a, b).is_some_and(|edge| edge.is_hard() && (edge.calls > 0 || !edge.missed))
    })
}

/// Whether an earlier step that is still open takes all traffic from every one of the targets.
pub(super) fn drained_before(steps: &[Resolved], index: usize, targets: &BTreeSet<&(String, u32)>) -> bool {
    let closed: BTreeSet<usize> = steps.iter().take(index).flat_map(|step| step.closes.iter().copied()).collect();
    let drained: BTreeSet<&(String, u32)> = steps
        .iter()
        .take(index)
        .enumerate()
        .filter(|(at, step)| !closed.contains(at) && matches!(step.action, Action::Drain { percent: 100, .. }))
        .flat_map(|(_, step)| &step.targets)
        .collect();
    targets.is_subset(&drained)
}

/// K209: a drain where the rule asks for one, of the instances that still serve.
fn drains(context: &Context<'_>, out: &mut Vec<Rejection>) {
    let Some(group) = &context.restart_group else { return };
    for (index, step) in context.steps.iter().enumerate().filter(|(_, step)| step.restarts) {
        let serving = |target: &&(String, u32)| {
            let facts = context.world.services.get(&target.0).and_then(|facts| facts.instance(target.1));
            group.drain_first.contains(&target.0) && facts.is_some_and(|instance| instance.ready)
        };
        let must: BTreeSet<&(String, u32)> = step.targets.iter().filter(serving).collect();
        if !drained_before(&context.steps, index, &must) {
            let subject = must.iter().next().map(|target| target.0.clone()).unwrap_or_default();
            let refusal = Rejection::new(Code::K209, subject).at(step.key()).found("not drained", "drained first");
            out.push(refusal.repair(Edit::InsertDrain { step: step.key().to_owned() }));
        }
    }
}

/// K210.
fn footprint(context: &Context<'_>, out: &mut Vec<Rejection>) {
    let stated: BTreeSet<&String> = context.plan.footprint.iter().collect();
    if stated.is_empty() {
        return;
    }
    let Closure::Members(callers) = &context.hard_callers else {
        out.push(
            Rejection::new(Code::K210, "footprint").found("more callers than can be named", "all of them").unknown(),
        );
        return;
    };
    let all: BTreeSet<String> = context.touched.services.iter().chain(callers).cloned().collect();
    if let Some(missed) = all.iter().find(|name| !stated.contains(name)) {
        let refusal = Rejection::new(Code::K210, missed.as_str()).found("not stated", braces(&all));
        out.push(refusal.repair(Edit::Footprint { services: all.iter().cloned().collect() }));
    }
}

/// The fallback that is declared for an edge.
fn fallback<'a>(world: &'a World, edge: &EdgeName) -> Option<&'a String> {
    let facts = world.edges.get(&edge.to_string()).and_then(|facts| facts.fallback.as_ref());
    facts.or_else(|| world.slice.edge(&edge.caller, &edge.callee)?.fallback.as_ref())
}

/// K212.
fn breaker(context: &Context<'_>, step: &Resolved, out: &mut Vec<Rejection>) {
    let Action::CircuitBreak { edge, fallback: named, .. } = &step.action else { return };
    let Some(view) = context.world.slice.edge(&edge.caller, &edge.callee) else { return };
    let declared = fallback(context.world, edge);
    let covered = declared.is_some() && (named.is_none() || named.as_ref() == declared);
    if (view.is_hard() && !covered) || (named.is_some() && named.as_ref() != declared) {
        let found = format!("{}, fallback {}", view.hardness, declared.map_or("none", String::as_str));
        let refusal =
            Rejection::new(Code::K212, edge.to_string()).at(step.key()).found(found, "soft, or its declared fallback");
        out.push(refusal.repair(Edit::LimitInstead { step: step.key().to_owned() }));
    }
}

/// K213: the last instance that serves a hard caller, or the last edge into a critical service.
fn last_path(context: &Context<'_>, out: &mut Vec<Rejection>) {
    let world = context.world;
    let mut walk = context.walk();
    let mut broken: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (index, step) in context.steps.iter().enumerate() {
        if step.action.kind() == ActionKind::Drain {
            for taken in walk.taken(step).into_iter().filter(|taken| taken.serving() && taken.served_left == 0) {
                let callers = world.slice.hard_callers(&[&taken.service], world.slice.config().closure_max);
                let critical = world.services.get(&taken.service).is_some_and(|facts| facts.critical);
                if callers.at_least() > 0 || critical {
                    let refusal = Rejection::new(Code::K213, taken.service.as_str()).at(step.key());
                    out.push(
                        refusal.found("nothing left that serves", "a path for its hard callers").repair(Edit::Set {
                            step: step.key().to_owned(),
                            parameter: "percent".into(),
                            to: 50,
                        }),
                    );
                }
            }
        }
        if let Action::CircuitBreak { edge, mode: BreakerMode::Open, .. } = &step.action {
            let callers = broken.entry(&edge.callee).or_default();
            callers.insert(&edge.caller);
            let inward = world.slice.edges().iter().filter(|view| view.callee == edge.callee);
            let critical = world.services.get(&edge.callee).is_none_or(|facts| facts.critical);
            if critical && inward.into_iter().all(|view| callers.contains(view.caller.as_str())) {
                let refusal = Rejection::new(Code::K213, edge.callee.as_str()).at(step.key());
                out.push(
                    refusal
                        .found("every edge into it is broken", "one left")
                        .repair(Edit::LimitInstead { step: step.key().to_owned() }),
                );
            }
        }
        walk.pass(step, &context.steps[..index]);
    }
}

/// K214.
fn shed_first(context: &Context<'_>, out: &mut Vec<Rejection>) {
    let mut walk = context.walk();
    for (index, step) in context.steps.iter().enumerate() {
        if step.restarts {
            out.extend(metastable(context.world, step.key(), &step.touched.services, |service| walk.is_shed(service)));
        }
        walk.pass(step, &context.steps[..index]);
    }
}

/// The refusal of a restart while overload feeds itself.
pub(super) fn metastable(
    world: &World,
    key: &str,
    services: &BTreeSet<String>,
    shed: impl Fn(&str) -> bool,
) -> Vec<Rejection> {
    let bad = |service: &&String| {
        let flagged =
            world.services.get(*service).is_some_and(|facts| facts.metastable) || world.slice.metastable(service);
        flagged && !shed(service)
    };
    let one = |service: &String| {
        let refusal = Rejection::new(Code::K214, service.as_str()).at(key).found("metastable", "load shed first");
        refusal.repair(Edit::InsertLimit { step: key.to_owned() })
    };
    services.iter().filter(bad).map(one).collect()
}

/// `{a,b}`.
pub(super) fn braces(names: &BTreeSet<String>) -> String {
    format!("{{{}}}", names.iter().map(String::as_str).collect::<Vec<_>>().join(","))
}
