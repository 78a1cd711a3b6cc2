//! Every point of one incident, with every process killed at it.

use crate::crash::{Crash, Edge, Kind, Victim};
use crate::incident::{Account, Setting, Story, run};
use crate::machine::{BuildError, memory_dir};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a matrix is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of everything random.
    pub seed: u64,
    /// What breaks.
    pub story: Story,
    /// Every how many-th point is taken; 1 = all of them.
    pub every: usize,
    /// Runs at the same time.
    pub jobs: usize,
    /// One kill alone, instead of the matrix.
    pub only: Option<Crash>,
}

/// What a matrix showed.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The run in which nobody was killed.
    pub calm: Account,
    /// One for each kill, in the order of the points.
    pub runs: Vec<Account>,
}

/// Keys and directory that every run of a matrix shares, so that the same run gives the same digest.
pub struct Keys(tempfile::TempDir);

impl Keys {
    /// New ones.
    ///
    /// # Errors
    /// No directory, or no randomness.
    pub fn new() -> Result<Keys, BuildError> {
        let dir = memory_dir()?;
        server::keys::init(dir.path())?;
        Ok(Keys(dir))
    }

    /// Where they lie.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        self.0.path()
    }
}

/// Every kill of every victim at every point that the calm run passed.
#[must_use]
pub fn points(calm: &Account) -> Vec<Crash> {
    let mut all = Vec::new();
    for (kind, count) in [(Kind::Write, calm.writes), (Kind::Actuation, calm.actuations)] {
        for n in 1..=count {
            for edge in [Edge::Before, Edge::After] {
                all.extend(Victim::ALL.map(|victim| Crash { victim, kind, n, edge }));
            }
        }
    }
    all
}

/// Runs the matrix; `tell` hears of every run as it ends, with how many have ended and how many there are.
///
/// # Errors
/// A machine could not be built.
pub fn matrix(options: &Options, tell: impl Fn(&Account, usize, usize) + Sync) -> Result<Matrix, BuildError> {
    let keys = Keys::new()?;
    let setting =
        Setting { seed: options.seed, story: options.story, keys: keys.path(), is_live: options.only.is_some() };
    let calm = run(&Setting { is_live: false, ..setting }, None)?;
    let crashes: Vec<Crash> = match options.only {
        Some(only) => vec![only],
        None => points(&calm).into_iter().step_by(options.every.max(1)).collect(),
    };
    let (next, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let runs = Mutex::new(Ok(BTreeMap::new()));
    let work = || {
        while let Some(crash) = crashes.get(next.fetch_add(1, Ordering::SeqCst)) {
            let account = run(&setting, Some(*crash));
            if let Ok(account) = &account {
                tell(account, ended.fetch_add(1, Ordering::SeqCst) + 1, crashes.len());
            }
            let mut runs = runs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match (account, runs.as_mut()) {
                (Ok(account), Ok(all)) => drop(all.insert(*crash, account)),
                (Err(error), Ok(_)) => *runs = Err(error),
                (_, Err(_)) => return,
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(work);
        }
    });
    let runs = runs.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)?;
    Ok(Matrix { calm, runs: runs.into_values().collect() })
}

impl Matrix {
    /// The runs in which something was wrong.
    #[must_use]
    pub fn failed(&self) -> Vec<&Account> {
        std::iter::once(&self.calm).chain(&self.runs).filter(|account| !account.faults.is_empty()).collect()
    }

    /// How many runs ended how, by victim.
    #[must_use]
    pub fn outcomes(&self) -> BTreeMap<(&'static str, &str), usize> {
        let mut counts = BTreeMap::new();
        for account in &self.runs {
            let victim = account.crash.map_or("nobody", |crash| crash.victim.word());
            *counts.entry((victim, account.outcome.as_str())).or_insert(0) += 1;
        }
        counts
    }
}
