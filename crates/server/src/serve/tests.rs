use super::*;
use crate::fixture::{Fixture, ask};
use axum::body::Body;
use axum::http::Request;
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, RngSeed, TestRunner};

/// Every route that takes something from outside; `{}` is a part of the path that a caller chooses.
const ROUTES: [(&str, &str); 15] = [
    ("POST", "/"),
    ("POST", "/v1/traces"),
    ("POST", "/incidents"),
    ("POST", "/records"),
    ("POST", "/given-back"),
    ("POST", "/holds"),
    ("GET", "/incidents/{}"),
    ("GET", "/incidents/{}/bundle"),
    ("GET", "/incidents/{}/standing/{}"),
    ("GET", "/blobs/{}"),
    ("GET", "/groups/{}"),
    ("GET", "/topology/permission?services={}"),
    ("GET", "/topology/graph"),
    ("DELETE", "/promises/{}"),
    ("PUT", "/{}"),
];

/// Bodies that are nearly right.
const BODIES: [&str; 7] = [
    r#"{"kind":"promise.create","head":{"corrId":"1","version":"2026-04-01"},"data":{"id":"a","timeoutAt":9223372036854775807}}"#,
    r#"{"kind":"task.acquire","head":{"corrId":"1","version":"2026-04-01"},"data":{"id":"a","version":9223372036854775807,"pid":"p","ttl":9223372036854775807}}"#,
    r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"a"}}]},"scopeSpans":[{"spans":[{"traceId":"1","spanId":"1","startTimeUnixNano":"0","endTimeUnixNano":18446744073709551615}]}]}]}"#,
    r#"{"target":"payments","preview":true,"lying_observer":"nobody"}"#,
    r#"{"incident":"x","task":"inc/x:commit.1","version":18446744073709551615,"epoch":null,"records":["{}"],"blobs":[]}"#,
    r#"{"record":"{}"}"#,
    r#"[[[[[[[[[[[[[["#,
];

#[derive(Debug)]
struct Asked {
    method: &'static str,
    path: String,
    kind: &'static str,
    encoding: &'static str,
    body: Vec<u8>,
}

fn asked() -> impl Strategy<Value = Asked> {
    let part = prop_oneof!["[a-zA-Z0-9._~%:-]{0,40}", Just("..".to_owned()), Just("x".repeat(5_000))];
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        (prop::sample::select(&BODIES[..]), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(body, at, byte)| {
            let mut bytes = body.as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        }),
        prop::sample::select(&BODIES[..]).prop_map(|body| body.as_bytes().to_vec()),
    ];
    let kind = prop::sample::select(&["application/json", "application/x-protobuf", "text/plain", "\u{e9}"][..]);
    let encoding = prop::sample::select(&["identity", "gzip", "br"][..]);
    (prop::sample::select(&ROUTES[..]), part, kind, encoding, body).prop_map(
        |((method, path), part, kind, encoding, body)| {
            let path = path.replace("{}", &part);
            Asked { method, path, kind, encoding, body }
        },
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_asked_is_answered_and_the_server_goes_on() {
    let fixture = Fixture::new();
    let router = router(&fixture.app, "http://127.0.0.1:1");
    let runtime = tokio::runtime::Handle::current();
    let cases = Cases { cases: 400, failure_persistence: None, rng_seed: RngSeed::Fixed(5), ..Cases::default() };
    let statuses = std::sync::Mutex::new(std::collections::BTreeMap::<u16, u32>::new());
    let run = || {
        TestRunner::new(cases).run(&asked(), |asked| {
            let Asked { method, path, kind, encoding, body } = asked;
            let request = Request::builder().method(method).uri(&path).header("content-encoding", encoding);
            let Ok(request) = request.header("content-type", kind.as_bytes()).body(Body::from(body)) else {
                // Not even HTTP: the listener in front of the routes refuses it.
                return Ok(());
            };
            let (status, _) = runtime.block_on(ask(&router, request));
            *statuses.lock().unwrap().entry(status.as_u16()).or_default() += 1;
            let refused = status.is_client_error();
            prop_assert!(status.is_success() || refused, "{method} {path}: {status}");
            Ok(())
        })
    };
    tokio::task::block_in_place(run).unwrap_or_else(|failure| panic!("seed 5: {failure}"));
    let statuses = statuses.into_inner().unwrap();
    for status in [200, 400, 404, 410, 415] {
        assert!(statuses.contains_key(&status), "{status} was never answered: {statuses:?}");
    }
    assert_eq!(fixture.app.engine.violations(), Vec::<String>::new());
    let good = r#"{"kind":"promise.create","head":{"corrId":"1","version":"2026-04-01"},"data":{"id":"good","timeoutAt":9000000000000}}"#;
    let (status, _) = ask(&router, Request::post("/").body(Body::from(good)).unwrap()).await;
    assert_eq!(status.as_u16(), 200);
}
