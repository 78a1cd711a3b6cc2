//! Random walks, the store closed and opened again in between. `WALKS=1 SEED=n cargo test -p stanch-server --test model
//! walks` walks one again.

use crate::{Server, asked, expected, perform};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config as Runs, RngSeed, TestRunner};
use protocol::testkit::{Choice, Place, World, config};
use protocol::{Profile, Row, Schedule, Task, View as _};
use server::engine::Keep;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use store::Sqlite;

/// Steps of one walk.
const STEPS: usize = 300;
/// Walks in each profile, in short.
const WALKS: u64 = 3;
/// Settled promises in memory, where they leave it.
const FEW: usize = 2;
/// From so many on everything is reached.
const LONG: u64 = 50;
/// One step of so many closes the store and opens it again, about.
const REOPENED: u8 = 25;

/// One walk on a store of its own; how often it was opened anew.
async fn walk(profile: Profile, keep: Keep, choices: &[(Choice, u8)], seen: &mut BTreeMap<String, u32>) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(config(profile), Place::Wire);
    let mut server = Server { keep, ..Server::of(dir.path(), world.config.clone()) };
    server.open(world.now).await;
    let mut reopened = 0;
    for deed in world.preparation() {
        perform(&mut world, &server, &deed).await;
    }
    for (choice, close) in choices {
        for deed in world.begin(choice) {
            perform(&mut world, &server, &deed).await;
        }
        let deed = world.decide(choice);
        perform(&mut world, &server, &deed).await;
        if close % REOPENED == 0 {
            server.open(world.now).await;
            world.restart();
            assert_eq!(server.shown(world.now).await, expected(&world), "the store opened anew after {deed:?}");
            reopened += 1;
        }
    }
    drop(server);
    compare_rows(&world, dir.path());
    for (what, count) in world.seen {
        *seen.entry(what).or_default() += count;
    }
    reopened
}

/// In the file itself: every column of every row and schedule, and every invariant.
fn compare_rows(world: &World, dir: &Path) {
    let contents = Sqlite::inspect(dir).unwrap();
    let rows: BTreeMap<String, Row> = contents.rows.into_iter().map(|(_, row)| (row.id().to_owned(), row)).collect();
    let wanted: BTreeMap<String, Row> =
        world.memory.rows().into_iter().map(|row| (row.id().to_owned(), Row::clone(&row))).collect();
    let without = |rows: &BTreeMap<String, Row>| rows.values().map(without_lease).collect::<Vec<Row>>();
    assert_eq!(without(&rows), without(&wanted));
    // Heartbeats are not stored: a lease in the file is at most as long as the one that was promised.
    let lease = |row: &Row| row.task.as_ref().and_then(|task| task.lease_at);
    assert!(rows.iter().all(|(id, row)| lease(row) <= lease(&wanted[id])), "{rows:?}");
    let schedules: Vec<Schedule> = world.memory.schedules().map(|one| Schedule::clone(one)).collect();
    assert_eq!(contents.schedules, schedules);
    let outbox: Vec<_> = contents.outbox.into_iter().map(|(_, message)| message).collect();
    assert_eq!(outbox, world.memory.outbox(), "in the order in which they were queued");
    let memory = protocol::Memory::load(rows.into_values(), outbox, contents.schedules);
    assert_eq!(protocol::check(&memory), vec![]);
}

fn without_lease(row: &Row) -> Row {
    let task = row.task.as_deref().map(|task| Arc::new(Task { lease_at: None, ..task.clone() }));
    Row { task, ..row.clone() }
}

/// What walks must have reached to have said anything: the first eight ones in short, too.
const REACHED: [&str; 16] = [
    "status 200",
    "status 300",
    "status 400",
    "status 404",
    "status 409",
    "status 422",
    "pending to acquired",
    "execute",
    "pending to fulfilled",
    "acquired to pending",
    "acquired to suspended",
    "acquired to halted",
    "suspended to pending",
    "halted to pending",
    "firing",
    "unblock",
];

fn walks(profile: Profile) {
    let (walks, first) = (asked("WALKS", WALKS), asked("SEED", 1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut seen, mut reopened) = (BTreeMap::new(), 0);
    for seed in first..first + walks {
        let runs = Runs { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Runs::default() };
        let one = (proptest::num::u8::ANY, proptest::array::uniform5(proptest::num::u8::ANY));
        let choices = proptest::collection::vec(one.prop_map(|(close, bytes)| (Choice::of(bytes), close)), STEPS);
        let choices = choices.new_tree(&mut TestRunner::new(runs)).unwrap().current();
        println!("{profile:?}, seed {seed}");
        // In every second walk nearly everything that settled leaves memory at once.
        let keep = if seed % 2 == 0 { Keep(FEW) } else { Keep::default() };
        reopened += runtime.block_on(walk(profile, keep, &choices, &mut seen));
    }
    println!("{profile:?}: {walks} walks of {STEPS} steps from seed {first}, {reopened} stores opened anew: {seen:?}");
    let reached = match walks {
        LONG.. => &REACHED[..],
        WALKS.. => &REACHED[..8],
        _ => &[],
    };
    for what in reached {
        assert!(seen.contains_key(*what), "`{what}` was not reached: {seen:?}");
    }
}

#[test]
fn the_live_engine_and_the_model_agree() {
    walks(Profile::Stanch);
}

#[test]
fn the_live_engine_and_the_model_agree_when_versions_move_on_acquire_only() {
    walks(Profile::Resonate20260401);
}
