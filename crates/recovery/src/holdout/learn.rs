use super::traces::Traces;
use super::{Check, Counted, HoldoutError, ServiceNumbers, Share};
use crate::graph::{Config, Level, Snapshot};
use crate::replay::Replay;
use crate::span::Span;
use crate::topology::Topology;
use std::collections::{BTreeMap, BTreeSet};

/// A recording, joined once for the truth, and ready to be learned from in part.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    config: &'a Config,
    topology: Option<&'a Topology>,
    /// The spans, each with the number of its trace, in the order of their ends.
    order: Vec<(&'a Span, u32)>,
    pub(super) traces: Traces,
    truth: BTreeMap<String, Truth>,
}

/// What is true of a decision to restart a service.
#[derive(Clone, Debug, Default)]
struct Truth {
    /// Hard callers that traces show.
    callers: BTreeSet<String>,
    /// Group members, and every hard caller that the edges of the whole recording allow, on a path that a trace took
    /// or not.
    closure: Needs,
}

/// What a decision to restart a service has to name.
#[derive(Clone, Debug, Default)]
struct Needs {
    members: BTreeSet<String>,
    callers: BTreeSet<String>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        config: &'a Config,
        topology: Option<&'a Topology>,
        spans: &'a [Span],
    ) -> Result<Bench<'a>, HoldoutError> {
        let traces = Traces::of(spans);
        let mut order: Vec<(&Span, u32)> = spans.iter().zip(traces.of_span.iter().copied()).collect();
        order.sort_by_key(|(span, _)| (span.end_us(), span.trace, span.id));
        let mut bench = Bench { config, topology, order, traces, truth: BTreeMap::new() };
        let whole = bench.learn(|_, _| true)?;
        let callers = bench.callers(&whole);
        let truth = |name: &str| {
            let closure = needs(&whole, name);
            let seen = closure.members.iter().filter_map(|member| callers.get(member.as_str())).flatten();
            let callers = seen.filter(|caller| !closure.members.contains(**caller)).map(|name| (*name).to_owned());
            Truth { callers: callers.collect(), closure }
        };
        bench.truth = whole.services().map(|name| (name.to_owned(), truth(name))).collect();
        Ok(bench)
    }

    /// Of each service, who was seen to reach it in a trace, over edges that the whole recording treats as hard.
    fn callers<'t>(&'t self, whole: &Snapshot) -> BTreeMap<&'t str, BTreeSet<&'t str>> {
        let names: BTreeMap<u32, &str> =
            self.traces.services().iter().map(|(name, number)| (*number, name.as_str())).collect();
        let name = |number: u32| names.get(&number).copied().unwrap_or_default();
        let hard: BTreeSet<(&str, &str)> = whole
            .edges()
            .iter()
            .filter(|edge| edge.is_hard())
            .map(|edge| (edge.caller.as_str(), edge.callee.as_str()))
            .collect();
        let is_hard = |(caller, callee): (u32, u32)| hard.contains(&(name(caller), name(callee)));
        let entries = &self.traces.entries;
        // Of each execution, the services above it that fail with it.
        let mut above: Vec<BTreeSet<u32>> = Vec::with_capacity(entries.len());
        let reached = |above: &[BTreeSet<u32>], from: Option<u32>, call: Option<(u32, u32)>, within: bool| {
            let Some(from) = from.filter(|_| within || call.is_some_and(is_hard)) else { return BTreeSet::new() };
            let mut services = above.get(from as usize).cloned().unwrap_or_default();
            services.extend(call.map(|(caller, _)| caller));
            services
        };
        let mut callers: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for entry in entries {
            // An inner execution is reached as the one around it is.
            let within = entry.call.is_none() && entry.edges == [None; 2];
            let services = reached(&above, entry.above, entry.call, within);
            callers.entry(entry.service).or_default().extend(&services);
            above.push(services);
        }
        for call in &self.traces.outgoing {
            let services = reached(&above, Some(call.from), call.call, false);
            call.call.into_iter().for_each(|(_, callee)| callers.entry(callee).or_default().extend(&services));
        }
        let named = |services: BTreeSet<u32>| services.into_iter().map(name).collect();
        callers.into_iter().map(|(service, callers)| (name(service), named(callers))).collect()
    }

    /// Learns from the traces marked and asks about the others.
    pub(super) fn split(&self, learned: &[bool]) -> Result<Counted, HoldoutError> {
        let is_learned = |trace: u32| learned.get(trace as usize).copied().unwrap_or(false);
        let snapshot = self.learn(|_, trace| is_learned(trace))?;
        let mut known = vec![false; self.traces.edge_count()];
        let of_entries =
            self.traces.entries.iter().filter(|entry| is_learned(entry.trace)).flat_map(|entry| entry.edges);
        let of_outgoing =
            self.traces.outgoing.iter().filter(|call| is_learned(self.trace_of(call.from))).map(|call| call.edge);
        for edge in of_entries.chain(of_outgoing).flatten() {
            known.get_mut(edge as usize).into_iter().for_each(|known| *known = true);
        }
        let mut counted = self.missed(&snapshot, |trace| !is_learned(trace));
        counted.checks = self.checks(&snapshot, &known, |trace| !is_learned(trace));
        self.decide(&snapshot, &mut counted);
        Ok(counted)
    }

    /// Learns without the spans of one service and asks about everything.
    pub(super) fn without(&self, dark: &str) -> Result<Counted, HoldoutError> {
        let snapshot = self.learn(|span, _| span.service != dark)?;
        let mut counted = self.missed(&snapshot, |_| true);
        self.decide(&snapshot, &mut counted);
        Ok(counted)
    }

    /// The services with the most spans, at most `limit` of them.
    pub(super) fn busiest(&self, limit: usize) -> Vec<&'a str> {
        let mut spans: BTreeMap<&str, u64> = BTreeMap::new();
        self.order.iter().for_each(|(span, _)| *spans.entry(&span.service).or_insert(0) += 1);
        let mut busiest: Vec<(&str, u64)> = spans.into_iter().collect();
        busiest.sort_by_key(|(name, spans)| (std::cmp::Reverse(*spans), *name));
        busiest.into_iter().take(limit).map(|(name, _)| name).collect()
    }

    /// The hard callers of a service that traces show, and those that the edges allow.
    #[cfg(test)]
    pub(super) fn truth_of(&self, service: &str) -> Option<(Vec<String>, Vec<String>)> {
        let truth = self.truth.get(service)?;
        Some((truth.callers.iter().cloned().collect(), truth.closure.callers.iter().cloned().collect()))
    }

    fn learn(&self, takes: impl Fn(&Span, u32) -> bool) -> Result<Snapshot, HoldoutError> {
        let mut replay = Replay::new(self.config, self.topology)?;
        self.order.iter().filter(|(span, trace)| takes(span, *trace)).for_each(|(span, _)| replay.take(span));
        let (graph, now) = replay.finish();
        Ok(graph.snapshot(now))
    }

    fn trace_of(&self, entry: u32) -> u32 {
        self.traces.entries.get(entry as usize).map_or(0, |entry| entry.trace)
    }

    /// Edges, calls and traces of the held-out part that the snapshot does not know.
    fn missed(&self, snapshot: &Snapshot, is_held: impl Fn(u32) -> bool) -> Counted {
        let numbers: ServiceNumbers<'_> =
            self.traces.services().iter().map(|(name, number)| (name.as_str(), *number)).collect();
        let pair = |edge: &crate::graph::EdgeView| {
            Some((*numbers.get(edge.caller.as_str())?, *numbers.get(edge.callee.as_str())?))
        };
        let known: BTreeSet<(u32, u32)> = snapshot.edges().iter().filter_map(pair).collect();
        let mut held = BTreeSet::new();
        let mut counted = Counted::default();
        let mut unknown_in: BTreeSet<u32> = BTreeSet::new();
        let entered = self.traces.entries.iter().map(|entry| (entry.trace, entry.call));
        let outgoing = self.traces.outgoing.iter().map(|call| (self.trace_of(call.from), call.call));
        for (trace, call) in entered.chain(outgoing).filter(|(trace, _)| is_held(*trace)) {
            let Some(call) = call else { continue };
            held.insert(call);
            counted.calls.n += 1;
            if !known.contains(&call) {
                counted.calls.k += 1;
                unknown_in.insert(trace);
            }
        }
        let traces = (0_u32..).zip(&self.traces.starts_us).filter(|(trace, _)| is_held(*trace)).count();
        counted.traces = Share { k: unknown_in.len() as u64, n: traces as u64 };
        counted.edges = Share { k: held.difference(&known).count() as u64, n: held.len() as u64 };
        counted
    }

    /// Asks about every service that there is; what the whole recording says is the truth.
    fn decide(&self, snapshot: &Snapshot, counted: &mut Counted) {
        for (service, truth) in &self.truth {
            let found = needs(snapshot, service);
            let members = truth.closure.members.is_subset(&found.members);
            let complete = members && truth.callers.is_subset(&found.callers);
            let closed = members && truth.closure.callers.is_subset(&found.callers);
            let permission = permission(snapshot, &found);
            let full = permission.level == Level::Full;
            counted.full.n += 1;
            counted.full.k += u64::from(full);
            counted.missed += u64::from(!complete);
            counted.missed_at_full += u64::from(full && !complete);
            counted.not_closed_at_full += u64::from(full && !closed);
            if full {
                let bound = base::Ratio::clamped(permission.miss_ppm.into());
                counted.bound = counted.bound.max(Some(bound));
            }
        }
    }

    /// The two bounds of every service with full permission against what the held-out traces show: ways in and
    /// calls out that use an operation edge the learned part does not have.
    fn checks(&self, snapshot: &Snapshot, known: &[bool], is_held: impl Fn(u32) -> bool) -> Vec<Check> {
        let unknown = |edge: Option<u32>| edge.is_some_and(|edge| !known.get(edge as usize).copied().unwrap_or(false));
        let entries = &self.traces.entries;
        // Of each execution: whether its way in, and whether a call out of it, is a surprise.
        let (mut inward, mut outward) = (vec![false; entries.len()], vec![false; entries.len()]);
        for (at, entry) in entries.iter().enumerate() {
            let through = entry.edges.into_iter().any(unknown);
            let above = entry.above.map(|above| above as usize);
            let before = above.and_then(|above| inward.get(above).copied()).unwrap_or(false);
            inward.get_mut(at).into_iter().for_each(|slot| *slot = entry.lost || before || through);
            if unknown(entry.edges[0]) {
                above.and_then(|above| outward.get_mut(above)).into_iter().for_each(|slot| *slot = true);
            }
        }
        for call in self.traces.outgoing.iter().filter(|call| call.edge.is_none() || unknown(call.edge)) {
            outward.get_mut(call.from as usize).into_iter().for_each(|slot| *slot = true);
        }
        let mut executions: BTreeMap<u32, Share> = BTreeMap::new();
        let mut ways: BTreeMap<(u32, u32), bool> = BTreeMap::new();
        for ((entry, inward), outward) in entries.iter().zip(&inward).zip(&outward) {
            if is_held(entry.trace) {
                executions.entry(entry.service).or_default().add(Share { k: u64::from(*outward), n: 1 });
                *ways.entry((entry.service, entry.trace)).or_insert(false) |= inward;
            }
        }
        let mut visits: BTreeMap<u32, Share> = BTreeMap::new();
        for ((service, _), surprised) in ways {
            visits.entry(service).or_default().add(Share { k: u64::from(surprised), n: 1 });
        }
        let mut checks = Vec::new();
        for service in self.truth.keys() {
            let Some(number) = self.traces.services().get(service) else { continue };
            let permission = permission(snapshot, &needs(snapshot, service));
            if permission.level == Level::Full {
                let mut check = |bound: u32, found: Option<&Share>| {
                    let bound = base::Ratio::clamped(bound.into());
                    checks.extend(found.map(|surprises| Check { bound, surprises: *surprises }));
                };
                check(permission.miss_in_ppm, visits.get(number));
                check(permission.miss_out_ppm, executions.get(number));
            }
        }
        checks
    }
}

fn needs(snapshot: &Snapshot, service: &str) -> Needs {
    if !snapshot.contains(service) {
        return Needs { members: BTreeSet::from([service.to_owned()]), callers: BTreeSet::new() };
    }
    let members = snapshot.coupled_closure(&[service]);
    let names: Vec<&str> = members.iter().map(String::as_str).collect();
    let all = u32::try_from(snapshot.services().count()).unwrap_or(u32::MAX);
    let callers = snapshot.hard_callers(&names, all).names().iter().cloned().collect();
    Needs { members, callers }
}

fn permission(snapshot: &Snapshot, needs: &Needs) -> crate::graph::Permission {
    let names: Vec<&str> = needs.members.iter().map(String::as_str).collect();
    snapshot.permission(&names, snapshot.taken_at())
}
