//! What changes the world: the actuator contract, its suite, the process actuator with its ledger, the
//! supervisor of services, and the traffic proxy.
//!
//! Actuators perform what was decided elsewhere; they never decide, retry or widen. Read first:
//! [`Actuator`], [`process::ProcessActuator`], [`contract`].

mod actuator;
mod clock;
pub mod contract;
pub mod control;
pub mod field;
pub mod input;
pub mod process;
pub mod procfs;
pub mod proxy;
pub mod simulator;
pub mod supervisor;
pub mod topology;

pub use actuator::{Actuator, Capabilities, Capability, DryRun, Error, Fut, Reason, Selector, TargetKind, Ttl};
