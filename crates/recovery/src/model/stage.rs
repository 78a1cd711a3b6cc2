//! How the plan acts on a run: step after step, each as long as the kernel would take for it.

use super::Health;
use super::compile::Op;
use super::engine::{FIRST_STEP, Run};
use crate::isa::ActionKind;

/// Where the plan stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// When the plan began and, once it has, ended.
    pub(super) began: u64,
    pub(super) ended: Option<u64>,
    pub(super) trigger_gone: bool,
    active: bool,
    step: usize,
    step_began: u64,
    phase: Phase,
    /// Instances not yet taken, and those of the current wave.
    waiting: Vec<(usize, usize)>,
    out: Vec<Out>,
    ramp: usize,
    ramp_at: u64,
    /// Settings before this plan changed them, for ramps.
    before: Vec<Op>,
    held_since: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Preparing,
    Acting,
    Guarding,
}

/// An instance on its way through a restart or a start.
#[derive(Clone, Copy, Debug)]
struct Out {
    service: usize,
    replica: usize,
    since: u64,
    hung: bool,
    killed: bool,
}

impl Progress {
    pub(super) fn begin(&mut self, now: u64) {
        self.began = now;
        self.step_began = now;
        self.active = true;
    }
}

impl Run<'_> {
    pub(super) fn advance_plan(&mut self) {
        if !self.progress.active {
            return;
        }
        let Some(stage) = self.compiled.steps.get(self.progress.step) else {
            self.end_plan();
            return;
        };
        let elapsed = self.now - self.progress.step_began;
        if elapsed > (stage.step.deadline_ms + stage.step.guard_ms) * 1_000 {
            self.outcome.failed_step = Some(self.progress.step);
            self.end_plan();
            self.outcome.delay_us = None;
            return;
        }
        match self.progress.phase {
            Phase::Preparing => {
                if elapsed >= self.compiled.input.config.overhead_ms * 1_000 {
                    self.act();
                }
            }
            Phase::Acting => {
                if self.is_performed() {
                    self.progress.phase = Phase::Guarding;
                    self.progress.held_since = None;
                    self.guard();
                }
            }
            Phase::Guarding => self.guard(),
        }
    }

    fn end_plan(&mut self) {
        self.progress.active = false;
        self.progress.ended = Some(self.now);
        self.outcome.delay_us = Some(self.now - self.progress.began);
        self.window = FIRST_STEP + self.compiled.steps.len();
    }

    fn act(&mut self) {
        let compiled = self.compiled;
        let stage = &compiled.steps[self.progress.step];
        self.progress.phase = Phase::Acting;
        self.progress.before = stage.ops.iter().map(|op| self.current(*op)).collect();
        self.progress.ramp = 0;
        self.progress.ramp_at = self.now;
        self.progress.out.clear();
        match stage.kind {
            ActionKind::Restart => {
                let instances = stage.ops.iter().filter_map(|op| match *op {
                    Op::Restart(s, replica) if replica < self.services[s].replicas.len() => Some((s, replica)),
                    _ => None,
                });
                self.progress.waiting = instances.rev().collect();
            }
            ActionKind::RestoreTraffic => {}
            ActionKind::RollbackConfig => {
                let ended = compiled.cures.iter().filter(|(object, ..)| stage.rolls_back(object));
                ended.for_each(|(_, s, replica)| self.impair(*s, *replica, Health::Up));
            }
            _ => {
                for op in &stage.ops {
                    self.set(*op, stage.burst);
                }
            }
        }
        // What needs no time is done in this very look.
        if self.is_performed() {
            self.progress.phase = Phase::Guarding;
            self.progress.held_since = None;
        }
    }

    /// Whether the action has been carried out: then the actuator answers.
    fn is_performed(&mut self) -> bool {
        let stage = &self.compiled.steps[self.progress.step];
        match stage.kind {
            ActionKind::Restart => self.take_waves(),
            ActionKind::RestoreTraffic => self.take_ramp(),
            ActionKind::Drain => {
                let waited = self.now - self.progress.ramp_at >= stage.grace_us;
                waited || stage.ops.iter().all(|op| self.is_drained(*op))
            }
            ActionKind::Scale => self.are_out_ready(),
            ActionKind::CircuitBreak | ActionKind::RateLimit | ActionKind::RollbackConfig => true,
        }
    }

    fn is_drained(&self, op: Op) -> bool {
        match op {
            Op::Weight(s, replica, 0) if replica < self.services[s].replicas.len() => self.in_flight(s, replica) == 0,
            _ => true,
        }
    }

    fn are_out_ready(&self) -> bool {
        self.progress.out.iter().all(|out| self.services[out.service].replicas[out.replica].health == Health::Up)
    }

    fn take_waves(&mut self) -> bool {
        let stage = &self.compiled.steps[self.progress.step];
        for i in 0..self.progress.out.len() {
            let out = self.progress.out[i];
            let idle = !out.hung && self.in_flight(out.service, out.replica) == 0;
            if !out.killed && (idle || self.now - out.since >= stage.grace_us) {
                self.kill(out.service, out.replica);
                let start_up = self.start_up(out.service);
                self.start(out.service, out.replica, start_up);
                self.progress.out[i].killed = true;
            }
        }
        let all_killed = self.progress.out.iter().all(|out| out.killed);
        if !all_killed || !self.are_out_ready() {
            return false;
        }
        if self.progress.waiting.is_empty() {
            return true;
        }
        self.progress.out.clear();
        for _ in 0..stage.wave.min(self.progress.waiting.len()) {
            let Some((service, replica)) = self.progress.waiting.pop() else { break };
            let health = &mut self.services[service].replicas[replica].health;
            let hung = *health == Health::Hung;
            if !hung {
                // A process asked to end takes nothing new and finishes what it has.
                *health = Health::Down;
            }
            self.progress.out.push(Out { service, replica, since: self.now, hung, killed: false });
        }
        false
    }

    fn start_up(&mut self, s: usize) -> u64 {
        let sample = &self.compiled.services[s].fit.start_up_us;
        let slowest = sample.last().copied().unwrap_or(0);
        u64::from(if self.hostile { slowest } else { self.plan_draw.pick(sample) })
    }

    fn take_ramp(&mut self) -> bool {
        let compiled = self.compiled;
        let stage = &compiled.steps[self.progress.step];
        while self.progress.ramp < stage.ramp.len() && self.now >= self.progress.ramp_at {
            let percent = stage.ramp[self.progress.ramp];
            for (i, op) in stage.ops.iter().enumerate() {
                let part = self.part_way(self.progress.before[i], *op, percent);
                self.set(part, None);
            }
            self.progress.ramp += 1;
            self.progress.ramp_at = self.now + stage.ramp_us;
        }
        self.progress.ramp >= stage.ramp.len()
    }

    /// The setting `percent` of the way from `before` to `after`.
    fn part_way(&self, before: Op, after: Op, percent: u64) -> Op {
        if percent >= 100 {
            return after;
        }
        let between = |from: u64, to: u64| (from * (100 - percent) + to * percent) / 100;
        match (before, after) {
            (Op::LimitEdge(e, Some(from)), Op::LimitEdge(_, to)) => {
                Op::LimitEdge(e, Some(between(from, to.unwrap_or_else(|| self.usual_over(e)))))
            }
            (Op::LimitService(s, Some(from)), Op::LimitService(_, to)) => {
                Op::LimitService(s, Some(between(from, to.unwrap_or_else(|| self.usual_into(s)))))
            }
            (Op::Weight(s, replica, from), Op::Weight(_, _, to)) => {
                let part = i64::try_from(percent).unwrap_or(100);
                Op::Weight(s, replica, (from * (100 - part) + to * part) / 100)
            }
            _ => after,
        }
    }

    fn usual_over(&self, e: usize) -> u64 {
        self.compiled.flows(&[], false).1[e]
    }

    fn usual_into(&self, s: usize) -> u64 {
        self.compiled.flows(&[], false).0[s]
    }

    fn guard(&mut self) {
        let stage = &self.compiled.steps[self.progress.step];
        let done = match stage.kind {
            ActionKind::Restart | ActionKind::Scale => self.are_listed_ready(),
            _ => true,
        };
        self.progress.held_since = if done { self.progress.held_since.or(Some(self.now)) } else { None };
        let needed = (stage.step.done_ms + stage.step.guard_ms) * 1_000;
        if self.progress.held_since.is_some_and(|from| self.now - from >= needed) {
            self.progress.step += 1;
            self.progress.step_began = self.now;
            self.progress.phase = Phase::Preparing;
            self.window += 1;
            if self.progress.step >= self.compiled.steps.len() {
                self.end_plan();
            }
        }
    }

    fn are_listed_ready(&self) -> bool {
        let stage = &self.compiled.steps[self.progress.step];
        stage.ops.iter().all(|op| match *op {
            Op::Restart(s, replica) => self.services[s].replicas.get(replica).is_some_and(|r| r.health == Health::Up),
            Op::Replicas(s, count) => {
                self.services[s].replicas.iter().filter(|r| r.health == Health::Up).count() >= count
            }
            _ => true,
        })
    }

    /// The present setting of what `op` would set.
    fn current(&self, op: Op) -> Op {
        match op {
            Op::LimitEdge(e, _) => Op::LimitEdge(e, self.edges[e].limiter.rate_mrps),
            Op::LimitService(s, _) => Op::LimitService(s, self.services[s].limiter.rate_mrps),
            Op::Breaker(e, _) => Op::Breaker(e, self.edges[e].open),
            Op::Weight(s, replica, _) => {
                Op::Weight(s, replica, self.services[s].replicas.get(replica).map_or(0, |r| r.weight))
            }
            Op::Replicas(..) | Op::Restart(..) => op,
        }
    }

    pub(super) fn set(&mut self, op: Op, burst: Option<u64>) {
        let now = self.now;
        match op {
            Op::LimitEdge(e, rate) => self.edges[e].limiter.set(rate, burst, now),
            Op::LimitService(s, rate) => self.services[s].limiter.set(rate, burst, now),
            Op::Breaker(e, open) => self.edges[e].open = open,
            Op::Weight(s, replica, weight) => {
                if let Some(target) = self.services[s].replicas.get_mut(replica) {
                    target.weight = weight.max(0);
                }
            }
            Op::Replicas(s, count) => self.resize(s, count),
            Op::Restart(..) => {}
        }
    }

    fn resize(&mut self, s: usize, count: usize) {
        let had = self.services[s].replicas.len();
        for replica in count..had {
            // The process ends: no new requests, what it has is finished.
            self.services[s].replicas[replica].weight = 0;
        }
        for replica in had..count.min(1_000) {
            self.add_replica(s);
            let start_up = self.start_up(s);
            self.start(s, replica, start_up);
            let out = Out { service: s, replica, since: self.now, hung: false, killed: true };
            self.progress.out.push(out);
        }
    }
}
