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
async fn each_drop_begins_a_grace_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let grace = Millis(1_000);
    let config = Config { reconnect_grace: Grace(grace), ..Config::default() };
    let engine = Engine::open(dir.path(), config, Env::manual(START)).unwrap();
    let mut first = engine.subscribe("g", "w1").unwrap();
    submit(&engine, vec![create_for("t", "poll://any@g")]).await.unwrap();
    assert_eq!(offered(&mut first).await.1, 0);
    let lease = Request::TaskAcquire { id: "t".to_owned(), version: 0, pid: "w1".to_owned(), ttl: Millis(60_000) };
    submit(&engine, vec![lease]).await.unwrap();
    drop(first);
    engine.env().advance(Millis(600));
    drop(engine.subscribe("g", "w1").unwrap());
    let mut second = engine.subscribe("g", "w2").unwrap();
    engine.env().advance(Millis(999));
    assert!(is_silent(&engine, &mut second).await, "the first grace ended with the return");
    engine.env().advance(Millis(1));
    assert_eq!(offered(&mut second).await, ("t".to_owned(), 2));
    // The same worker elsewhere is alive.
    submit(&engine, vec![acquire("t", 2, "w2")]).await.unwrap();
    let _elsewhere = engine.subscribe("other", "w2").unwrap();
    drop(second);
    engine.env().advance(grace);
    let mut third = engine.subscribe("g", "w3").unwrap();
    assert!(is_silent(&engine, &mut third).await);
    assert_eq!(engine.task("t").unwrap().pid.as_deref(), Some("w2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_real_clock_a_dropped_workers_task_is_elsewhere_soon_after_the_grace() {
    let dir = tempfile::tempdir().unwrap();
    let grace = Duration::from_millis(300);
    let config = Config { reconnect_grace: Grace(Millis(300)), ..Config::default() };
    let engine = Engine::open(dir.path(), config, Env::real()).unwrap();
    let create_live = |id: &str, group: &str| {
        let Request::PromiseCreate(create) = create_for(id, &format!("poll://any@{group}")) else { unreachable!() };
        Request::PromiseCreate(Create { timeout_at: engine.env().now().plus(Millis(3_600_000)), ..create })
    };
    // The fastest of several: a machine that is busy with other things proves nothing about us.
    let mut fastest = Duration::MAX;
    for round in 0..5 {
        let (id, group) = (format!("t{round}"), format!("g{round}"));
        let mut first = engine.subscribe(&group, "w1").unwrap();
        submit(&engine, vec![create_live(&id, &group)]).await.unwrap();
        assert_eq!(offered(&mut first).await, (id.clone(), 0));
        let lease = Request::TaskAcquire { id, version: 0, pid: "w1".to_owned(), ttl: Millis(60_000) };
        submit(&engine, vec![lease]).await.unwrap();
        let mut second = engine.subscribe(&group, "w2").unwrap();
        let dropped = tokio::time::Instant::now();
        drop(first);
        assert_eq!(offered(&mut second).await.1, 2);
        let took = dropped.elapsed();
        // The clock of the engine counts whole milliseconds.
        assert!(took >= grace - Duration::from_millis(1), "{took:?}");
        fastest = fastest.min(took);
    }
    assert!(fastest <= grace + Duration::from_millis(100), "{fastest:?}");
}

/// The next message, if one is there already.
async fn at_hand(connection: &mut Connection) -> Option<Message> {
    let mut next = pin!(connection.next());
    match poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await {
        Poll::Ready(message) => message,
        Poll::Pending => None,
    }
}

/// What a run of the random test below knows to be owed.
#[derive(Default)]
struct Known {
    listened: std::collections::BTreeSet<String>,
    settled: std::collections::BTreeSet<String>,
    told: std::collections::BTreeSet<String>,
    tasks: std::collections::BTreeSet<String>,
}

/// No unblock is lost, and no execute of a pending task, whoever connects, drops or starts again.
#[tokio::test]
async fn what_is_owed_survives_drops_and_restarts() {
    for seed in 1..=12_u64 {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::manual(START);
        let mut state = seed;
        let mut roll = |sides: u64| {
            // Knuth's linear congruential generator; the high bits are good enough to choose by.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % sides
        };
        let (mut known, mut workers) = (Known::default(), Vec::new());
        let mut engine = Engine::open(dir.path(), Config::default(), env.clone()).unwrap();
        for step in 0..80 {
            match roll(8) {
                0 | 1 => {
                    let (id, who) = (format!("p{step}"), roll(3));
                    let address = format!("poll://uni@g/{who}");
                    let listen = Request::RegisterListener { awaited: id.clone(), address };
                    submit(&engine, vec![create_external(&id), listen]).await.unwrap();
                    known.listened.insert(id);
                }
                2 => {
                    if let Some(id) = known.listened.iter().find(|id| !known.settled.contains(*id)).cloned() {
                        submit(&engine, vec![settle(&id, "done")]).await.unwrap();
                        known.settled.insert(id);
                    }
                }
                3 => {
                    let id = format!("t{step}");
                    submit(&engine, vec![create_for(&id, "poll://any@g")]).await.unwrap();
                    known.tasks.insert(id);
                }
                4 => workers.push(engine.subscribe("g", &roll(3).to_string()).unwrap()),
                5 if !workers.is_empty() => {
                    let pick = usize::try_from(roll(workers.len() as u64)).unwrap();
                    drop(workers.swap_remove(pick));
                }
                6 => engine.env().advance(Millis(roll(7_000))),
                _ if roll(4) == 0 => {
                    workers.clear();
                    drop(engine);
                    engine = Engine::open(dir.path(), Config::default(), env.clone()).unwrap();
                }
                _ => {}
            }
            engine.flush().await.unwrap();
            assert_owed(&engine, &known, seed, step);
        }
        // Somebody reads at last: everything arrives, or had arrived before.
        drop(workers);
        let mut readers: Vec<_> = (0..3).map(|who| engine.subscribe("g", &who.to_string()).unwrap()).collect();
        for reader in &mut readers {
            while let Some(message) = at_hand(reader).await {
                match message {
                    Message::Unblock { promise, .. } => drop(known.told.insert(promise.id.clone())),
                    Message::Execute { task_id, .. } => assert!(known.tasks.contains(&task_id)),
                }
            }
        }
        assert_eq!(known.told, known.settled, "seed {seed}: nobody read before, so all of it is told now");
        assert_eq!(engine.violations(), Vec::<String>::new());
    }
}

/// Nobody has read anything: each unblock is still owed, and each pending task is queued or its timer runs.
fn assert_owed(engine: &Engine, known: &Known, seed: u64, step: u64) {
    let owed = engine.owed();
    for id in &known.settled {
        let is_owed =
            |owed: &super::super::Owed| matches!(&*owed.message, Message::Unblock { promise, .. } if promise.id == *id);
        assert!(owed.iter().any(is_owed), "seed {seed}, step {step}: the unblock of {id} is lost");
    }
    for id in &known.tasks {
        let task = engine.task(id).unwrap();
        let is_owed =
            |owed: &super::super::Owed| matches!(&*owed.message, Message::Execute { task_id, .. } if task_id == id);
        assert!(owed.iter().any(is_owed) || task.retry_at.is_some(), "seed {seed}, step {step}: {task:?}");
    }
}

#[tokio::test]
async fn what_was_sent_arrived_or_waits_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let mut worker = engine.subscribe("g", "w").unwrap();
    for id in ["a", "b", "c"] {
        submit(&engine, vec![create_for(id, "poll://any@g")]).await.unwrap();
    }
    let chunk = worker.next_chunk().await.unwrap();
    assert_eq!(chunk.len(), 3, "one write for what waits");
    submit(&engine, vec![create_for("d", "poll://any@h"), acquire("a", 0, "w")]).await.unwrap();
    let counts = engine.delivery_counts();
    assert_eq!((counts.sent, counts.delivered, counts.waiting, counts.connections), (3, 1, 1, 1));
    drop(worker);
    let mut worker = engine.subscribe("g", "w").unwrap();
    assert_eq!(worker.next_chunk().await.unwrap().len(), 2);
    engine.env().advance(ACK_AFTER);
    // `a` was taken for two seconds and is offered again by now; `d` waits for another group.
    until("the frames count as received", || engine.outbox_len() == 2).await;
    let counts = engine.delivery_counts();
    assert_eq!((counts.sent, counts.delivered, counts.retried, counts.dead), (5, 3, 2, 0));
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
