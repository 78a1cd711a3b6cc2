//! What concurrent clients of a live server see is what one client at a time could have seen: histories recorded over
//! HTTP from the real program, judged by a published checker of linearizability.
//!
//! `cargo xtask linearizable` records 200 histories, and 20 with a kill of the server in the middle.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up has failed")]
#![allow(clippy::print_stdout, reason = "counts are part of what these tests are for")]

#[path = "../support/mod.rs"]
mod support;

mod record;
mod spec;

use client::Client;
use record::{Events, Recorder, Time};
use rustix::process::Signal;
use spec::{Answer, Ask, Operation, Promise, Protocol, State, Task, Work};
use std::path::Path;
use support::{Random, Server, wait_for};
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use tokio::task::JoinSet;

/// Histories in short, and those with a kill.
const HISTORIES: u64 = 8;
const KILLED: u64 = 2;
/// Clients of one history, and what each asks.
const CLIENTS: usize = 6;
const REQUESTS: usize = 14;

#[expect(clippy::disallowed_methods, reason = "the long form of a test is asked for by its environment")]
fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

fn is_linearizable(events: Events) -> bool {
    WGLChecker::<Protocol>::is_linearizable(History::from_actions(events))
}

fn judge(events: Events, which: &str) {
    let told: Vec<String> = events
        .iter()
        .map(|(process, action)| match action {
            Action::Call(operation) => format!("{process} calls {:?}", operation.ask),
            Action::Response(Operation { from, until, answer, ask }) => {
                format!("{process} has {answer:?} to {ask:?} ({from} to {until})")
            }
        })
        .collect();
    assert!(is_linearizable(events), "{which} is not linearizable:\n{}", told.join("\n"));
}

/// Lets so many clients ask; those of `first` and after it.
fn clients(
    server: &Server,
    recorder: &std::sync::Arc<Recorder>,
    first: usize,
    requests: usize,
    seed: u64,
) -> JoinSet<bool> {
    let client = Client::new(&server.url).unwrap();
    let mut running = JoinSet::new();
    for process in first..first + CLIENTS {
        let random = Random(seed.wrapping_mul(1_000_003).wrapping_add(process as u64));
        running.spawn(recorder.clone().ask(client.clone(), process, requests, random));
    }
    running
}

fn serve(data: &Path) -> Server {
    Server::start(data, &["--no-executor"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_of_a_live_server_are_linearizable() {
    let (histories, seed) = (asked("HISTORIES", HISTORIES), asked("SEED", 1));
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path());
    let (mut operations, mut overlapping, mut refused) = (0, 0, 0);
    for number in 0..histories {
        let time = if number % 2 == 0 { Time::Stands } else { Time::Passes };
        let recorder = Recorder::new(format!("h{number}-"), time);
        let whole = clients(&server, &recorder, 0, REQUESTS, seed + number).join_all().await;
        assert!(whole.into_iter().all(|whole| whole), "the server was not always there");
        let events = recorder.events();
        assert_eq!(events.len(), 2 * CLIENTS * REQUESTS);
        operations += events.len() / 2;
        overlapping += overlaps(&events);
        refused += events.iter().filter(|(_, action)| is_refusal(action)).count();
        judge(events, &format!("history {number} of seed {seed}"));
    }
    server.end();
    println!(
        "{histories} histories of {} events; {operations} operations, {overlapping} of them called while another was under way, {refused} refused",
        2 * CLIENTS * REQUESTS
    );
    assert!(overlapping * 4 > operations, "clients hardly met: {overlapping} of {operations}");
    assert!(refused > 0 && refused * 2 < operations, "{refused} of {operations} were refused");
}

fn is_refusal(action: &Action<Operation>) -> bool {
    matches!(action, Action::Response(Operation { answer: Some(Answer::Refused(_)), .. }))
}

/// How many operations were called while another one was under way.
fn overlaps(events: &Events) -> usize {
    let (mut open, mut met) = (0_usize, 0);
    for (_, action) in events {
        match action {
            Action::Call(_) => {
                met += usize::from(open > 0);
                open += 1;
            }
            Action::Response(_) => open -= 1,
        }
    }
    met
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_across_a_kill_of_the_server_are_linearizable() {
    let (histories, seed) = (asked("KILLED", KILLED), asked("SEED", 1));
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(seed);
    let (mut open, mut operations) = (0, 0);
    let mut server = serve(dir.path());
    for number in 0..histories {
        let recorder = Recorder::new(format!("k{number}-"), Time::Stands);
        let running = clients(&server, &recorder, 0, usize::MAX, seed + number);
        let enough = 20 + random.below(40);
        let counted = recorder.clone();
        let reached = tokio::task::spawn_blocking(move || {
            wait_for("requests before the kill", || (counted.answered() >= enough).then_some(()));
        });
        reached.await.unwrap();
        let mut process = server.process;
        process.signal(Signal::KILL);
        assert_eq!(process.ended(), None, "it was ended by a signal");
        assert!(running.join_all().await.into_iter().all(|whole| !whole), "a client ended before the kill");
        server = serve(dir.path());
        // Clients of their own: what the others asked last stays open.
        let whole = clients(&server, &recorder, CLIENTS, REQUESTS, seed + number).join_all().await;
        assert!(whole.into_iter().all(|whole| whole), "the server was not always there");
        let events = recorder.events();
        let unknown = |action: &Action<Operation>| matches!(action, Action::Response(Operation { answer: None, .. }));
        open += events.iter().filter(|(_, action)| unknown(action)).count();
        operations += events.len() / 2;
        judge(events, &format!("history {number} of seed {seed}, with a kill"));
    }
    server.end();
    println!("{histories} kills; {operations} operations, {open} of them never answered");
    assert!(open as u64 >= histories, "nothing was under way at the kills");
}

/// One operation after the other: each is answered before the next is called.
fn one_by_one(operations: &[(Ask, Answer)]) -> Events {
    let mut events = Events::new();
    for (ask, answer) in operations {
        let operation = Operation { ask: ask.clone(), from: 0, until: 1_000, answer: Some(answer.clone()) };
        events.push((0, Action::Call(operation.clone())));
        events.push((0, Action::Response(operation)));
    }
    events
}

#[test]
fn a_broken_answer_is_rejected() {
    let pending = Promise { state: State::Pending, param: 1, value: None, deadline: 5_000 };
    let settled = Promise { state: State::Resolved, value: Some(2), ..pending };
    let create = Ask::Create { id: 2, mark: 1, deadline: 5_000, target: true };
    let settle = |mark| Ask::Settle { id: 2, way: State::Resolved, mark };
    let get = Ask::Get { id: 2 };
    let acquire = |pid| Ask::Acquire { id: 2, version: 0, pid, ttl: 9_000 };
    let taken = |pid| Answer::Acquired(Task { state: Work::Acquired, version: 1, pid: Some(pid) }, pending);
    let created = (create, Answer::Promise(pending));
    let good = [
        created.clone(),
        (acquire(1), taken(1)),
        (settle(2), Answer::Promise(settled)),
        (get.clone(), Answer::Promise(settled)),
    ];
    assert!(is_linearizable(one_by_one(&good)));
    let lost = Promise { value: Some(3), ..settled };
    let wrong: [&[(Ask, Answer)]; 6] = [
        // A settlement that was answered and is gone again.
        &[created.clone(), (settle(2), Answer::Promise(settled)), (get.clone(), Answer::Promise(pending))],
        // The second settlement wins.
        &[created.clone(), (settle(2), Answer::Promise(settled)), (settle(3), Answer::Promise(lost))],
        // Two workers hold one task at one version.
        &[created.clone(), (acquire(1), taken(1)), (acquire(2), taken(2))],
        // A creation that was answered and is not there.
        &[created.clone(), (get.clone(), Answer::Refused(404))],
        // A fence at a version that is not held.
        &[
            created.clone(),
            (
                Ask::Fence { id: 2, version: 1, action: Box::new(settle(2)) },
                Answer::Fenced(Box::new(Answer::Promise(settled))),
            ),
        ],
        // A deadline that has not come.
        &[created, (get, Answer::Promise(Promise { state: State::TimedOut, ..pending }))],
    ];
    for (number, wrong) in wrong.into_iter().enumerate() {
        assert!(!is_linearizable(one_by_one(wrong)), "history {number} was accepted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_altered_answer_in_a_recorded_history_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path());
    let recorder = Recorder::new("a-".to_owned(), Time::Stands);
    clients(&server, &recorder, 0, REQUESTS, 7).join_all().await;
    server.end();
    let events = recorder.events();
    judge(events.clone(), "the history as it was recorded");
    let mut altered = 0;
    for at in 0..events.len() {
        let mut events = events.clone();
        let Some((_, Action::Response(operation))) = events.get_mut(at) else { continue };
        let answer = match operation.answer.clone() {
            // A value that nobody ever wrote, and a version that nobody was ever given.
            Some(Answer::Promise(promise)) => Answer::Promise(Promise { param: 999_999, ..promise }),
            Some(Answer::Task(task)) => Answer::Task(Task { version: task.version + 1_000, ..task }),
            Some(Answer::Acquired(task, promise)) => Answer::Acquired(task, Promise { param: 999_999, ..promise }),
            _ => continue,
        };
        operation.answer = Some(answer);
        assert!(!is_linearizable(events), "event {at} was altered and not found");
        altered += 1;
    }
    assert!(altered >= 10, "only {altered} answers could be altered");
}
