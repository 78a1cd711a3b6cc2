//! The arguments of the commands for promises, tasks and schedules.

use base::Millis;
use clap::{Args, Subcommand, ValueEnum};
use protocol::{PromiseState, Resolution, TaskState};

/// Which server, and how its answer is shown.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// Address of the server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8001", env = "STANCH_SERVER")]
    pub(crate) server: String,
    /// JSON on stdout; instants are milliseconds since 1970
    #[arg(long)]
    pub(crate) json: bool,
}

/// How much of a list.
#[derive(Debug, Args)]
pub(crate) struct PageArgs {
    /// How many at most, from 1 to 1000
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(crate) limit: u64,
    /// All there are, page after page; --limit is then the size of a page
    #[arg(long)]
    pub(crate) all: bool,
    /// Go on behind this id: the cursor of the page before
    #[arg(long, value_name = "ID")]
    pub(crate) cursor: Option<String>,
}

/// What a promise is passed when it is created.
#[derive(Debug, Args)]
pub(crate) struct ParamArgs {
    /// What it is passed: JSON, or else text; sent as base64 of JSON, as workers read it
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) param: Option<String>,
    /// What it is passed, sent exactly so
    #[arg(long, value_name = "TEXT", conflicts_with = "param", allow_hyphen_values = true)]
    pub(crate) raw_param: Option<String>,
}

/// Tags of a promise.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// A tag; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = tag)]
    pub(crate) tag: Vec<(String, String)>,
}

/// `stanch promise`
#[derive(Debug, Subcommand)]
pub(crate) enum PromiseCommand {
    /// Create a promise, or show the one of that id: exit 3 if that one is another
    #[command(
        after_help = "Examples:\n  stanch promise create approval-7 --timeout 2d\n  stanch promise create job-7 --target poll://any@default --param \"hello\" --tag team=billing"
    )]
    Create(PromiseCreateArgs),
    /// Settle a promise; exit 3 if it had settled in another way before
    #[command(
        after_help = "Examples:\n  stanch promise settle approval-7 --value true\n  stanch promise settle approval-7 --state rejected --value \"not today\""
    )]
    Settle(PromiseSettleArgs),
    /// Show a promise
    #[command(after_help = "Example:\n  stanch promise get approval-7 --json")]
    Get(PromiseGetArgs),
    /// List promises in the order of their ids
    #[command(
        after_help = "Examples:\n  stanch promise ls --state pending --limit 20\n  stanch promise ls --tag team=billing --all --json"
    )]
    Ls(PromiseLsArgs),
    /// Show what a call called: the promises below one, with their states and durations
    #[command(after_help = "Example:\n  stanch promise tree order-7")]
    Tree(TreeArgs),
    /// Wait until a promise settles, and show it: exit 0 if it resolved, 3 if not
    #[command(after_help = "Example:\n  stanch promise watch approval-7 --for 10m")]
    Watch(WatchArgs),
}

/// `stanch promise create`
#[derive(Debug, Args)]
pub(crate) struct PromiseCreateArgs {
    /// Its id
    pub(crate) id: String,
    /// It times out after this
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = Millis::parse)]
    pub(crate) timeout: Millis,
    /// Who is offered its task; without one it has no task, and somebody settles it from outside
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) target: Option<String>,
    /// Its task is not offered before this has passed
    #[arg(long, value_name = "DURATION", value_parser = Millis::parse, requires = "target")]
    pub(crate) delay: Option<Millis>,
    /// What it is passed
    #[command(flatten)]
    pub(crate) param: ParamArgs,
    /// Its tags
    #[command(flatten)]
    pub(crate) tags: TagArgs,
    /// Where
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `stanch promise settle`
#[derive(Debug, Args)]
pub(crate) struct PromiseSettleArgs {
    /// Its id
    pub(crate) id: String,
    /// How
    #[arg(long, value_enum, default_value_t = SettleState::Resolved)]
    pub(crate) state: SettleState,
    /// The result: JSON, or else text; sent as base64 of JSON, as workers read it
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) value: Option<String>,
    /// The result, sent exactly so
    #[arg(long, value_name = "TEXT", conflicts_with = "value", allow_hyphen_values = true)]
    pub(crate) raw_value: Option<String>,
    /// Where
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `stanch promise get`
#[derive(Debug, Args)]
pub(crate) struct PromiseGetArgs {
    /// Its id
    pub(crate) id: String,
    /// Show what it carries as it was sent
    #[arg(long)]
    pub(crate) raw: bool,
    /// Where
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `stanch promise ls`
#[derive(Debug, Args)]
pub(crate) struct PromiseLsArgs {
    /// Only those in this state
    #[arg(long, value_enum)]
    pub(crate) state: Option<PromiseStateName>,
    /// Only those with these tags
    #[command(flatten)]
    pub(crate) tags: TagArgs,
    /// How many
    #[command(flatten)]
    pub(crate) page: PageArgs,
    /// Show what they carry as it was sent
    #[arg(long)]
    pub(crate) raw: bool,
    /// Where
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `stanch promise tree`, and `stanch tree`
#[derive(Debug, Args)]
pub(crate) struct TreeArgs {
    /// The promise at the top
    pub(crate) id: String,
    /// Where
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `stanch promise watch`
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Its id
    pub(crate) id: String,
    /// Wait no longer than this; exit 60 if it has not settled then
    #[arg(long = "for", value_name = "DURATION", value_parser = Millis::parse)]
    pub(crate) wait: Option<Millis>,
    /// Show what it carries as it was sent
    #[arg(long)]
    pub(crate) raw: bool,
    /// Where
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `stanch task`
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Show a task as workers see it
    #[command(after_help = "Example:\n  stanch task get order-7 --json")]
    Get(TaskIdArgs),
    /// Show why a task is where it is: attempts, lease, next offer, who waits, who listens, why it was halted
    #[command(after_help = "Example:\n  stanch task show order-7")]
    Show(TaskIdArgs),
    /// List tasks in the order of their ids
    #[command(after_help = "Examples:\n  stanch task ls --state halted\n  stanch task ls --all --json")]
    Ls(TaskLsArgs),
    /// Stop a task: whoever holds it loses it, and it is offered to nobody until it is continued
    #[command(after_help = "Example:\n  stanch task halt order-7")]
    Halt(TaskIdArgs),
    /// Offer a halted task again
    #[command(after_help = "Example:\n  stanch task continue order-7")]
    Continue(TaskIdArgs),
}

/// One task.
#[derive(Debug, Args)]
pub(crate) struct TaskIdArgs {
    /// Its id, which is its promise's
    pub(crate) id: String,
    /// Where
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `stanch task ls`
#[derive(Debug, Args)]
pub(crate) struct TaskLsArgs {
    /// Only those in this state
    #[arg(long, value_enum)]
    pub(crate) state: Option<TaskStateName>,
    /// How many
    #[command(flatten)]
    pub(crate) page: PageArgs,
    /// Where
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `stanch schedule`
#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Create a schedule, or show the one of that id: exit 3 if that one is another
    #[command(
        after_help = "Examples:\n  stanch schedule create nightly --cron \"0 3 * * *\" --func report --arg all\n  stanch schedule create tick --cron \"*/10 * * * * *\" --target poll://any@ticks --promise-id tick-{{.timestamp}}\n\nCron, in UTC: minute hour day month weekday (Sunday is 1); with six fields seconds come first,\nwith seven the year comes last."
    )]
    Create(ScheduleCreateArgs),
    /// Show a schedule
    #[command(after_help = "Example:\n  stanch schedule get nightly")]
    Get(ScheduleIdArgs),
    /// List schedules in the order of their ids
    #[command(after_help = "Example:\n  stanch schedule ls --all")]
    Ls(ScheduleLsArgs),
    /// End a schedule; the promises it created stay
    #[command(after_help = "Example:\n  stanch schedule delete nightly")]
    Delete(ScheduleIdArgs),
}

/// `stanch schedule create`
#[derive(Debug, Args)]
pub(crate) struct ScheduleCreateArgs {
    /// Its id
    pub(crate) id: String,
    /// When it fires, in UTC
    #[arg(long, value_name = "EXPRESSION")]
    pub(crate) cron: String,
    /// The id of each promise; `{{.id}}` is the schedule's id and `{{.timestamp}}` the instant of the firing
    #[arg(long, value_name = "TEMPLATE", default_value = "{{.id}}-{{.timestamp}}")]
    pub(crate) promise_id: String,
    /// Each promise times out after this
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = Millis::parse)]
    pub(crate) timeout: Millis,
    /// Who is offered each task
    #[arg(long, value_name = "ADDRESS", default_value = "poll://any@default")]
    pub(crate) target: String,
    /// Which function the worker runs; without one it gets --param as it is
    #[arg(long, value_name = "NAME", conflicts_with_all = ["param", "raw_param"])]
    pub(crate) func: Option<String>,
    /// The function's arguments
    #[command(flatten)]
    pub(crate) call: CallArgs,
    /// What each promise is passed
    #[command(flatten)]
    pub(crate) param: ParamArgs,
    /// The tags of each promise
    #[command(flatten)]
    pub(crate) tags: TagArgs,
    /// Where
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// One schedule.
#[derive(Debug, Args)]
pub(crate) struct ScheduleIdArgs {
    /// Its id
    pub(crate) id: String,
    /// Where
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `stanch schedule ls`
#[derive(Debug, Args)]
pub(crate) struct ScheduleLsArgs {
    /// Only those whose promises have these tags
    #[command(flatten)]
    pub(crate) tags: TagArgs,
    /// How many
    #[command(flatten)]
    pub(crate) page: PageArgs,
    /// Where
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// The arguments of a function.
#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// An argument, as text; may be given several times
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) arg: Vec<String>,
    /// Read every --arg as JSON
    #[arg(long)]
    pub(crate) json_args: bool,
    /// Which version of the function
    #[arg(long = "version", value_name = "NUMBER", default_value_t = 1)]
    pub(crate) func_version: u32,
}

/// `stanch invoke`
#[derive(Debug, Args)]
pub(crate) struct InvokeArgs {
    /// The id of the call: the same id is the same call, however often it is made
    pub(crate) id: String,
    /// Which function a worker runs
    #[arg(long, value_name = "NAME")]
    pub(crate) func: String,
    /// Its arguments
    #[command(flatten)]
    pub(crate) call: CallArgs,
    /// It times out after this
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = Millis::parse)]
    pub(crate) timeout: Millis,
    /// Who is offered it
    #[arg(long, value_name = "ADDRESS", default_value = "poll://any@default")]
    pub(crate) target: String,
    /// It is not offered before this has passed
    #[arg(long, value_name = "DURATION", value_parser = Millis::parse)]
    pub(crate) delay: Option<Millis>,
    /// Wait for its result: exit 0 if it resolved, 3 if not
    #[arg(long)]
    pub(crate) wait: bool,
    /// Show the result as it was sent
    #[arg(long)]
    pub(crate) raw: bool,
    /// Where
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// States of a promise, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum PromiseStateName {
    /// Not settled
    Pending,
    /// Settled with success
    Resolved,
    /// Settled with failure
    Rejected,
    /// Settled by cancellation
    RejectedCanceled,
    /// Settled by its deadline
    RejectedTimedout,
}

impl From<PromiseStateName> for PromiseState {
    fn from(name: PromiseStateName) -> PromiseState {
        match name {
            PromiseStateName::Pending => PromiseState::Pending,
            PromiseStateName::Resolved => PromiseState::Resolved,
            PromiseStateName::Rejected => PromiseState::Rejected,
            PromiseStateName::RejectedCanceled => PromiseState::Canceled,
            PromiseStateName::RejectedTimedout => PromiseState::TimedOut,
        }
    }
}

/// Ways to settle a promise, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum SettleState {
    /// With success
    Resolved,
    /// With failure
    Rejected,
    /// By cancellation
    RejectedCanceled,
}

impl From<SettleState> for Resolution {
    fn from(state: SettleState) -> Resolution {
        match state {
            SettleState::Resolved => Resolution::Resolved,
            SettleState::Rejected => Resolution::Rejected,
            SettleState::RejectedCanceled => Resolution::Canceled,
        }
    }
}

/// States of a task, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TaskStateName {
    /// Offered to workers
    Pending,
    /// Held by a worker
    Acquired,
    /// Waiting for another promise
    Suspended,
    /// Stopped, by an operator or after too many attempts
    Halted,
    /// Over
    Fulfilled,
}

impl From<TaskStateName> for TaskState {
    fn from(name: TaskStateName) -> TaskState {
        match name {
            TaskStateName::Pending => TaskState::Pending,
            TaskStateName::Acquired => TaskState::Acquired,
            TaskStateName::Suspended => TaskState::Suspended,
            TaskStateName::Halted => TaskState::Halted,
            TaskStateName::Fulfilled => TaskState::Fulfilled,
        }
    }
}

/// `KEY=VALUE`
fn tag(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a tag is written KEY=VALUE")?;
    if key.is_empty() {
        Err("a tag has a key before the `=`".to_owned())
    } else {
        Ok((key.to_owned(), value.to_owned()))
    }
}
