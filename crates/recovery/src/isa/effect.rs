//! Effect types: what a plan can do at worst, as one joinable value.

use super::{Action, ActionKind, EffectKind, EffectLevel, Limited, Place, RestartStrategy, Restored, RollbackClass};
use std::collections::BTreeSet;

base::word_enum! {
    /// Whether an effect ends by itself.
    pub enum Expiry {
        /// The data plane ends it.
        Ttl = 1 "ttl",
        /// It stays.
        None = 2 "none",
    }
}

base::record! {
    /// The highest level, class and expiry that a policy permits, written `group restartable none`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TypeBound {
        /// Not wider than this.
        1 pub level: EffectLevel,
        /// Not harder to return from than this.
        2 pub class: RollbackClass,
        /// `ttl`: everything must end by itself.
        3 pub expiry: Expiry,
    }
}

/// What an action, or a plan, can do at worst.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectType {
    /// What is changed.
    pub kinds: BTreeSet<EffectKind>,
    /// How wide, how far from return, and for how long.
    pub bound: TypeBound,
}

/// A text that is not a level, a class and an expiry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an effect type: write a level, a class and an expiry, for example \"service restartable none\"")]
pub struct TypeBoundError(pub String);

impl TypeBound {
    /// The least bound: joining with it changes nothing.
    pub const LEAST: TypeBound =
        TypeBound { level: EffectLevel::Instance, class: RollbackClass::Reversible, expiry: Expiry::Ttl };

    /// Parses `LEVEL CLASS EXPIRY`.
    ///
    /// # Errors
    /// Any other text.
    pub fn parse(text: &str) -> Result<TypeBound, TypeBoundError> {
        let fail = || TypeBoundError(text.to_owned());
        let words: Vec<&str> = text.split_whitespace().collect();
        let [level, class, expiry] = words.as_slice() else { return Err(fail()) };
        Ok(TypeBound {
            level: EffectLevel::parse(level).ok_or_else(fail)?,
            class: RollbackClass::parse(class).ok_or_else(fail)?,
            expiry: Expiry::parse(expiry).ok_or_else(fail)?,
        })
    }

    /// The larger of each part.
    #[must_use]
    pub fn join(self, other: TypeBound) -> TypeBound {
        TypeBound {
            level: self.level.max(other.level),
            class: self.class.max(other.class),
            expiry: self.expiry.max(other.expiry),
        }
    }

    /// Whether no part exceeds `bound`.
    #[must_use]
    pub fn within(self, bound: TypeBound) -> bool {
        self.join(bound) == bound
    }
}

impl std::fmt::Display for TypeBound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.level, self.class, self.expiry)
    }
}

impl EffectType {
    /// The type that does nothing.
    #[must_use]
    pub fn nothing() -> EffectType {
        EffectType { kinds: BTreeSet::new(), bound: TypeBound::LEAST }
    }

    /// The type of one action. `grows` says whether a Scale adds replicas; `None` when unknown counts as both.
    #[must_use]
    pub fn of(action: &Action, grows: Option<bool>) -> EffectType {
        let kinds = kinds(action, grows);
        let expiry = match action {
            // WHY: closing our own steps leaves nothing behind; explicit weights stay until someone changes them.
            Action::RestoreTraffic { of: Restored::AllOpen | Restored::Steps(_), .. } => Expiry::Ttl,
            other if other.ttl_ms().is_some() => Expiry::Ttl,
            _ => Expiry::None,
        };
        let bound = TypeBound { level: level(action), class: action.kind().rollback_class(), expiry };
        EffectType { kinds, bound }
    }

    /// The union of kinds and the larger of each other part.
    #[must_use]
    pub fn join(&self, other: &EffectType) -> EffectType {
        EffectType { kinds: self.kinds.union(&other.kinds).copied().collect(), bound: self.bound.join(other.bound) }
    }
}

/// How wide one action reaches.
#[must_use]
pub fn level(action: &Action) -> EffectLevel {
    match action {
        Action::Restart { strategy: RestartStrategy::Group, .. } => EffectLevel::Group,
        Action::Restart { place, .. } | Action::Drain { place, .. } => place_level(place),
        Action::RestoreTraffic { of: Restored::Weights(_), .. } => EffectLevel::Service,
        // WHY: it is as wide as what it closes, and that step is in the plan's join already.
        Action::RestoreTraffic { .. } => EffectLevel::Instance,
        Action::CircuitBreak { .. } => EffectLevel::Edge,
        Action::RateLimit { what: Limited::Place(place), .. } => place_level(place),
        Action::RateLimit { what: Limited::Edge(_), .. } => EffectLevel::Edge,
        Action::Scale { .. } | Action::RollbackConfig { .. } => EffectLevel::Service,
    }
}

fn place_level(place: &Place) -> EffectLevel {
    match place {
        Place::Instances(..) | Place::Shard(..) => EffectLevel::Instance,
        Place::Service(_) | Place::Zone(..) => EffectLevel::Service,
    }
}

fn kinds(action: &Action, grows: Option<bool>) -> BTreeSet<EffectKind> {
    let list: &[EffectKind] = match action.kind() {
        ActionKind::Restart => &[EffectKind::VolatileLoss, EffectKind::CapacityDown],
        ActionKind::Drain => &[EffectKind::TrafficShift, EffectKind::CapacityDown],
        ActionKind::RestoreTraffic => &[EffectKind::TrafficShift, EffectKind::CapacityUp],
        ActionKind::CircuitBreak | ActionKind::RateLimit => &[EffectKind::Shed],
        ActionKind::Scale => match grows {
            Some(true) => &[EffectKind::CapacityUp],
            Some(false) => &[EffectKind::CapacityDown],
            None => &[EffectKind::CapacityUp, EffectKind::CapacityDown],
        },
        ActionKind::RollbackConfig => &[EffectKind::ConfigChange, EffectKind::VolatileLoss],
    };
    list.iter().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_bounds() -> Vec<TypeBound> {
        let mut out = Vec::new();
        for level in EffectLevel::ALL {
            for class in RollbackClass::ALL {
                for expiry in Expiry::ALL {
                    out.push(TypeBound { level: *level, class: *class, expiry: *expiry });
                }
            }
        }
        out
    }

    #[test]
    fn the_join_is_associative_commutative_and_idempotent() {
        let all = all_bounds();
        for a in &all {
            assert_eq!(a.join(*a), *a);
            assert_eq!(a.join(TypeBound::LEAST), *a);
            assert_eq!(TypeBound::parse(&a.to_string()), Ok(*a));
            for b in &all {
                assert_eq!(a.join(*b), b.join(*a));
                assert_eq!(a.within(*b), a.join(*b) == *b);
                for c in &all {
                    assert_eq!(a.join(*b).join(*c), a.join(b.join(*c)));
                }
            }
        }
        for text in ["", "group restartable", "group restartable none none", "ttl group restartable"] {
            assert!(TypeBound::parse(text).is_err(), "{text}");
        }
    }
}
