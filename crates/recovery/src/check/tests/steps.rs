use super::*;

/// The story's world while its plan runs.
fn running() -> (Checked, World) {
    let plan = plan(STORY);
    let mut world = world();
    let checked = check(&plan, &world).unwrap();
    let authority =
        Authority { plan: plan.digest(), granted: true, expires_at: NOW.plus(Millis(60_000)), current: true };
    world.authority = Some(authority);
    (checked, world)
}

fn refused(checked: &Checked, key: &str, world: &World) -> Vec<Code> {
    let step = checked.step(key).unwrap();
    recheck_step(checked.digest(), step, world).err().into_iter().flatten().map(|refusal| refusal.code).collect()
}

#[test]
fn every_step_of_the_story_passes_again_as_the_world_moves_with_it() {
    let (checked, mut world) = running();
    assert_eq!(refused(&checked, "s1", &world), []);
    world.settings.state.insert("limit/gateway->checkout".into(), 60_000);
    world.settings.versions.insert("limit/gateway->checkout".into(), 2);
    world.own_versions.insert("limit/gateway->checkout".into(), 2);
    assert_eq!(refused(&checked, "s2", &world), []);
    assert_eq!(refused(&checked, "s3", &world), [], "our own receipt moved the version");
    world.own_versions.clear();
    assert_eq!(refused(&checked, "s3", &world), [Code::K407], "someone else moved it");
}

#[test]
fn fresh_facts_stop_a_step() {
    let (checked, world) = running();
    let with = |change: &dyn Fn(&mut World)| {
        let mut world = world.clone();
        change(&mut world);
        world
    };
    let payments = |change: fn(&mut crate::world::ServiceFacts)| {
        with(&|world| change(world.services.get_mut("payments").unwrap()))
    };
    assert_eq!(refused(&checked, "s2", &with(&|world| world.authority = None)), [Code::K408]);
    assert_eq!(refused(&checked, "s2", &with(&|world| world.holds.push(HoldFacts::default()))), [Code::K401]);
    assert_eq!(refused(&checked, "s2", &payments(|facts| facts.metastable = true)), [Code::K214]);
    assert_eq!(refused(&checked, "s2", &payments(|facts| facts.instances[0].generation = 2)), [], "applied already");
    let stale = payments(|facts| facts.observed_at = NOW.minus(Millis(1_001)));
    assert_eq!(refused(&checked, "s2", &stale), [Code::K404]);
    // The instance came back meanwhile: now the restart takes a ready one out.
    let back = payments(|facts| {
        facts.instances[0].ready = true;
        facts.min_available = Some(2);
    });
    assert_eq!(refused(&checked, "s2", &back), [Code::K301]);
    let moved = with(&|world| {
        world.settings.versions.insert("generation/payments@0".into(), 2);
    });
    assert_eq!(refused(&checked, "s2", &moved), [Code::K407]);
    assert_eq!(refused(&checked, "s2", &with(&|world| world.unreconciled.push("payments".into()))), [Code::K406]);
}

#[test]
fn traffic_does_not_return_to_an_instance_that_is_not_ready() {
    let plan = plan("drain payments@0 new 60s ; restart payments@0 ; restore");
    let (_, mut world) = running();
    world.authority = None;
    let checked = check(&plan, &world).unwrap();
    let authority = Authority { plan: plan.digest(), granted: true, expires_at: NOW.plus(Millis(1)), current: true };
    world.authority = Some(authority);
    world.own_versions = world.settings.versions.clone();
    assert_eq!(refused(&checked, "s3", &world), [Code::K404]);
    let instance = &mut world.services.get_mut("payments").unwrap().instances[0];
    (instance.ready, instance.ready_since) = (true, Some(NOW.minus(Millis(999))));
    assert_eq!(refused(&checked, "s3", &world), [Code::K404]);
    world.services.get_mut("payments").unwrap().instances[0].ready_since = Some(NOW.minus(Millis(1_000)));
    assert_eq!(refused(&checked, "s3", &world), []);
}
