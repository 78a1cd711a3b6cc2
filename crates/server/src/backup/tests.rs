use super::*;
use crate::engine::{self, Engine, Entry, Env};
use crate::fixture::{Fixture, START};
use crate::limits::Traffic;
use base::Timestamp;
use protocol::{Create, Request, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use store::{Batch, Store as _};
use tokio_util::sync::CancellationToken;

fn create(number: u64) -> Request {
    let (timeout_at, param) = (Timestamp(9_000_000_000_000), Value::text("x".repeat(500)));
    Request::PromiseCreate(Create { id: format!("p{number:06}"), timeout_at, param, tags: BTreeMap::new() })
}

async fn write(engine: &Engine, number: u64) {
    let bytes = format!("record {number}").into_bytes();
    let entry = Entry { incident: Some("i".to_owned()), seq: Some(number), bytes };
    engine.submit(vec![create(number)], vec![entry], Vec::new(), Vec::new()).await.unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).map(|entries| entries.flatten().collect()).unwrap_or_else(|_| Vec::new());
    let mut names: Vec<_> = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn open(data: &Path) -> Engine {
    Engine::open(data, engine::Config::default(), Env::manual(START)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_backup_is_in_it() {
    let Fixture { app, dir } = Fixture::new();
    let engine = app.engine.clone();
    let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writing = {
        let (engine, acknowledged, stop) = (engine.clone(), acknowledged.clone(), stop.clone());
        tokio::spawn(async move {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                write(&engine, number).await;
                acknowledged.store(number + 1, Ordering::Release);
            }
        })
    };
    crate::engine::tests::until("writes", || acknowledged.load(Ordering::Acquire) > 100).await;
    for round in 0..5 {
        let to = dir.path().join(format!("backup{round}"));
        let before = acknowledged.load(Ordering::Acquire);
        let (data, file) = (dir.path().to_owned(), to.clone());
        let held = tokio::task::spawn_blocking(move || backup(&data, &file, false)).await.unwrap().unwrap();
        let after = acknowledged.load(Ordering::Acquire);
        assert!(before <= held.promises && held.promises <= after + 1, "{before} {held:?} {after}");
        assert!(held.log_entries >= before && !held.keys);
        let restored = dir.path().join(format!("restored{round}"));
        assert_eq!(restore(&to, &restored).unwrap(), held);
        let again = open(&restored);
        for number in 0..before {
            let found = again.promise(&format!("p{number:06}")).map(|promise| promise.param.clone());
            assert_eq!(found, engine.promise(&format!("p{number:06}")).map(|promise| promise.param.clone()));
            assert!(found.is_some(), "{number} was acknowledged");
        }
        assert_eq!(again.entries(0..before).unwrap(), engine.entries(0..before).unwrap());
        assert_eq!(names(&restored), ["lock", "stanch.db", "stanch.db-shm", "stanch.db-wal"]);
    }
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    assert!(!names(dir.path()).iter().any(|name| name.ends_with(".part")), "{:?}", names(dir.path()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_its_keys_comes_back_as_itself() {
    let Fixture { app, dir } = Fixture::new();
    write(&app.engine, 0).await;
    let (to, data) = (dir.path().join("secret"), dir.path().join("restored"));
    let held = backup(dir.path(), &to, true).unwrap();
    assert!(held.keys);
    let mode = |path: &Path| std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions());
    assert_eq!(mode(&to) & 0o777, 0o600);
    assert!(restore(&to, &data).unwrap().keys);
    let (old, new) = (crate::keys::load(dir.path()).unwrap(), crate::keys::load(&data).unwrap());
    assert_eq!((new.origin, new.keyring_envelope), (old.origin, old.keyring_envelope));
    for name in ["keys/root.pem", "keys/executor.pem", "trust.keys", "policy.toml", "keyring.json"] {
        let read = |dir: &Path| std::fs::read(dir.join(name)).unwrap();
        assert!(read(&data) == read(dir.path()), "{name}");
    }
    assert_eq!(mode(&data.join("keys/root.pem")) & 0o777, 0o600);
    // The database of the restored server carries no key.
    let root = std::fs::read(data.join("keys/root.pem")).unwrap();
    let database = std::fs::read(data.join("stanch.db")).unwrap();
    assert!(!database.windows(root.len()).any(|window| window == root));
    assert!(!crate::keys::init(&data).unwrap().made, "it has keys");
}

/// A data directory with one promise and one record, and what changes it by hand.
fn planted(dir: &Path, batch: impl FnOnce(&store::Contents) -> Batch) {
    let mut store = Sqlite::open(&Directory::take(dir).unwrap()).unwrap();
    let contents = store.load().unwrap();
    store.commit(&batch(&contents)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unsound_store_gives_no_backup_and_the_doctor_names_what_is_wrong() {
    let fixture = Fixture::new();
    write(&fixture.app.engine, 0).await;
    let Fixture { app, dir } = fixture;
    let sound = Examined { violations: Vec::new(), log_entries: 1, is_in_use: true };
    assert_eq!(examine(dir.path()).unwrap(), sound, "beside a running server");
    drop(app);
    planted(dir.path(), |contents| {
        let (seq, row) = contents.rows.first().unwrap();
        // Settled after its deadline, and a record that is not what its leaf says.
        let mut promise = (*row.promise).clone();
        promise.state = protocol::PromiseState::Resolved;
        promise.settled_at = Some(Timestamp(promise.timeout_at.0 + 5));
        let row = protocol::Row { promise: Arc::new(promise), ..row.clone() };
        let (leaf, bytes) = (Digest::of(b"another"), Arc::from(&b"one"[..]));
        let entries = vec![store::StoredEntry { index: 1, incident: None, seq: None, leaf, bytes }];
        Batch { rows: vec![(*seq, Arc::new(row))], entries, ..Batch::default() }
    });
    // No server keeps such a row in memory: it starts, and does not know.
    drop(open(dir.path()));
    let found = examine(dir.path()).unwrap();
    assert!((found.log_entries, found.is_in_use) == (2, false), "{found:?}");
    let names_it = |named: &str| found.violations.iter().any(|found| found.starts_with(named));
    assert!(names_it("promise_times") && names_it("evidence_altered: record 1 of the log"), "{found:?}");
    let held = Directory::take(dir.path()).unwrap();
    assert_eq!(examine(dir.path()).unwrap(), Examined { is_in_use: true, ..found }, "the same beside who has it");
    drop(held);
    let to = dir.path().join("backup");
    let refused = backup(dir.path(), &to, false).unwrap_err();
    assert!(matches!(refused, BackupError::Unsound { .. }), "{refused:?}");
    assert!(!names(dir.path()).iter().any(|name| name.starts_with("backup")), "{:?}", names(dir.path()));
}

#[test]
fn what_cannot_be_restored_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (data, good) = (dir.path().join("data"), dir.path().join("good"));
    drop(Sqlite::open(&Directory::take(&data).unwrap()).unwrap());
    backup(&data, &good, false).unwrap();
    assert!(matches!(backup(&data, &good, false), Err(BackupError::Exists(_))));
    assert!(matches!(backup(dir.path(), &dir.path().join("x"), false), Err(BackupError::Missing(_))));
    let full = dir.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("something"), "").unwrap();
    assert!(matches!(restore(&good, &full), Err(BackupError::NotEmpty { .. })));
    assert_eq!(names(&full), ["something"]);
    let (bad, new) = (dir.path().join("bad"), dir.path().join("new"));
    let whole = std::fs::read(&good).unwrap();
    for bytes in [&whole[..whole.len() - 4_096], b"no backup", &std::fs::read(data.join("stanch.db")).unwrap()] {
        std::fs::write(&bad, bytes).unwrap();
        assert!(restore(&bad, &new).is_err());
        assert!(!new.exists() || names(&new).is_empty(), "{:?}", names(&new));
    }
    // Carried files that are no keys: found out only when they are put back.
    let carried = vec![("keys/root.pem".to_owned(), b"no key".to_vec()), ("../escape".to_owned(), b"out".to_vec())];
    let strange = dir.path().join("strange");
    Sqlite::copy(&data, &strange, &carried).unwrap();
    assert!(matches!(restore(&strange, &new), Err(BackupError::Keys(_))));
    assert_eq!(names(&new), Vec::<String>::new());
    assert!(!dir.path().join("escape").exists());
    assert!(restore(&good, &new).is_ok());
}

#[test]
fn half_a_file_of_an_earlier_try_is_overwritten_and_one_in_use_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("backup"));
    drop(Sqlite::open(&Directory::take(&data).unwrap()).unwrap());
    let part = Part::begin(&to).unwrap();
    assert!(matches!(backup(&data, &to, false), Err(BackupError::InUse(_))));
    drop(part);
    std::fs::write(dir.path().join("backup.part"), vec![7; 100_000]).unwrap();
    let held = backup(&data, &to, false).unwrap();
    assert_eq!((held.promises, names(dir.path())), (0, vec!["backup".to_owned(), "data".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_server_sends_its_backup() {
    let fixture = Fixture::new();
    for number in 0..50 {
        write(&fixture.app.engine, number).await;
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let traffic: Traffic = fixture.app.traffic.clone();
    let stop = CancellationToken::new();
    let served = tokio::spawn(crate::listen::serve(listener, routes(fixture.app.clone()), traffic, stop.clone()));
    let to = fixture.dir.path().join("fetched");
    let held = fetch(&url, &to).await.unwrap();
    assert_eq!((held.promises, held.log_entries, held.keys), (50, 50, false));
    assert_eq!(verify(&to).unwrap(), held);
    assert!(!names(fixture.dir.path()).contains(&"backup.copy".to_owned()));
    stop.cancel();
    served.await.unwrap();
    let gone = fetch(&url, &fixture.dir.path().join("more")).await.unwrap_err();
    assert!(matches!(gone, FetchError::Server { .. }), "{gone:?}");
    assert!(!names(fixture.dir.path()).iter().any(|name| name.starts_with("more")));
}
