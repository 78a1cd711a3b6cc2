//! Canonical forms of actions and their parameters.

use super::{
    Action, ActionKind, BreakerMode, DrainMode, EdgeName, Limited, Place, Rate, RestartStrategy, Restored, Revision,
    ScaleTo,
};
use base::canon::{Canon, Error, Fields, Value};

impl Canon for Action {
    fn to_value(&self) -> Value {
        let mut fields = vec![(1, Some(self.kind().to_value()))];
        let rest = match self {
            Action::Restart { place, strategy, wave, surge, grace_ms, jitter_ms } => vec![
                place.to_field(),
                strategy.to_field(),
                wave.to_field(),
                surge.to_field(),
                grace_ms.to_field(),
                jitter_ms.to_field(),
            ],
            Action::Drain { place, percent, mode, timeout_ms, ttl_ms } => {
                vec![place.to_field(), percent.to_field(), mode.to_field(), timeout_ms.to_field(), ttl_ms.to_field()]
            }
            Action::RestoreTraffic { of, ramp, ramp_ms } => vec![of.to_field(), ramp.to_field(), ramp_ms.to_field()],
            Action::CircuitBreak { edge, mode, fallback, ttl_ms } => {
                vec![edge.to_field(), mode.to_field(), fallback.to_field(), ttl_ms.to_field()]
            }
            Action::RateLimit { what, rate, burst, priority, ttl_ms } => {
                vec![what.to_field(), rate.to_field(), burst.to_field(), priority.to_field(), ttl_ms.to_field()]
            }
            Action::Scale { service, to, ttl_ms } => vec![service.to_field(), to.to_field(), ttl_ms.to_field()],
            Action::RollbackConfig { kind, namespace, name, to } => {
                vec![kind.to_field(), namespace.to_field(), name.to_field(), to.to_field()]
            }
        };
        fields.extend((2_u16..).zip(rest));
        Value::Record(fields.into_iter().filter_map(|(number, field)| field.map(|value| (number, value))).collect())
    }

    fn from_value(value: Value) -> Result<Self, Error> {
        let mut fields = Fields::of(value)?;
        let kind: ActionKind = fields.take(1)?;
        let action = read_action(kind, &mut fields)?;
        fields.finish()?;
        Ok(action)
    }
}

fn read_action(kind: ActionKind, fields: &mut Fields) -> Result<Action, Error> {
    Ok(match kind {
        ActionKind::Restart => Action::Restart {
            place: fields.take(2)?,
            strategy: fields.take::<RestartStrategy>(3)?,
            wave: fields.take(4)?,
            surge: fields.take(5)?,
            grace_ms: fields.take(6)?,
            jitter_ms: fields.take(7)?,
        },
        ActionKind::Drain => Action::Drain {
            place: fields.take(2)?,
            percent: fields.take(3)?,
            mode: fields.take::<DrainMode>(4)?,
            timeout_ms: fields.take(5)?,
            ttl_ms: fields.take(6)?,
        },
        ActionKind::RestoreTraffic => {
            Action::RestoreTraffic { of: fields.take(2)?, ramp: fields.take(3)?, ramp_ms: fields.take(4)? }
        }
        ActionKind::CircuitBreak => Action::CircuitBreak {
            edge: fields.take(2)?,
            mode: fields.take::<BreakerMode>(3)?,
            fallback: fields.take(4)?,
            ttl_ms: fields.take(5)?,
        },
        ActionKind::RateLimit => Action::RateLimit {
            what: fields.take(2)?,
            rate: fields.take(3)?,
            burst: fields.take(4)?,
            priority: fields.take(5)?,
            ttl_ms: fields.take(6)?,
        },
        ActionKind::Scale => Action::Scale { service: fields.take(2)?, to: fields.take(3)?, ttl_ms: fields.take(4)? },
        ActionKind::RollbackConfig => Action::RollbackConfig {
            kind: fields.take(2)?,
            namespace: fields.take(3)?,
            name: fields.take(4)?,
            to: fields.take(5)?,
        },
    })
}

/// A tagged value: a list of the tag and the content.
fn tagged(tag: u64, content: Value) -> Value {
    Value::List(vec![tag.to_value(), content])
}

fn untag(value: Value) -> Result<(u64, Value), Error> {
    <(u64, Value)>::from_value(value)
}

impl Canon for Limited {
    fn to_value(&self) -> Value {
        match self {
            Limited::Place(place) => tagged(0, place.to_value()),
            Limited::Edge(edge) => tagged(1, edge.to_value()),
        }
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        match untag(value)? {
            (0, content) => Place::from_value(content).map(Limited::Place),
            (1, content) => EdgeName::from_value(content).map(Limited::Edge),
            _ => Err(Error::OutOfRange),
        }
    }
}

impl Canon for Rate {
    fn to_value(&self) -> Value {
        match self {
            Rate::Percent(percent) => tagged(0, percent.to_value()),
            Rate::PerSecond(rate) => tagged(1, rate.to_value()),
        }
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        match untag(value)? {
            (0, content) => u32::from_value(content).map(Rate::Percent),
            (1, content) => u32::from_value(content).map(Rate::PerSecond),
            _ => Err(Error::OutOfRange),
        }
    }
}

impl Canon for Restored {
    fn to_value(&self) -> Value {
        match self {
            Restored::AllOpen => tagged(0, Value::List(Vec::new())),
            Restored::Steps(keys) => tagged(1, keys.to_value()),
            Restored::Weights(weights) => tagged(2, weights.to_value()),
        }
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        match untag(value)? {
            (0, Value::List(items)) if items.is_empty() => Ok(Restored::AllOpen),
            (1, content) => Canon::from_value(content).map(Restored::Steps),
            (2, content) => Canon::from_value(content).map(Restored::Weights),
            _ => Err(Error::OutOfRange),
        }
    }
}

impl Canon for ScaleTo {
    fn to_value(&self) -> Value {
        match self {
            ScaleTo::Exactly(count) => tagged(0, count.to_value()),
            ScaleTo::More(count) => tagged(1, count.to_value()),
            ScaleTo::Fewer(count) => tagged(2, count.to_value()),
        }
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        match untag(value)? {
            (0, content) => u32::from_value(content).map(ScaleTo::Exactly),
            (1, content) => u32::from_value(content).map(ScaleTo::More),
            (2, content) => u32::from_value(content).map(ScaleTo::Fewer),
            _ => Err(Error::OutOfRange),
        }
    }
}

impl Canon for Revision {
    fn to_value(&self) -> Value {
        match self {
            Revision::LastGood => tagged(0, Value::List(Vec::new())),
            Revision::Named(name) => tagged(1, name.to_value()),
        }
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        match untag(value)? {
            (0, Value::List(items)) if items.is_empty() => Ok(Revision::LastGood),
            (1, content) => String::from_value(content).map(Revision::Named),
            _ => Err(Error::OutOfRange),
        }
    }
}
