//! From readings to the world a plan is checked against: facts with their times, nothing guessed.

use crate::engine::{ALL, Hold};
use crate::platform::{Configs, Reading};
use base::{Digest, Millis, Timestamp};
use governance::policy::Effective;
use recovery::call::Observation;
use recovery::graph::{Slice, Snapshot};
use recovery::isa::TypeBound;
use recovery::plan::Plan;
use recovery::topology::{Service, Topology};
use recovery::world::{
    Capability, Controller, EdgeFacts, FaultFacts, HoldFacts, InstanceFacts, IntentFacts, KernelPolicy, Mutable,
    ObjectFacts, ProposerFacts, RevisionFacts, ServiceFacts, Windows, World,
};
use std::collections::BTreeMap;

/// What a world is made of besides the readings.
#[derive(Clone, Debug)]
pub struct Question {
    /// The pinned part of the graph.
    pub slice: Slice,
    /// Impaired services.
    pub impaired: Vec<String>,
    /// Suspects.
    pub suspects: Vec<String>,
    /// What a person asked for.
    pub target: String,
    /// When it began.
    pub onset: Timestamp,
    /// The intent.
    pub intent: IntentFacts,
    /// Proposals the incident has left, this one included.
    pub proposals_left: u32,
    /// Holds in force.
    pub holds: Vec<HoldFacts>,
    /// Standing vetoes.
    pub vetoes: Vec<Digest>,
    /// The revision before.
    pub previous: Option<Plan>,
    /// Mutations among the revisions before.
    pub mutations: u32,
    /// What the actuators offer.
    pub capabilities: Vec<Capability>,
    /// What was seen of each revision of the configuration.
    pub configs: Configs,
}

/// The world now.
#[must_use]
pub fn world(question: &Question, reading: &Reading, topology: &Topology, effective: &Effective) -> World {
    let mut targets: Vec<String> = question.impaired.iter().chain(&question.suspects).cloned().collect();
    targets.push(question.target.clone());
    targets.sort();
    targets.dedup();
    let window = (question.onset.minus(effective.tier.windows.baseline), question.onset);
    let names: Vec<String> = question.slice.services().map(str::to_owned).collect();
    World {
        now: reading.at,
        targets,
        fault: FaultFacts {
            impaired: question.impaired.clone(),
            weights: names.iter().map(|name| (name.clone(), 1)).collect(),
        },
        services: services(&names, question, reading, topology, window),
        edges: edges(question, reading, topology, window),
        objects: objects(question, reading, topology),
        settings: settings(reading),
        signals: BTreeMap::new(),
        policy: kernel_policy(effective),
        intent: question.intent.clone(),
        proposer: ProposerFacts { role: true, proposals_left: question.proposals_left, separate: true },
        holds: question.holds.clone(),
        leases: Vec::new(),
        running: Vec::new(),
        capabilities: question.capabilities.clone(),
        vetoes: question.vetoes.clone(),
        // LIMIT: outcomes that an earlier commit left unknown are not collected, so K406 refuses nothing here; the
        // incident that ended so tells a person to place a hold.
        unreconciled: Vec::new(),
        actions_used: 0,
        previous: question.previous.clone(),
        mutations_used: question.mutations,
        binding: None,
        authority: None,
        own_versions: BTreeMap::new(),
        slice: question.slice.clone(),
    }
}

/// The same world with the facts read again: readiness, load and settings.
#[must_use]
pub fn refreshed(world: &World, reading: &Reading) -> World {
    let mut fresh = world.clone();
    fresh.now = reading.at;
    fresh.settings = settings(reading);
    for (name, facts) in &mut fresh.services {
        let read = instances(name, reading);
        facts.observed_at = if reading.status.is_some() { reading.at } else { facts.observed_at };
        facts.instances = read;
        facts.load_mrps = load(name, reading);
    }
    for (name, facts) in &mut fresh.objects {
        let Some(object) = reading.objects.get(name) else { continue };
        facts.observed_at = reading.at;
        facts.current = unsigned(object.current);
    }
    for facts in fresh.edges.values_mut() {
        facts.observed_at = if reading.proxy.is_some() { reading.at } else { facts.observed_at };
    }
    fresh
}

/// Every field an action can set, as it is now.
#[must_use]
pub fn settings(reading: &Reading) -> Observation {
    let mut observed = Observation { at: reading.at, ..Observation::default() };
    if let Some(proxy) = &reading.proxy {
        observed.state.extend(proxy.settings.clone());
        observed.versions.extend(proxy.versions.clone());
    }
    if let Some(status) = &reading.status {
        for instance in &status.instances {
            let field = recovery::call::generation(&instance.service, instance.replica);
            observed.state.insert(field, i64::try_from(instance.generation).unwrap_or(i64::MAX));
        }
        for (service, count) in &status.replicas {
            observed.state.insert(recovery::call::replicas(service), i64::from(*count));
        }
        observed.versions.extend(status.versions.clone());
    }
    for (name, object) in &reading.objects {
        observed.state.insert(format!("config/{name}"), object.current);
        observed.versions.insert(format!("config/{name}"), object.version);
    }
    observed
}

/// The policy's numbers in the kernel's form.
#[must_use]
pub fn kernel_policy(effective: &Effective) -> KernelPolicy {
    let rules = &effective.tier.kernel;
    let windows = &effective.tier.windows;
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let unbounded = KernelPolicy::with_digest(effective.policy);
    KernelPolicy {
        type_max: TypeBound::parse(&rules.type_max.to_string()).unwrap_or(TypeBound::LEAST),
        headroom_ppm: rules.headroom_ppm,
        rate_floor: rules.rate_floor,
        cooldown: rules.cooldown,
        scope_ratio_max: small(effective.tier.envelope.scope_ratio_max),
        services_max: small(rules.services),
        edges_max: small(rules.edges),
        loss_max: rules.loss_max,
        removed_max: rules.removed_max,
        actions_per_hour: small(rules.actions_per_hour),
        drain_inflight: rules.drain_inflight,
        actions: effective.class.actions.clone(),
        mutable: effective.class.mutable.iter().map(|(name, range)| (name.clone(), mutable(range))).collect(),
        windows: Windows {
            grace: windows.action.grace,
            drain_timeout: windows.action.drain,
            jitter: windows.action.jitter,
            ready_for: windows.ready_for,
            open_for: windows.open_for,
            limited_for: windows.limited_for,
            ramp_step: windows.ramp_step,
            guard_grace: windows.guard.grace,
            guard_window: windows.guard.window,
            step_deadline_min: windows.step_deadline_min,
            fact_age_max: windows.fact_age_max,
            snapshot_age_max: windows.graph.snapshot_age_max,
            known_good_for: windows.known_good_for,
            ..unbounded.windows
        },
        ..unbounded
    }
}

fn mutable(range: &governance::policy::MutableRange) -> Mutable {
    let small = |number: i64| u32::try_from(number).unwrap_or(0);
    Mutable { min: small(range.min), max: small(range.max), step: small(range.step), safer_down: !range.safer_up }
}

/// A hold in force, in the kernel's words: no scope means everything.
#[must_use]
pub fn hold(hold: &Hold) -> HoldFacts {
    let scope = if hold.scope == ALL { Vec::new() } else { vec![hold.scope.clone()] };
    HoldFacts { scope, version: hold.version }
}

fn services(
    names: &[String],
    question: &Question,
    reading: &Reading,
    topology: &Topology,
    window: (Timestamp, Timestamp),
) -> BTreeMap<String, ServiceFacts> {
    // Without the supervisor's word nothing is known of any instance: no facts, and the kernel refuses.
    let Some(_) = &reading.status else { return BTreeMap::new() };
    let declared = names.iter().filter_map(|name| Some((name, topology.service.get(name)?)));
    declared
        .map(|(name, service)| (name.clone(), service_facts(name, service, &question.slice, reading, window)))
        .collect()
}

fn service_facts(
    name: &str,
    service: &Service,
    slice: &Snapshot,
    reading: &Reading,
    window: (Timestamp, Timestamp),
) -> ServiceFacts {
    ServiceFacts {
        observed_at: reading.at,
        replicas_min: service.replicas.min,
        replicas_max: service.replicas.max,
        instances: instances(name, reading),
        baseline_mrps: reading.service_mrps(name, window.0, window.1),
        load_mrps: load(name, reading),
        capacity_mrps: service.capacity_rps.map(|rps| u64::from(rps) * 1_000),
        min_available: service.min_available,
        quorum_of: service.quorum_of,
        critical: service.critical,
        sheddable: service.sheddable,
        trust_zone: service.trust_zone.clone(),
        last_restart_at: last_restart(name, reading),
        metastable: slice.metastable(name),
        controller: service.autoscaled.then(|| Controller { name: "declared autoscaler".into(), holdable: false }),
        startup: startup(name, reading),
        quota_left: None,
    }
}

/// The configuration as it lies there, with what was seen of each revision while it was in use.
fn objects(question: &Question, reading: &Reading, topology: &Topology) -> BTreeMap<String, ObjectFacts> {
    let facts = |(name, object): (&String, &actuators::process::config::Object)| {
        let revision = |number: &i64| RevisionFacts {
            number: unsigned(*number),
            name: format!("rev-{number}"),
            healthy_for: question.configs.healthy_for(name, *number),
            ..RevisionFacts::default()
        };
        let reads = |(_, service): &(&String, &Service)| service.config.contains(name);
        let readers = topology.service.iter().filter(reads).map(|(service, _)| service.clone());
        let facts = ObjectFacts {
            observed_at: reading.at,
            current: unsigned(object.current),
            revisions: object.revisions.iter().map(revision).collect(),
            readers: readers.collect(),
            controller: None,
        };
        (name.clone(), facts)
    };
    reading.objects.iter().map(facts).collect()
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn instances(name: &str, reading: &Reading) -> Vec<InstanceFacts> {
    let in_flight = reading.in_flight();
    let all = reading.status.iter().flat_map(|status| &status.instances);
    let mine = all.filter(|instance| instance.service == name);
    mine.map(|instance| InstanceFacts {
        replica: instance.replica,
        // One that answers nothing but errors is out already, whatever its probe says.
        ready: reading.serves(instance),
        ready_since: reading.serves(instance).then_some(Timestamp(instance.ready_since_ms)),
        generation: instance.generation,
        zone: instance.zone.clone(),
        in_flight: in_flight.get(&instance.name()).map_or(0, |count| u32::try_from(*count).unwrap_or(u32::MAX)),
    })
    .collect()
}

/// Calls of the last two whole seconds.
fn load(name: &str, reading: &Reading) -> Option<u64> {
    let to = Timestamp(reading.at.0 - reading.at.0.rem_euclid(1_000));
    reading.service_mrps(name, to.minus(Millis(2_000)), to)
}

/// An instance beyond its first generation was started by a plan.
fn last_restart(name: &str, reading: &Reading) -> Option<Timestamp> {
    let all = reading.status.iter().flat_map(|status| &status.instances);
    let restarted = all.filter(|instance| instance.service == name && instance.generation > 1);
    restarted.map(|instance| Timestamp(instance.started_at_ms)).max()
}

/// The longest time from start to ready among instances that are ready now.
fn startup(name: &str, reading: &Reading) -> Option<Millis> {
    let all = reading.status.iter().flat_map(|status| &status.instances);
    let ready = all.filter(|instance| instance.service == name && instance.ready);
    ready.map(|instance| Timestamp(instance.ready_since_ms).since(Timestamp(instance.started_at_ms))).max()
}

fn edges(
    question: &Question,
    reading: &Reading,
    topology: &Topology,
    window: (Timestamp, Timestamp),
) -> BTreeMap<String, EdgeFacts> {
    let Some(_) = &reading.proxy else { return BTreeMap::new() };
    let facts = |edge: &recovery::graph::EdgeView| {
        let name = format!("{}->{}", edge.caller, edge.callee);
        let fallback = topology.edge(&edge.caller, &edge.callee).and_then(|declared| declared.fallback.clone());
        let baseline_mrps = reading.edge_mrps(&name, window.0, window.1);
        (name, EdgeFacts { observed_at: reading.at, baseline_mrps, fallback })
    };
    question.slice.edges().iter().map(facts).collect()
}

#[cfg(test)]
mod tests;
