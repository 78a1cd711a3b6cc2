//! Spans of the OpenTelemetry SDK as its registry serves it, sent to a running server in every way there is, become
//! groups that can be asked for.

use crate::environments;
use crate::support::{Ran, Server, http, output, skip, stanch, wait_for};
use serde_json::Value;
use std::path::Path;

/// LIMIT: traces sent in each way: enough for a bound of one percent.
const TRACES: u64 = 300;
/// Spans of one trace, and services that send them.
const SPANS: u64 = 5;

#[test]
fn spans_of_another_languages_sdk_become_groups() {
    let sdk = match environments::opentelemetry() {
        Ok(sdk) => sdk,
        Err(why) => return skip("sdk", &why),
    };
    let dir = tempfile::tempdir().unwrap();
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sandbox/sandbox.policy.toml");
    // Declared, so that the windows of its tier hold: seconds instead of a minute until the graph counts as fresh.
    let topology = dir.path().join("stanch.toml");
    std::fs::write(&topology, "[service.orders]\n").unwrap();
    let files = ["--policy", policy.to_str().unwrap(), "--topology", topology.to_str().unwrap(), "--no-executor"];
    let listen = ["--otlp-grpc", "127.0.0.1:0", "--otlp-http", "127.0.0.1:0"];
    let server = Server::start(&dir.path().join("data"), &[&files[..], &listen].concat());
    let ready: Value = serde_json::from_slice(&std::fs::read(dir.path().join("data/server.json")).unwrap()).unwrap();
    let (grpc, beside) = (ready["otlp_grpc"].as_str().unwrap(), ready["otlp_http"].as_str().unwrap());
    let mut sent = 0;
    for (way, endpoint) in [("grpc", grpc), ("http", beside), ("http", server.url.as_str())] {
        for compression in ["none", "gzip"] {
            let ran = Ran::from(output(sdk.command(endpoint, &[way, compression, &TRACES.to_string()])));
            assert_eq!((ran.exit, ran.json()["taken"].as_u64()), (0, Some(TRACES * SPANS)), "{way} {endpoint} {ran:?}");
            sent += TRACES * SPANS;
        }
    }
    let (_, metrics) = http(&server.url, "GET", "/metrics", "");
    let count = |result: &str| {
        let line = format!("stanch_spans_total{{result=\"{result}\"}} ");
        metrics.lines().find_map(|text| text.strip_prefix(&line)?.parse::<u64>().ok())
    };
    assert_eq!((count("received"), count("refused"), count("lost_parent")), (Some(sent), Some(0), Some(0)));
    // Until spans were joined for long enough, the graph counts as stale.
    let group = wait_for("a graph that is fresh", || {
        let more = Ran::from(output(sdk.command(&server.url, &["http", "none", "50"])));
        assert_eq!(more.exit, 0, "{more:?}");
        let group = stanch(&["group", "orders", "--server", &server.url, "--json"]);
        (!group.out.is_empty()).then_some(group)
    });
    let answer = group.json();
    assert_eq!(answer["restart"], serde_json::json!(["orders"]), "{group:?}");
    assert_eq!(answer["hard_callers"], serde_json::json!(["front"]), "{group:?}");
    assert_eq!(answer["order"][0]["first"], "ledger", "{group:?}");
    let unknown = stanch(&["group", "order", "--server", &server.url]);
    assert!(unknown.exit == 2 && unknown.err.contains("orders"), "{unknown:?}");
    server.end();
}
