//! The changes of one request while it is decided: rows over a view, read back as they were written.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use base::Timestamp;

use crate::limits::{PRELOAD_BYTES_MAX, PRELOAD_COUNT_MAX};
use crate::schedule::Schedule;
use crate::state::{Message, MessageKey, Promise, Row, Task, Timer, TimerKind};
use crate::view::{Config, Effect, View};

/// The timers of a row that does not exist.
const NO_TIMERS: [(TimerKind, Option<Timestamp>); 3] =
    [(TimerKind::Promise, None), (TimerKind::Retry, None), (TimerKind::Lease, None)];

/// Rows as a request changes them, before anything is committed.
pub(crate) struct Draft<'a> {
    pub(crate) view: &'a dyn View,
    pub(crate) now: Timestamp,
    pub(crate) config: &'a Config,
    /// What was read last.
    last: RefCell<Option<(String, Option<Arc<Row>>)>>,
    rows: BTreeMap<String, Change>,
    messages: BTreeMap<MessageKey, Option<Message>>,
    schedules: BTreeMap<String, Option<Arc<Schedule>>>,
}

struct Change {
    before: Option<Arc<Row>>,
    after: Arc<Row>,
}

impl<'a> Draft<'a> {
    /// A draft without changes.
    pub(crate) fn new(view: &'a dyn View, now: Timestamp, config: &'a Config) -> Self {
        Draft {
            view,
            now,
            config,
            last: RefCell::default(),
            rows: BTreeMap::new(),
            messages: BTreeMap::new(),
            schedules: BTreeMap::new(),
        }
    }

    /// The row as it stands in this draft.
    pub(crate) fn row(&self, id: &str) -> Option<Arc<Row>> {
        match self.rows.get(id) {
            Some(change) => Some(Arc::clone(&change.after)),
            None => self.read(id),
        }
    }

    /// The row as it is stored; one request asks for the same several times.
    fn read(&self, id: &str) -> Option<Arc<Row>> {
        let mut last = self.last.borrow_mut();
        if let Some((known, row)) = &*last
            && known == id
        {
            return row.clone();
        }
        let row = self.view.row(id);
        *last = Some((id.to_owned(), row.clone()));
        row
    }

    /// The promise as it stands in this draft.
    pub(crate) fn promise(&self, id: &str) -> Option<Arc<Promise>> {
        self.row(id).map(|row| Arc::clone(&row.promise))
    }

    /// The task as it stands in this draft.
    pub(crate) fn task(&self, id: &str) -> Option<Arc<Task>> {
        self.row(id).and_then(|row| row.task.clone())
    }

    /// Changes a row that exists; does nothing for one that does not.
    pub(crate) fn edit(&mut self, id: &str, change: impl FnOnce(&mut Row)) {
        if let Some(held) = self.rows.get_mut(id) {
            change(Arc::make_mut(&mut held.after));
        } else if let Some(before) = self.read(id) {
            let mut after = Row::clone(&before);
            change(&mut after);
            self.rows.insert(id.to_owned(), Change { before: Some(before), after: Arc::new(after) });
        }
    }

    /// Changes the task of a row, if there is one.
    pub(crate) fn edit_task(&mut self, id: &str, change: impl FnOnce(&mut Task)) {
        self.edit(id, |row| {
            if let Some(task) = &mut row.task {
                change(Arc::make_mut(task));
            }
        });
    }

    /// Adds a row that did not exist.
    pub(crate) fn insert(&mut self, row: Row) {
        assert!(self.row(row.id()).is_none(), "a promise is created once");
        self.rows.insert(row.id().to_owned(), Change { before: None, after: Arc::new(row) });
    }

    /// Owes a message, in place of one with the same key.
    pub(crate) fn send(&mut self, message: Message) {
        self.messages.insert(message.key(), Some(message));
    }

    /// Owes it no longer.
    pub(crate) fn retract(&mut self, key: MessageKey) {
        self.messages.insert(key, None);
    }

    /// The schedule now reads so.
    pub(crate) fn put_schedule(&mut self, schedule: Schedule) -> Arc<Schedule> {
        let schedule = Arc::new(schedule);
        self.schedules.insert(schedule.id.clone(), Some(Arc::clone(&schedule)));
        schedule
    }

    /// There is no such schedule any more.
    pub(crate) fn drop_schedule(&mut self, id: &str) {
        self.schedules.insert(id.to_owned(), None);
    }

    /// The promises of the branch of `id`, without itself, ordered by id.
    ///
    // LIMIT: an unbounded preload makes a workflow of n steps cost n²; a client re-creates what is missing.
    pub(crate) fn preload(&self, id: &str) -> Vec<Arc<Promise>> {
        let Some(promise) = self.promise(id) else { return Vec::new() };
        let Some(branch) = promise.tag(crate::tags::BRANCH) else { return Vec::new() };
        let mut bytes = 0;
        let mut preload = Vec::new();
        for stored in self.view.branch(branch, PRELOAD_COUNT_MAX + 1) {
            if stored.id == id {
                continue;
            }
            let current = self.promise(&stored.id).unwrap_or(stored);
            bytes += weight(&current);
            if bytes > PRELOAD_BYTES_MAX || preload.len() == PRELOAD_COUNT_MAX {
                break;
            }
            preload.push(current);
        }
        preload
    }

    /// The changes as effects, in an order that depends on nothing but them.
    pub(crate) fn finish(self) -> Vec<Effect> {
        let mut puts = Vec::new();
        let mut timers = Vec::new();
        for change in self.rows.into_values() {
            if change.before.as_deref() == Some(&*change.after) {
                continue;
            }
            let old = change.before.as_ref().map_or(NO_TIMERS, |row| row.timer_instants());
            let new = change.after.timer_instants();
            let timer = |kind, at| Timer { kind, at, id: change.after.id().to_owned() };
            for ((kind, old), (_, new)) in old.into_iter().zip(new).filter(|(old, new)| old.1 != new.1) {
                timers.extend(old.map(|at| Effect::Disarm(timer(kind, at))));
                timers.extend(new.map(|at| Effect::Arm(timer(kind, at))));
            }
            puts.push(Effect::Put(change.after));
        }
        let mut effects = puts;
        for (id, after) in self.schedules {
            let before = self.view.schedule(&id);
            timers.extend(before.and_then(|old| old.timer()).map(Effect::Disarm));
            timers.extend(after.as_ref().and_then(|new| new.timer()).map(Effect::Arm));
            effects.push(after.map_or(Effect::DropSchedule(id), Effect::PutSchedule));
        }
        effects.extend(timers);
        for (key, message) in self.messages {
            match message {
                Some(message) => effects.push(Effect::Send(message)),
                None if self.view.queued(&key).is_some() => effects.push(Effect::Retract(key)),
                None => {}
            }
        }
        effects
    }
}

/// The bytes of a promise, near enough to bound a response.
fn weight(promise: &Promise) -> usize {
    let tags: usize = promise.tags.iter().map(|(name, value)| name.len() + value.len()).sum();
    promise.id.len() + tags + promise.param.bytes() + promise.value.bytes()
}
