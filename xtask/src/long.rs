//! Long forms of tests with real processes: the gate runs each in a minute or so, these run all of it and print counts.

use crate::{USAGE, cargo_with};
use anyhow::{Context as _, Result, bail};
use std::path::Path;

/// What is crashed, and how often.
#[derive(Debug, PartialEq, Eq)]
struct Matrix {
    /// Every process of a simulated incident, at every point.
    simulated: bool,
    /// Real processes, at random instants of a commit.
    real: bool,
    /// Of the real ones.
    kills: u64,
    seed: u64,
}

/// Everything is crashed at every point, in the simulator and for real, unless one of them is chosen.
pub(crate) fn crash_matrix(root: &Path, arguments: impl Iterator<Item = String>) -> Result<()> {
    let matrix = Matrix::parse(arguments)?;
    let seed = matrix.seed.to_string();
    if matrix.simulated {
        cargo_with(root, &["run", "--release", "--package", "stanch-sim", "--", "--seed", &seed], &[])?;
    }
    if matrix.real {
        let test = ["test", "--release", "--package", "stanch", "--test", "kills", "--", "--nocapture"];
        cargo_with(root, &test, &[("KILLS", &matrix.kills.to_string()), ("SEED", &seed)])?;
    }
    Ok(())
}

/// Every signal and every kill at every moment, and what stays.
pub(crate) fn leftovers(root: &Path) -> Result<()> {
    let test = ["test", "--release", "--package", "stanch", "--test", "leftovers", "--", "--nocapture"];
    cargo_with(root, &test, &[("LEFTOVERS", "all")])
}

/// The live engine against the reference model: random walks in each profile, every crash of short sequences, and
/// every sequence that a minute allows.
pub(crate) fn model(root: &Path, arguments: impl Iterator<Item = String>) -> Result<()> {
    let [walks, seed] = numbers([("--walks", 200), ("--seed", 1)], arguments)?;
    let test = ["test", "--release", "--package", "stanch-server", "--test", "model", "--", "--nocapture"];
    cargo_with(root, &test, &[("WALKS", &walks), ("SEED", &seed), ("CRASH_LENGTH", "2")])?;
    let package = ["--package", "stanch-protocol", "--features", "long", "--lib"];
    cargo_with(root, &[&["test", "--release"][..], &package, &["--", "--nocapture", "tests::exhaustive"]].concat(), &[])
}

/// Histories of concurrent clients, and histories with a kill of the server in the middle.
pub(crate) fn linearizable(root: &Path, arguments: impl Iterator<Item = String>) -> Result<()> {
    let [histories, kills, seed] = numbers([("--histories", 200), ("--kills", 20), ("--seed", 1)], arguments)?;
    let test = ["test", "--release", "--package", "stanch", "--test", "linearizable", "--", "--nocapture"];
    cargo_with(root, &test, &[("HISTORIES", &histories), ("KILLED", &kills), ("SEED", &seed)])
}

/// The server under mixed load for minutes.
pub(crate) fn soak(root: &Path, arguments: impl Iterator<Item = String>) -> Result<()> {
    let [minutes] = numbers([("--minutes", 10)], arguments)?;
    let seconds = minutes.parse::<u64>()?.saturating_mul(60).to_string();
    let test = ["test", "--release", "--package", "stanch", "--test", "soak", "--", "--nocapture"];
    cargo_with(root, &test, &[("SOAK_SECONDS", &seconds)])
}

/// The values of arguments that are numbers, each with its name and what it is if it is not given.
fn numbers<const N: usize>(
    names: [(&str, u64); N],
    mut arguments: impl Iterator<Item = String>,
) -> Result<[String; N]> {
    let mut values = names.map(|(_, otherwise)| otherwise.to_string());
    while let Some(name) = arguments.next() {
        let at = names.iter().position(|(known, _)| *known == name).context(USAGE)?;
        let given = arguments.next().filter(|value| value.parse::<u64>().is_ok()).context(USAGE)?;
        *values.get_mut(at).context(USAGE)? = given;
    }
    Ok(values)
}

impl Matrix {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Matrix> {
        let mut matrix = Matrix { simulated: false, real: false, kills: 100, seed: 1 };
        while let Some(name) = arguments.next() {
            let mut number = || arguments.next().and_then(|value| value.parse().ok()).context(USAGE);
            match name.as_str() {
                "--simulated" => matrix.simulated = true,
                "--real" => matrix.real = true,
                "--kills" => matrix.kills = number()?,
                "--seed" => matrix.seed = number()?,
                _ => bail!(USAGE),
            }
        }
        if !matrix.simulated && !matrix.real {
            (matrix.simulated, matrix.real) = (true, true);
        }
        Ok(matrix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_is_chosen_by_arguments() {
        let parse = |arguments: &[&str]| Matrix::parse(arguments.iter().map(|argument| (*argument).to_owned()));
        let all = Matrix { simulated: true, real: true, kills: 100, seed: 1 };
        assert_eq!(parse(&[]).unwrap(), all);
        assert_eq!(parse(&["--simulated"]).unwrap(), Matrix { real: false, ..all });
        let real = Matrix { simulated: false, kills: 3, seed: 7, ..all };
        assert_eq!(parse(&["--real", "--kills", "3", "--seed", "7"]).unwrap(), real);
        for wrong in [&["--kills"][..], &["--kills", "many"], &["--unreal"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn numbers_are_given_by_their_names() {
        let parse = |arguments: &[&str]| {
            numbers([("--walks", 200), ("--seed", 1)], arguments.iter().map(|argument| (*argument).to_owned()))
        };
        assert_eq!(parse(&["--seed", "9"]).unwrap(), ["200", "9"]);
        for wrong in [&["--seed"][..], &["--seed", "x"], &["--kills", "1"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
