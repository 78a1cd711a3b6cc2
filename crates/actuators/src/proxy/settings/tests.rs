use super::*;

fn known() -> Known {
    let edge = |caller: &str, callee: &str| EdgeName { caller: caller.into(), callee: callee.into() };
    Known {
        services: ["gate", "till"].map(String::from).into(),
        edges: vec![edge("gate", "till"), edge("street", "gate")],
    }
}

fn change(key: &str, epoch: u64, set: &[(&str, i64)]) -> Change {
    let set = set.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    Change {
        key: key.into(),
        attempt: 1,
        fence: Fence { epoch, version: 1 },
        set,
        bound: None,
        expires_at_ms: None,
        ramp: None,
    }
}

fn ask(book: &mut Book, change: &Change, now_ms: i64) -> Result<Changed, Refusal> {
    book.change(&Asked { change, known: &known(), offered: &|_| 100_000, now_ms })
}

fn sealing(fence: Fence, key: &str, attempt: u64) -> Seal {
    Seal { fence, fields: vec!["weight/till@0".into()], key: key.into(), attempt }
}

fn with_expiry(mut change: Change, at_ms: i64) -> Change {
    change.expires_at_ms = Some(at_ms);
    change
}

fn with_ramp(mut change: Change) -> Change {
    change.ramp = Some(Ramp { steps: vec![25, 50, 100], every_ms: 1_000 });
    change
}

#[test]
fn a_key_has_one_effect_and_one_answer() {
    let mut book = Book::default();
    let limit = change("p/s1", 1, &[("limit/gate->till", 60_000)]);
    let first = ask(&mut book, &limit, 0).expect("accepted");
    assert_eq!(first.before.get("limit/gate->till"), Some(&-1));
    ask(&mut book, &change("p/s2", 1, &[("limit/gate->till", 10_000)]), 1).expect("accepted");
    for _ in 0..100 {
        assert_eq!(ask(&mut book, &limit, 2), Ok(first.clone()));
    }
    assert_eq!((book.value("limit/gate->till", 2), book.version("limit/gate->till")), (10_000, 2));
    let other = change("p/s1", 1, &[("limit/gate->till", 1)]);
    assert!(matches!(ask(&mut book, &other, 3), Err(Refusal::Refused(_))));
}

#[test]
fn an_older_owner_is_fenced_out_and_a_seal_does_it_without_an_effect() {
    let mut book = Book::default();
    ask(&mut book, &change("a/s1", 5, &[("weight/till@0", 0)]), 0).expect("accepted");
    let refused = ask(&mut book, &change("b/s1", 4, &[("weight/till@0", 50)]), 0);
    assert_eq!(refused, Err(Refusal::Fenced(Fence { epoch: 5, version: 1 })));
    let other_field = change("c/s1", 4, &[("weight/till@1", 50)]);
    ask(&mut book, &other_field, 0).expect("fences are per field");
    let fence = Fence { epoch: 5, version: 2 };
    book.seal(&sealing(fence, "k1", 1), &known()).expect("sealed");
    let late = change("a/s2", 5, &[("weight/till@0", 100)]);
    assert_eq!(ask(&mut book, &late, 0), Err(Refusal::Fenced(fence)));
    assert_eq!((book.value("weight/till@0", 0), book.version("weight/till@0")), (0, 1));
    assert!(matches!(book.seal(&sealing(Fence::default(), "k1", 1), &known()), Err(Refusal::Fenced(_))));
}

#[test]
fn a_field_that_moved_since_it_was_bound_is_left_alone() {
    let mut book = Book::default();
    ask(&mut book, &change("x/s1", 1, &[("breaker/gate->till", 1)]), 0).expect("accepted");
    let mut bound = change("x/s2", 1, &[("breaker/gate->till", 0)]);
    bound.bound = Some(Versions::from([("breaker/gate->till".into(), 0)]));
    let versions = Versions::from([("breaker/gate->till".into(), 1)]);
    assert_eq!(ask(&mut book, &bound, 0), Err(Refusal::Drifted(versions.clone())));
    assert_eq!(book.value("breaker/gate->till", 0), 1);
    bound.bound = Some(versions);
    ask(&mut book, &bound, 0).expect("as it was bound");
}

#[test]
fn what_is_unknown_or_out_of_range_is_refused() {
    let mut book = Book::default();
    let bad = [
        ("generation/till@0", 2),
        ("weight/nobody@0", 1),
        ("weight/till@00", 1),
        ("weight/till", 1),
        ("weight/till@0", -1),
        ("limit/till->gate", 1),
        ("limit/gate->till", -2),
        ("breaker/gate->till", 3),
        ("breaker/till", 1),
        ("../../etc", 1),
    ];
    for (name, value) in bad {
        let refused = ask(&mut book, &change("k", 1, &[(name, value)]), 0);
        assert!(matches!(refused, Err(Refusal::Refused(_))), "{name} {value}");
    }
    for key in ["", "with blank", "é", &"k".repeat(KEY_BYTES_MAX + 1)] {
        assert!(ask(&mut book, &change(key, 1, &[("limit/till", 1)]), 0).is_err(), "{key}");
    }
    assert!(ask(&mut book, &change("k", 1, &[]), 0).is_err());
    let past = with_expiry(change("k", 1, &[("limit/till", 1)]), 10);
    assert!(ask(&mut book, &past, 10).is_err());
    let mut down = change("k", 1, &[("limit/till", 1)]);
    down.ramp = Some(Ramp { steps: vec![50, 25, 100], every_ms: 1 });
    assert!(ask(&mut book, &down, 0).is_err());
    down.ramp = Some(Ramp { steps: (0..=100).collect(), every_ms: 1 });
    assert!(ask(&mut book, &down, 0).is_err());
    assert!(book.fields.is_empty() && book.answers.is_empty());
    down.ramp = Some(Ramp { steps: (1..=100).collect(), every_ms: 1 });
    assert!(ask(&mut book, &down, 0).is_ok());
    assert!(ask(&mut book, &change(&"k".repeat(KEY_BYTES_MAX), 1, &[("limit/till", 1)]), 0).is_ok());
}

#[test]
fn an_expired_setting_returns_to_what_was_before() {
    let mut book = Book::default();
    ask(&mut book, &change("k/s0", 1, &[("limit/till", 90_000)]), 0).expect("accepted");
    ask(&mut book, &with_expiry(change("k/s1", 1, &[("limit/till", 60_000)]), 100), 0).expect("accepted");
    assert_eq!(book.next_ms(0), Some(100));
    // A second temporary setting over the first: behind both stands the permanent one.
    ask(&mut book, &with_expiry(change("k/s2", 1, &[("limit/till", 30_000)]), 200), 50).expect("accepted");
    assert!(book.due(150).is_empty());
    assert!(!book.expire("limit/till", "k/s1", true), "its place was taken");
    let due = book.due(200);
    assert_eq!(due.len(), 1);
    assert!(book.expire("limit/till", &due[0].1.key, true));
    assert_eq!((book.value("limit/till", 200), book.version("limit/till")), (90_000, 4));
    assert!(book.due(i64::MAX).is_empty());
}

#[test]
fn a_later_permanent_setting_cancels_the_expiry() {
    let mut book = Book::default();
    ask(&mut book, &with_expiry(change("k/s1", 1, &[("weight/till@0", 0)]), 100), 0).expect("accepted");
    ask(&mut book, &change("k/s3", 1, &[("weight/till@0", 100)]), 50).expect("accepted");
    assert_eq!((book.next_ms(50), book.due(1_000)), (None, Vec::new()));
}

#[test]
fn traffic_of_a_target_that_is_not_ready_is_withheld_until_it_is() {
    let mut book = Book::default();
    ask(&mut book, &with_expiry(change("k/s1", 1, &[("weight/till@0", 0)]), 100), 0).expect("accepted");
    assert!(book.expire("weight/till@0", "k/s1", false), "noted once");
    assert!(!book.expire("weight/till@0", "k/s1", false), "and not again");
    assert_eq!((book.value("weight/till@0", 100), book.withholds(), book.next_ms(100)), (0, true, None));
    assert!(book.expire("weight/till@0", "k/s1", true));
    assert_eq!((book.value("weight/till@0", 100), book.withholds()), (100, false));
}

#[test]
fn a_ramp_climbs_by_itself_and_counts_as_one_change() {
    let mut book = Book::default();
    ask(&mut book, &change("k/s1", 1, &[("weight/till@0", 0), ("limit/till", 40_000), ("breaker/gate->till", 1)]), 0)
        .expect("accepted");
    let back = change("k/s2", 1, &[("weight/till@0", 100), ("limit/till", -1), ("breaker/gate->till", 0)]);
    let changed = ask(&mut book, &with_ramp(back), 1_000).expect("accepted");
    assert_eq!(changed.after.get("limit/till"), Some(&-1));
    let at = |book: &Book, now| ["weight/till@0", "limit/till", "breaker/gate->till"].map(|name| book.value(name, now));
    assert_eq!(at(&book, 1_000), [25, 55_000, 2]);
    assert_eq!(at(&book, 2_000), [50, 70_000, 2]);
    assert_eq!(at(&book, 3_000), [100, -1, 0]);
    assert_eq!(
        [0, 1_000, 1_999, 2_000, 3_000].map(|now| book.next_ms(now)),
        [Some(1_000), Some(2_000), Some(2_000), Some(3_000), None]
    );
    assert_eq!(changed.versions.values().copied().collect::<Vec<_>>(), [2, 2, 2]);
    assert_eq!(book.version("limit/till"), 2, "stages are not changes");
}

#[test]
fn a_book_survives_its_file_and_forgets_only_the_oldest_keys() {
    let mut book = Book::default();
    for n in 0..=KEYS_MAX {
        ask(&mut book, &change(&format!("k/{n}"), 1, &[("limit/till", i64::try_from(n).expect("small"))]), 0)
            .expect("accepted");
    }
    let bytes = serde_json::to_vec(&book).expect("json");
    let read: Book = serde_json::from_slice(&bytes).expect("book");
    assert!(read.answer("k/0").is_none());
    assert!(read.answer("k/1").is_some());
    assert_eq!(read.version("limit/till"), book.version("limit/till"));
}

#[test]
fn an_attempt_that_was_given_up_comes_to_nothing_however_late_and_the_next_one_counts() {
    let mut book = Book::default();
    let call = |attempt| Change { attempt, ..change("p/s1", 5, &[("weight/till@0", 0)]) };
    let fence = call(1).fence;
    book.seal(&sealing(fence, "p/s1", 1), &known()).expect("sealed");
    assert!(matches!(ask(&mut book, &call(1), 0), Err(Refusal::Refused(why)) if why.contains("given up")));
    let other = change("p/s2", 5, &[("weight/till@1", 0)]);
    ask(&mut book, &other, 0).expect("another key is nobody's affair");
    ask(&mut book, &call(2), 0).expect("performed anew");
    assert_eq!(book.value("weight/till@0", 0), 0);
    // What took effect stays known, whatever is given up later.
    book.seal(&sealing(fence, "p/s1", 2), &known()).expect("sealed");
    ask(&mut book, &call(1), 0).expect("its answer is remembered");
    assert_eq!(book.version("weight/till@0"), 1);
    for number in 0..=KEYS_MAX {
        book.seal(&sealing(fence, &format!("q/s{number}"), 1), &known()).expect("sealed");
    }
    assert_eq!(book.given_up.len(), KEYS_MAX, "the oldest is forgotten first");
}
