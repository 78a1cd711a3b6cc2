//! The bodies of the records; a record names others by the digest of their statement, and blobs, plans
//! and policies by the digest of their canonical bytes.

use super::{Pilot, Record, Subject};
use crate::Render;
use base::canon::{Canon, Error, Value};
use base::{Digest, Millis, Ratio, Timestamp};
use recovery::call::CallOutcome;
use std::collections::BTreeMap;

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Param {
    /// A number in the parameter's unit.
    Integer(i64),
    /// A word.
    Text(String),
    /// A switch.
    Flag(bool),
}

/// Bytes that this crate does not look into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opaque(pub Vec<u8>);

body! {
    /// A target and the digest of its configuration, or of its binary or image.
    pub struct TargetDigest {
        /// The target.
        1 pub target: String,
        /// Its digest.
        2 pub digest: Digest,
        /// An attestation of it.
        3 pub attestation: Option<Digest>,
    }
}

body! {
    /// What a record was true of: configuration, topology, binaries, epochs.
    pub struct Bound {
        /// Configuration of each target.
        1 pub config: Vec<TargetDigest>,
        /// The incident's slice of the topology.
        2 pub topology: Digest,
        /// Binary or image of each target.
        3 pub provenance: Vec<TargetDigest>,
        /// Epoch of the topology.
        4 pub topology_epoch: u64,
        /// Version of each target.
        5 pub versions: BTreeMap<String, u64>,
    }
}

words! {
    /// An observer's answer.
    pub enum Answer {
        /// Something is wrong.
        Impaired = 1 "impaired",
        /// All is well.
        Healthy = 2 "healthy",
        /// It cannot say.
        Unknown = 3 "unknown",
    }
}

body! {
    /// One observer's answer about a scope.
    pub struct Vote {
        /// Who looked.
        1 pub observer: String,
        /// In which failure domain it stands.
        2 pub domain: String,
        /// The services asked about.
        3 pub scope: Vec<String>,
        /// What it says.
        4 pub answer: Answer,
        /// When it looked.
        5 pub sampled_at: Timestamp,
        /// Digests of the signals it read.
        6 pub signals: Vec<Digest>,
        /// What it saw, for people.
        7 pub note: String,
    }
}

body! {
    /// Something is wrong with a scope.
    pub struct Detection {
        /// What makes it the same incident: digest of the alert's identity.
        1 pub fingerprint: Digest,
        /// Start of the alert, rounded down.
        2 pub window_start: Timestamp,
        /// Incidents already sealed with the same two.
        3 pub n: u64,
        /// Statements of the votes.
        4 pub votes: Vec<Digest>,
        /// Failure domains that voted.
        5 pub domains: Vec<String>,
        /// Services in the fault scope.
        6 pub scope: Vec<String>,
        /// Weighted share of the universe that is impaired.
        7 pub fault: Ratio,
        /// Digests of the alerts.
        8 pub alerts: Vec<Digest>,
        /// The snapshot it was judged on.
        9 pub snapshot: Digest,
        /// When it began.
        10 pub since: Timestamp,
    }
}

words! {
    /// Why an intent exists.
    pub enum IntentReason {
        /// A detection.
        Detect = 1 "detect",
        /// A decision to change parameters.
        Mutation = 2 "mutation",
        /// A person, or the next attempt.
        Successor = 3 "successor",
    }
}

body! {
    /// What is broken and how far an action may reach.
    pub struct Scope {
        /// Services.
        1 pub services: Vec<String>,
        /// Shards.
        2 pub shards: Vec<String>,
        /// Tenant groups.
        3 pub tenants: Vec<String>,
        /// Failure domains.
        4 pub zones: Vec<String>,
        /// Weighted share that is impaired.
        5 pub fault: Ratio,
        /// Weighted share that is acted on.
        6 pub action: Ratio,
    }
}

body! {
    /// A parameter that may change, and how far.
    pub struct Mutable {
        /// Its name, for example `RateLimit.rate`.
        1 pub name: String,
        /// Smallest value.
        2 pub min: i64,
        /// Largest value.
        3 pub max: i64,
        /// Distance between values.
        4 pub step: i64,
        /// Whether larger values are the safer ones.
        5 pub safer_up: bool,
    }
}

body! {
    /// What the proposer says of its own plan. A claim can only tighten.
    #[derive(Default)]
    pub struct Claims {
        /// Whether every quorum keeps intersecting.
        1 pub quorum_safe: Option<bool>,
        /// Parts per million.
        2 pub pilot_risk_ppm: Option<u64>,
        /// Parts per million.
        3 pub contention_risk_ppm: Option<u64>,
        /// Milliseconds.
        4 pub estimated_delay_ms: Option<u64>,
    }
}

body! {
    /// What the observers said.
    pub struct Observers {
        /// Statements of the votes.
        1 pub votes: Vec<Digest>,
        /// Domains that must say impaired.
        2 pub k: u64,
        /// Domains that were asked.
        3 pub n: u64,
        /// One minus the larger camp's share.
        4 pub disagreement: Ratio,
    }
}

body! {
    /// The asking for a recovery.
    pub struct Intent {
        /// `int/<incident>/<revision>`.
        1 pub id: String,
        /// Counts up from 1.
        2 pub revision: u64,
        /// The intent it replaces.
        3 pub parent: Option<Digest>,
        /// Why it exists.
        4 pub reason: IntentReason,
        /// Recovery class.
        5 pub class: String,
        /// Highest tier among the targets.
        6 pub tier: String,
        /// What is broken.
        7 pub scope: Scope,
        /// Parameters by name.
        8 pub parameters: BTreeMap<String, Param>,
        /// Which of them may change.
        9 pub mutable: Vec<Mutable>,
        /// What the proposer claims.
        10 pub claims: Claims,
        /// What the observers said.
        11 pub observers: Observers,
        /// What it is true of.
        12 pub bound: Bound,
        /// Digests of alerts and traces.
        13 pub evidence: Vec<Digest>,
        /// Time for everything.
        14 pub t_budget: Millis,
        /// When that time began.
        15 pub started_at: Timestamp,
        /// Refused afterwards, never extended.
        16 pub expires_at: Timestamp,
    }
}

body! {
    /// A plan offered by an agent.
    pub struct Proposal {
        /// The plan.
        1 pub plan: Digest,
        /// Its revision in the incident.
        2 pub revision: u64,
        /// The plan it replaces.
        3 pub parent: Option<Digest>,
        /// Why: detect, pilot, rejection, mutation.
        4 pub cause: String,
        /// The agent's opinion, verbatim.
        5 pub opinion: Option<Digest>,
        /// What was said to and by it.
        6 pub transcript: Option<Digest>,
        /// The plan in words.
        7 pub text: String,
        /// How long it took.
        8 pub took: Millis,
    }
}

body! {
    /// An agent's objection; it blocks this plan only.
    pub struct Veto {
        /// The plan.
        1 pub plan: Digest,
        /// Why.
        2 pub reasons: Vec<String>,
        /// What it rests on.
        3 pub evidence: Vec<Digest>,
    }
}

body! {
    /// One refusal by the kernel.
    pub struct Rejection {
        /// Its K-code.
        1 pub code: String,
        /// The step.
        2 pub step: Option<String>,
        /// What is.
        3 pub observed: String,
        /// What would be allowed.
        4 pub bound: String,
    }
}

impl Rejection {
    /// The record of a refusal.
    #[must_use]
    pub fn of(refusal: &recovery::check::Rejection) -> Rejection {
        Rejection {
            code: refusal.code.to_string(),
            step: refusal.step.clone(),
            observed: refusal.observed.clone(),
            bound: refusal.bound.clone(),
        }
    }
}

body! {
    /// The kernel's verdict on a plan.
    pub struct Check {
        /// The plan.
        1 pub plan: Digest,
        /// The world it was checked against.
        2 pub world: Digest,
        /// The topology's slice.
        3 pub topology: Digest,
        /// Members of the recovery group.
        4 pub group: Vec<String>,
        /// Whether it was accepted.
        5 pub passed: bool,
        /// Why not.
        6 pub rejections: Vec<Rejection>,
        /// Version of the kernel.
        7 pub kernel: String,
    }
}

body! {
    /// A person's yes to one decision.
    pub struct Approval {
        /// The decision's statement.
        1 pub decision: Digest,
        /// The plan.
        2 pub plan: Digest,
        /// How the person was known: key, passkey, OIDC.
        3 pub method: String,
        /// What shows that.
        4 pub evidence: Option<Digest>,
        /// In the person's words.
        5 pub reason: String,
        /// Not usable afterwards.
        6 pub expires_at: Timestamp,
    }
}

body! {
    /// A person's no to one decision.
    pub struct Denial {
        /// The decision's statement.
        1 pub decision: Digest,
        /// The plan.
        2 pub plan: Digest,
        /// How the person was known.
        3 pub method: String,
        /// In the person's words.
        4 pub reason: String,
    }
}

words! {
    /// How closely real effects are compared with previewed ones.
    pub enum GuardMode {
        /// Effect by effect.
        Full = 1 "full",
        /// Receipts only.
        Coarse = 2 "coarse",
    }
}

body! {
    /// The last re-check before the first effect.
    pub struct Arm {
        /// The decision's statement.
        1 pub decision: Digest,
        /// The plan.
        2 pub plan: Digest,
        /// As it is now.
        3 pub bound: Bound,
        /// Version of the hold state.
        4 pub hold_version: u64,
        /// The scope lease.
        5 pub lease: String,
        /// Its epoch.
        6 pub epoch: u64,
        /// The commit task.
        7 pub task: String,
        /// Its version.
        8 pub task_version: u64,
        /// How effects are compared.
        9 pub guard: GuardMode,
    }
}

body! {
    /// One line of the kernel's journal.
    pub struct Journal {
        /// The plan.
        1 pub plan: Digest,
        /// Place in the journal, from 0.
        2 pub line: u64,
        /// Intend, Did, … as the kernel names it.
        3 pub event: String,
        /// The step.
        4 pub step: Option<String>,
        /// The kernel's own bytes.
        5 pub entry: Opaque,
        /// The commit task.
        6 pub task: String,
        /// Its version.
        7 pub task_version: u64,
        /// Epoch of the scope lease.
        8 pub epoch: u64,
    }
}

body! {
    /// What became of a step.
    pub struct Receipt {
        /// The plan.
        1 pub plan: Digest,
        /// The step.
        2 pub step: String,
        /// Digest of the state before.
        3 pub pre_image: Digest,
        /// Idempotency key.
        4 pub key: String,
        /// Version of the task that performed it.
        5 pub task_version: u64,
        /// Which actuator.
        6 pub actuator: String,
        /// What became of it.
        7 pub outcome: CallOutcome,
        /// The platform's own id of the operation.
        8 pub audit_id: Option<String>,
        /// The guard's words.
        9 pub guard: String,
    }
}

body! {
    /// What became of undoing a step.
    pub struct Compensation {
        /// The plan.
        1 pub plan: Digest,
        /// The step undone.
        2 pub undoes: String,
        /// Digest of the state restored.
        3 pub pre_image: Digest,
        /// Idempotency key.
        4 pub key: String,
        /// Version of the task that performed it.
        5 pub task_version: u64,
        /// Which actuator.
        6 pub actuator: String,
        /// What became of it.
        7 pub outcome: CallOutcome,
        /// The platform's own id of the operation.
        8 pub audit_id: Option<String>,
    }
}

body! {
    /// One check of convergence.
    pub struct Converged {
        /// Its name, for example `slo`.
        1 pub name: String,
        /// Measured.
        2 pub value: i64,
        /// Allowed.
        3 pub bound: i64,
        /// Of both.
        4 pub unit: String,
        /// Consecutive samples within the bound.
        5 pub samples: u64,
        /// When the last was taken.
        6 pub at: Timestamp,
        /// Whether it is met.
        7 pub met: bool,
    }
}

words! {
    /// How an execution ended.
    pub enum ConvergenceOutcome {
        /// Everything met.
        Converged = 1 "converged",
        /// The deadline passed.
        Not = 2 "not",
        /// Undone.
        Undone = 3 "undone",
    }
}

body! {
    /// Whether the system is well again.
    pub struct Convergence {
        /// The plan.
        1 pub plan: Digest,
        /// Each check.
        2 pub checks: Vec<Converged>,
        /// Services still impaired.
        3 pub scope_after: Vec<String>,
        /// Requests failed beyond the baseline since the first step.
        4 pub harm: i64,
        /// How it ended.
        5 pub outcome: ConvergenceOutcome,
        /// How long it took.
        6 pub took: Millis,
    }
}

body! {
    /// The end of an incident's records.
    pub struct Seal {
        /// Log index of the incident's first record.
        1 pub first: u64,
        /// Log index of its last record before this one.
        2 pub last: u64,
        /// Statements of all of them, in order.
        3 pub statements: Vec<Digest>,
        /// Size of the log that the checkpoint covers.
        4 pub checkpoint_size: u64,
        /// Its root.
        5 pub checkpoint_root: Digest,
        /// Whether the fault scope grew.
        6 pub grew: bool,
        /// Forecast and measured time of the commit.
        7 pub forecast_ms: u64,
        /// Measured.
        8 pub measured_ms: u64,
        /// The incident's outcome in one word.
        9 pub outcome: String,
    }
}

words! {
    /// What an exception permits.
    pub enum ExceptionKind {
        /// Skip the preview.
        Bypass = 1 "bypass",
        /// Go on although named checks fired.
        Accept = 2 "accept",
        /// Confirm what was done while signers were away.
        Countersign = 3 "countersign",
    }
}

body! {
    /// A bypass or an override.
    pub struct Exception {
        /// What it permits.
        1 pub kind: ExceptionKind,
        /// The intent's or decision's statement.
        2 pub of: Digest,
        /// Why.
        3 pub reason: String,
        /// Services.
        4 pub scope: Vec<String>,
        /// Codes skipped or accepted.
        5 pub skipped: Vec<String>,
        /// Not usable afterwards.
        6 pub expires_at: Timestamp,
        /// To be reviewed before.
        7 pub review_by: Timestamp,
    }
}

body! {
    /// A freeze.
    pub struct Hold {
        /// The scope, or `all`.
        1 pub scope: String,
        /// Version of the hold state.
        2 pub version: u64,
        /// Why.
        3 pub reason: String,
        /// Whether open steps are undone.
        4 pub undo: bool,
        /// Who placed it, as they said; the signature says whose key it was.
        5 pub by: Option<String>,
    }
}

body! {
    /// The end of a freeze.
    pub struct Resume {
        /// The scope, or `all`.
        1 pub scope: String,
        /// Version of the hold state.
        2 pub version: u64,
        /// Why.
        3 pub reason: String,
        /// Who lifted it, as they said; the signature says whose key it was.
        4 pub by: Option<String>,
    }
}

body! {
    /// The active policy.
    pub struct PolicyChange {
        /// Its name.
        1 pub name: String,
        /// Digest of its canonical bytes.
        2 pub digest: Digest,
        /// Digest of its text.
        3 pub text: Digest,
        /// The policy it replaces.
        4 pub previous: Option<Digest>,
    }
}

body! {
    /// Something is missing from the log, and said so.
    pub struct Gap {
        /// First log index concerned.
        1 pub from: u64,
        /// Last log index concerned.
        2 pub to: u64,
        /// Why.
        3 pub cause: String,
    }
}

impl Canon for Param {
    fn to_value(&self) -> Value {
        match self {
            Param::Integer(number) => number.to_value(),
            Param::Text(text) => text.to_value(),
            Param::Flag(flag) => flag.to_value(),
        }
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        match value {
            Value::Signed(number) => Ok(Param::Integer(number)),
            Value::Text(text) => Ok(Param::Text(text)),
            Value::Bool(flag) => Ok(Param::Flag(flag)),
            _ => Err(Error::WrongType),
        }
    }
}

impl Render for Param {
    fn render(&self) -> serde_json::Value {
        match self {
            Param::Integer(number) => (*number).into(),
            Param::Text(text) => text.as_str().into(),
            Param::Flag(flag) => (*flag).into(),
        }
    }
}

impl Canon for Opaque {
    fn to_value(&self) -> Value {
        Value::Bytes(self.0.clone())
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        if let Value::Bytes(bytes) = value { Ok(Opaque(bytes)) } else { Err(Error::WrongType) }
    }
}

impl Render for Opaque {
    fn render(&self) -> serde_json::Value {
        crate::render::hex(&self.0).into()
    }
}

impl Bound {
    /// The digest by which two readings are compared.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_object("bound", self)
    }
}

impl Record {
    /// What the record is about; part of what is signed, and derived so that it cannot disagree.
    #[must_use]
    pub fn subjects(&self) -> Vec<Subject> {
        let one = |name: &str, digest: Digest| vec![Subject { name: name.to_owned(), digest }];
        match self {
            Record::Vote(vote) => scope_subject(&vote.scope),
            Record::Detection(detection) => one("topology", detection.snapshot),
            Record::Intent(intent) => {
                let configs = intent.bound.config.iter();
                let configs = configs.map(|of| Subject { name: format!("config/{}", of.target), digest: of.digest });
                one("topology", intent.bound.topology).into_iter().chain(configs).collect()
            }
            Record::Proposal(Proposal { plan, .. })
            | Record::Veto(Veto { plan, .. })
            | Record::Check(Check { plan, .. })
            | Record::Pilot(Pilot { plan, .. })
            | Record::Journal(Journal { plan, .. })
            | Record::Receipt(Receipt { plan, .. })
            | Record::Compensation(Compensation { plan, .. })
            | Record::Convergence(Convergence { plan, .. }) => one("plan", *plan),
            Record::Decision(decision) => decision.plan.map_or_else(Vec::new, |plan| one("plan", plan)),
            Record::Estimate(estimate) => {
                one(&format!("estimate/{}", estimate.name), Digest::of_object("estimate", estimate))
            }
            Record::Approval(Approval { decision, .. })
            | Record::Denial(Denial { decision, .. })
            | Record::Arm(Arm { decision, .. }) => one("decision", *decision),
            Record::Seal(seal) => one("log", seal.checkpoint_root),
            Record::Exception(exception) => one("record", exception.of),
            Record::Hold(Hold { scope, .. }) | Record::Resume(Resume { scope, .. }) => {
                scope_subject(std::slice::from_ref(scope))
            }
            Record::Keyring(keyring) => one("keyring", Digest::of_object("keyring", keyring)),
            Record::PolicyChange(policy) => one("policy", policy.digest),
            Record::Gap(gap) => one("gap", Digest::of_object("gap", gap)),
        }
    }
}

fn scope_subject(scope: &[String]) -> Vec<Subject> {
    let digest = Digest::of_object("scope", &scope.to_vec());
    vec![Subject { name: format!("scope/{}", scope.join(",")), digest }]
}

/// The incident's id: lower-case base32 of the first 130 bits of the digest of its identity, so that a
/// second detector of the same fault names the same incident.
#[must_use]
pub fn incident_id(fingerprint: Digest, window_start: Timestamp, n: u64) -> String {
    let identity = Value::Record(vec![(1, fingerprint.to_value()), (2, window_start.to_value()), (3, n.to_value())]);
    let Digest(bytes) = Digest::of_object("incident", &identity);
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| usize::from(byte >> (7 - at % 8)) & 1);
    let letter = |group: usize| (0..5).fold(0, |sum, place| sum * 2 + bit(group * 5 + place));
    (0..26).filter_map(|group| ALPHABET.get(letter(group)).copied()).map(char::from).collect()
}

/// The start of the window an alert falls in.
#[must_use]
pub fn window_start(alert: Timestamp, round: Millis) -> Timestamp {
    let round = i64::try_from(round.0.max(1)).unwrap_or(i64::MAX);
    Timestamp(alert.0.div_euclid(round).saturating_mul(round))
}
