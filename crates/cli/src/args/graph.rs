//! The command line of groups and of the graph.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `stanch group`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct GroupArgs {
    /// What else is asked
    #[command(subcommand)]
    pub(crate) command: Option<GroupCommand>,
    /// The service that would be restarted
    #[arg(required = true)]
    pub(crate) service: Option<String>,
    /// Where the graph comes from
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// In which form
    #[command(flatten)]
    pub(crate) shown: ShownArgs,
}

/// What `stanch group` answers beside one group.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// List every service: who calls it, whom it calls, how much of it was never seen, what is permitted
    #[command(
        after_help = "Examples:\n  stanch group ls\n  stanch group ls --traces spans.csv.gz --declared stanch.toml"
    )]
    Ls(GroupListArgs),
    /// Measure what a graph misses that saw only a part of the traces, and whether its bound said so
    #[command(
        after_help = "Examples:\n  stanch group evaluate --traces trainticket-faults.spans.csv.gz\n  stanch group evaluate --traces faults.json.gz --fault-free calm.json.gz --holdout fault --json\n\nExit 3: a bound that was claimed is broken, or more than 0.5% of the decisions with full permission miss\nsomething. docs/groups.md says what is measured."
    )]
    Evaluate(EvaluateArgs),
}

/// `stanch group ls`
#[derive(Debug, Args)]
pub(crate) struct GroupListArgs {
    /// Where the graph comes from
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `stanch group evaluate`
#[derive(Debug, Args)]
pub(crate) struct EvaluateArgs {
    /// The trace file (gzip is read too)
    #[arg(long, value_name = "FILE")]
    pub(crate) traces: PathBuf,
    /// Traces of the same system without faults, which the fault holdout learns from (default: for a Nezha table, the
    /// file beside it that says `faultfree`)
    #[arg(long, value_name = "FILE")]
    pub(crate) fault_free: Option<PathBuf>,
    /// One holdout alone (default: all four)
    #[arg(long, value_enum)]
    pub(crate) holdout: Option<HoldoutName>,
    /// Format of the trace files (default: from their first bytes)
    #[arg(long, value_enum)]
    pub(crate) format: Option<TraceFormat>,
    /// Topology file: what must restart together, who calls whom
    #[arg(long, value_name = "FILE")]
    pub(crate) declared: Option<PathBuf>,
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HoldoutName {
    /// Everything after an instant
    Time,
    /// All but a sample of the traces
    Sampling,
    /// Everything under faults
    Fault,
    /// All spans of one service, each in turn
    Blackout,
}

/// `stanch graph`
#[derive(Debug, Subcommand)]
pub(crate) enum GraphCommand {
    /// Write the whole graph: services, edges, and what is known of them
    #[command(
        after_help = "Examples:\n  stanch graph export --json > graph.json\n  stanch graph export --traces spans.csv.gz --dot > graph.dot"
    )]
    Export(GraphExportArgs),
}

/// `stanch graph export`
#[derive(Debug, Args)]
pub(crate) struct GraphExportArgs {
    /// Where the graph comes from
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// In which form (default: JSON)
    #[command(flatten)]
    pub(crate) shown: ShownArgs,
}

/// Where a graph comes from.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// Answer from a trace file (gzip is read too), without any server
    #[arg(long, value_name = "FILE")]
    pub(crate) traces: Option<PathBuf>,
    /// Answer from a running server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8001", env = "STANCH_SERVER")]
    pub(crate) server: String,
    /// Format of the trace file (default: from its first bytes)
    #[arg(long, value_enum, requires = "traces")]
    pub(crate) format: Option<TraceFormat>,
    /// Topology file: what must restart together, who calls whom, and what is fast enough
    #[arg(long, value_name = "FILE", requires = "traces")]
    pub(crate) declared: Option<PathBuf>,
}

/// In which form a graph is shown.
#[derive(Clone, Copy, Debug, Default, Args)]
#[group(multiple = false)]
pub(crate) struct ShownArgs {
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
    /// A picture in Graphviz's language
    #[arg(long)]
    pub(crate) dot: bool,
    /// A picture in Mermaid's language
    #[arg(long)]
    pub(crate) mermaid: bool,
}

/// Formats of trace files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TraceFormat {
    /// OpenTelemetry JSON, one export request a line or one in all
    OtlpJson,
    /// Jaeger's HTTP API JSON
    Jaeger,
    /// Nezha's compact CSV, with its dictionary beside it
    Nezha,
    /// Zipkin's version 2 JSON
    Zipkin,
    /// Alibaba's call graph CSV of 2021 or 2022
    Alibaba,
    /// Jaeger's dependencies: services and call counts
    Edges,
}

impl ShownArgs {
    /// Whether a picture was asked for.
    pub(crate) fn is_picture(self) -> bool {
        self.dot || self.mermaid
    }
}
