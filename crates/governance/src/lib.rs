//! May we, and how do we prove it later: signed records, the policy, invariants, the decision, the
//! evidence log and its offline verifier. Pure: times, keys, seeds and bytes are arguments.
//!
//! It decides and proves, and never acts, reads a clock or opens a file. Read first:
//! [`admission::decide`], [`record::Record`] and [`bundle::verify`].
#![warn(clippy::indexing_slicing)]

#[macro_use]
mod render;

pub mod admission;
pub mod bundle;
mod code;
pub mod estimate;
pub mod invariants;
pub mod keys;
pub mod log;
pub mod policy;
pub mod record;

pub use code::Code;
pub use render::Render;
