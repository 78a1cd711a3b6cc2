use super::*;
use crate::isa::{Action, EdgeName, Limited, Place, Rate, RestartStrategy, Restored};
use base::canon::Canon;

mod physics;
mod spans;

/// A service with times spread evenly over a range of microseconds.
pub(super) fn service(name: &str, replicas: u32, workers: u32, times_us: (u32, u32)) -> ServiceFit {
    let (low, high) = times_us;
    ServiceFit {
        name: name.into(),
        replicas,
        workers,
        workers_from: Source::Declared,
        queue_max: Some(64),
        times_us: (0..64).map(|i| low + (high - low) * i / 63).collect(),
        start_up_us: vec![400_000, 600_000, 800_000],
        start_up_from: Source::Measured,
        p99_us: None,
        errors_ppm: None,
        min_available: Some(1),
        quorum_of: None,
        capacity_mrps: None,
    }
}

pub(super) fn edge(caller: &str, callee: &str, timeout_ms: u64, attempts: u32) -> EdgeFit {
    EdgeFit {
        caller: caller.into(),
        callee: callee.into(),
        calls_permille: 1_000,
        timeout_us: Some(timeout_ms * 1_000),
        attempts,
        base_us: 50_000,
        cap_us: 200_000,
        budget_ppm: None,
        asynchronous: false,
        soft: false,
        policy_from: Source::Declared,
    }
}

/// Ten services: a pool of 8 workers of 100 ms in each of two replicas of payments, and 110 requests/s.
fn system() -> Fit {
    let objective = |mut service: ServiceFit, p99_ms: u64| {
        service.p99_us = Some(p99_ms * 1_000);
        service.errors_ppm = Some(10_000);
        service
    };
    let mut fulfillment = edge("orders", "fulfillment", 1_000, 1);
    fulfillment.asynchronous = true;
    Fit {
        services: vec![
            objective(service("cart", 2, 32, (2_000, 6_000)), 500),
            objective(service("catalog", 1, 32, (2_000, 6_000)), 500),
            service("catalog-cache", 1, 32, (1_000, 2_000)),
            objective(service("checkout", 2, 128, (2_000, 4_000)), 800),
            service("fulfillment", 1, 8, (10_000, 20_000)),
            service("gateway", 1, 256, (1_000, 2_000)),
            objective(service("inventory", 2, 32, (2_000, 6_000)), 500),
            service("ledger", 1, 16, (1_000, 4_000)),
            service("orders", 1, 32, (1_000, 3_000)),
            objective(service("payments", 2, 8, (85_000, 115_000)), 300),
        ],
        edges: vec![
            edge("catalog", "catalog-cache", 500, 1),
            edge("checkout", "catalog", 500, 2),
            edge("checkout", "cart", 500, 2),
            edge("checkout", "inventory", 500, 2),
            edge("checkout", "payments", 400, 3),
            edge("checkout", "orders", 500, 2),
            edge("gateway", "checkout", 3_000, 1),
            fulfillment,
            edge("payments", "ledger", 500, 1),
        ],
        roots: vec![RootFit {
            service: "gateway".into(),
            per_second: vec![108, 112, 109, 111, 113, 107],
            timeout_us: Some(4_000_000),
            periodic: false,
        }],
    }
}

fn limit(percent: u32) -> Step {
    let edge = EdgeName { caller: "gateway".into(), callee: "checkout".into() };
    Step {
        key: "s1".into(),
        desired: [(crate::call::edge_limit(&edge), i64::from(percent) * 1_100)].into(),
        action: Action::RateLimit {
            what: Limited::Edge(edge),
            rate: Rate::Percent(percent),
            burst: None,
            priority: None,
            ttl_ms: 120_000,
        },
        done_ms: 500,
        guard_ms: 2_500,
        deadline_ms: 10_000,
    }
}

fn restart(key: &str, replicas: &[u32]) -> Step {
    Step {
        key: key.into(),
        desired: replicas.iter().map(|r| (crate::call::generation("payments", *r), 2)).collect(),
        action: Action::Restart {
            place: Place::Instances("payments".into(), replicas.to_vec()),
            strategy: RestartStrategy::Rolling,
            wave: 1,
            surge: 0,
            grace_ms: Some(1_000),
            jitter_ms: Some(100),
        },
        done_ms: 1_000,
        guard_ms: 0,
        deadline_ms: 15_000,
    }
}

fn restore() -> Step {
    let edge = EdgeName { caller: "gateway".into(), callee: "checkout".into() };
    Step {
        key: "s3".into(),
        desired: [(crate::call::edge_limit(&edge), -1)].into(),
        action: Action::RestoreTraffic { of: Restored::AllOpen, ramp: vec![25, 50, 100], ramp_ms: Some(1_000) },
        done_ms: 1_000,
        guard_ms: 2_500,
        deadline_ms: 15_000,
    }
}

fn story(percent: u32, health: Health, runs: u32) -> Input {
    Input {
        fit: system(),
        plan: Digest::of(b"plan"),
        steps: vec![limit(percent), restart("s2", &[0]), restore()],
        impairments: vec![Impairment { service: "payments".into(), replica: 0, health, caused_by: None }],
        impaired: Vec::new(),
        settings: State::new(),
        since_onset_ms: 9_000,
        config: Config { runs, impaired_for_ms: 2_000, ..Config::default() },
        bounds: Bounds { amplification_permille: Some(2_000), convergence_ms: Some(60_000), ..Bounds::default() },
    }
}

/// The values a preview may choose for the story's limit.
fn rate() -> Mutable {
    Mutable { parameter: "RateLimit.rate".into(), min: 10, max: 90, step: 5, safer_down: true }
}

fn breach(report: &Report) -> Option<&Finding> {
    report.breaches().find(|finding| finding.kind == FindingKind::Amplification)
}

#[test]
fn one_hung_replica_of_two_makes_a_storm_that_a_timid_limit_does_not_end() {
    let report = preview(&story(60, Health::Hung, 60));
    assert!(report.healthy_permille < 1_200, "{}", report.healthy_permille);
    assert!(report.impaired_permille > 2_400, "{}", report.impaired_permille);
    let breach = breach(&report).expect("60% leaves the storm alive at the restart");
    assert_eq!((breach.step.as_deref(), breach.subject.as_str()), (Some("s2"), "checkout->payments"));
    assert_eq!((breach.bound, breach.runs.len()), (2_000, FIX_RUNS_MAX.min(breach.count as usize)));
    assert_eq!(report.vulnerable, ["payments"]);
    assert_eq!((report.waves.len(), report.waves[0].taken), (1, 0), "a hung replica is out already");
    assert_eq!((report.grown, report.contended, report.is_quorum_safe()), (0, 0, true));
    assert!(report.not_modeled.iter().all(|sentence| !sentence.contains("safe")));
}

#[test]
fn a_fix_is_the_nearest_lower_limit_and_its_own_preview_passes() {
    let input = story(60, Health::Hung, 60);
    let report = preview(&input);
    let fix = find_fix(&input, breach(&report).expect("a breach"), &[rate()]).expect("a fix");
    assert_eq!((fix.step.as_str(), fix.parameter.as_str(), fix.from), ("s1", "RateLimit.rate", 60));
    assert!((20..=55).contains(&fix.to) && fix.to.is_multiple_of(5), "{fix:?}");
    let mutated = preview(&story(u32::try_from(fix.to).unwrap(), Health::Hung, 60));
    assert!(breach(&mutated).is_none(), "{:?}", mutated.findings);
    assert!(mutated.amplification_permille <= 2_000 && mutated.unconverged == 0, "{mutated:#?}");
    assert!(mutated.convergence_p95_ms.is_some_and(|ms| ms < 30_000), "{:?}", mutated.convergence_p95_ms);
    let risky = Mutable { max: 90, min: 60, ..rate() };
    assert_eq!(find_fix(&input, breach(&report).expect("a breach"), &[risky]), None, "never past its bound");
}

#[test]
fn crashed_and_slow_replicas_storm_too_and_a_low_limit_helps_both() {
    for health in [Health::Down, Health::Slow(600_000)] {
        let high = preview(&story(90, health, 30));
        assert!(high.impaired_permille > 2_400 && breach(&high).is_some(), "{health:?}");
        let low = preview(&story(30, health, 30));
        assert!(breach(&low).is_none() && low.unconverged == 0, "{health:?}: {:?}", low.findings);
        assert!(low.goodput_permille < 1_000, "what is shed is not good");
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let input = story(60, Health::Hung, 10);
    let bytes = |report: Report| base::canon::object("preview", &report.to_value());
    assert_eq!(bytes(preview(&input)), bytes(preview(&input)));
    let other = Input { config: Config { seed: 2, ..input.config }, ..input.clone() };
    assert_ne!(bytes(preview(&input)), bytes(preview(&other)));
}

#[test]
fn a_small_event_budget_thins_requests_and_keeps_the_finding() {
    let mut input = story(90, Health::Hung, 40);
    assert_eq!(input.config.events_max, MODEL_EVENTS_MAX, "the default; a smaller one trips the same code");
    input.config.events_max = 40 * 8_000;
    let report = preview(&input);
    assert!(report.thinning > 1 && report.events < 4 * input.config.events_max, "{}", report.thinning);
    assert!(breach(&report).is_some());
}

#[test]
fn what_the_model_has_no_word_for_is_said() {
    let mut input = story(45, Health::Hung, 2);
    input.steps.push(Step {
        key: "s4".into(),
        action: Action::RollbackConfig {
            kind: "flag".into(),
            namespace: "prod".into(),
            name: "fast-path".into(),
            to: crate::isa::Revision::LastGood,
        },
        desired: [(crate::call::config("flag", "prod", "fast-path"), 3)].into(),
        done_ms: 0,
        guard_ms: 0,
        deadline_ms: 1_000,
    });
    let report = preview(&input);
    let modeled: Vec<bool> = report.steps.iter().map(|step| step.modeled).collect();
    assert_eq!(modeled, [true, true, true, false]);
    assert!(report.not_modeled.iter().any(|sentence| sentence.starts_with("s4: ")), "{:?}", report.not_modeled);
}

#[test]
fn a_plan_that_breaks_what_works_grows_the_scope() {
    let mut input = story(45, Health::Hung, 10);
    input.impairments.clear();
    let weights = [(crate::call::weight("payments", 0), 0), (crate::call::weight("payments", 1), 0)];
    input.steps = vec![Step {
        key: "s1".into(),
        action: Action::Drain {
            place: Place::Service("payments".into()),
            percent: 100,
            mode: crate::isa::DrainMode::All,
            timeout_ms: Some(1_000),
            ttl_ms: 60_000,
        },
        desired: weights.into(),
        done_ms: 0,
        guard_ms: 3_000,
        deadline_ms: 10_000,
    }];
    let report = preview(&input);
    assert_eq!((report.grown, report.grown_first), (10, Some(0)));
    assert_eq!(report.grown_services, ["checkout"]);
    let unconverged = (report.unconverged, report.convergence_p95_ms);
    assert_eq!(unconverged, (10, None), "nobody gives the traffic back");
    assert_eq!(report.waves[0].ready, 0);
}

#[test]
fn the_effect_tree_is_written_in_the_words_of_receipts() {
    let report = preview(&story(45, Health::Hung, 1));
    let expected = [
        path_line("s1", ActionKind::RateLimit, "limit/gateway->checkout", 49_500),
        path_line("s2", ActionKind::Restart, "generation/payments@0", 2),
        path_line("s3", ActionKind::RestoreTraffic, "limit/gateway->checkout", -1),
    ];
    assert_eq!(report.lines, expected);
    assert_eq!(report.lines[0], "action s1 RateLimit limit/gateway->checkout=49500");
}

/// Twelve services that all call each other, thinly: more paths than could ever be walked.
#[test]
fn a_mesh_with_cycles_is_followed_to_its_last_hop_and_no_further() {
    let names: Vec<String> = (0..12).map(|number| format!("s{number:02}")).collect();
    let mut input = story(60, Health::Hung, 2);
    let pairs = names.iter().flat_map(|caller| names.iter().map(move |callee| (caller, callee)));
    let call = |(caller, callee): (&String, &String)| EdgeFit { calls_permille: 20, ..edge(caller, callee, 400, 2) };
    input.fit.edges = pairs.filter(|(caller, callee)| caller != callee).map(call).collect();
    input.fit.services = names.iter().map(|name| service(name, 2, 32, (1_000, 2_000))).collect();
    input.fit.roots[0].service.clone_from(&names[0]);
    input.impairments[0].service.clone_from(&names[1]);
    input.steps.clear();
    let report = preview(&input);
    assert!(report.amplification_permille >= 1_000, "{report:?}");
    // A chain that is longer than the limit: what lies below the last hop gets no requests.
    let chain: Vec<String> = (0..=u32::from(compile::HOPS_MAX) + 3).map(|number| format!("s{number:02}")).collect();
    input.fit.edges = chain.windows(2).map(|pair| edge(&pair[0], &pair[1], 4_000, 1)).collect();
    input.fit.services = chain.iter().map(|name| service(name, 2, 32, (1_000, 2_000))).collect();
    let compiled = compile::Compiled::new(&input);
    let (rates, _) = compiled.flows(&[], false);
    let reached = rates.iter().filter(|rate| **rate > 0).count();
    assert_eq!(reached, usize::from(compile::HOPS_MAX));
}

#[test]
fn a_search_for_a_fix_tries_so_many_values_and_no_more() {
    let input = story(60, Health::Hung, 8);
    let report = preview(&input);
    let found = |step: u64, min: u64| {
        let fine = Mutable { parameter: "RestoreTraffic.ramp_ms".into(), min, max: u64::MAX, step, safer_down: false };
        find_fix(&input, breach(&report).expect("a breach"), &[fine])
    };
    // A longer ramp does not end a storm before it: every value is tried, and none is left to try.
    assert_eq!((found(1, 0), fix::CANDIDATES_MAX), (None, 64));
    assert_eq!(found(u64::MAX, 0), None, "a step beyond the end is no candidate");
}

#[test]
fn measured_times_are_kept_as_so_many_quantiles() {
    let sampled = |count: u64| fit::sample((0..count).rev().collect());
    assert_eq!(sampled(SAMPLES_MAX as u64).len(), SAMPLES_MAX);
    let many = sampled(SAMPLES_MAX as u64 + 1);
    assert_eq!((many.len(), many.is_sorted()), (SAMPLES_MAX, true));
    assert_eq!(sampled(0), [0_u32; 0]);
    assert_eq!(fit::sample(vec![u64::MAX]), [u32::MAX]);
    // A run draws its own times from them, at most so many.
    let mut input = story(60, Health::Hung, 1);
    input.fit.services[9].times_us = (0..1_000).map(|us| 85_000 + us).collect();
    let compiled = compile::Compiled::new(&input);
    assert_eq!(engine::Run::new(&compiled, 0, engine::Mode::Plan).services[9].times.len(), engine::RESAMPLE_MAX);
}

fn rollback() -> Step {
    let (kind, namespace, name) = ("config".to_owned(), "shop".to_owned(), "payments".to_owned());
    Step {
        key: "s1".into(),
        desired: [(crate::call::config(&kind, &namespace, &name), 1)].into(),
        action: Action::RollbackConfig { kind, namespace, name, to: crate::isa::Revision::LastGood },
        done_ms: 0,
        guard_ms: 2_500,
        deadline_ms: 5_000,
    }
}

/// Both replicas answer nothing but errors since a change of what they read.
fn misconfigured(cause: Option<&str>) -> Input {
    let failing = |replica| Impairment {
        service: "payments".into(),
        replica,
        health: Health::Failing(1),
        caused_by: cause.map(str::to_owned),
    };
    let mut input = story(60, Health::Up, 40);
    input.steps = vec![rollback()];
    input.impairments = vec![failing(0), failing(1)];
    input
}

#[test]
fn an_instance_that_answers_errors_fails_its_share_and_a_restart_ends_that() {
    let mut idle = story(60, Health::Failing(1), 40);
    idle.steps.clear();
    let left_alone = preview(&idle);
    assert_eq!((left_alone.unconverged, left_alone.convergence_p95_ms), (40, None), "nothing ends it by itself");
    let restarted = preview(&story(50, Health::Failing(1), 40));
    assert!(restarted.convergence_p95_ms.is_some(), "{restarted:?}");
    assert_eq!((restarted.waves.len(), restarted.waves[0].taken), (1, 0), "it serves nobody, so nothing is taken");
}

#[test]
fn a_rollback_ends_what_its_object_is_taken_for_the_cause_of_and_nothing_else() {
    let cured = preview(&misconfigured(Some("config/shop/payments")));
    assert!(cured.convergence_p95_ms.is_some() && cured.breaches().next().is_none(), "{cured:?}");
    let said = cured.not_modeled.iter().find(|sentence| sentence.starts_with("s1:")).expect("an assumption is said");
    assert_eq!(said, "s1: assumed, not previewed: the rollback ends what is wrong with payments@0, payments@1");
    for other in [None, Some("config/shop/cart")] {
        let report = preview(&misconfigured(other));
        assert_eq!(report.convergence_p95_ms, None, "{other:?}");
    }
}
