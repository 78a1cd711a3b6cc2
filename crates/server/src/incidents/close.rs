//! Stages 12 and 13: an executor proves convergence and signs the seal.

use super::commit::Committed;
use super::detect::Detected;
use super::propose::Decided;
use super::run::{Ending, Run, Stop};
use super::view::{ConvergenceView, EvidenceView};
use crate::remediation::wire::{ConvergeParam, EXECUTOR, SealParam, TaskParam};
use base::{Digest, Millis};
use governance::policy::Effective;
use protocol::{Promise, PromiseState, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long an executor may take to sign the seal.
const SEAL_MAX: Millis = Millis(15_000);

impl Run {
    /// Stage 12. Silence is never success: a deadline that passes escalates.
    ///
    /// # Errors
    /// It did not converge.
    pub(super) async fn converge(
        &mut self,
        effective: &Effective,
        detected: &Detected,
        decided: &Decided,
        committed: &Committed,
    ) -> Result<Ending, Stop> {
        let windows = &effective.tier.windows;
        let deadline = effective.class.converge_deadline;
        let param = ConvergeParam {
            incident: self.id.clone(),
            plan: decided.plan.digest().to_string(),
            writes: decided.writes.clone(),
            samples: windows.converge.samples,
            every_ms: windows.converge.every.0,
            deadline_ms: deadline.0,
            onset_ms: detected.onset_ms,
            baseline_ms: windows.baseline.0,
            commit_began_ms: committed.began_ms,
        };
        let began = self.now();
        let settled = self.offer("converge", &TaskParam::Converge(param), deadline.0 + 10_000).await?;
        let took = self.now().since(began);
        self.spent(12);
        let checks: Vec<String> = settled
            .as_ref()
            .and_then(|promise| serde_json::from_str(promise.value.data.as_deref()?).ok())
            .unwrap_or_default();
        let converged = settled.is_some_and(|promise| promise.state == PromiseState::Resolved);
        let outcome = if converged { "converged" } else { "not" };
        let shown = if converged { "converged: well again" } else { "not converged" };
        let answered = if checks.is_empty() { ": no answer" } else { "" };
        self.say(format!("converge       {shown} after {}.{} s{answered}", took.0 / 1_000, took.0 % 1_000 / 100));
        for check in &checks {
            self.say(format!("               {check}"));
        }
        self.show(|view| {
            view.convergence =
                Some(ConvergenceView { outcome: outcome.to_owned(), checks: checks.clone(), ms: took.0 });
        });
        if converged {
            return Ok(Ending { outcome: "committed".into(), exit: 0, why: "committed and converged".into() });
        }
        Err(Stop::escalate(format!(
            "committed, but not converged within {deadline}{}: {}",
            self.given_back(),
            checks.join("; ")
        )))
    }

    /// Stage 13, for every ending: checkpoint, seal, bundle.
    ///
    /// # Errors
    /// The evidence stays open.
    pub(super) async fn close(&mut self, ending: &Ending) -> Result<(), Stop> {
        self.reload_chain();
        self.say(ending.line());
        let (checkpoint, _) = crate::evidence::checkpoint(&self.app).await?;
        let entries = self.app.engine.incident_entries(&self.id).map_err(|error| Stop::Store(error.to_string()))?;
        if entries.is_empty() {
            // A seal of nothing would verify as nothing.
            self.say("evidence       none: it ended before anything was recorded");
            return Ok(());
        }
        let statements = entries.iter().filter_map(|(_, bytes)| super::statement_digest(bytes));
        let shown = self.app.incidents.view(&self.id).unwrap_or_default();
        let commit_ms = shown.stages.iter().filter(|stage| (9..=11).contains(&stage.n)).map(|stage| stage.ms).sum();
        let param = SealParam {
            incident: self.id.clone(),
            first: entries.first().map_or(0, |(index, _)| *index),
            last: entries.last().map_or(0, |(index, _)| *index),
            statements: statements.map(|digest| digest.to_string()).collect(),
            checkpoint_size: checkpoint.size,
            checkpoint_root: checkpoint.root.to_string(),
            grew: self.grew(),
            forecast_ms: self.forecast_ms,
            measured_ms: commit_ms,
            outcome: ending.outcome.clone(),
        };
        let settled = self.offer("seal", &TaskParam::Seal(param), SEAL_MAX.0).await?;
        if settled.is_none_or(|promise| promise.state != PromiseState::Resolved) {
            return Err(Stop::escalate("no executor signed the seal; the evidence stays open"));
        }
        let bundle = crate::evidence::bundle(&self.app, &self.id).await?;
        let records = self.app.engine.incident_entries(&self.id).map_err(|error| Stop::Store(error.to_string()))?;
        self.spent(13);
        let digest = Digest::of(&bundle).to_string();
        self.say(format!(
            "evidence       sealed: {} records, {} bytes, bundle {}",
            records.len(),
            bundle.len(),
            digest.get(..8).unwrap_or("")
        ));
        self.show(|view| {
            view.evidence =
                Some(EvidenceView { file: String::new(), digest, verified: false, entries: records.len() as u64 });
        });
        Ok(())
    }

    /// Whether a service is impaired now that was not when the incident began.
    fn grew(&self) -> bool {
        let Some(detected) = self.recorded::<Detected>("detect") else { return false };
        let snapshot = self.app.telemetry.snapshot();
        snapshot
            .services()
            .any(|name| snapshot.is_impaired(name) && !detected.impaired.iter().any(|known| known == name))
    }

    /// Offers a task to the executors and waits for its end.
    async fn offer(&mut self, name: &str, param: &TaskParam, timeout_ms: u64) -> Result<Option<Arc<Promise>>, Stop> {
        let id = self.promise(name);
        // What stood in the way of the task before says nothing about this one.
        self.show(|view| view.given_back = None);
        if self.app.engine.promise(&id).is_none() {
            let data = serde_json::to_string(param).map_err(|error| Stop::Store(error.to_string()))?;
            let tags = BTreeMap::from([(protocol::TARGET.to_owned(), EXECUTOR.to_owned())]);
            let timeout = self.now().plus(Millis(timeout_ms));
            let create = self.create(&id, Value::text(data), tags, timeout);
            let batch = self.batch();
            self.submit(vec![create], batch, Vec::new()).await?;
        }
        let settled = self.app.engine.wait_settled(&id).await;
        self.reload_chain();
        Ok(settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::App;
    use crate::engine::tests::until;
    use crate::fixture::Fixture;
    use crate::incidents::chain::{Batch, Chain};
    use crate::incidents::run::Brief;
    use governance::record::Veto;
    use protocol::{Create, Request, TaskRef};

    /// An incident whose task is held, with what `records` puts into its evidence.
    async fn begun(app: &App, records: impl FnOnce(&mut Batch)) -> Run {
        let id = "inc/abc".to_owned();
        let tags = BTreeMap::from([(protocol::TARGET.to_owned(), "poll://any@test".to_owned())]);
        let timeout_at = app.env.now().plus(Millis(3_600_000));
        let create = Create { id: id.clone(), timeout_at, param: Value::default(), tags };
        let acquire = Request::TaskAcquire { id: id.clone(), version: 0, pid: "w".into(), ttl: Millis(3_600_000) };
        let requests = vec![Request::PromiseCreate(create), acquire];
        let mut batch = Chain::load(&app.engine, "abc").batch(app.env.now());
        records(&mut batch);
        let (_, entries, blobs) = batch.into_parts();
        app.engine.submit(requests, entries, blobs, Vec::new()).await.unwrap();
        let task = TaskRef { id, version: app.engine.task("inc/abc").unwrap().version };
        Run::new(app.clone(), "abc".into(), Brief::default(), task, Arc::default())
    }

    fn escalated() -> Ending {
        Ending { outcome: "escalated".into(), exit: 20, why: "a test".into() }
    }

    #[tokio::test]
    async fn a_seal_that_nobody_signs_leaves_the_evidence_open_after_its_time() {
        let fixture = Fixture::new();
        let app = fixture.app.clone();
        let veto = Veto { plan: Digest::of(b"plan"), reasons: vec!["a test".into()], evidence: Vec::new() };
        let mut run = begun(&app, |batch| assert!(batch.record(&app.keys.verification, veto).is_ok())).await;
        let (seal, ending) = (run.promise("seal"), escalated());
        let offered = async {
            until("a seal is asked for", || app.engine.promise(&seal).is_some()).await;
            assert_eq!(app.engine.promise(&seal).unwrap().timeout_at, app.env.now().plus(SEAL_MAX));
            app.env.advance(Millis(SEAL_MAX.0 - 1));
            app.engine.flush().await.unwrap();
            assert_eq!(app.engine.promise(&seal).unwrap().state, PromiseState::Pending);
            app.env.advance(Millis(1));
        };
        let (closed, ()) = tokio::join!(run.close(&ending), offered);
        let Err(Stop::Ended(ended)) = closed else { panic!("{closed:?}") };
        assert!(ended.exit == 20 && ended.why.contains("the evidence stays open"), "{ended:?}");
    }

    #[tokio::test]
    async fn what_ended_before_anything_was_recorded_asks_nobody_for_a_seal() {
        let fixture = Fixture::new();
        let mut run = begun(&fixture.app, |_| ()).await;
        run.close(&escalated()).await.unwrap();
        assert!(fixture.app.engine.promise(&run.promise("seal")).is_none());
    }
}
