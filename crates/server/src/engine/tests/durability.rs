use super::*;
use crate::engine::Guard;
use governance::record::ENTRY_BYTES_MAX;
use std::pin::pin;

#[tokio::test]
async fn every_acknowledged_write_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..20 {
        let engine = engine.clone();
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            for n in 0..20 {
                let id = format!("p{writer}.{n}");
                let entries = vec![Entry { incident: None, seq: None, bytes: id.clone().into_bytes() }];
                engine.submit(vec![create(&id)], entries, vec![id.clone().into_bytes()], Vec::new()).await.unwrap();
                acknowledged.push(id);
            }
            acknowledged
        });
    }
    let acknowledged: Vec<String> = writers.join_all().await.into_iter().flatten().collect();
    // Joins a group that is never asked for: the kill may or may not keep it, and must keep the rest.
    drop(tokio::spawn({
        let engine = engine.clone();
        async move { submit(&engine, vec![create("last")]).await }
    }));
    drop(engine);

    let engine = reopen(dir.path()).await;
    assert_eq!(acknowledged.len(), 400);
    assert_eq!(engine.log_size(), 400);
    assert_eq!(engine.leaf_hashes().len(), 400);
    for id in &acknowledged {
        assert!(engine.promise(id).is_some(), "{id} is lost");
        assert_eq!(engine.blob(&base::Digest::of(id.as_bytes())).unwrap().as_deref(), Some(id.as_bytes()));
    }
    let mut logged: Vec<String> =
        engine.entries(0..1_000).unwrap().into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect();
    let mut expected = acknowledged;
    logged.sort();
    expected.sort();
    assert_eq!(logged, expected);
    assert_eq!(engine.violations(), Vec::<String>::new());
}

/// Opens the directory once the engine before has let go of it.
async fn reopen(dir: &Path) -> Engine {
    let mut opened = None;
    until("the engine before lets go of its directory", || {
        opened = match Engine::open(dir, Config::default(), Env::manual(START)) {
            Ok(engine) => Some(engine),
            Err(OpenError::Store(Error::Directory(_))) => None,
            Err(other) => panic!("{other}"),
        };
        opened.is_some()
    })
    .await;
    opened.unwrap()
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_is_refused_with_the_pid_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let refused = Engine::open(dir.path(), Config::default(), Env::manual(START)).err().unwrap();
    assert!(refused.to_string().contains(&format!("in use by process {}", std::process::id())), "{refused}");
    drop(first);
    drop(open(dir.path()));
}

#[tokio::test]
async fn a_failed_commit_is_taken_back_and_writes_are_refused_until_the_store_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let fault = Arc::new(AtomicU8::new(Fault::None as u8));
    let engine = open_faulty(dir.path(), &fault).unwrap();
    submit(&engine, vec![create("kept")]).await.unwrap();
    let epoch = engine.take_scope("i1", &["a".to_owned()], &[]).await.unwrap();

    fault.store(Fault::Refuse as u8, Ordering::SeqCst);
    let requests = vec![create("lost"), settle("kept", "lost"), create_for("task", "poll://any@g")];
    let failed = engine.submit(requests, vec![entry("i1", 0, "lost")], vec![b"lost".to_vec()], Vec::new()).await;
    assert!(matches!(failed, Err(SubmitError::Unavailable)), "{failed:?}");
    assert!(engine.promise("lost").is_none());
    assert!(!engine.promise("kept").unwrap().is_settled());
    assert_eq!((engine.log_size(), engine.next_seq("i1"), engine.outbox_len()), (0, 0, 0));
    assert!(engine.blob(&base::Digest::of(b"lost")).unwrap().is_none());
    assert!(!engine.is_writable());
    assert!(matches!(submit(&engine, vec![create("refused")]).await, Err(SubmitError::Unavailable)));
    assert_eq!(wire(&engine, &create("refused")).await.0, 503);
    assert_eq!(wire(&engine, &Request::PromiseGet { id: "kept".to_owned() }).await.0, 200, "reads go on");

    fault.store(Fault::None as u8, Ordering::SeqCst);
    writable(&engine).await;
    assert!(engine.promise("lost").is_none());
    assert_eq!(engine.scope_epoch("i1"), Some(epoch));
    let done = engine.submit(vec![create("next")], vec![entry("i1", 0, "next")], Vec::new(), Vec::new()).await.unwrap();
    assert_eq!(done.indexes, [0]);
    assert_eq!(engine.incident_entries("i1").unwrap(), [(0, b"next".to_vec())]);
    assert_eq!(engine.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn what_reached_the_disk_in_spite_of_a_failed_commit_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let fault = Arc::new(AtomicU8::new(Fault::WriteAndRefuse as u8));
    let engine = open_faulty(dir.path(), &fault).unwrap();
    let failed = engine.submit(vec![create("p")], vec![entry("i1", 0, "r")], Vec::new(), Vec::new()).await;
    assert!(matches!(failed, Err(SubmitError::Unavailable)));
    assert!(engine.promise("p").is_none(), "shown before it is known to be durable");
    fault.store(Fault::None as u8, Ordering::SeqCst);
    writable(&engine).await;
    assert!(engine.promise("p").is_some());
    assert_eq!((engine.log_size(), engine.next_seq("i1")), (1, 1));
}

async fn writable(engine: &Engine) {
    until("the store takes writes again", || engine.is_writable()).await;
}

#[tokio::test]
async fn nothing_is_shown_before_it_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, gate) = open_gated(dir.path());
    let get = Request::PromiseGet { id: "p".to_owned() };
    {
        let mut writing = pin!(engine.submit(vec![create("p")], vec![entry("i", 0, "e")], Vec::new(), Vec::new()));
        let mut reading = pin!(wire(&engine, &get));
        let mut repeating = pin!(async { wire(&engine, &create("p")).await });
        assert!(waits(&mut writing).await);
        assert!(waits(&mut reading).await, "a read of an undurable row answered");
        assert!(waits(&mut repeating).await, "a repeat of an undurable create answered");
        assert!(engine.promise("p").is_none());
        assert_eq!((engine.log_size(), engine.leaf_hashes().len(), engine.children("").len()), (0, 0, 0));
        gate.send(()).unwrap();
        writing.await.unwrap();
        assert_eq!(reading.await.0, 200);
        assert_eq!(repeating.await.0, 200);
    }
    {
        let mut settling = pin!(submit(&engine, vec![settle("p", "v")]));
        assert!(waits(&mut settling).await);
        assert!(!engine.promise("p").unwrap().is_settled(), "the durable view is the one before");
        gate.send(()).unwrap();
        settling.await.unwrap();
    }
    assert!(engine.promise("p").unwrap().is_settled());
    drop(gate);
}

#[tokio::test]
async fn deadlines_settle_by_themselves_and_wake_who_waits() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let create = Create {
        id: "inc/7".to_owned(),
        timeout_at: START.plus(Millis(500)),
        param: Value::default(),
        tags: BTreeMap::new(),
    };
    submit(&engine, vec![Request::PromiseCreate(create)]).await.unwrap();
    let mut waiting = pin!(engine.wait_settled("inc/7"));
    assert!(waits(&mut waiting).await);
    engine.env().advance(Millis(499));
    assert!(waits(&mut waiting).await);
    engine.env().advance(Millis(1));
    let promise = waiting.await.unwrap();
    assert_eq!(promise.state, protocol::PromiseState::TimedOut);
    assert_eq!(promise.settled_at, Some(START.plus(Millis(500))));
    assert!(engine.wait_settled("inc/none").await.is_none());
}

#[tokio::test]
async fn a_panic_in_a_transition_stops_writes_and_answers_who_waits() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, gate) = open_gated(dir.path());
    let mut writing = pin!(submit(&engine, vec![create("p")]));
    assert!(waits(&mut writing).await);
    let shared = Arc::clone(&engine.shared);
    let panicked = std::thread::spawn(move || {
        let _core = shared.lock();
        panic!("a broken invariant");
    });
    assert!(panicked.join().is_err());
    // Whether its commit came through or not, whoever waits is answered.
    gate.send(()).unwrap();
    let _ = writing.await;
    assert!(!engine.is_writable());
    assert!(matches!(submit(&engine, vec![create("q")]).await, Err(SubmitError::Unavailable)));
    let (status, told) = wire(&engine, &create("q")).await;
    assert_eq!(status, 503);
    assert!(matches!(told.body, protocol::Body::Error(words) if words.contains("restart it")));
    assert!(engine.promise("q").is_none());
    drop(gate);
}

#[tokio::test]
async fn an_error_at_any_commit_is_no_success_and_the_work_goes_on_after_it() {
    const WORK: u64 = 8;
    for (at, fault) in (0..WORK).flat_map(|at| [(at, Fault::Refuse), (at, Fault::WriteAndRefuse)]) {
        let dir = tempfile::tempdir().unwrap();
        let failing = Arc::new(AtomicU8::new(Fault::None as u8));
        let engine = open_faulty(dir.path(), &failing).unwrap();
        let one = async |n: u64| {
            let id = format!("inc/{n}");
            let guards = vec![Guard::Chain { incident: "i".to_owned(), seq: n }];
            let requests = vec![create(&id), settle(&id, "done")];
            engine.submit(requests, vec![entry("i", n, &id)], vec![id.clone().into_bytes()], guards).await
        };
        for n in 0..WORK {
            if n == at {
                failing.store(fault as u8, Ordering::SeqCst);
                assert!(matches!(one(n).await, Err(SubmitError::Unavailable)));
                assert!(engine.trouble().unwrap().contains("test"), "{:?}", engine.trouble());
                failing.store(Fault::None as u8, Ordering::SeqCst);
                writable(&engine).await;
                assert_eq!(engine.trouble(), None);
                // Whoever asks again finds out whether it had happened: the record is written once.
                if engine.next_seq("i") > n {
                    assert_eq!(fault, Fault::WriteAndRefuse);
                    continue;
                }
            }
            one(n).await.unwrap();
        }
        drop(engine);
        let engine = reopen(dir.path()).await;
        let records = engine.incident_entries("i").unwrap();
        let expected: Vec<_> = (0..WORK).map(|n| (n, format!("inc/{n}").into_bytes())).collect();
        assert_eq!(records, expected, "commit {at}");
        assert!((0..WORK).all(|n| engine.promise(&format!("inc/{n}")).unwrap().is_settled()));
        assert_eq!(engine.violations(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_record_that_no_verifier_would_accept_is_refused_before_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let record = |bytes: usize| vec![Entry { incident: None, seq: None, bytes: vec![b'x'; bytes] }];
    let long = engine.submit(vec![create("p")], record(ENTRY_BYTES_MAX + 1), Vec::new(), Vec::new()).await;
    assert!(matches!(long, Err(SubmitError::RecordTooLong { index: 0, bytes: 60_001 })), "{long:?}");
    assert!(engine.promise("p").is_none() && engine.log_size() == 0);
    engine.submit(vec![create("p")], record(ENTRY_BYTES_MAX), Vec::new(), Vec::new()).await.unwrap();
    assert_eq!(engine.log_size(), 1);
}

#[tokio::test]
async fn more_deadlines_than_one_sweep_takes_are_all_kept() {
    use super::super::{SUBMIT_REQUESTS_MAX, background::TICK_MAX};
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let due = START.plus(Millis(1_000));
    let at = |number: u32| match create(&format!("p{number}")) {
        Request::PromiseCreate(create) => Request::PromiseCreate(Create { timeout_at: due, ..create }),
        other => other,
    };
    let all: Vec<Request> = (0..TICK_MAX + 5).map(at).collect();
    for some in all.chunks(SUBMIT_REQUESTS_MAX) {
        submit(&engine, some.to_vec()).await.unwrap();
    }
    let swept = protocol::tick(&engine.shared.lock().memory, due, TICK_MAX, &protocol::Config::default());
    let rows = swept.iter().filter(|effect| matches!(effect, protocol::Effect::Put(_))).count();
    assert_eq!(rows, TICK_MAX as usize, "one sweep takes no more");
    engine.env().advance(Millis(1_000));
    until("every deadline was kept", || engine.shared.lock().memory.next_due().is_none()).await;
    engine.flush().await.unwrap();
    assert_eq!(engine.violations(), Vec::<String>::new());
}
