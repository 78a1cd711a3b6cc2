use base::Timestamp;
use base::canon::{Canon, Error, Value};

/// Counts of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// The second, since the Unix epoch.
    pub at: i64,
    /// What was counted.
    pub total: u32,
    /// Of these, failed.
    pub errors: u32,
    /// Of these, marked; see the field that holds it.
    pub marked: u32,
    /// 99th percentile of the durations, microseconds, rounded up to a sixteenth of an octave.
    pub p99_us: u32,
}

/// Counts over several seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// What was counted.
    pub total: u64,
    /// Of these, failed.
    pub errors: u64,
    /// Of these, marked.
    pub marked: u64,
}

/// The seconds with traffic, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seconds(pub Vec<Second>);

impl Seconds {
    /// The seconds that lie wholly between two instants.
    pub fn between(&self, from: Timestamp, to: Timestamp) -> impl DoubleEndedIterator<Item = &Second> {
        let (first, end) = (from.0.div_euclid(1_000) + i64::from(from.0.rem_euclid(1_000) > 0), to.0.div_euclid(1_000));
        self.0.iter().filter(move |second| second.at >= first && second.at < end)
    }

    /// The counts between two instants.
    #[must_use]
    pub fn sum(&self, from: Timestamp, to: Timestamp) -> Sum {
        self.between(from, to).fold(Sum::default(), |sum, second| Sum {
            total: sum.total + u64::from(second.total),
            errors: sum.errors + u64::from(second.errors),
            marked: sum.marked + u64::from(second.marked),
        })
    }

    /// Mean rate between two instants, over the seconds from the first with traffic; `None` without traffic.
    #[must_use]
    pub fn rate_mrps(&self, from: Timestamp, to: Timestamp) -> Option<u64> {
        let first = self.between(from, to).next()?.at;
        let length = u64::try_from(to.0.div_euclid(1_000) - first).ok().filter(|length| *length > 0)?;
        Some(self.sum(from, to).total * 1_000 / length)
    }

    /// The middle of the seconds' 99th percentiles between two instants, the upper of two.
    #[must_use]
    pub fn usual_p99_us(&self, from: Timestamp, to: Timestamp) -> Option<u32> {
        let mut values: Vec<u32> = self.between(from, to).map(|second| second.p99_us).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied()
    }
}

/// Twenty-four bytes a second, big-endian.
impl Canon for Seconds {
    fn to_value(&self) -> Value {
        let words = |s: &Second| [s.total, s.errors, s.marked, s.p99_us].map(u32::to_be_bytes).concat();
        Value::Bytes(self.0.iter().flat_map(|s| [s.at.to_be_bytes().to_vec(), words(s)].concat()).collect())
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        let Value::Bytes(bytes) = value else { return Err(Error::WrongType) };
        let (chunks, rest) = bytes.as_chunks::<24>();
        if !rest.is_empty() {
            return Err(Error::OutOfRange);
        }
        let seconds: Vec<Second> = chunks.iter().map(read).collect();
        let ascending = seconds.iter().zip(seconds.iter().skip(1)).all(|(a, b)| a.at < b.at);
        if ascending { Ok(Seconds(seconds)) } else { Err(Error::Order) }
    }
}

fn read(chunk: &[u8; 24]) -> Second {
    let (head, tail) = chunk.split_at(8);
    let at = head.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)).cast_signed();
    let word =
        |index: usize| tail.iter().skip(4 * index).take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    Second { at, total: word(0), errors: word(1), marked: word(2), p99_us: word(3) }
}
