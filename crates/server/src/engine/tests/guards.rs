use super::super::{Guard, ScopeError};
use super::*;
use base::Digest;

/// A submit under one guard, with something of everything in it.
async fn under(engine: &Engine, guard: Guard) -> Result<Submitted, SubmitError> {
    let requests = vec![create("written"), settle("inc/1:step", "done")];
    engine.submit(requests, vec![entry("1", 0, "record")], vec![b"blob".to_vec()], vec![guard]).await
}

fn assert_untouched(engine: &Engine) {
    assert!(engine.promise("written").is_none());
    assert!(!engine.promise("inc/1:step").unwrap().is_settled());
    assert_eq!((engine.log_size(), engine.next_seq("1")), (0, 0));
    assert!(engine.blob(&Digest::of(b"blob")).unwrap().is_none());
}

#[tokio::test]
async fn a_guard_that_no_longer_holds_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    submit(&engine, vec![create_for("inc/1:step", "poll://any@executor"), create("hold/shop")]).await.unwrap();
    submit(&engine, vec![acquire("inc/1:step", 0, "w1")]).await.unwrap();
    let epoch = engine.take_scope("1", &["payments".to_owned()], &[]).await.unwrap();
    engine.put_meta("policy", b"p1".to_vec()).await.unwrap();
    assert_eq!(engine.get_meta("policy").await.unwrap().as_deref(), Some(&b"p1"[..]));

    let task = |version| Guard::Task { id: "inc/1:step".to_owned(), version };
    let lease = |incident: &str, epoch| Guard::Lease { incident: incident.to_owned(), epoch };
    let bound = |key: &str, value: &[u8]| Guard::Bound { key: key.to_owned(), digest: Digest::of(value) };
    let stale = [
        Guard::Hold { scopes: vec!["other".to_owned(), "shop".to_owned()], is_undo: false },
        Guard::Hold { scopes: vec!["shop".to_owned()], is_undo: true },
        Guard::Holds { version: 0 },
        lease("1", epoch + 1),
        lease("2", epoch),
        task(0),
        task(2),
        Guard::Task { id: "missing".to_owned(), version: 1 },
        Guard::Chain { incident: "1".to_owned(), seq: 1 },
        bound("policy", b"p2"),
        bound("missing", b"p1"),
    ];
    for guard in stale {
        let refused = under(&engine, guard.clone()).await;
        assert!(matches!(&refused, Err(SubmitError::Guard(found)) if *found == guard), "{guard:?}: {refused:?}");
        assert_untouched(&engine);
    }
    engine.env().advance(Millis(2_000));
    assert!(matches!(under(&engine, task(1)).await, Err(SubmitError::Guard(_))), "a lapsed lease guards nothing");
    assert_untouched(&engine);

    let (holds, version) = engine.holds();
    assert_eq!((holds.iter().map(|hold| hold.scope.as_str()).collect::<Vec<_>>(), version), (vec!["shop"], 1));
    let good = vec![
        Guard::Hold { scopes: vec!["other".to_owned()], is_undo: false },
        Guard::Holds { version: 1 },
        lease("1", epoch),
        Guard::Chain { incident: "1".to_owned(), seq: 0 },
        bound("policy", b"p1"),
    ];
    let entries = vec![entry("1", 0, "a"), entry("1", 1, "b")];
    let done = engine.submit(vec![settle("inc/1:step", "v")], entries, Vec::new(), good).await.unwrap();
    assert_eq!(done.indexes, [0, 1]);
    assert_eq!(engine.next_seq("1"), 2);
    assert!(engine.promise("inc/1:step").unwrap().is_settled());
}

#[tokio::test]
async fn one_refused_request_writes_nothing_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    submit(&engine, vec![create_for("inc/1:step", "poll://any@executor")]).await.unwrap();
    let before = engine.outbox_len();
    let requests = vec![
        create_for("written", "poll://any@executor"),
        settle("inc/1:step", "v"),
        Request::TaskRelease(TaskRef { id: "inc/1:step".to_owned(), version: 5 }),
    ];
    let refused = engine.submit(requests, vec![entry("1", 0, "r")], vec![b"blob".to_vec()], Vec::new()).await;
    assert!(
        matches!(&refused, Err(SubmitError::Refused { index: 2, response }) if response.status == 409),
        "{refused:?}"
    );
    assert_untouched(&engine);
    assert_eq!(engine.outbox_len(), before);
    drop(engine);
    assert_untouched(&open(dir.path()));
}

#[tokio::test]
async fn scopes_exclude_each_other_and_epochs_only_rise() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let (a, b) = (["a".to_owned()], ["b".to_owned()]);
    let first = engine.take_scope("1", &a, &b).await.unwrap();
    assert_eq!(engine.take_scope("1", &a, &b).await.unwrap(), first, "the same again is the same lease");
    for (exclusive, shared) in [(&a[..], &[][..]), (&b[..], &[][..]), (&[][..], &a[..])] {
        let refused = engine.take_scope("2", exclusive, shared).await;
        assert!(matches!(refused, Err(ScopeError::Conflict(conflict)) if conflict.incident == "1"));
    }
    let second = engine.take_scope("2", &[], &b).await.unwrap();
    assert!(second > first);
    engine.release_scope("1").await.unwrap();
    engine.release_scope("2").await.unwrap();
    drop(engine);
    let engine = open(dir.path());
    assert_eq!(engine.scope_epoch("1"), None);
    assert!(engine.take_scope("3", &a, &b).await.unwrap() > second, "an epoch was given twice");
}

#[tokio::test]
async fn reserved_ids_are_written_in_process_only() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    for request in [create("inc/1"), create("hold/shop"), create_for("inc/1:commit.1", "poll://any@executor")] {
        assert_eq!(wire(&engine, &request).await.0, 403, "{request:?}");
        submit(&engine, vec![request]).await.unwrap();
    }
    let id = "inc/1:commit.1".to_owned();
    assert_eq!(wire(&engine, &settle("hold/shop", "off")).await.0, 403);
    let (status, _) = wire(&engine, &acquire(&id, 0, "w")).await;
    assert_eq!(status, 200, "an executor may acquire");
    let tasks = vec![TaskRef { id: id.clone(), version: 1 }];
    assert_eq!(wire(&engine, &Request::TaskHeartbeat { pid: "w".to_owned(), tasks }).await.0, 200);
    let action = Settle { id: id.clone(), state: Resolution::Resolved, value: Value::default() };
    let fulfill = Request::TaskFulfill { id: id.clone(), version: 1, action };
    assert_eq!(wire(&engine, &fulfill).await.0, 403, "a result comes by submit only");
    assert_eq!(wire(&engine, &Request::TaskRelease(TaskRef { id: id.clone(), version: 1 })).await.0, 200);
    assert!(!engine.promise(&id).unwrap().is_settled());
    assert_eq!(engine.children("inc/1").len(), 2);
}

#[tokio::test]
async fn one_submit_takes_so_many_requests_and_records_and_no_more() {
    use super::super::{SUBMIT_ENTRIES_MAX, SUBMIT_REQUESTS_MAX};
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let requests = |count: usize| (0..count).map(|number| create(&format!("inc/{number}"))).collect::<Vec<_>>();
    let entries = |count: usize| (0_u64..).map(|seq| entry("i", seq, "x")).take(count).collect::<Vec<_>>();
    let most = engine.submit(requests(SUBMIT_REQUESTS_MAX), entries(SUBMIT_ENTRIES_MAX), Vec::new(), Vec::new()).await;
    assert!(most.is_ok(), "{most:?}");
    let written = engine.log_size();
    for (requests, entries) in
        [(requests(SUBMIT_REQUESTS_MAX + 1), Vec::new()), (Vec::new(), entries(SUBMIT_ENTRIES_MAX + 1))]
    {
        let refused = engine.submit(requests, entries, Vec::new(), Vec::new()).await;
        assert!(matches!(refused, Err(SubmitError::TooMuch)), "{refused:?}");
    }
    assert_eq!(engine.log_size(), written, "nothing of a refused one is written");
}
