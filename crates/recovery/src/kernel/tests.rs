use super::*;
use crate::call::{self, CallOutcome};
use crate::isa::{Action, EdgeName, EffectLevel, Limited, Place, Rate, RestartStrategy, Restored, ScaleTo};

use crate::plan::{Cause as PlanCause, OnFail, Plan, Step};
use std::collections::BTreeMap;

mod cases;
mod exhaustive;

pub(super) const START: Timestamp = Timestamp(1_000_000);
pub(super) const CALM: Severity = Severity { impaired: 2, objectives: 2, bad_ppm: 300_000, shed_ppm: 0 };

pub(super) fn limit(fields: (&str, &str), to: i64, ttl_ms: u64) -> CheckedStep {
    let edge = EdgeName { caller: fields.0.into(), callee: fields.1.into() };
    let desired = [(call::edge_limit(&edge), to)].into();
    let what = Limited::Edge(edge);
    let action = Action::RateLimit { what, rate: Rate::PerSecond(60), burst: None, priority: None, ttl_ms };
    step(action, desired, Some(ttl_ms))
}

pub(super) fn restore(fields: (&str, &str)) -> CheckedStep {
    let edge = EdgeName { caller: fields.0.into(), callee: fields.1.into() };
    let action = Action::RestoreTraffic { of: Restored::AllOpen, ramp: vec![100], ramp_ms: Some(0) };
    step(action, [(call::edge_limit(&edge), -1)].into(), None)
}

pub(super) fn restart(service: &str) -> CheckedStep {
    let action = Action::Restart {
        place: Place::Instances(service.into(), vec![0]),
        strategy: RestartStrategy::Rolling,
        wave: 1,
        surge: 0,
        grace_ms: Some(1_000),
        jitter_ms: Some(0),
    };
    step(action, [(call::generation(service, 0), 2)].into(), None)
}

pub(super) fn scale(service: &str, to: i64) -> CheckedStep {
    let action = Action::Scale { service: service.into(), to: ScaleTo::Exactly(3), ttl_ms: 60_000 };
    step(action, [(call::replicas(service), to)].into(), Some(60_000))
}

fn step(action: Action, desired: State, ttl_ms: Option<u64>) -> CheckedStep {
    let kind = action.kind();
    CheckedStep {
        key: String::new(),
        class: kind.rollback_class(),
        level: EffectLevel::Instance,
        targets: Vec::new(),
        bound: desired.keys().map(|field| (field.clone(), 1)).collect(),
        desired,
        ttl_ms,
        deadline_ms: 10_000,
        done_ms: 500,
        guard_ms: if kind.touches_traffic() { 2_000 } else { 0 },
        expected_ms: 3_000,
        pre: Vec::new(),
        post: Vec::new(),
        on_fail: OnFail::Undo,
        touches_traffic: kind.touches_traffic(),
        action,
    }
}

pub(super) fn checked(mut steps: Vec<CheckedStep>) -> Checked {
    for (number, step) in (1..).zip(&mut steps) {
        step.key = format!("s{number}");
    }
    let plan = Plan {
        incident: "abcdefghijklmnopqrstuvwxyz".into(),
        revision: 1,
        parent: None,
        cause: PlanCause::First,
        changes: Vec::new(),
        class: "restart-orchestration".into(),
        topology: Digest::default(),
        deadline_ms: START.plus(Millis(600_000)),
        footprint: Vec::new(),
        steps: steps.iter().map(|step| Step::new(step.action.clone())).collect(),
    };
    Checked::assume(&plan, steps)
}

pub(super) fn armed(version: u64) -> Armed {
    Armed { decision: Digest::of(b"decision"), fence: Fence { epoch: 5, version }, severity: CALM }
}

pub(super) fn config() -> Config {
    Config {
        backoff: [100, 200, 400, 800].map(Millis).to_vec(),
        regression_for: Millis(2_000),
        severity_age_max: Millis(1_000),
        takeover: Millis(5_000),
        undo_deadline: Millis(3_000),
    }
}

/// The state everything is in before a plan.
pub(super) fn initial(plan: &Checked) -> State {
    let fields = plan.steps().iter().flat_map(|step| step.desired.keys());
    let value = |field: &str| if field.starts_with("limit/") { -1 } else { 1 };
    fields.map(|field| (field.clone(), value(field))).collect()
}

/// An actuator and its target: remembers keys and fences as the contract demands.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) state: State,
    pub(super) versions: Versions,
    keys: BTreeMap<Key, Receipt>,
    fence: Fence,
    /// A call on its way that nobody waits for any more.
    pub(super) late: Option<Call>,
    /// Every effect, in order.
    pub(super) effects: Vec<Key>,
}

impl Target {
    pub(super) fn new(plan: &Checked) -> Target {
        let state = initial(plan);
        Target {
            versions: state.keys().map(|field| (field.clone(), 1)).collect(),
            state,
            keys: BTreeMap::new(),
            fence: Fence::default(),
            late: None,
            effects: Vec::new(),
        }
    }

    pub(super) fn perform(&mut self, call: &Call) -> Event {
        if call.fence < self.fence {
            return Event::Fenced;
        }
        self.fence = call.fence;
        if let Some(receipt) = self.keys.get(&call.key) {
            return Event::Receipt(call.key.clone(), receipt.clone());
        }
        let drifted = call
            .desired
            .keys()
            .any(|field| self.versions.get(field).copied().unwrap_or(0) != call.bound.get(field).copied().unwrap_or(0));
        if drifted {
            return Event::Rejected(call.key.clone(), Cause::Drift);
        }
        let receipt = self.set(&call.key, call.fence, &call.desired);
        Event::Receipt(call.key.clone(), receipt)
    }

    fn set(&mut self, key: &Key, fence: Fence, fields: &State) -> Receipt {
        let before = self.state.iter().filter(|(field, _)| fields.contains_key(*field));
        let before = before.map(|(field, value)| (field.clone(), *value)).collect();
        for (field, value) in fields {
            self.state.insert(field.clone(), *value);
            *self.versions.entry(field.clone()).or_default() += 1;
        }
        let versions = fields.keys().map(|field| (field.clone(), self.versions[field])).collect();
        let outcome = CallOutcome::Applied;
        let (native_id, took) = (None, Millis(1));
        let receipt =
            Receipt { key: key.clone(), fence, outcome, before, after: fields.clone(), versions, native_id, took };
        self.keys.insert(key.clone(), receipt.clone());
        self.effects.push(key.clone());
        receipt
    }

    pub(super) fn reconcile(&mut self, call: &Call) -> Event {
        if call.fence < self.fence {
            return Event::Fenced;
        }
        self.fence = call.fence;
        let answer = match self.keys.get(&call.key) {
            Some(receipt) => Reconciled::Applied(receipt.clone()),
            None => Reconciled::Absent,
        };
        Event::Reconciled(call.key.clone(), answer)
    }

    pub(super) fn compensate(&mut self, undo: &Undo) -> Event {
        if undo.fence < self.fence {
            return Event::Fenced;
        }
        self.fence = undo.fence;
        let receipt = match self.keys.get(&undo.key) {
            Some(receipt) => receipt.clone(),
            None => self.set(&undo.key, undo.fence, &undo.restore),
        };
        Event::Receipt(undo.key.clone(), receipt)
    }

    pub(super) fn look(&self, selector: &Selector, now: Timestamp) -> Look {
        let known = |field: &String| Some((field.clone(), *self.state.get(field)?));
        let version = |field: &String| Some((field.clone(), *self.versions.get(field)?));
        let fact = |name: &String| {
            let value = match name.split_once('/') {
                Some(("passed", subject)) => self.state.get(&format!("limit/{subject}")).copied().unwrap_or(0),
                Some(("inflight", _)) => 0,
                _ if name.starts_with("ready(") => {
                    let service = name.trim_start_matches("ready(").trim_end_matches(')');
                    self.state.get(&call::replicas(service)).copied().unwrap_or(1)
                }
                _ => 1,
            };
            (name.clone(), value)
        };
        Look {
            observation: Observation {
                at: now,
                state: selector.fields.iter().filter_map(known).collect(),
                versions: selector.fields.iter().filter_map(version).collect(),
            },
            facts: selector.facts.iter().map(fact).collect(),
        }
    }
}
