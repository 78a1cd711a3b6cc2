//! One run: the same command that a person types, in a directory of its own.

use super::oracle::{Shop, Told, Truth, judge};
use super::results::Row;
use anyhow::{Context as _, bail};
use sandbox::fault::Fault;
use serde::Deserialize;
use server::incidents::view::View;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// How long one run may take from its first process to its last.
const RUN_TIMEOUT: Duration = Duration::from_secs(240);
/// How long the shop runs on after the incident, for its client to say what became of it.
const LINGER_S: u32 = 7;

/// A fault and a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// How it breaks.
    pub fault: Fault,
    /// Everything random follows from it.
    pub seed: u64,
}

#[derive(Deserialize)]
struct Output {
    #[serde(flatten)]
    view: View,
    shop: Shop,
}

/// Runs `program recover --sandbox` with this fault and seed, and judges it. A run that did not get as far as a verdict is a
/// row too, and not a correct one.
pub async fn run(program: &Path, cell: Cell, dir: &Path) -> Row {
    match ran(program, cell, dir).await {
        Ok(told) => match Truth::read(dir) {
            Ok(truth) => Row::of(cell, &told, judge(&told, &truth)),
            Err(error) => Row::unjudged(cell, format!("the shop's files cannot be read: {error:#}")),
        },
        Err(error) => Row::unjudged(cell, format!("{error:#}")),
    }
}

async fn ran(program: &Path, cell: Cell, dir: &Path) -> anyhow::Result<Told> {
    std::fs::create_dir_all(dir)?;
    let progress = dir.join("progress.txt");
    let mut child = command(program, cell, dir)
        .stderr(std::fs::File::create(&progress)?)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let stdout = child.stdout.take().context("a pipe")?;
    let ended = tokio::time::timeout(RUN_TIMEOUT, collect(stdout)).await;
    let Ok(text) = ended else {
        let _ = child.kill().await;
        bail!("no end within {} s; see {}", RUN_TIMEOUT.as_secs(), progress.display());
    };
    child.wait().await?;
    let text = text?;
    let told: Result<Output, _> = serde_json::from_slice(&text);
    let Ok(Output { view, shop }) = told else {
        let said = std::fs::read_to_string(&progress).unwrap_or_default();
        bail!("it ended early: {}", said.lines().last().unwrap_or("and said nothing"));
    };
    Ok(Told { view, shop })
}

async fn collect(mut pipe: tokio::process::ChildStdout) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut pipe, &mut text).await?;
    Ok(text)
}

#[expect(clippy::disallowed_methods, reason = "an experiment starts the program it is about")]
fn command(program: &Path, cell: Cell, dir: &Path) -> Command {
    let mut command = std::process::Command::new(program);
    command.args(["recover", "--sandbox", "--json", "--fault", cell.fault.word()]);
    command.args(["--seed", &cell.seed.to_string(), "--linger", &LINGER_S.to_string(), "--data"]).arg(dir);
    let mut command = Command::from(command);
    // Whoever gives up waiting ends the run, and the shop ends with it.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    command
}
