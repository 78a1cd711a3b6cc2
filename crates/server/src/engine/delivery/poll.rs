//! Workers that hold a stream open: whose inbox a message goes into, and what happens when a stream drops.

use super::{Delivery, Given, Place, State, doubled};
use base::{Millis, Timestamp};
use protocol::{Cast, Message, TaskRef};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::Notify;

/// How long a connection must outlive a frame for the frame to count as received.
pub const ACK_AFTER: Millis = Millis(5_000);
/// LIMIT: connected workers.
pub const CONNECTIONS_MAX: usize = 1_000;
/// LIMIT: messages buffered for one connection.
pub const CONNECTION_BUFFER_MAX: usize = 100;
/// LIMIT: payload bytes after which a stream takes no further message into the same write.
pub const CHUNK_BYTES_MAX: usize = 64 << 10;

/// LIMIT: frames of one unblock; it is given up when the connection of the last one drops too early.
pub const POLL_ATTEMPTS_MAX: u32 = 8;
/// LIMIT: the longest rest of a message whose connections drop.
pub(super) const POLL_REST_MAX: Millis = Millis(30_000);

/// Too many connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many workers are connected (at most {CONNECTIONS_MAX})")]
pub struct TooManyConnections;

#[derive(Debug, Default)]
pub(super) struct Poll {
    lines: BTreeMap<u64, Line>,
    next_line: u64,
    groups: HashMap<String, Group>,
    /// How many connections there are by id, over all groups.
    present: HashMap<String, usize>,
    /// Sent frames in the order in which they count as received: instant and number.
    acks: VecDeque<(Timestamp, u64, u64)>,
    absences: Absences,
    /// Unblocks whose last frame was lost.
    spent: Vec<u64>,
}

/// One connection.
#[derive(Debug)]
struct Line {
    group: String,
    id: String,
    /// LIMIT: [`CONNECTION_BUFFER_MAX`].
    inbox: VecDeque<u64>,
    /// What its stream took, until it counts as received.
    sent: VecDeque<(Timestamp, u64)>,
    wake: Arc<Notify>,
    /// Whether it stands in its group's turn.
    in_turn: bool,
}

#[derive(Debug, Default)]
struct Group {
    /// What any connection of the group may have.
    any: BTreeSet<u64>,
    names: BTreeMap<String, Name>,
    /// The connections with room, the next one first.
    turn: VecDeque<u64>,
}

/// What is addressed to one id of a group.
#[derive(Debug, Default)]
struct Name {
    waiting: BTreeSet<u64>,
    /// Its connections, the first registered first.
    lines: Vec<u64>,
}

/// Workers that went away and may still come back, with the tasks they held.
#[derive(Debug, Default)]
struct Absences {
    by_id: HashMap<String, (Timestamp, Vec<TaskRef>)>,
    ends: BTreeSet<(Timestamp, String)>,
}

impl Line {
    fn has_room(&self) -> bool {
        self.inbox.len() < CONNECTION_BUFFER_MAX
    }
}

impl Poll {
    pub(super) fn connections(&self) -> usize {
        self.lines.len()
    }
}

impl Delivery {
    /// Registers a connection; what waits for it is in its inbox at once. The notice is given whenever more is.
    pub(in crate::engine) fn connect(
        &mut self,
        group: &str,
        id: &str,
    ) -> Result<(u64, Arc<Notify>), TooManyConnections> {
        if self.poll.lines.len() >= CONNECTIONS_MAX {
            return Err(TooManyConnections);
        }
        let line = self.poll.next_line;
        self.poll.next_line += 1;
        let wake = Arc::new(Notify::new());
        let (inbox, sent) = (VecDeque::new(), VecDeque::new());
        let (group_name, id_name, notice) = (group.to_owned(), id.to_owned(), Arc::clone(&wake));
        let entry = Line { group: group_name, id: id_name, inbox, sent, wake: notice, in_turn: true };
        self.poll.lines.insert(line, entry);
        *self.poll.present.entry(id.to_owned()).or_default() += 1;
        self.poll.absences.end(id);
        let joined = self.poll.groups.entry(group.to_owned()).or_default();
        joined.names.entry(id.to_owned()).or_default().lines.push(line);
        joined.turn.push_back(line);
        self.offer_to_name(group, id);
        self.offer_to_any(group);
        Ok((line, wake))
    }

    /// Forgets a connection. What was handed to it and does not count as received yet is queued again: at once, and
    /// after ever longer rests when connections drop again and again.
    pub(in crate::engine) fn disconnect(&mut self, line: u64, now: Timestamp) {
        let Some(gone) = self.poll.lines.remove(&line) else { return };
        if let Some(left) = self.poll.present.get_mut(&gone.id) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.poll.present.remove(&gone.id);
            }
        }
        if let Some(group) = self.poll.groups.get_mut(&gone.group) {
            group.turn.retain(|other| *other != line);
            if let Some(name) = group.names.get_mut(&gone.id) {
                name.lines.retain(|other| *other != line);
            }
        }
        self.desert(&gone.group, &gone.id);
        for seq in gone.sent.into_iter().map(|(_, seq)| seq).chain(gone.inbox) {
            let Some(item) = self.items.get(&seq) else { continue };
            match item.state {
                State::Sent(on) if on == line => self.lose(seq, now),
                State::Assigned(on) if on == line => self.enqueue(seq),
                _ => {}
            }
        }
        self.tidy_group(&gone.group);
    }

    /// Takes back a frame that does not count as received.
    fn lose(&mut self, seq: u64, now: Timestamp) {
        self.away = self.away.saturating_sub(1);
        let Some(item) = self.items.get_mut(&seq) else { return };
        item.error = Some(format!("its stream dropped within {} ms", ACK_AFTER.0));
        // WHY: an execute is never given up. Its task's own timer offers it again.
        if item.attempts >= POLL_ATTEMPTS_MAX && matches!(*item.message, Message::Unblock { .. }) {
            item.state = State::Spent;
            self.poll.spent.push(seq);
        } else if item.attempts <= 1 {
            self.counts.retried += 1;
            self.enqueue(seq);
        } else {
            let until = now.plus(doubled(item.attempts - 1, POLL_REST_MAX));
            self.rest(seq, until);
        }
    }

    /// The unblocks of which every frame was lost. They stay until they are retracted.
    pub(in crate::engine) fn spent(&mut self, now: Timestamp) -> Vec<Given> {
        let spent = std::mem::take(&mut self.poll.spent);
        let item = |seq| self.items.get(&seq).map(|item| Given::dead(seq, item, now));
        spent.into_iter().filter_map(item).collect()
    }

    /// What the stream of a connection is to write next, now counted as sent; empty if nothing waits.
    pub(in crate::engine) fn take(&mut self, line: u64, count_max: usize, now: Timestamp) -> Vec<Arc<Message>> {
        let mut taken = Vec::new();
        let Some(taker) = self.poll.lines.get_mut(&line).filter(|_| !self.is_paused) else { return taken };
        while taker.sent.front().is_some_and(|(until, _)| *until <= now) {
            taker.sent.pop_front();
        }
        let (until, mut bytes) = (now.plus(ACK_AFTER), 0);
        while taken.len() < count_max && bytes < CHUNK_BYTES_MAX {
            let Some(seq) = taker.inbox.pop_front() else { break };
            let Some(item) = self.items.get_mut(&seq) else { continue };
            item.state = State::Sent(line);
            item.attempts = item.attempts.saturating_add(1);
            bytes += payload_bytes(&item.message);
            taken.push(Arc::clone(&item.message));
            taker.sent.push_back((until, seq));
            self.poll.acks.push_back((until, seq, line));
        }
        self.away += taken.len();
        self.counts.sent += taken.len() as u64;
        self.refill(line);
        taken
    }

    /// What was sent long enough ago to count as received. It stays until it is retracted.
    pub(in crate::engine) fn received(&mut self, now: Timestamp) -> Vec<Arc<Message>> {
        let mut received = Vec::new();
        while let Some(&(_, seq, line)) = self.poll.acks.front().filter(|(until, _, _)| *until <= now) {
            self.poll.acks.pop_front();
            let item = self.items.get(&seq).filter(|item| item.state == State::Sent(line));
            received.extend(item.map(|item| Arc::clone(&item.message)));
        }
        received
    }

    /// Whether a worker of this id is connected, in whichever group.
    pub(in crate::engine) fn is_present(&self, id: &str) -> bool {
        self.poll.present.contains_key(id)
    }

    /// Remembers the tasks of a worker that went away, until it comes back or its grace ends.
    pub(in crate::engine) fn leave(&mut self, id: &str, held: Vec<TaskRef>, until: Timestamp) {
        self.poll.absences.end(id);
        self.poll.absences.ends.insert((until, id.to_owned()));
        self.poll.absences.by_id.insert(id.to_owned(), (until, held));
    }

    /// The tasks of the workers whose grace has ended.
    pub(in crate::engine) fn abandoned(&mut self, now: Timestamp) -> Vec<TaskRef> {
        let mut abandoned = Vec::new();
        while let Some((_, id)) = self.poll.absences.ends.first().filter(|(until, _)| *until <= now).cloned() {
            abandoned.extend(self.poll.absences.end(&id));
        }
        abandoned
    }

    /// When the next frames count as received.
    pub(in crate::engine) fn next_ack(&self) -> Option<Timestamp> {
        self.poll.acks.front().map(|(until, _, _)| *until)
    }

    pub(super) fn next_absence(&self) -> Option<Timestamp> {
        self.poll.absences.ends.first().map(|(until, _)| *until)
    }

    /// Empties every inbox and every queue; connections stay.
    pub(super) fn forget_frames(&mut self) {
        self.poll.acks.clear();
        self.poll.spent.clear();
        for group in self.poll.groups.values_mut() {
            group.any.clear();
            group.names.retain(|_, name| {
                name.waiting.clear();
                !name.lines.is_empty()
            });
            group.turn.clear();
        }
        self.poll.groups.retain(|_, group| !group.names.is_empty());
        for (number, line) in &mut self.poll.lines {
            line.inbox.clear();
            line.sent.clear();
            line.in_turn = true;
            if let Some(group) = self.poll.groups.get_mut(&line.group) {
                group.turn.push_back(*number);
            }
        }
    }

    pub(super) fn enqueue_polled(&mut self, seq: u64) {
        let Some(Place::Poll { cast, group, id }) = self.items.get(&seq).map(|item| &item.place) else { return };
        let (group, id) = (group.clone(), id.clone());
        let queue = self.poll.groups.entry(group.clone()).or_default();
        // WHY: without an id there is nobody whom `uni` could mean, and nobody connects under the empty one.
        let named = match (cast, &id) {
            (Cast::Uni, id) => Some(id.clone().unwrap_or_default()),
            (Cast::Any, Some(id)) => queue.is_connected(id).then(|| id.clone()),
            (Cast::Any, None) => None,
        };
        match named {
            Some(id) => {
                queue.names.entry(id.clone()).or_default().waiting.insert(seq);
                self.offer_to_name(&group, &id);
            }
            None => {
                queue.any.insert(seq);
                self.offer_to_any(&group);
            }
        }
    }

    pub(super) fn leave_group(&mut self, seq: u64, group: &str, id: Option<&str>) {
        let Some(queue) = self.poll.groups.get_mut(group) else { return };
        if !queue.any.remove(&seq)
            && let Some(name) = queue.names.get_mut(id.unwrap_or_default())
        {
            name.waiting.remove(&seq);
            if name.is_idle() {
                queue.names.remove(id.unwrap_or_default());
            }
        }
        self.tidy_group(group);
    }

    pub(super) fn leave_inbox(&mut self, seq: u64, line: u64) {
        if let Some(line) = self.poll.lines.get_mut(&line) {
            line.inbox.retain(|other| *other != seq);
        }
        self.refill(line);
    }

    /// Gives a connection with room what waits for it and for its group.
    fn refill(&mut self, number: u64) {
        let Some(line) = self.poll.lines.get_mut(&number).filter(|line| line.has_room()) else { return };
        let (group, id) = (line.group.clone(), line.id.clone());
        if !line.in_turn {
            line.in_turn = true;
            if let Some(group) = self.poll.groups.get_mut(&group) {
                group.turn.push_back(number);
            }
        }
        self.offer_to_name(&group, &id);
        self.offer_to_any(&group);
    }

    /// Hands over what is addressed to an id, to the first of its connections that has room.
    fn offer_to_name(&mut self, group: &str, id: &str) {
        loop {
            let Some(name) = self.poll.groups.get_mut(group).and_then(|group| group.names.get_mut(id)) else { return };
            let Some(&seq) = name.waiting.first().filter(|_| !self.is_paused) else { return };
            let lines = &self.poll.lines;
            let free = name.lines.iter().find(|line| lines.get(line).is_some_and(Line::has_room)).copied();
            let Some(line) = free else { return };
            name.waiting.remove(&seq);
            self.assign(seq, line);
        }
    }

    /// Hands over what anybody of a group may have, turn by turn, so that no worker gets everything.
    fn offer_to_any(&mut self, group: &str) {
        loop {
            let Some(queue) = self.poll.groups.get_mut(group).filter(|_| !self.is_paused) else { return };
            let Some(&seq) = queue.any.first() else { return };
            let Some(line) = queue.next_in_turn(&mut self.poll.lines) else { return };
            queue.any.remove(&seq);
            let preferred = self.items.get(&seq).and_then(|item| item.place.id());
            if let Some(id) = preferred.filter(|id| queue.is_connected(id)).map(str::to_owned) {
                // The one it is meant for has come since it was queued.
                queue.turn.push_front(line);
                queue.names.entry(id.clone()).or_default().waiting.insert(seq);
                self.offer_to_name(group, &id);
                continue;
            }
            queue.turn.push_back(line);
            self.assign(seq, line);
        }
    }

    fn assign(&mut self, seq: u64, number: u64) {
        if let Some(item) = self.items.get_mut(&seq)
            && let Some(line) = self.poll.lines.get_mut(&number)
        {
            item.state = State::Assigned(number);
            line.inbox.push_back(seq);
            line.wake.notify_one();
        }
    }

    /// Leaves to anybody what was preferably for an id of which no connection is left.
    fn desert(&mut self, group: &str, id: &str) {
        let Some(queue) = self.poll.groups.get_mut(group) else { return };
        let Some(name) = queue.names.get_mut(id).filter(|name| name.lines.is_empty()) else { return };
        let is_any = |seq: &u64| self.items.get(seq).is_some_and(|item| item.place.cast() == Some(Cast::Any));
        let (mut any, only) = std::mem::take(&mut name.waiting).into_iter().partition(is_any);
        name.waiting = only;
        if name.is_idle() {
            queue.names.remove(id);
        }
        queue.any.append(&mut any);
        self.offer_to_any(group);
    }

    fn tidy_group(&mut self, group: &str) {
        if self.poll.groups.get(group).is_some_and(|queue| queue.any.is_empty() && queue.names.is_empty()) {
            self.poll.groups.remove(group);
        }
    }
}

impl Group {
    fn is_connected(&self, id: &str) -> bool {
        self.names.get(id).is_some_and(|name| !name.lines.is_empty())
    }

    /// Takes the next connection with room out of the turn. One that is full comes back when it has room.
    fn next_in_turn(&mut self, lines: &mut BTreeMap<u64, Line>) -> Option<u64> {
        while let Some(number) = self.turn.pop_front() {
            if let Some(line) = lines.get_mut(&number) {
                if line.has_room() {
                    return Some(number);
                }
                line.in_turn = false;
            }
        }
        None
    }
}

impl Name {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.lines.is_empty()
    }
}

impl Absences {
    fn end(&mut self, id: &str) -> Vec<TaskRef> {
        let Some((until, held)) = self.by_id.remove(id) else { return Vec::new() };
        self.ends.remove(&(until, id.to_owned()));
        held
    }
}

impl Place {
    fn id(&self) -> Option<&str> {
        match self {
            Place::Poll { id, .. } => id.as_deref(),
            Place::Push(_) | Place::Nowhere => None,
        }
    }

    fn cast(&self) -> Option<Cast> {
        match self {
            Place::Poll { cast, .. } => Some(*cast),
            Place::Push(_) | Place::Nowhere => None,
        }
    }
}

/// What a message weighs beside its envelope.
fn payload_bytes(message: &Message) -> usize {
    match message {
        Message::Execute { .. } => 0,
        Message::Unblock { promise, .. } => promise.param.bytes() + promise.value.bytes(),
    }
}

#[cfg(test)]
impl Poll {
    pub(super) fn is_spent(&self, seq: u64) -> bool {
        self.spent.contains(&seq)
    }

    pub(super) fn is_queued(&self, seq: u64) -> bool {
        let is_in =
            |group: &Group| group.any.contains(&seq) || group.names.values().any(|name| name.waiting.contains(&seq));
        self.groups.values().filter(|group| is_in(group)).count() == 1
    }

    /// Whether it is in the inbox of that connection, or sent on it: then its connection will give it back when it
    /// drops, unless it has stayed up long enough by `now`.
    pub(super) fn is_handed(&self, seq: u64, number: u64, now: Timestamp) -> bool {
        let line = self.lines.get(&number);
        let is_acked = |until: Timestamp| self.acks.contains(&(until, seq, number));
        let is_late = self.acks.iter().any(|ack| ack.0 <= now && (ack.1, ack.2) == (seq, number));
        is_late
            || line.is_some_and(|line| {
                line.inbox.contains(&seq) || line.sent.iter().any(|(until, other)| *other == seq && is_acked(*until))
            })
    }

    /// Nothing waits beside a connection that may have it and has room.
    pub(super) fn check(&self) {
        for group in self.groups.values() {
            let lines = || group.names.values().flat_map(|name| &name.lines);
            let has_room = |line: &u64| self.lines[line].has_room();
            assert!(group.any.is_empty() || !lines().any(has_room), "somebody waits for nothing: {group:?}");
            for name in group.names.values() {
                assert!(name.waiting.is_empty() || !name.lines.iter().any(has_room), "{name:?}");
                assert!(!name.is_idle(), "nothing is left of it: {name:?}");
            }
            assert!(!group.any.is_empty() || !group.names.is_empty(), "an empty group is kept");
            let turn: BTreeSet<u64> = group.turn.iter().copied().collect();
            assert_eq!(turn.len(), group.turn.len(), "somebody stands twice in {:?}", group.turn);
            assert!(lines().filter(|line| has_room(line)).all(|line| turn.contains(line)), "{group:?}");
        }
        assert!(self.lines.values().all(|line| line.inbox.len() <= CONNECTION_BUFFER_MAX));
        assert_eq!(self.present.values().sum::<usize>(), self.lines.len());
    }
}
