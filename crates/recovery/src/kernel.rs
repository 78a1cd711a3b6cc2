//! The transactional executor: a state machine over the journal (`ARCHITECTURE.md`, "The kernel").
//!
//! It never acts: it asks for commands and is told events. A call is released only after the record that
//! announces it is durable; whatever is unknown is reconciled before anything else happens; what failed
//! is undone in strict reverse. A successor that replays the journal continues where it ends: there is
//! one code path for normal and failover.
//!
//! Driver: append records in order, one by one; answer each command with its event; call
//! [`Kernel::handle_timeout`] when [`Kernel::poll_timeout`] is due. After `Fenced` it stays silent.

mod guard;
mod machine;
mod replay;
mod undo;

pub use replay::{JournalError, Misfit};

use crate::call::{Call, Fence, Key, Observation, Receipt, Reconciled, State, Undo, Versions};
use crate::check::{Checked, CheckedStep};
use crate::journal::{Cause, JOURNAL_RECORDS_MAX, Outcome, Record};
use crate::plan::Predicate;
use base::{Digest, Millis, Timestamp};
use std::collections::VecDeque;

/// LIMIT: times one key is performed.
pub const PERFORM_ATTEMPTS_MAX: u32 = 3;
/// LIMIT: deliberate repeats of one step.
pub const RESTART_ATTEMPTS_MAX: u32 = 2;
/// LIMIT: times one compensation is tried.
pub const UNDO_ATTEMPTS_MAX: u32 = 5;

base::record! {
    /// How bad things are, over fault scope and hard callers.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Severity {
        /// Weight of the impaired units.
        1 pub impaired: u64,
        /// Objectives missed.
        2 pub objectives: u64,
        /// Bad root requests, parts per million, without those the plan's own open steps shed as declared.
        3 pub bad_ppm: u64,
        /// Root requests the plan's own open steps shed as declared, parts per million; they count at the end.
        4 pub shed_ppm: u64,
    }
}

base::record! {
    /// What allowed the plan to run.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Armed {
        /// Digest of the decision.
        1 pub decision: Digest,
        /// Lease epoch and task version of this executor.
        2 pub fence: Fence,
        /// How bad things were.
        3 pub severity: Severity,
    }
}

/// The times of the policy that no step carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Waits between questions about an unknown outcome; the last one repeats.
    pub backoff: Vec<Millis>,
    /// More bad requests than before, this long in a row, is a regression.
    pub regression_for: Millis,
    /// An older severity is none.
    pub severity_age_max: Millis,
    /// What a step interrupted by a takeover gets on top of its deadline.
    pub takeover: Millis,
    /// Time for one compensation.
    pub undo_deadline: Millis,
}

/// What the driver is asked to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Fields, by the names of [`crate::call`].
    pub fields: Vec<String>,
    /// Facts, by the names of [`fact_name`], `ready/S@n` (1 or 0), `inflight/S@n`, and `passed/A->S` or
    /// `passed/S` (milli-requests per second let through a limit or breaker).
    pub facts: Vec<String>,
}

/// What the driver read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The fields with their versions and the time.
    pub observation: Observation,
    /// The facts that could be read; one that is missing is unknown.
    pub facts: State,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The record with this number is durable.
    Durable(u64),
    /// The record with this number was refused because of a hold and never happened.
    NotAppended(u64),
    /// Answer to `Observe`, after the checks that run before each step passed again.
    Observed(Key, Look),
    /// A look during `Watch`; as many as there are.
    Watched(Key, Look),
    /// The checks before a step refused, or the actuator: drifted, refused or unsupported.
    Rejected(Key, Cause),
    /// Answer to `Perform` or `Compensate`.
    Receipt(Key, Receipt),
    /// `Perform` or `Compensate` timed out, or the actuator is unavailable.
    Unknown(Key),
    /// Answer to `Reconcile`.
    Reconciled(Key, Reconciled),
    /// The step did what nobody announced.
    Deviated(Key),
    /// The data plane restored what was before this call; the receipt has the versions since.
    Expired(Key, Receipt),
    /// How bad things are now.
    Severity(Severity),
    /// A hold covers the scope; with `undo` open steps are compensated.
    Hold {
        /// Whether open steps are compensated.
        undo: bool,
    },
    /// The hold is gone.
    Resumed,
    /// A person wants it undone.
    UndoRequested,
    /// A successor owns the plan.
    Fenced,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Append this record with this number, counted from 0.
    Append(u64, Record),
    /// Run the checks before a step again, then read this.
    Observe(Key, Selector),
    /// Make this call.
    Perform(Call),
    /// Ask what became of this call.
    Reconcile(Call),
    /// Make this compensation; the same key again has one effect.
    Compensate(Undo),
    /// Read this again and again until the given time, or until the next command.
    Watch(Key, Selector, Timestamp),
    /// It is over.
    Finish(Outcome),
}

/// How far a step is, by the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Pending,
    Intended,
    Applied,
    Failed(Cause),
    Done,
}

/// What the journal says of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Progress {
    status: Status,
    /// Its current key: `~n` for a repeat.
    key: Key,
    repeats: u32,
    /// The fields before it was first tried.
    pre_image: State,
    desired: State,
    bound: Versions,
    began: Timestamp,
    expires_at: Option<Timestamp>,
    /// An earlier attempt, or this one, may have taken effect.
    touched: bool,
    touched_before: bool,
    undo: Undoing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Undoing {
    No,
    Intended,
    Done,
    Stuck,
}

/// What the machine waits for; the journal does not have this.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Waiting {
    /// Nothing: the next thing is to be begun.
    Nothing,
    Observed,
    /// For a record that announces a call.
    Announced {
        seq: u64,
        record: Box<Record>,
    },
    /// The call was announced and a hold came before it was made.
    Released,
    Called,
    Answer {
        asked: u32,
        until: Timestamp,
    },
    /// To ask again.
    Again {
        asked: u32,
        at: Timestamp,
    },
    Guard {
        held_since: Option<Timestamp>,
    },
    Compensated {
        until: Timestamp,
    },
    CompensateAgain {
        at: Timestamp,
    },
    Finished {
        seq: u64,
    },
    End,
}

/// The running plan.
#[derive(Clone, Debug)]
pub struct Kernel {
    plan: Checked,
    armed: Armed,
    config: Config,
    steps: Vec<Progress>,
    undo: Option<(Cause, usize)>,
    outcome: Option<Outcome>,
    /// Versions after our own receipts.
    own: Versions,
    next_seq: u64,
    folded: u64,
    /// Calls made under the current key, and compensations, by this executor.
    performs: u32,
    undo_attempts: u32,
    waiting: Waiting,
    commands: VecDeque<Command>,
    /// Whether the hold in force, if there is one, wants open steps compensated.
    hold: Option<bool>,
    fenced: bool,
    resumed_at: Option<Timestamp>,
    undo_wanted: Option<Cause>,
    severity: Option<(Severity, Timestamp)>,
    worse_since: Option<Timestamp>,
    now: Timestamp,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            backoff: [1, 2, 4, 8].map(|seconds| Millis(seconds * 1_000)).to_vec(),
            regression_for: Millis(30_000),
            severity_age_max: Millis(10_000),
            takeover: Millis(30_000),
            undo_deadline: Millis(30_000),
        }
    }
}

impl Kernel {
    /// A plan about to begin.
    #[must_use]
    pub fn new(plan: Checked, armed: Armed, config: Config, now: Timestamp) -> Kernel {
        let mut kernel = Kernel::idle(plan, armed, config, now);
        kernel.advance();
        kernel
    }

    /// A plan that was begun, by whomever: the journal is all there is to know.
    ///
    /// # Errors
    /// A journal that is not of this plan; that quarantines the incident.
    pub fn replay(
        plan: Checked,
        armed: Armed,
        config: Config,
        journal: &[Record],
        now: Timestamp,
    ) -> Result<Kernel, JournalError> {
        let mut kernel = Kernel::idle(plan, armed, config, now);
        for (seq, record) in (0_u64..).zip(journal) {
            kernel.fold(record).map_err(|why| JournalError { seq, why })?;
        }
        if kernel.outcome.is_none() && kernel.folded >= JOURNAL_RECORDS_MAX {
            return Err(JournalError { seq: JOURNAL_RECORDS_MAX, why: Misfit::End });
        }
        kernel.next_seq = journal.len() as u64;
        kernel.resumed_at = (!journal.is_empty()).then_some(now);
        kernel.take_up();
        Ok(kernel)
    }

    /// Tells what happened.
    pub fn handle_event(&mut self, event: Event, now: Timestamp) {
        self.now = self.now.max(now);
        if !self.fenced {
            self.on(event);
        }
    }

    /// Tells that it is `now`.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        if !self.fenced {
            self.on_time();
        }
    }

    /// The next thing to do, until there is none.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When to call [`Kernel::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        if self.fenced { None } else { self.due() }
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Checked {
        &self.plan
    }

    /// How it ended, once the record of that is durable.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref().filter(|_| self.waiting == Waiting::End)
    }

    /// Number of the next record.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The keys whose effects are open: applied, or perhaps, and neither closed nor undone.
    #[must_use]
    pub fn open_keys(&self) -> Vec<Key> {
        let open = |progress: &&Progress| progress.touched && progress.undo != Undoing::Done;
        self.steps.iter().filter(open).map(|progress| progress.key.clone()).collect()
    }

    fn idle(plan: Checked, armed: Armed, config: Config, now: Timestamp) -> Kernel {
        let digest = plan.digest();
        let steps = plan.steps().iter().map(|step| Progress::new(Key::of_step(&digest, &step.key), step));
        Kernel {
            steps: steps.collect(),
            plan,
            armed,
            config,
            undo: None,
            outcome: None,
            own: Versions::new(),
            next_seq: 0,
            folded: 0,
            performs: 0,
            undo_attempts: 0,
            waiting: Waiting::Nothing,
            commands: VecDeque::new(),
            hold: None,
            fenced: false,
            resumed_at: None,
            undo_wanted: None,
            severity: None,
            worse_since: None,
            now,
        }
    }
}

impl Progress {
    fn new(key: Key, step: &CheckedStep) -> Progress {
        Progress {
            status: Status::Pending,
            key,
            repeats: 0,
            pre_image: State::new(),
            desired: step.desired.clone(),
            bound: step.bound.clone(),
            began: Timestamp(0),
            expires_at: None,
            touched: false,
            touched_before: false,
            undo: Undoing::No,
        }
    }
}

/// The name under which a condition's measured value is given in [`Look::facts`], for example
/// `ready(payments)` or `error_ppm(checkout)`.
#[must_use]
pub fn fact_name(predicate: &Predicate) -> String {
    match &predicate.subject {
        Some(subject) => format!("{}({subject})", predicate.signal),
        None => predicate.signal.to_string(),
    }
}

#[cfg(test)]
mod tests;
