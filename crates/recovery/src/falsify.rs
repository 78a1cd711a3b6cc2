//! The falsifier: finds what an answer about a restart did not name and should have.
//!
//! After a restart, a service outside the recovery group and outside its hard callers that turns anomalous on requests
//! which pass a restarted member is a *missed dependency*. It is judged by the counts of whole seconds. What was wrong
//! before, what passes no restarted member, and what the trouble of a service below explains are no surprise.

use crate::graph::{Second, ServiceView, Snapshot};
use base::{Millis, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Requests of a run of bad seconds from which it says anything.
const REQUESTS_MIN: u64 = 10;

base::word_enum! {
    /// By what a service is anomalous.
    pub enum Sign {
        /// Its share of errors is up by a point or more.
        Errors = 1 "errors",
        /// Its 99th percentile is twice the usual or more, and misses its objective where it has one.
        Latency = 2 "latency",
    }
}

/// A dependency that no answer had named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// What failed.
    pub caller: String,
    /// What was restarted without it.
    pub callee: String,
    /// By what.
    pub sign: Sign,
    /// The first second of its trouble.
    pub since: Timestamp,
    /// Requests since then, while the trouble lasted.
    pub requests: u64,
    /// Of these, failed.
    pub errors: u64,
    /// The largest 99th percentile since then, microseconds.
    pub p99_us: u32,
    /// Requests of the baseline before the onset.
    pub usual_requests: u64,
    /// Of these, failed.
    pub usual_errors: u64,
    /// The usual 99th percentile, microseconds.
    pub usual_p99_us: u32,
}

/// One recovery under watch: what was known and usual before it, and what it restarted when.
#[derive(Clone, Debug)]
pub struct Watch {
    before: Snapshot,
    onset: Timestamp,
    within: Millis,
    restarted: BTreeMap<String, Timestamp>,
}

/// What is usual for a service.
#[derive(Clone, Copy)]
struct Usual {
    requests: u64,
    errors: u64,
    p99_us: u32,
}

/// Successive seconds with traffic, all bad by one sign.
#[derive(Clone, Copy)]
struct Run {
    sign: Sign,
    began: Timestamp,
    ended: Timestamp,
    /// A second before it was good: it began where it seems to begin.
    is_whole: bool,
    requests: u64,
    errors: u64,
    p99_us: u32,
}

impl Watch {
    /// A watch that compares with `before`, taken before the first restart; the baseline lies before `onset`, and what
    /// turns anomalous `within` a restart counts.
    #[must_use]
    pub fn new(before: Snapshot, onset: Timestamp, within: Millis) -> Watch {
        Watch { before, onset, within, restarted: BTreeMap::new() }
    }

    /// Notes a restart that took effect; the first of a service counts.
    pub fn restarted(&mut self, service: &str, at: Timestamp) {
        self.restarted.entry(service.to_owned()).or_insert(at);
    }

    /// When there is nothing more to see: the window of the last restart is over. `None` before the first.
    #[must_use]
    pub fn ends(&self) -> Option<Timestamp> {
        // What began in the last moment of the window is judged once it has lasted.
        let judged = self.before.config().impaired_for.0 + self.before.config().settle.0 + 1_000;
        self.restarted.values().max().map(|last| last.plus(self.within).plus(Millis(judged)))
    }

    /// The missed dependencies that `now` shows, by caller, then callee. `apart` are services that something else is known
    /// to change meanwhile: the plan itself, or another recovery.
    #[must_use]
    pub fn look(&self, now: &Snapshot, apart: &BTreeSet<String>) -> Vec<Miss> {
        if self.restarted.is_empty() {
            return Vec::new();
        }
        let named = self.named();
        let mut misses = Vec::new();
        for name in now.services() {
            let Some(view) = now.service(name).filter(|_| !named.contains(name) && !apart.contains(name)) else {
                continue;
            };
            let Some((usual, runs)) = self.trouble(name, view, now) else { continue };
            for (callee, at) in &self.restarted {
                let Some(run) = self.first(&runs, *at) else { continue };
                if self.passes(name, callee) && !self.is_explained(name, *at, now) {
                    misses.push(miss(name, callee, run, usual));
                }
            }
        }
        misses
    }

    /// Everybody whom the answer named: the closure of what was restarted, and its hard callers, however many.
    fn named(&self) -> BTreeSet<String> {
        let restarted: Vec<&str> = self.restarted.keys().map(String::as_str).collect();
        let mut named = self.before.coupled_closure(&restarted);
        let members: Vec<&str> = named.iter().map(String::as_str).collect();
        let callers = self.before.hard_callers(&members, u32::MAX);
        named.extend(callers.names().iter().cloned());
        named
    }

    /// The runs of bad seconds of a service since shortly before the onset, each long enough to say something; `None`
    /// without anything to compare with.
    fn trouble(&self, name: &str, view: &ServiceView, now: &Snapshot) -> Option<(Usual, Vec<Run>)> {
        let baseline = self.before.config().baseline;
        let usually = &self.before.service(name)?.seconds;
        let (from, to) = (self.onset.minus(baseline), self.onset);
        let sum = usually.sum(from, to);
        let usual = Usual { requests: sum.total, errors: sum.errors, p99_us: usually.usual_p99_us(from, to)? };
        let long = now.config().impaired_for;
        let runs = [Sign::Errors, Sign::Latency].into_iter().flat_map(|sign| runs(view, now, sign, usual));
        Some((usual, runs.filter(|run| run.ended.since(run.began) >= long && run.requests >= REQUESTS_MIN).collect()))
    }

    /// The first run that a restart may be the cause of: there was none by the same sign between the onset and it.
    fn first<'a>(&self, runs: &'a [Run], at: Timestamp) -> Option<&'a Run> {
        let before = |sign| runs.iter().any(|run| run.sign == sign && run.ended > self.onset && run.began < floor(at));
        runs.iter().find(|run| self.follows(run, at) && !before(run.sign))
    }

    /// Whether a run began after a restart and within its window. Seconds are whole, so the one of the restart is its own.
    fn follows(&self, run: &Run, at: Timestamp) -> bool {
        run.is_whole && run.began >= floor(at) && run.began <= at.plus(self.within)
    }

    /// Whether requests that pass the service pass the member, too: root operations whose traces visit both while somebody
    /// waits. A request that fails before it comes to the member is one of them.
    fn passes(&self, name: &str, member: &str) -> bool {
        let visits =
            |root: &crate::graph::RootView, service: &str| root.visits.get(service).is_some_and(|visits| *visits > 0);
        self.before.roots().values().any(|root| visits(root, name) && visits(root, member))
    }

    /// Whether a service that this one depends hard on is in trouble itself: then that one is the surprise, or none is. Two
    /// that depend on each other and turned bad together do not explain each other.
    fn is_explained(&self, name: &str, at: Timestamp, now: &Snapshot) -> bool {
        let below = self.below(name);
        below.iter().filter(|other| *other != name).any(|other| {
            let Some(view) = now.service(other) else { return false };
            let Some((_, runs)) = self.trouble(other, view, now) else { return false };
            let mut late = runs.iter().filter(|run| run.ended > at).peekable();
            let is_mutual = self.below(other).contains(name);
            late.peek().is_some() && !(is_mutual && late.all(|run| self.follows(run, at)))
        })
    }

    /// What a service depends on over hard edges, directly or not; itself too where calls go round.
    fn below(&self, name: &str) -> BTreeSet<String> {
        let mut reached: BTreeSet<String> = BTreeSet::new();
        let mut open = vec![name.to_owned()];
        while let Some(caller) = open.pop() {
            for edge in self.before.edges().iter().filter(|edge| edge.caller == caller && edge.is_hard()) {
                if reached.insert(edge.callee.clone()) {
                    open.push(edge.callee.clone());
                }
            }
        }
        reached
    }
}

/// The beginning of an instant's second.
fn floor(at: Timestamp) -> Timestamp {
    Timestamp(at.0.div_euclid(1_000) * 1_000)
}

fn miss(caller: &str, callee: &str, run: &Run, usual: Usual) -> Miss {
    Miss {
        caller: caller.to_owned(),
        callee: callee.to_owned(),
        sign: run.sign,
        since: run.began,
        requests: run.requests,
        errors: run.errors,
        p99_us: run.p99_us,
        usual_requests: usual.requests,
        usual_errors: usual.errors,
        usual_p99_us: usual.p99_us,
    }
}

/// The runs of successive settled seconds with traffic that are bad by a sign, oldest first.
fn runs(view: &ServiceView, now: &Snapshot, sign: Sign, usual: Usual) -> Vec<Run> {
    let settled = now.taken_at().minus(now.config().settle);
    let mut runs: Vec<Run> = Vec::new();
    let (mut open, mut was_good) = (false, false);
    for second in view.seconds.between(Timestamp(i64::MIN / 2), settled).filter(|second| second.total > 0) {
        if !is_bad(view, second, sign, usual) {
            (open, was_good) = (false, true);
            continue;
        }
        let at = Timestamp(second.at * 1_000);
        if !open {
            let (is_whole, p99_us) = (was_good, 0);
            runs.push(Run { sign, began: at, ended: at, is_whole, requests: 0, errors: 0, p99_us });
            open = true;
        }
        if let Some(run) = runs.last_mut() {
            run.ended = at.plus(Millis(1_000));
            run.requests += u64::from(second.total);
            run.errors += u64::from(second.errors);
            run.p99_us = run.p99_us.max(second.p99_us);
        }
    }
    runs
}

fn is_bad(view: &ServiceView, second: &Second, sign: Sign, usual: Usual) -> bool {
    match sign {
        // errors/total >= usual errors/requests + 1/100, in integers.
        Sign::Errors => {
            let requests = usual.requests.max(1);
            100 * u64::from(second.errors) * requests >= u64::from(second.total) * (100 * usual.errors + requests)
        }
        // WHY: a busy machine doubles the latency of anything; what still keeps its objective hurts nobody, and an edge that
        // only a person removes is not made of it.
        Sign::Latency => {
            let doubled = u64::from(second.p99_us) >= 2 * u64::from(usual.p99_us.max(1));
            let late = view.objective_p99.is_none() || 100 * u64::from(second.marked) > u64::from(second.total);
            doubled && late
        }
    }
}

#[cfg(test)]
mod tests;
