use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A random forest of spans over few services: (parent, service, kind) of each span.
fn spans() -> impl Strategy<Value = Vec<Span>> {
    let one = (0_usize..12, 0_u8..6, 0_u8..4, any::<bool>());
    prop::collection::vec((prop::collection::vec(one, 1..12), any::<u8>()), 1..12).prop_map(|traces| {
        let traces = traces.into_iter().zip(1_u128..).flat_map(|((trace, _), number)| {
            let spans: Vec<Span> =
                trace.into_iter().zip(0_usize..).map(|(shape, index)| span(number, index, shape)).collect();
            spans
        });
        traces.collect()
    })
}

fn span(trace: u128, index: usize, (parent, service, kind, bad): (usize, u8, u8, bool)) -> Span {
    let index_us = index as u64;
    Span {
        trace,
        id: index_us + 1,
        parent: (index > 0).then(|| (parent % index.max(1)) as u64 + 1),
        service: format!("s{service}"),
        name: format!("op{}", service % 2),
        kind: [Kind::Unknown, Kind::Server, Kind::Internal, Kind::Consumer][usize::from(kind)],
        start_us: 1_000_000 + index_us * 10,
        duration_us: 10_000 - index_us * 20,
        status: if bad { Status::Error } else { Status::Unset },
        authenticated: true,
        ..Span::default()
    }
}

fn joined(spans: &[Span]) -> Snapshot {
    let mut graph = Graph::new(&Config::default());
    let now = Timestamp(1_100);
    for span in spans {
        graph.observe(span, now);
    }
    graph.rotate(now);
    graph.rotate(now);
    graph.snapshot(now)
}

/// The exact join of a whole file: calls between services.
fn offline(spans: &[Span]) -> BTreeMap<(String, String), u64> {
    let by_id: BTreeMap<(u128, u64), &Span> = spans.iter().map(|span| ((span.trace, span.id), span)).collect();
    let mut edges = BTreeMap::new();
    for span in spans {
        let parent = span.parent.and_then(|parent| by_id.get(&(span.trace, parent)));
        if let Some(parent) = parent.filter(|parent| parent.service != span.service) {
            *edges.entry((parent.service.clone(), span.service.clone())).or_insert(0) += 1;
        }
    }
    edges
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, rng_seed: proptest::test_runner::RngSeed::Fixed(5), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arrival_order_does_not_matter_and_agrees_with_the_offline_join(
        spans in spans(), seed in any::<u64>(), again in 0_usize..5,
    ) {
        let in_order = joined(&spans);
        let mut shuffled = spans.clone();
        let mut state = seed | 1;
        for index in (1..shuffled.len()).rev() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            shuffled.swap(index, usize::try_from(state % (index as u64 + 1)).unwrap());
        }
        // Exporters repeat themselves.
        let repeated: Vec<Span> = shuffled.iter().take(again).cloned().collect();
        shuffled.extend(repeated);
        let out_of_order = joined(&shuffled);
        let structure = |snapshot: &Snapshot| {
            let edges = snapshot.edges().iter().cloned().map(|edge| EdgeView { changed: 0, ..edge });
            edges.collect::<Vec<_>>()
        };
        prop_assert_eq!(structure(&in_order), structure(&out_of_order));
        prop_assert_eq!(in_order.roots(), out_of_order.roots());
        let counted: BTreeMap<(String, String), u64> =
            in_order.edges().iter().map(|edge| ((edge.caller.clone(), edge.callee.clone()), edge.calls)).collect();
        prop_assert_eq!(counted, offline(&spans));
    }

    #[test]
    fn the_digest_depends_on_no_order_no_batch_and_no_repetition(spans in spans(), by in 1_usize..40, again in 0_usize..9) {
        let digest = |order: &[&Span]| {
            let mut graph = Graph::seeded(&Config::default(), order.len() as u64);
            order.iter().for_each(|span| {
                graph.observe(span, Timestamp(1_100));
            });
            graph.rotate(Timestamp(1_100));
            graph.rotate(Timestamp(1_100));
            graph.snapshot(Timestamp(1_100)).digest()
        };
        let in_order: Vec<&Span> = spans.iter().collect();
        // Batches of another size come in another order, and some of their spans twice.
        let mut batches: Vec<&[Span]> = spans.chunks(by).collect();
        batches.reverse();
        let mut other: Vec<&Span> = batches.into_iter().flat_map(|batch| batch.iter().rev()).collect();
        other.extend(spans.iter().take(again));
        prop_assert_eq!(digest(&in_order), digest(&other));
    }

    #[test]
    fn the_start_order_is_topological_and_its_waves_are_longest_paths(
        calls in prop::collection::btree_set((0_u8..12, 0_u8..12), 0..40),
    ) {
        let mut graph = Graph::new(&Config::default());
        for ((caller, callee), trace) in calls.iter().filter(|(a, b)| a != b).zip(1_u128..) {
            let span = |id, parent, service: &u8| Span {
                trace, id, parent, service: format!("s{service:02}"), name: "op".into(), kind: Kind::Server,
                start_us: 1_000_000, duration_us: 10, ..Span::default()
            };
            graph.observe(&span(1, None, caller), Timestamp(1_100));
            graph.observe(&span(2, Some(1), callee), Timestamp(1_100));
        }
        let snapshot = graph.snapshot(Timestamp(1_100));
        let order = snapshot.start_order();
        let found: BTreeMap<&str, (u32, u32)> =
            order.services().map(|(wave, block, name)| (name, (wave, block))).collect();
        // The oracle: petgraph's components, and the longest path below each by trying again until nothing changes.
        let mut oracle = petgraph::graph::DiGraph::<&str, ()>::new();
        let index: BTreeMap<&str, _> = snapshot.services().map(|name| (name, oracle.add_node(name))).collect();
        for edge in snapshot.edges() {
            oracle.add_edge(index[edge.caller.as_str()], index[edge.callee.as_str()], ());
        }
        let mut block: BTreeMap<&str, &str> = BTreeMap::new();
        for members in petgraph::algo::tarjan_scc(&oracle) {
            let members: Vec<&str> = members.into_iter().map(|member| oracle[member]).collect();
            let first = members.iter().min().unwrap();
            block.extend(members.iter().map(|member| (*member, *first)));
        }
        let mut wave: BTreeMap<&str, u32> = block.values().map(|block| (*block, 0)).collect();
        for _ in 0..block.len() {
            for edge in snapshot.edges() {
                let (above, below) = (block[edge.caller.as_str()], block[edge.callee.as_str()]);
                if above != below {
                    wave.insert(above, wave[above].max(wave[below] + 1));
                }
            }
        }
        prop_assert_eq!(found.len(), block.len());
        let largest = block.values().map(|first| block.values().filter(|other| *other == first).count()).max();
        prop_assert_eq!(snapshot.start_order().largest_block(), largest.unwrap_or(0));
        for (name, (found_wave, found_block)) in &found {
            prop_assert_eq!(*found_wave, wave[block[name]], "{}", name);
            let same: Vec<&&str> = found.iter().filter(|(_, at)| at.1 == *found_block).map(|(name, _)| name).collect();
            prop_assert!(same.iter().all(|other| block[**other] == block[name]));
        }
    }

    #[test]
    fn facts_never_shrink_a_group_unless_they_disprove_it(facts in prop::collection::vec((0_u8..8, 0_u8..8, 0_u8..3), 1..30)) {
        let mut graph = Graph::new(&Config::default());
        let name = |number: u8| format!("s{number}");
        for number in 0..8 {
            graph.observe(&span(u128::from(number) + 1, 0, (0, number, 1, false)), Timestamp(1_100));
        }
        let groups = |graph: &Graph| -> Vec<std::collections::BTreeSet<String>> {
            let snapshot = graph.snapshot(Timestamp(1_100));
            (0..6).map(|number| snapshot.coupled_closure(&[&name(number)])).collect()
        };
        for (service, with, kind) in facts {
            let before = groups(&graph);
            let (service, with) = (name(service), name(with));
            graph.record(&match kind {
                0 => OperationalFact::CoRestart { service, with, confirmed: false },
                1 => OperationalFact::CoRestart { service, with, confirmed: true },
                _ => OperationalFact::MissedDependency { caller: service, callee: with },
            });
            let after = groups(&graph);
            prop_assert!(before.iter().zip(&after).all(|(before, after)| before.is_subset(after)));
        }
        graph.record(&OperationalFact::Dismissed { service: name(0), with: name(1) });
    }

    #[test]
    fn more_spans_never_shrink_the_callers(spans in spans(), cut in 0_usize..60) {
        // Without errors and queues nothing disproves a dependency.
        let plain = |span: &Span| Span { status: Status::Unset, kind: Kind::Server, ..span.clone() };
        let spans: Vec<Span> = spans.iter().map(plain).collect();
        let (fewer, all) = (joined(&spans[..cut.min(spans.len())]), joined(&spans));
        for service in fewer.services() {
            let callers = |snapshot: &Snapshot| snapshot.hard_callers(&[service], 256).names().to_vec();
            prop_assert!(callers(&fewer).iter().all(|name| callers(&all).contains(name)));
        }
    }

    #[test]
    fn a_slice_answers_what_the_snapshot_answers(spans in spans(), seed in 0_u8..6, cap in 0_u32..4) {
        let mut snapshot = joined(&spans);
        snapshot.edit(|picture| picture.config.closure_max = cap);
        let name = format!("s{seed}");
        if !snapshot.contains(&name) {
            return Ok(());
        }
        let slice = snapshot.slice(&[&name]);
        prop_assert_eq!(slice.missing_members(&[&name]), snapshot.missing_members(&[&name]));
        prop_assert_eq!(slice.hard_callers(&[&name], cap), snapshot.hard_callers(&[&name], cap));
        prop_assert_eq!(slice.blast(&[&name]), snapshot.blast(&[&name]));
        prop_assert_eq!(slice.permission(&[&name], slice.taken_at()), snapshot.permission(&[&name], slice.taken_at()));
        prop_assert_eq!(slice.why(&name), snapshot.why(&name));
        prop_assert_eq!(slice.slice(&[&name]).digest(), slice.digest());
    }
}

/// What drawn traffic says, counted over whole traces: calls between services, and spans whose parent was lost.
#[test]
fn drawn_traffic_joins_as_it_does_offline() {
    use crate::testkit::{META, Network, Traces, Traffic};
    let network = Network::new(META, 4);
    let traffic =
        Traffic { lost_ppm: 1_000, repeated_ppm: 10_000, skew_us: 2_000, exhaustive: true, ..Traffic::default() };
    let mut graph = Graph::new(&Config::default());
    let (mut expected, mut lost) = (BTreeMap::new(), 0);
    let mut now = traffic.from;
    for (trace, number) in Traces::new(&network, &traffic).take(1_500).zip(0_u32..) {
        now = now.plus(Millis(20));
        if number % 100 == 99 {
            graph.rotate(now);
        }
        trace.iter().for_each(|span| {
            graph.observe(span, now);
        });
        let unique: BTreeMap<(u128, u64), &Span> = trace.iter().map(|span| ((span.trace, span.id), span)).collect();
        for span in unique.values() {
            let parent = span.parent.map(|parent| unique.get(&(span.trace, parent)));
            lost += u64::from(parent == Some(None));
            if let Some(parent) = parent.flatten().filter(|parent| parent.service != span.service) {
                *expected.entry((parent.service.clone(), span.service.clone())).or_insert(0) += 1;
            }
            // An unanswered call is one at its peer.
            let answered = unique.values().any(|child| child.parent == Some(span.id) && child.service != span.service);
            if let Some(peer) = span.peer.as_ref().filter(|_| !answered) {
                *expected.entry((span.service.clone(), peer.name.clone())).or_insert(0) += 1;
            }
        }
    }
    graph.rotate(now);
    graph.rotate(now);
    let snapshot = graph.snapshot(now);
    let seen = snapshot.edges().iter().filter(|edge| edge.calls > 0);
    let seen: BTreeMap<(String, String), u64> =
        seen.map(|edge| ((edge.caller.clone(), edge.callee.clone()), edge.calls)).collect();
    assert_eq!((seen, graph.counts().lost_parents), (expected, lost));
}
