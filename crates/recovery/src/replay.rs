//! Recorded spans, joined as if they arrived when they ended: what a trace file is to the graph.

use crate::graph::{Config, Graph, GraphError};
use crate::span::Span;
use crate::topology::Topology;
use base::{Millis, Timestamp};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// LIMIT: spans held back to be put in order; of a longer file the earliest go on when one more comes.
pub const HELD_SPANS_MAX: usize = 1 << 20;

/// A graph that is fed from a recording; its clock is the end of the newest span taken.
#[derive(Debug)]
pub struct Replay {
    graph: Graph,
    join: Millis,
    now: Timestamp,
    rotated: Option<Timestamp>,
}

impl Replay {
    /// An empty graph under the given windows and declarations.
    ///
    /// # Errors
    /// As [`Graph::declare`].
    pub fn new(config: &Config, topology: Option<&Topology>) -> Result<Replay, GraphError> {
        let mut graph = Graph::new(config);
        if let Some(topology) = topology {
            graph.declare(topology)?;
        }
        Ok(Replay { graph, join: config.join, now: Timestamp(0), rotated: None })
    }

    /// Takes the next span in the order of their ends; one that comes too late is taken at the present time.
    pub fn take(&mut self, span: &Span) {
        let end = Timestamp(i64::try_from(span.end_us() / 1_000).unwrap_or(i64::MAX));
        self.now = self.now.max(end);
        let last = *self.rotated.get_or_insert(self.now);
        if self.now.since(last) >= self.join {
            self.graph.rotate(self.now);
            self.rotated = Some(self.now);
        }
        self.graph.observe(span, self.now);
    }

    /// The graph, and its clock. Nothing more will come: whatever waits has waited long enough.
    #[must_use]
    pub fn finish(mut self) -> (Graph, Timestamp) {
        self.graph.rotate(self.now);
        self.graph.rotate(self.now);
        (self.graph, self.now)
    }
}

/// Spans in the order of their ends, as far as memory allows: of more than the limit, the earliest go on.
#[derive(Debug)]
pub struct Sorter {
    heap: BinaryHeap<Reverse<Held>>,
    held_max: usize,
}

#[derive(Debug)]
struct Held(Span);

impl Sorter {
    /// One that holds back at most `held_max` spans.
    #[must_use]
    pub fn new(held_max: usize) -> Sorter {
        Sorter { heap: BinaryHeap::new(), held_max }
    }

    /// Takes a span; answers the earliest one when there are too many.
    pub fn push(&mut self, span: Span) -> Option<Span> {
        self.heap.push(Reverse(Held(span)));
        if self.heap.len() > self.held_max { self.pop() } else { None }
    }

    /// The earliest span.
    pub fn pop(&mut self) -> Option<Span> {
        self.heap.pop().map(|Reverse(Held(span))| span)
    }
}

impl Held {
    fn key(&self) -> (u64, u128, u64) {
        (self.0.end_us(), self.0.trace, self.0.id)
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Held) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Held) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Held) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(trace: u128, end_us: u64) -> Span {
        Span { trace, id: 1, service: "a".into(), start_us: end_us, ..Span::default() }
    }

    #[test]
    fn spans_come_out_in_the_order_of_their_ends_as_far_as_they_are_held() {
        let mut sorter = Sorter::new(3);
        let gone: Vec<_> = [5, 1, 4, 2, 3].into_iter().filter_map(|end| sorter.push(span(end.into(), end))).collect();
        let rest: Vec<_> = std::iter::from_fn(|| sorter.pop()).collect();
        let ends = |spans: &[Span]| spans.iter().map(Span::end_us).collect::<Vec<_>>();
        assert_eq!((ends(&gone), ends(&rest)), (vec![1, 2], vec![3, 4, 5]));
    }

    #[test]
    fn a_recording_may_be_longer_than_what_is_held_back() {
        let mut sorter = Sorter::new(HELD_SPANS_MAX);
        assert!((0..HELD_SPANS_MAX as u64).all(|end| sorter.push(span(1, end)).is_none()));
        assert_eq!(sorter.push(span(1, 7)).map(|span| span.end_us()), Some(0));
    }
}
