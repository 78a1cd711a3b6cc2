//! How much was never seen: counters whose surprises bound the unseen mass at any time one looks.
//!
//! Checkpoints stand at c_j = 64·4^j trials; window j is the 3·c_j trials after c_j. K_j counts trials of
//! window j that use an edge born after c_j. For trials drawn alike K_j is binomial in the unseen mass at
//! c_j, so an upper limit at level α / ((j+1)(j+2)) holds for all windows at once; and since unseen mass
//! only shrinks, the least of them bounds it now.

use crate::stats;
use base::{Millis, Ratio, Timestamp};

/// Trials before the first checkpoint.
pub const FIRST_CHECKPOINT: u64 = 64;
/// Checkpoints at most: 64·4^15 trials are never reached.
const WINDOWS_MAX: u32 = 16;

base::record! {
    /// One closed window.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Window {
        /// Which checkpoint it follows.
        1 pub index: u32,
        /// Trials in it.
        2 pub trials: u64,
        /// Trials that surprised.
        3 pub surprises: u64,
    }
}

base::record! {
    /// What a counter knows, as plain data.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Tally {
        /// Trials in all.
        1 pub trials: u64,
        /// Its closed windows, oldest first.
        2 pub windows: Vec<Window>,
        /// Edges used by exactly one trial.
        3 pub singles: u64,
    }
}

impl Tally {
    /// The upper bound of the unseen mass at level `alpha / union`; one without a closed window.
    #[must_use]
    pub fn bound(&self, alpha: Ratio, union: u64) -> Ratio {
        self.windows.iter().map(|window| window.bound(alpha, union)).min().unwrap_or(Ratio::ONE)
    }

    /// Surprises in the closed windows.
    #[must_use]
    pub fn surprises(&self) -> u64 {
        self.windows.iter().map(|window| window.surprises).sum()
    }

    /// Good–Turing estimate of the unseen mass; shown, never a gate.
    #[must_use]
    pub fn estimate(&self) -> Option<Ratio> {
        Ratio::up(self.singles.min(self.trials), self.trials)
    }
}

impl Window {
    fn bound(&self, alpha: Ratio, union: u64) -> Ratio {
        let index = f64::from(self.index);
        #[expect(clippy::cast_precision_loss, reason = "a plan uses a handful of counters")]
        let parts = (index + 1.0) * (index + 2.0) * union.max(1) as f64;
        stats::cp_upper_at(self.surprises, self.trials, f64::from(alpha.ppm()) / 1_000_000.0 / parts)
    }
}

/// A ticket for one trial: which window it belongs to and whether it has surprised already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    /// 0 before the first checkpoint, else window + 1.
    window: u8,
    surprised: bool,
    epoch: u16,
}

/// A running counter.
#[derive(Clone, Debug, Default)]
pub struct Counter {
    trials: u64,
    /// Birth number of the newest edge at each checkpoint passed, and when it was passed.
    births: Vec<(u64, Timestamp)>,
    surprises: Vec<u64>,
    /// How long after its trial a surprise may come to light.
    grace: Millis,
    /// Raised by every reset, so that tickets from before it count no more.
    epoch: u16,
}

impl Counter {
    /// A counter whose surprises may come to light as late as `grace` after their trial.
    #[must_use]
    pub fn new(grace: Millis) -> Counter {
        Counter { grace, ..Counter::default() }
    }

    /// Begins a trial; `newest` is the global birth number now. The trial that completes a checkpoint is the
    /// last one before it, so what the first trial of a window brings counts as unseen.
    pub fn trial(&mut self, newest: u64, now: Timestamp) -> Trial {
        let window = u32::try_from(self.births.len()).unwrap_or(WINDOWS_MAX);
        self.trials += 1;
        if window < WINDOWS_MAX && self.trials == checkpoint(window) {
            self.births.push((newest, now));
            self.surprises.push(0);
        }
        Trial { window: u8::try_from(window).unwrap_or(u8::MAX), surprised: false, epoch: self.epoch }
    }

    /// Reports that the trial used an edge with birth number `birth`.
    pub fn used(&mut self, trial: &mut Trial, birth: u64, now: Timestamp) {
        let known = trial.window.checked_sub(1).and_then(|index| self.births.get(usize::from(index)));
        if known.is_some_and(|(known, _)| birth > *known) {
            self.surprise(trial, now);
        }
    }

    /// Reports that something about the trial cannot be explained: a lost ancestor, an unmatched call.
    ///
    /// It counts in the trial's window, in the one of today, and in every window that closed so lately that
    /// the trial could have belonged to it had it come to light at once.
    pub fn surprise(&mut self, trial: &mut Trial, now: Timestamp) {
        if trial.surprised || trial.epoch != self.epoch {
            return;
        }
        trial.surprised = true;
        let last = self.surprises.len();
        for (count, index) in self.surprises.iter_mut().zip(1_usize..) {
            // A window closes when the next checkpoint is passed.
            let closed = self.births.get(index).map(|(_, at)| *at);
            let late = closed.is_some_and(|closed| now.since(closed) <= self.grace);
            if index == usize::from(trial.window) || index == last || late {
                *count += 1;
            }
        }
    }

    /// Forgets everything: what trials are drawn from has changed.
    pub fn reset(&mut self) {
        *self = Counter { epoch: self.epoch.wrapping_add(1), ..Counter::new(self.grace) };
    }

    /// Trials so far.
    #[must_use]
    pub fn trials(&self) -> u64 {
        self.trials
    }

    /// What it knows: the windows that are complete. `singles` is the number of edges used by one trial only.
    #[must_use]
    pub fn tally(&self, singles: u64) -> Tally {
        let indexed = self.surprises.iter().zip(0_u32..);
        let closed = indexed.filter(|(_, index)| self.trials >= checkpoint(index + 1));
        let windows = closed.map(|(surprises, index)| {
            let trials = 3 * checkpoint(index);
            Window { index, trials, surprises: (*surprises).min(trials) }
        });
        Tally { trials: self.trials, windows: windows.collect(), singles }
    }
}

/// c_j = 64·4^j.
fn checkpoint(index: u32) -> u64 {
    FIRST_CHECKPOINT.saturating_mul(4_u64.saturating_pow(index))
}

#[cfg(test)]
mod tests;
