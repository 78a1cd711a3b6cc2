//! JSON renderings of canonical values. What is digested and signed is never JSON.

use base::{Digest, Keyring, KeyringEntry, Millis, PublicKey, Ratio, Role, Timestamp};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A value that people and tools can read as JSON. Times are milliseconds, shares are texts like
/// `"2.5%"`, digests and keys are hex.
pub trait Render {
    /// The JSON form.
    fn render(&self) -> Value;
    /// The JSON form as a field of an object; `None` omits the field.
    fn render_field(&self) -> Option<Value> {
        Some(self.render())
    }
}

/// Declares a record with its canonical form (`base::record!`) and its JSON rendering.
macro_rules! body {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$field_meta:meta])* $number:literal $field_vis:vis $field:ident : $type:ty),* $(,)?
    }) => {
        base::record! {
            $(#[$meta])* #[derive(Clone, Debug, PartialEq, Eq)]
            $vis struct $name { $($(#[$field_meta])* $number $field_vis $field: $type),* }
        }
        impl $crate::Render for $name {
            fn render(&self) -> serde_json::Value {
                let fields = [$((stringify!($field), $crate::Render::render_field(&self.$field))),*];
                let present = fields.into_iter().filter_map(|(name, field)| Some((name.to_owned(), field?)));
                serde_json::Value::Object(present.collect())
            }
        }
    };
}

/// Declares an enumeration with its canonical form (`base::word_enum!`) and its JSON rendering.
macro_rules! words {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($body:tt)* }) => {
        base::word_enum! { $(#[$meta])* $vis enum $name { $($body)* } }
        $crate::render::render_word!($name);
    };
}

macro_rules! render_word {
    ($($type:ty),* $(,)?) => {$(
        impl $crate::Render for $type {
            fn render(&self) -> serde_json::Value {
                self.word().into()
            }
        }
    )*};
}
pub(crate) use render_word;

macro_rules! render_plain {
    ($($type:ty),* $(,)?) => {$(
        impl Render for $type {
            fn render(&self) -> Value {
                json!(self)
            }
        }
    )*};
}
render_plain!(u64, i64, bool, String);

macro_rules! render_text {
    ($($type:ty),* $(,)?) => {$(
        impl Render for $type {
            fn render(&self) -> Value {
                self.to_string().into()
            }
        }
    )*};
}
render_text!(Digest, Ratio, recovery::call::Key);

render_word!(
    Role,
    recovery::isa::ActionKind,
    recovery::isa::EffectLevel,
    recovery::isa::RollbackClass,
    recovery::call::CallOutcome
);

impl Render for Millis {
    fn render(&self) -> Value {
        self.0.into()
    }
}

impl Render for Timestamp {
    fn render(&self) -> Value {
        self.0.into()
    }
}

impl Render for PublicKey {
    fn render(&self) -> Value {
        hex(&self.0).into()
    }
}

impl<T: Render> Render for Vec<T> {
    fn render(&self) -> Value {
        self.iter().map(Render::render).collect()
    }
}

impl<T: Render> Render for BTreeMap<String, T> {
    fn render(&self) -> Value {
        Value::Object(self.iter().map(|(key, value)| (key.clone(), value.render())).collect::<Map<_, _>>())
    }
}

impl<T: Render> Render for Option<T> {
    fn render(&self) -> Value {
        self.as_ref().map_or(Value::Null, Render::render)
    }
    fn render_field(&self) -> Option<Value> {
        self.as_ref().map(Render::render)
    }
}

impl<A: Render, B: Render> Render for (A, B) {
    fn render(&self) -> Value {
        json!([self.0.render(), self.1.render()])
    }
}

impl Render for KeyringEntry {
    fn render(&self) -> Value {
        json!({
            "key": self.key.render(), "role": self.role.render(), "principal": self.principal,
            "trust_zone": self.trust_zone, "not_before_index": self.not_before_index,
            "revoked_at_index": self.revoked_at_index, "suspect_from_index": self.suspect_from_index,
        })
    }
}

impl Render for Keyring {
    fn render(&self) -> Value {
        json!({
            "version": self.version, "previous": self.previous.render(), "root": self.root.render(),
            "keys": self.keys.render(),
        })
    }
}

/// Lower-case hex digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
