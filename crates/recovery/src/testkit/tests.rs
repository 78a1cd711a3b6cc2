use super::*;
use crate::graph::{Config, Graph};
use crate::span::Kind;
use base::Timestamp;

fn degrees(network: &Network) -> (u32, u32) {
    let mut counts = vec![(0_u32, 0_u32); network.shape.services as usize];
    for edge in &network.edges {
        counts[edge.caller as usize].0 += 1;
        counts[edge.callee as usize].1 += 1;
    }
    (counts.iter().map(|count| count.0).max().unwrap(), counts.iter().map(|count| count.1).max().unwrap())
}

#[test]
fn shapes_have_the_size_and_the_tails_they_say() {
    for seed in 1..=3 {
        let network = Network::new(PAPER, seed);
        assert_eq!((network.operations.len(), network.edges.len()), (5_459, 11_690));
        let (out, into) = degrees(&network);
        assert!((80..=150).contains(&out) && (55..=100).contains(&into), "fan-out {out}, fan-in {into}");
        let mean = network.operations.iter().sum::<u32>() as f64 / network.operations.len() as f64;
        assert!((3.6..=4.4).contains(&mean), "{mean} operations a service");
        assert!(network.edges.iter().all(|edge| edge.caller != edge.callee));
        assert!(network.edges.is_sorted_by_key(|edge| (edge.caller, edge.callee)));
        let rare = network.edges.iter().filter(|edge| edge.probability_ppm <= 100).count();
        // P(X <= 1e-4) of Beta(0.3, 1) is 1e-4^0.3 = 6.3%.
        assert!((400..=1_100).contains(&rare), "{rare} edges used once in ten thousand");
    }
    assert_eq!(Network::new(META, 1).edges, Network::new(META, 1).edges);
    assert_ne!(Network::new(META, 1).edges, Network::new(META, 2).edges);
    assert_eq!(Shape::sized(u32::MAX).services, NETWORK_SERVICES_MAX);
    assert_eq!(Network::new(Shape::sized(1), 1).shape.services, 2);
}

#[test]
fn a_tour_shows_every_edge_and_nothing_else() {
    let network = Network::new(META, 7);
    let mut graph = Graph::new(&Config::default());
    let now = Timestamp(1_700_000_010_000);
    for trace in Traces::tour(&network, Timestamp(1_700_000_000_000)) {
        trace.iter().for_each(|span| {
            graph.observe(span, now);
        });
    }
    graph.rotate(now);
    graph.rotate(now);
    let snapshot = graph.snapshot(now);
    let seen: Vec<(String, String)> =
        snapshot.edges().iter().map(|edge| (edge.caller.clone(), edge.callee.clone())).collect();
    let truth: Vec<(String, String)> =
        network.edges.iter().map(|edge| (Network::name(edge.caller), Network::name(edge.callee))).collect();
    assert_eq!(seen, truth);
}

#[test]
fn traces_are_trees_within_their_limits_and_repeat_with_their_seed() {
    let network = Network::new(META, 3);
    let traffic = Traffic { exhaustive: true, child_first_ppm: 0, ..Traffic::default() };
    let traces: Vec<Vec<crate::span::Span>> = Traces::new(&network, &traffic).take(50).collect();
    for trace in &traces {
        assert!(trace.len() <= traffic::DRAWN_SPANS_MAX, "{}", trace.len());
        assert_eq!(trace.iter().filter(|span| span.parent.is_none()).count(), 1);
        for span in trace {
            let mut depth = 0;
            let mut at = span.parent;
            while let Some(parent) = at {
                at = trace.iter().find(|other| other.id == parent).unwrap().parent;
                depth += 1;
            }
            assert!(depth <= 2 * traffic::CALL_DEPTH_MAX + 3, "{depth}");
        }
    }
    assert_eq!(traces, Traces::new(&network, &traffic).take(50).collect::<Vec<_>>());
    assert!(traces.iter().any(|trace| trace.len() > 10));
}

#[test]
fn what_happens_on_the_way_happens_as_often_as_asked() {
    let network = Network::new(META, 3);
    let all = Traffic { exhaustive: true, ..Traffic::default() };
    let count = |traffic: &Traffic| Traces::new(&network, traffic).take(300).map(|trace| trace.len()).sum::<usize>();
    let whole = count(&all);
    let lost = count(&Traffic { lost_ppm: 100_000, ..all.clone() });
    assert!((whole * 87 / 100..whole * 93 / 100).contains(&lost), "{lost} of {whole}");
    let repeated = count(&Traffic { repeated_ppm: 100_000, ..all.clone() });
    assert!((whole * 107 / 100..whole * 113 / 100).contains(&repeated), "{repeated} of {whole}");
    let sampled = Traffic { sampled_ppm: 10_000, ..all.clone() };
    let last = Traces::new(&network, &sampled).take(30).last().unwrap();
    // Thirty of one in a hundred are about three thousand requests, three seconds.
    assert!(last.iter().any(|span| span.start_us > 1_700_000_001_500_000));
    let skewed = Traffic { skew_us: 50_000, child_first_ppm: 0, ..all };
    let ahead = Traces::new(&network, &skewed).take(50).flatten().filter(|span| span.kind == Kind::Server);
    assert!(ahead.count() > 50);
}

#[test]
fn fallback_edges_are_taken_under_fault_only() {
    let edge = |callee, fallback| Edge {
        caller: 0,
        callee,
        caller_operation: 0,
        callee_operation: 0,
        probability_ppm: 1_000_000,
        fallback,
        is_async: false,
    };
    let network = Network {
        shape: Shape { name: "three", services: 3, edges: 2 },
        seed: 1,
        edges: vec![edge(1, false), edge(2, true)],
        operations: vec![1, 1, 1],
        entries: vec![0],
        coupled: Vec::new(),
        starts: vec![0, 2, 2, 2],
    };
    let seen = |fault| {
        let traffic = Traffic { fault, ..Traffic::default() };
        let all = Traces::new(&network, &traffic).take(20).flatten();
        let failed = |span: &crate::span::Span| (span.service.clone(), span.is_error());
        all.map(|span| failed(&span)).collect::<BTreeSet<_>>()
    };
    let name = |service| Network::name(service);
    assert_eq!(seen(None), BTreeSet::from([(name(0), false), (name(1), false)]));
    // The caller is saved by its fallback; its client span to what fails has failed.
    let under = seen(Some(1));
    assert_eq!(under, BTreeSet::from([(name(0), false), (name(0), true), (name(1), true), (name(2), false)]));
    // Without anything left to fall back on, it fails.
    assert!(!seen(Some(0)).contains(&(name(2), false)));
}

#[test]
fn coupled_groups_are_disjoint_and_declared_as_asked() {
    let network = Network::new(PAPER, 1);
    let members: Vec<u32> = network.coupled.iter().flatten().copied().collect();
    assert_eq!(members.iter().collect::<BTreeSet<_>>().len(), members.len());
    assert!(network.coupled.iter().all(|group| (2..=5).contains(&group.len())) && network.coupled.len() > 10);
    assert_eq!(network.declared(1_000_000).service.len(), members.len());
    assert_eq!(network.declared(0).service.len(), 0);
    network.declared(500_000).validate().unwrap();
    let group = &network.coupled[0];
    assert_eq!(network.truth(group[0]).into_iter().collect::<Vec<_>>(), *group);
}
