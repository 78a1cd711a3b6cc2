//! `stanch task`: what is offered to workers, who holds it, and why nothing happens.

use super::promise::list;
use super::records::{Session, escaped, pairs, seen, span};
use crate::args::{TaskCommand, TaskIdArgs, TaskLsArgs};
use crate::failure::Failure;
use base::{Millis, Timestamp};
use client::Error;
use protocol::{TaskRecord, TaskSearch};
use serde::Deserialize;
use serde_json::Value as Json;

/// What the server says of one id; what does not apply is absent.
#[derive(Deserialize)]
struct Inspected {
    promise: Option<PromiseSeen>,
    task: Option<TaskSeen>,
    #[serde(default)]
    callbacks: Vec<String>,
    #[serde(default)]
    listeners: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromiseSeen {
    state: String,
    timeout_at: i64,
    #[serde(default)]
    tags: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TaskSeen {
    state: String,
    version: u64,
    attempts: u32,
    resumes: Vec<String>,
    awaits: Vec<String>,
    pid: Option<String>,
    ttl: Option<u64>,
    retry_at: Option<i64>,
    lease_at: Option<i64>,
    reason: Option<String>,
}

pub(crate) async fn run(command: TaskCommand) -> Result<u8, Failure> {
    match command {
        TaskCommand::Get(args) => get(&args).await,
        TaskCommand::Show(args) => show(&args).await,
        TaskCommand::Ls(args) => ls(args).await,
        TaskCommand::Halt(args) => halt(&args).await,
        TaskCommand::Continue(args) => go_on(&args).await,
    }
}

async fn get(args: &TaskIdArgs) -> Result<u8, Failure> {
    let session = Session::open(&args.server)?;
    let task = read(&session, &args.id, "task get").await?;
    show_task(&session, &task);
    Ok(0)
}

async fn ls(args: TaskLsArgs) -> Result<u8, Failure> {
    let session = Session::open(&args.server)?;
    let search =
        TaskSearch { state: args.state.map(Into::into), limit: Some(args.page.limit), cursor: args.page.cursor };
    let show = |tasks: &[TaskRecord]| tasks.iter().map(protocol::wire::task_json).collect();
    let row = |task: &TaskRecord| {
        let lease = task.ttl.map(span).unwrap_or_default();
        let worker = task.pid.clone().unwrap_or_default();
        let state = task.state.name().to_owned();
        vec![task.id.clone(), state, task.version.to_string(), worker, lease, task.resumes.to_string()]
    };
    let head = ["id", "state", "version", "worker", "lease", "resumes"];
    list(&session, search, args.page.all, "tasks", &head, show, row).await
}

async fn show(args: &TaskIdArgs) -> Result<u8, Failure> {
    let session = Session::open(&args.server)?;
    let path = format!("/inspect?id={}", escaped(&args.id));
    let (status, bytes) =
        session.client.get_bytes(&path).await.map_err(|error| session.failed(&error, "stanch task ls"))?;
    let found: Result<Inspected, _> = serde_json::from_slice(&bytes);
    match (status, found) {
        (200, Ok(found)) => {
            let Some(task) = &found.task else { return Err(no_task(&args.id)) };
            if session.json {
                out!("{}", serde_json::from_slice::<Json>(&bytes).map_err(anyhow::Error::from)?);
            } else {
                out!("{}", pairs(&rows(&args.id, &found, task, session.now)));
            }
            Ok(0)
        }
        // A server of another make answers this path in its own way.
        (404, Ok(_)) => Err(session.missing(&args.id, "task show").await),
        _ => Err(Failure::usage(format!("{} does not tell more of a task", session.url))
            .next(format!("stanch task get {}", args.id))),
    }
}

fn rows(id: &str, found: &Inspected, task: &TaskSeen, now: Timestamp) -> Vec<Vec<String>> {
    let mut rows = vec![vec!["task".to_owned(), id.to_owned()]];
    let mut row = |name: &str, what: String| rows.push(vec![name.to_owned(), what]);
    row("state", task.state.clone());
    if let Some(reason) = &task.reason {
        row("reason", reason.clone());
    }
    row("version", task.version.to_string());
    row("attempts", format!("{} since it last got anywhere", task.attempts));
    if let Some(pid) = &task.pid {
        row("worker", pid.clone());
    }
    if let (Some(ttl), Some(at)) = (task.ttl, task.lease_at) {
        row("lease", format!("{}, lapses {}", span(Millis(ttl)), seen(Timestamp(at), now)));
    }
    if let Some(at) = task.retry_at {
        row("offered again", seen(Timestamp(at), now));
    }
    if let Some(promise) = &found.promise {
        if let Some(target) = promise.tags.get(protocol::TARGET) {
            row("target", target.clone());
        }
        row("promise", format!("{}, deadline {}", promise.state, seen(Timestamp(promise.timeout_at), now)));
    }
    for (name, ids) in [
        ("waits for", &task.awaits),
        ("resumed by", &task.resumes),
        ("is awaited by", &found.callbacks),
        ("tells", &found.listeners),
    ] {
        ids.iter().for_each(|id| row(name, id.clone()));
    }
    rows
}

async fn halt(args: &TaskIdArgs) -> Result<u8, Failure> {
    let session = Session::open(&args.server)?;
    let halted = session.client.halt(&args.id).await;
    changed(&session, args, halted, "task halt", "is over: there is nothing to stop").await
}

async fn go_on(args: &TaskIdArgs) -> Result<u8, Failure> {
    let session = Session::open(&args.server)?;
    let continued = session.client.continue_task(&args.id).await;
    changed(&session, args, continued, "task continue", "is not halted").await
}

/// Shows a task after an operator's word, or says why that was not taken.
async fn changed(
    session: &Session,
    args: &TaskIdArgs,
    answer: Result<(), Error>,
    command: &str,
    conflict: &str,
) -> Result<u8, Failure> {
    let id = &args.id;
    let next = format!("stanch task show {id}");
    match answer {
        Ok(()) => {
            let task = read(session, id, command).await?;
            show_task(session, &task);
            Ok(0)
        }
        Err(Error::Refused { status: 404, .. }) => Err(not_there(session, id, command).await),
        Err(Error::Refused { status: 409, .. }) => {
            Err(Failure::usage(format!("the task `{id}` {conflict}")).next(next))
        }
        Err(error) => Err(session.failed(&error, &next)),
    }
}

async fn read(session: &Session, id: &str, command: &str) -> Result<TaskRecord, Failure> {
    match session.client.task(id).await {
        Ok(Some(task)) => Ok(task),
        Ok(None) => Err(not_there(session, id, command).await),
        Err(error) => Err(session.failed(&error, "stanch task ls")),
    }
}

/// There is no such task: its promise has none, or does not exist.
async fn not_there(session: &Session, id: &str, command: &str) -> Failure {
    match session.client.get(id).await {
        Ok(Some(_)) => no_task(id),
        _ => session.missing(id, command).await,
    }
}

fn no_task(id: &str) -> Failure {
    Failure::usage(format!("the promise `{id}` has no task: it was created without a target"))
        .next(format!("stanch promise get {id}"))
}

fn show_task(session: &Session, task: &TaskRecord) {
    if session.json {
        out!("{}", protocol::wire::task_json(task));
        return;
    }
    let mut rows = vec![
        vec!["task".to_owned(), task.id.clone()],
        vec!["state".to_owned(), task.state.name().to_owned()],
        vec!["version".to_owned(), task.version.to_string()],
        vec!["resumes".to_owned(), task.resumes.to_string()],
    ];
    rows.extend(task.pid.iter().map(|pid| vec!["worker".to_owned(), pid.clone()]));
    rows.extend(task.ttl.map(|ttl| vec!["lease".to_owned(), span(ttl)]));
    out!("{}", pairs(&rows));
}
