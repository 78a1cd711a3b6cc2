//! Who gets the next request, and whether it may pass at all. Pure: time is an argument.

/// Smooth weighted round robin: over any stretch each target gets its share, and never all of it at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Wheel {
    credits: Vec<i64>,
}

/// A token bucket, refilled by the microsecond.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// Milli-requests per second, which are nanotokens per microsecond.
    rate_mrps: u64,
    /// Nanotokens it holds at most.
    capacity: u64,
    /// Nanotokens in it.
    level: u64,
    /// Microseconds of the clock when it was last filled.
    filled_at: u64,
}

/// One token in nanotokens.
const TOKEN: u64 = 1_000_000_000;

impl Wheel {
    /// The index of the next target, by weight; `None` if all weights are 0.
    pub(super) fn next(&mut self, weights: &[i64]) -> Option<usize> {
        if self.credits.len() != weights.len() {
            self.credits = vec![0; weights.len()];
        }
        let total: i64 = weights.iter().sum();
        if total <= 0 {
            return None;
        }
        for (credit, weight) in self.credits.iter_mut().zip(weights) {
            *credit += weight;
        }
        let best = (0..weights.len())
            .filter(|index| weights.get(*index).is_some_and(|weight| *weight > 0))
            .max_by_key(|index| (self.credits.get(*index).copied(), std::cmp::Reverse(*index)))?;
        if let Some(credit) = self.credits.get_mut(best) {
            *credit -= total;
        }
        Some(best)
    }

    /// Forgets its credits: the targets are others now.
    pub(super) fn reset(&mut self) {
        self.credits.clear();
    }
}

impl Bucket {
    /// A full bucket. It holds what the rate admits in 100 ms, at least one token.
    pub(super) fn new(rate_mrps: i64, now_us: u64) -> Bucket {
        let rate_mrps = u64::try_from(rate_mrps).unwrap_or(0);
        // A tenth of a second is 100,000 µs, at `rate_mrps` nanotokens each.
        let capacity = if rate_mrps == 0 { 0 } else { rate_mrps.saturating_mul(100_000).max(TOKEN) };
        Bucket { rate_mrps, capacity, level: capacity, filled_at: now_us }
    }

    /// Takes a token if there is one.
    pub(super) fn admit(&mut self, now_us: u64) -> bool {
        let passed = now_us.saturating_sub(self.filled_at);
        self.filled_at = self.filled_at.max(now_us);
        self.level = self.level.saturating_add(passed.saturating_mul(self.rate_mrps)).min(self.capacity);
        let admitted = self.level >= TOKEN;
        if admitted {
            self.level -= TOKEN;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(wheel: &mut Wheel, weights: &[i64], count: usize) -> Vec<Option<usize>> {
        (0..count).map(|_| wheel.next(weights)).collect()
    }

    #[test]
    fn shares_follow_weights_smoothly() {
        let mut wheel = Wheel::default();
        let all = picks(&mut wheel, &[50, 100], 300);
        assert_eq!(all.iter().filter(|pick| **pick == Some(0)).count(), 100);
        for three in all.chunks(3) {
            assert_eq!(three.iter().filter(|pick| **pick == Some(0)).count(), 1, "{three:?}");
        }
    }

    #[test]
    fn weight_zero_gets_nothing_and_all_zero_nobody() {
        let mut wheel = Wheel::default();
        assert!(picks(&mut wheel, &[0, 100], 50).iter().all(|pick| *pick == Some(1)));
        assert_eq!(wheel.next(&[0, 0]), None);
        assert_eq!(wheel.next(&[]), None);
    }

    #[test]
    fn a_bucket_admits_its_rate_and_its_burst() {
        let mut bucket = Bucket::new(45_000, 0);
        let burst = (0..100).filter(|_| bucket.admit(0)).count();
        assert_eq!(burst, 4);
        let admitted = (1..=10_000).filter(|ms| bucket.admit(ms * 1_000)).count();
        assert!((449..=451).contains(&admitted), "{admitted}");
    }

    #[test]
    fn slow_rates_count_fractions_and_zero_admits_nothing() {
        let mut bucket = Bucket::new(500, 0);
        let admitted = (0..10_000_u64).filter(|ms| bucket.admit(ms * 1_000)).count();
        assert_eq!(admitted, 5);
        let mut closed = Bucket::new(0, 0);
        assert!(!(0..1_000).any(|second| closed.admit(second * 1_000_000)));
    }
}
