//! Messages on their way: the outbox in memory, who is connected, and which message goes where.
//!
//! A message becomes deliverable with the commit group that stored it. To workers that hold a stream open (`poll`)
//! it is handed through a bounded inbox; to an endpoint (`push`) it is posted. A frame that a stream has taken stays
//! in the outbox as *sent* until its connection has stayed up for [`ACK_AFTER`]; if the connection drops before, it is
//! queued again. That is what at-least-once means for a client that never acknowledges: a worker may see a message
//! twice and never misses one written to a dead connection. To whom no stream lasts, a message is sent after longer
//! and longer rests, and an unblock is given up in the end: what is owed stays bounded.
//!
//! Everything here is a decision over values: no clock, no socket. Each step costs what it hands over, however much
//! waits. Read first: [`Delivery`], [`State`].

mod letters;
mod poll;
mod push;
#[cfg(test)]
mod tests;

use base::{Millis, Timestamp};
pub(super) use letters::Given;
use letters::Letters;
use poll::Poll;
use protocol::{Address, Cast, Message, MessageKey};
use push::Push;
pub(super) use push::{Flight, Landing};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

pub use letters::{DEAD_LETTERS_MAX, UNBLOCK_GIVE_UP};
pub use poll::{
    ACK_AFTER, CHUNK_BYTES_MAX, CONNECTION_BUFFER_MAX, CONNECTIONS_MAX, POLL_ATTEMPTS_MAX, TooManyConnections,
};
pub(super) use push::origin;
pub use push::{PUSH_ATTEMPTS_MAX, PUSH_IN_FLIGHT_MAX, PUSH_PER_ORIGIN_MAX};

/// How long a message rests after its first failed attempt; it doubles with each further one.
const REST: Millis = Millis(500);

/// What became of messages since the engine started, and what there is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryCounts {
    /// Frames taken by streams and posts begun.
    pub sent: u64,
    /// Messages that arrived: by a connection that stayed up, by an answer, or because their purpose was fulfilled
    /// after they were sent.
    pub delivered: u64,
    /// Messages to be sent once more, because a connection dropped or a post failed.
    pub retried: u64,
    /// Messages given up.
    pub dead: u64,
    /// Dead letters pushed out by newer ones.
    pub forgotten: u64,
    /// Messages that wait now, for a commit, a connection, room or another attempt.
    pub waiting: u64,
    /// Workers connected now.
    pub connections: u64,
}

impl DeliveryCounts {
    /// What became of messages, by the names under which it is counted.
    #[must_use]
    pub fn results(&self) -> [(&'static str, u64); 5] {
        [
            ("sent", self.sent),
            ("delivered", self.delivered),
            ("retried", self.retried),
            ("dead", self.dead),
            ("forgotten", self.forgotten),
        ]
    }
}

/// One message that is owed.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) message: Arc<Message>,
    place: Place,
    pub(super) since: Timestamp,
    /// How often it was sent.
    pub(super) attempts: u32,
    /// What the last attempt ended with.
    pub(super) error: Option<String>,
    pub(super) state: State,
}

/// Where a message is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its commit group is not durable yet: it may be shown to nobody.
    Fresh,
    /// In the queue of its place.
    Waiting,
    /// In the inbox of a connection.
    Assigned(u64),
    /// Taken by the stream of a connection.
    Sent(u64),
    /// Being posted.
    Flying(u64),
    /// After a failed attempt, until then.
    Resting(Timestamp),
    /// After its last attempt: it is about to be given up.
    Spent,
}

/// Where a message goes.
#[derive(Debug)]
enum Place {
    /// A worker of a group.
    Poll { cast: Cast, group: String, id: Option<String> },
    /// An endpoint, by its origin.
    Push(String),
    /// Nowhere that this server delivers to.
    Nowhere,
}

/// The outbox and the connections. Changes of the outbox are made durable by the caller.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    items: BTreeMap<u64, Item>,
    by_key: HashMap<MessageKey, u64>,
    next_item: u64,
    /// Commit group and number of what is not durable yet, in order.
    fresh: VecDeque<(u64, u64)>,
    /// INVARIANT: while the store takes no writes, nothing is handed over: it could not be counted as received.
    is_paused: bool,
    /// Items that rest after a failed attempt.
    rests: BTreeSet<(Timestamp, u64)>,
    poll: Poll,
    push: Push,
    letters: Letters,
    counts: DeliveryCounts,
    /// How many items are sent or flying.
    away: usize,
}

impl Delivery {
    /// Puts a message into the outbox; answers its number and the number of the message it replaces.
    pub(super) fn add(&mut self, message: Message, group: u64, now: Timestamp) -> (u64, Option<u64>) {
        let key = message.key();
        let replaced = self.by_key.get(&key).copied();
        if let Some(seq) = replaced {
            self.remove(seq);
        }
        let seq = self.next_item;
        self.next_item += 1;
        self.insert(seq, key, message, now);
        self.fresh.push_back((group, seq));
        (seq, replaced)
    }

    /// Takes a message out of the outbox; answers its number.
    pub(super) fn retract(&mut self, key: &MessageKey) -> Option<u64> {
        let seq = self.by_key.remove(key)?;
        if let Some(State::Sent(_) | State::Flying(_)) = self.remove(seq) {
            self.counts.delivered += 1;
        }
        Some(seq)
    }

    /// Forgets the whole outbox and takes the stored one; connections stay.
    pub(super) fn reload(&mut self, stored: Vec<(u64, Message)>, now: Timestamp) {
        self.items.clear();
        self.by_key.clear();
        self.fresh.clear();
        self.rests.clear();
        self.away = 0;
        self.forget_frames();
        self.forget_posts();
        self.is_paused = false;
        for (seq, message) in stored {
            self.next_item = self.next_item.max(seq + 1);
            self.insert(seq, message.key(), message, now);
            self.enqueue(seq);
        }
    }

    /// Hands nothing over until the next [`Delivery::reload`].
    pub(super) fn pause(&mut self) {
        self.is_paused = true;
        self.forget_frames();
    }

    /// Makes deliverable what is durable now.
    pub(super) fn release(&mut self, durable: u64) {
        while let Some(&(_, seq)) = self.fresh.front().filter(|(group, _)| *group <= durable) {
            self.fresh.pop_front();
            if self.items.get(&seq).is_some_and(|item| item.state == State::Fresh) {
                self.enqueue(seq);
            }
        }
    }

    /// Puts what has rested long enough back into its queue.
    pub(super) fn wake_rested(&mut self, now: Timestamp) {
        while let Some(&(until, seq)) = self.rests.first().filter(|(until, _)| *until <= now) {
            self.rests.remove(&(until, seq));
            self.enqueue(seq);
        }
    }

    /// Ends the rest of a message, and that of its origin; false if it waits for neither.
    pub(super) fn hasten(&mut self, seq: u64) -> bool {
        let Some(item) = self.items.get(&seq) else { return false };
        let origin = if let Place::Push(origin) = &item.place { Some(origin.clone()) } else { None };
        match item.state {
            State::Resting(until) => {
                self.rests.remove(&(until, seq));
                self.enqueue(seq);
            }
            State::Waiting if origin.is_some() => {}
            _ => return false,
        }
        if let Some(origin) = origin {
            self.end_silence(&origin);
        }
        true
    }

    /// When something is due by itself.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let rested = self.rests.first().map(|(until, _)| *until);
        [rested, self.next_ack(), self.next_absence(), self.next_post()].into_iter().flatten().min()
    }

    /// The numbers of all messages.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.items.keys().copied().collect()
    }

    /// Messages not yet counted as received.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn counts(&self) -> DeliveryCounts {
        let waiting = self.items.len().saturating_sub(self.away) as u64;
        DeliveryCounts { waiting, connections: self.poll.connections() as u64, ..self.counts }
    }

    /// The durable messages with their numbers, oldest first.
    pub(super) fn listed(&self) -> impl Iterator<Item = (u64, &Item)> {
        self.items.iter().filter(|(_, item)| item.state != State::Fresh).map(|(seq, item)| (*seq, item))
    }

    fn insert(&mut self, seq: u64, key: MessageKey, message: Message, since: Timestamp) {
        self.by_key.insert(key, seq);
        let (place, state) = (place(&message), State::Fresh);
        let item = Item { message: Arc::new(message), place, since, attempts: 0, error: None, state };
        self.items.insert(seq, item);
    }

    /// Takes an item from wherever it is; answers what it was.
    fn remove(&mut self, seq: u64) -> Option<State> {
        let item = self.items.remove(&seq)?;
        match item.state {
            // What is left of it in a list is passed over: no number is given twice.
            State::Fresh | State::Spent => {}
            State::Sent(_) | State::Flying(_) => self.away = self.away.saturating_sub(1),
            State::Resting(until) => drop(self.rests.remove(&(until, seq))),
            State::Waiting => match &item.place {
                Place::Poll { group, id, .. } => self.leave_group(seq, group, id.as_deref()),
                Place::Push(origin) => self.leave_origin(seq, origin),
                Place::Nowhere => {}
            },
            State::Assigned(line) => self.leave_inbox(seq, line),
        }
        Some(item.state)
    }

    /// Lets an item rest.
    fn rest(&mut self, seq: u64, until: Timestamp) {
        let Some(item) = self.items.get_mut(&seq) else { return };
        item.state = State::Resting(until);
        self.rests.insert((until, seq));
        self.counts.retried += 1;
    }

    /// Puts an item into the queue of its place, and hands over what can be.
    fn enqueue(&mut self, seq: u64) {
        let Some(item) = self.items.get_mut(&seq) else { return };
        item.state = State::Waiting;
        match &item.place {
            Place::Poll { .. } => self.enqueue_polled(seq),
            Place::Push(_) => self.enqueue_pushed(seq),
            Place::Nowhere => {}
        }
    }
}

/// A rest after the given number of failures: doubling, up to the longest.
fn doubled(failures: u32, longest: Millis) -> Millis {
    let whole = REST.0.saturating_mul(1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX));
    Millis(whole.min(longest.0))
}

fn place(message: &Message) -> Place {
    match Address::parse(message.address()) {
        Some(Address::Poll { cast, group, id }) => Place::Poll { cast, group, id },
        Some(Address::Http(url)) => origin(&url).map_or(Place::Nowhere, Place::Push),
        Some(Address::Topic { .. } | Address::Command(_)) | None => Place::Nowhere,
    }
}
