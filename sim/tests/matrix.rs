//! The kill matrix in its short form; `cargo xtask crash-matrix` runs all of it.
#![expect(clippy::unwrap_used, reason = "a test says what fails by failing")]

use sim::crash::{Crash, Edge, Kind, Victim};
use sim::incident::{Setting, Story, run};
use sim::matrix::{Keys, Options, matrix, points};

/// Every how many-th point the short form takes: no divisor of the number of victims and edges, so that all of them
/// come by.
const EVERY: usize = 17;

#[test]
fn every_kill_of_a_recovery_leaves_an_incident_that_ends_once_and_in_truth() {
    check(Story::Cure);
}

#[test]
fn every_kill_of_a_recovery_that_fails_leaves_an_incident_that_ends_once_and_in_truth() {
    check(Story::Relapse);
}

fn check(story: Story) {
    let options = Options { seed: 1, story, every: EVERY, jobs: 2, only: None };
    let found = matrix(&options, |_, _, _| {}).unwrap();
    assert_eq!(found.calm.outcome, story.ends(), "{}", found.calm.why);
    let killed: std::collections::BTreeSet<Victim> =
        found.runs.iter().filter_map(|account| Some(account.crash?.victim)).collect();
    assert_eq!(killed.len(), Victim::ALL.len(), "the short form kills everybody");
    let wrong: Vec<String> = found
        .failed()
        .iter()
        .map(|account| {
            let crash = account.crash.map_or_else(|| "calm".to_owned(), |crash| crash.to_string());
            let (story, faults) = (story.word(), &account.faults);
            format!("cargo run --release -p stanch-sim -- --story {story} --only {crash}: {faults:?} {}", account.why)
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_same_run_happens_the_same_way_every_time() {
    let keys = Keys::new().unwrap();
    let crash = Crash { victim: Victim::Executor, kind: Kind::Actuation, n: 2, edge: Edge::After };
    let setting = Setting { seed: 1, story: Story::Cure, keys: keys.path(), is_live: false };
    let first = run(&setting, Some(crash)).unwrap();
    let second = run(&setting, Some(crash)).unwrap();
    let differs = first.trace.iter().zip(&second.trace).find(|(a, b)| a != b);
    assert_eq!(first.digest, second.digest, "{differs:?}");
    assert!(first.fired && first.faults.is_empty(), "{:?}", first.faults);
}

#[test]
fn a_successor_after_an_unrecorded_effect_repeats_nothing() {
    let keys = Keys::new().unwrap();
    let setting = Setting { seed: 1, story: Story::Cure, keys: keys.path(), is_live: false };
    let calm = run(&setting, None).unwrap();
    let all = points(&calm);
    let unrecorded = all
        .iter()
        .filter(|crash| (crash.victim, crash.kind, crash.edge) == (Victim::Executor, Kind::Actuation, Edge::After));
    for crash in unrecorded {
        let account = run(&setting, Some(*crash)).unwrap();
        assert_eq!((account.outcome.as_str(), account.faults.len()), ("committed", 0), "{crash}: {:?}", account.faults);
        assert_eq!(account.actuations, calm.actuations, "{crash}: looked up, not performed again");
    }
}

#[test]
fn the_name_of_a_kill_reads_back() {
    for text in ["server:before:write:1", "supervisor:after:actuation:3"] {
        assert_eq!(text.parse::<Crash>().unwrap().to_string(), text);
    }
    for text in ["", "server", "nobody:before:write:1", "server:during:write:1", "server:before:write:x"] {
        assert!(text.parse::<Crash>().is_err(), "{text}");
    }
}
