use super::*;
use crate::isa::{Action, Place, Rate, Restored};
use crate::plan::{LIST_MAX, NAME_BYTES_MAX, OnFail, PLAN_BYTES_MAX, PREDICATES_MAX, STEPS_MAX, Signal};
use expect_test::expect;

fn printed(text: &str) -> String {
    steps(&parse(text).unwrap_or_else(|error| panic!("{text}: {error}")))
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn the_plans_of_the_common_failures_read_and_print() {
    for text in [
        "drain S@0 new 120s ; restart S@0 ; restore",
        "scale S +1 900s ; drain S@0 new 120s ; restart S@0 ; restore",
        "rollback workload/ns/S to last-good",
        "rollback flag/ns/F to last-good ; restart S",
        "ratelimit A->S 50% 120s ; restart S ; restore",
        "break A->S open fallback cached 300s",
        "ratelimit producer->q 70% 600s ; scale consumer +2 1800s ; restore",
        "ratelimit S#7 60% 300s ; drain S#7 50% new 900s ; restore",
        "drain S@zone=z all 3600s ; drain T@zone=z all 3600s ; scale S +2 3600s",
        "drain S@1 all 120s ; rollback role/ns/lock to S@2 ; restart S@1 ; restore",
        "ratelimit A->S 60% 120s ; restart A wave 2 surge 1 grace 5s jitter 250ms ; restore s1",
        "ratelimit S 30% 180s ; restore ramp 25,50,75,100 every 5s",
        "ratelimit S 90rps burst 20 priority paid 60s",
        "restore S weights S@0:50,S@1:50",
        "a-1: restart S group if ready(S)>=1 until error_ppm(S)<=1000,ready(S)>=3 else retry",
        "restart S until no-regression,generation(S@0)>saved else undo-to s1",
        "restart S@0,2 until revision(flag/ns/F)=3,retries_permille(A->S)<=100 else stop",
    ] {
        assert_eq!(printed(text), text);
    }
}

#[test]
fn display_forms_and_line_breaks_read_like_the_plain_ones() {
    let plain = parse("ratelimit A->S 60% 120s ; restart S").unwrap();
    assert_eq!(parse("ratelimit A→S 60% 2m\n  · restart S wave 1").unwrap(), plain);
    let [limit, _] = plain.as_slice() else { panic!("two steps") };
    let Action::RateLimit { rate, ttl_ms, .. } = &limit.action else { panic!("a limit") };
    assert_eq!((*rate, *ttl_ms), (Rate::Percent(60), 120_000));
}

#[test]
fn instances_and_conditions_do_not_swallow_what_follows() {
    let [step] = parse("k: drain S@2,0 40% new 60s timeout 5s until inflight(S@0,2)<=0,ready>=1 else undo-to k")
        .unwrap()
        .try_into()
        .unwrap();
    let Step { key, action, post, on_fail, .. }: Step = step;
    assert_eq!((key.as_str(), &on_fail), ("k", &OnFail::UndoTo("k".into())));
    let Action::Drain { place, percent, timeout_ms, .. } = action else { panic!("a drain") };
    assert_eq!((place, percent, timeout_ms), (Place::Instances("S".into(), vec![2, 0]), 40, Some(5_000)));
    assert_eq!(post.iter().map(|predicate| predicate.signal).collect::<Vec<_>>(), [Signal::InFlight, Signal::Ready]);
    let [_, restore] = parse("drain S new 60s ; restore if ready(S)>=1").unwrap().try_into().unwrap();
    let Step { action: Action::RestoreTraffic { of, .. }, pre, .. }: Step = restore else { panic!("a restore") };
    assert_eq!((of, pre.len()), (Restored::AllOpen, 1));
}

#[test]
fn errors_say_where_and_what_would_be_right() {
    let all: String = [
        "",
        "restart",
        "restart S ;",
        "reboot S",
        "kubectl delete pod S",
        "restart S ; rm -rf /",
        "par { restart S | restart T }",
        "restart: restart S",
        "restart S wave many",
        "restart S wave 99999999999",
        "restart S\n  wave -1",
        "drain S 50% some 60s",
        "drain S new 7.5s",
        "drain S new 60",
        "drain S new",
        "ratelimit S 60 120s",
        "ratelimit S 60%",
        "break A->S shut 60s",
        "scale S 3 60s",
        "restore S weights T@0:100",
        "restart S until happy(S)>=3",
        "restart S until ready(S)<=3",
        "restart S until ready(S)>=-3",
        "restart S else pray",
        "restart S$(x)",
        "restart S extra",
    ]
    .iter()
    .map(|text| format!("{text:?}: {}\n", error(text)))
    .collect();
    expect![[r#"
        "": K101 line 1, column 1: expected a step, found the end
        "restart": K101 line 1, column 8: expected a service, found the end
        "restart S ;": K101 line 1, column 12: expected a step, found the end
        "reboot S": K103 line 1, column 1: `reboot` is not an action; the seven are restart, drain, restore, break, ratelimit, scale, rollback
        "kubectl delete pod S": K103 line 1, column 1: `kubectl` is not an action; the seven are restart, drain, restore, break, ratelimit, scale, rollback
        "restart S ; rm -rf /": K103 line 1, column 13: `rm` is not an action; the seven are restart, drain, restore, break, ratelimit, scale, rollback
        "par { restart S | restart T }": K101 line 1, column 1: `par` is not supported: write the steps in order
        "restart: restart S": K101 line 1, column 1: `restart` is not a step key: a letter, then letters, digits and `-`, no keyword
        "restart S wave many": K104 line 1, column 16: `many` is not a whole number below 2^32
        "restart S wave 99999999999": K104 line 1, column 16: `99999999999` is not a whole number below 2^32
        "restart S\n  wave -1": K101 line 2, column 8: expected a number, found `-`
        "drain S 50% some 60s": K104 line 1, column 13: `some`: a drain takes `new` or `all` requests
        "drain S new 7.5s": K104 line 1, column 13: `7.5s` is not a duration such as `500ms`, `120s` or `2m`
        "drain S new 60": K104 line 1, column 13: `60` is not a duration such as `500ms`, `120s` or `2m`
        "drain S new": K101 line 1, column 12: expected a duration such as `120s`, found the end
        "ratelimit S 60 120s": K104 line 1, column 16: a rate ends in `%` or `rps`
        "ratelimit S 60%": K101 line 1, column 16: expected a duration such as `120s`, found the end
        "break A->S shut 60s": K104 line 1, column 12: `shut`: a breaker is `open` or `half-open`
        "scale S 3 60s": K104 line 1, column 9: a scale is `+n`, `-n` or `=n`
        "restore S weights T@0:100": K104 line 1, column 21: `T@0` is no place of `S`
        "restart S until happy(S)>=3": K106 line 1, column 17: `happy` is not a condition
        "restart S until ready(S)<=3": K106 line 1, column 25: this condition is written with `>=`
        "restart S until ready(S)>=-3": K101 line 1, column 27: expected a number, found `-`
        "restart S else pray": K101 line 1, column 16: `pray` is not `undo`, `stop`, `retry` or `undo-to`
        "restart S$(x)": K101 line 1, column 10: expected `;` or the end of the plan, found `$`
        "restart S extra": K101 line 1, column 11: expected `;` or the end of the plan, found `extra`
    "#]].assert_eq(&all);
}

#[test]
fn limits_hold() {
    let many = |steps: usize| vec!["restart S"; steps].join(" ; ");
    assert_eq!(parse(&many(STEPS_MAX)).unwrap().len(), STEPS_MAX);
    assert_eq!(parse(&many(STEPS_MAX + 1)).unwrap_err().code, Code::K102);
    let padded = |bytes: usize| format!("restart S{}", " ".repeat(bytes - 9));
    assert!(parse(&padded(PLAN_BYTES_MAX)).is_ok());
    assert_eq!(parse(&padded(PLAN_BYTES_MAX + 1)).unwrap_err().code, Code::K102);
    assert_eq!(parse(&"restart S ;".repeat(10_000)).unwrap_err().code, Code::K102);
    let list = |items: usize| (0..items).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
    assert!(parse(&format!("restart S@{}", list(LIST_MAX))).is_ok());
    assert_eq!(parse(&format!("restart S@{}", list(LIST_MAX + 1))).unwrap_err().code, Code::K102);
    let conditions = |count: usize| format!("restart S until {}", vec!["ready(S)>=1"; count].join(","));
    assert!(parse(&conditions(PREDICATES_MAX)).is_ok());
    assert_eq!(parse(&conditions(PREDICATES_MAX + 1)).unwrap_err().code, Code::K102);
    assert!(parse(&format!("restart {}", "x".repeat(NAME_BYTES_MAX))).is_ok());
    assert_eq!(parse(&format!("restart {}", "x".repeat(NAME_BYTES_MAX + 1))).unwrap_err().code, Code::K101);
}
