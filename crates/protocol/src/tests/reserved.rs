use base::{Millis, Timestamp};

use crate::request::{
    Callback, Create, FenceAction, PromiseSearch, Request, Resolution, ScheduleCreate, ScheduleSearch, Settle, TaskRef,
    TaskSearch,
};
use crate::state::Value;
use crate::{is_reserved, reserved_refusal};

fn create(id: &str) -> Create {
    let tags = [("resonate:target".to_owned(), "poll://any@g".to_owned())].into();
    Create { id: id.into(), timeout_at: Timestamp(9), param: Value::default(), tags }
}

fn settle(id: &str) -> Settle {
    Settle { id: id.into(), state: Resolution::Resolved, value: Value::default() }
}

fn schedule(id: &str, promise_id: &str) -> ScheduleCreate {
    ScheduleCreate {
        id: id.into(),
        cron: "* * * * *".into(),
        promise_id: promise_id.into(),
        promise_timeout: Millis(9),
        promise_param: Value::default(),
        promise_tags: create(id).tags,
    }
}

/// Every operation with `id` in the place it writes or names, and whether the wire may do it on a reserved id.
fn operations(id: &str) -> Vec<(Request, bool)> {
    let (own, version, pid, ttl) = ("own".to_owned(), 1, "p".to_owned(), Millis(9));
    let id = id.to_owned();
    let callback = |awaited: &str, awaiter: &str| Callback { awaited: awaited.into(), awaiter: awaiter.into() };
    vec![
        (Request::PromiseGet { id: id.clone() }, true),
        (Request::PromiseCreate(create(&id)), false),
        (Request::PromiseSettle(settle(&id)), false),
        (Request::RegisterCallback(callback(&id, "own")), false),
        (Request::RegisterCallback(callback("own", &id)), false),
        (Request::RegisterListener { awaited: id.clone(), address: "poll://uni@g/p".into() }, true),
        (Request::TaskGet { id: id.clone() }, true),
        (Request::TaskCreate { pid: pid.clone(), ttl, action: create(&id) }, false),
        (Request::TaskAcquire { id: id.clone(), version, pid: pid.clone(), ttl }, true),
        (Request::TaskRelease(TaskRef { id: id.clone(), version }), true),
        (Request::TaskFulfill { id: id.clone(), version, action: settle(&id) }, false),
        (Request::TaskSuspend { id: id.clone(), version, actions: vec![callback("own", &id)] }, false),
        (Request::TaskSuspend { id: own.clone(), version, actions: vec![callback(&id, "own")] }, false),
        (Request::TaskFence { id: id.clone(), version, action: FenceAction::Create(create("own")) }, false),
        (Request::TaskFence { id: own.clone(), version, action: FenceAction::Create(create(&id)) }, false),
        (Request::TaskFence { id: own.clone(), version, action: FenceAction::Settle(settle(&id)) }, false),
        (Request::TaskHeartbeat { pid, tasks: vec![TaskRef { id: id.clone(), version }] }, true),
        (Request::TaskHalt { id: own.clone() }, true),
        (Request::PromiseSearch(PromiseSearch::default()), true),
        (Request::TaskSearch(TaskSearch::default()), true),
        (Request::ScheduleSearch(ScheduleSearch::default()), true),
        (Request::TaskHalt { id: id.clone() }, false),
        (Request::TaskContinue { id: id.clone() }, false),
        (Request::ScheduleGet { id: id.clone() }, true),
        (Request::ScheduleDelete { id: id.clone() }, true),
        (Request::ScheduleCreate(schedule("own", &id)), false),
        (Request::ScheduleCreate(schedule("own", &format!("{id}.{{{{.timestamp}}}}"))), false),
        (Request::ScheduleCreate(schedule(&id.replace(['.', ':'], "/"), "{{.id}}")), false),
    ]
}

#[test]
fn every_write_of_a_reserved_id_is_refused_on_the_wire() {
    for id in ["inc/7", "inc/7:commit.1.s2", "hold/global", "inc", "hold:x", "inc.1"] {
        assert!(is_reserved(id), "{id}");
        for (request, open) in operations(id) {
            let status = reserved_refusal(&request).map(|response| response.status);
            assert_eq!(status, if open { None } else { Some(403) }, "{request:?}");
        }
    }
}

#[test]
fn other_ids_are_never_refused() {
    for id in ["income/7", "holder", "a/inc/7", "x:inc", "INC/7"] {
        assert!(!is_reserved(id), "{id}");
        assert!(operations(id).iter().all(|(request, _)| reserved_refusal(request).is_none()), "{id}");
    }
}

#[test]
fn validation_comes_before_the_refusal() {
    let mut malformed = create("inc/7");
    malformed.timeout_at = Timestamp(-1);
    assert_eq!(reserved_refusal(&Request::PromiseCreate(malformed)), None);
}
