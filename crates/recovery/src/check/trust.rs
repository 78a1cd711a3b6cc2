//! K110, K112 and K5xx: whether the plan is of a permitted type, follows from its parent, and rests on
//! authority, a graph and facts that are good enough.

use super::context::Context;
use super::resolve::{Resolved, shown};
use super::scope::{drained_before, edge_of};
use super::state::is_fresh;
use super::{Code, Edit, Rejection};
use crate::graph::Level;
use crate::isa::{Action, ActionKind, EdgeName, Limited, Rate, RestartStrategy};
use crate::plan::lineage::{apply, parameter_number};
use crate::plan::{Cause, MUTATIONS_MAX, Plan};
use crate::world::{Mutable, World};
use std::collections::BTreeSet;

pub(super) fn check(context: &Context<'_>, out: &mut Vec<Rejection>) {
    effect(context, out);
    lineage(context, out);
    intent(context, out);
    graph(context, out);
    facts(context, out);
    proposer(context, out);
    policy(context, out);
}

/// K110.
fn effect(context: &Context<'_>, out: &mut Vec<Rejection>) {
    let (found, bound) = (context.effect.bound, context.world.policy.type_max);
    if !found.within(bound) {
        out.push(Rejection::new(Code::K110, "plan").found(found, bound));
    }
}

/// K112.
fn lineage(context: &Context<'_>, out: &mut Vec<Rejection>) {
    let plan = &context.plan;
    let mut refuse = |subject: &str, found: String, bound: &str| {
        out.push(Rejection::new(Code::K112, subject).found(found, bound));
    };
    if plan.revision == 1 {
        if plan.parent.is_some() || plan.cause != Cause::First || !plan.changes.is_empty() {
            refuse("revision", "a parent, cause or changes".into(), "none in the first revision");
        }
        return;
    }
    let Some(previous) = context.previous else {
        let refusal = Rejection::new(Code::K112, "parent").found("not known", "the previous revision");
        out.push(refusal.unknown());
        return;
    };
    if plan.parent != Some(previous.digest()) || plan.revision != previous.revision + 1 {
        refuse("parent", format!("revision {}", plan.revision), "the digest and number of the previous revision");
    }
    if plan.incident != previous.incident || plan.class != previous.class {
        refuse("class", plan.class.clone(), "the incident and class of the parent");
    }
    if plan.cause == Cause::First {
        refuse("cause", plan.cause.to_string(), "why the parent was revised");
    }
    let before = Context::new(previous, context.world, None);
    let allowed: BTreeSet<String> = before.touched.services.union(&context.members).cloned().collect();
    let mutation = plan.cause == Cause::Mutation;
    let wide = context
        .touched
        .services
        .iter()
        .find(|name| !before.touched.services.contains(*name) && (mutation || !allowed.contains(*name)));
    if let Some(name) = wide {
        refuse(name, "not in the parent".into(), "no wider scope");
    }
    if mutation {
        if context.world.mutations_used >= MUTATIONS_MAX {
            refuse("mutations", context.world.mutations_used.to_string(), "fewer than 4");
        }
        if let Some(why) = bad_mutation(plan, previous, context.world) {
            refuse("changes", why, "mutable parameters within their bounds");
        }
    }
}

/// Why the plan is not its parent with mutable parameters changed.
fn bad_mutation(plan: &Plan, previous: &Plan, world: &World) -> Option<String> {
    let mut expected = previous.normalize();
    if plan.changes.is_empty() {
        return Some("no change".into());
    }
    for change in &plan.changes {
        if let Err(error) = apply(&mut expected, change) {
            return Some(error.to_string());
        }
        let (key, parameter) = change.path.split_once('.')?;
        let action = &expected.step(key)?.action;
        let name = format!("{}.{parameter}", action.kind());
        let Some(bounds) = world.policy.mutable.get(&name) else { return Some(format!("{name} is not mutable")) };
        if !permitted(action, parameter, *bounds) {
            return Some(format!("{name} = {} is out of bounds", change.to));
        }
    }
    (expected.steps != plan.normalize().steps).then(|| "more changed than is listed".into())
}

fn permitted(action: &Action, parameter: &str, bounds: Mutable) -> bool {
    // Bounds of a rate are shares: an absolute rate has none.
    if matches!(action, Action::RateLimit { rate: Rate::PerSecond(_), .. }) && parameter == "rate" {
        return false;
    }
    let value = parameter_number(action, parameter).and_then(|value| u32::try_from(value).ok());
    value.is_some_and(|value| {
        let on_grid = bounds.step == 0 || value.abs_diff(bounds.min) % bounds.step == 0;
        (bounds.min..=bounds.max).contains(&value) && on_grid
    })
}

/// K501, K502.
fn intent(context: &Context<'_>, out: &mut Vec<Rejection>) {
    let (intent, now) = (&context.world.intent, context.world.now);
    if !intent.signed || intent.incident != context.plan.incident {
        let found = if intent.signed { "another incident" } else { "not signed by a role that may" };
        out.push(Rejection::new(Code::K501, "intent").found(found, "a signed intent of this incident"));
    }
    for (subject, at) in [("intent", intent.expires_at), ("plan", context.plan.deadline_ms)] {
        if at <= now {
            out.push(
                Rejection::new(Code::K502, subject)
                    .found(format!("ended {} ago", shown(now.since(at).0)), "in the future"),
            );
        }
    }
}

/// K503, K504, K505.
fn graph(context: &Context<'_>, out: &mut Vec<Rejection>) {
    let world = context.world;
    let digest = world.slice.digest();
    if context.plan.topology != digest {
        let refusal = Rejection::new(Code::K503, "topology").found(context.plan.topology.short(), digest.short());
        out.push(refusal.repair(Edit::Repin { topology: digest }));
    }
    let age = world.slice.newest().map(|newest| world.now.since(newest));
    let bound = world.policy.windows.snapshot_age_max;
    if age.is_none_or(|age| age > bound) || world.slice.is_stale(world.now) {
        let found = age.map_or_else(|| "no spans".to_owned(), |age| format!("newest span {} old", shown(age.0)));
        out.push(Rejection::new(Code::K503, "graph").found(found, format!("at most {bound}, joined for long enough")));
    }
    let permission = &context.permission;
    let reasons = || permission.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    match permission.level {
        Level::Full => {}
        Level::Cautious => {
            let careless =
                context.steps.iter().enumerate().find(|(index, step)| !is_cautious(&context.steps, *index, step));
            if let Some((_, step)) = careless {
                let refusal = Rejection::new(Code::K504, "permission").at(step.key());
                out.push(
                    refusal.found(reasons(), "one instance at a time, each after its drain").repair(Edit::Cautious),
                );
            }
        }
        // Nothing that the graph knows is touched: K201 says so.
        Level::Refused if !context.touched.services.iter().any(|name| world.slice.contains(name)) => {}
        Level::Refused => out.push(Rejection::new(Code::K505, "permission").found(reasons(), "full, or cautious")),
    }
}

/// Whether a step is of the cautious form.
fn is_cautious(steps: &[Resolved], index: usize, step: &Resolved) -> bool {
    match &step.action {
        Action::Restart { wave, strategy, .. } => {
            let targets: BTreeSet<&(String, u32)> = step.targets.iter().collect();
            *wave == 1 && *strategy == RestartStrategy::Rolling && drained_before(steps, index, &targets)
        }
        _ => true,
    }
}

/// K506.
fn facts(context: &Context<'_>, out: &mut Vec<Rejection>) {
    let world = context.world;
    let bound = format!("at most {} old", world.policy.windows.fact_age_max);
    let mut judge = |subject: &str, at: Option<base::Timestamp>| {
        let refusal = || Rejection::new(Code::K506, subject).unknown();
        match at {
            Some(at) if is_fresh(world, at) => {}
            Some(at) if at > world.now => out.push(refusal().found("from the future", &bound)),
            Some(at) => out.push(refusal().found(format!("{} old", shown(world.now.since(at).0)), &bound)),
            None => out.push(refusal().found("absent", &bound)),
        }
    };
    for service in context.touched.services.iter().filter(|service| world.slice.contains(service)) {
        judge(service, world.services.get(service).map(|facts| facts.observed_at));
    }
    // An object without revisions is K201's.
    for (name, object) in world.objects.iter().filter(|(name, _)| context.touched.objects.contains(*name)) {
        judge(name, Some(object.observed_at));
    }
    // WHY: only a share of a baseline needs a fact of the edge; its existence is the graph's matter.
    let shares = context.steps.iter().filter(|step| {
        matches!(&step.action, Action::RateLimit { what: Limited::Edge(_), rate: Rate::Percent(_), .. })
    });
    let known = |edge: &&EdgeName| world.slice.edge(&edge.caller, &edge.callee).is_some();
    for edge in shares.filter_map(|step| edge_of(&step.action)).filter(known).collect::<BTreeSet<_>>() {
        let name = edge.to_string();
        judge(&name, world.edges.get(&name).map(|facts| facts.observed_at));
    }
    let sets = context.steps.iter().any(|step| step.action.kind() != ActionKind::Restart);
    if sets {
        judge("settings", Some(world.settings.at));
    }
}

/// K507, K508.
fn proposer(context: &Context<'_>, out: &mut Vec<Rejection>) {
    let proposer = &context.world.proposer;
    let problems = [
        (!proposer.role, "its key lacks the role"),
        (proposer.proposals_left == 0, "no proposals left"),
        (!proposer.separate, "the verifier is the proposer"),
    ];
    for (_, found) in problems.into_iter().filter(|(fires, _)| *fires) {
        out.push(Rejection::new(Code::K507, "proposer").found(found, "a separate agent within its budget"));
    }
    if context.world.vetoes.contains(&context.digest) {
        out.push(Rejection::new(Code::K508, context.digest.short()).found("vetoed", "no veto"));
    }
}

/// K509.
fn policy(context: &Context<'_>, out: &mut Vec<Rejection>) {
    let world = context.world;
    if world.intent.policy != world.policy.digest {
        let refusal = Rejection::new(Code::K509, "policy");
        out.push(refusal.found(world.intent.policy.short(), world.policy.digest.short()));
    }
    if context.plan.class != world.intent.class {
        out.push(Rejection::new(Code::K509, "class").found(&context.plan.class, &world.intent.class));
    }
    for step in &context.steps {
        let kind = step.action.kind();
        if !world.policy.actions.contains(&kind) {
            let refusal = Rejection::new(Code::K509, kind.word()).at(step.key());
            out.push(
                refusal
                    .found("not of the class", "an action of the class")
                    .repair(Edit::Drop { step: step.key().to_owned() }),
            );
        }
    }
}
