//! The clauses, one function each.

use super::{Rig, Sample, key};
use crate::actuator::{DryRun, Error, Fut, Reason, Selector};
use base::Millis;
use recovery::call::{Call, Fence, Observation, Receipt, Reconciled, Undo, Versions};
use recovery::isa::ActionKind;
use std::sync::Arc;
use std::task::Poll;

/// Calls with one key at once (C3).
const REPEATS: usize = 100;
/// Time for one call.
const CALL_TIME: Millis = Millis(30_000);
/// A time to live that does not end during a check.
const LONG: Millis = Millis(600_000);
/// A time to live that does (C11).
const SHORT: Millis = Millis(400);
/// How late an expiry may be (C11).
const LATE_MAX: Millis = Millis(1_000);
/// How often a reconciliation may say Unknown before it counts as never knowing (C7).
const UNKNOWN_MAX: usize = 200;
/// Where a call is cut off, in polls of its future (C7).
const CUTS: [usize; 12] = [1, 2, 3, 4, 5, 6, 8, 10, 14, 20, 40, 80];

type Checked = Result<(), String>;

pub(super) struct Suite<'a> {
    rig: &'a dyn Rig,
    calls: u64,
    fence: Fence,
}

impl<'a> Suite<'a> {
    pub(super) fn new(rig: &'a dyn Rig) -> Suite<'a> {
        Suite { rig, calls: 0, fence: Fence { epoch: 1, version: 1 } }
    }

    pub(super) async fn check(&mut self, kind: ActionKind) -> Vec<(&'static str, Checked)> {
        let mut found = vec![
            ("C1", self.observe_changes_nothing(kind).await),
            ("C2", self.perform_reaches(kind).await),
            ("C3", self.one_key_one_effect(kind).await),
            ("C4", self.lower_fences_are_refused(kind).await),
            ("C5", self.fences_survive(kind).await),
            ("C6", self.drift_is_refused(kind).await),
            ("C7", self.cut_calls_are_told_right(kind).await),
            ("C8", self.lost_replies_reconcile(kind).await),
            ("C12", self.nothing_past_the_deadline(kind).await),
            ("C13", self.dry_runs_predict(kind).await),
            ("C15", self.hostile_names_go_nowhere(kind).await),
            ("C16", self.nothing_else_changes(kind).await),
        ];
        if kind != ActionKind::Restart {
            found.push(("C9", self.compensation_restores(kind).await));
            found.push(("C10", self.compensation_repeats(kind).await));
        }
        if matches!(kind, ActionKind::Drain | ActionKind::CircuitBreak | ActionKind::RateLimit | ActionKind::Scale) {
            found.push(("C11", self.effects_expire(kind).await));
        }
        found
    }

    /// C14, its second half; the first half is all the others.
    pub(super) async fn check_unclaimed(&mut self) -> Vec<(ActionKind, Checked)> {
        let mut found = Vec::new();
        for sample in self.rig.unclaimed() {
            let kind = sample.action.kind();
            let call = self.call_of(sample, Versions::new());
            let answer = self.rig.open().perform(&call).await;
            found.push((kind, expect(answer == Err(Error::Unsupported), || format!("answered {answer:?}"))));
        }
        found
    }

    async fn observe_changes_nothing(&mut self, kind: ActionKind) -> Checked {
        let (call, _) = self.call(kind).await?;
        let first = self.look(&call).await?;
        let second = self.look(&call).await?;
        same("versions", &first.versions, &second.versions)?;
        same("values", &first.state, &second.state)
    }

    async fn perform_reaches(&mut self, kind: ActionKind) -> Checked {
        let (call, before) = self.call(kind).await?;
        let receipt = self.perform(&call).await?;
        let after = self.look(&call).await?;
        same("state after", &after.state, &call.desired)?;
        same("receipt's before", &receipt.before, &before.state)?;
        same("receipt's after", &receipt.after, &call.desired)?;
        same("receipt's versions", &receipt.versions, &after.versions)?;
        same("receipt's key", &receipt.key, &call.key)?;
        let moved = after.versions.iter().any(|(name, version)| before.versions.get(name) < Some(version));
        expect(moved, || "no version counter rose".to_owned())
    }

    async fn one_key_one_effect(&mut self, kind: ActionKind) -> Checked {
        let (call, _) = self.call(kind).await?;
        let call = Arc::new(call);
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..REPEATS {
            let (actuator, call) = (self.rig.open(), Arc::clone(&call));
            running.spawn(async move { actuator.perform(&call).await });
        }
        let mut receipts: Vec<Receipt> = Vec::new();
        while let Some(joined) = running.join_next().await {
            let answer = joined.map_err(|error| error.to_string())?;
            receipts.push(answer.map_err(|error| format!("a repeat was answered {error:?}"))?);
        }
        receipts.dedup();
        same("different receipts", &receipts.len(), &1)?;
        same("effects", &self.rig.effects(&call).await, &1)?;
        let other = Call { desired: self.call(kind).await?.0.desired, ..Call::clone(&call) };
        let answer = self.rig.open().perform(&other).await;
        let refused = answer == Err(Error::Refused { reason: Reason::KeyReused });
        expect(refused, || format!("another call under the same key was answered {answer:?}"))
    }

    async fn lower_fences_are_refused(&mut self, kind: ActionKind) -> Checked {
        self.fence = Fence { epoch: self.fence.epoch + 1, version: 5 };
        let (first, _) = self.call(kind).await?;
        self.perform(&first).await?;
        for fence in [Fence { version: 4, ..self.fence }, Fence { epoch: self.fence.epoch - 1, version: 9 }] {
            let (call, _) = self.call(kind).await?;
            let call = Call { fence, ..call };
            self.is_fenced(&call).await?;
            let answer = self.rig.open().reconcile(&call).await;
            expect(matches!(answer, Err(Error::Fenced { .. })), || format!("reconciled {answer:?} under {fence:?}"))?;
        }
        Ok(())
    }

    async fn fences_survive(&mut self, kind: ActionKind) -> Checked {
        let (first, _) = self.call(kind).await?;
        let actuator = self.rig.open();
        actuator.perform(&first).await.map_err(|error| format!("answered {error:?}"))?;
        drop(actuator);
        let (call, _) = self.call(kind).await?;
        self.is_fenced(&Call { fence: Fence { epoch: 0, version: 99 }, ..call }).await
    }

    async fn is_fenced(&self, call: &Call) -> Checked {
        let answer = self.rig.open().perform(call).await;
        let fenced = matches!(answer, Err(Error::Fenced { seen }) if seen > call.fence);
        expect(fenced, || format!("{:?} was answered {answer:?}", call.fence))?;
        same("effects of a fenced call", &self.rig.effects(call).await, &0)
    }

    async fn drift_is_refused(&mut self, kind: ActionKind) -> Checked {
        let (call, _) = self.call(kind).await?;
        let field = call.desired.keys().next().cloned().unwrap_or_default();
        self.rig.meddle(&field).await;
        let answer = self.rig.open().perform(&call).await;
        expect(matches!(answer, Err(Error::Drifted { .. })), || format!("answered {answer:?}"))?;
        same("effects of a drifted call", &self.rig.effects(&call).await, &0)
    }

    /// The caller dies at one point after the other; its successor has a higher fence and asks what happened.
    async fn cut_calls_are_told_right(&mut self, kind: ActionKind) -> Checked {
        for polls in CUTS {
            let (call, _) = self.call(kind).await?;
            let actuator = self.rig.open();
            let finished = cut(actuator.perform(&call), polls).await.is_some();
            drop(actuator);
            self.fence.version += 1;
            let successor = Call { fence: self.fence, ..call };
            match self.reconcile(&successor).await? {
                Reconciled::Applied(receipt) => {
                    same("the receipt's key", &receipt.key, &successor.key)?;
                    same(&format!("effects, told applied after {polls} polls"), &self.effects(&successor).await, &1)?;
                }
                Reconciled::Absent => {
                    same(&format!("effects, told absent after {polls} polls"), &self.effects(&successor).await, &0)?;
                    expect(!finished, || "told absent after a receipt".to_owned())?;
                    self.perform(&successor).await?;
                    same("effects, performed anew", &self.effects(&successor).await, &1)?;
                }
                Reconciled::Unknown => return Err(format!("never known, cut after {polls} polls")),
            }
            if finished {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn reconcile(&self, call: &Call) -> Result<Reconciled, String> {
        for _ in 0..UNKNOWN_MAX {
            match self.rig.open().reconcile(call).await {
                Ok(Reconciled::Unknown) => self.rig.pass(Millis(50)).await,
                Ok(known) => return Ok(known),
                Err(error) => return Err(format!("reconciliation was answered {error:?}")),
            }
        }
        Ok(Reconciled::Unknown)
    }

    async fn lost_replies_reconcile(&mut self, kind: ActionKind) -> Checked {
        let (call, _) = self.call(kind).await?;
        let receipt = self.perform(&call).await?;
        let answer = self.rig.open().reconcile(&call).await;
        same("reconciled", &answer, &Ok(Reconciled::Applied(receipt)))?;
        let (never, _) = self.call(kind).await?;
        let answer = self.rig.open().reconcile(&never).await;
        same("reconciled, never sent", &answer, &Ok(Reconciled::Absent))?;
        same("effects of reconciling", &(self.effects(&call).await, self.effects(&never).await), &(1, 0))
    }

    async fn compensation_restores(&mut self, kind: ActionKind) -> Checked {
        let (call, before) = self.call(kind).await?;
        self.perform(&call).await?;
        self.compensate(&call, &before).await?;
        same("state after the compensation", &self.look(&call).await?.state, &before.state)
    }

    async fn compensation_repeats(&mut self, kind: ActionKind) -> Checked {
        let (call, before) = self.call(kind).await?;
        let first = self.compensate(&call, &before).await?;
        same("state, never applied", &self.look(&call).await?.state, &before.state)?;
        let second = self.compensate(&call, &before).await?;
        same("receipt of the repeat", &second, &first)?;
        same("state after two", &self.look(&call).await?.state, &before.state)
    }

    async fn effects_expire(&mut self, kind: ActionKind) -> Checked {
        let (call, before) = self.call(kind).await?;
        let expires_at = self.rig.now().plus(SHORT);
        let call = Call { expires_at: Some(expires_at), ..call };
        cut(self.rig.open().perform(&call), usize::MAX).await;
        loop {
            let now = self.rig.now();
            let seen = self.look(&call).await?.state;
            if seen == before.state && self.rig.now() >= expires_at {
                return Ok(());
            }
            expect(seen == before.state || seen == call.desired, || format!("became {seen:?}"))?;
            expect(now <= expires_at.plus(LATE_MAX), || format!("still {seen:?} after its time"))?;
            self.rig.pass(Millis(20)).await;
        }
    }

    async fn nothing_past_the_deadline(&mut self, kind: ActionKind) -> Checked {
        let (call, _) = self.call(kind).await?;
        let call = Call { deadline: self.rig.now().minus(Millis(1)), ..call };
        let answer = self.rig.open().perform(&call).await;
        // Waiting for the turn until the deadline is the other way to notice it.
        expect(answer.is_err(), || format!("answered {answer:?}"))?;
        same("effects", &self.rig.effects(&call).await, &0)
    }

    async fn dry_runs_predict(&mut self, kind: ActionKind) -> Checked {
        let (call, before) = self.call(kind).await?;
        let actuator = self.rig.open();
        same("dry run", &actuator.dry_run(&call).await, &Ok(DryRun::Accepted))?;
        let stale = Call { fence: Fence::default(), ..call.clone() };
        let answer = actuator.dry_run(&stale).await;
        let predicted = matches!(answer, Ok(DryRun::Refused(Error::Fenced { .. })));
        expect(predicted, || format!("a stale call was predicted {answer:?}"))?;
        let drifted = call.bound.keys().map(|name| (name.clone(), u64::MAX)).collect();
        let answer = actuator.dry_run(&Call { bound: drifted, ..call.clone() }).await;
        let predicted = matches!(answer, Ok(DryRun::Refused(Error::Drifted { .. })));
        expect(predicted, || format!("a drifted call was predicted {answer:?}"))?;
        same("versions after dry runs", &self.look(&call).await?.versions, &before.versions)
    }

    async fn hostile_names_go_nowhere(&mut self, kind: ActionKind) -> Checked {
        let (call, _) = self.call(kind).await?;
        let everything = self.everything().await?;
        for name in ["../../../tmp/x@0", "$(id)@0", "a b@0", "a\n@0", "@0", "A@0", "x;rm@0"] {
            let family = call.desired.keys().next().and_then(|name| name.split('/').next()).unwrap_or("weight");
            let desired = [(format!("{family}/{name}"), 1)].into();
            let answer = self.rig.open().perform(&Call { desired, ..call.clone() }).await;
            let refused = matches!(answer, Err(Error::Refused { .. } | Error::Unsupported));
            expect(refused, || format!("`{name}` was answered {answer:?}"))?;
        }
        let after = self.everything().await?;
        same("versions", &after.versions, &everything.versions)
    }

    async fn nothing_else_changes(&mut self, kind: ActionKind) -> Checked {
        let (call, _) = self.call(kind).await?;
        let mut before = self.everything().await?;
        self.perform(&call).await?;
        let mut after = self.everything().await?;
        for name in call.desired.keys() {
            for seen in [&mut before, &mut after] {
                seen.state.remove(name);
                seen.versions.remove(name);
            }
        }
        if kind == ActionKind::Scale {
            // Instances come and go with their number.
            for seen in [&mut before, &mut after] {
                seen.state.retain(|name, _| !name.starts_with("generation/"));
                seen.versions.retain(|name, _| !name.starts_with("generation/"));
            }
        }
        same("values outside", &after.state, &before.state)?;
        same("versions outside", &after.versions, &before.versions)
    }

    async fn call(&mut self, kind: ActionKind) -> Result<(Call, Observation), String> {
        let sample = self.rig.sample(kind).await.ok_or("no sample")?;
        let fields = sample.desired.keys().cloned().collect();
        let seen = self.rig.open().observe(&Selector { fields }).await;
        let seen = seen.map_err(|error| format!("observing was answered {error:?}"))?;
        let call = self.call_of(sample, seen.versions.clone());
        Ok((call, seen))
    }

    fn call_of(&mut self, sample: Sample, bound: Versions) -> Call {
        self.calls += 1;
        let now = self.rig.now();
        Call {
            key: key(self.calls),
            fence: self.fence,
            expires_at: sample.action.ttl_ms().map(|_| now.plus(LONG)),
            action: sample.action,
            desired: sample.desired,
            bound,
            deadline: now.plus(CALL_TIME),
        }
    }

    async fn perform(&self, call: &Call) -> Result<Receipt, String> {
        self.rig.open().perform(call).await.map_err(|error| format!("performing was answered {error:?}"))
    }

    async fn compensate(&self, call: &Call, before: &Observation) -> Result<Receipt, String> {
        let undo = Undo {
            key: call.key.undo(),
            fence: call.fence,
            restore: before.state.clone(),
            deadline: self.rig.now().plus(CALL_TIME),
        };
        self.rig.open().compensate(&undo).await.map_err(|error| format!("compensating was answered {error:?}"))
    }

    async fn look(&self, call: &Call) -> Result<Observation, String> {
        self.observe(call.desired.keys().cloned().collect()).await
    }

    async fn everything(&self) -> Result<Observation, String> {
        self.observe(self.rig.fields()).await
    }

    async fn observe(&self, fields: Vec<String>) -> Result<Observation, String> {
        let selector = Selector { fields: fields.into_iter().collect() };
        self.rig.open().observe(&selector).await.map_err(|error| format!("observing was answered {error:?}"))
    }

    async fn effects(&self, call: &Call) -> usize {
        self.rig.effects(call).await
    }
}

/// Polls a future so many times and drops it: its owner was killed there. `None` if it had not ended.
async fn cut<T>(mut future: Fut<'_, T>, polls: usize) -> Option<T> {
    let mut left = polls;
    std::future::poll_fn(move |context| {
        left = left.saturating_sub(1);
        match future.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn expect(kept: bool, what: impl FnOnce() -> String) -> Checked {
    if kept { Ok(()) } else { Err(what()) }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, seen: &T, wanted: &T) -> Checked {
    expect(seen == wanted, || format!("{what}: {seen:?} and not {wanted:?}"))
}
