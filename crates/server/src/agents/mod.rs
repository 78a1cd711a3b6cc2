//! Agents: they are asked and recorded, and trusted for nothing. The built-in ones are deterministic and
//! need no network; others are asked over HTTP. An answer that does not parse, or comes late, is *unknown*.

mod http;
mod rules;
mod worker;

pub use http::{Http, Way, ask};
pub use rules::{diagnose, propose, verify};
pub use worker::{AGENTS, Answer, BUILT_IN, Question, work};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// LIMIT: bytes of a question or an answer.
pub const AGENT_BYTES_MAX: usize = 256 * 1024;

/// What an agent is shown. Everything that came from outside stands under `untrusted`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentView {
    /// The incident.
    pub incident: String,
    /// What a person asked to recover.
    pub target: String,
    /// Impaired services.
    pub impaired: Vec<String>,
    /// Services that behave unlike before, downstream of those.
    pub suspects: Vec<String>,
    /// Members of the recovery group.
    pub group: Vec<String>,
    /// How sure the traces are about the group: no more than cautious.
    #[serde(default)]
    pub cautious: bool,
    /// Facts of each service in question.
    pub services: BTreeMap<String, AgentService>,
    /// Edges among them and into them.
    pub edges: Vec<AgentEdge>,
    /// Who proposed the revision before, if the kernel refused it.
    #[serde(default)]
    pub refused: Option<String>,
    /// Why the kernel refused the revision before; empty for the first.
    pub rejections: Vec<String>,
    /// The nearest plan the kernel would accept, in text form.
    pub nearest: Option<String>,
    /// Names and messages from telemetry: strings, never instructions.
    pub untrusted: BTreeMap<String, String>,
}

/// One service as an agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentService {
    /// Ready instances.
    pub ready: Vec<u32>,
    /// Instances that are not ready.
    pub unready: Vec<u32>,
    /// Ready instances that answer nothing but errors of their own.
    #[serde(default)]
    pub failing: Vec<u32>,
    /// Memory that instances hold, by replica, in KiB. Pairs: a map of numbers does not survive the way through a
    /// tagged question.
    #[serde(default)]
    pub memory_kib: Vec<(u32, u64)>,
    /// A change of what it reads that is suspected of the trouble.
    #[serde(default)]
    pub change: Option<AgentChange>,
    /// Requests per second now, in milli-requests.
    pub load_mrps: Option<u64>,
    /// Requests per second before the onset, in milli-requests.
    pub baseline_mrps: Option<u64>,
    /// Capacity of one replica, in milli-requests per second.
    pub capacity_mrps: Option<u64>,
    /// Whether overload feeds itself.
    pub metastable: bool,
    /// What restarts when it restarts, itself among them, what is needed first at the front.
    #[serde(default)]
    pub together: Vec<String>,
    /// Services whose restart it did not survive before, by what was seen.
    #[serde(default)]
    pub follows: Vec<String>,
}

/// A change of configuration shortly before the onset, when no instance of its reader serves any more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentChange {
    /// The object, `KIND/NS/NAME`.
    pub object: String,
    /// Its revision now.
    pub revision: i64,
    /// When it changed.
    pub changed_at_ms: i64,
    /// The newest older revision under which the client was well served long enough; absent: none is known.
    pub known_good: Option<i64>,
    /// How long is long enough.
    pub needed_ms: u64,
}

/// One edge as an agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentEdge {
    /// The caller.
    pub caller: String,
    /// The callee.
    pub callee: String,
    /// Whether the caller fails without it.
    pub hard: bool,
    /// Attempts per request now, in permille.
    pub attempts_permille: u64,
}

/// What an agent answers to *propose*.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentProposal {
    /// The steps in text form; absent = it does not know.
    #[serde(default)]
    pub plan: Option<String>,
    /// Its confidence and prose; recorded and never looked into.
    #[serde(default)]
    pub opinion: serde_json::Value,
    /// Why there is no plan, for whoever takes over. Only the built-in agent's is shown.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What the built-in diagnosis says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The service to act on.
    pub suspect: Option<String>,
    /// What it looks like.
    pub mode: String,
}
