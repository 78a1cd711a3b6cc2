//! The settlement chain: settle, resume, execute. Linear: nothing but the settled promise settles.

use std::sync::Arc;

use base::Timestamp;

use crate::draft::Draft;
use crate::ids::is_reserved;
use crate::state::{Message, MessageKey, Promise, PromiseState, Task, TaskState, Value};
use crate::view::{OwnerChange, Poison};

impl Draft<'_> {
    /// Applies the deadlines of the named promises that have passed: time always wins.
    ///
    /// All of them settle before the first callback is drained, so that an awaiter that expired in
    /// the same instant is not woken.
    pub(crate) fn touch<'i>(&mut self, ids: impl IntoIterator<Item = &'i str>) {
        let mut expired = Vec::new();
        for id in ids {
            let Some(promise) = self.promise(id) else { continue };
            if !promise.is_settled() && promise.timeout_at <= self.now {
                self.close(id, deadline_state(&promise), Value::default(), promise.timeout_at);
                expired.push(id);
            }
        }
        for id in expired {
            self.drain(id);
        }
    }

    /// Settles a pending promise and resumes who awaits it.
    pub(crate) fn settle(&mut self, id: &str, state: PromiseState, value: Value) {
        self.close(id, state, value, self.now);
        self.drain(id);
    }

    /// Settles the promise, ends its task and tells its listeners.
    fn close(&mut self, id: &str, state: PromiseState, value: Value, settled_at: Timestamp) {
        let mut listeners = Default::default();
        self.edit(id, |row| {
            let promise = Arc::make_mut(&mut row.promise);
            // INVARIANT: a settled record never changes.
            assert!(!promise.is_settled(), "a promise settles once");
            promise.state = state;
            promise.value = value;
            promise.settled_at = Some(settled_at);
            listeners = std::mem::take(&mut row.listeners);
        });
        self.edit_task(id, |task| {
            task.state = TaskState::Fulfilled;
            task.resumes.clear();
            disown(task);
            task.retry_at = None;
            task.reason = None;
        });
        self.retract(MessageKey::Execute { task_id: id.to_owned() });
        for awaited in self.view.awaited_by(id) {
            self.edit(&awaited, |row| {
                row.callbacks.remove(id);
            });
        }
        if let Some(promise) = self.promise(id) {
            for address in listeners {
                self.send(Message::Unblock { address, promise: Arc::clone(&promise) });
            }
        }
    }

    /// Resumes every awaiter of a settled promise.
    fn drain(&mut self, id: &str) {
        let Some(row) = self.row(id) else { return };
        for awaiter in &row.callbacks {
            if self.resume(awaiter, id) {
                self.edit(id, |row| {
                    row.callbacks.remove(awaiter);
                });
            }
        }
    }

    /// Counts a settled promise for its awaiter and wakes it if it is suspended. False if the
    /// callback has to stay.
    pub(crate) fn resume(&mut self, awaiter: &str, awaited: &str) -> bool {
        let Some(row) = self.row(awaiter) else { return true };
        let Some(task) = &row.task else { return true };
        if row.promise.is_settled() {
            return true;
        }
        if !row.promise.is_live(self.now) {
            // WHY: an awaiter past its own deadline must not be woken. Its callback stays until its
            // deadline is applied, so that a suspended task always has something it waits for.
            return false;
        }
        let suspended = task.state == TaskState::Suspended;
        self.edit_task(awaiter, |task| {
            task.resumes.insert(awaited.to_owned());
        });
        if suspended {
            self.offer(awaiter);
        }
        true
    }

    /// Makes a task pending and offers it to its target now.
    pub(crate) fn offer(&mut self, id: &str) {
        let Some(promise) = self.promise(id) else { return };
        let retry_at = self.retry_at(&promise);
        self.edit_task(id, |task| {
            task.state = TaskState::Pending;
            disown(task);
            task.retry_at = Some(retry_at);
        });
        self.dispatch(id, &promise);
    }

    /// Queues the execute of a pending task.
    pub(crate) fn dispatch(&mut self, id: &str, promise: &Promise) {
        if !promise.is_dispatchable() {
            return;
        }
        if let (Some(task), Some(target)) = (self.task(id), promise.target()) {
            self.send(Message::Execute { task_id: id.to_owned(), version: task.version, address: target.to_owned() });
        }
    }

    /// When a task that becomes pending now is offered again.
    pub(crate) fn retry_at(&self, promise: &Promise) -> Timestamp {
        if promise.is_dispatchable() {
            self.now.plus(self.config.retry_timeout)
        } else {
            // WHY: a timer's task is never offered, so a retry before its deadline is work for nothing.
            promise.timeout_at
        }
    }

    /// Takes an acquired task from its worker and offers it to the next.
    pub(crate) fn hand_back(&mut self, id: &str, change: OwnerChange) {
        let profile = self.config.profile;
        // WHY: an incident is in a hurry, and ends by its own limits of time: whoever died in it is succeeded at once.
        let poison = if is_reserved(id) { Poison::NONE } else { self.config.poison };
        self.edit_task(id, |task| task.version = profile.next_version(task.version, change));
        let attempts = self.task(id).map_or(0, |task| task.attempts);
        if poison.attempts_max > 0 && attempts >= poison.attempts_max {
            let last = match change {
                OwnerChange::Release => "it was given back",
                OwnerChange::LeaseExpiry | OwnerChange::Acquire => "its lease lapsed",
            };
            return self.halt(id, format!("acquired {attempts} times without getting anywhere; the last time {last}"));
        }
        self.offer(id);
        let is_offered = self.promise(id).is_some_and(|promise| promise.is_dispatchable());
        if let Some(pause) = poison.pause_after(attempts).filter(|_| is_offered) {
            let until = self.now.plus(pause);
            self.edit_task(id, |task| task.retry_at = Some(until));
            self.retract(MessageKey::Execute { task_id: id.to_owned() });
        }
    }

    /// Stops a task until it is continued; its callbacks stay.
    pub(crate) fn halt(&mut self, id: &str, reason: String) {
        self.edit_task(id, |task| {
            task.state = TaskState::Halted;
            disown(task);
            task.retry_at = None;
            task.reason = Some(reason);
        });
        self.retract(MessageKey::Execute { task_id: id.to_owned() });
    }
}

/// How a promise settles when its deadline passes.
pub(crate) fn deadline_state(promise: &Promise) -> PromiseState {
    if promise.is_timer() { PromiseState::Resolved } else { PromiseState::TimedOut }
}

/// Drops the holder and the lease.
pub(crate) fn disown(task: &mut Task) {
    task.ttl = None;
    task.pid = None;
    task.lease_at = None;
}
