//! Seeded randomness (splitmix64): the same seed gives the same shop.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

/// A generator that many tasks share.
#[derive(Debug)]
pub(crate) struct Random(Mutex<u64>);

impl Random {
    /// A generator of its own for each name and number under one seed.
    pub(crate) fn new(seed: u64, name: &str, number: u64) -> Random {
        let hash = |state: u64, byte: u8| mix(state ^ u64::from(byte));
        Random(Mutex::new(name.bytes().fold(mix(seed ^ mix(number)), hash)))
    }

    /// Uniform in `low..=high`.
    pub(crate) fn between(&self, low: u64, high: u64) -> u64 {
        let width = high.saturating_sub(low).saturating_add(1);
        low + self.next() % width.max(1)
    }

    /// Uniform between two lengths of time, by the microsecond.
    pub(crate) fn time(&self, low_us: u64, high_us: u64) -> Duration {
        Duration::from_micros(self.between(low_us, high_us))
    }

    /// Exponential with the given mean: the gaps of a Poisson stream.
    pub(crate) fn gap(&self, mean: Duration) -> Duration {
        // 32 bits make a number in (0, 1]; its logarithm is finite.
        let bits = u32::try_from(self.next() >> 32).unwrap_or(u32::MAX);
        let uniform = (f64::from(bits) + 1.0) / (f64::from(u32::MAX) + 1.0);
        mean.mul_f64(-uniform.ln())
    }

    fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(*state)
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_names_differ() {
        let draw = |seed, name, number| {
            let random = Random::new(seed, name, number);
            (0..8).map(|_| random.between(85, 115)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, "payments", 0), draw(1, "payments", 0));
        assert_ne!(draw(1, "payments", 0), draw(1, "payments", 1));
        assert_ne!(draw(1, "payments", 0), draw(2, "payments", 0));
        assert!(draw(3, "cart", 9).iter().all(|drawn| (85..=115).contains(drawn)));
    }

    #[test]
    fn gaps_have_their_mean() {
        let random = Random::new(1, "load", 0);
        let total: Duration = (0..10_000).map(|_| random.gap(Duration::from_millis(10))).sum();
        assert!((95..=105).contains(&total.as_secs()), "{total:?}");
    }
}
