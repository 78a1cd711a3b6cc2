//! The asynchronous client of the recovery protocol: create, settle, await promises; work on tasks.
//!
//! A [`Client`] is one server's address and a pool of connections to it, with a typed method for every operation.
//! A [`Worker`] holds an event stream open, acquires what it is offered, keeps all its leases alive with one request at
//! a time and says when one is lost. [`Children`] is for functions that wait for others: fenced steps, calls, timers.
//! This crate decides nothing: versions and leases are the server's. `examples/order.rs` shows all of it in one
//! program. Read first: [`Client`], [`Worker`], [`Children`].

mod children;
mod http;
mod leases;
mod operations;
mod pause;
mod promises;
mod worker;

pub use children::{ChildError, Children};
pub use http::{
    ANSWER_BYTES_MAX, AnswerBody, Answering, CONNECT_TIMEOUT, Cause, EVENT_BYTES_MAX, Error, Exchange, REQUEST_TIMEOUT,
};
pub use operations::{Page, Pages, Search, Suspended};
pub use promises::{Acquired, Client, Retry};
pub use worker::{JOBS_MAX, Job, Lease, Outcome, REPLAYS_MAX, Worker};
