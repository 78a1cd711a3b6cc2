//! What passed: totals and the last 120 seconds, per edge and per instance.

use crate::control::{Counts, Second, Series};
use std::collections::VecDeque;

/// Seconds remembered one by one.
pub(super) const SECONDS_MAX: usize = 120;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Answered without a server error, or turned away on purpose further down.
    Ok,
    /// Answered with a server error, or not answered.
    Failed,
    /// Turned away here.
    Shed,
    /// The caller went away.
    Timeout,
}

/// Counts of one edge or one instance.
#[derive(Clone, Debug, Default)]
pub(super) struct Counter {
    total: Counts,
    seconds: VecDeque<Second>,
}

impl Counter {
    /// A call begins.
    pub(super) fn begin(&mut self, retry: bool, now_ms: i64) {
        self.total.in_flight += 1;
        self.count(now_ms, |counts| {
            counts.calls += 1;
            counts.retries += u64::from(retry);
        });
    }

    /// A call that began ends.
    pub(super) fn end(&mut self, end: End, now_ms: i64) {
        self.total.in_flight = self.total.in_flight.saturating_sub(1);
        self.count(now_ms, |counts| match end {
            End::Ok => counts.ok += 1,
            End::Failed => counts.failed += 1,
            End::Shed => counts.shed += 1,
            End::Timeout => counts.timeouts += 1,
        });
    }

    /// The counts, seconds out of the window left out.
    pub(super) fn series(&self, now_ms: i64) -> Series {
        let oldest = second_of(now_ms) - span_ms();
        let seconds = self.seconds.iter().filter(|second| second.at_ms > oldest).copied().collect();
        Series { total: self.total, seconds }
    }

    fn count(&mut self, now_ms: i64, add: impl Fn(&mut Counts)) {
        add(&mut self.total);
        let at_ms = second_of(now_ms);
        if self.seconds.back().is_none_or(|second| second.at_ms < at_ms) {
            self.seconds.push_back(Second { at_ms, counts: Counts::default() });
            while self.seconds.len() > SECONDS_MAX {
                self.seconds.pop_front();
            }
        }
        // A clock that went back counts into the newest second: a second is never counted twice.
        if let Some(second) = self.seconds.back_mut() {
            add(&mut second.counts);
            second.counts.in_flight = self.total.in_flight;
        }
    }
}

fn second_of(now_ms: i64) -> i64 {
    now_ms - now_ms.rem_euclid(1_000)
}

fn span_ms() -> i64 {
    i64::try_from(SECONDS_MAX).unwrap_or(0) * 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_kept_for_two_minutes() {
        let mut counter = Counter::default();
        for second in 0..300 {
            counter.begin(second % 2 == 1, second * 1_000 + 10);
            counter.end(if second % 3 == 0 { End::Failed } else { End::Ok }, second * 1_000 + 20);
        }
        let series = counter.series(299_500);
        assert_eq!((series.total.calls, series.total.retries, series.total.failed), (300, 150, 100));
        assert_eq!((series.seconds.len(), series.seconds[0].at_ms), (SECONDS_MAX, 180_000));
        assert_eq!(counter.series(400_000).seconds.len(), 19);
    }

    #[test]
    fn in_flight_is_what_began_and_did_not_end() {
        let mut counter = Counter::default();
        counter.begin(false, 0);
        counter.begin(false, 0);
        counter.end(End::Timeout, 2_000);
        let series = counter.series(2_000);
        assert_eq!((series.total.in_flight, series.total.timeouts), (1, 1));
        assert_eq!(series.seconds.iter().map(|second| second.counts.in_flight).collect::<Vec<_>>(), [2, 1]);
    }
}
