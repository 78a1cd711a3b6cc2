use super::*;
use protocol::{PromiseSearch, ScheduleCreate, ScheduleSearch, TaskSearch, TaskState};

fn schedule(id: &str, cron: &str) -> Request {
    Request::ScheduleCreate(ScheduleCreate {
        id: id.to_owned(),
        cron: cron.to_owned(),
        promise_id: "{{.id}}.{{.timestamp}}".to_owned(),
        promise_timeout: Millis(600_000),
        promise_param: Value::text("in"),
        promise_tags: BTreeMap::from([(TARGET.to_owned(), "poll://any@cron".to_owned())]),
    })
}

async fn settled_down(engine: &Engine, fired: usize) {
    let mut patience = tokio::time::interval(Duration::from_millis(2));
    tokio::time::timeout(PATIENCE, async {
        while engine.children("s.").len() < fired {
            patience.tick().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_firing_has_one_promise_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::manual(START);
    let engine = Engine::open(dir.path(), Config::default(), env.clone()).unwrap();
    assert_eq!(wire(&engine, &schedule("s", "*/5 * * * * *")).await.0, 200);
    assert_eq!(wire(&engine, &schedule("s", "* * * * * *")).await.0, 200, "the one of that id is answered");
    let mut worker = engine.subscribe("cron", "w1").unwrap();
    env.advance(Millis(5_000));
    worker.next().await.unwrap();
    drop((worker, engine));
    // Down for three firings.
    let later = Env::manual(START.plus(Millis(22_000)));
    let engine = Engine::open(dir.path(), Config::default(), later).unwrap();
    settled_down(&engine, 4).await;
    engine.flush().await.unwrap();
    drop(engine);
    let engine = Engine::open(dir.path(), Config::default(), Env::manual(START.plus(Millis(23_000)))).unwrap();
    engine.flush().await.unwrap();
    let fired: Vec<String> = engine.children("s.").iter().map(|promise| promise.id.clone()).collect();
    assert_eq!(fired, ["s.1005000", "s.1010000", "s.1015000", "s.1020000"]);
    assert_eq!(engine.violations(), Vec::<String>::new());

    let (status, answer) = wire(&engine, &Request::ScheduleGet { id: "s".into() }).await;
    let protocol::Body::Schedule(found) = answer.body else { panic!("{answer:?}") };
    assert_eq!((status, found.last_run_at, found.next_run_at), (200, Some(Timestamp(1_020_000)), Timestamp(1_025_000)));
    assert_eq!(wire(&engine, &Request::ScheduleDelete { id: "s".into() }).await.0, 200);
    assert_eq!(wire(&engine, &Request::ScheduleDelete { id: "s".into() }).await.0, 404);
    drop(engine);
    let engine = Engine::open(dir.path(), Config::default(), Env::manual(START.plus(Millis(90_000)))).unwrap();
    let (_, answer) = wire(&engine, &Request::ScheduleSearch(ScheduleSearch::default())).await;
    assert_eq!(answer.body, protocol::Body::Schedules { schedules: Vec::new(), cursor: None });
    assert_eq!(engine.children("s.").len(), 4, "what it created stays");
}

#[tokio::test]
async fn a_task_that_gets_nowhere_is_halted_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::manual(START);
    let poison = protocol::Poison { attempts_max: 3, free: 1, ..protocol::Poison::default() };
    let protocol = protocol::Config { poison, ..protocol::Config::default() };
    let config = Config { protocol, ..Config::default() };
    let engine = Engine::open(dir.path(), config, env.clone()).unwrap();
    wire(&engine, &create_for("job", "poll://any@g")).await;
    let mut version = 0;
    for _ in 0..3 {
        assert_eq!(wire(&engine, &acquire("job", version, "w")).await.0, 200);
        let release = Request::TaskRelease(TaskRef { id: "job".into(), version: version + 1 });
        assert_eq!(wire(&engine, &release).await.0, 200);
        version += 2;
    }
    let halted = engine.task("job").unwrap();
    assert_eq!((halted.state, halted.attempts), (TaskState::Halted, 3));
    assert!(halted.reason.as_deref().unwrap().contains("3 times"), "{halted:?}");
    let search = TaskSearch { state: Some(TaskState::Halted), ..TaskSearch::default() };
    let (_, answer) = wire(&engine, &Request::TaskSearch(search)).await;
    assert!(matches!(&answer.body, protocol::Body::Tasks { tasks, .. } if tasks.len() == 1), "{answer:?}");
    drop(engine);
    let engine = open(dir.path());
    assert_eq!(engine.task("job").unwrap(), halted, "what is known of it survives a restart");
    assert_eq!(wire(&engine, &Request::TaskContinue { id: "job".into() }).await.0, 200);
    let going = engine.task("job").unwrap();
    assert_eq!((going.state, going.attempts, &going.reason), (TaskState::Pending, 0, &None));
    assert_eq!(wire(&engine, &Request::TaskHalt { id: "job".into() }).await.0, 200);
    assert_eq!(engine.task("job").unwrap().reason.as_deref(), Some("halted by request"));
}

#[tokio::test]
async fn a_search_shows_only_what_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    for number in 0..5 {
        wire(&engine, &create(&format!("p{number}"))).await;
    }
    let search = PromiseSearch { limit: Some(2), ..PromiseSearch::default() };
    let (_, answer) = wire(&engine, &Request::PromiseSearch(search)).await;
    let protocol::Body::Promises { promises, cursor } = answer.body else { panic!("{answer:?}") };
    let ids: Vec<&str> = promises.iter().map(|promise| promise.id.as_str()).collect();
    assert_eq!((ids, cursor.as_deref()), (vec!["p0", "p1"], Some("p1")));
}
