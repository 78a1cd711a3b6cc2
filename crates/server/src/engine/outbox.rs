//! What is owed to workers and listeners, for people and metrics: read it, and send again what was given up.

use crate::engine::delivery::{DeliveryCounts, State};
use crate::engine::{Engine, SubmitError};
use base::Timestamp;
use protocol::Message;
use std::sync::Arc;

/// LIMIT: messages listed at once, of those on their way and of the dead letters each.
pub const LISTED_MAX: usize = 1_000;

/// How far a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits for a connection, for room, or for another attempt.
    Waiting,
    /// It was sent and does not count as received yet.
    Sent,
    /// It was given up.
    Dead,
}

/// One message that is owed, or was given up.
#[derive(Clone, Debug)]
pub struct Owed {
    /// Its number; no other message ever had it.
    pub number: u64,
    /// How far it is.
    pub stage: Stage,
    /// The message.
    pub message: Arc<Message>,
    /// How often it was sent.
    pub attempts: u32,
    /// What the last attempt ended with, or why it was given up.
    pub error: Option<String>,
    /// When it was queued; for a message older than the server's start, when the server started.
    pub since: Timestamp,
    /// When it was given up.
    pub dead_at: Option<Timestamp>,
}

/// Which messages are to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resend {
    /// This dead letter; or this message, now, if it rests after a failed attempt.
    One(u64),
    /// Every dead letter.
    Dead,
}

impl Engine {
    /// The durable messages on their way, oldest first, then the dead letters; [`LISTED_MAX`] of each at most.
    #[must_use]
    pub fn owed(&self) -> Vec<Owed> {
        let core = self.shared.lock();
        let live = core.delivery.listed().take(LISTED_MAX).map(|(number, item)| {
            let is_away = matches!(item.state, State::Sent(_) | State::Flying(_));
            Owed {
                number,
                stage: if is_away { Stage::Sent } else { Stage::Waiting },
                message: Arc::clone(&item.message),
                attempts: item.attempts,
                error: item.error.clone(),
                since: item.since,
                dead_at: None,
            }
        });
        let dead = core.delivery.dead_letters(core.durable()).take(LISTED_MAX).map(|(number, letter)| Owed {
            number,
            stage: Stage::Dead,
            message: Arc::clone(&letter.message),
            attempts: letter.attempts,
            error: Some(letter.error.clone()),
            since: letter.since,
            dead_at: Some(letter.dead_at),
        });
        live.chain(dead).collect()
    }

    /// Sends messages again; answers how many, once that is durable.
    ///
    /// # Errors
    /// The store does not take writes.
    pub async fn resend(&self, which: Resend) -> Result<usize, SubmitError> {
        let (count, durable) = {
            let mut core = self.shared.lock();
            self.shared.writable(&core)?;
            let now = self.shared.env.now();
            let numbers: Vec<u64> = match which {
                Resend::One(number) => vec![number],
                Resend::Dead => core.delivery.dead_letters(core.durable()).map(|(number, _)| number).collect(),
            };
            let resent = numbers.iter().filter(|number| core.resend(**number, now)).count();
            let hastened = match which {
                Resend::One(number) if resent == 0 => usize::from(core.delivery.hasten(number)),
                Resend::One(_) | Resend::Dead => 0,
            };
            (resent + hastened, core.newest_epoch().map(|epoch| core.wait_for(epoch)))
        };
        self.shared.wake();
        self.shared.stir.notify_one();
        self.shared.durable(durable).await?;
        Ok(count)
    }

    /// What became of messages since the start, and what there is now.
    #[must_use]
    pub fn delivery_counts(&self) -> DeliveryCounts {
        self.shared.lock().delivery.counts()
    }

    /// Says where this server listens: workers are told, and endpoints are posted to from now on. Only the first word
    /// counts.
    pub fn listens_at(&self, url: &str) {
        // Whoever was first knows as well.
        let _ = self.shared.url.set(url.to_owned());
        self.shared.stir.notify_one();
    }
}
