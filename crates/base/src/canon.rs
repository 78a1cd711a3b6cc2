//! The canonical encoding: the only bytes ever digested or signed. JSON is a rendering.
//!
//! An object is the text `stanch/<kind>/v1`, a zero byte, then one value. Values: tag 01 unsigned and
//! 02 signed integer, 8 bytes big-endian; 03 true; 04 false; 05 bytes and 06 UTF-8 text with 4-byte
//! length; 07 list with 4-byte count; 08 record: 4-byte count, then (2-byte field number, value) with
//! strictly ascending numbers, absent fields omitted; 09 map: 4-byte count, text keys strictly
//! ascending by bytes. One value has one encoding; the decoder refuses every other.

use std::collections::BTreeMap;

/// How deep values may nest.
pub const DEPTH_MAX: u32 = 16;

/// One canonical value. There are no floats and no null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Tag 01.
    Unsigned(u64),
    /// Tag 02.
    Signed(i64),
    /// Tags 03 and 04.
    Bool(bool),
    /// Tag 05.
    Bytes(Vec<u8>),
    /// Tag 06.
    Text(String),
    /// Tag 07.
    List(Vec<Value>),
    /// Tag 08; field numbers strictly ascending.
    Record(Vec<(u16, Value)>),
    /// Tag 09.
    Map(BTreeMap<String, Value>),
}

/// Why bytes are not a canonical object, or a value not of the wanted shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The input ended inside a value, or a length points beyond it.
    #[error("the bytes end inside a value")]
    Truncated,
    /// Bytes follow the value.
    #[error("bytes follow the value")]
    Trailing,
    /// A tag outside 01 to 09.
    #[error("unknown tag")]
    UnknownTag,
    /// Field numbers or keys not strictly ascending.
    #[error("fields or keys out of order or repeated")]
    Order,
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// Deeper than [`DEPTH_MAX`].
    #[error("nested deeper than {DEPTH_MAX}")]
    Depth,
    /// The object is of another kind.
    #[error("an object of another kind")]
    Kind,
    /// A value of another type than the field has.
    #[error("a value of the wrong type")]
    WrongType,
    /// A value outside the field's range.
    #[error("a value out of range")]
    OutOfRange,
    /// A required field is absent.
    #[error("field {0} is missing")]
    Missing(u16),
    /// A field number the record does not have.
    #[error("unknown field {0}")]
    UnknownField(u16),
}

/// A type with one canonical value.
pub trait Canon: Sized {
    /// The canonical value.
    fn to_value(&self) -> Value;
    /// Reads the value back.
    ///
    /// # Errors
    /// Any value that [`Canon::to_value`] would not have produced.
    fn from_value(value: Value) -> Result<Self, Error>;
    /// The value as a record field; `None` omits the field.
    fn to_field(&self) -> Option<Value> {
        Some(self.to_value())
    }
    /// Reads a record field.
    ///
    /// # Errors
    /// As [`Canon::from_value`], and [`Error::Missing`] for an absent required field.
    fn from_field(number: u16, value: Option<Value>) -> Result<Self, Error> {
        Self::from_value(value.ok_or(Error::Missing(number))?)
    }
}

/// The canonical object `stanch/<kind>/v1`, a zero byte, the value.
///
/// # Panics
/// When a record's field numbers are not strictly ascending, or nesting exceeds [`DEPTH_MAX`]: both are
/// errors of the program.
#[must_use]
pub fn object(kind: &str, value: &Value) -> Vec<u8> {
    let mut out = format!("stanch/{kind}/v1").into_bytes();
    out.push(0);
    encode(value, &mut out, 0);
    out
}

/// Reads an object of the given kind.
///
/// # Errors
/// Any byte sequence that [`object`] would not have produced.
pub fn parse_object(kind: &str, bytes: &[u8]) -> Result<Value, Error> {
    let prefix = [format!("stanch/{kind}/v1").as_bytes(), &[0]].concat();
    let rest = bytes.strip_prefix(prefix.as_slice()).ok_or(Error::Kind)?;
    let mut input = rest;
    let value = decode(&mut input, 0)?;
    if input.is_empty() { Ok(value) } else { Err(Error::Trailing) }
}

/// The kind of a canonical object, without reading its value.
#[must_use]
pub fn kind_of(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let text = std::str::from_utf8(bytes.get(..end)?).ok()?;
    text.strip_prefix("stanch/")?.strip_suffix("/v1")
}

fn encode(value: &Value, out: &mut Vec<u8>, depth: u32) {
    assert!(depth <= DEPTH_MAX, "canonical value nested deeper than {DEPTH_MAX}");
    match value {
        Value::Unsigned(number) => tagged(1, &number.to_be_bytes(), out),
        Value::Signed(number) => tagged(2, &number.to_be_bytes(), out),
        Value::Bool(true) => out.push(3),
        Value::Bool(false) => out.push(4),
        Value::Bytes(bytes) => sized(5, bytes, out),
        Value::Text(text) => sized(6, text.as_bytes(), out),
        Value::List(items) => {
            counted(7, items.len(), out);
            items.iter().for_each(|item| encode(item, out, depth + 1));
        }
        Value::Record(fields) => {
            let ascending = fields.iter().zip(fields.iter().skip(1)).all(|(a, b)| a.0 < b.0);
            assert!(ascending, "record fields must ascend");
            counted(8, fields.len(), out);
            for (number, field) in fields {
                out.extend_from_slice(&number.to_be_bytes());
                encode(field, out, depth + 1);
            }
        }
        Value::Map(map) => {
            counted(9, map.len(), out);
            for (key, item) in map {
                sized_body(key.as_bytes(), out);
                encode(item, out, depth + 1);
            }
        }
    }
}

fn tagged(tag: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(body);
}

fn counted(tag: u8, count: usize, out: &mut Vec<u8>) {
    tagged(tag, &length(count).to_be_bytes(), out);
}

fn sized(tag: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    sized_body(body, out);
}

fn sized_body(body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&length(body.len()).to_be_bytes());
    out.extend_from_slice(body);
}

fn length(count: usize) -> u32 {
    // INVARIANT: every limit of the project keeps objects far below 4 GiB.
    assert!(u32::try_from(count).is_ok(), "canonical value too long");
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn take<'a>(input: &mut &'a [u8], count: usize) -> Result<&'a [u8], Error> {
    let (head, rest) = input.split_at_checked(count).ok_or(Error::Truncated)?;
    *input = rest;
    Ok(head)
}

fn take_array<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], Error> {
    take(input, N)?.try_into().map_err(|_| Error::Truncated)
}

fn take_count(input: &mut &[u8]) -> Result<usize, Error> {
    let count = usize::try_from(u32::from_be_bytes(take_array(input)?)).map_err(|_| Error::Truncated)?;
    // A count beyond the remaining bytes cannot be honest: every item takes at least one byte.
    if count > input.len() { Err(Error::Truncated) } else { Ok(count) }
}

fn take_text(input: &mut &[u8]) -> Result<String, Error> {
    let count = take_count(input)?;
    String::from_utf8(take(input, count)?.to_vec()).map_err(|_| Error::NotUtf8)
}

fn decode(input: &mut &[u8], depth: u32) -> Result<Value, Error> {
    if depth > DEPTH_MAX {
        return Err(Error::Depth);
    }
    let [tag] = take_array(input)?;
    match tag {
        1 => Ok(Value::Unsigned(u64::from_be_bytes(take_array(input)?))),
        2 => Ok(Value::Signed(i64::from_be_bytes(take_array(input)?))),
        3 => Ok(Value::Bool(true)),
        4 => Ok(Value::Bool(false)),
        5 => {
            let count = take_count(input)?;
            Ok(Value::Bytes(take(input, count)?.to_vec()))
        }
        6 => take_text(input).map(Value::Text),
        7 => {
            let count = take_count(input)?;
            (0..count).map(|_| decode(input, depth + 1)).collect::<Result<_, _>>().map(Value::List)
        }
        8 => decode_record(input, depth),
        9 => decode_map(input, depth),
        _ => Err(Error::UnknownTag),
    }
}

fn decode_record(input: &mut &[u8], depth: u32) -> Result<Value, Error> {
    let count = take_count(input)?;
    let mut fields: Vec<(u16, Value)> = Vec::new();
    for _ in 0..count {
        let number = u16::from_be_bytes(take_array(input)?);
        if fields.last().is_some_and(|(last, _)| *last >= number) {
            return Err(Error::Order);
        }
        fields.push((number, decode(input, depth + 1)?));
    }
    Ok(Value::Record(fields))
}

fn decode_map(input: &mut &[u8], depth: u32) -> Result<Value, Error> {
    let count = take_count(input)?;
    let mut map = BTreeMap::new();
    for _ in 0..count {
        let key = take_text(input)?;
        if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(Error::Order);
        }
        let value = decode(input, depth + 1)?;
        map.insert(key, value);
    }
    Ok(Value::Map(map))
}

macro_rules! unsigned {
    ($($type:ty),*) => {$(
        impl Canon for $type {
            fn to_value(&self) -> Value {
                Value::Unsigned(u64::from(*self))
            }
            fn from_value(value: Value) -> Result<Self, Error> {
                match value {
                    Value::Unsigned(number) => number.try_into().map_err(|_| Error::OutOfRange),
                    _ => Err(Error::WrongType),
                }
            }
        }
    )*};
}
unsigned!(u8, u16, u32, u64);

impl Canon for i64 {
    fn to_value(&self) -> Value {
        Value::Signed(*self)
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        if let Value::Signed(number) = value { Ok(number) } else { Err(Error::WrongType) }
    }
}

impl Canon for bool {
    fn to_value(&self) -> Value {
        Value::Bool(*self)
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        if let Value::Bool(flag) = value { Ok(flag) } else { Err(Error::WrongType) }
    }
}

impl Canon for String {
    fn to_value(&self) -> Value {
        Value::Text(self.clone())
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        if let Value::Text(text) = value { Ok(text) } else { Err(Error::WrongType) }
    }
}

impl Canon for Value {
    fn to_value(&self) -> Value {
        self.clone()
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        Ok(value)
    }
}

impl<T: Canon> Canon for Vec<T> {
    fn to_value(&self) -> Value {
        Value::List(self.iter().map(Canon::to_value).collect())
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        match value {
            Value::List(items) => items.into_iter().map(T::from_value).collect(),
            _ => Err(Error::WrongType),
        }
    }
}

impl<T: Canon> Canon for BTreeMap<String, T> {
    fn to_value(&self) -> Value {
        Value::Map(self.iter().map(|(key, item)| (key.clone(), item.to_value())).collect())
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        match value {
            Value::Map(map) => map.into_iter().map(|(key, item)| Ok((key, T::from_value(item)?))).collect(),
            _ => Err(Error::WrongType),
        }
    }
}

/// A pair is a list of two.
impl<A: Canon, B: Canon> Canon for (A, B) {
    fn to_value(&self) -> Value {
        Value::List(vec![self.0.to_value(), self.1.to_value()])
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        let Value::List(items) = value else { return Err(Error::WrongType) };
        let [first, second] = <[Value; 2]>::try_from(items).map_err(|_| Error::OutOfRange)?;
        Ok((A::from_value(first)?, B::from_value(second)?))
    }
}

/// As a field, absent means `None`; elsewhere a list of none or one.
impl<T: Canon> Canon for Option<T> {
    fn to_value(&self) -> Value {
        Value::List(self.iter().map(Canon::to_value).collect())
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        let mut items = Vec::<T>::from_value(value)?;
        let item = items.pop();
        if items.is_empty() { Ok(item) } else { Err(Error::OutOfRange) }
    }
    fn to_field(&self) -> Option<Value> {
        self.as_ref().map(Canon::to_value)
    }
    fn from_field(_number: u16, value: Option<Value>) -> Result<Self, Error> {
        value.map(T::from_value).transpose()
    }
}

/// The fields of a record while it is read; every field must be taken.
#[derive(Debug)]
pub struct Fields(BTreeMap<u16, Value>);

impl Fields {
    /// The fields of a record value.
    ///
    /// # Errors
    /// [`Error::WrongType`] for any other value.
    pub fn of(value: Value) -> Result<Fields, Error> {
        match value {
            Value::Record(fields) => Ok(Fields(fields.into_iter().collect())),
            _ => Err(Error::WrongType),
        }
    }

    /// Takes field `number`.
    ///
    /// # Errors
    /// As [`Canon::from_field`].
    pub fn take<T: Canon>(&mut self, number: u16) -> Result<T, Error> {
        T::from_field(number, self.0.remove(&number))
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`Error::UnknownField`] when a field was not taken.
    pub fn finish(self) -> Result<(), Error> {
        self.0.first_key_value().map_or(Ok(()), |(number, _)| Err(Error::UnknownField(*number)))
    }
}

/// Declares a struct whose canonical form is a record: `record! { pub struct Name { 1 pub field: Type, … } }`.
/// Field numbers must ascend and are never reused.
#[macro_export]
macro_rules! record {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$field_meta:meta])* $number:literal $field_vis:vis $field:ident : $type:ty),* $(,)?
    }) => {
        $(#[$meta])* $vis struct $name { $($(#[$field_meta])* $field_vis $field: $type),* }
        impl $crate::canon::Canon for $name {
            fn to_value(&self) -> $crate::canon::Value {
                let fields = [$(($number, $crate::canon::Canon::to_field(&self.$field))),*];
                $crate::canon::Value::Record(
                    fields.into_iter().filter_map(|(number, field)| field.map(|value| (number, value))).collect(),
                )
            }
            fn from_value(value: $crate::canon::Value) -> Result<Self, $crate::canon::Error> {
                let mut fields = $crate::canon::Fields::of(value)?;
                let record = $name { $($field: fields.take($number)?),* };
                fields.finish()?;
                Ok(record)
            }
        }
    };
}

/// Declares a fieldless enum whose canonical form is its unsigned number and whose JSON and text form is
/// the given word: `word_enum! { pub enum Name { Variant = 1 "word", … } }`. Adds `word()` and `parse()`.
#[macro_export]
macro_rules! word_enum {
    ($(#[$meta:meta])* $vis:vis enum $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident = $number:literal $word:literal),* $(,)?
    }) => {
        $(#[$meta])* #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $name { $($(#[$variant_meta])* $variant = $number),* }
        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];
            /// The word shown to people and written in JSON.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word),* }
            }
            /// The value of a word.
            #[must_use]
            pub fn parse(word: &str) -> Option<$name> {
                match word { $($word => Some($name::$variant),)* _ => None }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
        impl $crate::canon::Canon for $name {
            fn to_value(&self) -> $crate::canon::Value {
                $crate::canon::Value::Unsigned(*self as u64)
            }
            fn from_value(value: $crate::canon::Value) -> Result<Self, $crate::canon::Error> {
                match u64::from_value(value)? {
                    $($number => Ok($name::$variant),)*
                    _ => Err($crate::canon::Error::OutOfRange),
                }
            }
        }
    };
}

#[cfg(test)]
mod tests;
