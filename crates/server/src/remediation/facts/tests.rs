use super::*;
use crate::fixture::{Fixture, START};
use actuators::control::{Counts, Instance, ProxyState, Second, Series, Status};
use base::canon::Canon as _;

const CLASS: &str = "restart-orchestration";

fn instance(replica: u32, generation: u64, ready: bool) -> Instance {
    Instance {
        service: "payments".into(),
        replica,
        generation,
        ready,
        started_at_ms: START.0 - 60_000,
        ready_since_ms: START.0 - 58_500,
        zone: Some(format!("z{replica}")),
        ..Instance::default()
    }
}

/// One of two replicas is not ready; 40 calls a second arrive, 90 did before.
fn reading() -> Reading {
    let status = Status {
        instances: vec![instance(0, 1, false), instance(1, 3, true)],
        replicas: BTreeMap::from([("payments".into(), 2)]),
        versions: BTreeMap::from([("replicas/payments".into(), 4)]),
        ..Status::default()
    };
    let last = START.0 - START.0 % 1_000;
    let second =
        |back: i64, calls| Second { at_ms: last - back * 1_000, counts: Counts { calls, ..Counts::default() } };
    let seconds = vec![second(20, 90), second(19, 90), second(2, 30), second(1, 50), second(0, 900)];
    let mut proxy = ProxyState::default();
    proxy.settings.insert("limit/checkout->payments".into(), -1);
    proxy.versions.insert("limit/checkout->payments".into(), 2);
    proxy.counters.edges.insert("checkout->payments".into(), Series { seconds, ..Series::default() });
    let total = Counts { in_flight: 3, ..Counts::default() };
    proxy.counters.targets.insert("payments@1".into(), Series { total, ..Series::default() });
    Reading { at: START, status: Some(status), proxy: Some(proxy), ..Reading::default() }
}

fn held(scope: &str, version: u64) -> Hold {
    let promise = protocol::Promise {
        id: crate::engine::hold_id(scope, version),
        state: protocol::PromiseState::Pending,
        param: protocol::Value::default(),
        value: protocol::Value::default(),
        tags: protocol::Tags::default(),
        timeout_at: START,
        created_at: START,
        settled_at: None,
    };
    Hold { scope: scope.to_owned(), version, undo: false, promise: promise.into() }
}

fn question(fixture: &Fixture) -> Question {
    Question {
        slice: fixture.app.telemetry.snapshot().slice(&["payments"]),
        impaired: vec!["payments".into(), "checkout".into()],
        suspects: vec!["payments".into()],
        target: "checkout".into(),
        onset: Timestamp(START.0 - START.0 % 1_000 - 18_000),
        intent: IntentFacts {
            incident: "i1".into(),
            signed: true,
            expires_at: START.plus(Millis(60_000)),
            class: CLASS.into(),
            tier: "bronze".into(),
            policy: Digest::default(),
            budget_left: Millis(60_000),
            trust_zones: Vec::new(),
        },
        proposals_left: 3,
        holds: vec![hold(&held("all", 1)), hold(&held("cart", 2))],
        vetoes: Vec::new(),
        previous: None,
        mutations: 0,
        capabilities: Vec::new(),
        configs: Configs::default(),
    }
}

/// The policy of the fixture, with a baseline of the two seconds before the onset.
fn effective(fixture: &Fixture) -> Effective {
    let mut effective = fixture.app.policy.effective("bronze", CLASS).unwrap();
    effective.tier.windows.baseline = Millis(2_000);
    effective
}

fn world_of(fixture: &Fixture, reading: &Reading) -> World {
    world(&question(fixture), reading, &fixture.app.topology, &effective(fixture))
}

#[tokio::test]
async fn facts_are_what_was_read_with_the_time_of_the_reading() {
    let fixture = Fixture::new();
    let world = world_of(&fixture, &reading());
    assert_eq!(world.targets, ["checkout", "payments"], "once each, in order");
    let payments = &world.services["payments"];
    assert_eq!((payments.observed_at, payments.replicas_min, payments.replicas_max), (START, 1, 4));
    assert_eq!((payments.baseline_mrps, payments.load_mrps), (Some(90_000), Some(40_000)));
    assert_eq!((payments.capacity_mrps, payments.critical), (Some(80_000), true));
    assert_eq!(payments.startup, Some(Millis(1_500)), "from start to ready");
    assert_eq!(payments.last_restart_at, Some(Timestamp(START.0 - 60_000)), "a plan started generation 3");
    let instances: Vec<_> = payments
        .instances
        .iter()
        .map(|instance| (instance.replica, instance.ready, instance.ready_since, instance.in_flight))
        .collect();
    assert_eq!(instances, [(0, false, None, 0), (1, true, Some(Timestamp(START.0 - 58_500)), 3)]);
    let edge = &world.edges["checkout->payments"];
    assert_eq!((edge.observed_at, edge.baseline_mrps), (START, Some(90_000)));
    let expected = [
        ("generation/payments@0", 1),
        ("generation/payments@1", 3),
        ("limit/checkout->payments", -1),
        ("replicas/payments", 2),
    ];
    assert_eq!(world.settings.state, expected.map(|(field, value)| (field.to_owned(), value)).into());
    assert_eq!(world.settings.versions.len(), 2);
    let holds: Vec<_> = world.holds.iter().map(|hold| (hold.scope.clone(), hold.version)).collect();
    assert_eq!(holds, [(Vec::new(), 1), (vec!["cart".to_owned()], 2)], "a hold of everything names no scope");
}

#[tokio::test]
async fn without_the_supervisors_word_no_service_has_facts() {
    let fixture = Fixture::new();
    let world = world_of(&fixture, &Reading { status: None, ..reading() });
    assert!(world.services.is_empty());
    assert!(!world.settings.state.keys().any(|field| field.starts_with("generation/")));
    assert!(world.edges.contains_key("checkout->payments"), "the proxy was heard");
}

#[tokio::test]
async fn without_the_proxys_word_no_edge_has_facts_and_no_load_is_known() {
    let fixture = Fixture::new();
    let world = world_of(&fixture, &Reading { proxy: None, ..reading() });
    assert!(world.edges.is_empty());
    let payments = &world.services["payments"];
    assert_eq!((payments.load_mrps, payments.baseline_mrps), (None, None));
    assert!(!world.settings.state.keys().any(|field| field.starts_with("limit/")));
}

#[tokio::test]
async fn what_is_not_declared_has_no_facts() {
    let fixture = Fixture::new();
    let world = world(&question(&fixture), &reading(), &Topology::default(), &effective(&fixture));
    assert!(world.services.is_empty());
}

#[tokio::test]
async fn a_second_reading_renews_the_times_of_what_it_heard_and_of_nothing_else() {
    let fixture = Fixture::new();
    let first = world_of(&fixture, &reading());
    let later = START.plus(Millis(5_000));
    let heard = refreshed(&first, &Reading { at: later, ..reading() });
    assert_eq!((heard.now, heard.settings.at), (later, later));
    assert_eq!(heard.services["payments"].observed_at, later);
    assert_eq!(heard.edges["checkout->payments"].observed_at, later);
    let silent = refreshed(&first, &Reading { at: later, ..Reading::default() });
    assert_eq!(silent.services["payments"].observed_at, START, "the fact grows old, and the kernel refuses it");
    assert!(silent.services["payments"].instances.is_empty());
    assert_eq!(silent.edges["checkout->payments"].observed_at, START);
    assert!(silent.settings.state.is_empty());
    assert_eq!(first.slice.to_value(), silent.slice.to_value(), "the pinned slice stays");
}

#[tokio::test]
async fn the_kernel_gets_the_policys_numbers() {
    let fixture = Fixture::new();
    let mut effective = effective(&fixture);
    effective.tier.kernel.services = u64::MAX;
    let rules = kernel_policy(&effective);
    let windows = &effective.tier.windows;
    assert_eq!(rules.type_max.to_string(), effective.tier.kernel.type_max.to_string());
    assert_eq!(
        (rules.headroom_ppm, rules.rate_floor),
        (effective.tier.kernel.headroom_ppm, effective.tier.kernel.rate_floor)
    );
    assert_eq!(rules.services_max, u32::MAX, "a number too large is not wrapped around");
    assert_eq!(rules.actions, effective.class.actions);
    assert_eq!((rules.windows.grace, rules.windows.ready_for), (windows.action.grace, windows.ready_for));
    assert_eq!(rules.windows.fact_age_max, windows.fact_age_max);
    let names: Vec<_> = rules.mutable.keys().collect();
    assert_eq!(names, effective.class.mutable.keys().collect::<Vec<_>>());
    for (name, range) in &effective.class.mutable {
        assert_eq!(rules.mutable[name].safer_down, !range.safer_up, "{name}");
    }
}

#[tokio::test]
async fn an_instance_that_answers_nothing_but_errors_is_out_whatever_its_probe_says() {
    let fixture = Fixture::new();
    let mut failing = reading();
    let last = START.0 - START.0 % 1_000;
    let counts = Counts { calls: 40, failed: 40, ..Counts::default() };
    let seconds = [2_000, 1_000].map(|back| Second { at_ms: last - back, counts }).to_vec();
    let proxy = failing.proxy.as_mut().unwrap();
    proxy.counters.targets.insert("payments@1".into(), Series { seconds, ..Series::default() });
    let ready = |reading: &Reading| world_of(&fixture, reading).services["payments"].instance(1).unwrap().ready;
    assert!(ready(&reading()));
    assert!(!ready(&failing));
}

#[tokio::test]
async fn configuration_is_told_with_its_readers_and_read_again_before_a_step() {
    let mut fixture = Fixture::new();
    let mut topology = (*fixture.app.topology).clone();
    let object = "config/shop/payments";
    topology.service.get_mut("payments").unwrap().config = vec![object.to_owned()];
    fixture.app.topology = std::sync::Arc::new(topology);
    let lying = |current, version| {
        let revisions = vec![1, 2];
        let stored = actuators::process::config::Object { current, version, changed_at_ms: START.0 - 900, revisions };
        Reading { objects: [(object.to_owned(), stored)].into(), ..reading() }
    };
    let first = world_of(&fixture, &lying(2, 5));
    let facts = &first.objects[object];
    assert_eq!(
        (facts.current, facts.readers.as_slice(), facts.observed_at),
        (2, ["payments".to_owned()].as_slice(), START)
    );
    let named: Vec<(u64, &str, Millis)> = facts
        .revisions
        .iter()
        .map(|revision| (revision.number, revision.name.as_str(), revision.healthy_for))
        .collect();
    assert_eq!(named, [(1, "rev-1", Millis(0)), (2, "rev-2", Millis(0))], "nobody saw them serve well");
    let field = "config/config/shop/payments";
    assert_eq!((first.settings.state[field], first.settings.versions[field]), (2, 5));
    let later = START.plus(Millis(700));
    let again = refreshed(&first, &Reading { at: later, ..lying(1, 6) });
    assert_eq!((again.objects[object].current, again.objects[object].observed_at), (1, later));
    assert_eq!((again.settings.state[field], again.settings.versions[field]), (1, 6));
    let gone = refreshed(&first, &Reading { at: later, ..reading() });
    assert_eq!(gone.objects[object].observed_at, START, "what was not read again grows stale");
}
