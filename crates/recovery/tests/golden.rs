//! Real traces against the counts that are known of them.
#![expect(clippy::unwrap_used, reason = "a sample that cannot be read is a failed test")]

use recovery::graph::{Config, Graph, Snapshot, replay};
use recovery::groups::{GroupPolicy, group};
use recovery::import::{Options, Report, edge_list, spans};
use recovery::replay::Replay;
use recovery::span::Span;
use recovery::topology::Topology;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

/// What is known of a sample: traces, spans, duplicate rows, services and edges between services.
struct Known {
    traces: u64,
    spans: u64,
    duplicates: u64,
    services: usize,
    edges: usize,
}

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

fn unzipped(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).unwrap();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    bytes
}

fn nezha(stem: &Path) -> (Vec<Span>, Report) {
    let beside = |ending: &str| PathBuf::from(format!("{}{ending}", stem.display()));
    let dictionary = std::fs::read(beside(".dict.json")).unwrap();
    let options = Options { authenticated: true, dictionary: Some(&dictionary) };
    spans(&unzipped(&beside(".spans.csv.gz")), &options).unwrap()
}

fn check(spans: &[Span], report: &Report, known: &Known) -> (Graph, Snapshot) {
    let (graph, now) = replay(&Config::default(), None, spans).unwrap();
    let snapshot = graph.snapshot(now);
    assert_eq!((report.kept, report.traces, report.duplicates), (known.spans, known.traces, known.duplicates));
    assert_eq!((report.orphans, report.dropped_total()), (0, 0));
    assert_eq!(snapshot.services().count(), known.services);
    assert_eq!(snapshot.edges().len(), known.edges);
    assert_eq!((graph.counts().lost_parents, graph.counts().duplicates), (0, 0));
    let roots: u64 = spans.iter().filter(|span| span.parent.is_none()).count() as u64;
    assert_eq!(roots, known.traces, "every trace has one root");
    (graph, snapshot)
}

#[test]
fn online_boutique_without_faults() {
    let (spans, report) = nezha(&testdata("nezha/onlineboutique-2022-08-23-faultfree"));
    let known = Known { traces: 502, spans: 22_969, duplicates: 0, services: 10, edges: 13 };
    let (_, snapshot) = check(&spans, &report, &known);
    assert!(snapshot.edge("frontend", "checkoutservice").is_some());
    // One minute of one operation mix: no decision from it has full permission.
    for service in snapshot.services() {
        let level = snapshot.permission(&[service], snapshot.taken_at()).level;
        assert_ne!(level, recovery::graph::Level::Full, "{service}");
    }
}

#[test]
fn train_ticket_without_faults() {
    let (spans, report) = nezha(&testdata("nezha/trainticket-2023-01-29-faultfree"));
    check(&spans, &report, &Known { traces: 71, spans: 4_890, duplicates: 0, services: 25, edges: 42 });
}

#[test]
fn social_network_in_jaeger_json() {
    let bytes = unzipped(&testdata("deathstarbench/socialnetwork-compose-20traces.jaeger.json.gz"));
    let (spans, report) = spans(&bytes, &Options { authenticated: true, dictionary: None }).unwrap();
    let (_, snapshot) =
        check(&spans, &report, &Known { traces: 20, spans: 660, duplicates: 0, services: 12, edges: 11 });
    // Twenty traces are too few to say anything.
    assert!(group(&snapshot, &["compose-post-service"], &GroupPolicy::at(snapshot.taken_at())).is_err());
}

#[test]
fn a_large_list_of_edges_makes_nobody_a_group() {
    let bytes = unzipped(&testdata("jaeger-ui-large/dependencies.json.gz"));
    let (edge, report) = edge_list(&mut bytes.as_slice()).unwrap();
    assert_eq!((report.kept, report.duplicates, report.dropped_total()), (4_271, 0, 0));
    let topology = Topology { edge, ..Topology::default() };
    let (graph, now) = Replay::new(&Config::default(), Some(&topology)).unwrap().finish();
    let snapshot = graph.snapshot(now);
    assert_eq!((snapshot.services().count(), snapshot.edges().len()), (1_238, 4_271));
    let mut calls = petgraph::graph::DiGraph::<(), ()>::new();
    let nodes: BTreeMap<&str, _> = snapshot.services().map(|name| (name, calls.add_node(()))).collect();
    for edge in snapshot.edges() {
        calls.add_edge(nodes[edge.caller.as_str()], nodes[edge.callee.as_str()], ());
    }
    let circles = petgraph::algo::tarjan_scc(&calls);
    assert_eq!(circles.iter().map(Vec::len).max(), Some(356), "services that call each other in circles");
    let largest = snapshot.services().map(|name| snapshot.coupled_closure(&[name]).len()).max();
    assert_eq!(largest, Some(1), "and nobody restarts with another for that");
    // A list counts no requests: nothing may be acted on.
    let levels: Vec<_> = snapshot.services().map(|name| snapshot.permission(&[name], now).level).collect();
    assert!(levels.iter().all(|level| *level == recovery::graph::Level::Refused));
}

#[test]
fn every_hand_made_trace_is_read() {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut open = vec![testdata("crisp")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "json") {
                files.push(path);
            }
        }
    }
    assert_eq!(files.len(), 33);
    for path in files {
        let (spans, report) = spans(&std::fs::read(&path).unwrap(), &Options::default()).unwrap();
        assert!(!spans.is_empty() && report.dropped_total() == 0, "{}: {report:?}", path.display());
    }
}

/// The folder with the samples that may not be copied, or that are too large to be.
fn folder() -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "where the large samples are is known to the person who runs this")]
    let folder = std::env::var("STANCH_TRACES").ok();
    if folder.is_none() {
        // Not with `eprintln`, whose lines the test harness keeps to itself.
        let line = "skipped: STANCH_TRACES does not name a folder with the large trace samples";
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    folder
}

#[test]
fn alibaba_rows_when_they_are_there() {
    let Some(folder) = folder() else { return };
    /// Year, what was kept as stated, repaired and dropped, edges.
    type Case<'a> = (&'a str, u64, &'a [(&'static str, u64)], &'a [(&'static str, u64)], usize);
    let cases: [Case<'_>; 2] = [
        (
            "2021",
            // A first count of these rows by hand had 489 kept and 65 detached: two calls that name no caller stand
            // below calls that name no callee, and neither has a position. Of the edges 172 are stated, and eight
            // are not: what was filled or inferred implies them. The first count had five of these.
            488,
            &[("R4 conflict", 30), ("R5 fill", 8), ("R6 hole", 21)],
            &[("below broken", 15), ("conflict", 55), ("detached", 66), ("no callee", 47), ("orphan", 38)],
            180,
        ),
        (
            "2022",
            // A first count had 5 and 4 conflicts: of the two statements about 0.1.2.1.1 of one trace, all calls below
            // name the callee of one, so R4 takes it.
            707,
            &[("R4 conflict", 6), ("R5 fill", 30), ("R6 hole", 2)],
            &[("conflict", 3), ("detached", 45), ("no callee", 22), ("orphan", 23)],
            190,
        ),
    ];
    for (year, kept, repaired, dropped, edges) in cases {
        let path = Path::new(&folder).join(format!("alibaba-casper/{year}-shuffled-sample-traces-small.csv.gz"));
        let (spans, report) = spans(&unzipped(&path), &Options { authenticated: true, dictionary: None }).unwrap();
        let mut rules = report.repaired.clone();
        rules.remove("twin");
        assert_eq!(rules, repaired.iter().copied().collect(), "{year}");
        assert_eq!(report.dropped, dropped.iter().copied().collect(), "{year}");
        assert_eq!(report.kept - rules.values().sum::<u64>(), kept, "{year}");
        let (graph, now) = replay(&Config::default(), None, &spans).unwrap();
        assert_eq!(graph.snapshot(now).edges().len(), edges, "{year}");
    }
}

#[test]
fn large_samples_when_they_are_there() {
    let Some(folder) = folder() else { return };
    let stem = |name: &str| Path::new(&folder).join("nezha").join(name);
    let (spans, report) = nezha(&stem("trainticket-2023-01-29-faults"));
    let known = Known { traces: 4_483, spans: 321_068, duplicates: 7_644, services: 28, edges: 55 };
    let (graph, snapshot) = check(&spans, &report, &known);
    assert_eq!(graph.operation_counts(), (48, 75));
    let level = |service: &&str| snapshot.permission(&[service], snapshot.taken_at()).level;
    let full = snapshot.services().filter(|name| level(name) == recovery::graph::Level::Full).count();
    assert_eq!(full, 12, "services of 28 that reach one percent");
    let (spans, report) = nezha(&stem("onlineboutique-2022-08-22-faults-first8min"));
    check(&spans, &report, &Known { traces: 3_794, spans: 147_133, duplicates: 1_035, services: 10, edges: 13 });
}

/// A published graph in which the strongest component of calls has 356 services: cycles of calls group nothing.
#[test]
fn a_large_graph_with_cycles_groups_nothing() {
    #[expect(clippy::disallowed_methods, reason = "where the large samples are is known to the person who runs this")]
    let Ok(folder) = std::env::var("STANCH_TRACES") else {
        let line = "skipped: STANCH_TRACES does not name a folder with the large trace samples";
        let _ = writeln!(std::io::stderr(), "{line}");
        return;
    };
    let bytes = unzipped(&Path::new(&folder).join("jaeger-ui-large/dependencies.json.gz"));
    let edges: Vec<serde_json::Value> = serde_json::from_slice(&bytes).unwrap();
    let mut spans = Vec::new();
    for (edge, trace) in edges.iter().zip(1_u128..) {
        let name = |key: &str| edge[key].as_str().unwrap().to_owned();
        let span = |id, parent, service| Span {
            trace,
            id,
            parent,
            service,
            name: "*".into(),
            start_us: 1_000_000,
            duration_us: 10,
            authenticated: true,
            ..Span::default()
        };
        spans.extend([span(1, None, name("parent")), span(2, Some(1), name("child"))]);
    }
    let (graph, now) = replay(&Config::default(), None, &spans).unwrap();
    let snapshot = graph.snapshot(now);
    assert_eq!((snapshot.services().count(), snapshot.edge_count()), (1_238, 4_271));
    assert_eq!(snapshot.start_order().largest_block(), 356);
    let largest = snapshot.services().map(|name| snapshot.coupled_closure(&[name]).len()).max();
    assert_eq!(largest, Some(1), "nothing is coupled");
    let callers: Vec<u32> = snapshot.services().map(|name| snapshot.hard_callers(&[name], 5_000).at_least()).collect();
    assert_eq!(callers.iter().max(), Some(&876));
}
