//! Recorded traces joined exactly and all at once: what a graph that saw only a part of them is compared with.

use crate::span::{Kind, PeerKind, Span, operation_name};
use std::collections::{BTreeMap, BTreeSet};

/// One execution of a service: an entry span, and how it was reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Number of its trace.
    pub(super) trace: u32,
    pub(super) service: u32,
    /// The execution that called it; absent: a root, or lost.
    pub(super) above: Option<u32>,
    /// The operation edges of the call: one, or two over a queue.
    pub(super) edges: [Option<u32>; 2],
    /// The services of the call, when they differ.
    pub(super) call: Option<(u32, u32)>,
    /// Its parent is named and not there.
    pub(super) lost: bool,
}

/// A call that no span answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing {
    /// The execution that made it.
    pub(super) from: u32,
    /// Its operation edge; absent: nobody knows where it went.
    pub(super) edge: Option<u32>,
    /// The services of the call.
    pub(super) call: Option<(u32, u32)>,
}

/// All traces of a recording. Executions stand after the ones that called them.
#[derive(Debug, Default)]
pub(super) struct Traces {
    pub(super) entries: Vec<Entry>,
    pub(super) outgoing: Vec<Outgoing>,
    /// Start of each trace.
    pub(super) starts_us: Vec<u64>,
    /// Trace of each span, by the span's place in the recording.
    pub(super) of_span: Vec<u32>,
    services: Names<String>,
    operations: Names<(u32, String)>,
    edges: Names<(u32, u32)>,
    /// Of each operation its service.
    operation_services: Vec<u32>,
}

/// Numbers for names, in the order in which they come.
#[derive(Debug)]
struct Names<T>(BTreeMap<T, u32>);

impl<T> Default for Names<T> {
    fn default() -> Names<T> {
        Names(BTreeMap::new())
    }
}

impl<T: Ord> Names<T> {
    fn number(&mut self, name: T) -> u32 {
        let next = count(self.0.len());
        *self.0.entry(name).or_insert(next)
    }
}

/// The place of a span, once known.
#[derive(Clone, Copy, Debug)]
struct Placed {
    entry: u32,
    operation: u32,
}

impl Traces {
    /// Joins the spans; of two with one id the first counts.
    pub(super) fn of(spans: &[Span]) -> Traces {
        let mut traces = Traces::default();
        let mut numbers: Names<u128> = Names::default();
        let mut at: BTreeMap<(u128, u64), usize> = BTreeMap::new();
        for (index, span) in spans.iter().enumerate() {
            let number = numbers.number(span.trace);
            if number as usize == traces.starts_us.len() {
                traces.starts_us.push(span.start_us);
            }
            if let Some(start) = traces.starts_us.get_mut(number as usize) {
                *start = span.start_us.min(*start);
            }
            traces.of_span.push(number);
            at.entry((span.trace, span.id)).or_insert(index);
        }
        let mut placed: Vec<Option<Placed>> = vec![None; spans.len()];
        let mut answered: BTreeSet<usize> = BTreeSet::new();
        for index in at.values() {
            traces.place(*index, spans, &at, &mut placed, &mut answered);
        }
        for index in at.values() {
            let Some(span) = spans.get(*index).filter(|span| span.leaves() && !answered.contains(index)) else {
                continue;
            };
            if let Some(placed) = placed.get(*index).copied().flatten() {
                traces.unanswered(span, placed);
            }
        }
        traces
    }

    /// How many operation edges there are.
    pub(super) fn edge_count(&self) -> usize {
        self.edges.0.len()
    }

    /// The services by name.
    pub(super) fn services(&self) -> &BTreeMap<String, u32> {
        &self.services.0
    }

    /// Places a span and, first, whatever it hangs under.
    fn place(
        &mut self,
        index: usize,
        spans: &[Span],
        at: &BTreeMap<(u128, u64), usize>,
        placed: &mut [Option<Placed>],
        answered: &mut BTreeSet<usize>,
    ) {
        let mut open = vec![index];
        let mut passed: BTreeSet<usize> = BTreeSet::new();
        while let Some(index) = open.last().copied() {
            let Some(span) = spans.get(index) else { return };
            if placed.get(index).is_some_and(Option::is_some) {
                open.pop();
                continue;
            }
            let cause = cause(span).and_then(|key| at.get(&key).copied());
            let above = cause.and_then(|above| placed.get(above).copied().flatten());
            // What hangs under itself has no beginning: its parent counts as lost.
            if let (Some(cause), None, true) = (cause, above, passed.insert(index)) {
                open.push(cause);
                continue;
            }
            let found = match (cause.and_then(|cause| spans.get(cause)), above) {
                (Some(parent), Some(above)) if !enters(span, parent) => above,
                (Some(parent), Some(above)) => {
                    answered.extend(cause);
                    self.called(span, parent, above, index)
                }
                _ => self.begun(span, index, cause_is_named(span)),
            };
            if let Some(slot) = placed.get_mut(index) {
                *slot = Some(found);
            }
            open.pop();
        }
    }

    fn begun(&mut self, span: &Span, index: usize, lost: bool) -> Placed {
        let service = self.services.number(span.service.clone());
        let operation = self.operation(service, operation_name(&span.name));
        self.entry(
            Entry { trace: self.trace(index), service, above: None, edges: [None; 2], call: None, lost },
            operation,
        )
    }

    fn called(&mut self, span: &Span, parent: &Span, above: Placed, index: usize) -> Placed {
        let service = self.services.number(span.service.clone());
        let operation = self.operation(service, operation_name(&span.name));
        let caller = self.service_of(above.operation);
        let queue = parent.peer.as_ref().filter(|peer| peer.kind == PeerKind::Queue);
        let crossed = caller != service || by_link(span);
        let edges = match queue {
            _ if !crossed => [None; 2],
            None => [Some(self.edges.number((above.operation, operation))), None],
            Some(peer) => {
                let queue = self.services.number(peer.name.clone());
                let queue = self.operation(queue, "*".to_owned());
                [Some(self.edges.number((above.operation, queue))), Some(self.edges.number((queue, operation)))]
            }
        };
        let call = (caller != service && queue.is_none()).then_some((caller, service));
        let entry = Entry { trace: self.trace(index), service, above: Some(above.entry), edges, call, lost: false };
        self.entry(entry, operation)
    }

    fn unanswered(&mut self, span: &Span, placed: Placed) {
        let caller = self.service_of(placed.operation);
        let callee = span.peer.as_ref().map(|peer| self.services.number(peer.name.clone()));
        let edge = callee.map(|callee| {
            let operation = self.operation(callee, "*".to_owned());
            self.edges.number((placed.operation, operation))
        });
        let call = callee.filter(|callee| *callee != caller).map(|callee| (caller, callee));
        self.outgoing.push(Outgoing { from: placed.entry, edge, call });
    }

    fn entry(&mut self, entry: Entry, operation: u32) -> Placed {
        self.entries.push(entry);
        Placed { entry: count(self.entries.len() - 1), operation }
    }

    fn operation(&mut self, service: u32, name: String) -> u32 {
        let number = self.operations.number((service, name));
        if number as usize == self.operation_services.len() {
            self.operation_services.push(service);
        }
        number
    }

    fn service_of(&self, operation: u32) -> u32 {
        self.operation_services.get(operation as usize).copied().unwrap_or(0)
    }

    fn trace(&self, index: usize) -> u32 {
        self.of_span.get(index).copied().unwrap_or(0)
    }
}

/// What a span hangs under: its parent, or without one its first link.
fn cause(span: &Span) -> Option<(u128, u64)> {
    let linked = || span.links.first().map(|link| (link.trace, link.id));
    span.parent.map(|parent| (span.trace, parent)).or_else(linked)
}

fn cause_is_named(span: &Span) -> bool {
    cause(span).is_some()
}

fn by_link(span: &Span) -> bool {
    span.parent.is_none() && !span.links.is_empty()
}

fn enters(span: &Span, parent: &Span) -> bool {
    by_link(span) || span.service != parent.service || matches!(span.kind, Kind::Server | Kind::Consumer)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
