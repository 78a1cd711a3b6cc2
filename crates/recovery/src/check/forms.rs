//! K101 to K108: whether the plan is one at all, its parameters are in their domains, its references
//! resolve, and its steps stand so that what cannot be undone comes late.

use super::context::Context;
use super::resolve::opens;
use super::{Code, Edit, Rejection};
use crate::isa::{Action, ActionKind, Limited, Place, Rate, RestartStrategy, Restored, RollbackClass, ScaleTo};
use crate::plan::{
    CHANGES_MAX, FOOTPRINT_MAX, LIST_MAX, OnFail, PREDICATES_MAX, Plan, Predicate, REVISIONS_MAX, STEPS_MAX, Signal,
    Step, Subject, is_incident, is_key, is_plan_name,
};
use std::collections::BTreeSet;

/// LIMIT: longest life of an effect.
pub const TTL_MS_MAX: u64 = 3_600_000;
/// LIMIT: longest life of a Scale.
pub const SCALE_TTL_MS_MAX: u64 = 86_400_000;
/// LIMIT: grace, jitter, timeout and pauses.
pub const PAUSE_MS_MAX: u64 = 600_000;
/// LIMIT: instances out at once.
pub const WAVE_MAX: u32 = 1_000;

const OBJECT_KINDS: &[&str] =
    &["workload", "config", "secret", "service", "policy", "quota", "flag", "unit", "dataset", "role"];

/// K101 to K105: with one of these nothing else is looked at.
pub(super) fn form(plan: &Plan) -> Vec<Rejection> {
    let mut out = Vec::new();
    header(plan, &mut out);
    let mut earlier: Vec<&Step> = Vec::new();
    for step in &plan.steps {
        sizes(step, &mut out);
        parameters(step, &mut out);
        references(step, &earlier, &mut out);
        earlier.push(step);
    }
    out
}

/// K106 to K108.
pub(super) fn order(context: &Context<'_>, out: &mut Vec<Rejection>) {
    for resolved in &context.steps {
        for predicate in resolved.step.pre.iter().chain(&resolved.step.post) {
            if let Some(why) = unresolved(predicate, context) {
                out.push(
                    Rejection::new(Code::K106, predicate.to_string()).at(resolved.key()).found(why, "a known subject"),
                );
            }
        }
    }
    closed(context, out);
    pivot(context, out);
}

fn header(plan: &Plan, out: &mut Vec<Rejection>) {
    let mut malformed = |subject: &str, found: &str, wanted: &str| {
        out.push(Rejection::new(Code::K101, subject).found(found.escape_debug(), wanted));
    };
    if !is_incident(&plan.incident) {
        malformed("incident", &plan.incident, "26 letters of lower-case base32");
    }
    if plan.steps.is_empty() {
        malformed("steps", "none", "at least one");
    }
    if !is_plan_name(&plan.class) {
        malformed("class", &plan.class, "a name");
    }
    if plan.revision == 0 {
        malformed("revision", "0", "at least 1");
    }
    let sizes = [
        ("steps", plan.steps.len(), STEPS_MAX),
        ("changes", plan.changes.len(), CHANGES_MAX),
        ("footprint", plan.footprint.len(), FOOTPRINT_MAX),
        ("revision", plan.revision as usize, REVISIONS_MAX as usize),
    ];
    for (subject, found, bound) in sizes.into_iter().filter(|(_, found, bound)| found > bound) {
        out.push(Rejection::new(Code::K102, subject).found(found, bound));
    }
}

fn sizes(step: &Step, out: &mut Vec<Rejection>) {
    let list = match &step.action {
        Action::Restart { place: Place::Instances(_, numbers), .. }
        | Action::Drain { place: Place::Instances(_, numbers), .. } => numbers.len(),
        Action::RestoreTraffic { of: Restored::Steps(keys), ramp, .. } => keys.len().max(ramp.len()),
        Action::RestoreTraffic { of: Restored::Weights(weights), ramp, .. } => weights.len().max(ramp.len()),
        Action::RestoreTraffic { ramp, .. } => ramp.len(),
        _ => 0,
    };
    let sizes =
        [("pre", step.pre.len(), PREDICATES_MAX), ("post", step.post.len(), PREDICATES_MAX), ("list", list, LIST_MAX)];
    for (subject, found, bound) in sizes.into_iter().filter(|(_, found, bound)| found > bound) {
        out.push(Rejection::new(Code::K102, subject).at(&step.key).found(found, bound));
    }
}

/// Collects K104 for one step.
struct Domain<'a> {
    step: &'a Step,
    out: &'a mut Vec<Rejection>,
}

impl Domain<'_> {
    fn range(&mut self, parameter: &str, found: u64, min: u64, max: u64) {
        if (min..=max).contains(&found) {
            return;
        }
        let edit =
            Edit::Set { step: self.step.key.clone(), parameter: parameter.to_owned(), to: found.clamp(min, max) };
        let refusal = Rejection::new(Code::K104, parameter).at(&self.step.key);
        self.out.push(refusal.found(found, format!("{min} to {max}")).repair(edit));
    }

    fn optional(&mut self, parameter: &str, found: Option<u64>, max: u64) {
        if let Some(found) = found {
            self.range(parameter, found, 0, max);
        }
    }

    fn refuse(&mut self, parameter: &str, found: impl std::fmt::Display, bound: &str) {
        self.out.push(Rejection::new(Code::K104, parameter).at(&self.step.key).found(found, bound));
    }

    fn name(&mut self, parameter: &str, name: &str) {
        if !is_plan_name(name) {
            self.refuse(parameter, name.escape_debug(), "a name of letters, digits, `.`, `_` and `-`");
        }
    }

    fn place(&mut self, place: &Place, fits: &[PlaceForm], wanted: &str) {
        self.name("target", place.service());
        match place {
            Place::Zone(_, name) | Place::Shard(_, name) => self.name("target", name),
            Place::Instances(_, numbers) if numbers.is_empty() => self.refuse("target", "no instance", "at least one"),
            Place::Service(_) | Place::Instances(..) => {}
        }
        if !fits.contains(&form_of(place)) {
            self.refuse("target", place, wanted);
        }
    }

    fn ramp(&mut self, ramp: &[u32]) {
        let ascending = ramp.iter().zip(ramp.iter().skip(1)).all(|(a, b)| a < b);
        let ends = ramp.last() == Some(&100) && ramp.first().is_some_and(|first| *first > 0);
        if !ascending || !ends {
            self.refuse("ramp", format!("{ramp:?}"), "ascending percentages that end at 100");
        }
    }

    fn weights(&mut self, weights: &[(Place, u32)]) {
        for (place, weight) in weights {
            self.place(place, &[PlaceForm::Instances], "one instance");
            if matches!(place, Place::Instances(_, numbers) if numbers.len() != 1) {
                self.refuse("weights", place, "one instance each");
            }
            self.range("weights", u64::from(*weight), 0, 100);
        }
        let sum: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
        if sum != 100 {
            self.refuse("weights", sum, "a sum of 100");
        }
        let first = weights.first().map(|(place, _)| place.service());
        if weights.iter().any(|(place, _)| Some(place.service()) != first) {
            self.refuse("weights", "several services", "places of one service");
        }
        let places: BTreeSet<&Place> = weights.iter().map(|(place, _)| place).collect();
        if places.len() != weights.len() {
            self.refuse("weights", "a place twice", "each place once");
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PlaceForm {
    Service,
    Instances,
    Zone,
    Shard,
}

fn form_of(place: &Place) -> PlaceForm {
    match place {
        Place::Service(_) => PlaceForm::Service,
        Place::Instances(..) => PlaceForm::Instances,
        Place::Zone(..) => PlaceForm::Zone,
        Place::Shard(..) => PlaceForm::Shard,
    }
}

fn parameters(step: &Step, out: &mut Vec<Rejection>) {
    let mut domain = Domain { step, out };
    match &step.action {
        Action::Restart { place, strategy, wave, surge, grace_ms, jitter_ms } => {
            let (fits, wanted): (&[PlaceForm], _) = match strategy {
                RestartStrategy::Rolling => (&[PlaceForm::Service, PlaceForm::Instances], "a service or its instances"),
                RestartStrategy::Group => (&[PlaceForm::Service], "a service, with strategy group"),
            };
            domain.place(place, fits, wanted);
            domain.range("wave", u64::from(*wave), 1, u64::from(WAVE_MAX));
            domain.range("surge", u64::from(*surge), 0, u64::from(*wave));
            domain.optional("grace_ms", *grace_ms, PAUSE_MS_MAX);
            domain.optional("jitter_ms", *jitter_ms, PAUSE_MS_MAX);
        }
        Action::Drain { place, percent, timeout_ms, ttl_ms, .. } => {
            let fits = [PlaceForm::Service, PlaceForm::Instances, PlaceForm::Zone, PlaceForm::Shard];
            domain.place(place, &fits, "a place");
            domain.range("percent", u64::from(*percent), 1, 100);
            domain.optional("timeout_ms", *timeout_ms, PAUSE_MS_MAX);
            domain.range("ttl_ms", *ttl_ms, 1, TTL_MS_MAX);
        }
        Action::RestoreTraffic { of, ramp, ramp_ms } => {
            domain.ramp(ramp);
            domain.optional("ramp_ms", *ramp_ms, PAUSE_MS_MAX);
            if let Restored::Weights(weights) = of {
                domain.weights(weights);
            }
        }
        Action::CircuitBreak { edge, fallback, ttl_ms, .. } => {
            [&edge.caller, &edge.callee].into_iter().chain(fallback).for_each(|name| domain.name("target", name));
            domain.range("ttl_ms", *ttl_ms, 1, TTL_MS_MAX);
        }
        Action::RateLimit { what, rate, burst, priority, ttl_ms } => {
            match what {
                Limited::Place(place) => {
                    domain.place(place, &[PlaceForm::Service, PlaceForm::Shard], "a service, shard or edge")
                }
                Limited::Edge(edge) => {
                    [&edge.caller, &edge.callee].into_iter().for_each(|name| domain.name("target", name))
                }
            }
            match rate {
                Rate::Percent(percent) => domain.range("rate", u64::from(*percent), 0, 100),
                Rate::PerSecond(count) => domain.range("rate", u64::from(*count), 0, 1_000_000_000),
            }
            domain.optional("burst", burst.map(u64::from), 1_000_000);
            priority.iter().for_each(|name| domain.name("priority", name));
            domain.range("ttl_ms", *ttl_ms, 1, TTL_MS_MAX);
        }
        Action::Scale { service, to, ttl_ms } => {
            domain.name("target", service);
            if matches!(to, ScaleTo::More(0) | ScaleTo::Fewer(0)) {
                domain.refuse("to", "no change", "a change of at least 1");
            }
            domain.range("ttl_ms", *ttl_ms, 1, SCALE_TTL_MS_MAX);
        }
        Action::RollbackConfig { kind, namespace, name, to } => {
            [namespace, name].into_iter().for_each(|name| domain.name("target", name));
            if !OBJECT_KINDS.contains(&kind.as_str()) {
                domain.refuse("target", kind.escape_debug(), "a known kind of object");
            }
            if let crate::isa::Revision::Named(revision) = to {
                revision.split('@').for_each(|part| domain.name("to", part));
            }
        }
    }
}

fn references(step: &Step, earlier: &[&Step], out: &mut Vec<Rejection>) {
    let mut refuse = |subject: &str, found: &str, bound: &str| {
        out.push(Rejection::new(Code::K105, subject).at(&step.key).found(found, bound));
    };
    if !is_key(&step.key) {
        refuse(&step.key, "not a key", "a letter, then letters, digits and `-`, no keyword");
    }
    if earlier.iter().any(|other| other.key == step.key) {
        refuse(&step.key, "twice", "each key once");
    }
    if let OnFail::UndoTo(key) = &step.on_fail
        && *key != step.key
        && !earlier.iter().any(|other| other.key == *key)
    {
        refuse(key, "not an earlier step", "this step or an earlier one");
    }
    let Action::RestoreTraffic { of, .. } = &step.action else { return };
    match of {
        Restored::AllOpen if !earlier.iter().any(|other| opens(&other.action)) => {
            refuse("restore", "nothing is open", "an earlier drain, break or ratelimit");
        }
        Restored::Steps(keys) => {
            for key in keys {
                if !earlier.iter().any(|other| other.key == *key && opens(&other.action)) {
                    refuse(key, "not an earlier step that opens something", "an earlier drain, break or ratelimit");
                }
            }
        }
        Restored::AllOpen | Restored::Weights(_) => {}
    }
}

/// Why a condition cannot be resolved.
fn unresolved(predicate: &Predicate, context: &Context<'_>) -> Option<&'static str> {
    if predicate.value < 0 {
        return Some("a negative number");
    }
    let Some(subject) = &predicate.subject else {
        return (predicate.signal != Signal::NoRegression).then_some("no subject");
    };
    let slice = &context.world.slice;
    match (predicate.signal, subject) {
        (Signal::Revision, Subject::Object(object)) => {
            let known = context.world.objects.contains_key(&object.to_string());
            (!known).then_some("an unknown object")
        }
        (Signal::Revision, _) | (_, Subject::Object(_)) => Some("a subject of another kind"),
        (Signal::RetriesPermille, Subject::Edge(edge)) => {
            slice.edge(&edge.caller, &edge.callee).is_none().then_some("an unknown edge")
        }
        (_, Subject::Edge(_)) => Some("a subject of another kind"),
        (_, Subject::Place(place)) if !slice.contains(place.service()) => Some("an unknown service"),
        (_, Subject::Place(Place::Instances(service, numbers))) => {
            let facts = context.world.services.get(service);
            let known = |number: &u32| facts.is_some_and(|facts| facts.instance(*number).is_some());
            (!numbers.iter().all(known)).then_some("an unknown instance")
        }
        (_, Subject::Place(_)) => None,
    }
}

/// K107: a ttl outlives the earliest start of what closes the step.
fn closed(context: &Context<'_>, out: &mut Vec<Rejection>) {
    for (index, step) in context.steps.iter().enumerate() {
        let closer = context.steps.iter().position(|other| other.closes.contains(&index));
        let (Some(closer), Some(ttl)) = (closer, step.action.ttl_ms()) else { continue };
        let between = context.steps.iter().take(closer).skip(index);
        let start: u64 = between.map(|other| other.times.expected).fold(0, u64::saturating_add);
        if ttl < start {
            let edit = Edit::Set { step: step.key().to_owned(), parameter: "ttl_ms".into(), to: start.min(TTL_MS_MAX) };
            let refusal = Rejection::new(Code::K107, "ttl_ms").at(step.key());
            out.push(refusal.found(format!("ends after {ttl} ms"), format!("restored after {start} ms")).repair(edit));
        }
    }
}

/// K108: what is hard to undo comes late, and a drain comes before the restart of its instances.
fn pivot(context: &Context<'_>, out: &mut Vec<Rejection>) {
    let mut restarted: BTreeSet<&(String, u32)> = BTreeSet::new();
    let mut rolled_back: BTreeSet<&String> = BTreeSet::new();
    for step in &context.steps {
        let refuse = |subject: &str, found: &str, bound: &str| {
            Rejection::new(Code::K108, subject).at(step.key()).found(found, bound).repair(Edit::Reorder)
        };
        let class = step.action.kind().rollback_class();
        if class == RollbackClass::Compensatable && !restarted.is_empty() {
            out.push(refuse(step.key(), "after a restart", "before every restart"));
        }
        match step.action.kind() {
            ActionKind::Drain => {
                if let Some((service, replica)) = step.targets.iter().find(|target| restarted.contains(target)) {
                    out.push(refuse(&format!("{service}@{replica}"), "drained after its restart", "drained before"));
                }
            }
            ActionKind::Restart => restarted.extend(&step.targets),
            ActionKind::RollbackConfig => {
                if let Some(object) = step.touched.objects.iter().find(|object| !rolled_back.insert(object)) {
                    let refusal = Rejection::new(Code::K108, object.as_str()).at(step.key());
                    let edit = Edit::Drop { step: step.key().to_owned() };
                    out.push(refusal.found("rolled back twice", "at most once").repair(edit));
                }
            }
            _ => {}
        }
    }
}
