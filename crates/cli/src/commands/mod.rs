//! One module per command.

mod backup;
#[cfg(feature = "lab")]
mod bench;
mod evidence;
mod follow;
mod group;
mod hold;
mod invoke;
#[cfg(feature = "lab")]
mod lab;
mod misses;
mod outbox;
mod promise;
mod records;
mod recover;
mod replay;
mod run;
mod schedule;
mod shop;
mod show;
mod signals;
mod store;
mod task;
mod tree;

use crate::args::{Cli, Command, ConfigCommand, EvidenceCommand, GraphCommand, OutboxCommand, SandboxCommand};
use crate::failure::Failure;
#[cfg(feature = "lab")]
pub(crate) use bench::{connections as bench_connections, window as bench_window};
use clap::CommandFactory as _;
#[cfg(feature = "lab")]
pub(crate) use lab::seeds as lab_seeds;
use std::path::{Path, PathBuf};

/// Runs a command; answers its exit code.
pub(crate) async fn run(cli: Cli) -> Result<u8, Failure> {
    match cli.command {
        Command::Recover(args) => Box::pin(recover::run(args)).await,
        Command::Hold(args) => hold::hold(&args).await,
        Command::Resume(args) => hold::resume(&args).await,
        Command::Sandbox(command) => shop(command).await,
        Command::Promise(command) => Box::pin(promise::run(command)).await,
        Command::Task(command) => task::run(command).await,
        Command::Schedule(command) => schedule::run(command).await,
        Command::Invoke(args) => Box::pin(invoke::run(args)).await,
        Command::Tree(args) => tree::run(&args).await,
        Command::Serve(args) => Box::pin(run::serve(args)).await,
        Command::Init(args) => store::init(&args),
        Command::Executor(args) => Box::pin(run::executor(args)).await,
        Command::Supervise(args) => run::supervise(args).await,
        Command::Proxy(args) => run::proxy(args).await,
        Command::Group(args) => group::run(args).await,
        Command::Graph(GraphCommand::Export(args)) => group::export(&args).await,
        Command::Misses(args) => misses::run(&args).await,
        Command::Evidence(EvidenceCommand::Verify { file, trust, json }) => {
            evidence::verify(&file, trust.as_deref(), json)
        }
        Command::Evidence(EvidenceCommand::Export { incident, server, out }) => {
            evidence::export(&incident, &server, out).await
        }
        Command::Evidence(EvidenceCommand::Show { file, json }) => evidence::show(&file, json),
        Command::Replay(args) => replay::run(&args),
        Command::Outbox(OutboxCommand::Ls(args)) => outbox::list(&args).await,
        Command::Outbox(OutboxCommand::Retry(args)) => outbox::retry(&args).await,
        #[cfg(feature = "lab")]
        Command::Lab(crate::args::LabCommand::Faults(args)) => Box::pin(lab::faults(args)).await,
        #[cfg(feature = "lab")]
        Command::Bench(crate::args::BenchCommand::Protocol(args)) => Box::pin(bench::protocol(args)).await,
        #[cfg(feature = "lab")]
        Command::Bench(crate::args::BenchCommand::Groups(args)) => bench::groups(&args),
        #[cfg(feature = "lab")]
        Command::Bench(crate::args::BenchCommand::Echo) => bench::echo().await,
        Command::Doctor(args) => store::doctor(&args.data),
        Command::Backup(args) => Box::pin(backup::backup(args)).await,
        Command::Restore(args) => backup::restore(&args),
        Command::Config(ConfigCommand::Show(args)) => store::config(&args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "stanch", &mut std::io::stdout());
            Ok(0)
        }
    }
}

async fn shop(command: SandboxCommand) -> Result<u8, Failure> {
    match command {
        SandboxCommand::Up(args) => shop::up(args).await,
        SandboxCommand::Down(args) => shop::down(args).await,
        SandboxCommand::Fault(args) => shop::fault(args).await,
        SandboxCommand::Status(args) => shop::status(args).await,
        SandboxCommand::Service(args) => shop::process("service", &args.rest).await,
        SandboxCommand::Load(args) => shop::process("load", &args.rest).await,
        SandboxCommand::Agent(args) => shop::process("agent", &args.rest).await,
    }
}

/// A whole file, if it has at most `bytes_max` bytes.
pub(crate) fn read_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Failure> {
    server::input::bytes(path, bytes_max).map_err(Failure::refused)
}

/// What to look at when a topology file cannot be used.
pub(crate) const TOPOLOGY: &str =
    "correct it, then the same command again; `stanch supervise --help` shows a small one";

/// A topology file.
pub(crate) fn topology(path: &Path) -> Result<recovery::topology::Topology, Failure> {
    server::topology::load(path).map_err(|error| Failure::refused(error).next(TOPOLOGY))
}

/// Makes a directory of this program's own; the message names it.
pub(crate) fn make_dir(path: &Path) -> Result<(), Failure> {
    let made = std::fs::create_dir_all(path);
    made.map_err(|error| Failure::file(path, error).next("stanch sandbox up --data DIR, a directory of its own"))
}

/// The data directory of this user for `name`, unless one is given.
pub(crate) fn data_dir(given: Option<PathBuf>, name: &str) -> Result<PathBuf, Failure> {
    if let Some(given) = given {
        return std::path::absolute(&given).map_err(|error| Failure::usage(format!("{}: {error}", given.display())));
    }
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
    let state = state
        .ok_or_else(|| Failure::usage("there is no home directory here").next("the same command with --data DIR"))?;
    Ok(state.join("stanch").join(name))
}
