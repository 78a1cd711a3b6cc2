use std::collections::BTreeMap;

use base::Millis;
use proptest::test_runner::{Config as Cases, RngSeed, TestRunner};

use crate::testkit::{World, choices};
use crate::view::{Config, Profile};

fn walk(profile: Profile, cases: u32, seed: u64) -> BTreeMap<String, u32> {
    let cases = Cases { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(seed), ..Cases::default() };
    let seen = std::cell::RefCell::new(BTreeMap::<String, u32>::new());
    let outcome = TestRunner::new(cases).run(&choices(120), |choices| {
        let mut world = World::new(Config { retry_timeout: Millis(30), profile });
        if choices.len() % 4 != 0 {
            world.prepare();
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
const REACHED: [&str; 16] = [
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
    "execute",
    "unblock",
];

#[test]
fn machine_and_model_agree() {
    let seen = walk(Profile::Stanch, 700, 1);
    for what in REACHED {
        assert!(seen.get(what).copied().unwrap_or(0) >= 20, "`{what}` was hardly reached: {seen:?}");
    }
}

#[test]
fn machine_and_model_agree_when_versions_move_on_acquire_only() {
    walk(Profile::Resonate20260401, 100, 2);
}
