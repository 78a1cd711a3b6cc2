use super::*;
use crate::contract::{self, Clause, LinkFault, Names, Rig, Sample};
use recovery::call;
use recovery::isa::{Action, ActionKind, BreakerMode, DrainMode, EdgeName, Limited, Place, Rate, Restored};
use recovery::isa::{RestartStrategy, Revision, ScaleTo};

mod mutants;

struct SimulatorRig(Simulator);

fn edge() -> EdgeName {
    EdgeName { caller: "a".into(), callee: "b".into() }
}

fn simulator() -> Simulator {
    let state = [
        (call::generation("b", 0), 1),
        (call::weight("b", 0), 100),
        (call::service_limit("b"), -1),
        (call::edge_limit(&edge()), -1),
        (call::breaker(&edge()), 0),
        (call::replicas("b"), 2),
        (call::config("flag", "default", "x"), 3),
    ];
    Simulator::new(state.into(), Timestamp(1_000))
}

fn action(kind: ActionKind) -> Action {
    let place = Place::Instances("b".into(), vec![0]);
    match kind {
        ActionKind::Restart => Action::Restart {
            place,
            strategy: RestartStrategy::Rolling,
            wave: 1,
            surge: 0,
            grace_ms: Some(0),
            jitter_ms: None,
        },
        ActionKind::Drain => {
            Action::Drain { place, percent: 100, mode: DrainMode::New, timeout_ms: Some(0), ttl_ms: 1 }
        }
        ActionKind::RestoreTraffic => {
            Action::RestoreTraffic { of: Restored::AllOpen, ramp: vec![100], ramp_ms: Some(0) }
        }
        ActionKind::CircuitBreak => {
            Action::CircuitBreak { edge: edge(), mode: BreakerMode::Open, fallback: None, ttl_ms: 1 }
        }
        ActionKind::RateLimit => Action::RateLimit {
            what: Limited::Edge(edge()),
            rate: Rate::PerSecond(5),
            burst: None,
            priority: None,
            ttl_ms: 1,
        },
        ActionKind::Scale => Action::Scale { service: "b".into(), to: ScaleTo::Exactly(3), ttl_ms: 1 },
        ActionKind::RollbackConfig => Action::RollbackConfig {
            kind: "flag".into(),
            namespace: "default".into(),
            name: "x".into(),
            to: Revision::LastGood,
        },
    }
}

fn field(kind: ActionKind) -> String {
    match kind {
        ActionKind::Restart => call::generation("b", 0),
        ActionKind::Drain | ActionKind::RestoreTraffic => call::weight("b", 0),
        ActionKind::CircuitBreak => call::breaker(&edge()),
        ActionKind::RateLimit => call::edge_limit(&edge()),
        ActionKind::Scale => call::replicas("b"),
        ActionKind::RollbackConfig => call::config("flag", "default", "x"),
    }
}

impl Rig for SimulatorRig {
    fn open(&self) -> Arc<dyn Actuator> {
        Arc::new(self.0.reopen())
    }
    fn now(&self) -> Timestamp {
        self.0.now()
    }
    fn pass<'a>(&'a self, by: Millis) -> Fut<'a, ()> {
        self.0.pass(by);
        // Whatever else is at work goes on meanwhile.
        Box::pin(async {
            for _ in 0..4 {
                yield_once().await;
            }
        })
    }
    fn fields(&self) -> Vec<String> {
        self.0.target().state.keys().cloned().collect()
    }
    fn sample<'a>(&'a self, kind: ActionKind) -> Fut<'a, Option<Sample>> {
        let name = field(kind);
        let now = self.0.target().state.get(&name).copied().unwrap_or(0);
        let sample = Sample { action: action(kind), desired: [(name, now + 1)].into() };
        Box::pin(async move { Some(sample) })
    }
    fn unclaimed(&self) -> Vec<Sample> {
        let shard = Place::Shard("b".into(), "7".into());
        let desired: State = [(call::weight("b", 0), 0)].into();
        let drain = Action::Drain { place: shard, percent: 100, mode: DrainMode::New, timeout_ms: None, ttl_ms: 1 };
        vec![Sample { action: drain, desired }]
    }
    fn meddle<'a>(&'a self, field: &'a str) -> Fut<'a, ()> {
        let now = self.0.target().state.get(field).copied().unwrap_or(0);
        self.0.meddle(field, now + 7);
        Box::pin(async {})
    }
    fn effects<'a>(&'a self, call: &'a Call) -> Fut<'a, usize> {
        let effects = self.0.effects(&call.key);
        Box::pin(async move { effects })
    }
    fn names(&self) -> Names {
        let object = ["flag", "default", "x"].map(str::to_owned).into();
        Names { service: "b".into(), zone: "z".into(), edge: edge(), object }
    }
    fn deliver<'a>(&'a self, call: &'a Call) -> Fut<'a, Option<Result<(), Error>>> {
        Box::pin(async move { Some(self.0.deliver_to_target(call).map(|_| ())) })
    }
    fn restart<'a>(&'a self) -> Fut<'a, ()> {
        self.0.restart();
        Box::pin(async {})
    }
    fn link<'a>(&'a self, _: ActionKind, fault: LinkFault) -> Fut<'a, Option<Arc<dyn Actuator>>> {
        match fault {
            LinkFault::CutBefore => self.0.inject(Fault::LoseCall),
            LinkFault::CutAfter => self.0.inject(Fault::LoseReply),
            LinkFault::Late => self.0.inject(Fault::DelayCall),
            LinkFault::Down => return Box::pin(async { Some(Arc::new(self.0.unreachable()) as Arc<dyn Actuator>) }),
        }
        Box::pin(async { Some(self.open()) })
    }
    fn deliver_late<'a>(&'a self) -> Fut<'a, ()> {
        self.0.deliver();
        Box::pin(async {})
    }
}

fn drain(simulator: &Simulator, n: u64) -> Call {
    Call {
        key: Key(format!("k/s{n}")),
        fence: Fence { epoch: 1, version: n },
        action: action(ActionKind::Drain),
        desired: [(call::weight("b", 0), 0)].into(),
        bound: Versions::new(),
        deadline: simulator.now().plus(Millis(1_000)),
        expires_at: Some(simulator.now().plus(Millis(5_000))),
    }
}

#[tokio::test]
async fn the_simulator_keeps_the_contract() {
    let report = contract::run(&SimulatorRig(simulator())).await;
    let breaches: Vec<String> = report.breaches.iter().map(ToString::to_string).collect();
    assert!(breaches.is_empty(), "{breaches:#?}");
    println!("{}", report.table());
    assert_eq!(report.kept.len(), 7 * 15 + 6 * 2 + 4 * 3);
    assert_eq!(report.kept.len() + report.without.len(), 7 * Clause::ALL.len());
}

#[tokio::test]
async fn every_fault_reconciles_to_the_truth() {
    let faults = [
        (Fault::LoseCall, 0),
        (Fault::LoseReply, 1),
        (Fault::DelayCall, 0),
        (Fault::DieBefore, 0),
        (Fault::DieAfter, 1),
    ];
    for (n, (fault, effects)) in faults.into_iter().enumerate() {
        let simulator = simulator();
        let call = drain(&simulator, n as u64 + 1);
        simulator.inject(fault);
        assert!(simulator.perform(&call).await.is_err(), "{fault:?} answered");
        let successor = simulator.reopen();
        let reconciled = successor.reconcile(&call).await.expect("current fence");
        assert_eq!(matches!(reconciled, Reconciled::Applied(_)), effects == 1, "{fault:?}");
        // What is still on its way when its sender was reconciled never takes effect.
        successor.deliver();
        assert_eq!(successor.effects(&call.key), effects, "{fault:?}");
    }
}

#[tokio::test]
async fn a_doubled_call_has_one_effect_and_a_late_one_has_its_own() {
    let simulator = simulator();
    simulator.inject(Fault::Duplicate);
    let call = drain(&simulator, 1);
    simulator.perform(&call).await.expect("performed");
    assert_eq!(simulator.effects(&call.key), 1);
    let late = drain(&simulator, 2);
    simulator.inject(Fault::DelayCall);
    assert_eq!(simulator.perform(&late).await, Err(Error::TimedOut));
    simulator.deliver();
    assert_eq!(simulator.effects(&late.key), 1);
}

#[tokio::test]
async fn a_dead_actuator_answers_nothing() {
    let simulator = simulator();
    simulator.inject(Fault::DieBefore);
    let call = drain(&simulator, 1);
    assert_eq!(simulator.perform(&call).await, Err(Error::Unavailable));
    assert_eq!(simulator.reconcile(&call).await, Err(Error::Unavailable));
    assert_eq!(simulator.dry_run(&call).await, Err(Error::Unavailable));
}
