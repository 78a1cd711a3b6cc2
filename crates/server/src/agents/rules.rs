//! The built-in agents: rules over the view, in a fixed order, the same answer for the same view.

use super::{AgentProposal, AgentView, Diagnosis};
use std::collections::BTreeSet;

/// How much of the load the rules planner leaves when it has to shed, in percent.
const KEEP_PERCENT: u32 = 60;
/// Capacity must exceed load by this factor, in percent, for traffic to be moved instead of shed.
const HEADROOM_PERCENT: u64 = 120;
/// Life of what the plan sets, in seconds.
const TTL_S: u32 = 120;

/// Names the deepest service that is not well while everything it depends on is.
#[must_use]
pub fn diagnose(view: &AgentView) -> Diagnosis {
    let broken = |name: &String| view.services.get(name).is_some_and(|service| !service.unready.is_empty());
    let odd: BTreeSet<&String> = view.impaired.iter().chain(&view.suspects).collect();
    let candidates: BTreeSet<&String> =
        view.services.keys().filter(|name| broken(name) || odd.contains(name)).collect();
    let clean_below = |name: &&&String| {
        let below = view.edges.iter().filter(|edge| edge.hard && edge.caller == ***name);
        below.into_iter().all(|edge| !candidates.contains(&edge.callee))
    };
    let deepest: Vec<&&String> = candidates.iter().filter(|name| clean_below(name)).collect();
    let chosen = deepest.iter().find(|name| broken(name)).or_else(|| deepest.first());
    let Some(suspect) = chosen.map(|name| (**name).clone()) else { return Diagnosis::default() };
    let storm = view.edges.iter().any(|edge| edge.callee == suspect && edge.attempts_permille >= 2_000);
    let mode = if storm {
        "instance out, retry storm"
    } else if broken(&suspect) {
        "instance out"
    } else {
        "slow"
    };
    Diagnosis { suspect: Some(suspect), mode: mode.to_owned() }
}

/// Fills the plan for the diagnosis: move traffic off the broken instance where the others can carry it,
/// else shed load where it enters the retrying caller; then restart; then give everything back.
#[must_use]
pub fn propose(view: &AgentView) -> AgentProposal {
    let unknown = AgentProposal { plan: None, opinion: serde_json::Value::Null };
    let diagnosis = diagnose(view);
    let Some(suspect) = diagnosis.suspect else { return unknown };
    let Some(service) = view.services.get(&suspect) else { return unknown };
    let restarted = if service.unready.is_empty() { &service.ready } else { &service.unready };
    if restarted.is_empty() {
        return unknown;
    }
    let list = restarted.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let opening = if can_carry(view, &suspect) {
        vec![format!("drain {suspect}@{list} new {TTL_S}s")]
    } else {
        let retrying = caller_of(view, &suspect).unwrap_or_else(|| suspect.clone());
        let edges = view.edges.iter().filter(|edge| edge.callee == retrying);
        edges.map(|edge| format!("ratelimit {}->{retrying} {KEEP_PERCENT}% {TTL_S}s", edge.caller)).collect()
    };
    if opening.is_empty() {
        return unknown;
    }
    let plan = format!("{} ; restart {suspect}@{list} ; restore", opening.join(" ; "));
    AgentProposal { plan: Some(plan), opinion: serde_json::json!({ "mode": diagnosis.mode }) }
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
    let ready = capacity.saturating_mul(service.ready.len() as u64);
    !service.metastable && ready.saturating_mul(100) >= load.saturating_mul(HEADROOM_PERCENT)
}

/// The caller that retries most, if any caller is known.
fn caller_of(view: &AgentView, name: &str) -> Option<String> {
    let into = view.edges.iter().filter(|edge| edge.callee == name);
    into.max_by_key(|edge| (edge.attempts_permille, edge.caller.clone())).map(|edge| edge.caller.clone())
}

#[cfg(test)]
mod tests {
    use super::super::{AgentEdge, AgentService};
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

    #[test]
    fn the_verifier_objects_to_a_missed_caller() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(verify(&names(&["a"]), &names(&["a"]), &names(&["b"]), &names(&["b"])).is_empty());
        assert_eq!(verify(&names(&["a"]), &names(&["a"]), &names(&["b"]), &names(&["b", "c"])).len(), 1);
    }
}
