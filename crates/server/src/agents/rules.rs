//! The built-in agents: rules over the view, in a fixed order, the same answer for the same view.

use super::{AgentChange, AgentProposal, AgentService, AgentView, BUILT_IN, Diagnosis};
use std::collections::BTreeSet;

/// How much of the load the rules planner leaves when it has to shed, in percent.
const KEEP_PERCENT: u32 = 60;
/// Capacity must exceed load by this factor, in percent, for traffic to be moved instead of shed.
const HEADROOM_PERCENT: u64 = 120;
/// An instance that holds so many times the memory of the lightest one is out of the ordinary.
const MEMORY_MULTIPLE: u64 = 3;
/// Life of what the plan sets, in seconds.
const TTL_S: u32 = 120;

/// Names the deepest service that is not well while everything it depends on is.
#[must_use]
pub fn diagnose(view: &AgentView) -> Diagnosis {
    let broken = |name: &String| view.services.get(name).is_some_and(|service| !out_of(service).is_empty());
    let odd: BTreeSet<&String> = view.impaired.iter().chain(&view.suspects).collect();
    let out: BTreeSet<&String> = view.services.keys().filter(|name| broken(name)).collect();
    // What has an instance out is a better suspect than what is merely slow, which a busy machine makes of anything.
    let candidates: BTreeSet<&String> =
        if out.is_empty() { view.services.keys().filter(|name| odd.contains(name)).collect() } else { out };
    let clean_below = |name: &&&String| {
        let below = view.edges.iter().filter(|edge| edge.hard && edge.caller == ***name);
        below.into_iter().all(|edge| !candidates.contains(&edge.callee))
    };
    let deepest = candidates.iter().find(|name| clean_below(name));
    let Some(suspect) = deepest.map(|name| (*name).clone()) else { return Diagnosis::default() };
    let service = view.services.get(&suspect).cloned().unwrap_or_default();
    let storm = view.edges.iter().any(|edge| edge.callee == suspect && edge.attempts_permille >= 2_000);
    let mut mode = mode(&service);
    if storm {
        mode.push_str(", retry storm");
    }
    Diagnosis { suspect: Some(suspect), mode }
}

/// What a service looks like, in words.
fn mode(service: &AgentService) -> String {
    if let Some(change) = &service.change {
        return format!(
            "every instance answers errors since {} changed to revision {}",
            change.object, change.revision
        );
    }
    let heavy = heavy(service);
    if !service.unready.is_empty() {
        "instance out".to_owned()
    } else if service.failing.is_empty() {
        "slow".to_owned()
    } else if service.failing.iter().any(|replica| heavy.contains(replica)) {
        "instance answers errors and holds far more memory than the others".to_owned()
    } else {
        "instance answers errors".to_owned()
    }
}

/// Replicas that hold a multiple of the memory of the lightest one.
fn heavy(service: &AgentService) -> Vec<u32> {
    let Some(least) = service.memory_kib.iter().map(|(_, held)| *held).min() else { return Vec::new() };
    let bound = least.saturating_mul(MEMORY_MULTIPLE);
    service.memory_kib.iter().filter(|(_, held)| *held >= bound).map(|(replica, _)| *replica).collect()
}

/// Instances that serve nobody.
fn out_of(service: &AgentService) -> Vec<u32> {
    let out: BTreeSet<u32> = service.unready.iter().chain(&service.failing).copied().collect();
    out.into_iter().collect()
}

/// Instances that serve.
fn serving(service: &AgentService) -> usize {
    service.ready.iter().filter(|replica| !service.failing.contains(replica)).count()
}

/// Fills the plan for the diagnosis. A changed configuration is returned to the last good one. Otherwise: move traffic off
/// the broken instance where the others can carry it, else shed load where it enters the retrying caller; then restart;
/// then give everything back. What was refused before is revised to the nearest plan that the kernel would take.
#[must_use]
pub fn propose(view: &AgentView) -> AgentProposal {
    let diagnosis = diagnose(view);
    let plan = match (&view.nearest, diagnosis.suspect.as_ref().and_then(|name| Some((name, view.services.get(name)?))))
    {
        (Some(nearest), Some(_)) if view.refused.as_deref() == Some(BUILT_IN) => Ok(nearest.clone()),
        (_, Some((name, service))) => plan_for(view, name, service),
        (_, None) => Err("no service stands out as the one to act on".to_owned()),
    };
    let opinion = serde_json::json!({ "mode": diagnosis.mode });
    match plan {
        Ok(plan) => AgentProposal { plan: Some(plan), opinion, reason: None },
        Err(reason) => AgentProposal { plan: None, opinion, reason: Some(reason) },
    }
}

fn plan_for(view: &AgentView, suspect: &str, service: &AgentService) -> Result<String, String> {
    if let Some(change) = &service.change {
        return roll_back(suspect, change);
    }
    let all_fail = service.unready.is_empty() && serving(service) == 0;
    // Where it is known whose restart it does not survive, restarting it is no guess.
    if all_fail && service.ready.len() > 1 && service.follows.is_empty() {
        return Err(format!(
            "every instance of {suspect} answers errors, and none of the configuration it is declared to read changed \
             shortly before: a restart would be a guess"
        ));
    }
    let out = out_of(service);
    let restarted = if out.is_empty() { &service.ready } else { &out };
    if restarted.is_empty() {
        return Err(format!("{suspect} has no instance to act on"));
    }
    let list = restarted.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    // What fails in a way that no trace explains goes one by one while the traces are trusted no further.
    let is_careful = view.cautious && (service.together.len() > 1 || !service.follows.is_empty());
    let opening = if !can_carry(view, suspect) {
        let retrying = caller_of(view, suspect).unwrap_or_else(|| suspect.to_owned());
        let edges = view.edges.iter().filter(|edge| edge.callee == retrying);
        edges.map(|edge| format!("ratelimit {}->{retrying} {KEEP_PERCENT}% {TTL_S}s", edge.caller)).collect()
    } else if is_careful {
        return restarts(view, suspect, restarted, Vec::new(), is_careful);
    } else {
        vec![format!("drain {suspect}@{list} new {TTL_S}s")]
    };
    if opening.is_empty() {
        return Err(format!("load can neither be moved off {suspect}@{list} nor shed before it is restarted"));
    }
    restarts(view, suspect, restarted, opening, is_careful)
}

/// Restarts these replicas of the suspect and all of what must restart with it, in start order.
fn restarts(
    view: &AgentView,
    suspect: &str,
    restarted: &[u32],
    opening: Vec<String>,
    is_careful: bool,
) -> Result<String, String> {
    let list = restarted.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let mut steps = opening;
    let together = view.services.get(suspect).map(|service| service.together.as_slice()).unwrap_or_default();
    let alone = [suspect.to_owned()];
    for member in if together.is_empty() { &alone } else { together } {
        let known = view.services.get(member);
        let known = known.ok_or_else(|| format!("{member} restarts with {suspect}, and nothing is known of it"))?;
        let all = [known.ready.as_slice(), known.unready.as_slice()].concat();
        match (is_careful, member == suspect) {
            (true, is_suspect) => roll(&mut steps, member, known, if is_suspect { restarted } else { &all }),
            (false, true) => steps.push(format!("restart {suspect}@{list}")),
            (false, false) => steps.push(format!("restart {member}")),
        }
    }
    if steps.iter().any(|step| !step.starts_with("restart")) {
        steps.push("restore".to_owned());
    }
    Ok(steps.join(" ; "))
}

/// Restarts replicas one after the other, each without traffic meanwhile; the last one gets it back with everything else. A
/// single one keeps it: there is nowhere else to send it.
fn roll(steps: &mut Vec<String>, name: &str, service: &AgentService, replicas: &[u32]) {
    let is_single = service.ready.len() + service.unready.len() < 2;
    for replica in replicas {
        if is_single {
            steps.push(format!("restart {name}@{replica}"));
            continue;
        }
        steps.push(format!("drain {name}@{replica} new {TTL_S}s"));
        let drain = steps.len();
        steps.push(format!("restart {name}@{replica}"));
        if Some(replica) != replicas.last() {
            // At once: what it had before is a part of what one replica can do, or it would not have been drained.
            steps.push(format!("restore s{drain} ramp 100"));
        }
    }
}

/// A restart does not help against a configuration that every new process reads again.
fn roll_back(suspect: &str, change: &AgentChange) -> Result<String, String> {
    let AgentChange { object, revision, changed_at_ms, known_good, needed_ms } = change;
    match known_good {
        Some(_) => Ok(format!("rollback {object}")),
        None => Err(format!(
            "every instance of {suspect} answers errors since {object} changed to revision {revision} at {}; restarting \
             would not help, and no older revision was seen to serve well for {}",
            time_of_day(*changed_at_ms),
            base::Millis(*needed_ms)
        )),
    }
}

/// `09:41:07 UTC` of milliseconds since the Unix epoch.
fn time_of_day(at_ms: i64) -> String {
    let second = at_ms.div_euclid(1_000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02} UTC", second / 3_600, second / 60 % 60, second % 60)
}

/// Objects when the group derived again from a newer snapshot has other members or other hard callers.
#[must_use]
pub fn verify(group: &[String], again: &[String], callers: &[String], callers_again: &[String]) -> Vec<String> {
    let mut reasons = Vec::new();
    if group != again {
        reasons.push(format!("the group is now {{{}}}", again.join(", ")));
    }
    let missed: Vec<&String> = callers_again.iter().filter(|name| !callers.contains(name)).collect();
    if !missed.is_empty() {
        let names: Vec<&str> = missed.iter().map(|name| name.as_str()).collect();
        reasons.push(format!("hard callers were missed: {}", names.join(", ")));
    }
    reasons
}

/// Whether the ready instances carry the load with headroom. Unknown capacity or load: no.
fn can_carry(view: &AgentView, name: &str) -> bool {
    let Some(service) = view.services.get(name) else { return false };
    let (Some(load), Some(capacity)) = (service.baseline_mrps.max(service.load_mrps), service.capacity_mrps) else {
        return false;
    };
    let ready = capacity.saturating_mul(serving(service) as u64);
    !service.metastable && ready.saturating_mul(100) >= load.saturating_mul(HEADROOM_PERCENT)
}

/// The caller that retries most, if any caller is known.
fn caller_of(view: &AgentView, name: &str) -> Option<String> {
    let into = view.edges.iter().filter(|edge| edge.callee == name);
    into.max_by_key(|edge| (edge.attempts_permille, edge.caller.clone())).map(|edge| edge.caller.clone())
}

#[cfg(test)]
mod tests {
    use super::super::AgentEdge;
    use super::*;

    fn view(capacity_mrps: u64) -> AgentView {
        let edge = |caller: &str, callee: &str, attempts_permille| AgentEdge {
            caller: caller.into(),
            callee: callee.into(),
            hard: true,
            attempts_permille,
        };
        let payments = AgentService {
            ready: vec![1],
            unready: vec![0],
            load_mrps: Some(110_000),
            baseline_mrps: Some(100_000),
            capacity_mrps: Some(capacity_mrps),
            metastable: false,
            ..AgentService::default()
        };
        let checkout = AgentService { ready: vec![0, 1], ..AgentService::default() };
        AgentView {
            impaired: vec!["checkout".into(), "payments".into()],
            services: [("payments".to_owned(), payments), ("checkout".to_owned(), checkout)].into(),
            edges: vec![edge("gateway", "checkout", 1_000), edge("checkout", "payments", 2_900)],
            ..AgentView::default()
        }
    }

    #[test]
    fn load_is_shed_where_it_enters_the_retrying_caller_when_the_rest_cannot_carry_it() {
        let plan = propose(&view(80_000)).plan.unwrap();
        assert_eq!(plan, "ratelimit gateway->checkout 60% 120s ; restart payments@0 ; restore");
        assert_eq!(diagnose(&view(80_000)).mode, "instance out, retry storm");
    }

    #[test]
    fn traffic_is_moved_when_the_rest_can_carry_it() {
        let plan = propose(&view(400_000)).plan.unwrap();
        assert_eq!(plan, "drain payments@0 new 120s ; restart payments@0 ; restore");
    }

    #[test]
    fn nothing_wrong_or_nothing_known_gives_no_plan() {
        assert_eq!(propose(&AgentView::default()).plan, None);
        let mut blind = view(400_000);
        blind.services.get_mut("payments").unwrap().capacity_mrps = None;
        assert!(propose(&blind).plan.unwrap().starts_with("ratelimit"), "unknown capacity is never enough");
    }

    fn payments(view: &mut AgentView) -> &mut AgentService {
        view.services.get_mut("payments").unwrap()
    }

    fn failing(replicas: &[u32]) -> AgentView {
        let mut view = view(80_000);
        let service = payments(&mut view);
        (service.ready, service.unready, service.failing) = (vec![0, 1], Vec::new(), replicas.to_vec());
        service.memory_kib = vec![(0, 20_000), (1, 21_000)];
        view
    }

    fn changed(known_good: Option<i64>) -> AgentView {
        let mut view = failing(&[0, 1]);
        let object = "config/shop/payments".to_owned();
        payments(&mut view).change =
            Some(AgentChange { object, revision: 2, changed_at_ms: 1_790_000_000_000, known_good, needed_ms: 5_000 });
        view
    }

    #[test]
    fn an_instance_that_answers_errors_is_restarted_and_the_one_that_serves_is_not() {
        let plan = propose(&failing(&[1])).plan.unwrap();
        assert_eq!(plan, "ratelimit gateway->checkout 60% 120s ; restart payments@1 ; restore");
        assert_eq!(diagnose(&failing(&[1])).mode, "instance answers errors, retry storm");
        let mut leaking = failing(&[1]);
        payments(&mut leaking).memory_kib = vec![(0, 20_000), (1, 90_000)];
        let mode = diagnose(&leaking).mode;
        assert!(mode.contains("far more memory"), "{mode}");
        let mut roomy = failing(&[1]);
        payments(&mut roomy).capacity_mrps = Some(400_000);
        assert!(propose(&roomy).plan.unwrap().starts_with("drain payments@1"), "the one that serves carries it");
        payments(&mut roomy).capacity_mrps = Some(100_000);
        assert!(propose(&roomy).plan.unwrap().starts_with("ratelimit"), "one that fails carries nothing");
    }

    #[test]
    fn a_slow_service_below_does_not_hide_the_broken_one() {
        let mut noisy = failing(&[1]);
        noisy.suspects = vec!["ledger".into()];
        noisy.services.insert("ledger".into(), AgentService { ready: vec![0], ..AgentService::default() });
        let hard =
            AgentEdge { caller: "payments".into(), callee: "ledger".into(), hard: true, attempts_permille: 1_000 };
        noisy.edges.push(hard);
        assert_eq!(diagnose(&noisy).suspect.as_deref(), Some("payments"));
        payments(&mut noisy).failing.clear();
        assert_eq!(diagnose(&noisy).suspect.as_deref(), Some("ledger"), "nothing is broken, so the deepest odd one");
    }

    #[test]
    fn a_changed_configuration_is_returned_to_the_last_good_one_and_nothing_is_restarted() {
        assert_eq!(propose(&changed(Some(1))).plan.as_deref(), Some("rollback config/shop/payments"));
        assert!(recovery::text::parse("rollback config/shop/payments").is_ok());
        let mode = diagnose(&changed(Some(1))).mode;
        assert!(mode.starts_with("every instance answers errors since config/shop/payments changed to"), "{mode}");
    }

    #[test]
    fn what_must_restart_with_it_follows_and_with_care_one_replica_after_the_other_without_traffic() {
        let mut coupled = view(80_000);
        payments(&mut coupled).together = vec!["payments".into(), "inventory".into()];
        let unknown = propose(&coupled);
        assert!(unknown.plan.is_none() && unknown.reason.unwrap().contains("nothing is known of it"));
        let inventory = AgentService { ready: vec![0, 1], ..AgentService::default() };
        coupled.services.insert("inventory".into(), inventory);
        let plan = propose(&coupled).plan.unwrap();
        let surely = "ratelimit gateway->checkout 60% 120s ; restart payments@0 ; restart inventory ; restore";
        assert_eq!(plan, surely, "where nothing is suspected");
        coupled.cautious = true;
        let plan = propose(&coupled).plan.unwrap();
        let expected = "ratelimit gateway->checkout 60% 120s ; drain payments@0 new 120s ; restart payments@0 ; \
                        drain inventory@0 new 120s ; restart inventory@0 ; restore s4 ramp 100 ; \
                        drain inventory@1 new 120s ; restart inventory@1 ; restore";
        assert_eq!(plan, expected);
        assert!(recovery::text::parse(&plan).is_ok());
        // A single replica keeps its traffic: there is nowhere else to send it.
        coupled.services.get_mut("inventory").unwrap().ready = vec![0];
        let plan = propose(&coupled).plan.unwrap();
        assert!(plan.ends_with("; restart payments@0 ; restart inventory@0 ; restore"), "{plan}");
    }

    #[test]
    fn a_service_is_restarted_whole_where_it_is_known_whose_restart_it_did_not_survive() {
        let mut broken = failing(&[0, 1]);
        broken.cautious = true;
        payments(&mut broken).follows = vec!["ledger".into()];
        payments(&mut broken).together = vec!["payments".into()];
        let plan = propose(&broken).plan.unwrap();
        let middle =
            "restart payments@0 ; restore s2 ramp 100 ; drain payments@1 new 120s ; restart payments@1 ; restore";
        assert!(plan.ends_with(middle), "{plan}");
        // One that serves carries it: nothing is shed.
        let mut roomy = failing(&[]);
        payments(&mut roomy).capacity_mrps = Some(400_000);
        roomy.cautious = true;
        payments(&mut roomy).follows = vec!["ledger".into()];
        payments(&mut roomy).together = vec!["payments".into()];
        assert!(propose(&roomy).plan.unwrap().starts_with("drain payments@0"));
    }

    #[test]
    fn what_cannot_be_mended_is_handed_over_with_its_reason() {
        let none = propose(&changed(None));
        let reason = none.reason.unwrap();
        assert_eq!(none.plan, None);
        for part in [
            "config/shop/payments changed to revision 2 at 14:13:20 UTC",
            "restarting would not help",
            "no older revision",
        ] {
            assert!(reason.contains(part), "{reason}");
        }
        let guess = propose(&failing(&[0, 1]));
        assert_eq!(guess.plan, None);
        assert!(guess.reason.unwrap().contains("every instance of payments answers errors"));
    }

    #[test]
    fn a_refused_plan_is_revised_to_the_nearest_one() {
        let mut refused = view(80_000);
        refused.rejections = vec!["K303 payments".into()];
        refused.nearest = Some("restart payments@0".into());
        refused.refused = Some("agent/acme".into());
        assert!(propose(&refused).plan.unwrap().starts_with("ratelimit"), "another's plan is no plan of its own");
        refused.refused = Some(BUILT_IN.into());
        assert_eq!(propose(&refused).plan.as_deref(), Some("restart payments@0"));
    }

    #[test]
    fn the_verifier_objects_to_a_missed_caller() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(verify(&names(&["a"]), &names(&["a"]), &names(&["b"]), &names(&["b"])).is_empty());
        assert_eq!(verify(&names(&["a"]), &names(&["a"]), &names(&["b"]), &names(&["b", "c"])).len(), 1);
    }
}
