//! Pauses: between attempts, and between heartbeats.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

/// The first pause before a lost stream is opened again; doubles up to [`BACKOFF_MAX`].
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// LIMIT: the longest pause between two attempts.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A jittered pause is shorter by less than this part of it.
const JITTER_PERCENT: u64 = 20;

/// The pause after the next failure.
pub(crate) fn longer(pause: Duration) -> Duration {
    (pause * 2).min(BACKOFF_MAX)
}

/// A pause of at most this length, shorter by up to a fifth, so that workers that began together do not go on together.
///
/// WHY: drawn from the worker's name instead of at random. Workers have different names, which is all that is needed,
/// and a simulated run stays the same every time.
pub(crate) fn jittered(pause: Duration, name: &str, number: u64) -> Duration {
    let mut hasher = DefaultHasher::new();
    (name, number).hash(&mut hasher);
    let less = u32::try_from(hasher.finish() % (JITTER_PERCENT * 10)).unwrap_or(0);
    pause * (1_000 - less) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses: Vec<Duration> =
            std::iter::successors(Some(BACKOFF_MIN), |last| Some(longer(*last))).take(9).collect();
        assert_eq!(pauses[1], 2 * BACKOFF_MIN);
        assert_eq!(pauses[6..], [BACKOFF_MAX; 3]);
    }

    #[test]
    fn workers_that_began_together_beat_apart() {
        let half = Duration::from_secs(30);
        let pauses: BTreeSet<Duration> = (0..50).map(|worker| jittered(half, &format!("w{worker}"), 1)).collect();
        assert!(pauses.len() > 40, "{} of 50 differ", pauses.len());
        assert!(pauses.iter().all(|pause| *pause <= half && *pause > half * 4 / 5), "{pauses:?}");
        assert_ne!(jittered(half, "w", 1), jittered(half, "w", 2));
        assert_eq!(jittered(half, "w", 1), jittered(half, "w", 1));
    }
}
