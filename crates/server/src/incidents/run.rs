//! One incident's run: every stage is a durable promise; a settled one is never computed again.

use super::chain::{Batch, Chain};
use super::view::{STAGES, StageView, View};
use crate::app::App;
use crate::engine::{Guard, SubmitError};
use crate::evidence::EvidenceError;
use base::canon::Canon;
use base::{Digest, Millis, Timestamp};
use protocol::{Create, Request, Resolution, Settle, TaskRef, Value};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What was asked for; the param of the incident's promise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brief {
    /// The service to recover.
    pub target: String,
    /// Stop at the decision.
    #[serde(default)]
    pub preview: bool,
    /// An observer that is told to lie.
    #[serde(default)]
    pub lying_observer: Option<String>,
    /// When it was asked.
    pub asked_at_ms: i64,
}

/// How an incident ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// `committed`, `previewed`, `escalated`, `aborted`, `undone`, `mutated`, `held`, `out of time`.
    pub outcome: String,
    /// Exit code of the command that follows it.
    pub exit: u8,
    /// Why, in words; with the binding code where there is one.
    pub why: String,
}

impl Ending {
    /// In one line, for people.
    #[must_use]
    pub fn line(&self) -> String {
        format!("outcome        {} (exit {}): {}", self.outcome, self.exit, self.why)
    }
}

/// Why a run cannot go on by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// It is over, and how.
    #[error("{}", .0.why)]
    Ended(Ending),
    /// Another process owns the incident now.
    #[error("another process owns this incident now")]
    Lost,
    /// The store takes no writes for now: whoever is offered the incident after it does goes on.
    #[error("the store takes no writes; the incident goes on when it does")]
    Unwritable,
    /// The store did not take a stage.
    #[error("a stage could not be stored: {0}")]
    Store(String),
}

/// One run.
pub(crate) struct Run {
    /// The server.
    pub app: App,
    /// The incident's id.
    pub id: String,
    /// What was asked for.
    pub brief: Brief,
    /// The incident's task as this process holds it.
    pub task: TaskRef,
    /// Milliseconds the commit is expected to take, once decided.
    pub forecast_ms: u64,
    chain: Chain,
    view: Arc<Mutex<View>>,
    mark: Timestamp,
}

impl Stop {
    /// An ending that a person has to look at.
    pub(crate) fn escalate(why: impl Into<String>) -> Stop {
        Stop::Ended(Ending { outcome: "escalated".into(), exit: 20, why: why.into() })
    }

    /// The ending that a hold makes.
    pub(crate) fn held(why: impl std::fmt::Display) -> Stop {
        Stop::end("held", 70, format!("G101 {why}"))
    }

    /// An ending of another kind.
    pub(crate) fn end(outcome: &str, exit: u8, why: impl Into<String>) -> Stop {
        Stop::Ended(Ending { outcome: outcome.into(), exit, why: why.into() })
    }
}

impl From<SubmitError> for Stop {
    fn from(error: SubmitError) -> Stop {
        match error {
            SubmitError::Guard(Guard::Hold { scopes, .. }) => {
                Stop::held(format!("a hold covers {}; `stanch hold --list` says whose", scopes.join(", ")))
            }
            SubmitError::Guard(_) => Stop::Lost,
            SubmitError::Unavailable => Stop::Unwritable,
            other => Stop::Store(other.to_string()),
        }
    }
}

impl From<EvidenceError> for Stop {
    fn from(error: EvidenceError) -> Stop {
        match error {
            EvidenceError::Write(refused) => refused.into(),
            other => Stop::Store(other.to_string()),
        }
    }
}

impl From<base::KeyringError> for Stop {
    fn from(error: base::KeyringError) -> Stop {
        Stop::Store(error.to_string())
    }
}

impl Run {
    /// A run over an incident's task that this process holds.
    #[must_use]
    pub(crate) fn new(app: App, id: String, brief: Brief, task: TaskRef, view: Arc<Mutex<View>>) -> Run {
        let chain = Chain::load(&app.engine, &id);
        let mark = app.env.now();
        Run { app, id, brief, task, forecast_ms: 0, chain, view, mark }
    }

    /// Now.
    #[must_use]
    pub(crate) fn now(&self) -> Timestamp {
        self.app.env.now()
    }

    /// The promise id of a stage.
    #[must_use]
    pub(crate) fn promise(&self, name: &str) -> String {
        stage_id(&self.id, name)
    }

    /// Reads the chain again, after others have written to it.
    pub(crate) fn reload_chain(&mut self) {
        self.chain = Chain::load(&self.app.engine, &self.id);
    }

    /// An empty batch of records.
    #[must_use]
    pub(crate) fn batch(&self) -> Batch {
        self.chain.batch(self.now())
    }

    /// The stored value of a stage that settled before, if it did.
    #[must_use]
    pub(crate) fn recorded<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let promise = self.app.engine.promise(&self.promise(name))?;
        let data = promise.value.data.as_deref().filter(|_| promise.is_settled())?;
        serde_json::from_str(data).ok()
    }

    /// Settles a stage with its value and its records in one transaction.
    ///
    /// # Errors
    /// [`Stop::Lost`] when another process owns the incident, [`Stop::Store`] when nothing was stored.
    pub(crate) async fn settle<T: Serialize>(&mut self, name: &str, value: &T, batch: Batch) -> Result<(), Stop> {
        let id = self.promise(name);
        let data = serde_json::to_string(value).map_err(|error| Stop::Store(error.to_string()))?;
        let settle = Settle { id: id.clone(), state: Resolution::Resolved, value: Value::text(data) };
        let create = self.create(&id, Value::default(), BTreeMap::new(), self.far());
        self.submit(vec![create, Request::PromiseSettle(settle)], batch, Vec::new()).await
    }

    /// Writes requests and records in one transaction, guarded by the incident's task and chain.
    ///
    /// # Errors
    /// As [`Run::settle`].
    pub(crate) async fn submit(
        &mut self,
        requests: Vec<Request>,
        batch: Batch,
        guards: Vec<Guard>,
    ) -> Result<(), Stop> {
        let mut all = vec![
            Guard::Task { id: self.task.id.clone(), version: self.task.version },
            Guard::Chain { incident: self.id.clone(), seq: batch.first_seq() },
        ];
        all.extend(guards);
        let (chain, entries, blobs) = batch.into_parts();
        self.app.engine.submit(requests, entries, blobs, all).await?;
        self.chain = chain;
        Ok(())
    }

    /// The creation of a promise of this incident.
    #[must_use]
    pub(crate) fn create(
        &self,
        id: &str,
        param: Value,
        tags: BTreeMap<String, String>,
        timeout_at: Timestamp,
    ) -> Request {
        Request::PromiseCreate(Create { id: id.to_owned(), timeout_at, param, tags })
    }

    /// A deadline no stage reaches: the incident's own budget ends it before.
    #[must_use]
    pub(crate) fn far(&self) -> Timestamp {
        self.now().plus(Millis(86_400_000))
    }

    /// Goes on only if no hold covers these services.
    ///
    /// # Errors
    /// Held: by whom, why, and how to lift it.
    pub(crate) fn not_held(&self, services: &[String]) -> Result<(), Stop> {
        match crate::holds::covering(&self.app, services) {
            Some(hold) => Err(Stop::held(hold.sentence())),
            None => Ok(()),
        }
    }

    /// Adds the time since the last call to a stage.
    pub(crate) fn spent(&mut self, stage: usize) {
        let now = self.now();
        let ms = now.since(self.mark).0;
        self.mark = now;
        self.show(|view| {
            if let Some(shown) = view.stages.get_mut(stage.saturating_sub(1)) {
                shown.ms += ms;
            }
        });
    }

    /// Why the last executor gave its task back, as the end of a sentence.
    #[must_use]
    pub(crate) fn given_back(&self) -> String {
        let view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.given_back.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"))
    }

    /// Adds a line for people.
    pub(crate) fn say(&self, line: impl Into<String>) {
        let line = line.into();
        self.show(|view| view.lines.push(line));
    }

    /// Changes what is seen of the incident.
    pub(crate) fn show(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The promise id of a stage of an incident.
#[must_use]
pub fn stage_id(incident: &str, name: &str) -> String {
    format!("inc/{incident}:{name}")
}

/// The thirteen stages, nothing spent yet.
#[must_use]
pub(crate) fn empty_stages() -> Vec<StageView> {
    (1_u8..).zip(STAGES).map(|(n, name)| StageView { n, name: name.to_owned(), ms: 0 }).collect()
}

/// The digest of a value's canonical bytes, and the bytes, for a blob.
#[must_use]
pub(crate) fn blob_of(kind: &str, value: &impl Canon) -> (Digest, Vec<u8>) {
    let bytes = base::canon::object(kind, &value.to_value());
    (Digest::of(&bytes), bytes)
}
