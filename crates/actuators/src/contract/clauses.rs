//! The clauses, one function each.

use super::{Clause, Found, Rig, Sample, key};
use crate::actuator::{Actuator, DryRun, Error, Fut, Reason, Selector};
use base::Millis;
use recovery::call::{Call, Fence, Observation, Receipt, Reconciled, Undo, Versions};
use recovery::isa::ActionKind;
use std::sync::Arc;
use std::task::Poll;

/// Calls with one key at once ([`Clause::OneKeyOneEffect`]).
const REPEATS: usize = 100;
/// Time for one call.
const CALL_TIME: Millis = Millis(30_000);
/// A time to live that does not end during a check.
const LONG: Millis = Millis(600_000);
/// A time to live that does.
pub(super) const SHORT: Millis = Millis(400);
/// How late an expiry may be.
pub(super) const LATE_MAX: Millis = Millis(1_000);
/// The pause between two looks.
const PAUSE: Millis = Millis(20);
/// How often a reconciliation may say Unknown before it counts as never knowing.
const UNKNOWN_MAX: usize = 200;
/// Where a call is cut off, in polls of its future.
const CUTS: [usize; 12] = [1, 2, 3, 4, 5, 6, 8, 10, 14, 20, 40, 80];

pub(super) type Checked = Result<(), String>;

pub(super) struct Suite<'a> {
    pub(super) rig: &'a dyn Rig,
    calls: u64,
    pub(super) fence: Fence,
}

impl<'a> Suite<'a> {
    pub(super) fn new(rig: &'a dyn Rig) -> Suite<'a> {
        Suite { rig, calls: 0, fence: Fence { epoch: 1, version: 1 } }
    }

    pub(super) async fn check(&mut self, clause: Clause, kind: ActionKind) -> Found {
        let is_temporary =
            matches!(kind, ActionKind::Drain | ActionKind::CircuitBreak | ActionKind::RateLimit | ActionKind::Scale);
        let checked = match clause {
            Clause::Observe => self.observe_changes_nothing(kind).await,
            Clause::Perform => self.perform_reaches(kind).await,
            Clause::OneKeyOneEffect => self.one_key_one_effect(kind).await,
            Clause::LowerFences => self.lower_fences_are_refused(kind).await,
            Clause::FencesSurvive => self.fences_survive(kind).await,
            Clause::Drift => self.drift_is_refused(kind).await,
            Clause::Killed => self.cut_calls_are_told_right(kind).await,
            Clause::LostReply => self.lost_replies_reconcile(kind).await,
            Clause::Deadline => self.nothing_past_the_deadline(kind).await,
            Clause::DryRun => self.dry_runs_predict(kind).await,
            Clause::Matrix => self.matrix(kind).await,
            Clause::HostileNames => self.hostile_names_go_nowhere(kind).await,
            Clause::NothingElse => self.nothing_else_changes(kind).await,
            // A restart has no inverse.
            Clause::Compensate | Clause::CompensateAgain if kind == ActionKind::Restart => return Found::Without,
            Clause::Compensate => self.compensation_restores(kind).await,
            Clause::CompensateAgain => self.compensation_repeats(kind).await,
            Clause::Expiry | Clause::ExpiryAfterRestart | Clause::ExpiryOverExpiry if !is_temporary => {
                return Found::Without;
            }
            Clause::Expiry => self.effects_expire(kind).await,
            Clause::ExpiryAfterRestart => self.expiry_survives_a_restart(kind).await,
            Clause::ExpiryOverExpiry => self.expiries_stack(kind).await,
            Clause::AtTheTarget => return self.fenced_at_the_target(kind).await.into(),
            Clause::BrokenLink => return self.broken_links_are_told_right(kind).await.into(),
        };
        checked.map(|()| true).into()
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
        let actuator = self.rig.open();
        let (first, _) = self.call_by(&*actuator, kind).await?;
        self.perform_by(&*actuator, &first).await?;
        for fence in [Fence { version: 4, ..self.fence }, Fence { epoch: self.fence.epoch - 1, version: 9 }] {
            let (call, _) = self.call_by(&*actuator, kind).await?;
            let call = Call { fence, ..call };
            self.is_fenced(&*actuator, &call).await?;
            let answer = actuator.reconcile(&call).await;
            expect(matches!(answer, Err(Error::Fenced { .. })), || format!("reconciled {answer:?} under {fence:?}"))?;
        }
        Ok(())
    }

    async fn fences_survive(&mut self, kind: ActionKind) -> Checked {
        let (first, _) = self.call(kind).await?;
        self.perform(&first).await?;
        let (call, _) = self.call(kind).await?;
        let stale = Fence { epoch: self.fence.epoch - 1, ..self.fence };
        self.is_fenced(&*self.rig.open(), &Call { fence: stale, ..call }).await
    }

    async fn is_fenced(&self, actuator: &dyn Actuator, call: &Call) -> Checked {
        let answer = actuator.perform(call).await;
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
                    // The same key again, by somebody who does not know that it was done.
                    self.perform(&successor).await?;
                    same("effects, performed once more", &self.effects(&successor).await, &1)?;
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

    pub(super) async fn reconcile(&self, call: &Call) -> Result<Reconciled, String> {
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
        self.lasting(kind).await?;
        let (call, before) = self.call(kind).await?;
        let expires_at = self.rig.now().plus(SHORT);
        let call = Call { expires_at: Some(expires_at), ..call };
        cut(self.rig.open().perform(&call), usize::MAX).await;
        let mut limit = expires_at.plus(LATE_MAX);
        loop {
            let now = self.rig.now();
            let seen = self.look(&call).await?.state;
            expect(seen == call.desired || self.rig.now() >= expires_at, || "ended before its time".to_owned())?;
            if seen == before.state && self.rig.now() >= expires_at {
                return Ok(());
            }
            expect(seen == before.state || seen == call.desired, || format!("became {seen:?}"))?;
            expect(now <= limit, || format!("still {seen:?} after its time"))?;
            limit = limit.plus(self.pause().await);
        }
    }

    /// Lets some time pass; answers by how much longer this machine took: what it does not get to do in time is no
    /// lateness of the target.
    pub(super) async fn pause(&self) -> Millis {
        let before = self.rig.now();
        self.rig.pass(PAUSE).await;
        Millis(self.rig.now().since(before).0.saturating_sub(PAUSE.0))
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
        let actuator = self.rig.open();
        let (first, _) = self.call_by(&*actuator, kind).await?;
        self.perform_by(&*actuator, &first).await?;
        let (call, before) = self.call_by(&*actuator, kind).await?;
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

    pub(super) async fn call(&mut self, kind: ActionKind) -> Result<(Call, Observation), String> {
        self.call_by(&*self.rig.open(), kind).await
    }

    pub(super) async fn call_by(
        &mut self,
        actuator: &dyn Actuator,
        kind: ActionKind,
    ) -> Result<(Call, Observation), String> {
        let sample = self.rig.sample(kind).await.ok_or("no sample")?;
        let fields = sample.desired.keys().cloned().collect();
        let seen = actuator.observe(&Selector { fields }).await;
        let seen = seen.map_err(|error| format!("observing was answered {error:?}"))?;
        let call = self.call_of(sample, seen.versions.clone());
        Ok((call, seen))
    }

    pub(super) fn call_of(&mut self, sample: Sample, bound: Versions) -> Call {
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

    pub(super) async fn perform(&self, call: &Call) -> Result<Receipt, String> {
        self.perform_by(&*self.rig.open(), call).await
    }

    pub(super) async fn perform_by(&self, actuator: &dyn Actuator, call: &Call) -> Result<Receipt, String> {
        actuator.perform(call).await.map_err(|error| format!("performing was answered {error:?}"))
    }

    /// Makes the value that is there now a lasting one: a compensation has no time to live.
    pub(super) async fn lasting(&mut self, kind: ActionKind) -> Checked {
        let (call, before) = self.call(kind).await?;
        self.compensate(&call, &before).await.map(|_| ())
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

    pub(super) async fn look(&self, call: &Call) -> Result<Observation, String> {
        self.observe(call.desired.keys().cloned().collect()).await
    }

    pub(super) async fn everything(&self) -> Result<Observation, String> {
        self.observe(self.rig.fields()).await
    }

    async fn observe(&self, fields: Vec<String>) -> Result<Observation, String> {
        let selector = Selector { fields: fields.into_iter().collect() };
        self.rig.open().observe(&selector).await.map_err(|error| format!("observing was answered {error:?}"))
    }

    pub(super) async fn effects(&self, call: &Call) -> usize {
        self.rig.effects(call).await
    }
}

/// Polls a future so many times and drops it: its owner was killed there. `None` if it had not ended.
pub(super) async fn cut<T>(mut future: Fut<'_, T>, polls: usize) -> Option<T> {
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

pub(super) fn expect(kept: bool, what: impl FnOnce() -> String) -> Checked {
    if kept { Ok(()) } else { Err(what()) }
}

pub(super) fn same<T: PartialEq + std::fmt::Debug>(what: &str, seen: &T, wanted: &T) -> Checked {
    expect(seen == wanted, || format!("{what}: {seen:?} and not {wanted:?}"))
}
