//! What the engine's one mutex protects: live state, the open commit group, and how to take both back.

use crate::engine::audit::Audit;
use crate::engine::counts::Counts;
use crate::engine::delivery::{Delivery, Flight, Given, Landing};
use crate::engine::evidence::{Records, RecordsUndo};
use crate::engine::meters::Meters;
use crate::engine::places::Places;
use crate::engine::residence::Leaving;
use crate::engine::{Entry, Guard, holds};
use base::{Digest, Timestamp};
use protocol::{
    Config, Effect, Memory, Message, Request, Response, Row, Schedule, TaskRef, TaskState, View as _, Violation,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use store::{Batch, Contents, ScopeLease};
use tokio::sync::oneshot;

/// Completes with true once the group is durable, with false if it failed.
pub(super) type Waiter = oneshot::Sender<bool>;

/// Whether writes are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Writable,
    /// The last commit failed and the store is not open again yet.
    Refusing,
}

/// What to tell whom after a group has ended.
#[derive(Debug, Default)]
pub(super) struct Finished {
    /// The background task has something to do: messages to deliver, or a timer before its next round.
    pub(super) stir: bool,
    /// What the group was made of, to be dropped outside the lock.
    pub(super) spent: Option<Group>,
    pub(super) durable: Vec<Waiter>,
    pub(super) failed: Vec<Waiter>,
    pub(super) settled: Vec<oneshot::Sender<()>>,
}

/// What a row was before each commit group that changed it, oldest first; `None` if it did not exist.
pub(super) type Images = Vec<(u64, Option<Arc<Row>>)>;

/// One change that is in memory and not yet durable.
pub(super) enum Undo {
    Protocol(protocol::Undo),
    /// A promise was forgotten that lay at this place.
    Forgotten(String, u64),
    Memory(Box<Memory>),
    Records(RecordsUndo),
}

/// A change applied to memory that may still be taken back without a trace.
pub(super) struct Staged {
    effects: Vec<Effect>,
    undo: protocol::Undo,
}

/// The changes of one transaction to be.
#[derive(Default)]
pub(super) struct Group {
    rows: BTreeMap<u64, Arc<Row>>,
    outbox: BTreeMap<u64, Message>,
    schedules: BTreeMap<String, Option<Arc<Schedule>>>,
    pub(super) batch: Batch,
    pub(super) undo: Vec<Undo>,
    /// The rows whose durable image is another, or was when they were changed, each with whether it may leave memory.
    pub(super) touched: Vec<(String, bool)>,
    /// What the group changes in the counts of rows.
    change: Counts,
    /// Whether it owes messages.
    sends: bool,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("rows", &self.touched.len()).finish_non_exhaustive()
    }
}

pub(super) struct Core {
    pub(super) memory: Memory,
    pub(super) records: Records,
    pub(super) delivery: Delivery,
    pub(super) health: Health,
    pub(super) audit: Audit,
    pub(super) meters: Meters,
    /// Why writes are refused, for people.
    pub(super) trouble: Option<String>,
    config: Config,
    /// Row number of every promise, in memory or not.
    pub(super) places: Places,
    /// What settled and is still in memory, in the order in which it may leave.
    pub(super) leaving: Leaving,
    next_seq: u64,
    pub(super) open: Group,
    committing: Option<Group>,
    /// The number of the open group; groups below the committing one are durable.
    pub(super) epoch: u64,
    durable: u64,
    durable_entries: u64,
    /// Durable rows by state.
    counts: Counts,
    committing_entries: u64,
    /// INVARIANT: for every row changed since the durable group, what it was before each of those groups.
    pub(super) overlay: HashMap<String, Images>,
    waiters: BTreeMap<u64, Vec<Waiter>>,
    settled: HashMap<String, Vec<oneshot::Sender<()>>>,
    /// When the background task looks at the timers next, if nobody stirs it.
    pub(super) next_round: Timestamp,
}

impl Core {
    pub(super) fn load(contents: Contents, config: Config, now: Timestamp) -> Core {
        let mut core = Core {
            memory: Memory::default(),
            records: Records::default(),
            delivery: Delivery::default(),
            health: Health::Writable,
            audit: Audit::default(),
            meters: Meters::default(),
            trouble: None,
            config,
            places: Places::default(),
            leaving: Leaving::default(),
            next_seq: 0,
            open: Group::default(),
            committing: None,
            epoch: 1,
            durable: 0,
            durable_entries: 0,
            counts: Counts::default(),
            committing_entries: 0,
            overlay: HashMap::new(),
            waiters: BTreeMap::new(),
            settled: HashMap::new(),
            next_round: now,
        };
        core.adopt(contents, now);
        core
    }

    /// Makes memory what the store holds; connections and waiters stay.
    fn adopt(&mut self, contents: Contents, now: Timestamp) {
        self.records = Records::load(&contents);
        self.durable_entries = self.records.len();
        self.places = Places::default();
        self.leaving.clear();
        self.overlay.clear();
        self.counts = Counts::of(contents.rows.iter().map(|(_, row)| row));
        let mut rows = Vec::with_capacity(contents.rows.len());
        for (seq, mut row) in contents.rows {
            rearm(&mut row, now);
            self.next_seq = self.next_seq.max(seq + 1);
            self.places.add(row.id(), seq);
            rows.push(row);
        }
        for (seq, id) in contents.cold {
            self.next_seq = self.next_seq.max(seq + 1);
            self.places.add(&id, seq);
        }
        let outbox = contents.outbox.iter().map(|(_, message)| message.clone());
        self.memory = Memory::load(rows, outbox, contents.schedules);
        self.delivery.reload_letters(contents.dead);
        self.delivery.reload(contents.outbox, now);
    }

    // ---- requests

    /// Applies a request to memory. Nothing is recorded yet: [`Core::unstage`] takes it back.
    pub(super) fn stage(&mut self, request: &Request, now: Timestamp) -> (Response, Staged) {
        if let Some(refusal) = self.quarantine_refusal(request) {
            return (refusal, self.stage_effects(Vec::new()));
        }
        let applied = protocol::apply(&self.memory, request, now, &self.config);
        let staged = self.stage_effects(applied.effects);
        let broken = self.audit_step(&staged, now);
        if broken.is_empty() {
            return (applied.response, staged);
        }
        self.unstage(staged);
        let told = format!("the request would break an invariant ({}) and was not performed", names(&broken));
        self.quarantine(broken);
        (Response::refuse(500, told), self.stage_effects(Vec::new()))
    }

    fn stage_effects(&mut self, effects: Vec<Effect>) -> Staged {
        let undo = self.memory.commit(&effects);
        Staged { effects, undo }
    }

    pub(super) fn unstage(&mut self, staged: Staged) {
        self.memory.undo(staged.undo);
    }

    /// Leaves staged changes in memory alone: they are not stored, and a restart makes up for them.
    pub(super) fn keep(staged: Staged) {
        drop(staged);
    }

    /// Puts staged changes into the open group.
    pub(super) fn record(&mut self, staged: Staged, now: Timestamp) {
        if staged.effects.is_empty() {
            return;
        }
        for (row, before) in staged.undo.rows() {
            let id = row.id();
            self.open.change.change(before.map(AsRef::as_ref), Some(&**row));
            let place = if before.is_some() { self.places.get(id) } else { None };
            let seq = place.unwrap_or_else(|| {
                self.next_seq += 1;
                self.places.add(id, self.next_seq - 1);
                self.next_seq - 1
            });
            let images = match self.overlay.get_mut(id) {
                Some(images) => images,
                None => self.overlay.entry(id.to_owned()).or_default(),
            };
            if images.last().is_none_or(|(epoch, _)| *epoch != self.epoch) {
                images.push((self.epoch, before.cloned()));
                self.open.touched.push((id.to_owned(), row.can_leave_memory()));
            } else if row.can_leave_memory() {
                self.open.touched.push((id.to_owned(), true));
            }
            self.open.rows.insert(seq, Arc::clone(row));
        }
        self.open.undo.push(Undo::Protocol(staged.undo));
        for effect in staged.effects {
            match effect {
                Effect::Send(message) => {
                    self.open.sends = true;
                    let (seq, replaced) = self.delivery.add(message.clone(), self.epoch, now);
                    self.open.outbox.insert(seq, message);
                    self.open.drop_message(replaced);
                }
                Effect::Retract(key) => self.open.drop_message(self.delivery.retract(&key)),
                Effect::PutSchedule(schedule) => {
                    self.open.schedules.insert(schedule.id.clone(), Some(schedule));
                }
                Effect::DropSchedule(id) => {
                    self.open.schedules.insert(id, None);
                }
                // Rows were taken above; timers follow from them and are not stored.
                Effect::Put(_) | Effect::Arm(_) | Effect::Disarm(_) => {}
            }
        }
    }

    /// Settles and re-offers what is due; true if anything changed.
    pub(super) fn tick(&mut self, now: Timestamp, limit: u32) -> bool {
        let effects = protocol::tick(&self.memory, now, limit, &self.config);
        let staged = self.stage_effects(effects);
        let broken = self.audit_step(&staged, now);
        if broken.is_empty() {
            let changed = !staged.is_empty();
            self.record(staged, now);
            return changed;
        }
        self.unstage(staged);
        if limit > 1 {
            // One after the other, until only what breaks something is left.
            return self.tick(now, 1);
        }
        let timer = self.memory.first_due(now);
        let named = timer.into_iter().flat_map(|id| broken.iter().map(move |one| (id.clone(), one.invariant)));
        let named = named.map(|(id, invariant)| Violation { invariant, id }).collect();
        self.quarantine(named);
        self.quarantine(broken);
        false
    }

    /// The promises that the next such sweep may create again: what has to be in memory for it.
    pub(super) fn firings(&self, now: Timestamp, limit: u32) -> Vec<String> {
        protocol::firings_due(&self.memory, now, usize::try_from(limit).unwrap_or(usize::MAX))
    }

    /// Ends the leases of a worker that went away and did not come back.
    pub(super) fn reclaim(&mut self, held: &[TaskRef], now: Timestamp) -> bool {
        let effects = protocol::reclaim(&self.memory, held, now, &self.config);
        self.record_effects(effects, now)
    }

    fn record_effects(&mut self, effects: Vec<Effect>, now: Timestamp) -> bool {
        let changed = !effects.is_empty();
        let staged = self.stage_effects(effects);
        self.record(staged, now);
        changed
    }

    /// Whether there is a promise that belongs to the server.
    pub(super) fn holds_reserved(&self) -> bool {
        ["inc", "hold"].iter().any(|root| self.memory.children(root).any(|promise| protocol::is_reserved(&promise.id)))
    }

    /// Takes away every promise, task, schedule and message. Nothing may be on its way to the disk.
    pub(super) fn empty(&mut self, now: Timestamp) {
        let places = std::mem::take(&mut self.places);
        self.open.batch.rows_gone.extend(places.all());
        self.open.change = self.counts.negated();
        self.open.batch.schedules_gone.extend(self.memory.schedules().map(|schedule| schedule.id.clone()));
        self.open.batch.outbox_gone.extend(self.delivery.numbers());
        for seq in self.delivery.exhume_all() {
            self.open.drop_letter(seq);
        }
        let memory = std::mem::take(&mut self.memory);
        self.open.undo.push(Undo::Memory(Box::new(memory)));
        self.delivery.reload(Vec::new(), now);
    }

    // ---- evidence, leases, facts

    pub(super) fn append(&mut self, entry: Entry) -> u64 {
        let (stored, undo) = self.records.append(entry);
        let index = stored.index;
        self.open.batch.entries.push(stored);
        self.open.undo.push(Undo::Records(undo));
        index
    }

    pub(super) fn keep_blob(&mut self, bytes: Vec<u8>) {
        self.open.batch.blobs.push((Digest::of(&bytes), Arc::from(bytes)));
    }

    pub(super) fn take_lease(&mut self, lease: &ScopeLease) {
        let (undo, (key, value)) = self.records.take(lease);
        self.open.undo.push(Undo::Records(undo));
        self.open.batch.leases_gone.retain(|incident| *incident != lease.incident);
        self.open.batch.leases.retain(|other| other.incident != lease.incident);
        self.open.batch.leases.push(lease.clone());
        self.open.batch.meta.push((key, value));
    }

    pub(super) fn release_lease(&mut self, incident: &str) -> bool {
        let Some(undo) = self.records.release(incident) else { return false };
        self.open.undo.push(Undo::Records(undo));
        self.open.batch.leases.retain(|other| other.incident != incident);
        self.open.batch.leases_gone.push(incident.to_owned());
        true
    }

    pub(super) fn put_meta(&mut self, key: &str, value: Vec<u8>) {
        let undo = self.records.put_meta(key, value.clone(), self.epoch);
        self.open.undo.push(Undo::Records(undo));
        self.open.batch.meta.push((key.to_owned(), value));
    }

    /// Whether a guard holds now. Fails closed: what cannot be found does not hold.
    pub(super) fn holds(&self, guard: &Guard, now: Timestamp) -> bool {
        match guard {
            Guard::Hold { scopes, is_undo } => {
                let mut promises = self.memory.children(holds::PREFIX);
                !promises.any(|promise| holds::stops(promise, scopes, *is_undo))
            }
            Guard::Holds { version } => {
                holds::version(self.memory.children(holds::PREFIX).map(AsRef::as_ref)) == *version
            }
            Guard::Lease { incident, epoch } => self.records.lease(incident).is_some_and(|held| held.epoch == *epoch),
            Guard::Task { id, version } => self.is_held(id, *version, now),
            Guard::Chain { incident, seq } => self.records.next_seq(incident) == *seq,
            Guard::Bound { key, digest } => {
                self.records.meta(key).is_some_and(|(_, value)| Digest::of(value) == *digest)
            }
        }
    }

    fn is_pending(&self, id: &str) -> bool {
        self.memory.row(id).is_some_and(|row| !row.promise.is_settled())
    }

    fn is_held(&self, id: &str, version: u64, now: Timestamp) -> bool {
        let Some(row) = self.memory.row(id) else { return false };
        let Some(task) = &row.task else { return false };
        task.state == TaskState::Acquired && task.version == version && task.lease_at.is_some_and(|lease| lease > now)
    }

    // ---- the durable view

    /// The row as of the last durable group.
    pub(super) fn durable_row(&self, id: &str) -> Option<Arc<Row>> {
        match self.images(id).and_then(|images| images.first()) {
            Some((_, image)) => image.clone(),
            None => self.memory.row(id),
        }
    }

    /// What the row was before the groups that changed it and are not durable.
    fn images(&self, id: &str) -> Option<&Images> {
        if self.overlay.is_empty() {
            return None;
        }
        self.overlay.get(id)
    }

    pub(super) fn durable_below(&self, prefix: &str) -> Vec<Arc<Row>> {
        self.memory.children(prefix).filter_map(|promise| self.durable_row(&promise.id)).collect()
    }

    pub(super) fn durable_entries(&self) -> u64 {
        self.durable_entries
    }

    pub(super) fn profile(&self) -> protocol::Profile {
        self.config.profile
    }

    /// Durable rows by state; what settled is known by its number, whether it is in memory or not.
    pub(super) fn counts(&self) -> Counts {
        let mut pending = self.counts;
        self.committing.iter().chain([&self.open]).for_each(|group| pending.add(&group.change));
        self.counts.with_all(&pending, self.places.len())
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    /// The group that must be durable before these rows may be shown as memory has them; `None` if they may now.
    pub(super) fn epoch_of<'a>(&self, ids: impl Iterator<Item = &'a str>) -> Option<u64> {
        let newest = |id| self.images(id).and_then(|images| images.last()).map(|(epoch, _)| *epoch);
        ids.filter_map(newest).max()
    }

    /// The newest group that holds a change; `None` if everything is durable.
    pub(super) fn newest_epoch(&self) -> Option<u64> {
        if self.open.is_empty() { self.committing.as_ref().map(|_| self.epoch - 1) } else { Some(self.epoch) }
    }

    // ---- groups

    /// A receiver that completes when group `epoch` has ended.
    pub(super) fn wait_for(&mut self, epoch: u64) -> oneshot::Receiver<bool> {
        let (sender, receiver) = oneshot::channel();
        self.waiters.entry(epoch).or_default().push(sender);
        receiver
    }

    pub(super) fn wait_open(&mut self) -> oneshot::Receiver<bool> {
        self.wait_for(self.epoch)
    }

    /// A receiver that completes when the promise is durably settled; `None` if it is or does not exist.
    pub(super) fn wait_settled(&mut self, id: &str) -> Option<oneshot::Receiver<()>> {
        let row = self.memory.row(id)?;
        let durable = self.durable_row(id);
        if row.promise.is_settled() && durable.is_some_and(|row| row.promise.is_settled()) {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        let waiting = self.settled.entry(id.to_owned()).or_default();
        waiting.retain(|other| !other.is_closed());
        waiting.push(sender);
        Some(receiver)
    }

    /// The open group as a batch, if there is anything in it and nothing is being committed.
    pub(super) fn close_group(&mut self) -> Option<Batch> {
        if self.open.is_empty() || self.health != Health::Writable {
            return None;
        }
        let mut group = std::mem::take(&mut self.open);
        let mut batch = std::mem::take(&mut group.batch);
        batch.rows = std::mem::take(&mut group.rows).into_iter().collect();
        batch.outbox = std::mem::take(&mut group.outbox).into_iter().collect();
        for (id, schedule) in std::mem::take(&mut group.schedules) {
            match schedule {
                Some(schedule) => batch.schedules.push(schedule),
                None => batch.schedules_gone.push(id),
            }
        }
        self.committing = Some(group);
        self.committing_entries = self.records.len();
        self.epoch += 1;
        Some(batch)
    }

    /// The committing group is durable.
    pub(super) fn finish(&mut self) -> Finished {
        let mut finished = Finished::default();
        let Some(group) = self.committing.take() else { return finished };
        self.durable = self.epoch - 1;
        self.durable_entries = self.committing_entries;
        self.counts.add(&group.change);
        for (id, may_leave) in &group.touched {
            if let Some(images) = self.overlay.get_mut(id) {
                images.retain(|(epoch, _)| *epoch > self.durable);
                if images.is_empty() {
                    self.overlay.remove(id);
                }
            }
            if *may_leave && self.memory.row(id).is_some_and(|row| row.can_leave_memory()) {
                self.leaving.push(id);
            }
            let waits = !self.settled.is_empty() && self.settled.contains_key(id);
            if waits && self.durable_row(id).is_some_and(|row| row.promise.is_settled()) {
                finished.settled.extend(self.settled.remove(id).unwrap_or_default());
            }
        }
        self.let_go();
        finished.durable = self.waiters.remove(&self.durable).unwrap_or_default();
        // Workers are told by whoever made their messages durable: one wake less than by the background task.
        self.delivery.release(self.durable);
        finished.stir = group.sends || self.memory.next_due().is_some_and(|due| due < self.next_round);
        finished.spent = Some(group);
        finished
    }

    /// The committing group failed: it and the open one are taken back, newest change first.
    pub(super) fn fail(&mut self, now: Timestamp) -> Finished {
        let open = std::mem::take(&mut self.open);
        let committing = self.committing.take().unwrap_or_default();
        for undo in open.undo.into_iter().rev().chain(committing.undo.into_iter().rev()) {
            match undo {
                Undo::Protocol(undo) => self.memory.undo(undo),
                Undo::Memory(memory) => self.memory = *memory,
                Undo::Forgotten(id, seq) => self.places.add(&id, seq),
                Undo::Records(undo) => self.records.undo(undo),
            }
        }
        for (id, images) in self.overlay.drain() {
            // What was created in a failed group has no place any more.
            if images.first().is_some_and(|(_, image)| image.is_none())
                && let Some(seq) = self.places.get(&id)
            {
                self.places.remove(&id, seq);
            }
        }
        // Nothing is delivered until the store is open again, and then with the store's own numbers.
        let owed = self.memory.queue().map(|(place, message)| (place, message.clone())).collect();
        self.delivery.reload(owed, now);
        self.delivery.pause();
        self.delivery.take_back_letters(self.durable);
        self.health = Health::Refusing;
        self.epoch += 1;
        let failed = std::mem::take(&mut self.waiters).into_values().flatten().collect();
        Finished { failed, stir: true, ..Finished::default() }
    }

    /// The store was opened anew: what it holds is what happened.
    pub(super) fn replace(&mut self, contents: Contents, now: Timestamp) -> Finished {
        self.adopt(contents, now);
        self.health = Health::Writable;
        self.trouble = None;
        let done: Vec<String> = self.settled.keys().filter(|id| !self.is_pending(id)).cloned().collect();
        let settled = done.iter().filter_map(|id| self.settled.remove(id)).flatten().collect();
        Finished { settled, stir: true, ..Finished::default() }
    }

    // ---- delivery

    /// Hands over what has become durable or has rested; counts as received what was sent long enough ago; gives up
    /// what was lost too often; takes the tasks of workers that did not come back. True if anything changed that is to be made durable.
    pub(super) fn deliver(&mut self, now: Timestamp) -> bool {
        if self.health != Health::Writable {
            return false;
        }
        self.delivery.release(self.durable);
        self.delivery.wake_rested(now);
        let mut changed = false;
        for given in self.delivery.spent(now) {
            changed |= self.part_with(given, now);
        }
        for message in self.delivery.received(now) {
            changed |= self.retract(&message, now);
        }
        let abandoned = self.delivery.abandoned(now);
        changed | self.reclaim(&abandoned, now)
    }

    /// The posts that are to be made now.
    pub(super) fn launch(&mut self, now: Timestamp) -> Vec<Flight> {
        if self.health == Health::Writable { self.delivery.launch(now) } else { Vec::new() }
    }

    /// Takes the end of a post. True if the outbox changed.
    pub(super) fn land(&mut self, flight: u64, landing: &Landing, now: Timestamp, random: u64) -> bool {
        let given = self.delivery.land(flight, landing, now, random);
        given.is_some_and(|given| self.part_with(given, now))
    }

    /// Gives up messages that nobody came for, `limit` at most; answers how many.
    pub(super) fn give_up(&mut self, now: Timestamp, limit: usize) -> usize {
        let given_up = self.delivery.give_up(now, limit);
        given_up.into_iter().filter(|given| self.part_with(given.clone(), now)).count()
    }

    /// Queues a dead letter once more; false if there is none of this number.
    pub(super) fn resend(&mut self, seq: u64, now: Timestamp) -> bool {
        let Some(letter) = self.delivery.exhume(seq) else { return false };
        self.open.drop_letter(seq);
        self.record_effects(vec![Effect::Send((*letter.message).clone())], now)
    }

    /// Takes a message out of the outbox and, if it was given up, keeps it among the dead letters.
    fn part_with(&mut self, given: Given, now: Timestamp) -> bool {
        let Given { seq, message, dead } = given;
        let changed = self.retract(&message, now);
        if let Some(letter) = dead.filter(|_| changed) {
            let forgotten = self.delivery.bury(seq, self.epoch, letter.clone());
            self.open.batch.dead.push((seq, letter));
            if let Some(forgotten) = forgotten {
                self.open.drop_letter(forgotten);
            }
        }
        changed
    }

    fn retract(&mut self, message: &Message, now: Timestamp) -> bool {
        let effects = protocol::delivered(&self.memory, message);
        self.record_effects(effects, now)
    }
}

impl Staged {
    /// Each changed row with what it was before; `None` if it did not exist.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&Arc<Row>, Option<&Arc<Row>>)> {
        self.undo.rows()
    }

    /// Whether nothing would change.
    pub(super) fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }
}

impl Group {
    fn is_empty(&self) -> bool {
        self.undo.is_empty() && self.batch.blobs.is_empty()
    }

    /// Forgets a message: one of this group is never written, an older one is deleted.
    fn drop_message(&mut self, seq: Option<u64>) {
        if let Some(seq) = seq
            && self.outbox.remove(&seq).is_none()
        {
            self.batch.outbox_gone.push(seq);
        }
    }

    /// Forgets a dead letter: one of this group is never written, an older one is deleted.
    fn drop_letter(&mut self, seq: u64) {
        match self.batch.dead.iter().position(|(other, _)| *other == seq) {
            Some(at) => drop(self.batch.dead.remove(at)),
            None => self.batch.dead_gone.push(seq),
        }
    }
}

fn names(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Gives an acquired task its full lease again.
///
/// WHY: heartbeats are not stored, so what a restart finds may be older than what was promised. A lease is only ever
/// extended by this.
fn rearm(row: &mut Row, now: Timestamp) {
    let Some(task) = row.task.as_mut() else { return };
    if let (TaskState::Acquired, Some(ttl), Some(lease_at)) = (task.state, task.ttl, task.lease_at) {
        Arc::make_mut(task).lease_at = Some(lease_at.max(now.plus(ttl)));
    }
}
