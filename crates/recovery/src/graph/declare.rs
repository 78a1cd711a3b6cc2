use super::table::{DeclaredEdge, DeclaredService, Flow, Generation, NONE};
use super::{Config, EdgeKind, Graph, Hardness};
use crate::span::Span;
use crate::topology::{Edge, Service, Topology, TopologyError};
use base::{Millis, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

/// What a topology file brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// Services it names.
    pub services: u32,
    /// Edges it names, or that its run lines show.
    pub edges: u32,
}

/// Why a topology file was not taken; nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// It contradicts itself.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// More services than the graph holds.
    #[error("more than {0} services")]
    TooManyServices(u32),
}

/// Something that was observed of operations rather than of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationalFact {
    /// A restart of one service was followed by a failure of another that ended with its own restart.
    CoRestart {
        /// The service restarted first.
        service: String,
        /// The one that had to follow.
        with: String,
        /// A person confirmed it.
        confirmed: bool,
    },
    /// A person dismissed what was suspected: a co-restart, or a missed dependency of `with` on `service`.
    Dismissed {
        /// The service restarted first.
        service: String,
        /// The one that seemed to follow.
        with: String,
    },
    /// A service failed that no answer had named: a permanent hard edge, and restarting the callee requires
    /// restarting the caller. Both are suspected until a topology file couples them, or a person confirms it as a
    /// co-restart or dismisses it.
    MissedDependency {
        /// The one that failed.
        caller: String,
        /// The one that was restarted.
        callee: String,
    },
}

/// Joins recorded spans as if they arrived when they ended, and answers the graph with its clock: the end of
/// the newest span.
///
/// # Errors
/// As [`Graph::declare`].
pub fn replay(config: &Config, topology: Option<&Topology>, spans: &[Span]) -> Result<(Graph, Timestamp), GraphError> {
    let mut replay = crate::replay::Replay::new(config, topology)?;
    let mut order: Vec<&Span> = spans.iter().collect();
    order.sort_by_key(|span| (span.end_us(), span.trace, span.id));
    order.into_iter().for_each(|span| replay.take(span));
    Ok(replay.finish())
}

impl Graph {
    /// Takes a topology file, all or nothing; it replaces the one before.
    ///
    /// # Errors
    /// A file that contradicts itself; the graph is then as it was.
    pub fn declare(&mut self, file: &Topology) -> Result<Declared, GraphError> {
        file.validate()?;
        let edges = declared_edges(file);
        let names: BTreeSet<&str> = file
            .service
            .keys()
            .map(String::as_str)
            .chain(edges.keys().flat_map(|(caller, callee)| [caller.as_str(), callee.as_str()]))
            .collect();
        let fresh = names.iter().filter(|name| self.known_service(name).is_none()).count();
        if self.names.len() + fresh > self.config.services_max as usize {
            return Err(GraphError::TooManyServices(self.config.services_max));
        }
        self.epoch += 1;
        self.services.for_each_mut(|service| service.declared = None);
        self.flows.for_each_mut(|flow| flow.declared = None);
        self.forget_bare_flows();
        let counted = Declared { services: count(file.service.len()), edges: count(edges.len()) };
        for (name, service) in &file.service {
            let Some(id) = self.service_id(name) else { continue };
            let epoch = self.epoch;
            let Some(found) = self.services.get_mut(id) else { continue };
            found.declared = Some(Box::new(declared_service(service)));
            found.changed = epoch;
        }
        for ((caller, callee), edge) in edges {
            let (Some(caller), Some(callee)) = (self.service_id(&caller), self.service_id(&callee)) else { continue };
            let (flow, epoch) = (self.flow_id(caller, callee), self.epoch);
            let Some(flow) = self.flow_mut(flow) else { continue };
            (flow.declared, flow.changed) = (Some(Box::new(edge)), epoch);
        }
        self.coupling = OnceLock::new();
        self.suspect();
        (0_u32..).zip(self.marks.clone()).for_each(|(service, _)| self.mark(service));
        Ok(counted)
    }

    /// Takes an operational fact.
    pub fn record(&mut self, fact: &OperationalFact) {
        let (first, second) = match fact {
            OperationalFact::CoRestart { service, with, .. } | OperationalFact::Dismissed { service, with } => {
                (service, with)
            }
            OperationalFact::MissedDependency { caller, callee } => (caller, callee),
        };
        let (Some(first), Some(second)) = (self.service_id(first), self.service_id(second)) else { return };
        self.epoch += 1;
        self.coupling = OnceLock::new();
        let epoch = self.epoch;
        match fact {
            OperationalFact::CoRestart { confirmed, .. } => {
                let (times, known) = self.co_restarts.entry((first, second)).or_insert((0, false));
                *times = times.saturating_add(1);
                *known |= confirmed;
            }
            OperationalFact::Dismissed { .. } => {
                self.co_restarts.remove(&(first, second));
                if self.missed.remove(&(second, first)) {
                    let flow = self.flow_id(second, first);
                    if let Some(flow) = self.flow_mut(flow) {
                        (flow.missed, flow.changed) = (false, epoch);
                    }
                    self.forget_bare_flows();
                }
            }
            OperationalFact::MissedDependency { .. } => {
                let flow = self.flow_id(first, second);
                if let Some(flow) = self.flow_mut(flow) {
                    (flow.missed, flow.changed) = (true, epoch);
                }
                self.missed.insert((first, second));
            }
        }
        self.suspect();
        for service in [first, second] {
            self.services.get_mut(service).into_iter().for_each(|found| found.changed = epoch);
        }
    }

    /// A missed dependency hangs over both its services until a topology file says that they are coupled, or a person does.
    fn suspect(&mut self) {
        let confirmed = |caller: u32, callee: u32| self.co_restarts.get(&(callee, caller)).is_some_and(|known| known.1);
        let names = |id: u32, other: u32| {
            let declared = self.services.get(id).and_then(|service| service.declared.as_ref());
            declared.is_some_and(|declared| declared.coupled.contains(self.names.name(other)))
        };
        let is_open = |(caller, callee): &&(u32, u32)| {
            !names(*caller, *callee) && !names(*callee, *caller) && !confirmed(*caller, *callee)
        };
        let open = self.missed.iter().filter(is_open);
        let suspected: BTreeSet<u32> = open.flat_map(|(caller, callee)| [*caller, *callee]).collect();
        self.services.for_each_mut(|service| service.suspected = false);
        for service in suspected {
            self.services.get_mut(service).into_iter().for_each(|found| found.suspected = true);
        }
    }

    /// Removes edges that were not seen for the edge's time to live and that the two newest generations of
    /// their caller, both mature, did without. Answers how many.
    pub fn expire(&mut self, now: Timestamp) -> u32 {
        let ttl = self.config.edge_ttl;
        let outlived = |edge: &super::table::Edge| self.outlived(edge, now, ttl);
        let stale = self.flows.iter().zip(0_u32..).filter(|(flow, _)| flow.edges.iter().any(outlived));
        let stale: Vec<u32> = stale.map(|(_, flow)| flow).collect();
        let mut gone = 0;
        for id in stale {
            let Some(mut flow) = self.flow_mut(id).map(std::mem::take) else { continue };
            let (old, kept): (Vec<_>, Vec<_>) =
                std::mem::take(&mut flow.edges).into_iter().partition(|edge| self.outlived(edge, now, ttl));
            for edge in &old {
                self.edge_index.remove(&(edge.caller, edge.callee));
                self.edges.get_mut(edge.id as usize).into_iter().for_each(|place| place.flow = NONE);
            }
            for (edge, index) in kept.iter().zip(0_u32..) {
                self.edges.get_mut(edge.id as usize).into_iter().for_each(|place| place.index = index);
            }
            gone += old.len();
            flow.edges = kept;
            self.flow_mut(id).into_iter().for_each(|place| *place = std::mem::take(&mut flow));
        }
        self.edges_held -= gone;
        self.forget_bare_flows();
        self.epoch += u64::from(gone > 0);
        count(gone)
    }

    /// Forgets what nothing but unjoined calls speaks of.
    fn forget_bare_flows(&mut self) {
        self.flows.for_each_mut(|flow| {
            if flow.is_bare() {
                *flow = Flow::default();
            }
        });
        self.hot.iter_mut().for_each(|hot| *hot.judged.get_mut() = 0);
    }

    fn outlived(&self, edge: &super::table::Edge, now: Timestamp, ttl: Millis) -> bool {
        let Some(last) = edge.last_seen.filter(|last| now.since(*last) > ttl) else { return false };
        let caller = self.services.get(self.service_of(edge.caller));
        let Some(caller) = caller else { return false };
        let mut newest = caller.generations.iter().rev();
        let without = |generation: &Generation| generation.matured && generation.since > last;
        newest.next().is_some_and(without) && newest.next().is_some_and(without)
    }

    /// Notes which generations have matured.
    pub(super) fn mature(&mut self) {
        let (alpha, limit) = (self.config.alpha, self.config.miss_max);
        for number in (0_u32..).take(self.services.len()) {
            let Some(service) = self.services.get(number) else { return };
            let waits = service.generations.last().is_some_and(|newest| !newest.matured);
            let bound = || service.inward.tally(0).bound(alpha, 2).max(service.outward.tally(0).bound(alpha, 2));
            if !waits || bound() > limit {
                continue;
            }
            let newest = self.services.get_mut(number).and_then(|service| service.generations.last_mut());
            newest.into_iter().for_each(|newest| newest.matured = true);
        }
    }

    /// Halves the root counts once per half-life, so that shares follow today's traffic.
    pub(super) fn forget_roots(&mut self, now: Timestamp) {
        let last = *self.roots_halved.get_or_insert(now);
        if now.since(last) < self.config.half_life {
            return;
        }
        self.roots_halved = Some(now);
        // Rounded up: a rare root stays a root, and a rare visit a visit.
        self.roots.for_each_mut(|root| root.traces = root.traces.div_ceil(2));
        let halve = |visits: &mut (u32, u64)| visits.1 = visits.1.div_ceil(2);
        self.services.for_each_mut(|service| service.visits.iter_mut().for_each(halve));
    }
}

fn declared_service(service: &Service) -> DeclaredService {
    let objective = service.objective;
    let zones = service.zones.iter().chain(&service.zone).cloned().collect::<BTreeSet<_>>();
    DeclaredService {
        coupled: service.coupled.iter().cloned().collect(),
        start_needs: service.start_needs.iter().cloned().collect(),
        objective_p99: objective.and_then(|objective| objective.p99),
        objective_error_ppm: objective.and_then(|objective| objective.errors).map(base::Ratio::ppm),
        replicas: service.replicas.start,
        min_available: service.min_available,
        quorum_of: service.quorum_of,
        store: service.store,
        zones: zones.into_iter().collect(),
    }
}

/// The edges of the file: its tables, and what its run lines show with `{edge:CALLEE}`. Companions are
/// outside: what they call is a root.
fn declared_edges(file: &Topology) -> BTreeMap<(String, String), DeclaredEdge> {
    let mut edges = BTreeMap::new();
    for (name, service) in &file.service {
        for callee in service.run.iter().flat_map(|argument| argument.split("{edge:").skip(1)) {
            let callee = callee.split('}').next().unwrap_or_default();
            if file.service.contains_key(callee) && callee != name {
                edges.insert((name.clone(), callee.to_owned()), DeclaredEdge::default());
            }
        }
    }
    for (name, edge) in &file.edge {
        let Some((caller, callee)) = name.split_once("->") else { continue };
        if !file.process.contains_key(caller) && caller != callee {
            edges.insert((caller.to_owned(), callee.to_owned()), declared_edge(edge));
        }
    }
    edges
}

/// The words are those that [`Topology::validate`] lets pass.
fn declared_edge(edge: &Edge) -> DeclaredEdge {
    let kind = edge.kind.as_deref().and_then(EdgeKind::parse);
    let hardness = edge.hardness.as_deref().and_then(Hardness::parse);
    DeclaredEdge { kind, hardness, fallback: edge.fallback.clone() }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
