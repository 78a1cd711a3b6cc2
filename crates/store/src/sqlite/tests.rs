use super::*;
use crate::DeadLetter;
use base::{Millis, Timestamp};
use protocol::{Message, Promise, PromiseState, Row, Task, TaskState, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn texts(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// A row in which no field has its default value.
fn full_row(id: &str) -> Row {
    let headers = BTreeMap::from([("h\"1".to_owned(), "v\n1".to_owned())]);
    let promise = Promise {
        id: id.to_owned(),
        state: PromiseState::Canceled,
        param: Value { headers: Some(headers.clone()), data: Some("parameter".to_owned()) },
        value: Value { headers: Some(headers.clone()), data: Some(String::new()) },
        tags: headers.into(),
        timeout_at: Timestamp(300),
        created_at: Timestamp(-100),
        settled_at: Some(Timestamp(200)),
    };
    let task = Task {
        id: id.to_owned(),
        state: TaskState::Halted,
        version: 7,
        resumes: texts(&["a", "b"]),
        ttl: Some(Millis(2_000)),
        pid: Some("worker".to_owned()),
        retry_at: Some(Timestamp(400)),
        lease_at: Some(Timestamp(500)),
        attempts: 4,
        reason: Some("why".to_owned()),
    };
    Row {
        promise: Arc::new(promise),
        task: Some(Arc::new(task)),
        callbacks: texts(&["c"]),
        listeners: texts(&["poll://any@g", "poll://uni@g/1"]),
    }
}

fn plain_row(id: &str) -> Row {
    let promise = Promise {
        id: id.to_owned(),
        state: PromiseState::Pending,
        param: Value::default(),
        value: Value::default(),
        tags: protocol::Tags::default(),
        timeout_at: Timestamp(300),
        created_at: Timestamp(100),
        settled_at: None,
    };
    Row { promise: Arc::new(promise), task: None, callbacks: BTreeSet::new(), listeners: BTreeSet::new() }
}

fn entry(index: u64, bytes: &[u8]) -> StoredEntry {
    StoredEntry {
        index,
        incident: Some("i".to_owned()),
        seq: Some(index),
        leaf: Digest::of(bytes),
        bytes: Arc::from(bytes),
    }
}

fn opened(dir: &Path) -> Sqlite {
    Sqlite::open(&Directory::take(dir).unwrap()).unwrap()
}

fn letter(message: &Message) -> DeadLetter {
    let (message, error) = (Arc::new(message.clone()), "answered 503".to_owned());
    DeadLetter { message, attempts: 3, error, since: Timestamp(-5), dead_at: Timestamp(600) }
}

#[test]
fn what_was_committed_is_read_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (full, plain) = (Arc::new(full_row("full")), Arc::new(plain_row("plain")));
    let outbox = vec![
        (3, Message::Execute { task_id: "full".to_owned(), version: 7, address: "poll://any@g".to_owned() }),
        (5, Message::Unblock { address: "poll://uni@g/1".to_owned(), promise: Arc::clone(&full.promise) }),
    ];
    let lease = ScopeLease {
        incident: "i".to_owned(),
        epoch: 4,
        exclusive: vec!["a".to_owned()],
        shared: vec!["b".to_owned(), "c".to_owned()],
    };
    let schedule = protocol::Schedule {
        id: "s".to_owned(),
        cron: "* * * * *".to_owned(),
        promise_id: "{{.id}}".to_owned(),
        promise_timeout: Millis(7),
        promise_param: full.promise.param.clone(),
        promise_tags: full.promise.tags.to_map(),
        created_at: Timestamp(1),
        next_run_at: Timestamp(60_000),
        last_run_at: Some(Timestamp(2)),
    };
    let plain_schedule = protocol::Schedule { id: "t".to_owned(), last_run_at: None, ..schedule.clone() };
    let dead = vec![(1, letter(&outbox[0].1)), (2, letter(&outbox[1].1))];
    let mut batch = Batch {
        rows: vec![(0, Arc::clone(&plain)), (4, Arc::clone(&plain)), (9, Arc::clone(&full))],
        schedules: vec![Arc::new(schedule.clone()), Arc::new(plain_schedule.clone())],
        outbox: outbox.clone(),
        dead: dead.clone(),
        entries: vec![entry(0, b"first"), entry(1, b"second")],
        blobs: vec![(Digest::of(b"blob"), Arc::from(&b"blob"[..])), (Digest::of(b"blob"), Arc::from(&b"blob"[..]))],
        leases: vec![lease.clone()],
        meta: vec![("key".to_owned(), b"old".to_vec()), ("key".to_owned(), b"new".to_vec())],
        ..Batch::default()
    };
    opened(dir.path()).commit(&batch).unwrap();

    let mut store = opened(dir.path());
    let gone = Batch { rows_gone: vec![4], schedules_gone: vec!["t".to_owned()], ..Batch::default() };
    assert_eq!((store.load().unwrap().rows.len(), store.load().unwrap().schedules.len()), (3, 2));
    store.commit(&gone).unwrap();
    let found = store.load().unwrap();
    assert_eq!(found.schedules, [schedule]);
    assert_eq!(found.rows, [(0, (*plain).clone()), (9, (*full).clone())]);
    assert_eq!(found.outbox, outbox);
    assert_eq!(found.dead, dead);
    assert_eq!(found.leases, [lease]);
    assert_eq!(found.meta, [("key".to_owned(), b"new".to_vec())]);
    assert_eq!(found.entries.len(), 2);
    assert_eq!(found.entries[1].leaf, Digest::of(b"second"));
    let reader = store.reader().unwrap();
    assert_eq!(reader.entries(0..9).unwrap(), [b"first".to_vec(), b"second".to_vec()]);
    assert_eq!(reader.entries(1..2).unwrap(), [b"second".to_vec()]);
    assert_eq!(reader.blob(&Digest::of(b"blob")).unwrap().as_deref(), Some(&b"blob"[..]));
    assert_eq!(reader.blob(&Digest::of(b"none")).unwrap(), None);

    batch = Batch {
        rows: vec![(0, full)],
        outbox_gone: vec![3, 5],
        dead_gone: vec![1],
        leases_gone: vec!["i".to_owned()],
        ..Batch::default()
    };
    store.commit(&batch).unwrap();
    let found = Sqlite::inspect(dir.path()).unwrap();
    assert_eq!(found.rows[0].1.id(), "full");
    assert!(found.outbox.is_empty() && found.leases.is_empty());
    assert_eq!(found.dead, dead[1..]);
}

#[test]
fn a_file_from_before_dead_letters_is_brought_up_to_date_when_opened() {
    let dir = tempfile::tempdir().unwrap();
    let outbox =
        vec![(3, Message::Execute { task_id: "t".to_owned(), version: 7, address: "poll://any@g".to_owned() })];
    let mut store = opened(dir.path());
    store.commit(&Batch { outbox: outbox.clone(), ..Batch::default() }).unwrap();
    store.connection.execute_batch("DROP TABLE dead_letters; PRAGMA user_version = 2").unwrap();
    drop(store);
    let mut store = opened(dir.path());
    let found = store.load().unwrap();
    assert_eq!((&found.outbox, found.dead.len()), (&outbox, 0));
    let letter = letter(&outbox[0].1);
    store.commit(&Batch { outbox_gone: vec![3], dead: vec![(3, letter.clone())], ..Batch::default() }).unwrap();
    let found = store.load().unwrap();
    assert_eq!((found.outbox, found.dead), (Vec::new(), vec![(3, letter)]));
}

#[test]
fn a_dead_letter_whose_promise_is_gone_is_not_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let promise = Arc::clone(&full_row("gone").promise);
    let letter = letter(&Message::Unblock { address: "poll://uni@g/1".to_owned(), promise });
    let mut store = opened(dir.path());
    store.commit(&Batch { dead: vec![(3, letter)], ..Batch::default() }).unwrap();
    assert!(store.load().unwrap().dead.is_empty());
}

#[test]
fn a_batch_that_fails_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = opened(dir.path());
    store.commit(&Batch { entries: vec![entry(0, b"first")], ..Batch::default() }).unwrap();
    // The log's index is taken: the last statements of this batch cannot succeed.
    let batch = Batch {
        rows: vec![(0, Arc::new(plain_row("p")))],
        meta: vec![("key".to_owned(), b"v".to_vec())],
        entries: vec![entry(0, b"again")],
        ..Batch::default()
    };
    assert!(store.commit(&batch).is_err());
    let found = store.load().unwrap();
    assert!(found.rows.is_empty() && found.meta.is_empty());
    assert_eq!(found.entries[0].leaf, Digest::of(b"first"));
    store.commit(&Batch { entries: vec![entry(1, b"second")], ..Batch::default() }).unwrap();
}

#[test]
fn writes_are_synced_and_logged_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(dir.path());
    let pragma = |name: &str| store.connection.query_row(&format!("PRAGMA {name}"), (), |row| row.get::<_, i64>(0));
    assert_eq!(pragma("synchronous").unwrap(), 2);
    let mode: String = store.connection.query_row("PRAGMA journal_mode", (), |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

#[test]
fn a_file_of_another_program_or_of_a_newer_version_is_left_as_it_is() {
    let refused = |prepare: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        prepare(&path);
        let before = std::fs::read(&path).unwrap();
        let error = Sqlite::open(&Directory::take(dir.path()).unwrap()).err().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), before, "the file was changed");
        error
    };
    let foreign = refused(&|path| {
        Connection::open(path)
            .unwrap()
            .execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)")
            .unwrap();
    });
    assert!(matches!(foreign, Error::Foreign(_)), "{foreign}");
    let text =
        refused(&|path| std::fs::write(path, "this is not a database, and long enough to be looked at").unwrap());
    assert!(matches!(text, Error::Foreign(_)), "{text}");
    let newer = refused(&|path| {
        drop(opened(path.parent().unwrap()));
        Connection::open(path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    });
    assert!(matches!(newer, Error::Newer { found: 99, .. }), "{newer}");
}

#[test]
fn a_row_that_makes_no_sense_is_named_and_not_guessed_at() {
    let damage = |sql: &str| {
        let dir = tempfile::tempdir().unwrap();
        let mut store = opened(dir.path());
        let batch = Batch {
            rows: vec![(0, Arc::new(full_row("p")))],
            entries: vec![entry(0, b"a"), entry(1, b"b")],
            ..Batch::default()
        };
        store.commit(&batch).unwrap();
        store.connection.execute_batch(sql).unwrap();
        store.load().err()
    };
    for sql in [
        "UPDATE rows SET state = 'unheard of'",
        "UPDATE rows SET tags = '{'",
        "UPDATE rows SET task_version = -1",
        "DELETE FROM entries WHERE idx = 0",
        "UPDATE entries SET leaf = x'00'",
        "INSERT INTO outbox VALUES (1, 'unblock', 'missing', 'poll://any@g', NULL)",
        "INSERT INTO dead_letters VALUES (1, 'whisper', 'p', 'poll://any@g', NULL, 0, '', 0, 0)",
    ] {
        let error = damage(sql);
        assert!(matches!(error, Some(Error::Corrupt { .. })), "{sql}: {error:?}");
    }
    assert!(damage("SELECT 1").is_none());
}

#[test]
fn a_directory_has_one_holder() {
    let dir = tempfile::tempdir().unwrap();
    let held = Directory::take(dir.path()).unwrap();
    let refused = Directory::take(dir.path()).err().unwrap();
    assert!(refused.to_string().ends_with(&format!("in use by process {}", std::process::id())), "{refused}");
    drop(held);
    assert_eq!(Directory::take(dir.path()).unwrap().path(), dir.path());
}

#[test]
fn what_the_log_holds_is_in_the_file_once_it_is_open_or_it_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    let mut store = opened(dir.path());
    // Ends the checkpointer, so that only opening can bring the log into the file.
    store.checkpointer.take();
    let reading = Connection::open(&path).unwrap();
    reading.execute_batch("BEGIN; SELECT count(*) FROM rows").unwrap();
    store.commit(&Batch { rows: vec![(0, Arc::new(plain_row("p")))], ..Batch::default() }).unwrap();
    let held = Sqlite::open_file(&path, Duration::ZERO).err().unwrap();
    assert!(matches!(held, Error::Held(_)) && held.to_string().contains("another program"), "{held}");
    reading.execute_batch("COMMIT").unwrap();
    let log = || std::fs::metadata(dir.path().join("stanch.db-wal")).unwrap().len();
    assert!(log() > 0);
    let mut again = Sqlite::open_file(&path, Duration::ZERO).unwrap();
    assert_eq!((log(), again.load().unwrap().rows.len()), (0, 1));
}

#[test]
fn a_reader_takes_so_many_records_at_once_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = opened(dir.path());
    let entries = (0..=READER_ENTRIES_MAX).map(|index| StoredEntry { incident: None, seq: None, ..entry(index, b"x") });
    store.commit(&Batch { entries: entries.collect(), ..Batch::default() }).unwrap();
    let reader = store.reader().unwrap();
    let read = |from: u64| reader.entries(from..u64::MAX).unwrap().len() as u64;
    assert_eq!((read(0), read(1)), (READER_ENTRIES_MAX, READER_ENTRIES_MAX));
    assert_eq!(read(READER_ENTRIES_MAX), 1, "the rest comes with the next call");
}

#[test]
fn a_file_of_the_first_version_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    let mut connection = Connection::open(&path).unwrap();
    schema::prepare_as_of(&mut connection, 1).unwrap();
    let insert = "INSERT INTO rows (seq, id, state, timeout_at, created_at, tags, callbacks, listeners, task_state,
      task_version, task_resumes) VALUES (1, 'old', 'pending', 9, 1, '{}', '[]', '[]', 'halted', 3, '[]')";
    connection.execute(insert, ()).unwrap();
    drop(connection);
    let told = Sqlite::inspect(dir.path()).unwrap_err();
    assert!(matches!(told, Error::Older { found: 1, .. }), "it is only looked at: {told:?}");
    let found = opened(dir.path()).load().unwrap();
    let task = found.rows[0].1.task.clone().unwrap();
    assert_eq!((task.version, task.attempts, task.reason.as_deref()), (3, 0, Some("halted by request")));
    assert!(found.schedules.is_empty());
}

#[test]
fn what_can_leave_memory_is_loaded_as_its_place_only() {
    let dir = tempfile::tempdir().unwrap();
    let settled = |id: &str, settled_at: i64| {
        let promise = Promise::clone(&plain_row(id).promise);
        let promise = Promise { state: PromiseState::Resolved, settled_at: Some(Timestamp(settled_at)), ..promise };
        Row { promise: Arc::new(promise), ..plain_row(id) }
    };
    let awaited = Row { callbacks: texts(&["w"]), ..settled("awaited", 150) };
    let rows = [plain_row("live"), settled("b", 200), settled("a", 120), awaited.clone(), settled("inc/1", 110)];
    let numbered = rows.iter().enumerate().map(|(seq, row)| (seq as u64, Arc::new(row.clone())));
    let outbox = vec![(1, Message::Unblock { address: "poll://uni@g/1".into(), promise: rows[1].promise.clone() })];
    let batch = Batch { rows: numbered.collect(), outbox: outbox.clone(), ..Batch::default() };
    let mut store = opened(dir.path());
    store.commit(&batch).unwrap();
    let found = store.load().unwrap();
    assert!(found.rows.iter().all(|(_, row)| !row.can_leave_memory()), "the same rule as the machine's");
    let live: Vec<&str> = found.rows.iter().map(|(_, row)| row.id()).collect();
    assert_eq!(
        (live, &found.cold),
        (vec!["live", "awaited", "inc/1"], &vec![(1, "b".to_owned()), (2, "a".to_owned())])
    );
    assert_eq!((found.outbox, found.newest), (outbox, Some(Timestamp(200))));

    let reader = store.reader().unwrap();
    assert_eq!((reader.row(2).unwrap(), reader.row(9).unwrap()), (Some(rows[2].clone()), None));
    let page = |at: i64, after, limit| -> Vec<u64> {
        reader.settled_before(Timestamp(at), after, limit).unwrap().into_iter().map(|(seq, _)| seq).collect()
    };
    assert_eq!((page(200, None, 9), page(201, Some(1), 2)), (vec![2, 3, 4], vec![2, 3]));
    assert_eq!(reader.by_id("a", None, None, 3).unwrap(), [3, 1, 4]);
    assert_eq!(reader.by_id("", Some("pending"), None, 3).unwrap(), [0]);
    assert_eq!(reader.by_id("", None, Some("pending"), 3).unwrap(), Vec::<u64>::new());
}
