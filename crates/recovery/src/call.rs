//! What the kernel asks of an actuator and what it gets back: keys, fences, calls, receipts.
//!
//! The state of everything an action can set is one flat map of integers, so that pre-images,
//! comparisons, compensation and evidence need no case per action. The field names are built here and
//! nowhere else:
//!
//! | field | value |
//! |---|---|
//! | `generation/S@n` | generation of the running instance; 0 = not running |
//! | `weight/S@n` | share of new requests in percent, 100 = normal, 0 = drained |
//! | `limit/S`, `limit/A->S` | limit in milli-requests per second; -1 = none |
//! | `breaker/A->S` | 0 closed, 1 open, 2 half-open |
//! | `replicas/S` | desired replicas |
//! | `config/KIND/NS/NAME` | revision number |

use crate::isa::{Action, EdgeName};
use base::{Millis, Timestamp};
use std::collections::BTreeMap;

/// Field name to integer; see the module.
pub type State = BTreeMap<String, i64>;

/// Version counter of each field: raised by one on every change at the target, whoever made it.
pub type Versions = BTreeMap<String, u64>;

/// Idempotency key of a call: `<first 16 plan digest digits>/<step>`, `~n` for a deliberate repeat,
/// `!undo` for the compensation. Same key, same call, for ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub String);

base::record! {
    /// Orders actuations: lease epoch of the scope first, then version of the step's task.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Fence {
        /// Epoch of the scope lease, store-wide.
        1 pub epoch: u64,
        /// Version of the task that owns the step.
        2 pub version: u64,
    }
}

/// One actuation. It says "be so", never "change by": repeating it is harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Idempotency key.
    pub key: Key,
    /// Refused by the target when lower than the highest it has seen.
    pub fence: Fence,
    /// The action with its parameters, defaults filled.
    pub action: Action,
    /// The fields and the values they shall have. For a Restart: `generation/S@n` of each instance, the
    /// value one above the observed.
    pub desired: State,
    /// Versions the fields had when the plan was bound; another one is `Drifted`.
    pub bound: Versions,
    /// No effect begins after this.
    pub deadline: Timestamp,
    /// When the data plane itself restores what was before.
    pub expires_at: Option<Timestamp>,
}

/// The compensation of one performed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undo {
    /// The call's key with `!undo` appended.
    pub key: Key,
    /// As in [`Call`].
    pub fence: Fence,
    /// The fields and the values they had before.
    pub restore: State,
    /// No effect begins after this.
    pub deadline: Timestamp,
}

base::word_enum! {
    /// What became of a call.
    pub enum CallOutcome {
        /// It took effect.
        Applied = 1 "applied",
        /// It certainly took no effect.
        Absent = 2 "absent",
        /// Nobody can say yet; reconcile.
        Unknown = 3 "unknown",
    }
}

base::record! {
    /// An actuator's answer to a call.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Receipt {
        /// The call's key.
        1 pub key: Key,
        /// The fence it was performed under.
        2 pub fence: Fence,
        /// What became of it.
        3 pub outcome: CallOutcome,
        /// The fields before.
        4 pub before: BTreeMap<String, i64>,
        /// The fields after.
        5 pub after: BTreeMap<String, i64>,
        /// Version counters after.
        6 pub versions: BTreeMap<String, u64>,
        /// The platform's own id of the operation, if it has one.
        7 pub native_id: Option<String>,
        /// Milliseconds it took.
        8 pub took: Millis,
    }
}

base::record! {
    /// A reading of fields, with the time it was taken.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Observation {
        /// When it was read.
        1 pub at: Timestamp,
        /// The fields.
        2 pub state: BTreeMap<String, i64>,
        /// Their version counters.
        3 pub versions: BTreeMap<String, u64>,
    }
}

/// What happened to a call whose outcome was unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reconciled {
    /// The target has the key recorded as applied.
    Applied(Receipt),
    /// The target certainly never applied it and cannot any more under this fence or an older one.
    Absent,
    /// Still nobody can say.
    Unknown,
}

/// `generation/S@n`.
#[must_use]
pub fn generation(service: &str, replica: u32) -> String {
    format!("generation/{service}@{replica}")
}

/// `weight/S@n`.
#[must_use]
pub fn weight(service: &str, replica: u32) -> String {
    format!("weight/{service}@{replica}")
}

/// `limit/S`.
#[must_use]
pub fn service_limit(service: &str) -> String {
    format!("limit/{service}")
}

/// `limit/A->S`.
#[must_use]
pub fn edge_limit(edge: &EdgeName) -> String {
    format!("limit/{edge}")
}

/// `breaker/A->S`.
#[must_use]
pub fn breaker(edge: &EdgeName) -> String {
    format!("breaker/{edge}")
}

/// `replicas/S`.
#[must_use]
pub fn replicas(service: &str) -> String {
    format!("replicas/{service}")
}

/// `config/KIND/NS/NAME`.
#[must_use]
pub fn config(kind: &str, namespace: &str, name: &str) -> String {
    format!("config/{kind}/{namespace}/{name}")
}

impl Key {
    /// The key of a step of the plan with this digest.
    #[must_use]
    pub fn of_step(plan: &base::Digest, step: &str) -> Key {
        let head: String = plan.to_string().chars().take(16).collect();
        Key(format!("{head}/{step}"))
    }

    /// The key of the `n`-th deliberate repeat.
    #[must_use]
    pub fn repeat(&self, n: u32) -> Key {
        Key(format!("{}~{n}", self.0))
    }

    /// The key of the compensation.
    #[must_use]
    pub fn undo(&self) -> Key {
        Key(format!("{}!undo", self.0))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl base::canon::Canon for Key {
    fn to_value(&self) -> base::canon::Value {
        self.0.to_value()
    }
    fn from_value(value: base::canon::Value) -> Result<Self, base::canon::Error> {
        String::from_value(value).map(Key)
    }
}
