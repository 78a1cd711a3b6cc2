//! The machine against its model, and table tests of what a random walk seldom says aloud.

mod exhaustive;
mod machine;
mod memory;
mod property;
mod reserved;
mod retention;
mod rules;
mod schedule;
mod validation;
