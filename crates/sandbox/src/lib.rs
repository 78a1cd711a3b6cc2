//! The sample shop: real processes with real HTTP, a queue, a store, spans and load, to break and to recover.
//!
//! It is one topology file under the general supervisor. Everything here plays the part of a user's own
//! system: the product knows none of it. It must never help a recovery along. Read first: [`profile`],
//! [`service::run`], [`prepare::prepare`].

pub mod agent;
mod call;
mod clock;
mod ending;
pub mod entry;
pub mod fault;
pub mod load;
mod pool;
pub mod ports;
pub mod prepare;
pub mod profile;
mod random;
pub mod rollout;
pub mod service;
pub mod starts;
mod telemetry;
pub mod topology;

/// Root requests a second that the load generator sends.
pub const RATE: u32 = 110;
/// Milliseconds that a replica with the fault `slow` takes longer.
pub const SLOW_MS: u64 = 600;
/// Bytes that a replica with the fault `leak` keeps of every request.
pub const LEAK_BYTES: usize = 512 * 1_024;
/// LIMIT: bytes that a leaking replica may keep; from then on it refuses every request, as one without memory does.
pub const LEAK_BYTES_MAX: usize = 96 * 1_024 * 1_024;
/// Milliseconds within which a root request counts as well served.
pub const OBJECTIVE_MS: u64 = 800;
/// Milliseconds between two exports of spans.
pub const EXPORT_MS: u64 = 200;
/// Name of the policy file in a prepared directory.
pub const POLICY_FILE: &str = "sandbox.policy.toml";
/// Name of the topology file in a prepared directory.
pub const TOPOLOGY_FILE: &str = "stanch.toml";
