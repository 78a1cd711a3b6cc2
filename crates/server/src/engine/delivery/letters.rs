//! Messages that were given up, kept for whoever wants to know, or to send them again.

use super::{Delivery, Item, State};
use base::{Millis, Timestamp};
use protocol::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::DeadLetter;

/// How long an unblock waits for its addressee before it is given up into the dead letters.
pub const UNBLOCK_GIVE_UP: Millis = Millis(24 * 3_600_000);
/// LIMIT: given-up messages remembered.
pub const DEAD_LETTERS_MAX: usize = 1_000;

/// The dead letters by number, each with the commit group that stored it.
#[derive(Debug, Default)]
pub(super) struct Letters(BTreeMap<u64, (u64, DeadLetter)>);

/// A message that is done with.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Given {
    /// Its number in the outbox.
    pub(in crate::engine) seq: u64,
    /// The message.
    pub(in crate::engine) message: Arc<Message>,
    /// What is known of a message that was given up; `None` if it counts as received.
    pub(in crate::engine) dead: Option<DeadLetter>,
}

impl Given {
    pub(super) fn received(seq: u64, item: &Item) -> Given {
        Given { seq, message: Arc::clone(&item.message), dead: None }
    }

    pub(super) fn dead(seq: u64, item: &Item, dead_at: Timestamp) -> Given {
        let error = item.error.clone().unwrap_or_else(|| "nobody came for it".to_owned());
        let (message, attempts, since) = (Arc::clone(&item.message), item.attempts, item.since);
        let letter = DeadLetter { message, attempts, error, since, dead_at };
        Given { seq, message: Arc::clone(&item.message), dead: Some(letter) }
    }
}

impl Delivery {
    /// The first `limit` unblocks that have waited too long. They stay until they are retracted.
    pub(in crate::engine) fn give_up(&self, now: Timestamp, limit: usize) -> Vec<Given> {
        // Numbers rise with time: the first one that is young enough ends the search.
        let old = self.items.iter().take_while(|(_, item)| now.since(item.since) >= UNBLOCK_GIVE_UP);
        let is_stale = |item: &Item| {
            let is_away = matches!(item.state, State::Sent(_) | State::Flying(_));
            matches!(*item.message, Message::Unblock { .. }) && !is_away
        };
        old.filter(|(_, item)| is_stale(item)).take(limit).map(|(seq, item)| Given::dead(*seq, item, now)).collect()
    }

    /// Keeps a dead letter; answers the number of the one that is forgotten for it.
    pub(in crate::engine) fn bury(&mut self, seq: u64, group: u64, letter: DeadLetter) -> Option<u64> {
        self.counts.dead += 1;
        self.letters.0.insert(seq, (group, letter));
        if self.letters.0.len() <= DEAD_LETTERS_MAX {
            return None;
        }
        self.counts.forgotten += 1;
        self.letters.0.pop_first().map(|(seq, _)| seq)
    }

    /// The promises that dead letters tell of.
    pub(in crate::engine) fn buried(&self) -> Vec<String> {
        let told = self.letters.0.values().filter_map(|(_, letter)| match &*letter.message {
            Message::Unblock { promise, .. } => Some(promise.id.clone()),
            Message::Execute { .. } => None,
        });
        told.collect()
    }

    /// Takes a dead letter out, to be sent again.
    pub(in crate::engine) fn exhume(&mut self, seq: u64) -> Option<DeadLetter> {
        self.letters.0.remove(&seq).map(|(_, letter)| letter)
    }

    /// Takes all dead letters out; answers their numbers.
    pub(in crate::engine) fn exhume_all(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.letters.0).into_keys().collect()
    }

    /// Takes the stored dead letters in place of all.
    pub(in crate::engine) fn reload_letters(&mut self, stored: Vec<(u64, DeadLetter)>) {
        if let Some((newest, _)) = stored.iter().max_by_key(|(seq, _)| *seq) {
            // A number is never given twice: a dead letter keeps the one it had.
            self.next_item = self.next_item.max(newest + 1);
        }
        self.letters.0 = stored.into_iter().map(|(seq, letter)| (seq, (0, letter))).collect();
    }

    /// Forgets what was given up in groups that did not become durable.
    pub(in crate::engine) fn take_back_letters(&mut self, durable: u64) {
        self.letters.0.retain(|_, (group, _)| *group <= durable);
    }

    /// The dead letters that are durable, by number: the oldest message first.
    pub(in crate::engine) fn dead_letters(&self, durable: u64) -> impl Iterator<Item = (u64, &DeadLetter)> {
        self.letters.0.iter().filter(move |(_, (group, _))| *group <= durable).map(|(seq, (_, letter))| (*seq, letter))
    }
}
