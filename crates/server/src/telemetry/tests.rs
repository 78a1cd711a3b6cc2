use super::intake::partial_success;
use super::*;
use crate::fixture::{START, ask};
use axum::body::Body;
use axum::http::{Request, header};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use std::io::Write as _;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

pub(super) fn telemetry() -> Telemetry {
    Telemetry::new(Env::manual(START), &Config::default(), &Topology::default()).unwrap()
}

async fn send(telemetry: &Telemetry, kind: &str, encoding: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
    let request = Request::post("/v1/traces").header(header::CONTENT_TYPE, kind);
    let request = if encoding.is_empty() { request } else { request.header(header::CONTENT_ENCODING, encoding) };
    let (status, body) = ask(&routes(telemetry.clone()), request.body(Body::from(body)).unwrap()).await;
    (status.as_u16(), body)
}

/// What the intake kept: service, name and parent of each span.
pub(super) fn kept(telemetry: &Telemetry) -> Vec<(String, String, Option<u64>)> {
    let spans = telemetry.spans(START, START.plus(Millis(1_000)));
    spans.into_iter().map(|span| (span.service, span.name, span.parent)).collect()
}

pub(super) fn one_call() -> Vec<(String, String, Option<u64>)> {
    vec![("front".into(), "GET /".into(), None), ("back".into(), "read".into(), Some(1))]
}

/// A length-delimited field of the protobuf encoding.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let (low, high) = (content.len() % 128, content.len() / 128);
    [&[number << 3 | 2, u8::try_from(low).unwrap() | 0x80, u8::try_from(high).unwrap()], content].concat()
}

fn nanos(number: u8, at: Timestamp) -> Vec<u8> {
    let nanos = u64::try_from(at.0).unwrap() * 1_000_000;
    [&[number << 3 | 1], &nanos.to_le_bytes()[..]].concat()
}

/// One service's span, as a field of an export request.
fn resource_spans(service: &str, id: u64, parent: Option<u64>, name: &str) -> Vec<u8> {
    let value = field(1, service.as_bytes());
    let attribute = [field(1, b"service.name"), field(2, &value)].concat();
    let span = [
        field(1, &7_u128.to_be_bytes()),
        field(2, &id.to_be_bytes()),
        parent.map(|parent| field(4, &parent.to_be_bytes())).unwrap_or_default(),
        field(5, name.as_bytes()),
        nanos(7, START.plus(Millis(id))),
        nanos(8, START.plus(Millis(id + 5))),
    ];
    let scope = field(2, &span.concat());
    field(1, &[field(1, &field(1, &attribute)), field(2, &scope)].concat())
}

pub(super) fn protobuf() -> Vec<u8> {
    [resource_spans("front", 1, None, "GET /"), resource_spans("back", 2, Some(1), "read")].concat()
}

fn json_span(id: u64, parent: Option<u64>, name: &str) -> serde_json::Value {
    let nanos = |at: Timestamp| (at.0 * 1_000_000).to_string();
    serde_json::json!({
        "traceId": format!("{:032x}", 7), "spanId": format!("{id:016x}"),
        "parentSpanId": parent.map(|parent| format!("{parent:016x}")).unwrap_or_default(), "name": name, "kind": 2,
        "startTimeUnixNano": nanos(START.plus(Millis(id))), "endTimeUnixNano": nanos(START.plus(Millis(id + 5))),
    })
}

fn json(spans: &[(&str, serde_json::Value)]) -> Vec<u8> {
    let resource = |(service, span): &(&str, serde_json::Value)| {
        serde_json::json!({
            "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": service } }] },
            "scopeSpans": [{ "spans": [span] }],
        })
    };
    let all: Vec<_> = spans.iter().map(resource).collect();
    serde_json::json!({ "resourceSpans": all }).to_string().into_bytes()
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn protobuf_and_json_plain_and_compressed_are_the_same_spans() {
    let json = json(&[("front", json_span(1, None, "GET /")), ("back", json_span(2, Some(1), "read"))]);
    let cases = [
        (PROTOBUF, "", protobuf(), &b""[..]),
        (PROTOBUF, "identity", protobuf(), b""),
        (PROTOBUF, "gzip", gzip(&protobuf()), b""),
        (JSON, "", json.clone(), b"{}"),
        ("application/json; charset=utf-8", "gzip", gzip(&json), b"{}"),
    ];
    for (kind, encoding, body, answer) in cases {
        let telemetry = telemetry();
        assert_eq!(send(&telemetry, kind, encoding, body).await, (200, answer.to_vec()), "{kind} {encoding}");
        assert_eq!(kept(&telemetry), one_call(), "{kind} {encoding}");
        assert_eq!(telemetry.counts().0.refused, 0);
        let snapshot = telemetry.snapshot();
        assert!(snapshot.contains("front") && snapshot.contains("back"), "{kind} {encoding}");
    }
}

#[tokio::test]
async fn spans_that_cannot_be_used_are_counted_and_reported_and_the_others_kept() {
    let telemetry = telemetry();
    let nameless = field(1, &field(2, &field(2, &field(1, &7_u128.to_be_bytes()))));
    let (status, answer) = send(&telemetry, PROTOBUF, "", [protobuf(), nameless].concat()).await;
    assert_eq!((status, answer), (200, vec![0x0a, 2, 0x08, 1]), "a partial success with one rejected span");
    let body = json(&[("front", json_span(0, None, "no id")), ("late", json_span(3, None, "fine"))]);
    let (status, answer) = send(&telemetry, JSON, "", body).await;
    assert_eq!((status, answer), (200, br#"{"partialSuccess":{"rejectedSpans":"1"}}"#.to_vec()));
    assert_eq!(telemetry.counts().0.refused, 2);
    assert_eq!(kept(&telemetry).len(), 3);
}

#[tokio::test]
async fn what_is_not_an_export_request_is_refused_and_changes_nothing() {
    let telemetry = telemetry();
    let mut damaged = gzip(&protobuf());
    damaged.truncate(damaged.len() / 2);
    let cases = [
        (PROTOBUF, "", b"not protobuf".to_vec(), 400),
        (PROTOBUF, "", protobuf()[..20].to_vec(), 400),
        (JSON, "", br#"{"resourceSpans":["#.to_vec(), 400),
        (JSON, "", protobuf(), 400),
        (PROTOBUF, "gzip", protobuf(), 400),
        (PROTOBUF, "gzip", damaged, 400),
        (PROTOBUF, "zstd", protobuf(), 415),
    ];
    for (kind, encoding, body, status) in cases {
        let shown = format!("{kind} {encoding} {} bytes", body.len());
        assert_eq!(send(&telemetry, kind, encoding, body).await.0, status, "{shown}");
    }
    assert_eq!((kept(&telemetry).len(), telemetry.counts().0.refused), (0, 0));
    assert_eq!(telemetry.snapshot().services().count(), 0);
}

#[tokio::test]
async fn too_many_bytes_are_refused_before_and_after_decompression() {
    let telemetry = telemetry();
    let zeros = vec![0; BATCH_BYTES_MAX + 1];
    assert_eq!(send(&telemetry, PROTOBUF, "gzip", gzip(&zeros)).await.0, 413);
    assert_eq!(send(&telemetry, PROTOBUF, "", zeros).await.0, 413);
    assert!(kept(&telemetry).is_empty());
}

#[test]
fn spans_are_forgotten_with_age_and_the_window_is_half_open() {
    let telemetry = telemetry();
    let span = |at: Timestamp| Span { start_us: u64::try_from(at.0).unwrap() * 1_000, ..Span::default() };
    telemetry.observe(vec![span(START), span(START.plus(Millis(10)))]);
    assert_eq!(telemetry.spans(START, START.plus(Millis(10))).len(), 1);
    assert_eq!(telemetry.spans(START, START.plus(Millis(11))).len(), 2);
    telemetry.env.advance(Millis(KEPT_FOR.0 + 5));
    telemetry.observe(Vec::new());
    assert_eq!(telemetry.spans(START, START.plus(Millis(11))).len(), 1, "the older one is forgotten");
}

#[test]
fn the_count_of_a_partial_success_is_a_protobuf_number() {
    assert_eq!(partial_success(0), b"");
    assert_eq!(partial_success(127), [0x0a, 2, 0x08, 0x7f]);
    assert_eq!(partial_success(300), [0x0a, 3, 0x08, 0xac, 0x02]);
    assert_eq!(partial_success(u64::MAX).len(), 2 + 1 + 10);
}

#[test]
fn spans_are_kept_up_to_their_limit_and_the_oldest_go_first() {
    let telemetry = telemetry();
    assert_eq!(telemetry.lock().kept_bytes_max, KEPT_BYTES_MAX);
    let name = "x".repeat(1_000);
    let at = u64::try_from(START.0).unwrap() * 1_000;
    let span = |id: u64| Span { id, start_us: at, name: name.clone(), ..Span::default() };
    telemetry.lock().kept_bytes_max = 3 * (size_of::<Span>() + 1_000);
    telemetry.observe((1..=5).map(span).collect());
    let kept = telemetry.spans(START, START.plus(Millis(1)));
    assert_eq!(kept.iter().map(|span| span.id).collect::<Vec<_>>(), [3, 4, 5]);
}

#[tokio::test]
async fn so_many_batches_are_in_hand_and_one_more_is_told_to_come_again() {
    let telemetry = telemetry();
    let held = telemetry.batches.clone().try_acquire_many_owned(u32::try_from(BATCHES_MAX).unwrap()).unwrap();
    let request = Request::post("/v1/traces").header(header::CONTENT_TYPE, PROTOBUF).body(Body::from(protobuf()));
    let service = TowerToHyperService::new(routes(telemetry.clone()));
    let answer = service.call(request.unwrap()).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()[header::RETRY_AFTER].as_bytes()), (503, &b"1"[..]));
    assert_eq!((kept(&telemetry).len(), telemetry.counts().0.busy), (0, 1));
    drop(held);
    assert_eq!(send(&telemetry, PROTOBUF, "", protobuf()).await.0, 200);
    assert_eq!(telemetry.batches.available_permits(), BATCHES_MAX);
    assert_eq!(telemetry.reading.available_permits(), READING_BYTES_MAX >> 10);
}

#[tokio::test]
async fn a_batch_waits_until_there_is_room_to_read_it() {
    let telemetry = telemetry();
    let held = telemetry.reading.clone().try_acquire_many_owned(u32::try_from(READING_BYTES_MAX >> 10).unwrap());
    let sending = send(&telemetry, PROTOBUF, "gzip", gzip(&protobuf()));
    let waits = async {
        tokio::task::yield_now().await;
        assert!(kept(&telemetry).is_empty());
        drop(held);
    };
    assert_eq!(tokio::join!(sending, waits).0.0, 200);
    assert_eq!(kept(&telemetry), one_call());
}

#[test]
fn a_span_that_ended_long_ago_is_taken_and_counted_as_late() {
    let telemetry = telemetry();
    let join = Config::default().join.0;
    telemetry.env.advance(Millis(join + 10));
    let ended = |ms: u64| {
        let start_us = u64::try_from(START.plus(Millis(ms)).0).unwrap() * 1_000;
        Span { trace: 1, id: ms, service: "s".to_owned(), start_us, ..Span::default() }
    };
    telemetry.observe(vec![ended(9), ended(10), ended(11)]);
    let (intake, _) = telemetry.counts();
    assert_eq!((intake.received, intake.late), (3, 1));
    assert!(telemetry.snapshot().contains("s"));
}

#[test]
fn whoever_reads_the_graph_gets_a_turn_within_a_batch() {
    let telemetry = telemetry();
    let at = u64::try_from(START.0).unwrap() * 1_000;
    let count = u64::try_from(TURN_SPANS_MAX).unwrap() * 2 + 1;
    let span = |id| Span { trace: 1, id, service: "s".to_owned(), start_us: at, ..Span::default() };
    telemetry.observe((1..=count).map(span).collect());
    assert_eq!(telemetry.counts().0.received, count);
    telemetry.observe((1..=u64::try_from(TURN_SPANS_MAX).unwrap()).map(|id| span(id + count)).collect());
    assert_eq!(telemetry.counts().0.received, count + u64::try_from(TURN_SPANS_MAX).unwrap());
}
