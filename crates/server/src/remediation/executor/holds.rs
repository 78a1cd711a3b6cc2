//! What an executor knows of holds. Not knowing counts as held: nothing begins until somebody says that it may.

use super::report::Lost;
use crate::engine::Env;
use crate::holds::{ALL, Holds};
use base::{Millis, Timestamp};
use client::{Client, Job};
use recovery::kernel::Event;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long the word that nothing is held may be acted on. A hold takes effect within this time of its acknowledgment.
const FRESH_MAX: Millis = Millis(500);
/// Time for the server's answer.
const ASK_TIMEOUT: Duration = Duration::from_millis(400);
/// The pause between questions while waiting for the end of a hold.
const AGAIN: Millis = Millis(100);

/// Whether a hold covers a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// None did at this time.
    Clear(Timestamp),
    /// One does; with true, all that do want open steps undone.
    Held(bool),
    /// Nobody says.
    Unknown,
}

/// The holds on what one plan changes.
pub(super) struct HoldWatch {
    env: Env,
    client: Client,
    writes: Vec<String>,
    state: State,
    version: u64,
    /// What the kernel knows: whether it was told of a hold, and of which kind.
    told: Option<bool>,
}

impl HoldWatch {
    pub(super) fn new(env: &Env, client: &Client, writes: &[String]) -> HoldWatch {
        let (env, client, writes) = (env.clone(), client.clone(), writes.to_vec());
        HoldWatch { env, client, writes, state: State::Unknown, version: 0, told: None }
    }

    /// The version of the hold state when it was last asked for.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Asks the server.
    pub(super) async fn ask(&mut self) {
        let asked = self.env.now();
        let answer = tokio::time::timeout(ASK_TIMEOUT, self.client.get_json::<Holds>("/holds")).await;
        let Ok(Ok((200, holds))) = answer else {
            if !self.is_fresh() {
                self.state = State::Unknown;
            }
            return;
        };
        let covers = |scope: &String| scope == ALL || self.writes.contains(scope);
        let mut covering = holds.holds.iter().filter(|hold| covers(&hold.scope)).peekable();
        self.version = holds.version;
        self.state = match covering.peek() {
            None => State::Clear(asked),
            Some(_) => State::Held(covering.all(|hold| hold.undo)),
        };
    }

    /// A record that no hold may cover was sent at this time, and taken.
    pub(super) fn was_clear(&mut self, at: Timestamp) {
        self.state = State::Clear(at);
    }

    /// A record was refused because of a hold.
    pub(super) fn was_held(&mut self) {
        self.state = State::Held(false);
    }

    /// Whether an effect may begin now; asks where the last word is too old.
    pub(super) async fn permits(&mut self, is_undo: bool) -> bool {
        if !self.is_fresh() {
            self.ask().await;
        }
        if matches!(self.state, State::Clear(_)) && !self.is_fresh() {
            // This machine was too slow between the question and its answer.
            self.state = State::Unknown;
        }
        self.is_fresh() || (is_undo && self.state == State::Held(true))
    }

    fn is_fresh(&self) -> bool {
        matches!(self.state, State::Clear(at) if self.env.now().since(at) <= FRESH_MAX)
    }

    /// What the kernel is to be told, if it does not know yet.
    pub(super) fn news(&mut self) -> Option<Event> {
        let now = match self.state {
            State::Clear(_) => None,
            State::Held(undo) => Some(undo),
            State::Unknown => Some(false),
        };
        if std::mem::replace(&mut self.told, now) == now {
            return None;
        }
        Some(now.map_or(Event::Resumed, |undo| Event::Hold { undo }))
    }

    /// Whether the last word is that nothing is held, however old it is.
    pub(super) fn is_clear(&self) -> bool {
        matches!(self.state, State::Clear(_))
    }

    /// Waits for the end of every hold; false if `stop` came first.
    ///
    /// # Errors
    /// The lease ended before.
    pub(super) async fn until_clear(&mut self, job: &Job, stop: &CancellationToken) -> Result<bool, Lost> {
        loop {
            if self.permits(false).await {
                return Ok(true);
            }
            tracing::info!(state = ?self.state, "a plan waits for the end of a hold");
            let again = self.env.now().plus(AGAIN);
            tokio::select! {
                biased;
                () = job.lease.lost() => return Err(Lost::Fenced),
                () = stop.cancelled() => return Ok(false),
                () = self.env.sleep_until(again) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
