//! `stanch bench`: every workload runs and counts, for a moment. Never how fast.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use serde_json::Value;
use support::{Server, processes_of, stanch};

const LOADS: [&str; 6] = ["create", "get", "create_settle", "task_create_fulfill", "step", "heartbeat20"];

fn bench(dir: &std::path::Path, more: &[&str]) -> Value {
    let mut arguments = vec!["bench", "protocol", "--json", "--secs", "0.1", "--dir", dir.to_str().unwrap()];
    arguments.extend(more);
    let ran = stanch(&arguments);
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert_eq!(ran.out.lines().count(), 1, "one object: {}", ran.out);
    ran.json()
}

#[test]
fn every_load_runs_with_each_number_of_connections_and_is_answered_rightly() {
    let dir = tempfile::tempdir().unwrap();
    let mut more = vec!["--conns", "2,5"];
    LOADS.iter().for_each(|load| more.extend(["--workload", load]));
    let report = bench(dir.path(), &more);
    let loads = report["loads"].as_array().unwrap();
    assert_eq!(loads.len(), 2 * LOADS.len(), "{report}");
    for (row, (load, connections)) in loads.iter().zip(LOADS.iter().flat_map(|load| [(load, 2), (load, 5)])) {
        assert_eq!((row["workload"].as_str(), row["connections"].as_u64()), (Some(*load), Some(connections)), "{row}");
        assert!(row["requests"].as_u64().unwrap() >= connections, "{row}");
        assert_eq!(row["wrong"], 0, "{row}");
        assert!(row["p50_ms"].as_f64().unwrap() > 0.0 && row["per_second"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["p50_ms"].as_f64() <= row["p99_ms"].as_f64(), "{row}");
        assert!(row["server_cpu_us"].is_number(), "its own server's process is known: {row}");
    }
    let floor = &report["floor"];
    assert_eq!(floor["echo"].as_array().unwrap().len(), 2, "{floor}");
    assert!(floor["syncs"].as_u64().unwrap() > 0 && floor["sync_p50_us"].as_f64().unwrap() > 0.0, "{floor}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "its files are removed");
    assert!(processes_of(dir.path()).is_empty(), "its servers have ended");
}

#[test]
fn every_effect_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let mut more = vec!["--conns", "2", "--promises", "300"];
    let effects = ["execute", "backlog", "join", "long_workflow", "takeover", "memory"];
    effects.iter().for_each(|effect| more.extend(["--workload", effect]));
    let report = bench(dir.path(), &more);
    let found: Vec<&str> =
        report["effects"].as_array().unwrap().iter().map(|effect| effect["effect"].as_str().unwrap()).collect();
    let expected = [
        "execute, alone",
        "execute, beside load",
        "backlog",
        "join",
        "step 1 of one workflow",
        "step 100 of one workflow",
        "takeover, connection dropped",
        "takeover, lease lapsed",
        "memory, filled",
        "memory, after restart",
        "restart to ready",
    ];
    assert_eq!(found, expected, "{report}");
    for effect in report["effects"].as_array().unwrap() {
        assert!(effect["value"].as_f64().unwrap() > 0.0 && effect["count"].as_u64().unwrap() > 0, "{effect}");
    }
}

#[test]
fn a_given_server_is_measured_and_left_running() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &["--no-executor"]);
    let pid = server.process.pid().to_string();
    let files = dir.path().join("bench");
    std::fs::create_dir(&files).unwrap();
    let more = ["--url", &server.url, "--pid", &pid, "--workload", "create", "--conns", "2"];
    // Twice: the ids of one run are not those of another.
    for _ in 0..2 {
        let report = bench(&files, &more);
        assert_eq!((&report["loads"][0]["wrong"], report["url"].as_str()), (&Value::from(0), Some(&*server.url)));
        assert!(report["loads"][0]["server_cpu_us"].is_number(), "{report}");
    }
    server.end();
}

#[test]
fn a_wrong_answer_and_a_missing_server_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let gone = ["--url", "http://127.0.0.1:1", "--workload", "create", "--secs", "0.1", "--dir", path];
    let ran = stanch(&[&["bench", "protocol"][..], &gone[..]].concat());
    assert!(ran.exit == 1 && ran.err.contains("127.0.0.1:1") && ran.err.contains("try: stanch serve"), "{ran:?}");
    // Without its lease a server refuses what `step` asks: here, a server of the old paths only.
    let memory = ["--url", "http://127.0.0.1:1", "--workload", "memory", "--secs", "0.1", "--dir", path];
    let ran = stanch(&[&["bench", "protocol"][..], &memory[..]].concat());
    assert!(ran.exit != 0 && ran.err.contains("one of its own"), "{ran:?}");
}

#[test]
fn groups_are_measured_and_compared() {
    let ran = stanch(&["bench", "groups", "--quick", "--json"]);
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert_eq!(ran.out.lines().count(), 1, "one object: {}", ran.out);
    let report = ran.json();
    for field in [
        "rebuild_p99_us_20k",
        "query_p99_us_20k",
        "query_p99_us_paper",
        "end_to_end_p99_us_20k",
        "baseline_query_p99_us_paper",
        "ingest_spans_per_s",
        "otlp_spans_per_s",
        "rss_mb_100k_edges",
    ] {
        assert!(report[field].as_f64().unwrap() > 0.0, "{field}: {report}");
    }
    assert_eq!(report["quick"], true, "its figures are not to be taken for measurements");
    for shape in ["paper", "t20k"] {
        let [p50, p99, max] = ["p50", "p99", "max"].map(|part| report[shape]["query_us"][part].as_f64().unwrap());
        assert!(p50 <= p99 && p99 <= max, "{report}");
        let (ours, theirs) = (&report[shape]["misses"], &report[shape]["baseline_misses"]);
        assert_eq!(ours["asked"], theirs["asked"], "both are asked the same");
        assert_eq!(ours["needless"], 0, "a group holds what is coupled and nothing else");
        assert!(ours["missed"].as_u64() < theirs["missed"].as_u64(), "{ours} {theirs}");
    }
    assert_eq!(report["growth"].as_array().unwrap().len(), 2);
    let ran = stanch(&["bench", "groups", "--quick"]);
    assert!(ran.out.contains("QUICK") && ran.out.contains("the paper's algorithm"), "{}", ran.out);
}
