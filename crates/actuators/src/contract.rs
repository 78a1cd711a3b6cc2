//! The contract of every actuator, and the suite that checks it against a target of one's own.
//!
//! Each [`Clause`] has a number, a title and the reason it exists; `docs/actuator-contract.md` lists them. The same code
//! runs on every actuator; what differs is a [`Rig`], which says how to start it, what its target can do, and how to
//! break the link between them. [`run`] answers with what was kept, what was broken and what a target does not have.
//!
//! It changes the target it is given: never run it against anything that serves.

mod broken;
mod clauses;
mod matrix;

use crate::actuator::{Actuator, Error, Fut};
use base::{Millis, Timestamp};
use recovery::call::{Call, Key, State};
use recovery::isa::{Action, ActionKind, EdgeName};
use std::collections::BTreeMap;
use std::sync::Arc;

macro_rules! clauses {
    ($($(#[$meta:meta])* $name:ident = $number:literal $title:literal;)*) => {
        /// One sentence of the contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Clause { $($(#[$meta])* $name = $number),* }
        impl Clause {
            /// All of them, by number.
            pub const ALL: &'static [Clause] = &[$(Clause::$name),*];
            /// Its sentence.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Clause::$name => $title),* }
            }
        }
    };
}

clauses! {
    /// Looking is free: the kernel looks before each step, and a watcher all the time.
    Observe = 1 "observe changes nothing";
    /// The receipt is evidence: it must say what is.
    Perform = 2 "perform reaches the desired values, and its receipt says what was and what is";
    /// A successor, or a network, may ask twice, also at the same moment.
    OneKeyOneEffect = 3 "one key has one effect and one receipt, a hundred times at once; no other call goes under it";
    /// An executor that was replaced may wake up.
    LowerFences = 4 "a lower epoch, and a lower task version, are refused without effect";
    /// The fence must not live in the actuator.
    FencesSurvive = 5 "fences outlive the actuator's process";
    /// A plan was checked against what it saw.
    Drift = 6 "an object that changed since the call was bound is refused without effect";
    /// Dead between effect and record, and everywhere else.
    Killed = 7 "a caller killed anywhere: a successor is told right what happened, and the same key repeats nothing";
    /// The effect happened and only its word was lost.
    LostReply = 8 "a lost reply reconciles to the same receipt, and what was never sent to absent";
    /// Undo returns to what was observed before.
    Compensate = 9 "compensation restores what was before";
    /// Undo is asked for again, and also of what never happened.
    CompensateAgain = 10 "compensating twice, or what never took effect, is harmless";
    /// The dead-man rule: nobody has to be alive for a limit to end.
    Expiry = 11 "an effect with a time to live ends by itself in time, and not before";
    /// A call that waited too long was decided on older facts.
    Deadline = 12 "past its deadline no effect begins";
    /// A plan is refused before anything is touched.
    DryRun = 13 "a dry run changes nothing and predicts refusals";
    /// What an actuator cannot do it says first.
    Matrix = 14 "every action of the instruction set on every kind of target: claimed, or unsupported without a trace";
    /// Names come from telemetry and from agents.
    HostileNames = 15 "hostile names reach nothing";
    /// A call never widens.
    NothingElse = 16 "nothing outside the call's fields changes";
    /// Somebody who skips the actuator's own books is refused at the target, also after the target was restarted.
    AtTheTarget = 18 "fences hold at the target itself, also after its process was restarted";
    /// A broken link leaves an unknown outcome: it is told right, never guessed, and what comes late comes to nothing.
    BrokenLink = 19 "a link cut before or after the effect, or a call that comes late, is told right or called unknown";
    /// The data plane may die while it keeps the dead-man rule.
    ExpiryAfterRestart = 20 "a time to live goes on over a restart of the target, also if it ended meanwhile";
    /// Behind two temporary values stands the same lasting one.
    ExpiryOverExpiry = 21 "a temporary effect over a temporary one ends where the first one began";
}

/// What happens on the way from an actuator to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// The next call that would take effect is lost, and the connection with it.
    CutBefore,
    /// It takes effect; its reply is lost with the connection.
    CutAfter,
    /// It stays on its way until [`Rig::deliver_late`].
    Late,
    /// Nobody can be reached at all.
    Down,
}

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
    /// Names that exist at the target, to make every action of the instruction set from.
    fn names(&self) -> Names;
    /// An action of this kind that would change something just now, with the values it stands for.
    /// `None`: the actuator claims nothing of this kind.
    fn sample<'a>(&'a self, kind: ActionKind) -> Fut<'a, Option<Sample>>;
    /// Actions the actuator does not claim for what their parameters ask.
    fn unclaimed(&self) -> Vec<Sample>;
    /// Changes a field as somebody else would.
    fn meddle<'a>(&'a self, field: &'a str) -> Fut<'a, ()>;
    /// How often a call took effect, by the target's own history and not by the actuator's.
    fn effects<'a>(&'a self, call: &'a Call) -> Fut<'a, usize>;
    /// Sends what a call stands for to the target itself, past the actuator and its books. `None`: nothing stands
    /// between the actuator and what it changes.
    fn deliver<'a>(&'a self, call: &'a Call) -> Fut<'a, Option<Result<(), Error>>>;
    /// Kills the target's data plane and starts it again on its own files.
    fn restart<'a>(&'a self) -> Fut<'a, ()>;
    /// An actuator whose link breaks so. `None`: there is no link to break for this kind of action.
    fn link<'a>(&'a self, kind: ActionKind, fault: LinkFault) -> Fut<'a, Option<Arc<dyn Actuator>>>;
    /// Lets what is late arrive.
    fn deliver_late<'a>(&'a self) -> Fut<'a, ()>;
}

/// Names that exist at a target.
#[derive(Clone, Debug)]
pub struct Names {
    /// A service; its instance 0 exists.
    pub service: String,
    /// A failure domain with an instance of the service.
    pub zone: String,
    /// A call path to the service.
    pub edge: EdgeName,
    /// A versioned object: kind, namespace, name.
    pub object: (String, String, String),
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
    pub kept: Vec<(Clause, ActionKind)>,
    /// Clauses that say nothing of an action here.
    pub without: Vec<(Clause, ActionKind)>,
    /// Clauses broken.
    pub breaches: Vec<Breach>,
}

/// One broken clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Which.
    pub clause: Clause,
    /// The action it was checked on.
    pub action: ActionKind,
    /// What was seen.
    pub what: String,
}

/// What checking one clause on one action came to.
enum Found {
    Kept,
    Without,
    Broken(String),
}

/// Runs every clause on every action the actuator claims, and on those it does not.
pub async fn run(rig: &dyn Rig) -> Report {
    let mut suite = clauses::Suite::new(rig);
    let mut report = Report::default();
    for kind in ActionKind::ALL.iter().copied() {
        if rig.sample(kind).await.is_some() {
            for clause in Clause::ALL.iter().copied() {
                report.add(clause, kind, suite.check(clause, kind).await);
            }
        } else {
            report.add(Clause::Matrix, kind, suite.check(Clause::Matrix, kind).await);
        }
    }
    report
}

impl Report {
    fn add(&mut self, clause: Clause, action: ActionKind, found: Found) {
        match found {
            Found::Kept => self.kept.push((clause, action)),
            Found::Without => self.without.push((clause, action)),
            Found::Broken(what) => self.breaches.push(Breach { clause, action, what }),
        }
    }

    /// The clauses broken, each once.
    #[must_use]
    pub fn broken(&self) -> Vec<Clause> {
        let mut clauses: Vec<Clause> = self.breaches.iter().map(|breach| breach.clause).collect();
        clauses.sort();
        clauses.dedup();
        clauses
    }

    /// One line a clause: on how many actions it was kept, was broken, and says nothing.
    #[must_use]
    pub fn table(&self) -> String {
        let mut counts: BTreeMap<Clause, [usize; 3]> = Clause::ALL.iter().map(|clause| (*clause, [0; 3])).collect();
        let places = [
            self.kept.iter().map(|it| it.0).collect::<Vec<_>>(),
            self.breaches.iter().map(|it| it.clause).collect(),
            self.without.iter().map(|it| it.0).collect(),
        ];
        for (place, clauses) in places.iter().enumerate() {
            for clause in clauses {
                counts.entry(*clause).or_default()[place] += 1;
            }
        }
        let line = |(clause, [kept, broken, without]): (&Clause, &[usize; 3])| {
            format!("{clause:<4} kept {kept}  broken {broken}  without {without}  {}\n", clause.title())
        };
        counts.iter().map(line).collect()
    }
}

/// A key of the suite's own.
fn key(number: u64) -> Key {
    Key(format!("00000000000c0de0/c{number}"))
}

impl std::fmt::Display for Clause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("C{}", *self as u8))
    }
}

impl std::fmt::Display for Breach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}) on {}: {}", self.clause, self.clause.title(), self.action, self.what)
    }
}

impl From<Result<bool, String>> for Found {
    /// `Ok(false)`: there is nothing here that the clause speaks of.
    fn from(checked: Result<bool, String>) -> Found {
        match checked {
            Ok(true) => Found::Kept,
            Ok(false) => Found::Without,
            Err(what) => Found::Broken(what),
        }
    }
}
