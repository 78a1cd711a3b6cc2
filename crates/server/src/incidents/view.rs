//! What a person or a program sees of an incident: the answer of `GET /incidents/{id}`.

use serde::{Deserialize, Serialize};

/// One incident, as far as it has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Its id: 26 characters of base32.
    pub incident: String,
    /// The service a person asked to recover.
    pub target: String,
    /// `committed`, `previewed`, `escalated`, `aborted`, `undone`, …; absent while it runs.
    pub outcome: Option<String>,
    /// The exit code of the command that follows it; absent while it runs.
    pub exit: Option<u8>,
    /// Name of the active policy.
    pub policy: String,
    /// The thirteen stages, with the time each took so far.
    pub stages: Vec<StageView>,
    /// Every plan revision and what the kernel said of it.
    pub revisions: Vec<RevisionView>,
    /// Every preview.
    pub pilots: Vec<PilotView>,
    /// The last decision.
    pub decision: Option<DecisionView>,
    /// The steps performed.
    pub commit: CommitView,
    /// Why the last executor gave its task back; absent if none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_back: Option<String>,
    /// The proof that it is over.
    pub convergence: Option<ConvergenceView>,
    /// Where the evidence is, once sealed.
    pub evidence: Option<EvidenceView>,
    /// Dependencies that its group had missed, `caller->callee`: noticed within `graph.falsify_within` of a restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missed: Vec<String>,
    /// The run in words, one line after the other.
    pub lines: Vec<String>,
}

/// One of the thirteen stages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageView {
    /// 1 to 13.
    pub n: u8,
    /// Its name.
    pub name: String,
    /// Milliseconds spent in it so far, all passes together.
    pub ms: u64,
}

/// One revision of the plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RevisionView {
    /// Counts from 1.
    pub n: u32,
    /// The plan's digest.
    pub digest: String,
    /// Who proposed it.
    pub source: String,
    /// Text form of the steps.
    pub plan: String,
    /// Why the kernel refused it; empty = admissible. The first one binds.
    pub rejections: Vec<RejectionView>,
}

/// One rejection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RejectionView {
    /// K-code.
    pub code: String,
    /// The step it is about.
    pub step: Option<String>,
    /// In words.
    pub text: String,
}

/// One preview.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PilotView {
    /// The revision previewed.
    pub revision: u32,
    /// `F0`.
    pub level: String,
    /// completed, inconclusive or void.
    pub result: String,
    /// Runs of the model.
    pub runs: u32,
    /// Milliseconds it took.
    pub ms: u64,
    /// Attempts per request at its worst, in permille.
    pub retries_permille: u64,
    /// The bound, in permille.
    pub retries_max_permille: u64,
    /// What it found to be over a bound, in words.
    pub findings: Vec<String>,
    /// What it cannot see, in words.
    pub not_modeled: Vec<String>,
}

/// One decision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DecisionView {
    /// Commit, MutateParameters, Escalate or Abort.
    pub outcome: String,
    /// The one reason, as a code; empty for Commit.
    pub binding: String,
    /// Every reason that fired.
    pub reasons: Vec<String>,
    /// `auto` or `approve`.
    pub authority: String,
    /// Probability that it makes things worse, upper bound, in parts per million.
    pub amplification_ppm: u32,
    /// The ceiling it was held to.
    pub ceiling_ppm: u32,
    /// The invariants: name and outcome.
    pub invariants: Vec<InvariantView>,
    /// Checks that passed only because the policy allows missing history.
    pub uncalibrated: Vec<String>,
}

/// One invariant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InvariantView {
    /// Its id.
    pub id: String,
    /// holds, violated or not-evaluable.
    pub outcome: String,
    /// Value, bound and margin, in words.
    pub text: String,
}

/// The commit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CommitView {
    /// Its steps.
    pub steps: Vec<StepView>,
    /// Executors that held the commit one after the other, with the time of their first record.
    pub executors: Vec<(String, i64)>,
    /// Whether an executor was killed in this run.
    pub executor_killed: bool,
    /// From its death to the successor's first record.
    pub takeover_ms: Option<u64>,
    /// Keys applied more than once, by the ledger and by the services' own start logs.
    pub repeated: u32,
}

/// One step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepView {
    /// Its key.
    pub key: String,
    /// Text form.
    pub text: String,
    /// done, failed, undone or running.
    pub state: String,
    /// Milliseconds from intent to done.
    pub ms: u64,
    /// When its intent was recorded.
    pub began_ms: i64,
}

/// The convergence proof.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConvergenceView {
    /// converged, not or undone.
    pub outcome: String,
    /// Each check in words.
    pub checks: Vec<String>,
    /// Milliseconds it took.
    pub ms: u64,
}

/// The sealed evidence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvidenceView {
    /// The file, once a command has saved it.
    pub file: String,
    /// SHA-256 of the bundle.
    pub digest: String,
    /// Whether this run verified it offline.
    pub verified: bool,
    /// Log entries in it.
    pub entries: u64,
}

/// Names of the thirteen stages, in order.
pub const STAGES: [&str; 13] = [
    "detect", "intent", "agents", "group", "check", "preview", "decide", "approve", "recheck", "commit", "undo",
    "converge", "seal",
];
