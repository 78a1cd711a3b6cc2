//! The JSON rendering of a plan: a closed form. Unknown and repeated fields, fractions and nulls are refused.
//!
//! Targets: `{"service":"S"}`, with `"instances":[0]`, `"zone":"z"` or `"shard":"7"`; `{"edge":"A->S"}`;
//! `{"object":"kind/ns/name"}`; of a RestoreTraffic `{"of":["s1"]}`, `{"of":"open"}` or
//! `{"weights":[{"service":"S","instances":[0],"weight":50}]}`. Conditions are in text form.

mod read;
mod tree;
mod write;

use super::{PLAN_BYTES_MAX, Plan};
use crate::check::Code;

/// The `kind` of a plan.
pub const KIND: &str = "stanch.plan.v1";

/// A JSON text that is not a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} at {at}: {why}")]
pub struct JsonError {
    /// The code it is refused with.
    pub code: Code,
    /// Where: `line 3, column 7` of a text that is not JSON, else a path such as `steps[0].with.wave`.
    pub at: String,
    /// What is wrong and what would be right.
    pub why: String,
}

/// Reads a plan.
///
/// # Errors
/// The first thing that is not of the form, with its code.
pub fn parse(text: &str) -> Result<Plan, JsonError> {
    if text.len() > PLAN_BYTES_MAX {
        let why = format!("a plan has at most {PLAN_BYTES_MAX} bytes");
        return Err(JsonError { code: Code::K102, at: "the plan".to_owned(), why });
    }
    read::plan(tree::parse(text)?)
}

/// Writes a plan; [`parse`] reads it back.
#[must_use]
pub fn render(plan: &Plan) -> serde_json::Value {
    write::plan(plan)
}
