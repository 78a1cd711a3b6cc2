//! Judgments on record, made again from what was recorded for them: the kernel's checks from plan and world, the
//! decisions from their inputs. Everything else in a bundle is verified and not made again.

use super::verify::{Bundle, Remade, Trust, Verified, VerifyError, examine};
use crate::Render;
use crate::admission::{Decision, Inputs, SEMANTICS, decide};
use crate::policy::Policy;
use crate::record::{Check, Rejection};
use base::Digest;
use base::canon::{Canon, object, parse_object};
use recovery::check::check;
use recovery::plan::Plan;
use recovery::world::World;
use serde_json::Value;

mod what_if;

pub use what_if::{Differing, Unsupported, WhatIf};

base::word_enum! {
    /// What is judged again.
    pub enum Judgment {
        /// The kernel's check of a plan.
        Check = 1 "check",
        /// The decision about a plan.
        Decision = 2 "decision",
    }
}

/// The first field in which two judgments differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// For example `numbers.retries_ppm`.
    pub field: String,
    /// On record.
    pub recorded: String,
    /// As this program finds it.
    pub now: String,
}

/// What came of judging again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same bytes.
    Same,
    /// Something else.
    Different(Difference),
    /// It could not be made again; why.
    NotMade(String),
}

/// One judgment on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Its index in the log.
    pub index: u64,
    /// What it is.
    pub judgment: Judgment,
    /// What it says, for people.
    pub said: String,
    /// What came of making it again.
    pub verdict: Verdict,
}

/// A verified bundle whose judgments were made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// What the verifier found.
    pub verified: Verified,
    /// Every judgment, in the order of the log.
    pub judged: Vec<Judged>,
    /// Decisions with their inputs, and the policies by which they were made.
    decisions: Vec<(u64, Inputs, Decision)>,
    policies: Vec<Policy>,
}

/// Verifies a bundle and makes its judgments again.
///
/// # Errors
/// The step of the verification that fails. That another judgment follows is no error.
pub fn replay(bytes: &[u8], trust: Option<&Trust>) -> Result<Replay, VerifyError> {
    let (bundle, verified) = examine(bytes, trust, Remade::Judged)?;
    let mut replay = Replay { verified, judged: Vec::new(), decisions: Vec::new(), policies: policies(&bundle) };
    for (index, record) in &bundle.records {
        if let Some(recorded) = record.get::<Check>() {
            let said = format!("plan {} {}", recorded.plan.short(), outcome_of(recorded));
            let verdict = rechecked(&bundle, recorded);
            replay.judged.push(Judged { index: *index, judgment: Judgment::Check, said, verdict });
        }
        if let Some(recorded) = record.get::<Decision>() {
            let inputs = bundle.blob(&recorded.inputs).and_then(|blob| Inputs::from_bytes(blob).ok());
            let verdict = redecided(inputs.as_ref(), recorded);
            let said = recorded.sentence();
            replay.judged.push(Judged { index: *index, judgment: Judgment::Decision, said, verdict });
            replay.decisions.extend(inputs.map(|inputs| (*index, inputs, recorded.clone())));
        }
    }
    Ok(replay)
}

impl Replay {
    /// Whether every judgment was made again and is the same.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.judged.iter().all(|judged| judged.verdict == Verdict::Same)
    }

    /// How many judgments of a kind there are.
    #[must_use]
    pub fn count(&self, judgment: Judgment) -> usize {
        self.judged.iter().filter(|judged| judged.judgment == judgment).count()
    }
}

fn policies(bundle: &Bundle) -> Vec<Policy> {
    let files = bundle.members.iter().filter(|(name, _)| name.starts_with("policy/"));
    files.filter_map(|(_, bytes)| Policy::from_bytes(bytes).ok()).collect()
}

fn outcome_of(check: &Check) -> String {
    if check.passed {
        return "passed".to_owned();
    }
    let codes: Vec<&str> = check.rejections.iter().map(|rejection| rejection.code.as_str()).collect();
    format!("refused {}", codes.join(", "))
}

/// The decision made again. Rules that this program does not have are no reason to say that nothing changed.
fn redecided(inputs: Option<&Inputs>, recorded: &Decision) -> Verdict {
    let Some(inputs) = inputs else { return Verdict::NotMade("its inputs cannot be read".to_owned()) };
    if recorded.semantics != SEMANTICS {
        let why = format!("made by version {} of the decision, this program has {SEMANTICS}", recorded.semantics);
        return Verdict::NotMade(why);
    }
    compare("decision", recorded, &decide(inputs))
}

/// The kernel's check made again: the same plan against the same world.
fn rechecked(bundle: &Bundle, recorded: &Check) -> Verdict {
    let Some(plan) = blob::<Plan>(bundle, "plan", &recorded.plan) else {
        return Verdict::NotMade("the bundle does not hold the plan".to_owned());
    };
    let Some(world) = blob::<World>(bundle, "world", &recorded.world) else {
        return Verdict::NotMade("the bundle does not hold the world it was checked against".to_owned());
    };
    let judged = check(&plan, &world);
    let refused = judged.as_ref().err().map(Vec::as_slice).unwrap_or_default();
    let now = Check {
        plan: plan.digest(),
        world: recorded.world,
        // Whether the world has that slice of the graph is a rule of the check itself (K503).
        topology: plan.topology,
        // Only a plan that passes is told its group.
        group: judged.as_ref().map_or_else(|_| recorded.group.clone(), |checked| checked.members().to_vec()),
        passed: judged.is_ok(),
        rejections: refused.iter().map(Rejection::of).collect(),
        kernel: recorded.kernel.clone(),
    };
    compare("check", recorded, &now)
}

fn blob<T: Canon>(bundle: &Bundle, kind: &str, digest: &Digest) -> Option<T> {
    T::from_value(parse_object(kind, bundle.blob(digest)?).ok()?).ok()
}

fn compare<T: Canon + Render>(kind: &str, recorded: &T, now: &T) -> Verdict {
    if object(kind, &recorded.to_value()) == object(kind, &now.to_value()) {
        return Verdict::Same;
    }
    let difference = first_difference("", Some(&recorded.render()), Some(&now.render()));
    // What no rendering shows is a difference all the same.
    Verdict::Different(difference.unwrap_or_else(|| Difference {
        field: "canonical bytes".to_owned(),
        recorded: Digest::of_object(kind, recorded).short(),
        now: Digest::of_object(kind, now).short(),
    }))
}

fn first_difference(path: &str, recorded: Option<&Value>, now: Option<&Value>) -> Option<Difference> {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (recorded, now) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
            names.into_iter().find_map(|name| first_difference(&below(name), before.get(name), after.get(name)))
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) => (0..before.len().max(after.len()))
            .find_map(|at| first_difference(&below(&at.to_string()), before.get(at), after.get(at))),
        (before, after) if before == after => None,
        (before, after) => Some(Difference { field: path.to_owned(), recorded: show(before), now: show(after) }),
    }
}

fn show(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "nothing".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}
