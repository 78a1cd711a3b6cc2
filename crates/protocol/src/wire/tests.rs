use std::sync::Arc;

use base::{Millis, Timestamp};
use expect_test::{Expect, expect};

use super::*;
use crate::request::{
    Body, Callback, Create, Debug, FenceAction, FencedKind, PromiseSearch, Resolution, ScheduleCreate, ScheduleSearch,
    Settle, TaskSearch,
};
use crate::state::{Message, PromiseState, TaskRecord, TaskState, Value};

fn create() -> Create {
    let param = Value { headers: Some([("h".to_owned(), "1".to_owned())].into()), data: Some("cGFyYW0=".into()) };
    let tags = [("resonate:target".to_owned(), "poll://any@g".to_owned())].into();
    Create { id: "w:1".into(), timeout_at: Timestamp(9_000), param, tags }
}

fn settle() -> Settle {
    Settle { id: "w:1".into(), state: Resolution::Canceled, value: Value::text("dmFsdWU=") }
}

fn promise() -> Arc<Promise> {
    let Create { id, timeout_at, param, tags } = create();
    let (state, value) = (PromiseState::Rejected, Value::text("quoted \" and é"));
    let settled_at = Some(Timestamp(20));
    let tags = tags.into();
    Arc::new(Promise { id, state, param, value, tags, timeout_at, created_at: Timestamp(10), settled_at })
}

fn task() -> TaskRecord {
    let (id, pid) = ("w:1".to_owned(), Some("p".to_owned()));
    TaskRecord { id, state: TaskState::Acquired, version: 3, resumes: 2, ttl: Some(Millis(60_000)), pid }
}

fn requests() -> Vec<Request> {
    let callback = || Callback { awaited: "w:2".into(), awaiter: "w:1".into() };
    let (id, version, pid, ttl) = (String::from("w:1"), 2, String::from("p"), Millis(5));
    let task = TaskRef { id: id.clone(), version };
    vec![
        Request::PromiseGet { id: id.clone() },
        Request::PromiseCreate(create()),
        Request::PromiseSettle(settle()),
        Request::RegisterCallback(callback()),
        Request::RegisterListener { awaited: id.clone(), address: "poll://uni@g/p".into() },
        Request::TaskGet { id: id.clone() },
        Request::TaskCreate { pid: pid.clone(), ttl, action: create() },
        Request::TaskAcquire { id: id.clone(), version, pid: pid.clone(), ttl },
        Request::TaskRelease(task.clone()),
        Request::TaskFulfill { id: id.clone(), version, action: settle() },
        Request::TaskSuspend { id: id.clone(), version, actions: vec![callback()] },
        Request::TaskFence { id: id.clone(), version, action: FenceAction::Create(create()) },
        Request::TaskFence { id, version, action: FenceAction::Settle(settle()) },
        Request::TaskHeartbeat { pid, tasks: vec![task] },
        Request::TaskHalt { id: "w:1".into() },
        Request::TaskContinue { id: "w:1".into() },
        Request::PromiseSearch(PromiseSearch {
            state: Some(PromiseState::Canceled),
            tags: [("a".to_owned(), "b".to_owned())].into(),
            limit: Some(7),
            cursor: Some("w".into()),
        }),
        Request::PromiseSearch(PromiseSearch::default()),
        Request::TaskSearch(TaskSearch { state: Some(TaskState::Halted), limit: Some(1), cursor: None }),
        Request::ScheduleGet { id: "s".into() },
        Request::ScheduleCreate(ScheduleCreate {
            id: "s".into(),
            cron: "* * * * *".into(),
            promise_id: "{{.id}}.{{.timestamp}}".into(),
            promise_timeout: Millis(9),
            promise_param: Value::text("x"),
            promise_tags: [("resonate:target".to_owned(), "poll://any@g".to_owned())].into(),
        }),
        Request::ScheduleDelete { id: "s".into() },
        Request::ScheduleSearch(ScheduleSearch { limit: Some(3), ..ScheduleSearch::default() }),
        Request::Debug(Debug::Start),
        Request::Debug(Debug::Stop),
        Request::Debug(Debug::Reset),
        Request::Debug(Debug::Tick(Timestamp(5))),
        Request::Debug(Debug::Snap),
    ]
}

fn parsed(request: Request) -> Parsed {
    let kind = kind_of(&request).to_owned();
    Parsed { kind, corr_id: "c1".into(), version: VERSION.into(), auth: None, debug_time: None, request }
}

#[test]
fn every_request_survives_the_wire() {
    for request in requests() {
        let bytes = render_request("c1", &request);
        assert_eq!(parse_request(&bytes), Ok(parsed(request)), "{}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn every_response_survives_the_wire() {
    let (id, pid, ttl) = (String::from("w:1"), String::from("p"), Millis(5));
    let acquire = Request::TaskAcquire { id: id.clone(), version: 2, pid, ttl };
    let fence = Request::TaskFence { id: id.clone(), version: 2, action: FenceAction::Settle(settle()) };
    let suspend = Request::TaskSuspend { id: id.clone(), version: 2, actions: vec![] };
    let ok = Response::ok;
    let fenced = |response| Body::Fenced { kind: FencedKind::Settle, response: Box::new(response), preload: vec![] };
    let acquired = Body::Acquired { task: task(), promise: promise(), preload: vec![promise()] };
    for (request, response) in [
        (Request::PromiseGet { id: id.clone() }, ok(Body::Promise(promise()))),
        (Request::PromiseGet { id: id.clone() }, Response::refuse(404, "no such promise")),
        (Request::TaskGet { id }, ok(Body::Task(task()))),
        (acquire, ok(acquired)),
        (suspend.clone(), ok(Body::Empty)),
        (suspend, Response { status: 300, body: Body::Preload(vec![promise()]) }),
        (fence.clone(), ok(fenced(ok(Body::Promise(promise()))))),
        (fence, ok(fenced(Response::refuse(404, "no such promise")))),
    ] {
        let parsed = parsed(request);
        let answer = parse_response(&render_response(&parsed, &response)).expect("a response");
        assert_eq!(answer, Answer { kind: parsed.kind, corr_id: "c1".into(), response });
    }
}

#[test]
fn messages_survive_the_wire() {
    let execute = Message::Execute { task_id: "w".into(), version: 4, address: "poll://any@g".into() };
    let bytes = render_message(&execute, "http://127.0.0.1:8001");
    expect![[
        r#"{"kind":"execute","head":{"serverUrl":"http://127.0.0.1:8001"},"data":{"task":{"id":"w","version":4}}}"#
    ]]
    .assert_eq(&String::from_utf8_lossy(&bytes));
    let server_url = Some("http://127.0.0.1:8001".to_owned());
    let incoming = Incoming::Execute { task: TaskRef { id: "w".into(), version: 4 }, server_url };
    assert_eq!(parse_message(&bytes).expect("a message"), incoming);
    let unblock = Message::Unblock { address: "poll://uni@g/p".into(), promise: promise() };
    let incoming = Incoming::Unblock { promise: Promise::clone(&promise()) };
    assert_eq!(parse_message(&render_message(&unblock, "")).expect("a message"), incoming);
    assert!(parse_message(br#"{"kind":"other","data":{}}"#).is_err());
}

fn rendered(response: &Response, expected: &Expect) {
    let parsed = parsed(Request::TaskGet { id: "w:1".into() });
    expected.assert_eq(&String::from_utf8_lossy(&render_response(&parsed, response)));
}

#[test]
fn records_look_as_clients_expect_them() {
    let pending = Promise {
        state: PromiseState::Pending,
        param: Value::default(),
        value: Value::default(),
        settled_at: None,
        ..Promise::clone(&promise())
    };
    let expected = expect![[
        r#"{"kind":"task.get","head":{"corrId":"c1","status":200,"version":"2026-04-01"},"data":{"promise":{"id":"w:1","state":"pending","param":{},"value":{},"tags":{"resonate:target":"poll://any@g"},"timeoutAt":9000,"createdAt":10}}}"#
    ]];
    rendered(&Response::ok(Body::Promise(Arc::new(pending))), &expected);
    let expected = expect![[
        r#"{"kind":"task.get","head":{"corrId":"c1","status":200,"version":"2026-04-01"},"data":{"task":{"id":"w:1","state":"acquired","version":3,"resumes":2,"ttl":60000,"pid":"p"}}}"#
    ]];
    rendered(&Response::ok(Body::Task(task())), &expected);
    let expected = expect![[
        r#"{"kind":"task.get","head":{"corrId":"c1","status":409,"version":"2026-04-01"},"data":"task is gone"}"#
    ]];
    rendered(&Response::refuse(409, "task is gone"), &expected);
}

fn refused(text: &str) -> (String, String) {
    let bad = parse_request(text.as_bytes()).expect_err(text);
    let answer: serde_json::Value = serde_json::from_slice(&render_bad_request(&bad)).expect("JSON");
    assert_eq!(answer["head"]["status"], 400);
    assert!(answer["data"].is_string());
    (bad.kind, bad.corr_id)
}

#[test]
fn what_is_no_request_is_refused_with_what_could_be_read() {
    let unknown = || ("unknown".to_owned(), "0".to_owned());
    let echoed = |kind: &str| (kind.to_owned(), "c".to_owned());
    let with = |kind: &str, version: &str, data: &str| {
        format!(r#"{{"kind":"{kind}","head":{{"corrId":"c","version":"{version}"}},"data":{data}}}"#)
    };
    assert_eq!(refused("not json"), unknown());
    assert_eq!(refused("[]"), unknown());
    assert_eq!(refused(r#"{"kind":"promise.get","data":{}}"#), ("promise.get".into(), "0".into()));
    assert_eq!(refused(r#"{"kind":"promise.get","head":{"corrId":"c"},"data":{}}"#), echoed("promise.get"));
    assert_eq!(refused(&with("", VERSION, "{}")), echoed(""));
    assert_eq!(refused(&with("promise.get", VERSION, "[]")), echoed("promise.get"));
    assert_eq!(refused(&with("promise.get", "1999-01-01", r#"{"id":"a"}"#)), echoed("promise.get"));
    assert_eq!(refused(&with("promise.gets", VERSION, r#"{"id":"a"}"#)), echoed("promise.gets"));
    for (kind, data) in [
        ("promise.get", r#"{}"#),
        ("promise.get", r#"{"id":7}"#),
        ("promise.create", r#"{"id":"a"}"#),
        ("promise.create", r#"{"id":"a","timeoutAt":1.5}"#),
        ("promise.create", r#"{"id":"a","timeoutAt":1,"tags":{"x":1}}"#),
        ("promise.settle", r#"{"id":"a","state":"pending"}"#),
        ("promise.settle", r#"{"id":"a","state":"rejected_timedout"}"#),
        ("task.acquire", r#"{"id":"a","version":-1,"pid":"p","ttl":1}"#),
        ("task.acquire", r#"{"id":"a","version":1,"pid":"p","ttl":-1}"#),
        (
            "task.fulfill",
            r#"{"id":"a","version":1,"action":{"kind":"promise.settle","data":{"id":"a","state":"resolved"}}}"#,
        ),
        ("task.fence", r#"{"id":"a","version":1,"action":{"kind":"promise.get","head":{},"data":{"id":"b"}}}"#),
    ] {
        assert_eq!(refused(&with(kind, VERSION, data)), echoed(kind), "{data}");
    }
}

#[test]
fn what_clients_send_is_read() {
    let text = r#" {"kind":"promise.create","head":{"corrId":"c","version":"2026-04-01","auth":"t0ken","resonate:origin":"w"},
        "data": {"id":"w","timeoutAt":1,"param":{"data":null,"headers":null},"tags":null,"extra":[1]}} "#;
    let parsed = parse_request(text.as_bytes()).expect("a request");
    assert_eq!(parsed.auth.as_deref(), Some("t0ken"));
    let (param, tags) = (Value::default(), Default::default());
    assert_eq!(
        parsed.request,
        Request::PromiseCreate(Create { id: "w".into(), timeout_at: Timestamp(1), param, tags })
    );
    // The head of a fenced action may be missing.
    let text = r#"{"kind":"task.fence","head":{"corrId":"c","version":"2026-04-01"},"data":{"id":"w","version":1,
        "action":{"kind":"promise.settle","data":{"id":"w:1","state":"resolved","value":{}}}}}"#;
    assert!(parse_request(text.as_bytes()).is_ok());
}

#[test]
fn promise_records_can_be_stored_as_json() {
    let text = promise_json(&promise()).to_string();
    assert_eq!(parse_promise(text.as_bytes()).expect("a promise"), *promise());
    assert!(parse_promise(text.replace("\"rejected\"", "\"lost\"").as_bytes()).is_err());
}
