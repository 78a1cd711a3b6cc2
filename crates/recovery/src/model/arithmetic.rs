//! What needs no simulation: capacity of each wave, quorum in each phase, and the closed form of a
//! collapse that keeps itself alive.

use super::compile::{CLIENT, Compiled, Op, Stage};
use super::{Health, ServiceFit};
use crate::isa::ActionKind;

base::record! {
    /// Capacity of a service while one wave of a step is out.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Wave {
        /// The step.
        1 pub step: String,
        /// The wave, from 1.
        2 pub wave: u32,
        /// The service.
        3 pub service: String,
        /// Replicas that serve meanwhile.
        4 pub ready: u32,
        /// Ready ones the wave takes; those that were out already do not count.
        5 pub taken: u32,
        /// What the rest can serve, milli-requests per second.
        6 pub capacity_mrps: u64,
        /// What will come, under the limits earlier steps have set.
        7 pub load_mrps: u64,
    }
}

base::record! {
    /// Whether a quorum set keeps its majority in one phase of the plan.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct QuorumPhase {
        /// The step.
        1 pub step: String,
        /// The service whose replicas form the set.
        2 pub service: String,
        /// Members.
        3 pub members: u32,
        /// Members that stay.
        4 pub remaining: u32,
        /// A majority stays, and majorities before and after share a member.
        5 pub holds: bool,
    }
}

/// Capacity of one replica in milli-requests per second.
pub(super) fn capacity_mrps(fit: &ServiceFit) -> u64 {
    let total: u64 = fit.times_us.iter().map(|time| u64::from(*time)).sum();
    let measured = (u64::from(fit.workers) * 1_000_000_000 * fit.times_us.len() as u64).checked_div(total);
    fit.capacity_mrps.or(measured).unwrap_or(u64::MAX / 1_000)
}

/// Every wave of every step that takes instances out.
pub(super) fn waves(compiled: &Compiled<'_>) -> Vec<Wave> {
    let mut limits: Vec<Op> = compiled.settings.clone();
    let mut waves = Vec::new();
    for stage in &compiled.steps {
        let taken: Vec<(usize, usize)> = stage.ops.iter().filter_map(|op| taken(stage, op)).collect();
        let (loads, _) = compiled.flows(&limits, false);
        let size = stage.wave.min(taken.len()).max(1);
        for (number, wave) in (1..).zip(taken.chunks(size)) {
            let mut services: Vec<usize> = wave.iter().map(|(service, _)| *service).collect();
            services.dedup();
            for s in services {
                waves.push(wave_of(compiled, stage, number, s, wave, loads[s]));
            }
        }
        limits.retain(|limit| !stage.ops.iter().any(|op| same_subject(*limit, *op)));
        limits.extend(&stage.ops);
    }
    waves
}

fn wave_of(c: &Compiled<'_>, stage: &Stage<'_>, number: u32, s: usize, wave: &[(usize, usize)], load: u64) -> Wave {
    let fit = c.services[s].fit;
    let out_already =
        |replica: usize| c.impairments.iter().any(|(i, r, h)| *i == s && *r == replica && *h != Health::Up);
    let ready = (0..fit.replicas as usize).filter(|replica| !out_already(*replica)).count();
    let taken = wave.iter().filter(|(i, replica)| *i == s && !out_already(*replica)).count();
    let rest = ready.saturating_sub(taken);
    Wave {
        step: stage.step.key.clone(),
        wave: number,
        service: fit.name.clone(),
        ready: u32::try_from(rest).unwrap_or(u32::MAX),
        taken: u32::try_from(taken).unwrap_or(u32::MAX),
        capacity_mrps: capacity_mrps(fit).saturating_mul(rest as u64),
        load_mrps: load,
    }
}

fn taken(stage: &Stage<'_>, op: &Op) -> Option<(usize, usize)> {
    match *op {
        Op::Restart(s, replica) => Some((s, replica)),
        Op::Weight(s, replica, 0) if stage.kind == ActionKind::Drain => Some((s, replica)),
        _ => None,
    }
}

fn same_subject(a: Op, b: Op) -> bool {
    match (a, b) {
        (Op::LimitEdge(x, _), Op::LimitEdge(y, _))
        | (Op::LimitService(x, _), Op::LimitService(y, _))
        | (Op::Breaker(x, _), Op::Breaker(y, _)) => x == y,
        _ => false,
    }
}

/// Every phase in which the plan takes members of a declared quorum set.
pub(super) fn quorums(compiled: &Compiled<'_>) -> Vec<QuorumPhase> {
    let mut phases = Vec::new();
    for wave in waves(compiled) {
        let Some(members) = compiled.input.fit.service(&wave.service).and_then(|fit| fit.quorum_of) else { continue };
        phases.push(QuorumPhase {
            step: wave.step,
            service: wave.service,
            members,
            remaining: wave.ready,
            holds: wave.ready > members / 2,
        });
    }
    for stage in &compiled.steps {
        for op in &stage.ops {
            let Op::Replicas(s, count) = *op else { continue };
            let fit = compiled.services[s].fit;
            let Some(members) = fit.quorum_of else { continue };
            // Majorities of n and n ± 1 members always share one; of n and n ± 2 they need not.
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            let holds = members.abs_diff(count) <= 1;
            phases.push(QuorumPhase {
                step: stage.step.key.clone(),
                service: fit.name.clone(),
                members,
                remaining: count,
                holds,
            });
        }
    }
    phases
}

/// Services whose capacity now is below their load if every request is tried as often as callers may:
/// λ·(1 + retries) > μ. Such a service can stay collapsed after its trigger is gone.
pub(super) fn vulnerable(compiled: &Compiled<'_>) -> Vec<usize> {
    let (worst, _) = compiled.flows(&compiled.settings, true);
    let (usual, _) = compiled.flows(&compiled.settings, false);
    let retried =
        |s: usize| compiled.edges.iter().any(|edge| edge.callee == s && edge.caller != CLIENT && edge.attempts > 1);
    (0..compiled.services.len())
        .filter(|s| retried(*s) && worst[*s] > usual[*s] && worst[*s] > remaining_mrps(compiled, *s))
        .collect()
}

fn remaining_mrps(compiled: &Compiled<'_>, s: usize) -> u64 {
    let fit = compiled.services[s].fit;
    let out = compiled.impairments.iter().filter(|(i, _, health)| *i == s && *health != Health::Up).count() as u64;
    capacity_mrps(fit).saturating_mul(u64::from(fit.replicas).saturating_sub(out))
}
