//! `stanch doctor` names a fault that was planted by hand in a copy of a sound store, for each of the thirteen
//! invariants of the protocol's text.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use base::{Millis, Timestamp};
use protocol::wire::{parse_response, render_request};
use protocol::{Callback, Create, EXTERNAL, Invariant, Request, Resolution, Settle, TARGET, Value};
use server::engine::{Config, Engine, Env};
use std::path::Path;
use store::testkit::{FAULTS, IDS};
use support::{Ran, stanch};

/// Beyond every test.
const FAR: Timestamp = Timestamp(9_000_000_000_000);
const LEASE: Millis = Millis(86_400_000);

fn create(id: &str, tags: &[(&str, &str)], timeout_at: Timestamp) -> Request {
    let tags = tags.iter().map(|(name, tag)| ((*name).to_owned(), (*tag).to_owned())).collect();
    Request::PromiseCreate(Create { id: id.to_owned(), timeout_at, param: Value::text("in"), tags })
}

fn settle(id: &str) -> Settle {
    Settle { id: id.to_owned(), state: Resolution::Resolved, value: Value::text("out") }
}

fn acquire(id: &str) -> Request {
    Request::TaskAcquire { id: id.to_owned(), version: 0, pid: "p".to_owned(), ttl: LEASE }
}

/// Promises and tasks in every state, made by the engine as its clients would.
fn requests() -> Vec<Request> {
    let target = [(TARGET, "poll://any@g")];
    let [plain, settled, timedout, offered, acquired, suspended, awaited, fulfilled] = IDS;
    let waits = Callback { awaited: awaited.to_owned(), awaiter: suspended.to_owned() };
    vec![
        create(plain, &[], FAR),
        create(settled, &[(EXTERNAL, "true")], FAR),
        Request::RegisterListener { awaited: settled.to_owned(), address: "poll://uni@g/p".to_owned() },
        Request::PromiseSettle(settle(settled)),
        create(timedout, &[], Timestamp(1)),
        create(offered, &target, FAR),
        create(acquired, &target, FAR),
        acquire(acquired),
        create(suspended, &target, FAR),
        create(awaited, &[(EXTERNAL, "true")], FAR),
        acquire(suspended),
        Request::TaskSuspend { id: suspended.to_owned(), version: 1, actions: vec![waits] },
        create(fulfilled, &target, FAR),
        acquire(fulfilled),
        Request::TaskFulfill { id: fulfilled.to_owned(), version: 1, action: settle(fulfilled) },
        create("halted", &target, FAR),
        Request::TaskHalt { id: "halted".to_owned() },
    ]
}

async fn make(data: &Path) {
    let engine = Engine::open(data, Config::default(), Env::real()).unwrap();
    for request in requests() {
        let (status, bytes) = engine.wire(&render_request("1", &request)).await;
        assert_eq!(status, 200, "{request:?}: {:?}", parse_response(&bytes));
    }
    engine.flush().await.unwrap();
}

/// A copy of the database alone: what one has in hand of a store that somebody sent.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let name = entry.file_name();
        if name.to_str().unwrap().starts_with("stanch.db") {
            std::fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

fn doctor(data: &Path, more: &[&str]) -> Ran {
    stanch(&[&["doctor", "--data", data.to_str().unwrap()], more].concat())
}

#[tokio::test]
async fn doctor_names_a_planted_fault_for_each_of_the_thirteen_invariants() {
    let sound = tempfile::tempdir().unwrap();
    make(sound.path()).await;
    let copied = tempfile::tempdir().unwrap();
    copy(sound.path(), copied.path());
    let found = doctor(copied.path(), &[]);
    assert_eq!(found.exit, 0, "the store is sound before anything is planted: {found:?}");

    let text: Vec<&str> = Invariant::ALL.iter().take(13).map(|invariant| invariant.name()).collect();
    let planted: Vec<&str> = FAULTS.iter().map(|fault| fault.invariant).collect();
    assert_eq!(planted, text, "one fault for each invariant of the text");
    for fault in FAULTS {
        let damaged = tempfile::tempdir().unwrap();
        copy(sound.path(), damaged.path());
        fault.plant(damaged.path()).unwrap();
        let named = format!("{}: `{}`", fault.invariant, fault.id);
        let found = doctor(damaged.path(), &[]);
        assert!(found.exit == 3 && found.out.contains(&format!("VIOLATED {named}\n")), "{named}: {found:?}");
        let found = doctor(damaged.path(), &["--json"]);
        let violations = found.json()["violations"].clone();
        let is_named = violations.as_array().unwrap().iter().any(|violation| violation == named.as_str());
        assert!(found.exit == 3 && is_named, "{named}: {found:?}");
    }
}
