//! Judges from outside: the program's own word counts only where it agrees with the others.

use crate::support::Server;
use crate::{Run, values};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The scenarios, in the order in which each program runs them.
pub(crate) const SCENARIOS: &[&str] =
    &["steps", "remote", "fan_out", "nested", "sleep", "external", "reject", "crash", "late", "two_long", "schedule"];
/// A worker whose connection drops is succeeded after this grace; what comes on top is the machine's.
const GRACE_MS: f64 = 2_000.0;
/// How often a schedule fires before it is deleted, at least.
const FIRINGS: usize = 3;
/// LIMIT: what a busy machine may add to a delay, in milliseconds. The delays this is told from are a retry after 30 s
/// and a lease of 20 s.
const SLACK_MS_MAX: f64 = 3_000.0;
/// Statuses that the SDKs take for answers; they take every other for a server that is down.
const ANSWERED: [u64; 5] = [200, 300, 404, 409, 422];

/// Fails unless every program did in every scenario what it should, as seen by everybody.
pub(crate) fn judge(runs: &[Run], server: &Server) {
    let mut ids = BTreeSet::new();
    for run in runs {
        let said = values(&run.out);
        let names: Vec<&str> = said.iter().filter_map(|line| line["name"].as_str()).collect();
        assert_eq!(names, SCENARIOS, "{}: {}", run.name, run.err);
        let failed: Vec<&Value> = said.iter().filter(|line| line["ok"] != true).collect();
        assert!(failed.is_empty() && run.exit == 0, "{}: {failed:#?} {}", run.name, run.err);
        let ledger = values(&run.ledger);
        for line in &said {
            let id = line["id"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} twice");
            judge_steps(line, &ledger).unwrap_or_else(|why| panic!("{}: {line}: {why}", run.name));
            judge_figures(line).unwrap_or_else(|why| panic!("{}: {line}: {why}", run.name));
            judge_records(line, server);
        }
        let refused: Vec<_> =
            run.witness.answers().into_iter().filter(|((_, status), _)| !ANSWERED.contains(status)).collect();
        assert!(refused.is_empty(), "{}: {refused:?}", run.name);
    }
}

/// How often each step has to begin: once, but for the one in whose middle its worker is killed.
fn expected(scenario: &str) -> BTreeMap<String, u64> {
    let once: Vec<String> = match scenario {
        "steps" | "late" | "crash" => ["one", "two", "three"].map(String::from).into(),
        "remote" => ["before", "there", "after"].map(String::from).into(),
        "fan_out" => (0..8).flat_map(|i| [format!("local{i}"), format!("there{i}")]).collect(),
        "nested" => ["inner", "deep", "detached"].map(String::from).into(),
        "sleep" => ["before", "after"].map(String::from).into(),
        "external" => ["after"].map(String::from).into(),
        "reject" => ["broken", "caught"].map(String::from).into(),
        "two_long" => ["first", "second"].map(String::from).into(),
        other => panic!("{other}"),
    };
    let mut steps: BTreeMap<String, u64> = once.into_iter().map(|step| (step, 1)).collect();
    if scenario == "crash" {
        steps.insert("two".into(), 2);
    }
    steps
}

/// The steps of a scenario by what the ledger says, which the program must have said too.
fn judge_steps(line: &Value, ledger: &[Value]) -> Result<(), String> {
    let mut ran = BTreeMap::<String, u64>::new();
    for entry in ledger.iter().filter(|entry| entry["run"] == line["id"] && entry["phase"] == "begin") {
        *ran.entry(entry["step"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    if json!(ran) != line["ran"] {
        return Err(format!("the ledger says {ran:?}"));
    }
    let name = line["name"].as_str().unwrap_or_default();
    let right = if name == "schedule" {
        ran.len() >= FIRINGS && ran.values().all(|times| *times == 1)
    } else {
        ran == expected(name)
    };
    if right { Ok(()) } else { Err("steps were repeated or left out".into()) }
}

/// The delays of a scenario.
fn judge_figures(line: &Value) -> Result<(), String> {
    let (least, most, name) = match line["name"].as_str().unwrap_or_default() {
        "sleep" => (1_000.0, 1_000.0 + SLACK_MS_MAX, "slept_ms"),
        "external" => (0.0, SLACK_MS_MAX, "woke_ms"),
        "crash" => (GRACE_MS, GRACE_MS + SLACK_MS_MAX, "takeover_ms"),
        "late" => (0.0, SLACK_MS_MAX, "started_ms"),
        _ => return Ok(()),
    };
    let measured = line["figures"][name].as_f64().ok_or("no such figure")?;
    if (least..=most).contains(&measured) { Ok(()) } else { Err(format!("{name} not in {least}..={most}")) }
}

/// What the server holds of a scenario's workflows.
fn judge_records(line: &Value, server: &Server) {
    let id = line["id"].as_str().unwrap();
    let ids: Vec<String> = match line["name"].as_str().unwrap() {
        "two_long" => ["first", "second"].map(|name| format!("{id}-{name}")).into(),
        "schedule" => {
            let firings = line["figures"]["firings"].as_array().unwrap().iter().filter_map(Value::as_str);
            firings.map(str::to_owned).collect()
        }
        _ => vec![id.to_owned()],
    };
    let least = if line["name"] == "schedule" { FIRINGS } else { 1 };
    let state = if line["name"] == "reject" { "rejected" } else { "resolved" };
    assert!(ids.len() >= least, "{line}");
    for id in ids {
        let (status, found) = server.ask("promise.get", &json!({ "id": id }));
        assert_eq!((status, &found["promise"]["state"]), (200, &json!(state)), "{line}");
        let (status, found) = server.ask("task.get", &json!({ "id": id }));
        assert_eq!((status, &found["task"]["state"]), (200, &json!("fulfilled")), "{line}");
    }
}

/// One line: the delays of a run, and what was answered to what.
pub(crate) fn figures(run: &Run) -> String {
    let mut text = run.name.clone();
    for line in run.out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let figures = line["figures"].as_object().into_iter().flatten();
        for (name, value) in figures.filter(|(name, _)| !["lease_ms", "step_ms"].contains(&name.as_str())) {
            let number = value.as_array().map_or(value.as_f64(), |many| Some(many.len() as f64));
            let _ = write!(text, ", {name} {:.0}", number.unwrap_or_default());
        }
    }
    for ((kind, status), times) in run.witness.answers() {
        let _ = write!(text, ", {kind} {status} ×{times}");
    }
    text
}

#[test]
fn a_repeated_step_a_missing_step_and_a_false_word_are_each_seen() {
    let entry = |step: &str| json!({ "run": "id", "step": step, "phase": "begin" });
    let line = |ran: Value| json!({ "name": "two_long", "id": "id", "ran": ran });
    let once = [entry("first"), entry("second")];
    assert_eq!(judge_steps(&line(json!({ "first": 1, "second": 1 })), &once), Ok(()));
    let twice = [entry("first"), entry("second"), entry("first")];
    assert!(judge_steps(&line(json!({ "first": 2, "second": 1 })), &twice).is_err());
    assert!(judge_steps(&line(json!({ "first": 1 })), &once[..1]).is_err());
    assert!(judge_steps(&line(json!({ "first": 1, "second": 1 })), &twice).unwrap_err().contains("the ledger says"));
    let crashed = |ms: f64| json!({ "name": "crash", "figures": { "takeover_ms": ms } });
    assert_eq!(judge_figures(&crashed(GRACE_MS + 100.0)), Ok(()));
    assert!(judge_figures(&crashed(GRACE_MS + SLACK_MS_MAX + 1.0)).is_err(), "the lease was waited for");
    assert!(
        judge_figures(&crashed(GRACE_MS - 1.0)).is_err(),
        "a connection that comes back in time was not waited for"
    );
    assert!(judge_figures(&json!({ "name": "late", "figures": {} })).is_err());
}
