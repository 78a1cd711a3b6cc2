use super::config::Config;
use super::seconds::Seconds;
use crate::miss::Tally;
use base::canon::{Canon, Error, Value};
use base::{Digest, Millis, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

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
    /// An immutable picture of the graph, integers only: every answer recomputes bit for bit. A slice of it
    /// is a smaller snapshot that gives the same answers about its seeds.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Snapshot {
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

/// A self-contained part of a snapshot.
pub type Slice = Snapshot;

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
        /// `spans`, `declared` or `spans and declared`.
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
        match (self.hardness, self.kind) {
            (Hardness::Hard, _) => true,
            (Hardness::Soft, _) => self.missed,
            (Hardness::Unknown, EdgeKind::Async) => self.missed,
            (Hardness::Unknown, EdgeKind::Sync | EdgeKind::Store | EdgeKind::Declared) => true,
        }
    }

    /// Whether its caller waits for it: a failure travels back along it at once.
    #[must_use]
    pub fn is_blocking(&self) -> bool {
        self.kind != EdgeKind::Async && self.hardness != Hardness::Soft
    }

    fn evidence(&self) -> Evidence {
        let source = match (self.calls > 0, self.declared) {
            (true, true) => "spans and declared",
            (true, false) => "spans",
            (false, _) => "declared",
        };
        Evidence {
            caller: self.caller.clone(),
            callee: self.callee.clone(),
            relation: Relation::Call,
            kind: Some(self.kind),
            hardness: Some(self.hardness),
            calls: self.calls,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            source: source.into(),
        }
    }
}

impl Snapshot {
    /// When it was built.
    #[must_use]
    pub fn taken_at(&self) -> Timestamp {
        self.taken_at
    }

    /// End of the newest span in it.
    #[must_use]
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    /// Structural epoch: of a whole snapshot the newest of all, of a slice the newest inside it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The windows it was taken under.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The service names, ascending.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.services.keys().map(String::as_str)
    }

    /// Whether it knows the service.
    #[must_use]
    pub fn contains(&self, service: &str) -> bool {
        self.services.contains_key(service)
    }

    /// What is known of a service.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&ServiceView> {
        self.services.get(name)
    }

    /// The edges, ordered by caller, then callee.
    #[must_use]
    pub fn edges(&self) -> &[EdgeView] {
        &self.edges
    }

    /// One edge.
    #[must_use]
    pub fn edge(&self, caller: &str, callee: &str) -> Option<&EdgeView> {
        let at =
            self.edges.binary_search_by(|edge| (edge.caller.as_str(), edge.callee.as_str()).cmp(&(caller, callee)));
        at.ok().and_then(|at| self.edges.get(at))
    }

    /// The root operations, with their traces.
    #[must_use]
    pub fn roots(&self) -> &BTreeMap<String, RootView> {
        &self.roots
    }

    /// Decayed rate of all root requests, milli-requests per second.
    #[must_use]
    pub fn root_rate_mrps(&self) -> u64 {
        self.services.values().map(|service| service.root_rate_mrps).sum()
    }

    /// Mean rate of a service's requests in the baseline window before `since`, milli-requests per second.
    #[must_use]
    pub fn baseline_rate_mrps(&self, service: &str, since: Timestamp) -> Option<u64> {
        let seconds = &self.services.get(service)?.seconds;
        seconds.rate_mrps(since.minus(self.config.baseline), since)
    }

    /// Mean rate of an edge's calls in the baseline window before `since`, milli-requests per second.
    #[must_use]
    pub fn edge_baseline_rate_mrps(&self, caller: &str, callee: &str, since: Timestamp) -> Option<u64> {
        let seconds = &self.edge(caller, callee)?.seconds;
        seconds.rate_mrps(since.minus(self.config.baseline), since)
    }

    /// Calls per thousand executions on an edge between two instants (1 000 = no retries); `None` without calls.
    #[must_use]
    pub fn attempts_permille(&self, caller: &str, callee: &str, from: Timestamp, to: Timestamp) -> Option<u64> {
        let sum = self.edge(caller, callee)?.seconds.sum(from, to);
        (sum.marked > 0).then(|| sum.total * 1_000 / sum.marked)
    }

    /// What must restart with the set and is not in it: its closure under coupling, minus itself.
    #[must_use]
    pub fn missing_members(&self, set: &[&str]) -> Vec<String> {
        let given: BTreeSet<&str> = set.iter().copied().collect();
        self.coupled_closure(set).into_iter().filter(|name| !given.contains(name.as_str())).collect()
    }

    /// The least superset of the set that is closed under coupling.
    #[must_use]
    pub fn coupled_closure(&self, set: &[&str]) -> BTreeSet<String> {
        let mut closed: BTreeSet<String> = set.iter().map(|name| (*name).to_owned()).collect();
        let mut open: Vec<String> = closed.iter().cloned().collect();
        while let Some(name) = open.pop() {
            let coupled = self.services.get(&name).map(|service| service.coupled.as_slice()).unwrap_or_default();
            for other in coupled {
                if closed.insert(other.clone()) {
                    open.push(other.clone());
                }
            }
        }
        closed
    }

    /// Services that reach a member upstream over hard or unknown edges; at most `cap`, else `MoreThan`.
    #[must_use]
    pub fn hard_callers(&self, set: &[&str], cap: u32) -> Closure {
        let found = self.callers_up_to(set, cap as usize + 1);
        if found.len() > cap as usize { Closure::MoreThan(cap) } else { Closure::Members(sorted(found)) }
    }

    /// Who is hurt when one instance of each member is out for the configured time.
    #[must_use]
    pub fn blast(&self, set: &[&str]) -> Blast {
        let members: BTreeSet<&str> = set.iter().copied().filter(|name| self.contains(name)).collect();
        let names: Vec<&str> = members.iter().copied().collect();
        let (root_share_ppm, root_share_exact) = self.root_share(&members);
        let (mut loss_nano, mut inflight_milli) = (0_u128, 0_u64);
        for view in members.iter().filter_map(|name| self.services.get(*name)) {
            let replicas = u128::from(view.instance_count().max(1));
            let failing = u128::from(view.rate_mrps) * u128::from(view.cut_ppm);
            loss_nano += failing * u128::from(self.config.restart_out.0) / 1_000 / replicas;
            inflight_milli = inflight_milli.saturating_add(view.inflight_milli());
        }
        let loss_requests = u64::try_from(loss_nano.div_ceil(1_000_000_000)).unwrap_or(u64::MAX);
        let callers = self.hard_callers(&names, self.config.closure_max);
        Blast { root_share_ppm, root_share_exact, callers, loss_requests, inflight_milli }
    }

    /// Everything that puts a service where it is: its edges both ways, start needs and couplings.
    #[must_use]
    pub fn why(&self, member: &str) -> Vec<Evidence> {
        let touching = self.edges.iter().filter(|edge| edge.caller == member || edge.callee == member);
        let mut evidence: Vec<Evidence> = touching.map(EdgeView::evidence).collect();
        if let Some(view) = self.services.get(member) {
            let needs = view.start_needs.iter().map(|other| (other, Relation::StartNeeds));
            let coupled = view.coupled.iter().map(|other| (other, Relation::Coupled));
            evidence.extend(needs.chain(coupled).map(|(other, relation)| Evidence::declared(member, other, relation)));
        }
        evidence
    }

    /// The part that answers every question about `seeds`: their closure, its hard and its direct callers, the
    /// direct callees of all these, and all edges among them.
    #[must_use]
    pub fn slice(&self, seeds: &[&str]) -> Slice {
        let closure = self.coupled_closure(seeds);
        let inner: Vec<&str> = closure.iter().map(String::as_str).filter(|name| self.contains(name)).collect();
        let mut kept: BTreeSet<&str> = inner.iter().copied().collect();
        kept.extend(self.callers_up_to(&inner, self.config.closure_max as usize + 1));
        kept.extend(self.edges.iter().filter(|e| closure.contains(&e.callee)).map(|e| e.caller.as_str()));
        let callees: Vec<&str> =
            self.edges.iter().filter(|e| kept.contains(e.caller.as_str())).map(|e| e.callee.as_str()).collect();
        kept.extend(callees);
        let edges = self.edges.iter().filter(|e| kept.contains(e.caller.as_str()) && kept.contains(e.callee.as_str()));
        let edges: Vec<EdgeView> = edges.cloned().collect();
        let services = self.services.iter().filter(|(name, _)| kept.contains(name.as_str()));
        let services: BTreeMap<String, ServiceView> =
            services.map(|(name, view)| (name.clone(), view.clone())).collect();
        let changes = services.values().map(|view| view.changed).chain(edges.iter().map(|edge| edge.changed));
        let epoch = changes.max().unwrap_or(0);
        let roots = self.roots.iter().map(|(operation, root)| {
            let visits = root.visits.iter().filter(|(name, _)| kept.contains(name.as_str()));
            let visits = visits.map(|(name, count)| (name.clone(), *count)).collect();
            (operation.clone(), RootView { traces: root.traces, visits })
        });
        let roots = roots.collect();
        let seeds = seeds.iter().map(|seed| (*seed).to_owned()).collect::<BTreeSet<_>>().into_iter().collect();
        Snapshot { epoch, services, edges, roots, seeds, config: self.config.clone(), ..*self }
    }

    /// The structural digest: members, kinds, hardness as treated, coupling, order, generations and the
    /// permission about the seeds; no counts and no times.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest_at(self.seed_permission())
    }

    /// The structural digest as it compares with a slice pinned earlier: a permission that rose since then
    /// counts as the pinned one.
    #[must_use]
    pub fn digest_since(&self, pinned: &Slice) -> Digest {
        self.digest_at(self.seed_permission().min(pinned.seed_permission()))
    }

    /// The digest of everything, counts and times too: the identity of the stored bytes.
    #[must_use]
    pub fn content_digest(&self) -> Digest {
        Digest::of_object("slice", self)
    }

    fn seed_permission(&self) -> super::Level {
        let seeds: Vec<&str> = self.seeds.iter().map(String::as_str).collect();
        self.permission(&seeds, self.taken_at).level
    }

    fn digest_at(&self, level: super::Level) -> Digest {
        let services = self.services.iter().map(|(name, view)| {
            let fields = [
                Some(view.kind.to_value()),
                view.generation.to_field(),
                Some(view.coupled.to_value()),
                Some(view.start_needs.to_value()),
                Some(view.suspected.to_value()),
            ];
            (name.clone(), numbered(fields))
        });
        let edges = self.edges.iter().map(|edge| {
            Value::List(vec![
                edge.caller.to_value(),
                edge.callee.to_value(),
                edge.kind.to_value(),
                edge.is_hard().to_value(),
            ])
        });
        let structure = numbered([
            Some(Value::Map(services.collect())),
            Some(Value::List(edges.collect())),
            Some(self.seeds.to_value()),
            Some(level.to_value()),
        ]);
        Digest::of_object("topology", &structure)
    }

    /// Callers in breadth-first order, at most `limit`.
    pub(super) fn callers_up_to<'a>(&'a self, set: &[&str], limit: usize) -> Vec<&'a str> {
        let mut inward: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for edge in self.edges.iter().filter(|edge| edge.is_hard()) {
            inward.entry(&edge.callee).or_default().push(&edge.caller);
        }
        let mut seen: BTreeSet<&str> = set.iter().copied().collect();
        let mut level: Vec<&str> = seen.iter().copied().collect();
        let mut found: Vec<&'a str> = Vec::new();
        while !level.is_empty() {
            let callers: BTreeSet<&'a str> = level
                .iter()
                .flat_map(|name| inward.get(name).into_iter().flatten().copied())
                .filter(|name| !seen.contains(name))
                .collect();
            for caller in &callers {
                if found.len() == limit {
                    return found;
                }
                found.push(caller);
            }
            seen.extend(callers.iter().copied());
            level = callers.into_iter().collect();
        }
        found
    }

    fn root_share(&self, members: &BTreeSet<&str>) -> (u32, bool) {
        let (mut all, mut hit) = (0_u64, 0_u64);
        for root in self.roots.values() {
            let visits = members.iter().filter_map(|name| root.visits.get(*name)).sum::<u64>();
            all += root.traces;
            hit += visits.min(root.traces);
        }
        (base::Ratio::up(hit, all).map_or(0, base::Ratio::ppm), members.len() <= 1)
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

fn numbered<const N: usize>(fields: [Option<Value>; N]) -> Value {
    Value::Record((1..).zip(fields).filter_map(|(number, field)| field.map(|value| (number, value))).collect())
}

fn sorted(mut names: Vec<&str>) -> Vec<String> {
    names.sort_unstable();
    names.into_iter().map(str::to_owned).collect()
}
