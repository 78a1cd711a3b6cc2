use super::seconds::{Second, Seconds};
use crate::miss::{Counter, Trial};
use base::{Millis, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Counts in buckets of an eighth of the half-life, so that a decayed rate is a sum of integers and does
/// not depend on the order of arrival.
#[derive(Clone, Debug, Default)]
pub(super) struct Rate {
    buckets: BTreeMap<i64, u64>,
}

/// Buckets kept: eight half-lives.
const BUCKETS: i64 = 64;
/// 2^(-k/8) in ppm.
const EIGHTHS: [u64; 8] = [1_000_000, 917_004, 840_896, 771_105, 707_107, 648_420, 594_604, 545_254];

impl Rate {
    pub(super) fn count(&mut self, at: Timestamp, half_life: Millis) {
        let bucket = at.0.div_euclid(bucket_ms(half_life));
        *self.buckets.entry(bucket).or_insert(0) += 1;
        while self.buckets.first_key_value().is_some_and(|(first, _)| *first <= bucket - BUCKETS) {
            self.buckets.pop_first();
        }
    }

    /// Milli-requests per second at `now`, of a graph that began at `began`.
    pub(super) fn mrps(&self, began: Timestamp, now: Timestamp, half_life: Millis) -> u64 {
        let length = bucket_ms(half_life);
        let (newest, oldest) = (now.0.div_euclid(length), began.0.div_euclid(length));
        let (mut weighted, mut time) = (0_u128, 0_u128);
        for age in 0..BUCKETS.min(newest - oldest + 1) {
            let bucket = newest - age;
            let (from, to) = ((bucket * length).max(began.0), ((bucket + 1) * length).min(now.0));
            let step = usize::try_from(age % 8).unwrap_or(0);
            let weight = u128::from(EIGHTHS.get(step).copied().unwrap_or(0) >> (age / 8));
            weighted += weight * u128::from(self.buckets.get(&bucket).copied().unwrap_or(0));
            time += weight * u128::try_from((to - from).max(0)).unwrap_or(0);
        }
        u64::try_from((weighted * 1_000_000).checked_div(time).unwrap_or(0)).unwrap_or(u64::MAX)
    }
}

fn bucket_ms(half_life: Millis) -> i64 {
    i64::try_from(half_life.0 / 8).unwrap_or(i64::MAX).max(1)
}

/// Counts per second, with durations in sixteenths of an octave.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    cells: BTreeMap<i64, Cell>,
}

#[derive(Clone, Debug, Default)]
struct Cell {
    total: u32,
    errors: u32,
    marked: u32,
    durations: BTreeMap<u16, u32>,
}

impl History {
    pub(super) fn count(&mut self, end_us: u64, error: bool, marked: bool, duration_us: Option<u64>, keep: Millis) {
        let second = i64::try_from(end_us / 1_000_000).unwrap_or(i64::MAX);
        let cell = self.cells.entry(second).or_default();
        cell.total = cell.total.saturating_add(1);
        cell.errors = cell.errors.saturating_add(u32::from(error));
        cell.marked = cell.marked.saturating_add(u32::from(marked));
        if let Some(duration) = duration_us {
            *cell.durations.entry(octave(duration)).or_insert(0) += 1;
        }
        let newest = self.cells.last_key_value().map_or(second, |(last, _)| *last);
        let oldest = newest.saturating_sub(i64::try_from(keep.0 / 1_000).unwrap_or(i64::MAX));
        while self.cells.first_key_value().is_some_and(|(first, _)| *first < oldest) {
            self.cells.pop_first();
        }
    }

    pub(super) fn seconds(&self) -> Seconds {
        let second = |(at, cell): (&i64, &Cell)| Second {
            at: *at,
            total: cell.total,
            errors: cell.errors,
            marked: cell.marked,
            p99_us: cell.p99_us(),
        };
        Seconds(self.cells.iter().map(second).collect())
    }
}

impl Cell {
    fn p99_us(&self) -> u32 {
        let all: u64 = self.durations.values().map(|count| u64::from(*count)).sum();
        let mut left = (all * 99).div_ceil(100);
        for (bucket, count) in &self.durations {
            left = left.saturating_sub(u64::from(*count));
            if left == 0 {
                return u32::try_from(octave_end(*bucket)).unwrap_or(u32::MAX);
            }
        }
        0
    }
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

/// Two counts over a sliding window, in tenths of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Pair {
    buckets: BTreeMap<i64, (u64, u64)>,
}

impl Pair {
    pub(super) fn count(&mut self, now: Timestamp, window: Millis, first: u64, second: u64) {
        let bucket = now.0.div_euclid(tenth(window));
        let entry = self.buckets.entry(bucket).or_default();
        *entry = (entry.0 + first, entry.1 + second);
        while self.buckets.first_key_value().is_some_and(|(first, _)| *first < bucket - 10) {
            self.buckets.pop_first();
        }
    }

    pub(super) fn sum(&self, now: Timestamp, window: Millis) -> (u64, u64) {
        let oldest = now.minus(window).0.div_euclid(tenth(window));
        self.buckets.range(oldest..).fold((0, 0), |sum, (_, entry)| (sum.0 + entry.0, sum.1 + entry.1))
    }
}

fn tenth(window: Millis) -> i64 {
    i64::try_from(window.0 / 10).unwrap_or(i64::MAX).max(1)
}

/// What a service's node is and what was counted of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) has_spans: bool,
    /// Seen as the peer of a call: a store, a queue.
    pub(super) is_store: bool,
    pub(super) is_queue: bool,
    pub(super) generations: Vec<Generation>,
    pub(super) instances: BTreeMap<String, Timestamp>,
    pub(super) inward: Counter,
    pub(super) outward: Counter,
    pub(super) entries: Rate,
    pub(super) roots: Rate,
    pub(super) entry_count: u64,
    pub(super) duration_us: u128,
    pub(super) history: History,
    pub(super) root_history: History,
    pub(super) coverage: Pair,
    pub(super) operations: BTreeMap<String, u32>,
    pub(super) declared: Option<DeclaredService>,
    pub(super) suspected: bool,
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
#[derive(Clone, Debug, Default)]
pub(super) struct Operation {
    pub(super) name: String,
    pub(super) service: u32,
    pub(super) outward: Counter,
}

/// A dependency between two operations.
#[derive(Clone, Debug, Default)]
pub(super) struct Edge {
    pub(super) caller: u32,
    pub(super) callee: u32,
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
    pub(super) is_async: bool,
    pub(super) rate: Rate,
    pub(super) first_seen: Option<Timestamp>,
    pub(super) last_seen: Option<Timestamp>,
}

/// Everything known between two services.
#[derive(Clone, Debug, Default)]
pub(super) struct Flow {
    pub(super) edges: BTreeSet<u32>,
    pub(super) history: History,
    pub(super) declared: Option<DeclaredEdge>,
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
    pub(super) traces: u64,
    pub(super) visits: BTreeMap<u32, u64>,
}

/// One execution: its trials, and its calls by edge (how many, and whether one went well).
#[derive(Clone, Debug, Default)]
pub(super) struct Execution {
    pub(super) service: Option<Trial>,
    pub(super) operation: Option<Trial>,
    pub(super) calls: Vec<(u32, u32, bool)>,
}

impl Edge {
    /// Whether answers use it: not while every call to the peer turned out to reach a service with spans.
    pub(super) fn is_known(&self) -> bool {
        self.calls > 0 || self.answered == 0
    }
}

impl Service {
    pub(super) fn generation(&self) -> Option<&str> {
        self.generations.last().map(|generation| generation.name.as_str()).filter(|name| !name.is_empty())
    }
}
