use super::*;
use crate::fixture::{Fixture, START, ask};
use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use recovery::graph::ReasonKind;
use recovery::topology::Topology;

const INCIDENT: &str = "abcdefghijklmnopqrstuvwxyz";

fn watched() -> Watched {
    Watched {
        incident: INCIDENT.to_owned(),
        plan: "restart payments@0 ; restore".to_owned(),
        class: "restart-orchestration".to_owned(),
        commit: stage_id(INCIDENT, "commit.1"),
        writes: vec!["payments".to_owned()],
        since: START,
    }
}

fn missed(caller: &str) -> Missed {
    Missed {
        caller: caller.to_owned(),
        callee: "payments".to_owned(),
        incident: INCIDENT.to_owned(),
        at_ms: START.0,
        since_ms: START.0 - 2_000,
        sign: "errors".to_owned(),
        requests: 200,
        errors: 199,
        usual_requests: 600,
        ..Missed::default()
    }
}

fn word(caller: &str) -> Word {
    Word { caller: caller.into(), callee: "payments".into(), by: "kim".into(), reason: "a full disk".into() }
}

async fn asked(router: &Router, request: axum::http::Request<Body>) -> (StatusCode, String) {
    let (status, body) = ask(router, request).await;
    (status, String::from_utf8(body).unwrap())
}

async fn listed(app: &App) -> List {
    let router = routes(app.clone());
    let (status, body) = asked(&router, axum::http::Request::get("/misses").body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::OK);
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn a_missed_dependency_is_durable_counted_proposed_and_a_case() {
    let fixture = Fixture::new();
    let app = &fixture.app;
    take(app, &watched(), missed("gateway")).await;
    take(app, &watched(), missed("gateway")).await;
    let list = listed(app).await;
    assert_eq!((list.recorded, list.misses.len()), (1, 1), "the same again is no news");
    let line = &list.misses[0];
    assert_eq!((&line.missed, line.agreed), (&missed("gateway"), false));
    let said = "gateway is in trouble since payments was restarted (99.5% of 200 requests failed, usually 0.0%)";
    assert!(line.sentence.starts_with(said), "{}", line.sentence);

    // The graph acts on it at once, and again in the next process.
    let snapshot = app.telemetry.snapshot();
    assert_eq!(snapshot.missing_members(&["payments"]), ["gateway"]);
    assert!(snapshot.permission(&["payments"], START).because(ReasonKind::Suspected));
    let again = Misses::load(&app.engine);
    assert_eq!((again.standing(), again.recorded()), (vec![missed("gateway")], 1));
    assert_eq!(again.facts(), [missed("gateway").fact()]);

    let metrics = crate::metrics::routes(app);
    let (_, text) = asked(&metrics, axum::http::Request::get("/metrics").body(Body::empty()).unwrap()).await;
    assert!(text.contains("\nstanch_missed_dependencies_total 1\n"), "{text}");

    let case = fixture.dir.path().join("corpus/missed-gateway-payments-abcdefgh/scenario.toml");
    let case: toml::Value = toml::from_str(&std::fs::read_to_string(case).unwrap()).unwrap();
    assert_eq!(case["kind"].as_str(), Some("failure"));
    let historical = &case["intent"]["historical"];
    assert_eq!(historical["plan"].as_str(), Some("restart payments@0 ; restore"));
    assert_eq!(historical["expect"]["code"].as_str(), Some("K205"));
    assert!(recovery::text::parse(case["intent"]["better"]["plan"].as_str().unwrap()).is_ok());
}

#[tokio::test]
async fn what_is_proposed_is_a_topology_file_that_couples_the_two() {
    let fixture = Fixture::new();
    let app = &fixture.app;
    for caller in ["gateway", "odd \"name\""] {
        let text = routes::proposal(&app.topology, &missed(caller));
        let file: Topology = toml::from_str(&text).unwrap();
        assert_eq!(file.service["payments"].coupled, [caller], "{text}");
        let mut whole = Topology::clone(&app.topology);
        whole.service.entry(caller.to_owned()).or_default();
        whole.service.get_mut("payments").unwrap().coupled = file.service["payments"].coupled.clone();
        whole.edge.extend(file.edge.clone());
        assert_eq!(file.service.contains_key(caller), !app.topology.service.contains_key(caller), "{text}");
        assert!(caller.contains(' ') || whole.validate().is_ok(), "{text}");
        assert!(file.edge.contains_key(&format!("{caller}->payments")), "{text}");
    }
    let mut coupled = Topology::clone(&app.topology);
    coupled.service.get_mut("payments").unwrap().coupled = vec!["ledger".to_owned()];
    let text = routes::proposal(&coupled, &missed("gateway"));
    assert!(text.contains(r#"coupled = ["gateway", "ledger"]"#), "what is declared stays: {text}");
}

#[tokio::test]
async fn only_a_persons_word_takes_one_back_and_it_stays_counted() {
    let fixture = Fixture::new();
    let app = &fixture.app;
    take(app, &watched(), missed("gateway")).await;
    take(app, &watched(), missed("checkout")).await;
    let nobody = judge(app, Verdict::Dismissed, &Word { by: String::new(), ..word("gateway") }).await;
    assert!(matches!(nobody, Err(WordError::Refused(_))), "{nobody:?}");
    let unknown = judge(app, Verdict::Dismissed, &word("ledger")).await;
    assert!(matches!(unknown, Err(WordError::Unknown { .. })), "{unknown:?}");
    assert_eq!(app.misses.standing().len(), 2);
    let router = routes(app.clone());
    let body = serde_json::to_vec(&word("gateway")).unwrap();
    let post = axum::http::Request::post("/misses/dismiss").header("content-type", "application/json");
    let (status, told) = asked(&router, post.body(Body::from(body)).unwrap()).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "{told}");
    assert_eq!(app.telemetry.snapshot().missing_members(&["payments"]), ["checkout"]);
    let again = Misses::load(&app.engine);
    assert_eq!((again.standing(), again.recorded()), (vec![missed("checkout")], 2));
    // It may be missed again.
    let later = Missed { at_ms: START.0 + 60_000, ..missed("gateway") };
    take(app, &watched(), later.clone()).await;
    let again = Misses::load(&app.engine);
    assert_eq!((again.standing(), again.recorded()), (vec![missed("checkout"), later], 3));
}

#[tokio::test]
async fn what_a_person_accepts_is_suspected_no_more_and_stays_coupled_also_in_the_next_process() {
    let fixture = Fixture::new();
    let app = &fixture.app;
    take(app, &watched(), missed("gateway")).await;
    judge(app, Verdict::Accepted, &word("gateway")).await.unwrap();
    assert!(listed(app).await.misses[0].agreed);
    let snapshot = app.telemetry.snapshot();
    assert_eq!(snapshot.missing_members(&["payments"]), ["gateway"]);
    assert!(!snapshot.permission(&["payments"], START).because(ReasonKind::Suspected));
    let again = Misses::load(&app.engine);
    assert_eq!(again.facts(), [missed("gateway").fact(), missed("gateway").judged(Verdict::Accepted)]);
    judge(app, Verdict::Dismissed, &word("gateway")).await.unwrap();
    assert_eq!(app.telemetry.snapshot().missing_members(&["payments"]), Vec::<String>::new());
    assert_eq!(Misses::load(&app.engine).facts(), []);
}

#[test]
fn no_more_than_misses_max_stand() {
    let misses = Misses::default();
    for number in 0..MISSES_MAX {
        let one = missed(&format!("service-{number}"));
        assert!(misses.may_take(&one));
        misses.lock().add(one);
    }
    assert!(!misses.may_take(&missed("one more")));
}

#[test]
fn a_service_that_turned_slow_is_told_in_milliseconds() {
    let slow = Missed { sign: "latency".into(), p99_us: 700_500, usual_p99_us: 12_000, ..missed("gateway") };
    assert!(slow.sentence().contains("(p99 700 ms, usually 12 ms)"), "{}", slow.sentence());
}
