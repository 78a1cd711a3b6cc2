use super::*;
use crate::engine::{DeliveryCounts, Env};
use crate::fixture::{Fixture, START, ask};
use axum::body::Body;
use axum::http::Request;
use std::collections::{BTreeMap, BTreeSet};

/// What one family is: its type and the labels of its samples.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

async fn fetch(router: &Router, path: &str) -> String {
    let (status, body) = ask(router, Request::get(path).body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::OK, "{path}");
    String::from_utf8(body).unwrap()
}

async fn rpc(router: &Router, kind: &str, data: &str) -> u16 {
    let head = r#"{"corrId":"1","version":"2026-04-01"}"#;
    let body = format!(r#"{{"kind":"{kind}","head":{head},"data":{data}}}"#);
    ask(router, Request::post("/").body(Body::from(body)).unwrap()).await.0.as_u16()
}

/// The families of a text under the names that are queried.
fn exposed(text: &str) -> Families {
    let mut families = Families::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let end = if kind == "counter" { "_total" } else { "" };
        assert!(families.insert(format!("{name}{end}"), (kind.to_owned(), BTreeSet::new())).is_none(), "{name} twice");
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let base = ["_bucket", "_sum", "_count"].into_iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let family = families.get_mut(if families.contains_key(name) { name } else { base });
        let (_, labels) = family.unwrap_or_else(|| panic!("{line}"));
        let inside = line.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
        let names = inside.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
        labels.extend(names.filter(|name| name != "le"));
    }
    families
}

/// The families that the page explains.
fn documented(page: &str) -> Families {
    let ticks = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert!(cells.len() == 6 && cells[4].len() > 10, "{row}");
        (ticks(cells[1]).remove(0), (cells[2].to_owned(), ticks(cells[3]).into_iter().collect()))
    })
    .collect()
}

fn value(text: &str, sample: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {sample} in\n{text}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_explains_what_is_exposed_and_nothing_else() {
    let fixture = Fixture::new();
    let router = routes(&fixture.app).merge(crate::promises::routes(fixture.app.engine.clone(), "http://x"));
    assert_eq!(rpc(&router, "promise.get", r#"{"id":"a"}"#).await, 404);
    let text = fetch(&router, "/metrics").await;
    assert!(text.ends_with("# EOF\n"), "{text}");
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/metrics.md");
    let page = std::fs::read_to_string(page).unwrap();
    assert_eq!(documented(&page), exposed(&text));
    for word in text.lines().filter_map(|line| line.strip_prefix("# UNIT ")) {
        let (name, unit) = word.split_once(' ').unwrap();
        assert!(name.ends_with(unit), "{name} does not end in its unit");
    }
    let results = DeliveryCounts::default().results().map(|(name, _)| name);
    for result in results.into_iter().chain(crate::limits::Refusal::ALL.map(|why| why.name())) {
        assert!(page.contains(&format!("`{result}`")), "the page does not explain `{result}`");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_is_counted() {
    let fixture = Fixture::new();
    let engine = fixture.app.engine.clone();
    let router = routes(&fixture.app).merge(crate::promises::routes(engine.clone(), "http://x"));
    let before = fetch(&router, "/metrics").await;
    assert_eq!(value(&before, r#"stanch_invariant_violations_total{invariant="orphan_tasks"}"#), 0.0);
    let create =
        |id: &str, tags: &str| format!(r#"{{"id":"{id}","timeoutAt":9000000000000,"param":{{}},"tags":{tags}}}"#);
    let worker = engine.subscribe("w", "1").unwrap();
    for id in ["a", "b", "c"] {
        let target = if id == "c" { r#"{"resonate:target":"poll://any@w/1"}"# } else { "{}" };
        assert_eq!(rpc(&router, "promise.create", &create(id, target)).await, 200);
    }
    assert_eq!(rpc(&router, "promise.settle", r#"{"id":"b","state":"rejected_canceled","value":{}}"#).await, 200);
    assert_eq!(rpc(&router, "promise.get", r#"{"id":"a"}"#).await, 200);
    assert_eq!(rpc(&router, "nobody.knows", "{}").await, 400);
    let (status, _) = ask(&router, Request::post("/").body(Body::from("{")).unwrap()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    engine.meters().violated(protocol::Invariant::OrphanTasks);

    let text = fetch(&router, "/metrics").await;
    let counted = [
        (r#"stanch_requests_total{kind="promise.create",status="200"}"#, 3.0),
        (r#"stanch_requests_total{kind="promise.get",status="200"}"#, 1.0),
        (r#"stanch_requests_total{kind="unknown",status="400"}"#, 2.0),
        (r#"stanch_request_duration_seconds_count{kind="promise.create"}"#, 3.0),
        (r#"stanch_promises{state="pending"}"#, 2.0),
        (r#"stanch_promises{state="settled"}"#, 1.0),
        (r#"stanch_tasks{state="pending"}"#, 1.0),
        ("stanch_outbox_messages", 1.0),
        ("stanch_streams", 1.0),
        ("stanch_writable", 1.0),
        ("stanch_process_start_time_seconds", 1_700_000_000.5),
        (r#"stanch_invariant_violations_total{invariant="orphan_tasks"}"#, 1.0),
    ];
    for (sample, expected) in counted {
        assert_eq!(value(&text, sample), expected, "{sample}");
    }
    assert!(value(&text, "stanch_commit_group_size_sum") >= 4.0, "{text}");
    for busy in ["stanch_process_resident_memory_bytes", "stanch_process_cpu_seconds_total", "stanch_process_open_fds"]
    {
        assert!(value(&text, busy) > 0.0, "{busy}");
    }
    drop(worker);
    assert_eq!(value(&fetch(&router, "/metrics").await, "stanch_streams"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_are_those_of_the_store_however_they_came_about() {
    let fixture = Fixture::new();
    let engine = fixture.app.engine.clone();
    let router = crate::promises::routes(engine.clone(), "http://x");
    for number in 0..20 {
        let tags = if number % 2 == 0 { r#"{"resonate:target":"poll://any@w/1"}"# } else { "{}" };
        let data = format!(r#"{{"id":"p{number}","timeoutAt":1700000001000,"param":{{}},"tags":{tags}}}"#);
        rpc(&router, "promise.create", &data).await;
    }
    for number in 0..5 {
        rpc(&router, "promise.settle", &format!(r#"{{"id":"p{number}","state":"resolved","value":{{}}}}"#)).await;
    }
    // The deadline of the others passes.
    engine.env().advance(base::Millis(10_000));
    let counted = |engine: &Engine| {
        let named = |counts: &mut dyn Iterator<Item = (&'static str, i64)>| -> Vec<_> {
            counts.filter(|(_, count)| *count != 0).collect()
        };
        let counts = engine.counts();
        (named(&mut counts.promises()), named(&mut counts.tasks()))
    };
    let expected = (vec![("settled", 20)], Vec::new());
    crate::engine::tests::until("every deadline", || counted(&engine) == expected).await;
    drop(router);
    drop(engine);
    let Fixture { app, dir } = fixture;
    drop(app);
    let again = Engine::open(dir.path(), crate::engine::Config::default(), Env::manual(START)).unwrap();
    assert_eq!(counted(&again), expected, "read from the store");
}

#[tokio::test]
async fn a_server_says_which_it_is() {
    let fixture = Fixture::new();
    let told: serde_json::Value = serde_json::from_str(&fetch(&routes(&fixture.app), "/version").await).unwrap();
    let expected = |profile: &str| {
        let mut expected = serde_json::json!({
            "name": "stanch", "version": env!("CARGO_PKG_VERSION"), "protocol": "2026-04-01", "profile": profile,
        });
        if let Some(commit) = COMMIT {
            expected["commit"] = commit.into();
        }
        expected
    };
    assert_eq!(told, expected("default"));
    let other = serde_json::to_value(version(Profile::Resonate20260401)).unwrap();
    assert_eq!(other, expected("resonate-2026-04-01"));
}
