//! One incident's evidence as a file, and its offline verification: a pure function over bytes.

mod export;
mod listing;
mod replay;
mod tar;
mod verify;

pub use export::{ExportError, Input, export};
pub use listing::records;
pub use replay::{Difference, Differing, Judged, Judgment, Replay, Unsupported, Verdict, WhatIf, replay};
pub use verify::{Trust, TrustError, Verified, VerifyError, verify};

/// Largest bundle that is read.
pub const BUNDLE_BYTES_MAX: usize = 256 << 20;

#[cfg(test)]
mod tests;
