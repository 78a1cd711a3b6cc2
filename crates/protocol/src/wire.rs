//! The wire format: the only place with wire names and JSON, for the server's side and the client's.
//!
//! Server: [`parse_request`], [`render_response`], [`render_message`]. Client: [`render_request`],
//! [`parse_response`], [`parse_message`].

mod answers;
mod incoming;
mod names;
mod outgoing;
mod records;
#[cfg(test)]
mod tests;

use base::Timestamp;
use serde::Serialize;

use crate::request::{Request, Response, TaskRef};
use crate::state::Promise;

pub use incoming::{parse_message, parse_promise, parse_request, parse_response};
pub use outgoing::{
    promise_json, render_bad_request, render_message, render_request, render_response, schedule_json, task_json,
};

/// The protocol version this crate speaks.
pub const VERSION: &str = "2026-04-01";

/// A request from the wire: its envelope and what it asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The kind as it was sent, to be echoed.
    pub kind: String,
    /// The correlation id, to be echoed.
    pub corr_id: String,
    /// The protocol version.
    pub version: String,
    /// The bearer token of the body, if there is one.
    pub auth: Option<String>,
    /// The instant a tester wants the request applied at; means something only where debugging is on.
    pub debug_time: Option<Timestamp>,
    /// What is asked.
    pub request: Request,
}

/// Bytes that are no request: a 400 that echoes what could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadRequest {
    /// The kind, or `unknown`.
    pub kind: String,
    /// The correlation id, or `0`.
    pub corr_id: String,
    /// What is wrong.
    pub message: String,
}

/// A response as a client reads it; `kind` and `corr_id` must be those it sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The echoed kind.
    pub kind: String,
    /// The echoed correlation id.
    pub corr_id: String,
    /// The answer.
    pub response: Response,
}

/// A message as a worker or listener reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A task is offered.
    Execute {
        /// The task and the version to acquire it at.
        task: TaskRef,
        /// The server to acquire it from, if it says so.
        server_url: Option<String>,
    },
    /// A promise that was listened to has settled.
    Unblock {
        /// The promise.
        promise: Promise,
    },
}

/// Bytes that are no response, message or record.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not JSON, or not of the expected shape.
    #[error("not a record of the protocol")]
    Shape(#[from] serde_json::Error),
    /// A name the protocol does not have.
    #[error("unknown {what} `{name}`")]
    Unknown {
        /// What it should name.
        what: &'static str,
        /// The name.
        name: String,
    },
}

/// The wire name of a request's operation.
#[must_use]
pub fn kind_of(request: &Request) -> &'static str {
    names::kind_of(request)
}

/// Renders what cannot fail to render: maps with text keys, text and integers.
fn bytes(record: &impl Serialize) -> Vec<u8> {
    // Most answers fit, so that the buffer does not grow on the way.
    let mut out = Vec::with_capacity(768);
    match serde_json::to_writer(&mut out, record) {
        Ok(()) => out,
        Err(_) => Vec::new(),
    }
}
