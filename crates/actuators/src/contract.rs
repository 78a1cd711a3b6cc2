//! The contract suite: what every actuator must keep, checked against a target of one's own.
//!
//! It changes the target it is given: never run it against anything that serves.

mod clauses;

use crate::actuator::{Actuator, Fut};
use base::{Millis, Timestamp};
use recovery::call::{Call, Key, State};
use recovery::isa::{Action, ActionKind};
use std::sync::Arc;

/// The target under test, as the suite needs it.
pub trait Rig: Sync {
    /// An actuator that was just started, on the same target.
    fn open(&self) -> Arc<dyn Actuator>;
    /// The target's time.
    fn now(&self) -> Timestamp;
    /// Lets time pass at the target.
    fn pass<'a>(&'a self, by: Millis) -> Fut<'a, ()>;
    /// Every field there is.
    fn fields(&self) -> Vec<String>;
    /// An action of this kind that would change something just now, with the values it stands for.
    /// `None`: the actuator claims nothing of this kind.
    fn sample<'a>(&'a self, kind: ActionKind) -> Fut<'a, Option<Sample>>;
    /// Actions the actuator does not claim.
    fn unclaimed(&self) -> Vec<Sample>;
    /// Changes a field as somebody else would.
    fn meddle<'a>(&'a self, field: &'a str) -> Fut<'a, ()>;
    /// How often a call took effect, by the target's own history and not by the actuator's.
    fn effects<'a>(&'a self, call: &'a Call) -> Fut<'a, usize>;
}

/// An action and the values it stands for.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The action.
    pub action: Action,
    /// The fields and their values.
    pub desired: State,
}

/// What the suite found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Clauses kept, with the action they were checked on.
    pub kept: Vec<(&'static str, ActionKind)>,
    /// Clauses broken.
    pub breaches: Vec<Breach>,
}

/// One broken clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// `C1` to `C16`.
    pub clause: &'static str,
    /// The action it was checked on.
    pub action: ActionKind,
    /// What was seen.
    pub what: String,
}

/// Runs every clause on every action the actuator claims.
pub async fn run(rig: &dyn Rig) -> Report {
    let mut suite = clauses::Suite::new(rig);
    let mut report = Report::default();
    for kind in ActionKind::ALL.iter().copied() {
        if rig.sample(kind).await.is_none() {
            continue;
        }
        for (clause, outcome) in suite.check(kind).await {
            match outcome {
                Ok(()) => report.kept.push((clause, kind)),
                Err(what) => report.breaches.push(Breach { clause, action: kind, what }),
            }
        }
    }
    for (action, outcome) in suite.check_unclaimed().await {
        match outcome {
            Ok(()) => report.kept.push(("C14", action)),
            Err(what) => report.breaches.push(Breach { clause: "C14", action, what }),
        }
    }
    report
}

/// A key of the suite's own.
fn key(number: u64) -> Key {
    Key(format!("00000000000c0de0/c{number}"))
}

impl std::fmt::Display for Breach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}: {}", self.clause, self.action, self.what)
    }
}
