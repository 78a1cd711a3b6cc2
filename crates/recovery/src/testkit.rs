//! Networks of services with heavy-tailed degrees, and traffic over them, with what is true known: for tests, and for
//! measuring speed and misses.
//!
//! A network has services in layers, one edge per pair of services that call each other, operations, a probability
//! per edge, edges that are taken only under fault, and coupled services. The same shape and seed give the same
//! network; the same network and [`Traffic`] give the same traces.

mod degrees;
mod traffic;

pub use traffic::{Traces, Traffic};

use crate::model::draw::Draw;
use crate::topology::{Service, Topology};
use degrees::{CALLEES, CALLERS, Power};
use std::collections::BTreeSet;

/// LIMIT: services of one network.
pub const NETWORK_SERVICES_MAX: u32 = 1 << 20;
/// Share of edges that point upward.
const REVERSED_PPM: u64 = 30_000;
/// Share of edges taken only when another callee of the same operation fails.
const FALLBACK_PPM: u64 = 10_000;
/// Share of edges of which the caller does not wait.
const ASYNC_PPM: u64 = 50_000;
/// Share of services in which a coupled group begins.
const COUPLED_PPM: u64 = 10_000;

/// How large a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What it is called.
    pub name: &'static str,
    /// Services.
    pub services: u32,
    /// Edges between services.
    pub edges: u32,
}

/// The 392 services of a published trace set of one large operator.
pub const META: Shape = Shape { name: "meta", services: 392, edges: 1_200 };
/// The services and edges of a published 2021 trace set.
pub const PAPER: Shape = Shape { name: "paper", services: 5_459, edges: 11_690 };
/// Twenty thousand services.
pub const T20K: Shape = Shape { name: "t20k", services: 20_000, edges: 90_000 };
/// The services and edges of a published 2022 trace set.
pub const A22: Shape = Shape { name: "a22", services: 23_481, edges: 86_429 };
/// A hundred thousand services.
pub const X100K: Shape = Shape { name: "x100k", services: 100_000, edges: 400_000 };

/// One dependency between two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Number of the caller.
    pub caller: u32,
    /// Number of the callee.
    pub callee: u32,
    /// Operation of the caller that makes the call.
    pub caller_operation: u32,
    /// Operation of the callee that answers.
    pub callee_operation: u32,
    /// How likely one execution of the caller's operation makes the call, parts per million.
    pub probability_ppm: u32,
    /// Taken only when another callee of the same operation fails.
    pub fallback: bool,
    /// The caller does not wait.
    pub is_async: bool,
}

/// Services, what they call, and what is true of them.
#[derive(Clone, Debug)]
pub struct Network {
    /// How large it is.
    pub shape: Shape,
    /// What it was drawn from.
    pub seed: u64,
    /// Edges, ordered by caller, then callee.
    pub edges: Vec<Edge>,
    /// Operations of each service.
    pub operations: Vec<u32>,
    /// Services without callers, where requests enter.
    pub entries: Vec<u32>,
    /// Groups of services that must restart together.
    pub coupled: Vec<Vec<u32>>,
    /// Where each service's edges begin in `edges`; one more than there are services.
    starts: Vec<u32>,
}

impl Shape {
    /// A shape of any size with 4.5 edges a service.
    #[must_use]
    pub fn sized(services: u32) -> Shape {
        let services = services.clamp(2, NETWORK_SERVICES_MAX);
        Shape { name: "sized", services, edges: services.saturating_mul(9) / 2 }
    }

    fn layers(self) -> u32 {
        (u32::BITS - self.services.saturating_sub(1).leading_zeros()).max(2)
    }
}

impl Network {
    /// Draws a network.
    #[must_use]
    pub fn new(shape: Shape, seed: u64) -> Network {
        let mut draw = Draw::new(seed, 0, 1);
        let zipf = Power::new(177, 64);
        let operations: Vec<u32> = (0..shape.services).map(|_| zipf.draw(&mut draw)).collect();
        let pairs = wire(shape, seed);
        let edges: Vec<Edge> = pairs.iter().map(|pair| edge(*pair, &operations, &mut draw)).collect();
        let mut starts = vec![0_u32; shape.services as usize + 1];
        let mut called = vec![false; shape.services as usize];
        for edge in &edges {
            if let Some(count) = starts.get_mut(edge.caller as usize + 1) {
                *count += 1;
            }
            if let Some(called) = called.get_mut(edge.callee as usize) {
                *called = true;
            }
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let entries = (0_u32..).zip(&called).filter(|(_, called)| !**called).map(|(service, _)| service);
        let entries: Vec<u32> = entries.collect();
        let coupled = couple(&edges, shape, seed);
        let entries = if entries.is_empty() { vec![0] } else { entries };
        Network { shape, seed, edges, operations, entries, coupled, starts }
    }

    /// The name of a service: `s` and its number.
    #[must_use]
    pub fn name(service: u32) -> String {
        format!("s{service:06}")
    }

    /// The edges of one caller.
    #[must_use]
    pub fn callees(&self, caller: u32) -> &[Edge] {
        let at = |index: u32| self.starts.get(index as usize).copied().unwrap_or(0) as usize;
        self.edges.get(at(caller)..at(caller + 1)).unwrap_or_default()
    }

    /// What must restart with each service, itself included; by number.
    #[must_use]
    pub fn truth(&self, service: u32) -> BTreeSet<u32> {
        let groups = self.coupled.iter().filter(|group| group.contains(&service));
        groups.flatten().copied().chain([service]).collect()
    }

    /// A topology file that declares the given share of the coupled groups.
    #[must_use]
    pub fn declared(&self, share_ppm: u32) -> Topology {
        let mut topology = Topology::default();
        let mut draw = Draw::new(self.seed, 0, 2);
        for group in &self.coupled {
            if draw.below(1_000_000) >= u64::from(share_ppm) {
                continue;
            }
            for member in group {
                let others = group.iter().filter(|other| *other != member).map(|other| Network::name(*other)).collect();
                let service = Service { coupled: others, ..Service::default() };
                topology.service.insert(Network::name(*member), service);
            }
        }
        topology
    }
}

fn edge((caller, callee): (u32, u32), operations: &[u32], draw: &mut Draw) -> Edge {
    let count = |service: u32| u64::from(operations.get(service as usize).copied().unwrap_or(1));
    let mut operation = |service: u32| u32::try_from(draw.below(count(service))).unwrap_or(0);
    let (caller_operation, callee_operation) = (operation(caller), operation(callee));
    let mut share = |of: u64| draw.below(1_000_000) < of;
    let (fallback, is_async) = (share(FALLBACK_PPM), share(ASYNC_PPM));
    let probability_ppm = degrees::beta_ppm(draw);
    Edge { caller, callee, caller_operation, callee_operation, probability_ppm, fallback, is_async }
}

/// Pairs of caller and callee, sorted: services in layers, stubs matched downward, a few pairs turned around.
fn wire(shape: Shape, seed: u64) -> Vec<(u32, u32)> {
    let mut draw = Draw::new(seed, 0, 3);
    let layers = shape.layers();
    let layer: Vec<u32> = (0..shape.services).map(|_| u32::try_from(draw.below(layers.into())).unwrap_or(0)).collect();
    let of = |service: u32| layer.get(service as usize).copied().unwrap_or(0);
    let may_call: Vec<u32> = (0..shape.services).filter(|service| of(*service) + 1 < layers).collect();
    let may_answer: Vec<u32> = (0..shape.services).filter(|service| of(*service) > 0).collect();
    let mut callers = degrees::stubs(&CALLEES, &may_call, shape.edges, &mut draw);
    // The deepest callers choose first: what lies below them is scarce.
    callers.sort_by_key(|service| std::cmp::Reverse(of(*service)));
    let mut open: Vec<Vec<u32>> = vec![Vec::new(); layers as usize];
    for service in degrees::stubs(&CALLERS, &may_answer, shape.edges, &mut draw) {
        open.get_mut(of(service) as usize).into_iter().for_each(|stubs| stubs.push(service));
    }
    let mut pairs: BTreeSet<(u32, u32)> = BTreeSet::new();
    for caller in callers {
        let below = of(caller) as usize + 1;
        if let Some(callee) = match_stub(&mut open, below, &mut draw, |callee| !pairs.contains(&(caller, callee))) {
            pairs.insert((caller, callee));
        }
    }
    fill(&mut pairs, shape, (&may_call, &may_answer), &of, &mut draw);
    turn(pairs, &mut draw)
}

/// A random open stub of the layers from `below` on that fits; of several tries the first that does.
fn match_stub(open: &mut [Vec<u32>], below: usize, draw: &mut Draw, fits: impl Fn(u32) -> bool) -> Option<u32> {
    let all: u64 = open.iter().skip(below).map(|stubs| stubs.len() as u64).sum();
    for _ in 0..8 {
        let mut at = usize::try_from(draw.below(all)).unwrap_or(0);
        for stubs in open.iter_mut().skip(below) {
            if at >= stubs.len() {
                at -= stubs.len();
                continue;
            }
            if stubs.get(at).is_some_and(|callee| fits(*callee)) {
                return Some(stubs.swap_remove(at));
            }
            break;
        }
    }
    None
}

/// Adds pairs at random where stubs did not match, until there are as many as asked for or no room is left.
fn fill(
    pairs: &mut BTreeSet<(u32, u32)>,
    shape: Shape,
    (callers, callees): (&[u32], &[u32]),
    layer: &impl Fn(u32) -> u32,
    draw: &mut Draw,
) {
    let pick = |from: &[u32], draw: &mut Draw| {
        let at = usize::try_from(draw.below(from.len() as u64)).unwrap_or(0);
        from.get(at).copied().unwrap_or(0)
    };
    for _ in 0..shape.edges.saturating_mul(8) {
        if pairs.len() >= shape.edges as usize {
            return;
        }
        let (caller, callee) = (pick(callers, draw), pick(callees, draw));
        if layer(caller) < layer(callee) {
            pairs.insert((caller, callee));
        }
    }
}

/// Turns some pairs around, unless the turned one is there.
fn turn(pairs: BTreeSet<(u32, u32)>, draw: &mut Draw) -> Vec<(u32, u32)> {
    let mut turned: BTreeSet<(u32, u32)> = BTreeSet::new();
    for (caller, callee) in &pairs {
        let turn = draw.below(1_000_000) < REVERSED_PPM && !pairs.contains(&(*callee, *caller));
        turned.insert(if turn { (*callee, *caller) } else { (*caller, *callee) });
    }
    turned.into_iter().collect()
}

/// Disjoint groups of two to five services, each begun by one service and joined by some that it calls.
fn couple(edges: &[Edge], shape: Shape, seed: u64) -> Vec<Vec<u32>> {
    let mut draw = Draw::new(seed, 0, 4);
    let mut taken: BTreeSet<u32> = BTreeSet::new();
    let mut groups = Vec::new();
    for service in 0..shape.services {
        if draw.below(1_000_000) >= COUPLED_PPM || taken.contains(&service) {
            continue;
        }
        let size = 1 + usize::try_from(draw.below(4)).unwrap_or(0);
        let from = edges.partition_point(|edge| edge.caller < service);
        let own = edges.iter().skip(from).take_while(|edge| edge.caller == service).map(|edge| edge.callee);
        let others: Vec<u32> = own.filter(|other| !taken.contains(other)).take(size).collect();
        if !others.is_empty() {
            let group: BTreeSet<u32> = others.into_iter().chain([service]).collect();
            taken.extend(&group);
            groups.push(group.into_iter().collect());
        }
    }
    groups
}

#[cfg(test)]
mod tests;
