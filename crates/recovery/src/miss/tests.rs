use super::*;

const NOW: Timestamp = Timestamp(1_000_000);

fn five_percent() -> Ratio {
    Ratio::clamped(50_000)
}

fn clean(trials: u64) -> Tally {
    let mut counter = Counter::default();
    for _ in 0..trials {
        counter.trial(1, NOW);
    }
    counter.tally(0)
}

#[test]
fn documented_bounds() {
    let alpha = five_percent();
    let percent = |trials, union| (clean(trials).bound(alpha, union).ppm() + 50) / 100;
    assert_eq!(clean(255).bound(alpha, 1), Ratio::ONE);
    assert_eq!([percent(256, 1), percent(256, 2), percent(256, 10)], [190, 226, 307]);
    assert_eq!([percent(1_024, 1), percent(1_024, 2), percent(1_024, 10)], [62, 71, 92]);
    assert_eq!([percent(4_096, 1), percent(4_096, 2), percent(4_096, 10)], [18, 20, 25]);
}

#[test]
fn every_trial_that_uses_a_new_edge_surprises_once() {
    let mut counter = Counter::default();
    for _ in 0..64 {
        counter.trial(5, NOW);
    }
    for _ in 0..192 {
        let mut trial = counter.trial(6, NOW);
        counter.used(&mut trial, 5, NOW);
        counter.used(&mut trial, 6, NOW);
        counter.surprise(&mut trial, NOW);
    }
    let tally = counter.tally(0);
    assert_eq!((tally.trials, tally.surprises()), (256, 192));
    assert_eq!(tally.bound(Ratio::ONE, 1), Ratio::ONE);
}

#[test]
fn a_late_surprise_counts_in_every_window_it_may_belong_to() {
    let mut counter = Counter::new(Millis(1_000));
    let mut kept: Vec<Trial> = (0..300).map(|_| counter.trial(1, NOW)).collect();
    let at = |ms| NOW.plus(Millis(ms));
    // Its own window and today's.
    counter.surprise(&mut kept[100], at(5_000));
    assert_eq!(counter.surprises, [1, 1]);
    // Long after the first window closed it can only be today's; shortly after, it may have been the first's.
    counter.surprise(&mut kept[290], at(5_000));
    assert_eq!(counter.surprises, [1, 2]);
    counter.surprise(&mut kept[291], at(900));
    assert_eq!(counter.surprises, [2, 3]);
    // A ticket from before a reset is void.
    counter.reset();
    counter.surprise(&mut kept[101], NOW);
    assert_eq!((counter.trials(), counter.surprises.len()), (0, 0));
}

/// Edges with known probabilities; the bound is looked at after every trial of every history.
#[test]
fn the_bound_holds_in_all_but_few_histories_however_often_one_looks() {
    let (mut failures, histories) = (0_u32, 10_000_u64);
    for seed in 1..=histories {
        failures += u32::from(breaks_the_bound(seed));
    }
    assert!(u64::from(failures) * 20 <= histories, "{failures} of {histories} histories broke the bound");
}

/// One history: 40 edges, each used by one trial in 2 000. Whether the bound was ever below the truth.
fn breaks_the_bound(seed: u64) -> bool {
    let mut draw = crate::model::draw::Draw::new(seed, 0, 0);
    let (each, edges) = (1.0 / 2_000.0, 40_u32);
    // The probability that a trial uses none of so many edges.
    let none: Vec<f64> = (0..=edges).map(|count| (1.0_f64 - each).powi(i32::try_from(count).unwrap())).collect();
    let (mut births, mut newest) = (vec![0_u64; edges as usize], 0);
    let (mut counter, mut seen) = (Counter::default(), 0_usize);
    let (mut known, mut bound) = (Vec::new(), 1.0);
    for at in 0..1_100 {
        let mut used = 0;
        // A trial that uses an edge uses one; two at once are too rare to matter, and would only help.
        let uniform = draw.below(1 << 32) as f64 / f64::from(u32::MAX);
        if uniform < 1.0 - none[edges as usize] {
            let edge = usize::try_from(draw.below(edges.into())).unwrap();
            if births[edge] == 0 {
                newest += 1;
                seen += 1;
                births[edge] = newest;
            }
            used = births[edge];
        }
        let mut trial = counter.trial(newest, Timestamp(at));
        counter.used(&mut trial, used, Timestamp(at));
        let tally = counter.tally(0);
        if tally.windows != known {
            bound = f64::from(tally.bound(five_percent(), 1).ppm()) / 1e6;
            known = tally.windows;
        }
        let unseen = (1.0 - none[edges as usize]) * (1.0 - seen as f64 / f64::from(edges));
        if !known.is_empty() && bound < unseen {
            return true;
        }
    }
    false
}

/// New edges never run out, so every window is an independent draw of the same unseen mass: the case in which
/// a bound that spends the whole error probability on each window fails far too often.
#[test]
fn looking_at_many_windows_does_not_spend_the_error_probability_twice() {
    let (mut failures, histories) = (0_u32, 500_u64);
    // 1.6% of 2^20.
    let (share, truth) = (16_777_u64, 16_777.0 / f64::from(1 << 20));
    for seed in 1..=histories {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let (mut counter, mut newest) = (Counter::default(), 0);
        for at in 0..64 * 256 {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let fresh = state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 44 < share;
            newest += u64::from(fresh);
            let mut trial = counter.trial(newest, Timestamp(at));
            counter.used(&mut trial, if fresh { newest } else { 0 }, Timestamp(at));
        }
        let tally = counter.tally(0);
        assert_eq!(tally.windows.len(), 4);
        failures += u32::from(f64::from(tally.bound(five_percent(), 1).ppm()) / 1e6 < truth);
    }
    assert!(u64::from(failures) * 20 <= histories, "{failures} of {histories} histories broke the bound");
}

#[test]
fn the_last_window_stays_open() {
    let mut counter = Counter { trials: checkpoint(WINDOWS_MAX - 1) - 1, ..Counter::default() };
    counter.births = vec![(1, NOW); WINDOWS_MAX as usize - 1];
    counter.surprises = vec![0; WINDOWS_MAX as usize - 1];
    counter.trial(1, NOW);
    assert_eq!(counter.births.len(), WINDOWS_MAX as usize);
    counter.trials = checkpoint(WINDOWS_MAX) - 1;
    let mut trial = counter.trial(2, NOW);
    assert_eq!(counter.births.len(), WINDOWS_MAX as usize, "no further window is opened");
    counter.used(&mut trial, 2, NOW);
    assert_eq!(counter.surprises.last(), Some(&1), "and what surprises now counts in the last one");
}
