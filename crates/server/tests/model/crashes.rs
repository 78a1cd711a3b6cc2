//! Short sequences of requests, and a crash at every commit of each: everything that was answered is there, what was
//! not is there exactly if it was written, and the work goes on from either.

use crate::{Server, asked, expected, perform, request};
use protocol::testkit::alphabet::{Letter, alphabet, beginnings};
use protocol::testkit::{Place, World, config};
use protocol::{Profile, wire};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use store::{Batch, Contents, Error, Sqlite, Store};

/// The length of the sequences after each beginning, in short.
const LENGTH: u64 = 1;

/// Where the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    Before,
    After,
}

/// A store that is gone at one of its commits.
struct Dying {
    inner: Sqlite,
    /// How many commits come before; below zero it is gone.
    left: Arc<AtomicI64>,
    crash: Crash,
}

impl Store for Dying {
    fn load(&mut self) -> Result<Contents, Error> {
        self.inner.load()
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        if left > 0 || left == 0 && self.crash == Crash::After {
            self.inner.commit(batch)?;
        }
        if left > 0 { Ok(()) } else { Err(Error::Refused("it is gone")) }
    }
}

/// Runs a sequence on a store that is gone at commit `at`, and the rest on what it left. False if there are not so
/// many commits.
async fn run(letters: &[Letter], at: i64, crash: Crash) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(config(Profile::Stanch), Place::Wire);
    let mut server = Server::of(dir.path(), world.config.clone());
    let left = Arc::new(AtomicI64::new(at));
    let counted = Arc::clone(&left);
    server
        .open_with(world.now, move |inner| match counted.load(Ordering::SeqCst) {
            gone if gone < 0 => Err(Error::Refused("it is gone")),
            _ => Ok(Box::new(Dying { inner, left: Arc::clone(&counted), crash })),
        })
        .await;
    let mut crashed = false;
    for letter in letters {
        let deed = letter.deed(&mut world);
        let mut after = world.clone();
        let answer = after.perform(&deed);
        let (status, bytes) = server.send(&request(&deed, world.now), world.now).await;
        if status != 503 {
            let expected = answer.map_or(200, |answer| answer.status);
            assert_eq!(status, expected, "{deed:?}: {}", String::from_utf8_lossy(&bytes));
            world = after;
            continue;
        }
        assert!(!crashed, "it was gone once only: {:?}", wire::parse_response(&bytes));
        crashed = true;
        server.open(world.now).await;
        if crash == Crash::After {
            world = after;
        }
        world.restart();
        assert_eq!(server.shown(world.now).await, expected(&world), "{crash:?} commit {at}, of {deed:?}");
        // Whoever was not answered asks again.
        perform(&mut world, &server, &deed).await;
    }
    assert!(crashed == (left.load(Ordering::SeqCst) < 0), "every commit is waited for");
    assert_eq!(server.shown(world.now).await, expected(&world));
    drop(server);
    let contents = Sqlite::inspect(dir.path()).unwrap();
    let rows = contents.rows.into_iter().map(|(_, row)| row);
    let outbox = contents.outbox.into_iter().map(|(_, message)| message);
    assert_eq!(protocol::check(&protocol::Memory::load(rows, outbox, contents.schedules)), vec![]);
    crashed
}

/// Every continuation of a beginning by so many letters.
fn continued(beginning: &[Letter], length: u64) -> Vec<Vec<Letter>> {
    let mut all = vec![beginning.to_vec()];
    for _ in 0..length {
        let longer = |one: &Vec<Letter>| {
            alphabet(Place::Wire).into_iter().map(|letter| [&one[..], &[letter]].concat()).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

#[test]
fn a_crash_at_every_commit_of_every_short_sequence_loses_nothing_that_was_answered() {
    let length = asked("CRASH_LENGTH", LENGTH);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let letters = alphabet(Place::Wire);
    let (mut sequences, mut crashes) = (0_u64, 0_u64);
    for beginning in beginnings() {
        let beginning: Vec<Letter> = beginning.into_iter().map(|at| letters[at].clone()).collect();
        let (mut commits, mut all) = (0, vec![beginning.clone()]);
        all.extend(continued(&beginning, length));
        for (number, sequence) in all.into_iter().enumerate() {
            sequences += 1;
            // What happens at a commit of the beginning is the same, whatever would have come after it.
            for at in commits.. {
                let crashed = [Crash::Before, Crash::After].map(|crash| runtime.block_on(run(&sequence, at, crash)));
                if crashed == [false; 2] {
                    commits = if number == 0 { at } else { commits };
                    break;
                }
                crashes += 1;
            }
        }
    }
    println!("{sequences} sequences, {crashes} crashes, each before and after it was written");
    assert!(crashes * 4 > sequences, "hardly anything was written");
}
