//! Stages 9 to 11: the scope lease is taken and the commit is offered to an executor, who arms, acts and undoes.

use super::detect::Intended;
use super::propose::Decided;
use super::run::{Run, Stop};
use crate::engine::{Guard, ScopeError};
use crate::misses::{self, Watched};
use crate::remediation::wire::{CommitParam, EXECUTOR, TaskParam};
use base::{Millis, Timestamp};
use governance::policy::Effective;
use protocol::{PromiseState, Value};
use recovery::falsify::Watch;
use recovery::isa::ActionKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a commit ended, as its executor settled it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Committed {
    /// committed, undone, stuck or stopped.
    pub outcome: String,
    /// When the first step began.
    pub began_ms: i64,
    /// How long it took.
    pub took_ms: u64,
}

impl Run {
    /// Offers the commit and waits for its end.
    ///
    /// # Errors
    /// How it ended, if not committed.
    pub(super) async fn commit(
        &mut self,
        effective: &Effective,
        intended: &Intended,
        decided: &Decided,
    ) -> Result<Committed, Stop> {
        let name = format!("commit.{}", decided.revision);
        let id = self.promise(&name);
        let began = self.now();
        self.forecast_ms = decided.forecast_ms;
        if self.app.engine.promise(&id).is_none() {
            let epoch = self.take_scope(decided).await?;
            let param = self.commit_param(effective, decided, epoch)?;
            let data =
                serde_json::to_string(&TaskParam::Commit(param)).map_err(|error| Stop::Store(error.to_string()))?;
            let tags = BTreeMap::from([(protocol::TARGET.to_owned(), EXECUTOR.to_owned())]);
            let timeout = Timestamp(intended.expires_at_ms).plus(Millis(60_000));
            let create = self.create(&id, Value::text(data), tags, timeout);
            let batch = self.batch();
            self.not_held(&decided.writes)?;
            let unheld = Guard::Hold { scopes: decided.writes.clone(), is_undo: false };
            self.submit(vec![create], batch, vec![unheld]).await?;
        }
        self.falsify(effective, decided, &id);
        self.spent(9);
        let settled = self.app.engine.wait_settled(&id).await;
        self.reload_chain();
        self.spent(10);
        let settled = settled.ok_or_else(|| Stop::Store("the commit's promise is gone".into()))?;
        if settled.state == PromiseState::TimedOut {
            if let Some(hold) = crate::holds::covering(&self.app, &decided.writes) {
                return Err(Stop::held(format!(
                    "{}; the commit was frozen until its time was over, open effects end with their ttl",
                    hold.sentence()
                )));
            }
            return Err(Stop::escalate(format!(
                "no executor finished the commit in time{}; open effects end with their ttl",
                self.given_back()
            )));
        }
        let outcome = settled.value.data.clone().unwrap_or_default();
        let committed = Committed { outcome: outcome.clone(), began_ms: began.0, took_ms: self.now().since(began).0 };
        match outcome.split(' ').next() {
            Some("committed") => Ok(committed),
            Some("undone") => Err(Stop::end("undone", 40, format!("the plan was undone: {outcome}"))),
            Some("refused") => Err(Stop::escalate(format!(
                "nothing was done: the executor {outcome}; run `stanch recover` again to preview it anew"
            ))),
            _ => Err(Stop::escalate(unfinished(&outcome, &decided.writes))),
        }
    }

    /// Watches what the commit restarts, from before it does and beyond its end.
    fn falsify(&self, effective: &Effective, decided: &Decided, commit: &str) {
        let restarts = |step: &recovery::plan::Step| step.action.kind() == ActionKind::Restart;
        if !decided.plan.steps.iter().any(restarts) {
            return;
        }
        let since = self.app.engine.promise(commit).map_or(self.now(), |promise| promise.created_at);
        let within = effective.tier.windows.graph.falsify_within;
        let watch = Watch::new(self.app.telemetry.snapshot(), Timestamp(self.onset_ms()), within);
        let watched = Watched {
            incident: self.id.clone(),
            plan: recovery::text::steps(&decided.plan.steps),
            class: decided.plan.class.clone(),
            commit: commit.to_owned(),
            writes: decided.writes.clone(),
            since,
        };
        self.app.env.spawn(misses::watch(self.app.clone(), watched, watch));
    }

    async fn take_scope(&mut self, decided: &Decided) -> Result<u64, Stop> {
        match self.app.engine.take_scope(&self.id, &decided.writes, &decided.callers).await {
            Ok(epoch) => Ok(epoch),
            Err(ScopeError::Conflict(conflict)) => Err(Stop::escalate(format!(
                "K402 `{}` is held by incident {}; run `stanch recover` again when it has ended",
                conflict.name, conflict.incident
            ))),
            Err(ScopeError::Unavailable) => Err(Stop::Unwritable),
        }
    }

    fn commit_param(&self, effective: &Effective, decided: &Decided, epoch: u64) -> Result<CommitParam, Stop> {
        let entries = self.app.engine.incident_entries(&self.id).map_err(|error| Stop::Store(error.to_string()))?;
        let is_decision = |(_, bytes): &&(u64, Vec<u8>)| super::statement_digest(bytes) == Some(decided.decision);
        let (index, bytes) =
            entries.iter().find(is_decision).ok_or_else(|| Stop::Store("the decision is gone".into()))?;
        let windows = &effective.tier.windows;
        Ok(CommitParam {
            incident: self.id.clone(),
            revision: decided.revision,
            decision_index: *index,
            decision: String::from_utf8_lossy(bytes).into_owned(),
            world: decided.world.to_string(),
            plan: decided.plan.digest().to_string(),
            bound: decided.bound.to_string(),
            epoch,
            backoff_ms: windows.reconcile.backoff.iter().map(|wait| wait.0).collect(),
            regression_for_ms: windows.regression_for.0,
            onset_ms: self.onset_ms(),
        })
    }

    /// When it began, as stage 1 settled it.
    pub(super) fn onset_ms(&self) -> i64 {
        self.recorded::<super::detect::Detected>("detect").map_or(self.brief.asked_at_ms, |detected| detected.onset_ms)
    }
}

/// A commit that ended neither whole nor undone. Nothing is held by itself: the lease is given back, and whoever asks
/// next acts there.
fn unfinished(outcome: &str, writes: &[String]) -> String {
    let holds: Vec<String> = writes.iter().map(|service| format!("`stanch hold {service}`")).collect();
    format!(
        "the commit ended {outcome}: what it changed is not known to be whole or undone. Look at it before anybody asks for \
         another recovery there; {} lets nothing more begin until then",
        holds.join(" and ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_commit_promises_no_rest_that_nobody_keeps() {
        let writes = ["checkout".to_owned(), "payments".to_owned()];
        let said = unfinished("stuck s2", &writes);
        assert!(said.contains("ended stuck s2") && !said.contains("nothing more is done"), "{said}");
        assert!(said.contains("`stanch hold checkout` and `stanch hold payments` lets nothing more begin"), "{said}");
    }
}
