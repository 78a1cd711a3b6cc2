//! `cargo xtask fuzz`: libFuzzer over every decoder, for a while each. What it finds belongs into `fuzz/corpus`.

use anyhow::{Context as _, Result, bail};
use std::path::Path;

/// A minute a target unless told otherwise.
const SECONDS: &str = "60";
/// What one input may cost before it counts as a finding.
const BOUNDS: [&str; 3] = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=65536"];
const USAGE: &str = "usage: cargo xtask fuzz [--seconds N] [DECODER]...";

/// Fuzzes the named decoders, or all.
#[expect(clippy::disallowed_methods, reason = "it runs cargo-fuzz")]
pub(crate) fn run(root: &Path, mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let (mut seconds, mut named) = (SECONDS.to_owned(), Vec::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => seconds = arguments.next().filter(|value| value.parse::<u32>().is_ok()).context(USAGE)?,
            name if !name.starts_with('-') => named.push(argument),
            _ => bail!("{USAGE}"),
        }
    }
    let all = targets(&root.join("fuzz/corpus"))?;
    if let Some(unknown) = named.iter().find(|name| !all.contains(name)) {
        bail!("no decoder `{unknown}`; there are: {}", all.join(", "));
    }
    for target in if named.is_empty() { all } else { named } {
        // New inputs go to the first folder, so that the committed ones stay as they are.
        let found = root.join("fuzz/target/corpus").join(&target);
        std::fs::create_dir_all(&found)?;
        let mut command = std::process::Command::new(env!("CARGO"));
        command.args(["fuzz", "run", &target, "--sanitizer", "none"]).arg(&found).arg(format!("corpus/{target}"));
        command.arg("--").arg(format!("-max_total_time={seconds}")).args(BOUNDS);
        // The compiler's flags for coverage are unstable; the stable compiler takes them when told to.
        let status = command.env("RUSTC_BOOTSTRAP", "1").current_dir(root.join("fuzz")).status()?;
        if !status.success() {
            bail!("{target}: a finding, see fuzz/artifacts/{target}; or no cargo-fuzz: cargo install cargo-fuzz");
        }
    }
    Ok(())
}

fn targets(corpus: &Path) -> Result<Vec<String>> {
    let folders = std::fs::read_dir(corpus).with_context(|| corpus.display().to_string())?;
    let mut names = Vec::new();
    for folder in folders {
        names.push(folder?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
