//! What the engine counts while it works. `crate::metrics` gives the counts names, units and a page; nothing decides
//! by them.

use crate::engine::env::Stopwatch;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use protocol::Invariant;

/// Every operation of the protocol by its wire name, in order, so that one is found by halving.
pub const KINDS: [&str; 27] = [
    "debug.reset",
    "debug.snap",
    "debug.start",
    "debug.stop",
    "debug.tick",
    "promise.create",
    "promise.get",
    "promise.register_callback",
    "promise.register_listener",
    "promise.search",
    "promise.settle",
    "schedule.create",
    "schedule.delete",
    "schedule.get",
    "schedule.search",
    "task.acquire",
    "task.continue",
    "task.create",
    "task.fence",
    "task.fulfill",
    "task.get",
    "task.halt",
    "task.heartbeat",
    "task.release",
    "task.search",
    "task.suspend",
    // Bytes that are no request, and kinds that nobody knows.
    "unknown",
];
/// The statuses that answers have; any other is counted as 500.
pub const STATUSES: [u16; 14] = [200, 201, 300, 400, 401, 403, 404, 409, 410, 422, 429, 501, 503, 500];
/// The place of `unknown` in [`KINDS`].
const UNKNOWN: usize = KINDS.len() - 1;
/// Bounds of request durations in seconds: a read takes microseconds, a write one sync of the disk.
const REQUEST_SECONDS: [f64; 14] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];
/// Bounds of commit durations in seconds.
const COMMIT_SECONDS: [f64; 12] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0, 5.0];
/// Bounds of answers in one commit.
const GROUP_ANSWERS: [f64; 12] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

/// The counts of one engine; cheap to clone.
#[derive(Clone, Debug)]
pub struct Meters {
    kinds: std::sync::Arc<[Kind; KINDS.len()]>,
    /// How long commits took, in seconds.
    pub commit_seconds: Histogram,
    /// How many answers waited for one commit.
    pub group_answers: Histogram,
    /// Commits that failed.
    pub commits_failed: Counter,
    /// Open event streams of workers.
    pub streams: Gauge,
    violations: std::sync::Arc<[Counter]>,
}

/// The counts of one operation.
#[derive(Debug)]
pub(crate) struct Kind {
    /// How many were answered with each of [`STATUSES`].
    pub(crate) answered: [Counter; STATUSES.len()],
    /// How long the answers took, in seconds.
    pub(crate) seconds: Histogram,
}

impl Default for Meters {
    fn default() -> Meters {
        let kind = |_| Kind { answered: Default::default(), seconds: Histogram::new(REQUEST_SECONDS) };
        Meters {
            kinds: std::sync::Arc::new(std::array::from_fn(kind)),
            commit_seconds: Histogram::new(COMMIT_SECONDS),
            group_answers: Histogram::new(GROUP_ANSWERS),
            commits_failed: Counter::default(),
            streams: Gauge::default(),
            violations: Invariant::ALL.iter().map(|_| Counter::default()).collect(),
        }
    }
}

impl Meters {
    /// Counts an answered request of the wire; `kind` is what it was sent with.
    pub fn answered(&self, kind: &str, status: u16, began: Stopwatch) {
        let at = KINDS[..UNKNOWN].binary_search(&kind).unwrap_or(UNKNOWN);
        let Some(kind) = self.kinds.get(at) else { return };
        let at = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len() - 1);
        if let Some(counter) = kind.answered.get(at) {
            counter.inc();
        }
        kind.seconds.observe(began.seconds());
    }

    /// Counts a commit that answered so many, or failed.
    pub(super) fn committed(&self, began: Stopwatch, answers: Option<usize>) {
        self.commit_seconds.observe(began.seconds());
        match answers {
            Some(answers) => self.group_answers.observe(as_float(answers)),
            None => drop(self.commits_failed.inc()),
        }
    }

    /// Counts a broken invariant that was found while the server runs.
    pub fn violated(&self, invariant: Invariant) {
        if let Some(counter) = self.violations.get(invariant as usize) {
            counter.inc();
        }
    }

    pub(crate) fn kinds(&self) -> impl Iterator<Item = (&'static str, &Kind)> {
        KINDS.into_iter().zip(self.kinds.iter())
    }

    pub(crate) fn violations(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        Invariant::ALL.iter().map(|invariant| invariant.name()).zip(self.violations.iter())
    }
}

/// A count as a float; exact below 2^32, and more than that never wait for one commit.
fn as_float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Env;

    #[test]
    fn every_kind_is_found_and_every_other_is_unknown() {
        assert!(KINDS[..UNKNOWN].is_sorted(), "halving needs an order");
        let (meters, env) = (Meters::default(), Env::real());
        let asked = KINDS.into_iter().chain(["nobody.knows", "", "promise.creat", "z"]);
        asked.for_each(|kind| meters.answered(kind, 200, env.stopwatch()));
        meters.answered("promise.get", 418, env.stopwatch());
        for (name, kind) in meters.kinds() {
            assert_eq!(kind.answered[0].get(), if name == "unknown" { 5 } else { 1 }, "{name}");
            assert_eq!(kind.answered[STATUSES.len() - 1].get(), u64::from(name == "promise.get"), "{name}");
        }
    }

    #[test]
    fn a_violation_is_counted_under_its_name() {
        let meters = Meters::default();
        Invariant::ALL.iter().for_each(|invariant| meters.violated(*invariant));
        assert!(meters.violations().all(|(_, counter)| counter.get() == 1));
        assert_eq!(meters.violations().count(), Invariant::ALL.len());
    }
}
