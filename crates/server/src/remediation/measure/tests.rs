use super::*;
use crate::platform::RecordSecond;
use actuators::control::{Counts, Instance, ProxyState, Second, Series, Status};

fn instance(service: &str, replica: u32, ready: bool) -> Instance {
    Instance { service: service.into(), replica, ready, ..Instance::default() }
}

fn series(seconds: &[(i64, u64, u64)]) -> Series {
    let second = |(at_ms, calls, shed): &(i64, u64, u64)| Second {
        at_ms: *at_ms,
        counts: Counts { calls: *calls, shed: *shed, ..Counts::default() },
    };
    Series { seconds: seconds.iter().map(second).collect(), ..Series::default() }
}

/// One replica of two is ready; 60 calls passed in the last whole second; a tenth of the client's requests fail.
fn reading() -> Reading {
    let status = Status { instances: vec![instance("a", 0, false), instance("a", 1, true)], ..Status::default() };
    let mut proxy = ProxyState::default();
    let edges = &mut proxy.counters.edges;
    edges.insert("x->a".into(), series(&[(3_000, 500, 0), (4_000, 50, 10), (5_000, 900, 0)]));
    edges.insert("y->a".into(), series(&[(4_000, 20, 0)]));
    edges.insert("a->b".into(), series(&[(4_000, 7, 0)]));
    let total = Counts { in_flight: 3, ..Counts::default() };
    proxy.counters.targets.insert("a@1".into(), Series { total, ..Series::default() });
    let second = |n: i64| RecordSecond {
        second_ms: n * 1_000,
        sent: 100,
        failed: 6,
        late: 4,
        shed: 20,
        ..RecordSecond::default()
    };
    let record = (1..=5).map(second).collect();
    Reading {
        at: Timestamp(5_400),
        status: Some(status),
        proxy: Some(proxy),
        record: Some(record),
        ..Reading::default()
    }
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn each_fact_is_read_from_its_source() {
    let asked = [
        ("ready/a@0", 0),
        ("ready/a@1", 1),
        ("ready(a)", 1),
        ("ready(nobody)", 0),
        ("inflight/a@1", 3),
        ("passed/x->a", 40_000),
        ("passed/a", 60_000),
        ("passed/nobody", 0),
    ];
    let all = names(&asked.map(|(name, _)| name));
    assert_eq!(facts(&all, &reading()), asked.map(|(name, value)| (name.to_owned(), value)).into());
}

#[test]
fn what_no_source_says_is_missing_and_never_zero() {
    let sound = ["ready/a@0", "ready(a)", "inflight/a@1", "passed/a"];
    let silent = Reading { at: Timestamp(5_400), ..Reading::default() };
    assert!(facts(&names(&sound), &silent).is_empty());
    let unknown = ["ready/a", "ready/a@x", "ready/a@7", "ready/b@0", "ready(a", "inflight/a@0", "load/a", ""];
    assert!(facts(&names(&unknown), &reading()).is_empty());
}

#[test]
fn severity_counts_the_seconds_of_the_window_after_the_onset() {
    let found = severity(&reading(), Millis(2_000), Timestamp(0)).unwrap();
    assert_eq!((found.impaired, found.objectives, found.bad_ppm, found.shed_ppm), (1, 1, 100_000, 200_000));
    let mut before = reading();
    let (_, old) = before.record.as_mut().unwrap().split_last_mut().unwrap();
    old.iter_mut().for_each(|second| (second.failed, second.late) = (100, 0));
    let (last, earlier) = old.split_last_mut().unwrap();
    (last.failed, last.shed) = (0, 0);
    assert_eq!(earlier.len(), 3);
    let since = severity(&before, Millis(4_000), Timestamp(4_000)).unwrap();
    assert_eq!(
        (since.objectives, since.bad_ppm, since.shed_ppm),
        (0, 0, 0),
        "what was before the onset counts nothing"
    );
}

#[test]
fn nobody_can_say_without_supervisor_or_record() {
    let without = |change: fn(&mut Reading)| {
        let mut reading = reading();
        change(&mut reading);
        severity(&reading, Millis(2_000), Timestamp(0))
    };
    assert_eq!(without(|reading| reading.status = None), None);
    assert_eq!(without(|reading| reading.record = None), None);
    assert_eq!(without(|reading| reading.record = Some(Vec::new())), None);
    assert!(without(|reading| reading.at = Timestamp(8_000)).is_some());
    assert_eq!(without(|reading| reading.at = Timestamp(8_001)), None, "the record stopped");
    let idle = without(|reading| {
        for second in reading.record.iter_mut().flatten() {
            *second = RecordSecond { second_ms: second.second_ms, ..RecordSecond::default() };
        }
    });
    assert_eq!(idle, None, "no request was sent");
}
