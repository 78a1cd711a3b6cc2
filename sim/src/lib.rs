//! The deterministic simulator: a whole stanch (server, executor, agents, their store and their network) and what it
//! recovers, on one thread, under a clock that moves when everybody waits.
//!
//! The server, the engine, the orchestrator, the kernel, the executor and SQLite are the real ones; network, clock,
//! platform and the agent are simulated. It never decides anything: it kills at every point and looks at what must be
//! true afterwards. Read first: [`incident::run`], [`crash::Crash`], [`matrix::points`].

pub mod crash;
mod fleet;
pub mod incident;
mod machine;
pub mod matrix;
mod network;
mod storage;

pub use machine::BuildError;
