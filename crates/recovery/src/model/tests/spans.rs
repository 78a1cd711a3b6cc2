//! Fitting from spans.

use super::super::fit::Unfit;
use super::*;
use crate::span::{Kind, Peer, PeerKind, Span, Status};
use crate::topology::{Edge, Replicas, Retry, Service, Topology};
use base::{Millis, Timestamp};

const FROM_US: u64 = 1_000_000_000;

struct Maker {
    spans: Vec<Span>,
    next: u64,
}

impl Maker {
    fn add(&mut self, trace: u64, parent: Option<u64>, service: &str, kind: Kind, at: u64, took: u64) -> u64 {
        self.next += 1;
        self.spans.push(Span {
            trace: u128::from(trace),
            id: self.next,
            parent,
            service: service.into(),
            name: "op".into(),
            instance: Some(format!("{service}@{}", trace % 2)),
            kind,
            start_us: at,
            duration_us: took,
            status: Status::Ok,
            authenticated: true,
            ..Span::default()
        });
        self.next
    }

    /// A call with its client span; returns the id of the callee's span.
    fn call(&mut self, trace: u64, parent: u64, (caller, callee): (&str, &str), at: u64, took: u64) -> u64 {
        let client = self.add(trace, Some(parent), caller, Kind::Client, at, took + 1_000);
        if let Some(span) = self.spans.last_mut() {
            span.peer = Some(Peer { kind: PeerKind::Service, name: callee.into() });
        }
        self.add(trace, Some(client), callee, Kind::Server, at + 500, took)
    }
}

/// Ten seconds of 50 requests/s: front (10 ms of its own) calls first (20 ms), then second (30 ms).
fn spans(parallel: bool) -> Vec<Span> {
    let mut maker = Maker { spans: Vec::new(), next: 0 };
    for i in 0..500 {
        let (at, wobble) = (FROM_US + i * 20_000, i % 7 * 100);
        // The client's own span: it is no service.
        let client = maker.add(i, None, "load", Kind::Client, at - 100, 70_000);
        let took = if parallel { 10_000 + 31_000 } else { 10_000 + 52_000 };
        let front = maker.add(i, Some(client), "front", Kind::Server, at, took + wobble);
        maker.call(i, front, ("front", "first"), at + 2_000, 20_000);
        let second_at = if parallel { at + 2_000 } else { at + 24_000 };
        let second = maker.call(i, front, ("front", "second"), second_at, 30_000);
        if i % 2 == 0 {
            let send = maker.add(i, Some(second), "second", Kind::Producer, second_at + 900, 300);
            maker.add(i, Some(send), "later", Kind::Consumer, second_at + 60_000, 5_000);
        }
    }
    maker.spans
}

fn topology() -> Topology {
    let retry = Retry { attempts: 3, base: Millis(50), cap: Millis(200), budget: None };
    let declared = Edge { timeout: Some(Millis(400)), retry: Some(retry), ..Edge::default() };
    let client = Edge { timeout: Some(Millis(4_000)), ..Edge::default() };
    let second = Service {
        workers: Some(8),
        queue_max: Some(64),
        replicas: Replicas { min: 1, start: 2, max: 4 },
        ..Service::default()
    };
    Topology {
        service: [("second".to_owned(), second)].into(),
        edge: [("front->second".to_owned(), declared), ("load->front".to_owned(), client)].into(),
        ..Topology::default()
    }
}

fn window() -> Window {
    let from = Timestamp(i64::try_from(FROM_US / 1_000).unwrap());
    let start_up_ms = [("second".to_owned(), vec![700, 500, 600])].into();
    Window { from, to: from.plus(Millis(10_000)), start_up_ms }
}

#[test]
fn a_model_is_read_from_spans_and_behaves_like_them() {
    let (fit, checks) = fit(&spans(false), &topology(), &window()).unwrap();
    let names: Vec<&str> = fit.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["first", "front", "later", "second"]);
    let edges: Vec<String> =
        fit.edges.iter().map(|e| format!("{}->{} {}", e.caller, e.callee, e.calls_permille)).collect();
    assert_eq!(
        edges,
        ["front->first 1000", "front->second 1000", "second->later 501"],
        "in the order of the calls; the last call of all begins after the window"
    );
    assert!(fit.edges[2].asynchronous && !fit.edges[1].asynchronous);
    let second = fit.service("second").unwrap();
    assert_eq!((second.workers, second.workers_from, second.queue_max), (8, Source::Declared, Some(64)));
    assert_eq!((second.replicas, second.start_up_us.as_slice()), (2, [500_000, 600_000, 700_000].as_slice()));
    assert_eq!((second.times_us.first(), second.times_us.last()), (Some(&30_000), Some(&30_000)));
    // Its own ten and what the calls cost beyond the callees.
    let front = fit.service("front").unwrap();
    assert_eq!((front.times_us.first(), front.times_us.last()), (Some(&12_000), Some(&12_600)));
    assert_eq!((front.workers_from, front.start_up_from), (Source::Measured, Source::Assumed));
    let retried = &fit.edges[1];
    assert_eq!((retried.timeout_us, retried.attempts, retried.cap_us), (Some(400_000), 3, 200_000));
    assert_eq!((fit.roots.len(), fit.roots[0].rate_mrps(), fit.roots[0].timeout_us), (1, 50_000, Some(4_000_000)));
    assert_eq!(checks.len(), 3);
    assert!(checks.iter().all(|check| check.error_permille <= 250), "{checks:?}");
    let bytes = base::canon::object("model", &fit.to_value());
    assert_eq!(Fit::from_value(base::canon::parse_object("model", &bytes).unwrap()), Ok(fit));
}

#[test]
fn a_shape_the_model_cannot_have_is_unfit() {
    // The calls overlap; the model makes them one after the other and is slower than the window.
    let unfit = fit(&spans(true), &topology(), &window());
    assert!(matches!(&unfit, Err(Unfit::Mismatch(bad)) if bad.what == "p50"), "{unfit:?}");
}

#[test]
fn too_little_is_unfit() {
    assert_eq!(fit(&[], &topology(), &window()).err(), Some(Unfit::NoRoots));
    let few: Vec<Span> = spans(false).into_iter().filter(|span| span.trace < 5).collect();
    let unfit = fit(&few, &topology(), &window()).err();
    assert_eq!(unfit, Some(Unfit::TooFew { service: "first".into(), executions: 5 }));
}

#[test]
fn a_failed_call_and_its_retry_are_one_call() {
    let mut all = spans(false);
    let mut maker = Maker { spans: Vec::new(), next: 1_000_000 };
    for span in all.iter().filter(|span| span.service == "front" && span.kind == Kind::Server && span.trace % 5 == 0) {
        let at = span.start_us + 1_000;
        maker.add(u64::try_from(span.trace).unwrap(), Some(span.id), "front", Kind::Client, at, 100);
        let failed = maker.spans.last_mut().unwrap();
        failed.peer = Some(Peer { kind: PeerKind::Service, name: "first".into() });
        failed.status = Status::Error;
    }
    all.extend(maker.spans);
    let (fit, _) = fit(&all, &topology(), &window()).unwrap();
    assert_eq!(fit.edges[0].calls_permille, 1_000);
}
