use crate::canon::{Canon, Error, Value};

/// A probability or share in parts per million, 0 to 1 000 000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ratio(u32);

/// A number that is not a share between 0 and 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a share: write a percentage between \"0%\" and \"100%\" with at most four decimals")]
pub struct RatioError(pub String);

impl Ratio {
    /// Never.
    pub const ZERO: Ratio = Ratio(0);
    /// Always.
    pub const ONE: Ratio = Ratio(1_000_000);

    /// The share of `ppm` parts per million; `None` above one million.
    #[must_use]
    pub fn from_ppm(ppm: u32) -> Option<Ratio> {
        (ppm <= 1_000_000).then_some(Ratio(ppm))
    }

    /// The share of `ppm` parts per million, clamped to one.
    #[must_use]
    pub fn clamped(ppm: u64) -> Ratio {
        Ratio(u32::try_from(ppm.min(1_000_000)).unwrap_or(1_000_000))
    }

    /// `part / whole` rounded up (for risks); `None` when `whole` is 0 or `part > whole`.
    #[must_use]
    pub fn up(part: u64, whole: u64) -> Option<Ratio> {
        Ratio::divide(part, whole, u128::from(whole.checked_sub(1)?))
    }

    /// `part / whole` rounded down (for confidences); `None` when `whole` is 0 or `part > whole`.
    #[must_use]
    pub fn down(part: u64, whole: u64) -> Option<Ratio> {
        Ratio::divide(part, whole, 0)
    }

    /// A risk that came in as a float: rounded up, against us.
    ///
    /// # Errors
    /// Non-finite, negative (negative zero too) and above-one values.
    pub fn risk_from_f64(value: f64) -> Result<Ratio, RatioError> {
        if !value.is_finite() || value.is_sign_negative() || value > 1.0 {
            return Err(RatioError(value.to_string()));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to lie in 0..=1 above")]
        let ppm = (value * 1_000_000.0).ceil() as u32;
        Ratio::from_ppm(ppm).ok_or_else(|| RatioError(value.to_string()))
    }

    /// Parses `"2.5%"` exactly.
    ///
    /// # Errors
    /// A missing percent sign, a sign, more than four decimals, or more than 100%.
    pub fn parse(text: &str) -> Result<Ratio, RatioError> {
        let fail = || RatioError(text.to_owned());
        let number = text.strip_suffix('%').ok_or_else(fail)?;
        let ppm = parse_percent_ppm(number).ok_or_else(fail)?;
        u32::try_from(ppm).ok().and_then(Ratio::from_ppm).ok_or_else(fail)
    }

    /// Parts per million.
    #[must_use]
    pub fn ppm(self) -> u32 {
        self.0
    }

    fn divide(part: u64, whole: u64, bias: u128) -> Option<Ratio> {
        if whole == 0 || part > whole {
            return None;
        }
        let ppm = (u128::from(part) * 1_000_000 + bias) / u128::from(whole);
        u32::try_from(ppm).ok().and_then(Ratio::from_ppm)
    }
}

/// Parses the number before a percent sign into parts per million; may exceed one million
/// (`"200"` is 2 000 000), at most four decimals.
#[must_use]
pub fn parse_percent_ppm(number: &str) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 4 || !digits(whole) || !digits(fraction) {
        return None;
    }
    if number.contains('.') && fraction.is_empty() {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let padded = format!("{fraction:0<4}");
    whole.checked_mul(10_000)?.checked_add(padded.parse::<u64>().ok()?)
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, fraction) = (self.0 / 10_000, self.0 % 10_000);
        if fraction == 0 {
            return write!(f, "{whole}%");
        }
        let fraction = format!("{fraction:04}");
        write!(f, "{whole}.{}%", fraction.trim_end_matches('0'))
    }
}

impl Canon for Ratio {
    fn to_value(&self) -> Value {
        Value::Unsigned(u64::from(self.0))
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        let ppm = u32::from_value(value)?;
        Ratio::from_ppm(ppm).ok_or(Error::OutOfRange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_round_against_us_and_refuse_nonsense() {
        assert_eq!(Ratio::up(1, 3), Ratio::from_ppm(333_334));
        assert_eq!(Ratio::down(1, 3), Ratio::from_ppm(333_333));
        assert_eq!((Ratio::up(0, 0), Ratio::up(2, 1)), (None, None));
        assert_eq!(Ratio::parse("2.5%"), Ok(Ratio(25_000)));
        assert_eq!(Ratio(25_000).to_string(), "2.5%");
        for text in ["2.5", "-1%", "100.0001%", "1.%", "NaN%", "1e2%", ""] {
            assert!(Ratio::parse(text).is_err(), "{text}");
        }
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, -1.0, 1.000_001] {
            assert!(Ratio::risk_from_f64(value).is_err(), "{value}");
        }
    }
}
