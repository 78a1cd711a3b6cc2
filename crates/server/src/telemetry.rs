//! Telemetry intake: spans arrive over OTLP, feed the one dependency graph, and the last of them are kept for fitting
//! the model.
//!
//! Batches are read side by side and joined one after the other, off the runtime; so many are worked on at once, and
//! whoever sends more is told to come back. Read first: [`Telemetry::take`].

mod grpc;
mod http;
mod intake;
mod ports;

use base::{Millis, Timestamp};
use recovery::graph::{Config, Graph, OperationalFact, Snapshot};
use recovery::span::Span;
use recovery::topology::Topology;
use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;

use crate::engine::Env;

pub(crate) use http::routes;
pub(crate) use ports::Ports;

/// LIMIT: bytes of one export request, before and after decompression.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// LIMIT: bytes of the spans kept for the model.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// LIMIT: batches read, or waiting to be, at once; one more is refused until one is done.
const BATCHES_MAX: usize = 64;
/// LIMIT: bytes of the batches being read at once; what would be more waits.
const READING_BYTES_MAX: usize = 64 << 20;
/// LIMIT: spans joined before whoever wants to read the graph gets a turn.
const TURN_SPANS_MAX: usize = 1_024;
/// How long a span is kept for the model.
const KEPT_FOR: Millis = Millis(90_000);

/// The intake of one server; cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    env: Env,
    inner: Arc<Mutex<Inner>>,
    /// One permit for each batch in hand.
    batches: Arc<Semaphore>,
    /// One permit for each KiB of a batch being read.
    reading: Arc<Semaphore>,
}

struct Inner {
    graph: Graph,
    join: Millis,
    rotated_at: Timestamp,
    kept: VecDeque<Span>,
    kept_bytes: usize,
    kept_bytes_max: usize,
    counts: Counts,
}

/// What came over the wire, in spans unless it says otherwise. What the graph made of it is in
/// [`recovery::graph::Counts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken.
    pub received: u64,
    /// Refused because nothing can be made of them.
    pub refused: u64,
    /// Taken, and ended so long ago that what they belong to may have been given up: longer than spans wait for a parent.
    pub late: u64,
    /// Batches refused because too many were in hand.
    pub busy: u64,
}

/// What a graph cannot take from a topology file.
#[derive(Debug, thiserror::Error)]
#[error("the topology file contradicts itself: {0}")]
pub struct DeclareError(String);

impl Telemetry {
    /// An empty intake.
    ///
    /// # Errors
    /// Declarations that contradict themselves.
    pub fn new(env: Env, config: &Config, topology: &Topology) -> Result<Telemetry, DeclareError> {
        let mut graph = Graph::new(config);
        graph.declare(topology).map_err(|error| DeclareError(error.to_string()))?;
        let rotated_at = env.now();
        let (kept, counts) = (VecDeque::new(), Counts::default());
        let (join, kept_bytes_max) = (config.join, KEPT_BYTES_MAX);
        let inner = Inner { graph, join, rotated_at, kept, kept_bytes: 0, kept_bytes_max, counts };
        let [batches, reading] =
            [BATCHES_MAX, READING_BYTES_MAX >> 10].map(|permits| Arc::new(Semaphore::new(permits)));
        Ok(Telemetry { env, inner: Arc::new(Mutex::new(inner)), batches, reading })
    }

    /// Takes spans.
    pub fn observe(&self, spans: Vec<Span>) {
        let mut spans = spans.into_iter();
        loop {
            let now = self.env.now();
            let mut inner = self.lock();
            inner.rotate(now);
            for span in spans.by_ref().take(TURN_SPANS_MAX) {
                inner.observe(span, now);
            }
            inner.forget(now);
            if spans.len() == 0 {
                return;
            }
        }
    }

    /// Tells the graph something that was observed of operations.
    pub fn record(&self, fact: &OperationalFact) {
        self.lock().graph.record(fact);
    }

    /// The graph as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let now = self.env.now();
        let mut inner = self.lock();
        inner.rotate(now);
        inner.graph.snapshot(now)
    }

    /// The kept spans that started in `[from, to)`.
    #[must_use]
    pub fn spans(&self, from: Timestamp, to: Timestamp) -> Vec<Span> {
        let (from, to) = (micros(from), micros(to));
        self.lock().kept.iter().filter(|span| span.start_us >= from && span.start_us < to).cloned().collect()
    }

    /// What came so far, and what the graph made of it.
    #[must_use]
    pub fn counts(&self) -> (Counts, recovery::graph::Counts) {
        let inner = self.lock();
        (inner.counts, inner.graph.counts())
    }

    /// How many services and how many edges between operations the graph holds.
    #[must_use]
    pub fn size(&self) -> (i64, i64) {
        let (services, edges) = self.lock().graph.sizes();
        [services, edges].map(|count| i64::try_from(count).unwrap_or(i64::MAX)).into()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while observing leaves counts behind, never a broken invariant: go on with what there is.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn rotate(&mut self, now: Timestamp) {
        if now.since(self.rotated_at) >= self.join {
            self.graph.rotate(now);
            self.rotated_at = now;
        }
    }

    fn observe(&mut self, span: Span, now: Timestamp) {
        self.graph.observe(&span, now);
        self.counts.received += 1;
        self.counts.late += u64::from(span.end_us() < micros(now.minus(self.join)));
        self.kept_bytes += bytes(&span);
        self.kept.push_back(span);
    }

    fn forget(&mut self, now: Timestamp) {
        let oldest = micros(now.minus(KEPT_FOR));
        while let Some(span) = self.kept.front()
            && (self.kept_bytes > self.kept_bytes_max || span.start_us < oldest)
        {
            self.kept_bytes -= bytes(span);
            self.kept.pop_front();
        }
    }
}

fn micros(at: Timestamp) -> u64 {
    u64::try_from(at.0).unwrap_or(0).saturating_mul(1_000)
}

/// What a kept span takes of memory, about.
fn bytes(span: &Span) -> usize {
    let texts = [Some(&span.service), Some(&span.name), span.instance.as_ref(), span.generation.as_ref()];
    let texts = texts.into_iter().flatten().map(String::capacity).sum::<usize>();
    size_of::<Span>() + texts + span.links.capacity() * size_of::<recovery::span::Link>()
}

#[cfg(test)]
mod tests;
