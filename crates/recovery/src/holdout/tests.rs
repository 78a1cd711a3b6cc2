use super::*;
use proptest::prelude::*;

const MINUTE_US: u64 = 60_000_000;

/// One request: `front` calls `back`, and in every `rarely`-th trace `back` calls `store`.
fn request(trace: u64, rarely: u64) -> Vec<Span> {
    let start_us = 1_700_000_000_000_000 + trace * 100_000;
    let span = |id: u64, parent: Option<u64>, service: &str| Span {
        trace: u128::from(trace),
        id,
        parent,
        service: service.to_owned(),
        name: "work".into(),
        start_us: start_us + id,
        duration_us: 1_000 - 100 * id,
        authenticated: true,
        ..Span::default()
    };
    let mut spans = vec![span(1, None, "front"), span(2, Some(1), "back")];
    if trace.is_multiple_of(rarely) {
        spans.push(span(3, Some(2), "store"));
    }
    spans
}

fn requests(numbers: std::ops::RangeInclusive<u64>, rarely: u64) -> Vec<Span> {
    numbers.flat_map(|trace| request(trace, rarely)).collect()
}

fn found(spans: &[Span], fault_free: Option<&[Span]>, holdout: Holdout) -> Evaluated {
    evaluate(&Config::default(), &Recording { spans, fault_free, topology: None }, holdout).unwrap()
}

#[test]
fn what_is_the_same_all_the_time_is_missed_nowhere() {
    let spans = requests(1..=2_000, 1);
    let time = found(&spans, None, Holdout::Time);
    assert_eq!((time.total.edge_fn.k, time.total.trace_fn.k, time.total.decision_raw.k), (0, 0, 0), "{time:?}");
    assert_eq!((time.rows.len(), time.total.draws), (5, 5));
    let late = time.rows.last().unwrap();
    assert_eq!((late.full, late.covered), (Share { k: 3, n: 3 }, Covered::True), "{late:?}");
    assert!(late.bound.is_some_and(|bound| bound <= Ratio::clamped(10_000)), "{late:?}");
    const { assert!(2_000 * 100_000 > MINUTE_US, "long enough to be fresh") };
    let sampling = found(&spans, None, Holdout::Sampling);
    assert_eq!((sampling.total.draws, sampling.total.covered), (115, Covered::True), "{sampling:?}");
}

#[test]
fn what_begins_later_is_missed_and_a_bound_that_was_claimed_is_broken() {
    // Nothing calls the store before half of the time is over, and everything does after it.
    let spans = [requests(1..=2_000, 10_000), requests(2_001..=4_000, 1)].concat();
    let time = found(&spans, None, Holdout::Time);
    let half = &time.rows[3];
    assert_eq!((half.edge_fn, half.trace_fn.k * 10 / half.trace_fn.n), (Share { k: 1, n: 2 }, 10), "{half:?}");
    assert_eq!((half.full.k, half.covered), (2, Covered::False), "what is learned from is not like what is asked");
    assert_eq!(half.bounds_below_observed, 1, "the calls out of `back`");
    assert_eq!(time.total.covered, Covered::False);
    let written = serde_json::to_value(&time).unwrap();
    assert_eq!(written["covered"], serde_json::json!(false));
    assert_eq!(written["rows"][3]["edge_fn"]["point"], serde_json::json!(0.5));
    assert!(written["rows"][3]["edge_fn"]["low"].as_f64() < written["rows"][3]["edge_fn"]["high"].as_f64());
}

#[test]
fn faults_and_blackouts_claim_no_bound() {
    let (calm, faults) = (requests(1..=1_500, 10_000), requests(2_001..=4_000, 2));
    let fault = found(&faults, Some(&calm), Holdout::Fault);
    assert_eq!(
        (fault.total.covered, fault.total.bound, fault.total.edge_fn),
        (Covered::NotClaimed, None, Share { k: 1, n: 2 })
    );
    assert_eq!(serde_json::to_value(&fault).unwrap()["covered"], serde_json::json!("not_claimed"));
    let recording = Recording { spans: &faults, fault_free: None, topology: None };
    let missing = evaluate(&Config::default(), &recording, Holdout::Fault);
    assert_eq!(missing, Err(HoldoutError::FaultFreeMissing));
    let dark = found(&faults, None, Holdout::Blackout);
    assert_eq!(
        (dark.total.draws, dark.total.covered, dark.total.decision_fn.k),
        (3, Covered::NotClaimed, 0),
        "{dark:?}"
    );
    // Without `back`, nothing leads to the store; without the store, nothing to it from `back`.
    assert_eq!(dark.total.edge_fn, Share { k: 4, n: 6 });
    assert!(dark.total.decision_raw.k > 0, "{dark:?}");
}

#[test]
fn a_decision_is_true_to_what_traces_took_and_the_closure_is_told_apart() {
    // `a` and `b` both call `m`; `m` calls `s` for `b` alone. Edges allow a to reach s, no trace does.
    let span = |trace: u64, id: u64, parent: Option<u64>, service: &str| Span {
        trace: u128::from(trace),
        id,
        parent,
        service: service.to_owned(),
        name: "work".into(),
        start_us: 1_700_000_000_000_000 + trace * 100_000,
        duration_us: 1_000 - 100 * id,
        authenticated: true,
        ..Span::default()
    };
    let both = |trace| if trace % 2 == 0 { "a" } else { "b" };
    let spans: Vec<Span> = (1..=200)
        .flat_map(|trace| {
            let mut spans = vec![span(trace, 1, None, both(trace)), span(trace, 2, Some(1), "m")];
            spans.extend((trace % 2 == 1).then(|| span(trace, 3, Some(2), "s")));
            spans
        })
        .collect();
    let bench = Bench::new(&Config::default(), None, &spans).map(|bench| bench.truth_of("s")).unwrap();
    assert_eq!(
        bench,
        Some((vec!["b".to_owned(), "m".to_owned()], vec!["a".to_owned(), "b".to_owned(), "m".to_owned()]))
    );
}

#[test]
fn an_evaluation_has_limits() {
    assert_eq!(
        evaluate(&Config::default(), &Recording { spans: &[], fault_free: None, topology: None }, Holdout::Time),
        Err(HoldoutError::Empty)
    );
    // As long as allowed, and one more, without that much memory: one and the same span.
    let spans = vec![Span::default(); HOLDOUT_SPANS_MAX + 1];
    let over =
        evaluate(&Config::default(), &Recording { spans: &spans, fault_free: None, topology: None }, Holdout::Time);
    assert_eq!(over, Err(HoldoutError::TooManySpans { spans: HOLDOUT_SPANS_MAX + 1, limit: HOLDOUT_SPANS_MAX }));
    let many: Vec<Span> = (0..=BLACKOUTS_MAX as u64)
        .map(|number| Span {
            trace: 1,
            id: number + 1,
            service: format!("s{number}"),
            start_us: number,
            ..Span::default()
        })
        .collect();
    assert_eq!(found(&many, None, Holdout::Blackout).total.draws as usize, BLACKOUTS_MAX);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_exact_join_does_not_depend_on_the_order_and_agrees_with_the_graph(
        parents in prop::collection::vec(0_u64..12, 1..12), services in prop::collection::vec(0_u8..5, 12), turn in 0_usize..12,
    ) {
        let mut spans: Vec<Span> = (1_u64..).zip(&parents).zip(&services).map(|((id, parent), service)| Span {
            trace: 1,
            id,
            parent: Some(*parent).filter(|parent| *parent != 0),
            service: format!("s{service}"),
            name: "work".into(),
            start_us: 1_700_000_000_000_000,
            duration_us: id,
            ..Span::default()
        }).collect();
        let pairs = |spans: &[Span]| {
            let traces = traces::Traces::of(spans);
            let names: BTreeMap<u32, String> = traces.services().iter().map(|(name, number)| (*number, name.clone())).collect();
            let calls = traces.entries.iter().filter_map(|entry| entry.call);
            calls.map(|(caller, callee)| (names[&caller].clone(), names[&callee].clone())).collect::<std::collections::BTreeSet<_>>()
        };
        let first = pairs(&spans);
        let (graph, now) = crate::graph::replay(&Config::default(), None, &spans).unwrap();
        let edges: std::collections::BTreeSet<(String, String)> =
            graph.snapshot(now).edges().iter().map(|edge| (edge.caller.clone(), edge.callee.clone())).collect();
        let turn = turn % spans.len();
        spans.rotate_left(turn);
        // A circle of spans may be broken at any of them.
        let acyclic = parents.iter().zip(1_u64..).all(|(parent, id)| *parent < id);
        if acyclic {
            prop_assert_eq!(&edges, &first);
            prop_assert_eq!(pairs(&spans), first);
        }
    }
}
