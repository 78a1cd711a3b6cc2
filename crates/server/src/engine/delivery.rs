//! Messages on their way to workers: the outbox in memory, the connections, and which goes where.
//!
//! A written frame stays in the outbox as *sent* until its connection has stayed up for [`ACK_AFTER`]; if the
//! connection drops before, its frames are ready again. That is what at-least-once means for a client that never
//! acknowledges: a worker may see a message twice and never misses one written to a dead connection.

use base::{Millis, Timestamp};
use protocol::{Address, Cast, Message, MessageKey};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tokio::sync::mpsc;

/// How long a connection must outlive a frame for the frame to count as received.
pub const ACK_AFTER: Millis = Millis(5_000);
/// How long an unblock waits for its addressee to connect before it is given up into the dead letters.
pub const UNBLOCK_GIVE_UP: Millis = Millis(24 * 3_600_000);
/// LIMIT: connected workers.
pub const CONNECTIONS_MAX: usize = 1_000;
/// LIMIT: messages buffered for one connection.
pub const CONNECTION_BUFFER_MAX: usize = 100;
/// LIMIT: given-up messages remembered.
pub const DEAD_LETTERS_MAX: usize = 1_000;

#[derive(Debug)]
struct Item {
    message: Message,
    place: Option<Place>,
    /// The commit group that stored it; it is not shown before that group is durable.
    group: u64,
    since: Timestamp,
    sent: Option<(u64, Timestamp)>,
}

/// Where a polled message goes.
#[derive(Debug)]
struct Place {
    group: String,
    id: Option<String>,
    cast: Cast,
}

#[derive(Debug)]
struct Line {
    id: String,
    frames: mpsc::Sender<Message>,
}

/// The outbox and the connections. Changes of the outbox are made durable by the caller.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    items: BTreeMap<u64, Item>,
    by_key: BTreeMap<MessageKey, u64>,
    next_item: u64,
    /// Items that wait for a connection of their group, oldest first.
    ready: BTreeMap<String, VecDeque<u64>>,
    lines: BTreeMap<u64, Line>,
    groups: BTreeMap<String, Vec<u64>>,
    next_line: u64,
    turn: usize,
    acks: BTreeSet<(Timestamp, u64)>,
    dead: VecDeque<Message>,
}

/// Too many connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many workers are connected (at most {CONNECTIONS_MAX})")]
pub struct TooManyConnections;

impl Delivery {
    /// Puts a message into the outbox; answers its number and the number of the message it replaces.
    pub(super) fn add(&mut self, message: Message, group: u64, now: Timestamp) -> (u64, Option<u64>) {
        let replaced = self.retract(&message.key());
        let seq = self.next_item;
        self.next_item += 1;
        self.insert(seq, message, group, now);
        (seq, replaced)
    }

    /// Takes a message out of the outbox; answers its number.
    pub(super) fn retract(&mut self, key: &MessageKey) -> Option<u64> {
        let seq = self.by_key.remove(key)?;
        if let Some(item) = self.items.remove(&seq)
            && let Some((_, until)) = item.sent
        {
            self.acks.remove(&(until, seq));
        }
        Some(seq)
    }

    /// Forgets the whole outbox and takes the stored one; connections stay.
    pub(super) fn reload(&mut self, stored: Vec<(u64, Message)>, now: Timestamp) {
        self.items.clear();
        self.by_key.clear();
        self.ready.clear();
        self.acks.clear();
        for (seq, message) in stored {
            self.next_item = self.next_item.max(seq + 1);
            self.insert(seq, message, 0, now);
        }
    }

    pub(super) fn connect(
        &mut self,
        group: &str,
        id: &str,
    ) -> Result<(u64, mpsc::Receiver<Message>), TooManyConnections> {
        if self.lines.len() >= CONNECTIONS_MAX {
            return Err(TooManyConnections);
        }
        let (frames, received) = mpsc::channel(CONNECTION_BUFFER_MAX);
        let line = self.next_line;
        self.next_line += 1;
        self.lines.insert(line, Line { id: id.to_owned(), frames });
        self.groups.entry(group.to_owned()).or_default().push(line);
        Ok((line, received))
    }

    /// Forgets a connection; what was sent on it and not yet counted as received is ready again.
    pub(super) fn disconnect(&mut self, group: &str, line: u64) {
        self.lines.remove(&line);
        if let Some(lines) = self.groups.get_mut(group) {
            lines.retain(|other| *other != line);
            if lines.is_empty() {
                self.groups.remove(group);
            }
        }
        let lost: Vec<u64> = self
            .items
            .iter()
            .filter(|(_, item)| item.sent.is_some_and(|(on, _)| on == line))
            .map(|(k, _)| *k)
            .collect();
        for seq in lost {
            if let Some(item) = self.items.get_mut(&seq)
                && let Some((_, until)) = item.sent.take()
            {
                self.acks.remove(&(until, seq));
                self.queue(seq);
            }
        }
    }

    pub(super) fn is_connected(&self, group: &str, id: &str) -> bool {
        let lines = self.groups.get(group).map_or(&[][..], Vec::as_slice);
        lines.iter().any(|line| self.lines.get(line).is_some_and(|line| line.id == id))
    }

    /// Writes what can be written of what is durable.
    pub(super) fn pump(&mut self, durable: u64, now: Timestamp) {
        let groups: Vec<String> = self.ready.keys().filter(|group| self.groups.contains_key(*group)).cloned().collect();
        for group in groups {
            let waiting = self.ready.remove(&group).unwrap_or_default();
            let unsent = |seq: &u64| self.items.get(seq).is_some_and(|item| item.sent.is_none());
            let waiting: Vec<u64> = waiting.into_iter().filter(unsent).collect();
            let kept: VecDeque<u64> = waiting.into_iter().filter(|seq| !self.write(*seq, durable, now)).collect();
            if !kept.is_empty() {
                self.ready.insert(group, kept);
            }
        }
    }

    /// What was sent long enough ago to count as received. It stays until it is retracted.
    pub(super) fn received(&mut self, now: Timestamp) -> Vec<Message> {
        let mut received = Vec::new();
        while let Some(&(until, seq)) = self.acks.first().filter(|(until, _)| *until <= now) {
            self.acks.remove(&(until, seq));
            received.extend(self.items.get(&seq).map(|item| item.message.clone()));
        }
        received
    }

    /// The unblocks whose addressee did not come, now among the dead letters. They stay until they are retracted.
    pub(super) fn give_up(&mut self, now: Timestamp) -> Vec<Message> {
        let is_stale = |item: &&Item| {
            matches!(item.message, Message::Unblock { .. })
                && item.sent.is_none()
                && now.since(item.since) >= UNBLOCK_GIVE_UP
        };
        let stale: Vec<Message> = self.items.values().filter(is_stale).map(|item| item.message.clone()).collect();
        for message in &stale {
            if self.dead.len() >= DEAD_LETTERS_MAX {
                self.dead.pop_front();
            }
            self.dead.push_back(message.clone());
        }
        stale
    }

    /// When something is due by itself.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.acks.first().map(|(until, _)| *until)
    }

    /// The numbers of all messages.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.items.keys().copied().collect()
    }

    pub(super) fn dead_letters(&self) -> Vec<Message> {
        self.dead.iter().cloned().collect()
    }

    /// Messages not yet counted as received.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    fn insert(&mut self, seq: u64, message: Message, group: u64, since: Timestamp) {
        self.by_key.insert(message.key(), seq);
        let place = place(&message);
        self.items.insert(seq, Item { message, place, group, since, sent: None });
        self.queue(seq);
    }

    fn queue(&mut self, seq: u64) {
        if let Some(place) = self.items.get(&seq).and_then(|item| item.place.as_ref()) {
            self.ready.entry(place.group.clone()).or_default().push_back(seq);
        }
    }

    /// Writes one message to a connection that may have it; false if it is not durable yet or none has room.
    fn write(&mut self, seq: u64, durable: u64, now: Timestamp) -> bool {
        let Some(item) = self.items.get_mut(&seq) else { return true };
        let Some(place) = item.place.as_ref().filter(|_| item.group <= durable) else { return false };
        let lines = self.groups.get(&place.group).map_or(&[][..], Vec::as_slice);
        let is_named = |line: &&u64| self.lines.get(line).is_some_and(|line| Some(&line.id) == place.id.as_ref());
        let mut candidates: Vec<u64> = lines.iter().filter(is_named).copied().collect();
        if place.cast == Cast::Any && candidates.is_empty() && !lines.is_empty() {
            // Turn by turn through the group, so that no worker gets everything.
            let start = self.turn % lines.len();
            candidates = lines.iter().cycle().skip(start).take(lines.len()).copied().collect();
            self.turn = self.turn.wrapping_add(1);
        }
        let taken = candidates.into_iter().find(|line| {
            let line = self.lines.get(line);
            line.is_some_and(|line| line.frames.try_send(item.message.clone()).is_ok())
        });
        let Some(line) = taken else { return false };
        let until = now.plus(ACK_AFTER);
        item.sent = Some((line, until));
        self.acks.insert((until, seq));
        true
    }
}

fn place(message: &Message) -> Option<Place> {
    match Address::parse(message.address())? {
        Address::Poll { cast, group, id } => Some(Place { group, id, cast }),
        Address::Http(_) | Address::Topic { .. } | Address::Command(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{Promise, PromiseState, Value};
    use std::sync::Arc;

    #[test]
    fn the_newest_given_up_messages_are_remembered_up_to_their_limit() {
        let promise = Promise {
            id: "p".into(),
            state: PromiseState::Resolved,
            param: Value::default(),
            value: Value::default(),
            tags: protocol::Tags::default(),
            timeout_at: Timestamp(9),
            created_at: Timestamp(1),
            settled_at: Some(Timestamp(2)),
        };
        let promise = Arc::new(promise);
        let address = |number: usize| format!("poll://uni@nobody/{number}");
        let mut delivery = Delivery::default();
        let start = Timestamp(1_000);
        for number in 0..=DEAD_LETTERS_MAX {
            delivery.add(Message::Unblock { address: address(number), promise: promise.clone() }, 0, start);
        }
        assert!(delivery.give_up(start.plus(Millis(UNBLOCK_GIVE_UP.0 - 1))).is_empty());
        assert_eq!(delivery.give_up(start.plus(UNBLOCK_GIVE_UP)).len(), DEAD_LETTERS_MAX + 1);
        let dead = delivery.dead_letters();
        assert_eq!((dead.len(), dead[0].address()), (DEAD_LETTERS_MAX, address(1).as_str()), "the oldest is forgotten");
    }
}
