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
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

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
    fn a_slice_answers_what_the_snapshot_answers(spans in spans(), seed in 0_u8..6, cap in 0_u32..4) {
        let mut snapshot = joined(&spans);
        snapshot.config.closure_max = cap;
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
