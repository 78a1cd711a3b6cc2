use super::table::Execution;
use crate::miss::Trial;
use crate::span::{Kind, Peer};
use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hasher};

/// Spans of one generation of the join at most.
pub(super) const JOIN_MAX: usize = 734_003;

/// Trace and span.
pub(super) type Key = (u128, u64);

/// A hasher whose seed is an argument.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seeded(pub(super) u64);

impl BuildHasher for Seeded {
    type Hasher = DefaultHasher;
    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

/// A span in the join table.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) service: u32,
    /// Its own operation until it is resolved; then its owner's.
    pub(super) operation_name: String,
    pub(super) kind: Kind,
    pub(super) start_us: u64,
    pub(super) end_us: u64,
    pub(super) error: bool,
    pub(super) authenticated: bool,
    pub(super) by_link: bool,
    pub(super) parent: Option<Key>,
    pub(super) peer: Option<Peer>,
    /// A child in another service, or one that entered, was found.
    pub(super) answered: bool,
    /// Its failure was charged to its peer's health already.
    pub(super) blamed: bool,
    /// The call was counted per second when it arrived.
    pub(super) flowed: bool,
    /// The entry was counted per second when it arrived.
    pub(super) entered: bool,
    pub(super) resolved: Option<Resolved>,
    pub(super) execution: Option<Box<Execution>>,
}

/// Where a span stands in its trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resolved {
    /// Operation of the execution it belongs to.
    pub(super) owner: u32,
    /// Entry span of that execution.
    pub(super) entry: Key,
    /// Newest birth number on the path from the root.
    pub(super) newest: u64,
    pub(super) root: Option<u32>,
    pub(super) blocking: bool,
    pub(super) lost: bool,
    pub(super) depth: u32,
}

/// What a trace did to a service so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Touch {
    pub(super) trial: Option<Trial>,
    pub(super) blocking: bool,
}

/// Two generations of everything that waits or may be asked for.
#[derive(Clone, Debug)]
pub(super) struct Join {
    /// Spans of one generation at most; more rotate it early.
    pub(super) spans_max: usize,
    pub(super) nodes: Generations<Key, Node>,
    pub(super) touches: Generations<(u128, u32), Touch>,
    /// First calls of (trace, caller span, callee).
    pub(super) firsts: Generations<(u128, u64, u32), ()>,
    /// Children by the parent they wait for.
    pub(super) waiting: HashMap<Key, Vec<Key>, Seeded>,
}

/// A map of which the older half can be dropped.
#[derive(Clone, Debug)]
pub(super) struct Generations<K, V> {
    pub(super) current: HashMap<K, V, Seeded>,
    pub(super) older: HashMap<K, V, Seeded>,
}

impl<K: Eq + std::hash::Hash, V> Generations<K, V> {
    fn new(seed: u64) -> Generations<K, V> {
        let empty = || HashMap::with_hasher(Seeded(seed));
        Generations { current: empty(), older: empty() }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.current.get(key).or_else(|| self.older.get(key))
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match self.current.get_mut(key) {
            Some(value) => Some(value),
            None => self.older.get_mut(key),
        }
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn rotate(&mut self) {
        let seed = *self.current.hasher();
        self.older = std::mem::replace(&mut self.current, HashMap::with_hasher(seed));
    }
}

impl Join {
    pub(super) fn new(seed: u64) -> Join {
        Join {
            spans_max: JOIN_MAX,
            nodes: Generations::new(seed),
            touches: Generations::new(seed),
            firsts: Generations::new(seed),
            waiting: HashMap::with_hasher(Seeded(seed)),
        }
    }

    /// Spans that have left the join wait no more; their parents may never come.
    pub(super) fn forget_waiters(&mut self) {
        let nodes = &self.nodes;
        self.waiting.retain(|_, waiters| {
            waiters.retain(|waiter| nodes.contains(waiter));
            !waiters.is_empty()
        });
    }
}
