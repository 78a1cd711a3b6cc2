//! The SDKs of this protocol as their registries serve them, against one running server: ids of both eras, heartbeats
//! over several workflows, timers, promises settled from outside, workers that die and workers that come late.
//!
//! The programs are in `conformance/sdk`. All of them run at the same time against the same process, in each reading
//! of the protocol; what they say is checked against the ledger their steps wrote, the server's own answers, every
//! status that passed over the wire, and the invariants of the store they leave behind.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up has failed")]
#![expect(clippy::disallowed_methods, reason = "it runs programs of others")]
#![expect(clippy::print_stderr, reason = "what was measured is shown beside the verdict")]

mod environments;
mod judge;
mod otel;
#[path = "../support/mod.rs"]
mod support;
mod witness;

use environments::Sdk;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Mutex;
use support::{Server, output, program, skip, stanch, wait_until_nothing_is_left};
use witness::Witness;

/// WHY: the programs measure delays; both profiles at once would measure each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn every_sdk_works_unchanged_against_one_server() {
    all_against_one_server("default", 2);
}

#[test]
fn every_sdk_works_unchanged_where_only_acquiring_raises_the_version() {
    all_against_one_server("resonate-2026-04-01", 1);
}

/// What a program left behind.
pub(crate) struct Run {
    name: String,
    exit: i32,
    out: String,
    err: String,
    ledger: String,
    witness: Witness,
}

fn all_against_one_server(profile: &str, version_after_release: u64) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let sdks: Vec<Sdk> =
        environments::all().into_iter().filter_map(|made| made.map_err(|why| skip("sdk", &why)).ok()).collect();
    if sdks.is_empty() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &["--no-executor", "--protocol-profile", profile]);
    assert_eq!(version_of_a_released_task(&server), version_after_release, "{profile}");
    let (url, here) = (server.url.as_str(), dir.path());
    let runs: Vec<Run> = std::thread::scope(|scope| {
        let started: Vec<_> = sdks.iter().map(|sdk| scope.spawn(move || run(sdk, url, here))).collect();
        started.into_iter().map(|run| run.join().unwrap()).collect()
    });
    for run in &runs {
        eprintln!("{profile}, {}", judge::figures(run));
    }
    judge::judge(&runs, &server);
    server.end();
    let doctor = stanch(&["doctor", "--data", data.to_str().unwrap(), "--json"]);
    assert_eq!((doctor.exit, doctor.json()["ok"].as_bool()), (0, Some(true)), "{doctor:?}");
    wait_until_nothing_is_left(dir.path());
}

/// Says, from outside, which reading of the protocol is in force.
fn version_of_a_released_task(server: &Server) -> u64 {
    let tags = json!({ "resonate:target": "poll://any@nobody" });
    let create = json!({ "id": "profile", "timeoutAt": 32_503_680_000_000_u64, "tags": tags });
    let action = json!({ "kind": "promise.create", "head": {}, "data": create });
    let (status, made) = server.ask("task.create", &json!({ "pid": "p", "ttl": 60_000, "action": action }));
    assert_eq!((status, &made["task"]["version"]), (200, &json!(1)));
    assert_eq!(server.ask("task.release", &json!({ "id": "profile", "version": 1 })), (200, json!({})));
    let (_, found) = server.ask("task.get", &json!({ "id": "profile" }));
    found["task"]["version"].as_u64().unwrap()
}

fn run(sdk: &Sdk, server: &str, dir: &Path) -> Run {
    let witness = Witness::start(server);
    let ledger = dir.join(format!("{}.jsonl", sdk.name));
    let mut command = sdk.command(&witness.url, judge::SCENARIOS);
    command.env("SDK_LEDGER", &ledger).env(support::MARK, dir);
    let done = support::Ran::from(output(command));
    let ledger = std::fs::read_to_string(ledger).unwrap_or_default();
    Run { name: sdk.name.clone(), exit: done.exit, out: done.out, err: done.err, ledger, witness }
}

/// One value of a file of lines.
pub(crate) fn values(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn the_profile_is_a_setting_like_every_other_and_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    std::fs::write(dir.path().join("config.toml"), "[protocol]\nprofile = \"resonate-2026-04-01\"\n").unwrap();
    let server = Server::start(dir.path(), &["--no-executor"]);
    assert_eq!(version_of_a_released_task(&server), 1);
    server.end();
    let shown = stanch(&["config", "show", "--data", data]);
    assert!(shown.out.contains("resonate-2026-04-01"), "{shown:?}");
    let refused = stanch(&["serve", "--data", data, "--protocol-profile", "strict"]);
    assert_eq!(refused.exit, 2, "{refused:?}");
    let mut command = program(&["serve", "--data", data, "--port", "0"]);
    command.env("STANCH__PROTOCOL__PROFILE", "strict");
    let refused = support::Ran::from(output(command));
    assert!(refused.exit == 2 && refused.err.contains("strict"), "{refused:?}");
}
