use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::property::choices;
use base::{Millis, Timestamp};
use proptest::test_runner::{Config as Cases, RngSeed, TestRunner};

use crate::request::{Body, Create, Request, Resolution, Response, Settle};
use crate::state::{Row, Value};
use crate::testkit::{Choice, Place, World};
use crate::view::{Config, Effect, Poison, Profile, View};
use crate::{BRANCH, Memory, ORIGIN, Retention, TREE_ROWS_MAX, apply, check, firings_due, tick};

fn config() -> Config {
    let poison = Poison { attempts_max: 5, free: 1, pause: Millis(4), pause_max: Millis(10) };
    Config { retry_timeout: Millis(30), profile: Profile::Stanch, poison }
}

fn walks(seed: u64, walk: impl Fn(&[Choice])) {
    let cases = Cases { cases: 60, failure_persistence: None, rng_seed: RngSeed::Fixed(seed), ..Cases::default() };
    let outcome = TestRunner::new(cases).run(&choices(200), |choices| {
        walk(&choices);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
}

/// What a choice does: a request, or a sweep of the clock.
fn step(memory: &Memory, request: Option<&Request>, now: Timestamp) -> (Option<Response>, Vec<Effect>) {
    match request {
        Some(request) => {
            let applied = apply(memory, request, now, &config());
            (Some(applied.response), applied.effects)
        }
        None => (None, tick(memory, now, 8, &config())),
    }
}

/// A preload and a page show what is at hand; everything else is the same whatever left memory.
fn without_lists(response: Option<Response>) -> Option<Response> {
    let mut response = response?;
    match &mut response.body {
        Body::Acquired { preload, .. } | Body::Preload(preload) => preload.clear(),
        Body::Promises { promises, cursor } => (promises.clear(), *cursor = None).1,
        Body::Tasks { tasks, cursor } => (tasks.clear(), *cursor = None).1,
        _ => {}
    }
    Some(response)
}

fn rows(memory: &Memory) -> BTreeMap<String, Arc<Row>> {
    memory.rows().into_iter().map(|row| (row.id().to_owned(), row)).collect()
}

#[test]
fn nothing_but_lists_tells_whether_settled_promises_left_memory() {
    walks(11, |choices| {
        let mut world = World::new(config(), Place::Inside);
        let mut small = Memory::default();
        let mut store: BTreeMap<String, Row> = BTreeMap::new();
        for choice in choices {
            let (request, now) = world.advance(choice);
            let named: Vec<String> = match &request {
                Some(request) => request.ids().into_iter().map(str::to_owned).collect(),
                None => firings_due(&small, now, 8),
            };
            for id in named {
                if let Some(row) = store.remove(&id) {
                    small.admit(row);
                }
            }
            let (answer, effects) = step(&world.memory, request.as_ref(), now);
            let (other, others) = step(&small, request.as_ref(), now);
            assert_eq!(without_lists(answer), without_lists(other), "{request:?}");
            assert_eq!(effects, others, "{request:?}");
            let _undo = (world.memory.commit(&effects), small.commit(&others));
            for row in small.rows() {
                if small.evict(row.id()) {
                    store.insert(row.id().to_owned(), Row::clone(&row));
                }
            }
            assert_eq!(check(&small), vec![], "{request:?}");
            let whole: BTreeMap<String, Arc<Row>> =
                store.iter().map(|(id, row)| (id.clone(), Arc::new(row.clone()))).chain(rows(&small)).collect();
            assert_eq!(whole, rows(&world.memory), "{request:?}");
        }
    });
}

#[test]
fn what_is_forgotten_is_missed_by_nothing_that_remains() {
    let total = std::cell::Cell::new(0_usize);
    walks(12, |choices| {
        let mut world = World::new(config(), Place::Inside);
        let mut short = Memory::default();
        let mut forgotten: BTreeSet<String> = BTreeSet::new();
        for choice in choices {
            let (request, now) = world.advance(choice);
            let named: Vec<String> = match &request {
                Some(request) => request.ids().into_iter().map(str::to_owned).collect(),
                None => firings_due(&world.memory, now, 8),
            };
            // What is forgotten is gone for who names it; everybody else must not notice.
            if named.iter().any(|id| forgotten.contains(id)) {
                continue;
            }
            let (answer, effects) = step(&world.memory, request.as_ref(), now);
            let (other, others) = step(&short, request.as_ref(), now);
            assert_eq!(without_lists(answer), without_lists(other), "{request:?}");
            assert_eq!(effects, others, "{request:?}");
            let _undo = (world.memory.commit(&effects), short.commit(&others));
            let retention = Retention::of(&short, now);
            for row in short.rows() {
                if retention.may_forget(&short, &row.promise) {
                    let tree = row.promise.tag(ORIGIN);
                    let live = |row: &Arc<Row>| !row.promise.is_settled() && row.promise.tag(ORIGIN) == tree;
                    assert!(tree.is_none() || !short.rows().iter().any(live), "{}", row.id());
                    assert!(short.evict(row.id()));
                    forgotten.insert(row.id().to_owned());
                }
            }
            assert_eq!(check(&short), vec![], "{request:?}");
            let remaining = rows(&world.memory).into_iter().filter(|(id, _)| !forgotten.contains(id)).collect();
            assert_eq!(rows(&short), remaining, "{request:?}");
        }
        total.set(total.get() + forgotten.len());
    });
    assert!(total.get() > 300, "hardly anything was forgotten: {}", total.get());
}

#[test]
fn each_reference_keeps_a_promise() {
    let mut memory = Memory::default();
    let ask = |memory: &mut Memory, request: Request| {
        let applied = apply(memory, &request, Timestamp(1), &Config::default());
        assert_eq!(applied.response.status, 200, "{request:?}");
        let _undo = memory.commit(&applied.effects);
    };
    let create = |id: &str, origin: &str| {
        let tags = [(ORIGIN.to_owned(), origin.to_owned()), (BRANCH.to_owned(), origin.to_owned())].into();
        Request::PromiseCreate(Create { id: id.into(), timeout_at: Timestamp(99), param: Value::default(), tags })
    };
    let settle = |id: &str| {
        let settle = Settle { id: id.into(), state: Resolution::Resolved, value: Value::default() };
        Request::PromiseSettle(settle)
    };
    let listen = Request::RegisterListener { awaited: "told".into(), address: "poll://uni@g/p".into() };
    for (id, origin) in [("w", "w"), ("w:1", "w"), ("free", "free"), ("inc/1", "inc/1"), ("young", "young")] {
        ask(&mut memory, create(id, origin));
    }
    let mut told = create("told", "told");
    if let Request::PromiseCreate(create) = &mut told {
        create.tags.insert("resonate:external".into(), "true".into());
    }
    for request in [told, listen, settle("told"), settle("w:1"), settle("free"), settle("inc/1")] {
        ask(&mut memory, request);
    }
    let kept = |memory: &Memory, before: i64| -> Vec<String> {
        let retention = Retention::of(memory, Timestamp(before));
        let settled = memory.rows().into_iter().filter(|row| row.promise.is_settled());
        let kept = settled.filter(|row| !retention.may_forget(memory, &row.promise));
        kept.map(|row| row.id().to_owned()).collect()
    };
    assert_eq!(kept(&memory, 2), ["inc/1", "told", "w:1"]);
    assert_eq!(kept(&memory, 1), ["free", "inc/1", "told", "w:1"], "it settled at the instant, not before it");
    ask(&mut memory, settle("w"));
    assert_eq!(kept(&memory, 2), ["inc/1", "told"]);
    let free = memory.promise("free").expect("it is there");
    let letters = Retention::of(&memory, Timestamp(2)).keeping(["free".to_owned()]);
    assert!(!letters.may_forget(&memory, &free), "what is said to be needed is kept");
    let told = memory.outbox().remove(0);
    let _undo = memory.commit(&crate::delivered(&memory, &told));
    assert_eq!(kept(&memory, 2), ["inc/1"]);
}

#[test]
fn a_tree_too_large_to_look_at_counts_as_alive() {
    let mut memory = Memory::default();
    for number in 0..TREE_ROWS_MAX {
        let tags = [(ORIGIN.to_owned(), "w".to_owned())].into();
        let create = Create { id: format!("w:{number}"), timeout_at: Timestamp(5), param: Value::default(), tags };
        let applied = apply(&memory, &Request::PromiseCreate(create), Timestamp(9), &Config::default());
        let _undo = memory.commit(&applied.effects);
    }
    let retention = Retention::of(&memory, Timestamp(99));
    let one = memory.promise("w:7").expect("it was born settled");
    assert!(!retention.may_forget(&memory, &one));
    assert!(memory.evict("w:8"));
    assert!(retention.may_forget(&memory, &one));
}
