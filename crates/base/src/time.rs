use crate::canon::{Canon, Error, Value};

/// An instant: milliseconds since the Unix epoch. Never read from a clock here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// LIMIT: a duration as somebody writes it, a hundred years: sums and small multiples of such are still numbers.
pub const DURATION_MAX: Millis = Millis(36_525 * 86_400_000);

/// A length of time in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

/// A duration text that is not a number followed by `ms`, `s`, `m`, `h` or `d`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a duration: write a number and a unit, for example \"250ms\", \"0.5s\", \"2m\", \"1h\" or \"35d\""
)]
pub struct MillisError(pub String);

impl Timestamp {
    /// The instant `by` later; saturates at the end of time.
    #[must_use]
    pub fn plus(self, by: Millis) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(by.0).unwrap_or(i64::MAX)))
    }

    /// The instant `by` earlier; saturates at the beginning of time.
    #[must_use]
    pub fn minus(self, by: Millis) -> Timestamp {
        Timestamp(self.0.saturating_sub(i64::try_from(by.0).unwrap_or(i64::MAX)))
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> Millis {
        Millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Millis {
    /// Parses an exact duration such as `"250ms"`, `"0.5s"`, `"120s"`, `"2m"`, `"1h"` or `"35d"`.
    ///
    /// # Errors
    /// A text without a unit, with a sign, that is not a whole number of milliseconds, or beyond [`DURATION_MAX`].
    pub fn parse(text: &str) -> Result<Millis, MillisError> {
        let fail = || MillisError(text.to_owned());
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
        let (number, unit) = text.split_at(split);
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(fail()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || fraction.len() > 6 || (number.contains('.') && fraction.is_empty()) {
            return Err(fail());
        }
        let whole: u64 = whole.parse().map_err(|_| fail())?;
        let scale = 10_u64.pow(u32::try_from(fraction.len()).map_err(|_| fail())?);
        let part: u64 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| fail())? };
        let part_ms = part.checked_mul(unit_ms).ok_or_else(fail)?;
        if part_ms % scale != 0 {
            return Err(fail());
        }
        let whole_ms = whole.checked_mul(unit_ms).ok_or_else(fail)?;
        whole_ms.checked_add(part_ms / scale).map(Millis).filter(|time| *time <= DURATION_MAX).ok_or_else(fail)
    }
}

impl std::fmt::Display for Millis {
    /// The shortest exact form: `250ms`, `0.5s` prints as `500ms`, `2s`, `2m`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => write!(f, "0s"),
            ms if ms % 60_000 == 0 => write!(f, "{}m", ms / 60_000),
            ms if ms % 1_000 == 0 => write!(f, "{}s", ms / 1_000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

impl Canon for Timestamp {
    fn to_value(&self) -> Value {
        Value::Signed(self.0)
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        i64::from_value(value).map(Timestamp)
    }
}

impl Canon for Millis {
    fn to_value(&self) -> Value {
        Value::Unsigned(self.0)
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        u64::from_value(value).map(Millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse_exactly_or_not_at_all() {
        for (text, ms) in [("250ms", 250), ("0.5s", 500), ("120s", 120_000), ("2m", 120_000), ("35d", 3_024_000_000)] {
            assert_eq!(Millis::parse(text), Ok(Millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "0.0001s", "1.s", ".5s", "1 s", "99999999999999999d", "NaNs"] {
            assert!(Millis::parse(text).is_err(), "{text}");
        }
        assert_eq!(Millis::parse("36525d"), Ok(DURATION_MAX));
        for text in [format!("{}ms", DURATION_MAX.0 + 1), "36526d".to_owned(), format!("{}ms", u64::MAX)] {
            assert!(Millis::parse(&text).is_err(), "{text}");
        }
    }
}
