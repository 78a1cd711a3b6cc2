//! What a graph that saw only a part of the traces misses of the rest, and whether its bound said so.
//!
//! Each holdout learns a graph from a part of the recorded traces and asks it about what was held out: which edges,
//! calls and traces use an edge it does not know, and which decisions ("restart this service") it answers with a
//! group member or a hard caller missing. A decision counts as missed when permission for it was full; `decision_raw`
//! counts it whatever the permission.

mod learn;
mod traces;

use crate::graph::{Config, GraphError};
use crate::span::Span;
use crate::stats;
use crate::topology::Topology;
use base::Ratio;
use learn::Bench;
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};
use std::collections::BTreeMap;

/// LIMIT: services that are blacked out, the ones with the most spans first.
pub const BLACKOUTS_MAX: usize = 64;
/// LIMIT: spans of one evaluation; every holdout joins them again.
pub const HOLDOUT_SPANS_MAX: usize = 4 << 20;
/// Error probability of every interval.
const ALPHA_PPM: u32 = 50_000;
/// Shares of the recorded time that are learned from, ppm.
const TIME_PPM: [u32; 5] = [20_000, 100_000, 250_000, 500_000, 800_000];
/// Shares of the traces that are learned from, ppm, and how often each is drawn.
const SAMPLING_PPM: [(u32, u32); 5] = [(800_000, 5), (100_000, 10), (50_000, 20), (10_000, 40), (5_000, 40)];

base::word_enum! {
    /// What is held out.
    pub enum Holdout {
        /// Everything after an instant.
        Time = 1 "time",
        /// All but a sample of the traces.
        Sampling = 2 "sampling",
        /// Everything under faults; what is learned is without any.
        Fault = 3 "fault",
        /// All spans of one service, each in turn.
        Blackout = 4 "blackout",
    }
}

base::word_enum! {
    /// Whether the printed bound contained what was found.
    pub enum Covered {
        /// It did, wherever one was claimed.
        True = 1 "true",
        /// It did not.
        False = 2 "false",
        /// None was claimed: the holdout breaks its assumption, or nothing had full permission.
        NotClaimed = 3 "not_claimed",
    }
}

/// What is evaluated.
#[derive(Clone, Copy, Debug)]
pub struct Recording<'a> {
    /// The spans held out from.
    pub spans: &'a [Span],
    /// Spans of the same system without faults, if there are any.
    pub fault_free: Option<&'a [Span]>,
    /// What is declared.
    pub topology: Option<&'a Topology>,
}

/// Why there is no evaluation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HoldoutError {
    /// No spans.
    #[error("there are no spans to hold out from")]
    Empty,
    /// More spans than are evaluated.
    #[error("{spans} spans are more than the {limit} that are evaluated at once: cut the file")]
    TooManySpans {
        /// How many there are.
        spans: usize,
        /// The limit.
        limit: usize,
    },
    /// The fault holdout needs two recordings.
    #[error("the fault holdout learns from a recording without faults, and none was given")]
    FaultFreeMissing,
    /// The topology file was not taken.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// `k` of `n`, with its 95% Clopper-Pearson interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// How many were missed.
    pub k: u64,
    /// Of how many.
    pub n: u64,
}

/// One row: what was learned from, and what was missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What was learned from.
    pub learned: String,
    /// How often it was drawn.
    pub draws: u32,
    /// Service edges of the held-out part that the learned graph does not have.
    pub edge_fn: Share,
    /// Calls over such edges.
    pub call_fn: Share,
    /// Held-out traces with such a call.
    pub trace_fn: Share,
    /// Decisions with full permission that lack a group member or a hard caller, of all decisions. A true hard caller
    /// is a service that a trace shows to reach the restarted one.
    pub decision_fn: Share,
    /// The same, of the decisions with full permission alone.
    pub decision_fn_of_full: Share,
    /// As `decision_fn`, counting every hard caller that the edges allow, be it on a path that no trace took.
    pub decision_fn_closure: Share,
    /// Decisions that lack one, whatever the permission.
    pub decision_raw: Share,
    /// Decisions that reach full permission.
    pub full: Share,
    /// The largest unseen mass that a decision with full permission claimed; absent: none was claimed.
    #[serde(serialize_with = "fraction")]
    pub bound: Option<Ratio>,
    /// Whether the bounds contained what the held-out part showed.
    #[serde(serialize_with = "word")]
    pub covered: Covered,
    /// Bounds compared with the held-out part.
    pub bounds_checked: u64,
    /// Of these, bounds below the share observed; chance alone makes some.
    pub bounds_below_observed: u64,
}

/// One holdout: all its rows, and their sum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evaluated {
    /// All rows together.
    #[serde(flatten)]
    pub total: Row,
    /// Row by row.
    pub rows: Vec<Row>,
}

/// Evaluates one holdout.
///
/// # Errors
/// No spans or too many, a fault holdout without a recording that is free of faults, or a topology file that
/// contradicts itself.
pub fn evaluate(config: &Config, recording: &Recording<'_>, holdout: Holdout) -> Result<Evaluated, HoldoutError> {
    let spans = recording.spans.len() + recording.fault_free.map_or(0, <[Span]>::len);
    if recording.spans.is_empty() {
        return Err(HoldoutError::Empty);
    }
    if spans > HOLDOUT_SPANS_MAX {
        return Err(HoldoutError::TooManySpans { spans, limit: HOLDOUT_SPANS_MAX });
    }
    let topology = recording.topology;
    let counted = match holdout {
        Holdout::Time => time(&Bench::new(config, topology, recording.spans)?)?,
        Holdout::Sampling => sampling(&Bench::new(config, topology, recording.spans)?)?,
        Holdout::Blackout => blackout(&Bench::new(config, topology, recording.spans)?)?,
        Holdout::Fault => {
            let learned = recording.fault_free.filter(|spans| !spans.is_empty());
            let learned = learned.ok_or(HoldoutError::FaultFreeMissing)?;
            let all: Vec<Span> = learned.iter().chain(recording.spans).cloned().collect();
            fault(&Bench::new(config, topology, &all)?, learned.len())?
        }
    };
    Ok(summed(holdout, counted))
}

/// What one row counted.
#[derive(Clone, Debug, Default)]
struct Counted {
    edges: Share,
    calls: Share,
    traces: Share,
    missed_at_full: u64,
    not_closed_at_full: u64,
    missed: u64,
    full: Share,
    bound: Option<Ratio>,
    checks: Vec<Check>,
}

/// One bound and what the held-out part showed of it.
#[derive(Clone, Copy, Debug)]
struct Check {
    bound: Ratio,
    surprises: Share,
}

type Rows = Vec<(String, u32, Counted)>;

fn time(bench: &Bench<'_>) -> Result<Rows, HoldoutError> {
    let starts = &bench.traces.starts_us;
    let (first, last) = (starts.iter().min().copied().unwrap_or(0), starts.iter().max().copied().unwrap_or(0));
    let mut rows = Rows::new();
    for share in TIME_PPM {
        let length = u128::from(last - first) * u128::from(share) / 1_000_000;
        let end = first.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        let learned: Vec<bool> = starts.iter().map(|start| *start < end).collect();
        let counted = bench.split(&learned)?;
        rows.push((format!("the first {} of the time", Ratio::clamped(share.into())), 1, counted));
    }
    Ok(rows)
}

fn sampling(bench: &Bench<'_>) -> Result<Rows, HoldoutError> {
    let mut rows = Rows::new();
    for (share, draws) in SAMPLING_PPM {
        let mut all = Counted::default();
        for draw in 0..draws {
            let seed = u64::from(share) << 32 | u64::from(draw);
            let traces = 0..bench.traces.starts_us.len() as u64;
            let learned: Vec<bool> = traces.map(|trace| mixed(seed, trace) % 1_000_000 < share.into()).collect();
            all.add(bench.split(&learned)?);
        }
        rows.push((format!("{} of the traces", Ratio::clamped(share.into())), draws, all));
    }
    Ok(rows)
}

fn fault(bench: &Bench<'_>, learned: usize) -> Result<Rows, HoldoutError> {
    let mut is_learned = vec![false; bench.traces.starts_us.len()];
    for trace in bench.traces.of_span.iter().take(learned) {
        is_learned.get_mut(*trace as usize).into_iter().for_each(|learned| *learned = true);
    }
    // No bound is claimed for paths that appear under faults only.
    Ok(vec![("the recording without faults".to_owned(), 1, bench.split(&is_learned)?.unclaimed())])
}

fn blackout(bench: &Bench<'_>) -> Result<Rows, HoldoutError> {
    let mut all = Counted::default();
    let dark = bench.busiest(BLACKOUTS_MAX);
    for service in &dark {
        all.add(bench.without(service)?.unclaimed());
    }
    let draws = u32::try_from(dark.len()).unwrap_or(u32::MAX);
    Ok(vec![("all but the spans of one service, each in turn".to_owned(), draws, all)])
}

impl Counted {
    fn add(&mut self, other: Counted) {
        self.edges.add(other.edges);
        self.calls.add(other.calls);
        self.traces.add(other.traces);
        self.missed_at_full += other.missed_at_full;
        self.not_closed_at_full += other.not_closed_at_full;
        self.missed += other.missed;
        self.full.add(other.full);
        self.bound = self.bound.max(other.bound);
        self.checks.extend(other.checks);
    }

    fn unclaimed(self) -> Counted {
        Counted { bound: None, checks: Vec::new(), ..self }
    }

    /// Judged among `family` comparisons, so that chance alone says "not covered" of all of them together with
    /// the interval's error probability.
    fn covered(&self, family: usize) -> Covered {
        let alpha = ALPHA_PPM / u32::try_from(family.max(1)).unwrap_or(u32::MAX);
        let shown = |check: &Check| stats::cp_lower(check.surprises.k, check.surprises.n, alpha.max(1));
        match () {
            () if self.checks.is_empty() => Covered::NotClaimed,
            () if self.checks.iter().any(|check| shown(check) > check.bound) => Covered::False,
            () => Covered::True,
        }
    }

    fn row(&self, learned: String, draws: u32, covered: Covered) -> Row {
        let of = |k, n| Share { k, n };
        let below = |check: &&Check| check.surprises.point_down() > check.bound;
        Row {
            learned,
            draws,
            edge_fn: self.edges,
            call_fn: self.calls,
            trace_fn: self.traces,
            decision_fn: of(self.missed_at_full, self.full.n),
            decision_fn_of_full: of(self.missed_at_full, self.full.k),
            decision_fn_closure: of(self.not_closed_at_full, self.full.n),
            decision_raw: of(self.missed, self.full.n),
            full: self.full,
            bound: self.bound,
            covered,
            bounds_checked: self.checks.len() as u64,
            bounds_below_observed: self.checks.iter().filter(below).count() as u64,
        }
    }
}

fn summed(holdout: Holdout, counted: Rows) -> Evaluated {
    let family = counted.iter().map(|(_, _, row)| row.checks.len()).sum();
    let mut all = Counted::default();
    let mut rows = Vec::new();
    let mut draws = 0;
    for (learned, times, row) in counted {
        rows.push(row.row(learned, times, row.covered(family)));
        all.add(row);
        draws += times;
    }
    let total = all.row(format!("all rows of the {holdout} holdout"), draws, all.covered(family));
    Evaluated { total, rows }
}

impl Share {
    /// Its 95% interval, rounded outward; the whole range when there was nothing to miss.
    #[must_use]
    pub fn interval(self) -> (Ratio, Ratio) {
        stats::cp_interval(self.k, self.n, ALPHA_PPM)
    }

    fn add(&mut self, other: Share) {
        (self.k, self.n) = (self.k + other.k, self.n + other.n);
    }

    fn point_down(self) -> Ratio {
        Ratio::down(self.k, self.n).unwrap_or(Ratio::ZERO)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (low, high) = self.interval();
        #[expect(clippy::cast_precision_loss, reason = "counts of a recording stay far below 2^53")]
        let point = if self.n == 0 { 0.0 } else { self.k as f64 / self.n as f64 };
        let mut fields = serializer.serialize_struct("Share", 5)?;
        fields.serialize_field("point", &point)?;
        fields.serialize_field("low", &float(low))?;
        fields.serialize_field("high", &float(high))?;
        fields.serialize_field("n", &self.n)?;
        fields.serialize_field("k", &self.k)?;
        fields.end()
    }
}

fn float(ratio: Ratio) -> f64 {
    f64::from(ratio.ppm()) / 1_000_000.0
}

fn fraction<S: Serializer>(ratio: &Option<Ratio>, serializer: S) -> Result<S::Ok, S::Error> {
    ratio.map(float).serialize(serializer)
}

/// A truth value where there is one, else a word.
fn word<S: Serializer>(covered: &Covered, serializer: S) -> Result<S::Ok, S::Error> {
    match covered {
        Covered::True => serializer.serialize_bool(true),
        Covered::False => serializer.serialize_bool(false),
        Covered::NotClaimed => serializer.serialize_str(covered.word()),
    }
}

/// A number that looks drawn at random and is the same in every run: the finalizer of SplitMix64
/// (Steele, Lea and Flood, 2014).
fn mixed(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index.wrapping_mul(0xd1b5_4a32_d192_ed03));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Numbers of services in a snapshot's words.
type ServiceNumbers<'a> = BTreeMap<&'a str, u32>;

#[cfg(test)]
mod tests;
