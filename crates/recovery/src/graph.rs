//! The dependency graph: joins spans as they arrive, counts edges, and publishes immutable snapshots.
//!
//! Membership of an edge never depends on thresholds or decay. A seen edge exists; what was not seen is
//! bounded by [`crate::miss`]. Answers are given about services: an operation inherits every edge of its
//! service, which can only enlarge them.

mod build;
mod config;
mod declare;
mod join;
mod observe;
mod permission;
mod scope;
mod seconds;
mod snapshot;
mod table;

pub use config::Config;
pub use declare::{Declared, GraphError, OperationalFact, replay};
pub use permission::{Level, Permission, Reason, ReasonKind};
pub use scope::FaultScope;
pub use seconds::{Second, Seconds, Sum};
pub use snapshot::{
    Blast, Closure, EdgeKind, EdgeView, Evidence, Hardness, NodeKind, Relation, RootView, ServiceView, Slice, Snapshot,
};

use base::Timestamp;
use join::Join;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use table::{Edge, Flow, Operation, Root, Service};

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
    config: Config,
    services: Vec<Service>,
    index: BTreeMap<String, u32>,
    operations: Vec<Operation>,
    edges: BTreeMap<u32, Edge>,
    edge_index: BTreeMap<(u32, u32), u32>,
    next_edge: u32,
    flows: BTreeMap<(u32, u32), Flow>,
    roots: BTreeMap<u32, Root>,
    roots_halved: Option<Timestamp>,
    /// (s, t): restarting s requires restarting t, by observation; how often, and whether confirmed.
    co_restarts: BTreeMap<(u32, u32), (u32, bool)>,
    join: Join,
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
            config: config.clone(),
            services: Vec::new(),
            index: BTreeMap::new(),
            operations: Vec::new(),
            edges: BTreeMap::new(),
            edge_index: BTreeMap::new(),
            next_edge: 0,
            flows: BTreeMap::new(),
            roots: BTreeMap::new(),
            roots_halved: None,
            co_restarts: BTreeMap::new(),
            join: Join::new(seed),
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
        let known = || self.edges.values().filter(|edge| edge.is_known());
        let callees: BTreeSet<u32> = known().flat_map(|edge| [edge.caller, edge.callee]).collect();
        let entered = self.roots.keys().copied().collect::<BTreeSet<_>>();
        (callees.union(&entered).count(), known().count())
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
