//! The plan: an ordered list of typed steps with conditions, its normal form, its digest and its lineage.
//!
//! Two renderings exist, [`json`] and [`crate::text`]; neither is ever digested. The digest is that of the
//! canonical bytes of the normal form, so both renderings of one plan have one digest.

pub mod json;
pub mod lineage;
mod predicate;

pub use lineage::{mutate, revise};
pub use predicate::{Object, Predicate, Signal, Subject};

use crate::isa::{Action, Limited, Place, Restored};
use base::canon::{Canon, Error, Value};
use base::{Digest, Timestamp};

/// LIMIT: bytes of a plan in either rendering.
pub const PLAN_BYTES_MAX: usize = 64 * 1024;
/// LIMIT: steps of a plan.
pub const STEPS_MAX: usize = 32;
/// LIMIT: conditions before, and conditions after, one step.
pub const PREDICATES_MAX: usize = 8;
/// LIMIT: revisions of one incident's plan.
pub const REVISIONS_MAX: u32 = 8;
/// LIMIT: revisions that are mutations.
pub const MUTATIONS_MAX: u32 = 4;
/// LIMIT: changes a revision lists.
pub const CHANGES_MAX: usize = 32;
/// LIMIT: services a plan states as its footprint.
pub const FOOTPRINT_MAX: usize = 256;
/// LIMIT: instances, keys or weights in one step.
pub const LIST_MAX: usize = 256;
/// LIMIT: bytes of one name inside a plan.
pub const NAME_BYTES_MAX: usize = 256;

base::word_enum! {
    /// Why a revision exists.
    pub enum Cause {
        /// It is the first.
        First = 1 "first",
        /// The kernel refused the one before.
        Kernel = 2 "kernel",
        /// A preview found something.
        Pilot = 3 "pilot",
        /// A mutable parameter was changed.
        Mutation = 4 "mutation",
        /// The verifier objected.
        Veto = 5 "veto",
        /// A person sent it back.
        Human = 6 "human",
    }
}

/// What happens when a step fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnFail {
    /// Undo everything.
    #[default]
    Undo,
    /// Keep what is done and escalate.
    Stop,
    /// Repeat, at most twice; then undo.
    Retry,
    /// Undo to the savepoint before the named step.
    UndoTo(String),
}

base::record! {
    /// One edit between a revision and its parent.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Change {
        /// What changed: `KEY.PARAMETER`, for example `s1.rate`; or `steps`.
        1 pub path: String,
        /// The value before, in text form.
        2 pub from: String,
        /// The value after, in text form.
        3 pub to: String,
    }
}

base::record! {
    /// One step.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Step {
        /// Its name within the plan; empty until [`Plan::normalize`] names it `s1`, `s2`, ….
        1 pub key: String,
        /// What it does.
        2 pub action: Action,
        /// What must hold before it.
        3 pub pre: Vec<Predicate>,
        /// What must hold after it.
        4 pub post: Vec<Predicate>,
        /// What happens when it fails.
        5 pub on_fail: OnFail,
    }
}

base::record! {
    /// A whole plan.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Plan {
        /// The incident's id: 26 letters of lower-case base32.
        1 pub incident: String,
        /// 1 for the first.
        2 pub revision: u32,
        /// Digest of the revision before.
        3 pub parent: Option<Digest>,
        /// Why this revision exists.
        4 pub cause: Cause,
        /// How it differs from the revision before.
        5 pub changes: Vec<Change>,
        /// The recovery class.
        6 pub class: String,
        /// Structural digest of the graph slice it was made for.
        7 pub topology: Digest,
        /// No step begins after this.
        8 pub deadline_ms: Timestamp,
        /// The services the planner believes affected: a hint that must not omit any.
        9 pub footprint: Vec<String>,
        /// The steps, in order.
        10 pub steps: Vec<Step>,
    }
}

impl Step {
    /// A step with no conditions, named when the plan is normalized.
    #[must_use]
    pub fn new(action: Action) -> Step {
        Step { key: String::new(), action, pre: Vec::new(), post: Vec::new(), on_fail: OnFail::Undo }
    }
}

impl Plan {
    /// The normal form: steps named, sets sorted, conditions with their subject. Idempotent. Defaults that
    /// belong to the policy stay unset here and are filled when the plan is checked.
    #[must_use]
    pub fn normalize(&self) -> Plan {
        let mut plan = self.clone();
        plan.footprint.sort();
        plan.footprint.dedup();
        for (number, step) in (1_u32..).zip(&mut plan.steps) {
            if step.key.is_empty() {
                step.key = format!("s{number}");
            }
            normalize_action(&mut step.action);
            let subject = default_subject(&step.action);
            for list in [&mut step.pre, &mut step.post] {
                for predicate in list.iter_mut() {
                    predicate.normalize(subject.as_ref());
                }
                list.sort();
                list.dedup();
            }
        }
        plan
    }

    /// SHA-256 of the canonical bytes of the normal form.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_object("plan", &self.normalize())
    }

    /// The step with this key.
    #[must_use]
    pub fn step(&self, key: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.key == key)
    }
}

fn normalize_action(action: &mut Action) {
    match action {
        Action::Restart { place, .. } | Action::Drain { place, .. } => normalize_place(place),
        Action::RateLimit { what: Limited::Place(place), .. } => normalize_place(place),
        Action::RestoreTraffic { of: Restored::Steps(keys), .. } => {
            keys.sort();
            keys.dedup();
        }
        Action::RestoreTraffic { of: Restored::Weights(weights), .. } => {
            weights.iter_mut().for_each(|(place, _)| normalize_place(place));
            weights.sort();
        }
        Action::RateLimit { .. }
        | Action::RestoreTraffic { .. }
        | Action::CircuitBreak { .. }
        | Action::Scale { .. }
        | Action::RollbackConfig { .. } => {}
    }
}

fn normalize_place(place: &mut Place) {
    if let Place::Instances(_, numbers) = place {
        numbers.sort_unstable();
        numbers.dedup();
    }
}

/// What a condition without a subject speaks about: the step's target.
fn default_subject(action: &Action) -> Option<Subject> {
    let place = match action {
        Action::Restart { place, .. } | Action::Drain { place, .. } => place.clone(),
        Action::RateLimit { what: Limited::Place(place), .. } => place.clone(),
        Action::RateLimit { what: Limited::Edge(edge), .. } | Action::CircuitBreak { edge, .. } => {
            Place::Service(edge.callee.clone())
        }
        Action::Scale { service, .. } => Place::Service(service.clone()),
        Action::RestoreTraffic { of: Restored::Weights(weights), .. } => {
            Place::Service(weights.first()?.0.service().to_owned())
        }
        Action::RollbackConfig { kind, namespace, name, .. } => {
            let object = Object { kind: kind.clone(), namespace: namespace.clone(), name: name.clone() };
            return Some(Subject::Object(object));
        }
        Action::RestoreTraffic { .. } => return None,
    };
    Some(Subject::Place(place))
}

impl std::fmt::Display for OnFail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OnFail::Undo => f.write_str("undo"),
            OnFail::Stop => f.write_str("stop"),
            OnFail::Retry => f.write_str("retry"),
            OnFail::UndoTo(key) => write!(f, "undo-to:{key}"),
        }
    }
}

impl OnFail {
    /// Parses the word form.
    #[must_use]
    pub fn parse(text: &str) -> Option<OnFail> {
        match text {
            "undo" => Some(OnFail::Undo),
            "stop" => Some(OnFail::Stop),
            "retry" => Some(OnFail::Retry),
            other => other.strip_prefix("undo-to:").map(|key| OnFail::UndoTo(key.to_owned())),
        }
    }
}

impl Canon for OnFail {
    fn to_value(&self) -> Value {
        self.to_string().to_value()
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        OnFail::parse(&String::from_value(value)?).ok_or(Error::OutOfRange)
    }
}

/// Whether `key` may name a step: a letter, then letters, digits and `-`, at most 32, and not a keyword.
#[must_use]
pub fn is_key(key: &str) -> bool {
    key.len() <= 32
        && key.starts_with(|c: char| c.is_ascii_lowercase())
        && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !crate::text::KEYWORDS.contains(&key)
}

/// Whether `name` can stand in a plan: letters, digits, `.`, `_` and `-`, not beginning with `-` and
/// without an arrow.
#[must_use]
pub fn is_plan_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Whether `incident` has the form of an incident id.
#[must_use]
pub fn is_incident(incident: &str) -> bool {
    incident.len() == 26 && incident.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'))
}

#[cfg(test)]
mod tests;
