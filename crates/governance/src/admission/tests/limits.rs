//! Each comparison one below, at and one above its limit; limits that move; and the same bytes everywhere.

use super::*;
use std::collections::BTreeSet;

/// A compared number: its limit, the code beyond it, and how to set it. Minimums are mirrored by the setter.
type Compared = (&'static str, u64, &'static str, fn(&mut Inputs, u64));

fn some(value: u64) -> Option<Forecast> {
    Some(Forecast { value, fix: None })
}

fn compared() -> [Compared; 24] {
    [
        ("expiry", 1_000_000, "G104", |x, v| {
            // The later it is, the worse; everything else that is timed stays as far away as it was.
            let now = Timestamp(i64::try_from(v).unwrap());
            x.now = now;
            r(x).taken_at = now;
        }),
        ("fault scope", 1_000_000, "G105", |x, v| x.intent.as_mut().unwrap().fault_ppm = v),
        ("growths", 490, "G105", |x, v| {
            let growth = r(x).growth.as_mut().unwrap();
            (growth.k, growth.upper_ppm) = (v, 1_000_000);
            x.rules.as_mut().unwrap().a_ceiling = share(1_000_000);
        }),
        ("scope of the action", 400_000, "G106", |x, v| x.plan.as_mut().unwrap().action_ppm = v),
        ("escapes", 0, "G108", |x, v| r(x).escapes = Some(v)),
        ("pilot risk", 50_000, "G201", |x, v| h(x).pilot_risk.ppm = Some(v)),
        ("contention", 50_000, "G201", |x, v| r(x).contention_ppm = Some(v)),
        ("claimed risk", 50_000, "G201", |x, v| x.intent.as_mut().unwrap().claims.pilot_risk_ppm = Some(v)),
        ("claimed contention", 50_000, "G201", |x, v| x.intent.as_mut().unwrap().claims.contention_risk_ppm = Some(v)),
        ("runs lacking", 10, "G202", |x, v| r(x).runs = 13 - v),
        ("model runs lacking", 10, "G202", |x, v| {
            x.rules.as_mut().unwrap().fidelity = Fidelity::F0;
            (r(x).fidelity, r(x).runs) = (Some(Fidelity::F0), 460 - v);
        }),
        ("age", 60_000, "G203", |x, v| r(x).taken_at = NOW.minus(Millis(v))),
        ("error", 30_000, "G206", |x, v| r(x).epsilon_observe_ppm = Some(v)),
        ("growth", 25_000, "G207", |x, v| r(x).growth.as_mut().unwrap().upper_ppm = v),
        ("votes lacking", 1, "G208", |x, v| x.observers.as_mut().unwrap().impaired = 3 - v),
        ("disagreement", 340_000, "G208", |x, v| x.observers.as_mut().unwrap().disagreement_ppm = v),
        ("retries", 2_000_000, "G209", |x, v| r(x).retries = some(v)),
        ("backlog", 20_000, "G209", |x, v| r(x).backlog = some(v)),
        ("drain", 30_000, "G209", |x, v| r(x).drain = some(v)),
        ("oscillations", 2, "G209", |x, v| r(x).oscillations = some(v)),
        ("delay", 90_000, "G209", |x, v| r(x).delay = some(v)),
        ("convergence", 30_000, "G209", |x, v| r(x).convergence = some(v)),
        ("historic growth", 25_000, "G210", |x, v| h(x).amplification.ppm = Some(v)),
        ("pairs lacking", 10, "G210", |x, v| h(x).pairs = 40 - v),
    ]
}

#[test]
fn below_and_at_a_limit_pass_and_one_above_fires() {
    for (name, limit, code, set) in compared() {
        for value in limit.saturating_sub(1)..=limit + 1 {
            let mut inputs = good();
            set(&mut inputs, value);
            let decision = decide(&inputs);
            let binding = decision.binding.as_ref().map(|reason| reason.code.word());
            // A larger fault permits a larger action, so only the impossible share fires there.
            assert_eq!(binding, (value > limit).then_some(code), "{name} {value}");
        }
    }
    // What is left for the commit is the rest of the budget, less what a person may take.
    for (allowance, elapsed, code) in [(0, 30_000, None), (0, 30_001, Some("G302")), (1, 30_000, Some("G302"))] {
        let mut inputs = good();
        inputs.rules.as_mut().unwrap().approval_allowance = Millis(allowance);
        inputs.time.as_mut().unwrap().elapsed = Millis(elapsed);
        assert_eq!(decide(&inputs).binding.map(|reason| reason.code.word()), code);
    }
}

#[test]
fn the_largest_numbers_are_over_every_limit_and_overflow_nothing() {
    for (name, _, code, set) in compared() {
        if name.ends_with("lacking") || ["expiry", "age", "growths"].contains(&name) {
            continue;
        }
        let mut inputs = good();
        set(&mut inputs, u64::MAX);
        let codes: Vec<&str> = decide(&inputs).reasons.iter().map(|reason| reason.code.word()).collect();
        assert!(codes.contains(&code), "{name}: {codes:?}");
    }
    let mut inputs = good();
    inputs.rules.as_mut().unwrap().scope_ratio_max = u64::MAX;
    inputs.time = Some(TimeFacts { detect: Millis(u64::MAX), preview: Millis(u64::MAX), elapsed: Millis(u64::MAX) });
    r(&mut inputs).epsilon_observe_ppm = Some(u64::MAX);
    r(&mut inputs).taken_at = Timestamp(i64::MIN);
    inputs.intent.as_mut().unwrap().expires_at = Timestamp(i64::MIN);
    assert_eq!(decide(&inputs).outcome, Outcome::Abort);
}

/// A rule made one notch stricter.
fn stricter() -> [fn(&mut Rules); 19] {
    [
        |rules| rules.max_risk = share(u64::from(rules.max_risk.ppm()) / 2),
        |rules| rules.epsilon_max = share(u64::from(rules.epsilon_max.ppm()) / 2),
        |rules| rules.a_ceiling = share(u64::from(rules.a_ceiling.ppm()) / 2),
        |rules| rules.disagreement_max = share(u64::from(rules.disagreement_max.ppm()) / 2),
        |rules| rules.scope_ratio_max /= 2,
        |rules| rules.t_budget = Millis(rules.t_budget.0 / 2),
        |rules| rules.max_delay = Millis(rules.max_delay.0 / 2),
        |rules| rules.preview_ttl = Millis(rules.preview_ttl.0 / 2),
        |rules| rules.converge_deadline = Millis(rules.converge_deadline.0 / 2),
        |rules| rules.retry_amplification_max_ppm /= 2,
        |rules| rules.drain_max = Millis(rules.drain_max.0 / 2),
        |rules| rules.backlog_max /= 2,
        |rules| rules.oscillations_max /= 2,
        |rules| rules.approval_allowance = Millis(rules.approval_allowance.0 + 40_000),
        |rules| rules.votes_min += 1,
        |rules| rules.pairs_min *= 2,
        |rules| (rules.runs, rules.model_runs) = (rules.runs * 2, rules.model_runs * 2),
        |rules| rules.fidelity = Fidelity::F3,
        |rules| rules.actions.truncate(1),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Numbers anywhere around their limits: a larger one never lowers the outcome, nor does a stricter rule.
    #[test]
    fn worse_numbers_and_stricter_rules_never_lower_the_outcome(
        halves in proptest::collection::vec(0_u64..5, 24), at in 0_usize..24, rule in 0_usize..19, allow: bool, fixable: bool,
    ) {
        let build = |worse: Option<usize>| {
            let mut inputs = good();
            inputs.rules.as_mut().unwrap().uncalibrated = if allow { Uncalibrated::Allow } else { Uncalibrated::Refuse };
            for (number, ((name, limit, _, set), half)) in compared().iter().zip(&halves).enumerate() {
                // Setters that move several things at once would undo one another.
                if !["expiry", "growths", "model runs lacking"].contains(name) {
                    let value = limit * half / 2 + u64::from(worse == Some(number));
                    set(&mut inputs, if name.ends_with("lacking") { value.min(limit + 1) } else { value });
                }
            }
            if fixable {
                let report = r(&mut inputs);
                for forecast in [&mut report.retries, &mut report.backlog, &mut report.delay] {
                    forecast.as_mut().unwrap().fix = fix();
                }
            }
            inputs
        };
        let before = build(None);
        let base = decide(&before).outcome;
        // A delay beyond every fix stays one when it grows: the same fix is offered for it.
        // More of the fault in scope permits more action: that one number is no badness.
        if compared()[at].0 != "fault scope" {
            prop_assert!(decide(&build(Some(at))).outcome >= base, "{}", compared()[at].0);
        }
        let mut strict = before;
        stricter()[rule](strict.rules.as_mut().unwrap());
        prop_assert!(decide(&strict).outcome >= base, "rule {rule}");
    }
}

/// Every single state of the table, decided: their bytes.
fn decided() -> Vec<u8> {
    let mut bytes = Vec::new();
    for state in aspects::aspects().iter().flatten() {
        let mut inputs = good();
        (state.set)(&mut inputs);
        bytes.extend(base::canon::object("decision", &decide(&inputs).to_value()));
    }
    bytes
}

/// The digest stands here so that every process, machine and later version has to agree: when it changes, decisions on
/// record are no longer made again from their inputs, and `SEMANTICS` has to rise.
#[test]
fn decisions_are_the_same_bytes_in_every_thread_process_and_version() {
    let here = decided();
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(decided)).collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap() == here));
    assert_eq!(Digest::of(&here).short(), "cff79cc3");
}

/// Nobody decides by the order in which things were gathered.
#[test]
fn the_order_of_what_was_gathered_changes_no_outcome() {
    let (mut first, mut second) = (good(), good());
    let range = |max| MutableRange { unit: ParamUnit::Percent, min: 10, max, step: 5, safer_up: false };
    let names = ["Restart.wave", "RateLimit.rate", "Drain.timeout"];
    let ranges = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), range(90))).collect();
    first.rules.as_mut().unwrap().mutable = ranges(&names);
    let backward: Vec<&str> = names.into_iter().rev().collect();
    second.rules.as_mut().unwrap().mutable = ranges(&backward);
    assert_eq!(first.to_bytes(), second.to_bytes());

    let extra = ReportFacts { digest: digest("second"), runs: 1, is_pilot_shy: true, ..report() };
    let late =
        ReportFacts { digest: digest("third"), retries: Some(Forecast { value: NEVER, fix: fix() }), ..report() };
    first.reports.extend([extra.clone(), late.clone()]);
    second.reports.splice(0..0, [late, extra]);
    second.plan.as_mut().unwrap().actions.reverse();
    second.rules.as_mut().unwrap().actions.reverse();
    let summary = |inputs: &Inputs| {
        let decision = decide(inputs);
        let reasons: BTreeSet<String> = decision.reasons.iter().map(Reason::sentence).collect();
        (decision.outcome, decision.binding.map(|reason| reason.code), decision.numbers, decision.mutation, reasons)
    };
    assert_eq!(summary(&first), summary(&second));
}
