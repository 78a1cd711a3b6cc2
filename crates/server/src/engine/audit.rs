//! The invariants of the protocol, watched while the server runs.
//!
//! A violation is a bug, never a condition to repair: the transition that would break an invariant is not written, the
//! object is put in quarantine, where no request and no timer reaches it, and everything else goes on.

use crate::engine::core::{Core, Staged};
use base::{Millis, Timestamp};
use protocol::{Request, Response, View as _, Violation};
use std::collections::BTreeMap;

/// One of so many transitions is checked in a release build, every one in others.
const CHECKED_OF: u64 = if cfg!(debug_assertions) { 1 } else { 16 };
/// Rows looked at in one look.
const SAMPLE: usize = 256;
/// How often rows are looked at.
pub(super) const SAMPLE_EVERY: Millis = Millis(1_000);
/// LIMIT: objects in quarantine; with more of them nothing is written any more.
pub const QUARANTINED_MAX: usize = 1_000;

/// What the watch knows.
#[derive(Debug, Default)]
pub(super) struct Audit {
    transitions: u64,
    /// The id after which the next look begins.
    cursor: String,
    /// Why each object is in quarantine.
    reasons: BTreeMap<String, String>,
}

impl Audit {
    /// Whether so much is wrong that nothing should be written.
    pub(super) fn is_overwhelmed(&self) -> bool {
        self.reasons.len() > QUARANTINED_MAX
    }
}

impl Core {
    /// The refusal of a request that names an object in quarantine.
    pub(super) fn quarantine_refusal(&self, request: &Request) -> Option<Response> {
        if self.audit.reasons.is_empty() {
            return None;
        }
        let (id, reason) = request.ids().into_iter().find_map(|id| self.audit.reasons.get_key_value(id))?;
        Some(Response::refuse(500, format!("`{id}` is in quarantine: {reason}; `stanch doctor` looks at all of it")))
    }

    /// The invariants that staged changes would break, if these are looked at.
    pub(super) fn audit_step(&mut self, staged: &Staged, now: Timestamp) -> Vec<Violation> {
        self.audit.transitions += 1;
        if !self.audit.transitions.is_multiple_of(CHECKED_OF) {
            return Vec::new();
        }
        let steps = staged.rows().map(|(after, before)| protocol::check_step(before.map(AsRef::as_ref), after, now));
        steps.flatten().collect()
    }

    /// Looks at a few rows more, round and round.
    pub(super) fn audit_sample(&mut self) {
        let rows = self.memory.after(&self.audit.cursor, SAMPLE);
        self.audit.cursor =
            rows.last().map(|row| row.id().to_owned()).filter(|_| rows.len() == SAMPLE).unwrap_or_default();
        let found: Vec<Violation> = rows.iter().flat_map(|row| protocol::check_row(&self.memory, row)).collect();
        self.quarantine(found);
    }

    /// Puts what violates an invariant in quarantine.
    pub(super) fn quarantine(&mut self, found: Vec<Violation>) {
        for violation in found {
            if !self.audit.reasons.contains_key(&violation.id) {
                tracing::error!(id = violation.id, invariant = violation.invariant.name(), "an invariant is violated");
                self.meters.violated(violation.invariant);
                self.memory.quarantine(&violation.id);
                self.audit.reasons.insert(violation.id, format!("it violates {}", violation.invariant.name()));
            }
        }
    }

    /// The objects in quarantine and why.
    pub(super) fn quarantined(&self) -> Vec<(String, String)> {
        self.audit.reasons.iter().map(|(id, reason)| (id.clone(), reason.clone())).collect()
    }
}
