use crate::model::draw::Draw;

/// A discrete power law: exponent in hundredths, and the largest value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Law {
    exponent: u32,
    most: u32,
}

/// How many services one calls, and how many call it. The largest values are such that the shape `paper` has a top
/// fan-out of about 113 and a top fan-in of about 74.
pub(super) const CALLEES: Law = Law { exponent: 220, most: 130 };
pub(super) const CALLERS: Law = Law { exponent: 200, most: 100 };

/// A truncated discrete power law to draw from.
pub(super) struct Power {
    /// Weight of all values up to and including the n-th.
    sums: Vec<u64>,
}

impl Power {
    /// P(k) ∝ k^(-exponent/100) for 1 <= k <= most.
    pub(super) fn new(exponent: u32, most: u32) -> Power {
        let mut sum = 0;
        let sums = (1..=most.max(1)).map(|value| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a weight of at most 2^40")]
            let weight = (f64::from(value).powf(-f64::from(exponent) / 100.0) * 1_099_511_627_776.0) as u64;
            sum += weight.max(1);
            sum
        });
        Power { sums: sums.collect() }
    }

    pub(super) fn draw(&self, draw: &mut Draw) -> u32 {
        let at = draw.below(self.sums.last().copied().unwrap_or(1));
        u32::try_from(self.sums.partition_point(|sum| *sum <= at)).unwrap_or(0) + 1
    }
}

/// `count` stubs of the services, as many of each as the law and the needed mean say, in random order.
pub(super) fn stubs(law: &Law, services: &[u32], count: u32, draw: &mut Draw) -> Vec<u32> {
    let power = Power::new(law.exponent, law.most);
    let drawn: Vec<(u32, u32)> = services.iter().map(|service| (*service, power.draw(draw))).collect();
    let all: u64 = drawn.iter().map(|(_, degree)| u64::from(*degree)).sum::<u64>().max(1);
    let mut stubs = Vec::with_capacity(count as usize);
    for (service, degree) in drawn {
        // Scaled to the needed mean, rounded at random.
        let scaled = u64::from(degree) * u64::from(count);
        let degree = scaled / all + u64::from(draw.below(all) < scaled % all);
        stubs.extend((0..degree).map(|_| service));
    }
    for at in (1..stubs.len()).rev() {
        let other = usize::try_from(draw.below(at as u64 + 1)).unwrap_or(0);
        stubs.swap(at, other);
    }
    stubs
}

/// A draw from Beta(0.3, 1), in parts per million and at least one.
pub(super) fn beta_ppm(draw: &mut Draw) -> u32 {
    let uniform = f64::from(u32::try_from(draw.next() >> 32).unwrap_or(0)) / f64::from(u32::MAX);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a million")]
    let ppm = (uniform.powf(1.0 / 0.3) * 1_000_000.0) as u32;
    ppm.clamp(1, 1_000_000)
}
