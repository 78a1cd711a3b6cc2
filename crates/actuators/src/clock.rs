//! The one place of this crate that reads the clock.

use base::{Millis, Timestamp};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time now, by the host's clock.
#[expect(clippy::disallowed_methods, reason = "deadlines and expiries are absolute instants of the host's clock")]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// How long until `instant`; zero when it has passed.
pub(crate) fn until(instant: Timestamp) -> Duration {
    Duration::from_millis(instant.since(now()).0)
}

/// A length of time as the runtime wants it.
pub(crate) fn duration(length: Millis) -> Duration {
    Duration::from_millis(length.0)
}
