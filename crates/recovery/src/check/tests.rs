use super::fixture::{NOW, STORY, healthy, plan, world};
use super::*;
use crate::plan::{Cause, Change, lineage};
use crate::world::{Authority, Binding, Controller, HoldFacts, LeaseFacts, RunningPlan, World};
use base::{Millis, Ratio};

mod codes;
mod properties;
mod steps;

fn codes(plan: &Plan, world: &World) -> Vec<Code> {
    check(plan, world).err().into_iter().flatten().map(|rejection| rejection.code).collect()
}

fn explained(plan: &Plan, world: &World) -> String {
    check(plan, world).err().into_iter().flatten().map(|rejection| format!("{rejection}\n")).collect()
}

#[test]
fn the_story_is_admissible_and_fully_resolved() {
    let (plan, world) = (plan(STORY), world());
    let checked = check(&plan, &world).unwrap_or_else(|why| panic!("{why:#?}"));
    assert_eq!(checked.digest(), plan.digest());
    assert_eq!(checked.members(), ["checkout", "payments"]);
    assert_eq!(checked.writes(), ["checkout", "payments"]);
    assert_eq!(checked.hard_callers().names(), ["gateway"]);
    let [limit, restart, restore] = checked.steps() else { panic!("three steps") };
    assert_eq!(limit.desired, State::from([("limit/gateway->checkout".into(), 60_000)]));
    assert_eq!(limit.bound, Versions::from([("limit/gateway->checkout".into(), 1)]));
    assert_eq!((limit.ttl_ms, limit.done_ms, limit.guard_ms), (Some(120_000), 500, 2_500));
    assert_eq!(restart.targets, [("payments".to_owned(), 0)]);
    assert_eq!(restart.desired, State::from([("generation/payments@0".into(), 2)]));
    assert_eq!((restart.guard_ms, restart.touches_traffic), (0, false));
    assert_eq!(restart.deadline_ms, 1_000 + 1_000 + 1_000 + 100 + 9_000);
    assert_eq!(restore.desired, State::from([("limit/gateway->checkout".into(), -1)]));
    assert_eq!(crate::text::action(&restore.action), "restore s1 ramp 25,50,100 every 1s");
    assert_eq!(checked.expected_ms(), 3_000 + 2_100 + 4_500);
    assert_eq!(checked.effect().bound.to_string(), "edge restartable none");
}

#[test]
fn the_over_wide_plan_is_refused_because_cart_is_not_in_the_group() {
    let refused = check(&plan("restart payments ; restart cart ; restart checkout"), &world()).unwrap_err();
    let first = &refused[0];
    assert_eq!(
        (first.code, first.subject.as_str(), first.step.as_deref()),
        (Code::K207, "cart", Some("s2")),
        "{refused:#?}"
    );
    assert_eq!(first.bound, "{checkout,payments}");
    assert_eq!(first.repair.as_ref().map(ToString::to_string).as_deref(), Some("drop s2"));
    assert!(first.to_string().starts_with("K207 cart is not in the recovery group"), "{first}");
}

#[test]
fn rejections_come_in_the_documented_order() {
    let mut world = healthy();
    world.holds.push(HoldFacts::default());
    world.intent.signed = false;
    world.policy.actions_per_hour = 0;
    let refused = codes(&plan("restart cart ; restart nowhere"), &world);
    let ranks: Vec<usize> = refused.iter().map(|code| code.rank()).collect();
    assert!(ranks.is_sorted(), "{refused:?}");
    assert_eq!(refused.first(), Some(&Code::K401));
    for code in [Code::K501, Code::K201, Code::K207, Code::K311] {
        assert!(refused.contains(&code), "{code} is missing in {refused:?}");
    }
}

#[test]
fn errors_of_form_end_the_run_but_a_hold_is_still_listed() {
    let mut world = world();
    world.intent.signed = false;
    world.holds.push(HoldFacts { scope: vec!["payments".into()], version: 3 });
    let refused = codes(&plan("restart payments wave 5000"), &world);
    assert_eq!(refused, [Code::K401, Code::K104]);
}

#[test]
fn the_nearest_plan_is_one_edit_away_and_passes() {
    let world = world();
    let too_low = plan("ratelimit gateway->checkout 5% 120s ; restart payments@0 ; restore");
    let (next, edits) = nearest(&too_low, &world).unwrap();
    assert_eq!(edits, [Edit::Set { step: "s1".into(), parameter: "rate".into(), to: 10 }]);
    assert_eq!((next.revision, next.cause, next.parent), (2, Cause::Kernel, Some(too_low.digest())));
    let mut after = world.clone();
    after.previous = Some(too_low);
    assert!(check(&next, &after).is_ok(), "{}", explained(&next, &after));
    assert_eq!(nearest(&plan(STORY), &world), None, "an admissible plan has no nearest other");

    let wrong = plan("ratelimit gateway->checkout 60% 120s ; restart payments@0 ; restart cart@0 ; restore");
    let (next, edits) = nearest(&wrong, &world).unwrap();
    assert_eq!(edits, [Edit::Drop { step: "s3".into() }]);
    assert_eq!(
        crate::text::steps(&next.steps),
        "ratelimit gateway->checkout 60% 120s ; restart payments@0 ; s4: restore"
    );
}

#[test]
fn a_mutation_within_its_bounds_passes_and_others_do_not() {
    let first = plan(STORY);
    let mut world = world();
    world.previous = Some(first.clone());
    let change = |path: &str, from: &str, to: &str| Change { path: path.into(), from: from.into(), to: to.into() };
    let lower = lineage::mutate(&first, &change("s1.rate", "60%", "45%")).unwrap();
    assert!(check(&lower, &world).is_ok(), "{}", explained(&lower, &world));
    assert_eq!(crate::text::steps(&lower.steps), STORY.replace("60%", "45%"));

    for (path, from, to) in [("s1.rate", "60%", "95%"), ("s1.rate", "60%", "44%"), ("s2.wave", "1", "2")] {
        let next = lineage::mutate(&first, &change(path, from, to)).unwrap();
        assert_eq!(codes(&next, &world).first(), Some(&Code::K112), "{path} to {to}");
    }
    let mut hidden = lower.clone();
    hidden.steps.pop();
    assert!(codes(&hidden, &world).contains(&Code::K112), "more changed than is listed");
    world.mutations_used = 4;
    assert_eq!(codes(&lower, &world), [Code::K112]);
    for (path, from, to) in
        [("s1.rate", "50%", "45%"), ("s9.rate", "60%", "45%"), ("s1.rate", "60%", "x"), ("rate", "", "")]
    {
        assert!(lineage::mutate(&first, &change(path, from, to)).is_err(), "{path} {from} {to}");
    }
}

#[test]
fn every_refusal_has_a_sentence_and_survives_the_canonical_form() {
    use base::canon::Canon;
    for (index, code) in Code::ALL.iter().enumerate() {
        assert_eq!(code.rank(), index);
        assert!(!code.text().is_empty() && !code.name().is_empty());
        assert_eq!(*code as u16, code.word()[1..].parse::<u16>().unwrap(), "number and word agree");
    }
    for rejection in check(&plan("restart cart ; scale payments +9 60s"), &healthy()).unwrap_err() {
        assert_eq!(Rejection::from_value(rejection.to_value()), Ok(rejection.clone()));
    }
}

#[test]
fn a_world_survives_the_canonical_form() {
    use base::canon::Canon;
    let mut world = world();
    world.previous = Some(plan(STORY));
    world.binding = Some(Binding { plan: plan(STORY).digest(), ..Binding::default() });
    world.authority = Some(Authority { granted: true, expires_at: NOW, ..Authority::default() });
    let bytes = base::canon::object("world", &world.to_value());
    let back = World::from_value(base::canon::parse_object("world", &bytes).unwrap());
    assert_eq!(back, Ok(world));
}
