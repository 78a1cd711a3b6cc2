//! What must hold before, during and after a recovery. Every signal an invariant names is resolved
//! first: one missing, stale, mistyped or single-sourced signal makes it not evaluable, before anything
//! is compared, so that nothing can absorb an unknown.

mod native;
mod signals;

pub use native::evaluate;
pub use signals::{
    Durability, EpochWrite, LeaseSpan, QuorumPhase, Rates, Reading, ReplayState, Signal, Signals, WaveCapacity,
};

use base::Millis;

/// The native invariants.
pub const NATIVE: [&str; 8] = [
    "lease-unique",
    "epoch-monotone",
    "quorum-intersect",
    "replay-bounded",
    "state-convergent",
    "no-acknowledged-loss",
    "capacity-floor",
    "progress",
];

/// What a native invariant asks for, for whoever meets its name for the first time; nothing for any other.
#[must_use]
pub fn meaning(id: &str) -> &'static str {
    match id {
        "lease-unique" => "one owner at a time",
        "epoch-monotone" => "nobody who lost ownership changes anything",
        "quorum-intersect" => "any two majorities share a member",
        "replay-bounded" => "the journal is whole, and nothing in it was done twice",
        "state-convergent" => "the replicas agree in the end",
        "no-acknowledged-loss" => "nothing that was confirmed is lost",
        "capacity-floor" => "what stays up carries the load",
        "progress" => "requests go on being answered",
        _ => "",
    }
}

words! {
    /// What an invariant evaluated to.
    pub enum Holding {
        /// It holds.
        Holds = 1 "holds",
        /// It does not; see the witness.
        Violated = 2 "violated",
        /// Nobody can say; see why.
        NotEvaluable = 3 "not-evaluable",
    }
}

body! {
    /// One invariant, evaluated.
    pub struct Evaluation {
        /// Which.
        1 pub id: String,
        /// To what.
        2 pub outcome: Holding,
        /// Why it could not be evaluated.
        3 pub why: Option<String>,
        /// Measured.
        4 pub value: Option<i64>,
        /// Allowed.
        5 pub bound: Option<i64>,
        /// Distance between the two; negative when violated.
        6 pub margin: Option<i64>,
        /// Of the three.
        7 pub unit: String,
        /// What a person can check: two holders, a wave, a count.
        8 pub witness: Option<String>,
        /// Signals it read, with their age in milliseconds.
        9 pub inputs: Vec<(String, u64)>,
    }
}

words! {
    /// How a signal is compared with its bound.
    pub enum Compare {
        /// At most.
        AtMost = 1 "<=",
        /// Less than.
        Below = 2 "<",
        /// At least.
        AtLeast = 3 ">=",
        /// More than.
        Above = 4 ">",
        /// Exactly.
        Equal = 5 "=",
    }
}

body! {
    /// A number or a second signal; exactly one of the two.
    pub struct Operand {
        /// A number.
        1 pub number: Option<i64>,
        /// A signal of the same unit.
        2 pub signal: Option<String>,
    }
}

body! {
    /// An invariant of the policy file's own: `signal <= bound`.
    pub struct InvariantRule {
        /// Its id.
        1 pub id: String,
        /// The signal read.
        2 pub signal: String,
        /// Its unit.
        3 pub unit: String,
        /// Oldest usable reading.
        4 pub max_age: Millis,
        /// Failure domains it needs; absent: the tier's.
        5 pub sources_min: Option<u64>,
        /// How it is compared.
        6 pub compare: Compare,
        /// With what.
        7 pub bound: Operand,
    }
}

/// What the native invariants need besides signals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Oldest usable reading.
    pub max_age: Millis,
    /// Failure domains a signal needs.
    pub sources_min: u64,
    /// Capacity over load in parts per million; 1 200 000 is 120%.
    pub headroom_ppm: u64,
    /// How far clocks may be apart.
    pub clock_uncertainty: Millis,
    /// Longest replay in entries.
    pub replay_entries_max: u64,
    /// Longest replay in bytes.
    pub replay_bytes_max: u64,
    /// Longest replay in time.
    pub replay_max: Millis,
    /// Acknowledged writes that may be on one member only.
    pub unreplicated_max: u64,
}

impl Needs {
    /// The needs of a class in a tier, with the given bounds of replay.
    #[must_use]
    pub fn of(effective: &crate::policy::Effective) -> Needs {
        Needs {
            max_age: effective.tier.windows.fact_age_max,
            sources_min: effective.tier.envelope.sources_min,
            headroom_ppm: effective.tier.kernel.headroom_ppm,
            clock_uncertainty: Millis(0),
            replay_entries_max: 100_000,
            replay_bytes_max: 64 << 20,
            replay_max: effective.tier.windows.ready_for.max(Millis(10_000)),
            unreplicated_max: 0,
        }
    }
}

/// Evaluates every invariant of a class, in the policy's order.
#[must_use]
pub fn evaluate_all(effective: &crate::policy::Effective, signals: &Signals, needs: &Needs) -> Vec<Evaluation> {
    let one = |id: &String| match effective.rules.iter().find(|rule| &rule.id == id) {
        Some(rule) => evaluate_rule(rule, signals, needs.sources_min),
        None => evaluate(id, signals, needs),
    };
    effective.class.invariants.iter().map(one).collect()
}

/// Evaluates one invariant of the file's own.
#[must_use]
pub fn evaluate_rule(rule: &InvariantRule, signals: &Signals, sources_min: u64) -> Evaluation {
    let sources = rule.sources_min.unwrap_or(0).max(sources_min);
    let needs = |name: &str| signals.resolve(name, &rule.unit, rule.max_age, sources);
    let mut inputs = Vec::new();
    let mut integer = |name: &str| {
        let signal = needs(name)?;
        inputs.push((name.to_owned(), signal.age.0));
        match signal.reading {
            Reading::Integer(number) => Ok(number),
            _ => Err(format!("signal `{name}` is not a number")),
        }
    };
    let value = integer(&rule.signal);
    let bound = match (&rule.bound.number, &rule.bound.signal) {
        (Some(number), None) => Ok(*number),
        (None, Some(name)) => integer(name),
        _ => Err("the bound is neither a number nor a signal".to_owned()),
    };
    let (value, bound) = match (value, bound) {
        (Ok(value), Ok(bound)) => (value, bound),
        (Err(why), _) | (_, Err(why)) => return Evaluation::not_evaluable(&rule.id, why),
    };
    let (holds, margin) = match rule.compare {
        Compare::AtMost => (value <= bound, bound.saturating_sub(value)),
        Compare::Below => (value < bound, bound.saturating_sub(value)),
        Compare::AtLeast => (value >= bound, value.saturating_sub(bound)),
        Compare::Above => (value > bound, value.saturating_sub(bound)),
        Compare::Equal => (value == bound, bound.saturating_sub(value).saturating_abs().saturating_neg()),
    };
    let witness = format!("{} = {value} {}, allowed {} {bound}", rule.signal, rule.unit, rule.compare);
    Evaluation {
        id: rule.id.clone(),
        outcome: if holds { Holding::Holds } else { Holding::Violated },
        why: None,
        value: Some(value),
        bound: Some(bound),
        margin: Some(margin),
        unit: rule.unit.clone(),
        witness: (!holds).then_some(witness),
        inputs,
    }
}

impl Evaluation {
    /// An invariant nobody can judge.
    #[must_use]
    pub fn not_evaluable(id: &str, why: impl Into<String>) -> Evaluation {
        Evaluation {
            id: id.to_owned(),
            outcome: Holding::NotEvaluable,
            why: Some(why.into()),
            value: None,
            bound: None,
            margin: None,
            unit: String::new(),
            witness: None,
            inputs: Vec::new(),
        }
    }

    /// One line for people: `capacity-floor HOLDS (margin 40 mrps)`.
    #[must_use]
    pub fn sentence(&self) -> String {
        let margin = self.margin.map_or_else(String::new, |margin| format!(" (margin {margin} {})", self.unit));
        match self.outcome {
            Holding::Holds => format!("{} HOLDS{margin}", self.id),
            Holding::Violated => {
                format!("{} VIOLATED: {}", self.id, self.witness.as_deref().unwrap_or("no witness"))
            }
            Holding::NotEvaluable => {
                format!("{} NOT EVALUABLE: {}", self.id, self.why.as_deref().unwrap_or("no reason recorded"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
