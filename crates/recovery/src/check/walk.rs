//! Serving capacity and load while the steps of a plan are walked through, in order.
//!
//! A place serves a share of new requests, 0 to 100 per ready instance. An instance that is not ready is
//! out already: taking it takes nothing.

use super::resolve::{Resolved, limit_field, limit_mrps, scale_to};
use crate::call;
use crate::isa::Action;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct Walk<'a> {
    world: &'a World,
    /// Share of each instance that is ready.
    shares: BTreeMap<String, BTreeMap<u32, u32>>,
    /// Limits in force, by field.
    limits: BTreeMap<String, u64>,
}

/// What a step takes from one service.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) service: String,
    /// Ready instances that serve after it, at its worst moment.
    pub(super) ready_left: u32,
    /// Ready members before and at its worst moment, whether they serve or not.
    pub(super) members_before: u32,
    pub(super) members_left: u32,
    /// Shares served before and at its worst moment.
    pub(super) served_before: u64,
    pub(super) served_left: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(world: &'a World) -> Walk<'a> {
        let settings = &world.settings.state;
        let share = |service: &String, replica: u32| {
            let weight = settings.get(&call::weight(service, replica)).copied().unwrap_or(100);
            u32::try_from(weight.clamp(0, 100)).unwrap_or(0)
        };
        let of_service = |service: &String| {
            let ready = world.services.get(service).into_iter().flat_map(|facts| facts.ready());
            ready.map(|instance| (instance.replica, share(service, instance.replica))).collect()
        };
        let limit = |(field, value): (&String, &i64)| {
            let limited = field.starts_with("limit/");
            u64::try_from(*value).ok().filter(|_| limited).map(|value| (field.clone(), value))
        };
        Walk {
            world,
            shares: world.services.keys().map(|service| (service.clone(), of_service(service))).collect(),
            limits: settings.iter().filter_map(limit).collect(),
        }
    }

    /// What a step takes out of service, by service; empty when it takes nothing that serves.
    pub(super) fn taken(&self, step: &Resolved) -> Vec<Taken> {
        match &step.action {
            Action::Drain { percent, .. } => self.drained(step, *percent),
            Action::Restart { wave, surge, .. } => self.restarted(step, wave.saturating_sub(*surge)),
            Action::Scale { service, to, .. } => self.scaled(service, scale_to(service, *to, self.world)),
            _ => Vec::new(),
        }
    }

    /// Leaves the state as the step does.
    pub(super) fn pass(&mut self, step: &Resolved, earlier: &[Resolved]) {
        match &step.action {
            Action::Drain { .. } => self.set_weights(step),
            Action::RestoreTraffic { .. } => {
                for closed in step.closes.iter().filter_map(|index| earlier.get(*index)) {
                    if let Action::RateLimit { what, .. } = &closed.action {
                        self.limits.remove(&limit_field(what));
                    }
                }
                self.set_weights(step);
                for (field, value) in &step.desired {
                    if let (true, Ok(limit)) = (field.starts_with("limit/"), u64::try_from(*value)) {
                        self.limits.insert(field.clone(), limit);
                    }
                }
            }
            Action::RateLimit { what, rate, .. } => {
                if let Some(limit) = limit_mrps(what, *rate, self.world) {
                    self.limits.insert(limit_field(what), limit);
                }
            }
            Action::Restart { .. }
            | Action::CircuitBreak { .. }
            | Action::Scale { .. }
            | Action::RollbackConfig { .. } => {}
        }
    }

    /// Load of a service as the limits in force leave it: an upper bound, in milli-requests per second.
    pub(super) fn load_mrps(&self, service: &str) -> Option<u64> {
        let known = self.world.services.get(service)?.load_mrps?;
        if self.limits.is_empty() {
            return Some(known);
        }
        // Share of its load that each service still gets, ppm; every round is a valid upper bound.
        let mut left: BTreeMap<&str, u64> = BTreeMap::new();
        for _ in 0..8 {
            let mut next: BTreeMap<&str, u64> = BTreeMap::new();
            let mut names: BTreeSet<&str> = self.world.slice.edges().iter().map(|edge| edge.callee.as_str()).collect();
            names.insert(service);
            for name in names {
                next.insert(name, self.left_ppm(name, &left));
            }
            if next == left {
                break;
            }
            left = next;
        }
        Some(scaled(known, left.get(service).copied().unwrap_or(1_000_000)))
    }

    /// Whether less load than usual reaches the service: a limit on it, on an edge into it, or on a service
    /// that depends hard on it.
    pub(super) fn is_shed(&self, service: &str) -> bool {
        let closure = self.world.slice.hard_callers(&[service], self.world.slice.config().closure_max);
        let mut above: BTreeSet<&str> = closure.names().iter().map(String::as_str).collect();
        above.insert(service);
        self.limits.keys().filter_map(|field| field.strip_prefix("limit/")).any(|what| {
            let target = what.split_once("->").map_or(what, |(_, callee)| callee);
            above.contains(target.split('#').next().unwrap_or(target))
        })
    }

    fn left_ppm(&self, service: &str, callers: &BTreeMap<&str, u64>) -> u64 {
        let Some(load) = self.world.services.get(service).and_then(|facts| facts.load_mrps).filter(|load| *load > 0)
        else {
            return 1_000_000;
        };
        let mut kept = load;
        for edge in self.world.slice.edges().iter().filter(|edge| edge.callee == service) {
            let usual = edge.rate_mrps.min(load);
            let passed = scaled(usual, callers.get(edge.caller.as_str()).copied().unwrap_or(1_000_000));
            let limit = self.limits.get(&format!("limit/{}->{service}", edge.caller)).copied().unwrap_or(u64::MAX);
            kept = kept.saturating_sub(usual - passed.min(limit));
        }
        let own = self.limits.get(&call::service_limit(service)).copied().unwrap_or(u64::MAX);
        let ppm = u128::from(kept.min(own)) * 1_000_000;
        u64::try_from(ppm.div_ceil(u128::from(load))).unwrap_or(1_000_000).min(1_000_000)
    }

    fn set_weights(&mut self, step: &Resolved) {
        for (service, replica) in &step.targets {
            let weight = step.desired.get(&call::weight(service, *replica));
            let share = weight.and_then(|weight| u32::try_from((*weight).clamp(0, 100)).ok());
            if let (Some(share), Some(shares)) = (share, self.shares.get_mut(service)) {
                shares.entry(*replica).and_modify(|known| *known = share);
            }
        }
    }

    fn drained(&self, step: &Resolved, percent: u32) -> Vec<Taken> {
        let left = 100_u32.saturating_sub(percent);
        self.by_service(step, |service, shares, targets| {
            let after = shares.iter().map(|(replica, share)| {
                if targets.contains(replica) { (*replica, (*share).min(left)) } else { (*replica, *share) }
            });
            let after: BTreeMap<u32, u32> = after.collect();
            // WHY: a drained member still votes; only what serves is counted down.
            Some((service.to_owned(), after.clone(), count(shares.len())))
        })
    }

    fn restarted(&self, step: &Resolved, out_at_once: u32) -> Vec<Taken> {
        self.by_service(step, |service, shares, targets| {
            let mut serving: Vec<(u32, u32)> = shares
                .iter()
                .filter(|(replica, _)| targets.contains(replica))
                .map(|(replica, share)| (*share, *replica))
                .collect();
            // The worst wave takes those that serve most.
            serving.sort_unstable_by(|a, b| b.cmp(a));
            serving.truncate(usize::try_from(out_at_once).unwrap_or(usize::MAX));
            let out: BTreeSet<u32> = serving.iter().map(|(_, replica)| *replica).collect();
            let members_left = count(shares.len()).saturating_sub(count(out.len()));
            let after =
                shares.iter().filter(|(replica, _)| !out.contains(replica)).map(|(replica, share)| (*replica, *share));
            Some((service.to_owned(), after.collect(), members_left))
        })
    }

    fn scaled(&self, service: &str, to: Option<u32>) -> Vec<Taken> {
        let (Some(to), Some(shares)) = (to, self.shares.get(service)) else { return Vec::new() };
        // Which ones go is the platform's choice; assume those that serve.
        let mut serving: Vec<u32> = shares.values().copied().collect();
        serving.sort_unstable();
        serving.truncate(usize::try_from(to).unwrap_or(usize::MAX));
        let after: BTreeMap<u32, u32> = (0..).zip(serving).collect();
        let members = count(after.len());
        taken(service, shares, &after, members).into_iter().collect()
    }

    fn by_service(
        &self,
        step: &Resolved,
        change: impl Fn(&str, &BTreeMap<u32, u32>, &BTreeSet<u32>) -> Option<(String, BTreeMap<u32, u32>, u32)>,
    ) -> Vec<Taken> {
        let mut targets: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
        for (service, replica) in &step.targets {
            targets.entry(service).or_default().insert(*replica);
        }
        let one = |(service, numbers): (&&str, &BTreeSet<u32>)| {
            let shares = self.shares.get(*service)?;
            let (service, after, members_left) = change(service, shares, numbers)?;
            taken(&service, shares, &after, members_left)
        };
        targets.iter().filter_map(one).collect()
    }
}

impl Taken {
    /// Whether something that serves is taken out.
    pub(super) fn serving(&self) -> bool {
        self.served_left < self.served_before
    }
}

/// The difference between before and after, if anything that serves, or a ready member, was taken.
fn taken(service: &str, before: &BTreeMap<u32, u32>, after: &BTreeMap<u32, u32>, members_left: u32) -> Option<Taken> {
    let sum = |shares: &BTreeMap<u32, u32>| shares.values().map(|share| u64::from(*share)).sum::<u64>();
    let (served_before, served_left) = (sum(before), sum(after));
    let nothing = served_before == served_left && members_left == count(before.len());
    (!nothing).then(|| Taken {
        service: service.to_owned(),
        ready_left: count(after.values().filter(|share| **share > 0).count()),
        members_before: count(before.len()),
        members_left,
        served_before,
        served_left,
    })
}

fn scaled(value: u64, ppm: u64) -> u64 {
    u64::try_from((u128::from(value) * u128::from(ppm)).div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
