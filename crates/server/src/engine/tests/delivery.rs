use super::super::{ACK_AFTER, Connection};
use super::*;
use protocol::Message;
use std::pin::pin;

async fn offered(connection: &mut Connection) -> (String, u64) {
    match connection.next().await.unwrap() {
        Message::Execute { task_id, version, .. } => (task_id, version),
        other => panic!("{other:?}"),
    }
}

/// Whether nothing arrives, once everything that was stirred has run.
async fn is_silent(engine: &Engine, connection: &mut Connection) -> bool {
    engine.flush().await.unwrap();
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    let mut next = pin!(connection.next());
    waits(&mut next).await
}

#[tokio::test]
async fn work_is_offered_on_commit_and_on_connect() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    submit(&engine, vec![create_for("early", "poll://any@g")]).await.unwrap();
    let mut worker = engine.subscribe("g", "w1").unwrap();
    assert_eq!(offered(&mut worker).await, ("early".to_owned(), 0));
    submit(&engine, vec![create_for("late", "poll://any@g"), create_for("other", "poll://any@h")]).await.unwrap();
    assert_eq!(offered(&mut worker).await, ("late".to_owned(), 0));
    assert!(is_silent(&engine, &mut worker).await, "another group's work was offered");
    // What waits survives a restart.
    drop((worker, engine));
    let engine = open(dir.path());
    assert_eq!(offered(&mut engine.subscribe("h", "w2").unwrap()).await, ("other".to_owned(), 0));
}

#[tokio::test]
async fn any_prefers_the_named_and_takes_turns_otherwise_and_uni_waits_for_the_named() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let mut one = engine.subscribe("g", "one").unwrap();
    let mut two = engine.subscribe("g", "two").unwrap();
    submit(&engine, vec![create_for("a", "poll://any@g/two")]).await.unwrap();
    assert_eq!(offered(&mut two).await.0, "a");
    submit(&engine, vec![create_for("b", "poll://any@g"), create_for("c", "poll://any@g")]).await.unwrap();
    let mut shared = [offered(&mut one).await.0, offered(&mut two).await.0];
    shared.sort();
    assert_eq!(shared, ["b", "c"]);
    submit(&engine, vec![create_for("d", "poll://uni@g/three")]).await.unwrap();
    assert!(is_silent(&engine, &mut one).await && is_silent(&engine, &mut two).await);
    assert_eq!(offered(&mut engine.subscribe("g", "three").unwrap()).await.0, "d");
}

#[tokio::test]
async fn a_frame_counts_as_received_only_after_its_connection_stayed_up() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let listen = Request::RegisterListener { awaited: "inc/1".to_owned(), address: "poll://uni@c/me".to_owned() };
    submit(&engine, vec![create("inc/1")]).await.unwrap();
    submit(&engine, vec![listen]).await.unwrap();
    let mut first = engine.subscribe("c", "me").unwrap();
    submit(&engine, vec![settle("inc/1", "done")]).await.unwrap();
    assert!(matches!(first.next().await, Some(Message::Unblock { .. })));
    engine.env().advance(Millis(ACK_AFTER.0 - 1));
    drop(first);
    let mut second = engine.subscribe("c", "me").unwrap();
    let again = second.next().await;
    assert!(matches!(&again, Some(Message::Unblock { promise, .. }) if promise.value.data.as_deref() == Some("done")));
    assert_eq!(engine.outbox_len(), 1);
    engine.env().advance(ACK_AFTER);
    until("the frame is acknowledged", || engine.outbox_len() == 0).await;
    engine.flush().await.unwrap();
    drop((second, engine));
    assert_eq!(open(dir.path()).outbox_len(), 0, "the acknowledgment is durable");
}

#[tokio::test]
async fn a_dropped_connection_gives_its_tasks_away_after_the_grace() {
    let dir = tempfile::tempdir().unwrap();
    let grace = Millis(100);
    let config = Config { reconnect_grace: Grace(grace), ..Config::default() };
    let engine = Engine::open(dir.path(), config, Env::manual(START)).unwrap();
    let mut first = engine.subscribe("executor", "w1").unwrap();
    submit(&engine, vec![create_for("inc/1:c", "poll://any@executor")]).await.unwrap();
    assert_eq!(offered(&mut first).await.1, 0);
    submit(&engine, vec![acquire("inc/1:c", 0, "w1")]).await.unwrap();

    // Back within the grace: nothing happens.
    drop(first);
    let first = engine.subscribe("executor", "w1").unwrap();
    let mut second = engine.subscribe("executor", "w2").unwrap();
    engine.env().advance(grace);
    assert!(is_silent(&engine, &mut second).await);
    assert_eq!(engine.task("inc/1:c").unwrap().pid.as_deref(), Some("w1"));

    drop(first);
    assert!(is_silent(&engine, &mut second).await);
    engine.env().advance(grace);
    assert_eq!(offered(&mut second).await, ("inc/1:c".to_owned(), 2), "the version fences the one that left");
    let late = wire(&engine, &Request::TaskRelease(TaskRef { id: "inc/1:c".to_owned(), version: 1 })).await;
    assert_eq!(late.0, 409);
}

#[tokio::test]
async fn a_lapsed_lease_is_offered_again_and_a_pending_task_every_retry() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let mut worker = engine.subscribe("g", "w").unwrap();
    submit(&engine, vec![create_for("t", "poll://any@g")]).await.unwrap();
    assert_eq!(offered(&mut worker).await.1, 0);
    engine.env().advance(Millis(30_000));
    assert_eq!(offered(&mut worker).await.1, 0, "the retry");
    submit(&engine, vec![acquire("t", 0, "gone")]).await.unwrap();
    engine.env().advance(Millis(2_000));
    assert_eq!(offered(&mut worker).await.1, 2, "the lease lapsed");
    assert_eq!(engine.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn so_many_workers_connect_and_each_is_sent_so_much_before_it_reads() {
    use super::super::{CONNECTION_BUFFER_MAX, CONNECTIONS_MAX};
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let mut slow = engine.subscribe("slow", "w").unwrap();
    let others: Vec<_> = (1..CONNECTIONS_MAX).map(|n| engine.subscribe("g", &format!("w{n}")).unwrap()).collect();
    let refused = engine.subscribe("g", "over").map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains(&CONNECTIONS_MAX.to_string()), "{refused}");
    drop(others);
    assert!(engine.subscribe("g", "over").is_ok(), "one that left makes room");
    // Nobody reads: the buffer fills, and the rest stays in the outbox.
    let count = CONNECTION_BUFFER_MAX + 5;
    for number in 0..count {
        submit(&engine, vec![create_for(&format!("t{number}"), "poll://any@slow")]).await.unwrap();
    }
    engine.flush().await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < count {
        seen.insert(offered(&mut slow).await.0);
    }
    assert_eq!(seen.len(), count, "none is lost");
}
