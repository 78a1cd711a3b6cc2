use super::GroupsOptions;
use base::{Millis, Timestamp};
use recovery::graph::{Config, Graph};
use recovery::span::{Kind, Peer, PeerKind, Span};
use recovery::testkit::{Network, Shape, Traces, Traffic};

/// When the first span of a measurement starts.
pub(super) const FROM: Timestamp = Timestamp(1_700_000_000_000);
/// Share of coupled groups that the topology file names; the rest nobody told.
pub(super) const DECLARED_PPM: u32 = 900_000;
/// Spans of ordinary traffic that a graph is loaded with, beside one call over each edge.
const TRAFFIC_SPANS: usize = 200_000;

/// A network and a graph that has seen all of it.
pub(super) struct Loaded {
    pub(super) network: Network,
    pub(super) graph: Graph,
    pub(super) now: Timestamp,
}

impl Loaded {
    pub(super) fn new(shape: Shape, seed: u64, options: &GroupsOptions) -> Loaded {
        let network = Network::new(shape, seed);
        let (mut graph, mut now) = toured(&network);
        let traffic = Traffic { seed, from: now, requests_per_s: 2_000, ..Traffic::default() };
        let spans = Traces::new(&network, &traffic).flatten().take(TRAFFIC_SPANS.min(options.spans));
        for span in spans {
            now = now.max(end(&span));
            graph.observe(&span, now);
        }
        settle(&mut graph, now);
        Loaded { network, graph, now }
    }
}

/// A graph that has seen one call over each edge, and its time.
pub(super) fn toured(network: &Network) -> (Graph, Timestamp) {
    let most = Config::default().services_max.max(network.shape.services + 1);
    let mut graph = Graph::new(&Config { services_max: most, ..Config::default() });
    // The drawn topology is always one that can be declared; if it were not, nothing would be declared and all missed.
    let _ = graph.declare(&network.declared(DECLARED_PPM));
    let mut now = FROM;
    for (trace, number) in Traces::tour(network, FROM).zip(0_u64..) {
        now = FROM.plus(Millis(number / 4));
        trace.iter().for_each(|span| {
            graph.observe(span, now);
        });
    }
    // Long enough for the graph to be fresh.
    now = now.plus(Millis(61_000));
    settle(&mut graph, now);
    (graph, now)
}

fn settle(graph: &mut Graph, now: Timestamp) {
    graph.rotate(now);
    graph.rotate(now);
}

pub(super) fn end(span: &Span) -> Timestamp {
    Timestamp(i64::try_from(span.end_us() / 1_000).unwrap_or(i64::MAX))
}

/// A call between two services that have none yet: the last span of a window, which changes the structure.
pub(super) fn new_edge(network: &Network, number: u64, now: Timestamp) -> Span {
    let services = u64::from(network.shape.services);
    let name = |at: u64| Network::name(u32::try_from(at % services).unwrap_or(0));
    Span {
        trace: u128::from(number + 1) | 1 << 100,
        id: 1,
        service: name(number * 7_919),
        name: "probe".into(),
        kind: Kind::Client,
        peer: Some(Peer { kind: PeerKind::Service, name: name(number * 104_729 + 1) }),
        start_us: u64::try_from(now.0).unwrap_or(0) * 1_000,
        duration_us: 10,
        authenticated: true,
        ..Span::default()
    }
}
