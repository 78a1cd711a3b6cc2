//! The project's own checks: `cargo xtask tidy` (also a test) and `cargo xtask ci` (the whole gate).
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool prints")]

mod tidy;

use anyhow::{Context as _, Result, bail};
use std::path::Path;

const USAGE: &str = "usage: cargo xtask tidy | ci";

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    match std::env::args().nth(1).as_deref() {
        Some("tidy") => report(&tidy::check(root)?),
        Some("ci") => ci(root),
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

#[expect(clippy::disallowed_methods, reason = "the gate runs cargo")]
fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    println!("$ cargo {}", arguments.join(" "));
    let status = std::process::Command::new(env!("CARGO")).args(arguments).current_dir(root).status()?;
    if !status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}
