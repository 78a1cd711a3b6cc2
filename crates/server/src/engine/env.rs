//! The one place of the shell that reads the clock and draws randomness.

use base::{Millis, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Time and randomness of one process, real or under a test's control; cheap to clone.
#[derive(Clone, Debug)]
pub struct Env {
    source: Source,
    /// The latest time ever given out.
    floor: Arc<AtomicI64>,
}

#[derive(Clone, Debug)]
enum Source {
    Real,
    Manual { now: Arc<watch::Sender<i64>>, draws: Arc<AtomicU64> },
}

/// LIMIT: the longest single sleep on the real clock; a jump of the system clock is seen this soon.
const NAP_MAX: Duration = Duration::from_secs(1);

impl Env {
    /// The system's clock and random source.
    #[must_use]
    pub fn real() -> Env {
        Env { source: Source::Real, floor: Arc::new(AtomicI64::new(0)) }
    }

    /// A clock that moves only when [`Env::advance`] is called, and a counter in place of randomness.
    #[must_use]
    pub fn manual(start: Timestamp) -> Env {
        let now = Arc::new(watch::Sender::new(start.0));
        Env {
            source: Source::Manual { now, draws: Arc::new(AtomicU64::new(0)) },
            floor: Arc::new(AtomicI64::new(start.0)),
        }
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
        };
        Timestamp(self.floor.fetch_max(read, Ordering::AcqRel).max(read))
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
                tokio::time::sleep(Duration::from_millis(left.0).min(NAP_MAX)).await;
            },
            Source::Manual { now, .. } => {
                let mut changes = now.subscribe();
                // The sender lives in `self`, so waiting cannot fail.
                let _ = changes.wait_for(|now| *now >= at.0).await;
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
            Source::Manual { draws, .. } => {
                let (_, tail) = out.split_at_mut(8);
                tail.copy_from_slice(&draws.fetch_add(1, Ordering::Relaxed).to_be_bytes());
            }
        }
        Ok(out)
    }
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
