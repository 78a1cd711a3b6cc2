use super::*;
use crate::span::{Kind, Peer, PeerKind, Span, Status};
use crate::topology::Topology;
use base::canon::{Canon, object, parse_object};
use base::{Millis, Ratio};
use std::collections::BTreeSet;

/// Windows a tenth of the defaults.
fn short() -> Config {
    Config {
        baseline: Millis(6_000),
        impaired_for: Millis(2_000),
        fresh_after: Millis(3_000),
        miss_max: Ratio::clamped(50_000),
        snapshot_age_max: Millis(60_000),
        coverage_window: Millis(60_000),
        metastable_for: Millis(3_000),
        half_life: Millis(60_000),
        join: Millis(5_000),
        ..Config::default()
    }
}

fn topology() -> Topology {
    let text = r#"{
        "service": {
            "gateway": { "run": ["{edge:checkout}"], "objective": { "p99": "800ms", "errors": "1%" } },
            "checkout": { "objective": { "p99": "800ms", "errors": "1%" }, "run": ["--pay", "{edge:payments}"] },
            "payments": { "objective": { "p99": "400ms", "errors": "1%" }, "replicas": { "min": 1, "start": 2, "max": 4 } },
            "catalog": { "coupled": ["catalog-cache"] },
            "catalog-cache": {},
            "ledger": { "store": true }
        },
        "edge": { "checkout->catalog": { "kind": "sync", "fallback": "cached" } }
    }"#;
    serde_json::from_str(text).unwrap()
}

/// Spans of one request: gateway → checkout → payments (with retries) → ledger, and an order through a queue.
struct Request {
    trace: u128,
    at_ms: u64,
    /// Attempts of checkout at payments that fail; the payments instance never answers them.
    failed: u64,
    /// Whether a last attempt goes well.
    served: bool,
}

impl Request {
    fn good(n: u64, at_ms: u64) -> Request {
        Request { trace: u128::from(n), at_ms, failed: 0, served: true }
    }

    fn spans(&self) -> Vec<Span> {
        let at = self.at_ms * 1_000;
        let span =
            |id: u64, parent: u64, service: &str, name: &str, kind: Kind, from: u64, length: u64, bad: bool| Span {
                trace: self.trace,
                id,
                parent: Some(parent).filter(|id| *id != 0),
                service: service.into(),
                name: name.into(),
                instance: Some(format!("{service}@0")),
                generation: Some("1".into()),
                kind,
                start_us: at + from,
                duration_us: length,
                status: if bad { Status::Error } else { Status::Ok },
                authenticated: true,
                ..Span::default()
            };
        let to = |mut span: Span, kind: PeerKind, name: &str| {
            span.peer = Some(Peer { kind, name: name.into() });
            span
        };
        let total = 20_000 + self.failed * 450_000 + 110_000;
        let bad = !self.served;
        let mut spans = vec![
            span(1, 0, "gateway", "POST /buy", Kind::Server, 0, total + 4_000, bad),
            to(
                span(2, 1, "gateway", "checkout", Kind::Client, 1_000, total + 2_000, bad),
                PeerKind::Service,
                "checkout",
            ),
            span(3, 2, "checkout", "place", Kind::Server, 2_000, total, bad),
        ];
        for attempt in 0..self.failed {
            let call =
                span(10 + attempt, 3, "checkout", "payments", Kind::Client, 3_000 + attempt * 450_000, 400_000, true);
            spans.push(to(call, PeerKind::Service, "payments"));
        }
        if self.served {
            let from = 3_000 + self.failed * 450_000;
            let call = span(20, 3, "checkout", "payments", Kind::Client, from, 104_000, false);
            spans.push(to(call, PeerKind::Service, "payments"));
            spans.push(span(21, 20, "payments", "charge", Kind::Server, from + 1_000, 101_000, false));
            let store = span(22, 21, "payments", "insert", Kind::Client, from + 2_000, 1_000, false);
            spans.push(to(store, PeerKind::Store, "ledger"));
            let hand = span(30, 3, "checkout", "publish", Kind::Producer, from + 105_000, 500, false);
            spans.push(to(hand, PeerKind::Queue, "orders"));
            spans.push(span(31, 30, "fulfillment", "ship", Kind::Consumer, from + 300_000, 9_000, false));
        }
        spans
    }
}

fn feed(graph: &mut Graph, spans: &[Span]) -> Timestamp {
    let mut order: Vec<&Span> = spans.iter().collect();
    order.sort_by_key(|span| span.end_us());
    let mut rotated = None;
    let mut now = Timestamp(0);
    for span in order {
        now = Timestamp(i64::try_from(span.end_us() / 1_000).unwrap() + 150);
        if now.since(*rotated.get_or_insert(now)) >= Millis(5_000) {
            graph.rotate(now);
            rotated = Some(now);
        }
        graph.observe(span, now);
    }
    now
}

/// `seconds` of good traffic from second 1 000, then `bad` seconds in which every request fails as `failed` says.
fn story(seconds: u64, bad: u64, failed: u64, served: bool) -> (Graph, Timestamp) {
    let mut graph = Graph::new(&short());
    graph.declare(&topology()).unwrap();
    let mut spans = Vec::new();
    for n in 0..(seconds + bad) * 50 {
        let at_ms = 1_000_000 + n * 20;
        let request = Request::good(n + 1, at_ms);
        let request = if n < seconds * 50 { request } else { Request { failed, served, ..request } };
        spans.extend(request.spans());
    }
    let now = feed(&mut graph, &spans);
    (graph, now)
}

#[test]
fn edges_kinds_and_counts() {
    let (mut graph, now) = story(12, 0, 0, true);
    graph.rotate(now);
    graph.rotate(now);
    let snapshot = graph.snapshot(now);
    let edges: Vec<String> =
        snapshot.edges().iter().map(|e| format!("{}->{} {} {}", e.caller, e.callee, e.kind, e.hardness)).collect();
    let expected = [
        "checkout->catalog sync soft",
        "checkout->orders async unknown",
        "checkout->payments sync unknown",
        "gateway->checkout sync unknown",
        "orders->fulfillment async unknown",
        "payments->ledger store unknown",
    ];
    assert_eq!(edges, expected);
    let edge = snapshot.edge("checkout", "payments").unwrap();
    assert_eq!((edge.calls, edge.executions, edge.declared, edge.retries_permille), (600, 600, true, 0));
    assert!((47_000..=51_000).contains(&edge.rate_mrps), "{}", edge.rate_mrps);
    assert_eq!(snapshot.service("ledger").unwrap().kind, NodeKind::Store);
    assert_eq!(snapshot.service("orders").unwrap().kind, NodeKind::Queue);
    assert_eq!((graph.counts().lost_parents, graph.counts().unmatched), (0, 0));
    // A root visits what blocks it, not what a queue decouples from it.
    let root = &snapshot.roots()["gateway/POST /buy"];
    assert_eq!((root.visits.get("payments"), root.visits.get("fulfillment")), (Some(&root.traces), None));
}

#[test]
fn permission_grows_with_trials_and_ages_with_silence() {
    let (graph, now) = story(12, 0, 0, true);
    let snapshot = graph.snapshot(now);
    let permission = snapshot.permission(&["payments"], now);
    assert_eq!(permission.level, Level::Full, "{permission:?}");
    assert_eq!((permission.surprises, permission.coverage_ppm), (0, 1_000_000));
    let late = now.plus(Millis(61_000));
    assert_eq!(snapshot.permission(&["payments"], late).level, Level::Refused);
    assert!(snapshot.permission(&["payments"], late).because(ReasonKind::Stale));
    assert_eq!(snapshot.permission(&["nobody"], now).level, Level::Refused);
    assert_eq!(snapshot.permission(&[], now).level, Level::Refused);
    // Two seconds are not fresh enough; an empty graph knows nothing.
    let (graph, now) = story(2, 0, 0, true);
    assert_eq!(graph.snapshot(now).permission(&["payments"], now).level, Level::Refused);
    assert!(Graph::new(&short()).snapshot(now).is_stale(now));
}

#[test]
fn a_new_generation_starts_its_counters_at_zero() {
    let (mut graph, now) = story(12, 0, 0, true);
    let mut span = Request::good(90_000, 1_013_000).spans().remove(0);
    span.generation = Some("2".into());
    assert_eq!((graph.snapshot(now).epoch(), graph.is_dirty()), (graph.epoch, false));
    graph.observe(&span, now);
    assert!(graph.is_dirty());
    let snapshot = graph.snapshot(now);
    assert_eq!(snapshot.service("gateway").unwrap().generation.as_deref(), Some("2"));
    assert_eq!(snapshot.service("gateway").unwrap().inward.trials, 1);
    assert_eq!(snapshot.permission(&["gateway"], now).level, Level::Cautious);
}

#[test]
fn retries_under_fault_are_no_surprise_and_show_in_the_edge() {
    // Every request needs three attempts, of which the last goes well.
    let (mut graph, now) = story(12, 6, 2, true);
    graph.rotate(now);
    graph.rotate(now);
    let snapshot = graph.snapshot(now);
    let permission = snapshot.permission(&["payments", "checkout"], now);
    assert_eq!((permission.level, permission.surprises), (Level::Full, 0), "{permission:?}");
    let edge = snapshot.edge("checkout", "payments").unwrap();
    assert_eq!((edge.calls, edge.executions), (600 + 300 * 3, 900));
    // The caller coped: the executions count as served, whatever single calls did.
    assert_eq!((edge.callee_ok, edge.callee_error), ((900, 0), (0, 0)));
    let attempts =
        snapshot.attempts_permille("checkout", "payments", Timestamp(1_014_000), Timestamp(1_017_000)).unwrap();
    assert!((2_900..=3_100).contains(&attempts), "{attempts}");
    assert_eq!(
        snapshot.attempts_permille("checkout", "payments", Timestamp(1_002_000), Timestamp(1_010_000)),
        Some(1_000)
    );
}

#[test]
fn a_callee_that_never_answers_is_in_the_fault_scope_and_makes_its_edge_hard() {
    let (mut graph, now) = story(12, 8, 3, false);
    let snapshot = graph.snapshot(now);
    let scope = snapshot.fault_scope(Timestamp(1_012_000), &BTreeSet::new());
    assert_eq!(scope.impaired, ["checkout", "gateway", "payments"]);
    assert!(scope.onset.unwrap() >= Timestamp(1_012_000) && scope.onset.unwrap() <= Timestamp(1_015_000), "{scope:?}");
    assert_eq!(scope.root_share_ppm, 1_000_000);
    assert!(snapshot.is_anomalous("payments", Timestamp(1_012_000)));
    assert_eq!(snapshot.edge_baseline_rate_mrps("gateway", "checkout", Timestamp(1_012_000)), Some(50_000));
    graph.rotate(now);
    graph.rotate(now);
    let snapshot = graph.snapshot(now);
    let edge = snapshot.edge("checkout", "payments").unwrap();
    assert_eq!((edge.hardness, edge.callee_error), (Hardness::Hard, (0, 400)));
}

#[test]
fn half_of_the_calls_failing_at_one_instance_shows_at_once() {
    let mut graph = Graph::new(&short());
    graph.declare(&topology()).unwrap();
    let request = |n: u64| Request { failed: if n > 600 { n % 2 } else { 0 }, ..Request::good(n, 1_000_000 + n * 20) };
    let spans: Vec<Span> = (1..=850).flat_map(|n| request(n).spans()).collect();
    let now = feed(&mut graph, &spans);
    let snapshot = graph.snapshot(now);
    // Callers cope by retrying; the callee does not meet its objective.
    let scope = snapshot.fault_scope(Timestamp(1_012_000), &BTreeSet::new());
    assert_eq!(scope.impaired, ["payments"]);
    assert!(snapshot.is_impaired("payments") && !snapshot.is_impaired("checkout"));
    // A failed call whose callee answers late is one failure, not a failure and a success.
    let seconds = snapshot.service("payments").unwrap().seconds.sum(Timestamp(1_014_000), Timestamp(1_016_000));
    assert!(seconds.total < 160 && seconds.errors * 3 > seconds.total - 10, "{seconds:?}");
}

#[test]
fn reported_unavailability_counts_and_health_does_not() {
    let (graph, now) = story(12, 0, 0, true);
    let snapshot = graph.snapshot(now);
    assert_eq!(snapshot.fault_scope(now, &BTreeSet::new()), FaultScope::default());
    let scope = snapshot.fault_scope(now, &BTreeSet::from(["payments".to_owned()]));
    assert_eq!((scope.impaired.as_slice(), scope.onset), (&["payments".to_owned()][..], None));
    assert_eq!(scope.suspects, Vec::<String>::new());
}

#[test]
fn a_storm_that_halves_goodput_at_full_load_is_metastable() {
    let (graph, now) = story(12, 8, 3, false);
    let snapshot = graph.snapshot(now);
    assert!(snapshot.metastable("payments"));
    assert!(!snapshot.metastable("checkout"));
    // Retries that are answered in the end leave the goodput as it was.
    let (graph, now) = story(12, 8, 2, true);
    assert!(!graph.snapshot(now).metastable("payments"));
}

#[test]
fn blast_has_three_numbers() {
    let (mut graph, now) = story(12, 0, 0, true);
    graph.rotate(now);
    graph.rotate(now);
    let blast = graph.snapshot(now).blast(&["payments"]);
    assert_eq!((blast.root_share_ppm, blast.root_share_exact), (1_000_000, true));
    assert_eq!(blast.callers, Closure::Members(vec!["checkout".into(), "gateway".into()]));
    // 50 requests a second, 10 s out, one of two replicas.
    assert!((235..=255).contains(&blast.loss_requests), "{blast:?}");
    assert!((4_700..=5_300).contains(&blast.inflight_milli), "{blast:?}");
    assert_eq!(graph.snapshot(now).hard_callers(&["payments"], 1), Closure::MoreThan(1));
}

#[test]
fn lost_parents_and_unmatched_calls_lower_coverage_and_surprise() {
    let mut graph = Graph::new(&short());
    let mut spans: Vec<Span> = (0..600).flat_map(|n| Request::good(n + 1, 1_000_000 + n * 20).spans()).collect();
    // Every third checkout span is lost on the way, and every payments call to its store names nobody.
    spans.retain(|span| span.id != 3 || span.trace % 3 != 0);
    spans.iter_mut().filter(|span| span.id == 22).for_each(|span| span.peer = None);
    let now = feed(&mut graph, &spans);
    graph.rotate(now);
    graph.rotate(now);
    let snapshot = graph.snapshot(now);
    assert!(graph.counts().lost_parents > 200 && graph.counts().unmatched == 600, "{:?}", graph.counts());
    let permission = snapshot.permission(&["payments"], now);
    assert!(permission.coverage_ppm < 900_000 && permission.miss_in_ppm > 300_000, "{permission:?}");
    assert_ne!(permission.level, Level::Full);
    // A lost parent is never a root.
    assert_eq!(snapshot.roots().keys().collect::<Vec<_>>(), ["gateway/POST /buy"]);
}

#[test]
fn bad_spans_are_dropped_duplicates_counted_and_the_future_clamped() {
    let mut graph = Graph::new(&Config { services_max: 1, ..short() });
    let span = Request::good(1, 1_000).spans().remove(0);
    let now = Timestamp(2_000);
    assert_eq!(graph.observe(&Span { id: 0, ..span.clone() }, now), Observed::Dropped(DropReason::ZeroId));
    assert_eq!(
        graph.observe(&Span { service: String::new(), ..span.clone() }, now),
        Observed::Dropped(DropReason::NoService)
    );
    assert_eq!(graph.observe(&span, now), Observed::Joined);
    assert_eq!(graph.observe(&span, now), Observed::Duplicate);
    let other = Span { id: 9, service: "other".into(), ..span.clone() };
    assert_eq!(graph.observe(&other, now), Observed::Dropped(DropReason::TooManyServices));
    let future = Span { id: 9, start_us: u64::MAX - 5, duration_us: u64::MAX, ..span.clone() };
    assert_eq!(graph.observe(&future, now), Observed::Joined);
    assert_eq!((graph.counts().skewed, graph.snapshot(now).newest()), (1, Some(now)));
    let orphan = Span { id: 5, parent: Some(77), ..span };
    assert_eq!(graph.observe(&orphan, now), Observed::Waiting);
}

#[test]
fn unauthenticated_spans_add_edges_and_never_trials() {
    let mut graph = Graph::new(&short());
    let mut spans: Vec<Span> = (0..600).flat_map(|n| Request::good(n + 1, 1_000_000 + n * 20).spans()).collect();
    spans.iter_mut().for_each(|span| span.authenticated = false);
    let now = feed(&mut graph, &spans);
    let snapshot = graph.snapshot(now);
    assert!(snapshot.edge("checkout", "payments").is_some());
    assert_eq!(snapshot.service("payments").unwrap().trials(), 0);
    assert!(snapshot.permission(&["payments"], now).because(ReasonKind::Blind));
}

#[test]
fn declarations_couple_both_ways_and_are_all_or_nothing() {
    let (mut graph, now) = story(4, 0, 0, true);
    let snapshot = graph.snapshot(now);
    assert_eq!(snapshot.missing_members(&["catalog"]), ["catalog-cache"]);
    assert_eq!(snapshot.missing_members(&["catalog-cache"]), ["catalog"]);
    assert_eq!(snapshot.missing_members(&["payments", "checkout"]), Vec::<String>::new());
    let mut bad = topology();
    bad.edge.entry("checkout->catalog".into()).or_default().kind = Some("maybe".into());
    assert!(matches!(graph.declare(&bad), Err(GraphError::Topology(_))));
    assert_eq!(graph.snapshot(now), snapshot);
    // Mutual start needs couple; a missed dependency is hard for good and suspected.
    let mut cyclic = topology();
    cyclic.service.get_mut("payments").unwrap().start_needs = vec!["ledger".into()];
    cyclic.service.get_mut("ledger").unwrap().start_needs = vec!["payments".into()];
    graph.declare(&cyclic).unwrap();
    graph.record(&OperationalFact::MissedDependency { caller: "gateway".into(), callee: "ledger".into() });
    let snapshot = graph.snapshot(now);
    assert_eq!(snapshot.missing_members(&["ledger"]), ["gateway", "payments"]);
    assert!(snapshot.edge("gateway", "ledger").unwrap().is_hard());
    assert!(snapshot.permission(&["gateway"], now).because(ReasonKind::Suspected));
}

#[test]
fn a_missed_dependency_couples_one_way_until_a_person_dismisses_it_and_is_suspected_until_a_file_declares_it() {
    let (mut graph, now) = story(12, 0, 0, true);
    let clean = graph.snapshot(now);
    graph.record(&OperationalFact::MissedDependency { caller: "fulfillment".into(), callee: "payments".into() });
    let snapshot = graph.snapshot(now);
    assert_eq!(snapshot.missing_members(&["payments"]), ["fulfillment"]);
    assert_eq!(snapshot.missing_members(&["fulfillment"]), Vec::<String>::new());
    let edge = snapshot.edge("fulfillment", "payments").unwrap();
    assert!(edge.is_hard() && edge.missed && !edge.declared);
    for service in ["payments", "fulfillment"] {
        assert_eq!(snapshot.permission(&[service], now).level, Level::Cautious, "{service}");
    }
    assert!(snapshot.why("payments").iter().filter(|it| it.source == "missed once").count() == 2, "edge and coupling");
    let group = crate::groups::group(&snapshot, &["payments"], &crate::groups::GroupPolicy::at(now)).unwrap();
    assert_eq!(group.waves, [[["payments"]], [["fulfillment"]]], "what failed comes up after what it needs");
    // Neither spans nor a file that says nothing of it take it back.
    assert_eq!(graph.expire(now.plus(Millis(100 * 86_400_000))), 0);
    graph.declare(&topology()).unwrap();
    assert!(graph.snapshot(now).permission(&["payments"], now).because(ReasonKind::Suspected));
    let mut agreed = topology();
    agreed.service.get_mut("payments").unwrap().coupled = vec!["fulfillment".into()];
    agreed.service.entry("fulfillment".into()).or_default();
    graph.declare(&agreed).unwrap();
    let declared = graph.snapshot(now);
    assert_eq!(declared.permission(&["payments"], now).level, Level::Full);
    assert_eq!(declared.missing_members(&["payments"]), ["fulfillment"]);
    graph.declare(&topology()).unwrap();
    let (service, with) = ("payments".to_owned(), "fulfillment".to_owned());
    graph.record(&OperationalFact::CoRestart { service, with, confirmed: true });
    let confirmed = graph.snapshot(now);
    assert_eq!(confirmed.permission(&["payments", "fulfillment"], now).level, Level::Full);
    assert_eq!(confirmed.missing_members(&["payments"]), ["fulfillment"]);
    graph.record(&OperationalFact::Dismissed { service: "payments".into(), with: "fulfillment".into() });
    let dismissed = graph.snapshot(now);
    // Declaring the file anew counts as a change of what it declares.
    let unchanged = |snapshot: &Snapshot| -> Vec<EdgeView> {
        snapshot.edges().iter().map(|edge| EdgeView { changed: 0, ..edge.clone() }).collect()
    };
    assert_eq!(unchanged(&dismissed), unchanged(&clean));
    assert_eq!(dismissed.missing_members(&["payments"]), Vec::<String>::new());
    assert_eq!(dismissed.permission(&["payments"], now).level, Level::Full);
}

#[test]
fn co_restarts_suspect_first_and_couple_when_repeated_or_confirmed() {
    let (mut graph, now) = story(12, 0, 0, true);
    let fact =
        |confirmed| OperationalFact::CoRestart { service: "payments".into(), with: "checkout".into(), confirmed };
    graph.record(&fact(false));
    let snapshot = graph.snapshot(now);
    assert_eq!(snapshot.missing_members(&["payments"]), Vec::<String>::new());
    assert_eq!(snapshot.permission(&["payments"], now).level, Level::Cautious);
    graph.record(&fact(false));
    assert_eq!(graph.snapshot(now).missing_members(&["payments"]), ["checkout"]);
    assert_eq!(graph.snapshot(now).missing_members(&["checkout"]), Vec::<String>::new());
    graph.record(&OperationalFact::Dismissed { service: "payments".into(), with: "checkout".into() });
    assert_eq!(graph.snapshot(now).missing_members(&["payments"]), Vec::<String>::new());
}

#[test]
fn a_cold_edge_stays_until_two_mature_generations_did_without_it() {
    let (mut graph, now) = story(12, 0, 0, true);
    let day = Millis(86_400_000);
    for days in [6, 34, 60] {
        assert_eq!(graph.expire(now.plus(Millis(days * day.0))), 0, "{days}");
    }
    let later = 1_000_000 + 50 * day.0;
    let mut count = 100_000;
    for generation in ["2", "3"] {
        let mut spans = Vec::new();
        for _ in 0..600 {
            count += 1;
            // Checkout answers without calling anybody.
            let own = Request::good(count, later + count * 20).spans().into_iter().filter(|span| span.id <= 3);
            spans.extend(own.map(|span| Span { generation: Some(generation.into()), ..span }));
        }
        let end = feed(&mut graph, &spans);
        graph.rotate(end);
    }
    let expired = graph.expire(Timestamp(i64::try_from(later).unwrap()));
    let snapshot = graph.snapshot(Timestamp(i64::try_from(later).unwrap()));
    assert_eq!((expired, snapshot.edge("checkout", "orders").is_some()), (2, false));
    // Declared edges stay, without counts; payments never came to a new generation.
    assert_eq!(
        snapshot.edge("checkout", "payments").map(|edge| (edge.calls, edge.kind)),
        Some((0, EdgeKind::Declared))
    );
    assert!(snapshot.edge("payments", "ledger").is_some());
}

#[test]
fn snapshots_and_slices_survive_their_bytes() {
    let (graph, now) = story(12, 8, 3, false);
    let snapshot = graph.snapshot(now);
    for one in [snapshot.clone(), snapshot.slice(&["payments"])] {
        let bytes = object("slice", &one.to_value());
        let back = Snapshot::from_value(parse_object("slice", &bytes).unwrap()).unwrap();
        assert_eq!(back, one);
        assert_eq!((back.digest(), back.content_digest()), (one.digest(), one.content_digest()));
    }
    assert!(Snapshot::from_value(snapshot.epoch().to_value()).is_err());
}

#[test]
fn the_structural_digest_ignores_counts_and_times_but_not_structure() {
    let (mut graph, now) = story(12, 0, 0, true);
    let pinned = graph.snapshot(now).slice(&["payments"]);
    let more: Vec<Span> = (0..100).flat_map(|n| Request::good(n + 50_000, 1_012_000 + n * 20).spans()).collect();
    let later = feed(&mut graph, &more);
    let fresh = graph.snapshot(later).slice(&["payments"]);
    assert_ne!(fresh.content_digest(), pinned.content_digest());
    assert_eq!((fresh.digest(), fresh.epoch()), (pinned.digest(), pinned.epoch()));
    // A service outside the slice changes nothing inside it.
    graph.record(&OperationalFact::CoRestart {
        service: "fulfillment".into(),
        with: "elsewhere".into(),
        confirmed: true,
    });
    let apart = graph.snapshot(later).slice(&["payments"]);
    assert_eq!((apart.digest(), apart.epoch()), (pinned.digest(), pinned.epoch()));
    graph.record(&OperationalFact::CoRestart { service: "payments".into(), with: "checkout".into(), confirmed: true });
    let coupled = graph.snapshot(later).slice(&["payments"]);
    assert_ne!(coupled.digest(), pinned.digest());
    assert!(coupled.epoch() > pinned.epoch());
}

#[test]
fn a_permission_that_rose_since_the_pin_counts_as_the_pinned_one() {
    let early = story(4, 0, 0, true);
    let late = story(12, 0, 0, true);
    let pinned = early.0.snapshot(early.1).slice(&["payments"]);
    let fresh = late.0.snapshot(late.1).slice(&["payments"]);
    assert_eq!(pinned.permission(&["payments"], early.1).level, Level::Cautious);
    assert_ne!(fresh.digest(), pinned.digest());
    assert_eq!(fresh.digest_since(&pinned), pinned.digest());
}

mod properties;

#[test]
fn spans_that_wait_are_bounded_by_dropping_the_older_half() {
    let mut graph = Graph::new(&short());
    assert_eq!(graph.join.spans_max, join::JOIN_MAX);
    graph.join.spans_max = 10;
    let now = Timestamp(5_000);
    for trace in 1..=100 {
        for span in Request::good(trace, 1_000).spans() {
            graph.observe(&Span { parent: Some(999), ..span }, now);
            let held = (graph.join.current.len(), graph.join.older.len());
            assert!(held.0 <= 10 && held.1 <= 10, "{held:?}");
        }
    }
    assert!(graph.counts().lost_parents > 0 && graph.join.awaited() <= 20, "{:?}", graph.counts());
}

#[test]
fn instances_and_generations_of_a_service_are_bounded() {
    let mut graph = Graph::new(&short());
    let span = Request::good(1, 1_000).spans().remove(0);
    let extra = 10;
    for number in 1..=observe::INSTANCES_MAX as u64 + extra {
        let (instance, generation) = (Some(format!("i{number}")), Some(format!("g{}", number % 100)));
        graph
            .observe(&Span { id: number, instance, generation, authenticated: true, ..span.clone() }, Timestamp(2_000));
    }
    let known = |graph: &Graph| graph.services.get(0).unwrap().instances.len();
    assert_eq!(known(&graph), observe::INSTANCES_MAX);
    assert_eq!(graph.services.get(0).unwrap().generations.len(), observe::GENERATIONS_MAX);
    let later = Timestamp(2_000).plus(short().coverage_window).plus(Millis(1));
    graph.observe(&Span { id: 9_999, instance: Some("new".into()), ..span }, later);
    assert_eq!(known(&graph), 1, "what has not been seen for long makes room");
}

#[test]
fn a_span_may_end_a_little_ahead_of_now() {
    let now = Timestamp(10_000_000);
    let span = Request::good(1, 1_000).spans().remove(0);
    let ends_at =
        |at: Timestamp| Span { start_us: u64::try_from(at.0).unwrap() * 1_000, duration_us: 0, ..span.clone() };
    let skewed = |ahead: Millis| {
        let mut graph = Graph::new(&short());
        graph.observe(&ends_at(now.plus(ahead)), now);
        graph.counts().skewed
    };
    assert_eq!((skewed(observe::SKEW_MAX), skewed(Millis(observe::SKEW_MAX.0 + 1))), (0, 1));
}

#[test]
fn the_longest_duration_has_a_place_in_the_percentiles() {
    for duration in [0, 15, 16, u64::from(u32::MAX), 1 << 63, u64::MAX] {
        let mut history = table::History::default();
        history.count(5_000_000, false, false, Some(duration), Millis(60_000));
        let p99 = history.seconds(Millis(60_000)).0[0].p99_us;
        assert!(u64::from(p99) >= duration.min(u64::from(u32::MAX)), "{duration}: {p99}");
    }
}

#[test]
fn a_flood_of_unique_names_stays_within_its_limits() {
    let config = Config { services_max: 50, ops_per_service_max: 20, edges_max: 300, ..short() };
    let mut graph = Graph::new(&config);
    graph.join.spans_max = 1_000;
    let now = Timestamp(5_000);
    for number in 1..=20_000_u64 {
        let span = Span {
            trace: number.into(),
            id: 1,
            parent: (number % 3 == 0).then_some(9),
            service: format!("service-{}", number % 977),
            name: format!("operation {}", char::from_u32(0x4e00 + u32::try_from(number % 20_000).unwrap()).unwrap()),
            instance: Some(format!("i{number}")),
            generation: Some(format!("g{}", number % 7_001)),
            kind: [Kind::Server, Kind::Client][usize::from(number % 2 == 0)],
            peer: (number % 2 == 0).then(|| Peer { kind: PeerKind::Service, name: format!("peer-{number}") }),
            start_us: 1_000_000,
            duration_us: number,
            authenticated: true,
            ..Span::default()
        };
        graph.observe(&span, now);
    }
    assert_eq!((graph.names.len(), graph.services.len(), graph.marks.len()), (50, 50, 50));
    // Of all services together, and then one more of each: `*`.
    assert!(graph.operations.len() <= 300 + 50, "{}", graph.operations.len());
    assert!(graph.edges.len() <= 300 + 50 * 350 && graph.flows.len() <= 50 * 50, "{}", graph.edges.len());
    assert!(graph.join.current.len() <= 1_000 && graph.join.older.len() <= 1_000);
    assert!(graph.services.iter().all(|service| service.instances.len() <= observe::INSTANCES_MAX));
    assert!(graph.services.iter().all(|service| service.generations.len() <= observe::GENERATIONS_MAX));
    assert!(graph.services.iter().all(|service| service.operations.len() <= 21));
    assert!(graph.counts().dropped > 10_000, "{:?}", graph.counts());
}

#[test]
fn names_of_spans_that_wait_are_bounded() {
    let mut join = Join::new(1);
    let length = 4_096;
    let most = join::WAITING_NAMES_BYTES_MAX / length;
    let name = |number: usize| format!("{number:0length$}");
    let numbers: BTreeSet<u32> = (0..most + 10).map(|number| join.spell(&name(number))).collect();
    // Those beyond the limit are one.
    assert_eq!(numbers.len(), most + 1);
    assert_eq!(join.spell(&name(most + 10)), join.spell("*"));
    assert_eq!(join.spell(&name(0)), 0);
}

#[test]
fn a_snapshot_stays_as_it_was_while_the_graph_goes_on() {
    let (mut graph, now) = story(12, 0, 0, true);
    let (before, twin) = (graph.snapshot(now), graph.snapshot(now));
    let early = twin.to_value();
    let more: Vec<Span> = (0..300).flat_map(|n| Request::good(n + 70_000, 1_012_000 + n * 20).spans()).collect();
    feed(&mut graph, &more);
    graph.record(&OperationalFact::MissedDependency { caller: "gateway".into(), callee: "ledger".into() });
    // What is asked for late is what it was: rates, seconds and edges.
    assert_eq!(before.to_value(), early);
    assert!(before.edge("gateway", "ledger").is_none());
    assert_eq!(before.edges_from("checkout").count() + before.edges_into("checkout").count(), 4);
    assert_eq!(before.edge_count(), before.edges().len());
}
