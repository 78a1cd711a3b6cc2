use super::*;

fn entry(key: &str, outcome: Outcome) -> Entry {
    Entry {
        seq: 0,
        at_ms: 0,
        key: key.into(),
        fence: Fence { epoch: 1, version: 1 },
        action: "Restart".into(),
        outcome,
        before: State::new(),
        after: State::new(),
        wanted: State::new(),
        versions: Versions::new(),
        native_id: None,
        took_ms: 0,
    }
}

fn owners(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// With patience: a process that another test has just forked holds a copy of every lock until it executes.
async fn lock(dir: &Path, names: &[&str]) -> Result<Books, Error> {
    Books::lock(dir, &owners(names), clock::now().plus(base::Millis(20_000))).await
}

#[tokio::test]
async fn the_last_word_on_a_key_counts_but_a_refusal_is_none() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut books = lock(dir.path(), &["a", "b"]).await.expect("locked");
    for (outcome, known) in [
        (Outcome::Refused, "No"),
        (Outcome::Begun, "Begun"),
        (Outcome::Fenced, "Begun"),
        (Outcome::Absent, "No"),
        (Outcome::Begun, "Begun"),
        (Outcome::Applied, "Applied"),
        (Outcome::Fenced, "Applied"),
    ] {
        books.note(&entry("k/s1", outcome)).expect("noted");
        assert!(format!("{:?}", books.known("k/s1")).starts_with(known), "{outcome:?}");
        assert!(matches!(books.known("k/s2"), Known::No));
    }
    drop(books);
    let books = lock(dir.path(), &["a", "b"]).await.expect("locked again");
    assert!(matches!(books.known("k/s1"), Known::Applied(_)));
    let numbers: Vec<u64> = read(dir.path(), "b").expect("read").iter().map(|entry| entry.seq).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn a_torn_line_is_left_out_and_does_not_spoil_the_next() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut books = lock(dir.path(), &["a"]).await.expect("locked");
    books.note(&entry("k/s1", Outcome::Begun)).expect("noted");
    let path = dir.path().join("ledger/a/ledger.jsonl");
    let mut text = std::fs::read(&path).expect("ledger");
    let whole = text.clone();
    text.extend_from_slice(&whole[..whole.len() / 2]);
    std::fs::write(&path, text).expect("torn");
    drop(books);
    let mut books = lock(dir.path(), &["a"]).await.expect("locked");
    books.note(&entry("k/s1", Outcome::Applied)).expect("noted");
    let outcomes: Vec<Outcome> = read(dir.path(), "a").expect("read").iter().map(|entry| entry.outcome).collect();
    assert_eq!(outcomes, [Outcome::Begun, Outcome::Applied]);
}

#[tokio::test]
async fn fences_survive_and_a_damaged_one_stops_everything() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let high = Fence { epoch: 7, version: 3 };
    let mut books = lock(dir.path(), &["a"]).await.expect("locked");
    books.raise(high).expect("raised");
    books.raise(Fence { epoch: 7, version: 2 }).expect("kept");
    drop(books);
    // The highest of all ledgers a call touches counts.
    let books = lock(dir.path(), &["a", "b"]).await.expect("locked");
    assert_eq!(books.fence(), high);
    drop(books);
    std::fs::write(dir.path().join("ledger/a/fence"), "7").expect("damaged");
    assert_eq!(lock(dir.path(), &["a"]).await.map(|_| ()), Err(Error::Unavailable));
}

#[tokio::test]
async fn a_lock_is_held_by_one_until_it_lets_go() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let first = lock(dir.path(), &["a"]).await.expect("locked");
    let at_once = Books::lock(dir.path(), &owners(&["a"]), clock::now()).await;
    assert_eq!(at_once.map(|_| ()), Err(Error::TimedOut));
    assert!(lock(dir.path(), &["b"]).await.is_ok());
    drop(first);
    assert!(lock(dir.path(), &["a"]).await.is_ok());
}
