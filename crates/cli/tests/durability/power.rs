//! Loss of power at every instant: what a recorded server wrote and synced is cut off at each place, and opened again.

use crate::disk::{Disk, LOSSES, Loss, Operation, Recorder, lay_out, scratch};
use crate::full::ready_again;
use crate::kill::asked;
use crate::load::{Job, Tally, Writer, stored};
use crate::support::{Random, Server};
use base::Digest;
use client::Client;
use rustix::io::Errno;
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use store::{Directory, Sqlite};
use tokio::task::JoinSet;

const WRITERS: u64 = 4;
/// Acknowledged writes in the recorded run.
const WRITES: u64 = 60;
/// The short form tries so many instants; `cargo xtask power-loss` tries all.
const INSTANTS: u64 = 60;

fn start(recorder: &Recorder) -> Server {
    recorder.mend();
    Server::start_with(&recorder.data(), &["--no-executor"], &recorder.environment())
}

/// Writes until so many answers have come, then kills the server; the writers know where each answer stands in the log.
async fn record(recorder: &Arc<Recorder>, server: Server, writers: Vec<Writer>, writes: u64) -> Vec<Writer> {
    let (client, tally) = (Client::new(&server.url).unwrap(), Arc::new(Tally::default()));
    let mut running = JoinSet::new();
    for mut writer in writers {
        let (client, tally, recorder) = (client.clone(), Arc::clone(&tally), Arc::clone(recorder));
        running.spawn(async move {
            let refused = writer.write(&client, &tally, &|| recorder.position()).await;
            (writer, refused)
        });
    }
    tokio::select! {
        () = tally.reach(writes) => {}
        early = running.join_next() => panic!("a writer ended before its time: {early:?}"),
    }
    let mut process = server.process;
    process.signal(Signal::KILL);
    assert_eq!(process.ended(), None);
    let ended = running.join_all().await;
    assert!(ended.iter().all(|(_, refused)| refused.is_none()), "{ended:?}");
    ended.into_iter().map(|(writer, _)| writer).collect()
}

/// What is in the store of a directory once it was opened as the server opens it.
fn opened(dir: &Path) -> Result<store::Contents, store::Error> {
    Sqlite::open(&Directory::take(dir)?)?.load_all()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_of_power_at_any_instant_takes_nothing_that_was_acknowledged_and_leaves_no_half() {
    let (instants, seed) = (asked("INSTANTS", INSTANTS), asked("SEED", 1));
    println!("seed {seed}; the same losses again: cargo xtask power-loss --instants {instants} --seed {seed}");
    let recorder = Arc::new(Recorder::build());
    let writers = (0..WRITERS).map(|name| Writer::new(format!("w{name}"))).collect();
    // Two lives: the second one starts on the log that the first one left.
    let writers = record(&recorder, start(&recorder), writers, WRITES / 2).await;
    let server = start(&recorder);
    let mut writers = writers;
    crate::kill::check(&Client::new(&server.url).unwrap(), &mut writers, 1, &|| recorder.position()).await;
    let writers = record(&recorder, server, writers, WRITES / 2).await;
    let jobs: Vec<&Job> = writers.iter().flat_map(Writer::jobs).collect();

    let operations = recorder.operations();
    let legal = legal_states(&operations);
    let (mut disk, mut random, mut tried, mut seen) = (Disk::default(), Random(seed), 0_u64, BTreeSet::new());
    let every = (operations.len() as u64 / instants.max(1)).max(1);
    for (number, (position, operation)) in operations.iter().enumerate() {
        disk.apply(operation);
        if random.below(every) != 0 && number + 1 != operations.len() {
            continue;
        }
        for loss in LOSSES {
            let files = disk.after(loss, &mut random);
            if seen.insert(digest(&files)) {
                let found = survives(&files, &jobs, *position, &legal);
                found.unwrap_or_else(|why| panic!("operation {number}, {} ({loss:?} lost): {why}", operation.name()));
                tried += 1;
            }
        }
    }
    let syncs = operations.iter().filter(|(_, operation)| matches!(operation, Operation::Sync(_))).count();
    println!(
        "{} operations with {syncs} syncs and {} commits recorded; {tried} different disks after a loss of power, \
              0 acknowledged writes lost, 0 transactions torn",
        operations.len(),
        legal.len()
    );
    assert!(tried > 100 && legal.len() as u64 > WRITES / WRITERS / 2);
}

fn digest(files: &BTreeMap<String, Vec<u8>>) -> Digest {
    Digest::of(format!("{files:?}").as_bytes())
}

fn fingerprint(contents: &store::Contents) -> Digest {
    Digest::of(format!("{contents:?}").as_bytes())
}

/// What the store held after each sync of one of its files, and with the last transaction whose sync the kill came
/// before: the only states that may ever be found.
fn legal_states(operations: &[(u64, Operation)]) -> BTreeSet<Digest> {
    let (mut disk, mut legal) = (Disk::default(), BTreeSet::new());
    for (number, (_, operation)) in operations.iter().enumerate() {
        disk.apply(operation);
        let is_sync = matches!(operation, Operation::Sync(path) if path.starts_with("stanch.db"));
        if is_sync || number + 1 == operations.len() {
            let dir = scratch();
            lay_out(&disk.after(Loss::Nothing, &mut Random(0)), dir.path());
            legal.insert(fingerprint(&opened(dir.path()).unwrap()));
        }
    }
    legal
}

/// Opens what is left, and compares it with what had been acknowledged by then.
fn survives(
    files: &BTreeMap<String, Vec<u8>>,
    jobs: &[&Job],
    position: u64,
    legal: &BTreeSet<Digest>,
) -> Result<(), String> {
    let dir = scratch();
    lay_out(files, dir.path());
    let contents = opened(dir.path()).map_err(|error| format!("the store does not open: {error}"))?;
    if !legal.contains(&fingerprint(&contents)) && !is_blank(&contents) {
        return Err("a state that was never committed".to_owned());
    }
    acknowledged_is_there(&contents, jobs, position)?;
    // The keys were made before anything was acknowledged: a set that signs, or none yet.
    server::keys::init(dir.path()).and_then(|_| server::keys::load(dir.path()).map(drop)).map_err(|e| e.to_string())
}

fn is_blank(contents: &store::Contents) -> bool {
    contents.rows.is_empty() && contents.entries.is_empty() && contents.meta.is_empty()
}

fn acknowledged_is_there(contents: &store::Contents, jobs: &[&Job], position: u64) -> Result<(), String> {
    let rows = contents.rows.iter().map(|(_, row)| (row.id().to_owned(), row.clone())).collect();
    for job in jobs {
        job.at(position).compare(&stored(&rows, job))?;
    }
    let outbox = contents.outbox.iter().map(|(_, message)| message.clone());
    let memory = protocol::Memory::load(rows.into_values(), outbox, contents.schedules.clone());
    let violations = protocol::check(&memory);
    if violations.is_empty() { Ok(()) } else { Err(format!("{violations:?}")) }
}

/// A failed sync loses what was written, whatever reads still show; a server that is restarted then must not build
/// what it acknowledges on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_after_a_failed_sync_and_a_restart_survives_a_loss_of_power() {
    let recorder = Arc::new(Recorder::build());
    let writers = (0..WRITERS).map(|name| Writer::new(format!("w{name}"))).collect();
    let mut writers = record(&recorder, start(&recorder), writers, WRITES / 2).await;
    for round in 0..3 {
        let server = start(&recorder);
        let client = Client::new(&server.url).unwrap();
        crate::kill::check(&client, &mut writers, round, &|| recorder.position()).await;
        recorder.fail("sync", Errno::IO, 0);
        let refused = writers[0].write(&client, &Tally::default(), &|| recorder.position()).await;
        assert_eq!(refused.map(|(status, _)| status), Some(503), "no false success");
        let server = if round == 1 {
            // Nobody restarts it: it goes on by itself.
            recorder.heal();
            ready_again(&server).await;
            server
        } else {
            let mut process = server.process;
            process.signal(Signal::KILL);
            assert_eq!(process.ended(), None);
            recorder.heal();
            start(&recorder)
        };
        crate::kill::check(&Client::new(&server.url).unwrap(), &mut writers, round, &|| recorder.position()).await;
        writers = record(&recorder, server, writers, WRITES / 4).await;
    }
    let operations = recorder.operations();
    let (mut disk, mut failed, mut tried) = (Disk::default(), 0, 0);
    let jobs: Vec<&Job> = writers.iter().flat_map(Writer::jobs).collect();
    for (position, operation) in &operations {
        disk.apply(operation);
        failed += u64::from(matches!(operation, Operation::FailedSync(_)));
        if matches!(operation, Operation::Sync(_)) && failed > 0 {
            let dir = scratch();
            lay_out(&disk.after(Loss::Everything, &mut Random(0)), dir.path());
            acknowledged_is_there(&opened(dir.path()).unwrap(), &jobs, *position).unwrap();
            tried += 1;
        }
    }
    println!("{failed} syncs failed; {tried} losses of power after them, 0 acknowledged writes lost");
    assert!(failed >= 3 && tried > 10);
}

/// A process that is killed while it records leaves half a record, and the next one would record behind it.
#[test]
fn half_a_record_at_the_end_is_taken_away() {
    let recorder = Recorder::build();
    let start = || Server::start_with(&recorder.data(), &["--no-executor"], &recorder.environment());
    start().end();
    let whole = recorder.operations();
    let end = whole.last().unwrap().0;
    for half in [1, 24, 25, 40] {
        let mut log = std::fs::File::options().append(true).open(recorder.log()).unwrap();
        let name = 40_u32.to_ne_bytes();
        let torn = [&b"C"[..], &name, &[0; 20], b"a name that is longer"].concat();
        std::io::Write::write_all(&mut log, &torn[..half]).unwrap();
        recorder.mend();
        assert_eq!((recorder.position(), recorder.operations().len()), (end, whole.len()));
    }
    start().end();
    assert!(recorder.operations().len() > whole.len());
}
