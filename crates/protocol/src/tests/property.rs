use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, RngSeed, TestRunner};

use crate::testkit::{Choice, Place, World, config};
use crate::view::Profile;

/// Steps of one walk.
const STEPS: usize = 300;
/// Walks in each profile.
const WALKS: u32 = 200;

/// So many choices.
pub(super) fn choices(len: usize) -> impl Strategy<Value = Vec<Choice>> {
    prop::collection::vec(any::<[u8; 5]>().prop_map(Choice::of), len)
}

fn walk(profile: Profile, cases: u32, seed: u64) -> BTreeMap<String, u32> {
    let cases = Cases { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(seed), ..Cases::default() };
    let seen = std::cell::RefCell::new(BTreeMap::<String, u32>::new());
    let outcome = TestRunner::new(cases).run(&choices(STEPS), |choices| {
        let mut world = World::new(config(profile), Place::Inside);
        for deed in world.preparation() {
            let _compared = world.perform(&deed);
        }
        for choice in &choices {
            world.step(choice);
        }
        for (what, count) in world.seen {
            *seen.borrow_mut().entry(what).or_default() += count;
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    seen.into_inner()
}

/// What a walk must have reached to have said anything.
const REACHED: [&str; 22] = [
    "status 200",
    "status 300",
    "status 400",
    "status 404",
    "status 409",
    "status 422",
    "pending to acquired",
    "pending to fulfilled",
    "acquired to pending",
    "acquired to suspended",
    "acquired to fulfilled",
    "suspended to pending",
    "suspended to fulfilled",
    "callback of an expired awaiter",
    "pending to halted",
    "acquired to halted",
    "suspended to halted",
    "halted to pending",
    "halted to fulfilled",
    "firing",
    "execute",
    "unblock",
];

#[test]
fn machine_and_model_agree() {
    let seen = walk(Profile::Stanch, WALKS, 1);
    for what in REACHED {
        assert!(seen.get(what).copied().unwrap_or(0) >= 20, "`{what}` was hardly reached: {seen:?}");
    }
}

#[test]
fn machine_and_model_agree_when_versions_move_on_acquire_only() {
    let seen = walk(Profile::Resonate20260401, WALKS, 2);
    for what in REACHED {
        assert!(seen.get(what).copied().unwrap_or(0) >= 20, "`{what}` was hardly reached: {seen:?}");
    }
}
