//! One fixture per code: the story with one thing wrong fires that code, and nothing before it.

use super::*;
use crate::isa::{Action, Place};
use crate::plan::{
    CHANGES_MAX, Change, FOOTPRINT_MAX, LIST_MAX, MUTATIONS_MAX, OnFail, PREDICATES_MAX, Predicate, REVISIONS_MAX,
    STEPS_MAX, Signal,
};
use base::Timestamp;

/// Fires exactly this code.
fn only(code: Code, steps: &str, world: &World) {
    let plan = plan(steps);
    let found = codes(&plan, world);
    assert!(!found.is_empty() && found.iter().all(|found| *found == code), "{code}: {}", explained(&plan, world));
}

/// Fires this code first.
fn first(code: Code, steps: &str, world: &World) {
    let plan = plan(steps);
    assert_eq!(codes(&plan, world).first(), Some(&code), "{}", explained(&plan, world));
}

/// The story in a changed world fires exactly this code.
fn story(code: Code, change: impl FnOnce(&mut World)) {
    let mut world = world();
    change(&mut world);
    only(code, STORY, &world);
}

fn with(change: impl FnOnce(&mut World)) -> World {
    let mut world = healthy();
    change(&mut world);
    world
}

/// The story's world with the ledger in the group.
fn with_ledger() -> World {
    let mut world = world();
    world.targets.push("ledger".into());
    world
}

#[test]
fn forms() {
    let w = world();
    let mut bad = plan(STORY);
    bad.incident = "UPPER".into();
    assert_eq!(codes(&bad, &w), [Code::K101]);
    let long = plan("restart payments@0");
    let steps = vec![long.steps[0].clone(); STEPS_MAX + 1];
    assert!(codes(&Plan { steps, ..long.clone() }, &w).contains(&Code::K102));
    assert_eq!(codes(&Plan { steps: Vec::new(), ..long.clone() }, &w), [Code::K101]);
    assert_eq!(codes(&Plan { revision: REVISIONS_MAX + 1, ..long }, &w), [Code::K102]);
    only(Code::K104, "restart payments@0 wave 0", &w);
    only(Code::K104, "restart payments@0 surge 2", &w);
    only(Code::K104, "restart payments@zone=z1", &w);
    only(Code::K104, "restart payments@0 group", &w);
    only(Code::K104, "drain payments@0 0% new 60s", &w);
    only(Code::K104, "drain payments@0 new 3601s", &w);
    only(Code::K104, "ratelimit payments 101% 60s", &w);
    only(Code::K104, "ratelimit payments@0 50% 60s", &w);
    only(Code::K104, "restore payments weights payments@0:50,payments@1:49", &w);
    only(Code::K104, "drain payments@0 new 60s ; restore ramp 50,25,100", &w);
    only(Code::K104, "drain payments@0 new 60s ; restore ramp 50", &w);
    only(Code::K104, "rollback shell/main/x", &w);
    only(Code::K105, "restart payments@0 ; restore", &w);
    only(Code::K105, "restart payments@0 ; restore s1", &w);
    only(Code::K105, "restore s2 ; drain payments@0 new 60s", &w);
    only(Code::K105, "a: restart payments@0 ; a: ratelimit payments 50% 60s", &w);
    only(Code::K105, "restart payments@0 else undo-to s4", &w);
}

/// The bounds of numbers are what the check accepts, and one more is refused with the bound as repair.
#[test]
fn numbers_are_refused_beyond_their_limit() {
    let w = world();
    for (steps, parameter, max) in [
        ("drain payments@0 new {}ms", "ttl_ms", TTL_MS_MAX),
        ("drain payments@0 new 60s timeout {}ms", "timeout_ms", PAUSE_MS_MAX),
        ("break gateway->checkout open {}ms", "ttl_ms", TTL_MS_MAX),
        ("ratelimit gateway->checkout 50% {}ms", "ttl_ms", TTL_MS_MAX),
        ("scale payments +1 {}ms", "ttl_ms", SCALE_TTL_MS_MAX),
        ("restart payments@0 wave {}", "wave", u64::from(WAVE_MAX)),
        ("restart payments@0 grace {}ms", "grace_ms", PAUSE_MS_MAX),
        ("restart payments@0 jitter {}ms", "jitter_ms", PAUSE_MS_MAX),
        ("drain payments@0 new 60s ; restore ramp 50,100 every {}ms", "ramp_ms", PAUSE_MS_MAX),
    ] {
        let judged = |value: u64| check(&plan(&steps.replace("{}", &value.to_string())), &w).err().unwrap_or_default();
        let form = |found: &Rejection| found.code == Code::K104;
        assert!(!judged(max).iter().any(form), "{steps} at {max}: {:?}", judged(max));
        let over = judged(max + 1);
        let refused: Vec<_> = over.iter().filter(|found| form(found)).map(|found| found.subject.as_str()).collect();
        assert_eq!(refused, [parameter], "{steps} beyond {max}");
    }
}

#[test]
fn lists_are_refused_beyond_their_limit() {
    let w = world();
    let base = plan(STORY);
    let refused = |change: &dyn Fn(&mut Plan)| {
        let mut plan = base.clone();
        change(&mut plan);
        codes(&plan, &w).contains(&Code::K102)
    };
    let change = Change { path: "a".into(), from: "b".into(), to: "c".into() };
    let ready = |value| Predicate { signal: Signal::Ready, subject: None, value };
    let conditions = |count: usize| (0_i64..).map(ready).take(count).collect::<Vec<_>>();
    let names = |count: usize| (0..count).map(|number| format!("s{number}")).collect::<Vec<_>>();
    let instances = |count: u32| Place::Instances("payments".into(), (0..count).collect());
    for (extra, expected) in [(0, false), (1, true)] {
        assert_eq!(refused(&|plan| plan.changes = vec![change.clone(); CHANGES_MAX + extra]), expected, "changes");
        assert_eq!(refused(&|plan| plan.footprint = names(FOOTPRINT_MAX + extra)), expected, "footprint");
        assert_eq!(refused(&|plan| plan.steps[1].pre = conditions(PREDICATES_MAX + extra)), expected, "pre");
        assert_eq!(refused(&|plan| plan.steps[1].post = conditions(PREDICATES_MAX + extra)), expected, "post");
        let list = u32::try_from(LIST_MAX + extra).unwrap();
        let longer = |plan: &mut Plan| {
            if let Action::Restart { place, .. } = &mut plan.steps[1].action {
                *place = instances(list);
            }
        };
        assert_eq!(refused(&longer), expected, "list");
    }
}

#[test]
fn mutations_and_revisions_come_to_an_end() {
    let parent = plan(STORY);
    let change = Change { path: "s1.rate".into(), from: "60%".into(), to: "45%".into() };
    let mutated = lineage::mutate(&parent, &change).unwrap();
    let mut w = World { previous: Some(parent.clone()), ..world() };
    w.mutations_used = MUTATIONS_MAX - 1;
    assert!(check(&mutated, &w).is_ok(), "{}", explained(&mutated, &w));
    w.mutations_used = MUTATIONS_MAX;
    assert_eq!(codes(&mutated, &w), [Code::K112]);
    let wide = Plan {
        revision: REVISIONS_MAX,
        ..plan("ratelimit gateway->checkout 60% 120s ; restart payments@0 ; restart cart@0 ; restore")
    };
    assert_eq!(nearest(&wide, &world()), None, "a repair would be one revision too many");
    assert!(nearest(&Plan { revision: 1, ..wide }, &world()).is_some());
}

#[test]
fn a_reading_from_the_future_is_not_fresh() {
    use super::super::state::{FACT_SKEW_MAX, is_fresh};
    let w = world();
    assert!(is_fresh(&w, w.now.plus(FACT_SKEW_MAX)));
    assert!(!is_fresh(&w, w.now.plus(Millis(FACT_SKEW_MAX.0 + 1))));
}

#[test]
fn conditions_and_typing() {
    let w = world();
    only(Code::K106, "restart payments@0 until ready(nowhere)>=1", &w);
    only(Code::K106, "restart payments@0 until ready(checkout->payments)>=1", &w);
    only(Code::K106, "restart payments@0 until revision(flag/main/other)=1", &w);
    let mut negative = plan("restart payments@0");
    negative.steps[0].post = vec![Predicate { signal: Signal::Ready, subject: None, value: -1 }];
    assert_eq!(codes(&negative, &w), [Code::K106]);
    only(Code::K107, "ratelimit gateway->checkout 60% 5s ; restart payments@0 ; restore", &w);
    first(Code::K108, "restart payments@0 ; scale payments +1 600s", &w);
    first(Code::K108, "restart payments@0 ; drain payments@0 new 60s", &w);
    first(Code::K108, "rollback flag/main/fast to r1 ; rollback flag/main/fast to r2", &w);
    story(Code::K109, |world| {
        world.settings.state.remove("limit/gateway->checkout");
    });
    story(Code::K110, |world| world.policy.type_max.class = RollbackClass::Reversible);
    story(Code::K113, |world| world.capabilities.retain(|known| known.action != crate::isa::ActionKind::RateLimit));
}

#[test]
fn lineage_codes() {
    let parent = plan(STORY);
    let mut w = world();
    w.previous = Some(parent.clone());
    let orphan = Plan { revision: 2, cause: Cause::Pilot, ..plan(STORY) };
    assert_eq!(codes(&orphan, &w), [Code::K112]);
    let skipped = Plan { revision: 3, parent: Some(parent.digest()), cause: Cause::Pilot, ..plan(STORY) };
    assert_eq!(codes(&skipped, &w), [Code::K112]);
    let first = Plan { cause: Cause::Kernel, ..plan(STORY) };
    assert_eq!(codes(&first, &w), [Code::K112]);
    w.previous = None;
    let unknown = Plan { revision: 2, parent: Some(parent.digest()), cause: Cause::Pilot, ..plan(STORY) };
    assert_eq!(codes(&unknown, &w), [Code::K112]);

    // From an over-wide plan to the group: narrower, though other services are touched than before.
    let wide = plan("restart cart");
    let next = lineage::revise(&wide, Cause::Kernel, plan(STORY).steps);
    w.previous = Some(wide);
    assert!(check(&next, &w).is_ok(), "{}", explained(&next, &w));
    let wider = lineage::revise(&parent, Cause::Pilot, plan("ratelimit catalog 50% 60s").steps);
    w.previous = Some(parent);
    assert!(codes(&wider, &w).contains(&Code::K112));
}

#[test]
fn authority_graph_and_facts() {
    story(Code::K501, |world| world.intent.signed = false);
    story(Code::K501, |world| world.intent.incident = "z".repeat(26));
    story(Code::K502, |world| world.intent.expires_at = NOW);
    let late = Plan { deadline_ms: NOW, ..plan(STORY) };
    assert_eq!(codes(&late, &world()).first(), Some(&Code::K502));
    let other = Plan { topology: Digest::of(b"other"), ..plan(STORY) };
    assert_eq!(codes(&other, &world()), [Code::K503]);
    let mut old = world();
    old.slice.edit(|picture| picture.newest = Some(NOW.minus(Millis(600_001))));
    assert!(codes(&plan(STORY), &old).contains(&Code::K503));
    let mut young = world();
    let few = super::super::fixture::tally(100);
    young.slice.edit(|picture| picture.services.values_mut().for_each(|view| view.inward = few.clone()));
    let pinned = |steps: &str| Plan { topology: young.slice.digest(), ..plan(steps) };
    assert_eq!(codes(&pinned(STORY), &young), [Code::K504]);
    let careful = pinned("drain payments@0 new 60s ; restart payments@0 ; restore");
    assert!(check(&careful, &young).is_ok(), "{}", explained(&careful, &young));
    let mut blind = world();
    blind.slice.edit(|picture| picture.services.values_mut().for_each(|view| view.coverage = (100, 50)));
    let pinned = Plan { topology: blind.slice.digest(), ..plan(STORY) };
    assert_eq!(codes(&pinned, &blind), [Code::K505]);
    story(Code::K506, |world| world.settings.at = NOW.minus(Millis(1_001)));
    story(Code::K506, |world| world.settings.at = NOW.plus(Millis(5_001)));
    story(Code::K506, |world| {
        world.services.get_mut("payments").unwrap().observed_at = NOW.minus(Millis(1_001));
    });
    let mut absent = world();
    absent.services.remove("checkout");
    let refused = check(&plan(STORY), &absent).unwrap_err();
    assert!(refused.iter().any(|refusal| refusal.code == Code::K506 && refusal.unknown), "{refused:#?}");
    story(Code::K507, |world| world.proposer.proposals_left = 0);
    story(Code::K507, |world| world.proposer.separate = false);
    story(Code::K508, |world| world.vetoes.push(plan(STORY).digest()));
    story(Code::K509, |world| world.intent.policy = Digest::of(b"older"));
    story(Code::K509, |world| world.policy.actions.retain(|kind| *kind != crate::isa::ActionKind::Restart));
    story(Code::K509, |world| world.intent.class = "failover".into());
}

#[test]
fn names_and_scope() {
    let w = world();
    first(Code::K201, "restart nowhere", &w);
    first(Code::K201, "restart payments@7", &w);
    first(Code::K201, "ratelimit nowhere 50rps 60s", &w);
    first(Code::K201, "drain payments@zone=z9 new 60s", &w);
    first(Code::K201, "rollback flag/main/unknown", &w);
    only(Code::K202, "ratelimit catalog 50% 60s", &w);
    only(Code::K202, "ratelimit catalog->catalog-cache 50% 60s", &w);
    story(Code::K203, |world| {
        world.fault.weights.insert("checkout".into(), 20);
        world.fault.impaired = vec!["payments".into()];
    });
    story(Code::K203, |world| world.fault.impaired.clear());
    story(Code::K203, |world| {
        world.fault.weights.remove("checkout");
    });
    story(Code::K204, |world| world.services.get_mut("payments").unwrap().trust_zone = Some("card".into()));
    first(Code::K211, "ratelimit gateway->payments 50% 60s", &w);
    only(Code::K211, "break checkout->ledger half-open 60s", &with_ledger());
    only(Code::K212, "break checkout->payments open 60s", &w);
    only(Code::K212, "break checkout->payments open fallback cached 60s", &w);
    let mut covered = world();
    covered.edges.get_mut("checkout->payments").unwrap().fallback = Some("cached".into());
    assert!(check(&plan("break checkout->payments open fallback cached 60s"), &covered).is_ok());
    only(Code::K212, "break checkout->payments open fallback other 60s", &covered);
    covered.services.get_mut("payments").unwrap().critical = true;
    only(Code::K213, "break checkout->payments open fallback cached 60s", &covered);
}

#[test]
fn groups_order_and_drains() {
    let coupled = with(|world| {
        world.targets = vec!["catalog".into()];
        world.fault.impaired = vec!["catalog".into()];
    });
    only(Code::K205, "restart catalog@0", &coupled);
    assert!(
        check(&plan("restart catalog-cache@0 ; restart catalog@0"), &coupled).is_ok(),
        "{}",
        explained(&plan("restart catalog-cache@0 ; restart catalog@0"), &coupled)
    );
    only(Code::K208, "restart catalog@0 ; restart catalog-cache@0", &coupled);
    let mut small = coupled.clone();
    small.policy.group_max = 1;
    only(Code::K206, "restart catalog-cache@0 ; restart catalog@0", &small);
    let w = world();
    only(Code::K207, "restart payments@0 ; restart cart@0", &w);
    only(Code::K208, "drain payments@0 new 60s ; restore ; restart payments@0", &w);
    let unordered = with(|world| world.policy.headroom_ppm = 0);
    only(Code::K208, "drain payments@0 50% new 60s ; drain checkout@0 50% new 60s", &unordered);
    // A dependency that was missed and never called has no traffic that could come back over it.
    let mut uncalled = unordered.clone();
    uncalled.slice.edit(|picture| {
        for edge in picture.edges.iter_mut().filter(|edge| edge.callee == "payments") {
            (edge.missed, edge.calls) = (true, 0);
        }
    });
    let drains = plan("drain payments@0 50% new 60s ; drain checkout@0 50% new 60s");
    assert!(!codes(&drains, &uncalled).contains(&Code::K208), "{}", explained(&drains, &uncalled));
    let drained = with(|world| {
        world.policy.drain_fan_in = 0;
        world.policy.headroom_ppm = 0;
    });
    only(Code::K209, "restart payments@0", &drained);
    let good = plan("drain payments@0 new 60s ; restart payments@0 ; restore");
    assert!(check(&good, &drained).is_ok(), "{}", explained(&good, &drained));
    let (next, edits) = nearest(&plan("restart payments@0"), &drained).unwrap();
    assert_eq!(edits, [Edit::InsertDrain { step: "s1".into() }]);
    assert_eq!(
        crate::text::steps(&next.steps),
        "k1: drain payments@0 new 120s ; s1: restart payments@0 ; k2: restore k1"
    );
    let stated = Plan { footprint: vec!["checkout".into(), "payments".into()], ..plan(STORY) };
    assert_eq!(codes(&stated, &w), [Code::K210]);
    let full = Plan { footprint: vec!["checkout".into(), "gateway".into(), "payments".into()], ..plan(STORY) };
    assert!(check(&full, &w).is_ok());
    let loaded = with(|world| {
        world.policy.headroom_ppm = 0;
        world.policy.removed_max = Ratio::ONE;
    });
    only(Code::K213, "drain payments new 60s", &loaded);
    let stormy = |world: &mut World| world.services.get_mut("payments").unwrap().metastable = true;
    let mut bad = world();
    stormy(&mut bad);
    only(Code::K214, "restart payments@0", &bad);
    assert!(check(&plan(STORY), &bad).is_ok(), "shedding upstream comes first");
    let mut worse = world();
    stormy(&mut worse);
    only(Code::K214, "ratelimit gateway->checkout 60% 120s ; restore ; restart payments@0", &worse);
}

#[test]
fn capacity() {
    let ready = healthy();
    assert!(check(&plan("restart payments@0"), &ready).is_ok(), "{}", explained(&plan("restart payments@0"), &ready));
    let set =
        |change: fn(&mut crate::world::ServiceFacts)| with(|world| change(world.services.get_mut("payments").unwrap()));
    only(Code::K301, "restart payments@0", &set(|facts| facts.min_available = Some(2)));
    only(Code::K301, "drain payments@0 new 60s", &set(|facts| facts.min_available = Some(2)));
    only(Code::K302, "restart payments@0", &set(|facts| facts.quorum_of = Some(3)));
    only(Code::K302, "scale payments +2 600s", &set(|facts| facts.quorum_of = Some(2)));
    only(Code::K303, "restart payments@0", &set(|facts| facts.capacity_mrps = Some(119_999)));
    only(Code::K303, "restart payments@0", &set(|facts| facts.capacity_mrps = None));
    let tight = set(|facts| facts.capacity_mrps = Some(80_000));
    let shed = plan("ratelimit gateway->checkout 60% 120s ; restart payments@0 ; restore");
    assert!(check(&shed, &tight).is_ok(), "the load is what the limit leaves: {}", explained(&shed, &tight));
    assert!(codes(&plan("scale payments =0 600s"), &ready).contains(&Code::K304));
    only(Code::K304, "scale payments =9 600s", &ready);
    only(Code::K305, "scale payments +2 600s", &set(|facts| facts.quota_left = Some(1)));
    only(Code::K306, "ratelimit payments 9% 60s", &ready);
    only(Code::K306, "ratelimit payments 9rps 60s", &ready);
    only(Code::K306, "ratelimit payments 50% 60s", &set(|facts| facts.baseline_mrps = None));
    let idle = set(|facts| facts.sheddable = true);
    assert!(check(&plan("ratelimit payments 0% 60s"), &idle).is_ok());
    only(Code::K308, "restart payments@0", &with(|world| world.policy.loss_max = 50));
    only(Code::K308, "restart payments@0", &with(|world| world.policy.removed_max = Ratio::parse("49%").unwrap()));
    only(Code::K312, "restart payments@0", &with(|world| world.policy.storm_below = Ratio::ONE).tap_unready("cart", 0));
}

#[test]
fn what_is_out_already_is_not_taken() {
    let mut w = world();
    let payments = w.services.get_mut("payments").unwrap();
    (payments.min_available, payments.quorum_of, payments.capacity_mrps) = (Some(2), Some(3), Some(1));
    w.policy.loss_max = 0;
    w.policy.removed_max = Ratio::ZERO;
    w.policy.storm_below = Ratio::ONE;
    assert!(check(&plan(STORY), &w).is_ok(), "{}", explained(&plan(STORY), &w));
    let refused = codes(&plan("restart payments"), &w);
    for code in [Code::K301, Code::K302, Code::K303, Code::K308, Code::K312] {
        assert!(refused.contains(&code), "{code} when a ready one is taken too: {refused:?}");
    }
}

#[test]
fn budgets_and_revisions() {
    story(Code::K307, |world| world.policy.services_max = 2);
    story(Code::K307, |world| world.policy.edges_max = 1);
    story(Code::K309, |world| world.intent.budget_left = Millis(9_000));
    story(Code::K310, |world| {
        world.services.get_mut("payments").unwrap().last_restart_at = Some(NOW.minus(Millis(4_999)));
    });
    only(Code::K310, "restart payments@0 ; restart payments@0", &world());
    story(Code::K311, |world| world.actions_used = 598);
    let w = world();
    assert!(check(&plan("rollback flag/main/fast"), &w).is_ok(), "{}", explained(&plan("rollback flag/main/fast"), &w));
    only(Code::K313, "rollback flag/main/fast to r3", &w);
    only(Code::K313, "rollback flag/main/fast to r9", &w);
    let mut bound = world();
    bound.objects.get_mut("flag/main/fast").unwrap().revisions[1].dependents = vec!["workload/main/payments".into()];
    only(Code::K314, "rollback flag/main/fast", &bound);
    let mut marked = world();
    marked.objects.get_mut("flag/main/fast").unwrap().revisions[2].no_downgrade = true;
    only(Code::K314, "rollback flag/main/fast", &marked);
}

#[test]
fn state_and_others() {
    story(Code::K401, |world| world.holds.push(HoldFacts { scope: vec!["payments".into()], version: 1 }));
    let mut elsewhere = world();
    elsewhere.holds.push(HoldFacts { scope: vec!["ledger".into()], version: 1 });
    assert!(check(&plan(STORY), &elsewhere).is_ok());
    let lease = |exclusive: &str, shared: &str| LeaseFacts {
        incident: "b".repeat(26),
        epoch: 4,
        exclusive: vec![exclusive.into()],
        shared: vec![shared.into()],
    };
    story(Code::K402, |world| world.leases.push(lease("gateway", "x")));
    story(Code::K402, |world| world.leases.push(lease("x", "checkout")));
    let running = |writes: &str, more: bool| RunningPlan {
        incident: "b".repeat(26),
        writes: vec![writes.into()],
        hard_callers: Vec::new(),
        more,
    };
    story(Code::K403, |world| world.running.push(running("gateway", false)));
    story(Code::K403, |world| world.running.push(running("elsewhere", true)));
    story(Code::K403, |world| world.running = vec![running("elsewhere", false); 16]);
    only(Code::K404, "restart payments@0 if ready(payments)>=2", &world());
    only(Code::K404, "restart payments@0 if queue(payments)<=5", &world());
    let mut measured = world();
    let fact = crate::world::SignalFact { observed_at: NOW, value: 5 };
    measured.signals.insert("queue(payments)".into(), fact);
    assert!(
        check(&plan("restart payments@0 if queue(payments)<=5,ready>=1,inflight<=4,weight=100"), &measured).is_ok()
    );
    let owner = |holdable| Some(Controller { name: "autoscaler".into(), holdable });
    let mut owned = healthy();
    owned.services.get_mut("payments").unwrap().controller = owner(false);
    only(Code::K405, "scale payments +1 600s", &owned);
    owned.services.get_mut("payments").unwrap().controller = owner(true);
    assert!(check(&plan("scale payments +1 600s"), &owned).is_ok());
    story(Code::K406, |world| world.unreconciled.push("payments".into()));
    let bound = |plan_digest, version| Binding {
        plan: plan_digest,
        topology: super::super::fixture::slice().digest(),
        versions: Versions::from([("limit/gateway->checkout".into(), version)]),
    };
    story(Code::K407, |world| world.binding = Some(bound(plan(STORY).digest(), 2)));
    story(Code::K407, |world| world.binding = Some(bound(Digest::of(b"other"), 1)));
    let mut same = world();
    same.binding = Some(bound(plan(STORY).digest(), 1));
    assert!(check(&plan(STORY), &same).is_ok());
    let authority =
        |granted, current, expires_at| Authority { plan: plan(STORY).digest(), granted, expires_at, current };
    story(Code::K408, |world| world.authority = Some(authority(false, true, NOW.plus(Millis(1)))));
    story(Code::K408, |world| world.authority = Some(authority(true, true, NOW)));
    story(Code::K409, |world| world.authority = Some(authority(true, false, NOW.plus(Millis(1)))));
}

#[test]
fn malformed_in_ways_the_renderings_cannot_write() {
    let w = world();
    let mut odd = plan("restart payments@0");
    odd.steps[0].key = "Not A Key".into();
    assert_eq!(codes(&odd, &w), [Code::K105]);
    odd.steps[0].key = String::new();
    odd.steps[0].on_fail = OnFail::UndoTo("gone".into());
    assert_eq!(codes(&odd, &w), [Code::K105]);
    odd.steps[0].on_fail = OnFail::Undo;
    let Action::Restart { place, .. } = &mut odd.steps[0].action else { panic!("a restart") };
    *place = Place::Service("pay; rm -rf".into());
    assert_eq!(codes(&odd, &w), [Code::K104]);
    assert_eq!(Timestamp(0).since(NOW), Millis(0));
}

trait Unready {
    fn tap_unready(self, service: &str, replica: u32) -> World;
}

impl Unready for World {
    fn tap_unready(mut self, service: &str, replica: u32) -> World {
        let facts = self.services.get_mut(service).unwrap();
        let instance = facts.instances.iter_mut().find(|instance| instance.replica == replica).unwrap();
        (instance.ready, instance.ready_since) = (false, None);
        self
    }
}
