//! Leases that a heartbeat extends: in memory alone, and made up for when the store is read again.

use super::*;

fn heartbeat(id: &str, version: u64) -> Request {
    Request::TaskHeartbeat { pid: "w1".to_owned(), tasks: vec![TaskRef { id: id.to_owned(), version }] }
}

/// An engine in which `w1` holds the task `job` under a lease of two seconds from the start.
async fn holding(dir: &Path) -> (Engine, Env) {
    let env = Env::manual(START);
    let engine = Engine::open(dir, Config::default(), env.clone()).unwrap();
    submit(&engine, vec![create_for("job", "poll://any@g"), acquire("job", 0, "w1")]).await.unwrap();
    (engine, env)
}

fn lease_at(engine: &Engine) -> Option<Timestamp> {
    engine.task("job").unwrap().lease_at
}

#[tokio::test]
async fn a_heartbeat_is_answered_without_a_commit_and_extends_the_lease() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, gate) = open_gated(dir.path());
    gate.send(()).unwrap();
    submit(&engine, vec![create_for("job", "poll://any@g"), acquire("job", 0, "w1")]).await.unwrap();
    engine.env().advance(Millis(1_500));
    // The gate is closed: what had to be stored would never be answered.
    assert_eq!(wire(&engine, &heartbeat("job", 1)).await.0, 200);
    assert_eq!(lease_at(&engine), Some(START.plus(Millis(3_500))));
    assert_eq!(engine.violations(), Vec::<String>::new());
    drop(gate);
}

#[tokio::test]
async fn an_extended_lease_lapses_when_it_is_over_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, env) = holding(dir.path()).await;
    let mut other = engine.subscribe("g", "w2").unwrap();
    env.advance(Millis(1_500));
    assert_eq!(wire(&engine, &heartbeat("job", 1)).await.0, 200);
    env.advance(Millis(1_000));
    // Past the lease as it was stored: the task is still held.
    assert_eq!(wire(&engine, &heartbeat("job", 1)).await.0, 200);
    assert_eq!(engine.task("job").unwrap().version, 1);
    env.advance(Millis(2_000));
    assert!(other.next().await.is_some(), "offered to the next one");
    assert_eq!(engine.task("job").unwrap().version, 2);
    assert_eq!(engine.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_restart_gives_a_held_task_its_full_lease_again() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, env) = holding(dir.path()).await;
    env.advance(Millis(1_500));
    assert_eq!(wire(&engine, &heartbeat("job", 1)).await.0, 200);
    drop(engine);
    let later = START.plus(Millis(3_000));
    let engine = Engine::open(dir.path(), Config::default(), Env::manual(later)).unwrap();
    assert_eq!(lease_at(&engine), Some(later.plus(Millis(2_000))), "never less than what was promised");
    assert_eq!(engine.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_failed_commit_takes_back_the_row_under_an_extended_lease_with_its_timers() {
    let dir = tempfile::tempdir().unwrap();
    let fault = Arc::new(AtomicU8::new(Fault::None as u8));
    let engine = open_faulty(dir.path(), &fault).unwrap();
    submit(&engine, vec![create_for("job", "poll://any@g")]).await.unwrap();
    fault.store(Fault::Refuse as u8, Ordering::SeqCst);
    let acquiring = submit(&engine, vec![acquire("job", 0, "w1")]);
    // Both may come before the commit fails; neither may leave a timer behind that no row calls for.
    let beat = protocol::wire::render_request("1", &heartbeat("job", 1));
    let (acquired, beaten) = tokio::join!(acquiring, engine.wire(&beat));
    assert!(acquired.is_err());
    assert!(beaten.0 == 503 || beaten.0 == 200, "{}", beaten.0);
    assert_eq!(engine.violations(), Vec::<String>::new());
    assert_eq!(engine.task("job").unwrap().version, 0);
    fault.store(Fault::None as u8, Ordering::SeqCst);
    until("the store takes writes again", || engine.is_writable()).await;
    assert_eq!(engine.violations(), Vec::<String>::new());
}
