//! The pure bottom of stanch: time, ratios, digests, the canonical encoder, envelopes and the keyring.
//!
//! Everything may import this crate and it imports nothing of ours. It never reads a clock, draws
//! randomness or performs I/O: seeds, keys and times are arguments. Read first:
//! [`canon::Value`] (what is digested and signed), [`Envelope`] (how it is signed) and [`Keyring`]
//! (who may sign what).
#![warn(clippy::indexing_slicing)]

pub mod canon;
mod causes;
mod digest;
mod envelope;
mod keyring;
mod ratio;
mod time;

pub use causes::causes;
pub use digest::{Digest, Hashing};
pub use envelope::{Envelope, EnvelopeError, KeyId, PublicKey, STATEMENT_TYPE, SigningKey};
pub use keyring::{Keyring, KeyringEntry, KeyringError, Role};
pub use ratio::{Ratio, RatioError, parse_percent_ppm};
pub use time::{DURATION_MAX, Millis, MillisError, Timestamp};
