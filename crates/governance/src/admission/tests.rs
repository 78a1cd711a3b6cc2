mod aspects;
mod limits;
mod truth;

use super::*;
use crate::Code;
use crate::invariants::{Evaluation, Holding};
use crate::policy::{Fidelity, Level, MutableRange, OnNotEvaluable, ParamUnit, PreviewMode, Uncalibrated};
use crate::record::{Claims, Divergence, PilotResult, Touched};
use base::canon::Canon as _;
use base::{Millis, Ratio, Timestamp};
use proptest::prelude::*;
use recovery::isa::ActionKind;

const NOW: Timestamp = Timestamp(1_000_000);

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn share(ppm: u64) -> Ratio {
    Ratio::clamped(ppm)
}

fn rules() -> Rules {
    Rules {
        policy: digest("policy"),
        class: "restart-orchestration".into(),
        tier: "bronze".into(),
        level: Level::Auto,
        uncalibrated: Uncalibrated::Refuse,
        preview: PreviewMode::Mandatory,
        fidelity: Fidelity::F2,
        model_runs: 450,
        runs: 3,
        max_risk: share(50_000),
        epsilon_max: share(100_000),
        a_ceiling: share(25_000),
        scope_ratio_max: 4,
        t_budget: Millis(120_000),
        max_delay: Millis(90_000),
        preview_ttl: Millis(60_000),
        approval_allowance: Millis(0),
        converge_deadline: Millis(30_000),
        votes_min: 2,
        disagreement_max: share(340_000),
        on_not_evaluable: OnNotEvaluable::Escalate,
        approvals: 1,
        pairs_min: 30,
        actions: vec![ActionKind::Restart, ActionKind::RateLimit, ActionKind::RestoreTraffic],
        is_owned: true,
        retry_amplification_max_ppm: 2_000_000,
        drain_max: Millis(30_000),
        backlog_max: 20_000,
        oscillations_max: 2,
        mutable: [(
            "RateLimit.rate".to_owned(),
            MutableRange { unit: ParamUnit::Percent, min: 10, max: 90, step: 5, safer_up: false },
        )]
        .into(),
    }
}

fn holding(outcome: Holding) -> Evaluation {
    Evaluation { outcome, ..Evaluation::not_evaluable("capacity-floor", "no signal") }
}

fn forecast(value: u64) -> Option<Forecast> {
    Some(Forecast { value, fix: None })
}

fn fix() -> Option<Fix> {
    Some(Fix { parameter: "RateLimit.rate".into(), step: "s1".into(), from: 60, to: 45 })
}

fn report() -> ReportFacts {
    ReportFacts {
        digest: digest("report"),
        is_sound: true,
        plan: digest("plan"),
        intent: digest("intent"),
        result: PilotResult::Completed,
        taken_at: NOW.minus(Millis(60_000)),
        bound: digest("bound"),
        fidelity: Some(Fidelity::F2),
        runs: 500,
        escapes: Some(0),
        divergences: vec![Divergence::ConvergenceDelay],
        is_pilot_shy: false,
        invariants: vec![holding(Holding::Holds)],
        contention_ppm: Some(50_000),
        growth: Some(Growth { k: 4, n: 490, upper_ppm: 25_000, fix: None }),
        epsilon_path: Some(Measure { ppm: Some(40_000), is_short: false, cases: 50 }),
        epsilon_interference_ppm: Some(30_000),
        epsilon_observe_ppm: Some(30_000),
        retries: forecast(2_000_000),
        backlog: forecast(20_000),
        drain: forecast(30_000),
        oscillations: forecast(2),
        delay: Some(Forecast { value: 90_000, fix: fix() }),
        convergence: forecast(30_000),
        touched: Touched::Clone,
    }
}

/// Every number exactly at its limit: equality passes.
fn good() -> Inputs {
    Inputs {
        semantics: SEMANTICS,
        now: NOW,
        rules: Some(rules()),
        hold: Some(HoldFacts { version: 3, scope: None }),
        intent: Some(IntentFacts {
            digest: digest("intent"),
            is_sound: true,
            is_chained: true,
            revision: 1,
            expires_at: NOW,
            fault_ppm: 100_000,
            claims: Claims::default(),
        }),
        plan: Some(PlanFacts {
            digest: digest("plan"),
            actions: vec![ActionKind::RateLimit, ActionKind::Restart],
            action_ppm: 400_000,
            crossings: vec![],
            is_above_auto: false,
            is_vetoed: false,
        }),
        check: Some(CheckFacts { digest: digest("check"), is_sound: true, plan: digest("plan"), has_passed: true }),
        reports: vec![report()],
        bound_now: Some(digest("bound")),
        invariants: vec![LiveInvariant { id: "capacity-floor".into(), live: Some(holding(Holding::Holds)) }],
        quorum_safe: Some(true),
        observers: Some(ObserverFacts { impaired: 2, n: 3, disagreement_ppm: 340_000, is_mixed_unowned: false }),
        time: Some(TimeFacts { detect: Millis(2_100), preview: Millis(6_400), elapsed: Millis(30_000) }),
        history: Some(HistoryFacts {
            pilot_risk: Measure { ppm: Some(50_000), is_short: false, cases: 60 },
            amplification: Measure { ppm: Some(25_000), is_short: false, cases: 119 },
            pairs: 30,
            is_stale: false,
            missing_controls: vec![],
            young_controls: vec![],
            overdue: 0,
        }),
        mutations: Some(3),
        exception: None,
        estimates: vec![],
    }
}

/// A change for the worse, and the check it fires.
type Worse = (Check, fn(&mut Inputs));

/// One way in which inputs can be worse than [`good`], in rising badness, with the check that each fires.
struct Knob {
    name: &'static str,
    worse: Vec<Worse>,
}

fn r(inputs: &mut Inputs) -> &mut ReportFacts {
    &mut inputs.reports[0]
}

fn h(inputs: &mut Inputs) -> &mut HistoryFacts {
    inputs.history.as_mut().unwrap()
}

fn set_growth(inputs: &mut Inputs, fix: Option<Fix>) {
    let growth = r(inputs).growth.as_mut().unwrap();
    (growth.upper_ppm, growth.fix) = (25_001, fix);
}

fn knob(name: &'static str, worse: &[Worse]) -> Knob {
    Knob { name, worse: worse.to_vec() }
}

fn knobs() -> Vec<Knob> {
    [abort_knobs(), preview_knobs(), budget_knobs()].into_iter().flatten().collect()
}

fn abort_knobs() -> Vec<Knob> {
    use Check::*;
    vec![
        knob("hold", &[(A1, |i| i.hold.as_mut().unwrap().scope = Some("payments".into()))]),
        knob("intent unsound", &[(A2, |i| i.intent.as_mut().unwrap().is_sound = false)]),
        knob("check unsound", &[(A2, |i| i.check.as_mut().unwrap().is_sound = false)]),
        knob("report unsound", &[(A2, |i| r(i).is_sound = false)]),
        knob("orphan intent", &[(A3, |i| i.intent.as_mut().unwrap().is_chained = false)]),
        knob("other plan checked", &[(A3, |i| i.check.as_mut().unwrap().plan = digest("other"))]),
        knob("other plan piloted", &[(A3, |i| r(i).plan = digest("other"))]),
        knob("report of another intent", &[(A3, |i| r(i).intent = digest("other"))]),
        knob("expired", &[(A4, |i| i.intent.as_mut().unwrap().expires_at = NOW.minus(Millis(1)))]),
        knob("action", &[(A6, |i| i.plan.as_mut().unwrap().actions.push(ActionKind::Scale))]),
        knob("scope", &[(A6, |i| i.plan.as_mut().unwrap().action_ppm = 400_001)]),
        knob("crossing", &[(A6, |i| i.plan.as_mut().unwrap().crossings.push("card".into()))]),
        knob("veto", &[(A6, |i| i.plan.as_mut().unwrap().is_vetoed = true)]),
        knob("kernel", &[(A7, |i| i.check.as_mut().unwrap().has_passed = false), (A7, |i| i.check = None)]),
        knob(
            "invariant",
            &[
                (E4, |i| i.invariants[0].live = Some(holding(Holding::NotEvaluable))),
                (A8, |i| i.invariants[0].live = Some(holding(Holding::Violated))),
            ],
        ),
        knob("piloted invariant", &[(A8, |i| r(i).invariants = vec![holding(Holding::Violated)])]),
        knob("residue", &[(A8, |i| r(i).escapes = Some(1))]),
        knob("quorum", &[(A9, |i| i.quorum_safe = None), (A9, |i| i.quorum_safe = Some(false))]),
    ]
}

fn preview_knobs() -> Vec<Knob> {
    use Check::*;
    vec![
        knob(
            "pilot risk",
            &[(E1, |i| h(i).pilot_risk.ppm = Some(50_001)), (E1, |i| h(i).pilot_risk.ppm = Some(1_000_000))],
        ),
        knob("contention", &[(E1, |i| r(i).contention_ppm = Some(50_001))]),
        knob("result", &[(E2, |i| r(i).result = PilotResult::Inconclusive), (E2, |i| r(i).result = PilotResult::Void)]),
        knob("runs", &[(E2, |i| r(i).runs = 2), (E2, |i| r(i).runs = 0)]),
        knob("age", &[(E3, |i| r(i).taken_at = NOW.minus(Millis(60_001)))]),
        knob("future", &[(E3, |i| r(i).taken_at = NOW.plus(Millis(1)))]),
        knob("bound", &[(E3, |i| i.bound_now = Some(digest("changed")))]),
        knob("fidelity", &[(E5, |i| r(i).fidelity = Some(Fidelity::F1)), (E5, |i| r(i).fidelity = Some(Fidelity::F0))]),
        knob(
            "epsilon",
            &[(E6, |i| r(i).epsilon_observe_ppm = Some(30_001)), (E6, |i| r(i).epsilon_observe_ppm = None)],
        ),
        knob("path unknown", &[(E6, |i| r(i).epsilon_path = None)]),
        knob(
            "growth",
            &[
                (M4, |i| set_growth(i, fix())),
                (E7, |i| set_growth(i, None)),
                (A5, |i| r(i).growth.as_mut().unwrap().k = 491),
            ],
        ),
        knob("disagreement", &[(E8, |i| i.observers.as_mut().unwrap().disagreement_ppm = 340_001)]),
        knob("mixed mode", &[(E8, |i| i.observers.as_mut().unwrap().is_mixed_unowned = true)]),
        knob(
            "votes",
            &[
                (E8, |i| i.observers.as_mut().unwrap().impaired = 1),
                (E8, |i| i.observers = None),
                (A5, |i| i.observers.as_mut().unwrap().impaired = 4),
            ],
        ),
    ]
}

fn budget_knobs() -> Vec<Knob> {
    use Check::*;
    vec![
        knob(
            "retries",
            &[
                (M1, |i| r(i).retries = Some(Forecast { value: 2_000_001, fix: fix() })),
                (E9, |i| r(i).retries = Some(Forecast { value: 2_000_001, fix: None })),
                (E9, |i| r(i).retries = Some(Forecast { value: NEVER, fix: None })),
            ],
        ),
        knob(
            "backlog",
            &[
                (M1, |i| r(i).backlog = Some(Forecast { value: 20_001, fix: fix() })),
                (E9, |i| r(i).backlog = forecast(20_001)),
            ],
        ),
        knob(
            "drain",
            &[
                (M1, |i| r(i).drain = Some(Forecast { value: 30_001, fix: fix() })),
                (E9, |i| r(i).drain = forecast(NEVER)),
            ],
        ),
        knob("oscillations", &[(E9, |i| r(i).oscillations = forecast(3))]),
        knob(
            "delay",
            &[
                (M2, |i| r(i).delay = Some(Forecast { value: 90_001, fix: fix() })),
                (E9, |i| r(i).delay = forecast(90_001)),
            ],
        ),
        knob(
            "convergence",
            &[
                (M3, |i| r(i).convergence = Some(Forecast { value: 30_001, fix: fix() })),
                (E9, |i| r(i).convergence = forecast(NEVER)),
            ],
        ),
        knob(
            "time",
            &[
                (M2, |i| i.time.as_mut().unwrap().elapsed = Millis(30_001)),
                (E9, |i| i.time.as_mut().unwrap().elapsed = Millis(120_000)),
            ],
        ),
        knob("mutations", &[(M1, |i| i.mutations = Some(MUTATIONS_MAX))]),
        knob("controls", &[(E10, |i| h(i).missing_controls.push("provenance".into()))]),
        knob("young", &[(E10, |i| h(i).young_controls.push("convergence".into()))]),
        knob("historic", &[(E10, |i| h(i).amplification.ppm = Some(25_001)), (E10, |i| h(i).amplification.ppm = None)]),
        knob("pairs", &[(E10, |i| h(i).pairs = 29)]),
        knob("stale", &[(E10, |i| h(i).is_stale = true)]),
        knob("overdue", &[(E10, |i| h(i).overdue = 1)]),
        knob("owner", &[(E10, |i| i.rules.as_mut().unwrap().is_owned = false)]),
        knob("churn", &[(E11, |i| r(i).divergences.push(Divergence::MembershipChurn))]),
        knob("unexplained", &[(E11, |i| r(i).divergences.push(Divergence::Unexplained))]),
        knob("pilot-shy", &[(E11, |i| r(i).is_pilot_shy = true)]),
    ]
}

#[test]
fn everything_at_its_limit_commits() {
    let decision = decide(&good());
    assert_eq!((decision.outcome, &decision.reasons, decision.exit()), (Outcome::Commit, &vec![], 0));
    assert_eq!((decision.authority, decision.approvals_needed), (Authority::Auto, 0));
    assert_eq!((&decision.uncalibrated, &decision.waived), (&vec![], &vec![]));
    assert_eq!(decision.valid_until, NOW);
    assert_eq!(decision.worse(), "could make it worse 0.8164% (limit 2.5%)");
    assert_eq!(decision.time_line(), "time  detect 2.1 + preview 6.4 + decide 21.5 + commit ~90.0 = 120.0 of 120 s");
}

#[test]
fn each_check_fires_alone_one_step_beyond_its_limit() {
    for knob in knobs().iter().filter(|knob| knob.name != "mutations") {
        for (check, worsen) in &knob.worse {
            let mut inputs = good();
            worsen(&mut inputs);
            let decision = decide(&inputs);
            assert!(decision.reasons.iter().all(|reason| reason.check == *check), "{}", knob.name);
            assert_eq!(decision.outcome, check.outcome(), "{}", knob.name);
            assert_eq!(decision.binding.map(|reason| reason.code), Some(check.code()), "{}", knob.name);
        }
    }
}

/// Adds the checks from `at` on, each fired or not, and compares every set with bit arithmetic.
fn table(order: &[usize], at: usize, set: u32, settled: Settled) -> u32 {
    const ABORT: u32 = (1 << 9) - 1;
    const ESCALATE: u32 = ((1 << 20) - 1) & !ABORT;
    let Some(next) = order.get(at) else {
        let band = [ABORT, ESCALATE, u32::MAX].into_iter().map(|band| set & band).find(|set| *set != 0);
        let binding = band.map(|set| Check::ALL[set.trailing_zeros() as usize]);
        assert_eq!(settled.binding, binding, "{set:b}");
        assert_eq!(settled.outcome, binding.map_or(Outcome::Commit, Check::outcome), "{set:b}");
        return 1;
    };
    let check = Check::ALL[*next];
    table(order, at + 1, set, settled) + table(order, at + 1, set | 1 << next, settled.with(check, check.outcome()))
}

#[test]
fn the_truth_table_of_all_fired_checks_is_a_maximum() {
    // Fired in an order that mixes the bands: the outcome may not depend on it.
    let order: Vec<usize> = (0..24).map(|at| at * 7 % 24).collect();
    assert_eq!((Check::ALL.len(), table(&order, 0, 0, Settled::NOTHING)), (24, 1 << 24));
    let all = settle(Check::ALL.iter().copied(), Check::outcome);
    assert_eq!(all, settle(Check::ALL.iter().rev().copied(), Check::outcome));
}

/// The doctrine's own function: quorum, then risk, then delay, then commit.
fn doctrine(quorum_safe: bool, risk: u64, contention: u64, delay: u64) -> Outcome {
    if !quorum_safe {
        Outcome::Abort
    } else if risk > 50_000 || contention > 50_000 {
        Outcome::Escalate
    } else if delay > 90_000 {
        Outcome::MutateParameters
    } else {
        Outcome::Commit
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn with_everything_else_well_it_is_the_doctrines_function(
        quorum: bool, risk in 0_u64..=1_000_000, contention in 0_u64..=1_000_000, delay in 0_u64..200_000, near: bool,
    ) {
        let (risk, contention) = if near { (49_999 + risk % 3, 49_999 + contention % 3) } else { (risk, contention) };
        let delay = if near { 89_999 + delay % 3 } else { delay };
        let mut inputs = good();
        inputs.quorum_safe = Some(quorum);
        h(&mut inputs).pilot_risk.ppm = Some(risk);
        r(&mut inputs).contention_ppm = Some(contention);
        r(&mut inputs).delay = Some(Forecast { value: delay, fix: fix() });
        prop_assert_eq!(decide(&inputs).outcome, doctrine(quorum, risk, contention, delay));
    }

    #[test]
    fn a_worse_input_never_lowers_the_outcome(levels in proptest::collection::vec(0_usize..12, knobs().len()), at: prop::sample::Index) {
        let knobs = knobs();
        // Most knobs stay good, so that mild outcomes occur too.
        let build = |raised: Option<usize>| {
            let mut inputs = good();
            for (number, (knob, level)) in knobs.iter().zip(&levels).enumerate() {
                let level = if *level < knob.worse.len() + 1 { *level } else { 0 } + usize::from(raised == Some(number));
                if let Some((_, worsen)) = level.min(knob.worse.len()).checked_sub(1).map(|worst| knob.worse[worst]) {
                    worsen(&mut inputs);
                }
            }
            decide(&inputs).outcome
        };
        prop_assert!(build(Some(at.index(knobs.len()))) >= build(None));
    }

    #[test]
    fn the_same_inputs_give_the_same_bytes(levels in proptest::collection::vec(0_usize..4, knobs().len())) {
        let mut inputs = good();
        for (knob, level) in knobs().iter().zip(&levels) {
            if let Some((_, worsen)) = level.checked_sub(2).and_then(|level| knob.worse.get(level)) {
                worsen(&mut inputs);
            }
        }
        let read = Inputs::from_bytes(&inputs.to_bytes());
        prop_assert_eq!(read.as_ref(), Ok(&inputs));
        let (first, second) = (decide(&inputs), decide(&read.unwrap()));
        prop_assert_eq!(base::canon::object("decision", &first.to_value()), base::canon::object("decision", &second.to_value()));
        prop_assert_eq!(Decision::from_value(first.to_value()), Ok(first));
    }
}

#[test]
fn deleting_any_input_never_commits() {
    let deletions: [fn(&mut Inputs); 28] = [
        |i| i.semantics = 0,
        |i| i.rules = None,
        |i| i.hold = None,
        |i| i.intent = None,
        |i| i.plan = None,
        |i| i.check = None,
        |i| i.reports.clear(),
        |i| i.bound_now = None,
        |i| i.invariants.clear(),
        |i| i.invariants[0].live = None,
        |i| i.quorum_safe = None,
        |i| i.observers = None,
        |i| i.time = None,
        |i| i.history = None,
        |i| i.mutations = None,
        |i| h(i).pilot_risk.ppm = None,
        |i| h(i).amplification.ppm = None,
        |i| i.plan.as_mut().unwrap().actions.clear(),
        |i| r(i).fidelity = None,
        |i| r(i).escapes = None,
        |i| r(i).contention_ppm = None,
        |i| r(i).growth = None,
        |i| r(i).epsilon_path = None,
        |i| r(i).epsilon_interference_ppm = None,
        |i| r(i).epsilon_observe_ppm = None,
        |i| r(i).retries = None,
        |i| r(i).delay = None,
        |i| r(i).convergence = None,
    ];
    for uncalibrated in [Uncalibrated::Refuse, Uncalibrated::Allow] {
        for (at, delete) in deletions.iter().enumerate() {
            let mut inputs = good();
            inputs.rules.as_mut().unwrap().uncalibrated = uncalibrated;
            delete(&mut inputs);
            assert_ne!(decide(&inputs).outcome, Outcome::Commit, "deletion {at}");
        }
    }
    for mut inputs in [good(), good(), good()].into_iter().enumerate().map(|(at, mut inputs)| {
        let of = [
            |r: &mut ReportFacts| r.backlog = None,
            |r: &mut ReportFacts| r.drain = None,
            |r: &mut ReportFacts| r.oscillations = None,
        ];
        of[at](r(&mut inputs));
        inputs
    }) {
        assert_eq!(decide(&inputs).outcome, Outcome::Abort);
        r(&mut inputs).result = PilotResult::Void;
        assert_eq!(decide(&inputs).outcome, Outcome::Escalate);
    }
}

#[test]
fn a_preview_that_touched_nothing_has_nothing_to_measure_there_and_may_not_claim_to() {
    let mut model = good();
    model.rules.as_mut().unwrap().fidelity = Fidelity::F0;
    let report = r(&mut model);
    (report.touched, report.fidelity) = (Touched::Nothing, Some(Fidelity::F0));
    (report.escapes, report.epsilon_interference_ppm) = (None, None);
    assert_eq!(decide(&model).outcome, Outcome::Commit);
    type Claim = (Code, fn(&mut ReportFacts));
    let claims: [Claim; 5] = [
        (Code::G105, |report| report.escapes = Some(0)),
        (Code::G105, |report| report.epsilon_interference_ppm = Some(0)),
        (Code::G105, |report| report.fidelity = Some(Fidelity::F2)),
        (Code::G105, |report| report.touched = Touched::Clone),
        (Code::G206, |report| (report.touched, report.escapes) = (Touched::Live, Some(0))),
    ];
    for (code, claim) in claims {
        let mut inputs = model.clone();
        claim(r(&mut inputs));
        assert_eq!(decide(&inputs).binding.map(|reason| reason.code), Some(code));
    }
}

#[test]
fn too_little_data_is_refused_or_recorded_and_never_hidden() {
    let mut inputs = good();
    h(&mut inputs).pilot_risk = Measure { ppm: Some(950_000), is_short: true, cases: 0 };
    h(&mut inputs).amplification = Measure { ppm: None, is_short: true, cases: 0 };
    h(&mut inputs).pairs = 0;
    h(&mut inputs).young_controls = vec!["convergence".into()];
    r(&mut inputs).epsilon_path = Some(Measure { ppm: None, is_short: true, cases: 0 });
    let refused = decide(&inputs);
    assert_eq!((refused.outcome, refused.binding.map(|reason| reason.code)), (Outcome::Escalate, Some(Code::G201)));
    inputs.rules.as_mut().unwrap().uncalibrated = Uncalibrated::Allow;
    let allowed = decide(&inputs);
    assert_eq!(allowed.outcome, Outcome::Commit);
    assert_eq!(allowed.uncalibrated, [Check::E1, Check::E6, Check::E10]);
    assert!(allowed.sentence().ends_with("uncalibrated"));
    // What was measured and breaches its bound fires all the same.
    for breach in [
        |i: &mut Inputs| h(i).pilot_risk.is_short = false,
        |i: &mut Inputs| r(i).epsilon_observe_ppm = Some(100_001),
        |i: &mut Inputs| h(i).amplification = Measure { ppm: Some(25_001), is_short: false, cases: 300 },
        |i: &mut Inputs| r(i).epsilon_path = Some(Measure { ppm: Some(40_001), is_short: false, cases: 9 }),
    ] {
        let mut inputs = inputs.clone();
        breach(&mut inputs);
        assert_eq!(decide(&inputs).outcome, Outcome::Escalate);
    }
}

#[test]
fn a_claim_can_only_tighten() {
    type Claim = (Check, fn(&mut Claims));
    let claims: [Claim; 4] = [
        (Check::A9, |claims| claims.quorum_safe = Some(false)),
        (Check::E1, |claims| claims.pilot_risk_ppm = Some(50_001)),
        (Check::E1, |claims| claims.contention_risk_ppm = Some(50_001)),
        (Check::E9, |claims| claims.estimated_delay_ms = Some(90_001)),
    ];
    for (check, claim) in claims {
        let mut inputs = good();
        claim(&mut inputs.intent.as_mut().unwrap().claims);
        assert_eq!(decide(&inputs).binding.map(|reason| reason.check), Some(check));
    }
    let mut inputs = good();
    inputs.quorum_safe = Some(false);
    h(&mut inputs).pilot_risk.ppm = Some(60_000);
    inputs.intent.as_mut().unwrap().claims = Claims {
        quorum_safe: Some(true),
        pilot_risk_ppm: Some(0),
        contention_risk_ppm: Some(0),
        estimated_delay_ms: Some(0),
    };
    let fired: Vec<Check> = decide(&inputs).reasons.iter().map(|reason| reason.check).collect();
    assert_eq!(fired, [Check::A9, Check::E1]);
}

#[test]
fn an_exception_skips_the_preview_or_accepts_what_it_names_and_nothing_else() {
    let exception = |is_bypass, codes: &[&str]| ExceptionFacts {
        digest: digest("exception"),
        is_bypass,
        is_valid: true,
        codes: codes.iter().map(|code| (*code).to_owned()).collect(),
    };
    let every: Vec<&str> = Code::ALL.iter().map(|code| code.word()).collect();
    for knob in knobs() {
        for (check, worsen) in knob.worse.iter().filter(|_| knob.name != "mutations") {
            let mut inputs = good();
            worsen(&mut inputs);
            let without = decide(&inputs);
            inputs.exception = Some(exception(true, &[]));
            assert_eq!(decide(&inputs).outcome == Outcome::Commit, check.is_bypassable(), "{}", knob.name);
            inputs.exception = Some(exception(false, &every));
            let accepted = decide(&inputs);
            assert_eq!(accepted.outcome == Outcome::Commit, check.is_acceptable(), "{}", knob.name);
            if check.is_acceptable() {
                assert_eq!(accepted.waived, [*check]);
            }
            inputs.exception = Some(exception(false, &[]));
            assert_eq!(decide(&inputs).outcome, without.outcome);
            inputs.exception = Some(ExceptionFacts { is_valid: false, ..exception(true, &every) });
            assert_eq!(decide(&inputs).outcome, without.outcome);
        }
    }
    assert!(Check::ALL.iter().all(|check| !(check.is_acceptable() && check.outcome() == Outcome::Abort)));
    assert!(!Check::E4.is_acceptable());
}

#[test]
fn a_fix_counts_only_within_bounds_toward_safety_and_while_mutations_last() {
    let breach = |fix: Option<Fix>, mutations| {
        let mut inputs = good();
        inputs.mutations = Some(mutations);
        r(&mut inputs).retries = Some(Forecast { value: 3_800_000, fix });
        decide(&inputs)
    };
    let mutated = breach(fix(), 0);
    assert_eq!((mutated.outcome, mutated.exit()), (Outcome::MutateParameters, 10));
    let changes: Vec<(i64, i64)> = mutated.mutation.iter().map(|change| (change.from, change.to)).collect();
    assert_eq!(changes, [(60, 45)]);
    assert_eq!(mutated.binding.unwrap().sentence(), "G301 retries 380% (limit 200%)");
    let of = |parameter: &str, from, to| Some(Fix { parameter: parameter.into(), step: "s1".into(), from, to });
    for bad in [
        of("RateLimit.rate", 60, 65),
        of("RateLimit.rate", 60, 5),
        of("Restart.wave", 2, 1),
        of("RateLimit.rate", 60, 60),
    ] {
        let refused = breach(bad, 0);
        assert_eq!((refused.outcome, refused.mutation.len()), (Outcome::Escalate, 0));
    }
    assert_eq!(breach(fix(), MUTATIONS_MAX).binding.map(|reason| reason.code), Some(Code::G209));
}

#[test]
fn tripling_the_retries_changes_the_outcome() {
    let mut inputs = good();
    let before = r(&mut inputs).retries.clone().unwrap().value;
    r(&mut inputs).retries = forecast(before * 3);
    assert_eq!(decide(&inputs).binding.map(|reason| reason.code), Some(Code::G209));
}

#[test]
fn exit_codes_and_authority() {
    let mut held = good();
    held.hold.as_mut().unwrap().scope = Some("all".into());
    assert_eq!(decide(&held).exit(), 70);
    let mut late = good();
    late.time.as_mut().unwrap().elapsed = Millis(120_000);
    assert_eq!(decide(&late).exit(), 60);
    let mut risky = good();
    h(&mut risky).pilot_risk.ppm = Some(60_000);
    assert_eq!(decide(&risky).exit(), 20);
    let mut unsafe_quorum = good();
    unsafe_quorum.quorum_safe = Some(false);
    assert_eq!(decide(&unsafe_quorum).exit(), 30);
    let authority = |level, is_above| {
        let mut inputs = good();
        inputs.rules.as_mut().unwrap().level = level;
        inputs.plan.as_mut().unwrap().is_above_auto = is_above;
        let decision = decide(&inputs);
        (decision.authority, decision.approvals_needed)
    };
    assert_eq!(authority(Level::Auto, false), (Authority::Auto, 0));
    assert_eq!(authority(Level::Auto, true), (Authority::Approve, 1));
    assert_eq!(authority(Level::Approve, false), (Authority::Approve, 1));
    assert_eq!(authority(Level::Suggest, false), (Authority::Suggest, 0));
    assert_eq!(authority(Level::Observe, true), (Authority::Observe, 0));
}

#[test]
fn a_class_may_make_a_not_evaluable_invariant_an_abort() {
    let mut inputs = good();
    inputs.invariants[0].live = None;
    assert_eq!(decide(&inputs).outcome, Outcome::Escalate);
    inputs.rules.as_mut().unwrap().on_not_evaluable = OnNotEvaluable::Abort;
    let decision = decide(&inputs);
    assert_eq!((decision.outcome, decision.binding.map(|reason| reason.code)), (Outcome::Abort, Some(Code::G204)));
}
