//! `stanch-sim`: the simulated half of `cargo xtask crash-matrix`.

use clap::Parser;
use sim::crash::Crash;
use sim::incident::{Account, Story};
use sim::matrix::{Matrix, Options, matrix};
use std::io::Write as _;
use std::process::ExitCode;

/// Kills server, executor, agent, proxy and supervisor at every durable write and around every actuation of one
/// simulated incident, and checks what must be true afterwards.
#[derive(Debug, Parser)]
#[command(
    after_help = "Example: stanch-sim --seed 1 --every 8\n         stanch-sim --story cure --only executor:after:actuation:2"
)]
struct Args {
    /// Of everything random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What breaks: cure, relapse (another process in the same place hangs too), or, without, both in turn
    #[arg(long, value_name = "STORY")]
    story: Option<Story>,
    /// Take every N-th point only
    #[arg(long, default_value_t = 1, value_name = "N")]
    every: usize,
    /// Runs at the same time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// One kill alone, telling on standard error what happens: VICTIM:before|after:write|actuation:N
    #[arg(long, value_name = "KILL")]
    only: Option<Crash>,
    /// The counts as one JSON list
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let mut out = std::io::stdout().lock();
    let mut is_good = true;
    let mut all = Vec::new();
    for story in args.story.map_or_else(|| Story::ALL.to_vec(), |story| vec![story]) {
        let options = Options { seed: args.seed, story, every: args.every, jobs: args.jobs, only: args.only };
        let found = matrix(&options, |account, ended, all| tell(&args, story, account, ended, all))?;
        is_good &= found.failed().is_empty();
        if args.json {
            all.push(json(&args, story, &found));
        } else {
            write!(out, "{}", text(story, &found))?;
        }
    }
    if args.json {
        writeln!(out, "{}", serde_json::Value::from(all))?;
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

/// Progress, and the command that repeats a run in which something was wrong.
fn tell(args: &Args, story: Story, account: &Account, ended: usize, all: usize) {
    let mut err = std::io::stderr().lock();
    if let Some(crash) = account.crash.filter(|_| !account.faults.is_empty()) {
        let _ = writeln!(err, "WRONG {crash}: {}", account.faults.join("; "));
        let _ = writeln!(err, "      {}", repeat(args.seed, story, crash));
    }
    if ended.is_multiple_of(50) || ended == all {
        let _ = writeln!(err, "{ended} of {all} runs");
    }
}

/// The command that repeats one run alone.
fn repeat(seed: u64, story: Story, crash: Crash) -> String {
    format!("cargo run --release -p stanch-sim -- --seed {seed} --story {} --only {crash}", story.word())
}

fn text(story: Story, found: &Matrix) -> String {
    let calm = &found.calm;
    let mut text = format!(
        "{}: a run in which nobody is killed ends {} after {} writes and {} actuations, {}\n{} kills:\n",
        story.word(),
        calm.outcome,
        calm.writes,
        calm.actuations,
        calm.took,
        found.runs.len()
    );
    for ((victim, outcome), count) in found.outcomes() {
        text.push_str(&format!("  {victim:<11} {outcome:<10} {count}\n"));
    }
    let failed = found.failed();
    for account in &failed {
        let crash = account.crash.map_or_else(|| "calm".to_owned(), |crash| crash.to_string());
        text.push_str(&format!("WRONG {crash}: {} ({})\n", account.faults.join("; "), account.why));
    }
    text.push_str(&format!("wrong: {}\n", failed.len()));
    text
}

fn json(args: &Args, story: Story, found: &Matrix) -> serde_json::Value {
    let outcomes: Vec<serde_json::Value> = found
        .outcomes()
        .into_iter()
        .map(|((victim, outcome), runs)| serde_json::json!({ "victim": victim, "outcome": outcome, "runs": runs }))
        .collect();
    let failed: Vec<serde_json::Value> = found
        .failed()
        .into_iter()
        .map(|account| serde_json::json!({ "kill": account.crash.map(|it| it.to_string()), "faults": account.faults }))
        .collect();
    serde_json::json!({
        "seed": args.seed,
        "story": story.word(),
        "writes": found.calm.writes,
        "actuations": found.calm.actuations,
        "kills": found.runs.len(),
        "outcomes": outcomes,
        "wrong": failed,
    })
}
