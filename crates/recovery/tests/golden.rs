//! Real traces against the counts that are known of them.
#![expect(clippy::unwrap_used, reason = "a sample that cannot be read is a failed test")]

use recovery::graph::{Config, Graph, Snapshot, replay};
use recovery::groups::{GroupPolicy, group};
use recovery::import::{Options, Report, spans};
use recovery::span::Span;
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
fn large_samples_when_they_are_there() {
    #[expect(clippy::disallowed_methods, reason = "where the large samples are is known to the person who runs this")]
    let Ok(folder) = std::env::var("STANCH_TRACES") else {
        // Not with `eprintln`, whose lines the test harness keeps to itself.
        let line = "skipped: STANCH_TRACES does not name a folder with the large trace samples";
        let _ = writeln!(std::io::stderr(), "{line}");
        return;
    };
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
