use crate::Render;
use base::canon::{Canon, Error, Fields, Value};
use recovery::isa::{EffectLevel, RollbackClass};

words! {
    /// Whether an effect ends by itself.
    pub enum Expiry {
        /// The data plane ends it.
        Ttl = 1 "ttl",
        /// It stays.
        None = 2 "none",
    }
}

/// The size of an effect: `group restartable none` is the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectType {
    /// How wide.
    pub level: EffectLevel,
    /// How reversible.
    pub class: RollbackClass,
    /// Whether it ends by itself.
    pub expiry: Expiry,
}

impl EffectType {
    /// The largest.
    pub const MAX: EffectType =
        EffectType { level: EffectLevel::Group, class: RollbackClass::Restartable, expiry: Expiry::None };

    /// Whether it is nowhere larger than `bound`.
    #[must_use]
    pub fn is_within(self, bound: EffectType) -> bool {
        self.level <= bound.level && self.class <= bound.class && self.expiry <= bound.expiry
    }

    /// The larger of two in every respect: the type of doing both.
    #[must_use]
    pub fn join(self, other: EffectType) -> EffectType {
        EffectType {
            level: self.level.max(other.level),
            class: self.class.max(other.class),
            expiry: self.expiry.max(other.expiry),
        }
    }

    /// Reads `level class [expiry]`; without expiry, none is excluded.
    #[must_use]
    pub fn parse(text: &str) -> Option<EffectType> {
        let mut words = text.split(' ');
        let level = EffectLevel::parse(words.next()?)?;
        let class = RollbackClass::parse(words.next()?)?;
        let expiry = words.next().map_or(Some(Expiry::None), Expiry::parse)?;
        words.next().is_none().then_some(EffectType { level, class, expiry })
    }
}

impl std::fmt::Display for EffectType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.level, self.class, self.expiry)
    }
}

impl Render for EffectType {
    fn render(&self) -> serde_json::Value {
        self.to_string().into()
    }
}

impl Canon for EffectType {
    fn to_value(&self) -> Value {
        Value::Record(vec![(1, self.level.to_value()), (2, self.class.to_value()), (3, self.expiry.to_value())])
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        let mut fields = Fields::of(value)?;
        let effect = EffectType { level: fields.take(1)?, class: fields.take(2)?, expiry: fields.take(3)? };
        fields.finish()?;
        Ok(effect)
    }
}
