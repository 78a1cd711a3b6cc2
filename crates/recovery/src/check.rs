//! The plan checker: from a plan and a world to a checked plan, or to every reason against it.
//!
//! Pure and total. It recomputes group, order, footprint and every number; what a plan says about them is
//! a hint. A fact that is missing or stale makes its check fire with `unknown`.

mod capacity;
mod code;
mod context;
mod edit;
mod forms;
mod nearest;
mod resolve;
mod scope;
mod state;
mod step;
mod trust;
mod walk;

pub use code::{Code, Rejection};
pub use edit::Edit;
pub use forms::{PAUSE_MS_MAX, SCALE_TTL_MS_MAX, TTL_MS_MAX, WAVE_MAX};
pub use nearest::nearest;
pub use step::recheck_step;

use self::context::Context;
use crate::call::{State, Versions};
use crate::graph::{Closure, Permission};
use crate::groups::Group;
use crate::isa::{Action, EffectLevel, EffectType, RollbackClass};
use crate::plan::{OnFail, Plan, Predicate};
use crate::world::World;
use base::Digest;

/// One step as it will be executed: defaults filled, targets enumerated, values resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedStep {
    /// Its name within the plan.
    pub key: String,
    /// The action with every default filled; a restore names the steps it closes.
    pub action: Action,
    /// Its rollback class.
    pub class: RollbackClass,
    /// How wide it is.
    pub level: EffectLevel,
    /// The instances it acts on, ascending; for an edge or a service setting those of the callee.
    pub targets: Vec<(String, u32)>,
    /// The fields it sets and their values; see [`crate::call`].
    pub desired: State,
    /// Versions these fields had in the world it was checked against.
    pub bound: Versions,
    /// Life of the effect at the data plane; its absolute expiry is the time of the intend record plus this.
    pub ttl_ms: Option<u64>,
    /// The step fails when it is not done this long after its start.
    pub deadline_ms: u64,
    /// How long its done criterion must hold in a row.
    pub done_ms: u64,
    /// How long it is watched after that; 0 when it touches no traffic.
    pub guard_ms: u64,
    /// What is expected from its start to the end of its guard.
    pub expected_ms: u64,
    /// What must hold before it.
    pub pre: Vec<Predicate>,
    /// What must hold after it.
    pub post: Vec<Predicate>,
    /// What happens when it fails.
    pub on_fail: OnFail,
    /// Whether it changes where requests go or how many pass.
    pub touches_traffic: bool,
}

/// A plan that passed, and everything that was computed on the way. Only the checker makes one, and only
/// what is checked executes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    plan: Plan,
    digest: Digest,
    steps: Vec<CheckedStep>,
    members: Vec<String>,
    restarts: Option<Group>,
    writes: Vec<String>,
    services: Vec<String>,
    hard_callers: Closure,
    permission: Permission,
    effect: EffectType,
    expected_ms: u64,
}

/// Checks a plan against a world.
///
/// # Errors
/// Every reason against it, in the documented order; the first is the binding one. Errors of form end the
/// run, and only a hold is listed before them.
pub fn check(plan: &Plan, world: &World) -> Result<Checked, Vec<Rejection>> {
    examine(plan, world, world.previous.as_ref())
}

fn examine(plan: &Plan, world: &World, previous: Option<&Plan>) -> Result<Checked, Vec<Rejection>> {
    let plan = plan.normalize();
    let form = forms::form(&plan);
    if plan.steps.len() > crate::plan::STEPS_MAX {
        return Err(form);
    }
    let context = Context::new(&plan, world, previous);
    let mut rejections = state::holds(world, &context.writes());
    if form.is_empty() {
        forms::order(&context, &mut rejections);
        trust::check(&context, &mut rejections);
        scope::check(&context, &mut rejections);
        capacity::check(&context, &mut rejections);
        state::check(&context, &mut rejections);
    } else {
        rejections.extend(form);
    }
    if rejections.is_empty() {
        return Ok(context.into_checked());
    }
    let position = |step: &Option<String>| plan.steps.iter().position(|known| Some(&known.key) == step.as_ref());
    // The sort is stable: within one rule and step the order of finding stays.
    rejections.sort_by_key(|rejection| (rejection.code.rank(), position(&rejection.step)));
    Err(rejections)
}

impl Context<'_> {
    fn into_checked(self) -> Checked {
        Checked {
            writes: self.writes().into_iter().collect(),
            expected_ms: self.steps.iter().map(|step| step.times.expected).fold(0, u64::saturating_add),
            steps: self.steps.iter().map(|step| step.checked(self.world)).collect(),
            services: self.touched.services.into_iter().collect(),
            plan: self.plan,
            digest: self.digest,
            members: self.members.into_iter().collect(),
            restarts: self.restart_group,
            hard_callers: self.hard_callers,
            permission: self.permission,
            effect: self.effect,
        }
    }
}

impl Checked {
    /// A checked plan for tests of what executes it; no check was made.
    #[cfg(test)]
    pub(crate) fn assume(plan: &Plan, steps: Vec<CheckedStep>) -> Checked {
        let plan = plan.normalize();
        let expected_ms = steps.iter().map(|step| step.expected_ms).sum();
        let services: std::collections::BTreeSet<String> =
            steps.iter().flat_map(|step| step.targets.iter().map(|(service, _)| service.clone())).collect();
        let services: Vec<String> = services.into_iter().collect();
        Checked {
            digest: plan.digest(),
            plan,
            steps,
            members: services.clone(),
            restarts: None,
            writes: services.clone(),
            services,
            hard_callers: Closure::Members(Vec::new()),
            permission: fixture::slice().permission(&["payments"], fixture::NOW),
            effect: EffectType::nothing(),
            expected_ms,
        }
    }

    /// The plan in normal form.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The steps as they will be executed.
    #[must_use]
    pub fn steps(&self) -> &[CheckedStep] {
        &self.steps
    }

    /// The step with this key.
    #[must_use]
    pub fn step(&self, key: &str) -> Option<&CheckedStep> {
        self.steps.iter().find(|step| step.key == key)
    }

    /// Services and objects the steps change, sorted: the exclusive rows of the scope lease.
    #[must_use]
    pub fn writes(&self) -> &[String] {
        &self.writes
    }

    /// The services among the writes, readers of changed objects included, sorted.
    #[must_use]
    pub fn services(&self) -> &[String] {
        &self.services
    }

    /// Services that depend hard on what is changed, without those: the shared rows.
    #[must_use]
    pub fn hard_callers(&self) -> &Closure {
        &self.hard_callers
    }

    /// Everyone affected: the services changed and their hard callers, sorted.
    #[must_use]
    pub fn footprint(&self) -> Vec<String> {
        let all = self.services.iter().chain(self.hard_callers.names());
        all.cloned().collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    /// The recovery group of the incident: the closure of fault scope, suspects and target, sorted.
    #[must_use]
    pub fn members(&self) -> &[String] {
        &self.members
    }

    /// Order, waves and drains of what the plan restarts; absent when it restarts nothing.
    #[must_use]
    pub fn restarts(&self) -> Option<&Group> {
        self.restarts.as_ref()
    }

    /// How sure the graph is about the services changed.
    #[must_use]
    pub fn permission(&self) -> &Permission {
        &self.permission
    }

    /// What it can do at worst.
    #[must_use]
    pub fn effect(&self) -> &EffectType {
        &self.effect
    }

    /// How long it is expected to take.
    #[must_use]
    pub fn expected_ms(&self) -> u64 {
        self.expected_ms
    }
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
