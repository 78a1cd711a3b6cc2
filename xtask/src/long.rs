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
}
