//! Endpoints that take each message as a POST: how many at once, and when again after a failure.
//!
//! Every origin (scheme, host and port) has a queue of its own, and a window of posts in flight that starts small and
//! grows with every answer: what never answers holds little. It may also use at most as many of the posts in flight as
//! are still free. One that breaks off or keeps silent rests, and is then asked with one message at a time until it
//! answers.

use super::letters::Given;
use super::{Delivery, State, doubled};
use base::{Millis, Timestamp};
use hyper::Uri;
use protocol::Message;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// LIMIT: posts in flight.
pub const PUSH_IN_FLIGHT_MAX: usize = 512;
/// LIMIT: posts in flight to one origin.
pub const PUSH_PER_ORIGIN_MAX: usize = 64;
/// Posts in flight to an origin that has not answered yet.
const WINDOW: usize = 8;
/// LIMIT: posts of one unblock; it becomes a dead letter with the last one.
pub const PUSH_ATTEMPTS_MAX: u32 = 24;
/// LIMIT: the longest rest of a message.
const REST_MAX: Millis = Millis(600_000);
/// LIMIT: the longest rest of an origin that does not answer.
const ORIGIN_REST_MAX: Millis = Millis(30_000);

/// A message to be posted now.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Flight {
    /// Its number, for [`Delivery::land`].
    pub(in crate::engine) number: u64,
    /// What to post, to its address.
    pub(in crate::engine) message: Arc<Message>,
}

/// How a post ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Landing {
    /// With an answer of this status.
    Answered(u16),
    /// Without one, and why.
    Unanswered(String),
}

#[derive(Debug, Default)]
pub(super) struct Push {
    origins: HashMap<String, Origin>,
    /// The origins that wait for nothing but their turn.
    turn: VecDeque<String>,
    /// What is in flight: the item and its origin.
    flights: HashMap<u64, (u64, String)>,
    next_flight: u64,
    /// Origins that rest after not answering.
    silent: BTreeSet<(Timestamp, String)>,
}

#[derive(Debug)]
struct Origin {
    waiting: BTreeSet<u64>,
    flying: usize,
    /// LIMIT: posts in flight now, up to [`PUSH_PER_ORIGIN_MAX`].
    window: usize,
    /// How often in a row it did not answer.
    silences: u32,
    rests_until: Option<Timestamp>,
    in_turn: bool,
}

impl Default for Origin {
    fn default() -> Origin {
        let waiting = BTreeSet::new();
        Origin { waiting, flying: 0, window: WINDOW, silences: 0, rests_until: None, in_turn: false }
    }
}

impl Origin {
    /// Whether it may have another post, were there no other origins.
    fn is_open(&self) -> bool {
        !self.waiting.is_empty() && self.rests_until.is_none() && self.flying < self.window
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.flying == 0 && self.rests_until.is_none()
    }
}

/// Where an address leads: scheme, host and port; `None` if nothing can be posted there.
#[must_use]
pub(in crate::engine) fn origin(address: &str) -> Option<String> {
    let uri: Uri = address.parse().ok()?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"))?;
    let host = uri.host().filter(|host| !host.is_empty())?;
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some(format!("{scheme}://{}:{port}", host.to_ascii_lowercase()))
}

impl Delivery {
    /// What is to be posted now, counted as flying.
    pub(in crate::engine) fn launch(&mut self, now: Timestamp) -> Vec<Flight> {
        self.wake_silent(now);
        let mut flights = Vec::new();
        // An origin that is passed over has a post in flight, so there are never many of them.
        let mut passed = 0;
        while !self.is_paused && passed < self.push.turn.len() && self.push.flights.len() < PUSH_IN_FLIGHT_MAX {
            let Some(name) = self.push.turn.pop_front() else { break };
            let free = PUSH_IN_FLIGHT_MAX - self.push.flights.len();
            let Some(origin) = self.push.origins.get_mut(&name) else { continue };
            if !origin.is_open() {
                origin.in_turn = false;
                continue;
            }
            if origin.flying >= free {
                passed += 1;
            } else if let Some(seq) = origin.waiting.pop_first()
                && let Some(item) = self.items.get_mut(&seq)
            {
                passed = 0;
                origin.flying += 1;
                let number = self.push.next_flight;
                self.push.next_flight += 1;
                self.push.flights.insert(number, (seq, name.clone()));
                item.state = State::Flying(number);
                item.attempts = item.attempts.saturating_add(1);
                self.away += 1;
                self.counts.sent += 1;
                flights.push(Flight { number, message: Arc::clone(&item.message) });
            }
            self.push.turn.push_back(name);
        }
        flights
    }

    /// Takes the end of a post; answers the message if it is done with, as received or as given up. It stays until
    /// it is retracted. `random` moves its next attempt.
    pub(in crate::engine) fn land(
        &mut self,
        number: u64,
        landing: &Landing,
        now: Timestamp,
        random: u64,
    ) -> Option<Given> {
        let (seq, origin) = self.push.flights.remove(&number)?;
        self.note_landing(&origin, landing, now, random);
        let item = self.items.get_mut(&seq).filter(|item| item.state == State::Flying(number))?;
        let is_execute = matches!(*item.message, Message::Execute { .. });
        match landing {
            // WHY: any answer to an execute ends it. Whoever answered may be at work on it, and the task's own timer
            // offers it again.
            Landing::Answered(status) if is_execute || (200..300).contains(status) => {
                return Some(Given::received(seq, item));
            }
            Landing::Answered(status) => item.error = Some(format!("answered {status}")),
            Landing::Unanswered(why) => item.error = Some(why.clone()),
        }
        self.away = self.away.saturating_sub(1);
        if item.attempts >= PUSH_ATTEMPTS_MAX {
            item.state = State::Spent;
            return Some(if is_execute { Given::received(seq, item) } else { Given::dead(seq, item, now) });
        }
        let until = now.plus(rest(item.attempts, REST_MAX, random));
        self.rest(seq, until);
        None
    }

    pub(super) fn next_post(&self) -> Option<Timestamp> {
        self.push.silent.first().map(|(until, _)| *until)
    }

    /// Empties every queue; what is in flight lands without effect.
    pub(super) fn forget_posts(&mut self) {
        for origin in self.push.origins.values_mut() {
            origin.waiting.clear();
        }
        self.push.origins.retain(|_, origin| !origin.is_idle());
    }

    pub(super) fn enqueue_pushed(&mut self, seq: u64) {
        let Some(super::Place::Push(name)) = self.items.get(&seq).map(|item| &item.place) else { return };
        let name = name.clone();
        self.push.origins.entry(name.clone()).or_default().waiting.insert(seq);
        self.push.line_up(&name);
    }

    pub(super) fn leave_origin(&mut self, seq: u64, name: &str) {
        if let Some(origin) = self.push.origins.get_mut(name) {
            origin.waiting.remove(&seq);
        }
        self.push.tidy_origin(name);
    }

    /// Ends the rests of origins that are over.
    fn wake_silent(&mut self, now: Timestamp) {
        while let Some((_, name)) = self.push.silent.first().filter(|(until, _)| *until <= now).cloned() {
            self.end_silence(&name);
        }
    }

    pub(super) fn end_silence(&mut self, name: &str) {
        let Some(origin) = self.push.origins.get_mut(name) else { return };
        if let Some(until) = origin.rests_until.take() {
            self.push.silent.remove(&(until, name.to_owned()));
        }
        self.push.line_up(name);
        self.push.tidy_origin(name);
    }

    /// What the end of a post says about its origin.
    fn note_landing(&mut self, name: &str, landing: &Landing, now: Timestamp, random: u64) {
        let Some(origin) = self.push.origins.get_mut(name) else { return };
        origin.flying = origin.flying.saturating_sub(1);
        match landing {
            Landing::Answered(_) => {
                origin.silences = 0;
                origin.window = (origin.window + 1).min(PUSH_PER_ORIGIN_MAX);
                self.end_silence(name);
            }
            // Posts that were in flight together and fail together are one silence.
            Landing::Unanswered(_) if origin.rests_until.is_none() => {
                origin.silences = origin.silences.saturating_add(1);
                origin.window = 1;
                let until = now.plus(rest(origin.silences, ORIGIN_REST_MAX, random));
                origin.rests_until = Some(until);
                self.push.silent.insert((until, name.to_owned()));
            }
            Landing::Unanswered(_) => {}
        }
        self.push.line_up(name);
        self.push.tidy_origin(name);
    }
}

impl Push {
    fn line_up(&mut self, name: &str) {
        let Some(origin) = self.origins.get_mut(name) else { return };
        if origin.is_open() && !origin.in_turn {
            origin.in_turn = true;
            self.turn.push_back(name.to_owned());
        }
    }

    fn tidy_origin(&mut self, name: &str) {
        if self.origins.get(name).is_some_and(Origin::is_idle) {
            self.origins.remove(name);
        }
    }
}

/// How long to rest after the given number of failures: between half and all of a doubling time, so that what failed
/// together does not come back together.
fn rest(failures: u32, longest: Millis, random: u64) -> Millis {
    let whole = doubled(failures, longest).0;
    let half = whole / 2;
    Millis(half + random % (whole - half + 1))
}

#[cfg(test)]
impl Push {
    pub(super) fn is_queued(&self, seq: u64, origin: &str) -> bool {
        let Some(found) = self.origins.get(origin) else { return false };
        let is_up = !found.is_open() || self.turn.iter().any(|name| name == origin);
        let wakes = found.rests_until.is_none_or(|until| self.silent.contains(&(until, origin.to_owned())));
        found.waiting.contains(&seq) && is_up && wakes
    }
}

#[cfg(test)]
mod tests;
