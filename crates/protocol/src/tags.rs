//! The tags the machine reads, and what they say about a promise.

use base::Timestamp;

use crate::ids::is_reserved;
use crate::state::Promise;

/// Tag: the address that gets the task; a promise has a task exactly when it has this tag.
pub const TARGET: &str = "resonate:target";
/// Tag: `"true"` makes the deadline resolve instead of reject.
pub const TIMER: &str = "resonate:timer";
/// Tag: the instant before which the task is not offered.
pub const DELAY: &str = "resonate:delay";
/// Tag: the root of the call tree.
pub const ORIGIN: &str = "resonate:origin";
/// Tag: the nearest ancestor or self with a target; groups preload.
pub const BRANCH: &str = "resonate:branch";
/// Tag: the direct parent.
pub const PARENT: &str = "resonate:parent";
/// Tag: `"true"` if someone outside the tree settles it.
pub const EXTERNAL: &str = "resonate:external";
/// Tag: `"global"` or `"local"`.
pub const SCOPE: &str = "resonate:scope";
/// Tag: the schedule that created it; set by the server.
pub const SCHEDULE: &str = "resonate:schedule";
/// Tag: dropped by current clients, still checked.
pub const PREFIX: &str = "resonate:prefix";

impl Promise {
    /// One of its tags.
    #[must_use]
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.tags.get(name).map(String::as_str)
    }

    /// The address its task is offered to.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.tag(TARGET)
    }

    /// Whether its deadline resolves it.
    #[must_use]
    pub fn is_timer(&self) -> bool {
        self.tag(TIMER) == Some("true")
    }

    /// Whether its task is ever offered. A timer's is not: it waits for its deadline.
    #[must_use]
    pub fn is_dispatchable(&self) -> bool {
        self.target().is_some() && !self.is_timer()
    }

    /// Whether others may await it: it is settled from outside the worker that created it.
    #[must_use]
    pub fn is_awaitable(&self) -> bool {
        self.target().is_some()
            || self.is_timer()
            || self.tag(EXTERNAL) == Some("true")
            || self.tag(SCOPE) == Some("global")
            // WHY: only the server settles a reserved promise, so it is external whatever its tags say.
            || is_reserved(&self.id)
    }

    /// The instant before which its task is not offered, if that is still ahead.
    #[must_use]
    pub fn delayed_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.tag(DELAY).and_then(parse_delay).filter(|delay| now < *delay)
    }
}

/// Reads a delay: a non-negative decimal instant in milliseconds.
pub(crate) fn parse_delay(text: &str) -> Option<Timestamp> {
    let digits_only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits_only { text.parse().ok().map(Timestamp) } else { None }
}
