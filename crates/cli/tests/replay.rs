//! Recorded incidents: what was decided then is decided now, by the same bytes; and `stanch replay` says so.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use governance::bundle::{Judgment, replay};
use std::path::{Path, PathBuf};
use support::stanch;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Bundles of real runs, by name.
fn incidents() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("conformance/incidents")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "stanch"));
    files.sort();
    files
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A decision that this version makes otherwise is found here, before anybody's evidence is.
#[test]
fn recorded_incidents_replay_to_the_same_decisions() {
    let (mut decisions, mut checks, mut outcomes) = (0, 0, Vec::new());
    for file in incidents() {
        let replay = replay(&std::fs::read(&file).unwrap(), None).unwrap();
        assert!(replay.is_same(), "{}: {:#?}", file.display(), replay.judged);
        decisions += replay.count(Judgment::Decision);
        checks += replay.count(Judgment::Check);
        outcomes.push(replay.verified.outcome);
    }
    println!("{} incidents, {decisions} decisions and {checks} checks made again: {outcomes:?}", outcomes.len());
    assert!(decisions >= 4 && checks > decisions, "{decisions} {checks}");
    assert!(["escalated", "undone"].iter().all(|outcome| outcomes.iter().any(|found| found == outcome)));
}

#[test]
fn replay_says_what_is_the_same_what_is_not_and_what_cannot_be_trusted() {
    let file = incidents().remove(0);
    let ran = stanch(&["replay", text(&file)]);
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{ran:?}");
    assert!(ran.out.contains("all the same bytes") && ran.out.contains("verified only"), "{}", ran.out);
    let shown = stanch(&["replay", text(&file), "--json"]).json();
    assert_eq!((&shown["same"], &shown["verified"]), (&true.into(), &true.into()));

    // The synthetic incident's decision was signed with a number that does not follow from its inputs.
    let forged = root().join("crates/governance/testdata/another-decision.stanch");
    let ran = stanch(&["replay", text(&forged)]);
    assert_eq!(ran.exit, 3, "{ran:?}");
    assert!(ran.out.contains("numbers.retries_ppm: on record 1, now 1600000"), "{}", ran.out);
    assert_eq!(stanch(&["replay", text(&forged), "--json"]).json()["same"], false);

    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("broken.stanch");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&broken, bytes).unwrap();
    let ran = stanch(&["replay", text(&broken)]);
    assert!(ran.exit == 50 && ran.out.is_empty() && ran.err.contains("NOT VERIFIED"), "{ran:?}");

    for arguments in [&["replay", "no-such-file"][..], &["replay", text(&file), "--trust", "no-such-file"]] {
        let ran = stanch(arguments);
        assert!(ran.exit == 2 && ran.err.contains("no-such-file"), "{ran:?}");
    }
}

#[test]
fn another_policy_is_shown_as_a_what_if_or_refused_by_code() {
    let file = root().join("conformance/incidents/relapse.stanch");
    let shipped = root().join("conformance/incidents/policy.toml");
    let ran = stanch(&["replay", text(&file), "--policy", text(&shipped)]);
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(ran.out.contains("what if") && ran.out.contains("no change"), "{}", ran.out);
    let dir = tempfile::tempdir().unwrap();
    let changed = |name: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(&shipped).unwrap();
        assert!(text.contains(from), "{from}");
        let path = dir.path().join(name);
        std::fs::write(&path, text.replace(from, to)).unwrap();
        path
    };
    let stricter = changed("stricter.toml", "observers = { k = 2,", "observers = { k = 3,");
    let shown = stanch(&["replay", text(&file), "--policy", text(&stricter), "--json"]).json();
    let decisions = shown["what_if"]["decisions"].as_array().unwrap();
    assert!(decisions.iter().any(|decision| decision["changed"] == true), "{shown}");
    assert_eq!(shown["same"], true);

    // What the kernel would have said, and which number the preview would have changed, is not on record.
    for (from, to) in [("headroom = \"120%\"", "headroom = \"130%\""), ("n_max = \"200%\"", "n_max = \"110%\"")] {
        let other = changed("other.toml", from, to);
        let ran = stanch(&["replay", text(&file), "--policy", text(&other)]);
        assert!(ran.exit == 2 && ran.err.contains("ST-1503"), "{from}: {ran:?}");
    }
}
