//! K3xx: whether what is left can carry the load, and whether the plan stays within its budgets.
//!
//! K301, K302, K303, K308 and K312 reject what a step takes, not what the fault took.

use super::context::Context;
use super::resolve::{self, Resolved, baseline_mrps, limit_mrps, shown};
use super::walk::{Taken, Walk};
use super::{Code, Edit, Rejection};
use crate::graph::Closure;
use crate::isa::{Action, DrainMode, Limited, Rate, Revision};
use crate::world::{ServiceFacts, World};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(context: &Context<'_>, out: &mut Vec<Rejection>) {
    let mut walk = context.walk();
    for (index, step) in context.steps.iter().enumerate() {
        out.extend(taking(context.world, step, &walk, &context.members));
        losses(context, step, &walk, out);
        replicas(context, step, out);
        floor(context, step, out);
        cooldown(context, step, out);
        revision(context, step, out);
        walk.pass(step, &context.steps[..index]);
    }
    budgets(context, out);
}

/// K301, K302, K303 and K312 of one step in the state before it.
pub(super) fn taking(world: &World, step: &Resolved, walk: &Walk<'_>, members: &BTreeSet<String>) -> Vec<Rejection> {
    let mut out = Vec::new();
    let taken = walk.taken(step);
    for taken in &taken {
        let Some(facts) = world.services.get(&taken.service) else { continue };
        availability(step, taken, facts, &mut out);
        if taken.serving() {
            headroom(world, step, taken, walk, &mut out);
        }
    }
    if taken.iter().any(Taken::serving) {
        out.extend(storm(world, step, members));
    }
    out
}

/// The edit that makes a step take less.
fn smaller(step: &Resolved) -> Option<Edit> {
    let set = |parameter: &str, to: u32| {
        Some(Edit::Set { step: step.key().to_owned(), parameter: parameter.to_owned(), to: u64::from(to) })
    };
    match &step.action {
        Action::Restart { wave, .. } if *wave > 1 => set("wave", wave / 2),
        Action::Drain { percent, .. } if *percent > 1 => set("percent", percent / 2),
        _ => None,
    }
}

fn with(refusal: Rejection, edit: Option<Edit>) -> Rejection {
    match edit {
        Some(edit) => refusal.repair(edit),
        None => refusal,
    }
}

fn availability(step: &Resolved, taken: &Taken, facts: &ServiceFacts, out: &mut Vec<Rejection>) {
    let refuse = |code: Code, found: String, bound: String| {
        with(Rejection::new(code, taken.service.as_str()).at(step.key()).found(found, bound), smaller(step))
    };
    if let Some(least) = facts.min_available.filter(|least| taken.serving() && taken.ready_left < *least) {
        out.push(refuse(Code::K301, format!("{} would serve", taken.ready_left), format!("at least {least}")));
    }
    let Some(voters) = facts.quorum_of else { return };
    let majority = voters / 2 + 1;
    if taken.members_left < taken.members_before && taken.members_left < majority {
        out.push(refuse(
            Code::K302,
            format!("{} of {voters} would be ready", taken.members_left),
            format!("at least {majority}"),
        ));
    }
}

fn headroom(world: &World, step: &Resolved, taken: &Taken, walk: &Walk<'_>, out: &mut Vec<Rejection>) {
    let refusal = Rejection::new(Code::K303, taken.service.as_str()).at(step.key());
    let percent = world.policy.headroom_ppm / 10_000;
    let bound = format!("load × {percent}%");
    let capacity = world.services.get(&taken.service).and_then(|facts| facts.capacity_mrps);
    let (Some(capacity), Some(load)) = (capacity, walk.load_mrps(&taken.service)) else {
        out.push(refusal.found("capacity or load not known", bound).unknown());
        return;
    };
    let left = u128::from(capacity) * u128::from(taken.served_left) / 100;
    let needed = (u128::from(load) * u128::from(world.policy.headroom_ppm)).div_ceil(1_000_000);
    if left < needed {
        out.push(with(refusal.found(format!("{left} mrps left for {load} mrps"), bound), smaller(step)));
    }
}

/// K312: the group, a zone or the fleet has too few ready instances to take out more.
fn storm(world: &World, step: &Resolved, members: &BTreeSet<String>) -> Option<Rejection> {
    let mut counts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (service, facts) in &world.services {
        for instance in &facts.instances {
            let zone = instance.zone.as_ref().map(|zone| format!("zone {zone}"));
            let group = members.contains(service).then(|| "the group".to_owned());
            for unit in [Some("the fleet".to_owned()), zone, group].into_iter().flatten() {
                let (ready, all) = counts.entry(unit).or_default();
                *ready += u64::from(instance.ready);
                *all += 1;
            }
        }
    }
    let low = |(ready, all): &(u64, u64)| {
        ready.saturating_mul(1_000_000) < all.saturating_mul(u64::from(world.policy.storm_below.ppm()))
    };
    let (unit, (ready, all)) = counts.iter().find(|(_, count)| low(count))?;
    let refusal = Rejection::new(Code::K312, unit.as_str()).at(step.key());
    let refusal = refusal.found(format!("{ready} of {all} ready"), format!("at least {}", world.policy.storm_below));
    Some(refusal.repair(Edit::Drop { step: step.key().to_owned() }))
}

/// K308.
fn losses(context: &Context<'_>, step: &Resolved, walk: &Walk<'_>, out: &mut Vec<Rejection>) {
    let world = context.world;
    let loss_max = context.budget(world.policy.loss_max);
    let removed_max = context.budget(u64::from(world.policy.removed_max.ppm()));
    for taken in walk.taken(step).iter().filter(|taken| taken.serving()) {
        let refusal = Rejection::new(Code::K308, taken.service.as_str()).at(step.key());
        let removed = (taken.served_before - taken.served_left).saturating_mul(1_000_000) / taken.served_before.max(1);
        if removed > removed_max {
            let bound = format!("at most {} ppm at once", removed_max);
            out.push(with(
                refusal.clone().found(format!("{removed} ppm of its capacity removed"), bound),
                smaller(step),
            ));
        }
        match loss(world, step, taken, walk) {
            Some(loss) if loss <= loss_max => {}
            Some(loss) => {
                let found = format!("about {loss} requests lost");
                out.push(with(refusal.found(found, format!("at most {loss_max}")), smaller(step)));
            }
            None => out.push(refusal.found("load not known", format!("at most {loss_max} requests")).unknown()),
        }
    }
}

/// Requests a step loses: what the instances out at once would have served in one wave.
fn loss(world: &World, step: &Resolved, taken: &Taken, walk: &Walk<'_>) -> Option<u64> {
    match &step.action {
        Action::Restart { grace_ms, .. } => {
            let facts = world.services.get(&taken.service)?;
            let out_ms = grace_ms.unwrap_or(0) + facts.startup.unwrap_or(world.policy.windows.startup).0;
            let cut_ppm = world.slice.service(&taken.service).map_or(1_000_000, |view| u64::from(view.cut_ppm));
            let share = taken.served_before - taken.served_left;
            let milli = u128::from(walk.load_mrps(&taken.service)?) * u128::from(out_ms) * u128::from(cut_ppm);
            let parts = milli * u128::from(share) / u128::from(taken.served_before.max(1));
            // mrps × ms × ppm: a thousandth, a thousandth and a millionth.
            u64::try_from(parts.div_ceil(1_000_000_000_000)).ok()
        }
        Action::Drain { mode: DrainMode::All, .. } => {
            let facts = world.services.get(&taken.service)?;
            let held = |(service, replica): &(String, u32)| {
                let instance = facts.instance(*replica).filter(|_| *service == taken.service);
                instance.map_or(0, |instance| u64::from(instance.in_flight))
            };
            Some(step.targets.iter().map(held).sum())
        }
        _ => Some(0),
    }
}

/// K304, K305 and the quorum rule of a Scale.
fn replicas(context: &Context<'_>, step: &Resolved, out: &mut Vec<Rejection>) {
    let Action::Scale { service, to, .. } = &step.action else { return };
    let world = context.world;
    let Some(facts) = world.services.get(service) else { return };
    let refuse = |code: Code, found: String, bound: String| {
        Rejection::new(code, service.as_str()).at(step.key()).found(found, bound)
    };
    let (Some(to), Some(current)) = (resolve::scale_to(service, *to, world), resolve::replicas(service, world)) else {
        out.push(refuse(Code::K304, "replica count not known".into(), "a known count".into()).unknown());
        return;
    };
    let (min, max) = (facts.replicas_min.max(1), facts.replicas_max);
    if !(min..=max).contains(&to) {
        let edit =
            Edit::Set { step: step.key().to_owned(), parameter: "to".into(), to: u64::from(to.min(max).max(min)) };
        out.push(refuse(Code::K304, to.to_string(), format!("{min} to {max}")).repair(edit));
    }
    if let Some(left) = facts.quota_left.filter(|left| to.saturating_sub(current) > *left) {
        out.push(refuse(Code::K305, format!("{} more", to.saturating_sub(current)), format!("at most {left} more")));
    }
    if facts.quorum_of.is_some() && to.abs_diff(current) > 1 {
        let towards = if to > current { current + 1 } else { current.saturating_sub(1) };
        let edit = Edit::Set { step: step.key().to_owned(), parameter: "to".into(), to: u64::from(towards) };
        out.push(refuse(Code::K302, format!("{current} to {to} members"), "one member at a time".into()).repair(edit));
    }
}

/// K306.
fn floor(context: &Context<'_>, step: &Resolved, out: &mut Vec<Rejection>) {
    let Action::RateLimit { what, rate, .. } = &step.action else { return };
    let world = context.world;
    let (service, subject) = match what {
        Limited::Place(place) => (place.service(), place.to_string()),
        Limited::Edge(edge) => (edge.callee.as_str(), edge.to_string()),
    };
    let floor = world.policy.rate_floor;
    let refusal = Rejection::new(Code::K306, subject).at(step.key());
    let (Some(baseline), Some(limit)) = (baseline_mrps(what, world), limit_mrps(what, *rate, world)) else {
        out.push(refusal.found("baseline not known", format!("at least {floor}")).unknown());
        return;
    };
    if world.services.get(service).is_some_and(|facts| facts.sheddable) {
        return;
    }
    let least = (u128::from(baseline) * u128::from(floor.ppm())).div_ceil(1_000_000);
    // A share is compared as a share, so that rounding of the limit itself refuses nothing.
    let low = match rate {
        Rate::Percent(percent) => u64::from(*percent) * 10_000 < u64::from(floor.ppm()),
        Rate::PerSecond(_) => u128::from(limit) < least,
    };
    if low {
        let to = match rate {
            Rate::Percent(_) => u64::from(floor.ppm()).div_ceil(10_000),
            Rate::PerSecond(_) => u64::try_from(least.div_ceil(1_000)).unwrap_or(u64::MAX),
        };
        let edit = Edit::Set { step: step.key().to_owned(), parameter: "rate".into(), to };
        out.push(refusal.found(format!("{limit} mrps of {baseline}"), format!("at least {floor}")).repair(edit));
    }
}

/// K310: also twice within one plan.
fn cooldown(context: &Context<'_>, step: &Resolved, out: &mut Vec<Rejection>) {
    if !step.restarts {
        return;
    }
    let bound = context.world.policy.cooldown;
    for service in &step.touched.services {
        let refusal = Rejection::new(Code::K310, service.as_str()).at(step.key());
        let last = context.world.services.get(service).and_then(|facts| facts.last_restart_at);
        if let Some(age) = last.map(|last| context.world.now.since(last)).filter(|age| *age < bound) {
            out.push(refusal.found(format!("restarted {} ago", shown(age.0)), format!("{bound} apart")));
            continue;
        }
        let own = step.targets.iter().filter(|target| target.0 == *service).collect::<BTreeSet<_>>();
        let again = |other: &&Resolved| other.restarts && other.targets.iter().any(|target| own.contains(target));
        let earlier = context.steps.iter().take_while(|other| other.key() != step.key());
        if earlier.into_iter().any(|other| again(&other)) {
            let edit = Edit::Drop { step: step.key().to_owned() };
            out.push(refusal.found("restarted twice in the plan", format!("{bound} apart")).repair(edit));
        }
    }
}

/// K313, K314.
fn revision(context: &Context<'_>, step: &Resolved, out: &mut Vec<Rejection>) {
    let Action::RollbackConfig { kind, namespace, name, to } = &step.action else { return };
    let object = format!("{kind}/{namespace}/{name}");
    let Some(facts) = context.world.objects.get(&object) else { return };
    let windows = &context.world.policy.windows;
    let refuse =
        |code: Code, found: &str, bound: &str| Rejection::new(code, object.as_str()).at(step.key()).found(found, bound);
    let last_good = || Edit::LastGood { step: step.key().to_owned() };
    let Some(chosen) = resolve::revision(facts, to, windows) else {
        let refusal = refuse(Code::K313, "no such revision", "a known good revision");
        out.push(if *to == Revision::LastGood { refusal } else { refusal.repair(last_good()) });
        return;
    };
    if chosen.healthy_for < windows.known_good_for {
        let found = format!("healthy for {}", chosen.healthy_for);
        out.push(refuse(Code::K313, &found, &format!("{}", windows.known_good_for)).repair(last_good()));
    }
    if let Some(dependent) = chosen.dependents.first() {
        out.push(refuse(Code::K314, &format!("{dependent} depends on a newer one"), "no newer dependent"));
    }
    let between = |number: u64| number > chosen.number && number <= facts.current;
    if facts.revisions.iter().any(|known| known.no_downgrade && between(known.number)) {
        out.push(refuse(Code::K314, "a no-downgrade mark between", "none between"));
    }
}

/// K307, K309, K311.
fn budgets(context: &Context<'_>, out: &mut Vec<Rejection>) {
    let world = context.world;
    let services_max = context.budget(u64::from(world.policy.services_max));
    let edges_max = context.budget(u64::from(world.policy.edges_max));
    match &context.hard_callers {
        Closure::MoreThan(cap) => {
            let refusal = Rejection::new(Code::K307, "footprint");
            out.push(
                refusal.found(format!("more than {cap} callers"), format!("at most {services_max} services")).unknown(),
            );
        }
        Closure::Members(callers) => {
            let all: BTreeSet<&str> = context.touched.services.iter().chain(callers).map(String::as_str).collect();
            let inside = |edge: &&crate::graph::EdgeView| {
                all.contains(edge.caller.as_str()) && all.contains(edge.callee.as_str())
            };
            let edges = world.slice.edges().iter().filter(inside).count();
            for (what, found, bound) in [("services", all.len(), services_max), ("edges", edges, edges_max)] {
                if u64::try_from(found).unwrap_or(u64::MAX) > bound {
                    out.push(Rejection::new(Code::K307, what).found(found, format!("at most {bound}")));
                }
            }
        }
    }
    let expected: u64 = context.steps.iter().map(|step| step.times.expected).fold(0, u64::saturating_add);
    let left = context.plan.deadline_ms.since(world.now).min(world.intent.budget_left);
    if expected > left.0 {
        out.push(Rejection::new(Code::K309, "time").found(shown(expected), format!("{left} left")));
    }
    let steps = u32::try_from(context.steps.len()).unwrap_or(u32::MAX);
    if world.actions_used.saturating_add(steps) > world.policy.actions_per_hour {
        let found = format!("{} used, {steps} asked", world.actions_used);
        out.push(
            Rejection::new(Code::K311, "actions").found(found, format!("{} an hour", world.policy.actions_per_hour)),
        );
    }
}
