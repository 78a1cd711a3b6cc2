use super::*;
use crate::graph::{Config, EdgeKind, EdgeView, Graph, Hardness, Level, Seconds};
use crate::topology::{Service, Topology};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(1_000_000);

/// A snapshot in which everything declared may be used: fresh, joined, and nothing measured.
fn usable(topology: &Topology, calls: &[(String, String)]) -> Snapshot {
    let mut graph = Graph::new(&Config::default());
    graph.declare(topology).unwrap();
    let mut snapshot = graph.snapshot(NOW);
    let mut calls = calls.to_vec();
    calls.sort();
    calls.dedup();
    snapshot.edit(|picture| {
        (picture.newest, picture.joined_since) = (Some(NOW), Some(Timestamp(0)));
        picture.services.values_mut().for_each(|view| view.coverage = (100, 0));
        picture.edges = calls.iter().filter(|(a, b)| a != b).map(|(caller, callee)| edge(caller, callee)).collect();
    });
    snapshot
}

fn edge(caller: &str, callee: &str) -> EdgeView {
    EdgeView {
        caller: caller.into(),
        callee: callee.into(),
        kind: EdgeKind::Sync,
        hardness: Hardness::Unknown,
        rate_mrps: 1_000,
        calls: 41_203,
        executions: 41_203,
        retries_permille: 0,
        mean_us: 1_000,
        first_seen: Some(Timestamp(0)),
        last_seen: Some(Timestamp(998_000)),
        declared: true,
        callee_ok: (0, 0),
        callee_error: (0, 0),
        inside: 0,
        seconds: Seconds::default(),
        changed: 0,
        fallback: None,
        missed: false,
    }
}

fn topology(names: usize, coupled: &[(usize, usize)]) -> Topology {
    let mut topology = Topology::default();
    for number in 0..names {
        topology.service.insert(format!("s{number}"), Service::default());
    }
    for (from, to) in coupled.iter().filter(|(from, to)| from != to) {
        topology.service.get_mut(&format!("s{from}")).unwrap().coupled.push(format!("s{to}"));
    }
    topology
}

fn named(pairs: &[(usize, usize)]) -> Vec<(String, String)> {
    pairs.iter().map(|(from, to)| (format!("s{from}"), format!("s{to}"))).collect()
}

#[test]
fn one_service_restarts_alone_and_a_declared_pair_together() {
    let snapshot = usable(&topology(3, &[(0, 1)]), &named(&[(2, 0), (0, 1)]));
    let alone = group(&snapshot, &["s2"], &GroupPolicy::at(NOW)).unwrap();
    assert_eq!((alone.members, alone.waves), (vec!["s2".to_owned()], vec![vec![vec!["s2".to_owned()]]]));
    let pair = group(&snapshot, &["s1"], &GroupPolicy::at(NOW)).unwrap();
    assert_eq!(pair.members, ["s0", "s1"]);
    // s0 calls s1: s1 is up first, and s0 is drained first.
    assert_eq!(pair.waves, [[["s1"]], [["s0"]]]);
    assert_eq!(drain_order(&pair), ["s0", "s1"]);
    assert_eq!(pair.permission.level, Level::Cautious);
}

#[test]
fn too_many_coupled_services_are_never_restarted_together() {
    let chain: Vec<(usize, usize)> = (0..30).map(|n| (n, n + 1)).collect();
    let snapshot = usable(&topology(31, &chain), &[]);
    let refused = group(&snapshot, &["s0"], &GroupPolicy::at(NOW));
    assert_eq!(refused, Err(GroupError::TooLarge { at_least: 31, cap: 30 }));
    assert!(refused.unwrap_err().to_string().contains("31 services"));
}

#[test]
fn what_breaks_a_floor_is_unrestartable_unless_it_is_out_already() {
    let mut topology = topology(1, &[]);
    let service = topology.service.get_mut("s0").unwrap();
    (service.replicas.start, service.replicas.max, service.min_available) = (2, 2, Some(2));
    let snapshot = usable(&topology, &[]);
    let mut policy = GroupPolicy::at(NOW);
    let broken = |constraint| Err(GroupError::Unrestartable { service: "s0".into(), constraint });
    assert_eq!(group(&snapshot, &["s0"], &policy), broken(Constraint::MinAvailable));
    policy.instances.insert("s0".into(), Instances { total: 2, ready: 1 });
    assert!(group(&snapshot, &["s0"], &policy).is_ok());
    topology.service.get_mut("s0").unwrap().min_available = None;
    topology.service.get_mut("s0").unwrap().quorum_of = Some(3);
    let snapshot = usable(&topology, &[]);
    assert_eq!(group(&snapshot, &["s0"], &GroupPolicy::at(NOW)), broken(Constraint::Quorum));
}

#[test]
fn fan_in_and_requests_in_flight_ask_for_a_drain() {
    let callers: Vec<(usize, usize)> = (1..=21).map(|n| (n, 0)).collect();
    let mut snapshot = usable(&topology(22, &[]), &named(&callers));
    let drained =
        |snapshot: &Snapshot, policy: &GroupPolicy| group(snapshot, &["s0"], policy).unwrap().drain_first.len();
    let mut policy = GroupPolicy::at(NOW);
    assert_eq!(drained(&snapshot, &policy), 0);
    snapshot.edit(|picture| picture.services.get_mut("s0").unwrap().fan_in = 21);
    assert_eq!(drained(&snapshot, &policy), 1);
    snapshot.edit(|picture| {
        let view = picture.services.get_mut("s0").unwrap();
        // 100 a second of 100 ms each: ten in flight, all of which would fail.
        (view.fan_in, view.rate_mrps, view.mean_us, view.cut_ppm) = (1, 100_000, 100_000, 1_000_000);
    });
    let view = snapshot.service("s0").unwrap();
    assert_eq!((view.inflight_milli(), drained(&snapshot, &policy)), (10_000, 1));
    policy.drain_inflight = 10;
    assert_eq!(drained(&snapshot, &policy), 0);
    // What a dead instance holds is lost already.
    policy.drain_inflight = 1;
    policy.instances.insert("s0".into(), Instances { total: 10, ready: 1 });
    assert_eq!(drained(&snapshot, &policy), 0);
}

#[test]
fn unknown_stale_and_blind_are_told_apart() {
    let mut snapshot = usable(&topology(1, &[]), &[]);
    let ask = |snapshot: &Snapshot, name| group(snapshot, &[name], &GroupPolicy::at(NOW));
    assert_eq!(ask(&snapshot, "s9"), Err(GroupError::UnknownService("s9".into())));
    snapshot.edit(|picture| picture.services.get_mut("s0").unwrap().coverage = (100, 30));
    assert_eq!(ask(&snapshot, "s0"), Err(GroupError::Blind { coverage_ppm: 700_000, trials: 0 }));
    snapshot.edit(|picture| picture.newest = None);
    assert_eq!(ask(&snapshot, "s0"), Err(GroupError::Stale { age_ms: u64::MAX }));
    assert_eq!(ask(&snapshot, "s0").unwrap_err().to_string(), "the graph is stale: no spans have arrived");
    assert!(matches!(group(&snapshot, &[], &GroupPolicy::at(NOW)), Err(GroupError::Stale { .. })));
}

#[test]
fn an_explanation_is_plain_data() {
    let snapshot = usable(&topology(3, &[(0, 1)]), &named(&[(2, 0), (0, 1)]));
    let policy = GroupPolicy::at(NOW);
    let found = group(&snapshot, &["s0"], &policy).unwrap();
    let told = Explanation::of(&snapshot, &["s0"], &found, &policy);
    assert_eq!((told.level, told.hard_callers, told.declared), ("cautious", Some(vec!["s2".into()]), 2));
    let order = &told.order[0];
    assert_eq!((order.first.as_str(), order.then.as_str(), order.hardness), ("s1", "s0", Some("unknown")));
    assert_eq!((order.calls, order.last_seen_ms_ago), (41_203, Some(2_000)));
    let told = Explanation::of(&snapshot, &["s0"], &found, &policy);
    assert_eq!(serde_json::to_value(&told).unwrap()["restart"], serde_json::json!(["s0", "s1"]));
}

#[test]
fn groups_survive_their_bytes() {
    use base::canon::{Canon, object, parse_object};
    let snapshot = usable(&topology(3, &[(0, 1)]), &named(&[(2, 0), (0, 1)]));
    let found = group(&snapshot, &["s0"], &GroupPolicy::at(NOW)).unwrap();
    let bytes = object("group", &found.to_value());
    assert_eq!(Group::from_value(parse_object("group", &bytes).unwrap()).unwrap(), found);
}

fn pairs(names: usize, most: usize) -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::vec((0..names, 0..names), 0..most)
}

/// The least closed superset, by looking at every subset.
fn by_force(names: usize, coupled: &[(usize, usize)], targets: &BTreeSet<usize>) -> BTreeSet<usize> {
    let closed = |set: u32| coupled.iter().all(|(a, b)| (set >> a & 1) == (set >> b & 1));
    let wanted = targets.iter().fold(0_u32, |set, target| set | 1 << target);
    let subsets = (0..1_u32 << names).filter(|set| set & wanted == wanted && closed(*set));
    let least = subsets.min_by_key(|set| set.count_ones()).unwrap();
    (0..names).filter(|number| least >> number & 1 == 1).collect()
}

/// Longest path below a block, with petgraph's components as the oracle of blocks.
fn longest_paths(members: &BTreeSet<String>, calls: &[(String, String)]) -> BTreeMap<Vec<String>, usize> {
    let mut graph = petgraph::graph::DiGraph::<String, ()>::new();
    let index: BTreeMap<&String, _> = members.iter().map(|name| (name, graph.add_node(name.clone()))).collect();
    for (caller, callee) in calls {
        if let (Some(from), Some(to)) = (index.get(caller), index.get(callee)) {
            graph.add_edge(*from, *to, ());
        }
    }
    let condensed = petgraph::algo::condensation(graph, true);
    let mut order = petgraph::algo::toposort(&condensed, None).unwrap();
    order.reverse();
    let mut length: BTreeMap<usize, usize> = BTreeMap::new();
    for node in order {
        let below = condensed.neighbors(node).map(|next| length[&next.index()] + 1).max();
        length.insert(node.index(), below.unwrap_or(0));
    }
    let named = |node: petgraph::graph::NodeIndex| {
        let mut block = condensed[node].clone();
        block.sort();
        block
    };
    condensed.node_indices().map(|node| (named(node), length[&node.index()])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_closure_is_the_least_closed_superset(
        coupled in pairs(12, 12), targets in prop::collection::btree_set(0_usize..12, 1..4), more in (0_usize..12, 0_usize..12),
    ) {
        let closure = |coupled: &[(usize, usize)]| {
            let snapshot = usable(&topology(12, coupled), &[]);
            let names: Vec<String> = targets.iter().map(|number| format!("s{number}")).collect();
            snapshot.coupled_closure(&names.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let expected: BTreeSet<String> = by_force(12, &coupled, &targets).into_iter().map(|number| format!("s{number}")).collect();
        let found = closure(&coupled);
        prop_assert_eq!(&found, &expected);
        // Adding coupling never shrinks a group.
        let larger = closure(&[coupled.as_slice(), &[more]].concat());
        prop_assert!(found.is_subset(&larger));
    }

    #[test]
    fn waves_are_longest_paths_and_contracted_order_is_acyclic(calls in pairs(8, 20)) {
        let chain: Vec<(usize, usize)> = (0..7).map(|number| (number, number + 1)).collect();
        let calls = named(&calls);
        let snapshot = usable(&topology(8, &chain), &calls);
        let found = group(&snapshot, &["s0"], &GroupPolicy::at(NOW)).unwrap();
        let members: BTreeSet<String> = found.members.iter().cloned().collect();
        let calls: Vec<(String, String)> = calls.into_iter().filter(|(caller, callee)| caller != callee).collect();
        let mut waves: BTreeMap<Vec<String>, usize> = BTreeMap::new();
        for (wave, number) in found.waves.iter().zip(0..) {
            prop_assert!(!wave.is_empty());
            prop_assert!(wave.is_sorted());
            waves.extend(wave.iter().map(|block| (block.clone(), number)));
        }
        prop_assert_eq!(waves, longest_paths(&members, &calls));
    }

    #[test]
    fn adding_a_call_never_shrinks_the_callers(calls in pairs(8, 16), more in (0_usize..8, 0_usize..8)) {
        let callers = |calls: &[(usize, usize)]| usable(&topology(8, &[]), &named(calls)).hard_callers(&["s0"], 256);
        let (fewer, all) = (callers(&calls), callers(&[calls.as_slice(), &[more]].concat()));
        prop_assert!(fewer.names().iter().all(|name| all.names().contains(name)));
    }
}
