//! What the machine reads, what it is configured with and what it decides.

use std::sync::Arc;

use base::{Millis, Timestamp};

use crate::request::Response;
use crate::schedule::Schedule;
use crate::state::{Message, MessageKey, Promise, Row, Timer, TimerKind};

/// A synchronous reading of rows; the machine sees the world only through it.
pub trait View {
    /// Everything kept under an id.
    fn row(&self, id: &str) -> Option<Arc<Row>>;
    /// The promises that hold a callback of this awaiter.
    fn awaited_by(&self, awaiter: &str) -> Vec<String>;
    /// The first `limit` promises tagged with this branch, by id.
    fn branch(&self, branch: &str, limit: usize) -> Vec<Arc<Promise>>;
    /// The first `limit` ids with a timer of this kind at or before `now`, earliest first.
    fn due(&self, kind: TimerKind, now: Timestamp, limit: usize) -> Vec<String>;
    /// The message queued under a key.
    fn queued(&self, key: &MessageKey) -> Option<Message>;
    /// The first `limit` rows after this id, by id; from the first one on after the empty text.
    fn after(&self, id: &str, limit: usize) -> Vec<Arc<Row>>;
    /// The first `limit` rows whose ids begin with this text, by id.
    fn below(&self, prefix: &str, limit: usize) -> Vec<Arc<Row>>;
    /// Whether a listener is still to be told of this promise.
    fn is_told(&self, id: &str) -> bool;
    /// A schedule.
    fn schedule(&self, id: &str) -> Option<Arc<Schedule>>;
    /// The first `limit` schedules after this id, by id; from the first one on after the empty text.
    fn schedules_after(&self, id: &str, limit: usize) -> Vec<Arc<Schedule>>;
    /// How many schedules there are.
    fn schedule_count(&self) -> usize;
    /// Every row, for [`crate::check`].
    fn rows(&self) -> Vec<Arc<Row>>;
    /// Whether this timer runs.
    fn has_timer(&self, timer: &Timer) -> bool;
    /// Every timer, for [`crate::check`].
    fn timers(&self) -> Vec<Timer>;
    /// Every queued message in the order it was queued.
    fn outbox(&self) -> Vec<Message>;
}

/// One change, as data: all effects of one request commit in one transaction or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The row now reads so.
    Put(Arc<Row>),
    /// The message is owed; replaces one queued under the same key.
    Send(Message),
    /// The message queued under the key is no longer owed.
    Retract(MessageKey),
    /// The timer runs.
    Arm(Timer),
    /// The timer no longer runs.
    Disarm(Timer),
    /// The schedule now reads so.
    PutSchedule(Arc<Schedule>),
    /// There is no schedule of this id any more.
    DropSchedule(String),
}

/// What a request decided: an answer and the changes it rests on.
///
/// A refusal can carry effects too: deadlines that had passed were applied first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The answer.
    pub response: Response,
    /// The changes.
    pub effects: Vec<Effect>,
}

/// What can be tuned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long until a pending task is offered again.
    pub retry_timeout: Millis,
    /// When the version of a task rises.
    pub profile: Profile,
    /// What happens to a task that is acquired again and again and gets nowhere.
    pub poison: Poison,
}

impl Default for Config {
    fn default() -> Self {
        Config { retry_timeout: Millis(30_000), profile: Profile::Stanch, poison: Poison::default() }
    }
}

/// The limit of a task that never gets anywhere: each worker that takes it dies, or gives it back.
///
/// Progress is a fence or a suspension. The reference offers such a task for ever, at the speed of its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poison {
    /// Acquisitions without progress after which it is halted when it is lost again; 0 = never.
    pub attempts_max: u32,
    /// Acquisitions without progress after which it is offered again at once.
    pub free: u32,
    /// The pause before the first offer after those; doubles with each.
    pub pause: Millis,
    /// The longest pause.
    pub pause_max: Millis,
}

impl Default for Poison {
    fn default() -> Self {
        Poison { attempts_max: 32, free: 3, pause: Millis(1_000), pause_max: Millis(300_000) }
    }
}

impl Poison {
    /// No limit and no pause.
    pub(crate) const NONE: Poison = Poison { attempts_max: 0, free: u32::MAX, pause: Millis(0), pause_max: Millis(0) };

    /// The pause before a task is offered again that was acquired so often without progress.
    pub(crate) fn pause_after(&self, attempts: u32) -> Option<Millis> {
        let doublings = attempts.checked_sub(self.free.saturating_add(1))?;
        let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
        Some(Millis(self.pause.0.saturating_mul(factor).min(self.pause_max.0))).filter(|pause| pause.0 > 0)
    }
}

/// When the version of a task rises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// On every change of ownership: acquire, release and lease expiry.
    #[default]
    Stanch,
    /// On acquire only, for outside checkers of `resonate-2026-04-01` traces.
    Resonate20260401,
}

/// How ownership of a task changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnerChange {
    /// A worker takes it.
    Acquire,
    /// Its worker gives it back.
    Release,
    /// Its lease lapses.
    LeaseExpiry,
}

impl Profile {
    /// The version after a change of ownership. The only place that reads the profile.
    pub(crate) fn next_version(self, version: u64, change: OwnerChange) -> u64 {
        match (self, change) {
            (Profile::Stanch, _) | (Profile::Resonate20260401, OwnerChange::Acquire) => version.saturating_add(1),
            (Profile::Resonate20260401, OwnerChange::Release | OwnerChange::LeaseExpiry) => version,
        }
    }
}
