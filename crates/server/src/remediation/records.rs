//! The gate: what executors report is verified, then written in one transaction with what it settles.

use super::records_base64;
use super::wire::{CommitParam, NotTaken, Posted, Refusal, STEPS, Standing, TaskParam};
use crate::app::App;
use crate::engine::{Entry, Guard, SubmitError};
use crate::incidents::view::StepView;
use crate::incidents::{Chain, statement};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base::canon::Canon as _;
use base::{Digest, Envelope, Millis, Timestamp};
use governance::record::{Journal, Record, Signed, open};
use protocol::{Create, Request, Resolution, Settle, Value};
use recovery::journal::{Outcome, Record as Line};
use std::collections::BTreeMap;

/// LIMIT: records in one post.
const RECORDS_MAX: usize = 16;
/// A step's promise outlives every step deadline; its executor settles it long before.
const STEP_MAX: Millis = Millis(3_600_000);

/// `/records`, `/incidents/{id}/standing/{plan}`, `/blobs/{digest}`.
pub(super) fn routes(app: App) -> Router {
    Router::new()
        .route("/records", post(records))
        .route("/incidents/{id}/standing/{plan}", get(standing))
        .route("/blobs/{digest}", get(blob))
        .with_state(app)
}

async fn blob(State(app): State<App>, Path(digest): Path<String>) -> Response {
    let found = Digest::parse(&digest).and_then(|digest| app.engine.blob(&digest).ok().flatten());
    match found {
        Some(bytes) => bytes.into_response(),
        None => (StatusCode::NOT_FOUND, "no such blob").into_response(),
    }
}

async fn standing(State(app): State<App>, Path((id, plan)): Path<(String, String)>) -> Response {
    match read_standing(&app, &id, &plan) {
        Some(standing) => Json(standing).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the evidence cannot be read").into_response(),
    }
}

fn read_standing(app: &App, incident: &str, plan: &str) -> Option<Standing> {
    let entries = app.engine.incident_entries(incident).ok()?;
    let chain = Chain::load(&app.engine, incident);
    let plan = Digest::parse(plan);
    let journal = entries.iter().filter_map(|(_, bytes)| match statement(bytes)?.record {
        Record::Journal(line) if Some(line.plan) == plan => Some(records_base64::encode(&line.entry.0)),
        _ => None,
    });
    Some(Standing { seq: chain.seq, prev: chain.prev.map(|digest| digest.to_string()), journal: journal.collect() })
}

async fn records(State(app): State<App>, Json(posted): Json<Posted>) -> Response {
    match take(&app, &posted).await {
        Ok(standing) => Json(standing).into_response(),
        Err(refused) => (status(refused.why), Json(refused)).into_response(),
    }
}

fn status(why: Refusal) -> StatusCode {
    match why {
        // Whether it was written is not known; the executor asks again, and the chain tells.
        Refusal::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Held | Refusal::Fenced | Refusal::Chain | Refusal::Refused => StatusCode::CONFLICT,
    }
}

fn refuse(why: Refusal, text: impl Into<String>) -> NotTaken {
    NotTaken { why, text: text.into() }
}

async fn take(app: &App, posted: &Posted) -> Result<Standing, NotTaken> {
    let task = app.engine.promise(&posted.task).ok_or_else(|| refuse(Refusal::Refused, "no such task"))?;
    let param = task.param.data.as_deref().and_then(|data| serde_json::from_str::<TaskParam>(data).ok());
    let param = param.ok_or_else(|| refuse(Refusal::Refused, "not an executor's task"))?;
    let signed = match verified(app, posted) {
        Ok(signed) => signed,
        Err(refused) if refused.why == Refusal::Chain => return kept(app, posted).ok_or(refused),
        Err(refused) => return Err(refused),
    };
    let mut requests = Vec::new();
    let seq = signed.first().map_or(0, |record| record.common().seq);
    // WHY: before every other guard. Of records that are taken and not yet durable it must not be said that a hold
    // or their own effect refuses them: their sender would announce the same again.
    let mut guards = vec![Guard::Chain { incident: posted.incident.clone(), seq }];
    guards.extend(holder(posted, &param)?);
    for record in &signed {
        settle(app, posted, &param, record, &mut requests, &mut guards)?;
    }
    let entries = posted.records.iter().zip(&signed).map(|(text, record)| Entry {
        incident: Some(posted.incident.clone()),
        seq: Some(record.common().seq),
        bytes: text.clone().into_bytes(),
    });
    let blobs = posted.blobs.iter().filter_map(|text| records_base64::decode(text)).collect();
    app.engine.submit(requests, entries.collect(), blobs, guards).await.map_err(refusal)?;
    for record in &signed {
        shown(app, posted, record);
    }
    let last = signed.last().map(|record| record.digest().to_string());
    Ok(Standing { seq: seq + signed.len() as u64, prev: last, journal: Vec::new() })
}

fn refusal(error: SubmitError) -> NotTaken {
    match error {
        SubmitError::Guard(Guard::Hold { scopes, .. }) => {
            refuse(Refusal::Held, format!("a hold covers {}", scopes.join(", ")))
        }
        SubmitError::Guard(Guard::Chain { .. }) => refuse(Refusal::Chain, "the chain ends elsewhere"),
        SubmitError::Guard(guard) => refuse(Refusal::Fenced, format!("{guard:?}")),
        SubmitError::Unavailable => refuse(Refusal::Unavailable, error.to_string()),
        SubmitError::Refused { .. } | SubmitError::TooMuch | SubmitError::RecordTooLong { .. } => {
            refuse(Refusal::Refused, error.to_string())
        }
    }
}

/// Where the chain ends, if these very records are in it: their sender did not hear that they were taken.
fn kept(app: &App, posted: &Posted) -> Option<Standing> {
    let entries = app.engine.incident_entries(&posted.incident).ok()?;
    let texts: Vec<&[u8]> = posted.records.iter().map(String::as_bytes).collect();
    let kept: Vec<&[u8]> = entries.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    let is_there = kept.windows(texts.len().max(1)).any(|some| some == texts);
    let chain = Chain::load(&app.engine, &posted.incident);
    let prev = chain.prev.map(|digest| digest.to_string());
    is_there.then_some(Standing { seq: chain.seq, prev, journal: Vec::new() })
}

/// Opens every envelope at the place it will have, and checks that they continue the chain.
fn verified(app: &App, posted: &Posted) -> Result<Vec<Signed<Record>>, NotTaken> {
    if posted.records.is_empty() || posted.records.len() > RECORDS_MAX {
        return Err(refuse(Refusal::Refused, format!("between 1 and {RECORDS_MAX} records at once")));
    }
    let mut chain = Chain::load(&app.engine, &posted.incident);
    let mut signed = Vec::new();
    for text in &posted.records {
        let envelope = Envelope::from_json(text).map_err(|error| refuse(Refusal::Refused, error.to_string()))?;
        let record = open(&envelope, &app.keys.keyring, app.engine.log_size())
            .map_err(|error| refuse(Refusal::Refused, error.to_string()))?;
        let common = record.common();
        if common.incident.as_deref() != Some(&posted.incident) {
            return Err(refuse(Refusal::Refused, "a record of another incident"));
        }
        if (common.seq, common.prev) != (chain.seq, chain.prev) {
            return Err(refuse(Refusal::Chain, "the chain ends elsewhere"));
        }
        chain.advance(record.digest());
        signed.push(record);
    }
    Ok(signed)
}

/// The sender holds the task and the scope.
fn holder(posted: &Posted, param: &TaskParam) -> Result<Vec<Guard>, NotTaken> {
    let belongs = posted.task.strip_prefix("inc/").and_then(|rest| rest.split(':').next()) == Some(&posted.incident);
    if !belongs {
        return Err(refuse(Refusal::Refused, "the task is not of this incident"));
    }
    let mut guards = vec![Guard::Task { id: posted.task.clone(), version: posted.version }];
    if let TaskParam::Commit(commit) = param {
        if posted.epoch != Some(commit.epoch) {
            return Err(refuse(Refusal::Fenced, "another epoch than the commit's"));
        }
        guards.push(Guard::Lease { incident: posted.incident.clone(), epoch: commit.epoch });
    }
    Ok(guards)
}

/// A record speaks for the task that sends it, and for no other plan, version or epoch.
fn speaks_for(posted: &Posted, commit: &CommitParam, record: &Record) -> Result<(), NotTaken> {
    let (plan, task, is_current) = match record {
        Record::Arm(arm) => {
            (arm.plan, Some(&arm.task), (arm.task_version, arm.epoch) == (posted.version, commit.epoch))
        }
        Record::Journal(line) => {
            (line.plan, Some(&line.task), (line.task_version, line.epoch) == (posted.version, commit.epoch))
        }
        // What a predecessor performed is recorded under the version that performed it.
        Record::Receipt(receipt) => (receipt.plan, None, receipt.task_version <= posted.version),
        Record::Compensation(undone) => (undone.plan, None, undone.task_version <= posted.version),
        _ => return Err(refuse(Refusal::Refused, "not a record that this task's holder may send")),
    };
    if plan.to_string() != commit.plan || task.is_some_and(|task| *task != posted.task) {
        return Err(refuse(Refusal::Refused, "a record of another plan or task"));
    }
    if is_current { Ok(()) } else { Err(refuse(Refusal::Fenced, "a record of another version or epoch")) }
}

/// The writes that go with a record.
fn settle(
    app: &App,
    posted: &Posted,
    param: &TaskParam,
    record: &Signed<Record>,
    requests: &mut Vec<Request>,
    guards: &mut Vec<Guard>,
) -> Result<(), NotTaken> {
    if let TaskParam::Commit(commit) = param {
        speaks_for(posted, commit, record.value())?;
    }
    match (param, record.value()) {
        (TaskParam::Commit(commit), Record::Arm(_)) => {
            let id = format!("inc/{}:arm.{}.{}", posted.incident, commit.revision, posted.version);
            requests.extend(created_settled(app, &id, Resolution::Resolved, record.digest().to_string()));
            guards.push(unheld(app, posted, None, false));
            Ok(())
        }
        (TaskParam::Commit(_), Record::Receipt(_) | Record::Compensation(_)) => Ok(()),
        (TaskParam::Commit(_), Record::Journal(line)) => journal(app, posted, line, requests, guards),
        (TaskParam::Converge(_), Record::Convergence(found)) => {
            let checks: Vec<String> = found.checks.iter().map(converged_text).collect();
            let state = match found.outcome {
                governance::record::ConvergenceOutcome::Converged => Resolution::Resolved,
                _ => Resolution::Rejected,
            };
            requests.push(fulfill(posted, state, serde_json::to_string(&checks).unwrap_or_default()));
            Ok(())
        }
        (TaskParam::Seal(_), Record::Seal(_)) => {
            requests.push(fulfill(posted, Resolution::Resolved, record.digest().to_string()));
            Ok(())
        }
        _ => Err(refuse(Refusal::Refused, "not a record that this task's holder may send")),
    }
}

fn converged_text(check: &governance::record::Converged) -> String {
    let mark = if check.met { "ok" } else { "NOT MET" };
    // What could not be read is recorded as less than nothing, and never met.
    let value = if check.value < 0 { "unknown".to_owned() } else { format!("{} {}", check.value, check.unit) };
    format!("{} {value} (limit {}) in {} samples: {mark}", check.name, check.bound, check.samples)
}

fn journal(
    app: &App,
    posted: &Posted,
    line: &Journal,
    requests: &mut Vec<Request>,
    guards: &mut Vec<Guard>,
) -> Result<(), NotTaken> {
    let read = base::canon::parse_object("journal", &line.entry.0).and_then(Line::from_value);
    let read = read.map_err(|error| refuse(Refusal::Refused, format!("not a journal line: {error}")))?;
    let step = |key: &recovery::call::Key| format!("{}.{}", posted.task, step_of(&key.0));
    match &read {
        Line::Intend(intend) => {
            guards.push(unheld(app, posted, Some(&intend.desired), false));
            let tags = BTreeMap::from([(protocol::TARGET.to_owned(), STEPS.to_owned())]);
            let timeout_at = app.env.now().plus(STEP_MAX);
            let create = Create { id: step(&intend.key), timeout_at, param: Value::text(&intend.key.0), tags };
            requests.push(Request::PromiseCreate(create));
        }
        Line::UndoIntend(undo) => guards.push(unheld(app, posted, Some(&undo.restore), true)),
        Line::Done(key) => requests.push(settled(step(key), Resolution::Resolved, "done")),
        Line::Failed(failure) => requests.extend(if_there(app, step(&failure.key), failure.cause.word())),
        Line::Refused(failure) => requests.extend(if_there(app, step(&failure.key), failure.cause.word())),
        Line::Finish(outcome) => {
            let state = if *outcome == Outcome::Committed { Resolution::Resolved } else { Resolution::Rejected };
            requests.push(fulfill(posted, state, outcome.to_string()));
        }
        Line::Did(_)
        | Line::Unknown(_)
        | Line::Reconciled(_)
        | Line::Repeat(_)
        | Line::UndoBegin(_)
        | Line::UndoDid(_)
        | Line::UndoFailed(_)
        | Line::Expired(_) => {}
    }
    Ok(())
}

/// No hold covers what the plan changes: the services of its scope lease, and those the fields belong to.
fn unheld(app: &App, posted: &Posted, fields: Option<&recovery::call::State>, is_undo: bool) -> Guard {
    let mut scopes = app.engine.scope_writes(&posted.incident);
    let names = fields.into_iter().flat_map(|fields| fields.keys());
    scopes.extend(names.filter_map(|name| actuators::field::Field::parse(name)?.owner().map(str::to_owned)));
    Guard::Hold { scopes, is_undo }
}

/// The step's key without its repeat and undo marks.
fn step_of(key: &str) -> &str {
    let step = key.split_once('/').map_or(key, |(_, step)| step);
    step.split(['~', '!']).next().unwrap_or(step)
}

fn settled(id: String, state: Resolution, value: &str) -> Request {
    Request::PromiseSettle(Settle { id, state, value: Value::text(value) })
}

fn if_there(app: &App, id: String, value: &str) -> Option<Request> {
    app.engine.promise(&id).map(|_| settled(id, Resolution::Rejected, value))
}

fn created_settled(app: &App, id: &str, state: Resolution, value: String) -> [Request; 2] {
    let timeout_at = app.env.now().plus(STEP_MAX);
    let create = Create { id: id.to_owned(), timeout_at, param: Value::default(), tags: BTreeMap::new() };
    [
        Request::PromiseCreate(create),
        Request::PromiseSettle(Settle { id: id.to_owned(), state, value: Value::text(value) }),
    ]
}

fn fulfill(posted: &Posted, state: Resolution, value: String) -> Request {
    let action = Settle { id: posted.task.clone(), state, value: Value::text(value) };
    Request::TaskFulfill { id: posted.task.clone(), version: posted.version, action }
}

/// Keeps what people see in step with what was recorded.
fn shown(app: &App, posted: &Posted, record: &Signed<Record>) {
    let at = record.common().at;
    let holder = app.engine.task(&posted.task).and_then(|task| task.pid.clone()).unwrap_or_default();
    app.incidents.show(&posted.incident, |view| {
        // Whoever writes goes on: why an executor before could not is over.
        view.given_back = None;
        let known = view.commit.executors.iter().any(|(pid, _)| *pid == holder);
        if matches!(record.value(), Record::Arm(_) | Record::Journal(_)) && !known && !holder.is_empty() {
            if !view.commit.executors.is_empty() {
                view.lines.push(format!(
                    "takeover       {holder} goes on where the journal ends: it looks first and repeats nothing"
                ));
            }
            view.commit.executors.push((holder, at.0));
        }
        if let Record::Journal(line) = record.value() {
            show_line(view, line, at);
        }
    });
}

fn show_line(view: &mut crate::incidents::view::View, line: &Journal, at: Timestamp) {
    let read = base::canon::parse_object("journal", &line.entry.0).and_then(Line::from_value);
    let Ok(read) = read else { return };
    let Some(key) = read.key().map(|key| step_of(&key.0).to_owned()) else { return };
    let text = step_text(view, &key);
    let existing = view.commit.steps.iter().position(|step| step.key == key);
    let at_index = existing.unwrap_or_else(|| {
        view.commit.steps.push(StepView {
            key: key.clone(),
            text: text.clone(),
            state: "running".into(),
            ms: 0,
            began_ms: at.0,
        });
        view.commit.steps.len() - 1
    });
    let Some(step) = view.commit.steps.get_mut(at_index) else { return };
    step.ms = at.since(Timestamp(step.began_ms)).0;
    let took = format!("{}.{}s", step.ms / 1_000, step.ms % 1_000 / 100);
    let said = match &read {
        Line::Intend(_) => None,
        Line::Done(_) => {
            step.state = "done".into();
            Some(format!("commit {key:<8}{text}   done {took}"))
        }
        Line::Failed(failure) | Line::Refused(failure) => {
            step.state = "failed".into();
            Some(format!("commit {key:<8}{text}   FAILED: {}", failure.cause))
        }
        Line::UndoDid(_) => {
            step.state = "undone".into();
            Some(format!("undo {key:<10}{text}   restored"))
        }
        Line::Reconciled(settled) if settled.receipt.is_some() => {
            Some(format!("reconcile {key:<5}{text}   had taken effect: not repeated"))
        }
        _ => None,
    };
    view.lines.extend(said);
}

/// The text of a step of the last revision.
fn step_text(view: &crate::incidents::view::View, key: &str) -> String {
    let plan = view.revisions.last().map(|revision| revision.plan.as_str()).unwrap_or_default();
    let number: Option<usize> = key.strip_prefix('s').and_then(|number| number.parse().ok());
    let step = number.and_then(|number| plan.split(" ; ").nth(number.checked_sub(1)?));
    step.unwrap_or(key).replace("->", "→")
}

#[cfg(test)]
pub(super) mod tests;
