//! Draws by counting: the n-th draw of an entity is a function of (seed, run, entity, n), so that one
//! entity's draws do not depend on what others do.

const STRIDE: u64 = 0x9E37_79B9_7F4A_7C15;
const QUANTILES: usize = 1_024;
/// One, in the fixed point of the exponential table.
const ONE: u64 = 1 << 16;

/// The draws of one entity.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw {
    key: u64,
    count: u64,
}

/// Quantiles of the exponential distribution with mean one, 16 fractional bits.
#[derive(Clone, Debug)]
pub(super) struct Exponential(Vec<u32>);

impl Draw {
    pub(crate) fn new(seed: u64, run: u32, entity: u64) -> Draw {
        let key = mix(mix(seed ^ STRIDE).wrapping_add(u64::from(run)).wrapping_mul(STRIDE) ^ mix(entity));
        Draw { key, count: 0 }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.count = self.count.wrapping_add(1);
        mix(self.key.wrapping_add(self.count.wrapping_mul(STRIDE)))
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound);
        // The high half of a 64 by 64 bit product fits 64 bits.
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// One value of a sorted sample; 0 of an empty one.
    pub(super) fn pick(&mut self, sample: &[u32]) -> u32 {
        let index = usize::try_from(self.below(sample.len() as u64)).unwrap_or(0);
        sample.get(index).copied().unwrap_or(0)
    }
}

impl Exponential {
    pub(super) fn new() -> Exponential {
        let quantiles = (0..QUANTILES as u64).map(|i| minus_log(2 * i + 1, 2 * QUANTILES as u64));
        let raw: Vec<u64> = quantiles.collect();
        // The midpoints miss a little of the tail; scaling makes the mean exactly one.
        let mean = raw.iter().sum::<u64>() / QUANTILES as u64;
        Exponential(raw.iter().map(|value| u32::try_from(value * ONE / mean).unwrap_or(u32::MAX)).collect())
    }

    /// A waiting time with the given mean.
    pub(super) fn wait(&self, draw: &mut Draw, mean_us: u64) -> u64 {
        (u64::from(draw.pick(&self.0)) * mean_us) >> 16
    }
}

/// −ln(numerator / denominator) for 0 < numerator < denominator, 16 fractional bits, by squaring.
fn minus_log(numerator: u64, denominator: u64) -> u64 {
    let mut x = (u128::from(denominator) << 32) / u128::from(numerator);
    let mut log2: u64 = 0;
    while x >= 2 << 32 {
        x >>= 1;
        log2 += 1 << 32;
    }
    for bit in (0..32).rev() {
        x = (x * x) >> 32;
        if x >= 2 << 32 {
            x >>= 1;
            log2 += 1 << bit;
        }
    }
    // ln 2 with 32 fractional bits.
    let wide = (u128::from(log2) * 2_977_044_472) >> 48;
    u64::try_from(wide).unwrap_or(u64::MAX)
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_the_same_everywhere() {
        let mut draw = Draw::new(1, 2, 3);
        let first: Vec<u64> = (0..3).map(|_| draw.next()).collect();
        let golden = expect_test::expect!["[f418f2afec1d4c75, ee7653c7135e27f1, 1ac2afedf5ae7a69]"];
        golden.assert_eq(&format!("{first:x?}"));
        let small: Vec<u64> = (0..8).map(|_| draw.below(10)).collect();
        expect_test::expect!["[8, 3, 2, 1, 2, 4, 0, 5]"].assert_eq(&format!("{small:?}"));
    }

    #[test]
    fn waiting_times_are_exponential_with_the_asked_mean() {
        let (table, mut draw) = (Exponential::new(), Draw::new(7, 0, 0));
        let waits: Vec<u64> = (0..200_000).map(|_| table.wait(&mut draw, 10_000)).collect();
        let mean = waits.iter().sum::<u64>() / waits.len() as u64;
        assert!((9_900..10_100).contains(&mean), "{mean}");
        let beyond = waits.iter().filter(|wait| **wait > 10_000).count();
        assert!((72_000..75_200).contains(&beyond), "e^-1 of 200 000 is 73 576, not {beyond}");
    }
}
