//! `docs/words.md` explains whatever is printed under a name: rows, checks, decisions, codes.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The sources that say the rows of a recovery.
const ROWS: [&str; 5] = [
    "server/src/incidents",
    "server/src/remediation",
    "server/src/holds.rs",
    "cli/src/commands",
    "governance/src/admission",
];
/// The column at which the text of a row begins.
const COLUMN: usize = 15;

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The names that stand in the first column of its tables.
fn explained(page: &str) -> BTreeSet<&str> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
    rows.flat_map(|(names, _)| names.split(", ")).collect()
}

fn page() -> String {
    std::fs::read_to_string(crates().parent().unwrap().join("docs/words.md")).unwrap()
}

/// The label of a row, if a text of the source is one: `preview r{n}     on …` is `preview`.
fn label(text: &str) -> Option<&str> {
    let end = text.find("  ")?;
    let (words, number) = text.get(..end)?.split_once(" r{").map_or((text.get(..end)?, 0), |(words, _)| (words, 3));
    let padding = text.get(end..)?.chars().take_while(|c| *c == ' ').count();
    let is_word = !words.is_empty() && words.chars().all(|c| c.is_ascii_lowercase() || c == ' ');
    (is_word && words.len() + number + padding == COLUMN && text.len() > end + padding).then_some(words)
}

fn labels(path: &Path, found: &mut BTreeSet<String>) {
    if path.is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| labels(&entry.unwrap().path(), found));
    } else if !path.ends_with("tests.rs") {
        let source = std::fs::read_to_string(path).unwrap();
        found.extend(source.split('"').filter_map(label).map(str::to_owned));
    }
}

#[test]
fn every_row_of_a_recovery_is_explained() {
    let mut found = BTreeSet::new();
    for below in ROWS {
        labels(&crates().join(below), &mut found);
    }
    assert!(found.len() > 15 && found.contains("preview") && found.contains("fault scope"), "{found:?}");
    let page = page();
    let explained = explained(&page);
    for row in &found {
        assert!(explained.contains(row.as_str()), "docs/words.md does not explain the row `{row}`");
    }
}

#[test]
fn every_check_decision_level_and_code_family_is_explained() {
    let outcomes = governance::admission::Outcome::ALL.iter().map(|outcome| outcome.word());
    let sure = recovery::graph::Level::ALL.iter().map(|level| level.word());
    let names = governance::invariants::NATIVE.into_iter().chain(outcomes).chain(sure);
    let families = governance::Code::ALL.iter().map(ToString::to_string);
    let families = families.chain(recovery::check::Code::ALL.iter().map(ToString::to_string));
    let page = page();
    let explained = explained(&page);
    for name in names.map(str::to_owned).chain(families.map(|code| code.chars().take(1).collect())) {
        assert!(explained.contains(name.as_str()), "docs/words.md does not explain `{name}`");
    }
    for id in governance::invariants::NATIVE {
        assert!(!governance::invariants::meaning(id).is_empty(), "`{id}` is printed without its meaning");
    }
}

#[test]
fn a_row_is_told_from_other_texts() {
    for (text, is) in [
        ("intent         {} signed", Some("intent")),
        ("preview r{n}     on a model", Some("preview")),
        ("plan r{number}        {source:<16}", Some("plan")),
        ("fault scope    {}", Some("fault scope")),
        ("               {}", None),
        ("two  spaces", None),
        ("one line", None),
        ("K207           x", None),
    ] {
        assert_eq!(label(text), is, "{text}");
    }
    assert_eq!(explained("| a, b | means |\n|---|---|\ntext"), BTreeSet::from(["a", "b"]));
}

#[test]
fn the_page_of_the_protocol_names_every_invariant_in_order() {
    let page = std::fs::read_to_string(crates().parent().unwrap().join("docs/reference/protocol.md")).unwrap();
    let (_, table) = page.split_once("## Invariants").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let named: Vec<&str> = rows.map(|(name, _)| name).collect();
    let all: Vec<&str> = protocol::Invariant::ALL.iter().map(|invariant| invariant.name()).collect();
    assert_eq!(named, all);
}
