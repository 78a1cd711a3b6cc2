//! The server: engine loop, HTTP, telemetry intake, incident orchestrator, agents.

pub mod engine;
pub mod promises;
