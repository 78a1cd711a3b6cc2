//! The compact text form of steps: `drain payments@0 new 120s ; restart payments@0 ; restore`.
//!
//! `→` and `·` are read as `->` and `;`. A plan's header comes from elsewhere. The printer writes exactly
//! what the parser reads back.

mod lex;
mod parse;
mod print;

pub(crate) use print::rate;
pub use print::{action, step, steps};

use crate::check::Code;
use crate::plan::{Predicate, Step};

/// Words with a meaning of their own: none of them is a step key.
pub const KEYWORDS: &[&str] = &[
    "restart",
    "drain",
    "restore",
    "break",
    "ratelimit",
    "scale",
    "rollback",
    "par",
    "if",
    "until",
    "else",
    "undo",
    "stop",
    "retry",
    "undo-to",
    "group",
    "wave",
    "surge",
    "grace",
    "jitter",
    "new",
    "all",
    "timeout",
    "weights",
    "ramp",
    "every",
    "open",
    "half-open",
    "fallback",
    "burst",
    "priority",
    "to",
    "last-good",
];

/// A text that is not a plan: where, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} line {line}, column {column}: {why}")]
pub struct TextError {
    /// The code it is refused with.
    pub code: Code,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// What is wrong and what would be right.
    pub why: String,
}

/// Parses the steps of a plan.
///
/// # Errors
/// The first place where the text leaves the grammar, with its code.
pub fn parse(text: &str) -> Result<Vec<Step>, TextError> {
    parse::plan(text)
}

/// Parses one condition such as `ready(payments)>=2`.
///
/// # Errors
/// As [`parse`].
pub fn parse_predicate(text: &str) -> Result<Predicate, TextError> {
    parse::lone_predicate(text)
}

#[cfg(test)]
mod tests;
