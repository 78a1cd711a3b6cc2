use super::{Class, EffectType, Expiry, MutableRange, OnNotEvaluable, ParamUnit, PreviewMode};
use base::Millis;
use recovery::isa::ActionKind::{self, CircuitBreak, Drain, RateLimit, Restart, RestoreTraffic, RollbackConfig, Scale};
use recovery::isa::{EffectLevel, RollbackClass};
use std::collections::BTreeMap;

use PreviewMode::{Mandatory, Optional};

/// The shipped classes, every one at `observe` until a policy says more.
#[must_use]
pub fn shipped() -> BTreeMap<String, Class> {
    let quorum = ["lease-unique", "epoch-monotone", "quorum-intersect", "no-acknowledged-loss", "state-convergent"];
    let moved = ["lease-unique", "epoch-monotone", "state-convergent", "capacity-floor"];
    let restart = ["capacity-floor", "progress", "lease-unique"];
    let flow: [ActionKind; 4] = [Drain, RestoreTraffic, RateLimit, CircuitBreak];
    let classes = [
        ("failover", class(Mandatory, &[Drain, RollbackConfig, RestoreTraffic], &quorum, &["state", "epochs"])),
        ("rebalance", class(Mandatory, &[Drain, RestoreTraffic], &moved, &["slo", "backlog"])),
        ("partition-relocation", class(Mandatory, &[Drain, RestoreTraffic], &moved, &["state", "backlog"])),
        (
            "restart-orchestration",
            class(
                Mandatory,
                &[Restart, Drain, RestoreTraffic, RateLimit, CircuitBreak],
                &restart,
                &["slo", "backlog", "epochs"],
            ),
        ),
        ("restore", class(Mandatory, &[RollbackConfig], &["no-acknowledged-loss", "state-convergent"], &["state"])),
        (
            "membership-change",
            class(Mandatory, &[Scale], &["quorum-intersect", "epoch-monotone"], &["state", "epochs"]),
        ),
        (
            "config-rollback",
            // A bad configuration leaves storms and stuck processes behind: shedding and restarts belong to its end.
            class(
                Mandatory,
                &[RollbackConfig, Restart, Drain, RestoreTraffic, RateLimit],
                &["capacity-floor", "progress"],
                &["slo"],
            ),
        ),
        ("capacity", class(Optional, &[Scale], &["capacity-floor"], &["slo", "backlog"])),
        ("traffic-shed", class(Optional, &flow, &["capacity-floor"], &["slo", "backlog"])),
        (
            "control-plane",
            class(Mandatory, &[Restart, RollbackConfig], &["lease-unique", "epoch-monotone"], &["slo", "epochs"]),
        ),
    ];
    classes.into_iter().map(|(name, class)| (name.to_owned(), class)).collect()
}

fn class(preview: PreviewMode, actions: &[ActionKind], invariants: &[&str], converge: &[&str]) -> Class {
    let texts = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    Class {
        owner: "operator".into(),
        runbook: String::new(),
        failure_assumptions: texts(&["one fault scope at a time", "no corrupted data"]),
        actions: actions.to_vec(),
        preview,
        fidelity: BTreeMap::new(),
        invariants: texts(invariants),
        on_not_evaluable: OnNotEvaluable::Escalate,
        horizon: texts(&["retry", "lease", "health_check"]),
        variance: texts(&["heartbeat", "metrics"]),
        auto_type: EffectType { level: EffectLevel::Instance, class: RollbackClass::Reversible, expiry: Expiry::Ttl },
        converge: texts(converge),
        converge_deadline: Millis(300_000),
        level: BTreeMap::new(),
        drill_every: None,
        mutable: mutable(actions),
        disagreement_max: None,
        bypass: None,
        fallback: OnNotEvaluable::Escalate,
    }
}

fn mutable(actions: &[ActionKind]) -> BTreeMap<String, MutableRange> {
    let percent = |min, max, step, safer_up| MutableRange { unit: ParamUnit::Percent, min, max, step, safer_up };
    let count = |min, max| MutableRange { unit: ParamUnit::Count, min, max, step: 1, safer_up: false };
    let ranges = [
        (RateLimit, "RateLimit.rate", percent(10, 90, 5, false)),
        (Drain, "Drain.fraction", percent(10, 100, 10, false)),
        (Restart, "Restart.wave", count(1, 8)),
    ];
    let used = ranges.into_iter().filter(|(action, ..)| actions.contains(action));
    used.map(|(_, name, range)| (name.to_owned(), range)).collect()
}
