//! Signed statements: what each record says, which role may sign it, signing and opening.

mod bodies;
mod pilot;
mod statement;

pub use crate::admission::Decision;
pub use crate::estimate::Estimate;
pub use base::Keyring;
pub use bodies::*;
pub use pilot::{Divergence, Pilot, PilotResult, Touched};
pub use statement::{
    Body, Common, Link, OpenError, PREDICATE_PREFIX, SCHEMA, Signed, Signer, Statement, Subject, open,
};

/// Longest log entry in bytes: larger material goes into a blob. The log refuses longer ones, and so does
/// the verifier.
pub const ENTRY_BYTES_MAX: usize = 60_000;

macro_rules! records {
    ($($(#[$meta:meta])* $kind:ident = $number:literal $word:literal by $($role:ident)|+;)*) => {
        words! {
            /// What a record is.
            pub enum RecordKind { $($(#[$meta])* $kind = $number $word),* }
        }
        impl RecordKind {
            /// The roles that may sign it.
            #[must_use]
            pub fn roles(self) -> &'static [base::Role] {
                match self { $(RecordKind::$kind => &[$(base::Role::$role),+]),* }
            }
        }
        /// One record of any kind.
        #[expect(clippy::large_enum_variant, reason = "records are made one at a time and never kept in bulk")]
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Record { $($(#[$meta])* $kind($kind)),* }
        impl Record {
            /// What it is.
            #[must_use]
            pub fn kind(&self) -> RecordKind {
                match self { $(Record::$kind(_) => RecordKind::$kind),* }
            }
            pub(crate) fn body(&self) -> base::canon::Value {
                use base::canon::Canon as _;
                match self { $(Record::$kind(body) => body.to_value()),* }
            }
            pub(crate) fn read(kind: RecordKind, value: base::canon::Value) -> Result<Record, base::canon::Error> {
                use base::canon::Canon as _;
                match kind { $(RecordKind::$kind => $kind::from_value(value).map(Record::$kind)),* }
            }
            /// The body as JSON.
            #[must_use]
            pub fn render(&self) -> serde_json::Value {
                use crate::Render as _;
                match self { $(Record::$kind(body) => body.render()),* }
            }
        }
        $(
            impl Body for $kind {
                const KIND: RecordKind = RecordKind::$kind;
                fn of(record: &Record) -> Option<&$kind> {
                    if let Record::$kind(body) = record { Some(body) } else { None }
                }
            }
            impl From<$kind> for Record {
                fn from(body: $kind) -> Record {
                    Record::$kind(body)
                }
            }
        )*
    };
}

records! {
    /// One observer's answer.
    Vote = 1 "vote" by Detector;
    /// Something is wrong with a scope.
    Detection = 2 "detection" by Detector;
    /// The asking for a recovery.
    Intent = 3 "intent" by Detector | Human | Evaluator;
    /// A plan offered by an agent.
    Proposal = 4 "proposal" by Agent;
    /// An agent's objection to one plan.
    Veto = 5 "veto" by Agent;
    /// The kernel's verdict on a plan.
    Check = 6 "check" by Evaluator;
    /// What a preview saw.
    Pilot = 7 "pilot" by Runner;
    /// A number with its counts.
    Estimate = 8 "estimate" by Evaluator;
    /// The outcome for one plan.
    Decision = 9 "decision" by Evaluator;
    /// A person's yes to one decision.
    Approval = 10 "approval" by Human;
    /// A person's no to one decision.
    Denial = 11 "denial" by Human;
    /// The last re-check before the first effect.
    Arm = 12 "arm" by Executor;
    /// One line of the kernel's journal.
    Journal = 13 "journal" by Executor;
    /// What became of a step.
    Receipt = 14 "receipt" by Executor;
    /// What became of undoing a step.
    Compensation = 15 "compensation" by Executor;
    /// Whether the system is well again.
    Convergence = 16 "convergence" by Executor;
    /// The end of an incident's records.
    Seal = 17 "seal" by Executor;
    /// A bypass or an override.
    Exception = 18 "exception" by Human;
    /// A freeze.
    Hold = 19 "hold" by Human;
    /// Its end.
    Resume = 20 "resume" by Human;
    /// Which keys may sign.
    Keyring = 21 "keyring" by Root;
    /// The active policy.
    PolicyChange = 22 "policy" by Human | Root;
    /// Something is missing from the log, and said so.
    Gap = 23 "gap" by Executor | Evaluator;
}

#[cfg(test)]
mod tests;
