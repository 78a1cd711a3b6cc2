use super::*;
use crate::fixture::{Fixture, ask};
use axum::body::Body;
use axum::http::Request;
use base::Millis;

const CREATE: &str = r#"{"kind":"promise.create","head":{"corrId":"1","version":"2026-04-01"},
    "data":{"id":"p","timeoutAt":9000000000000,"tags":{"resonate:external":"true"}}}"#;
const LISTEN: &str = r#"{"kind":"promise.register_listener","head":{"corrId":"1","version":"2026-04-01"},
    "data":{"awaited":"p","address":"poll://uni@g/nobody"}}"#;
const SETTLE: &str = r#"{"kind":"promise.settle","head":{"corrId":"1","version":"2026-04-01"},
    "data":{"id":"p","state":"resolved"}}"#;

async fn get(router: &Router, path: &str) -> Outbox {
    let (status, body) = ask(router, Request::get(path).body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap()
}

async fn retried(router: &Router, body: &str) -> (u16, String) {
    let (status, body) = ask(router, Request::post("/outbox/retry").body(Body::from(body.to_owned())).unwrap()).await;
    (status.as_u16(), String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn what_waits_and_what_was_given_up_is_listed_and_sent_again() {
    let fixture = Fixture::new();
    let engine = &fixture.app.engine;
    let router = crate::serve::router(&fixture.app, "http://127.0.0.1:1");
    for request in [CREATE, LISTEN, SETTLE] {
        assert_eq!(engine.wire(request.as_bytes()).await.0, 200);
    }
    let listed = get(&router, "/outbox").await;
    assert_eq!((listed.waiting, listed.messages.len()), (1, 1));
    let waiting = &listed.messages[0];
    assert_eq!((waiting.state.as_str(), waiting.kind.as_str(), waiting.promise.as_str()), ("waiting", "unblock", "p"));
    assert_eq!((waiting.address.as_str(), waiting.attempts), ("poll://uni@g/nobody", 0));
    assert!(get(&router, "/outbox?dead=true").await.messages.is_empty());
    let (status, told) = retried(&router, &format!(r#"{{"id":{}}}"#, waiting.id)).await;
    assert_eq!((status, told.contains("neither a dead letter")), (404, true), "{told}");

    engine.env().advance(Millis(24 * 3_600_000));
    crate::engine::tests::until("it is given up", || engine.delivery_counts().dead == 1).await;
    engine.flush().await.unwrap();
    let listed = get(&router, "/outbox?dead=true").await;
    assert_eq!((listed.messages.len(), listed.messages[0].state.as_str(), listed.dead), (1, "dead", 1));
    assert_eq!(listed.messages[0].error.as_deref(), Some("nobody came for it"));
    assert!(listed.messages[0].dead_at_ms.is_some());
    for wrong in ["", "{}", r#"{"all":false}"#, r#"{"id":-1}"#, r#"{"id":1,"all":true}"#] {
        assert_eq!(retried(&router, wrong).await.0, 400, "{wrong}");
    }
    assert_eq!(retried(&router, r#"{"all":true}"#).await, (200, r#"{"retried":1}"#.to_owned()));
    let listed = get(&router, "/outbox").await;
    assert_eq!((listed.messages.len(), listed.messages[0].state.as_str()), (1, "waiting"));
    assert_eq!(retried(&router, r#"{"all":true}"#).await.1, r#"{"retried":0}"#);
}

#[tokio::test]
async fn so_many_messages_are_listed_and_a_request_is_read_up_to_its_limit() {
    use crate::engine::LISTED_MAX;
    let fixture = Fixture::new();
    let engine = &fixture.app.engine;
    for number in 0..=LISTED_MAX {
        let create = format!(
            r#"{{"kind":"promise.create","head":{{"corrId":"1","version":"2026-04-01"}},
            "data":{{"id":"t{number}","timeoutAt":9000000000000,"tags":{{"resonate:target":"poll://any@g"}}}}}}"#
        );
        assert_eq!(engine.wire(create.as_bytes()).await.0, 200);
    }
    let router = crate::serve::router(&fixture.app, "http://127.0.0.1:1");
    let listed = get(&router, "/outbox").await;
    assert_eq!((listed.messages.len(), listed.waiting), (LISTED_MAX, LISTED_MAX as u64 + 1));
    for (length, status) in [(RESEND_BYTES_MAX, 400), (RESEND_BYTES_MAX + 1, 413)] {
        assert_eq!(retried(&router, &" ".repeat(length)).await.0, status, "{length}");
    }
}
