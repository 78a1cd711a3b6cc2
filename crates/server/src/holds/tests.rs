use super::*;
use crate::fixture::{Fixture, ask};
use axum::body::Body;
use axum::http::{Request as HttpRequest, StatusCode};
use governance::record::{Hold as HoldRecord, Link, Signer};

fn hold(scope: &str, version: u64) -> Record {
    let (scope, reason, by) = (scope.to_owned(), "failover".to_owned(), Some("kim".to_owned()));
    HoldRecord { scope, version, reason, undo: false, by }.into()
}

fn resume(scope: &str, version: u64) -> Record {
    Resume { scope: scope.to_owned(), version, reason: String::new(), by: None }.into()
}

fn human(fixture: &Fixture) -> Signer {
    crate::keys::load_human(fixture.dir.path()).unwrap()
}

fn signed(signer: &Signer, record: Record) -> String {
    signer.sign(&Link::default(), record).unwrap().to_json()
}

async fn say(fixture: &Fixture, record: Record) -> Result<Holds, HoldError> {
    post(&fixture.app, &signed(&human(fixture), record)).await
}

#[tokio::test]
async fn a_hold_is_in_force_until_a_person_lifts_it_and_both_are_in_the_log() {
    let fixture = Fixture::new();
    let services = vec!["payments".to_owned()];
    assert_eq!(covering(&fixture.app, &services), None);
    let held = say(&fixture, hold("payments", 1)).await.unwrap();
    assert_eq!((held.version, held.holds.len()), (1, 1));
    let found = covering(&fixture.app, &services).unwrap();
    assert_eq!((found.by.as_str(), found.principal.as_str(), found.reason.as_str()), ("kim", "operator", "failover"));
    assert_eq!(found.sentence(), "payments is held by kim (failover); `stanch resume payments` lifts it");
    assert_eq!(covering(&fixture.app, &["checkout".to_owned()]), None);
    say(&fixture, hold("all", 2)).await.unwrap();
    assert_eq!(covering(&fixture.app, &["checkout".to_owned()]).unwrap().scope, "all");
    say(&fixture, resume("all", 3)).await.unwrap();
    let free = say(&fixture, resume("payments", 4)).await.unwrap();
    assert_eq!((free.version, free.holds), (4, Vec::new()));
    say(&fixture, hold("payments", 5)).await.unwrap();
    let log = fixture.app.engine.entries(0..fixture.app.engine.log_size()).unwrap();
    let words: Vec<&str> = log.iter().filter_map(|bytes| word(bytes)).collect();
    assert_eq!(words, ["hold", "hold", "resume", "resume", "hold"]);
}

fn word(bytes: &[u8]) -> Option<&'static str> {
    match incidents::statement(bytes)?.record {
        Record::Hold(_) => Some("hold"),
        Record::Resume(_) => Some("resume"),
        _ => None,
    }
}

#[tokio::test]
async fn holds_survive_a_restart_and_reach_a_store_without_a_server() {
    let fixture = Fixture::new();
    say(&fixture, hold("checkout", 1)).await.unwrap();
    let Fixture { app, dir } = fixture;
    assert!(matches!(Offline::open(dir.path()), Err(ServeError::Engine(_))), "a running server has its store");
    drop(app);
    let signer = crate::keys::load_human(dir.path()).unwrap();
    let offline = Offline::open(dir.path()).unwrap();
    assert_eq!(offline.state().holds[0].scope, "checkout");
    let both = offline.post(&signed(&signer, hold("payments", 2))).await.unwrap();
    assert_eq!(both.holds.len(), 2);
    drop(offline);
    assert_eq!(Offline::open(dir.path()).unwrap().state(), both);
}

#[tokio::test]
async fn only_a_persons_next_word_about_a_known_scope_is_taken() {
    let fixture = Fixture::new();
    let before = fixture.app.engine.log_size();
    let human = human(&fixture);
    let of = |scope: &str, reason: String, by: &str| {
        let (scope, by) = (scope.to_owned(), Some(by.to_owned()));
        Record::from(HoldRecord { scope, version: 1, reason, undo: false, by })
    };
    let incident = Link { incident: Some("x".into()), ..Link::default() };
    // A role that may not sign a hold cannot even make the envelope: a stranger's key with the right role can.
    let stranger = Signer { key: base::SigningKey::from_seed(&[7; 32]), ..human.clone() };
    let refused = [
        signed(&stranger, hold("payments", 1)),
        human.sign(&incident, hold("payments", 1)).unwrap().to_json(),
        signed(&human, of("payments", "x".repeat(REASON_BYTES_MAX + 1), "kim")),
        signed(&human, of("payments", "two\nlines".into(), "kim")),
        signed(&human, of("payments", String::new(), &"x".repeat(NAME_BYTES_MAX + 1))),
        signed(&human, of("payments", String::new(), "")),
        signed(&human, of(&"x".repeat(SCOPE_BYTES_MAX + 1), String::new(), "kim")),
        signed(&human, of("a b", String::new(), "kim")),
        "{}".to_owned(),
    ];
    for record in refused {
        let answer = post(&fixture.app, &record).await;
        assert!(matches!(answer, Err(HoldError::Refused(_))), "{record}: {answer:?}");
    }
    for version in [0, 2] {
        assert!(matches!(say(&fixture, hold("payments", version)).await, Err(HoldError::Stale(0))));
    }
    let unknown = say(&fixture, hold("paymets", 1)).await;
    assert!(matches!(&unknown, Err(HoldError::Unknown { nearest: Some(near), .. }) if near == "payments"));
    assert!(matches!(say(&fixture, resume("payments", 1)).await, Err(HoldError::NotHeld(_))));
    assert_eq!((fixture.app.engine.log_size(), state(&fixture.app).version), (before, 0), "a refusal left a trace");

    let first = signed(&human, hold("payments", 1));
    post(&fixture.app, &first).await.unwrap();
    assert!(matches!(post(&fixture.app, &first).await, Err(HoldError::Already(_))), "the same word twice");
    say(&fixture, resume("payments", 2)).await.unwrap();
    assert!(matches!(post(&fixture.app, &first).await, Err(HoldError::Stale(2))), "an old word, replayed");
}

#[tokio::test]
async fn two_words_at_once_follow_each_other() {
    let fixture = Fixture::new();
    let (one, other) = tokio::join!(say(&fixture, hold("payments", 1)), say(&fixture, hold("checkout", 1)));
    let taken = usize::from(one.is_ok()) + usize::from(other.is_ok());
    assert_eq!((taken, state(&fixture.app).version), (1, 1));
}

#[tokio::test]
async fn a_word_that_was_next_when_it_was_read_is_stale_once_another_was_stored() {
    let fixture = Fixture::new();
    let record = signed(&human(&fixture), hold("payments", 1));
    let envelope = Envelope::from_json(&record).unwrap();
    let read = open(&envelope, &fixture.app.keys.keyring, 0).unwrap();
    let word = change(&fixture.app, &read).unwrap();
    say(&fixture, hold("checkout", 1)).await.unwrap();
    assert!(matches!(take(&fixture.app, word, &record).await, Err(HoldError::Stale(1))));
    let scopes: Vec<String> = state(&fixture.app).holds.into_iter().map(|hold| hold.scope).collect();
    assert_eq!((scopes, fixture.app.engine.log_size()), (vec!["checkout".to_owned()], 1));
}

#[tokio::test]
async fn the_route_says_what_is_in_force_and_why_a_word_is_not_taken() {
    let fixture = Fixture::new();
    let router = routes(fixture.app.clone());
    let posted = |record: String| {
        let body = serde_json::to_vec(&Posted { record }).unwrap();
        HttpRequest::post("/holds").header("content-type", "application/json").body(Body::from(body)).unwrap()
    };
    let human = human(&fixture);
    let steps = [
        (hold("payments", 1), StatusCode::OK),
        (hold("payments", 2), StatusCode::CONFLICT),
        (hold("checkout", 9), StatusCode::PRECONDITION_FAILED),
        (hold("nobody", 2), StatusCode::NOT_FOUND),
        (resume("checkout", 2), StatusCode::CONFLICT),
    ];
    for (record, expected) in steps {
        let (status, body) = ask(&router, posted(signed(&human, record))).await;
        assert_eq!(status, expected, "{}", String::from_utf8_lossy(&body));
    }
    assert_eq!(ask(&router, posted("x".into())).await.0, StatusCode::FORBIDDEN);
    let (status, body) = ask(&router, HttpRequest::get("/holds").body(Body::empty()).unwrap()).await;
    let found: Holds = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, found.clone()), (StatusCode::OK, state(&fixture.app)));
    assert_eq!(found.data, fixture.dir.path().display().to_string());
}

#[tokio::test]
async fn a_hold_never_ends_by_itself() {
    let fixture = Fixture::new();
    say(&fixture, hold("payments", 1)).await.unwrap();
    fixture.app.env.advance(base::Millis(50 * 365 * 86_400_000));
    assert_eq!(state(&fixture.app).holds.len(), 1);
    assert!(covering(&fixture.app, &["payments".to_owned()]).is_some());
}
