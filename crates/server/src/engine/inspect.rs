//! A look at one row as it is kept, for people who want to know why nothing happens.

use crate::engine::Engine;
use protocol::{Row, View as _};
use std::sync::Arc;

/// LIMIT: ids compared with one that does not exist.
pub const NEAR_MAX: usize = 512;

/// What is durably kept under an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The promise, its task, who waits for it and who listens.
    pub row: Arc<Row>,
    /// The promises that its task waits for, by id.
    pub awaits: Vec<String>,
}

impl Engine {
    /// What is durably kept under an id. Applies no deadline: it is shown as it is stored.
    #[must_use]
    pub fn inspect(&self, id: &str) -> Option<Inspected> {
        let row = self.row(id)?;
        let core = self.shared.lock();
        // What is awaited is pending and therefore in memory.
        let holds = |awaited: &String| core.durable_row(awaited).is_some_and(|row| row.callbacks.contains(id));
        let mut awaits: Vec<String> = core.memory.awaited_by(id).into_iter().filter(holds).collect();
        awaits.sort();
        Some(Inspected { row, awaits })
    }

    /// Durable ids that stand where this one would, in order: those that begin as it does, more of its beginning first.
    /// At most [`NEAR_MAX`], of what is in memory.
    #[must_use]
    pub fn near(&self, id: &str) -> Vec<String> {
        let core = self.shared.lock();
        let mut found: Vec<String> = Vec::new();
        // With the last letters gone, with half of it, and from the first id on.
        let chars = id.chars().count();
        for kept in [chars.saturating_sub(1), chars.saturating_sub(3), chars / 2, 0] {
            let begin: String = id.chars().take(kept).collect();
            let rows = core.memory.after(&begin, NEAR_MAX / 4 - 1);
            let ids = std::iter::once(begin.clone()).chain(rows.iter().map(|row| row.id().to_owned()));
            found.extend(ids.filter(|id| id.starts_with(&begin) && core.durable_row(id).is_some()));
        }
        let mut seen = std::collections::BTreeSet::new();
        found.retain(|id| seen.insert(id.clone()));
        found
    }
}
