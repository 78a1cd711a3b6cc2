use super::table::{Edge, Flow, Service};
use super::{EdgeKind, EdgeView, Graph, Hardness, NodeKind, RootView, ServiceView, Snapshot};
use crate::stats;
use base::{Ratio, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

impl Graph {
    pub(super) fn build(&self, now: Timestamp) -> Snapshot {
        let coupled = self.coupling();
        let edges = self.edge_views(now);
        let (mut inward, mut fan_out): (BTreeMap<&str, Vec<&EdgeView>>, BTreeMap<&str, u32>) = Default::default();
        for edge in &edges {
            inward.entry(&edge.callee).or_default().push(edge);
            *fan_out.entry(&edge.caller).or_insert(0) += 1;
        }
        let touched: BTreeSet<&str> =
            edges.iter().flat_map(|edge| [edge.caller.as_str(), edge.callee.as_str()]).collect();
        let coupling: BTreeSet<u32> =
            coupled.iter().flat_map(|(id, others)| others.iter().chain([id]).copied()).collect();
        let known = |(service, id): &(&Service, u32)| {
            service.has_spans
                || service.declared.is_some()
                || touched.contains(service.name.as_str())
                || coupling.contains(id)
        };
        let services = self.services.iter().zip(0_u32..).filter(known).map(|(service, id)| {
            let name = service.name.as_str();
            let callers = inward.get(name).map(Vec::as_slice).unwrap_or_default();
            let callees = fan_out.get(name).copied().unwrap_or(0);
            let view = self.service_view(id, service, (callers, callees), &coupled, now);
            (service.name.clone(), view)
        });
        let services = services.collect();
        let roots = self.roots.iter().filter_map(|(operation, root)| {
            let found = self.operations.get(*operation as usize)?;
            let visits = root.visits.iter().map(|(service, count)| (self.name(*service).to_owned(), *count));
            let name = format!("{}/{}", self.name(found.service), found.name);
            Some((name, RootView { traces: root.traces, visits: visits.collect() }))
        });
        Snapshot {
            taken_at: now,
            newest: self.newest,
            joined_since: self.joined_since,
            epoch: self.epoch,
            config: self.config.clone(),
            roots: roots.collect(),
            services,
            edges,
            seeds: Vec::new(),
        }
    }

    fn name(&self, service: u32) -> &str {
        self.services.get(service as usize).map_or("", |service| service.name.as_str())
    }

    fn edge_views(&self, now: Timestamp) -> Vec<EdgeView> {
        let seen = |flow: &Flow| flow.edges.iter().any(|id| self.edges.get(id).is_some_and(Edge::is_known));
        let known = |flow: &Flow| flow.declared.is_some() || flow.missed || seen(flow);
        let views = self.flows.iter().filter(|((caller, callee), flow)| caller != callee && known(flow));
        let mut views: Vec<EdgeView> =
            views.map(|((caller, callee), flow)| self.edge_view(*caller, *callee, flow, now)).collect();
        views.sort_by(|a, b| (&a.caller, &a.callee).cmp(&(&b.caller, &b.callee)));
        views
    }

    fn edge_view(&self, caller: u32, callee: u32, flow: &Flow, now: Timestamp) -> EdgeView {
        let edges: Vec<&Edge> =
            flow.edges.iter().filter_map(|id| self.edges.get(id)).filter(|edge| edge.is_known()).collect();
        let began = self.began.unwrap_or(now);
        let total = |of: fn(&Edge) -> u64| edges.iter().map(|edge| of(edge)).sum::<u64>();
        let timed = total(|edge| edge.timed);
        let duration: u128 = edges.iter().map(|edge| edge.duration_us).sum();
        let inside = total(|edge| edge.inside);
        let seconds = flow.history.seconds();
        let recent = seconds.sum(now.minus(self.config.baseline), now);
        EdgeView {
            caller: self.name(caller).to_owned(),
            callee: self.name(callee).to_owned(),
            kind: self.kind(callee, flow, &edges, inside, timed),
            hardness: hardness(flow, &edges),
            rate_mrps: edges.iter().map(|edge| edge.rate.mrps(began, now, self.config.half_life)).sum(),
            calls: total(|edge| edge.calls),
            executions: total(|edge| edge.executions),
            retries_permille: (recent.total.saturating_sub(recent.marked) * 1_000)
                .checked_div(recent.marked)
                .unwrap_or(0),
            mean_us: u64::try_from(duration.checked_div(u128::from(timed)).unwrap_or(0)).unwrap_or(u64::MAX),
            first_seen: edges.iter().filter_map(|edge| edge.first_seen).min(),
            last_seen: edges.iter().filter_map(|edge| edge.last_seen).max(),
            declared: flow.declared.is_some(),
            callee_ok: (total(|edge| edge.outcomes[0][0]), total(|edge| edge.outcomes[0][1])),
            callee_error: (total(|edge| edge.outcomes[1][0]), total(|edge| edge.outcomes[1][1])),
            inside,
            seconds,
            changed: flow.changed,
            fallback: flow.declared.as_ref().and_then(|declared| declared.fallback.clone()),
            missed: flow.missed,
        }
    }

    /// The first rule that fits: declared only, store, async, sync.
    fn kind(&self, callee: u32, flow: &Flow, edges: &[&Edge], inside: u64, timed: u64) -> EdgeKind {
        let declared = flow.declared.as_ref().and_then(|declared| declared.kind);
        if edges.is_empty() {
            return declared.unwrap_or(EdgeKind::Declared);
        }
        let store = self.services.get(callee as usize).is_some_and(is_store);
        if store || declared == Some(EdgeKind::Store) {
            return EdgeKind::Store;
        }
        // A declared sync edge is waited for, whatever the clocks say.
        let outside = declared.is_none() && timed > 0 && inside.saturating_mul(20) < timed;
        let outlives = outside && stats::cp_upper(inside, timed, 50_000) < Ratio::clamped(50_000);
        let queued = edges.iter().all(|edge| edge.is_async);
        if declared == Some(EdgeKind::Async) || queued || outlives { EdgeKind::Async } else { EdgeKind::Sync }
    }

    fn service_view(
        &self,
        id: u32,
        service: &Service,
        (inward, fan_out): (&[&EdgeView], u32),
        coupled: &BTreeMap<u32, BTreeSet<u32>>,
        now: Timestamp,
    ) -> ServiceView {
        let began = self.began.unwrap_or(now);
        let seconds = service.history.seconds();
        let recent = seconds.sum(now.minus(self.config.baseline), now);
        let root_rate_mrps = service.roots.mrps(began, now, self.config.half_life);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let operations = service.operations.values().filter_map(|id| self.operations.get(*id as usize));
        let (alpha, limit) = (self.config.alpha, self.config.miss_max);
        let mature = operations.clone().filter(|operation| operation.outward.tally(0).bound(alpha, 2) <= limit).count();
        let declared = service.declared.as_ref();
        let others = coupled.get(&id).into_iter().flatten();
        ServiceView {
            kind: node_kind(service),
            rate_mrps: service.entries.mrps(began, now, self.config.half_life),
            root_rate_mrps,
            mean_us: mean(service),
            error_ppm: Ratio::up(recent.errors, recent.total).map_or(0, Ratio::ppm),
            fan_in: count(inward.len()),
            fan_out,
            cut_ppm: cut(inward, root_rate_mrps),
            inward: service.inward.tally(0),
            outward: service.outward.tally(self.singles(id)),
            generation: service.generation().map(str::to_owned),
            instances: service.live_instances(now, self.config.coverage_window),
            coupled: others.map(|other| self.name(*other).to_owned()).collect::<BTreeSet<_>>().into_iter().collect(),
            start_needs: declared.map(|declared| declared.start_needs.iter().cloned().collect()).unwrap_or_default(),
            objective_p99: declared.and_then(|declared| declared.objective_p99),
            objective_error_ppm: declared.and_then(|declared| declared.objective_error_ppm),
            replicas: declared.map(|declared| declared.replicas),
            min_available: declared.and_then(|declared| declared.min_available),
            quorum_of: declared.and_then(|declared| declared.quorum_of),
            declared: declared.is_some(),
            suspected: service.suspected || self.is_suspected(id),
            seconds,
            roots: service.root_history.seconds(),
            coverage: service.coverage.sum(now, self.config.coverage_window),
            operations: (operations.count() as u64, mature as u64),
            changed: service.changed,
            zones: declared.map(|declared| declared.zones.clone()).unwrap_or_default(),
        }
    }

    /// Edges of a service used by exactly one execution.
    fn singles(&self, service: u32) -> u64 {
        let own = self.flows.range((service, 0)..=(service, u32::MAX)).flat_map(|(_, flow)| &flow.edges);
        own.filter_map(|id| self.edges.get(id)).filter(|edge| edge.executions == 1).count() as u64
    }

    /// s → t for every "restarting s requires restarting t": declared (both ways), needed by each other at
    /// start, or observed twice or confirmed.
    fn coupling(&self) -> BTreeMap<u32, BTreeSet<u32>> {
        let mut coupled: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        let mut needs: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for (service, id) in self.services.iter().zip(0_u32..) {
            let Some(declared) = &service.declared else { continue };
            for other in declared.coupled.iter().filter_map(|name| self.index.get(name)).filter(|other| **other != id) {
                coupled.entry(id).or_default().insert(*other);
                coupled.entry(*other).or_default().insert(id);
            }
            needs.insert(id, declared.start_needs.iter().filter_map(|name| self.index.get(name).copied()).collect());
        }
        let below: BTreeMap<u32, BTreeSet<u32>> = needs.keys().map(|id| (*id, reachable(*id, &needs))).collect();
        for (id, reached) in &below {
            let mutual =
                reached.iter().filter(|other| *other != id && below.get(other).is_some_and(|back| back.contains(id)));
            coupled.entry(*id).or_default().extend(mutual);
        }
        for ((service, with), (times, confirmed)) in &self.co_restarts {
            if *times >= 2 || *confirmed {
                coupled.entry(*service).or_default().insert(*with);
            }
        }
        coupled
    }

    fn is_suspected(&self, service: u32) -> bool {
        self.co_restarts
            .range((service, 0)..=(service, u32::MAX))
            .any(|(_, (times, confirmed))| *times == 1 && !confirmed)
    }
}

impl Service {
    fn live_instances(&self, now: Timestamp, window: base::Millis) -> Vec<String> {
        self.instances.iter().filter(|(_, last)| now.since(**last) <= window).map(|(name, _)| name.clone()).collect()
    }
}

fn reachable(from: u32, needs: &BTreeMap<u32, BTreeSet<u32>>) -> BTreeSet<u32> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<u32> = needs.get(&from).into_iter().flatten().copied().collect();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            open.extend(needs.get(&id).into_iter().flatten());
        }
    }
    seen
}

fn is_store(service: &Service) -> bool {
    service.declared.as_ref().is_some_and(|declared| declared.store) || (service.is_store && !service.has_spans)
}

fn node_kind(service: &Service) -> NodeKind {
    match (is_store(service), service.has_spans, service.is_queue) {
        (true, _, _) => NodeKind::Store,
        (false, true, _) => NodeKind::Service,
        (false, false, true) => NodeKind::Queue,
        (false, false, false) => NodeKind::Opaque,
    }
}

fn mean(service: &Service) -> u64 {
    let mean = service.duration_us.checked_div(u128::from(service.entry_count)).unwrap_or(0);
    u64::try_from(mean).unwrap_or(u64::MAX)
}

/// Declared fallback or softness, else statistics over the executions; one operation that is hard makes the
/// dependency hard, and measured hardness stands against a declaration that it contradicts.
fn hardness(flow: &Flow, edges: &[&Edge]) -> Hardness {
    let declared = flow.declared.as_ref();
    let judged = |outcomes: [[u64; 2]; 2]| {
        let [[ok_ok, ok_bad], [bad_ok, bad_bad]] = outcomes;
        stats::newcombe(bad_bad, bad_ok + bad_bad, ok_bad, ok_ok + ok_bad)
    };
    let all = edges.iter().fold([[0; 2]; 2], |sum, edge| {
        let [[a, b], [c, d]] = sum;
        let [[e, f], [g, h]] = edge.outcomes;
        [[a + e, b + f], [c + g, d + h]]
    });
    let failed = |edge: &&&Edge| edge.outcomes[1] != [0, 0];
    let hard = edges.iter().filter(failed).any(|edge| judged(edge.outcomes).0 >= 500_000) || judged(all).0 >= 500_000;
    if hard || declared.and_then(|declared| declared.hardness) == Some(Hardness::Hard) {
        return Hardness::Hard;
    }
    let softened =
        declared.is_some_and(|declared| declared.fallback.is_some() || declared.hardness == Some(Hardness::Soft));
    let measured = all[1] != [0, 0] && judged(all).1 < 100_000;
    if softened || measured { Hardness::Soft } else { Hardness::Unknown }
}

/// P(error on cut): share of arrivals over hard edges that are waited for, and roots, rounded up.
fn cut(inward: &[&EdgeView], root_rate_mrps: u64) -> u32 {
    let rate =
        |edges: &mut dyn Iterator<Item = &&EdgeView>| edges.map(|edge| edge.rate_mrps).sum::<u64>() + root_rate_mrps;
    let all = rate(&mut inward.iter());
    let failing = rate(&mut inward.iter().filter(|edge| edge.is_hard() && edge.is_blocking()));
    // Without a rate nothing says that anybody copes.
    Ratio::up(failing, all).map_or(1_000_000, Ratio::ppm)
}
