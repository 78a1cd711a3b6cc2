//! The one place of the shell that reads the clock, draws randomness and starts tasks.

use base::{Millis, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time, randomness and tasks of one process, real or under a test's control; cheap to clone.
#[derive(Clone, Debug)]
pub struct Env {
    source: Source,
    /// The latest time ever given out.
    floor: Arc<AtomicI64>,
    /// Everything spawned ends with it.
    life: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Clone, Debug)]
enum Source {
    Real,
    Manual {
        now: Arc<watch::Sender<i64>>,
        draws: Arc<AtomicU64>,
    },
    /// The runtime's own clock, which a test may have paused: time passes when everybody waits.
    Runtime {
        start: Timestamp,
        began: Instant,
        draws: Arc<AtomicU64>,
    },
}

/// A measurement that began; for metrics and logs, never for decisions.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(std::time::Instant);

/// The work was stopped, or panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the work was stopped")]
pub struct Stopped;

/// LIMIT: the longest single sleep on the real clock; a jump of the system clock is seen this soon.
const NAP_MAX: Duration = Duration::from_secs(1);

impl Env {
    /// The system's clock and random source.
    #[must_use]
    pub fn real() -> Env {
        Env::of(Source::Real, 0)
    }

    /// A clock that moves only when [`Env::advance`] is called, and a counter in place of randomness.
    #[must_use]
    pub fn manual(start: Timestamp) -> Env {
        let now = Arc::new(watch::Sender::new(start.0));
        Env::of(Source::Manual { now, draws: Arc::default() }, start.0)
    }

    /// The clock of the runtime that calls it, read as `start` now, and a counter from `draws` on in place of
    /// randomness. On a runtime with one thread and a paused clock everything that happens is the same every time.
    #[must_use]
    pub fn of_runtime(start: Timestamp, draws: u64) -> Env {
        let draws = Arc::new(AtomicU64::new(draws));
        Env::of(Source::Runtime { start, began: Instant::now(), draws }, start.0)
    }

    fn of(source: Source, floor: i64) -> Env {
        Env {
            source,
            floor: Arc::new(AtomicI64::new(floor)),
            life: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Runs `work` until it is done or the process ends.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
        let life = self.life.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = life.cancelled() => {}
                () = work => {}
            }
        })
    }

    /// Runs work that takes long, beside everything else; on the runtime's clock in its place, so that the order of
    /// what happens is always the same.
    ///
    /// # Errors
    /// It panicked.
    pub async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Stopped> {
        match self.source {
            Source::Runtime { .. } => Ok(work()),
            Source::Real | Source::Manual { .. } => tokio::task::spawn_blocking(work).await.map_err(|_| Stopped),
        }
    }

    /// Ends everything spawned, wherever it waits; what it holds is dropped without another step.
    pub fn end(&self) {
        self.life.cancel();
    }

    /// Completes when everything spawned has ended, after [`Env::end`].
    pub async fn ended(&self) {
        self.life.cancelled().await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Whether [`Env::end`] was called.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.life.is_cancelled()
    }

    /// Moves a manual clock forward and wakes who waits on it; does nothing to the real one.
    pub fn advance(&self, by: Millis) {
        if let Source::Manual { now, .. } = &self.source {
            now.send_modify(|at| *at = Timestamp(*at).plus(by).0);
        }
    }

    /// The present; never earlier than any earlier answer.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let read = match &self.source {
            Source::Real => read_clock(),
            Source::Manual { now, .. } => *now.borrow(),
            Source::Runtime { start, began, .. } => start.plus(millis(began.elapsed())).0,
        };
        Timestamp(self.floor.fetch_max(read, Ordering::AcqRel).max(read))
    }

    /// Begins a measurement of real time, also where the clock is a test's.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the shell's clock")]
    pub fn stopwatch(&self) -> Stopwatch {
        Stopwatch(std::time::Instant::now())
    }

    /// Raises the floor: no later answer of [`Env::now`] is earlier than `at`.
    pub fn not_before(&self, at: Timestamp) {
        self.floor.fetch_max(at.0, Ordering::AcqRel);
    }

    /// Waits until [`Env::now`] is at or after `at`.
    pub async fn sleep_until(&self, at: Timestamp) {
        match &self.source {
            Source::Real => loop {
                let left = at.since(self.now());
                if left == Millis(0) {
                    return;
                }
                tokio::time::sleep(nap(left)).await;
            },
            Source::Manual { now, .. } => {
                let mut changes = now.subscribe();
                // The sender lives in `self`, so waiting cannot fail.
                let _ = changes.wait_for(|now| *now >= at.0).await;
            }
            Source::Runtime { .. } => {
                tokio::time::sleep(Duration::from_millis(at.since(self.now()).0)).await;
            }
        }
    }

    /// Sixteen bytes for an identifier: random, or counted on a manual clock.
    ///
    /// # Errors
    /// The operating system gave no randomness.
    pub fn draw(&self) -> Result<[u8; 16], getrandom::Error> {
        let mut out = [0_u8; 16];
        match &self.source {
            Source::Real => getrandom::fill(&mut out)?,
            Source::Manual { draws, .. } | Source::Runtime { draws, .. } => {
                let (_, tail) = out.split_at_mut(8);
                tail.copy_from_slice(&draws.fetch_add(1, Ordering::Relaxed).to_be_bytes());
            }
        }
        Ok(out)
    }
}

impl Stopwatch {
    /// What has passed.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// What has passed, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.elapsed().as_secs_f64()
    }
}

fn millis(time: Duration) -> Millis {
    Millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// How long to sleep before the clock, which somebody may set, is looked at again.
fn nap(left: Millis) -> Duration {
    Duration::from_millis(left.0).min(NAP_MAX)
}

#[expect(clippy::disallowed_methods, reason = "this is the shell's clock")]
fn read_clock() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_sleep_is_many_naps() {
        assert_eq!((nap(Millis(999)), nap(Millis(u64::MAX))), (Duration::from_millis(999), NAP_MAX));
    }

    #[test]
    fn time_never_goes_back() {
        let env = Env::manual(Timestamp(1_000));
        env.not_before(Timestamp(5_000));
        assert_eq!(env.now(), Timestamp(5_000));
        env.advance(Millis(500));
        assert_eq!(env.now(), Timestamp(5_000));
        env.advance(Millis(5_000));
        assert_eq!(env.now(), Timestamp(6_500));
    }
}
