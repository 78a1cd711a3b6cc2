use super::names::Order;
use super::snapshot::Snapshot;
use super::table::{Clock, Flow, Root, Service};
use super::views::{EdgeView, Picture, RootView, ServiceView};
use super::{Config, EdgeKind, Evidence, Hardness, pages::Pages};
use base::{Millis, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

/// One edge between services, by rank of their names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) caller: u32,
    pub(super) callee: u32,
    /// Where the rest of it is.
    pub(super) place: u32,
    pub(super) kind: EdgeKind,
    pub(super) hardness: Hardness,
    pub(super) is_hard: bool,
}

/// A snapshot: who calls and is coupled with whom, by rank of the names, and what is known of each. What is known is
/// put into words when it is asked for.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) taken_at: Timestamp,
    pub(super) newest: Option<Timestamp>,
    pub(super) joined_since: Option<Timestamp>,
    pub(super) epoch: u64,
    pub(super) config: Arc<Config>,
    pub(super) seeds: Vec<String>,
    pub(super) order: Arc<Order>,
    /// By rank: whether answers know it.
    pub(super) is_known: Vec<bool>,
    /// Ordered by caller, then callee.
    pub(super) calls: Vec<Call>,
    /// By rank of the caller: where its calls begin; one more than there are ranks.
    pub(super) out: Vec<u32>,
    /// By rank of the callee: where its calls begin in `inward`; one more than there are ranks.
    pub(super) into: Vec<u32>,
    /// Numbers of calls, by callee, then caller.
    pub(super) inward: Vec<u32>,
    /// By rank: what must restart with it.
    pub(super) coupled: BTreeMap<u32, Vec<u32>>,
    pub(super) body: Body,
    services: Vec<OnceLock<Box<ServiceView>>>,
    edges: Vec<OnceLock<Box<EdgeView>>>,
    all_edges: OnceLock<Vec<EdgeView>>,
    all_roots: OnceLock<BTreeMap<String, RootView>>,
}

/// Where what is known comes from.
#[derive(Debug)]
pub(super) enum Body {
    /// The tables of the graph as they were.
    Live(Live),
    /// What was put into words already.
    Held(Box<Picture>),
}

/// The tables of a graph, shared with it until it changes them.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) services: Pages<Service>,
    pub(super) flows: Pages<Flow>,
    pub(super) roots: Pages<Root>,
    /// Of all roots.
    pub(super) traces: u64,
    /// By service: what links lead back into it.
    pub(super) inner: BTreeMap<u32, u32>,
    pub(super) suspected: BTreeSet<u32>,
    pub(super) clock: Clock,
    pub(super) keep: Millis,
}

/// What an index is made of.
pub(super) struct Parts {
    pub(super) order: Arc<Order>,
    pub(super) is_known: Vec<bool>,
    /// In any order; each pair once.
    pub(super) calls: Vec<Call>,
    pub(super) coupled: BTreeMap<u32, Vec<u32>>,
    pub(super) body: Body,
}

/// What a snapshot says of itself.
pub(super) struct Head {
    pub(super) taken_at: Timestamp,
    pub(super) newest: Option<Timestamp>,
    pub(super) joined_since: Option<Timestamp>,
    pub(super) epoch: u64,
    pub(super) config: Arc<Config>,
    pub(super) seeds: Vec<String>,
}

impl Index {
    pub(super) fn new(head: Head, parts: Parts) -> Index {
        let ranks = parts.order.names.len();
        let (into, by_callee) = bucketed(&parts.calls, ranks, |call| call.callee);
        let sorted: Vec<Call> = by_callee.iter().filter_map(|at| parts.calls.get(*at as usize).copied()).collect();
        let (out, by_caller) = bucketed(&sorted, ranks, |call| call.caller);
        let calls: Vec<Call> = by_caller.iter().filter_map(|at| sorted.get(*at as usize).copied()).collect();
        let (_, inward) = bucketed(&calls, ranks, |call| call.callee);
        let empty = |count: usize| (0..count).map(|_| OnceLock::new()).collect();
        let Head { taken_at, newest, joined_since, epoch, config, seeds } = head;
        let (services, edges) = (empty(ranks), (0..calls.len()).map(|_| OnceLock::new()).collect());
        Index {
            taken_at,
            newest,
            joined_since,
            epoch,
            config,
            seeds,
            order: parts.order,
            is_known: parts.is_known,
            calls,
            out,
            into,
            inward,
            coupled: parts.coupled,
            body: parts.body,
            services,
            edges,
            all_edges: OnceLock::new(),
            all_roots: OnceLock::new(),
        }
    }

    pub(super) fn ranks(&self) -> impl Iterator<Item = u32> {
        (0_u32..).zip(&self.is_known).filter(|(_, known)| **known).map(|(rank, _)| rank)
    }

    pub(super) fn known_rank(&self, name: &str) -> Option<u32> {
        self.order.find(name).filter(|rank| self.knows(*rank))
    }

    pub(super) fn knows(&self, rank: u32) -> bool {
        self.is_known.get(rank as usize).copied().unwrap_or(false)
    }

    /// The calls of one caller, with their numbers.
    pub(super) fn calls_of(&self, caller: u32) -> impl Iterator<Item = (u32, &Call)> {
        let (from, to) = range(&self.out, caller);
        (from..to).zip(self.calls.get(from as usize..to as usize).unwrap_or_default())
    }

    /// The n-th call of one caller.
    pub(super) fn nth_call(&self, caller: u32, n: u32) -> Option<&Call> {
        let (from, to) = range(&self.out, caller);
        let number = from.checked_add(n).filter(|number| *number < to)?;
        self.calls.get(number as usize)
    }

    /// The calls of one callee, with their numbers.
    pub(super) fn calls_to(&self, callee: u32) -> impl Iterator<Item = (u32, &Call)> {
        let (from, to) = range(&self.into, callee);
        let numbers = self.inward.get(from as usize..to as usize).unwrap_or_default();
        numbers.iter().filter_map(|number| Some((*number, self.calls.get(*number as usize)?)))
    }

    pub(super) fn call(&self, caller: &str, callee: &str) -> Option<u32> {
        let (caller, callee) = (self.order.find(caller)?, self.order.find(callee)?);
        let (from, to) = range(&self.out, caller);
        let own = self.calls.get(from as usize..to as usize)?;
        let at = own.binary_search_by_key(&callee, |call| call.callee).ok()?;
        Some(from + u32::try_from(at).ok()?)
    }

    pub(super) fn service(&self, rank: u32) -> Option<&ServiceView> {
        match &self.body {
            Body::Held(picture) => picture.services.get(self.order.name(rank)),
            Body::Live(live) => {
                let place = self.services.get(rank as usize).filter(|_| self.knows(rank))?;
                let view = place.get_or_init(|| Box::new(self.service_view(live, rank)));
                Some(view)
            }
        }
    }

    pub(super) fn edge(&self, number: u32) -> Option<&EdgeView> {
        let call = self.calls.get(number as usize)?;
        match &self.body {
            Body::Held(picture) => picture.edges.get(call.place as usize),
            Body::Live(live) => {
                let view = self.edges.get(number as usize)?;
                Some(view.get_or_init(|| Box::new(self.edge_view(live, call))))
            }
        }
    }

    pub(super) fn all_edges(&self) -> &[EdgeView] {
        match &self.body {
            Body::Held(picture) => &picture.edges,
            Body::Live(live) => {
                self.all_edges.get_or_init(|| self.calls.iter().map(|call| self.edge_view(live, call)).collect())
            }
        }
    }

    pub(super) fn all_roots(&self) -> &BTreeMap<String, RootView> {
        match &self.body {
            Body::Held(picture) => &picture.roots,
            Body::Live(live) => self.all_roots.get_or_init(|| self.root_views(live)),
        }
    }

    /// Where the facts of one call come from, without its seconds.
    pub(super) fn evidence(&self, number: u32) -> Option<Evidence> {
        let call = self.calls.get(number as usize)?;
        match &self.body {
            Body::Held(picture) => picture.edges.get(call.place as usize).map(EdgeView::evidence),
            Body::Live(live) => Some(self.live_evidence(live, call)),
        }
    }

    /// (entry and client spans, lost parents and unmatched calls) of a service.
    pub(super) fn coverage(&self, rank: u32) -> (u64, u64) {
        match &self.body {
            Body::Held(picture) => picture.services.get(self.order.name(rank)).map_or((0, 0), |view| view.coverage),
            Body::Live(live) => {
                let found = live.services.get(self.order.number_of(rank)).filter(|_| self.knows(rank));
                found.map_or((0, 0), |found| found.coverage.sum(self.taken_at, self.config.coverage_window))
            }
        }
    }

    /// Whether a service may miss an objective at all.
    pub(super) fn has_objective(&self, rank: u32) -> bool {
        let Body::Live(live) = &self.body else { return true };
        let declared = live.services.get(self.order.number_of(rank)).and_then(|found| found.declared.as_ref());
        declared.is_some_and(|known| known.objective_p99.is_some() || known.objective_error_ppm.is_some())
    }

    /// Traces, and of these those that visit a member on a blocking path; of several members the sum.
    pub(super) fn root_share(&self, members: &BTreeSet<u32>) -> (u64, u64) {
        match &self.body {
            Body::Held(picture) => {
                let names: Vec<&str> = members.iter().map(|rank| self.order.name(*rank)).collect();
                picture.roots.values().fold((0, 0), |(all, hit), root| {
                    let visits = names.iter().filter_map(|name| root.visits.get(*name)).sum::<u64>();
                    (all + root.traces, hit + visits.min(root.traces))
                })
            }
            Body::Live(live) => live.root_share(members.iter().map(|rank| self.order.number_of(*rank))),
        }
    }

    /// Decayed rate of the roots of a service, milli-requests per second.
    pub(super) fn root_rate(&self, rank: u32) -> u64 {
        match &self.body {
            Body::Held(picture) => picture.services.get(self.order.name(rank)).map_or(0, |view| view.root_rate_mrps),
            Body::Live(live) => {
                live.services.get(self.order.number_of(rank)).map_or(0, |found| found.roots.mrps(&live.clock))
            }
        }
    }

    /// The whole as plain data.
    pub(super) fn picture(&self) -> Picture {
        if let Body::Held(picture) = &self.body {
            return Picture::clone(picture);
        }
        let named = |rank| Some((self.order.name(rank).to_owned(), self.service(rank)?.clone()));
        Picture {
            taken_at: self.taken_at,
            newest: self.newest,
            joined_since: self.joined_since,
            epoch: self.epoch,
            config: Config::clone(&self.config),
            services: self.ranks().filter_map(named).collect(),
            edges: self.all_edges().to_vec(),
            roots: self.all_roots().clone(),
            seeds: self.seeds.clone(),
        }
    }
}

impl Live {
    fn root_share(&self, members: impl Iterator<Item = u32>) -> (u64, u64) {
        let found: Vec<&Service> = members.filter_map(|number| self.services.get(number)).collect();
        let traces = |root: u32| self.roots.get(root).map_or(0, |root| root.traces);
        let hit = match found.as_slice() {
            [one] => one.visits.iter().map(|(root, visits)| (*visits).min(traces(*root))).sum(),
            several => {
                let mut visits: BTreeMap<u32, u64> = BTreeMap::new();
                for (root, count) in several.iter().flat_map(|service| &service.visits) {
                    *visits.entry(*root).or_insert(0) += count;
                }
                visits.iter().map(|(root, visits)| (*visits).min(traces(*root))).sum()
            }
        };
        (self.traces, hit)
    }
}

impl From<Picture> for Snapshot {
    fn from(picture: Picture) -> Snapshot {
        let mut names: BTreeSet<Arc<str>> = BTreeSet::new();
        for (name, view) in &picture.services {
            names.insert(name.as_str().into());
            names.extend(view.coupled.iter().map(|other| other.as_str().into()));
        }
        for edge in &picture.edges {
            names.extend([edge.caller.as_str().into(), edge.callee.as_str().into()]);
        }
        let order = Order::of(names.into_iter().collect());
        let rank = |name: &str| order.find(name).unwrap_or(u32::MAX);
        let is_known = order.names.iter().map(|name| picture.services.contains_key(name.as_ref())).collect();
        let calls = picture.edges.iter().zip(0_u32..).map(|(edge, place)| Call {
            caller: rank(&edge.caller),
            callee: rank(&edge.callee),
            place,
            kind: edge.kind,
            hardness: edge.hardness,
            is_hard: edge.is_hard(),
        });
        let calls = calls.collect();
        let coupled = picture.services.iter().filter(|(_, view)| !view.coupled.is_empty());
        let coupled = coupled.map(|(name, view)| (rank(name), view.coupled.iter().map(|other| rank(other)).collect()));
        let coupled = coupled.collect();
        let head = Head {
            taken_at: picture.taken_at,
            newest: picture.newest,
            joined_since: picture.joined_since,
            epoch: picture.epoch,
            config: Arc::new(picture.config.clone()),
            seeds: picture.seeds.clone(),
        };
        let order = Arc::new(order);
        let parts = Parts { order, is_known, calls, coupled, body: Body::Held(Box::new(picture)) };
        Snapshot(Arc::new(Index::new(head, parts)))
    }
}

/// Where each bucket begins, and the numbers of the items by bucket; within one, in the order of the items.
fn bucketed(items: &[Call], buckets: usize, bucket: impl Fn(&Call) -> u32) -> (Vec<u32>, Vec<u32>) {
    let mut begins = vec![0_u32; buckets + 2];
    for item in items {
        if let Some(count) = begins.get_mut(bucket(item) as usize + 2) {
            *count += 1;
        }
    }
    let mut sum = 0;
    for begin in &mut begins {
        sum += *begin;
        *begin = sum;
    }
    let mut sorted = vec![0_u32; items.len()];
    for (item, number) in items.iter().zip(0_u32..) {
        let Some(place) = begins.get_mut(bucket(item) as usize + 1) else { continue };
        if let Some(slot) = sorted.get_mut(*place as usize) {
            *slot = number;
        }
        *place += 1;
    }
    begins.pop();
    (begins, sorted)
}

fn range(begins: &[u32], at: u32) -> (u32, u32) {
    let begin = |index: usize| begins.get(index).copied().unwrap_or(0);
    (begin(at as usize), begin(at as usize + 1).max(begin(at as usize)))
}
