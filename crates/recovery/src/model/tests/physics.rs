//! Where a closed form exists, the simulation agrees with it.

use super::super::compile::Compiled;
use super::super::engine::{Mode, Run};
use super::*;

fn alone(service: ServiceFit, per_second: u32) -> Input {
    let root =
        RootFit { service: service.name.clone(), per_second: vec![per_second; 10], timeout_us: None, periodic: false };
    let fit = Fit { services: vec![service], edges: Vec::new(), roots: vec![root] };
    input(fit, Vec::new())
}

fn input(fit: Fit, impairments: Vec<Impairment>) -> Input {
    Input {
        fit,
        plan: Digest::default(),
        steps: Vec::new(),
        impairments,
        impaired: Vec::new(),
        settings: State::new(),
        since_onset_ms: 5_000,
        config: Config { runs: 10, impaired_for_ms: 2_000, ..Config::default() },
        bounds: Bounds::default(),
    }
}

/// Mean time in the system over several long healthy runs, microseconds.
fn mean_us(input: &Input) -> u64 {
    let compiled = Compiled::new(input);
    assert_eq!(compiled.thinning, 1);
    let runs = (0..20).flat_map(|run| Run::new(&compiled, run, Mode::Healthy(200_000_000)).finish().latencies);
    let (sum, count) = runs.fold((0, 0), |(sum, count), latency| (sum + u64::from(latency), count + 1_u64));
    sum / count
}

fn near(measured: u64, expected: u64, percent: u64) {
    let apart = measured.abs_diff(expected) * 100;
    assert!(apart <= expected * percent, "{measured} instead of {expected}");
}

/// A queue whose service is never calm: the impaired replica is a second one that takes no traffic.
fn queue(times_us: Vec<u32>, workers: u32) -> ServiceFit {
    ServiceFit { queue_max: None, times_us, ..service("queue", 1, workers, (0, 0)) }
}

#[test]
fn a_single_server_with_exponential_times_waits_as_the_formula_says() {
    // 40 requests/s of 15 ms: 60% busy; time in the system 1 / (μ − λ) = 37.5 ms.
    let quantiles = (0..400_u32).map(|i| -f64::ln(1.0 - (f64::from(i) + 0.5) / 400.0) * 15_000.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small positive numbers")]
    let times = quantiles.map(|time| time as u32).collect();
    near(mean_us(&alone(queue(times, 1), 40)), 37_500, 12);
}

#[test]
fn a_single_server_with_fixed_times_waits_as_the_formula_says() {
    // 35 requests/s of 20 ms: 70% busy; wait ρS / 2(1 − ρ) = 23.3 ms, so 43.3 ms in the system.
    near(mean_us(&alone(queue(vec![20_000], 1), 35)), 43_333, 5);
}

#[test]
fn several_servers_wait_less_than_one_and_more_than_none() {
    // 8 servers of 100 ms at 70 requests/s: 87.5% busy. M/M/8 waits 59.5 ms on average, M/D/8 about half.
    let time = mean_us(&alone(queue(vec![100_000], 8), 70));
    assert!((120_000..145_000).contains(&time), "{time}");
}

fn pair(per_second: u32) -> Fit {
    Fit {
        services: vec![service("back", 2, 8, (85_000, 115_000)), service("front", 1, 128, (1_000, 2_000))],
        edges: vec![edge("front", "back", 400, 3)],
        roots: vec![RootFit {
            service: "front".into(),
            per_second: vec![per_second; 10],
            timeout_us: Some(4_000_000),
            periodic: false,
        }],
    }
}

#[test]
fn a_storm_outlives_its_trigger_exactly_where_retries_exceed_capacity() {
    let hung = || vec![Impairment { service: "back".into(), replica: 0, health: Health::Hung, caused_by: None }];
    // 140 · 3 > 160: vulnerable, and once in the storm it stays there.
    let storm = preview(&input(pair(140), hung()));
    assert_eq!((storm.vulnerable.as_slice(), storm.never), (["back".to_owned()].as_slice(), true));
    assert_eq!((storm.unconverged, storm.convergence_p95_ms), (10, None));
    // 20 · 3 < 80: one replica carries every retry, and when the other is back all is well.
    let calm = preview(&input(pair(20), hung()));
    assert_eq!((calm.vulnerable.len(), calm.never), (0, false));
}

#[test]
fn shed_answers_are_not_retried() {
    let mut limited = input(pair(50), Vec::new());
    let name = EdgeName { caller: "front".into(), callee: "back".into() };
    limited.settings = [(crate::call::edge_limit(&name), 10_000)].into();
    let report = preview(&limited);
    assert_eq!(report.impaired_permille, 1_000);
}
