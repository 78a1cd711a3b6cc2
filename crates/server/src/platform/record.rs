//! An outside client's record of what it asked and what it got, read over HTTP.

use actuators::control::http_request;
use base::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// LIMIT: any number in a second of the record; a larger one is no count of requests and no latency.
const RECORD_NUMBER_MAX: u64 = 1_000_000_000_000;
/// LIMIT: the beginning of a second of the record, the end of the year 9999; a later one is no time.
const RECORD_SECOND_MAX_MS: i64 = 253_402_300_799_000;

/// One second of the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordSecond {
    /// The second's beginning, Unix milliseconds.
    pub second_ms: i64,
    /// Requests sent in it.
    pub sent: u64,
    /// Of these: answered well and in time, so far.
    pub ok: u64,
    /// Of these: failed.
    pub failed: u64,
    /// Of these: refused by a limit or a breaker.
    pub shed: u64,
    /// Of these: answered well but later than the objective.
    pub late: u64,
    /// Median latency.
    pub p50_ms: u64,
    /// 99th percentile of latency.
    pub p99_ms: u64,
    /// Still unanswered.
    pub in_flight: u64,
}

/// Several seconds together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordSummary {
    /// Seconds with traffic.
    pub seconds: u64,
    /// Requests sent.
    pub sent: u64,
    /// Failed or late; shed requests are counted apart.
    pub bad: u64,
    /// Refused by a limit or a breaker.
    pub shed: u64,
    /// The worst second's 99th percentile.
    pub p99_ms: u64,
    /// Unanswered at the end.
    pub in_flight: u64,
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not `http://host:port/path`.
    #[error("`{0}` is not an http:// address")]
    Address(String),
    /// No answer, or not in time.
    #[error("the record at {url} did not answer")]
    Unanswered {
        /// Where.
        url: String,
        /// The cause.
        #[source]
        source: actuators::control::ControlError,
    },
    /// An answer that is not a record.
    #[error("the answer of {0} is not a record")]
    Garbled(String),
}

/// Reads the seconds from `since` on.
///
/// # Errors
/// As [`RecordError`] says: a record that does not answer is never an empty one.
pub async fn read_record(url: &str, since: Timestamp) -> Result<Vec<RecordSecond>, RecordError> {
    let rest = url.strip_prefix("http://").ok_or_else(|| RecordError::Address(url.to_owned()))?;
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = format!("/{path}?since_ms={}", since.0);
    let answer = http_request(address, hyper::Method::GET, &path, Vec::new(), Duration::from_millis(500)).await;
    let (status, body) = answer.map_err(|source| RecordError::Unanswered { url: url.to_owned(), source })?;
    if status != 200 {
        return Err(RecordError::Garbled(url.to_owned()));
    }
    parse(&body).ok_or_else(|| RecordError::Garbled(url.to_owned()))
}

/// A record, if that is what it is: sums over all its seconds stay numbers, and what follows a second is a time.
fn parse(body: &[u8]) -> Option<Vec<RecordSecond>> {
    let record: Vec<RecordSecond> = serde_json::from_slice(body).ok()?;
    let plain = |second: &RecordSecond| {
        let RecordSecond { second_ms, sent, ok, failed, shed, late, p50_ms, p99_ms, in_flight } = *second;
        let numbers = [sent, ok, failed, shed, late, p50_ms, p99_ms, in_flight];
        (0..=RECORD_SECOND_MAX_MS).contains(&second_ms) && numbers.iter().all(|number| *number <= RECORD_NUMBER_MAX)
    };
    record.iter().all(plain).then_some(record)
}

/// Adds up the seconds in `[from, to)`.
#[must_use]
pub fn summarize(record: &[RecordSecond], from: Timestamp, to: Timestamp) -> RecordSummary {
    let within = record.iter().filter(|second| second.second_ms >= from.0 && second.second_ms < to.0);
    within.filter(|second| second.sent > 0).fold(RecordSummary::default(), |sum, second| RecordSummary {
        seconds: sum.seconds + 1,
        sent: sum.sent + second.sent,
        bad: sum.bad + second.failed + second.late,
        shed: sum.shed + second.shed,
        p99_ms: sum.p99_ms.max(second.p99_ms),
        in_flight: second.in_flight,
    })
}

#[cfg(test)]
mod tests;
