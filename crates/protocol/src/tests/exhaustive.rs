//! Every sequence of a few requests and sweeps over two promises and two workers: machine, model and invariants after
//! each. What led to the same state is gone on from once.

use std::collections::BTreeMap;

use crate::testkit::alphabet::{Letter, alphabet, beginnings};
use crate::testkit::{Place, World, config};
use crate::view::{Profile, View as _};

/// The length of every sequence; with the feature `long`, as far as a minute allows in release.
const DEPTH: u32 = if cfg!(feature = "long") { 6 } else { 3 };
/// Worlds by their state, so that equal ones are gone on from once; how often each was reached.
type Front = BTreeMap<String, (World, u64)>;

/// A whole state as a key: what the model holds and what time it is.
fn key(world: &World) -> String {
    format!("{:?}{:?}{:?}", world.now, world.model, world.memory.outbox())
}

fn every_sequence(profile: Profile) -> (u64, u64, BTreeMap<String, u32>) {
    let letters = alphabet(Place::Inside);
    let (mut sequences, mut steps, mut seen) = (0, 0, BTreeMap::<String, u32>::new());
    for beginning in beginnings() {
        let mut world = World::new(config(profile), Place::Inside);
        for letter in beginning {
            perform(&mut world, &letters[letter]);
        }
        world.seen.clear();
        let mut front = Front::from([(key(&world), (world, 1))]);
        for _ in 0..DEPTH {
            let mut next = Front::new();
            for (world, times) in front.into_values() {
                for letter in &letters {
                    let mut world = world.clone();
                    perform(&mut world, letter);
                    steps += 1;
                    for (what, count) in std::mem::take(&mut world.seen) {
                        *seen.entry(what).or_default() += count;
                    }
                    next.entry(key(&world)).or_insert_with(|| (world, 0)).1 += times;
                }
            }
            front = next;
        }
        sequences += front.values().map(|(_, times)| times).sum::<u64>();
    }
    (sequences, steps, seen)
}

fn perform(world: &mut World, letter: &Letter) {
    let deed = letter.deed(world);
    let _compared = world.perform(&deed);
}

#[test]
fn machine_and_model_agree_on_every_short_sequence() {
    for profile in [Profile::Stanch, Profile::Resonate20260401] {
        let (sequences, steps, seen) = every_sequence(profile);
        println!("{profile:?}: {sequences} sequences of {DEPTH} after each beginning, {steps} steps compared");
        let letters = alphabet(Place::Inside).len() as u64;
        assert_eq!(sequences, letters.pow(DEPTH) * beginnings().len() as u64, "every one of them");
        for status in ["status 200", "status 300", "status 404", "status 409", "status 422"] {
            assert!(seen.contains_key(status), "{status} was not reached: {seen:?}");
        }
        for moved in ["suspended to pending", "suspended to fulfilled", "acquired to pending", "acquired to halted"] {
            assert!(seen.contains_key(moved), "{moved} was not reached: {seen:?}");
        }
    }
}
