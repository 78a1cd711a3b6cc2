//! The tutorial, as somebody types it: every `console` block of `docs/tutorial.md`, in its order, in a shell.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::path::PathBuf;
use support::page::{Desk, Typed, commands, is_shown, missing};
use support::{stanch, wait_until_nothing_is_left};

/// LIMIT: times the tutorial is begun when its recovery is left to a person.
const TRIES_MAX: usize = 3;

/// Ends the shop however the test ends.
struct Ended(PathBuf);

impl Drop for Ended {
    fn drop(&mut self) {
        stanch(&["sandbox", "down", "--data", self.0.to_str().unwrap_or_default()]);
    }
}

/// What came of typing it all.
#[derive(Debug, PartialEq)]
enum End {
    AsShown,
    /// The recovery was left to a person: on a busy machine more of the shop is slow than what was broken.
    Escalated(String),
}

fn type_it_all(typed: &[Typed]) -> End {
    let dir = tempfile::tempdir().unwrap();
    let port = sandbox::ports::free_port().unwrap();
    let desk = Desk::set(dir.path(), &format!("http://127.0.0.1:{port}"));
    let ended = Ended(dir.path().join("state/stanch/sandbox"));
    for Typed { command, shown } in typed {
        let (exit, output) = desk.run(command);
        let is_recovery = command.starts_with("stanch recover");
        if is_recovery && exit == Some(20) {
            assert!(output.contains("outcome        escalated (exit 20): "), "$ {command}\n{output}");
            drop(ended);
            wait_until_nothing_is_left(dir.path());
            return End::Escalated(output);
        }
        assert_eq!(exit, Some(0), "$ {command}\n{output}");
        assert_eq!(missing(&output, shown), None, "$ {command}\n{output}");
        // A word is never cut; the only long one is the file's name, and here that is short.
        let wide = output.lines().filter(|line| is_recovery && line.chars().count() > 100);
        assert_eq!(wide.collect::<Vec<_>>(), Vec::<&str>::new(), "a line is wider than 100 columns");
    }
    wait_until_nothing_is_left(dir.path());
    End::AsShown
}

#[test]
fn the_tutorial_shows_what_happens() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/tutorial.md")).unwrap();
    let typed = commands(&page);
    assert!(typed.len() >= 14, "{typed:?}");
    let mut ends = Vec::new();
    // As the page says: begin again.
    while ends.len() < TRIES_MAX && ends.last() != Some(&End::AsShown) {
        ends.push(type_it_all(&typed));
    }
    assert_eq!(ends.last(), Some(&End::AsShown), "every recovery was left to a person: {ends:#?}");
}

#[test]
fn a_line_that_did_not_come_out_is_found() {
    for (real, shown, is) in [
        ("group payments", "group payments", true),
        ("group payments", "group", false),
        ("group payments", "group…", true),
        ("  group payments", "group…", false),
        ("a b c", "a … c", true),
        ("a b c d", "a … c", false),
        ("a b", "b", false),
        ("a b", "… b", true),
    ] {
        assert_eq!(is_shown(real, shown), is, "{real} / {shown}");
    }
    let shown = ["one".to_owned(), "three".to_owned()];
    assert_eq!(missing("one\ntwo\nthree\n", &shown), None);
    assert_eq!(missing("three\none\n", &shown), Some("three"), "in another order");
    let page = "```text\n$ no\n```\n```console\n$ yes\nout\n```\n$ no\n";
    let typed = commands(page);
    assert_eq!((typed.len(), typed[0].command.as_str(), &typed[0].shown[..]), (1, "yes", &["out".to_owned()][..]));
}
