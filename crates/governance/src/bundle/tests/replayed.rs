use super::*;
use crate::bundle::{Difference, Judgment, Unsupported, Verdict, replay};

fn decision(change: fn(&mut Decision)) -> impl Fn(&mut Record) {
    move |record: &mut Record| {
        if let Record::Decision(decision) = record {
            change(decision)
        }
    }
}

fn verdicts(tamper: Tamper<'_>) -> Vec<(Judgment, Verdict)> {
    let replay = replay(&incident("auto", 0, tamper).bytes, None).unwrap();
    let same = replay.judged.iter().all(|judged| judged.verdict == Verdict::Same);
    assert_eq!(replay.is_same(), same);
    replay.judged.into_iter().map(|judged| (judged.judgment, judged.verdict)).collect()
}

#[test]
fn a_decision_follows_again_and_what_cannot_be_made_again_is_never_the_same() {
    let [check, decided] = verdicts(&|_| ()).try_into().unwrap();
    assert_eq!(decided, (Judgment::Decision, Verdict::Same));
    // This bundle was made without its plan: nobody can say that the kernel would judge it as it did.
    assert_eq!(check, (Judgment::Check, Verdict::NotMade("the bundle does not hold the plan".into())));
    let [_, (_, foreign)] = verdicts(&decision(|decision| decision.semantics = 2)).try_into().unwrap();
    assert!(matches!(foreign, Verdict::NotMade(why) if why.contains("version 2")));
}

#[test]
fn another_decision_is_named_by_its_first_field_and_by_both_values() {
    let differs = |change| match verdicts(&decision(change)).pop() {
        Some((Judgment::Decision, Verdict::Different(Difference { field, recorded, now }))) => (field, recorded, now),
        other => panic!("{other:?}"),
    };
    let expect = |field: &str, recorded: &str, now: &str| (field.to_owned(), recorded.to_owned(), now.to_owned());
    let retries = differs(|decision| decision.numbers.retries_ppm = Some(1));
    assert_eq!(retries, expect("numbers.retries_ppm", "1", "1600000"));
    let outcome = differs(|decision| decision.valid_until = Timestamp(5_000_000));
    assert_eq!(outcome, expect("valid_until", "5000000", "61007"));
    let dropped = differs(|decision| decision.uncalibrated.truncate(2));
    assert_eq!(dropped, expect("uncalibrated.2", "nothing", "E10"));
    // The verifier refuses the same bundles: nobody is told that they are sound.
    let forged = decision(|decision| decision.numbers.retries_ppm = Some(1));
    assert_eq!(failed(&incident("auto", 0, &forged).bytes).0, Code::V11);
}

#[test]
fn what_does_not_verify_is_not_replayed() {
    let bytes = good().bytes;
    for at in (0..bytes.len()).step_by(997) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert!(replay(&flipped, None).is_err(), "byte {at}");
    }
    let misquoted = |record: &mut Record| {
        if let Record::Pilot(pilot) = record {
            pilot.runs = 499
        }
    };
    let error = replay(&incident("auto", 0, &misquoted).bytes, None).unwrap_err();
    assert_eq!(error.code, Code::V11);
    assert!(replay(b"", None).is_err());
}

#[test]
fn another_policy_is_a_what_if_or_it_is_said_that_it_cannot_be() {
    let replay = replay(&good().bytes, None).unwrap();
    let under = |change: fn(&mut Policy)| {
        let mut other = policy("auto");
        change(&mut other);
        replay.under(&other)
    };
    let same = under(|_| ()).unwrap();
    assert!(same.iter().all(|what_if| !what_if.is_changed() && what_if.decided == what_if.recorded));

    let strict = under(|policy| {
        policy.tiers.get_mut("bronze").unwrap().economics.retry_amplification_max_ppm = 1_500_000;
    });
    let strict = strict.unwrap().pop().unwrap();
    assert!(strict.is_changed());
    assert_eq!(strict.decided.binding.as_ref().map(|reason| reason.code), Some(Code::G209));
    assert_eq!((strict.lost(), strict.gained()), (vec![], vec!["G209 retries 160% (limit 150%)".to_owned()]));

    let observing = replay.under(&policy("observe")).unwrap().pop().unwrap();
    assert!(observing.is_changed() && observing.decided.outcome == Outcome::Commit);

    let code = |found: Result<Vec<crate::bundle::WhatIf>, Unsupported>| found.unwrap_err().code();
    assert_eq!(code(under(|policy| drop(policy.tiers.remove("bronze")))), "ST-1502");
    let kernel = under(|policy| policy.tiers.get_mut("bronze").unwrap().kernel.headroom_ppm += 1);
    assert_eq!(code(kernel), "ST-1503");
    let windows = under(|policy| policy.tiers.get_mut("bronze").unwrap().windows.impaired_for = Millis(1));
    assert_eq!(code(windows), "ST-1503");
    let sources = under(|policy| policy.tiers.get_mut("bronze").unwrap().envelope.sources_min += 1);
    assert_eq!(code(sources), "ST-1503");
    let invariants = under(|policy| {
        policy.classes.get_mut("traffic-shed").unwrap().invariants.push("progress".into());
    });
    assert_eq!(code(invariants), "ST-1504");
}

/// A bundle that verifies but for its decision.
pub(super) fn another_decision() -> Vec<u8> {
    incident("auto", 0, &decision(|decision| decision.numbers.retries_ppm = Some(1))).bytes
}
