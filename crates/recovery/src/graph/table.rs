use super::seconds::{Second, Seconds};
use crate::miss::Counter;
use base::{Millis, Timestamp};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Counts in buckets of an eighth of the half-life, oldest first, so that a decayed rate is a sum of integers and
/// does not depend on the order of arrival.
#[derive(Clone, Debug, Default)]
pub(super) struct Rate {
    buckets: Vec<(i64, u64)>,
}

/// Buckets kept: eight half-lives.
const BUCKETS: i64 = 64;
/// 2^(-k/8) in ppm.
const EIGHTHS: [u64; 8] = [1_000_000, 917_004, 840_896, 771_105, 707_107, 648_420, 594_604, 545_254];

/// When rates are read: the weighted time that they are divided by, which all of them share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    newest: i64,
    buckets: i64,
    time: u128,
}

impl Clock {
    /// Rates at `now`, of a graph that began at `began`.
    pub(super) fn at(began: Timestamp, now: Timestamp, half_life: Millis) -> Clock {
        let length = bucket_ms(half_life);
        let (newest, oldest) = (now.0.div_euclid(length), began.0.div_euclid(length));
        let buckets = BUCKETS.min(newest - oldest + 1);
        let time = (0..buckets).map(|age| {
            let bucket = newest - age;
            let (from, to) = ((bucket * length).max(began.0), ((bucket + 1) * length).min(now.0));
            u128::from(weight(age)) * u128::try_from((to - from).max(0)).unwrap_or(0)
        });
        Clock { newest, buckets, time: time.sum() }
    }
}

fn weight(age: i64) -> u64 {
    let step = usize::try_from(age % 8).unwrap_or(0);
    EIGHTHS.get(step).copied().unwrap_or(0) >> (age / 8)
}

impl Rate {
    pub(super) fn count(&mut self, at: Timestamp, half_life: Millis) {
        let bucket = at.0.div_euclid(bucket_ms(half_life));
        match self.buckets.last_mut() {
            Some((last, count)) if *last == bucket => *count += 1,
            Some((last, _)) if *last > bucket => {
                let place = self.buckets.partition_point(|(known, _)| *known < bucket);
                match self.buckets.get_mut(place).filter(|(known, _)| *known == bucket) {
                    Some((_, count)) => *count += 1,
                    None => self.buckets.insert(place, (bucket, 1)),
                }
            }
            _ => self.buckets.push((bucket, 1)),
        }
        let stale = self.buckets.partition_point(|(known, _)| *known <= bucket - BUCKETS);
        self.buckets.drain(..stale);
    }

    /// Milli-requests per second.
    pub(super) fn mrps(&self, clock: &Clock) -> u64 {
        let mut weighted = 0_u128;
        for (bucket, count) in &self.buckets {
            let age = clock.newest - bucket;
            if (0..clock.buckets).contains(&age) {
                weighted += u128::from(weight(age)) * u128::from(*count);
            }
        }
        u64::try_from((weighted * 1_000_000).checked_div(clock.time).unwrap_or(0)).unwrap_or(u64::MAX)
    }
}

fn bucket_ms(half_life: Millis) -> i64 {
    i64::try_from(half_life.0 / 8).unwrap_or(i64::MAX).max(1)
}

/// Counts per second, with durations in sixteenths of an octave; both oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    cells: Vec<Cell>,
    durations: Vec<Octave>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    at: u32,
    total: u32,
    errors: u32,
    marked: u32,
}

/// Durations of one second that fall into one sixteenth of an octave.
#[derive(Clone, Copy, Debug)]
struct Octave {
    at: u32,
    bucket: u16,
    count: u32,
}

/// Durations that are looked at one by one, the newest first.
const NEWEST: usize = 48;
/// What is too old is dropped when so many seconds of it have gathered.
const SLACK: u32 = 16;

impl History {
    pub(super) fn count(&mut self, end_us: u64, error: bool, marked: bool, duration_us: Option<u64>, keep: Millis) {
        let at = u32::try_from(end_us / 1_000_000).unwrap_or(u32::MAX);
        let newest = self.cells.last().map_or(at, |last| last.at.max(at));
        let oldest = newest.saturating_sub(seconds_of(keep));
        if at < oldest {
            return;
        }
        let cell = self.cell(at);
        cell.total = cell.total.saturating_add(1);
        cell.errors = cell.errors.saturating_add(u32::from(error));
        cell.marked = cell.marked.saturating_add(u32::from(marked));
        if let Some(duration) = duration_us {
            self.duration(at, octave(duration));
        }
        if self.cells.first().is_some_and(|first| first.at.saturating_add(SLACK) < oldest) {
            let stale = self.cells.partition_point(|cell| cell.at < oldest);
            self.cells.drain(..stale);
            let stale = self.durations.partition_point(|known| known.at < oldest);
            self.durations.drain(..stale);
        }
    }

    fn cell(&mut self, at: u32) -> &mut Cell {
        let place = match self.cells.last() {
            Some(last) if last.at == at => self.cells.len() - 1,
            Some(last) if last.at > at => self.cells.partition_point(|cell| cell.at < at),
            _ => self.cells.len(),
        };
        if self.cells.get(place).is_none_or(|cell| cell.at != at) {
            self.cells.insert(place, Cell { at, ..Cell::default() });
        }
        // INVARIANT: `place` holds the second now.
        &mut self.cells[place]
    }

    fn duration(&mut self, at: u32, bucket: u16) {
        // Nearly always one of the newest: a search of the whole would touch memory that nothing else needs.
        let before = |known: &Octave| (known.at, known.bucket) < (at, bucket);
        let newer = self.durations.iter().rev().take(NEWEST).take_while(|known| !before(known)).count();
        let place = if newer < NEWEST { self.durations.len() - newer } else { self.durations.partition_point(before) };
        match self.durations.get_mut(place).filter(|known| (known.at, known.bucket) == (at, bucket)) {
            Some(known) => known.count = known.count.saturating_add(1),
            None => self.durations.insert(place, Octave { at, bucket, count: 1 }),
        }
    }

    pub(super) fn seconds(&self, keep: Millis) -> Seconds {
        let oldest = self.cells.last().map_or(0, |last| last.at.saturating_sub(seconds_of(keep)));
        let mut durations = self.durations.as_slice();
        let cells = self.cells.iter().filter(|cell| cell.at >= oldest);
        let second = |cell: &Cell| {
            let from = durations.partition_point(|known| known.at < cell.at);
            let to = durations.partition_point(|known| known.at <= cell.at);
            let own = durations.get(from..to).unwrap_or_default();
            durations = durations.get(to..).unwrap_or_default();
            let Cell { at, total, errors, marked } = *cell;
            Second { at: at.into(), total, errors, marked, p99_us: p99_us(own) }
        };
        Seconds(cells.map(second).collect())
    }
}

fn seconds_of(keep: Millis) -> u32 {
    u32::try_from(keep.0 / 1_000).unwrap_or(u32::MAX)
}

fn p99_us(durations: &[Octave]) -> u32 {
    let all: u64 = durations.iter().map(|known| u64::from(known.count)).sum();
    let mut left = (all * 99).div_ceil(100);
    for known in durations {
        left = left.saturating_sub(u64::from(known.count));
        if left == 0 {
            return u32::try_from(octave_end(known.bucket)).unwrap_or(u32::MAX);
        }
    }
    0
}

fn octave(value: u64) -> u16 {
    let power = value.max(16).ilog2();
    let within = (value.max(16) >> (power - 4)) & 15;
    u16::try_from(u64::from(power) * 16 + within).unwrap_or(u16::MAX)
}

fn octave_end(bucket: u16) -> u64 {
    let (power, within) = (u32::from(bucket / 16), u128::from(bucket % 16));
    // The last bucket ends with the last number, one before a power of two that is none.
    u64::try_from(((17 + within) << (power - 4)) - 1).unwrap_or(u64::MAX)
}

/// Two counts over a sliding window, in tenths of it, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Pair {
    buckets: Vec<(i64, u64, u64)>,
}

impl Pair {
    pub(super) fn count(&mut self, now: Timestamp, window: Millis, first: u64, second: u64) {
        let bucket = now.0.div_euclid(tenth(window));
        let place = self.buckets.partition_point(|(known, _, _)| *known < bucket);
        match self.buckets.get_mut(place).filter(|(known, _, _)| *known == bucket) {
            Some((_, one, two)) => (*one, *two) = (*one + first, *two + second),
            None => self.buckets.insert(place, (bucket, first, second)),
        }
        let stale = self.buckets.partition_point(|(known, _, _)| *known < bucket - 10);
        self.buckets.drain(..stale);
    }

    pub(super) fn sum(&self, now: Timestamp, window: Millis) -> (u64, u64) {
        let oldest = now.minus(window).0.div_euclid(tenth(window));
        let recent = self.buckets.iter().filter(|(known, _, _)| *known >= oldest);
        recent.fold((0, 0), |sum, (_, first, second)| (sum.0 + first, sum.1 + second))
    }
}

fn tenth(window: Millis) -> i64 {
    i64::try_from(window.0 / 10).unwrap_or(i64::MAX).max(1)
}

/// What was counted of a service.
#[derive(Clone, Debug, Default)]
pub(super) struct Service {
    pub(super) has_spans: bool,
    /// Seen as the peer of a call: a store, a queue.
    pub(super) is_store: bool,
    pub(super) is_queue: bool,
    pub(super) suspected: bool,
    pub(super) generations: Vec<Generation>,
    /// Ordered by name.
    pub(super) instances: Vec<(Arc<str>, Timestamp)>,
    pub(super) inward: Counter,
    pub(super) outward: Counter,
    pub(super) entries: Rate,
    pub(super) roots: Rate,
    pub(super) entry_count: u64,
    pub(super) duration_us: u128,
    pub(super) history: History,
    pub(super) root_history: History,
    pub(super) coverage: Pair,
    /// Executions of each operation.
    pub(super) operations: Vec<Counter>,
    /// Traces that visit it on a blocking path, by root, ordered.
    pub(super) visits: Vec<(u32, u64)>,
    pub(super) declared: Option<Box<DeclaredService>>,
    pub(super) changed: u64,
}

/// A generation of a service: since when, and whether its counters matured.
#[derive(Clone, Debug)]
pub(super) struct Generation {
    pub(super) name: String,
    pub(super) since: Timestamp,
    pub(super) matured: bool,
}

/// What the topology file says of a service.
#[derive(Clone, Debug, Default)]
pub(super) struct DeclaredService {
    pub(super) coupled: BTreeSet<String>,
    pub(super) start_needs: BTreeSet<String>,
    pub(super) objective_p99: Option<Millis>,
    pub(super) objective_error_ppm: Option<u32>,
    pub(super) replicas: u32,
    pub(super) min_available: Option<u32>,
    pub(super) quorum_of: Option<u32>,
    pub(super) store: bool,
    pub(super) zones: Vec<String>,
}

/// An operation: what enters its service under one name.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) name: Arc<str>,
    pub(super) service: u32,
    /// Its number within its service.
    pub(super) own: u32,
    /// Its number as a root; [`NONE`]: it never was one.
    pub(super) root: u32,
}

/// No number.
pub(super) const NONE: u32 = u32::MAX;

/// A dependency between two operations.
#[derive(Clone, Debug, Default)]
pub(super) struct Edge {
    pub(super) id: u32,
    pub(super) caller: u32,
    pub(super) callee: u32,
    pub(super) is_async: bool,
    pub(super) birth: u64,
    pub(super) executions: u64,
    /// Calls; none while an outgoing span waits for the callee's.
    pub(super) calls: u64,
    /// Of an edge to a peer: outgoing spans that a child answered, under whatever name.
    pub(super) answered: u64,
    /// Executions by (callee failed, caller failed).
    pub(super) outcomes: [[u64; 2]; 2],
    pub(super) timed: u64,
    pub(super) inside: u64,
    pub(super) duration_us: u128,
    pub(super) rate: Rate,
    pub(super) first_seen: Option<Timestamp>,
    pub(super) last_seen: Option<Timestamp>,
}

/// Where an edge is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) callee: u32,
    /// [`NONE`]: it left the graph.
    pub(super) flow: u32,
    pub(super) index: u32,
}

/// Everything known between two services.
#[derive(Clone, Debug, Default)]
pub(super) struct Flow {
    /// Oldest first.
    pub(super) edges: Vec<Edge>,
    pub(super) history: History,
    pub(super) declared: Option<Box<DeclaredEdge>>,
    pub(super) missed: bool,
    pub(super) changed: u64,
}

/// What the topology file says of an edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DeclaredEdge {
    pub(super) kind: Option<super::EdgeKind>,
    pub(super) hardness: Option<super::Hardness>,
    pub(super) fallback: Option<String>,
}

/// Traces of one root operation.
#[derive(Clone, Debug, Default)]
pub(super) struct Root {
    pub(super) operation: u32,
    /// The service and the operation, with a slash between.
    pub(super) name: Arc<str>,
    pub(super) traces: u64,
}

impl Edge {
    /// Whether answers use it: not while every call to the peer turned out to reach a service with spans.
    pub(super) fn is_known(&self) -> bool {
        self.calls > 0 || self.answered == 0
    }
}

impl Flow {
    pub(super) fn known(&self) -> impl Iterator<Item = &Edge> + Clone {
        self.edges.iter().filter(|edge| edge.is_known())
    }

    pub(super) fn is_known(&self) -> bool {
        self.declared.is_some() || self.missed || self.known().next().is_some()
    }

    /// Nothing says that it exists but the calls that went unjoined.
    pub(super) fn is_bare(&self) -> bool {
        self.edges.is_empty() && self.declared.is_none() && !self.missed
    }
}

impl Service {
    pub(super) fn generation(&self) -> Option<&str> {
        self.generations.last().map(|generation| generation.name.as_str()).filter(|name| !name.is_empty())
    }

    pub(super) fn stores(&self) -> bool {
        self.declared.as_ref().is_some_and(|declared| declared.store) || (self.is_store && !self.has_spans)
    }

    /// Counts an entry, or a call that failed to enter: without a duration.
    pub(super) fn count_entry(&mut self, end_us: u64, error: bool, duration_us: Option<u64>, keep: Millis) {
        let objective = self.declared.as_ref().and_then(|declared| declared.objective_p99);
        let slow = objective.zip(duration_us).is_some_and(|(limit, duration)| duration > limit.0.saturating_mul(1_000));
        self.history.count(end_us, error, slow, duration_us, keep);
    }

    pub(super) fn visit(&mut self, root: u32) {
        let place = self.visits.partition_point(|(known, _)| *known < root);
        match self.visits.get_mut(place).filter(|(known, _)| *known == root) {
            Some((_, count)) => *count += 1,
            None => self.visits.insert(place, (root, 1)),
        }
    }
}
