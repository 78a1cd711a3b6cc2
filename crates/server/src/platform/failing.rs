//! Instances that are ready by their probe and serve nobody: they answer errors of their own, and nothing else.

use super::Reading;
use actuators::control::{Counts, Instance, Series};
use base::{Millis, Timestamp};

/// Over how long answers are counted: whole seconds before the newest, which is still filling up.
const LATELY: Millis = Millis(2_000);
/// Fewer requests say nothing.
const CALLS_MIN: u64 = 10;
/// Share of errors, in percent, from which an instance serves nobody. An overloaded one refuses many and still does the
/// work of as many as it can, so it stays below.
const ERRORS_PERCENT_MIN: u64 = 90;
/// Failed calls to others, in percent of a service's own failed answers, from which they explain them.
const EXPLAINED_PERCENT_MIN: u64 = 50;

impl Reading {
    /// Whether the instance is ready and does not answer nothing but errors.
    #[must_use]
    pub fn serves(&self, instance: &Instance) -> bool {
        instance.ready && !self.is_failing(instance)
    }

    /// Replicas of a service that are ready and answer nothing but errors that none of their calls explains.
    #[must_use]
    pub fn failing(&self, service: &str) -> Vec<u32> {
        let all = self.status.iter().flat_map(|status| &status.instances);
        let failing = all.filter(|it| it.service == service && it.ready && self.is_failing(it));
        failing.map(|instance| instance.replica).collect()
    }

    fn is_failing(&self, instance: &Instance) -> bool {
        let Some(proxy) = &self.proxy else { return false };
        let Some(series) = proxy.counters.targets.get(&instance.name()) else { return false };
        // What the process before it answered says nothing of this one.
        let counts = self.lately(series, Timestamp(instance.started_at_ms));
        let answered = counts.ok + counts.failed + counts.timeouts;
        answered >= CALLS_MIN
            && counts.failed.saturating_mul(100) >= answered.saturating_mul(ERRORS_PERCENT_MIN)
            && !self.calls_explain(&instance.service)
    }

    /// Whether calls of this service to others failed so often that its errors may be theirs passed on.
    fn calls_explain(&self, service: &str) -> bool {
        let Some(proxy) = &self.proxy else { return false };
        let failed = |series: &Series| {
            let counts = self.lately(series, Timestamp(0));
            counts.failed + counts.timeouts
        };
        let instance = |(name, _): &(&String, &Series)| name.split_once('@').is_some_and(|(owner, _)| owner == service);
        let call = |(edge, _): &(&String, &Series)| edge.split_once("->").is_some_and(|(caller, _)| caller == service);
        let errors: u64 = proxy.counters.targets.iter().filter(instance).map(|(_, series)| failed(series)).sum();
        let calls: u64 = proxy.counters.edges.iter().filter(call).map(|(_, series)| failed(series)).sum();
        calls >= CALLS_MIN && calls.saturating_mul(100) >= errors.saturating_mul(EXPLAINED_PERCENT_MIN)
    }

    /// The whole seconds of the last [`LATELY`] that began at `since` or after it.
    fn lately(&self, series: &Series, since: Timestamp) -> Counts {
        let to = self.at.0 - self.at.0.rem_euclid(1_000);
        let from = Timestamp(to).minus(LATELY).0.max(since.0);
        let within = series.seconds.iter().filter(|second| second.at_ms >= from && second.at_ms < to);
        within.fold(Counts::default(), |sum, second| Counts {
            calls: sum.calls + second.counts.calls,
            ok: sum.ok + second.counts.ok,
            failed: sum.failed + second.counts.failed,
            timeouts: sum.timeouts + second.counts.timeouts,
            ..sum
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actuators::control::{ProxyState, Second, Status};

    const NOW: i64 = 10_400;

    fn counts(ok: u64, failed: u64, timeouts: u64) -> Counts {
        Counts { calls: ok + failed + timeouts, ok, failed, timeouts, ..Counts::default() }
    }

    fn series(counts: Counts) -> Series {
        let seconds = [8_000, 9_000].map(|at_ms| Second { at_ms, counts }).to_vec();
        Series { seconds, ..Series::default() }
    }

    fn payments(replica: u32) -> Instance {
        Instance { service: "payments".into(), replica, ready: true, started_at_ms: 1_000, ..Instance::default() }
    }

    /// Two replicas of payments, of which the first answers as told, and its calls to the ledger.
    fn reading(first: Counts, to_ledger: Counts) -> Reading {
        let status = Status { instances: vec![payments(0), payments(1)], ..Status::default() };
        let mut proxy = ProxyState::default();
        proxy.counters.targets.insert("payments@0".into(), series(first));
        proxy.counters.targets.insert("payments@1".into(), series(counts(50, 0, 0)));
        proxy.counters.edges.insert("payments->ledger".into(), series(to_ledger));
        Reading { at: Timestamp(NOW), status: Some(status), proxy: Some(proxy), ..Reading::default() }
    }

    #[test]
    fn nothing_but_errors_of_its_own_is_failing() {
        let well = counts(50, 0, 0);
        let reading = reading(counts(0, 80, 0), well);
        assert_eq!(reading.failing("payments"), [0]);
        assert_eq!(reading.unavailable().into_iter().collect::<Vec<_>>(), ["payments"]);
        assert!(!reading.serves(&payments(0)) && reading.serves(&payments(1)));
    }

    #[test]
    fn overload_silence_and_errors_passed_on_are_not() {
        let well = counts(50, 0, 0);
        // Refuses half, and the other half gave up waiting: overloaded by a storm.
        assert!(reading(counts(0, 80, 80), well).failing("payments").is_empty());
        assert!(reading(counts(20, 80, 0), well).failing("payments").is_empty());
        assert!(reading(counts(0, 4, 0), well).failing("payments").is_empty(), "too few to say");
        assert!(reading(counts(0, 80, 0), counts(0, 70, 0)).failing("payments").is_empty(), "the ledger's errors");
        assert!(reading(counts(0, 80, 0), counts(0, 0, 70)).failing("payments").is_empty(), "the ledger's silence");
        // A few calls that failed on a busy machine explain little of what one instance answers.
        assert_eq!(reading(counts(0, 80, 0), counts(30, 0, 25)).failing("payments"), [0]);
        assert!(Reading { proxy: None, ..reading(counts(0, 80, 0), well) }.failing("payments").is_empty());
    }

    #[test]
    fn what_was_answered_before_a_restart_is_not_held_against_the_new_process() {
        let mut restarted = reading(counts(0, 80, 0), counts(50, 0, 0));
        for instance in restarted.status.iter_mut().flat_map(|status| &mut status.instances) {
            instance.started_at_ms = 9_300;
        }
        assert!(restarted.failing("payments").is_empty());
    }
}
