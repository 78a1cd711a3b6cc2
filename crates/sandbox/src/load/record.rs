//! What became of every root request, by the second in which it was sent.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// LIMIT: seconds kept in memory; the file has them all.
const SECONDS_MAX: usize = 3_600;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// Served.
    Ok,
    /// Refused, broken off, or not answered.
    Failed,
    /// Turned away on purpose.
    Shed,
}

/// One second as others read it. Requests count in the second in which they were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The second's beginning, in milliseconds since the Unix epoch.
    pub second_ms: i64,
    /// Requests sent.
    pub sent: u64,
    /// Served, in time or late.
    pub ok: u64,
    /// Refused, broken off, or not answered.
    pub failed: u64,
    /// Turned away on purpose.
    pub shed: u64,
    /// Served, but slower than the objective.
    pub late: u64,
    /// Median latency of those served.
    pub p50_ms: u64,
    /// 99th percentile of the latency of those served.
    pub p99_ms: u64,
    /// Sent and not ended yet.
    pub in_flight: u64,
}

/// The record.
#[derive(Debug)]
pub(crate) struct Record {
    seconds: Mutex<Seconds>,
}

#[derive(Debug)]
struct Seconds {
    file: File,
    by_start: BTreeMap<i64, Second>,
    /// Everything before is in the file.
    written_before_ms: i64,
    in_flight: u64,
}

#[derive(Debug, Default)]
struct Second {
    in_flight: u64,
    /// When in the second, how long, and how it ended; a raw count, so that anyone may judge by other rules.
    ended: Vec<(u64, u64, Outcome)>,
}

/// A request that was sent.
#[derive(Debug)]
pub(crate) struct Begun {
    record: Arc<Record>,
    second_ms: i64,
    offset_ms: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    row: Row,
    /// `[milliseconds into the second, latency in milliseconds, outcome]` of each request.
    requests: &'a [(u64, u64, Outcome)],
}

impl Record {
    pub(crate) fn open(path: &Path) -> anyhow::Result<Record> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let seconds = Seconds { file, by_start: BTreeMap::new(), written_before_ms: i64::MIN, in_flight: 0 };
        Ok(Record { seconds: Mutex::new(seconds) })
    }

    /// A request is sent.
    pub(crate) fn begin(self: &Arc<Self>, now_ms: i64) -> Begun {
        let mut seconds = self.lock();
        // A clock that went back into what is written: count it in the first second that is not.
        let second_ms = (now_ms - now_ms.rem_euclid(1_000)).max(seconds.written_before_ms);
        seconds.by_start.entry(second_ms).or_default().in_flight += 1;
        seconds.in_flight += 1;
        Begun { record: self.clone(), second_ms, offset_ms: u64::try_from(now_ms.rem_euclid(1_000)).unwrap_or(0) }
    }

    /// Requests sent and not ended.
    pub(crate) fn in_flight(&self) -> u64 {
        self.lock().in_flight
    }

    /// The seconds from `since_ms` to now, oldest first; a second without requests is a row of zeros.
    pub(crate) fn rows(&self, since_ms: i64, now_ms: i64) -> Vec<Row> {
        let seconds = self.lock();
        let Some(first) = seconds.by_start.keys().next().copied() else { return Vec::new() };
        let (from, to) =
            (first.max(since_ms.saturating_sub(since_ms.rem_euclid(1_000))), now_ms - now_ms.rem_euclid(1_000));
        let starts = (0..).map(|n| from + n * 1_000).take_while(|start| *start <= to).take(SECONDS_MAX);
        let empty = Second::default();
        starts.map(|start| seconds.by_start.get(&start).unwrap_or(&empty).row(start)).collect()
    }

    /// Writes the seconds that are over and of which nothing is in flight.
    pub(crate) fn write(&self, now_ms: i64) -> anyhow::Result<()> {
        let mut seconds = self.lock();
        let Seconds { file, by_start, written_before_ms, .. } = &mut *seconds;
        let mut lines = Vec::new();
        for (start, second) in by_start.range(*written_before_ms..) {
            if start + 1_000 > now_ms || second.in_flight > 0 {
                break;
            }
            serde_json::to_writer(&mut lines, &Line { row: second.row(*start), requests: &second.ended })?;
            lines.push(b'\n');
            *written_before_ms = start + 1_000;
        }
        file.write_all(&lines)?;
        while by_start.len() > SECONDS_MAX && by_start.keys().next().is_some_and(|first| first < written_before_ms) {
            by_start.pop_first();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Seconds> {
        self.seconds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Begun {
    /// It ended.
    pub(crate) fn end(self, took: Duration, outcome: Outcome) {
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let mut seconds = self.record.lock();
        seconds.in_flight = seconds.in_flight.saturating_sub(1);
        let second = seconds.by_start.entry(self.second_ms).or_default();
        second.in_flight = second.in_flight.saturating_sub(1);
        second.ended.push((self.offset_ms, took_ms, outcome));
    }
}

impl Second {
    fn row(&self, second_ms: i64) -> Row {
        let count = |outcome| u64::try_from(self.ended.iter().filter(|ended| ended.2 == outcome).count()).unwrap_or(0);
        let mut served: Vec<u64> =
            self.ended.iter().filter(|ended| ended.2 == Outcome::Ok).map(|ended| ended.1).collect();
        served.sort_unstable();
        let late = served.iter().filter(|took_ms| **took_ms > crate::OBJECTIVE_MS).count();
        Row {
            second_ms,
            sent: u64::try_from(self.ended.len()).unwrap_or(0) + self.in_flight,
            ok: count(Outcome::Ok),
            failed: count(Outcome::Failed),
            shed: count(Outcome::Shed),
            late: u64::try_from(late).unwrap_or(0),
            p50_ms: percentile(&served, 50),
            p99_ms: percentile(&served, 99),
            in_flight: self.in_flight,
        }
    }
}

/// The smallest value that at least `percent` of them do not exceed; 0 of none.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_in_the_second_it_was_sent_in() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("load.jsonl");
        let record = Arc::new(Record::open(&file).expect("open"));
        let slow = record.begin(10_900);
        record.begin(10_100).end(Duration::from_millis(200), Outcome::Ok);
        record.begin(12_000).end(Duration::from_millis(3), Outcome::Shed);
        record.write(13_500).expect("write");
        assert_eq!(std::fs::read_to_string(&file).expect("read"), "", "one of the first second is in flight");
        slow.end(Duration::from_millis(801), Outcome::Ok);
        let rows = record.rows(10_500, 12_999);
        assert_eq!(
            (rows.len(), rows[0].sent, rows[0].ok, rows[0].late, rows[0].p50_ms, rows[0].p99_ms),
            (3, 2, 2, 1, 200, 801)
        );
        assert_eq!((rows[1].sent, rows[2].shed, record.in_flight()), (0, 1, 0));
        record.write(13_500).expect("write");
        record.write(14_500).expect("write");
        let text = std::fs::read_to_string(&file).expect("read");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("json")).collect();
        assert_eq!(lines.len(), 2, "each once");
        assert_eq!(lines[0]["requests"], serde_json::json!([[100, 200, "ok"], [900, 801, "ok"]]));
        // A clock that went back cannot reopen a written second.
        record.begin(10_000).end(Duration::ZERO, Outcome::Failed);
        assert_eq!(record.rows(13_000, 13_999)[0].failed, 1);
    }

    #[test]
    fn seconds_stay_in_memory_up_to_their_limit_and_all_in_the_file() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("load.jsonl");
        let record = Arc::new(Record::open(&file).expect("open"));
        let seconds = i64::try_from(SECONDS_MAX).expect("small") + 10;
        for second in 0..seconds {
            record.begin(second * 1_000).end(Duration::ZERO, Outcome::Ok);
        }
        record.write(seconds * 1_000).expect("write");
        let rows = record.rows(i64::MIN, seconds * 1_000 - 1);
        assert_eq!((rows.len(), rows[0].second_ms), (SECONDS_MAX, 10_000));
        let written = std::fs::read_to_string(&file).expect("read").lines().count();
        assert_eq!(written, SECONDS_MAX + 10);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(
            [percentile(&values, 50), percentile(&values, 99), percentile(&[], 99), percentile(&[7], 99)],
            [50, 99, 0, 7]
        );
    }
}
