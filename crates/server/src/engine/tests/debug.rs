use super::*;
use protocol::{Debug, PromiseState, Response};

fn debugged(dir: &Path) -> Engine {
    Engine::open(dir, Config { debug: true, ..Config::default() }, Env::manual(START)).unwrap()
}

/// One request with the instant at which a tester wants it applied.
async fn at(engine: &Engine, time: i64, kind: &str, data: &str) -> (u16, serde_json::Value) {
    let head = format!(r#"{{"corrId":"1","version":"2026-04-01","resonate:debug_time":{time}}}"#);
    let (status, bytes) = engine.wire(format!(r#"{{"kind":"{kind}","head":{head},"data":{data}}}"#).as_bytes()).await;
    let answer: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    (status, answer["data"].clone())
}

#[tokio::test]
async fn without_the_flag_testers_are_refused_and_their_time_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    for debug in [Debug::Start, Debug::Stop, Debug::Reset, Debug::Tick(Timestamp(1)), Debug::Snap] {
        let (status, bytes) = engine.wire(&protocol::wire::render_request("1", &Request::Debug(debug))).await;
        assert_eq!(status, 403, "{}", String::from_utf8_lossy(&bytes));
    }
    let (status, data) = at(&engine, 5, "promise.create", r#"{"id":"p","timeoutAt":9000000000}"#).await;
    assert_eq!((status, data["promise"]["createdAt"].as_i64()), (200, Some(START.0)));
}

#[tokio::test]
async fn a_tester_turns_the_clockwork_looks_and_empties() {
    let dir = tempfile::tempdir().unwrap();
    let engine = debugged(dir.path());
    assert_eq!(at(&engine, 0, "debug.start", "{}").await.0, 200);
    let tags = r#"{"resonate:target":"poll://any@g"}"#;
    let create = |id: &str| format!(r#"{{"id":"{id}","timeoutAt":5000,"tags":{tags}}}"#);
    let (_, made) = at(&engine, 10, "promise.create", &create("p")).await;
    assert_eq!(made["promise"]["createdAt"], 10);
    let (_, taken) = at(&engine, 20, "task.acquire", r#"{"id":"p","version":0,"pid":"w","ttl":100}"#).await;
    assert_eq!((&taken["task"]["version"], &taken["preload"]), (&1.into(), &serde_json::json!([])));
    let (_, snap) = at(&engine, 20, "debug.snap", "{}").await;
    assert_eq!(snap["taskTimeouts"], serde_json::json!([{ "id": "p", "type": 1, "timeout": 120 }]));
    assert_eq!(snap["promiseTimeouts"], serde_json::json!([{ "id": "p", "timeout": 5000 }]));
    assert_eq!(at(&engine, 119, "debug.tick", r#"{"time":120}"#).await.0, 400, "two different times");
    assert_eq!(at(&engine, 119, "debug.tick", "{}").await.0, 400, "no time");
    assert_eq!(at(&engine, 120, "debug.tick", r#"{"time":120}"#).await, (200, serde_json::json!([])));
    let (_, snap) = at(&engine, 120, "debug.snap", "{}").await;
    assert_eq!((&snap["tasks"][0]["state"], &snap["tasks"][0]["version"]), (&"pending".into(), &2.into()));
    assert_eq!(snap["messages"][0]["message"]["data"]["task"]["version"], 2);
    at(&engine, 5_000, "debug.tick", r#"{"time":5000}"#).await;
    assert_eq!(engine.promise("p").unwrap().state, PromiseState::TimedOut);

    assert_eq!(at(&engine, 0, "debug.reset", "{}").await.0, 200);
    assert!(engine.promise("p").is_none());
    let (_, snap) = at(&engine, 0, "debug.snap", "{}").await;
    assert!(snap.as_object().unwrap().values().all(|list| list == &serde_json::json!([])), "{snap}");
    assert_eq!(at(&engine, 30, "promise.create", &create("p")).await.1["promise"]["createdAt"], 30);
    drop(engine);
    let engine = open(dir.path());
    assert_eq!(engine.promise("p").unwrap().created_at, Timestamp(30), "the store was emptied, too");
    assert_eq!(engine.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn incidents_are_not_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let engine = debugged(dir.path());
    submit(&engine, vec![create("inc/1:detect")]).await.unwrap();
    let refused: Response = wire(&engine, &Request::Debug(Debug::Reset)).await.1;
    assert_eq!(refused.status, 403);
    assert!(engine.promise("inc/1:detect").is_some());
}
