//! The dependency graph: joins spans as they arrive, counts edges, and publishes immutable snapshots.
//!
//! Membership of an edge never depends on thresholds or decay. A seen edge exists; what was not seen is
//! bounded by [`crate::miss`]. Answers are given about services: an operation inherits every edge of its
//! service, which can only enlarge them.

mod build;
mod config;
mod declare;
mod index;
mod intern;
mod join;
mod names;
mod observe;
mod order;
mod pages;
mod permission;
mod resolve;
mod scope;
mod seconds;
mod snapshot;
mod table;
mod views;

pub use config::Config;
pub use declare::{Declared, GraphError, OperationalFact, replay};
pub use order::StartOrder;
pub use permission::{Level, Permission, Reason, ReasonKind};
pub use scope::FaultScope;
pub use seconds::{Second, Seconds, Sum};
pub use snapshot::{Slice, Snapshot};
#[cfg(test)]
pub(crate) use views::Picture;
pub use views::{Blast, Closure, EdgeKind, EdgeView, Evidence, Hardness, NodeKind, Relation, RootView, ServiceView};

use base::{Millis, Timestamp};
use hashbrown::HashTable;
use intern::{Hot, Mark};
use join::{Join, Ref, Seeded};
use names::Names;
use pages::Pages;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use table::{Flow, NONE, Operation, Place, Root, Service};

/// What became of an observed span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// Its place in its trace is known.
    Joined,
    /// Its parent has not arrived.
    Waiting,
    /// It was here before.
    Duplicate,
    /// It was not taken.
    Dropped(DropReason),
}

/// Why a span was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// A trace or span id of zero.
    ZeroId,
    /// No service name.
    NoService,
    /// More services than the graph holds.
    TooManyServices,
}

/// What the graph took and what it could not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Spans taken.
    pub observed: u64,
    /// Spans that came twice.
    pub duplicates: u64,
    /// Spans not taken.
    pub dropped: u64,
    /// Spans whose parent never came.
    pub lost_parents: u64,
    /// Outgoing calls without child and without peer.
    pub unmatched: u64,
    /// Spans that ended in the future.
    pub skewed: u64,
}

/// The graph. One thread feeds it; snapshots are for everybody.
#[derive(Debug)]
pub struct Graph {
    config: Arc<Config>,
    /// How long seconds are kept.
    keep: Millis,
    seed: Seeded,
    names: Names,
    services: Pages<Service>,
    /// Of every service, what snapshots ask.
    marks: Vec<Mark>,
    operations: Vec<Operation>,
    operation_index: HashTable<u32>,
    flows: Pages<Flow>,
    /// Of every flow, what snapshots ask.
    hot: Vec<Hot>,
    flow_index: FxHashMap<(u32, u32), u32>,
    edges: Vec<Place>,
    edges_held: usize,
    edge_index: FxHashMap<(u32, u32), u32>,
    roots: Pages<Root>,
    roots_halved: Option<Timestamp>,
    /// (s, t): restarting s requires restarting t, by observation; how often, and whether confirmed.
    co_restarts: BTreeMap<(u32, u32), (u32, bool)>,
    /// What follows from declarations and facts, until they change.
    coupling: OnceLock<Arc<build::Coupling>>,
    /// (caller, callee): a restart of the callee broke the caller, and no answer had named it.
    missed: BTreeSet<(u32, u32)>,
    join: Join,
    /// Kept to be used again.
    waiters: Vec<Ref>,
    births: u64,
    epoch: u64,
    published: AtomicU64,
    newest: Option<Timestamp>,
    began: Option<Timestamp>,
    joined_since: Option<Timestamp>,
    counts: Counts,
}

impl Graph {
    /// An empty graph; its tables hash with seed 0, so feed it from sources you know, or use [`Graph::seeded`].
    #[must_use]
    pub fn new(config: &Config) -> Graph {
        Graph::seeded(config, 0)
    }

    /// An empty graph whose hash tables use `seed`. No answer depends on it.
    #[must_use]
    pub fn seeded(config: &Config, seed: u64) -> Graph {
        Graph {
            config: Arc::new(config.clone()),
            keep: config.history(),
            seed: Seeded(seed),
            names: Names::new(Seeded(seed)),
            services: Pages::default(),
            marks: Vec::new(),
            operations: Vec::new(),
            operation_index: HashTable::new(),
            flows: Pages::default(),
            hot: Vec::new(),
            flow_index: FxHashMap::default(),
            edges: Vec::new(),
            edges_held: 0,
            edge_index: FxHashMap::default(),
            roots: Pages::default(),
            roots_halved: None,
            co_restarts: BTreeMap::new(),
            coupling: OnceLock::new(),
            missed: BTreeSet::new(),
            join: Join::new(seed),
            waiters: Vec::new(),
            births: 0,
            epoch: 0,
            published: AtomicU64::new(0),
            newest: None,
            began: None,
            joined_since: None,
            counts: Counts::default(),
        }
    }

    /// What it took and what it could not.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many services and how many edges between operations it holds, whatever is known of them.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.services.len(), self.edges.len())
    }

    /// Operations seen, and edges between operations.
    #[must_use]
    pub fn operation_counts(&self) -> (usize, usize) {
        let known = || self.flows.iter().flat_map(Flow::known);
        let ends: BTreeSet<u32> = known().flat_map(|edge| [edge.caller, edge.callee]).collect();
        let entered = self.operations.iter().zip(0_u32..).filter(|(operation, _)| operation.root != NONE);
        let entered: BTreeSet<u32> = entered.map(|(_, id)| id).collect();
        (ends.union(&entered).count(), known().count())
    }

    /// Whether the structure changed since the last snapshot.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.published.load(Ordering::Relaxed) != self.epoch
    }

    /// An immutable picture at `now`.
    #[must_use]
    pub fn snapshot(&self, now: Timestamp) -> Snapshot {
        self.published.store(self.epoch, Ordering::Relaxed);
        self.build(now)
    }
}

#[cfg(test)]
mod tests;
