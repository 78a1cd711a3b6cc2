//! The live state an engine keeps: rows, indexes, timers and the outbox, with undo.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use base::Timestamp;

use crate::request::TaskRef;
use crate::schedule::Schedule;
use crate::state::{Message, MessageKey, Promise, Row, Task, Timer, TimerKind};
use crate::tags::BRANCH;
use crate::view::{Effect, View};

/// Rows in memory with every index the machine and its delivery need; every look-up is O(log n).
#[derive(Clone, Debug, Default)]
pub struct Memory {
    rows: BTreeMap<String, Arc<Row>>,
    schedules: BTreeMap<String, Arc<Schedule>>,
    timers: BTreeSet<Timer>,
    quarantined: BTreeSet<String>,
    outbox: BTreeMap<MessageKey, Queued>,
    order: BTreeMap<u64, MessageKey>,
    next_seq: u64,
    // (branch, id), (awaiter, awaited) and (pid, id).
    branches: BTreeSet<(String, String)>,
    awaiting: BTreeSet<(String, String)>,
    holders: BTreeSet<(String, String)>,
}

#[derive(Clone, Debug)]
struct Queued {
    seq: u64,
    message: Message,
}

/// What a commit replaced, for [`Memory::undo`].
#[derive(Debug)]
#[must_use = "an undo that is dropped cannot be applied"]
pub struct Undo(Vec<Replaced>);

#[derive(Debug)]
enum Replaced {
    /// The row as it was put, and what stood there before.
    Row(Arc<Row>, Option<Arc<Row>>),
    Queued(MessageKey, Option<Queued>),
    Armed(Timer),
    Disarmed(Timer),
    Schedule(String, Option<Arc<Schedule>>),
}

impl Undo {
    /// The rows that the commit put, each with what stood there before.
    pub fn rows(&self) -> impl Iterator<Item = (&Arc<Row>, Option<&Arc<Row>>)> {
        self.0.iter().filter_map(|replaced| match replaced {
            Replaced::Row(after, before) => Some((after, before.as_ref())),
            Replaced::Queued(..) | Replaced::Armed(_) | Replaced::Disarmed(_) | Replaced::Schedule(..) => None,
        })
    }
}

impl Memory {
    /// The state of a store: its rows, and its outbox in the order it was queued. Timers follow from
    /// the rows and the schedules.
    #[must_use]
    pub fn load(
        rows: impl IntoIterator<Item = Row>,
        outbox: impl IntoIterator<Item = Message>,
        schedules: impl IntoIterator<Item = Schedule>,
    ) -> Memory {
        let mut memory = Memory::default();
        let mut timers = Vec::new();
        for schedule in schedules {
            timers.extend(schedule.timer());
            memory.schedules.insert(schedule.id.clone(), Arc::new(schedule));
        }
        for row in rows {
            timers.extend(row.timers());
            memory.put(&Arc::new(row));
        }
        // At once: rows come in the order of their creation, so that most of these are in order already.
        memory.timers = timers.into_iter().collect();
        for message in outbox {
            memory.enqueue(message);
        }
        memory
    }

    /// Takes over the effects of one decision. Commits are undone newest first.
    pub fn commit(&mut self, effects: &[Effect]) -> Undo {
        let mut replaced = Vec::with_capacity(effects.len());
        for effect in effects {
            match effect {
                Effect::Put(row) => {
                    let before = self.put(row);
                    replaced.push(Replaced::Row(Arc::clone(row), before));
                }
                Effect::Send(message) => {
                    let before = self.enqueue(message.clone());
                    replaced.push(Replaced::Queued(message.key(), before));
                }
                Effect::Retract(key) => {
                    let before = self.dequeue(key);
                    replaced.push(Replaced::Queued(key.clone(), before));
                }
                Effect::Arm(timer) => {
                    if self.timers.insert(timer.clone()) && timer.kind == TimerKind::Schedule {
                        replaced.push(Replaced::Armed(timer.clone()));
                    }
                }
                Effect::Disarm(timer) => {
                    if self.timers.remove(timer) && timer.kind == TimerKind::Schedule {
                        replaced.push(Replaced::Disarmed(timer.clone()));
                    }
                }
                Effect::PutSchedule(schedule) => {
                    let before = self.schedules.insert(schedule.id.clone(), Arc::clone(schedule));
                    replaced.push(Replaced::Schedule(schedule.id.clone(), before));
                }
                Effect::DropSchedule(id) => {
                    let before = self.schedules.remove(id);
                    replaced.push(Replaced::Schedule(id.clone(), before));
                }
            }
        }
        Undo(replaced)
    }

    /// Takes a commit back; undo the newest commit first.
    pub fn undo(&mut self, undo: Undo) {
        for replaced in undo.0.into_iter().rev() {
            match replaced {
                Replaced::Row(after, before) => self.put_back(after.id(), before),
                Replaced::Queued(key, before) => {
                    self.dequeue(&key);
                    if let Some(queued) = before {
                        self.order.insert(queued.seq, key.clone());
                        self.outbox.insert(key, queued);
                    }
                }
                Replaced::Armed(timer) => {
                    self.timers.remove(&timer);
                }
                Replaced::Disarmed(timer) => {
                    self.timers.insert(timer);
                }
                Replaced::Schedule(id, before) => {
                    match before {
                        Some(schedule) => self.schedules.insert(id, schedule),
                        None => self.schedules.remove(&id),
                    };
                }
            }
        }
    }

    /// A promise.
    #[must_use]
    pub fn promise(&self, id: &str) -> Option<Arc<Promise>> {
        self.rows.get(id).map(|row| Arc::clone(&row.promise))
    }

    /// Whether a promise is there.
    #[must_use]
    pub fn contains(&self, id: &str) -> bool {
        self.rows.contains_key(id)
    }

    /// A task.
    #[must_use]
    pub fn task(&self, id: &str) -> Option<Arc<Task>> {
        self.rows.get(id).and_then(|row| row.task.clone())
    }

    /// The promises whose ids start with `prefix`, by id.
    pub fn children<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<Promise>> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.rows.range::<str, _>(from).take_while(move |(id, _)| id.starts_with(prefix)).map(|(_, row)| &row.promise)
    }

    /// How many promises there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Lets go of a row that can leave memory; false if it is not there or cannot.
    pub fn evict(&mut self, id: &str) -> bool {
        let may = self.rows.get(id).is_some_and(|row| row.can_leave_memory());
        if may {
            self.take_out(id);
        }
        may
    }

    /// Takes a row back that had left memory. It must not be there.
    pub fn admit(&mut self, row: Row) {
        // INVARIANT: a row that left never changed meanwhile, and calls for no timer.
        assert!(row.can_leave_memory() && !self.rows.contains_key(row.id()), "only what had left comes back");
        self.put(&Arc::new(row));
    }

    /// Leaves the timers of these ids alone from now on, and takes no notice of them when they are due.
    pub fn quarantine(&mut self, id: &str) {
        self.quarantined.insert(id.to_owned());
    }

    /// The ids in quarantine.
    #[must_use]
    pub fn quarantined(&self) -> &BTreeSet<String> {
        &self.quarantined
    }

    /// Every schedule, by id.
    pub fn schedules(&self) -> impl Iterator<Item = &Arc<Schedule>> {
        self.schedules.values()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// When the next timer is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let first = |kind| self.timers_of(kind).next().map(|timer| timer.at);
        [TimerKind::Promise, TimerKind::Retry, TimerKind::Lease, TimerKind::Schedule]
            .into_iter()
            .filter_map(first)
            .min()
    }

    /// The id of the timer that the next sweep applies first, if one is due.
    #[must_use]
    pub fn first_due(&self, now: Timestamp) -> Option<String> {
        let kinds = [TimerKind::Promise, TimerKind::Retry, TimerKind::Lease, TimerKind::Schedule];
        kinds.into_iter().find_map(|kind| self.due(kind, now, 1).pop())
    }

    /// The queued messages in the order they were queued, each with its place in it.
    pub fn queue(&self) -> impl Iterator<Item = (u64, &Message)> {
        self.order.iter().filter_map(|(seq, key)| self.outbox.get(key).map(|queued| (*seq, &queued.message)))
    }

    /// The queued messages from a place in the order on: what a pump has not seen yet.
    pub fn queue_from(&self, seq: u64) -> impl Iterator<Item = (u64, &Message)> {
        self.order.range(seq..).filter_map(|(seq, key)| self.outbox.get(key).map(|queued| (*seq, &queued.message)))
    }

    /// The tasks a worker holds, each at its version.
    #[must_use]
    pub fn held_by(&self, pid: &str) -> Vec<TaskRef> {
        let task = |(id, version)| TaskRef { id, version };
        of(&self.holders, pid).filter_map(|id| self.task(id).map(|held| task((id.clone(), held.version)))).collect()
    }

    #[cfg(any(test, feature = "testkit"))]
    pub(crate) fn indexes(&self) -> [&BTreeSet<(String, String)>; 3] {
        [&self.branches, &self.awaiting, &self.holders]
    }

    fn put(&mut self, row: &Arc<Row>) -> Option<Arc<Row>> {
        let before = self.rows.insert(row.id().to_owned(), Arc::clone(row));
        if let Some(before) = &before {
            self.unindex(before, Some(row));
        }
        self.index(row, before.as_deref());
        before
    }

    /// Takes a put back. Timers follow from the row as it stands now: a lease may have been extended since.
    fn put_back(&mut self, id: &str, before: Option<Arc<Row>>) {
        for timer in self.rows.get(id).map(|row| row.timers()).unwrap_or_default() {
            self.timers.remove(&timer);
        }
        match before {
            Some(before) => {
                self.timers.extend(before.timers());
                self.put(&before);
            }
            None => self.take_out(id),
        }
    }

    fn take_out(&mut self, id: &str) {
        if let Some(gone) = self.rows.remove(id) {
            self.unindex(&gone, None);
        }
    }

    /// Takes `row` out of every index in which `successor` is not found again.
    fn unindex(&mut self, row: &Row, successor: Option<&Row>) {
        for awaiter in &row.callbacks {
            if !successor.is_some_and(|next| next.callbacks.contains(awaiter)) {
                self.awaiting.remove(&(awaiter.clone(), row.id().to_owned()));
            }
        }
        if successor.is_none()
            && let Some(branch) = row.promise.tag(BRANCH)
        {
            self.branches.remove(&(branch.to_owned(), row.id().to_owned()));
        }
        if let Some(pid) = holder(row)
            && successor.and_then(holder) != Some(pid)
        {
            self.holders.remove(&(pid.to_owned(), row.id().to_owned()));
        }
    }

    /// Puts `row` into every index in which `predecessor` is not found already.
    fn index(&mut self, row: &Row, predecessor: Option<&Row>) {
        for awaiter in &row.callbacks {
            if !predecessor.is_some_and(|last| last.callbacks.contains(awaiter)) {
                self.awaiting.insert((awaiter.clone(), row.id().to_owned()));
            }
        }
        if predecessor.is_none()
            && let Some(branch) = row.promise.tag(BRANCH)
        {
            self.branches.insert((branch.to_owned(), row.id().to_owned()));
        }
        if let Some(pid) = holder(row)
            && predecessor.and_then(holder) != Some(pid)
        {
            self.holders.insert((pid.to_owned(), row.id().to_owned()));
        }
    }

    fn enqueue(&mut self, message: Message) -> Option<Queued> {
        let before = self.dequeue(&message.key());
        let seq = self.next_seq;
        self.next_seq += 1;
        self.order.insert(seq, message.key());
        self.outbox.insert(message.key(), Queued { seq, message });
        before
    }

    fn dequeue(&mut self, key: &MessageKey) -> Option<Queued> {
        let queued = self.outbox.remove(key)?;
        self.order.remove(&queued.seq);
        Some(queued)
    }

    fn timers_of(&self, kind: TimerKind) -> impl Iterator<Item = &Timer> {
        let first = Timer { kind, at: Timestamp(i64::MIN), id: String::new() };
        self.timers.range(first..).take_while(move |timer| timer.kind == kind)
    }
}

impl View for Memory {
    fn row(&self, id: &str) -> Option<Arc<Row>> {
        self.rows.get(id).cloned()
    }

    fn awaited_by(&self, awaiter: &str) -> Vec<String> {
        of(&self.awaiting, awaiter).cloned().collect()
    }

    fn branch(&self, branch: &str, limit: usize) -> Vec<Arc<Promise>> {
        of(&self.branches, branch).take(limit).filter_map(|id| self.promise(id)).collect()
    }

    fn due(&self, kind: TimerKind, now: Timestamp, limit: usize) -> Vec<String> {
        let due = self.timers_of(kind).take_while(|timer| timer.at <= now);
        let due = due.filter(|timer| self.quarantined.is_empty() || !self.quarantined.contains(&timer.id));
        due.take(limit).map(|timer| timer.id.clone()).collect()
    }

    fn queued(&self, key: &MessageKey) -> Option<Message> {
        self.outbox.get(key).map(|queued| queued.message.clone())
    }

    fn after(&self, id: &str, limit: usize) -> Vec<Arc<Row>> {
        let from = (Bound::Excluded(id), Bound::Unbounded);
        self.rows.range::<str, _>(from).take(limit).map(|(_, row)| Arc::clone(row)).collect()
    }

    fn below(&self, prefix: &str, limit: usize) -> Vec<Arc<Row>> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let below = self.rows.range::<str, _>(from).take_while(|(id, _)| id.starts_with(prefix));
        below.take(limit).map(|(_, row)| Arc::clone(row)).collect()
    }

    fn is_told(&self, id: &str) -> bool {
        let first = MessageKey::Unblock { promise_id: id.to_owned(), address: String::new() };
        let next = self.outbox.range(first..).next();
        next.is_some_and(|(key, _)| matches!(key, MessageKey::Unblock { promise_id, .. } if promise_id == id))
    }

    fn schedule(&self, id: &str) -> Option<Arc<Schedule>> {
        self.schedules.get(id).cloned()
    }

    fn schedule_count(&self) -> usize {
        self.schedules.len()
    }

    fn schedules_after(&self, id: &str, limit: usize) -> Vec<Arc<Schedule>> {
        let from = (Bound::Excluded(id), Bound::Unbounded);
        self.schedules.range::<str, _>(from).take(limit).map(|(_, schedule)| Arc::clone(schedule)).collect()
    }

    fn rows(&self) -> Vec<Arc<Row>> {
        self.rows.values().cloned().collect()
    }

    fn has_timer(&self, timer: &Timer) -> bool {
        self.timers.contains(timer)
    }

    fn timers(&self) -> Vec<Timer> {
        self.timers.iter().cloned().collect()
    }

    fn outbox(&self) -> Vec<Message> {
        self.queue().map(|(_, message)| message.clone()).collect()
    }
}

fn holder(row: &Row) -> Option<&str> {
    row.task.as_ref().and_then(|task| task.pid.as_deref())
}

/// The second halves of the pairs that begin with `first`, in order.
fn of<'a>(pairs: &'a BTreeSet<(String, String)>, first: &'a str) -> impl Iterator<Item = &'a String> {
    pairs.range((first.to_owned(), String::new())..).take_while(move |pair| pair.0 == first).map(|pair| &pair.1)
}
