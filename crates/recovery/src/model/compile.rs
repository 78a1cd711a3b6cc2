//! The input with every name resolved to an index, once for all runs.

use super::draw::Exponential;
use super::engine::{Mode, Run};
use super::{EdgeFit, Health, Input, ServiceFit, Step};
use crate::isa::{Action, ActionKind};
use std::collections::{BTreeMap, BTreeSet};

/// The caller of root edges.
pub(super) const CLIENT: usize = usize::MAX;
/// How deep calls may nest; deeper ones are answered at once.
pub(super) const HOPS_MAX: u8 = 16;
/// Busy share in permille up to which a service counts as calm, even if every retry happened.
const CALM_PERMILLE: u64 = 500;
/// Events one execution costs: arrival and continuation, end, timeout.
const EVENTS_PER_EXECUTION: u64 = 5;

pub(super) struct Compiled<'a> {
    pub(super) input: &'a Input,
    pub(super) services: Vec<Service<'a>>,
    pub(super) edges: Vec<Edge>,
    pub(super) roots: Vec<Root<'a>>,
    pub(super) steps: Vec<Stage<'a>>,
    pub(super) settings: Vec<Op>,
    pub(super) impairments: Vec<(usize, usize, Health)>,
    /// Instances that returning an object to an older revision is assumed to make well, by object.
    pub(super) cures: Vec<(&'a str, usize, usize)>,
    /// One simulated request stands for so many.
    pub(super) thinning: u64,
    pub(super) exponential: Exponential,
    /// Sentences on what of the input the model cannot represent.
    pub(super) unknown: Vec<String>,
}

pub(super) struct Service<'a> {
    pub(super) fit: &'a ServiceFit,
    pub(super) workers: u32,
    pub(super) queue_max: u32,
    /// Own times are multiplied by this to make up for rounding `workers`.
    pub(super) stretch_permille: u64,
    /// Outgoing edges in the order of the calls.
    pub(super) calls: Vec<usize>,
    /// Never near its capacity: a pure delay.
    pub(super) calm: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Edge {
    pub(super) name: String,
    pub(super) caller: usize,
    pub(super) callee: usize,
    pub(super) permille: u64,
    pub(super) timeout_us: Option<u64>,
    pub(super) attempts: u32,
    pub(super) base_us: u64,
    pub(super) cap_us: u64,
    pub(super) budget_ppm: Option<u64>,
    pub(super) asynchronous: bool,
    pub(super) soft: bool,
}

pub(super) struct Root<'a> {
    pub(super) edge: usize,
    pub(super) per_second: &'a [u32],
    pub(super) periodic: bool,
}

/// What a field of a step means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    LimitEdge(usize, Option<u64>),
    LimitService(usize, Option<u64>),
    Breaker(usize, bool),
    Weight(usize, usize, i64),
    Replicas(usize, usize),
    Restart(usize, usize),
}

pub(super) struct Stage<'a> {
    pub(super) step: &'a Step,
    pub(super) ops: Vec<Op>,
    pub(super) kind: ActionKind,
    /// Percentages of the way back, with the time between; one element of 100 for all but RestoreTraffic.
    pub(super) ramp: Vec<u64>,
    pub(super) ramp_us: u64,
    pub(super) wave: usize,
    pub(super) grace_us: u64,
    pub(super) burst: Option<u64>,
}

impl<'a> Compiled<'a> {
    pub(super) fn new(input: &'a Input) -> Compiled<'a> {
        let index: BTreeMap<&str, usize> =
            input.fit.services.iter().enumerate().map(|(i, s)| (s.name.as_str(), i)).collect();
        let mut edges: Vec<Edge> = input.fit.edges.iter().filter_map(|edge| Edge::new(edge, &index)).collect();
        let mut roots = Vec::new();
        for root in &input.fit.roots {
            let Some(&callee) = index.get(root.service.as_str()) else { continue };
            roots.push(Root { edge: edges.len(), per_second: &root.per_second, periodic: root.periodic });
            edges.push(Edge::of_root(&root.service, callee, root.timeout_us));
        }
        let mut unknown = Vec::new();
        let names = Names { index: &index, edges: &edges };
        let mut compiled = Compiled {
            input,
            services: Vec::new(),
            steps: input.steps.iter().map(|step| Stage::new(step, &names, &mut unknown)).collect(),
            settings: input.settings.iter().filter_map(|(field, value)| names.op(field, *value)).collect(),
            impairments: impairments(input, &index),
            cures: cures(input, &index),
            roots,
            thinning: 1,
            exponential: Exponential::new(),
            unknown,
            edges: Vec::new(),
        };
        compiled.edges = edges;
        compiled.services = input.fit.services.iter().map(Service::new).collect();
        for (i, edge) in compiled.edges.iter().enumerate().filter(|(_, edge)| edge.caller != CLIENT) {
            compiled.services[edge.caller].calls.push(i);
        }
        compiled.find_calm();
        compiled.thin();
        compiled
    }

    /// Rate into each service and over each edge in milli-requests per second, under the given limits;
    /// with `attempts` as if every retry happened.
    pub(super) fn flows(&self, limits: &[Op], attempts: bool) -> (Vec<u64>, Vec<u64>) {
        let mut totals = vec![0; self.services.len()];
        let mut over = vec![0; self.edges.len()];
        let mut front: Vec<u64> = vec![0; self.services.len()];
        for (root, fit) in self.roots.iter().zip(&self.input.fit.roots) {
            self.flow(root.edge, fit.rate_mrps(), limits, &mut front, &mut over);
        }
        for _ in 0..HOPS_MAX {
            let mut next = vec![0; self.services.len()];
            for (service, rate) in front.iter().enumerate().filter(|(_, rate)| **rate > 0) {
                totals[service] += rate;
                for &e in &self.services[service].calls {
                    let edge = &self.edges[e];
                    let tries = if attempts { u64::from(edge.attempts) } else { 1 };
                    let calls = rate.saturating_mul(edge.permille).saturating_mul(tries) / 1_000;
                    self.flow(e, calls, limits, &mut next, &mut over);
                }
            }
            front = next;
        }
        (totals, over)
    }

    fn flow(&self, e: usize, rate: u64, limits: &[Op], into: &mut [u64], over: &mut [u64]) {
        let callee = self.edges[e].callee;
        let mut rate = rate;
        for limit in limits {
            match *limit {
                Op::LimitEdge(edge, Some(bound)) if edge == e => rate = rate.min(bound),
                Op::LimitService(service, Some(bound)) if service == callee => rate = rate.min(bound),
                Op::Breaker(edge, true) if edge == e => rate = 0,
                _ => {}
            }
        }
        into[callee] += rate;
        over[e] += rate;
    }

    /// Services that nothing happens to and that stay far from their capacity even if every retry
    /// happened are modeled as delays: their queues would never form.
    fn find_calm(&mut self) {
        let touched = self.touched();
        let (worst, _) = self.flows(&[], true);
        let mut longest: Vec<Option<(u64, u64)>> = vec![None; self.services.len()];
        // A service can only be calm after its callees were found calm; callees stand at most HOPS_MAX deep.
        for _ in 0..HOPS_MAX {
            for s in 0..self.services.len() {
                if longest[s].is_none() && !touched.contains(&s) {
                    longest[s] = self.calm_times(s, worst[s], &longest);
                }
            }
        }
        for (service, times) in self.services.iter_mut().zip(&longest) {
            service.calm = times.is_some();
        }
    }

    /// Mean and longest time of a service with its callees, if it is calm.
    fn calm_times(&self, s: usize, worst_mrps: u64, known: &[Option<(u64, u64)>]) -> Option<(u64, u64)> {
        let fit = self.services[s].fit;
        let count = fit.times_us.len() as u64;
        let total: u64 = fit.times_us.iter().map(|time| u64::from(*time)).sum();
        let mut mean = total.checked_div(count).unwrap_or(0);
        let mut longest = fit.times_us.last().map_or(0, |time| u64::from(*time));
        for &e in &self.services[s].calls {
            let edge = &self.edges[e];
            let (callee_mean, callee_longest) = known[edge.callee]?;
            if edge.asynchronous {
                continue;
            }
            let calls = edge.permille.div_ceil(1_000);
            mean += callee_mean * edge.permille / 1_000;
            longest += callee_longest * calls;
        }
        let into = self.edges.iter().filter(|edge| edge.callee == s);
        let in_time = into.filter_map(|edge| edge.timeout_us).all(|timeout| longest < timeout);
        // Busy workers = rate × time; milli-requests × microseconds / 10⁹.
        let busy_permille = worst_mrps.saturating_mul(mean) / 1_000_000;
        let workers = u64::from(fit.workers) * u64::from(fit.replicas);
        (in_time && busy_permille <= workers * CALM_PERMILLE).then_some((mean, longest))
    }

    /// Services that are impaired, or that the plan or a setting touches, or that stand at the end of a
    /// touched edge.
    fn touched(&self) -> BTreeSet<usize> {
        let ops = self.steps.iter().flat_map(|stage| &stage.ops).chain(&self.settings);
        let mut touched: BTreeSet<usize> = self.impairments.iter().map(|(service, _, _)| *service).collect();
        for op in ops {
            match *op {
                Op::LimitEdge(e, _) | Op::Breaker(e, _) => touched.insert(self.edges[e].callee),
                Op::LimitService(s, _) | Op::Weight(s, _, _) | Op::Replicas(s, _) | Op::Restart(s, _) => {
                    touched.insert(s)
                }
            };
        }
        touched
    }

    /// 1.2 times the longest delay that can postpone an effect: a timeout, a wait before a retry, a start.
    pub(super) fn horizon_us(&self) -> u64 {
        let waits = self.edges.iter().filter(|edge| edge.attempts > 1).map(|edge| edge.cap_us.max(edge.base_us));
        let timeouts = self.edges.iter().filter_map(|edge| edge.timeout_us);
        let starts = self.steps.iter().flat_map(|stage| &stage.ops).filter_map(|op| match op {
            Op::Restart(s, _) | Op::Replicas(s, _) => self.services[*s].fit.start_up_us.last().copied(),
            _ => None,
        });
        waits.chain(timeouts).chain(starts.map(u64::from)).max().unwrap_or(0) * 6 / 5
    }

    fn thin(&mut self) {
        let config = &self.input.config;
        let (rates, _) = self.flows(&[], false);
        let lively = self.services.iter().zip(&rates).filter(|(service, _)| !service.calm);
        // Half as many executions again as in health: part of the time is a storm.
        let per_second = lively.map(|(_, rate)| rate * EVENTS_PER_EXECUTION * 3 / 2).sum::<u64>() / 1_000;
        let events = per_second * self.expected_ms() / 1_000;
        let allowed = (config.events_max / u64::from(config.runs.max(1))).max(1);
        self.thinning = match events.div_ceil(allowed) {
            0 | 1 => 1,
            // WHY: thinning makes pools coarse and storms likelier, so a guess is not enough: one whole run is
            // counted first. A run that hits its own cap leaves the guess.
            guess => {
                let counted = Run::new(self, 0, Mode::Plan).finish().events;
                if counted > 4 * allowed { guess } else { counted.div_ceil(allowed).max(1) }
            }
        };
        for service in &mut self.services {
            service.thin(self.thinning);
        }
    }

    /// How long a run is expected to last.
    fn expected_ms(&self) -> u64 {
        let config = &self.input.config;
        let starts = |stage: &Stage<'_>| {
            let slowest = stage.ops.iter().filter_map(|op| match op {
                Op::Restart(s, _) => self.services[*s].fit.start_up_us.last().copied(),
                _ => None,
            });
            slowest.map(u64::from).max().unwrap_or(0) / 1_000
        };
        let steps = self.steps.iter().map(|stage| {
            let ramp = stage.ramp_us / 1_000 * (stage.ramp.len() as u64).saturating_sub(1);
            config.overhead_ms
                + stage.step.guard_ms
                + stage.step.done_ms
                + ramp
                + stage.grace_us / 1_000
                + starts(stage)
        });
        config.warm_up_ms + config.onset_max_ms.min(self.input.since_onset_ms) + steps.sum::<u64>() + 2_000
    }
}

impl<'a> Service<'a> {
    fn new(fit: &'a ServiceFit) -> Service<'a> {
        Service {
            fit,
            workers: fit.workers.max(1),
            queue_max: fit.queue_max.unwrap_or(u32::MAX),
            stretch_permille: 1_000,
            calls: Vec::new(),
            calm: false,
        }
    }

    fn thin(&mut self, factor: u64) {
        if factor == 1 || self.calm {
            return;
        }
        let workers = u64::from(self.workers);
        let kept = ((workers + factor / 2) / factor).max(1);
        self.stretch_permille = kept * factor * 1_000 / workers;
        self.workers = u32::try_from(kept).unwrap_or(u32::MAX);
        let queue = u64::from(self.queue_max).div_ceil(factor);
        self.queue_max = if self.queue_max == u32::MAX { u32::MAX } else { u32::try_from(queue).unwrap_or(u32::MAX) };
    }
}

impl Edge {
    fn new(fit: &EdgeFit, index: &BTreeMap<&str, usize>) -> Option<Edge> {
        Some(Edge {
            name: format!("{}->{}", fit.caller, fit.callee),
            caller: *index.get(fit.caller.as_str())?,
            callee: *index.get(fit.callee.as_str())?,
            permille: u64::from(fit.calls_permille),
            timeout_us: fit.timeout_us,
            attempts: fit.attempts.max(1),
            base_us: fit.base_us,
            cap_us: fit.cap_us,
            budget_ppm: fit.budget_ppm.map(u64::from),
            asynchronous: fit.asynchronous,
            soft: fit.soft,
        })
    }

    fn of_root(service: &str, callee: usize, timeout_us: Option<u64>) -> Edge {
        Edge {
            name: format!("->{service}"),
            caller: CLIENT,
            callee,
            permille: 1_000,
            timeout_us,
            attempts: 1,
            base_us: 0,
            cap_us: 0,
            budget_ppm: None,
            asynchronous: false,
            soft: false,
        }
    }
}

struct Names<'a> {
    index: &'a BTreeMap<&'a str, usize>,
    edges: &'a [Edge],
}

impl Names<'_> {
    /// The meaning of one field; `None` for a field or name the model does not have.
    fn op(&self, field: &str, value: i64) -> Option<Op> {
        let (kind, subject) = field.split_once('/')?;
        let edge = || self.edges.iter().position(|edge| edge.caller != CLIENT && edge.name == subject);
        let service = |name: &str| self.index.get(name).copied();
        let instance = || {
            let (name, replica) = subject.split_once('@')?;
            Some((service(name)?, replica.parse::<usize>().ok()?))
        };
        let rate = u64::try_from(value).ok();
        match kind {
            "limit" if subject.contains("->") => Some(Op::LimitEdge(edge()?, rate)),
            "limit" => Some(Op::LimitService(service(subject)?, rate)),
            "breaker" => Some(Op::Breaker(edge()?, value != 0)),
            "weight" => instance().map(|(s, replica)| Op::Weight(s, replica, value)),
            "replicas" => Some(Op::Replicas(service(subject)?, usize::try_from(value).ok()?)),
            "generation" => instance().map(|(s, replica)| Op::Restart(s, replica)),
            _ => None,
        }
    }
}

impl<'a> Stage<'a> {
    fn new(step: &'a Step, names: &Names<'_>, unknown: &mut Vec<String>) -> Stage<'a> {
        let mut ops = Vec::new();
        for (field, value) in &step.desired {
            match names.op(field, *value) {
                Some(op) => ops.push(op),
                None => unknown.push(format!("{}: {field} is not modeled", step.key)),
            }
        }
        let mut stage = Stage {
            step,
            ops,
            kind: step.action.kind(),
            ramp: vec![100],
            ramp_us: 0,
            wave: usize::MAX,
            grace_us: 0,
            burst: None,
        };
        match &step.action {
            Action::Restart { wave, grace_ms, .. } => {
                stage.wave = (*wave).max(1) as usize;
                stage.grace_us = grace_ms.unwrap_or(0) * 1_000;
            }
            Action::Drain { timeout_ms, .. } => stage.grace_us = timeout_ms.unwrap_or(0) * 1_000,
            Action::RestoreTraffic { ramp, ramp_ms, .. } if !ramp.is_empty() => {
                stage.ramp = ramp.iter().map(|percent| u64::from(*percent)).collect();
                stage.ramp_us = ramp_ms.unwrap_or(0) * 1_000;
            }
            Action::RateLimit { burst, .. } => stage.burst = burst.map(u64::from),
            _ => {}
        }
        stage
    }
}

impl Stage<'_> {
    /// Whether the step returns this object (`KIND/NS/NAME`) to an older revision.
    pub(super) fn rolls_back(&self, object: &str) -> bool {
        let Action::RollbackConfig { kind, namespace, name, .. } = &self.step.action else { return false };
        object == format!("{kind}/{namespace}/{name}")
    }
}

fn impairments(input: &Input, index: &BTreeMap<&str, usize>) -> Vec<(usize, usize, Health)> {
    let resolve = |i: &super::Impairment| Some((*index.get(i.service.as_str())?, i.replica as usize, i.health));
    input.impairments.iter().filter_map(resolve).collect()
}

fn cures<'a>(input: &'a Input, index: &BTreeMap<&str, usize>) -> Vec<(&'a str, usize, usize)> {
    let resolve =
        |i: &'a super::Impairment| Some((i.caused_by.as_deref()?, *index.get(i.service.as_str())?, i.replica as usize));
    input.impairments.iter().filter_map(resolve).collect()
}
