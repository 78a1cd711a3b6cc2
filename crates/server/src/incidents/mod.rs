//! Incidents: the orchestrator that takes each through its thirteen stages, and what is seen of them.
//!
//! An incident is a durable promise `inc/<id>` with a task for the orchestrator; every stage is a promise
//! below it. Whoever holds the task goes on where the settled stages end.

mod chain;
mod close;
mod commit;
mod decide;
mod detect;
mod preview;
mod propose;
mod routes;
mod run;
pub mod view;

pub use chain::{Batch, Chain, statement, statement_digest};
pub use propose::{read_plan, read_world};
pub use routes::routes;
pub use run::{Brief, Ending, stage_id};

use crate::app::App;
use crate::engine::SubmitError;
use base::{Millis, Timestamp};
use protocol::{Body, Create, Message, Request, Resolution, Settle, TaskRef, Value};
use run::{Run, Stop, empty_stages};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use view::View;

/// Where the orchestrator's tasks are offered.
const ORCHESTRATOR: &str = "poll://any@orchestrator";
/// The lease of an incident's task; heartbeats keep it.
const LEASE: Millis = Millis(5_000);
/// LIMIT: how long an incident may exist at all.
const INCIDENT_MAX: Millis = Millis(86_400_000);
/// LIMIT: bytes of the key of an asking.
pub const KEY_BYTES_MAX: usize = 64;

/// What this process shows of incidents; cheap to clone.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<BTreeMap<String, Arc<Mutex<View>>>>>);

/// Why an incident was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The service is not known here.
    #[error("no service `{name}` here{}", nearest.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    Unknown {
        /// As asked.
        name: String,
        /// The nearest known name.
        nearest: Option<String>,
    },
    /// The store did not take it.
    #[error("the incident could not be stored: {0}")]
    Store(String),
    /// The store failed while it took it: it is there, or not, once the store can be read again.
    #[error("whether incident {id} was stored is not known: {why}; `stanch recover --resume {id}` tells then")]
    Unsure {
        /// The incident's id.
        id: String,
        /// What stands in the way.
        why: String,
    },
}

impl Registry {
    /// The view of an incident.
    #[must_use]
    pub fn view(&self, id: &str) -> Option<View> {
        let views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let view = views.get(id)?;
        let shown = view.lock().unwrap_or_else(PoisonError::into_inner);
        Some(shown.clone())
    }

    /// Changes what is seen of an incident.
    pub fn show(&self, id: &str, change: impl FnOnce(&mut View)) {
        let view = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        if let Some(view) = view {
            change(&mut view.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn slot(&self, id: &str, brief: &Brief, policy: &str) -> Arc<Mutex<View>> {
        let mut views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        views.entry(id.to_owned()).or_insert_with(|| Arc::new(Mutex::new(empty_view(id, brief, policy)))).clone()
    }
}

fn empty_view(id: &str, brief: &Brief, policy: &str) -> View {
    View {
        incident: id.to_owned(),
        target: brief.target.clone(),
        policy: policy.to_owned(),
        stages: empty_stages(),
        ..View::default()
    }
}

/// What is seen of an incident: what this process did for it, or else what is stored of it.
#[must_use]
pub fn seen(app: &App, id: &str) -> Option<View> {
    if let Some(view) = app.incidents.view(id) {
        return Some(view);
    }
    let promise = app.engine.promise(&format!("inc/{id}"))?;
    let brief: Brief = serde_json::from_str(promise.param.data.as_deref()?).ok()?;
    let mut view = empty_view(id, &brief, &app.policy.name);
    if promise.is_settled() {
        let ending = promise.value.data.as_deref().and_then(|data| serde_json::from_str(data).ok());
        let ending: Ending = ending.unwrap_or_else(|| Ending {
            outcome: "out of time".into(),
            exit: 60,
            why: "nobody ended it for as long as an incident may exist".into(),
        });
        view.lines.push(ending.line());
        let seal = app.engine.promise(&stage_id(id, "seal"));
        if seal.is_some_and(|seal| seal.state == protocol::PromiseState::Resolved) {
            let entries = app.engine.incident_entries(id).map_or(0, |entries| entries.len() as u64);
            view.evidence = Some(view::EvidenceView { entries, ..view::EvidenceView::default() });
        }
        (view.outcome, view.exit) = (Some(ending.outcome), Some(ending.exit));
    }
    Some(view)
}

/// The ids of every incident that is stored.
#[must_use]
pub fn ids(app: &App) -> Vec<String> {
    let promises = app.engine.children("inc/");
    let ids = promises.iter().filter_map(|promise| promise.id.strip_prefix("inc/"));
    ids.filter(|id| !id.contains([':', '/'])).map(str::to_owned).collect()
}

/// Opens an incident for a person's asking: its promise and task, offered to the orchestrator. An asking with a key
/// that came before opens nothing and answers the same id.
///
/// # Errors
/// An unknown service, or a store that refuses.
pub async fn open(app: &App, brief: Brief, key: Option<&str>) -> Result<String, OpenError> {
    let snapshot = app.telemetry.snapshot();
    let known = app.topology.service.contains_key(&brief.target) || snapshot.contains(&brief.target);
    if !known {
        let names = app.topology.service.keys().map(String::as_str).chain(snapshot.services());
        let nearest = nearest(&brief.target, names).map(str::to_owned);
        return Err(OpenError::Unknown { name: brief.target, nearest });
    }
    let id = new_id(app, &brief, key)?;
    let data = serde_json::to_string(&brief).map_err(|error| OpenError::Store(error.to_string()))?;
    let tags = BTreeMap::from([(protocol::TARGET.to_owned(), ORCHESTRATOR.to_owned())]);
    let create = Create {
        id: format!("inc/{id}"),
        timeout_at: app.env.now().plus(INCIDENT_MAX),
        param: Value::text(data),
        tags,
    };
    let requests = vec![Request::PromiseCreate(create)];
    let was_writable = app.engine.is_writable();
    let stored = app.engine.submit(requests, Vec::new(), Vec::new(), Vec::new()).await;
    stored.map_err(|error| {
        let why = app.engine.trouble().unwrap_or_else(|| error.to_string());
        match error {
            SubmitError::Unavailable if was_writable => OpenError::Unsure { id: id.clone(), why },
            _ => OpenError::Store(why),
        }
    })?;
    // Shown only now: what was not stored does not exist.
    app.incidents.slot(&id, &brief, &app.policy.name);
    Ok(id)
}

/// The orchestrator: takes every incident offered and runs it, for as long as the server lives.
pub async fn orchestrate(app: App) {
    let Ok(mut connection) = app.engine.subscribe("orchestrator", "orchestrator") else { return };
    while let Some(message) = connection.next().await {
        let Message::Execute { task_id, version, .. } = message else { continue };
        let (env, app) = (app.env.clone(), app.clone());
        env.spawn(async move {
            if let Some(run) = acquire(&app, &task_id, version).await {
                Box::pin(lead(app, run)).await;
            }
        });
    }
}

async fn acquire(app: &App, task_id: &str, version: u64) -> Option<Run> {
    let id = task_id.strip_prefix("inc/")?.to_owned();
    let acquire = Request::TaskAcquire { id: task_id.to_owned(), version, pid: "orchestrator".into(), ttl: LEASE };
    let taken = app.engine.submit(vec![acquire], Vec::new(), Vec::new(), Vec::new()).await.ok()?;
    let Body::Acquired { task, promise, .. } = &taken.responses.first()?.body else { return None };
    let brief: Brief = serde_json::from_str(promise.param.data.as_deref()?).ok()?;
    let view = app.incidents.slot(&id, &brief, &app.policy.name);
    let task = TaskRef { id: task_id.to_owned(), version: task.version };
    Some(Run::new(app.clone(), id, brief, task, view))
}

/// Runs an incident while its lease is kept; the two end together.
async fn lead(app: App, mut run: Run) {
    let task = run.task.clone();
    let heartbeat = async {
        loop {
            app.env.sleep_until(app.env.now().plus(Millis(LEASE.0 / 3))).await;
            let beat = Request::TaskHeartbeat { pid: "orchestrator".into(), tasks: vec![task.clone()] };
            // A beat that cannot be stored is tried again at the next; the guard on every write decides.
            let _ = app.engine.submit(vec![beat], Vec::new(), Vec::new(), Vec::new()).await;
        }
    };
    tokio::select! {
        biased;
        () = heartbeat => {}
        () = run.lead() => {}
    }
}

impl Run {
    async fn lead(&mut self) {
        let stop = match self.ending().await {
            Ok(ending) => ending,
            Err(Stop::Unwritable) => return self.wait_for_the_store(),
            Err(_) => return,
        };
        match self.close(&stop).await {
            Ok(()) => {}
            Err(Stop::Lost) => return,
            Err(Stop::Unwritable) => return self.wait_for_the_store(),
            Err(error) => self.say(format!("evidence       not sealed: {error}")),
        }
        let value = serde_json::to_string(&stop).unwrap_or_default();
        let settle = Settle { id: self.task.id.clone(), state: Resolution::Resolved, value: Value::text(value) };
        let fulfill = Request::TaskFulfill { id: self.task.id.clone(), version: self.task.version, action: settle };
        let stored = self.app.engine.submit(vec![fulfill], Vec::new(), Vec::new(), Vec::new()).await;
        if let Err(error) = self.app.engine.release_scope(&self.id).await {
            tracing::warn!(incident = self.id, %error, "the scope lease stays until the next try");
        }
        if stored.is_ok() {
            self.show(|view| {
                view.outcome = Some(stop.outcome.clone());
                view.exit = Some(stop.exit);
            });
        }
    }

    /// Nothing is ended by a disk that is full for a while: the task's lease lapses, the incident is offered again once
    /// that can be stored, and the stages that settled stay settled.
    fn wait_for_the_store(&self) {
        let trouble = self.app.engine.trouble();
        self.say(format!("waiting        {}", trouble.unwrap_or_else(|| Stop::Unwritable.to_string())));
    }

    /// How it ends, durably: once it is stored, whoever seals the incident after a crash seals the same ending and
    /// computes no other.
    pub(super) async fn ending(&mut self) -> Result<Ending, Stop> {
        if let Some(ending) = self.recorded("ending") {
            return Ok(ending);
        }
        let ending = match self.stages().await {
            Ok(ending) | Err(Stop::Ended(ending)) => ending,
            Err(Stop::Store(why)) => Ending { outcome: "escalated".into(), exit: 20, why: format!("internal: {why}") },
            Err(other @ (Stop::Lost | Stop::Unwritable)) => return Err(other),
        };
        // Executors may have written since.
        self.reload_chain();
        let batch = self.batch();
        match self.settle("ending", &ending, batch).await {
            Err(other @ (Stop::Lost | Stop::Unwritable)) => Err(other),
            // It cannot be stored for another reason than the store: then at least it is told.
            Ok(()) | Err(Stop::Store(_) | Stop::Ended(_)) => Ok(ending),
        }
    }

    /// Stages 1 to 12.
    async fn stages(&mut self) -> Result<Ending, Stop> {
        let policy = self.app.policy.clone();
        self.say(format!("incident       {} · recover {} · policy {}", self.id, self.brief.target, policy.name));
        let tier = policy.tier_of(&self.brief.target).ok_or_else(|| {
            Stop::escalate(format!("the policy `{}` names no tier for `{}`", policy.name, self.brief.target))
        })?;
        let under = |class: &str| {
            let missing = || Stop::escalate(format!("the policy `{}` knows no class `{class}`", policy.name));
            policy.effective(tier, class).ok_or_else(missing)
        };
        // Detection is the tier's; which class the rest is under depends on what it finds.
        // Once it has gone on, the stages' own checks decide: a frozen commit is not ended by who takes it over.
        if self.app.engine.promise(&self.promise("group.1")).is_none() {
            self.not_held(std::slice::from_ref(&self.brief.target))?;
        }
        let detected = self.detect(&under(detect::RESTARTS)?).await?;
        let effective = under(&detected.class)?;
        let intended = self.intend(&effective, &detected).await?;
        let decided = match self.approved() {
            // A pass before this one decided. What it saw is gone, and it is nothing that is decided twice.
            Some(decided) => decided,
            None => {
                let decided = self.plan_until_decided(&effective, &detected, &intended).await?;
                if self.brief.preview {
                    return Ok(Ending {
                        outcome: "previewed".into(),
                        exit: 0,
                        why: "admissible; nothing was done".into(),
                    });
                }
                self.approve(&effective, &decided).await?;
                decided
            }
        };
        let committed = self.commit(&effective, &intended, &decided).await?;
        self.converge(&effective, &detected, &decided, &committed).await
    }
}

/// The id of an asking: one of its own, or the one that its key gives it.
fn new_id(app: &App, brief: &Brief, key: Option<&str>) -> Result<String, OpenError> {
    let digest = match key {
        None => {
            let draw = app.env.draw().map_err(|error| OpenError::Store(error.to_string()))?;
            base::Digest::of_parts(&[b"incident\0", brief.target.as_bytes(), &draw])
        }
        Some(key) => {
            let asked = serde_json::to_vec(&(&brief.target, brief.preview, &brief.lying_observer, key));
            base::Digest::of_parts(&[b"asking\0", &asked.map_err(|error| OpenError::Store(error.to_string()))?])
        }
    };
    Ok(base32(&digest.0).chars().take(26).collect())
}

/// Lower-case base32 (RFC 4648 alphabet, no padding).
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut out = String::new();
    let (mut buffer, mut bits) = (0_u32, 0_u32);
    for byte in bytes {
        buffer = (buffer << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            let at = ((buffer >> bits) & 31) as usize;
            out.extend(ALPHABET.get(at).map(|letter| char::from(*letter)));
        }
    }
    if bits > 0 {
        let at = ((buffer << (5 - bits)) & 31) as usize;
        out.extend(ALPHABET.get(at).map(|letter| char::from(*letter)));
    }
    out
}

/// The known name nearest to an unknown one, by edit distance, if it is near at all.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A name that could be no service's is near to none; and comparing takes the product of both lengths.
    let near = |other: &&str| other.len().abs_diff(name.len()) <= name.len().div_ceil(2);
    let comparable = known.filter(|_| name.len() <= recovery::span::SPAN_NAME_BYTES_MAX).filter(near);
    let scored = comparable.map(|other| (distance(name, other), other));
    let (distance, best) = scored.min()?;
    (distance <= name.len().div_ceil(2)).then_some(best)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replace = row.get(j).copied().unwrap_or(usize::MAX - 1) + usize::from(x != *y);
            let delete = row.get(j + 1).copied().unwrap_or(usize::MAX - 1) + 1;
            let insert = next.last().copied().unwrap_or(usize::MAX - 1) + 1;
            next.push(replace.min(delete).min(insert));
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

/// The instants between which a policy's window lies before `at`.
#[must_use]
pub fn before(at: Timestamp, window: Millis) -> (Timestamp, Timestamp) {
    (at.minus(window), at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_only_when_near() {
        let known = ["checkout", "payments", "cart"];
        assert_eq!(nearest("chekout", known.into_iter()), Some("checkout"));
        assert_eq!(nearest("zzz", known.into_iter()), None);
    }

    #[test]
    fn a_name_that_could_be_no_services_is_near_to_none() {
        let long = "checkout".repeat(100_000);
        let known: Vec<String> = (0..10_000).map(|number| format!("service-{number}")).collect();
        assert_eq!(nearest(&long, known.iter().map(String::as_str)), None);
        assert_eq!(nearest("", known.iter().map(String::as_str)), None);
    }

    #[tokio::test]
    async fn an_incident_ends_after_a_day_at_the_latest() {
        let fixture = crate::fixture::Fixture::new();
        let app = &fixture.app;
        let brief = Brief { target: "checkout".into(), ..Brief::default() };
        let id = format!("inc/{}", open(app, brief, None).await.unwrap());
        assert_eq!(app.engine.promise(&id).unwrap().timeout_at, app.env.now().plus(INCIDENT_MAX));
        let state = || app.engine.promise(&id).unwrap().state;
        app.env.advance(Millis(INCIDENT_MAX.0 - 1));
        assert_eq!(state(), protocol::PromiseState::Pending);
        app.env.advance(Millis(1));
        assert_eq!(app.engine.wait_settled(&id).await.unwrap().state, protocol::PromiseState::TimedOut);
    }

    #[test]
    fn ids_are_base32() {
        assert_eq!(base32(b"foobar"), "mzxw6ytboi");
        assert_eq!(base32(&[0xff; 32]).len(), 52);
    }
}
