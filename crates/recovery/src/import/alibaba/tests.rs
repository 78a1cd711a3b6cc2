use super::super::{Format, detect, spans};
use super::*;
use crate::graph::{Config, Snapshot, replay};

const TRUSTED: Options<'static> = Options { authenticated: true, dictionary: None };
const HEAD_2021: &str = "traceid,timestamp,rpcid,um,rpctype,dm,interface,rt\n";
const HEAD_2022: &str = "timestamp,traceid,service,rpc_id,rpctype,um,uminstanceid,interface,dm,dminstanceid,rt\n";

/// Rows of 2021 of one trace: rpcid, um, kind, dm, interface, rt.
fn table(rows: &[&str]) -> String {
    let row = |row: &&str| {
        let cells: Vec<&str> = row.split_whitespace().collect();
        let cell = |at: usize| cells.get(at).copied().filter(|cell| *cell != "-").unwrap_or("");
        let (interface, rt) = (cell(4), if cell(5).is_empty() { "7" } else { cell(5) });
        format!("a1,1000,{},{},{},{},{interface},{rt}\n", cell(0), cell(1), cell(2), cell(3))
    };
    HEAD_2021.to_owned() + &rows.iter().map(row).collect::<String>()
}

fn read(rows: &[&str]) -> (Vec<Span>, Report, Snapshot) {
    let (spans, report) = spans(table(rows).as_bytes(), &TRUSTED).unwrap();
    let (graph, now) = replay(&Config::default(), None, &spans).unwrap();
    (spans, report, graph.snapshot(now))
}

fn edges(snapshot: &Snapshot) -> Vec<String> {
    snapshot.edges().iter().map(|edge| format!("{}->{}", edge.caller, edge.callee)).collect()
}

fn counts(pairs: &[(&'static str, u64)]) -> BTreeMap<&'static str, u64> {
    pairs.iter().copied().collect()
}

#[test]
fn a_whole_trace_keeps_every_position() {
    let (spans, report, snapshot) = read(&[
        "0 USER http a",
        "0.1 a rpc b i 3",
        "0.1 a rpc b i -2",
        "0.1.1 b mc cache",
        "0.2 a mq c",
        "0.2.1 c rpc c",
    ]);
    assert_eq!((report.kept, report.traces, report.duplicates, report.orphans), (5, 1, 1, 0), "{report:?}");
    assert_eq!((report.repaired, report.dropped), (counts(&[]), counts(&[])));
    assert_eq!(edges(&snapshot), ["a->b", "a->c", "b->cache"]);
    let kinds: Vec<_> = ["a->b", "a->c", "b->cache"]
        .map(|edge| snapshot.edge(&edge[..1], &edge[3..]).map(|edge| edge.kind.word()))
        .to_vec();
    assert_eq!(kinds, [Some("sync"), Some("async"), Some("store")]);
    let call = spans.iter().find(|span| span.service == "b" && span.kind == Kind::Server).unwrap();
    assert_eq!(
        (call.name.as_str(), call.start_us, call.duration_us),
        ("i", 1_000_000, 3_000),
        "the longer of both sides"
    );
    assert!(spans.iter().any(|span| span.kind == Kind::Internal), "a call to itself is inner work");
    assert_eq!(spans.iter().filter(|span| span.parent.is_none()).count(), 1);
}

#[test]
fn each_rule_repairs_what_it_is_for() {
    /// Rows, what was repaired and what dropped by reason, the edges.
    type Case<'a> = (&'a [&'a str], &'a [(&'static str, u64)], &'a [(&'static str, u64)], &'a [&'a str]);
    let cases: [Case<'_>; 11] = [
        // Both sides of a call, of which each knows the other only.
        (&["0 USER http a", "0.1 a rpc - i", "0.1 - rpc b i"], &[("twin", 1)], &[], &["a->b"]),
        // Of two callers, the one that the parent is.
        (&["0 USER http a", "0.1 a rpc b", "0.1 z rpc y"], &[("R4 conflict", 1)], &[], &["a->b", "z->y"]),
        // Of two callees, the one that made the calls below.
        (
            &["0 USER http a", "0.1 a rpc b", "0.1 a rpc c", "0.1.1 c rpc d"],
            &[("R4 conflict", 1)],
            &[],
            &["a->b", "a->c", "c->d"],
        ),
        // Nothing decides: both edges stay, and what is below has no position.
        (
            &["0 USER http a", "0.1 a rpc b", "0.1 a rpc c", "0.1.1 d rpc e"],
            &[],
            &[("below broken", 1), ("conflict", 1)],
            &["a->b", "a->c", "d->e"],
        ),
        (&["0 USER http a", "0.1 - rpc b"], &[("R5 fill", 1)], &[], &["a->b"]),
        (&["0 USER http a", "0.1 a rpc (?)", "0.1.1 b rpc c"], &[("R5 fill", 1)], &[], &["a->b", "b->c"]),
        // Nobody says whom it reached.
        (&["0 USER http a", "0.1 a rpc UNKNOWN"], &[], &[("no callee", 1)], &[]),
        // The row of 0.1 is gone; all below it name b, and a called it.
        (&["0 USER http a", "0.1.1 b rpc c", "0.1.2 - rpc d"], &[("R6 hole", 2)], &[], &["a->b", "b->c", "b->d"]),
        // Below a hole there is another one.
        (
            &["0 USER http a", "0.1.1 b rpc c", "0.1.2.1 d rpc e"],
            &[("R6 hole", 2)],
            &[],
            &["a->b", "b->c", "b->d", "d->e"],
        ),
        (&["0 USER http a", "0.1.1 b rpc c", "0.1.2 d rpc e"], &[], &[("orphan", 2)], &["b->c", "d->e"]),
        (&["0 USER http a", "0.1 z rpc b", "0.1.1 b rpc c"], &[], &[("detached", 1)], &["b->c", "z->b"]),
    ];
    for (rows, repaired, dropped, expected) in cases {
        let (_, report, snapshot) = read(rows);
        assert_eq!((&report.repaired, &report.dropped), (&counts(repaired), &counts(dropped)), "{rows:?}");
        assert_eq!(edges(&snapshot), expected, "{rows:?}");
    }
}

#[test]
fn calls_under_an_absent_root_are_roots_with_their_caller() {
    let rows = "5,T_1,S_1,0.1,rpc,MS_1,P,i,MS_2,P,2.5\n5,T_1,S_1,0.2,rpc,MS_1,P,i,MS_3,P,1.0\n5,T_1,S_1,0.2,rpc,MS_1,P,i,MS_3,P,1.0\n";
    let (spans, report) = spans(format!("{HEAD_2022}{rows}").as_bytes(), &TRUSTED).unwrap();
    assert_eq!((report.kept, report.duplicates, report.traces), (2, 1, 1));
    let roots: Vec<_> = spans.iter().filter(|span| span.parent.is_none()).map(|span| span.service.as_str()).collect();
    assert_eq!((roots, spans.len()), (vec!["MS_1"], 3));
    assert_eq!(spans.iter().find(|span| span.service == "MS_2").unwrap().duration_us, 2_500);
}

#[test]
fn a_bad_row_never_stops_a_table() {
    let long = "x".repeat(CSV_LINE_BYTES_MAX);
    let deep = format!("a1,1,0{},a,rpc,b,i,1", ".1".repeat(RPCID_BYTES_MAX));
    let rows = [
        "a1,1,0,USER,http,a,i,1",
        "short",
        "a1,x,0.1,a,rpc,b,i,1",
        "a1,1,0.x,a,rpc,b,i,1",
        "a1,1,0.1,a,rpc,b,i,NaN?",
        "a1,1,0.1,a,rpc,b,i,1e300",
        "a1,18446744073709551615,0.1,a,rpc,b,i,1",
        ",1,0.1,a,rpc,b,i,1",
        &long,
        &deep,
        "a1,1,0.1,a,rpc,b,i,1",
    ];
    let (spans, report) = spans(format!("{HEAD_2021}{}", rows.join("\n")).as_bytes(), &TRUSTED).unwrap();
    assert_eq!((report.kept, report.dropped), (2, counts(&[("malformed", 9)])));
    assert_eq!(spans.len(), 2);
    let failed = super::super::spans(b"traceid,rpcid,um\n", &TRUSTED).unwrap_err();
    assert_eq!(failed.to_string(), "line 1, column 17: no column `timestamp`");
}

#[test]
fn a_place_and_its_rows_have_limits() {
    let at_limit = format!("0{}", ".1".repeat((RPCID_BYTES_MAX - 1) / 2));
    assert_eq!(read(&[&format!("{at_limit}0 a rpc b")]).1.kept + read(&[&format!("{at_limit}0 a rpc b")]).1.orphans, 1);
    assert_eq!(read(&[&format!("{at_limit}00 a rpc b")]).1.dropped, counts(&[("malformed", 1)]));
    let rows: Vec<String> = (0..=repair::STATED_MAX).map(|n| format!("0 USER rpc s{n}")).collect();
    let (_, report, _) = read(&rows.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(report.dropped, counts(&[("conflict", 1), ("too many rows of one call", 1)]));
}

/// A made trace, and what was done to it.
struct Made {
    truth: BTreeMap<String, (String, String)>,
    rows: BTreeMap<String, Vec<Stated>>,
    damaged: u64,
}

/// A tree of calls between services, with one of six errors on some of them.
fn made(random: &mut impl FnMut(u64) -> u64) -> Made {
    let name = |number: u64| format!("s{number}");
    let mut truth: BTreeMap<String, (String, String)> = BTreeMap::new();
    truth.insert("0".into(), (repair::OUTSIDE.into(), name(random(40))));
    let mut open = vec![("0".to_owned(), 0)];
    while let Some((rpc, depth)) = open.pop() {
        let own = truth[&rpc].1.clone();
        for child in 1..=random(if depth < 4 { 5 } else { 1 }) {
            let below = format!("{rpc}.{child}");
            truth.insert(below.clone(), (own.clone(), name(random(40))));
            open.push((below, depth + 1));
        }
    }
    let stated =
        |um: &str, dm: &str| Stated { um: Some(um.into()), dm: Some(dm.into()), kind: "rpc".into(), interface: None };
    let mut rows: BTreeMap<String, Vec<Stated>> =
        truth.iter().map(|(rpc, (um, dm))| (rpc.clone(), vec![stated(um, dm)])).collect();
    let mut damaged = 0;
    for rpc in truth.keys() {
        if random(100) >= 3 {
            continue;
        }
        damaged += 1;
        let (um, dm) = &truth[rpc];
        match random(6) {
            0 => rows.get_mut(rpc).unwrap().push(stated(um, dm)),
            1 => rows.get_mut(rpc).unwrap()[0].um = None,
            2 => rows.get_mut(rpc).unwrap()[0].dm = None,
            3 => drop(rows.remove(rpc)),
            4 => rows.get_mut(rpc).unwrap().push(stated(&name(random(40)), dm)),
            // Its number was given to another call too.
            _ => rows.get_mut(rpc).unwrap().push(stated(um, &name(random(40)))),
        }
    }
    Made { truth, rows, damaged }
}

#[test]
fn most_of_what_is_damaged_regains_its_position_and_hardly_anything_a_wrong_one() {
    let mut state = 7_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below.max(1)
    };
    let (mut all, mut damaged, mut right, mut wrong) = (0_u64, 0_u64, 0_u64, 0_u64);
    for _ in 0..2_000 {
        let made = made(&mut random);
        damaged += made.damaged;
        all += made.truth.len() as u64;
        let repaired = repair::repair(&made.rows);
        for (rpc, (um, dm)) in &made.truth {
            let hole = repaired.holes.get(rpc);
            let found = match repaired.calls.get(rpc) {
                Some(call) if matches!(call.standing, Standing::Kept | Standing::Filled(_)) => {
                    let outside = call.stated.um.is_none() && um == repair::OUTSIDE;
                    Some((outside || call.stated.um.as_ref() == Some(um)) && call.stated.dm.as_ref() == Some(dm))
                }
                Some(_) => None,
                None => hole.map(|service| service == dm),
            };
            right += u64::from(found == Some(true));
            wrong += u64::from(found == Some(false));
        }
    }
    assert!(all > 20_000 && damaged > 500, "{all} calls, {damaged} damaged");
    assert!(right * 100 >= all * 83, "{right} of {all} right");
    assert!(wrong * 1_000 <= all, "{wrong} of {all} wrong");
}

#[test]
fn both_years_are_told_by_their_headers() {
    assert_eq!(detect(HEAD_2021.as_bytes()), Some(Format::Alibaba2021));
    assert_eq!(detect(HEAD_2022.as_bytes()), Some(Format::Alibaba2022));
}
