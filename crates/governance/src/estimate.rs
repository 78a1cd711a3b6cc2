//! Interval bounds from counts, as recorded estimates that anyone can recompute.

use crate::admission::{Growth, Measure};
use base::Ratio;
use recovery::stats::{cp_lower, cp_upper};

/// One-sided 95% bounds.
pub const ALPHA_PPM: u32 = 50_000;

/// Most cases an estimate may have; more are refused rather than summed.
pub const CASES_MAX: u64 = 1_000_000;

words! {
    /// How an estimate follows from its counts.
    pub enum Rule {
        /// One-sided upper Clopper–Pearson bound of k in n.
        Upper = 1 "upper",
        /// One-sided lower Clopper–Pearson bound of k in n.
        Lower = 2 "lower",
        /// The plain share k / n, rounded up.
        Share = 3 "share",
        /// One minus the lower quantile of Beta(1 + k, 1 + n - k): the risk after k good of n outcomes.
        Risk = 4 "risk",
    }
}

body! {
    /// A number with the counts it follows from.
    pub struct Estimate {
        /// What is estimated, for example `amplification`.
        1 pub name: String,
        /// How.
        2 pub rule: Rule,
        /// Cases that showed it.
        3 pub k: u64,
        /// All cases.
        4 pub n: u64,
        /// One minus the confidence.
        5 pub alpha: Ratio,
        /// The result.
        6 pub value: Ratio,
    }
}

impl Estimate {
    /// The estimate that follows from the counts; `None` for impossible counts.
    #[must_use]
    pub fn of(name: &str, rule: Rule, k: u64, n: u64) -> Option<Estimate> {
        let alpha = Ratio::clamped(u64::from(ALPHA_PPM));
        let value = compute(rule, k, n, ALPHA_PPM)?;
        Some(Estimate { name: name.to_owned(), rule, k, n, alpha, value })
    }

    /// The value computed again from the counts.
    #[must_use]
    pub fn recomputed(&self) -> Option<Ratio> {
        compute(self.rule, self.k, self.n, self.alpha.ppm())
    }
}

fn compute(rule: Rule, k: u64, n: u64, alpha_ppm: u32) -> Option<Ratio> {
    if k > n || n > CASES_MAX || !(1..1_000_000).contains(&alpha_ppm) {
        return None;
    }
    match rule {
        Rule::Upper => Some(cp_upper(k, n, alpha_ppm)),
        Rule::Lower => Some(cp_lower(k, n, alpha_ppm)),
        Rule::Share => Ratio::up(k, n),
        // The quantile of Beta(a, b) is the Clopper–Pearson lower bound of a in a + b - 1.
        Rule::Risk => Ratio::from_ppm(1_000_000 - cp_lower(k + 1, n + 1, alpha_ppm).ppm()),
    }
}

/// How often the fault grew in `n` model runs, with its upper bound; `None` for impossible counts.
#[must_use]
pub fn growth(k: u64, n: u64) -> Option<Growth> {
    let upper = Estimate::of("amplification", Rule::Upper, k, n).filter(|_| n > 0)?;
    Some(Growth { k, n, upper_ppm: u64::from(upper.value.ppm()), fix: None })
}

/// The risk that a clean preview is followed by a bad outcome, from own pairs. Too few pairs: pessimistic,
/// and marked as short unless a bad outcome was among them.
#[must_use]
pub fn pilot_risk(good: u64, bad: u64, pairs_min: u64) -> Measure {
    let cases = good.saturating_add(bad);
    let risk = Estimate::of("pilot_risk", Rule::Risk, good, cases).map(|estimate| u64::from(estimate.value.ppm()));
    Measure { ppm: risk, is_short: cases < pairs_min && bad == 0, cases }
}

/// The upper bound of the share of real commits that made it worse; short as long as even an unbroken
/// record of this length could not meet the ceiling.
#[must_use]
pub fn historic_amplification(worse: u64, commits: u64, ceiling: Ratio) -> Measure {
    if commits == 0 {
        return Measure { ppm: None, is_short: true, cases: 0 };
    }
    let bound = |k| Estimate::of("amplification", Rule::Upper, k, commits).map(|estimate| estimate.value);
    let is_short = worse == 0 && bound(0).is_some_and(|best| best > ceiling);
    Measure { ppm: bound(worse).map(|value| u64::from(value.ppm())), is_short, cases: commits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_examples_of_the_equations() {
        // No data: the risk is 95%, rounded against us.
        assert_eq!(pilot_risk(0, 0, 30), Measure { ppm: Some(950_001), is_short: true, cases: 0 });
        // A bad outcome is never "too little data".
        assert!(!pilot_risk(3, 1, 30).is_short);
        assert!(!pilot_risk(60, 0, 30).is_short && pilot_risk(60, 0, 30).ppm < Some(50_000));
        // Clean runs needed for a ceiling: 10% takes 29, 5% takes 59, 2.5% takes 119, 1% takes 299.
        for (ceiling, runs) in [(100_000, 29), (50_000, 59), (25_000, 119), (10_000, 299)] {
            assert!(growth(0, runs).unwrap().upper_ppm <= ceiling, "{runs}");
            assert!(growth(0, runs - 1).unwrap().upper_ppm > ceiling, "{runs}");
        }
        // 500 runs resolve 0.6%.
        assert!(growth(0, 500).unwrap().upper_ppm <= 6_000);
        assert_eq!((growth(2, 1), growth(0, 0)), (None, None));
    }

    #[test]
    fn a_history_is_short_only_while_it_could_still_be_good() {
        let ceiling = Ratio::clamped(50_000);
        assert_eq!(historic_amplification(0, 0, ceiling), Measure { ppm: None, is_short: true, cases: 0 });
        assert!(historic_amplification(0, 58, ceiling).is_short);
        assert!(!historic_amplification(0, 59, ceiling).is_short);
        assert!(!historic_amplification(1, 10, ceiling).is_short);
    }

    #[test]
    fn an_estimate_is_recomputed_from_its_counts() {
        let good = Estimate::of("x", Rule::Upper, 4, 490).unwrap();
        assert_eq!(good.recomputed(), Some(good.value));
        let forged = Estimate { k: 3, ..good.clone() };
        assert_ne!(forged.recomputed(), Some(forged.value));
        let most = |n: u64| Estimate::of("x", Rule::Share, 1, n).map(|share| share.value.ppm());
        assert_eq!((most(CASES_MAX), most(CASES_MAX + 1)), (Some(1), None));
        let huge = Estimate { n: u64::MAX, ..good };
        assert_eq!(huge.recomputed(), None);
    }
}
