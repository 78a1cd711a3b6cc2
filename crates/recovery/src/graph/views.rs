use super::config::Config;
use super::seconds::Seconds;
use crate::miss::Tally;
use base::canon::{Canon, Error, Value};
use base::{Millis, Timestamp};
use std::collections::BTreeMap;

base::word_enum! {
    /// What kind of call an edge is.
    pub enum EdgeKind {
        /// The caller waits.
        Sync = 1 "sync",
        /// The caller does not wait.
        Async = 2 "async",
        /// The callee is a database, cache or lock service.
        Store = 3 "store",
        /// Known from a declaration only; no counts.
        Declared = 4 "declared",
    }
}

base::word_enum! {
    /// Whether a caller fails with its callee.
    pub enum Hardness {
        /// It fails.
        Hard = 1 "hard",
        /// It copes.
        Soft = 2 "soft",
        /// Not enough is known.
        Unknown = 3 "unknown",
    }
}

base::word_enum! {
    /// What a node is.
    pub enum NodeKind {
        /// A service with spans.
        Service = 1 "service",
        /// Known from a declaration or as a callee only; no spans.
        Opaque = 2 "opaque",
        /// A store without spans.
        Store = 3 "store",
        /// A queue.
        Queue = 4 "queue",
    }
}

base::record! {
    /// One dependency between two services, with what is known of it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct EdgeView {
        /// Who calls.
        1 pub caller: String,
        /// Who is called.
        2 pub callee: String,
        /// What kind of call.
        3 pub kind: EdgeKind,
        /// Declared or measured hardness.
        4 pub hardness: Hardness,
        /// Decayed rate of calls, milli-requests per second.
        5 pub rate_mrps: u64,
        /// Calls ever seen.
        6 pub calls: u64,
        /// Executions of the caller that used it.
        7 pub executions: u64,
        /// Calls beyond the first of an execution, per thousand executions, over the baseline window up to now.
        8 pub retries_permille: u64,
        /// Mean duration of the callee's execution.
        9 pub mean_us: u64,
        /// When first seen; absent: never.
        10 pub first_seen: Option<Timestamp>,
        /// When last seen; absent: never.
        11 pub last_seen: Option<Timestamp>,
        /// A declaration names it.
        12 pub declared: bool,
        /// Calls with (caller ok, caller error) while the callee was ok.
        13 pub callee_ok: (u64, u64),
        /// Calls with (caller ok, caller error) while the callee failed.
        14 pub callee_error: (u64, u64),
        /// Calls inside their caller's interval, within one millisecond.
        15 pub inside: u64,
        /// Calls per second; `marked` counts the first call of each execution.
        16 pub seconds: Seconds,
        /// Structural epoch of its last change.
        17 pub changed: u64,
        /// Declared fallback, if any.
        18 pub fallback: Option<String>,
        /// Missed by an earlier answer and added for good.
        19 pub missed: bool,
    }
}

base::record! {
    /// One service, with what is known of it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ServiceView {
        /// What it is.
        1 pub kind: NodeKind,
        /// Decayed rate of entry spans, milli-requests per second.
        2 pub rate_mrps: u64,
        /// Of these, roots: requests that come from outside.
        3 pub root_rate_mrps: u64,
        /// Mean duration of its entry spans.
        4 pub mean_us: u64,
        /// Share of failed entries over the baseline window up to now.
        5 pub error_ppm: u32,
        /// Services that call it.
        6 pub fan_in: u32,
        /// Services it calls.
        7 pub fan_out: u32,
        /// Share of its arrivals whose requester fails when it is cut: over hard sync edges, and roots.
        8 pub cut_ppm: u32,
        /// Trials of the paths into it.
        9 pub inward: Tally,
        /// Trials of its executions.
        10 pub outward: Tally,
        /// Newest generation seen.
        11 pub generation: Option<String>,
        /// Instances seen within the coverage window.
        12 pub instances: Vec<String>,
        /// Services that must restart with it.
        13 pub coupled: Vec<String>,
        /// Services it needs at start.
        14 pub start_needs: Vec<String>,
        /// Objective: 99th percentile in milliseconds.
        15 pub objective_p99: Option<Millis>,
        /// Objective: share of failed requests, ppm.
        16 pub objective_error_ppm: Option<u32>,
        /// Replicas declared at start.
        17 pub replicas: Option<u32>,
        /// Replicas that must stay ready.
        18 pub min_available: Option<u32>,
        /// Members of its quorum set.
        19 pub quorum_of: Option<u32>,
        /// A topology file names it.
        20 pub declared: bool,
        /// One unconfirmed co-restart hangs over it, or a dependency of it was missed.
        21 pub suspected: bool,
        /// Requests per second; `marked` counts those over the objective's p99.
        22 pub seconds: Seconds,
        /// Root requests per second that entered here.
        23 pub roots: Seconds,
        /// (entry and client spans, lost parents and unmatched calls) of the coverage window.
        24 pub coverage: (u64, u64),
        /// Operations seen, and how many of them are mature on their own.
        25 pub operations: (u64, u64),
        /// Structural epoch of its last change.
        26 pub changed: u64,
        /// Failure domains declared for its replicas.
        27 pub zones: Vec<String>,
    }
}

base::record! {
    /// Traces of one root operation: how many, and how many visit a service on a blocking path.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct RootView {
        /// Traces.
        1 pub traces: u64,
        /// Of these, by service visited on a blocking path.
        2 pub visits: BTreeMap<String, u64>,
    }
}

base::record! {
    /// A snapshot as plain data: what is stored, compared and signed.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) struct Picture {
        /// When it was built.
        1 pub(crate) taken_at: Timestamp,
        /// End of the newest span in it; its age counts from here.
        2 pub(crate) newest: Option<Timestamp>,
        /// Since when spans were joined without a break.
        3 pub(crate) joined_since: Option<Timestamp>,
        /// Structural epoch: raised by every structural change.
        4 pub(crate) epoch: u64,
        /// The windows in force.
        5 pub(crate) config: Config,
        /// The services by name.
        6 pub(crate) services: BTreeMap<String, ServiceView>,
        /// The edges, ordered by caller, then callee.
        7 pub(crate) edges: Vec<EdgeView>,
        /// Root operations.
        8 pub(crate) roots: BTreeMap<String, RootView>,
        /// What a slice was cut for; empty for a whole snapshot.
        9 pub(crate) seeds: Vec<String>,
    }
}

/// A set of services, or the fact that it is larger than asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closure {
    /// All of them, by name.
    Members(Vec<String>),
    /// More than this many.
    MoreThan(u32),
}

base::record! {
    /// Who is hurt when a set of services is restarted: three numbers and their terms.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Blast {
        /// Share of root requests that visit a member on a blocking path.
        1 pub root_share_ppm: u32,
        /// Exact for one member; for several it is the sum, an upper bound.
        2 pub root_share_exact: bool,
        /// Services that reach a member over hard or unknown edges.
        3 pub callers: Closure,
        /// Expected loss in requests, rounded up, with one instance of each member out.
        4 pub loss_requests: u64,
        /// Milli-requests in flight at the members that would fail when cut.
        5 pub inflight_milli: u64,
    }
}

base::record! {
    /// Where one fact about a member comes from.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Evidence {
        /// Who calls, needs or is coupled.
        1 pub caller: String,
        /// Whom.
        2 pub callee: String,
        /// Which relation.
        3 pub relation: Relation,
        /// Of a call: its kind.
        4 pub kind: Option<EdgeKind>,
        /// Of a call: its hardness.
        5 pub hardness: Option<Hardness>,
        /// Of a call: calls seen.
        6 pub calls: u64,
        /// Of a call: first seen.
        7 pub first_seen: Option<Timestamp>,
        /// Of a call: last seen.
        8 pub last_seen: Option<Timestamp>,
        /// `spans`, `declared`, `spans and declared`, or `missed once`.
        9 pub source: String,
    }
}

base::word_enum! {
    /// How two services are related.
    pub enum Relation {
        /// One calls the other.
        Call = 1 "calls",
        /// One needs the other to become ready.
        StartNeeds = 2 "needs at start",
        /// One may not restart without the other.
        Coupled = 3 "coupled with",
    }
}

impl EdgeView {
    /// Whether answers treat the edge as hard: a declaration or statistics may soften it, ignorance never.
    #[must_use]
    pub fn is_hard(&self) -> bool {
        super::build::is_hard(self.kind, self.hardness, self.missed)
    }

    /// Whether its caller waits for it: a failure travels back along it at once.
    #[must_use]
    pub fn is_blocking(&self) -> bool {
        self.kind != EdgeKind::Async && self.hardness != Hardness::Soft
    }

    pub(super) fn evidence(&self) -> Evidence {
        Evidence {
            caller: self.caller.clone(),
            callee: self.callee.clone(),
            relation: Relation::Call,
            kind: Some(self.kind),
            hardness: Some(self.hardness),
            calls: self.calls,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            source: EdgeView::source(self.calls, self.declared, self.missed).into(),
        }
    }

    pub(super) fn source(calls: u64, declared: bool, missed: bool) -> &'static str {
        match (calls > 0, declared) {
            (true, true) => "spans and declared",
            (true, false) => "spans",
            (false, false) if missed => "missed once",
            (false, _) => "declared",
        }
    }
}

impl ServiceView {
    /// Replicas declared, else instances seen.
    #[must_use]
    pub fn instance_count(&self) -> u32 {
        self.replicas.unwrap_or_else(|| u32::try_from(self.instances.len()).unwrap_or(u32::MAX))
    }

    /// Milli-requests in flight that would fail when it is cut: rate, times mean duration, times P(error on cut).
    #[must_use]
    pub fn inflight_milli(&self) -> u64 {
        let product = u128::from(self.rate_mrps) * u128::from(self.mean_us) * u128::from(self.cut_ppm);
        u64::try_from(product.div_ceil(1_000_000_000_000)).unwrap_or(u64::MAX)
    }
}

impl Evidence {
    pub(crate) fn declared(caller: &str, callee: &str, relation: Relation) -> Evidence {
        Evidence {
            caller: caller.to_owned(),
            callee: callee.to_owned(),
            relation,
            kind: None,
            hardness: None,
            calls: 0,
            first_seen: None,
            last_seen: None,
            source: "declared".into(),
        }
    }
}

impl Closure {
    /// How many there are, at least.
    #[must_use]
    pub fn at_least(&self) -> u32 {
        match self {
            Closure::Members(names) => u32::try_from(names.len()).unwrap_or(u32::MAX),
            Closure::MoreThan(cap) => cap.saturating_add(1),
        }
    }

    /// The members; none when there are too many to name.
    #[must_use]
    pub fn names(&self) -> &[String] {
        match self {
            Closure::Members(names) => names,
            Closure::MoreThan(_) => &[],
        }
    }
}

/// A list of names, or a number.
impl Canon for Closure {
    fn to_value(&self) -> Value {
        match self {
            Closure::Members(names) => names.to_value(),
            Closure::MoreThan(cap) => cap.to_value(),
        }
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        match value {
            Value::Unsigned(_) => u32::from_value(value).map(Closure::MoreThan),
            _ => Vec::from_value(value).map(Closure::Members),
        }
    }
}
