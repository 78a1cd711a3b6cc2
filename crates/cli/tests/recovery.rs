//! Whole recoveries of the sample shop. They use the whole machine, so one test runs them one after the other.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use governance::bundle::{Trust, verify};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use support::{Random, marked, stanch, wait_until_nothing_is_left};

const STAGES: [&str; 13] = [
    "detect", "intent", "agents", "group", "check", "preview", "decide", "approve", "recheck", "commit", "undo",
    "converge", "seal",
];

/// How many runs may be left to a person before that counts as a failure.
const TRIES_MAX: u32 = 3;

#[test]
fn the_shop_is_recovered_with_evidence_and_leaves_no_process() {
    until_it_commits("whole", whole);
    until_it_commits("judged", judged);
}

/// On a machine that is busy with other things more is slow than what was broken, and it is rightly left to a person:
/// then it is tried again. `Err`: it was left to a person, in these words.
fn until_it_commits(name: &str, run: fn(&Path) -> Result<(), String>) {
    for tried in 1.. {
        let dir = tempfile::tempdir().unwrap();
        match run(&dir.path().join(name)) {
            Ok(()) => return,
            Err(said) => assert!(tried < TRIES_MAX, "{name}: {tried} recoveries were left to a person: {said}"),
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// One incident from beginning to end, its answer, and what it leaves.
fn whole(dir: &Path) -> Result<(), String> {
    let data = dir.join("data");
    let command = ["recover", "--sandbox", "--json", "--fault", "hang", "--seed", "1", "--data", text(&data)];
    let ran = marked(dir, &command);
    wait_until_nothing_is_left(dir);
    if ran.exit == 20 {
        return Err(ran.err);
    }
    assert_eq!(ran.exit, 0, "{}\n{}", ran.out, ran.err);
    let view = ran.json();
    answered(&view);
    restarted_once(&data);
    let file = view["evidence"]["file"].as_str().unwrap();
    proves(Path::new(file), &data.join("server/trust.keys"), &view);
    Ok(())
}

/// A bad configuration is rolled back, by the judgment of the shop's own client and the truth about what was broken.
fn judged(dir: &Path) -> Result<(), String> {
    let data = dir.join("data");
    let command = ["lab", "faults", "--fault", "bad-config", "--seeds", "1", "--json", "--data", text(&data)];
    let ran = marked(dir, &command);
    wait_until_nothing_is_left(dir);
    let told = ran.json();
    if told["cells"][0]["run"]["outcome"] == "escalated" {
        return Err(ran.err);
    }
    assert_eq!(ran.exit, 0, "{}\n{}", ran.out, ran.err);
    assert_eq!((&told["correct"], told["cells"].as_array().map(Vec::len)), (&json!(true), Some(1)), "{told}");
    let run = &told["cells"][0]["run"];
    assert_eq!(
        (&run["outcome"], &run["plan"]),
        (&json!("committed"), &json!("rollback config/shop/payments to last-good")),
        "{run}"
    );
    let verdict = &run["verdict"];
    assert_eq!((&verdict["repeated"], &verdict["client"]["shed"]), (&json!(0), &json!(0)), "{verdict}");
    assert!(verdict["client"]["sent"].as_u64() > Some(0) && verdict["recovered_ms"].is_u64(), "{verdict}");
    Ok(())
}

fn answered(view: &Value) {
    for (key, expected) in [("outcome", json!("committed")), ("exit", json!(0)), ("policy", json!("sandbox"))] {
        assert_eq!(view[key], expected, "{view}");
    }
    assert_eq!(view["incident"].as_str().map(str::len), Some(26), "{view}");
    let stages = view["stages"].as_array().unwrap();
    let named: Vec<(u64, &str)> =
        stages.iter().map(|stage| (stage["n"].as_u64().unwrap(), stage["name"].as_str().unwrap())).collect();
    assert_eq!(named, (1..).zip(STAGES).collect::<Vec<_>>());
    assert!(stages.iter().all(|stage| stage["ms"].is_u64()), "{stages:?}");

    let revisions = view["revisions"].as_array().unwrap();
    assert_eq!(revisions[0]["rejections"][0]["code"], "K207", "{}", revisions[0]);
    assert!(revisions.len() >= 2, "the refused plan was followed by none");
    let digests: BTreeSet<_> = revisions.iter().filter_map(|revision| revision["digest"].as_str()).collect();
    assert_eq!(digests.len(), revisions.len(), "every revision is another plan");
    assert!(revisions.last().unwrap()["rejections"].as_array().unwrap().is_empty());
    let pilots = view["pilots"].as_array().unwrap();
    assert!(!pilots.is_empty() && pilots.iter().all(|pilot| pilot["runs"].as_u64() > Some(0)), "{pilots:?}");
    let last = pilots.last().unwrap();
    assert_eq!((&last["result"], &last["findings"]), (&json!("completed"), &json!([])), "{last}");
    assert_eq!(view["decision"]["outcome"], "commit", "{}", view["decision"]);
    let invariants = view["decision"]["invariants"].as_array().unwrap();
    assert!(invariants.len() >= 4 && invariants.iter().all(|found| found["outcome"] == "holds"), "{invariants:?}");

    let commit = &view["commit"];
    let steps = commit["steps"].as_array().unwrap();
    assert!(!steps.is_empty() && steps.iter().all(|step| step["state"] == "done"), "{commit}");
    assert_eq!((&commit["executor_killed"], &commit["repeated"]), (&json!(true), &json!(0)), "{commit}");
    assert!(commit["takeover_ms"].is_u64(), "no successor was seen: {commit}");
    assert_eq!(view["convergence"]["outcome"], "converged", "{}", view["convergence"]);
    assert_eq!(view["evidence"]["verified"], true);
}

/// The services' own logs of their starts: one replica once more, for one step.
fn restarted_once(data: &Path) {
    let mut again = Vec::new();
    for file in std::fs::read_dir(data.join("starts")).unwrap() {
        let starts = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let parsed = starts.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        again.extend(parsed.filter(|start| start["generation"].as_u64() > Some(1)));
    }
    assert_eq!(again.len(), 1, "{again:?}");
    assert!(again[0]["key"].as_str().is_some_and(|key| !key.is_empty()), "{again:?}");
}

/// The bundle verifies without its server, and no altered copy of it does.
fn proves(file: &Path, trust: &Path, view: &Value) {
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(view["evidence"]["digest"], json!(base::Digest::of(&bytes).to_string()));
    let plain = stanch(&["evidence", "verify", text(file)]);
    assert!(plain.exit == 0 && plain.out.starts_with("VERIFIED"), "{plain:?}");
    let pinned = stanch(&["evidence", "verify", "--json", text(file), "--trust", text(trust)]);
    let told = pinned.json();
    assert_eq!((pinned.exit, &told["verified"], &told["pinned"]), (0, &json!(true), &json!(true)), "{pinned:?}");
    assert_eq!((&told["incident"], &told["outcome"]), (&view["incident"], &view["outcome"]));

    let keys = Trust::parse(&std::fs::read_to_string(trust).unwrap()).unwrap();
    assert!(verify(&bytes, Some(&keys)).is_ok());
    let mut random = Random(20_261_120);
    let altered = file.with_extension("altered");
    let by_command = |copy: &[u8], what: &str| {
        std::fs::write(&altered, copy).unwrap();
        assert_eq!(stanch(&["evidence", "verify", text(&altered)]).exit, 50, "{what}");
    };
    for flip in 0..200 {
        let (at, bit) = (random.index(bytes.len()), random.below(8));
        let mut copy = bytes.clone();
        copy[at] ^= 1 << bit;
        let what = format!("bit {bit} of byte {at} flipped");
        assert!(verify(&copy, None).is_err(), "{what}");
        if flip % 40 == 0 {
            by_command(&copy, &what);
        }
    }
    for cut in 0..20 {
        let copy = &bytes[..random.index(bytes.len())];
        let what = format!("cut to {} bytes", copy.len());
        assert!(verify(copy, None).is_err(), "{what}");
        if cut % 10 == 0 {
            by_command(copy, &what);
        }
    }
}
