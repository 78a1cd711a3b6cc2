//! Schedules: a promise for each instant that a cron expression names.

use std::collections::BTreeMap;

use base::{Millis, Timestamp};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;

use crate::request::{Create, ScheduleCreate};
use crate::state::{Timer, TimerKind, Value};
use crate::tags::{BRANCH, ORIGIN, PARENT, PREFIX, SCHEDULE};
use crate::view::View;

/// The next firing of a schedule that fires no more: the last instant of the year 9999.
pub const NEVER: Timestamp = Timestamp(253_402_300_799_999);

/// A promise at every instant that a cron expression names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Its id.
    pub id: String,
    /// When it fires: five to seven fields, in UTC.
    pub cron: String,
    /// The id of each promise; `{{.id}}` and `{{.timestamp}}` are replaced.
    pub promise_id: String,
    /// How long after its firing a promise times out.
    pub promise_timeout: Millis,
    /// What each promise is passed.
    pub promise_param: Value,
    /// The tags of each promise.
    pub promise_tags: BTreeMap<String, String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it fires next; [`NEVER`] if it does not.
    pub next_run_at: Timestamp,
    /// When it fired last.
    pub last_run_at: Option<Timestamp>,
}

impl Schedule {
    /// A schedule created now.
    ///
    /// # Errors
    /// The cron expression cannot be read, or names no instant after now.
    pub(crate) fn new(create: &ScheduleCreate, now: Timestamp) -> Result<Schedule, String> {
        let next_run_at = next_firing(&create.cron, now)?;
        if next_run_at == NEVER {
            return Err(format!("cron `{}` names no instant after now", create.cron));
        }
        Ok(Schedule {
            id: create.id.clone(),
            cron: create.cron.clone(),
            promise_id: create.promise_id.clone(),
            promise_timeout: create.promise_timeout,
            promise_param: create.promise_param.clone(),
            promise_tags: create.promise_tags.clone(),
            created_at: now,
            next_run_at,
            last_run_at: None,
        })
    }

    /// The timer it calls for.
    #[must_use]
    pub fn timer(&self) -> Option<Timer> {
        let timer = Timer { kind: TimerKind::Schedule, at: self.next_run_at, id: self.id.clone() };
        (self.next_run_at < NEVER).then_some(timer)
    }

    /// The promise of its next firing: a root of its own.
    pub(crate) fn firing(&self) -> Create {
        let id = firing_id(&self.promise_id, &self.id, self.next_run_at);
        let mut tags = self.promise_tags.clone();
        tags.insert(SCHEDULE.to_owned(), self.id.clone());
        for name in [ORIGIN, BRANCH, PARENT, PREFIX] {
            tags.insert(name.to_owned(), id.clone());
        }
        let timeout_at = self.next_run_at.plus(self.promise_timeout);
        Create { id, timeout_at, param: self.promise_param.clone(), tags }
    }

    /// The schedule after that firing.
    pub(crate) fn fired(&self) -> Schedule {
        // What was accepted once is read again here; if it could not be, it fires no more.
        let next_run_at = next_firing(&self.cron, self.next_run_at).unwrap_or(NEVER);
        Schedule { last_run_at: Some(self.next_run_at), next_run_at, ..self.clone() }
    }
}

/// The ids of the promises that the next sweep of so many timers may create: what it has to be able to look up.
#[must_use]
pub fn firings_due(view: &dyn View, now: Timestamp, limit: usize) -> Vec<String> {
    let due = view.due(TimerKind::Schedule, now, limit);
    due.iter().filter_map(|id| view.schedule(id)).map(|schedule| schedule.firing().id).collect()
}

/// The first instant after `after` that a cron expression names; [`NEVER`] if there is none.
///
/// # Errors
/// Says what is wrong with the expression.
pub fn next_firing(cron: &str, after: Timestamp) -> Result<Timestamp, String> {
    let cron = parse_cron(cron)?;
    let Ok(after) = jiff::Timestamp::from_millisecond(after.0) else { return Ok(NEVER) };
    let after = after.to_zoned(TimeZone::UTC).datetime();
    let Ok(next) = cron.find_next_occurrence(&after, false) else { return Ok(NEVER) };
    let next = next.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp().as_millisecond());
    Ok(next.map_or(NEVER, Timestamp))
}

/// Reads a cron expression: five fields (minute first), six (second first) or seven (and a year last), in UTC.
///
/// Days of the week count from Sunday = 1, and a day has to fit both of its fields, as in the reference server.
pub(crate) fn parse_cron(text: &str) -> Result<Cron, String> {
    let fields = text.split_ascii_whitespace().count();
    if !(5..=7).contains(&fields) {
        return Err(format!("cron `{text}` has {fields} fields; it needs five to seven"));
    }
    let parser = CronParser::builder()
        .seconds(Seconds::Optional)
        .year(Year::Optional)
        .dom_and_dow(true)
        .alternative_weekdays(true)
        .sloppy_ranges(true)
        .build();
    parser.parse(text).map_err(|error| format!("cron `{text}` cannot be read: {error}"))
}

/// The id of the promise of one firing.
pub(crate) fn firing_id(template: &str, schedule: &str, at: Timestamp) -> String {
    template.replace("{{.timestamp}}", &at.0.to_string()).replace("{{.id}}", schedule)
}
