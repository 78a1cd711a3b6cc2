use super::*;
use actuators::control::{Counts, Instance, ProxyState, Second, Series, Status};

const OBJECT: &str = "config/shop/payments";

fn object(current: i64, changed_at_ms: i64) -> Object {
    Object { current, version: 1, changed_at_ms, revisions: (1..=current).collect() }
}

fn reading(current: i64, changed_at_ms: i64, seconds: &[(i64, u64)]) -> Reading {
    let second = |(n, failed): &(i64, u64)| RecordSecond {
        second_ms: n * 1_000,
        sent: 100,
        ok: 100 - failed,
        failed: *failed,
        ..RecordSecond::default()
    };
    let record = seconds.iter().map(second).collect();
    let objects = [(OBJECT.to_owned(), object(current, changed_at_ms))].into();
    Reading { record: Some(record), objects, ..Reading::default() }
}

fn healthy(configs: &Configs) -> [u64; 2] {
    [1, 2].map(|revision| configs.healthy_for(OBJECT, revision).0)
}

#[test]
fn seconds_count_once_when_settled_and_for_the_revision_in_use() {
    let configs = Configs::default();
    let note = |reading: &Reading| configs.note(reading, Millis(2_000));
    note(&reading(1, 500, &[(1, 0), (2, 0), (3, 0), (4, 0)]));
    assert_eq!(healthy(&configs), [2_000, 0], "the newest two are not settled");
    note(&reading(1, 500, &[(1, 0), (2, 0), (3, 0), (4, 0), (5, 0)]));
    assert_eq!(healthy(&configs), [3_000, 0], "none counts twice");
    // Changed in the middle of second 6; seconds 4 and 5 settle only now and were the old revision's.
    let after = [(3, 0), (4, 0), (5, 0), (6, 50), (7, 100), (8, 100), (9, 100), (10, 100)];
    note(&reading(2, 6_400, &after));
    assert_eq!(healthy(&configs), [5_000, 0], "second 6 is neither's, and the new one served badly");
}

#[test]
fn an_impairment_takes_back_what_was_counted_and_one_bad_second_does_not() {
    let configs = Configs::default();
    let note = |seconds: &[(i64, u64)]| configs.note(&reading(1, 500, seconds), Millis(2_000));
    note(&[(1, 0), (2, 0), (3, 9), (4, 0), (5, 0), (6, 0)]);
    assert_eq!(healthy(&configs), [3_000, 0]);
    note(&[(5, 0), (6, 0), (7, 9), (8, 9), (9, 0), (10, 0)]);
    assert_eq!(healthy(&configs), [0, 0], "two in a row are an impairment here");
}

#[test]
fn without_a_record_nothing_is_known_good() {
    let configs = Configs::default();
    configs.note(&Reading { record: None, ..reading(1, 500, &[]) }, Millis(2_000));
    assert_eq!(healthy(&configs), [0, 0]);
    assert_eq!(configs.healthy_for("config/shop/other", 1), Millis(0));
}

/// Two replicas that answer errors only, or of which the first is well.
fn failing(first_is_well: bool, object: Object) -> (Reading, Topology) {
    let instance = |replica| Instance { service: "payments".into(), replica, ready: true, ..Instance::default() };
    let series = |failed: u64| {
        let counts = Counts { calls: 50, ok: 50 - failed, failed, ..Counts::default() };
        Series { seconds: [18_000, 19_000].map(|at_ms| Second { at_ms, counts }).to_vec(), ..Series::default() }
    };
    let mut proxy = ProxyState::default();
    proxy.counters.targets.insert("payments@0".into(), series(if first_is_well { 0 } else { 50 }));
    proxy.counters.targets.insert("payments@1".into(), series(50));
    let status = Status { instances: vec![instance(0), instance(1)], ..Status::default() };
    let objects = [(OBJECT.to_owned(), object)].into();
    let reading =
        Reading { at: Timestamp(20_100), status: Some(status), proxy: Some(proxy), objects, ..Reading::default() };
    let mut topology = Topology::default();
    let declared = recovery::topology::Service { config: vec![OBJECT.to_owned()], ..Default::default() };
    topology.service.insert("payments".into(), declared);
    (reading, topology)
}

#[test]
fn a_change_is_suspected_when_it_came_just_before_and_nobody_serves() {
    let onset = Timestamp(17_000);
    let asked = |well, object| {
        let (reading, topology) = failing(well, object);
        suspect(&reading, &topology, "payments", onset)
    };
    let found = asked(false, object(2, 17_300)).expect("changed in the second of the onset");
    assert_eq!((found.object.as_str(), found.revision, found.changed_at), (OBJECT, 2, Timestamp(17_300)));
    assert_eq!(asked(true, object(2, 17_300)), None, "one replica serves: it is not the configuration");
    assert_eq!(asked(false, object(1, 16_000)), None, "the first revision is no change");
    assert_eq!(asked(false, object(2, 19_500)), None, "changed after it began");
    assert_eq!(asked(false, object(2, 17_000 - 600_001)), None, "changed long before");
    let (reading, _) = failing(false, object(2, 17_300));
    assert_eq!(suspect(&reading, &Topology::default(), "payments", onset), None, "not declared to read it");
}
