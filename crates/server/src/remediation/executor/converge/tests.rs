use super::*;
use crate::platform::RecordSecond;

/// Good seconds from 1 on, with a request that is still on its way in the last.
fn reading(at_ms: i64, seconds: i64) -> Reading {
    let second = |n: i64| RecordSecond {
        second_ms: n * 1_000,
        sent: 100,
        ok: 100,
        in_flight: u64::from(n == seconds),
        ..RecordSecond::default()
    };
    Reading { at: Timestamp(at_ms), record: Some((1..=seconds).map(second).collect()), ..Reading::default() }
}

fn param() -> ConvergeParam {
    ConvergeParam {
        incident: "i1".into(),
        plan: String::new(),
        writes: Vec::new(),
        samples: 3,
        every_ms: 1_000,
        deadline_ms: 30_000,
        onset_ms: 3_000,
        baseline_ms: 2_000,
        commit_began_ms: 4_000,
    }
}

#[test]
fn the_newest_settled_second_speaks_only_while_the_record_goes_on() {
    let found = |at_ms| client_side(&reading(at_ms, 9), &param(), Timestamp(8_000));
    let settled = ClientSide { second_ms: 8_000, bad_ppm: 0, shed: 0, in_flight: 1, in_flight_max: 45 };
    assert_eq!((found(9_400), found(12_000)), (Some(settled), Some(settled)));
    assert_eq!(found(12_001), None, "the client has said nothing for too long");
    assert_eq!(client_side(&reading(9_400, 9), &param(), Timestamp(9_001)), None, "older than the proof");
    assert_eq!(client_side(&reading(1_400, 1), &param(), Timestamp(0)), None, "nothing has settled");
    assert_eq!((harm(&reading(9_400, 9), &param()), harm(&reading(12_001, 9), &param())), (0, i64::MAX));
}

#[test]
fn one_second_is_one_sample() {
    let looks = [Some(1_000), Some(1_000), Some(2_000), None, Some(2_000), Some(3_000), Some(4_000)];
    let mut state = (0, i64::MIN);
    let counts = looks.map(|met| {
        state = count(state.0, state.1, met);
        state.0
    });
    assert_eq!(counts, [1, 1, 2, 0, 0, 1, 2]);
}
