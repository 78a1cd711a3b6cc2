use base::{Millis, Timestamp};

use crate::limits::{
    ADDRESS_BYTES_MAX, HEADERS_MAX, HEARTBEAT_TASKS_MAX, ID_BYTES_MAX, PID_BYTES_MAX, SUSPEND_ACTIONS_MAX,
    TAG_BYTES_MAX, TAGS_MAX, VALUE_BYTES_MAX,
};
use crate::request::{Callback, Create, FenceAction, Request, Resolution, Settle, TaskRef};
use crate::state::Value;
use crate::{Address, Cast, validate};

fn status(request: &Request) -> u16 {
    validate(request).map_or(200, |response| response.status)
}

fn tagged(id: &str, tags: &[(&str, &str)]) -> Create {
    let tags = tags.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    Create { id: id.into(), timeout_at: Timestamp(100), param: Value::default(), tags }
}

fn created(id: &str, tags: &[(&str, &str)]) -> u16 {
    status(&Request::PromiseCreate(tagged(id, tags)))
}

#[test]
fn ids_and_payloads_have_limits() {
    assert_eq!(created("", &[]), 400);
    assert_eq!(created("a\0b", &[]), 400);
    assert_eq!(created(&"x".repeat(ID_BYTES_MAX), &[]), 200);
    assert_eq!(created(&"x".repeat(ID_BYTES_MAX + 1), &[]), 400);
    let mut create = tagged("a", &[]);
    create.timeout_at = Timestamp(-1);
    assert_eq!(status(&Request::PromiseCreate(create.clone())), 400);
    create.timeout_at = Timestamp(0);
    create.param = Value::text("x".repeat(VALUE_BYTES_MAX));
    assert_eq!(status(&Request::PromiseCreate(create.clone())), 200);
    create.param = Value::text("x".repeat(VALUE_BYTES_MAX + 1));
    assert_eq!(status(&Request::PromiseCreate(create)), 400);
    let many: Vec<(String, &str)> = (0..=TAGS_MAX).map(|n| (n.to_string(), "")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    assert_eq!(created("a", &many[..TAGS_MAX]), 200);
    assert_eq!(created("a", &many), 400);
    let tag = |bytes: usize| created("a", &[("key", &"x".repeat(bytes - 3))]);
    assert_eq!((tag(TAG_BYTES_MAX), tag(TAG_BYTES_MAX + 1)), (200, 400));
    let address = |bytes: usize| created("a", &[("resonate:target", &format!("http://{}", "h".repeat(bytes - 7)))]);
    assert_eq!((address(ADDRESS_BYTES_MAX), address(ADDRESS_BYTES_MAX + 1)), (200, 400));
    let headers = |count: usize| {
        let headers = Some((0..count).map(|number| (number.to_string(), String::new())).collect());
        let param = Value { headers, ..Value::default() };
        status(&Request::PromiseCreate(Create { param, ..tagged("a", &[]) }))
    };
    assert_eq!((headers(HEADERS_MAX), headers(HEADERS_MAX + 1)), (200, 400));
}

#[test]
fn lists_and_workers_have_limits() {
    let heartbeat = |count: usize| {
        let tasks = vec![TaskRef { id: "a".into(), version: 0 }; count];
        status(&Request::TaskHeartbeat { pid: "p".into(), tasks })
    };
    assert_eq!((heartbeat(HEARTBEAT_TASKS_MAX), heartbeat(HEARTBEAT_TASKS_MAX + 1)), (200, 400));
    let suspend = |count: usize| {
        let action = |number: usize| Callback { awaited: number.to_string(), awaiter: "a".into() };
        status(&Request::TaskSuspend { id: "a".into(), version: 1, actions: (0..count).map(action).collect() })
    };
    assert_eq!((suspend(SUSPEND_ACTIONS_MAX), suspend(SUSPEND_ACTIONS_MAX + 1)), (200, 400));
    let pid = |bytes: usize| {
        let pid = "p".repeat(bytes);
        status(&Request::TaskAcquire { id: "a".into(), version: 0, pid, ttl: Millis(1) })
    };
    assert_eq!((pid(PID_BYTES_MAX), pid(PID_BYTES_MAX + 1)), (200, 400));
}

#[test]
fn lineage_is_checked_in_either_format() {
    for (id, name, ancestor, expected) in [
        ("a", "resonate:origin", "a", 200),
        ("a:1", "resonate:origin", "a", 200),
        ("a.1", "resonate:origin", "a", 200),
        ("ab", "resonate:origin", "a", 400),
        ("a.b:1", "resonate:origin", "a.b", 200),
        ("a:b.1", "resonate:origin", "a:b", 200),
        ("a.b:c:1", "resonate:origin", "a.b:c", 400),
        ("a:1.2", "resonate:branch", "a:1", 200),
        ("a:1.2", "resonate:branch", "a:2", 400),
        ("a:1.2", "resonate:parent", "a:1", 200),
        ("a:1.2", "resonate:parent", "b", 400),
        ("a", "resonate:prefix", "a:b.c", 400),
    ] {
        assert_eq!(created(id, &[(name, ancestor)]), expected, "{id} {name} {ancestor}");
    }
}

#[test]
fn a_delay_is_an_instant_before_the_deadline_of_a_task() {
    let target = ("resonate:target", "poll://any@g");
    for (delay, expected) in [("0", 200), ("99", 200), ("100", 400), ("-1", 400), ("+1", 400), ("1.5", 400), ("", 400)]
    {
        assert_eq!(created("a", &[target, ("resonate:delay", delay)]), expected, "{delay}");
    }
    assert_eq!(created("a", &[("resonate:delay", "5")]), 400);
}

#[test]
fn addresses_are_routable_or_refused() {
    for good in ["http://h", "https://h:1/p?q", "poll://any@g", "poll://uni@g/i", "gcps://p/t", "bash://x"] {
        assert!(Address::parse(good).is_some(), "{good}");
        assert_eq!(created("a", &[("resonate:target", good)]), 200, "{good}");
    }
    for bad in [
        "",
        "x",
        "http://",
        "http:///p",
        "poll://g",
        "poll://all@g",
        "poll://any@",
        "gcps://p",
        "ftp://h",
        "http://a b",
    ] {
        assert!(Address::parse(bad).is_none(), "{bad}");
        assert_eq!(created("a", &[("resonate:target", bad)]), 400, "{bad}");
    }
    let poll = Address::Poll { cast: Cast::Uni, group: "g".into(), id: Some("i/j".into()) };
    assert_eq!(Address::parse("poll://uni@g/i/j"), Some(poll));
}

#[test]
fn tasks_need_workers_leases_and_consistent_ids() {
    let (pid, ttl) = ("p".to_owned(), Millis(1));
    let acquire = |pid: &str, ttl| Request::TaskAcquire { id: "a".into(), version: 0, pid: pid.into(), ttl };
    assert_eq!(status(&acquire(&pid, ttl)), 200);
    assert_eq!(status(&acquire("", ttl)), 400);
    assert_eq!(status(&acquire(&pid, Millis(0))), 400);
    let settle = |id: &str| Settle { id: id.into(), state: Resolution::Resolved, value: Value::default() };
    let fulfill = |id: &str| Request::TaskFulfill { id: "a".into(), version: 1, action: settle(id) };
    assert_eq!((status(&fulfill("a")), status(&fulfill("b"))), (200, 400));
    let fence = |id: &str| Request::TaskFence { id: "a".into(), version: 1, action: FenceAction::Settle(settle(id)) };
    assert_eq!((status(&fence("a")), status(&fence("b"))), (400, 200));
    let suspend = |pairs: &[(&str, &str)]| {
        let callback =
            |(awaited, awaiter): &(&str, &str)| Callback { awaited: (*awaited).into(), awaiter: (*awaiter).into() };
        Request::TaskSuspend { id: "a".into(), version: 1, actions: pairs.iter().map(callback).collect() }
    };
    assert_eq!(status(&suspend(&[("b", "a"), ("c", "a")])), 200);
    for bad in [&[][..], &[("b", "a"), ("b", "a")], &[("a", "a")], &[("b", "c")], &[("", "a")]] {
        assert_eq!(status(&suspend(bad)), 400, "{bad:?}");
    }
}
