//! The project's own checks: `cargo xtask tidy` (also a test), `cargo xtask ci` (the whole gate), and the long forms
//! of tests that the gate runs in short.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool prints")]

mod fuzz;
mod limits;
mod long;
mod pages;
mod tidy;

use anyhow::{Context as _, Result, bail};
use std::path::Path;

const USAGE: &str = "usage: cargo xtask tidy | ci | fuzz [--seconds N] [DECODER]... | kill-server [--kills N] [--seed N] | power-loss [--instants N] [--seed N] \
    | crash-matrix [--simulated] [--real] [--kills N] [--seed N] | model [--walks N] [--seed N] \
    | linearizable [--histories N] [--kills N] [--seed N] | soak [--minutes N] | leftovers | truth-table | keep";

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    match std::env::args().nth(1).as_deref() {
        Some("tidy") => report(&tidy::check(root)?),
        Some("ci") => ci(root),
        Some("fuzz") => fuzz::run(root, std::env::args().skip(2)),
        Some("kill-server") => durability(root, "sigkill", ("kills", "200"), std::env::args().skip(2)),
        Some("power-loss") => {
            durability(root, "loss_of_power_at_any", ("instants", "100000"), std::env::args().skip(2))
        }
        Some("crash-matrix") => long::crash_matrix(root, std::env::args().skip(2)),
        Some("leftovers") => long::leftovers(root),
        Some("model") => long::model(root, std::env::args().skip(2)),
        Some("linearizable") => long::linearizable(root, std::env::args().skip(2)),
        Some("soak") => long::soak(root, std::env::args().skip(2)),
        Some("truth-table") => truth_table(root),
        Some("keep") => keep(root),
        _ => bail!("{USAGE}"),
    }
}

/// Prints the findings; any finding ends with exit code 3.
fn report(findings: &[String]) -> Result<()> {
    for finding in findings {
        eprintln!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: nothing found");
        return Ok(());
    }
    std::process::exit(3);
}

/// Formatting, lints, tidy, then the README's test command, whose summary comes last.
fn ci(root: &Path) -> Result<()> {
    cargo(root, &["fmt", "--all", "--check"])?;
    cargo(root, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    report(&tidy::check(root)?)?;
    cargo(root, &["test", "--workspace"])
}

/// Runs the long form of a test of `durability` in a release build; the test prints its counts and times.
fn durability(root: &Path, test: &str, count: (&str, &str), mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let (mut times, mut seed) = (count.1.to_owned(), "1".to_owned());
    while let Some(name) = arguments.next() {
        let value = arguments.next().filter(|value| value.parse::<u64>().is_ok()).context(USAGE)?;
        match name.strip_prefix("--") {
            Some("seed") => seed = value,
            Some(name) if name == count.0 => times = value,
            _ => bail!("{USAGE}"),
        }
    }
    let name = count.0.to_uppercase();
    let test = ["test", "--release", "--package", "stanch", "--test", "durability", "--", "--nocapture", test];
    cargo_with(root, &test, &[(&name, &times), ("SEED", &seed)])
}

/// The decision's truth table in full, in a release build: every pair of states in every context, and every set of
/// fired checks; prints the counts of rows.
fn truth_table(root: &Path) -> Result<()> {
    let package = ["--package", "stanch-governance", "--features", "long", "--lib"];
    let test = [&["test", "--release"][..], &package, &["--", "--nocapture", "tests::truth"]].concat();
    cargo(root, &test)
}

/// Writes the files anew that tests begin with and that nobody without the tests' keys can make.
#[expect(clippy::disallowed_methods, reason = "it runs the test that prints them")]
fn keep(root: &Path) -> Result<()> {
    let mut test = std::process::Command::new(env!("CARGO"));
    test.args(["test", "--package", "stanch-governance", "--features", "keep", "--lib", "--", "--nocapture"]);
    let output = test.arg("kept_files_are_printed").current_dir(root).output()?;
    let printed = String::from_utf8(output.stdout)?;
    // The runner may put the test's name before the first of them.
    for line in printed.lines().filter_map(|line| Some(line.split_once("KEPT ")?.1)) {
        let (path, hex) = line.split_once(' ').context("a path and its bytes")?;
        let bytes: Result<Vec<u8>, _> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2).unwrap_or(""), 16)).collect();
        let path = root.join("crates/governance").join(path);
        std::fs::write(&path, bytes?).with_context(|| path.display().to_string())?;
        println!("written: {}", path.display());
    }
    if output.status.success() { Ok(()) } else { bail!("{}", String::from_utf8_lossy(&output.stderr)) }
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    cargo_with(root, arguments, &[])
}

#[expect(clippy::disallowed_methods, reason = "the gate runs cargo")]
fn cargo_with(root: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    println!("$ cargo {}", arguments.join(" "));
    let mut command = std::process::Command::new(env!("CARGO"));
    command.args(arguments).envs(variables.iter().copied()).current_dir(root);
    let status = command.status()?;
    if !status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}
