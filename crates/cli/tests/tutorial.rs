//! The tutorial, as somebody types it: every `console` block of `docs/tutorial.md`, in its order, in a shell.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::disallowed_methods, reason = "the commands are a shell's")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{output, stanch, wait_until_nothing_is_left};

/// LIMIT: times the tutorial is begun when its recovery is left to a person.
const TRIES_MAX: usize = 3;

/// A command of the tutorial and the lines that it shows below it.
#[derive(Debug, Default)]
struct Typed {
    command: String,
    shown: Vec<String>,
}

/// The commands of the blocks that are marked `console`.
fn commands(page: &str) -> Vec<Typed> {
    let mut typed: Vec<Typed> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            typed.push(Typed { command: command.to_owned(), shown: Vec::new() });
        } else if let Some(last) = typed.last_mut().filter(|_| inside) {
            last.shown.push(line.to_owned());
        }
    }
    typed
}

/// Whether a real line is the shown one, where `…` stands for anything.
fn is_shown(real: &str, shown: &str) -> bool {
    let parts: Vec<&str> = shown.split('…').collect();
    let mut rest = real.trim_end();
    for (index, part) in parts.iter().enumerate() {
        let part = if index + 1 == parts.len() { part.trim_end() } else { part };
        let at = if index == 0 { rest.starts_with(part).then_some(0) } else { rest.find(part) };
        let Some(at) = at else { return false };
        rest = &rest[at + part.len()..];
    }
    parts.last().is_some_and(|last| last.trim().is_empty() && parts.len() > 1) || rest.is_empty()
}

/// The first shown line that does not occur, after those before it.
fn missing<'a>(output: &str, shown: &'a [String]) -> Option<&'a str> {
    let mut real = output.lines();
    shown.iter().find(|line| !real.any(|real| is_shown(real, line))).map(String::as_str)
}

/// A directory of one's own, with the program on the path, and nothing of the machine's user in the environment.
struct Desk {
    dir: PathBuf,
    port: u16,
}

impl Desk {
    fn set(dir: &Path) -> Desk {
        for name in ["bin", "home", "state", "tmp", "desk"] {
            std::fs::create_dir(dir.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_stanch"), dir.join("bin/stanch")).unwrap();
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        std::os::unix::fs::symlink(crates, dir.join("desk/crates")).unwrap();
        let port = sandbox::ports::free_port().unwrap();
        Desk { dir: dir.to_owned(), port }
    }

    /// Runs a command; answers its exit code and both of its outputs.
    fn run(&self, command: &str) -> (Option<i32>, String) {
        let path = format!("{}:/usr/bin:/bin", self.dir.join("bin").display());
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("exec 2>&1\n{command}")])
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.dir.join("home"))
            .env("XDG_STATE_HOME", self.dir.join("state"))
            .env("TMPDIR", self.dir.join("tmp"))
            // Nobody's port is taken: the tutorial says that it may be another one.
            .env("STANCH_PORT", self.port.to_string())
            .env("STANCH_SERVER", format!("http://127.0.0.1:{}", self.port))
            .current_dir(self.dir.join("desk"))
            .stdin(Stdio::null());
        let output = output(shell);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }
}

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
    let desk = Desk::set(dir.path());
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
