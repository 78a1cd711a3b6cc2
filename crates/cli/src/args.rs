//! The command line.

mod durable;
mod graph;
mod misses;

use clap::{Args, Parser, Subcommand, ValueEnum};
pub(crate) use durable::*;
pub(crate) use graph::*;
pub(crate) use misses::*;
use std::path::PathBuf;

/// Recovery of distributed systems that you can preview, prove and undo.
#[derive(Debug, Parser)]
#[command(
    name = "stanch",
    version,
    max_term_width = 100,
    after_help = "Examples:\n  stanch recover --sandbox     break and recover a small shop on this machine, in a minute\n  stanch serve                 run the server\n\nThe first ten minutes: docs/tutorial.md. Every word on the screens: docs/words.md.\n\nExit codes:\n  0   done; for `recover`: carried out, and well again     1   internal error     2   usage\n  3   a check found something wrong          10  the plan needs another look\n  20  a person has to decide                 30  the plan is refused for good\n  40  what was done was taken back           50  the evidence is not genuine\n  60  the time allowed was spent             70  a hold forbids it\n  130, 143  ended by Ctrl-C, or by SIGTERM"
)]
pub(crate) struct Cli {
    /// Which command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Recover a service: plan, preview, decide, carry out, see that it is well, keep the evidence
    #[command(
        after_help = "Examples:\n  stanch recover --sandbox --fault hang --seed 1\n  stanch recover checkout\n  stanch recover checkout --preview --json"
    )]
    Recover(RecoverArgs),
    /// Freeze: nothing new begins in a scope until a person resumes it
    #[command(after_help = "Examples:\n  stanch hold --reason failover\n  stanch hold payments\n  stanch hold --list")]
    Hold(HoldArgs),
    /// Lift a hold
    #[command(after_help = "Examples:\n  stanch resume\n  stanch resume payments --reason over")]
    Resume(ResumeArgs),
    /// The sample shop: real processes to break and recover
    #[command(
        subcommand,
        after_help = "Example:\n  stanch sandbox up && stanch sandbox fault hang --service payments && stanch recover checkout"
    )]
    Sandbox(SandboxCommand),
    /// Durable promises: create, settle, look, wait
    #[command(
        subcommand,
        after_help = "Example:\n  stanch promise create approval-7 && stanch promise watch approval-7"
    )]
    Promise(PromiseCommand),
    /// Tasks: what is offered to workers, who holds it, and why nothing happens
    #[command(subcommand, after_help = "Example:\n  stanch task ls --state halted && stanch task show order-7")]
    Task(TaskCommand),
    /// Schedules: a promise at every instant that a cron expression names
    #[command(subcommand, after_help = "Example:\n  stanch schedule create nightly --cron \"0 3 * * *\" --func report")]
    Schedule(ScheduleCommand),
    /// Call a function that a worker runs, in any of the protocol's languages
    #[command(
        after_help = "Examples:\n  stanch invoke order-7 --func checkout --arg cart-7 --wait\n  stanch invoke sum-1 --func add --arg 1 --arg 2 --json-args --target poll://any@default\n  stanch invoke remind-7 --func remind --delay 5m --timeout 1h"
    )]
    Invoke(InvokeArgs),
    /// Show what a call called: the promises below one, with their states and durations
    #[command(after_help = "Example:\n  stanch tree order-7")]
    Tree(TreeArgs),
    /// Run the server: it takes in traces, leads recoveries, and keeps durable promises
    #[command(after_help = "Example:\n  stanch serve --data ./data --topology stanch.toml --platform ./platform")]
    Serve(ServeArgs),
    /// Make keys and a first policy in a data directory
    #[command(after_help = "Example:\n  stanch init --data ./data")]
    Init(DataArgs),
    /// Carry out the steps of recoveries; any number may run, any may die
    #[command(after_help = "Example:\n  stanch executor --server http://127.0.0.1:8001 --data ./data")]
    Executor(ExecutorArgs),
    /// Start the services of a topology file, with the traffic proxy
    #[command(
        after_help = "Example:\n  stanch supervise stanch.toml --data ./platform\n\nA small stanch.toml:\n  [service.cart]\n  run = [\"./cart\", \"--listen\", \"{listen}\"]\n  probe = { http = \"/ready\" }\n  [service.shop]\n  run = [\"./shop\", \"--listen\", \"{listen}\", \"--cart\", \"http://{edge:cart}\"]"
    )]
    Supervise(SuperviseArgs),
    /// The traffic proxy; the supervisor starts it
    #[command(hide = true)]
    Proxy(ProxyArgs),
    /// Ask the traces: what must restart together, in which order, and who is hurt
    #[command(
        after_help = "Examples:\n  stanch group payments --server http://127.0.0.1:8001\n  stanch group ts-order-service --traces spans.csv.gz --format nezha --declared stanch.toml\n  stanch group ls\n  stanch group evaluate --traces spans.csv.gz"
    )]
    Group(GroupArgs),
    /// The dependency graph as data or as a picture
    #[command(subcommand, after_help = "Example:\n  stanch graph export --traces spans.csv.gz --mermaid")]
    Graph(GraphCommand),
    /// Dependencies that were missed: what failed after a restart although no answer had named it
    #[command(
        after_help = "Examples:\n  stanch misses\n  stanch misses --accept \"inventory->payments\" --as kim\n  stanch misses --dismiss \"inventory->payments\" --as kim --reason \"its disk was full\""
    )]
    Misses(MissesArgs),
    /// The signed record of an incident: one file that anyone verifies without a server
    #[command(subcommand, after_help = "Example:\n  stanch evidence verify inc-….stanch")]
    Evidence(EvidenceCommand),
    /// Make the judgments of a bundle again and compare: exit 0 the same, 3 different, 50 not verified
    #[command(
        after_help = "Examples:\n  stanch replay inc-….stanch\n  stanch replay inc-….stanch --trust trust.keys --json\n  stanch replay inc-….stanch --policy policy.toml"
    )]
    Replay(ReplayArgs),
    /// Messages owed to workers and listeners: what waits, what was given up, and sending that again
    #[command(subcommand, after_help = "Example:\n  stanch outbox ls --dead")]
    Outbox(OutboxCommand),
    /// Experiments on the sample shop, judged from outside the product
    #[cfg(feature = "lab")]
    #[command(subcommand, after_help = "Example:\n  stanch lab faults --fault hang --seeds 1-2")]
    Lab(LabCommand),
    /// Measure how fast a server is
    #[cfg(feature = "lab")]
    #[command(subcommand, after_help = "Example:\n  stanch bench protocol --workload create --conns 32")]
    Bench(BenchCommand),
    /// Check that a server's data directory is sound, whether a server uses it or not
    #[command(after_help = "Example:\n  stanch doctor --data ./data")]
    Doctor(DoctorArgs),
    /// Copy everything durable into one checked file, while the server runs or not
    #[command(
        after_help = "Examples:\n  stanch backup --data ./data --to stanch.backup\n  stanch backup --data ./data --to stanch.backup --with-keys\n  stanch backup --server http://127.0.0.1:8001 --to stanch.backup --json"
    )]
    Backup(BackupArgs),
    /// Put a backup into an empty data directory
    #[command(after_help = "Example:\n  stanch restore stanch.backup --data ./restored")]
    Restore(RestoreArgs),
    /// The configuration in force
    #[command(subcommand, after_help = "Example:\n  stanch config show --data ./data")]
    Config(ConfigCommand),
    /// Print a completion script
    #[command(after_help = "Example:\n  stanch completions bash > /etc/bash_completion.d/stanch")]
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

/// `stanch recover`
#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// The service to recover
    #[arg(value_name = "SERVICE")]
    pub(crate) target: Option<String>,
    /// The service to recover, said unambiguously
    #[arg(long, value_name = "NAME", conflicts_with = "target")]
    pub(crate) service: Option<String>,
    /// Start the sample shop, break it, recover it, and end it
    #[arg(long)]
    pub(crate) sandbox: bool,
    /// With --sandbox: what to break it with
    #[arg(long, value_enum, default_value_t = Fault::Hang)]
    pub(crate) fault: Fault,
    /// With --sandbox: the service to break
    #[arg(long, value_name = "NAME", default_value = "payments")]
    pub(crate) fault_service: String,
    /// With --sandbox: the same number gives the same shop, load and fault
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// With --sandbox: plant a coupling that nothing declares: inventory fails requests once payments is restarted
    #[arg(long)]
    pub(crate) hidden_coupling: bool,
    /// With --sandbox: its data directory, which stays (else a fresh one, of which only the evidence of a success stays)
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Address of the server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8001", env = "STANCH_SERVER")]
    pub(crate) server: String,
    /// Stop at the decision: change nothing
    #[arg(long)]
    pub(crate) preview: bool,
    /// With --sandbox: let the shop run on so many seconds after the outcome, and say how its client was served
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=600))]
    pub(crate) linger: u32,
    /// A rehearsal: tell one observer (a watcher that votes) to lie, and see it outvoted
    #[arg(long, value_name = "OBSERVER", num_args = 0..=1, default_missing_value = "probe")]
    pub(crate) lying_observer: Option<String>,
    /// Follow an incident (a recovery) that already runs
    #[arg(long, value_name = "INCIDENT", conflicts_with_all = ["target", "service", "sandbox"])]
    pub(crate) resume: Option<String>,
    /// Where to save the evidence (default: inc-INCIDENT.stanch)
    #[arg(long, value_name = "FILE")]
    pub(crate) evidence: Option<PathBuf>,
    /// One JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `stanch hold`
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    /// The service to freeze; `all` freezes everything
    #[arg(value_name = "SCOPE", default_value = "all")]
    pub(crate) scope: String,
    /// List the holds in force, and change nothing
    #[arg(long, conflicts_with_all = ["scope", "undo", "reason"])]
    pub(crate) list: bool,
    /// Take back what running commits have open, instead of leaving it as it is
    #[arg(long)]
    pub(crate) undo: bool,
    /// Who, where and why
    #[command(flatten)]
    pub(crate) word: WordArgs,
}

/// `stanch resume`
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// The scope whose hold is lifted
    #[arg(value_name = "SCOPE", default_value = "all")]
    pub(crate) scope: String,
    /// Who, where and why
    #[command(flatten)]
    pub(crate) word: WordArgs,
}

/// A person's word: who, where and why.
#[derive(Debug, Args)]
pub(crate) struct WordArgs {
    /// Why; it is recorded, and shown to whoever is stopped
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
    /// Who; it is recorded beside the signature
    #[arg(long = "as", value_name = "NAME", env = "USER", hide_env_values = true)]
    pub(crate) by: Option<String>,
    /// The server (default: the one that the data directory names, or http://127.0.0.1:8001)
    #[arg(long, value_name = "URL", env = "STANCH_SERVER")]
    pub(crate) server: Option<String>,
    /// The server's data directory, with a person's key; to be given when the server is down (default: what the server says)
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

impl WordArgs {
    /// Who speaks, if they said.
    pub(crate) fn name(&self) -> Option<String> {
        self.by.clone().filter(|name| !name.is_empty())
    }
}

/// What to break a service with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// It accepts connections and never answers
    Hang,
    /// Its process is gone
    Crash,
    /// It answers far too late
    Slow,
    /// It is ready and answers every request with an error
    Errors,
    /// It keeps memory of every request, to a limit, and refuses from then on
    Leak,
    /// A configuration with which no replica can work is rolled out
    BadConfig,
}

/// `stanch sandbox`
#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Start the shop, a server and an executor
    #[command(after_help = "Examples:\n  stanch sandbox up --data /tmp/shop\n  stanch sandbox up --hidden-coupling")]
    Up(UpArgs),
    /// End everything that `up` started
    #[command(after_help = "Example:\n  stanch sandbox down")]
    Down(ShopArgs),
    /// Break one replica of a service or, with `bad-config`, what all of them read
    #[command(after_help = "Example:\n  stanch sandbox fault hang --service payments")]
    Fault(FaultArgs),
    /// Show what runs
    #[command(after_help = "Example:\n  stanch sandbox status --json")]
    Status(ShopArgs),
    /// One service of the shop
    #[command(hide = true)]
    Service(RawArgs),
    /// The load generator
    #[command(hide = true)]
    Load(RawArgs),
    /// The scripted agent
    #[command(hide = true)]
    Agent(RawArgs),
}

/// Arguments that the shop's own parts read themselves.
#[derive(Debug, Args)]
pub(crate) struct RawArgs {
    /// `--key value` pairs.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) rest: Vec<String>,
}

/// `stanch sandbox up`
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Where and how
    #[command(flatten)]
    pub(crate) shop: ShopArgs,
    /// Port of the server; 0 = chosen
    #[arg(long, default_value_t = 8001, env = "STANCH_PORT")]
    pub(crate) port: u16,
    /// The same number gives the same shop and load
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Plant a coupling that nothing declares: inventory fails requests once payments is restarted, until it is restarted itself
    #[arg(long)]
    pub(crate) hidden_coupling: bool,
}

/// Where the shop is.
#[derive(Debug, Args)]
pub(crate) struct ShopArgs {
    /// Its data directory (default: ~/.local/state/stanch/sandbox)
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `stanch sandbox fault`
#[derive(Debug, Args)]
pub(crate) struct FaultArgs {
    /// Which fault
    #[arg(value_enum)]
    pub(crate) fault: Fault,
    /// Which service
    #[arg(long, value_name = "NAME")]
    pub(crate) service: String,
    /// Chooses the replica
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Where
    #[command(flatten)]
    pub(crate) shop: ShopArgs,
}

/// A data directory.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// The data directory (default: ~/.local/state/stanch/server)
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `stanch serve`
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where it keeps everything
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Address to bind
    #[arg(long)]
    pub(crate) bind: Option<String>,
    /// Port (default 8001); 0 = chosen and printed
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// The topology file: which services there are (docs/topology.md)
    #[arg(long, value_name = "FILE")]
    pub(crate) topology: Option<PathBuf>,
    /// The directory that `stanch supervise --data` was given
    #[arg(long, value_name = "DIR")]
    pub(crate) platform: Option<PathBuf>,
    /// The policy file: what stanch may do by itself (default: policy.toml in the data directory)
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// How the protocol is read where its sources disagree
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) protocol_profile: Option<ProtocolProfile>,
    /// Let outside testers stop the clockwork, turn it, and empty the store (`debug.*` of the protocol)
    #[arg(long)]
    pub(crate) debug: bool,
    /// Where spans are taken over gRPC: HOST:PORT, `off`, or `auto` = 127.0.0.1:4317 unless somebody else has it
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) otlp_grpc: Option<String>,
    /// Where spans are taken over HTTP beside --port: HOST:PORT, `off`, or `auto` = 127.0.0.1:4318
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) otlp_http: Option<String>,
    /// Start no executor
    #[arg(long)]
    pub(crate) no_executor: bool,
    /// Bind an address that other machines reach, although whoever reaches it may do everything
    #[arg(long)]
    pub(crate) insecure: bool,
    /// What it logs
    #[command(flatten)]
    pub(crate) log: LogArgs,
    /// End when standard input closes
    #[arg(long, hide = true)]
    pub(crate) lifeline: bool,
}

/// Readings of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProtocolProfile {
    /// The version of a task rises with every change of ownership
    Default,
    /// It rises on acquire only, for outside checkers of recorded traces
    #[value(name = "resonate-2026-04-01")]
    Resonate20260401,
}

/// What a long-running process logs, to stderr.
#[derive(Clone, Debug, Args)]
pub(crate) struct LogArgs {
    /// How much to log: error, warn, info, debug (each request), trace, or a list such as `warn,server=debug` [default: warn]
    #[arg(long = "log", value_name = "LEVEL", env = "STANCH_LOG")]
    pub(crate) level: Option<String>,
    /// How a line is written; json is one object a line [default: text]
    #[arg(long = "log-format", value_enum, value_name = "FORMAT", env = "STANCH_LOG_FORMAT")]
    pub(crate) format: Option<LogFormat>,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// `stanch executor`
#[derive(Debug, Args)]
pub(crate) struct ExecutorArgs {
    /// What it logs
    #[command(flatten)]
    pub(crate) log: LogArgs,
    /// Address of the server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8001", env = "STANCH_SERVER")]
    pub(crate) server: String,
    /// The directory with the executor's key
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The topology file
    #[arg(long, value_name = "FILE")]
    pub(crate) topology: Option<PathBuf>,
    /// The supervisor's directory
    #[arg(long, value_name = "DIR")]
    pub(crate) platform: Option<PathBuf>,
    /// How long it may be silent before another executor takes over, in milliseconds
    #[arg(long, default_value_t = 10_000)]
    pub(crate) lease_ms: u64,
    /// End when standard input closes
    #[arg(long, hide = true)]
    pub(crate) lifeline: bool,
}

/// `stanch supervise`
#[derive(Debug, Args)]
pub(crate) struct SuperviseArgs {
    /// What it logs
    #[command(flatten)]
    pub(crate) log: LogArgs,
    /// The topology file
    pub(crate) file: PathBuf,
    /// Where it keeps sockets, logs and ledgers
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// End when standard input closes
    #[arg(long, hide = true)]
    pub(crate) lifeline: bool,
}

/// `stanch proxy`
#[derive(Debug, Args)]
pub(crate) struct ProxyArgs {
    /// What it logs
    #[command(flatten)]
    pub(crate) log: LogArgs,
    /// The topology file
    pub(crate) file: PathBuf,
    /// The supervisor's directory
    #[arg(long)]
    pub(crate) data: PathBuf,
}

/// `stanch evidence`
#[derive(Debug, Subcommand)]
pub(crate) enum EvidenceCommand {
    /// Verify a bundle offline: exit 0 sound, 50 not
    #[command(
        after_help = "Examples:\n  stanch evidence verify inc-….stanch\n  stanch evidence verify inc-….stanch --trust ./data/trust.keys"
    )]
    Verify {
        /// The bundle
        file: PathBuf,
        /// Keys it must be signed with: the trust.keys file of the server's data directory
        #[arg(long, value_name = "KEYS")]
        trust: Option<PathBuf>,
        /// JSON on stdout
        #[arg(long)]
        json: bool,
    },
    /// Fetch an incident's bundle from a server
    #[command(after_help = "Example:\n  stanch evidence export 7kq2… --out inc.stanch")]
    Export {
        /// The incident's id, as `stanch recover` prints it
        incident: String,
        /// Address of the server
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8001", env = "STANCH_SERVER")]
        server: String,
        /// Where to write it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List the records of a bundle
    #[command(after_help = "Example:\n  stanch evidence show inc-….stanch")]
    Show {
        /// The bundle
        file: PathBuf,
        /// JSON on stdout
        #[arg(long)]
        json: bool,
    },
}

/// `stanch replay`
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The bundle
    pub(crate) file: PathBuf,
    /// Keys it must be signed with
    #[arg(long, value_name = "KEYS")]
    pub(crate) trust: Option<PathBuf>,
    /// Show what this policy would have decided instead
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `stanch outbox`
#[derive(Debug, Subcommand)]
pub(crate) enum OutboxCommand {
    /// List what waits, what was sent a moment ago and what was given up (dead letters)
    #[command(after_help = "Examples:\n  stanch outbox ls\n  stanch outbox ls --dead --json")]
    Ls(OutboxListArgs),
    /// Send a dead letter again, or at once what waits for its next attempt
    #[command(after_help = "Examples:\n  stanch outbox retry 17\n  stanch outbox retry --all")]
    Retry(OutboxRetryArgs),
}

/// `stanch outbox ls`
#[derive(Debug, Args)]
pub(crate) struct OutboxListArgs {
    /// Only what was given up
    #[arg(long)]
    pub(crate) dead: bool,
    /// Address of the server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8001", env = "STANCH_SERVER")]
    pub(crate) server: String,
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `stanch outbox retry`
#[derive(Debug, Args)]
pub(crate) struct OutboxRetryArgs {
    /// The message, by the id that `stanch outbox ls` shows
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) id: Option<u64>,
    /// Every dead letter
    #[arg(long)]
    pub(crate) all: bool,
    /// Address of the server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8001", env = "STANCH_SERVER")]
    pub(crate) server: String,
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `stanch lab`
#[cfg(feature = "lab")]
#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// Break the shop in every way with several seeds, and judge each recovery: exit 0 all correct, 3 not
    #[command(
        after_help = "Examples:\n  stanch lab faults --fault hang --fault leak --seeds 1-2\n  stanch lab faults --seeds 1-5 --results faults.jsonl --json"
    )]
    Faults(LabFaultsArgs),
}

/// `stanch lab faults`
#[cfg(feature = "lab")]
#[derive(Debug, Args)]
pub(crate) struct LabFaultsArgs {
    /// Only this fault; may be given several times (default: every one)
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) fault: Vec<Fault>,
    /// One seed or a range
    #[arg(long, value_name = "SEEDS", default_value = "1-5", value_parser = crate::commands::lab_seeds)]
    pub(crate) seeds: Seeds,
    /// Keep results in this file; what stands in it already is shown and not run again
    #[arg(long, value_name = "FILE")]
    pub(crate) results: Option<PathBuf>,
    /// With --results: run again what stands in it already
    #[arg(long, requires = "results")]
    pub(crate) again: bool,
    /// Where each run keeps its shop's files (default: a directory that is removed if all is correct)
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// Seeds, in order.
#[cfg(feature = "lab")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seeds(pub(crate) Vec<u64>);

/// `stanch bench`
#[cfg(feature = "lab")]
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// The recovery protocol: rates, latencies, the server's CPU per request, and what people feel of it
    #[command(
        after_help = "Examples:\n  stanch bench protocol\n  stanch bench protocol --workload create --workload step --conns 32,128 --json\n  stanch bench protocol --url http://127.0.0.1:8001 --pid 4711 --workload get\n  stanch bench protocol --workload memory --promises 1000000\n\nWithout --url every workload gets a fresh server on an empty directory. CPU is what the server's process used,\nuser and system together, divided by the requests answered. Exit codes: 0 done, 3 a wrong answer."
    )]
    Protocol(BenchProtocolArgs),
    /// Recovery groups: rebuilds, queries, joined spans and memory, and the paper's algorithm on the same graphs
    #[command(
        after_help = "Examples:\n  stanch bench groups\n  stanch bench groups --json\n  stanch bench groups --quick --json\n\nNetworks are drawn from fixed seeds. Progress is on stderr. Latencies are elapsed time, throughputs are per second\nof one processor. A run beside other work is marked as noisy. Exit code: 0 done."
    )]
    Groups(BenchGroupsArgs),
    /// The floor: a handler that does nothing on the server's HTTP stack
    #[command(hide = true)]
    Echo,
}

/// `stanch bench groups`
#[cfg(feature = "lab")]
#[derive(Debug, Args)]
pub(crate) struct BenchGroupsArgs {
    /// Networks drawn per shape, with the seeds 1, 2, … (default: 10, with --quick 1)
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(crate) seeds: Option<u64>,
    /// Small networks, for a moment: it shows that it runs, never how fast
    #[arg(long)]
    pub(crate) quick: bool,
    /// One JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `stanch bench protocol`
#[cfg(feature = "lab")]
#[derive(Debug, Args)]
pub(crate) struct BenchProtocolArgs {
    /// Address of a running server of this protocol (default: servers of its own)
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// With --url: the server's process number, to see what it spends
    #[arg(long, value_name = "PID", requires = "url")]
    pub(crate) pid: Option<u32>,
    /// Only this; may be given several times (default: all but memory). Loads: create, get, create_settle,
    /// task_create_fulfill, step, heartbeat20. Effects: execute, backlog, join, long_workflow, takeover, memory
    #[arg(long = "workload", value_name = "NAME", value_parser = lab::bench::Workload::from_name)]
    pub(crate) workloads: Vec<lab::bench::Workload>,
    /// Connections of a load, or several numbers of them with commas between
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "32", value_parser = crate::commands::bench_connections)]
    pub(crate) conns: Vec<usize>,
    /// Seconds that each load is measured, after one second of warm-up
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = crate::commands::bench_window)]
    pub(crate) secs: std::time::Duration,
    /// How many promises the workload memory makes
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000_000)]
    pub(crate) promises: u64,
    /// Where its own servers keep their files while they run: the disk that is measured (default: the temporary directory)
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// One JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `stanch doctor`
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Which store
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// `stanch backup`
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The data directory (default: ~/.local/state/stanch/server)
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Fetch it from a running server instead, without its keys
    #[arg(long, value_name = "URL", conflicts_with_all = ["data", "with_keys"])]
    pub(crate) server: Option<String>,
    /// The file to write; it must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,
    /// Put the server's keys and policy in, too; whoever reads the file can then sign as this server
    #[arg(long)]
    pub(crate) with_keys: bool,
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `stanch restore`
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup
    pub(crate) file: PathBuf,
    /// The data directory to make; it must be empty or not exist
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `stanch config`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show every value and where it comes from
    #[command(after_help = "Example:\n  stanch config show --data ./data")]
    Show(DataArgs),
}

#[cfg(test)]
mod tests;
