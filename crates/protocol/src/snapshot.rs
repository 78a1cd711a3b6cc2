//! The whole store at one instant, flat, for outside testers (`debug.snap`).

use std::sync::Arc;

use base::Timestamp;

use crate::request::Callback;
use crate::state::{Message, Promise, TaskRecord, TimerKind};
use crate::view::View;

/// Everything that exists but schedules, each list in the order of ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The promises.
    pub promises: Vec<Arc<Promise>>,
    /// When each pending promise times out.
    pub promise_timeouts: Vec<(String, Timestamp)>,
    /// Callbacks that were not consumed.
    pub callbacks: Vec<Callback>,
    /// Promises and the addresses to be told.
    pub listeners: Vec<(String, String)>,
    /// The tasks.
    pub tasks: Vec<TaskRecord>,
    /// Tasks with their timers: whether it is a lease, and when it is due.
    pub task_timeouts: Vec<(String, bool, Timestamp)>,
    /// Messages on their way.
    pub messages: Vec<Message>,
}

impl Snapshot {
    /// What a view holds.
    #[must_use]
    pub fn of(view: &dyn View) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for row in view.rows() {
            let id = || row.id().to_owned();
            snapshot.promises.push(Arc::clone(&row.promise));
            let callbacks = row.callbacks.iter().map(|awaiter| Callback { awaited: id(), awaiter: awaiter.clone() });
            snapshot.callbacks.extend(callbacks);
            snapshot.listeners.extend(row.listeners.iter().map(|address| (id(), address.clone())));
            snapshot.tasks.extend(row.task.as_ref().map(|task| task.record()));
        }
        for timer in view.timers() {
            match timer.kind {
                TimerKind::Promise => snapshot.promise_timeouts.push((timer.id, timer.at)),
                TimerKind::Retry => snapshot.task_timeouts.push((timer.id, false, timer.at)),
                TimerKind::Lease => snapshot.task_timeouts.push((timer.id, true, timer.at)),
                TimerKind::Schedule => {}
            }
        }
        snapshot.promise_timeouts.sort();
        snapshot.task_timeouts.sort();
        snapshot.messages = view.outbox();
        snapshot.messages.sort_by_key(Message::key);
        snapshot
    }
}
