//! Interval bounds from integer counts: the one routine that the graph's miss bound and the
//! governance equations use.
//!
//! Bounds are found by bisection on the ppm grid and rounded outward. Only float addition,
//! subtraction, multiplication and division are used, so every target computes the same bits.

use base::Ratio;

/// One-sided upper Clopper–Pearson limit of `k` successes in `n` trials: the least share on the ppm grid
/// at which seeing `k` or fewer has a probability of at most `alpha_ppm`. One when `n` is 0 or `k >= n`.
#[must_use]
pub fn cp_upper(k: u64, n: u64, alpha_ppm: u32) -> Ratio {
    cp_upper_at(k, n, f64::from(alpha_ppm) / PPM)
}

/// As [`cp_upper`] at level `alpha`, for levels that are not whole ppm (α / ((j+1)(j+2) m)).
#[must_use]
pub fn cp_upper_at(k: u64, n: u64, alpha: f64) -> Ratio {
    if n == 0 || k >= n || alpha.is_nan() || alpha <= 0.0 {
        return Ratio::ONE;
    }
    let (mut low, mut high) = (0_u32, 1_000_000_u32);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        // A hair below alpha, so that rounding of the tail can only widen the interval.
        if lower_tail(k, n, f64::from(middle) / PPM) <= alpha * SLACK {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ratio::from_ppm(high).unwrap_or(Ratio::ONE)
}

/// One-sided lower Clopper–Pearson limit: the greatest share on the ppm grid at which seeing `k` or more
/// has a probability of at most `alpha_ppm`. Zero when `k` or `n` is 0.
#[must_use]
pub fn cp_lower(k: u64, n: u64, alpha_ppm: u32) -> Ratio {
    if n == 0 || k == 0 {
        return Ratio::ZERO;
    }
    let k = k.min(n);
    // k or more successes at p are n - k or fewer failures at 1 - p.
    let mirrored = cp_upper(n - k, n, alpha_ppm).ppm();
    Ratio::clamped(u64::from(1_000_000 - mirrored))
}

/// Two-sided Clopper–Pearson interval at level `1 - alpha`.
#[must_use]
pub fn cp_interval(k: u64, n: u64, alpha_ppm: u32) -> (Ratio, Ratio) {
    // Half an odd level rounds down: a smaller level is a wider interval.
    (cp_lower(k, n, alpha_ppm / 2), cp_upper(k, n, alpha_ppm / 2))
}

/// 95% Newcombe interval of the difference `a/m - b/n`, in ppm of one, rounded outward; the whole range
/// when a sample is empty.
#[must_use]
pub fn newcombe(a: u64, m: u64, b: u64, n: u64) -> (i64, i64) {
    if m == 0 || n == 0 {
        return (-1_000_000, 1_000_000);
    }
    let (first, second) = (wilson(a.min(m), m), wilson(b.min(n), n));
    let difference = first.share - second.share;
    let below = root(square(first.share - first.low) + square(second.high - second.share));
    let above = root(square(first.high - first.share) + square(second.share - second.low));
    #[expect(clippy::cast_possible_truncation, reason = "the difference of two shares lies within -2..=2")]
    let outward = |low: f64, high: f64| (((low * PPM) as i64) - 1, ((high * PPM) as i64) + 1);
    let (low, high) = outward(difference - below, difference + above);
    (low.max(-1_000_000), high.min(1_000_000))
}

const PPM: f64 = 1_000_000.0;
const SLACK: f64 = 1.0 - 1e-9;
/// 97.5% quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// P(X <= k) for X ~ Binomial(n, p), 0 < p < 1.
fn lower_tail(k: u64, n: u64, p: f64) -> f64 {
    // Terms relative to P(X = k), summed downward, and separately the value of P(X = k): both by
    // multiplication only, the latter with its scale kept apart so that it cannot underflow early.
    let ratio = (1.0 - p) / p;
    let (mut term, mut sum) = (1.0_f64, 1.0_f64);
    let mut i = k;
    let mut scale = 0_i32;
    while i > 0 {
        term = term * (float(i) / float(n - i + 1)) * ratio;
        sum += term;
        if sum > HUGE {
            (term, sum, scale) = (term / HUGE, sum / HUGE, scale + 1);
        }
        if term < sum * 1e-18 && float(i) < p * float(n + 1) {
            break;
        }
        i -= 1;
    }
    product(k, n, p, sum, scale)
}

/// `sum * HUGE^scale * C(n, k) p^k (1-p)^(n-k)`, interleaving factors above and below one.
fn product(k: u64, n: u64, p: f64, sum: f64, mut scale: i32) -> f64 {
    let mut value = sum;
    for i in 1..=k {
        value = value * (float(n - k + i) / float(i)) * p;
        if value > HUGE {
            (value, scale) = (value / HUGE, scale + 1);
        } else if value < 1.0 / HUGE {
            (value, scale) = (value * HUGE, scale - 1);
        }
    }
    let (power, power_scale) = power(1.0 - p, n - k);
    value *= power;
    scale = scale.saturating_add(power_scale);
    while scale > 0 && value < HUGE {
        (value, scale) = (value * HUGE, scale - 1);
    }
    while scale < 0 && value > 0.0 {
        (value, scale) = (value / HUGE, scale + 1);
    }
    if value > 1.0 { 1.0 } else { value }
}

/// `base^exponent` for a base in (0, 1), as a number and a power of [`HUGE`].
fn power(base: f64, mut exponent: u64) -> (f64, i32) {
    let (mut result, mut result_scale) = (1.0_f64, 0_i32);
    let (mut square, mut square_scale) = (base, 0_i32);
    while exponent > 0 {
        if exponent % 2 == 1 {
            result *= square;
            result_scale = result_scale.saturating_add(square_scale);
            (result, result_scale) = rescaled(result, result_scale);
        }
        square *= square;
        square_scale = square_scale.saturating_mul(2);
        (square, square_scale) = rescaled(square, square_scale);
        exponent /= 2;
    }
    (result, result_scale)
}

fn rescaled(value: f64, scale: i32) -> (f64, i32) {
    if value < 1.0 / HUGE { (value * HUGE, scale.saturating_sub(1)) } else { (value, scale) }
}

/// 2^200, exact in a float and so are its multiples.
const HUGE: f64 = 1_606_938_044_258_990_275_541_962_092_341_162_602_522_202_993_782_792_835_301_376.0;

struct Wilson {
    share: f64,
    low: f64,
    high: f64,
}

fn wilson(k: u64, n: u64) -> Wilson {
    let (count, size) = (float(k), float(n));
    let share = count / size;
    let centre = share + Z * Z / (2.0 * size);
    let spread = Z * root(share * (1.0 - share) / size + Z * Z / (4.0 * size * size));
    let scale = 1.0 + Z * Z / size;
    Wilson { share, low: (centre - spread) / scale, high: (centre + spread) / scale }
}

fn square(value: f64) -> f64 {
    value * value
}

/// Square root by Newton's rule with a fixed number of steps; the argument is at most a few units.
fn root(value: f64) -> f64 {
    if value <= 0.0 {
        return 0.0;
    }
    let mut guess = if value > 1.0 { value } else { 1.0 };
    for _ in 0..80 {
        guess = 0.5 * (guess + value / guess);
    }
    guess
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53; beyond, the loss is below the ppm grid")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
