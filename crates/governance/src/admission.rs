//! The decision: pure, total, integers only. Checks stand in bands of falling severity; the outcome is
//! the severest that fires, and the binding reason is the first fired check of that severity.

mod checks;
mod decision;
mod inputs;
mod settle;

pub(crate) use checks::max_delay;
pub use decision::{Authority, Decision, MutatedParam, Numbers, Outcome, Reason, Unit};
pub use inputs::*;
pub use settle::{Check, Settled, settle};

use base::Digest;

/// Version of the decision function; every released one stays readable in the verifier.
pub const SEMANTICS: u64 = 1;

/// Mutations of one intent before a person must look.
pub const MUTATIONS_MAX: u64 = 4;

/// A forecast that never ends; over every budget.
pub const NEVER: u64 = u64::MAX;

/// Decides. The same inputs give the same bytes, everywhere.
#[must_use]
pub fn decide(inputs: &Inputs) -> Decision {
    let facts = checks::run(inputs);
    decision::conclude(inputs, facts)
}

impl Inputs {
    /// The digest by which the decision names its inputs.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// The canonical bytes of the blob that holds the inputs.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        base::canon::object("inputs", &base::canon::Canon::to_value(self))
    }

    /// Reads the blob.
    ///
    /// # Errors
    /// Anything [`Inputs::to_bytes`] would not have produced.
    pub fn from_bytes(bytes: &[u8]) -> Result<Inputs, base::canon::Error> {
        base::canon::Canon::from_value(base::canon::parse_object("inputs", bytes)?)
    }
}

#[cfg(test)]
mod tests;
