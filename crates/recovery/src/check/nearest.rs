//! The nearest admissible plan: each repair of a refusal tried alone.

use super::scope::edge_of;
use super::{Edit, Rejection, examine};
use crate::isa::{Action, ActionKind, DrainMode, Limited, Place, Rate, RestartStrategy, Restored, Revision};
use crate::plan::{Cause, OnFail, Plan, REVISIONS_MAX, STEPS_MAX, Step, lineage};
use crate::world::World;
use std::collections::BTreeSet;

/// Life of a step that a repair inserts.
const INSERTED_TTL_MS: u64 = 120_000;
/// Rate of a limit that a repair inserts, percent of the baseline.
const INSERTED_RATE: u32 = 50;

/// The first plan that passes among those with a single repair, as the next revision, with its edits. It is
/// a suggestion: it still needs a preview and a decision.
#[must_use]
pub fn nearest(plan: &Plan, world: &World) -> Option<(Plan, Vec<Edit>)> {
    let rejections = examine(plan, world, world.previous.as_ref()).err()?;
    if plan.revision >= REVISIONS_MAX {
        return None;
    }
    let mut tried: Vec<Edit> = Vec::new();
    for edit in rejections.into_iter().filter_map(|Rejection { repair, .. }| repair) {
        if tried.contains(&edit) {
            continue;
        }
        let candidate = apply(plan, &edit).filter(|candidate| examine(candidate, world, Some(plan)).is_ok());
        if let Some(candidate) = candidate {
            return Some((candidate, vec![edit]));
        }
        tried.push(edit);
    }
    None
}

/// The next revision with one edit made; `None` when the edit does not fit the plan.
fn apply(plan: &Plan, edit: &Edit) -> Option<Plan> {
    let mut next = plan.normalize();
    match edit {
        Edit::Drop { step } => drop_step(&mut next, step)?,
        Edit::Set { step, parameter, to } => {
            lineage::set_parameter(&mut find(&mut next, step)?.action, parameter, *to)?
        }
        Edit::AddMember { step, service } => {
            let index = position(&next, step)?;
            let member = restart(service, &next.steps.get(index)?.action)?;
            insert(&mut next, index + 1, member)?;
        }
        Edit::InsertDrain { step } => drain_before(&mut next, step)?,
        Edit::InsertLimit { step } => {
            let index = position(&next, step)?;
            let Action::Restart { place, .. } = &next.steps.get(index)?.action else { return None };
            let what = Limited::Place(Place::Service(place.service().to_owned()));
            let rate = Rate::Percent(INSERTED_RATE);
            let limit = Action::RateLimit { what, rate, burst: None, priority: None, ttl_ms: INSERTED_TTL_MS };
            let key = insert(&mut next, index, limit)?;
            restore_at_end(&mut next, &key)?;
        }
        Edit::InsertRestore { step } => restore_at_end(&mut next, step)?,
        Edit::Reorder => next.steps.sort_by_key(|step| rank(&step.action)),
        Edit::Footprint { services } => next.footprint.clone_from(services),
        Edit::Repin { topology } => next.topology = *topology,
        Edit::LastGood { step } => match &mut find(&mut next, step)?.action {
            Action::RollbackConfig { to, .. } => *to = Revision::LastGood,
            _ => return None,
        },
        Edit::LimitInstead { step } => {
            let step = find(&mut next, step)?;
            let what = Limited::Edge(edge_of(&step.action)?.clone());
            let ttl_ms = step.action.ttl_ms()?;
            let rate = Rate::Percent(INSERTED_RATE);
            step.action = Action::RateLimit { what, rate, burst: None, priority: None, ttl_ms };
        }
        Edit::Cautious => cautious(&mut next)?,
    }
    let (footprint, topology) = (next.footprint.clone(), next.topology);
    let revised = lineage::revise(plan, Cause::Kernel, next.steps);
    Some(Plan { footprint, topology, ..revised })
}

fn position(plan: &Plan, key: &str) -> Option<usize> {
    plan.steps.iter().position(|step| step.key == key)
}

fn find<'a>(plan: &'a mut Plan, key: &str) -> Option<&'a mut Step> {
    plan.steps.iter_mut().find(|step| step.key == key)
}

/// Inserts a step under the first free key `k1`, `k2`, …, and tells it.
fn insert(plan: &mut Plan, index: usize, action: Action) -> Option<String> {
    if plan.steps.len() >= STEPS_MAX {
        return None;
    }
    let key = (1..=STEPS_MAX).map(|number| format!("k{number}")).find(|key| plan.step(key).is_none())?;
    plan.steps.insert(index, Step { key: key.clone(), ..Step::new(action) });
    Some(key)
}

/// Leaves a step out, and every reference to it.
fn drop_step(plan: &mut Plan, key: &str) -> Option<()> {
    plan.steps.remove(position(plan, key)?);
    for step in &mut plan.steps {
        if let Action::RestoreTraffic { of: Restored::Steps(keys), .. } = &mut step.action {
            keys.retain(|known| known != key);
        }
        if step.on_fail == OnFail::UndoTo(key.to_owned()) {
            step.on_fail = OnFail::Undo;
        }
    }
    let mut open = false;
    plan.steps.retain(|step| {
        open |= super::resolve::opens(&step.action);
        match &step.action {
            Action::RestoreTraffic { of: Restored::Steps(keys), .. } => !keys.is_empty(),
            Action::RestoreTraffic { of: Restored::AllOpen, .. } => open,
            _ => true,
        }
    });
    (!plan.steps.is_empty()).then_some(())
}

/// A restart of a whole service with the manner of another.
fn restart(service: &str, like: &Action) -> Option<Action> {
    let Action::Restart { wave, surge, grace_ms, jitter_ms, .. } = like else { return None };
    Some(Action::Restart {
        place: Place::Service(service.to_owned()),
        strategy: RestartStrategy::Rolling,
        wave: *wave,
        surge: *surge,
        grace_ms: *grace_ms,
        jitter_ms: *jitter_ms,
    })
}

fn drain_before(plan: &mut Plan, key: &str) -> Option<()> {
    let index = position(plan, key)?;
    let Action::Restart { place, .. } = &plan.steps.get(index)?.action else { return None };
    let (place, mode) = (place.clone(), DrainMode::New);
    let drain = Action::Drain { place, percent: 100, mode, timeout_ms: None, ttl_ms: INSERTED_TTL_MS };
    let drain = insert(plan, index, drain)?;
    restore_at_end(plan, &drain)
}

/// Restores a step at the end, unless a bare restore there does so already.
fn restore_at_end(plan: &mut Plan, key: &str) -> Option<()> {
    if let Some(Action::RestoreTraffic { of, .. }) = plan.steps.last_mut().map(|step| &mut step.action) {
        match of {
            Restored::AllOpen => return Some(()),
            Restored::Steps(keys) => {
                keys.push(key.to_owned());
                return Some(());
            }
            Restored::Weights(_) => {}
        }
    }
    let end = plan.steps.len();
    let of = Restored::Steps(vec![key.to_owned()]);
    insert(plan, end, Action::RestoreTraffic { of, ramp: vec![25, 50, 100], ramp_ms: None }).map(|_| ())
}

/// Wave 1, rolling, each restart after a drain of its target.
fn cautious(plan: &mut Plan) -> Option<()> {
    let restarts: Vec<String> = plan
        .steps
        .iter()
        .filter(|step| step.action.kind() == ActionKind::Restart)
        .map(|step| step.key.clone())
        .collect();
    for key in restarts {
        let drained: BTreeSet<Place> = plan
            .steps
            .iter()
            .filter_map(|step| match &step.action {
                Action::Drain { place, percent: 100, .. } => Some(place.clone()),
                _ => None,
            })
            .collect();
        let Action::Restart { place, strategy, wave, surge, .. } = &mut find(plan, &key)?.action else { return None };
        (*strategy, *wave, *surge) = (RestartStrategy::Rolling, 1, 0);
        if !drained.contains(place) {
            drain_before(plan, &key)?;
        }
    }
    Some(())
}

/// Limits and breakers, drains, versions and counts, restarts, restores.
fn rank(action: &Action) -> u8 {
    match action.kind() {
        ActionKind::RateLimit | ActionKind::CircuitBreak => 0,
        ActionKind::Drain => 1,
        ActionKind::RollbackConfig | ActionKind::Scale => 2,
        ActionKind::Restart => 3,
        ActionKind::RestoreTraffic => 4,
    }
}
