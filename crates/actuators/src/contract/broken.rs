//! The clauses about what breaks around an actuator: its link, its target, and everybody who would have ended what it began.

use super::LinkFault;
use super::clauses::{Checked, LATE_MAX, SHORT, Suite, expect, same};
use crate::actuator::Error;
use base::{Millis, Timestamp};
use recovery::call::{Call, Fence, Observation, Reconciled, State};
use recovery::isa::ActionKind;

/// How long the caller of a call that stays on its way waits before it gives up.
const PATIENCE: Millis = Millis(300);
/// The first of two times to live, one over the other; the second ends with [`SHORT`].
const LONGER: Millis = Millis(60_000);

impl Suite<'_> {
    /// False: nothing stands between the actuator and what it changes.
    pub(super) async fn fenced_at_the_target(&mut self, kind: ActionKind) -> Result<bool, String> {
        self.fence = Fence { epoch: self.fence.epoch + 1, version: 5 };
        let actuator = self.rig.open();
        let (first, _) = self.call_by(&*actuator, kind).await?;
        self.perform_by(&*actuator, &first).await?;
        for is_restarted in [false, true] {
            if is_restarted {
                self.rig.restart().await;
            }
            for fence in [Fence { version: 4, ..self.fence }, Fence { epoch: self.fence.epoch - 1, version: 9 }] {
                let (call, _) = self.call_by(&*actuator, kind).await?;
                let call = Call { fence, ..call };
                let Some(answer) = self.rig.deliver(&call).await else { return Ok(false) };
                let when = if is_restarted { " after its restart" } else { "" };
                let fenced = matches!(answer, Err(Error::Fenced { seen }) if seen > fence);
                expect(fenced, || format!("{fence:?} was answered {answer:?} by the target{when}"))?;
                same("effects of a fenced call", &self.effects(&call).await, &0)?;
            }
        }
        Ok(true)
    }

    /// False: there is no link to break.
    pub(super) async fn broken_links_are_told_right(&mut self, kind: ActionKind) -> Result<bool, String> {
        for (fault, effects) in [(LinkFault::CutBefore, 0), (LinkFault::CutAfter, 1), (LinkFault::Late, 0)] {
            let Some(actuator) = self.rig.link(kind, fault).await else { return Ok(false) };
            let (call, _) = self.call(kind).await?;
            let answer = tokio::select! {
                biased;
                answer = actuator.perform(&call) => answer,
                () = self.patience(fault) => Err(Error::TimedOut),
            };
            drop(actuator);
            let is_unknown = matches!(answer, Err(Error::TimedOut | Error::Unavailable));
            expect(is_unknown, || format!("{fault:?} was answered {answer:?}, and nobody can know"))?;
            self.out_of_reach(kind, &call).await?;
            let told = self.reconcile(&call).await?;
            let expected = match told {
                Reconciled::Applied(_) => 1,
                Reconciled::Absent => 0,
                Reconciled::Unknown => return Err(format!("{fault:?}: never known")),
            };
            same(&format!("effects, {fault:?} told {}", word(&told)), &self.effects(&call).await, &expected)?;
            same(&format!("told, {fault:?}"), &expected, &effects)?;
            self.rig.deliver_late().await;
            same(&format!("effects after {fault:?} arrived"), &self.effects(&call).await, &expected)?;
            self.perform(&call).await?;
            same(&format!("effects of the same key after {fault:?}"), &self.effects(&call).await, &1)?;
        }
        Ok(true)
    }

    /// What nobody can look at is neither applied nor absent.
    async fn out_of_reach(&self, kind: ActionKind, call: &Call) -> Checked {
        let Some(blind) = self.rig.link(kind, LinkFault::Down).await else { return Ok(()) };
        let told = blind.reconcile(call).await;
        let unknown = matches!(told, Ok(Reconciled::Unknown) | Err(Error::TimedOut | Error::Unavailable));
        expect(unknown, || format!("out of reach, it was told {told:?}"))
    }

    async fn patience(&self, fault: LinkFault) {
        if fault == LinkFault::Late { self.rig.pass(PATIENCE).await } else { std::future::pending().await }
    }

    /// Once with the time over while the target is down, once with it running on.
    pub(super) async fn expiry_survives_a_restart(&mut self, kind: ActionKind) -> Checked {
        self.lasting(kind).await?;
        let (call, before) = self.call(kind).await?;
        let expires_at = self.rig.now().plus(SHORT);
        let call = Call { expires_at: Some(expires_at), ..call };
        self.perform(&call).await?;
        self.rig.restart().await;
        self.ends(&call, &before.state, expires_at).await
    }

    pub(super) async fn expiries_stack(&mut self, kind: ActionKind) -> Checked {
        self.lasting(kind).await?;
        let (first, before) = self.call(kind).await?;
        let first = Call { expires_at: Some(self.rig.now().plus(LONGER)), ..first };
        self.perform(&first).await?;
        let (second, _) = self.call(kind).await?;
        let expires_at = self.rig.now().plus(SHORT);
        let second = Call { expires_at: Some(expires_at), ..second };
        self.perform(&second).await?;
        self.ends(&second, &before.state, expires_at).await
    }

    /// The fields are as before in time.
    async fn ends(&self, call: &Call, before: &State, expires_at: Timestamp) -> Checked {
        // What needed longer than its own time to live is late from its end on.
        let mut limit = expires_at.max(self.rig.now()).plus(LATE_MAX);
        loop {
            let now = self.rig.now();
            let Observation { state, .. } = self.look(call).await?;
            if state == *before && self.rig.now() >= expires_at {
                return Ok(());
            }
            expect(now <= limit, || format!("still {state:?} after its time, not {before:?}"))?;
            limit = limit.plus(self.pause().await);
        }
    }
}

fn word(told: &Reconciled) -> &'static str {
    match told {
        Reconciled::Applied(_) => "applied",
        Reconciled::Absent => "absent",
        Reconciled::Unknown => "unknown",
    }
}
