use super::*;
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Normal};

#[test]
fn upper_limits_are_the_tightest_on_the_grid_that_cover() {
    for n in [1_u64, 2, 7, 59, 192, 500, 768, 3_072, 50_000] {
        for k in [0_u64, 1, 3, 17, n / 2, n.saturating_sub(1)].into_iter().filter(|k| *k < n) {
            for alpha in [1_000, 8_333, 25_000, 50_000] {
                let found = cp_upper(k, n, alpha).ppm();
                let tail = |ppm: u32| Binomial::new(f64::from(ppm) / 1e6, n).unwrap().cdf(k) * 1e6;
                assert!(tail(found) <= f64::from(alpha) * (1.0 + 1e-7), "{k} of {n} at {alpha}: {found} is too low");
                assert!(
                    tail(found - 1) > f64::from(alpha) * (1.0 - 1e-7),
                    "{k} of {n} at {alpha}: {found} is too high"
                );
            }
        }
    }
}

#[test]
fn documented_values() {
    // Four growths in 490 runs: 0.8% [0.2, 2.1].
    let (low, high) = cp_interval(4, 490, 50_000);
    assert_eq!((low.ppm() / 1_000, high.ppm().div_ceil(1_000)), (2, 21));
    // Clean runs needed for a ceiling.
    for (ceiling, runs) in [(100_000, 29), (50_000, 59), (25_000, 119), (10_000, 299)] {
        assert!(cp_upper(0, runs, 50_000).ppm() <= ceiling);
        assert!(cp_upper(0, runs - 1, 50_000).ppm() > ceiling);
    }
}

#[test]
fn lower_limits_mirror_upper_ones_and_extremes_say_nothing() {
    assert_eq!(cp_lower(0, 10, 50_000), Ratio::ZERO);
    assert_eq!((cp_upper(10, 10, 50_000), cp_upper(0, 0, 50_000)), (Ratio::ONE, Ratio::ONE));
    assert_eq!((cp_lower(3, 0, 50_000), cp_upper(0, 10, 0)), (Ratio::ZERO, Ratio::ONE));
    for (k, n) in [(1, 10), (10, 10), (486, 490), (59, 59)] {
        let found = cp_lower(k, n, 50_000).ppm();
        let tail = |ppm: u32| 1.0 - Binomial::new(f64::from(ppm) / 1e6, n).unwrap().cdf(k - 1);
        assert!(tail(found) <= 0.05 + 1e-9 && tail(found + 1) > 0.05 - 1e-9, "{k} of {n}: {found}");
    }
}

#[test]
fn newcombe_agrees_with_its_definition() {
    let z = Normal::new(0.0, 1.0).unwrap().inverse_cdf(0.975);
    let wilson = |k: f64, n: f64| {
        let (p, half) = (k / n, z * ((k / n) * (1.0 - k / n) / n + z * z / (4.0 * n * n)).sqrt());
        let scale = 1.0 + z * z / n;
        (p, (p + z * z / (2.0 * n) - half) / scale, (p + z * z / (2.0 * n) + half) / scale)
    };
    for (a, m, b, n) in [(9_u32, 10_u32, 3_u32, 10_u32), (56, 70, 48, 80), (0, 40, 0, 900), (30, 30, 1, 4_000)] {
        let ((p, l, u), (q, m_low, m_high)) = (wilson(a.into(), m.into()), wilson(b.into(), n.into()));
        let low = p - q - ((p - l).powi(2) + (m_high - q).powi(2)).sqrt();
        let high = p - q + ((u - p).powi(2) + (q - m_low).powi(2)).sqrt();
        let (found_low, found_high) = newcombe(a.into(), m.into(), b.into(), n.into());
        assert!((found_low as f64 / 1e6 - low).abs() < 4e-6, "{found_low} {low}");
        assert!((found_high as f64 / 1e6 - high).abs() < 4e-6, "{found_high} {high}");
    }
    assert_eq!(newcombe(0, 0, 1, 10), (-1_000_000, 1_000_000));
}
