use super::{Edge, Network};
use crate::model::draw::Draw;
use crate::span::{Kind, Peer, PeerKind, Span, Status};
use base::Timestamp;

/// LIMIT: spans of one trace.
pub(super) const DRAWN_SPANS_MAX: usize = 512;
/// LIMIT: calls below each other in one trace.
pub(super) const CALL_DEPTH_MAX: u32 = 24;

/// What flows over a network, and what happens to its spans on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// What it is drawn from.
    pub seed: u64,
    /// When the first request enters.
    pub from: Timestamp,
    /// Requests per second, before sampling.
    pub requests_per_s: u32,
    /// Share of traces that are kept.
    pub sampled_ppm: u32,
    /// Share of spans that are lost.
    pub lost_ppm: u32,
    /// Share of spans that come twice.
    pub repeated_ppm: u32,
    /// Share of traces whose spans come with the innermost first.
    pub child_first_ppm: u32,
    /// Clocks of services are off by at most this, either way.
    pub skew_us: u32,
    /// A service that fails every request; the callers' fallback edges are taken then, and only then.
    pub fault: Option<u32>,
    /// Every edge is taken, whatever its probability.
    pub exhaustive: bool,
}

impl Default for Traffic {
    fn default() -> Traffic {
        Traffic {
            seed: 1,
            from: Timestamp(1_700_000_000_000),
            requests_per_s: 1_000,
            sampled_ppm: 1_000_000,
            lost_ppm: 0,
            repeated_ppm: 0,
            child_first_ppm: 500_000,
            skew_us: 0,
            fault: None,
            exhaustive: false,
        }
    }
}

/// The traces of a traffic, one after the other, without end.
pub struct Traces<'a> {
    network: &'a Network,
    traffic: Traffic,
    number: u64,
}

/// One trace while it is drawn.
struct Trace<'a> {
    network: &'a Network,
    traffic: &'a Traffic,
    trace: u128,
    draw: Draw,
    spans: Vec<Span>,
}

impl<'a> Traces<'a> {
    /// The traces of `traffic` over `network`.
    #[must_use]
    pub fn new(network: &'a Network, traffic: &Traffic) -> Traces<'a> {
        Traces { network, traffic: traffic.clone(), number: 0 }
    }

    /// A trace that makes one call over every edge, whatever its probability and whether it is a fallback: with it a
    /// graph knows the whole network. One small trace per edge.
    pub fn tour(network: &'a Network, from: Timestamp) -> impl Iterator<Item = Vec<Span>> + 'a {
        let us = u64::try_from(from.0).unwrap_or(0).saturating_mul(1_000);
        let traffic = Traffic { from, ..Traffic::default() };
        (0_u64..).zip(&network.edges).map(move |(number, edge)| {
            let draw = Draw::new(network.seed, 1, number);
            let trace = u128::from(number + 1) | 1 << 96;
            let mut trace = Trace { network, traffic: &traffic, trace, draw, spans: Vec::new() };
            let above = trace.serve(edge.caller, edge.caller_operation, None, us + number, false);
            trace.call(edge, above, us + number, CALL_DEPTH_MAX);
            trace.end(above, us + number + 2_000, false);
            trace.spans
        })
    }
}

impl Iterator for Traces<'_> {
    type Item = Vec<Span>;

    fn next(&mut self) -> Option<Vec<Span>> {
        loop {
            let number = self.number;
            self.number += 1;
            let mut draw = Draw::new(self.traffic.seed, 0, number);
            if draw.below(1_000_000) >= u64::from(self.traffic.sampled_ppm) {
                continue;
            }
            let first = u64::try_from(self.traffic.from.0).unwrap_or(0).saturating_mul(1_000);
            let at = first + number.saturating_mul(1_000_000) / u64::from(self.traffic.requests_per_s.max(1));
            let trace = u128::from(draw.next()) << 64 | u128::from(number + 1);
            let mut trace = Trace { network: self.network, traffic: &self.traffic, trace, draw, spans: Vec::new() };
            trace.request(at);
            return Some(trace.sent());
        }
    }
}

impl Trace<'_> {
    fn request(&mut self, at: u64) {
        // Few entries take most of the requests: the square of a uniform draw.
        let entries = &self.network.entries;
        let half = self.draw.below(1 << 32);
        let at_entry = u64::try_from((u128::from(half * half) * entries.len() as u128) >> 64).unwrap_or(0);
        let entry = entries.get(usize::try_from(at_entry).unwrap_or(0)).copied().unwrap_or(0);
        let operations = self.network.operations.get(entry as usize).copied().unwrap_or(1);
        let operation = u32::try_from(self.draw.below(operations.into())).unwrap_or(0);
        self.execute(entry, operation, None, at, 0);
    }

    /// One execution with everything below it; answers when it ended and whether it failed.
    fn execute(&mut self, service: u32, operation: u32, parent: Option<u64>, at: u64, depth: u32) -> (u64, bool) {
        let failing = self.traffic.fault == Some(service);
        let own = self.serve(service, operation, parent, at, failing);
        let mut clock = at + 100 + self.draw.below(900);
        let mut failed = failing;
        if !failing && depth < CALL_DEPTH_MAX {
            let (mut fell, network) = (false, self.network);
            let edges = network.callees(service).iter().filter(|edge| edge.caller_operation == operation);
            for edge in edges.clone().filter(|edge| !edge.fallback) {
                let taken = self.draw.below(1_000_000) < u64::from(edge.probability_ppm);
                if !(taken || self.traffic.exhaustive) || self.spans.len() + 2 > DRAWN_SPANS_MAX {
                    continue;
                }
                let (end, bad) = self.call(edge, own, clock, depth);
                fell |= bad;
                clock = if edge.is_async { clock } else { end } + 10;
            }
            let mut saved = false;
            for edge in edges.filter(|edge| edge.fallback && fell) {
                if self.spans.len() + 2 <= DRAWN_SPANS_MAX {
                    let (end, bad) = self.call(edge, own, clock, depth);
                    (saved, clock) = (saved || !bad, end + 10);
                }
            }
            failed = fell && !saved;
        }
        clock += self.draw.below(200);
        self.end(own, clock, failed);
        (clock, failed)
    }

    /// One call with its client span.
    fn call(&mut self, edge: &Edge, above: usize, at: u64, depth: u32) -> (u64, bool) {
        let parent = self.spans.get(above).map_or(0, |span| span.id);
        let id = self.spans.len() as u64 + 1;
        let kind = if edge.is_async { Kind::Producer } else { Kind::Client };
        let peer = Peer { kind: PeerKind::Service, name: Network::name(edge.callee) };
        let name = format!("call {}", edge.callee_operation);
        let span = self.span(edge.caller, Some(parent), (name, kind, at));
        self.spans.push(Span { peer: Some(peer).filter(|_| !edge.is_async), ..span });
        let index = self.spans.len() - 1;
        let (mut end, mut failed) = (at + 20, false);
        if depth < CALL_DEPTH_MAX {
            let start = if edge.is_async { at + 5_000 } else { at + 50 };
            let (ended, bad) = self.execute(edge.callee, edge.callee_operation, Some(id), start, depth + 1);
            (end, failed) = if edge.is_async { (end, false) } else { (ended + 50, bad) };
        } else {
            let server = self.serve(edge.callee, edge.callee_operation, Some(id), at + 10, false);
            self.end(server, at + 15, false);
        }
        self.end(index, end, failed);
        (end, failed)
    }

    fn serve(&mut self, service: u32, operation: u32, parent: Option<u64>, at: u64, failing: bool) -> usize {
        let mut span = self.span(service, parent, (format!("op{operation}"), Kind::Server, at));
        if failing {
            span.status = Status::Error;
        }
        self.spans.push(span);
        self.spans.len() - 1
    }

    fn span(&self, service: u32, parent: Option<u64>, (name, kind, at): (String, Kind, u64)) -> Span {
        let skew = u64::from(self.traffic.skew_us);
        let off = Draw::new(self.network.seed, 2, service.into()).below(2 * skew + 1);
        Span {
            trace: self.trace,
            id: self.spans.len() as u64 + 1,
            parent,
            service: Network::name(service),
            name,
            instance: Some(format!("i{}", service % 3)),
            generation: Some("1".into()),
            kind,
            start_us: (at + off).saturating_sub(skew),
            authenticated: true,
            ..Span::default()
        }
    }

    fn end(&mut self, index: usize, at: u64, failed: bool) {
        let skew = u64::from(self.traffic.skew_us);
        let Some(span) = self.spans.get_mut(index) else { return };
        let service = span.service.get(1..).and_then(|number| number.parse().ok()).unwrap_or(0_u32);
        let off = Draw::new(self.network.seed, 2, service.into()).below(2 * skew + 1);
        span.duration_us = (at + off).saturating_sub(skew).saturating_sub(span.start_us);
        if failed {
            span.status = Status::Error;
        }
    }

    /// What arrives of it, in the order in which it arrives.
    fn sent(mut self) -> Vec<Span> {
        let mut sent = Vec::with_capacity(self.spans.len());
        for span in std::mem::take(&mut self.spans) {
            let lost = self.draw.below(1_000_000) < u64::from(self.traffic.lost_ppm);
            let repeated = self.draw.below(1_000_000) < u64::from(self.traffic.repeated_ppm);
            if repeated && !lost {
                sent.push(span.clone());
            }
            if !lost {
                sent.push(span);
            }
        }
        if self.draw.below(1_000_000) < u64::from(self.traffic.child_first_ppm) {
            sent.reverse();
        }
        sent
    }
}
