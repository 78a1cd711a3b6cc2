use super::*;
use axum::Router;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::routing::get;
use std::collections::BTreeMap;

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

fn second(n: i64, sent: u64, failed: u64, late: u64) -> RecordSecond {
    let p99_ms = 100 * u64::try_from(n).unwrap();
    RecordSecond { second_ms: n * 1_000, sent, failed, late, shed: 1, p99_ms, in_flight: 7, ..RecordSecond::default() }
}

#[tokio::test]
async fn the_record_is_asked_for_from_an_instant_and_what_it_leaves_out_is_zero() {
    let answer = async |Query(asked): Query<BTreeMap<String, String>>| {
        format!(r#"[{{"second_ms": {}, "sent": 3, "unknown": true}}]"#, asked["since_ms"])
    };
    let url = serve(Router::new().route("/record", get(answer))).await;
    let record = read_record(&format!("{url}/record"), Timestamp(12_000)).await.unwrap();
    assert_eq!(record, [RecordSecond { second_ms: 12_000, sent: 3, ..RecordSecond::default() }]);
}

#[tokio::test]
async fn a_record_that_does_not_answer_is_never_an_empty_one() {
    let router = Router::new()
        .route("/prose", get(async || "all is well"))
        .route("/busy", get(async || (StatusCode::SERVICE_UNAVAILABLE, "[]")))
        .route("/never", get(std::future::pending::<()>));
    let url = serve(router).await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let read = async |url: String| read_record(&url, Timestamp(0)).await.unwrap_err();
    assert!(matches!(read(format!("{url}/prose")).await, RecordError::Garbled(_)));
    assert!(matches!(read(format!("{url}/busy")).await, RecordError::Garbled(_)));
    assert!(matches!(read(format!("{url}/never")).await, RecordError::Unanswered { .. }));
    assert!(matches!(read(format!("http://{gone}/record")).await, RecordError::Unanswered { .. }));
    assert!(matches!(read("file:///record".to_owned()).await, RecordError::Address(_)));
}

#[test]
fn a_summary_counts_whole_seconds_with_traffic_within_its_bounds() {
    let record =
        [second(1, 10, 9, 0), second(2, 10, 1, 2), second(3, 0, 5, 0), second(4, 20, 0, 1), second(5, 9, 9, 0)];
    let summary = summarize(&record, Timestamp(2_000), Timestamp(5_000));
    let expected = RecordSummary { seconds: 2, sent: 30, bad: 4, shed: 2, p99_ms: 400, in_flight: 7 };
    assert_eq!(summary, expected, "the second without traffic and those outside say nothing");
    assert_eq!(summarize(&record, Timestamp(6_000), Timestamp(9_000)), RecordSummary::default());
}

#[test]
fn a_number_that_counts_nothing_is_no_record() {
    for name in ["sent", "ok", "failed", "shed", "late", "p50_ms", "p99_ms", "in_flight"] {
        let body = |number: u64| {
            format!(r#"[{{"second_ms": 1000, "sent": 1, "{name}": {number}}}]"#)
                .replace(r#""sent": 1, "sent""#, r#""sent""#)
        };
        assert!(parse(body(RECORD_NUMBER_MAX).as_bytes()).is_some(), "{name}");
        assert_eq!(parse(body(RECORD_NUMBER_MAX + 1).as_bytes()), None, "{name}");
    }
    for (second_ms, is_time) in
        [(-1, false), (0, true), (RECORD_SECOND_MAX_MS, true), (RECORD_SECOND_MAX_MS + 1, false)]
    {
        let body = format!(r#"[{{"second_ms": {second_ms}, "sent": 1}}]"#);
        assert_eq!(parse(body.as_bytes()).is_some(), is_time, "{second_ms}");
    }
    let most = RecordSecond {
        sent: RECORD_NUMBER_MAX,
        failed: RECORD_NUMBER_MAX,
        late: RECORD_NUMBER_MAX,
        ..second(1, 1, 0, 0)
    };
    let sum = summarize(&vec![most; 100_000], Timestamp(0), Timestamp(9_000));
    assert_eq!((sum.sent, sum.bad), (100_000 * RECORD_NUMBER_MAX, 200_000 * RECORD_NUMBER_MAX));
}
