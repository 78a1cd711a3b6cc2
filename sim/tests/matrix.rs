//! The kill matrix in its short form; `cargo xtask crash-matrix` runs all of it.

use sim::crash::{Crash, Edge, Kind, Victim};
use sim::incident::run;
use sim::matrix::{Keys, Options, matrix, points};

/// Every how many-th point the short form takes: no divisor of the number of victims and edges, so that all of them
/// come by.
const EVERY: usize = 17;

#[test]
fn every_kill_leaves_an_incident_that_ends_once_and_in_truth() {
    let options = Options { seed: 1, every: EVERY, jobs: 2, only: None };
    let found = matrix(&options, |_, _, _| {}).unwrap();
    assert_eq!(found.calm.outcome, "committed", "{}", found.calm.why);
    let killed: std::collections::BTreeSet<Victim> =
        found.runs.iter().filter_map(|account| Some(account.crash?.victim)).collect();
    assert_eq!(killed.len(), Victim::ALL.len(), "the short form kills everybody");
    let wrong: Vec<String> = found
        .failed()
        .iter()
        .map(|account| {
            let crash = account.crash.map_or_else(|| "calm".to_owned(), |crash| crash.to_string());
            format!(
                "cargo run --release -p stanch-sim -- --seed 1 --only {crash}: {:?} {}",
                account.faults, account.why
            )
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_same_run_happens_the_same_way_every_time() {
    let keys = Keys::new().unwrap();
    let crash = Crash { victim: Victim::Executor, kind: Kind::Actuation, n: 2, edge: Edge::After };
    let first = run(1, keys.path(), Some(crash), false).unwrap();
    let second = run(1, keys.path(), Some(crash), false).unwrap();
    let differs = first.trace.iter().zip(&second.trace).find(|(a, b)| a != b);
    assert_eq!(first.digest, second.digest, "{differs:?}");
    assert!(first.fired && first.faults.is_empty(), "{:?}", first.faults);
}

#[test]
fn a_successor_after_an_unrecorded_effect_repeats_nothing() {
    let keys = Keys::new().unwrap();
    let calm = run(1, keys.path(), None, false).unwrap();
    let all = points(&calm);
    let unrecorded = all
        .iter()
        .filter(|crash| (crash.victim, crash.kind, crash.edge) == (Victim::Executor, Kind::Actuation, Edge::After));
    for crash in unrecorded {
        let account = run(1, keys.path(), Some(*crash), false).unwrap();
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
