use super::*;
use crate::bundle::{Difference, Differing, Judgment, Unsupported, Verdict, replay};

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

    let strict = under(|policy| policy.tiers.get_mut("bronze").unwrap().envelope.a_ceiling = Ratio::clamped(1_000));
    let strict = strict.unwrap().pop().unwrap();
    assert!(strict.is_changed());
    assert_eq!(strict.decided.binding.as_ref().map(|reason| reason.code), Some(Code::G207));
    assert_eq!(
        (strict.lost(), strict.gained()),
        (vec![], vec!["G207 could make it worse 1.9% (limit 0.1%)".to_owned()])
    );

    let observing = replay.under(&policy("observe")).unwrap().pop().unwrap();
    assert!(observing.is_changed() && observing.decided.outcome == Outcome::Commit);

    let code = |found: Result<Vec<crate::bundle::WhatIf>, Unsupported>| found.unwrap_err().code();
    assert_eq!(code(under(|policy| drop(policy.tiers.remove("bronze")))), "ST-1502");
    let kernel: [fn(&mut Policy); 8] = [
        |policy| policy.tiers.get_mut("bronze").unwrap().kernel.headroom_ppm += 1,
        |policy| policy.tiers.get_mut("bronze").unwrap().envelope.scope_ratio_max += 1,
        |policy| policy.tiers.get_mut("bronze").unwrap().windows.impaired_for = Millis(1),
        |policy| policy.tiers.get_mut("bronze").unwrap().windows.ready_for = Millis(1),
        |policy| policy.tiers.get_mut("bronze").unwrap().windows.guard.window = Millis(1),
        |policy| policy.tiers.get_mut("bronze").unwrap().windows.graph.snapshot_age_max = Millis(1),
        |policy| policy.classes.get_mut("traffic-shed").unwrap().mutable.clear(),
        |policy| policy.classes.get_mut("traffic-shed").unwrap().actions.clear(),
    ];
    for (at, change) in kernel.into_iter().enumerate() {
        assert_eq!(code(under(change)), "ST-1503", "{at}");
    }
    let pairs = under(|policy| policy.tiers.get_mut("bronze").unwrap().windows.auto.pairs_min += 1);
    assert!(pairs.is_ok(), "only the decision reads it");
    let sources = under(|policy| policy.tiers.get_mut("bronze").unwrap().envelope.sources_min += 1);
    assert_eq!(code(sources), "ST-1503");
    let invariants = under(|policy| {
        policy.classes.get_mut("traffic-shed").unwrap().invariants.push("progress".into());
    });
    assert_eq!(code(invariants), "ST-1504");
}

#[test]
fn a_bound_for_which_no_fix_was_searched_is_no_what_if_once_it_is_exceeded() {
    let replay = replay(&good().bytes, None).unwrap();
    let under = |change: fn(&mut crate::policy::Tier)| {
        let mut other = policy("auto");
        change(other.tiers.get_mut("bronze").unwrap());
        replay.under(&other)
    };
    let exceeded: [fn(&mut crate::policy::Tier); 2] =
        [|tier| tier.economics.retry_amplification_max_ppm = 1_599_999, |tier| tier.limits.max_delay = Millis(37_999)];
    for change in exceeded {
        let refused = under(change).unwrap_err();
        assert_eq!((refused.code(), &refused), ("ST-1503", &Unsupported::Differs(Differing::Fixes)));
    }
    let kept: [fn(&mut crate::policy::Tier); 4] = [
        |tier| tier.economics.retry_amplification_max_ppm = 1_600_000,
        |tier| tier.economics.retry_amplification_max_ppm += 1,
        |tier| tier.economics.backlog_max = 0,
        |tier| tier.limits.max_delay = Millis(38_000),
    ];
    for change in kept {
        assert!(under(change).unwrap().iter().all(|what_if| !what_if.is_changed()));
    }
    let mut slow = policy("auto");
    slow.classes.get_mut("traffic-shed").unwrap().converge_deadline = Millis(8_999);
    assert_eq!(replay.under(&slow), Err(Unsupported::Differs(Differing::Fixes)));
}

/// A bundle that verifies but for its decision.
pub(super) fn another_decision() -> Vec<u8> {
    incident("auto", 0, &decision(|decision| decision.numbers.retries_ppm = Some(1))).bytes
}
