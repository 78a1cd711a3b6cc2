use super::*;
use crate::engine::{Keep, SETTLED_IN_MEMORY_MAX};
use protocol::{Body, PromiseSearch, TaskSearch, TaskState};

fn keeping(dir: &Path, keep: usize, env: &Env) -> Engine {
    let config = Config { settled_in_memory: Keep(keep), ..Config::default() };
    Engine::open(dir, config, env.clone()).unwrap()
}

fn in_memory(engine: &Engine) -> usize {
    engine.shared.lock().memory.len()
}

async fn ids(engine: &Engine, request: &Request) -> (Vec<String>, Option<String>) {
    match wire(engine, request).await.1.body {
        Body::Promises { promises, cursor } => (promises.iter().map(|one| one.id.clone()).collect(), cursor),
        Body::Tasks { tasks, cursor } => (tasks.iter().map(|one| one.id.clone()).collect(), cursor),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn settled_promises_leave_memory_and_are_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::manual(START);
    let engine = keeping(dir.path(), 10, &env);
    for number in 0..100 {
        wire(&engine, &create_for(&format!("p{number:03}"), "poll://any@g")).await;
        wire(&engine, &settle(&format!("p{number:03}"), &number.to_string())).await;
    }
    wire(&engine, &create("live")).await;
    assert_eq!(in_memory(&engine), 11);
    for restarted in [false, true] {
        let engine = if restarted {
            drop(engine.clone());
            engine.clone()
        } else {
            engine.clone()
        };
        let (status, answer) = wire(&engine, &Request::PromiseGet { id: "p007".into() }).await;
        assert!(matches!(&answer.body, Body::Promise(promise) if promise.value == Value::text("7")), "{answer:?}");
        assert_eq!(status, 200);
        let (_, again) = wire(&engine, &create("p008")).await;
        assert!(matches!(&again.body, Body::Promise(promise) if promise.value == Value::text("8")), "idempotent");
        let (_, late) = wire(&engine, &settle("p009", "other")).await;
        assert!(matches!(&late.body, Body::Promise(promise) if promise.value == Value::text("9")), "first writer");
        assert_eq!(wire(&engine, &Request::PromiseGet { id: "p100".into() }).await.0, 404);
        assert_eq!(engine.task("p050").unwrap().state, TaskState::Fulfilled);
        for number in 0..100 {
            assert!(engine.promise(&format!("p{number:03}")).unwrap().is_settled());
        }
        assert!(in_memory(&engine) <= 12, "reading does not fill memory either: {}", in_memory(&engine));
    }
    drop(engine);
    let engine = keeping(dir.path(), 10, &env);
    assert_eq!(in_memory(&engine), 1, "what has settled is not loaded");
    assert_eq!(engine.promise("p042").unwrap().value, Value::text("42"));
    assert_eq!(engine.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_search_shows_the_same_whether_or_not_memory_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::manual(START);
    let engine = keeping(dir.path(), SETTLED_IN_MEMORY_MAX, &env);
    for number in 0..40 {
        let target = ["poll://any@a", "poll://any@b"][number % 2];
        wire(&engine, &create_for(&format!("p{number:02}"), target)).await;
        if number % 3 == 0 {
            wire(&engine, &settle(&format!("p{number:02}"), "x")).await;
        }
    }
    let tags = BTreeMap::from([(TARGET.to_owned(), "poll://any@b".to_owned())]);
    let state = Some(protocol::PromiseState::Resolved);
    let mut searches = Vec::new();
    for cursor in [None, Some("p11".to_owned()), Some("p38".to_owned()), Some("zz".to_owned())] {
        for limit in [None, Some(1), Some(3)] {
            let search = PromiseSearch { limit, cursor: cursor.clone(), ..PromiseSearch::default() };
            searches.push(Request::PromiseSearch(PromiseSearch { tags: tags.clone(), ..search.clone() }));
            searches.push(Request::PromiseSearch(PromiseSearch { state, ..search.clone() }));
            searches.push(Request::PromiseSearch(search));
            let state = Some(TaskState::Fulfilled);
            searches.push(Request::TaskSearch(TaskSearch { state, limit, cursor: cursor.clone() }));
        }
    }
    let mut expected = Vec::new();
    for search in &searches {
        expected.push(ids(&engine, search).await);
    }
    drop(engine);
    let engine = keeping(dir.path(), 0, &env);
    assert_eq!(in_memory(&engine), 26);
    for (search, expected) in searches.iter().zip(expected) {
        assert_eq!(ids(&engine, search).await, expected, "{search:?}");
    }
    assert_eq!(in_memory(&engine), 26);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nothing_refers_to_is_forgotten_after_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::manual(START);
    let config = || Config { retention: Some(Millis(10_000)), settled_in_memory: Keep(1), ..Config::default() };
    let engine = Engine::open(dir.path(), config(), env.clone()).unwrap();
    for id in ["old", "older", "tree", "tree:1", "inc/1"] {
        submit(&engine, vec![create(id)]).await.unwrap();
    }
    for id in ["old", "older", "tree:1", "inc/1"] {
        submit(&engine, vec![settle(id, "x")]).await.unwrap();
    }
    env.advance(Millis(5_000));
    wire(&engine, &create("young")).await;
    wire(&engine, &settle("young", "x")).await;
    // The next pass begins a minute after the first.
    env.advance(Millis(70_000));
    let mut patience = tokio::time::interval(Duration::from_millis(2));
    let gone = async {
        while engine.row("old").is_some() || engine.row("older").is_some() || engine.row("young").is_some() {
            patience.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    assert!(["tree", "tree:1", "inc/1"].iter().all(|id| engine.row(id).is_some()), "these are referred to");
    let (_, fresh) = wire(&engine, &create("old")).await;
    assert!(matches!(&fresh.body, Body::Promise(promise) if !promise.is_settled()), "it is a new one: {fresh:?}");
    drop(engine);
    let engine = Engine::open(dir.path(), config(), env).unwrap();
    assert!(engine.row("older").is_none() && !engine.promise("old").unwrap().is_settled());
    assert_eq!(engine.violations(), Vec::<String>::new());
}
