//! Deterministic edits that answer a refusal, and the nearest admissible plan.

use base::Digest;
use base::canon::{Canon, Error, Value};

/// One edit of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Leave the step out.
    Drop {
        /// The step.
        step: String,
    },
    /// Set an integer parameter.
    Set {
        /// The step.
        step: String,
        /// `wave`, `surge`, `percent`, `rate`, `to`, `grace_ms`, `jitter_ms`, `timeout_ms` or `ttl_ms`.
        parameter: String,
        /// Its value.
        to: u64,
    },
    /// Restart this service too, in a step of its own after the named one.
    AddMember {
        /// After this step.
        step: String,
        /// The coupled service.
        service: String,
    },
    /// Put a drain of the step's target before it and a restore after it.
    InsertDrain {
        /// The restart.
        step: String,
    },
    /// Put a limit on the step's service before it and a restore after it.
    InsertLimit {
        /// The restart.
        step: String,
    },
    /// Restore what the step opened, at the end.
    InsertRestore {
        /// The step that opens.
        step: String,
    },
    /// Sort the steps: drains by callers first, restarts by waves, restores last.
    Reorder,
    /// State this footprint.
    Footprint {
        /// The services.
        services: Vec<String>,
    },
    /// Bind to the slice's digest.
    Repin {
        /// The digest.
        topology: Digest,
    },
    /// Return to the newest known good revision.
    LastGood {
        /// The rollback.
        step: String,
    },
    /// Limit the edge instead of breaking it.
    LimitInstead {
        /// The breaker.
        step: String,
    },
    /// Restart one instance at a time, each after its drain.
    Cautious,
}

impl std::fmt::Display for Edit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Edit::Drop { step } => write!(f, "drop {step}"),
            Edit::Set { step, parameter, to } => write!(f, "set {step}.{parameter} to {to}"),
            Edit::AddMember { step, service } => write!(f, "restart {service} after {step}"),
            Edit::InsertDrain { step } => write!(f, "drain before {step}"),
            Edit::InsertLimit { step } => write!(f, "limit before {step}"),
            Edit::InsertRestore { step } => write!(f, "restore {step} at the end"),
            Edit::Reorder => f.write_str("reorder the steps"),
            Edit::Footprint { services } => write!(f, "footprint {}", services.join(",")),
            Edit::Repin { topology } => write!(f, "bind to graph {}", topology.short()),
            Edit::LastGood { step } => write!(f, "{step} to last-good"),
            Edit::LimitInstead { step } => write!(f, "limit instead of {step}"),
            Edit::Cautious => f.write_str("one instance at a time, each after its drain"),
        }
    }
}

impl Canon for Edit {
    fn to_value(&self) -> Value {
        let named = |tag: u64, step: &String, rest: Vec<Value>| {
            let mut list = vec![tag.to_value(), step.to_value()];
            list.extend(rest);
            Value::List(list)
        };
        match self {
            Edit::Drop { step } => named(1, step, vec![]),
            Edit::Set { step, parameter, to } => named(2, step, vec![parameter.to_value(), to.to_value()]),
            Edit::AddMember { step, service } => named(3, step, vec![service.to_value()]),
            Edit::InsertDrain { step } => named(4, step, vec![]),
            Edit::InsertLimit { step } => named(5, step, vec![]),
            Edit::InsertRestore { step } => named(6, step, vec![]),
            Edit::Reorder => Value::List(vec![7_u64.to_value()]),
            Edit::Footprint { services } => Value::List(vec![8_u64.to_value(), services.to_value()]),
            Edit::Repin { topology } => Value::List(vec![9_u64.to_value(), topology.to_value()]),
            Edit::LastGood { step } => named(10, step, vec![]),
            Edit::LimitInstead { step } => named(11, step, vec![]),
            Edit::Cautious => Value::List(vec![12_u64.to_value()]),
        }
    }

    fn from_value(value: Value) -> Result<Self, Error> {
        let Value::List(items) = value else { return Err(Error::WrongType) };
        let mut items = items.into_iter();
        let tag = u64::from_value(items.next().ok_or(Error::OutOfRange)?)?;
        let mut next = || items.next().ok_or(Error::OutOfRange);
        let edit = match tag {
            1 => Edit::Drop { step: Canon::from_value(next()?)? },
            2 => Edit::Set {
                step: Canon::from_value(next()?)?,
                parameter: Canon::from_value(next()?)?,
                to: Canon::from_value(next()?)?,
            },
            3 => Edit::AddMember { step: Canon::from_value(next()?)?, service: Canon::from_value(next()?)? },
            4 => Edit::InsertDrain { step: Canon::from_value(next()?)? },
            5 => Edit::InsertLimit { step: Canon::from_value(next()?)? },
            6 => Edit::InsertRestore { step: Canon::from_value(next()?)? },
            7 => Edit::Reorder,
            8 => Edit::Footprint { services: Canon::from_value(next()?)? },
            9 => Edit::Repin { topology: Canon::from_value(next()?)? },
            10 => Edit::LastGood { step: Canon::from_value(next()?)? },
            11 => Edit::LimitInstead { step: Canon::from_value(next()?)? },
            12 => Edit::Cautious,
            _ => return Err(Error::OutOfRange),
        };
        if items.next().is_some() { Err(Error::OutOfRange) } else { Ok(edit) }
    }
}
