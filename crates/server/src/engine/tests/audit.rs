use super::*;
use crate::engine::QUARANTINED_MAX;
use protocol::{Effect, PromiseState, Row, View as _};

/// Changes a row in memory as no transition would.
fn spoil(engine: &Engine, id: &str, spoil: impl FnOnce(&mut Row)) {
    let mut core = engine.shared.lock();
    let mut row = Row::clone(&core.memory.row(id).unwrap());
    spoil(&mut row);
    let _undo = core.memory.commit(&[Effect::Put(Arc::new(row))]);
}

async fn quarantined(engine: &Engine, env: &Env, count: usize) -> Vec<(String, String)> {
    let mut patience = tokio::time::interval(Duration::from_millis(2));
    let found = async {
        loop {
            let found = engine.quarantined();
            if found.len() >= count {
                return found;
            }
            env.advance(Millis(1_000));
            patience.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_violates_an_invariant_is_found_and_put_aside_and_everything_else_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::manual(START);
    let engine = Engine::open(dir.path(), Config::default(), env.clone()).unwrap();
    for id in ["bad", "good"] {
        wire(&engine, &create_for(id, "poll://any@g")).await;
    }
    spoil(&engine, "bad", |row| {
        Arc::make_mut(row.task.as_mut().unwrap()).pid = Some("nobody".to_owned());
    });
    let found = quarantined(&engine, &env, 1).await;
    assert_eq!(found, [("bad".to_owned(), "it violates task_timers_disagree".to_owned())]);
    for request in [acquire("bad", 0, "w"), settle("bad", "x"), Request::PromiseGet { id: "bad".into() }] {
        let (status, answer) = wire(&engine, &request).await;
        assert_eq!(status, 500, "{answer:?}");
    }
    let refused = submit(&engine, vec![create("other"), settle("bad", "x")]).await;
    assert!(matches!(refused, Err(SubmitError::Refused { index: 1, .. })), "{refused:?}");
    assert_eq!(wire(&engine, &acquire("good", 0, "w")).await.0, 200);
    env.advance(Millis(9_000_000_000));
    let settled = engine.wait_settled("good").await.unwrap();
    assert_eq!(settled.state, PromiseState::TimedOut);
    assert!(!engine.promise("bad").unwrap().is_settled(), "no timer reaches it");
}

#[tokio::test]
async fn a_transition_that_would_break_an_invariant_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    wire(&engine, &create_for("job", "poll://any@g")).await;
    // A version that has run out of numbers cannot rise.
    spoil(&engine, "job", |row| Arc::make_mut(row.task.as_mut().unwrap()).version = u64::MAX);
    let (status, answer) = wire(&engine, &acquire("job", u64::MAX, "w")).await;
    assert_eq!(status, 400, "no version is that large: {answer:?}");
    let taken = Request::TaskCreate {
        pid: "w".into(),
        ttl: Millis(5),
        action: Create {
            id: "job".into(),
            timeout_at: FAR,
            param: Value::default(),
            tags: BTreeMap::from([(TARGET.to_owned(), "poll://any@g".to_owned())]),
        },
    };
    let (status, answer) = wire(&engine, &taken).await;
    assert_eq!(status, 500, "{answer:?}");
    assert!(engine.quarantined()[0].1.contains("version_moved"), "{:?}", engine.quarantined());
    drop(engine);
    assert_eq!(open(dir.path()).task("job").unwrap().version, 0, "nothing of it was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_too_much_in_quarantine_nothing_is_written_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::manual(START);
    let engine = Engine::open(dir.path(), Config::default(), env.clone()).unwrap();
    let requests: Vec<Request> = (0..=QUARANTINED_MAX).map(|number| create(&format!("p{number:04}"))).collect();
    for requests in requests.chunks(crate::engine::SUBMIT_REQUESTS_MAX) {
        submit(&engine, requests.to_vec()).await.unwrap();
    }
    for number in 0..QUARANTINED_MAX {
        spoil(&engine, &format!("p{number:04}"), |row| Arc::make_mut(&mut row.promise).value = Value::text("x"));
    }
    quarantined(&engine, &env, QUARANTINED_MAX).await;
    assert_eq!(wire(&engine, &create("fine")).await.0, 200);
    spoil(&engine, &format!("p{QUARANTINED_MAX:04}"), |row| Arc::make_mut(&mut row.promise).value = Value::text("x"));
    quarantined(&engine, &env, QUARANTINED_MAX + 1).await;
    assert_eq!(wire(&engine, &create("one more")).await.0, 503);
}
