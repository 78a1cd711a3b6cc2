use super::routes;
use crate::engine::{Config, Engine, Env, NEAR_MAX, SUBMIT_REQUESTS_MAX};
use axum::body::Body;
use base::{Millis, Timestamp};
use protocol::{Callback, Create, Request, TARGET, Value};
use std::collections::BTreeMap;

const START: Timestamp = Timestamp(1_000_000);

fn create(id: &str, target: bool) -> Request {
    let target = target.then(|| (TARGET.to_owned(), "poll://any@nobody".to_owned()));
    let tags = target.into_iter().collect::<BTreeMap<_, _>>();
    Request::PromiseCreate(Create {
        id: id.to_owned(),
        timeout_at: Timestamp(9_000_000),
        param: Value::default(),
        tags,
    })
}

async fn submit(engine: &Engine, requests: Vec<Request>) {
    engine.submit(requests, Vec::new(), Vec::new(), Vec::new()).await.unwrap();
}

async fn ask(engine: &Engine, query: &str) -> (u16, serde_json::Value) {
    let request = axum::http::Request::get(format!("/inspect?{query}")).body(Body::empty()).unwrap();
    let (status, body) = crate::fixture::ask(&routes(engine.clone()), request).await;
    (status.as_u16(), serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn a_row_is_shown_with_its_times_its_waiters_and_its_listeners() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), Config::default(), Env::manual(START)).unwrap();
    submit(&engine, vec![create("order", true), create("order:1", true)]).await;
    let (id, pid, ttl) = ("order".to_owned(), "w1".to_owned(), Millis(500));
    let suspend = vec![Callback { awaited: "order:1".to_owned(), awaiter: id.clone() }];
    let requests = vec![
        Request::TaskAcquire { id: id.clone(), version: 0, pid: pid.clone(), ttl },
        Request::TaskSuspend { id: id.clone(), version: 1, actions: suspend },
        Request::RegisterListener { awaited: "order:1".to_owned(), address: "poll://uni@people/me".to_owned() },
        Request::TaskAcquire { id: "order:1".to_owned(), version: 0, pid, ttl },
    ];
    submit(&engine, requests).await;
    let (status, child) = ask(&engine, "id=order%3A1").await;
    assert_eq!(status, 200, "{child}");
    assert_eq!(child["promise"]["id"], "order:1");
    assert_eq!((&child["callbacks"][0], &child["listeners"][0]), (&"order".into(), &"poll://uni@people/me".into()));
    let task = &child["task"];
    assert_eq!((&task["state"], &task["pid"], &task["attempts"]), (&"acquired".into(), &"w1".into(), &1.into()));
    assert_eq!((&task["ttl"], &task["leaseAt"]), (&500.into(), &(START.0 + 500).into()));
    let (_, parent) = ask(&engine, "id=order").await;
    assert_eq!((&parent["task"]["state"], &parent["task"]["awaits"][0]), (&"suspended".into(), &"order:1".into()));
    assert!(parent["task"].get("leaseAt").is_none(), "{parent}");
    submit(&engine, vec![Request::TaskHalt { id }]).await;
    let (_, halted) = ask(&engine, "id=order").await;
    assert!(halted["task"]["reason"].as_str().unwrap().contains("halted"), "{halted}");
}

#[tokio::test]
async fn an_id_that_does_not_exist_is_answered_with_the_nearest_one() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), Config::default(), Env::manual(START)).unwrap();
    let all: Vec<Request> = (0..NEAR_MAX).map(|number| create(&format!("order-{number:04}"), false)).collect();
    for some in all.chunks(SUBMIT_REQUESTS_MAX) {
        submit(&engine, some.to_vec()).await;
    }
    submit(&engine, vec![create("invoice-7", false)]).await;
    for (asked, nearest) in [("order-0400x", "order-0400"), ("invoic-7", "invoice-7"), ("ordre-0003", "order-0003")] {
        let (status, told) = ask(&engine, &format!("id={asked}")).await;
        assert_eq!((status, &told["nearest"]), (404, &nearest.into()), "{asked}: {told}");
    }
    assert!(ask(&engine, "id=completely-different").await.1["nearest"].is_null());
    assert!(engine.near("order-").len() <= NEAR_MAX);
    assert_eq!(ask(&engine, "").await.0, 400);
}
