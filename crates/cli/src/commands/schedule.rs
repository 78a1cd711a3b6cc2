//! `stanch schedule`: a promise at every instant that a cron expression names.

use super::promise::list;
use super::records::{Session, about, another, call, decoded, pairs, param, seen, shown, span, tag_rows};
use crate::args::{ScheduleCommand, ScheduleCreateArgs, ScheduleIdArgs, ScheduleLsArgs};
use crate::failure::Failure;
use base::Timestamp;
use protocol::{NEVER, Promise, PromiseState, Schedule, ScheduleCreate, ScheduleSearch, TARGET};
use serde_json::Value as Json;
use std::sync::Arc;

pub(crate) async fn run(command: ScheduleCommand) -> Result<u8, Failure> {
    match command {
        ScheduleCommand::Create(args) => create(args).await,
        ScheduleCommand::Get(args) => get(&args).await,
        ScheduleCommand::Ls(args) => ls(args).await,
        ScheduleCommand::Delete(args) => delete(&args).await,
    }
}

async fn create(args: ScheduleCreateArgs) -> Result<u8, Failure> {
    let session = Session::open(&args.server)?;
    let promise_param = match &args.func {
        Some(func) => call(func, &args.call)?,
        None if !args.call.arg.is_empty() => {
            return Err(Failure::usage("--arg is for a function").next("the same command with --func NAME"));
        }
        None => param(&args.param),
    };
    let mut promise_tags: std::collections::BTreeMap<_, _> = args.tags.tag.into_iter().collect();
    promise_tags.insert(TARGET.to_owned(), args.target);
    let wanted = ScheduleCreate {
        id: args.id,
        cron: args.cron,
        promise_id: args.promise_id,
        promise_timeout: args.timeout,
        promise_param,
        promise_tags,
    };
    let created = session.client.create_schedule(wanted.clone()).await;
    let schedule = created.map_err(|error| session.failed(&error, "stanch schedule create --help"))?;
    show(&session, &schedule);
    match differs(&schedule, &wanted) {
        Some(what) => Err(another("schedule", &wanted.id, what)),
        None => Ok(0),
    }
}

/// In what a schedule is not the one that was wanted.
fn differs(schedule: &Schedule, wanted: &ScheduleCreate) -> Option<&'static str> {
    let same = [
        (schedule.cron == wanted.cron, "cron expression"),
        (schedule.promise_id == wanted.promise_id, "promise id"),
        (schedule.promise_timeout == wanted.promise_timeout, "timeout"),
        (schedule.promise_param == wanted.promise_param, "param"),
        (schedule.promise_tags == wanted.promise_tags, "tag"),
    ];
    same.into_iter().find(|(is_same, _)| !is_same).map(|(_, what)| what)
}

async fn get(args: &ScheduleIdArgs) -> Result<u8, Failure> {
    let session = Session::open(&args.server)?;
    let found = session.client.schedule(&args.id).await;
    let found = found.map_err(|error| session.failed(&error, "stanch schedule ls"))?;
    let Some(schedule) = found else { return Err(missing(&session, &args.id, "get").await) };
    show(&session, &schedule);
    Ok(0)
}

async fn ls(args: ScheduleLsArgs) -> Result<u8, Failure> {
    let session = Session::open(&args.server)?;
    let tags = args.tags.tag.into_iter().collect();
    let search = ScheduleSearch { tags, limit: Some(args.page.limit), cursor: args.page.cursor };
    let show = |schedules: &[Arc<Schedule>]| schedules.iter().map(|schedule| json(schedule)).collect();
    let row = |schedule: &Arc<Schedule>| {
        let last = schedule.last_run_at.map_or_else(|| "never".to_owned(), |at| seen(at, session.now));
        let next = next(schedule, session.now);
        vec![schedule.id.clone(), schedule.cron.clone(), next, last, about(&example(schedule))]
    };
    list(&session, search, args.page.all, "schedules", &["id", "cron", "next", "last", "what"], show, row).await
}

async fn delete(args: &ScheduleIdArgs) -> Result<u8, Failure> {
    let session = Session::open(&args.server)?;
    let deleted = session.client.delete_schedule(&args.id).await;
    if !deleted.map_err(|error| session.failed(&error, "stanch schedule ls"))? {
        return Err(missing(&session, &args.id, "delete").await);
    }
    if session.json {
        out!("{}", serde_json::json!({ "deleted": args.id }));
    } else {
        out!("the schedule {} has ended; the promises it created stay", args.id);
    }
    Ok(0)
}

async fn missing(session: &Session, id: &str, verb: &str) -> Failure {
    let told = Failure::usage(format!("there is no schedule `{id}` on {}", session.url));
    let search = ScheduleSearch { limit: Some(1_000), ..ScheduleSearch::default() };
    let known = session.client.search(&search).await.map(|page| page.items).unwrap_or_default();
    match server::incidents::nearest(id, known.iter().map(|schedule| schedule.id.as_str())) {
        Some(near) => told.next(format!("stanch schedule {verb} {near}")),
        None => told.next("stanch schedule ls"),
    }
}

fn next(schedule: &Schedule, now: Timestamp) -> String {
    if schedule.next_run_at >= NEVER { "never".to_owned() } else { seen(schedule.next_run_at, now) }
}

/// A promise of this schedule, as far as what it is about goes.
fn example(schedule: &Schedule) -> Promise {
    Promise {
        id: schedule.promise_id.clone(),
        state: PromiseState::Pending,
        param: schedule.promise_param.clone(),
        value: protocol::Value::default(),
        tags: (&schedule.promise_tags).into(),
        timeout_at: schedule.next_run_at,
        created_at: schedule.next_run_at,
        settled_at: None,
    }
}

fn json(schedule: &Schedule) -> Json {
    let mut shown = protocol::wire::schedule_json(schedule);
    let fields = shown.get_mut("promiseParam").and_then(Json::as_object_mut);
    if let (Some(decoded), Some(fields)) = (decoded(&schedule.promise_param), fields) {
        fields.insert("decoded".to_owned(), decoded);
    }
    shown
}

fn show(session: &Session, schedule: &Schedule) {
    if session.json {
        out!("{}", json(schedule));
        return;
    }
    let mut rows = vec![
        vec!["schedule".to_owned(), schedule.id.clone()],
        vec!["cron".to_owned(), schedule.cron.clone()],
        vec!["fires next".to_owned(), next(schedule, session.now)],
    ];
    rows.extend(schedule.last_run_at.map(|at| vec!["fired last".to_owned(), seen(at, session.now)]));
    rows.push(vec!["promise id".to_owned(), schedule.promise_id.clone()]);
    rows.push(vec!["timeout".to_owned(), span(schedule.promise_timeout)]);
    if !schedule.promise_param.is_empty() {
        rows.push(vec!["param".to_owned(), shown(&schedule.promise_param, false)]);
    }
    rows.extend(tag_rows(schedule.promise_tags.iter().map(|(key, value)| (key.as_str(), value.as_str()))));
    out!("{}", pairs(&rows));
}
