use std::collections::BTreeMap;
use std::str::FromStr as _;

use base::{Millis, Timestamp};
use chrono::{DateTime, Utc};
use proptest::prelude::*;

use crate::limits::{CRON_BYTES_MAX, SCHEDULES_MAX, SEARCH_LIMIT_MAX, SEARCH_ROWS_MAX};
use crate::request::{Body, Create, PromiseSearch, Request, ScheduleCreate};
use crate::schedule::{NEVER, next_firing};
use crate::state::Value;
use crate::{Config, Memory, TARGET, apply, tick, validate};

fn millis(text: &str) -> Timestamp {
    Timestamp(text.parse::<jiff::Timestamp>().expect("an instant").as_millisecond())
}

#[test]
fn five_to_seven_fields_are_read_in_utc() {
    let after = millis("2026-11-20T15:04:05.250Z");
    for (cron, next) in [
        ("* * * * *", "2026-11-20T15:05:00Z"),
        ("*/10 * * * * *", "2026-11-20T15:04:10Z"),
        ("30 6 * * *", "2026-11-21T06:30:00Z"),
        ("0 30 6 * * *", "2026-11-21T06:30:00Z"),
        ("0 0 0 1 1 ? 2030", "2030-01-01T00:00:00Z"),
        ("0 0 12 29 2 *", "2028-02-29T12:00:00Z"),
        // Days of the week begin with Sunday = 1, with five fields too.
        ("0 9 * * 1", "2026-11-22T09:00:00Z"),
        ("0 9 * * MON", "2026-11-23T09:00:00Z"),
        // A day has to fit both of its fields.
        ("0 0 13 * FRI", "2027-08-13T00:00:00Z"),
    ] {
        assert_eq!(next_firing(cron, after), Ok(millis(next)), "{cron}");
    }
    assert_eq!(next_firing("0 0 0 30 2 *", after), Ok(NEVER));
    assert_eq!(next_firing("0 0 0 1 1 ? 2020", after), Ok(NEVER));
    assert_eq!(next_firing("* * * * *", Timestamp(i64::MAX)), Ok(NEVER));
    for bad in ["", "*", "* * * *", "* * * * * * * *", "61 * * * * *", "a b c d e", "* * * * * * 99999", "0 0 32 1 *"] {
        assert!(next_firing(bad, after).is_err(), "`{bad}`");
    }
}

fn field(low: u32, high: u32) -> impl Strategy<Value = String> {
    let one = (low..=high).prop_map(|at| at.to_string());
    let range = (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b)));
    let step = (2..=high.min(20)).prop_map(|by| format!("*/{by}"));
    let from = (low..=high, 2..=high.min(20)).prop_map(move |(a, by)| format!("{a}-{high}/{by}"));
    let list = proptest::collection::vec(low..=high, 1..4)
        .prop_map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    prop_oneof![3 => Just("*".to_owned()), 2 => one, 1 => range, 1 => step, 1 => from, 1 => list]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// The reference server reads expressions with the crate `cron` 0.12; ours fire at the same instants.
    #[test]
    fn firings_are_those_of_the_reference(
        fields in (field(0, 59), field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(1, 7)),
        start in 1_600_000_000_i64..2_000_000_000,
    ) {
        let (second, minute, hour, day, month, weekday) = fields;
        let cron = format!("{second} {minute} {hour} {day} {month} {weekday}");
        let oracle = cron::Schedule::from_str(&cron).expect("the oracle reads it");
        let mut at: DateTime<Utc> = DateTime::from_timestamp(start, 0).expect("an instant");
        for _ in 0..5 {
            let expected = oracle.after(&at).next();
            let found = next_firing(&cron, Timestamp(at.timestamp_millis())).expect("we read it");
            // Beyond its last year, 2100, the oracle knows no more instants.
            let Some(expected) = expected else {
                prop_assert!(found >= millis("2100-01-01T00:00:00Z"), "{cron}: {found:?}");
                return Ok(());
            };
            prop_assert_eq!(found, Timestamp(expected.timestamp_millis()), "{} after {}", cron, at);
            at = expected;
        }
    }
}

fn schedule(id: &str, cron: &str) -> ScheduleCreate {
    ScheduleCreate {
        id: id.to_owned(),
        cron: cron.to_owned(),
        promise_id: "{{.id}}.{{.timestamp}}".to_owned(),
        promise_timeout: Millis(60_000),
        promise_param: Value::text("in"),
        promise_tags: BTreeMap::from([(TARGET.to_owned(), "poll://any@g".to_owned())]),
    }
}

fn ask(memory: &mut Memory, request: &Request, now: Timestamp) -> (u16, Body) {
    let applied = apply(memory, request, now, &Config::default());
    let _undo = memory.commit(&applied.effects);
    (applied.response.status, applied.response.body)
}

#[test]
fn a_schedule_fires_once_for_each_instant_however_late_the_sweep() {
    let mut memory = Memory::default();
    let now = Timestamp(10_000);
    assert_eq!(ask(&mut memory, &Request::ScheduleCreate(schedule("s", "*/2 * * * * *")), now).0, 200);
    // Nobody swept for a while; in the middle of catching up the state is stored and loaded.
    let late = Timestamp(20_500);
    for _ in 0..20 {
        let effects = tick(&memory, late, 100, &Config::default());
        let _undo = memory.commit(&effects);
        let rows = crate::View::rows(&memory).iter().map(|row| crate::Row::clone(row)).collect::<Vec<_>>();
        let schedules = memory.schedules().map(|one| crate::Schedule::clone(one)).collect::<Vec<_>>();
        memory = Memory::load(rows, crate::View::outbox(&memory), schedules);
    }
    let fired: Vec<String> = memory.children("s.").map(|promise| promise.id.clone()).collect();
    assert_eq!(fired, ["s.12000", "s.14000", "s.16000", "s.18000", "s.20000"]);
    let first = memory.promise("s.12000").expect("the first");
    assert_eq!(
        (first.created_at, first.timeout_at, first.tag("resonate:schedule")),
        (Timestamp(12_000), Timestamp(72_000), Some("s"))
    );
    assert_eq!([first.tag("resonate:origin"), first.tag("resonate:branch")], [Some("s.12000"); 2]);
}

#[test]
fn what_a_schedule_may_be_is_bounded() {
    let status = |create: ScheduleCreate| validate(&Request::ScheduleCreate(create)).map_or(200, |bad| bad.status);
    assert_eq!(status(schedule("s", "* * * * *")), 200);
    let long = format!("* * * * {}", ["1"; 200].join(","));
    assert!(long.len() > CRON_BYTES_MAX);
    assert_eq!(status(schedule("s", &long)), 400);
    assert_eq!(status(schedule("a.b", "* * * * *")), 200);
    assert_eq!(status(schedule("a.b:c", "* * * * *")), 400);
    let mut untargeted = schedule("s", "* * * * *");
    untargeted.promise_tags.clear();
    assert_eq!(status(untargeted), 400);
    let mut delayed = schedule("s", "* * * * *");
    delayed.promise_tags.insert("resonate:delay".into(), "5".into());
    assert_eq!(status(delayed), 400);
    let mut memory = Memory::default();
    // An expression that names no instant any more is accepted by its form and refused by its sense.
    let past = Request::ScheduleCreate(schedule("s", "0 0 0 1 1 ? 2020"));
    assert_eq!(ask(&mut memory, &past, millis("2026-01-01T00:00:00Z")).0, 400);
    let schedules = (0..SCHEDULES_MAX).map(|number| {
        let (id, promise_id, cron) = (format!("s{number}"), "p".to_owned(), "* * * * *".to_owned());
        let (promise_timeout, promise_param, promise_tags) = (Millis(1), Value::default(), BTreeMap::new());
        let (created_at, next_run_at, last_run_at) = (Timestamp(0), Timestamp(60_000), None);
        crate::Schedule {
            id,
            cron,
            promise_id,
            promise_timeout,
            promise_param,
            promise_tags,
            created_at,
            next_run_at,
            last_run_at,
        }
    });
    let mut memory = Memory::load([], [], schedules);
    assert_eq!(ask(&mut memory, &Request::ScheduleCreate(schedule("one more", "* * * * *")), Timestamp(0)).0, 429);
    assert_eq!(ask(&mut memory, &Request::ScheduleCreate(schedule("s7", "* * * * *")), Timestamp(0)).0, 200);
}

#[test]
fn a_search_looks_at_so_many_rows_and_answers_a_cursor() {
    let mut memory = Memory::default();
    let now = Timestamp(0);
    let all = SEARCH_ROWS_MAX + 1_000;
    for number in 0..=all {
        let tags = BTreeMap::from([("last".to_owned(), (number == all).to_string())]);
        let create = Create { id: format!("p{number:07}"), timeout_at: Timestamp(9), param: Value::default(), tags };
        ask(&mut memory, &Request::PromiseCreate(create), now);
    }
    let tags = BTreeMap::from([("last".to_owned(), "true".to_owned())]);
    let search = PromiseSearch { tags, ..PromiseSearch::default() };
    let (_, body) = ask(&mut memory, &Request::PromiseSearch(search.clone()), now);
    let Body::Promises { promises, cursor: Some(cursor) } = body else { panic!("{body:?}") };
    assert!(promises.is_empty());
    let (_, body) = ask(&mut memory, &Request::PromiseSearch(PromiseSearch { cursor: Some(cursor), ..search }), now);
    let Body::Promises { promises, cursor: None } = body else { panic!("{body:?}") };
    assert_eq!(promises.len(), 1);
    for (limit, refused) in [(0, true), (1, false), (SEARCH_LIMIT_MAX, false), (SEARCH_LIMIT_MAX + 1, true)] {
        let search = Request::PromiseSearch(PromiseSearch { limit: Some(limit), ..PromiseSearch::default() });
        assert_eq!(validate(&search).is_some(), refused, "{limit}");
    }
}
