//! What a preview leaves behind.

use super::Bound;
use crate::invariants::Evaluation;
use crate::policy::Fidelity;
use base::{Digest, Millis, Ratio, Timestamp};
use std::collections::BTreeMap;

words! {
    /// How a preview ended.
    pub enum PilotResult {
        /// It saw what it had to see.
        Completed = 1 "completed",
        /// It saw too little.
        Inconclusive = 2 "inconclusive",
        /// It does not count.
        Void = 3 "void",
    }
}

words! {
    /// What a preview did that the plan did not announce.
    pub enum Divergence {
        /// Attempts beyond the edge's bound.
        ReplayStorm = 1 "replay-storm",
        /// Leaders or members changed too often.
        MembershipChurn = 2 "membership-churn",
        /// A distance falls, slowly.
        ConvergenceDelay = 3 "convergence-delay",
        /// Reads that end by themselves.
        Revalidation = 4 "revalidation",
        /// None of the known ones.
        Unexplained = 5 "unexplained",
    }
}

words! {
    /// What a preview worked on, and so could have disturbed.
    pub enum Touched {
        /// Nothing that exists: a model, or a request that was only checked. Escapes, residue, interference and
        /// becoming quiet do not apply, and are absent rather than zero.
        Nothing = 1 "nothing",
        /// A private clone.
        Clone = 2 "clone",
        /// The live path.
        Live = 3 "live",
    }
}

body! {
    /// What a preview saw.
    pub struct Pilot {
        /// How it ended.
        1 pub result: PilotResult,
        /// Why it did not complete.
        2 pub causes: Vec<String>,
        /// The intent's statement.
        3 pub intent: Digest,
        /// The plan.
        4 pub plan: Digest,
        /// Level of each step.
        5 pub levels: BTreeMap<String, Fidelity>,
        /// Digest of the effect tree.
        6 pub tree: Digest,
        /// Digest of the path lines.
        7 pub path: Digest,
        /// Blob of the whole report.
        8 pub report: Digest,
        /// Suppressed effects by kind.
        9 pub suppressed: BTreeMap<String, u64>,
        /// What it refused to do.
        10 pub refusals: Vec<String>,
        /// What escaped; must be empty. Absent: nothing was touched.
        11 pub escapes: Option<Vec<String>>,
        /// What the plan did not announce.
        12 pub divergences: Vec<Divergence>,
        /// Invariants during the runs.
        13 pub invariants: Vec<Evaluation>,
        /// Required signals: seen.
        14 pub signals_seen: Vec<String>,
        /// Required signals: missing, stale or single-sourced.
        15 pub signals_lacking: Vec<String>,
        /// Whether it became quiet before it ended. Absent: nothing was touched.
        16 pub quiet: Option<bool>,
        /// Objects left behind; must be 0. Absent: nothing was touched.
        17 pub residue: Option<u64>,
        /// Slow-down of live work, upper bound. Absent: nothing was touched, or it could not be measured.
        18 pub interference: Option<Ratio>,
        /// Runs that count.
        19 pub runs: u64,
        /// Seed of the runs.
        20 pub seed: u64,
        /// Which attempt.
        21 pub nonce: u64,
        /// Plain sentences about what it cannot see.
        22 pub not_modeled: Vec<String>,
        /// What it is true of.
        23 pub bound: Bound,
        /// When it ended.
        24 pub taken_at: Timestamp,
        /// How long it took.
        25 pub took: Millis,
        /// What it worked on.
        26 pub touched: Touched,
    }
}

impl Pilot {
    /// Whether what it says of itself can be true: who touches nothing has nothing to measure there and sees no
    /// more than a model or a dry run does; who touches something says what is left of it, and completes only in
    /// quiet; and none completes that lacked a signal.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        let is_completed = self.result == PilotResult::Completed;
        let is_measured = match self.touched {
            Touched::Nothing => {
                let is_silent = self.escapes.is_none() && self.residue.is_none() && self.quiet.is_none();
                let is_shallow = self.levels.values().all(|level| *level <= Fidelity::F1);
                is_silent && is_shallow && self.interference.is_none()
            }
            Touched::Clone | Touched::Live => {
                let is_swept = self.escapes.is_some() && self.residue.is_some();
                is_swept && (!is_completed || self.quiet == Some(true))
            }
        };
        is_measured && (!is_completed || self.signals_lacking.is_empty())
    }
}
