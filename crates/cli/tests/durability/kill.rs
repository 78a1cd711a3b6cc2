//! SIGKILL of the server under load at random instants, again and again on one data directory.

use crate::load::{Tally, Writer, rows, seen, stored};
use crate::support::{Random, Server, stanch};
use client::Client;
use rustix::process::Signal;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How many clients write at a time.
const WRITERS: u64 = 16;
/// The short form; `cargo xtask kill-server` asks for more.
const KILLS: u64 = 6;
/// At most so many acknowledged writes before the next kill.
const WRITES_MAX: u64 = 2_000;

#[expect(clippy::disallowed_methods, reason = "the long form of a test is asked for by its environment")]
pub(crate) fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// Starts the server and measures how long it takes to say that it answers.
#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn start(data: &Path) -> (Server, Duration) {
    let began = Instant::now();
    let server = Server::start(data, &["--no-executor"]);
    (server, began.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_survives_sigkill_at_any_instant() {
    let (kills, seed) = (asked("KILLS", KILLS), asked("SEED", 1));
    println!("seed {seed}; the same kills again: cargo xtask kill-server --kills {kills} --seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(seed);
    let tally = Arc::new(Tally::default());
    let mut writers: Vec<Writer> = (0..WRITERS).map(|name| Writer::new(format!("w{name}"))).collect();
    let mut ready = Vec::new();
    for kill in 0..kills {
        let (server, took) = start(dir.path());
        ready.push(took);
        let client = Client::new(&server.url).unwrap();
        check(&client, &mut writers, kill, &|| 0).await;
        let mut running = load(&client, writers, &tally);
        tokio::select! {
            () = tally.reach(1 + random.below(WRITES_MAX)) => {}
            early = running.join_next() => panic!("a writer ended before the kill: {}", early.unwrap().unwrap_err()),
        }
        // Not only right after an answer: somewhere between two of them.
        tokio::time::sleep(Duration::from_micros(random.below(3_000))).await;
        let mut process = server.process;
        process.signal(Signal::KILL);
        assert_eq!(process.ended(), None, "it was ended by a signal");
        writers = running.join_all().await;
        if kill % 25 == 24 {
            println!("{} kills, {} writes acknowledged, ready in {took:?}", kill + 1, tally.acknowledged());
        }
    }
    let doctor = stanch(&["doctor", "--json", "--data", dir.path().to_str().unwrap()]);
    assert_eq!(doctor.exit, 0, "{doctor:?}");
    let (server, took) = start(dir.path());
    ready.push(took);
    check(&Client::new(&server.url).unwrap(), &mut writers, kills, &|| 0).await;
    server.end();
    every_row(dir.path(), &writers);
    report(&writers, &tally, kills, ready);
}

/// Lets every writer write until the server is gone.
fn load(client: &Client, writers: Vec<Writer>, tally: &Arc<Tally>) -> JoinSet<Writer> {
    let mut running = JoinSet::new();
    for mut writer in writers {
        let (client, tally) = (client.clone(), Arc::clone(tally));
        running.spawn(async move {
            let refused = writer.write(&client, &tally, &|| 0).await;
            assert_eq!(refused, None, "{:?}", writer.open);
            writer
        });
    }
    running
}

/// Over the wire: what each writer last wrote before the kill is as it was acknowledged.
pub(crate) async fn check(client: &Client, writers: &mut [Writer], kill: u64, clock: &(dyn Fn() -> u64 + Sync)) {
    for writer in writers {
        let Writer { open, finished, .. } = writer;
        let recent = finished.len().saturating_sub(40);
        for job in finished[recent..].iter_mut().chain(open.iter_mut()) {
            let found = seen(client, job).await;
            job.settle_doubt(&found, clock()).unwrap_or_else(|lost| panic!("after kill {kill}: {lost}"));
        }
        // The doubt about its last step is settled: it may turn out to be finished.
        finished.extend(open.extract_if(.., |job| job.is_finished()));
    }
}

/// In the file itself: every job that any writer ever had is as it was acknowledged, and nothing else is there.
fn every_row(data: &Path, writers: &[Writer]) {
    let rows = rows(data);
    let mut expected = 0;
    for job in writers.iter().flat_map(Writer::jobs) {
        let found = stored(&rows, job);
        expected += usize::from(found.promise.is_some()) + usize::from(found.child.is_some());
        job.compare(&found).unwrap();
    }
    assert_eq!(rows.len(), expected, "rows that no writer knows of");
}

fn report(writers: &[Writer], tally: &Tally, kills: u64, mut ready: Vec<Duration>) {
    let jobs: usize = writers.iter().map(|writer| writer.jobs().count()).sum();
    let steps: usize = writers.iter().flat_map(Writer::jobs).map(|job| job.acknowledged()).sum();
    let last = ready.last().copied().unwrap_or_default();
    ready.sort();
    let at = |percent: usize| ready[(ready.len() - 1) * percent / 100];
    println!("{kills} kills; {} writes acknowledged, {steps} found in {jobs} promises, 0 lost", tally.acknowledged());
    println!(
        "ready again in: p50 {:?}, p99 {:?}, max {:?}; with everything in the store {last:?}",
        at(50),
        at(99),
        at(100)
    );
    assert!(steps as u64 >= tally.acknowledged() && tally.acknowledged() > kills);
}
