use super::super::fixture::{EDGES, SERVICES, plan_of};
use super::*;
use crate::isa::{
    Action, BreakerMode, DrainMode, EdgeName, Limited, Place, Rate, RestartStrategy, Restored, Revision, ScaleTo,
};
use crate::plan::Step;
use base::canon::Canon;
use proptest::prelude::*;

fn service() -> impl Strategy<Value = String> {
    (0..SERVICES.len()).prop_map(|index| SERVICES[index].0.to_owned())
}

fn edge() -> impl Strategy<Value = EdgeName> {
    (0..EDGES.len()).prop_map(|index| EdgeName { caller: EDGES[index].0.into(), callee: EDGES[index].1.into() })
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        service().prop_map(Place::Service),
        (service(), prop::collection::vec(0_u32..3, 1..3)).prop_map(|(name, list)| Place::Instances(name, list)),
        (service(), 1..4).prop_map(|(name, zone)| Place::Zone(name, format!("z{zone}"))),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let ttl = 1_000_u64..200_000;
    prop_oneof![
        (place(), 1_u32..3, prop::option::of(0_u64..5_000)).prop_map(|(place, wave, grace_ms)| {
            let strategy = RestartStrategy::Rolling;
            Action::Restart { place, strategy, wave, surge: 0, grace_ms, jitter_ms: None }
        }),
        (place(), 1_u32..101, ttl.clone()).prop_map(|(place, percent, ttl_ms)| {
            Action::Drain { place, percent, mode: DrainMode::New, timeout_ms: None, ttl_ms }
        }),
        Just(Action::RestoreTraffic { of: Restored::AllOpen, ramp: vec![25, 50, 100], ramp_ms: None }),
        (edge(), 1_u32..101, ttl.clone()).prop_map(|(edge, percent, ttl_ms)| {
            let (what, rate) = (Limited::Edge(edge), Rate::Percent(percent));
            Action::RateLimit { what, rate, burst: None, priority: None, ttl_ms }
        }),
        (edge(), ttl.clone()).prop_map(|(edge, ttl_ms)| {
            Action::CircuitBreak { edge, mode: BreakerMode::Open, fallback: None, ttl_ms }
        }),
        (service(), 0_u32..6, ttl)
            .prop_map(|(service, to, ttl_ms)| { Action::Scale { service, to: ScaleTo::Exactly(to), ttl_ms } }),
        Just(Action::RollbackConfig {
            kind: "flag".into(),
            namespace: "main".into(),
            name: "fast".into(),
            to: Revision::LastGood
        }),
    ]
}

fn any_plan() -> impl Strategy<Value = Plan> {
    prop::collection::vec(action().prop_map(Step::new), 1..5).prop_map(plan_of)
}

fn any_world() -> impl Strategy<Value = World> {
    let readiness = prop::collection::vec(any::<bool>(), 17);
    (readiness, 50_000_u64..300_000, 10_000_u64..200_000, any::<bool>()).prop_map(
        |(ready, capacity, load, metastable)| {
            let mut world = healthy();
            let mut flags = ready.into_iter().cycle();
            for facts in world.services.values_mut() {
                facts.capacity_mrps = Some(capacity);
                facts.load_mrps = Some(load);
                for instance in &mut facts.instances {
                    instance.ready = flags.next().unwrap();
                }
            }
            world.services.get_mut("payments").unwrap().metastable = metastable;
            world
        },
    )
}

/// One way to make a world worse.
#[derive(Clone, Debug)]
enum Worse {
    Older,
    Hold(String),
    LessCapacity,
    MoreLoad,
    ImmatureGraph,
    ShorterBudget,
    SmallerBudgets,
    NoActuator,
    Unread(String),
    Lease(String),
}

fn worse() -> impl Strategy<Value = Worse> {
    prop_oneof![
        Just(Worse::Older),
        service().prop_map(Worse::Hold),
        Just(Worse::LessCapacity),
        Just(Worse::MoreLoad),
        Just(Worse::ImmatureGraph),
        Just(Worse::ShorterBudget),
        Just(Worse::SmallerBudgets),
        Just(Worse::NoActuator),
        service().prop_map(Worse::Unread),
        service().prop_map(Worse::Lease),
    ]
}

fn worsen(world: &World, how: &Worse) -> World {
    let mut out = world.clone();
    match how {
        Worse::Older => out.now = out.now.plus(Millis(2_000)),
        Worse::Hold(name) => out.holds.push(HoldFacts { scope: vec![name.clone()], version: 1 }),
        Worse::LessCapacity => {
            out.services.values_mut().for_each(|facts| facts.capacity_mrps = facts.capacity_mrps.map(|now| now / 2))
        }
        Worse::MoreLoad => {
            out.services.values_mut().for_each(|facts| facts.load_mrps = facts.load_mrps.map(|now| now * 2))
        }
        Worse::ImmatureGraph => {
            let few = super::super::fixture::tally(100);
            out.slice.edit(|picture| picture.services.values_mut().for_each(|view| view.outward = few.clone()));
        }
        Worse::ShorterBudget => out.intent.budget_left = Millis(out.intent.budget_left.0 / 8),
        Worse::SmallerBudgets => {
            out.policy.services_max /= 2;
            out.policy.loss_max /= 2;
            out.policy.scope_ratio_max /= 2;
        }
        Worse::NoActuator => out.capabilities.truncate(3),
        Worse::Unread(name) => {
            out.services.remove(name);
        }
        Worse::Lease(name) => {
            let lease = LeaseFacts { incident: "b".repeat(26), exclusive: vec![name.clone()], ..LeaseFacts::default() };
            out.leases.push(lease);
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_worse_world_never_admits_what_a_better_one_refused(plan in any_plan(), world in any_world(), how in worse()) {
        let worse = worsen(&world, &how);
        // The plan is bound to the slice it is judged with, so that only the worsening is compared.
        let bound = |world: &World| Plan { topology: world.slice.digest(), ..plan.clone() };
        if check(&bound(&world), &world).is_err() {
            prop_assert!(check(&bound(&worse), &worse).is_err(), "{how:?} admitted {}", crate::text::steps(&plan.steps));
        }
    }

    #[test]
    fn the_same_input_gives_the_same_bytes(plan in any_plan(), world in any_world()) {
        let bytes = |world: &World| check(&plan, world).map_err(|list| base::canon::object("check", &list.to_value()));
        let copy = World::from_value(world.to_value()).unwrap();
        prop_assert_eq!(bytes(&world), bytes(&copy));
    }

    #[test]
    fn an_offered_plan_passes(plan in any_plan(), world in any_world()) {
        if let Some((next, edits)) = nearest(&plan, &world) {
            let mut after = world.clone();
            after.previous = Some(plan.clone());
            prop_assert_eq!(edits.len(), 1);
            prop_assert!(check(&next, &after).is_ok(), "{}", explained(&next, &after));
        }
    }

    #[test]
    fn text_json_and_digest_agree(plan in any_plan()) {
        let printed = crate::text::steps(&plan.steps);
        let from_text = Plan { steps: crate::text::parse(&printed).unwrap(), ..plan.clone() };
        let json = crate::plan::json::render(&plan).to_string();
        let from_json = crate::plan::json::parse(&json).unwrap();
        prop_assert_eq!(from_text.digest(), plan.digest());
        prop_assert_eq!(from_json.digest(), plan.digest());
        prop_assert_eq!(from_json.normalize(), plan.normalize());
        prop_assert_eq!(Plan::from_value(plan.to_value()), Ok(plan));
    }

    #[test]
    fn no_text_panics(text in "[a-z0-9@#%:;,>()=+ -]{0,60}") {
        let _ = crate::text::parse(&text);
        let _ = crate::plan::json::parse(&text);
    }
}
