//! The records of the wire as JSON shapes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base::{Millis, Timestamp};
use serde::{Deserialize, Serialize};

use super::WireError;
use crate::schedule::Schedule;
use crate::state::{Promise, PromiseState, TaskRecord, TaskState, Value};
use crate::tags::Tags;

type Map<'a> = Cow<'a, BTreeMap<String, String>>;

#[derive(Serialize, Deserialize, Default)]
pub(super) struct ValueJson<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    headers: Option<Map<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Cow<'a, str>>,
}

impl<'a> From<&'a Value> for ValueJson<'a> {
    fn from(value: &'a Value) -> Self {
        ValueJson { headers: value.headers.as_ref().map(Cow::Borrowed), data: value.data.as_deref().map(Cow::Borrowed) }
    }
}

impl From<ValueJson<'_>> for Value {
    fn from(json: ValueJson<'_>) -> Value {
        Value { headers: json.headers.map(Cow::into_owned), data: json.data.map(Cow::into_owned) }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PromiseJson<'a> {
    id: Cow<'a, str>,
    state: Cow<'a, str>,
    #[serde(default)]
    param: ValueJson<'a>,
    #[serde(default)]
    value: ValueJson<'a>,
    #[serde(default)]
    tags: Tags,
    timeout_at: i64,
    created_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settled_at: Option<i64>,
}

impl<'a> From<&'a Promise> for PromiseJson<'a> {
    fn from(promise: &'a Promise) -> Self {
        PromiseJson {
            id: Cow::Borrowed(&promise.id),
            state: Cow::Borrowed(promise.state.name()),
            param: (&promise.param).into(),
            value: (&promise.value).into(),
            tags: promise.tags.clone(),
            timeout_at: promise.timeout_at.0,
            created_at: promise.created_at.0,
            settled_at: promise.settled_at.map(|at| at.0),
        }
    }
}

impl TryFrom<PromiseJson<'_>> for Promise {
    type Error = WireError;

    fn try_from(json: PromiseJson<'_>) -> Result<Promise, WireError> {
        let unknown = || WireError::Unknown { what: "promise state", name: json.state.to_string() };
        Ok(Promise {
            state: PromiseState::from_name(&json.state).ok_or_else(unknown)?,
            id: json.id.into_owned(),
            param: json.param.into(),
            value: json.value.into(),
            tags: json.tags,
            timeout_at: Timestamp(json.timeout_at),
            created_at: Timestamp(json.created_at),
            settled_at: json.settled_at.map(Timestamp),
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct TaskJson<'a> {
    id: Cow<'a, str>,
    state: Cow<'a, str>,
    version: u64,
    resumes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pid: Option<Cow<'a, str>>,
}

impl<'a> From<&'a TaskRecord> for TaskJson<'a> {
    fn from(task: &'a TaskRecord) -> Self {
        TaskJson {
            id: Cow::Borrowed(&task.id),
            state: Cow::Borrowed(task.state.name()),
            version: task.version,
            resumes: task.resumes,
            ttl: task.ttl.map(|ttl| ttl.0),
            pid: task.pid.as_deref().map(Cow::Borrowed),
        }
    }
}

impl TryFrom<TaskJson<'_>> for TaskRecord {
    type Error = WireError;

    fn try_from(json: TaskJson<'_>) -> Result<TaskRecord, WireError> {
        let unknown = || WireError::Unknown { what: "task state", name: json.state.to_string() };
        Ok(TaskRecord {
            state: TaskState::from_name(&json.state).ok_or_else(unknown)?,
            id: json.id.into_owned(),
            version: json.version,
            resumes: json.resumes,
            ttl: json.ttl.map(Millis),
            pid: json.pid.map(Cow::into_owned),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ScheduleJson<'a> {
    id: Cow<'a, str>,
    cron: Cow<'a, str>,
    promise_id: Cow<'a, str>,
    promise_timeout: u64,
    #[serde(default)]
    promise_param: ValueJson<'a>,
    #[serde(default)]
    promise_tags: Map<'a>,
    created_at: i64,
    next_run_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_run_at: Option<i64>,
}

impl<'a> From<&'a Schedule> for ScheduleJson<'a> {
    fn from(schedule: &'a Schedule) -> Self {
        ScheduleJson {
            id: Cow::Borrowed(&schedule.id),
            cron: Cow::Borrowed(&schedule.cron),
            promise_id: Cow::Borrowed(&schedule.promise_id),
            promise_timeout: schedule.promise_timeout.0,
            promise_param: (&schedule.promise_param).into(),
            promise_tags: Cow::Borrowed(&schedule.promise_tags),
            created_at: schedule.created_at.0,
            next_run_at: schedule.next_run_at.0,
            last_run_at: schedule.last_run_at.map(|at| at.0),
        }
    }
}

impl From<ScheduleJson<'_>> for Schedule {
    fn from(json: ScheduleJson<'_>) -> Schedule {
        Schedule {
            id: json.id.into_owned(),
            cron: json.cron.into_owned(),
            promise_id: json.promise_id.into_owned(),
            promise_timeout: Millis(json.promise_timeout),
            promise_param: json.promise_param.into(),
            promise_tags: json.promise_tags.into_owned(),
            created_at: Timestamp(json.created_at),
            next_run_at: Timestamp(json.next_run_at),
            last_run_at: json.last_run_at.map(Timestamp),
        }
    }
}
