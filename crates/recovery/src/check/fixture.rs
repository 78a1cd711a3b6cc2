//! A small world that tests start from: a gateway, a checkout, payments with one instance that is not ready,
//! and what they call.

use crate::call::{self, Observation};
use crate::graph::{Config, EdgeKind, EdgeView, Hardness, NodeKind, Picture, RootView, Seconds, ServiceView, Slice};
use crate::isa::{ActionKind, EdgeName, EffectLevel, Expiry, RollbackClass, TypeBound};
use crate::miss::{Tally, Window};
use crate::plan::{Cause, Plan, Step};
use crate::world::{
    Capability, EdgeFacts, FaultFacts, InstanceFacts, IntentFacts, KernelPolicy, Mutable, ObjectFacts, ProposerFacts,
    RevisionFacts, ServiceFacts, TargetKind, Windows, World,
};
use base::{Digest, Millis, Ratio, Timestamp};
use std::collections::BTreeMap;

pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);
pub(crate) const INCIDENT: &str = "abcdefghijklmnopqrstuvwxyz";
pub(crate) const CLASS: &str = "restart-orchestration";

/// Services with their replica counts.
pub(crate) const SERVICES: &[(&str, u32)] = &[
    ("gateway", 1),
    ("checkout", 2),
    ("payments", 2),
    ("cart", 2),
    ("ledger", 1),
    ("catalog", 3),
    ("catalog-cache", 3),
    ("recs", 3),
];

/// Caller, callee, hardness.
pub(crate) const EDGES: &[(&str, &str, Hardness)] = &[
    ("checkout", "cart", Hardness::Hard),
    ("checkout", "catalog", Hardness::Hard),
    ("checkout", "payments", Hardness::Hard),
    ("checkout", "recs", Hardness::Soft),
    ("catalog", "catalog-cache", Hardness::Hard),
    ("gateway", "checkout", Hardness::Hard),
    ("payments", "ledger", Hardness::Hard),
];

/// The steps of the story.
pub(crate) const STORY: &str = "ratelimit gateway->checkout 60% 120s ; restart payments@0 ; restore";

pub(crate) fn tally(trials: u64) -> Tally {
    let windows = if trials > 4_096 { vec![Window { index: 3, trials: 12_288, surprises: 0 }] } else { Vec::new() };
    Tally { trials, windows, singles: 0 }
}

fn service_view(name: &str, replicas: u32) -> ServiceView {
    let coupled = match name {
        "catalog" => vec!["catalog-cache".to_owned()],
        "catalog-cache" => vec!["catalog".to_owned()],
        _ => Vec::new(),
    };
    let caller_count = EDGES.iter().filter(|(_, callee, _)| *callee == name).count();
    let callee_count = EDGES.iter().filter(|(caller, _, _)| *caller == name).count();
    ServiceView {
        kind: NodeKind::Service,
        rate_mrps: 100_000,
        root_rate_mrps: if name == "gateway" { 100_000 } else { 0 },
        mean_us: 4_000,
        error_ppm: 0,
        fan_in: u32::try_from(caller_count).unwrap(),
        fan_out: u32::try_from(callee_count).unwrap(),
        cut_ppm: 1_000_000,
        inward: tally(20_000),
        outward: tally(20_000),
        generation: Some("1".into()),
        instances: (0..replicas).map(|number| format!("{name}@{number}")).collect(),
        coupled,
        start_needs: Vec::new(),
        objective_p99: None,
        objective_error_ppm: None,
        replicas: Some(replicas),
        min_available: None,
        quorum_of: None,
        declared: true,
        suspected: false,
        seconds: Seconds::default(),
        roots: Seconds::default(),
        coverage: (100_000, 0),
        operations: (1, 1),
        changed: 1,
        zones: Vec::new(),
    }
}

fn edge_view(caller: &str, callee: &str, hardness: Hardness) -> EdgeView {
    EdgeView {
        caller: caller.into(),
        callee: callee.into(),
        kind: EdgeKind::Sync,
        hardness,
        rate_mrps: 100_000,
        calls: 20_000,
        executions: 20_000,
        retries_permille: 0,
        mean_us: 4_000,
        first_seen: Some(NOW.minus(Millis(500_000))),
        last_seen: Some(NOW),
        declared: true,
        callee_ok: (20_000, 0),
        callee_error: (0, 0),
        inside: 20_000,
        seconds: Seconds::default(),
        changed: 1,
        fallback: None,
        missed: false,
    }
}

pub(crate) fn slice() -> Slice {
    let edges = EDGES.iter().map(|(caller, callee, hardness)| edge_view(caller, callee, *hardness)).collect();
    let mut edges: Vec<EdgeView> = edges;
    edges.sort_by(|a, b| (&a.caller, &a.callee).cmp(&(&b.caller, &b.callee)));
    Slice::from(Picture {
        taken_at: NOW,
        newest: Some(NOW),
        joined_since: Some(NOW.minus(Millis(500_000))),
        epoch: 1,
        config: Config::default(),
        services: SERVICES.iter().map(|(name, count)| ((*name).to_owned(), service_view(name, *count))).collect(),
        edges,
        roots: BTreeMap::from([("gateway/buy".to_owned(), RootView { traces: 10, visits: BTreeMap::new() })]),
        seeds: vec!["checkout".into(), "payments".into()],
    })
}

fn facts(name: &str, replicas: u32) -> ServiceFacts {
    let instance = |replica: u32| {
        let ready = !(name == "payments" && replica == 0);
        InstanceFacts {
            replica,
            ready,
            ready_since: ready.then(|| NOW.minus(Millis(100_000))),
            generation: 1,
            zone: Some(format!("z{}", replica + 1)),
            in_flight: 2,
        }
    };
    ServiceFacts {
        observed_at: NOW,
        replicas_min: 1,
        replicas_max: 4,
        instances: (0..replicas).map(instance).collect(),
        baseline_mrps: Some(100_000),
        load_mrps: Some(100_000),
        capacity_mrps: Some(130_000),
        startup: Some(Millis(1_000)),
        ..ServiceFacts::default()
    }
}

fn settings() -> Observation {
    let mut out = Observation { at: NOW, ..Observation::default() };
    let mut set = |field: String, value: i64| {
        out.versions.insert(field.clone(), 1);
        out.state.insert(field, value);
    };
    for (name, count) in SERVICES {
        set(call::service_limit(name), -1);
        set(call::replicas(name), i64::from(*count));
        for replica in 0..*count {
            set(call::weight(name, replica), 100);
            set(call::generation(name, replica), 1);
        }
    }
    for (caller, callee, _) in EDGES {
        let edge = EdgeName { caller: (*caller).into(), callee: (*callee).into() };
        set(call::edge_limit(&edge), -1);
        set(call::breaker(&edge), 0);
    }
    set(call::config("flag", "main", "fast"), 3);
    out
}

fn policy() -> KernelPolicy {
    let windows = Windows {
        grace: Millis(1_000),
        drain_timeout: Millis(2_000),
        jitter: Millis(100),
        ready_for: Millis(1_000),
        open_for: Millis(1_000),
        limited_for: Millis(500),
        ramp_step: Millis(1_000),
        guard_grace: Millis(500),
        guard_window: Millis(2_000),
        step_deadline_min: Millis(3_000),
        fact_age_max: Millis(1_000),
        ..Windows::default()
    };
    let bounds = Mutable { min: 10, max: 90, step: 5, safer_down: true };
    KernelPolicy {
        type_max: TypeBound { level: EffectLevel::Group, class: RollbackClass::Restartable, expiry: Expiry::None },
        cooldown: Millis(5_000),
        services_max: 16,
        loss_max: 1_000,
        removed_max: Ratio::parse("50%").unwrap(),
        actions_per_hour: 600,
        drain_inflight: 100,
        mutable: BTreeMap::from([("RateLimit.rate".to_owned(), bounds)]),
        windows,
        ..KernelPolicy::with_digest(Digest::of(b"policy"))
    }
}

fn capabilities() -> Vec<Capability> {
    let places = [TargetKind::Instances, TargetKind::Service, TargetKind::Zone, TargetKind::Edge, TargetKind::Object];
    let all = ActionKind::ALL.iter().flat_map(|action| places.iter().map(|target| (*action, *target)));
    all.map(|(action, target)| Capability { action, target }).collect()
}

fn object() -> ObjectFacts {
    let revision = |number: u64, healthy_ms: u64| RevisionFacts {
        number,
        name: format!("r{number}"),
        healthy_for: Millis(healthy_ms),
        ..RevisionFacts::default()
    };
    ObjectFacts {
        observed_at: NOW,
        current: 3,
        revisions: vec![revision(1, 900_000), revision(2, 900_000), revision(3, 1_000)],
        readers: vec!["payments".into()],
        controller: None,
    }
}

/// The world of the story.
pub(crate) fn world() -> World {
    let edge = |(caller, callee, _): &(&str, &str, Hardness)| {
        let facts = EdgeFacts { observed_at: NOW, baseline_mrps: Some(100_000), fallback: None };
        (format!("{caller}->{callee}"), facts)
    };
    World {
        now: NOW,
        slice: slice(),
        targets: vec!["checkout".into(), "payments".into()],
        fault: FaultFacts {
            impaired: vec!["checkout".into(), "payments".into()],
            weights: SERVICES.iter().map(|(name, _)| ((*name).to_owned(), 1)).collect(),
        },
        services: SERVICES.iter().map(|(name, count)| ((*name).to_owned(), facts(name, *count))).collect(),
        edges: EDGES.iter().map(edge).collect(),
        objects: BTreeMap::from([("flag/main/fast".to_owned(), object())]),
        settings: settings(),
        signals: BTreeMap::new(),
        policy: policy(),
        intent: IntentFacts {
            incident: INCIDENT.into(),
            signed: true,
            expires_at: NOW.plus(Millis(600_000)),
            class: CLASS.into(),
            tier: "silver".into(),
            policy: Digest::of(b"policy"),
            budget_left: Millis(110_000),
            trust_zones: vec!["core".into()],
        },
        proposer: ProposerFacts { role: true, proposals_left: 5, separate: true },
        holds: Vec::new(),
        leases: Vec::new(),
        running: Vec::new(),
        capabilities: capabilities(),
        vetoes: Vec::new(),
        unreconciled: Vec::new(),
        actions_used: 0,
        previous: None,
        mutations_used: 0,
        binding: None,
        authority: None,
        own_versions: BTreeMap::new(),
    }
}

/// The world with every instance ready.
pub(crate) fn healthy() -> World {
    let mut world = world();
    for facts in world.services.values_mut() {
        for instance in &mut facts.instances {
            instance.ready = true;
            instance.ready_since = Some(NOW.minus(Millis(100_000)));
        }
    }
    world
}

/// A first revision with these steps, for the slice of the fixture.
pub(crate) fn plan(steps: &str) -> Plan {
    plan_of(crate::text::parse(steps).unwrap())
}

pub(crate) fn plan_of(steps: Vec<Step>) -> Plan {
    Plan {
        incident: INCIDENT.into(),
        revision: 1,
        parent: None,
        cause: Cause::First,
        changes: Vec::new(),
        class: CLASS.into(),
        topology: slice().digest(),
        deadline_ms: NOW.plus(Millis(110_000)),
        footprint: Vec::new(),
        steps,
    }
}
