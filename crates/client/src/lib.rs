//! The asynchronous client of the recovery protocol: create, settle, await promises; work on tasks.
//!
//! A [`Client`] is one server's address and a pool of connections to it. A [`Worker`] holds an event stream open,
//! acquires what it is offered, keeps the lease alive and says when it is lost. This crate decides nothing: versions
//! and leases are the server's. Read first: [`Client`], [`Worker`], [`Lease`].

mod http;
mod promises;
mod worker;

pub use http::{
    ANSWER_BYTES_MAX, AnswerBody, Answering, CONNECT_TIMEOUT, Cause, EVENT_BYTES_MAX, Error, Exchange, REQUEST_TIMEOUT,
};
pub use promises::Client;
pub use worker::{JOBS_MAX, Job, Lease, Outcome, Worker};
