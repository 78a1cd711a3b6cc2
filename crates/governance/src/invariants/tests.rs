use super::*;
use base::{Digest, Timestamp};
use std::collections::BTreeMap;

fn needs() -> Needs {
    Needs {
        max_age: Millis(1_000),
        sources_min: 2,
        headroom_ppm: 1_200_000,
        clock_uncertainty: Millis(10),
        replay_entries_max: 100,
        replay_bytes_max: 1_000,
        replay_max: Millis(500),
        unreplicated_max: 0,
    }
}

fn signal(name: &str, reading: Reading) -> Signals {
    let mut signals = Signals::default();
    signals.insert(
        name,
        Signal { reading, unit: name.into(), age: Millis(1_000), sources: vec!["z1".into(), "z2".into()] },
    );
    signals
}

fn outcome(id: &str, name: &str, reading: Reading) -> (Holding, Option<String>) {
    let evaluation = evaluate(id, &signal(name, reading), &needs());
    (evaluation.outcome, evaluation.witness.or(evaluation.why))
}

fn holds(id: &str, name: &str, reading: Reading) {
    assert_eq!(outcome(id, name, reading), (Holding::Holds, None));
}

fn violated(id: &str, name: &str, reading: Reading, witness: &str) {
    assert_eq!(outcome(id, name, reading), (Holding::Violated, Some(witness.to_owned())));
}

fn span(holder: &str, token: u64, from: i64, until: i64) -> LeaseSpan {
    LeaseSpan { resource: "scope".into(), holder: holder.into(), token, from: Timestamp(from), until: Timestamp(until) }
}

#[test]
fn lease_unique_compares_intervals_and_fencing_tokens() {
    holds("lease-unique", "leases", Reading::Leases(vec![]));
    holds("lease-unique", "leases", Reading::Leases(vec![span("a", 1, 0, 100), span("b", 1, 120, 200)]));
    holds("lease-unique", "leases", Reading::Leases(vec![span("a", 1, 0, 100), span("b", 2, 50, 200)]));
    holds("lease-unique", "leases", Reading::Leases(vec![span("a", 1, 0, 100), span("a", 1, 50, 200)]));
    // Clocks 10 ms apart each: 119 may already overlap 100.
    violated(
        "lease-unique",
        "leases",
        Reading::Leases(vec![span("b", 1, 119, 200), span("a", 1, 0, 100)]),
        "scope: `a` and `b` both held it from 119 to 100 with tokens 1 and 1",
    );
    assert_eq!(
        outcome("lease-unique", "leases", Reading::Leases(vec![span("a", 2, 0, 100), span("b", 1, 50, 200)])).0,
        Holding::Violated
    );
}

#[test]
fn epoch_monotone_judges_accepted_writes_of_each_node() {
    let write = |node: &str, epoch, version, accepted| EpochWrite {
        node: node.into(),
        actor: "x".into(),
        epoch,
        version,
        accepted,
    };
    holds(
        "epoch-monotone",
        "writes",
        Reading::Writes(vec![
            write("n", 1, 1, true),
            write("n", 2, 1, true),
            write("n", 1, 9, false),
            write("m", 1, 1, true),
        ]),
    );
    violated(
        "epoch-monotone",
        "writes",
        Reading::Writes(vec![write("n", 2, 3, true), write("n", 2, 2, true)]),
        "n accepted epoch 2.2 of `x` after 2.3",
    );
}

#[test]
fn quorum_intersect_names_a_disjoint_pair() {
    let phase = |phase: &str, members: &[&str], threshold| QuorumPhase {
        set: "q".into(),
        phase: phase.into(),
        members: members.iter().map(|name| (*name).to_owned()).collect(),
        threshold,
    };
    holds("quorum-intersect", "quorums", Reading::Quorums(vec![]));
    holds(
        "quorum-intersect",
        "quorums",
        Reading::Quorums(vec![phase("old", &["a", "b", "c"], 2), phase("new", &["a", "b", "c", "d"], 3)]),
    );
    violated(
        "quorum-intersect",
        "quorums",
        Reading::Quorums(vec![phase("old", &["a", "b", "c"], 2), phase("new", &["a", "b", "c", "d", "e"], 3)]),
        "q: {a, b} of phase old and {d, e, c} of phase new share nobody",
    );
    assert_eq!(
        outcome("quorum-intersect", "quorums", Reading::Quorums(vec![phase("old", &["a", "b"], 3)])).0,
        Holding::NotEvaluable
    );
}

/// Threshold arithmetic against all pairs of quorums, for all small configurations.
#[test]
fn quorum_arithmetic_equals_enumeration() {
    let names = ["a", "b", "c", "d", "e"];
    let members = |set: u32| {
        names
            .iter()
            .enumerate()
            .filter(|(at, _)| set >> at & 1 == 1)
            .map(|(_, name)| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    for (old, new) in (1_u32..32).flat_map(|old| (1_u32..32).map(move |new| (old, new))) {
        for (a, b) in (1..=old.count_ones()).flat_map(|a| (1..=new.count_ones()).map(move |b| (a, b))) {
            let quorums = |set: u32, size: u32| (1_u32..32).filter(move |of| of & !set == 0 && of.count_ones() == size);
            let meets =
                |x: (u32, u32), y: (u32, u32)| quorums(x.0, x.1).all(|one| quorums(y.0, y.1).all(|two| one & two != 0));
            let expected = meets((old, a), (old, a)) && meets((new, b), (new, b)) && meets((old, a), (new, b));
            let phase = |name: &str, set, threshold| QuorumPhase {
                set: "q".into(),
                phase: name.into(),
                members: members(set),
                threshold,
            };
            let reading = Reading::Quorums(vec![phase("old", old, u64::from(a)), phase("new", new, u64::from(b))]);
            let found = outcome("quorum-intersect", "quorums", reading).0;
            assert_eq!(found == Holding::Holds, expected, "{old:b}/{a} {new:b}/{b}");
        }
    }
}

#[test]
fn capacity_floor_looks_at_waves_that_take_out_what_serves() {
    let wave = |capacity_mrps, members, takes_out_serving| WaveCapacity {
        wave: "1".into(),
        capacity_mrps,
        load_mrps: 50_000,
        members,
        takes_out_serving,
    };
    holds("capacity-floor", "waves", Reading::Waves(vec![wave(60_000, 1, true)]));
    holds("capacity-floor", "waves", Reading::Waves(vec![wave(0, 0, false)]));
    violated(
        "capacity-floor",
        "waves",
        Reading::Waves(vec![wave(80_000, 2, true), wave(59_999, 1, true)]),
        "wave 1: 1 members left, capacity 59999 for a load of 50000 thousandths per second, needed 60000",
    );
    assert_eq!(outcome("capacity-floor", "waves", Reading::Waves(vec![wave(60_000, 0, true)])).0, Holding::Violated);
    let margin = evaluate(
        "capacity-floor",
        &signal("waves", Reading::Waves(vec![wave(80_000, 2, true), wave(61_000, 1, true)])),
        &needs(),
    );
    assert_eq!((margin.value, margin.bound, margin.margin), (Some(61_000), Some(60_000), Some(1_000)));
}

#[test]
fn replay_bounded_has_no_gap_no_duplicate_and_an_end() {
    let good = ReplayState { entries: 100, bytes: 1_000, took: Millis(500), gap: None, duplicate: None };
    holds("replay-bounded", "replay", Reading::Replay(good.clone()));
    for (bad, witness) in [
        (ReplayState { entries: 101, ..good.clone() }, "101 entries, allowed 100"),
        (ReplayState { bytes: 1_001, ..good.clone() }, "1001 bytes, allowed 1000"),
        (ReplayState { took: Millis(501), ..good.clone() }, "501 ms, allowed 500"),
        (ReplayState { gap: Some("line 7".into()), ..good.clone() }, "line 7 is missing"),
        (ReplayState { duplicate: Some("abc/s2".into()), ..good.clone() }, "abc/s2 was applied twice"),
    ] {
        violated("replay-bounded", "replay", Reading::Replay(bad), witness);
    }
}

#[test]
fn the_other_native_ones_hold_and_are_violated() {
    let states = |b: &[u8]| {
        Reading::States(BTreeMap::from([("r1".to_owned(), Digest::of(b"x")), ("r2".to_owned(), Digest::of(b))]))
    };
    holds("state-convergent", "states", states(b"x"));
    assert_eq!(outcome("state-convergent", "states", states(b"y")).0, Holding::Violated);
    assert_eq!(outcome("state-convergent", "states", Reading::States(BTreeMap::new())).0, Holding::NotEvaluable);
    let durability = |durable, unreplicated| {
        Reading::Durability(Durability { acknowledged: 9, durable, unreplicated, lost: vec!["k".into()] })
    };
    holds("no-acknowledged-loss", "durability", durability(9, 0));
    violated("no-acknowledged-loss", "durability", durability(8, 0), "9 acknowledged, 8 still there; gone: k");
    assert_eq!(outcome("no-acknowledged-loss", "durability", durability(9, 1)).0, Holding::Violated);
    let rates = |done_mps, arriving_mps, crash_loop| Reading::Rates(Rates { done_mps, arriving_mps, crash_loop });
    holds("progress", "rates", rates(2, 1, None));
    holds("progress", "rates", rates(0, 0, None));
    assert_eq!(outcome("progress", "rates", rates(1, 1, None)).0, Holding::Violated);
    violated("progress", "rates", rates(2, 1, Some("exit 1 five times".into())), "exit 1 five times");
}

#[test]
fn missing_stale_mistyped_and_single_sourced_signals_are_not_evaluable() {
    let good = signal("waves", Reading::Waves(vec![]));
    let change = |change: fn(&mut Signal)| {
        let mut signals = good.clone();
        change(signals.0.get_mut("waves").unwrap());
        evaluate("capacity-floor", &signals, &needs())
    };
    assert_eq!(change(|_| ()).outcome, Holding::Holds);
    for (bad, why) in [
        (change(|signal| signal.age = Millis(1_001)), "signal `waves` is 1001ms old, allowed 1s"),
        (change(|signal| signal.unit = "rps".into()), "signal `waves` is in rps, not in waves"),
        (
            change(|signal| signal.sources = vec!["z1".into(), "z1".into()]),
            "signal `waves` comes from 1 failure domains, needed 2",
        ),
        (change(|signal| signal.reading = Reading::Integer(1)), "signal `waves` is of the wrong type"),
        (evaluate("capacity-floor", &Signals::default(), &needs()), "signal `waves` is missing"),
        (evaluate("no-such", &good, &needs()), "no invariant `no-such`"),
    ] {
        assert_eq!((bad.outcome, bad.why.as_deref()), (Holding::NotEvaluable, Some(why)));
    }
    for id in NATIVE {
        assert_eq!(evaluate(id, &Signals::default(), &needs()).outcome, Holding::NotEvaluable, "{id}");
    }
}

#[test]
fn rules_of_the_file_compare_in_five_ways_with_a_number_or_a_signal() {
    let mut signals = signal("lag", Reading::Integer(10));
    signals.insert("limit", Signal { reading: Reading::Integer(10), ..signals.0["lag"].clone() });
    let rule = |compare, number: Option<i64>| InvariantRule {
        id: "lag-bounded".into(),
        signal: "lag".into(),
        unit: "lag".into(),
        max_age: Millis(1_000),
        sources_min: None,
        compare,
        bound: Operand { number, signal: number.is_none().then(|| "limit".to_owned()) },
    };
    let holds = |compare, number| evaluate_rule(&rule(compare, number), &signals, 2).outcome == Holding::Holds;
    for bound in [Some(10), None] {
        let found = [Compare::AtMost, Compare::Below, Compare::AtLeast, Compare::Above, Compare::Equal]
            .map(|compare| holds(compare, bound));
        assert_eq!(found, [true, false, true, false, true]);
    }
    assert!(!holds(Compare::AtMost, Some(9)) && !holds(Compare::AtLeast, Some(11)));
    let violated = evaluate_rule(&rule(Compare::AtMost, Some(9)), &signals, 2);
    assert_eq!((violated.margin, violated.witness.as_deref()), (Some(-1), Some("lag = 10 lag, allowed <= 9")));
    assert_eq!(evaluate_rule(&rule(Compare::AtMost, Some(10)), &signals, 3).outcome, Holding::NotEvaluable);
    assert_eq!(evaluate_rule(&rule(Compare::AtMost, Some(10)), &Signals::default(), 0).outcome, Holding::NotEvaluable);
}
