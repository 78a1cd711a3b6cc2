//! The server: engine loop, HTTP, telemetry intake, incident orchestrator, agents, and the executor.
//!
//! It is the shell around the pure crates: it reads the clock, listens, waits and writes, and decides nothing
//! that `protocol`, `recovery` or `governance` decide. Read first: [`serve::serve`], [`engine::Engine`],
//! [`incidents`].

pub mod agents;
mod app;
pub mod backup;
pub mod config;
pub mod engine;
mod evidence;
#[cfg(test)]
mod fixture;
mod groups;
pub mod gzip;
pub mod holds;
pub mod http;
pub mod incidents;
mod inspect;
pub mod keys;
pub mod limits;
mod listen;
mod metrics;
pub mod misses;
pub mod outbox;
pub mod platform;
pub mod promises;
mod provenance;
pub mod remediation;
pub mod serve;
mod telemetry;

pub use actuators::{control, input, process, proxy, supervisor, topology};
pub use app::App;
pub use evidence::{altered as altered_records, record_policy};
pub use store::Error as StoreError;
