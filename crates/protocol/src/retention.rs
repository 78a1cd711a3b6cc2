//! What may leave: memory, because it can be read again, and the store, because nothing refers to it.

use std::collections::BTreeSet;

use base::Timestamp;

use crate::ids::{is_reserved, root};
use crate::schedule::firing_id;
use crate::state::{MessageKey, Promise, Row};
use crate::tags::ORIGIN;
use crate::view::View;

/// How many rows of one call tree are looked at to find a live one; a larger tree counts as alive.
pub const TREE_ROWS_MAX: usize = 10_000;

impl Row {
    /// Whether memory can do without it: it never changes again and no index needs it.
    ///
    /// What belongs to the server stays: incidents and holds are read by the prefixes of their ids.
    #[must_use]
    pub fn can_leave_memory(&self) -> bool {
        self.promise.is_settled() && self.callbacks.is_empty() && !is_reserved(self.id())
    }
}

/// What keeps promises from being forgotten, over one pass: ids that schedules create again and again, and what else
/// is known to be needed.
#[derive(Debug)]
pub struct Retention {
    before: Timestamp,
    kept: BTreeSet<String>,
}

impl Retention {
    /// A pass that forgets what settled before an instant.
    #[must_use]
    pub fn of(view: &dyn View, before: Timestamp) -> Retention {
        let schedules = view.schedules_after("", usize::MAX).into_iter();
        let fixed = schedules.filter(|schedule| !schedule.promise_id.contains("{{.timestamp}}"));
        let kept = fixed.map(|schedule| firing_id(&schedule.promise_id, &schedule.id, Timestamp(0))).collect();
        Retention { before, kept }
    }

    /// Keeps these promises, too: what lies outside a view refers to them.
    #[must_use]
    pub fn keeping(mut self, ids: impl IntoIterator<Item = String>) -> Retention {
        self.kept.extend(ids);
        self
    }

    /// Whether nothing refers to a promise any more: it settled before the instant, nobody waits for it, no message
    /// about it is on its way, its whole call tree is settled, and no schedule creates it again. `view` holds at
    /// least everything that is not settled.
    #[must_use]
    pub fn may_forget(&self, view: &dyn View, promise: &Promise) -> bool {
        let settled = promise.settled_at.is_some_and(|at| at < self.before) && promise.is_settled();
        let held = view.row(&promise.id);
        let quiet = held.is_none_or(|row| row.can_leave_memory()) && view.awaited_by(&promise.id).is_empty();
        settled
            && quiet
            && !is_reserved(&promise.id)
            && !self.kept.contains(&promise.id)
            && view.queued(&MessageKey::Execute { task_id: promise.id.clone() }).is_none()
            && !view.is_told(&promise.id)
            && !is_tree_alive(view, promise)
    }
}

/// Whether a promise of the same call tree is pending. An id of a tree is its root's, or continues it.
fn is_tree_alive(view: &dyn View, promise: &Promise) -> bool {
    let origins = [promise.tag(ORIGIN), Some(root(&promise.id))];
    origins.into_iter().flatten().any(|origin| is_alive_below(view, origin))
}

fn is_alive_below(view: &dyn View, origin: &str) -> bool {
    let pends = |id: &str| view.row(id).is_some_and(|row| !row.promise.is_settled());
    if pends(origin) {
        return true;
    }
    [':', '.'].iter().any(|separator| {
        let prefix = format!("{origin}{separator}");
        let rows = view.below(&prefix, TREE_ROWS_MAX);
        rows.len() == TREE_ROWS_MAX || rows.iter().any(|row| !row.promise.is_settled())
    })
}
