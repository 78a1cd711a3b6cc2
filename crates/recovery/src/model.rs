//! The F0 preview: a discrete-event model of the services, fitted to live numbers, on which a plan is
//! tried some hundred times before anything real is touched (`ARCHITECTURE.md`, "Preview").
//!
//! It knows queues, worker pools, timeouts, retries, limits, breakers, drains, restarts and replica
//! counts. It knows nothing of code paths, data or configuration; [`Report::not_modeled`] says so.
//! Virtual time in integer microseconds and counted draws: the same input gives the same bytes.

mod arithmetic;
mod compile;
pub(crate) mod draw;
mod engine;
mod fit;
mod fix;
mod report;
mod stage;

pub use arithmetic::{QuorumPhase, Wave};
pub use fit::{Fitted, Unfit, Window, fit};
pub use fix::{Change, Mutable, find_fix};
pub use report::{EdgeAttempts, Finding, FindingKind, Report, Saturation, StepReport, path_line, path_lines, preview};

use crate::call::State;
use crate::check::CheckedStep;
use crate::isa::{Action, ActionKind};
use base::Digest;

/// Events that all runs of one preview together may spend.
pub const MODEL_EVENTS_MAX: u64 = 40_000_000;
/// Values kept of one measured distribution.
pub const SAMPLES_MAX: usize = 512;
/// Runs of a finding that are kept for the search of a fix.
pub const FIX_RUNS_MAX: usize = 32;

base::word_enum! {
    /// Where a parameter of the model comes from.
    pub enum Source {
        /// The topology file.
        Declared = 1 "declared",
        /// Spans of the fit window.
        Measured = 2 "measured",
        /// Neither: a stated default.
        Assumed = 3 "assumed",
    }
}

base::record! {
    /// What the model knows of one service.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ServiceFit {
        /// Its name.
        1 pub name: String,
        /// Replicas.
        2 pub replicas: u32,
        /// Requests one replica serves at once.
        3 pub workers: u32,
        /// Where `workers` comes from.
        4 pub workers_from: Source,
        /// Requests one replica lets wait; absent: no bound.
        5 pub queue_max: Option<u32>,
        /// Own time of an execution without its callees and without waiting, microseconds, ascending.
        6 pub times_us: Vec<u32>,
        /// Time from start to ready, microseconds, ascending.
        7 pub start_up_us: Vec<u32>,
        /// Where `start_up_us` comes from.
        8 pub start_up_from: Source,
        /// 99th percentile its objective allows.
        9 pub p99_us: Option<u64>,
        /// Share of errors its objective allows.
        10 pub errors_ppm: Option<u32>,
        /// Replicas that must stay ready.
        11 pub min_available: Option<u32>,
        /// Members of its quorum set.
        12 pub quorum_of: Option<u32>,
        /// Declared capacity of one replica in milli-requests per second.
        13 pub capacity_mrps: Option<u64>,
    }
}

base::record! {
    /// What the model knows of one edge.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct EdgeFit {
        /// The caller.
        1 pub caller: String,
        /// The callee.
        2 pub callee: String,
        /// Calls per execution of the caller, without retries, permille.
        3 pub calls_permille: u32,
        /// The caller's timeout for one attempt.
        4 pub timeout_us: Option<u64>,
        /// Attempts in all.
        5 pub attempts: u32,
        /// Wait before the second attempt; doubles.
        6 pub base_us: u64,
        /// Longest wait.
        7 pub cap_us: u64,
        /// Share of requests that may be retried; absent: all.
        8 pub budget_ppm: Option<u32>,
        /// The caller does not wait for the answer.
        9 pub asynchronous: bool,
        /// The caller lives without the answer.
        10 pub soft: bool,
        /// Where timeout and retry come from.
        11 pub policy_from: Source,
    }
}

base::record! {
    /// Where requests enter and how many.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct RootFit {
        /// The service they enter.
        1 pub service: String,
        /// Requests in each second of the fit window.
        2 pub per_second: Vec<u32>,
        /// How long the client waits.
        3 pub timeout_us: Option<u64>,
        /// Evenly spaced instead of Poisson.
        4 pub periodic: bool,
    }
}

base::record! {
    /// The fitted model.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Fit {
        /// Services, by name.
        1 pub services: Vec<ServiceFit>,
        /// Edges; those of one caller in the order it calls.
        2 pub edges: Vec<EdgeFit>,
        /// Entries.
        3 pub roots: Vec<RootFit>,
    }
}

/// State of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Serves.
    Up,
    /// Accepts and never answers.
    Hung,
    /// Refuses at once.
    Down,
    /// Serves, so many microseconds later.
    Slow(u64),
    /// Stays in rotation and answers with an error, after so many microseconds of a worker's time.
    Failing(u64),
}

/// A replica that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impairment {
    /// The service.
    pub service: String,
    /// The replica.
    pub replica: u32,
    /// Its state.
    pub health: Health,
    /// The configuration object (`KIND/NS/NAME`) whose change is taken for its cause: rolling it back is assumed to
    /// end it.
    pub caused_by: Option<String>,
}

/// One step of the plan as the model needs it: what a checked step says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its key.
    pub key: String,
    /// The action, defaults filled.
    pub action: Action,
    /// The fields it sets.
    pub desired: State,
    /// How long *done* must hold.
    pub done_ms: u64,
    /// How long it is watched after that.
    pub guard_ms: u64,
    /// When it has failed.
    pub deadline_ms: u64,
}

/// Numbers a run may not exceed; absent: not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Attempts per logical request along a path, permille.
    pub amplification_permille: Option<u64>,
    /// Requests waiting in one service.
    pub backlog: Option<u64>,
    /// Time until the backlog is back to normal.
    pub drain_ms: Option<u64>,
    /// Time to carry the plan out.
    pub delay_ms: Option<u64>,
    /// Time until everything is normal again.
    pub convergence_ms: Option<u64>,
}

/// How to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// First word of every seed.
    pub seed: u64,
    /// Runs; each fifth is hostile.
    pub runs: u32,
    /// Events all runs together may spend; above it requests are thinned.
    pub events_max: u64,
    /// Healthy time before the onset.
    pub warm_up_ms: u64,
    /// The most of the time since the onset that is simulated.
    pub onset_max_ms: u64,
    /// Objective missed this long in a row means impaired.
    pub impaired_for_ms: u64,
    /// Time after the plan within which a run must converge.
    pub settle_ms: u64,
    /// The incident's time budget.
    pub t_budget_ms: u64,
    /// Time the kernel needs for a step besides the action: observe, record, call.
    pub overhead_ms: u64,
}

/// Everything a preview depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The fitted model.
    pub fit: Fit,
    /// Digest of the plan that is tried.
    pub plan: Digest,
    /// Its steps.
    pub steps: Vec<Step>,
    /// What is wrong now.
    pub impairments: Vec<Impairment>,
    /// Services measured to be impaired now: growth counts others only.
    pub impaired: Vec<String>,
    /// Traffic settings in force now (limits, weights, breakers).
    pub settings: State,
    /// Time since the onset.
    pub since_onset_ms: u64,
    /// How to run.
    pub config: Config,
    /// What may not be exceeded.
    pub bounds: Bounds,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            seed: 1,
            runs: 500,
            events_max: MODEL_EVENTS_MAX,
            warm_up_ms: 1_500,
            onset_max_ms: 6_000,
            impaired_for_ms: 10_000,
            settle_ms: 10_000,
            t_budget_ms: 120_000,
            overhead_ms: 100,
        }
    }
}

impl Step {
    /// Whether the step takes load off something.
    #[must_use]
    pub fn is_limiting(&self) -> bool {
        matches!(self.action.kind(), ActionKind::RateLimit | ActionKind::CircuitBreak | ActionKind::Drain)
    }
}

impl From<&CheckedStep> for Step {
    fn from(step: &CheckedStep) -> Step {
        Step {
            key: step.key.clone(),
            action: step.action.clone(),
            desired: step.desired.clone(),
            done_ms: step.done_ms,
            guard_ms: step.guard_ms,
            deadline_ms: step.deadline_ms,
        }
    }
}

impl Fit {
    /// The service of this name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&ServiceFit> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Digest of the fitted model.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_object("model", self)
    }
}

impl RootFit {
    /// Mean rate in milli-requests per second.
    #[must_use]
    pub fn rate_mrps(&self) -> u64 {
        let total: u64 = self.per_second.iter().map(|count| u64::from(*count)).sum();
        (total * 1_000).checked_div(self.per_second.len() as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
