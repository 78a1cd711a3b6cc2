//! Answers and messages as bytes.
//!
//! WHY: they are written straight into bytes: a tree of values in between would cost as much as the transition.

use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, SerializeStruct as _, Serializer};
use std::sync::Arc;

use super::outgoing::page_json;
use super::records::{PromiseJson, ScheduleJson, TaskJson};
use super::{VERSION, bytes};
use crate::request::{Body, Response};
use crate::state::{Message, Promise};

/// A message to a worker or listener.
pub(super) fn message(message: &Message, server_url: &str) -> Vec<u8> {
    match message {
        Message::Execute { task_id, version, .. } => {
            let task = Offer { id: task_id, version: *version };
            bytes(&MessageJson { kind: "execute", head: One("serverUrl", server_url), data: One("task", task) })
        }
        Message::Unblock { promise, .. } => {
            let promise = PromiseJson::from(&**promise);
            bytes(&MessageJson { kind: "unblock", head: Nothing {}, data: One("promise", promise) })
        }
    }
}

/// An answer, the outer one or that of the operation inside a fence.
pub(super) struct Reply<'a> {
    pub(super) kind: &'a str,
    pub(super) corr_id: &'a str,
    pub(super) response: &'a Response,
}

struct Head<'a> {
    corr_id: &'a str,
    status: u16,
}

struct Data<'a> {
    corr_id: &'a str,
    body: &'a Body,
}

struct Promises<'a>(&'a [Arc<Promise>]);

/// An object with one field.
struct One<T>(&'static str, T);

#[derive(serde::Serialize)]
struct Nothing {}

#[derive(serde::Serialize)]
struct Offer<'a> {
    id: &'a str,
    version: u64,
}

#[derive(serde::Serialize)]
struct MessageJson<H, D> {
    kind: &'static str,
    head: H,
    data: D,
}

impl Serialize for Reply<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Reply { kind, corr_id, response } = *self;
        let mut reply = serializer.serialize_struct("Reply", 3)?;
        reply.serialize_field("kind", kind)?;
        reply.serialize_field("head", &Head { corr_id, status: response.status })?;
        reply.serialize_field("data", &Data { corr_id, body: &response.body })?;
        reply.end()
    }
}

impl Serialize for Head<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut head = serializer.serialize_struct("Head", 3)?;
        head.serialize_field("corrId", self.corr_id)?;
        head.serialize_field("status", &self.status)?;
        head.serialize_field("version", VERSION)?;
        head.end()
    }
}

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.body {
            Body::Error(message) => serializer.serialize_str(message),
            Body::Empty => Nothing {}.serialize(serializer),
            Body::Promise(promise) => One("promise", PromiseJson::from(&**promise)).serialize(serializer),
            Body::Task(task) => One("task", TaskJson::from(task)).serialize(serializer),
            Body::Schedule(schedule) => One("schedule", ScheduleJson::from(&**schedule)).serialize(serializer),
            Body::Preload(preload) => One("preload", Promises(preload)).serialize(serializer),
            Body::Acquired { task, promise, preload } => {
                let mut fields = serializer.serialize_map(Some(3))?;
                fields.serialize_entry("task", &TaskJson::from(task))?;
                fields.serialize_entry("promise", &PromiseJson::from(&**promise))?;
                fields.serialize_entry("preload", &Promises(preload))?;
                fields.end()
            }
            Body::Fenced { kind, response, preload } => {
                let action = Reply { kind: kind.name(), corr_id: self.corr_id, response };
                let mut fields = serializer.serialize_map(Some(2))?;
                fields.serialize_entry("action", &action)?;
                fields.serialize_entry("preload", &Promises(preload))?;
                fields.end()
            }
            Body::Promises { .. } | Body::Tasks { .. } | Body::Schedules { .. } | Body::Swept | Body::Snapshot(_) => {
                page_json(self.body).serialize(serializer)
            }
        }
    }
}

impl Serialize for Promises<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for promise in self.0 {
            list.serialize_element(&PromiseJson::from(&**promise))?;
        }
        list.end()
    }
}

impl<T: Serialize> Serialize for One<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(1))?;
        object.serialize_entry(self.0, &self.1)?;
        object.end()
    }
}
