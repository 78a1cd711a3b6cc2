//! What every check looks at: the plan in normal form, its steps resolved, what they change and who
//! depends on it.

use super::resolve::{self, Resolved};
use super::walk::Walk;
use crate::graph::{Closure, Level, Permission};
use crate::groups::{self, Group, GroupPolicy, Instances};
use crate::isa::{EdgeName, EffectType};
use crate::plan::Plan;
use crate::world::World;
use base::Digest;
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct Context<'a> {
    pub(super) plan: Plan,
    pub(super) digest: Digest,
    pub(super) world: &'a World,
    pub(super) previous: Option<&'a Plan>,
    pub(super) steps: Vec<Resolved>,
    /// The recovery group of the incident.
    pub(super) members: BTreeSet<String>,
    /// What the plan restarts.
    pub(super) restarts: BTreeSet<String>,
    /// Group, order and drains of what the plan restarts.
    pub(super) restart_group: Option<Group>,
    pub(super) touched: Touched,
    pub(super) hard_callers: Closure,
    pub(super) permission: Permission,
    pub(super) effect: EffectType,
}

/// What steps change.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched {
    pub(super) services: BTreeSet<String>,
    pub(super) edges: BTreeSet<EdgeName>,
    /// `KIND/NS/NAME`.
    pub(super) objects: BTreeSet<String>,
}

impl<'a> Context<'a> {
    pub(super) fn new(plan: &Plan, world: &'a World, previous: Option<&'a Plan>) -> Context<'a> {
        let plan = plan.normalize();
        let steps = resolve::steps(&plan, world);
        let mut touched = Touched::default();
        let mut effect = EffectType::nothing();
        for step in &steps {
            touched.add(&step.touched);
            effect = effect.join(&EffectType::of(&step.action, step.grows));
        }
        let restarts: BTreeSet<String> =
            steps.iter().filter(|step| step.restarts).flat_map(|step| step.touched.services.iter().cloned()).collect();
        let targets: Vec<&str> = world.targets.iter().map(String::as_str).collect();
        // Names the graph does not know are K201's: they would make every other answer unknown too.
        let services: Vec<&str> = touched.names().into_iter().filter(|name| world.slice.contains(name)).collect();
        Context {
            digest: plan.digest(),
            members: world.slice.coupled_closure(&targets),
            restart_group: restart_group(world, &restarts),
            hard_callers: world.slice.hard_callers(&services, world.slice.config().closure_max),
            permission: world.slice.permission(&services, world.now),
            plan,
            world,
            previous,
            steps,
            restarts,
            touched,
            effect,
        }
    }

    /// Whether only the cautious form is permitted.
    pub(super) fn cautious(&self) -> bool {
        self.permission.level != Level::Full
    }

    /// A budget, halved in the cautious form.
    pub(super) fn budget(&self, full: u64) -> u64 {
        if self.cautious() { full / 2 } else { full }
    }

    /// Names of the exclusive rows: services and `config/KIND/NS/NAME`.
    pub(super) fn writes(&self) -> BTreeSet<String> {
        self.touched.writes()
    }

    /// Serving shares and limits as they are before the first step.
    pub(super) fn walk(&self) -> Walk<'a> {
        Walk::new(self.world)
    }

    /// Ascending wave of each restarted service.
    pub(super) fn wave_of(&self) -> BTreeMap<&str, usize> {
        let waves = self.restart_group.iter().flat_map(|group| group.waves.iter().enumerate());
        waves.flat_map(|(number, blocks)| blocks.iter().flatten().map(move |name| (name.as_str(), number))).collect()
    }
}

impl Touched {
    pub(super) fn add(&mut self, other: &Touched) {
        self.services.extend(other.services.iter().cloned());
        self.edges.extend(other.edges.iter().cloned());
        self.objects.extend(other.objects.iter().cloned());
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.services.iter().map(String::as_str).collect()
    }

    pub(super) fn writes(&self) -> BTreeSet<String> {
        self.services.iter().cloned().chain(self.objects.iter().map(|object| format!("config/{object}"))).collect()
    }
}

fn restart_group(world: &World, restarts: &BTreeSet<String>) -> Option<Group> {
    let known: Vec<&str> = restarts.iter().map(String::as_str).filter(|name| world.slice.contains(name)).collect();
    if known.is_empty() {
        return None;
    }
    let policy = &world.policy;
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    // WHY: one instance more than there are, so that the group always finds one that is out already. Which
    // instances may be taken is judged step by step here, with surge and earlier drains; the group only orders.
    let instances = |name: &str| {
        let facts = world.services.get(name)?;
        Some(Instances { total: count(facts.instances.len()).saturating_add(1), ready: count(facts.ready().count()) })
    };
    let group_policy = GroupPolicy {
        group_max: policy.group_max,
        drain_fan_in: policy.drain_fan_in,
        drain_inflight: policy.drain_inflight,
        now: world.now,
        instances: known.iter().filter_map(|name| Some(((*name).to_owned(), instances(name)?))).collect(),
    };
    groups::group(&world.slice, &known, &group_policy).ok()
}
