//! What executor and server say to each other beside the recovery protocol.

use serde::{Deserialize, Serialize};

/// The param of an executor's task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TaskParam {
    /// Carry out a decided plan.
    Commit(CommitParam),
    /// Prove that it is over.
    Converge(ConvergeParam),
    /// Sign the end of the incident's records.
    Seal(SealParam),
}

/// An executor gives a task back: `POST /given-back`. The answer is 200 when the task has ended with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenBack {
    /// The task.
    pub task: String,
    /// The version at which it was held.
    pub version: u64,
    /// The stable code of the reason.
    pub code: String,
    /// The reason, in words.
    pub why: String,
    /// Whether no other executor could do better.
    pub is_final: bool,
}

/// Carry out a decided plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitParam {
    /// The incident.
    pub incident: String,
    /// The revision.
    pub revision: u32,
    /// Log index of the decision.
    pub decision_index: u64,
    /// Its envelope.
    pub decision: String,
    /// Digest of the world it was checked against.
    pub world: String,
    /// Digest of the plan.
    pub plan: String,
    /// Digest of what the preview was true of.
    pub bound: String,
    /// Epoch of the scope lease.
    pub epoch: u64,
    /// Waits between questions about an unknown outcome, in milliseconds.
    pub backoff_ms: Vec<u64>,
    /// Worse for so long is a regression.
    pub regression_for_ms: u64,
    /// When it began.
    pub onset_ms: i64,
}

/// Prove that it is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvergeParam {
    /// The incident.
    pub incident: String,
    /// Digest of the plan.
    pub plan: String,
    /// Services the plan changed.
    pub writes: Vec<String>,
    /// Good samples in a row.
    pub samples: u64,
    /// Between samples.
    pub every_ms: u64,
    /// Time for it.
    pub deadline_ms: u64,
    /// When it began.
    pub onset_ms: i64,
    /// Length of the time before the onset that counts as normal.
    pub baseline_ms: u64,
    /// When the first step began.
    pub commit_began_ms: i64,
}

/// Sign the end of the incident's records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealParam {
    /// The incident.
    pub incident: String,
    /// Log index of the first record.
    pub first: u64,
    /// Log index of the last record.
    pub last: u64,
    /// Digests of the statements, in order.
    pub statements: Vec<String>,
    /// Size of the log under the checkpoint.
    pub checkpoint_size: u64,
    /// Its root.
    pub checkpoint_root: String,
    /// Whether the fault scope grew.
    pub grew: bool,
    /// Expected time of the commit.
    pub forecast_ms: u64,
    /// Measured.
    pub measured_ms: u64,
    /// The outcome in one word.
    pub outcome: String,
}

/// Where an incident's chain ends, and what the kernel wrote so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Number of the incident's next record.
    pub seq: u64,
    /// Digest of the last one.
    pub prev: Option<String>,
    /// The kernel's journal of the plan asked for, each a canonical object in base64.
    pub journal: Vec<String>,
}

/// `POST /records`: records of one task's holder, in one transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posted {
    /// The incident.
    pub incident: String,
    /// The task that the sender holds.
    pub task: String,
    /// At this version.
    pub version: u64,
    /// Epoch of the scope lease, where the task acts under one.
    #[serde(default)]
    pub epoch: Option<u64>,
    /// Envelopes, in order.
    pub records: Vec<String>,
    /// Digests of blobs are not enough for what the records name: the blobs in base64.
    #[serde(default)]
    pub blobs: Vec<String>,
}

/// Why records were not taken; the body of a 409.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotTaken {
    /// Why.
    pub why: Refusal,
    /// In words.
    pub text: String,
}

/// Why records were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// A hold covers the scope.
    Held,
    /// The task or the scope lease belongs to somebody else now.
    Fenced,
    /// The chain ends elsewhere: read it and sign again.
    Chain,
    /// Not a record that this task's holder may send.
    Refused,
    /// The store does not take writes: send again.
    Unavailable,
}

/// The target of step tasks: their executor acquires them by name.
pub const STEPS: &str = "poll://any@steps";
/// The target of an executor's tasks.
pub const EXECUTOR: &str = "poll://any@executor";
