//! The suite can fail: actuators with one flaw each, and the clauses that find it, no others.

use super::*;
use std::collections::BTreeSet;

/// What a broken actuator, or its target, does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    CountsLooks,
    ReceiptsWithoutValues,
    AppliesAgain,
    AnswersForeignCalls,
    IgnoresVersions,
    IgnoresEpochs,
    ForgetsFencesWhenOpened,
    IgnoresDrift,
    CallsItsPredecessorsAbsent,
    InventsReceipts,
    RestoresSomethingElse,
    CompensatesAnew,
    ForgetsToExpire,
    ExpiresEarly,
    IgnoresDeadlines,
    PredictsNoDrift,
    DrainsShards,
    TakesAnyName,
    Widens,
    UnfencedTarget,
    ForgetsFencesWhenRestarted,
    LetsLateCallsIn,
    GuessesOutOfReach,
    ForgetsExpiriesWhenRestarted,
    RestoresTheTemporary,
}

/// Each flaw, with the clauses that must find it.
const FLAWS: &[(Flaw, &[Clause])] = &[
    (Flaw::CountsLooks, &[Clause::Observe]),
    (Flaw::ReceiptsWithoutValues, &[Clause::Perform]),
    (Flaw::AppliesAgain, &[Clause::OneKeyOneEffect]),
    (Flaw::AnswersForeignCalls, &[Clause::OneKeyOneEffect]),
    (Flaw::IgnoresVersions, &[Clause::LowerFences]),
    (Flaw::IgnoresEpochs, &[Clause::LowerFences]),
    (Flaw::ForgetsFencesWhenOpened, &[Clause::FencesSurvive]),
    (Flaw::IgnoresDrift, &[Clause::Drift]),
    (Flaw::CallsItsPredecessorsAbsent, &[Clause::Killed]),
    (Flaw::InventsReceipts, &[Clause::LostReply]),
    (Flaw::RestoresSomethingElse, &[Clause::Compensate]),
    (Flaw::CompensatesAnew, &[Clause::CompensateAgain]),
    // Who forgets times to live is found by every clause about them; who ends them early by one.
    (Flaw::ForgetsToExpire, &[Clause::Expiry, Clause::ExpiryAfterRestart, Clause::ExpiryOverExpiry]),
    (Flaw::ExpiresEarly, &[Clause::Expiry]),
    (Flaw::IgnoresDeadlines, &[Clause::Deadline]),
    (Flaw::PredictsNoDrift, &[Clause::DryRun]),
    (Flaw::DrainsShards, &[Clause::Matrix]),
    (Flaw::TakesAnyName, &[Clause::HostileNames]),
    (Flaw::Widens, &[Clause::NothingElse]),
    (Flaw::UnfencedTarget, &[Clause::AtTheTarget]),
    (Flaw::ForgetsFencesWhenRestarted, &[Clause::AtTheTarget]),
    (Flaw::LetsLateCallsIn, &[Clause::BrokenLink]),
    (Flaw::GuessesOutOfReach, &[Clause::BrokenLink]),
    (Flaw::ForgetsExpiriesWhenRestarted, &[Clause::ExpiryAfterRestart]),
    (Flaw::RestoresTheTemporary, &[Clause::ExpiryOverExpiry]),
];

#[tokio::test]
async fn every_flaw_is_found_by_the_clause_that_is_meant_and_by_no_other() {
    for (flaw, expected) in FLAWS {
        let rig = MutantRig { rig: SimulatorRig(simulator()), flaw: *flaw, memory: Arc::default() };
        let report = contract::run(&rig).await;
        let breaches: Vec<String> = report.breaches.iter().map(ToString::to_string).collect();
        assert_eq!(report.broken(), *expected, "{flaw:?}: {breaches:#?}");
    }
    let named: BTreeSet<Clause> = FLAWS.iter().flat_map(|(_, clauses)| clauses.iter().copied()).collect();
    assert_eq!(named.into_iter().collect::<Vec<_>>(), Clause::ALL, "a clause that no flaw proves");
}

/// What a mutant remembers over all its actuators.
#[derive(Default)]
struct Memory {
    /// The last thing that was asked, if it was a look.
    look: Option<BTreeSet<String>>,
    /// How often a key was performed.
    calls: BTreeMap<Key, u32>,
}

struct MutantRig {
    rig: SimulatorRig,
    flaw: Flaw,
    memory: Arc<Mutex<Memory>>,
}

struct Mutant {
    simulator: Simulator,
    flaw: Flaw,
    memory: Arc<Mutex<Memory>>,
}

impl MutantRig {
    fn mutant(&self, simulator: Simulator) -> Arc<dyn Actuator> {
        Arc::new(Mutant { simulator, flaw: self.flaw, memory: self.memory.clone() })
    }

    fn target(&self) -> MutexGuard<'_, Target> {
        self.rig.0.target()
    }
}

impl Mutant {
    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("memory")
    }

    /// Lets a call past the fence by which it would be refused.
    fn past_the_fence(&self, fence: Fence) {
        let mut target = self.simulator.target();
        let seen = target.fence;
        let ignored = (self.is(Flaw::IgnoresVersions) && fence.epoch == seen.epoch)
            || (self.is(Flaw::IgnoresEpochs) && fence.epoch < seen.epoch && fence.version > seen.version);
        if ignored {
            target.fence = seen.min(fence);
        }
    }

    fn altered(&self, mut call: Call) -> Call {
        let now = self.simulator.now();
        match self.flaw {
            Flaw::IgnoresDrift => call.bound.clear(),
            Flaw::IgnoresDeadlines => call.deadline = now.plus(Millis(1)),
            Flaw::ForgetsToExpire => call.expires_at = call.expires_at.map(|_| Timestamp(i64::MAX)),
            Flaw::ExpiresEarly => call.expires_at = call.expires_at.map(|at| Timestamp(now.0.midpoint(at.0))),
            Flaw::DrainsShards => {
                if let Action::Drain { place: place @ Place::Shard(..), .. } = &mut call.action {
                    *place = Place::Service(place.service().to_owned());
                }
            }
            _ => {}
        }
        call
    }

    /// What a flaw answers before the target is asked.
    fn at_once(&self, call: &Call) -> Option<Receipt> {
        if self.is(Flaw::TakesAnyName) && call.desired.keys().any(|name| crate::field::Field::parse(name).is_none()) {
            return Some(Receipt { key: call.key.clone(), fence: call.fence, ..nothing() });
        }
        let (set, receipt) = self.simulator.target().applied.get(&call.key).cloned()?;
        (self.is(Flaw::AnswersForeignCalls) && set != call.desired).then_some(receipt)
    }

    async fn flawed_perform(&self, call: &Call) -> Result<Receipt, Error> {
        self.memory().look = None;
        self.past_the_fence(call.fence);
        if let Some(receipt) = self.at_once(call) {
            return Ok(receipt);
        }
        let call = self.altered(call.clone());
        let is_new = !self.simulator.target().applied.contains_key(&call.key);
        let temporary = self.simulator.target().expiries.clone();
        let before = self.simulator.target().state.clone();
        let calls = *self.memory().calls.entry(call.key.clone()).and_modify(|calls| *calls += 1).or_insert(1);
        let receipt = self.simulator.perform(&call).await?;
        // Twice in a row is a successor that repeats; this one is wrong under a storm of repeats.
        if self.is(Flaw::AppliesAgain) && calls > 2 {
            self.simulator.target().history.push(call.key.clone());
        }
        if self.is(Flaw::Widens) && is_new {
            let name = call::service_limit("b");
            let value = before[&name];
            self.simulator.meddle(&name, value + 1);
        }
        if self.is(Flaw::RestoresTheTemporary) {
            for (name, (_, restore)) in &mut self.simulator.target().expiries {
                if temporary.contains_key(name) && call.desired.contains_key(name) {
                    *restore = before[name];
                }
            }
        }
        Ok(self.told(receipt))
    }

    fn told(&self, receipt: Receipt) -> Receipt {
        if self.is(Flaw::ReceiptsWithoutValues) { Receipt { after: State::new(), ..receipt } } else { receipt }
    }

    async fn flawed_reconcile(&self, call: &Call) -> Result<Reconciled, Error> {
        self.memory().look = None;
        self.past_the_fence(call.fence);
        if self.is(Flaw::GuessesOutOfReach) && self.simulator.alive().is_err() {
            return Ok(Reconciled::Absent);
        }
        let turn = self.simulator.target().turn;
        let told = self.simulator.reconcile(call).await?;
        if self.is(Flaw::LetsLateCallsIn) {
            self.simulator.target().turn = turn;
        }
        let Reconciled::Applied(receipt) = told else { return Ok(told) };
        Ok(match self.flaw {
            Flaw::CallsItsPredecessorsAbsent if receipt.fence < call.fence => Reconciled::Absent,
            Flaw::InventsReceipts => Reconciled::Applied(Receipt { took: Millis(7), ..receipt }),
            _ => Reconciled::Applied(self.told(receipt)),
        })
    }

    async fn flawed_compensate(&self, undo: &Undo) -> Result<Receipt, Error> {
        self.memory().look = None;
        let mut undo = undo.clone();
        let step = Key(undo.key.0.trim_end_matches("!undo").to_owned());
        if self.is(Flaw::RestoresSomethingElse) && self.simulator.effects(&step) > 0 {
            undo.restore.values_mut().for_each(|value| *value += 1);
        }
        let is_again = self.simulator.effects(&undo.key) > 0;
        let receipt = self.simulator.compensate(&undo).await?;
        let is_flawed = is_again && self.is(Flaw::CompensatesAnew);
        Ok(if is_flawed { Receipt { took: Millis(7), ..receipt } } else { receipt })
    }
}

fn nothing() -> Receipt {
    Receipt {
        key: Key(String::new()),
        fence: Fence::default(),
        outcome: CallOutcome::Applied,
        before: State::new(),
        after: State::new(),
        versions: Versions::new(),
        native_id: None,
        took: Millis(0),
    }
}

impl Actuator for Mutant {
    fn capabilities(&self) -> &Capabilities {
        self.simulator.capabilities()
    }

    fn observe<'a>(&'a self, what: &'a Selector) -> Fut<'a, Result<Observation, Error>> {
        Box::pin(async move {
            let last = self.memory().look.replace(what.fields.clone());
            if self.is(Flaw::CountsLooks)
                && last.as_ref() == Some(&what.fields)
                && let Some(name) = what.fields.first()
            {
                *self.simulator.target().versions.entry(name.clone()).or_default() += 1;
            }
            self.simulator.observe(what).await
        })
    }

    fn dry_run<'a>(&'a self, call: &'a Call) -> Fut<'a, Result<DryRun, Error>> {
        Box::pin(async move {
            self.memory().look = None;
            let mut call = call.clone();
            if self.is(Flaw::PredictsNoDrift) {
                call.bound.clear();
            }
            self.simulator.dry_run(&call).await
        })
    }

    fn perform<'a>(&'a self, call: &'a Call) -> Fut<'a, Result<Receipt, Error>> {
        Box::pin(self.flawed_perform(call))
    }

    fn reconcile<'a>(&'a self, call: &'a Call) -> Fut<'a, Result<Reconciled, Error>> {
        Box::pin(self.flawed_reconcile(call))
    }

    fn compensate<'a>(&'a self, undo: &'a Undo) -> Fut<'a, Result<Receipt, Error>> {
        Box::pin(self.flawed_compensate(undo))
    }
}

impl Rig for MutantRig {
    fn open(&self) -> Arc<dyn Actuator> {
        if self.flaw == Flaw::ForgetsFencesWhenOpened {
            self.target().fence = Fence::default();
        }
        self.mutant(self.rig.0.reopen())
    }
    fn now(&self) -> Timestamp {
        self.rig.now()
    }
    fn pass<'a>(&'a self, by: Millis) -> Fut<'a, ()> {
        self.rig.pass(by)
    }
    fn fields(&self) -> Vec<String> {
        self.rig.fields()
    }
    fn names(&self) -> Names {
        self.rig.names()
    }
    fn sample<'a>(&'a self, kind: ActionKind) -> Fut<'a, Option<Sample>> {
        self.rig.sample(kind)
    }
    fn unclaimed(&self) -> Vec<Sample> {
        self.rig.unclaimed()
    }
    fn meddle<'a>(&'a self, field: &'a str) -> Fut<'a, ()> {
        self.rig.meddle(field)
    }
    fn effects<'a>(&'a self, call: &'a Call) -> Fut<'a, usize> {
        self.rig.effects(call)
    }
    fn deliver<'a>(&'a self, call: &'a Call) -> Fut<'a, Option<Result<(), Error>>> {
        Box::pin(async move {
            let mut call = call.clone();
            if self.flaw == Flaw::UnfencedTarget {
                call.fence = self.target().fence;
            }
            self.rig.deliver(&call).await
        })
    }
    fn restart<'a>(&'a self) -> Fut<'a, ()> {
        let restarted = self.rig.restart();
        let mut target = self.target();
        match self.flaw {
            Flaw::ForgetsFencesWhenRestarted => target.fence = Fence::default(),
            Flaw::ForgetsExpiriesWhenRestarted => target.expiries.clear(),
            _ => {}
        }
        restarted
    }
    fn link<'a>(&'a self, kind: ActionKind, fault: LinkFault) -> Fut<'a, Option<Arc<dyn Actuator>>> {
        Box::pin(async move {
            self.rig.link(kind, fault).await?;
            let simulator = if fault == LinkFault::Down { self.rig.0.unreachable() } else { self.rig.0.reopen() };
            Some(self.mutant(simulator))
        })
    }
    fn deliver_late<'a>(&'a self) -> Fut<'a, ()> {
        self.rig.deliver_late()
    }
}
