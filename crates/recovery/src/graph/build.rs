use super::index::{Body, Call, Head, Index, Live, Parts};
use super::snapshot::Snapshot;
use super::table::{Clock, Edge, Flow, Service};
use super::{EdgeKind, EdgeView, Evidence, Graph, Hardness, NodeKind, Relation, RootView, ServiceView};
use crate::stats;
use base::{Ratio, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What must restart with what, by number.
pub(super) type Coupling = BTreeMap<u32, BTreeSet<u32>>;

/// What was judged of a flow, in one byte: valid, known, has known edges, missed, hardness, kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Judged {
    known: bool,
    seen: bool,
    missed: bool,
    hardness: Hardness,
    kind: EdgeKind,
}

impl Judged {
    fn of(flow: &Flow) -> Judged {
        Judged {
            known: flow.is_known(),
            seen: flow.known().next().is_some(),
            missed: flow.missed,
            hardness: hardness(flow),
            kind: kind(flow),
        }
    }

    fn byte(self) -> u8 {
        let flags = 0x80 | u8::from(self.known) << 6 | u8::from(self.seen) << 5 | u8::from(self.missed) << 4;
        let hardness = match self.hardness {
            Hardness::Hard => 0,
            Hardness::Soft => 1,
            Hardness::Unknown => 2,
        };
        let kind = match self.kind {
            EdgeKind::Sync => 0,
            EdgeKind::Async => 1,
            EdgeKind::Store => 2,
            EdgeKind::Declared => 3,
        };
        flags | hardness << 2 | kind
    }

    fn from(byte: u8) -> Option<Judged> {
        let flag = |bit: u8| byte >> bit & 1 == 1;
        let hardness = [Hardness::Hard, Hardness::Soft, Hardness::Unknown].get(usize::from(byte >> 2 & 3)).copied()?;
        let kind = [EdgeKind::Sync, EdgeKind::Async, EdgeKind::Store, EdgeKind::Declared];
        let kind = kind.get(usize::from(byte & 3)).copied()?;
        flag(7).then_some(Judged { known: flag(6), seen: flag(5), missed: flag(4), hardness, kind })
    }
}

impl Graph {
    pub(super) fn build(&self, now: Timestamp) -> Snapshot {
        let order = self.names.order();
        let coupling = self.coupling.get_or_init(|| Arc::new(self.couple()));
        let mut is_known: Vec<bool> = order.number.iter().map(|number| self.mark_of(*number).is_known).collect();
        let mut know = |rank: u32| is_known.get_mut(rank as usize).into_iter().for_each(|known| *known = true);
        let (mut calls, mut inner) = (Vec::with_capacity(self.hot.len()), BTreeMap::new());
        for (hot, place) in self.hot.iter().zip(0_u32..) {
            if hot.caller == hot.callee {
                inner.insert(hot.caller, place);
                continue;
            }
            let judged = self.judged(place).filter(|judged| judged.known);
            let Some(Judged { seen, missed, hardness, kind, .. }) = judged else { continue };
            let kind = if seen && self.mark_of(hot.callee).stores { EdgeKind::Store } else { kind };
            let (caller, callee) = (order.rank_of(hot.caller), order.rank_of(hot.callee));
            know(caller);
            know(callee);
            calls.push(Call { caller, callee, place, kind, hardness, is_hard: is_hard(kind, hardness, missed) });
        }
        let mut coupled: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (number, others) in coupling.iter() {
            know(order.rank_of(*number));
            let mut others: Vec<u32> = others.iter().map(|other| order.rank_of(*other)).collect();
            others.iter().for_each(|other| know(*other));
            others.sort_unstable();
            coupled.insert(order.rank_of(*number), others);
        }
        let head = Head {
            taken_at: now,
            newest: self.newest,
            joined_since: self.joined_since,
            epoch: self.epoch,
            config: Arc::clone(&self.config),
            seeds: Vec::new(),
        };
        let suspected = self.co_restarts.iter().filter(|(_, (times, confirmed))| *times == 1 && !confirmed);
        let live = Live {
            services: self.services.clone(),
            flows: self.flows.clone(),
            traces: self.roots.iter().map(|root| root.traces).sum(),
            roots: self.roots.clone(),
            inner,
            suspected: suspected.map(|((service, _), _)| *service).collect(),
            clock: Clock::at(self.began.unwrap_or(now), now, self.config.half_life),
            keep: self.keep,
        };
        Snapshot(Arc::new(Index::new(head, Parts { order, is_known, calls, coupled, body: Body::Live(live) })))
    }

    fn mark_of(&self, service: u32) -> super::intern::Mark {
        self.marks.get(service as usize).copied().unwrap_or_default()
    }

    fn judged(&self, flow: u32) -> Option<Judged> {
        let hot = self.hot.get(flow as usize)?;
        if let Some(known) = Judged::from(hot.judged.load(Ordering::Relaxed)) {
            return Some(known);
        }
        let judged = Judged::of(self.flows.get(flow)?);
        hot.judged.store(judged.byte(), Ordering::Relaxed);
        Some(judged)
    }

    /// s → t for every "restarting s requires restarting t": declared (both ways), needed by each other at
    /// start, observed twice or confirmed, or missed once.
    fn couple(&self) -> Coupling {
        let mut coupled: Coupling = BTreeMap::new();
        let mut needs: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for (service, id) in self.services.iter().zip(0_u32..) {
            let Some(declared) = &service.declared else { continue };
            let number = |name: &String| self.names.number(name);
            for other in declared.coupled.iter().filter_map(number).filter(|other| *other != id) {
                coupled.entry(id).or_default().insert(other);
                coupled.entry(other).or_default().insert(id);
            }
            if !declared.start_needs.is_empty() {
                needs.insert(id, declared.start_needs.iter().filter_map(number).collect());
            }
        }
        let below: BTreeMap<u32, BTreeSet<u32>> = needs.keys().map(|id| (*id, reachable(*id, &needs))).collect();
        for (id, reached) in &below {
            let mutual =
                reached.iter().filter(|other| *other != id && below.get(other).is_some_and(|back| back.contains(id)));
            let mutual: BTreeSet<u32> = mutual.copied().collect();
            if !mutual.is_empty() {
                coupled.entry(*id).or_default().extend(mutual);
            }
        }
        for ((service, with), (times, confirmed)) in &self.co_restarts {
            if *times >= 2 || *confirmed {
                coupled.entry(*service).or_default().insert(*with);
            }
        }
        for (caller, callee) in &self.missed {
            coupled.entry(*callee).or_default().insert(*caller);
        }
        coupled
    }
}

impl Index {
    pub(super) fn edge_view(&self, live: &Live, call: &Call) -> EdgeView {
        let nothing = Flow::default();
        let flow = live.flows.get(call.place).unwrap_or(&nothing);
        let edges = flow.known();
        let total = |of: fn(&Edge) -> u64| edges.clone().map(of).sum::<u64>();
        let timed = total(|edge| edge.timed);
        let duration: u128 = edges.clone().map(|edge| edge.duration_us).sum();
        let seconds = flow.history.seconds(live.keep);
        let recent = seconds.sum(self.taken_at.minus(self.config.baseline), self.taken_at);
        EdgeView {
            caller: self.order.name(call.caller).to_owned(),
            callee: self.order.name(call.callee).to_owned(),
            kind: call.kind,
            hardness: call.hardness,
            rate_mrps: edges.clone().map(|edge| edge.rate.mrps(&live.clock)).sum(),
            calls: total(|edge| edge.calls),
            executions: total(|edge| edge.executions),
            retries_permille: (recent.total.saturating_sub(recent.marked) * 1_000)
                .checked_div(recent.marked)
                .unwrap_or(0),
            mean_us: u64::try_from(duration.checked_div(u128::from(timed)).unwrap_or(0)).unwrap_or(u64::MAX),
            first_seen: edges.clone().filter_map(|edge| edge.first_seen).min(),
            last_seen: edges.clone().filter_map(|edge| edge.last_seen).max(),
            declared: flow.declared.is_some(),
            callee_ok: (total(|edge| edge.outcomes[0][0]), total(|edge| edge.outcomes[0][1])),
            callee_error: (total(|edge| edge.outcomes[1][0]), total(|edge| edge.outcomes[1][1])),
            inside: total(|edge| edge.inside),
            seconds,
            changed: flow.changed,
            fallback: flow.declared.as_ref().and_then(|declared| declared.fallback.clone()),
            missed: flow.missed,
        }
    }

    pub(super) fn live_evidence(&self, live: &Live, call: &Call) -> Evidence {
        let flow = live.flows.get(call.place);
        let edges = flow.into_iter().flat_map(Flow::known);
        let (mut calls, mut first, mut last) = (0, None, None);
        for edge in edges {
            calls += edge.calls;
            first = [first, edge.first_seen].into_iter().flatten().min();
            last = [last, edge.last_seen].into_iter().flatten().max();
        }
        Evidence {
            caller: self.order.name(call.caller).to_owned(),
            callee: self.order.name(call.callee).to_owned(),
            relation: Relation::Call,
            kind: Some(call.kind),
            hardness: Some(call.hardness),
            calls,
            first_seen: first,
            last_seen: last,
            source: EdgeView::source(
                calls,
                flow.is_some_and(|flow| flow.declared.is_some()),
                flow.is_some_and(|flow| flow.missed),
            )
            .into(),
        }
    }

    pub(super) fn service_view(&self, live: &Live, rank: u32) -> ServiceView {
        let (number, nothing) = (self.order.number_of(rank), Service::default());
        let service = live.services.get(number).unwrap_or(&nothing);
        let seconds = service.history.seconds(live.keep);
        let recent = seconds.sum(self.taken_at.minus(self.config.baseline), self.taken_at);
        let root_rate_mrps = service.roots.mrps(&live.clock);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let (alpha, limit) = (self.config.alpha, self.config.miss_max);
        let mature = service.operations.iter().filter(|operation| operation.tally(0).bound(alpha, 2) <= limit).count();
        let declared = service.declared.as_ref();
        let others = self.coupled.get(&rank).into_iter().flatten();
        ServiceView {
            kind: node_kind(service),
            rate_mrps: service.entries.mrps(&live.clock),
            root_rate_mrps,
            mean_us: mean(service),
            error_ppm: Ratio::up(recent.errors, recent.total).map_or(0, Ratio::ppm),
            fan_in: count(self.calls_to(rank).count()),
            fan_out: count(self.calls_of(rank).count()),
            cut_ppm: self.cut(live, rank, root_rate_mrps),
            inward: service.inward.tally(0),
            outward: service.outward.tally(self.singles(live, rank)),
            generation: service.generation().map(str::to_owned),
            instances: service.live_instances(self.taken_at, self.config.coverage_window),
            coupled: others.map(|other| self.order.name(*other).to_owned()).collect(),
            start_needs: declared.map(|declared| declared.start_needs.iter().cloned().collect()).unwrap_or_default(),
            objective_p99: declared.and_then(|declared| declared.objective_p99),
            objective_error_ppm: declared.and_then(|declared| declared.objective_error_ppm),
            replicas: declared.map(|declared| declared.replicas),
            min_available: declared.and_then(|declared| declared.min_available),
            quorum_of: declared.and_then(|declared| declared.quorum_of),
            declared: declared.is_some(),
            suspected: service.suspected || live.suspected.contains(&number),
            seconds,
            roots: service.root_history.seconds(live.keep),
            coverage: service.coverage.sum(self.taken_at, self.config.coverage_window),
            operations: (service.operations.len() as u64, mature as u64),
            changed: service.changed,
            zones: declared.map(|declared| declared.zones.clone()).unwrap_or_default(),
        }
    }

    pub(super) fn root_views(&self, live: &Live) -> BTreeMap<String, RootView> {
        let mut visits: BTreeMap<u32, BTreeMap<String, u64>> = BTreeMap::new();
        for (service, number) in live.services.iter().zip(0_u32..) {
            let name = self.order.name(self.order.rank_of(number));
            for (root, count) in &service.visits {
                visits.entry(*root).or_default().insert(name.to_owned(), *count);
            }
        }
        let mut roots: Vec<_> = live.roots.iter().zip(0_u32..).collect();
        roots.sort_by_key(|(root, _)| root.operation);
        let view = |(root, number): (&super::table::Root, u32)| {
            let visits = visits.remove(&number).unwrap_or_default();
            (root.name.to_string(), RootView { traces: root.traces, visits })
        };
        roots.into_iter().map(view).collect()
    }

    /// Edges of a service used by exactly one execution.
    fn singles(&self, live: &Live, rank: u32) -> u64 {
        let inner = live.inner.get(&self.order.number_of(rank)).copied();
        let flows = self.calls_of(rank).map(|(_, call)| call.place).chain(inner);
        let flows = flows.filter_map(|place| live.flows.get(place));
        flows.flat_map(|flow| &flow.edges).filter(|edge| edge.executions == 1).count() as u64
    }

    /// P(error on cut): share of arrivals over hard edges that are waited for, and roots, rounded up.
    fn cut(&self, live: &Live, rank: u32, root_rate_mrps: u64) -> u32 {
        let (mut all, mut failing) = (root_rate_mrps, root_rate_mrps);
        for (_, call) in self.calls_to(rank) {
            let edges = live.flows.get(call.place).into_iter().flat_map(Flow::known);
            let rate: u64 = edges.map(|edge| edge.rate.mrps(&live.clock)).sum();
            all += rate;
            if call.is_hard && call.kind != EdgeKind::Async && call.hardness != Hardness::Soft {
                failing += rate;
            }
        }
        // Without a rate nothing says that anybody copes.
        Ratio::up(failing, all).map_or(1_000_000, Ratio::ppm)
    }
}

impl Service {
    fn live_instances(&self, now: Timestamp, window: base::Millis) -> Vec<String> {
        let live = self.instances.iter().filter(|(_, last)| now.since(*last) <= window);
        live.map(|(name, _)| name.to_string()).collect()
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

fn node_kind(service: &Service) -> NodeKind {
    match (service.stores(), service.has_spans, service.is_queue) {
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

/// Whether answers treat an edge as hard: a declaration or statistics may soften it, ignorance never.
pub(super) fn is_hard(kind: EdgeKind, hardness: Hardness, missed: bool) -> bool {
    match (hardness, kind) {
        (Hardness::Hard, _) => true,
        (Hardness::Soft, _) | (Hardness::Unknown, EdgeKind::Async) => missed,
        (Hardness::Unknown, EdgeKind::Sync | EdgeKind::Store | EdgeKind::Declared) => true,
    }
}

/// The first rule that fits: declared only, store, async, sync; what the callee is comes later.
fn kind(flow: &Flow) -> EdgeKind {
    let declared = flow.declared.as_ref().and_then(|declared| declared.kind);
    let mut edges = flow.known().peekable();
    if edges.peek().is_none() {
        return declared.unwrap_or(EdgeKind::Declared);
    }
    if declared == Some(EdgeKind::Store) {
        return EdgeKind::Store;
    }
    let (mut inside, mut timed, mut queued) = (0_u64, 0_u64, true);
    for edge in edges {
        (inside, timed, queued) = (inside + edge.inside, timed + edge.timed, queued && edge.is_async);
    }
    // A declared sync edge is waited for, whatever the clocks say.
    let outside = declared.is_none() && timed > 0 && inside.saturating_mul(20) < timed;
    let outlives = outside && stats::cp_upper(inside, timed, 50_000) < Ratio::clamped(50_000);
    if declared == Some(EdgeKind::Async) || queued || outlives { EdgeKind::Async } else { EdgeKind::Sync }
}

/// Declared fallback or softness, else statistics over the executions; one operation that is hard makes the
/// dependency hard, and measured hardness stands against a declaration that it contradicts.
fn hardness(flow: &Flow) -> Hardness {
    let declared = flow.declared.as_ref();
    let judged = |outcomes: [[u64; 2]; 2]| {
        let [[ok_ok, ok_bad], [bad_ok, bad_bad]] = outcomes;
        stats::newcombe(bad_bad, bad_ok + bad_bad, ok_bad, ok_ok + ok_bad)
    };
    let all = flow.known().fold([[0; 2]; 2], |sum, edge| {
        let [[a, b], [c, d]] = sum;
        let [[e, f], [g, h]] = edge.outcomes;
        [[a + e, b + f], [c + g, d + h]]
    });
    let hard = all[1] != [0, 0] && {
        let mut failed = flow.known().filter(|edge| edge.outcomes[1] != [0, 0]);
        failed.any(|edge| judged(edge.outcomes).0 >= 500_000) || judged(all).0 >= 500_000
    };
    if hard || declared.and_then(|declared| declared.hardness) == Some(Hardness::Hard) {
        return Hardness::Hard;
    }
    let softened =
        declared.is_some_and(|declared| declared.fallback.is_some() || declared.hardness == Some(Hardness::Soft));
    let measured = all[1] != [0, 0] && judged(all).1 < 100_000;
    if softened || measured { Hardness::Soft } else { Hardness::Unknown }
}
