//! The recovery protocol: durable promises, tasks, leases and settlement, as one pure state machine.
//!
//! [`apply`] decides what one request does and [`tick`] what the passing of time does; both read rows
//! through a [`View`] and answer with [`Effect`]s, data that a store persists without knowing a rule.
//! This crate never reads a clock, draws randomness, awaits or performs I/O: `now` is an argument.
//! Read first: [`Row`] (what exists), [`Request`] (what can be asked) and [`Effect`] (what changes).
//! [`Memory`] is the live state an engine keeps; [`check`] names every violated invariant.
#![warn(clippy::indexing_slicing)]

mod address;
mod check;
mod draft;
mod ids;
pub mod limits;
mod machine;
mod memory;
mod request;
mod retention;
mod schedule;
mod search;
mod settlement;
mod snapshot;
mod state;
mod tags;
mod validate;
mod view;
pub mod wire;

#[cfg(any(test, feature = "testkit"))]
mod model;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
#[cfg(test)]
mod tests;

pub use address::{Address, Cast};
pub use check::{Invariant, Violation, check, check_loaded, check_row, check_step};
pub use ids::{is_reserved, reserved_refusal};
pub use machine::{apply, delivered, reclaim, tick};
pub use memory::{Memory, Undo};
pub use request::{
    Body, Callback, Create, Debug, FenceAction, FencedKind, PromiseSearch, Request, Resolution, Response,
    ScheduleCreate, ScheduleSearch, Settle, TaskRef, TaskSearch,
};
pub use retention::{Retention, TREE_ROWS_MAX};
pub use schedule::{NEVER, Schedule, firings_due, next_firing};
pub use search::search_rows;
pub use snapshot::Snapshot;
pub use state::{
    Message, MessageKey, Promise, PromiseState, Row, Task, TaskRecord, TaskState, Timer, TimerKind, Value,
};
pub use tags::{BRANCH, DELAY, EXTERNAL, ORIGIN, PARENT, PREFIX, SCHEDULE, SCOPE, TARGET, TIMER, Tags};
pub use validate::validate;
pub use view::{Applied, Config, Effect, Poison, Profile, View};
